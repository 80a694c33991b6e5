/*
 * crash_backup.c - backups of a directory that is being written to as fast as it goes: whole, cut short,
 * refused.
 *
 * GOAL      a backup taken under load opens as a clean directory with a prefix of the log in which is
 *           everything that had returned before the call; a process killed, or a destination that fails, at
 *           any I/O call of it leaves a whole copy, or one that is refused; the source is as if nothing had
 *           been.
 * METHOD    threads put, append and commit batches on pages of their own, with small segments, snapshots
 *           after every few KiB, cleaning and collecting, so that much dies while the copy is made. Each
 *           operation writes its number, and how far the next thread had come. Then: backups one after the
 *           other, fast and slow, by copying and by reflink (made believe); and, in children that begin
 *           with the same directory, backups killed at the n-th call, and backups whose n-th change of the
 *           destination fails.
 * ORACLE    what a thread's pages hold after k of its operations is a function of k: a directory must hold
 *           just that for some k of each thread, not below what had returned (copy) or was stable (source),
 *           and no thread may know of an operation of another one that is not there.
 * NOT HERE  power cuts: that everything is synced in time is checked call by call (track_env.h).
 *
 * crash_backup [seed] [seconds of backups] [runs of each kind that are cut short, about; 0: at every call]
 *
 * WORD   shared->done: a thread's operations that returned, store release, load acquire.   stable: the
 *        same.   stop: store relaxed, load relaxed.
 * EDGES  those.   LIFETIME  shared memory of the run.   PROGRESS  alarms.   FAILURE  is the matter.
 */
#include "support/kit.h"
#include "support/track_env.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 3u
#define PAGES 24u /* a thread */
#define APPENDS_MAX 12u
#define MARKER "BACKUP_INCOMPLETE"

struct shared {
    _Atomic uint64_t done[THREADS], stable[THREADS];
    _Atomic uint64_t calls, changes;
    uint64_t at_call[THREADS];
};

/* In front of each payload. */
struct stamp {
    uint64_t thread, op;
    uint64_t seen; /* what the next thread had done */
    uint64_t len;  /* with this */
};

static struct shared *shared;
static uint64_t seed;
static scree_options options;
static scree_cache *cache;
static char origin[KIT_PATH_MAX], work[KIT_PATH_MAX], copy[KIT_PATH_MAX];
static _Atomic bool stop;

/* ---- operations: pure functions of thread and number -------------------------------------------- */

struct op {
    enum { OP_PUT, OP_APPEND, OP_BATCH } kind;
    unsigned page, other; /* other: the batch's second */
    size_t len;
};

static struct op
op_of(uint64_t thread, uint64_t number)
{
    uint64_t state = seed * 1000003 + thread * 7919 + number * 104729;
    struct op op;
    uint64_t kind = kit_below(&state, 16);

    op.kind = kind < 10 ? OP_PUT : kind < 13 ? OP_APPEND : OP_BATCH;
    op.page = (unsigned)kit_below(&state, PAGES);
    op.other = (op.page + 1 + (unsigned)kit_below(&state, PAGES - 1)) % PAGES;
    op.len = sizeof(struct stamp) + kit_below(&state, op.kind == OP_APPEND ? 100 : 1500);
    if (number <= PAGES) { /* every page is there first */
        op.kind = OP_PUT;
        op.page = (unsigned)number - 1;
    }
    return op;
}

static scree_page_id
page_id(uint64_t thread, unsigned page)
{
    return 100 + thread * PAGES + page;
}

static size_t
payload_make(unsigned char *to, uint64_t thread, uint64_t number, uint64_t seen, size_t len)
{
    struct stamp stamp = {thread, number, seen, len};

    memcpy(to, &stamp, sizeof(stamp));
    for (size_t i = sizeof(stamp); i < len; i++)
        to[i] = (unsigned char)((number * 31 + i * 7 + thread) % 251);
    return len;
}

