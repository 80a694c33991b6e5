/*
 * stress_evicted.c - what an evicted page costs in memory.
 *
 * GOAL      an evicted page of one record costs at most 17 bytes of resident memory, all told.
 * METHOD    fill a small cache many times over with pages of 8 bytes, by one thread, so that bursts of memory
 *           on its way back stay small; take a snapshot, so that all is stable, and the resident set
 *           (VmRSS). Then the same with N more pages, and take it again: the growth over N is what a page
 *           costs, whoever holds it (table, log, ids, snapshots, the allocator's waste).
 *           Not in it, because it is there before and after alike: pages in memory (cache_bytes, full both
 *           times), the log's ring and buffers, threads and their lists of free memory, the program. What
 *           was freed and the allocator keeps for later is given back first (malloc_trim): it is as much
 *           as the busiest moment needed, whatever the number of pages. The growth with it is printed.
 *           Then the peaks while a snapshot is written and while the directory is opened again, above
 *           what is resident afterwards: they must not grow with the pages.
 * ORACLE    growth / N <= 17.0. Peaks within PEAK_MIB. Random pages hold what was written.
 *           Under a sanitizer, whose shadow is resident too, only the last.
 * NOT HERE  what pages in memory cost (stress_charge).
 *
 * stress_evicted [seed] [seconds, unused] [threads that read] [million pages]
 *
 * WORD, EDGES  none: threads share nothing but the cache.   LIFETIME  static.   PROGRESS  no waits but the
 *           cache's.   FAILURE  the run ends.
 */
#include "support/kit.h"

#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 16u
#define WARM_PAGES KIT_MUCH(2000000u, 100000u, 200000u)
#define MILLION KIT_MUCH(1000000u, 50000u, 100000u)
#define BYTES_PER_PAGE_MAX 17.0
#define PEAK_MIB 16.0
#define OPEN_BYTES ((uint64_t)16 << 20) /* ring, cache, threads */
#define LOOKS 20000u                    /* a thread */

#define CHECK_OK(call)                                                                  \
    do {                                                                                \
        int result_ = (call);                                                           \
                                                                                        \
        KIT_CHECK(result_ == 0, #call " gives %d %s", result_, kit_code_name(result_)); \
    } while (0)

struct worker {
    pthread_t thread;
    uint32_t first, pages; /* serial numbers of the pages to make */
    uint64_t random;
};

static scree_cache *cache;
static uint32_t *serial_of; /* by page id; a page holds its serial number, hashed */
#define NO_PAGE UINT32_MAX
static uint64_t ids_max;

/* "VmRSS:" and the like, in bytes. */
static uint64_t
memory_of(const char *what)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    uint64_t kib = 0;

    KIT_CHECK(file != NULL, "/proc/self/status");
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, what, strlen(what)) == 0)
            kib = strtoull(line + strlen(what), NULL, 10);
    fclose(file);
    return kib * 1024;
}

/* VmHWM starts again from what is resident now. */
static void
peak_reset(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");

    KIT_CHECK(file != NULL && fputs("5", file) >= 0 && fclose(file) == 0, "clear_refs");
}

static void *
fill_main(void *arg)
{
    struct worker *worker = arg;

    for (uint32_t i = 0; i < worker->pages; i++) {
        uint32_t serial = worker->first + i;
        uint64_t content = kit_hash(&serial, sizeof(serial), 1);
        scree_page_id id;

        CHECK_OK(scree_page_allocate(cache, kit_slice(&content, sizeof(content)), &id, NULL));
        KIT_CHECK(id <= ids_max && serial_of[id] == NO_PAGE, "id %" PRIu64, id);
        serial_of[id] = serial;
    }
    return NULL;
}

static void *
look_main(void *arg)
{
    struct worker *worker = arg;

    for (uint32_t looks = 0; looks < LOOKS;) {
        scree_page_id id = kit_below(&worker->random, ids_max) + 1;
        uint64_t content = 0;
        size_t len;

        if (serial_of[id] == NO_PAGE)
            continue;
        looks++;
        CHECK_OK(scree_page_read(cache, id, &content, sizeof(content), &len, NULL));
        KIT_CHECK(len == sizeof(content) &&
                      content == kit_hash(&serial_of[id], sizeof(serial_of[id]), 1),
                  "page %" PRIu64, id);
    }
    return NULL;
}

/* `pages` more pages, or looks at those there are. */
static void
threads_run(void *(*run)(void *), uint32_t threads, uint32_t first, uint32_t pages, uint64_t seed)
{
    struct worker workers[THREADS_MAX];

    for (uint32_t t = 0; t < threads; t++) {
        uint32_t from = (uint32_t)((uint64_t)pages * t / threads);
        uint32_t to = (uint32_t)((uint64_t)pages * (t + 1) / threads);

        workers[t] =
            (struct worker){.first = first + from, .pages = to - from, .random = seed * 1000 + t};
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, run, &workers[t]) == 0, "thread");
    }
    for (uint32_t t = 0; t < threads; t++)
        pthread_join(workers[t].thread, NULL);
}

