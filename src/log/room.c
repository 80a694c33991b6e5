/*
 * room.c - every reservation has its place on disk beforehand: credit, and the thread that makes room.
 *
 * WORDS  allocated: up to this lsn segment files exist, with headers and directory entries synced and
 *        room for the data. claimed: up to this lsn, by count, credit was given out. Positions are taken
 *        from the tail later, so   tail <= claimed <= allocated - hold(class)   at any moment.
 *        wanted: a waiting admit needs allocated to reach it. space_error: why it cannot, 0 if it can.
 * EDGES  step                          who               order             pairs   if it loses
 *   E0   allocated grows               allocator         store seq_cst     E1      sole writer
 *   E1   claimed + n <= limit  LP      admit, leader     CAS relaxed       E0      reload; no room: wait
 *   E2   claimed - n: given back       a thread's end    fetch_sub relaxed -       cannot
 *   E3   wanted, retry, held; gate     admit, owner      seq_cst           E4
 *   E4   look for work                 allocator         loads after enter E3
 *   E5   space_error, attempts + 1     allocator         seq_cst           E6
 *   E6   the verdict                   admit, leader     loads after enter E5
 *   E7   relief: room is being made    allocator         seq_cst, before E5 E6
 *   claimed is a count: nothing is published by it, so relaxed is enough. E1's load of allocated is an
 *   acquire: who holds credit knows that the files are there.
 * INVARIANTS
 *   I1 user credit ends at allocated - reserve, relief at allocated - reserve / 2, cleaning at
 *      allocated - reserve / 8; seals take the rest: a full disk can still be cleaned, and what was
 *      cleaned be made durable.
 *   I2 no credit before the open mark is on disk.
 *   I3 a segment's header and directory entry are synced before allocated passes its start, so before
 *      anything of it is written, so before stable passes it.
 * LIFETIME  as the log.
 * PROGRESS  E1 retries only when another E1 or E2 succeeded. admit with credit left touches nothing
 *   shared. Waits: for the allocator (E0, E5), bounded by a timeout. While cleaning is behind, the allocator
 *   pauses before room for users, so that they get 0.5 MB/s at least; room for others is made at once.
 * FAILURE   no room (ENOSPC, quota, limit): if the owner of the log says that room is being made, admits
 *   that may wait do so, until its verdict; else they get NO_SPACE, and the allocator tries again when
 *   asked, at most every ROOM_RETRY_NS. Other errors are told to who asked for that attempt; later ones
 *   have another one made. A failed write or sync of a header: poison.
 * NOT HERE  files (segment.c), the mark's bytes (restart.c).
 */
#include "log/log_private.h"

#include <errno.h>

#define SMALL_SYNC_BYTES (64u * 1024) /* below it a sync's own cost counts */
#define ROOM_RETRY_NS (20ull * 1000 * 1000)
#define ROOM_WAIT_NS (10 * LOG_SECOND_NS)
#define ROOM_WAIT_GUARDED_NS LOG_SECOND_NS
#define ROOM_STEP_NS (100ull * 1000 * 1000)

#define PACE_NS_PER_BYTE 50.0 /* at hard_bytes: 20 MB/s */
#define PACE_SHARE_MAX 40.0   /* far beyond: 0.5 MB/s */
#define PACE_STRAIN_MAX 15u   /* added to 1: times the usual pause */
#define PACE_PART_BYTES (1024u * 1024)
#define ROOM_MIB (1024ull * 1024)
#define ROOM_TIGHT_BYTES (64u * 1024) /* a step after a refusal */

void
scree__room_init(struct scree__log *log, uint64_t start_lsn)
{
    uint64_t segment = log->segment_bytes;

    /* Half of it for frees, the rest for moving what lives in a range to be cleaned, and for seals. */
    log->reserve_bytes = log->options.no_punch ? segment + scree__min_u64(segment, 8 * ROOM_MIB)
                                               : scree__min_u64(2 * segment, 8 * ROOM_MIB);
    /* Little at first, so that a small database stays small on disk. */
    atomic_init(&log->ahead_bytes, scree__min_u64(segment / 2, 4 * ROOM_MIB));
    log->ahead_bytes_max = scree__min_u64(segment / 2, 16 * ROOM_MIB);
    log->chunk_bytes = scree__round_up(scree__min_u64(segment / 8, 4 * ROOM_MIB), SCREE_BLOCK);
    log->portion_bytes = scree__min_u64(segment / 16, 64 * 1024);
    atomic_init(&log->soft_bytes, UINT64_MAX); /* until told otherwise */
    atomic_init(&log->claimed, start_lsn);
    atomic_init(&log->allocated, start_lsn);
    atomic_init(&log->wanted, start_lsn);
}

