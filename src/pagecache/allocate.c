/*
 * allocate.c - page ids: fresh ones, freed ones after their grace period, and ones the caller
 * chose.
 *
 * WORD   the slot of the id; cache.cooled_lsn (reclaim.c).
 * EDGES  step                        who          order         pairs                if it loses
 *   A1   free word -> base or empty  any thread   CAS acq_rel   every load           another id, or CONFLICT
 *   A2   is a free word cool?        any thread   load acquire  R4 of reclaim.c      busy, or another id
 * INVARIANTS
 *   I1 a free word holds the lsn of its free; A1 expects exactly the word that A2 found cool, so an
 *      allocate that slept over another life of the id loses.
 *   I2 the free word was loaded before the reservation, so our lsn is above it (update.c I1).
 *   I3 ids up to id_high have been handed out in sequence; those of them that are not live are
 *      free. An id that was chosen above id_high does not raise it: its record says so
 *      (SCREE__RECORD_CHOSEN_ID).
 * LIFETIME candidates are only hints: A1 decides. A stale or double candidate is dropped.
 * PROGRESS id_mutex is held for short list work, once in ID_CACHE allocations and once a free.
 * FAILURE  no memory to remember a freed id: it is found again after the next open. No memory, no
 *          space: nothing happened.
 * NOT HERE free itself (update.c).   REFS none.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

#define AGAIN 1
#define ALLOCATE_TRIES 100000u
#define GAP_LOOKS 4096u /* ids looked at under the mutex at a time */

void
scree__id_freed(scree_cache *cache, scree_page_id id, uint64_t lsn)
{
    pthread_mutex_lock(&cache->id_mutex);
    if (id > cache->id_gap && id <= cache->id_gap_end) { /* will be met there: not a second time */
        pthread_mutex_unlock(&cache->id_mutex);
        return;
    }
    if (cache->freed_n == cache->freed_cap) {
        size_t cap = cache->freed_cap == 0 ? 64 : cache->freed_cap * 2;
        struct scree__freed_id *ring = scree__alloc(cap * sizeof *ring);

        for (size_t i = 0; ring != NULL && i < cache->freed_n; i++)
            ring[i] = cache->freed[(cache->freed_head + i) % cache->freed_cap];
        if (ring != NULL) {
            scree__free(cache->freed, cache->freed_cap * sizeof *ring);
            cache->freed = ring;
            cache->freed_cap = cap;
            cache->freed_head = 0;
        }
    }
    if (cache->freed_n < cache->freed_cap) {
        size_t at = (cache->freed_head + cache->freed_n++) % cache->freed_cap;

        cache->freed[at] = (struct scree__freed_id){.id = id, .lsn = lsn};
    }
    pthread_mutex_unlock(&cache->id_mutex);
}

void
scree__ids_return(struct scree__context *ctx)
{
    while (ctx->id_n > 0)
        scree__id_freed(ctx->cache, ctx->id[--ctx->id_n], 0);
}

/* Under id_mutex: ids that were free when the cache was opened, leaf by leaf. */
static void
ids_from_gaps(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;

    for (unsigned looked = 0;
         looked < GAP_LOOKS && ctx->id_n < ID_CACHE && cache->id_gap < cache->id_gap_end;
         looked++) {
        scree_page_id id = ++cache->id_gap;
        struct scree__radix_ref ref = scree__radix_find(&cache->radix, id);

        /* Relaxed: a candidate only. */
        if (ref.leaf == NULL || slot_tag(atomic_load_explicit(scree__radix_word(ref),
                                                              memory_order_relaxed)) == SLOT_FREE)
            ctx->id[ctx->id_n++] = id;
    }
}

static int
ids_refill(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    uint64_t cooled = atomic_load_explicit(&cache->cooled_lsn, memory_order_acquire); /* A2 */
    bool waiting;

    pthread_mutex_lock(&cache->id_mutex);
    while (ctx->id_n < ID_CACHE && cache->freed_n > 0 &&
           cache->freed[cache->freed_head].lsn < cooled) {
        ctx->id[ctx->id_n++] = cache->freed[cache->freed_head].id;
        cache->freed_head = (cache->freed_head + 1) % cache->freed_cap;
        cache->freed_n--;
    }
    ids_from_gaps(ctx);
    waiting = cache->freed_n > 0;
    while (ctx->id_n < ID_CACHE && cache->id_high < UINT64_MAX)
        ctx->id[ctx->id_n++] = ++cache->id_high;
    pthread_mutex_unlock(&cache->id_mutex);
    if (waiting)
        scree__reclaimer_wake(cache);
    return ctx->id_n > 0 ? 0 : scree__fail(SCREE_E_NO_SPACE, "every page id is in use");
}

