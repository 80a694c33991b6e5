/*
 * pagecache_private.h - the cache object, a thread's context in it, and what the files of this
 * module offer each other. The public calls are in read.c, update.c, allocate.c, cache.c,
 * checkpoint.c, stats.c.
 */
#ifndef SCREE_PAGECACHE_PRIVATE_H
#define SCREE_PAGECACHE_PRIVATE_H

#include "base/base.h"
#include "base/histogram.h"
#include "base/rcu.h"
#include "log/log.h"
#include "pagecache/slot.h"
#include "radix/radix.h"
#include "snapshot/snapshot.h"

#include <pthread.h>

/* ---- nodes (fragment.c) ---------------------------------------------------------------------- */

enum scree__node_kind {
    NODE_DELTA = 1, /* one fragment; next is what it was appended to */
    NODE_BASE = 2,  /* the page: as set, consolidated, or merged in memory from its records */
    NODE_EMPTY = 3, /* allocated with 0 bytes: no base */
    NODE_GHOST = 4, /* an evicted page of several records: only where they lie */
    NODE_MCAS = 5   /* no page's: what a batch does, while it does it (mcas.c) */
};

/*
 * Immutable once published. A chain is deltas, newest first, ending in one node of another kind. A
 * node that stands for several records (BASE merged in memory, STUB) has their positions, oldest
 * first, behind its payload.
 */
struct scree__node {
    struct scree__node *next; /* older; NULL unless DELTA */
    uint64_t lsn;             /* start of the newest record it stands for */
    uint64_t version;         /* of the page with this node as its head */
    uint32_t payload_len;     /* bytes */
    uint32_t disk_len;        /* of its record, if that is one */
    uint32_t charge;          /* bytes the allocator really gave */
    uint16_t positions;       /* records it stands for; 1: lsn and disk_len above */
    uint8_t kind;
    uint8_t size_class;
    unsigned char payload[];
};
static_assert(sizeof(struct scree__node) == 40, "payload right behind a 40 byte header");
static_assert(sizeof(struct scree__position) == 16, "positions are copied as they are");

static inline struct scree__position *
scree__node_positions(struct scree__node *n)
{
    size_t at = (n->payload_len + 7u) & ~(size_t)7u;

    return (struct scree__position *)(void *)(n->payload + at);
}

#define NODE_CLASSES 32
#define NODE_CLASS_NONE 255
#define NODE_LIST_CAP 512
#define RETIRE_BATCH 256
/* In an entry of a batch: this node and all behind it. */
#define RETIRED_CHAIN ((uintptr_t)1)

/* Nodes unlinked by one thread, on their way through a grace period and home. */
struct scree__retired {
    struct scree__retired *next;
    struct scree__context *owner;
    uint64_t bytes; /* charged for them */
    uint32_t n;
    uintptr_t node[RETIRE_BATCH]; /* address | size class << 48 | RETIRED_CHAIN */
};

/* ---- counters, phases (stats.c) -------------------------------------------------------------- */

enum scree__counter {
    COUNT_HITS,
    COUNT_MISSES,
    COUNT_MERGES,
    COUNT_SETS,
    COUNT_APPENDS,
    COUNT_ALLOCATES,
    COUNT_FREES,
    COUNT_BATCHES,
    COUNT_CONFLICTS,
    COUNT_CONSOLIDATIONS,
    COUNT_EVICTIONS,
    COUNT_USER_BYTES,
    COUNT_CLEANED_BYTES,
    COUNT_OVER_MEMORY,
    COUNT_EVICT_HELPS, /* calls that found memory over its limit */
    COUNT_RETRIES,
    COUNT_TOGETHER, /* misses read many at a time */
    COUNTERS
};

enum scree__phase {
    PHASE_RESERVE,
    PHASE_FILL,
    PHASE_PAGE_IN,
    PHASE_PAGE_OUT,
    PHASE_MERGE,
    PHASE_CONSOLIDATE,
    PHASE_COMPRESS,
    PHASES
};

/* ---- a page's records, collected (chain.c) --------------------------------------------------- */

struct scree__chain {
    scree_slice base; /* data NULL: none */
    scree_slice *frags;
    size_t n;
    size_t frags_cap;
    struct scree__position *positions; /* oldest first */
    size_t positions_n;
    size_t positions_cap;
    struct scree__node *terminal; /* the node that is no delta */
    uint64_t version;
    uint64_t lsn; /* newest record's start */
};

/* ---- a thread in a cache (context.c) --------------------------------------------------------- */

#define CONSOLIDATE_LIST 8
#define READS_KEPT 4
#define ID_CACHE 32

/*
 *   guard   [63:24] guards that ended, nested ones not counted    [23:0] depth of the open one
 * The same number at two looks, with a depth, is the same guard.
 */
#define GUARD_DEPTH_BITS 24
#define GUARD_DEPTH_MASK (((uint64_t)1 << GUARD_DEPTH_BITS) - 1)
#define GUARD_ENDED \
    (((uint64_t)1 << GUARD_DEPTH_BITS) - 1) /* added by the end of an outermost one */

