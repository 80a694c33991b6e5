/*
 * sched.c - one baton for all threads: who has it runs, the policy says who is next (sched.h).
 *
 * WORD   none of its own: all is the holder's of the baton (sched_baton.c), but for `seen`, the watch's.
 * EDGES  those of the baton.
 * INVARIANTS
 *   I1 only the holder runs: what it reads and writes here needs no order.
 *   I2 a thread ends with the baton: the destructors of its thread-specific data are called under it.
 *   I3 the choice depends on nothing but the policy and the states of threads, which follow from the choices.
 * LIFETIME  threads are never more than SCHED_THREADS at a time; slots are used again after a join.
 * PROGRESS  who spins says so (sched_yield, cpu_relax) and gives way until another one has run. When all wait,
 *           time jumps to the first who has a limit; without one it is a deadlock, which is told.
 * FAILURE   a run that is stuck, spins without a point, or has no end prints where every thread is, and the
 *           decisions so far; the process ends with status 1.
 * NOT HERE  what is a point in the library (sched_points.h), which scenarios (tests/sched).   REFS  Musuvathi,
 *           Qadeer: Iterative Context Bounding (2007); Burckhardt et al.: PCT (2010).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sched.h"

#include "sched_baton.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define RUN_POINTS_MAX 400000u
#define RUN_JUMPS_MAX 100000u
#define STEP_NS 20u
#define TURN_NS 1000u /* of who gave way */
#define WATCH_CPU_SECONDS 20
#define WATCH_SECONDS 600u
#define RANKS 8u
#define KEYS_MAX 16u
#define NS_PER_S UINT64_C(1000000000)

enum state {
    FREE,
    RUNS,
    WAITS_WORD,
    WAITS_MUTEX,
    WAITS_COND,
    WAITS_END,
    WAITS_GRACE,
    SLEEPS,
    SETTLES,
    WAITS_CREW,
    IDLE,
    ENDED
};
static const char *const state_names[] = {"free",
                                          "could go on",
                                          "waits for a word",
                                          "waits for a mutex",
                                          "waits for a condition",
                                          "waits for a thread",
                                          "waits for a grace period",
                                          "sleeps",
                                          "lets others settle",
                                          "waits for the crew",
                                          "has nothing to do",
                                          "has ended"};

struct thread {
    struct baton baton;
    pthread_t pthread;
    enum state state;
    const void *on;    /* what it waits for */
    uint64_t since;    /* which of those who wait was first */
    uint64_t deadline; /* virtual ns; UINT64_MAX: none */
    bool rests;        /* gave way: another one first */
    bool crew, drafted;
    unsigned nesting, holds;
    uint64_t sections;               /* read sections that ended */
    uint64_t awaited[SCHED_THREADS]; /* sections + 1 of those that were inside */
    uint64_t rank;
    const char *file;
    int line;
    void *(*start)(void *);
    void *arg;
};

