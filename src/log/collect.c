/*
 * collect.c - give dead space back: holes for dead granules, unlinking for dead segments.
 *
 * STEPS  C1  pick: find granules that are all dead with D < floor, a segment of nothing else as a whole
 *        C2  the caller lets a grace period pass
 *        C3  drop: punch or unlink what was picked
 * INVARIANTS
 *   I1 floor is the replay start of the oldest retained snapshot, so it is stable. With space.c's I2: what
 *      superseded the bytes is durable, no retained snapshot refers to them, no replay meets the hole, and
 *      nobody writes there any more.
 *   I2 a reader that found the position before C1 has left its read section by C3; one that looks later
 *      finds what superseded it. Reads that are going on pin the file (segment.c).
 *   I3 dead bytes stay dead: what was picked may be dropped at any later time.
 *   I4 a punched granule is marked, so it is punched once; the last granule of a segment takes the file along.
 * LIFETIME  one collector at a time; the list of picks is its own. Segments only go here and in restart.c,
 *   so a number that was picked keeps its meaning.
 * PROGRESS  files_lock per segment, for short. I/O outside of it.
 * FAILURE   a range that cannot be given back now stays and is picked again the next time. A file system
 *   that cannot punch holes is told of once; from then on only whole segments go.
 * NOT HERE  when to collect, and the grace period (pagecache).
 */
#include "log/log_private.h"

#include <errno.h>

#ifdef SCREE_BUG_RECLAIM_NO_FLOOR
#define FLOOR_COUNTS false /* seeded bug: tests must notice */
#else
#define FLOOR_COUNTS true
#endif

/* E2 of space.c; I1. */
bool
scree__granule_may_go(const struct scree__log *log, const struct log_segment *seg, uint32_t i,
                      uint64_t floor)
{
    uint64_t word = atomic_load_explicit(&seg->granule[i], memory_order_acquire);

    if (scree__granule_dead(word) < scree__granule_bytes(log, i))
        return false;
    return !FLOOR_COUNTS || scree__granule_death_end(word) <= floor;
}

static void
pick_add(struct scree__log *log, uint64_t number, uint32_t first, uint32_t n)
{
    log->pick[log->pick_n++] = (struct log_pick){.number = number, .first = first, .n = n};
}

/* Runs of dead granules that are not holes yet; all of the segment: one pick of everything. */
static void
segment_pick(struct scree__log *log, const struct log_segment *seg, uint64_t floor,
             uint32_t run_min)
{
    uint64_t number = atomic_load_explicit(&seg->number, memory_order_relaxed); /* files_lock */
    uint32_t gone = 0, run = 0;
    size_t before = log->pick_n;

    for (uint32_t i = 0; i < log->granules; i++) {
        bool may_go = scree__granule_may_go(log, seg, i, floor);
        bool hole = may_go && scree__granule_punched(seg, i);

        gone += may_go;
        if (may_go && !hole) {
            run++;
            continue;
        }
        if (run >= run_min && log->pick_n < LOG_PICKS)
            pick_add(log, number, i - run, run);
        run = 0;
    }
    if (gone == log->granules) {
        log->pick_n = before;
        pick_add(log, number, 0, log->granules);
    } else if (run >= run_min && log->pick_n < LOG_PICKS) {
        pick_add(log, number, log->granules - run, run);
    }
}

size_t
scree__log_dead_pick(struct scree__log *log, uint64_t floor, bool all)
{
    uint32_t run_min = scree__punch_run(log);

    if (all && run_min < log->granules)
        run_min = 1;
    log->pick_n = 0;
    for (uint64_t number = 0; log->pick_n < LOG_PICKS; number++) {
        (void)pthread_mutex_lock(&log->files_lock);
        struct log_segment *seg = scree__segment_lower(log, number);

        if (seg != NULL) {
            number = atomic_load_explicit(&seg->number, memory_order_relaxed); /* files_lock */
            segment_pick(log, seg, floor, run_min);
        }
        (void)pthread_mutex_unlock(&log->files_lock);
        if (seg == NULL)
            break;
    }
    return log->pick_n;
}

uint64_t
scree__log_pinned_bytes(struct scree__log *log, uint64_t floor, uint64_t unpinned)
{
    uint64_t sum = 0;

    if (floor >= unpinned)
        return 0;
    (void)pthread_mutex_lock(&log->files_lock);
    for (size_t at = 0; at < log->segment_n; at++) {
        const struct log_segment *seg = log->segment[at];

        for (uint32_t i = 0; i < log->granules; i++)
            if (!scree__granule_punched(seg, i) && scree__granule_may_go(log, seg, i, unpinned) &&
                !scree__granule_may_go(log, seg, i, floor))
                sum += scree__granule_bytes(log, i);
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    return sum;
}

static int
pick_unlink(struct scree__log *log, const struct log_pick *pick)
{
    uint64_t bytes;
    int rc = scree__segment_remove(log, pick->number, &bytes);

    if (rc != 0)
        return rc;
    /* Relaxed: a counter for stats. */
    (void)atomic_fetch_add_explicit(&log->deleted_bytes, bytes, memory_order_relaxed);
    scree__log_event(log, SCREE_EVENT_SEGMENT_DELETED, 0, pick->number * log->segment_bytes, bytes,
                     "dead log segment deleted");
    return 0;
}

static int
pick_punch(struct scree__log *log, const struct log_pick *pick)
{
    bool known = atomic_load_explicit(&log->no_punch, memory_order_relaxed); /* stored here only */
    int rc = known ? -EOPNOTSUPP : scree__segment_punch(log, pick->number, pick->first, pick->n);

    if (!known && (rc == -EOPNOTSUPP || rc == -ENOSYS)) {
        atomic_store_explicit(&log->no_punch, true, memory_order_relaxed); /* a hint to victim.c */
        scree__log_event(log, SCREE_EVENT_NO_PUNCH, rc, 0, 0,
                         "no hole punching on this file system: whole segments are cleaned");
    }
    return rc;
}

size_t
scree__log_dead_drop(struct scree__log *log)
{
    size_t dropped = 0;

    for (size_t i = 0; i < log->pick_n; i++) {
        const struct log_pick *pick = &log->pick[i];

        if (pick->n < log->granules)
            dropped += pick_punch(log, pick) == 0;
        else
            dropped += pick_unlink(log, pick) == 0;
    }
    log->pick_n = 0;
    if (dropped > 0)
        scree__room_freed(log);
    return dropped;
}
