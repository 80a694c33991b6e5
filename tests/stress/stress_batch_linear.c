/*
 * stress_batch_linear.c - are batches linearizable, together with everything else on their pages (P2, P4)?
 *
 * GOAL      there is one order of all calls on all pages, in keeping with real time, in which plain pages would
 *           have given the very results that were seen, where a batch that commits changes all of its pages in
 *           one place of the order, and one that only checks finds all versions in one place.
 * METHOD    rounds: the threads make a few calls each on PAGES pages: read, set, merge, append, and batches of
 *           1 to 4 steps (set, merge, check; several on one page; often at versions read just before, sometimes
 *           stale ones). Start and end of every call are stamped. Delays lie between the calls, within batches
 *           before they commit, and in the merge callback; a small cache, consolidation and snapshots beside.
 * ORACLE    L1 Wing and Gong's search over the whole history, the state being all pages, with a memo over
 *              (calls placed, state). Stronger than a check page by page: that would not notice a batch that
 *              happens on one page before the other.
 *           L2 versions are positions: of two updates of which one ended before the other began the second
 *              one's is larger, on whatever pages. (The order of versions is not itself the order for L1: a
 *              batch may be at a smaller position than an update that others saw before it.)
 *           L3 a page that conflict names was not at the version presented at some moment of the call.
 *           The checker itself is checked first. -DSCREE_BUG_MCAS_EARLY and -DSCREE_BUG_MCAS_PEEK must
 *           fail here.
 * NOT HERE  free and allocate (stress_linear, model_pages), long runs and kills (stress_batch), crashes.
 *
 * stress_batch_linear [seed] [seconds] [threads]
 *
 * WORD   round_now: the number of the round under way; ended: threads through with it.
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

#define THREADS_MAX 8u
#define PAGES 3u
#define STEPS_MAX 4u
#define CALLS_MAX 64u /* in one round, the last of them main's: a bit each */
#define FILLERS 200u
#define PAGE_BYTES 4096u

enum kind { READ, SET, MERGE, APPEND, BATCH };
static const char *const kind_names[] = {"read", "set", "merge", "append", "batch"};
enum step_kind { STEP_SET, STEP_MERGE, STEP_CHECK };
static const char *const step_names[] = {"set", "merge", "check"};

struct step {
    enum step_kind kind;
    uint32_t page;
    uint64_t expected;
    uint64_t token;
};

struct call {
    uint64_t start; /* stamps of one clock, ns */
    uint64_t end;
    uint64_t version; /* told */
    uint64_t content; /* READ */
    struct step step[STEPS_MAX];
    uint32_t steps; /* 1, but for a BATCH */
    uint32_t conflict;
    enum kind kind;
    int code;
    uint32_t thread;
};

struct history {
    uint32_t n;
    struct call call[CALLS_MAX];
};

struct state {
    struct {
        uint64_t version, content;
    } page[PAGES];
};

static scree_cache *cache;
static scree_page_id pages[PAGES];
static scree_page_id fillers[FILLERS];
static _Atomic uint64_t round_now; /* E0 */
static _Atomic uint32_t ended;     /* E1 */
static _Atomic bool stop;          /* relaxed: read again at the next round */
static uint32_t threads;

static struct worker {
    pthread_t thread;
    uint64_t random;
    uint32_t number;
    uint64_t seen[PAGES]; /* a version seen, to be presented later */
    struct history history;
} workers[THREADS_MAX];

static uint64_t overlaps, batches, validated;

/* ---- the checker ---- */

static bool
writes(const struct call *c)
{
    bool any = false;

    for (uint32_t i = 0; i < c->steps; i++)
        any = any || (c->kind != READ && c->step[i].kind != STEP_CHECK);
    return any && c->code == 0;
}

static bool
batch_apply(const struct call *c, struct state *s)
{
    bool moved = false;

    for (uint32_t i = 0; i < c->steps; i++) {
        bool differs = c->step[i].expected != s->page[c->step[i].page].version;

        if (c->code == SCREE_E_CONFLICT && c->step[i].page == c->conflict && differs)
            return true; /* L3 */
        moved = moved || differs;
    }
    if (c->code != 0 || moved)
        return false;
    for (uint32_t i = 0; i < c->steps; i++) {
        const struct step *step = &c->step[i];

        if (step->kind == STEP_CHECK)
            continue;
        s->page[step->page].content =
            tokens_add(step->kind == STEP_SET ? 0 : s->page[step->page].content, step->token);
        s->page[step->page].version = c->version;
    }
    return true;
}

