/*
 * radix.c - the tree from page id to slot: grow, insert, walk.
 *
 *   root -> [inner] -> ... -> [inner] -> [leaf]          height = number of nodes on a path
 *              | one child a digit          | words, side words and marks of 1024 ids
 *   An id is cut into digits of 10 bits; at height h the topmost node takes bits [10h-1 : 10(h-1)].
 *   A tree of height 2 and the same grown to height 3:
 *
 *        root,2               root,3
 *          |                    |
 *        [ A ]                [ B ]          B.child[0] = A, set before B is published
 *        /   \                /
 *     leaf   leaf          [ A ]  ...
 *
 * Leaves are cut off slabs, each one allocation of many leaves: a leaf by itself is an unlucky size
 * (jemalloc rounds 17 KB up to 20). Slabs double from 64 KiB to 2 MiB, and what is not cut off yet
 * is not touched, so a small tree is small. The largest are aligned: each is just one huge page,
 * where those are in use.
 *
 *   radix.slab -> [head|leaf|leaf|leaf| not yet used ]     used: leaves cut off; beyond cap: full
 *                   \_ older -> [head|leaf|leaf|leaf]
 *
 * WORD   radix.root: node address | height (radix.h).   inner.child[i]: node address, 0 = none yet.
 *        radix.slab, slab.used: above.   radix.spare: a list of leaves that were never published.
 *        leaf.mark[i]: the marks of two slots (radix.h).
 * EDGES  step                             who         order                  pairs  if it loses
 *   E0   root: empty or h -> a new node   any writer  CAS release/acquire    E2     free own
 *   E1   child: 0 -> a new node           any writer  CAS release/acquire    E2     free own; a leaf: E4
 *   E2   root, child loaded               anyone      load acquire           E0,E1  -
 *   E3   slab: full -> a new one          any writer  CAS release/acquire    E3     free own
 *   E4   spare: push, take all            any writer  CAS release, exchange acquire   E4   again; -
 *   E5   mark: set bits                   anyone      fetch_or acquire       E6     cannot
 *   E6   mark: clear bits                 anyone      fetch_and release      E5     cannot
 *   (E0, E1, E3: release when won; acquire when lost, to go on with the winner's)
 * INVARIANTS
 *   I1 a node is published once, at one place, zeroed but for first_id (a leaf) or child[0] (a new
 *      root).
 *   I2 a child never changes once it is not 0; the root only changes to a node above the one it
 *      held, so every node reachable once stays reachable at the same ids.
 *   I3 node addresses are multiples of 64: the low six bits of the root hold the height, at most 7.
 *   I4 a piece of a slab is one thread's (cut off by its own value of used, or taken from spare) or
 *      in the spare list, until it is published for good.
 * LIFETIME  nodes and slabs live until scree__radix_destroy, which runs alone. So readers need no
 *   protection, a leaf pointer may be kept, and there is no ABA: an address in a word is never
 *   replaced by another and back. Spare leaves do come and go, so they are taken all at once: no
 *   next pointer is read before its leaf is ours.
 * PROGRESS  find, walk: wait-free. make: lock-free; a lost E0, E1, E3 or E4 means that another one
 *   succeeded, and each loop climbs or descends at most 7 levels.
 * FAILURE   out of memory: make returns no leaf; nodes published on the way stay and are used by
 *   the next one.
 * NOT HERE  what a slot means, its edges and its reclamation (pagecache).   REFS none.
 */
#include "radix/radix.h"

#include <string.h>

static_assert(offsetof(struct scree__radix_leaf, side) == 8 * SCREE__RADIX_FANOUT, "leaf layout");
static_assert(offsetof(struct scree__radix_leaf, mark) == 16 * SCREE__RADIX_FANOUT, "leaf layout");
static_assert(offsetof(struct scree__radix_leaf, first_id) == 33 * SCREE__RADIX_FANOUT / 2,
              "leaf layout: 16.5 bytes an id");
static_assert(2 * SCREE__RADIX_MARK_BITS == 8, "two slots share a byte of marks");

#define SLAB_BYTES_MIN ((size_t)64 << 10) /* three leaves */
#define SLAB_BYTES_MAX ((size_t)2 << 20)  /* 123 leaves; a huge page */

