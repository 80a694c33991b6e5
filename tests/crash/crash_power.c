/*
 * crash_power.c - power cuts on real file systems: ext4 and xfs, whose shutdown ioctl makes vanish what was not
 * synced.
 *
 * GOAL      P1 to P3, P6 and P9 where they are meant: after a cut at any moment (under load, while opening,
 *           while recovering, behind what a call promised when it returned) the directory is a prefix of the
 *           log that holds all that was acknowledged; versions and ids never come again; and so on from there.
 * METHOD    an image on a loop device (loop_fs.h). A child opens the directory and writes in THREADS threads:
 *           puts, fragments, frees, chosen ids, batches, waiting for stable in three ways, with segments of 64
 *           KiB, snapshots, cleaning, compression, with O_DIRECT and without, with room for holes and without.
 *           At a random moment the file system is shut down; the child may go on for a while (and tell that it
 *           is poisoned), is killed or closes; unmount, mount, verify, open, check. The next round goes on in
 *           the same directory, every eighth in a new one. In every fourth round the cut comes right after
 *           open, close, snapshot, flush, backup or salvage has returned.
 * ORACLE    what a thread does in its n-th operation, and what its pages hold after n of them, are functions of
 *           n and of the epoch (the cut) it was done in: of each thread just the first k must be there, k at
 *           least what was acknowledged; the largest version there must be below the smallest of those that are
 *           not; nobody may know (each operation writes what it knows of the next thread) of what is not there;
 *           the recovery fold must have seen each payload once, in order.
 *           An ext4 that finds itself damaged behind its own recovery (seen once in a thousand cuts: an extent
 *           tree with an empty leaf) makes a cut void, which is told; more than three of them are a failure.
 * NOT HERE  disks that reorder or tear (the simulator), every call one by one (crash_recovery), full disks
 *           (crash_tmpfs_full).
 *
 * crash_power [seed] [cuts of each file system] [ext4 | xfs | all] [promises]
 *   promises: no cuts but those right after a call.
 * crash_power run ext4|xfs MIB COMMAND...
 *   Runs the command with SCREE_TEST_DIR and TMPDIR on such a file system.
 *   Status 77 if there is no root, no loop device, no mkfs or no such file system; why is printed.
 *
 * WORD   done[t], stable[t]: operations of a thread that returned, that were acknowledged; version[t][n]:
 *        relaxed, published by done. opened, promised: release. cutting: store release before the ioctl, load
 *        acquire; leave: relaxed.
 * EDGES  those; the checker reads when the child is gone.
 * LIFETIME  shared memory of the run.   PROGRESS  every child has an alarm.   FAILURE  the run ends.
 */
#include "support/loop_fs.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 4u
#define PAGES 16u /* a thread */
#define CHUNKS_MAX 12u
#define PAYLOAD_MAX 1500u
#define PAGE_MAX (CHUNKS_MAX * PAYLOAD_MAX)
#define RING 65536u /* versions kept: more than one round makes */
#define EPOCHS_MAX 16u
#define FRESH_EVERY 8u
#define VOIDED_MAX 3u /* cuts that an ext4 did not survive itself */
#define ALARM_SECONDS 100u
#define MOMENT_MS 300u /* under load, at most */
#define EXT4_BYTES (96ull << 20)
#define XFS_BYTES (320ull << 20) /* mkfs makes none below 300 MiB */

enum promise {
    PROMISE_NONE,
    PROMISE_OPEN,
    PROMISE_CLOSE,
    PROMISE_SNAPSHOT,
    PROMISE_FLUSH,
    PROMISE_BACKUP,
    PROMISE_SALVAGE,
    PROMISES
};
static const char *const promise_names[PROMISES] = {"load",  "open",   "close",  "snapshot",
                                                    "flush", "backup", "salvage"};

static struct shared {
    _Atomic uint64_t done[THREADS], stable[THREADS];
    _Atomic uint64_t id_max;
    _Atomic bool opened, promised, cutting, leave;
    struct { /* what had been told when the power went */
        uint64_t done[THREADS], stable[THREADS], id_max;
        bool opened;
    } cut;
    uint64_t snapshot_lsn; /* told */
    uint64_t version_max;  /* of all that were ever told in this directory */
    uint64_t version[THREADS][RING];
    uint64_t found[THREADS]; /* operations there after the last cut */
    uint64_t epochs;
    uint64_t epoch_start[EPOCHS_MAX][THREADS]; /* the epoch's operations are those above */
    bool exists;                               /* an open of this directory has returned */
} * shared;

static uint64_t seed, random_state;
static bool promises_only;
static scree_options options;
static scree_cache *cache;
static char dir[KIT_PATH_MAX], copy[KIT_PATH_MAX];
static _Atomic bool stop; /* relaxed: read again at the next operation */
static struct loop_fs fs;

/* In front of each payload. */
struct stamp {
    uint64_t thread, op, epoch;
    uint64_t seen; /* what the next thread had done */
    uint64_t len;  /* with this */
};

/* ---- operations: functions of thread, number and epoch ------------------------------------------ */

enum action { ACTION_NONE, ACTION_PUT, ACTION_APPEND, ACTION_FREE, ACTION_ALLOCATE };

struct step {
    enum action action;
    unsigned page;
};

