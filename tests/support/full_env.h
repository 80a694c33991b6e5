/*
 * full_env.h - a scree_env on a disk that is full: from the n-th call that takes room, until there is room
 * again.
 */
#ifndef SCREE_TEST_FULL_ENV_H
#define SCREE_TEST_FULL_ENV_H

#include "kit.h"

enum full_way {
    FULL_NEVER,
    FULL_ONCE,  /* the n-th call fails, no other */
    FULL_CALLS, /* the n-th call fails, and every one behind it, until so many have */
    FULL_DISK /* from the n-th call on no block more than are used then: what lies in blocks that are
                   there goes on, what is given back may be taken again; until so many calls failed */
};

struct full_plan {
    enum full_way way;
    uint64_t at; /* 1 = the first; counted are allocate, write, open of a new file, rename, mkdir */
    uint64_t failures;
};

struct full_seen {
    uint64_t calls;       /* counted */
    uint64_t failures;    /* -ENOSPC returned */
    uint64_t data_writes; /* of these: writes of log bytes into a segment file */
    char first[96];       /* the first one, in words */
};

/* POSIX otherwise. One at a time in a process; the plan changes only while no cache is open. */
const scree_env *full_env(void);
void full_env_plan(const struct full_plan *plan);
/* There is room from now on; any time. */
void full_env_room_back(void);
void full_env_seen(struct full_seen *seen_out);

#endif