/* What a walk meets at an id: its leaf, or a hole. */
struct radix_gap {
    struct scree__radix_leaf *leaf;
    unsigned
        shift; /* leaf NULL: the ids with the same id >> shift have none; 64: nor has any above */
};

/* E3: a slab twice the size of the full one, which is the newest then, or another thread's; NULL
   when out of memory. */
static struct scree__radix_slab *
slab_grow(struct scree__radix *radix, struct scree__radix_slab *full)
{
    size_t bytes = full == NULL ? SLAB_BYTES_MIN : full->bytes * 2;
    struct scree__radix_slab *slab;

    if (bytes > SLAB_BYTES_MAX)
        bytes = SLAB_BYTES_MAX;
    slab = scree__alloc_aligned(bytes == SLAB_BYTES_MAX ? bytes : SCREE__RADIX_ALIGN, bytes);
    if (slab == NULL)
        return NULL;
    slab->older = full;
    slab->bytes = bytes;
    slab->cap = (uint32_t)((bytes - sizeof *slab) / sizeof slab->leaf[0]);
    atomic_store_explicit(&slab->used, 0, memory_order_relaxed); /* published by E3 */
    SCREE_YIELD_POINT();
    /* E3. Release: the slab's head. Acquire when lost: the other one's. */
    if (atomic_compare_exchange_strong_explicit(&radix->slab, &full, slab, memory_order_release,
                                                memory_order_acquire)) /* LP */
        return slab;
    scree__free(slab, bytes);
    return full;
}

/* E4 */
static void
spare_push(struct scree__radix *radix, struct scree__radix_spare *first,
           struct scree__radix_spare *last)
{
    last->next = atomic_load_explicit(&radix->spare, memory_order_relaxed); /* E4 compares it */
    /* Release: the list's links. */
    while (!atomic_compare_exchange_weak_explicit(
        &radix->spare, &last->next, first, memory_order_release, memory_order_relaxed)) /* LP */
        ;
}

/* E4: one of them, or NULL. The others are missing for a moment, in which a slab serves. */
static void *
spare_take(struct scree__radix *radix)
{
    struct scree__radix_spare *first, *last;

    /* Relaxed: most often there is none, and a shared line need not be written to learn that. */
    if (atomic_load_explicit(&radix->spare, memory_order_relaxed) == NULL)
        return NULL;
    first = atomic_exchange_explicit(&radix->spare, NULL, memory_order_acquire); /* the links */
    if (first == NULL || first->next == NULL)
        return first;
    for (last = first->next; last->next != NULL; last = last->next)
        ;
    spare_push(radix, first->next, last);
    return first;
}

/* I4; what is in it is left over or was never set. */
static void *
leaf_take(struct scree__radix *radix)
{
    void *leaf = spare_take(radix);
    /* E3. Acquire: the slab's head. */
    struct scree__radix_slab *slab = atomic_load_explicit(&radix->slab, memory_order_acquire);

    if (leaf != NULL)
        return leaf;
    for (;;) {
        /* Relaxed: hands out numbers; E1 publishes what is made of them. Looked at first, so that a
           slab that is full for long (no memory for another) is not counted up for ever. */
        if (slab != NULL && atomic_load_explicit(&slab->used, memory_order_relaxed) < slab->cap) {
            uint32_t n = atomic_fetch_add_explicit(&slab->used, 1, memory_order_relaxed);

            if (n < slab->cap)
                return &slab->leaf[n];
        }
        slab = slab_grow(radix, slab);
        if (slab == NULL)
            return NULL;
    }
}

/* A zeroed node for the level `height` (1 = leaf) of the path to id. */
static void *
node_make(struct scree__radix *radix, unsigned height, uint64_t id)
{
    size_t bytes =
        height == 1 ? sizeof(struct scree__radix_leaf) : sizeof(struct scree__radix_inner);
    void *node = height == 1 ? leaf_take(radix) : scree__alloc_aligned(SCREE__RADIX_ALIGN, bytes);

    if (node == NULL)
        return NULL;
    SCREE_ASSERT(((uintptr_t)node & SCREE__RADIX_HEIGHT_MASK) == 0); /* I3 */
    memset(node, 0, bytes);
    if (height == 1)
        ((struct scree__radix_leaf *)node)->first_id = scree__round_down(id, SCREE__RADIX_FANOUT);
    return node;
}

