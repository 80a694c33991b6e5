/*
 * test_memory.c - what leaves memory, what must not, and what is counted: one thread at a time, so that it can
 * be told exactly. Bursts of many threads: tests/stress/stress_memory.c; hit ratios: bench/bench_eviction.c.
 *
 * WORD   syncs_held: the environment's syncs wait while it is 1: store relaxed by the test, load relaxed by
 *        the flusher, which looks again every millisecond.
 * EDGES  that.   LIFETIME  static.   PROGRESS  the test lets go before it closes.   FAILURE  none.
 */
#include "cache_fixture.h"
#include "unit/claims.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define BODY 400u
#define CACHE_BYTES ((uint64_t)128 << 10)
/* Pages of BODY bytes that fit. */
#define FITS (CACHE_BYTES / 448)

static scree_env env;
static _Atomic uint32_t syncs_held;

static int
held_sync(void *ctx, int file)
{
    while (atomic_load_explicit(&syncs_held, memory_order_relaxed) != 0)
        (void)usleep(1000);
    return scree_env_posix()->sync(ctx, file);
}

static void
setup(void)
{
    kit_dir_name(dir, "memory");
    kit_options_small(&options, &kit_concat);
    env = *scree_env_posix();
    env.sync = held_sync;
    options.env = &env;
    options.cache_bytes = CACHE_BYTES;
    options.segment_bytes = 1 << 20;
    options.log_buffer_bytes = 4 << 20; /* a burst of the tests fits, whether it is synced or not */
    EXPECT(0, scree_open(dir, &options, &cache));
}

static void
let_go(void)
{
    atomic_store_explicit(&syncs_held, 0, memory_order_relaxed);
    teardown();
}

TestSuite(memory_limit, .init = setup, .fini = let_go, .timeout = 300);

struct wanted {
    const char *name;
    double value;
};

static int
wanted_visit(void *ctx, const char *name, double value)
{
    struct wanted *w = ctx;

    if (strcmp(name, w->name) == 0)
        w->value = value;
    return 0;
}

static double
stat_named(const char *name)
{
    struct wanted w = {.name = name, .value = -1};

    EXPECT(0, scree_stats_each(cache, wanted_visit, &w));
    cr_assert(w.value >= 0, "no figure %s", name);
    return w.value;
}

static scree_page_id
page_add(uint64_t number)
{
    static scree_page_id next = 1000;
    unsigned char body[BODY];

    memset(body, (int)(number % 251), sizeof(body));
    memcpy(body, &number, sizeof(number));
    EXPECT(0, scree_page_allocate_at(cache, next, kit_slice(body, sizeof(body)), NULL));
    return next++;
}

/* n pages with ids in order, numbered from 0. */
static scree_page_id
pages_add(uint64_t n)
{
    scree_page_id first = page_add(0);

    for (uint64_t i = 1; i < n; i++)
        (void)page_add(i);
    return first;
}

static void
page_check(scree_page_id id, uint64_t number)
{
    unsigned char body[BODY];
    uint64_t found = 0;
    size_t len = 0;

    EXPECT(0, scree_page_read(cache, id, body, sizeof(body), &len, NULL));
    memcpy(&found, body, sizeof(found));
    cr_assert(len == BODY && found == number && body[BODY - 1] == number % 251,
              "page %llu has %zu bytes of number %llu, not %llu", (unsigned long long)id, len,
              (unsigned long long)found, (unsigned long long)number);
}

static void
pages_check(scree_page_id first, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        page_check(first + i, i);
}

static double
overhead(void)
{
    return (double)stats_now().resident_bytes / (double)CACHE_BYTES;
}

Test(memory_limit, more_data_than_memory_stays_under_the_limit)
{
    scree_page_id first = pages_add(10 * FITS);

    cr_assert(overhead() <= 1.0);
    pages_check(first, 10 * FITS);
    cr_assert(overhead() <= 1.0);
    cr_assert(stats_now().evictions > 8 * FITS);
    cr_assert(stat_named("over_memory") == 0);
}

/* I1 of evict.c. Inside a guard an update waits for nothing, so what is not stable piles up. */
Test(memory_limit, what_is_not_stable_stays_in_memory)
{
    scree_page_id first;

    EXPECT(0, scree_flush(cache, NULL));
    atomic_store_explicit(&syncs_held, 1, memory_order_relaxed);
    scree_read_enter(cache);
    first = pages_add(3 * FITS);
    scree_read_leave(cache);
    cr_assert(overhead() > 2.5);
    cr_assert(stat_named("over_memory") > 0, "going over is counted");
    pages_check(first, 3 * FITS);
    cr_assert(stats_now().evictions <= 1 && stats_now().misses == 0, /* the root may leave */
              "%llu left, %llu were read back", (unsigned long long)stats_now().evictions,
              (unsigned long long)stats_now().misses);
}

Test(memory_limit, what_went_over_in_a_guard_leaves_when_it_is_stable)
{
    scree_page_id first;

    atomic_store_explicit(&syncs_held, 1, memory_order_relaxed);
    scree_read_enter(cache);
    first = pages_add(3 * FITS);
    scree_read_leave(cache);
    atomic_store_explicit(&syncs_held, 0, memory_order_relaxed);
    (void)page_add(0); /* waits until there is room */
    cr_assert(overhead() <= 1.0);
    pages_check(first, 3 * FITS);
}

/* A bulk load is no reason to forget what is read all the time. */
Test(memory_limit, a_burst_of_new_pages_leaves_the_hot_ones_in)
{
    uint64_t hot = FITS / 3, misses;
    scree_page_id first = pages_add(hot);

    for (int turn = 0; turn < 4; turn++) {
        (void)pages_add(FITS);
        pages_check(first, hot);
    }
    (void)pages_add(10 * FITS);
    misses = stats_now().misses;
    pages_check(first, hot);
    misses = stats_now().misses - misses;
    cr_assert(misses * KIT_MUCH(10, 4, 10) <= hot, "%llu of %llu hot pages were gone",
              (unsigned long long)misses, (unsigned long long)hot);
}

Test(memory_limit, a_read_only_cache_stays_under_it_too)
{
    scree_page_id first = pages_add(10 * FITS);

    for (uint64_t i = 0; i < FITS; i++)
        for (int n = 0; n < 3; n++) /* several records: these leave as ghosts */
            EXPECT(0, scree_page_append(cache, first + i, kit_slice("+", 1), NULL));
    EXPECT(0, scree_close(cache));
    options.flags = SCREE_READ_ONLY;
    EXPECT(0, scree_open(dir, &options, &cache));
    for (uint64_t i = 0; i < 10 * FITS; i++) {
        unsigned char body[2 * BODY];

        EXPECT(0, scree_page_read(cache, first + i, body, sizeof(body), NULL, NULL));
        cr_assert(overhead() <= 1.02, "after %llu pages", (unsigned long long)i);
    }
    cr_assert(stats_now().evictions > 8 * FITS);
}

/* A page whose fragments cannot be merged stays, and says so; the others make room for it. */
Test(memory_limit, pages_that_cannot_leave_are_counted_and_hang_nobody)
{
    unsigned char fragment[BODY] = "\xFF";

    for (uint64_t i = 0; i < FITS / 6; i++) { /* eight bodies each */
        scree_page_id id = page_add(i);

        for (int n = 0; n < 7; n++)
            EXPECT(0, scree_page_append(cache, id, kit_slice(fragment, sizeof(fragment)), NULL));
    }
    cr_assert(stat_named("over_memory") > 0);
    page_check(page_add(7), 7);
}
