/*
 * test_ids.c - the contract of scree_id_next. What crashes leave is crash_ids's matter.
 */
#include "cache_fixture.h"

static void
setup(void)
{
    kit_dir_name(dir, "ids");
    kit_options_small(&options, &kit_concat);
    open_cache();
}

TestSuite(ids, .init = setup, .fini = teardown, .timeout = 300);

static uint64_t
next(void)
{
    uint64_t id;

    EXPECT(0, scree_id_next(cache, &id));
    return id;
}

Test(ids, grow_by_one_from_one)
{
    for (uint64_t i = 1; i <= 300000; i++)
        cr_assert(next() == i);
}

Test(ids, go_on_behind_a_clean_close_without_a_gap)
{
    for (uint64_t i = 1; i <= 1000; i++) {
        cr_assert(next() == i);
        if (i % 100 == 0) {
            EXPECT(0, scree_close(cache));
            EXPECT(0, scree_open(dir, &options, &cache));
        }
    }
}

Test(ids, survive_snapshots_and_opens_that_ask_for_none)
{
    uint64_t last = next();

    for (int i = 0; i < 20; i++) {
        EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, kit_slice("x", 1), NULL));
        EXPECT(0, scree_snapshot(cache, NULL));
        EXPECT(0, scree_close(cache));
        EXPECT(0, scree_open(dir, &options, &cache));
        if (i % 3 == 0) {
            uint64_t id = next();

            cr_assert(id > last && id <= last + 131072);
            last = id;
        }
    }
}

Test(ids, take_one_record_a_range)
{
    scree_stats before = {.size = sizeof before}, after = {.size = sizeof after};

    for (int i = 0; i < 200000; i++)
        (void)next();
    EXPECT(0, scree_flush(cache, NULL));
    EXPECT(0, scree_stats_get(cache, &before));
    for (int i = 0; i < 300000; i++) /* 5 or 6 ranges; each sync fills up its block */
        (void)next();
    EXPECT(0, scree_flush(cache, NULL));
    EXPECT(0, scree_stats_get(cache, &after));
    cr_assert(after.log_bytes - before.log_bytes <= 7 * 2 * 4096, "%llu bytes",
              (unsigned long long)(after.log_bytes - before.log_bytes));
    cr_assert(after.live_bytes <= before.live_bytes + 4096, "their records are not dead");
}

Test(ids, are_durable_on_return)
{
    uint64_t id = next();
    scree_lsn stable = scree_stable_lsn(cache);
    scree_stats stats = {.size = sizeof stats};

    (void)id;
    EXPECT(0, scree_stats_get(cache, &stats));
    cr_assert(stable > 65536 && stable == stats.tail_lsn); /* nothing else was written */
}

Test(ids, come_in_a_guard_and_without_a_flush_interval)
{
    EXPECT(0, scree_close(cache));
    options.flush_interval_ms = 0;
    EXPECT(0, scree_open(dir, &options, &cache));
    scree_read_enter(cache);
    for (uint64_t i = 1; i <= 2000; i++)
        cr_assert(next() == i);
    scree_read_leave(cache);
}

Test(ids, mistakes_are_told)
{
    uint64_t id = 7;

    EXPECT(SCREE_E_INVALID, scree_id_next(cache, NULL));
    EXPECT(SCREE_E_INVALID, scree_id_next(NULL, &id));
    cr_assert(id == 0);
}

Test(ids, a_read_only_cache_has_none)
{
    uint64_t id = 7;

    EXPECT(0, scree_close(cache));
    options.flags = SCREE_READ_ONLY;
    EXPECT(0, scree_open(dir, &options, &cache));
    EXPECT(SCREE_E_READ_ONLY, scree_id_next(cache, &id));
    cr_assert(id == 0);
}

Test(ids, a_poisoned_cache_has_none)
{
    struct kit_plan plan = {
        .kinds = KIT_WRITE | KIT_SYNC, .fault = KIT_FAULT_STUCK, .code = -5, .at = 1};
    uint64_t id = 7;
    int rc;

    EXPECT(0, scree_close(cache));
    options.env = kit_env();
    EXPECT(0, scree_open(dir, &options, &cache));
    (void)next();
    kit_env_plan(&plan);
    while ((rc = scree_id_next(cache, &id)) == 0)
        ;
    cr_assert(rc == SCREE_E_POISONED && id == 0);
    EXPECT(SCREE_E_POISONED, scree_id_next(cache, &id));
    kit_env_plan(&(struct kit_plan){.kinds = 0});
    (void)scree_close(cache);
    EXPECT(0, scree_open(dir, &options, &cache));
    (void)next();
}
