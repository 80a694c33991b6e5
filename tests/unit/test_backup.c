/*
 * test_backup.c - scree_backup, sentence by sentence: what the copy holds, what is refused, what a failure
 * leaves. Under load and cut short: tests/crash/crash_backup.c.
 */
#include "support/track_env.h"
#include "unit/cache_fixture.h"
#include "unit/claims.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGES 300u
#define MARKER "BACKUP_INCOMPLETE"

static char copy[KIT_PATH_MAX];

static void
setup(void)
{
    kit_dir_name(dir, "backup");
    kit_dir_name(copy, "backup-copy");
    kit_options_small(&options, &kit_concat_fold);
    options.env = track_env();
    track_plan(&(struct track_plan){.below = copy, .marker = MARKER});
    open_cache();
}

static void
cleanup(void)
{
    teardown();
    kit_dir_remove(copy);
}

TestSuite(backup, .init = setup, .fini = cleanup, .timeout = 300);

static void
fill(unsigned seed)
{
    char bytes[1024];

    for (unsigned i = 0; i < PAGES; i++) {
        size_t len = 100 + (i * 37 + seed * 11) % 900;

        memset(bytes, 'a' + (int)((i + seed) % 26), len);
        if (seed == 0)
            EXPECT(0, scree_page_allocate_at(cache, 10 + i, kit_slice(bytes, len), NULL));
        else
            EXPECT(0, scree_page_put(cache, 10 + i, kit_slice(bytes, len), NULL));
        if (i % 5 == 0)
            EXPECT(0, scree_page_append(cache, 10 + i, text("+"), NULL));
    }
}

/* Ids, versions and bytes of all pages. */
static uint64_t
contents(scree_cache *of)
{
    scree_page_id id = 0;
    scree_version version;
    uint64_t hash = 0;
    char bytes[4096];
    size_t len;

    while (scree_page_next(of, id, &id) == 0) {
        EXPECT(0, scree_page_read(of, id, bytes, sizeof(bytes), &len, &version));
        hash = kit_hash(&id, sizeof(id), hash);
        hash = kit_hash(&version, sizeof(version), hash);
        hash = kit_hash(bytes, len, hash);
    }
    return hash;
}

static scree_cache *
copy_open(uint32_t flags)
{
    scree_options o = options;
    scree_cache *made = NULL;

    o.flags = flags;
    EXPECT(0, scree_open(copy, &o, &made));
    return made;
}

static void
copy_is(uint64_t hash)
{
    scree_recovery_info info = {.size = sizeof(info)};
    uint64_t before = kit_dir_fingerprint(copy, true);
    scree_cache *made = copy_open(0);

    EXPECT(0, scree_recovery(made, &info));
    cr_assert(eq(u64, info.clean, 1));
    cr_assert(eq(u64, info.torn_bytes, 0));
    EXPECT(0, scree_close(made));
    cr_assert(eq(u64, kit_dir_fingerprint(copy, true), before)); /* clean: nothing to repair */
    EXPECT(0, scree_verify(copy, &options, NULL, NULL, NULL));
    made = copy_open(SCREE_READ_ONLY); /* reading pages may consolidate some, else */
    cr_assert(eq(u64, contents(made), hash));
    EXPECT(0, scree_close(made));
}

static bool
is_there(const char *name)
{
    char path[KIT_PATH_MAX + 64];

    snprintf(path, sizeof(path), "%s/%s", copy, name);
    return access(path, F_OK) == 0;
}

/* ---- what it holds -------------------------------------------------------------------------------- */

Test(backup, holds_all_that_had_returned_stable_or_not)
{
    options.flush_interval_ms = 0;
    reopen();
    fill(0);
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    cr_assert(eq(u64, track_unsynced(), 0));
    cr_assert(not(is_there(MARKER)));
    copy_is(contents(cache));
}

Test(backup, holds_nothing_that_came_later)
{
    uint64_t then;

    fill(0);
    then = contents(cache);
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    fill(1);
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    copy_is(then);
}

