/*
 * stress_batch.c - batches from many threads: all or nothing for everybody who looks, and after a kill.
 *
 * GOAL      P2. Money is moved between accounts in batches of 2 to 8 pages, and between groups of accounts;
 *           no thread ever sees a group whose sum is wrong once scree_batch_check says that what it read was
 *           there at one moment; a batch over a whole group is seen on all of its pages by who has seen it on
 *           one. Versions: every page of a batch has the batch's. Batches over the same pages in any order
 *           end.
 * METHOD    few pages, so that batches meet: GROUPS groups of GROUP accounts, each account a page. Movers
 *           merge or set (with other steps and checks among them), rounders replace a whole group and count
 *           its round, makers allocate and free pages in batches, single updates touch the same pages (merge
 *           of 0), the cache is small, segments are small: consolidation, eviction, cleaning and snapshots
 *           meet batches. A child does it and is killed at a random moment; the parent reopens and looks;
 *           again. The last child ends by itself.
 * ORACLE    B1 sums of validated reads. B2 rounds: a page read later shows the round of a page read earlier, or
 *           a newer one. B3 after each run all groups have their sum, and the same round on all pages. B4 pages
 *           of pairs made in one batch are both there or both not. B5 a commit's lsn is each page's version,
 *           where nobody changed it since (conflict of a check otherwise).
 *           -DSCREE_BUG_MCAS_EARLY must fail here. -DSCREE_BUG_MCAS_PLAIN_PLANT does within a minute or so, and
 *           always in the model (tests/spin/mcas.pml).
 * NOT HERE  every crash point (tests/crash), histories (stress_linear).
 *
 * stress_batch [seed] [seconds] [threads]
 *
 * WORD   committed: batches, of all threads and runs; relaxed, a count. stop: relaxed: threads look again.
 * EDGES  those.   LIFETIME  shared by fork.   PROGRESS  no waits; an alarm ends a run that hangs.
 * FAILURE  the run ends.
 */
#include "support/kit.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS_MAX 16u
#define GROUPS 6u
#define GROUP 8u
#define START 1000
#define PAD 120u
#define RUNS 4u
#define PAIR_MAGIC 0x7061697270616972ull

struct account {
    int64_t amount;
    uint64_t round;
    unsigned char pad[PAD];
};

struct shared {
    _Atomic uint64_t committed, conflicts, validated, pairs;
    scree_page_id page[GROUPS][GROUP];
    bool made;
};

static struct shared *shared;
static scree_cache *cache;
static _Atomic bool stop;
static char directory[KIT_PATH_MAX];
static scree_options options;

#define CHECK_OK(call)                                                                  \
    do {                                                                                \
        int result_ = (call);                                                           \
                                                                                        \
        KIT_CHECK(result_ == 0, #call " gives %d %s", result_, kit_code_name(result_)); \
    } while (0)

/* A fragment is an amount. */
static int
merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
      scree_out *out)
{
    struct account a = {0};
    int64_t amount;

    (void)ctx;
    (void)id;
    if (base != NULL && base->len >= sizeof a)
        memcpy(&a, base->data, sizeof a);
    for (size_t i = 0; i < n; i++) {
        memcpy(&amount, frags[i].data, sizeof amount);
        a.amount += amount;
    }
    return scree_out_append(out, &a, sizeof a);
}

static const scree_materializer materializer = {
    .size = sizeof materializer, .name = "accounts", .version = 1, .merge = merge};

static scree_version
account_read(scree_page_id id, struct account *a)
{
    scree_version version;
    size_t len;

    CHECK_OK(scree_page_read(cache, id, a, sizeof *a, &len, &version));
    KIT_CHECK(len == sizeof *a, "%zu bytes", len);
    return version;
}

/* 0 or CONFLICT; the batch is over. */
static bool
commit(scree_batch *batch, scree_lsn *lsn_out)
{
    scree_page_id conflict;
    int rc = scree_batch_commit(batch, lsn_out, &conflict);

    KIT_CHECK(rc == 0 || rc == SCREE_E_CONFLICT, "commit gives %d %s", rc, kit_code_name(rc));
    KIT_CHECK((conflict != 0) == (rc != 0), "conflict %" PRIu64 " with %d", conflict, rc);
    (void)atomic_fetch_add_explicit(rc == 0 ? &shared->committed : &shared->conflicts, 1,
                                    memory_order_relaxed);
    return rc == 0;
}

/* One account's step: `by` more. */
static void
step(scree_batch *batch, uint64_t *random, scree_page_id id, int64_t by)
{
    static const int64_t none = 0;
    struct account a;
    scree_version version = account_read(id, &a);

    switch (kit_below(random, 4)) {
    case 0:
        a.amount += by;
        CHECK_OK(scree_batch_set(batch, id, version, kit_slice(&a, sizeof a)));
        break;
    case 1: /* several steps on a page */
        CHECK_OK(scree_batch_set(batch, id, version, kit_slice(&a, sizeof a)));
        CHECK_OK(scree_batch_merge(batch, id, version, kit_slice(&by, sizeof by)));
        break;
    case 2:
        CHECK_OK(scree_batch_check(batch, id, version));
        CHECK_OK(scree_batch_merge(batch, id, version, kit_slice(&none, sizeof none)));
        CHECK_OK(scree_batch_merge(batch, id, version, kit_slice(&by, sizeof by)));
        break;
    default:
        CHECK_OK(scree_batch_merge(batch, id, version, kit_slice(&by, sizeof by)));
    }
}

