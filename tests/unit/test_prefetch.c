/*
 * test_prefetch.c - many pages at a time: scree_pages_prefetch and scree_pages_get.
 */
#include "unit/cache_fixture.h"
#include "unit/claims.h"
#ifdef SCREE_ALLOC_FAULTS
#include "base/base.h"
#endif

#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#define PAGES 100u
#define MANY 5000u /* more than may wait */

static scree_env env;
/* Of read_many since the last open; relaxed: figures. */
static _Atomic uint64_t calls, widest, records;
static _Atomic uint32_t held; /* reads do not go on */
static _Atomic int refused;   /* what they give, if not 0 */

static int
env_read_many(void *ctx, scree_env_read *reads, size_t n)
{
    const scree_env *posix = ctx;
    uint64_t seen = atomic_load_explicit(&widest, memory_order_relaxed);
    int rc = atomic_load_explicit(&refused, memory_order_relaxed);

    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&records, n, memory_order_relaxed);
    while (seen < n && !atomic_compare_exchange_weak_explicit(
                           &widest, &seen, n, memory_order_relaxed, memory_order_relaxed))
        ;
    while (atomic_load_explicit(&held, memory_order_relaxed) != 0)
        usleep(100);
    return rc != 0 ? rc : posix->read_many(posix->ctx, reads, n);
}

static void
setup(void)
{
    env = *scree_env_posix();
    env.ctx = (void *)(uintptr_t)scree_env_posix();
    env.read_many = env_read_many;
    kit_dir_name(dir, "prefetch");
    kit_options_small(&options, &kit_concat);
    options.cache_bytes = (uint64_t)16 << 20;
    options.segment_bytes = (uint64_t)4 << 20;
    options.space_amp_target = 100; /* no cleaning, which would read too */
    options.env = &env;
    open_cache();
}

TestSuite(prefetch, .init = setup, .fini = teardown, .timeout = 300);

/* ---- pages: id i is "i" and every third has a fragment more ---- */

static scree_page_id ids[MANY];

static void
page_text(scree_page_id id, char *to, size_t cap)
{
    (void)snprintf(to, cap, id % 3 == 0 ? "%llu+" : "%llu", (unsigned long long)id);
}

static void
pages_make(size_t n)
{
    char bytes[32];
    int len;

    for (size_t i = 0; i < n; i++) {
        ids[i] = 2 + i;
        len = snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)ids[i]);
        EXPECT(0, scree_page_allocate_at(cache, ids[i], kit_slice(bytes, (size_t)len), NULL));
        if (ids[i] % 3 == 0)
            EXPECT(0, scree_page_append(cache, ids[i], text("+"), NULL));
    }
}

/* All pages leave memory. */
static void
pages_leave(void)
{
    reopen();
    atomic_store_explicit(&calls, 0, memory_order_relaxed);
    atomic_store_explicit(&widest, 0, memory_order_relaxed);
    atomic_store_explicit(&records, 0, memory_order_relaxed);
}

static void
page_is_right(scree_page_id id, scree_slice page)
{
    char bytes[32];

    page_text(id, bytes, sizeof(bytes));
    cr_assert(eq(sz, page.len, strlen(bytes)), "page %llu", (unsigned long long)id);
    cr_assert(eq(int, memcmp(page.data, bytes, page.len), 0), "page %llu", (unsigned long long)id);
}

static void
pages_are_right(size_t n)
{
    scree_slice page;

    for (size_t i = 0; i < n; i++) {
        scree_read_enter(cache);
        EXPECT(0, scree_page_get(cache, ids[i], &page, NULL));
        page_is_right(ids[i], page);
        scree_read_leave(cache);
    }
}

static double stat_value;

static int
stat_find(void *ctx, const char *name, double value)
{
    if (strcmp(ctx, name) == 0)
        stat_value = value;
    return 0;
}

static uint64_t
stat_of(const char *name)
{
    stat_value = -1;
    EXPECT(0, scree_stats_each(cache, stat_find, (void *)(uintptr_t)name));
    cr_assert(stat_value >= 0, "no figure %s", name);
    return (uint64_t)stat_value;
}

static void
each_record_was_read_once(size_t n)
{
    uint64_t wanted = n;

    for (size_t i = 0; i < n; i++)
        wanted += ids[i] % 3 == 0;
    cr_assert(eq(u64, atomic_load_explicit(&records, memory_order_relaxed), wanted));
}

static void
misses_reach(uint64_t n)
{
    for (int i = 0; i < 20000 && stats_now().misses < n; i++)
        usleep(1000);
    cr_assert(ge(u64, stats_now().misses, n));
}

/* ---- prefetch ---- */

