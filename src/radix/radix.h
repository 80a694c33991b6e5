/*
 * radix.h - page id -> slot. Knows nothing of what a slot means.
 *
 * Leaves of 1024 ids hold a word, a side word and four mark bits for each, 16.56 bytes an id with
 * all that belongs to a leaf; inner nodes fan out by 1024; the height grows from the root by CAS.
 * Nodes are published once and live until destroy. The protocol and its edges are in radix.c.
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
    _Alignas(SCREE__RADIX_ALIGN) _Atomic uint64_t word[SCREE__RADIX_FANOUT];
    _Atomic uint64_t side[SCREE__RADIX_FANOUT];
    _Atomic uint8_t mark[SCREE__RADIX_FANOUT / 2]; /* E5, E6: [7:4] odd slot   [3:0] even slot */
    uint64_t first_id;                             /* set once before publish */
};

/* Leaves come out of these. */
struct scree__radix_slab {
    struct scree__radix_slab *older; /* set once before publish, as bytes and cap */
    size_t bytes;
    uint32_t cap; /* leaves */
    /* Any writer adds 1 while it is below cap; what is beyond cap means nothing. */
    _Alignas(SCREE__RADIX_ALIGN) _Atomic uint32_t used;
    struct scree__radix_leaf leaf[]; /* untouched from cap or used on */
};

/* What a leaf is while nobody uses it. */
struct scree__radix_spare {
    struct scree__radix_spare *next; /* its taker's, or set before E4 */
};

/* What lies between root and leaves: the children are inner nodes, or leaves at height 2. */
struct scree__radix_inner {
    _Atomic uintptr_t child[SCREE__RADIX_FANOUT]; /* E1, E2; 0 = nothing there yet */
};

/*
 *   root   [63:6] address of the topmost node     [5:0] height: 0 = empty, 1 = the node is a leaf
 */
struct scree__radix {
    _Atomic uintptr_t root;                     /* E0, E2 */
    _Atomic(struct scree__radix_slab *) slab;   /* E3: leaves come out of the newest one */
    _Atomic(struct scree__radix_spare *) spare; /* E4: leaves that lost E1 */
    _Atomic uint64_t leaf_count;                /* for memory figures, as inner_count */
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

/* The word will be wanted. */
static inline void
scree__radix_word_prefetch(struct scree__radix_ref r)
{
    __builtin_prefetch(&r.leaf->word[r.index]);
}

/* The side word and the mark will be wanted, which lie apart from the word. */
static inline void
scree__radix_prefetch(struct scree__radix_ref r)
{
    __builtin_prefetch(&r.leaf->side[r.index]);
    __builtin_prefetch(&r.leaf->mark[r.index / 2], 1);
}

/* The four mark bits of a slot share their byte with a neighbour's, which no call disturbs. */
#define SCREE__RADIX_MARK_BITS 4u
#define SCREE__RADIX_MARK_MASK 0xfu

static inline unsigned
scree__radix_mark_shift(struct scree__radix_ref r)
{
    return (r.index & 1) * SCREE__RADIX_MARK_BITS;
}

static inline uint8_t
scree__radix_mark(struct scree__radix_ref r)
{
    /* Relaxed: hints, or looked at again by the setter's result. */
    uint8_t byte = atomic_load_explicit(&r.leaf->mark[r.index / 2], memory_order_relaxed);

    return byte >> scree__radix_mark_shift(r) & SCREE__RADIX_MARK_MASK;
}

/* Set bits; what was there before. E5. Acquire: pairs with clear. */
static inline uint8_t
scree__radix_mark_set(struct scree__radix_ref r, uint8_t bits)
{
    _Atomic uint8_t *mark = &r.leaf->mark[r.index / 2];
    unsigned shift = scree__radix_mark_shift(r);
#ifdef SCREE_BUG_RADIX_MARK
    /* Seeded: a neighbour's change in between is undone. stress_radix must fail. */
    uint8_t byte = atomic_load_explicit(mark, memory_order_acquire);

    SCREE_YIELD_POINT();
    atomic_store_explicit(mark, (uint8_t)(byte | bits << shift), memory_order_relaxed);
#else
    uint8_t byte = atomic_fetch_or_explicit(mark, (uint8_t)(bits << shift), memory_order_acquire);
#endif

    return byte >> shift & SCREE__RADIX_MARK_MASK;
}

/* Clear bits; what was there before. E6. Release: pairs with set. */
static inline uint8_t
scree__radix_mark_clear(struct scree__radix_ref r, uint8_t bits)
{
    unsigned shift = scree__radix_mark_shift(r);
    uint8_t byte = atomic_fetch_and_explicit(&r.leaf->mark[r.index / 2], (uint8_t) ~(bits << shift),
                                             memory_order_release);

    return byte >> shift & SCREE__RADIX_MARK_MASK;
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
