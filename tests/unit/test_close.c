/*
 * test_close.c - a close that fails says so, and leaves the directory to be recovered.
 */
#include "support/sim_disk.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <string.h>

static struct sim_disk *disk;
static scree_options options;

static scree_cache *
open_again(void)
{
    scree_cache *cache;
    int code = scree_open("/d", &options, &cache);

    cr_assert(eq(int, code, 0), "%s", scree_error_detail());
    return cache;
}

static void
set_up(void)
{
    disk = sim_disk_new(NULL, 1);
    kit_options_small(&options, &kit_concat);
    options.env = sim_disk_env(disk);
    cr_assert(eq(int, scree_close(open_again()), 0));
}

static void
tear_down(void)
{
    sim_disk_free(disk);
}

TestSuite(close, .init = set_up, .fini = tear_down, .timeout = 300);

static bool
is_marked_open(void)
{
    struct sim_image *image = sim_disk_image(disk);
    bool marked = false;

    for (size_t i = 0; i < sim_image_files(image); i++)
        marked |= strcmp(sim_image_name(image, i, NULL), "/d/OPEN") == 0;
    sim_image_free(image);
    return marked;
}

/* An update, all of it stable, then a close in which the at-th call of these kinds fails. */
static int
close_with_fault(unsigned kinds, uint64_t at)
{
    struct kit_plan plan = {.kinds = kinds, .fault = KIT_FAULT_CODE, .code = -EIO, .at = at};
    scree_cache *cache = open_again();

    cr_assert(eq(int, scree_page_append(cache, SCREE_PAGE_ROOT, kit_slice("x", 1), NULL), 0));
    cr_assert(eq(int, scree_flush(cache, NULL), 0));
    sim_disk_plan(disk, &plan);
    return scree_close(cache);
}

Test(close, log_that_cannot_be_cut_stays_open)
{
    cr_assert(eq(int, close_with_fault(KIT_TRUNCATE, 1), -EIO));
    cr_assert(ne(u32, sim_disk_hit(disk), 0));
    cr_assert(is_marked_open());
}

/* Of the log's end; a snapshot's file that failed is written anew under another name. */
Test(close, log_whose_cut_cannot_be_synced_stays_open)
{
    cr_assert(eq(int, close_with_fault(KIT_SYNC, 1), -EIO));
    cr_assert(ne(u32, sim_disk_hit(disk), 0));
    cr_assert(is_marked_open());
}

/* Whatever sync fails: what a close said was done stays done, without power too. */
Test(close, done_is_done)
{
    for (uint64_t at = 1;; at++) {
        int code = close_with_fault(KIT_SYNC | KIT_SYNC_DIR, at);
        struct sim_replay *r;

        cr_assert(code != 0 || !is_marked_open(), "sync %zu", (size_t)at);
        if (sim_disk_hit(disk) == 0)
            break;
        sim_disk_plan(disk, &(struct kit_plan){.fault = KIT_FAULT_NONE});
        r = sim_replay_new(disk);
        while (sim_replay_advance(r))
            continue;
        for (uint64_t c = 0; c < sim_replay_choices(r, 64); c++) {
            struct sim_image *image = sim_replay_state(r, c, 64, at);
            struct sim_disk *found = sim_disk_new(image, 1);
            scree_options o = options;
            size_t len = 0;
            scree_cache *cache;

            o.env = sim_disk_env(found);
            o.flags = SCREE_READ_ONLY;
            cr_assert(eq(int, scree_open("/d", &o, &cache), 0), "sync %zu, state %zu: %s",
                      (size_t)at, (size_t)c, scree_error_detail());
            cr_assert(eq(int, scree_page_read(cache, SCREE_PAGE_ROOT, NULL, 0, &len, NULL),
                         SCREE_E_TOO_BIG));
            cr_assert(eq(sz, len, at));
            cr_assert(eq(int, scree_close(cache), 0));
            sim_disk_free(found);
            sim_image_free(image);
        }
        sim_replay_free(r);
    }
}
