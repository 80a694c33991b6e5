/*
 * sim_run.c - see sim_run.h.
 *
 * WORD   none shared without the lock.   EDGES  run->lock: cache, stable; taken outside of the disk's.
 * INVARIANTS  I1 a stamp's event is read after what it stamps was known: it holds at cuts from that event on.
 * LIFETIME  the test's.   PROGRESS  blocking.   FAILURE  ends the test.   NOT HERE  cuts (tests/crash).
 */
#include "sim_run.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

/* update batch flush id snapshot reclaim reopen backup rest */
const struct sim_workload sim_workloads[] = {
    {"single", 110, 0, {60, 0, 40, 0, 0, 0, 0, 0, 0}},
    {"lazy", 160, SIM_TRAIT_LAZY, {90, 5, 5, 1, 1, 0, 0, 0, 0}},
    {"batches", 110, SIM_TRAIT_LAZY, {15, 60, 20, 0, 3, 0, 0, 0, 0}},
    {"batches, direct", 110, SIM_TRAIT_DIRECT, {15, 60, 20, 0, 3, 0, 0, 0, 2}},
    {"ids", 250, 0, {10, 3, 3, 80, 3, 0, 1, 0, 0}},
    {"snapshots", 110, SIM_TRAIT_LAZY, {70, 5, 5, 0, 20, 0, 0, 0, 0}},
    {"snapshots, direct", 110, SIM_TRAIT_DIRECT, {70, 5, 5, 2, 18, 0, 0, 0, 0}},
    {"cleaning", 200, SIM_TRAIT_BIG | SIM_TRAIT_LAZY, {80, 2, 5, 0, 5, 8, 0, 0, 0}},
    {"cleaning, no punching",
     200,
     SIM_TRAIT_BIG | SIM_TRAIT_NO_PUNCH,
     {80, 2, 5, 0, 5, 8, 0, 0, 0}},
    {"cleaning, direct", 200, SIM_TRAIT_BIG | SIM_TRAIT_DIRECT, {80, 2, 5, 0, 5, 8, 0, 0, 0}},
    {"compression", 140, SIM_TRAIT_BIG | SIM_TRAIT_COMPRESSED, {75, 10, 5, 0, 5, 3, 1, 0, 0}},
    {"streaming", 150, SIM_TRAIT_BIG | SIM_TRAIT_LAZY, {97, 1, 1, 0, 1, 0, 0, 0, 0}},
    {"evictions", 220, SIM_TRAIT_BIG | SIM_TRAIT_SNAPSHOTS, {90, 4, 3, 0, 0, 0, 0, 0, 3}},
    {"reopening", 110, 0, {70, 5, 8, 5, 5, 0, 7, 0, 0}},
    {"reopening, direct", 110, SIM_TRAIT_DIRECT | SIM_TRAIT_LAZY, {70, 5, 8, 5, 5, 0, 7, 0, 0}},
    {"backups", 90, SIM_TRAIT_BIG, {80, 5, 5, 3, 3, 2, 0, 4, 0}},
    {"faults", 140, SIM_TRAIT_FAULTS | SIM_TRAIT_LAZY, {60, 10, 15, 3, 6, 2, 2, 1, 1}},
    {"faults, big", 140, SIM_TRAIT_FAULTS | SIM_TRAIT_BIG, {60, 10, 10, 3, 6, 5, 2, 1, 1}},
    {"everything", 160, SIM_TRAIT_BIG | SIM_TRAIT_SNAPSHOTS, {60, 10, 8, 5, 5, 5, 3, 1, 3}},
};
const size_t sim_workloads_n = sizeof(sim_workloads) / sizeof(sim_workloads[0]);

/* ---- stamps ---- */

