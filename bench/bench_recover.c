/*
 * bench_recover.c - how long an open takes, and what memory it takes for the time.
 *
 * QUESTION  a directory holds N pages, or N records since its snapshot. How long until scree_open returns, how
 *           many records are replayed in a second, and how far is the most memory held during the open above
 *           what is held after it?
 * FIXED     payloads of 64 bytes; the open is the only thing its process does; one round a process. What is
 *           timed never closes, so each round finds what the round before found: the same records, and the
 *           jump that the round before made.
 * FOOLED BY a cold file cache and direct I/O: the first round is not counted, and io is an argument (2:
 *           through the file cache). Memory that the allocator keeps after it was freed counts as held after
 *           the open too: so peak_mib is told by itself. Other work on the machine: hence the least and the
 *           median of the rounds.
 *
 * bench_recover DIR [N (1000000) [rounds (5) [io (0: as the library likes, 1: direct, 2: buffered) [case]]]]
 *
 * Cases, all of them if none is named:
 *   snapshot  N pages, closed: all is in the snapshot
 *   allocate  N pages allocated, no snapshot: N records, ids in order
 *   append    N / 8 pages, then appends in random order: N records
 *   put       N / 2 pages, then puts in random order: N records
 *   batch     N / 4 pages, then batches of 8 puts: N records
 *
 * Prints one line of JSON a case; DIR/bench-recover is made and removed.
 */
#include "scree.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 100u
#define PAYLOAD_BYTES 64u
#define BATCH_STEPS 8u

static scree_options options;
static char dir[512];
static uint64_t records;
static uint64_t random_state = 1;
static unsigned char payload[PAYLOAD_BYTES];
static scree_page_id *page_id; /* of the pages there are, and their versions */
static scree_version *version;

_Noreturn static void
fail(const char *what)
{
    (void)fprintf(stderr, "bench_recover: %s: %s\n", what, scree_error_detail());
    exit(1);
}

static uint64_t
random_next(void)
{
    /* splitmix64 */
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int
merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
      scree_out *out)
{
    /* The newest fragment is the page. */
    (void)ctx, (void)id, (void)base;
    return scree_out_append(out, frags[n - 1].data, frags[n - 1].len);
}

/* ---- what the directory holds ------------------------------------------------------------------ */

static scree_slice
payload_next(void)
{
    uint64_t word = random_next();

    for (size_t at = 0; at < sizeof payload; at += 8)
        memcpy(payload + at, &word, 8);
    return (scree_slice){payload, sizeof payload};
}

static void
allocate_pages(scree_cache *cache, uint64_t n)
{
    page_id = calloc(n, sizeof *page_id);
    version = calloc(n, sizeof *version);
    if (page_id == NULL || version == NULL)
        fail("memory");
    for (uint64_t i = 0; i < n; i++)
        if (scree_page_allocate(cache, payload_next(), &page_id[i], &version[i]) != 0)
            fail("allocate");
}

static scree_page_id
page_random(uint64_t pages)
{
    return page_id[random_next() % pages];
}

static void
fill_allocate(scree_cache *cache)
{
    allocate_pages(cache, records);
}

static void
fill_append(scree_cache *cache)
{
    uint64_t pages = records / 8;

    allocate_pages(cache, pages);
    for (uint64_t i = pages; i < records; i++)
        if (scree_page_append(cache, page_random(pages), payload_next(), NULL) != 0)
            fail("append");
}

static void
fill_put(scree_cache *cache)
{
    uint64_t pages = records / 2;

    allocate_pages(cache, pages);
    for (uint64_t i = pages; i < records; i++)
        if (scree_page_put(cache, page_random(pages), payload_next(), NULL) != 0)
            fail("put");
}

static void
fill_batch(scree_cache *cache)
{
    uint64_t pages = records / 4;
    scree_page_id conflict;
    scree_batch *batch;
    scree_lsn lsn;

    allocate_pages(cache, pages);
    for (uint64_t done = pages; done < records; done += BATCH_STEPS) {
        uint64_t first = random_next() % (pages - BATCH_STEPS);

        if (scree_batch_begin(cache, &batch) != 0)
            fail("batch");
        for (uint64_t i = first; i < first + BATCH_STEPS; i++)
            if (scree_batch_set(batch, page_id[i], version[i], payload_next()) != 0)
                fail("step");
        if (scree_batch_commit(batch, &lsn, &conflict) != 0)
            fail("commit");
        for (uint64_t i = first; i < first + BATCH_STEPS; i++)
            version[i] = lsn;
    }
}

struct fill {
    const char *name;
    void (*run)(scree_cache *cache);
    bool closed;
};
static const struct fill fills[] = {{"snapshot", fill_allocate, true},
                                    {"allocate", fill_allocate, false},
                                    {"append", fill_append, false},
                                    {"put", fill_put, false},
                                    {"batch", fill_batch, false}};
