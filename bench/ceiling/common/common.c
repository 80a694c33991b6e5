/*
 * common.c - the frame of the ceilings, see common.h for its one shared word.
 */
#include "common.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ZIPF_THETA 0.99
#define WARM_S_MAX 1.0
#define WARM_SHARE 0.25
#define NODE_HEADER_BYTES 24u
#define FILE_WRITE_BYTES (1u << 20)

/* As the scree tool has it: jemalloc reads this; pages are in huge pages where the system has them. */
extern __attribute__((visibility("default"))) const char *malloc_conf;
const char *malloc_conf = "thp:always";

_Noreturn void
ceiling_fail(const char *what, int error)
{
    (void)fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(error));
    exit(1);
}

void *
ceiling_alloc(size_t bytes)
{
    void *p = aligned_alloc(CEILING_LINE, (bytes + CEILING_LINE - 1) / CEILING_LINE * CEILING_LINE);

    if (p == NULL)
        ceiling_fail("memory", ENOMEM);
    memset(p, 0, bytes);
    return p;
}

void *
ceiling_alloc_huge(size_t bytes)
{
    size_t unit = (size_t)2 << 20, all = (bytes + unit - 1) / unit * unit;
    void *p = aligned_alloc(unit, all);

    if (p == NULL)
        ceiling_fail("memory", ENOMEM);
    (void)madvise(p, all, MADV_HUGEPAGE); /* else it is slower */
    return p;
}

/* ---- options ---------------------------------------------------------------------------------------- */

static uint64_t
parse_count(const struct argp_state *state, const char *text, uint64_t min, uint64_t max)
{
    char *end = NULL;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || value < min || value > max)
        argp_error(state, "'%s' is not a whole number from %" PRIu64 " to %" PRIu64, text, min,
                   max);
    return value;
}

