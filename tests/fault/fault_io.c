/*
 * fault_io.c - each I/O call of small workloads fails, one after the other, in every way it can (P6, P7).
 *
 * GOAL      a failed write or sync poisons, or the call that needed it fails cleanly; a full disk does no more
 *           than NO_SPACE, and passes; no call hangs, none succeeds for what did not happen; nothing that was
 *           acknowledged is lost, not by a power cut either, and a sync that failed is never made up for by
 *           one that succeeds.
 * METHOD    a disk in memory (sim_disk.h) and the workloads of fault_work.c. For each of them and each kind of
 *           call (open, read, write, sync, ..., random): the 1st, the 2nd, ... call of that kind fails, until
 *           a run has no such call, so that there need not be the same number of them in each run: with EIO;
 *           with EIO from then on, lifted before the close or not; with ENOSPC where it takes room; by a short
 *           count; by a torn write. Beside that the whole disk dies at a call (all kinds, from then on), and
 *           is full at a call of the user's: what is used then is all there is, for so many calls.
 * ORACLE    fault_work.c: the history of all states; codes and details; allocations left over; what was left at
 *           the close and after it; what the same disk holds for who opens it again and goes on; and what
 *           power cuts leave at all these moments. -DSCREE_BUG_SYNC_UNHEARD, WRITE_AGAIN, SHORT_IS_WHOLE,
 *           POISON_UNTOLD, MARK_TRUSTED, LINK_TRUSTED, MANIFEST_TRUSTED builds of the library must fail.
 * NOT HERE  memory that runs out (fault_alloc), power cuts without faults (tests/crash).
 *
 * fault_io [seed] [every n-th call behind the first few, 1] [workload, 0: all] [kind, 0: all] [call, 0: all]
 *          [way, 0: all]
 */
#include "support/fault_work.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define FIRST_CALLS 4u /* of each kind, that are struck whatever the stride */
#define SLACK 3u       /* runs on end that were not struck: there is no such call */

struct kind {
    const char *name;
    unsigned kinds;
    bool takes_room;
};
static const struct kind kinds[] = {
    {"open", KIT_OPEN, true},
    {"read", KIT_READ, false},
    {"write", KIT_WRITE, true},
    {"sync", KIT_SYNC, true},
    {"allocate", KIT_ALLOCATE, true},
    {"punch", KIT_PUNCH, false},
    {"truncate", KIT_TRUNCATE, false},
    {"rename", KIT_RENAME, true},
    {"unlink", KIT_UNLINK, false},
    {"sync_dir", KIT_SYNC_DIR, true},
    {"mkdir", KIT_MKDIR, true},
    {"list", KIT_LIST, false},
    {"info", KIT_INFO, false},
    {"lock", KIT_LOCK, false},
    {"random", KIT_RANDOM, false},
    {"any", KIT_CHANGING | KIT_OPEN | KIT_READ | KIT_LIST | KIT_INFO | KIT_LOCK | KIT_RANDOM, true},
    {"full", 0, true},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))
#define KIND_ANY (KINDS - 2)
#define KIND_FULL (KINDS - 1)

enum how {
    HOW_EIO = 1,
    HOW_STUCK,
    HOW_STUCK_CLOSE,
    HOW_ENOSPC,
    HOW_FULL,
    HOW_SHORT,
    HOW_TEAR,
    HOWS
};
struct way {
    const char *name;
    enum kit_fault fault;
    int code;
};
static const struct way ways[HOWS] = {
    [HOW_EIO] = {"EIO", KIT_FAULT_CODE, -EIO},
    [HOW_STUCK] = {"EIO for good, lifted before the close", KIT_FAULT_STUCK, -EIO},
    [HOW_STUCK_CLOSE] = {"EIO for good", KIT_FAULT_STUCK, -EIO},
    [HOW_ENOSPC] = {"ENOSPC", KIT_FAULT_CODE, -ENOSPC},
    [HOW_FULL] = {"ENOSPC for good, lifted before the close", KIT_FAULT_STUCK, -ENOSPC},
    [HOW_SHORT] = {"a short count", KIT_FAULT_SHORT, 0},
    [HOW_TEAR] = {"a torn write", KIT_FAULT_TEAR, -EIO},
};

