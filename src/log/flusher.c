/*
 * flusher.c - from the ring to the disk: runs, seals, syncs, and who waits for them.
 *
 * WORDS  busy: 1 while somebody leads; all plain fields of struct scree__log marked "leader only"
 *        are under it. requested: the largest lsn somebody wants stable. stable: below it all is
 *        synced, and it is a record boundary. kicked: the flusher thread has been told that there
 *        is work.
 * EDGES  step                                   who                order              pairs
 *   F0   requested max                          committer          RMW seq_cst        F3
 *   F1   busy 0 -> 1: lead                      committer, thread  exchange seq_cst   F2
 *   F2   busy -> 0                              leader             store seq_cst      F1
 *   F3   requested, kicked: anything left?      leader, after F2   load seq_cst       F0, F4
 *   F4   kicked 0 -> 1, then the gate           anybody            RMW seq_cst        F3, F5
 *   F5   kicked -> 0, then look for work        flusher thread     store seq_cst      F4
 *   F6   flushed, then the room gate            leader             store seq_cst      ring.c E9
 *   F7   stable, then the stable gate           leader             store seq_cst      committers
 *   F8   health 0 -> -errno, then all gates     anybody            CAS seq_cst        everybody
 *   E10  tail -> block boundary: a seal  LP     leader             CAS acq_rel        ring.c E5
 *   Store-load pair F0 F1 against F2 F3: a committer stores its request, then looks at busy; the
 *   leader stores busy = 0, then looks at requests. One of them comes second and sees the other:
 *   either the committer leads, or the leader opens the gate for it. F4 F1 against F2 F3: the same
 *   for kicks.
 *   E10 lost: a reservation was made, so the tail moved by at least a header; after at most
 *   SCREE_BLOCK / RECORD_HEADER_BYTES losses it has passed the boundary and no seal is needed.
 * INVARIANTS
 *   I1 synced <= written = flushed <= filled; written and synced are block boundaries.
 *   I2 a block is written once: streaming takes whole filled blocks only, a sync ends on a
 *      boundary.
 *   I3 stable is a record boundary <= synced: bounds are (ring.c I4), and so is the end of a seal.
 *      So a record that begins below a claim of stability ends below it.
 *   I4 a seal is claimed only within flushed + ring_bytes, and filled at once by the leader.
 *   I5 written - synced <= unsynced_bytes_max, which the open mark tells: the jump relies on it.
 *   I6 the leader waits for the disk, open reservations and the allocator; never for a grace
 *      period.
 * LIFETIME  as the log.
 * PROGRESS  one leader at a time; a preempted writer with an open reservation delays every commit
 *   behind it. Committers sleep on the stable gate; wakers: F7, the leader's end (F3), F8.
 * FAILURE   any failed write or sync poisons (F8): sticky, everybody wakes, nothing is written
 *   afterwards, reads go on. No room for a seal: the commit fails with NO_SPACE, nothing is lost.
 * NOT HERE  what filled means (ring.c), files (segment.c).   REFS  tests/spin/reserve.pml
 */
#include "log/log_private.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

#define GATHER_NS (25ull * 1000)
#define STABLE_STEP_NS (100ull * 1000 * 1000)
#define SEAL_EVERY_BYTES (4ull * 1024 * 1024) /* claims for the damage test at least this often */
#define NAP_SPINS 100u
#define NAP_YIELDS 20u
#define NAP_NS 50000

/* ---- poison and events ----------------------------------------------------------------------- */

void
scree__log_event(const struct scree__log *log, int kind, int code, uint64_t lsn, uint64_t bytes,
                 const char *text)
{
    if (log->options.on_event != NULL)
        log->options.on_event(log->options.ctx, kind, code, lsn, bytes, text);
}

int
scree__log_health(const struct scree__log *log)
{
    return atomic_load_explicit(&log->health, memory_order_acquire);
}

int
scree__log_check(const struct scree__log *log)
{
    int health = atomic_load_explicit(&log->health, memory_order_acquire);

    if (health == 0)
        return 0;
    return scree__fail(SCREE_E_POISONED,
                       "log %s: a write or sync failed earlier (%s); reopen to recover",
                       log->options.dir, scree_strerror(health));
}

