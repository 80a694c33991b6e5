/*
 * log_private.h - what the files of src/log share: the log object, and who may touch what in it.
 *
 * THREADS
 *   writers     any thread of the user, between reserve and complete (ring.c)
 *   the leader  whoever holds `busy`: the flusher thread, or a committer that leads its own sync
 *               (flusher.c). At most one.
 *   allocator   one thread, makes room in segment files ahead of the writers (room.c)
 *   others      readers, the space collector, stats
 *
 * FILES: record.c codec | ring.c reserve, fill, complete | room.c credit, allocation ahead |
 *   flusher.c runs, seals, sync | segment.c files and their table | restart.c open mark, trim, jump
 *   | scan.c recovery scan | reader.c single records | space.c dead bytes | log.c create, start,
 *   close.
 */
#ifndef SCREE_LOG_PRIVATE_H
#define SCREE_LOG_PRIVATE_H

#include "log/log.h"

#include <pthread.h>
#include <string.h>

#define LOG_HEADER_BYTES 4096u /* before the data of each segment file */
#define LOG_WRITE_BYTES_MAX (1024u * 1024u)
#define LOG_RING_BYTES_MIN (64ull * 1024)
#define LOG_RING_BYTES_MAX (4ull * 1024 * 1024 * 1024)
#define LOG_SEGMENT_BYTES_MIN (16ull * 1024)
#define LOG_SEGMENT_BYTES_MAX (1ull << 40)
#define LOG_UNSYNCED_RINGS 8u   /* written but not synced: at most this many rings */
#define LOG_FILES_OPEN_MAX 128u /* segment files held open at a time, tail included */
#define LOG_NAME_BYTES 32u      /* "segment-" + 16 digits + NUL fits */
#define LOG_STRANGERS 16u
#define LOG_MARK_NAME "OPEN"
#define LOG_SECOND_NS 1000000000ull

/* ---- gates: wait for a condition that somebody else makes true ------------------------------- */

/*
 * WORD  seq: how often the gate was opened (wraps; a waiter would have to sleep through 2^32
 *       openings without noticing). waiters: threads between enter and leave.
 * EDGES  G0 enter: waiters + 1 seq_cst, then seq load seq_cst; the condition is looked at after
 *        that
 *        G1 open: (the condition was made true before) seq + 1 seq_cst, then waiters load seq_cst
 *   Store-load pair: enter stores waiters and loads seq, open stores seq and loads waiters. In the
 *   total order one of them comes second: either open sees the waiter and wakes it, or the waiter
 *   sees the new seq (an acquire), hence the condition.
 */
struct log_gate {
    _Alignas(SCREE_CACHE_LINE) _Atomic uint32_t seq;
    _Atomic uint32_t waiters;
};

static inline uint32_t
scree__gate_enter(struct log_gate *g)
{
    (void)atomic_fetch_add_explicit(&g->waiters, 1, memory_order_seq_cst); /* G0 */
    return atomic_load_explicit(&g->seq, memory_order_seq_cst);            /* G0 */
}

static inline void
scree__gate_leave(struct log_gate *g)
{
    /* Relaxed: a waiter counted too long costs one needless wake. */
    (void)atomic_fetch_sub_explicit(&g->waiters, 1, memory_order_relaxed);
}

static inline void
scree__gate_open(struct log_gate *g)
{
    (void)atomic_fetch_add_explicit(&g->seq, 1, memory_order_seq_cst); /* G1 */
    if (atomic_load_explicit(&g->waiters, memory_order_seq_cst) != 0)  /* G1 */
        scree__futex_wake(&g->seq, INT32_MAX);
}

/* ---- segments (segment.c) -------------------------------------------------------------------- */

/* One segment file. Type-stable: recycled through a list, freed with the log. */
struct log_segment {
    _Alignas(
        SCREE_CACHE_LINE) _Atomic uint64_t number; /* 0: on the free list; protocol in segment.c */
    _Atomic uint64_t dead_bytes;                   /* any thread adds; space.c */
    _Atomic uint64_t *granule; /* log->granules of them, as long as the struct; words in space.c */
    /* All below: under files_lock. */
    uint64_t *hole; /* a bit a granule: given back to the file system */
    struct log_segment *next_free;
    uint64_t prev_end;   /* header: where the log ended before it; meaningful if header_ok */
    uint64_t file_bytes; /* header and data, as allocated */
    uint64_t disk_bytes; /* what the file occupied when last looked at */
    uint32_t pins;       /* I/O going on: the file stays open */
    int file;            /* -1: closed */
    bool header_ok;
    bool stranger; /* its header names another directory, or another segment; survey only */
    bool damaged;  /* something in it cannot be moved: cleaning leaves it alone */
    bool leaving;  /* being unlinked: its file may be gone already */
    bool gone;     /* out of the table; recycled with the last pin */
};

