/*
 * scree.h - the public interface of scree, a lock-free, log-structured page cache runtime.
 *
 * A page is a 64-bit id whose content is a base plus fragments appended to it, all opaque bytes. The
 * user brings a data structure and one merge callback (scree_materializer); scree brings
 * concurrency, caching, durability, bounded memory and recovery.
 *
 * CONVENTIONS
 *   Results     int: 0 is success, negative is an error. Failures of the operating system are -errno,
 *               our own are SCREE_E_... below. After an error scree_error_detail() tells, in words
 *               and for this thread, what failed, where, and what to do.
 *   Out         out-parameters come last and end in _out; they are written on every path (0, NULL on
 *               failure) and may be NULL where the caller does not care. `scree_version *version`
 *               that is in and out may not be NULL.
 *   Ownership   inputs are copied before a call returns. Bytes handed out inside a read guard are
 *               borrowed and live until the guard is left.
 *   Threads     every call may be made from any thread at any time unless it says otherwise; nothing
 *               has to be registered. scree_open and scree_close of one cache are not concurrent
 *               with anything else on that cache.
 *   Structs     options, materializer, stats and info structs begin with `size`, so that they can
 *               grow: fill options with scree_options_init, zero the others and set size.
 *   Behaviour   the library prints nothing, never exits, and never aborts for bad input or I/O errors.
 *
 * DURABILITY
 *   A successful update is visible at once and durable when scree_stable_lsn() >= its version. After
 *   any crash the directory holds exactly the effects of a prefix of the log, and that prefix holds
 *   everything that was reported stable.
 */
#ifndef SCREE_H
#define SCREE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SCREE_API __attribute__((visibility("default")))
#define SCREE_CHECKED __attribute__((warn_unused_result))
#else
#define SCREE_API
#define SCREE_CHECKED
#endif

#define SCREE_VERSION_MAJOR 0
#define SCREE_VERSION_MINOR 1
#define SCREE_VERSION_PATCH 0

/* A page's name. 0 is never a page. */
typedef uint64_t scree_page_id;
/* Byte position in the endless log. */
typedef uint64_t scree_lsn;
/* Log position of the END of a page's newest update: the update is durable once stable_lsn reaches it.
   Grows with every update and never repeats for a page id, not across free, restart or crash. 0 = none. */
typedef uint64_t scree_version;

typedef struct scree_slice {
    const void *data;
    size_t len; /* bytes */
} scree_slice;

/* Always live, starts empty, freeing it is INVALID: where an engine keeps its own roots. */
#define SCREE_PAGE_ROOT ((scree_page_id)1)

typedef struct scree_cache scree_cache;
typedef struct scree_out scree_out;
typedef struct scree_env scree_env;

/* ---- errors ---------------------------------------------------------------------------------- */

#define SCREE_ERROR_MAP(X)                                                        \
    X(NOT_FOUND, -20001, "no live page with this id")                             \
    X(CONFLICT, -20002, "the page changed since the version you presented")       \
    X(TOO_BIG, -20003, "larger than the limit or the buffer given")               \
    X(NO_SPACE, -20004,                                                           \
      "no room on disk; frees and reads go on, writes resume when there is room") \
    X(CORRUPT, -20005, "stored bytes fail their checksum or bounds")              \
    X(LOCKED, -20006, "the directory is open elsewhere")                          \
    X(READ_ONLY, -20007, "the cache was opened read-only")                        \
    X(FORMAT, -20008, "written by an unknown format version")                     \
    X(MATERIALIZER, -20009, "the directory belongs to another materializer")      \
    X(MERGE, -20010, "the merge callback failed for this page")                   \
    X(POISONED, -20011, "a write or sync failed earlier; reopen to recover")      \
    X(CANCELED, -20012, "canceled by a callback")                                 \
    X(FORKED, -20013, "used in a forked child")                                   \
    X(BUSY, -20014, "in use; try again later")                                    \
    X(INVALID, -20015, "an argument is invalid")                                  \
    X(NO_MEMORY, -20016, "out of memory; nothing changed")                        \
    X(TIMEOUT, -20017, "not reached within the time given")

enum scree_error {
#define SCREE_ERROR_ENUM(name, code, text) SCREE_E_##name = (code),
    SCREE_ERROR_MAP(SCREE_ERROR_ENUM)
#undef SCREE_ERROR_ENUM
};

/* One line for a result code of ours or a negative errno; static or thread-local, never NULL. */
SCREE_API const char *scree_strerror(int code);
/* What failed last in this thread: what, where, what to do. "" if nothing has. Valid until this
   thread's next call into scree. */
SCREE_API const char *scree_error_detail(void);
/* "major.minor.patch", static. */
SCREE_API const char *scree_version_string(void);

/* ---- the materializer ------------------------------------------------------------------------ */

/* Append bytes to what a callback produces. 0, SCREE_E_TOO_BIG (the output would outgrow its limit) or
   SCREE_E_NO_MEMORY; a callback should return at once with the same code. */
SCREE_API SCREE_CHECKED int scree_out_append(scree_out *out, const void *data, size_t len);
/* Room for len more bytes of output, to be filled by the callback; valid until the next scree_out_
   call; NULL where scree_out_append would fail. */
SCREE_API void *scree_out_reserve(scree_out *out, size_t len);