int
scree__log_poison(struct scree__log *log, int code, const char *what)
{
    int healthy = 0;

    SCREE_ASSERT(code < 0);
    /* F8. The first failure stays. */
    if (atomic_compare_exchange_strong_explicit(&log->health, &healthy, code, memory_order_seq_cst,
                                                memory_order_relaxed)) {
        scree__gate_open(&log->room_gate);
#ifndef SCREE_BUG_POISON_UNTOLD /* seeded: who waits for stable waits on; fault_io must fail */
        scree__gate_open(&log->stable_gate);
#endif
        scree__gate_open(&log->feed_gate);
        scree__gate_open(&log->credit_gate);
        scree__gate_open(&log->flush_gate);
        scree__gate_open(&log->alloc_gate);
        scree__log_event(log, SCREE_EVENT_POISONED, code, scree__log_stable(log), 0, what);
    }
    return code;
}

/* ---- what only the leader does --------------------------------------------------------------- */

/* Spin, then yield, then sleep: a writer fills in well under a microsecond, unless it is preempted. */
static void
leader_nap(uint32_t *turn)
{
    if (*turn < NAP_SPINS) {
        scree__cpu_relax();
    } else if (*turn < NAP_SPINS + NAP_YIELDS) {
        (void)sched_yield();
    } else {
        struct timespec ts = {.tv_sec = 0, .tv_nsec = NAP_NS};

        (void)nanosleep(&ts, NULL);
    }
    *turn += 1;
}

/* Look how far the ring is filled; remember the bound as a record boundary. */
static void
bound_observe(struct scree__log *log)
{
    uint64_t bound = scree__ring_bound(log);

    if (bound <= log->filled)
        return;
    log->filled = bound;
    if (log->bounds_n == LOG_BOUNDS) { /* thin out */
        for (uint32_t i = 0; i < LOG_BOUNDS / 2; i++)
            log->bounds[i] = log->bounds[2 * i + 1];
        log->bounds_n = LOG_BOUNDS / 2;
    }
    log->bounds[log->bounds_n++] = bound;
}

/* The largest record boundary we know of that is synced (I3). */
static uint64_t
bound_take(struct scree__log *log)
{
    uint64_t best = atomic_load_explicit(&log->stable, memory_order_relaxed); /* ours */
    uint32_t used = 0;

    while (used < log->bounds_n && log->bounds[used] <= log->synced)
        used++;
    if (used > 0 && log->bounds[used - 1] > best)
        best = log->bounds[used - 1];
    memmove(log->bounds, log->bounds + used, (log->bounds_n - used) * sizeof log->bounds[0]);
    log->bounds_n -= used;
    if (log->aim <= log->synced && log->aim > best)
        best = log->aim;
    if (log->sealed_end <= log->synced && log->sealed_end > best)
        best = log->sealed_end;
    return best;
}

static void
stable_publish(struct scree__log *log, uint64_t stable)
{
    if (stable <= atomic_load_explicit(&log->stable, memory_order_relaxed)) /* ours */
        return;
    log->company = atomic_load_explicit(&log->stable_gate.waiters, memory_order_relaxed);
    /* F7. Release: the sync came before. */
    atomic_store_explicit(&log->stable, stable, memory_order_seq_cst);
    scree__gate_open(&log->stable_gate);
    scree__gate_open(&log->feed_gate);
}

static int
leader_sync(struct scree__log *log)
{
    if (log->synced == log->written)
        return 0;
    uint64_t began = log->env->now_ns(log->env->ctx);
    uint64_t last = (log->written - 1) / log->segment_bytes;

    for (uint64_t n = log->synced / log->segment_bytes; n <= last; n++) {
        int rc = scree__segment_sync(log, n);

#ifdef SCREE_BUG_SYNC_UNHEARD
        rc = 0; /* seeded: a sync that fails is one that succeeds; fault_io must fail */
#endif
        if (rc != 0) {
            (void)scree__log_poison(log, rc, "sync of a log segment failed");
            return scree__log_check(log);
        }
    }
    scree__histogram_add(&log->sync_ns, log->env->now_ns(log->env->ctx) - began);
    /* Relaxed: our own, and a hint to others. */
    uint64_t mean = atomic_load_explicit(&log->sync_bytes, memory_order_relaxed);

    mean = mean == 0 ? log->written - log->synced : (7 * mean + log->written - log->synced) / 8;
    atomic_store_explicit(&log->sync_bytes, mean, memory_order_relaxed);
    log->synced = log->written;
    stable_publish(log, bound_take(log));
    return 0;
}

