/*
 * stats.c - figures: sums over the threads' own counters and histograms, and what the log and the
 * table know.
 *
 * Counters are written by their owners with relaxed stores and read here with relaxed loads: each
 * figure is true by itself, at about the same moment.
 */
#include "pagecache/pagecache_private.h"

#include <stdio.h>
#include <string.h>

static uint64_t
relaxed(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed); /* statistics */
}

static void
counters_sum(scree_cache *cache, uint64_t sum[COUNTERS])
{
    /* Acquire: the contexts' contents. */
    struct scree__context *c = atomic_load_explicit(&cache->contexts, memory_order_acquire);

    memset(sum, 0, COUNTERS * sizeof sum[0]);
    for (; c != NULL; c = c->next)
        for (unsigned i = 0; i < COUNTERS; i++)
            sum[i] += relaxed(&c->count[i]);
}

static void
stats_fill(scree_cache *cache, scree_stats *s)
{
    uint64_t sum[COUNTERS];
    struct scree__log_stats log;
    struct scree__memory memory = scree__memory_sum(cache);

    counters_sum(cache, sum);
    scree__log_stats(cache->log, &log);
    s->pages = cache->pages_recovered + sum[COUNT_ALLOCATES] - sum[COUNT_FREES];
    s->resident_bytes = memory.resident_bytes;
    s->retired_bytes = memory.retired_bytes;
    s->charged_bytes = memory.charged_bytes;
    s->hits = sum[COUNT_HITS];
    s->misses = sum[COUNT_MISSES];
    s->merges = sum[COUNT_MERGES];
    s->sets = sum[COUNT_SETS];
    s->appends = sum[COUNT_APPENDS];
    s->frees = sum[COUNT_FREES];
    s->conflicts = sum[COUNT_CONFLICTS];
    s->consolidations = sum[COUNT_CONSOLIDATIONS];
    s->evictions = sum[COUNT_EVICTIONS];
    s->stable_lsn = scree__log_stable(cache->log);
    s->tail_lsn = scree__log_tail(cache->log);
    s->live_bytes = log.space.live_bytes;
    s->log_bytes = log.log_bytes;
    s->disk_bytes = log.space.disk_bytes;
    s->dead_bytes = log.space.dead_bytes;
    s->waiting_bytes = log.space.waiting_bytes;
    s->segments = log.space.segments;
    s->pinned_bytes = scree__checkpoint_pinned_bytes(cache);
    s->punched_bytes = log.punched_bytes;
    s->deleted_bytes = log.deleted_bytes;
    s->cleaned_bytes = sum[COUNT_CLEANED_BYTES];
    s->table_bytes = scree__radix_bytes(&cache->radix);
    s->snapshot_disk_bytes = relaxed(&cache->checkpoint_disk_bytes);
    s->hit_ratio = s->hits + s->misses == 0 ? 0 : (double)s->hits / (double)(s->hits + s->misses);
    s->snapshots = relaxed(&cache->snapshots);
    s->user_bytes = sum[COUNT_USER_BYTES];
    s->device_bytes = log.device_bytes + relaxed(&cache->snapshot_bytes);
    s->space_amp = s->live_bytes == 0 ? 0 : (double)s->disk_bytes / (double)s->live_bytes;
    s->snapshot_bytes = relaxed(&cache->snapshot_bytes);
    s->snapshot_delta_bytes = relaxed(&cache->snapshot_delta_bytes);
    s->snapshot_merge_bytes = relaxed(&cache->snapshot_merge_bytes);
    s->write_amp = s->user_bytes == 0 ? 0 : (double)s->device_bytes / (double)s->user_bytes;
}

int
scree_stats_get(scree_cache *cache, scree_stats *stats_out)
{
    scree_stats s = {0};
    size_t size;

    if (cache == NULL || stats_out == NULL || stats_out->size < sizeof stats_out->size)
        return scree__fail(SCREE_E_INVALID,
                           "scree_stats_get: cache and stats_out, with its size set, are required");
    int rc = scree__check_cache(cache, "scree_stats_get");

    if (rc != 0)
        return rc;
    size = stats_out->size;
    stats_fill(cache, &s);
    memset(stats_out, 0, size);
    memcpy(stats_out, &s, size < sizeof s ? size : sizeof s);
    stats_out->size = size;
    return 0;
}

struct visit {
    scree_stat_fn fn;
    void *ctx;
};

static int
visit_value(const struct visit *v, const char *name, double value)
{
    return v->fn(v->ctx, name, value);
}

static int
visit_histogram(const struct visit *v, const char *phase, const struct scree__histogram *h)
{
    static const struct {
        const char *name;
        double q;
    } quantiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};
    char name[64];
    int rc;

    snprintf(name, sizeof name, "%s_ns.count", phase);
    rc = visit_value(v, name, (double)scree__histogram_count(h));
    for (size_t i = 0; rc == 0 && i < sizeof quantiles / sizeof quantiles[0]; i++) {
        snprintf(name, sizeof name, "%s_ns.%s", phase, quantiles[i].name);
        rc = visit_value(v, name, (double)scree__histogram_quantile(h, quantiles[i].q));
    }
    return rc;
}

