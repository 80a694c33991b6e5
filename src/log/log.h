/*
 * log.h - what the log offers: admission, reservation, completion, durability, reading, scanning,
 * space.
 *
 * The log is one endless sequence of bytes; an lsn is a position in it. It is stored in segment
 * files of segment_bytes each (plus one header block outside the lsn space). It holds records; the
 * log knows of a page nothing but its id.
 *
 * A writer's way:   scree__record_prepare   hash the payload, compute the length   (no atomics)
 *                   scree__log_admit        disk room as credit; may wait          (outside read sections)
 *                   scree__log_reserve      a position, the record's bytes filled in
 *                   ...the caller installs it in memory...
 *                   scree__log_complete     or scree__log_abort
 */
#ifndef SCREE_LOG_H
#define SCREE_LOG_H

#include "base/base.h"
#include "base/histogram.h"
#include "env/env.h"

#define SCREE__LSN_NONE UINT64_MAX
#define SCREE__RECORD_ALIGN 8u

/* ---- records (record.c; bytes in docs/log_format.md) ----------------------------------------- */

enum scree__record_kind {
    SCREE__RECORD_ALLOCATE = 1, /* a page comes to life; payload: its base, 0 bytes: no base */
    SCREE__RECORD_SET = 2,      /* payload: the new base */
    SCREE__RECORD_DELTA = 3,    /* payload: one fragment */
    SCREE__RECORD_CONSOLIDATED =
        4,                      /* base written by the library; carries the page's old version */
    SCREE__RECORD_FREE = 5,     /* no payload */
    SCREE__RECORD_BATCH = 6,    /* in front of a batch's records: how many they are, how long */
    SCREE__RECORD_ID_RANGE = 7, /* no page's: ids generated up to `page` may be handed out */
    SCREE__RECORD_PAD = 8,      /* filler */
    SCREE__RECORD_ABORTED = 9,  /* was reserved, never happened; length kept */
    SCREE__RECORD_SEAL = 10     /* end of a run, ends at a block boundary */
};

enum scree__record_flags {
    SCREE__RECORD_COMPRESSED = 1, /* payload: u32 raw length, zstd frame */
    SCREE__RECORD_CHOSEN_ID = 2,  /* ALLOCATE of an id the caller chose */
    SCREE__RECORD_NO_BASE = 4, /* CONSOLIDATED of a page allocated with 0 bytes: it has no base */
    SCREE__RECORD_IN_BATCH =
        8 /* valid only with its whole batch; carries the batch's end as version */
};

struct scree__record {
    uint64_t page;
    uint64_t lsn; /* start; out of reserve and of readers */
    uint64_t
        version; /* CONSOLIDATED: the version it carries; other page records: the end of the record,
                         or of its batch, filled in by reserve and readers */
    const void *payload;
    uint32_t payload_len;
    uint32_t
        disk_len; /* occupied bytes, a multiple of SCREE__RECORD_ALIGN; by prepare and readers */
    uint64_t payload_hash; /* by prepare */
    uint8_t kind;
    uint8_t flags;
};

/* Sets disk_len and payload_hash from the rest. */
void scree__record_prepare(struct scree__record *r);

/* ---- the log --------------------------------------------------------------------------------- */

struct scree__log;

struct scree__log_options {
    const scree_env *env;
    const char *dir; /* copied */
    uint8_t
        uuid[16]; /* of the directory; in every segment header, a stranger's segment is refused */
    uint64_t segment_bytes;
    uint64_t ring_bytes;       /* a power of two, >= 64 KiB, a multiple of the page size */
    uint64_t disk_limit_bytes; /* 0 = none */
    uint32_t flush_interval_ms;
    int io_mode;
    bool read_only;
    bool no_punch; /* as if holes could not be punched */
    bool
        survey; /* damage is looked for: a stranger's segment file is left out, not refused (survey.c) */
    void *ctx; /* for the callbacks below; any may be NULL */
    void (*on_event)(void *ctx, int event_kind, int code, uint64_t lsn, uint64_t bytes,
                     const char *text);
    /* More room was taken on disk, or (full) could not be. On a full disk the answer counts: true: room is
       being made, writers wait for scree__log_room_verdict. */
    bool (*on_room)(void *ctx, bool full);
};

