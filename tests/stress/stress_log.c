/*
 * stress_log.c seed seconds threads
 *
 * GOAL     the log keeps exactly what was completed, in the order of positions, and at least what it
 *          called stable; no position is handed out twice.
 * METHOD   rounds over one directory with the smallest segments and ring: threads reserve records of random
 *          lengths, complete or abort them, wait for stability, read stable records back. A round
 *          ends with a clean close, or by dropping the log object as a crash of the process would (what
 *          was not written is lost). Then the directory is opened and scanned from the round's start.
 * CHECKED  1 every record found is one that was reserved in this round, at that position, with exactly its
 *          bytes, completed ones as records, aborted ones as aborted; 2 none is missing below the end
 *          of the scan; 3 the end is not below anything reported stable, and after a clean close
 *          it is the tail; 4 positions grow from round to round; 5 what is read back from disk is
 *          what was written; 6 segments whose every byte is dead can be dropped, and no others are:
 *          the disk stays bounded.
 */
#include "log/log.h"
#include "support/kit.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_BYTES (64u * 1024)
#define RING_BYTES (64u * 1024)
#define PAYLOAD_MAX 24000u
#define ROUND_NS 250000000ull

#define CHECK(x)                                                                             \
    ((x) ? (void)0                                                                           \
         : (fprintf(stderr, "%s:%d: %s (seed %llu, round %u): %s\n", __FILE__, __LINE__, #x, \
                    (unsigned long long)seed_given, round_now, scree_error_detail()),        \
            abort()))

static unsigned long long seed_given;
static unsigned round_now;

struct entry {
    uint64_t lsn, seed;
    uint32_t payload_len, disk_len;
    uint32_t page;
    bool aborted;
};

struct worker {
    pthread_t thread;
    struct scree__log *log;
    uint64_t rng;
    uint32_t page;
    bool may_crash;
    struct entry *entry;
    size_t n, cap;
    uint64_t acked; /* reported stable to this thread */
    _Atomic bool *stop;
};

static uint64_t
rng_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void
payload_fill(uint8_t *at, uint32_t len, uint64_t seed)
{
    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t v = rng_next(&seed);

        memcpy(at + i, &v, len - i < 8 ? len - i : 8);
    }
}

static void
entry_add(struct worker *w, const struct entry *e)
{
    if (w->n == w->cap) {
        w->cap = w->cap == 0 ? 1024 : 2 * w->cap;
        w->entry = realloc(w->entry, w->cap * sizeof *w->entry);
        CHECK(w->entry != NULL);
    }
    w->entry[w->n++] = *e;
}

static uint32_t
random_len(uint64_t *rng)
{
    uint64_t r = rng_next(rng);

    switch (r & 31) {
    case 0:
        return (uint32_t)(rng_next(rng) % PAYLOAD_MAX);
    case 1:
    case 2:
    case 3:
        return (uint32_t)(rng_next(rng) % 4200);
    default:
        return (uint32_t)(rng_next(rng) % 200);
    }
}

static void
read_back(struct worker *w)
{
    const struct entry *e = &w->entry[rng_next(&w->rng) % w->n];
    static _Thread_local uint8_t expected[PAYLOAD_MAX];
    struct scree__log_read read = {.page = e->page, .lsn = e->lsn, .disk_len = e->disk_len};

    if (e->aborted || e->lsn + e->disk_len > scree__log_stable(w->log))
        return;
    CHECK(scree__log_read(w->log, &read, 1) == 0); /* 5 */
    payload_fill(expected, e->payload_len, e->seed);
    CHECK(read.r.payload_len == e->payload_len);
    CHECK(memcmp(read.r.payload, expected, e->payload_len) == 0);
    scree__log_read_done(&read, 1);
}

