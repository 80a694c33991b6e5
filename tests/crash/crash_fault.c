/*
 * crash_fault.c - each I/O call of a small workload fails, one after the other (P6, P7).
 *
 * GOAL      a failed write or sync poisons: writers and waiters are told, nobody hangs, cached pages stay
 *           readable, health sticks; a full disk does not poison: it fails calls, and passes. Whatever
 *           failed, a later open on a healthy disk finds a state that was, with all that was acknowledged.
 * METHOD    the workload: open (a new, a closed or a crashed directory), updates with flushes and
 *           snapshots between them, reads of cold pages, close; beside it a thread that waits for stable.
 *           A counting run tells how many calls there are of each group; then for each of them (or every
 *           few, where there are many) one run in which it fails: once with EIO, with ENOSPC, for good,
 *           by a short count, by a torn write. Each in a child with an alarm.
 * ORACLE    the history of all states (history.h), and the codes of P6.
 * NOT HERE  memory that runs out (tests/fault), power cuts.
 *
 * crash_fault [seed] [runs, about]
 *
 * WORD   waiter_stop: main asks the waiting thread to end: store relaxed, load relaxed; it looks again after
 *        each wait.  wanted: the version to wait for: store release, load acquire.
 * EDGES  those.   LIFETIME  static.   PROGRESS  a wait ends by P6, or the alarm does.   FAILURE  is the matter.
 */
#include "support/history.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum start { START_NEW, START_CLOSED, START_CRASHED, STARTS };
static const char *const start_names[STARTS] = {"new", "closed", "crashed"};

struct group {
    const char *name;
    unsigned kinds;
    bool takes_room;
};
static const struct group groups[] = {
    {"writes", KIT_WRITE, true},
    {"syncs", KIT_SYNC | KIT_SYNC_DIR, true},
    {"room", KIT_ALLOCATE | KIT_TRUNCATE | KIT_PUNCH, true},
    {"names", KIT_OPEN | KIT_RENAME | KIT_UNLINK | KIT_MKDIR, true},
    {"reads", KIT_READ | KIT_INFO | KIT_LIST, false},
    {"the rest", KIT_LOCK | KIT_RANDOM, false},
};
#define GROUPS (sizeof(groups) / sizeof(groups[0]))

