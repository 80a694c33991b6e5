/*
 * history.h - a few pages under random updates, and every state they went through: what the crash tests
 * compare a recovered directory with.
 */
#ifndef SCREE_TEST_HISTORY_H
#define SCREE_TEST_HISTORY_H

#include "kit.h"

#define HISTORY_PAGES 24u
#define HISTORY_STEPS 1200u
#define HISTORY_BYTES 3000u

/* One page in one state. */
struct history_page {
    uint64_t version; /* 0: not live */
    uint64_t hash;
    uint32_t len;
};

/* What a page was between two steps of one batch: no state, but what may be salvaged of a damaged batch. */
struct history_between {
    scree_page_id id; /* also of one that came and went within the batch */
    uint64_t hash;
    uint32_t len;
};

struct history_state {
    struct history_page page[HISTORY_PAGES];
};

/* Make it with history_new: in memory that forked children share. */
struct history {
    uint64_t random;
    uint32_t len_max; /* of an update's bytes, evenly; 0: short ones mostly */
    uint32_t n;       /* states: 0 .. n - 1, state[0] a new directory's */
    uint32_t acked;   /* states up to this one were reported stable */
    uint32_t pages;   /* ids known */
    uint32_t betweens;
    uint64_t version_any; /* the largest version ever told */
    scree_page_id id[HISTORY_PAGES];
    uint32_t len[HISTORY_PAGES];
    unsigned char bytes[HISTORY_PAGES][HISTORY_BYTES];
    struct history_between between[HISTORY_STEPS];
    uint64_t lsn[HISTORY_STEPS]; /* where the update that made this state ends */
    struct history_state state[HISTORY_STEPS];
};

uint64_t history_hash(const void *bytes, size_t len); /* of a page */
struct history *history_new(uint64_t seed);
void history_reset(struct history *h, uint64_t seed);
/* As another one is, with its states only; history_return_to one of them before the next step. */
void history_become(struct history *h, const struct history *other);
/* The root as a new directory has it becomes state 0. */
void history_begin(struct history *h, scree_cache *cache);
/* One random update. The call's result; only success adds a state. */
int history_step(struct history *h, scree_cache *cache);
/* One random batch of several steps; as history_step. One that writes nothing adds no state. */
int history_batch(struct history *h, scree_cache *cache);
/* scree_flush; success acknowledges all states so far. */
int history_flush(struct history *h, scree_cache *cache);
/* What scree_stable_lsn() covers is acknowledged. */
void history_acknowledge(struct history *h, uint64_t stable);

/* What a cache holds now; pages that read as CORRUPT or an I/O error are marked. */
struct history_seen {
    struct history_state state;
    bool failed[HISTORY_PAGES];
    uint32_t failures;
    int strangers; /* pages that are on no list, or with bytes nobody wrote */
};
/* 0, or the error of scree_page_next. Pages that fail must do so with a detail. */
int history_look(const struct history *h, scree_cache *cache, struct history_seen *seen_out);
/* Does it look as that state? A failed page matches a live one. */
bool history_matches(const struct history *h, const struct history_seen *seen, uint32_t at);
/* Was it so between two steps of a batch? */
bool history_between(const struct history *h, scree_page_id id, const void *bytes, size_t len);
/* Was there such a page between two steps of a batch? */
bool history_fleeting(const struct history *h, scree_page_id id);
/* The newest state from .. n - 1 that looks so; -1: none. A failed page matches a live one. */
int history_find(const struct history *h, const struct history_seen *seen, uint32_t from);
/* Go on from that state: later ones never were. */
void history_return_to(struct history *h, uint32_t at, scree_cache *cache);
uint64_t history_seen_hash(const struct history_seen *seen);

#endif
