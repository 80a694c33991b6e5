/*
 * crash_full.c - the disk is full at every single call that takes room, one after the other (P6).
 *
 * GOAL      a full disk fails calls with NO_SPACE and nothing else: what was acknowledged stays, reads go
 *           on, and once there is room writing resumes by itself, without a reopen.
 * METHOD    a churn (allocate, put, set, append, merge, free, flush, snapshot, reclaim, close) over 24 pages,
 *           with the smallest sizes, in a child with an alarm. A counting run tells how many calls there are
 *           that take room (allocate, write, open of a new file, rename, mkdir); then for each of them a run
 *           where it is the first to fail, in each of three ways (full_env.h): it alone; it and the next
 *           few; a disk that from then on has no free block, so that what lies in allocated blocks goes on
 *           and what is punched or deleted may be used again. On a new directory and on one that crashed.
 *           Two workers share the runs.
 * ORACLE    the history of all states (history.h): the live cache is at the newest one after every NO_SPACE,
 *           and the reopened directory at or behind the newest acknowledged; after a close that returned 0
 *           exactly at the newest. An update, a flush, a snapshot and a reclaim that met NO_SPACE succeed
 *           within seconds of there being room. NO_SPACE of an update is told by an event, and so is that it
 *           is over. Poison is a failure of the test, with one exception: the env refused to write records
 *           into a segment file; "a failed write is never repeated" (scree.h), room for it had been given
 *           before, and no file system known to us does that. The third way never does.
 * NOT HERE  other errors (crash_fault), a real file system (crash_tmpfs_full).
 *
 * crash_full [seed] [every n-th call, 1] [first call] [way 1 to 3, 0: all] [start 0 or 1, 2: both]
 *
 * WORD   events: counted by any thread of the library, read by main: relaxed, each a count by itself.
 * EDGES  those.   LIFETIME  static.   PROGRESS  every wait has a deadline, every child an alarm.
 * FAILURE  is the matter.
 */
#include "support/full_env.h"
#include "support/history.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STRIDE KIT_MUCH(2, 15, 2)
#define STEPS 160
#define RESUME_MS 5000u
#define WORKERS 2u

static const char *const way_names[] = {"", "that call", "calls for a while", "no free block"};
enum start { START_NEW, START_CRASHED, STARTS };
static const char *const start_names[STARTS] = {"new", "crashed"};

static char origin[KIT_PATH_MAX];
static char work[KIT_PATH_MAX];
static struct history *h;
static const struct history *h_origin;
static scree_options options;
static scree_cache *cache;
static enum start start;
static struct full_plan plan;

static _Atomic uint64_t events[16]; /* by kind */

/* What the children tell their worker. */
struct shared {
    uint64_t calls;
    uint64_t runs, unseen, no_space, updates_no_space, open_no_space, close_no_space, poisoned,
        reads;
    uint64_t acked_by_close;
    char first[96];
};
static struct shared *shared;

static void
event_count(void *ctx, const scree_event *event)
{
    (void)ctx;
    if (event->kind >= 0 && event->kind < 16)
        (void)atomic_fetch_add_explicit(&events[event->kind], 1, memory_order_relaxed);
}

static uint64_t
events_of(enum scree_event_kind kind)
{
    return atomic_load_explicit(&events[kind], memory_order_relaxed);
}

static struct full_seen
env_seen(void)
{
    struct full_seen seen;

    full_env_seen(&seen);
    memcpy(shared->first, seen.first, sizeof(shared->first));
    return seen;
}

/* NO_SPACE and nothing else; POISONED only with the excuse above. */
static void
error_check(int code, const char *what)
{
    struct full_seen seen = env_seen();

    KIT_CHECK(scree_error_detail()[0] != '\0', "%s: no detail", what);
    if (code == SCREE_E_NO_SPACE) {
        KIT_CHECK(seen.failures > 0, "%s gave NO_SPACE, but no call has failed", what);
        shared->no_space++;
        return;
    }
    KIT_CHECK(code != -ENOSPC, "%s gave -ENOSPC, not NO_SPACE; first to fail was: %s", what,
              seen.first);
    KIT_CHECK(code == SCREE_E_POISONED && seen.data_writes > 0 && plan.way != FULL_DISK,
              "%s gave %d %s; first to fail was: %s", what, code, kit_code_name(code), seen.first);
}

