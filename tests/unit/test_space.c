/*
 * test_space.c - scree_reclaim, scree_segments_each and the space options, sentence by sentence: bad
 * arguments, what is given back, and that nothing a caller can see changes with it.
 */
#include "cache_fixture.h"
#include "support/churn.h"
#include "support/space_map.h"
#include "unit/claims.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define KIB 1024u
#define KEPT_MAX 6000u

static struct space_map map; /* large: not on the stack */
static _Atomic uint64_t events[16];

static void
event_count(void *ctx, const scree_event *event)
{
    (void)ctx;
    if (event->kind >= 0 && event->kind < 16)
        (void)atomic_fetch_add_explicit(&events[event->kind], 1, memory_order_relaxed);
}

static void
setup_directory(void)
{
    kit_dir_name(dir, "space");
    kit_options_small(&options, &kit_concat);
    options.space_amp_target = 100; /* what is cleaned, the tests ask for */
    options.event = event_count;
}

static void
setup(void)
{
    setup_directory();
    open_cache();
}

static scree_page_id
allocate(scree_slice slice)
{
    scree_page_id id = 0;

    EXPECT(0, scree_page_allocate(cache, slice, &id, NULL));
    return id;
}

static void
free_page(scree_page_id id)
{
    scree_version version = 0;
    int code = scree_page_read(cache, id, NULL, 0, NULL, &version);

    cr_assert(code == 0 || code == SCREE_E_TOO_BIG, "gave %d", code);
    EXPECT(0, scree_page_free(cache, id, &version));
}

static void
expect_page(scree_page_id id, const char *s)
{
    static char buffer[64 * KIB];
    size_t len = 0;

    EXPECT(0, scree_page_read(cache, id, buffer, sizeof(buffer), &len, NULL));
    cr_assert(len == strlen(s) && memcmp(buffer, s, len) == 0, "page reads %.*s, not %s", (int)len,
              buffer, s);
}

/* Bytes that look like nothing else, or pack well. */
static scree_slice
filler(uint64_t number, size_t len, bool packs)
{
    static unsigned char bytes[256 * KIB];
    uint64_t state = number;

    for (size_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)(packs ? (number + i / 100) % 100 : kit_random(&state) % 250);
    return kit_slice(bytes, len);
}

/* ---- all that a caller can see: ids, versions, bytes ---- */

static struct kept {
    scree_page_id id;
    scree_version version;
    uint64_t hash;
    size_t len;
    int code;
} kept[KEPT_MAX];
static uint32_t kept_n;

static struct kept
page_now(scree_page_id id)
{
    static unsigned char buffer[256 * KIB];
    struct kept k = {.id = id};

    k.code = scree_page_read(cache, id, buffer, sizeof(buffer), &k.len, &k.version);
    k.hash = k.code == 0 ? kit_hash(buffer, k.len, 9) : 0;
    return k;
}

static void
keep_all(void)
{
    scree_page_id id = 0;

    kept_n = 0;
    while (scree_page_next(cache, id, &id) == 0) {
        cr_assert(kept_n < KEPT_MAX);
        kept[kept_n++] = page_now(id);
    }
}

static void
expect_all_as_kept(void)
{
    scree_page_id id = 0;
    uint32_t n = 0;

    for (; scree_page_next(cache, id, &id) == 0; n++) {
        struct kept k = page_now(id);

        cr_assert(n < kept_n && kept[n].id == id, "page %llu is new", (unsigned long long)id);
        cr_assert(k.code == kept[n].code, "page %llu gives %d, it gave %d", (unsigned long long)id,
                  k.code, kept[n].code);
        cr_assert(k.version == kept[n].version, "page %llu is at %llu, it was at %llu",
                  (unsigned long long)id, (unsigned long long)k.version,
                  (unsigned long long)kept[n].version);
        cr_assert(k.len == kept[n].len && k.hash == kept[n].hash, "page %llu has other bytes",
                  (unsigned long long)id);
    }
    cr_assert(n == kept_n, "%u pages, there were %u", n, kept_n);
}

