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
 * WORD   context.returned: list of batches.   Sums: cache.resident_bytes, cache.retired_bytes, given_bytes
 *        of the cache and of its contexts, and what contexts have not passed on yet.
 * EDGES  step                              who                order             pairs  if it loses
 *   E1   returned: push a batch            the reclaimer      CAS release       E2     retry (reclaim.c)
 *   E2   returned: take all                the owner          exchange acquire  E1     cannot
 *   E3   cache.retired: push a batch       any thread         CAS release       R1 of reclaim.c
 *   E4   sums of the cache: add            any thread         fetch_add relaxed -      statistics, and limits
 *   E5   sums of a context: store          the owner          store relaxed     -      that need no order
 *   E6   cache.hungry: a context           any thread         store release     E6     a hint; contexts live
 *                                                                                      until close
 * INVARIANTS
 *   I1 a node is in exactly one of: a private hand, a slot's chain, a batch, a free list, the
 *      allocator.
 *   I2 resident counts hands and chains; retired counts batches before their grace period, also the
 *      one that a thread has not handed over; charged counts all that was got from the allocator and
 *      not given back: resident, retired, and what is kept for reuse.
 *   I3 a thread keeps no more than hoard_max() for reuse, half of it at most in its lists, and hands
 *      over what it retired before it is more than that.
 *   I4 behind scree__retire_ready a batch with a free entry is at hand. The last entry takes a whole
 *      chain where no other batch is to be had, so nothing that was unlinked is ever lost.
 * LIFETIME nodes of a chain stay readable until the end of every read section that began before
 *   they were unlinked. ABA: a pointer may come back in a slot only after a grace period, so never
 *   within the read section of somebody who compares it.
 * PROGRESS all steps are lock-free; malloc is called when the free list of a size class is empty.
 * FAILURE  no memory: NULL or false, nothing changed; found out before the reservation of a record.
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
#define HOARD_BYTES_MAX ((uint64_t)8 << 20)
#define HOARD_SHARE 64u /* of cache_bytes */
#define HAND_OVER_BYTES ((uint64_t)256 << 10)

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

static inline size_t
class_bytes(unsigned class)
{
    static const uint16_t bytes[CLASS_COUNT] = {
        48,  64,  80,  96,  112, 128, 144,  160,  176,  192,  208,  224,  240,  256,  320,
        384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096};

    return bytes[class];
}

/* I3 */
static uint64_t
hoard_max(const scree_cache *cache)
{
    return scree__min_u64(cache->options.cache_bytes / HOARD_SHARE, HOARD_BYTES_MAX);
}

/* E5. Relaxed: the owner is the only writer; no order is needed by those who read. */
static inline void
own_add(_Atomic uint64_t *sum, uint64_t bytes)
{
    atomic_store_explicit(sum, atomic_load_explicit(sum, memory_order_relaxed) + bytes,
                          memory_order_relaxed);
}

static inline int64_t
own_add_signed(_Atomic int64_t *sum, int64_t bytes)
{
    int64_t now = atomic_load_explicit(sum, memory_order_relaxed) + bytes;

    atomic_store_explicit(sum, now, memory_order_relaxed);
    return now;
}

void
scree__charge_pass_on(struct scree__context *ctx)
{
    int64_t bytes = atomic_load_explicit(&ctx->charge_pending, memory_order_relaxed); /* E5: own */
    /* E4; seq_cst: M1 of pressure.c */
    int64_t before =
        atomic_fetch_add_explicit(&ctx->cache->resident_bytes, bytes, memory_order_seq_cst);

    atomic_store_explicit(&ctx->charge_pending, 0, memory_order_relaxed);
    if (bytes > 0 && before + bytes > scree__memory_high(ctx->cache))
        scree__evictor_wake(ctx->cache);
}

void
scree__charge(struct scree__context *ctx, int64_t bytes)
{
    int64_t step = (int64_t)ctx->cache->charge_step;
    int64_t pending = own_add_signed(&ctx->charge_pending, bytes);

    if (pending > step || pending < -step)
        scree__charge_pass_on(ctx);
}

static void
node_to_allocator(struct scree__node *node, unsigned class)
{
    scree__page_free(node, class < CLASS_COUNT ? class_bytes(class) : node->charge);
}

/* Onto the owner's free list, or back to the allocator when it has plenty (I3). */
static void
node_recycle(struct scree__context *ctx, struct scree__node *node, unsigned class)
{
    uint64_t listed = atomic_load_explicit(&ctx->listed_bytes, memory_order_relaxed); /* E5 */

    if (class < CLASS_COUNT && ctx->free_node[class] == NULL)
        ctx->free_node[class] = scree__alloc(NODE_LIST_CAP * sizeof(uintptr_t));
    if (class >= CLASS_COUNT || ctx->free_node[class] == NULL ||
        ctx->free_n[class] == NODE_LIST_CAP ||
        listed + class_bytes(class) > hoard_max(ctx->cache) / 2) {
        (void)own_add_signed(&ctx->given_bytes, -(int64_t)node->charge);
        node_to_allocator(node, class);
        return;
    }
    own_add(&ctx->listed_bytes, class_bytes(class));
    ctx->free_node[class][ctx->free_n[class]++] = (uintptr_t)node;
}

