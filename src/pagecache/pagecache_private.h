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
    NODE_GHOST = 4  /* an evicted page of several records: only where they lie */
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
#define RETIRE_BATCH_BYTES ((uint64_t)256 << 10)

/* Nodes unlinked by one thread, on their way through a grace period and home. */
struct scree__retired {
    struct scree__retired *next;
    struct scree__context *owner;
    uint64_t bytes;
    uint32_t n;
    uintptr_t node[RETIRE_BATCH]; /* address | size class << 48 */
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
    COUNT_CONFLICTS,
    COUNT_CONSOLIDATIONS,
    COUNT_EVICTIONS,
    COUNT_USER_BYTES,
    COUNT_OVER_MEMORY,
    COUNT_RETRIES,
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
#define ID_CACHE 32

struct scree__context {
    scree_cache *cache;
    struct scree__context *next;  /* all contexts of the cache; set once before publish */
    _Atomic uint32_t in_use;      /* taken by a thread; protocol in context.c */
    _Atomic uint32_t guard_depth; /* written by the owner, read by close */
    struct scree__log_writer *writer;
    int64_t charge_pending; /* owner only: not yet added to cache->resident_bytes */
    uint32_t sample;        /* owner only */
    uint32_t consolidate_n;
    scree_page_id consolidate[CONSOLIDATE_LIST];
    uint32_t id_n;
    scree_page_id id[ID_CACHE];
    struct scree__retired *retired; /* being filled; owner only */
    struct scree__retired *home;    /* taken from `returned`, not yet sorted; owner only */
    _Atomic(struct scree__retired *)
        returned; /* through their grace period; pushed by the reclaimer */
    _Atomic uint64_t returned_bytes;
    uintptr_t *free_node[NODE_CLASSES]; /* arrays of NODE_LIST_CAP; owner only */
    uint32_t free_n[NODE_CLASSES];
    struct scree__chain chain;
    struct scree_out out;
    void *compressed;
    size_t compressed_cap;
    void *compressor;                 /* ZSTD_CCtx */
    _Atomic uint64_t count[COUNTERS]; /* owner adds with relaxed load and store */
    struct scree__histogram phase[PHASES];
};

/* ---- the cache ------------------------------------------------------------------------------- */

struct scree_cache {
    uint64_t serial; /* unique in this process, never reused: a stale thread-local cannot match */
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

    /* memory (fragment.c, evict.c) */
    uint64_t charge_step; /* a context's pending charge is passed on beyond it */
    _Atomic int64_t resident_bytes;
    _Atomic uint64_t retired_bytes;
    _Atomic(struct scree__retired *)
        retired;           /* pushed by any thread, taken whole by the reclaimer */
    _Atomic uint64_t hand; /* of the clock: next page id to look at */
    _Atomic uint32_t hand_busy;
    _Atomic uint32_t reclaim_asked;  /* futex of the reclaimer */
    _Atomic uint32_t reclaim_asleep; /* R8, R9 of reclaim.c */
    _Atomic uint32_t reclaim_done;   /* futex of those who wait for a grace period */
    pthread_t reclaimer;
    _Atomic uint32_t reclaim_stop; /* set once by close, read with acquire by the reclaimer */

    /* ids (allocate.c) */
    pthread_mutex_t id_mutex;
    uint64_t id_high;            /* under id_mutex: the highest handed out in sequence */
    uint64_t id_gap, id_gap_end; /* under id_mutex: recovered ids still to be looked at for gaps */
    struct scree__freed_id *freed; /* under id_mutex: a ring, oldest first */
    size_t freed_head, freed_n, freed_cap;
    _Atomic uint64_t cooled_lsn; /* frees below it have had their grace period */

