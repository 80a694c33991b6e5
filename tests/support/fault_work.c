/*
 * fault_work.c - see fault_work.h.
 *
 * WORDS  waiter_stop: main asks the waiting thread to end: store relaxed, load relaxed; it looks again after
 *        each wait.  wanted: the version to wait for: store release, load acquire.  events: counts by any
 *        thread of the library, relaxed.
 * EDGES  those.   INVARIANTS  I1 only the main thread touches the history.
 * LIFETIME  a run's: a process of its own.   PROGRESS  every call has the alarm, which tells where all threads
 *        are.   FAILURE  is the matter.   NOT HERE  what fails.
 */
#include "fault_work.h"

#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALL_SECONDS KIT_MUCH(30u, 90u, 30u)
#define RESUME_MS 5000u
#define CUT_CHOICES 64u
#define KINDS_OF_EVENTS 16u

#if defined(__SANITIZE_ADDRESS__)
#define WITH_LSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_LSAN 1
#endif
#endif
#ifdef WITH_LSAN
#include <sanitizer/lsan_interface.h>
#endif

const char *const fault_phase_names[FAULT_PHASE_N] = {
#define FAULT_PHASE(name, text) text,
    FAULT_PHASES(FAULT_PHASE)
#undef FAULT_PHASE
};

enum start { START_NEW, START_CLOSED, START_CRASHED, STARTS };

struct workload {
    const char *name;
    enum start start;
    void (*options)(scree_options *options); /* NULL: the small ones */
    void (*body)(void);
    uint32_t len_max; /* of updates; 0: short ones mostly */
    bool clones, without_cache, read_only;
};

/* The directory a run begins with. */
struct origin {
    struct history *h;
    struct sim_image *image;
};
static struct origin origin[STARTS];
static uint64_t seed;

/* This run. */
static const struct workload *work;
static const struct fault_driver *driver;
static struct fault_result *result; /* shared with the parent */
static struct history *h;
static struct sim_disk *disk;
static scree_options options;
static scree_cache *cache;
static uint64_t random_state, id_last;
static int backup_state; /* of the backup in /b; -1: there is none that succeeded */
static uint32_t findings;
static bool nothing_made; /* by an open that failed: but for the directory, at most */
static int salvage_code = SCREE_E_INVALID;

static _Atomic bool waiter_stop;
static _Atomic uint64_t wanted;
static _Atomic uint64_t events[KINDS_OF_EVENTS];

static void
event_count(void *ctx, const scree_event *event)
{
    (void)ctx;
    if (event->kind >= 0 && event->kind < (int)KINDS_OF_EVENTS)
        (void)atomic_fetch_add_explicit(&events[event->kind], 1, memory_order_relaxed);
}

static uint64_t
events_of(enum scree_event_kind kind)
{
    return atomic_load_explicit(&events[kind], memory_order_relaxed);
}

/* ---- what calls may give ---- */

static void
detail_check(const char *what, int code)
{
    const char *detail = scree_error_detail();

    KIT_CHECK(detail[0] != '\0', "%s gave %d %s without a detail", what, code, kit_code_name(code));
    KIT_CHECK(code == SCREE_E_NO_MEMORY || strchr(detail, '/') != NULL ||
                  strstr(detail, "lsn") != NULL || strstr(detail, "page") != NULL ||
                  strstr(detail, "segment") != NULL,
              "%s gave %d %s, and does not say where", what, code, kit_code_name(code));
}

static void
error_check(const char *what, int code)
{
    KIT_CHECK(driver->struck(disk), "%s gave %d %s, but nothing has failed", what, code,
              kit_code_name(code));
    KIT_CHECK(driver->fair(code), "%s gave %d %s", what, code, kit_code_name(code));
    detail_check(what, code);
}

static void
call_begin(void)
{
    (void)alarm(CALL_SECONDS);
    if (driver->before != NULL)
        driver->before(disk, result->calls);
    result->calls++;
}

static int
call_end(enum fault_phase phase, int code)
{
    if (!result->struck && driver->struck(disk)) {
        result->struck = true;
        result->phase = phase;
    }
    if (code == 0)
        return 0;
    result->errors++;
    error_check(fault_phase_names[phase], code);
    return code;
}

#define CALL(phase, expression) (call_begin(), call_end((phase), (expression)))

/* ---- what the workloads are made of ---- */

static void
update(void)
{
    (void)CALL(FAULT_UPDATE, history_step(h, cache));
    atomic_store_explicit(&wanted, h->version_any, memory_order_release);
}

