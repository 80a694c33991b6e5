/*
 * map_draw.c - a map of the log, collected granule by granule and drawn as text or SVG.
 *
 * Live share is shown by lightness first and hue second, so that a reader who cannot tell red from green
 * still sees dark (dead) from light (live); what is not there any more is hatched, what is not there yet
 * is grey.
 */
#include "map.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- collecting ---------------------------------------------------------------------------------- */

static void
bytes_add(struct map_bytes *to, const struct map_bytes *from)
{
    to->live += from->live;
    to->dead += from->dead;
    to->punched += from->punched;
    to->unwritten += from->unwritten;
}

static uint64_t
bytes_written(const struct map_bytes *b)
{
    return b->live + b->dead + b->punched;
}

/* Granule i of a segment. The library counts while updates go on: what is live was written before. */
static struct map_bytes
granule_bytes(const struct map_segment *s, uint32_t i)
{
    const scree_granule *g = &s->granule[i];
    uint64_t begin = (uint64_t)i * s->granule_bytes, size = s->granule_bytes;
    uint64_t written, live;
    struct map_bytes b = {0};

    if (begin + size > s->bytes)
        size = s->bytes > begin ? s->bytes - begin : 0; /* the last one may be cut short */
    written = g->written_bytes < size ? g->written_bytes : size;
    live = g->live_bytes < written ? g->live_bytes : written;
    b.unwritten = size - written;
    if (g->punched != 0) {
        b.punched = written;
    } else {
        b.live = live;
        b.dead = written - live;
    }
    return b;
}

static bool
map_grow(struct map *map)
{
    size_t cap = map->cap == 0 ? 64 : 2 * map->cap;
    struct map_segment *more = realloc(map->segment, cap * sizeof(*more));

    if (more == NULL)
        return false;
    map->segment = more;
    map->cap = cap;
    return true;
}

int
map_add(void *ctx, const scree_segment_info *info)
{
    struct map *map = ctx;
    struct map_segment *s;

    if (map->n == map->cap && !map_grow(map))
        return SCREE_E_NO_MEMORY;
    s = &map->segment[map->n];
    *s = (struct map_segment){.file = strdup(info->file),
                              .number = info->bytes == 0 ? 0 : info->lsn / info->bytes,
                              .lsn = info->lsn,
                              .bytes = info->bytes,
                              .disk_bytes = info->disk_bytes,
                              .granule_bytes = info->granule_bytes,
                              .granules = info->granules};
    s->granule = malloc((info->granules + 1u) * sizeof(*s->granule)); /* of none too */
    map->n++;
    if (s->file == NULL || s->granule == NULL)
        return SCREE_E_NO_MEMORY;
    if (info->granules > 0)
        memcpy(s->granule, info->granule, info->granules * sizeof(*s->granule));
    for (uint32_t i = 0; i < s->granules; i++) {
        struct map_bytes b = granule_bytes(s, i);

        bytes_add(&s->sum, &b);
    }
    bytes_add(&map->sum, &s->sum);
    map->bytes += s->bytes;
    map->disk_bytes += s->disk_bytes;
    if (s->granules > map->granules_max)
        map->granules_max = s->granules;
    return 0;
}

void
map_destroy(struct map *map)
{
    for (size_t i = 0; i < map->n; i++) {
        free(map->segment[i].file);
        free(map->segment[i].granule);
    }
    free(map->segment);
    map->segment = NULL;
    map->n = map->cap = 0;
}

double
map_live_percent(const struct map_bytes *sum)
{
    uint64_t kept = sum->live + sum->dead;

    return kept == 0 ? 0 : 100.0 * (double)sum->live / (double)kept;
}

double
map_space_amp(const struct map *map)
{
    return map->sum.live == 0 ? 0 : (double)map->disk_bytes / (double)map->sum.live;
}

/* ---- what a cell shows --------------------------------------------------------------------------- */

