/*
 * backup.c - copy a directory that is in use into one of its own, as of one position of the log.
 *
 * STEPS  B1  the newest snapshot (a fresh one, if it can be had) is pinned, with the log from its replay
 *            start S on and all that it refers to (checkpoint.c I4): nothing that died at or after S is
 *            given back
 *        B2  E := where the log is stable, after everything that was in it at the call has become so
 *        B3  the destination is made, or is there and empty; locked; a file BACKUP_INCOMPLETE in it is
 *            durable before anything else
 *        B4  segment files (log/copy.c), the snapshot's file, then the manifest, each synced
 *        B5  BACKUP_INCOMPLETE is removed, durably
 * INVARIANTS
 *   I1 the copy holds the effects of the log up to E, no more and no less: the snapshot and the replay from
 *      S to E. Whatever was stable, or had returned, before the call lies below E.
 *   I2 from B3 to B5 the destination cannot be opened. Before B3 it is empty, after B5 it is whole: a crash
 *      leaves one of the three.
 *   I3 nothing of the source changes but by the snapshot of B1; it is only read. Where blocks are shared
 *      (reflink) the file system keeps writes to one from the other. Hard links would not do: punching
 *      changes the file.
 * THE COPY  is as if it had been closed at E: no open mark, the log padded to a block boundary, one
 *   generation, whose stable position is E. So opening it writes nothing, no position is jumped over, and
 *   every bit that is missing from it is damage, never a torn tail. It keeps the uuid, which stands in
 *   every segment's header; from E on it is a history of its own, in which versions count on from E as they
 *   do in the source.
 * LIFETIME  one backup of a cache at a time (the pin).
 * PROGRESS  waits for one flush, and for nobody else; updates and reads go on. What the pin keeps on disk
 *   grows with what is written meanwhile (pinned_bytes).
 * FAILURE   told with the file; the pin is taken back; the destination stays incomplete, and says so.
 * NOT HERE  which bytes of the log (log/copy.c).   REFS none.
 */
#include "pagecache/pagecache_private.h"

#include <errno.h>
#include <string.h>

#define CHUNK_BYTES_MIN ((uint64_t)64 << 10)
#define CHUNK_BYTES_MAX ((uint64_t)1 << 20)
#define CHUNKS_PER_SECOND \
    16u /* at least, so that the rate is kept evenly and a cancellation heard soon */
#define NAP_NS ((uint64_t)100 * 1000 * 1000)
#define ABOVE_MAX 64u /* directories above the destination that are looked at */

static const char incomplete_text[] = "This is a backup in the making, or one that was given up: "
                                      "it cannot be opened. If no backup is\n"
                                      "running, delete the directory and make it anew.\n";

struct backup {
    scree_cache *cache;
    const char *dir;
    uint64_t bytes_per_s_max;
    scree_progress_fn progress;
    void *arg;
    uint64_t done, total; /* bytes */
    uint64_t moved;       /* of done, not only referred to */
    uint64_t begin_ns;
    struct scree__generation pin;
    uint64_t end; /* E */
};

/* ---- progress and pace ------------------------------------------------------------------------- */

static int
report(struct backup *b)
{
    if (b->progress == NULL ||
        b->progress(b->arg, "backup", b->done, b->done > b->total ? b->done : b->total) == 0)
        return 0;
    return scree__fail(SCREE_E_CANCELED, "canceled by the progress callback");
}

/* So long until what was moved is no more than the rate allows. */
static uint64_t
ahead_ns(const struct backup *b)
{
    const scree_env *env = b->cache->env;
    uint64_t passed_ns = env->now_ns(env->ctx) - b->begin_ns;
    double due_ns =
        b->bytes_per_s_max == 0 ? 0 : (double)b->moved / (double)b->bytes_per_s_max * 1e9;

    return due_ns > (double)passed_ns ? (uint64_t)due_ns - passed_ns : 0;
}

/* After each piece. */
static int
step(void *ctx, uint64_t bytes, bool moved)
{
    struct backup *b = ctx;
    _Atomic uint32_t never = 0;
    uint64_t wait_ns;
    int rc;

    b->done += bytes;
    b->moved += moved ? bytes : 0;
    rc = report(b);
    while (rc == 0 && (wait_ns = ahead_ns(b)) > 0) {
        scree__futex_wait(&never, 0, wait_ns < NAP_NS ? wait_ns : NAP_NS);
        rc = report(b);
    }
    return rc;
}

