/*
 * generator.c - scree_id_next: ids that are unique and grow, also across crashes, without a log record each.
 *
 * Ids are handed out of one growing sequence. A log record (ID_RANGE) says how far it may go; the ids that the
 * record covers are handed out when it is stable, not before.
 *
 * WORDS  next: the next id. limit: ids below it are covered by stable records. asked: the end of the record
 *        of a range that is not yet below limit; 0: there is none.
 * EDGES  step                                     who               order                    pairs  if it loses
 *   N1   next -> next + 1, next < limit  LP       any thread        CAS relaxed              -      reload
 *   N2   limit grows; asked -> 0                  under gen mutex   store release            N3
 *   N3   limit                                    any thread        load acquire             N2
 *   N4   asked -> end of a record                 under gen mutex   store relaxed            -
 * INVARIANTS
 *   I1 limit - 1 <= the largest mark of a stable record, or that the last open found: what a crash leaves of
 *      the log has it, so the next open begins above every id ever handed out.
 *   I2 limit <= high + 1: high is the mark of the newest record, stable or not. high is set before the
 *      record is complete, so a snapshot that reads it when all below its replay start is settled knows
 *      every record below (checkpoint.c C1), and replay finds the others.
 *   I3 at most one range is asked for beyond the present one, and only when that is used up does it become the
 *      present one: a crash leaves a gap of two ranges at most.
 * LIFETIME  as the cache. A record is dead when it is written: snapshots carry the mark.
 * PROGRESS  N1 retries only when another N1 succeeded. When half of a range is used the next one is asked for,
 *           so that it is stable when it is needed; else callers wait for the flusher. The mutex is held
 *           over a reservation (which waits for the flusher at most), never over admission.
 * FAILURE   no room, or poison: the call fails and no id is lost. Failing to ask ahead is nobody's failure.
 * NOT HERE  page ids (allocate.c).   REFS none.
 */
#include "pagecache/pagecache_private.h"

#define RANGE_MIN ((uint64_t)64)
#define RANGE_MAX SCREE__GENERATED_RANGE_MAX

#ifdef SCREE_BUG_ID_BEFORE_STABLE
#define STABLE_COUNTS false /* seeded bug: tests must notice */
#else
#define STABLE_COUNTS true
#endif

/* N1. False: the range is used up. */
static bool
generator_take(struct scree__generator *g, uint64_t *id_out)
{
    uint64_t id = atomic_load_explicit(&g->next, memory_order_relaxed); /* the CAS re-checks */

    while (id < atomic_load_explicit(&g->limit, memory_order_acquire)) { /* N3 */
        SCREE_YIELD_POINT();
        /* Relaxed: an id carries nothing, and one word's changes have one order. */
        if (atomic_compare_exchange_weak_explicit(&g->next, &id, id + 1, memory_order_relaxed,
                                                  memory_order_relaxed)) { /* LP */
            *id_out = id;
            return true;
        }
    }
    return false;
}

/* N2, if the range is used up (I3) and the next one's record is stable by now. Under the mutex. */
static void
range_publish(scree_cache *cache)
{
    struct scree__generator *g = &cache->generator;
    uint64_t asked = atomic_load_explicit(&g->asked, memory_order_relaxed); /* the mutex */
    uint64_t limit = atomic_load_explicit(&g->limit, memory_order_relaxed);

    if (atomic_load_explicit(&g->next, memory_order_relaxed) < limit || asked == 0 ||
        (STABLE_COUNTS && scree__log_stable(cache->log) < asked))
        return;
    atomic_store_explicit(&g->half, (g->high + 1 - limit) / 2, memory_order_relaxed);
    atomic_store_explicit(&g->limit, g->high + 1, memory_order_release); /* I1 */
    atomic_store_explicit(&g->asked, 0, memory_order_relaxed);
}

/* N4: the record of the next range; there is credit for it, and none is asked for. Under the mutex. */
static int
range_ask(struct scree__context *ctx)
{
    struct scree__generator *g = &ctx->cache->generator;
    struct scree__record r = {.kind = SCREE__RECORD_ID_RANGE};
    int rc;

    if (UINT64_MAX - 1 - g->high < g->range)
        return scree__fail(SCREE_E_NO_SPACE, "scree_id_next: every id was handed out");
    r.page = g->high + g->range;
    scree__record_prepare(&r);
    rc = scree__record_write(ctx, &r);
    if (rc != 0)
        return rc;
    g->high = r.page; /* I2 */
    g->range = g->range < RANGE_MAX ? g->range * 2 : RANGE_MAX;
    scree__log_complete(ctx->cache->log, ctx->writer);
    scree__log_charge_dead(ctx->cache->log, r.lsn, r.disk_len, r.lsn);
    atomic_store_explicit(&g->asked, r.lsn + r.disk_len, memory_order_relaxed);
    return 0;
}

static uint32_t
range_record_bytes(void)
{
    struct scree__record r = {.kind = SCREE__RECORD_ID_RANGE};

    scree__record_prepare(&r);
    return r.disk_len;
}

