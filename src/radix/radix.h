/*
 * radix.h - page id -> slot. Knows nothing of what a slot means.
 *
 * Leaves of 1024 ids hold a word, a side word and a mark byte for each; inner nodes fan out by
 * 1024; the height grows from the root by CAS. Nodes are published once and live until destroy. The
 * protocol and its edges are in radix.c.
 */
#ifndef SCREE_RADIX_H
#define SCREE_RADIX_H

#include "base/base.h"

#define SCREE__RADIX_FANOUT 1024u
#define SCREE__RADIX_BITS 10u
#define SCREE__RADIX_HEIGHT_MAX 7u /* 7 x 10 bits cover 64 */
#define SCREE__RADIX_ALIGN 64u     /* of every node, so that the height fits below its address */
#define SCREE__RADIX_HEIGHT_MASK ((uintptr_t)(SCREE__RADIX_ALIGN - 1))
static_assert(SCREE__RADIX_HEIGHT_MAX < SCREE__RADIX_ALIGN,
              "the height fits the low bits of the root");
static_assert(1u << SCREE__RADIX_BITS == SCREE__RADIX_FANOUT, "one digit picks one child");

struct scree__radix_leaf {
    _Atomic uint64_t word[SCREE__RADIX_FANOUT];
    _Atomic uint64_t side[SCREE__RADIX_FANOUT];
    _Atomic uint8_t mark[SCREE__RADIX_FANOUT];
    uint64_t first_id; /* set once before publish */
};

/* What lies between root and leaves: the children are inner nodes, or leaves at height 2. */
struct scree__radix_inner {
    _Atomic uintptr_t child[SCREE__RADIX_FANOUT]; /* E1, E2; 0 = nothing there yet */
};

/*
 *   root   [63:6] address of the topmost node     [5:0] height: 0 = empty, 1 = the node is a leaf
 */
struct scree__radix {
    _Atomic uintptr_t root;      /* E0, E2 */
    _Atomic uint64_t leaf_count; /* for memory figures, as inner_count */
    _Atomic uint64_t inner_count;
};

/* Where an id's words are. leaf NULL: no such leaf. */
struct scree__radix_ref {
    struct scree__radix_leaf *leaf;
    uint32_t index;
};

static inline _Atomic uint64_t *
scree__radix_word(struct scree__radix_ref r)
{
    return &r.leaf->word[r.index];
}

static inline _Atomic uint64_t *
scree__radix_side(struct scree__radix_ref r)
{
    return &r.leaf->side[r.index];
}

static inline _Atomic uint8_t *
scree__radix_mark(struct scree__radix_ref r)
{
    return &r.leaf->mark[r.index];
}

void scree__radix_init(struct scree__radix *radix);
void scree__radix_destroy(struct scree__radix *radix); /* no other thread inside */
/* Find or make; leaf NULL when out of memory. Any uint64_t id works. */
struct scree__radix_ref scree__radix_make(struct scree__radix *radix, uint64_t id);
/* The existing leaf with the smallest first_id >= id rounded down to its leaf; NULL at the end. */
struct scree__radix_leaf *scree__radix_leaf_from(struct scree__radix *radix, uint64_t id);
/* The next existing leaf behind this one; NULL at the end (also of the id space). */
struct scree__radix_leaf *scree__radix_leaf_after(struct scree__radix *radix,
                                                  const struct scree__radix_leaf *leaf);
uint64_t scree__radix_bytes(const struct scree__radix *radix);

/* ---- words: pure accessors ---- */
static inline unsigned
scree__radix_height(uintptr_t root)
{
    return (unsigned)(root & SCREE__RADIX_HEIGHT_MASK);
}

static inline void *
scree__radix_node(uintptr_t root)
{
    return (void *)(root & ~SCREE__RADIX_HEIGHT_MASK);
}

/* Does a tree of this height have a place for the id? */
static inline bool
scree__radix_covers(unsigned height, uint64_t id)
{
    return height >= SCREE__RADIX_HEIGHT_MAX || id >> (height * SCREE__RADIX_BITS) == 0;
}

static inline uint32_t
scree__radix_digit(uint64_t id, unsigned shift)
{
    return (uint32_t)(id >> shift) & (SCREE__RADIX_FANOUT - 1);
}

/* Where the id's words are; leaf NULL if there is no leaf for it. Inline: every public call starts
   here, and at height 2 (up to a million pages) it is three dependent loads. */
static inline struct scree__radix_ref
scree__radix_find(struct scree__radix *radix, uint64_t id)
{
    struct scree__radix_ref none = {NULL, 0};
    /* E2. Acquire: the node as its maker left it, behind the address. */
    uintptr_t root = atomic_load_explicit(&radix->root, memory_order_acquire);
    unsigned height = scree__radix_height(root);
    void *node = scree__radix_node(root);

    if (height == 2 && id < SCREE__RADIX_FANOUT * SCREE__RADIX_FANOUT) {
        /* The usual height, without the loop's variable shifts. E2. Acquire: as above. */
        struct scree__radix_inner *inner = node;

        node = (void *)atomic_load_explicit(&inner->child[id >> SCREE__RADIX_BITS],
                                            memory_order_acquire);
        return (struct scree__radix_ref){node, scree__radix_digit(id, 0)};
    }
    if (height == 0 || !scree__radix_covers(height, id))
        return none;
    for (unsigned shift = (height - 1) * SCREE__RADIX_BITS; shift > 0; shift -= SCREE__RADIX_BITS) {
        struct scree__radix_inner *inner = node;

        /* E2. Acquire: as above. */
        node = (void *)atomic_load_explicit(&inner->child[scree__radix_digit(id, shift)],
                                            memory_order_acquire);
        if (node == NULL)
            return none;
    }
    return (struct scree__radix_ref){node, scree__radix_digit(id, 0)};
}

#endif