static void
batch(void)
{
    (void)CALL(FAULT_BATCH, history_batch(h, cache));
    atomic_store_explicit(&wanted, h->version_any, memory_order_release);
}

static void
flush(void)
{
    (void)CALL(FAULT_FLUSH, history_flush(h, cache));
}

static void
snapshot(void)
{
    (void)CALL(FAULT_SNAPSHOT, scree_snapshot(cache, NULL));
}

static void
reclaim(void)
{
    (void)CALL(FAULT_RECLAIM, scree_reclaim(cache, 1.2, NULL, NULL));
}

/* A page as it is now, or an error: never anything else. */
static int
page_look(uint32_t at)
{
    const struct history_page *want = &h->state[h->n - 1].page[at];
    scree_version version = 0;
    scree_slice page = {NULL, 0};
    int code;

    scree_read_enter(cache);
    code = scree_page_get(cache, h->id[at], &page, &version);
    if (code == 0)
        KIT_CHECK(want->version == version && page.len == h->len[at] &&
                      memcmp(page.data, h->bytes[at], page.len) == 0,
                  "page %" PRIu64 " reads wrong", h->id[at]);
    else if (code == SCREE_E_NOT_FOUND && want->version == 0)
        code = 0;
    scree_read_leave(cache);
    return code;
}

static void
read_some(uint32_t n)
{
    while (n-- > 0)
        (void)CALL(FAULT_READ, page_look((uint32_t)kit_below(&random_state, h->pages)));
}

static void
read_all(void)
{
    for (uint32_t at = 0; at < h->pages; at++)
        (void)CALL(FAULT_READ, page_look(at));
}

static int
id_take(void)
{
    uint64_t id = 0;
    int code = scree_id_next(cache, &id);

    KIT_CHECK(code != 0 || id > id_last, "id %" PRIu64 " after %" PRIu64, id, id_last);
    if (code == 0)
        id_last = id;
    return code;
}

static void
ids(uint32_t n)
{
    while (n-- > 0)
        (void)CALL(FAULT_IDS, id_take());
}

/* ---- the log, followed ---- */

/* What the records make of the pages. */
static struct replica {
    scree_log_reader *reader;
    uint32_t len[HISTORY_PAGES];
    scree_version version[HISTORY_PAGES];
    unsigned char bytes[HISTORY_PAGES][HISTORY_BYTES];
    scree_version newest;
} replica;

static void
replica_apply(const scree_log_record *r)
{
    uint32_t at = 0;

    while (at < h->pages && h->id[at] != r->page)
        at++;
    KIT_CHECK(at < h->pages || history_fleeting(h, r->page),
              "a record of page %" PRIu64 ", which nobody made", r->page);
    KIT_CHECK(r->version >= replica.newest, "version %" PRIu64 " after %" PRIu64, r->version,
              replica.newest);
    replica.newest = r->version;
    if (at == h->pages)
        return;
    replica.version[at] = r->kind == SCREE_RECORD_FREE ? 0 : r->version;
    if (r->kind != SCREE_RECORD_DELTA)
        replica.len[at] = 0;
    KIT_CHECK(replica.len[at] + r->payload.len <= HISTORY_BYTES, "a record too many");
    if (r->payload.len > 0)
        memcpy(replica.bytes[at] + replica.len[at], r->payload.data, r->payload.len);
    replica.len[at] += (uint32_t)r->payload.len;
}

/* All there is. 0: nothing more for now. */
static int
feed_pull(void)
{
    scree_log_record r = {.size = sizeof(r)};
    int code = 0;

    if (replica.reader == NULL)
        code = scree_log_open(cache, 0, &replica.reader);
    while (code == 0) {
        code = scree_log_next(replica.reader, 0, &r);
        if (code == 0)
            replica_apply(&r);
    }
    return code == SCREE_E_TIMEOUT ? 0 : code;
}

/* Caught up: the replica is what the pages are. */
static void
replica_check(void)
{
    for (uint32_t at = 1; at < h->pages; at++)
        KIT_CHECK(replica.version[at] == h->state[h->n - 1].page[at].version &&
                      (replica.version[at] == 0 ||
                       (replica.len[at] == h->len[at] &&
                        memcmp(replica.bytes[at], h->bytes[at], h->len[at]) == 0)),
                  "page %" PRIu64 " is not what the log says", h->id[at]);
}

/* ---- the workloads ---- */