static struct {
    bool on, whole, crew_on, crew_quits, tells;
    struct thread thread[SCHED_THREADS];
    unsigned threads; /* slots used so far */
    unsigned crew_left;
    struct thread *crew[SCHED_THREADS];
    unsigned crew_n;
    void (*run)(void *arg, unsigned i);
    void *run_arg;
    struct sched_policy policy;
    uint64_t random;
    uint64_t now_ns, points, waits, jumps, rank_low, grace_waiters;
    uint64_t change[RANKS];
    uintptr_t ignored[SCHED_RANGES][4]; /* from, to; but from, to */
    uint64_t deadline_min;              /* not above any deadline */
    _Atomic uint64_t seen;              /* points, at the watch's last look */
} s;
static struct sched_run record;
static _Thread_local struct thread *self;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg);
int __real_pthread_key_create(pthread_key_t *key, void (*destructor)(void *));
int __wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *));
int __real_pthread_join(pthread_t thread, void **result);
int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_mutex_trylock(pthread_mutex_t *mutex);
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __real_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __real_pthread_cond_signal(pthread_cond_t *cond);
int __real_pthread_cond_broadcast(pthread_cond_t *cond);
void __real_scree__futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns);
void __real_scree__futex_wake(_Atomic uint32_t *word, int count);
uint64_t __real_scree__thread_cpu_ns(void);
int __real_sched_yield(void);
int __real_nanosleep(const struct timespec *time, struct timespec *left);
int __real_clock_gettime(clockid_t clock, struct timespec *time);
void __real_urcu_bp_read_lock(void);
void __real_urcu_bp_read_unlock(void);
int __real_urcu_bp_read_ongoing(void);
void __real_urcu_bp_synchronize_rcu(void);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_signal(pthread_cond_t *cond);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
void __wrap_scree__futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns);
void __wrap_scree__futex_wake(_Atomic uint32_t *word, int count);
uint64_t __wrap_scree__thread_cpu_ns(void);
int __wrap_sched_yield(void);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);
void __wrap_urcu_bp_read_lock(void);
void __wrap_urcu_bp_read_unlock(void);
int __wrap_urcu_bp_read_ongoing(void);
void __wrap_urcu_bp_synchronize_rcu(void);

/* ---- reports ----------------------------------------------------------------------------------- */

static const char *
file_base(const char *file)
{
    const char *slash = file == NULL ? NULL : strrchr(file, '/');

    return file == NULL ? "nowhere" : slash == NULL ? file : slash + 1;
}

/* In signal handlers too: nothing that takes a lock of the C library's. */
static void
report_threads(const char *what)
{
    static char path[2048], text[8192];
    int len;

    sched_path(&record, path, sizeof(path));
    len = snprintf(text, sizeof(text), "FAILED [%s] %s; path %s\n", kit_context, what,
                   path[0] == '\0' ? "-" : path);
    for (unsigned i = 0; i < s.threads; i++) {
        const struct thread *t = &s.thread[i];

        if (t->state != FREE)
            len += snprintf(text + len, sizeof(text) - (size_t)len, "  thread %u%s at %s:%d: %s\n",
                            i, t->crew ? " of the crew" : "", file_base(t->file), t->line,
                            state_names[t->state]);
    }
    if (write(STDOUT_FILENO, text, (size_t)len) < 0)
        _exit(2); /* nowhere to tell it */
}

static _Noreturn void
report(const char *what)
{
    report_threads(what);
    _exit(1);
}

static void
on_abort(int number)
{
    (void)signal(number, SIG_DFL);
    report_threads(number == SIGABRT ? "aborted" : "died");
    (void)raise(number);
}

/* Points go on: fine. After seconds of this process, or after minutes of all. */
static void
on_timer(int number)
{
    uint64_t seen =
        atomic_exchange_explicit(&s.seen, s.points, memory_order_relaxed); /* a figure */

    (void)number;
    if (seen == s.points && s.on)
        report("hangs: somebody spins or blocks without a scheduling point");
    (void)alarm(WATCH_SECONDS);
}

static void
watch_begin(void)
{
    struct itimerval busy = {.it_interval.tv_sec = WATCH_CPU_SECONDS,
                             .it_value.tv_sec = WATCH_CPU_SECONDS};

    (void)signal(SIGALRM, on_timer);
    (void)signal(SIGPROF, on_timer);
    (void)signal(SIGABRT, on_abort);
    (void)signal(SIGSEGV, on_abort);
    (void)alarm(WATCH_SECONDS);
    (void)setitimer(ITIMER_PROF, &busy, NULL);
}

static void
watch_end(void)
{
    static const struct itimerval none;

    (void)alarm(0);
    (void)setitimer(ITIMER_PROF, &none, NULL);
}

/* ---- who could go on --------------------------------------------------------------------------- */

