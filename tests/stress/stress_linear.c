/*
 * stress_linear.c - are operations on one page linearizable (P4)?
 *
 * GOAL      for each page there is one order of all calls on it, in keeping with real time, in which a
 *           plain page would have given the very results that were seen; and versions grow along it.
 * METHOD    rounds: THREADS threads make a few dozen calls each on a few pages: get, read, set, merge,
 *           append, put, free, allocate_at, with versions seen earlier, fresh and stale. Start and end
 *           of every call are stamped. Delays lie between the calls and, by the merge callback, inside
 *           them; evictions (a cache far too small for the filler pages) and consolidations run beside.
 * ORACLE    Wing and Gong's search with a memo over (calls placed, page state). The checker itself is
 *           checked first: histories known to be wrong must be refused.
 * NOT HERE  several pages at once (stress_batch_linear), crashes.
 *
 * stress_linear [seed] [seconds] [threads]
 *
 * WORD   round: the number of the round under way; ended: threads through with it.
 * EDGES  E0 round + 1: main, release; pairs with the threads' acquire: slots of the round before are read.
 *        E1 ended + 1: each thread, release; pairs with main's acquire: its history is complete.
 * LIFETIME  static.   PROGRESS  both wait by yielding: a test.   FAILURE  the run ends.
 */
#include "support/tokens.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 16u
#define PAGES 4u
#define CALLS_MAX 64u /* on one page in one round, the last of them main's: a bit each */
#define TOKENS_MAX 256u
#define FILLERS 400u

enum kind { GET, SET, MERGE, APPEND, PUT, FREE, ALLOCATE_AT, KINDS };
static const char *const kind_names[KINDS] = {"get", "set",  "merge",      "append",
                                              "put", "free", "allocate_at"};

struct call {
    uint64_t start; /* stamps of one clock, ns */
    uint64_t end;
    uint64_t expected; /* version presented: SET, MERGE, FREE */
    uint64_t version;  /* version told */
    uint64_t token;    /* written */
    uint64_t content;  /* GET: hash of the tokens read */
    enum kind kind;
    int code;
    uint32_t thread;
};

struct history {
    uint32_t n;
    struct call call[CALLS_MAX];
};

/* A page, as far as calls can tell. */
struct state {
    uint64_t version;     /* 0: never was */
    uint64_t version_max; /* of all so far */
    uint64_t content;
    uint64_t live; /* 0 or 1 */
};

static scree_cache *cache;
static scree_page_id pages[PAGES];
static scree_page_id fillers[FILLERS];
static _Atomic uint64_t round_now; /* E0 */
static _Atomic uint32_t ended;     /* E1 */
static _Atomic bool stop;          /* relaxed: read again at the next round */
static uint32_t threads;
static uint32_t calls_each;

struct worker {
    pthread_t thread;
    uint64_t random;
    uint32_t number;
    uint64_t seen[PAGES]; /* a version seen, to be presented later */
    struct history history[PAGES];
};
static struct worker workers[THREADS_MAX];

/* ---- the checker ---- */

/* Would a page in this state have answered so? Then it is in the state after. */
static bool
call_apply(const struct call *c, struct state *s)
{
    bool updates = c->kind != GET && c->code == 0;

    if (c->kind == ALLOCATE_AT) {
        if (c->code == SCREE_E_BUSY)
            return !s->live;
        if (c->code == SCREE_E_CONFLICT)
            return s->live && c->version == s->version;
        if (c->code != 0 || s->live)
            return false;
    } else if (c->code == SCREE_E_NOT_FOUND) {
        return !s->live;
    } else if (!s->live) {
        return false;
    } else if (c->code == SCREE_E_CONFLICT) {
        return c->expected != s->version && c->version == s->version;
    } else if (c->code != 0) {
        return false;
    }
    if (c->kind == GET)
        return c->version == s->version && c->content == s->content;
    if (c->kind == SET || c->kind == MERGE || c->kind == FREE) {
        if (c->expected != s->version)
            return false;
    }
    if (updates && c->version <= s->version_max)
        return false;
    s->version = s->version_max = c->version;
    s->live = c->kind != FREE;
    if (c->kind == MERGE || c->kind == APPEND)
        s->content = tokens_add(s->content, c->token);
    else
        s->content = tokens_add(0, c->token);
    return true;
}