/* The file is gone, or nothing of it is on disk but its header. */
static void
expect_given_back(const char *file)
{
    uint64_t blocks = kit_dir_disk_bytes(dir, file, NULL);
    const struct space_segment *s;

    if (blocks <= 4096)
        return;
    space_map_take(cache, &map);
    s = space_map_find(&map, file);
    cr_assert(s != NULL, "%s is not on the map", file);
    cr_assert(blocks <= 4096, "%s still takes %llu bytes: %llu live, %llu dead", file,
              (unsigned long long)blocks, (unsigned long long)s->live_bytes,
              (unsigned long long)s->dead_bytes);
}

/* What no reclaim can win: the segment the log ends in, the reserve of two, the room made ahead of them (half
   a segment and a step), 4 KiB of header a file, and the ends of blocks that syncs leave: with a cache of a few
   pages there are many, a twentieth of what was moved. */
static void
expect_amp(double target)
{
    scree_stats stats = stats_now();
    double most = target * (double)stats.live_bytes + 4 * (double)options.segment_bytes +
                  4096.0 * (double)stats.segments + (double)stats.live_bytes / 20;

    cr_assert(most >= (double)stats.disk_bytes,
              "%llu bytes on disk, at most %.0f expected: %llu live, %llu dead, %llu waiting, %llu "
              "segments",
              (unsigned long long)stats.disk_bytes, most, (unsigned long long)stats.live_bytes,
              (unsigned long long)stats.dead_bytes, (unsigned long long)stats.waiting_bytes,
              (unsigned long long)stats.segments);
}

/* Records of interest lie in the first segments, among others that are freed then: to win those segments
   they have to be moved. */
static scree_page_id filler_id[200];

static void
fillers_make(uint32_t n)
{
    for (uint64_t i = 0; i < n; i++)
        filler_id[i] = allocate(filler(i, 3000, false));
}

static void
fillers_free_and_clean(uint32_t n)
{
    char first[32];
    scree_stats stats;

    EXPECT(0, scree_flush(cache, NULL));
    space_map_take(cache, &map);
    cr_assert(map.n > 2 && map.segment[0].live_bytes > 0);
    snprintf(first, sizeof(first), "%s", map.segment[0].file);
    for (uint32_t i = 0; i < n; i++)
        free_page(filler_id[i]);
    keep_all();
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    stats = stats_now();
    cr_assert(stats.cleaned_bytes > 0, "nothing was cleaned");
    expect_given_back(first);
    expect_all_as_kept();
}

/* ---- arguments ---- */

TestSuite(space_invalid, .init = setup, .fini = teardown, .timeout = 300);

Test(space_invalid, a_target_out_of_bounds_is_refused_and_named)
{
    static const double bad[] = {1.04, 1.0499, 1.0, -1.5, 100.5, 1e300, NAN, INFINITY, -INFINITY};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int code = scree_reclaim(cache, bad[i], NULL, NULL);

        cr_assert(code == SCREE_E_INVALID, "target %f gave %d", bad[i], code);
        cr_assert(strstr(scree_error_detail(), "space_amp_target") != NULL, "it says: %s",
                  scree_error_detail());
    }
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    EXPECT(0, scree_reclaim(cache, 100, NULL, NULL));
    EXPECT(0, scree_reclaim(cache, 0, NULL, NULL));
}

