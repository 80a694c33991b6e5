/*
 * test_histogram.c - bucket edges, quantiles against sorted values, sums, the far end.
 */
#include "base/histogram.h"
#include "unit/claims.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct scree__histogram *
histogram_make(void)
{
    struct scree__histogram *h = scree__alloc_zero(sizeof *h);

    cr_assert(ne(ptr, h, NULL));
    return h;
}

static void
histogram_free(struct scree__histogram *h)
{
    scree__free(h, sizeof *h);
}

Test(histogram_empty, every_quantile_is_zero)
{
    struct scree__histogram *h = histogram_make();

    cr_assert(eq(u64, scree__histogram_count(h), 0));
    cr_assert(eq(u64, scree__histogram_quantile(h, 0), 0));
    cr_assert(eq(u64, scree__histogram_quantile(h, 1), 0));
    histogram_free(h);
}

/* One value v beside a far larger one: the quantile of v's rank is v's bucket's upper bound. */
static uint64_t
upper_of(uint64_t value)
{
    struct scree__histogram *h = histogram_make();

    scree__histogram_add(h, value);
    scree__histogram_add(h, UINT64_MAX);
    uint64_t upper = scree__histogram_quantile(h, 0.5);

    histogram_free(h);
    return upper;
}

Test(histogram_bucket, small_values_are_exact)
{
    for (uint64_t v = 0; v < 32; v++)
        cr_assert(eq(u64, upper_of(v), v));
}

Test(histogram_bucket, bounds_hold_around_every_power_of_two)
{
    for (unsigned e = 5; e <= 40; e++) {
        uint64_t power = UINT64_C(1) << e;
        uint64_t width = power >> 4;

        cr_assert(eq(u64, upper_of(power - 1), power - 1), "2^%u - 1", e);
        cr_assert(eq(u64, upper_of(power), power + width - 1), "2^%u", e);
        cr_assert(eq(u64, upper_of(power + width - 1), power + width - 1), "2^%u + w - 1", e);
        cr_assert(eq(u64, upper_of(power + width), power + 2 * width - 1), "2^%u + w", e);
    }
}

Test(histogram_bucket, what_is_longer_than_the_last_bucket_counts_there)
{
    struct scree__histogram *h = histogram_make();

    scree__histogram_add(h, UINT64_C(1) << 50);
    scree__histogram_add(h, UINT64_C(1) << 63);
    cr_assert(eq(u64, scree__histogram_count(h), 2));
    cr_assert(eq(u64, scree__histogram_quantile(h, 0.5), UINT64_C(1) << 63)); /* max: no bound */
    histogram_free(h);
}

static int
compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

Test(histogram_quantile, is_at_most_a_sixteenth_above_the_sorted_value)
{
    enum { N = 10001 };
    static uint64_t values[N];
    const double qs[] = {0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    struct scree__histogram *h = histogram_make();
    uint64_t state = 42;

    for (int i = 0; i < N; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        values[i] = (state >> 24) >> (state >> 59); /* spread over many powers of two */
        scree__histogram_add(h, values[i]);
    }
    qsort(values, N, sizeof values[0], compare_u64);
    for (size_t i = 0; i < sizeof qs / sizeof qs[0]; i++) {
        int rank = (int)ceil(qs[i] * N);
        uint64_t exact = values[rank < 1 ? 0 : rank - 1];
        uint64_t got = scree__histogram_quantile(h, qs[i]);

        cr_assert(ge(u64, got, exact), "q %g", qs[i]);
        cr_assert(le(u64, got, exact + exact / 16), "q %g", qs[i]);
    }
    cr_assert(eq(u64, scree__histogram_quantile(h, 1), values[N - 1]));
    histogram_free(h);
}

Test(histogram_quantile, odd_quantiles_are_clamped)
{
    struct scree__histogram *h = histogram_make();

    scree__histogram_add(h, 3);
    scree__histogram_add(h, 9);
    cr_assert(eq(u64, scree__histogram_quantile(h, -1), 3));
    cr_assert(eq(u64, scree__histogram_quantile(h, (double)NAN), 3));
    cr_assert(eq(u64, scree__histogram_quantile(h, 2), 9));
    histogram_free(h);
}

Test(histogram_sum, adds_counts_and_keeps_the_larger_max)
{
    struct scree__histogram *a = histogram_make();
    struct scree__histogram *b = histogram_make();

    for (uint64_t v = 0; v < 100; v++)
        scree__histogram_add(v % 3 == 0 ? a : b, v);
    scree__histogram_add(b, 1000);
    scree__histogram_sum(a, b);
    cr_assert(eq(u64, scree__histogram_count(a), 101));
    cr_assert(eq(u64, scree__histogram_count(b), 67));
    cr_assert(eq(u64, scree__histogram_quantile(a, 1), 1000));
    scree__histogram_sum(b, a);
    cr_assert(eq(u64, scree__histogram_count(b), 168));
    histogram_free(a);
    histogram_free(b);
}
