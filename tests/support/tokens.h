/*
 * tokens.h - what the linearizability tests share: pages that are rows of tokens, delays, and the memo of a
 * search for an order that explains a history.
 */
#ifndef SCREE_TEST_TOKENS_H
#define SCREE_TEST_TOKENS_H

#include "kit.h"

/* One clock for all threads. */
uint64_t tokens_now_ns(void);
/* Now and then, long enough for others to come between. */
void tokens_delay(uint64_t draw);
/* kit_concat, with delays in it: inside the calls that merge. */
extern const scree_materializer tokens_materializer;

uint64_t tokens_draw(uint64_t *random);
/* What a page's content is known by, after one more token; 0: empty. */
uint64_t tokens_add(uint64_t content, uint64_t token);
uint64_t tokens_content(const unsigned char *bytes, size_t len);

#define TOKENS_CALLS_MAX 64u /* a bit each */

/* A history for Wing and Gong's search: is there an order of its calls, in keeping with real time, in which
   each of them is answered as it was? */
struct tokens_history {
    uint32_t n; /* calls, at most TOKENS_CALLS_MAX */
    uint64_t start[TOKENS_CALLS_MAX], end[TOKENS_CALLS_MAX];
    size_t state_bytes; /* no padding: states are compared byte by byte */
    /* Would things in this state have answered call i so? Then they are in the state after. */
    bool (*apply)(const void *ctx, uint32_t i, void *state);
    const void *ctx;
};
#define TOKENS_STATE_MAX 128u
/* By one thread at a time. With a memo over (calls placed, state). */
bool tokens_search(const struct tokens_history *h, const void *start);
/* States visited by all searches. */
uint64_t tokens_search_visited(void);

#endif