/* ---- the load ----------------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    uint64_t number;
    scree_version version[PAGES];
};

static void
version_get(const struct worker *w, unsigned page, scree_version *version_out)
{
    char bytes[4096];
    size_t len;
    int code =
        scree_page_read(cache, page_id(w->number, page), bytes, sizeof(bytes), &len, version_out);

    KIT_CHECK(code == 0 || code == SCREE_E_NOT_FOUND, "read: %d %s", code, scree_error_detail());
}

static int
batch_run(struct worker *w, const struct op *op, scree_slice payload)
{
    scree_batch *batch;
    scree_lsn lsn;
    int code = scree_batch_begin(cache, &batch);

    if (code != 0)
        return code;
    code = scree_batch_set(batch, page_id(w->number, op->page), w->version[op->page], payload);
    if (code == 0)
        code =
            scree_batch_set(batch, page_id(w->number, op->other), w->version[op->other], payload);
    if (code != 0) {
        scree_batch_abort(batch);
        return code;
    }
    code = scree_batch_commit(batch, &lsn, NULL);
    if (code == 0)
        w->version[op->page] = w->version[op->other] = lsn;
    return code;
}

static int
op_run(struct worker *w, uint64_t number)
{
    unsigned char bytes[4096];
    struct op op = op_of(w->number, number);
    /* Acquire: what the other one had done lies before what we do now. */
    uint64_t seen =
        atomic_load_explicit(&shared->done[(w->number + 1) % THREADS], memory_order_acquire);
    scree_slice payload = kit_slice(bytes, payload_make(bytes, w->number, number, seen, op.len));
    scree_page_id id = page_id(w->number, op.page);

    if (op.kind == OP_APPEND)
        return scree_page_append(cache, id, payload, &w->version[op.page]);
    if (op.kind == OP_BATCH)
        return batch_run(w, &op, payload);
    if (w->version[op.page] == 0)
        return scree_page_allocate_at(cache, id, payload, &w->version[op.page]);
    return scree_page_put(cache, id, payload, &w->version[op.page]);
}

static void *
worker_run(void *argument)
{
    struct worker *w = argument;
    uint64_t number = atomic_load_explicit(&shared->done[w->number], memory_order_relaxed);

    for (unsigned i = 0; i < PAGES; i++)
        version_get(w, i, &w->version[i]);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        int code = op_run(w, ++number);

        KIT_CHECK(code == 0, "operation %" PRIu64 " gave %d %s (%s)", number, code,
                  kit_code_name(code), scree_error_detail());
        atomic_store_explicit(&shared->done[w->number], number, memory_order_release);
        if (number % 64 == 0) {
            KIT_CHECK(scree_flush(cache, NULL) == 0, "flush: %s", scree_error_detail());
            atomic_store_explicit(&shared->stable[w->number], number, memory_order_release);
        }
    }
    return NULL;
}

/* Snapshots, and everything that may be given back is. */
static void *
tidier_run(void *argument)
{
    (void)argument;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        KIT_CHECK(scree_reclaim(cache, 1.2, NULL, NULL) == 0, "reclaim: %s", scree_error_detail());
        usleep(2000);
    }
    return NULL;
}

static struct worker worker[THREADS];
static pthread_t tidier;

static void
load_start(void)
{
    atomic_store_explicit(&stop, false, memory_order_relaxed);
    for (unsigned i = 0; i < THREADS; i++) {
        worker[i].number = i;
        KIT_CHECK(pthread_create(&worker[i].thread, NULL, worker_run, &worker[i]) == 0, "thread");
    }
    KIT_CHECK(pthread_create(&tidier, NULL, tidier_run, NULL) == 0, "thread");
    for (unsigned i = 0; i < THREADS; i++) /* every page is there */
        while (atomic_load_explicit(&shared->done[i], memory_order_relaxed) < PAGES)
            usleep(1000);
}

static void
load_stop(void)
{
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(worker[i].thread, NULL);
    pthread_join(tidier, NULL);
}

