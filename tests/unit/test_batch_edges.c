/*
 * test_batch_edges.c - batches in odd shapes: a page with many steps, steps in an order that means nothing, and
 * a conflict at each position.
 */
#include "cache_fixture.h"
#include "unit/claims.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGES 9u
#define FRAGMENTS_MAX 4096u

static scree_page_id id[PAGES];
static scree_version version[PAGES];

static void
setup(void)
{
    kit_dir_name(dir, "batch-edges");
    kit_options_small(&options, &kit_concat);
    open_cache();
    for (unsigned i = 0; i < PAGES; i++)
        EXPECT(0, scree_page_allocate(cache, text("old"), &id[i], &version[i]));
}

static scree_batch *
begin(void)
{
    scree_batch *batch;

    EXPECT(0, scree_batch_begin(cache, &batch));
    return batch;
}

static void
expect_page(scree_page_id page, const char *wanted, scree_version wanted_version)
{
    char bytes[4096];
    scree_version is;
    size_t len;

    EXPECT(0, scree_page_read(cache, page, bytes, sizeof(bytes), &len, &is));
    cr_assert(len == strlen(wanted) && memcmp(bytes, wanted, len) == 0, "page %llu: %.*s",
              (unsigned long long)page, (int)len, bytes);
    cr_assert(eq(u64, is, wanted_version));
}

/* Step i of a batch: each kind in turn, of a page of its own. */
static void
step_add(scree_batch *batch, unsigned i)
{
    switch (i % 4) {
    case 0:
        EXPECT(0, scree_batch_set(batch, id[i], version[i], text("set")));
        break;
    case 1:
        EXPECT(0, scree_batch_merge(batch, id[i], version[i], text("+")));
        break;
    case 2:
        EXPECT(0, scree_batch_free(batch, id[i], version[i]));
        break;
    default:
        EXPECT(0, scree_batch_check(batch, id[i], version[i]));
    }
}

TestSuite(batch_edges, .init = setup, .fini = teardown, .timeout = 600);

Test(batch_edges, a_conflict_at_any_position_is_named_and_nothing_happens)
{
    for (unsigned at = 0; at < PAGES; at++) {
        scree_batch *batch = begin();
        scree_page_id conflict = 0;
        scree_version before[PAGES];

        memcpy(before, version, sizeof(before));
        for (unsigned i = 0; i < PAGES; i++)
            step_add(batch, PAGES - 1 - i);
        EXPECT(0, scree_page_set(cache, id[at], &version[at], text("new")));
        EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, &conflict));
        cr_assert(eq(u64, conflict, id[at]));
        for (unsigned i = 0; i < PAGES; i++)
            expect_page(id[i], i <= at ? "new" : "old", version[i]);
    }
}

Test(batch_edges, a_page_freed_at_any_position_is_not_found_and_named)
{
    for (unsigned at = 0; at < PAGES; at++) {
        scree_batch *batch = begin();
        scree_page_id conflict = 0;

        for (unsigned i = 0; i < PAGES; i++)
            step_add(batch, i);
        EXPECT(0, scree_page_free(cache, id[at], &version[at]));
        EXPECT(SCREE_E_NOT_FOUND, scree_batch_commit(batch, NULL, &conflict));
        cr_assert(eq(u64, conflict, id[at]));
        for (unsigned i = 0; i < PAGES; i++)
            if (i != at)
                expect_page(id[i], "old", version[i]);
        EXPECT(0, scree_page_allocate(cache, text("old"), &id[at], &version[at]));
    }
}

Test(batch_edges, of_two_conflicts_the_first_step_s_is_named)
{
    scree_batch *batch = begin();
    scree_page_id conflict = 0;

    step_add(batch, 5);
    step_add(batch, 8);
    step_add(batch, 1);
    EXPECT(0, scree_page_set(cache, id[1], &version[1], text("new")));
    EXPECT(0, scree_page_set(cache, id[8], &version[8], text("new")));
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, &conflict));
    cr_assert(eq(u64, conflict, id[8]));
    batch = begin();
    step_add(batch, 0);
    version[0]++;
    step_add(batch, 0); /* its second step is wrong, the first was right */
    version[0]--;
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, NULL));
    expect_page(id[0], "old", version[0]);
}

#define FLEETING 400u /* more than the ids that are taken off the list at a time */

/* Pages that come and go, until one comes for the second time; false: none does. */
static bool
step_twice(scree_batch *batch, scree_page_id *twice_out)
{
    scree_page_id taken[FLEETING];

    for (unsigned n = 0; n < FLEETING; n++) {
        EXPECT(0, scree_batch_allocate(batch, text("fleeting"), &taken[n]));
        for (unsigned i = 0; i < n; i++) {
            if (taken[i] == taken[n]) {
                *twice_out = taken[n];
                return true;
            }
        }
        EXPECT(0, scree_batch_free(batch, taken[n], 0));
    }
    return false;
}