/* Make the object; lists the segment files, reads their headers and the open mark. Writes nothing. */
int scree__log_create(const struct scree__log_options *options, struct scree__log **log_out);
/* Stop the threads, free everything; durable is only what was flushed. */
void scree__log_destroy(struct scree__log *log);

/* ---- recovery (reader.c, recover.c): single-threaded callers, before any writer -------------- */

struct scree__log_found {
    bool clean;         /* no open mark: the last user closed the log */
    uint64_t segments;  /* files */
    uint64_t first_lsn; /* of the oldest segment; 0 if none */
};
void scree__log_found(const struct scree__log *log, struct scree__log_found *found_out);

/* n records in log order; seals, pads and aborted ones too. Non-zero ends the scan and is returned.
   who: which visitor this is. Each is shown all records by a thread of its own, in order, but not in
   step with the others; visitor 0 on the caller's thread. */
typedef int (*scree__log_visit)(void *ctx, unsigned who, const struct scree__record *r, size_t n);
#define SCREE__LOG_VISITORS_MAX 8u

struct scree__log_scan_result {
    uint64_t end;        /* first position not accepted */
    uint64_t torn_bytes; /* written bytes found beyond it */
    uint64_t records;
    uint64_t batches_discarded; /* not whole, at the end: 0 or 1 */
};
/*
 * Visit every whole record from `from` (a record's start; 0: the log's beginning) to the end of the
 * log, across segments and the gaps that crashes leave (a segment header tells where the old log
 * ended). A batch that is not whole is no record: the log ends where it begins. Reading and checking
 * run on a thread of their own ahead of the visitors. known_stable: every record that ends at or below it
 * is known to be durable: if one is bad, or the log ends before it, that is CORRUPT (file, offset, lsn in
 * the detail), as it is below what a later valid seal says was stable. A bad record beyond all of those
 * ends the log: a torn tail.
 */
int scree__log_scan(struct scree__log *log, uint64_t from, uint64_t known_stable,
                    scree__log_visit visit, void *ctx, unsigned visitors,
                    struct scree__log_scan_result *result_out);
/* The same over [from, to) of a running log, all of it stable, with one visitor; for the recovery fold. */
int scree__log_scan_range(struct scree__log *log, uint64_t from, uint64_t to,
                          scree__log_visit visit, void *ctx);
/*
 * Follow a running log, record by record, in the caller's thread; memory as for the scan. `to` is a position
 * that is stable, and does not fall; `from` as in scan_range. One thread at a time.
 */
struct scree__log_cursor;
/* known: a record, or the end of the log, is at `from` for sure; else that is INVALID if it turns out not to
   be. */
int scree__log_cursor_open(struct scree__log *log, uint64_t from, bool known,
                           struct scree__log_cursor **cursor_out);
/* 0: the next record, which lives until another one is looked at. 1: there is no more below `to`. CORRUPT,
   -errno, NO_MEMORY: nothing was passed over, it can be tried again. */
int scree__log_cursor_look(struct scree__log_cursor *c, uint64_t to,
                           const struct scree__record **r_out);
/* The record looked at is done with. */
void scree__log_cursor_pass(struct scree__log_cursor *c);
/* Where it goes on. */
uint64_t scree__log_cursor_at(const struct scree__log_cursor *c);
void scree__log_cursor_close(struct scree__log_cursor *c);
/* If the log had ended at lsn before a crash: where it goes on; else lsn. */
uint64_t scree__log_after_jump(struct scree__log *log, uint64_t lsn);
/*
 * Get ready to write behind `end`. Clean: goes on at end (a block boundary), nothing is written.
 * Unclean: what lies beyond end is trimmed durably, what was accepted beyond known_stable is
 * rewritten and synced, and the log goes on at segment J (DESIGN: jump), whose header is synced
 * before return. read_only: only remembers the end. Starts the flusher and the allocator thread
 * (not read_only).
 */
