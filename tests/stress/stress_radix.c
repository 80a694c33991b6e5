/*
 * stress_radix.c - many threads grow one tree at once.
 *
 * GOAL    every id gets exactly one place, for ever, whatever inserts and growth race with each
 * other.
 * METHOD  rounds of a fresh tree. In a round each thread makes the same ids, in its own random
 *         order, so that nearly every node is raced for. Ids are dense, sparse, or spread over all
 *         heights. A barrier starts the round. Meanwhile one thread in four walks and finds
 *         instead.
 * ORACLE  W1 each making thread adds 1 to the id's word and its own bit to the mark: at the end the
 *            word is the number of makers, the mark has all their bits (a lost or doubled node
 *         loses counts). W2 an id is found with the same leaf ever after it was first seen there.
 *         W3 a walk sees first ids strictly growing, and a leaf that was there before it began is
 *         seen. W4 scree__radix_bytes is what a recount of the nodes by ids gives: no loser was
 *         counted. W5 (AddressSanitizer, LeakSanitizer) losers' nodes are freed, winners' are freed
 *         by destroy. A leaf that was cut off a slab is in the tree or in the spare list. W6 marks
 *         of slots side by side, each changed by one thread only, are what that thread made them, at
 *         any time.
 *
 * stress_radix [seed [seconds [threads]]]
 */
#include "radix/radix.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { IDS = 600, THREADS_MAX = 64 };