static void
body_singles(void)
{
    for (int i = 0; i < 70; i++) {
        update();
        if (i % 9 == 8)
            flush();
        if (i % 25 == 20)
            read_some(3);
    }
    snapshot();
}

static void
body_batches(void)
{
    for (int i = 0; i < 45; i++) {
        if (i % 4 == 3)
            update();
        else
            batch();
        if (i % 8 == 7)
            flush();
    }
}

static void
body_snapshots(void)
{
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 3; k++)
            update();
        snapshot();
    }
}

static void
options_clean(scree_options *o)
{
    o->snapshot_log_bytes = 128 * 1024;
}

static void
body_clean(void)
{
    for (int i = 0; i < 150; i++) {
        bool guarded = i % 4 == 3; /* where calls wait for less */

        if (guarded)
            scree_read_enter(cache);
        update();
        if (guarded)
            scree_read_leave(cache);
        if (i % 50 == 49)
            reclaim();
    }
}

static void
options_punch(scree_options *o)
{
    o->segment_bytes = 256 * 1024; /* four granules */
    o->snapshot_log_bytes = 256 * 1024;
    o->space_amp_target = 10; /* writers are not slowed down; reclaiming cleans */
}

static void
body_punch(void)
{
    for (int i = 0; i < 320; i++) {
        update();
        if (i % 80 == 79) {
            snapshot();
            reclaim();
        }
    }
}

static void
options_cold(scree_options *o)
{
    o->compression_level = 1;
}

static void
body_cold(void)
{
    for (int i = 0; i < 120; i++) {
        update();
        if (i % 8 == 7)
            read_some(6);
        if (i % 30 == 29)
            flush();
    }
    read_all();
}

static void
body_backup(void)
{
    for (int i = 0; i < 12; i++)
        update();
    backup_state = -1;
    if (CALL(FAULT_BACKUP, scree_backup(cache, "/b", 0, NULL, NULL)) == 0)
        backup_state = (int)h->n - 1;
    for (int i = 0; i < 12; i++)
        update();
    flush();
}

static void
body_feed(void)
{
    for (int i = 0; i < 40; i++) {
        if (i % 3 == 2)
            batch();
        else
            update();
        if (i % 6 == 5) {
            flush();
            (void)CALL(FAULT_FEED, feed_pull());
            ids(25);
        }
    }
}

static void
body_recover(void)
{
    read_all();
    for (int i = 0; i < 6; i++)
        update();
}

static void
body_idle(void)
{
}

static void
body_read_only(void)
{
    scree_version version = 0;
    int code;

    read_all();
    code = scree_page_append(cache, SCREE_PAGE_ROOT, kit_slice("x", 1), &version);
    /* Without memory for its thread's context a call gets no further than that. */
    KIT_CHECK(code == SCREE_E_READ_ONLY || (code == SCREE_E_NO_MEMORY && driver->fair(code)),
              "an append gave %d", code);
    (void)CALL(FAULT_BACKUP, scree_backup(cache, "/b", 0, NULL, NULL));
}

static int
finding_count(void *ctx, const scree_finding *f)
{
    (void)ctx;
    if (f->severity != SCREE_FINDING_NOTE) {
        KIT_CHECK(driver->struck(disk), "found, but nothing failed: %s", f->text);
        /* CORRUPT: what follows from what could not be read, which was told before. */
        KIT_CHECK((f->code != 0 && driver->fair(f->code)) ||
                      (f->code == SCREE_E_CORRUPT && findings > 0),
                  "found: %d %s %s", f->code, kit_code_name(f->code), f->text);
        findings++;
    }
    return 0;
}

/* CORRUPT says that there were findings, of which each said what it was. */
static int
tool_code(int code)
{
    if (code == SCREE_E_CORRUPT && findings > 0)
        return 0;
    KIT_CHECK(code != 0 || findings == 0, "%u findings, and all is well", findings);
    return code;
}

static void
body_tools(void)
{
    findings = 0;
    (void)CALL(FAULT_VERIFY, tool_code(scree_verify("/d", &options, finding_count, NULL, NULL)));
    findings = 0;
    salvage_code = CALL(FAULT_SALVAGE,
                        tool_code(scree_salvage("/d", "/s", &options, finding_count, NULL, NULL)));
}

