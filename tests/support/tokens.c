/*
 * tokens.c - see tokens.h.
 */
#include "tokens.h"

#include <sched.h>
#include <string.h>
#include <time.h>

#define MEMO_SIZE (1u << 18)

uint64_t
tokens_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void
tokens_delay(uint64_t draw)
{
    if (draw % 16 == 0) {
        struct timespec pause = {.tv_nsec = (long)(draw / 16 % 20000)};

        nanosleep(&pause, NULL);
    } else if (draw % 16 < 6) {
        sched_yield();
    }
}

static int
slow_merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
           scree_out *out)
{
    tokens_delay(tokens_now_ns() / 16);
    return kit_concat.merge(ctx, id, base, frags, n, out);
}

const scree_materializer tokens_materializer = {
    .size = sizeof tokens_materializer, .name = "tokens", .version = 1, .merge = slow_merge};

/* The first byte is never KIT_UNMERGEABLE. */
uint64_t
tokens_draw(uint64_t *random)
{
    return kit_random(random) & 0x7F7F7F7F7F7F7F7Fu;
}

uint64_t
tokens_add(uint64_t content, uint64_t token)
{
    return kit_hash(&token, sizeof(token), content + 1);
}

uint64_t
tokens_content(const unsigned char *bytes, size_t len)
{
    uint64_t content = 0;

    KIT_CHECK(len % 8 == 0, "a page of %zu bytes", len);
    for (size_t i = 0; i < len; i += 8) {
        uint64_t token;

        memcpy(&token, bytes + i, sizeof(token));
        content = tokens_add(content, token);
    }
    return content;
}

static struct {
    uint64_t placed;
    uint64_t state;
    uint64_t search; /* number of the search it belongs to */
} memo[MEMO_SIZE];
static uint64_t searches;

static uint64_t visited;

uint64_t
tokens_search_visited(void)
{
    return visited;
}

/* Were the calls of this set placed before, with this state after them? Remembers it. A full neighbourhood
   forgets: only time is lost. */
static bool
search_seen(uint64_t placed, uint64_t state)
{
    uint64_t at = kit_hash(&placed, sizeof(placed), state);

    for (uint64_t i = 0; i < 16; i++) {
        uint64_t place = (at + i) % MEMO_SIZE;

        if (memo[place].search == searches && memo[place].placed == placed &&
            memo[place].state == state)
            return true;
        if (memo[place].search != searches) {
            memo[place].search = searches;
            memo[place].placed = placed;
            memo[place].state = state;
            return false;
        }
    }
    return false;
}

/* Depth at most TOKENS_CALLS_MAX. */
static bool
search(const struct tokens_history *h, uint64_t placed, const void *state)
{
    uint64_t all = h->n == 64 ? UINT64_MAX : ((uint64_t)1 << h->n) - 1;
    uint64_t first_end = UINT64_MAX;

    if (placed == all)
        return true;
    if (search_seen(placed, kit_hash(state, h->state_bytes, 3)))
        return false;
    visited++;
    for (uint32_t i = 0; i < h->n; i++) {
        if ((placed >> i & 1) == 0 && h->end[i] < first_end)
            first_end = h->end[i];
    }
    for (uint32_t i = 0; i < h->n; i++) {
        _Alignas(8) unsigned char after[TOKENS_STATE_MAX];

        /* A call that began after another one's end comes after it. */
        if ((placed >> i & 1) != 0 || h->start[i] > first_end)
            continue;
        memcpy(after, state, h->state_bytes);
        if (h->apply(h->ctx, i, after) && search(h, placed | (uint64_t)1 << i, after))
            return true;
    }
    return false;
}

bool
tokens_search(const struct tokens_history *h, const void *start)
{
    KIT_CHECK(h->n <= TOKENS_CALLS_MAX && h->state_bytes <= TOKENS_STATE_MAX, "a search too large");
    searches++;
    return search(h, 0, start);
}
