/*
 * loader.c - read the files of a generation back, one after the other, each on several threads.
 *
 * PROTOCOL  of a file
 *   1 reader.c opens and checks it
 *   2 its blocks are dealt out to `threads` workers, the caller being one. Each reads its block, checks
 *     its hash, decompresses, decodes and visits.
 * WORDS  load.next: index of the next block to hand out.
 *        load.failed: 1 = somebody owns load.code and load.text.
 * EDGES  step                 who         order              pairs  if it loses
 *   E0   take a block         any worker  fetch_add relaxed  -      cannot
 *   E1   failed 0 -> 1        any worker  CAS relaxed        -      another error is told, not ours
 *   E2   has anybody failed?  any worker  load relaxed       E1     seen late: a block too many
 *   All else travels by pthread_create (blocks, buffers) and pthread_join (code, text, state).
 * INVARIANTS
 *   I1 a block is visited by one worker, so ids of different calls differ: they grow across blocks.
 *   I2 code and text are written by the winner of E1 alone, and read after all workers were joined.
 *   I3 workers write disjoint parts of the state: each block's offset was fixed by the walk.
 *   I4 a file is visited when all before it were: what it adds to is there.
 * LIFETIME  of all of it: one call.   ABA: next only grows, failed is set once a file.
 * PROGRESS  workers never wait for each other. No thread to be had: the others do its share.
 * MEMORY  of one file at a time: its reader, the state (at most SCREE__SNAPSHOT_STATE_RATIO_MAX times the
 *   file), and a desk a worker.
 * FAILURE  the first error ends the load; the caller drops what was visited. Nothing is written.
 * NOT HERE  which generation to load and what to fall back to (pagecache).
 * REFS  docs/snapshot_format.md.
 */
#include "snapshot/snapshot_private.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define THREADS_MAX 64u

struct load {
    /* set before the workers start, read only from then on */
    const struct scree__snapshot_reader *reader;
    scree__snapshot_visit visit;
    void *ctx;
    unsigned char *state; /* I3; NULL: not wanted */
    /* shared by the workers */
    _Alignas(SCREE_CACHE_LINE) _Atomic size_t next; /* E0 */
    _Atomic int failed;                             /* E1, E2 */
    int code;                                       /* I2 */
    char text[512];                                 /* I2 */
};

/* ---- the work -------------------------------------------------------------------------------- */

struct worker {
    struct scree__snapshot_desk desk;
    uint64_t tombstones;
    struct load *load;
    pthread_t thread;
};

static void
worker_fail(struct load *l, int code)
{
    int none = 0;

    if (!atomic_compare_exchange_strong_explicit(&l->failed, &none, 1, memory_order_relaxed,
                                                 memory_order_relaxed)) /* E1 */
        return;
    l->code = code;
    /* The detail is this thread's; the caller's gets a copy. */
    (void)snprintf(l->text, sizeof l->text, "%s", scree_error_detail());
}

/* What the visitor finds wrong is in this block of this file, which it does not know. */
static int
entry_refused(const struct load *l, const struct scree__snapshot_noted *noted, int code)
{
    char why[256];

    if (code != SCREE_E_CORRUPT || *scree_error_detail() == '\0')
        return code;
    (void)snprintf(why, sizeof why, "%s", scree_error_detail());
    return scree__snapshot_reader_corrupt(l->reader, noted->offset, "block", why);
}

static int
worker_block(struct worker *w, const struct scree__snapshot_noted *noted)
{
    const struct load *l = w->load;
    struct scree__snapshot_entry e;
    int rc;

    if (noted->block.kind == SCREE__SNAPSHOT_BLOCK_STATE)
        return l->state ? scree__snapshot_desk_state(&w->desk, noted, l->state) : 0; /* I3 */
    rc = scree__snapshot_desk_entries(&w->desk, noted);
    while (rc == 0 && (rc = scree__snapshot_desk_next(&w->desk, &e)) == 1) {
        w->tombstones += e.n == 0;
        rc = l->visit(l->ctx, &e);
        if (rc != 0)
            return entry_refused(l, noted, rc);
    }
    return rc;
}

