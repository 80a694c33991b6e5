/*
 * crash_versions.c - opening after a crash, again and again: the same state, and no version comes back.
 *
 * GOAL      P9: what one open after a crash finds, the next one finds, wherever the first was killed.
 *           P3: no version told before a crash is ever told again, whatever was lost.
 * METHOD    a child makes updates (at flush interval 0 most of them never reach the disk) and dies. Then
 *           rounds of: open, look, die; and an open that is killed at its i-th I/O call, for every i,
 *           followed by an open that lives. Then one update, of which the version is looked at, and die
 *           again: directly after the open, twice, also.
 * ORACLE    the history of all states (history.h): at least all that was acknowledged, exactly one of
 *           them; the same after every further open; versions above all ever told.
 * NOT HERE  power cuts: what was written stays written.
 *
 * crash_versions [seed] [rounds]
 */
#include "support/history.h"

#include <inttypes.h>
#include <unistd.h>

static char dir[KIT_PATH_MAX];
static struct history *h;
static scree_options options;
static scree_cache *cache;

/* What the children tell the parent. */
struct shared {
    uint64_t hash; /* of the state recovered; 0: none yet */
    uint64_t calls;
    uint64_t opens;
};
static struct shared *shared;

static void
cache_open(void)
{
    int code = scree_open(dir, &options, &cache);

    KIT_CHECK(code == 0, "open gave %d %s", code, kit_code_name(code));
    shared->opens++;
}

/* Runs in the child: recovered is one state, the same for every open since the crash. */
static void
state_check(void)
{
    struct history_seen seen;
    int at;

    KIT_CHECK(history_look(h, cache, &seen) == 0 && seen.failures == 0, "pages cannot be read");
    at = history_find(h, &seen, h->acked);
    KIT_CHECK(at >= 0,
              "recovered is no state behind the acknowledged %" PRIu32 " of %" PRIu32
              ", %d strangers",
              h->acked, h->n - 1, seen.strangers);
    KIT_CHECK(shared->hash == 0 || shared->hash == history_seen_hash(&seen),
              "this open found another state than the one before");
    shared->hash = history_seen_hash(&seen);
    history_return_to(h, (uint32_t)at, cache);
}

static void
child_work(void)
{
    uint64_t n = kit_below(&h->random, 80);

    cache_open();
    state_check();
    shared->hash = 0;
    for (uint64_t i = 0; i < n; i++) {
        int code = history_step(h, cache);

        KIT_CHECK(code == 0, "an update gave %d %s", code, kit_code_name(code));
        if (kit_below(&h->random, 30) == 0)
            KIT_CHECK(history_flush(h, cache) == 0, "flush");
        if (kit_below(&h->random, 60) == 0)
            KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
    }
    history_acknowledge(h, scree_stable_lsn(cache));
}

/* Open, look, count the calls, die. */
static void
child_look(void)
{
    struct kit_plan plan = {.kinds = KIT_CHANGING | KIT_OPEN, .fault = KIT_FAULT_NONE};

    kit_env_plan(&plan);
    cache_open();
    shared->calls = kit_env_calls();
    state_check();
}

static uint64_t kill_at;

static void
child_killed_at(void)
{
    struct kit_plan plan = {
        .kinds = KIT_CHANGING | KIT_OPEN, .fault = KIT_FAULT_KILL, .at = kill_at};

    kit_env_plan(&plan);
    cache_open();
    state_check();
}

/* Only open and die: versions not told by anybody may be used up by this, none may come back. */
static void
child_open_only(void)
{
    cache_open();
}

static void
child_update(void)
{
    cache_open();
    state_check();
    shared->hash = 0;
    KIT_CHECK(history_step(h, cache) == 0, "update"); /* the history checks its version */
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

static void
child_create(void)
{
    cache_open();
    history_begin(h, cache);
    KIT_CHECK(scree_close(cache) == 0, "close");
}

/* After a crash: every way to die in the next opens. */
static void
round_run(uint64_t number)
{
    run(child_work);
    run(child_look);
    run(child_look);
    if (number % 4 == 0) {
        uint64_t calls = shared->calls;

        for (kill_at = 1; kill_at <= calls; kill_at++) {
            run(child_killed_at);
            run(child_look);
        }
    }
    run(child_open_only);
    run(child_open_only);
    run(child_update);
    run(child_update);
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t rounds = kit_argument(argc, argv, 2, KIT_MUCH(40, 12, 40));
    uint64_t steps = 0;

    h = history_new(seed);
    shared = (struct shared *)(void *)history_new(0);
    shared->opens = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", round %" PRIu64, seed, i);
        if (i % 10 == 0) {
            steps += h->n;
            kit_dir_name(dir, "versions");
            history_reset(h, seed * 1000 + i);
            shared->hash = 0;
            kit_options_small(&options, &kit_concat);
            options.env = kit_env();
            kit_env_plan(&(struct kit_plan){.kinds = 0});
            options.flush_interval_ms = i / 10 % 2 == 0 ? 0 : 1;
            run(child_create);
        }
        round_run(i);
        if (i % 10 == 9 || i + 1 == rounds)
            kit_dir_remove(dir);
    }
    printf("seed %" PRIu64 ": %" PRIu64 " crashes in a row, %" PRIu64 " opens, %" PRIu64
           " updates: ok\n",
           seed, rounds * 6, shared->opens, steps + h->n);
    return 0;
}
