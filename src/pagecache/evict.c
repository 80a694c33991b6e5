/*
 * evict.c - keep the bytes of pages in memory under cache_bytes: a clock over the slots.
 *
 * WORD   the page's slot, side and mark; cache.hand: the next id the clock looks at;
 *        cache.hand_busy.
 * EDGES  (columns: step, who may, order, pairs with, if it loses)
 *   V1   hand_busy 0 -> 1                   an evictor    CAS acquire       V2           the other moves it
 *   V2   hand_busy 1 -> 0                   that one      store release     V1           cannot
 *   V3   mark: clear REFERENCED             an evictor    fetch_and relaxed G2 (read.c)  a second chance
 *   V4   mark: set CLAIM                    an evictor    fetch_or acquire  V7           leave the page alone
 *   V5   side := version, length            holder of V4  store release     slot readers sole writer
 *   V6   chain -> evicted word or ghost      holder of V4  CAS release       every load   page moved: leave it
 *   V7   mark: clear CLAIM                  holder of V4  fetch_and release V4           cannot
 * INVARIANTS
 *   I1 only stable records leave memory: every record the chain stands for ends at or below
 *      stable_lsn.
 *   I2 the side word is written only while the slot holds a node and only between V4 and V7; after
 *      V6 nobody writes it until the slot holds a node again. So who re-reads the same evicted word
 *      read its side.
 *   I3 a ghost is small: a page of many records is consolidated first and evicted when that record
 *      is stable; when nothing else is left to win, so is every ghost. So what cannot leave is a
 *      word a page.
 * LIFETIME what V6 unlinks is retired. The chain was loaded in this read section: no ABA in V6.
 * PROGRESS claims are tried, never waited for. A writer over the limit that holds no guard waits
 *          for the flusher, bounded in time; with a guard it goes over the limit, counted.
 * FAILURE  no memory for a ghost: the page stays.
 * NOT HERE reading it back (pagein.c).   REFS CLOCK (Corbato, 1968).
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

#define HAND_STEP 128u
#define HAND_TRIES 1000u
#define COMPACT_PAGES 32u
#define GHOST_POSITIONS_MAX \
    4u /* a page of more records is consolidated rather than left as a ghost */
#define ADMIT_ROUNDS 64u
#define ADMIT_WAIT_NS ((uint64_t)5 * 1000 * 1000)

static_assert(SCREE__RADIX_FANOUT % HAND_STEP == 0, "a step stays in its leaf");

/* I1; also tells whether anything would be won. */
static bool
chain_may_leave(const struct scree__chain *chain, uint64_t stable)
{
    for (size_t i = 0; i < chain->positions_n; i++)
        if (chain->positions[i].lsn + chain->positions[i].disk_len > stable)
            return false;
    return !(chain->n == 0 && scree__chain_is_cold(chain));
}

/* What the slot becomes; 0: no memory. V5 is here. */
static uint64_t
evicted_form(struct scree__context *ctx, struct scree__radix_ref ref,
             const struct scree__chain *chain, struct scree__node **ghost_out)
{
    const struct scree__position *p = chain->positions;
    struct scree__node *ghost;

    *ghost_out = NULL;
    if (chain->positions_n == 1 && slot_can_evict(p->disk_len)) {
        /* V5. Release: pairs with the acquire loads of those who found the evicted word. */
        atomic_store_explicit(scree__radix_side(ref), slot_side(chain->version, p->disk_len),
                              memory_order_release);
        return slot_from_evicted(p->lsn, p->disk_len);
    }
    ghost = scree__node_new(ctx, NODE_GHOST, 0, chain->positions_n);
    if (ghost == NULL)
        return 0;
    ghost->lsn = chain->lsn;
    ghost->version = chain->version;
    ghost->disk_len = p->disk_len;
    if (chain->positions_n > 1)
        memcpy(scree__node_positions(ghost), p, chain->positions_n * sizeof *p);
    *ghost_out = ghost;
    return slot_from_node(ghost, chain->positions_n);
}