struct op {
    bool batch;
    struct step step[2];
};

/* A thread's pages after some of its operations. */
struct stream {
    uint64_t thread, number;
    uint64_t payload_last; /* the newest operation that wrote one */
    struct page {
        uint32_t n; /* chunks; 0: not live */
        uint64_t chunk[CHUNKS_MAX];
    } page[PAGES];
};

static uint64_t
epoch_of(uint64_t thread, uint64_t number)
{
    uint64_t epoch = shared->epochs;

    while (shared->epoch_start[epoch][thread] >= number)
        epoch--;
    return epoch;
}

static enum action
action_of(const struct page *p, uint64_t draw)
{
    if (p->n == 0)
        return ACTION_ALLOCATE;
    if (draw < 1)
        return ACTION_FREE;
    return draw < 9 && p->n < CHUNKS_MAX ? ACTION_APPEND : ACTION_PUT;
}

/* A payload's length; its chunk is found again by the number alone. */
static size_t
payload_len(uint64_t thread, uint64_t number)
{
    uint64_t state = seed * 77 + thread * 7919 + number * 104729 + epoch_of(thread, number) * 31;

    if (kit_below(&state, 4) != 0)
        return sizeof(struct stamp) + kit_below(&state, 60);
    return sizeof(struct stamp) + kit_below(&state, PAYLOAD_MAX - sizeof(struct stamp));
}

static struct op
op_next(const struct stream *s)
{
    uint64_t number = s->number + 1;
    uint64_t epoch = epoch_of(s->thread, number);
    uint64_t state = seed * 1000003 + s->thread * 7919 + number * 104729 + epoch * 65537;
    struct op op = {.batch = kit_below(&state, 4) == 0};

    op.step[0].page = (unsigned)kit_below(&state, PAGES);
    op.step[0].action = action_of(&s->page[op.step[0].page], kit_below(&state, 16));
    if (op.batch) {
        op.step[1].page = (op.step[0].page + 1 + (unsigned)kit_below(&state, PAGES - 1)) % PAGES;
        op.step[1].action = action_of(&s->page[op.step[1].page], kit_below(&state, 16));
    }
    return op;
}

static void
stream_apply(struct stream *s, const struct op *op)
{
    s->number++;
    for (unsigned i = 0; i < (op->batch ? 2u : 1u); i++) {
        struct page *p = &s->page[op->step[i].page];

        if (op->step[i].action != ACTION_APPEND)
            p->n = 0;
        if (op->step[i].action == ACTION_FREE)
            continue;
        p->chunk[p->n++] = s->number;
        s->payload_last = s->number;
    }
}

static void
stream_to(struct stream *s, uint64_t thread, uint64_t number)
{
    *s = (struct stream){.thread = thread};
    while (s->number < number) {
        struct op op = op_next(s);

        stream_apply(s, &op);
    }
}

static scree_page_id
page_id(uint64_t thread, unsigned page)
{
    return 100 + thread * PAGES + page;
}

static scree_slice
payload_make(unsigned char bytes[PAYLOAD_MAX], uint64_t thread, uint64_t number, uint64_t seen)
{
    struct stamp stamp = {thread, number, epoch_of(thread, number), seen,
                          payload_len(thread, number)};

    memcpy(bytes, &stamp, sizeof(stamp));
    for (size_t i = sizeof(stamp); i < stamp.len; i++)
        bytes[i] = (unsigned char)((number * 31 + i * 7 + thread + stamp.epoch) % 251);
    return kit_slice(bytes, (size_t)stamp.len);
}

/* ---- the recovery fold: each payload once, in order --------------------------------------------- */

struct fold {
    uint64_t last[THREADS];
    uint64_t bad;
};

static int
fold_add(void *ctx, scree_page_id id, scree_slice frag, scree_slice state, scree_out *out)
{
    struct fold fold = {.bad = 0};
    struct stamp stamp;

    (void)ctx;
    if (frag.len < sizeof(stamp) || id < page_id(0, 0))
        return 0;
    memcpy(&stamp, frag.data, sizeof(stamp));
    if (state.len == sizeof(fold))
        memcpy(&fold, state.data, sizeof(fold));
    /* A batch has two of them. */
    fold.bad += stamp.thread >= THREADS || fold.last[stamp.thread % THREADS] > stamp.op;
    fold.last[stamp.thread % THREADS] = stamp.op;
    return scree_out_append(out, &fold, sizeof(fold)) == 0 ? 1 : -1;
}

static void
fold_get(scree_cache *of, struct fold *fold_out)
{
    scree_slice state;

    *fold_out = (struct fold){.bad = 0};
    KIT_CHECK(scree_recovery_state(of, &state) == 0, "recovery_state");
    KIT_CHECK(state.len == 0 || state.len == sizeof(*fold_out), "a state of %zu bytes", state.len);
    if (state.len != 0)
        memcpy(fold_out, state.data, sizeof(*fold_out));
    KIT_CHECK(fold_out->bad == 0, "the fold saw %" PRIu64 " payloads out of order", fold_out->bad);
}