/*
 * How the bytes of a page come together.
 *
 * The callbacks run on any thread, also several at a time, inside an RCU read section, and more
 * than once for the same input (a lost race discards the result): they must be deterministic,
 * re-entrant, without side effects, must not block for long, and call nothing of scree but
 * scree_out_*. Inputs are borrowed for the call. They return 0, or non-zero for failure (recover:
 * see there).
 */
typedef struct scree_materializer {
    size_t size;
    const char *name; /* stored, with version, at creation; a mismatch at open is MATERIALIZER */
    uint32_t version;
    void *ctx; /* passed to every callback */
    /* base: the page as last set or merged, NULL if it has none. frags[0] oldest .. frags[n-1] newest,
       n >= 1. Law: merge(merge(b, F1), F2) = merge(b, F1 then F2). A non-zero result and an output over
       page_bytes_max or cache_bytes are MERGE for that page; its fragments stay as they are. */
    int (*merge)(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags,
                 size_t n, scree_out *out);
    /* Optional: a fold over every base and fragment a user wrote, once each, in log order. 0 = state
       unchanged, 1 = the state is replaced by out, anything else = failure. Kept in snapshots and
       handed back by scree_recovery_state after open. Runs on one thread at a time. */
    int (*recover)(void *ctx, scree_page_id id, scree_slice frag, scree_slice state,
                   scree_out *out);
    /* Optional, for scree_verify: is this merged page well-formed? Not asked of a page never written. */
    int (*check)(void *ctx, scree_page_id id, scree_slice page);
    /* Optional: a merged page in words, for dump tools. */
    int (*describe)(void *ctx, scree_page_id id, scree_slice page, scree_out *text);
} scree_materializer;

/* ---- the environment ------------------------------------------------------------------------- */

enum scree_env_open {
    SCREE_ENV_READ = 1,
    SCREE_ENV_WRITE = 2,
    SCREE_ENV_CREATE = 4,
    SCREE_ENV_EXCLUSIVE = 8, /* with CREATE: -EEXIST if the file is there */
    SCREE_ENV_DIRECT =
        16, /* bypass the OS cache; -EINVAL where that cannot be: opened again without */
    SCREE_ENV_TRUNCATE = 32
};

typedef struct scree_env_read {
    int file;
    int32_t result; /* out: bytes read, or -errno */
    void *data;
    size_t len;      /* bytes */
    uint64_t offset; /* bytes from the start of the file */
} scree_env_read;

typedef struct scree_env_info {
    uint64_t size_bytes;
    uint64_t disk_bytes; /* what it really occupies */
} scree_env_info;

/*
 * Everything scree asks of the outside world: files, time, randomness. NULL in the options means
 * POSIX. Every member must be set but those said to be optional. Results: >= 0, or -errno. Paths are
 * NUL-terminated, relative to the working directory or absolute. Files are small non-negative numbers of the
 * env's own choosing. Members are called from several threads at a time. A failed write or sync is never
 * repeated by scree.
 */
struct scree_env {
    size_t size;
    void *ctx; /* passed to every member */
    int (*open)(void *ctx, const char *path, int flags);
    int (*close)(void *ctx, int file);
    int64_t (*read)(void *ctx, int file, void *data, size_t len, uint64_t offset);
    int64_t (*write)(void *ctx, int file, const void *data, size_t len, uint64_t offset);
    /* n reads side by side; fills every result; 0 or -errno if none could be started. */
    int (*read_many)(void *ctx, scree_env_read *reads, size_t n);
    int (*sync)(void *ctx, int file); /* data and size, durable on return */
    int (*allocate)(void *ctx, int file, uint64_t offset, uint64_t len); /* room; grows the file */
    /* Gives the room back, what was there reads as 0; -EOPNOTSUPP where that cannot be. */
    int (*punch)(void *ctx, int file, uint64_t offset, uint64_t len);
    /* The first stretch at or behind offset that may hold data; both its ends are the file's size if
       there is none. Where holes are not known: the rest of the file. */
    int (*data_range)(void *ctx, int file, uint64_t offset, uint64_t *begin_out, uint64_t *end_out);
    int (*truncate)(void *ctx, int file, uint64_t len);
    int (*info)(void *ctx, int file, scree_env_info *info_out);
    int (*rename)(void *ctx, const char *from, const char *to);
    int (*unlink)(void *ctx, const char *path);
    int (*mkdir)(void *ctx, const char *path);
    int (*sync_dir)(void *ctx, const char *path);
    /* visit(visit_ctx, name) for each entry but . and ..; a non-zero result ends it and is returned. */
    int (*list)(void *ctx, const char *path, int (*visit)(void *visit_ctx, const char *name),
                void *visit_ctx);
    /* Lock the directory for this open, shared or exclusive; the result is a file whose close unlocks.
       -EWOULDBLOCK if it is taken; then *holder_out is the process that holds it, 0 if unknown. */
    int (*lock)(void *ctx, const char *path, int shared, int64_t *holder_out);
    uint64_t (*now_ns)(void *ctx); /* monotonic */
    int (*random)(void *ctx, void *data, size_t len);
    /* Optional, NULL where there is none: len bytes of from_file become to_file's too, sharing their blocks
       until one of the two is written to (reflink). Offsets and len are multiples of 4 KiB. Any error: they are
       copied instead. */
    int (*clone)(void *ctx, int from_file, uint64_t from_offset, uint64_t len, int to_file,
                 uint64_t to_offset);
};

/* The POSIX environment; static. A wrapper copies it and replaces members. */
SCREE_API const scree_env *scree_env_posix(void);

