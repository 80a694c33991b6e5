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

/* Wing and Gong's search, of one thread: a new one begins. */
void tokens_search_begin(void);
/* Were the calls of this set placed before, with this state after them? Remembers it. A full neighbourhood
   forgets: only time is lost. */
bool tokens_search_seen(uint64_t placed, uint64_t state);

#endif