static uint64_t overlaps; /* calls during which another one on that page began */

static bool
history_apply(const void *ctx, uint32_t i, void *state)
{
    return call_apply((const struct call *)ctx + i, state);
}

static bool
linearizable(const struct history *h, struct state start)
{
    struct tokens_history t = {
        .n = h->n, .state_bytes = sizeof(start), .apply = history_apply, .ctx = h->call};

    for (uint32_t i = 0; i < h->n; i++) {
        t.start[i] = h->call[i].start;
        t.end[i] = h->call[i].end;
    }
    return tokens_search(&t, &start);
}

static void
history_print(const struct history *h)
{
    for (uint32_t i = 0; i < h->n; i++) {
        const struct call *c = &h->call[i];

        printf("  thread %u  %" PRIu64 "..%" PRIu64 "  %s expected %" PRIu64 " token %" PRIx64
               " -> %s version %" PRIu64 " content %" PRIx64 "\n",
               c->thread, c->start - h->call[0].start, c->end - h->call[0].start,
               kind_names[c->kind], c->expected, c->token, kit_code_name(c->code), c->version,
               c->content);
    }
}

/* The checker must refuse what is wrong, and only that. */
static void
checker_check(void)
{
    struct state start = {.version = 8, .version_max = 8, .content = 5, .live = true};
    struct history h = {.n = 3};

    h.call[0] = (struct call){.start = 1, .end = 10, .kind = APPEND, .token = 1, .version = 16};
    h.call[1] = (struct call){.start = 2, .end = 9, .kind = APPEND, .token = 2, .version = 24};
    h.call[2] = (struct call){.start = 11, .end = 12, .kind = GET, .version = 24};
    h.call[2].content = tokens_add(tokens_add(5, 1), 2);
    KIT_CHECK(linearizable(&h, start), "good history refused");
    h.call[2].content = tokens_add(tokens_add(5, 2), 1);
    KIT_CHECK(!linearizable(&h, start), "fragments against version order accepted");
    h.call[2] = (struct call){.start = 11, .end = 12, .kind = GET, .version = 16};
    h.call[2].content = tokens_add(5, 1);
    KIT_CHECK(!linearizable(&h, start), "stale read accepted");
    h.call[2].start = 3;
    KIT_CHECK(linearizable(&h, start), "overlapping read refused");
    h.call[2] = (struct call){.start = 11, .end = 12, .kind = SET, .expected = 16, .version = 32};
    KIT_CHECK(!linearizable(&h, start), "set at a stale version accepted");
    h.call[2] = (struct call){.start = 11, .end = 12, .kind = FREE, .expected = 24, .version = 20};
    KIT_CHECK(!linearizable(&h, start), "a version that goes back accepted");
    h.call[2] = (struct call){.start = 11, .end = 12, .kind = GET, .code = SCREE_E_NOT_FOUND};
    KIT_CHECK(!linearizable(&h, start), "a live page not found accepted");
}

/* ---- the workload ---- */

static void
call_get(struct worker *w, uint32_t page, struct call *c)
{
    scree_slice slice;
    size_t len = 0;
    unsigned char buffer[8 * TOKENS_MAX * 4];

    if (kit_below(&w->random, 2) == 0) {
        c->start = tokens_now_ns();
        c->code = scree_page_read(cache, pages[page], buffer, sizeof(buffer), &len, &c->version);
        c->end = tokens_now_ns();
        if (c->code == 0)
            c->content = tokens_content(buffer, len);
        return;
    }
    scree_read_enter(cache);
    c->start = tokens_now_ns();
    c->code = scree_page_get(cache, pages[page], &slice, &c->version);
    c->end = tokens_now_ns();
    tokens_delay(kit_random(&w->random));
    if (c->code == 0)
        c->content = tokens_content(slice.data, slice.len);
    scree_read_leave(cache);
}