static const struct workload workloads[] = {
    {.name = "singles", .start = START_NEW, .body = body_singles},
    {.name = "batches", .start = START_CLOSED, .body = body_batches},
    {.name = "snapshots", .start = START_CLOSED, .body = body_snapshots},
    {.name = "clean", .options = options_clean, .body = body_clean, .len_max = 2600},
    {.name = "punch", .options = options_punch, .body = body_punch, .len_max = 2900},
    {.name = "cold", .options = options_cold, .body = body_cold, .len_max = 2900},
    {.name = "backup", .start = START_CLOSED, .body = body_backup},
    {.name = "clone", .start = START_CLOSED, .body = body_backup, .clones = true},
    {.name = "feed", .body = body_feed},
    {.name = "recover", .start = START_CRASHED, .body = body_recover},
    {.name = "idle", .start = START_CLOSED, .body = body_idle},
    {.name = "read-only", .start = START_CRASHED, .body = body_read_only, .read_only = true},
    {.name = "tools", .start = START_CRASHED, .body = body_tools, .without_cache = true},
};
const unsigned fault_workloads_n = sizeof(workloads) / sizeof(workloads[0]);

const char *
fault_workload_name(unsigned workload)
{
    return workloads[workload].name;
}

/* ---- a run that hangs says where ---- */

static void
thread_tell(int signal_number)
{
    void *frame[40];
    int n = backtrace(frame, 40);

    (void)signal_number;
    (void)dprintf(STDOUT_FILENO, "thread %ld:\n", syscall(SYS_gettid));
    backtrace_symbols_fd(frame, n, STDOUT_FILENO);
}

static void
hang_tell(int signal_number)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;

    (void)dprintf(STDOUT_FILENO, "FAILED [%s] a call took %u s, %" PRIu64 " calls made\n",
                  kit_context, CALL_SECONDS, result->calls);
    while (tasks != NULL && (entry = readdir(tasks)) != NULL) {
        long thread = strtol(entry->d_name, NULL, 10);

        if (thread > 0) {
            (void)syscall(SYS_tgkill, getpid(), thread, SIGUSR2);
            (void)usleep(20000);
        }
    }
    (void)signal(signal_number, SIG_DFL);
    (void)raise(signal_number);
}

static void
alarm_set(void)
{
    void *frame[2];

    (void)backtrace(frame, 2); /* loads what it needs, now */
    (void)signal(SIGUSR2, thread_tell);
    (void)signal(SIGALRM, hang_tell);
    (void)alarm(CALL_SECONDS);
}

/* ---- while it runs ---- */

/* Whatever happens, waiting ends. */
static void *
waiter_run(void *argument)
{
    (void)argument;
    while (!atomic_load_explicit(&waiter_stop, memory_order_relaxed)) {
        uint64_t version = atomic_load_explicit(&wanted, memory_order_acquire);
        int code = scree_wait_stable(cache, version, -1);

        if (code != 0)
            error_check("wait_stable", code);
        else
            KIT_CHECK(scree_stable_lsn(cache) >= version, "waited for nothing");
        KIT_CHECK(code != SCREE_E_POISONED || scree_health(cache) != 0, "POISONED, but healthy");
        usleep(300);
    }
    return NULL;
}

/* Poisoned: every update says so, health stays, and it was told once. */
static void
poison_check(void)
{
    scree_version version = 0;
    int health = scree_health(cache);

    KIT_CHECK(driver->may_poison, "poisoned: %d", health);
    KIT_CHECK(scree_page_append(cache, SCREE_PAGE_ROOT, kit_slice("x", 1), &version) ==
                      SCREE_E_POISONED &&
                  history_batch(h, cache) == SCREE_E_POISONED,
              "an update of a poisoned cache");
    KIT_CHECK(scree_flush(cache, NULL) == SCREE_E_POISONED, "a flush of a poisoned cache");
    KIT_CHECK(scree_snapshot(cache, NULL) == SCREE_E_POISONED, "a snapshot of a poisoned cache");
    KIT_CHECK(scree_wait_stable(cache, scree_stable_lsn(cache), 0) == 0, "stable is not stable");
    KIT_CHECK(scree_health(cache) == health, "health was %d", health);
    for (int i = 0; i < 2000 && events_of(SCREE_EVENT_POISONED) == 0; i++)
        usleep(1000);
    KIT_CHECK(events_of(SCREE_EVENT_POISONED) == 1, "POISONED was told %" PRIu64 " times",
              events_of(SCREE_EVENT_POISONED));
}

