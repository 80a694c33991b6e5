/*
 * fragment.c - nodes of the fragment stacks: memory for them, what it is charged, and how it is
 * given back.
 *
 * A node is published by a CAS on its slot (update.c, read.c, pagein.c, evict.c, consolidate.c) and
 *   immutable
 * from then on. Whoever unlinks it by such a CAS retires it here: it goes, with 255 others, through
 * one grace period (reclaim.c) and home to the thread that unlinked it, as an array of pointers, so
 * that a cold chain is never walked again node by node.
 *
 * WORD   context.returned: list of batches.   cache.resident_bytes, cache.retired_bytes: sums.
 * EDGES  step                              who                order             pairs  if it loses
 *   E1   returned: push a batch            the reclaimer      CAS release       E2     retry (reclaim.c)
 *   E2   returned: take all                the owner          exchange acquire  E1     cannot
 *   E3   cache.retired: push a batch       any thread         CAS release       R1 of reclaim.c
 *   E4   sums: add                         any thread         fetch_add relaxed -      statistics and limits
 *                                                                                      that need no
 *          order
 * INVARIANTS
 *   I1 a node is in exactly one of: a private hand, a slot's chain, a batch, a free list, the
 *      allocator.
 *   I2 resident_bytes counts hands and chains; retired_bytes counts batches before their grace
 *      period.
 * LIFETIME nodes of a chain stay readable until the end of every read section that began before
 *   they were unlinked. ABA: a pointer may come back in a slot only after a grace period, so never
 *   within the read section of somebody who compares it.
 * PROGRESS all steps are lock-free; malloc is called when the free list of a size class is empty.
 * FAILURE  no memory: NULL, nothing changed.
 * NOT HERE when to free (reclaim.c), what to evict (evict.c).   REFS DESIGN in docs/impl.md, "Nodes".
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

/* Classes 0..13: 48, 64 .. 256 in steps of 16. 14..29: four a doubling, 320 .. 4096. */
#define CLASS_FINE_STEP 16u
#define CLASS_FINE_MIN 48u
#define CLASS_FINE_MAX 256u
#define CLASS_FINE_COUNT ((CLASS_FINE_MAX - CLASS_FINE_MIN) / CLASS_FINE_STEP + 1)
#define CLASS_MAX_BYTES 4096u
#define CLASS_COUNT (CLASS_FINE_COUNT + 16u)
#define PREFETCH_AHEAD 4u
#define RETURNED_BYTES_MAX ((uint64_t)4 << 20)
#define NODE_LIST_BYTES ((size_t)128 << 10)

static_assert(CLASS_COUNT <= NODE_CLASSES, "one free list a class");

static unsigned
class_of(size_t bytes)
{
    if (bytes <= CLASS_FINE_MIN)
        return 0;
    if (bytes <= CLASS_FINE_MAX)
        return (unsigned)((bytes - CLASS_FINE_MIN + CLASS_FINE_STEP - 1) / CLASS_FINE_STEP);
    if (bytes > CLASS_MAX_BYTES)
        return NODE_CLASS_NONE;
    unsigned shift = 63u - (unsigned)__builtin_clzll(bytes - 1); /* 8 .. 11 */
    size_t quarter = (size_t)1 << (shift - 2);
    size_t above = (bytes - ((size_t)1 << shift) + quarter - 1) / quarter; /* 1 .. 4 */

    return CLASS_FINE_COUNT + (shift - 8) * 4 + (unsigned)above - 1;
}

static size_t
class_bytes(unsigned class)
{
    if (class < CLASS_FINE_COUNT)
        return CLASS_FINE_MIN + class * CLASS_FINE_STEP;
    unsigned i = class - CLASS_FINE_COUNT;
    size_t base = (size_t)256 << (i / 4);

    return base + base / 4 * (i % 4 + 1);
}

/* A free list holds no more than NODE_LIST_BYTES. */
static uint32_t
class_list_cap(unsigned class)
{
    size_t n = NODE_LIST_BYTES / class_bytes(class);

    return n < NODE_LIST_CAP ? (uint32_t)n : NODE_LIST_CAP;
}

void
scree__charge_pass_on(struct scree__context *ctx)
{
    /* E4 */
    atomic_fetch_add_explicit(&ctx->cache->resident_bytes, ctx->charge_pending,
                              memory_order_relaxed);
    ctx->charge_pending = 0;
}

void
scree__charge(struct scree__context *ctx, int64_t bytes)
{
    int64_t step = (int64_t)ctx->cache->charge_step;

    ctx->charge_pending += bytes;
    if (ctx->charge_pending > step || ctx->charge_pending < -step)
        scree__charge_pass_on(ctx);
}

static void
node_to_allocator(struct scree__node *node, unsigned class)
{
    scree__free(node, class < CLASS_COUNT ? class_bytes(class) : node->charge);
}

