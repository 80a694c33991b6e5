/*
 * slot.h - what the words of a radix slot mean. Pure functions on words.
 *
 * WORD   one of, told apart by the low two bits:
 *          free     [63:3] lsn of the free / 8        [2:0] 000    0 = never used
 *          node     [63:48] depth  [47:4] address/16  [1:0] 01     [3:2] zero
 *          evicted  [63:8] lsn / 8  [7:2] length / 8, low 6 bits   [1:0] 10
 *          batch    [63:4] entry / 16                 [1:0] 11     held by a batch (mcas.c)
 *        depth: log records the page's chain stands for, sticking at 65535. It lives here so that a
 *        blind append never touches the old head, a cold line.
 * SIDE   for an evicted page: [63:8] version / 8 [7:0] length / 8, high 8 bits. Written only while
 *        the slot holds a node, under the page's eviction claim (SLOT_CLAIM among the marks); a
 *        reader accepts it only if the slot still is the same evicted word afterwards. One record
 *        has one version, so a slot that went away and came back as the same word has the same
 *        side.
 * MARK   SLOT_REFERENCED: set by readers, cleared by the clock hand. SLOT_CLAIM: tried, never
 *        waited for. SLOT_HEAT: written by the hand, stays when the page leaves (clock.h).
 * BUDGET lengths: 14 bits of 8 bytes = 131064 bytes; longer records keep a ghost node. lsn and
 *        version: 56 bits of 8 bytes = 2^59 bytes, 190 days at 35 GB/s. Addresses: 48 bits,
 *        multiples of 16; checked by the allocation (fragment.c).
 */
#ifndef SCREE_SLOT_H
#define SCREE_SLOT_H

#include "base/base.h"

struct scree__node;

enum slot_tag { SLOT_FREE = 0, SLOT_NODE = 1, SLOT_EVICTED = 2, SLOT_BATCH = 3 };

#define SLOT_REFERENCED 1u
#define SLOT_CLAIM 2u
#define SLOT_HEAT_SHIFT 2
#define SLOT_HEAT_MASK 12u

#define SLOT_TAG_MASK UINT64_C(3)
#define SLOT_DEPTH_SHIFT 48
#define SLOT_DEPTH_MAX UINT64_C(0xffff)
#define SLOT_ADDRESS_MASK UINT64_C(0x0000fffffffffff0)
#define SLOT_LSN_SHIFT 8
#define SLOT_LENGTH_LOW_BITS 6
#define SLOT_LENGTH_HIGH_BITS 8
#define SLOT_LENGTH_MAX ((((uint64_t)1 << (SLOT_LENGTH_LOW_BITS + SLOT_LENGTH_HIGH_BITS)) - 1) * 8)

static_assert(SLOT_LENGTH_LOW_BITS + 2 == SLOT_LSN_SHIFT, "evicted word: 56 + 6 + 2 bits");
static_assert(SLOT_LENGTH_HIGH_BITS == SLOT_LSN_SHIFT, "side word: 56 + 8 bits");

static inline enum slot_tag
slot_tag(uint64_t word)
{
    return (enum slot_tag)(word & SLOT_TAG_MASK);
}

static inline uint64_t
slot_from_free(uint64_t lsn)
{
    return lsn; /* a multiple of 8: its low bits are the tag */
}

static inline uint64_t
slot_free_lsn(uint64_t word)
{
    return word;
}

static inline uint64_t
slot_from_node(const struct scree__node *node, uint64_t depth)
{
    uint64_t capped = depth < SLOT_DEPTH_MAX ? depth : SLOT_DEPTH_MAX;

    return capped << SLOT_DEPTH_SHIFT | (uint64_t)(uintptr_t)node | SLOT_NODE;
}

static inline struct scree__node *
slot_node(uint64_t word)
{
    return (struct scree__node *)(uintptr_t)(word & SLOT_ADDRESS_MASK);
}

/* Records the page stands for, whatever its form. */
static inline uint64_t
slot_depth(uint64_t word)
{
    return slot_tag(word) == SLOT_NODE ? word >> SLOT_DEPTH_SHIFT : slot_tag(word) == SLOT_EVICTED;
}

static inline bool
slot_can_evict(uint64_t len)
{
    return len <= SLOT_LENGTH_MAX;
}

static inline uint64_t
slot_from_evicted(uint64_t lsn, uint64_t len)
{
    uint64_t low = len / 8 & (((uint64_t)1 << SLOT_LENGTH_LOW_BITS) - 1);

    return lsn / 8 << SLOT_LSN_SHIFT | low << 2 | SLOT_EVICTED;
}

static inline uint64_t
slot_evicted_lsn(uint64_t word)
{
    return (word >> SLOT_LSN_SHIFT) * 8;
}

static inline uint64_t
slot_side(uint64_t version, uint64_t len)
{
    return version / 8 << SLOT_LSN_SHIFT | len / 8 >> SLOT_LENGTH_LOW_BITS;
}

static inline uint64_t
slot_side_version(uint64_t side)
{
    return (side >> SLOT_LSN_SHIFT) * 8;
}

static inline uint32_t
slot_evicted_len(uint64_t word, uint64_t side)
{
    uint64_t low = word >> 2 & (((uint64_t)1 << SLOT_LENGTH_LOW_BITS) - 1);
    uint64_t high = side & (((uint64_t)1 << SLOT_LENGTH_HIGH_BITS) - 1);

    return (uint32_t)((high << SLOT_LENGTH_LOW_BITS | low) * 8);
}

#endif
