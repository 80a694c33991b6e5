/*
 * test_increments.c - snapshots as their user sees them: how much they write, when they are full, what merging
 * leaves in the directory, what damage does to it.
 */
#include "cache_fixture.h"
#include "unit/claims.h"

#include <stdatomic.h>
#include <unistd.h>

#define PAGES 400u
#define TRIES 100u

static scree_page_id id[PAGES];
static _Atomic unsigned damage_told, fallbacks;

static unsigned
told(_Atomic unsigned *count)
{
    return atomic_load_explicit(count, memory_order_relaxed); /* a count */
}
static struct kit_files files;

static void
on_event(void *ctx, const scree_event *event)
{
    (void)ctx;
    /* Relaxed: counts, looked at again and again. */
    if (event->kind == SCREE_EVENT_SNAPSHOT_FAILED && event->code == SCREE_E_CORRUPT)
        atomic_fetch_add_explicit(&damage_told, 1, memory_order_relaxed);
    if (event->kind == SCREE_EVENT_SNAPSHOT_FALLBACK)
        atomic_fetch_add_explicit(&fallbacks, 1, memory_order_relaxed);
}

static void
change(unsigned n)
{
    static unsigned next;

    for (unsigned i = 0; i < n; i++)
        EXPECT(0, scree_page_append(cache, id[next++ % PAGES], text("x"), NULL));
}

/* Some pages, and a full snapshot. */
static void
setup(void)
{
    kit_dir_name(dir, "increments");
    kit_options_small(&options, &kit_concat);
    options.cache_bytes = 1024 * 1024;
    options.event = on_event;
    open_cache();
    for (unsigned i = 0; i < PAGES; i++)
        EXPECT(0, scree_page_allocate(cache, text("page"), &id[i], NULL));
    EXPECT(0, scree_snapshot(cache, NULL));
}

TestSuite(increments_size, .init = setup, .fini = teardown, .timeout = 300);
TestSuite(increments_merge, .init = setup, .fini = teardown, .timeout = 300);

static unsigned
snapshot_files(void)
{
    unsigned n = 0;

    kit_dir_list(dir, &files);
    for (size_t i = 0; i < files.n; i++)
        n += strncmp(files.name[i], "snapshot-", 9) == 0;
    return n;
}

/* Each page begins as it was made. */
static void
pages_check(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        char bytes[64];
        size_t len;

        EXPECT(0, scree_page_read(cache, id[i], bytes, sizeof bytes, &len, NULL));
        cr_assert(len >= 4 && memcmp(bytes, "page", 4) == 0, "page %u", i);
    }
}

Test(increments_size, nothing_changed_and_nothing_is_written)
{
    scree_stats before = stats_now();
    /* The log has room made ahead at any time. What else is written anew gets a new name. */
    uint64_t print = kit_dir_fingerprint_but(dir, false, "segment-");

    EXPECT(0, scree_snapshot(cache, NULL));
    cr_assert(eq(u64, stats_now().snapshot_bytes, before.snapshot_bytes));
    cr_assert(eq(u64, kit_dir_fingerprint_but(dir, false, "segment-"), print));
}

Test(increments_size, only_what_changed_is_written)
{
    scree_stats before = stats_now(), after;

    cr_assert(eq(u64, before.snapshot_delta_bytes, 0));
    change(10);
    EXPECT(0, scree_snapshot(cache, NULL));
    after = stats_now();
    cr_assert(gt(u64, after.snapshot_delta_bytes, 0));
    cr_assert(le(u64, after.snapshot_delta_bytes, 136 + 40 + 10 * 14));
    reopen();
    pages_check();
}

Test(increments_size, where_half_of_all_pages_changed_the_next_is_full)
{
    uint64_t deltas;

    change(PAGES / 2 + 5);
    EXPECT(0, scree_snapshot(cache, NULL));
    deltas = stats_now().snapshot_delta_bytes;
    cr_assert(gt(u64, deltas, 0));
    change(1);
    EXPECT(0, scree_snapshot(cache, NULL));
    cr_assert(eq(u64, stats_now().snapshot_delta_bytes, deltas));
    change(1);
    EXPECT(0, scree_snapshot(cache, NULL));
    cr_assert(gt(u64, stats_now().snapshot_delta_bytes, deltas));
}

/* Takes snapshots until something has been merged. */
static void
merge_await(void)
{
    uint64_t merged = stats_now().snapshot_merge_bytes;

    for (unsigned i = 0; i < TRIES && stats_now().snapshot_merge_bytes == merged; i++) {
        change(60);
        EXPECT(0, scree_snapshot(cache, NULL));
        (void)usleep(20 * 1000);
    }
    cr_assert(gt(u64, stats_now().snapshot_merge_bytes, merged));
    (void)usleep(50 * 1000); /* published */
}

Test(increments_merge, leaves_only_what_is_named_and_strangers)
{
    merge_await();
    kit_file_write(dir, "snapshot-0000000000000001.tmp", "left by a crash", 15);
    kit_file_write(dir, "snapshot-0000000000000001", "superseded", 10);
    kit_file_write(dir, "snapshot-1", "a stranger's", 12);
    /* No manifest names what was merged any more, once the merge has been published. */
    for (unsigned i = 0; i < 3 || (snapshot_files() > 8 && i < TRIES); i++) {
        change(1);
        EXPECT(0, scree_snapshot(cache, NULL));
        (void)usleep(50 * 1000);
    }
    (void)snapshot_files();
    for (size_t i = 0; i < files.n; i++) {
        cr_assert(strstr(files.name[i], ".tmp") == NULL, "%s", files.name[i]);
        cr_assert(strcmp(files.name[i], "snapshot-0000000000000001") != 0);
    }
    cr_assert(le(uint, snapshot_files(), 8));
    cr_assert(access(dir, F_OK) == 0);
    free(kit_file_read(dir, "snapshot-1", &(size_t){0}));
    reopen();
    cr_assert(told(&fallbacks) == 0);
    pages_check();
}

Test(increments_merge, damage_is_told_and_the_next_snapshot_is_full)
{
    unsigned char *bytes;
    uint64_t deltas;
    char name[64] = "";
    size_t len;

    (void)snapshot_files();
    for (size_t i = files.n; i-- > 0;) /* the oldest: the full one */
        if (strncmp(files.name[i], "snapshot-", 9) == 0)
            snprintf(name, sizeof name, "%s", files.name[i]);
    bytes = kit_file_read(dir, name, &len);
    cr_assert(bytes != NULL);
    bytes[len / 2] ^= 1;
    kit_file_write(dir, name, bytes, len);
    free(bytes);
    for (unsigned i = 0; i < TRIES && told(&damage_told) == 0; i++) {
        change(60);
        EXPECT(0, scree_snapshot(cache, NULL));
        (void)usleep(20 * 1000);
    }
    cr_assert(told(&damage_told) > 0);
    deltas = stats_now().snapshot_delta_bytes;
    change(1);
    EXPECT(0, scree_snapshot(cache, NULL));
    cr_assert(eq(u64, stats_now().snapshot_delta_bytes, deltas));
    reopen(); /* what is damaged is not needed any more */
    cr_assert(told(&fallbacks) == 0);
    pages_check();
}
