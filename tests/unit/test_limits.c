/*
 * test_limits.c - sizes at their bounds: payloads that cannot fit the cache, and whether the smallest values
 * that scree_open names really work, all at once.
 */
#include "cache_fixture.h"
#include "unit/claims.h"

#include <string.h>

#define KIB ((size_t)1024)

static unsigned char bytes[1024 * 1024], got[1024 * 1024];

/* A small cache beside log buffers and page limits of ordinary size. */
static void
setup(void)
{
    kit_dir_name(dir, "limits");
    scree_options_init(&options);
    options.flags = SCREE_CREATE;
    options.materializer = &kit_concat;
    options.cache_bytes = 64 * KIB;
    options.segment_bytes = 1024 * KIB;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 7 % 251);
    EXPECT(0, scree_open(dir, &options, &cache));
}

TestSuite(limits_payload, .init = setup, .fini = teardown, .timeout = 300);
TestSuite(limits_smallest, .timeout = 600);

/* The last number in the detail text. */
static uint64_t
number_told(void)
{
    const char *text = scree_error_detail(), *at = text + strlen(text);

    while (at > text && strchr("0123456789", at[-1]) == NULL)
        at--;
    while (at > text && strchr("0123456789", at[-1]) != NULL)
        at--;
    return strtoull(at, NULL, 10);
}

static void
expect_read(scree_page_id id, const void *page, size_t len)
{
    size_t got_len = 0;

    EXPECT(0, scree_page_read(cache, id, got, sizeof(got), &got_len, NULL));
    cr_assert(eq(sz, got_len, len));
    cr_assert(memcmp(got, page, len) == 0);
}

/* Other pages, until the cache has been filled some times over. */
static void
crowd(void)
{
    for (unsigned i = 0; i < 200; i++)
        EXPECT(0, scree_page_allocate(cache, kit_slice(bytes, 2000), NULL, NULL));
    EXPECT(0, scree_flush(cache, NULL));
}

static void
expect_both_named(size_t len)
{
    char number[32];

    (void)snprintf(number, sizeof(number), "%zu", len);
    cr_assert(strstr(scree_error_detail(), number) != NULL, "%s", scree_error_detail());
    cr_assert(strstr(scree_error_detail(), "65536") != NULL, "%s", scree_error_detail());
}

Test(limits_payload, larger_than_the_cache_is_too_big_in_every_call_and_changes_nothing)
{
    scree_slice large = kit_slice(bytes, 64 * KIB);
    scree_page_id id, other = 0;
    scree_version version, now;

    EXPECT(0, scree_page_allocate(cache, kit_slice("small", 5), &id, &version));
    now = version;
    EXPECT(SCREE_E_TOO_BIG, scree_page_allocate(cache, large, &other, NULL));
    expect_both_named(large.len);
    cr_assert(eq(u64, other, 0));
    EXPECT(SCREE_E_TOO_BIG, scree_page_allocate_at(cache, id + 1000, large, NULL));
    expect_both_named(large.len);
    EXPECT(SCREE_E_TOO_BIG, scree_page_set(cache, id, &now, large));
    expect_both_named(large.len);
    EXPECT(SCREE_E_TOO_BIG, scree_page_merge(cache, id, &now, large));
    expect_both_named(large.len);
    EXPECT(SCREE_E_TOO_BIG, scree_page_append(cache, id, large, NULL));
    expect_both_named(large.len);
    EXPECT(SCREE_E_TOO_BIG, scree_page_put(cache, id, large, NULL));
    expect_both_named(large.len);
    cr_assert(eq(u64, now, version));
    expect_read(id, "small", 5);
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, id + 1000, NULL, 0, NULL, NULL));
}

Test(limits_payload, the_largest_that_fits_is_named_and_works)
{
    scree_page_id id;
    size_t len;

    EXPECT(SCREE_E_TOO_BIG,
           scree_page_allocate(cache, kit_slice(bytes, sizeof(bytes)), NULL, NULL));
    len = number_told();
    cr_assert(gt(sz, len, 60 * KIB), "%zu", len);
    EXPECT(SCREE_E_TOO_BIG, scree_page_allocate(cache, kit_slice(bytes, len + 1), NULL, NULL));
    EXPECT(0, scree_page_allocate(cache, kit_slice(bytes, len), &id, NULL));
    for (unsigned round = 0; round < 3; round++) {
        uint64_t evictions = stats_now().evictions;

        expect_read(id, bytes, len);
        crowd();
        cr_assert(gt(u64, stats_now().evictions, evictions));
    }
    cr_assert(le(u64, stats_now().resident_bytes, options.cache_bytes));
}

