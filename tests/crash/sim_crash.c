/*
 * sim_crash.c - every cut of a workload, and what the disk may hold then.
 *
 * GOAL      P1: after a power cut the directory holds exactly a prefix of the updates in log order, with all
 *           that had been reported stable; P2: a batch is whole or absent; P3: versions and scree_id_next never
 *           repeat; P9: opening, reading, closing, opening again show the same state. An open never fails, but
 *           before the directory had been made. A backup opens as what it was taken of, or, before it was done,
 *           not at all. All of it again behind a recovery that was cut, or killed, and behind the next one.
 * METHOD    a workload (sim_run.c) is recorded once on a disk in memory; at each of its changing I/O calls
 *           (sim_replay) images are built as a power cut there may leave the disk. Each that is new is opened
 *           read-only and all of it read; some are opened for writing, go on, are closed and opened again; some
 *           are verified, but not where calls fail: after a failed sync of names a manifest that had been given
 *           up may be back, and a snapshot be gone that it alone names. From some the workload goes on on a
 *           recording disk, as it does from some cuts where the process is killed and what was not synced is
 *           there, but may yet be lost. Those runs are cut in turn, GENERATIONS deep.
 * ORACLE    history.c: every state the pages went through; and stamps of when what had been acknowledged.
 * NUMBERS   pairs: (cut, image) that differ; states: images opened, as none like it was met in this run with as
 *           much acknowledged. The trace depends on how the threads are scheduled: of a failure the image is
 *           kept.
 *
 * sim_crash [seed] [workloads] [choices a cut] [processes] [seconds, then no new workload; 0: no limit]
 *           [one workload] [its cut] [the choice] [directory for that image, which is to be made]
 */
#include "support/sim_run.h"

#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKLOADS KIT_MUCH(19u, 2u, 19u)
#define CHOICES KIT_MUCH(5u, 3u, 5u)
#define GENERATIONS 3u
#define SPAWNED 2u        /* runs that go on from one, by a power cut and as many by a kill */
#define KILL_FILES 2u     /* a kill is most telling where so many files are not synced */
#define KILL_PATIENCE 64u /* cuts that it waits for that */
#define STEPS_AFTER 24u   /* of a run that goes on */
#define WRITE_ONE_IN 24u  /* opened for writing */
#define VERIFY_ONE_IN 32u /* verified */
#define SECONDS_A_CUT 120u

enum sum { CUTS, PAIRS, STATES, WRITTEN, VERIFIED, RUNS, KILLS, BACKUPS, SUMS };
static const char *const sum_names[SUMS] = {"cuts",     "pairs", "states", "written",
                                            "verified", "runs",  "kills",  "backups"};

struct shared {
    uint64_t sum[64][SUMS]; /* by workload's kind; of one process */
};

static struct shared *sums; /* of this process */
static unsigned process;    /* its number */
static uint64_t most, only_cut = UINT64_MAX, only_choice = UINT64_MAX;
static const char *only_dir;
static char context_run[256];

/* ---- failures ---- */

static void
signal_told(int number)
{
    kit_failed(__FILE__, __LINE__, "signal", "signal %d%s", number,
               number == SIGALRM ? ": it hangs" : "");
}

/* ---- what was seen before ---- */

struct met {
    uint64_t hash;  /* 0: empty */
    uint32_t acked; /* the most it was opened with */
    uint64_t cut;   /* the last */
};
struct met_set {
    size_t n, cap; /* cap: a power of two */
    struct met *at;
};

static struct met *
met_find(struct met_set *set, uint64_t hash)
{
    size_t i = hash & (set->cap - 1);

    while (set->at[i].hash != 0 && set->at[i].hash != hash)
        i = (i + 1) & (set->cap - 1);
    return &set->at[i];
}

static struct met *
met_add(struct met_set *set, uint64_t hash)
{
    struct met *met;

    if (set->n * 2 >= set->cap) {
        struct met_set grown = {.n = set->n, .cap = set->cap == 0 ? 1024 : set->cap * 2};

        grown.at = calloc(grown.cap, sizeof(*grown.at));
        KIT_CHECK(grown.at != NULL, "no memory");
        for (size_t i = 0; i < set->cap; i++)
            if (set->at[i].hash != 0)
                *met_find(&grown, set->at[i].hash) = set->at[i];
        free(set->at);
        *set = grown;
    }
    met = met_find(set, hash);
    set->n += met->hash == 0;
    return met;
}

