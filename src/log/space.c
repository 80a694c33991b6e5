/*
 * space.c - how many bytes of each segment are dead, since when, and which segments may go.
 *
 * WORDS  segment.dead_bytes: bytes charged dead. segment.death_lsn: the largest lsn at which one of
 *        them died (D).
 * EDGES  step                                who              order             pairs
 *   E0   death_lsn = max(., D)               any thread       CAS relaxed       -
 *   E1   dead_bytes + n                      any thread       fetch_add release E2
 *   E2   all dead? then D                    the collector    load acquire      E1
 *   E0 comes before E1: who sees all bytes dead sees every D.
 * INVARIANTS
 *   I1 a byte is charged once; so dead_bytes never exceeds segment_bytes.
 *   I2 a segment is picked if it is written to its end, all its bytes are dead, and D < floor: what
 *      superseded them lies below the replay start of every retained snapshot.
 *   I3 D of a byte is not below its own lsn, so a picked segment lies below the floor as a whole.
 * LIFETIME  pick marks, drop unlinks; the caller puts a grace period between them: a reader that
 *   found the position before has read it, or will find the segment gone and look again. Reads that
 *   are going on pin the file (segment.c).
 * PROGRESS  charging: two RMWs. pick and drop: one thread at a time, files_lock for short.
 * FAILURE   a file that cannot be deleted stays picked and is tried again by the next drop.
 * NOT HERE  when to collect, and the grace period (pagecache).
 */
#include "log/log_private.h"

static void
segment_charge(struct log_segment *seg, uint64_t bytes, uint64_t death_lsn)
{
    uint64_t seen = atomic_load_explicit(&seg->death_lsn, memory_order_relaxed);

    /* E0. Relaxed: E1 publishes it. */
    while (seen < death_lsn &&
           !atomic_compare_exchange_weak_explicit(&seg->death_lsn, &seen, death_lsn,
                                                  memory_order_relaxed, memory_order_relaxed))
        SCREE_YIELD_POINT();
    (void)atomic_fetch_add_explicit(&seg->dead_bytes, bytes, memory_order_release); /* E1 */
}

void
scree__log_charge_dead(struct scree__log *log, uint64_t lsn, uint64_t len, uint64_t death_lsn)
{
    while (len > 0) {
        uint64_t in_segment = log->segment_bytes - lsn % log->segment_bytes;
        uint64_t n = len < in_segment ? len : in_segment;
        struct log_segment *seg = scree__segment_peek(log, lsn / log->segment_bytes);

        /* None: its file is missing, so nothing of it occupies room. */
        if (seg != NULL)
            segment_charge(seg, n, death_lsn);
        lsn += n;
        len -= n;
    }
}

/* Relaxed: recovery, before any collector. False: more is claimed alive than was ever written. */
static bool
segment_revive(struct log_segment *seg, uint64_t bytes)
{
    uint64_t dead = atomic_load_explicit(&seg->dead_bytes, memory_order_relaxed);

    if (dead < bytes)
        return false;
    atomic_store_explicit(&seg->dead_bytes, dead - bytes, memory_order_relaxed);
    return true;
}

int
scree__log_charge_live(struct scree__log *log, uint64_t lsn, uint64_t len)
{
    while (len > 0) {
        uint64_t in_segment = log->segment_bytes - lsn % log->segment_bytes;
        uint64_t n = len < in_segment ? len : in_segment;
        struct log_segment *seg = scree__segment_peek(log, lsn / log->segment_bytes);

        if (seg != NULL && !segment_revive(seg, n))
            return scree__fail(SCREE_E_CORRUPT,
                               "the page table says that two records lie at lsn %llu",
                               (unsigned long long)lsn);
        lsn += n;
        len -= n;
    }
    return 0;
}

/* Positions of the segment below `end`. */
static uint64_t
segment_written(const struct scree__log *log, uint64_t number, uint64_t end)
{
    uint64_t start = number * log->segment_bytes;
    uint64_t written = end > start ? end - start : 0;

    return written < log->segment_bytes ? written : log->segment_bytes;
}

