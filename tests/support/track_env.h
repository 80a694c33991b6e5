/*
 * track_env.h - an environment for copies: POSIX, but one call of a marked thread can end the process, one call
 * below a directory can fail, and what is written there must be synced before it is called whole.
 */
#ifndef SCREE_TEST_TRACK_ENV_H
#define SCREE_TEST_TRACK_ENV_H

#include "scree.h"

#include <stdbool.h>
#include <stdint.h>

#define TRACK_KILLED 43

struct track_plan {
    const char *below; /* paths that begin so are watched; outlives the plan */
    const char
        *marker; /* when the file of this name below it is unlinked, everything must be synced */
    uint64_t
        kill_at; /* the n-th call of the marked thread ends the process, 0: none. A write does its half */
    uint64_t kill_behind; /* the same, of its calls behind the one that unlinked the marker */
    uint64_t fail_at;     /* the n-th changing call below the directory returns the code, 0: none */
    int code;
    bool reflink; /* the env can clone (by copying) */
};

const scree_env *track_env(void);
void track_plan(const struct track_plan *plan);
void track_mark_thread(bool marked); /* this thread's calls are counted */
uint64_t track_calls(void);          /* of marked threads since the plan */
uint64_t track_changes(void);        /* changing calls below the directory since the plan */
uint64_t track_clones(void);
/* Files closed with something unsynced, and things unsynced when the marker went. */
uint64_t track_unsynced(void);

#endif