struct scree__context {
    scree_cache *cache;
    struct scree__context *next; /* all contexts of the cache; set once before publish */
    _Atomic uint32_t in_use;     /* taken by a thread; protocol in context.c */
    _Atomic int32_t thread_id;   /* of the owner, for messages; 0: none */
    _Atomic uint64_t guard;      /* written by the owner; read by close and by the watch */
    uint64_t guard_seen;         /* the watch's only, as guard_since_ns: when it saw it first */
    uint64_t guard_since_ns;
    struct scree__log_writer *writer;
    uint32_t sample;         /* owner only */
    bool background;         /* owner only: a thread that makes room must not wait for room */
    _Atomic bool gives_away; /* the evictor's: what it retires goes to another one (fragment.c) */
    uint32_t consolidate_n;
    scree_page_id consolidate[CONSOLIDATE_LIST];
    uint32_t id_n;
    scree_page_id id[ID_CACHE];
    /* memory (fragment.c). Those marked *: written by the owner alone, relaxed; read by statistics */
    _Atomic int64_t charge_pending; /* *: not yet added to cache->resident_bytes */
    _Atomic int64_t given_bytes;    /* *: got from the allocator less given back to it */
    _Atomic uint64_t open_bytes;    /* *: in `retired` */
    _Atomic uint64_t listed_bytes;  /* *: in free_node; of the size classes, not as charged */
    struct scree__retired *retired; /* being filled; owner only */
    struct scree__retired *spare;   /* list of empty ones, to be filled next; owner only */
    struct scree__retired *home;    /* taken from `returned`, not yet sorted; owner only */
    _Atomic(struct scree__retired *)
        returned;                       /* through their grace period; pushed by the reclaimer */
    _Atomic uint64_t returned_bytes;    /* in `home` and `returned` */
    uintptr_t *free_node[NODE_CLASSES]; /* arrays of NODE_LIST_CAP; owner only */
    uint32_t free_n[NODE_CLASSES];
    struct scree__chain chain;
    struct scree__log_read read[READS_KEPT]; /* with their buffers, for the next page to be read */
    struct scree__arrivals *arrivals;        /* the same for many pages; NULL before the first */
    struct scree_out out;
    void *compressed;
    size_t compressed_cap;
    void *compressor;                 /* ZSTD_CCtx */
    scree_batch *batch;               /* ended, for the next one; owner only */
    _Atomic uint64_t count[COUNTERS]; /* owner adds with relaxed load and store */
    struct scree__histogram phase[PHASES];
};

/* ---- reads in flight (pagein.c) --------------------------------------------------------------- */

#define READ_LISTS 64u /* a power of two */

struct scree__reads {
    pthread_mutex_t mutex; /* held for short list work */
    struct scree__reading *first;
    uint64_t number;        /* of the next one */
    _Atomic uint32_t ended; /* futex; changed under the mutex */
    uint32_t waiters;
};

/* ---- pages that will be wanted (prefetch.c) ----------------------------------------------------- */

#define PREFETCHERS 3u /* few that take much: each hand-over is a thread to be woken */
#define PREFETCH_MAX 4096u

struct scree__prefetch {
    pthread_mutex_t mutex;
    pthread_cond_t asked;
    scree_page_id *id; /* a ring of PREFETCH_MAX; NULL before the first call */
    size_t head, n;
    uint64_t left_out; /* ids for which there was no room */
    unsigned idle, threads;
    pthread_t thread[PREFETCHERS];
    bool stop;
};

/* ---- generated ids (generator.c) --------------------------------------------------------------- */

struct scree__generator {
    unsigned char apart[SCREE_CACHE_LINE]; /* from what others write */
    _Atomic uint64_t next;                 /* N1 */
    _Atomic uint64_t limit;                /* N2, N3 */
    _Atomic uint64_t asked;                /* N4 */
    _Atomic uint64_t half;                 /* of the range: ask for more */
    pthread_mutex_t mutex;
    uint64_t high;  /* under mutex: the mark of the newest record */
    uint64_t range; /* under mutex: how many ids the next record brings */
};

/* ---- readers of the log (feed.c) ---------------------------------------------------------------- */

struct scree__feed {
    pthread_mutex_t mutex;
    scree_log_reader *readers; /* under mutex, as are those below */
    uint64_t given;            /* what died below it may have been given back */
    uint64_t wanted;           /* the same, were there no readers */
};

/* ---- the cache ------------------------------------------------------------------------------- */

struct scree_cache {
    uint64_t serial; /* unique in this process, never reused: a stale thread-local cannot match.
                        SCREE__SERIAL_FORKED: fork.c */
    scree_cache *open_next; /* under the registry lock of context.c */
    struct scree__radix radix;
    struct scree__log *log;
    scree_options options; /* normalized copy */
    scree_materializer materializer;
    const scree_env *env;
    char *dir;
    int lock_file;
    bool read_only;
    _Atomic(struct scree__context *) contexts;
    _Atomic uint64_t batches_open;

