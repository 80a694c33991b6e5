/*
 * rcu.h - read sections and grace periods: the one place that names the RCU flavor.
 *
 * Flavor: urcu-bp. Any thread may call, nothing has to be registered.
 *
 * WORD   liburcu's own; ours is only ThreadSanitizer's token.
 * EDGES  step                    who            order                       pairs
 *   E0   enter: section begins   any reader     liburcu: full or asymmetric  E2
 *   E1   leave: section ends     any reader     release (token)             E2
 *   E2   wait: grace period      any thread     acquire (token)             E1
 * INVARIANTS
 *   I1 a wait returns after every section has ended that was open when it began: what was unlinked
 *      before the wait is reachable by nobody after it.
 *   I2 a wait is never made inside a section of the same thread: it would wait for itself
 *      (asserted).
 * LIFETIME  a pointer loaded in a section dies at its end.
 * PROGRESS  enter and leave are wait-free (but for the first enter of a thread, which registers
 *   it); wait blocks for as long as the longest open section.
 * FAILURE   none. liburcu aborts if a thread cannot be registered for lack of memory.
 * NOT HERE  what is freed and when.   REFS  liburcu doc/rcu-api.md.
 *
 * ThreadSanitizer does not see into liburcu's binary: builds with SCREE_TSAN tell it, by one token,
 * that the end of a section happens before the end of a later wait, which is I1. One token for all
 * is coarse and hides some races that are there; AddressSanitizer and the poisoning in scree__free
 * cover those.
 */
#ifndef SCREE_RCU_H
#define SCREE_RCU_H

#include "base/base.h"

/* The inlined section costs a tenth of the called one. _LGPL_SOURCE states that the including
   program's licence allows inlining LGPL code, which MIT does. Inlined code would be instrumented,
   and then reported. */
#if defined(SCREE_LGPL_INLINE) && !defined(SCREE_TSAN)
#define _LGPL_SOURCE
#endif
#include <urcu/urcu-bp.h>

#ifdef SCREE_TSAN
void __tsan_acquire(void *token);
void __tsan_release(void *token);
extern char scree__rcu_token; /* one for the process: rcu.c */
#define SCREE__GP_BEFORE() __tsan_release(&scree__rcu_token)
#define SCREE__GP_AFTER() __tsan_acquire(&scree__rcu_token)
#else
#define SCREE__GP_BEFORE() ((void)0)
#define SCREE__GP_AFTER() ((void)0)
#endif

/* E0. Nestable. */
static inline void
scree__rcu_enter(void)
{
    urcu_bp_read_lock();
}

/* E1. Release: all our reads lie before whatever follows the grace period. */
static inline void
scree__rcu_leave(void)
{
    SCREE__GP_BEFORE();
    urcu_bp_read_unlock();
}

/* Is this thread inside a section? */
static inline bool
scree__rcu_inside(void)
{
    return urcu_bp_read_ongoing() != 0;
}

/* E2. Acquire: what the readers that were inside did is behind us. */
static inline void
scree__rcu_wait(void)
{
    SCREE_ASSERT(!scree__rcu_inside()); /* I2 */
#ifndef SCREE_BUG_RCU_NO_WAIT           /* seeded: stress_rcu must fail */
    urcu_bp_synchronize_rcu();
#endif
    SCREE__GP_AFTER();
}

/* Around fork(2), in a thread outside of any section; the first waits for a grace period under way. After the
   third the child may use sections. */
static inline void
scree__rcu_before_fork(void)
{
    SCREE_ASSERT(!scree__rcu_inside());
    urcu_bp_before_fork();
}

static inline void
scree__rcu_after_fork_parent(void)
{
    urcu_bp_after_fork_parent();
}

static inline void
scree__rcu_after_fork_child(void)
{
    urcu_bp_after_fork_child();
}

#endif
