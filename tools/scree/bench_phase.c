/*
 * bench_phase.c - the child's frame around the timed operations of any engine: load, warm up, time, close.
 *
 * Threads are made anew for each phase and meet at a barrier, so that the time taken is that of
 * operations. What the load left in buffers is flushed before the timed part: bytes counted from its
 * start are its own.
 */
#include "bench.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAWS (1u << 22) /* ids drawn beforehand for each thread; then from the start again */
#define ZIPF_THETA 0.99
#define WARM_S_MAX 1.0
#define WARM_SHARE 0.25
#define NO_LIMIT UINT64_MAX

/* One thread of one phase. */
struct phase_thread {
    pthread_t thread;
    pthread_barrier_t *start;
    struct bench_worker *worker;
    void (*work)(struct phase_thread *p);
    uint64_t from, to; /* load: keys; timed: at most `to` operations */
    uint64_t id_min, id_max;
    uint32_t *draws;
};

/* ---- what each thread does ------------------------------------------------------------------------ */

static void
load_keys(struct phase_thread *p)
{
    struct bench_worker *w = p->worker;
    const struct bench_run *run = w->run;
    const struct bench_options *o = &run->options;

    p->id_min = UINT64_MAX;
    for (uint64_t key = p->from; key < p->to && w->error == 0; key++) {
        uint64_t id = 0;
        unsigned char *page = w->copy;

        if (o->workload == BENCH_CHURN) {
            page = w->frags; /* body 0: operation 0 */
            bench_churn_stamp(page, 0, key);
        } else {
            bench_page_make(page, o->page, key, o->seed);
        }
        w->error = run->hooks.load(w, key, page, &id);
        run->ids[key] = id;
        p->id_min = id < p->id_min ? id : p->id_min;
        p->id_max = id > p->id_max ? id : p->id_max;
    }
}

/* Ranks by the method of Gray et al. (SIGMOD 1994), scattered over the keys by a hash. */
static void
draw_zipfian(struct phase_thread *p, double zeta_n)
{
    const struct bench_run *run = p->worker->run;
    double n = (double)run->options.n;
    double alpha = 1 / (1 - ZIPF_THETA), zeta_2 = 1 + pow(0.5, ZIPF_THETA);
    double eta = (1 - pow(2 / n, 1 - ZIPF_THETA)) / (1 - zeta_2 / zeta_n);

    for (uint32_t i = 0; i < DRAWS; i++) {
        double u = tool_rng_unit(&p->worker->rng), uz = u * zeta_n;
        uint64_t rank = 0;

        if (uz >= zeta_2)
            rank = (uint64_t)(n * pow(eta * u - eta + 1, alpha));
        else if (uz >= 1)
            rank = 1;
        p->draws[i] = (uint32_t)run->ids[tool_mix(rank ^ run->options.seed) % run->options.n];
    }
}

static void
draw_ids(struct phase_thread *p)
{
    const struct bench_run *run = p->worker->run;

    if (run->options.zipfian) {
        double zeta_n = 0;

        for (uint64_t i = 1; i <= run->options.n; i++)
            zeta_n += 1 / pow((double)i, ZIPF_THETA);
        draw_zipfian(p, zeta_n);
        return;
    }
    for (uint32_t i = 0; i < DRAWS; i++)
        p->draws[i] = (uint32_t)run->ids[tool_rng_below(&p->worker->rng, run->options.n)];
}

static void
operate(struct phase_thread *p)
{
    bench_worker_run(p->worker, p->to);
}

/* ---- phases ------------------------------------------------------------------------------------------ */

static void *
phase_main(void *arg)
{
    struct phase_thread *p = arg;

    (void)pthread_barrier_wait(p->start);
    p->work(p);
    return NULL;
}

/* All threads do `work`; if seconds > 0 they are stopped after them. The time from the barrier to the
   last one's end, or a negative error. */
static double
phase_run(struct phase_thread *threads, unsigned n, void (*work)(struct phase_thread *),
          double seconds, _Atomic uint32_t *stop)
{
    pthread_barrier_t start;
    uint64_t begun;
    int rc = 0;

    atomic_store_explicit(stop, 0, memory_order_relaxed); /* thread creation publishes it */
    (void)pthread_barrier_init(&start, NULL, n + 1);
    for (unsigned i = 0; i < n; i++) {
        threads[i].start = &start;
        threads[i].work = work;
        if (pthread_create(&threads[i].thread, NULL, phase_main, &threads[i]) != 0) {
            /* The others wait at the barrier for a thread that will not come: end the process. */
            (void)fprintf(stderr, "%s: cannot start thread %u of %u\n",
                          threads[i].worker->run->program, i + 1, n);
            exit(TOOL_TROUBLE);
        }
    }
    (void)pthread_barrier_wait(&start);
    begun = tool_now_ns();
    if (seconds > 0) {
        tool_sleep_ms((unsigned)(seconds * 1000));
        atomic_store_explicit(stop, 1, memory_order_relaxed);
    }
    for (unsigned i = 0; i < n; i++) {
        (void)pthread_join(threads[i].thread, NULL);
        if (threads[i].worker->error != 0)
            rc = threads[i].worker->error;
    }
    (void)pthread_barrier_destroy(&start);
    return rc != 0 ? rc : (double)(tool_now_ns() - begun) * 1e-9;
}

