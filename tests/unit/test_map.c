/*
 * test_map.c - what scree map draws: known segments in, characters and cells out.
 */
#include "map.h"
#include "unit/claims.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIB 1024u
#define GRANULE (64 * KIB)

static struct map map;
static uint64_t added_lsn;

static void
map_begin(void)
{
    memset(&map, 0, sizeof map);
    map.dir = "dir";
    added_lsn = 0;
}

static void
map_end(void)
{
    map_destroy(&map);
}

/* Each segment behind the one before, from number 1 on. */
static void
add(const char *file, const scree_granule *granules, uint32_t n, uint64_t bytes)
{
    scree_segment_info info = {.size = sizeof info,
                               .file = file,
                               .lsn = added_lsn += bytes,
                               .bytes = bytes,
                               .disk_bytes = bytes,
                               .granule_bytes = GRANULE,
                               .granules = n,
                               .granule = granules};

    cr_assert(eq(int, map_add(&map, &info), 0));
}

static char *
drawn(void (*draw)(const struct map *, FILE *))
{
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);

    cr_assert(ne(ptr, to, NULL));
    draw(&map, to);
    cr_assert(eq(int, fclose(to), 0));
    return text;
}

/* The characters of the row of `file`: what is behind the last blank of its line. */
static void
row_of(const char *text, const char *file, char row[80])
{
    const char *line = strstr(text, file), *end, *begin;

    cr_assert(ne(ptr, (void *)line, NULL));
    end = strchr(line, '\n');
    for (begin = end; begin[-1] != ' '; begin--)
        ;
    cr_assert(lt(sz, (size_t)(end - begin), 80));
    memcpy(row, begin, (size_t)(end - begin));
    row[end - begin] = '\0';
}

