/*
 * cache_fixture.h - what the unit tests of the public calls share: one cache in a directory of its own, and
 * EXPECT. A test file sets dir and options up in its own way and opens.
 */
#ifndef SCREE_TEST_CACHE_FIXTURE_H
#define SCREE_TEST_CACHE_FIXTURE_H

#include "support/kit.h"

#include <criterion/criterion.h>
#include <string.h>

__attribute__((noinline, unused)) static void
expect_failed(int code, const char *call, int got, int line)
{
    cr_fail(CR_FAIL_ABORT_, "line %d: %s gave %d %s, not %d (%s)", line, call, got,
            kit_code_name(got), code, scree_error_detail());
}

/* The result, and a detail text with every error. */
#define EXPECT(code, call)                                                  \
    do {                                                                    \
        int code_ = (call);                                                 \
        if (code_ != (code) || ((code) != 0 && *scree_error_detail() == 0)) \
            expect_failed((code), #call, code_, __LINE__);                  \
    } while (0)

static char dir[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;

static inline void
open_cache(void)
{
    EXPECT(0, scree_open(dir, &options, &cache));
}

static inline void
teardown(void)
{
    if (cache != NULL)
        EXPECT(0, scree_close(cache));
    kit_dir_remove(dir);
}

static inline void
reopen(void)
{
    EXPECT(0, scree_close(cache));
    cache = NULL;
    open_cache();
}

static inline scree_slice
text(const char *s)
{
    return kit_slice(s, strlen(s));
}

static inline scree_stats
stats_now(void)
{
    scree_stats stats = {.size = sizeof(stats)};

    EXPECT(0, scree_stats_get(cache, &stats));
    return stats;
}

#endif