/* ---- the child: load ---------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    uint64_t random;
    struct stream stream;
    scree_version version[PAGES];
};
static struct worker workers[THREADS];
static pthread_t tidier;

static int
step_run(struct worker *w, const struct step *step, scree_slice payload)
{
    scree_version *version = &w->version[step->page];
    scree_page_id id = page_id(w->stream.thread, step->page);
    int code;

    switch (step->action) {
    case ACTION_PUT:
        if (payload.len % 2 == 0)
            return scree_page_put(cache, id, payload, version);
        return scree_page_set(cache, id, version, payload);
    case ACTION_APPEND:
        if (payload.len % 2 == 0)
            return scree_page_append(cache, id, payload, version);
        return scree_page_merge(cache, id, version, payload);
    case ACTION_FREE:
        return scree_page_free(cache, id, version);
    default:
        while ((code = scree_page_allocate_at(cache, id, payload, version)) == SCREE_E_BUSY)
            usleep(200);
        return code;
    }
}

static int
batch_step(struct worker *w, scree_batch *batch, const struct step *step, scree_slice payload)
{
    scree_page_id id = page_id(w->stream.thread, step->page);

    switch (step->action) {
    case ACTION_PUT:
        return scree_batch_set(batch, id, w->version[step->page], payload);
    case ACTION_APPEND:
        return scree_batch_merge(batch, id, w->version[step->page], payload);
    case ACTION_FREE:
        return scree_batch_free(batch, id, w->version[step->page]);
    default:
        return scree_batch_allocate_at(batch, id, payload);
    }
}

static int
batch_run(struct worker *w, const struct op *op, scree_slice payload)
{
    scree_batch *batch;
    scree_lsn lsn;
    int code;

    do {
        code = scree_batch_begin(cache, &batch);
        for (unsigned i = 0; i < 2 && code == 0; i++) {
            code = batch_step(w, batch, &op->step[i], payload);
            if (code != 0)
                scree_batch_abort(batch);
        }
        if (code != 0)
            return code;
        code = scree_batch_commit(batch, &lsn, NULL);
        if (code == SCREE_E_BUSY) /* an id that was freed just now */
            usleep(200);
    } while (code == SCREE_E_BUSY);
    if (code == 0)
        w->version[op->step[0].page] = w->version[op->step[1].page] = lsn;
    return code;
}

/* Only the power going may be an error, and then it is said so. */
static bool
went(int code, const char *what)
{
    if (code == 0)
        return true;
    KIT_CHECK(atomic_load_explicit(&shared->cutting, memory_order_acquire), "%s gave %d %s (%s)",
              what, code, kit_code_name(code), scree_error_detail());
    KIT_CHECK(code != SCREE_E_CORRUPT && code != SCREE_E_NOT_FOUND && code != SCREE_E_CONFLICT,
              "after the cut %s gave %s (%s)", what, kit_code_name(code), scree_error_detail());
    return false;
}

static void
acknowledge(uint64_t thread, uint64_t number)
{
    if (atomic_load_explicit(&shared->stable[thread], memory_order_relaxed) < number)
        atomic_store_explicit(&shared->stable[thread], number, memory_order_release);
}

/* Thread 0 waits for each of its operations; the others gather. */
static bool
stable_ask(struct worker *w)
{
    uint64_t thread = w->stream.thread, number = w->stream.number;
    uint64_t draw = kit_below(&w->random, 64);
    uint64_t version = shared->version[thread][number % RING];
    uint64_t id;

    if (draw == 0) {
        if (!went(scree_flush(cache, NULL), "flush"))
            return false;
    } else if (thread == 0 || draw < 8) {
        if (!went(scree_wait_stable(cache, version, -1), "wait_stable"))
            return false;
    } else if (draw < 12) {
        if (!went(scree_id_next(cache, &id), "id_next"))
            return false;
        for (uint64_t max = atomic_load_explicit(&shared->id_max, memory_order_relaxed); max < id;)
            if (atomic_compare_exchange_weak_explicit(&shared->id_max, &max, id,
                                                      memory_order_relaxed, memory_order_relaxed))
                break;
        return true;
    } else if (scree_stable_lsn(cache) < version) {
        return true;
    }
    acknowledge(thread, number);
    return true;
}

static bool
worker_step(struct worker *w)
{
    unsigned char bytes[PAYLOAD_MAX];
    struct stream *s = &w->stream;
    struct op op = op_next(s);
    /* Acquire: what the other one had done lies before what we do now. */
    uint64_t seen =
        atomic_load_explicit(&shared->done[(s->thread + 1) % THREADS], memory_order_acquire);
    scree_slice payload = payload_make(bytes, s->thread, s->number + 1, seen);
    int code = op.batch ? batch_run(w, &op, payload) : step_run(w, &op.step[0], payload);

    if (!went(code, "an update"))
        return false;
    stream_apply(s, &op);
    shared->version[s->thread][s->number % RING] = w->version[op.step[0].page];
    atomic_store_explicit(&shared->done[s->thread], s->number, memory_order_release);
    return stable_ask(w);
}

static void *
worker_run(void *argument)
{
    struct worker *w = argument;

    while (!atomic_load_explicit(&stop, memory_order_relaxed) && worker_step(w)) {
    }
    return NULL;
}

