/*
 * bench_right.c - what must be there after a run, of any engine.
 *
 * 1,000 pages picked at random are compared byte by byte with what they must be. With --verify all are,
 * and the appends each page counts are compared with the calls that returned 0: equal after a clean
 * close or with --sync group, at most that after a crash without.
 */
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES 1000u

static uint64_t
values_total(const struct bench_run *run)
{
    uint64_t total = 0;

    for (unsigned t = 0; t < run->options.threads; t++)
        total += run->shared->commit_n[t];
    return total;
}

/* Value `index` of all threads' counted through. */
static uint64_t
value_page(const struct bench_run *run, uint64_t index, unsigned *thread_out, uint64_t *k_out)
{
    unsigned t = 0;

    while (index >= run->shared->commit_n[t])
        index -= run->shared->commit_n[t++];
    *thread_out = t;
    *k_out = index;
    return run->commit_ids[t * run->shared->commit_cap + index];
}

static bool
value_right(const struct bench_run *run, scree_slice page, uint64_t index, unsigned char *scratch)
{
    unsigned thread;
    uint64_t k;

    (void)value_page(run, index, &thread, &k);
    bench_value_make(scratch, run->options.value, thread, k, run->options.seed);
    return page.len == run->options.value && memcmp(page.data, scratch, page.len) == 0;
}

static bool
page_right(const struct bench_run *run, scree_slice page, uint64_t key, unsigned char *scratch)
{
    const struct bench_options *o = &run->options;
    uint32_t found;
    uint64_t counted = 0, id = run->ids[key];

    if (!bench_page_check(page, id, key, o, scratch, &found))
        return false;
    if (run->appends == NULL)
        return true;
    for (unsigned t = 0; t < o->threads; t++)
        counted += run->appends[t * run->appends_span + (id - run->shared->id_min)];
    return o->crash && !o->group ? found <= counted : found == (uint32_t)counted;
}

/* Versions grow along a page, also across threads: the largest belongs to the last put. Work of the
   library's own, cleaning above all, changes none. After a crash without --sync group an older one may
   be what is left. */
static bool
churn_right(const struct bench_run *run, scree_slice page, scree_version version, uint64_t key,
            unsigned char *scratch)
{
    const struct bench_options *o = &run->options;
    struct bench_put last = {0, 0};
    uint64_t found, id = run->ids[key];

    if (!bench_churn_check(page, id, key, o, scratch, &found))
        return false;
    if (run->puts == NULL)
        return true;
    for (unsigned t = 0; t < o->threads; t++) {
        const struct bench_put *p = &run->puts[t * run->appends_span + (id - run->shared->id_min)];

        last = p->version > last.version ? *p : last;
    }
    if (last.version == 0)
        return found == 0;
    if (o->crash && !o->group && version < last.version)
        return true;
    return found == last.op && version == last.version;
}

uint64_t
bench_items(const struct bench_run *run)
{
    return run->options.workload == BENCH_COMMIT ? values_total(run) : run->shared->pages;
}

uint64_t
bench_item_id(const struct bench_run *run, uint64_t index)
{
    unsigned thread;
    uint64_t k;

    if (run->options.workload == BENCH_COMMIT)
        return value_page(run, index, &thread, &k);
    return run->ids[index];
}

bool
bench_item_right(const struct bench_run *run, scree_slice page, scree_version version,
                 uint64_t index, unsigned char *scratch)
{
    switch (run->options.workload) {
    case BENCH_COMMIT:
        return value_right(run, page, index, scratch);
    case BENCH_CHURN:
        return churn_right(run, page, version, index, scratch);
    default:
        return page_right(run, page, index, scratch);
    }
}

bool
bench_all_right(const struct bench_run *run, bench_item_fn item, void *ctx)
{
    const struct bench_options *o = &run->options;
    uint64_t total = bench_items(run), longest = o->page > o->frag ? o->page : o->frag;
    unsigned char *scratch = malloc(longest > o->value ? longest : o->value);
    uint64_t checks = o->verify || total < SAMPLES ? total : SAMPLES;
    struct tool_rng rng;
    bool right = scratch != NULL;

    tool_rng_init(&rng, o->seed + 77);
    for (uint64_t i = 0; i < checks && right; i++)
        right = item(ctx, run, checks == total ? i : tool_rng_next(&rng) % total, scratch);
    free(scratch);
    return right;
}