    /* memory (fragment.c, evict.c) */
    uint64_t charge_step; /* a context's pending charge is passed on beyond it */
    _Atomic int64_t resident_bytes;
    _Atomic int64_t given_bytes; /* to others than owners of contexts; see there */
    _Atomic uint64_t retired_bytes;
    _Atomic(struct scree__retired *)
        retired; /* pushed by any thread, taken whole by the reclaimer */
    _Atomic(struct scree__context *) hungry; /* had to ask the allocator last: fragment.c */
    _Atomic uint64_t hand;                   /* of the clock: next page id to look at */
    _Atomic uint64_t hand_share;             /* newcomers among the pages it met: clock.h */
    _Atomic uint64_t held_bytes;             /* of pages consolidated in order to leave: evict.c */
    _Atomic uint32_t ghosts_fill;            /* a hint: ghosts take half of the cache; pressure.c */
    _Atomic uint32_t stuck;                  /* a hint: nothing can leave; pressure.c */
    _Atomic uint64_t left_bytes;             /* that sweeps gave up, in all: has anybody won? */
    _Atomic uint32_t evict_asleep;           /* futex of the evictor; protocol in pressure.c */
    _Atomic uint32_t evict_stop;             /* futex; set once by close */
    pthread_t evictor;
    _Atomic uint32_t reclaim_asked;  /* futex of the reclaimer */
    _Atomic uint32_t reclaim_asleep; /* R8, R9 of reclaim.c */
    _Atomic uint32_t reclaim_done;   /* futex of those who wait for a grace period */
    _Atomic uint64_t
        grace_since_ns;          /* R10 of reclaim.c: since when a grace period is waited for; 0 */
    struct {                     /* the watch's only */
        uint64_t grace_since_ns; /* of the wait that it looks at */
        uint64_t first_look_ns;  /* at that wait */
        uint64_t late_ns;        /* the LATE_LOOKS-th behind it, or the last there was */
        uint32_t looks;          /* so far behind it */
        uint64_t next_ms;        /* the age to be told next */
    } watch;
    pthread_t reclaimer;
    _Atomic uint32_t reclaim_stop; /* set once by close, read with acquire by the reclaimer */

    struct scree__reads reads[READ_LISTS];
    struct scree__prefetch prefetch;

    /* ids (allocate.c) */
    pthread_mutex_t id_mutex;
    uint64_t id_high;            /* under id_mutex: the highest handed out in sequence */
    uint64_t id_gap, id_gap_end; /* under id_mutex: recovered ids still to be looked at for gaps */
    struct scree__freed_id *freed; /* under id_mutex: a ring, oldest first */
    size_t freed_head, freed_n, freed_cap;
    _Atomic uint64_t cooled_lsn; /* frees below it have had their grace period */

    struct scree__generator generator;
    struct scree__feed feed;

    /* snapshots (checkpoint.c) */
    pthread_mutex_t checkpoint_mutex; /* never held over a grace period */
    pthread_mutex_t collect_mutex;    /* held over one: never taken in a read section */
    struct scree__manifest manifest;  /* under checkpoint_mutex */
    bool pinned;                      /* under checkpoint_mutex; as pin */
    struct scree__generation
        pin; /* what a backup needs; no files: there was none, all of the log */
    _Atomic uint64_t pin_lsn,
        retained_lsn;         /* figures: S of the pin (UINT64_MAX: none), of the oldest */
    uint64_t snapshot_number; /* under checkpoint_mutex: of the file begun last */
    bool snapshot_full;       /* under checkpoint_mutex: the next one is to be full */
    uint64_t table_pages;     /* under checkpoint_mutex: at the last walk, or as recovered */
    uint64_t full_pages;      /* under checkpoint_mutex: in the newest full file; 0: not known */
    uint64_t
        merging_from; /* under checkpoint_mutex: files so numbered and above stay for a merge that is under
                              way; UINT64_MAX: for none */
    uint64_t
        checkpointed_end; /* under checkpoint_mutex: the log's end when the newest was published */
    _Atomic uint64_t checkpoint_lsn;        /* the newest S */
    _Atomic uint64_t checkpoint_bytes;      /* what the newest snapshot wrote */
    _Atomic uint64_t checkpoint_disk_bytes; /* of all files retained */
    _Atomic int
        checkpoint_soon; /* a hint of the janitor's: 0, 1 disk is too full, 2 far too full */
    /* Hints: when the last one ended, how long its walk took, bytes of log per second before it. */
    _Atomic uint64_t checkpoint_ended_ns, checkpoint_took_ns, log_rate;
    struct scree_out fold; /* under checkpoint_mutex: recovery state up to fold_lsn */
    uint64_t fold_lsn;     /* under checkpoint_mutex */
    uint64_t
        fold_from; /* the same, or the start of the batch that it lies in: no walk begins within one */
    bool fell_back;                 /* an older generation was loaded; set before open returns */
    _Atomic uint32_t compact_asked; /* a snapshot was taken since merging was last looked at */
    pthread_t checkpointer;
    _Atomic uint32_t checkpoint_asked; /* futex of the checkpointer */
    _Atomic uint32_t checkpoint_stop; /* set once by close, read with acquire by the checkpointer */
    _Atomic uint64_t snapshots;
    struct scree__histogram snapshot_ns; /* under checkpoint_mutex for writing */
    _Atomic uint64_t snapshot_bytes;     /* written: in all, in deltas, in merged files */
    _Atomic uint64_t snapshot_delta_bytes, snapshot_merge_bytes;

