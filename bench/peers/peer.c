/*
 * peer.c - the workloads of `scree bench` on another engine, with the same options and the same fields.
 *
 * As there, a child process has the engine to itself and the parent opens, times and checks what it left. What
 * an engine cannot do is refused (exit status 2), never done in another way. live_bytes is worked out, as
 * engines do not tell it: keys and values that are there, from the mean length of the pages that were checked.
 */
#include "peer.h"
#include "bench.h"

#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_BYTES 8u

/* The child's, and of the parent all but the workers. */
struct state {
    struct bench_run *run;
    void *db;
    struct bench_worker *workers[BENCH_THREADS_MAX];
    void *session;         /* the parent's */
    uint64_t looked, lens; /* pages checked, and the sum of their lengths */
};

static char program[64];

void
peer_complain(const char *what, const char *why)
{
    (void)fprintf(stderr, "%s: %s: %s\n", program, what, why);
}

size_t
peer_page_add(void *page, size_t len, uint32_t count, const void *newest, uint32_t newest_n,
              uint32_t frag_len)
{
    return bench_page_add(page, len, count, newest, newest_n, frag_len);
}

static void
setup_make(const struct bench_options *o, bool create, struct peer_setup *setup_out)
{
    *setup_out = (struct peer_setup){
        .dir = o->dir,
        .n = o->n,
        .cache_bytes = o->cache_bytes,
        .page = o->page,
        .frag = o->frag,
        .page_max = o->page + (size_t)BENCH_FRAGS_KEPT * o->frag,
        .threads = o->threads,
        .zstd_level = o->zstd_level,
        .create = create,
        .group = o->group,
        .loads = create && o->workload != BENCH_COMMIT,
        .reads = o->workload == BENCH_PAGE_GET || o->workload == BENCH_PAGE_VIEW ||
                 o->workload == BENCH_PAGE_GET_COLD,
        .mixed = o->workload == BENCH_MIXED,
        .cold = o->workload == BENCH_PAGE_GET_COLD,
        .grows = o->workload == BENCH_COMMIT,
        .crash = o->crash,
    };
    if (setup_out->page_max < o->value)
        setup_out->page_max = o->value;
}

/* Why the engine does not run this, or NULL. */
static const char *
refusal(const struct bench_options *o)
{
    if (o->workload == BENCH_PAGE_VIEW && peer_engine.view == NULL)
        return "it reads no page in place";
    if (o->workload == BENCH_BATCH_COMMIT && peer_engine.append_batch == NULL)
        return "it has no atomic batches that survive a crash";
    if (o->group && (peer_engine.can & PEER_DURABLE) == 0)
        return "it has no log: no operation by itself can be made durable";
    if (o->zstd_level != 0 && (peer_engine.can & PEER_ZSTD) == 0)
        return "it is not set up for --compress";
    if (o->segment_bytes != 0 || o->disk_limit_bytes != 0 || o->snapshot_log_bytes != 0 ||
        o->target != 0 || o->no_punch)
        return "options on space are scree's own";
    return NULL;
}

/* ---- hooks of the frame ------------------------------------------------------------------------------- */

static int
hook_worker(void *ctx, struct bench_worker *w)
{
    struct state *s = ctx;

    s->workers[w->thread] = w;
    return peer_engine.session_begin(s->db, &w->session);
}

static int
hook_load(struct bench_worker *w, uint64_t key, const void *page, uint64_t *id_out)
{
    *id_out = key;
    return peer_engine.put(w->session, key, page, w->run->options.page, false);
}

static void
sessions_end(struct state *s)
{
    for (unsigned i = 0; i < s->run->options.threads; i++)
        peer_engine.session_end(s->workers[i]->session);
}

/* What an engine reads through the page cache would be there already. */
static void
drop_page_cache(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

        if (fd >= 0) {
            (void)fsync(fd);
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            (void)close(fd);
        }
    }
    if (dir != NULL)
        (void)closedir(dir);
}

/* Reads of what is not in memory begin with an empty cache, the engine's and the system's. */
static int
hook_loaded(void *ctx)
{
    struct state *s = ctx;
    const struct bench_options *o = &s->run->options;
    struct peer_setup setup;
    int rc;

    if (o->workload == BENCH_RECOVER)
        return peer_engine.flush(s->db);
    rc = peer_engine.loaded(s->db);
    if (rc != 0 || o->workload != BENCH_PAGE_GET_COLD)
        return rc;
    sessions_end(s);
    rc = peer_engine.close(s->db);
    drop_page_cache(o->dir);
    setup_make(o, false, &setup);
    if (rc == 0)
        rc = peer_engine.open(&setup, &s->db);
    for (unsigned i = 0; rc == 0 && i < o->threads; i++)
        rc = peer_engine.session_begin(s->db, &s->workers[i]->session);
    return rc;
}

static int
hook_flush(void *ctx)
{
    struct state *s = ctx;

    return s->run->options.workload == BENCH_PAGE_GET_COLD ? 0 : peer_engine.flush(s->db);
}

/* Of a churn, where no page changes its length. */
static int
hook_stats(void *ctx, scree_stats *stats_out)
{
    const struct state *s = ctx;
    const struct bench_options *o = &s->run->options;

    memset(stats_out, 0, sizeof(*stats_out));
    stats_out->size = sizeof(*stats_out);
    stats_out->pages = o->n;
    stats_out->live_bytes = o->n * (o->page + KEY_BYTES);
    return 0;
}

static int
hook_close(void *ctx)
{
    struct state *s = ctx;

    sessions_end(s);
    return peer_engine.close(s->db);
}