static size_t
chunk_bytes(const struct backup *b)
{
    uint64_t n = scree__round_down(b->bytes_per_s_max / CHUNKS_PER_SECOND, SCREE_BLOCK);

    if (b->bytes_per_s_max == 0 || n > CHUNK_BYTES_MAX)
        return CHUNK_BYTES_MAX;
    return (size_t)(n < CHUNK_BYTES_MIN ? CHUNK_BYTES_MIN : n);
}

/* ---- the destination (B3) ---------------------------------------------------------------------- */

/* Is there a file of this name in dir? */
static bool
file_is_there(const scree_env *env, const char *dir, const char *name)
{
    char *path = scree__path_join(dir, name);
    int file = path == NULL ? -ENOMEM : env->open(env->ctx, path, SCREE_ENV_READ);

    scree__path_free(path);
    if (file >= 0)
        (void)env->close(env->ctx, file); /* nothing was read */
    return file >= 0;
}

/* Neither dir nor what is above it is a scree directory. Its files are known by exact names, but nobody
   should have to tell them from a stranger's; and a copy that goes with its original is none. */
static int
above_check(struct backup *b, const char *dir)
{
    const scree_env *env = b->cache->env;
    char *at = scree__path_join(dir, ".");
    int rc = at == NULL ? scree__fail(SCREE_E_NO_MEMORY, "no memory for a path") : 0;

    for (unsigned i = 0; rc == 0 && i < ABOVE_MAX; i++) {
        char *above = scree__path_join(at, "..");

        if (file_is_there(env, at, SCREE__WARNING_NAME))
            rc = scree__fail(SCREE_E_INVALID,
                             "it lies in a scree directory (%s); name a place outside of it", at);
        else if (above == NULL)
            rc = scree__fail(SCREE_E_NO_MEMORY, "no memory for a path");
        scree__path_free(at);
        at = above;
    }
    scree__path_free(at);
    return rc;
}

static int
entry_seen(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    return 1;
}

static int
empty_check(struct backup *b)
{
    const scree_env *env = b->cache->env;
    int rc = env->list(env->ctx, b->dir, entry_seen, NULL);

    if (rc == 1)
        return scree__fail(-EEXIST, "it exists and is not empty; name a new directory");
    return rc == 0 ? 0 : scree__fail(rc, "cannot list it: %s", scree_strerror(rc));
}

