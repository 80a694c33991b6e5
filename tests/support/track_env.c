/*
 * track_env.c - see track_env.h.
 *
 * WORD   calls, behind, changes, clones, unsynced: counters, fetch_add relaxed.   watched, dirty: of a file
 *        number, stored by the thread that opens or writes it, relaxed: a file below the directory is one
 *          thread's. names_dirty, marker_gone: the same.
 * EDGES  E0 the plan: stored with release by who makes it, loaded with acquire by each call. Plans are
 *        kept: a call under way may look at an old one.
 * INVARIANTS  none.   LIFETIME  static.
 * PROGRESS  wait-free.   FAILURE  is what it is for.   NOT HERE  power cuts.
 */
#include "track_env.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES 4096

/* The one that counts, and those before it. */
struct planned {
    struct planned *before;
    struct track_plan plan;
};
static _Atomic(struct planned *) planned;
static _Atomic uint64_t calls, behind, changes, clones, unsynced;
static _Atomic bool watched[FILES], dirty[FILES], names_dirty, marker_gone;
static _Thread_local bool thread_marked;
static const scree_env *posix_env;

void
track_plan(const struct track_plan *plan)
{
    struct planned *p = malloc(sizeof(*p));

    if (p == NULL)
        abort();
    p->plan = *plan;
    p->before = atomic_load_explicit(&planned, memory_order_relaxed);
    atomic_store_explicit(&planned, p, memory_order_release); /* E0 */
    atomic_store_explicit(&calls, 0, memory_order_relaxed);
    atomic_store_explicit(&behind, 0, memory_order_relaxed);
    atomic_store_explicit(&changes, 0, memory_order_relaxed);
    atomic_store_explicit(&clones, 0, memory_order_relaxed);
    atomic_store_explicit(&unsynced, 0, memory_order_relaxed);
    atomic_store_explicit(&names_dirty, false, memory_order_relaxed);
    atomic_store_explicit(&marker_gone, false, memory_order_relaxed);
}

static const struct track_plan *
now(void)
{
    return &atomic_load_explicit(&planned, memory_order_acquire)->plan; /* E0 */
}

void
track_mark_thread(bool marked)
{
    thread_marked = marked;
}

static uint64_t
relaxed(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

uint64_t
track_calls(void)
{
    return relaxed(&calls);
}

uint64_t
track_changes(void)
{
    return relaxed(&changes);
}

uint64_t
track_clones(void)
{
    return relaxed(&clones);
}

uint64_t
track_unsynced(void)
{
    return relaxed(&unsynced);
}

static void
count(_Atomic uint64_t *counter)
{
    (void)atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* True: this is the call to be killed in. */
static bool
call_kills(void)
{
    if (!thread_marked)
        return false;
    if (atomic_load_explicit(&marker_gone, memory_order_relaxed) &&
        atomic_fetch_add_explicit(&behind, 1, memory_order_relaxed) + 1 == now()->kill_behind)
        return true;
    return atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1 == now()->kill_at;
}

static void
call_counted(void)
{
    if (call_kills())
        _exit(TRACK_KILLED);
}

/* The code, if this change is to fail. */
static int
change_fails(void)
{
    uint64_t n = atomic_fetch_add_explicit(&changes, 1, memory_order_relaxed) + 1;

    return n == now()->fail_at ? now()->code : 0;
}

static bool
path_is_watched(const char *path)
{
    return now()->below != NULL && strncmp(path, now()->below, strlen(now()->below)) == 0;
}

static bool
file_is_watched(int file)
{
    return file >= 0 && file < FILES && atomic_load_explicit(&watched[file], memory_order_relaxed);
}

static void
dirty_set(int file, bool is)
{
    atomic_store_explicit(&dirty[file], is, memory_order_relaxed);
}

static int
track_open(void *ctx, const char *path, int flags)
{
    bool below = path_is_watched(path);
    int rc = 0;

    (void)ctx;
    call_counted();
    if (below && (flags & SCREE_ENV_CREATE) != 0)
        rc = change_fails();
    if (rc == 0)
        rc = posix_env->open(posix_env->ctx, path, flags);
    if (rc >= 0 && rc < FILES) {
        atomic_store_explicit(&watched[rc], below, memory_order_relaxed);
        dirty_set(rc, false);
    }
    if (rc >= 0 && below && (flags & SCREE_ENV_CREATE) != 0)
        atomic_store_explicit(&names_dirty, true, memory_order_relaxed);
    return rc;
}

static int
track_close(void *ctx, int file)
{
    (void)ctx;
    call_counted();
    if (file_is_watched(file)) {
        if (atomic_load_explicit(&dirty[file], memory_order_relaxed))
            count(&unsynced);
        atomic_store_explicit(&watched[file], false, memory_order_relaxed);
    }
    return posix_env->close(posix_env->ctx, file);
}

static int64_t
track_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    (void)ctx;
    call_counted();
    return posix_env->read(posix_env->ctx, file, data, len, offset);
}

static int64_t
track_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    int rc = 0;

    (void)ctx;
    if (call_kills()) {
        (void)posix_env->write(posix_env->ctx, file, data, len / 2, offset);
        _exit(TRACK_KILLED);
    }
    if (file_is_watched(file)) {
        rc = change_fails();
        dirty_set(file, true);
    }
    return rc != 0 ? rc : posix_env->write(posix_env->ctx, file, data, len, offset);
}

