/*
 * bench_line.c - what scree adds to the line of JSON, and its promise on space, P5.
 *
 * The fields and their order are the same for every engine that runs these workloads (bench_json.c); what
 * only some workloads or this engine have comes behind.
 */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Given by the build; a build by hand need not. */
#ifndef SCREE_BUILD_FLAGS
#define SCREE_BUILD_FLAGS "flags unknown"
#endif
#ifndef SCREE_BUILD_COMMIT
#define SCREE_BUILD_COMMIT "unknown"
#endif

#define RSS_OVERHEAD_BYTES (48u << 20)
#define FRAGMENT_BYTES 24u /* that a fragment on disk may cost in memory */

struct space {
    double amp_max, amp_max_log; /* over the second half */
    uint64_t disk_bytes_max;     /* over all */
    uint64_t p5_bound_bytes;
    bool p5_holds;
};

static double
ratio(uint64_t a, uint64_t b)
{
    return b == 0 ? 0 : (double)a / (double)b;
}

static void
add_scree(json_t *line, const struct bench_shared *s)
{
    bench_json_count(line, "resident_bytes", s->ended.resident_bytes);
    (void)json_object_set_new(line, "write_amp_lib",
                              json_real(ratio(s->ended.device_bytes - s->begun.device_bytes,
                                              s->ended.user_bytes - s->begun.user_bytes)));
    bench_json_count(line, "harness_bytes", s->harness_bytes);
}

/* Every page lies on disk as one fragment at least, so pages stand for fragments: the stricter bound. */
static void
add_memory(json_t *line, const struct bench_run *run)
{
    const struct bench_shared *s = run->shared;
    scree_options o;
    uint64_t bound;

    bench_open_options(run, &o);
    bound = o.cache_bytes + 2 * o.log_buffer_bytes + FRAGMENT_BYTES * s->ended.pages +
            RSS_OVERHEAD_BYTES;
    bench_json_count(line, "rss_bound_bytes", bound);
    (void)json_object_set_new(line, "rss_holds",
                              json_boolean(s->peak_rss <= bound + s->harness_bytes));
}

static uint64_t
larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The log between snapshots; if there has been none, all of it. */
static uint64_t
log_between_snapshots(const struct bench_shared *s)
{
    return s->snapshot_gap_max != 0 ? s->snapshot_gap_max : s->ended.tail_lsn - s->log_start;
}

static void
space_judge(const struct bench_run *run, struct space *space)
{
    const struct bench_shared *s = run->shared;
    uint64_t live_min = UINT64_MAX, snapshots_max = 0;
    scree_options o;

    memset(space, 0, sizeof(*space));
    for (unsigned i = 0; i < BENCH_SAMPLES; i++) {
        const struct bench_sample *sample = &s->samples[i];
        const scree_stats *t = &sample->stats;
        uint64_t log = larger(t->disk_bytes, sample->disk.log_bytes);
        uint64_t all = larger(t->disk_bytes + t->snapshot_disk_bytes, sample->disk.bytes);

        if (!sample->taken)
            continue;
        snapshots_max = larger(snapshots_max, t->snapshot_disk_bytes);
        space->disk_bytes_max = larger(space->disk_bytes_max, all);
        live_min = t->live_bytes < live_min ? t->live_bytes : live_min;
        if (2 * sample->ops < s->ops || t->live_bytes == 0)
            continue;
        space->amp_max = fmax(space->amp_max, (double)all / (double)t->live_bytes);
        space->amp_max_log = fmax(space->amp_max_log, (double)log / (double)t->live_bytes);
    }
    bench_open_options(run, &o);
    space->p5_bound_bytes = (uint64_t)(o.space_amp_target * (double)live_min) +
                            3 * log_between_snapshots(s) + 2 * o.segment_bytes +
                            o.log_buffer_bytes + snapshots_max + s->snapshot_bytes_max;
    space->p5_holds = space->disk_bytes_max <= space->p5_bound_bytes;
}

static void
add_churn(json_t *line, const struct bench_run *run, bool *promise_out)
{
    const struct bench_shared *s = run->shared;
    const scree_stats *t = &s->ended;
    struct space space;

    space_judge(run, &space);
    (void)json_object_set_new(line, "space_amp_max", json_real(space.amp_max));
    (void)json_object_set_new(line, "space_amp_max_log", json_real(space.amp_max_log));
    bench_json_count(line, "punched_bytes", t->punched_bytes);
    bench_json_count(line, "deleted_bytes", t->deleted_bytes);
    bench_json_count(line, "cleaned_bytes", t->cleaned_bytes);
    bench_json_count(line, "segments", t->segments);
    bench_json_count(line, "snapshots", t->snapshots);
    bench_json_count(line, "snapshots_failed", s->snapshots_failed);
    bench_json_count(line, "no_space", atomic_load_explicit(&s->no_space, memory_order_relaxed));
    bench_json_count(line, "disk_bytes_max", space.disk_bytes_max);
    bench_json_count(line, "p5_bound_bytes", space.p5_bound_bytes);
    (void)json_object_set_new(line, "p5_holds", json_boolean(space.p5_holds));
    *promise_out = space.p5_holds;
    if (!space.p5_holds)
        (void)fprintf(stderr,
                      "scree bench: the disk was at %" PRIu64 " bytes, %" PRIu64 " are promised\n",
                      space.disk_bytes_max, space.p5_bound_bytes);
}

int
bench_line_print(const struct bench_run *run, bool *promise_out)
{
    const struct bench_options *o = &run->options;
    char config[512];
    json_t *line;

    *promise_out = true;
    (void)snprintf(config, sizeof(config), "cc %s; %s; commit %s", __VERSION__, SCREE_BUILD_FLAGS,
                   SCREE_BUILD_COMMIT);
    line = bench_json_line(run, "scree", scree_version_string(), config);
    if (line == NULL)
        return -ENOMEM;
    add_scree(line, run->shared);
    bench_json_recover(line, run);
    if (o->workload == BENCH_CHURN || o->workload == BENCH_MIXED)
        add_memory(line, run);
    if (o->workload == BENCH_CHURN)
        add_churn(line, run, promise_out);
    return bench_json_print(line);
}
