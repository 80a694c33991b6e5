/*
 * cover.c - coverage builds (SCREE_COVERAGE) link every program with --wrap=_exit to this one: children of
 * fork end by _exit, without exit handlers, and what they had counted would be lost. Not so for those that are
 * killed in the midst (KIT_KILLED): with threads at work the counts do not add up, and gcov infers the half of
 * them from the others. What SIGKILL ends counts nothing either.
 */
#ifdef SCREE_COVERAGE
#include "kit.h"
#include "track_env.h"

void __gcov_dump(void);
_Noreturn void __real__exit(int status);
_Noreturn void __wrap__exit(int status);

_Noreturn void
__wrap__exit(int status)
{
    if (status != KIT_KILLED && status != TRACK_KILLED)
        __gcov_dump();
    __real__exit(status);
}
#else
typedef int scree_cover_nothing; /* a translation unit is not empty */
#endif