Test(space_invalid, nothing_for_a_cache_or_a_visitor)
{
    EXPECT(SCREE_E_INVALID, scree_reclaim(NULL, 1.5, NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_segments_each(cache, NULL, NULL));
    EXPECT(SCREE_E_INVALID,
           scree_segments_each(NULL, (scree_segment_fn)(void (*)(void))abort, NULL));
}

Test(space_invalid, reclaim_inside_a_guard_would_wait_for_itself)
{
    scree_read_enter(cache);
    EXPECT(SCREE_E_INVALID, scree_reclaim(cache, 1.5, NULL, NULL));
    scree_read_enter(cache);
    EXPECT(SCREE_E_INVALID, scree_reclaim(cache, 1.5, NULL, NULL));
    scree_read_leave(cache);
    EXPECT(SCREE_E_INVALID, scree_reclaim(cache, 1.5, NULL, NULL));
    scree_read_leave(cache);
    EXPECT(0, scree_reclaim(cache, 1.5, NULL, NULL));
}

Test(space_invalid, a_reader_looks_but_does_not_reclaim)
{
    scree_stats before;
    uint64_t fingerprint;

    for (uint64_t i = 0; i < 50; i++)
        (void)allocate(filler(i, 2000, false));
    EXPECT(0, scree_flush(cache, NULL));
    before = stats_now();
    EXPECT(0, scree_close(cache));
    fingerprint = kit_dir_fingerprint(dir, true);
    options.flags = SCREE_READ_ONLY;
    open_cache();
    EXPECT(SCREE_E_READ_ONLY, scree_reclaim(cache, 1.5, NULL, NULL));
    space_map_take(cache, &map);
    cr_assert(map.live_bytes == before.live_bytes, "%llu live bytes, not %llu",
              (unsigned long long)map.live_bytes, (unsigned long long)before.live_bytes);
    EXPECT(0, scree_close(cache));
    cache = NULL;
    cr_assert(kit_dir_fingerprint(dir, true) == fingerprint, "a reader wrote");
}

static int
visit_two(void *ctx, const scree_segment_info *info)
{
    int *n = ctx;

    (void)info;
    return ++*n == 2 ? 77 : 0;
}

Test(space_invalid, what_a_visitor_returns_ends_it_and_is_returned)
{
    int n = 0;

    for (uint64_t i = 0; i < 100; i++)
        (void)allocate(filler(i, 2000, false));
    cr_assert(scree_segments_each(cache, visit_two, &n) == 77 && n == 2, "visited %d", n);
    space_map_take(cache, &map); /* and no lock is left behind */
    cr_assert(map.n >= 3, "%u segments", map.n);
    for (uint32_t i = 0; i < map.n; i++)
        cr_assert(map.segment[i].bytes == options.segment_bytes &&
                      map.segment[i].lsn % options.segment_bytes == 0,
                  "%s", map.segment[i].file);
}

Test(space_invalid, a_poisoned_cache_reclaims_nothing)
{
    int code;

    EXPECT(0, scree_close(cache));
    cache = NULL;
    options.env = kit_env();
    kit_env_plan(&(struct kit_plan){.kinds = 0});
    options.flush_interval_ms = 0;
    open_cache();
    (void)allocate(text("well"));
    EXPECT(0, scree_flush(cache, NULL));
    kit_env_plan(
        &(struct kit_plan){.kinds = KIT_SYNC, .fault = KIT_FAULT_STUCK, .code = -EIO, .at = 1});
    (void)allocate(text("x"));
    cr_assert(scree_flush(cache, NULL) != 0, "the sync did not fail");
    EXPECT(SCREE_E_POISONED, scree_reclaim(cache, 1.5, NULL, NULL));
    kit_env_plan(&(struct kit_plan){.kinds = 0});
    code = scree_close(cache);
    cr_assert(code != 0, "a poisoned cache closed as if nothing were");
    cache = NULL;
}

TestSuite(space_options, .init = setup_directory, .fini = teardown, .timeout = 300);

Test(space_options, a_target_out_of_bounds_is_refused_before_anything_is_made)
{
    static const double bad[] = {1.04, 1.0, 0, -1.5, 100.5, NAN, INFINITY, -INFINITY};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int code;

        options.space_amp_target = bad[i];
        code = scree_open(dir, &options, &cache);
        cr_assert(code == SCREE_E_INVALID && cache == NULL, "target %f gave %d", bad[i], code);
        cr_assert(strstr(scree_error_detail(), "space_amp_target") != NULL, "it says: %s",
                  scree_error_detail());
        cr_assert(access(dir, F_OK) != 0, "the directory was made");
    }
    options.space_amp_target = 1.05;
    open_cache();
    options.space_amp_target = 100;
    reopen();
}

/* ---- what is given back ---- */

TestSuite(space_reclaim, .init = setup_directory, .fini = teardown, .timeout = 300);

struct progress {
    uint64_t calls, done, total;
    uint64_t cancel_at; /* 0: never */
    char what[32];
    bool fair;
};

static int
progress_note(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct progress *p = ctx;

    if (p->calls++ == 0)
        p->fair = true;
    p->fair = p->fair && what != NULL && what[0] != '\0';
    if (p->calls > 1 && strncmp(p->what, what, sizeof(p->what) - 1) == 0)
        p->fair = p->fair && done >= p->done;
    snprintf(p->what, sizeof(p->what), "%s", what);
    p->done = done;
    p->total = total;
    return p->calls == p->cancel_at ? 1 : 0;
}