    /* space (space.c) */
    pthread_t janitor, collector;
    _Atomic bool janitor_runs;       /* open and close */
    _Atomic uint32_t space_asked;    /* futex of the janitor */
    _Atomic uint32_t collect_asked;  /* futex of the collector */
    _Atomic uint32_t space_stop;     /* set once by close, read with acquire */
    _Atomic uint32_t full;           /* set by the allocator thread, taken by the janitor */
    _Atomic uint64_t relief_vain_ns; /* when room was last looked for in vain; 0: not in vain */
    _Atomic uint64_t live_bytes;     /* as last counted; for paces */
    /* janitor only: after a round of cleaning that won nothing, the tail, and when to try again */
    uint64_t cleaned_lsn, clean_again_lsn;
    uint64_t reclaimed_lsn; /* under clean_mutex: two generations have passed all that died below */
    uint64_t collected_floor;    /* under collect_mutex */
    pthread_mutex_t clean_mutex; /* held over grace periods; taken before all others */
    uint64_t spare_bytes;        /* under clean_mutex: of the file that holds room for snapshots */
    _Atomic bool spare_held;     /* a hint: it is as much as is wanted */
    _Atomic uint64_t generation_bytes; /* a figure: of the newest generation's files */

    /* recovery (recover.c): set before open returns */
    scree_recovery_info recovery;
    void *recovery_state;
    size_t recovery_state_len;
    uint64_t pages_recovered;
};

struct scree__freed_id {
    scree_page_id id;
    uint64_t lsn;
};

/* fork.c */
#define SCREE__SERIAL_FORKED UINT64_MAX /* of no thread's context */
/* Open in the parent of this process; of no use here. */
static inline bool
scree__forked(const scree_cache *cache)
{
    return cache->serial == SCREE__SERIAL_FORKED;
}
/* From now on forks are seen. */
int scree__fork_watch(void);
/* FORKED: this process may not open a cache. */
int scree__fork_check(void);

/* context.c */
/* Open caches are not looked for, neither come nor go. */
void scree__registry_lock(void);
void scree__registry_unlock(void);
/* In a forked child, under that lock: all of them are marked. Whether there was any. */
bool scree__registry_disown(void);
struct scree__context *scree__context_slow(scree_cache *cache);
void scree__context_publish_cache(scree_cache *cache);
int scree__context_guards_check(scree_cache *cache); /* BUSY if a guard is open in any thread */
/* No thread finds it any more; contexts of ending threads are not given back to it. */
void scree__context_retire_cache(scree_cache *cache);
void scree__context_destroy_all(scree_cache *cache);
/* initial-exec: two instructions instead of a call, on the way of every operation; 16 of the bytes that a
   loader keeps free for libraries opened late. */
extern __attribute__((tls_model("initial-exec"))) _Thread_local struct scree__context_last {
    uint64_t serial;
    struct scree__context *ctx;
} scree__context_last;

/* This thread's context; NULL when out of memory. */
static inline struct scree__context *
scree__context(scree_cache *cache)
{
    if (__builtin_expect(scree__context_last.serial == cache->serial, 1))
        return scree__context_last.ctx;
    return scree__context_slow(cache);
}

static inline bool
scree__context_guarded(const struct scree__context *ctx)
{
    /* Relaxed: the owner is the only writer and asks about itself. */
    return (atomic_load_explicit(&ctx->guard, memory_order_relaxed) & GUARD_DEPTH_MASK) != 0;
}

/* For room on disk, or for the flusher: not in a read section, and not if room is what it makes. */
static inline bool
scree__context_may_wait(const struct scree__context *ctx)
{
    return !ctx->background && !scree__rcu_inside();
}

/* The largest page or fragment that leaves the cache within its bound. */
static inline uint64_t
scree__payload_max(const scree_cache *cache)
{
    uint64_t fits =
        cache->options.cache_bytes - 2 * cache->charge_step - sizeof(struct scree__node);

    return scree__min_u64(fits, cache->options.page_bytes_max);
}

static inline void
scree__count(struct scree__context *ctx, enum scree__counter c, uint64_t n)
{
    /* Relaxed load and store: the owner is the only writer; readers want a moment's picture. */
    uint64_t v = atomic_load_explicit(&ctx->count[c], memory_order_relaxed);

    atomic_store_explicit(&ctx->count[c], v + n, memory_order_relaxed);
}

/* 0: this operation is not sampled; else the time now. */
static inline uint64_t
scree__phase_begin(struct scree__context *ctx)
{
    if (++ctx->sample % 64 != 0)
        return 0;
    return ctx->cache->env->now_ns(ctx->cache->env->ctx);
}

static inline void
scree__phase_end(struct scree__context *ctx, enum scree__phase phase, uint64_t begin)
{
    if (begin != 0)
        scree__histogram_add(&ctx->phase[phase],
                             ctx->cache->env->now_ns(ctx->cache->env->ctx) - begin);
}

/* fragment.c */
struct scree__node *scree__node_new(struct scree__context *ctx, uint8_t kind, size_t payload_len,
                                    size_t positions);
