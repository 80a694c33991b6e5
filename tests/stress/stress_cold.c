/*
 * stress_cold.c - many threads want the same cold page at the same moment.
 *
 * GOAL      readers of one evicted page cause one read of the device; all get the right bytes; an error of
 *           that read is no error of the others', and nobody waits for ever.
 * METHOD    a directory of pages of one record and of several is closed and opened: all are evicted. An
 *           environment between the cache and POSIX counts the records read. It lets a read go on when the
 *           other threads have begun to ask for the page, and some time has passed. Round by round all
 *           threads get the next page, half of them inside a guard. In some rounds the first read fails, in
 *           some all do, in some others append to the page meanwhile. In rounds without failures some threads
 *           get it together with another, or twice at once, or ask for it to be read ahead before they get it.
 * ORACLE    R1 records read = records of the page, in rounds without failures and appends. R2 what a get
 *           returns is the page. R3 one failed read is one failed get; where all reads fail all gets do, with
 *           the error of the read, and the page is there again afterwards.
 *           -DSCREE_BUG_READ_TWICE must fail here.
 * NOT HERE  damaged bytes (tests/crash/crash_damage.c).
 *
 * stress_cold [seed] [seconds] [threads]
 *
 * WORD      records: read since the round began. asking: threads that have begun to ask. failures: reads that
 *           are to fail. EDGES all relaxed: counters; barriers order the rounds.
 * LIFETIME  static.   PROGRESS  the delay of a read is bounded.   FAILURE  the run ends; a hang is ctest's.
 */
#include "support/kit.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 64u
#define PAGES 200u
#define RECORDS_MAX 4u /* of a page */
#define PAGE_BYTES 600u
#define FRAGMENT_BYTES 100u
#define BYTES_MAX (PAGE_BYTES + (RECORDS_MAX + THREADS_MAX) * FRAGMENT_BYTES)
#define DELAY_US 2000u
#define DELAYS_MAX 500u