/* The live cache holds what it accepted, to the byte, full disk or not. */
static void
reads_check(void)
{
    struct history_seen seen;
    int code = history_look(h, cache, &seen);

    KIT_CHECK(code == 0 && seen.failures == 0, "page_next gave %d, %" PRIu32 " pages unreadable",
              code, seen.failures);
    KIT_CHECK(history_find(h, &seen, h->n - 1) >= 0,
              "the live cache does not hold what it accepted (first to fail was: %s)",
              env_seen().first);
    shared->reads++;
}

enum what { UPDATE, FLUSH, SNAPSHOT, RECLAIM };
static const char *const what_names[] = {"an update", "a flush", "a snapshot", "a reclaim"};

static int
call(enum what what)
{
    switch (what) {
    case UPDATE:
        return history_step(h, cache);
    case FLUSH:
        return history_flush(h, cache);
    case SNAPSHOT:
        return scree_snapshot(cache, NULL);
    case RECLAIM:
        return scree_reclaim(cache, 1.2, NULL, NULL);
    }
    return 0;
}

/* Once, and again until it succeeds. False: poisoned, with the excuse. */
static bool
call_through(enum what what)
{
    uint64_t until = 0;
    int code = call(what);

    for (uint64_t tries = 0; code != 0; tries++) {
        error_check(code, what_names[what]);
        shared->updates_no_space += what == UPDATE && code == SCREE_E_NO_SPACE;
        if (scree_health(cache) != 0)
            return false;
        if (tries == 0) {
            reads_check();
            until = kit_now_ms() + RESUME_MS;
        }
        if (tries == 50) /* nobody gives room back that the library could: somebody else does */
            full_env_room_back();
        KIT_CHECK(kit_now_ms() < until,
                  "%s still gives %s, %u ms after the disk was full for %" PRIu64
                  " calls, the first: %s",
                  what_names[what], kit_code_name(code), RESUME_MS, env_seen().failures,
                  env_seen().first);
        usleep(2000);
        code = call(what);
    }
    return true;
}

/* An event comes from another thread than the result that it explains. */
static bool
event_comes(enum scree_event_kind kind)
{
    for (int i = 0; i < 2000 && events_of(kind) == 0; i++)
        usleep(1000);
    return events_of(kind) > 0;
}

/* There is room: all goes on, and that is told. Enough updates to need new room for certain. */
static bool
aftermath(void)
{
    uint64_t told = events_of(SCREE_EVENT_NO_SPACE);

    full_env_room_back();
    for (int i = 0; i < 100; i++) {
        if (!call_through(UPDATE))
            return false;
    }
    if (!call_through(FLUSH) || !call_through(SNAPSHOT) || !call_through(RECLAIM))
        return false;
    KIT_CHECK(shared->updates_no_space == 0 || event_comes(SCREE_EVENT_NO_SPACE),
              "an update gave NO_SPACE, no event said so (first to fail was: %s)",
              env_seen().first);
    KIT_CHECK(told == 0 || event_comes(SCREE_EVENT_SPACE_BACK),
              "%" PRIu64 " NO_SPACE events, and no SPACE_BACK though writing goes on", told);
    return true;
}

static bool
workload(void)
{
    for (int i = 0; i < STEPS; i++) {
        if (!call_through(UPDATE))
            return false;
        if (i % 8 == 7 && !call_through(FLUSH))
            return false;
        if (i % 30 == 20 && !call_through(SNAPSHOT))
            return false;
        if (i % 50 == 40 && !call_through(RECLAIM))
            return false;
    }
    return true;
}

/* Opens, however often it takes. */
static void
open_through(void)
{
    uint64_t until = kit_now_ms() + RESUME_MS;
    uint64_t tries = 0;
    int code;

    while ((code = scree_open(work, &options, &cache)) != 0) {
        KIT_CHECK(cache == NULL, "open failed, but gave a cache");
        error_check(code, "open");
        for (int kind = 0; kind < 16; kind++) /* that cache is gone, with what it told */
            atomic_store_explicit(&events[kind], 0, memory_order_relaxed);
        shared->open_no_space++;
        if (++tries == 20)
            full_env_room_back();
        KIT_CHECK(kit_now_ms() < until, "open still gives NO_SPACE");
        usleep(1000);
    }
}

