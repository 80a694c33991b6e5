/*
 * test_log_copy.c - a running log copied into another directory (log/copy.c): where the copy may end, what it
 * leaves out, what a call that fails does. Whole backups: test_backup.c.
 */
#include "log_fixture.h"

#define CHUNK (2u * SCREE_BLOCK)

static char to[KIT_PATH_MAX];

static void
setup(void)
{
    fixture_begin();
    kit_dir_name(to, "log-copy-to");
    cr_assert(mkdir(to, 0777) == 0);
}

static void
to_empty(void)
{
    kit_dir_remove(to);
    cr_assert(mkdir(to, 0777) == 0);
}

static void
cleanup(void)
{
    fixture_end();
    kit_dir_remove(to);
}

TestSuite(log_copy, .init = setup, .fini = cleanup, .timeout = 300);

struct moved {
    uint64_t bytes, calls, stop_at;
};

static int
moved_step(void *ctx, uint64_t bytes, bool moved)
{
    struct moved *m = ctx;

    (void)moved;
    m->bytes += bytes;
    return ++m->calls == m->stop_at ? SCREE_E_CANCELED : 0;
}

static int
copy_run(uint64_t end, struct moved *m)
{
    struct scree__log_copy copy = {
        .dir = to, .floor = 0, .end = end, .chunk_bytes = CHUNK, .step = moved_step, .ctx = m};

    return scree__log_copy(log_now, &copy);
}

/* The copy is a log that was closed, with so many records, and ends where it was said. */
static void
copy_holds(uint64_t records, uint64_t end)
{
    struct scree__log *of = log_now;
    struct scree__log_scan_result scan;
    int rc = fixture_scan(to, scree__log_copy_end(end), &scan);

    cr_assert(eq(int, rc, 0), "end %llu: %s", (unsigned long long)end, scree_error_detail());
    cr_assert(eq(u64, seen, records));
    cr_assert(eq(u64, pads_seen, end % SCREE_BLOCK != 0));
    cr_assert(eq(u64, scan.end, scree__log_copy_end(end)));
    cr_assert(eq(u64, scan.torn_bytes, 0));
    scree__log_destroy(log_now);
    log_now = of;
}

/* A PAD has a header, so where less than one is left of the block it takes the next block too; that may be the
   first of another segment. */
Test(log_copy, ends_anywhere_in_a_block_and_in_a_segment)
{
    static const uint64_t blocks[] = {1, 2, SEGMENT / SCREE_BLOCK, SEGMENT / SCREE_BLOCK + 1};

    for (size_t i = 0; i < 5 * sizeof blocks / sizeof blocks[0]; i++) {
        uint64_t end = SEGMENT + blocks[i / 5] * SCREE_BLOCK - 8 * (i % 5), records;
        struct moved m = {0};

        cleanup();
        setup();
        put_up_to(end);
        records = pages;
        put_more_and_sync();
        cr_assert(eq(int, copy_run(end, &m), 0), "%s", scree_error_detail());
        cr_assert(eq(u64, m.bytes, scree__log_copy_bytes(log_now, 0, end)));
        copy_holds(records, end);
    }
}

/* Two segments, and an end inside the third. */
static uint64_t
three_segments(void)
{
    uint64_t end = 3 * SEGMENT + 1000;

    put_up_to(end);
    put_more_and_sync();
    return end;
}

Test(log_copy, stops_where_the_caller_says)
{
    uint64_t end = three_segments();
    struct moved m = {.stop_at = 3};

    cr_assert(eq(int, copy_run(end, &m), SCREE_E_CANCELED));
    cr_assert(eq(u64, m.calls, 3));
}

Test(log_copy, of_a_segment_that_became_shorter_is_corrupt)
{
    uint64_t end = three_segments();
    char path[KIT_PATH_MAX + 64];
    struct moved m = {0};

    snprintf(path, sizeof(path), "%s/segment-0000000000000002", dir);
    cr_assert(truncate(path, LOG_HEADER_BYTES + 3 * SCREE_BLOCK + 100) == 0);
    cr_assert(eq(int, copy_run(end, &m), SCREE_E_CORRUPT));
    expect_detail("segment 2 ends 3996 bytes early, at offset 16484");
    to_empty();
    cr_assert(truncate(path, 100) == 0); /* not even its header is whole */
    cr_assert(eq(int, copy_run(end, &m), SCREE_E_CORRUPT));
    to_empty();
}

Test(log_copy, whose_last_block_is_gone_is_corrupt)
{
    uint64_t end = three_segments();
    char path[KIT_PATH_MAX + 64];
    struct moved m = {0};

    snprintf(path, sizeof(path), "%s/segment-0000000000000003", dir);
    cr_assert(truncate(path, LOG_HEADER_BYTES + 500) == 0);
    cr_assert(eq(int, copy_run(end, &m), SCREE_E_CORRUPT));
}

