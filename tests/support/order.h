/*
 * order.h - checks histories of calls on pages in about linear time: is there one order of all of them, in
 * keeping with real time, in which plain pages would have given the very results that were seen (P2, P4)?
 *
 * Wing and Gong's search (tokens.h) has to guess that order. Here most of it is told: a page's versions grow
 * along it, so the updates of a page, and between which two of them each call lies that was told a version, are
 * known. What is left is whether points in time can be found, one in each call, that follow the orders of all
 * pages: the earliest ones are found by going along them, and where one comes after its call's end there are
 * none. Nothing is weaker than the search: either finds an order if and only if there is one in which versions
 * grow page by page.
 *
 * Calls that tell no version (NOT_FOUND, BUSY, a batch's CONFLICT) leave open between which updates they lie:
 * each is put behind the last update that is early enough and leaves the page as the answer says. That is the
 * place where it holds up the least; if it holds up something all the same, all is done again until nothing
 * moves.
 */
#ifndef SCREE_TEST_ORDER_H
#define SCREE_TEST_ORDER_H

#include "kit.h"

#define ORDER_PAGES 4u /* a history is about so many */
#define ORDER_STEPS 4u
#define ORDER_THREADS 16u

enum order_kind {
    ORDER_READ,
    ORDER_SET,
    ORDER_MERGE,
    ORDER_APPEND,
    ORDER_PUT,
    ORDER_FREE,
    ORDER_ALLOCATE,
    ORDER_CHECK, /* in batches only */
    ORDER_BATCH,
    ORDER_KINDS
};

struct order_step {
    uint64_t expected;
    uint64_t token; /* written */
    uint8_t kind;   /* enum order_kind: SET, MERGE, FREE, ALLOCATE, CHECK */
    uint8_t page;
};

struct order_call {
    uint64_t start, end; /* stamps of one clock */
    uint64_t version;    /* told; 0: none */
    uint64_t expected;   /* version presented */
    uint64_t
        value; /* token written, or hash of the tokens read; of a batch: index of its first step */
    int32_t code;
    uint8_t kind; /* enum order_kind */
    uint8_t page; /* of a batch: the page that conflict named */
    uint8_t steps;
};

/* One thread's calls, in the order in which it made them. */
struct order_calls {
    const struct order_call *call;
    uint32_t n;
    const struct order_step *step;
};

/* A page, as far as calls can tell. */
struct order_page {
    uint64_t version; /* of its newest update, also of a free */
    uint64_t content; /* tokens_add of all its tokens */
    uint64_t live;    /* 0 or 1 */
};
struct order_state {
    struct order_page page[ORDER_PAGES];
};

/* Memory of one checking thread, reused. */
struct order_checker;
struct order_checker *order_checker_new(uint32_t calls_max); /* all threads together */
void order_checker_delete(struct order_checker *k);
/* NULL, and the state after all calls; or, in words, why there is no such order. No call of this history may
   have been under way when the one before it ended. */
const char *order_check(struct order_checker *k, const struct order_calls *calls, uint32_t threads,
                        struct order_state *state_io);
/* The call that was wrong. */
const struct order_call *order_wrong(const struct order_checker *k);
/* Updates on whatever pages: of two of which one ended before the other began the second one's version is
   larger. NULL, or why not. */
const char *order_check_versions(const struct order_calls *calls, uint32_t threads, char why[256]);

/* The same question for the search: would pages in this state have answered so? Then they are in the state
   after. */
bool order_apply(const struct order_call *call, const struct order_step *step,
                 struct order_state *state);
/* A random history of a few calls of 3 threads, with answers that are right, or with one thing changed: what
   order_check says of it is what the search says, or the run ends. True: it was accepted. */
bool order_check_itself(struct order_checker *k, uint64_t *random);
void order_print(const struct order_calls *calls, uint32_t threads, uint64_t from, uint64_t to);

#endif
