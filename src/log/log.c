/*
 * log.c - make, start, close and destroy the log object.
 *
 * No protocol of its own. ORDER  create (reads headers and mark, writes nothing) -> scans, recount ->
 *   start (repairs if there is a mark, then the two threads) -> writers, readers -> stop -> close_clean ->
 *   destroy. Each of these but writers and readers is called by one thread, alone.
 * FAILURE   create leaves nothing behind; after a failed start only destroy may follow.
 */
#include "log/log_private.h"

static int
options_check(const struct scree__log_options *o)
{
    if (o->segment_bytes < LOG_SEGMENT_BYTES_MIN || o->segment_bytes > LOG_SEGMENT_BYTES_MAX ||
        o->segment_bytes % SCREE_BLOCK != 0)
        return scree__fail(
            SCREE_E_INVALID, "segment_bytes %llu: from %llu to %llu, a multiple of %u",
            (unsigned long long)o->segment_bytes, (unsigned long long)LOG_SEGMENT_BYTES_MIN,
            (unsigned long long)LOG_SEGMENT_BYTES_MAX, SCREE_BLOCK);
    if (o->ring_bytes < LOG_RING_BYTES_MIN || o->ring_bytes > LOG_RING_BYTES_MAX ||
        (o->ring_bytes & (o->ring_bytes - 1)) != 0)
        return scree__fail(
            SCREE_E_INVALID, "log_buffer_bytes %llu: a power of two from %llu to %llu",
            (unsigned long long)o->ring_bytes, (unsigned long long)LOG_RING_BYTES_MIN,
            (unsigned long long)LOG_RING_BYTES_MAX);
    return 0;
}

static void
log_free(struct scree__log *log)
{
    struct scree__log_writer *w = atomic_load_explicit(&log->writers, memory_order_acquire);

    while (w != NULL) {
        struct scree__log_writer *next = w->next;

        scree__free(w, sizeof *w);
        w = next;
    }
    scree__segment_destroy(log);
    scree__ring_unmap(log);
    (void)pthread_mutex_destroy(&log->files_lock);
    (void)pthread_mutex_destroy(&log->mark_lock);
    if (log->options.dir != NULL)
        scree__free((void *)(uintptr_t)log->options.dir, strlen(log->options.dir) + 1);
    scree__free(log, sizeof *log);
}

int
scree__log_create(const struct scree__log_options *options, struct scree__log **log_out)
{
    size_t dir_bytes = strlen(options->dir) + 1;
    int rc = options_check(options);

    *log_out = NULL;
    if (rc != 0)
        return rc;
    struct scree__log *log = scree__alloc_aligned(SCREE_CACHE_LINE, sizeof *log);
    char *dir = scree__alloc(dir_bytes);

    if (log == NULL || dir == NULL) {
        scree__free(log, sizeof *log);
        scree__free(dir, dir_bytes);
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory");
    }
    memset(log, 0, sizeof *log);
    memcpy(dir, options->dir, dir_bytes);
    log->options = *options;
    log->options.dir = dir;
    log->env = options->env;
    log->segment_bytes = options->segment_bytes;
    log->ring_bytes = options->ring_bytes;
    log->ring_mask = options->ring_bytes - 1;
    log->granules =
        (uint32_t)((options->segment_bytes + SCREE__GRANULE_BYTES - 1) / SCREE__GRANULE_BYTES);
    log->unsynced_bytes_max = options->ring_bytes * LOG_UNSYNCED_RINGS;
    (void)pthread_mutex_init(&log->files_lock, NULL);
    (void)pthread_mutex_init(&log->mark_lock, NULL);
    rc = scree__mark_load(log);
    if (rc == 0)
        rc = scree__segment_load(log);
    if (rc != 0) {
        log_free(log);
        return rc;
    }
    *log_out = log;
    return 0;
}

void
scree__log_found(const struct scree__log *log, struct scree__log_found *found_out)
{
    memset(found_out, 0, sizeof *found_out);
    found_out->clean = log->found_clean;
    found_out->segments = log->segment_n;
    if (log->segment_n > 0)
        found_out->first_lsn =
            atomic_load_explicit(&log->segment[0]->number, memory_order_relaxed) *
            log->segment_bytes;
}

int
scree__log_start(struct scree__log *log, const struct scree__log_scan_result *scan,
                 uint64_t known_stable)
{
    uint64_t start = scan->end;
    int rc = 0;

    SCREE_ASSERT(!log->started);
    SCREE_ASSERT(start >= log->segment_bytes && known_stable <= scan->end);
    if (!log->options.read_only) {
        rc = scree__ring_map(log);
        if (rc == 0 && !log->found_clean)
            rc = scree__restart_repair(log, scan->end, known_stable, &start);
    }
    if (rc != 0)
        return rc;
    log->start_lsn = start;
    scree__room_init(log, start);
    scree__flusher_init(log, start);
    log->started = true;
    if (!log->options.read_only)
        rc = scree__room_start(log);
    if (rc == 0 && !log->options.read_only)
        rc = scree__flusher_start(log);
    return rc;
}

bool
scree__log_dirty(const struct scree__log *log)
{
    return atomic_load_explicit(&log->dirty, memory_order_acquire);
}

int
scree__log_stop(struct scree__log *log)
{
    int rc = scree__log_check(log);

    if (rc != 0 || !log->started || log->options.read_only || !scree__log_dirty(log))
        return rc;
    /* Syncing may add a seal: until nothing is left. */
    while (rc == 0 && scree__log_stable(log) < scree__log_tail(log))
        rc = scree__log_wait_stable(log, scree__log_tail(log), UINT64_MAX);
    if (rc != 0)
        return rc;
    scree__room_stop(log);
    scree__flusher_stop(log);
    rc = scree__log_check(log);
    if (rc == 0)
        rc = scree__restart_cut(log, scree__log_tail(log));
    return rc;
}

int
scree__log_close_clean(struct scree__log *log)
{
    int rc = scree__log_check(log);

    if (rc != 0 || !log->started || log->options.read_only || !scree__log_dirty(log))
        return rc;
    return scree__mark_remove(log);
}

void
scree__log_destroy(struct scree__log *log)
{
    if (log == NULL)
        return;
    scree__flusher_stop(log);
    scree__room_stop(log);
    log_free(log);
}
