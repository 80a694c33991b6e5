/*
 * bench.h - one benchmark run: its options, its figures, and who does what.
 *
 *   bench.c          scree's run
 *   bench_load.c     the child's part of it: the cache, and what the phases ask of it
 *   bench_work.c     the operations that are timed
 *   bench_check.c    the parent's part: reopen, time the first get, check the pages
 *   bench_line.c     what scree adds to the line of JSON, and its promise on space
 *
 * What every engine shares, scree and those of bench/peers:
 *
 *   bench_run.c      options, tables, the child process
 *   bench_page.c     what a page holds: made, folded and checked
 *   bench_phase.c    the child's frame: load, warm up, time, close
 *   bench_loop.h     the loop around an operation
 *   bench_churn.c    churn: who does which operation, what is sampled
 *   bench_right.c    what must be there after a run
 *   bench_json.c     the line of JSON, the table of samples
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
    BENCH_BATCH_COMMIT,
    BENCH_CHURN,
    BENCH_RECOVER,
    BENCH_WORKLOADS
};

#define BENCH_THREADS_MAX 256
#define BENCH_CHURN_ROUNDS 20u /* overwrites for each page there is */
#define BENCH_BATCH 64u        /* operations between two looks at the clock */
#define BENCH_BATCH_PAGES 4u   /* that batch-commit changes at once */

struct bench_options {
    enum bench_workload workload;
    const char *workload_name;
    unsigned threads;
    double seconds;
    uint64_t n;         /* pages */
    uint32_t page;      /* bytes of a page without fragments */
    uint32_t frag;      /* bytes */
    uint32_t value;     /* bytes */
    unsigned prefetch;  /* pages asked for ahead, by each thread; 0: none */
    uint64_t cache_mib; /* as given or derived */
    uint64_t cache_bytes;
    uint64_t segment_bytes; /* 0: the library's default; so with the next three */
    uint64_t disk_limit_bytes, snapshot_log_bytes;
    double target;          /* space_amp_target */
    int32_t zstd_level;     /* 0: none */
    const char *compress;   /* as given */
    const char *samples;    /* churn: a file for the table of samples, or NULL */
    const char *parent_dir; /* --dir: only the directory below it is ours */
    char dir[PATH_MAX];
    bool group; /* --sync group */
    bool zipfian;
    bool no_punch;
    bool verify;
    bool crash;
    bool keep;
    uint64_t seed;
    bool given_n, given_page, given_cache, given_dist, given_sync,
        given_seconds; /* which defaults to derive */
};

#define BENCH_PREFETCH_MAX 1024u

/* Space at one moment of a churn. */
struct bench_sample {
    bool taken;
    uint64_t ops; /* of the timed part, done before it */
    uint64_t ns;  /* since the timed part began */
    uint64_t rss;
    struct tool_disk disk;
    scree_stats stats;
};
#define BENCH_SAMPLES 101u /* at the start and after each 1% of the operations */

/* What the child leaves for the parent; in memory both share. */
struct bench_shared {
    _Atomic uint32_t done; /* the child came to its end (release) and the rest is valid (acquire) */
    uint64_t pages;        /* ids[0 .. pages) are live */
    uint64_t id_min, id_max;
    uint64_t ops, user_bytes;
    double seconds, load_s, close_s;
    uint64_t device_bytes, device_read_bytes, peak_rss, rss_anon;
    uint64_t harness_bytes;          /* of peak_rss: the benchmark's own tables */
    scree_stats begun, ended;        /* before and after the timed part */
    struct scree__histogram latency; /* ns */
    /* churn, by events, from the open on. */
    uint64_t log_start;
    uint64_t snapshot_lsn;       /* replay start of the newest snapshot; at first log_start */
    uint64_t snapshot_gap_max;   /* log between two snapshots */
    uint64_t snapshot_bytes_max; /* of one */
    uint64_t snapshots_failed;
    _Atomic uint64_t no_space; /* puts refused and tried again; a counter */
    struct bench_sample samples[BENCH_SAMPLES];
    /* Filled by the parent. */
    uint64_t disk_bytes;
    double open_s; /* open and first get */
    double entries_s, replay_mb_s;
    bool verified;
    /* commit: value k of thread t is page commit_ids[t * commit_cap + k], k < commit_n[t]. */
    uint64_t commit_cap;
    uint64_t commit_n[BENCH_THREADS_MAX];
};

/* What a thread last put to a page. Versions tell whose was the last. */
struct bench_put {
    scree_version version;
    uint64_t op;
};

struct bench_worker;
/* What the frame asks of an engine; 0 or an error. */
struct bench_hooks {
    void *ctx;
    int (*worker)(void *ctx, struct bench_worker *w); /* one more thread will work */
    int (*load)(struct bench_worker *w, uint64_t key, const void *page, uint64_t *id_out);
    int (*loaded)(void *ctx); /* while no worker runs, as with all below but stats */
    int (*flush)(void *ctx);
    int (*stats)(void *ctx, scree_stats *stats_out); /* of churn, also while others work */
    int (*close)(void *ctx);
};

struct bench_churn;
struct bench_run {
    struct bench_options options;
    const char *program;      /* as messages begin */
    struct bench_hooks hooks; /* the child's */
    scree_materializer materializer;
    struct bench_shared *shared;
    uint64_t *ids;        /* shared: page of key k */
    uint64_t *commit_ids; /* shared */
    uint32_t *appends; /* shared, --verify only: [thread][id - id_min], appends that returned 0 */
    struct bench_put *puts; /* as appends, for churn */
    _Atomic uint64_t
        *versions;         /* shared, batch-commit only: [id - id_min], as last seen, 0: not yet */
    uint64_t appends_span; /* pages a thread's part of appends or puts has room for */
    struct bench_churn *churn; /* the child's; churn only */
};

