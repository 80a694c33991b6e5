/*
 * bench_check.c - the parent's part of `scree bench`: reopen what the child left, time it, check it.
 */
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ctx: the cache */
static bool
item_right(void *ctx, const struct bench_run *run, uint64_t index, unsigned char *scratch)
{
    uint64_t id = bench_item_id(run, index);
    scree_cache *cache = ctx;
    scree_version version;
    scree_slice page;
    bool right;
    int rc;

    scree_read_enter(cache);
    rc = scree_page_get(cache, id, &page, &version);
    right = rc == 0 && bench_item_right(run, page, version, index, scratch);
    scree_read_leave(cache);
    if (!right)
        (void)fprintf(stderr,
                      "scree bench: page %" PRIu64 " (number %" PRIu64 ") is wrong: %s %s\n", id,
                      index, rc != 0 ? scree_strerror(rc) : "other bytes than were written",
                      rc != 0 ? scree_error_detail() : "");
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
    scree_options options;
    scree_cache *cache;
    scree_slice page;
    uint64_t begun;
    int rc;

    run->shared->disk_bytes = tool_disk_usage(run->options.dir).bytes;
    if (bench_items(run) == 0) {
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
    rc = scree_page_get(cache, bench_item_id(run, 0), &page, NULL);
    scree_read_leave(cache);
    run->shared->open_s = (double)(tool_now_ns() - begun) * 1e-9;
    recovery_rates(run, cache, &options);
    if (rc != 0)
        tool_complain("first get", rc);
    run->shared->verified = rc == 0 && bench_all_right(run, item_right, cache);
    rc = scree_close(cache);
    if (rc != 0)
        tool_complain("closing after the check", rc);
    return rc == 0 && run->shared->verified ? 0 : SCREE_E_CORRUPT;
}