Test(log_copy, does_not_overwrite)
{
    uint64_t end = three_segments();
    struct moved m = {0};

    kit_file_write(to, "segment-0000000000000002", "mine", 4);
    cr_assert(eq(int, copy_run(end, &m), -EEXIST));
    expect_detail("segment-0000000000000002: cannot create");
}

/* Reads of the original, all that makes the copy. `files`: at least so many are made. */
static void
expect_failures(uint64_t end, unsigned kind, uint64_t files)
{
    for (uint64_t at = 1;; at++) {
        struct moved m = {0};
        int rc;

        to_empty();
        kit_env_plan(
            &(struct kit_plan){.kinds = kind, .fault = KIT_FAULT_CODE, .code = -EIO, .at = at});
        scree__fail_clear();
        rc = copy_run(end, &m);
        if (!kit_env_hit()) {
            cr_assert(eq(int, rc, 0), "%s", scree_error_detail());
            cr_assert(gt(u64, at, files));
            return;
        }
        cr_assert(eq(int, rc, -EIO), "kind %u, call %llu", kind, (unsigned long long)at);
        cr_assert(scree_error_detail()[0] != '\0');
        cr_assert(eq(int, scree__log_health(log_now), 0));
    }
}

Test(log_copy, fails_at_every_call_with_its_error)
{
    static const unsigned kinds[] = {KIT_READ, KIT_WRITE, KIT_SYNC, KIT_TRUNCATE, KIT_OPEN};
    uint64_t within = three_segments(), over, records = pages - 1;

    put_up_to(4 * SEGMENT + SEGMENT - 8); /* its pad goes over the segment's end */
    over = scree__log_tail(log_now);
    put_more_and_sync();
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        expect_failures(over, kinds[i], 4);
        expect_failures(within, kinds[i], 3);
    }
    kit_env_plan(&(struct kit_plan){0});
    copy_holds(records, within);
}

/* A hole in the copy, in the middle of a segment and at both of its ends. */
Test(log_copy, leaves_out_dead_granules)
{
    const uint64_t large = 16 * SCREE__GRANULE_BYTES, end = 3 * large - 4000;
    static const unsigned dead[] = {0, 1, 5, 8, 9, 10, 15};
    unsigned char *data, *copied;
    struct moved m = {0};
    size_t len, copied_len;

    cleanup();
    fixture_begin_with(large);
    kit_dir_name(to, "log-copy-to");
    cr_assert(mkdir(to, 0777) == 0);
    put_up_to(end);
    put_more_and_sync();
    for (size_t i = 0; i < sizeof dead / sizeof dead[0]; i++)
        scree__log_charge_dead(log_now, large + dead[i] * SCREE__GRANULE_BYTES,
                               SCREE__GRANULE_BYTES, large + 8);
    struct scree__log_copy copy = {.dir = to,
                                   .floor = scree__log_stable(log_now),
                                   .end = end,
                                   .chunk_bytes = CHUNK,
                                   .step = moved_step,
                                   .ctx = &m};

    cr_assert(eq(int, scree__log_copy(log_now, &copy), 0), "%s", scree_error_detail());
    cr_assert(eq(u64, m.bytes,
                 scree__round_up(end - large, SCREE_BLOCK) -
                     sizeof dead / sizeof dead[0] * SCREE__GRANULE_BYTES));
    cr_assert(eq(u64, m.bytes, scree__log_copy_bytes(log_now, copy.floor, end)));
    data = kit_file_read(dir, "segment-0000000000000001", &len);
    copied = kit_file_read(to, "segment-0000000000000001", &copied_len);
    cr_assert(data != NULL && copied != NULL && len == copied_len);
    for (size_t i = 0; i < sizeof dead / sizeof dead[0]; i++)
        memset(data + LOG_HEADER_BYTES + dead[i] * SCREE__GRANULE_BYTES, 0, SCREE__GRANULE_BYTES);
    cr_assert(memcmp(data, copied, len) == 0);
    free(data);
    free(copied);
}

#ifdef SCREE_ALLOC_FAULTS
Test(log_copy, every_allocation_may_fail)
{
    uint64_t end = three_segments();
    struct moved m = {0};
    uint64_t n;
    int rc = -1;

    for (n = 1; rc != 0; n++) {
        to_empty();
        scree__alloc_fault(n, 1);
        rc = copy_run(end, &m);
        scree__alloc_fault(0, 0);
        cr_assert(rc == 0 || rc == SCREE_E_NO_MEMORY, "allocation %llu: %d", (unsigned long long)n,
                  rc);
    }
    cr_assert(gt(u64, n, 2 + 3));
    copy_holds(pages - 1, end);
}
#endif
