/*
 * stress.h - crash stress: what the parent, the worker it kills and the children that look share.
 *
 *   stress.c          options, the parent's loop, progress, table
 *   stress_page.c     what a page holds, the merge callback, the model of one page
 *   stress_worker.c   the process that is killed: threads that work and journal
 *   stress_look.c     short-lived processes: create the directory, look at what was recovered
 *   stress_verify.c   the parent's judgement: journal against what was recovered
 *
 * ROLES    The parent calls nothing of the library, so that no fault of it can take the judge down. It
 *          owns the memory below (MAP_SHARED, made before any fork: it outlives kill -9 of a child).
 * JOURNAL  Each thread's own array. Before a call: the entry [n] is filled, then its state is INTENT.
 *          After it: version, then n + 1 (done), or state IDLE (refused: the entry is used again). A kill
 *          leaves at most one call a thread of which only the intent is known.
 * EDGES    state INTENT, store release -> parent: it reads after waitpid, which orders everything; the
 *          release only keeps the compiler and CPU from moving the call above it. n: the same.
 *          acked_lsn: raised by CAS, release, after the library reported it stable.
 * PAGES    private ones belong to one thread, which knows exactly what each holds; ledgers are
 *          shared: counters are updated with an expected version, the others appended to blindly.
 */
#ifndef SCREE_STRESS_H
#define SCREE_STRESS_H

#include "tool.h"

#include "base/histogram.h"

#include <limits.h>
#include <stdatomic.h>

#define STRESS_THREADS_MAX 64u
#define STRESS_SLOTS 384u         /* private pages a thread may have at a time */
#define STRESS_COUNTERS 12u       /* ledgers [0, COUNTERS): read, then set or merge if unchanged */
#define STRESS_LEDGERS 24u        /* the rest: blind appends */
#define STRESS_OPS_MAX (1u << 22) /* journal entries of all threads: 192 MiB if all are used */
#define STRESS_PAGE_MAX (32u << 10)
#define STRESS_TEXTS 24u
#define STRESS_TEXT_BYTES 320u

enum stress_kind {
    STRESS_ALLOCATE,
    STRESS_SET,
    STRESS_MERGE,
    STRESS_APPEND,
    STRESS_FREE,
    STRESS_LEDGER_SET, /* from here: on a ledger */
    STRESS_LEDGER_MERGE,
    STRESS_LEDGER_APPEND,
    STRESS_GET, /* from here: not journaled */
    STRESS_SYNC,
    STRESS_SNAPSHOT,
    STRESS_KINDS
};
extern const char *const stress_kind_names[STRESS_KINDS];

enum stress_op_state { STRESS_IDLE = 0, STRESS_INTENT = 1 };

/* One update in a thread's journal; fields: owner thread only, the parent after its death. */
struct stress_op {
    uint64_t page;
    uint64_t version;  /* what the call returned */
    uint64_t expected; /* the version it named; 0: none */
    uint64_t
        seq; /* private: the page's count after it, or the number of the allocation; ledger: the
                          thread's own count on it after it */
    uint32_t target; /* slot or ledger */
    uint8_t kind;
    _Atomic uint8_t state; /* enum stress_op_state, see JOURNAL */
};

/* What a private page is known to be. id 0: not there. */
struct stress_slot {
    uint64_t id, version, tag;
    uint64_t count;       /* updates since its allocation, that included */
    uint64_t digest;      /* of all of them, in order */
    uint64_t set_seed;    /* what its filler is made of: drawn by the last allocate or set */
    uint32_t allocations; /* of this slot: no tag is used twice */
};

struct stress_ledger {
    uint64_t id, version, count, digest;
};

struct stress_thread {
    /* Model as last verified (parent, between workers), from which the journal goes on. */
    struct stress_slot slots[STRESS_SLOTS];
    uint64_t ledger_seq[STRESS_LEDGERS];
    struct stress_op *journal;            /* same address in parent and children */
    _Alignas(128) _Atomic uint64_t n;     /* see JOURNAL */
    _Atomic uint64_t calls[STRESS_KINDS]; /* owner thread adds, relaxed: figures */
    _Atomic uint64_t conflicts, refusals;
    struct scree__histogram latency[STRESS_KINDS];
};

/* ---- page content (stress_page.c) ---- */

struct stress_head {
    uint64_t magic;
    uint64_t tag;
    uint64_t id; /* 0 until the first merge: an allocation does not know it yet */
    uint64_t count, digest, set_seed;
    uint64_t fault;        /* first fragment that came out of order: writer << 48 | seq; 0: none */
    uint32_t filler_bytes; /* behind the writers */
    uint32_t writers;
    uint64_t sum; /* over head (this 0) and writers */
};
struct stress_writer {
    uint64_t seq;     /* updates by this writer */
    uint64_t ordinal; /* the page's count at its last one */
};

