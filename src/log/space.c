/*
 * space.c - how many bytes of each granule and segment are dead, and since when.
 *
 * A granule is SCREE__GRANULE_BYTES of a segment, the unit of hole punching; the last one of a segment may
 * be shorter.
 *
 * WORDS  granule:  [63:14] the first block boundary above D, the largest death of its bytes
 *                  [13:0] dead bytes / 8
 *        segment.dead_bytes: the sum of its granules' dead bytes, for statistics and quick looks.
 * EDGES  step                                who              order             pairs   if it loses
 *   E0   granule: max(D, .), dead + n  LP    any thread       CAS release       E2      reload
 *   E1   dead_bytes + n, or + several n      any thread       fetch_add relaxed -       cannot
 *   E2   all dead? then D                    collector, ...   load acquire      E0
 * INVARIANTS
 *   I1 a byte is charged once; so the dead bytes never exceed the granule.
 *   I2 D of a byte is not below its own lsn: who finds a granule all dead with D < floor knows that all of
 *      it, and all that superseded it, lies below the floor.
 *   I3 count and D change in one step: who sees all bytes dead sees every D.
 * BUDGET  dead: 14 bits of 8 bytes = 131064, twice a granule. D: 50 bits of 4096 bytes = 2^62, which no
 *   position passes (SCREE__LSN_MAX).
 *   I4 a segment that was looked up stays what it is over the read section (collect.c waits for its end), so
 *      E1 may come later in it, for several E0 at once.
 * LIFETIME  the words live as long as the segment's struct, which is type-stable (segment.c).
 * PROGRESS  E0 retries only when another E0 on this granule succeeded.
 * FAILURE   none: no allocation, no I/O.
 * NOT HERE  giving space back (collect.c), what to clean (victim.c).
 */
#include "log/log_private.h"

#define GRANULE_STAMPED ((uint64_t)1 << GRANULE_DEATH_SHIFT)

static uint64_t
granule_word(uint64_t blocks, uint64_t dead)
{
    return blocks << GRANULE_DEATH_SHIFT | dead / 8;
}

uint32_t
scree__granule_bytes(const struct scree__log *log, uint32_t granule)
{
    uint64_t rest = log->segment_bytes - (uint64_t)granule * SCREE__GRANULE_BYTES;

    return rest < SCREE__GRANULE_BYTES ? (uint32_t)rest : SCREE__GRANULE_BYTES;
}

/* E0. n may be 0: only the death. */
static void
granule_charge(_Atomic uint64_t *granule, uint64_t n, uint64_t death_lsn)
{
    uint64_t blocks = death_lsn / SCREE_BLOCK + 1;
    uint64_t seen = atomic_load_explicit(granule, memory_order_relaxed); /* CAS re-checks */
    uint64_t next;

    do {
        uint64_t old = seen >> GRANULE_DEATH_SHIFT;

        SCREE_ASSERT(scree__granule_dead(seen) + n <= SCREE__GRANULE_BYTES); /* I1 */
        next = granule_word(old > blocks ? old : blocks, scree__granule_dead(seen) + n);
        SCREE_YIELD_POINT();
    } while (!atomic_compare_exchange_weak_explicit(granule, &seen, next, memory_order_release,
                                                    memory_order_relaxed)); /* LP */
}

/* The piece of [lsn, lsn + len) that lies in one granule, and where. segment NULL: its file is missing. */
struct piece {
    struct log_segment *segment;
    uint32_t granule;
    uint32_t len;
};

static struct piece
piece_first(struct scree__log *log, uint64_t lsn, uint64_t len)
{
    uint64_t in_segment = lsn % log->segment_bytes;
    struct piece p = {.segment = scree__segment_peek(log, lsn / log->segment_bytes),
                      .granule = (uint32_t)(in_segment / SCREE__GRANULE_BYTES)};
    uint64_t rest = scree__granule_bytes(log, p.granule) - in_segment % SCREE__GRANULE_BYTES;

    p.len = (uint32_t)(len < rest ? len : rest);
    return p;
}

void
scree__log_charge_end(struct scree__log_charge *c)
{
    if (c->dead > 0) /* E1. Relaxed: the granules tell what may go. */
        (void)atomic_fetch_add_explicit(&c->segment->dead_bytes, c->dead, memory_order_relaxed);
    c->dead = 0;
}

