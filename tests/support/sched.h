/*
 * sched.h - the real library, threads and all, under an order that a number decides.
 *
 * Threads are real ones, but only the one that holds the baton runs; the others are parked. At each scheduling
 * point (an atomic access that is not relaxed, a lock, a read section's begin and end, a wait, a wake, a call
 * of the clock) the holder may have to pass it on. Who gets it is decided by a policy: a script, numbers from a
 * seed, or "go on as long as you can". Time is virtual. So a run is a function of its decisions: the same
 * again gives the same again. Memory is sequentially consistent here: what weak orders add, other tests look
 * for.
 *
 * The program links scree_sched (the library compiled with sched_points.h, and calls wrapped by the linker),
 * and runs under the scheduler between sched_begin and sched_end; outside of it the wrapped calls are the real
 * ones.
 *
 * Two ways to use it:
 *   crews     a few threads of the test run one short scenario after the other, in one open cache, under the
 *             policy given. The library's own threads go on only when no thread of the crew can.
 *   whole     all threads, also the library's, are scheduled by the policy from sched_begin to sched_end.
 */
#ifndef SCREE_TEST_SCHED_H
#define SCREE_TEST_SCHED_H

#include "kit.h"

#define SCHED_THREADS 24u
#define SCHED_CHOICES 65536u /* of a crew's run that are remembered */

enum sched_kind {
    SCHED_SERIAL = 0, /* on until it waits, then the next one */
    SCHED_RANDOM,     /* each point by a draw, one in `rarely` preempts */
    SCHED_PRIORITY /* threads have ranks, drawn; at `changes` points the one that runs becomes last */
};

struct sched_policy {
    enum sched_kind kind;
    uint64_t seed;
    uint32_t rarely;  /* RANDOM; at least 1 */
    uint32_t changes; /* PRIORITY */
    uint32_t length;  /* PRIORITY: points that a run has, about */
    /* The first decisions; the kind decides when they are used up. */
    const uint8_t *script;
    uint32_t script_n;
};

/* One decision: option `taken` of `options`. 0: to go on, or, where that is not possible, the next thread. */
struct sched_choice {
    uint8_t options, taken;
    bool preempts; /* the thread could have gone on: options but 0 are preemptions */
    uint64_t place;
};

struct sched_run {
    uint32_t n; /* choices, with more than one option each */
    uint32_t points;
    uint32_t switches;
    bool cut;      /* there were more choices than are remembered */
    bool diverged; /* the script asked for what was not there */
    uint64_t hash; /* of threads and places: the same for the same run */
    struct sched_choice choice[SCHED_CHOICES];
};

/* The calling thread becomes the first one and has the baton. whole: its seed decides about all threads. */
void sched_begin(const struct sched_policy *whole);
/* Every thread made since has ended, and was joined; but for the crew. */
void sched_end(void);

/*
 * `n` threads of the crew (the same ones each time) call run(arg, 0 .. n - 1), under the policy. Returns when
 * all have. *run_out: how it went; borrowed until the next run. A run in which nobody can go on, or that does
 * not end, ends the process with status 1 and a report.
 */
void sched_crew(unsigned n, void (*run)(void *arg, unsigned i), void *arg,
                const struct sched_policy *policy, const struct sched_run **run_out);
/* That thread of the library (a pthread_t) is scheduled with the crew, whenever it has something to do. */
void sched_draft(uint64_t thread, bool on);
/* The library's threads do what they have to do, until all of them wait. */
void sched_settle(void);

/* Points passed, by all threads: a clock. */
uint64_t sched_now(void);
/* A point of the test's own. */
void sched_point(const char *file, int line);
void sched_relax(const char *file, int line);
/* Accesses to words in [from, to), but for those in [but_from, but_to), are no points: nobody else has to do
   with them. One of SCHED_RANGES. */
#define SCHED_RANGES 2u
void sched_ignore(unsigned range, const void *from, const void *to, const void *but_from,
                  const void *but_to);
#define SCHED_POINT() sched_point(__FILE__, __LINE__)
/* Between the two the calling thread passes no points: what it does is one step. */
void sched_hold(void);
void sched_release(void);

/* Real time, ms. */
uint64_t sched_real_ms(void);

/* ---- schedules as numbers ---- */

/* The decisions that were not 0, as text: "17:1,40:2". */
void sched_path(const struct sched_run *run, char *text, size_t n);
/* The other way. script of SCHED_CHOICES; returns how many of them. -1: not a path. */
int64_t sched_path_parse(const char *text, uint8_t *script);
/* Tell each switch on stdout. */
void sched_tell(bool on);

/*
 * All schedules with at most `bound` preemptions, depth first. Begin with n 0; run the script; then
 * next: the script of the schedule after it. False: that was the last one.
 */
struct sched_search {
    uint32_t bound;
    uint32_t n;
    uint8_t script[SCHED_CHOICES];
    uint64_t place[SCHED_CHOICES]; /* expected, of each choice of the script */
};
bool sched_search_next(struct sched_search *search, const struct sched_run *run);
/* Did the run meet the choices that the script was made for? */
bool sched_search_kept(const struct sched_search *search, const struct sched_run *run);

#endif
