/*
 * prefetch.c - many pages at a time: read side by side, ahead of their gets or together with them.
 *
 * WORD   cache.prefetch, all of it under its mutex: a ring of page ids that wait to be read, the threads that
 *        read them, and `stop`. The threads sleep on `asked`.
 * EDGES  (columns: step, who may, order, pairs with, if it loses)
 *   T1   put ids into the ring, signal one    any thread         mutex   T2   ring full: the rest is left out
 *   T2   take ids out of it; none: sleep.     a prefetcher       mutex   T1, T3
 *        some are left: signal another
 *   T3   stop, signal, join                   close              mutex   T2
 * INVARIANTS
 *   I1 an id in the ring is a hint: whoever needs the page does not wait for it to be taken, only for a
 *      read that is under way (P4 of pagein.c).
 *   I2 threads are started as ids wait for which none is idle, PREFETCHERS at most, and live until close.
 * LIFETIME the ring is made by the first call and freed by close. Each share is read in a read section.
 * PROGRESS a call holds the mutex while it copies ids, and waits for nothing else. A prefetcher waits for the
 *          device, and as any get does for memory.
 * FAILURE  no ring, not one thread: the call fails, nothing is read. Pages that cannot be read stay cold; their
 *          gets tell why.
 * NOT HERE the reads (pagein.c), choosing a ring of io_uring (env_posix.c).   REFS posix_fadvise(2), which is a
 *          hint in the same way.
 */
#include "pagecache/pagecache_private.h"

#include <stdio.h>

#define DETAIL_BYTES 512u

void
scree__prefetch_init(scree_cache *cache)
{
    pthread_mutex_init(&cache->prefetch.mutex, NULL);
    pthread_cond_init(&cache->prefetch.asked, NULL);
}

/* ---- the threads ------------------------------------------------------------------------------- */

/* T2. What waits, up to what is read side by side; 0: to stop. */
static size_t
ids_take(struct scree__prefetch *p, scree_page_id *ids)
{
    size_t n;

    pthread_mutex_lock(&p->mutex);
    p->idle++;
    while (p->n == 0 && !p->stop)
        pthread_cond_wait(&p->asked, &p->mutex);
    p->idle--;
    n = p->stop ? 0 : p->n;
    if (n > SCREE__PAGES_IN_MAX)
        n = SCREE__PAGES_IN_MAX;
    for (size_t i = 0; i < n; i++)
        ids[i] = p->id[(p->head + i) % PREFETCH_MAX];
    p->head = (p->head + n) % PREFETCH_MAX;
    p->n -= n;
    if (p->n > 0 && p->idle > 0) /* one wakes the next */
        pthread_cond_signal(&p->asked);
    pthread_mutex_unlock(&p->mutex);
    return n;
}

static void *
prefetcher_main(void *arg)
{
    scree_cache *cache = arg;
    scree_page_id ids[SCREE__PAGES_IN_MAX];
    struct scree__context *ctx;
    size_t n;

    while ((n = ids_take(&cache->prefetch, ids)) > 0) {
        if (scree__enter_call(cache, &ctx) != 0)
            continue; /* no memory: left to the gets */
        scree__rcu_enter();
        scree__pages_in(ctx, ids, n);
        scree__rcu_leave();
    }
    return NULL;
}

void
scree__prefetch_stop(scree_cache *cache)
{
    struct scree__prefetch *p = &cache->prefetch;

    pthread_mutex_lock(&p->mutex);
    p->stop = true; /* T3 */
    pthread_cond_broadcast(&p->asked);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->threads; i++) /* no call is under way that could start one */
        pthread_join(p->thread[i], NULL);
}

uint64_t
scree__prefetch_left_out(scree_cache *cache)
{
    uint64_t n;

    pthread_mutex_lock(&cache->prefetch.mutex);
    n = cache->prefetch.left_out;
    pthread_mutex_unlock(&cache->prefetch.mutex);
    return n;
}

void
scree__prefetch_destroy(scree_cache *cache)
{
    scree__free(cache->prefetch.id, PREFETCH_MAX * sizeof cache->prefetch.id[0]);
    pthread_cond_destroy(&cache->prefetch.asked);
    pthread_mutex_destroy(&cache->prefetch.mutex);
}

/* ---- calls ------------------------------------------------------------------------------------- */

