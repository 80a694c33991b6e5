/*
 * stress_charge.c - is what the cache says of its memory what the allocator says?
 *
 * GOAL      charged_bytes is all that the allocator gave for pages: resident, retired, kept for reuse. What
 *           threads keep is bounded. Nothing is lost, also where memory runs out in the middle.
 * METHOD    nodes of pages come from a jemalloc arena of their own (alloc.c is compiled in once more, with
 *           SCREE_PAGE_ARENA). Phases of all kinds of operations on pages of all sizes, by several threads;
 *           of cold reads; of updates while a guard keeps all that was retired; of failing allocations, in
 *           builds that have them; and reopening. The threads end; then the figures are compared.
 * ORACLE    C1 charged_bytes becomes what jemalloc has allocated in the arena, to the byte (promised: 5%);
 *           waited for, as the reclaimer and other background threads may still be at work.
 *           C2 resident + retired <= charged, and what is kept for reuse is within the bound for the threads
 *           there are. C3 under a guard at least what was replaced since is retired. C4 after the close the
 *           arena is empty.
 *           Without jemalloc, or under sanitizers: skipped.
 * NOT HERE  what an evicted page costs (stress_evicted).
 *
 * stress_charge [seed] [seconds] [threads]
 *
 * WORD, EDGES  none: threads share the cache, and which pages there are.   LIFETIME  static.
 * PROGRESS  WAIT_MS bounds C1's wait.   FAILURE  the run ends.
 */
#include "support/kit.h"

#include "base/base.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define SKIPPED 77

#ifndef SCREE_PAGE_ARENA
int
main(void)
{
    printf("skipped: jemalloc was not found at configure time, or does not go with this build\n");
    return SKIPPED;
}
#else

#include <jemalloc/jemalloc.h>

#define THREADS_MAX 16u
#define PAGES 3000u
#define BYTES_MAX 9000u    /* of a page: beyond the largest size class */
#define STEPS 6000u        /* of a thread in a phase */
#define STEPS_GUARDED 200u /* updates wait for the reclaimer there, each for a while */
#define DEEP 900u
#define WAIT_MS 20000u
#define BACKGROUND 8u /* more threads of the cache than it has */
#define HOARD_BYTES_MAX ((uint64_t)4 << 20)

