/*
 * sched_pairs.c - what can go wrong between two threads, or three, in any order of their steps.
 *
 * GOAL      each pair of things that touch the same words (two merges, a merge and an eviction, a free and an
 *           append ...) keeps its promises in every order of the atomic steps with at most two preemptions, and
 *           in very many orders with more; a failure is a number, which fails again.
 * METHOD    tests/support/sched.h: the real library, one thread running at a time, every atomic access a point
 *           where another one may go on. For each pair and each form of its pages: all schedules with at most
 *           BOUND preemptions, depth first; then random ones, half of them by priorities (PCT). One cache
 *           serves thousands of schedules; between them everything is brought to where it was. One process a
 *           pair.
 * ORACLE    world_check after each run: an order of the calls explains what they told; versions grow; the
 *           records in log order make the same of the pages; no memory is lost; the library's assertions, slow
 *           ones too. After every session of some thousand runs, and after each run of some pairs: a copy of
 *           the disk verifies, recovers, and holds the same pages. That a run is a function of its number is
 *           checked by running some again, twice, in a cache that is new. (In one that is used it may have been
 *           another: how many of them is told.)
 * NOT HERE  weak memory (ThreadSanitizer, tests/stress), the whole library with its threads (sched_whole).
 *
 * sched_pairs [pair|all] [random schedules a pair] [seed] [bound] [processes]
 * sched_pairs replay <pair> <number>      number: "variant/path" or "seed:run", as told
 */
#include "support/sched_world.h"

#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEGMENT_BYTES ((uint64_t)64 << 20)
#define SEGMENT_RECOVERED_BYTES ((uint64_t)2 << 20) /* copied at each recovery */
#define RUN_BYTES 32768u /* a cache serves as long as its first segment does */
#define AGAIN_EVERY 9973u
#define FILL_BYTES ((uint64_t)144 << 10)
#define HALF_FULL_BYTES ((uint64_t)29 << 10) /* and a page */
#define PADDING_BYTES ((uint64_t)192 << 10)  /* to granules, beside it */
#define PAIRS_MAX 64u
#define FORMS_MAX 8u

enum pair_flags {
    PAIR_RECLAIMS = 1,   /* the reclaimer is scheduled too */
    PAIR_FLUSHES = 2,    /* the flusher */
    PAIR_RECOVERS = 4,   /* each run is followed by a recovery of a copy */
    PAIR_FILLS = 8,      /* the log goes on for a granule before */
    PAIR_HALF_FULL = 32, /* so much is not written that the next record wakes the flusher */
    PAIR_SNAPSHOTS = 16  /* begins with a full snapshot, so that the next one is a delta */
};

struct pair {
    const char *name;
    unsigned threads;
    void (*run)(struct world *w, unsigned i);
    unsigned variants;
    enum world_form form[FORMS_MAX][LINEAR_PAGES];
    unsigned flags;
};

/* ---- the pairs --------------------------------------------------------------------------------- */

/* Who loses tries once more, at the version that it was told. */
static void
merge_merge(struct world *w, unsigned i)
{
    struct linear_call *c = world_do(w, i, LINEAR_MERGE, 0, 0);

    if (c->code == SCREE_E_CONFLICT)
        (void)world_do(w, i, LINEAR_MERGE, 0, c->version);
    else
        (void)world_do(w, i, LINEAR_APPEND, 0, 0);
}

static void
merge_append_put(struct world *w, unsigned i)
{
    static const enum linear_kind kind[] = {LINEAR_MERGE, LINEAR_APPEND, LINEAR_PUT};

    (void)world_do(w, i, kind[i], 0, 0);
}

static void
merge_consolidate(struct world *w, unsigned i)
{
    if (i == 1) {
        world_consolidate(w, 0);
        return;
    }
    (void)world_do(w, i, LINEAR_MERGE, 0, 0);
    (void)world_do(w, i, LINEAR_READ, 0, 0);
}

/* Cleaning moves a page, whatever its form. */
static void
merge_move(struct world *w, unsigned i)
{
    if (i == 1)
        world_move(w, 0);
    else
        (void)world_do(w, i, LINEAR_MERGE, 0, 0);
}