/* Large segments, 16 MiB of pages, half of them freed at random. */
static void
half_free_make(void)
{
    static scree_page_id ids[4096];
    uint64_t random = 5;

    options.segment_bytes = 1024 * KIB;
    options.log_buffer_bytes = 1024 * KIB;
    options.cache_bytes = 4096 * KIB;
    open_cache();
    for (uint64_t i = 0; i < 4096; i++)
        ids[i] = allocate(filler(i, 4096, false));
    for (uint64_t i = 0; i < 4096; i++) {
        if (kit_below(&random, 2) == 0)
            free_page(ids[i]);
    }
    EXPECT(0, scree_flush(cache, NULL));
}

Test(space_reclaim, half_of_a_directory_is_given_back_and_nobody_notices)
{
    struct progress progress = {.calls = 0};
    scree_stats before;
    scree_stats after;

    half_free_make();
    keep_all();
    before = stats_now();
    EXPECT(0, scree_reclaim(cache, 1.1, progress_note, &progress));
    after = stats_now();
    expect_amp(1.1);
    expect_all_as_kept();
    cr_assert(progress.calls > 0 && progress.fair, "%llu calls of progress, the last %s %llu/%llu",
              (unsigned long long)progress.calls, progress.what, (unsigned long long)progress.done,
              (unsigned long long)progress.total);
    cr_assert(after.cleaned_bytes > 0 && after.punched_bytes + after.deleted_bytes > 0);
    cr_assert(after.disk_bytes < before.disk_bytes * 7 / 10, "%llu bytes before, %llu now",
              (unsigned long long)before.disk_bytes, (unsigned long long)after.disk_bytes);
    cr_assert(kit_dir_disk_bytes(dir, "segment-", NULL) <=
              after.disk_bytes + 8192 * after.segments);
    reopen();
    expect_all_as_kept();
    expect_amp(1.1);
}

Test(space_reclaim, the_option_is_the_target_of_0)
{
    options.space_amp_target = 1.2;
    half_free_make();
    keep_all();
    EXPECT(0, scree_reclaim(cache, 0, NULL, NULL));
    expect_amp(1.2);
    expect_all_as_kept();
}

Test(space_reclaim, canceled_it_stops_and_all_is_well)
{
    struct progress progress = {.cancel_at = 1};

    half_free_make();
    keep_all();
    EXPECT(SCREE_E_CANCELED, scree_reclaim(cache, 1.1, progress_note, &progress));
    cr_assert(progress.calls == 1, "%llu calls after it was canceled",
              (unsigned long long)progress.calls - 1);
    expect_all_as_kept();
    progress = (struct progress){.cancel_at = 3};
    (void)!scree_reclaim(cache, 1.1, progress_note, &progress); /* may be done by then */
    expect_all_as_kept();
    (void)allocate(text("it goes on"));
    keep_all();
    reopen();
    expect_all_as_kept();
    EXPECT(0, scree_reclaim(cache, 1.1, NULL, NULL));
    expect_amp(1.1);
    expect_all_as_kept();
}

Test(space_reclaim, of_nothing_is_nothing)
{
    scree_stats before;
    scree_stats after;

    open_cache();
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    before = stats_now();
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    after = stats_now();
    cr_assert(after.tail_lsn == before.tail_lsn, "it writes without end: %llu to %llu",
              (unsigned long long)before.tail_lsn, (unsigned long long)after.tail_lsn);
    cr_assert(after.disk_bytes <= 4 * (options.segment_bytes + 4096));
}

Test(space_reclaim, when_all_is_freed_two_segments_are_left)
{
    scree_stats stats;

    open_cache();
    for (int round = 0; round < 3; round++) {
        fillers_make(200);
        for (uint32_t i = 0; i < 200; i++)
            free_page(filler_id[i]);
    }
    EXPECT(0, scree_reclaim(cache, 1.1, NULL, NULL));
    stats = stats_now();
    cr_assert(stats.pages == 1 && stats.live_bytes <= 32, "%llu pages, %llu live bytes",
              (unsigned long long)stats.pages, (unsigned long long)stats.live_bytes);
    expect_amp(1.1);
    reopen();
    stats = stats_now();
    cr_assert(stats.pages == 1 && stats.live_bytes <= 32);
}

/* ---- cleaning changes nothing that can be seen ---- */

