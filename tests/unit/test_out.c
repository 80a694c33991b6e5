/*
 * test_out.c - the output buffer: limits to the byte, the sticky error, growth, odd arguments.
 */
#include "base/base.h"
#include "unit/claims.h"

#include <string.h>

Test(out_limit, exactly_the_limit_fits_one_more_does_not)
{
    struct scree_out out;

    scree__out_init(&out, 10);
    cr_assert(zero(int, scree_out_append(&out, "0123456789", 10)));
    cr_assert(eq(int, scree_out_append(&out, "x", 1), SCREE_E_TOO_BIG));
    cr_assert(eq(sz, out.len, 10));
    cr_assert(zero(int, memcmp(out.data, "0123456789", 10)));
    scree__out_destroy(&out);
}

Test(out_limit, the_error_sticks_until_reset)
{
    struct scree_out out;

    scree__out_init(&out, 4);
    cr_assert(eq(int, scree_out_append(&out, "12345", 5), SCREE_E_TOO_BIG));
    cr_assert(eq(int, scree_out_append(&out, "1", 1), SCREE_E_TOO_BIG)); /* would fit */
    cr_assert(eq(ptr, scree_out_reserve(&out, 0), NULL));
    cr_assert(eq(int, out.error, SCREE_E_TOO_BIG));
    scree__out_reset(&out, 5);
    cr_assert(zero(int, scree_out_append(&out, "12345", 5)));
    cr_assert(eq(sz, out.len, 5));
    scree__out_destroy(&out);
}

Test(out_limit, a_length_that_would_overflow_is_too_big)
{
    struct scree_out out;

    scree__out_init(&out, SIZE_MAX);
    cr_assert(zero(int, scree_out_append(&out, "abc", 3)));
    cr_assert(eq(ptr, scree_out_reserve(&out, SIZE_MAX), NULL));
    cr_assert(eq(int, out.error, SCREE_E_TOO_BIG));
    scree__out_destroy(&out);
}

Test(out_limit, memory_that_cannot_be_had_is_no_memory)
{
    struct scree_out out;

    scree__out_init(&out, SIZE_MAX);
    cr_assert(eq(ptr, scree_out_reserve(&out, SIZE_MAX / 2), NULL));
    cr_assert(eq(int, out.error, SCREE_E_NO_MEMORY));
    scree__out_destroy(&out);
}

Test(out_limit, a_limit_of_zero_takes_nothing_but_nothing)
{
    struct scree_out out;

    scree__out_init(&out, 0);
    cr_assert(zero(int, scree_out_append(&out, NULL, 0)));
    cr_assert(ne(ptr, scree_out_reserve(&out, 0), NULL));
    cr_assert(eq(int, scree_out_append(&out, "x", 1), SCREE_E_TOO_BIG));
    scree__out_destroy(&out);
}

Test(out_growth, bytes_survive_growing_from_nothing_to_a_mebibyte)
{
    struct scree_out out;
    const size_t total = 1 << 20;

    scree__out_init(&out, total);
    for (size_t i = 0; i < total;) {
        size_t len = i % 97 + 1 < total - i ? i % 97 + 1 : total - i;
        unsigned char *room = scree_out_reserve(&out, len);

        cr_assert(ne(ptr, room, NULL));
        for (size_t k = 0; k < len; k++)
            room[k] = (unsigned char)((i + k) * 31);
        i += len;
    }
    cr_assert(eq(sz, out.len, total));
    cr_assert(le(sz, out.cap, total)); /* never more than can be used */
    for (size_t i = 0; i < total; i++)
        cr_assert(out.data[i] == (unsigned char)(i * 31), "byte %zu", i);
    scree__out_destroy(&out);
}

Test(out_growth, reset_keeps_the_memory)
{
    struct scree_out out;

    scree__out_init(&out, 5000);
    cr_assert(ne(ptr, scree_out_reserve(&out, 5000), NULL));
    unsigned char *data = out.data;

    scree__out_reset(&out, 5000);
    cr_assert(eq(sz, out.len, 0));
    cr_assert(eq(ptr, scree_out_reserve(&out, 5000), data));
    scree__out_destroy(&out);
    cr_assert(eq(ptr, out.data, NULL));
}

Test(out_arguments, null_is_invalid_and_does_not_stick)
{
    struct scree_out out;

    scree__out_init(&out, 10);
    cr_assert(eq(int, scree_out_append(NULL, "x", 1), SCREE_E_INVALID));
    cr_assert(eq(ptr, scree_out_reserve(NULL, 1), NULL));
    cr_assert(eq(int, scree_out_append(&out, NULL, 1), SCREE_E_INVALID));
    cr_assert(zero(int, scree_out_append(&out, "x", 1)));
    scree__out_destroy(&out);
}