int scree__log_start(struct scree__log *log, const struct scree__log_scan_result *scan,
                     uint64_t known_stable);
/* Flush all, stop the threads and give back the room ahead of the tail: what was written can be read and
   what is dead dropped, but nothing more is appended. If nothing was written since a clean start: nothing. */
int scree__log_stop(struct scree__log *log);
/* Remove the open mark, durably: after scree__log_stop, when the caller has made its snapshot. */
int scree__log_close_clean(struct scree__log *log);
/* Whether this object wrote to the directory (or had to repair it). */
bool scree__log_dirty(const struct scree__log *log);

/* ---- writing (ring.c) ------------------------------------------------------------------------ */

/* A thread's place in the flusher's registry; embedded in the caller's thread context, one open
   reservation at a time. */
struct scree__log_writer {
    _Alignas(
        SCREE_CACHE_LINE) _Atomic uint64_t position; /* protocol in ring.c; SCREE__LSN_NONE: idle */
    struct scree__log_writer *next;                  /* set once before publish */
    bool sample;             /* owner only: have reserve set fill_begin_ns, for latency figures */
    uint64_t fill_begin_ns;  /* owner only: when the position was had and the filling began */
    uint64_t credit_bytes;   /* owner thread only */
    uint64_t end;            /* owner thread only: of what it reserved last; 0: nothing yet */
    _Atomic uint32_t in_use; /* recycled: a new thread takes an idle one */
};
/* Take a writer (an idle one of a thread that ended, or a new one); NULL when out of memory. */
struct scree__log_writer *scree__log_writer_attach(struct scree__log *log);
/* Give it back; its credit returns to the log. */
void scree__log_writer_detach(struct scree__log *log, struct scree__log_writer *w);

enum scree__log_class {
    SCREE__LOG_USER = 0,   /* may not touch the reserve */
    SCREE__LOG_RELIEF = 1, /* frees and foreground consolidation: may take half of the reserve */
    SCREE__LOG_CLEAN = 2,  /* cleaning: seven eighths of it */
    SCREE__LOG_SEAL = 3    /* what makes the rest durable: all of it */
};
/*
 * Disk room for one record of disk_len. The first call of all writes the open mark. may_wait: false
 * inside a caller's guard: then only waits for the allocator thread, bounded. 0, NO_SPACE,
 * POISONED, -errno. Call before entering a read section.
 */
int scree__log_admit(struct scree__log *log, struct scree__log_writer *w, uint32_t disk_len,
                     enum scree__log_class class, bool may_wait);
/*
 * Reserve r->disk_len bytes and fill them; sets r->lsn and, unless CONSOLIDATED, r->version. Needs
 * a successful admit each time (an aborted reservation has used its credit up). Waits only for ring
 * room. On success the caller must complete or abort. POISONED: nothing is open.
 */
int scree__log_reserve(struct scree__log *log, struct scree__log_writer *w,
                       struct scree__record *r);
/* Makes record[0] the BATCH of the n - 1 prepared records behind it, with `body` as its payload. Bytes of all
   together; UINT32_MAX if that is more than can be. */
#define SCREE__BATCH_BODY_BYTES 16
uint32_t scree__log_batch_prepare(struct scree__record *record, size_t n,
                                  unsigned char body[SCREE__BATCH_BODY_BYTES]);
/* As reserve, for a prepared batch: one reservation, the records lie in it in this order without a gap. */
int scree__log_reserve_batch(struct scree__log *log, struct scree__log_writer *w,
                             struct scree__record *record, size_t n);