/* Write [written, upto), all of it filled, upto a block boundary. */
static int
leader_write(struct scree__log *log, uint64_t upto)
{
    SCREE_ASSERT(upto % SCREE_BLOCK == 0);
    while (log->written < upto) {
        uint64_t at = log->written;
        uint64_t len = upto - at;
        uint64_t in_segment = log->segment_bytes - at % log->segment_bytes;
        int rc = scree__log_check(log);

        if (len > LOG_WRITE_BYTES_MAX)
            len = LOG_WRITE_BYTES_MAX;
        if (len > in_segment)
            len = in_segment;
        if (rc == 0 && at + len - log->synced > log->unsynced_bytes_max)
            rc = leader_sync(log); /* I5 */
        if (rc != 0)
            return rc;
        uint64_t began = log->env->now_ns(log->env->ctx);

        rc = scree__segment_write(log, at, scree__ring_at(log, at), (size_t)len);
#ifdef SCREE_BUG_WRITE_AGAIN /* seeded: as if it had not failed; fault_io must fail */
        if (rc != 0)
            rc = scree__segment_write(log, at, scree__ring_at(log, at), (size_t)len);
#endif
        if (rc != 0) {
            (void)scree__log_poison(log, rc, "write to a log segment failed");
            return scree__log_check(log);
        }
        scree__histogram_add(&log->flush_ns, log->env->now_ns(log->env->ctx) - began);
        log->written = at + len;
        atomic_store_explicit(&log->flushed, log->written, memory_order_seq_cst); /* F6 */
        scree__gate_open(&log->room_gate);
    }
    return 0;
}

/* Write the whole blocks that are filled (I2). */
static int
leader_stream(struct scree__log *log)
{
    bound_observe(log);
    return leader_write(log, scree__round_down(log->filled, SCREE_BLOCK));
}

/* Wait until all below lsn is filled; what is filled meanwhile goes out when the ring needs it. */
static int
leader_wait_filled(struct scree__log *log, uint64_t lsn, uint64_t deadline)
{
    uint32_t turn = 0;

    for (bound_observe(log); log->filled < lsn; bound_observe(log)) {
        int rc = scree__log_check(log);

        /* A writer in front of lsn may be waiting for room (ring.c I6). */
        if (rc == 0 && atomic_load_explicit(&log->room_gate.waiters, memory_order_seq_cst) != 0)
            rc = leader_stream(log);
        if (rc == 0 && turn > NAP_SPINS) {
            if (log->env->now_ns(log->env->ctx) >= deadline ||
                atomic_load_explicit(&log->stop_flusher, memory_order_relaxed))
                rc = scree__fail(SCREE_E_TIMEOUT,
                                 "log: an open reservation below lsn %llu holds "
                                 "the sync up",
                                 (unsigned long long)lsn);
        }
        if (rc != 0)
            return rc;
        leader_nap(&turn);
    }
    return 0;
}

/* One try to close the run at the tail seen. Lost: somebody reserved. */
static bool
seal_claim(struct scree__log *log, uint64_t tail, uint64_t end)
{
    SCREE_YIELD_POINT();
    /* E10, LP. Release and acquire: as any reservation. */
    if (!atomic_compare_exchange_strong_explicit(&log->tail, &tail, end, memory_order_acq_rel,
                                                 memory_order_relaxed))
        return false;
    struct log_seal seal = {log->sealed_end,
                            atomic_load_explicit(&log->stable, memory_order_relaxed)}; /* ours */

    log->sealer.credit_bytes -= end - tail;
    scree__seal_encode(scree__ring_at(log, tail), tail, (uint32_t)(end - tail), seal);
    scree__log_charge_dead(log, tail, end - tail, tail);
    log->sealed_end = end;
    /* Release, start first: who sees this end sees this start or a later one. */
    atomic_store_explicit(&log->last_seal_start, tail, memory_order_release);
    atomic_store_explicit(&log->last_seal_end, end, memory_order_release);
    return true;
}

bool
scree__log_only_sealed_since(const struct scree__log *log, uint64_t lsn)
{
    uint64_t end = atomic_load_explicit(&log->last_seal_end, memory_order_acquire);
    uint64_t start = atomic_load_explicit(&log->last_seal_start, memory_order_acquire);
    uint64_t tail = atomic_load_explicit(&log->tail, memory_order_acquire);

    /* An end that is the tail is that of the newest seal of all, so the start seen is its own. */
    return tail == lsn || (start == lsn && end == tail);
}