Test(limits_payload, a_merge_that_would_not_fit_the_cache_is_a_failed_merge)
{
    scree_version version = 0, put;
    scree_page_id id;

    EXPECT(0, scree_page_allocate(cache, kit_slice(bytes, 40 * KIB), &id, NULL));
    EXPECT(0, scree_page_append(cache, id, kit_slice(bytes, 20 * KIB), NULL));
    expect_read(id,
                memcpy(memcpy(bytes + 512 * KIB, bytes, 40 * KIB) + 40 * KIB, bytes, 20 * KIB) -
                    40 * KIB,
                60 * KIB);
    EXPECT(0, scree_page_append(cache, id, kit_slice(bytes, 10 * KIB), &put));
    EXPECT(SCREE_E_MERGE, scree_page_read(cache, id, got, sizeof(got), NULL, &version));
    cr_assert(strstr(scree_error_detail(), "65536") != NULL, "%s", scree_error_detail());
    cr_assert(eq(u64, version, put));
    EXPECT(0, scree_page_put(cache, id, kit_slice(bytes, 60 * KIB), NULL));
    expect_read(id, bytes, 60 * KIB);
}

/* Each value too small is refused, and the smallest that works is named. */
static void
smallest_find(void)
{
    uint64_t *const values[] = {&options.cache_bytes, &options.segment_bytes,
                                &options.log_buffer_bytes};

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        uint64_t usual = *values[i];

        *values[i] = 0;
        EXPECT(SCREE_E_INVALID, scree_open(dir, &options, &cache));
        uint64_t told = number_told();

        cr_assert(gt(u64, told, 0), "%s", scree_error_detail());
        *values[i] = told - 1;
        EXPECT(SCREE_E_INVALID, scree_open(dir, &options, &cache));
        *values[i] = usual;
        bytes[i] = (unsigned char)(told / 4096); /* kept until all are found */
        cr_assert(eq(u64, told % 4096, 0));
    }
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        *values[i] = (uint64_t)bytes[i] * 4096;
    options.page_bytes_max = options.log_buffer_bytes;
    EXPECT(SCREE_E_INVALID, scree_open(dir, &options, &cache));
    options.page_bytes_max = number_told();
}

/* What is being brought in or written comes on top for a moment. */
static void
expect_bounded(void)
{
    cr_assert(le(u64, stats_now().resident_bytes, options.cache_bytes + options.page_bytes_max));
}

enum { SMALL_PAGES = 300 };

/* Of all lengths up to the largest that is allowed. */
static size_t
small_len(unsigned page)
{
    return page % 7 == 0 ? (size_t)options.page_bytes_max : page * 97u % 3000u;
}

Test(limits_smallest, the_values_named_work_all_at_once)
{
    scree_page_id id[SMALL_PAGES];

    kit_dir_name(dir, "limits");
    scree_options_init(&options);
    options.flags = SCREE_CREATE;
    options.materializer = &kit_concat;
    smallest_find();
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 7 % 251);
    EXPECT(0, scree_open(dir, &options, &cache));
    for (unsigned i = 0; i < SMALL_PAGES; i++) {
        EXPECT(0, scree_page_allocate(cache, kit_slice(bytes + i, small_len(i)), &id[i], NULL));
        expect_bounded();
    }
    cr_assert(gt(u64, stats_now().evictions, 0));
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < SMALL_PAGES; i++) {
            expect_read(id[i], bytes + i, small_len(i));
            expect_bounded();
        }
        EXPECT(0, scree_close(cache));
        EXPECT(0, scree_open(dir, &options, &cache));
    }
    for (unsigned i = 0; i < SMALL_PAGES; i++) /* changed in place, by fragments too */
        EXPECT(0,
               small_len(i) < 2900
                   ? scree_page_append(cache, id[i], kit_slice(bytes + i + small_len(i), 100), NULL)
                   : scree_page_put(cache, id[i], kit_slice(bytes + i, small_len(i)), NULL));
    EXPECT(0, scree_snapshot(cache, NULL));
    for (unsigned i = 0; i < SMALL_PAGES; i++)
        expect_read(id[i], bytes + i, small_len(i) + (small_len(i) < 2900 ? 100 : 0));
    teardown();
}