/* Shares of live from 0 (nothing) to `levels` (everything); what is neither is in between. Or: */
#define CELL_PUNCHED (-1)
#define CELL_UNWRITTEN (-2)

static int
cell_of(const struct map_bytes *b, int levels)
{
    uint64_t written = bytes_written(b);

    if (b->live == 0) {
        if (b->punched > b->dead && b->punched >= b->unwritten)
            return CELL_PUNCHED;
        return b->dead >= b->unwritten && b->dead > 0 ? 0 : CELL_UNWRITTEN;
    }
    if (b->live == written)
        return levels;
    return 1 + (int)(b->live * (uint64_t)(levels - 1) / written);
}

/* ---- sizes and names ----------------------------------------------------------------------------- */

#define SIZE_TEXT 24

/* "64 KiB", "1.5 GiB": four digits at most. */
static const char *
size_text(uint64_t bytes, char text[SIZE_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(text, SIZE_TEXT, "%.*f %s",
                   unit == 0 || value >= 99.95 || value == (double)(uint64_t)value ? 0 : 1, value,
                   units[unit]);
    return text;
}

static double
percent(uint64_t part, uint64_t all)
{
    return all == 0 ? 0 : 100.0 * (double)part / (double)all;
}

/* ---- text ---------------------------------------------------------------------------------------- */

#define TEXT_CELLS_MAX 64u
#define TEXT_LEVELS 10

static char
text_cell(const struct map_bytes *b)
{
    static const char scale[TEXT_LEVELS + 1] = ".123456789#"; /* no NUL: 11 characters */
    int cell = cell_of(b, TEXT_LEVELS);

    if (cell == CELL_PUNCHED)
        return 'o';
    return cell == CELL_UNWRITTEN ? '_' : scale[cell];
}

static void
text_row(const struct map_segment *s, uint32_t per_cell, FILE *to)
{
    for (uint32_t i = 0; i < s->granules;) {
        struct map_bytes sum = {0};

        for (uint32_t k = 0; k < per_cell && i < s->granules; k++, i++) {
            struct map_bytes b = granule_bytes(s, i);

            bytes_add(&sum, &b);
        }
        (void)fputc(text_cell(&sum), to);
    }
}

static void
text_bytes(const struct map_bytes *b, FILE *to)
{
    char text[SIZE_TEXT];

    (void)fprintf(to, " %9s", size_text(b->live, text));
    (void)fprintf(to, " %9s", size_text(b->dead, text));
    (void)fprintf(to, " %9s", size_text(b->punched, text));
    (void)fprintf(to, " %9s", size_text(b->unwritten, text));
    (void)fprintf(to, "  %5.0f", map_live_percent(b));
}

static int
file_width(const struct map *map)
{
    size_t width = sizeof("segment") - 1;

    for (size_t i = 0; i < map->n; i++) {
        size_t len = strlen(map->segment[i].file);

        width = len > width ? len : width;
    }
    return (int)width;
}

void
map_text(const struct map *map, FILE *to)
{
    uint32_t per_cell = (map->granules_max + TEXT_CELLS_MAX - 1) / TEXT_CELLS_MAX;
    uint32_t granule = map->n == 0 ? 0 : map->segment[0].granule_bytes;
    int width = file_width(map);
    char text[SIZE_TEXT];

    (void)fprintf(to, "%-*s %20s %9s %9s %9s %9s %9s  %5s\n", width, "segment", "first lsn", "size",
                  "live", "dead", "punched", "unwritten", "live%");
    for (size_t i = 0; i < map->n; i++) {
        const struct map_segment *s = &map->segment[i];

        (void)fprintf(to, "%-*s %20" PRIu64 " %9s", width, s->file, s->lsn,
                      size_text(s->bytes, text));
        text_bytes(&s->sum, to);
        (void)fputs("  ", to);
        text_row(s, per_cell, to);
        (void)fputc('\n', to);
    }
    (void)fprintf(to, "%-*s %20zu %9s", width, "total", map->n, size_text(map->bytes, text));
    text_bytes(&map->sum, to);
    (void)fprintf(to, "\n\non disk %s", size_text(map->disk_bytes, text));
    (void)fprintf(to, ", space amplification %.2f (on disk / live)\n", map_space_amp(map));
    if (map->n > 0)
        (void)fprintf(
            to,
            "a character is %" PRIu32 " granule%s of %s: # live, 9 to 1 tenths of it live, "
            ". dead, o punched, _ unwritten\nlive%%: of what was written and not punched\n",
            per_cell, per_cell == 1 ? "" : "s", size_text(granule, text));
}

/* ---- SVG ----------------------------------------------------------------------------------------- */

#define SVG_WIDTH 1000
#define SVG_MARGIN 16
#define SVG_LEVELS 8
#define SVG_CELL_COMFORT 10 /* px wide, where segments are so short that several go side by side */
#define SVG_CELL_MAX 16
#define SVG_LINE_CELLS 256u /* then a segment goes on in the next line */
#define SVG_HATCH "url(#hatch)"
#define SVG_GREY "#e4e4e4"

/* L* of CIE Lab: 24, 32, 41, 50, 58, 65, 71, 75, 77; it rises for red- and green-blind eyes too. */
static const char *const svg_scale[SVG_LEVELS + 1] = {"#7a0010", "#991314", "#b53018",
                                                      "#ca4f1d", "#d66f24", "#d69030",
                                                      "#c3ae3e", "#9bc554", "#5fd47c"};

/* Bytes of text that are no character of XML 1.0 become U+FFFD; markup is escaped. */
static size_t
utf8_len(const unsigned char *p)
{
    static const struct {
        unsigned char mask, is;
        uint32_t min;
    } forms[] = {
        {0x80, 0x00, 0x20}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

    for (size_t len = 1; len <= 4; len++) {
        uint32_t code;

        if ((p[0] & forms[len - 1].mask) != forms[len - 1].is)
            continue;
        code = p[0] & (unsigned char)~forms[len - 1].mask;
        for (size_t i = 1; i < len; i++) {
            if ((p[i] & 0xc0) != 0x80) /* a NUL ends it here too */
                return 0;
            code = code << 6 | (p[i] & 0x3f);
        }
        if (code < forms[len - 1].min || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ||
            code == 0xfffe || code == 0xffff)
            return 0;
        return len;
    }
    return 0;
}

static void
svg_escaped(const char *text, FILE *to)
{
    const unsigned char *p = (const unsigned char *)text;

    while (*p != '\0') {
        size_t len = utf8_len(p);

        if (len == 0)
            (void)fputs("\xef\xbf\xbd", to);
        else if (*p == '&')
            (void)fputs("&amp;", to);
        else if (*p == '<')
            (void)fputs("&lt;", to);
        else if (*p == '>')
            (void)fputs("&gt;", to);
        else
            (void)fwrite(p, 1, len, to);
        p += len == 0 ? 1 : len;
    }
}

/* Where things go: tiles, each a number, a block of cells and a percentage, in columns. */
struct svg_layout {
    int cell_w, line_h, gap; /* gap: px of a cell left free, so that wide cells can be told apart */
    uint32_t per_line;
    int number_w, percent_w, tile_w, tile_h;
    int columns;
    int top, height;
};

static int
digits(uint64_t value)
{
    int n = 1;

    for (; value >= 10; value /= 10)
        n++;
    return n;
}

static struct svg_layout
svg_layout_of(const struct map *map)
{
    const int inner = SVG_WIDTH - 2 * SVG_MARGIN, between = 14;
    uint64_t last = map->n == 0 ? 0 : map->segment[map->n - 1].number;
    uint32_t per_line = map->granules_max < SVG_LINE_CELLS ? map->granules_max : SVG_LINE_CELLS;
    uint32_t lines = per_line == 0 ? 1 : (map->granules_max + per_line - 1) / per_line;
    struct svg_layout l = {.per_line = per_line == 0 ? 1 : per_line, .percent_w = 40, .top = 118};
    int rows, beside;

    l.number_w = 7 * digits(last) + 8;
    beside = l.number_w + l.percent_w + between;
    l.columns = (inner + between) / (beside + SVG_CELL_COMFORT * (int)l.per_line);
    l.columns = l.columns < 1 ? 1 : l.columns;
    l.cell_w = ((inner + between) / l.columns - beside) / (int)l.per_line;
    l.cell_w = l.cell_w > SVG_CELL_MAX ? SVG_CELL_MAX : l.cell_w < 1 ? 1 : l.cell_w;
    l.gap = l.cell_w >= 6 ? 1 : 0;
    l.line_h = lines > 1 ? 7 : 13;
    l.tile_w = beside + l.cell_w * (int)l.per_line;
    l.tile_h = (int)lines * l.line_h + 5;
    l.tile_h = l.tile_h < 18 ? 18 : l.tile_h;
    rows = ((int)map->n + l.columns - 1) / l.columns;
    l.height = l.top + rows * l.tile_h + SVG_MARGIN;
    return l;
}

static const char *
svg_fill(int cell)
{
    if (cell == CELL_PUNCHED)
        return SVG_HATCH;
    return cell == CELL_UNWRITTEN ? SVG_GREY : svg_scale[cell];
}

/* All cells of one kind as one path; neighbours are one rectangle where cells are too small to be told
   apart. */
static void
svg_cells(const struct map_segment *s, int kind, const struct svg_layout *l, int x, int y, FILE *to)
{
    bool any = false;

    for (uint32_t i = 0; i < s->granules;) {
        uint32_t begin = i, column = i % l->per_line;
        int wide, high = l->line_h - 1;

        for (; i < s->granules; i++) {
            struct map_bytes b = granule_bytes(s, i);

            if (cell_of(&b, SVG_LEVELS) != kind ||
                i - begin == (l->gap > 0 ? 1 : l->per_line - column))
                break;
        }
        if (i == begin) {
            i++;
            continue;
        }
        if (!any)
            (void)fprintf(to, "<path fill=\"%s\" d=\"", svg_fill(kind));
        any = true;
        wide = (int)(i - begin) * l->cell_w - l->gap;
        (void)fprintf(to, "M%d %dh%dv%dh-%dz", x + (int)column * l->cell_w,
                      y + (int)(begin / l->per_line) * l->line_h, wide, high, wide);
    }
    if (any)
        (void)fputs("\"/>\n", to);
}

static void
svg_segment(const struct map_segment *s, const struct svg_layout *l, int x, int y, FILE *to)
{
    int cells = x + l->number_w, wide = (int)l->per_line * l->cell_w, lines;
    char live[SIZE_TEXT], dead[SIZE_TEXT], punched[SIZE_TEXT];

    lines = (int)((s->granules + l->per_line - 1) / l->per_line);
    (void)fputs("<g><title>", to);
    svg_escaped(s->file, to);
    (void)fprintf(to, ", lsn %" PRIu64 ": %s live, %s dead, %s punched</title>\n", s->lsn,
                  size_text(s->sum.live, live), size_text(s->sum.dead, dead),
                  size_text(s->sum.punched, punched));
    (void)fprintf(to, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%" PRIu64 "</text>\n", cells - 6,
                  y + 10, s->number);
    for (int kind = CELL_UNWRITTEN; kind <= SVG_LEVELS; kind++)
        svg_cells(s, kind, l, cells, y, to);
    if (s->granules < l->per_line)
        wide = (int)s->granules * l->cell_w;
    (void)fprintf(to,
                  "<rect x=\"%d.5\" y=\"%d.5\" width=\"%d\" height=\"%d\" fill=\"none\" "
                  "stroke=\"#888\"/>\n",
                  cells - 2, y - 2, wide + 2 - l->gap + 1, lines * l->line_h + 2);
    (void)fprintf(to, "<text x=\"%d\" y=\"%d\">%.0f%%</text></g>\n",
                  cells + (int)l->per_line * l->cell_w + 5, y + 10, map_live_percent(&s->sum));
}

static void
svg_legend_entry(int x, int y, const char *fill, const char *name, uint64_t bytes, uint64_t all,
                 FILE *to)
{
    char text[SIZE_TEXT];

    (void)fprintf(to,
                  "<rect x=\"%d.5\" y=\"%d.5\" width=\"16\" height=\"12\" fill=\"%s\" "
                  "stroke=\"#888\"/>\n",
                  x, y, fill);
    (void)fprintf(to, "<text x=\"%d\" y=\"%d\">%s %s, %.1f%%</text>\n", x + 23, y + 11, name,
                  size_text(bytes, text), percent(bytes, all));
}

static void
svg_head(const struct map *map, FILE *to)
{
    const int x = SVG_MARGIN, entry = (SVG_WIDTH - 2 * SVG_MARGIN) / 4;
    char text[SIZE_TEXT], granule[SIZE_TEXT];

    (void)fprintf(to, "<text x=\"%d\" y=\"28\" font-size=\"15\" font-weight=\"bold\">", x);
    svg_escaped(map->dir, to);
    (void)fprintf(to, "</text>\n<text x=\"%d\" y=\"48\">%zu segments, %s on disk, ", x, map->n,
                  size_text(map->disk_bytes, text));
    (void)fprintf(to,
                  "space amplification %.2f; a cell is %s of log; beside it: segment number, live "
                  "share of what was written and not punched</text>\n",
                  map_space_amp(map),
                  size_text(map->n == 0 ? 0 : map->segment[0].granule_bytes, granule));
    svg_legend_entry(x, 60, svg_scale[SVG_LEVELS], "live", map->sum.live, map->bytes, to);
    svg_legend_entry(x + entry, 60, svg_scale[0], "dead", map->sum.dead, map->bytes, to);
    svg_legend_entry(x + 2 * entry, 60, SVG_HATCH, "punched", map->sum.punched, map->bytes, to);
    svg_legend_entry(x + 3 * entry, 60, SVG_GREY, "unwritten", map->sum.unwritten, map->bytes, to);
    (void)fprintf(to, "<text x=\"%d\" y=\"97\">a cell's live share: 0%%</text>\n", x);
    for (int i = 0; i <= SVG_LEVELS; i++)
        (void)fprintf(to, "<rect x=\"%d\" y=\"86\" width=\"20\" height=\"13\" fill=\"%s\"/>\n",
                      x + 148 + 20 * i, svg_scale[i]);
    (void)fprintf(to, "<text x=\"%d\" y=\"97\">100%%</text>\n",
                  x + 148 + 20 * (SVG_LEVELS + 1) + 6);
}

void
map_svg(const struct map *map, FILE *to)
{
    struct svg_layout l = svg_layout_of(map);

    (void)fprintf(to,
                  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                  "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\" "
                  "fill=\"#222\">\n",
                  SVG_WIDTH, l.height, SVG_WIDTH, l.height);
    (void)fputs("<defs><pattern id=\"hatch\" width=\"4\" height=\"4\" "
                "patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
                "<rect width=\"4\" height=\"4\" fill=\"#fff\"/>"
                "<rect width=\"1\" height=\"4\" fill=\"#777\"/></pattern></defs>\n",
                to);
    (void)fputs("<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n", to);
    svg_head(map, to);
    for (size_t i = 0; i < map->n; i++)
        svg_segment(&map->segment[i], &l, SVG_MARGIN + (int)i % l.columns * l.tile_w,
                    l.top + (int)i / l.columns * l.tile_h, to);
    (void)fputs("</svg>\n", to);
}