/* ---- the oracle --------------------------------------------------------------------------------- */

struct page {
    unsigned char bytes[8192];
    size_t len;
};

static void
page_expect(uint64_t thread, unsigned page, const struct page *got, uint64_t k)
{
    uint64_t base = 0, appended[APPENDS_MAX * 8];
    size_t n = 0, at = 0;

    /* The last operation that replaces it, then those that append. */
    for (uint64_t i = k; i > 0 && base == 0; i--) {
        struct op op = op_of(thread, i);

        if (op.page != page && !(op.kind == OP_BATCH && op.other == page))
            continue;
        if (op.kind != OP_APPEND)
            base = i;
        else if (n < sizeof(appended) / sizeof(appended[0]))
            appended[n++] = i;
    }
    for (size_t i = 0; i <= n; i++) {
        uint64_t number = i == 0 ? base : appended[n - i];
        unsigned char bytes[4096];
        struct stamp stamp;
        size_t len = op_of(thread, number).len;

        KIT_CHECK(got->len >= at + len, "thread %" PRIu64 " page %u ends before operation %" PRIu64,
                  thread, page, number);
        memcpy(&stamp, got->bytes + at, sizeof(stamp));
        payload_make(bytes, thread, number, stamp.seen, len);
        KIT_CHECK(memcmp(bytes, got->bytes + at, len) == 0,
                  "thread %" PRIu64 " page %u is not as after operation %" PRIu64, thread, page, k);
        at += len;
    }
    KIT_CHECK(at == got->len, "thread %" PRIu64 " page %u is too long", thread, page);
}

static uint64_t
stamps_max(const struct page *p, uint64_t *seen_io)
{
    uint64_t op = 0;

    for (size_t at = 0; at + sizeof(struct stamp) <= p->len;) {
        struct stamp stamp;

        memcpy(&stamp, p->bytes + at, sizeof(stamp));
        KIT_CHECK(stamp.len >= sizeof(stamp) && stamp.len <= p->len - at, "a broken page");
        op = stamp.op > op ? stamp.op : op;
        *seen_io = stamp.seen > *seen_io ? stamp.seen : *seen_io;
        at += (size_t)stamp.len;
    }
    return op;
}

/* The cache holds a state that was: of each thread the first k operations, k not below least. */
static void
state_check(scree_cache *of, const char *what, const uint64_t least[THREADS])
{
    static struct page page[PAGES];
    uint64_t k[THREADS] = {0}, seen[THREADS] = {0};

    for (unsigned t = 0; t < THREADS; t++) {
        for (unsigned i = 0; i < PAGES; i++) {
            int code = scree_page_read(of, page_id(t, i), page[i].bytes, sizeof(page[i].bytes),
                                       &page[i].len, NULL);

            KIT_CHECK(code == 0, "%s: thread %u page %u: %d (%s)", what, t, i, code,
                      scree_error_detail());
            uint64_t op = stamps_max(&page[i], &seen[t]);

            k[t] = op > k[t] ? op : k[t];
        }
        KIT_CHECK(k[t] >= least[t],
                  "%s: thread %u: %" PRIu64 " operations, at least %" PRIu64 " had returned", what,
                  t, k[t], least[t]);
        for (unsigned i = 0; i < PAGES; i++)
            page_expect(t, i, &page[i], k[t]);
    }
    for (unsigned t = 0; t < THREADS; t++)
        KIT_CHECK(k[(t + 1) % THREADS] >= seen[t],
                  "%s: thread %u knows of operation %" PRIu64 " of the next one, of which there "
                  "are %" PRIu64,
                  what, t, seen[t], k[(t + 1) % THREADS]);
}

static void
counts_load(_Atomic uint64_t from[THREADS], uint64_t to[THREADS])
{
    for (unsigned i = 0; i < THREADS; i++)
        to[i] = atomic_load_explicit(&from[i], memory_order_acquire);
}

