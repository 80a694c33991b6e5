/*
 * restart.c - the open mark, and what happens between a crash and the first new write.
 *
 * FILE  OPEN, little-endian: 0 magic   8 u32 format version   12 u32 check   16 ring_bytes
 *       24 unsynced_bytes   32 XXH3_64 of the 32 bytes before.   Written by tmp + rename.
 * PROTOCOL
 *   Before its first reservation an opened log makes OPEN durable; only a clean close removes it.
 *   With it, positions that were handed out and lost lie below
 *       (last position found) + ring_bytes / 2 + unsynced_bytes + ring_bytes                     (B)
 *   because the end found may lie below what was synced by the record that is cut there (a record
 *   is at most half a ring), at most unsynced_bytes are written and not synced (flusher.c I5), and
 *   at most ring_bytes more are handed out to callers. Repair, in this order, each step durable before the
 *   next:
 *     R1 what was accepted behind what is known to be stable is rewritten and synced: it may live
 *        in the OS cache alone. The block that holds the end is zeroed behind it.
 *     R2 bytes behind the end are cut off, segments behind it deleted.
 *     R3 segment J is made, beyond B; its header says where the log ended (prev_end).
 *     R4 OPEN is made anew: ring_bytes or unsynced_bytes may have changed, and the one found may not be
 *        durable: a sync of its name that failed is not made up for by a later one. (If the power takes
 *        it before that, nothing had been handed out behind the end: its own sync comes first.) Not before
 *        R3: until J exists, the old values bound what the crashed run handed out. A crash in between: the
 *        next open finds the same end (the bytes below it have not changed, the one at it stays bad), and
 *        does it again. After R2 the highest segment is the one of the end, which is not below what
 *        was synced but for the record cut there: J still lies beyond B.
 * INVARIANTS
 *   I1 no position is ever handed out twice.
 *   I2 prev_end of a jump is a claim: all below it was durable when the header was written (R1 <
 *      R3).
 * LIFETIME, PROGRESS  recovery and close only: one thread. scree__mark_write: under mark_lock.
 * FAILURE   returned; the directory can be opened again. A mark whose bytes do not verify counts as
 *   one with the largest values: the jump is wider, that is all.
 * NOT HERE  finding the end (scan.c).
 */
#include "log/log_private.h"

#include <errno.h>

#define MARK_MAGIC 0x6e65706f6b72616dull /* "markopen" read as bytes */
#define MARK_FORMAT 1u
#define MARK_BYTES 40u
#define MARK_BYTES_READ_MAX 4096u
#ifdef SCREE_SMALL_BUFFERS /* as in scan.c */
#define REWRITE_BYTES 16384u
#else
#define REWRITE_BYTES (1024u * 1024u)
#endif

#ifdef SCREE_BUG_LINK_TRUSTED /* seeded: a jump that is found is durable; fault_io must fail */
#define LINK_TRUSTED true
#else
#define LINK_TRUSTED false
#endif
#ifdef SCREE_BUG_REWRITE_NOT /* seeded: what a kill left unsynced stays so; test_restart must fail */
#define REWRITES false
#else
#define REWRITES true
#endif

/* ---- the mark -------------------------------------------------------------------------------- */

static int
mark_decode(struct scree__log *log, const uint8_t *at, size_t len)
{
    /* What an unreadable mark stands for. */
    log->found_ring_bytes = LOG_RING_BYTES_MAX;
    log->found_unsynced_bytes = LOG_RING_BYTES_MAX * LOG_UNSYNCED_RINGS;
    log->found_mark_bad = true;
    uint32_t version;

    if (len < LOG_STAMP_BYTES || !scree__file_stamp_read(at, MARK_MAGIC, &version))
        return 0;
    if (version != MARK_FORMAT)
        return scree__fail(SCREE_E_FORMAT, "%s/%s: format %u is unknown to this version of scree",
                           log->options.dir, LOG_MARK_NAME, version);
    if (len != MARK_BYTES)
        return 0;
    uint64_t ring = scree__get_u64(at + 16);
    uint64_t unsynced = scree__get_u64(at + 24);

    if (scree__get_u64(at + 32) != scree__log_hash(at, 32) || ring > log->found_ring_bytes ||
        unsynced > log->found_unsynced_bytes)
        return 0;
    log->found_ring_bytes = ring;
    log->found_unsynced_bytes = unsynced;
    log->found_mark_bad = false;
    return 0;
}