/* What was accepted is what is there. */
static void
live_check(bool failures_are_fair)
{
    struct history_seen seen;
    int code = history_look(h, cache, &seen);

    KIT_CHECK(code == 0, "page_next gave %d", code);
    KIT_CHECK(history_find(h, &seen, h->n - 1) >= 0, "the cache does not hold what it accepted");
    KIT_CHECK(seen.failures == 0 || failures_are_fair, "%" PRIu32 " pages cannot be read",
              seen.failures);
}

static int
resume_once(int what)
{
    switch (what) {
    case 0:
        return history_step(h, cache);
    case 1:
        return history_batch(h, cache);
    case 2:
        return history_flush(h, cache);
    case 3:
        return scree_snapshot(cache, NULL);
    case 4:
        return id_take();
    default:
        return scree_reclaim(cache, 1.5, NULL, NULL);
    }
}

/* Nothing fails any more: everything goes on by itself. */
static void
resume(void)
{
    uint64_t until = kit_now_ms() + RESUME_MS;

    for (int what = 0; what < 6; what++) {
        int code;

        while ((code = resume_once(what)) != 0) {
            if (scree_health(cache) != 0)
                return;
            KIT_CHECK(driver->lingers != 0 && code == driver->lingers && kit_now_ms() < until,
                      "afterwards, call %d gave %d %s", what, code, kit_code_name(code));
            usleep(1000);
        }
    }
}

/* ---- directories at rest ---- */

/* A place in the run: what was acknowledged by then, of which history. Exactly: it was closed. */
struct mark {
    const struct history *h;
    uint64_t events;
    uint32_t acked;
    bool exactly;
};

static struct mark
mark_now(struct history *of, scree_cache *open)
{
    struct mark mark = {.h = of, .exactly = open == NULL};

    if (open != NULL)
        history_acknowledge(of, scree_stable_lsn(open));
    mark.acked = of->acked;
    mark.events = sim_disk_events(disk);
    return mark;
}

static struct history *
history_copy(const struct history *of)
{
    struct history *copy = history_new(0);

    memcpy(copy, of, sizeof(*copy));
    return copy;
}

/*
 * Opens: everything acknowledged is there, and it is a state that was. Then goes on from there, in `lived`.
 * What is given is to be closed.
 */
static scree_cache *
directory_open(const scree_env *env, const char *dir, const struct mark *mark, bool verify,
               struct history *lived)
{
    scree_options o = options;
    struct history_seen seen;
    scree_cache *reopened = NULL;
    int code, at;

    o.flags = SCREE_CREATE;
    o.env = env;
    o.event = NULL;
    (void)alarm(CALL_SECONDS);
    if (verify)
        kit_verify(dir, &o);
    code = scree_open(dir, &o, &reopened);
    KIT_CHECK(code == 0, "reopening %s gave %d %s", dir, code, kit_code_name(code));
    memcpy(lived, mark->h, sizeof(*lived));
    if (lived->n == 0)
        history_begin(lived, reopened);
    code = history_look(lived, reopened, &seen);
    KIT_CHECK(code == 0 && seen.failures == 0, "%s: page_next gave %d, %" PRIu32 " unreadable", dir,
              code, seen.failures);
    at = history_find(lived, &seen, mark->acked);
    if (mark->exactly && at > (int)mark->acked && history_matches(lived, &seen, mark->acked))
        at = (int)mark->acked; /* a later one may look the same */
    KIT_CHECK(at >= 0 && (!mark->exactly || (uint32_t)at == mark->acked),
              "%s is no state behind the acknowledged %" PRIu32 " of %" PRIu32
              " (%d: one before that), %d strangers",
              dir, mark->acked, lived->n - 1, history_find(lived, &seen, 0), seen.strangers);
    history_return_to(lived, (uint32_t)at, reopened);
    if (strcmp(dir, "/d") != 0)
        lived->version_any = 0; /* a copy has versions of its own from here on */
    for (int i = 0; i < 4; i++)
        KIT_CHECK(history_step(lived, reopened) == 0, "an update of what was reopened");
    result->reopened++;
    return reopened;
}

/* No id comes twice. */
static void
id_check(scree_cache *reopened, bool keep)
{
    uint64_t id = 0;

    KIT_CHECK(scree_id_next(reopened, &id) == 0 && id > id_last,
              "id %" PRIu64 " comes after %" PRIu64, id, id_last);
    if (keep)
        id_last = id;
}

