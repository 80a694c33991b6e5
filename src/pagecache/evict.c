/*
 * evict.c - the clock hand: it goes round the slots in page order and takes pages out of memory.
 *
 * WORD   the page's slot, side and mark; cache.hand: the next id the hand looks at;
 *        cache.hand_share: how many newcomers the hand met (clock.h); cache.held_bytes: see I4.
 * EDGES  (columns: step, who may, order, pairs with, if it loses)
 *   V1   hand: a step on                    an evictor    CAS relaxed       V1           take the next step
 *   V2   mark: reference, heat              an evictor    fetch_and, _or    G2 (read.c)  a hint more or less
 *   V3   mark: set CLAIM                    an evictor    fetch_or acquire  V6           leave the page alone
 *   V4   side := version, length            holder of V3  store release     slot readers sole writer
 *   V5   chain -> evicted word or ghost     holder of V3  CAS release       every load   page moved: leave it
 *   V6   mark: clear CLAIM                  holder of V3  fetch_and release V3           cannot
 *   V7   hand_share: add, halve             an evictor    relaxed           -            halved a step later
 *   V8   held_bytes, left_bytes: add        an evictor    relaxed           -            sums, no order
 * INVARIANTS
 *   I1 only stable records leave memory: every record the chain stands for ends at or below
 *      stable_lsn.
 *   I2 the side word is written only while the slot holds a node and only between V3 and V6; after
 *      V5 nobody writes it until the slot holds a node again. So who re-reads the same evicted word
 *      read its side.
 *   I3 a ghost is small: a page of many records is consolidated first and evicted when that record
 *      is stable; when ghosts are what fills memory, so are they. So what cannot leave is a word a
 *      page.
 *   I4 pages brought in or rewritten only in order to leave take held_max bytes together, and one page
 *      more for each evictor: each waits for its own to be stable before it does more.
 * LIFETIME what V5 unlinks is retired. The chain was loaded in this read section: no ABA in V5.
 * PROGRESS lock-free: V1 loses to another's step; claims are tried, never waited for. A sweep is
 *          bounded by the steps that it was given.
 * FAILURE  no memory for a ghost: the page stays.
 * NOT HERE when to sweep and who waits (pressure.c), what is taken (clock.h), reading it back (pagein.c).
 * REFS     CLOCK (Corbato, 1968).
 */
#include "pagecache/clock.h"
#include "pagecache/pagecache_private.h"

#include <string.h>

#define HAND_STEP 128u

static_assert(SCREE__RADIX_FANOUT % HAND_STEP == 0, "a step stays in its leaf");

/* What became of a page that the hand wanted to leave. */
enum eviction {
    PAGE_LEFT,
    PAGE_YOUNG, /* some of its records are not stable yet */
    PAGE_STAYED /* moved, claimed by another, a ghost already, no memory for a ghost */
};

/* I1 */
static bool
chain_is_stable(const struct scree__chain *chain, uint64_t stable)
{
#ifdef SCREE_BUG_EVICT_UNSTABLE /* seeded: stress_memory must fail */
    return true;
#endif
    for (size_t i = 0; i < chain->positions_n; i++)
        if (chain->positions[i].lsn + chain->positions[i].disk_len > stable)
            return false;
    return true;
}