/* To the segment that holds lsn. */
static void
charge_turn(struct scree__log *log, struct scree__log_charge *c, uint64_t lsn)
{
    uint64_t number = lsn / log->segment_bytes;

    scree__log_charge_end(c);
    c->segment = scree__segment_peek(log, number);
    c->first = number * log->segment_bytes;
    c->end = c->first + log->segment_bytes;
}

void
scree__log_charge_more(struct scree__log *log, struct scree__log_charge *c, uint64_t lsn,
                       uint64_t len, uint64_t death_lsn)
{
    while (len > 0) {
        uint64_t rest, n;

        if (lsn < c->first || lsn >= c->end)
            charge_turn(log, c, lsn);
        rest = SCREE__GRANULE_BYTES - (lsn - c->first) % SCREE__GRANULE_BYTES;
        rest = scree__min_u64(rest, c->end - lsn); /* the last granule may be short */
        n = scree__min_u64(len, rest);
        if (c->segment != NULL) {
            granule_charge(&c->segment->granule[(lsn - c->first) / SCREE__GRANULE_BYTES], n,
                           death_lsn);
            c->dead += n;
        }
        lsn += n;
        len -= n;
    }
}

void
scree__log_charge_dead(struct scree__log *log, uint64_t lsn, uint64_t len, uint64_t death_lsn)
{
    struct scree__log_charge c = {0};

    scree__log_charge_more(log, &c, lsn, len, death_lsn);
    scree__log_charge_end(&c);
}

/* ---- recovery: before any collector; relaxed throughout ------------------------------------------ */

/* Until the recount, a granule's word only says whether something in it died behind the replay start. Any
   thread: all of them store the same. */
void
scree__log_stamp_death(struct scree__log *log, uint64_t lsn, uint64_t len)
{
    while (len > 0) {
        struct piece p = piece_first(log, lsn, len);

        if (p.segment != NULL && atomic_load_explicit(&p.segment->granule[p.granule],
                                                      memory_order_relaxed) != GRANULE_STAMPED)
            atomic_store_explicit(&p.segment->granule[p.granule], GRANULE_STAMPED,
                                  memory_order_relaxed);
        lsn += p.len;
        len -= p.len;
    }
}

/* False: more is claimed alive than was ever written. */
static bool
granule_revive(struct piece p)
{
    _Atomic uint64_t *granule = &p.segment->granule[p.granule];
    uint64_t word = atomic_load_explicit(granule, memory_order_relaxed);
    uint64_t dead = scree__granule_dead(word);

    if (dead < p.len)
        return false;
    atomic_store_explicit(granule, granule_word(word >> GRANULE_DEATH_SHIFT, dead - p.len),
                          memory_order_relaxed);
    (void)atomic_fetch_sub_explicit(&p.segment->dead_bytes, p.len, memory_order_relaxed);
    return true;
}

int
scree__log_charge_live(struct scree__log *log, uint64_t lsn, uint64_t len)
{
    while (len > 0) {
        struct piece p = piece_first(log, lsn, len);

        if (p.segment != NULL && !granule_revive(p)) {
            char name[LOG_NAME_BYTES];
            uint64_t offset;

            scree__log_locate(log, lsn, name, sizeof name, &offset);
            return scree__fail(
                SCREE_E_CORRUPT,
                "%s/%s, offset %llu (lsn %llu): by the snapshot and the log two records lie "
                "there, or one behind the end of the log; salvage gets the rest out",
                log->options.dir, name, (unsigned long long)offset, (unsigned long long)lsn);
        }
        lsn += p.len;
        len -= p.len;
    }
    return 0;
}

/* Positions of [start, start + len) below `end`. */
static uint64_t
written_below(uint64_t start, uint64_t len, uint64_t end)
{
    uint64_t written = end > start ? end - start : 0;

    return scree__min_u64(written, len);
}

