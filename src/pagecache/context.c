/*
 * context.c - a thread's own part of a cache: found without a lock, recycled when the thread ends.
 *
 * WORD   context.in_use: 0 idle, 1 taken by a thread.   cache.contexts: list head, only pushed to.
 * EDGES  step                          who               order              pairs  if it loses
 *   E1   contexts: push a new one      any thread        CAS release        E2     retry
 *   E2   walk the list                 any thread        load acquire       E1     -
 *   E3   in_use 0 -> 1                 any thread        CAS acquire        E4     next context
 *   E4   in_use 1 -> 0                 the ending thread store release      E3     cannot
 * INVARIANTS
 *   I1 a context has one owner between E3 and E4; all its plain fields are the owner's.
 *   I2 a thread's last context (thread-local) is valid only while its serial equals the cache's;
 *      serials are never reused, so what a thread remembers of a closed cache can never match an
 *      open one.
 * LIFETIME contexts live until their cache is closed. A thread that ends gives its contexts back
 *   through a pthread key; registry_mutex keeps the caches it meets there open meanwhile, and keeps
 *   close from freeing under it.
 * PROGRESS E1 and E3 retry only when another thread succeeded. registry_mutex is taken at a
 *   thread's first call into a cache, at its end, and by open and close; never on the way of an
 *   operation.
 * FAILURE  no memory: NULL, nothing changed.
 * NOT HERE what the fields mean (pagecache_private.h).    REFS none.
 */
#include "pagecache/pagecache_private.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zstd.h>

/* What one thread has taken, in its own memory. */
struct thread_contexts {
    size_t n, cap;
    struct scree__context_last *entry;
};

_Thread_local struct scree__context_last scree__context_last;

static _Thread_local struct thread_contexts *thread_contexts;
static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static scree_cache *registry; /* open caches; under registry_mutex */
static uint64_t registry_serial;
static pthread_key_t registry_key;
static pthread_once_t registry_once = PTHREAD_ONCE_INIT;
static int registry_key_error;

void
scree__registry_lock(void)
{
    pthread_mutex_lock(&registry_mutex);
}

void
scree__registry_unlock(void)
{
    pthread_mutex_unlock(&registry_mutex);
}

bool
scree__registry_disown(void)
{
    bool any = registry != NULL;

    for (scree_cache *c = registry; c != NULL; c = c->open_next) {
        c->serial = SCREE__SERIAL_FORKED;
        /* Else the directory stays locked as long as this process lives. An env of the user's may have locks of
           its own, held by threads that are not here. */
        if (c->env->close == scree_env_posix()->close)
            (void)scree__posix_let_go(c->lock_file); /* not close: that would unlock the parent's */
        c->lock_file = -1;
    }
    registry = NULL;
    return any;
}

static scree_cache *
registry_find(uint64_t serial)
{
    scree_cache *c = registry;

    while (c != NULL && c->serial != serial)
        c = c->open_next;
    return c;
}

static void
context_release(struct scree__context *ctx)
{
    scree__ids_return(ctx);
    scree__retired_hand_over(ctx);
    scree__nodes_drain(ctx);
    scree__charge_pass_on(ctx);
    if (ctx->writer != NULL)
        scree__log_writer_detach(ctx->cache->log, ctx->writer);
    ctx->writer = NULL;
    ctx->consolidate_n = 0;
    atomic_store_explicit(&ctx->gives_away, false, memory_order_relaxed); /* a hint */
    ctx->background = false;
    /* Relaxed: the thread is gone, and any guard with it. */
    atomic_store_explicit(
        &ctx->guard,
        (atomic_load_explicit(&ctx->guard, memory_order_relaxed) | GUARD_DEPTH_MASK) + 1,
        memory_order_relaxed);
    atomic_store_explicit(&ctx->thread_id, 0, memory_order_relaxed);
    atomic_store_explicit(&ctx->in_use, 0, memory_order_release); /* E4: all of the above */
}

static void
thread_ends(void *arg)
{
    struct thread_contexts *t = arg;

    pthread_mutex_lock(&registry_mutex);
    for (size_t i = 0; i < t->n; i++)
        if (registry_find(t->entry[i].serial) != NULL)
            context_release(t->entry[i].ctx);
    pthread_mutex_unlock(&registry_mutex);
    scree__free(t->entry, t->cap * sizeof t->entry[0]);
    scree__free(t, sizeof *t);
    thread_contexts = NULL;
    scree__context_last.serial = 0;
}

static void
registry_make_key(void)
{
    registry_key_error = pthread_key_create(&registry_key, thread_ends);
}

