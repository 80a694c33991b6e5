/*
 * bench.c - `scree bench`: one workload in a child process, checked by the parent, one line of JSON.
 *
 * The child has the cache to itself, so that its memory and I/O figures are the engine's and a crash is
 * a real one; what the parent needs to check the pages lies in memory both share.
 */
#include "bench.h"

#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMIT_IDS_MAX (1u << 26) /* of all threads: 512 MiB of address space, touched as used */

/* Given by the build; a build by hand need not. */
#ifndef SCREE_BUILD_FLAGS
#define SCREE_BUILD_FLAGS "flags unknown"
#endif
#ifndef SCREE_BUILD_COMMIT
#define SCREE_BUILD_COMMIT "unknown"
#endif

static const char *const workload_names[BENCH_WORKLOADS] = {
    [BENCH_FRAG_MERGE] = "frag-merge", [BENCH_PAGE_GET] = "page-get",
    [BENCH_PAGE_VIEW] = "page-view",   [BENCH_PAGE_GET_COLD] = "page-get-cold",
    [BENCH_MIXED] = "mixed",           [BENCH_COMMIT] = "commit",
    [BENCH_RECOVER] = "recover"};

static const struct argp_option option_list[] = {
    {"workload", 'w', "NAME", 0,
     "frag-merge, page-get, page-view, page-get-cold, mixed, commit or recover", 0},
    {"threads", 't', "N", 0, "threads (1)", 0},
    {"seconds", 's', "S", 0, "how long the timed part runs (4)", 0},
    {"n", 'n', "N", 0, "pages (100000; page-get-cold: 4 x cache)", 0},
    {"page", 'p', "BYTES", 0, "a page without fragments, 64 at least (1024)", 0},
    {"frag", 'f', "BYTES", 0, "a fragment, 8 at least (64)", 0},
    {"value", 'v', "BYTES", 0, "what commit writes (100)", 0},
    {"cache", 'c', "MIB", 0, "cache (512; page-get-cold with --n: a quarter of the data)", 0},
    {"dir", 'd', "D", 0, "only D/scree-bench is written, and removed (.)", 0},
    {"sync", 'y', "none|group", 0, "group: durable before a call returns (none; commit: group)", 0},
    {"dist", 'i', "uniform|zipfian", 0, "keys (uniform; mixed: zipfian)", 0},
    {"compress", 'z', "none|zstd", 0, "of records (none)", 0},
    {"verify", 'V', NULL, 0, "count every append and check all pages exactly", 0},
    {"crash", 'C', NULL, 0, "end without a close, so that open_s is recovery", 0},
    {"seed", 'S', "S", 0, "of contents and keys (1)", 0},
    {0}};

static int
one_of(const struct argp_state *state, const char *text, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    argp_error(state, "'%s' is not known here", text);
    return 0;
}

static void
parse_word(int key, char *arg, struct argp_state *state, struct bench_options *o)
{
    static const char *const syncs[] = {"none", "group"}, *const dists[] = {"uniform", "zipfian"},
                             *const codecs[] = {"none", "zstd"};

    switch (key) {
    case 'w':
        o->workload = (enum bench_workload)one_of(state, arg, workload_names, BENCH_WORKLOADS);
        o->workload_name = workload_names[o->workload];
        break;
    case 'y':
        o->group = one_of(state, arg, syncs, 2) == 1;
        break;
    case 'i':
        o->zipfian = one_of(state, arg, dists, 2) == 1;
        o->given_dist = true;
        break;
    default:
        o->zstd = one_of(state, arg, codecs, 2) == 1;
        break;
    }
}

/* What depends on several options, when all are read. */
static void
parse_end(struct argp_state *state, struct bench_options *o)
{
    if (o->workload_name == NULL)
        argp_error(state, "--workload is missing");
    if (!o->given_dist)
        o->zipfian = o->workload == BENCH_MIXED;
    if (o->workload == BENCH_COMMIT)
        o->group = true;
    if (o->workload == BENCH_RECOVER) {
        o->crash = true;
        o->page = o->frag + 8; /* a page of a single small record */
    }
    o->cache_bytes = o->cache_mib << 20;
    if (o->workload == BENCH_PAGE_GET_COLD) {
        if (o->given_n && !o->given_cache)
            o->cache_bytes = o->n * o->page / 4;
        else if (!o->given_n)
            o->n = 4 * o->cache_bytes / o->page;
        if (o->n * o->page / 4 < o->cache_bytes)
            argp_error(state, "page-get-cold needs n x page of 4 x cache or more");
        o->cache_mib = o->cache_bytes >> 20;
    }
    if (snprintf(o->dir, sizeof(o->dir), "%s/scree-bench", o->parent_dir) >= (int)sizeof(o->dir))
        argp_error(state, "--dir is too long");
}

