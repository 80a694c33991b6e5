/*
 * stress_memory.c - many threads want more memory than there is.
 *
 * GOAL      resident bytes stay under cache_bytes and the overhead that pressure.c states (I1), whatever comes:
 *           new pages in bursts, fragments for pages that are not in memory, reads of cold pages, all at once;
 *           nothing goes over for want of room; what leaves memory comes back as it was.
 * METHOD    each thread owns pages of its own and changes its mind every few hundred calls: a burst of new
 *           pages, appends to its cold pages, replacements, reads of anybody's pages. The data grows to 30
 *           times the cache. Main looks at resident_bytes all the time. Then a read-only cache of the same
 *           directory is read by all threads, under the same watch.
 * ORACLE    the bound; over_memory is 0; a page's bytes tell its number, its owner keeps how many fragments it
 *           has accepted.
 *           -DSCREE_BUG_NO_ADMISSION and _EVICT_UNSTABLE builds of the library must fail here.
 * NOT HERE  guards (tests/unit/test_memory.c), crashes (tests/crash/crash_pressure.c).
 *
 * stress_memory [seed] [seconds] [threads]
 *
 * WORD   stop: main asks the threads to end; pages_n: of a thread, how many pages it has made.
 * EDGES  E0 stop = 1: main, relaxed: threads look again at their next call.
 *        E1 pages_n: its thread, release after the id is written; readers acquire.
 * LIFETIME  static.   PROGRESS  no waits.   FAILURE  the run ends.
 */
#include "support/kit.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define THREADS_MAX 16u
#define CACHE_BYTES (UINT64_C(1) << 20)
#define DATA_BYTES (30 * CACHE_BYTES)
#define BODY_MIN 100u
#define BODY_MAX 1500u
#define PAGES_MAX 100000u
#define FRAGMENTS_MAX 200u

/* Pages are this, filler up to body_len, and one byte a fragment: 1, 2, 3 ... */
struct head {
    uint64_t id; /* 0 while its id is not known */
    uint32_t body_len;
    uint32_t generation; /* of replacements */
};

struct book {
    scree_page_id id;
    uint32_t generation;
    uint32_t fragments;
};

struct worker {
    pthread_t thread;
    uint64_t random;
    uint64_t bytes; /* of its pages */
    uint64_t calls;
    struct book *book;
    _Atomic uint64_t pages_n; /* E1 */
};

static scree_cache *cache;
static struct worker workers[THREADS_MAX];
static uint32_t threads;
static _Atomic bool stop; /* E0 */
static bool read_only;

#define CHECK_OK(call)                                                       \
    do {                                                                     \
        int code_ = (call);                                                  \
        KIT_CHECK(code_ == 0, "gave %d %s: %s", code_, kit_code_name(code_), \
                  scree_error_detail());                                     \
    } while (0)

static uint32_t
body_len_of(uint64_t id, uint32_t generation)
{
    uint64_t random = id * 1000003 + generation;

    return BODY_MIN + (uint32_t)kit_below(&random, BODY_MAX - BODY_MIN);
}

static size_t
page_make(unsigned char *page, uint64_t id, uint32_t generation)
{
    struct head head = {
        .id = id, .body_len = body_len_of(id, generation), .generation = generation};

    memset(page, (int)(id + generation), head.body_len);
    memcpy(page, &head, sizeof(head));
    return head.body_len;
}

/* A page of this id is whole; of its owner's, what its book says. */
static void
page_verify(scree_page_id id, const unsigned char *page, size_t len, const struct book *book)
{
    struct head head;

    KIT_CHECK(len >= sizeof(head), "page %" PRIu64 " has %zu bytes", id, len);
    memcpy(&head, page, sizeof(head));
    KIT_CHECK(head.id == id && head.body_len == body_len_of(id, head.generation) &&
                  head.body_len <= len,
              "page %" PRIu64 " says that it is %" PRIu64, id, head.id);
    for (size_t i = sizeof(head); i < head.body_len; i++)
        KIT_CHECK(page[i] == (unsigned char)(id + head.generation), "page %" PRIu64 ", byte %zu",
                  id, i);
    for (size_t i = head.body_len; i < len; i++)
        KIT_CHECK(page[i] == (unsigned char)(i - head.body_len + 1),
                  "page %" PRIu64 ", fragment %zu", id, i - head.body_len);
    if (book != NULL)
        KIT_CHECK(head.generation == book->generation && len - head.body_len == book->fragments,
                  "page %" PRIu64 " is of generation %u with %zu fragments, not %u with %u", id,
                  head.generation, len - head.body_len, book->generation, book->fragments);
}

static void
page_read(scree_page_id id, const struct book *book)
{
    scree_slice page;

    scree_read_enter(cache);
    CHECK_OK(scree_page_get(cache, id, &page, NULL));
    page_verify(id, page.data, page.len, book);
    scree_read_leave(cache);
}

/* Any page of any thread; NULL: that thread has none yet. */
static struct book *
book_of_anybody(struct worker *w, struct worker **owner_out)
{
    struct worker *owner = &workers[kit_below(&w->random, threads)];
    uint64_t n = atomic_load_explicit(&owner->pages_n, memory_order_acquire); /* E1 */

    *owner_out = owner;
    return n == 0 ? NULL : &owner->book[kit_below(&w->random, n)];
}

/* Its own, or of a thread that has ended. */
static uint64_t
pages_of(const struct worker *w)
{
    return atomic_load_explicit(&w->pages_n, memory_order_relaxed);
}