int
scree__id_take(struct scree__context *ctx, scree_page_id *id_out)
{
    scree_cache *cache = ctx->cache;

    for (unsigned tries = 0; tries < ALLOCATE_TRIES; tries++) {
        int rc = ctx->id_n > 0 ? 0 : ids_refill(ctx);
        scree_page_id id = rc == 0 ? ctx->id[--ctx->id_n] : 0;
        struct scree__radix_ref ref;
        uint64_t word;

        if (rc != 0)
            return rc;
        ref = scree__radix_make(&cache->radix, id);
        if (ref.leaf == NULL) {
            scree__id_freed(cache, id, 0);
            return scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
        }
        scree__rcu_enter();
        word = scree__slot_peek(ref);
        scree__rcu_leave();
        if (slot_tag(word) != SLOT_FREE)
            continue; /* somebody chose it */
        if (slot_free_lsn(word) == 0 ||
            slot_free_lsn(word) < atomic_load_explicit(&cache->cooled_lsn, memory_order_acquire)) {
            *id_out = id; /* A2 */
            return 0;
        }
        scree__id_freed(cache, id, scree__log_tail(cache->log)); /* not cool: to the end */
    }
    return scree__fail(SCREE_E_BUSY, "no free page id was found; try again");
}

struct allocation {
    scree_page_id id;
    struct scree__node *node;
    struct scree__record record;
};

/* A1 for one id. AGAIN: it is not free, or not any more. */
static int
allocate_try(struct scree__context *ctx, struct allocation *a, struct scree__radix_ref ref)
{
    scree_cache *cache = ctx->cache;
    /* Acquire: whatever its former life left is over. */
    uint64_t word = atomic_load_explicit(scree__radix_word(ref), memory_order_acquire);
    uint64_t cooled = atomic_load_explicit(&cache->cooled_lsn, memory_order_acquire); /* A2 */
    int rc;

    if (slot_tag(word) != SLOT_FREE)
        return AGAIN;
#ifdef SCREE_BUG_ALLOCATE_WARM /* seeded: no grace period; sched_pairs must fail */
    cooled = SCREE__LSN_NONE;
#endif
    if (slot_free_lsn(word) != 0 && slot_free_lsn(word) >= cooled)
        return SCREE_E_BUSY;
    rc = scree__record_write(ctx, &a->record);
    if (rc != 0)
        return rc;
    a->node->lsn = a->record.lsn;
    a->node->version = a->record.version;
    a->node->disk_len = a->record.disk_len;
    SCREE_YIELD_POINT();
    /* A1 */
    if (!atomic_compare_exchange_strong_explicit(scree__radix_word(ref), &word,
                                                 slot_from_node(a->node, 1), memory_order_acq_rel,
                                                 memory_order_relaxed)) { /* LP */
        scree__log_abort(cache->log, ctx->writer, &a->record);
        return AGAIN;
    }
    scree__log_complete(cache->log, ctx->writer);
    a->node = NULL;
    return 0;
}