Test(space_reclaim, versions_stay_and_are_still_good_for_an_update)
{
    scree_page_id page;
    scree_page_id chain;
    scree_version page_version = 0;
    scree_version chain_version = 0;
    scree_version stale;

    open_cache();
    page = allocate(text("page"));
    chain = allocate(text("chain"));
    fillers_make(100);
    EXPECT(0, scree_page_put(cache, page, text("page two"), &page_version));
    EXPECT(0, scree_page_append(cache, chain, text(" one"), &stale));
    EXPECT(0, scree_page_append(cache, chain, text(" two"), &chain_version));
    fillers_free_and_clean(100);
    EXPECT(SCREE_E_CONFLICT, scree_page_merge(cache, chain, &stale, text(" stale")));
    cr_assert(stale == chain_version, "a CONFLICT tells %llu, not %llu", (unsigned long long)stale,
              (unsigned long long)chain_version);
    EXPECT(0, scree_page_set(cache, page, &page_version, text("page three")));
    EXPECT(0, scree_page_merge(cache, chain, &chain_version, text(" three")));
    reopen();
    expect_page(page, "page three");
    expect_page(chain, "chain one two three");
    EXPECT(0, scree_page_set(cache, page, &page_version, text("page four")));
}

/* "N" stands for no base. */
static int
base_merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
           scree_out *out)
{
    int code =
        base == NULL ? scree_out_append(out, "N", 1) : scree_out_append(out, base->data, base->len);

    (void)ctx;
    (void)id;
    for (size_t i = 0; i < n && code == 0; i++)
        code = scree_out_append(out, frags[i].data, frags[i].len);
    return code;
}

static const scree_materializer base_materializer = {
    .size = sizeof(scree_materializer), .name = "base", .version = 1, .merge = base_merge};

static void
expect_base(scree_page_id id, bool has_base)
{
    scree_slice base = {NULL, 0};
    size_t n = 9;

    scree_read_enter(cache);
    EXPECT(0, scree_page_fragments(cache, id, &base, NULL, 0, &n, NULL));
    cr_assert(n == 0 && base.len == 0 && (base.data != NULL) == has_base,
              "page %llu: base %p of %zu, %zu fragments", (unsigned long long)id, base.data,
              base.len, n);
    scree_read_leave(cache);
}

/* Three ways to be moved: in memory, evicted, after a reopen; each page is looked at after each. */
static void
empty_pages_check(bool reopened)
{
    scree_page_id none;
    scree_page_id empty;
    scree_page_id chain;

    options.materializer = &base_materializer;
    options.fragments_max = 100;
    open_cache();
    none = allocate(kit_slice(NULL, 0));
    empty = allocate(text("abc"));
    chain = allocate(kit_slice(NULL, 0));
    EXPECT(0, scree_page_put(cache, empty, kit_slice("", 0), NULL));
    EXPECT(0, scree_page_append(cache, chain, text("x"), NULL));
    fillers_make(100);
    if (reopened)
        reopen();
    fillers_free_and_clean(100);
    expect_base(SCREE_PAGE_ROOT, false);
    expect_base(none, false);
    expect_base(empty, true);
    reopen();
    expect_base(SCREE_PAGE_ROOT, false);
    expect_base(none, false);
    expect_base(empty, true);
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("r"), NULL));
    EXPECT(0, scree_page_append(cache, none, text("z"), NULL));
    EXPECT(0, scree_page_append(cache, empty, text("z"), NULL));
    EXPECT(0, scree_page_append(cache, chain, text("y"), NULL));
    expect_page(SCREE_PAGE_ROOT, "Nr");
    expect_page(none, "Nz");
    expect_page(empty, "z");
    expect_page(chain, "Nxy");
}

Test(space_reclaim, a_page_without_a_base_has_none_after_cleaning)
{
    empty_pages_check(false);
}

Test(space_reclaim, a_page_without_a_base_has_none_after_a_reopen_and_cleaning)
{
    empty_pages_check(true);
}

