/*
 * fork.c - what becomes of open caches in a forked child: nothing can be done with them there.
 *
 * The child has no thread but the one that forked; locks may be held by those that are not there, the log
 * is the parent's to write. So every handle that was open is marked in the child, by its serial: the
 * compare that finds a thread's context (context.c I2) fails, and the slow way says FORKED. No call has to
 * look at anything more.
 *
 * STEPS  F1  fork(2) calls before(): the registry of open caches is locked, so it is whole in the child
 *        F2  in the parent: unlocked
 *        F3  in the child: all caches in it are marked, the child's copy of the directory's lock is closed,
 *            the registry is empty and unlocked
 *        scree_prefork ... scree_postfork_* around fork do F1 earlier, and have liburcu prepared in
 *        between: only then may the child open directories of its own.
 * WORDS  hooks: this thread is between scree_prefork and scree_postfork_*; for several caches, how deep.
 *        prepared: liburcu is.   orphan: this process was forked with caches open and liburcu not prepared.
 *        All plain: the first two are the thread's own, the last is set while there is but one thread.
 * EDGES  none of its own (context.c's registry_mutex).
 * INVARIANTS
 *   I1 the parent goes on undisturbed: the child touches no lock, file position or shared memory of a
 *      cache; the flock on the directory is one of the open file, which the child lets go of without
 *      unlocking. Until F3 did so the child has it too: the parent's close unlocks for both.
 *   I2 scree_prefork in a thread with a read section open does not prepare liburcu: that waits for grace
 *      periods, so for itself.
 * LIFETIME  the handlers stay as long as the library is loaded. In the child memory and files of the caches
 *           stay until it ends or execs: what is whole of them cannot be known.
 * PROGRESS  F1 waits for whoever opens, closes, or calls a cache for the first time; scree_prefork for a
 *              grace period.
 * FAILURE   the handlers cannot be had (no memory): open fails.
 * NOT HERE  rings of io_uring (env_posix.c I2).   REFS  pthread_atfork(3), urcu-bp.h.
 */
#include "pagecache/pagecache_private.h"

static _Thread_local unsigned hooks;
static _Thread_local bool prepared;
static bool orphan;

static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static int watch_error;

/* F1 */
static void
before(void)
{
    if (hooks == 0)
        scree__registry_lock();
}

/* F2 */
static void
after_parent(void)
{
    if (hooks == 0)
        scree__registry_unlock();
}

/* F3 */
static void
after_child(void)
{
    scree__names_forked();
#ifndef SCREE_BUG_FORK_UNSEEN /* seeded: test_fork must fail */
    if (scree__registry_disown() && !prepared)
        orphan = true;
#endif
    if (hooks == 0)
        scree__registry_unlock();
}

static void
watch(void)
{
    watch_error = pthread_atfork(before, after_parent, after_child);
}

int
scree__fork_watch(void)
{
    pthread_once(&watch_once, watch);
    return watch_error == 0 ? 0 : scree__fail(-watch_error, "cannot be told of forks");
}

int
scree__fork_check(void)
{
    if (orphan)
        return scree__fail(SCREE_E_FORKED,
                           "this process was forked while a cache was open, without "
                           "scree_prefork (or in a read guard): exec first");
    return 0;
}

void
scree_prefork(scree_cache *cache)
{
    if (cache == NULL || scree__forked(cache) || hooks++ > 0)
        return;
    scree__registry_lock();
    prepared = !scree__rcu_inside(); /* I2 */
    if (prepared)
        scree__rcu_before_fork();
}

void
scree_postfork_parent(scree_cache *cache)
{
    if (cache == NULL || hooks == 0 || --hooks > 0)
        return;
    if (prepared)
        scree__rcu_after_fork_parent();
    prepared = false;
    scree__registry_unlock();
}

void
scree_postfork_child(scree_cache *cache)
{
    if (cache == NULL || hooks == 0 || --hooks > 0)
        return;
    if (prepared)
        scree__rcu_after_fork_child();
    prepared = false;
    scree__registry_unlock();
}
