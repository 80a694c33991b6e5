/*
 * linear.h - a few calls on a few pages, and whether one order of them explains what they told: small histories
 * of all kinds of calls, searched without a memo. For longer ones see tests/stress.
 */
#ifndef SCREE_TEST_LINEAR_H
#define SCREE_TEST_LINEAR_H

#include "kit.h"

#define LINEAR_PAGES 3u
#define LINEAR_STEPS 4u
#define LINEAR_CALLS 32u

enum linear_kind {
    LINEAR_READ,
    LINEAR_SET,
    LINEAR_MERGE,
    LINEAR_APPEND,
    LINEAR_PUT,
    LINEAR_FREE,
    LINEAR_ALLOCATE, /* at an id of the caller's */
    LINEAR_CHECK,    /* in a batch */
    LINEAR_BATCH
};

struct linear_step {
    enum linear_kind kind;
    uint32_t page;
    uint64_t expected; /* version presented */
    uint64_t token;    /* written */
};

struct linear_call {
    enum linear_kind kind;
    uint32_t thread;
    uint64_t start, end;  /* stamps of one clock */
    uint64_t guard_until; /* READ: when the guard was left that had been entered before; 0: none */
    uint32_t steps;       /* 1, but for a BATCH */
    struct linear_step step[LINEAR_STEPS];
    int code;
    uint64_t version;  /* told */
    uint64_t content;  /* READ: what the tokens come to */
    uint32_t conflict; /* BATCH: the page named; LINEAR_PAGES: none */
};

struct linear_page {
    uint64_t version;     /* 0: never was */
    uint64_t version_max; /* of all so far */
    uint64_t content;     /* tokens_content */
    bool live;
};

struct linear_state {
    struct linear_page page[LINEAR_PAGES];
};

struct linear_history {
    uint32_t n;
    struct linear_call call[LINEAR_CALLS];
};

/*
 * Is there an order of the calls, in keeping with their stamps, in which plain pages that began in `start`
 * would have told the same? And of two updates of which one ended before the other began, is the second one's
 * version the larger?
 */
bool linear_explains(const struct linear_history *h, const struct linear_state *start);
void linear_print(const struct linear_history *h, const struct linear_state *start);
/* The search itself must refuse what is wrong, and only that. */
void linear_check(void);

#endif