static error_t
parse_option(int key, char *arg, struct argp_state *state)
{
    struct ceiling_options *o = state->input;

    switch (key) {
    case 't':
        o->threads = (unsigned)parse_count(state, arg, 1, CEILING_THREADS_MAX);
        break;
    case 's':
        o->seconds = strtod(arg, NULL);
        if (!(o->seconds > 0 && o->seconds < 1e6))
            argp_error(state, "'%s' is not a number of seconds", arg);
        break;
    case 'n':
        o->n = parse_count(state, arg, 1, UINT64_C(1) << 31);
        break;
    case 'd':
        o->dir = arg;
        break;
    case 'p':
        o->page = (uint32_t)parse_count(state, arg, 64, 1u << 16) & ~7u;
        break;
    case 'f':
        o->frag = (uint32_t)parse_count(state, arg, 8, 1u << 12) & ~7u;
        break;
    case 'S':
        o->seed = parse_count(state, arg, 0, UINT64_MAX);
        break;
    case 'q':
        o->queue = (uint32_t)parse_count(state, arg, 1, 1024);
        break;
    case 'r':
        o->ring_mib = (uint32_t)parse_count(state, arg, 4, 1024);
        break;
    case 'w':
        if (strcmp(arg, "frag-merge") != 0 && strcmp(arg, "mixed") != 0)
            argp_error(state, "'%s' is neither frag-merge nor mixed", arg);
        o->workload = arg;
        o->zipfian = strcmp(arg, "mixed") == 0;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

void
ceiling_parse(struct ceiling_options *o, int argc, char **argv, const char *doc)
{
    static const struct argp_option all[] = {
        {"threads", 't', "N", 0, "threads (1)", 0},
        {"seconds", 's', "S", 0, "how long the timed part takes (4)", 0},
        {"n", 'n', "N", 0, "pages (100000)", 0},
        {"dir", 'd', "DIR", 0, "where files are made, unlinked at once (.)", 0},
        {"page", 'p', "BYTES", 0, "of a page without fragments, in eights (1024)", 0},
        {"frag", 'f', "BYTES", 0, "of a fragment, in eights (64)", 0},
        {"seed", 'S', "N", 0, "of keys and content (1)", 0},
        {"queue", 'q', "N", 0, "ceiling_cold: reads in flight (1)", 0},
        {"ring", 'r', "MIB", 0, "ceiling_frag_merge: log buffer, a power of two (16)", 0},
        {"workload", 'w', "W", 0, "ceiling_frag_merge: frag-merge or mixed", 0},
        {0},
    };
    const struct argp argp = {all, parse_option, NULL, doc, NULL, NULL, NULL};

    o->threads = 1;
    o->seconds = 4;
    o->n = 100000;
    o->dir = ".";
    o->page = 1024;
    o->frag = 64;
    o->queue = 1;
    o->ring_mib = 16;
    o->seed = 1;
    (void)argp_parse(&argp, argc, argv, 0, NULL, o);
}

/* ---- page content ----------------------------------------------------------------------------------- */

static uint64_t
mix(uint64_t x)
{
    return ceiling_random(&x);
}

static void
fill(unsigned char *to, size_t len, uint64_t seed)
{
    uint64_t state = seed;

    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = ceiling_random(&state);

        if (at % 64 >= 32)
            word = UINT64_C(0x0101010101010101) * (uint64_t)('a' + seed % 26);
        memcpy(to + at, &word, len - at < 8 ? len - at : 8);
    }
}

void
ceiling_page_make(void *page, uint32_t len, uint64_t key, uint64_t seed)
{
    const uint32_t head[2] = {len - CEILING_HEAD_BYTES, 0};

    memcpy(page, head, sizeof(head));
    fill((unsigned char *)page + sizeof(head), len - sizeof(head), mix(key) ^ seed);
}

void
ceiling_fragment_make(void *fragment, uint32_t len, uint32_t index, uint64_t seed)
{
    fill(fragment, len, mix(0xf0000000u + index) ^ seed);
}

unsigned char **
ceiling_pages(const struct ceiling_options *o)
{
    unsigned char **pages = ceiling_alloc(o->n * sizeof(*pages));

    for (uint64_t key = 0; key < o->n; key++) {
        unsigned char *node = malloc(NODE_HEADER_BYTES + o->page);

        if (node == NULL)
            ceiling_fail("memory", ENOMEM);
        memset(node, 0, NODE_HEADER_BYTES);
        pages[key] = node + NODE_HEADER_BYTES;
        ceiling_page_make(pages[key], o->page, key, o->seed);
    }
    return pages;
}

/* ---- keys ------------------------------------------------------------------------------------------- */

/* Ranks by the method of Gray et al. (SIGMOD 1994), scattered over the keys by a hash. */
static void
draw_zipfian(const struct ceiling_options *o, uint64_t *random, uint32_t *draws)
{
    double n = (double)o->n, zeta_n = 0, zeta_2 = 1 + pow(0.5, ZIPF_THETA);
    double alpha = 1 / (1 - ZIPF_THETA), eta;

    for (uint64_t i = 1; i <= o->n; i++)
        zeta_n += 1 / pow((double)i, ZIPF_THETA);
    eta = (1 - pow(2 / n, 1 - ZIPF_THETA)) / (1 - zeta_2 / zeta_n);
    for (uint32_t i = 0; i < CEILING_DRAWS; i++) {
        double u = (double)(ceiling_random(random) >> 11) * 0x1p-53, uz = u * zeta_n;
        uint64_t rank = 0;

        if (uz >= zeta_2)
            rank = (uint64_t)(n * pow(eta * u - eta + 1, alpha));
        else if (uz >= 1)
            rank = 1;
        draws[i] = (uint32_t)(mix(rank ^ o->seed) % o->n);
    }
}

struct ceiling_worker *
ceiling_workers(const struct ceiling_options *o, void *shared, bool drawn)
{
    struct ceiling_worker *w = ceiling_alloc(o->threads * sizeof(*w));

    for (unsigned t = 0; t < o->threads; t++) {
        uint32_t *draws = drawn ? ceiling_alloc(CEILING_DRAWS * sizeof(*draws)) : NULL;

        w[t].options = o;
        w[t].shared = shared;
        w[t].thread = t;
        w[t].random = mix(o->seed * 1000 + t);
        w[t].latency = ceiling_alloc(sizeof(*w[t].latency));
        if (drawn && o->zipfian)
            draw_zipfian(o, &w[t].random, draws);
        for (uint32_t i = 0; drawn && !o->zipfian && i < CEILING_DRAWS; i++)
            draws[i] = (uint32_t)(ceiling_random(&w[t].random) % o->n);
        w[t].draws = draws;
    }
    return w;
}

/* ---- timed threads ---------------------------------------------------------------------------------- */

struct phase_thread {
    pthread_t thread;
    pthread_barrier_t *start;
    struct ceiling_worker *worker;
    ceiling_work work;
};

static void *
phase_main(void *arg)
{
    struct phase_thread *p = arg;

    struct timespec t;

    (void)pthread_barrier_wait(p->start);
    p->work(p->worker);
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* from the thread's start on */
    p->worker->cpu_ns = (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
    return NULL;
}

static double
phase_run(struct ceiling_worker *w, unsigned n, double seconds, ceiling_work work)
{
    struct phase_thread threads[CEILING_THREADS_MAX];
    pthread_barrier_t start;
    _Atomic uint32_t stop;
    struct timespec pause = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    uint64_t begun;

    atomic_init(&stop, 0);
    (void)pthread_barrier_init(&start, NULL, n + 1);
    for (unsigned t = 0; t < n; t++) {
        int error;

        w[t].stop = &stop;
        w[t].ops = 0;
        memset(w[t].latency, 0, sizeof(*w[t].latency));
        threads[t].start = &start;
        threads[t].worker = &w[t];
        threads[t].work = work;
        error = pthread_create(&threads[t].thread, NULL, phase_main, &threads[t]);
        if (error != 0)
            ceiling_fail("thread", error);
    }
    (void)pthread_barrier_wait(&start);
    begun = ceiling_now_ns();
    (void)nanosleep(&pause, NULL);
    atomic_store_explicit(&stop, 1, memory_order_relaxed); /* only ends loops */
    for (unsigned t = 0; t < n; t++)
        (void)pthread_join(threads[t].thread, NULL);
    (void)pthread_barrier_destroy(&start);
    return (double)(ceiling_now_ns() - begun) * 1e-9;
}

double
ceiling_run(struct ceiling_worker *w, unsigned n, double seconds, ceiling_work work)
{
    double warm = seconds * WARM_SHARE;

    (void)phase_run(w, n, warm < WARM_S_MAX ? warm : WARM_S_MAX, work);
    return phase_run(w, n, seconds, work);
}

/* ---- figures ---------------------------------------------------------------------------------------- */

static unsigned
bucket_of(uint64_t ns)
{
    unsigned log2, bucket;

    if (ns < 16)
        return (unsigned)ns;
    log2 = 63u - (unsigned)__builtin_clzll(ns);
    bucket = (log2 - 3) * 16 + ((unsigned)(ns >> (log2 - 4)) & 15);
    return bucket < CEILING_BUCKETS ? bucket : CEILING_BUCKETS - 1;
}

static uint64_t
bucket_end(unsigned bucket)
{
    if (bucket < 16)
        return bucket;
    return ((uint64_t)(bucket % 16 + 17) << (bucket / 16 - 1)) - 1;
}

void
ceiling_histogram_add(struct ceiling_histogram *h, uint64_t ns)
{
    h->count[bucket_of(ns)]++;
    if (ns > h->max)
        h->max = ns;
}

static double
quantile_us(const struct ceiling_histogram *h, double q)
{
    uint64_t total = 0, seen = 0;

    for (unsigned i = 0; i < CEILING_BUCKETS; i++)
        total += h->count[i];
    for (unsigned i = 0; i < CEILING_BUCKETS; i++) {
        seen += h->count[i];
        if (seen > 0 && (double)seen >= q * (double)total)
            return 1e-3 * (double)(bucket_end(i) < h->max ? bucket_end(i) : h->max);
    }
    return 0;
}

void
ceiling_print(const struct ceiling_options *o, const struct ceiling_worker *w, double seconds,
              const char *config)
{
    struct ceiling_histogram sum = {0};
    uint64_t ops = 0, cpu_ns = 0;

    for (unsigned t = 0; t < o->threads; t++) {
        const struct ceiling_histogram *h = w[t].latency;

        ops += w[t].ops;
        cpu_ns += w[t].cpu_ns;
        sum.max = h->max > sum.max ? h->max : sum.max;
        for (unsigned i = 0; i < CEILING_BUCKETS; i++)
            sum.count[i] += h->count[i];
    }
    (void)printf("{\"engine\":\"ceiling\",\"workload\":\"%s\",\"threads\":%u,\"n\":%" PRIu64
                 ",\"seconds\":%.6f,\"ops\":%" PRIu64 ",\"ops_s\":%.1f,\"p50_us\":%.3f,"
                 "\"p99_us\":%.3f,\"p999_us\":%.3f,\"max_us\":%.3f,\"config\":\"%s, %.1f ns of CPU "
                 "an operation\"}\n",
                 o->workload, o->threads, o->n, seconds, ops, (double)ops / seconds,
                 quantile_us(&sum, 0.5), quantile_us(&sum, 0.99), quantile_us(&sum, 0.999),
                 1e-3 * (double)sum.max, config, (double)cpu_ns / (double)ops);
}

/* ---- files ------------------------------------------------------------------------------------------ */

int
ceiling_file(const char *dir, const char *name, uint64_t bytes, int flags)
{
    static _Alignas(4096) unsigned char block[FILE_WRITE_BYTES];
    char path[4096];
    int file;

    (void)snprintf(path, sizeof(path), "%s/%s-%ld", dir, name, (long)getpid());
    file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT | flags, 0600);
    if (file < 0)
        ceiling_fail(path, errno);
    (void)unlink(path);
    if (block[0] == 0)
        fill(block, sizeof(block), 1);
    if (fallocate(file, 0, 0, (off_t)bytes) != 0)
        ceiling_fail("fallocate", errno);
    for (uint64_t at = 0; at < bytes; at += FILE_WRITE_BYTES) {
        size_t len = bytes - at < FILE_WRITE_BYTES ? (size_t)(bytes - at) : FILE_WRITE_BYTES;

        if (pwrite(file, block, len, (off_t)at) != (ssize_t)len)
            ceiling_fail("pwrite", errno);
    }
    if (fsync(file) != 0)
        ceiling_fail("fsync", errno);
    return file;
}
