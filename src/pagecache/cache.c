/*
 * cache.c - open and close a directory: what is made in which order, and unmade in which.
 *
 * OPEN    options -> directory, lock -> manifest (made if the directory is new) -> log object ->
 *         recovery -> the manifest anew, if no close came to its end -> reclaimer, evictor -> root page ->
 *         snapshot thread -> janitor, collector.
 * CLOSE   no guard open -> evictor, janitor, collector, snapshot thread stop -> the log is flushed and its room
 *         ahead given back -> last snapshot -> what is dead goes -> reclaimer stops -> open mark removed ->
 *         memory.
 * FAILURE open undoes what it did and leaves the directory to the next open. Close goes on to the
 *         end: what could not be made durable is told, and the open mark stays, so the next open
 *         recovers.
 */
#include "pagecache/pagecache_private.h"

#include <errno.h>
#include <string.h>

#ifdef SCREE_BUG_READ_ONLY_WRITES
#define READ_ONLY_TIDIES true /* seeded bug: tests must notice */
#else
#define READ_ONLY_TIDIES false
#endif

static const char warning_text[] =
    "This directory belongs to scree, a page cache library: the files segment-*, snapshot-*,\n"
    "manifest-* and OPEN hold one database between them. Do not edit, delete, copy singly or add\n"
    "files here; scree deletes files of those names when it no longer needs them.\n";

int
scree__directory_mark(const scree_env *env, const char *dir)
{
    return scree__env_replace_file(env, dir, SCREE__WARNING_NAME, warning_text,
                                   sizeof warning_text - 1);
}

static void
event_send(scree_cache *cache, const scree_event *event)
{
    const scree_options *o = &cache->options;
    int kind = event->kind;
    bool bad = kind == SCREE_EVENT_POISONED || kind == SCREE_EVENT_SNAPSHOT_FAILED ||
               kind == SCREE_EVENT_NO_SPACE || kind == SCREE_EVENT_SNAPSHOT_FALLBACK ||
               kind == SCREE_EVENT_DAMAGE || kind == SCREE_EVENT_GUARD_HELD;

    if (o->event != NULL)
        o->event(o->callback_ctx, event);
    if (o->log != NULL)
        o->log(o->callback_ctx, bad ? SCREE_LOG_WARNING : SCREE_LOG_INFO, event->code, event->text);
}

void
scree__event(scree_cache *cache, int kind, int code, uint64_t lsn, uint64_t bytes, const char *text)
{
    event_send(cache, &(scree_event){.size = sizeof(scree_event),
                                     .kind = kind,
                                     .code = code,
                                     .lsn = lsn,
                                     .bytes = bytes,
                                     .text = text});
}

void
scree__event_guard(scree_cache *cache, uint64_t bytes, uint64_t age_ms, const char *text)
{
    event_send(cache, &(scree_event){.size = sizeof(scree_event),
                                     .kind = SCREE_EVENT_GUARD_HELD,
                                     .bytes = bytes,
                                     .age_ms = age_ms,
                                     .text = text});
}

static void
log_event(void *ctx, int kind, int code, uint64_t lsn, uint64_t bytes, const char *text)
{
    scree_cache *cache = ctx;

    scree__event(cache, kind, code, lsn, bytes, text);
}

int
scree__code_told(int rc)
{
    return rc == -ENOSPC || rc == -EDQUOT ? SCREE_E_NO_SPACE : rc;
}

/* ---- the directory --------------------------------------------------------------------------- */

static int
directory_lock(scree_cache *cache)
{
    int64_t holder = 0;
    int rc = cache->env->lock(cache->env->ctx, cache->dir, cache->read_only, &holder);

    if (rc >= 0) {
        cache->lock_file = rc;
        return 0;
    }
    if (rc == -EWOULDBLOCK && holder > 0)
        return scree__fail(SCREE_E_LOCKED, "%s is held by process %lld; close it there first",
                           cache->dir, (long long)holder);
    if (rc == -EWOULDBLOCK)
        return scree__fail(SCREE_E_LOCKED, "%s is open elsewhere; close it there first",
                           cache->dir);
    if (rc == -ENOENT)
        return scree__fail(rc, "%s does not exist; open it with SCREE_CREATE to make it",
                           cache->dir);
    return scree__fail(rc, "cannot lock the directory %s: %s", cache->dir, scree_strerror(rc));
}

