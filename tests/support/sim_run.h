/*
 * sim_run.h - a workload on a disk in memory, recorded: what was done to the disk, every state the pages went
 * through, and at which event who had been promised what.
 *
 * One client thread, so the order in which it makes its updates is their order in the log.
 */
#ifndef SCREE_TEST_SIM_RUN_H
#define SCREE_TEST_SIM_RUN_H

#include "history.h"
#include "sim_disk.h"

#include <pthread.h>

#define SIM_RUN_DIR "/d"
#define SIM_RUN_STATES 400u /* of a run with all that it comes from */
#define SIM_RUN_BACKUPS 4u

/* What a step may be. */
enum sim_step {
    SIM_STEP_UPDATE, /* history_step */
    SIM_STEP_BATCH,  /* history_batch */
    SIM_STEP_FLUSH,  /* scree_flush, or waiting for one version */
    SIM_STEP_ID,     /* scree_id_next */
    SIM_STEP_SNAPSHOT,
    SIM_STEP_RECLAIM, /* at a low target */
    SIM_STEP_REOPEN,  /* close, open */
    SIM_STEP_BACKUP,
    SIM_STEP_REST, /* the background threads have a millisecond */
    SIM_STEPS
};

enum sim_trait {
    SIM_TRAIT_DIRECT = 1,
    SIM_TRAIT_NO_PUNCH = 2,
    SIM_TRAIT_COMPRESSED = 4,
    SIM_TRAIT_BIG = 8,        /* pages that do not all fit the cache */
    SIM_TRAIT_LAZY = 16,      /* no flushes but those asked for */
    SIM_TRAIT_SNAPSHOTS = 32, /* and one by itself every 64 KiB */
    SIM_TRAIT_CLONES = 64,
    SIM_TRAIT_FAULTS = 128 /* one call that changes something fails, some time */
};

struct sim_workload {
    const char *name;
    uint32_t steps;
    unsigned traits; /* enum sim_trait */
    unsigned weight[SIM_STEPS];
};
extern const struct sim_workload sim_workloads[];
extern const size_t sim_workloads_n;

/* What was known at some time: from this event on. */
struct sim_stamp {
    uint64_t event, value;
};
struct sim_stamps {
    size_t n, cap;
    struct sim_stamp *at; /* both grow */
};

struct sim_backup {
    uint64_t begin, end; /* events; end UINT64_MAX: not yet */
    uint32_t state;
    char dir[16];
};

struct sim_run {
    const struct sim_workload *workload;
    struct sim_disk *disk;
    struct history *h;
    scree_options options;
    scree_cache *cache; /* under lock: the disk's watch looks at it */
    pthread_mutex_t lock;
    uint64_t random;
    uint64_t begin; /* its first event: those before are of runs that it comes from */
    uint64_t made;  /* the directory had been made when this event began; 0: it was there */
    uint32_t acked; /* states up to this one were, when it began */
    uint64_t version_told, id_told; /* the largest, when it began */
    struct sim_stamps stable;       /* scree_stable_lsn said so; under lock while it runs */
    struct sim_stamps version, id;  /* told */
    uint32_t backups;
    struct sim_backup backup[SIM_RUN_BACKUPS];
};

/* On an empty disk. */
struct sim_run *sim_run_new(const struct sim_workload *workload, uint64_t seed);
/* On a disk that another run left when it ended at a cut; takes the disk over. state: what is on it; durable
   therefore. SIM_RUN_ANY: any that is not older than what had been acknowledged. */
#define SIM_RUN_ANY UINT32_MAX
struct sim_run *sim_run_after(const struct sim_run *before, struct sim_disk *disk, uint64_t cut,
                              uint32_t state, uint64_t seed);
void sim_run_free(struct sim_run *run);

/* Opens: 0, or the code of open. The state must be one that may be found at the run's begin. */
int sim_run_open(struct sim_run *run, unsigned flags);
/* One step: 0, or what failed as a call of the disk's did; other errors end the test. */
int sim_run_step(struct sim_run *run, enum sim_step step);
/* So many steps of the workload, then a close. */
void sim_run_go(struct sim_run *run, uint32_t steps);
int sim_run_close(struct sim_run *run); /* as a step */

/* The largest value stamped at or before a cut; otherwise. */
uint64_t sim_stamp_at(const struct sim_stamps *stamps, uint64_t cut, uint64_t otherwise);
/* The states up to this one had been acknowledged before the cut. */
uint32_t sim_run_acked(const struct sim_run *run, uint64_t cut);
/* Told before the cut. */
uint64_t sim_run_version_told(const struct sim_run *run, uint64_t cut);
uint64_t sim_run_id_told(const struct sim_run *run, uint64_t cut);

#endif