static bool
grace_is_over(const struct thread *t)
{
    for (unsigned i = 0; i < s.threads; i++)
        if (t->awaited[i] != 0 && t->awaited[i] == s.thread[i].sections + 1)
            return false;
    return true;
}

/* Deadlines that have passed, grace periods that are over. */
static void
states_look(void)
{
    uint64_t least = UINT64_MAX;

    if (s.grace_waiters == 0 && s.now_ns < s.deadline_min)
        return;
    for (unsigned i = 0; i < s.threads; i++) {
        struct thread *t = &s.thread[i];

        if (t->state == WAITS_GRACE && grace_is_over(t)) {
            t->state = RUNS;
            s.grace_waiters--;
        } else if ((t->state == WAITS_WORD || t->state == SLEEPS) && t->deadline <= s.now_ns) {
            t->state = RUNS;
        } else if ((t->state == WAITS_WORD || t->state == SLEEPS) && t->deadline < least) {
            least = t->deadline;
        }
    }
    s.deadline_min = least;
}

static bool
is_open(const struct thread *t)
{
    return t->state == RUNS && !t->rests && (!s.crew_on || t->crew || t->drafted);
}

/* Those who could go on: `me` first, if it may, the others in a circle from there. */
static unsigned
options_find(struct thread *me, bool may, struct thread *option[SCHED_THREADS])
{
    unsigned first = (unsigned)(me - s.thread), n = 0;

    if (may)
        option[n++] = me;
    for (unsigned i = 1; i < s.threads; i++) {
        struct thread *t = &s.thread[(first + i) % s.threads];

        if (is_open(t))
            option[n++] = t;
    }
    if (n > 0)
        return n;
    for (unsigned i = 1; i <= s.threads && n == 0; i++) { /* outside of the crew; who gave way */
        struct thread *t = &s.thread[(first + i) % s.threads];

        if (t->state == RUNS && (t != me || i == s.threads))
            option[n++] = t;
    }
    for (unsigned i = 0; i < s.threads && n == 0; i++)
        if (s.thread[i].state == SETTLES)
            option[n++] = &s.thread[i];
    return n;
}

static void
time_jump(void)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < s.threads; i++)
        if ((s.thread[i].state == WAITS_WORD || s.thread[i].state == SLEEPS) &&
            s.thread[i].deadline < least)
            least = s.thread[i].deadline;
    if (least == UINT64_MAX)
        report("deadlock: every thread waits");
    if (++s.jumps > RUN_JUMPS_MAX && s.crew_on)
        report("deadlock: nobody of the crew goes on, however late it gets");
    s.now_ns = least;
    s.deadline_min = 0;
}

/* ---- decisions --------------------------------------------------------------------------------- */

static unsigned
decide_by_rank(struct thread *me, struct thread *option[], unsigned n)
{
    unsigned best = 0;

    for (unsigned i = 0; i < RANKS && i < s.policy.changes; i++)
        if (s.change[i] == record.points)
            me->rank = s.rank_low--;
    for (unsigned i = 1; i < n; i++)
        if (option[i]->rank > option[best]->rank)
            best = i;
    return best;
}

static unsigned
decide(struct thread *me, struct thread *option[], unsigned n, bool preempts)
{
    struct sched_choice *c = &record.choice[record.n];
    unsigned taken = 0;

    if (n == 1)
        return 0;
    if (record.n < s.policy.script_n) {
        taken = s.policy.script[record.n];
        if (taken >= n) {
            record.diverged = true;
            taken = 0;
        }
    } else if (s.policy.kind == SCHED_RANDOM) {
        if (!preempts)
            taken = (unsigned)kit_below(&s.random, n);
        else if (kit_below(&s.random, s.policy.rarely) == 0)
            taken = 1 + (unsigned)kit_below(&s.random, n - 1);
    } else if (s.policy.kind == SCHED_PRIORITY) {
        taken = decide_by_rank(me, option, n);
    }
    if (!s.crew_on)
        return taken;
    if (record.n < SCHED_CHOICES - 1)
        record.n++;
    else
        record.cut = true;
    *c = (struct sched_choice){.options = (uint8_t)n,
                               .taken = (uint8_t)taken,
                               .preempts = preempts,
                               .place = (uint64_t)(me - s.thread) << 32 | (uint64_t)me->line};
    return taken;
}

