/*
 * futex.c - how a thread waits for a word to change; and how debug builds make threads lose races.
 *
 * WORD   the caller's.
 * EDGES  none: waiting orders nothing. Whoever returns from a wait loads the word again, with the
 *        order that the word's own protocol asks for.
 * INVARIANTS  I1 no lost wake-up: the kernel compares the word with `seen` under its own lock, so a
 *        change and wake between the caller's load and the wait make the wait return at once.
 * LIFETIME  the word must stay mapped while anyone waits on it.
 * PROGRESS  a wait may end early for no reason (signal): callers loop. The waker is stated there.
 * FAILURE   none that a caller could act on: every early return looks like a spurious wake-up.
 * NOT HERE  what is waited for.   REFS futex(2).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/base.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static_assert(sizeof(_Atomic uint32_t) == sizeof(uint32_t),
              "the kernel waits on a plain 32-bit word");

#define FUTEX_NS_PER_S UINT64_C(1000000000)

void
scree__futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
    struct timespec limit = {.tv_sec = (time_t)(timeout_ns / FUTEX_NS_PER_S),
                             .tv_nsec = (long)(timeout_ns % FUTEX_NS_PER_S)};

    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen,
                  timeout_ns == UINT64_MAX ? NULL : &limit, NULL, 0);
}

void
scree__futex_wake(_Atomic uint32_t *word, int count)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

#ifdef SCREE_YIELDS
/* Half of the calls do nothing, most others spin a little, one in 32 gives the processor away:
   windows of every width, at a price that keeps stress tests useful. */
void
scree__yield_point(void)
{
    static _Thread_local uint32_t state;

    /* xorshift32; the address of a thread-local differs between threads, so their sequences do too.
       */
    if (state == 0)
        state = (uint32_t)((uintptr_t)&state >> 4) | 1u;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    if ((state & 31u) == 0) {
        (void)sched_yield();
        return;
    }
    if (state & 32u)
        return;
    for (uint32_t spins = (state >> 8) & 63u; spins > 0; spins--)
        scree__cpu_relax();
}
#endif

uint64_t
scree__thread_cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