/* What an entry of a batch names, all of it: onto the owner's lists, or (owner NULL) to the allocator. */
static void
entry_release(struct scree__context *owner, uintptr_t entry)
{
    struct scree__node *node = (struct scree__node *)(entry & SLOT_ADDRESS_MASK);
    unsigned class = (unsigned)(entry >> SLOT_DEPTH_SHIFT);
    struct scree__node *next;

    do {
        next = NULL;
        if (entry & RETIRED_CHAIN) { /* rare: these nodes are cold */
            next = node->next;
            class = node->size_class;
        }
        if (owner != NULL)
            node_recycle(owner, node, class);
        else
            node_to_allocator(node, class);
        node = next;
    } while (node != NULL);
}

/* Sort the entries of a batch into the free lists. */
static void
returned_sort(struct scree__context *ctx, const struct scree__retired *b)
{
    uint64_t listed = atomic_load_explicit(&ctx->listed_bytes, memory_order_relaxed); /* E5 */
    uint64_t most = hoard_max(ctx->cache) / 2;

    for (uint32_t i = 0; i < b->n; i++) {
        unsigned class = (unsigned)(b->node[i] >> SLOT_DEPTH_SHIFT);
        uintptr_t *list = class < CLASS_COUNT ? ctx->free_node[class] : NULL;

        if (list != NULL && ctx->free_n[class] < NODE_LIST_CAP &&
            (b->node[i] & RETIRED_CHAIN) == 0 && listed + class_bytes(class) <= most) {
            listed += class_bytes(class);
            list[ctx->free_n[class]++] = b->node[i] & SLOT_ADDRESS_MASK;
            continue;
        }
        atomic_store_explicit(&ctx->listed_bytes, listed, memory_order_relaxed); /* E5 */
        entry_release(ctx, b->node[i]);
        listed = atomic_load_explicit(&ctx->listed_bytes, memory_order_relaxed);
    }
    atomic_store_explicit(&ctx->listed_bytes, listed, memory_order_relaxed);
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
    returned_sort(ctx, b);
    /* Relaxed: a bound on hoarding, no order needed. */
    atomic_fetch_sub_explicit(&ctx->returned_bytes, b->bytes, memory_order_relaxed);
    if (ctx->spare == NULL) {
        b->next = NULL;
        ctx->spare = b;
    } else {
        scree__free(b, sizeof *b);
    }
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
        bytes = class_bytes(class);
        if (ctx->free_n[class] > 0) {
            own_add(&ctx->listed_bytes, -(uint64_t)bytes);
            return free_list_pop(ctx->free_node[class], &ctx->free_n[class]);
        }
    }
    if (atomic_load_explicit(&ctx->cache->hungry, memory_order_relaxed) != ctx) /* only compared */
        atomic_store_explicit(&ctx->cache->hungry, ctx, memory_order_release);  /* E6 */
    node = scree__page_alloc(bytes);
    if (node != NULL && ((uintptr_t)node & ~(uintptr_t)SLOT_ADDRESS_MASK) != 0) {
        scree__page_free(node, bytes); /* an address that the slot word cannot carry */
        node = NULL;
    }
    if (node == NULL)
        return NULL;
    node->size_class = (uint8_t) class;
    node->charge = (uint32_t)scree__alloc_usable(node);
    (void)own_add_signed(&ctx->given_bytes, node->charge);
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

/* ---- retiring ---------------------------------------------------------------------------------- */

void
scree__retired_hand_over(struct scree__context *ctx)
{
    struct scree__retired *b = ctx->retired;
    scree_cache *cache = ctx->cache;

    if (b == NULL || b->n == 0)
        return;
    ctx->retired = NULL;
    atomic_fetch_add_explicit(&cache->retired_bytes, b->bytes, memory_order_relaxed); /* E4 */
    atomic_store_explicit(&ctx->open_bytes, 0, memory_order_relaxed);                 /* E5 */
    b->next = atomic_load_explicit(&cache->retired, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(
        &cache->retired, &b->next, b, memory_order_release, memory_order_relaxed)) /* E3 */
        ;
    scree__reclaimer_wake(cache);
}

/* One more on the list of spare batches. */
static bool
spare_add(struct scree__context *ctx)
{
    struct scree__retired *b = scree__alloc(sizeof *b);

    if (b == NULL)
        return false;
    b->next = ctx->spare;
    ctx->spare = b;
    return true;
}

