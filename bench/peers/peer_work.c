/*
 * peer_work.c - the timed operations of bench_work.c, on another engine.
 *
 * The loop around them, the keys, and what is written are scree's own benchmark's. A call through the table
 * costs about 1 ns more than scree's, which is called directly.
 */
#include "bench_loop.h"
#include "peer.h"

#include <string.h>

static _Atomic uint64_t values; /* commit: records there are; relaxed, it only hands out numbers */

static inline int
op_frag_merge(struct bench_worker *w)
{
    const struct bench_run *run = w->run;
    uint32_t index = (uint32_t)w->at % BENCH_POOL;
    uint64_t id = bench_next_id(w);
    uint64_t stamp = bench_fragment_stamp(id, index);
    unsigned char *frag = w->frags + (size_t)index * run->options.frag;
    int rc;

    memcpy(frag, &stamp, sizeof(stamp));
    rc = peer_engine.append(w->session, id, frag, run->options.group);
    if (rc != 0)
        return rc;
    if (run->appends != NULL)
        run->appends[w->thread * run->appends_span + (id - run->shared->id_min)]++;
    w->user_bytes += run->options.frag;
    return 0;
}

static inline int
op_page_get(struct bench_worker *w)
{
    uint64_t sum = 0, word;
    size_t len = 0;
    int rc = peer_engine.get(w->session, bench_next_id(w), w->copy, &len);

    for (size_t at = 0; at + sizeof(word) <= len; at += 64) {
        memcpy(&word, w->copy + at, sizeof(word));
        sum += word;
    }
    w->sum += sum;
    return rc;
}

static inline int
op_page_view(struct bench_worker *w)
{
    uint64_t words[8] = {0};
    int rc = peer_engine.view(w->session, bench_next_id(w), words);

    w->sum += words[0] + words[1] + words[2] + words[3] + words[4] + words[5] + words[6] + words[7];
    return rc;
}

static inline int
op_mixed(struct bench_worker *w)
{
    return tool_rng_next(&w->rng) >> 63 ? op_page_get(w) : op_frag_merge(w);
}

static inline int
op_churn(struct bench_worker *w)
{
    const struct bench_options *o = &w->run->options;
    uint64_t op = w->next++, id = bench_next_id(w);
    unsigned char *page = w->frags + (op % BENCH_POOL) * o->page;
    int rc;

    bench_churn_stamp(page, op, id);
    rc = peer_engine.put(w->session, id, page, o->page, o->group);
    w->user_bytes += rc == 0 ? o->page : 0;
    return rc;
}

static inline int
op_commit(struct bench_worker *w)
{
    const struct bench_run *run = w->run;
    uint64_t k = run->shared->commit_n[w->thread];
    uint64_t id = atomic_fetch_add_explicit(&values, 1, memory_order_relaxed);
    int rc;

    bench_value_make(w->copy, run->options.value, w->thread, k, run->options.seed);
    rc = peer_engine.put(w->session, id, w->copy, run->options.value, true);
    if (rc != 0)
        return rc;
    run->commit_ids[w->thread * run->shared->commit_cap + k] = id;
    run->shared->commit_n[w->thread] = k + 1;
    w->user_bytes += run->options.value;
    return 0;
}

static inline int
op_batch_commit(struct bench_worker *w)
{
    const struct bench_run *run = w->run;
    uint32_t len = run->options.frag;
    uint64_t ids[BENCH_BATCH_PAGES];
    const void *frags[BENCH_BATCH_PAGES];
    int rc;

    for (unsigned i = 0; i < BENCH_BATCH_PAGES; i++) {
        uint32_t index = (uint32_t)w->at % BENCH_POOL;
        unsigned char *frag = w->frags + (size_t)index * len;
        uint64_t stamp;

        ids[i] = bench_next_id(w);
        stamp = bench_fragment_stamp(ids[i], index);
        memcpy(frag, &stamp, sizeof(stamp));
        frags[i] = frag;
    }
    rc = peer_engine.append_batch(w->session, ids, frags, BENCH_BATCH_PAGES, run->options.group);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; run->appends != NULL && i < BENCH_BATCH_PAGES; i++)
        run->appends[w->thread * run->appends_span + (ids[i] - run->shared->id_min)]++;
    w->user_bytes += BENCH_BATCH_PAGES * len;
    return 0;
}

void
bench_worker_run(struct bench_worker *w, uint64_t max_ops)
{
    bool every = w->run->options.group;

    switch (w->run->options.workload) {
    case BENCH_FRAG_MERGE:
        bench_loop(w, max_ops, op_frag_merge, every);
        break;
    case BENCH_PAGE_GET:
    case BENCH_PAGE_GET_COLD:
        bench_loop(w, max_ops, op_page_get, every);
        break;
    case BENCH_PAGE_VIEW:
        bench_loop(w, max_ops, op_page_view, every);
        break;
    case BENCH_MIXED:
        bench_loop(w, max_ops, op_mixed, every);
        break;
    case BENCH_COMMIT:
        bench_loop(w, max_ops, op_commit, true);
        break;
    case BENCH_BATCH_COMMIT:
        bench_loop(w, max_ops, op_batch_commit, every);
        break;
    case BENCH_CHURN:
        bench_loop_churn(w, op_churn, every);
        break;
    case BENCH_RECOVER: /* its work is the load */
    case BENCH_WORKLOADS:
        break;
    }
}
