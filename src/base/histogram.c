/*
 * histogram.c - log-linear latency histogram.
 *
 *   value      0 .. 15        16 .. 31        32 .. 63        ...   2^e .. 2^(e+1)-1
 *   buckets    0 .. 15        16 .. 31        32 .. 47        ...   16(e-3) .. 16(e-3)+15
 *   width      1              1               2               ...   2^(e-4): 1/16
 *
 * WORD   count[b], max: 64 bits each.
 * EDGES  all relaxed: figures, read only by statistics. One writer per histogram: load + store.
 * INVARIANTS  I1 max and every count only grow. A reader may see a count without the max that came
 *        with it: quantiles are bounded by max, so a quantile read then is at worst one event old.
 * LIFETIME  the owner's; zeroed memory is an empty histogram.   PROGRESS  wait-free.
 * FAILURE   none.
 * NOT HERE  who measures what.   REFS  HdrHistogram's bucket layout.
 */
#include "base/histogram.h"

#define HISTOGRAM_STEPS 16u
#define HISTOGRAM_STEP_BITS 4u

static unsigned
bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (unsigned)value;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value);
    unsigned step = (unsigned)(value >> (exponent - HISTOGRAM_STEP_BITS)) & (HISTOGRAM_STEPS - 1);
    unsigned bucket = (exponent - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS + step;

    return bucket < SCREE__HISTOGRAM_BUCKETS ? bucket : SCREE__HISTOGRAM_BUCKETS - 1;
}

/* The largest value a bucket holds; the last one has no bound. */
static uint64_t
bucket_upper(unsigned bucket)
{
    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    if (bucket == SCREE__HISTOGRAM_BUCKETS - 1)
        return UINT64_MAX;
    unsigned shift = bucket / HISTOGRAM_STEPS - 1;
    uint64_t low = (uint64_t)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS) << shift;

    return low + (UINT64_C(1) << shift) - 1;
}

static uint64_t
figure_load(const _Atomic uint64_t *figure)
{
    return atomic_load_explicit(figure,
                                memory_order_relaxed); /* a figure, read only by statistics */
}

/* Relaxed load + store, not an add: the histogram has one writer. */
static void
figure_add(_Atomic uint64_t *figure, uint64_t more)
{
    atomic_store_explicit(figure, figure_load(figure) + more, memory_order_relaxed);
}

static void
figure_raise(_Atomic uint64_t *figure, uint64_t value)
{
    if (value > figure_load(figure))
        atomic_store_explicit(figure, value, memory_order_relaxed); /* one writer, see above */
}

void
scree__histogram_add(struct scree__histogram *h, uint64_t value)
{
    figure_raise(&h->max, value);
    figure_add(&h->count[bucket_of(value)], 1);
}

void
scree__histogram_sum(struct scree__histogram *into, const struct scree__histogram *from)
{
    for (unsigned b = 0; b < SCREE__HISTOGRAM_BUCKETS; b++)
        figure_add(&into->count[b], figure_load(&from->count[b]));
    figure_raise(&into->max, figure_load(&from->max));
}

uint64_t
scree__histogram_count(const struct scree__histogram *h)
{
    uint64_t sum = 0;

    for (unsigned b = 0; b < SCREE__HISTOGRAM_BUCKETS; b++)
        sum += figure_load(&h->count[b]);
    return sum;
}

/* How many events lie at or below the quantile: ceil(q * count), at least 1. */
static uint64_t
quantile_rank(double q, uint64_t count)
{
    if (!(q > 0)) /* also NaN */
        return 1;
    if (q >= 1)
        return count;
    uint64_t rank = (uint64_t)(q * (double)count);

    if ((double)rank < q * (double)count)
        rank++;
    if (rank < 1)
        return 1;
    return rank < count ? rank : count;
}

uint64_t
scree__histogram_quantile(const struct scree__histogram *h, double q)
{
    uint64_t count = scree__histogram_count(h);
    uint64_t max = figure_load(&h->max);

    if (count == 0)
        return 0;
    uint64_t rank = quantile_rank(q, count);

    for (unsigned b = 0; b < SCREE__HISTOGRAM_BUCKETS; b++) {
        uint64_t here = figure_load(&h->count[b]);

        if (here >= rank) {
            uint64_t upper = bucket_upper(b);
            return upper < max ? upper : max;
        }
        rank -= here;
    }
    return max;
}