Test(backup, of_a_new_directory_and_of_one_without_a_snapshot)
{
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    copy_is(contents(cache));
    kit_dir_remove(copy);
    options.flags = SCREE_READ_ONLY;
    fill(0);
    reopen();
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    options.flags = 0;
    copy_is(contents(cache));
}

Test(backup, leaves_out_what_is_dead)
{
    uint64_t live;

    options.space_amp_target = 100;
    options.flags |= SCREE_NO_PUNCH;
    reopen();
    fill(0);
    for (unsigned i = 1; i < 12; i++)
        fill(i);
    EXPECT(0, scree_snapshot(cache, NULL));
    live = stats_now().live_bytes;
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    cr_assert(lt(u64, kit_dir_disk_bytes(copy, "segment-", NULL), 3 * live + 512 * 1024));
    cr_assert(gt(u64, stats_now().disk_bytes, 0));
    copy_is(contents(cache));
}

Test(backup, shares_blocks_where_that_can_be)
{
    fill(0);
    track_plan(&(struct track_plan){.below = copy, .marker = MARKER, .reflink = true});
    EXPECT(0, scree_backup(cache, copy, 65536, NULL, NULL)); /* the rate is of what is copied */
    cr_assert(gt(u64, track_clones(), 0));
    copy_is(contents(cache));
}

Test(backup, goes_on_where_the_source_was)
{
    struct kit_fold *fold;
    scree_version version = 0, newer;
    scree_cache *made;
    scree_slice state;
    uint64_t id, id_copy;

    fill(0);
    EXPECT(0, scree_id_next(cache, &id));
    EXPECT(0, scree_page_append(cache, 1, text("x"), &version));
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    made = copy_open(0);
    EXPECT(0, scree_recovery_state(made, &state));
    cr_assert(eq(sz, state.len, sizeof(*fold)));
    newer = version;
    EXPECT(0, scree_page_merge(made, 1, &newer, text("y"))); /* the version is the source's */
    cr_assert(gt(u64, newer, version));
    EXPECT(0, scree_id_next(made, &id_copy));
    cr_assert(gt(u64, id_copy, id));
    for (unsigned i = 0; i < PAGES; i++)
        EXPECT(0, scree_page_put(made, 10 + i, text("copy"), NULL));
    EXPECT(0, scree_reclaim(made, 1.05, NULL, NULL));
    EXPECT(0, scree_close(made));
    made = copy_open(0);
    EXPECT(0, scree_close(made));
    EXPECT(0, scree_page_merge(cache, 1, &version, text("z")));
}

Test(backup, of_a_backup_and_again_and_again)
{
    char third[KIT_PATH_MAX];
    uint64_t hash;
    scree_cache *made;

    fill(0);
    hash = contents(cache);
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    kit_dir_name(third, "backup-third");
    made = copy_open(SCREE_READ_ONLY);
    EXPECT(0, scree_backup(made, third, 0, NULL, NULL));
    EXPECT(0, scree_close(made));
    kit_dir_remove(copy);
    cr_assert(eq(int, rename(third, copy), 0));
    copy_is(hash);
}

/* Each end of the log that there can be in a block, and some at a segment's end. */
Test(backup, ends_at_any_position)
{
    char bytes[4096] = "";

    options.flags = SCREE_READ_ONLY;
    options.flush_interval_ms = 0;
    for (unsigned i = 0; i < 24; i++) {
        char crashed[KIT_PATH_MAX];
        scree_options o = options;
        scree_cache *writer, *looker;

        /* A process that was killed after its records, before their seal: the log ends inside a block. */
        EXPECT(0, scree_close(cache));
        kit_dir_remove(dir);
        kit_dir_name(crashed, "backup-crashed");
        o.flags = SCREE_CREATE;
        EXPECT(0, scree_open(dir, &o, &writer));
        for (unsigned n = 0; n < 15; n++)
            EXPECT(0, scree_page_put(writer, 1, kit_slice(bytes, 3000 + 8 * i), NULL));
        EXPECT(0, scree_flush(writer, NULL));
        kit_dir_copy(dir, crashed);
        EXPECT(0, scree_close(writer));
        EXPECT(0, scree_open(crashed, &options, &looker));
        EXPECT(0, scree_backup(looker, copy, 0, NULL, NULL));
        uint64_t hash = contents(looker);

        EXPECT(0, scree_close(looker));
        o.flags = 0;
        EXPECT(0, scree_open(dir, &o, &cache));
        options.flags = 0;
        copy_is(hash);
        options.flags = SCREE_READ_ONLY;
        kit_dir_remove(copy);
        kit_dir_remove(crashed);
    }
    options.flags = 0;
}