/* All of it is dead: since the end of the log if it was stamped or reaches behind `start`, else since start. */
static void
segment_recount(struct scree__log *log, struct log_segment *seg, uint64_t end, uint64_t start)
{
    uint64_t first = atomic_load_explicit(&seg->number, memory_order_relaxed) * log->segment_bytes;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < log->granules; i++) {
        uint64_t from = first + (uint64_t)i * SCREE__GRANULE_BYTES;
        uint64_t bytes = scree__granule_bytes(log, i);
        uint64_t dead = written_below(from, bytes, end);
        uint64_t word = atomic_load_explicit(&seg->granule[i], memory_order_relaxed);
        uint64_t death = word == GRANULE_STAMPED || from + bytes > start ? end - 1 : start - 1;

        atomic_store_explicit(&seg->granule[i], granule_word(death / SCREE_BLOCK + 1, dead),
                              memory_order_relaxed);
        sum += dead;
    }
    atomic_store_explicit(&seg->dead_bytes, sum, memory_order_relaxed);
}

/* What a crash left unused at the end of an old segment is dead too; it must stay as long as the jump behind
   it is needed. */
static void
jump_stamp(struct scree__log *log, const struct log_segment *seg, const struct log_segment *next)
{
    uint64_t jump = atomic_load_explicit(&next->number, memory_order_relaxed);
    uint64_t from = atomic_load_explicit(&seg->number, memory_order_relaxed) * log->segment_bytes;
    uint64_t lsn = next->prev_end, to = from + log->segment_bytes;

    if (!next->header_ok || lsn >= jump * log->segment_bytes || lsn < from)
        return;
    while (lsn < to) {
        struct piece p = piece_first(log, lsn, to - lsn);

        if (p.segment != NULL)
            granule_charge(&p.segment->granule[p.granule], 0, jump * log->segment_bytes - 1);
        lsn += p.len;
    }
}

void
scree__log_recount_begin(struct scree__log *log, uint64_t end, uint64_t start)
{
    (void)pthread_mutex_lock(&log->files_lock);
    for (size_t i = 0; i < log->segment_n; i++) {
        segment_recount(log, log->segment[i], end, start);
        if (i + 1 < log->segment_n)
            jump_stamp(log, log->segment[i], log->segment[i + 1]);
    }
    (void)pthread_mutex_unlock(&log->files_lock);
}

void
scree__log_recount_end(struct scree__log *log)
{
    (void)pthread_mutex_lock(&log->files_lock);
    for (size_t i = 0; i < log->segment_n; i++)
        for (uint32_t g = 0; g < log->granules; g++) {
            struct log_segment *seg = log->segment[i];
            uint64_t word = atomic_load_explicit(&seg->granule[g], memory_order_relaxed);

            /* A hole where something should be is damage, or room not written yet: not a punched granule. */
            if (scree__granule_dead(word) < scree__granule_bytes(log, g))
                scree__granule_punched_set(seg, g, false);
        }
    (void)pthread_mutex_unlock(&log->files_lock);
}

/* ---- figures ----------------------------------------------------------------------------------- */

static bool
granule_is_dead(const struct scree__log *log, const struct log_segment *seg, uint32_t i)
{
    uint64_t word = atomic_load_explicit(&seg->granule[i], memory_order_relaxed); /* figures */

    return scree__granule_dead(word) == scree__granule_bytes(log, i);
}

uint32_t
scree__punch_run(const struct scree__log *log)
{
    uint32_t n = log->granules / LOG_PIECES;

    if (log->options.no_punch ||
        atomic_load_explicit(&log->no_punch, memory_order_relaxed)) /* a hint */
        return log->granules;
    return n < 1 ? 1 : n < LOG_PUNCH_GRANULES ? n : LOG_PUNCH_GRANULES;
}

uint32_t
scree__granule_run(const struct scree__log *log, const struct log_segment *seg, uint32_t i,
                   uint32_t end)
{
    uint32_t n = 0;

    while (i + n < end && granule_is_dead(log, seg, i + n) && !scree__granule_punched(seg, i + n))
        n++;
    return n;
}

static void
segment_space(const struct scree__log *log, const struct log_segment *seg, uint64_t tail,
              uint64_t stable, struct scree__log_space *sum)
{
    uint64_t start = atomic_load_explicit(&seg->number, memory_order_relaxed) * log->segment_bytes;
    uint32_t run_end = 0, run_min = scree__punch_run(log);
    bool waits = false;

    for (uint32_t i = 0; i < log->granules; i++) {
        uint64_t word = atomic_load_explicit(&seg->granule[i], memory_order_relaxed); /* figures */
        uint64_t dead = scree__granule_dead(word);
        uint64_t bytes = scree__granule_bytes(log, i);
        uint64_t written = written_below(start + (uint64_t)i * SCREE__GRANULE_BYTES, bytes, tail);

        sum->live_bytes +=
            dead < written ? written - dead : 0; /* a charge may be newer than the tail */
        if (scree__granule_punched(seg, i))
            continue;
        sum->dead_bytes += dead;
        if (i >= run_end) {
            run_end = i + scree__granule_run(log, seg, i, log->granules);
            waits = run_end - i >= run_min;
        }
        if (i < run_end && waits)
            sum->waiting_bytes += dead;
        else if (!seg->damaged && start + i * SCREE__GRANULE_BYTES + bytes <= stable)
            sum->sparse_bytes += dead;
    }
}