static int
segment_seen(void *arg, const char *name)
{
    bool *any = arg;

    *any |= strncmp(name, "segment-", 8) == 0 && strlen(name) == 8 + 16;
    return 0;
}

/* The directory's own entry is durable before anything in it counts. */
static int
parent_sync(scree_cache *cache)
{
    char *parent = scree__path_join(cache->dir, "..");
    int rc = parent == NULL ? SCREE_E_NO_MEMORY : cache->env->sync_dir(cache->env->ctx, parent);

    scree__path_free(parent);
    return rc == 0 ? 0 : scree__fail(rc, "cannot sync the directory above %s", cache->dir);
}

/* No manifest: a new directory, or one whose creation was cut short before its first segment. */
static int
directory_init(scree_cache *cache)
{
    struct scree__manifest *m = &cache->manifest;
    const scree_env *env = cache->env;
    bool segments = false;
    int rc = env->list(env->ctx, cache->dir, segment_seen, &segments);

    if (rc == 0 && segments)
        return scree__fail(SCREE_E_CORRUPT,
                           "%s has log segments but no manifest: it was deleted; restore it, or "
                           "salvage what there is",
                           cache->dir);
    if (rc != 0)
        return scree__fail(rc, "cannot list %s: %s", cache->dir, scree_strerror(rc));
    if ((cache->options.flags & SCREE_CREATE) == 0)
        return scree__fail(-ENOENT, "%s is not a scree directory; open it with SCREE_CREATE",
                           cache->dir);
    memset(m, 0, sizeof *m);
    m->number = 1;
    m->segment_bytes = cache->options.segment_bytes;
    m->materializer_version = cache->materializer.version;
    strncpy(m->materializer, cache->materializer.name, sizeof m->materializer - 1);
    rc = env->random(env->ctx, m->uuid, sizeof m->uuid);
    if (rc < 0)
        return scree__fail(rc, "cannot draw random bytes: %s", scree_strerror(rc));
    rc = parent_sync(cache);
    if (rc == 0)
        rc = scree__directory_mark(env, cache->dir);
    return rc == 0 ? scree__manifest_store(env, cache->dir, m) : rc;
}

static int
manifest_open(scree_cache *cache, bool *made_out)
{
    struct scree__manifest *m = &cache->manifest;
    uint32_t skipped = 0;
    int rc = scree__manifest_load(cache->env, cache->dir, m, &skipped);

    *made_out = rc == -ENOENT;
    if (*made_out)
        rc = directory_init(cache);
    else if (rc == 0 && (cache->options.flags & SCREE_EXCLUSIVE) != 0)
        rc = scree__fail(-EEXIST, "%s exists already", cache->dir);
    if (rc != 0)
        return rc;
    cache->snapshot_full = skipped > 0;
    if (skipped > 0)
        scree__event(cache, SCREE_EVENT_SNAPSHOT_FALLBACK, SCREE_E_CORRUPT, 0, 0,
                     "the newest manifest is damaged; the one before it is used");
    if (strcmp(m->materializer, cache->materializer.name) != 0 ||
        m->materializer_version != cache->materializer.version)
        return scree__fail(SCREE_E_MATERIALIZER,
                           "%s was made with materializer '%s' version %u, not '%s' version %u",
                           cache->dir, m->materializer, m->materializer_version,
                           cache->materializer.name, cache->materializer.version);
    cache->options.segment_bytes = m->segment_bytes;
    return 0;
}