/* What the slot becomes; 0: no memory. V4 is here. */
static uint64_t
evicted_form(struct scree__context *ctx, struct scree__radix_ref ref,
             const struct scree__chain *chain, struct scree__node **ghost_out)
{
    const struct scree__position *p = chain->positions;
    struct scree__node *ghost;

    *ghost_out = NULL;
    if (chain->positions_n == 1 && slot_can_evict(p->disk_len)) {
        /* V4. Release: pairs with the acquire loads of those who found the evicted word. */
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

/* Under the claim, in a read section. *bytes_out: given up. */
static enum eviction
evict_claimed(struct scree__context *ctx, struct scree__radix_ref ref, uint64_t *bytes_out)
{
    struct scree__chain *chain = &ctx->chain;
    /* Acquire: the chain. */
    uint64_t word = atomic_load_explicit(scree__radix_word(ref), memory_order_acquire);
    uint64_t seen = word, next;
    struct scree__node *ghost, *n;

    if (slot_tag(word) != SLOT_NODE)
        return PAGE_STAYED;
    for (n = slot_node(word); n != NULL; n = n->next)
        *bytes_out += n->charge;
    if (scree__chain_collect(ctx, ref, word, chain) != 0 || chain->positions_n > UINT16_MAX ||
        (chain->n == 0 && scree__chain_is_cold(chain)))
        return PAGE_STAYED;
    if (!chain_is_stable(chain, scree__log_stable(ctx->cache->log)))
        return PAGE_YOUNG;
    next = evicted_form(ctx, ref, chain, &ghost);
    if (next == 0)
        return PAGE_STAYED;
    if (ghost != NULL && ghost->charge >= *bytes_out) { /* nothing to win */
        scree__node_discard(ctx, ghost);
        return PAGE_STAYED;
    }
    *bytes_out -= ghost == NULL ? 0 : ghost->charge;
    SCREE_YIELD_POINT();
    /* V5. Release: the ghost, and the side word. */
    if (!atomic_compare_exchange_strong_explicit(scree__radix_word(ref), &seen, next,
                                                 memory_order_release,
                                                 memory_order_relaxed)) { /* LP */
        scree__node_discard(ctx, ghost);
        return PAGE_STAYED;
    }
    scree__chain_retire(ctx, slot_node(word));
    scree__count(ctx, COUNT_EVICTIONS, 1);
    return PAGE_LEFT;
}

/* V2: only what differs is touched. */
static void
mark_change(struct scree__radix_ref ref, uint8_t from, uint8_t to)
{
    if ((to & ~from) != 0)
        scree__radix_mark_set(ref, (uint8_t)(to & ~from));
    if ((from & ~to) != 0)
        scree__radix_mark_clear(ref, (uint8_t)(from & ~to));
}

/* V3 to V6 for one slot. *bytes_out: given up. */
static enum eviction
evict_page(struct scree__context *ctx, struct scree__radix_ref ref, uint64_t *bytes_out)
{
    uint8_t mark = scree__radix_mark_set(ref, SLOT_CLAIM); /* V3 */
    enum eviction outcome;
    uint64_t begin;

    *bytes_out = 0;
#ifndef SCREE_BUG_EVICT_NO_CLAIM /* seeded: two write the side word; sched_pairs must fail */
    if (mark & SLOT_CLAIM)
        return PAGE_STAYED;
#endif
    begin = scree__phase_begin(ctx);
    scree__rcu_enter();
    outcome = evict_claimed(ctx, ref, bytes_out);
    scree__rcu_leave();
    scree__phase_end(ctx, PHASE_PAGE_OUT, begin);
    if (outcome == PAGE_LEFT)
        mark_change(ref, mark, clock_left(mark));
    scree__radix_mark_clear(ref, SLOT_CLAIM); /* V6 */
    return outcome;
}

void
scree__page_evict(struct scree__context *ctx, struct scree__radix_ref ref)
{
    uint64_t bytes;

    if ((scree__radix_mark(ref) & SLOT_REFERENCED) == 0)
        (void)evict_page(ctx, ref, &bytes);
}

/* What the slot's head takes in memory, if it is a ghost or if it need not be one; 0: not so. */
static uint64_t
head_charge(struct scree__radix_ref ref, bool ghosts_only)
{
    uint64_t charge = 0, word;

    scree__rcu_enter();
    word = scree__slot_peek(ref);
    if (slot_tag(word) == SLOT_NODE && (!ghosts_only || slot_node(word)->kind == NODE_GHOST))
        charge = slot_node(word)->charge;
    scree__rcu_leave();
    return charge;
}

static bool
sweep_enough(const struct scree__sweep *sweep)
{
    return sweep->bytes + sweep->held_bytes >= sweep->wanted ||
           sweep->consolidated == SWEEP_CONSOLIDATE_MAX;
}

/* Consolidated now, evicted when that record is stable (scree__sweep_finish). A page that cannot be merged
   stays: each append to it would have to read it all. False: nothing can be written, let it go as it is. */
static bool
sweep_consolidate(struct scree__context *ctx, struct scree__radix_ref ref,
                  struct scree__sweep *sweep)
{
    scree_page_id id = ref.leaf->first_id + ref.index;
    _Atomic uint64_t *held = &ctx->cache->held_bytes;
    uint64_t bytes;
    int rc;

    if (sweep_enough(sweep))
        return true;
    if (atomic_load_explicit(held, memory_order_relaxed) >= sweep->held_max) { /* I4 */
        sweep->crowded = true;
        return true;
    }
    rc = scree__consolidate(ctx, id);
    if (rc == SCREE_E_MERGE)
        return true;
    if (rc != 0) { /* nor will the next one */
        sweep->depth_max = UINT64_MAX;
        sweep->ghosts_too = false;
        return false;
    }
    bytes = head_charge(ref, false);
    sweep->page[sweep->consolidated++] = id;
    sweep->held_bytes += bytes;
    atomic_fetch_add_explicit(held, bytes, memory_order_relaxed); /* V8 */
    return true;
}

/* A newcomer whom nobody came back to. */
static void
sweep_newcomer(struct scree__context *ctx, struct scree__radix_ref ref, struct scree__sweep *sweep,
               uint64_t depth)
{
    uint64_t bytes;

    if (depth > sweep->depth_max && sweep_consolidate(ctx, ref, sweep))
        return;
    switch (evict_page(ctx, ref, &bytes)) {
    case PAGE_LEFT:
        sweep->bytes += bytes;
        break;
    case PAGE_YOUNG:
        sweep->young_bytes += bytes;
        break;
    case PAGE_STAYED:
        break;
    }
}

static void
sweep_slot(struct scree__context *ctx, struct scree__radix_ref ref, struct scree__sweep *sweep,
           bool spares)
{
    /* A hint; re-read under the claim. A page that a batch has hold of is in memory all the same. */
    uint64_t word = scree__slot_glance(ref);
    uint64_t ghost =
        slot_tag(word) == SLOT_NODE && slot_depth(word) > 1 ? head_charge(ref, true) : 0;
    uint8_t mark = scree__radix_mark(ref);

    if (slot_tag(word) != SLOT_NODE || ghost > 0) { /* not in memory */
        mark_change(ref, mark, clock_forgotten(mark));
        sweep->ghost_bytes += ghost;
        if (ghost > 0 && sweep->ghosts_too && clock_newcomer(mark))
            (void)sweep_consolidate(ctx, ref, sweep);
        return;
    }
    sweep->share += clock_share(1, clock_newcomer(mark));
    if (clock_newcomer(mark) && !clock_referenced(mark))
        sweep_newcomer(ctx, ref, sweep, slot_depth(word));
    else if (clock_newcomer(mark) || !spares)
        mark_change(ref, mark, clock_passed(mark));
}

/* The next HAND_STEP slots for this thread; leaf NULL: there are none. */
static struct scree__radix_ref
hand_take(scree_cache *cache)
{
    struct scree__radix_ref ref = {NULL, 0};
    uint64_t at = atomic_load_explicit(&cache->hand, memory_order_relaxed); /* V1 compares */
    uint64_t from;

    do {
        from = at;
        ref.leaf = scree__radix_leaf_from(&cache->radix, from);
        if (ref.leaf == NULL) {
            from = 0;
            ref.leaf = scree__radix_leaf_from(&cache->radix, 0);
        }
        if (ref.leaf == NULL)
            return ref;
        if (from < ref.leaf->first_id)
            from = ref.leaf->first_id;
        /* V1. Relaxed: leaves are never unlinked, and the number is all that is shared. */
    } while (!atomic_compare_exchange_weak_explicit(
        &cache->hand, &at, from + HAND_STEP, memory_order_relaxed, memory_order_relaxed)); /* LP */
    ref.index = (uint32_t)(from - ref.leaf->first_id);
    return ref;
}

/* V7. What was met in a step, for all. */
static void
share_pass_on(scree_cache *cache, uint64_t met)
{
    uint64_t share = atomic_fetch_add_explicit(&cache->hand_share, met, memory_order_relaxed) + met;

    if (clock_share_full(share))
        atomic_compare_exchange_strong_explicit(&cache->hand_share, &share,
                                                clock_share_halved(share), memory_order_relaxed,
                                                memory_order_relaxed);
}

static void
won_pass_on(struct scree__context *ctx, uint64_t bytes)
{
    if (bytes > 0) /* V8 */
        atomic_fetch_add_explicit(&ctx->cache->left_bytes, bytes, memory_order_relaxed);
    scree__charge_pass_on(ctx);
}

uint64_t
scree__sweep_turn(const scree_cache *cache)
{
    /* Relaxed: leaves that come meanwhile are of the next turn. */
    return atomic_load_explicit(&cache->radix.leaf_count, memory_order_relaxed) *
           (SCREE__RADIX_FANOUT / HAND_STEP);
}

void
scree__sweep_run(struct scree__context *ctx, struct scree__sweep *sweep)
{
    scree_cache *cache = ctx->cache;
    uint64_t before = sweep->bytes;

    while (sweep->steps < sweep->steps_max && !sweep_enough(sweep)) {
        struct scree__radix_ref ref = hand_take(cache);
        bool spares = !sweep->hard &&
                      clock_spares(atomic_load_explicit(&cache->hand_share, memory_order_relaxed));

        if (ref.leaf == NULL)
            break;
        for (uint32_t i = 0; i < HAND_STEP; i++, ref.index++)
            sweep_slot(ctx, ref, sweep, spares);
        share_pass_on(cache, sweep->share);
        sweep->share = 0;
        sweep->steps++;
    }
    won_pass_on(ctx, sweep->bytes - before);
}

void
scree__sweep_finish(struct scree__context *ctx, struct scree__sweep *sweep)
{
    uint64_t before = sweep->bytes;

    for (uint32_t i = 0; i < sweep->consolidated; i++) {
        struct scree__radix_ref ref = scree__radix_find(&ctx->cache->radix, sweep->page[i]);
        uint64_t bytes;

        if (!clock_referenced(scree__radix_mark(ref)) && evict_page(ctx, ref, &bytes) == PAGE_LEFT)
            sweep->bytes += bytes;
    }
    atomic_fetch_sub_explicit(&ctx->cache->held_bytes, sweep->held_bytes,
                              memory_order_relaxed); /* V8 */
    sweep->consolidated = 0;
    sweep->held_bytes = 0;
    won_pass_on(ctx, sweep->bytes - before);
}