static void
switch_tell(const struct thread *me, const struct thread *next)
{
    printf("  %" PRIu64 ": thread %u at %s:%d (%s) -> thread %u at %s:%d\n", s.points,
           (unsigned)(me - s.thread), file_base(me->file), me->line, state_names[me->state],
           (unsigned)(next - s.thread), file_base(next->file), next->line);
}

/* The holder stops here. may: it could go on. `leaves`: it never comes back. */
static void
pass_on(struct thread *me, bool may, bool leaves)
{
    struct thread *option[SCHED_THREADS], *next;
    unsigned n;

    for (unsigned i = 0; i < s.threads; i++)
        if (&s.thread[i] != me)
            s.thread[i].rests = false;
    may = may && (!s.crew_on || me->crew || me->drafted); /* the crew comes first */
    for (states_look(); (n = options_find(me, may, option)) == 0; states_look())
        time_jump();
    next = option[decide(me, option, n, may)];
    me->rests = false;
    if (next == me)
        return;
    record.switches++;
    if (s.tells)
        switch_tell(me, next);
    if (!may && me->state == RUNS)
        me->rests = true;
    baton_pass(&me->baton, &next->baton, leaves);
}

void
sched_point(const char *file, int line)
{
    struct thread *me = self;

    if (me == NULL || me->holds > 0)
        return;
    me->file = file;
    me->line = line;
    s.points++;
    if (!s.crew_on && !s.whole)
        return;
    s.now_ns += s.whole ? STEP_NS : 0;
    record.points++;
    if (getenv("TR") && strstr(kit_context, getenv("TRP"))) {
        static FILE *f;
        if (!f)
            f = fopen(getenv("TR"), "w");
        if (record.points == 1)
            fprintf(f, "run %s\n", kit_context);
        fprintf(f, "%u %s:%d\n", (unsigned)(me - s.thread), file_base(file), line);
        fflush(f);
    }
    record.hash = (record.hash ^ (uint64_t)(me - s.thread) ^ (uint64_t)line << 8) *
                  UINT64_C(0x9e3779b97f4a7c15);
    if (record.points > RUN_POINTS_MAX && s.crew_on)
        report("this run does not end");
    pass_on(me, true, false);
}

void sched_access(const volatile void *word, const char *file, int line);

void
sched_access(const volatile void *word, const char *file, int line)
{
    uintptr_t at = (uintptr_t)word;

    for (unsigned i = 0; i < SCHED_RANGES; i++) {
        const uintptr_t *r = s.ignored[i];

        if (at >= r[0] && at < r[1] && (at < r[2] || at >= r[3]))
            return;
    }
    sched_point(file, line);
}

void
sched_ignore(unsigned range, const void *from, const void *to, const void *but_from,
             const void *but_to)
{
    uintptr_t *r = s.ignored[range];

    r[0] = (uintptr_t)from;
    r[1] = (uintptr_t)to;
    r[2] = (uintptr_t)but_from;
    r[3] = (uintptr_t)but_to;
}

/* It spins, and waits for others. */
static void
give_way(void)
{
    if (self->holds > 0)
        return;
    s.points++;
    record.points += s.crew_on;
    if (record.points > RUN_POINTS_MAX && s.crew_on)
        report("this run does not end");
    s.now_ns += TURN_NS;
    pass_on(self, false, false);
}

void
sched_relax(const char *file, int line)
{
    if (self == NULL)
        return;
    self->file = file;
    self->line = line;
    give_way();
}

