/*
 * sched_baton.c - see sched_baton.h.
 *
 * WORD   baton.word: 0, then READY (its thread sleeps, and can be stood in for) or GIVEN (it may run), then
 *        OVER. leaving: a thread that has ended, until its successor has seen it off.
 * EDGES  step                                who           order           pairs
 *   B1   word := GIVEN, wake                 the holder    store release   B2   (threads that run themselves)
 *   B2   word is GIVEN: take it              the next      load acquire    B1
 *   B3   word := READY, wake                 a new thread  store release   B4
 *   B4   word is READY: go on                its maker     load acquire    B3
 *   B5   word := OVER, wake; it is gone      the next      store release   the sleeper's acquire
 * INVARIANTS
 *   I1 who sleeps has all signals blocked: a handler would run on a stack that another one uses. It sleeps in a
 *      system call, and touches nothing of its stack between B3 and B5.
 *   I2 a thread that left is on its stack until the switch: B5 is done behind it, by the next.
 * LIFETIME  the caller's.   PROGRESS  B2, B4, B5 wait for a thread that has nothing else to do.
 * FAILURE   ends the run.   NOT HERE  who is next (sched.c).   REFS  none.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sched_baton.h"

#include "kit.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__linux__) && !defined(SCHED_FUTEX)
#define STANDS_IN 1
#include <asm/prctl.h>
#endif

enum { NEW = 0, READY = 1, GIVEN = 2, OVER = 3 };

static struct baton *leaving; /* the holder's */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg);
int __real_sched_yield(void);

static void
word_set(struct baton *b, uint32_t value)
{
    atomic_store_explicit(&b->word, value, memory_order_release); /* B1, B3, B5 */
    (void)syscall(SYS_futex, &b->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void
word_await(struct baton *b, uint32_t value)
{
    uint32_t seen;

    while ((seen = atomic_load_explicit(&b->word, memory_order_acquire)) != value) /* B2, B4 */
        (void)syscall(SYS_futex, &b->word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

/* With the baton, and on another stack: who left goes. */
static void
leaving_see_off(void)
{
    struct baton *b = leaving;

    if (b == NULL)
        return;
    leaving = NULL;
    word_set(b, OVER);
    while (syscall(SYS_tgkill, getpid(), b->tid, 0) == 0)
        (void)__real_sched_yield();
}

#ifdef STANDS_IN

#define STACK_APART 65536u /* what the sleeper may need of its stack, and much more */

void sched_baton_switch(void **from, void *to);
/* Keep what a call keeps; go on where `to` left off. */
__asm__(".text\n"
        ".globl sched_baton_switch\n"
        ".type sched_baton_switch, @function\n"
        "sched_baton_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size sched_baton_switch, .-sched_baton_switch\n");

static struct baton *holder;

/* The first thing that happens on a stack. */
static void
stack_begin(void)
{
    leaving_see_off();
    holder->run(holder->arg);
    kit_failed(__FILE__, __LINE__, "baton", "a thread goes on behind its end");
}

static void
stack_make(struct baton *b)
{
    uintptr_t top = ((uintptr_t)__builtin_frame_address(0) - STACK_APART) & ~(uintptr_t)63;
    uint64_t *at = (uint64_t *)top;

    *--at = 0; /* where it would return to */
    *--at = (uint64_t)(uintptr_t)stack_begin;
    for (unsigned i = 0; i < 6; i++)
        *--at = 0;
    b->stack = at;
}

static uint64_t
thread_pointer(void)
{
    uint64_t at;

    __asm__("movq %%fs:0, %0" : "=r"(at)); /* it points at itself */
    return at;
}

static void *
sleeper_main(void *arg)
{
    struct baton *b = arg;
    sigset_t all;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, NULL); /* I1 */
    b->tid = gettid();
    b->thread_pointer = thread_pointer();
    stack_make(b);
    word_set(b, READY); /* B3 */
    word_await(b, OVER);
    return NULL;
}

void
baton_begin(struct baton *first)
{
    first->thread_pointer = thread_pointer();
    holder = first;
    leaving = NULL;
}

int
baton_thread(struct baton *b, const pthread_attr_t *attr, void (*run)(void *arg), void *arg,
             pthread_t *thread_out)
{
    int rc;

    b->run = run;
    b->arg = arg;
    rc = __real_pthread_create(thread_out, attr, sleeper_main, b);
    if (rc == 0)
        word_await(b, READY); /* B4 */
    return rc;
}

void
baton_pass(struct baton *me, struct baton *next, bool leaves)
{
    if (leaves)
        leaving = me;
    holder = next;
    /* No call that knows this thread lies between the two. */
    (void)syscall(SYS_arch_prctl, ARCH_SET_FS, next->thread_pointer);
    sched_baton_switch(&me->stack, next->stack);
    leaving_see_off();
}

#else

static void *
own_main(void *arg)
{
    struct baton *b = arg;

    b->tid = gettid();
    word_set(b, READY); /* B3 */
    word_await(b, GIVEN);
    leaving_see_off();
    b->run(b->arg);
    return NULL;
}

void
baton_begin(struct baton *first)
{
    leaving = NULL;
    atomic_store_explicit(&first->word, READY, memory_order_relaxed);
}

int
baton_thread(struct baton *b, const pthread_attr_t *attr, void (*run)(void *arg), void *arg,
             pthread_t *thread_out)
{
    int rc;

    b->run = run;
    b->arg = arg;
    rc = __real_pthread_create(thread_out, attr, own_main, b);
    while (rc == 0 && atomic_load_explicit(&b->word, memory_order_acquire) == NEW) /* B4 */
        (void)syscall(SYS_futex, &b->word, FUTEX_WAIT_PRIVATE, NEW, NULL, NULL, 0);
    return rc;
}

void
baton_pass(struct baton *me, struct baton *next, bool leaves)
{
    if (leaves)
        leaving = me;
    atomic_store_explicit(&me->word, READY, memory_order_relaxed); /* ours until B1 */
    word_set(next, GIVEN);                                         /* B1 */
    if (leaves)
        return;
    word_await(me, GIVEN); /* B2 */
    leaving_see_off();
}

#endif
