/*
 * bench_line.c - the line of JSON, the table of samples.
 *
 * The fields and their order are the same for every engine that runs these workloads; what only some
 * workloads or this engine have comes behind.
 */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

/* Given by the build; a build by hand need not. */
#ifndef SCREE_BUILD_FLAGS
#define SCREE_BUILD_FLAGS "flags unknown"
#endif
#ifndef SCREE_BUILD_COMMIT
#define SCREE_BUILD_COMMIT "unknown"
#endif

#define RSS_OVERHEAD_BYTES (48u << 20)
#define FRAGMENT_BYTES 24u /* that a fragment on disk may cost in memory */

static void
add_count(json_t *line, const char *name, uint64_t value)
{
    (void)json_object_set_new(line, name, json_integer((json_int_t)value));
}

static void
add_latency(json_t *line, const struct bench_shared *s)
{
    static const struct {
        const char *name;
        double q;
    } quantiles[] = {{"p50_us", 0.5}, {"p99_us", 0.99}, {"p999_us", 0.999}};
    double max = (double)atomic_load_explicit(&s->latency.max, memory_order_relaxed);

    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        double ns = (double)scree__histogram_quantile(&s->latency, quantiles[i].q);

        (void)json_object_set_new(line, quantiles[i].name, json_real(ns * 1e-3));
    }
    (void)json_object_set_new(line, "max_us", json_real(max * 1e-3));
}

static double
ratio(uint64_t a, uint64_t b)
{
    return b == 0 ? 0 : (double)a / (double)b;
}

static void
add_figures(json_t *line, const struct bench_shared *s)
{
    json_t *figures;
    char config[512];

    (void)snprintf(config, sizeof(config), "cc %s; %s; commit %s", __VERSION__, SCREE_BUILD_FLAGS,
                   SCREE_BUILD_COMMIT);
    figures =
        json_pack("{s:I,s:I,s:f,s:I,s:I,s:f,s:I,s:I,s:I,s:f,s:f,s:f,s:b,s:s}", "disk_bytes",
                  (json_int_t)s->disk_bytes, "live_bytes", (json_int_t)s->ended.live_bytes,
                  "space_amp", ratio(s->disk_bytes, s->ended.live_bytes), "user_bytes",
                  (json_int_t)s->user_bytes, "device_bytes", (json_int_t)s->device_bytes,
                  "write_amp", ratio(s->device_bytes, s->user_bytes), "read_bytes",
                  (json_int_t)s->device_read_bytes, "peak_rss", (json_int_t)s->peak_rss, "rss_anon",
                  (json_int_t)s->rss_anon, "load_s", s->load_s, "close_s", s->close_s, "open_s",
                  s->open_s, "verified", (int)s->verified, "config", config);
    (void)json_object_update(line, figures);
    json_decref(figures);
    add_count(line, "resident_bytes", s->ended.resident_bytes);
    (void)json_object_set_new(line, "write_amp_lib",
                              json_real(ratio(s->ended.device_bytes - s->begun.device_bytes,
                                              s->ended.user_bytes - s->begun.user_bytes)));
    add_count(line, "harness_bytes", s->harness_bytes);
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
    add_count(line, "rss_bound_bytes", bound);
    (void)json_object_set_new(line, "rss_holds",
                              json_boolean(s->peak_rss <= bound + s->harness_bytes));
}

static void
add_churn(json_t *line, const struct bench_run *run, bool *promise_out)
{
    const struct bench_shared *s = run->shared;
    const scree_stats *t = &s->ended;
    struct bench_space space;

    bench_churn_judge(run, &space);
    (void)json_object_set_new(line, "space_amp_max", json_real(space.amp_max));
    (void)json_object_set_new(line, "space_amp_max_log", json_real(space.amp_max_log));
    add_count(line, "punched_bytes", t->punched_bytes);
    add_count(line, "deleted_bytes", t->deleted_bytes);
    add_count(line, "cleaned_bytes", t->cleaned_bytes);
    add_count(line, "segments", t->segments);
    add_count(line, "snapshots", t->snapshots);
    add_count(line, "snapshots_failed", s->snapshots_failed);
    add_count(line, "no_space", atomic_load_explicit(&s->no_space, memory_order_relaxed));
    add_count(line, "disk_bytes_max", space.disk_bytes_max);
    add_count(line, "p5_bound_bytes", space.p5_bound_bytes);
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
    const struct bench_shared *s = run->shared;
    json_t *line = json_pack(
        "{s:s,s:s,s:s,s:I,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:I,s:f}", "engine", "scree",
        "version", scree_version_string(), "workload", o->workload_name, "threads",
        (json_int_t)o->threads, "sync", o->group ? "group" : "none", "dist",
        o->zipfian ? "zipfian" : "uniform", "cache_mib", (json_int_t)o->cache_mib, "n",
        (json_int_t)o->n, "page", (json_int_t)o->page, "frag", (json_int_t)o->frag, "value",
        (json_int_t)o->value, "compress", o->compress, "seconds", s->seconds, "ops",
        (json_int_t)s->ops, "ops_s", s->seconds > 0 ? (double)s->ops / s->seconds : 0.0);
    int rc;

    *promise_out = true;
    if (line == NULL)
        return -ENOMEM;
    add_latency(line, s);
    add_figures(line, s);
    if (o->workload == BENCH_RECOVER) {
        (void)json_object_set_new(line, "entries_s", json_real(s->entries_s));
        (void)json_object_set_new(line, "replay_mb_s", json_real(s->replay_mb_s));
    }
    if (o->workload == BENCH_CHURN || o->workload == BENCH_MIXED)
        add_memory(line, run);
    if (o->workload == BENCH_CHURN)
        add_churn(line, run, promise_out);
    rc = json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(7));
    json_decref(line);
    return rc != 0 || putchar('\n') < 0 || fflush(stdout) != 0 ? -EIO : 0;
}

int
bench_samples_write(const struct bench_run *run)
{
    FILE *to = fopen(run->options.samples, "w");
    bool bad;

    if (to == NULL) {
        tool_complain(run->options.samples, -errno);
        return -EIO;
    }
    (void)fprintf(to, "ops,seconds,live,disk,dead,waiting,resident,rss,files,"
                      "log,snapshot_disk,punched,deleted,cleaned,snapshots\n");
    for (unsigned i = 0; i < BENCH_SAMPLES; i++) {
        const struct bench_sample *sample = &run->shared->samples[i];
        const scree_stats *t = &sample->stats;

        if (sample->taken)
            (void)fprintf(to,
                          "%" PRIu64 ",%.3f,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64
                          ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64
                          ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n",
                          sample->ops, (double)sample->ns * 1e-9, t->live_bytes, sample->disk.bytes,
                          t->dead_bytes, t->waiting_bytes, t->resident_bytes, sample->rss,
                          sample->disk.files, t->disk_bytes, t->snapshot_disk_bytes,
                          t->punched_bytes, t->deleted_bytes, t->cleaned_bytes, t->snapshots);
    }
    bad = ferror(to) != 0;
    if (fclose(to) != 0 || bad) {
        (void)fprintf(stderr, "scree bench: %s could not be written\n", run->options.samples);
        return -EIO;
    }
    return 0;
}
