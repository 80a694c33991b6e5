/*
 * churn.h - many pages under a long stream of updates by one thread, and the list of these updates: what
 * the space tests compare a directory with.
 *
 * Every update has a number, 1 for the first. A page's bytes are chunks, one for its base and one for each
 * fragment; a chunk names its update, its slot (a page's place on the books), and the epoch it was made in,
 * and carries a checksum. So a recovered directory tells by itself which updates it holds, and the list
 * tells whether these are a prefix.
 */
#ifndef SCREE_TEST_CHURN_H
#define SCREE_TEST_CHURN_H

#include "kit.h"

#define CHURN_SLOTS_MAX 32768u
#define CHURN_OPS_MAX (4u << 20)
#define CHURN_PAGE_MAX (160u * 1024)

enum churn_kind { CHURN_BASE = 1, CHURN_APPEND, CHURN_FREE };

struct churn_op {
    uint64_t id;
    uint32_t slot;
    uint32_t before; /* the slot's update before it, 0: none */
    uint32_t len;    /* of its chunk; 0: a free */
    uint16_t epoch;
    uint16_t kind; /* enum churn_kind */
};

/* In every chunk, in front of its bytes. */
struct churn_chunk {
    uint32_t op;
    uint32_t slot;
    uint32_t epoch;
    uint32_t len; /* with this head */
    uint64_t check;
};

/* Weights of what happens to a live page; a slot without a page is given one. */
struct churn_mix {
    uint32_t put, append, free;
};

/* Make it with churn_new: in memory that forked children share. */
struct churn {
    uint64_t random;
    uint32_t slots;
    uint32_t len_min, len_max; /* of a base */
    uint32_t append_max;       /* of a fragment */
    uint32_t page_max;         /* no page grows beyond */
    uint16_t epoch;            /* one more after each recovery */
    _Atomic uint32_t begun;    /* updates that may be there: done, or one more */
    _Atomic uint32_t done;     /* that returned success */
    _Atomic uint32_t acked;    /* that were reported stable */
    uint64_t bytes;            /* of chunks accepted */
    uint32_t head[CHURN_SLOTS_MAX];
    struct churn_op op[CHURN_OPS_MAX + 1];
};

struct churn *churn_new(uint64_t seed, uint32_t slots, uint32_t len_min, uint32_t len_max);
void churn_delete(struct churn *c);
void churn_reset(struct churn *c, uint64_t seed);

/* One update. The call's result; after an error nothing is on the books. */
int churn_put(struct churn *c, scree_cache *cache, uint32_t slot); /* allocates if need be */
int churn_append(struct churn *c, scree_cache *cache, uint32_t slot);
int churn_free(struct churn *c, scree_cache *cache, uint32_t slot);
int churn_step(struct churn *c, scree_cache *cache, const struct churn_mix *mix);
/* scree_flush; success acknowledges all updates so far. */
int churn_flush(struct churn *c, scree_cache *cache);

uint32_t churn_done(const struct churn *c);
uint32_t churn_acked(const struct churn *c);
bool churn_is_live(const struct churn *c, uint32_t slot);
uint32_t churn_live(const struct churn *c); /* pages */
uint64_t churn_live_bytes(const struct churn *c);
/* Read one live slot's page. The call's result; on success the bytes are right, or the run ends. */
int churn_read(const struct churn *c, scree_cache *cache, uint32_t slot);
/* Every page is there and right, and no other. */
void churn_check(const struct churn *c, scree_cache *cache);

/* For tests of their own: a chunk of len bytes, head included. op: its lowest byte is not 0xFF. */
void churn_chunk_make(unsigned char *bytes, uint32_t op, uint32_t slot, uint32_t epoch,
                      uint32_t len);
/* The page's bytes are whole chunks with right sums, all of this slot. At least one. */
bool churn_page_is_whole(const void *page, size_t len, uint32_t slot);

/* After a crash: which prefix of the updates this is, at least `from`; ends the run if it is none. */
struct churn_found {
    uint32_t n; /* the prefix: updates 1 .. n */
    uint32_t head[CHURN_SLOTS_MAX];
    uint64_t id[CHURN_SLOTS_MAX]; /* 0: free */
};
void churn_find(const struct churn *c, scree_cache *cache, uint32_t from,
                struct churn_found *found_out);
/* Go on from there: later updates never were. */
void churn_return_to(struct churn *c, const struct churn_found *found);

#endif
