/*
 * sched_points.h - every atomic access of the library becomes a scheduling point (sched.h). Included by force
 * in front of each file of src when scree_sched is compiled; nothing in src knows of it.
 *
 * A point is in front of the access, so a thread can be stopped between any two of them. Relaxed accesses are
 * none: they are counters, hints, and words whose order another access brings.
 */
#ifndef SCREE_TEST_SCHED_POINTS_H
#define SCREE_TEST_SCHED_POINTS_H

#include <stdatomic.h>

void sched_access(const volatile void *word, const char *file, int line);
void sched_relax(const char *file, int line);

#define SCHED_AT(p, order) \
    ((order) == memory_order_relaxed ? (void)0 : sched_access((p), __FILE__, __LINE__))

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_exchange_explicit
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_or_explicit
#undef atomic_fetch_and_explicit
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak_explicit

#ifdef __clang__
#define SCHED_CAS(p, seen, next, yes, no) \
    __c11_atomic_compare_exchange_strong((p), (seen), (next), (yes), (no))
#define SCHED_ACCESS(name) __c11_atomic_##name
#define SCHED_LOAD __c11_atomic_load
#define SCHED_STORE __c11_atomic_store
#define SCHED_EXCHANGE __c11_atomic_exchange
#else
#define SCHED_CAS(p, seen, next, yes, no) \
    __atomic_compare_exchange_n((p), (seen), (next), 0, (yes), (no))
#define SCHED_ACCESS(name) __atomic_##name
#define SCHED_LOAD __atomic_load_n
#define SCHED_STORE __atomic_store_n
#define SCHED_EXCHANGE __atomic_exchange_n
#endif

#define atomic_load_explicit(p, order) (SCHED_AT(p, order), SCHED_LOAD((p), (order)))
#define atomic_store_explicit(p, value, order) \
    (SCHED_AT(p, order), SCHED_STORE((p), (value), (order)))
#define atomic_exchange_explicit(p, value, order) \
    (SCHED_AT(p, order), SCHED_EXCHANGE((p), (value), (order)))
#define atomic_fetch_add_explicit(p, n, order) \
    (SCHED_AT(p, order), SCHED_ACCESS(fetch_add)((p), (n), (order)))
#define atomic_fetch_sub_explicit(p, n, order) \
    (SCHED_AT(p, order), SCHED_ACCESS(fetch_sub)((p), (n), (order)))
#define atomic_fetch_or_explicit(p, n, order) \
    (SCHED_AT(p, order), SCHED_ACCESS(fetch_or)((p), (n), (order)))
#define atomic_fetch_and_explicit(p, n, order) \
    (SCHED_AT(p, order), SCHED_ACCESS(fetch_and)((p), (n), (order)))
/* A weak one may fail without reason, which no schedule could repeat: both are strong. */
#define atomic_compare_exchange_strong_explicit(p, seen, next, yes, no) \
    (SCHED_AT(p, yes), SCHED_CAS((p), (seen), (next), (yes), (no)))
#define atomic_compare_exchange_weak_explicit(p, seen, next, yes, no) \
    atomic_compare_exchange_strong_explicit(p, seen, next, yes, no)

/* Who spins waits for another thread. */
#define __builtin_ia32_pause() sched_relax(__FILE__, __LINE__)

#endif