Test(space_reclaim, pages_of_several_fragments_keep_them_all)
{
    scree_page_id id[20];
    char expected[256] = "";

    options.fragments_max = 100;
    open_cache();
    for (int i = 0; i < 20; i++)
        id[i] = allocate(text("base"));
    fillers_make(60);
    for (int k = 0; k < 12; k++) { /* spread over segments */
        char fragment[16];

        snprintf(fragment, sizeof(fragment), ",%d", k);
        strcat(expected, fragment);
        for (int i = 0; i < 20; i++)
            EXPECT(0, scree_page_append(cache, id[i], text(fragment), NULL));
        for (uint64_t i = 0; i < 20; i++)
            EXPECT(0, scree_page_put(cache, filler_id[i], filler(i, 3000, false), NULL));
    }
    fillers_free_and_clean(60);
    reopen();
    for (int i = 0; i < 20; i++) {
        char page[300];

        snprintf(page, sizeof(page), "base%s", expected);
        expect_page(id[i], page);
    }
}

Test(space_reclaim, a_page_that_cannot_be_merged_keeps_its_fragments)
{
    const unsigned char bad[3] = {KIT_UNMERGEABLE, 'b', 'd'};
    scree_slice base;
    scree_slice frags[4];
    scree_page_id id;
    size_t n = 0;

    open_cache();
    id = allocate(text("base"));
    EXPECT(0, scree_page_append(cache, id, text("good"), NULL));
    EXPECT(0, scree_page_append(cache, id, kit_slice(bad, 3), NULL));
    fillers_make(100);
    EXPECT(0, scree_flush(cache, NULL));
    for (uint32_t i = 0; i < 100; i++)
        free_page(filler_id[i]);
    keep_all();
    for (int i = 0; i < 3; i++)
        EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    for (int i = 0; i < 2; i++) {
        expect_all_as_kept();
        scree_read_enter(cache);
        EXPECT(0, scree_page_fragments(cache, id, &base, frags, 4, &n, NULL));
        cr_assert(base.len == 4 && memcmp(base.data, "base", 4) == 0, "base of %zu", base.len);
        cr_assert(n == 2 && frags[0].len == 4 && frags[1].len == 3, "%zu fragments", n);
        cr_assert(memcmp(frags[0].data, "good", 4) == 0 && memcmp(frags[1].data, bad, 3) == 0);
        scree_read_leave(cache);
        reopen();
    }
    EXPECT(0, scree_page_put(cache, id, text("repaired"), NULL));
    expect_page(id, "repaired");
}

Test(space_reclaim, packed_pages_are_moved_whole)
{
    scree_stats stats;

    options.compression_level = 1;
    options.page_bytes_max = 16 * KIB;
    open_cache();
    for (uint64_t i = 0; i < 60; i++)
        (void)allocate(filler(i, 1000 + i * 200, true));
    stats = stats_now();
    cr_assert(stats.live_bytes < 200 * KIB, "%llu live bytes: nothing was packed",
              (unsigned long long)stats.live_bytes);
    fillers_make(200);
    fillers_free_and_clean(200);
    reopen();
    expect_all_as_kept();
}

Test(space_reclaim, pages_larger_than_a_segment)
{
    scree_page_id id[60];
    scree_stats stats;

    options.log_buffer_bytes = 1024 * KIB;
    options.page_bytes_max = 200 * KIB;
    options.cache_bytes = 1024 * KIB;
    open_cache();
    for (uint64_t i = 0; i < 60; i++)
        id[i] = allocate(filler(i, 100 * KIB + i * 900, false));
    for (uint64_t i = 0; i < 60; i += 3)
        free_page(id[i]);
    for (uint64_t i = 1; i < 60; i += 6)
        EXPECT(0, scree_page_put(cache, id[i], filler(i + 100, 150 * KIB, false), NULL));
    EXPECT(0, scree_flush(cache, NULL));
    keep_all();
    for (int i = 0; i < 2; i++) {
        EXPECT(0, scree_reclaim(cache, 1.1, NULL, NULL));
        expect_all_as_kept();
        expect_amp(1.1);
        reopen();
        expect_all_as_kept();
    }
    stats = stats_now();
    cr_assert(stats.live_bytes > 40 * 100 * KIB, "%llu live bytes",
              (unsigned long long)stats.live_bytes);
}