/* Opens clean, holds what it must, can be written to and opened again. */
static void
copy_check(const uint64_t least[THREADS])
{
    scree_recovery_info info = {.size = sizeof(info)};
    scree_cache *made;
    int code;

    kit_verify(copy, &options);
    for (int writes = 0; writes < 2; writes++) {
        scree_options o = options;

        o.flags = writes ? 0 : SCREE_READ_ONLY;
        code = scree_open(copy, &o, &made);
        KIT_CHECK(code == 0, "opening the copy gave %d (%s)", code, scree_error_detail());
        KIT_CHECK(scree_recovery(made, &info) == 0 && info.clean == 1 && info.torn_bytes == 0,
                  "the copy is not clean");
        state_check(made, "copy", least);
        if (writes) {
            scree_version version;

            for (unsigned i = 0; i < 300; i++)
                KIT_CHECK(scree_page_put(made, SCREE_PAGE_ROOT, kit_slice("after", 5), &version) ==
                              0,
                          "a put into the copy: %s", scree_error_detail());
        }
        KIT_CHECK(scree_close(made) == 0, "closing the copy: %s", scree_error_detail());
    }
}

/* ---- backups under load ------------------------------------------------------------------------- */

static int
canceler(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    uint64_t *left = ctx;

    KIT_CHECK(strcmp(what, "backup") == 0 && done <= total, "progress");
    if (*left == 0)
        return 1;
    --*left;
    return 0;
}

static uint64_t
backups_run(uint64_t seconds)
{
    uint64_t until = kit_now_ms() + seconds * 1000, n = 0, state = seed;
    uint64_t least[THREADS], endless;

    KIT_CHECK(scree_open(origin, &options, &cache) == 0, "open: %s", scree_error_detail());
    load_start();
    for (; n < 3 || kit_now_ms() < until; n++) {
        struct track_plan plan = {.below = copy, .marker = MARKER, .reflink = n % 3 == 2};
        uint64_t rate = n % 2 == 0 ? 0 : (2 + kit_below(&state, 6)) << 20;
        int code;

        snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", backup %" PRIu64, seed, n);
        usleep((useconds_t)kit_below(&state, 20000));
        kit_dir_remove(copy);
        track_plan(&plan);
        counts_load(shared->done, least);
        if (n % 4 == 3) { /* canceled: incomplete, refused */
            uint64_t left =
                kit_below(&state, 3); /* start, log, snapshot: there are three steps at least */

            code = scree_backup(cache, copy, rate, canceler, &left);
            KIT_CHECK(code == SCREE_E_CANCELED, "canceled, it gave %d", code);
            scree_cache *none;
            scree_options o = options;

            code = scree_open(copy, &o, &none);
            KIT_CHECK(code == SCREE_E_CORRUPT && none == NULL, "a canceled copy: open gave %d",
                      code);
            continue;
        }
        endless = UINT64_MAX;
        code = scree_backup(cache, copy, rate, canceler, &endless);
        KIT_CHECK(code == 0, "backup gave %d (%s)", code, scree_error_detail());
        KIT_CHECK(track_unsynced() == 0, "%" PRIu64 " things were not synced", track_unsynced());
        KIT_CHECK(!plan.reflink || track_clones() > 0, "no reflink");
        copy_check(least);
    }
    load_stop();
    counts_load(shared->done, least);
    state_check(cache, "source", least);
    KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
    KIT_CHECK(scree_open(origin, &options, &cache) == 0, "open: %s", scree_error_detail());
    state_check(cache, "source, opened again", least);
    KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
    return n;
}

/* ---- cut short ---------------------------------------------------------------------------------- */

