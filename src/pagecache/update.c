/*
 * update.c - set, merge, append, put, free: change a page by compare-and-swap, log first.
 *
 * WORD   the page's slot.
 * STEPS  admission (disk credit, memory; may wait) -> read section: load the slot, check the
 *        version -> reserve and fill the record -> U1 -> complete (or abort) -> account for what
 *        died.
 * EDGES  step                               who          order            pairs         if it loses
 *   U1   head -> delta on head, base, free  any updater  CAS acq_rel      every load    classify: freed, other
 *                                                                                       version:
 *          abort and tell; library work: U2
 *   U2   try again with the same record     the loser    -                U1            only if the new head's
 *                                                                                       lsn is
 *          below our own
 * INVARIANTS
 *   I1 along a page's history lsns grow: U1 succeeds only on a head whose newest record is older
 *      than ours. A head loaded before the reservation is older by itself (the tail only grows, and
 *      a record is reserved before it is installed); after a lost U1 the new head's lsn is
 *      compared. So replay, in log order, sees the order memory saw.
 *   I2 a reservation is open over U1, so the flusher does not pass the record, nor a snapshot its
 *      replay start, before memory and log agree about it.
 *   I3 the version of a page is the end lsn of its newest user record: unique for all time (P3).
 * LIFETIME the old head was loaded in this read section, so its address cannot come back: no ABA in
 *          U1. What U1 unlinks is retired (fragment.c) and its records are charged dead with our
 *          lsn.
 * PROGRESS U1 loses only to somebody's success. Admission may wait for the flusher (bounded memory
 *          and disk).
 * FAILURE  before the reservation: nothing happened. POISONED from the reservation: nothing
 *          happened.
 * NOT HERE new pages (allocate.c), consolidation (consolidate.c), the log's side (log/ring.c).
 * REFS     LLAMA (Levandoski et al., 2013); Bw-tree (2013).
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

/* A chain whose fragments cannot be merged grows no longer than this. */
#define CHAIN_DEPTH_MAX 4096u

#define AGAIN 1 /* internal: leave the read section, be admitted anew, try again */

struct update {
    scree_page_id id;
    uint8_t kind; /* SCREE__RECORD_SET, _DELTA, _FREE */
    bool blind;   /* whatever the version */
    scree_version expected;
    scree_slice payload;
    struct scree__record record;
    struct scree__node *node;  /* to install; NULL for a free */
    struct scree__node *ghost; /* under a delta on an evicted page */
    scree_version current;     /* out */
    uint64_t depth;            /* out: of the page after us */
};

/* The nodes to install, made before the reservation: no allocation while one is open. */
static int
update_prepare(struct scree__context *ctx, struct update *u)
{
    bool delta = u->kind == SCREE__RECORD_DELTA;

    if (u->kind == SCREE__RECORD_FREE) {
        u->record = (struct scree__record){.kind = u->kind, .page = u->id};
        scree__record_prepare(&u->record);
        return 0;
    }
    u->node = scree__node_new(ctx, delta ? NODE_DELTA : NODE_BASE, u->payload.len, 1);
    if (u->node == NULL)
        return SCREE_E_NO_MEMORY;
    if (u->payload.len > 0)
        memcpy(u->node->payload, u->payload.data, u->payload.len);
    if (delta) {
        u->record = (struct scree__record){.kind = u->kind,
                                           .page = u->id,
                                           .payload = u->node->payload,
                                           .payload_len = u->node->payload_len};
        scree__record_prepare(&u->record);
    } else {
        scree__record_page(ctx, &u->record, u->kind, u->id, 0, u->node->payload, u->payload.len);
    }
    return 0;
}

static int
conflict(struct scree__context *ctx, struct update *u, scree_version current)
{
    u->current = current;
    scree__count(ctx, COUNT_CONFLICTS, 1);
    return scree__fail(
        SCREE_E_CONFLICT, "page %llu is at version %llu, not %llu; read it again and retry",
        (unsigned long long)u->id, (unsigned long long)current, (unsigned long long)u->expected);
}

/* May the update go on top of this word? 0, AGAIN (the slot moved: load it again), or an error. */
static int
update_check(struct scree__context *ctx, struct update *u, struct scree__radix_ref ref,
             uint64_t word, uint32_t *evicted_len_out)
{
    scree_version version = 0;

    *evicted_len_out = 0;
    if (slot_tag(word) == SLOT_FREE)
        return scree__fail(SCREE_E_NOT_FOUND, "page %llu is not live", (unsigned long long)u->id);
    if (slot_tag(word) == SLOT_BATCH)
        return AGAIN; /* helped before the next reservation */
    if (u->blind && slot_tag(word) == SLOT_NODE)
        return 0; /* the old head, a cold line, is not touched */
    if (!scree__slot_version(ref, word, &version, evicted_len_out))
        return AGAIN;
    if (VERSIONS_COUNT && !u->blind && version != u->expected)
        return conflict(ctx, u, version);
    return 0;
}