static void
call_update(struct call *c, scree_page_id id)
{
    scree_slice slice = kit_slice(&c->token, sizeof(c->token));
    scree_version version = c->expected;

    c->start = tokens_now_ns();
    switch (c->kind) {
    case SET:
        c->code = scree_page_set(cache, id, &version, slice);
        break;
    case MERGE:
        c->code = scree_page_merge(cache, id, &version, slice);
        break;
    case FREE:
        c->code = scree_page_free(cache, id, &version);
        break;
    case APPEND:
        c->code = scree_page_append(cache, id, slice, &version);
        break;
    case PUT:
        c->code = scree_page_put(cache, id, slice, &version);
        break;
    default:
        c->code = scree_page_allocate_at(cache, id, slice, &version);
    }
    c->end = tokens_now_ns();
    c->version = version;
}

static void
worker_call(struct worker *w)
{
    static const enum kind mix[16] = {GET,    GET,    GET, SET, SET,  MERGE, MERGE,       MERGE,
                                      APPEND, APPEND, PUT, GET, FREE, MERGE, ALLOCATE_AT, APPEND};
    uint32_t page = (uint32_t)kit_below(&w->random, PAGES);
    struct history *h = &w->history[page];
    struct call *c = &h->call[h->n];

    if (h->n == (CALLS_MAX - 1) / threads)
        return;
    *c = (struct call){.kind = mix[kit_below(&w->random, 16)], .thread = w->number};
    c->expected = kit_below(&w->random, 40) == 0 ? 0 : w->seen[page];
    c->token = tokens_draw(&w->random);
    if (c->kind == GET)
        call_get(w, page, c);
    else
        call_update(c, pages[page]);
    if (c->version != 0 && kit_below(&w->random, 8) != 0)
        w->seen[page] = c->version;
    h->n++;
    tokens_delay(kit_random(&w->random));
}

/* Pages nobody checks here, to keep the cache full. */
static void
worker_filler(struct worker *w)
{
    unsigned char buffer[4096];
    scree_page_id id = fillers[kit_below(&w->random, FILLERS)];
    int code = scree_page_read(cache, id, buffer, sizeof(buffer), NULL, NULL);

    KIT_CHECK(code == 0, "filler page %" PRIu64 " gave %d %s", id, code, kit_code_name(code));
}

static void *
worker_run(void *argument)
{
    struct worker *w = argument;

    for (uint64_t round = 1;; round++) {
        while (atomic_load_explicit(&round_now, memory_order_acquire) < round) /* E0 */
            sched_yield();
        if (atomic_load_explicit(&stop, memory_order_relaxed))
            return NULL;
        for (uint32_t i = 0; i < calls_each; i++) {
            worker_call(w);
            if (i % 16 == 0)
                worker_filler(w);
        }
        atomic_fetch_add_explicit(&ended, 1, memory_order_release); /* E1 */
    }
}

/* All threads' calls on one page, as one history. */
static uint64_t
page_check(uint32_t page, struct state *s)
{
    static struct history whole;
    struct call now = {.kind = GET, .start = UINT64_MAX - 1, .end = UINT64_MAX};
    struct worker reader = {.random = 1};

    whole.n = 0;
    for (uint32_t t = 0; t < threads; t++) {
        for (uint32_t i = 0; i < workers[t].history[page].n; i++)
            whole.call[whole.n++] = workers[t].history[page].call[i];
        workers[t].history[page].n = 0;
    }
    for (uint32_t i = 0; i < whole.n; i++) {
        uint32_t j = 0;

        while (j < whole.n && (whole.call[j].start <= whole.call[i].start ||
                               whole.call[j].start >= whole.call[i].end))
            j++;
        overlaps += j < whole.n;
    }
    call_get(&reader, page, &now);
    now.start = UINT64_MAX - 1;
    now.end = UINT64_MAX;
    whole.call[whole.n++] = now;
    if (!linearizable(&whole, *s)) {
        history_print(&whole);
        kit_failed(__FILE__, __LINE__, "P4",
                   "page %" PRIu64 " (at %" PRIu64 ", %s): no order of these %u "
                   "calls explains what they saw",
                   pages[page], s->version, s->live ? "live" : "free", whole.n);
    }
    return whole.n;
}