static struct kit_plan plan;
static enum how how;
static size_t kind;
static uint64_t full_from; /* calls of the user's */
static bool full_now, full_struck;

/* ---- the driver ---- */

static void
arm(struct sim_disk *disk)
{
    sim_disk_plan(disk, &plan);
    full_now = full_struck = false;
}

static void
full_before(struct sim_disk *disk, uint64_t n)
{
    uint64_t calls = 3 + full_from % 9;

    if (kind != KIND_FULL)
        return;
    if (n + 1 == full_from) {
        sim_disk_limit(disk, sim_disk_used(disk) + 1); /* 0: no limit */
        full_now = full_struck = true;
    } else if (full_now && n + 1 == full_from + calls) {
        sim_disk_limit(disk, 0);
        full_now = false;
    }
}

static bool
struck(struct sim_disk *disk)
{
    return kind == KIND_FULL ? full_struck : sim_disk_hit(disk) != 0;
}

static bool
fair(int code)
{
    switch (how) {
    case HOW_EIO:
    case HOW_STUCK:
    case HOW_STUCK_CLOSE:
    case HOW_TEAR:
        return code == -EIO || code == SCREE_E_POISONED;
    case HOW_ENOSPC:
    case HOW_FULL:
        return code == SCREE_E_NO_SPACE ||
               (code == SCREE_E_POISONED &&
                (kinds[kind].kinds & (KIT_WRITE | KIT_SYNC | KIT_SYNC_DIR)));
    default:
        return false;
    }
}

static void
lift(struct sim_disk *disk)
{
    /* The hit stays. */
    sim_disk_heal(disk);
    sim_disk_limit(disk, 0);
    full_now = false;
}

/* A log that does not know what it has written. */
static bool
must_poison(struct sim_disk *disk)
{
    return ways[how].code == -EIO && sim_disk_hit_in(disk, "/d/segment-");
}

static bool
way_fits(void)
{
    switch (how) {
    case HOW_EIO:
        return kind < KIND_ANY;
    case HOW_STUCK:
    case HOW_STUCK_CLOSE:
        return kind <= KIND_ANY;
    case HOW_ENOSPC:
        return kind < KIND_ANY && kinds[kind].takes_room;
    case HOW_FULL:
        return kind == KIND_FULL || kinds[kind].kinds == KIT_ALLOCATE;
    case HOW_SHORT:
        return kinds[kind].kinds == KIT_READ || kinds[kind].kinds == KIT_WRITE;
    case HOW_TEAR:
        return kinds[kind].kinds == KIT_WRITE;
    default:
        return false;
    }
}

/* ---- the sweep ---- */

static uint64_t seed;
static struct sum {
    uint64_t runs, failed, poisoned, open_failed, close_failed, silent, reopened;
} sum;
static uint64_t strikes[32][KINDS];               /* by workload */
static uint64_t strikes_in[KINDS][FAULT_PHASE_N]; /* by what the main thread did */