static error_t
bench_parse(int key, char *arg, struct argp_state *state)
{
    struct bench_options *o = state->input;

    switch (key) {
    case 'w':
    case 'y':
    case 'i':
    case 'z':
        parse_word(key, arg, state, o);
        return 0;
    case 't':
        o->threads = (unsigned)tool_number(state, arg, 1, BENCH_THREADS_MAX);
        return 0;
    case 's':
        o->seconds = tool_real(state, arg, 0.01, 86400);
        return 0;
    case 'n':
        o->n = tool_number(state, arg, 1, 1u << 30);
        o->given_n = true;
        return 0;
    case 'p':
        o->page = (uint32_t)tool_number(state, arg, 64, 1u << 19);
        return 0;
    case 'f':
        o->frag = (uint32_t)tool_number(state, arg, 8, 1u << 14);
        return 0;
    case 'v':
        o->value = (uint32_t)tool_number(state, arg, 1, 1u << 19);
        return 0;
    case 'c':
        o->cache_mib = tool_number(state, arg, 1, 1u << 20);
        o->given_cache = true;
        return 0;
    case 'd':
        o->parent_dir = arg;
        return 0;
    case 'V':
        o->verify = true;
        return 0;
    case 'C':
        o->crash = true;
        return 0;
    case 'S':
        o->seed = tool_number(state, arg, 0, UINT32_MAX);
        return 0;
    case ARGP_KEY_END:
        parse_end(state, o);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int
run_prepare(struct bench_run *run)
{
    const struct bench_options *o = &run->options;

    bench_materializer(&run->materializer);
    run->shared = tool_shared_alloc(sizeof(*run->shared));
    run->ids = tool_shared_alloc(o->n * sizeof(uint64_t));
    run->commit_ids = tool_shared_alloc(COMMIT_IDS_MAX * sizeof(uint64_t));
    run->appends_span = 2 * o->n + 1024;
    if (o->verify)
        run->appends = tool_shared_alloc(o->threads * run->appends_span * sizeof(uint32_t));
    if (run->shared == NULL || run->ids == NULL || run->commit_ids == NULL ||
        (o->verify && run->appends == NULL))
        return -ENOMEM;
    run->shared->commit_cap = o->workload == BENCH_COMMIT ? COMMIT_IDS_MAX / o->threads : 0;
    return tool_remove_tree(o->dir);
}

/* The child's way through; the parent learns from shared->done whether it went well. */
static int
run_child(struct bench_run *run)
{
    int status;
    pid_t pid;

    if (mkdir(run->options.parent_dir, 0777) != 0 && errno != EEXIST)
        return -errno;
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody would ever read its figures */
        if (bench_child(run) == 0)
            atomic_store_explicit(&run->shared->done, 1, memory_order_release); /* the figures */
        _exit(0); /* with --crash: no close, no exit handlers */
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (atomic_load_explicit(&run->shared->done, memory_order_acquire) == 1)
        return 0;
    if (WIFSIGNALED(status))
        (void)fprintf(stderr, "scree bench: the workload died of signal %d\n", WTERMSIG(status));
    return -ECHILD;
}

static void
add_latency(json_t *line, const struct bench_shared *s)
{
    static const struct {
        const char *name;
        double q;
    } quantiles[] = {{"p50_us", 0.5}, {"p99_us", 0.99}, {"p999_us", 0.999}};
    double max = (double)atomic_load_explicit(&s->latency.max, memory_order_relaxed);

    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        double ns = (double)scree__histogram_quantile(&s->latency, quantiles[i].q);

        (void)json_object_set_new(line, quantiles[i].name, json_real(ns * 1e-3));
    }
    (void)json_object_set_new(line, "max_us", json_real(max * 1e-3));
}

static double
ratio(uint64_t a, uint64_t b)
{
    return b == 0 ? 0 : (double)a / (double)b;
}

static void
add_figures(json_t *line, const struct bench_options *o, const struct bench_shared *s)
{
    json_t *figures;
    char config[512];

    (void)snprintf(config, sizeof(config), "cc %s; %s; commit %s", __VERSION__, SCREE_BUILD_FLAGS,
                   SCREE_BUILD_COMMIT);
    figures =
        json_pack("{s:I,s:I,s:f,s:I,s:I,s:f,s:I,s:I,s:I,s:f,s:f,s:f,s:b,s:s}", "disk_bytes",
                  (json_int_t)s->disk_bytes, "live_bytes", (json_int_t)s->live_bytes, "space_amp",
                  ratio(s->disk_bytes, s->live_bytes), "user_bytes", (json_int_t)s->user_bytes,
                  "device_bytes", (json_int_t)s->device_bytes, "write_amp",
                  ratio(s->device_bytes, s->user_bytes), "read_bytes",
                  (json_int_t)s->device_read_bytes, "peak_rss", (json_int_t)s->peak_rss, "rss_anon",
                  (json_int_t)s->rss_anon, "load_s", s->load_s, "close_s", s->close_s, "open_s",
                  s->open_s, "verified", (int)s->verified, "config", config);
    (void)json_object_update(line, figures);
    json_decref(figures);
    (void)json_object_set_new(line, "resident_bytes", json_integer((json_int_t)s->resident_bytes));
    if (o->workload == BENCH_RECOVER) {
        (void)json_object_set_new(line, "entries_s", json_real(s->entries_s));
        (void)json_object_set_new(line, "replay_mb_s", json_real(s->replay_mb_s));
    }
}

static int
print_line(const struct bench_options *o, const struct bench_shared *s)
{
    json_t *line = json_pack(
        "{s:s,s:s,s:s,s:I,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:I,s:f}", "engine", "scree",
        "version", scree_version_string(), "workload", o->workload_name, "threads",
        (json_int_t)o->threads, "sync", o->group ? "group" : "none", "dist",
        o->zipfian ? "zipfian" : "uniform", "cache_mib", (json_int_t)o->cache_mib, "n",
        (json_int_t)o->n, "page", (json_int_t)o->page, "frag", (json_int_t)o->frag, "value",
        (json_int_t)o->value, "compress", o->zstd ? "zstd" : "none", "seconds", s->seconds, "ops",
        (json_int_t)s->ops, "ops_s", s->seconds > 0 ? (double)s->ops / s->seconds : 0.0);
    int rc;

    if (line == NULL)
        return -ENOMEM;
    add_latency(line, s);
    add_figures(line, o, s);
    rc = json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(7));
    json_decref(line);
    return rc != 0 || putchar('\n') < 0 || fflush(stdout) != 0 ? -EIO : 0;
}