/* I2, under the mutex. */
static int
threads_start(scree_cache *cache)
{
    struct scree__prefetch *p = &cache->prefetch;
    int rc = 0;

    for (size_t there = p->idle; rc == 0 && p->threads < PREFETCHERS && there < p->n; there++) {
        rc = pthread_create(&p->thread[p->threads], NULL, prefetcher_main, cache);
        p->threads += rc == 0;
    }
    if (p->threads > 0)
        return 0; /* those that there are will do */
    p->n = 0;
    return scree__fail(-rc, "scree_pages_prefetch: cannot start a thread that reads");
}

/* T1 */
static int
ids_put(scree_cache *cache, const scree_page_id *ids, size_t n)
{
    struct scree__prefetch *p = &cache->prefetch;
    size_t room;
    int rc;

    pthread_mutex_lock(&p->mutex);
    if (p->id == NULL)
        p->id = scree__alloc(PREFETCH_MAX * sizeof p->id[0]);
    room = p->id == NULL ? 0 : PREFETCH_MAX - p->n;
    for (size_t i = 0; i < n && i < room; i++)
        p->id[(p->head + p->n++) % PREFETCH_MAX] = ids[i];
    p->left_out += n > room ? n - room : 0;
    rc = p->id == NULL ? scree__fail(SCREE_E_NO_MEMORY, "scree_pages_prefetch: no memory")
                       : threads_start(cache);
    if (p->idle > 0)
        pthread_cond_signal(&p->asked);
    pthread_mutex_unlock(&p->mutex);
    return rc;
}

static int
ids_check(const scree_page_id *ids, size_t n, const char *call)
{
    if (ids == NULL && n > 0)
        return scree__fail(SCREE_E_INVALID, "%s: ids is NULL but n is not 0", call);
    for (size_t i = 0; i < n; i++)
        if (ids[i] == 0)
            return scree__fail(SCREE_E_INVALID, "%s: ids[%zu] is 0, which is never a page", call,
                               i);
    return 0;
}

/* Is it live, and not whole in memory? */
static bool
page_may_be_cold(scree_cache *cache, scree_page_id id)
{
    struct scree__radix_ref ref = scree__radix_find(&cache->radix, id);
    uint64_t word = ref.leaf == NULL ? 0 : scree__slot_peek(ref);

    return ref.leaf != NULL && slot_tag(word) != SLOT_FREE && slot_whole_node(word) == NULL;
}

int
scree_pages_prefetch(scree_cache *cache, const scree_page_id *ids, size_t n)
{
    scree_page_id cold[SCREE__PAGES_IN_MAX];
    struct scree__context *ctx;
    int rc = scree__enter_call(cache, &ctx);

    if (rc == 0)
        rc = ids_check(ids, n, "scree_pages_prefetch");
    for (size_t i = 0; i < n && rc == 0;) {
        size_t n_cold = 0;

        scree__rcu_enter();
        for (; i < n && n_cold < SCREE__PAGES_IN_MAX; i++) {
            cold[n_cold] = ids[i];
            n_cold += page_may_be_cold(cache, ids[i]);
        }
        scree__rcu_leave();
        if (n_cold > 0)
            rc = ids_put(cache, cold, n_cold);
    }
    return rc;
}

int
scree_pages_get(scree_cache *cache, const scree_page_id *ids, size_t n, scree_slice *pages_out,
                scree_version *versions_out, int *codes_out)
{
    char detail[DETAIL_BYTES] = "";
    struct scree__context *ctx;
    int first = 0, rc = scree__enter_call(cache, &ctx);

    if (rc == 0)
        rc = ids_check(ids, n, "scree_pages_get");
    if (rc == 0 && !scree__context_guarded(ctx))
        rc = scree__not_guarded(cache, "scree_pages_get");
    for (size_t i = 0; i < n; i++) {
        scree_slice page = {NULL, 0};
        scree_version version = 0;
        int code = rc;

        if (rc == 0 && i % SCREE__PAGES_IN_MAX == 0)
            scree__pages_in(ctx, ids + i,
                            n - i < SCREE__PAGES_IN_MAX ? n - i : SCREE__PAGES_IN_MAX);
        if (rc == 0)
            code = scree_page_get(cache, ids[i], &page, &version);
        if (code != 0 && first == 0) {
            first = code;
            (void)snprintf(detail, sizeof detail, "%s", scree_error_detail());
        }
        if (pages_out != NULL)
            pages_out[i] = page;
        if (versions_out != NULL)
            versions_out[i] = version;
        if (codes_out != NULL)
            codes_out[i] = code;
    }
    /* Others may have failed behind it. */
    return rc != 0 || first == 0 ? rc : scree__fail(first, "%s", detail);
}