#define CHECK_OK(call)                                                                  \
    do {                                                                                \
        int result_ = (call);                                                           \
                                                                                        \
        KIT_CHECK(result_ == 0, #call " gives %d %s", result_, kit_code_name(result_)); \
    } while (0)

enum kind { PLAIN, FAIL_ONE, FAIL_ALL, APPEND, KINDS };

static scree_cache *cache;
static scree_page_id page_id[PAGES];
static uint32_t threads;
static pthread_barrier_t barrier;
static enum kind kind; /* of the round; between barriers, as page_now and over */
static uint32_t page_now;
static bool over;
static _Atomic uint32_t records, asking, failures, failed;

/* ---- the environment ------------------------------------------------------------------------------ */

static scree_env env;

static int
env_read_many(void *ctx, scree_env_read *reads, size_t n)
{
    const scree_env *posix = ctx;
    uint32_t left = atomic_load_explicit(&failures, memory_order_relaxed);

    atomic_fetch_add_explicit(&records, (uint32_t)n, memory_order_relaxed);
    for (uint32_t i = 0;
         i < DELAYS_MAX && atomic_load_explicit(&asking, memory_order_relaxed) < threads; i++)
        usleep(DELAY_US);
    usleep(DELAY_US); /* from asking to waiting, or to a read of their own */
    while (left > 0 && !atomic_compare_exchange_weak_explicit(
                           &failures, &left, left - 1, memory_order_relaxed, memory_order_relaxed))
        ;
    return left > 0 ? -EIO : posix->read_many(posix->ctx, reads, n);
}

/* ---- pages ---------------------------------------------------------------------------------------- */

static uint32_t
records_of(uint32_t page)
{
    return 1 + page % RECORDS_MAX;
}

static void
fragment_make(unsigned char *to, uint32_t page, uint32_t number)
{
    memset(to, (int)(page * 31 + number * 7) & 0x7f, FRAGMENT_BYTES);
}

/* The page without what threads append. */
static size_t
page_make(unsigned char *to, uint32_t page)
{
    size_t len = PAGE_BYTES;

    for (uint32_t i = 0; i < PAGE_BYTES; i++)
        to[i] = (unsigned char)((page + i * 13) & 0x7f);
    for (uint32_t i = 1; i < records_of(page); i++, len += FRAGMENT_BYTES)
        fragment_make(to + len, page, i);
    return len;
}

static void
page_write(uint32_t page)
{
    unsigned char bytes[BYTES_MAX];

    (void)page_make(bytes, page);
    CHECK_OK(scree_page_put(cache, page_id[page], kit_slice(bytes, PAGE_BYTES), NULL));
    for (uint32_t i = 1; i < records_of(page); i++)
        CHECK_OK(scree_page_append(
            cache, page_id[page],
            kit_slice(bytes + PAGE_BYTES + (i - 1) * FRAGMENT_BYTES, FRAGMENT_BYTES), NULL));
}

/* ---- threads -------------------------------------------------------------------------------------- */

/* R2; `more`: bytes that may follow. */
static void
page_check(const void *got, size_t len, size_t more)
{
    unsigned char bytes[BYTES_MAX];
    size_t wanted = page_make(bytes, page_now);

    KIT_CHECK(len >= wanted && len <= wanted + more && memcmp(got, bytes, wanted) == 0,
              "page %u of %zu bytes, %zu are right", page_now, len, wanted);
}

static int
page_get(bool guarded)
{
    size_t more = kind == APPEND ? THREADS_MAX * FRAGMENT_BYTES : 0;
    unsigned char copy[BYTES_MAX];
    scree_slice page;
    size_t len;
    int rc;

    if (!guarded) {
        rc = scree_page_read(cache, page_id[page_now], copy, sizeof(copy), &len, NULL);
        if (rc == 0)
            page_check(copy, len, more);
        return rc;
    }
    scree_read_enter(cache);
    rc = scree_page_get(cache, page_id[page_now], &page, NULL);
    if (rc == 0)
        page_check(page.data, page.len, more);
    scree_read_leave(cache);
    return rc;
}

/* The page twice, and the first one, which is in memory unless it is the same. */
static int
page_get_with_others(void)
{
    scree_page_id ids[3] = {page_id[page_now], page_id[page_now], page_id[0]};
    scree_slice pages[3];
    int rc;

    scree_read_enter(cache);
    rc = scree_pages_get(cache, ids, 3, pages, NULL, NULL);
    for (int i = 0; i < 2 && rc == 0; i++)
        page_check(pages[i].data, pages[i].len, kind == APPEND ? THREADS_MAX * FRAGMENT_BYTES : 0);
    scree_read_leave(cache);
    return rc;
}

/* As thread so and so does it. Failures of what is read ahead are nobody's: not in such rounds. */
static int
page_want(uint32_t number)
{
    bool fails = kind == FAIL_ONE || kind == FAIL_ALL;

    if (!fails && number % 4 == 1)
        return page_get_with_others();
    if (!fails && number % 4 == 2)
        CHECK_OK(scree_pages_prefetch(cache, &page_id[page_now], 1));
    return page_get(number % 2 == 0);
}

static void *
thread_main(void *arg)
{
    uint32_t number = *(const uint32_t *)arg;
    unsigned char fragment[FRAGMENT_BYTES] = {0};
    int rc;

    for (;;) {
        pthread_barrier_wait(&barrier); /* a round is set up */
        if (over)
            return NULL;
        atomic_fetch_add_explicit(&asking, 1, memory_order_relaxed);
        if (kind == APPEND && number % 4 == 3)
            CHECK_OK(scree_page_append(cache, page_id[page_now],
                                       kit_slice(fragment, sizeof(fragment)), NULL));
        rc = page_want(number);
        KIT_CHECK(rc == 0 || (rc == -EIO && (kind == FAIL_ONE || kind == FAIL_ALL)), "%d %s", rc,
                  kit_code_name(rc));
        atomic_fetch_add_explicit(&failed, rc != 0, memory_order_relaxed);
        pthread_barrier_wait(&barrier); /* it is over */
    }
}

static void
round_run(uint64_t *random)
{
    uint32_t read, wrong;

    kind = kit_below(random, 2) == 0 ? PLAIN : (enum kind)kit_below(random, KINDS);
    atomic_store_explicit(&records, 0, memory_order_relaxed);
    atomic_store_explicit(&asking, 0, memory_order_relaxed);
    atomic_store_explicit(&failed, 0, memory_order_relaxed);
    atomic_store_explicit(&failures,
                          kind == FAIL_ONE   ? 1
                          : kind == FAIL_ALL ? UINT32_MAX
                                             : 0,
                          memory_order_relaxed);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    atomic_store_explicit(&failures, 0, memory_order_relaxed);
    read = atomic_load_explicit(&records, memory_order_relaxed);
    wrong = atomic_load_explicit(&failed, memory_order_relaxed);
    if (kind == PLAIN)
        KIT_CHECK(read == records_of(page_now), "page %u: %u records read, it has %u", page_now,
                  read, records_of(page_now)); /* R1 */
    KIT_CHECK(wrong == (kind == FAIL_ONE   ? 1
                        : kind == FAIL_ALL ? threads
                                           : 0),
              "%u gets failed in a round of kind %d", wrong, kind); /* R3 */
    if (kind == FAIL_ALL)
        CHECK_OK(page_get(false));
    if (kind == APPEND)
        page_write(page_now); /* as it was */
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1), random = seed;
    uint64_t until = kit_now_ms() + kit_argument(argc, argv, 2, 5) * 1000, rounds = 0;
    uint32_t numbers[THREADS_MAX];
    pthread_t thread[THREADS_MAX];
    char directory[KIT_PATH_MAX];
    scree_options options;

    threads = (uint32_t)kit_argument(argc, argv, 3, 8);
    if (threads < 2 || threads > THREADS_MAX)
        return 2;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    kit_dir_name(directory, "cold");
    kit_options_small(&options, &kit_concat);
    options.cache_bytes = (uint64_t)4 << 20;
    options.segment_bytes = (uint64_t)4 << 20;
    options.fragments_max = 1000;
    options.space_amp_target = 100; /* no cleaning, which would read too */
    env = *scree_env_posix();
    env.ctx = (void *)(uintptr_t)scree_env_posix();
    env.read_many = env_read_many;
    KIT_CHECK(scree_env_posix()->ctx == NULL, "the other members get our ctx");
    options.env = &env;
    CHECK_OK(scree_open(directory, &options, &cache));
    for (uint32_t p = 0; p < PAGES; p++) {
        CHECK_OK(scree_page_allocate(cache, kit_slice(NULL, 0), &page_id[p], NULL));
        page_write(p);
    }
    KIT_CHECK(pthread_barrier_init(&barrier, NULL, threads + 1) == 0, "barrier");
    for (uint32_t t = 0; t < threads; t++) {
        numbers[t] = t;
        KIT_CHECK(pthread_create(&thread[t], NULL, thread_main, &numbers[t]) == 0, "thread");
    }
    do {
        CHECK_OK(scree_close(cache));
        CHECK_OK(scree_open(directory, &options, &cache));
        for (page_now = 0; page_now < PAGES && kit_now_ms() < until; page_now++, rounds++)
            round_run(&random);
    } while (kit_now_ms() < until);
    over = true;
    pthread_barrier_wait(&barrier);
    for (uint32_t t = 0; t < threads; t++)
        pthread_join(thread[t], NULL);
    CHECK_OK(scree_close(cache));
    kit_dir_remove(directory);
    printf("%" PRIu64 " rounds of %u threads: one read each\n", rounds, threads);
    return 0;
}