Test(prefetch, pages_asked_for_are_there_without_a_read_more)
{
    uint64_t before;

    pages_make(PAGES);
    pages_leave();
    EXPECT(0, scree_pages_prefetch(cache, ids, PAGES));
    misses_reach(PAGES);
    pages_are_right(PAGES); /* waits for what is still under way */
    before = atomic_load_explicit(&calls, memory_order_relaxed);
    each_record_was_read_once(PAGES);
    cr_assert(eq(u64, stat_of("misses_together"), PAGES));
    cr_assert(lt(u64, before, PAGES / 4)); /* side by side */
}

Test(prefetch, the_call_does_not_wait_for_reads)
{
    pages_make(PAGES);
    pages_leave();
    atomic_store_explicit(&held, 1, memory_order_relaxed);
    EXPECT(0, scree_pages_prefetch(cache, ids, PAGES));
    EXPECT(0, scree_pages_prefetch(cache, ids, PAGES));
    atomic_store_explicit(&held, 0, memory_order_relaxed);
    pages_are_right(PAGES);
    each_record_was_read_once(PAGES); /* whoever asked */
}

Test(prefetch, what_is_beyond_the_bound_is_left_to_the_gets)
{
    pages_make(MANY);
    pages_leave();
    atomic_store_explicit(&held, 1, memory_order_relaxed);
    EXPECT(0, scree_pages_prefetch(cache, ids, MANY));
    cr_assert(gt(u64, stat_of("prefetch_left_out"), 0));
    atomic_store_explicit(&held, 0, memory_order_relaxed);
    pages_are_right(MANY);
}

Test(prefetch, in_memory_free_or_never_there_is_passed_over)
{
    scree_page_id none[] = {2, 3, 50, 77777, UINT64_C(1) << 40, SCREE_PAGE_ROOT};
    scree_version version = 0;

    pages_make(PAGES);
    EXPECT(SCREE_E_TOO_BIG, scree_page_read(cache, 50, NULL, 0, NULL, &version));
    EXPECT(0, scree_page_free(cache, 50, &version));
    pages_are_right(2);
    EXPECT(0, scree_pages_prefetch(cache, none, 6));
    EXPECT(0, scree_pages_prefetch(cache, NULL, 0));
    cr_assert(eq(u64, stats_now().misses, 0));
}