static void
wait_for(enum state state, const void *on, uint64_t timeout_ns)
{
    struct thread *me = self;

    if (me->holds > 0)
        report("a wait in what was to be one step");
    me->state = state;
    me->on = on;
    me->since = s.waits++;
    me->deadline = timeout_ns > UINT64_MAX - s.now_ns ? UINT64_MAX : s.now_ns + timeout_ns;
    if (me->deadline < s.deadline_min)
        s.deadline_min = me->deadline;
    pass_on(me, false, false);
}

/* Those who wait for it, in the order in which they began to. */
static int
waiters_wake(enum state state, const void *on, int count)
{
    int woken = 0;

    while (woken < count) {
        struct thread *first = NULL;

        for (unsigned i = 0; i < s.threads; i++) {
            struct thread *t = &s.thread[i];

            if (t->state == state && t->on == on && (first == NULL || t->since < first->since))
                first = t;
        }
        if (first == NULL)
            return woken;
        first->state = RUNS;
        woken++;
    }
    return woken;
}

/* ---- threads ----------------------------------------------------------------------------------- */

static struct thread *
thread_new(void *(*start)(void *), void *arg)
{
    unsigned i = 0;

    while (i < s.threads && s.thread[i].state != FREE)
        i++;
    KIT_CHECK(i < SCHED_THREADS, "more than %u threads", SCHED_THREADS);
    if (i == s.threads)
        s.threads++;
    s.thread[i] = (struct thread){
        .state = RUNS, .start = start, .arg = arg, .sections = s.thread[i].sections};
    if (s.whole)
        s.thread[i].rank = kit_random(&s.random) >> 1 | UINT64_C(1) << 62;
    return &s.thread[i];
}

/* Keys with a destructor. */
static struct {
    pthread_key_t key;
    void (*destructor)(void *);
} keys[KEYS_MAX];
static unsigned keys_n;

int
__wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *))
{
    int rc = __real_pthread_key_create(key, destructor);

    if (rc == 0 && destructor != NULL) {
        KIT_CHECK(keys_n < KEYS_MAX, "more than %u keys", KEYS_MAX);
        keys[keys_n].key = *key;
        keys[keys_n++].destructor = destructor;
    }
    return rc;
}

static void
thread_main(void *arg)
{
    struct thread *me = arg;

    self = me;
    (void)me->start(me->arg);
    for (unsigned i = 0; i < keys_n; i++) {
        void *value = pthread_getspecific(keys[i].key);

        if (value == NULL)
            continue;
        (void)pthread_setspecific(keys[i].key, NULL);
        keys[i].destructor(value);
    }
    me->state = ENDED;
    waiters_wake(WAITS_END, me, (int)SCHED_THREADS);
    self = NULL;
    pass_on(me, false, true);
}

int
__wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                      void *arg)
{
    struct thread *t;
    int rc;

    if (self == NULL)
        return __real_pthread_create(thread, attr, start, arg);
    t = thread_new(start, arg);
    rc = baton_thread(&t->baton, attr, thread_main, t, &t->pthread);
    if (rc != 0)
        t->state = FREE;
    *thread = t->pthread;
    SCHED_POINT();
    return rc;
}

int
__wrap_pthread_join(pthread_t thread, void **result)
{
    struct thread *t = NULL;
    int rc;

    for (unsigned i = 0; self != NULL && i < s.threads; i++)
        if (s.thread[i].state != FREE && s.thread[i].start != NULL &&
            pthread_equal(s.thread[i].pthread, thread))
            t = &s.thread[i];
    if (t == NULL)
        return __real_pthread_join(thread, result);
    SCHED_POINT();
    while (t->state != ENDED)
        wait_for(WAITS_END, t, UINT64_MAX);
    rc = __real_pthread_join(thread, result);
    t->state = FREE;
    return rc;
}

/* ---- locks ------------------------------------------------------------------------------------- */

