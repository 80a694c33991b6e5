/*
 * fault_alloc.c - each allocation of small workloads fails, one after the other: once, or with many behind it.
 *
 * GOAL      memory that runs out fails the call that needed it with NO_MEMORY, or is made do without;
 *           nothing changes, nothing leaks, nothing is poisoned, no call hangs, and when there is memory
 *           again all goes on.
 * METHOD    the workloads of fault_work.c on a disk in memory. The 1st, the 2nd, ... allocation of the
 *           library, by whatever thread, gives NULL, until a run has no such allocation: it alone; it and
 *           the next 4; it and the next 60, which is for a while.
 * ORACLE    fault_work.c: the history of all states; codes and details; the number of allocations that are
 *           left when the cache is closed (LeakSanitizer besides, where it is there); what was left at the
 *           close and after it. -DSCREE_BUG_CURSOR_LEAKS, APPEND_UNDONE, RETIRE_LATE builds of the library
 *           must fail.
 * NOT HERE  I/O (fault_io); memory of others: threads, zstd.
 *
 * fault_alloc [seed] [every n-th allocation behind the first few, 1] [workload, 0: all] [allocation, 0: all]
 *             [way 1 to 3, 0: all]
 */
#include "support/fault_work.h"

#include "base/base.h"

#include <inttypes.h>
#include <string.h>

#define FIRST_CALLS 4u /* that are struck whatever the stride */
#define SLACK 3u       /* runs on end that were not struck: there is no such allocation */

static const uint64_t counts[] = {0, 1, 5, 61};
#define WAYS 3u

static uint64_t nth, way;

static void
arm(struct sim_disk *disk)
{
    (void)disk;
    scree__alloc_fault(nth, counts[way]);
}

static bool
struck(struct sim_disk *disk)
{
    (void)disk;
    return scree__alloc_counted() >= nth;
}

static bool
fair(int code)
{
    return code == SCREE_E_NO_MEMORY;
}

/* What was counted stays. */
static void
lift(struct sim_disk *disk)
{
    (void)disk;
    scree__alloc_fault_end();
}

static struct sum {
    uint64_t runs, failed, open_failed, close_failed, silent, reopened;
} sum;
static uint64_t strikes[32][FAULT_PHASE_N]; /* by workload */

static bool
one(uint64_t seed, unsigned workload)
{
    struct fault_result r;
    struct fault_driver driver = {
        .arm = arm, .struck = struck, .lift = lift, .fair = fair, .reads_fail = true};

    driver.early = nth % 2 != 0;
    snprintf(kit_context, sizeof(kit_context),
             "fault_alloc %" PRIu64 " 1 %u %" PRIu64 " %" PRIu64 ": %s, %" PRIu64
             " allocations from %" PRIu64,
             seed, workload + 1, nth, way, fault_workload_name(workload), counts[way], nth);
    fault_work_run(workload, &driver, &r);
    sum.runs++;
    if (!r.ok) {
        sum.failed++;
        if (getenv("SCREE_TEST_KEEP") == NULL)
            exit(1);
    }
    if (!r.struck)
        return false;
    strikes[workload][r.phase]++;
    sum.open_failed += r.open_failed;
    sum.close_failed += r.close_failed;
    sum.silent += r.errors == 0;
    sum.reopened += r.reopened;
    return true;
}

static void
report(uint64_t seed)
{
    for (unsigned w = 0; w < fault_workloads_n; w++) {
        printf("  %-10s", fault_workload_name(w));
        for (int p = 0; p < FAULT_PHASE_N; p++) {
            if (strikes[w][p] > 0)
                printf(" %s %" PRIu64, fault_phase_names[p], strikes[w][p]);
        }
        printf("\n");
    }
    printf("fault_alloc: seed %" PRIu64 ", %" PRIu64 " runs: %" PRIu64 " opens and %" PRIu64
           " closes failed, %" PRIu64 " noticed by no caller, %" PRIu64
           " directories reopened: %s\n",
           seed, sum.runs, sum.open_failed, sum.close_failed, sum.silent, sum.reopened,
           sum.failed > 0 ? "FAILED" : "ok");
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t stride = kit_argument(argc, argv, 2, 1);
    uint64_t only_workload = kit_argument(argc, argv, 3, 0);
    uint64_t only_nth = kit_argument(argc, argv, 4, 0);
    uint64_t only_way = kit_argument(argc, argv, 5, 0);

    if (stride == 0 || only_way > WAYS)
        return 2;
    fault_work_begin(seed);
    for (unsigned w = 0; w < fault_workloads_n; w++) {
        for (way = 1; way <= WAYS; way++) {
            uint64_t unstruck = 0;

            if ((only_workload != 0 && only_workload != w + 1) ||
                (only_way != 0 && only_way != way))
                continue;
            nth = only_nth != 0 ? only_nth : 1;
            while (unstruck < SLACK) {
                unstruck = one(seed, w) ? 0 : unstruck + 1;
                if (only_nth != 0)
                    break;
                nth += nth < FIRST_CALLS ? 1 : stride;
            }
        }
    }
    report(seed);
    return sum.failed > 0;
}
