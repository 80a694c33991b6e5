/*
 * stress.c - `scree stress`: work, kill -9, recover, check, and again.
 *
 * The parent forks a worker, lets it run for about --crash-every seconds, kills it, now and then
 * kills a recovery too, has two children look at what was recovered, and judges (stress_verify.c).
 * The last worker is asked to close instead. The first thing found lost or wrong ends the run.
 */
#include "stress.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_MS 20u
#define STALL_S 30u /* a worker that finishes nothing for so long hangs */
#define LOOK_S 120u /* a look that takes longer hangs */
#define CLOSE_S 60u
#define RECOVERY_MS 12u /* a recovery that is killed lives less than that */

struct stress_options {
    unsigned threads;
    double seconds;
    double crash_every; /* 0: never */
    const char *dir;
    bool json;
    uint64_t seed;
};

struct stress_run {
    struct stress_options options;
    struct stress_shared *shared;
    struct tool_rng rng;
    char parent_dir[PATH_MAX]; /* ours, made by mkdtemp; the cache is shared->dir below it */
    uint64_t begun_ns, end_ns, killed_ns;
    bool tty;
    /* Totals. */
    uint64_t kills, recovery_kills, closes;
    struct stress_verdict verdict;
    uint64_t open_us_max, torn_bytes, records, disk_max;
    uint64_t evictions, consolidations, snapshots, cleaned_bytes, misses;
    /* Progress line. */
    uint64_t line_ns, line_ops;
    struct scree__histogram line_seen, line_now;
};

static volatile sig_atomic_t interrupted;