static bool
spare_ready(struct scree__context *ctx)
{
    return ctx->spare != NULL || spare_add(ctx);
}

/* I4 */
static bool
retired_open(struct scree__context *ctx)
{
    struct scree__retired *b = ctx->retired;

    if (b != NULL)
        return true; /* it was handed over if it was full */
    if (!spare_ready(ctx)) {
        scree__fail(SCREE_E_NO_MEMORY, "no memory to give up old forms of pages");
        return false;
    }
    b = ctx->spare;
    ctx->spare = b->next;
    b->next = NULL;
    b->owner = ctx;
    b->n = 0;
    b->bytes = 0;
    ctx->retired = b;
    return true;
}

bool
scree__retire_ready(struct scree__context *ctx)
{
#ifdef SCREE_BUG_RETIRE_LATE
    (void)ctx;
    return true; /* seeded: whether there is memory is asked when it is too late */
#else
    return retired_open(ctx);
#endif
}

bool
scree__retire_ready_for(struct scree__context *ctx, size_t n)
{
    size_t room;

    if (!retired_open(ctx))
        return false;
    room = RETIRE_BATCH - ctx->retired->n;
    for (const struct scree__retired *b = ctx->spare; b != NULL; b = b->next)
        room += RETIRE_BATCH;
    for (; room < n; room += RETIRE_BATCH) {
        if (!spare_add(ctx)) {
            scree__fail(SCREE_E_NO_MEMORY, "no memory to give up the old forms of %zu pages", n);
            return false;
        }
    }
    return true;
}

static uintptr_t
retired_entry(const struct scree__node *node)
{
    return (uintptr_t)node | (uintptr_t)node->size_class << SLOT_DEPTH_SHIFT;
}

/* E5, I2: so much more is in `retired`, and no longer resident. */
static void
retired_count(struct scree__context *ctx, uint64_t bytes)
{
    struct scree__retired *b = ctx->retired;

    b->bytes += bytes;
    atomic_store_explicit(&ctx->open_bytes, b->bytes, memory_order_relaxed); /* E5 */
    scree__charge(ctx, -(int64_t)bytes);
}

/* The next entry: the node, and those behind it if the flag says so. */
static void
retired_put(struct scree__context *ctx, struct scree__node *node, uintptr_t flag)
{
    struct scree__retired *b = ctx->retired;
    uint64_t bytes = node->charge;

    SCREE_ASSERT(b != NULL && b->n < RETIRE_BATCH); /* I4 */
    for (const struct scree__node *n = node->next; flag != 0 && n != NULL; n = n->next)
        bytes += n->charge;
    b->node[b->n++] = retired_entry(node) | flag;
    retired_count(ctx, bytes);
}

/* As many of the chain as there are entries for, but the last one. Returns the rest. */
static struct scree__node *
retired_put_some(struct scree__context *ctx, struct scree__node *head)
{
    struct scree__retired *b = ctx->retired;
    uint64_t bytes = 0;
    uint32_t n;

    SCREE_ASSERT(b != NULL && b->n < RETIRE_BATCH); /* I4 */
    n = b->n;
    for (; head != NULL && n < RETIRE_BATCH - 1; head = head->next) {
        b->node[n++] = retired_entry(head);
        bytes += head->charge;
    }
    b->n = n;
    retired_count(ctx, bytes);
    return head;
}

/* I3 */
void
scree__retired_bound(struct scree__context *ctx)
{
    uint64_t hand_over = hoard_max(ctx->cache);

    if (hand_over > HAND_OVER_BYTES)
        hand_over = HAND_OVER_BYTES;
    if (ctx->retired != NULL && ctx->retired->bytes >= hand_over)
        scree__retired_hand_over(ctx);
}

void
scree__chain_retire(struct scree__context *ctx, struct scree__node *head)
{
    struct scree__node *next;

#ifdef SCREE_BUG_RETIRE_LATE
    if (!retired_open(ctx))
        return; /* lost */
#endif
    while ((head = retired_put_some(ctx, head)) != NULL) {
        next = head->next;
        if (next != NULL && !spare_ready(ctx)) {
            retired_put(ctx, head, RETIRED_CHAIN); /* I4 */
            next = NULL;
        } else {
            retired_put(ctx, head, 0);
        }
        scree__retired_hand_over(ctx);
        if (next == NULL)
            return;
        (void)retired_open(ctx); /* the spare one */
        head = next;
    }
    scree__retired_bound(ctx);
}

void
scree__chain_retire_as_one(struct scree__context *ctx, struct scree__node *head)
{
    (void)retired_open(ctx); /* scree__retire_ready_for */
    retired_put(ctx, head, head->next != NULL ? RETIRED_CHAIN : 0);
    if (ctx->retired->n == RETIRE_BATCH)
        scree__retired_hand_over(ctx);
}