static int
mutex_take(pthread_mutex_t *mutex)
{
    int rc;

    while ((rc = __real_pthread_mutex_trylock(mutex)) == EBUSY)
        wait_for(WAITS_MUTEX, mutex, UINT64_MAX);
    return rc;
}

int
__wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    if (self == NULL)
        return __real_pthread_mutex_lock(mutex);
    SCHED_POINT();
    return mutex_take(mutex);
}

int
__wrap_pthread_mutex_trylock(pthread_mutex_t *mutex)
{
    SCHED_POINT();
    return __real_pthread_mutex_trylock(mutex);
}

int
__wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int rc = __real_pthread_mutex_unlock(mutex);

    if (self != NULL)
        (void)waiters_wake(WAITS_MUTEX, mutex, (int)SCHED_THREADS);
    return rc;
}

int
__wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    if (self == NULL)
        return __real_pthread_cond_wait(cond, mutex);
    (void)__wrap_pthread_mutex_unlock(mutex);
    wait_for(WAITS_COND, cond, UINT64_MAX);
    return mutex_take(mutex);
}

int
__wrap_pthread_cond_signal(pthread_cond_t *cond)
{
    if (self == NULL)
        return __real_pthread_cond_signal(cond);
    (void)waiters_wake(WAITS_COND, cond, 1);
    return 0;
}

int
__wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
    if (self == NULL)
        return __real_pthread_cond_broadcast(cond);
    (void)waiters_wake(WAITS_COND, cond, (int)SCHED_THREADS);
    return 0;
}

/* ---- words, time ------------------------------------------------------------------------------- */

void
__wrap_scree__futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
    if (self == NULL) {
        __real_scree__futex_wait(word, seen, timeout_ns);
        return;
    }
    SCHED_POINT();
    if (atomic_load_explicit(word, memory_order_relaxed) == seen) /* as the kernel does: one step */
        wait_for(WAITS_WORD, word, timeout_ns);
}

void
__wrap_scree__futex_wake(_Atomic uint32_t *word, int count)
{
    if (self == NULL) {
        __real_scree__futex_wake(word, count);
        return;
    }
    SCHED_POINT();
    (void)waiters_wake(WAITS_WORD, word, count);
}

int
__wrap_sched_yield(void)
{
    if (self == NULL)
        return __real_sched_yield();
    give_way();
    return 0;
}

int
__wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
    if (self == NULL)
        return __real_nanosleep(time, left);
    wait_for(SLEEPS, NULL, (uint64_t)time->tv_sec * NS_PER_S + (uint64_t)time->tv_nsec);
    return 0;
}

int
__wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    if (self == NULL)
        return __real_clock_gettime(clock, time);
    s.now_ns += STEP_NS;
    time->tv_sec = (time_t)(s.now_ns / NS_PER_S);
    time->tv_nsec = (long)(s.now_ns % NS_PER_S);
    return 0;
}

uint64_t
__wrap_scree__thread_cpu_ns(void)
{
    return self == NULL ? __real_scree__thread_cpu_ns() : s.now_ns;
}