static int
load(struct bench_run *run, struct phase_thread *threads, _Atomic uint32_t *stop)
{
    struct bench_shared *s = run->shared;
    unsigned n = run->options.threads;
    double took;

    for (unsigned i = 0; i < n; i++) {
        threads[i].from = run->options.n * i / n;
        threads[i].to = run->options.n * (i + 1) / n;
    }
    took = phase_run(threads, n, load_keys, 0, stop);
    if (took < 0)
        return (int)took;
    s->load_s = took;
    s->pages = run->options.n;
    s->id_min = UINT64_MAX;
    for (unsigned i = 0; i < n; i++) {
        s->id_min = threads[i].id_min < s->id_min ? threads[i].id_min : s->id_min;
        s->id_max = threads[i].id_max > s->id_max ? threads[i].id_max : s->id_max;
    }
    if (s->id_max > UINT32_MAX ||
        (run->options.verify && s->id_max - s->id_min >= run->appends_span)) {
        (void)fprintf(stderr, "%s: page ids up to %" PRIu64 " are more than it can draw\n",
                      run->program, s->id_max);
        return SCREE_E_TOO_BIG;
    }
    return run->hooks.loaded(run->hooks.ctx);
}

/* Operations for so long; of a churn a given number, `rounds` for each page, for so long at most. */
static double
operations(struct bench_run *run, struct phase_thread *threads, double seconds, unsigned rounds,
           _Atomic uint32_t *stop)
{
    if (run->churn != NULL) {
        bench_churn_begin(run, rounds * run->options.n, seconds, rounds > 1);
        seconds = 0;
    }
    return phase_run(threads, run->options.threads, operate, seconds, stop);
}

/* The phases behind the load. */
static int
measure(struct bench_run *run, struct phase_thread *threads, _Atomic uint32_t *stop)
{
    struct bench_shared *s = run->shared;
    unsigned n = run->options.threads;
    double warm = run->options.seconds * WARM_SHARE, seconds = run->options.seconds;
    int rc;

    for (unsigned i = 0; i < n; i++)
        threads[i].to = s->commit_cap > 0 ? s->commit_cap / 8 : NO_LIMIT;
    s->seconds = operations(run, threads, warm < WARM_S_MAX ? warm : WARM_S_MAX, 1, stop);
    if (s->seconds < 0)
        return (int)s->seconds;
    rc = run->hooks.flush(run->hooks.ctx);
    if (rc == 0)
        rc = run->hooks.stats(run->hooks.ctx, &s->begun);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; i < n; i++) {
        memset(threads[i].worker->latency, 0, sizeof(*threads[i].worker->latency));
        threads[i].worker->ops = threads[i].worker->user_bytes = 0;
        threads[i].to = s->commit_cap > 0 ? s->commit_cap - s->commit_n[i] : NO_LIMIT;
    }
    s->device_bytes = tool_proc_io_bytes("write_bytes:");
    s->device_read_bytes = tool_proc_io_bytes("read_bytes:");
    if (run->churn != NULL && !run->options.given_seconds)
        seconds = 0;
    s->seconds = operations(run, threads, seconds, BENCH_CHURN_ROUNDS, stop);
    if (s->seconds < 0)
        return (int)s->seconds;
    if (run->churn != NULL)
        bench_churn_end(run);
    for (unsigned i = 0; i < n; i++) {
        s->ops += threads[i].worker->ops;
        s->user_bytes += threads[i].worker->user_bytes;
        scree__histogram_sum(&s->latency, threads[i].worker->latency);
    }
    return 0;
}

/* recover has no timed operations: its figures are those of the load, its result is the open. */
static void
count_load(struct bench_run *run)
{
    run->shared->ops = run->options.n;
    run->shared->user_bytes = run->options.n * run->options.page;
    run->shared->seconds = run->shared->load_s;
}

static int
worker_init(struct bench_worker *w)
{
    const struct bench_options *o = &w->run->options;
    bool churn = o->workload == BENCH_CHURN;
    size_t copy = o->page + (size_t)BENCH_FRAGS_KEPT * o->frag;
    size_t body = churn ? o->page : o->frag;

    copy = copy > o->value ? copy : o->value;
    w->copy = malloc(copy);
    w->frags = malloc(BENCH_POOL * body);
    if (w->copy == NULL || w->frags == NULL)
        return SCREE_E_NO_MEMORY;
    w->harness_bytes += copy + BENCH_POOL * body;
    for (uint32_t i = 0; i < BENCH_POOL; i++) {
        if (churn)
            bench_churn_make(w->frags + i * body, o->page, i, o->seed);
        else
            bench_fragment_make(w->frags + i * body, o->frag, i, o->seed);
    }
    return 0;
}

