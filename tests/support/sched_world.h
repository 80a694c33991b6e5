/*
 * sched_world.h - one open cache in which a crew (sched.h) runs one short scenario after the other: pages in
 * known forms before, calls noted, everything that must hold checked after. On a disk in memory.
 */
#ifndef SCREE_TEST_SCHED_WORLD_H
#define SCREE_TEST_SCHED_WORLD_H

#include "linear.h"
#include "sched.h"

#define WORLD_CREW 4u
#define WORLD_CALLS 6u /* of one thread */

/* What a page is when a scenario begins. */
enum world_form {
    WORLD_BASE,    /* one record, in memory, not stable */
    WORLD_STABLE,  /* the same, stable: it may leave */
    WORLD_CHAIN,   /* two fragments on it, stable */
    WORLD_EVICTED, /* one record, not in memory */
    WORLD_GHOST,   /* three records, not in memory */
    WORLD_DELTA,   /* a fragment in memory on a record that is not */
    WORLD_FREE     /* never used in this life, or free for a grace period */
};

/* What lies in the log behind the pages' records, when a scenario begins. */
struct world_log {
    uint64_t
        fill_bytes; /* whole granules, dead but for their last record, which is the last page's */
    uint64_t unsynced_bytes; /* as much, that was not written yet */
    bool snapshot;           /* a full snapshot is there, so that the next one is a delta */
};

struct world {
    scree_cache *cache;
    struct sim_disk *disk;
    scree_env env;
    uint64_t random;
    scree_page_id page[LINEAR_PAGES];
    struct scree__context *context[WORLD_CREW];
    unsigned crew;
    enum world_form form[LINEAR_PAGES];
    struct linear_state start; /* of the scenario */
    struct linear_state last;  /* after it */
    uint64_t segment_bytes;
    struct world_log before;
    uint64_t prepare_lsn, begin_lsn;
    struct linear_history history;
    struct linear_call call[WORLD_CREW][WORLD_CALLS];
    uint32_t calls[WORLD_CREW];
    uint64_t runs;
};

/* Under sched_begin(NULL). Sized for `crew` threads. */
struct world *world_open(uint64_t seed, unsigned crew, uint64_t segment_bytes);
/* What is durable recovers to the pages as they are, and verifies; then all is gone. */
void world_close(struct world *w);
/* The same check, of a copy of the disk as it is: a crash now. */
void world_recover(struct world *w);

/* Bring the pages into their forms, and everything else to where it always is when a scenario begins. */
void world_prepare(struct world *w, const enum world_form form[LINEAR_PAGES],
                   const struct world_log *before);
/*
 * After a run, with seed and path in kit_context:
 *   an order of the calls explains what they told (linear.h), what is read now being the last of them;
 *   the records that were written, in log order, make the same of the pages;
 *   no memory is lost: all that was charged is in pages when what was retired has come home.
 */
void world_check(struct world *w);

/* Are these of the library's threads scheduled with the crew? */
void world_draft(struct world *w, bool reclaimer, bool flusher);

/* ---- what members of the crew do ---- */
/* Begin to note a call. Version presented: that of the page at the start, unless `step.expected` is set. */
struct linear_call *world_call(struct world *w, unsigned thread, enum linear_kind kind,
                               uint32_t page);
/* One call on one page, noted. */
struct linear_call *world_do(struct world *w, unsigned thread, enum linear_kind kind, uint32_t page,
                             uint64_t expected);
/* The same in a guard that stays open for a while: borrowed bytes do not change. */
void world_get(struct world *w, unsigned thread, uint32_t page);
void world_get_together(struct world *w, unsigned thread, uint32_t page); /* by scree_pages_get */
/* The steps as one batch. */
struct linear_call *world_batch(struct world *w, unsigned thread, const struct linear_step *step,
                                uint32_t steps);
void world_evict(struct world *w, uint32_t page);
void world_consolidate(struct world *w, uint32_t page);
void world_move(struct world *w, uint32_t page);
/* At least one grace period passes, and what was retired by this thread before goes home. */
void world_grace(struct world *w);
void world_snapshot(struct world *w);
/* What died below both snapshots goes. */
void world_collect(struct world *w);
/* All that was accepted is stable; and what is said to be stable is on the disk, synced. */
void world_flush(struct world *w);
void world_stable_check(struct world *w);

#endif