uint64_t
sched_real_ms(void)
{
    struct timespec t;

    (void)__real_clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- read sections ----------------------------------------------------------------------------- */

void
__wrap_urcu_bp_read_lock(void)
{
    if (self == NULL) {
        __real_urcu_bp_read_lock();
        return;
    }
    if (self->nesting == 0)
        SCHED_POINT();
    self->nesting++;
}

void
__wrap_urcu_bp_read_unlock(void)
{
    if (self == NULL) {
        __real_urcu_bp_read_unlock();
        return;
    }
    if (self->nesting == 1)
        SCHED_POINT();
    if (--self->nesting == 0)
        self->sections++;
}

int
__wrap_urcu_bp_read_ongoing(void)
{
    return self == NULL ? __real_urcu_bp_read_ongoing() : self->nesting != 0;
}

void
__wrap_urcu_bp_synchronize_rcu(void)
{
    struct thread *me = self;

    if (me == NULL) {
        __real_urcu_bp_synchronize_rcu();
        return;
    }
    SCHED_POINT();
    for (unsigned i = 0; i < SCHED_THREADS; i++)
        me->awaited[i] = i < s.threads && s.thread[i].nesting > 0 ? s.thread[i].sections + 1 : 0;
    if (me->nesting > 0)
        report("a grace period is waited for in a read section");
    if (grace_is_over(me))
        return;
    s.grace_waiters++;
    wait_for(WAITS_GRACE, NULL, UINT64_MAX);
}

/* ---- begin, end, crews ------------------------------------------------------------------------- */

static void
record_begin(const struct sched_policy *policy)
{
    s.policy = *policy;
    s.random = policy->seed;
    s.jumps = 0;
    record.n = record.points = record.switches = 0;
    record.cut = record.diverged = false;
    record.hash = 0;
    s.rank_low = UINT32_MAX;
    if (policy->kind != SCHED_PRIORITY)
        return;
    for (unsigned i = 0; i < s.threads; i++)
        if (s.whole || s.thread[i].crew || s.thread[i].drafted)
            s.thread[i].rank = kit_random(&s.random) >> 1 | UINT64_C(1) << 62;
    for (unsigned i = 0; i < RANKS; i++)
        s.change[i] = 1 + kit_below(&s.random, policy->length == 0 ? 1 : policy->length);
}

void __asan_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void
on_death(void)
{
    report_threads("the sanitizer objects");
}

void
sched_begin(const struct sched_policy *whole)
{
    static const struct sched_policy serial = {.kind = SCHED_SERIAL};
    KIT_CHECK(!s.on, "sched_begin twice");
    /* What the allocator gives depends on the calls alone, and it does not go to the kernel each time. */
    (void)mallopt(M_ARENA_MAX, 1);
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
    (void)mallopt(M_TRIM_THRESHOLD, INT32_MAX);
    (void)mallopt(M_TOP_PAD, 1 << 20);
    s.on = true;
    s.whole = whole != NULL;
    s.threads = 0;
    s.crew_n = 0;
    s.crew_quits = false;
    s.now_ns = 1000 * NS_PER_S;
    s.points = 0;
    s.deadline_min = UINT64_MAX;
    memset(s.ignored, 0, sizeof(s.ignored));
    memset(s.thread, 0, sizeof(s.thread));
    record_begin(whole != NULL ? whole : &serial);
    self = thread_new(NULL, NULL);
    baton_begin(&self->baton);
    watch_begin();
    if (__asan_set_death_callback != NULL)
        __asan_set_death_callback(on_death);
}

void
sched_end(void)
{
    KIT_CHECK(s.on && self == &s.thread[0], "sched_end by another thread than sched_begin");
    s.crew_quits = true;
    for (unsigned i = 0; i < s.crew_n; i++) {
        s.crew[i]->state = RUNS;
        (void)__wrap_pthread_join(s.crew[i]->pthread, NULL);
    }
    for (unsigned i = 1; i < s.threads; i++)
        KIT_CHECK(s.thread[i].state == FREE, "thread %u is still there", i);
    watch_end();
    s.on = false;
    self = NULL;
}

/* A member of the crew: job after job. */
static void *
crew_main(void *arg)
{
    struct thread *me = self;
    unsigned i = (unsigned)(uintptr_t)arg;

    while (!s.crew_quits) {
        s.run(s.run_arg, i);
        KIT_CHECK(me->nesting == 0 && me->holds == 0, "a job ended inside a section");
        me->state = IDLE;
        if (--s.crew_left > 0) {
            pass_on(me, false, false);
            continue;
        }
        s.crew_on = false;
        s.thread[0].state = RUNS;
        if (s.tells)
            switch_tell(me, &s.thread[0]);
        baton_pass(&me->baton, &s.thread[0].baton, false);
    }
    return NULL;
}

void
sched_crew(unsigned n, void (*run)(void *arg, unsigned i), void *arg,
           const struct sched_policy *policy, const struct sched_run **run_out)
{
    static const struct sched_policy serial = {.kind = SCHED_SERIAL};

    KIT_CHECK(self == &s.thread[0] && !s.whole, "who has the crew is the first thread");
    while (s.crew_n < n) {
        struct thread *t = thread_new(crew_main, (void *)(uintptr_t)s.crew_n);

        t->crew = true;
        t->state = IDLE;
        KIT_CHECK(baton_thread(&t->baton, NULL, thread_main, t, &t->pthread) == 0, "thread");
        s.crew[s.crew_n++] = t;
    }
    record_begin(policy);
    s.run = run;
    s.run_arg = arg;
    s.crew_left = n;
    for (unsigned i = 0; i < n; i++)
        s.crew[i]->state = RUNS;
    s.crew_on = true;
    self->state = WAITS_CREW;
    pass_on(self, false, false);
    s.policy = serial;
    if (run_out != NULL)
        *run_out = &record;
}

void
sched_draft(uint64_t thread, bool on)
{
    for (unsigned i = 1; i < s.threads; i++)
        if (s.thread[i].state != FREE && (uint64_t)s.thread[i].pthread == thread)
            s.thread[i].drafted = on;
}

void
sched_settle(void)
{
    self->state = SETTLES;
    pass_on(self, false, false);
    self->state = RUNS;
}

uint64_t
sched_now(void)
{
    return s.points;
}

void
sched_hold(void)
{
    if (self != NULL)
        self->holds++;
}

void
sched_release(void)
{
    if (self != NULL)
        self->holds--;
}

void
sched_tell(bool on)
{
    s.tells = on;
}

/* ---- schedules as numbers ---------------------------------------------------------------------- */

void
sched_path(const struct sched_run *run, char *text, size_t n)
{
    size_t len = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < run->n && len + 24 < n; i++)
        if (run->choice[i].taken != 0)
            len += (size_t)snprintf(text + len, n - len, "%s%u:%u", len == 0 ? "" : ",", i,
                                    run->choice[i].taken);
}