/* Snapshots, and everything that may be given back is. */
static void *
tidier_run(void *argument)
{
    uint64_t random = seed ^ 99;

    (void)argument;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        usleep((useconds_t)kit_below(&random, 15000));
        if (!went(kit_below(&random, 2) == 0 ? scree_snapshot(cache, NULL)
                                             : scree_reclaim(cache, 1.2, NULL, NULL),
                  "snapshot or reclaim"))
            return NULL;
    }
    return NULL;
}

/* What is there is known from the last check, and durable, as an open has returned since. */
static bool
workers_make(void)
{
    for (unsigned t = 0; t < THREADS; t++) {
        struct worker *w = &workers[t];

        w->random = seed * 1000 + shared->epochs * 10 + t;
        stream_to(&w->stream, t, shared->found[t]);
        for (unsigned i = 0; i < PAGES; i++) {
            unsigned char bytes[PAGE_MAX];
            int code = scree_page_read(cache, page_id(t, i), bytes, PAGE_MAX, NULL, &w->version[i]);

            if (!went(code == SCREE_E_NOT_FOUND && w->stream.page[i].n == 0 ? 0 : code, "a read"))
                return false;
        }
    }
    return true;
}

/* ---- the child: promises ------------------------------------------------------------------------ */

static void
promise_keep(enum promise promise)
{
    scree_lsn lsn = 0;
    bool closed = promise == PROMISE_CLOSE || promise == PROMISE_SALVAGE;

    if (promise == PROMISE_SNAPSHOT)
        KIT_CHECK(scree_snapshot(cache, &lsn) == 0, "snapshot: %s", scree_error_detail());
    if (promise == PROMISE_FLUSH)
        KIT_CHECK(scree_flush(cache, NULL) == 0, "flush: %s", scree_error_detail());
    if (promise == PROMISE_BACKUP)
        KIT_CHECK(scree_backup(cache, copy, 0, NULL, NULL) == 0, "backup: %s",
                  scree_error_detail());
    if (closed)
        KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
    if (promise == PROMISE_SALVAGE)
        KIT_CHECK(scree_salvage(dir, copy, &options, NULL, NULL, NULL) == 0, "salvage: %s",
                  scree_error_detail());
    shared->snapshot_lsn = lsn;
    for (unsigned t = 0; t < THREADS && (closed || promise == PROMISE_FLUSH); t++)
        acknowledge(t, workers[t].stream.number);
}

/* One thread does what all do, then makes the call, and waits for the cut. */
static void
promise_run(enum promise promise, uint64_t steps)
{
    if (promise != PROMISE_OPEN) {
        for (uint64_t i = 0; i < steps * THREADS; i++)
            (void)worker_step(&workers[i % THREADS]);
        promise_keep(promise);
    }
    atomic_store_explicit(&shared->promised, true, memory_order_release);
    for (;;)
        pause();
}

static void
load_run(void)
{
    int code;

    for (unsigned t = 0; t < THREADS; t++)
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, worker_run, &workers[t]) == 0, "thread");
    KIT_CHECK(pthread_create(&tidier, NULL, tidier_run, NULL) == 0, "thread");
    while (!atomic_load_explicit(&shared->leave, memory_order_relaxed))
        usleep(500);
    /* The power is gone: nobody may hang. */
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned t = 0; t < THREADS; t++)
        pthread_join(workers[t].thread, NULL);
    pthread_join(tidier, NULL);
    code = scree_close(cache);
    KIT_CHECK(code != SCREE_E_BUSY, "close: %s", scree_error_detail());
    if (code == 0) /* it went without a write */
        for (unsigned t = 0; t < THREADS; t++)
            acknowledge(t, workers[t].stream.number);
}

static void
child_run(enum promise promise, uint64_t steps)
{
    int code;

    alarm(ALARM_SECONDS);
    options.flags |= shared->exists ? 0 : SCREE_CREATE;
    code = scree_open(dir, &options, &cache);
    if (!went(code, "open"))
        return;
    if (!workers_make())
        return;
    atomic_store_explicit(&shared->opened, true, memory_order_release);
    if (promise != PROMISE_NONE)
        promise_run(promise, steps);
    load_run();
}

/* ---- the checker: in a process of its own, after each cut --------------------------------------- */

struct found {
    unsigned char bytes[PAGE_MAX];
    size_t len;
    scree_version version;
    bool live;
};

/* Is the page as after these operations? If not, why. */
static bool
page_is(const struct stream *s, unsigned page, const struct found *f, char why[256])
{
    const struct page *p = &s->page[page];
    size_t at = 0;

    snprintf(why, 256, "page %u is %slive after operation %" PRIu64, page, f->live ? "" : "not ",
             s->number);
    if (f->live != (p->n > 0))
        return false;
    for (uint32_t i = 0; i < p->n; i++) {
        unsigned char bytes[PAYLOAD_MAX];
        size_t len = payload_len(s->thread, p->chunk[i]);
        struct stamp stamp = {.seen = 0};

        if (f->len - at >= sizeof(stamp))
            memcpy(&stamp, f->bytes + at, sizeof(stamp));
        snprintf(why, 256,
                 "page %u: chunk %u is not operation %" PRIu64 ", but %" PRIu64 " of epoch %" PRIu64
                 " (after %" PRIu64 ")",
                 page, i, p->chunk[i], stamp.op, stamp.epoch, s->number);
        (void)payload_make(bytes, s->thread, p->chunk[i], stamp.seen);
        if (f->len < at + len || memcmp(bytes, f->bytes + at, len) != 0)
            return false;
        at += len;
    }
    snprintf(why, 256, "page %u is too long", page);
    return !f->live || at == f->len;
}

