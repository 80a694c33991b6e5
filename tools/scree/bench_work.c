/*
 * bench_work.c - the timed operations.
 *
 * What the harness costs, and what it does against that: bench_loop.h.
 */
#include "bench_loop.h"

#include <string.h>

#define NO_SPACE_MS_MAX 60000u /* then the disk is taken to be full for good */

static inline int
settle(struct bench_worker *w, scree_version version)
{
    return w->run->options.group ? scree_wait_stable(w->cache, version, -1) : 0;
}

static inline int
op_frag_merge(struct bench_worker *w)
{
    const struct bench_run *run = w->run;
    uint32_t index = (uint32_t)w->at % BENCH_POOL;
    scree_page_id id = bench_next_id(w);
    uint64_t stamp = bench_fragment_stamp(id, index);
    unsigned char *frag = w->frags + (size_t)index * run->options.frag;
    scree_version version;
    int rc;

    memcpy(frag, &stamp, sizeof(stamp));
    rc = scree_page_append(w->cache, id, (scree_slice){frag, run->options.frag}, &version);
    if (rc != 0)
        return rc;
    if (run->appends != NULL)
        run->appends[w->thread * run->appends_span + (id - run->shared->id_min)]++;
    w->user_bytes += run->options.frag;
    return settle(w, version);
}

static inline int
op_page_get(struct bench_worker *w)
{
    scree_page_id id = bench_next_id(w);
    scree_slice page;
    uint64_t sum = 0, word;
    int rc;

    scree_read_enter(w->cache);
    rc = scree_page_get(w->cache, id, &page, NULL);
    if (rc == 0)
        memcpy(w->copy, page.data, page.len);
    scree_read_leave(w->cache);
    if (rc != 0)
        return rc;
    for (size_t at = 0; at + sizeof(word) <= page.len; at += 64) {
        memcpy(&word, w->copy + at, sizeof(word));
        sum += word;
    }
    w->sum += sum;
    return 0;
}

/* With --prefetch so many pages are asked for ahead, an eighth of them at a time. */
static inline int
op_page_get_ahead(struct bench_worker *w)
{
    scree_page_id ids[BENCH_PREFETCH_MAX];
    unsigned depth = w->run->options.prefetch, n = 0;
    int rc = 0;

    if (w->asked < w->at)
        w->asked = w->at;
    if (w->at + depth - w->asked >= (depth + 7) / 8) {
        for (; w->asked < w->at + depth; n++)
            ids[n] = w->draws[w->asked++ & w->draws_mask];
        rc = scree_pages_prefetch(w->cache, ids, n);
    }
    return rc != 0 ? rc : op_page_get(w);
}

static inline int
op_page_view(struct bench_worker *w)
{
    scree_page_id id = bench_next_id(w);
    scree_slice page;
    uint64_t words[8] = {0};
    int rc;

    scree_read_enter(w->cache);
    rc = scree_page_get(w->cache, id, &page, NULL);
    if (rc == 0)
        memcpy(words, page.data, sizeof(words)); /* --page is 64 at least */
    scree_read_leave(w->cache);
    w->sum += words[0] + words[1] + words[2] + words[3] + words[4] + words[5] + words[6] + words[7];
    return rc;
}

static inline int
op_mixed(struct bench_worker *w)
{
    return tool_rng_next(&w->rng) >> 63 ? op_page_get(w) : op_frag_merge(w);
}

/* A full disk is not an error of the engine's if it finds room again: cleaning works at it meanwhile. */
static int
put_again(struct bench_worker *w, scree_page_id id, scree_slice page, scree_version *version_out)
{
    int rc = SCREE_E_NO_SPACE;

    for (unsigned ms = 0; rc == SCREE_E_NO_SPACE && ms < NO_SPACE_MS_MAX; ms++) {
        /* Relaxed: a counter. */
        (void)atomic_fetch_add_explicit(&w->run->shared->no_space, 1, memory_order_relaxed);
        tool_sleep_ms(1);
        rc = scree_page_put(w->cache, id, page, version_out);
    }
    return rc;
}

static inline int
op_churn(struct bench_worker *w)
{
    const struct bench_run *run = w->run;
    uint64_t op = w->next++;
    scree_page_id id = bench_next_id(w);
    unsigned char *page = w->frags + (op % BENCH_POOL) * run->options.page;
    scree_slice slice = {page, run->options.page};
    scree_version version;
    int rc;

    bench_churn_stamp(page, op, id);
    rc = scree_page_put(w->cache, id, slice, &version);
    if (rc == SCREE_E_NO_SPACE)
        rc = put_again(w, id, slice, &version);
    if (rc != 0)
        return rc;
    if (run->puts != NULL)
        run->puts[w->thread * run->appends_span + (id - run->shared->id_min)] =
            (struct bench_put){version, op};
    w->user_bytes += run->options.page;
    return settle(w, version);
}

