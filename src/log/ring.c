/*
 * ring.c - hand out positions of the log, fill them in memory, and know what is filled.
 *
 * WORDS  tail: the next free position. flushed: below it the ring's bytes are on disk, so that the
 *        ring holds [flushed, flushed + ring_bytes). writer.position: a lower bound of what its
 *        thread may still be filling, LSN_NONE if nothing. settled: the largest bound anybody
 *        computed.
 * EDGES  step                                  who              order              pairs
 *   E0   registry: push a new writer           its thread       CAS release        E6
 *   E1   position = end of our last one        its thread       store release      E7
 *   E2   tail + len: the range is ours  LP     its thread       fetch_add acq_rel  E5
 *   E3   position = our own lsn                its thread       store release      E7
 *   E4   position = NONE: filled               its thread       store release      E7
 *   E5   bound: load tail                      leader, settled  load acquire       E2
 *   E6   bound: load registry, after E5        leader, settled  load acquire       E0
 *   E7   bound: load each position, after E5   leader, settled  load acquire       E1, E3, E4
 *   E8   flushed grows                         leader           store seq_cst      E9
 *   E9   room?                                 writer           load acquire       E8
 *   E10  tail -> block boundary: a seal        leader           CAS acq_rel        E5; lost: flusher.c
 *   A writer goes E1 E2 E3 (wait for room) fill E4.
 *   E1's value need not be the tail, only a bound that E2's cannot be below: our own last end is one that
 *   costs no look at the tail's line, which all writers fight for. E3 follows at once, so that the bound is
 *   held back where it must be, at our record, however long it takes to fill and install.
 * INVARIANTS
 *   I1 the bound min(tail, positions), loaded in the order E5, E6, E7, has everything below it
 *      filled. Let [a, b) be reserved with b <= the tail loaded. Its E2 is at or before that value
 *      in the tail's order (RMWs only, hence one release sequence), so E1 happens before E7, and E7
 *      sees that position, which is <= a, or a later one of the same thread. A later one is E3 (=
 *      a), E4 (so it is filled, and the acquire brings the bytes), or the E1 of a later reservation
 *      (so it was filled before). In the first two cases the bound is <= a, in the others [a, b) is
 *      filled.
 *   I2 a writer that registers meanwhile: its E0 precedes its first E2 in program order, so
 *      whoever's E5 sees that E2 finds it by E6; who doesn't see the E2 took a tail below its
 *      range.
 *   I3 a bound once computed stays true, so the largest one seen may be kept (a computed one may be
 *      smaller than one before it: E1 publishes a position that is old by the time of E2).
 *   I4 bounds are starts or ends of reservations: record boundaries.
 *   I5 ring bytes of [a, b) are written only while b <= flushed + ring_bytes: E9 (acquire) after
 *      E8, which follows the write of what lay there.
 *   I6 the leader waits for nobody who waits for it: a writer waiting for room has published its
 *      own lsn (E3), so that all in front of it can be written; a record is at most half a ring and
 *      the leader writes whole blocks, hence its room comes.
 * LIFETIME  writers are recycled, freed with the log.
 * PROGRESS  reserve is wait-free but for ring room; there it sleeps, waker: the leader's E8 or
 *          poison.
 * FAILURE   poison while waiting for room: the range stays unfilled, nothing is written any more.
 *           Crash: unwritten ranges vanish; the scan ends at the first one.
 * NOT HERE  credit (room.c), what is written when (flusher.c).   REFS  tests/spin/reserve.pml
 */
#include "log/log_private.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- memory ---------------------------------------------------------------------------------- */

/* Two views of the same pages in a row: a record that runs over the end runs into the start. */
static int
ring_map_twice(struct scree__log *log, int memory)
{
    size_t bytes = (size_t)log->ring_bytes;
    uint8_t *at =
        mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return -errno;
    for (int i = 0; i < 2; i++) {
        if (mmap(at + (size_t)i * bytes, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                 memory, 0) == MAP_FAILED) {
            int rc = -errno;

            (void)munmap(at, 2 * bytes);
            return rc;
        }
    }
    /* A forked child must not see, let alone write, the parent's log. */
    if (madvise(at, 2 * bytes, MADV_DONTFORK) != 0) {
        int rc = -errno;

        (void)munmap(at, 2 * bytes);
        return rc;
    }
    log->ring = at;
    return 0;
}

int
scree__ring_map(struct scree__log *log)
{
    int memory = memfd_create("scree-log", MFD_CLOEXEC);
    int rc = memory < 0 ? -errno : 0;

    if (rc == 0 && ftruncate(memory, (off_t)log->ring_bytes) != 0)
        rc = -errno;
    if (rc == 0)
        rc = ring_map_twice(log, memory);
    if (memory >= 0)
        (void)close(memory); /* the mapping holds it */
    if (rc == -ENOMEM)
        rc = SCREE_E_NO_MEMORY;
    if (rc != 0)
        return scree__fail(rc, "log buffer: cannot map %llu bytes twice: %s",
                           (unsigned long long)log->ring_bytes, scree_strerror(rc));
    return 0;
}