static uint64_t
seal_end(uint64_t tail)
{
    return scree__round_up(tail + SEAL_BYTES_MIN, SCREE_BLOCK);
}

/*
 * Have the log reach *end_io, a block boundary: by now, or by a seal, which may end one block
 * later.
 */
static int
run_close(struct scree__log *log, uint64_t *end_io)
{
    for (;;) {
        uint64_t tail = atomic_load_explicit(&log->tail, memory_order_acquire);
        uint64_t end = seal_end(tail);
        bool needed = tail < *end_io;

        if (!needed && tail - log->sealed_end < SEAL_EVERY_BYTES)
            return 0;
        if (!needed) {
            /* Not for this sync, only for those who will look for damage: one try. */
            if (end <= log->written + log->ring_bytes && scree__room_seal_now(log, end - tail))
                (void)seal_claim(log, tail, end);
            return 0;
        }
        int rc = scree__room_seal(log, end - tail);

        if (rc == 0 && end > log->written + log->ring_bytes)
            rc = leader_stream(log);
        if (rc != 0)
            return rc;
        /* I4: all below *end_io - SCREE_BLOCK is filled and now written, the tail lies behind that. */
        SCREE_ASSERT(end <= log->written + log->ring_bytes);
        if (seal_claim(log, tail, end)) {
            *end_io = end;
            return 0;
        }
    }
}

/* Make everything below target stable. */
static int
leader_flush(struct scree__log *log, uint64_t target, uint64_t deadline)
{
    int rc = leader_wait_filled(log, target, deadline);

    if (rc != 0)
        return rc;
    log->aim = log->filled; /* a record boundary, not below target */
    uint64_t end = scree__round_up(log->aim, SCREE_BLOCK);

    rc = run_close(log, &end);
#ifdef SCREE_BUG_ACK_BEFORE_SYNC /* seeded: breaks "stable is synced"; a kill test must find it */
    if (rc == 0) {
        struct timespec ts = {.tv_sec = 0, .tv_nsec = 20 * 1000 * 1000};

        stable_publish(log, log->aim);
        (void)nanosleep(&ts, NULL);
    }
#endif
    if (rc == 0)
        rc = leader_wait_filled(log, end, deadline);
    if (rc == 0)
        rc = leader_write(log, end);
    if (rc == 0)
        rc = leader_sync(log);
    return rc;
}

static bool
lead_try(struct scree__log *log)
{
    return atomic_exchange_explicit(&log->busy, 1, memory_order_seq_cst) == 0; /* F1 */
}

static bool
request_is_open(const struct scree__log *log)
{
    return atomic_load_explicit(&log->requested, memory_order_seq_cst) >
           atomic_load_explicit(&log->stable, memory_order_seq_cst);
}

static void
lead_end(struct scree__log *log)
{
    atomic_store_explicit(&log->busy, 0, memory_order_seq_cst); /* F2 */
    if (atomic_load_explicit(&log->health, memory_order_relaxed) != 0)
        return;               /* everybody was woken */
    if (request_is_open(log)) /* F3 */
        scree__gate_open(&log->stable_gate);
    if (atomic_load_explicit(&log->kicked, memory_order_seq_cst) != 0) /* F3 */
        scree__gate_open(&log->flush_gate);
}

static int
lead_serve(struct scree__log *log, uint64_t deadline)
{
    uint64_t target = atomic_load_explicit(&log->requested, memory_order_seq_cst);

    if (target <= atomic_load_explicit(&log->stable, memory_order_relaxed)) /* ours */
        return 0;
    return leader_flush(log, target, deadline);
}

/* With company at the last sync: give the others a moment, so that one sync serves them too. */
static void
lead_gather(struct scree__log *log)
{
    if (log->company == 0)
        return;
    uint64_t until = log->env->now_ns(log->env->ctx) + GATHER_NS;

    /* Relaxed: a guess. */
    while (atomic_load_explicit(&log->stable_gate.waiters, memory_order_relaxed) < log->company &&
           log->env->now_ns(log->env->ctx) < until)
        (void)sched_yield();
}

/* ---- committers ------------------------------------------------------------------------------ */

