/*
 * consolidate.c - write a page's merged form to the log, so that its fragments' records die.
 *
 * WORD   the page's slot.
 * EDGES  step                        who          order         pairs        if it loses
 *   C1   chain -> consolidated base    any thread   CAS acq_rel   every load   abort, build anew; after
 *                                                                              a few losses leave it deep
 * INVARIANTS
 *   I1 the record carries the page's version: consolidation never changes it (P3).
 *   I2 between merging and C1 the read section is left once, for admission. Afterwards the head
 *      must still be of the lsn that was merged: an lsn belongs to one record for all time, so the
 *      same lsn means the same content, whatever its form (merged in memory, read back) and
 *      whatever its address.
 *   I3 as update.c I1: the head is loaded again before the reservation, so it is older.
 * LIFETIME what C1 unlinks is retired; its records are charged dead with our lsn.
 * PROGRESS lock-free but for admission; a page that moves is tried CONSOLIDATE_TRIES times, then
 *          left deep.
 * FAILURE  MERGE, NO_MEMORY, NO_SPACE, CORRUPT: the chain stays as it is.
 * NOT HERE the merged form in memory only (read.c).   REFS Bw-tree (2013), section on consolidation.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

/* Waiting pages are merged in company; a page this much deeper than fragments_max at once. */
#define CONSOLIDATE_SLACK 4u
#define PAGE_IN_TRIES 8
#define CONSOLIDATE_TRIES 4

/* What ctx->chain holds, merged, in a private node. */
static int
consolidate_merge(struct scree__context *ctx, scree_page_id id, struct scree__node **node_out)
{
    struct scree__chain *chain = &ctx->chain;
    scree_slice page = chain->base;
    uint8_t kind = NODE_BASE;
    struct scree__node *node;

    if (chain->n > 0) {
        int rc = scree__chain_merge(ctx, id, chain);

        if (rc != 0)
            return rc;
        page = (scree_slice){ctx->out.data, ctx->out.len};
    } else if (page.data == NULL) {
        kind = NODE_EMPTY;
    } /* else merged in memory already, or one record */
    node = scree__node_new(ctx, kind, page.len, 1);
    if (node == NULL)
        return SCREE_E_NO_MEMORY;
    if (page.len > 0)
        memcpy(node->payload, page.data, page.len);
    node->version = chain->version;
    node->lsn = chain->lsn; /* what was merged, until it has a record of its own */
    *node_out = node;
    return 0;
}

/* The merged page, private, for the slot as it is. *node_out NULL with 0: fewer records than depth_min. */
static int
consolidate_build(struct scree__context *ctx, scree_page_id id, struct scree__radix_ref ref,
                  uint64_t depth_min, struct scree__node **node_out)
{
    struct scree__chain *chain = &ctx->chain;
    int rc = 0;

    *node_out = NULL;
    for (unsigned tries = 0; rc == 0 && tries < PAGE_IN_TRIES; tries++) {
        uint64_t word;

        rc = scree__slot_load(ctx, ref, &word);
        if (rc != 0 || slot_tag(word) == SLOT_FREE || slot_depth(word) < depth_min)
            return rc;
        rc = scree__chain_collect(ctx, ref, word, chain);
        if (rc != 0)
            return rc == SCREE_E_BUSY ? 0 : rc;
        if (scree__chain_is_cold(chain)) {
            rc = scree__page_in(ctx, id, ref, word);
            continue;
        }
        return consolidate_merge(ctx, id, node_out);
    }
    return rc;
}

/* Reserve and install, in a read section; 0 with *installed_out false: the page moved. */
static int
consolidate_install(struct scree__context *ctx, struct scree__radix_ref ref,
                    struct scree__node *node, struct scree__record *r, bool *installed_out)
{
    struct scree__log *log = ctx->cache->log;
    /* Acquire: the head's lsn. Before the reservation: I3. */
    uint64_t word = atomic_load_explicit(scree__radix_word(ref), memory_order_acquire);
    uint64_t seen = word, version;
    uint32_t evicted_len;
    int rc;