/* Never published. */
static void
node_unmake(struct scree__radix *radix, unsigned height, void *node)
{
    if (height == 1)
        spare_push(radix, node, node);
    else
        scree__free(node, sizeof(struct scree__radix_inner));
}

static void
node_count(struct scree__radix *radix, unsigned height)
{
    /* Relaxed: a figure, read only by statistics. */
    atomic_fetch_add_explicit(height == 1 ? &radix->leaf_count : &radix->inner_count, 1,
                              memory_order_relaxed);
}

void
scree__radix_init(struct scree__radix *radix)
{
    /* Relaxed: whoever hands the tree to other threads publishes it. */
    atomic_store_explicit(&radix->root, 0, memory_order_relaxed);
    atomic_store_explicit(&radix->slab, NULL, memory_order_relaxed);
    atomic_store_explicit(&radix->spare, NULL, memory_order_relaxed);
    atomic_store_explicit(&radix->leaf_count, 0, memory_order_relaxed);
    atomic_store_explicit(&radix->inner_count, 0, memory_order_relaxed);
}

/* An inner node and those below it; leaves go with their slabs. Recursion ends at height 2, so it is
   at most 6 deep. */
static void
inner_destroy(unsigned height, struct scree__radix_inner *inner)
{
    for (unsigned i = 0; height > 2 && i < SCREE__RADIX_FANOUT; i++) {
        /* Relaxed: no other thread is inside. */
        uintptr_t child = atomic_load_explicit(&inner->child[i], memory_order_relaxed);

        if (child != 0)
            inner_destroy(height - 1, (struct scree__radix_inner *)child);
    }
    scree__free(inner, sizeof *inner);
}

void
scree__radix_destroy(struct scree__radix *radix)
{
    /* Relaxed: alone, see above. */
    uintptr_t root = atomic_load_explicit(&radix->root, memory_order_relaxed);
    struct scree__radix_slab *slab = atomic_load_explicit(&radix->slab, memory_order_relaxed);

    if (scree__radix_height(root) > 1)
        inner_destroy(scree__radix_height(root), scree__radix_node(root));
    while (slab != NULL) {
        struct scree__radix_slab *older = slab->older;

        scree__free(slab, slab->bytes);
        slab = older;
    }
    scree__radix_init(radix);
}

/* The least height with a place for the id. */
static unsigned
height_for(uint64_t id)
{
    unsigned height = 1;

    while (!scree__radix_covers(height, id))
        height++;
    return height;
}

/* A root that covers the id; 0 when out of memory. */
static uintptr_t
root_cover(struct scree__radix *radix, uint64_t id)
{
    /* E2. Acquire: what is behind the address. */
    uintptr_t root = atomic_load_explicit(&radix->root, memory_order_acquire);

    for (;;) {
        unsigned height = scree__radix_height(root);

        if (height > 0 && scree__radix_covers(height, id))
            return root;
        /* An empty tree starts at the height that is needed; any other grows level by level. */
        unsigned height_new = height == 0 ? height_for(id) : height + 1;
        void *node = node_make(radix, height_new, 0);

        if (node == NULL)
            return 0;
        if (height > 0) /* relaxed: published by E0; I1 */
            atomic_store_explicit(&((struct scree__radix_inner *)node)->child[0],
                                  (uintptr_t)scree__radix_node(root), memory_order_relaxed);
        uintptr_t root_new = (uintptr_t)node | height_new;

        SCREE_YIELD_POINT();
        /* E0. Release: the node's zeros and its first child. Acquire when lost: we go on in theirs.
           */
        if (atomic_compare_exchange_strong_explicit(&radix->root, &root, root_new,
                                                    memory_order_release,
                                                    memory_order_acquire)) { /* LP */
            node_count(radix, height_new);
            root = root_new;
        } else {
            node_unmake(radix, height_new, node);
        }
    }
}

