/*
 * bench_churn.c - churn: who does which operation, what is sampled.
 *
 * Goal: pages are overwritten until the log has been written many times over what lives; does the disk stay
 * bounded all along? Each hundredth of the operations the thread that finishes it looks at the engine's
 * own figures, if it has any, and at what the files really occupy.
 *
 * WORD  churn.next: the next operation's number, from 1 on over the whole run.
 * EDGES fetch_add relaxed, any worker: it hands out numbers, nothing travels over it. Everything else in
 *       struct bench_churn is set while no worker runs; the threads' start and end publish it.
 */
#include "bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_LAST (BENCH_SAMPLES - 1)

struct bench_churn {
    _Alignas(128) _Atomic uint64_t next;
    _Alignas(128) uint64_t first, end; /* operations of this phase: [first, end) */
    uint64_t step;                     /* a sample after this many; 0: none */
    uint64_t begun_ns, deadline_ns;
};

static pthread_mutex_t event_lock = PTHREAD_MUTEX_INITIALIZER;

void
bench_churn_event(void *ctx, const scree_event *event)
{
    struct bench_shared *s = ctx;
    uint64_t gap;

    (void)pthread_mutex_lock(&event_lock);
    if (event->kind == SCREE_EVENT_SNAPSHOT) {
        gap = s->snapshot_lsn != 0 ? event->lsn - s->snapshot_lsn : 0;
        s->snapshot_gap_max = gap > s->snapshot_gap_max ? gap : s->snapshot_gap_max;
        if (event->bytes > s->snapshot_bytes_max)
            s->snapshot_bytes_max = event->bytes;
        s->snapshot_lsn = event->lsn;
    } else if (event->kind == SCREE_EVENT_SNAPSHOT_FAILED) {
        s->snapshots_failed++;
    }
    (void)pthread_mutex_unlock(&event_lock);
}

int
bench_churn_init(struct bench_run *run)
{
    struct bench_shared *s = run->shared;
    struct bench_churn *c = aligned_alloc(_Alignof(struct bench_churn), sizeof(*c));
    int rc = run->hooks.stats(run->hooks.ctx, &s->begun);

    if (c == NULL || rc != 0)
        return rc != 0 ? rc : SCREE_E_NO_MEMORY;
    memset(c, 0, sizeof(*c));
    atomic_init(&c->next, 1);
    run->churn = c;
    (void)pthread_mutex_lock(&event_lock);
    if (s->snapshot_lsn == 0)
        s->snapshot_lsn = s->begun.tail_lsn; /* no snapshot yet: from here on log piles up */
    (void)pthread_mutex_unlock(&event_lock);
    s->log_start = s->snapshot_lsn;
    return 0;
}

static void
sample_take(struct bench_run *run, uint64_t index, uint64_t ops)
{
    struct bench_sample *sample = &run->shared->samples[index];

    sample->ops = ops;
    sample->ns = tool_now_ns() - run->churn->begun_ns;
    sample->rss = tool_proc_status_bytes("VmRSS:");
    sample->disk = tool_disk_usage(run->options.dir);
    sample->taken = run->hooks.stats(run->hooks.ctx, &sample->stats) == 0;
}

void
bench_churn_begin(struct bench_run *run, uint64_t ops, double seconds, bool sampled)
{
    struct bench_churn *c = run->churn;

    c->first = atomic_load_explicit(&c->next, memory_order_relaxed); /* no worker runs */
    c->end = c->first + ops;
    c->step = !sampled ? 0 : ops > SAMPLE_LAST ? ops / SAMPLE_LAST : 1;
    c->begun_ns = tool_now_ns();
    c->deadline_ns = seconds > 0 ? c->begun_ns + (uint64_t)(seconds * 1e9) : UINT64_MAX;
    if (sampled)
        sample_take(run, 0, 0);
}

void
bench_churn_end(struct bench_run *run)
{
    struct bench_churn *c = run->churn;
    uint64_t next = atomic_load_explicit(&c->next, memory_order_relaxed); /* no worker runs */

    sample_take(run, SAMPLE_LAST, (next < c->end ? next : c->end) - c->first);
}

uint64_t
bench_churn_take(struct bench_run *run, uint64_t *from_out)
{
    struct bench_churn *c = run->churn;
    uint64_t from;

    if (tool_now_ns() > c->deadline_ns)
        return 0;
    from = atomic_fetch_add_explicit(&c->next, BENCH_BATCH, memory_order_relaxed);
    *from_out = from;
    if (from >= c->end)
        return 0;
    return c->end - from < BENCH_BATCH ? c->end - from : BENCH_BATCH;
}

void
bench_churn_done(struct bench_run *run, uint64_t from, uint64_t n)
{
    const struct bench_churn *c = run->churn;
    uint64_t before = from - c->first, after = before + n;

    if (c->step != 0 && before / c->step != after / c->step && after / c->step < SAMPLE_LAST)
        sample_take(run, after / c->step, after);
}
