/*
 * map.h - a picture of where in the log the live bytes lie: taken from a cache, drawn as text or SVG.
 *
 *   map.c         the subcommand: opening, JSON, files
 *   map_draw.c    collecting segments, text, SVG; knows scree.h only
 */
#ifndef SCREE_MAP_H
#define SCREE_MAP_H

#include "scree.h"

#include <stdio.h>

/* written = live + dead + punched; written + unwritten = size. */
struct map_bytes {
    uint64_t live, dead, punched, unwritten;
};

struct map_segment {
    char *file;
    uint64_t number;
    scree_lsn lsn;
    uint64_t bytes, disk_bytes;
    struct map_bytes sum;
    uint32_t granule_bytes, granules;
    scree_granule *granule;
};

/* Zeroed, with dir set, to begin with. */
struct map {
    const char *dir; /* borrowed */
    struct map_segment *segment;
    size_t n, cap;
    uint32_t granules_max; /* of a segment */
    uint64_t bytes, disk_bytes;
    struct map_bytes sum;
};

/* A scree_segment_fn, ctx: struct map. 0 or SCREE_E_NO_MEMORY. */
int map_add(void *ctx, const scree_segment_info *info);
void map_destroy(struct map *map);

/* Of what was written and not punched; 0 if nothing is. */
double map_live_percent(const struct map_bytes *sum);
/* Bytes on disk for each that lives; 0 if none does. */
double map_space_amp(const struct map *map);

/* ferror(to) tells whether they came through. */
void map_text(const struct map *map, FILE *to);
void map_svg(const struct map *map, FILE *to);

#endif
