/*
 * crash_pressure.c - killed while memory is short: nothing that was reported stable is lost.
 *
 * GOAL      P1 under eviction: pages leave memory and come back, are consolidated in order to leave, by callers
 *           and by the library's own thread, while the process dies at some write, torn.
 * METHOD    a child opens, checks all pages, and changes them from several threads, each page by one of them:
 *           replacements, appends, reads of cold pages; eight times more data than memory. At its n-th write it
 *           writes a part and dies. The parent sends the next child after it, into the same directory.
 * ORACLE    a page says how it was made: a first number, then one fragment for each number behind it. What
 *           is found after a crash is a state that its owner made, at or behind the newest known stable.
 *           -DSCREE_BUG_EVICT_UNSTABLE builds of the library must fail here.
 * NOT HERE  power cuts: what was written stays written.
 *
 * crash_pressure [seed] [crashes]
 *
 * WORD   issued, stable: of each page, in memory that child and parent share: numbers given to updates, and
 *        the newest known to be stable.
 * EDGES  all relaxed: one writer each (the page's thread), read by another process after the writer's death.
 * LIFETIME  shared mapping of the parent.   PROGRESS  an alarm ends a child that hangs.   FAILURE  exit 1.
 */
#include "support/kit.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 600u
#define THREADS 3u
#define BODY_MAX 1200u
#define FIRST_ID 100u
#define WRITES_MAX 250u

struct shared {
    _Atomic uint64_t issued[PAGES];
    _Atomic uint64_t stable[PAGES];
    _Atomic uint64_t updates, evictions, consolidations;
};

/* A page is this, filler up to body_len, then fragments: 8 bytes each, number + 1, number + 2 ... */
struct head {
    uint64_t id;
    uint64_t number;
    uint64_t body_len;
};

/* An update whose version is not stable yet. */
struct pending {
    uint32_t page;
    uint64_t number;
    scree_version version;
};

struct worker {
    pthread_t thread;
    uint64_t random;
    uint32_t number;
    uint32_t pending_n;
    struct pending pending[256];
};