/* The i-th page is freed, its id chosen, that page freed too: the id is offered once for each, unless it is
   looked at between. Whether a batch comes that gets it twice. */
static bool
freed_twice(unsigned i, scree_batch **batch, scree_page_id *twice_out)
{
    scree_version chosen;
    int code = SCREE_E_BUSY;

    EXPECT(0, scree_page_free(cache, id[i], &version[i]));
    for (int n = 0; code == SCREE_E_BUSY && n < 10000; n++) {
        usleep(1000);
        code = scree_page_allocate_at(cache, id[i], text("chosen"), &chosen);
    }
    EXPECT(0, code);
    EXPECT(0, scree_page_free(cache, id[i], &chosen));
    for (int n = 0; n < 300; n++) {
        *batch = begin();
        if (step_twice(*batch, twice_out))
            return true;
        scree_batch_abort(*batch);
        usleep(1000);
    }
    return false;
}

Test(batch_edges, an_id_that_is_handed_out_twice_is_a_conflict)
{
    scree_page_id twice = 0, conflict = 0;
    scree_batch *batch = NULL;
    bool handed_out = false;

    for (unsigned i = 0; !handed_out && i < PAGES; i++)
        handed_out = freed_twice(i, &batch, &twice);
    cr_assert(handed_out);
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, &conflict));
    cr_assert(eq(u64, conflict, twice));
    batch = begin();
    EXPECT(0, scree_batch_allocate(batch, text("one"), &id[0]));
    EXPECT(0, scree_batch_commit(batch, NULL, NULL));
}

Test(batch_edges, every_kind_of_step_on_one_page_in_turn)
{
    scree_batch *batch = begin();
    scree_lsn lsn;

    EXPECT(0, scree_batch_check(batch, id[0], version[0]));
    EXPECT(0, scree_batch_merge(batch, id[0], version[0], text("1")));
    EXPECT(0, scree_batch_set(batch, id[0], version[0], text("x")));
    EXPECT(0, scree_batch_check(batch, id[0], version[0]));
    EXPECT(0, scree_batch_set(batch, id[0], version[0], text("")));
    EXPECT(0, scree_batch_merge(batch, id[0], version[0], text("")));
    EXPECT(0, scree_batch_merge(batch, id[0], version[0], text("2")));
    EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
    expect_page(id[0], "2", lsn);
    batch = begin();
    EXPECT(0, scree_batch_set(batch, id[0], lsn, text("y")));
    EXPECT(0, scree_batch_merge(batch, id[0], lsn, text("z")));
    EXPECT(0, scree_batch_free(batch, id[0], lsn));
    EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, id[0], NULL, 0, NULL, NULL));
    reopen();
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, id[0], NULL, 0, NULL, NULL));
    expect_page(id[1], "old", version[1]);
}

Test(batch_edges, a_page_made_and_freed_in_it_never_was)
{
    scree_batch *batch = begin();
    scree_page_id made, chosen = 1000;
    scree_lsn lsn;

    EXPECT(0, scree_batch_allocate(batch, text("a"), &made));
    EXPECT(0, scree_batch_allocate_at(batch, chosen, text("b")));
    EXPECT(0, scree_batch_merge(batch, made, 0, text("c")));
    EXPECT(0, scree_batch_check(batch, chosen, 0));
    EXPECT(0, scree_batch_free(batch, chosen, 0));
    EXPECT(0, scree_batch_free(batch, made, 0));
    EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, made, NULL, 0, NULL, NULL));
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, chosen, NULL, 0, NULL, NULL));
    reopen();
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, made, NULL, 0, NULL, NULL));
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, chosen, NULL, 0, NULL, NULL));
}

Test(batch_edges, an_order_of_steps_that_means_nothing_is_invalid_and_nothing_happens)
{
    scree_batch *batch = begin();

    EXPECT(0, scree_batch_merge(batch, 2000, 0, text("x")));
    EXPECT(0, scree_batch_allocate_at(batch, 2000, text("y")));
    EXPECT(SCREE_E_INVALID, scree_batch_commit(batch, NULL, NULL));
    batch = begin();
    EXPECT(0, scree_batch_allocate_at(batch, 2000, text("x")));
    EXPECT(0, scree_batch_allocate_at(batch, 2000, text("y")));
    EXPECT(SCREE_E_INVALID, scree_batch_commit(batch, NULL, NULL));
    batch = begin();
    EXPECT(0, scree_batch_free(batch, id[0], version[0]));
    EXPECT(0, scree_batch_check(batch, id[0], version[0]));
    EXPECT(SCREE_E_INVALID, scree_batch_commit(batch, NULL, NULL));
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, 2000, NULL, 0, NULL, NULL));
    expect_page(id[0], "old", version[0]);
}