/* Never published: straight back. */
void scree__node_discard(struct scree__context *ctx, struct scree__node *node);
/* Before a CAS that unlinks, and before the reservation of its record: from here on the next chain can be
   retired whatever happens. False: no memory, with the detail set. */
bool scree__retire_ready(struct scree__context *ctx);
/* Unlinked in this read section (or never published): freed after a grace period, with all behind it. */
void scree__chain_retire(struct scree__context *ctx, struct scree__node *head);
/* The same for n chains that must be retired together, whatever happens. */
bool scree__retire_ready_for(struct scree__context *ctx, size_t n);
void scree__chain_retire_as_one(struct scree__context *ctx, struct scree__node *head);
/* When all of them are. */
void scree__retired_bound(struct scree__context *ctx);
void scree__retired_hand_over(struct scree__context *ctx);
/* A batch that had its grace period: home to its owner. For the reclaimer. */
void scree__retired_return(scree_cache *cache, struct scree__retired *batch);
void scree__charge(struct scree__context *ctx, int64_t bytes);
void scree__charge_pass_on(struct scree__context *ctx);
void scree__nodes_drain(struct scree__context *ctx); /* free lists, at the end of a context */
struct scree__memory {
    uint64_t resident_bytes, retired_bytes, charged_bytes;
};
/* Exact while nothing moves. */
struct scree__memory scree__memory_sum(scree_cache *cache);
void scree__nodes_destroy(scree_cache *cache); /* every node in the table; nobody inside */
struct scree__node *scree__node_new_cold(scree_cache *cache,
                                         size_t positions_cap); /* recovery: a ghost */
size_t scree__node_positions_cap(const struct scree__node *node);
void scree__node_free_cold(scree_cache *cache, struct scree__node *node);

/* reclaim.c */
int scree__reclaimer_start(scree_cache *cache);
void scree__reclaimer_stop(scree_cache *cache);
void scree__reclaimer_wake(scree_cache *cache);
/* Wait, bounded, until at least one more grace period is over. Not in a read section. */
void scree__reclaimer_wait(scree_cache *cache);
/* Tell by event of a grace period that takes long, and of who holds it up. To be called about every 100 ms,
   by one thread at a time. */
void scree__guards_watch(scree_cache *cache);

/* update.c, batch.c: is an expected version compared with the page's? */
#ifdef SCREE_BUG_NO_VERSION_CHECK
#define VERSIONS_COUNT false /* seeded bug: tests must notice */
#else
#define VERSIONS_COUNT true
#endif

/* batch.c */
void scree__batch_free(scree_batch *b); /* an ended one */

/* mcas.c */
struct scree__mcas; /* some slots that change together */
/* For n slots; NULL: no memory. */
struct scree__mcas *scree__mcas_new(struct scree__context *ctx, uint32_t n);
/* Slot i, in ascending order of page id: it has to hold old, and gets next. */
void scree__mcas_set(struct scree__mcas *m, uint32_t i, struct scree__radix_ref ref, uint64_t old,
                     uint64_t next);
/* In the read section in which the old words were loaded. True: all of them changed. Once. */
bool scree__mcas_run(struct scree__mcas *m);
/* It was never run. */
void scree__mcas_discard(struct scree__context *ctx, struct scree__mcas *m);
/* No slot holds it any more, as far as we are concerned. With retire_ready_for one more. */
void scree__mcas_release(struct scree__context *ctx, struct scree__mcas *m);
uint64_t scree__slot_resolved(uint64_t word);
int scree__slot_help(struct scree__context *ctx, struct scree__radix_ref ref, uint64_t *word_io);

/* The head, if it is the whole page already. In a read section. */
static inline struct scree__node *
slot_whole_node(uint64_t word)
{
    struct scree__node *head = slot_tag(word) == SLOT_NODE ? slot_node(word) : NULL;

    return head != NULL && (head->kind == NODE_BASE || head->kind == NODE_EMPTY) ? head : NULL;
}

/* What the slot holds now, also while a batch has hold of it. Acquire. In a read section. */
static inline uint64_t
scree__slot_peek(struct scree__radix_ref ref)
{
    uint64_t word = atomic_load_explicit(scree__radix_word(ref), memory_order_acquire);

    return __builtin_expect(slot_tag(word) == SLOT_BATCH, 0) ? scree__slot_resolved(word) : word;
}

/* The same outside of a read section: what it points at may be gone. */
static inline uint64_t
scree__slot_glance(struct scree__radix_ref ref)
{
    uint64_t word = atomic_load_explicit(scree__radix_word(ref), memory_order_acquire);

    if (__builtin_expect(slot_tag(word) == SLOT_BATCH, 0)) {
        scree__rcu_enter();
        word = scree__slot_peek(ref);
        scree__rcu_leave();
    }
    return word;
}

/* The slot's word, when no batch has hold of it: to be expected by a CAS. Acquire. In a read section, with
   no reservation open. NO_MEMORY. */