static void
put_consolidate_move(struct world *w, unsigned i)
{
    if (i == 0)
        (void)world_do(w, i, LINEAR_PUT, 0, 0);
    else if (i == 1)
        world_consolidate(w, 0);
    else
        world_move(w, 0);
}

static void
get_consolidate(struct world *w, unsigned i)
{
    if (i == 0)
        world_get(w, i, 0);
    else
        world_consolidate(w, 0);
}

static void
get_evict(struct world *w, unsigned i)
{
    if (i == 0) {
        world_get(w, i, 0);
        (void)world_do(w, i, LINEAR_READ, 0, 0);
    } else {
        world_evict(w, 0);
        world_evict(w, 0);
    }
}

/* Two readers of a page that is not in memory, and one who throws it out again. */
static void
get_get_evict(struct world *w, unsigned i)
{
    if (i < 2)
        world_get(w, i, 0);
    else
        world_evict(w, 0);
}

static void
together_get_evict(struct world *w, unsigned i)
{
    if (i == 0)
        world_get_together(w, i, 0);
    else if (i == 1)
        world_get(w, i, 0);
    else
        world_evict(w, 0);
}

static void
together_merge(struct world *w, unsigned i)
{
    if (i == 0) {
        world_get_together(w, i, 0);
        world_get_together(w, i, 0);
    } else {
        (void)world_do(w, i, LINEAR_MERGE, 0, 0);
        world_evict(w, 0);
    }
}

static void
evict_merge(struct world *w, unsigned i)
{
    if (i == 1) {
        world_evict(w, 0);
        return;
    }
    (void)world_do(w, i, LINEAR_MERGE, 0, 0);
    (void)world_do(w, i, LINEAR_READ, 0, 0);
}

/* Out, changed, out again: the side word belongs to the word that is there. */
static void
evict_put_evict(struct world *w, unsigned i)
{
    if (i == 1) {
        world_evict(w, 0);
        (void)world_do(w, i, LINEAR_READ, 0, 0);
        return;
    }
    (void)world_do(w, i, LINEAR_PUT, 0, 0);
    world_flush(w);
    world_evict(w, 0);
}

static void
evict_consolidate(struct world *w, unsigned i)
{
    if (i == 1) {
        world_evict(w, 0);
        return;
    }
    world_consolidate(w, 0);
    (void)world_do(w, i, LINEAR_READ, 0, 0);
}

static void
free_append_allocate(struct world *w, unsigned i)
{
    if (i == 0) {
        (void)world_do(w, i, LINEAR_FREE, 0, 0);
    } else if (i == 1) {
        (void)world_do(w, i, LINEAR_APPEND, 0, 0);
    } else {
        world_grace(w);
        (void)world_do(w, i, LINEAR_ALLOCATE, 0, 0);
    }
}

/* A guard is open while the page goes, its memory is used again, and its id comes back. */
static void
get_free_allocate(struct world *w, unsigned i)
{
    if (i == 0) {
        world_get(w, i, 0);
        return;
    }
    (void)world_do(w, i, LINEAR_FREE, 0, 0);
    if (world_do(w, i, LINEAR_ALLOCATE, 0, 0)->code == SCREE_E_BUSY) {
        world_grace(w);
        (void)world_do(w, i, LINEAR_ALLOCATE, 0, 0);
    }
    (void)world_do(w, i, LINEAR_PUT, 1, 0);
}

static void
get_put_grace(struct world *w, unsigned i)
{
    if (i == 0) {
        world_get(w, i, 0);
        return;
    }
    (void)world_do(w, i, LINEAR_PUT, 0, 0);
    world_grace(w);
    (void)world_do(w, i, LINEAR_PUT, 1, 0);
}

static void
allocate_allocate(struct world *w, unsigned i)
{
    (void)world_do(w, i, LINEAR_ALLOCATE, 0, 0);
    (void)world_do(w, i, LINEAR_APPEND, 0, 0);
}