/* The phases that threads time for themselves. */
static int
visit_phases(scree_cache *cache, const struct visit *v)
{
    static const char *const names[PHASES] = {
        [PHASE_PAGE_IN] = "page_in",   [PHASE_PAGE_OUT] = "page_out",
        [PHASE_MERGE] = "merge",       [PHASE_CONSOLIDATE] = "consolidate",
        [PHASE_COMPRESS] = "compress", [PHASE_RESERVE] = "reserve",
        [PHASE_FILL] = "fill",
    };
    struct scree__histogram *sum = scree__alloc(sizeof *sum);
    int rc = 0;

    if (sum == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to sum up the latencies");
    for (unsigned p = 0; rc == 0 && p < PHASES; p++) {
        struct scree__context *c = atomic_load_explicit(&cache->contexts, memory_order_acquire);

        memset(sum, 0, sizeof *sum);
        for (; c != NULL; c = c->next)
            scree__histogram_sum(sum, &c->phase[p]);
        rc = visit_histogram(v, names[p], sum);
    }
    scree__free(sum, sizeof *sum);
    return rc;
}

static int
visit_fields(const scree_stats *s, const struct visit *v)
{
    const struct {
        const char *name;
        double value;
    } fields[] = {
        {"pages", (double)s->pages},
        {"resident_bytes", (double)s->resident_bytes},
        {"retired_bytes", (double)s->retired_bytes},
        {"hits", (double)s->hits},
        {"misses", (double)s->misses},
        {"merges", (double)s->merges},
        {"sets", (double)s->sets},
        {"appends", (double)s->appends},
        {"frees", (double)s->frees},
        {"conflicts", (double)s->conflicts},
        {"consolidations", (double)s->consolidations},
        {"evictions", (double)s->evictions},
        {"stable_lsn", (double)s->stable_lsn},
        {"tail_lsn", (double)s->tail_lsn},
        {"live_bytes", (double)s->live_bytes},
        {"log_bytes", (double)s->log_bytes},
        {"disk_bytes", (double)s->disk_bytes},
        {"punched_bytes", (double)s->punched_bytes},
        {"cleaned_bytes", (double)s->cleaned_bytes},
        {"snapshots", (double)s->snapshots},
        {"user_bytes", (double)s->user_bytes},
        {"device_bytes", (double)s->device_bytes},
        {"space_amp", s->space_amp},
        {"write_amp", s->write_amp},
        {"charged_bytes", (double)s->charged_bytes},
        {"table_bytes", (double)s->table_bytes},
        {"dead_bytes", (double)s->dead_bytes},
        {"waiting_bytes", (double)s->waiting_bytes},
        {"deleted_bytes", (double)s->deleted_bytes},
        {"snapshot_disk_bytes", (double)s->snapshot_disk_bytes},
        {"snapshot_bytes", (double)s->snapshot_bytes},
        {"snapshot_delta_bytes", (double)s->snapshot_delta_bytes},
        {"snapshot_merge_bytes", (double)s->snapshot_merge_bytes},
        {"segments", (double)s->segments},
        {"hit_ratio", s->hit_ratio},
        {"pinned_bytes", (double)s->pinned_bytes},
    };
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof fields / sizeof fields[0]; i++)
        rc = visit_value(v, fields[i].name, fields[i].value);
    return rc;
}

/* What has no field in scree_stats. */
static int
visit_rest(scree_cache *cache, const struct visit *v)
{
    uint64_t sum[COUNTERS];
    int rc;

    counters_sum(cache, sum);
    rc = visit_value(v, "allocates", (double)sum[COUNT_ALLOCATES]);
    if (rc == 0)
        rc = visit_value(v, "over_memory", (double)sum[COUNT_OVER_MEMORY]);
    if (rc == 0)
        rc = visit_value(v, "evict_helps", (double)sum[COUNT_EVICT_HELPS]);
    if (rc == 0)
        rc = visit_value(v, "retries", (double)sum[COUNT_RETRIES]);
    if (rc == 0)
        rc = visit_value(v, "misses_together", (double)sum[COUNT_TOGETHER]);
    if (rc == 0)
        rc = visit_value(v, "prefetch_left_out", (double)scree__prefetch_left_out(cache));
    return rc;
}

int
scree_segments_each(scree_cache *cache, scree_segment_fn visit, void *ctx)
{
    int rc;

    if (cache == NULL || visit == NULL)
        return scree__fail(SCREE_E_INVALID, "scree_segments_each: cache and visit are required");
    rc = scree__check_cache(cache, "scree_segments_each");
    if (rc != 0)
        return rc;
    return scree__log_segments_each(cache->log, visit, ctx);
}

int
scree_stats_each(scree_cache *cache, scree_stat_fn visit, void *ctx)
{
    struct visit v = {.fn = visit, .ctx = ctx};
    scree_stats s = {0};
    int rc;

    if (cache == NULL || visit == NULL)
        return scree__fail(SCREE_E_INVALID, "scree_stats_each: cache and visit are required");
    rc = scree__check_cache(cache, "scree_stats_each");
    if (rc != 0)
        return rc;
    stats_fill(cache, &s);
    rc = visit_fields(&s, &v);
    if (rc == 0)
        rc = visit_rest(cache, &v);
    if (rc == 0)
        rc = visit_phases(cache, &v);
    if (rc == 0)
        rc = visit_histogram(&v, "flush", scree__log_histogram_flush(cache->log));
    if (rc == 0)
        rc = visit_histogram(&v, "sync", scree__log_histogram_sync(cache->log));
    if (rc == 0)
        rc = visit_histogram(&v, "snapshot", &cache->snapshot_ns);
    return rc;
}
