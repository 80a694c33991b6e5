/*
 * bench_cold.c - how close cold gets come to the device.
 *
 * QUESTION  a get of an evicted page of one record costs one read. How many such gets are there in a second
 *           beside plain preads of the same positions and lengths, through the same file descriptors (direct
 *           where the cache has them direct), by as many threads?
 * FIXED     the directory; positions are those at which the cache itself was seen to read each page, drawn
 *           uniformly, as the pages are. Rounds alternate: preads, gets, preads, ...; what counts is the
 *           ratio within a round.
 * FOOLED BY hits: the cache is a 16th of the data, and misses are counted, not gets. The OS cache: where
 *           O_DIRECT is not to be had (tmpfs), both read memory, and the line says direct: 0. Other work on
 *           the machine: hence rounds, and the spread.
 *
 * bench_cold DIR [threads (2) [seconds of a half round (1) [rounds (7) [pages (200000) [page bytes (1024)]]]]]
 *
 * Prints one line of JSON; DIR/bench-cold is made and removed.
 *
 * WORD      stop: main, relaxed: threads look at it between operations. done: of each thread, read after its
 *           join. noted: how many reads were noted, fetch_add relaxed: numbers of places in an array.
 */
#include "scree.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64u
#define ROUNDS_MAX 100u
#define NOTES_SPARE 4096u /* records that lie in two segments are two reads */
#define PAGE_BYTES_MAX (1u << 18)

struct worker {
    pthread_t thread;
    uint64_t random, done, sum;
    void *buffer;
};

static scree_cache *cache;
static scree_page_id *page_id;
static uint64_t pages, page_bytes;
static scree_env env;
static bool noting;          /* changed while nobody reads */
static bool buffered;        /* direct I/O was not to be had */
static scree_env_read *note; /* room for NOTES_SPARE more than there are pages */
static _Atomic uint64_t noted;
static _Atomic bool stop;

_Noreturn static void
fail(const char *what)
{
    (void)fprintf(stderr, "bench_cold: %s: %s\n", what, scree_error_detail());
    exit(1);
}

static uint64_t
random_next(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double
now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int
note_reads(void *ctx, scree_env_read *reads, size_t n)
{
    const scree_env *posix = scree_env_posix();

    (void)ctx;
    for (size_t i = 0; noting && i < n; i++) {
        uint64_t at = atomic_fetch_add_explicit(&noted, 1, memory_order_relaxed);

        if (at < pages + NOTES_SPARE)
            note[at] = reads[i];
    }
    return posix->read_many(posix->ctx, reads, n);
}

static void
on_event(void *ctx, const scree_event *event)
{
    (void)ctx;
    buffered |= event->kind == SCREE_EVENT_IO_BUFFERED;
}

static int
merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
      scree_out *out)
{
    (void)ctx, (void)id, (void)base, (void)frags, (void)n, (void)out;
    return 1; /* there are no fragments */
}

/* ---- the two halves of a round -------------------------------------------------------------------- */

static void *
read_plainly(void *arg)
{
    struct worker *w = arg;
    uint64_t n = atomic_load_explicit(&noted, memory_order_relaxed);

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        const scree_env_read *r = &note[random_next(&w->random) % n];

        if (pread(r->file, w->buffer, r->len, (off_t)r->offset) != (ssize_t)r->len)
            fail("pread");
        w->sum += *(const unsigned char *)w->buffer;
        w->done++;
    }
    return NULL;
}

static void *
get_pages(void *arg)
{
    struct worker *w = arg;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        scree_slice page;

        scree_read_enter(cache);
        if (scree_page_get(cache, page_id[random_next(&w->random) % pages], &page, NULL) != 0 ||
            page.len != page_bytes)
            fail("get");
        w->sum += *(const unsigned char *)page.data;
        scree_read_leave(cache);
        w->done++;
    }
    return NULL;
}

/* Operations in all; *took_out in seconds. */
static uint64_t
half_round(struct worker *workers, unsigned threads, void *(*run)(void *), double seconds,
           double *took_out)
{
    double begun = now();
    uint64_t done = 0;

    atomic_store_explicit(&stop, false, memory_order_relaxed);
    for (unsigned t = 0; t < threads; t++) {
        workers[t].done = 0;
        if (pthread_create(&workers[t].thread, NULL, run, &workers[t]) != 0)
            fail("thread");
    }
    (void)usleep((useconds_t)(seconds * 1e6));
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned t = 0; t < threads; t++) {
        (void)pthread_join(workers[t].thread, NULL);
        done += workers[t].done;
    }
    *took_out = now() - begun;
    return done;
}

static uint64_t
misses(void)
{
    scree_stats stats = {.size = sizeof stats};

    if (scree_stats_get(cache, &stats) != 0)
        fail("stats");
    return stats.misses;
}

/* ---- the directory -------------------------------------------------------------------------------- */