/* The word to install over `word`; 0 if it needs a ghost that was not made. */
static uint64_t
update_word(struct update *u, uint64_t word, uint32_t evicted_len, scree_version old_version)
{
    struct scree__node *below = slot_tag(word) == SLOT_NODE ? slot_node(word) : u->ghost;

    if (u->kind == SCREE__RECORD_FREE)
        return slot_from_free(u->record.lsn);
    u->node->lsn = u->record.lsn;
    u->node->version = u->record.version;
    u->node->disk_len = u->record.disk_len;
    if (u->kind == SCREE__RECORD_SET)
        return slot_from_node(u->node, 1);
    if (below == NULL)
        return 0;
    if (slot_tag(word) == SLOT_EVICTED) {
        below->lsn = slot_evicted_lsn(word);
        below->disk_len = evicted_len;
        below->version = old_version;
    }
    u->node->next = below;
    u->depth = slot_depth(word) + 1;
    return slot_from_node(u->node, u->depth);
}

/* With the record reserved: U1, and U2 as often as library work gets in the way. */
static int
update_install(struct scree__context *ctx, struct update *u, struct scree__radix_ref ref,
               uint64_t *word, uint32_t *evicted_len)
{
    scree_version old_version = 0;
    int rc = 0;

    if (slot_tag(*word) == SLOT_EVICTED &&
        !scree__slot_version(ref, *word, &old_version, evicted_len))
        return AGAIN;
    for (;;) {
        uint64_t next = update_word(u, *word, *evicted_len, old_version);

        if (next == 0)
            return AGAIN;
        SCREE_YIELD_POINT();
        /* U1. Release: the node. Acquire: the head we lost to. */
        if (atomic_compare_exchange_strong_explicit(scree__radix_word(ref), word, next,
                                                    memory_order_acq_rel,
                                                    memory_order_acquire)) /* LP */
            return 0;
        rc = update_check(ctx, u, ref, *word, evicted_len);
        if (rc != 0)
            return rc;
#ifndef SCREE_BUG_RETRY_UNORDERED /* seeded: log and memory differ; sched_pairs must fail */
        if (scree__slot_lsn(*word) >= u->record.lsn)
            return AGAIN; /* I1 */
#endif
        if (slot_tag(*word) == SLOT_EVICTED)
            return AGAIN; /* rare: its side word is read anew */
    }
}

/* One attempt in one read section. */
static int
update_try(struct scree__context *ctx, struct update *u, struct scree__radix_ref ref)
{
    struct scree__log *log = ctx->cache->log;
    uint32_t evicted_len = 0;
    uint64_t word;
    int rc = scree__slot_load(ctx, ref, &word); /* the head's version; before the reservation: I1 */

    if (rc == 0 && !(u->blind && slot_tag(word) == SLOT_NODE)) /* or whatever the head is will do */
        rc = update_check(ctx, u, ref, word, &evicted_len);
    if (rc != 0)
        return rc;
    if (u->kind != SCREE__RECORD_DELTA && !scree__retire_ready(ctx))
        return SCREE_E_NO_MEMORY;
    if (u->kind == SCREE__RECORD_DELTA && slot_tag(word) == SLOT_EVICTED && u->ghost == NULL) {
        u->ghost = scree__node_new(ctx, NODE_GHOST, 0, 1);
        if (u->ghost == NULL)
            return SCREE_E_NO_MEMORY;
    }
    rc = scree__record_write(ctx, &u->record);
    if (rc != 0)
        return rc;
    rc = update_install(ctx, u, ref, &word, &evicted_len);
    if (rc != 0) {
        scree__log_abort(log, ctx->writer, &u->record);
        return rc;
    }
    scree__log_complete(log, ctx->writer);
    if (u->kind == SCREE__RECORD_FREE) /* recovery to the present state does not need it */
        scree__log_charge_dead(log, u->record.lsn, u->record.disk_len, u->record.lsn);
    if (u->kind != SCREE__RECORD_DELTA)
        scree__slot_supersede(ctx, word, evicted_len, u->record.lsn);
    else if (slot_tag(word) == SLOT_EVICTED)
        u->ghost = NULL; /* it is part of the page now */
    u->node = NULL;
    u->current = u->record.version;
    return 0;
}

static int
update_admit(struct scree__context *ctx, const struct update *u)
{
    enum scree__log_class class =
        u->kind == SCREE__RECORD_FREE ? SCREE__LOG_RELIEF : SCREE__LOG_USER;

    return scree__log_admit(ctx->cache->log, ctx->writer, u->record.disk_len, class,
                            !scree__rcu_inside());
}

static bool
too_deep(struct scree__radix_ref ref)
{
    return slot_depth(scree__slot_glance(ref)) >= CHAIN_DEPTH_MAX;
}

int
scree__depth_bound(struct scree__context *ctx, scree_page_id id, struct scree__radix_ref ref)
{
    int rc = 0;

    /* Nobody appends beyond it, so the first one to get through ends it for all. */
    while (rc == 0 && too_deep(ref))
        rc = scree__consolidate(ctx, id);
    return rc;
}