/* Onto the owner's free list, or back to the allocator when that is full. */
static void
node_recycle(struct scree__context *ctx, struct scree__node *node, unsigned class)
{
    if (class < CLASS_COUNT && ctx->free_node[class] == NULL)
        ctx->free_node[class] = scree__alloc(NODE_LIST_CAP * sizeof(uintptr_t));
    if (class >= CLASS_COUNT || ctx->free_node[class] == NULL ||
        ctx->free_n[class] == class_list_cap(class)) {
        node_to_allocator(node, class);
        return;
    }
    ctx->free_node[class][ctx->free_n[class]++] = (uintptr_t)node;
}

/* Sort one batch that has come home into the free lists. False: none has. */
static bool
returned_take(struct scree__context *ctx)
{
    struct scree__retired *b = ctx->home;

    if (b == NULL)
        /* E2: with the batches come the ends of all reads of their nodes, ordered by the grace period. */
        b = atomic_exchange_explicit(&ctx->returned, NULL, memory_order_acquire);
    if (b == NULL)
        return false;
    ctx->home = b->next;
    for (uint32_t i = 0; i < b->n; i++)
        node_recycle(ctx, (struct scree__node *)(b->node[i] & SLOT_ADDRESS_MASK),
                     (unsigned)(b->node[i] >> SLOT_DEPTH_SHIFT));
    /* Relaxed: a bound on hoarding, no order needed. */
    atomic_fetch_sub_explicit(&ctx->returned_bytes, b->bytes, memory_order_relaxed);
    scree__free(b, sizeof *b);
    return true;
}

/* Nodes that come home are cold: those to be handed out soon are fetched while there is time. */
static struct scree__node *
free_list_pop(uintptr_t *list, uint32_t *n)
{
    uint32_t at = --*n;

    if (at >= PREFETCH_AHEAD) {
        const char *soon = (const char *)list[at - PREFETCH_AHEAD];

        __builtin_prefetch(soon, 1);
        __builtin_prefetch(soon + SCREE_CACHE_LINE, 1);
    }
    return (struct scree__node *)list[at];
}

static struct scree__node *
node_allocate(struct scree__context *ctx, size_t bytes)
{
    unsigned class = class_of(bytes);
    struct scree__node *node;

    if (class != NODE_CLASS_NONE) {
        if (ctx->free_n[class] == 0)
            (void)returned_take(ctx); /* one at a time: what overflows the lists is lost to them */
        if (ctx->free_n[class] > 0)
            return free_list_pop(ctx->free_node[class], &ctx->free_n[class]);
        bytes = class_bytes(class);
    }
    node = scree__alloc(bytes);
    if (node != NULL && ((uintptr_t)node & ~(uintptr_t)SLOT_ADDRESS_MASK) != 0) {
        scree__free(node, bytes); /* an address that the slot word cannot carry */
        node = NULL;
    }
    if (node == NULL)
        return NULL;
    node->size_class = (uint8_t) class;
    node->charge = (uint32_t)scree__alloc_usable(node);
    return node;
}

struct scree__node *
scree__node_new(struct scree__context *ctx, uint8_t kind, size_t payload_len, size_t positions)
{
    size_t padded = (payload_len + 7u) & ~(size_t)7u;
    size_t tail = positions > 1 ? positions * sizeof(struct scree__position) : 0;
    struct scree__node *node = node_allocate(ctx, sizeof *node + padded + tail);

    if (node == NULL) {
        scree__fail(SCREE_E_NO_MEMORY, "no memory for a page fragment of %zu bytes", payload_len);
        return NULL;
    }
    node->next = NULL;
    node->lsn = 0;
    node->version = 0;
    node->payload_len = (uint32_t)payload_len;
    node->disk_len = 0;
    node->positions = (uint16_t)positions;
    node->kind = kind;
    scree__charge(ctx, node->charge);
    return node;
}

void
scree__node_discard(struct scree__context *ctx, struct scree__node *node)
{
    if (node == NULL)
        return;
    scree__charge(ctx, -(int64_t)node->charge);
    node_recycle(ctx, node, node->size_class);
}

void
scree__retired_hand_over(struct scree__context *ctx)
{
    struct scree__retired *b = ctx->retired;
    scree_cache *cache = ctx->cache;

    if (b == NULL || b->n == 0)
        return;
    ctx->retired = NULL;
    atomic_fetch_add_explicit(&cache->retired_bytes, b->bytes, memory_order_relaxed); /* E4 */
    b->next = atomic_load_explicit(&cache->retired, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(
        &cache->retired, &b->next, b, memory_order_release, memory_order_relaxed)) /* E3 */
        ;
    scree__reclaimer_wake(cache);
}