static void *
worker_main(void *arg)
{
    struct worker *w = arg;
    struct scree__log_writer *writer = scree__log_writer_attach(w->log);
    static _Thread_local uint8_t payload[PAYLOAD_MAX];

    CHECK(writer != NULL);
    while (!atomic_load_explicit(w->stop, memory_order_relaxed)) {
        struct entry e = {.seed = rng_next(&w->rng), .page = w->page};
        struct scree__record r = {.kind = SCREE__RECORD_DELTA, .page = w->page, .payload = payload};

        e.payload_len = r.payload_len = random_len(&w->rng);
        payload_fill(payload, e.payload_len, e.seed);
        if ((e.seed & 7) == 0) {
            r.kind = SCREE__RECORD_CONSOLIDATED;
            r.version = e.seed;
        }
        scree__record_prepare(&r);
        CHECK(scree__log_admit(w->log, writer, r.disk_len, SCREE__LOG_USER, true) == 0);
        CHECK(scree__log_reserve(w->log, writer, &r) == 0);
        if (rng_next(&w->rng) % 512 == 0)
            (void)sched_yield(); /* an open reservation holds everybody up */
        e.lsn = r.lsn;
        e.disk_len = r.disk_len;
        e.aborted = rng_next(&w->rng) % 10 == 0;
        if (e.aborted)
            scree__log_abort(w->log, writer, &r);
        else
            scree__log_complete(w->log, writer);
        entry_add(w, &e);
        if (rng_next(&w->rng) % 64 == 0) {
            CHECK(scree__log_wait_stable(w->log, e.lsn + e.disk_len, UINT64_MAX) == 0);
            CHECK(scree__log_stable(w->log) >= e.lsn + e.disk_len);
            w->acked = e.lsn + e.disk_len;
        } else if (rng_next(&w->rng) % 64 == 0) {
            scree__log_request_stable(w->log, e.lsn + e.disk_len);
        }
        if (rng_next(&w->rng) % 32 == 0)
            read_back(w);
        CHECK(scree__log_settled(w->log) <= scree__log_tail(w->log));
    }
    scree__log_writer_detach(w->log, writer);
    return NULL;
}

/* ---- the scan after a round, against what the threads know ----------------------------------- */

struct expected {
    struct entry *entry;
    size_t n, at;
};

static int
entry_compare(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    return x->lsn < y->lsn ? -1 : x->lsn > y->lsn;
}

static int
check_record(struct expected *x, const struct scree__record *r)
{
    static uint8_t payload[PAYLOAD_MAX];

    if (r->kind == SCREE__RECORD_SEAL || r->kind == SCREE__RECORD_PAD)
        return 0;
    CHECK(x->at < x->n);
    const struct entry *e = &x->entry[x->at++];

    CHECK(r->lsn == e->lsn); /* 1, 2 */
    CHECK(r->disk_len == e->disk_len);
    CHECK(r->page == e->page);
    CHECK((r->kind == SCREE__RECORD_ABORTED) == e->aborted);
    if (!e->aborted) {
        payload_fill(payload, e->payload_len, e->seed);
        CHECK(r->payload_len == e->payload_len);
        CHECK(memcmp(r->payload, payload, e->payload_len) == 0);
        CHECK(r->version == ((e->seed & 7) == 0 ? e->seed : r->lsn + r->disk_len));
    }
    return 0;
}

static int
check_records(void *ctx, unsigned who, const struct scree__record *r, size_t n)
{
    CHECK(who == 0);
    for (size_t i = 0; i < n; i++)
        CHECK(check_record(ctx, &r[i]) == 0);
    return 0;
}

static void
check_round(struct scree__log *log, uint64_t from, uint64_t stable_before, struct expected *x,
            uint64_t acked, bool clean, struct scree__log_scan_result *scan)
{
    struct scree__log_found found;

    scree__log_found(log, &found);
    CHECK(found.clean == clean);
    CHECK(scree__log_scan(log, from, stable_before, check_records, x, 1, scan) == 0);
    CHECK(scan->end >= acked); /* 3 */
    if (clean)
        CHECK(x->at == x->n);
    if (x->at < x->n)
        CHECK(x->entry[x->at].lsn >= scan->end); /* 2 */
}

static struct expected
workers_join(struct worker *w, unsigned threads, uint64_t *acked)
{
    struct expected x = {0};

    for (unsigned i = 0; i < threads; i++) {
        CHECK(pthread_join(w[i].thread, NULL) == 0);
        x.n += w[i].n;
        *acked = w[i].acked > *acked ? w[i].acked : *acked;
    }
    x.entry = malloc((x.n + 1) * sizeof *x.entry);
    CHECK(x.entry != NULL);
    x.n = 0;
    for (unsigned i = 0; i < threads; i++) {
        if (w[i].n > 0)
            memcpy(x.entry + x.n, w[i].entry, w[i].n * sizeof *x.entry);
        x.n += w[i].n;
        free(w[i].entry);
    }
    qsort(x.entry, x.n, sizeof *x.entry, entry_compare);
    return x;
}

