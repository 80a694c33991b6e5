/*
 * reclaim.c - the thread that waits for grace periods, so that nobody else has to.
 *
 * WORD   cache.reclaim_asked: futex, counts requests. cache.reclaim_done: futex, counts grace
 *        periods. cache.retired: list of batches. cache.cooled_lsn: frees below it have had a grace
 *        period.
 * EDGES  (columns: step, who may, order, pairs with, if it loses)
 *   R1   retired: take all                   reclaimer      exchange acquire   E3 of fragment.c
 *   R2   one grace period                    reclaimer      (RCU)              every read section
 *   R3   hand batches home                   reclaimer      E1 of fragment.c
 *   R4   cooled_lsn := B                     reclaimer      store release      R5        sole writer
 *   R5   may this id be reused?              any thread     load acquire       R4        busy: try later
 *   R6   reclaim_done + 1, wake              reclaimer      fetch_add release  R7
 *   R7   wait for R6                         any thread, in no read section    load acquire
 *   R8   reclaim_asked + 1, then look at reclaim_asleep   any thread   seq_cst   R9
 *   R9   reclaim_asleep = 1, then wait while reclaim_asked is as seen   reclaimer   seq_cst   R8
 *   Store-load pair R8, R9: either R8 sees the sleeper, or the futex sees the new count.
 * INVARIANTS
 *   I1 a batch taken by R1 before R2 holds nodes unlinked before R2, so after R2 nobody reads them.
 *   I2 B is the log's settled bound from before R2: every free with an lsn below it has installed
 *      its word before R2, so after R2 nobody still holds what the page was.
 * LIFETIME the thread ends before the contexts and the log do.
 * PROGRESS R2 takes as long as the longest guard; R7 waits are bounded in time and never made
 *          inside a guard.
 * FAILURE  none: no allocation, no I/O.
 * NOT HERE free lists (fragment.c).   REFS liburcu.
 */
#include "pagecache/pagecache_private.h"

#define RECLAIM_WAIT_NS ((uint64_t)20 * 1000 * 1000)
#define RECLAIM_IDLE_NS ((uint64_t)200 * 1000 * 1000)

void
scree__reclaimer_wake(scree_cache *cache)
{
    atomic_fetch_add_explicit(&cache->reclaim_asked, 1, memory_order_seq_cst);   /* R8 */
    if (atomic_load_explicit(&cache->reclaim_asleep, memory_order_seq_cst) != 0) /* R8 */
        scree__futex_wake(&cache->reclaim_asked, 1);
}

void
scree__reclaimer_wait(scree_cache *cache)
{
    uint32_t seen = atomic_load_explicit(&cache->reclaim_done, memory_order_acquire); /* R7 */

    scree__reclaimer_wake(cache);
    scree__futex_wait(&cache->reclaim_done, seen, RECLAIM_WAIT_NS);
}

static void
reclaim_once(scree_cache *cache)
{
    /* R1. Acquire: the batches' contents. */
    struct scree__retired *b =
        atomic_exchange_explicit(&cache->retired, NULL, memory_order_acquire);
    uint64_t settled = cache->read_only ? 0 : scree__log_settled(cache->log);

    if (b == NULL &&
        settled == atomic_load_explicit(&cache->cooled_lsn, memory_order_relaxed)) /* own store */
        return;        /* nothing was unlinked or freed since the last one */
    scree__rcu_wait(); /* R2 */
    while (b != NULL) {
        struct scree__retired *next = b->next;

        scree__retired_return(cache, b); /* R3 */
        b = next;
    }
    atomic_store_explicit(&cache->cooled_lsn, settled, memory_order_release); /* R4 */
    atomic_fetch_add_explicit(&cache->reclaim_done, 1, memory_order_release); /* R6 */
    scree__futex_wake(&cache->reclaim_done, INT32_MAX);
}

static void *
reclaimer_main(void *arg)
{
    scree_cache *cache = arg;

    while (atomic_load_explicit(&cache->reclaim_stop, memory_order_acquire) == 0) {
        uint32_t asked = atomic_load_explicit(&cache->reclaim_asked, memory_order_acquire);

        reclaim_once(cache);
        if (atomic_load_explicit(&cache->reclaim_stop, memory_order_acquire) != 0)
            break;
        atomic_store_explicit(&cache->reclaim_asleep, 1, memory_order_seq_cst); /* R9 */
        scree__futex_wait(&cache->reclaim_asked, asked, RECLAIM_IDLE_NS);       /* R9 */
        atomic_store_explicit(&cache->reclaim_asleep, 0, memory_order_relaxed); /* a spare wake */
    }
    reclaim_once(cache); /* whatever was handed over last */
    return NULL;
}

int
scree__reclaimer_start(scree_cache *cache)
{
    int rc = pthread_create(&cache->reclaimer, NULL, reclaimer_main, cache);

    return rc == 0 ? 0 : scree__fail(-rc, "cannot start the reclaimer thread");
}

void
scree__reclaimer_stop(scree_cache *cache)
{
    atomic_store_explicit(&cache->reclaim_stop, 1, memory_order_release);
    scree__reclaimer_wake(cache);
    pthread_join(cache->reclaimer, NULL);
}
