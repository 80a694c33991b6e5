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
 * WORD   radix.root: node address | height (radix.h).   inner.child[i]: node address, 0 = none yet.
 * EDGES  step                             who         order                  pairs  if it loses
 *   E0   root: empty or h -> a new node   any writer  CAS release/acquire    E2     free own
 *   E1   child: 0 -> a new node           any writer  CAS release/acquire    E2     free own
 *   E2   root, child loaded               anyone      load acquire           E0,E1  -
 *   (E0, E1: release when won; acquire when lost, to go on in the winner's node)
 * INVARIANTS
 *   I1 a node is published once, at one place, zeroed but for first_id (a leaf) or child[0] (a new
 *      root).
 *   I2 a child never changes once it is not 0; the root only changes to a node above the one it
 *      held, so every node reachable once stays reachable at the same ids.
 *   I3 node addresses are multiples of 64: the low six bits of the root hold the height, at most 7.
 * LIFETIME  nodes live until scree__radix_destroy, which runs alone. So readers need no protection,
 *   a leaf pointer may be kept, and there is no ABA: an address in a word is never replaced by
 *   another and back.
 * PROGRESS  find, walk: wait-free. make: lock-free; a lost E0 or E1 means that another one
 *   succeeded, and each loop climbs or descends at most 7 levels.
 * FAILURE   out of memory: make returns no leaf; nodes published on the way stay and are used by
 *   the next one.
 * NOT HERE  what a slot means, its edges and its reclamation (pagecache).   REFS none.
 */
#include "radix/radix.h"

#include <string.h>

static_assert(offsetof(struct scree__radix_leaf, side) == 8 * SCREE__RADIX_FANOUT, "leaf layout");
static_assert(offsetof(struct scree__radix_leaf, mark) == 16 * SCREE__RADIX_FANOUT, "leaf layout");
static_assert(offsetof(struct scree__radix_leaf, first_id) == 17 * SCREE__RADIX_FANOUT,
              "leaf layout");

/* What a walk meets at an id: its leaf, or a hole. */
struct radix_gap {
    struct scree__radix_leaf *leaf;
    unsigned
        shift; /* leaf NULL: the ids with the same id >> shift have none; 64: nor has any above */
};

/* A zeroed node for the level `height` (1 = leaf) of the path to id. */
static void *
node_make(unsigned height, uint64_t id)
{
    size_t bytes =
        height == 1 ? sizeof(struct scree__radix_leaf) : sizeof(struct scree__radix_inner);
    void *node = scree__alloc_aligned(SCREE__RADIX_ALIGN, bytes);

    if (node == NULL)
        return NULL;
    SCREE_ASSERT(((uintptr_t)node & SCREE__RADIX_HEIGHT_MASK) == 0); /* I3 */
    memset(node, 0, bytes);
    if (height == 1)
        ((struct scree__radix_leaf *)node)->first_id = scree__round_down(id, SCREE__RADIX_FANOUT);
    return node;
}

static void
node_free(unsigned height, void *node)
{
    scree__free(node,
                height == 1 ? sizeof(struct scree__radix_leaf) : sizeof(struct scree__radix_inner));
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
    atomic_store_explicit(&radix->leaf_count, 0, memory_order_relaxed);
    atomic_store_explicit(&radix->inner_count, 0, memory_order_relaxed);
}

/* Recursion ends at height 1, so it is at most 7 deep. */
static void
node_destroy(unsigned height, void *node)
{
    if (height > 1) {
        struct scree__radix_inner *inner = node;

        for (unsigned i = 0; i < SCREE__RADIX_FANOUT; i++) {
            /* Relaxed: no other thread is inside. */
            uintptr_t child = atomic_load_explicit(&inner->child[i], memory_order_relaxed);

            if (child != 0)
                node_destroy(height - 1, (void *)child);
        }
    }
    node_free(height, node);
}

void
scree__radix_destroy(struct scree__radix *radix)
{
    uintptr_t root =
        atomic_load_explicit(&radix->root, memory_order_relaxed); /* alone, see above */

    if (root != 0)
        node_destroy(scree__radix_height(root), scree__radix_node(root));
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
        void *node = node_make(height_new, 0);

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
            node_free(height_new, node);
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
    void *node = node_make(height, id);

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
        node_free(height, node);
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