static void
batch_of_two(struct world *w, unsigned i, enum linear_kind first, enum linear_kind second)
{
    struct linear_step step[2] = {{.kind = first, .page = 0}, {.kind = second, .page = 1}};

    (void)world_batch(w, i, step, 2);
}

static void
batch_batch(struct world *w, unsigned i)
{
    batch_of_two(w, i, LINEAR_MERGE, i == 0 ? LINEAR_SET : LINEAR_MERGE);
}

static void
batch_batch_read(struct world *w, unsigned i)
{
    if (i < 2) {
        batch_of_two(w, i, i == 0 ? LINEAR_SET : LINEAR_MERGE,
                     i == 0 ? LINEAR_MERGE : LINEAR_CHECK);
        return;
    }
    (void)world_do(w, i, LINEAR_READ, 0, 0);
    (void)world_do(w, i, LINEAR_READ, 1, 0);
}

static void
batch_check(struct world *w, unsigned i)
{
    if (i == 0)
        batch_of_two(w, i, LINEAR_CHECK, LINEAR_CHECK);
    else
        batch_of_two(w, i, LINEAR_MERGE, LINEAR_SET);
}

static void
batch_merge(struct world *w, unsigned i)
{
    if (i == 0) {
        batch_of_two(w, i, LINEAR_MERGE, LINEAR_MERGE);
        return;
    }
    (void)world_do(w, i, LINEAR_MERGE, 1, 0);
    (void)world_do(w, i, LINEAR_READ, 0, 0);
}

static void
batch_evict(struct world *w, unsigned i)
{
    if (i == 0) {
        batch_of_two(w, i, LINEAR_MERGE, LINEAR_SET);
        return;
    }
    world_evict(w, 0);
    world_evict(w, 1);
    (void)world_do(w, i, LINEAR_READ, 0, 0);
}

static void
batch_consolidate(struct world *w, unsigned i)
{
    if (i == 0) {
        batch_of_two(w, i, LINEAR_MERGE, LINEAR_FREE);
        return;
    }
    world_consolidate(w, 0);
    (void)world_do(w, i, LINEAR_APPEND, 1, 0);
}

/* Two who sync, one of them in company of reservations. */
static void
reserve_flush(struct world *w, unsigned i)
{
    (void)world_do(w, i, LINEAR_APPEND, i, 0);
    world_flush(w);
}

static void
reserve_reserve_flush(struct world *w, unsigned i)
{
    if (i < 2)
        (void)world_do(w, i, LINEAR_APPEND, i, 0);
    else
        world_flush(w);
}

/* The flusher writes what is filled, beside those who fill. */
static void
reserve_stream(struct world *w, unsigned i)
{
    (void)world_do(w, i, LINEAR_APPEND, i, 0);
    if (i == 0)
        (void)world_do(w, i, LINEAR_APPEND, i, 0);
}

/* The record on disk goes while somebody reads it. */
static void
punch_get(struct world *w, unsigned i)
{
    if (i == 0) {
        world_get(w, i, 0);
        return;
    }
    (void)world_do(w, i, LINEAR_PUT, 0, 0);
    world_collect(w);
}

static void
snapshot_merge(struct world *w, unsigned i)
{
    if (i == 1) {
        world_snapshot(w);
        return;
    }
    (void)world_do(w, i, LINEAR_MERGE, 0, 0);
    (void)world_do(w, i, LINEAR_FREE, 1, 0);
}

static void
snapshot_batch(struct world *w, unsigned i)
{
    if (i == 1)
        world_snapshot(w);
    else
        batch_of_two(w, i, LINEAR_MERGE, LINEAR_SET);
}

static void
snapshot_consolidate(struct world *w, unsigned i)
{
    if (i == 1) {
        world_snapshot(w);
        return;
    }
    world_consolidate(w, 0);
    world_evict(w, 1);
}

#define BASE WORLD_BASE
#define STABLE WORLD_STABLE
#define CHAIN WORLD_CHAIN
#define EVICTED WORLD_EVICTED
#define GHOST WORLD_GHOST
#define DELTA WORLD_DELTA
#define GONE WORLD_FREE

