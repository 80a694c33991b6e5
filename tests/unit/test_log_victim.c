/*
 * test_log_victim.c - which ranges of a log are worth cleaning (log/victim.c), above all: files of which next
 * to nothing is left; and how what is dead is given back (log/collect.c). What cleaning does: test_space.c.
 */
#include "log_fixture.h"

#define LARGE (1024u * 1024) /* many granules, so that a file with one of them left is thin */
#define KEPT 200u            /* bytes that live at the end of each segment */
#define CAP 64u

static struct scree__log_victim victim[CAP];

/* So many segments, of each of which all but its last record is dead and given back. */
static void
thin_make(unsigned n)
{
    fixture_begin_with(LARGE);
    for (uint64_t start = LARGE; start <= (uint64_t)n * LARGE; start += LARGE) {
        put_up_to(start + LARGE - KEPT);
        put_one(start + LARGE);
        scree__log_charge_dead(log_now, start, LARGE - KEPT, start);
    }
    put_more_and_sync();
    while (scree__log_dead_pick(log_now, scree__log_stable(log_now), true) > 0)
        if (scree__log_dead_drop(log_now) == 0)
            break;
}

static bool
is_thin(void)
{
    struct scree__log_stats stats;

    scree__log_stats(log_now, &stats);
    return stats.punched_bytes > 0;
}

TestSuite(log_victim, .fini = fixture_end, .timeout = 300);
TestSuite(log_collect, .fini = fixture_end, .timeout = 300);

/* No bytes are wanted, and all that is left in them lives: the files themselves are too many. */
Test(log_victim, files_that_hold_next_to_nothing_when_there_are_many)
{
    const unsigned n = 30;
    size_t found;

    thin_make(n);
    if (!is_thin())
        cr_skip_test("no holes can be punched here");
    found = scree__log_victims(log_now, 0, 0.9, victim, CAP);
    cr_assert(eq(sz, found, n)); /* and not the holes in them, which have nothing to be moved */
    for (unsigned i = 0; i < n; i++)
        cr_assert(eq(u64, victim[i].lsn / LARGE, i + 1)); /* in the order of the log */
    cr_assert(eq(sz, scree__log_victims(log_now, 0, 0.9, victim, 3), 3));
    scree__log_victim_damaged(log_now, 5 * LARGE);
    scree__log_victim_damaged(log_now, 500 * LARGE); /* of none: nothing */
    cr_assert(eq(sz, scree__log_victims(log_now, 0, 0.9, victim, CAP), n - 1));
    cr_assert(eq(u64, victim[4].lsn / LARGE, 6));
}

Test(log_victim, few_files_may_be_thin)
{
    thin_make(10);
    cr_assert(eq(sz, scree__log_victims(log_now, 0, 0.9, victim, CAP), 0));
}

/* Every other granule is dead, up to the segments' ends: so many runs that they do not all fit into one turn,
   which ends within a segment. */
static uint64_t
runs_make(void)
{
    uint64_t segments = 2 * (LOG_PICKS + 40) * SCREE__GRANULE_BYTES / LARGE;
    uint64_t end = (1 + segments) * LARGE, dead = 0;

    fixture_begin_with(LARGE);
    put_up_to(end);
    for (uint64_t at = LARGE + 3 * SCREE__GRANULE_BYTES; at < end;
         at += 2 * SCREE__GRANULE_BYTES, dead++)
        scree__log_charge_dead(log_now, at, SCREE__GRANULE_BYTES, at);
    put_more_and_sync();
    return dead * SCREE__GRANULE_BYTES;
}

Test(log_collect, more_than_a_turn_takes_is_given_back_in_several)
{
    uint64_t dead = runs_make(), stable = scree__log_stable(log_now);

    cr_assert(eq(sz, scree__log_dead_pick(log_now, stable, true), LOG_PICKS));
    cr_assert(eq(u64, scree__log_pinned_bytes(log_now, 0, stable), dead));
    if (scree__log_dead_drop(log_now) == 0)
        cr_skip_test("no holes can be punched here");
    cr_assert(eq(u64, scree__log_pinned_bytes(log_now, 0, stable),
                 dead - LOG_PICKS * SCREE__GRANULE_BYTES));
    cr_assert(eq(sz, scree__log_dead_pick(log_now, stable, true),
                 dead / SCREE__GRANULE_BYTES - LOG_PICKS));
    (void)scree__log_dead_drop(log_now);
    cr_assert(eq(u64, scree__log_pinned_bytes(log_now, 0, stable), 0));
    cr_assert(eq(sz, scree__log_dead_pick(log_now, stable, true), 0));
}

/* Either code says so. */
Test(log_collect, that_there_are_no_holes_is_learned)
{
    static const int codes[] = {-EOPNOTSUPP, -ENOSYS};

    for (size_t i = 0; i < 2; i++) {
        (void)runs_make();
        kit_env_plan(&(struct kit_plan){
            .kinds = KIT_PUNCH, .fault = KIT_FAULT_STUCK, .code = codes[i], .at = 1});
        cr_assert(gt(sz, scree__log_dead_pick(log_now, scree__log_stable(log_now), true), 0));
        cr_assert(eq(sz, scree__log_dead_drop(log_now), 0));
        cr_assert(eq(u64, kit_env_calls(), 1)); /* and not asked for again */
        kit_env_plan(&(struct kit_plan){0});
        if (i == 0)
            fixture_end();
    }
}

/* Its number may be another file's by then: who reads it has it open. */
Test(log_collect, a_file_that_is_deleted_while_it_is_read_can_be_read)
{
    struct log_segment *seg;
    unsigned char byte;

    fixture_begin();
    put_up_to(3 * SEGMENT);
    put_more_and_sync();
    scree__log_charge_dead(log_now, SEGMENT, SEGMENT, SEGMENT);
    cr_assert(eq(int, scree__segment_pin(log_now, 1, &seg), 0));
    cr_assert(eq(sz, scree__log_dead_pick(log_now, scree__log_stable(log_now), true), 1));
    cr_assert(eq(sz, scree__log_dead_drop(log_now), 1));
    cr_assert(scree__segment_peek(log_now, 1) == NULL);
    cr_assert(options.env->read(options.env->ctx, seg->file, &byte, 1, LOG_HEADER_BYTES) == 1);
    uint32_t open = log_now->files_open;

    scree__segment_unpin(log_now, seg);
    cr_assert(eq(u32, log_now->files_open, open - 1));
}

#ifdef SCREE_ALLOC_FAULTS
Test(log_victim, without_memory_there_are_none)
{
    thin_make(30);
    if (!is_thin())
        cr_skip_test("no holes can be punched here");
    scree__alloc_fault(1, UINT64_MAX);
    cr_assert(eq(sz, scree__log_victims(log_now, 0, 0.9, victim, CAP), 0));
    scree__alloc_fault_end();
}
#endif
