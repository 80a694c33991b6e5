/*
 * map.c - `scree map DIR`: where in the log the live bytes lie.
 */
#include "map.h"

#include "tool.h"

#include "snapshot/snapshot.h"

#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

struct map_options {
    const char *dir, *svg;
    bool json;
};

static error_t
map_parse(int key, char *arg, struct argp_state *state)
{
    struct map_options *o = state->input;

    switch (key) {
    case 'j':
        o->json = true;
        return 0;
    case 's':
        o->svg = arg;
        return 0;
    default:
        return tool_parse_dir(key, arg, state, &o->dir);
    }
}

static void
json_bytes(json_t *to, const struct map_bytes *b, uint64_t disk_bytes)
{
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {{"disk_bytes", disk_bytes},
                   {"live_bytes", b->live},
                   {"dead_bytes", b->dead},
                   {"punched_bytes", b->punched},
                   {"unwritten_bytes", b->unwritten}};

    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
        (void)json_object_set_new(to, figures[i].name, json_integer((json_int_t)figures[i].value));
    (void)json_object_set_new(to, "live_percent", json_real(map_live_percent(b)));
}

/* A granule is [written bytes, live bytes, punched]. */
static json_t *
json_segment(const struct map_segment *s)
{
    json_t *o = json_object(), *granules = json_array();

    (void)json_object_set_new(o, "file", json_string(s->file));
    (void)json_object_set_new(o, "lsn", json_integer((json_int_t)s->lsn));
    (void)json_object_set_new(o, "bytes", json_integer((json_int_t)s->bytes));
    json_bytes(o, &s->sum, s->disk_bytes);
    (void)json_object_set_new(o, "granule_bytes", json_integer(s->granule_bytes));
    for (uint32_t i = 0; i < s->granules; i++)
        (void)json_array_append_new(granules,
                                    json_pack("[I,I,i]", (json_int_t)s->granule[i].written_bytes,
                                              (json_int_t)s->granule[i].live_bytes,
                                              (int)(s->granule[i].punched != 0)));
    (void)json_object_set_new(o, "granules", granules);
    return o;
}

static int
json_print(const struct map *map)
{
    json_t *all = json_object(), *segments = json_array(), *total = json_object();
    int rc;

    for (size_t i = 0; i < map->n; i++)
        (void)json_array_append_new(segments, json_segment(&map->segment[i]));
    (void)json_object_set_new(total, "segments", json_integer((json_int_t)map->n));
    (void)json_object_set_new(total, "bytes", json_integer((json_int_t)map->bytes));
    json_bytes(total, &map->sum, map->disk_bytes);
    (void)json_object_set_new(total, "space_amp", json_real(map_space_amp(map)));
    (void)json_object_set_new(all, "path", json_string(map->dir)); /* not there if it is no UTF-8 */
    (void)json_object_set_new(all, "segments", segments);
    (void)json_object_set_new(all, "total", total);
    rc = json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(all);
    return rc != 0 || putchar('\n') < 0 ? -EIO : 0;
}

static int
svg_write(const struct map *map, const char *path)
{
    FILE *to = fopen(path, "w");
    bool bad;

    if (to == NULL) {
        (void)fprintf(stderr, "scree map: %s: %s\n", path, strerror(errno));
        return -EIO;
    }
    map_svg(map, to);
    bad = ferror(to) != 0;
    if (fclose(to) == 0 && !bad)
        return 0;
    (void)fprintf(stderr, "scree map: %s could not be written\n", path);
    return -EIO;
}

static int
map_show(const struct map *map, const struct map_options *o)
{
    int rc = 0;

    if (o->svg != NULL)
        rc = svg_write(map, o->svg);
    if (rc == 0 && o->json)
        rc = json_print(map);
    else if (rc == 0 && o->svg == NULL)
        map_text(map, stdout);
    return rc;
}

int
tool_map(int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"json", 'j', NULL, 0, "one JSON object, to the byte, instead of text", 0},
        {"svg", 's', "FILE", 0, "write a picture to FILE instead", 0},
        {0}};
    static const struct argp argp = {
        list,
        map_parse,
        "DIR",
        "Opens DIR read-only and shows, segment by segment and granule by granule, how much of its "
        "log lives, is dead, was punched, or is not written yet.",
        0,
        0,
        0};
    struct map_options o = {0};
    struct scree__manifest manifest;
    struct map map = {0};
    scree_cache *cache;
    int rc;

    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (tool_open_any(o.dir, &manifest, &cache) != 0)
        return TOOL_TROUBLE;
    map.dir = o.dir;
    rc = scree_segments_each(cache, map_add, &map);
    if (rc != 0)
        tool_complain(o.dir, rc);
    (void)scree_close(cache);
    if (rc == 0)
        rc = map_show(&map, &o);
    map_destroy(&map);
    return rc == 0 && fflush(stdout) == 0 && ferror(stdout) == 0 ? TOOL_OK : TOOL_TROUBLE;
}