/* Room for one more entry in this thread's list; forgets those of closed caches. */
static struct thread_contexts *
thread_contexts_reserve(void)
{
    struct thread_contexts *t = thread_contexts;
    struct scree__context_last *grown;
    size_t kept = 0;

    if (t == NULL) {
        t = scree__alloc_zero(sizeof *t);
        if (t == NULL || pthread_setspecific(registry_key, t) != 0) {
            scree__free(t, sizeof *t);
            return NULL;
        }
        thread_contexts = t;
    }
    for (size_t i = 0; i < t->n; i++)
        if (registry_find(t->entry[i].serial) != NULL)
            t->entry[kept++] = t->entry[i];
    t->n = kept;
    grown = scree__array_reserve(t->entry, &t->cap, t->n + 1, sizeof t->entry[0]);
    if (grown == NULL)
        return NULL;
    t->entry = grown;
    return t;
}

static struct scree__context *
context_take(scree_cache *cache)
{
    /* E2 */
    struct scree__context *c = atomic_load_explicit(&cache->contexts, memory_order_acquire);

    for (; c != NULL; c = c->next) {
        uint32_t idle = 0;

        if (atomic_compare_exchange_strong_explicit(&c->in_use, &idle, 1, memory_order_acquire,
                                                    memory_order_relaxed)) /* E3 */
            return c;
    }
    c = scree__alloc_aligned(SCREE_CACHE_LINE, scree__round_up(sizeof *c, SCREE_CACHE_LINE));
    if (c == NULL)
        return NULL;
    memset(c, 0, sizeof *c);
    c->cache = cache;
    scree__out_init(&c->out, (size_t)cache->options.page_bytes_max);
    atomic_store_explicit(&c->in_use, 1, memory_order_relaxed); /* published by E1 */
    c->next = atomic_load_explicit(&cache->contexts, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(
        &cache->contexts, &c->next, c, memory_order_release, memory_order_relaxed)) /* E1 */
        ;
    return c;
}

struct scree__context *
scree__context_slow(scree_cache *cache)
{
    struct scree__context *ctx = NULL;
    struct thread_contexts *t = thread_contexts;

    if (scree__forked(cache))
        return NULL;
    for (size_t i = 0; t != NULL && i < t->n; i++)
        if (t->entry[i].serial == cache->serial)
            ctx = t->entry[i].ctx;
    if (ctx == NULL) {
        pthread_once(&registry_once, registry_make_key);
        if (registry_key_error != 0)
            return NULL;
        pthread_mutex_lock(&registry_mutex);
        t = thread_contexts_reserve();
        ctx = t == NULL ? NULL : context_take(cache);
        if (ctx != NULL && ctx->writer == NULL && !cache->read_only) {
            ctx->writer = scree__log_writer_attach(cache->log);
            if (ctx->writer == NULL) {
                atomic_store_explicit(&ctx->in_use, 0, memory_order_release); /* E4 */
                ctx = NULL;
            }
        }
        if (ctx != NULL) /* relaxed: for messages */
            atomic_store_explicit(&ctx->thread_id, gettid(), memory_order_relaxed);
        if (ctx != NULL)
            t->entry[t->n++] = (struct scree__context_last){.serial = cache->serial, .ctx = ctx};
        pthread_mutex_unlock(&registry_mutex);
    }
    if (ctx != NULL)
        scree__context_last = (struct scree__context_last){.serial = cache->serial, .ctx = ctx};
    return ctx;
}

void
scree__context_publish_cache(scree_cache *cache)
{
    pthread_mutex_lock(&registry_mutex);
    cache->serial = ++registry_serial;
    cache->open_next = registry;
    registry = cache;
    pthread_mutex_unlock(&registry_mutex);
}

int
scree__context_guards_check(scree_cache *cache)
{
    struct scree__context *c =
        atomic_load_explicit(&cache->contexts, memory_order_acquire); /* E2 */

    for (; c != NULL; c = c->next)
        if ((atomic_load_explicit(&c->guard, memory_order_acquire) & GUARD_DEPTH_MASK) != 0)
            return scree__fail(SCREE_E_BUSY,
                               "scree_close: a read guard is open; leave every guard first");
    return 0;
}

void
scree__context_retire_cache(scree_cache *cache)
{
    scree_cache **at = &registry;

    pthread_mutex_lock(&registry_mutex);
    while (*at != NULL && *at != cache)
        at = &(*at)->open_next;
    if (*at == cache)
        *at = cache->open_next;
    pthread_mutex_unlock(&registry_mutex);
}

void
scree__context_destroy_all(scree_cache *cache)
{
    struct scree__context *c =
        atomic_load_explicit(&cache->contexts, memory_order_acquire); /* E2 */

    while (c != NULL) {
        struct scree__context *next = c->next;

        scree__nodes_drain(c);
        scree__out_destroy(&c->out);
        scree__chain_destroy(&c->chain);
        scree__log_read_done(c->read, READS_KEPT);
        scree__arrivals_free(c->arrivals);
        scree__free(c->compressed, c->compressed_cap);
        ZSTD_freeCCtx(c->compressor);
        scree__batch_free(c->batch);
        scree__free(c, scree__round_up(sizeof *c, SCREE_CACHE_LINE));
        c = next;
    }
    atomic_store_explicit(&cache->contexts, NULL, memory_order_relaxed); /* nobody else is left */
}