/* 2 to 8 accounts of one or two groups, in any order; what each group has stays. B5 */
static void
move(uint64_t *random)
{
    uint32_t groups = 1 + (uint32_t)kit_below(random, 2);
    scree_page_id first = 0;
    scree_batch *batch;
    struct account a;
    scree_lsn lsn;

    CHECK_OK(scree_batch_begin(cache, &batch));
    for (uint32_t g = 0, group = (uint32_t)kit_below(random, GROUPS); g < groups; g++) {
        uint32_t n = 2 + (uint32_t)kit_below(random, 3);
        uint32_t at = (uint32_t)kit_below(random, GROUP);
        int64_t sum = 0;

        for (uint32_t i = 0; i < n; i++) {
            scree_page_id id = shared->page[(group + g) % GROUPS][(at + 3 * i) % GROUP];
            int64_t by = i + 1 == n ? -sum : (int64_t)kit_below(random, 21) - 10;

            first = id;
            sum += by;
            step(batch, random, id, by);
        }
        if (kit_below(random, 4) == 0) {
            scree_page_id id = shared->page[(group + g) % GROUPS][(at + 1) % GROUP];

            CHECK_OK(scree_batch_check(batch, id, account_read(id, &a)));
        }
    }
    if (kit_below(random, 16) == 0) {
        scree_batch_abort(batch);
        return;
    }
    if (!commit(batch, &lsn))
        return;
    KIT_CHECK(account_read(first, &a) >= lsn, "a page of a batch is older than the batch");
}

/* A whole group replaced, its round counted. */
static void
round_group(uint64_t *random)
{
    scree_page_id *page = shared->page[kit_below(random, GROUPS)];
    scree_batch *batch;

    CHECK_OK(scree_batch_begin(cache, &batch));
    for (uint32_t i = 0; i < GROUP; i++) {
        struct account a;
        scree_version version = account_read(page[GROUP - 1 - i], &a);

        a.round++;
        CHECK_OK(scree_batch_set(batch, page[GROUP - 1 - i], version, kit_slice(&a, sizeof a)));
    }
    (void)commit(batch, NULL);
}

/* B1, B2 */
static void
look(uint64_t *random)
{
    scree_page_id *page = shared->page[kit_below(random, GROUPS)];
    uint32_t from = (uint32_t)kit_below(random, GROUP);
    uint64_t round = 0;
    int64_t sum = 0;
    scree_batch *batch;

    CHECK_OK(scree_batch_begin(cache, &batch));
    for (uint32_t i = 0; i < GROUP; i++) {
        struct account a;
        scree_page_id id = page[(from + i) % GROUP];
        scree_version version = account_read(id, &a);

        KIT_CHECK(a.round >= round, "round %" PRIu64 " seen after %" PRIu64, a.round, round);
        round = a.round;
        sum += a.amount;
        CHECK_OK(scree_batch_check(batch, id, version));
    }
    if (scree_batch_commit(batch, NULL, NULL) != 0)
        return;
    KIT_CHECK(sum == START * (int64_t)GROUP, "a validated sum of %" PRId64, sum);
    (void)atomic_fetch_add_explicit(&shared->validated, 1, memory_order_relaxed);
}

/* B4: pages that name each other come and go together. */
static void
pair(uint64_t *random)
{
    struct account a = {.amount = (int64_t)PAIR_MAGIC};
    scree_page_id id[2];
    scree_version version;
    scree_batch *batch;
    scree_lsn lsn;

    (void)random;
    CHECK_OK(scree_batch_begin(cache, &batch));
    for (int i = 0; i < 2; i++)
        CHECK_OK(scree_batch_allocate(batch, kit_slice(NULL, 0), &id[i]));
    for (int i = 0; i < 2; i++) {
        a.round = id[1 - i];
        KIT_CHECK(scree_page_read(cache, id[i], NULL, 0, NULL, NULL) == SCREE_E_NOT_FOUND,
                  "page %" PRIu64 " is there before the commit", id[i]);
        CHECK_OK(scree_batch_set(batch, id[i], 0, kit_slice(&a, sizeof a)));
    }
    CHECK_OK(scree_batch_commit(batch, &lsn, NULL));
    version = account_read(id[0], &a);
    KIT_CHECK(version == lsn && a.round == id[1], "a pair's page is another");
    (void)atomic_fetch_add_explicit(&shared->pairs, 1, memory_order_relaxed);
    if (kit_below(random, 50) == 0)
        return; /* it stays */
    CHECK_OK(scree_batch_begin(cache, &batch));
    for (int i = 1; i >= 0; i--)
        CHECK_OK(scree_batch_free(batch, id[i], lsn));
    CHECK_OK(scree_batch_commit(batch, NULL, NULL));
}