#define GRANULE_DEATH_SHIFT 14

static inline uint64_t
scree__granule_dead(uint64_t word)
{
    return (word & (((uint64_t)1 << GRANULE_DEATH_SHIFT) - 1)) * 8;
}

/* Above every death in it. */
static inline uint64_t
scree__granule_death_end(uint64_t word)
{
    return (word >> GRANULE_DEATH_SHIFT) * SCREE_BLOCK;
}

/* Under files_lock. */
static inline bool
scree__granule_punched(const struct log_segment *seg, uint32_t i)
{
    return (seg->hole[i / 64] >> i % 64 & 1) != 0;
}

static inline void
scree__granule_punched_set(struct log_segment *seg, uint32_t i, bool punched)
{
    seg->hole[i / 64] &= ~((uint64_t)1 << i % 64);
    seg->hole[i / 64] |= (uint64_t)punched << i % 64;
}

/* Number -> segment for charge_dead; two of them take turns (segment.c). */
struct log_table {
    uint64_t mask; /* cells - 1; set once before publish */
    _Atomic(struct log_segment *) cell[];
};

struct log_retired { /* a table a stalled reader may still look at */
    struct log_retired *next;
    struct log_table *table;
};

/* Granules [first, first + n) of a segment, to be given back (collect.c). */
struct log_pick {
    uint64_t number;
    uint32_t first, n;
};
#define LOG_PICKS 256u /* at a time */
#define LOG_PIECES \
    16u /* of a segment: what is cleaned and punched at a time, if that is not too much */
#define LOG_PUNCH_GRANULES 32u /* surely worth a system call and the discard it may bring */

/* Record boundaries the leader has seen and not yet published (flusher.c). */
#define LOG_BOUNDS 64u

struct scree__log {
    /* set once by create or start, before other threads */
    struct scree__log_options options; /* dir points to our copy */
    const scree_env *env;
    uint64_t segment_bytes;
    uint64_t ring_bytes;
    uint64_t ring_mask;
    uint8_t *ring; /* mapped twice in a row */
    uint64_t unsynced_bytes_max;
    uint32_t granules; /* of a segment */
    uint64_t reserve_bytes, ahead_bytes_max, chunk_bytes, portion_bytes;
    uint64_t start_lsn; /* where this object began to write */
    bool started;
    bool found_clean;
    uint64_t stranger[LOG_STRANGERS]; /* survey: numbers of files that were left out */
    uint32_t strangers;               /* how many there are; the first of them are listed */
    bool found_mark_bad;              /* there is one, and it does not verify */
    uint64_t found_ring_bytes, found_unsynced_bytes; /* of the mark found */
    uint64_t scan_claim; /* single-threaded recovery: what accepted seals say was stable */

    /* ring.c */
    _Alignas(SCREE_CACHE_LINE) _Atomic uint64_t tail;
    _Alignas(SCREE_CACHE_LINE) _Atomic uint64_t flushed; /* leader stores; room in the ring */
    _Atomic uint64_t stable;                             /* leader stores; a record boundary */
    _Atomic int health;                                  /* 0, then once -errno */
    _Atomic uint32_t kicked;                             /* ring pressure told to the flusher */
    _Alignas(SCREE_CACHE_LINE) _Atomic uint64_t settled;
    _Atomic(struct scree__log_writer *) writers;
    struct log_gate room_gate;   /* flushed grew */
    struct log_gate stable_gate; /* stable grew */
    struct log_gate flush_gate;  /* work for the flusher thread */
    struct log_gate feed_gate;   /* stable grew, for those who only watch: no committers */