static bool
pages_are(const struct stream *s, const struct found *found, char why[256])
{
    for (unsigned i = 0; i < PAGES; i++)
        if (!page_is(s, i, &found[i], why))
            return false;
    return true;
}

/* The newest operation that pages name. */
static uint64_t
newest_of(const struct found *found, uint64_t *seen_io)
{
    uint64_t newest = 0;

    for (unsigned i = 0; i < PAGES; i++) {
        for (size_t at = 0; at < found[i].len && found[i].live;) {
            struct stamp stamp;

            KIT_CHECK(found[i].len - at >= sizeof(stamp), "a broken page");
            memcpy(&stamp, found[i].bytes + at, sizeof(stamp));
            KIT_CHECK(stamp.len >= sizeof(stamp) && stamp.len <= found[i].len - at,
                      "a broken page");
            newest = stamp.op > newest ? stamp.op : newest;
            *seen_io = stamp.seen > *seen_io ? stamp.seen : *seen_io;
            at += (size_t)stamp.len;
        }
    }
    return newest;
}

/* How many of the thread's operations are there. Pages name the newest, but for what was freed again; the fold
   has seen the newest payload, and frees behind it leave no doubt. */
static void
stream_find(struct stream *s, uint64_t thread, const struct found *found, uint64_t payload_last,
            uint64_t *seen_io)
{
    uint64_t newest = newest_of(found, seen_io);
    uint64_t done = atomic_load_explicit(&shared->done[thread], memory_order_relaxed);
    char why[256] = "";

    KIT_CHECK(newest <= done + 1, "thread %" PRIu64 ": operation %" PRIu64 " was not begun", thread,
              newest);
    stream_to(s, thread, newest);
    while (s->payload_last < payload_last && s->number <= done) {
        struct op op = op_next(s);

        stream_apply(s, &op);
    }
    KIT_CHECK(s->payload_last == payload_last,
              "thread %" PRIu64 ": the fold ends at operation %" PRIu64 ", the pages at %" PRIu64,
              thread, payload_last, s->payload_last);
    while (!pages_are(s, found, why)) {
        struct op op = op_next(s);
        bool frees = op.step[0].action == ACTION_FREE &&
                     (!op.batch || op.step[1].action == ACTION_FREE) && s->number <= done;

        KIT_CHECK(frees, "thread %" PRIu64 " %s", thread, why);
        stream_apply(s, &op);
    }
}

/* The order of the log: all versions that are there are below all that are not. */
static void
order_check(const struct stream *streams, uint64_t version_there)
{
    uint64_t missing = UINT64_MAX;

    for (unsigned t = 0; t < THREADS; t++) {
        uint64_t done = atomic_load_explicit(&shared->done[t], memory_order_relaxed);
        uint64_t k = streams[t].number;
        const uint64_t *version = shared->version[t];

        if (k > shared->found[t] && k <= done && version[k % RING] > version_there)
            version_there = version[k % RING];
        if (k < done && version[(k + 1) % RING] < missing)
            missing = version[(k + 1) % RING];
        done = shared->cut.done[t];
        if (k < done && version[done % RING] > shared->version_max)
            shared->version_max = version[done % RING];
    }
    KIT_CHECK(version_there < missing,
              "no prefix: version %" PRIu64 " is there, %" PRIu64 " is not", version_there,
              missing);
    if (version_there > shared->version_max)
        shared->version_max = version_there;
}

static void
pages_read(scree_cache *of, unsigned thread, struct found *found, uint64_t *version_io)
{
    for (unsigned i = 0; i < PAGES; i++) {
        int code = scree_page_read(of, page_id(thread, i), found[i].bytes, PAGE_MAX, &found[i].len,
                                   &found[i].version);

        KIT_CHECK(code == 0 || code == SCREE_E_NOT_FOUND, "thread %u page %u: %d (%s)", thread, i,
                  code, scree_error_detail());
        found[i].live = code == 0;
        if (found[i].live && found[i].version > *version_io)
            *version_io = found[i].version;
    }
}

/* Of each thread the first so many operations, least[] of them at least. */
static void
state_check(scree_cache *of, struct stream streams[THREADS], const uint64_t least[THREADS],
            bool in_order)
{
    static struct found found[PAGES];
    uint64_t seen[THREADS] = {0}, version = 0;
    scree_recovery_info info = {.size = sizeof(info)};
    struct fold fold;

    KIT_CHECK(scree_recovery(of, &info) == 0, "recovery");
    fold_get(of, &fold);
    for (unsigned t = 0; t < THREADS; t++) {
        pages_read(of, t, found, &version);
        stream_find(&streams[t], t, found, fold.last[t], &seen[t]);
        KIT_CHECK(streams[t].number >= least[t],
                  "thread %u: %" PRIu64 " operations are there, %" PRIu64
                  " were acknowledged, the last with version %" PRIu64 " (%" PRIu64
                  " done); the log ended at %" PRIu64 ", %" PRIu64 " bytes were torn, I/O mode %d",
                  t, streams[t].number, least[t], shared->version[t][least[t] % RING],
                  atomic_load_explicit(&shared->done[t], memory_order_relaxed), info.stable_lsn,
                  info.torn_bytes, options.io_mode);
    }
    for (unsigned t = 0; t < THREADS; t++)
        KIT_CHECK(streams[(t + 1) % THREADS].number >= seen[t],
                  "thread %u knows of operation %" PRIu64
                  " of the next one, of which there are %" PRIu64,
                  t, seen[t], streams[(t + 1) % THREADS].number);
    if (in_order)
        order_check(streams, version);
}