static const struct pair pairs[] = {
    {"merge-merge", 2, merge_merge, 5, {{BASE}, {CHAIN}, {EVICTED}, {GHOST}, {DELTA}}, 0},
    {"merge-append-put", 3, merge_append_put, 2, {{BASE}, {EVICTED}}, 0},
    {"merge-consolidate", 2, merge_consolidate, 3, {{CHAIN}, {GHOST}, {DELTA}}, 0},
    {"merge-move", 2, merge_move, 4, {{STABLE}, {CHAIN}, {EVICTED}, {GHOST}}, 0},
    {"put-consolidate-move", 3, put_consolidate_move, 2, {{CHAIN}, {GHOST}}, 0},
    {"get-consolidate", 2, get_consolidate, 3, {{CHAIN}, {GHOST}, {DELTA}}, 0},
    {"get-evict", 2, get_evict, 3, {{STABLE}, {CHAIN}, {EVICTED}}, 0},
    {"get-get-evict", 3, get_get_evict, 2, {{EVICTED}, {STABLE}}, 0},
    {"together-get-evict", 3, together_get_evict, 2, {{EVICTED}, {STABLE}}, 0},
    {"together-merge", 2, together_merge, 3, {{EVICTED}, {GHOST}, {CHAIN}}, 0},
    {"evict-merge", 2, evict_merge, 3, {{STABLE}, {CHAIN}, {EVICTED}}, 0},
    {"evict-put-evict", 2, evict_put_evict, 2, {{STABLE}, {CHAIN}}, 0},
    {"evict-consolidate", 2, evict_consolidate, 2, {{CHAIN}, {GHOST}}, 0},
    {"free-append-allocate", 3, free_append_allocate, 2, {{BASE}, {EVICTED}}, PAIR_RECLAIMS},
    {"get-free-allocate", 2, get_free_allocate, 3, {{BASE}, {CHAIN}, {EVICTED}}, PAIR_RECLAIMS},
    {"get-put-grace", 2, get_put_grace, 2, {{BASE}, {CHAIN}}, PAIR_RECLAIMS},
    {"allocate-allocate", 2, allocate_allocate, 1, {{GONE}}, 0},
    {"batch-batch", 2, batch_batch, 3, {{BASE, BASE}, {EVICTED, CHAIN}, {STABLE, GHOST}}, 0},
    {"batch-batch-read", 3, batch_batch_read, 1, {{BASE, BASE}}, 0},
    {"batch-check", 2, batch_check, 2, {{BASE, BASE}, {EVICTED, EVICTED}}, 0},
    {"batch-merge", 2, batch_merge, 2, {{BASE, BASE}, {CHAIN, EVICTED}}, 0},
    {"batch-evict", 2, batch_evict, 2, {{STABLE, STABLE}, {CHAIN, EVICTED}}, 0},
    {"batch-consolidate", 2, batch_consolidate, 2, {{CHAIN, BASE}, {GHOST, EVICTED}}, 0},
    {"reserve-flush", 2, reserve_flush, 1, {{BASE, BASE}}, 0},
    {"reserve-reserve-flush", 3, reserve_reserve_flush, 1, {{BASE, BASE}}, 0},
    {"reserve-stream", 2, reserve_stream, 1, {{BASE, BASE}}, PAIR_FLUSHES | PAIR_HALF_FULL},
    {"punch-get", 2, punch_get, 1, {{EVICTED}}, PAIR_FILLS | PAIR_SNAPSHOTS},
    {"snapshot-merge",
     2,
     snapshot_merge,
     2,
     {{BASE, BASE}, {EVICTED, GHOST}},
     PAIR_RECOVERS | PAIR_SNAPSHOTS},
    {"snapshot-batch", 2, snapshot_batch, 1, {{BASE, BASE}}, PAIR_RECOVERS | PAIR_SNAPSHOTS},
    {"snapshot-consolidate",
     2,
     snapshot_consolidate,
     1,
     {{CHAIN, STABLE}},
     PAIR_RECOVERS | PAIR_SNAPSHOTS},
};
#define PAIRS (sizeof(pairs) / sizeof(pairs[0]))

