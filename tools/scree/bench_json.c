/*
 * bench_json.c - the line of JSON that every engine prints, and the table of samples.
 */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

void
bench_json_count(struct json_t *line, const char *name, uint64_t value)
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
add_figures(json_t *line, const struct bench_shared *s, const char *config)
{
    json_t *figures;

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
}

struct json_t *
bench_json_line(const struct bench_run *run, const char *engine, const char *version,
                const char *config)
{
    const struct bench_options *o = &run->options;
    const struct bench_shared *s = run->shared;
    json_t *line = json_pack(
        "{s:s,s:s,s:s,s:I,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:I,s:f}", "engine", engine,
        "version", version, "workload", o->workload_name, "threads", (json_int_t)o->threads, "sync",
        o->group ? "group" : "none", "dist", o->zipfian ? "zipfian" : "uniform", "cache_mib",
        (json_int_t)o->cache_mib, "n", (json_int_t)o->n, "page", (json_int_t)o->page, "frag",
        (json_int_t)o->frag, "value", (json_int_t)o->value, "compress", o->compress, "seconds",
        s->seconds, "ops", (json_int_t)s->ops, "ops_s",
        s->seconds > 0 ? (double)s->ops / s->seconds : 0.0);

    if (line == NULL)
        return NULL;
    if (o->prefetch > 0)
        (void)json_object_set_new(line, "prefetch", json_integer((json_int_t)o->prefetch));
    add_latency(line, s);
    add_figures(line, s, config);
    return line;
}

void
bench_json_recover(struct json_t *line, const struct bench_run *run)
{
    const struct bench_shared *s = run->shared;

    if (run->options.workload == BENCH_RECOVER) {
        (void)json_object_set_new(line, "entries_s", json_real(s->entries_s));
        (void)json_object_set_new(line, "replay_mb_s", json_real(s->replay_mb_s));
    }
}

int
bench_json_print(struct json_t *line)
{
    int rc = json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(7));

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
        (void)fprintf(stderr, "%s: %s could not be written\n", run->program, run->options.samples);
        return -EIO;
    }
    return 0;
}
