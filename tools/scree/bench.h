/*
 * bench.h - one benchmark run: its options, its figures, and who does what.
 *
 *   bench.c          options, the child process, the line of JSON
 *   bench_page.c     what a page holds: made, folded and checked
 *   bench_load.c     the child's frame: open, load, warm up, time, close
 *   bench_work.c     the operations that are timed
 *   bench_check.c    the parent's part: reopen, time the first get, check the pages
 */
#ifndef SCREE_BENCH_H
#define SCREE_BENCH_H

#include "tool.h"

#include "base/histogram.h"

#include <limits.h>
#include <stdatomic.h>

enum bench_workload {
    BENCH_FRAG_MERGE,
    BENCH_PAGE_GET,
    BENCH_PAGE_VIEW,
    BENCH_PAGE_GET_COLD,
    BENCH_MIXED,
    BENCH_COMMIT,
    BENCH_RECOVER,
    BENCH_WORKLOADS
};

#define BENCH_THREADS_MAX 256

struct bench_options {
    enum bench_workload workload;
    const char *workload_name;
    unsigned threads;
    double seconds;
    uint64_t n;         /* pages */
    uint32_t page;      /* bytes of a page without fragments */
    uint32_t frag;      /* bytes */
    uint32_t value;     /* bytes */
    uint64_t cache_mib; /* as given or derived */
    uint64_t cache_bytes;
    const char *parent_dir; /* --dir: only the directory below it is ours */
    char dir[PATH_MAX];
    bool group; /* --sync group */
    bool zipfian;
    bool zstd;
    bool verify;
    bool crash;
    uint64_t seed;
    bool given_n, given_cache, given_dist; /* which defaults to derive */
};

/* What the child leaves for the parent; in memory both share. */
struct bench_shared {
    _Atomic uint32_t done; /* the child came to its end (release) and the rest is valid (acquire) */
    uint64_t pages;        /* ids[0 .. pages) are live */
    uint64_t id_min, id_max;
    uint64_t ops, user_bytes, live_bytes, resident_bytes;
    double seconds, load_s, close_s;
    uint64_t device_bytes, device_read_bytes, peak_rss, rss_anon;
    struct scree__histogram latency; /* ns */
    /* Filled by the parent. */
    uint64_t disk_bytes;
    double open_s; /* open and first get */
    double entries_s, replay_mb_s;
    bool verified;
    /* commit: value k of thread t is page commit_ids[t * commit_cap + k], k < commit_n[t]. */
    uint64_t commit_cap;
    uint64_t commit_n[BENCH_THREADS_MAX];
};

struct bench_run {
    struct bench_options options;
    scree_materializer materializer;
    struct bench_shared *shared;
    uint64_t *ids;        /* shared: page of key k */
    uint64_t *commit_ids; /* shared */
    uint32_t *appends; /* shared, --verify only: [thread][id - id_min], appends that returned 0 */
    uint64_t appends_span; /* pages a thread's part of appends has room for */
};

/* ---- bench_page.c ---- */

/* Appending beyond this many cuts a page back to its base. */
#define BENCH_FRAGS_KEPT 16u

#define BENCH_POOL 64u /* bodies of fragments, drawn beforehand */

/* A page without fragments, `len` bytes (8 at least), of the key. */
void bench_page_make(void *page, uint32_t len, uint64_t key, uint64_t seed);
/* Body `index` of the pool, `len` bytes (8 at least); its first 8 bytes are stamped per append. */
void bench_fragment_make(void *fragment, uint32_t len, uint32_t index, uint64_t seed);
static inline uint64_t
bench_fragment_stamp(uint64_t id, uint32_t index)
{
    return id << 8 | index;
}
void bench_value_make(void *value, uint32_t len, unsigned thread, uint64_t k, uint64_t seed);
/* Whether page is byte for byte what key's page must be after some number of appends to id, which is
   stored. scratch: page_len and frag_len bytes. */
bool bench_page_check(scree_slice page, uint64_t id, uint64_t key, const struct bench_options *o,
                      unsigned char *scratch, uint32_t *appends_out);
void bench_materializer(scree_materializer *m);

/* ---- bench_load.c: in the child; 0 or an error it complained about ---- */
int bench_child(struct bench_run *run);
void bench_open_options(const struct bench_run *run, scree_options *options_out);

/* ---- bench_work.c ---- */

/* Everything a thread needs at hand; its own cache lines. */
struct bench_worker {
    _Alignas(128) const struct bench_run *run;
    scree_cache *cache;
    const uint32_t *draws; /* page ids, drawn beforehand */
    uint32_t draws_mask;
    unsigned thread;
    uint64_t at; /* next draw */
    uint64_t ops, user_bytes;
    uint64_t sum;         /* of what was read, so that reading cannot be left out */
    unsigned char *copy;  /* a page copied out */
    unsigned char *frags; /* BENCH_POOL fragments */
    struct tool_rng rng;
    struct scree__histogram *latency;
    const _Atomic uint32_t *stop; /* set by the main thread, relaxed: only ends a loop */
    int error;
};
int bench_worker_init(struct bench_worker *w);
void bench_worker_destroy(struct bench_worker *w);
/* Operations until *stop; at most max_ops. */
void bench_worker_run(struct bench_worker *w, uint64_t max_ops);

/* ---- bench_check.c: in the parent; 0 or an error it complained about ---- */
int bench_check(struct bench_run *run);

#endif