static bool
one(unsigned workload, uint64_t at)
{
    struct fault_result r;
    struct fault_driver driver = {.arm = arm,
                                  .before = full_before,
                                  .struck = struck,
                                  .lift = lift,
                                  .fair = fair,
                                  .must_poison = must_poison};

    plan = (struct kit_plan){
        .kinds = kinds[kind].kinds, .fault = ways[how].fault, .code = ways[how].code, .at = at};
    full_from = at;
    driver.may_poison = how != HOW_SHORT && kind != KIND_FULL;
    driver.reads_fail = (kinds[kind].kinds & (KIT_READ | KIT_OPEN)) != 0 && how != HOW_SHORT;
    if (how == HOW_ENOSPC || how == HOW_FULL)
        driver.lingers = SCREE_E_NO_SPACE;
    else if (kinds[kind].kinds &
             (KIT_ALLOCATE | KIT_OPEN)) /* room is not asked for at once again */
        driver.lingers = -EIO;
    driver.early = how != HOW_STUCK_CLOSE;
    driver.cuts = true;
    driver.names_fail = (kinds[kind].kinds & KIT_SYNC_DIR) != 0;
    snprintf(kit_context, sizeof(kit_context),
             "fault_io %" PRIu64 " 1 %u %zu %" PRIu64 " %d: %s, %s %s %" PRIu64, seed, workload + 1,
             kind + 1, at, (int)how, fault_workload_name(workload), ways[how].name,
             kinds[kind].name, at);
    fault_work_run(workload, &driver, &r);
    sum.runs++;
    if (!r.ok) {
        sum.failed++;
        if (getenv("SCREE_TEST_KEEP") == NULL)
            exit(1);
    }
    if (!r.struck)
        return false;
    strikes[workload][kind]++;
    strikes_in[kind][r.phase]++;
    sum.poisoned += r.poisoned;
    sum.open_failed += r.open_failed;
    sum.close_failed += r.close_failed;
    sum.silent += r.errors == 0;
    sum.reopened += r.reopened;
    return true;
}

static void
sweep(unsigned workload, uint64_t stride)
{
    uint64_t unstruck = 0;

    for (uint64_t at = 1; unstruck < SLACK; at += at < FIRST_CALLS ? 1 : stride)
        unstruck = one(workload, at) ? 0 : unstruck + 1;
}

static void
report(void)
{
    for (unsigned w = 0; w < fault_workloads_n; w++) {
        printf("  %-10s", fault_workload_name(w));
        for (size_t k = 0; k < KINDS; k++) {
            if (strikes[w][k] > 0)
                printf(" %s %" PRIu64, kinds[k].name, strikes[w][k]);
        }
        printf("\n");
    }
    for (size_t k = 0; k < KINDS; k++) {
        printf("  %-10s", kinds[k].name);
        for (int p = 0; p < FAULT_PHASE_N; p++) {
            if (strikes_in[k][p] > 0)
                printf(" %s %" PRIu64, fault_phase_names[p], strikes_in[k][p]);
        }
        printf("\n");
    }
    printf("fault_io: seed %" PRIu64 ", %" PRIu64 " runs: %" PRIu64 " poisoned, %" PRIu64
           " opens and %" PRIu64 " closes failed, %" PRIu64 " noticed by no caller, %" PRIu64
           " directories reopened: %s\n",
           seed, sum.runs, sum.poisoned, sum.open_failed, sum.close_failed, sum.silent,
           sum.reopened, sum.failed > 0 ? "FAILED" : "ok");
}

int
main(int argc, char **argv)
{
    uint64_t stride = kit_argument(argc, argv, 2, 1);
    uint64_t only_workload = kit_argument(argc, argv, 3, 0);
    uint64_t only_kind = kit_argument(argc, argv, 4, 0);
    uint64_t only_at = kit_argument(argc, argv, 5, 0);
    uint64_t only_way = kit_argument(argc, argv, 6, 0);

    seed = kit_argument(argc, argv, 1, 1);
    if (stride == 0)
        return 2;
    fault_work_begin(seed);
    for (unsigned w = 0; w < fault_workloads_n; w++) {
        for (kind = 0; kind < KINDS; kind++) {
            for (how = HOW_EIO; how < HOWS; how++) {
                if ((only_workload != 0 && only_workload != w + 1) ||
                    (only_kind != 0 && only_kind != kind + 1) ||
                    (only_way != 0 && only_way != how) || !way_fits())
                    continue;
                if (only_at != 0)
                    (void)one(w, only_at);
                else
                    sweep(w, stride);
            }
        }
    }
    report();
    return sum.failed > 0;
}
