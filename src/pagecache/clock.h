/*
 * clock.h - the eviction policy: what the clock hand makes of a slot it passes. Pure functions on words;
 * evict.c applies them to the cache, bench/bench_eviction.c to a model of one, beside LRU and others.
 *
 * HEAT   two bits of the slot's mark that only the hand writes, 0 to 3. They stay when the page leaves.
 *
 *          the hand finds                it does
 *          in memory, referenced         heat + 1, and takes the reference away
 *          in memory, not, heat 1..3     heat - 1
 *          in memory, not, heat 0        evicts a newcomer that nobody came back to; the slot remembers: heat 1
 *          not in memory                 heat - 1: forgets
 *
 *        A page that comes in finds the heat of its slot. 0: a newcomer, on probation until the hand comes by.
 *        1: it was here since the hand last passed, so it is no stranger. Nobody has to write that down.
 * SHARE  of the pages the hand met lately, how many were newcomers: [63:32] met [31:0] newcomers. While they
 *        are more than three in ten, the hand spares whoever has heat, with all its bits: room is made by
 *        newcomers alone, so a scan lives on a part of the cache, and the hand comes by soon.
 * REFS   CLOCK (Corbato, 1968), GCLOCK; a probation and a memory of who left: S3-FIFO (Yang et al., SOSP
 *        2023), 2Q (Johnson and Shasha, VLDB 1994). Figures in docs/impl.md, "Memory".
 */
#ifndef SCREE_PAGECACHE_CLOCK_H
#define SCREE_PAGECACHE_CLOCK_H

#include "pagecache/slot.h"

#define CLOCK_HEAT_MAX 3u
#define CLOCK_WINDOW 1024u /* pages met before the share forgets half of them */

/* Seeded bugs: bench_eviction must notice. */
#ifdef SCREE_BUG_NEVER_COOLS
#define CLOCK_COOLS false
#else
#define CLOCK_COOLS true
#endif

static inline bool
clock_referenced(uint8_t mark)
{
    return (mark & SLOT_REFERENCED) != 0;
}

static inline unsigned
clock_heat(uint8_t mark)
{
    return (mark & SLOT_HEAT_MASK) >> SLOT_HEAT_SHIFT;
}

/* On probation: the hand evicts it, unless it is referenced. */
static inline bool
clock_newcomer(uint8_t mark)
{
    return clock_heat(mark) == 0;
}

static inline uint8_t
clock_with_heat(uint8_t mark, unsigned heat)
{
    return (uint8_t)((mark & ~(SLOT_HEAT_MASK | SLOT_REFERENCED)) | heat << SLOT_HEAT_SHIFT);
}

/* The mark of a page that stays in memory when the hand has passed. */
static inline uint8_t
clock_passed(uint8_t mark)
{
    unsigned heat = clock_heat(mark);

    if (clock_referenced(mark))
        return clock_with_heat(mark, heat < CLOCK_HEAT_MAX ? heat + 1 : CLOCK_HEAT_MAX);
    return clock_with_heat(mark, heat > 0 && CLOCK_COOLS ? heat - 1 : heat);
}

/* Of a slot whose page has just been evicted. */
static inline uint8_t
clock_left(uint8_t mark)
{
    return clock_with_heat(mark, 1);
}

/* Of a slot that the hand finds without a page in memory. */
static inline uint8_t
clock_forgotten(uint8_t mark)
{
    unsigned heat = clock_heat(mark);

    return clock_with_heat(mark, heat > 0 ? heat - 1 : 0);
}

static inline uint64_t
clock_share(uint64_t met, uint64_t newcomers)
{
    return met << 32 | newcomers;
}

static inline uint64_t
clock_share_met(uint64_t share)
{
    return share >> 32;
}

static inline uint64_t
clock_share_newcomers(uint64_t share)
{
    return share & UINT32_MAX;
}

/* Both fields add up by one addition; neither can carry, as each is kept near the window. */
static inline bool
clock_share_full(uint64_t share)
{
    return clock_share_met(share) > CLOCK_WINDOW;
}

static inline uint64_t
clock_share_halved(uint64_t share)
{
    return clock_share(clock_share_met(share) / 2, clock_share_newcomers(share) / 2);
}

/* Do those with heat stay as they are? */
static inline bool
clock_spares(uint64_t share)
{
    return clock_share_newcomers(share) * 10 > clock_share_met(share) * 3;
}

#endif