/* ---- options --------------------------------------------------------------------------------- */

enum scree_flags {
    SCREE_CREATE = 1,    /* create the directory if it is not there */
    SCREE_EXCLUSIVE = 2, /* with CREATE: fail with -EEXIST if it is there */
    SCREE_READ_ONLY = 4, /* shared lock, writes nothing, updates return READ_ONLY */
    SCREE_NO_PUNCH =
        8 /* never punch holes, as on a file system that cannot: cleaning carries it all */
};

enum scree_io_mode { SCREE_IO_AUTO = 0, SCREE_IO_DIRECT = 1, SCREE_IO_BUFFERED = 2 };

enum scree_log_level { SCREE_LOG_ERROR = 0, SCREE_LOG_WARNING = 1, SCREE_LOG_INFO = 2 };

enum scree_event_kind {
    SCREE_EVENT_RECOVERED = 1,         /* lsn: where the log ends; bytes: torn bytes trimmed */
    SCREE_EVENT_SNAPSHOT = 2,          /* lsn: its replay start; bytes: its size */
    SCREE_EVENT_SNAPSHOT_FALLBACK = 3, /* a generation could not be loaded; lsn: its replay start */
    SCREE_EVENT_SNAPSHOT_FAILED = 4,   /* code: why; will be tried again */
    SCREE_EVENT_POISONED = 5,          /* code: the write or sync failure */
    SCREE_EVENT_SEGMENT_DELETED = 6,   /* lsn: its first position; bytes: its size */
    SCREE_EVENT_NO_SPACE = 7,          /* code: why no room could be had */
    SCREE_EVENT_IO_BUFFERED = 8,       /* O_DIRECT is not to be had here: the OS cache is used */
    SCREE_EVENT_NO_PUNCH = 9,    /* no hole punching here: whole segments are cleaned instead */
    SCREE_EVENT_GUARD_HELD = 10, /* a read guard keeps memory from reuse; bytes: how much; age_ms */
    SCREE_EVENT_SPACE_BACK = 11, /* writing goes on after NO_SPACE */
    SCREE_EVENT_DAMAGE = 12      /* cleaning met a record that fails its checksum; lsn: where */
};

typedef struct scree_event {
    size_t size;
    int kind; /* enum scree_event_kind */
    int code;
    scree_lsn lsn;
    uint64_t bytes;
    const char *text; /* one line, borrowed for the call */
    uint64_t age_ms;  /* GUARD_HELD: for how long at least; else 0 */
} scree_event;