static int
track_sync(void *ctx, int file)
{
    int rc = 0;

    (void)ctx;
    call_counted();
    if (file_is_watched(file))
        rc = change_fails();
    if (rc == 0)
        rc = posix_env->sync(posix_env->ctx, file);
    if (rc == 0 && file_is_watched(file))
        dirty_set(file, false);
    return rc;
}

static int
track_truncate(void *ctx, int file, uint64_t len)
{
    int rc = 0;

    (void)ctx;
    call_counted();
    if (file_is_watched(file)) {
        rc = change_fails();
        dirty_set(file, true);
    }
    return rc != 0 ? rc : posix_env->truncate(posix_env->ctx, file, len);
}

static int
track_rename(void *ctx, const char *from, const char *to)
{
    int rc = 0;

    (void)ctx;
    call_counted();
    if (path_is_watched(to)) {
        rc = change_fails();
        atomic_store_explicit(&names_dirty, true, memory_order_relaxed);
    }
    return rc != 0 ? rc : posix_env->rename(posix_env->ctx, from, to);
}

static int
track_unlink(void *ctx, const char *path)
{
    const char *name = strrchr(path, '/');
    bool marker = path_is_watched(path) && now()->marker != NULL && name != NULL &&
                  strcmp(name + 1, now()->marker) == 0;
    int rc = 0;

    (void)ctx;
    call_counted();
    if (path_is_watched(path)) {
        if (marker && atomic_load_explicit(&names_dirty, memory_order_relaxed))
            count(&unsynced);
        rc = change_fails();
        atomic_store_explicit(&names_dirty, true, memory_order_relaxed);
    }
    if (rc == 0)
        rc = posix_env->unlink(posix_env->ctx, path);
    if (rc == 0 && marker)
        atomic_store_explicit(&marker_gone, true, memory_order_relaxed);
    return rc;
}

static int
track_mkdir(void *ctx, const char *path)
{
    int rc;

    (void)ctx;
    call_counted();
    rc = path_is_watched(path) ? change_fails() : 0;
    return rc != 0 ? rc : posix_env->mkdir(posix_env->ctx, path);
}

static int
track_sync_dir(void *ctx, const char *path)
{
    int rc;

    (void)ctx;
    call_counted();
    rc = path_is_watched(path) ? change_fails() : 0;
    if (rc == 0)
        rc = posix_env->sync_dir(posix_env->ctx, path);
    if (rc == 0 && path_is_watched(path))
        atomic_store_explicit(&names_dirty, false, memory_order_relaxed);
    return rc;
}

static int
track_list(void *ctx, const char *path, int (*visit)(void *, const char *), void *visit_ctx)
{
    (void)ctx;
    call_counted();
    return posix_env->list(posix_env->ctx, path, visit, visit_ctx);
}

static int
track_lock(void *ctx, const char *path, int shared, int64_t *holder_out)
{
    (void)ctx;
    call_counted();
    return posix_env->lock(posix_env->ctx, path, shared, holder_out);
}

/* As far as anybody can tell, blocks are shared. */
static int
track_clone(void *ctx, int from_file, uint64_t from_offset, uint64_t len, int to_file,
            uint64_t to_offset)
{
    static _Thread_local _Alignas(4096) unsigned char bytes[65536];

    (void)ctx;
    call_counted();
    if (!now()->reflink)
        return -95; /* EOPNOTSUPP */
    dirty_set(to_file, true);
    for (uint64_t at = 0; at < len;) {
        size_t n = len - at < sizeof(bytes) ? (size_t)(len - at) : sizeof(bytes);
        int64_t got = posix_env->read(posix_env->ctx, from_file, bytes, n, from_offset + at);

        if (got <= 0 ||
            posix_env->write(posix_env->ctx, to_file, bytes, (size_t)got, to_offset + at) != got)
            return -5; /* EIO */
        at += (uint64_t)got;
    }
    count(&clones);
    return 0;
}

const scree_env *
track_env(void)
{
    static scree_env env;

    posix_env = scree_env_posix();
    env = *posix_env;
    env.open = track_open;
    env.close = track_close;
    env.read = track_read;
    env.write = track_write;
    env.sync = track_sync;
    env.truncate = track_truncate;
    env.rename = track_rename;
    env.unlink = track_unlink;
    env.mkdir = track_mkdir;
    env.sync_dir = track_sync_dir;
    env.list = track_list;
    env.lock = track_lock;
    env.clone = track_clone;
    return &env;
}