/* A copy that scree_backup did not finish is no directory, whatever is in it. */
static int
directory_check_whole(scree_cache *cache)
{
    const scree_env *env = cache->env;
    char *path = scree__path_join(cache->dir, SCREE__INCOMPLETE_NAME);
    int file;

    if (path == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for a file name");
    file = env->open(env->ctx, path, SCREE_ENV_READ);
    scree__path_free(path);
    if (file == -ENOENT)
        return 0;
    if (file < 0)
        return scree__fail(file, "%s/%s: cannot open: %s", cache->dir, SCREE__INCOMPLETE_NAME,
                           scree_strerror(file));
    (void)env->close(env->ctx, file); /* nothing was read */
    return scree__fail(
        SCREE_E_CORRUPT,
        "%s is a backup that was not finished (it holds %s); delete the directory and "
        "make the backup anew",
        cache->dir, SCREE__INCOMPLETE_NAME);
}

static int
directory_open(scree_cache *cache, bool *made_out)
{
    const scree_env *env = cache->env;
    int rc = 0;

    if ((cache->options.flags & SCREE_CREATE) != 0)
        rc = env->mkdir(env->ctx, cache->dir);
    if (rc != 0 && rc != -EEXIST)
        return scree__fail(rc, "cannot make the directory %s: %s", cache->dir, scree_strerror(rc));
    rc = directory_lock(cache);
    if (rc == 0)
        rc = scree__fork_check();
    if (rc == 0)
        rc = directory_check_whole(cache);
    if (rc == 0 && (!cache->read_only || READ_ONLY_TIDIES))
        scree__spare_adopt(cache);
    return rc == 0 ? manifest_open(cache, made_out) : rc;
}

/* ---- open ------------------------------------------------------------------------------------ */

static int
log_open(scree_cache *cache)
{
    struct scree__log_options o = {
        .env = cache->env,
        .dir = cache->dir,
        .segment_bytes = cache->options.segment_bytes,
        .ring_bytes = cache->options.log_buffer_bytes,
        .disk_limit_bytes = cache->options.disk_limit_bytes,
        .flush_interval_ms = cache->options.flush_interval_ms,
        .io_mode = cache->options.io_mode,
        .read_only = cache->read_only,
        .ctx = cache,
        .no_punch = (cache->options.flags & SCREE_NO_PUNCH) != 0,
        .on_event = log_event,
        .on_room = scree__space_room,
    };

    memcpy(o.uuid, cache->manifest.uuid, sizeof o.uuid);
    return scree__log_create(&o, &cache->log);
}

/* Where no close came to its end, the name of the manifest may be one whose sync had failed, and which a power
   cut would still take back, though later syncs succeed. Nothing is deleted that an older manifest needs
   before the newest has a name that is durable. */
static int
manifest_renew(scree_cache *cache)
{
    struct scree__manifest m = cache->manifest;
    struct scree__log_found found;
    int rc;

    scree__log_found(cache->log, &found);
#ifdef SCREE_BUG_MANIFEST_TRUSTED /* seeded: what is found is durable; fault_io must fail */
    return 0;
#endif
    if (found.segments > 0 && cache->recovery.clean)
        return 0;
    m.number++;
    rc = scree__manifest_store(cache->env, cache->dir, &m);
    if (rc == 0)
        cache->manifest = m;
    if (scree__code_told(rc) != SCREE_E_NO_SPACE)
        return rc;
    scree__fail_clear(); /* a full disk can be opened: the next manifest will do */
    return 0;
}

static int
threads_start(scree_cache *cache)
{
    int rc = scree__reclaimer_start(cache);

    if (rc != 0)
        return rc;
    rc = scree__evictor_start(cache);
    if (rc != 0) {
        scree__reclaimer_stop(cache);
        return rc;
    }
    if (cache->read_only)
        return 0;
    /* No guard is older than this: what was free when it was opened may be used at once. */
    atomic_store_explicit(&cache->cooled_lsn, scree__log_tail(cache->log), memory_order_release);
    if (scree__log_dirty(cache->log))
        scree__spare_hold(cache); /* before the log takes what is left */
    scree__log_room_hold(cache->log, false);
    rc = scree__root_ensure(cache);
    if (rc == 0 && !scree__log_only_sealed_since(cache->log, cache->fold_lsn))
        rc = scree__log_wait_stable(cache->log, scree__log_tail(cache->log), UINT64_MAX);
    if (rc == 0)
        rc = scree__checkpointer_start(cache);
    if (rc == 0) {
        rc = scree__janitor_start(cache);
        if (rc != 0)
            scree__checkpointer_stop(cache);
    }
    if (rc != 0) {
        scree__evictor_stop(cache);
        scree__reclaimer_stop(cache);
    }
    return rc;
}

static void
cache_destroy(scree_cache *cache)
{
    scree_materializer *m = &cache->materializer;

    scree__context_destroy_all(cache);
    if (cache->log != NULL)
        scree__log_destroy(cache->log);
    scree__nodes_destroy(cache);
    scree__radix_destroy(&cache->radix);
    scree__out_destroy(&cache->fold);
    scree__free(cache->recovery_state, cache->recovery_state_len);
    scree__free(cache->freed, cache->freed_cap * sizeof *cache->freed);
    if (cache->lock_file >= 0)
        cache->env->close(cache->env->ctx, cache->lock_file);
    scree__reads_destroy(cache);
    scree__prefetch_destroy(cache);
    scree__generator_destroy(cache);
    scree__feed_destroy(cache);
    pthread_mutex_destroy(&cache->id_mutex);
    pthread_mutex_destroy(&cache->checkpoint_mutex);
    pthread_mutex_destroy(&cache->collect_mutex);
    pthread_mutex_destroy(&cache->clean_mutex);
    scree__free((char *)(uintptr_t)m->name, m->name == NULL ? 0 : strlen(m->name) + 1);
    scree__free(cache->dir, cache->dir == NULL ? 0 : strlen(cache->dir) + 1);
    scree__free(cache, sizeof *cache);
}

static char *
string_copy(const char *s)
{
    char *copy = scree__alloc(strlen(s) + 1);

    if (copy != NULL)
        memcpy(copy, s, strlen(s) + 1);
    return copy;
}

static int
cache_new(const char *dir, const scree_options *o, scree_cache **cache_out)
{
    scree_cache *cache = scree__alloc_zero(sizeof *cache);

    *cache_out = cache;
    if (cache == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for a cache");
    cache->lock_file = -1;
    atomic_store_explicit(&cache->pin_lsn, UINT64_MAX, memory_order_relaxed);
    cache->merging_from = UINT64_MAX;
    cache->options = *o;
    cache->env = o->env;
    cache->materializer = *o->materializer;
    cache->materializer.name = string_copy(o->materializer->name);
    cache->dir = string_copy(dir);
    cache->read_only = (o->flags & SCREE_READ_ONLY) != 0;
    cache->charge_step = o->cache_bytes / 256 < 32768 ? o->cache_bytes / 256 : 32768;
    scree__radix_init(&cache->radix);
    scree__out_init(&cache->fold, SIZE_MAX / 2);
    scree__reads_init(cache);
    scree__prefetch_init(cache);
    scree__generator_init(cache);
    scree__feed_init(cache);
    pthread_mutex_init(&cache->id_mutex, NULL);
    pthread_mutex_init(&cache->checkpoint_mutex, NULL);
    pthread_mutex_init(&cache->collect_mutex, NULL);
    pthread_mutex_init(&cache->clean_mutex, NULL);
    if (cache->dir == NULL || cache->materializer.name == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for a cache");
    return 0;
}

int
scree_open(const char *dir, const scree_options *options, scree_cache **cache_out)
{
    scree_cache *cache = NULL;
    scree_options o;
    bool made = false;
    int rc = scree__options_normalize(options, &o);

    if (cache_out != NULL)
        *cache_out = NULL;
    if (rc == 0 && (dir == NULL || dir[0] == '\0' || cache_out == NULL))
        rc = scree__fail(SCREE_E_INVALID, "scree_open: dir and cache_out are required");
    if (rc == 0)
        rc = scree__fork_watch();
    if (rc == 0 && scree__rcu_inside() && scree__fork_check() == 0)
        rc = scree__fail(SCREE_E_BUSY,
                         "scree_open: this thread is in a read section; leave it first");
    if (rc != 0)
        return rc;
    rc = cache_new(dir, &o, &cache);
    if (rc == 0)
        rc = directory_open(cache, &made);
    if (rc == 0)
        rc = log_open(cache);
    if (rc == 0)
        rc = scree__recover(cache);
    if (rc == 0 && !made && !cache->read_only)
        rc = manifest_renew(cache);
    if (rc == 0) {
        scree__context_publish_cache(cache);
        rc = threads_start(cache);
        if (rc != 0)
            scree__context_retire_cache(cache);
    }
    if (rc != 0) {
        if (cache != NULL)
            cache_destroy(cache);
        return scree__code_told(rc);
    }
    if (!cache->recovery.clean)
        scree__event(cache, SCREE_EVENT_RECOVERED, 0, cache->recovery.stable_lsn,
                     cache->recovery.torn_bytes, "recovered after a crash");
    *cache_out = cache;
    return 0;
}

/* ---- close ----------------------------------------------------------------------------------- */

/* Make the directory whole and clean, if anything happened to it. */
static int
close_directory(scree_cache *cache)
{
    uint64_t lsn;
    int rc, stopped;

    if (cache->read_only || (scree__log_health(cache->log) == 0 && !scree__log_dirty(cache->log)))
        return 0;
    rc = scree__check_health(cache);
    if (rc == 0)
        rc = scree__log_stop(cache->log);
    stopped = rc;
    scree__generator_close(cache);
    scree__spare_drop(cache); /* on a full disk all the room there is is for the snapshot */
    if (rc == 0)
        rc = scree__checkpoint(cache, &lsn);
    /* No room for a seal, or for the snapshot: once more with what can be given back. What else stopped the log
       from ending is not tried again: a sync that failed would seem to be done the second time. */
    if (rc != 0 && (stopped == 0 || stopped == SCREE_E_NO_SPACE) &&
        scree__log_health(cache->log) == 0) {
        if (scree__checkpoint_drop_older(cache) == 0)
            scree__space_collect(cache, true);
        rc = stopped == 0 ? 0 : scree__log_stop(cache->log);
        if (rc == 0)
            rc = scree__checkpoint(cache, &lsn);
    }
    if (rc == 0)
        scree__space_collect(cache, true);
    return rc;
}

int
scree_close(scree_cache *cache)
{
    int rc = scree__check_cache(cache, "scree_close"), log_rc;

    if (rc == 0)
        rc = scree__context_guards_check(cache);
    if (rc == 0 && atomic_load_explicit(&cache->batches_open, memory_order_acquire) != 0)
        rc = scree__fail(SCREE_E_BUSY, "scree_close: a batch is open; commit or abort it first");
    if (rc == 0 && scree__feed_is_read(cache))
        rc = scree__fail(SCREE_E_BUSY, "scree_close: a log reader is open; close it first");
    if (rc == 0 && scree__rcu_inside())
        rc = scree__fail(SCREE_E_BUSY, "scree_close: this thread is in a read section, of another "
                                       "cache or its own, that close would wait for");
    if (rc != 0)
        return rc;
    scree__prefetch_stop(cache);
    scree__evictor_stop(cache);
    if (!cache->read_only) {
        scree__janitor_stop(cache);
        scree__checkpointer_stop(cache);
    }
    rc = close_directory(cache);
    scree__context_retire_cache(cache);
    scree__reclaimer_stop(cache);
    log_rc = rc == 0 ? scree__log_close_clean(cache->log) : 0;
    cache_destroy(cache);
    return scree__code_told(rc != 0 ? rc : log_rc);
}

/* ---- calls about the whole cache ------------------------------------------------------------- */

static int
forked(const char *call)
{
    return scree__fail(SCREE_E_FORKED,
                       "%s: this cache was open when this process was forked; it is the parent's",
                       call);
}

int
scree__check_cache(const scree_cache *cache, const char *call)
{
    if (cache == NULL)
        return scree__fail(SCREE_E_INVALID, "%s: cache is NULL", call);
    return scree__forked(cache) ? forked(call) : 0;
}

int
scree__enter_call(scree_cache *cache, struct scree__context **ctx_out)
{
    *ctx_out = NULL;
    if (cache == NULL)
        return scree__fail(SCREE_E_INVALID, "the cache is NULL");
    *ctx_out = scree__context(cache);
    if (*ctx_out == NULL && scree__forked(cache))
        return forked("scree");
    return *ctx_out != NULL ? 0
                            : scree__fail(SCREE_E_NO_MEMORY, "no memory for this thread's context");
}

int
scree__check_health(const scree_cache *cache)
{
    int health = scree__log_health(cache->log);

    if (health == 0)
        return 0;
    return scree__fail(SCREE_E_POISONED, "a write failed earlier (%s); reopen %s to recover",
                       scree_strerror(health), cache->dir);
}

int
scree__check_update(const scree_cache *cache, scree_page_id id, scree_slice payload)
{
    if (id == 0)
        return scree__fail(SCREE_E_INVALID, "0 is never a page");
    if (payload.data == NULL && payload.len > 0)
        return scree__fail(SCREE_E_INVALID, "the payload is NULL but its length is %zu",
                           payload.len);
    if (payload.len > cache->options.page_bytes_max)
        return scree__fail(SCREE_E_TOO_BIG, "the payload has %zu bytes, page_bytes_max is %llu",
                           payload.len, (unsigned long long)cache->options.page_bytes_max);
    if (payload.len > scree__payload_max(cache))
        return scree__fail(SCREE_E_TOO_BIG,
                           "the payload has %zu bytes, cache_bytes is %llu: it would not fit; the "
                           "largest that does has %llu",
                           payload.len, (unsigned long long)cache->options.cache_bytes,
                           (unsigned long long)scree__payload_max(cache));
    if (cache->read_only)
        return scree__fail(SCREE_E_READ_ONLY, "%s was opened read-only", cache->dir);
    return scree__check_health(cache);
}

int
scree_wait_stable(scree_cache *cache, scree_lsn lsn, int timeout_ms)
{
    struct scree__context *ctx;
    int rc = scree__enter_call(cache, &ctx);

    if (rc != 0)
        return rc;
    if (lsn <= scree__log_stable(cache->log))
        return 0;
    if (lsn > scree__log_tail(cache->log) || cache->read_only)
        return scree__fail(
            SCREE_E_INVALID, "lsn %llu is beyond the end of the log at %llu: it would never come",
            (unsigned long long)lsn, (unsigned long long)scree__log_tail(cache->log));
    return scree__log_wait_stable(cache->log, lsn,
                                  timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000 * 1000);
}

int
scree_flush(scree_cache *cache, scree_lsn *stable_out)
{
    struct scree__context *ctx;
    int rc = scree__enter_call(cache, &ctx);

    if (stable_out != NULL)
        *stable_out = 0;
    if (rc == 0)
        rc = scree__check_health(cache);
    if (rc == 0 && !cache->read_only)
        rc = scree__log_wait_stable(cache->log, scree__log_tail(cache->log), UINT64_MAX);
    if (rc == 0 && stable_out != NULL)
        *stable_out = scree__log_stable(cache->log);
    return scree__code_told(rc);
}

scree_lsn
scree_stable_lsn(const scree_cache *cache)
{
    return cache == NULL || scree__forked(cache) ? 0 : scree__log_stable(cache->log);
}

int
scree_health(const scree_cache *cache)
{
    int rc = scree__check_cache(cache, "scree_health");

    return rc != 0 ? rc : scree__log_health(cache->log);
}

int
scree_recovery(const scree_cache *cache, scree_recovery_info *info_out)
{
    if (cache == NULL || info_out == NULL || info_out->size < sizeof info_out->size)
        return scree__fail(SCREE_E_INVALID,
                           "scree_recovery: cache and info_out, with its size set, are required");
    if (scree__forked(cache))
        return forked("scree_recovery");
    size_t size = info_out->size;

    memset(info_out, 0, size);
    memcpy(info_out, &cache->recovery, size < sizeof *info_out ? size : sizeof *info_out);
    info_out->size = size;
    return 0;
}

int
scree_recovery_state(const scree_cache *cache, scree_slice *state_out)
{
    if (state_out != NULL)
        *state_out = (scree_slice){NULL, 0};
    if (cache == NULL || state_out == NULL)
        return scree__fail(SCREE_E_INVALID,
                           "scree_recovery_state: cache and state_out are required");
    if (scree__forked(cache))
        return forked("scree_recovery_state");
    *state_out = (scree_slice){cache->recovery_state, cache->recovery_state_len};
    return 0;
}
