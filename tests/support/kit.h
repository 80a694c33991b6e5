/*
 * kit.h - what the tests of the public calls share: random numbers, directories, materializers, small
 * options, an environment that fails. Knows scree.h only.
 */
#ifndef SCREE_TEST_KIT_H
#define SCREE_TEST_KIT_H

#include "scree.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#define KIT_PATH_MAX 512

/* Sanitizers take address space by the terabyte: no limit on it can be set. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KIT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KIT_SANITIZED 1
#endif
#endif

/* How much a test does unless told otherwise: less where each step takes far longer. */
#ifdef KIT_SANITIZED
#define KIT_MUCH(plain, sanitized, debug) (sanitized)
#elif !defined(__OPTIMIZE__)
#define KIT_MUCH(plain, sanitized, debug) (debug)
#else
#define KIT_MUCH(plain, sanitized, debug) (plain)
#endif

/* ---- random numbers: the same everywhere for the same seed (splitmix64) ---- */
uint64_t kit_random(uint64_t *state);
/* 0 .. n - 1 */
uint64_t kit_below(uint64_t *state, uint64_t n);
uint64_t kit_hash(const void *data, size_t len, uint64_t seed);
uint64_t kit_now_ms(void);
/* argv[at] as a number, or otherwise */
uint64_t kit_argument(int argc, char **argv, int at, uint64_t otherwise);

/* ---- directories: in memory where that can be had, else TMPDIR or /tmp ---- */
/* A fresh name that does not exist yet, unique in this run; the parent does. */
void kit_dir_name(char path[KIT_PATH_MAX], const char *what);
void kit_dir_remove(const char *path);
void kit_dir_copy(const char *from, const char *to);
/* Everything that could change in a directory: names, sizes, bytes and, if asked, times. */
uint64_t kit_dir_fingerprint(const char *path, bool with_times);
/* But for files whose names begin so; NULL: for none. */
uint64_t kit_dir_fingerprint_but(const char *path, bool with_times, const char *but);

struct kit_files {
    size_t n;
    char name[1024][64];
    uint64_t size[1024]; /* bytes */
};
/* Sorted by name. */
void kit_dir_list(const char *path, struct kit_files *files);
/* The whole file, malloc'ed; NULL if it cannot be read. */
unsigned char *kit_file_read(const char *dir, const char *name, size_t *len_out);
void kit_file_write(const char *dir, const char *name, const void *data, size_t len);
/* What the files whose names begin so occupy (st_blocks), and how many they are; "" for all. */
uint64_t kit_dir_disk_bytes(const char *path, const char *prefix, uint32_t *files_out);
/* Of this process, without what it shares or maps from files. */
uint64_t kit_memory_bytes(void);

/* ---- materializers ---- */

/* A fragment that begins with this byte cannot be merged (kit_concat, kit_concat_fold). */
#define KIT_UNMERGEABLE 0xFFu

/* The page is its base followed by its fragments. */
extern const scree_materializer kit_concat;
/* The same, with a recover fold: see kit_fold. */
extern const scree_materializer kit_concat_fold;
/* A page is struct kit_counter; a fragment is a uint64_t to be added. */
extern const scree_materializer kit_counter_materializer;

struct kit_counter {
    uint64_t sum;
    uint64_t count;
};

/* The recover state of kit_concat_fold: depends on every non-empty record and on their order. */
struct kit_fold {
    uint64_t records;
    uint64_t hash;
};
void kit_fold_add(struct kit_fold *fold, scree_page_id id, scree_slice slice);

/* ---- options: every size as small as it may be ---- */
void kit_options_small(scree_options *options, const scree_materializer *materializer);

/* scree_verify finds nothing in this directory, or there is none; else the run ends. */
void kit_verify(const char *path, const scree_options *options);

/* ---- an environment that fails, stops or kills at the n-th call ---- */

enum kit_call {
    KIT_OPEN = 1,
    KIT_READ = 2,
    KIT_WRITE = 4,
    KIT_SYNC = 8,
    KIT_ALLOCATE = 16,
    KIT_PUNCH = 32,
    KIT_TRUNCATE = 64,
    KIT_RENAME = 128,
    KIT_UNLINK = 256,
    KIT_SYNC_DIR = 512,
    KIT_MKDIR = 1024,
    KIT_LIST = 2048,
    KIT_INFO = 4096,
    KIT_LOCK = 8192,
    KIT_RANDOM = 16384
};
#define KIT_CHANGING                                                                            \
    (KIT_WRITE | KIT_SYNC | KIT_ALLOCATE | KIT_PUNCH | KIT_TRUNCATE | KIT_RENAME | KIT_UNLINK | \
     KIT_SYNC_DIR | KIT_MKDIR)

enum kit_fault {
    KIT_FAULT_NONE = 0,
    KIT_FAULT_CODE,  /* that call returns the code and does nothing */
    KIT_FAULT_STUCK, /* that call and every later one of the counted kinds returns the code */
    KIT_FAULT_SHORT, /* reads and writes do the first half only, and say so */
    KIT_FAULT_TEAR,  /* a write does its first half, and returns the code */
    KIT_FAULT_KILL   /* a write does a part, then the process _exits with KIT_KILLED */
};
#define KIT_KILLED 42

/* A copy of POSIX whose n-th call (1 = the first) of the kinds counted has the fault. One at a time. */
struct kit_plan {
    unsigned kinds; /* enum kit_call, or'ed */
    enum kit_fault fault;
    int code; /* negative */
    uint64_t at;
};
const scree_env *kit_env(void);
void kit_env_plan(const struct kit_plan *plan);
/* Counted calls since the plan was made; whether the fault has come; what kind of call had it. */
uint64_t kit_env_calls(void);
bool kit_env_hit(void);
unsigned kit_env_hit_kind(void);
/* KIT_FAULT_KILL does not strike between the two, in whatever thread: shared memory stays whole. */
void kit_env_hold(void);
void kit_env_release(void);

/* ---- checks of the plain mains: print and end the process with status 1 ---- */
extern char kit_context[512]; /* printed with every failure: seed and step */
/* Called once by a failure, before the process ends; NULL: nobody. */
extern void (*kit_on_failure)(void);
_Noreturn __attribute__((format(printf, 4, 5))) void
kit_failed(const char *file, int line, const char *what, const char *format, ...);
#define KIT_CHECK(x, ...)                                    \
    do {                                                     \
        if (!(x))                                            \
            kit_failed(__FILE__, __LINE__, #x, __VA_ARGS__); \
    } while (0)
/* In a process where caches come and go by the thousand: their stacks and buffers are kept for the next one. */
void kit_caches_many(void);
/* fork, with nothing printed twice; 0 in the child, which ends by _exit, and with its parent. */
pid_t kit_fork(void);
/* The child's exit status, or more than 255 for one that a signal ended, which is told. */
int kit_join(pid_t child);
/* "CONFLICT" for SCREE_E_CONFLICT, "OK" for 0, "errno" for the rest. */
const char *kit_code_name(int code);

static inline scree_slice
kit_slice(const void *data, size_t len)
{
    scree_slice slice = {.data = data, .len = len};

    return slice;
}

#endif