int64_t
sched_path_parse(const char *text, uint8_t *script)
{
    int64_t n = 0;

    memset(script, 0, SCHED_CHOICES);
    if (strcmp(text, "-") == 0)
        return 0;
    while (*text != '\0') {
        char *end;
        unsigned long at = strtoul(text, &end, 10), taken;

        if (end == text || *end != ':' || at >= SCHED_CHOICES)
            return -1;
        text = end + 1;
        taken = strtoul(text, &end, 10);
        if (end == text || taken >= SCHED_THREADS)
            return -1;
        script[at] = (uint8_t)taken;
        n = (int64_t)at + 1;
        text = *end == ',' ? end + 1 : end;
    }
    return n;
}

bool
sched_search_next(struct sched_search *search, const struct sched_run *run)
{
    uint32_t spent = 0, at = run->n, found = UINT32_MAX;

    for (uint32_t i = 0; i < at; i++) {
        const struct sched_choice *c = &run->choice[i];

        if (c->taken + 1 < c->options && (!c->preempts || spent < search->bound))
            found = i;
        spent += c->preempts && c->taken != 0;
    }
    if (found == UINT32_MAX)
        return false;
    for (uint32_t i = 0; i <= found; i++) {
        search->script[i] = run->choice[i].taken;
        search->place[i] = run->choice[i].place;
    }
    search->script[found]++;
    search->n = found + 1;
    return true;
}

bool
sched_search_kept(const struct sched_search *search, const struct sched_run *run)
{
    if (run->diverged || run->cut || run->n < search->n)
        return false;
    for (uint32_t i = 0; i < search->n; i++)
        if (run->choice[i].place != search->place[i])
            return false;
    return true;
}