void
scree__ring_unmap(struct scree__log *log)
{
    if (log->ring != NULL)
        (void)munmap(log->ring, 2 * (size_t)log->ring_bytes);
    log->ring = NULL;
}

/* ---- registry -------------------------------------------------------------------------------- */

struct scree__log_writer *
scree__log_writer_attach(struct scree__log *log)
{
    struct scree__log_writer *w = atomic_load_explicit(&log->writers, memory_order_acquire);

    for (; w != NULL; w = w->next) {
        uint32_t idle = 0;

        /* Acquire: the former owner's last plain writes (credit_bytes) lie before its release in detach. */
        if (atomic_compare_exchange_strong_explicit(&w->in_use, &idle, 1, memory_order_acquire,
                                                    memory_order_relaxed))
            return w;
    }
    w = scree__alloc_aligned(SCREE_CACHE_LINE, sizeof *w);
    if (w == NULL)
        return NULL;
    memset(w, 0, sizeof *w);
    atomic_init(&w->position, SCREE__LSN_NONE);
    atomic_init(&w->in_use, 1);
    w->next = atomic_load_explicit(&log->writers, memory_order_relaxed); /* only compared below */
    /* E0. Release: an initialized writer (I2). Nothing is ever popped: no ABA. */
    while (!atomic_compare_exchange_weak_explicit(&log->writers, &w->next, w, memory_order_release,
                                                  memory_order_relaxed))
        SCREE_YIELD_POINT();
    return w;
}

void
scree__log_writer_detach(struct scree__log *log, struct scree__log_writer *w)
{
    SCREE_ASSERT(atomic_load_explicit(&w->position, memory_order_relaxed) == SCREE__LSN_NONE);
    /* Relaxed: a count; nothing is published by it (room.c). */
    (void)atomic_fetch_sub_explicit(&log->claimed, w->credit_bytes, memory_order_relaxed);
    w->credit_bytes = 0;
    atomic_store_explicit(&w->in_use, 0, memory_order_release); /* pairs with attach */
}

/* ---- bounds ---------------------------------------------------------------------------------- */

static uint64_t
positions_min(const struct scree__log *log, uint64_t bound)
{
    /* E6 */
    const struct scree__log_writer *w = atomic_load_explicit(&log->writers, memory_order_acquire);

    for (; w != NULL; w = w->next) {
        uint64_t position = atomic_load_explicit(&w->position, memory_order_acquire); /* E7 */

        if (position < bound)
            bound = position;
        SCREE_YIELD_POINT();
    }
    return bound;
}

uint64_t
scree__ring_bound(struct scree__log *log)
{
#ifdef SCREE_BUG_SLOTS_BEFORE_TAIL /* seeded: breaks I1; the stress test must find it */
    uint64_t positions = positions_min(log, SCREE__LSN_NONE);

    (void)sched_yield(); /* a window that is hit in seconds */
    uint64_t tail = atomic_load_explicit(&log->tail, memory_order_acquire);

    return positions < tail ? positions : tail;
#else
    uint64_t tail = atomic_load_explicit(&log->tail, memory_order_acquire); /* E5 */

    SCREE_YIELD_POINT();
    return positions_min(log, tail);
#endif
}

uint64_t
scree__log_settled(struct scree__log *log)
{
    /* A writer completes only when it has installed its record or given it up, so the bound serves
       here too. A seal may be claimed and not yet filled below it: nobody installs those. */
    scree__atomic_max(&log->settled, scree__ring_bound(log)); /* I3 */
    return atomic_load_explicit(&log->settled, memory_order_acquire);
}

uint64_t
scree__log_tail(const struct scree__log *log)
{
    return atomic_load_explicit(&log->tail, memory_order_acquire);
}

/* ---- writing --------------------------------------------------------------------------------- */

static bool
ring_has_room(struct scree__log *log, uint64_t end)
{
    /* seq_cst where it follows a gate's enter (log_private.h); alone an acquire would do: E9. */
    return end <= atomic_load_explicit(&log->flushed, memory_order_seq_cst) + log->ring_bytes;
}