/* ---- what is refused ------------------------------------------------------------------------------ */

Test(backup, arguments_are_checked)
{
    EXPECT(SCREE_E_INVALID, scree_backup(NULL, copy, 0, NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_backup(cache, NULL, 0, NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_backup(cache, "", 0, NULL, NULL));
}

Test(backup, a_destination_that_holds_something_is_refused)
{
    cr_assert(eq(int, mkdir(copy, 0755), 0));
    kit_file_write(copy, "precious", "x", 1);
    EXPECT(-EEXIST, scree_backup(cache, copy, 0, NULL, NULL));
    cr_assert(is_there("precious"));
    cr_assert(not(is_there(MARKER)));
    EXPECT(-EEXIST, scree_backup(cache, dir, 0, NULL, NULL));
    EXPECT(0, scree_page_append(cache, 1, text("x"), NULL));
}

Test(backup, an_empty_destination_will_do)
{
    cr_assert(eq(int, mkdir(copy, 0755), 0));
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    copy_is(contents(cache));
}

Test(backup, a_destination_in_the_source_is_refused)
{
    char inside[KIT_PATH_MAX + 16], link[KIT_PATH_MAX];

    snprintf(inside, sizeof(inside), "%s/inside", dir);
    EXPECT(SCREE_E_INVALID, scree_backup(cache, inside, 0, NULL, NULL));
    cr_assert(ne(int, access(inside, F_OK), 0));
    kit_dir_name(link, "backup-link"); /* by another name, too */
    cr_assert(eq(int, mkdir(inside, 0755), 0));
    cr_assert(eq(int, symlink(inside, link), 0));
    EXPECT(SCREE_E_INVALID, scree_backup(cache, link, 0, NULL, NULL));
    snprintf(inside + strlen(inside), 8, "/deep");
    EXPECT(SCREE_E_INVALID, scree_backup(cache, inside, 0, NULL, NULL));
    cr_assert(eq(int, unlink(link), 0));
    snprintf(inside, sizeof(inside), "%s/inside", dir);
    cr_assert(eq(int, rmdir(inside), 0));
}

Test(backup, a_destination_that_cannot_be_made_is_told)
{
    EXPECT(-ENOENT, scree_backup(cache, "/nowhere/at/all", 0, NULL, NULL));
    cr_assert(ne(ptr, (void *)strstr(scree_error_detail(), "/nowhere/at/all"), NULL));
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL)); /* and the pin is gone */
}

/* ---- while it runs -------------------------------------------------------------------------------- */

struct meanwhile {
    unsigned calls, cancel_at;
    uint64_t last, pinned;
    int second; /* of a backup within the backup */
};

/* As another thread would: the callback may not call this cache, but here nobody else does. */
static int
meanwhile_run(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct meanwhile *m = ctx;

    cr_assert(eq(int, strcmp(what, "backup"), 0));
    cr_assert(le(u64, done, total));
    cr_assert(ge(u64, done, m->last));
    m->last = done;
    m->calls++;
    return m->calls == m->cancel_at;
}

