/*
 * test_error.c - codes in words, and the detail text: per thread, cut not overrun, may quote
 * itself.
 */
#include "base/base.h"
#include "unit/claims.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

Test(error_words, every_code_of_ours_has_its_text)
{
#define CHECK_CODE(name, code, text) \
    cr_assert(eq(str, (char *)scree_strerror(code), (char *)(text)));
    SCREE_ERROR_MAP(CHECK_CODE)
#undef CHECK_CODE
}

Test(error_words, codes_are_distinct)
{
    const int codes[] = {
#define LIST_CODE(name, code, text) code,
        SCREE_ERROR_MAP(LIST_CODE)
#undef LIST_CODE
    };
    size_t n = sizeof codes / sizeof codes[0];

    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            cr_assert(ne(int, codes[i], codes[j]));
}

Test(error_words, an_errno_is_told_by_the_system)
{
    cr_assert(eq(str, (char *)scree_strerror(-ENOSPC), strerror(ENOSPC)));
    cr_assert(eq(str, (char *)scree_strerror(0), "success"));
}

Test(error_words, unknown_codes_name_their_number)
{
    const int codes[] = {1, -20000, -20018, INT_MAX, INT_MIN};

    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        char number[16];

        (void)snprintf(number, sizeof number, "%d", codes[i]);
        cr_assert(ne(ptr, strstr(scree_strerror(codes[i]), number), NULL), "%d", codes[i]);
    }
}

Test(error_detail, is_empty_until_something_failed_and_after_clear)
{
    cr_assert(eq(str, (char *)scree_error_detail(), ""));
    cr_assert(eq(int, scree__fail(SCREE_E_BUSY, "page %d", 7), SCREE_E_BUSY));
    cr_assert(eq(str, (char *)scree_error_detail(), "page 7"));
    scree__fail_clear();
    cr_assert(eq(str, (char *)scree_error_detail(), ""));
}

Test(error_detail, may_quote_the_detail_before_it)
{
    (void)scree__fail(-EIO, "sector bad");
    (void)scree__fail(-EIO, "loading: %s", scree_error_detail());
    cr_assert(eq(str, (char *)scree_error_detail(), "loading: sector bad"));
}

Test(error_detail, is_cut_when_it_does_not_fit)
{
    char text[5000];

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)scree__fail(-EIO, "%s", text);
    size_t len = strlen(scree_error_detail());

    cr_assert(gt(sz, len, 100));
    cr_assert(lt(sz, len, 1000));
    cr_assert(zero(int, strncmp(scree_error_detail(), text, len)));
}

static void *
other_thread(void *detail)
{
    *(bool *)detail = scree_error_detail()[0] == '\0';
    (void)scree__fail(-EIO, "theirs");
    return NULL;
}

Test(error_detail, belongs_to_its_thread)
{
    pthread_t thread;
    bool was_empty = false;

    (void)scree__fail(-EIO, "mine");
    cr_assert(zero(int, pthread_create(&thread, NULL, other_thread, &was_empty)));
    cr_assert(zero(int, pthread_join(thread, NULL)));
    cr_assert(was_empty);
    cr_assert(eq(str, (char *)scree_error_detail(), "mine"));
}

Test(error_version, matches_the_header)
{
    char text[32];

    (void)snprintf(text, sizeof text, "%d.%d.%d", SCREE_VERSION_MAJOR, SCREE_VERSION_MINOR,
                   SCREE_VERSION_PATCH);
    cr_assert(eq(str, (char *)scree_version_string(), text));
}

Test(alloc_sizes, zero_bytes_are_a_pointer)
{
    void *p = scree__alloc(0);
    void *q = scree__alloc_zero(0);

    cr_assert(ne(ptr, p, NULL));
    cr_assert(ne(ptr, q, NULL));
    p = scree__realloc(p, 0, 0);
    cr_assert(ne(ptr, p, NULL));
    scree__free(p, 0);
    scree__free(q, 0);
    scree__free(NULL, 17);
}

Test(alloc_sizes, alignment_is_kept_for_odd_sizes)
{
    for (size_t align = 1; align <= 4096; align *= 2) {
        void *p = scree__alloc_aligned(align, 3 * align + 1);

        cr_assert(ne(ptr, p, NULL));
        cr_assert(eq(sz, (uintptr_t)p % align, 0));
        cr_assert(ge(sz, scree__alloc_usable(p), 3 * align + 1));
        scree__free(p, 3 * align + 1);
    }
}

Test(alloc_path, one_slash_between)
{
    const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "/b"}, {"a", "", "a/"}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *path = scree__path_join(cases[i][0], cases[i][1]);

        cr_assert(eq(str, path, (char *)cases[i][2]));
        scree__free(path, strlen(path) + 1);
    }
}

#ifdef SCREE_ALLOC_FAULTS
Test(alloc_fault, exactly_the_range_fails)
{
    bool failed[6];

    scree__alloc_fault(2, 3);
    for (int i = 0; i < 6; i++) {
        void *p = scree__alloc(8);

        failed[i] = p == NULL;
        scree__free(p, 8);
    }
    cr_assert(eq(u64, scree__alloc_counted(), 6));
    scree__alloc_fault(0, 0);
    for (int i = 0; i < 6; i++)
        cr_assert(eq(int, failed[i], i >= 1 && i < 4), "allocation %d", i + 1);
}

Test(alloc_fault, every_kind_is_counted_and_a_failed_realloc_keeps_the_old)
{
    char *p = scree__alloc(4);

    cr_assert(ne(ptr, p, NULL));
    p[0] = 'k';
    scree__alloc_fault(1, UINT64_MAX);
    cr_assert(eq(ptr, scree__realloc(p, 4, 1 << 20), NULL));
    cr_assert(eq(ptr, scree__alloc_zero(1), NULL));
    cr_assert(eq(ptr, scree__alloc_aligned(64, 1), NULL));
    cr_assert(eq(ptr, scree__path_join("a", "b"), NULL));
    cr_assert(eq(u64, scree__alloc_counted(), 4));
    scree__alloc_fault(0, 0);
    cr_assert(eq(chr, p[0], 'k'));
    scree__free(p, 4);
}
#endif