#define STRESS_TAG_LEDGER (UINT64_C(1) << 63)

static inline uint64_t
stress_tag(unsigned thread, uint32_t slot, uint32_t allocation)
{
    return (uint64_t)thread << 48 | (uint64_t)slot << 32 | allocation;
}

/* ---- what a look at the recovered directory found (stress_look.c) ---- */

enum stress_problem {
    STRESS_FINE = 0,
    STRESS_UNREADABLE, /* found.code tells why */
    STRESS_BAD_PAGE    /* does not check out by itself */
};

struct stress_found {
    uint64_t id, version;
    struct stress_head head;
    int32_t problem, code;
};

struct stress_look {
    uint32_t complete; /* 1: came to its end */
    uint32_t root_fine;
    uint64_t n;
    struct stress_found *found; /* [found_max] */
    struct stress_writer writers[STRESS_LEDGERS][STRESS_THREADS_MAX];
    uint64_t clean, records, torn_bytes, open_us;
};

struct stress_shared {
    uint32_t threads;
    uint32_t epoch; /* number of this worker; part of everything it writes */
    uint64_t seed;
    uint64_t journal_cap; /* entries of a thread */
    uint64_t found_max;
    uint64_t version_floor; /* no version up to it may come again */
    char dir[PATH_MAX];
    struct stress_ledger ledgers[STRESS_LEDGERS]; /* as last verified */
    struct stress_look looks[2];
    _Atomic uint32_t stop;         /* parent: come to an end */
    _Atomic uint32_t journal_full; /* worker: cannot go on without a check */
    _Atomic uint64_t acked_lsn;    /* the library said: stable up to here */
    /* Worker's main thread, every 100 ms; figures only. */
    _Atomic uint64_t resident_bytes, lag_bytes, resident_max, lag_max;
    _Atomic uint64_t evictions, consolidations, snapshots, cleaned_bytes, misses;
    _Atomic uint32_t wrongs; /* all processes; the first ones in words: */
    char texts[STRESS_TEXTS][STRESS_TEXT_BYTES];
    struct stress_thread thread[];
};

/* Something is lost or wrong: count it, keep the words of the first ones. Any process. */
__attribute__((format(printf, 2, 3))) void stress_wrong(struct stress_shared *s, const char *format,
                                                        ...);

/* ---- stress_page.c ---- */

void stress_materializer(scree_materializer *m);
void stress_open_options(const struct stress_shared *s, const scree_materializer *m,
                         scree_options *options_out);
uint64_t stress_fold(uint64_t digest, uint32_t writer, uint64_t seq, uint32_t epoch);
/* What op does to a private page; returns what it was before. op->page must be set. */
struct stress_slot stress_slot_apply(struct stress_slot *slot, const struct stress_op *op,
                                     unsigned thread, uint32_t epoch);
/* The whole page a slot stands for, into buf[STRESS_PAGE_MAX]; its length. */
size_t stress_slot_page(const struct stress_slot *slot, void *buf);
/* An empty ledger. */
size_t stress_ledger_page(uint32_t ledger, uint32_t writers, void *buf);
/* Add one entry to a ledger's page in place, as its fragment would. */
void stress_page_add(void *page, scree_page_id id, uint32_t writer, uint64_t seq, uint32_t epoch);
/* A fragment for that entry, into buf[STRESS_PAGE_MAX]; its length. */
size_t stress_fragment(scree_page_id id, uint32_t writer, uint64_t seq, uint32_t epoch, void *buf);
/* Whether page is whole by itself and belongs to id. */
bool stress_page_check(scree_slice page, scree_page_id id);
/* Whether head is the page a slot stands for. */
bool stress_slot_matches(const struct stress_slot *slot, const struct stress_head *head);

/* ---- the others ---- */

void stress_worker(struct stress_shared *s); /* in the worker; ends the process */
void stress_create(struct stress_shared *s); /* in a child; ends the process */
/* In a child: open, look, then close or just end. Ends the process. */
void stress_look(struct stress_shared *s, struct stress_look *look, bool close);

struct stress_verdict {
    uint64_t acked;   /* updates reported durable by the library */
    uint64_t kept;    /* updates recovered */
    uint64_t unacked; /* updates that were not reported durable, and are gone: allowed */
    uint64_t lost;    /* pages that lack an update they must have */
};
/* Judge both looks after a worker's end, then make what was recovered the model to go on from. clean:
   the worker closed the cache, so everything has to be there. False: out of memory. */
bool stress_verify(struct stress_shared *s, bool clean, struct stress_verdict *verdict_out);

#endif