/* Under the claim, in a read section. Bytes given up. */
static uint64_t
evict_claimed(struct scree__context *ctx, struct scree__radix_ref ref)
{
    struct scree__chain *chain = &ctx->chain;
    /* Acquire: the chain. */
    uint64_t word = atomic_load_explicit(scree__radix_word(ref), memory_order_acquire);
    uint64_t seen = word, next, bytes = 0;
    struct scree__node *ghost, *n;

    if (slot_tag(word) != SLOT_NODE || scree__chain_collect(ctx, ref, word, chain) != 0 ||
        chain->positions_n > UINT16_MAX ||
        !chain_may_leave(chain, scree__log_stable(ctx->cache->log)))
        return 0;
    for (n = slot_node(word); n != NULL; n = n->next)
        bytes += n->charge;
    next = evicted_form(ctx, ref, chain, &ghost);
    if (next == 0)
        return 0;
    if (ghost != NULL && ghost->charge >= bytes) { /* nothing to win */
        scree__node_discard(ctx, ghost);
        return 0;
    }
    bytes -= ghost == NULL ? 0 : ghost->charge;
    SCREE_YIELD_POINT();
    /* V6. Release: the ghost, and the side word. */
    if (!atomic_compare_exchange_strong_explicit(scree__radix_word(ref), &seen, next,
                                                 memory_order_release,
                                                 memory_order_relaxed)) { /* LP */
        scree__node_discard(ctx, ghost);
        return 0;
    }
    scree__chain_retire(ctx, slot_node(word), NULL);
    scree__count(ctx, COUNT_EVICTIONS, 1);
    return bytes;
}

/* V4 to V7 for one slot. */
static uint64_t
evict_page(struct scree__context *ctx, struct scree__radix_ref ref)
{
    _Atomic uint8_t *mark = scree__radix_mark(ref);
    uint64_t bytes, begin;

    if (atomic_fetch_or_explicit(mark, SLOT_CLAIM, memory_order_acquire) & SLOT_CLAIM) /* V4 */
        return 0;
    begin = scree__phase_begin(ctx);
    scree__rcu_enter();
    bytes = evict_claimed(ctx, ref);
    scree__rcu_leave();
    scree__phase_end(ctx, PHASE_PAGE_OUT, begin);
    atomic_fetch_and_explicit(mark, (uint8_t)~SLOT_CLAIM, memory_order_release); /* V7 */
    return bytes;
}

/* What a turn of the clock is to do, and has done. */
struct sweep {
    uint64_t wanted;    /* bytes */
    uint64_t bytes;     /* given up */
    uint64_t depth_max; /* pages of more records are consolidated first; UINT64_MAX: never */
    uint32_t compacted; /* such pages, to be evicted when their new record is stable */
    scree_page_id page[COMPACT_PAGES];
};

static void
sweep_slot(struct scree__context *ctx, struct scree__radix_ref ref, struct sweep *sweep)
{
    _Atomic uint8_t *mark = scree__radix_mark(ref);
    /* Relaxed: hints; the word is re-read under the claim. */
    uint64_t word = atomic_load_explicit(scree__radix_word(ref), memory_order_relaxed);

    if (slot_tag(word) != SLOT_NODE)
        return;
    if (atomic_load_explicit(mark, memory_order_relaxed) & SLOT_REFERENCED) {
        atomic_fetch_and_explicit(mark, (uint8_t)~SLOT_REFERENCED, memory_order_relaxed); /* V3 */
        return;
    }
    if (slot_depth(word) <= sweep->depth_max) {
        sweep->bytes += evict_page(ctx, ref);
        return;
    }
    if (sweep->compacted < COMPACT_PAGES &&
        scree__consolidate(ctx, ref.leaf->first_id + ref.index) == 0)
        sweep->page[sweep->compacted++] = ref.leaf->first_id + ref.index;
}

/* The next HAND_STEP slots for this thread alone. leaf NULL: somebody else is moving the hand. */
static struct scree__radix_ref
hand_take(scree_cache *cache, bool *wrapped_out)
{
    struct scree__radix_ref ref = {NULL, 0};
    uint32_t idle = 0;
    uint64_t at;

    *wrapped_out = false;
    if (!atomic_compare_exchange_strong_explicit(&cache->hand_busy, &idle, 1, memory_order_acquire,
                                                 memory_order_relaxed)) /* V1 */
        return ref;
    at = atomic_load_explicit(&cache->hand, memory_order_relaxed); /* under V1 */
    ref.leaf = scree__radix_leaf_from(&cache->radix, at);
    if (ref.leaf == NULL) {
        *wrapped_out = true;
        ref.leaf = scree__radix_leaf_from(&cache->radix, 0);
        at = 0;
    }
    if (ref.leaf != NULL) {
        if (at < ref.leaf->first_id)
            at = ref.leaf->first_id;
        ref.index = (uint32_t)(at - ref.leaf->first_id);
        *wrapped_out |= at > UINT64_MAX - HAND_STEP;
        atomic_store_explicit(&cache->hand, at + HAND_STEP, memory_order_relaxed); /* under V1 */
    }
    atomic_store_explicit(&cache->hand_busy, 0, memory_order_release); /* V2 */
    return ref;
}

