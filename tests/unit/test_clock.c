/*
 * test_clock.c - the eviction policy's pure functions: what the hand makes of a mark, and of the share.
 */
#include "pagecache/clock.h"
#include "unit/claims.h"

static uint8_t
mark_of(unsigned heat, bool referenced)
{
    return (uint8_t)(heat << SLOT_HEAT_SHIFT | (referenced ? SLOT_REFERENCED : 0));
}

Test(clock_heat, a_reference_warms_and_is_taken_away)
{
    for (unsigned heat = 0; heat < CLOCK_HEAT_MAX; heat++)
        cr_assert(eq(u8, clock_passed(mark_of(heat, true)), mark_of(heat + 1, false)));
    cr_assert(eq(u8, clock_passed(mark_of(CLOCK_HEAT_MAX, true)), mark_of(CLOCK_HEAT_MAX, false)));
}

Test(clock_heat, a_turn_without_one_cools_down_to_a_newcomer)
{
    uint8_t mark = mark_of(CLOCK_HEAT_MAX, false);

    for (unsigned turns = 0; turns < CLOCK_HEAT_MAX; turns++) {
        cr_assert(not(clock_newcomer(mark)));
        mark = clock_passed(mark);
    }
    cr_assert(clock_newcomer(mark));
}

Test(clock_heat, who_left_is_no_stranger_until_the_hand_has_passed_once)
{
    uint8_t left = clock_left(mark_of(0, false));

    cr_assert(not(clock_newcomer(left)));
    cr_assert(clock_newcomer(clock_forgotten(left)));
}

Test(clock_heat, an_empty_slot_keeps_no_reference)
{
    cr_assert(eq(u8, clock_forgotten(mark_of(1, true)), mark_of(0, false)));
    cr_assert(eq(u8, clock_left(mark_of(0, true)), mark_of(1, false)));
}

Test(clock_heat, the_claim_is_nobodys_business)
{
    for (unsigned mark = 0; mark < 16; mark++) {
        uint8_t m = (uint8_t)mark;

        cr_assert(eq(u8, clock_passed(m) & SLOT_CLAIM, m & SLOT_CLAIM));
        cr_assert(eq(u8, clock_left(m) & SLOT_CLAIM, m & SLOT_CLAIM));
        cr_assert(eq(u8, clock_forgotten(m) & SLOT_CLAIM, m & SLOT_CLAIM));
        cr_assert(clock_passed(m) < 16 && clock_left(m) < 16 && clock_forgotten(m) < 16);
    }
}

Test(clock_share, the_warm_are_spared_while_newcomers_are_more_than_three_in_ten)
{
    cr_assert(not(clock_spares(0)));
    cr_assert(not(clock_spares(clock_share(1000, 300))));
    cr_assert(clock_spares(clock_share(1000, 301)));
}

Test(clock_share, both_fields_add_up_by_one_addition_and_are_halved_alike)
{
    uint64_t share = clock_share(900, 200) + clock_share(127, 127);

    cr_assert(clock_share_full(share));
    cr_assert(not(clock_share_full(clock_share(CLOCK_WINDOW, CLOCK_WINDOW))));
    cr_assert(eq(u64, clock_share_halved(share), clock_share(513, 163)));
}