    /* room.c */
    _Alignas(SCREE_CACHE_LINE) _Atomic uint64_t claimed;
    _Atomic uint64_t allocated;
    _Atomic uint64_t wanted; /* CAS-max */
    _Atomic uint64_t urgent; /* the same, of those whom no pause delays */
    _Atomic int space_error; /* why allocated cannot grow; 0: it can */
    _Atomic uint32_t attempts;
    _Atomic uint64_t attempt_ns;
    _Atomic bool retry;
    _Atomic bool relief; /* the disk is full, but room is being made */
    _Atomic uint64_t soft_bytes,
        hard_bytes;      /* on disk: from where on room for users comes with pauses */
    _Atomic bool paused; /* allocator stores */
    bool told_full;      /* allocator only */
    unsigned strain;     /* allocator only: on writers, see room_strain */
    _Atomic uint64_t outside_bytes;
    _Atomic uint64_t ahead_bytes;
    _Atomic bool marked; /* the open mark is on disk */
    pthread_mutex_t mark_lock;
    struct log_gate credit_gate; /* allocated grew, or could not */
    struct log_gate alloc_gate;  /* work for the allocator thread */

    /* flusher.c; those not atomic: the leader only */
    _Alignas(SCREE_CACHE_LINE) _Atomic uint32_t busy;
    _Atomic uint64_t requested; /* CAS-max */
    uint64_t written, synced;   /* block boundaries */
    uint64_t filled;            /* largest bound seen */
    uint64_t aim;               /* the record boundary the present sync is for */
    uint64_t sealed_end;        /* of the last seal; the run goes on from there */
    _Atomic uint64_t last_seal_start, last_seal_end; /* leader stores, for only_sealed_since */
    _Atomic uint64_t
        sync_bytes; /* running mean of a sync's bytes, 0: none yet; leader stores, room.c reads */
    uint64_t bounds[LOG_BOUNDS];
    uint32_t bounds_n;
    uint32_t company;                /* other committers at the last sync */
    struct scree__log_writer sealer; /* never registered: carries the credit for seals */
    struct scree__histogram flush_ns, sync_ns;

    /* segment.c */
    pthread_mutex_t files_lock;
    struct log_segment **segment; /* sorted by number */
    size_t segment_n, segment_cap;
    struct log_segment *segment_free;
    size_t files_open, clock_hand;
    bool told_buffered;
    _Atomic uint64_t table_seq;
    _Atomic(struct log_table *) table[2];
    struct log_retired *retired;
    _Atomic uint64_t disk_bytes, device_bytes; /* counters; relaxed */
    _Atomic uint64_t punched_bytes, deleted_bytes;
    _Atomic bool dirty;

    /* collect.c: the collector only */
    struct log_pick pick[LOG_PICKS];
    size_t pick_n;
    _Atomic bool no_punch; /* collector stores; victim.c reads */

    _Atomic bool stop_flusher, stop_allocator;
    _Atomic bool room_held; /* no room is made for now */
    _Atomic bool refused;   /* somebody was, since the allocator looked */
    bool flusher_runs, allocator_runs;
    pthread_t flusher, allocator;
};

/* ---- record.c -------------------------------------------------------------------------------- */

#define RECORD_HEADER_BYTES 24u
#define RECORD_BYTES_MAX ((1u << 30) + (64u << 10)) /* of a whole record */
#define SEAL_BYTES_MIN 64u                          /* header 24, body 16, footer 24 */
#define SEAL_FOOTER_BYTES 24u
#define BATCH_RECORD_BYTES (RECORD_HEADER_BYTES + SCREE__BATCH_BODY_BYTES)

struct log_seal {
    uint64_t run_start, stable;
};

enum log_decode {
    LOG_DECODE_OK = 0,
    LOG_DECODE_SHORT,  /* needs more bytes than given; disk_len is set */
    LOG_DECODE_HEADER, /* impossible kind, flags or length */
    LOG_DECODE_CHECKSUM
};
/* Encode r at `at`, which is r->lsn; disk_len bytes. */
void scree__record_encode(const struct scree__record *r, uint8_t *at);
/* An ABORTED or PAD record of disk_len bytes; only its header is written. */
void scree__record_encode_filler(uint8_t *at, uint64_t lsn, uint64_t page, uint32_t disk_len,
                                 uint8_t kind);
/* What a BATCH says: bytes from its start to the batch's end, and how many records follow. */
void scree__batch_body_get(const struct scree__record *r, uint64_t *bytes_out,
                           uint64_t *records_out);