/* ---- one state ---- */

/* A cut of a run, and one of the images found there. */
struct look {
    struct sim_run *run;
    uint64_t cut, seed;
    const struct sim_image *image;
    uint32_t acked;
    uint64_t *sum;
};

static void
state_tell(const char *what, const struct history_state *s)
{
    printf("  %s:", what);
    for (uint32_t i = 0; i < HISTORY_PAGES; i++)
        if (s->page[i].version != 0)
            printf(" %u:%" PRIu64 "(%u)", i, s->page[i].version, s->page[i].len);
    printf("\n");
}

/* Which state of the run's it is, not below `from`. */
static uint32_t
state_of(const struct sim_run *run, const struct history_seen *seen, uint32_t from)
{
    int at = history_find(run->h, seen, from);

    if (at >= 0)
        return (uint32_t)at;
    state_tell("seen", &seen->state);
    state_tell("acknowledged", &run->h->state[from]);
    state_tell("newest", &run->h->state[run->h->n - 1]);
    kit_failed(__FILE__, __LINE__, "P1",
               "%u failed, %d strangers; none of the states %u to %u, of all it is %d",
               seen->failures, seen->strangers, from, run->h->n - 1, history_find(run->h, seen, 0));
}

/* The code of the open. */
static int
disk_look(const struct look *l, struct sim_disk *disk, const char *dir, struct history_seen *seen)
{
    scree_options options = l->run->options;
    scree_cache *cache;
    int code;

    options.env = sim_disk_env(disk);
    options.flags = SCREE_READ_ONLY;
    code = scree_open(dir, &options, &cache);
    if (code != 0)
        return code;
    code = history_look(l->run->h, cache, seen);
    KIT_CHECK(code == 0 && seen->failures == 0, "%s: cannot be read: %d, %u pages", dir, code,
              seen->failures);
    code = scree_close(cache);
    KIT_CHECK(code == 0, "%s: close gave %d", dir, code);
    return 0;
}

static struct sim_disk *
image_disk(const struct look *l, const struct sim_image *image)
{
    struct sim_disk *disk = sim_disk_new(image, l->seed);

    sim_disk_record(disk, false);
    sim_disk_abilities(disk, l->run->workload->traits & SIM_TRAIT_DIRECT ? SIM_DIRECT : 0);
    return disk;
}

/* P1, P2 of one image: which state it holds; SIM_RUN_ANY: it is not there whole, as may be. */
static uint32_t
image_check(const struct look *l)
{
    struct sim_disk *disk = image_disk(l, l->image);
    struct history_seen seen;
    uint32_t state = SIM_RUN_ANY;
    int code = disk_look(l, disk, SIM_RUN_DIR, &seen);

    if (l->cut >= l->run->made) {
        KIT_CHECK(code == 0, "open gave %d", code);
        state = state_of(l->run, &seen, l->acked);
    } else if (code == 0) {
        KIT_CHECK(seen.strangers == 0, "%d pages before there was one", seen.strangers);
        for (uint32_t i = 0; i < HISTORY_PAGES; i++)
            KIT_CHECK(seen.state.page[i].version == 0 || (i == 0 && seen.state.page[i].len == 0),
                      "page %u before there was one", i);
    }
    sim_disk_free(disk);
    l->sum[STATES]++;
    return state;
}

/* P9, P3: opened for writing, it is the same; goes on; closed and opened again it is what it was. */
static void
image_write(const struct look *l, uint32_t state)
{
    struct sim_run *run = sim_run_after(l->run, image_disk(l, l->image), l->cut, state, l->seed);
    struct history_seen seen;
    uint32_t n = run->h->n;
    int code = sim_run_open(run, 0);

    KIT_CHECK(code == 0, "open for writing gave %d", code);
    KIT_CHECK(n == 0 || run->h->n == n, "state %u, read-only it was %u", run->h->n - 1, n - 1);
    (void)sim_run_step(run, SIM_STEP_ID); /* no fault is planned here: they end the test */
    for (uint64_t i = l->seed % 4; i > 0; i--)
        (void)sim_run_step(run, i % 2 == 0 ? SIM_STEP_UPDATE : SIM_STEP_BATCH);
    (void)sim_run_close(run);
    code = disk_look(&(struct look){.run = run}, run->disk, SIM_RUN_DIR, &seen);
    KIT_CHECK(code == 0, "open after a close gave %d", code);
    (void)state_of(run, &seen, run->h->n - 1);
    if (l->seed / 4 % 4 == 0) {
        n = run->h->n;
        code = sim_run_open(run, 0);
        KIT_CHECK(code == 0 && run->h->n == n, "open gave %d, state %u", code, run->h->n - 1);
        (void)sim_run_step(run, SIM_STEP_ID);
        (void)sim_run_close(run);
    }
    sim_run_free(run);
    l->sum[WRITTEN]++;
}