/* Would pages in this state have answered so? Then they are in the state after. */
static bool
call_apply(const struct call *c, struct state *s)
{
    uint64_t *version = &s->page[c->step[0].page].version;
    uint64_t *content = &s->page[c->step[0].page].content;

    if (c->kind == BATCH)
        return batch_apply(c, s);
    if (c->kind == READ)
        return c->code == 0 && c->version == *version && c->content == *content;
    if (c->kind != APPEND && c->step[0].expected != *version)
        return c->code == SCREE_E_CONFLICT && c->version == *version;
    if (c->code != 0 || c->version <= *version)
        return false;
    *version = c->version;
    *content = tokens_add(c->kind == SET ? 0 : *content, c->step[0].token);
    return true;
}

static bool
history_apply(const void *ctx, uint32_t i, void *state)
{
    return call_apply((const struct call *)ctx + i, state);
}

/* L1 */
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

/* L2 */
static bool
versions_follow_time(const struct history *h)
{
    for (uint32_t i = 0; i < h->n; i++)
        for (uint32_t j = 0; j < h->n; j++)
            if (writes(&h->call[i]) && writes(&h->call[j]) && h->call[i].end < h->call[j].start &&
                h->call[i].version >= h->call[j].version)
                return false;
    return true;
}

static void
history_print(const struct history *h)
{
    for (uint32_t i = 0; i < h->n; i++) {
        const struct call *c = &h->call[i];

        printf("  thread %u  %" PRIu64 "..%" PRIu64 "  %s", c->thread, c->start - h->call[0].start,
               c->end - h->call[0].start, kind_names[c->kind]);
        for (uint32_t j = 0; j < c->steps; j++)
            printf(" [%s page %" PRIu32 " expected %" PRIu64 " token %" PRIx64 "]",
                   c->kind == BATCH ? step_names[c->step[j].kind] : "", c->step[j].page,
                   c->step[j].expected, c->step[j].token);
        printf(" -> %s version %" PRIu64 " content %" PRIx64 " conflict %" PRIu32 "\n",
               kit_code_name(c->code), c->version, c->content, c->conflict);
    }
}

static struct call
read_of(uint32_t page, uint64_t start, uint64_t version, uint64_t content)
{
    return (struct call){.kind = READ,
                         .steps = 1,
                         .step[0].page = page,
                         .start = start,
                         .end = start + 1,
                         .version = version,
                         .content = content};
}

/* The checker must refuse what is wrong, and only that. */
static void
checker_check(void)
{
    struct state start = {.page = {{8, 5}, {8, 6}, {8, 7}}};
    struct history h = {.n = 3};

    /* A batch on pages 0 and 1, and who reads them while it is under way. */
    h.call[0] = (struct call){.kind = BATCH, .start = 1, .end = 100, .version = 16, .steps = 2};
    h.call[0].step[0] = (struct step){STEP_MERGE, 0, 8, 1};
    h.call[0].step[1] = (struct step){STEP_SET, 1, 8, 2};
    h.call[1] = read_of(0, 10, 16, tokens_add(5, 1));
    h.call[2] = read_of(1, 20, 16, tokens_add(0, 2));
    KIT_CHECK(linearizable(&h, start), "good history refused");
    h.call[2] = read_of(1, 20, 8, 6);
    KIT_CHECK(!linearizable(&h, start), "half a batch accepted");
    h.call[2].start = 5;
    h.call[2].end = 12;
    KIT_CHECK(linearizable(&h, start), "overlapping read refused");
    h.call[2] = (struct call){.kind = BATCH, .start = 20, .end = 30, .version = 16, .steps = 2};
    h.call[2].step[0] = (struct step){STEP_CHECK, 0, 16, 0};
    h.call[2].step[1] = (struct step){STEP_CHECK, 1, 8, 0};
    KIT_CHECK(!linearizable(&h, start), "a check of two moments accepted");
    h.call[2].code = SCREE_E_CONFLICT;
    h.call[2].conflict = 1;
    KIT_CHECK(linearizable(&h, start), "a conflict refused");
    h.call[2].conflict = 0;
    KIT_CHECK(!linearizable(&h, start), "a conflict of a page that had not moved accepted");
    h.call[2] = (struct call){.kind = APPEND, .start = 101, .end = 102, .version = 16, .steps = 1};
    h.call[2].step[0].page = 2;
    KIT_CHECK(linearizable(&h, start) && !versions_follow_time(&h), "L2");
    h.call[2].version = 24;
    KIT_CHECK(versions_follow_time(&h), "L2");
}