typedef struct scree_options {
    size_t size;
    uint32_t flags;              /* enum scree_flags, or-ed */
    uint64_t cache_bytes;        /* 256 MiB: resident bytes of pages; from 64 KiB */
    uint64_t segment_bytes;      /* 64 MiB; from 64 KiB, a multiple of 4 KiB; fixed at creation */
    uint64_t log_buffer_bytes;   /* 16 MiB; from 64 KiB to 4 GiB, rounded up to a power of two */
    uint64_t page_bytes_max;     /* 1 MiB; largest merged page or fragment; at most a quarter of
                                    log_buffer_bytes, else INVALID */
    uint64_t snapshot_log_bytes; /* log volume between snapshots; 0 = automatic */
    uint64_t disk_limit_bytes; /* 0 = none; log and snapshots beyond it are not written: NO_SPACE */
    uint32_t flush_interval_ms; /* 100; 0 = only on demand */
    uint32_t fragments_max;     /* 16: consolidate beyond; 1 to 1024 */
    double
        space_amp_target; /* 1.5: clean until disk_bytes <= this * live_bytes; from 1.05 to 100 */
    int32_t compression_level;              /* zstd; 0 = off */
    int32_t io_mode;                        /* enum scree_io_mode */
    const scree_materializer *materializer; /* required; copied, its callbacks outlive the cache */
    const scree_env *env;                   /* NULL = POSIX; outlives the cache */
    void *callback_ctx;                     /* for the three below, which may be NULL */
    /* Run on any thread, must not call scree on this cache. */
    void (*log)(void *ctx, int level, int code, const char *text);
    void (*event)(void *ctx, const scree_event *event);
    /* Of an open: what is "load" (the snapshot), then "replay" (the log behind it), done and total in bytes,
       total 0 where it is not known; on the opening thread, at least at the start and the end of each. Where
       the log ends is learned on the way: total may shrink. Non-zero cancels it; no data was changed. */
    int (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
} scree_options;

/* Sets size and every default. */
#define scree_options_init(options) scree_options_init_sized((options), sizeof(scree_options))
SCREE_API void scree_options_init_sized(scree_options *options, size_t size);

/* ---- open, close, guards --------------------------------------------------------------------- */

/*
 * Open a directory, recovering it if it was not closed; one process at a time may hold it read-write.
 *
 * Durable  a new directory is durable on return. An existing clean one is not written to until the first
 *          update.
 * Errors   INVALID, LOCKED (held elsewhere; the detail names the holder if known), FORMAT,
 *          MATERIALIZER, CORRUPT, -ENOENT (no CREATE), -EEXIST (EXCLUSIVE), CANCELED, NO_MEMORY,
 *          NO_SPACE, -errno.
 */
SCREE_API SCREE_CHECKED int scree_open(const char *dir, const scree_options *options,
                                       scree_cache **cache_out);
/*
 * Flush, snapshot if anything changed, release everything. The cache is gone on every result but
 * BUSY.
 * Errors   BUSY (a guard, a batch or a log reader is open; nothing happened); any other error: some of it could
 *          not be made durable, the next open recovers by the durability contract above.
 */
SCREE_API int scree_close(scree_cache *cache);

/*
 * Around fork(2), in the thread that forks, once for each open cache: scree_prefork before, one of the others
 * after.
 *
 * A cache stays the parent's: in the child every call on it returns FORKED, scree_stable_lsn 0, and those
 * without a result do nothing; scree_close frees nothing. That is so without these hooks too. With them the
 * child may open other directories (not if the thread had a read guard open); without them scree_open there is
 * FORKED, until it execs. The parent goes on undisturbed, and may close and open again while the child lives
 * (with an env of your own the child's copy of its lock goes with the child).
 *
 * Threads  not from a callback; between them call nothing else of scree. scree_prefork waits for a grace period
 *          that is under way, so for guards of other threads. They call liburcu-bp's own fork hooks: do not do
 *          so too.
 */
SCREE_API void scree_prefork(scree_cache *cache);
SCREE_API void scree_postfork_parent(scree_cache *cache);
SCREE_API void scree_postfork_child(scree_cache *cache);

/* Open a read guard in this thread: borrowed bytes live until it is left. Nestable; never blocks. A
   guard held for long keeps memory from being reused. If this is the thread's first call into the
   cache and there is no memory for it, none is opened: calls that need it give NO_MEMORY until it
   is left and entered again. */
SCREE_API void scree_read_enter(scree_cache *cache);
/* Leave the innermost guard of this thread; without one it does nothing. */
SCREE_API void scree_read_leave(scree_cache *cache);

/* ---- pages ----------------------------------------------------------------------------------- */
/*
 * Common to all of them: NOT_FOUND for an id that is not live, INVALID for id 0 and for NULL where
 * it may not be, TOO_BIG for a payload over page_bytes_max or cache_bytes, READ_ONLY, POISONED and
 * NO_SPACE for updates, CORRUPT and -errno where a page has to be read from disk, NO_MEMORY
 * anywhere: nothing changed. An update blocks only while the log buffer is full or memory is over
 * its limit. A page never written (or allocated with 0 bytes) has no base and reads as 0 bytes; an
 * empty fragment is a fragment. merge runs when there is a fragment; a base alone is returned as
 * it is. An expected version of 0 always conflicts.
 */

/* A new page under a fresh id with `initial` as its base (0 bytes: no base). A freed id is handed out
   again only after a grace period: a guard never meets a stranger under its id. */
SCREE_API SCREE_CHECKED int scree_page_allocate(scree_cache *cache, scree_slice initial,
                                                scree_page_id *id_out, scree_version *version_out);
/* A new page under this very id, for replicas and imports. CONFLICT if it is live (*version_out tells
   its version), BUSY until a freed id's grace period is over. */
SCREE_API SCREE_CHECKED int scree_page_allocate_at(scree_cache *cache, scree_page_id id,
                                                   scree_slice initial, scree_version *version_out);
/* The merged page, zero copy, borrowed until the guard is left; INVALID outside a guard. MERGE (with
   *version_out) if the callback failed. */
SCREE_API SCREE_CHECKED int scree_page_get(scree_cache *cache, scree_page_id id,
                                           scree_slice *page_out, scree_version *version_out);
/* The page unmerged, in a guard: base_out->data is NULL if there is no base; *n_out = all fragments
   there are, of which the oldest `cap` are given. Fragments already merged in memory are part of the
   base. */
SCREE_API SCREE_CHECKED int scree_page_fragments(scree_cache *cache, scree_page_id id,
                                                 scree_slice *base_out, scree_slice *frags,
                                                 size_t cap, size_t *n_out,
                                                 scree_version *version_out);
/* Copy the merged page to buf; needs no guard. TOO_BIG if it is longer than cap, with *len_out and
   *version_out set. */
SCREE_API SCREE_CHECKED int scree_page_read(scree_cache *cache, scree_page_id id, void *buf,
                                            size_t cap, size_t *len_out,
                                            scree_version *version_out);
/* Start to read those of n pages that are evicted, and return at once: the cache's own threads read them
   side by side, and a get that comes meanwhile waits for the read under way. A hint, in or out of a guard:
   ids that are not live are passed over; what is beyond 4,096 pages that wait, and what could not be read,
   is read by its get, which tells why. INVALID: an id is 0. NO_MEMORY, -errno: there is no thread to read. */
SCREE_API SCREE_CHECKED int scree_pages_prefetch(scree_cache *cache, const scree_page_id *ids,
                                                 size_t n);
/* scree_page_get for n pages, in a guard; those that are evicted are read side by side, 32 at a time. Into
   arrays of n, each of which may be NULL: the pages, borrowed until the guard is left ({NULL, 0} where there
   is none), their versions, and what scree_page_get gave for each. 0 if all are there, else the first code
   that is not 0, whose detail is told; every page is tried. Memory: the guard holds all n, also beyond
   cache_bytes. */
SCREE_API SCREE_CHECKED int scree_pages_get(scree_cache *cache, const scree_page_id *ids, size_t n,
                                            scree_slice *pages_out, scree_version *versions_out,
                                            int *codes_out);
/* Replace the page. *version: the version expected; out: the current one, on success and CONFLICT. */
SCREE_API SCREE_CHECKED int scree_page_set(scree_cache *cache, scree_page_id id,
                                           scree_version *version, scree_slice page);
/* Append a fragment if the page is still at *version; out as for set. MERGE if its fragments cannot be
   merged and are too many already. */
SCREE_API SCREE_CHECKED int scree_page_merge(scree_cache *cache, scree_page_id id,
                                             scree_version *version, scree_slice fragment);
/* Append a fragment whatever the version, without reading the page. */
SCREE_API SCREE_CHECKED int scree_page_append(scree_cache *cache, scree_page_id id,
                                              scree_slice fragment, scree_version *version_out);
/* Replace the page whatever the version. */
SCREE_API SCREE_CHECKED int scree_page_put(scree_cache *cache, scree_page_id id, scree_slice page,
                                           scree_version *version_out);
/* Free the page if it is still at *version; out: the position of the free, or the current version on
   CONFLICT. INVALID for SCREE_PAGE_ROOT. */
SCREE_API SCREE_CHECKED int scree_page_free(scree_cache *cache, scree_page_id id,
                                            scree_version *version);
/* The smallest live id above `after`; NOT_FOUND at the end. Ids that come or go meanwhile may be seen
   or not. */
SCREE_API SCREE_CHECKED int scree_page_next(scree_cache *cache, scree_page_id after,
                                            scree_page_id *id_out);

/* ---- batches: several pages, all or nothing ------------------------------------------------- */

/*
 * A batch collects steps and commits them at one moment: no thread sees some of them without the others, and
 * after a crash all of them are there or none is. Each step names the version it expects, as the calls on one
 * page do; if any page has moved, nothing happens. Several steps on one page apply in the order in which they
 * were added, and each names the version from before the batch; a page allocated by the batch has 0 there.
 *
 * A batch belongs to one thread at a time and is to be committed or aborted before the cache is closed.
 * Steps copy their payload, write nothing and wait for nothing but memory. Any number of steps; what is written
 * for all of them together must fit half of log_buffer_bytes.
 */
typedef struct scree_batch scree_batch;
SCREE_API SCREE_CHECKED int scree_batch_begin(scree_cache *cache, scree_batch **batch_out);
/* A new page; its id is known at once, and nobody finds a page there before the commit. */
SCREE_API SCREE_CHECKED int scree_batch_allocate(scree_batch *batch, scree_slice initial,
                                                 scree_page_id *id_out);
/* A new page under this very id, as scree_page_allocate_at. The commit gives CONFLICT if it is live, BUSY until
   a freed id's grace period is over: nothing of the batch happened, begin another one in a moment. */
SCREE_API SCREE_CHECKED int scree_batch_allocate_at(scree_batch *batch, scree_page_id id,
                                                    scree_slice initial);
SCREE_API SCREE_CHECKED int scree_batch_set(scree_batch *batch, scree_page_id id,
                                            scree_version expected, scree_slice page);
SCREE_API SCREE_CHECKED int scree_batch_merge(scree_batch *batch, scree_page_id id,
                                              scree_version expected, scree_slice fragment);
/* The last step on its page: with one more the commit is INVALID. INVALID for SCREE_PAGE_ROOT. */
SCREE_API SCREE_CHECKED int scree_batch_free(scree_batch *batch, scree_page_id id,
                                             scree_version expected);
/* Only reads: at the moment of the commit the page must be at this version. A batch of checks alone tells
   whether pages read one after the other were all as read at one moment. */
SCREE_API SCREE_CHECKED int scree_batch_check(scree_batch *batch, scree_page_id id,
                                              scree_version expected);
/*
 * All or nothing; ends the batch either way. Every page written has version *lsn_out afterwards, and is durable
 * when stable_lsn reaches it; where nothing is written it is the largest version checked, 0 without any step.
 * Lock-free but for admission, which may wait for room as every update does.
 *
 * CONFLICT, NOT_FOUND for a page that is not live, or BUSY: nothing happened, *conflict_out is the first page
 * (in the order of the steps) that has moved. TOO_BIG: more than half of log_buffer_bytes, or more than 4,096
 * fragments for one page. INVALID: steps that cannot follow each other (behind a free, before the allocation,
 * two allocations of one id). NO_SPACE, NO_MEMORY, MERGE (a page has more fragments than can be borne, and
 * they do not merge), CORRUPT and -errno (nor can they be read), POISONED: nothing happened.
 */
SCREE_API SCREE_CHECKED int scree_batch_commit(scree_batch *batch, scree_lsn *lsn_out,
                                               scree_page_id *conflict_out);
/* As if it had never begun; ids that it allocated are free again. NULL does nothing. */
SCREE_API void scree_batch_abort(scree_batch *batch);

/* ---- durability ------------------------------------------------------------------------------ */

/* Make all updates that returned before this call durable. POISONED, NO_SPACE. */
SCREE_API SCREE_CHECKED int scree_flush(scree_cache *cache, scree_lsn *stable_out);
/* Wait until stable_lsn >= lsn (a version is such an lsn), asking for a flush. timeout_ms < 0: no limit.
   TIMEOUT, POISONED, INVALID (beyond the tail: would never come). */
SCREE_API SCREE_CHECKED int scree_wait_stable(scree_cache *cache, scree_lsn lsn, int timeout_ms);
/* How a long call gets on; done and total in the unit that `what` names. Non-zero cancels it. */
typedef int (*scree_progress_fn)(void *ctx, const char *what, uint64_t done, uint64_t total);
/*
 * Give disk space back now: take snapshots, punch and delete what is dead, and clean what is sparse until
 * disk_bytes <= space_amp_target * live_bytes or nothing more is to be won.
 *
 * space_amp_target  from 1.05 to 100; 0: the option's.
 * progress          may be NULL; done and total: bytes of disk to be given back.
 * Threads  any, but not inside a read guard (INVALID): it waits for grace periods. Updates and reads go on.
 * Errors   INVALID, READ_ONLY, POISONED, CANCELED (what was given back stays given back), NO_SPACE,
 *          CORRUPT (some records cannot be moved: they are damaged), NO_MEMORY, -errno.
 */
SCREE_API SCREE_CHECKED int scree_reclaim(scree_cache *cache, double space_amp_target,
                                          scree_progress_fn progress, void *ctx);
/*
 * Copy the directory, while it is in use, into one of its own that opens as it does: as of one position of the
 * log, with everything that had returned before the call. Blocks are shared (reflink) where the file system
 * can.
 *
 * dst_dir          is made, or is there and empty; not in a scree directory. While it is not complete it holds
 *                  a file BACKUP_INCOMPLETE and cannot be opened. If the call fails delete it: it is
 *                  incomplete, or still empty, or (if the very last sync failed) whole but perhaps not durable.
 * bytes_per_s_max  of copying; 0: no limit.
 * progress         may be NULL; done and total: bytes.
 * Threads  any; one backup of a cache at a time (BUSY). Updates and reads go on. Disk space that the copy still
 *          needs is not given back meanwhile (pinned_bytes of the statistics), on a full disk neither: updates
 *          get NO_SPACE until the backup ends, or is canceled.
 * Durable  the copy, on return. The same uuid; as if it had been closed at that position; from there on a
 *          history of its own. A read-only cache can be backed up too.
 * Errors   INVALID, -EEXIST (not empty), BUSY, LOCKED, CANCELED, POISONED, CORRUPT (the source misses what it
 *          needs), NO_SPACE, NO_MEMORY, -errno. The source is as good as before.
 */
SCREE_API SCREE_CHECKED int scree_backup(scree_cache *cache, const char *dst_dir,
                                         uint64_t bytes_per_s_max, scree_progress_fn progress,
                                         void *ctx);
/* Everything below is durable. */
SCREE_API scree_lsn scree_stable_lsn(const scree_cache *cache);
/* Write a snapshot of the page table now; *lsn_out: where replay from it would start. If nothing changed
   since the last one, nothing is written. READ_ONLY, POISONED, -errno. */
SCREE_API SCREE_CHECKED int scree_snapshot(scree_cache *cache, scree_lsn *lsn_out);

/* ---- the change feed ------------------------------------------------------------------------- */

/*
 * What users changed, in log order, once it is stable: each allocation, set, fragment and free, with its
 * payload as it was given. Batches come whole. What the library writes for itself (consolidated and moved
 * pages, the root page's allocation) does not come. Whoever applies all of it in this order, from the
 * beginning or to a copy of the pages as of a position, gets the same pages.
 *
 * POSITIONS  Where to go on: `next` of a record (also of one that came before a close or a crash: what was told
 *   is stable), a stable_lsn as scree_flush or scree_stable_lsn told it, and what scree_log_oldest tells.
 *   `next` of a record in a batch is the batch's beginning, but for the batch's last, so that it comes again
 *   whole. Another number is INVALID, as far as it can be told: checksums include the position.
 * WHAT IS KEPT  All changes since the oldest snapshot kept: the last but one. An open reader keeps what is
 *   behind its position besides: scree_stats.pinned_bytes. One that falls behind takes disk space without
 *   bound, and on a full disk, or at disk_limit_bytes, it is the reason for NO_SPACE: close it, or let it
 *   catch up.
 */
typedef struct scree_log_reader scree_log_reader;

/* As in docs/log_format.md. */
enum scree_record_kind {
    SCREE_RECORD_ALLOCATE = 1, /* a new page; payload: its base; 0 bytes: it has none */
    SCREE_RECORD_SET = 2,      /* payload: the new base */
    SCREE_RECORD_DELTA = 3,    /* payload: one fragment, by merge or append */
    SCREE_RECORD_FREE = 5
};

enum scree_record_flags {
    SCREE_RECORD_MORE = 1,     /* further records of the same batch follow */
    SCREE_RECORD_CHOSEN_ID = 2 /* ALLOCATE: the caller chose the id */
};

typedef struct scree_log_record {
    size_t size;
    scree_lsn lsn;  /* where it begins; 0: none, see scree_log_next */
    scree_lsn next; /* where to go on behind it */
    scree_page_id page;
    scree_version version; /* as the update told it */
    int kind;              /* enum scree_record_kind */
    uint32_t flags;        /* enum scree_record_flags, or-ed */
    scree_slice payload;   /* as the user gave it; borrowed until the next call on this reader */
} scree_log_record;

/*
 * A reader that begins at `from`; 0: at the oldest position there is.
 * Threads  a reader belongs to one thread at a time; any number of them. Works on a read-only cache too.
 * Errors   NOT_FOUND (the log there was given back, or may have been: scree_log_oldest tells where one can
 *          begin), INVALID (no position), CORRUPT, -errno, NO_MEMORY.
 */
SCREE_API SCREE_CHECKED int scree_log_open(scree_cache *cache, scree_lsn from,
                                           scree_log_reader **reader_out);
/*
 * The next record; set record_out->size. Waits until there is one, timeout_ms at most; 0: not at all, < 0: no
 * limit. It never asks for a sync. A reader needs about 1 MiB of memory, or what the largest batch takes.
 * Errors   TIMEOUT: nothing but `next` is set, as far as was read: worth keeping, as the library's own records
 *          are behind it. At the end of a read-only cache it comes at once. POISONED, when all that is stable
 *          has been read. CORRUPT, -errno, NO_MEMORY: the same record comes again. INVALID: size is not set.
 */
SCREE_API SCREE_CHECKED int scree_log_next(scree_log_reader *reader, int timeout_ms,
                                           scree_log_record *record_out);
/* NULL does nothing. */
SCREE_API void scree_log_close(scree_log_reader *reader);
/* The oldest position that can be read from now; it may be gone when it is used. */
SCREE_API SCREE_CHECKED int scree_log_oldest(scree_cache *cache, scree_lsn *lsn_out);

/* ---- ids -------------------------------------------------------------------------------------- */

/*
 * An id that this directory never handed out before and never will again, larger than every id handed out
 * before: in the order of the calls, across threads, closing, and any number of crashes. From 1. Nothing to do
 * with page ids. Ids are reserved in ranges, and a crash loses what was reserved: two ranges at most, at most
 * 131,072 ids. Ranges begin with 64 ids and double up to 65,536. After a clean close hardly any are lost.
 *
 * Threads  any, also in a read guard; lock-free but for the end of a range, where it waits for a sync of the
 *          log if the next range, asked for when half of one is used, is not there yet.
 * Durable  on return: an id once handed out does not come back, whatever happens.
 * Errors   INVALID, READ_ONLY, POISONED, NO_SPACE (also: all 2^64 are used up); no id is lost by them.
 */
SCREE_API SCREE_CHECKED int scree_id_next(scree_cache *cache, uint64_t *id_out);

/* ---- damaged directories ---------------------------------------------------------------------- */

enum scree_finding_severity {
    SCREE_FINDING_DAMAGE = 1, /* bytes are not what they were */
    SCREE_FINDING_LOST = 2, /* what a page (or the recovery state) holds can no longer be proved */
    SCREE_FINDING_NOTE = 3  /* worth knowing; nothing is wrong by itself */
};

/* One thing found. Pointers are borrowed for the call. */
typedef struct scree_finding {
    size_t size;
    int severity;         /* enum scree_finding_severity */
    int code;             /* SCREE_E_CORRUPT, -errno; MERGE, TOO_BIG, MATERIALIZER of what cannot be
                             merged, or copied with these options; of a note: 0 */
    const char *file;     /* name within the directory; NULL: none */
    uint64_t offset;      /* in the file */
    scree_lsn lsn;        /* 0: it is not about the log */
    scree_page_id page;   /* 0: it is not about one page, or that is not known */
    const char *text;     /* one sentence */
    const char *expected; /* short; may be NULL, as found */
    const char *found;
    uint64_t
        bytes; /* so many, from there on, are concerned; 0: not known. They may go on in the next file */
} scree_finding;
/* Non-zero ends the call with CANCELED. */
typedef int (*scree_finding_fn)(void *ctx, const scree_finding *finding);

/*
 * Read and check everything in dir, and write nothing: every manifest, both generations of snapshots,
 * headers of segments, the log from the older generation's replay start on, and every page: its
 * records, what they merge to (merge), and whether the result is well-formed (check). It goes on after
 * a finding wherever it can. Bytes that nothing refers to any more, or that were never written, are not
 * looked at: what they should be is not known.
 *
 * options   as for scree_open; flags do not matter. materializer may be NULL: pages are read and not
 *           merged.
 * finding, progress  may be NULL; called on this thread, with ctx. progress: what is "snapshots" or
 *           "log", in bytes, or "pages".
 * Locks     shared: others may verify or read meanwhile, nobody writes.
 * Memory    that of the page table, one page, and a few MiB.
 * Returns   0: clean, but for notes. CORRUPT: there were findings. Others: it could not be done:
 *           LOCKED, FORMAT, MATERIALIZER, -ENOENT, INVALID, CANCELED, NO_MEMORY, -errno.
 */
SCREE_API SCREE_CHECKED int scree_verify(const char *dir, const scree_options *options,
                                         scree_finding_fn finding, scree_progress_fn progress,
                                         void *ctx);

/*
 * Copy what can still be proved of src, as damaged as it may be, into the new directory dst; tell what
 * cannot. src is not written to, and may be on a read-only file system.
 *
 * A page is copied, under its id, with its base and fragments as they are, if all its records are whole
 * and none can be missing between them: a fragment behind a stretch of the log that cannot be read may
 * follow another one that is lost; such a page is LOST until it is set as a whole again. A page whose
 * newest record lies before such a stretch is copied as it was then; a note tells of each stretch. Of a
 * batch that is damaged what is whole counts. Versions in dst are new ones. The recovery state is taken
 * over, folded on as far as nothing is missing, and LOST if something is; scree_id_next goes on above every id
 * handed out. Without any snapshot that loads, pages and state come from the log alone: pages freed long ago
 * may be back, and the state is LOST if any of the log was given back.
 *
 * dst       must not be there, or be empty, and not lie in src (INVALID).
 * options   as for scree_open; of dst. materializer may be NULL if a manifest can be read: the name is
 *           taken from it.
 * finding, progress, Locks, Memory  as for scree_verify, and cache_bytes.
 * Durable   dst is closed, and durable, on 0 and CORRUPT; after other errors delete it.
 * Returns   0: all that src held is in dst. CORRUPT: there were findings, and the rest is in dst. Others:
 *           as scree_verify (-ENOENT also: no manifest and no segment can be read), and those of scree_open and
 *           scree_close of dst.
 */
SCREE_API SCREE_CHECKED int scree_salvage(const char *src, const char *dst,
                                          const scree_options *options, scree_finding_fn finding,
                                          scree_progress_fn progress, void *ctx);

/* ---- looking in ------------------------------------------------------------------------------ */

/* How the open went. */
typedef struct scree_recovery_info {
    size_t size;
    uint64_t clean;             /* 1: it had been closed (or is new) */
    uint64_t snapshot_lsn;      /* replay started here; 0 = no snapshot */
    uint64_t stable_lsn;        /* the log ended here */
    uint64_t records;           /* replayed */
    uint64_t pages;             /* live after recovery */
    uint64_t torn_bytes;        /* trimmed from the end */
    uint64_t batches_discarded; /* unfinished at the end */
    uint64_t elapsed_us;
} scree_recovery_info;
SCREE_API int scree_recovery(const scree_cache *cache, scree_recovery_info *info_out);
/* What the recover callback had folded when the cache was opened; borrowed until close; empty without
   the callback. */
SCREE_API int scree_recovery_state(const scree_cache *cache, scree_slice *state_out);

/* Sums over all threads; a moment's picture, each field by itself. */
typedef struct scree_stats {
    size_t size;
    uint64_t pages;          /* live */
    uint64_t resident_bytes; /* charged to pages in memory */
    uint64_t retired_bytes;  /* waiting for a grace period */
    uint64_t hits, misses;   /* reads served from memory; reads that went to disk */
    uint64_t merges, sets, appends, frees, conflicts; /* steps of batches among them */
    uint64_t consolidations, evictions;
    uint64_t stable_lsn, tail_lsn;
    uint64_t live_bytes;    /* bytes of log records that recovery to the present state needs */
    uint64_t log_bytes;     /* appended since open */
    uint64_t disk_bytes;    /* log segments, as allocated */
    uint64_t punched_bytes; /* given back by punching holes since open */
    uint64_t cleaned_bytes; /* of live records moved by cleaning since open */
    uint64_t snapshots;     /* written since open */
    uint64_t user_bytes;    /* payload accepted since open */
    uint64_t device_bytes;  /* written to files since open */
    double space_amp;       /* disk_bytes / live_bytes */
    double write_amp;       /* device_bytes / user_bytes */
    uint64_t
        charged_bytes; /* what the allocator gave for pages: resident, retired and kept for reuse */
    uint64_t table_bytes; /* of the page table in memory */
    uint64_t dead_bytes;  /* on disk, but not needed by the present state */
    uint64_t
        waiting_bytes; /* of dead_bytes: whole granules that only wait for a snapshot or a guard */
    uint64_t deleted_bytes;       /* given back by deleting whole segments since open */
    uint64_t snapshot_disk_bytes; /* of the snapshot files retained */
    uint64_t segments;            /* files */
    double hit_ratio;             /* hits / (hits + misses) */
    /* of waiting_bytes: would be given back, but a backup under way or an open log reader needs them */
    uint64_t pinned_bytes;
    uint64_t snapshot_bytes; /* written in snapshot files since open: full ones and the two below */
    uint64_t
        snapshot_delta_bytes; /* in snapshots that hold only what changed since the one before */
    uint64_t snapshot_merge_bytes; /* by merging such in the background */
} scree_stats;
SCREE_API int scree_stats_get(scree_cache *cache, scree_stats *stats_out);

/* 64 KiB of a segment, the unit of hole punching. */
typedef struct scree_granule {
    uint32_t written_bytes; /* of the log; the rest is not written yet */
    uint32_t live_bytes;
    uint32_t punched; /* 1: given back to the file system */
} scree_granule;

typedef struct scree_segment_info {
    size_t size;
    const char *file; /* its name in the directory; this and granule are borrowed for the call */
    scree_lsn lsn;    /* of its first byte */
    uint64_t bytes;   /* of log it has room for */
    uint64_t disk_bytes;
    uint64_t live_bytes, dead_bytes;
    uint32_t granule_bytes;
    uint32_t granules;
    const scree_granule *granule;
} scree_segment_info;
typedef int (*scree_segment_fn)(void *ctx, const scree_segment_info *segment);
/* Every log segment in log order, with a map of its granules; a moment's picture, each segment by
   itself. Non-zero from visit ends it and is returned. Not to be called from visit. */
SCREE_API int scree_segments_each(scree_cache *cache, scree_segment_fn visit, void *ctx);

/* One figure by name, "pages" or "sync_ns.p99"; name is borrowed for the call. Non-zero ends it. */
typedef int (*scree_stat_fn)(void *ctx, const char *name, double value);
/* Every counter, and count, p50, p99, p999, max of every phase's latency (ns): reserve, fill, flush,
   sync, page_in, page_out, merge, consolidate, snapshot, compress. */
SCREE_API int scree_stats_each(scree_cache *cache, scree_stat_fn visit, void *ctx);
/* 0, or the error that poisoned this cache. */
SCREE_API int scree_health(const scree_cache *cache);

#ifdef __cplusplus
}
#endif
#endif