static int
finding_told(void *ctx, const scree_finding *f)
{
    (void)ctx;
    if (f->severity != SCREE_FINDING_NOTE)
        printf("  finding: %s at %" PRIu64 ", lsn %" PRIu64 ", page %" PRIu64 ": %s\n",
               f->file == NULL ? "" : f->file, f->offset, f->lsn, f->page, f->text);
    return 0;
}

static void
image_verify(const struct look *l)
{
    struct sim_disk *disk = image_disk(l, l->image);
    scree_options options = l->run->options;
    int code;

    options.env = sim_disk_env(disk);
    code = scree_verify(SIM_RUN_DIR, &options, finding_told, NULL, NULL);
    KIT_CHECK(code == 0, "verify gave %d", code);
    sim_disk_free(disk);
    l->sum[VERIFIED]++;
}

/* Each backup: what it was taken of, or, if it was not done, nothing. */
static void
image_backups(const struct look *l)
{
    for (uint32_t i = 0; i < l->run->backups; i++) {
        const struct sim_backup *b = &l->run->backup[i];
        struct history_seen seen;
        struct sim_disk *disk;
        int code;

        if (l->cut < b->begin || (l->cut >= b->end && l->seed % 8 != 0))
            continue;
        disk = image_disk(l, l->image);
        code = disk_look(l, disk, b->dir, &seen);
        KIT_CHECK(code == 0 || l->cut < b->end, "the backup %s, done, gave %d", b->dir, code);
        if (code == 0)
            KIT_CHECK(history_find(l->run->h, &seen, b->state) >= (int)b->state,
                      "the backup %s of state %u holds %d", b->dir, b->state,
                      history_find(l->run->h, &seen, 0));
        sim_disk_free(disk);
        l->sum[BACKUPS]++;
    }
}

/* ---- runs ---- */

/* Caches opened from now on have their threads on one processor, where they hand over to each other at
   once; or, while a run is recorded, on any, side by side. */
static void
threads_together(bool together)
{
    static cpu_set_t all;
    cpu_set_t one;

    if (CPU_COUNT(&all) == 0 && sched_getaffinity(0, sizeof(all), &all) != 0)
        return;
    one = all;
    for (size_t cpu = 0, skip = process % (unsigned)CPU_COUNT(&all); cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && skip-- != 0)
            CPU_CLR(cpu, &one);
    (void)sched_setaffinity(0, sizeof(all), together ? &one : &all); /* it is only slower without */
}

static void run_walk(struct sim_run *run, unsigned generation, uint64_t seed, uint64_t *sum);

/* The workload goes on from this disk, which is taken over. */
static void
run_spawn(const struct look *l, struct sim_disk *disk, uint32_t state, unsigned generation)
{
    struct sim_run *run = sim_run_after(l->run, disk, l->cut, state, l->seed);
    size_t len = strlen(context_run);
    int code;

    (void)snprintf(context_run + len, sizeof(context_run) - len, " cut %" PRIu64 "%s,", l->cut,
                   state == SIM_RUN_ANY ? " killed" : "");
    threads_together(false);
    code = sim_run_open(run, 0);
    KIT_CHECK(code == 0, "open gave %d", code);
    sim_run_go(run, STEPS_AFTER);
    threads_together(true);
    run_walk(run, generation + 1, l->seed ^ 1, l->sum);
    sim_run_free(run);
    context_run[len] = '\0';
    l->sum[RUNS]++;
    l->sum[KILLS] += state == SIM_RUN_ANY;
}

