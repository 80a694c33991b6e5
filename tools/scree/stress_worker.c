/*
 * stress_worker.c - the process that gets killed: threads that work on pages and journal what they do.
 *
 * What can be seen to be wrong at once is reported here: a private page that is not exactly what its
 * owner knows, a ledger that lost one of this thread's entries or went back, an update with a stale
 * version or of a freed page that is accepted, a version that is not newer. The rest is the parent's.
 */
#include "stress.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYNC_EVERY 64u /* operations between syncs, on average */
#define SNAPSHOT_EVERY_S 0.4
#define FIGURES_MS 100u

struct worker {
    struct stress_shared *shared;
    struct stress_thread *t;
    scree_cache *cache;
    unsigned index;
    uint32_t epoch;
    struct tool_rng rng;
    uint64_t n;            /* copy of t->n */
    uint64_t last_version; /* of this thread's newest update: versions grow within a thread */
    uint64_t next_snapshot_ns;
    struct stress_slot slots[STRESS_SLOTS];
    uint64_t stale[STRESS_SLOTS]; /* the version before the present one; 0: none in this run */
    uint64_t ledger_seq[STRESS_LEDGERS];
    uint64_t ledger_count[STRESS_LEDGERS]; /* seen last: it never shrinks */
    unsigned char page[STRESS_PAGE_MAX];
    unsigned char frag[STRESS_PAGE_MAX];
};

struct worker_thread {
    pthread_t thread;
    struct worker *worker;
};

static bool
stopped(const struct worker *w)
{
    /* Relaxed: both only end loops. */
    return atomic_load_explicit(&w->shared->stop, memory_order_relaxed) != 0 ||
           atomic_load_explicit(&w->shared->wrongs, memory_order_relaxed) != 0;
}

static void
counted(struct worker *w, enum stress_kind kind, uint64_t begun_ns)
{
    /* Relaxed: figures, one writer. */
    atomic_store_explicit(&w->t->calls[kind],
                          atomic_load_explicit(&w->t->calls[kind], memory_order_relaxed) + 1,
                          memory_order_relaxed);
    scree__histogram_add(&w->t->latency[kind], tool_now_ns() - begun_ns);
}

static void
failed(struct worker *w, const char *what, uint64_t page, int rc)
{
    stress_wrong(w->shared, "thread %u: %s of page %" PRIu64 " failed: %s (%s)", w->index, what,
                 page, scree_strerror(rc), scree_error_detail());
}

/* ---- journal (EDGES in stress.h) ------------------------------------------------------------------ */