void
scree__log_recount_begin(struct scree__log *log, uint64_t end, uint64_t death_lsn)
{
    (void)pthread_mutex_lock(&log->files_lock);
    for (size_t i = 0; i < log->segment_n; i++) {
        struct log_segment *seg = log->segment[i];
        uint64_t number = atomic_load_explicit(&seg->number, memory_order_relaxed);
        uint64_t dead = segment_written(log, number, end);
        uint64_t death = death_lsn;

        /* What a crash left unused at the end of an old segment is dead too; the segment must
           stay as long as the jump behind it is needed. */
        if (i + 1 < log->segment_n && dead == log->segment_bytes) {
            const struct log_segment *next = log->segment[i + 1];
            uint64_t jump = atomic_load_explicit(&next->number, memory_order_relaxed);

            if (next->header_ok && next->prev_end < jump * log->segment_bytes &&
                next->prev_end / log->segment_bytes == number &&
                jump * log->segment_bytes - 1 > death)
                death = jump * log->segment_bytes - 1;
        }
        atomic_store_explicit(&seg->dead_bytes, dead, memory_order_relaxed);
        atomic_store_explicit(&seg->death_lsn, dead == 0 ? 0 : death, memory_order_relaxed);
    }
    (void)pthread_mutex_unlock(&log->files_lock);
}

/* I2 */
static bool
segment_may_go(const struct scree__log *log, const struct log_segment *seg, uint64_t floor)
{
    uint64_t number = atomic_load_explicit(&seg->number, memory_order_relaxed); /* files_lock */
    uint64_t flushed = atomic_load_explicit(&log->stable, memory_order_acquire);

    if ((number + 1) * log->segment_bytes > flushed)
        return false;
    if (atomic_load_explicit(&seg->dead_bytes, memory_order_acquire) < log->segment_bytes) /* E2 */
        return false;
    return atomic_load_explicit(&seg->death_lsn, memory_order_relaxed) < floor; /* after E2 */
}

size_t
scree__log_dead_pick(struct scree__log *log, uint64_t floor)
{
    size_t n = 0;

    (void)pthread_mutex_lock(&log->files_lock);
    for (size_t i = 0; i < log->segment_n; i++) {
        struct log_segment *seg = log->segment[i];

        if (!seg->picked)
            seg->picked = segment_may_go(log, seg, floor);
        n += seg->picked;
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    return n;
}

/* The first picked segment with a number >= from. */
static bool
picked_next(struct scree__log *log, uint64_t from, uint64_t *number_out, uint64_t *bytes_out)
{
    bool found = false;

    (void)pthread_mutex_lock(&log->files_lock);
    for (size_t i = 0; i < log->segment_n && !found; i++) {
        const struct log_segment *seg = log->segment[i];

        *number_out = atomic_load_explicit(&seg->number, memory_order_relaxed);
        *bytes_out = seg->file_bytes;
        found = seg->picked && *number_out >= from;
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    return found;
}

size_t
scree__log_dead_drop(struct scree__log *log)
{
    uint64_t number, bytes;
    size_t n = 0;

    for (uint64_t from = 0; picked_next(log, from, &number, &bytes); from = number + 1) {
        if (scree__segment_remove(log, number) != 0)
            continue;
        n++;
        /* Relaxed: a counter for stats. */
        (void)atomic_fetch_add_explicit(&log->deleted_bytes, bytes, memory_order_relaxed);
        scree__log_event(log, SCREE_EVENT_SEGMENT_DELETED, 0, number * log->segment_bytes, bytes,
                         "dead log segment deleted");
    }
    if (n > 0)
        scree__room_freed(log);
    return n;
}

void
scree__log_stats(struct scree__log *log, struct scree__log_stats *stats_out)
{
    uint64_t tail = atomic_load_explicit(&log->tail, memory_order_acquire);

    memset(stats_out, 0, sizeof *stats_out);
    (void)pthread_mutex_lock(&log->files_lock);
    for (size_t i = 0; i < log->segment_n; i++) {
        const struct log_segment *seg = log->segment[i];
        uint64_t number = atomic_load_explicit(&seg->number, memory_order_relaxed);
        uint64_t written = segment_written(log, number, tail);
        uint64_t dead = atomic_load_explicit(&seg->dead_bytes, memory_order_relaxed);

        /* A charge may be newer than the tail we saw. */
        stats_out->live_bytes += dead < written ? written - dead : 0;
    }
    stats_out->segments = log->segment_n;
    (void)pthread_mutex_unlock(&log->files_lock);
    /* Relaxed: counters. */
    stats_out->disk_bytes = atomic_load_explicit(&log->disk_bytes, memory_order_relaxed);
    stats_out->deleted_bytes = atomic_load_explicit(&log->deleted_bytes, memory_order_relaxed);
    stats_out->device_bytes = atomic_load_explicit(&log->device_bytes, memory_order_relaxed);
    stats_out->log_bytes = tail - log->start_lsn;
}