#define CHECK_OK(call)                                                                  \
    do {                                                                                \
        int result_ = (call);                                                           \
                                                                                        \
        KIT_CHECK(result_ == 0, #call " gives %d %s", result_, kit_code_name(result_)); \
    } while (0)

enum phase { MIX, COLD, GUARDED, FAULTS, PHASES };

struct worker {
    pthread_t thread;
    enum phase phase;
    uint64_t random;
};

static scree_cache *cache;
static scree_options options;
static uint32_t threads;
static scree_page_id pages[PAGES];

static size_t
arena_figure(const char *what)
{
    char name[64];
    size_t value = 0, len = sizeof(value);

    snprintf(name, sizeof(name), "stats.arenas.%u.%s.allocated", scree__page_arena, what);
    KIT_CHECK(mallctl(name, &value, &len, NULL, 0) == 0, "%s", name);
    return value;
}

static uint64_t
arena_bytes(void)
{
    uint64_t epoch = 1;
    size_t len = sizeof(epoch);

    KIT_CHECK(mallctl("epoch", &epoch, &len, &epoch, len) == 0, "epoch");
    return arena_figure("small") + arena_figure("large");
}

static scree_stats
stats(void)
{
    scree_stats figures = {.size = sizeof(figures)};

    CHECK_OK(scree_stats_get(cache, &figures));
    return figures;
}

/* C1, C2 */
static scree_stats
check(const char *after)
{
    uint64_t until = kit_now_ms() + WAIT_MS, hoard = options.cache_bytes / 64, arena, kept;
    scree_stats s;
    bool agree;

    do {
        s = stats(); /* not of one moment: what is retired meanwhile may count twice */
        arena = arena_bytes();
        agree = s.charged_bytes == arena && s.resident_bytes + s.retired_bytes <= s.charged_bytes;
        if (!agree)
            usleep(1000);
    } while (!agree && kit_now_ms() < until);
    KIT_CHECK(s.charged_bytes == arena,
              "after %s: charged %" PRIu64 ", allocated %" PRIu64 " (resident %" PRIu64
              ", retired %" PRIu64 ")",
              after, s.charged_bytes, arena, s.resident_bytes, s.retired_bytes);
    KIT_CHECK(s.resident_bytes + s.retired_bytes <= s.charged_bytes,
              "after %s: resident %" PRIu64 " + retired %" PRIu64 " > charged %" PRIu64, after,
              s.resident_bytes, s.retired_bytes, s.charged_bytes);
    kept = s.charged_bytes - s.resident_bytes - s.retired_bytes;
    if (hoard > HOARD_BYTES_MAX)
        hoard = HOARD_BYTES_MAX;
    hoard += hoard / 4; /* size classes of the allocator are wider than ours */
    KIT_CHECK(kept <= (threads + BACKGROUND) * hoard, "after %s: %" PRIu64 " kept for reuse", after,
              kept);
    return s;
}

static bool
may_be(enum phase phase, int rc)
{
    return rc == 0 || rc == SCREE_E_NOT_FOUND || rc == SCREE_E_CONFLICT || rc == SCREE_E_BUSY ||
           (phase == FAULTS && rc == SCREE_E_NO_MEMORY);
}

/* Bytes of all lengths, short ones more often. */
static scree_slice
bytes_make(uint64_t *random)
{
    static const unsigned char bytes[BYTES_MAX];

    return kit_slice(bytes, kit_below(random, 1 + kit_below(random, BYTES_MAX)));
}

static int
step(struct worker *w)
{
    scree_page_id id = pages[kit_below(&w->random, PAGES)];
    scree_version version = 0;
    scree_slice page = {NULL, 0};
    int rc = 0;

    switch (w->phase == COLD ? 7 : kit_below(&w->random, 10)) {
    case 0:
        return scree_page_put(cache, id, bytes_make(&w->random), NULL);
    case 1:
        scree_read_enter(cache);
        rc = scree_page_get(cache, id, &page, &version);
        if (rc == 0)
            rc = scree_page_set(cache, id, &version, bytes_make(&w->random));
        scree_read_leave(cache);
        return rc;
    case 2:
        rc = scree_page_free(cache, id, &version); /* 0 conflicts: tells the version */
        if (rc == SCREE_E_CONFLICT)
            rc = scree_page_free(cache, id, &version);
        return rc == 0 ? scree_page_allocate_at(cache, id, bytes_make(&w->random), NULL) : rc;
    case 3:
    case 4:
    case 5:
        return scree_page_append(cache, id, kit_slice("fragment", kit_below(&w->random, 9)), NULL);
    default:
        return scree_page_read(cache, id, NULL, 0, NULL, NULL) == SCREE_E_NO_MEMORY
                   ? SCREE_E_NO_MEMORY
                   : 0;
    }
}

#ifdef SCREE_ALLOC_FAULTS
/* A chain longer than what a thread has at hand to remember it by is replaced, with no memory left. */
static void
replace_deep(struct worker *w)
{
    scree_page_id id = pages[kit_below(&w->random, PAGES)];
    int rc = 0;

    for (uint32_t i = 0; i < DEEP && rc == 0; i++)
        rc = scree_page_append(cache, id, kit_slice("deep", 4), NULL);
    KIT_CHECK(may_be(w->phase, rc), "%d %s", rc, kit_code_name(rc));
    /* The new node and a batch may be had; not a second batch. */
    scree__alloc_fault(1 + kit_below(&w->random, 4), UINT64_MAX);
    rc = scree_page_put(cache, id, kit_slice("new", 3), NULL);
    scree__alloc_fault(0, 0);
    KIT_CHECK(may_be(w->phase, rc), "%d %s", rc, kit_code_name(rc));
}
#endif

static void *
work(void *arg)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < (w->phase == GUARDED ? STEPS_GUARDED : STEPS); i++) {
#ifdef SCREE_ALLOC_FAULTS
        if (w->phase == FAULTS && i % 1000 == 0)
            replace_deep(w);
        if (w->phase == FAULTS)
            scree__alloc_fault(kit_below(&w->random, 30), 1 + kit_below(&w->random, 20));
#endif
        int rc = step(w);

        if (rc == SCREE_E_NOT_FOUND) /* freed, and busy when it was to be allocated again */
            rc = scree_page_allocate_at(cache, pages[kit_below(&w->random, PAGES)],
                                        bytes_make(&w->random), NULL);
        KIT_CHECK(may_be(w->phase, rc), "%d %s", rc, kit_code_name(rc));
    }
    return NULL;
}