/* Too deep for one more: shorter first. That uses the same buffers, so the record is prepared anew. */
static __attribute__((noinline, cold)) int
update_shorten(struct scree__context *ctx, struct update *u, struct scree__radix_ref ref)
{
    int rc;

    scree__node_discard(ctx, u->node);
    u->node = NULL;
    rc = scree__depth_bound(ctx, u->id, ref);
    return rc == 0 ? update_prepare(ctx, u) : rc;
}

static int
update_run(struct scree__context *ctx, struct update *u)
{
    struct scree__radix_ref ref = scree__radix_find(&ctx->cache->radix, u->id);
    int rc;

    if (ref.leaf == NULL)
        return scree__fail(SCREE_E_NOT_FOUND, "page %llu is not live", (unsigned long long)u->id);
    /* A slot that was not used lately is as far as memory is; the record can be made meanwhile. */
    scree__radix_word_prefetch(ref);
    /* It may consolidate other pages, with the same buffers: before our record is prepared. */
    if (u->kind != SCREE__RECORD_FREE)
        scree__memory_admit(ctx);
    rc = update_prepare(ctx, u);
    if (rc == 0 && u->kind == SCREE__RECORD_DELTA && too_deep(ref))
        rc = update_shorten(ctx, u, ref);
    if (rc != 0)
        return rc;
    do {
        rc = update_admit(ctx, u);
        if (rc != 0)
            break;
        scree__rcu_enter();
        rc = update_try(ctx, u, ref);
        scree__rcu_leave();
        if (rc == AGAIN)
            scree__count(ctx, COUNT_RETRIES, 1);
    } while (rc == AGAIN);
    scree__node_discard(ctx, u->node);
    scree__node_discard(ctx, u->ghost);
    return rc;
}

static int
update(scree_cache *cache, struct update *u, enum scree__counter counter)
{
    struct scree__context *ctx;
    int rc = scree__enter_call(cache, &ctx);

    if (rc == 0)
        rc = scree__check_update(cache, u->id, u->payload);
    if (rc != 0)
        return rc;
    rc = update_run(ctx, u);
    if (rc != 0)
        return rc;
    scree__count(ctx, counter, 1);
    scree__count(ctx, COUNT_USER_BYTES, u->payload.len);
    if (u->kind == SCREE__RECORD_DELTA)
        scree__consolidate_note(ctx, u->id, u->depth);
    return 0;
}

static int
update_versioned(scree_cache *cache, const char *call, struct update *u, scree_version *version,
                 enum scree__counter counter)
{
    int rc;

    if (version == NULL)
        return scree__fail(SCREE_E_INVALID, "%s: version is NULL", call);
    u->expected = *version;
    rc = update(cache, u, counter);
    if (rc == 0 || rc == SCREE_E_CONFLICT)
        *version = u->current;
    return rc;
}

int
scree_page_set(scree_cache *cache, scree_page_id id, scree_version *version, scree_slice page)
{
    struct update u = {.id = id, .kind = SCREE__RECORD_SET, .payload = page};

    return update_versioned(cache, "scree_page_set", &u, version, COUNT_SETS);
}

int
scree_page_merge(scree_cache *cache, scree_page_id id, scree_version *version, scree_slice fragment)
{
    struct update u = {.id = id, .kind = SCREE__RECORD_DELTA, .payload = fragment};

    return update_versioned(cache, "scree_page_merge", &u, version, COUNT_MERGES);
}

int
scree_page_free(scree_cache *cache, scree_page_id id, scree_version *version)
{
    struct update u = {.id = id, .kind = SCREE__RECORD_FREE};
    int rc;

    if (id == SCREE_PAGE_ROOT)
        return scree__fail(SCREE_E_INVALID, "scree_page_free: the root page is never freed");
    rc = update_versioned(cache, "scree_page_free", &u, version, COUNT_FREES);
    if (rc == 0)
        scree__id_freed(cache, id, u.record.lsn);
    return rc;
}

int
scree_page_append(scree_cache *cache, scree_page_id id, scree_slice fragment,
                  scree_version *version_out)
{
    struct update u = {.id = id, .kind = SCREE__RECORD_DELTA, .blind = true, .payload = fragment};
    int rc = update(cache, &u, COUNT_APPENDS);

#ifdef SCREE_BUG_APPEND_UNDONE
    rc = rc == SCREE_E_NO_MEMORY ? 0 : rc; /* seeded: nobody hears of it; fault_alloc must fail */
#endif
    if (version_out != NULL)
        *version_out = u.current;
    return rc;
}

int
scree_page_put(scree_cache *cache, scree_page_id id, scree_slice page, scree_version *version_out)
{
    struct update u = {.id = id, .kind = SCREE__RECORD_SET, .blind = true, .payload = page};
    int rc = update(cache, &u, COUNT_SETS);

    if (version_out != NULL)
        *version_out = u.current;
    return rc;
}
