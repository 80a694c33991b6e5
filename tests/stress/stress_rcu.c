/*
 * stress_rcu.c - does a grace period keep memory alive for those who may still read it?
 *
 * GOAL    base/rcu.h: what is unlinked, then waited for, then freed is read by nobody after that.
 * METHOD  readers load one of a few shared pointers in a (sometimes nested) section and check what
 *         it points at several times; writers replace the object, wait, poison the old one and free
 *         it.
 * ORACLE  R1 every word of an object holds its stamp for as long as the section lasts (a free too
 *            early shows as poison, or to a sanitizer). R2 an object's stamp is never older than
 *            one seen before at that place by the same reader. R3 a section is known to be one,
 *            also nested, and only there.
 *
 * stress_rcu [seed [seconds [threads]]]
 */
#include "base/rcu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PLACES = 4, WORDS = 16, THREADS_MAX = 64 };

#define POISON UINT64_C(0xdbdbdbdbdbdbdbdb)

#define EXPECT(x, ...)                                                                        \
    do {                                                                                      \
        if (!(x)) {                                                                           \
            (void)fprintf(stderr, "stress_rcu: %s:%d: not so: %s: ", __FILE__, __LINE__, #x); \
            (void)fprintf(stderr, __VA_ARGS__);                                               \
            (void)fputc('\n', stderr);                                                        \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

struct object {
    uint64_t word[WORDS]; /* all the stamp; set before publish, poisoned after the grace period */
};

static struct object *_Atomic places[PLACES];
static _Atomic uint64_t stamp_last;
static _Atomic int stop;
static _Atomic uint64_t replaced, seen;

static struct object *
object_make(uint64_t stamp)
{
    struct object *object = scree__alloc(sizeof *object);

    EXPECT(object != NULL, "out of memory");
    for (int i = 0; i < WORDS; i++)
        object->word[i] = stamp;
    return object;
}

static void
object_free(struct object *object)
{
    for (int i = 0; i < WORDS; i++)
        object->word[i] = POISON;
    scree__free(object, sizeof *object);
}

static void *
writer_main(void *arg)
{
    unsigned place = *(unsigned *)arg % PLACES;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) { /* advice, no edge */
        /* Relaxed: only uniqueness and growth are needed; the publish below orders the object. */
        uint64_t stamp = atomic_fetch_add_explicit(&stamp_last, 1, memory_order_relaxed) + 1;
        struct object *object = object_make(stamp);

        SCREE_YIELD_POINT();
        /* Release: the object's words reach readers. Acquire: those of the old one reach us. */
        object = atomic_exchange_explicit(&places[place], object, memory_order_acq_rel);
        scree__rcu_wait(); /* unlinked above; freed here by us, the one who unlinked it */
        object_free(object);
        atomic_fetch_add_explicit(&replaced, 1, memory_order_relaxed); /* a figure */
    }
    return NULL;
}

static uint64_t
section_check(unsigned place, unsigned looks)
{
    /* Acquire: the object's words as they were published. */
    const struct object *object = atomic_load_explicit(&places[place], memory_order_acquire);
    uint64_t stamp = object->word[0];

    EXPECT(stamp != POISON, "freed under a reader"); /* R1 */
    for (unsigned k = 0; k < looks; k++) {
        SCREE_YIELD_POINT();
        for (int i = 0; i < WORDS; i++)
            EXPECT(object->word[i] == stamp, "%llx, not %llx", (unsigned long long)object->word[i],
                   (unsigned long long)stamp); /* R1 */
    }
    return stamp;
}

static void *
reader_main(void *arg)
{
    uint32_t state = *(unsigned *)arg * 2654435761u + 1;
    uint64_t stamps[PLACES] = {0};

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) { /* advice */
        state = state * 1664525u + 1013904223u;
        unsigned place = (state >> 24) % PLACES;
        bool nested = (state >> 20 & 3u) == 0;

        EXPECT(!scree__rcu_inside(), "outside"); /* R3 */
        scree__rcu_enter();
        if (nested) {
            scree__rcu_enter();
            (void)section_check(place, 1);
            scree__rcu_leave();
        }
        EXPECT(scree__rcu_inside(), "inside"); /* R3 */
        uint64_t stamp = section_check(place, state >> 27);

        scree__rcu_leave();
        EXPECT(stamp >= stamps[place], "older than seen before"); /* R2 */
        stamps[place] = stamp;
        atomic_fetch_add_explicit(&seen, 1, memory_order_relaxed); /* a figure */
    }
    return NULL;
}

int
main(int argc, char **argv)
{
    unsigned seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 1;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 2;
    unsigned threads = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 4;
    pthread_t thread[THREADS_MAX];
    unsigned number[THREADS_MAX];

    EXPECT(threads >= 2 && threads <= THREADS_MAX, "threads: 2 to %d", THREADS_MAX);
    (void)printf("stress_rcu: seed %u, %g s, %u threads\n", seed, seconds, threads);
    for (unsigned i = 0; i < PLACES; i++)
        atomic_store_explicit(&places[i], object_make(0),
                              memory_order_relaxed); /* before threads */
    for (unsigned i = 0; i < threads; i++) {
        /* One writer a place at most: R2 needs stamps that grow there. */
        bool writes = i % 2 == 0 && i / 2 < PLACES;

        number[i] = writes ? i / 2 : seed + i;
        EXPECT(pthread_create(&thread[i], NULL, writes ? writer_main : reader_main, &number[i]) ==
                   0,
               "thread");
    }
    struct timespec nap = {.tv_sec = (time_t)seconds,
                           .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};

    (void)nanosleep(&nap, NULL);
    atomic_store_explicit(&stop, 1, memory_order_relaxed); /* advice */
    for (unsigned i = 0; i < threads; i++)
        EXPECT(pthread_join(thread[i], NULL) == 0, "join");
    for (unsigned i = 0; i < PLACES; i++)
        object_free(atomic_load_explicit(&places[i], memory_order_relaxed)); /* alone */
    uint64_t reads = atomic_load_explicit(&seen, memory_order_relaxed);      /* joined, as below */
    uint64_t writes = atomic_load_explicit(&replaced, memory_order_relaxed);

    EXPECT(reads > 0 && writes > 0, "nothing happened");
    (void)printf("stress_rcu: %llu reads, %llu replaced, ok\n", (unsigned long long)reads,
                 (unsigned long long)writes);
    return 0;
}