/* I1 */
static uint64_t
room_hold(const struct scree__log *log, enum scree__log_class class)
{
    switch (class) {
    case SCREE__LOG_USER:
        return log->reserve_bytes;
    case SCREE__LOG_RELIEF:
        return log->reserve_bytes / 2;
    case SCREE__LOG_CLEAN:
        return log->reserve_bytes / 8;
    case SCREE__LOG_SEAL:
        return 0;
    }
    return log->reserve_bytes;
}

/* ---- asking ---------------------------------------------------------------------------------- */

/* E1. `need` bytes, or a portion in advance where that leaves the reserve alone; the cleaner may take
   portions of its part of it. */
static bool
room_claim(struct scree__log *log, struct scree__log_writer *w, uint64_t need,
           enum scree__log_class class)
{
    uint64_t allocated = atomic_load_explicit(&log->allocated, memory_order_acquire);
    uint64_t hold = room_hold(log, class);
    uint64_t portion_hold = class == SCREE__LOG_CLEAN ? hold : log->reserve_bytes;
    uint64_t claimed =
        atomic_load_explicit(&log->claimed, memory_order_relaxed); /* CAS re-checks */
    uint64_t take;

    do {
        SCREE_YIELD_POINT();
        take = need + log->portion_bytes;
        if (claimed + take + portion_hold > allocated)
            take = need;
        if (claimed + take + hold > allocated)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&log->claimed, &claimed,
                                                    claimed + take, /* LP */
                                                    memory_order_relaxed, memory_order_relaxed));
    w->credit_bytes += take;
    return true;
}

static uint64_t
room_target(const struct scree__log *log)
{
    /* Relaxed: a little more or less ahead is all the same. */
    uint64_t target = atomic_load_explicit(&log->claimed, memory_order_relaxed) +
                      log->reserve_bytes +
                      atomic_load_explicit(&log->ahead_bytes, memory_order_relaxed);
    uint64_t wanted = atomic_load_explicit(&log->wanted, memory_order_seq_cst); /* E4 */

    return scree__max_u64(wanted, target);
}

/* Wake the allocator when half of what it keeps ahead is gone. */
static void
room_poke_low(struct scree__log *log)
{
    uint64_t half = atomic_load_explicit(&log->ahead_bytes, memory_order_relaxed) / 2;

    if (atomic_load_explicit(&log->paused, memory_order_relaxed)) /* it looks by itself */
        return;
    if (atomic_load_explicit(&log->allocated, memory_order_relaxed) + half < room_target(log))
        scree__gate_open(&log->alloc_gate);
}

/* Is it worth to ask again, after a refusal? */
static bool
room_retry_due(struct scree__log *log)
{
    uint64_t last = atomic_load_explicit(&log->attempt_ns, memory_order_relaxed); /* a pace */

    return log->env->now_ns(log->env->ctx) - last >= ROOM_RETRY_NS;
}

static int
room_refused(int code)
{
    if (scree__is_space_error(code))
        return scree__fail(SCREE_E_NO_SPACE,
                           "log: no room for another segment (%s); free pages or make room on the "
                           "disk, writing resumes by itself",
                           scree_strerror(code));
    return scree__fail(code, "log: cannot make room in a segment file: %s", scree_strerror(code));
}

/*
 * Have the allocator try, and wait for what it says. 0: look again. `tried`: attempts when we began;
 * a refusal newer than that is ours.
 */