static inline int
op_commit(struct bench_worker *w)
{
    const struct bench_run *run = w->run;
    uint64_t k = run->shared->commit_n[w->thread];
    scree_version version;
    scree_page_id id;
    int rc;

    bench_value_make(w->copy, run->options.value, w->thread, k, run->options.seed);
    rc = scree_page_allocate(w->cache, (scree_slice){w->copy, run->options.value}, &id, &version);
    if (rc == 0)
        rc = scree_wait_stable(w->cache, version, -1);
    if (rc != 0)
        return rc;
    run->commit_ids[w->thread * run->shared->commit_cap + k] = id;
    run->shared->commit_n[w->thread] = k + 1;
    w->user_bytes += run->options.value;
    return 0;
}

/* What an engine knows of a page it has just worked on; else it is asked, without having the page merged. */
static int
version_of(struct bench_worker *w, scree_page_id id, scree_version *version_out)
{
    _Atomic uint64_t *known = &w->run->versions[id - w->run->shared->id_min];
    int rc = 0;

    *version_out =
        atomic_load_explicit(known, memory_order_relaxed); /* a guess, checked by commit */
    if (*version_out != 0)
        return 0;
    scree_read_enter(w->cache);
    rc = scree_page_fragments(w->cache, id, NULL, NULL, 0, NULL, version_out);
    scree_read_leave(w->cache);
    return rc;
}

static void
version_note(struct bench_worker *w, scree_page_id id, scree_version version)
{
    /* Relaxed: as above. */
    atomic_store_explicit(&w->run->versions[id - w->run->shared->id_min], version,
                          memory_order_relaxed);
}

/* One batch that appends a fragment to each of four pages; a conflict is tried again. */
static int
batch_once(struct bench_worker *w, const scree_page_id *ids, uint32_t index, scree_lsn *lsn_out)
{
    const struct bench_run *run = w->run;
    unsigned char *frag = w->frags + (size_t)index * run->options.frag;
    scree_batch *batch;
    int rc = scree_batch_begin(w->cache, &batch);

    if (rc != 0)
        return rc;
    for (unsigned i = 0; rc == 0 && i < BENCH_BATCH_PAGES; i++) {
        uint64_t stamp = bench_fragment_stamp(ids[i], index);
        scree_version version;

        rc = version_of(w, ids[i], &version);
        memcpy(frag, &stamp, sizeof(stamp));
        if (rc == 0)
            rc = scree_batch_merge(batch, ids[i], version, (scree_slice){frag, run->options.frag});
    }
    if (rc == 0)
        return scree_batch_commit(batch, lsn_out, NULL);
    scree_batch_abort(batch);
    return rc;
}

static inline int
op_batch_commit(struct bench_worker *w)
{
    const struct bench_run *run = w->run;
    uint32_t index = (uint32_t)w->at % BENCH_POOL;
    scree_page_id ids[BENCH_BATCH_PAGES];
    scree_lsn lsn;
    int rc;

    for (unsigned i = 0; i < BENCH_BATCH_PAGES; i++)
        ids[i] = bench_next_id(w);
    do {
        rc = batch_once(w, ids, index, &lsn);
        for (unsigned i = 0; i < BENCH_BATCH_PAGES; i++)
            version_note(w, ids[i], rc == 0 ? lsn : 0);
    } while (rc == SCREE_E_CONFLICT);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; run->appends != NULL && i < BENCH_BATCH_PAGES; i++)
        run->appends[w->thread * run->appends_span + (ids[i] - run->shared->id_min)]++;
    w->user_bytes += BENCH_BATCH_PAGES * run->options.frag;
    return settle(w, lsn);
}

void
bench_worker_run(struct bench_worker *w, uint64_t max_ops)
{
    bool every = w->run->options.group;

    switch (w->run->options.workload) {
    case BENCH_FRAG_MERGE:
        bench_loop(w, max_ops, op_frag_merge, every);
        break;
    case BENCH_PAGE_GET_COLD:
        if (w->run->options.prefetch > 0) {
            bench_loop(w, max_ops, op_page_get_ahead, every);
            break;
        }
        /* fall through */
    case BENCH_PAGE_GET:
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
