/*
 * space_map.c - see space_map.h.
 */
#include "space_map.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define TMPFS_TYPE 0x01021994
/* Blocks that a file system keeps its own lists of extents in, of a file full of holes. */
#define EXTENT_LIST_BYTES 8192u

static void
segment_check(const scree_segment_info *info)
{
    uint64_t live = 0;
    uint64_t written = 0;

    KIT_CHECK(info->size >= sizeof(*info) && info->file != NULL && info->granule != NULL,
              "a segment without size, name or granules");
    KIT_CHECK(info->granule_bytes > 0 &&
                  info->granules == (info->bytes + info->granule_bytes - 1) / info->granule_bytes,
              "%s: %" PRIu32 " granules of %" PRIu32 " bytes for %" PRIu64, info->file,
              info->granules, info->granule_bytes, info->bytes);
    for (uint32_t i = 0; i < info->granules; i++) {
        const scree_granule *g = &info->granule[i];

        KIT_CHECK(g->written_bytes <= info->granule_bytes && g->live_bytes <= g->written_bytes,
                  "%s, granule %" PRIu32 ": %" PRIu32 " live of %" PRIu32 " written", info->file, i,
                  g->live_bytes, g->written_bytes);
        KIT_CHECK(g->punched <= 1 && (g->punched == 0 || g->live_bytes == 0),
                  "%s, granule %" PRIu32 ": punched, with %" PRIu32 " live bytes", info->file, i,
                  g->live_bytes);
        live += g->live_bytes;
        written += g->written_bytes;
    }
    KIT_CHECK(live == info->live_bytes, "%s: %" PRIu64 " live, its granules %" PRIu64, info->file,
              info->live_bytes, live);
    KIT_CHECK(info->live_bytes + info->dead_bytes <= written,
              "%s: %" PRIu64 " live and %" PRIu64 " dead of %" PRIu64 " written", info->file,
              info->live_bytes, info->dead_bytes, written);
}

static int
segment_visit(void *ctx, const scree_segment_info *info)
{
    struct space_map *map = ctx;
    struct space_segment *s = &map->segment[map->n];

    KIT_CHECK(map->n < SPACE_SEGMENTS_MAX && info->granules <= SPACE_GRANULES_MAX &&
                  strlen(info->file) < sizeof(s->file),
              "the test's own limit");
    segment_check(info);
    KIT_CHECK(map->n == 0 || map->segment[map->n - 1].lsn < info->lsn, "%s is out of order",
              info->file);
    memset(s, 0, sizeof(*s));
    strcpy(s->file, info->file);
    s->lsn = info->lsn;
    s->bytes = info->bytes;
    s->disk_bytes = info->disk_bytes;
    s->live_bytes = info->live_bytes;
    s->dead_bytes = info->dead_bytes;
    s->granule_bytes = info->granule_bytes;
    s->granules = info->granules;
    memcpy(s->granule, info->granule, info->granules * sizeof(*info->granule));
    map->n++;
    map->live_bytes += s->live_bytes;
    map->dead_bytes += s->dead_bytes;
    map->disk_bytes += s->disk_bytes;
    return 0;
}

void
space_map_take(scree_cache *cache, struct space_map *map_out)
{
    int code;

    map_out->n = 0;
    map_out->live_bytes = map_out->dead_bytes = map_out->disk_bytes = 0;
    code = scree_segments_each(cache, segment_visit, map_out);
    KIT_CHECK(code == 0, "segments_each gave %d %s", code, kit_code_name(code));
}

const struct space_segment *
space_map_find(const struct space_map *map, const char *file)
{
    for (uint32_t i = 0; i < map->n; i++) {
        if (strcmp(map->segment[i].file, file) == 0)
            return &map->segment[i];
    }
    return NULL;
}

static uint64_t
stats_hash(const scree_stats *s)
{
    uint64_t moving[] = {s->live_bytes,    s->disk_bytes, s->punched_bytes, s->deleted_bytes,
                         s->cleaned_bytes, s->snapshots,  s->tail_lsn,      s->stable_lsn,
                         s->dead_bytes,    s->segments,   s->waiting_bytes, s->snapshot_disk_bytes};

    return kit_hash(moving, sizeof(moving), 1);
}