/* What comes now was never told before. */
static void
fresh_check(void)
{
    scree_version version = 0;
    uint64_t id = 0;

    KIT_CHECK(scree_page_put(cache, SCREE_PAGE_ROOT, kit_slice("x", 1), &version) == 0,
              "a put after the cut: %s", scree_error_detail());
    KIT_CHECK(version > shared->version_max,
              "version %" PRIu64 " is told after %" PRIu64 " was before the cut", version,
              shared->version_max);
    shared->version_max = version;
    KIT_CHECK(scree_id_next(cache, &id) == 0, "id_next: %s", scree_error_detail());
    KIT_CHECK(id > shared->cut.id_max, "id %" PRIu64 " after %" PRIu64, id, shared->cut.id_max);
    atomic_store_explicit(&shared->id_max, id, memory_order_relaxed);
}

static void
promise_check(enum promise promise, const struct stream *now)
{
    scree_recovery_info info = {.size = sizeof(info)};
    static struct stream streams[THREADS];
    scree_cache *made;
    scree_options o = options;
    uint64_t least[THREADS];

    if (!atomic_load_explicit(&shared->promised, memory_order_relaxed))
        return;
    KIT_CHECK(scree_recovery(cache, &info) == 0, "recovery");
    if (promise == PROMISE_CLOSE || promise == PROMISE_SALVAGE)
        KIT_CHECK(info.clean == 1 && info.torn_bytes == 0, "it was closed, and is not clean");
    if (promise == PROMISE_SNAPSHOT)
        KIT_CHECK(info.snapshot_lsn >= shared->snapshot_lsn,
                  "a snapshot from %" PRIu64 " was taken, it is one from %" PRIu64,
                  shared->snapshot_lsn, info.snapshot_lsn);
    if (promise != PROMISE_BACKUP && promise != PROMISE_SALVAGE)
        return;
    for (unsigned t = 0; t < THREADS; t++)
        least[t] = atomic_load_explicit(&shared->done[t], memory_order_relaxed);
    o.flags &= ~(uint32_t)SCREE_CREATE;
    kit_verify(copy, &options);
    KIT_CHECK(scree_open(copy, &o, &made) == 0, "opening the copy: %s", scree_error_detail());
    KIT_CHECK(scree_recovery(made, &info) == 0 && info.clean == 1, "the copy is not clean");
    state_check(made, streams, least, false);
    KIT_CHECK(promise == PROMISE_BACKUP || streams[0].number == now[0].number, "another one");
    KIT_CHECK(scree_close(made) == 0, "closing the copy: %s", scree_error_detail());
}

static void
checker_run(enum promise promise, bool closes)
{
    static struct stream streams[THREADS];

    alarm(ALARM_SECONDS);
    shared->exists |= shared->cut.opened;
    options.flags |= shared->exists ? 0 : SCREE_CREATE;
    if (shared->exists)
        kit_verify(dir, &options);
    KIT_CHECK(scree_open(dir, &options, &cache) == 0, "open after the cut: %s",
              scree_error_detail());
    state_check(cache, streams, shared->cut.stable, true);
    promise_check(promise, streams);
    fresh_check();
    shared->exists = true;
    shared->epochs++;
    for (unsigned t = 0; t < THREADS; t++) {
        shared->found[t] = shared->epoch_start[shared->epochs][t] = streams[t].number;
        atomic_store_explicit(&shared->done[t], streams[t].number, memory_order_relaxed);
        atomic_store_explicit(&shared->stable[t], streams[t].number, memory_order_relaxed);
    }
    if (closes)
        KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
    fflush(stdout);
    _exit(0);
}

/* ---- rounds ------------------------------------------------------------------------------------- */

static struct {
    uint64_t cuts, promises[PROMISES], early, lost, acknowledged, ops, ended, voided;
} figures;
static bool fresh_due; /* the next round needs a new directory: the file system is new */

static void
round_options(void)
{
    static const scree_materializer folding = {
        .size = sizeof(folding), .name = "power", .version = 1, .recover = fold_add};
    static scree_materializer materializer;

    materializer = folding;
    materializer.merge = kit_concat.merge;
    kit_options_small(&options, &materializer);
    options.flags = kit_below(&random_state, 6) == 0 ? SCREE_NO_PUNCH : 0;
    options.cache_bytes = 96 * 1024;
    options.log_buffer_bytes = 256 * 1024;
    options.page_bytes_max = PAGE_MAX;
    options.snapshot_log_bytes = kit_below(&random_state, 2) == 0 ? 0 : 48 * 1024;
    options.flush_interval_ms = (uint32_t)kit_below(&random_state, 3) * 3;
    options.compression_level = kit_below(&random_state, 4) == 0;
    options.io_mode = kit_below(&random_state, 3) == 0 ? SCREE_IO_BUFFERED : SCREE_IO_AUTO;
}