/* One choice at a cut. */
static void
choice_check(struct look *l, struct sim_replay *replay, uint64_t choice, struct met_set *met_set,
             bool spawns, unsigned generation)
{
    struct sim_image *image = sim_replay_state(replay, choice, most, l->seed);
    uint64_t hash = sim_image_hash(image) | 1, random = l->seed + choice;
    struct met *met = met_add(met_set, hash);
    bool is_new = met->hash == 0;
    uint32_t state;

    l->image = image;
    sim_image_at_hand(image);
    if (only_dir != NULL)
        sim_image_export(image, SIM_RUN_DIR, only_dir);
    l->sum[PAIRS] += is_new || met->cut != l->cut;
    if (is_new || met->acked < l->acked || spawns || only_dir != NULL) {
        state = image_check(l);
        image_backups(l);
        if (kit_below(&random, WRITE_ONE_IN) == 0 || only_dir != NULL)
            image_write(l, state);
        if (l->cut >= l->run->made && (l->run->workload->traits & SIM_TRAIT_FAULTS) == 0 &&
            kit_below(&random, VERIFY_ONE_IN) == 0)
            image_verify(l);
        if (spawns)
            run_spawn(l, sim_disk_new(image, l->seed), l->cut < l->run->made ? 0 : state,
                      generation);
        met->acked = l->acked;
    }
    met->hash = hash;
    met->cut = l->cut;
    sim_image_at_hand(NULL);
    sim_image_free(image);
}

/* Where a run's successors begin. */
struct plan {
    uint64_t power[SPAWNED];                  /* cuts; UINT64_MAX: none */
    uint64_t kill[SPAWNED], kill_at[SPAWNED]; /* from there on, at the latest there */
};

static struct plan
plan_make(const struct sim_run *run, unsigned generation, uint64_t seed)
{
    uint64_t cuts = sim_disk_events(run->disk) - run->begin + 1;
    struct plan plan;

    for (uint32_t i = 0; i < SPAWNED; i++) {
        bool none = generation >= GENERATIONS || only_dir != NULL || i >= SPAWNED / generation;

        plan.power[i] = none ? UINT64_MAX : run->begin + kit_below(&seed, cuts);
        plan.kill[i] = none ? UINT64_MAX : run->begin + kit_below(&seed, cuts);
        plan.kill_at[i] = plan.kill[i] + KILL_PATIENCE < run->begin + cuts
                              ? plan.kill[i] + KILL_PATIENCE
                              : run->begin + cuts - 1;
    }
    return plan;
}

static bool
plan_kills(struct plan *plan, uint64_t cut, uint32_t undecided)
{
    for (uint32_t i = 0; i < SPAWNED; i++)
        if (cut >= plan->kill[i] && (undecided >= KILL_FILES || cut == plan->kill_at[i])) {
            plan->kill[i] = UINT64_MAX;
            return true;
        }
    return false;
}

static void
cut_check(struct look *l, struct sim_replay *replay, struct met_set *met_set, struct plan *plan,
          unsigned generation)
{
    uint64_t choices = sim_replay_choices(replay, most), random = l->seed, events;
    uint64_t spawning = UINT64_MAX;
    char event[160];

    for (uint32_t i = 0; i < SPAWNED; i++)
        if (plan->power[i] == l->cut)
            spawning = kit_below(&random, choices);
    (void)alarm(SECONDS_A_CUT);
    sim_replay_describe(replay, event, sizeof(event));
    for (uint64_t choice = 0; choice < choices; choice++) {
        if (only_dir != NULL && generation == 1 && choice != only_choice)
            continue;
        (void)snprintf(kit_context, sizeof(kit_context), "%s cut %" PRIu64 " (%s) choice %" PRIu64,
                       context_run, l->cut, event, choice);
        choice_check(l, replay, choice, met_set, choice == spawning, generation);
    }
    if (plan_kills(plan, l->cut, sim_replay_undecided(replay)))
        run_spawn(l, sim_replay_kill(replay, l->seed, &events), SIM_RUN_ANY, generation);
    l->sum[CUTS]++;
}

static void
run_walk(struct sim_run *run, unsigned generation, uint64_t seed, uint64_t *sum)
{
    struct sim_replay *replay = sim_replay_new(run->disk);
    struct plan plan = plan_make(run, generation, seed);
    struct met_set met_set = {0, 0, NULL};

    do {
        uint64_t cut = sim_replay_cut(replay), salt[] = {seed, cut};
        struct look l = {.run = run,
                         .cut = cut,
                         .seed = kit_hash(salt, sizeof(salt), 5),
                         .acked = sim_run_acked(run, cut),
                         .sum = sum};

        if (cut >= run->begin && (only_dir == NULL || cut == only_cut))
            cut_check(&l, replay, &met_set, &plan, generation);
    } while (sim_replay_advance(replay));
    free(met_set.at);
    sim_replay_free(replay);
}

