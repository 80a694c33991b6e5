/*
 * read.c - get, fragments, read, next: looking at pages without a lock.
 *
 * WORD   the page's slot; the guard word of this thread's context (pagecache_private.h).
 * EDGES  step                          who          order            pairs              if it loses
 *   G1   load the slot                 any reader   load acquire     every release CAS  -
 *   G2   mark referenced, if it is not any reader   fetch_or relaxed the clock hand     cannot
 *   G3   chain -> merged form          any reader   CAS release      G1                 load again; after a few
 *                                                                                      losses keep
 *          it private
 * INVARIANTS
 *   I1 a hit (slot -> BASE or EMPTY node) takes no lock and stores to no shared line but by G2,
 *      once between two turns of the clock: the counters, the guard depth and the RCU nesting are
 *      this thread's own.
 *   I2 G3 changes the form, never the version nor the records the page stands for.
 * LIFETIME bytes given out belong to nodes reachable inside the caller's read section; a merged
 *          form that lost
 *   G3 for good is retired at once and so lives exactly as long as the guard that was given it.
 * PROGRESS a hit is wait-free. A miss does one round of I/O. A merge loses G3 only to somebody's
 *   success, and at most MERGE_TRIES times.
 * FAILURE  MERGE: the chain stays as it is. NO_MEMORY, CORRUPT, -errno: nothing changed.
 * NOT HERE writing the merged page to the log (consolidate.c).   REFS none.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

#define MERGE_TRIES 4
#define PAGE_IN_TRIES 1000

/* Hot calls keep the rare way out of line, or it would cost them registers to save. */
#define RARE __attribute__((noinline, cold))

/* The cache of which this thread has a guard only as far as it knows: there was no memory for it. */
static _Thread_local const scree_cache *guard_missed;

static inline bool
context_is_last(const scree_cache *cache)
{
    return __builtin_expect(cache != NULL && scree__context_last.serial == cache->serial, 1);
}

static inline void
guard_open(struct scree__context *ctx)
{
    /* Relaxed: only the owner writes; close, which reads it, is not concurrent with calls, and the
       watch wants a moment's picture. */
    uint64_t guard = atomic_load_explicit(&ctx->guard, memory_order_relaxed);

    atomic_store_explicit(&ctx->guard, guard + 1, memory_order_relaxed);
    scree__rcu_enter();
}

static inline void
guard_close(struct scree__context *ctx)
{
    uint64_t guard = atomic_load_explicit(&ctx->guard, memory_order_relaxed);
    uint64_t depth = guard & GUARD_DEPTH_MASK;
    uint64_t left = depth == 1 ? guard + GUARD_ENDED : guard - 1;

    if (depth == 0) {
        guard_missed = NULL;
        return;
    }
    scree__rcu_leave();
    /* Release: what this guard read stays before a close that sees it left. */
    atomic_store_explicit(&ctx->guard, left, memory_order_release);
}

/* The first call of a thread into this cache, or one after a call into another cache. */
static RARE void
guard_slow(scree_cache *cache, bool open)
{
    struct scree__context *ctx = cache == NULL ? NULL : scree__context_slow(cache);

    if (ctx != NULL && open)
        guard_open(ctx);
    else if (ctx != NULL)
        guard_close(ctx);
    else
        guard_missed = open ? cache : NULL;
}

RARE int
scree__not_guarded(const scree_cache *cache, const char *call)
{
    if (cache == guard_missed)
        return scree__fail(SCREE_E_NO_MEMORY,
                           "%s: there was no memory for the read guard; leave it and enter again",
                           call);
    return scree__fail(SCREE_E_INVALID,
                       "%s: no read guard is open in this thread; call scree_read_enter first",
                       call);
}

void
scree_read_enter(scree_cache *cache)
{
    if (context_is_last(cache))
        guard_open(scree__context_last.ctx);
    else
        guard_slow(cache, true);
}

void
scree_read_leave(scree_cache *cache)
{
    if (context_is_last(cache))
        guard_close(scree__context_last.ctx);
    else
        guard_slow(cache, false);
}

static int
not_found(scree_page_id id)
{
    return scree__fail(SCREE_E_NOT_FOUND, "page %llu is not live", (unsigned long long)id);
}

static inline void
page_was_hit(struct scree__context *ctx, struct scree__radix_ref ref)
{
    /* G2. Relaxed: a hint to the clock hand. Tested first so that a hot page's line stays shared. */
    if ((scree__radix_mark(ref) & SLOT_REFERENCED) == 0)
        scree__radix_mark_set(ref, SLOT_REFERENCED);
    scree__count(ctx, COUNT_HITS, 1);
}