/* A new directory; the one before goes. */
static void
fresh_begin(uint64_t round)
{
    if (round > 0)
        kit_dir_remove(dir);
    memset(shared, 0, sizeof(*shared));
    snprintf(dir, sizeof(dir), "%.*s/pages-%" PRIu64, KIT_PATH_MAX - 32, fs.mount_point, round);
}

static void
sleep_us(uint64_t us)
{
    struct timespec pause = {.tv_sec = (time_t)(us / 1000000),
                             .tv_nsec = (long)(us % 1000000 * 1000)};

    nanosleep(&pause, NULL);
}

static uint64_t
done_now(void)
{
    uint64_t done = 0;

    for (unsigned t = 0; t < THREADS; t++)
        done += atomic_load_explicit(&shared->done[t], memory_order_acquire);
    return done;
}

/* Until the moment of the cut: by the clock, or by what was done. */
static void
moment_wait(pid_t child, enum promise promise, bool early)
{
    const _Atomic bool *wanted = promise == PROMISE_NONE ? &shared->opened : &shared->promised;
    uint64_t done = done_now() + kit_below(&random_state, 600);
    uint64_t until;
    int status;

    if (early) {
        sleep_us(kit_below(&random_state, 20000));
        return;
    }
    while (!atomic_load_explicit(wanted, memory_order_acquire)) {
        KIT_CHECK(waitpid(child, &status, WNOHANG) == 0, "the child failed");
        sleep_us(100);
    }
    if (promise != PROMISE_NONE)
        return;
    if (kit_below(&random_state, 4) == 0) {
        sleep_us(kit_below(&random_state, 5000));
        return;
    }
    until = kit_now_ms() + MOMENT_MS;
    while (done_now() < done && kit_now_ms() < until)
        sleep_us(50);
}

/*
 * Only what was told before counts. Afterwards the kernel's fdatasync may say 0 for what is not there: if the
 * file system is shut down while it runs, a failed conversion of an unwritten extent is not told (seen with
 * ext4 and xfs, buffered, by a program of twenty lines). When the power goes nobody is there to be lied to.
 */
static void
cut_note(void)
{
    for (unsigned t = 0; t < THREADS; t++) {
        shared->cut.stable[t] = atomic_load_explicit(&shared->stable[t], memory_order_acquire);
        shared->cut.done[t] = atomic_load_explicit(&shared->done[t], memory_order_acquire);
    }
    shared->cut.id_max = atomic_load_explicit(&shared->id_max, memory_order_acquire);
    shared->cut.opened = atomic_load_explicit(&shared->opened, memory_order_acquire);
    atomic_store_explicit(&shared->cutting, true, memory_order_release);
}

/* The child after the cut: killed at once, a little later, or it ends by itself. */
static void
child_end(pid_t child, bool leaves)
{
    int status = 0;

    if (leaves) {
        atomic_store_explicit(&shared->leave, true, memory_order_relaxed);
        figures.ended++;
        KIT_CHECK(kit_join(child) == 0, "the child failed");
        return;
    }
    sleep_us(kit_below(&random_state, 2) == 0 ? 0 : kit_below(&random_state, 8000));
    (void)kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    KIT_CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || status == 0,
              "the child ended with status %d", status);
}

static void
figures_add(enum promise promise, bool early)
{
    figures.cuts++;
    figures.early += early;
    figures.promises[promise]++;
    for (unsigned t = 0; t < THREADS; t++) {
        uint64_t done = atomic_load_explicit(&shared->done[t], memory_order_relaxed);

        figures.ops += done - shared->found[t];
        figures.acknowledged +=
            atomic_load_explicit(&shared->stable[t], memory_order_relaxed) - shared->found[t];
    }
}

/* The check failed. If the file system says that it is damaged itself, behind its own recovery, the cut tells
   nothing of the library, and the next one is of a new file system. Else that is the failure. */
static void
cut_is_void(enum promise promise)
{
    char why[256];

    KIT_CHECK(loop_fs_errors(&fs) > 0 && figures.voided < VOIDED_MAX,
              "the check after the cut failed (promise %s)", promise_names[promise]);
    printf("crash_power: [%s] void: %s found its own structures damaged when it came back; the "
           "kernel's log "
           "has more\n",
           kit_context, fs.kind);
    figures.cuts--;
    figures.voided++;
    loop_fs_end(&fs);
    KIT_CHECK(loop_fs_make(&fs, "ext4", EXT4_BYTES, why), "a new ext4: %s", why);
    fresh_due = true;
}