static bool
half_used(struct scree__generator *g)
{
    /* Relaxed: a hint, but under the mutex, where limit and half stand still. next only grows, to the limit. */
    uint64_t next = atomic_load_explicit(&g->next, memory_order_relaxed);
    uint64_t limit = atomic_load_explicit(&g->limit, memory_order_relaxed);

    return limit <= next || limit - next <= atomic_load_explicit(&g->half, memory_order_relaxed);
}

/* Half of the range is used: ask for the next one, if nobody does. Waits for nothing but room in the ring. */
static void
range_ask_ahead(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    struct scree__generator *g = &cache->generator;
    uint64_t end = 0;

    if (scree__log_admit(cache->log, ctx->writer, range_record_bytes(), SCREE__LOG_USER, false) !=
            0 ||
        pthread_mutex_trylock(&g->mutex) != 0) {
        scree__fail_clear();
        return;
    }
    /* Much may have happened since the caller looked: I3. */
    if (atomic_load_explicit(&g->asked, memory_order_relaxed) == 0 && half_used(g) &&
        range_ask(ctx) == 0)
        end = atomic_load_explicit(&g->asked, memory_order_relaxed);
    pthread_mutex_unlock(&g->mutex);
    if (end != 0)
        scree__log_request_stable(cache->log, end);
    scree__fail_clear();
}

/* True: the range is used up. *asked_out: the end of the record that another one waits for, 0 if none does. */
static bool
range_look(scree_cache *cache, uint64_t *asked_out)
{
    struct scree__generator *g = &cache->generator;
    bool used_up;

    pthread_mutex_lock(&g->mutex);
    range_publish(cache);
    *asked_out = atomic_load_explicit(&g->asked, memory_order_relaxed);
    used_up = atomic_load_explicit(&g->next, memory_order_relaxed) >=
              atomic_load_explicit(&g->limit, memory_order_relaxed);
    pthread_mutex_unlock(&g->mutex);
    return used_up;
}

/* Ask for another range, or wait for the one that was asked for. */
static int
range_wait(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    struct scree__generator *g = &cache->generator;
    uint64_t asked;
    int rc = 0;

    if (!range_look(cache, &asked))
        return 0;
    if (asked != 0)
        return scree__log_wait_stable(cache->log, asked, UINT64_MAX);
    rc = scree__log_admit(cache->log, ctx->writer, range_record_bytes(), SCREE__LOG_USER,
                          !scree__rcu_inside());
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&g->mutex);
    if (atomic_load_explicit(&g->asked, memory_order_relaxed) == 0 && half_used(g))
        rc = range_ask(ctx);
    pthread_mutex_unlock(&g->mutex);
    return rc;
}

int
scree_id_next(scree_cache *cache, uint64_t *id_out)
{
    struct scree__context *ctx;
    struct scree__generator *g;
    uint64_t id = 0;
    int rc = scree__enter_call(cache, &ctx);

    if (id_out != NULL)
        *id_out = 0;
    if (rc == 0 && id_out == NULL)
        rc = scree__fail(SCREE_E_INVALID, "scree_id_next: id_out is NULL");
    if (rc == 0 && cache->read_only)
        rc = scree__fail(SCREE_E_READ_ONLY, "scree_id_next: %s was opened read-only", cache->dir);
    if (rc == 0)
        rc = scree__check_health(cache);
    if (rc != 0)
        return rc;
    g = &cache->generator;
    while (!generator_take(g, &id)) {
        rc = range_wait(ctx);
        if (rc != 0)
            return rc;
    }
    if (half_used(g) && atomic_load_explicit(&g->asked, memory_order_relaxed) == 0)
        range_ask_ahead(ctx);
    *id_out = id;
    return 0;
}

/* ---- open, close, snapshots -------------------------------------------------------------------- */

void
scree__generator_init(scree_cache *cache)
{
    struct scree__generator *g = &cache->generator;

    pthread_mutex_init(&g->mutex, NULL);
    g->range = RANGE_MIN;
    scree__generator_found(cache, 0);
}

void
scree__generator_destroy(scree_cache *cache)
{
    pthread_mutex_destroy(&cache->generator.mutex);
}

void
scree__generator_found(scree_cache *cache, uint64_t high)
{
    struct scree__generator *g = &cache->generator;

    if (high == UINT64_MAX)
        high--; /* made by nobody; next would wrap */
    if (high >= g->high) {
        g->high = high;
        atomic_store_explicit(&g->next, high + 1, memory_order_relaxed); /* nobody else is here */
        atomic_store_explicit(&g->limit, high + 1, memory_order_relaxed);
    }
}

uint64_t
scree__generator_high(scree_cache *cache)
{
    uint64_t high;

    pthread_mutex_lock(&cache->generator.mutex);
    high = cache->generator.high;
    pthread_mutex_unlock(&cache->generator.mutex);
    return high;
}

void
scree__generator_close(scree_cache *cache)
{
    struct scree__generator *g = &cache->generator;

    /* Relaxed: alone. What is handed out now would be lost, so nothing is. */
    g->high = atomic_load_explicit(&g->next, memory_order_relaxed) - 1;
    atomic_store_explicit(&g->limit, g->high + 1, memory_order_relaxed);
}