static void *
worker_main(void *arg)
{
    struct worker *w = arg;
    struct load *l = w->load;
    int rc = scree__snapshot_desk_init(&w->desk, l->reader);

    while (rc == 0 && !atomic_load_explicit(&l->failed, memory_order_relaxed)) { /* E2 */
        size_t i = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed); /* E0 */

        if (i >= l->reader->block_count)
            break;
        scree__fail_clear(); /* a visitor may fail without a word */
        rc = worker_block(w, &l->reader->blocks[i]);
    }
    if (rc != 0)
        worker_fail(l, rc);
    scree__snapshot_desk_clear(&w->desk);
    return NULL;
}

static int
load_work(struct load *l, unsigned threads)
{
    struct worker workers[THREADS_MAX] = {{.load = l}};
    uint64_t tombstones = 0;
    unsigned started = 1; /* the caller is workers[0] */

    while (started < threads && started < THREADS_MAX && started < l->reader->block_count) {
        workers[started].load = l;
        if (pthread_create(&workers[started].thread, NULL, worker_main, &workers[started]) != 0)
            break;
        started++;
    }
    worker_main(&workers[0]);
    for (unsigned i = 1; i < started; i++)
        (void)pthread_join(workers[i].thread, NULL); /* cannot fail: ours, joinable, joined once */
    for (unsigned i = 0; i < started; i++)
        tombstones += workers[i].tombstones;
    if (atomic_load_explicit(&l->failed, memory_order_relaxed)) /* I2: ordered by the joins */
        return scree__fail(l->code, "%s", l->text);
    if (tombstones != l->reader->trailer.tombstones)
        return scree__snapshot_reader_corrupt(l->reader,
                                              l->reader->file_bytes - SCREE__SNAPSHOT_TRAILER_BYTES,
                                              "trailer", "its sums do not agree with the entries");
    return 0;
}

/* ---- load ------------------------------------------------------------------------------------ */

static int
file_load(const struct scree__snapshot_reader *r, unsigned threads, scree__snapshot_visit visit,
          void *ctx, bool newest, struct scree__snapshot_loaded *loaded)
{
    struct load l = {.reader = r, .visit = visit, .ctx = ctx};
    uint64_t state_len = newest ? r->trailer.state_len : 0;
    int rc;

    if (state_len > 0) {
        l.state = scree__alloc(state_len);
        if (!l.state)
            return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory for its state", r->path);
    }
    rc = load_work(&l, threads);
    if (rc != 0) {
        scree__free(l.state, state_len);
        return rc;
    }
    loaded->meta = r->meta;
    loaded->state = l.state;
    loaded->state_len = state_len;
    loaded->entries += r->trailer.entries;
    loaded->tombstones += r->trailer.tombstones;
    if (r->meta.since_lsn == 0)
        loaded->full_pages = r->trailer.entries - r->trailer.tombstones;
    return 0;
}

int
scree__snapshot_load(const scree_env *env, const char *dir, const struct scree__generation *g,
                     const uint8_t uuid[16], unsigned threads, scree__snapshot_visit visit,
                     void *ctx, struct scree__snapshot_loaded *loaded_out)
{
    struct scree__snapshot_reader
        reader[2]; /* this file's, and the one's before: closed, its words kept */
    int rc = 0;

    memset(loaded_out, 0, sizeof *loaded_out);
    for (uint32_t i = 0; rc == 0 && i < g->files; i++) {
        struct scree__snapshot_reader *r = &reader[i % 2];

        rc = scree__snapshot_reader_open(r, env, dir, g, i, uuid,
                                         i > 0 ? &reader[(i - 1) % 2] : NULL);
        if (rc == 0)
            rc = file_load(r, threads, visit, ctx, i + 1 == g->files, loaded_out);
        scree__snapshot_reader_close(r);
    }
    if (rc != 0)
        memset(loaded_out, 0, sizeof *loaded_out);
    return rc;
}