static int
workers_make(struct bench_run *run, struct phase_thread *threads, struct bench_worker *workers,
             const _Atomic uint32_t *stop)
{
    bool drawn = run->options.workload != BENCH_COMMIT && run->options.workload != BENCH_RECOVER;

    for (unsigned i = 0; i < run->options.threads; i++) {
        struct bench_worker *w = &workers[i];
        int rc;

        memset(w, 0, sizeof(*w));
        w->run = run;
        w->thread = i;
        w->stop = stop;
        tool_rng_init(&w->rng, run->options.seed * 1000 + i);
        w->latency = calloc(1, sizeof(*w->latency));
        w->harness_bytes = sizeof(*w->latency) + (drawn ? DRAWS * sizeof(uint32_t) : 0);
        rc = worker_init(w);
        if (rc != 0 || w->latency == NULL)
            return SCREE_E_NO_MEMORY;
        rc = run->hooks.worker(run->hooks.ctx, w);
        if (rc != 0)
            return rc;
        run->shared->harness_bytes += w->harness_bytes;
        threads[i].worker = w;
        if (drawn) {
            threads[i].draws = malloc(DRAWS * sizeof(uint32_t));
            if (threads[i].draws == NULL)
                return SCREE_E_NO_MEMORY;
            w->draws = threads[i].draws;
            w->draws_mask = DRAWS - 1;
        }
    }
    return 0;
}

static int
run_phases(struct bench_run *run, struct phase_thread *threads, _Atomic uint32_t *stop)
{
    const struct bench_options *o = &run->options;
    double took;
    int rc;

    run->shared->device_bytes = tool_proc_io_bytes("write_bytes:");
    run->shared->device_read_bytes = tool_proc_io_bytes("read_bytes:");
    rc = o->workload != BENCH_COMMIT ? load(run, threads, stop) : 0;
    if (rc != 0 || o->workload == BENCH_RECOVER) {
        count_load(run);
        return rc;
    }
    if (o->workload != BENCH_COMMIT) {
        took = phase_run(threads, o->threads, draw_ids, 0, stop);
        if (took < 0)
            return (int)took;
    }
    return measure(run, threads, stop);
}

/* What can only be read while the engine is open. */
static int
take_figures(struct bench_run *run)
{
    run->shared->rss_anon = tool_proc_status_bytes("RssAnon:");
    return run->hooks.stats(run->hooks.ctx, &run->shared->ended);
}

/* What the parent gave: touched for each page and, to verify, by each thread. */
static uint64_t
tables_bytes(const struct bench_run *run)
{
    const struct bench_options *o = &run->options;
    uint64_t each = sizeof(uint64_t);

    if (run->appends != NULL)
        each += o->threads * sizeof(*run->appends);
    if (run->puts != NULL)
        each += o->threads * sizeof(*run->puts);
    return sizeof(*run->shared) + o->n * each;
}

static int
finish(struct bench_run *run)
{
    struct bench_shared *s = run->shared;
    uint64_t begun = tool_now_ns();
    int rc = 0;

    if (!run->options.crash)
        rc = run->hooks.close(run->hooks.ctx);
    s->close_s = run->options.crash ? 0 : (double)(tool_now_ns() - begun) * 1e-9;
    s->device_bytes = tool_proc_io_bytes("write_bytes:") - s->device_bytes;
    s->device_read_bytes = tool_proc_io_bytes("read_bytes:") - s->device_read_bytes;
    s->peak_rss = tool_proc_status_bytes("VmHWM:");
    return rc;
}

int
bench_frame(struct bench_run *run)
{
    struct bench_worker *workers;
    struct phase_thread *threads;
    _Atomic uint32_t stop;
    int rc;

    atomic_init(&stop, 0);
    run->shared->harness_bytes = tables_bytes(run);
    workers = aligned_alloc(_Alignof(struct bench_worker), run->options.threads * sizeof(*workers));
    threads = calloc(run->options.threads, sizeof(*threads));
    rc = workers == NULL || threads == NULL ? SCREE_E_NO_MEMORY
                                            : workers_make(run, threads, workers, &stop);
    if (rc == 0 && run->options.workload == BENCH_CHURN)
        rc = bench_churn_init(run);
    if (rc == 0)
        rc = run_phases(run, threads, &stop);
    if (rc == 0)
        rc = take_figures(run);
    if (rc == 0)
        rc = finish(run);
    /* Workers and tables go with the process, which ends now. */
    return rc;
}