    *installed_out = false;
    if (slot_tag(word) == SLOT_FREE || slot_tag(word) == SLOT_BATCH || /* it moves */
#ifndef SCREE_BUG_CONSOLIDATE_STALE /* seeded: without what came meanwhile; sched_pairs must fail */
        scree__slot_lsn(word) != node->lsn || /* I2 */
#endif
        !scree__slot_version(ref, word, &version, &evicted_len))
        return 0;
    if (!scree__retire_ready(ctx))
        return SCREE_E_NO_MEMORY;
    rc = scree__record_write(ctx, r);
    if (rc != 0)
        return rc;
    node->lsn = r->lsn;
    node->disk_len = r->disk_len;
    SCREE_YIELD_POINT();
    /* C1. Release: the node. */
    if (!atomic_compare_exchange_strong_explicit(scree__radix_word(ref), &seen,
                                                 slot_from_node(node, 1), memory_order_acq_rel,
                                                 memory_order_relaxed)) { /* LP */
        scree__log_abort(log, ctx->writer, r);
        return 0;
    }
    scree__log_complete(log, ctx->writer);
    scree__slot_supersede(ctx, word, evicted_len, r->lsn);
    *installed_out = true;
    return 0;
}

int
scree__consolidated_install(struct scree__context *ctx, struct scree__radix_ref ref,
                            struct scree__node *node, struct scree__record *r,
                            enum scree__log_class class, bool *installed_out)
{
    int rc = scree__log_admit(ctx->cache->log, ctx->writer, r->disk_len, class,
                              scree__context_may_wait(ctx));

    *installed_out = false;
    if (rc == 0) {
        scree__rcu_enter();
        rc = consolidate_install(ctx, ref, node, r, installed_out);
        scree__rcu_leave();
    }
    if (!*installed_out)
        scree__node_discard(ctx, node);
    else if (class == SCREE__LOG_RELIEF)
        scree__count(ctx, COUNT_CONSOLIDATIONS, 1);
    else
        scree__count(ctx, COUNT_CLEANED_BYTES, r->disk_len);
    return rc;
}

static int
consolidate_try(struct scree__context *ctx, scree_page_id id, struct scree__radix_ref ref,
                uint64_t depth_min, enum scree__log_class class, bool *done_out)
{
    struct scree__record r;
    struct scree__node *node;
    int rc;

    scree__rcu_enter();
    rc = consolidate_build(ctx, id, ref, depth_min, &node);
    scree__rcu_leave();
    *done_out = node == NULL;
    if (node == NULL)
        return rc;
    /* I1 */
    scree__record_page(ctx, &r, SCREE__RECORD_CONSOLIDATED, id, node->version, node->payload,
                       node->payload_len);
    if (node->kind == NODE_EMPTY)
        r.flags |= SCREE__RECORD_NO_BASE;
    return scree__consolidated_install(ctx, ref, node, &r, class, done_out);
}

static int
consolidate(struct scree__context *ctx, scree_page_id id, uint64_t depth_min,
            enum scree__log_class class)
{
    struct scree__radix_ref ref = scree__radix_find(&ctx->cache->radix, id);
    uint64_t begin = scree__phase_begin(ctx);
    bool done = ref.leaf == NULL;
    int rc = 0;

    for (unsigned tries = 0; rc == 0 && !done && tries < CONSOLIDATE_TRIES; tries++)
        rc = consolidate_try(ctx, id, ref, depth_min, class, &done);
    scree__phase_end(ctx, PHASE_CONSOLIDATE, begin);
    return rc;
}

int
scree__consolidate(struct scree__context *ctx, scree_page_id id)
{
    return consolidate(ctx, id, 2, SCREE__LOG_RELIEF);
}

int
scree__page_move(struct scree__context *ctx, scree_page_id id)
{
    return consolidate(ctx, id, 1, SCREE__LOG_CLEAN);
}

void
scree__consolidate_note(struct scree__context *ctx, scree_page_id id, uint64_t depth)
{
    uint64_t limit = ctx->cache->options.fragments_max + 1u; /* fragments on a base */

    if (depth <= limit)
        return;
    if (depth > limit + CONSOLIDATE_SLACK) {
        /* A failed merge is told by get, by the next append beyond the cap, never by this one. */
        (void)scree__consolidate(ctx, id);
        return;
    }
    for (uint32_t i = 0; i < ctx->consolidate_n; i++)
        if (ctx->consolidate[i] == id)
            return;
    ctx->consolidate[ctx->consolidate_n++] = id;
    if (ctx->consolidate_n < CONSOLIDATE_LIST)
        return;
    scree__rcu_enter();
    scree__pages_prefetch(ctx, ctx->consolidate, CONSOLIDATE_LIST);
    scree__rcu_leave();
    for (uint32_t i = 0; i < CONSOLIDATE_LIST; i++)
        (void)scree__consolidate(ctx, ctx->consolidate[i]);
    ctx->consolidate_n = 0;
}