static int
meanwhile_writes(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct meanwhile *m = ctx;

    (void)what, (void)done, (void)total;
    if (m->calls++ != 1)
        return 0;
    m->second = scree_backup(cache, dir, 0, NULL, NULL);
    fill(2);
    EXPECT(0, scree_flush(cache, NULL));
    EXPECT(0, scree_snapshot(cache, NULL));
    EXPECT(0, scree_snapshot(cache, NULL));
    fill(3);
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    m->pinned = stats_now().pinned_bytes;
    return 0;
}

Test(backup, pins_what_dies_meanwhile_and_tells_how_much)
{
    struct meanwhile m = {0};
    uint64_t then, disk;

    fill(0);
    fill(1);
    then = contents(cache);
    cr_assert(eq(u64, stats_now().pinned_bytes, 0));
    EXPECT(0, scree_backup(cache, copy, 0, meanwhile_writes, &m));
    cr_assert(eq(int, m.second, SCREE_E_BUSY));
    cr_assert(gt(u64, m.pinned, 0));
    cr_assert(eq(u64, stats_now().pinned_bytes, 0));
    disk = stats_now().disk_bytes;
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    cr_assert(lt(u64, stats_now().disk_bytes, disk + m.pinned));
    copy_is(then);
}

Test(backup, canceled_it_is_refused_and_the_source_goes_on)
{
    struct meanwhile m = {.cancel_at = 3};
    scree_options o = options;
    scree_cache *made;

    fill(0);
    EXPECT(SCREE_E_CANCELED, scree_backup(cache, copy, 0, meanwhile_run, &m));
    cr_assert(eq(uint, m.calls, 3));
    cr_assert(is_there(MARKER));
    for (int flags = 0; flags < 3; flags++) {
        o.flags = flags == 0 ? 0 : flags == 1 ? SCREE_READ_ONLY : SCREE_CREATE;
        EXPECT(SCREE_E_CORRUPT, scree_open(copy, &o, &made));
        cr_assert(ne(ptr, (void *)strstr(scree_error_detail(), MARKER), NULL));
    }
    EXPECT(-EEXIST, scree_backup(cache, copy, 0, NULL, NULL));
    EXPECT(SCREE_E_CORRUPT, scree_verify(copy, &options, NULL, NULL, NULL));
    kit_dir_remove(copy);
    fill(1);
    m = (struct meanwhile){0};
    EXPECT(0, scree_backup(cache, copy, 0, meanwhile_run, &m));
    copy_is(contents(cache));
    kit_file_write(copy, MARKER, "", 0); /* whole but for this: killed just before the end */
    EXPECT(SCREE_E_CORRUPT, scree_verify(copy, &options, NULL, NULL, NULL));
}

Test(backup, each_change_of_the_destination_may_fail)
{
    uint64_t changes = 1;

    fill(0);
    for (uint64_t at = 0; at <= changes; at += at < 20 ? 1 : 7) {
        struct track_plan plan = {
            .below = copy, .marker = MARKER, .fail_at = at, .code = at % 2 == 0 ? -ENOSPC : -EIO};

        track_plan(&plan);
        EXPECT(at == 0       ? 0
               : at % 2 == 0 ? SCREE_E_NO_SPACE
                             : -EIO,
               scree_backup(cache, copy, 0, NULL, NULL));
        changes = track_changes() > changes ? track_changes() : changes;
        EXPECT(0, scree_health(cache));
        EXPECT(0, scree_page_append(cache, 1, text("x"), NULL));
        kit_dir_remove(copy);
    }
    track_plan(&(struct track_plan){.below = copy, .marker = MARKER});
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    copy_is(contents(cache));
}

Test(backup, a_rate_is_kept)
{
    uint64_t begin_ms = kit_now_ms();
    struct meanwhile m = {0};

    fill(0); /* some 150 KiB */
    EXPECT(0, scree_backup(cache, copy, (uint64_t)1 << 20, meanwhile_run, &m));
    cr_assert(
        ge(u64, (kit_now_ms() - begin_ms) * 1049, m.last)); /* never faster: no test of speed */
    copy_is(contents(cache));
}