static int
child(struct bench_run *run)
{
    struct state s = {.run = run};
    struct peer_setup setup;
    int rc;

    setup_make(&run->options, true, &setup);
    if (mkdir(setup.dir, 0777) != 0) {
        peer_complain(setup.dir, strerror(errno));
        return -1;
    }
    rc = peer_engine.open(&setup, &s.db);
    if (rc != 0)
        return rc;
    run->hooks = (struct bench_hooks){.ctx = &s,
                                      .worker = hook_worker,
                                      .load = hook_load,
                                      .loaded = hook_loaded,
                                      .flush = hook_flush,
                                      .stats = hook_stats,
                                      .close = hook_close};
    return bench_frame(run);
}

/* ---- the parent ---------------------------------------------------------------------------------------- */

/* ctx: a struct state. scratch is as long as a page without fragments. */
static bool
item_right(void *ctx, const struct bench_run *run, uint64_t index, unsigned char *scratch)
{
    struct state *s = ctx;
    struct peer_setup setup;
    unsigned char *page;
    size_t len = 0;
    bool right;

    setup_make(&run->options, false, &setup);
    page = malloc(setup.page_max);
    right = page != NULL &&
            peer_engine.get(s->session, bench_item_id(run, index), page, &len) == 0 &&
            bench_item_right(run, (scree_slice){page, len}, 0, index, scratch);
    free(page);
    s->looked++;
    s->lens += len;
    if (!right)
        (void)fprintf(stderr, "%s: page %" PRIu64 " is not what was written\n", program,
                      bench_item_id(run, index));
    return right;
}

static int
check(struct bench_run *run)
{
    struct bench_shared *shared = run->shared;
    uint64_t items = bench_items(run), begun = tool_now_ns();
    struct state s = {.run = run};
    struct peer_setup setup;
    double open_s;
    size_t len;
    int rc;
    unsigned char *page;

    shared->disk_bytes = tool_disk_usage(run->options.dir).bytes;
    setup_make(&run->options, false, &setup);
    page = malloc(setup.page_max);
    if (items == 0 || page == NULL) {
        peer_complain(run->options.workload_name, "no operation was finished");
        free(page);
        return -1;
    }
    rc = peer_engine.open(&setup, &s.db);
    open_s = (double)(tool_now_ns() - begun) * 1e-9;
    if (rc == 0)
        rc = peer_engine.session_begin(s.db, &s.session);
    if (rc == 0)
        rc = peer_engine.get(s.session, bench_item_id(run, 0), page, &len);
    shared->open_s = (double)(tool_now_ns() - begun) * 1e-9;
    free(page);
    if (rc != 0)
        return rc;
    shared->verified = bench_all_right(run, item_right, &s);
    peer_engine.session_end(s.session);
    rc = peer_engine.close(s.db);
    shared->ended.live_bytes = items * KEY_BYTES + s.lens * items / s.looked;
    shared->entries_s = (double)items / open_s;
    shared->replay_mb_s = (double)shared->ended.live_bytes * 1e-6 / open_s;
    return rc == 0 && shared->verified ? 0 : -1;
}

static int
line_print(const struct bench_run *run)
{
    const struct bench_shared *s = run->shared;
    struct peer_setup setup;
    double max = 0;
    json_t *line;

    setup_make(&run->options, true, &setup);
    line =
        bench_json_line(run, peer_engine.name, peer_engine.version(), peer_engine.config(&setup));
    if (line == NULL)
        return -ENOMEM;
    if (run->options.workload == BENCH_CHURN) {
        for (unsigned i = 0; i < BENCH_SAMPLES; i++) {
            const struct bench_sample *sample = &s->samples[i];
            double amp = (double)sample->disk.bytes / (double)s->ended.live_bytes;

            if (sample->taken && 2 * sample->ops >= s->ops && amp > max)
                max = amp;
        }
        (void)json_object_set_new(line, "space_amp_max", json_real(max));
    }
    bench_json_count(line, "harness_bytes", s->harness_bytes);
    bench_json_recover(line, run);
    return bench_json_print(line);
}

int
main(int argc, char **argv)
{
    struct bench_run run;
    const char *why;
    int rc;

    memset(&run, 0, sizeof(run));
    (void)snprintf(program, sizeof(program), "peer_%s", peer_engine.name);
    run.program = program;
    argp_err_exit_status = TOOL_TROUBLE;
    bench_options_parse(&run.options, argc, argv);
    why = refusal(&run.options);
    if (why != NULL) {
        (void)fprintf(stderr, "%s: refused: %s\n", program, why);
        return TOOL_TROUBLE;
    }
    rc = bench_run_prepare(&run);
    run.puts =
        NULL; /* engines have no versions: of a churn, --verify checks that pages are whole */
    if (rc == 0)
        rc = bench_run_child(&run, child);
    if (run.options.samples != NULL && bench_samples_write(&run) != 0 && rc == 0)
        rc = -EIO;
    if (rc != 0) {
        if (rc != -ECHILD) /* who ended without its figures has said why */
            peer_complain(run.options.dir, strerror(-rc));
        (void)tool_remove_tree(run.options.dir);
        return TOOL_TROUBLE;
    }
    rc = check(&run);
    if (line_print(&run) != 0)
        return TOOL_TROUBLE;
    if (rc != 0 || run.options.keep) {
        (void)fprintf(stderr, "%s: %s is kept\n", program, run.options.dir);
        return rc == 0 ? TOOL_OK : TOOL_WRONG;
    }
    return tool_remove_tree(run.options.dir) == 0 ? TOOL_OK : TOOL_TROUBLE;
}