static void
on_signal(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

void
stress_wrong(struct stress_shared *s, const char *format, ...)
{
    /* Acq_rel: each message has a row of its own. */
    uint32_t row = atomic_fetch_add_explicit(&s->wrongs, 1, memory_order_acq_rel);
    va_list args;

    if (row >= STRESS_TEXTS)
        return;
    va_start(args, format);
    (void)vsnprintf(s->texts[row], STRESS_TEXT_BYTES, format, args);
    va_end(args);
}

static uint64_t
wrongs(const struct stress_run *r)
{
    return atomic_load_explicit(&r->shared->wrongs, memory_order_acquire);
}

/* ---- figures --------------------------------------------------------------------------------- */

static uint64_t
calls(const struct stress_run *r, enum stress_kind kind)
{
    uint64_t sum = 0;

    for (unsigned t = 0; t < r->options.threads; t++)
        sum += atomic_load_explicit(&r->shared->thread[t].calls[kind], memory_order_relaxed);
    return sum;
}

static uint64_t
all_calls(const struct stress_run *r)
{
    uint64_t sum = 0;

    for (int k = 0; k < STRESS_KINDS; k++)
        sum += calls(r, (enum stress_kind)k);
    return sum;
}

static void
latency_sum(const struct stress_run *r, enum stress_kind kind, struct scree__histogram *into)
{
    for (unsigned t = 0; t < r->options.threads; t++)
        scree__histogram_sum(into, &r->shared->thread[t].latency[kind]);
}

/* p99 of the calls since the last line, of all kinds but syncs and snapshots. */
static double
line_p99_us(struct stress_run *r)
{
    struct scree__histogram fresh;

    memset(&r->line_now, 0, sizeof(r->line_now));
    for (int k = 0; k <= STRESS_GET; k++)
        latency_sum(r, (enum stress_kind)k, &r->line_now);
    memset(&fresh, 0, sizeof(fresh));
    for (size_t b = 0; b < SCREE__HISTOGRAM_BUCKETS; b++) {
        uint64_t now = atomic_load_explicit(&r->line_now.count[b], memory_order_relaxed);
        uint64_t seen = atomic_load_explicit(&r->line_seen.count[b], memory_order_relaxed);

        atomic_store_explicit(&fresh.count[b], now - seen, memory_order_relaxed);
        atomic_store_explicit(&r->line_seen.count[b], now, memory_order_relaxed);
    }
    atomic_store_explicit(&fresh.max, atomic_load_explicit(&r->line_now.max, memory_order_relaxed),
                          memory_order_relaxed);
    return (double)scree__histogram_quantile(&fresh, 0.99) * 1e-3;
}

/* Once a second. */
static void
progress(struct stress_run *r)
{
    uint64_t now = tool_now_ns(), ops, disk;

    if (now - r->line_ns < 1000000000u)
        return;
    ops = all_calls(r);
    disk = tool_disk_usage(r->shared->dir).bytes;
    r->disk_max = disk > r->disk_max ? disk : r->disk_max;
    if (r->tty) {
        double resident =
            (double)atomic_load_explicit(&r->shared->resident_bytes, memory_order_relaxed);
        double lag = (double)atomic_load_explicit(&r->shared->lag_bytes, memory_order_relaxed);

        (void)fprintf(stderr,
                      "\r%4.0f s  %3" PRIu64
                      " kills  %7.0f op/s  p99 %6.1f us  resident %5.1f MiB  "
                      "disk %5.1f MiB  unstable %6.1f KiB\033[K",
                      (double)(now - r->begun_ns) * 1e-9, r->kills,
                      (double)(ops - r->line_ops) * 1e9 / (double)(now - r->line_ns),
                      line_p99_us(r), resident / 1048576, (double)disk / 1048576, lag / 1024);
        (void)fflush(stderr);
    }
    r->line_ns = now;
    r->line_ops = ops;
}

/* What the library counted in the worker that just ended. */
static void
take_counters(struct stress_run *r)
{
    struct stress_shared *s = r->shared;

    /* The next worker counts from 0. */
    r->evictions += atomic_exchange_explicit(&s->evictions, 0, memory_order_relaxed);
    r->consolidations += atomic_exchange_explicit(&s->consolidations, 0, memory_order_relaxed);
    r->snapshots += atomic_exchange_explicit(&s->snapshots, 0, memory_order_relaxed);
    r->cleaned_bytes += atomic_exchange_explicit(&s->cleaned_bytes, 0, memory_order_relaxed);
    r->misses += atomic_exchange_explicit(&s->misses, 0, memory_order_relaxed);
}

/* ---- children -------------------------------------------------------------------------------- */

enum child { CHILD_CREATE, CHILD_WORKER, CHILD_LOOK, CHILD_LOOK_CLOSE };

static pid_t
child_start(struct stress_run *r, enum child what, struct stress_look *look)
{
    pid_t parent = getpid(), pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid != 0) {
        if (pid < 0)
            stress_wrong(r->shared, "cannot fork: %s", strerror(errno));
        return pid;
    }
    (void)signal(SIGINT, SIG_IGN); /* the parent decides */
    (void)signal(SIGTERM, SIG_DFL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(TOOL_TROUBLE);
    if (what == CHILD_WORKER)
        stress_worker(r->shared);
    (void)alarm(LOOK_S);
    if (what == CHILD_CREATE)
        stress_create(r->shared);
    stress_look(r->shared, look, what == CHILD_LOOK_CLOSE);
    _exit(TOOL_TROUBLE);
}

/* Ends with the child; its status. killed: by us, so SIGKILL is no news. */
static int
child_end(struct stress_run *r, pid_t pid, const char *what, bool killed)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            break;
    if (WIFSIGNALED(status) && !(killed && WTERMSIG(status) == SIGKILL))
        stress_wrong(r->shared, "%s died of signal %d%s", what, WTERMSIG(status),
                     WTERMSIG(status) == SIGALRM ? " (it hung)" : "");
    else if (WIFEXITED(status) && WEXITSTATUS(status) != 0 && wrongs(r) == 0)
        stress_wrong(r->shared, "%s ended with status %d", what, WEXITSTATUS(status));
    return status;
}