/* One run with a full disk; the directory is left for the next open. */
static void
child_run(void)
{
    bool healthy;
    int code;

    alarm(40);
    full_env_plan(&plan);
    open_through();
    if (start == START_NEW)
        history_begin(h, cache);
    healthy = workload();
    reads_check();
    if (healthy && env_seen().failures > 0)
        healthy = aftermath();
    KIT_CHECK(healthy == (scree_health(cache) == 0), "health is %d, but nobody was told",
              scree_health(cache));
    KIT_CHECK(healthy ? events_of(SCREE_EVENT_POISONED) == 0 : event_comes(SCREE_EVENT_POISONED),
              "healthy: %d, POISONED events: %" PRIu64, healthy, events_of(SCREE_EVENT_POISONED));
    history_acknowledge(h, scree_stable_lsn(cache));
    shared->poisoned += !healthy;
    shared->unseen += env_seen().failures > 0 && shared->no_space == 0;
    code = scree_close(cache);
    shared->calls = env_seen().calls;
    shared->acked_by_close = code == 0;
    if (code == 0) {
        h->acked = h->n - 1;
        return;
    }
    if (healthy)
        error_check(code, "close");
    shared->close_no_space++;
}

/* A healthy disk again. */
static void
child_check(void)
{
    static const struct full_plan none = {.way = FULL_NEVER};
    scree_recovery_info info = {.size = sizeof(info)};
    struct history_seen seen;
    int code;
    int at;

    alarm(40);
    full_env_plan(&none);
    kit_verify(work, &options);
    code = scree_open(work, &options, &cache);
    KIT_CHECK(code == 0, "reopening gave %d %s; first to fail was: %s", code, kit_code_name(code),
              shared->first);
    code = history_look(h, cache, &seen);
    KIT_CHECK(code == 0 && seen.failures == 0,
              "%" PRIu32 " pages cannot be read; first to fail: %s", seen.failures, shared->first);
    at = history_find(h, &seen, h->acked);
    KIT_CHECK(at >= 0,
              "reopened is no state behind the acknowledged %" PRIu32 " of %" PRIu32
              " (%d: one before that), %d strangers; first to fail was: %s",
              h->acked, h->n - 1, history_find(h, &seen, 0), seen.strangers, shared->first);
    KIT_CHECK(scree_recovery(cache, &info) == 0, "recovery");
    KIT_CHECK(!shared->acked_by_close || info.clean == 1, "closed, but not clean");
    history_return_to(h, (uint32_t)at, cache);
    for (int i = 0; i < 5; i++)
        KIT_CHECK(history_step(h, cache) == 0, "update");
    KIT_CHECK(scree_reclaim(cache, 1.2, NULL, NULL) == 0, "reclaim");
    reads_check();
    KIT_CHECK(scree_close(cache) == 0, "close");
}

static void
child_origin(void)
{
    static const struct full_plan none = {.way = FULL_NEVER};

    full_env_plan(&none);
    KIT_CHECK(scree_open(origin, &options, &cache) == 0, "open");
    history_begin(h, cache);
    for (int i = 0; i < 80; i++)
        KIT_CHECK(history_step(h, cache) == 0, "update");
    KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
    for (int i = 0; i < 60; i++)
        KIT_CHECK(history_step(h, cache) == 0, "update");
    KIT_CHECK(history_flush(h, cache) == 0, "flush");
}

/* In a child; false if it failed and SCREE_TEST_KEEP wants the run to go on. */
static bool
run(void (*body)(void))
{
    pid_t child = kit_fork();
    int status;

    if (child == 0) {
        body();
        _exit(0);
    }
    status = kit_join(child);
    if (status > 255)
        printf("first to fail was: %s\n", shared->first);
    if (status != 0 && getenv("SCREE_TEST_KEEP") == NULL) {
        kit_dir_remove(work);
        fflush(stdout);
        _exit(1);
    }
    return status == 0;
}

static uint64_t seed;
static uint64_t failed; /* with SCREE_TEST_KEEP */

static void
case_run(enum full_way way, uint64_t at)
{
    uint64_t no_space = shared->no_space;

    plan = (struct full_plan){.way = way, .at = at, .failures = 2 + at % 5};
    if (start == START_NEW)
        kit_dir_remove(work);
    else
        kit_dir_copy(origin, work);
    memcpy(h, h_origin, sizeof(*h));
    shared->first[0] = '\0';
    shared->no_space = shared->updates_no_space = 0; /* this run's */
    snprintf(kit_context, sizeof(kit_context),
             "seed %" PRIu64 ", %s directory, call %" PRIu64 ", full: %s", seed, start_names[start],
             at, way_names[way]);
    if (!run(child_run) || !run(child_check))
        failed++;
    shared->no_space += no_space;
    shared->runs++;
}