void
scree__log_space(struct scree__log *log, struct scree__log_space *space_out)
{
    uint64_t tail = atomic_load_explicit(&log->tail, memory_order_acquire);
    uint64_t stable = atomic_load_explicit(&log->stable, memory_order_acquire);

    memset(space_out, 0, sizeof *space_out);
    (void)pthread_mutex_lock(&log->files_lock);
    for (size_t i = 0; i < log->segment_n; i++)
        segment_space(log, log->segment[i], tail, stable, space_out);
    space_out->segments = log->segment_n;
    (void)pthread_mutex_unlock(&log->files_lock);
    space_out->disk_bytes =
        atomic_load_explicit(&log->disk_bytes, memory_order_relaxed); /* a figure */
}

static uint64_t
relaxed(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void
scree__log_stats(struct scree__log *log, struct scree__log_stats *stats_out)
{
    memset(stats_out, 0, sizeof *stats_out);
    scree__log_space(log, &stats_out->space);
    stats_out->punched_bytes = relaxed(&log->punched_bytes);
    stats_out->deleted_bytes = relaxed(&log->deleted_bytes);
    stats_out->device_bytes = relaxed(&log->device_bytes);
    stats_out->log_bytes = scree__log_tail(log) - log->start_lsn;
}

/* One segment as callers see it. */
static void
segment_describe(const struct scree__log *log, const struct log_segment *seg, uint64_t tail,
                 scree_segment_info *info, scree_granule *granule)
{
    info->lsn = atomic_load_explicit(&seg->number, memory_order_relaxed) * log->segment_bytes;
    info->bytes = log->segment_bytes;
    info->disk_bytes = seg->disk_bytes;
    info->live_bytes = info->dead_bytes = 0;
    for (uint32_t i = 0; i < log->granules; i++) {
        uint64_t dead = scree__granule_dead(
            atomic_load_explicit(&seg->granule[i], memory_order_relaxed)); /* figures */
        uint64_t written = written_below(info->lsn + (uint64_t)i * SCREE__GRANULE_BYTES,
                                         scree__granule_bytes(log, i), tail);
        uint64_t live = dead < written ? written - dead : 0;

        granule[i] = (scree_granule){.written_bytes = (uint32_t)written,
                                     .live_bytes = (uint32_t)live,
                                     .punched = scree__granule_punched(seg, i)};
        info->live_bytes += live;
        info->dead_bytes += granule[i].punched ? 0 : written - live;
    }
}

int
scree__log_segments_each(struct scree__log *log, scree_segment_fn visit, void *ctx)
{
    scree_granule *granule = scree__alloc(log->granules * sizeof *granule);
    char name[LOG_NAME_BYTES];
    int rc = 0;

    if (granule == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a map of %u granules",
                           log->granules);
    for (uint64_t number = 0; rc == 0; number++) {
        scree_segment_info info = {.size = sizeof info,
                                   .file = name,
                                   .granule_bytes = SCREE__GRANULE_BYTES,
                                   .granules = log->granules,
                                   .granule = granule};
        struct log_segment_info found;

        if (!scree__segment_from(log, number, &found))
            break;
        number = found.number;
        (void)pthread_mutex_lock(&log->files_lock);
        struct log_segment *seg = scree__segment_peek(log, number);
        bool there = seg != NULL && !seg->leaving;

        if (there)
            segment_describe(log, seg, atomic_load_explicit(&log->tail, memory_order_acquire),
                             &info, granule);
        (void)pthread_mutex_unlock(&log->files_lock);
        scree__segment_name(number, name);
        rc = there ? visit(ctx, &info) : 0;
    }
    scree__free(granule, log->granules * sizeof *granule);
    return rc;
}