/* Merge the chain at word and install the result. *node_out NULL with 0: load the slot again. */
static int
merge_and_install(struct scree__context *ctx, scree_page_id id, struct scree__radix_ref ref,
                  uint64_t word, bool keep_private, struct scree__node **node_out)
{
    struct scree__chain *chain = &ctx->chain;
    uint64_t seen = word;
    int rc = scree__chain_collect(ctx, ref, word, chain);

    *node_out = NULL;
    if (rc != 0)
        return rc == SCREE_E_BUSY ? 0 : rc;
    if (scree__chain_is_cold(chain))
        return scree__page_in(ctx, id, ref, word);
    rc = scree__chain_merge(ctx, id, chain);
    if (rc != 0)
        return rc;
    *node_out = scree__chain_merged_node(ctx, chain);
    if (*node_out == NULL)
        return SCREE_E_NO_MEMORY;
    SCREE_YIELD_POINT();
    /* G3 */
    if (atomic_compare_exchange_strong_explicit(
            scree__radix_word(ref), &seen, slot_from_node(*node_out, slot_depth(word)),
            memory_order_release, memory_order_relaxed)) { /* LP */
        scree__chain_retire(ctx, slot_node(word));
        return 0;
    }
#ifdef SCREE_BUG_MERGED_OVER
    /* Seeded: a fragment that came meanwhile is overwritten. stress_order must fail. */
    if (slot_tag(seen) == SLOT_NODE && slot_node(seen)->next == slot_node(word) &&
        atomic_compare_exchange_strong_explicit(scree__radix_word(ref), &seen,
                                                slot_from_node(*node_out, slot_depth(seen)),
                                                memory_order_release, memory_order_relaxed)) {
        scree__chain_retire(ctx, slot_node(word));
        return 0;
    }
#endif
    if (keep_private) {
        scree__chain_retire(ctx, *node_out); /* lives until the guard is left */
        return 0;
    }
    scree__node_discard(ctx, *node_out);
    *node_out = NULL;
    return 0;
}

/* The page in one node, in the caller's read section. MERGE: *version_out is still told. */
static int
page_node(struct scree__context *ctx, scree_page_id id, struct scree__node **node_out,
          scree_version *version_out)
{
    struct scree__radix_ref ref = scree__radix_find(&ctx->cache->radix, id);

    *node_out = NULL;
    *version_out = 0;
    if (ref.leaf == NULL)
        return not_found(id);
    for (unsigned tries = 0; tries < PAGE_IN_TRIES; tries++) {
        uint64_t word = scree__slot_peek(ref); /* G1 */
        struct scree__node *node = slot_whole_node(word);
        int rc = 0;

        if (slot_tag(word) == SLOT_FREE)
            return not_found(id);
        if (node == NULL)
            rc = scree__slot_load(ctx, ref, &word); /* it is to be changed */
        if (rc == 0 && node == NULL && slot_tag(word) != SLOT_FREE &&
            slot_whole_node(word) == NULL) {
            if (slot_tag(word) == SLOT_NODE)
                *version_out = slot_node(word)->version;
            else
                scree__radix_prefetch(ref);
            scree__memory_relieve(ctx);
            rc = slot_tag(word) == SLOT_EVICTED
                     ? scree__page_in(ctx, id, ref, word)
                     : merge_and_install(ctx, id, ref, word, tries >= MERGE_TRIES, &node);
        }
        if (rc != 0)
            return rc;
        if (node != NULL) {
            if (tries ==
                0) /* later rounds were counted as misses; an arrival is no second access */
                page_was_hit(ctx, ref);
            *node_out = node;
            *version_out = node->version;
            return 0;
        }
    }
    return scree__fail(SCREE_E_BUSY,
                       "page %llu is evicted as fast as it is read; cache_bytes is too small",
                       (unsigned long long)id);
}

/* page_node for the usual case; NULL: it has to be called. */
static inline struct scree__node *
page_hit(scree_cache *cache, struct scree__context *ctx, scree_page_id id)
{
    struct scree__radix_ref ref = scree__radix_find(&cache->radix, id);
    struct scree__node *node;

    if (ref.leaf == NULL)
        return NULL;
    node = slot_whole_node(
        atomic_load_explicit(scree__radix_word(ref), memory_order_acquire)); /* G1 */
    if (node == NULL)
        return NULL;
    page_was_hit(ctx, ref);
    return node;
}

/* Misses, merges and mistakes. */
static RARE int
page_get_slow(scree_cache *cache, scree_page_id id, scree_slice *page_out,
              scree_version *version_out)
{
    struct scree__context *ctx;
    struct scree__node *node;
    scree_version version = 0;
    int rc = scree__enter_call(cache, &ctx);

    if (rc == 0 && id == 0)
        rc = scree__fail(SCREE_E_INVALID, "scree_page_get: 0 is never a page");
    if (rc == 0 && !scree__context_guarded(ctx))
        rc = scree__not_guarded(cache, "scree_page_get");
    if (rc == 0)
        rc = page_node(ctx, id, &node, &version);
    if (page_out != NULL)
        *page_out =
            rc == 0 ? (scree_slice){node->payload, node->payload_len} : (scree_slice){NULL, 0};
    if (version_out != NULL)
        *version_out = version;
    return rc;
}

int
scree_page_get(scree_cache *cache, scree_page_id id, scree_slice *page_out,
               scree_version *version_out)
{
    struct scree__node *node = NULL;

    if (context_is_last(cache) && scree__context_guarded(scree__context_last.ctx))
        node = page_hit(cache, scree__context_last.ctx, id); /* id 0 is never live */
    if (__builtin_expect(node == NULL, 0))
        return page_get_slow(cache, id, page_out, version_out);
    if (page_out != NULL)
        *page_out = (scree_slice){node->payload, node->payload_len};
    if (version_out != NULL)
        *version_out = node->version;
    return 0;
}