/* In a child: a backup under load, with this plan. */
static void
child_run(const struct track_plan *plan)
{
    int code;

    alarm(60);
    track_plan(&(struct track_plan){0});
    KIT_CHECK(scree_open(work, &options, &cache) == 0, "open: %s", scree_error_detail());
    load_start();
    usleep(5000);
    counts_load(shared->done, shared->at_call);
    track_plan(plan);
    track_mark_thread(true);
    code = scree_backup(cache, copy, 0, NULL, NULL);
    track_mark_thread(false);
    atomic_store_explicit(&shared->calls, track_calls(), memory_order_relaxed);
    atomic_store_explicit(&shared->changes, track_changes(), memory_order_relaxed);
    if (plan->fail_at != 0 && track_changes() >= plan->fail_at) {
        KIT_CHECK(code == (plan->code == -ENOSPC ? SCREE_E_NO_SPACE : plan->code),
                  "a destination that fails: %d (%s)", code, scree_error_detail());
        KIT_CHECK(strstr(scree_error_detail(), copy) != NULL, "no file named: %s",
                  scree_error_detail());
    } else {
        KIT_CHECK(code == 0, "backup gave %d (%s)", code, scree_error_detail());
    }
    KIT_CHECK(scree_health(cache) == 0, "the source is poisoned");
    load_stop();
    KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
}

/* Whole, or refused; and the source. Returns whether it was whole. */
static bool
aftermath_check(void)
{
    scree_options o = options;
    uint64_t least[THREADS];
    int code;

    track_plan(&(struct track_plan){0});
    o.flags = 0;
    code = scree_open(copy, &o, &cache);
    if (code == 0) {
        KIT_CHECK(scree_close(cache) == 0, "close");
        copy_check(shared->at_call);
    } else {
        KIT_CHECK(code == SCREE_E_CORRUPT || code == -ENOENT, "open gave %d (%s)", code,
                  scree_error_detail());
        KIT_CHECK(code == -ENOENT || strstr(scree_error_detail(), MARKER) != NULL,
                  "refused for another reason: %s", scree_error_detail());
    }
    counts_load(shared->stable, least);
    KIT_CHECK(scree_open(work, &options, &cache) == 0, "the source: %s", scree_error_detail());
    state_check(cache, "source", least);
    KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
    return code == 0;
}

/* Whether it was killed. */
static bool
child(const struct track_plan *plan)
{
    pid_t pid = kit_fork();
    int status;

    if (pid == 0) {
        child_run(plan);
        _exit(0);
    }
    status = kit_join(pid);
    KIT_CHECK(status == 0 ||
                  ((plan->kill_at != 0 || plan->kill_behind != 0) && status == TRACK_KILLED),
              "the child ended with %d", status);
    return status == TRACK_KILLED;
}

struct cuts {
    uint64_t points; /* of the last run that was not cut */
    uint64_t runs, cut, whole, refused;
};

/* Each run begins with the same directory. */
static void
run_begin(const uint64_t begin[THREADS])
{
    kit_dir_copy(origin, work);
    kit_dir_remove(copy);
    for (unsigned i = 0; i < THREADS; i++) {
        atomic_store_explicit(&shared->done[i], begin[i], memory_order_relaxed);
        atomic_store_explicit(&shared->stable[i], begin[i], memory_order_relaxed);
    }
}

/* One backup, cut at this point, if it has so many. Whether it was. */
static bool
cut_run(struct cuts *c, bool kills, uint64_t at, int code, const uint64_t begin[THREADS])
{
    struct track_plan plan = {
        .below = copy, .kill_at = kills ? at : 0, .fail_at = kills ? 0 : at, .code = code};
    bool cut, whole;

    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", %s %" PRIu64 " (%d)", seed,
             kills ? "killed at call" : "failing change", at, code);
    run_begin(begin);
    cut = child(&plan);
    if (!kills) /* the child ended */
        cut = at != 0 && atomic_load_explicit(&shared->changes, memory_order_relaxed) >= at;
    whole = aftermath_check();
    KIT_CHECK(cut || whole, "not cut, and not whole");
    c->runs++;
    c->cut += cut;
    c->whole += whole;
    c->refused += !whole;
    if (!cut)
        c->points =
            atomic_load_explicit(kills ? &shared->calls : &shared->changes, memory_order_relaxed);
    return cut;
}

