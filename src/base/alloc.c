/*
 * alloc.c - memory, behind one door: sized frees, usable sizes for accounting, arrays that grow, injected
 * failures.
 *
 * The C library's allocator serves; a process that links another one (jemalloc) gets that one here
 * too.
 *
 * WORD   alloc_count, alloc_live, alloc_fault_from, alloc_fault_to (builds with SCREE_ALLOC_FAULTS only)
 * EDGES  none: all relaxed. The count only has to be exact as a sum, and tests set the range while
 *        no other thread is inside scree.
 * INVARIANTS  I1 a size of 0 gives a distinct pointer, so NULL always means failure.
 * LIFETIME  static.   PROGRESS  as the allocator's.
 * FAILURE  NULL, nothing changed. The caller turns it into SCREE_E_NO_MEMORY.
 * NOT HERE  free lists of page nodes, charging memory to the cache.   REFS none.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/base.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#ifdef SCREE_PAGE_ARENA
#include <jemalloc/jemalloc.h>
#endif

#define POISON_BYTES ((size_t)16 << 10)

#define ARRAY_CAP_MIN 16u /* elements */

#ifdef SCREE_ALLOC_FAULTS
static _Atomic uint64_t alloc_count;
static _Atomic uint64_t alloc_live;
static _Atomic uint64_t alloc_fault_from; /* 1 = the next one; 0 = none */
static _Atomic uint64_t alloc_fault_to;

void
scree__alloc_fault(uint64_t nth, uint64_t count)
{
    uint64_t to = count > UINT64_MAX - nth ? UINT64_MAX : nth + count;

    atomic_store_explicit(&alloc_count, 0, memory_order_relaxed);
    atomic_store_explicit(&alloc_fault_from, nth, memory_order_relaxed);
    atomic_store_explicit(&alloc_fault_to, nth == 0 ? 0 : to, memory_order_relaxed);
}

void
scree__alloc_fault_end(void)
{
    atomic_store_explicit(&alloc_fault_to, 0, memory_order_relaxed);
}

uint64_t
scree__alloc_counted(void)
{
    return atomic_load_explicit(&alloc_count, memory_order_relaxed);
}

uint64_t
scree__alloc_live(void)
{
    return atomic_load_explicit(&alloc_live, memory_order_relaxed);
}

static void *
alloc_born(void *p)
{
    if (p != NULL)
        atomic_fetch_add_explicit(&alloc_live, 1, memory_order_relaxed);
    return p;
}

static void
alloc_dies(void)
{
    atomic_fetch_sub_explicit(&alloc_live, 1, memory_order_relaxed);
}

static bool
alloc_must_fail(void)
{
    uint64_t n = atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed) + 1;

    return n >= atomic_load_explicit(&alloc_fault_from, memory_order_relaxed) &&
           n < atomic_load_explicit(&alloc_fault_to, memory_order_relaxed);
}
#else
static bool
alloc_must_fail(void)
{
    return false;
}

static void *
alloc_born(void *p)
{
    return p;
}

static void
alloc_dies(void)
{
}
#endif

void *
scree__alloc(size_t bytes)
{
    if (alloc_must_fail())
        return NULL;
    return alloc_born(malloc(bytes > 0 ? bytes : 1)); /* I1 */
}

void *
scree__alloc_zero(size_t bytes)
{
    if (alloc_must_fail())
        return NULL;
    return alloc_born(calloc(1, bytes > 0 ? bytes : 1)); /* I1 */
}

void *
scree__alloc_aligned(size_t align, size_t bytes)
{
    void *p;

    if (alloc_must_fail())
        return NULL;
    /* Not aligned_alloc: C11 wants its size to be a multiple of the alignment. */
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, bytes > 0 ? bytes : 1))
        return NULL;
    return alloc_born(p);
}

void *
scree__realloc(void *p, size_t old_bytes, size_t bytes)
{
    SCREE_ASSERT_SLOW(p == NULL || malloc_usable_size(p) >= old_bytes);
    (void)old_bytes; /* for allocators that take sized frees */
    if (alloc_must_fail())
        return NULL;
    return p == NULL ? alloc_born(malloc(bytes > 0 ? bytes : 1))
                     : realloc(p, bytes > 0 ? bytes : 1); /* I1 */
}

void
scree__free(void *p, size_t bytes)
{
    if (p == NULL)
        return;
    alloc_dies();
    /* Under AddressSanitizer the usable size is the size asked for: a wrong size is caught here. */
    SCREE_ASSERT_SLOW(malloc_usable_size(p) >= bytes);
#ifdef SCREE_SLOW_ASSERTS
    /* Whoever still reads it shall notice. Of a large buffer the ends: most of it was perhaps never touched. */
    if (bytes > 2 * POISON_BYTES)
        memset((char *)p + bytes - POISON_BYTES, 0xdb, POISON_BYTES);
    memset(p, 0xdb, bytes > 2 * POISON_BYTES ? POISON_BYTES : bytes);
#else
    (void)bytes;
#endif
    free(p);
}

void *
scree__array_reserve(void *array, size_t *cap, size_t n, size_t element_bytes)
{
    size_t wanted = *cap < ARRAY_CAP_MIN ? ARRAY_CAP_MIN : *cap;
    void *grown;

    if (n <= *cap && array != NULL)
        return array;
    while (wanted < n && wanted <= SIZE_MAX / 2)
        wanted *= 2; /* each element is moved once, on average */
    if (wanted < n || wanted > SIZE_MAX / element_bytes)
        return NULL;
    grown = scree__realloc(array, *cap * element_bytes, wanted * element_bytes);
    if (grown != NULL)
        *cap = wanted;
    return grown;
}

#ifdef SCREE_PAGE_ARENA
unsigned scree__page_arena;

/* Not through a thread's cache: what is cached there would count as allocated. */
static int
arena_flags(void)
{
    return (int)(MALLOCX_ARENA(scree__page_arena) | MALLOCX_TCACHE_NONE);
}

void *
scree__page_alloc(size_t bytes)
{
    return alloc_must_fail() ? NULL : alloc_born(mallocx(bytes, arena_flags()));
}

void
scree__page_free(void *p, size_t bytes)
{
    SCREE_ASSERT_SLOW(malloc_usable_size(p) >= bytes);
    (void)bytes;
    alloc_dies();
    dallocx(p, arena_flags());
}
#else
void *
scree__page_alloc(size_t bytes)
{
    return scree__alloc(bytes);
}

void
scree__page_free(void *p, size_t bytes)
{
    scree__free(p, bytes);
}
#endif

size_t
scree__alloc_usable(void *p)
{
    return malloc_usable_size(p);
}

char *
scree__path_join(const char *dir, const char *name)
{
    size_t dir_len = strlen(dir);
    size_t name_len = strlen(name);
    size_t slash = dir_len > 0 && dir[dir_len - 1] == '/' ? 0 : 1;
    char *path = scree__alloc(dir_len + slash + name_len + 1);

    if (path == NULL)
        return NULL;
    memcpy(path, dir, dir_len);
    if (slash)
        path[dir_len] = '/';
    memcpy(path + dir_len + slash, name, name_len + 1);
    return path;
}

char *
scree__path_parent(const char *path)
{
    size_t len = strlen(path);
    char *parent;

    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    if (len == 0)
        return scree__path_join(".", "");
    parent = scree__alloc(len + 1);
    if (parent != NULL) {
        memcpy(parent, path, len);
        parent[len] = '\0';
    }
    return parent;
}

void
scree__path_free(char *path)
{
    scree__free(path, path == NULL ? 0 : strlen(path) + 1);
}