static void
image_check(struct sim_image *image, const struct mark *mark, bool verify)
{
    static struct history *lived;
    struct sim_disk *d = sim_disk_new(image, seed);
    struct mark copied = {.h = h, .acked = (uint32_t)backup_state, .exactly = true};
    scree_cache *reopened;

    if (lived == NULL)
        lived = history_new(0);
    sim_disk_record(d, false);
    reopened = directory_open(sim_disk_env(d), "/d", mark, verify, lived);
    id_check(reopened, false);
    KIT_CHECK(scree_close(reopened) == 0, "closing what was reopened");
    if (backup_state >= 0) {
        reopened = directory_open(sim_disk_env(d), "/b", &copied, verify, lived);
        KIT_CHECK(scree_close(reopened) == 0, "closing the copy");
    }
    sim_disk_free(d);
    sim_image_free(image);
}

/* The power goes, here and there: nothing that was not synced is left, or all of it, or something. */
static void
cuts_check(struct sim_replay *r, const struct mark *mark, uint64_t tries)
{
    size_t len = strlen(kit_context);
    uint64_t choices;

    while (sim_replay_cut(r) < mark->events)
        KIT_CHECK(sim_replay_advance(r), "the trace is too short");
    choices = sim_replay_choices(r, CUT_CHOICES);
    for (uint64_t i = 0; i < tries && i < choices; i++) {
        uint64_t choice = i == 0 ? 0 : 1 + kit_below(&random_state, choices - 1);

        snprintf(kit_context + len, sizeof(kit_context) - len,
                 ", power cut at %" PRIu64 " of %" PRIu64 ", choice %" PRIu64, mark->events,
                 sim_disk_events(disk), choice);
        image_check(sim_replay_state(r, choice, CUT_CHOICES, seed), mark,
                    i == 0 && !driver->names_fail);
        kit_context[len] = '\0';
    }
}

/*
 * A new directory whose own name could not be synced: it may be gone with the power, whatever is synced
 * later, and the open that failed said so.
 */
static bool
unnamed(void)
{
    return result->open_failed && work->start == START_NEW && nothing_made;
}

/* The same disk once more, as a program does that starts again: what it says then holds as well. */
static void
live_again(const struct mark *left, const struct mark *closed)
{
    struct history *lived = history_new(0);
    scree_cache *reopened = directory_open(sim_disk_env(disk), "/d", closed, true, lived);
    struct mark flushed, end;
    struct sim_replay *r;
    uint64_t id_first = id_last, id_newest;

    KIT_CHECK(history_batch(lived, reopened) == 0, "a batch");
    KIT_CHECK(history_flush(lived, reopened) == 0, "a flush of what was reopened");
    lived->len_max = HISTORY_BYTES - 100;
    for (int i = 0; i < 60;
         i++) /* more than the log's buffer: some of it is written, and not synced */
        KIT_CHECK(history_step(lived, reopened) == 0, "an update of what was reopened");
    flushed = mark_now(lived, reopened);
    flushed.h = history_copy(lived);
    id_check(reopened, true);
    KIT_CHECK(scree_close(reopened) == 0, "closing what was reopened");
    lived->acked = lived->n - 1;
    end = mark_now(lived, NULL);
    if (unnamed() || !driver->cuts)
        return;
    r = sim_replay_new(disk);
    id_newest = id_last;
    id_last = id_first;
    cuts_check(r, left, 2);
    cuts_check(r, closed, closed->exactly ? 2 : 1);
    cuts_check(r, &flushed, driver->names_fail ? 4 : 2);
    id_last = id_newest;
    cuts_check(r, &end, 1);
    sim_replay_free(r);
}

/* ---- one run ---- */

static int
cache_open(void)
{
    return scree_open("/d", &options, &cache);
}

/* If that fails it does not once nothing fails any more. */
static void
cache_begin(void)
{
    int code = CALL(FAULT_OPEN, cache_open());

    if (code != 0) {
        struct sim_image *image = sim_disk_image(disk);

        KIT_CHECK(cache == NULL, "the open failed, but gave a cache");
        result->open_failed = true;
        nothing_made = sim_image_files(image) == 0;
        sim_image_free(image);
        driver->lift(disk);
        for (unsigned i = 0; i < KINDS_OF_EVENTS; i++)
            atomic_store_explicit(&events[i], 0, memory_order_relaxed);
        code = cache_open();
        KIT_CHECK(code == 0, "opening again gave %d %s", code, kit_code_name(code));
    }
    if (h->n == 0)
        history_begin(h, cache);
    atomic_store_explicit(&wanted, scree_stable_lsn(cache), memory_order_release);
}

