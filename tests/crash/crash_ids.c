/*
 * crash_ids.c - scree_id_next across crashes: nothing comes twice, everything grows, gaps are as promised.
 *
 * METHOD    a child opens the directory; threads ask for ids as fast as they can, or slowly, while others
 *           append and take snapshots. It is killed at any moment (odd rounds), or at its n-th I/O call in
 *           the middle of a write (even rounds), or closes (every tenth). Flush intervals 0 and 1 ms.
 * ORACLE    in memory shared with the parent, a bit for every id ever handed out: none is set twice. A
 *           thread's ids grow. The first id of a round is above all before it, by two ranges at most, and
 *           without a gap after a clean close.
 * NOT HERE  power cuts.
 *
 * crash_ids [seed] [crashes] [threads]
 */
#include "support/kit.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define IDS ((uint64_t)1 << 29)
#define GAP_MAX ((uint64_t)131072)
#define THREADS_MAX 16u

struct shared {
    _Atomic uint64_t largest;       /* handed out so far, by any round */
    _Atomic uint64_t first;         /* of this round; 0: none yet */
    _Atomic uint64_t count, twice;  /* ids; of them repeated */
    _Atomic uint64_t shrunk;        /* ids not above the thread's one before */
    _Atomic uint32_t working;       /* the cache is open */
    _Atomic uint64_t bit[IDS / 64]; /* touched where ids were, no further */
};
static struct shared *shared;
static char dir[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;
static _Atomic bool stop;
static uint64_t pace;

static void
id_note(uint64_t id)
{
    uint64_t mask = (uint64_t)1 << id % 64, zero = 0, seen;

    KIT_CHECK(id / 64 < sizeof shared->bit / sizeof shared->bit[0], "id %" PRIu64, id);
    (void)atomic_compare_exchange_strong_explicit(&shared->first, &zero, id, memory_order_relaxed,
                                                  memory_order_relaxed);
    if ((atomic_fetch_or_explicit(&shared->bit[id / 64], mask, memory_order_relaxed) & mask) != 0)
        atomic_fetch_add_explicit(&shared->twice, 1, memory_order_relaxed);
    seen = atomic_load_explicit(&shared->largest, memory_order_relaxed);
    while (seen < id &&
           !atomic_compare_exchange_weak_explicit(&shared->largest, &seen, id, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
    atomic_fetch_add_explicit(&shared->count, 1, memory_order_relaxed);
}

static void *
taker_main(void *arg)
{
    uint64_t last = 0, id;

    (void)arg;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        int rc = scree_id_next(cache, &id);

        if (rc == SCREE_E_POISONED)
            return NULL;
        KIT_CHECK(rc == 0, "scree_id_next gave %d (%s)", rc, scree_error_detail());
        if (id <= last)
            atomic_fetch_add_explicit(&shared->shrunk, 1, memory_order_relaxed);
        last = id;
        id_note(id);
        if (pace > 0)
            usleep((useconds_t)pace);
    }
    return NULL;
}

static void *
writer_main(void *arg)
{
    (void)arg;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        if (scree_page_put(cache, SCREE_PAGE_ROOT, kit_slice(dir, 100), NULL) != 0)
            return NULL;
        if (scree_stable_lsn(cache) % 7 == 0 && scree_snapshot(cache, NULL) != 0)
            return NULL;
        usleep(300);
    }
    return NULL;
}

static void
child_run(uint64_t threads, bool closes, uint64_t kill_at)
{
    struct kit_plan plan = {.kinds = KIT_CHANGING | KIT_OPEN,
                            .fault = kill_at > 0 ? KIT_FAULT_KILL : KIT_FAULT_NONE,
                            .at = kill_at};
    pthread_t thread[THREADS_MAX + 1];

    kit_env_plan(&plan);
    KIT_CHECK(scree_open(dir, &options, &cache) == 0, "open: %s", scree_error_detail());
    for (uint64_t i = 0; i < threads; i++)
        pthread_create(&thread[i], NULL, taker_main, NULL);
    pthread_create(&thread[threads], NULL, writer_main, NULL);
    atomic_store_explicit(&shared->working, 1, memory_order_relaxed);
    usleep(closes ? 3000 : 1000000);
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (uint64_t i = 0; i <= threads; i++)
        pthread_join(thread[i], NULL);
    KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
}

/* True: it closed the cache. */
static bool
round_run(uint64_t *random, uint64_t number, uint64_t threads)
{
    bool closes = number % 10 == 9;
    uint64_t kill_at = !closes && number % 2 == 0 ? 1 + kit_below(random, 40) : 0;
    int status = 0;
    pid_t child;

    options.flush_interval_ms = (uint32_t)(number / 2 % 2);
    pace = number % 3 == 0 ? kit_below(random, 200) : 0;
    atomic_store_explicit(&shared->working, 0, memory_order_relaxed);
    fflush(stdout);
    child = fork();
    KIT_CHECK(child >= 0, "fork");
    if (child == 0) {
        alarm(60);
        child_run(threads, closes, kill_at);
        _exit(0);
    }
    if (!closes && kill_at == 0) {
        while (atomic_load_explicit(&shared->working, memory_order_relaxed) == 0 &&
               waitpid(child, &status, WNOHANG) == 0)
            usleep(100);
        usleep((useconds_t)kit_below(random, 8000));
        kill(child, SIGKILL);
    }
    KIT_CHECK(waitpid(child, &status, 0) == child, "wait");
    KIT_CHECK(
        (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
            (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == KIT_KILLED)),
        "child: status %d", status);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1), random = seed;
    uint64_t crashes = kit_argument(argc, argv, 2, 100);
    uint64_t threads = kit_argument(argc, argv, 3, 3), gap_max = 0;
    bool closed = true;

    threads = threads > THREADS_MAX ? THREADS_MAX : threads;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    KIT_CHECK(shared != MAP_FAILED, "no memory");
    kit_dir_name(dir, "ids");
    kit_options_small(&options, &kit_concat);
    options.env = kit_env();
    for (uint64_t i = 0; i < crashes; i++) {
        uint64_t before = atomic_load_explicit(&shared->largest, memory_order_relaxed), first;
        bool closes;

        snprintf(kit_context, sizeof kit_context, "seed %" PRIu64 ", round %" PRIu64, seed, i);
        atomic_store_explicit(&shared->first, 0, memory_order_relaxed);
        closes = round_run(&random, i, threads);
        KIT_CHECK(atomic_load_explicit(&shared->twice, memory_order_relaxed) == 0,
                  "%" PRIu64 " ids came twice",
                  atomic_load_explicit(&shared->twice, memory_order_relaxed));
        KIT_CHECK(atomic_load_explicit(&shared->shrunk, memory_order_relaxed) == 0,
                  "a thread's ids do not grow");
        first = atomic_load_explicit(&shared->first, memory_order_relaxed);
        /* Each thread may have been killed between getting an id and noting it. */
        KIT_CHECK(first == 0 || (first > before && first <= before + 1 + GAP_MAX + 2 * threads),
                  "the first id is %" PRIu64 ", after %" PRIu64, first, before);
        KIT_CHECK(first == 0 || !closed || first <= before + threads,
                  "a gap of %" PRIu64 " after a clean close", first - before);
        if (first > 0 && first - before > gap_max)
            gap_max = first - before;
        closed = first > 0 ? closes : closed && closes;
    }
    printf("seed %" PRIu64 ": %" PRIu64 " rounds, %" PRIu64 " ids, largest gap %" PRIu64 ": ok\n",
           seed, crashes, atomic_load_explicit(&shared->count, memory_order_relaxed), gap_max);
    kit_dir_remove(dir);
    return 0;
}