/* Turn the clock until enough is won or enough is to be waited for, three times around at most: one to take
   second chances away, one to collect, and a part of one, as it did not start at the beginning. */
static void
sweep_run(struct scree__context *ctx, struct sweep *sweep)
{
    unsigned wraps = 0, lost = 0;

    while (sweep->bytes < sweep->wanted && sweep->compacted < COMPACT_PAGES && wraps < 3 &&
           lost < HAND_TRIES) {
        bool wrapped;
        struct scree__radix_ref ref = hand_take(ctx->cache, &wrapped);

        if (ref.leaf == NULL) { /* somebody else moves the hand at this moment */
            lost++;
            scree__cpu_relax();
            continue;
        }
        wraps += wrapped;
        for (uint32_t i = 0; i < HAND_STEP; i++) {
            sweep_slot(ctx, ref, sweep);
            ref.index++;
        }
    }
    scree__charge_pass_on(ctx);
}

/* Pages that were consolidated to be evicted, now that their records are stable. */
static void
sweep_finish(struct scree__context *ctx, struct sweep *sweep)
{
    for (uint32_t i = 0; i < sweep->compacted; i++)
        sweep->bytes += evict_page(ctx, scree__radix_find(&ctx->cache->radix, sweep->page[i]));
    scree__charge_pass_on(ctx);
}

static int64_t
memory_over(scree_cache *cache)
{
    /* Relaxed: a limit, kept by everybody a little. */
    return atomic_load_explicit(&cache->resident_bytes, memory_order_relaxed) +
           (int64_t)(2 * cache->charge_step) - (int64_t)cache->options.cache_bytes;
}

/* Unlinked memory waits for grace periods; more than this and its makers wait too. */
static bool
retired_over(scree_cache *cache)
{
    uint64_t limit = cache->options.cache_bytes / 4;

    if (limit < ((uint64_t)4 << 20))
        limit = (uint64_t)4 << 20;
    return atomic_load_explicit(&cache->retired_bytes, memory_order_relaxed) > limit;
}

static uint64_t
memory_wanted(scree_cache *cache, int64_t over)
{
    return (uint64_t)over +
           cache->options.cache_bytes / 64; /* some more, or every call would walk */
}

void
scree__memory_relieve(struct scree__context *ctx)
{
    int64_t over = memory_over(ctx->cache);
    struct sweep sweep = {.depth_max = UINT64_MAX};

    if (over <= 0)
        return;
    sweep.wanted = memory_wanted(ctx->cache, over);
    sweep_run(ctx, &sweep);
    if (sweep.bytes == 0) /* too young to leave: have it made stable, for the next one who asks */
        scree__log_request_stable(ctx->cache->log, scree__log_tail(ctx->cache->log));
}

/* One round for a writer that may wait. False: nothing can leave memory. */
static bool
admit_round(struct scree__context *ctx, int64_t over, bool desperate)
{
    struct scree__log *log = ctx->cache->log;
    struct sweep sweep = {.wanted = memory_wanted(ctx->cache, over),
                          .depth_max = desperate ? 1 : GHOST_POSITIONS_MAX};
    bool all_stable = scree__log_tail(log) <= scree__log_stable(log);

    sweep_run(ctx, &sweep);
    if (sweep.bytes == 0 || sweep.compacted > 0) {
        if (sweep.compacted == 0 && all_stable && desperate)
            return false;
        if (!all_stable || sweep.compacted > 0)
            (void)scree__log_wait_stable(log, scree__log_tail(log), ADMIT_WAIT_NS); /* only helps */
        sweep_finish(ctx, &sweep);
    }
    return true;
}

void
scree__memory_admit(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    bool may_wait = !scree__rcu_inside();
    int64_t over;

    if (may_wait && retired_over(cache))
        scree__reclaimer_wait(cache);
    over = memory_over(cache);
    if (over <= 0)
        return;
    if (!may_wait)
        scree__memory_relieve(ctx);
    for (unsigned round = 0; may_wait && over > 0 && round < ADMIT_ROUNDS; round++) {
        if (!admit_round(ctx, over, round > 0) || scree__log_health(cache->log) != 0)
            break;
        over = memory_over(cache);
    }
    if (memory_over(cache) > 0)
        scree__count(ctx, COUNT_OVER_MEMORY, 1);
}