static void
retired_free(struct scree__retired *b)
{
    while (b != NULL) {
        struct scree__retired *next = b->next;

        for (uint32_t i = 0; i < b->n; i++)
            entry_release(NULL, b->node[i]);
        scree__free(b, sizeof *b);
        b = next;
    }
}

/* Relaxed: a bound on hoarding, no order needed. */
static bool
has_use_for(scree_cache *cache, struct scree__context *ctx, uint64_t bytes)
{
    uint64_t kept = atomic_load_explicit(&ctx->returned_bytes, memory_order_relaxed) +
                    atomic_load_explicit(&ctx->listed_bytes, memory_order_relaxed);

    return kept + bytes <= hoard_max(cache) && /* I3 */
           atomic_load_explicit(&ctx->in_use, memory_order_relaxed) != 0;
}

/* Through its grace period: home to its owner, or to the allocator when the owner has plenty. The evictor,
   which makes no pages, gives to who had to ask the allocator last. */
void
scree__retired_return(scree_cache *cache, struct scree__retired *b)
{
    struct scree__context *owner = b->owner;

    b->next = NULL;
    if (atomic_load_explicit(&owner->gives_away, memory_order_relaxed))
        owner = atomic_load_explicit(&cache->hungry, memory_order_acquire); /* E6 */
    if (owner == NULL || !has_use_for(cache, owner, b->bytes)) {
        int64_t bytes = (int64_t)b->bytes;

        retired_free(b);
        atomic_fetch_sub_explicit(&cache->given_bytes, bytes, memory_order_relaxed); /* E4 */
        atomic_fetch_sub_explicit(&cache->retired_bytes, (uint64_t)bytes,
                                  memory_order_relaxed); /* E4 */
        return;
    }
    atomic_fetch_sub_explicit(&cache->retired_bytes, b->bytes, memory_order_relaxed); /* E4 */
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
        while (ctx->free_n[c] > 0) {
            struct scree__node *node = (struct scree__node *)ctx->free_node[c][--ctx->free_n[c]];

            (void)own_add_signed(&ctx->given_bytes, -(int64_t)node->charge);
            node_to_allocator(node, c);
        }
        scree__free(ctx->free_node[c], NODE_LIST_CAP * sizeof(uintptr_t));
        ctx->free_node[c] = NULL;
    }
    atomic_store_explicit(&ctx->listed_bytes, 0, memory_order_relaxed); /* E5 */
    retired_free(ctx->retired); /* not empty only when the cache is being closed: nobody reads */
    ctx->retired = NULL;
    while (ctx->spare != NULL) {
        struct scree__retired *b = ctx->spare;

        ctx->spare = b->next;
        scree__free(b, sizeof *b);
    }
}

struct scree__memory
scree__memory_sum(scree_cache *cache)
{
    /* Acquire: the contexts' contents. All else relaxed: figures. */
    struct scree__context *c = atomic_load_explicit(&cache->contexts, memory_order_acquire);
    int64_t resident = atomic_load_explicit(&cache->resident_bytes, memory_order_relaxed);
    int64_t given = atomic_load_explicit(&cache->given_bytes, memory_order_relaxed);
    uint64_t retired = atomic_load_explicit(&cache->retired_bytes, memory_order_relaxed);

    for (; c != NULL; c = c->next) {
        resident += atomic_load_explicit(&c->charge_pending, memory_order_relaxed);
        given += atomic_load_explicit(&c->given_bytes, memory_order_relaxed);
        retired += atomic_load_explicit(&c->open_bytes, memory_order_relaxed);
    }
    return (struct scree__memory){.resident_bytes = resident > 0 ? (uint64_t)resident : 0,
                                  .retired_bytes = retired,
                                  .charged_bytes = given > 0 ? (uint64_t)given : 0};
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

                scree__node_free_cold(cache, n);
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
        scree__page_alloc(sizeof *node + positions_cap * sizeof(struct scree__position));

    if (node == NULL) {
        scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
        return NULL;
    }
    memset(node, 0, sizeof *node);
    node->kind = NODE_GHOST;
    node->size_class = NODE_CLASS_NONE;
    node->charge = (uint32_t)scree__alloc_usable(node);
    atomic_fetch_add_explicit(&cache->resident_bytes, node->charge, memory_order_relaxed); /* E4 */
    atomic_fetch_add_explicit(&cache->given_bytes, node->charge, memory_order_relaxed);    /* E4 */
    return node;
}

void
scree__node_free_cold(scree_cache *cache, struct scree__node *node)
{
    atomic_fetch_sub_explicit(&cache->resident_bytes, node->charge, memory_order_relaxed); /* E4 */
    atomic_fetch_sub_explicit(&cache->given_bytes, node->charge, memory_order_relaxed);    /* E4 */
    node_to_allocator(node, node->size_class);
}
