/*
 * stat.c - `scree stat DIR`: what a directory holds and how opening it went.
 */
#include "map.h"
#include "tool.h"

#include "snapshot/snapshot.h"

#include <argp.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct stat_options {
    const char *dir;
    bool json;
};

static error_t
stat_parse(int key, char *arg, struct argp_state *state)
{
    struct stat_options *o = state->input;

    if (key != 'j')
        return tool_parse_dir(key, arg, state, &o->dir);
    o->json = true;
    return 0;
}

/* Figures are collected as JSON in the order they come; the text form is printed from it. */
static int
stat_add(void *ctx, const char *name, double value)
{
    json_t *to = ctx;
    json_t *number;

    if (value >= 0 && value < 9007199254740992.0 && value == (double)(uint64_t)value)
        number = json_integer((json_int_t)value);
    else
        number = json_real(value);
    return json_object_set_new(to, name, number);
}

static json_t *
stat_directory(const char *dir, const struct scree__manifest *m)
{
    char uuid[2 * sizeof(m->uuid) + 1];
    json_t *o = json_object();

    for (size_t i = 0; i < sizeof(m->uuid); i++)
        (void)snprintf(uuid + 2 * i, 3, "%02x", m->uuid[i]);
    (void)json_object_set_new(o, "path", json_string(dir));
    (void)json_object_set_new(o, "uuid", json_string(uuid));
    (void)json_object_set_new(o, "materializer", json_string(m->materializer));
    (void)json_object_set_new(o, "materializer_version", json_integer(m->materializer_version));
    (void)stat_add(o, "segment_bytes", (double)m->segment_bytes);
    (void)stat_add(o, "manifest", (double)m->number);
    (void)stat_add(o, "snapshot_generations", (double)m->generations);
    (void)stat_add(o, "snapshot_files", (double)(m->generations > 0 ? m->generation[0].files : 0));
    (void)stat_add(o, "files_bytes", (double)tool_disk_usage(dir).bytes);
    return o;
}

static json_t *
stat_recovery(const scree_cache *cache, int *rc_out)
{
    scree_recovery_info info;
    json_t *o = json_object();

    memset(&info, 0, sizeof(info));
    info.size = sizeof(info);
    *rc_out = scree_recovery(cache, &info);
    (void)stat_add(o, "clean", (double)info.clean);
    (void)stat_add(o, "snapshot_lsn", (double)info.snapshot_lsn);
    (void)stat_add(o, "stable_lsn", (double)info.stable_lsn);
    (void)stat_add(o, "records", (double)info.records);
    (void)stat_add(o, "pages", (double)info.pages);
    (void)stat_add(o, "torn_bytes", (double)info.torn_bytes);
    (void)stat_add(o, "batches_discarded", (double)info.batches_discarded);
    (void)stat_add(o, "elapsed_us", (double)info.elapsed_us);
    return o;
}

/* What the log and the table take at this moment; what was punched in all, not since this open. */
static json_t *
stat_space(scree_cache *cache, const char *dir, int *rc_out)
{
    struct map map = {.dir = dir};
    scree_stats s = {.size = sizeof(s)};
    json_t *o = json_object();

    *rc_out = scree_stats_get(cache, &s);
    if (*rc_out == 0)
        *rc_out = scree_segments_each(cache, map_add, &map);
    (void)stat_add(o, "segments", (double)s.segments);
    (void)stat_add(o, "disk_bytes", (double)s.disk_bytes);
    (void)stat_add(o, "live_bytes", (double)s.live_bytes);
    (void)stat_add(o, "dead_bytes", (double)s.dead_bytes);
    (void)stat_add(o, "waiting_bytes", (double)s.waiting_bytes);
    (void)stat_add(o, "punched_bytes", (double)map.sum.punched);
    (void)stat_add(o, "unwritten_bytes", (double)map.sum.unwritten);
    (void)stat_add(o, "space_amp", s.space_amp);
    (void)stat_add(o, "snapshot_disk_bytes", (double)s.snapshot_disk_bytes);
    (void)stat_add(o, "table_bytes", (double)s.table_bytes);
    map_destroy(&map);
    return o;
}

/* The cache's own figures without those shown already, and without a ratio of reads where none was made. */
static json_t *
stat_rest(scree_cache *cache, json_t *shown, int *rc_out)
{
    json_t *o = json_object();
    const char *name;
    json_t *value;

    *rc_out = scree_stats_each(cache, stat_add, o);
    json_object_foreach(shown, name, value)(void) json_object_del(o, name);
    if (json_integer_value(json_object_get(o, "hits")) == 0 &&
        json_integer_value(json_object_get(o, "misses")) == 0)
        (void)json_object_del(o, "hit_ratio");
    return o;
}

static void
stat_print(json_t *all)
{
    const char *part, *name;
    json_t *figures, *value;

    json_object_foreach(all, part, figures)
    {
        (void)printf("%s\n", part);
        json_object_foreach(figures, name, value)
        {
            if (json_is_string(value))
                (void)printf("  %-28s %s\n", name, json_string_value(value));
            else if (json_is_integer(value))
                (void)printf("  %-28s %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(value));
            else
                (void)printf("  %-28s %.3f\n", name, json_real_value(value));
        }
    }
}

int
tool_stat(int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"json", 'j', NULL, 0, "one JSON object instead of text", 0}, {0}};
    static const struct argp argp = {
        list,  stat_parse,
        "DIR", "Opens DIR read-only, which recovers it in memory, and shows its figures.",
        0,     0,
        0};
    struct stat_options o = {0};
    struct scree__manifest manifest;
    scree_cache *cache;
    json_t *all, *space;
    int rc, rc_recovery, rc_space;

    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (tool_open_any(o.dir, &manifest, &cache) != 0)
        return TOOL_TROUBLE;
    all = json_object();
    (void)json_object_set_new(all, "directory", stat_directory(o.dir, &manifest));
    (void)json_object_set_new(all, "recovery", stat_recovery(cache, &rc_recovery));
    space = stat_space(cache, o.dir, &rc_space);
    (void)json_object_set_new(all, "space", space);
    (void)json_object_set_new(all, "stats", stat_rest(cache, space, &rc));
    rc = rc != 0 ? rc : rc_recovery != 0 ? rc_recovery : rc_space;
    if (rc != 0)
        tool_complain("figures", rc);
    else if (o.json)
        rc = json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) | (putchar('\n') < 0);
    else
        stat_print(all);
    json_decref(all);
    (void)scree_close(cache);
    return rc == 0 && fflush(stdout) == 0 ? TOOL_OK : TOOL_TROUBLE;
}