/* ---- the workload ---- */

static struct call *
call_begin(struct worker *w, enum kind kind, uint32_t page)
{
    struct call *c = &w->history.call[w->history.n++];

    *c = (struct call){.kind = kind, .steps = 1, .thread = w->number};
    c->step[0] = (struct step){STEP_SET, page, w->seen[page], tokens_draw(&w->random)};
    return c;
}

static void
call_read(struct call *c)
{
    unsigned char buffer[PAGE_BYTES];
    size_t len = 0;

    c->start = tokens_now_ns();
    c->code =
        scree_page_read(cache, pages[c->step[0].page], buffer, sizeof(buffer), &len, &c->version);
    c->end = tokens_now_ns();
    if (c->code == 0)
        c->content = tokens_content(buffer, len);
}

static void
call_update(struct call *c)
{
    scree_page_id id = pages[c->step[0].page];
    scree_slice slice = kit_slice(&c->step[0].token, 8);

    c->version = c->step[0].expected;
    c->start = tokens_now_ns();
    if (c->kind == SET)
        c->code = scree_page_set(cache, id, &c->version, slice);
    else if (c->kind == MERGE)
        c->code = scree_page_merge(cache, id, &c->version, slice);
    else
        c->code = scree_page_append(cache, id, slice, &c->version);
    c->end = tokens_now_ns();
}

static void
call_batch(struct worker *w, struct call *c)
{
    scree_batch *batch;
    scree_page_id conflict = 0;
    int code = scree_batch_begin(cache, &batch);

    KIT_CHECK(code == 0, "begin gave %d %s", code, kit_code_name(code));
    for (uint32_t i = 0; i < c->steps; i++) {
        const struct step *s = &c->step[i];
        scree_slice slice = kit_slice(&s->token, 8);

        if (s->kind == STEP_SET)
            code = scree_batch_set(batch, pages[s->page], s->expected, slice);
        else if (s->kind == STEP_MERGE)
            code = scree_batch_merge(batch, pages[s->page], s->expected, slice);
        else
            code = scree_batch_check(batch, pages[s->page], s->expected);
        KIT_CHECK(code == 0, "step gave %d %s", code, kit_code_name(code));
    }
    tokens_delay(kit_random(&w->random));
    c->start = tokens_now_ns();
    c->code = scree_batch_commit(batch, &c->version, &conflict);
    c->end = tokens_now_ns();
    for (uint32_t i = 0; i < PAGES; i++)
        c->conflict = pages[i] == conflict ? i : c->conflict;
}

static void
worker_batch(struct worker *w)
{
    struct call *c = call_begin(w, BATCH, 0);
    bool checks_only = kit_below(&w->random, 4) == 0;

    c->steps = 1 + (uint32_t)kit_below(&w->random, STEPS_MAX);
    for (uint32_t i = 0; i < c->steps; i++) {
        struct step *s = &c->step[i];

        s->kind = checks_only ? STEP_CHECK : (enum step_kind)kit_below(&w->random, 3);
        s->page = (uint32_t)kit_below(&w->random, PAGES);
        s->expected = w->seen[s->page];
        s->token = tokens_draw(&w->random);
    }
    call_batch(w, c);
    for (uint32_t i = 0; i < c->steps; i++)
        if (c->code == 0 && c->step[i].kind != STEP_CHECK)
            w->seen[c->step[i].page] = c->version;
}

/* Who reads before a batch often has the versions of the moment. */
static void
worker_call(struct worker *w)
{
    uint32_t page = (uint32_t)kit_below(&w->random, PAGES);
    uint64_t draw = kit_below(&w->random, 16);
    struct call *c;

    if (draw < 5) {
        worker_batch(w);
        return;
    }
    c = call_begin(w, draw < 13 ? READ : draw == 13 ? SET : draw == 14 ? MERGE : APPEND, page);
    if (c->kind == READ)
        call_read(c);
    else
        call_update(c);
    if (c->version != 0 && kit_below(&w->random, 16) != 0)
        w->seen[page] = c->version;
}

/* A page nobody checks here, to keep the cache full. */
static void
worker_filler(struct worker *w)
{
    unsigned char buffer[PAGE_BYTES];
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
        for (uint32_t i = 0; i < (CALLS_MAX - PAGES) / threads; i++) {
            worker_call(w);
            tokens_delay(kit_random(&w->random));
        }
        worker_filler(w);
        atomic_fetch_add_explicit(&ended, 1, memory_order_release); /* E1 */
    }
}