static void
run(enum phase phase, uint64_t seed)
{
    struct worker workers[THREADS_MAX];
    uint32_t n = phase == FAULTS ? 1 : threads; /* whose allocation fails must be told apart */

    for (uint32_t t = 0; t < n; t++) {
        workers[t] = (struct worker){.phase = phase, .random = seed * 1000 + t};
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, work, &workers[t]) == 0, "thread");
    }
    for (uint32_t t = 0; t < n; t++)
        pthread_join(workers[t].thread, NULL);
#ifdef SCREE_ALLOC_FAULTS
    scree__alloc_fault(0, 0);
#endif
}

/* C3: a guard is open, so nothing that is unlinked now is given back. */
static void
run_guarded(uint64_t seed)
{
    uint64_t bytes = 0, random = seed;

    scree_read_enter(cache);
    for (uint32_t i = 0; i < 200; i++) {
        scree_slice page = bytes_make(&random);

        if (scree_page_put(cache, pages[i], page, NULL) == SCREE_E_NOT_FOUND)
            continue;
        /* This unlinks the first one, which nobody evicted in between: it was not stable. */
        CHECK_OK(scree_page_put(cache, pages[i], page, NULL));
        bytes += page.len;
    }
    run(GUARDED, seed);
    scree_stats s = check("updates under a guard");

    KIT_CHECK(s.retired_bytes >= bytes, "%" PRIu64 " retired, %" PRIu64 " replaced",
              s.retired_bytes, bytes);
    scree_read_leave(cache);
}

static void
reopen(const char *directory)
{
    CHECK_OK(scree_close(cache));
    KIT_CHECK(arena_bytes() == 0, "%" PRIu64 " bytes left behind", arena_bytes()); /* C4 */
    CHECK_OK(scree_open(directory, &options, &cache));
    (void)check("reopening");
}

int
main(int argc, char **argv)
{
    static const char *const names[PHASES] = {"a mix", "cold reads", "a guard", "failures"};
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t until = kit_now_ms() + kit_argument(argc, argv, 2, 8) * 1000, rounds = 0;
    uint64_t random = seed;
    size_t len = sizeof(scree__page_arena);
    char directory[KIT_PATH_MAX];

    threads = (uint32_t)kit_argument(argc, argv, 3, 4);
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    KIT_CHECK(mallctl("arenas.create", &scree__page_arena, &len, NULL, 0) == 0, "no arena");
    kit_dir_name(directory, "charge");
    scree_options_init(&options);
    options.flags = SCREE_CREATE;
    options.materializer = &kit_concat;
    options.cache_bytes = (uint64_t)4 << 20;
    options.segment_bytes = (uint64_t)4 << 20;
    options.log_buffer_bytes = (uint64_t)1 << 20;
    options.page_bytes_max = (uint64_t)1 << 18;
    options.flush_interval_ms = 5;
    options.fragments_max = DEEP;
    CHECK_OK(scree_open(directory, &options, &cache));
    for (uint32_t i = 0; i < PAGES; i++)
        CHECK_OK(scree_page_allocate(cache, bytes_make(&random), &pages[i], NULL));
    do {
        snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
        for (enum phase phase = MIX; phase < PHASES; phase++) {
            if (phase == GUARDED)
                run_guarded(seed);
            else
                run(phase, seed);
            (void)check(names[phase]);
        }
        reopen(directory);
        rounds++;
        seed++;
    } while (kit_now_ms() < until);
    CHECK_OK(scree_close(cache));
    KIT_CHECK(arena_bytes() == 0, "%" PRIu64 " bytes left behind", arena_bytes()); /* C4 */
    kit_dir_remove(directory);
    printf("%" PRIu64 " rounds: every figure was the allocator's\n", rounds);
    return 0;
}
#endif
