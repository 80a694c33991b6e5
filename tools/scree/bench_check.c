/*
 * bench_check.c - the parent's part of a benchmark: reopen what the child left, time it, check it.
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
static scree_page_id
value_page(const struct bench_run *run, uint64_t index, unsigned *thread_out, uint64_t *k_out)
{
    unsigned t = 0;

    while (index >= run->shared->commit_n[t])
        index -= run->shared->commit_n[t++];
    *thread_out = t;
    *k_out = index;
    return run->commit_ids[t * run->shared->commit_cap + index];
}

/* Inside a guard. */
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

static bool
item_right(const struct bench_run *run, scree_cache *cache, uint64_t index, unsigned char *scratch)
{
    bool commit = run->options.workload == BENCH_COMMIT;
    scree_version version;
    scree_page_id id;
    scree_slice page;
    unsigned thread;
    uint64_t k;
    bool right;
    int rc;

    id = commit ? value_page(run, index, &thread, &k) : run->ids[index];
    scree_read_enter(cache);
    rc = scree_page_get(cache, id, &page, &version);
    if (commit)
        right = rc == 0 && value_right(run, page, index, scratch);
    else if (run->options.workload == BENCH_CHURN)
        right = rc == 0 && churn_right(run, page, version, index, scratch);
    else
        right = rc == 0 && page_right(run, page, index, scratch);
    scree_read_leave(cache);
    if (!right)
        (void)fprintf(stderr,
                      "scree bench: page %" PRIu64 " (number %" PRIu64 ") is wrong: %s %s\n", id,
                      index, rc != 0 ? scree_strerror(rc) : "other bytes than were written",
                      rc != 0 ? scree_error_detail() : "");
    return right;
}

static bool
all_right(const struct bench_run *run, scree_cache *cache, uint64_t total)
{
    const struct bench_options *o = &run->options;
    uint64_t longest = o->page > o->frag ? o->page : o->frag;
    unsigned char *scratch = malloc(longest > o->value ? longest : o->value);
    uint64_t checks = o->verify || total < SAMPLES ? total : SAMPLES;
    struct tool_rng rng;
    bool right = scratch != NULL;

    tool_rng_init(&rng, o->seed + 77);
    for (uint64_t i = 0; i < checks && right; i++)
        right = item_right(run, cache, checks == total ? i : tool_rng_next(&rng) % total, scratch);
    free(scratch);
    return right;
}

static void
recovery_rates(struct bench_run *run, scree_cache *cache, const scree_options *options)
{
    scree_recovery_info info;
    uint64_t from;
    double seconds;

    memset(&info, 0, sizeof(info));
    info.size = sizeof(info);
    if (scree_recovery(cache, &info) != 0 || info.elapsed_us == 0)
        return;
    seconds = (double)info.elapsed_us * 1e-6;
    /* Without a snapshot replay starts where the log does: at its second segment. */
    from = info.snapshot_lsn != 0 ? info.snapshot_lsn : options->segment_bytes;
    run->shared->entries_s = (double)info.pages / seconds;
    run->shared->replay_mb_s = (double)(info.stable_lsn - from) * 1e-6 / seconds;
}

int
bench_check(struct bench_run *run)
{
    bool commit = run->options.workload == BENCH_COMMIT;
    uint64_t total = commit ? values_total(run) : run->shared->pages, k;
    scree_options options;
    scree_cache *cache;
    scree_slice page;
    unsigned thread;
    uint64_t begun;
    int rc;

    run->shared->disk_bytes = tool_disk_usage(run->options.dir).bytes;
    if (total == 0) {
        (void)fprintf(stderr, "scree bench: no operation was finished\n");
        return SCREE_E_NOT_FOUND;
    }
    bench_open_options(run, &options);
    options.flags &= ~(uint32_t)SCREE_CREATE;
    begun = tool_now_ns();
    rc = scree_open(run->options.dir, &options, &cache);
    if (rc != 0) {
        tool_complain(run->options.dir, rc);
        return rc;
    }
    scree_read_enter(cache);
    rc = scree_page_get(cache, commit ? value_page(run, 0, &thread, &k) : run->ids[0], &page, NULL);
    scree_read_leave(cache);
    run->shared->open_s = (double)(tool_now_ns() - begun) * 1e-9;
    recovery_rates(run, cache, &options);
    if (rc != 0)
        tool_complain("first get", rc);
    run->shared->verified = rc == 0 && all_right(run, cache, total);
    rc = scree_close(cache);
    if (rc != 0)
        tool_complain("closing after the check", rc);
    return rc == 0 && run->shared->verified ? 0 : SCREE_E_CORRUPT;
}