static void
stamp_add(struct sim_stamps *stamps, uint64_t event, uint64_t value)
{
    if (stamps->n > 0 && stamps->at[stamps->n - 1].value >= value)
        return;
    if (stamps->n == stamps->cap) {
        stamps->cap = stamps->cap * 2 + 64;
        stamps->at = realloc(stamps->at, stamps->cap * sizeof(*stamps->at));
        KIT_CHECK(stamps->at != NULL, "no memory for stamps");
    }
    stamps->at[stamps->n++] = (struct sim_stamp){.event = event, .value = value};
}

uint64_t
sim_stamp_at(const struct sim_stamps *stamps, uint64_t cut, uint64_t otherwise)
{
    size_t low = 0, high = stamps->n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (stamps->at[middle].event <= cut)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? otherwise : stamps->at[low - 1].value;
}

uint32_t
sim_run_acked(const struct sim_run *run, uint64_t cut)
{
    uint64_t lsn = sim_stamp_at(&run->stable, cut, 0);
    uint32_t acked = run->acked;

    while (acked + 1 < run->h->n && run->h->lsn[acked + 1] <= lsn)
        acked++;
    return acked;
}

uint64_t
sim_run_version_told(const struct sim_run *run, uint64_t cut)
{
    return sim_stamp_at(&run->version, cut, run->version_told);
}

uint64_t
sim_run_id_told(const struct sim_run *run, uint64_t cut)
{
    return sim_stamp_at(&run->id, cut, run->id_told);
}

/* What the cache says is stable now (I1). */
static void
stable_note(struct sim_run *run)
{
    uint64_t lsn;

    (void)pthread_mutex_lock(&run->lock);
    if (run->cache != NULL) {
        lsn = scree_stable_lsn(run->cache);
        stamp_add(&run->stable, sim_disk_events(run->disk), lsn);
    }
    (void)pthread_mutex_unlock(&run->lock);
}

static void
disk_changes(void *ctx)
{
    stable_note(ctx);
}

static void
cache_set(struct sim_run *run, scree_cache *cache)
{
    (void)pthread_mutex_lock(&run->lock);
    run->cache = cache;
    (void)pthread_mutex_unlock(&run->lock);
}

/* ---- histories: big ones, that runs use one after the other ---- */

#define POOL 16u

static _Thread_local struct history *pool[POOL];
static _Thread_local size_t pool_n;

static struct history *
pool_take(void)
{
    struct history *h = pool_n > 0 ? pool[--pool_n] : malloc(sizeof(*h));

    KIT_CHECK(h != NULL, "no memory for a history");
    return h;
}

static void
pool_give(struct history *h)
{
    if (pool_n < POOL)
        pool[pool_n++] = h;
    else
        free(h);
}

/* ---- runs ---- */

static struct sim_run *
run_new(const struct sim_workload *workload, struct sim_disk *disk, uint64_t seed)
{
    struct sim_run *run = calloc(1, sizeof(*run));
    unsigned traits = workload->traits;

    KIT_CHECK(run != NULL, "no memory for a run");
    run->workload = workload;
    run->random = seed;
    run->disk = disk;
    run->h = pool_take(); /* zeros would be written anew for each run */
    memset(run->h, 0, offsetof(struct history, bytes));
    run->h->random = kit_random(&run->random);
    run->h->len_max = traits & SIM_TRAIT_BIG ? HISTORY_BYTES - 1 : 0;
    (void)pthread_mutex_init(&run->lock, NULL);
    kit_options_small(&run->options, &kit_concat);
    run->options.env = sim_disk_env(disk);
    run->options.io_mode = traits & SIM_TRAIT_DIRECT ? SCREE_IO_AUTO : SCREE_IO_BUFFERED;
    run->options.compression_level = traits & SIM_TRAIT_COMPRESSED ? 1 : 0;
    run->options.flush_interval_ms = traits & SIM_TRAIT_LAZY ? 0 : 1;
    run->options.snapshot_log_bytes = traits & SIM_TRAIT_SNAPSHOTS ? 64 * 1024 : 0;
    if (traits & SIM_TRAIT_NO_PUNCH)
        run->options.flags |= SCREE_NO_PUNCH;
    sim_disk_abilities(disk, SIM_PUNCHES | (traits & SIM_TRAIT_DIRECT ? SIM_DIRECT : 0u) |
                                 (traits & SIM_TRAIT_CLONES ? SIM_CLONES : 0u));
    sim_disk_watch(disk, disk_changes, run);
    return run;
}