    /* snapshots (checkpoint.c) */
    pthread_mutex_t checkpoint_mutex; /* never held over a grace period */
    pthread_mutex_t collect_mutex;    /* held over one: never taken in a read section */
    _Atomic uint32_t
        pressure; /* the log found no room; set by anybody, taken by the checkpointer */
    struct scree__manifest manifest; /* under checkpoint_mutex */
    uint64_t snapshot_number;        /* under checkpoint_mutex: the newest file's */
    uint64_t
        checkpointed_end; /* under checkpoint_mutex: the log's end when the newest was published */
    _Atomic uint64_t checkpoint_lsn;   /* the newest S */
    _Atomic uint64_t checkpoint_bytes; /* the newest file's size */
    struct scree_out fold;             /* under checkpoint_mutex: recovery state up to fold_lsn */
    uint64_t fold_lsn;                 /* under checkpoint_mutex */
    bool fell_back;                    /* an older generation was loaded; set before open returns */
    pthread_t checkpointer;
    _Atomic uint32_t checkpoint_asked; /* futex of the checkpointer */
    _Atomic uint32_t checkpoint_stop; /* set once by close, read with acquire by the checkpointer */
    _Atomic uint64_t snapshots;
    struct scree__histogram snapshot_ns; /* under checkpoint_mutex for writing */
    _Atomic uint64_t snapshot_bytes;

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

/* context.c */
struct scree__context *scree__context_slow(scree_cache *cache);
void scree__context_publish_cache(scree_cache *cache);
int scree__context_guards_check(scree_cache *cache); /* BUSY if a guard is open in any thread */
/* No thread finds it any more; contexts of ending threads are not given back to it. */
void scree__context_retire_cache(scree_cache *cache);
void scree__context_destroy_all(scree_cache *cache);
extern _Thread_local struct scree__context_last {
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
    return atomic_load_explicit(&ctx->guard_depth, memory_order_relaxed) > 0;
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
/* Unlinked in this read section: freed after a grace period. */
void scree__node_retire(struct scree__context *ctx, struct scree__node *node);
/* The nodes from head on, up to and without `stop`. */
void scree__chain_retire(struct scree__context *ctx, struct scree__node *head,
                         struct scree__node *stop);
void scree__retired_hand_over(struct scree__context *ctx);
/* A batch that had its grace period: home to its owner. For the reclaimer. */
void scree__retired_return(scree_cache *cache, struct scree__retired *batch);
void scree__charge(struct scree__context *ctx, int64_t bytes);
void scree__charge_pass_on(struct scree__context *ctx);
void scree__nodes_drain(struct scree__context *ctx); /* free lists, at the end of a context */
void scree__nodes_destroy(scree_cache *cache);       /* every node in the table; nobody inside */
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

/* chain.c */
/* What the slot stands for. Positions always; base and fragments if it is all in memory. */
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
void scree__chain_destroy(struct scree__chain *chain);

/* pagein.c */
/* Bring the records of a cold slot into memory and install them, unmerged. 0: load the slot again. */
int scree__page_in(struct scree__context *ctx, scree_page_id id, struct scree__radix_ref ref,
                   uint64_t word);

/* consolidate.c */
/* Write the merged page to the log and install it. 0 also if somebody else moved the page meanwhile. */
int scree__consolidate(struct scree__context *ctx, scree_page_id id);
/* After an append that made the page `depth` records deep. Not between reserve and complete. */
void scree__consolidate_note(struct scree__context *ctx, scree_page_id id, uint64_t depth);
/* packing.c */
/* Fill r for a page payload, compressing it if that is on and pays; ctx->compressed holds the bytes. */
void scree__record_page(struct scree__context *ctx, struct scree__record *r, uint8_t kind,
                        scree_page_id id, scree_version version, const void *data, size_t len);
/* Reserve a place in the log and fill the record in; the caller completes or aborts. POISONED. */
int scree__record_write(struct scree__context *ctx, struct scree__record *r);
/* Length of the payload as the user gave it. CORRUPT. */
int scree__record_raw_len(const struct scree__record *r, uint32_t *len_out);
/* Those bytes, len of them. CORRUPT. */
int scree__record_unpack(const struct scree__record *r, void *raw, uint32_t len);

/* evict.c */
/* Bring resident bytes under the limit; waits for the flusher unless in a guard. Not in the library's own
   read section. */
void scree__memory_admit(struct scree__context *ctx);
/* The same for a reader about to bring something in: only what can leave at once. Overwrites ctx->chain. */
void scree__memory_relieve(struct scree__context *ctx);

/* allocate.c */
int scree__root_ensure(scree_cache *cache);
void scree__id_freed(scree_cache *cache, scree_page_id id, uint64_t lsn);
void scree__ids_return(struct scree__context *ctx);

/* checkpoint.c */
int scree__checkpoint(scree_cache *cache, uint64_t *lsn_out);
int scree__checkpointer_start(scree_cache *cache);
void scree__checkpointer_stop(scree_cache *cache);
/* Hand one record to the recover callback, if it is a user's; cache->fold is the state. */
int scree__fold_record(scree_cache *cache, const struct scree__record *r);
void scree__space_collect(scree_cache *cache);

/* recover.c */
int scree__recover(scree_cache *cache);

/* options.c */
/* Checked, with defaults in place. INVALID, naming the bound. */
int scree__options_normalize(const scree_options *given, scree_options *options_out);

/* cache.c */
void scree__event(scree_cache *cache, int kind, int code, uint64_t lsn, uint64_t bytes,
                  const char *text);
/* What every public call starts with: argument checks and this thread's context. */
int scree__enter_call(scree_cache *cache, struct scree__context **ctx_out);
int scree__check_health(const scree_cache *cache); /* POISONED, with the detail */
int scree__check_update(const scree_cache *cache, scree_page_id id, scree_slice payload);

#endif