void scree__log_abort_batch(struct scree__log *log, struct scree__log_writer *w,
                            const struct scree__record *record, size_t n);
void scree__log_complete(struct scree__log *log, struct scree__log_writer *w);
/* Turns the record into an ABORTED one, charges it dead, completes. */
void scree__log_abort(struct scree__log *log, struct scree__log_writer *w,
                      const struct scree__record *r);

uint64_t scree__log_tail(const struct scree__log *log);
uint64_t scree__log_stable(const struct scree__log *log);
/* True if nothing was appended at or behind lsn (a former tail), but for one seal that began right there. */
bool scree__log_only_sealed_since(const struct scree__log *log, uint64_t lsn);
/* Every reservation below it is complete or aborted (so installed or given up). Only grows. */
uint64_t scree__log_settled(struct scree__log *log);

/* ---- durability (flusher.c) ------------------------------------------------------------------ */

/* Until stable >= lsn; timeout_ns UINT64_MAX: no limit. 0, TIMEOUT, POISONED, INVALID (beyond the tail),
   NO_SPACE (no room for a seal). */
int scree__log_wait_stable(struct scree__log *log, uint64_t lsn, uint64_t timeout_ns);
/* Until stable > lsn, or poison, or the time is over: the caller looks. Asks for nothing. */
void scree__log_await_stable(struct scree__log *log, uint64_t lsn, uint64_t timeout_ns);
/* Ask the flusher to make everything below lsn stable soon; never waits. */
void scree__log_request_stable(struct scree__log *log, uint64_t lsn);
/* 0, or what poisoned the log (-errno). */
int scree__log_health(const struct scree__log *log);

/* ---- reading single records (reader.c) ------------------------------------------------------- */

struct scree__log_read {
    uint64_t page; /* checked against the record's */
    uint64_t lsn;
    uint32_t disk_len;
    int result;             /* out: 0, CORRUPT, -errno, NO_MEMORY */
    struct scree__record r; /* out: decoded, checked; payload points into buffer */
    void *buffer; /* in: NULL, or of an earlier read, to be used again; out: the bytes read */
    size_t buffer_bytes; /* of the allocation */
};
/* Read n stable records side by side. 0 if all went well, else the first bad result, with the detail set
   (file, offset, lsn). Buffers stay with the reads until done. */
int scree__log_read(struct scree__log *log, struct scree__log_read *reads, size_t n);
void scree__log_read_done(struct scree__log_read *reads, size_t n);

/* Bytes of [lsn, lsn + len) as the segment files hold them; both multiples of SCREE_BLOCK. *len_out: up to
   the first that is missing. */
int scree__log_read_range(struct scree__log *log, uint64_t lsn, void *data, size_t len,
                          size_t *len_out);
/* Decode and check the record at read->lsn, whose disk_len bytes are at `at`; as scree__log_read, but
   read->r points into them and there is no buffer. */
int scree__log_decode(const struct scree__log *log, const void *at, struct scree__log_read *read);

/* ---- space (space.c, collect.c, victim.c) ---------------------------------------------------- */

#define SCREE__GRANULE_BYTES 65536u /* unit of hole punching */

/* [lsn, lsn + len) is dead since death_lsn (the lsn of what superseded it). Any thread. */
void scree__log_charge_dead(struct scree__log *log, uint64_t lsn, uint64_t len, uint64_t death_lsn);

/* The same for many in a row, most of which lie in few segments: begin with zeros, end in the read section
   that it began in. */
struct scree__log_charge {
    struct log_segment *segment; /* of [first, end); NULL: its file is missing */
    uint64_t first, end;
    uint64_t dead; /* not yet in its sum */
};
void scree__log_charge_more(struct scree__log *log, struct scree__log_charge *c, uint64_t lsn,
                            uint64_t len, uint64_t death_lsn);