/* Sleep until [.., end) has room. I6: E3 is done. */
static int
ring_wait(struct scree__log *log, struct scree__log_writer *w, uint64_t end)
{
    for (;;) {
        uint32_t ticket = scree__gate_enter(&log->room_gate);
        bool room = ring_has_room(log, end);
        int health = atomic_load_explicit(&log->health, memory_order_acquire);

        if (!room && health == 0) {
            scree__flusher_kick(log);
            /* Waker: E8 or poison. */
            scree__futex_wait(&log->room_gate.seq, ticket, UINT64_MAX);
        }
        scree__gate_leave(&log->room_gate);
        if (health != 0) {
            /* Our range stays unfilled: nothing is written after poison. */
            atomic_store_explicit(&w->position, SCREE__LSN_NONE, memory_order_release);
            return scree__log_check(log);
        }
        if (room)
            return 0;
    }
}

/* E1 to E3, and a wait where there is no room yet. *lsn_out: of `len` bytes that are ours to fill. */
static int
ring_take(struct scree__log *log, struct scree__log_writer *w, uint32_t len, uint64_t *lsn_out)
{
    SCREE_ASSERT(atomic_load_explicit(&w->position, memory_order_relaxed) == SCREE__LSN_NONE);
    SCREE_CHECK(w->credit_bytes >= len); /* or the range may have no room on disk */
    w->credit_bytes -= len;
    /* E1. I1 wants a value <= what E2 returns: the tail never falls below what it gave us before. */
    atomic_store_explicit(&w->position, w->end, memory_order_release);
    SCREE_YIELD_POINT();
    /* E2, LP. Release: E1 goes with it. Acquire: log order respects what this thread has seen. */
    uint64_t lsn = atomic_fetch_add_explicit(&log->tail, len, memory_order_acq_rel);
    uint64_t flushed = atomic_load_explicit(&log->flushed, memory_order_acquire); /* E9 */

    w->end = lsn + len;
    SCREE_YIELD_POINT();
    atomic_store_explicit(&w->position, lsn, memory_order_release); /* E3 */
    if (lsn + len > flushed + log->ring_bytes / 2) {
        /* Half full: let the flusher write before anybody has to wait. */
        scree__flusher_kick(log);
        if (lsn + len > flushed + log->ring_bytes) {
            int rc = ring_wait(log, w, lsn + len);

            if (rc != 0)
                return rc;
        }
    }
    *lsn_out = lsn;
    return 0;
}

int
scree__log_reserve(struct scree__log *log, struct scree__log_writer *w, struct scree__record *r)
{
    int rc = ring_take(log, w, r->disk_len, &r->lsn);

    if (rc != 0)
        return rc;
    if (r->kind != SCREE__RECORD_CONSOLIDATED)
        r->version = r->lsn + r->disk_len;
    if (w->sample)
        w->fill_begin_ns = log->env->now_ns(log->env->ctx);
    scree__record_encode(r, scree__ring_at(log, r->lsn)); /* I5 */
    return 0;
}

static uint32_t
batch_bytes(const struct scree__record *record, size_t n)
{
    uint32_t bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += record[i].disk_len;
    return bytes;
}

int
scree__log_reserve_batch(struct scree__log *log, struct scree__log_writer *w,
                         struct scree__record *record, size_t n)
{
    uint32_t bytes = batch_bytes(record, n);
    uint64_t at, end;
    int rc = ring_take(log, w, bytes, &at);

    if (rc != 0)
        return rc;
    end = at + bytes;
    for (size_t i = 0; i < n; i++) {
        record[i].lsn = at;
        record[i].version = end;
        scree__record_encode(&record[i], scree__ring_at(log, at)); /* I5 */
        at += record[i].disk_len;
    }
    return 0;
}

void
scree__log_complete(struct scree__log *log, struct scree__log_writer *w)
{
    (void)log;
    SCREE_YIELD_POINT();
    /* E4. Release: the record's bytes, and what the caller installed. */
    atomic_store_explicit(&w->position, SCREE__LSN_NONE, memory_order_release);
}

void
scree__log_abort(struct scree__log *log, struct scree__log_writer *w, const struct scree__record *r)
{
    /* Still ours: position <= r->lsn keeps the leader away until E4. */
    scree__record_encode_filler(scree__ring_at(log, r->lsn), r->lsn, r->page, r->disk_len,
                                SCREE__RECORD_ABORTED);
    scree__log_charge_dead(log, r->lsn, r->disk_len, r->lsn);
    scree__log_complete(log, w);
}

void
scree__log_abort_batch(struct scree__log *log, struct scree__log_writer *w,
                       const struct scree__record *record, size_t n)
{
    for (size_t i = 0; i < n; i++)
        scree__record_encode_filler(scree__ring_at(log, record[i].lsn), record[i].lsn,
                                    record[i].page, record[i].disk_len, SCREE__RECORD_ABORTED);
    scree__log_charge_dead(log, record[0].lsn, batch_bytes(record, n), record[0].lsn);
    scree__log_complete(log, w);
}