static struct scree__log *
log_make(const char *dir, uint64_t rng)
{
    struct scree__log_options o = {.env = scree_env_posix(),
                                   .dir = dir,
                                   .segment_bytes = SEGMENT_BYTES,
                                   .ring_bytes = RING_BYTES,
                                   .flush_interval_ms = rng & 1 ? 5 : 0,
                                   .io_mode = rng & 2 ? SCREE_IO_BUFFERED : SCREE_IO_AUTO};
    struct scree__log *log;

    memcpy(o.uuid, "stress of scree.", 16);
    CHECK(scree__log_create(&o, &log) == 0);
    return log;
}

static void
sleep_until_stop(_Atomic bool *stop, uint64_t ns)
{
    (void)usleep((useconds_t)(ns / 1000));
    atomic_store_explicit(stop, true, memory_order_relaxed);
}

/* One opening, one round of work, one end. Takes and returns what the next opening has to find. */
static struct expected
run_round(struct scree__log *log, unsigned threads, uint64_t *rng, uint64_t *acked, bool clean)
{
    struct worker *w = calloc(threads, sizeof *w);
    _Atomic bool stop = false;

    CHECK(w != NULL);
    for (unsigned i = 0; i < threads; i++) {
        w[i] = (struct worker){.log = log, .rng = rng_next(rng), .page = i + 1, .stop = &stop};
        CHECK(pthread_create(&w[i].thread, NULL, worker_main, &w[i]) == 0);
    }
    sleep_until_stop(&stop, rng_next(rng) % ROUND_NS);
    struct expected x = workers_join(w, threads, acked);

    if (scree__log_stable(log) > *acked)
        *acked = scree__log_stable(log);
    if (clean) {
        CHECK(scree__log_stop(log) == 0 && scree__log_close_clean(log) == 0);
        *acked = scree__log_tail(log);
    }
    free(w);
    return x;
}

static void
collect(struct scree__log *log, uint64_t floor)
{
    struct scree__log_stats stats;

    for (size_t picked; (picked = scree__log_dead_pick(log, floor, true)) > 0;)
        CHECK(scree__log_dead_drop(log) == picked);
    scree__log_stats(log, &stats);
    CHECK(stats.space.live_bytes == 0);
    /* 6: the one that holds the end, one that a jump made, and room ahead: the reserve of two and some. */
    CHECK(stats.space.segments <= 5);
}

int
main(int argc, char **argv)
{
    seed_given = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    double seconds = argc > 2 ? atof(argv[2]) : 5;
    unsigned threads = argc > 3 ? (unsigned)atoi(argv[3]) : 4;
    uint64_t rng = seed_given, from = 0, stable_before = 0, acked = 0, records = 0, crashes = 0;
    struct expected x = {0};
    bool clean = true;
    char dir[KIT_PATH_MAX];
    const scree_env *env = scree_env_posix();
    uint64_t until = env->now_ns(NULL) + (uint64_t)(seconds * 1e9);

    kit_dir_name(dir, "log");
    CHECK(mkdir(dir, 0700) == 0);
    for (bool last = false; !last; round_now++) {
        struct scree__log_scan_result scan;
        struct scree__log *log = log_make(dir, rng_next(&rng));

        last = env->now_ns(NULL) >= until;
        check_round(log, from, stable_before, &x, acked, clean, &scan);
        uint64_t handed_out = x.n == 0 ? 0 : x.entry[x.n - 1].lsn + x.entry[x.n - 1].disk_len;

        free(x.entry);
        scree__log_recount_begin(log, scan.end, scan.end);
        CHECK(scree__log_start(log, &scan, stable_before) == 0);
        CHECK(scree__log_tail(log) >= handed_out); /* 4 */
        from = stable_before = scree__log_tail(log);
        collect(log, from);
        clean = last || rng_next(&rng) % 2 == 0;
        acked = from;
        x = run_round(log, threads, &rng, &acked, clean);
        records += x.n;
        crashes += !clean;
        clean = clean || !scree__log_dirty(log);
        scree__log_destroy(log);
    }
    printf("stress_log: seed %llu, %u rounds, %llu crashes, %llu records: ok\n", seed_given,
           round_now, (unsigned long long)crashes, (unsigned long long)records);
    free(x.entry);
    kit_dir_remove(dir);
    return 0;
}