Test(space_reclaim, a_crash_after_it_finds_all)
{
    char copy[KIT_PATH_MAX];

    half_free_make();
    EXPECT(0, scree_reclaim(cache, 1.1, NULL, NULL));
    (void)allocate(text("the last"));
    EXPECT(0, scree_flush(cache, NULL));
    keep_all();
    kit_dir_name(copy, "space-copy");
    kit_dir_copy(dir, copy);
    EXPECT(0, scree_close(cache));
    cache = NULL;
    EXPECT(0, scree_open(copy, &options, &cache));
    expect_all_as_kept();
    EXPECT(0, scree_reclaim(cache, 1.1, NULL, NULL));
    expect_all_as_kept();
    EXPECT(0, scree_close(cache));
    cache = NULL;
    kit_dir_remove(copy);
}

/* ---- without holes ---- */

Test(space_reclaim, no_punch_means_no_holes)
{
    scree_stats stats;

    options.flags |= SCREE_NO_PUNCH;
    half_free_make();
    keep_all();
    EXPECT(0, scree_reclaim(cache, 1.1, NULL, NULL));
    stats = stats_now();
    cr_assert(stats.punched_bytes == 0 && stats.deleted_bytes > 0, "%llu bytes punched",
              (unsigned long long)stats.punched_bytes);
    space_map_take(cache, &map);
    for (uint32_t i = 0; i < map.n; i++) {
        for (uint32_t g = 0; g < map.segment[i].granules; g++)
            cr_assert(map.segment[i].granule[g].punched == 0, "%s", map.segment[i].file);
    }
    expect_amp(1.1);
    expect_all_as_kept();
}

Test(space_reclaim, a_file_system_without_holes_is_told_of_once_and_cleaned)
{
    scree_stats stats;

    options.env = kit_env();
    kit_env_plan(&(struct kit_plan){
        .kinds = KIT_PUNCH, .fault = KIT_FAULT_STUCK, .code = -EOPNOTSUPP, .at = 1});
    half_free_make();
    keep_all();
    EXPECT(0, scree_reclaim(cache, 1.1, NULL, NULL));
    stats = stats_now();
    cr_assert(stats.punched_bytes == 0, "%llu bytes punched",
              (unsigned long long)stats.punched_bytes);
    cr_assert(atomic_load_explicit(&events[SCREE_EVENT_NO_PUNCH], memory_order_relaxed) == 1,
              "%llu events, and %llu calls",
              (unsigned long long)atomic_load_explicit(&events[SCREE_EVENT_NO_PUNCH],
                                                       memory_order_relaxed),
              (unsigned long long)kit_env_calls());
    cr_assert(kit_env_calls() <= 4, "asked %llu times for what is not to be had",
              (unsigned long long)kit_env_calls());
    expect_amp(1.1);
    expect_all_as_kept();
    EXPECT(0, scree_close(cache));
    cache = NULL;
}

/* A failed punch has lost nothing: the bytes were dead. */
Test(space_reclaim, a_punch_that_fails_harms_nobody)
{
    int code;

    options.env = kit_env();
    kit_env_plan(
        &(struct kit_plan){.kinds = KIT_PUNCH, .fault = KIT_FAULT_STUCK, .code = -EIO, .at = 1});
    half_free_make();
    keep_all();
    code = scree_reclaim(cache, 1.1, NULL, NULL);
    cr_assert(code == 0 || code == -EIO, "gave %d %s", code, kit_code_name(code));
    expect_all_as_kept();
    EXPECT(0, scree_health(cache));
    (void)allocate(text("onwards"));
    keep_all();
    reopen();
    expect_all_as_kept();
    EXPECT(0, scree_close(cache));
    cache = NULL;
}

/* ---- beside others ---- */

static _Atomic bool stop;

static _Atomic bool entered;

static void *
guard_run(void *argument)
{
    (void)argument;
    scree_read_enter(cache);
    atomic_store_explicit(&entered, true, memory_order_release);
    while (!atomic_load_explicit(&stop, memory_order_acquire))
        usleep(1000);
    scree_read_leave(cache);
    return NULL;
}