int
scree_page_read(scree_cache *cache, scree_page_id id, void *buf, size_t cap, size_t *len_out,
                scree_version *version_out)
{
    struct scree__context *ctx;
    struct scree__node *node = NULL;
    scree_version version = 0;
    size_t len = 0;
    int rc = scree__enter_call(cache, &ctx);

    if (rc == 0 && (id == 0 || (buf == NULL && cap > 0)))
        rc = scree__fail(SCREE_E_INVALID, "scree_page_read: %s",
                         id == 0 ? "0 is never a page" : "buf is NULL but cap is not 0");
    if (rc == 0) {
        scree__rcu_enter();
        rc = page_node(ctx, id, &node, &version);
        if (rc == 0) {
            len = node->payload_len;
            if (len > cap)
                rc = scree__fail(SCREE_E_TOO_BIG, "page %llu has %zu bytes, the buffer %zu",
                                 (unsigned long long)id, len, cap);
            else if (len > 0)
                memcpy(buf, node->payload, len);
        }
        scree__rcu_leave();
    }
    if (len_out != NULL)
        *len_out = len;
    if (version_out != NULL)
        *version_out = version;
    return rc;
}

/* Collect the page into ctx->chain with everything in memory. */
static int
page_chain(struct scree__context *ctx, scree_page_id id)
{
    struct scree__radix_ref ref = scree__radix_find(&ctx->cache->radix, id);
    int rc = 0;

    for (unsigned tries = 0; ref.leaf != NULL && tries < PAGE_IN_TRIES; tries++) {
        uint64_t word;

        rc = scree__slot_load(ctx, ref, &word); /* G1 */
        if (rc != 0)
            return rc;
        if (slot_tag(word) == SLOT_FREE)
            return not_found(id);
        rc = scree__chain_collect(ctx, ref, word, &ctx->chain);
        if (rc != 0 && rc != SCREE_E_BUSY)
            return rc;
        if (rc == 0 && !scree__chain_is_cold(&ctx->chain)) {
            if (tries == 0)
                page_was_hit(ctx, ref);
            return 0;
        }
        scree__memory_relieve(ctx);
        rc = rc == 0 ? scree__page_in(ctx, id, ref, word) : 0;
        if (rc != 0)
            return rc;
    }
    return ref.leaf == NULL
               ? not_found(id)
               : scree__fail(SCREE_E_BUSY, "page %llu is evicted as fast as it is read",
                             (unsigned long long)id);
}

int
scree_page_fragments(scree_cache *cache, scree_page_id id, scree_slice *base_out,
                     scree_slice *frags, size_t cap, size_t *n_out, scree_version *version_out)
{
    struct scree__context *ctx;
    int rc = scree__enter_call(cache, &ctx);

    if (base_out != NULL)
        *base_out = (scree_slice){NULL, 0};
    if (n_out != NULL)
        *n_out = 0;
    if (version_out != NULL)
        *version_out = 0;
    if (rc != 0)
        return rc;
    if (id == 0 || (frags == NULL && cap > 0))
        return scree__fail(SCREE_E_INVALID, "scree_page_fragments: %s",
                           id == 0 ? "0 is never a page" : "frags is NULL but cap is not 0");
    if (!scree__context_guarded(ctx))
        return scree__not_guarded(cache, "scree_page_fragments");
    rc = page_chain(ctx, id);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < cap && i < ctx->chain.n; i++)
        frags[i] = ctx->chain.frags[i];
    if (base_out != NULL)
        *base_out = ctx->chain.base;
    if (n_out != NULL)
        *n_out = ctx->chain.n;
    if (version_out != NULL)
        *version_out = ctx->chain.version;
    return 0;
}

int
scree_page_next(scree_cache *cache, scree_page_id after, scree_page_id *id_out)
{
    struct scree__context *ctx;
    struct scree__radix_leaf *leaf = NULL;
    int rc = scree__enter_call(cache, &ctx);

    if (id_out != NULL)
        *id_out = 0;
    if (rc != 0)
        return rc;
    if (after != UINT64_MAX)
        leaf = scree__radix_leaf_from(&cache->radix, after + 1);
    for (; leaf != NULL; leaf = scree__radix_leaf_after(&cache->radix, leaf)) {
        uint32_t i = leaf->first_id > after ? 0 : (uint32_t)(after - leaf->first_id) + 1;

        for (; i < SCREE__RADIX_FANOUT; i++) {
            struct scree__radix_ref ref = {.leaf = leaf, .index = i};

            if (slot_tag(scree__slot_glance(ref)) ==
                SLOT_FREE) /* G1: who finds the id finds the page */
                continue;
            if (id_out != NULL)
                *id_out = leaf->first_id + i;
            return 0;
        }
    }
    return scree__fail(SCREE_E_NOT_FOUND, "no live page above %llu", (unsigned long long)after);
}
