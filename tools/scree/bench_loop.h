/*
 * bench_loop.h - the loop around an operation, the same for every engine.
 *
 * The harness has to cost a few ns where an operation costs forty: page ids are drawn beforehand into
 * a table that is read in order, fragments are made beforehand and only stamped, the clock is looked at
 * once in 64 operations (always where an operation is durable, so slow), and each workload has a loop of
 * its own into which its operation is inlined.
 */
#ifndef SCREE_BENCH_LOOP_H
#define SCREE_BENCH_LOOP_H

#include "bench.h"

typedef int (*bench_op)(struct bench_worker *w);

static inline uint64_t
bench_next_id(struct bench_worker *w)
{
    return w->draws[w->at++ & w->draws_mask];
}

static inline __attribute__((always_inline)) void
bench_loop(struct bench_worker *w, uint64_t max_ops, bench_op op, bool every)
{
    uint64_t ops = 0;
    int rc = 0;

    while (rc == 0 && ops < max_ops &&
           atomic_load_explicit(w->stop, memory_order_relaxed) == 0) { /* only ends the loop */
        uint64_t start = tool_now_ns();
        uint64_t batch = every ? 1 : max_ops - ops < BENCH_BATCH ? max_ops - ops : BENCH_BATCH;

        rc = op(w);
        scree__histogram_add(w->latency, tool_now_ns() - start);
        ops += rc == 0;
        for (uint64_t i = 1; i < batch && rc == 0; i++) {
            rc = op(w);
            ops += rc == 0;
        }
    }
    w->ops += ops;
    w->error = rc;
}

/* Operations have numbers, handed out in batches to whoever comes. */
static inline __attribute__((always_inline)) void
bench_loop_churn(struct bench_worker *w, bench_op op, bool every)
{
    uint64_t from, n;

    while (w->error == 0 && atomic_load_explicit(w->stop, memory_order_relaxed) == 0 &&
           (n = bench_churn_take(w->run, &from)) > 0) {
        w->next = from;
        bench_loop(w, n, op, every);
        if (w->error == 0)
            bench_churn_done(w->run, from, n);
    }
}

#endif