/* The thread whose write or sync failed tells so a moment later. */
static bool
poisons_if_it_must(void)
{
    for (int ms = 0; ms < 5000; ms++) {
        if (scree_health(cache) != 0 || result->open_failed || driver->must_poison == NULL ||
            !driver->must_poison(disk))
            return true;
        usleep(1000);
    }
    return false;
}

/* Under the fault, and without it. */
static void
cache_judge(void)
{
    bool failures_are_fair = driver->reads_fail && !driver->early;

    if (driver->early)
        driver->lift(disk);
    if (replica.reader != NULL && scree_health(cache) == 0 && driver->early &&
        history_flush(h, cache) == 0) {
        int code = feed_pull();

        KIT_CHECK(code == 0, "following to the end gave %d", code);
        replica_check();
    }
    KIT_CHECK(poisons_if_it_must(),
              "a write or a sync of the log failed, and all goes on as if it had not");
    if (scree_health(cache) != 0) {
        result->poisoned = true;
        poison_check();
    } else if (driver->early && !work->read_only) {
        resume();
    }
    if (driver->early || !driver->reads_fail)
        live_check(failures_are_fair);
    KIT_CHECK(scree_health(cache) != 0 || events_of(SCREE_EVENT_POISONED) == 0,
              "POISONED was told of a healthy cache");
}

/* What a run left when its close began and what was acknowledged then; what the close gave. */
struct left {
    struct mark mark;
    struct sim_image *image;
    int code;
};

/* With a cache, up to its close. */
static void
cache_live(struct left *left)
{
    pthread_t waiter;

    cache_begin();
    if (!work->read_only)
        KIT_CHECK(pthread_create(&waiter, NULL, waiter_run, NULL) == 0, "thread");
    work->body();
    cache_judge();
    atomic_store_explicit(&waiter_stop, true, memory_order_relaxed);
    if (!work->read_only)
        pthread_join(waiter, NULL);
    scree_log_close(replica.reader);
    left->mark = mark_now(h, cache);
    left->image = sim_disk_image(disk);
    left->code = CALL(FAULT_CLOSE, scree_close(cache));
    cache = NULL;
    result->close_failed = left->code != 0;
}

/* In a thread: what a thread keeps until it ends is no leak. */
static void *
live(void *argument)
{
    driver->arm(disk);
    if (work->without_cache)
        work->body();
    else
        cache_live(argument);
    return NULL;
}

/* Of what a salvage made: nothing that was not, and all of it if that is what it said. */
static void
salvage_check(void)
{
    static unsigned char buffer[8192];
    scree_options o = options;
    scree_cache *c = NULL;
    scree_page_id id = 0;
    int code;

    if (salvage_code != 0)
        return;
    o.event = NULL;
    o.flags = 0;
    code = scree_open("/s", &o, &c);
    if (code == -ENOENT && findings > 0)
        return; /* nothing could be read */
    KIT_CHECK(code == 0, "opening what was salvaged gave %d", code);
    for (uint32_t i = 0; i < h->pages; i++) {
        const struct history_page *want = &h->state[h->n - 1].page[i];
        size_t len = 0;

        code = scree_page_read(c, h->id[i], buffer, sizeof(buffer), &len, NULL);

        KIT_CHECK(code == 0 || (code == SCREE_E_NOT_FOUND && (want->version == 0 || findings > 0)),
                  "salvaged page %" PRIu64 " gave %d", h->id[i], code);
        if (h->id[i] == SCREE_PAGE_ROOT && len == 0 && findings > 0)
            continue; /* it is always there */
        KIT_CHECK(code != 0 || (len == h->len[i] && memcmp(buffer, h->bytes[i], len) == 0),
                  "salvaged page %" PRIu64 " reads wrong", h->id[i]);
    }
    while (scree_page_next(c, id, &id) == 0) {
        uint32_t at = 0;

        while (at < h->pages && (h->id[at] != id || h->state[h->n - 1].page[at].version == 0))
            at++;
        KIT_CHECK(at < h->pages, "page %" PRIu64 " was salvaged, but never was", id);
    }
    KIT_CHECK(scree_close(c) == 0, "closing what was salvaged");
}

static void
leaks_check(uint64_t live_before)
{
#ifdef SCREE_ALLOC_FAULTS
    KIT_CHECK(scree__alloc_live() == live_before, "%lld allocations are left over",
              (long long)(scree__alloc_live() - live_before));
#else
    (void)live_before;
#endif
#ifdef WITH_LSAN
    KIT_CHECK(__lsan_do_recoverable_leak_check() == 0, "leaks");
#endif
}