static int
room_await(struct scree__log *log, uint64_t wanted, uint32_t tried, bool for_relief)
{
    uint32_t ticket = scree__gate_enter(&log->credit_gate);
    int error = atomic_load_explicit(&log->space_error, memory_order_seq_cst);           /* E6 */
    bool answered = atomic_load_explicit(&log->attempts, memory_order_seq_cst) != tried; /* E6 */
    bool relief = atomic_load_explicit(&log->relief, memory_order_seq_cst);              /* E7 */
    int rc = scree__log_check(log);

    /* While room is being made nobody asks for it: what is won is not to go before it is enough. What failed
       before we came for another reason than a full disk is asked for again at once: it may have passed. */
    bool early = scree__is_space_error(error) && !room_retry_due(log);

    if (rc == 0 && error != 0 && (relief ? !for_relief : answered || early)) {
        if (scree__is_space_error(error))
            atomic_store_explicit(&log->refused, true, memory_order_relaxed); /* a hint */
        rc = room_refused(error);
    }
    if (rc == 0 && error != 0 && relief)
        scree__futex_wait(&log->credit_gate.seq, ticket,
                          ROOM_STEP_NS); /* waker: E5 behind the verdict */
    else if (rc == 0 && atomic_load_explicit(&log->allocated, memory_order_seq_cst) < wanted) {
        scree__atomic_max(&log->wanted, wanted); /* E3 */
        if (error != 0)
            atomic_store_explicit(&log->retry, true, memory_order_seq_cst); /* E3 */
        scree__gate_open(&log->alloc_gate);
        scree__futex_wait(&log->credit_gate.seq, ticket, ROOM_STEP_NS); /* waker: E0, E5, poison */
    }
    scree__gate_leave(&log->credit_gate);
    return rc;
}

static int
room_claim_or_wait(struct scree__log *log, struct scree__log_writer *w, uint64_t need,
                   enum scree__log_class class, bool may_wait)
{
    uint64_t wait_ns = may_wait ? ROOM_WAIT_NS : ROOM_WAIT_GUARDED_NS;
    uint32_t tried = atomic_load_explicit(&log->attempts, memory_order_seq_cst);
    uint64_t deadline = 0;

    while (!room_claim(log, w, need, class)) {
        uint64_t now = log->env->now_ns(log->env->ctx);

        if (deadline == 0) {
            uint64_t ahead = atomic_load_explicit(&log->ahead_bytes, memory_order_relaxed);

            deadline = now + wait_ns;
            /* Somebody has to wait: keep more ahead. Racing threads grow it once. */
            (void)atomic_compare_exchange_strong_explicit(
                &log->ahead_bytes, &ahead, scree__min_u64(2 * ahead, log->ahead_bytes_max),
                memory_order_relaxed, memory_order_relaxed);
        }
        if (now >= deadline)
            return scree__fail(SCREE_E_NO_SPACE,
                               "log: no room was made in a segment file within "
                               "%llu s; the file system seems stuck",
                               (unsigned long long)(wait_ns / LOG_SECOND_NS));
        uint64_t claimed = atomic_load_explicit(&log->claimed, memory_order_relaxed);
        uint64_t wanted = claimed + need + room_hold(log, class);

        /* Pauses are no reason to fail: half of the time is enough of them. */
        if (class == SCREE__LOG_CLEAN || class == SCREE__LOG_SEAL || deadline - now <= wait_ns / 2)
            scree__atomic_max(&log->urgent, wanted);
        int rc = room_await(log, wanted, tried, may_wait);

        if (rc != 0)
            return rc;
    }
    room_poke_low(log);
    return 0;
}

int
scree__log_admit(struct scree__log *log, struct scree__log_writer *w, uint32_t disk_len,
                 enum scree__log_class class, bool may_wait)
{
    int rc = scree__log_check(log);

    if (rc != 0)
        return rc;
    if (w->credit_bytes >= disk_len)
        return 0;
    if (disk_len > log->ring_bytes / 2 || disk_len > RECORD_BYTES_MAX)
        return scree__fail(SCREE_E_TOO_BIG,
                           "log: a record of %u bytes; at most half the log buffer (%llu) can be "
                           "written",
                           disk_len, (unsigned long long)log->ring_bytes / 2);
    if (!atomic_load_explicit(&log->marked, memory_order_acquire)) {
        rc = scree__mark_write(log); /* I2 */
        if (rc != 0)
            return rc;
    }
    return room_claim_or_wait(log, w, disk_len - w->credit_bytes, class, may_wait);
}