/* ---- running them ------------------------------------------------------------------------------ */

struct result {
    uint64_t searched, drawn, again, used, diverged, points;
    bool complete;
};

struct session {
    const struct pair *pair;
    struct world *world;
    struct sched_search search;
    uint64_t seed;
};

static void
member_run(void *arg, unsigned i)
{
    struct session *s = arg;

    s->pair->run(s->world, i);
}

static uint64_t
segment_bytes(const struct pair *pair)
{
    return pair->flags & PAIR_RECOVERS ? SEGMENT_RECOVERED_BYTES : SEGMENT_BYTES;
}

static const struct sched_run *
cache_run(struct session *s, unsigned variant, const struct sched_policy *policy)
{
    struct world_log before = {.snapshot = s->pair->flags & PAIR_SNAPSHOTS};
    const struct sched_run *run;

    if (s->pair->flags & PAIR_FILLS)
        before.fill_bytes = FILL_BYTES;
    if (s->pair->flags & PAIR_HALF_FULL)
        before.unsynced_bytes = HALF_FULL_BYTES;
    world_prepare(s->world, s->pair->form[variant], &before);
    sched_crew(s->pair->threads, member_run, s, policy, &run);
    world_check(s->world);
    return run;
}

/* The first runs in a cache find what others do not. */
static void
session_fresh(struct session *s)
{
    static const struct sched_policy serial = {.kind = SCHED_SERIAL};

    if (s->world != NULL)
        world_close(s->world);
    s->world = world_open(s->seed, s->pair->threads, segment_bytes(s->pair));
    world_draft(s->world, s->pair->flags & PAIR_RECLAIMS, s->pair->flags & PAIR_FLUSHES);
    for (unsigned i = 0; i < 2; i++)
        (void)cache_run(s, 0, &serial);
}

/* One schedule. */
static const struct sched_run *
session_run(struct session *s, unsigned variant, const struct sched_policy *policy)
{
    uint64_t bytes =
        RUN_BYTES +
        (s->pair->flags & (PAIR_FILLS | PAIR_HALF_FULL) ? FILL_BYTES + PADDING_BYTES : 0);
    const struct sched_run *run;

    if (s->world == NULL || s->world->runs >= segment_bytes(s->pair) / bytes - 2)
        session_fresh(s);
    run = cache_run(s, variant, policy);
    if (s->pair->flags & PAIR_RECOVERS)
        world_recover(s->world);
    return run;
}

static struct sched_policy
policy_of_script(const struct sched_search *search)
{
    return (struct sched_policy){
        .kind = SCHED_SERIAL, .script = search->script, .script_n = search->n};
}

static void
script_name(const struct session *s, unsigned variant)
{
    int at = snprintf(kit_context, sizeof(kit_context), "replay %s %u/", s->pair->name, variant);
    bool any = false;

    for (uint32_t i = 0; i < s->search.n && at < (int)sizeof(kit_context) - 32; i++) {
        if (s->search.script[i] == 0)
            continue;
        at += snprintf(kit_context + at, sizeof(kit_context) - (size_t)at, "%s%u:%u",
                       any ? "," : "", i, s->search.script[i]);
        any = true;
    }
    if (!any)
        (void)snprintf(kit_context + at, sizeof(kit_context) - (size_t)at, "-");
}

/* A run that did not meet what its script was made for is tried once more in a fresh cache. */
static const struct sched_run *
script_run(struct session *s, unsigned variant, struct result *r)
{
    struct sched_policy policy = policy_of_script(&s->search);
    const struct sched_run *run = session_run(s, variant, &policy);
    uint64_t hash;

    r->searched++;
    if (!sched_search_kept(&s->search, run)) {
        session_fresh(s);
        run = session_run(s, variant, &policy);
        r->diverged += !sched_search_kept(&s->search, run);
    } else if (r->searched % AGAIN_EVERY == 0) {
        session_fresh(s); /* what a replay does */
        hash = session_run(s, variant, &policy)->hash;
        session_fresh(s);
        run = session_run(s, variant, &policy);
        KIT_CHECK(run->hash == hash, "the same number gives another run");
        r->again++;
    }
    r->points += run->points;
    return run;
}