/* Of all calls only scree_reclaim says that it waits for grace periods. */
Test(space_reclaim, a_snapshot_waits_for_nobody_s_guard, .timeout = 120)
{
    pthread_t thread;

    options.snapshot_log_bytes = 64 * KIB;
    open_cache();
    fillers_make(200);
    cr_assert(pthread_create(&thread, NULL, guard_run, NULL) == 0);
    while (!atomic_load_explicit(&entered, memory_order_acquire))
        usleep(100);
    for (int i = 0; i < 10; i++) {
        for (uint64_t k = 0; k < 100; k++)
            EXPECT(0, scree_page_put(cache, filler_id[k], filler(k, 3000, false), NULL));
        EXPECT(0, scree_snapshot(cache, NULL));
        EXPECT(0, scree_flush(cache, NULL));
    }
    atomic_store_explicit(&stop, true, memory_order_release);
    pthread_join(thread, NULL);
}

static void *
update_run(void *argument)
{
    struct churn *c = argument;
    static const struct churn_mix mix = {.put = 60, .append = 30, .free = 10};

    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        KIT_CHECK(churn_step(c, cache, &mix) == 0, "an update failed");
    return NULL;
}

Test(space_reclaim, updates_go_on_beside_it)
{
    struct churn *c = churn_new(3, 300, 200, 3000);
    pthread_t thread;
    uint32_t before;

    c->page_max = 3800;
    open_cache();
    cr_assert(pthread_create(&thread, NULL, update_run, c) == 0);
    for (int i = 0; i < 20; i++) {
        usleep(20000);
        before = churn_done(c);
        EXPECT(0, scree_reclaim(cache, 1.2, NULL, NULL));
    }
    cr_assert(churn_done(c) > before, "no update beside the last reclaim and ever after");
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    pthread_join(thread, NULL);
    churn_check(c, cache);
    EXPECT(0, scree_reclaim(cache, 1.2, NULL, NULL));
    expect_amp(1.2);
    reopen();
    churn_check(c, cache);
    churn_delete(c);
}

/* With much to be won: the next open need not be a user's who wants the directory changed. */
Test(space_reclaim, a_closed_directory_that_is_only_read_is_not_cleaned)
{
    uint64_t before;
    char byte;
    size_t len;

    open_cache();
    fillers_make(200);
    for (uint64_t i = 0; i < 200; i += 4)
        for (uint64_t k = 1; k < 4; k++)
            free_page(filler_id[i + k]);
    EXPECT(0, scree_close(cache));
    options.space_amp_target = 1.05;
    before = kit_dir_fingerprint(dir, true);
    open_cache();
    for (int i = 0; i < 20; i++) {
        EXPECT(SCREE_E_TOO_BIG, scree_page_read(cache, filler_id[0], &byte, 1, &len, NULL));
        usleep(50000);
        cr_assert(kit_dir_fingerprint(dir, true) == before, "written to after %d ms", i * 50);
    }
    EXPECT(0, scree_close(cache));
    cr_assert(kit_dir_fingerprint(dir, true) == before, "written to by close");
    open_cache();
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL)); /* but if asked */
    cr_assert(kit_dir_fingerprint(dir, true) != before, "nothing was cleaned");
}

/* Several holes in one go: the first attempt tells it all. */
Test(space_reclaim, no_holes_is_learned_from_the_first_attempt)
{
    static scree_page_id ids[1024];
    scree_log_reader *reader;

    options.segment_bytes = 1024 * KIB;
    options.log_buffer_bytes = 1024 * KIB;
    options.cache_bytes = 4096 * KIB;
    options.env = kit_env();
    open_cache();
    kit_env_plan(&(struct kit_plan){
        .kinds = KIT_PUNCH, .fault = KIT_FAULT_STUCK, .code = -EOPNOTSUPP, .at = 1});
    EXPECT(0, scree_log_open(cache, 0, &reader)); /* nothing is given back meanwhile */
    for (uint64_t i = 0; i < 1024; i++)
        ids[i] = allocate(filler(i, 4096, false));
    for (uint64_t i = 0; i < 1024; i++) { /* of each segment's worth a quarter, in one piece */
        if (i % 256 < 64)
            free_page(ids[i]);
    }
    EXPECT(0, scree_flush(cache, NULL));
    EXPECT(0, scree_snapshot(cache, NULL));
    cr_assert(eq(u64, kit_env_calls(), 0));
    scree_log_close(reader);
    EXPECT(0, scree_reclaim(cache, 100, NULL, NULL));
    cr_assert(eq(u64, kit_env_calls(), 1));
    cr_assert(
        eq(u64, atomic_load_explicit(&events[SCREE_EVENT_NO_PUNCH], memory_order_relaxed), 1));
}