struct sim_run *
sim_run_new(const struct sim_workload *workload, uint64_t seed)
{
    return run_new(workload, sim_disk_new(NULL, seed), seed);
}

struct sim_run *
sim_run_after(const struct sim_run *before, struct sim_disk *disk, uint64_t cut, uint32_t state,
              uint64_t seed)
{
    struct sim_run *run = run_new(before->workload, disk, seed);
    uint64_t random = run->h->random;

    run->version_told = sim_run_version_told(before, cut);
    run->id_told = sim_run_id_told(before, cut);
    run->begin = sim_disk_events(disk);
    if (cut < before->made)
        return run;
    history_become(run->h, before->h);
    run->h->random = random;
    run->h->version_any = run->version_told;
    run->acked = sim_run_acked(before, cut);
    if (state != SIM_RUN_ANY) {
        run->h->n = state + 1;
        run->acked = state;
    }
    return run;
}

void
sim_run_free(struct sim_run *run)
{
    if (run == NULL)
        return;
    sim_disk_free(run->disk);
    free(run->stable.at);
    free(run->version.at);
    free(run->id.at);
    pool_give(run->h);
    (void)pthread_mutex_destroy(&run->lock);
    free(run);
}

/* ---- open, close ---- */

/* The history goes on from the state that the cache shows. */
static void
state_adopt(struct sim_run *run, scree_cache *cache)
{
    struct history_seen seen;
    int code = history_look(run->h, cache, &seen), at;

    KIT_CHECK(code == 0 && seen.failures == 0, "pages cannot be read: %d, %u pages", code,
              seen.failures);
    at = history_find(run->h, &seen, run->acked);
    KIT_CHECK(at >= 0, "no state from %u to %u looks so (of all: %d)", run->acked, run->h->n - 1,
              history_find(run->h, &seen, 0));
    history_return_to(run->h, (uint32_t)at, cache);
    run->h->version_any = sim_run_version_told(run, UINT64_MAX);
}

int
sim_run_open(struct sim_run *run, unsigned flags)
{
    scree_options options = run->options;
    scree_cache *cache;
    int code;

    options.flags |= flags;
    code = scree_open(SIM_RUN_DIR, &options, &cache);
    if (code != 0)
        return code;
    if (run->h->n == 0) {
        history_begin(run->h, cache);
        KIT_CHECK(run->h->version_any > run->version_told, "the root's version comes again");
        run->made = sim_disk_events(run->disk);
        stamp_add(&run->version, run->made, run->h->version_any);
    } else
        state_adopt(run, cache);
    cache_set(run, cache);
    stable_note(run);
    return 0;
}

/* An error is the disk's fault, or the test ends. */
static int
code_check(const struct sim_run *run, const char *what, int code)
{
    KIT_CHECK(code == 0 || sim_disk_hit(run->disk) != 0, "%s gave %d %s", what, code,
              kit_code_name(code));
    return code;
}

int
sim_run_close(struct sim_run *run)
{
    scree_cache *cache = run->cache;
    int code;

    cache_set(run, NULL);
    code = code_check(run, "close", scree_close(cache));
    if (code == 0)
        stamp_add(&run->stable, sim_disk_events(run->disk), run->h->lsn[run->h->n - 1]);
    return code;
}

/* ---- steps ---- */

static int
step_flush(struct sim_run *run)
{
    struct history *h = run->h;
    uint32_t state = h->n - 1 - (uint32_t)kit_below(&run->random, h->n < 4 ? h->n : 4);

    if (kit_below(&run->random, 2) == 0)
        return scree_flush(run->cache, NULL);
    return scree_wait_stable(run->cache, h->lsn[state], -1);
}