/* Behind the marker's end the copy is whole, whatever comes. */
static void
end_run(struct cuts *c, const uint64_t begin[THREADS])
{
    for (uint64_t at = 1;; at++) {
        struct track_plan plan = {.below = copy, .marker = MARKER, .kill_behind = at};

        snprintf(kit_context, sizeof(kit_context),
                 "seed %" PRIu64 ", killed at call %" PRIu64 " behind the marker", seed, at);
        run_begin(begin);
        if (!child(&plan))
            break;
        KIT_CHECK(aftermath_check(), "not whole behind the marker's end");
        c->runs++;
        c->cut++;
        c->whole++;
    }
    KIT_CHECK(c->whole > 1, "there are no calls behind the marker's end");
}

/* Each point is one to be cut at, or some of them: the first, the last, and others. */
static bool
point_is_due(const struct cuts *c, uint64_t at, uint64_t runs)
{
    uint64_t stride = runs == 0 ? 1 : c->points / runs + 1;

    return stride == 1 || at <= 6 || at + 8 >= c->points || at % stride == seed % stride;
}

/* Every call, or about so many. How many there are depends on the load: until none is left in some runs of
   backups one after the other. */
static struct cuts
cuts_run(bool kills, uint64_t runs)
{
    uint64_t begin[THREADS], most = runs == 0 ? 10 : 2, left = most;
    struct cuts c = {0};

    counts_load(shared->done, begin);
    (void)cut_run(&c, kills, 0, -EIO, begin);
    for (uint64_t at = 1; left > 0; at++) {
        if (!point_is_due(&c, at, runs))
            continue;
        left = cut_run(&c, kills, at, at % 2 == 0 ? -ENOSPC : -EIO, begin) ? most : left - 1;
        if (!kills && runs == 0)
            (void)cut_run(&c, kills, at, at % 2 != 0 ? -ENOSPC : -EIO, begin);
    }
    if (kills)
        end_run(&c, begin);
    for (unsigned i = 0; i < THREADS; i++)
        atomic_store_explicit(&shared->done[i], begin[i], memory_order_relaxed);
    printf("seed %" PRIu64 ", %s: %" PRIu64 " points, %" PRIu64 " runs, %" PRIu64
           " of them cut; the copy %" PRIu64 " times whole, %" PRIu64 " times refused\n",
           seed, kills ? "killed at each call" : "a change failing", c.points, c.runs, c.cut,
           c.whole, c.refused);
    return c;
}

int
main(int argc, char **argv)
{
    uint64_t seconds = kit_argument(argc, argv, 2, 3), runs = kit_argument(argc, argv, 3, 25);
    struct cuts killed, failed;
    uint64_t backups;

    seed = kit_argument(argc, argv, 1, 1);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    KIT_CHECK(shared != MAP_FAILED, "mmap");
    kit_dir_name(origin, "backup");
    kit_dir_name(work, "backup-work");
    kit_dir_name(copy, "backup-copy");
    kit_options_small(&options, &kit_concat);
    options.page_bytes_max = 8192;
    options.cache_bytes = 256 * 1024;
    options.segment_bytes = seed % 2 != 0 ? 64 * 1024 : 256 * 1024;
    options.snapshot_log_bytes = 64 * 1024;
    options.space_amp_target = 1.2;
    options.env = track_env();
    track_plan(&(struct track_plan){0});
    backups = backups_run(seconds);
    killed = cuts_run(true, runs);
    failed = cuts_run(false, runs);
    kit_dir_remove(origin);
    kit_dir_remove(work);
    kit_dir_remove(copy);
    printf("seed %" PRIu64 ": %" PRIu64 " backups under load, %" PRIu64 " cut short: ok\n", seed,
           backups, killed.cut + failed.cut);
    KIT_CHECK(killed.refused > 0 && failed.refused > 0 && killed.whole > 0 && failed.whole > 0,
              "too little happened");
    return 0;
}