void
scree__flusher_kick(struct scree__log *log)
{
    /* F4. The load first: under pressure the word stays in every writer's cache. */
    if (atomic_load_explicit(&log->kicked, memory_order_seq_cst) == 0 &&
        atomic_exchange_explicit(&log->kicked, 1, memory_order_seq_cst) == 0)
        scree__gate_open(&log->flush_gate);
}

uint64_t
scree__log_stable(const struct scree__log *log)
{
    return atomic_load_explicit(&log->stable, memory_order_acquire);
}

void
scree__log_request_stable(struct scree__log *log, uint64_t lsn)
{
    if (scree__log_stable(log) >= lsn || lsn > scree__log_tail(log))
        return;
    scree__atomic_max(&log->requested, lsn); /* F0 */
    scree__flusher_kick(log);
}

static int
stable_timeout(struct scree__log *log, uint64_t lsn)
{
    int refused = atomic_load_explicit(&log->space_error, memory_order_relaxed); /* a hint */

    scree__flusher_kick(log); /* nobody leads for us any more */
    if (scree__is_space_error(refused))
        return scree__fail(SCREE_E_NO_SPACE, "log: no room to make lsn %llu stable (%s)",
                           (unsigned long long)lsn, scree_strerror(refused));
    return scree__fail(SCREE_E_TIMEOUT, "log: lsn %llu was not stable in time (stable: %llu)",
                       (unsigned long long)lsn, (unsigned long long)scree__log_stable(log));
}

/* Who does not lead asks the flusher again now and then: it may have been refused room for a seal. */
static uint64_t
stable_step(uint64_t now, uint64_t deadline)
{
    if (deadline == UINT64_MAX)
        return UINT64_MAX;
    return deadline - now < STABLE_STEP_NS ? deadline - now : STABLE_STEP_NS;
}

/* One turn of waiting: lead if nobody does, else sleep. 1: look again. */
static int
stable_turn(struct scree__log *log, uint64_t lsn, uint64_t now, uint64_t deadline)
{
    uint32_t ticket = scree__gate_enter(&log->stable_gate);
    bool reached = atomic_load_explicit(&log->stable, memory_order_seq_cst) >= lsn;
    int rc = reached ? 0 : scree__log_check(log);

    if (!reached && rc == 0) {
        /* Who has only so much time does not lead: a sync takes as long as it takes. */
        bool lead = deadline == UINT64_MAX && lead_try(log);

        if (lead) {
            scree__gate_leave(&log->stable_gate);
            lead_gather(log);
            rc = lead_serve(log, deadline);
            lead_end(log);
            return rc == 0 || rc == SCREE_E_TIMEOUT ? 1 : rc;
        }
        rc = 1;
        if (now < deadline) /* wakers: F7, F3, F8 */
            scree__futex_wait(&log->stable_gate.seq, ticket, stable_step(now, deadline));
    }
    scree__gate_leave(&log->stable_gate);
    return rc;
}

int
scree__log_wait_stable(struct scree__log *log, uint64_t lsn, uint64_t timeout_ns)
{
    if (scree__log_stable(log) >= lsn)
        return 0;
    if (lsn > scree__log_tail(log))
        return scree__fail(SCREE_E_INVALID, "log: lsn %llu is beyond the tail %llu: never stable",
                           (unsigned long long)lsn, (unsigned long long)scree__log_tail(log));
    uint64_t now = timeout_ns == UINT64_MAX ? 0 : log->env->now_ns(log->env->ctx);
    uint64_t deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;

    scree__atomic_max(&log->requested, lsn); /* F0 */
    if (deadline != UINT64_MAX)
        scree__flusher_kick(log);
    uint64_t asked = now;

    for (;;) {
        int rc = stable_turn(log, lsn, now, deadline);

        if (rc <= 0)
            return rc;
        if (now >= deadline)
            return stable_timeout(log, lsn);
        if (deadline == UINT64_MAX)
            continue;
        now = log->env->now_ns(log->env->ctx);
        if (now - asked >= STABLE_STEP_NS) {
            scree__flusher_kick(log);
            asked = now;
        }
    }
}