int
scree__mark_load(struct scree__log *log)
{
    char *path = scree__path_join(log->options.dir, LOG_MARK_NAME);
    void *data;
    size_t len;

    if (path == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a file name");
    int rc = scree__env_read_file(log->env, path, MARK_BYTES_READ_MAX, &data, &len);

    scree__path_free(path);
    log->found_clean = rc == -ENOENT;
    if (rc == -ENOENT) {
        scree__fail_clear();
        return 0;
    }
    if (rc == SCREE_E_TOO_BIG) {
        scree__fail_clear();
        return mark_decode(log, (const uint8_t *)"", 0);
    }
    if (rc != 0)
        return rc;
    rc = mark_decode(log, data, len);
    scree__free(data, len);
    return rc;
}

/* Errors after which the write may be made anew: nothing of it is relied on. */
static bool
mark_may_retry(int code)
{
    return scree__is_space_error(code) || code == SCREE_E_NO_MEMORY || code == -EMFILE ||
           code == -ENFILE || code == -EACCES || code == -EROFS;
}

static int
mark_store(struct scree__log *log)
{
    uint8_t bytes[MARK_BYTES] = {0};

    scree__file_stamp(bytes, MARK_MAGIC, MARK_FORMAT);
    scree__put_u64(bytes + 16, log->ring_bytes);
    scree__put_u64(bytes + 24, log->unsynced_bytes_max);
    scree__put_u64(bytes + 32, scree__log_hash(bytes, 32));
    atomic_store_explicit(&log->dirty, true, memory_order_release);
    int rc = scree__env_replace_file(log->env, log->options.dir, LOG_MARK_NAME, bytes, MARK_BYTES);

    if (rc == 0)
        atomic_store_explicit(&log->marked, true, memory_order_seq_cst); /* room.c I2, E4 */
    return rc;
}

int
scree__mark_write(struct scree__log *log)
{
    int rc = 0;

    (void)pthread_mutex_lock(&log->mark_lock);
    if (!atomic_load_explicit(&log->marked, memory_order_relaxed)) { /* mark_lock */
        rc = scree__log_check(log);
        if (rc == 0)
            rc = mark_store(log);
        if (rc != 0 && rc != SCREE_E_POISONED && !mark_may_retry(rc))
            (void)scree__log_poison(log, rc, "writing the open mark failed");
    }
    (void)pthread_mutex_unlock(&log->mark_lock);
    if (rc != 0 && scree__is_space_error(rc))
        return scree__fail(SCREE_E_NO_SPACE, "%s/%s: no room to begin writing (%s)",
                           log->options.dir, LOG_MARK_NAME, scree_strerror(rc));
    if (rc == 0)
        scree__gate_open(&log->alloc_gate);
    return rc;
}

int
scree__mark_remove(struct scree__log *log)
{
    char *path = scree__path_join(log->options.dir, LOG_MARK_NAME);
    uint64_t begun = scree__names_begin(log->options.dir);

    if (path == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a file name");
    int rc = log->env->unlink(log->env->ctx, path);

    if (rc != 0 && rc != -ENOENT)
        rc = scree__fail(rc, "%s: cannot delete: %s", path, scree_strerror(rc));
    else
        rc = scree__segment_sync_dir(log, begun);
    scree__path_free(path);
    return rc;
}

/* ---- R1 -------------------------------------------------------------------------------------- */

/* Where the gapless run of segments that ends at `end` begins: behind the last jump. */
static uint64_t
run_begin(struct scree__log *log, uint64_t end, uint64_t not_below)
{
    uint64_t number = (end - 1) / log->segment_bytes;
    struct log_segment_info info;

    while (number * log->segment_bytes > not_below) {
        if (!scree__segment_from(log, number, &info) || info.number != number)
            return (number + 1) * log->segment_bytes;
        if (info.header_ok && info.prev_end < number * log->segment_bytes)
            return number * log->segment_bytes;
        number--;
    }
    return not_below;
}

static int
rewrite_piece(struct scree__log *log, uint64_t at, uint64_t end, uint8_t *buffer, size_t n)
{
    size_t live = end - at < n ? (size_t)(end - at) : n;
    size_t got;
    int rc = scree__segment_read(log, at, buffer, n, &got);

    if (rc == 0 && got < live)
        rc = scree__fail(-EIO, "log: %zu of %zu bytes at lsn %llu vanished since they were scanned",
                         live - got, live, (unsigned long long)at);
    if (rc == 0) {
        memset(buffer + live, 0, n - live);
        rc = scree__segment_write(log, at, buffer, n);
    }
    return rc;
}

static int
rewrite(struct scree__log *log, uint64_t from, uint64_t end)
{
    uint8_t *buffer = scree__alloc_aligned(SCREE_BLOCK, REWRITE_BYTES);
    uint64_t last = scree__round_up(end, SCREE_BLOCK);
    int rc = 0;

    if (buffer == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory to rewrite the end of the log");
    for (uint64_t at = scree__round_down(from, SCREE_BLOCK); at < last && rc == 0;) {
        uint64_t in_segment = log->segment_bytes - at % log->segment_bytes;
        uint64_t n = last - at < REWRITE_BYTES ? last - at : REWRITE_BYTES;

        n = n < in_segment ? n : in_segment;
        rc = rewrite_piece(log, at, end, buffer, (size_t)n);
        at += n;
        if (rc == 0 && (at == last || at % log->segment_bytes == 0))
            rc = scree__segment_sync(log, (at - 1) / log->segment_bytes);
    }
    scree__free(buffer, REWRITE_BYTES);
    return rc;
}

/* ---- R2, R3 ---------------------------------------------------------------------------------- */

/*
 * Nothing behind `end` is left; the segment of a jump stays even if it is empty: it is a link. It is made anew
 * then: syncing it, or its name, may have failed when it was made, and the next jump will say that the log goes
 * up to it. (One that holds something of the log had been synced before.)
 * Later segments go first, durably: a segment that is missing while a later one is there means
 * damage to the scan.
 */
static int
cut_behind(struct scree__log *log, uint64_t end)
{
    uint64_t number = end / log->segment_bytes;
    uint64_t used = scree__round_up(end % log->segment_bytes, SCREE_BLOCK);
    uint64_t begun = scree__names_begin(log->options.dir);
    struct log_segment_info info;
    int rc = 0;

    while (rc == 0 && scree__segment_from(log, number + 1, &info))
        rc = scree__segment_remove(log, info.number, NULL);
    if (rc == 0)
        rc = scree__segment_sync_dir(log, begun);
    if (rc == 0 && scree__segment_from(log, number, &info) && info.number == number) {
        bool link = info.header_ok && info.prev_end < number * log->segment_bytes;

        if (used > 0 || (link && LINK_TRUSTED))
            rc = scree__segment_cut(log, number, used);
        else
            rc = link ? scree__segment_renew(log, number, info.prev_end)
                      : scree__segment_remove(log, number, NULL);
    }
    return rc != 0 ? rc : scree__segment_sync_dir(log, begun);
}

static int
jump(struct scree__log *log, uint64_t highest, uint64_t end, uint64_t *start_out)
{
    uint64_t lost =
        log->found_ring_bytes + log->found_ring_bytes / 2 + log->found_unsynced_bytes; /* B */
    uint64_t number =
        highest + 1 + scree__round_up(lost, log->segment_bytes) / log->segment_bytes + 1;

    if (number >= SCREE__LSN_MAX / log->segment_bytes)
        return scree__fail(-EOVERFLOW, "%s: the space of log positions is used up",
                           log->options.dir);
    *start_out = number * log->segment_bytes;
    int rc = scree__segment_create(log, number, end);

    if (rc != 0)
        return scree__is_space_error(rc)
                   ? scree__fail(SCREE_E_NO_SPACE, "%s: no room to recover (%s)", log->options.dir,
                                 scree_strerror(rc))
                   : rc;
    /* The rest of the old segment will never be written. It may go with the segment, but not before
       nobody needs this jump's link: D = the last position before the jump. */
    uint64_t rest = scree__round_up(end, log->segment_bytes) - end;

    if (scree__segment_peek(log, end / log->segment_bytes) != NULL)
        scree__log_charge_dead(log, end, rest > 0 ? rest : log->segment_bytes, *start_out - 1);
    return 0;
}

int
scree__restart_repair(struct scree__log *log, uint64_t end, uint64_t known_stable,
                      uint64_t *start_out)
{
    uint64_t stable = known_stable > log->scan_claim ? known_stable : log->scan_claim;
    uint64_t highest = end / log->segment_bytes;
    struct log_segment_info info;

    if (scree__segment_last(log, &info) && info.number > highest)
        highest = info.number;
    stable = stable < end ? stable : end;
    atomic_store_explicit(&log->dirty, true, memory_order_release);
    if (stable < log->segment_bytes)
        stable = log->segment_bytes; /* where every log begins */
#ifdef SCREE_BUG_MARK_EARLY
    /* Seeded: what is being repaired looks closed meanwhile. crash_recovery must fail. */
    (void)scree__mark_remove(log);
    log->found_ring_bytes = 0;
#endif
    int rc = REWRITES ? rewrite(log, run_begin(log, end, stable), end) : 0; /* R1 */

    if (rc == 0)
        rc = cut_behind(log, end); /* R2 */
    if (rc == 0)
        rc = jump(log, highest, end, start_out); /* R3 */
#ifdef SCREE_BUG_MARK_TRUSTED
    /* Seeded: the mark found is taken for durable. fault_io must fail. */
    if (rc == 0) {
        atomic_store_explicit(&log->marked, true, memory_order_seq_cst);
        return 0;
    }
#endif
    if (rc == 0)
        rc = mark_store(log); /* R4 */
    return rc;
}

int
scree__restart_cut(struct scree__log *log, uint64_t end)
{
    uint64_t number = end / log->segment_bytes;
    uint64_t begun = scree__names_begin(log->options.dir);
    struct log_segment_info info;
    int rc = 0;

    SCREE_ASSERT(end % SCREE_BLOCK == 0);
    while (rc == 0 && scree__segment_from(log, number + 1, &info))
        rc = scree__segment_remove(log, info.number, NULL);
    if (rc == 0 && scree__segment_from(log, number, &info) && info.number == number)
        rc = scree__segment_cut(log, number, end % log->segment_bytes);
    return rc != 0 ? rc : scree__segment_sync_dir(log, begun);
}