static inline int
scree__slot_load(struct scree__context *ctx, struct scree__radix_ref ref, uint64_t *word_out)
{
    *word_out = atomic_load_explicit(scree__radix_word(ref), memory_order_acquire);
    return __builtin_expect(slot_tag(*word_out) == SLOT_BATCH, 0)
               ? scree__slot_help(ctx, ref, word_out)
               : 0;
}

/* chain.c */
#define CHAINS_IN_STEP 16u
/* Bring so many pages' fragments, CHAINS_IN_STEP at most, into the processor's cache. In a read section. */
void scree__pages_prefetch(struct scree__context *ctx, const scree_page_id *id, unsigned n);
/* Heads of nodes only, of the CHAINS_IN_STEP slots from this one on, down to the first one below `since`. */
void scree__slots_prefetch(struct scree__radix_ref from, uint64_t since);
/* What the slot stands for. Positions always; base and fragments if it is all in memory. The chain can be
   retired then (scree__retire_ready). */
int scree__chain_collect(struct scree__context *ctx, struct scree__radix_ref ref, uint64_t word,
                         struct scree__chain *chain);
static inline bool
scree__chain_is_cold(const struct scree__chain *chain)
{
    return chain->terminal == NULL || chain->terminal->kind == NODE_GHOST;
}
/* Version of the page in the slot; reads the side word of an evicted one. False: the slot moved, load it
   again. */
bool scree__slot_version(struct scree__radix_ref ref, uint64_t word, uint64_t *version_out,
                         uint32_t *len_out);
/* The start of the newest record the slot stands for, or of the free. */
uint64_t scree__slot_lsn(uint64_t word);
/* Merge the collected fragments into ctx->out. MERGE, NO_MEMORY. */
int scree__chain_merge(struct scree__context *ctx, scree_page_id id,
                       const struct scree__chain *chain);
/* A BASE node with ctx->out as its payload, standing for all of the chain's records. */
struct scree__node *scree__chain_merged_node(struct scree__context *ctx,
                                             const struct scree__chain *chain);
/* Everything the old word stood for is superseded by the record at lsn. */
void scree__slot_supersede(struct scree__context *ctx, uint64_t word, uint32_t evicted_len,
                           uint64_t lsn);
/* The same but for the memory. */
void scree__slot_charge_dead(struct scree__log *log, uint64_t word, uint32_t evicted_len,
                             uint64_t lsn);
void scree__chain_destroy(struct scree__chain *chain);

/* pagein.c */
void scree__reads_init(scree_cache *cache);
void scree__reads_destroy(scree_cache *cache);
/* Bring the records of a cold slot into memory and install them, unmerged. 0: load the slot again. */
int scree__page_in(struct scree__context *ctx, scree_page_id id, struct scree__radix_ref ref,
                   uint64_t word);
#define SCREE__PAGES_IN_MAX 32u
/* The same for those of n pages that are cold, side by side; in a read section. What cannot be read, or is on
   its way already, is left as it is. */
void scree__pages_in(struct scree__context *ctx, const scree_page_id *ids, size_t n);
void scree__arrivals_free(struct scree__arrivals *all);
/* A private node for a checked record; its payload is as the user gave it. */
int scree__node_from_record(struct scree__context *ctx, const struct scree__record *r,
                            struct scree__node **node_out);

/* prefetch.c */
void scree__prefetch_init(scree_cache *cache);
void scree__prefetch_stop(scree_cache *cache);
void scree__prefetch_destroy(scree_cache *cache);
uint64_t scree__prefetch_left_out(scree_cache *cache);

/* read.c */
int scree__not_guarded(const scree_cache *cache, const char *call);

/* consolidate.c */
/* Write the merged page to the log and install it. 0 also if somebody else moved the page meanwhile. */
int scree__consolidate(struct scree__context *ctx, scree_page_id id);
/* The same for a page of any form, to get it out of the way of cleaning. */
int scree__page_move(struct scree__context *ctx, scree_page_id id);
/*
 * Install node, which is the whole page as of the record at node->lsn, with r as its record; both private
 * until then. *installed_out false: the page is not what it was; the node is discarded. Not in the library's
 * own read section.
 */
int scree__consolidated_install(struct scree__context *ctx, struct scree__radix_ref ref,
                                struct scree__node *node, struct scree__record *r,
                                enum scree__log_class class, bool *installed_out);
/* A page too deep for one more fragment is consolidated first; if that fails, so does the update. */
int scree__depth_bound(struct scree__context *ctx, scree_page_id id, struct scree__radix_ref ref);
/* After an append that made the page `depth` records deep. Not between reserve and complete. */
void scree__consolidate_note(struct scree__context *ctx, scree_page_id id, uint64_t depth);
/* packing.c */
/* Fill r for a page payload, compressing it if that is on and pays; ctx->compressed holds the bytes. */
void scree__record_page(struct scree__context *ctx, struct scree__record *r, uint8_t kind,
                        scree_page_id id, scree_version version, const void *data, size_t len);
/* The same for a record in a batch, whose bytes have to stay: *owned_out, of *owned_len_out bytes, is the
   caller's (NULL: they are `data`). NO_MEMORY. */
int scree__record_page_in_batch(struct scree__context *ctx, struct scree__record *r, uint8_t kind,
                                scree_page_id id, const void *data, size_t len, void **owned_out,
                                size_t *owned_len_out);