int
scree__room_seal(struct scree__log *log, uint64_t bytes)
{
    if (log->sealer.credit_bytes >= bytes)
        return 0;
    /* There is something to seal, so the mark is on disk (I2). */
    return room_claim_or_wait(log, &log->sealer, bytes - log->sealer.credit_bytes, SCREE__LOG_SEAL,
                              false);
}

bool
scree__room_seal_now(struct scree__log *log, uint64_t bytes)
{
    /* There is something to seal, so the mark is on disk (I2). */
    return log->sealer.credit_bytes >= bytes ||
           room_claim(log, &log->sealer, bytes, SCREE__LOG_SEAL);
}

void
scree__log_throttle(struct scree__log *log, uint64_t soft_bytes, uint64_t hard_bytes)
{
    /* Relaxed: paces. While the allocator pauses it looks at them again and again. */
    atomic_store_explicit(&log->soft_bytes, soft_bytes, memory_order_relaxed);
    atomic_store_explicit(&log->hard_bytes, hard_bytes, memory_order_relaxed);
}

/* What is made between two pauses: less than a chunk, or they would be felt. */
static uint64_t
room_part(const struct scree__log *log)
{
    return scree__min_u64(log->chunk_bytes, PACE_PART_BYTES);
}

/* How long to pause before the next part for users. */
static uint64_t
room_pause_ns(const struct scree__log *log)
{
    /* Relaxed: paces. */
    uint64_t disk = atomic_load_explicit(&log->disk_bytes, memory_order_relaxed);
    uint64_t soft = atomic_load_explicit(&log->soft_bytes, memory_order_relaxed);
    uint64_t hard = atomic_load_explicit(&log->hard_bytes, memory_order_relaxed);
    double share;

    if (disk <= soft)
        return 0;
    share = (double)(disk - soft) / (double)(hard - soft);
    share *= share < 1 ? 1 : share; /* whoever cleans may be slow as well */
    share *= 1 + log->strain;
    share = share < PACE_SHARE_MAX ? share : PACE_SHARE_MAX;
    return (uint64_t)(share * (double)room_part(log) * PACE_NS_PER_BYTE);
}

uint64_t
scree__log_ahead_bytes(const struct scree__log *log)
{
    return log->reserve_bytes + log->ahead_bytes_max + log->chunk_bytes;
}

void
scree__log_room_verdict(struct scree__log *log)
{
    atomic_store_explicit(&log->retry, true, memory_order_seq_cst); /* E3 */
    scree__gate_open(&log->alloc_gate);
}

void
scree__log_room_hold(struct scree__log *log, bool held)
{
    atomic_store_explicit(&log->room_held, held, memory_order_seq_cst); /* E3 */
    scree__gate_open(&log->alloc_gate);
}

void
scree__log_outside_bytes(struct scree__log *log, uint64_t bytes)
{
    atomic_store_explicit(&log->outside_bytes, bytes, memory_order_relaxed); /* a figure */
}

void
scree__room_freed(struct scree__log *log)
{
    if (atomic_load_explicit(&log->space_error, memory_order_seq_cst) != 0 &&
        !atomic_load_explicit(&log->relief,
                              memory_order_seq_cst)) { /* E7: else the verdict will do */
        atomic_store_explicit(&log->retry, true, memory_order_seq_cst);
        scree__gate_open(&log->alloc_gate);
    }
}

/* ---- the allocator thread -------------------------------------------------------------------- */

static bool
room_over_limit(const struct scree__log *log, uint64_t more)
{
    uint64_t limit = log->options.disk_limit_bytes;

    /* Relaxed: this thread is the one that grows it. */
    return limit != 0 && atomic_load_explicit(&log->disk_bytes, memory_order_relaxed) +
                                 atomic_load_explicit(&log->outside_bytes, memory_order_relaxed) +
                                 more >
                             limit;
}

/*
 * Write zeros where small commits will go. A sync of blocks that were merely allocated has to record in the
 * file system that they are written now; of blocks written before, it has not: 145 against 268 us a commit
 * as measured. It costs the bytes twice, so only where syncs are small.
 */