/* The directory is there, nobody else's, and empty. */
static int
dst_make(struct backup *b, int *lock_out)
{
    const scree_env *env = b->cache->env;
    char *parent = scree__path_parent(b->dir);
    int64_t holder;
    int rc;

    *lock_out = -1;
    if (parent == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for a path");
    rc = above_check(b, parent);
    if (rc == 0) {
        rc = env->mkdir(env->ctx, b->dir);
        if (rc == -EEXIST)
            rc = empty_check(b) != 0 ? -EEXIST : above_check(b, b->dir);
        else if (rc != 0)
            (void)scree__fail(rc, "cannot make it: %s", scree_strerror(rc));
    }
    if (rc == 0) {
        rc = *lock_out = env->lock(env->ctx, b->dir, 0, &holder);
        if (rc == -EWOULDBLOCK)
            rc = scree__fail(SCREE_E_LOCKED, "it is open elsewhere");
        else if (rc < 0)
            (void)scree__fail(rc, "cannot lock it: %s", scree_strerror(rc));
        else
            rc = empty_check(b);
    }
    if (rc == 0) {
        rc = env->sync_dir(env->ctx, parent);
        if (rc != 0)
            (void)scree__fail(rc, "cannot sync the directory above: %s", scree_strerror(rc));
    }
    scree__path_free(parent);
    return rc;
}

/* ---- B4, B5 ------------------------------------------------------------------------------------ */

static int
manifest_write(struct backup *b)
{
    struct scree__manifest m;

    pthread_mutex_lock(&b->cache->checkpoint_mutex);
    m = b->cache->manifest;
    pthread_mutex_unlock(&b->cache->checkpoint_mutex);
    memset(m.generation, 0, sizeof m.generation);
    m.generations = b->pin.files != 0;
    if (m.generations != 0) {
        m.generation[0] = b->pin;
        m.generation[0].stable_lsn = scree__log_copy_end(b->end);
    }
    return scree__manifest_store(b->cache->env, b->dir, &m);
}

static int
complete(struct backup *b)
{
    const scree_env *env = b->cache->env;
    char *path = scree__path_join(b->dir, SCREE__INCOMPLETE_NAME);
    int rc;

    if (path == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for a file name");
    rc = env->sync_dir(env->ctx, b->dir);
    if (rc == 0)
        rc = env->unlink(env->ctx, path);
    if (rc == 0)
        rc = env->sync_dir(env->ctx, b->dir);
    if (rc != 0)
        (void)scree__fail(rc, "%s: cannot remove it, durably: %s", path, scree_strerror(rc));
    scree__path_free(path);
    return rc;
}

static int
files_copy(struct backup *b)
{
    scree_cache *cache = b->cache;
    struct scree__log_copy log = {.dir = b->dir,
                                  .floor = b->pin.replay_lsn,
                                  .end = b->end,
                                  .chunk_bytes = chunk_bytes(b),
                                  .step = step,
                                  .ctx = b};
    struct scree__snapshot_copy snapshot = {
        .dir = b->dir, .chunk_bytes = log.chunk_bytes, .step = step, .ctx = b};
    int rc = scree__env_replace_file(cache->env, b->dir, SCREE__INCOMPLETE_NAME, incomplete_text,
                                     sizeof incomplete_text - 1);

    b->total =
        scree__log_copy_bytes(cache->log, log.floor, log.end) + scree__generation_bytes(&b->pin);
    if (rc == 0)
        rc = report(b);
    if (rc == 0)
        rc = scree__log_copy(cache->log, &log);
    if (rc == 0 && b->pin.files != 0)
        rc = scree__snapshot_copy(cache->env, cache->dir, &b->pin, &snapshot);
    if (rc == 0)
        rc = scree__directory_mark(cache->env, b->dir);
#ifdef SCREE_BUG_BACKUP_MARKER_EARLY
    if (rc == 0) /* seeded: called whole before it is; crash_backup must fail */
        rc = complete(b);
    return rc == 0 ? manifest_write(b) : rc;
#endif
    if (rc == 0)
        rc = manifest_write(b);
    return rc == 0 ? complete(b) : rc;
}

/* B2 to B5, pinned. */
static int
backup_run(struct backup *b)
{
    scree_cache *cache = b->cache;
    int lock_file = -1;
    int rc = cache->read_only
                 ? 0
                 : scree__log_wait_stable(cache->log, scree__log_tail(cache->log), UINT64_MAX);

    if (rc != 0)
        return rc;
    b->end = scree__log_stable(cache->log);
    b->begin_ns = cache->env->now_ns(cache->env->ctx);
    rc = dst_make(b, &lock_file);
    if (rc == 0)
        rc = files_copy(b);
    if (lock_file >= 0)
        (void)cache->env->close(cache->env->ctx, lock_file); /* a lock, no data */
    return rc;
}

int
scree_backup(scree_cache *cache, const char *dst_dir, uint64_t bytes_per_s_max,
             scree_progress_fn progress, void *arg)
{
    struct backup b = {.cache = cache,
                       .dir = dst_dir,
                       .bytes_per_s_max = bytes_per_s_max,
                       .progress = progress,
                       .arg = arg};
    struct scree__context *ctx;
    uint64_t lsn;
    int rc = scree__enter_call(cache, &ctx);

    if (rc == 0 && (dst_dir == NULL || dst_dir[0] == '\0'))
        rc = scree__fail(SCREE_E_INVALID, "scree_backup: dst_dir is required");
    if (rc == 0)
        rc = scree__check_health(cache);
    if (rc != 0)
        return rc;
    /* For less log to copy and to replay. Without it the newest there is will do. */
    if (!cache->read_only)
        (void)scree__checkpoint(cache, &lsn);
    rc = scree__snapshot_pin(cache, &b.pin);
    if (rc != 0)
        return rc;
    rc = backup_run(&b);
    scree__snapshot_unpin(cache);
    if (!cache->read_only)
        scree__collector_wake(cache);
    if (rc != 0)
        return scree__code_told(
            scree__fail(rc, "scree_backup: %s: %s", dst_dir, scree_error_detail()));
    scree__fail_clear();
    return 0;
}