static void
touch(uint64_t *random)
{
    static const int64_t none = 0;
    scree_page_id id = shared->page[kit_below(random, GROUPS)][kit_below(random, GROUP)];

    CHECK_OK(scree_page_append(cache, id, kit_slice(&none, sizeof none), NULL));
}

static void *
worker(void *arg)
{
    uint64_t random = *(const uint64_t *)arg;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t what = kit_below(&random, 100);

        if (what < 60)
            move(&random);
        else if (what < 70)
            round_group(&random);
        else if (what < 90)
            look(&random);
        else if (what < 95)
            pair(&random);
        else
            touch(&random);
        if (what == 99 && kit_below(&random, 20) == 0)
            CHECK_OK(scree_snapshot(cache, NULL));
    }
    return NULL;
}

/* B3, B4. Nobody else is here. */
static void
settle_check(void)
{
    struct account a, other;
    scree_page_id id = 0;

    for (uint32_t g = 0; g < GROUPS; g++) {
        int64_t sum = 0;
        uint64_t round = 0;

        for (uint32_t i = 0; i < GROUP; i++) {
            (void)account_read(shared->page[g][i], &a);
            sum += a.amount;
            KIT_CHECK(i == 0 || a.round == round, "group %u: half a round", g);
            round = a.round;
        }
        KIT_CHECK(sum == START * (int64_t)GROUP, "group %u has %" PRId64, g, sum);
    }
    while (scree_page_next(cache, id, &id) == 0) {
        if (id == SCREE_PAGE_ROOT)
            continue;
        (void)account_read(id, &a);
        if (a.amount != (int64_t)PAIR_MAGIC)
            continue;
        (void)account_read(a.round, &other);
        KIT_CHECK(other.round == id, "page %" PRIu64 " has lost its other half", id);
    }
}

static void
accounts_make(void)
{
    struct account a = {.amount = START};
    scree_batch *batch;

    CHECK_OK(scree_batch_begin(cache, &batch));
    for (uint32_t g = 0; g < GROUPS; g++)
        for (uint32_t i = 0; i < GROUP; i++)
            CHECK_OK(scree_batch_allocate(batch, kit_slice(&a, sizeof a), &shared->page[g][i]));
    CHECK_OK(scree_batch_commit(batch, NULL, NULL));
    CHECK_OK(scree_flush(cache, NULL));
    shared->made = true;
}

static void
child_run(uint64_t seed, uint32_t threads, uint32_t ms, bool killed)
{
    pthread_t thread[THREADS_MAX];
    uint64_t seeds[THREADS_MAX], until;

    alarm(100 + ms / 1000);
    CHECK_OK(scree_open(directory, &options, &cache));
    if (!shared->made)
        accounts_make();
    settle_check();
    for (uint32_t t = 0; t < threads; t++) {
        seeds[t] = seed * 1000 + t;
        KIT_CHECK(pthread_create(&thread[t], NULL, worker, &seeds[t]) == 0, "thread");
    }
    for (until = kit_now_ms() + ms; killed || kit_now_ms() < until;)
        usleep(5000);
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (uint32_t t = 0; t < threads; t++)
        pthread_join(thread[t], NULL);
    settle_check();
    CHECK_OK(scree_close(cache));
    CHECK_OK(scree_open(directory, &options, &cache));
    settle_check();
    CHECK_OK(scree_close(cache));
    _exit(0);
}

static void
run(uint64_t seed, uint32_t threads, uint32_t ms, bool killed)
{
    pid_t child = kit_fork();
    int status = 0;

    if (child == 0)
        child_run(seed, threads, ms, killed);
    if (killed) {
        usleep(ms * 1000);
        (void)kill(child, SIGKILL);
    }
    KIT_CHECK(waitpid(child, &status, 0) == child, "wait");
    KIT_CHECK(killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0,
              "the child ended with status %d%s", status,
              WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? " (hung)" : "");
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint32_t ms = 1000 * (uint32_t)kit_argument(argc, argv, 2, 5);
    uint32_t threads = (uint32_t)kit_argument(argc, argv, 3, 8);

    if (threads < 1 || threads > THREADS_MAX || ms == 0)
        return 2;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    KIT_CHECK(shared != MAP_FAILED, "mmap");
    snprintf(kit_context, sizeof kit_context, "seed %" PRIu64, seed);
    kit_dir_name(directory, "batch");
    kit_options_small(&options, &materializer);
    for (uint32_t i = 0; i < RUNS; i++)
        run(seed + i, threads, ms / RUNS, i + 1 < RUNS);
    kit_dir_remove(directory);
    printf("stress_batch: seed %" PRIu64 ": %" PRIu64 " batches, %" PRIu64 " conflicts, %" PRIu64
           " validated reads, %" PRIu64 " pairs, ok\n",
           seed, atomic_load_explicit(&shared->committed, memory_order_relaxed),
           atomic_load_explicit(&shared->conflicts, memory_order_relaxed),
           atomic_load_explicit(&shared->validated, memory_order_relaxed),
           atomic_load_explicit(&shared->pairs, memory_order_relaxed));
    return 0;
}
