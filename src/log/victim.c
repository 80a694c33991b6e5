/*
 * victim.c - choose what is worth cleaning: ranges that hold much dead and little that lives.
 *
 * A unit is up to UNIT_GRANULES granules of a segment, or a whole segment where holes cannot be punched.
 * Units are ranked by  (1 - u) / (1 + u) * sqrt(age)  (squared, which ranks alike), u the share that lives
 * in what the unit occupies: the cost-benefit rule of the log-structured file system, its age damped. In a
 * model of it (docs/impl.md, "Space") zipfian overwrites cost 1.81 writes each, against 1.83 greedily and
 * 1.95 with the full age; uniform ones the same with all three.
 *
 * Every file has to be worth its place too: when the files are many for what they hold, those with the
 * least in them come first, however well that lives.
 *
 * No atomics but loads of figures; under files_lock, a segment at a time. FAILURE no memory: none, or some.
 * REFS  Rosenblum, Ousterhout: The design and implementation of a log-structured file system (1992).
 */
#include "log/log_private.h"

#include <stdlib.h>

#define UNIT_GRANULES 64u

#define FILES_SLACK 16u
#define FILES_PER_FULL 4u /* files, for each full one that the bytes on disk would make */
#define THIN_SHARE 16u    /* a file with less than this part in use is thin */
#define THIN_BONUS 1e24

struct unit {
    double score;
    uint64_t lsn, len, live, dead;
};

struct units {
    struct unit *unit;
    size_t n, cap;
    bool failed;
};

static void
units_add(struct units *u, struct unit unit)
{
    struct unit *grown = scree__array_reserve(u->unit, &u->cap, u->n + 1, sizeof *grown);

    if (grown == NULL) {
        u->failed = true;
        return;
    }
    u->unit = grown;
    u->unit[u->n++] = unit;
}

static uint32_t
unit_granules(const struct scree__log *log)
{
    uint32_t n = log->granules / LOG_PIECES, run = scree__punch_run(log);

    n = n < UNIT_GRANULES ? n : UNIT_GRANULES;
    return n > run ? n : run;
}

/* Granules [first, first + n) of a segment. */
static struct unit
unit_measure(const struct scree__log *log, const struct log_segment *seg, uint32_t first,
             uint32_t n, uint64_t stable, double live_share_max)
{
    struct unit unit = {.lsn = atomic_load_explicit(&seg->number, memory_order_relaxed) *
                                   log->segment_bytes +
                               (uint64_t)first * SCREE__GRANULE_BYTES};
    uint32_t end = first + n < log->granules ? first + n : log->granules;
    uint32_t run_end = first, run_min = scree__punch_run(log);
    bool waits = false;
    double share;

    for (uint32_t i = first; i < end; i++) {
        uint64_t bytes = scree__granule_bytes(log, i);
        uint64_t dead = scree__granule_dead(
            atomic_load_explicit(&seg->granule[i], memory_order_relaxed)); /* a figure */

        unit.len += bytes;
        unit.live += bytes - dead;
        if (i >= run_end) {
            run_end = i + scree__granule_run(log, seg, i, end);
            waits = run_end - i >= run_min;
        }
        if (!scree__granule_punched(seg, i) && !(i < run_end && waits))
            unit.dead += dead;
    }
    if (unit.live == 0 || unit.dead == 0)
        return unit;
    share = (double)unit.live / (double)(unit.live + unit.dead);
    if (share <= live_share_max)
        unit.score =
            (1 - share) / (1 + share) * (1 - share) / (1 + share) * (double)(stable - unit.lsn);
    return unit;
}

/* Only what is stable as a whole: nobody writes there any more. */
static void
segment_units(const struct scree__log *log, const struct log_segment *seg, uint64_t stable,
              bool thin, double live_share_max, struct units *units)
{
    uint32_t n = unit_granules(log);
    uint64_t live = log->segment_bytes -
                    atomic_load_explicit(&seg->dead_bytes, memory_order_relaxed); /* a figure */

    thin = thin && live < log->segment_bytes / THIN_SHARE;
    for (uint32_t i = 0; i < log->granules; i += n) {
        struct unit unit = unit_measure(log, seg, i, n, stable, live_share_max);

        if (thin && unit.live > 0) /* a hole would only take another one's place */
            unit.score += THIN_BONUS / (double)(live + 1);
        if (unit.score > 0 && unit.lsn + unit.len <= stable)
            units_add(units, unit);
    }
}

static void
units_collect(struct scree__log *log, double live_share_max, struct units *units)
{
    uint64_t stable = atomic_load_explicit(&log->stable, memory_order_acquire);
    uint64_t full =
        atomic_load_explicit(&log->disk_bytes, memory_order_relaxed) / log->segment_bytes;
    bool more = true;

    for (uint64_t number = 0; more && !units->failed; number++) {
        (void)pthread_mutex_lock(&log->files_lock);
        const struct log_segment *seg = scree__segment_lower(log, number);
        bool thin = log->segment_n > FILES_SLACK + FILES_PER_FULL * full;

        more = seg != NULL;
        if (more) {
            number = atomic_load_explicit(&seg->number, memory_order_relaxed); /* files_lock */
            if (!seg->damaged && number * log->segment_bytes < stable)
                segment_units(log, seg, stable, thin, live_share_max, units);
        }
        (void)pthread_mutex_unlock(&log->files_lock);
    }
}

static int
by_score(const void *a, const void *b)
{
    double x = ((const struct unit *)a)->score, y = ((const struct unit *)b)->score;

    return (x < y) - (x > y);
}

static int
by_lsn(const void *a, const void *b)
{
    uint64_t x = ((const struct scree__log_victim *)a)->lsn;
    uint64_t y = ((const struct scree__log_victim *)b)->lsn;

    return (x > y) - (x < y);
}

size_t
scree__log_victims(struct scree__log *log, uint64_t dead_wanted, double live_share_max,
                   struct scree__log_victim *victims, size_t cap)
{
    struct units units = {0};
    uint64_t dead = 0;
    size_t n = 0;

    units_collect(log, live_share_max, &units);
    if (units.n > 0)
        qsort(units.unit, units.n, sizeof units.unit[0], by_score);
    for (size_t i = 0; i < units.n && n < cap; i++) {
        const struct unit *u = &units.unit[i];

        if (dead >= dead_wanted && u->score < THIN_BONUS / (double)log->segment_bytes)
            break;
        victims[n++] =
            (struct scree__log_victim){.lsn = u->lsn, .len = u->len, .dead_bytes = u->dead};
        dead += u->dead;
    }
    scree__free(units.unit, units.cap * sizeof units.unit[0]);
    qsort(victims, n, sizeof victims[0], by_lsn);
    return n;
}

void
scree__log_victim_damaged(struct scree__log *log, uint64_t lsn)
{
    (void)pthread_mutex_lock(&log->files_lock);
    struct log_segment *seg = scree__segment_peek(log, lsn / log->segment_bytes);

    if (seg != NULL)
        seg->damaged = true;
    (void)pthread_mutex_unlock(&log->files_lock);
}