static void
round_run(uint64_t round)
{
    bool early = kit_below(&random_state, 8) == 0 && !promises_only;
    enum promise promise = !early && (promises_only || kit_below(&random_state, 4) == 0)
                               ? (enum promise)(1 + kit_below(&random_state, PROMISES - 1))
                               : PROMISE_NONE;
    bool leaves = promise == PROMISE_NONE && kit_below(&random_state, 4) == 0;
    enum loop_fs_cut cut = kit_below(&random_state, 4) == 0 ? LOOP_FS_CUT_LOGGED : LOOP_FS_CUT_ALL;
    uint64_t steps = kit_below(&random_state, 60), done, there = 0;
    pid_t child;

    if (round % FRESH_EVERY == 0 || fresh_due)
        fresh_begin(round);
    fresh_due = false;
    round_options();
    kit_dir_remove(copy);
    atomic_store_explicit(&shared->opened, false, memory_order_relaxed);
    atomic_store_explicit(&shared->promised, false, memory_order_relaxed);
    atomic_store_explicit(&shared->cutting, false, memory_order_relaxed);
    atomic_store_explicit(&shared->leave, false, memory_order_relaxed);
    child = kit_fork();
    if (child == 0) {
        child_run(promise, steps);
        fflush(stdout);
        _exit(0);
    }
    moment_wait(child, promise, early);
    cut_note();
    KIT_CHECK(loop_fs_cut(&fs, cut) == 0, "%s cannot be shut down", fs.kind);
    child_end(child, leaves);
    loop_fs_again(&fs);
    figures_add(promise, early);
    done = done_now();
    child = kit_fork();
    if (child == 0)
        checker_run(promise, kit_below(&random_state, 3) == 0);
    if (kit_join(child) != 0) {
        cut_is_void(promise);
        return;
    }
    for (unsigned t = 0; t < THREADS; t++)
        there += shared->found[t];
    figures.lost += done > there ? done - there : 0; /* what was under way may be there too */
}

/* 0, or LOOP_FS_SKIPPED. */
static int
file_system_run(const char *kind, uint64_t cuts)
{
    uint64_t bytes = kind[0] == 'x' ? XFS_BYTES : EXT4_BYTES;
    char why[256];

    if (!loop_fs_make(&fs, kind, bytes, why)) {
        printf("crash_power: SKIP: %s: %s\n", kind, why);
        return LOOP_FS_SKIPPED;
    }
    if (loop_fs_cut(&fs, LOOP_FS_CUT_ALL) != 0) {
        printf("crash_power: SKIP: %s has no shutdown ioctl here\n", kind);
        loop_fs_end(&fs);
        return LOOP_FS_SKIPPED;
    }
    loop_fs_again(&fs);
    snprintf(copy, sizeof(copy), "%.*s/copy", KIT_PATH_MAX - 32, fs.mount_point);
    memset(&figures, 0, sizeof(figures));
    random_state = seed * 31 + (unsigned char)kind[0];
    for (uint64_t round = 0; round < cuts; round++) {
        snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", %s, cut %" PRIu64, seed, kind,
                 round);
        round_run(round);
    }
    loop_fs_end(&fs);
    printf("crash_power: seed %" PRIu64 ", %s: %" PRIu64 " cuts (%" PRIu64
           " while opening, %" PRIu64 " closed after it;",
           seed, kind, figures.cuts, figures.early, figures.ended);
    for (unsigned i = 1; i < PROMISES; i++)
        printf(" %" PRIu64 " after %s", figures.promises[i], promise_names[i]);
    printf("), %" PRIu64 " void, %" PRIu64 " operations, %" PRIu64 " acknowledged, %" PRIu64
           " lost, ok\n",
           figures.voided, figures.ops, figures.acknowledged, figures.lost);
    fflush(stdout);
    return 0;
}

struct arguments {
    uint64_t cuts;
    const char *only;
    char **command; /* NULL: cuts */
    uint64_t mib;
};

static int
cuts_run(const void *ctx)
{
    static const char *const kinds[] = {"ext4", "xfs"};
    const struct arguments *a = ctx;
    unsigned done = 0;

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    KIT_CHECK(shared != MAP_FAILED, "mmap");
    for (unsigned i = 0; i < 2; i++)
        if (a->only == NULL || strcmp(a->only, kinds[i]) == 0)
            done += file_system_run(kinds[i], a->cuts) == 0;
    return done > 0 ? 0 : LOOP_FS_SKIPPED;
}

static int
command_run(const void *ctx)
{
    const struct arguments *a = ctx;
    char why[256];
    int status;
    pid_t child;

    if (!loop_fs_make(&fs, a->only, a->mib << 20, why)) {
        printf("crash_power: SKIP: %s: %s\n", a->only, why);
        return LOOP_FS_SKIPPED;
    }
    setenv("SCREE_TEST_DIR", fs.mount_point, 1);
    setenv("TMPDIR", fs.mount_point, 1);
    child = kit_fork();
    if (child == 0) {
        execvp(a->command[0], a->command);
        _exit(127);
    }
    status = kit_join(child);
    loop_fs_end(&fs);
    return status;
}

int
main(int argc, char **argv)
{
    struct arguments a = {.cuts = kit_argument(argc, argv, 2, 10)};

    if (argc > 4 && strcmp(argv[1], "run") == 0) {
        a.only = argv[2];
        a.mib = strtoull(argv[3], NULL, 0);
        a.command = argv + 4;
        return loop_fs_supervise("crash_power", command_run, &a);
    }
    seed = kit_argument(argc, argv, 1, 1);
    a.only = argc > 3 && strcmp(argv[3], "all") != 0 ? argv[3] : NULL;
    promises_only = argc > 4 && strcmp(argv[4], "promises") == 0;
    return loop_fs_supervise("crash_power", cuts_run, &a);
}