/* Runs a child to its end while the progress line goes on. */
static bool
child_run(struct stress_run *r, enum child what, struct stress_look *look, const char *name)
{
    pid_t pid = child_start(r, what, look);

    if (pid < 0)
        return false;
    (void)child_end(r, pid, name, false);
    progress(r);
    return wrongs(r) == 0;
}

/* ---- one worker's life ----------------------------------------------------------------------- */

static bool
worker_ended(pid_t pid)
{
    siginfo_t info = {0};

    /* WNOWAIT: child_end takes the status. */
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

/* Waits for the moment to end the worker, or for its own end. */
static void
worker_watch(struct stress_run *r, pid_t pid, uint64_t until_ns)
{
    uint64_t moved_ns = tool_now_ns(), ops = all_calls(r);

    while (!interrupted && !worker_ended(pid)) {
        uint64_t now = tool_now_ns(), ops_now = all_calls(r);

        if (now >= until_ns || wrongs(r) != 0 ||
            atomic_load_explicit(&r->shared->journal_full, memory_order_relaxed) != 0)
            return;
        if (ops_now != ops) {
            ops = ops_now;
            moved_ns = now;
        } else if (now - moved_ns > STALL_S * UINT64_C(1000000000)) {
            stress_wrong(r->shared, "the worker (process %ld) finished no call for %u s: it hangs",
                         (long)pid, STALL_S);
            return;
        }
        progress(r);
        tool_sleep_ms(TICK_MS);
    }
}

/* The worker comes to its end by itself and closes the cache. */
static void
worker_close(struct stress_run *r, pid_t pid)
{
    uint64_t until = tool_now_ns() + CLOSE_S * UINT64_C(1000000000);
    bool killed = false;

    atomic_store_explicit(&r->shared->stop, 1, memory_order_relaxed);
    while (!worker_ended(pid) && tool_now_ns() < until)
        tool_sleep_ms(TICK_MS);
    if (!worker_ended(pid)) {
        stress_wrong(r->shared, "the worker did not close within %u s: it hangs", CLOSE_S);
        killed = kill(pid, SIGKILL) == 0;
    }
    (void)child_end(r, pid, "the worker", killed);
    r->closes++;
}

/* A recovery that is itself killed on the way: the next one has to cope. */
static void
kill_a_recovery(struct stress_run *r)
{
    pid_t pid = child_start(r, CHILD_LOOK, &r->shared->looks[0]);

    if (pid < 0)
        return;
    tool_sleep_ms((unsigned)tool_rng_below(&r->rng, RECOVERY_MS));
    (void)kill(pid, SIGKILL);
    (void)child_end(r, pid, "a recovery", true);
    r->recovery_kills++;
}

static bool
check(struct stress_run *r, bool clean)
{
    struct stress_shared *s = r->shared;
    struct stress_verdict verdict;

    for (int i = 0; i < 2; i++)
        s->looks[i].complete = 0;
    if (!clean && tool_rng_below(&r->rng, 3) == 0)
        kill_a_recovery(r);
    if (wrongs(r) != 0 || !child_run(r, CHILD_LOOK, &s->looks[0], "recovery") ||
        !child_run(r, s->epoch % 2 ? CHILD_LOOK : CHILD_LOOK_CLOSE, &s->looks[1],
                   "the second recovery"))
        return false;
    if (clean && s->looks[0].clean != 1)
        stress_wrong(s, "the cache was closed, but was found as if after a crash");
    if (!stress_verify(s, clean, &verdict)) {
        stress_wrong(s, "out of memory while checking");
        return false;
    }
    r->verdict.acked += verdict.acked;
    r->verdict.kept += verdict.kept;
    r->verdict.unacked += verdict.unacked;
    r->verdict.lost += verdict.lost;
    r->open_us_max = s->looks[0].open_us > r->open_us_max ? s->looks[0].open_us : r->open_us_max;
    r->torn_bytes += s->looks[0].torn_bytes;
    r->records += s->looks[0].records;
    return wrongs(r) == 0;
}

/* A moment about crash_every after the last kill, checks included, but not before the worker could work. */
static uint64_t
next_kill(struct stress_run *r)
{
    double after = r->options.crash_every * (0.8 + 0.2 * tool_rng_unit(&r->rng));
    uint64_t at = r->killed_ns + (uint64_t)(after * 1e9);
    uint64_t soonest = tool_now_ns() + (uint64_t)(r->options.crash_every * 0.5e9);

    return at > soonest ? at : soonest;
}

/* One worker from fork to verdict; false ends the run. */
static bool
epoch(struct stress_run *r)
{
    struct stress_shared *s = r->shared;
    uint64_t until = r->end_ns;
    bool last = true, clean;
    pid_t pid;

    s->epoch++;
    atomic_store_explicit(&s->stop, 0, memory_order_relaxed);
    atomic_store_explicit(&s->journal_full, 0, memory_order_relaxed);
    if (r->options.crash_every > 0) {
        uint64_t kill_ns = next_kill(r);

        /* The last worker gets some time too: it closes. */
        if (kill_ns + (uint64_t)(r->options.crash_every * 0.5e9) < until) {
            until = kill_ns;
            last = false;
        }
    }
    pid = child_start(r, CHILD_WORKER, NULL);
    if (pid < 0)
        return false;
    worker_watch(r, pid, until);
    clean = !interrupted && wrongs(r) == 0 && !worker_ended(pid) && tool_now_ns() >= until && last;
    if (clean) {
        worker_close(r, pid);
    } else {
        r->killed_ns = tool_now_ns();
        (void)kill(pid, SIGKILL);
        (void)child_end(r, pid, "the worker", true);
        r->kills++;
    }
    take_counters(r);
    progress(r);
    return check(r, clean) && !interrupted && tool_now_ns() < r->end_ns;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void
print_table(struct stress_run *r)
{
    struct scree__histogram *h = &r->line_now;

    (void)printf("\n%-16s %12s %10s %10s %12s\n", "call", "calls", "p50 us", "p99 us", "max us");
    for (int k = 0; k < STRESS_KINDS; k++) {
        memset(h, 0, sizeof(*h));
        latency_sum(r, (enum stress_kind)k, h);
        (void)printf("%-16s %12" PRIu64 " %10.1f %10.1f %12.1f\n", stress_kind_names[k],
                     calls(r, (enum stress_kind)k),
                     (double)scree__histogram_quantile(h, 0.5) * 1e-3,
                     (double)scree__histogram_quantile(h, 0.99) * 1e-3,
                     (double)atomic_load_explicit(&h->max, memory_order_relaxed) * 1e-3);
    }
}

static json_t *
json_calls(struct stress_run *r)
{
    json_t *o = json_object();

    for (int k = 0; k < STRESS_KINDS; k++) {
        memset(&r->line_now, 0, sizeof(r->line_now));
        latency_sum(r, (enum stress_kind)k, &r->line_now);
        (void)json_object_set_new(
            o, stress_kind_names[k],
            json_pack("{s:I,s:f,s:f,s:f}", "calls", (json_int_t)calls(r, (enum stress_kind)k),
                      "p50_us", (double)scree__histogram_quantile(&r->line_now, 0.5) * 1e-3,
                      "p99_us", (double)scree__histogram_quantile(&r->line_now, 0.99) * 1e-3,
                      "max_us",
                      (double)atomic_load_explicit(&r->line_now.max, memory_order_relaxed) * 1e-3));
    }
    return o;
}

/* Every figure once, for both forms of the report. */
static json_t *
json_figures(struct stress_run *r)
{
    const struct stress_shared *s = r->shared;
    uint64_t conflicts = 0, refusals = 0;

    for (unsigned t = 0; t < r->options.threads; t++) {
        conflicts += atomic_load_explicit(&s->thread[t].conflicts, memory_order_relaxed);
        refusals += atomic_load_explicit(&s->thread[t].refusals, memory_order_relaxed);
    }
    return json_pack(
        "{s:I,s:f,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}",
        "threads", (json_int_t)r->options.threads, "seconds",
        (double)(tool_now_ns() - r->begun_ns) * 1e-9, "seed", (json_int_t)r->options.seed, "kills",
        (json_int_t)r->kills, "recoveries_killed", (json_int_t)r->recovery_kills, "closes",
        (json_int_t)r->closes, "acknowledged", (json_int_t)r->verdict.acked, "recovered",
        (json_int_t)r->verdict.kept, "unacknowledged_gone", (json_int_t)r->verdict.unacked, "lost",
        (json_int_t)r->verdict.lost, "wrong", (json_int_t)wrongs(r), "conflicts",
        (json_int_t)conflicts, "stale_refused", (json_int_t)refusals, "misses",
        (json_int_t)r->misses, "evictions", (json_int_t)r->evictions, "consolidations",
        (json_int_t)r->consolidations, "snapshots", (json_int_t)r->snapshots, "deleted_bytes",
        (json_int_t)r->cleaned_bytes, "records_replayed", (json_int_t)r->records, "open_us_max",
        (json_int_t)r->open_us_max, "resident_bytes_max",
        (json_int_t)atomic_load_explicit(&s->resident_max, memory_order_relaxed), "disk_bytes_max",
        (json_int_t)r->disk_max);
}

static void
report(struct stress_run *r)
{
    json_t *figures = json_figures(r), *value;
    const char *name;
    uint64_t texts = wrongs(r) < STRESS_TEXTS ? wrongs(r) : STRESS_TEXTS;

    if (r->tty)
        (void)fprintf(stderr, "\r\033[K");
    for (uint64_t i = 0; i < texts; i++)
        (void)fprintf(stderr, "WRONG: %s\n", r->shared->texts[i]);
    if (wrongs(r) > texts)
        (void)fprintf(stderr, "WRONG: and %" PRIu64 " more\n", wrongs(r) - texts);
    if (r->options.json) {
        (void)json_object_set_new(figures, "calls", json_calls(r));
        (void)json_dumpf(figures, stdout, JSON_COMPACT | JSON_REAL_PRECISION(7));
        (void)putchar('\n');
    } else {
        print_table(r);
        (void)putchar('\n');
        json_object_foreach(figures, name, value)
        {
            if (json_is_integer(value))
                (void)printf("%-20s %14" JSON_INTEGER_FORMAT "\n", name, json_integer_value(value));
            else
                (void)printf("%-20s %14.1f\n", name, json_real_value(value));
        }
    }
    json_decref(figures);
    (void)fflush(stdout);
}

/* ---- the beginning --------------------------------------------------------------------------- */

static int
prepare(struct stress_run *r)
{
    const struct stress_options *o = &r->options;
    const char *where = o->dir != NULL ? o->dir : getenv("TMPDIR");
    struct stress_shared *s = tool_shared_alloc(sizeof(*s) + o->threads * sizeof(s->thread[0]));
    struct stress_op *journal = tool_shared_alloc(STRESS_OPS_MAX * sizeof(*journal));

    if (s == NULL || journal == NULL)
        return -ENOMEM;
    r->shared = s;
    s->threads = o->threads;
    s->seed = o->seed;
    s->journal_cap = STRESS_OPS_MAX / o->threads;
    s->found_max = o->threads * (STRESS_SLOTS + 1u) + STRESS_LEDGERS + 1024;
    for (int i = 0; i < 2; i++) {
        s->looks[i].found = tool_shared_alloc(s->found_max * sizeof(struct stress_found));
        if (s->looks[i].found == NULL)
            return -ENOMEM;
    }
    for (unsigned t = 0; t < o->threads; t++)
        s->thread[t].journal = journal + t * s->journal_cap;
    if (where == NULL || where[0] == '\0')
        where = "/tmp";
    if (snprintf(r->parent_dir, sizeof(r->parent_dir), "%s/scree-stress-XXXXXX", where) >=
        (int)sizeof(r->parent_dir) - 8)
        return -ENAMETOOLONG;
    if (o->dir != NULL && mkdir(o->dir, 0777) != 0 && errno != EEXIST)
        return -errno;
    if (mkdtemp(r->parent_dir) == NULL)
        return -errno;
    (void)snprintf(s->dir, sizeof(s->dir), "%.*s/pages", (int)sizeof(s->dir) - 8, r->parent_dir);
    return 0;
}

static error_t
stress_parse(int key, char *arg, struct argp_state *state)
{
    struct stress_options *o = state->input;

    switch (key) {
    case 't':
        o->threads = (unsigned)tool_number(state, arg, 1, STRESS_THREADS_MAX);
        return 0;
    case 's':
        o->seconds = tool_real(state, arg, 0.1, 1e7);
        return 0;
    case 'k':
        o->crash_every = tool_real(state, arg, 0, 1e7);
        return 0;
    case 'd':
        o->dir = arg;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'S':
        o->seed = tool_number(state, arg, 0, UINT32_MAX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void
catch_signals(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND; /* a second one ends us at once */
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

int
tool_stress(int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"threads", 't', "T", 0, "threads of the worker (4)", 0},
        {"seconds", 's', "S", 0, "how long all of it runs (20)", 0},
        {"crash-every", 'k', "K", 0, "kill -9 about every K seconds, 0: never (3)", 0},
        {"dir", 'd', "D", 0, "make the temporary directory in D ($TMPDIR or /tmp)", 0},
        {"json", 'j', NULL, 0, "the report as one JSON object", 0},
        {"seed", 'S', "X", 0, "of the random choices (from the clock)", 0},
        {0}};
    static const struct argp argp = {list,
                                     stress_parse,
                                     NULL,
                                     "Threads work on self-checking pages; the process is killed, "
                                     "the directory reopened, and every "
                                     "acknowledged update and the prefix rule checked. Ends with 1 "
                                     "if anything is lost or wrong.",
                                     0,
                                     0,
                                     0};
    struct stress_run *r = calloc(1, sizeof(*r));
    int rc;

    if (r == NULL)
        return TOOL_TROUBLE;
    r->options = (struct stress_options){
        .threads = 4, .seconds = 20, .crash_every = 3, .seed = tool_now_ns() % 1000000};
    (void)argp_parse(&argp, argc, argv, 0, NULL, &r->options);
    rc = prepare(r);
    if (rc != 0) {
        tool_complain("stress", rc);
        free(r);
        return TOOL_TROUBLE;
    }
    catch_signals();
    tool_rng_init(&r->rng, r->options.seed);
    r->tty = isatty(STDERR_FILENO) == 1;
    (void)fprintf(stderr, "seed %" PRIu64 ", %u threads, in %s\n", r->options.seed,
                  r->options.threads, r->parent_dir);
    r->begun_ns = r->killed_ns = r->line_ns = tool_now_ns();
    r->end_ns = r->begun_ns + (uint64_t)(r->options.seconds * 1e9);
    if (child_run(r, CHILD_CREATE, NULL, "creating the directory"))
        while (epoch(r))
            ;
    report(r);
    rc = wrongs(r) != 0 ? TOOL_WRONG : TOOL_OK;
    if (rc != TOOL_OK)
        (void)fprintf(stderr, "scree stress: the directory is kept: %s\n", r->shared->dir);
    else if (tool_remove_tree(r->parent_dir) != 0)
        (void)fprintf(stderr, "scree stress: %s could not be removed\n", r->parent_dir);
    free(r);
    return rc;
}