/* Start the next round with pages that are live and known. */
static void
round_prepare(struct state *states)
{
    for (uint32_t i = 0; i < PAGES; i++) {
        uint64_t token = i + 1;
        scree_version version = 0;
        int code = scree_page_put(cache, pages[i], kit_slice(&token, 8), &version);

        while (code == SCREE_E_NOT_FOUND || code == SCREE_E_BUSY)
            code = scree_page_allocate_at(cache, pages[i], kit_slice(&token, 8), &version);
        KIT_CHECK(code == 0, "page %" PRIu64 " gave %d %s", pages[i], code, kit_code_name(code));
        states[i] = (struct state){.version = version,
                                   .version_max = version,
                                   .content = tokens_add(0, token),
                                   .live = true};
    }
}

static void
cache_make(char *directory)
{
    scree_options options;
    int code;

    kit_dir_name(directory, "linear");
    kit_options_small(&options, &tokens_materializer);
    code = scree_open(directory, &options, &cache);
    KIT_CHECK(code == 0, "open gave %d %s", code, kit_code_name(code));
    for (uint32_t i = 0; i < PAGES; i++) {
        code = scree_page_allocate(cache, kit_slice(NULL, 0), &pages[i], NULL);
        KIT_CHECK(code == 0, "allocate gave %d %s", code, kit_code_name(code));
    }
    for (uint32_t i = 0; i < FILLERS; i++) {
        unsigned char bytes[1000] = {1};

        code = scree_page_allocate(cache, kit_slice(bytes, sizeof(bytes)), &fillers[i], NULL);
        KIT_CHECK(code == 0, "allocate gave %d %s", code, kit_code_name(code));
    }
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t seconds = kit_argument(argc, argv, 2, 8);
    uint64_t until = kit_now_ms() + seconds * 1000;
    uint64_t rounds = 0;
    uint64_t calls = 0;
    char directory[KIT_PATH_MAX];
    struct state states[PAGES];

    threads = (uint32_t)kit_argument(argc, argv, 3, 4);
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    calls_each = (CALLS_MAX / threads) * PAGES * 3 / 4;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    checker_check();
    cache_make(directory);
    for (uint32_t t = 0; t < threads; t++) {
        workers[t].random = seed * 1000 + t;
        workers[t].number = t;
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, worker_run, &workers[t]) == 0, "thread");
    }
    while (kit_now_ms() < until) {
        round_prepare(states);
        atomic_store_explicit(&ended, 0, memory_order_relaxed);              /* published by E0 */
        atomic_store_explicit(&round_now, ++rounds, memory_order_release);   /* E0 */
        while (atomic_load_explicit(&ended, memory_order_acquire) < threads) /* E1 */
            sched_yield();
        for (uint32_t i = 0; i < PAGES; i++)
            calls += page_check(i, &states[i]);
        if (rounds % 64 == 0)
            KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
    }
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    atomic_store_explicit(&round_now, ++rounds, memory_order_release);
    for (uint32_t t = 0; t < threads; t++)
        pthread_join(workers[t].thread, NULL);
    KIT_CHECK(scree_close(cache) == 0, "close");
    kit_dir_remove(directory);
    KIT_CHECK(calls > 0, "nothing was checked");
    KIT_CHECK(threads == 1 || overlaps > 0,
              "all calls came one after the other: nothing was tested");
    printf("seed %" PRIu64 ": %" PRIu64 " rounds, %" PRIu64 " calls checked, %" PRIu64
           " overlapping, %" PRIu64 " states: ok\n",
           seed, rounds - 1, calls, overlaps, tokens_search_visited());
    return 0;
}