/* Reserve a place in the log and fill the record in; the caller completes or aborts. POISONED. */
int scree__record_write(struct scree__context *ctx, struct scree__record *r);
/* Length of the payload as the user gave it. CORRUPT. */
int scree__record_raw_len(const struct scree__record *r, uint32_t *len_out);
/* Those bytes, len of them. CORRUPT. */
int scree__record_unpack(const struct scree__record *r, void *raw, uint32_t len);
/* The version is where the record ends, or its batch; of a CONSOLIDATED where an older one ended. */
static inline bool
scree__record_version_possible(const struct scree__record *r)
{
    return r->version != 0 && r->version % 8 == 0 &&
           (r->version <= r->lsn + r->disk_len || (r->flags & SCREE__RECORD_IN_BATCH) != 0);
}

/* evict.c */
#define SWEEP_CONSOLIDATE_MAX 256u

/* What the clock hand is to do, and has done. */
struct scree__sweep {
    uint64_t wanted; /* bytes to be given up */
    uint64_t
        held_max; /* bytes that pages consolidated in order to leave may take, of all threads */
    uint64_t steps_max; /* of the hand */
    uint64_t depth_max; /* pages of more records are consolidated first; UINT64_MAX: never */
    bool ghosts_too;    /* ghosts are consolidated, to be but a word */
    bool hard;          /* nobody is spared for its heat */
    /* out */
    uint64_t bytes;       /* given up */
    uint64_t steps;       /* done */
    uint64_t young_bytes; /* would have left, were they stable */
    uint64_t ghost_bytes; /* of ghosts met */
    uint64_t share;       /* of the step under way: clock.h */
    bool crowded;         /* more would have been consolidated but for held_max */
    uint64_t held_bytes;  /* of the pages below */
    uint32_t consolidated;
    scree_page_id page[SWEEP_CONSOLIDATE_MAX]; /* to be evicted when their records are stable */
};
/* Overwrites ctx->chain. With depth_max or ghosts_too not in a read section: it admits records. */
void scree__sweep_run(struct scree__context *ctx, struct scree__sweep *sweep);
/* Evict what was consolidated, as far as it is stable by now. */
void scree__sweep_finish(struct scree__context *ctx, struct scree__sweep *sweep);
/* Steps of the hand in a whole turn. */
uint64_t scree__sweep_turn(const scree_cache *cache);

/* pressure.c */
/* Bring resident bytes under the limit; waits for the flusher unless in a guard. Not in the library's own
   read section. */
void scree__memory_admit(struct scree__context *ctx);
/* The same for a reader about to bring something in: only what can leave at once. Overwrites ctx->chain. */
void scree__memory_relieve(struct scree__context *ctx);
/* Let one page leave if it may and was not read lately. Overwrites ctx->chain. */
void scree__page_evict(struct scree__context *ctx, struct scree__radix_ref ref);
int64_t scree__memory_high(const scree_cache *cache); /* above it the evictor works */
int scree__evictor_start(scree_cache *cache);
void scree__evictor_stop(scree_cache *cache);
void scree__evictor_wake(scree_cache *cache);

/* allocate.c */
int scree__root_ensure(scree_cache *cache);
void scree__id_freed(scree_cache *cache, scree_page_id id, uint64_t lsn);
/* An id that is free, and was for a grace period. BUSY, NO_SPACE. */
int scree__id_take(struct scree__context *ctx, scree_page_id *id_out);
void scree__ids_return(struct scree__context *ctx);

/* feed.c */
void scree__feed_init(scree_cache *cache);
void scree__feed_destroy(scree_cache *cache);
/* Recovery: what died below floor may have been given back by those before us. */
void scree__feed_found(scree_cache *cache, uint64_t floor);
/* What died below floor may go, but for the readers; as far as they let it go. F1. */
uint64_t scree__feed_floor(scree_cache *cache, uint64_t floor);
/* The least position that a reader needs; LSN_NONE without readers. */
uint64_t scree__feed_least(scree_cache *cache);
bool scree__feed_is_read(scree_cache *cache);

/* generator.c */
#define SCREE__GENERATED_RANGE_MAX \
    ((uint64_t)65536) /* ids of one record; scree.h promises the gap */
void scree__generator_init(scree_cache *cache);
void scree__generator_destroy(scree_cache *cache);
/* Recovery: ids up to high may have been handed out. */
void scree__generator_found(scree_cache *cache, uint64_t high);
/* What a snapshot is to carry. */
uint64_t scree__generator_high(scree_cache *cache);
/* The rest of the range is given back: the last snapshot carries the last id handed out. Alone. */
void scree__generator_close(scree_cache *cache);

