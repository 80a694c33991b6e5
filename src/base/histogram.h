/*
 * histogram.h - log-linear latency histogram: 16 linear steps per power of two, 0 .. 2^40 ns.
 * One writer thread (relaxed load + store), any readers. Longer values count in the last bucket;
 * max stays exact. Counts are 64 bits: 32 would wrap within the hour under a hot path.
 */
#ifndef SCREE_HISTOGRAM_H
#define SCREE_HISTOGRAM_H

#include "base/base.h"

#define SCREE__HISTOGRAM_BUCKETS (16 * 38)

struct scree__histogram {
    _Atomic uint64_t max;
    _Atomic uint64_t count[SCREE__HISTOGRAM_BUCKETS];
};

void scree__histogram_add(struct scree__histogram *h, uint64_t value);
/* into += from. The caller is the one writer of `into`. */
void scree__histogram_sum(struct scree__histogram *into, const struct scree__histogram *from);
uint64_t scree__histogram_count(const struct scree__histogram *h);
/* Upper bound of the bucket that holds the quantile 0 <= q <= 1, at most max; 0 if empty. */
uint64_t scree__histogram_quantile(const struct scree__histogram *h, double q);

#endif