static struct stress_op *
intent(struct worker *w, enum stress_kind kind, uint32_t target, uint64_t page, uint64_t expected,
       uint64_t seq)
{
    struct stress_op *op = &w->t->journal[w->n];

    op->page = page;
    op->version = 0;
    op->expected = expected;
    op->seq = seq;
    op->target = target;
    op->kind = (uint8_t)kind;
    atomic_store_explicit(&op->state, STRESS_INTENT, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* the call that follows stays behind it */
    return op;
}

static void
refused(struct stress_op *op)
{
    atomic_store_explicit(&op->state, STRESS_IDLE, memory_order_release);
}

static void
accepted(struct worker *w, struct stress_op *op, uint64_t page, uint64_t version)
{
    if (version <= w->last_version || version <= op->expected)
        stress_wrong(w->shared,
                     "thread %u: %s of page %" PRIu64 " got version %" PRIu64
                     ", not above the thread's last %" PRIu64 " and the expected %" PRIu64,
                     w->index, stress_kind_names[op->kind], page, version, w->last_version,
                     op->expected);
    op->page = page;
    op->version = w->last_version = version;
    w->n++;
    atomic_store_explicit(&w->t->n, w->n, memory_order_release);
}

/* ---- private pages ---------------------------------------------------------------------------------- */

/* Inside a guard, or on a copy: the page is exactly what its owner knows. */
static void
private_compare(struct worker *w, uint32_t i, scree_slice page, scree_version version)
{
    const struct stress_slot *slot = &w->slots[i];
    struct stress_head head = {0};

    if (page.len >= sizeof(head))
        memcpy(&head, page.data, sizeof(head));
    if (version == slot->version && stress_page_check(page, slot->id) &&
        stress_slot_matches(slot, &head))
        return;
    stress_wrong(w->shared,
                 "thread %u: private page %" PRIu64 " reads as count %" PRIu64 " version %" PRIu64
                 " (%zu bytes, %s), must be count %" PRIu64 " version %" PRIu64,
                 w->index, slot->id, head.count, version, page.len,
                 stress_page_check(page, slot->id) ? "whole" : "not whole", slot->count,
                 slot->version);
}

static void
private_get(struct worker *w, uint32_t i)
{
    uint64_t begun = tool_now_ns();
    scree_version version;
    scree_slice page = {w->page, 0};
    int rc;

    if (tool_rng_next(&w->rng) >> 63) {
        scree_read_enter(w->cache);
        rc = scree_page_get(w->cache, w->slots[i].id, &page, &version);
        counted(w, STRESS_GET, begun);
        if (rc == 0)
            private_compare(w, i, page, version);
        scree_read_leave(w->cache);
    } else {
        rc = scree_page_read(w->cache, w->slots[i].id, w->page, sizeof(w->page), &page.len,
                             &version);
        counted(w, STRESS_GET, begun);
        if (rc == 0)
            private_compare(w, i, page, version);
    }
    if (rc != 0)
        failed(w, "get", w->slots[i].id, rc);
}

static void
private_allocate(struct worker *w, uint32_t i)
{
    struct stress_slot after = w->slots[i];
    struct stress_op *op =
        intent(w, STRESS_ALLOCATE, i, 0, 0, (uint64_t)w->slots[i].allocations + 1);
    uint64_t begun = tool_now_ns();
    scree_version version;
    scree_page_id id;
    size_t len;
    int rc;

    (void)stress_slot_apply(&after, op, w->index, w->epoch);
    len = stress_slot_page(&after, w->page);
    rc = scree_page_allocate(w->cache, (scree_slice){w->page, len}, &id, &version);
    counted(w, STRESS_ALLOCATE, begun);
    if (rc != 0) {
        refused(op);
        failed(w, "allocation", 0, rc);
        return;
    }
    accepted(w, op, id, version);
    (void)stress_slot_apply(&w->slots[i], op, w->index, w->epoch);
    w->stale[i] = 0;
}

/* The call of one update on a live private page. */
static int
private_call(struct worker *w, enum stress_kind kind, const struct stress_slot *after, uint64_t id,
             uint64_t seq, scree_version *version)
{
    size_t len;

    if (kind == STRESS_FREE)
        return scree_page_free(w->cache, id, version);
    if (kind == STRESS_SET) {
        len = stress_slot_page(after, w->page);
        if (tool_rng_next(&w->rng) >> 62 == 0)
            return scree_page_put(w->cache, id, (scree_slice){w->page, len}, version);
        return scree_page_set(w->cache, id, version, (scree_slice){w->page, len});
    }
    len = stress_fragment(id, 0, seq, w->epoch, w->frag);
    if (kind == STRESS_MERGE)
        return scree_page_merge(w->cache, id, version, (scree_slice){w->frag, len});
    return scree_page_append(w->cache, id, (scree_slice){w->frag, len}, version);
}

static void
private_update(struct worker *w, uint32_t i, enum stress_kind kind)
{
    struct stress_slot *slot = &w->slots[i], after = *slot;
    struct stress_op *op = intent(w, kind, i, slot->id, slot->version, slot->count + 1);
    scree_version version = slot->version;
    uint64_t begun = tool_now_ns();
    int rc;

    (void)stress_slot_apply(&after, op, w->index, w->epoch);
    rc = private_call(w, kind, &after, slot->id, slot->count + 1, &version);
    counted(w, kind, begun);
    if (rc != 0) {
        refused(op);
        failed(w, stress_kind_names[kind], slot->id, rc);
        return;
    }
    accepted(w, op, slot->id, version);
    w->stale[i] = stress_slot_apply(slot, op, w->index, w->epoch).version;
}

/* A version that is no longer the page's has to be refused, also after the page is gone and its id has
   perhaps come to life as another. The fragment would leave a fault in whatever page took it. */
static void
stale_update(struct worker *w, scree_page_id id, scree_version stale, scree_version current)
{
    scree_version version = stale;
    size_t len = stress_fragment(id, 0, UINT32_MAX, w->epoch, w->frag);
    int rc = scree_page_merge(w->cache, id, &version, (scree_slice){w->frag, len});

    if (current != 0 && rc == SCREE_E_CONFLICT && version == current)
        goto refused;
    if (current == 0 && (rc == SCREE_E_NOT_FOUND || (rc == SCREE_E_CONFLICT && version != stale)))
        goto refused;
    stress_wrong(w->shared,
                 "thread %u: merge into page %" PRIu64 " with stale version %" PRIu64
                 " (now %" PRIu64 ") gave %s and version %" PRIu64,
                 w->index, id, stale, current, rc == 0 ? "success" : scree_strerror(rc), version);
    return;
refused:
    atomic_store_explicit(&w->t->refusals,
                          atomic_load_explicit(&w->t->refusals, memory_order_relaxed) + 1,
                          memory_order_relaxed); /* figure, one writer */
}

static void
private_free(struct worker *w, uint32_t i)
{
    uint64_t id = w->slots[i].id, version = w->slots[i].version;

    private_update(w, i, STRESS_FREE);
    if (!stopped(w) && tool_rng_next(&w->rng) >> 62 == 0)
        stale_update(w, id, version, 0);
}

/* Cubed: the first eighth of the slots gets half of the operations. */
static uint32_t
skewed(struct worker *w, uint32_t n)
{
    double u = tool_rng_unit(&w->rng);

    return (uint32_t)(u * u * u * n);
}

static void
private_step(struct worker *w)
{
    uint32_t i = skewed(w, STRESS_SLOTS);
    uint64_t dice = tool_rng_below(&w->rng, 100);

    if (w->slots[i].id == 0)
        private_allocate(w, i);
    else if (dice < 40)
        private_get(w, i);
    else if (dice < 62)
        private_update(w, i, STRESS_APPEND);
    else if (dice < 78)
        private_update(w, i, STRESS_MERGE);
    else if (dice < 92)
        private_update(w, i, STRESS_SET);
    else if (dice < 96)
        private_free(w, i);
    else if (w->stale[i] != 0)
        stale_update(w, w->slots[i].id, w->stale[i], w->slots[i].version);
}

/* ---- ledgers ---------------------------------------------------------------------------------------- */

/* A ledger read by this thread: whole, holding all of this thread's entries, never shorter than before. */
static bool
ledger_read(struct worker *w, uint32_t l, size_t *len_out, scree_version *version_out)
{
    uint64_t begun = tool_now_ns(), id = w->shared->ledgers[l].id;
    struct stress_writer row;
    struct stress_head head;
    int rc = scree_page_read(w->cache, id, w->page, sizeof(w->page), len_out, version_out);

    counted(w, STRESS_GET, begun);
    if (rc != 0) {
        failed(w, "get", id, rc);
        return false;
    }
    memcpy(&head, w->page, sizeof(head));
    if (!stress_page_check((scree_slice){w->page, *len_out}, id)) {
        stress_wrong(w->shared,
                     "thread %u: shared page %" PRIu64 " version %" PRIu64
                     " is not whole (%zu bytes, count %" PRIu64
                     ", first fragment out of order: %" PRIx64 ")",
                     w->index, id, *version_out, *len_out, head.count, head.fault);
        return false;
    }
    memcpy(&row, w->page + sizeof(head) + w->index * sizeof(row), sizeof(row));
    if (row.seq != w->ledger_seq[l] || head.count < w->ledger_count[l]) {
        stress_wrong(w->shared,
                     "thread %u: shared page %" PRIu64 " version %" PRIu64 " shows %" PRIu64
                     " of this thread's %" PRIu64 " updates, count %" PRIu64 " after %" PRIu64
                     ": an update was lost",
                     w->index, id, *version_out, row.seq, w->ledger_seq[l], head.count,
                     w->ledger_count[l]);
        return false;
    }
    w->ledger_count[l] = head.count;
    return true;
}

/* Read, then set or merge if nobody was faster. */
static void
ledger_conditional(struct worker *w, uint32_t l, enum stress_kind kind)
{
    uint64_t id = w->shared->ledgers[l].id, seq = w->ledger_seq[l] + 1, begun;
    scree_version version, expected;
    struct stress_op *op;
    size_t len;
    int rc;

    if (!ledger_read(w, l, &len, &version))
        return;
    expected = version;
    op = intent(w, kind, l, id, expected, seq);
    begun = tool_now_ns();
    if (kind == STRESS_LEDGER_SET) {
        stress_page_add(w->page, id, w->index, seq, w->epoch);
        rc = scree_page_set(w->cache, id, &version, (scree_slice){w->page, len});
    } else {
        len = stress_fragment(id, w->index, seq, w->epoch, w->frag);
        rc = scree_page_merge(w->cache, id, &version, (scree_slice){w->frag, len});
    }
    counted(w, kind, begun);
    if (rc == 0) {
        accepted(w, op, id, version);
        w->ledger_seq[l] = seq;
        return;
    }
    refused(op);
    if (rc != SCREE_E_CONFLICT || version <= expected)
        failed(w, stress_kind_names[kind], id, rc);
    atomic_store_explicit(&w->t->conflicts,
                          atomic_load_explicit(&w->t->conflicts, memory_order_relaxed) + 1,
                          memory_order_relaxed); /* figure, one writer */
}

static void
ledger_append(struct worker *w, uint32_t l)
{
    uint64_t id = w->shared->ledgers[l].id, seq = w->ledger_seq[l] + 1;
    struct stress_op *op = intent(w, STRESS_LEDGER_APPEND, l, id, 0, seq);
    size_t len = stress_fragment(id, w->index, seq, w->epoch, w->frag);
    uint64_t begun = tool_now_ns();
    scree_version version;
    int rc = scree_page_append(w->cache, id, (scree_slice){w->frag, len}, &version);

    counted(w, STRESS_LEDGER_APPEND, begun);
    if (rc != 0) {
        refused(op);
        failed(w, "append", id, rc);
        return;
    }
    accepted(w, op, id, version);
    w->ledger_seq[l] = seq;
}

static void
ledger_step(struct worker *w)
{
    uint32_t l = skewed(w, STRESS_LEDGERS);
    uint64_t dice = tool_rng_below(&w->rng, 16);
    scree_version version;
    size_t len;

    /* Spread so that both kinds have busy and quiet pages. */
    l = l * 7 % STRESS_LEDGERS;
    if (dice == 0)
        (void)ledger_read(w, l, &len, &version);
    else if (l >= STRESS_COUNTERS)
        ledger_append(w, l);
    else
        ledger_conditional(w, l, dice < 8 ? STRESS_LEDGER_SET : STRESS_LEDGER_MERGE);
}

/* ---- durability -------------------------------------------------------------------------------------- */

static void
publish_acked(struct stress_shared *s, uint64_t lsn)
{
    uint64_t seen = atomic_load_explicit(&s->acked_lsn, memory_order_relaxed);

    while (seen < lsn && !atomic_compare_exchange_weak_explicit(
                             &s->acked_lsn, &seen, lsn, memory_order_release, memory_order_relaxed))
        ;
}

static void
sync_step(struct worker *w)
{
    uint64_t begun = tool_now_ns();
    scree_lsn stable = w->last_version;
    int rc;

    if (tool_rng_next(&w->rng) >> 63)
        rc = scree_flush(w->cache, &stable);
    else
        rc = scree_wait_stable(w->cache, w->last_version, -1);
    counted(w, STRESS_SYNC, begun);
    if (rc != 0)
        failed(w, "sync", 0, rc);
    else if (stable < w->last_version)
        stress_wrong(w->shared,
                     "thread %u: a flush reported %" PRIu64
                     " stable, but not its own version %" PRIu64,
                     w->index, stable, w->last_version);
    else
        publish_acked(w->shared, stable);
}

static void
snapshot_step(struct worker *w)
{
    uint64_t begun = tool_now_ns();
    int rc;

    if (w->index != 0 || begun < w->next_snapshot_ns)
        return;
    rc = scree_snapshot(w->cache, NULL);
    counted(w, STRESS_SNAPSHOT, begun);
    if (rc != 0)
        failed(w, "snapshot", 0, rc);
    w->next_snapshot_ns = tool_now_ns() + (uint64_t)(SNAPSHOT_EVERY_S * 1e9);
}

static void *
worker_main(void *arg)
{
    struct worker *w = arg;

    while (!stopped(w)) {
        if (w->n + 1 >= w->shared->journal_cap) {
            /* The parent ends this process and checks: then the journal is empty again. */
            atomic_store_explicit(&w->shared->journal_full, 1, memory_order_relaxed);
            tool_sleep_ms(1);
            continue;
        }
        if (tool_rng_below(&w->rng, 100) < 30)
            ledger_step(w);
        else
            private_step(w);
        if (tool_rng_below(&w->rng, SYNC_EVERY) == 0) {
            sync_step(w);
            snapshot_step(w);
        }
    }
    return NULL;
}

/* ---- the process -------------------------------------------------------------------------------------- */

static struct worker *
worker_make(struct stress_shared *s, scree_cache *cache, unsigned index)
{
    struct worker *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    w->shared = s;
    w->t = &s->thread[index];
    w->cache = cache;
    w->index = index;
    w->epoch = s->epoch;
    tool_rng_init(&w->rng, s->seed + (uint64_t)s->epoch * 1000 + index);
    w->last_version = s->version_floor;
    w->next_snapshot_ns = tool_now_ns();
    memcpy(w->slots, w->t->slots, sizeof(w->slots));
    memcpy(w->ledger_seq, w->t->ledger_seq, sizeof(w->ledger_seq));
    for (uint32_t l = 0; l < STRESS_LEDGERS; l++)
        w->ledger_count[l] = s->ledgers[l].count;
    return w;
}

static void
raise_max(_Atomic uint64_t *max, uint64_t value)
{
    if (value > atomic_load_explicit(max, memory_order_relaxed)) /* one writer at a time */
        atomic_store_explicit(max, value, memory_order_relaxed);
}

static void
publish_figures(struct stress_shared *s, scree_cache *cache)
{
    scree_stats stats;
    uint64_t lag;

    memset(&stats, 0, sizeof(stats));
    stats.size = sizeof(stats);
    if (scree_stats_get(cache, &stats) != 0)
        return;
    lag = stats.tail_lsn > stats.stable_lsn ? stats.tail_lsn - stats.stable_lsn : 0;
    /* Relaxed: figures for the progress line. */
    atomic_store_explicit(&s->resident_bytes, stats.resident_bytes, memory_order_relaxed);
    atomic_store_explicit(&s->lag_bytes, lag, memory_order_relaxed);
    raise_max(&s->resident_max, stats.resident_bytes);
    raise_max(&s->lag_max, lag);
    atomic_store_explicit(&s->evictions, stats.evictions, memory_order_relaxed);
    atomic_store_explicit(&s->consolidations, stats.consolidations, memory_order_relaxed);
    atomic_store_explicit(&s->snapshots, stats.snapshots, memory_order_relaxed);
    atomic_store_explicit(&s->cleaned_bytes, stats.cleaned_bytes, memory_order_relaxed);
    atomic_store_explicit(&s->misses, stats.misses, memory_order_relaxed);
}

static int
threads_run(struct stress_shared *s, scree_cache *cache)
{
    struct worker_thread threads[STRESS_THREADS_MAX];
    unsigned started = 0;
    int rc = 0;

    for (; started < s->threads && rc == 0; started += rc == 0) {
        threads[started].worker = worker_make(s, cache, started);
        if (threads[started].worker == NULL)
            rc = SCREE_E_NO_MEMORY;
        else
            rc = -pthread_create(&threads[started].thread, NULL, worker_main,
                                 threads[started].worker);
    }
    if (rc != 0)
        stress_wrong(s, "cannot start thread %u of %u: %s", started + 1, s->threads,
                     scree_strerror(rc));
    else
        while (!stopped(threads[0].worker)) {
            publish_figures(s, cache);
            tool_sleep_ms(FIGURES_MS);
        }
    for (unsigned i = 0; i < started; i++) {
        (void)pthread_join(threads[i].thread, NULL);
        free(threads[i].worker);
    }
    publish_figures(s, cache);
    return rc;
}

void
stress_worker(struct stress_shared *s)
{
    scree_materializer materializer;
    scree_options options;
    scree_cache *cache;
    int rc;

    stress_materializer(&materializer);
    stress_open_options(s, &materializer, &options);
    rc = scree_open(s->dir, &options, &cache);
    if (rc == 0) {
        rc = threads_run(s, cache);
        if (rc == 0)
            rc = scree_close(cache);
    }
    if (rc != 0)
        stress_wrong(s, "the worker could not go on: %s (%s)", scree_strerror(rc),
                     scree_error_detail());
    _exit(rc == 0 ? TOOL_OK : TOOL_WRONG);
}