static int
room_prewrite(struct scree__log *log, uint64_t from, uint64_t len)
{
    size_t piece = (size_t)scree__min_u64(len, LOG_WRITE_BYTES_MAX);
    void *zeros = scree__alloc_aligned(SCREE_BLOCK, piece);
    int rc = 0;

    if (zeros == NULL)
        return 0; /* only slower */
    memset(zeros, 0, piece);
    for (uint64_t done = 0; rc == 0 && done < len; done += piece)
        rc = scree__segment_write(log, from + done, zeros,
                                  (size_t)scree__min_u64(len - done, piece));
    scree__free(zeros, piece);
    /* No sync here: it could be told, in the leader's place, of a record that was not written. The
       next commit's sync takes the zeros along. */
    if (rc != 0 && !scree__is_space_error(rc))
        (void)scree__log_poison(log, rc, "writing ahead in a log segment failed");
    return rc;
}

/* One chunk, at most to the end of the segment. */
static int
room_extend(struct scree__log *log)
{
    uint64_t from = atomic_load_explicit(&log->allocated, memory_order_relaxed); /* ours */
    uint64_t number = from / log->segment_bytes;
    uint64_t offset = from % log->segment_bytes;
    bool tight = atomic_load_explicit(&log->space_error, memory_order_relaxed) != 0; /* ours */
    bool paced = room_pause_ns(log) > 0;

    uint64_t chunk = tight   ? scree__min_u64(log->chunk_bytes, ROOM_TIGHT_BYTES)
                     : paced ? room_part(log)
                             : log->chunk_bytes;
    uint64_t to = scree__min_u64(offset + chunk, log->segment_bytes);
    struct log_segment_info info;
    bool exists = scree__segment_from(log, number, &info) && info.number == number;
    int rc = 0;

    if (from + log->segment_bytes > SCREE__LSN_MAX)
        return scree__fail(-EOVERFLOW, "log: the space of log positions is used up");
    if (room_over_limit(log, to - offset + (exists ? 0 : LOG_HEADER_BYTES)))
        return -ENOSPC; /* disk_limit_bytes is a disk that is full */
    if (!exists) {
        SCREE_ASSERT(offset == 0);
        rc = scree__segment_create(log, number, from);
    }
    if (rc == 0)
        rc = scree__segment_extend(log, number, offset, to);
    /* Relaxed: hints about the load. Not while somebody waits for the room. */
    if (rc == 0 && atomic_load_explicit(&log->credit_gate.waiters, memory_order_relaxed) == 0 &&
        atomic_load_explicit(&log->sync_bytes, memory_order_relaxed) - 1 < SMALL_SYNC_BYTES)
        rc = room_prewrite(log, from, to - offset);
    if (rc == 0)
        /* E0. I3: all of it is in place. seq_cst: looked at behind a gate. */
        atomic_store_explicit(&log->allocated, from - offset + to, memory_order_seq_cst);
    return rc;
}

static bool
room_has_work(struct scree__log *log)
{
    if (!atomic_load_explicit(&log->marked, memory_order_seq_cst) ||
        atomic_load_explicit(&log->room_held, memory_order_seq_cst) ||
        atomic_load_explicit(&log->health, memory_order_seq_cst) != 0)
        return false;
    if (atomic_load_explicit(&log->space_error, memory_order_relaxed) != 0 && /* ours */
        !atomic_load_explicit(&log->retry, memory_order_seq_cst))
        return false;
    return atomic_load_explicit(&log->allocated, memory_order_relaxed) < room_target(log);
}

/* A disk is told to be full when looking for room was in vain, or when somebody could not wait for that. */
static void
room_tell(struct scree__log *log, int rc, bool full, bool relief)
{
    uint64_t at = atomic_load_explicit(&log->allocated, memory_order_relaxed); /* ours */
    bool refused =
        atomic_exchange_explicit(&log->refused, false, memory_order_relaxed); /* a hint */

    if (!log->told_full && ((full && !relief) || refused)) {
        log->told_full = true;
        scree__log_event(log, SCREE_EVENT_NO_SPACE, full ? rc : -ENOSPC, at, 0,
                         scree_strerror(full ? rc : -ENOSPC));
    }
    if (rc == 0 && log->told_full) {
        log->told_full = false;
        scree__log_event(log, SCREE_EVENT_SPACE_BACK, 0, at, 0,
                         "there is room again, writing goes on");
    }
}