/* The node in the child word, made if there is none; NULL when out of memory. */
static void *
child_make(struct scree__radix *radix, _Atomic uintptr_t *child, unsigned height, uint64_t id)
{
    /* E2. Acquire: what is behind the address. */
    uintptr_t there = atomic_load_explicit(child, memory_order_acquire);

    if (there != 0)
        return (void *)there;
    void *node = node_make(radix, height, id);

    if (node == NULL)
        return NULL;
    SCREE_YIELD_POINT();
#ifdef SCREE_BUG_RADIX_STORE
    /* Seeded: a plain publish over whatever another thread put there. stress_radix must fail. */
    atomic_store_explicit(child, (uintptr_t)node, memory_order_release);
#else
    /* E1. Release: the node's zeros and first_id. Acquire when lost: we go on in theirs. */
    if (!atomic_compare_exchange_strong_explicit(
            child, &there, (uintptr_t)node, memory_order_release, memory_order_acquire)) { /* LP */
        node_unmake(radix, height, node);
        return (void *)there;
    }
#endif
    node_count(radix, height);
    return node;
}

struct scree__radix_ref
scree__radix_make(struct scree__radix *radix, uint64_t id)
{
    struct scree__radix_ref ref = {NULL, 0};
    uintptr_t root = root_cover(radix, id);
    void *node = scree__radix_node(root);

    for (unsigned height = scree__radix_height(root); height > 1 && node != NULL; height--) {
        struct scree__radix_inner *inner = node;
        uint32_t digit = scree__radix_digit(id, (height - 1) * SCREE__RADIX_BITS);

        node = child_make(radix, &inner->child[digit], height - 1, id);
    }
    if (node == NULL)
        return ref;
    ref.leaf = node;
    ref.index = scree__radix_digit(id, 0);
    SCREE_ASSERT(ref.leaf->first_id + ref.index == id);
    return ref;
}

/* The leaf of the id, or how wide the hole is that the id lies in. */
static struct radix_gap
leaf_or_gap(struct scree__radix *radix, uint64_t id)
{
    struct radix_gap gap = {NULL, 64};
    /* E2. Acquire: what is behind the address. */
    uintptr_t root = atomic_load_explicit(&radix->root, memory_order_acquire);
    unsigned height = scree__radix_height(root);
    void *node = scree__radix_node(root);

    if (height == 0 || !scree__radix_covers(height, id))
        return gap;
    for (unsigned shift = (height - 1) * SCREE__RADIX_BITS; shift > 0; shift -= SCREE__RADIX_BITS) {
        struct scree__radix_inner *inner = node;

        /* E2. Acquire: as above. */
        node = (void *)atomic_load_explicit(&inner->child[scree__radix_digit(id, shift)],
                                            memory_order_acquire);
        if (node == NULL) {
            gap.shift = shift;
            return gap;
        }
    }
    gap.leaf = node;
    return gap;
}

struct scree__radix_leaf *
scree__radix_leaf_from(struct scree__radix *radix, uint64_t id)
{
    id = scree__round_down(id, SCREE__RADIX_FANOUT);
    for (;;) {
        struct radix_gap gap = leaf_or_gap(radix, id);

        if (gap.leaf != NULL || gap.shift == 64)
            return gap.leaf;
        /* The first id behind the hole; 0 if the hole reaches to the end of the id space. */
        id = ((id >> gap.shift) + 1) << gap.shift;
        if (id == 0)
            return NULL;
    }
}

struct scree__radix_leaf *
scree__radix_leaf_after(struct scree__radix *radix, const struct scree__radix_leaf *leaf)
{
    if (leaf->first_id > UINT64_MAX - SCREE__RADIX_FANOUT)
        return NULL;
    return scree__radix_leaf_from(radix, leaf->first_id + SCREE__RADIX_FANOUT);
}

uint64_t
scree__radix_bytes(const struct scree__radix *radix)
{
    /* Relaxed: figures. */
    uint64_t leaves = atomic_load_explicit(&radix->leaf_count, memory_order_relaxed);
    uint64_t inners = atomic_load_explicit(&radix->inner_count, memory_order_relaxed);

    return leaves * sizeof(struct scree__radix_leaf) + inners * sizeof(struct scree__radix_inner);
}