void scree__seal_encode(uint8_t *at, uint64_t lsn, uint32_t disk_len, struct log_seal seal);
/* Never reads beyond `avail`; believes no length before it is in bounds, no field before the checksum. */
enum log_decode scree__record_decode(const uint8_t *at, uint64_t avail, uint64_t lsn,
                                     struct scree__record *r_out);
struct log_seal scree__seal_of(const struct scree__record *r);
/* Was there a seal at lsn, though it does not verify: does its header, or its footer, say so? Where it ended.
   avail: bytes that are there. */
bool scree__seal_trace(const uint8_t *at, uint64_t avail, uint64_t lsn, uint64_t *end_out);
/* Do the last bytes of a block say that a seal ends there? `block_end` is just behind them. */
bool scree__seal_footer(const uint8_t *block_end, uint64_t end_lsn, uint64_t *seal_lsn_out);
uint64_t scree__log_hash(const void *data, size_t len);
#define LOG_STAMP_BYTES 16
void scree__file_stamp(uint8_t at[LOG_STAMP_BYTES], uint64_t magic, uint32_t version);
/* False: damaged, or something else. */
bool scree__file_stamp_read(const uint8_t at[LOG_STAMP_BYTES], uint64_t magic,
                            uint32_t *version_out);
void scree__put_u64(uint8_t *at, uint64_t v);
void scree__put_u32(uint8_t *at, uint32_t v);
uint64_t scree__get_u64(const uint8_t *at);
uint32_t scree__get_u32(const uint8_t *at);

/* ---- ring.c ---------------------------------------------------------------------------------- */

int scree__ring_map(struct scree__log *log);
void scree__ring_unmap(struct scree__log *log);
/* Everything below is filled (each value also a record boundary). */
uint64_t scree__ring_bound(struct scree__log *log);

static inline uint8_t *
scree__ring_at(const struct scree__log *log, uint64_t lsn)
{
    return log->ring + (lsn & log->ring_mask);
}

/* seq_cst throughout: flusher.c pairs a request with a load of `busy`, and so must a request that found
   the word large enough already. */
static inline void
scree__atomic_max(_Atomic uint64_t *word, uint64_t value)
{
    uint64_t seen = atomic_load_explicit(word, memory_order_seq_cst);

    while (seen < value && !atomic_compare_exchange_weak_explicit(
                               word, &seen, value, memory_order_seq_cst, memory_order_seq_cst))
        SCREE_YIELD_POINT();
}

/* ---- room.c ---------------------------------------------------------------------------------- */

void scree__room_init(struct scree__log *log, uint64_t start_lsn);
int scree__room_start(struct scree__log *log);
void scree__room_stop(struct scree__log *log);
/* Credit for the leader's seals; waits, bounded, for the allocator. 0, NO_SPACE, POISONED, -errno. */
int scree__room_seal(struct scree__log *log, uint64_t bytes);
/* The same without waiting. */
bool scree__room_seal_now(struct scree__log *log, uint64_t bytes);
/* Files were deleted: try again at once. */
void scree__room_freed(struct scree__log *log);

/* ---- flusher.c ------------------------------------------------------------------------------- */

void scree__flusher_init(struct scree__log *log, uint64_t start_lsn);
int scree__flusher_start(struct scree__log *log);
void scree__flusher_stop(struct scree__log *log);
void scree__flusher_kick(struct scree__log *log); /* the ring is filling up */
/* Sticky; wakes everybody. code: -errno. Returns code. */
int scree__log_poison(struct scree__log *log, int code, const char *what);
/* POISONED with the detail, or 0. */
int scree__log_check(const struct scree__log *log);
void scree__log_event(const struct scree__log *log, int kind, int code, uint64_t lsn,
                      uint64_t bytes, const char *text);

/* ---- segment.c ------------------------------------------------------------------------------- */

int scree__segment_load(struct scree__log *log);
/* Segment numbers are read from names of exactly our pattern. */
bool scree__segment_name_parse(const char *name, uint64_t *number_out);
/* What a header says of its directory, if it verifies. */
bool scree__segment_header_identity(const uint8_t *at, size_t len, uint8_t uuid_out[16],
                                    uint64_t *segment_bytes_out);