/* Does somebody who is not to be slowed down wait for room? */
static bool
room_is_urgent(struct scree__log *log)
{
    return atomic_load_explicit(&log->allocated, memory_order_relaxed) < /* ours */
           atomic_load_explicit(&log->urgent, memory_order_seq_cst);     /* E4 */
}

/* Pauses of a fixed length are nothing to writers who are slow themselves, as on a machine with too much to
   do, where cleaning is as slow. So they grow for as long as those there are do not help. Room that was made
   without a pause, for cleaning itself, says nothing about them. */
static void
room_strain(struct scree__log *log)
{
    /* Relaxed: paces. */
    if (atomic_load_explicit(&log->disk_bytes, memory_order_relaxed) <=
        atomic_load_explicit(&log->hard_bytes, memory_order_relaxed))
        log->strain -= log->strain > 0;
    else if (log->strain < PACE_STRAIN_MAX && !room_is_urgent(log))
        log->strain++;
}

static void
room_work(struct scree__log *log)
{
    room_strain(log);
    atomic_store_explicit(&log->retry, false, memory_order_seq_cst);
    int rc = room_extend(log);
    bool full = scree__is_space_error(rc);
    bool relief = (rc == 0 || full) && log->options.on_room != NULL &&
                  log->options.on_room(log->options.ctx, full) && full;

    atomic_store_explicit(&log->relief, relief, memory_order_seq_cst); /* E7 */
    atomic_store_explicit(&log->attempt_ns, log->env->now_ns(log->env->ctx), memory_order_relaxed);
    atomic_store_explicit(&log->space_error, rc, memory_order_seq_cst);       /* E5 */
    (void)atomic_fetch_add_explicit(&log->attempts, 1, memory_order_seq_cst); /* E5 */
    scree__gate_open(&log->credit_gate);
    room_tell(log, rc, full, relief);
}

/* How long it is too early for more room for users, 0: it is not. What others want is made at once. */
static uint64_t
room_paused_ns(struct scree__log *log)
{
    uint64_t pause = room_pause_ns(log), since;

    if (pause == 0 || room_is_urgent(log))
        return 0;
    since = log->env->now_ns(log->env->ctx) -
            atomic_load_explicit(&log->attempt_ns, memory_order_relaxed); /* ours */
    return since < pause ? pause - since : 0;
}

static void *
room_main(void *arg)
{
    struct scree__log *log = arg;

    for (;;) {
        uint32_t ticket = scree__gate_enter(&log->alloc_gate);
        bool stop = atomic_load_explicit(&log->stop_allocator, memory_order_seq_cst);
        bool work = !stop && room_has_work(log); /* E4 */
        uint64_t pause_ns = work ? room_paused_ns(log) : UINT64_MAX;
        bool paused = work && pause_ns > 0;

        atomic_store_explicit(&log->paused, paused, memory_order_relaxed); /* spares wakes */

        if (!stop && (!work || paused)) /* waker: E3, stop */
            scree__futex_wait(&log->alloc_gate.seq, ticket, pause_ns);
        scree__gate_leave(&log->alloc_gate);
        if (stop)
            return NULL;
        if (work && !paused)
            room_work(log);
    }
}

int
scree__room_start(struct scree__log *log)
{
    int rc = pthread_create(&log->allocator, NULL, room_main, log);

    if (rc != 0)
        return scree__fail(-rc, "log: cannot start the allocator thread: %s", scree_strerror(-rc));
    log->allocator_runs = true;
    return 0;
}

void
scree__room_stop(struct scree__log *log)
{
    if (!log->allocator_runs)
        return;
    atomic_store_explicit(&log->stop_allocator, true, memory_order_seq_cst);
    scree__gate_open(&log->alloc_gate);
    (void)pthread_join(log->allocator, NULL);
    log->allocator_runs = false;
}