void scree__log_charge_end(struct scree__log_charge *c);
/*
 * Recovery, before start: stamp what lies below the snapshot's replay start S and died behind it (any
 * thread; nothing is counted). Then, one thread: begin: all of [segment start, end of log) of every segment
 * is dead. What was stamped or lies behind S has D = end - 1: no snapshot that is kept has its S in between.
 * The rest died below S. Then charge what lives; then end.
 */
void scree__log_stamp_death(struct scree__log *log, uint64_t lsn, uint64_t len);
/* start: S; 0 if there is no snapshot. */
void scree__log_recount_begin(struct scree__log *log, uint64_t end, uint64_t start);
/* CORRUPT: more than was written; two pages claim the same bytes. */
int scree__log_charge_live(struct scree__log *log, uint64_t lsn, uint64_t len);
void scree__log_recount_end(struct scree__log *log);
/*
 * Collect dead space in two steps: pick granules and segments whose every byte is dead with D < floor; after
 * a grace period punch holes and unlink. pick returns how many ranges are waiting (not all there are, if they
 * are many); drop returns how many it gave back. One thread at a time. Short runs of granules are left to
 * cleaning, as punching them costs too much for what it gives, unless `all`.
 */
size_t scree__log_dead_pick(struct scree__log *log, uint64_t floor, bool all);
size_t scree__log_dead_drop(struct scree__log *log);
/* Of granules that would go with the floor `unpinned`, but stay with this one. */
uint64_t scree__log_pinned_bytes(struct scree__log *log, uint64_t floor, uint64_t unpinned);

struct scree__log_space {
    uint64_t live_bytes;
    uint64_t dead_bytes; /* on disk */
    uint64_t
        waiting_bytes; /* of those, in ranges to be given back as they are: nothing has to be moved */
    uint64_t sparse_bytes; /* of those, beside what lives, where cleaning can win them */
    uint64_t disk_bytes, segments;
};
void scree__log_space(struct scree__log *log, struct scree__log_space *space_out);
struct scree__log_stats {
    struct scree__log_space space;
    uint64_t log_bytes, punched_bytes, deleted_bytes, device_bytes;
};
int scree__log_segments_each(struct scree__log *log, scree_segment_fn visit, void *ctx);

/* A range that would be dead if what lives in it were moved. */
struct scree__log_victim {
    uint64_t lsn, len;
    uint64_t dead_bytes;
};
/* The best ranges to clean until together they hold dead_wanted dead bytes, in log order; at most cap. None of
   which more than live_share_max lives. */
size_t scree__log_victims(struct scree__log *log, uint64_t dead_wanted, double live_share_max,
                          struct scree__log_victim *victims, size_t cap);
/* Something at lsn cannot be moved: its segment is no victim any more. */
void scree__log_victim_damaged(struct scree__log *log, uint64_t lsn);

/* ---- copying the log (copy.c) ------------------------------------------------------------------ */

struct scree__log_copy {
    const char *dir;    /* there, without segments; the log's env is used for it too */
    uint64_t floor;     /* what died below is left out; nothing that did not may go meanwhile */
    uint64_t end;       /* stable, and a former value of scree__log_stable or the end of a scan */
    size_t chunk_bytes; /* moved at a time; a multiple of SCREE_BLOCK */
    /* So many bytes more are there; moved: not only referred to. Non-zero ends the copy and is returned. */
    int (*step)(void *ctx, uint64_t bytes, bool moved);
    void *ctx;
};
/* Segment files of all that recovery from a snapshot at `floor` to `end` needs, each synced, the directory not.
   They are as of a log that was closed at scree__log_copy_end(end). The step's result, CORRUPT (what is needed
   is not there), NO_MEMORY, -errno. */
int scree__log_copy(struct scree__log *log, const struct scree__log_copy *to);
/* What of it step will be told, about. */
uint64_t scree__log_copy_bytes(struct scree__log *log, uint64_t floor, uint64_t end);
/* Where a log that is cut at a record boundary is padded to: a block boundary. */
uint64_t scree__log_copy_end(uint64_t end);