static scree_stats
stats(void)
{
    scree_stats figures = {.size = sizeof(figures)};

    CHECK_OK(scree_stats_get(cache, &figures));
    return figures;
}

struct resident {
    uint64_t all;
    uint64_t used; /* without what the allocator has been given back and keeps */
};

/* Everything on disk, a snapshot with it; then what is resident. */
static struct resident
settle(const scree_options *options)
{
    struct resident resident;

    CHECK_OK(scree_snapshot(cache, NULL));
    KIT_CHECK(stats().resident_bytes <= options->cache_bytes, "%" PRIu64 " bytes of pages",
              stats().resident_bytes);
    resident.all = memory_of("VmRSS:");
    (void)malloc_trim(0);
    resident.used = memory_of("VmRSS:");
    return resident;
}

static void
check_figure(const char *what, double is, double most)
{
    printf("%s: %.3f, at most %.1f\n", what, is, most);
    if (KIT_MUCH(true, false, false)) /* by the million */
        KIT_CHECK(is <= most, "%s", what);
}

static void
reopen(const char *directory, const scree_options *options, uint64_t pages)
{
    uint64_t closed, table, opened;

    CHECK_OK(scree_close(cache));
    closed = memory_of("VmRSS:");
    peak_reset();
    CHECK_OK(scree_open(directory, options, &cache));
    KIT_CHECK(stats().pages == pages + 1, "%" PRIu64 " pages, the root is one", stats().pages);
    opened = memory_of("VmRSS:");
    table = stats().table_bytes;
    check_figure("peak of an open above what is resident then, MiB",
                 (double)(int64_t)(memory_of("VmHWM:") - opened) / (1 << 20), PEAK_MIB);
    /* What was resident before the open is not all free for it: a bound, not a measure. */
    check_figure("resident after an open, bytes a page",
                 ((double)opened - (double)closed - (double)OPEN_BYTES) / (double)pages,
                 BYTES_PER_PAGE_MAX);
    check_figure("table_bytes, bytes a page", (double)table / (double)pages, BYTES_PER_PAGE_MAX);
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint32_t threads = (uint32_t)kit_argument(argc, argv, 3, 2);
    uint32_t pages = MILLION * (uint32_t)kit_argument(argc, argv, 4, 8);
    char directory[KIT_PATH_MAX];
    scree_options options;
    struct resident before, after;

    if (threads < 1 || threads > THREADS_MAX || pages < 1)
        return 2;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    ids_max = (uint64_t)WARM_PAGES + pages + 1024 * threads;
    serial_of = malloc((ids_max + 1) * sizeof(*serial_of));
    KIT_CHECK(serial_of != NULL, "memory");
    memset(serial_of, 0xff,
           (ids_max + 1) * sizeof(*serial_of)); /* NO_PAGE; resident from here on */
    kit_dir_name(directory, "evicted");
    scree_options_init(&options);
    options.flags = SCREE_CREATE;
    options.materializer = &kit_concat;
    options.cache_bytes = (uint64_t)2 << 20;
    options.log_buffer_bytes = (uint64_t)4 << 20;
    CHECK_OK(scree_open(directory, &options, &cache));
    threads_run(fill_main, 1, 1, WARM_PAGES, seed);
    threads_run(look_main, threads, 0, 0, seed);
    before = settle(&options);
    threads_run(fill_main, 1, 1 + WARM_PAGES, pages, seed);
    threads_run(look_main, threads, 0, 0, seed + 1);
    after = settle(&options);
    printf("%u pages, %" PRIu64 " evictions, %.3f bytes a page with what the allocator keeps\n",
           pages, stats().evictions, ((double)after.all - (double)before.all) / (double)pages);
    check_figure("an evicted page, bytes",
                 ((double)after.used - (double)before.used) / (double)pages, BYTES_PER_PAGE_MAX);
    CHECK_OK(scree_page_append(cache, SCREE_PAGE_ROOT, kit_slice("x", 1), NULL));
    peak_reset();
    CHECK_OK(scree_snapshot(cache, NULL));
    check_figure("peak of a snapshot above what is resident, MiB",
                 ((double)memory_of("VmHWM:") - (double)after.used) / (1 << 20), PEAK_MIB);
    reopen(directory, &options, (uint64_t)WARM_PAGES + pages);
    threads_run(look_main, threads, 0, 0, seed + 2);
    CHECK_OK(scree_close(cache));
    kit_dir_remove(directory);
    free(serial_of);
    return 0;
}