static void
search_variant(struct session *s, unsigned variant, uint32_t bound, struct result *r)
{
    const struct sched_run *run;

    s->search.bound = bound;
    s->search.n = 0;
    do {
        script_name(s, variant);
        run = script_run(s, variant, r);
    } while (sched_search_next(&s->search, run));
}

/* The policy and the variant are the number's. */
static struct sched_policy
policy_of_number(const struct pair *pair, uint64_t seed, uint64_t number, unsigned *variant_out)
{
    uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) + number;
    struct sched_policy policy = {.seed = kit_random(&random)};

    *variant_out = (unsigned)kit_below(&random, pair->variants);
    policy.kind = kit_below(&random, 2) == 0 ? SCHED_PRIORITY : SCHED_RANDOM;
    policy.rarely = 2u << kit_below(&random, 5);
    policy.changes = 1 + (uint32_t)kit_below(&random, 4);
    policy.length = 32u << kit_below(&random, 4);
    return policy;
}

static void
number_run(struct session *s, uint64_t seed, uint64_t number, struct result *r)
{
    unsigned variant;
    struct sched_policy policy = policy_of_number(s->pair, seed, number, &variant);
    const struct sched_run *run;
    uint64_t hash, again;

    (void)snprintf(kit_context, sizeof(kit_context), "replay %s %" PRIu64 ":%" PRIu64,
                   s->pair->name, seed, number);
    run = session_run(s, variant, &policy);
    hash = run->hash;
    r->drawn++;
    r->points += run->points;
    if (number % AGAIN_EVERY != 0)
        return;
    session_fresh(s); /* what a replay does */
    again = session_run(s, variant, &policy)->hash;
    r->used += again != hash; /* a list was full, say, from the runs before */
    session_fresh(s);
    run = session_run(s, variant, &policy);
    KIT_CHECK(run->hash == again, "the same number gives another run");
    r->again++;
}

static void
pair_run(const struct pair *pair, uint64_t random, uint64_t seed, uint32_t bound, struct result *r)
{
    struct session *s = calloc(1, sizeof(*s));

    KIT_CHECK(s != NULL, "no memory");
    s->pair = pair;
    s->seed = seed;
    sched_begin(NULL);
    for (unsigned v = 0; v < pair->variants; v++)
        search_variant(s, v, bound, r);
    r->complete = r->diverged == 0;
    for (uint64_t i = 0; i < random; i++)
        number_run(s, seed, i, r);
    world_close(s->world);
    sched_end();
    free(s);
}

/* ---- main -------------------------------------------------------------------------------------- */

/* One process, one processor: passing the baton on is one switch. */
static void
pin(unsigned slot)
{
    cpu_set_t all, one;
    unsigned seen = 0;

    if (sched_getaffinity(0, sizeof(all), &all) != 0 || CPU_COUNT(&all) == 0)
        return;
    CPU_ZERO(&one);
    for (unsigned i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all) && seen++ == slot % (unsigned)CPU_COUNT(&all))
            CPU_SET(i, &one);
    (void)sched_setaffinity(0, sizeof(one), &one);
}

static int
replay(const char *name, const char *number)
{
    struct session *s = calloc(1, sizeof(*s));
    struct result r = {0};
    const char *slash = strchr(number, '/'), *colon = strchr(number, ':');
    int64_t n = -1;

    KIT_CHECK(s != NULL, "no memory");
    for (unsigned i = 0; i < PAIRS; i++)
        if (strcmp(pairs[i].name, name) == 0)
            s->pair = &pairs[i];
    if (slash != NULL)
        n = sched_path_parse(slash + 1, s->search.script);
    if (s->pair == NULL || (n < 0 && colon == NULL))
        return 2;
    pin(0);
    sched_begin(NULL);
    session_fresh(s);
    sched_tell(true);
    if (slash != NULL) {
        struct sched_policy policy;
        unsigned variant = (unsigned)strtoul(number, NULL, 10);

        KIT_CHECK(variant < s->pair->variants, "there is no variant %u", variant);
        s->search.n = (uint32_t)n;
        policy = policy_of_script(&s->search);
        script_name(s, variant);
        r.points = session_run(s, variant, &policy)->points;
    } else {
        number_run(s, strtoull(number, NULL, 10), strtoull(colon + 1, NULL, 10), &r);
    }
    sched_tell(false);
    world_close(s->world);
    printf("%s %s: %" PRIu64
           " points, nothing found. If it had been: that was in a used cache; run all of "
           "the pair with its seed\n",
           name, number, r.points);
    sched_end();
    free(s);
    return 0;
}