static void
do_allocate(struct worker *w)
{
    unsigned char page[BODY_MAX];
    uint64_t n = pages_of(w);
    scree_page_id id = (n * THREADS_MAX + (uint64_t)(w - workers)) + 2;

    if (n == PAGES_MAX || w->bytes > DATA_BYTES / threads)
        return;
    w->bytes += page_make(page, id, 0);
    CHECK_OK(scree_page_allocate_at(cache, id, kit_slice(page, body_len_of(id, 0)), NULL));
    w->book[n] = (struct book){.id = id};
    atomic_store_explicit(&w->pages_n, n + 1, memory_order_release); /* E1 */
}

static void
do_append(struct worker *w, struct book *book)
{
    unsigned char fragment = (unsigned char)(book->fragments + 1);

    if (book->fragments == FRAGMENTS_MAX)
        return;
    CHECK_OK(scree_page_append(cache, book->id, kit_slice(&fragment, 1), NULL));
    book->fragments++;
    (void)w;
}

static void
do_put(struct book *book)
{
    unsigned char page[BODY_MAX];
    size_t len = page_make(page, book->id, book->generation + 1);

    CHECK_OK(scree_page_put(cache, book->id, kit_slice(page, len), NULL));
    book->generation++;
    book->fragments = 0;
}

static void
call_make(struct worker *w, unsigned phase)
{
    uint64_t n = pages_of(w);
    struct book *mine = n == 0 ? NULL : &w->book[kit_below(&w->random, n)];
    struct worker *owner;
    struct book *any = book_of_anybody(w, &owner);

    if (!read_only && (phase == 0 || n == 0))
        do_allocate(w);
    else if (!read_only && phase == 1)
        do_append(w, mine);
    else if (!read_only && phase == 2)
        do_put(mine);
    else if (any != NULL)
        page_read(any->id, owner == w || read_only ? any : NULL);
}

static void *
worker_run(void *argument)
{
    struct worker *w = argument;
    unsigned phase = 0;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        if (w->calls++ % 300 == 0)
            phase = (unsigned)kit_below(&w->random, 4);
        call_make(w, phase);
    }
    return NULL;
}

static int
over_visit(void *ctx, const char *name, double value)
{
    if (strcmp(name, "over_memory") == 0)
        *(double *)ctx = value;
    return 0;
}

/* I1 of pressure.c: charge steps and a page for each thread and the evictor, pages consolidated in order to
   leave. */
static uint64_t
bound(void)
{
    return CACHE_BYTES + CACHE_BYTES / 32 + (threads + 1) * (CACHE_BYTES / 256 + 2 * BODY_MAX);
}

static uint64_t
watch(uint64_t ms)
{
    uint64_t end = kit_now_ms() + ms, resident_max = 0;

    while (kit_now_ms() < end) {
        scree_stats s = {.size = sizeof(s)};

        CHECK_OK(scree_stats_get(cache, &s));
        if (s.resident_bytes > resident_max)
            resident_max = s.resident_bytes;
        KIT_CHECK(s.resident_bytes <= bound(), "%" PRIu64 " bytes resident, at most %" PRIu64,
                  s.resident_bytes, bound());
    }
    return resident_max;
}

static uint64_t
run(uint64_t ms)
{
    double over = -1;
    uint64_t resident_max;

    atomic_store_explicit(&stop, false, memory_order_relaxed);
    for (uint32_t i = 0; i < threads; i++)
        KIT_CHECK(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]) == 0, "thread");
    resident_max = watch(ms);
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (uint32_t i = 0; i < threads; i++)
        pthread_join(workers[i].thread, NULL);
    CHECK_OK(scree_stats_each(cache, over_visit, &over));
    KIT_CHECK(over == 0, "%.0f calls went over the limit", over);
    for (uint32_t i = 0; i < threads; i++)
        for (uint64_t at = 0; at < pages_of(&workers[i]); at++)
            page_read(workers[i].book[at].id, &workers[i].book[at]);
    return resident_max;
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t ms = kit_argument(argc, argv, 2, 5) * 1000;
    uint64_t calls = 0, pages = 0, resident_max, read_only_max;
    char dir[KIT_PATH_MAX];
    scree_options options;

    threads = (uint32_t)kit_argument(argc, argv, 3, 4);
    threads = threads > THREADS_MAX ? THREADS_MAX : threads;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    kit_dir_name(dir, "memory");
    kit_options_small(&options, &kit_concat);
    options.cache_bytes = CACHE_BYTES;
    options.segment_bytes = 1 << 20;
    options.flush_interval_ms = seed % 2 * 100; /* 0: never by itself; pressure must ask for it */
    CHECK_OK(scree_open(dir, &options, &cache));
    for (uint32_t i = 0; i < threads; i++) {
        workers[i].random = seed * THREADS_MAX + i;
        workers[i].book = calloc(PAGES_MAX, sizeof(struct book));
        KIT_CHECK(workers[i].book != NULL, "memory");
    }
    resident_max = run(ms * 3 / 4);
    CHECK_OK(scree_close(cache));
    read_only = true;
    options.flags = SCREE_READ_ONLY;
    CHECK_OK(scree_open(dir, &options, &cache));
    read_only_max = run(ms / 4);
    CHECK_OK(scree_close(cache));
    kit_dir_remove(dir);
    for (uint32_t i = 0; i < threads; i++) {
        calls += workers[i].calls;
        pages += pages_of(&workers[i]);
        free(workers[i].book);
    }
    printf("seed %" PRIu64 ": %" PRIu64 " calls on %" PRIu64
           " pages, resident at most %.3f of cache_bytes, read-only %.3f: ok\n",
           seed, calls, pages, (double)resident_max / (double)CACHE_BYTES,
           (double)read_only_max / (double)CACHE_BYTES);
    return 0;
}