static void
open_and_fill(const char *dir, scree_options *options)
{
    static unsigned char page[PAGE_BYTES_MAX];
    uint64_t random = 1;

    if (scree_open(dir, options, &cache) != 0)
        fail("open");
    for (uint64_t i = 0; i < pages; i++) {
        for (uint64_t at = 0; at + 8 <= page_bytes; at += 8) {
            uint64_t word = random_next(&random);

            memcpy(page + at, &word, 8);
        }
        if (scree_page_allocate(cache, (scree_slice){page, page_bytes}, &page_id[i], NULL) != 0)
            fail("allocate");
    }
    if (scree_close(cache) != 0 || scree_open(dir, options, &cache) != 0) /* all are evicted */
        fail("reopen");
}

/* Where each page's record lies: every page is read once. */
static void
note_all(void)
{
    noting = true;
    for (uint64_t i = 0; i < pages; i++)
        if (scree_page_read(cache, page_id[i], NULL, 0, NULL, NULL) != SCREE_E_TOO_BIG)
            fail("read");
    noting = false;
    uint64_t n = atomic_load_explicit(&noted, memory_order_relaxed);

    if (n < pages || n > pages + NOTES_SPARE)
        fail("not one read a page");
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double
median(double *v, unsigned n)
{
    qsort(v, n, sizeof *v, compare);
    return v[n / 2];
}

static uint64_t
argument(int argc, char **argv, int at, uint64_t otherwise)
{
    return at < argc ? strtoull(argv[at], NULL, 0) : otherwise;
}

int
main(int argc, char **argv)
{
    unsigned threads = (unsigned)argument(argc, argv, 2, 2);
    double seconds = argc > 3 ? strtod(argv[3], NULL) : 1;
    unsigned rounds = (unsigned)argument(argc, argv, 4, 7);
    static struct worker workers[THREADS_MAX];
    double plain[ROUNDS_MAX], cold[ROUNDS_MAX], ratio[ROUNDS_MAX], took;
    scree_materializer materializer = {
        .size = sizeof materializer, .name = "bench-cold", .version = 1, .merge = merge};
    scree_options options;
    char dir[512], remove[600];
    uint64_t gets = 0, missed = 0;

    pages = argument(argc, argv, 5, 200000);
    page_bytes = argument(argc, argv, 6, 1024);
    page_id = calloc(pages, sizeof *page_id);
    note = calloc(pages + NOTES_SPARE, sizeof *note);
    if (argc < 2 || threads < 1 || threads > THREADS_MAX || rounds < 1 || rounds > ROUNDS_MAX ||
        page_bytes < 8 || page_bytes > PAGE_BYTES_MAX || page_id == NULL || note == NULL)
        return (void)fprintf(
                   stderr, "usage: bench_cold DIR [threads [seconds [rounds [pages [bytes]]]]]\n"),
               2;
    (void)snprintf(dir, sizeof dir, "%s/bench-cold", argv[1]);
    (void)snprintf(remove, sizeof remove, "rm -rf '%s'", dir);
    scree_options_init(&options);
    options.flags = SCREE_CREATE | SCREE_EXCLUSIVE;
    options.materializer = &materializer;
    options.cache_bytes = pages * page_bytes / 16;
    options.event = on_event;
    env = *scree_env_posix();
    env.read_many = note_reads;
    options.env = &env;
    options.flags = SCREE_CREATE;
    open_and_fill(dir, &options);
    for (unsigned t = 0; t < threads; t++) {
        workers[t].random = t + 1;
        workers[t].buffer = aligned_alloc(4096, 2 * PAGE_BYTES_MAX);
        if (workers[t].buffer == NULL)
            fail("memory");
    }
    note_all();
    (void)half_round(workers, threads, get_pages, seconds, &took); /* warms up */
    for (unsigned r = 0; r < rounds; r++) {
        plain[r] = (double)half_round(workers, threads, read_plainly, seconds, &took) / took;
        uint64_t before = misses();

        gets += half_round(workers, threads, get_pages, seconds, &took);
        missed += misses() - before;
        cold[r] = (double)(misses() - before) / took;
        ratio[r] = cold[r] / plain[r];
    }
    double middle = median(ratio, rounds);

    printf("{\"bench\":\"cold\",\"threads\":%u,\"pages\":%" PRIu64 ",\"page\":%" PRIu64
           ",\"direct\":%d,\"rounds\":%u,\"preads_s\":%.0f,\"cold_gets_s\":%.0f,\"misses_of_gets\":"
           "%.3f,"
           "\"ratio\":%.3f,\"ratio_min\":%.3f,\"ratio_max\":%.3f}\n",
           threads, pages, page_bytes, !buffered, rounds, median(plain, rounds),
           median(cold, rounds), (double)missed / (double)gets, middle, ratio[0],
           ratio[rounds - 1]);
    if (scree_close(cache) != 0)
        fail("close");
    return system(remove) != 0;
}