static void
result_print(const char *name, const struct result *r, int status, uint64_t ms, uint32_t bound)
{
    printf("%-24s %8" PRIu64 " schedules with %u preemptions, %s; %8" PRIu64 " drawn; %" PRIu64
           " repeated, %" PRIu64
           " had been another in a used cache; %.1f points each; %.1f s: %s\n",
           name, r->searched, bound, r->complete ? "all there are" : "NOT COMPLETED", r->drawn,
           r->again, r->used,
           (double)r->points / (double)(r->searched + r->drawn + (r->searched == 0)),
           (double)ms / 1000, status == 0 ? "ok" : "FAILED");
    fflush(stdout);
}

struct running {
    pid_t pid;
    unsigned pair;
    uint64_t began;
};

/* Wait for one of them; 1 if it failed. */
static int
reap(struct running *running, unsigned slots, const struct result *results, uint32_t bound)
{
    int status;
    pid_t pid = wait(&status);

    KIT_CHECK(pid > 0, "wait");
    for (unsigned i = 0; i < slots; i++) {
        const struct result *r = &results[running[i].pair];

        if (running[i].pid != pid)
            continue;
        running[i].pid = 0;
        result_print(pairs[running[i].pair].name, r, status, sched_real_ms() - running[i].began,
                     bound);
        return status != 0 || !r->complete;
    }
    return 0;
}

static void
total_print(const struct result *results, uint32_t bound)
{
    uint64_t searched = 0, drawn = 0, again = 0;

    for (unsigned i = 0; i < PAIRS; i++) {
        searched += results[i].searched;
        drawn += results[i].drawn;
        again += results[i].again;
    }
    printf("all: %" PRIu64 " schedules with %u preemptions, %" PRIu64 " drawn, %" PRIu64
           " repeated\n",
           searched, bound, drawn, again);
}

static int
run_all(const char *which, uint64_t random, uint64_t seed, uint32_t bound, unsigned slots)
{
    struct result *results = mmap(NULL, PAIRS * sizeof(*results), PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct running running[PAIRS_MAX] = {{0}};
    unsigned active = 0, known = 0;
    int failed = 0;

    KIT_CHECK(results != MAP_FAILED && slots <= PAIRS_MAX, "no memory");
    for (unsigned i = 0; i < PAIRS; i++) {
        unsigned slot = 0;

        if (strcmp(which, "all") != 0 && strcmp(which, pairs[i].name) != 0)
            continue;
        known++;
        for (; active == slots; active--)
            failed += reap(running, slots, results, bound);
        while (running[slot].pid != 0)
            slot++;
        running[slot] = (struct running){.pair = i, .began = sched_real_ms()};
        running[slot].pid = kit_fork();
        if (running[slot].pid == 0) {
            pin(slot);
            pair_run(&pairs[i], random, seed, bound, &results[i]);
            fflush(stdout);
            _exit(0);
        }
        active++;
    }
    for (; active > 0; active--)
        failed += reap(running, slots, results, bound);
    total_print(results, bound);
    return known == 0 ? 2 : failed != 0;
}

int
main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "replay") == 0)
        return replay(argv[2], argv[3]);
    linear_check();
    return run_all(argc > 1 ? argv[1] : "all", kit_argument(argc, argv, 2, 2000),
                   kit_argument(argc, argv, 3, 1), (uint32_t)kit_argument(argc, argv, 4, 2),
                   (unsigned)kit_argument(argc, argv, 5, (uint64_t)sysconf(_SC_NPROCESSORS_ONLN)));
}