void
scree__node_retire(struct scree__context *ctx, struct scree__node *node)
{
    struct scree__retired *b = ctx->retired;

    scree__charge(ctx, -(int64_t)node->charge);
    if (b == NULL) {
        b = scree__alloc(sizeof *b);
        if (b == NULL) {
            /* Leaking one node is the only safe answer: it may be being read, and in a read section
               nobody may wait for a grace period. It stays charged. */
            scree__charge(ctx, (int64_t)node->charge);
            return;
        }
        b->next = NULL;
        b->owner = ctx;
        b->n = 0;
        b->bytes = 0;
        ctx->retired = b;
    }
    b->node[b->n++] = (uintptr_t)node | (uintptr_t)node->size_class << SLOT_DEPTH_SHIFT;
    b->bytes += node->charge;
    if (b->n == RETIRE_BATCH || b->bytes >= RETIRE_BATCH_BYTES)
        scree__retired_hand_over(ctx);
}

void
scree__chain_retire(struct scree__context *ctx, struct scree__node *head, struct scree__node *stop)
{
    while (head != stop) {
        struct scree__node *next = head->next;

        scree__node_retire(ctx, head);
        head = next;
    }
}

static void
retired_free(struct scree__retired *b)
{
    while (b != NULL) {
        struct scree__retired *next = b->next;

        for (uint32_t i = 0; i < b->n; i++)
            node_to_allocator((struct scree__node *)(b->node[i] & SLOT_ADDRESS_MASK),
                              (unsigned)(b->node[i] >> SLOT_DEPTH_SHIFT));
        scree__free(b, sizeof *b);
        b = next;
    }
}

/* Through its grace period: home to its owner, or to the allocator when the owner has plenty. */
void
scree__retired_return(scree_cache *cache, struct scree__retired *b)
{
    struct scree__context *owner = b->owner;

    atomic_fetch_sub_explicit(&cache->retired_bytes, b->bytes, memory_order_relaxed); /* E4 */
    b->next = NULL;
    if (atomic_load_explicit(&owner->returned_bytes, memory_order_relaxed) > RETURNED_BYTES_MAX ||
        atomic_load_explicit(&owner->in_use, memory_order_relaxed) == 0) {
        retired_free(b);
        return;
    }
    atomic_fetch_add_explicit(&owner->returned_bytes, b->bytes, memory_order_relaxed);
    b->next = atomic_load_explicit(&owner->returned, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(
        &owner->returned, &b->next, b, memory_order_release, memory_order_relaxed)) /* E1 */
        ;
}

void
scree__nodes_drain(struct scree__context *ctx)
{
    while (returned_take(ctx))
        ;
    for (unsigned c = 0; c < CLASS_COUNT; c++) {
        while (ctx->free_n[c] > 0)
            node_to_allocator((struct scree__node *)ctx->free_node[c][--ctx->free_n[c]], c);
        scree__free(ctx->free_node[c], NODE_LIST_CAP * sizeof(uintptr_t));
        ctx->free_node[c] = NULL;
    }
    retired_free(ctx->retired); /* not empty only when the cache is being closed: nobody reads */
    ctx->retired = NULL;
}

void
scree__nodes_destroy(scree_cache *cache)
{
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(&cache->radix, 0);

    for (; leaf != NULL; leaf = scree__radix_leaf_after(&cache->radix, leaf)) {
        for (uint32_t i = 0; i < SCREE__RADIX_FANOUT; i++) {
            uint64_t word = atomic_load_explicit(&leaf->word[i], memory_order_relaxed);
            struct scree__node *n = slot_tag(word) == SLOT_NODE ? slot_node(word) : NULL;

            while (n != NULL) {
                struct scree__node *next = n->next;

                node_to_allocator(n, n->size_class);
                n = next;
            }
        }
    }
}

size_t
scree__node_positions_cap(const struct scree__node *node)
{
    size_t cap = (node->charge - sizeof *node) / sizeof(struct scree__position);

    return cap < UINT16_MAX ? cap : UINT16_MAX;
}

struct scree__node *
scree__node_new_cold(scree_cache *cache, size_t positions_cap)
{
    struct scree__node *node =
        scree__alloc(sizeof *node + positions_cap * sizeof(struct scree__position));

    if (node == NULL) {
        scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
        return NULL;
    }
    memset(node, 0, sizeof *node);
    node->kind = NODE_GHOST;
    node->size_class = NODE_CLASS_NONE;
    node->charge = (uint32_t)scree__alloc_usable(node);
    atomic_fetch_add_explicit(&cache->resident_bytes, node->charge, memory_order_relaxed); /* E4 */
    return node;
}

void
scree__node_free_cold(scree_cache *cache, struct scree__node *node)
{
    atomic_fetch_sub_explicit(&cache->resident_bytes, node->charge, memory_order_relaxed); /* E4 */
    node_to_allocator(node, node->size_class);
}