static size_t
count(const char *text, const char *what)
{
    size_t n = 0;

    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

TestSuite(map_collect, .init = map_begin, .fini = map_end);
TestSuite(map_text, .init = map_begin, .fini = map_end);
TestSuite(map_svg, .init = map_begin, .fini = map_end);

/* ---- collecting ---------------------------------------------------------------------------------- */

Test(map_collect, every_byte_is_in_one_sum)
{
    const scree_granule granules[] = {
        {GRANULE, GRANULE, 0}, {GRANULE, 1000, 0}, {GRANULE, 0, 1}, {5000, 4000, 0}, {0, 0, 0}};

    add("segment-1", granules, 5, 4 * GRANULE + 8 * KIB); /* the last granule is 8 KiB long */
    cr_assert(eq(u64, map.sum.live, GRANULE + 1000 + 4000));
    cr_assert(eq(u64, map.sum.dead, GRANULE - 1000 + 1000));
    cr_assert(eq(u64, map.sum.punched, GRANULE));
    cr_assert(eq(u64, map.sum.unwritten, GRANULE - 5000 + 8 * KIB));
    cr_assert(
        eq(u64, map.sum.live + map.sum.dead + map.sum.punched + map.sum.unwritten, map.bytes));
    cr_assert(eq(u64, map.segment[0].number, 1));
}

Test(map_collect, figures_that_do_not_fit_are_cut_to_what_can_be)
{
    const scree_granule granules[] = {{2 * GRANULE, 3 * GRANULE, 0}, {10, 20, 0}, {0, 7, 1}};

    add("segment-1", granules, 3, 3 * GRANULE);
    cr_assert(eq(u64, map.sum.live, GRANULE + 10));
    cr_assert(eq(u64, map.sum.dead, 0));
    cr_assert(eq(u64, map.sum.punched, 0));
    cr_assert(eq(u64, map.sum.unwritten, 2 * GRANULE - 10));
}

Test(map_collect, shares_of_nothing_are_zero)
{
    const scree_granule nothing = {0, 0, 0};

    cr_assert(epsilon_eq(dbl, map_space_amp(&map), 0, 0));
    add("segment-1", &nothing, 1, GRANULE);
    cr_assert(epsilon_eq(dbl, map_space_amp(&map), 0, 0));
    cr_assert(epsilon_eq(dbl, map_live_percent(&map.sum), 0, 0));
}

Test(map_collect, what_was_punched_does_not_count_against_what_lives)
{
    const scree_granule granules[] = {{GRANULE, GRANULE, 0}, {GRANULE, 0, 1}, {GRANULE, 0, 1}};

    add("segment-1", granules, 3, 3 * GRANULE);
    cr_assert(epsilon_eq(dbl, map_live_percent(&map.sum), 100, 0));
}

Test(map_collect, space_amplification_is_disk_by_live)
{
    const scree_granule quarter = {GRANULE, GRANULE / 4, 0};

    add("segment-1", &quarter, 1, GRANULE);
    cr_assert(epsilon_eq(dbl, map_space_amp(&map), 4, 0));
    cr_assert(epsilon_eq(dbl, map_live_percent(&map.sum), 25, 0));
}

/* ---- text ---------------------------------------------------------------------------------------- */

Test(map_text, each_kind_has_its_character)
{
    const scree_granule granules[] = {{GRANULE, GRANULE, 0},
                                      {GRANULE, GRANULE - 1, 0},
                                      {GRANULE, GRANULE / 2, 0},
                                      {GRANULE, 1, 0},
                                      {GRANULE, 0, 0},
                                      {GRANULE, 0, 1},
                                      {GRANULE / 4, GRANULE / 4, 0},
                                      {100, 0, 0},
                                      {0, 0, 0}};
    char row[80], *text;

    add("segment-1", granules, 9, 9 * GRANULE);
    text = drawn(map_text);
    row_of(text, "segment-1", row);
    cr_assert(eq(str, row, "#951.o#__"));
    cr_assert(ne(ptr, strstr(text, "a character is 1 granule of 64 KiB"), NULL));
    free(text);
}

Test(map_text, a_row_is_64_characters_at_most)
{
    static scree_granule granules[65];
    char row[80], *text;

    for (size_t i = 0; i < 65; i++)
        granules[i] = (scree_granule){GRANULE, i < 2 ? GRANULE : 0, 0};
    add("segment-1", granules, 64, 64 * GRANULE);
    text = drawn(map_text);
    row_of(text, "segment-1", row);
    cr_assert(eq(sz, strlen(row), 64));
    free(text);
    add("segment-2", granules, 65, 65 * GRANULE);
    text = drawn(map_text);
    row_of(text, "segment-2", row);
    cr_assert(eq(str, row, "#................................"));
    row_of(text, "segment-1", row); /* one scale for all */
    cr_assert(eq(str, row, "#..............................."));
    cr_assert(ne(ptr, strstr(text, "a character is 2 granules of 64 KiB"), NULL));
    free(text);
}

Test(map_text, a_character_of_several_granules_shows_most_of_them)
{
    static const scree_granule live = {GRANULE, GRANULE, 0}, dead = {GRANULE, 0, 0},
                               hole = {GRANULE, 0, 1}, none = {0, 0, 0};
    static scree_granule granules[192]; /* 3 a character */
    char row[80], *text;

    for (size_t i = 0; i < 192; i++)
        granules[i] = none;
    granules[0] = live, granules[1] = live, granules[2] = hole;
    granules[3] = hole, granules[4] = hole, granules[5] = dead;
    granules[6] = dead, granules[7] = dead, granules[8] = hole;
    granules[9] = dead, granules[10] = none, granules[11] = none;
    granules[12] = hole, granules[13] = live, granules[14] = none;
    add("segment-1", granules, 192, 192 * GRANULE);
    text = drawn(map_text);
    row_of(text, "segment-1", row);
    row[6] = '\0';
    cr_assert(eq(str, row, "7o._5_"));
    free(text);
}

Test(map_text, totals_come_last)
{
    const scree_granule half = {GRANULE, GRANULE / 2, 0};
    char *text;

    add("segment-1", &half, 1, GRANULE);
    add("segment-2", &half, 1, GRANULE);
    text = drawn(map_text);
    cr_assert(ne(ptr, strstr(text, "total"), NULL));
    cr_assert(ne(ptr, strstr(text, "on disk 128 KiB, space amplification 2.00"), NULL));
    free(text);
}

Test(map_text, no_segments_are_no_error)
{
    char *text = drawn(map_text);

    cr_assert(ne(ptr, strstr(text, "on disk 0 B"), NULL));
    free(text);
}

/* ---- SVG ----------------------------------------------------------------------------------------- */

/* By the parser that is there; the picture itself is judged by eye. */
static void
assert_well_formed(const char *svg)
{
    char path[] = "/tmp/scree-test-map-XXXXXX", command[256];
    int fd = mkstemp(path), status;

    cr_assert(ge(int, fd, 0));
    cr_assert(eq(sz, (size_t)write(fd, svg, strlen(svg)), strlen(svg)));
    (void)close(fd);
    (void)snprintf(command, sizeof command,
                   "if command -v xmllint >/dev/null; then xmllint --noout --nonet %s; "
                   "elif command -v python3 >/dev/null; then "
                   "python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' %s; fi",
                   path, path);
    status = system(command);
    (void)unlink(path);
    cr_assert(eq(int, status, 0));
}

/* The widths of all cells filled so: they are drawn as M<x> <y>h<width>v<height>h-<width>z. */
static long
filled_width(const char *svg, const char *fill)
{
    char path[64];
    long sum = 0;

    (void)snprintf(path, sizeof path, "<path fill=\"%s\" d=\"", fill);
    for (svg = strstr(svg, path); svg != NULL; svg = strstr(svg + 1, path))
        for (const char *p = strchr(svg, 'M'); *p != '"'; p++)
            if (*p == 'h' && p[1] != '-')
                sum += strtol(p + 1, NULL, 10);
    return sum;
}

static long
svg_height(const char *svg)
{
    const char *at = strstr(svg, "height=\"");

    return at == NULL ? 0 : strtol(at + strlen("height=\""), NULL, 10);
}

Test(map_svg, every_granule_is_a_cell_of_its_kind)
{
    static scree_granule granules[1024];
    char *svg;

    for (size_t i = 0; i < 1024; i++) {
        granules[i] = (scree_granule){GRANULE, GRANULE, 0};
        if (i >= 100 && i < 600)
            granules[i].live_bytes = 0;
        if (i >= 300 && i < 600)
            granules[i].punched = 1;
        if (i >= 1000)
            granules[i] = (scree_granule){0, 0, 0};
    }
    add("segment-1", granules, 1024, 1024 * GRANULE);
    svg = drawn(map_svg);
    assert_well_formed(svg);
    cr_assert(eq(long, filled_width(svg, "#5fd47c"), 3 * 500)); /* 3 px a cell */
    cr_assert(eq(long, filled_width(svg, "#7a0010"), 3 * 200));
    cr_assert(eq(long, filled_width(svg, "url(#hatch)"), 3 * 300));
    cr_assert(eq(long, filled_width(svg, "#e4e4e4"), 3 * 24));
    free(svg);
}

Test(map_svg, shares_between_have_colours_between)
{
    static const char *const scale[] = {"#7a0010", "#991314", "#b53018", "#ca4f1d", "#d66f24",
                                        "#d69030", "#c3ae3e", "#9bc554", "#5fd47c"};
    scree_granule granules[9];
    char *svg;

    for (uint32_t i = 0; i < 9; i++)
        granules[i] = (scree_granule){GRANULE,
                                      i == 0   ? 0
                                      : i == 8 ? GRANULE
                                               : (2 * i - 1) * GRANULE / 14,
                                      0};
    add("segment-1", granules, 9, 9 * GRANULE);
    svg = drawn(map_svg);
    for (size_t i = 0; i < 9; i++)
        cr_assert(eq(long, filled_width(svg, scale[i]), filled_width(svg, scale[0])), "share %zu",
                  i);
    cr_assert(gt(long, filled_width(svg, scale[0]), 0));
    free(svg);
}

Test(map_svg, names_are_escaped)
{
    const scree_granule live = {GRANULE, GRANULE, 0};
    char *svg;

    /* Markup, a control character, a lone continuation, an overlong form, a surrogate, and good UTF-8. */
    map.dir = "</text><script>&\"'\x01\x80\xc0\xaf\xed\xa0\x80 caf\xc3\xa9 \xf0\x9f\x98\x80";
    add("<segment> & co", &live, 1, GRANULE);
    svg = drawn(map_svg);
    assert_well_formed(svg);
    cr_assert(eq(sz, count(svg, "<script"), 0));
    cr_assert(eq(sz, count(svg, "&lt;segment&gt; &amp; co"), 1));
    cr_assert(eq(sz, count(svg, "\xef\xbf\xbd"), 7));
    cr_assert(eq(sz, count(svg, "caf\xc3\xa9 \xf0\x9f\x98\x80"), 1));
    free(svg);
}

Test(map_svg, large_and_many_segments_stay_readable)
{
    static scree_granule granules[1024];
    char name[32], *svg;

    for (size_t i = 0; i < 1024; i++)
        granules[i] = (scree_granule){GRANULE, i % 3 == 0 ? GRANULE : 0, 0};
    for (unsigned i = 0; i < 24; i++) {
        (void)snprintf(name, sizeof name, "segment-%u", i);
        add(name, granules, 1024, 1024 * GRANULE);
    }
    svg = drawn(map_svg);
    assert_well_formed(svg);
    cr_assert(eq(sz, count(svg, "<title>"), 24));
    cr_assert(lt(long, svg_height(svg), 1200));
    free(svg);
    map_destroy(&map);
    map_begin();
    for (unsigned i = 0; i < 500; i++) {
        (void)snprintf(name, sizeof name, "segment-%u", i);
        add(name, granules, 1, GRANULE);
    }
    svg = drawn(map_svg);
    assert_well_formed(svg);
    cr_assert(eq(sz, count(svg, "<title>"), 500));
    cr_assert(lt(long, svg_height(svg), 1200));
    free(svg);
}

Test(map_svg, no_segments_are_a_picture_too)
{
    char *svg = drawn(map_svg);

    assert_well_formed(svg);
    free(svg);
}
