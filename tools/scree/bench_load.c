/*
 * bench_load.c - the child's part of `scree bench`: the cache, and what the phases ask of it.
 */
#include "bench.h"

#include <string.h>

void
bench_open_options(const struct bench_run *run, scree_options *options_out)
{
    scree_options_init(options_out);
    options_out->flags = SCREE_CREATE;
    options_out->cache_bytes = run->options.cache_bytes;
    options_out->compression_level = run->options.zstd_level;
    options_out->materializer = &run->materializer;
    if (run->options.no_punch)
        options_out->flags |= SCREE_NO_PUNCH;
    if (run->options.segment_bytes != 0)
        options_out->segment_bytes = run->options.segment_bytes;
    if (run->options.target != 0)
        options_out->space_amp_target = run->options.target;
    options_out->disk_limit_bytes = run->options.disk_limit_bytes;
    options_out->snapshot_log_bytes = run->options.snapshot_log_bytes;
}

int
bench_stats(scree_cache *cache, scree_stats *stats_out)
{
    memset(stats_out, 0, sizeof(*stats_out));
    stats_out->size = sizeof(*stats_out);
    return scree_stats_get(cache, stats_out);
}

/* ---- hooks: ctx is the cache -------------------------------------------------------------------------- */

static int
hook_worker(void *ctx, struct bench_worker *w)
{
    w->cache = ctx;
    return 0;
}

static int
hook_load(struct bench_worker *w, uint64_t key, const void *page, uint64_t *id_out)
{
    (void)key;
    return scree_page_allocate(w->cache, (scree_slice){page, w->run->options.page}, id_out, NULL);
}

static int
hook_flush(void *ctx)
{
    return scree_flush(ctx, NULL);
}

static int
hook_stats(void *ctx, scree_stats *stats_out)
{
    return bench_stats(ctx, stats_out);
}

static int
hook_close(void *ctx)
{
    return scree_close(ctx);
}

int
bench_child(struct bench_run *run)
{
    scree_options options;
    scree_cache *cache;
    int rc;

    bench_open_options(run, &options);
    options.event = bench_churn_event;
    options.callback_ctx = run->shared;
    rc = scree_open(run->options.dir, &options, &cache);
    if (rc != 0) {
        tool_complain(run->options.dir, rc);
        return rc;
    }
    run->hooks = (struct bench_hooks){.ctx = cache,
                                      .worker = hook_worker,
                                      .load = hook_load,
                                      .loaded = hook_flush,
                                      .flush = hook_flush,
                                      .stats = hook_stats,
                                      .close = hook_close};
    rc = bench_frame(run);
    if (rc != 0)
        tool_complain(run->options.workload_name, rc);
    return rc;
}