static int
step_id(struct sim_run *run)
{
    uint64_t id = 0, told = sim_run_id_told(run, UINT64_MAX);
    int code = scree_id_next(run->cache, &id);

    if (code != 0)
        return code;
    KIT_CHECK(id > told, "id %llu after %llu", (unsigned long long)id, (unsigned long long)told);
    stamp_add(&run->id, sim_disk_events(run->disk), id);
    return 0;
}

static int
step_backup(struct sim_run *run)
{
    struct sim_backup *b = &run->backup[run->backups];
    int code;

    if (run->backups == SIM_RUN_BACKUPS)
        return 0;
    *b = (struct sim_backup){
        .begin = sim_disk_events(run->disk), .end = UINT64_MAX, .state = run->h->n - 1};
    (void)snprintf(b->dir, sizeof(b->dir), "/b%08x", (unsigned)kit_random(&run->random));
    code = scree_backup(run->cache, b->dir, 0, NULL, NULL);
    if (code == 0)
        b->end = sim_disk_events(run->disk);
    run->backups++;
    return code;
}

static int
step_reopen(struct sim_run *run)
{
    uint32_t n = run->h->n;
    int code = sim_run_close(run);

    if (code != 0)
        return code;
    code = sim_run_open(run, 0);
    KIT_CHECK(code != 0 || run->h->n == n, "state %u after a close at %u", run->h->n - 1, n - 1);
    return code;
}

int
sim_run_step(struct sim_run *run, enum sim_step step)
{
    struct history *h = run->h;
    uint32_t n = h->n;
    int code = 0;

    if (step == SIM_STEP_UPDATE)
        code = history_step(h, run->cache);
    else if (step == SIM_STEP_BATCH)
        code = history_batch(h, run->cache);
    else if (step == SIM_STEP_FLUSH)
        code = step_flush(run);
    else if (step == SIM_STEP_ID)
        code = step_id(run);
    else if (step == SIM_STEP_SNAPSHOT)
        code = scree_snapshot(run->cache, NULL);
    else if (step == SIM_STEP_RECLAIM)
        code = scree_reclaim(run->cache, 1.1, NULL, NULL);
    else if (step == SIM_STEP_REOPEN)
        code = step_reopen(run);
    else if (step == SIM_STEP_BACKUP)
        code = step_backup(run);
    else
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
    if (h->n > n)
        stamp_add(&run->version, sim_disk_events(run->disk), h->version_any);
    stable_note(run);
    return code_check(run, "a step", code);
}

/* At one of the next calls that change something. */
static void
fault_plan(struct sim_run *run)
{
    struct kit_plan plan = {.kinds = KIT_CHANGING, .code = -EIO};

    if (kit_below(&run->random, 2) == 0)
        plan.kinds = KIT_SYNC | KIT_SYNC_DIR;
    plan.at = 1 + kit_below(&run->random, plan.kinds == KIT_CHANGING ? 200 : 60);
    plan.fault = kit_below(&run->random, 3) == 0 ? KIT_FAULT_TEAR : KIT_FAULT_CODE;
    sim_disk_plan(run->disk, &plan);
}

void
sim_run_go(struct sim_run *run, uint32_t steps)
{
    const unsigned *weight = run->workload->weight;
    unsigned all = 0;

    if (run->workload->traits & SIM_TRAIT_FAULTS)
        fault_plan(run);
    for (int i = 0; i < SIM_STEPS; i++)
        all += weight[i];
    for (uint32_t i = 0; i < steps && run->h->n < SIM_RUN_STATES; i++) {
        uint64_t at = kit_below(&run->random, all);
        int step = 0;

        while (at >= weight[step])
            at -= weight[step++];
        if (sim_run_step(run, (enum sim_step)step) != 0 &&
            (run->cache == NULL || scree_health(run->cache) != 0))
            break;
    }
    if (run->cache != NULL)
        (void)sim_run_close(run);
    sim_disk_watch(run->disk, NULL, NULL);
}