/* Every WORKERS-th call from `first` on; calls grow and shrink a little with the threads' timing. */
static void
worker_run(uint64_t number, uint64_t first, uint64_t stride, uint64_t ways)
{
    uint64_t calls;

    kit_dir_name(work, "full-work");
    case_run(FULL_NEVER, 0);
    calls = shared->calls;
    KIT_CHECK(calls > 100, "only %" PRIu64 " calls take room", calls);
    for (uint64_t at = first + number * stride; at <= calls + 5; at += WORKERS * stride) {
        for (enum full_way way = FULL_ONCE; way <= FULL_DISK; way++) {
            if (ways == 0 || ways == way)
                case_run(way, at);
        }
    }
    shared->calls = calls;
    kit_dir_remove(work);
    _exit(failed > 0);
}

static int
start_run(uint64_t first, uint64_t stride, uint64_t ways, struct shared *const *of_worker)
{
    pid_t worker[WORKERS];
    int bad = 0;

    kit_dir_name(origin, "full");
    history_reset(h, seed);
    h->len_max = 2600;
    if (start != START_NEW)
        (void)run(child_origin);
    h_origin = h;
    for (uint64_t w = 0; w < WORKERS; w++) {
        fflush(stdout);
        worker[w] = fork();
        KIT_CHECK(worker[w] >= 0, "fork");
        if (worker[w] == 0) {
            shared = of_worker[w];
            h = history_new(0);
            worker_run(w, first, stride, ways);
        }
    }
    for (uint64_t w = 0; w < WORKERS; w++) {
        int status = 1;

        (void)waitpid(worker[w], &status, 0);
        bad |= status != 0;
    }
    kit_dir_remove(origin);
    return bad;
}

int
main(int argc, char **argv)
{
    uint64_t stride = kit_argument(argc, argv, 2, STRIDE);
    uint64_t first = kit_argument(argc, argv, 3, 1);
    uint64_t ways = kit_argument(argc, argv, 4, 0);
    uint64_t starts = kit_argument(argc, argv, 5, 2);
    struct shared *of_worker[WORKERS];
    struct shared sum = {.calls = 0};
    int bad = 0;

    seed = kit_argument(argc, argv, 1, 1);
    if (stride < 1 || first < 1 || ways > FULL_DISK)
        return 2;
    h = history_new(seed);
    for (uint64_t w = 0; w < WORKERS; w++)
        of_worker[w] = (struct shared *)(void *)history_new(0);
    shared = of_worker[0];
    kit_options_small(&options, &kit_concat);
    options.env = full_env();
    options.event = event_count;
    options.snapshot_log_bytes = 128 * 1024;
    for (start = START_NEW; start < STARTS; start++) {
        if (starts >= STARTS || starts == start)
            bad |= start_run(first, stride, ways, of_worker);
    }
    for (uint64_t w = 0; w < WORKERS; w++) {
        sum.calls = of_worker[w]->calls;
        sum.runs += of_worker[w]->runs;
        sum.no_space += of_worker[w]->no_space;
        sum.open_no_space += of_worker[w]->open_no_space;
        sum.close_no_space += of_worker[w]->close_no_space;
        sum.poisoned += of_worker[w]->poisoned;
        sum.unseen += of_worker[w]->unseen;
        sum.reads += of_worker[w]->reads;
    }
    printf("crash_full: seed %" PRIu64 ", %" PRIu64 " runs, about %" PRIu64
           " calls that take room: NO_SPACE from %" PRIu64 " calls, %" PRIu64 " opens, %" PRIu64
           " closes; %" PRIu64 " poisoned, %" PRIu64
           " noticed by no caller; all pages read %" PRIu64 " times: %s\n",
           seed, sum.runs, sum.calls, sum.no_space, sum.open_no_space, sum.close_no_space,
           sum.poisoned, sum.unseen, sum.reads, bad ? "FAILED" : "ok");
    if (!bad && stride == 1 && first == 1)
        KIT_CHECK(sum.no_space > 0 && sum.open_no_space > 0, "too little happened");
    return bad;
}