int
tool_bench(int argc, char **argv)
{
    static const struct argp argp = {
        option_list,
        bench_parse,
        NULL,
        "Runs one workload in a child process, reopens the directory, checks the pages, and prints "
        "one line of JSON.",
        0,
        0,
        0};
    struct bench_run run;
    int rc;

    memset(&run, 0, sizeof(run));
    run.options = (struct bench_options){.threads = 1,
                                         .seconds = 4,
                                         .n = 100000,
                                         .page = 1024,
                                         .frag = 64,
                                         .value = 100,
                                         .cache_mib = 512,
                                         .parent_dir = ".",
                                         .seed = 1};
    (void)argp_parse(&argp, argc, argv, 0, NULL, &run.options);
    rc = run_prepare(&run);
    if (rc == 0)
        rc = run_child(&run);
    if (rc != 0) {
        tool_complain(run.options.dir, rc);
        (void)tool_remove_tree(run.options.dir);
        return TOOL_TROUBLE;
    }
    rc = bench_check(&run);
    if (print_line(&run.options, run.shared) != 0)
        return TOOL_TROUBLE;
    if (rc != 0) {
        (void)fprintf(stderr, "scree bench: %s is kept\n", run.options.dir);
        return TOOL_WRONG;
    }
    return tool_remove_tree(run.options.dir) == 0 ? TOOL_OK : TOOL_TROUBLE;
}