/* ---- bench_run.c ---- */

/* Ends the process if they make no sense. */
void bench_options_parse(struct bench_options *o, int argc, char **argv);
int bench_run_prepare(struct bench_run *run);
/* `child` in a process of its own; 0, or a negative error: -ECHILD if it has said what went wrong. */
int bench_run_child(struct bench_run *run, int (*child)(struct bench_run *run));

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
/* A page of a churn: body `op` mod pool of the pool, to which the operation and the page's id are stamped;
   before the first one op is 0 and the key stands for the id. */
void bench_churn_make(void *page, uint32_t len, uint32_t index, uint64_t seed);
void bench_churn_stamp(void *page, uint64_t op, uint64_t name);
/* Whether page is byte for byte what some operation put to id, or what was loaded under key. */
bool bench_churn_check(scree_slice page, uint64_t id, uint64_t key, const struct bench_options *o,
                       unsigned char *scratch, uint64_t *op_out);
void bench_value_make(void *value, uint32_t len, unsigned thread, uint64_t k, uint64_t seed);
/* Whether page is byte for byte what key's page must be after some number of appends to id, which is
   stored. scratch: page_len and frag_len bytes. */
bool bench_page_check(scree_slice page, uint64_t id, uint64_t key, const struct bench_options *o,
                      unsigned char *scratch, uint32_t *appends_out);
/* Of `count` appends to a page of len bytes the last newest_n, as many as can be kept; its new length. There is
   room for BENCH_FRAGS_KEPT fragments. */
size_t bench_page_add(void *page, size_t len, uint32_t count, const void *newest, uint32_t newest_n,
                      uint32_t frag_len);
void bench_materializer(scree_materializer *m);

/* ---- bench_load.c: in the child; 0 or an error it complained about ---- */
int bench_child(struct bench_run *run);
void bench_open_options(const struct bench_run *run, scree_options *options_out);
int bench_stats(scree_cache *cache, scree_stats *stats_out);

/* ---- bench_phase.c: in the child, the engine open and run->hooks set; 0 or an error ---- */
int bench_frame(struct bench_run *run);

/* ---- bench_work.c; of another engine: peer_work.c ---- */

/* Everything a thread needs at hand; its own cache lines. */
struct bench_worker {
    _Alignas(128) struct bench_run *run;
    scree_cache *cache;
    void *session;         /* what another engine has in the place of cache */
    const uint32_t *draws; /* page ids, drawn beforehand */
    uint32_t draws_mask;
    unsigned thread;
    uint64_t at;    /* next draw */
    uint64_t asked; /* --prefetch: the first draw not asked for yet */
    uint64_t next;  /* churn: number of the next operation */
    uint64_t ops, user_bytes;
    uint64_t harness_bytes; /* of memory, its own tables */
    uint64_t sum;           /* of what was read, so that reading cannot be left out */
    unsigned char *copy;    /* a page copied out */
    unsigned char *frags;   /* BENCH_POOL fragments; churn: pages */
    struct tool_rng rng;
    struct scree__histogram *latency;
    const _Atomic uint32_t *stop; /* set by the main thread, relaxed: only ends a loop */
    int error;
};
/* Operations until *stop; at most max_ops. */
void bench_worker_run(struct bench_worker *w, uint64_t max_ops);

/* ---- bench_churn.c ---- */

/* What happens to the directory, from its open on; ctx: struct bench_shared. */
void bench_churn_event(void *ctx, const scree_event *event);
int bench_churn_init(struct bench_run *run);
/* The operations from now on: up to ops more, until seconds are over if that is not 0. Samples are taken
   if `sampled`. While no worker runs. */
void bench_churn_begin(struct bench_run *run, uint64_t ops, double seconds, bool sampled);
/* The last sample. While no worker runs. */
void bench_churn_end(struct bench_run *run);
/* The next operations, [*from_out, *from_out + n); 0: no more. */
uint64_t bench_churn_take(struct bench_run *run, uint64_t *from_out);
/* They are done: the thread that finished a hundredth looks at the space. */
void bench_churn_done(struct bench_run *run, uint64_t from, uint64_t n);

/* ---- bench_json.c ---- */

struct json_t;
/* All fields that engines share; NULL: no memory. */
struct json_t *bench_json_line(const struct bench_run *run, const char *engine, const char *version,
                               const char *config);
void bench_json_count(struct json_t *line, const char *name, uint64_t value);
/* What recover adds; nothing to other workloads. */
void bench_json_recover(struct json_t *line, const struct bench_run *run);
/* Releases it; 0 or a negative error. */
int bench_json_print(struct json_t *line);
/* The table of samples; complains itself. */
int bench_samples_write(const struct bench_run *run);

/* ---- bench_line.c: 0 or a negative error ---- */

/* *promise_out: false if a promise on space was broken, of which it complained. */
int bench_line_print(const struct bench_run *run, bool *promise_out);
/* ---- bench_right.c: in the parent ---- */

/* Pages, or of commit values, that must be there, and the page id of one. */
uint64_t bench_items(const struct bench_run *run);
uint64_t bench_item_id(const struct bench_run *run, uint64_t index);
bool bench_item_right(const struct bench_run *run, scree_slice page, scree_version version,
                      uint64_t index, unsigned char *scratch);
/* Whether `item` says so of 1,000 at random, with --verify of all; it complains itself. */
typedef bool (*bench_item_fn)(void *ctx, const struct bench_run *run, uint64_t index,
                              unsigned char *scratch);
bool bench_all_right(const struct bench_run *run, bench_item_fn item, void *ctx);

/* ---- bench_check.c: in the parent; 0 or an error it complained about ---- */
int bench_check(struct bench_run *run);

#endif