static uint64_t
allocations(void)
{
#ifdef SCREE_ALLOC_FAULTS
    return scree__alloc_live();
#else
    return 0;
#endif
}

static void
run_setup(void)
{
    const struct origin *o = &origin[work->start];

    h = history_new(0); /* the other one is for all runs */
    memcpy(h, o->h, sizeof(*h));
    h->len_max = work->len_max;
    disk = sim_disk_new(o->image, seed);
    sim_disk_abilities(disk, SIM_PUNCHES | (work->clones ? SIM_CLONES : 0u));
    kit_options_small(&options, &kit_concat);
    options.flush_interval_ms = 0;
    options.env = sim_disk_env(disk);
    options.event = event_count;
    if (work->options != NULL)
        work->options(&options);
    if (work->read_only)
        options.flags = SCREE_READ_ONLY;
    backup_state = -1;
    random_state = seed;
}

static void
run(void)
{
    uint64_t before = allocations();
    struct left left = {.mark = {.h = h, .acked = h->acked}, .code = SCREE_E_INVALID};
    struct mark closed;
    pthread_t thread;

    KIT_CHECK(pthread_create(&thread, NULL, live, &left) == 0, "thread");
    pthread_join(thread, NULL);
    if (!result->struck) /* by a thread of the library, as late as can be */
        result->struck = driver->struck(disk);
    driver->lift(disk);
    leaks_check(before);
    left.mark.h = history_copy(h);
    if (left.code == 0)
        h->acked = h->n - 1;
    closed = mark_now(h, NULL);
    closed.exactly = left.code == 0;
    if (!result->struck)
        return;
    if (work->without_cache)
        salvage_check();
    if (left.image != NULL && !driver->cuts)
        image_check(left.image, &left.mark, closed.events % 4 == 0);
    else
        sim_image_free(left.image); /* one of the cuts may be just that */
    live_again(&left.mark, &closed);
}

void
fault_work_run(unsigned workload, const struct fault_driver *with, struct fault_result *result_out)
{
    pid_t child;

    if (result == NULL)
        result =
            mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    KIT_CHECK(result != MAP_FAILED, "mmap");
    memset(result, 0, sizeof(*result));
    work = &workloads[workload];
    driver = with;
    child = kit_fork();
    if (child == 0) {
        alarm_set();
        run_setup();
        run();
        _exit(0);
    }
    result->ok = kit_join(child) == 0;
    *result_out = *result;
}

/* ---- what they begin with ---- */

/* In a child, so that the parent, which forks, has never had a cache open. Leaves its image in a directory. */
static void
origin_child(enum start start, const char *path)
{
    struct sim_image *image;

    alarm_set();
    disk = sim_disk_new(NULL, seed);
    kit_options_small(&options, &kit_concat);
    options.flush_interval_ms = 0;
    options.env = sim_disk_env(disk);
    KIT_CHECK(cache_open() == 0, "open");
    history_begin(h, cache);
    for (int i = 0; i < 120; i++) {
        KIT_CHECK(history_step(h, cache) == 0, "update");
        if (i % 30 == 29)
            KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
    }
    for (int i = 0; i < 20; i++)
        KIT_CHECK(history_batch(h, cache) == 0, "batch");
    KIT_CHECK(history_flush(h, cache) == 0, "flush");
    if (start == START_CLOSED)
        KIT_CHECK(scree_close(cache) == 0, "close");
    image = sim_disk_image(disk);
    sim_image_export(image, "/d", path);
}

static void
origin_make(enum start start)
{
    struct origin *o = &origin[start];
    char path[KIT_PATH_MAX];

    o->h = history_new(seed);
    if (start == START_NEW)
        return;
    h = o->h;
    kit_dir_name(path, "fault-origin");
    pid_t child = kit_fork();

    if (child == 0) {
        origin_child(start, path);
        _exit(0);
    }
    KIT_CHECK(kit_join(child) == 0, "making what to begin with");
    o->image = sim_image_new();
    sim_image_import(o->image, "/d", path);
    kit_dir_remove(path);
}

void
fault_work_begin(uint64_t with_seed)
{
    seed = with_seed;
    kit_caches_many();
    for (int start = 0; start < STARTS; start++)
        origin_make((enum start)start);
}