#define EXPECT(x, ...)                                                                          \
    do {                                                                                        \
        if (!(x)) {                                                                             \
            (void)fprintf(stderr, "stress_radix: %s:%d: not so: %s: ", __FILE__, __LINE__, #x); \
            (void)fprintf(stderr, __VA_ARGS__);                                                 \
            (void)fputc('\n', stderr);                                                          \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

struct round {
    struct scree__radix radix;
    struct scree__radix marks; /* W6: one leaf; slot i is thread i's */
    uint64_t ids[IDS];
    pthread_barrier_t start;
    unsigned threads, makers;
    uint64_t seed;
};

struct worker {
    struct round *round;
    unsigned number;
    pthread_t thread;
};

static uint64_t
random_next(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int
compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* IDS different ids, sorted. */
static void
ids_fill(struct round *round, uint64_t *state)
{
    uint64_t kind = random_next(state) % 3;

    for (size_t n = 0; n < IDS;) {
        size_t i = n;

        for (; i < IDS; i++) {
            uint64_t r = random_next(state);

            round->ids[i] = kind == 0   ? r % (8 * IDS)                    /* few leaves */
                            : kind == 1 ? r % (UINT64_C(1) << 31)          /* a leaf each */
                                        : r >> (random_next(state) % 64u); /* all heights */
        }
        qsort(round->ids, IDS, sizeof round->ids[0], compare_u64);
        n = 1;
        for (i = 1; i < IDS; i++)
            if (round->ids[i] != round->ids[n - 1])
                round->ids[n++] = round->ids[i];
    }
}

static void
run_maker(struct worker *worker, uint64_t *state)
{
    struct round *round = worker->round;
    uint64_t order[IDS];

    memcpy(order, round->ids, sizeof order);
    for (size_t i = IDS - 1; i > 0; i--) {
        size_t k = random_next(state) % (i + 1);
        uint64_t swap = order[i];

        order[i] = order[k];
        order[k] = swap;
    }
    for (size_t i = 0; i < IDS; i++) {
        struct scree__radix_ref ref = scree__radix_make(&round->radix, order[i]);

        EXPECT(ref.leaf != NULL, "out of memory");
        EXPECT(ref.leaf->first_id + ref.index == order[i], "id %llx", (unsigned long long)order[i]);
        /* Relaxed: counted up behind the joins. */
        atomic_fetch_add_explicit(scree__radix_word(ref), 1, memory_order_relaxed);
        scree__radix_mark_set(ref, (uint8_t)(1u << worker->number % 4));
    }
}

/* W3. */
static void
walk_once(struct round *round, struct scree__radix_leaf *known)
{
    uint64_t first_last = 0;
    bool any = false, known_seen = known == NULL;

    for (struct scree__radix_leaf *leaf = scree__radix_leaf_from(&round->radix, 0); leaf != NULL;
         leaf = scree__radix_leaf_after(&round->radix, leaf)) {
        EXPECT(!any || leaf->first_id > first_last, "%llx behind %llx",
               (unsigned long long)leaf->first_id, (unsigned long long)first_last);
        any = true;
        first_last = leaf->first_id;
        known_seen = known_seen || leaf == known;
    }
    EXPECT(known_seen, "leaf %llx vanished", (unsigned long long)known->first_id);
}

static void
run_reader(struct worker *worker, uint64_t *state)
{
    struct round *round = worker->round;
    struct scree__radix_leaf *seen[IDS] = {NULL};

    for (unsigned k = 0; k < 40 * IDS; k++) {
        size_t i = random_next(state) % IDS;
        struct scree__radix_ref ref = scree__radix_find(&round->radix, round->ids[i]);

        EXPECT(seen[i] == NULL || ref.leaf == seen[i], "id %llx moved", /* W2 */
               (unsigned long long)round->ids[i]);
        EXPECT(ref.leaf == NULL || ref.leaf->first_id + ref.index == round->ids[i], "id %llx",
               (unsigned long long)round->ids[i]);
        seen[i] = ref.leaf;
        if (k % (16 * IDS) == 0)
            walk_once(round, ref.leaf);
    }
}

/* W6 */
static void
run_marks(struct worker *worker, uint64_t *state)
{
    struct scree__radix_ref ref = {scree__radix_leaf_from(&worker->round->marks, 0),
                                   worker->number};
    uint8_t mine = 0;

    for (unsigned k = 0; k < 2000; k++) {
        uint64_t r = random_next(state);
        uint8_t bits = (uint8_t)(r >> 1 & 0xf);
        uint8_t before =
            r & 1 ? scree__radix_mark_set(ref, bits) : scree__radix_mark_clear(ref, bits);

        EXPECT(before == mine, "slot %u: %x before, not %x", ref.index, before, mine);
        mine = (uint8_t)(r & 1 ? mine | bits : mine & ~bits);
        EXPECT(scree__radix_mark(ref) == mine, "slot %u: %x, not %x", ref.index,
               scree__radix_mark(ref), mine);
    }
}

static void *
worker_main(void *arg)
{
    struct worker *worker = arg;
    uint64_t state = worker->round->seed + worker->number;

    (void)pthread_barrier_wait(&worker->round->start);
    run_marks(worker, &state);
    (void)pthread_barrier_wait(&worker->round->start);
    if (worker->number < worker->round->makers)
        run_maker(worker, &state);
    else
        run_reader(worker, &state);
    return NULL;
}

/* How many different nodes there are on the way to the (sorted) ids, `shift` bits of which they
   cover. */
static uint64_t
nodes_at(const struct round *round, unsigned shift)
{
    uint64_t n = 1;

    for (size_t i = 1; shift < 64 && i < IDS; i++)
        n += round->ids[i] >> shift != round->ids[i - 1] >> shift;
    return n;
}

/* W1, W4. */
static void
round_check(struct round *round)
{
    uint8_t marks = (uint8_t)(round->makers >= 4 ? 0xf : (1u << round->makers) - 1);
    uint64_t bytes = nodes_at(round, 10) * sizeof(struct scree__radix_leaf);
    uintptr_t root = atomic_load_explicit(&round->radix.root, memory_order_relaxed); /* joined */

    for (size_t i = 0; i < IDS; i++) {
        struct scree__radix_ref ref = scree__radix_find(&round->radix, round->ids[i]);

        EXPECT(ref.leaf != NULL, "id %llx lost", (unsigned long long)round->ids[i]);
        uint64_t count = atomic_load_explicit(scree__radix_word(ref), memory_order_relaxed);
        uint8_t mark = scree__radix_mark(ref);

        EXPECT(count == round->makers, "id %llx: %llu of %u", (unsigned long long)round->ids[i],
               (unsigned long long)count, round->makers);
        EXPECT(mark == marks, "id %llx: %x", (unsigned long long)round->ids[i], mark);
    }
    for (unsigned height = 2; height <= scree__radix_height(root); height++)
        bytes += nodes_at(round, height * 10) * sizeof(struct scree__radix_inner);
    /* Growth may pass over ids 0: the leftmost nodes of a tree that began low are on no id's way. A
       tree that began empty at the height of its first id has none of them, so the recount is a
       lower bound by at most one node a level. */
    uint64_t counted = scree__radix_bytes(&round->radix);

    EXPECT(counted >= bytes, "%llu bytes, recount %llu", (unsigned long long)counted,
           (unsigned long long)bytes);
    EXPECT(counted <= bytes + SCREE__RADIX_HEIGHT_MAX * sizeof(struct scree__radix_inner),
           "%llu bytes, recount %llu", (unsigned long long)counted, (unsigned long long)bytes);
}

/* W5 */
static void
slabs_check(const struct scree__radix *radix)
{
    /* Relaxed: joined. */
    struct scree__radix_slab *slab = atomic_load_explicit(&radix->slab, memory_order_relaxed);
    struct scree__radix_spare *spare = atomic_load_explicit(&radix->spare, memory_order_relaxed);
    uint64_t published = atomic_load_explicit(&radix->leaf_count, memory_order_relaxed);
    uint64_t cut = 0, spares = 0;

    for (; slab != NULL; slab = slab->older) {
        uint32_t used = atomic_load_explicit(&slab->used, memory_order_relaxed);

        cut += used < slab->cap ? used : slab->cap;
    }
    for (; spare != NULL; spare = spare->next)
        spares++;
    EXPECT(cut == published + spares, "%llu leaves cut, %llu in the tree, %llu spare",
           (unsigned long long)cut, (unsigned long long)published, (unsigned long long)spares);
}

static void
round_run(struct round *round, unsigned threads, uint64_t seed)
{
    struct worker workers[THREADS_MAX];
    uint64_t state = seed;

    round->seed = random_next(&state);
    round->threads = threads;
    round->makers = threads - threads / 4;
    scree__radix_init(&round->radix);
    scree__radix_init(&round->marks);
    EXPECT(scree__radix_make(&round->marks, 0).leaf != NULL, "out of memory");
    ids_fill(round, &state);
    EXPECT(pthread_barrier_init(&round->start, NULL, threads) == 0, "barrier");
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){.round = round, .number = i};
        EXPECT(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) == 0, "thread");
    }
    for (unsigned i = 0; i < threads; i++)
        EXPECT(pthread_join(workers[i].thread, NULL) == 0, "join");
    (void)pthread_barrier_destroy(&round->start);
    round_check(round);
    slabs_check(&round->radix);
    scree__radix_destroy(&round->radix);
    scree__radix_destroy(&round->marks);
}

int
main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 2;
    unsigned threads = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 4;
    static struct round round;
    struct timespec begin, now;
    uint64_t rounds = 0;

    EXPECT(threads >= 1 && threads <= THREADS_MAX, "threads: 1 to %d", THREADS_MAX);
    (void)printf("stress_radix: seed %llu, %g s, %u threads\n", (unsigned long long)seed, seconds,
                 threads);
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        round_run(&round, threads, seed + rounds * 1000003);
        rounds++;
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - begin.tv_sec) + 1e-9 * (double)(now.tv_nsec - begin.tv_nsec) <
             seconds);
    (void)printf("stress_radix: %llu rounds, ok\n", (unsigned long long)rounds);
    return 0;
}