struct way {
    const char *name;
    enum kit_fault fault;
    int code;
};
static const struct way ways[] = {
    {"EIO once", KIT_FAULT_CODE, -EIO},       {"EIO for good", KIT_FAULT_STUCK, -EIO},
    {"ENOSPC once", KIT_FAULT_CODE, -ENOSPC}, {"a short count", KIT_FAULT_SHORT, 0},
    {"a torn write", KIT_FAULT_TEAR, -EIO},
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static char origin[KIT_PATH_MAX];
static char work[KIT_PATH_MAX];
static struct history *h;
static struct history *h_origin; /* as it was when origin was left */
static scree_options options;
static scree_cache *cache;

struct shared {
    uint64_t calls;
    uint64_t poisoned, no_space, open_failed, unharmed, read_failed;
    uint64_t begun; /* the new directory's state 0 is known */
};
static struct shared *shared;

static _Atomic bool waiter_stop;
static _Atomic uint64_t wanted;

static bool
error_is_fair(int code)
{
    return code == SCREE_E_POISONED || code == SCREE_E_NO_SPACE || code == -EIO ||
           code == -ENOSPC || code == SCREE_E_CORRUPT;
}

static void
error_check(int code, const char *what)
{
    KIT_CHECK(error_is_fair(code), "%s gave %d %s", what, code, kit_code_name(code));
    KIT_CHECK(scree_error_detail()[0] != '\0', "%s: no detail", what);
    if (code == SCREE_E_NO_SPACE)
        shared->no_space++;
}

/* Whatever happens, waiting ends. */
static void *
waiter_run(void *argument)
{
    (void)argument;
    while (!atomic_load_explicit(&waiter_stop, memory_order_relaxed)) {
        uint64_t version = atomic_load_explicit(&wanted, memory_order_acquire);
        int code = scree_wait_stable(cache, version, -1);

        if (code != 0)
            error_check(code, "wait_stable");
        if (code == 0)
            KIT_CHECK(scree_stable_lsn(cache) >= version, "waited for nothing");
        if (code == SCREE_E_POISONED)
            KIT_CHECK(scree_health(cache) != 0, "POISONED, but healthy");
        usleep(300);
    }
    return NULL;
}

/* Once poisoned, all updates fail. A flush and a snapshot may say that there is nothing left to do. */
static void
poison_check(const struct way *way)
{
    scree_version version = 0;
    int health = scree_health(cache);
    int code;

    if (health == 0)
        return;
    KIT_CHECK(way->fault != KIT_FAULT_SHORT, "a short count poisoned: %d", health);
    for (int i = 0; i < 3; i++) {
        code = scree_page_append(cache, SCREE_PAGE_ROOT, kit_slice("x", 1), &version);
        KIT_CHECK(code == SCREE_E_POISONED, "an append after poison gave %d", code);
        code = scree_flush(cache, NULL);
        KIT_CHECK(code == SCREE_E_POISONED, "a flush after poison gave %d", code);
        code = scree_snapshot(cache, NULL);
        KIT_CHECK(code == SCREE_E_POISONED, "a snapshot after poison gave %d", code);
        KIT_CHECK(scree_health(cache) == health, "health went from %d to %d", health,
                  scree_health(cache));
    }
}

/* What was accepted is to be seen, failures beside it or not. */
static void
live_check(const struct way *way, unsigned kinds)
{
    struct history_seen seen;
    int code = history_look(h, cache, &seen);

    KIT_CHECK(code == 0, "page_next gave %d", code);
    KIT_CHECK(history_find(h, &seen, h->n - 1) >= 0,
              "the live cache does not hold what it accepted");
    if (seen.failures > 0) {
        shared->read_failed++;
        KIT_CHECK((kinds & (KIT_READ | KIT_OPEN)) != 0 || way->fault == KIT_FAULT_STUCK ||
                      scree_health(cache) != 0,
                  "%" PRIu32 " pages cannot be read", seen.failures);
    }
}

static void
workload(void)
{
    for (int i = 0; i < 90; i++) {
        int code = history_step(h, cache);

        if (code != 0)
            error_check(code, "an update");
        atomic_store_explicit(&wanted, h->version_any, memory_order_release);
        if (i % 9 == 8) {
            code = history_flush(h, cache);
            if (code != 0)
                error_check(code, "flush");
        }
        if (i % 30 == 20) {
            code = scree_snapshot(cache, NULL);
            if (code != 0)
                error_check(code, "snapshot");
        }
    }
}

/* One run with a fault; the directory is left for the next open. */
static void
child_run(enum start start, const struct way *way, const struct kit_plan *plan)
{
    pthread_t waiter;
    int code;

    alarm(30);
    kit_env_plan(plan);
    code = scree_open(work, &options, &cache);
    if (code != 0) {
        KIT_CHECK(scree_error_detail()[0] != '\0' && cache == NULL, "open gave %d, no detail",
                  code);
        KIT_CHECK(way->fault != KIT_FAULT_SHORT, "a short count: open gave %d", code);
        KIT_CHECK(error_is_fair(code), "open gave %d %s", code, kit_code_name(code));
        shared->open_failed++;
        return;
    }
    if (start == START_NEW) {
        history_begin(h, cache);
        shared->begun = 1;
    }
    atomic_store_explicit(&wanted, scree_stable_lsn(cache), memory_order_release);
    KIT_CHECK(pthread_create(&waiter, NULL, waiter_run, NULL) == 0, "thread");
    workload();
    poison_check(way);
    live_check(way, plan->kinds);
    if (way->code == -ENOSPC && scree_health(cache) == 0) { /* there is room again */
        uint64_t until = kit_now_ms() + 3000;

        do { /* "by itself": but it may take a moment */
            usleep(1000);
            code = history_step(h, cache);
        } while (code == SCREE_E_NO_SPACE && kit_now_ms() < until);
        KIT_CHECK(code == 0 || scree_health(cache) != 0,
                  "an update after the disk was full gave %d", code);
        code = history_flush(h, cache);
        KIT_CHECK(code == 0 || scree_health(cache) != 0, "a flush after that gave %d", code);
    }
    if (way->code == -ENOSPC) /* what was written into room that had been given is another matter */
        KIT_CHECK(scree_health(cache) == 0 ||
                      (kit_env_hit_kind() & (KIT_WRITE | KIT_SYNC | KIT_SYNC_DIR)) != 0,
                  "a full disk (kind %u) poisoned: %d", kit_env_hit_kind(), scree_health(cache));
    if (scree_health(cache) != 0)
        shared->poisoned++;
    else
        shared->unharmed++;
    history_acknowledge(h, scree_stable_lsn(cache));
    atomic_store_explicit(&waiter_stop, true, memory_order_relaxed);
    pthread_join(waiter, NULL);
    shared->calls = kit_env_calls();
    code = scree_close(cache);
    if (code == 0)
        h->acked = h->n - 1;
    else
        error_check(code, "close");
    KIT_CHECK(code == 0 || way->fault != KIT_FAULT_SHORT, "a short count: close gave %d", code);
}

/* A healthy disk again. */
static void
child_check(void)
{
    struct kit_plan plan = {.kinds = 0};
    struct history_seen seen;
    int code;
    int at;

    alarm(30);
    kit_env_plan(&plan);
    kit_verify(work, &options);
    code = scree_open(work, &options, &cache);
    KIT_CHECK(code == 0, "reopening gave %d %s", code, kit_code_name(code));
    if (h->n == 0)
        history_begin(h, cache);
    code = history_look(h, cache, &seen);
    KIT_CHECK(code == 0 && seen.failures == 0, "%" PRIu32 " pages cannot be read", seen.failures);
    at = history_find(h, &seen, h->acked);
    KIT_CHECK(at >= 0,
              "reopened is no state behind the acknowledged %" PRIu32 " of %" PRIu32
              " (%d: one before that), %d strangers",
              h->acked, h->n - 1, history_find(h, &seen, 0), seen.strangers);
    history_return_to(h, (uint32_t)at, cache);
    for (int i = 0; i < 5; i++)
        KIT_CHECK(history_step(h, cache) == 0, "update");
    KIT_CHECK(scree_close(cache) == 0, "close");
}

static bool
run(enum start start, const struct way *way, const struct kit_plan *plan)
{
    pid_t child = kit_fork();
    int status;

    if (child == 0) {
        if (plan != NULL)
            child_run(start, way, plan);
        else
            child_check();
        _exit(0);
    }
    status = kit_join(child);
    if (status != 0 && getenv("SCREE_TEST_KEEP") == NULL)
        exit(1);
    return status == 0;
}

static void
origin_make(enum start start)
{
    pid_t child;

    kit_dir_remove(origin);
    memcpy(h, h_origin, sizeof(*h)); /* zeros and the seed */
    if (start == START_NEW)
        return;
    child = kit_fork();
    if (child == 0) {
        kit_env_plan(&(struct kit_plan){.kinds = 0});
        KIT_CHECK(scree_open(origin, &options, &cache) == 0, "open");
        history_begin(h, cache);
        for (int i = 0; i < 150; i++)
            KIT_CHECK(history_step(h, cache) == 0, "update");
        KIT_CHECK(history_flush(h, cache) == 0, "flush");
        if (start == START_CLOSED)
            KIT_CHECK(scree_close(cache) == 0, "close");
        _exit(0);
    }
    KIT_CHECK(kit_join(child) == 0, "making the directory");
}

static uint64_t runs;

static void
case_run(enum start start, const struct history *before, const struct group *group,
         const struct way *way, uint64_t at)
{
    struct kit_plan plan = {
        .kinds = group->kinds, .fault = way->fault, .code = way->code, .at = at};

    if (start == START_NEW)
        kit_dir_remove(work);
    else
        kit_dir_copy(origin, work);
    memcpy(h, before, sizeof(*h));
    snprintf(kit_context, sizeof(kit_context), "%s directory, %s, call %" PRIu64 ": %s",
             start_names[start], group->name, at, way->name);
    if (run(start, way, &plan))
        (void)run(start, way, NULL);
    runs++;
}

static void
start_run(enum start start, uint64_t budget)
{
    struct history *before = history_new(0);

    origin_make(start);
    memcpy(before, h, sizeof(*h));
    for (size_t g = 0; g < GROUPS; g++) {
        static const struct way none = {"nothing", KIT_FAULT_NONE, 0};
        uint64_t stride;

        case_run(start, before, &groups[g], &none, 0);
        stride = shared->calls * WAYS / budget + 1;
        for (uint64_t at = 1; at <= shared->calls + 3; at += at < 12 ? 1 : stride) {
            uint64_t calls = shared->calls;

            for (size_t w = 0; w < WAYS; w++) {
                if (ways[w].fault == KIT_FAULT_TEAR && groups[g].kinds != KIT_WRITE)
                    continue;
                if (ways[w].code == -ENOSPC && !groups[g].takes_room)
                    continue;
                case_run(start, before, &groups[g], &ways[w], at);
            }
            shared->calls = calls;
        }
    }
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t budget = kit_argument(argc, argv, 2, KIT_MUCH(900, 80, 900));

    h = history_new(seed);
    h_origin = history_new(seed);
    shared = (struct shared *)(void *)history_new(0);
    kit_dir_name(origin, "fault");
    kit_dir_name(work, "fault-work");
    kit_options_small(&options, &kit_concat);
    options.env = kit_env();
    options.flush_interval_ms = 0;
    for (int start = 0; start < STARTS; start++)
        start_run((enum start)start, budget / STARTS / GROUPS);
    kit_dir_remove(origin);
    kit_dir_remove(work);
    printf("seed %" PRIu64 ": %" PRIu64 " runs: %" PRIu64 " poisoned, %" PRIu64
           " updates met a full disk, %" PRIu64 " opens failed, %" PRIu64
           " runs with unreadable pages, %" PRIu64 " unharmed: ok\n",
           seed, runs, shared->poisoned, shared->no_space, shared->open_failed, shared->read_failed,
           shared->unharmed);
    KIT_CHECK(shared->poisoned > 0 && shared->no_space > 0 && shared->open_failed > 0 &&
                  shared->unharmed > 0,
              "too little happened");
    return 0;
}