Test(batch_edges, one_page_takes_the_fragments_that_can_be_borne_and_one_more_is_too_big)
{
    scree_lsn lsn = 0;

    EXPECT(0, scree_close(cache));
    options.log_buffer_bytes = 1024 * 1024;
    open_cache();
    for (unsigned more = 0; more < 2; more++) {
        scree_batch *batch = begin();

        for (unsigned i = 0; i < FRAGMENTS_MAX + more; i++)
            EXPECT(0, scree_batch_merge(batch, id[0], version[0], text(i % 64 == 0 ? "x" : "")));
        if (more == 0)
            EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
        else
            EXPECT(SCREE_E_TOO_BIG, scree_batch_commit(batch, NULL, NULL));
        version[0] = lsn;
    }
    char wanted[3 + FRAGMENTS_MAX / 64 + 1] = "old";

    memset(wanted + 3, 'x', FRAGMENTS_MAX / 64);
    wanted[sizeof(wanted) - 1] = 0;
    expect_page(id[0], wanted, lsn);
    reopen();
    expect_page(id[0], wanted, lsn);
}

/* More steps than a batch's arrays begin with, and fewer again: what it keeps for the next is let go. */
Test(batch_edges, a_large_one_leaves_nothing_to_the_next)
{
    for (unsigned round = 0; round < 3; round++) {
        scree_batch *batch = begin();
        scree_lsn lsn;
        char wanted[1024];

        for (unsigned i = 0; i < 300; i++)
            EXPECT(0, scree_batch_merge(batch, id[i % 2], version[i % 2], text("+")));
        EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
        version[0] = version[1] = lsn;
        memset(wanted, '+', sizeof(wanted));
        memcpy(wanted, "old", 3);
        wanted[3 + 150 * (round + 1)] = 0;
        expect_page(id[0], wanted, lsn);
        expect_page(id[1], wanted, lsn);
        batch = begin();
        EXPECT(0, scree_batch_set(batch, id[2], version[2], text("old")));
        EXPECT(0, scree_batch_commit(batch, &version[2], NULL));
        expect_page(id[2], "old", version[2]);
    }
}

/* What it allocates has no version before it. */
Test(batch_edges, a_step_on_a_page_made_in_it_expects_version_0)
{
    const scree_page_id chosen = 5000;
    scree_page_id conflict = 0;
    scree_batch *batch = begin();

    EXPECT(0, scree_batch_allocate_at(batch, chosen, text("new")));
    EXPECT(0, scree_batch_merge(batch, chosen, version[0], text("+")));
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, &conflict));
    cr_assert(eq(u64, conflict, chosen));
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, chosen, NULL, 0, NULL, NULL));
}

/* An id that was chosen is nobody's again; and two batches of a thread end one after the other. */
Test(batch_edges, aborted_two_at_a_time_leave_their_ids_free)
{
    const scree_page_id chosen = 5000;
    scree_batch *first = begin(), *second = begin();

    EXPECT(0, scree_batch_allocate_at(first, chosen, text("first")));
    EXPECT(0, scree_batch_allocate_at(second, chosen + 1, text("second")));
    scree_batch_abort(first);
    scree_batch_abort(second);
    first = begin();
    EXPECT(0, scree_batch_allocate_at(first, chosen, text("again")));
    EXPECT(0, scree_batch_allocate_at(first, chosen + 1, text("again")));
    EXPECT(0, scree_batch_commit(first, NULL, NULL));
}

/* Where the conflict is need not be asked. */
Test(batch_edges, an_id_freed_a_moment_ago_is_busy)
{
    scree_batch *batch;

    scree_read_enter(cache); /* may still see it */
    EXPECT(0, scree_page_free(cache, id[0], &version[0]));
    batch = begin();
    EXPECT(0, scree_batch_allocate_at(batch, id[0], text("new")));
    EXPECT(SCREE_E_BUSY, scree_batch_commit(batch, NULL, NULL));
    batch = begin();
    EXPECT(0, scree_batch_set(batch, id[0], version[0], text("new")));
    EXPECT(SCREE_E_NOT_FOUND, scree_batch_commit(batch, NULL, NULL));
    scree_read_leave(cache);
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, id[0], NULL, 0, NULL, NULL));
}