void
scree__log_await_stable(struct scree__log *log, uint64_t lsn, uint64_t timeout_ns)
{
    uint64_t now = log->env->now_ns(log->env->ctx);
    uint64_t deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;

    while (now < deadline) {
        uint32_t ticket = scree__gate_enter(&log->feed_gate);
        bool wait = atomic_load_explicit(&log->stable, memory_order_seq_cst) <= lsn &&
                    atomic_load_explicit(&log->health, memory_order_seq_cst) == 0;

        if (wait) /* wakers: F7, F8 */
            scree__futex_wait(&log->feed_gate.seq, ticket,
                              deadline == UINT64_MAX ? UINT64_MAX : deadline - now);
        scree__gate_leave(&log->feed_gate);
        if (!wait)
            return;
        now = log->env->now_ns(log->env->ctx);
    }
}

/* ---- the flusher thread ---------------------------------------------------------------------- */

/* Serve requests, write whole blocks; while a writer waits for room, go on until it has it. */
static void
flusher_work(struct scree__log *log, bool tick)
{
    uint32_t turn = 0;

    atomic_store_explicit(&log->kicked, 0, memory_order_seq_cst); /* F5 */
    if (tick)
        scree__atomic_max(&log->requested, atomic_load_explicit(&log->tail, memory_order_acquire));
    for (;;) {
        uint64_t before = log->written;
        /* A commit that fails for want of room for its seal says so to its caller; here the blocks that
           are whole go out all the same. */
        int rc = lead_serve(log, UINT64_MAX);

        if (scree__log_health(log) == 0 && rc != SCREE_E_TIMEOUT)
            rc = leader_stream(log);
        if (rc != 0 || atomic_load_explicit(&log->room_gate.waiters, memory_order_seq_cst) == 0 ||
            atomic_load_explicit(&log->stop_flusher, memory_order_relaxed))
            return;
        /* Nobody tells us when the reservation in the way is filled: look again, soon. */
        if (log->written == before)
            leader_nap(&turn);
    }
}

static void *
flusher_main(void *arg)
{
    struct scree__log *log = arg;
    uint64_t interval = log->options.flush_interval_ms * 1000000ull;
    uint64_t next = log->env->now_ns(log->env->ctx) + interval;

    for (;;) {
        uint32_t ticket = scree__gate_enter(&log->flush_gate);
        bool stop = atomic_load_explicit(&log->stop_flusher, memory_order_seq_cst);
        bool healthy = atomic_load_explicit(&log->health, memory_order_seq_cst) == 0;
        bool kicked = atomic_load_explicit(&log->kicked, memory_order_seq_cst) != 0;
        uint64_t now = log->env->now_ns(log->env->ctx);
        bool tick = interval != 0 && now >= next;

        if (!stop && healthy && (kicked || tick) && lead_try(log)) {
            scree__gate_leave(&log->flush_gate);
            flusher_work(log, tick);
            lead_end(log);
            if (tick)
                next = now + interval;
            continue;
        }
        if (!stop) /* wakers: F4, F3, F8, stop */
            scree__futex_wait(&log->flush_gate.seq, ticket,
                              interval == 0 || !healthy ? UINT64_MAX
                              : tick                    ? interval
                                                        : next - now);
        scree__gate_leave(&log->flush_gate);
        if (stop)
            return NULL;
    }
}

void
scree__flusher_init(struct scree__log *log, uint64_t start_lsn)
{
    atomic_init(&log->tail, start_lsn);
    atomic_init(&log->flushed, start_lsn);
    atomic_init(&log->stable, start_lsn);
    atomic_init(&log->settled, start_lsn);
    atomic_init(&log->requested, start_lsn);
    log->written = log->synced = log->filled = start_lsn;
    log->aim = log->sealed_end = start_lsn;
    atomic_init(&log->sealer.position, SCREE__LSN_NONE);
}

int
scree__flusher_start(struct scree__log *log)
{
    int rc = pthread_create(&log->flusher, NULL, flusher_main, log);

    if (rc != 0)
        return scree__fail(-rc, "log: cannot start the flusher thread: %s", scree_strerror(-rc));
    log->flusher_runs = true;
    return 0;
}

void
scree__flusher_stop(struct scree__log *log)
{
    if (!log->flusher_runs)
        return;
    atomic_store_explicit(&log->stop_flusher, true, memory_order_seq_cst);
    scree__gate_open(&log->flush_gate);
    (void)pthread_join(log->flusher, NULL);
    log->flusher_runs = false;
}

const struct scree__histogram *
scree__log_histogram_flush(const struct scree__log *log)
{
    return &log->flush_ns;
}

const struct scree__histogram *
scree__log_histogram_sync(const struct scree__log *log)
{
    return &log->sync_ns;
}
