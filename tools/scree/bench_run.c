/*
 * bench_run.c - one run of any engine: its options, the tables that parent and child share, the child.
 */
#include "bench.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMIT_IDS_MAX (1u << 26) /* of all threads: 512 MiB of address space, touched as used */

static const char *const workload_names[BENCH_WORKLOADS] = {[BENCH_FRAG_MERGE] = "frag-merge",
                                                            [BENCH_PAGE_GET] = "page-get",
                                                            [BENCH_PAGE_VIEW] = "page-view",
                                                            [BENCH_PAGE_GET_COLD] = "page-get-cold",
                                                            [BENCH_MIXED] = "mixed",
                                                            [BENCH_COMMIT] = "commit",
                                                            [BENCH_CHURN] = "churn",
                                                            [BENCH_RECOVER] = "recover",
                                                            [BENCH_BATCH_COMMIT] = "batch-commit"};

enum {
    OPT_TARGET = 256,
    OPT_SEGMENT,
    OPT_NO_PUNCH,
    OPT_DISK_LIMIT,
    OPT_SNAPSHOT_LOG,
    OPT_SAMPLES,
    OPT_PREFETCH,
    OPT_KEEP
};

static const struct argp_option option_list[] = {
    {"workload", 'w', "NAME", 0,
     "frag-merge, page-get, page-view, page-get-cold, mixed, commit, batch-commit, churn or "
     "recover",
     0},
    {"threads", 't', "N", 0, "threads (1)", 0},
    {"seconds", 's', "S", 0, "how long the timed part runs (4; churn: until it is done)", 0},
    {"n", 'n', "N", 0, "pages (100000; churn: 250000; page-get-cold: 4 x cache)", 0},
    {"page", 'p', "BYTES", 0, "a page without fragments, 64 at least (1024; churn: 4096)", 0},
    {"frag", 'f', "BYTES", 0, "a fragment, 8 at least (64)", 0},
    {"value", 'v', "BYTES", 0, "what commit writes (100)", 0},
    {"cache", 'c', "MIB", 0,
     "cache (512; churn: 64; page-get-cold with --n: a quarter of the data)", 0},
    {"prefetch", OPT_PREFETCH, "N", 0,
     "page-get-cold: pages each thread asks for ahead of their gets (none)", 0},
    {"dir", 'd', "D", 0, "only D/scree-bench is written, and removed (.)", 0},
    {"sync", 'y', "none|group", 0, "group: durable before a call returns (none; commits: group)",
     0},
    {"dist", 'i', "uniform|zipfian", 0, "keys (uniform; mixed, churn: zipfian)", 0},
    {"compress", 'z', "none|zstd[:LEVEL]", 0, "of records (none; level 3, from 1 to 19)", 0},
    {"verify", 'V', NULL, 0, "keep count of every update and check all pages exactly", 0},
    {"crash", 'C', NULL, 0, "end without a close, so that open_s is recovery", 0},
    {"seed", 'S', "S", 0, "of contents and keys (1)", 0},
    {"keep", OPT_KEEP, NULL, 0, "leave D/scree-bench there, to be looked at", 0},
    {NULL, 0, NULL, 0, "Space:", 1},
    {"target", OPT_TARGET, "X", 0, "clean until the disk is this times what lives (1.5)", 0},
    {"segment", OPT_SEGMENT, "SIZE", 0, "a segment file in MiB, or as in 64K (64)", 0},
    {"no-punch", OPT_NO_PUNCH, NULL, 0, "punch no holes, as where the file system cannot", 0},
    {"disk-limit", OPT_DISK_LIMIT, "MIB", 0, "the most the log and snapshots may take (none)", 0},
    {"snapshot-log", OPT_SNAPSHOT_LOG, "MIB", 0, "a snapshot after so much log (automatic)", 0},
    {"samples", OPT_SAMPLES, "FILE", 0, "churn: a table of what was sampled, comma-separated", 0},
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
parse_compress(const struct argp_state *state, const char *arg, struct bench_options *o)
{
    o->compress = arg;
    o->zstd_level = 0;
    if (strcmp(arg, "zstd") == 0)
        o->zstd_level = 3;
    else if (strncmp(arg, "zstd:", 5) == 0)
        o->zstd_level = (int32_t)tool_number(state, arg + 5, 1, 19);
    else if (strcmp(arg, "none") != 0)
        argp_error(state, "'%s' is not known here", arg);
}

static void
parse_word(int key, char *arg, struct argp_state *state, struct bench_options *o)
{
    static const char *const syncs[] = {"none", "group"}, *const dists[] = {"uniform", "zipfian"};

    switch (key) {
    case 'w':
        o->workload = (enum bench_workload)one_of(state, arg, workload_names, BENCH_WORKLOADS);
        o->workload_name = workload_names[o->workload];
        break;
    case 'y':
        o->group = one_of(state, arg, syncs, 2) == 1;
        o->given_sync = true;
        break;
    case 'i':
        o->zipfian = one_of(state, arg, dists, 2) == 1;
        o->given_dist = true;
        break;
    default:
        parse_compress(state, arg, o);
        break;
    }
}

static error_t
parse_space(int key, char *arg, struct argp_state *state, struct bench_options *o)
{
    switch (key) {
    case OPT_TARGET:
        o->target = tool_real(state, arg, 1.05, 100);
        return 0;
    case OPT_SEGMENT:
        o->segment_bytes = tool_size(state, arg, 64u << 10, 1ull << 40);
        return 0;
    case OPT_NO_PUNCH:
        o->no_punch = true;
        return 0;
    case OPT_DISK_LIMIT:
        o->disk_limit_bytes = tool_number(state, arg, 1, 1u << 30) << 20;
        return 0;
    case OPT_SNAPSHOT_LOG:
        o->snapshot_log_bytes = tool_number(state, arg, 1, 1u << 30) << 20;
        return 0;
    case OPT_KEEP:
        o->keep = true;
        return 0;
    case OPT_SAMPLES:
        o->samples = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void
churn_defaults(struct bench_options *o)
{
    if (!o->given_n)
        o->n = 250000;
    if (!o->given_page)
        o->page = 4096;
    if (!o->given_cache)
        o->cache_mib = 64;
}

/* What depends on several options, when all are read. */
static void
parse_end(struct argp_state *state, struct bench_options *o)
{
    if (o->workload_name == NULL)
        argp_error(state, "--workload is missing");
    if (!o->given_dist)
        o->zipfian = o->workload == BENCH_MIXED || o->workload == BENCH_CHURN;
    if (o->workload == BENCH_CHURN)
        churn_defaults(o);
    else if (o->samples != NULL)
        argp_error(state, "--samples goes with --workload churn");
    if (o->workload == BENCH_COMMIT || (o->workload == BENCH_BATCH_COMMIT && !o->given_sync))
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
    } else if (o->prefetch > 0) {
        argp_error(state, "--prefetch goes with --workload page-get-cold");
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
        o->given_seconds = true;
        return 0;
    case 'n':
        o->n = tool_number(state, arg, 1, 1u << 30);
        o->given_n = true;
        return 0;
    case 'p':
        o->page = (uint32_t)tool_number(state, arg, 64, 1u << 19);
        o->given_page = true;
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
    case OPT_PREFETCH:
        o->prefetch = (unsigned)tool_number(state, arg, 1, BENCH_PREFETCH_MAX);
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
        return parse_space(key, arg, state, o);
    }
}

void
bench_options_parse(struct bench_options *o, int argc, char **argv)
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

    *o = (struct bench_options){.threads = 1,
                                .seconds = 4,
                                .n = 100000,
                                .page = 1024,
                                .frag = 64,
                                .value = 100,
                                .cache_mib = 512,
                                .compress = "none",
                                .parent_dir = ".",
                                .seed = 1};
    (void)argp_parse(&argp, argc, argv, 0, NULL, o);
}

int
bench_run_prepare(struct bench_run *run)
{
    const struct bench_options *o = &run->options;

    bench_materializer(&run->materializer);
    run->shared = tool_shared_alloc(sizeof(*run->shared));
    run->ids = tool_shared_alloc(o->n * sizeof(uint64_t));
    run->commit_ids = tool_shared_alloc(COMMIT_IDS_MAX * sizeof(uint64_t));
    run->appends_span = 2 * o->n + 1024;
    if (o->verify && o->workload == BENCH_CHURN)
        run->puts = tool_shared_alloc(o->threads * run->appends_span * sizeof(*run->puts));
    else if (o->verify)
        run->appends = tool_shared_alloc(o->threads * run->appends_span * sizeof(*run->appends));
    if (o->workload == BENCH_BATCH_COMMIT)
        run->versions = tool_shared_alloc(run->appends_span * sizeof(*run->versions));
    if (run->shared == NULL || run->ids == NULL || run->commit_ids == NULL ||
        (o->workload == BENCH_BATCH_COMMIT && run->versions == NULL) ||
        (o->verify && run->puts == NULL && run->appends == NULL))
        return -ENOMEM;
    run->shared->commit_cap = o->workload == BENCH_COMMIT ? COMMIT_IDS_MAX / o->threads : 0;
    return tool_remove_tree(o->dir);
}

/* The child's way through; the parent learns from shared->done whether it went well. */
int
bench_run_child(struct bench_run *run, int (*child)(struct bench_run *run))
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
        if (child(run) == 0)
            atomic_store_explicit(&run->shared->done, 1, memory_order_release); /* the figures */
        _exit(0); /* with --crash: no close, no exit handlers */
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (atomic_load_explicit(&run->shared->done, memory_order_acquire) == 1)
        return 0;
    if (WIFSIGNALED(status))
        (void)fprintf(stderr, "%s: the workload died of signal %d\n", run->program,
                      WTERMSIG(status));
    return -ECHILD;
}
