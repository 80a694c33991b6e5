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
 *   R10  grace_since_ns := now, 0          reclaimer      store relaxed      R11       sole writer
 *   R11  is it still the same wait?           the watch      load relaxed       R10       statistics: no order
 *   Store-load pair R8, R9: either R8 sees the sleeper, or the futex sees the new count.
 * INVARIANTS
 *   I1 a batch taken by R1 before R2 holds nodes unlinked before R2, so after R2 nobody reads them.
 *   I2 B is the log's settled bound from before R2: every free with an lsn below it has installed
 *      its word before R2, so after R2 nobody still holds what the page was.
 *   I3 a guard that the watch saw at an earlier look and sees still (pagecache_private.h, guard) was open all
 *      that time: the age told is one that was seen, never more than the guard's. A guard entered just after
 *      a wait began may hold it up as well.
 * LIFETIME the thread ends before the contexts and the log do.
 * PROGRESS R2 takes as long as the longest guard; R7 waits are bounded in time and never made
 *          inside a guard.
 * FAILURE  none: no allocation, no I/O.
 * NOT HERE free lists (fragment.c); who calls the watch.   REFS liburcu.
 */
#include "pagecache/pagecache_private.h"

#include <stdio.h>

#define RECLAIM_WAIT_NS ((uint64_t)20 * 1000 * 1000)
#define RECLAIM_IDLE_NS ((uint64_t)200 * 1000 * 1000)
#define NS_PER_MS ((uint64_t)1000 * 1000)
#define GUARD_HELD_MS 1000u
#define LATE_LOOKS 4u /* so many looks before it begins may a wait be noted, on a busy machine */

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
        return; /* nothing was unlinked or freed since the last one */
    /* R10. Relaxed: a figure. */
    atomic_store_explicit(&cache->grace_since_ns, cache->env->now_ns(cache->env->ctx),
                          memory_order_relaxed);
    scree__rcu_wait();                                                      /* R2 */
    atomic_store_explicit(&cache->grace_since_ns, 0, memory_order_relaxed); /* R10 */
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

/* ---- the watch --------------------------------------------------------------------------------- */

/* Note how long each guard has been open, as far as looks can tell. */
static void
guards_look(scree_cache *cache, uint64_t now)
{
    /* Acquire: the contexts' contents. */
    struct scree__context *c = atomic_load_explicit(&cache->contexts, memory_order_acquire);

    for (; c != NULL; c = c->next) {
        /* Relaxed: a moment's picture. */
        uint64_t guard = atomic_load_explicit(&c->guard, memory_order_relaxed);

        if ((guard & GUARD_DEPTH_MASK) == 0)
            c->guard_since_ns = 0;
        else if (c->guard_since_ns == 0 ||
                 c->guard_seen >> GUARD_DEPTH_BITS != guard >> GUARD_DEPTH_BITS)
            c->guard_since_ns = now;
        c->guard_seen = guard;
    }
}

/*
 * Since when this wait has been held up for certain: since the first look at it, or since a guard was first
 * seen, if no older one is open (it may have begun just before that look, and not have been seen by it, or have
 * got in before the wait itself did).
 */
static uint64_t
held_since_ns(scree_cache *cache)
{
    struct scree__context *c = atomic_load_explicit(&cache->contexts, memory_order_acquire);
    uint64_t oldest = UINT64_MAX;

    for (; c != NULL; c = c->next) {
        if (c->guard_since_ns != 0 && c->guard_since_ns < oldest)
            oldest = c->guard_since_ns;
    }
    if (oldest > cache->watch.first_look_ns && oldest <= cache->watch.late_ns)
        return oldest;
    return cache->watch.first_look_ns;
}

/* Whose guards have been open since then: "thread 17, thread 18". */
static void
holders_name(scree_cache *cache, uint64_t since_ns, char *text, size_t cap)
{
    struct scree__context *c = atomic_load_explicit(&cache->contexts, memory_order_acquire);
    size_t len = 0;

    text[0] = '\0';
    for (; c != NULL && len < cap; c = c->next) {
        int32_t thread = atomic_load_explicit(&c->thread_id, memory_order_relaxed); /* a name */

        if (c->guard_since_ns == 0 || c->guard_since_ns > since_ns || thread == 0)
            continue;
        len += (size_t)snprintf(text + len, cap - len, "%sthread %d", len == 0 ? "" : ", ", thread);
    }
    if (len == 0)
        (void)snprintf(text, cap, "a read section of another cache or of the program's own");
}

static void
guard_tell(scree_cache *cache, uint64_t since_ns, uint64_t age_ms)
{
    struct scree__memory memory = scree__memory_sum(cache);
    char holders[128], text[256];

    holders_name(cache, since_ns, holders, sizeof holders);
    (void)snprintf(text, sizeof text,
                   "a read guard has been open for %llu ms or more (%s): %llu bytes cannot be used "
                   "again until it is left",
                   (unsigned long long)age_ms, holders, (unsigned long long)memory.retired_bytes);
    scree__event_guard(cache, memory.retired_bytes, age_ms, text);
}

void
scree__guards_watch(scree_cache *cache)
{
    uint64_t now = cache->env->now_ns(cache->env->ctx);
    uint64_t since = atomic_load_explicit(&cache->grace_since_ns, memory_order_relaxed); /* R11 */
    uint64_t held_ns, age_ms;

    guards_look(cache, now);
    if (since != cache->watch.grace_since_ns) {
        cache->watch.grace_since_ns = since;
        cache->watch.first_look_ns = now;
        cache->watch.next_ms = GUARD_HELD_MS;
        cache->watch.looks = 0;
    } else if (cache->watch.looks < LATE_LOOKS) {
        cache->watch.looks++;
        cache->watch.late_ns = now;
    }
    held_ns = held_since_ns(cache);
    age_ms = (now - held_ns) / NS_PER_MS;
    if (since == 0 || age_ms < cache->watch.next_ms)
        return;
    guard_tell(cache, held_ns, age_ms);
    while (cache->watch.next_ms <= age_ms)
        cache->watch.next_ms *= 2;
}

/* ---- the thread -------------------------------------------------------------------------------- */

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