static void
figures_add(const struct history *h)
{
    for (uint32_t i = 0; i < h->n; i++) {
        const struct call *c = &h->call[i];
        uint32_t j = 0;

        while (j < h->n && (h->call[j].start <= c->start || h->call[j].start >= c->end))
            j++;
        overlaps += j < h->n;
        batches += c->kind == BATCH && writes(c);
        validated += c->kind == BATCH && c->code == 0 && !writes(c);
    }
}

/* All threads' calls of the round as one history. */
static uint64_t
round_check(const struct state *start)
{
    static struct history whole;
    struct worker reader = {.random = 1};

    whole.n = 0;
    for (uint32_t t = 0; t < threads; t++) {
        for (uint32_t i = 0; i < workers[t].history.n; i++)
            whole.call[whole.n++] = workers[t].history.call[i];
        workers[t].history.n = 0;
    }
    for (uint32_t i = 0; i < PAGES; i++) {
        struct call *c = call_begin(&reader, READ, i);

        call_read(c);
        whole.call[whole.n++] = *c;
    }
    figures_add(&whole);
    if (!linearizable(&whole, *start) || !versions_follow_time(&whole)) {
        history_print(&whole);
        kit_failed(__FILE__, __LINE__, "P2, P4",
                   "pages at %" PRIu64 ", %" PRIu64 ", %" PRIu64 ": no order of these %u calls, or "
                   "not that of their versions, explains what they saw",
                   start->page[0].version, start->page[1].version, start->page[2].version, whole.n);
    }
    return whole.n;
}

/* Start the next round with pages that are short and known. */
static void
round_prepare(struct state *start)
{
    for (uint32_t i = 0; i < PAGES; i++) {
        uint64_t token = i + 1;
        int code = scree_page_put(cache, pages[i], kit_slice(&token, 8), &start->page[i].version);

        KIT_CHECK(code == 0, "page %" PRIu64 " gave %d %s", pages[i], code, kit_code_name(code));
        start->page[i].content = tokens_add(0, token);
    }
}

static void
cache_make(char *directory)
{
    unsigned char bytes[1000] = {1};
    scree_options options;
    int code;

    kit_dir_name(directory, "batch-linear");
    kit_options_small(&options, &tokens_materializer);
    code = scree_open(directory, &options, &cache);
    KIT_CHECK(code == 0, "open gave %d %s", code, kit_code_name(code));
    for (uint32_t i = 0; i < PAGES + FILLERS; i++) {
        code = scree_page_allocate(cache, kit_slice(bytes, i < PAGES ? 0 : sizeof(bytes)),
                                   i < PAGES ? &pages[i] : &fillers[i - PAGES], NULL);
        KIT_CHECK(code == 0, "allocate gave %d %s", code, kit_code_name(code));
    }
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t until = kit_now_ms() + kit_argument(argc, argv, 2, 8) * 1000;
    uint64_t rounds = 0, calls = 0;
    char directory[KIT_PATH_MAX];
    struct state start;

    threads = (uint32_t)kit_argument(argc, argv, 3, 4);
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    checker_check();
    cache_make(directory);
    for (uint32_t t = 0; t < threads; t++) {
        workers[t].random = seed * 1000 + t;
        workers[t].number = t;
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, worker_run, &workers[t]) == 0, "thread");
    }
    while (kit_now_ms() < until) {
        round_prepare(&start);
        atomic_store_explicit(&ended, 0, memory_order_relaxed);              /* published by E0 */
        atomic_store_explicit(&round_now, ++rounds, memory_order_release);   /* E0 */
        while (atomic_load_explicit(&ended, memory_order_acquire) < threads) /* E1 */
            sched_yield();
        calls += round_check(&start);
        if (rounds % 64 == 0)
            KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
    }
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    atomic_store_explicit(&round_now, ++rounds, memory_order_release);
    for (uint32_t t = 0; t < threads; t++)
        pthread_join(workers[t].thread, NULL);
    KIT_CHECK(scree_close(cache) == 0, "close");
    kit_dir_remove(directory);
    KIT_CHECK(batches > 0 && validated > 0, "nothing was checked");
    KIT_CHECK(threads == 1 || overlaps > 0,
              "all calls came one after the other: nothing was tested");
    printf("seed %" PRIu64 ": %" PRIu64 " rounds, %" PRIu64 " calls checked, %" PRIu64
           " overlapping, %" PRIu64 " batches, %" PRIu64 " validated reads, %" PRIu64
           " states: ok\n",
           seed, rounds - 1, calls, overlaps, batches, validated, tokens_search_visited());
    return 0;
}