/* checkpoint.c */
int scree__checkpoint(scree_cache *cache, uint64_t *lsn_out);
/* The same, also if nothing changed since the last one. */
int scree__checkpoint_again(scree_cache *cache, uint64_t *lsn_out);
/* The same as the first, as a full file. */
int scree__checkpoint_full(scree_cache *cache, uint64_t *lsn_out);
/* One generation must do, so that what only the older one needs may go. */
int scree__checkpoint_drop_older(scree_cache *cache);
/* m is the manifest that counts from now on. Under checkpoint_mutex, or alone. */
void scree__manifest_set(scree_cache *cache, const struct scree__manifest *m);
/* The same after it was stored, and what nobody needs any more goes. Under checkpoint_mutex. */
int scree__manifest_publish(scree_cache *cache, const struct scree__manifest *m);
/* The replay start of the oldest generation, or of the one pinned: what died below it may go. */
uint64_t scree__checkpoint_floor(scree_cache *cache);
/* The newest generation, its file and all of the log that it needs stay until it is unpinned. All zero if there
   is none: all of the log stays. BUSY: something is pinned. */
int scree__snapshot_pin(scree_cache *cache, struct scree__generation *pin_out);
void scree__snapshot_unpin(scree_cache *cache);
/* Bytes of log that the pin alone keeps from being given back. */
uint64_t scree__checkpoint_pinned_bytes(scree_cache *cache);
/* So much log lies between two snapshots. Bytes. What died within so many of them may still be on disk: two
   generations, and the one being written. */
#define SCREE__VOLUMES_DEAD 3u
uint64_t scree__checkpoint_volume(const scree_cache *cache);
/* Wake the checkpointer if one is due. */
void scree__checkpoint_poke(scree_cache *cache);
int scree__checkpointer_start(scree_cache *cache);
void scree__checkpointer_stop(scree_cache *cache);
/* Hand one record to the recover callback, if it is a user's; state is replaced if it says so. */
int scree__fold_record(const scree_materializer *m, struct scree_out *state,
                       const struct scree__record *r);

/* compact.c */
/* Merge files of the newest generation, if enough of them have piled up. On the checkpointer's thread. */
void scree__compact(scree_cache *cache);

/* clean.c */
struct scree__clean_result {
    uint64_t moved_bytes; /* of records written */
    size_t damaged;       /* records that could not be read */
};
/* Move what lives in the victims (in log order, not overlapping) to the log's end. One thread at a time; not
   in a read section. NO_SPACE, POISONED, NO_MEMORY; CANCELED when *stop. */
int scree__clean(struct scree__context *ctx, const struct scree__log_victim *victims, size_t n,
                 _Atomic uint32_t *stop, struct scree__clean_result *result_out);

/* Room that is held for snapshots; a crash leaves it. */
#define SPARE_NAME "SPARE"

/* space.c */
int scree__janitor_start(scree_cache *cache);
void scree__janitor_stop(scree_cache *cache);
void scree__janitor_wake(scree_cache *cache);
/* Tell the log what else of the directory counts against disk_limit_bytes. */
void scree__space_outside(scree_cache *cache);
/* Hold as much room as the next snapshot and its manifest may need. Best effort. Under clean_mutex, or
   alone. */
void scree__spare_hold(scree_cache *cache);
/* Of room that a crash left held, recovery may have a little; the rest is held on. Alone. */
void scree__spare_adopt(scree_cache *cache);
/* Let go of the room that is held for snapshots. Under clean_mutex, or alone. */
void scree__spare_drop(scree_cache *cache);
void scree__collector_wake(scree_cache *cache);
/* So many dead bytes beside what lives are always left alone. */
static inline uint64_t
scree__space_sparse_allowed(const scree_cache *cache, uint64_t slack)
{
    return scree__max_u64(2 * cache->options.segment_bytes, slack / 2);
}
/* on_room of the log. */
bool scree__space_room(void *cache, bool full);
/* Give back what may go at once; all: also what is hardly worth the call. Not in a read section (then:
   nothing). */
void scree__space_collect(scree_cache *cache, bool all);

/* recover.c */
int scree__recover(scree_cache *cache);

/* options.c */
#define SPACE_AMP_MIN 1.05
#define SPACE_AMP_MAX 100.0
/* Checked, with defaults in place. INVALID, naming the bound. */
int scree__options_normalize(const scree_options *given, scree_options *options_out);

/* backup.c */
#define SCREE__INCOMPLETE_NAME "BACKUP_INCOMPLETE" /* in a directory: it is a half-made copy */

/* cache.c */
#define SCREE__WARNING_NAME "DO_NOT_PUT_YOUR_FILES_HERE"
/* Make the file of that name. */
int scree__directory_mark(const scree_env *env, const char *dir);
void scree__event(scree_cache *cache, int kind, int code, uint64_t lsn, uint64_t bytes,
                  const char *text);
/* GUARD_HELD */
void scree__event_guard(scree_cache *cache, uint64_t bytes, uint64_t age_ms, const char *text);
/* INVALID for NULL, FORKED in a forked child. For calls that need no context. */
int scree__check_cache(const scree_cache *cache, const char *call);
/* What every public call starts with: argument checks and this thread's context. */
int scree__enter_call(scree_cache *cache, struct scree__context **ctx_out);
int scree__check_health(const scree_cache *cache); /* POISONED, with the detail */
/* The code a caller is told: a full disk is NO_SPACE, whatever the system calls it. */
int scree__code_told(int rc);
int scree__check_update(const scree_cache *cache, scree_page_id id, scree_slice payload);

#endif