void
space_wait_quiet(scree_cache *cache, scree_stats *stats_out)
{
    uint64_t until = kit_now_ms() + 30000;
    uint64_t before = 0;
    int same = 0;

    while (same < 10) {
        uint64_t hash;
        int code;

        *stats_out = (scree_stats){.size = sizeof(*stats_out)};
        code = scree_stats_get(cache, stats_out);
        KIT_CHECK(code == 0, "stats_get gave %d", code);
        hash = stats_hash(stats_out);
        same = hash == before ? same + 1 : 0;
        before = hash;
        KIT_CHECK(kit_now_ms() < until,
                  "nobody writes, but it never comes to rest: tail %" PRIu64 ", %" PRIu64
                  " snapshots, %" PRIu64 " bytes cleaned, %" PRIu64 " live, %" PRIu64 " on disk",
                  stats_out->tail_lsn, stats_out->snapshots, stats_out->cleaned_bytes,
                  stats_out->live_bytes, stats_out->disk_bytes);
        usleep(20000);
    }
}

static uint64_t
file_blocks(const char *dir, const char *name)
{
    char path[KIT_PATH_MAX * 2];
    struct stat about;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    KIT_CHECK(stat(path, &about) == 0, "%s is on the map, but not there", path);
    return (uint64_t)about.st_blocks * 512;
}

void
space_map_check(const struct space_map *map, const scree_stats *stats, const char *dir)
{
    struct statfs about;
    uint64_t slack = EXTENT_LIST_BYTES;
    uint64_t blocks;
    uint32_t files = 0;

    if (statfs(dir, &about) == 0 && about.f_type == TMPFS_TYPE)
        slack = 0;
    KIT_CHECK(stats->live_bytes == map->live_bytes,
              "statistics tell %" PRIu64 " live bytes, the segments' sum is %" PRIu64,
              stats->live_bytes, map->live_bytes);
    KIT_CHECK(stats->disk_bytes == map->disk_bytes,
              "statistics tell %" PRIu64 " bytes on disk, the segments' sum is %" PRIu64,
              stats->disk_bytes, map->disk_bytes);
    KIT_CHECK(stats->dead_bytes == map->dead_bytes,
              "statistics tell %" PRIu64 " dead bytes, the segments' sum is %" PRIu64,
              stats->dead_bytes, map->dead_bytes);
    KIT_CHECK(stats->waiting_bytes <= stats->dead_bytes, "%" PRIu64 " of %" PRIu64 " dead wait",
              stats->waiting_bytes, stats->dead_bytes);
    KIT_CHECK(stats->segments == map->n, "%" PRIu64 " segments, on the map %" PRIu32,
              stats->segments, map->n);
    for (uint32_t i = 0; i < map->n; i++) {
        const struct space_segment *s = &map->segment[i];

        blocks = file_blocks(dir, s->file);
        KIT_CHECK(blocks >= s->disk_bytes && blocks <= s->disk_bytes + slack,
                  "%s occupies %" PRIu64 " bytes, the map says %" PRIu64, s->file, blocks,
                  s->disk_bytes);
    }
    blocks = kit_dir_disk_bytes(dir, "segment-", &files);
    KIT_CHECK(files == map->n, "%" PRIu32 " files, on the map %" PRIu32, files, map->n);
    KIT_CHECK(blocks >= stats->disk_bytes && blocks <= stats->disk_bytes + slack * files,
              "the files occupy %" PRIu64 " bytes, statistics say %" PRIu64, blocks,
              stats->disk_bytes);
    KIT_CHECK(stats->live_bytes == 0 ||
                  (stats->space_amp > (double)stats->disk_bytes / (double)stats->live_bytes - .01 &&
                   stats->space_amp < (double)stats->disk_bytes / (double)stats->live_bytes + .01),
              "space_amp is %f", stats->space_amp);
}

/* Whatever lives in `map` lives in `other`. */
static void
map_within(const struct space_map *map, const struct space_map *other, const char *of,
           const char *in)
{
    for (uint32_t i = 0; i < map->n; i++) {
        const struct space_segment *s = &map->segment[i];
        const struct space_segment *o = space_map_find(other, s->file);

        if (s->live_bytes == 0)
            continue;
        KIT_CHECK(o != NULL, "%s: %s has %" PRIu64 " live bytes in it, %s does not know it",
                  s->file, of, s->live_bytes, in);
        for (uint32_t g = 0; g < s->granules; g++)
            KIT_CHECK(s->granule[g].live_bytes == o->granule[g].live_bytes,
                      "%s, granule %" PRIu32 ": %s has %" PRIu32 " live bytes in it, %s %" PRIu32,
                      s->file, g, of, s->granule[g].live_bytes, in, o->granule[g].live_bytes);
    }
}

void
space_map_same(const struct space_map *map, const struct space_map *other, const char *what)
{
    map_within(map, other, "the cache", what);
    map_within(other, map, what, "the cache");
    KIT_CHECK(map->live_bytes == other->live_bytes, "%" PRIu64 " live bytes, %s has %" PRIu64,
              map->live_bytes, what, other->live_bytes);
}