Test(prefetch, mistakes_are_told)
{
    scree_page_id bad[] = {2, 0};
    scree_slice pages[2];
    int codes[2] = {7, 7};

    EXPECT(SCREE_E_INVALID, scree_pages_prefetch(NULL, ids, 1));
    EXPECT(SCREE_E_INVALID, scree_pages_prefetch(cache, NULL, 1));
    EXPECT(SCREE_E_INVALID, scree_pages_prefetch(cache, bad, 2));
    EXPECT(SCREE_E_INVALID, scree_pages_get(NULL, ids, 1, pages, NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_pages_get(cache, bad, 1, pages, NULL, NULL)); /* no guard */
    scree_read_enter(cache);
    EXPECT(SCREE_E_INVALID, scree_pages_get(cache, NULL, 1, pages, NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_pages_get(cache, bad, 2, pages, NULL, codes));
    cr_assert(eq(int, codes[0], SCREE_E_INVALID));
    cr_assert(eq(int, codes[1], SCREE_E_INVALID));
    cr_assert(eq(ptr, (void *)(uintptr_t)pages[0].data, NULL));
    EXPECT(0, scree_pages_get(cache, NULL, 0, NULL, NULL, NULL));
    scree_read_leave(cache);
}

Test(prefetch, a_read_that_fails_is_told_by_the_get)
{
    scree_slice page;

    pages_make(PAGES);
    pages_leave();
    atomic_store_explicit(&refused, -EIO, memory_order_relaxed);
    EXPECT(0, scree_pages_prefetch(cache, ids, PAGES));
    scree_read_enter(cache);
    EXPECT(-EIO, scree_page_get(cache, ids[0], &page, NULL));
    scree_read_leave(cache);
    misses_reach(PAGES + 1);
    atomic_store_explicit(&refused, 0, memory_order_relaxed);
    pages_are_right(PAGES);
}

Test(prefetch, close_waits_for_reads_under_way_and_drops_the_others)
{
    pages_make(MANY);
    for (int i = 0; i < 5; i++) {
        pages_leave();
        EXPECT(0, scree_pages_prefetch(cache, ids, MANY));
    }
    pages_leave();
    pages_are_right(MANY);
}

Test(prefetch, of_a_cache_that_is_read_only)
{
    pages_make(PAGES);
    options.flags = SCREE_READ_ONLY;
    pages_leave();
    EXPECT(0, scree_pages_prefetch(cache, ids, PAGES));
    pages_are_right(PAGES);
    each_record_was_read_once(PAGES);
}

/* ---- get ---- */

Test(prefetch, pages_are_got_together)
{
    scree_slice page[PAGES];
    scree_version version[PAGES], one;
    int code[PAGES];

    pages_make(PAGES);
    pages_leave();
    scree_read_enter(cache);
    EXPECT(0, scree_pages_get(cache, ids, PAGES, page, version, code));
    for (size_t i = 0; i < PAGES; i++) {
        page_is_right(ids[i], page[i]);
        cr_assert(eq(int, code[i], 0));
        EXPECT(0, scree_page_get(cache, ids[i], NULL, &one));
        cr_assert(eq(u64, one, version[i]));
    }
    scree_read_leave(cache);
    cr_assert(eq(u64, stats_now().misses, PAGES));
    cr_assert(eq(u64, atomic_load_explicit(&calls, memory_order_relaxed), (PAGES + 31) / 32));
    cr_assert(ge(u64, atomic_load_explicit(&widest, memory_order_relaxed), 32));
}

Test(prefetch, cold_warm_doubled_free_and_appended_to_all_in_one)
{
    scree_page_id mix[] = {5, 7, 5, 40, 99999, 9, 9, 11};
    scree_version version[8];
    scree_slice page[8];
    int code[8];

    pages_make(PAGES);
    pages_leave();
    EXPECT(SCREE_E_TOO_BIG, scree_page_read(cache, 40, NULL, 0, NULL, &version[3]));
    EXPECT(0, scree_page_free(cache, 40, &version[3]));
    EXPECT(0, scree_page_append(cache, 9, text("!"), NULL)); /* on top of what is cold */
    EXPECT(0, scree_page_append(cache, 11, text("!"), NULL));
    scree_read_enter(cache);
    EXPECT(0, scree_page_get(cache, 7, NULL, NULL));
    EXPECT(SCREE_E_NOT_FOUND, scree_pages_get(cache, mix, 8, page, version, code));
    cr_assert(ne(ptr, strstr(scree_error_detail(), "page 40 "), NULL), "%s", scree_error_detail());
    for (int i = 0; i < 8; i++)
        cr_assert(eq(int, code[i], mix[i] == 40 || mix[i] == 99999 ? SCREE_E_NOT_FOUND : 0));
    page_is_right(5, page[0]);
    page_is_right(7, page[1]);
    cr_assert(eq(ptr, (void *)(uintptr_t)page[0].data, (void *)(uintptr_t)page[2].data));
    cr_assert(eq(ptr, (void *)(uintptr_t)page[3].data, NULL));
    cr_assert(eq(u64, version[4], 0));
    cr_assert(eq(int, memcmp(page[5].data, "9+!", 3), 0));
    cr_assert(eq(sz, page[6].len, 3));
    cr_assert(eq(int, memcmp(page[7].data, "11!", 3), 0));
    EXPECT(SCREE_E_NOT_FOUND, scree_pages_get(cache, mix, 8, NULL, NULL, NULL));
    scree_read_leave(cache);
}

Test(prefetch, of_pages_that_cannot_be_read_the_first_is_told)
{
    scree_slice page[PAGES];
    int code[PAGES];

    pages_make(PAGES);
    pages_leave();
    atomic_store_explicit(&refused, -EIO, memory_order_relaxed);
    scree_read_enter(cache);
    EXPECT(-EIO, scree_pages_get(cache, ids, PAGES, page, NULL, code));
    for (size_t i = 0; i < PAGES; i++)
        cr_assert(eq(int, code[i], -EIO));
    atomic_store_explicit(&refused, 0, memory_order_relaxed);
    EXPECT(0, scree_pages_get(cache, ids, PAGES, page, NULL, code));
    for (size_t i = 0; i < PAGES; i++)
        page_is_right(ids[i], page[i]);
    scree_read_leave(cache);
}

#ifdef SCREE_ALLOC_FAULTS
/* Every page cold, under fragments that are in memory: each arrival gives up what was there. */
static void
pages_leave_under_fragments(void)
{
    char bytes[32];

    for (size_t i = 0; i < PAGES; i++) { /* one record each */
        page_text(ids[i], bytes, sizeof(bytes));
        EXPECT(0, scree_page_put(cache, ids[i], text(bytes), NULL));
    }
    pages_leave();
    for (size_t i = 0; i < PAGES; i++)
        EXPECT(0, scree_page_append(cache, ids[i], text(""), NULL));
}

Test(prefetch, want_of_memory_at_any_point_is_told_and_harms_nothing)
{
    scree_slice page[PAGES];
    int code[PAGES], rc = -1;

    pages_make(PAGES);
    for (uint64_t nth = 1; rc != 0; nth += nth < 60 ? 1 : 7) {
        pages_leave_under_fragments();
        scree_read_enter(cache);
        scree__alloc_fault(nth, UINT64_MAX);
        rc = scree_pages_get(cache, ids, PAGES, page, NULL, code);
        scree__alloc_fault_end();
        cr_assert(rc == 0 || rc == SCREE_E_NO_MEMORY, "%d", rc);
        for (size_t i = 0; i < PAGES; i++) {
            cr_assert(code[i] == 0 || code[i] == SCREE_E_NO_MEMORY);
            if (code[i] == 0)
                page_is_right(ids[i], page[i]);
        }
        scree_read_leave(cache);
        pages_are_right(PAGES);
    }
}
#endif