/* ---- room (room.c) --------------------------------------------------------------------------- */

/* Beyond soft_bytes of segments on disk (room ahead counts) room for users is made with pauses: 20 MB/s at
   hard_bytes, more slowly beyond. */
void scree__log_throttle(struct scree__log *log, uint64_t soft_bytes, uint64_t hard_bytes);
/* Room that is kept allocated beyond what is written, at most. */
uint64_t scree__log_ahead_bytes(const struct scree__log *log);
/* Room was asked for in vain (on_room) and has been looked for: writers that wait try once more or give up. */
void scree__log_room_verdict(struct scree__log *log);
/* While held no room is taken: whoever needs some waits. */
void scree__log_room_hold(struct scree__log *log, bool held);
/* Bytes of the directory that are not the log's, for disk_limit_bytes. */
void scree__log_outside_bytes(struct scree__log *log, uint64_t bytes);
void scree__log_stats(struct scree__log *log, struct scree__log_stats *stats_out);
/* Owned by the log; flush: one write; sync: one sync. */
const struct scree__histogram *scree__log_histogram_flush(const struct scree__log *log);
const struct scree__histogram *scree__log_histogram_sync(const struct scree__log *log);

/* ---- damaged logs (survey.c) ----------------------------------------------------------------- */

/* Bytes of the log, or (end 0) a file of it, that are not what they were. */
struct scree__log_trouble {
    const char *file; /* name in the directory; borrowed for the call, as the texts */
    uint64_t offset;
    uint64_t lsn, end; /* what cannot be read: up to the next record that can */
    bool harmless;     /* no record of a page was in it: that can be proved */
    bool hole;         /* given back, as it seems: a stretch of zeros, or no file */
    int code;          /* CORRUPT, or -errno of the read that failed */
    const char *text, *expected, *found;
};
typedef int (*scree__log_trouble_fn)(void *ctx, const struct scree__log_trouble *trouble);
/*
 * As scree__log_scan, but goes on behind what is damaged, at the next record whose checksum, which has its lsn
 * in it, is right; each such stretch is told where it lies between the records visited. Records of a batch
 * that is not whole are visited if it lies before the end of the log: it was. `unknown_start`: `from` need not
 * be a record's. A non-zero result of visit or trouble ends it and is returned; else the result is 0, or the
 * error that kept it from going on.
 */
int scree__log_survey(struct scree__log *log, uint64_t from, uint64_t known_stable,
                      bool unknown_start, scree__log_visit visit, scree__log_trouble_fn trouble,
                      void *ctx, struct scree__log_scan_result *result_out);
/* The files themselves: the open mark, headers of segments that begin below `end`, strangers. */
int scree__log_survey_files(struct scree__log *log, uint64_t end, scree__log_trouble_fn trouble,
                            void *ctx);
/* What a directory was made with, out of the first segment header that verifies. -ENOENT: there is none;
   -errno: nor could all files be read. */
int scree__log_identify(const scree_env *env, const char *dir, uint8_t uuid_out[16],
                        uint64_t *segment_bytes_out);
/* The segment size of the log with this uuid: `expected` if one of its segment headers has that, or none says
   anything; else what they have. -errno: the directory cannot be listed, or some header cannot be read. */
int scree__log_segment_bytes(const scree_env *env, const char *dir, const uint8_t uuid[16],
                             uint64_t expected, uint64_t *found_out);
/* Is this exactly the name of a file of the log? The number of a segment; 0 for others. */
bool scree__log_name_parse(const char *name, uint64_t *number_out);
/* Behind the last byte of the last segment; 0: no segment. */
uint64_t scree__log_last_byte(struct scree__log *log);

/* Name of the segment file that holds lsn, and its offset there: for error texts. */
void scree__log_locate(const struct scree__log *log, uint64_t lsn, char *name, size_t name_cap,
                       uint64_t *offset_out);

#endif
