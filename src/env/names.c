/*
 * names.c - syncs of a directory by several threads, of which one may fail.
 *
 * A sync of a directory takes along whatever names were made in it before, by any thread. If it fails, the
 * system tells that once, to the thread that called, and takes all of them for written (Rebello et al., "Can
 * Applications Recover from fsync Failures?", ATC 2020): the sync of another thread, whose name was among them,
 * succeeds and means nothing. So who makes names notes before how many syncs of that directory have failed, and
 * a later sync counts only if there are no more now.
 *
 * WORD   slot.failures, slot.code: of the directories that share a slot; guarded by slot.mutex.
 * EDGES  the mutex.
 * INVARIANTS
 *   I1 syncs of one directory come one after the other, so none is under way that would fail yet.
 * LIFETIME  static; a forked child begins anew.
 * PROGRESS  a sync waits for others of its slot. They were one after the other in the journal anyway.
 * FAILURE   directories of one slot fail together. Each caller takes it as a failed sync of its own.
 * NOT HERE  what a failure means: poison, or a snapshot less.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "env/env.h"

#include <pthread.h>
#include <string.h>

#define SLOTS 16u

#ifdef SCREE_BUG_NAMES_LOST
#define OTHERS_COUNT false /* seeded bug: tests must notice */
#else
#define OTHERS_COUNT true
#endif

struct slot {
    pthread_mutex_t mutex;
    uint64_t failures;
    int code; /* of the last one */
};

static struct slot slots[SLOTS] = {[0 ... SLOTS - 1] = {.mutex = PTHREAD_MUTEX_INITIALIZER}};

static struct slot *
slot_of(const char *dir)
{
    return &slots[XXH3_64bits(dir, strlen(dir)) % SLOTS];
}

uint64_t
scree__names_begin(const char *dir)
{
    struct slot *slot = slot_of(dir);
    uint64_t failures;

    pthread_mutex_lock(&slot->mutex);
    failures = slot->failures;
    pthread_mutex_unlock(&slot->mutex);
    return failures;
}

int
scree__names_sync(const scree_env *env, const char *dir, uint64_t begun)
{
    struct slot *slot = slot_of(dir);
    int rc;

    pthread_mutex_lock(&slot->mutex);
    rc = env->sync_dir(env->ctx, dir);
    if (rc != 0) {
        slot->failures++;
        slot->code = rc;
    } else if (slot->failures != begun && OTHERS_COUNT) {
        rc = slot->code;
    }
    pthread_mutex_unlock(&slot->mutex);
    return rc == 0 ? 0
                   : scree__fail(rc, "%s: cannot sync the directory: %s", dir, scree_strerror(rc));
}

void
scree__names_forked(void)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        pthread_mutex_init(&slots[i].mutex, NULL);
}
