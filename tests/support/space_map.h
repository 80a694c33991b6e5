/*
 * space_map.h - what scree_segments_each and scree_stats tell about space, kept, and held against the files
 * and against itself.
 */
#ifndef SCREE_TEST_SPACE_MAP_H
#define SCREE_TEST_SPACE_MAP_H

#include "kit.h"

#define SPACE_SEGMENTS_MAX 2048u
#define SPACE_GRANULES_MAX 64u

struct space_segment {
    char file[32];
    scree_lsn lsn;
    uint64_t bytes, disk_bytes, live_bytes, dead_bytes;
    uint32_t granule_bytes;
    uint32_t granules;
    scree_granule granule[SPACE_GRANULES_MAX];
};

struct space_map {
    uint32_t n;
    uint64_t live_bytes, dead_bytes, disk_bytes; /* sums */
    struct space_segment segment[SPACE_SEGMENTS_MAX];
};

/* Each segment by itself must make sense, or the run ends. */
void space_map_take(scree_cache *cache, struct space_map *map_out);
/* NULL if there is no such file in it. */
const struct space_segment *space_map_find(const struct space_map *map, const char *file);
/* Nothing moves any more: statistics the same for 200 ms. Ends the run if that does not come to be. */
void space_wait_quiet(scree_cache *cache, scree_stats *stats_out);
/* At rest: statistics, sums over the map, and the files of the directory say the same. */
void space_map_check(const struct space_map *map, const scree_stats *stats, const char *dir);
/* Live bytes are the same, segment by segment and granule by granule; `what` names the other one. */
void space_map_same(const struct space_map *map, const struct space_map *other, const char *what);

#endif