static void
workload_run(uint64_t seed, uint64_t number)
{
    uint64_t salt[] = {seed, number}, random = kit_hash(salt, sizeof(salt), 3);
    const struct sim_workload *workload = &sim_workloads[number % sim_workloads_n];
    struct sim_run *run = sim_run_new(workload, random);
    int code;

    (void)snprintf(context_run, sizeof(context_run), "seed %" PRIu64 " workload %" PRIu64 " (%s)",
                   seed, number, workload->name);
    (void)snprintf(kit_context, sizeof(kit_context), "%s", context_run);
    (void)alarm(SECONDS_A_CUT);
    threads_together(false);
    code = sim_run_open(run, 0);
    KIT_CHECK(code == 0, "open gave %d", code);
    sim_run_go(run, workload->steps);
    threads_together(true);
    run_walk(run, 1, random, sums->sum[number % sim_workloads_n]);
    sim_run_free(run);
}

/* ---- processes ---- */

static void
process_main(uint64_t seed, uint64_t workloads, uint64_t first, uint64_t step, uint64_t until_ms)
{
    kit_caches_many();
    sim_image_keep("sim_crash", SIM_RUN_DIR);
    (void)signal(SIGALRM, signal_told);
    (void)signal(SIGABRT, signal_told);
    (void)signal(SIGSEGV, signal_told);
    for (uint64_t w = first; w < workloads && (until_ms == 0 || kit_now_ms() < until_ms); w += step)
        workload_run(seed, w);
    (void)alarm(0);
}

static void
sums_tell(const struct shared *shared, uint64_t processes, uint64_t ms)
{
    uint64_t all[SUMS] = {0}, ms_pairs;

    for (size_t kind = 0; kind < sim_workloads_n; kind++) {
        uint64_t sum[SUMS] = {0};

        for (uint64_t p = 0; p < processes; p++)
            for (int i = 0; i < SUMS; i++)
                sum[i] += shared[p].sum[kind][i];
        printf("%-22s", sim_workloads[kind].name);
        for (int i = 0; i < SUMS; i++) {
            all[i] += sum[i];
            printf(" %s %" PRIu64, sum_names[i], sum[i]);
        }
        printf("\n");
    }
    ms_pairs = all[PAIRS] == 0 ? 0 : ms * 1000 * processes / all[PAIRS];
    printf("all:");
    for (int i = 0; i < SUMS; i++)
        printf(" %s %" PRIu64, sum_names[i], all[i]);
    printf("; %" PRIu64 ".%" PRIu64 " s, %" PRIu64 " us a pair and process\n", ms / 1000,
           ms % 1000 / 100, ms_pairs);
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t workloads = kit_argument(argc, argv, 2, WORKLOADS);
    uint64_t processes = kit_argument(argc, argv, 4, 2), began = kit_now_ms();
    uint64_t seconds = kit_argument(argc, argv, 5, 0);
    uint64_t until = seconds == 0 ? 0 : began + seconds * 1000;
    uint64_t first = kit_argument(argc, argv, 6, UINT64_MAX);
    size_t bytes;
    struct shared *shared;
    pid_t child[64];
    int failed = 0;

    most = kit_argument(argc, argv, 3, CHOICES);
    only_cut = kit_argument(argc, argv, 7, UINT64_MAX);
    only_choice = kit_argument(argc, argv, 8, 0);
    only_dir = argc > 9 ? argv[9] : NULL;
    processes = first != UINT64_MAX || processes < 1 ? 1 : processes > 64 ? 64 : processes;
    bytes = processes * sizeof(*shared);
    shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    KIT_CHECK(shared != MAP_FAILED && sim_workloads_n <= 64, "no memory");
    for (uint64_t p = 0; p < processes; p++) {
        sums = &shared[p];
        process = (unsigned)p;
        child[p] = kit_fork();
        if (child[p] == 0) {
            if (first != UINT64_MAX)
                process_main(seed, first + 1, first, 1, 0);
            else
                process_main(seed, workloads, p, processes, until);
            _exit(0);
        }
    }
    for (uint64_t p = 0; p < processes; p++)
        failed |= kit_join(child[p]) != 0;
    sums_tell(shared, processes, kit_now_ms() - began);
    return failed;
}
