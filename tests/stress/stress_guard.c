/*
 * stress_guard.c - a read guard held for too long is told of, with whose it is.
 *
 * GOAL      while a guard keeps memory from reuse for a second and more, SCREE_EVENT_GUARD_HELD comes, again at
 *           doubling ages; it names the thread that holds the guard, and no thread that opens and leaves guards
 *           all the time. Without such a guard it does not come.
 * METHOD    threads read in short guards and nested ones, nearly always in one, or replace pages too, which
 *           retires memory. First for a while without more; then one thread opens a guard, opens and leaves
 *           others inside it, and holds it until two events have come; then without again.
 * ORACLE    W1 no event without a held guard. W2 the first event's age is at least 1 s, the second's at least
 *           2 s, and the guard had really been open that long. W3 its bytes are those of retired memory. W4 the
 *           text names the holder, and nobody else.
 *
 * stress_guard [seed] [seconds, unused] [threads]
 *
 * WORD      stop, events, ...: set by the event callback (one thread at a time), read by main: E0 events + 1,
 *           release; E1 events, acquire.
 * LIFETIME  static.   PROGRESS  PATIENCE_MS bounds the wait for events.   FAILURE  the run ends.
 */
#include "support/kit.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 16u
#define PAGES 64u
#define CALM_MS 1300u
#define PATIENCE_MS 60000u
#define EVENTS_MAX 8u

#define CHECK_OK(call)                                                                  \
    do {                                                                                \
        int result_ = (call);                                                           \
                                                                                        \
        KIT_CHECK(result_ == 0, #call " gives %d %s", result_, kit_code_name(result_)); \
    } while (0)

struct told {
    uint64_t at_ms, age_ms, bytes;
    char text[256];
};

static scree_cache *cache;
static scree_page_id page_id[PAGES];
static _Atomic bool stop;
static _Atomic uint32_t events;
static struct told told[EVENTS_MAX];

static void
on_event(void *ctx, const scree_event *event)
{
    uint32_t n = atomic_load_explicit(&events, memory_order_relaxed);

    (void)ctx;
    if (event->kind != SCREE_EVENT_GUARD_HELD || n == EVENTS_MAX)
        return;
    told[n] = (struct told){.at_ms = kit_now_ms(), .age_ms = event->age_ms, .bytes = event->bytes};
    (void)snprintf(told[n].text, sizeof(told[n].text), "%s", event->text);
    atomic_store_explicit(&events, n + 1, memory_order_release); /* E0 */
}

static uint32_t
events_now(void)
{
    return atomic_load_explicit(&events, memory_order_acquire); /* E1 */
}

/* One guard, with another in it. */
static void
look(uint64_t *random)
{
    scree_slice page;

    scree_read_enter(cache);
    CHECK_OK(scree_page_get(cache, page_id[kit_below(random, PAGES)], &page, NULL));
    scree_read_enter(cache);
    CHECK_OK(scree_page_get(cache, page_id[kit_below(random, PAGES)], &page, NULL));
    scree_read_leave(cache);
    scree_read_leave(cache);
}

/* Nearly always in a guard, never in one for long. */
static void *
read_on(void *arg)
{
    uint64_t random = *(const uint64_t *)arg;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        scree_read_enter(cache);
        for (uint32_t i = 0; i < 200; i++)
            look(&random);
        scree_read_leave(cache);
    }
    return NULL;
}

static void *
churn(void *arg)
{
    uint64_t random = *(const uint64_t *)arg;
    unsigned char bytes[200] = {0};

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        for (uint32_t i = 0; i < 100; i++)
            look(&random);
        CHECK_OK(scree_page_put(cache, page_id[kit_below(&random, PAGES)],
                                kit_slice(bytes, sizeof(bytes)), NULL));
    }
    return NULL;
}

/* W1 */
static void
stay_calm(const char *when)
{
    uint64_t until = kit_now_ms() + CALM_MS;
    uint32_t before = events_now();

    while (kit_now_ms() < until)
        usleep(10000);
    KIT_CHECK(events_now() == before, "%s: an event without a cause: %s", when, told[before].text);
}

/* W2, W3 */
static void
check_told(const struct told *t, uint64_t opened_ms, uint64_t age_min_ms)
{
    KIT_CHECK(t->age_ms >= age_min_ms, "an age of %" PRIu64 " ms", t->age_ms);
    KIT_CHECK(t->age_ms <= t->at_ms - opened_ms + 1, "an age of %" PRIu64 " ms, open for %" PRIu64,
              t->age_ms, t->at_ms - opened_ms);
    KIT_CHECK(t->bytes >= 200, "%" PRIu64 " bytes", t->bytes);
}

static void *
hold(void *arg)
{
    uint64_t random = *(const uint64_t *)arg, opened_ms;
    char name[32], *at;

    (void)snprintf(name, sizeof(name), "thread %d)", (int)gettid());
    look(&random); /* so that its context is no news */
    opened_ms = kit_now_ms();
    scree_read_enter(cache);
    while (events_now() < 2) {
        look(&random); /* inside it */
        usleep(1000);
        KIT_CHECK(kit_now_ms() - opened_ms < PATIENCE_MS, "%u events", events_now());
    }
    scree_read_leave(cache);
    check_told(&told[0], opened_ms, 1000);
    check_told(&told[1], opened_ms, 2000);
    for (uint32_t i = 0; i < 2; i++) { /* W4 */
        at = strchr(told[i].text, '(');
        KIT_CHECK(at != NULL && strncmp(at + 1, name, strlen(name)) == 0, "not %s but: %s", name,
                  told[i].text);
    }
    return NULL;
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1), seeds[THREADS_MAX];
    uint32_t threads = (uint32_t)kit_argument(argc, argv, 3, 3);
    pthread_t thread[THREADS_MAX], holder;
    char directory[KIT_PATH_MAX];
    scree_options options;

    if (threads < 2 || threads > THREADS_MAX)
        return 2;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    kit_dir_name(directory, "guard");
    kit_options_small(&options, &kit_concat);
    options.cache_bytes = (uint64_t)16 << 20;
    options.event = on_event;
    CHECK_OK(scree_open(directory, &options, &cache));
    for (uint32_t i = 0; i < PAGES; i++)
        CHECK_OK(scree_page_allocate(cache, kit_slice("page", 4), &page_id[i], NULL));
    for (uint32_t t = 0; t < threads; t++) {
        seeds[t] = seed * 1000 + t;
        KIT_CHECK(pthread_create(&thread[t], NULL, t % 2 == 0 ? churn : read_on, &seeds[t]) == 0,
                  "thread");
    }
    stay_calm("before");
    KIT_CHECK(pthread_create(&holder, NULL, hold, &seeds[0]) == 0, "thread");
    pthread_join(holder, NULL);
    stay_calm("after");
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (uint32_t t = 0; t < threads; t++)
        pthread_join(thread[t], NULL);
    CHECK_OK(scree_close(cache));
    kit_dir_remove(directory);
    printf("told at %" PRIu64 " and %" PRIu64 " ms: %s\n", told[0].age_ms, told[1].age_ms,
           told[1].text);
    return 0;
}
