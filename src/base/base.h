/*
 * base.h - what every module may use: errors, assertions, memory, output buffers, waiting.
 * Knows nobody. Histograms are in base/histogram.h, RCU in base/rcu.h.
 */
#ifndef SCREE_BASE_H
#define SCREE_BASE_H

#include "scree.h"

#include <assert.h> /* static_assert */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- error.c: set this thread's detail text, return the code given ---- */
__attribute__((format(printf, 2, 3))) int scree__fail(int code, const char *format, ...);
/* Forget this thread's detail (at the entry of calls that may fail). */
void scree__fail_clear(void);

/* ---- assert.h ---- */
/* SCREE_ASSERT: cheap invariants, compiled in unless SCREE_NO_ASSERT. SCREE_ASSERT_SLOW: only with
   SCREE_SLOW_ASSERTS. SCREE_CHECK: always; going on could persist bad bytes. */
_Noreturn void scree__assert_failed(const char *file, int line, const char *what);
#define SCREE_CHECK(x) ((x) ? (void)0 : scree__assert_failed(__FILE__, __LINE__, #x))
#ifndef SCREE_NO_ASSERT
#define SCREE_ASSERT(x) SCREE_CHECK(x)
#else
#define SCREE_ASSERT(x) ((void)sizeof(x))
#endif
#ifdef SCREE_SLOW_ASSERTS
#define SCREE_ASSERT_SLOW(x) SCREE_CHECK(x)
#else
#define SCREE_ASSERT_SLOW(x) ((void)sizeof(x))
#endif

/* ---- alloc.c ---- */
void *scree__alloc(size_t bytes); /* NULL when out of memory */
void *scree__alloc_zero(size_t bytes);
void *scree__alloc_aligned(size_t align, size_t bytes);
void *scree__realloc(void *p, size_t old_bytes, size_t bytes);
void scree__free(void *p, size_t bytes); /* bytes: as asked for; p may be NULL */
size_t scree__alloc_usable(void *p);     /* what the allocator really gave */
/* The array, of *cap elements of so many bytes each (NULL: of none yet), with room for n: to be used in its
   place, and freed with the new *cap. NULL when out of memory: array and *cap are as they were. */
void *scree__array_reserve(void *array, size_t *cap, size_t n, size_t element_bytes);
/* The same two for nodes of pages, which are charged to the cache. SCREE_PAGE_ARENA: a jemalloc arena of
   their own, so that a test can ask jemalloc what they take; scree__page_arena is its number. */
void *scree__page_alloc(size_t bytes);
void scree__page_free(void *p, size_t bytes);
#ifdef SCREE_PAGE_ARENA
extern unsigned scree__page_arena;
#endif
#ifdef SCREE_ALLOC_FAULTS
/* Tests: from the nth allocation counted from now (1 = the next), `count` of them fail. nth 0:
   none. */
void scree__alloc_fault(uint64_t nth, uint64_t count);
void scree__alloc_fault_end(void);   /* none from now on; the count goes on */
uint64_t scree__alloc_counted(void); /* allocations since scree__alloc_fault */
uint64_t scree__alloc_live(void);    /* made and not freed; exact while nobody allocates */
#endif
/* dir/name. NULL: no memory. */
char *scree__path_join(const char *dir, const char *name);
/* The directory that path is, or would be, in. NULL: no memory. */
char *scree__path_parent(const char *path);
void scree__path_free(char *path); /* of the two above; NULL does nothing */

/* ---- out.c: what a callback writes into ---- */
struct scree_out {
    unsigned char *data;
    size_t len;
    size_t cap;
    size_t len_max; /* beyond it: TOO_BIG */
    int error;      /* sticky */
};
void scree__out_init(struct scree_out *out, size_t len_max);
void scree__out_reset(struct scree_out *out, size_t len_max); /* empty again, memory kept */
void scree__out_destroy(struct scree_out *out);

/* ---- futex.c: time this thread was running; for paces only, so not of the env ---- */
uint64_t scree__thread_cpu_ns(void);

/* ---- futex.c: wait while *word == seen, at most timeout_ns (UINT64_MAX: no limit) ---- */
void scree__futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns);
void scree__futex_wake(_Atomic uint32_t *word, int count);
static inline void
scree__cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Debug builds widen the gaps between a load and its CAS (SCREE_YIELDS); nothing otherwise. */
#ifdef SCREE_YIELDS
void scree__yield_point(void);
#define SCREE_YIELD_POINT() scree__yield_point()
#else
#define SCREE_YIELD_POINT() ((void)0)
#endif

#define SCREE_CACHE_LINE 64
#define SCREE__LSN_MAX \
    ((uint64_t)1 << 62)   /* no log position beyond it is ever handed out or believed */
#define SCREE_BLOCK 4096u /* unit of disk writes; what a power cut leaves whole or old at best */

static inline uint64_t
scree__min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t
scree__max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t
scree__round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static inline uint64_t
scree__round_down(uint64_t n, uint64_t to)
{
    return n / to * to;
}

#endif