void scree__segment_destroy(struct scree__log *log);
void scree__segment_name(uint64_t number, char name[LOG_NAME_BYTES]);
/* Lock-free; NULL if there is none. The result may be used while the caller knows that it stays. */
struct log_segment *scree__segment_peek(struct scree__log *log, uint64_t number);
/* The file stays open until unpin. -ENOENT: no such segment. */
int scree__segment_pin(struct scree__log *log, uint64_t number, struct log_segment **seg_out);
void scree__segment_unpin(struct scree__log *log, struct log_segment *seg);
struct log_segment_info {
    uint64_t number, prev_end;
    uint64_t data_bytes; /* in the file behind the header, at most segment_bytes */
    bool header_ok;
};
/* The first segment with a number >= `number`. */
bool scree__segment_from(struct scree__log *log, uint64_t number, struct log_segment_info *out);
bool scree__segment_last(struct scree__log *log, struct log_segment_info *out);
/* The first one behind `number` whose header says that the log had ended at prev_end. */
bool scree__segment_jump(struct scree__log *log, uint64_t number, uint64_t prev_end,
                         struct log_segment_info *out);
/* The LOG_HEADER_BYTES of a segment's header. */
void scree__segment_header_put(const struct scree__log *log, uint64_t number, uint64_t prev_end,
                               uint8_t *at);
/* File, header, both durable with the directory entry. */
int scree__segment_create(struct scree__log *log, uint64_t number, uint64_t prev_end);
/* Room for data up to `to` in a segment. */
int scree__segment_extend(struct scree__log *log, uint64_t number, uint64_t from, uint64_t to);
/* Cut to data_bytes and sync. */
int scree__segment_cut(struct scree__log *log, uint64_t number, uint64_t data_bytes);
/* Recovery: its header alone in a new file under its name, durable on return whatever failed before. */
int scree__segment_renew(struct scree__log *log, uint64_t number, uint64_t prev_end);
/* Unlink. The caller syncs the directory if it has to be durable. *bytes_out: what it occupied. */
int scree__segment_remove(struct scree__log *log, uint64_t number, uint64_t *bytes_out);
/* Give the room of granules [first, first + n) back and mark them. -EOPNOTSUPP: cannot be had here. */
int scree__segment_punch(struct scree__log *log, uint64_t number, uint32_t first, uint32_t n);
/* Under files_lock: the first segment with a number >= `number`, NULL if there is none. */
struct log_segment *scree__segment_lower(const struct scree__log *log, uint64_t number);
/* How many dead granules in a row are given back without cleaning. */
uint32_t scree__punch_run(const struct scree__log *log);
/* The length of the run of dead granules that begins at i, in a segment below `end`; holes end it. */
uint32_t scree__granule_run(const struct scree__log *log, const struct log_segment *seg, uint32_t i,
                            uint32_t end);
/* All of it died below the floor. */
bool scree__granule_may_go(const struct scree__log *log, const struct log_segment *seg, uint32_t i,
                           uint64_t floor);
/* Bytes of one granule: the last one of a segment may be shorter. */
uint32_t scree__granule_bytes(const struct scree__log *log, uint32_t granule);
int scree__segment_sync_dir(struct scree__log *log, uint64_t begun); /* scree__names_sync */
/* Data of one segment; ends early where the file does. Aligned like the file's I/O mode wants it. */
int scree__segment_read(struct scree__log *log, uint64_t lsn, void *data, size_t len,
                        size_t *len_out);
/* The same for a range of lsns across segments without gaps; stops at the first missing byte. */
int scree__segment_read_span(struct scree__log *log, uint64_t lsn, uint8_t *data, size_t len,
                             size_t *len_out);
int scree__segment_write(struct scree__log *log, uint64_t lsn, const void *data, size_t len);
int scree__segment_sync(struct scree__log *log, uint64_t number);
/* No room for more, as against broken. */
bool scree__is_space_error(int code);

/* ---- restart.c ------------------------------------------------------------------------------- */

int scree__mark_load(struct scree__log *log);
int scree__mark_write(struct scree__log *log);
int scree__mark_remove(struct scree__log *log);
/* Trim, rewrite, jump. *start_out: where the log goes on. */
int scree__restart_repair(struct scree__log *log, uint64_t end, uint64_t known_stable,
                          uint64_t *start_out);
/* At a clean close: give back what was allocated behind `end`. */
int scree__restart_cut(struct scree__log *log, uint64_t end);

#endif