/* Admission, read section, A1. */
static int
allocate_run(struct scree__context *ctx, struct allocation *a, scree_slice initial, uint8_t flags)
{
    struct scree__radix_ref ref = scree__radix_make(&ctx->cache->radix, a->id);
    int rc;

    if (ref.leaf == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
    scree__memory_admit(
        ctx); /* may consolidate, with the same buffers: before the record is prepared */
    scree__record_page(ctx, &a->record, SCREE__RECORD_ALLOCATE, a->id, 0, a->node->payload,
                       initial.len);
    a->record.flags |= flags;
    rc = scree__log_admit(ctx->cache->log, ctx->writer, a->record.disk_len, SCREE__LOG_USER,
                          !scree__rcu_inside());
    if (rc != 0)
        return rc;
    scree__rcu_enter();
    rc = allocate_try(ctx, a, ref);
    scree__rcu_leave();
    return rc;
}

static int
allocate_node(struct scree__context *ctx, struct allocation *a, scree_slice initial)
{
    a->node = scree__node_new(ctx, initial.len == 0 ? NODE_EMPTY : NODE_BASE, initial.len, 1);
    if (a->node == NULL)
        return SCREE_E_NO_MEMORY;
    if (initial.len > 0)
        memcpy(a->node->payload, initial.data, initial.len);
    return 0;
}

static void
allocate_done(struct scree__context *ctx, const struct allocation *a, scree_slice initial,
              scree_page_id *id_out, scree_version *version_out)
{
    scree__count(ctx, COUNT_ALLOCATES, 1);
    scree__count(ctx, COUNT_USER_BYTES, initial.len);
    if (id_out != NULL)
        *id_out = a->id;
    if (version_out != NULL)
        *version_out = a->record.version;
}

int
scree_page_allocate(scree_cache *cache, scree_slice initial, scree_page_id *id_out,
                    scree_version *version_out)
{
    struct allocation a = {0};
    struct scree__context *ctx;
    int rc = scree__enter_call(cache, &ctx);

    if (id_out != NULL)
        *id_out = 0;
    if (version_out != NULL)
        *version_out = 0;
    if (rc == 0)
        rc = scree__check_update(cache, SCREE_PAGE_ROOT, initial);
    if (rc == 0)
        rc = allocate_node(ctx, &a, initial);
    if (rc != 0)
        return rc;
    for (unsigned tries = 0; tries < ALLOCATE_TRIES; tries++) {
        rc = ctx->id_n > 0 ? 0 : ids_refill(ctx);
        if (rc != 0)
            break;
        a.id = ctx->id[--ctx->id_n];
        rc = allocate_run(ctx, &a, initial, 0);
        if (rc == SCREE_E_BUSY)
            scree__id_freed(cache, a.id, scree__log_tail(cache->log)); /* not cool: to the end */
        else if (rc != 0 && rc != AGAIN)
            scree__id_freed(cache, a.id, 0); /* the id is as good as it was */
        if (rc != SCREE_E_BUSY && rc != AGAIN)
            break;
    }
    if (rc == 0)
        allocate_done(ctx, &a, initial, id_out, version_out);
    else if (rc == AGAIN)
        rc = scree__fail(SCREE_E_BUSY, "no free page id was found; try again");
    scree__node_discard(ctx, a.node);
    return rc;
}

/* Of a page that was live a moment ago; 0 if it is not now. */
static scree_version
live_version(struct scree__context *ctx, scree_page_id id)
{
    struct scree__radix_ref ref = scree__radix_find(&ctx->cache->radix, id);
    scree_version version = 0;
    uint64_t word;
    uint32_t len;
    int rc;

    scree__rcu_enter();
    do /* retried only when somebody moved the slot; helped, as an evicted word has to be in it */
        rc = scree__slot_load(ctx, ref, &word);
    while (rc == 0 && !scree__slot_version(ref, word, &version, &len));
    scree__rcu_leave();
    return version;
}

/* The id was not free, or not free for long enough: which of the two, in words. */
static int
allocate_at_refused(struct scree__context *ctx, scree_page_id id, int rc,
                    scree_version *version_out)
{
    scree_version version = rc == AGAIN ? live_version(ctx, id) : 0;

    if (version != 0) {
        if (version_out != NULL)
            *version_out = version;
        return scree__fail(SCREE_E_CONFLICT, "page %llu is live at version %llu",
                           (unsigned long long)id, (unsigned long long)version);
    }
    scree__reclaimer_wake(ctx->cache);
    return scree__fail(SCREE_E_BUSY,
                       "page %llu was freed a moment ago and a read guard may still see it; try "
                       "again",
                       (unsigned long long)id);
}

int
scree_page_allocate_at(scree_cache *cache, scree_page_id id, scree_slice initial,
                       scree_version *version_out)
{
    struct allocation a = {.id = id};
    struct scree__context *ctx;
    int rc = scree__enter_call(cache, &ctx);

    if (version_out != NULL)
        *version_out = 0;
    if (rc == 0)
        rc = scree__check_update(cache, id, initial);
    if (rc == 0)
        rc = allocate_node(ctx, &a, initial);
    if (rc != 0)
        return rc;
    rc = allocate_run(ctx, &a, initial, SCREE__RECORD_CHOSEN_ID);
    scree__node_discard(ctx, a.node);
    if (rc == 0)
        allocate_done(ctx, &a, initial, NULL, version_out);
    else if (rc == AGAIN || rc == SCREE_E_BUSY)
        rc = allocate_at_refused(ctx, id, rc, version_out);
    return rc;
}

int
scree__root_ensure(scree_cache *cache)
{
    struct scree__radix_ref ref = scree__radix_make(&cache->radix, SCREE_PAGE_ROOT);
    scree_slice none = {NULL, 0};

    if (ref.leaf == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
    /* Relaxed: recovery is over and no other thread is here yet. */
    if (slot_tag(atomic_load_explicit(scree__radix_word(ref), memory_order_relaxed)) != SLOT_FREE)
        return 0;
    return scree_page_allocate_at(cache, SCREE_PAGE_ROOT, none, NULL);
}
