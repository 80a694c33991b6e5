/*
 * common.h - the frame of the ceilings: options, keys, page content, timed threads, the line of JSON.
 *
 * Page content, keys, warm-up and sampling are those of scree bench (tools/scree/bench_*.c), written once
 * more so that nothing of the library is in these programs.
 *
 * WORD      stop: main, relaxed: workers look at it between batches of operations; it only ends a loop.
 *           Everything else a worker has is its own until it is joined.
 */
#ifndef CEILING_COMMON_H
#define CEILING_COMMON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define CEILING_LINE 128u /* two cache lines: what the adjacent line prefetcher takes */
#define CEILING_THREADS_MAX 32u
#define CEILING_BATCH 64u /* operations between two looks at the clock */
#define CEILING_DRAWS (1u << 22)
#define CEILING_BUCKETS (16u * 38u)

#define CEILING_POOL 64u       /* bodies of fragments, drawn beforehand */
#define CEILING_FRAGS_KEPT 16u /* appending beyond this many cuts a page back to its base */
#define CEILING_HEAD_BYTES 8u  /* of a page: u32 base_len, u32 nfrag */

struct ceiling_options {
    const char *workload;
    const char *dir;
    unsigned threads;
    double seconds;
    uint64_t n;
    uint32_t page, frag; /* bytes */
    uint32_t queue;      /* reads in flight, of a thread */
    uint32_t ring_mib;
    uint64_t seed;
    bool zipfian;
};

/* Log-linear: 16 steps per power of two, in ns. */
struct ceiling_histogram {
    uint64_t max;
    uint64_t count[CEILING_BUCKETS];
};

struct ceiling_worker {
    _Alignas(CEILING_LINE) const struct ceiling_options *options;
    void *shared;          /* of the program */
    void *own;             /* of the program, for this thread */
    const uint32_t *draws; /* keys, drawn beforehand */
    uint64_t at;           /* next of them */
    uint64_t ops, sum, cpu_ns;
    uint64_t random;
    unsigned thread;
    const _Atomic uint32_t *stop;
    struct ceiling_histogram *latency;
};

typedef void (*ceiling_op)(struct ceiling_worker *w);
typedef void (*ceiling_work)(struct ceiling_worker *w);

/* Options come filled with the program's defaults. */
void ceiling_parse(struct ceiling_options *o, int argc, char **argv, const char *doc);
/* Warms up for a quarter of the time (a second at most), then runs for it; the seconds it took. */
double ceiling_run(struct ceiling_worker *w, unsigned n, double seconds, ceiling_work work);
/* A worker for each thread; keys are drawn if `drawn`. */
struct ceiling_worker *ceiling_workers(const struct ceiling_options *o, void *shared, bool drawn);
void ceiling_print(const struct ceiling_options *o, const struct ceiling_worker *w, double seconds,
                   const char *config);
_Noreturn void ceiling_fail(const char *what, int error);
void *ceiling_alloc(size_t bytes);
/* Huge pages where the system has them; rounded up to 2 MiB. */
void *ceiling_alloc_huge(size_t bytes);
void ceiling_histogram_add(struct ceiling_histogram *h, uint64_t ns);

/* An unlinked file of `bytes` in DIR, opened O_DIRECT | flags, each block of it written. */
int ceiling_file(const char *dir, const char *name, uint64_t bytes, int flags);

/* Pages of one allocation each: 24 bytes that stand for a header, the page right behind them. */
unsigned char **ceiling_pages(const struct ceiling_options *o);

void ceiling_page_make(void *page, uint32_t len, uint64_t key, uint64_t seed);
void ceiling_fragment_make(void *fragment, uint32_t len, uint32_t index, uint64_t seed);

static inline uint64_t
ceiling_fragment_stamp(uint64_t key, uint32_t index)
{
    return key << 8 | index;
}

/* The line will be written: gcc's own prefetch fetches it shared where -mprfchw is not given, and a line
   another core has written then travels twice. */
static inline void
ceiling_prefetch_write(const void *p)
{
#ifdef __x86_64__
    __asm__ __volatile__("prefetchw %0" : : "m"(*(const char *)p));
#else
    __builtin_prefetch(p, 1);
#endif
}

static inline uint64_t
ceiling_random(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline uint64_t
ceiling_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static inline uint32_t
ceiling_next(struct ceiling_worker *w)
{
    return w->draws[w->at++ & (CEILING_DRAWS - 1)];
}

static inline bool
ceiling_going(const struct ceiling_worker *w)
{
    return atomic_load_explicit(w->stop, memory_order_relaxed) == 0; /* only ends the loop */
}

/* Operations until they are stopped, the first of each batch timed. */
static inline __attribute__((always_inline)) void
ceiling_loop(struct ceiling_worker *w, unsigned batch, ceiling_op op)
{
    while (ceiling_going(w)) {
        uint64_t start = ceiling_now_ns();

        op(w);
        ceiling_histogram_add(w->latency, ceiling_now_ns() - start);
        for (unsigned i = 1; i < batch; i++)
            op(w);
        w->ops += batch;
    }
}

#endif