#define FILLS (sizeof fills / sizeof fills[0])

static void
fill_make(const struct fill *fill)
{
    scree_cache *cache;

    if (scree_open(dir, &options, &cache) != 0)
        fail("open");
    fill->run(cache);
    if (fill->closed ? scree_close(cache) != 0 : scree_flush(cache, NULL) != 0)
        fail("close");
    _exit(0);
}

/* ---- an open ----------------------------------------------------------------------------------- */

struct figures {
    double open_s, cpu_s; /* cpu_s: of all threads */
    double peak_mib, after_mib;
    scree_recovery_info info;
};

/* A line of /proc/self/status, in MiB. */
static double
memory_mib(const char *name)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    double kib = 0;

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtod(line + strlen(name), NULL);
    if (f != NULL)
        (void)fclose(f);
    return kib / 1024;
}

static double
now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void
open_once(int to)
{
    struct figures f = {.info = {.size = sizeof f.info}};
    double begun = now();
    scree_cache *cache;

    if (scree_open(dir, &options, &cache) != 0)
        fail("open");
    f.open_s = now() - begun;
    f.cpu_s = (double)clock() / CLOCKS_PER_SEC;
    f.after_mib = memory_mib("VmRSS:");
    f.peak_mib = memory_mib("VmHWM:");
    if (scree_recovery(cache, &f.info) != 0 || write(to, &f, sizeof f) != (ssize_t)sizeof f)
        fail("recovery");
    _exit(0);
}

/* Run in a process of its own: by one of the two. */
static void
in_child(const struct fill *fill, int to)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0 && fill != NULL)
        fill_make(fill);
    if (child == 0)
        open_once(to);
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        fail("child");
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void
case_run(const struct fill *fill, unsigned rounds)
{
    double open_s[ROUNDS_MAX], cpu_s = 0, extra = 0, peak = 0;
    struct figures f = {0};
    int pipes[2];

    if (pipe(pipes) != 0)
        fail("pipe");
    in_child(fill, -1);
    for (unsigned r = 0; r <= rounds; r++) { /* the first one warms up */
        in_child(NULL, pipes[1]);
        if (read(pipes[0], &f, sizeof f) != (ssize_t)sizeof f)
            fail("read");
        if (r == 0)
            continue;
        open_s[r - 1] = f.open_s;
        cpu_s = r == 1 || f.cpu_s < cpu_s ? f.cpu_s : cpu_s;
        extra = f.peak_mib - f.after_mib > extra ? f.peak_mib - f.after_mib : extra;
        peak = f.peak_mib > peak ? f.peak_mib : peak;
    }
    qsort(open_s, rounds, sizeof open_s[0], compare);
    double middle = open_s[rounds / 2];

    printf("{\"bench\":\"recover\",\"case\":\"%s\",\"io\":%d,\"pages\":%" PRIu64
           ",\"records\":%" PRIu64
           ",\"open_s\":%.3f,\"open_s_min\":%.3f,\"cpu_s_min\":%.3f,\"records_s\":%.0f,"
           "\"peak_mib\":%.1f,\"peak_over_after_mib\":%.1f}\n",
           fill->name, options.io_mode, f.info.pages, f.info.records, middle, open_s[0], cpu_s,
           (double)f.info.records / middle, peak, extra);
    (void)fflush(stdout);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

static uint64_t
argument(int argc, char **argv, int at, uint64_t otherwise)
{
    return at < argc ? strtoull(argv[at], NULL, 0) : otherwise;
}

int
main(int argc, char **argv)
{
    unsigned rounds = (unsigned)argument(argc, argv, 3, 5);
    scree_materializer materializer = {
        .size = sizeof materializer, .name = "bench-recover", .version = 1, .merge = merge};
    char remove[600];
    int status = 0;

    records = argument(argc, argv, 2, 1000000);
    if (argc < 2 || records < 1000 || rounds < 1 || rounds > ROUNDS_MAX)
        return (void)fprintf(stderr, "usage: bench_recover DIR [N [rounds [io [case]]]]\n"), 2;
    (void)snprintf(dir, sizeof dir, "%s/bench-recover", argv[1]);
    (void)snprintf(remove, sizeof remove, "rm -rf '%s'", dir);
    scree_options_init(&options);
    options.flags = SCREE_CREATE;
    options.materializer = &materializer;
    options.cache_bytes = (uint64_t)1 << 30;
    options.snapshot_log_bytes = (uint64_t)1 << 50; /* none but at close */
    options.space_amp_target = 100;
    options.io_mode = (int32_t)argument(argc, argv, 4, SCREE_IO_AUTO);
    for (size_t i = 0; i < FILLS && status == 0; i++) {
        if (argc > 5 && strcmp(argv[5], fills[i].name) != 0)
            continue;
        case_run(&fills[i], rounds);
        status = system(remove);
    }
    return status != 0;
}
