/*
 * fault_work.h - small workloads on a disk in memory, each run once while something fails, and what must
 * hold during and after that, whatever it is. The drivers (tests/fault) say what fails, and what calls may
 * give then.
 */
#ifndef SCREE_TEST_FAULT_WORK_H
#define SCREE_TEST_FAULT_WORK_H

#include "history.h"
#include "sim_disk.h"

/* What the main thread was doing: X(NAME, "in words"). */
#define FAULT_PHASES(X)     \
    X(OPEN, "open")         \
    X(UPDATE, "update")     \
    X(BATCH, "batch")       \
    X(FLUSH, "flush")       \
    X(SNAPSHOT, "snapshot") \
    X(RECLAIM, "reclaim")   \
    X(READ, "read")         \
    X(BACKUP, "backup")     \
    X(FEED, "log reader")   \
    X(IDS, "id_next")       \
    X(VERIFY, "verify")     \
    X(SALVAGE, "salvage")   \
    X(AFTER, "afterwards")  \
    X(CLOSE, "close")
enum fault_phase {
#define FAULT_PHASE(name, text) FAULT_##name,
    FAULT_PHASES(FAULT_PHASE)
#undef FAULT_PHASE
        FAULT_PHASE_N
};
extern const char *const fault_phase_names[FAULT_PHASE_N];

const char *fault_workload_name(unsigned workload);
extern const unsigned fault_workloads_n;

struct fault_driver {
    /* Begin: the cache is about to be opened. */
    void (*arm)(struct sim_disk *disk);
    /* The n-th call (0 = the open) of the main thread is about to be made. May be NULL. */
    void (*before)(struct sim_disk *disk, uint64_t n);
    bool (*struck)(struct sim_disk *disk); /* it has come; from any thread */
    void (*lift)(struct sim_disk *disk);   /* nothing fails from now on */
    bool (*fair)(int code); /* after it struck, a call may give this; from any thread */
    bool (*must_poison)(struct sim_disk *disk); /* it was of that sort; NULL: never */
    bool may_poison, reads_fail;                /* it may; pages may be unreadable until lift */
    int lingers; /* may be given for a while after lift; 0: nothing */
    bool early;  /* lift comes before the close */
    /* A sync of a directory may fail: a name that was given up before may be back after a power cut, and a file
       that nobody needs be missing: no verify of those. */
    bool names_fail;
    bool cuts; /* look at what a power cut would leave */
};

/* Of one run. */
struct fault_result {
    bool ok, struck, poisoned, open_failed, close_failed;
    enum fault_phase phase; /* in which it struck */
    uint32_t errors;        /* calls that failed */
    uint64_t calls;         /* of the main thread */
    uint32_t reopened;      /* images that were opened and compared */
};

/* Make what the workloads begin with. Ends the process with status 1 if it cannot. */
void fault_work_begin(uint64_t seed);
/* In a child with an alarm. Prints what is wrong: result_out->ok. */
void fault_work_run(unsigned workload, const struct fault_driver *driver,
                    struct fault_result *result_out);

#endif