static char dir[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;
static struct shared *shared;
static uint64_t seed, crash;

#define CHECK_OK(call)                                                    \
    do {                                                                  \
        int code_ = (call);                                               \
        KIT_CHECK(code_ == 0, "gave %d %s", code_, kit_code_name(code_)); \
    } while (0)

static uint64_t
relaxed(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void
relaxed_set(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static size_t
page_make(unsigned char *page, uint32_t index, uint64_t number)
{
    uint64_t random = number * PAGES + index;
    struct head head = {.id = FIRST_ID + index,
                        .number = number,
                        .body_len = sizeof(head) + kit_below(&random, BODY_MAX - sizeof(head))};

    memset(page, (int)number, head.body_len);
    memcpy(page, &head, sizeof(head));
    return head.body_len;
}

/* The number of its newest update; the page is whole up to it. */
static uint64_t
page_number(uint32_t index)
{
    unsigned char page[4096], want[BODY_MAX];
    struct head head;
    uint64_t number;
    size_t len = 0;

    CHECK_OK(scree_page_read(cache, FIRST_ID + index, page, sizeof(page), &len, NULL));
    memcpy(&head, page, sizeof(head));
    KIT_CHECK(len >= sizeof(head) && head.id == FIRST_ID + index && head.body_len <= len &&
                  page_make(want, index, head.number) == head.body_len &&
                  memcmp(want, page, head.body_len) == 0,
              "page %u is not what was written", index);
    number = head.number;
    for (size_t at = head.body_len; at < len; at += sizeof(number)) {
        uint64_t fragment = 0;

        KIT_CHECK(at + sizeof(fragment) <= len, "page %u ends within a fragment", index);
        memcpy(&fragment, page + at, sizeof(fragment));
        KIT_CHECK(fragment == ++number, "page %u has number %" PRIu64 " where %" PRIu64 " belongs",
                  index, fragment, number);
    }
    return number;
}

/* After a crash: what was stable is there, and nothing that nobody made. */
static void
pages_check(void)
{
    for (uint32_t i = 0; i < PAGES; i++) {
        uint64_t number = page_number(i), stable = relaxed(&shared->stable[i]),
                 issued = relaxed(&shared->issued[i]);

        KIT_CHECK(number >= stable && number <= issued,
                  "page %u is at %" PRIu64 "; stable was %" PRIu64 " of %" PRIu64, i, number,
                  stable, issued);
        relaxed_set(&shared->issued[i], number); /* the next one goes on from here */
        relaxed_set(&shared->stable[i], number);
    }
}

static void
pending_settle(struct worker *w)
{
    scree_lsn stable = scree_stable_lsn(cache);
    uint32_t kept = 0;

    for (uint32_t i = 0; i < w->pending_n; i++) {
        const struct pending *p = &w->pending[i];

        if (p->version <= stable)
            relaxed_set(&shared->stable[p->page], p->number); /* in order: the newest is the last */
        else
            w->pending[kept++] = *p;
    }
    w->pending_n = kept;
}

static void
update(struct worker *w, uint32_t index)
{
    uint64_t number = relaxed(&shared->issued[index]) + 1;
    scree_version version = 0;

    relaxed_set(&shared->issued[index], number);
    if (number % 24 == 0) { /* so that a page stays short */
        unsigned char page[BODY_MAX];
        size_t len = page_make(page, index, number);

        CHECK_OK(scree_page_put(cache, FIRST_ID + index, kit_slice(page, len), &version));
    } else {
        CHECK_OK(scree_page_append(cache, FIRST_ID + index, kit_slice(&number, sizeof(number)),
                                   &version));
    }
    atomic_fetch_add_explicit(&shared->updates, 1, memory_order_relaxed);
    w->pending[w->pending_n++] = (struct pending){index, number, version};
    if (w->pending_n == sizeof(w->pending) / sizeof(w->pending[0]))
        CHECK_OK(scree_wait_stable(cache, version, -1));
    pending_settle(w);
}

static void *
worker_run(void *argument)
{
    struct worker *w = argument;

    for (;;) { /* until the process dies */
        uint32_t index = (uint32_t)kit_below(&w->random, PAGES / THREADS) * THREADS + w->number;

        if (kit_below(&w->random, 3) > 0)
            update(w, index);
        else
            KIT_CHECK(page_number(index) == relaxed(&shared->issued[index]), "page %u is old",
                      index);
    }
    return NULL;
}

static void
child_work(void)
{
    static struct worker workers[THREADS];
    uint64_t random = seed * 1000 + crash;
    struct kit_plan plan = {
        .kinds = KIT_WRITE, .fault = KIT_FAULT_KILL, .at = 1 + kit_below(&random, WRITES_MAX)};

    kit_verify(dir, &options);
    CHECK_OK(scree_open(dir, &options, &cache));
    pages_check();
    kit_env_plan(&plan);
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.random = kit_random(&random), .number = i};
        KIT_CHECK(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]) == 0, "thread");
    }
    for (;;) {
        scree_stats s = {.size = sizeof(s)};

        CHECK_OK(scree_stats_get(cache, &s));
        relaxed_set(&shared->evictions, s.evictions);
        relaxed_set(&shared->consolidations, s.consolidations);
        (void)usleep(500);
    }
}

static void
child_create(void)
{
    unsigned char page[BODY_MAX];

    CHECK_OK(scree_open(dir, &options, &cache));
    for (uint32_t i = 0; i < PAGES; i++) {
        size_t len = page_make(page, i, 0);

        CHECK_OK(scree_page_allocate_at(cache, FIRST_ID + i, kit_slice(page, len), NULL));
    }
    CHECK_OK(scree_close(cache));
}

static void
run(void (*body)(void))
{
    pid_t child = kit_fork();
    int status;

    if (child == 0) {
        alarm(60);
        body();
        _exit(0);
    }
    status = kit_join(child);
    if (status != 0 && status != KIT_KILLED)
        exit(1);
}

int
main(int argc, char **argv)
{
    uint64_t crashes = kit_argument(argc, argv, 2, 60), evictions = 0, consolidations = 0;

    seed = kit_argument(argc, argv, 1, 1);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    KIT_CHECK(shared != MAP_FAILED, "mmap");
    kit_dir_name(dir, "pressure");
    kit_options_small(&options, &kit_concat);
    options.env = kit_env();
    options.log_buffer_bytes =
        256 * 1024; /* more than memory: pages grow cold before they are stable */
    options.flush_interval_ms = 20;
    kit_env_plan(&(struct kit_plan){.kinds = 0});
    run(child_create);
    for (crash = 0; crash < crashes; crash++) {
        snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", crash %" PRIu64, seed, crash);
        run(child_work);
        evictions += relaxed(&shared->evictions);
        consolidations += relaxed(&shared->consolidations);
    }
    kit_dir_remove(dir);
    KIT_CHECK(evictions > 0 && consolidations > 0, "nothing left memory");
    printf("seed %" PRIu64 ": %" PRIu64 " crashes, %" PRIu64 " updates, %" PRIu64
           " evictions, %" PRIu64 " consolidations: ok\n",
           seed, crashes, relaxed(&shared->updates), evictions, consolidations);
    return 0;
}
