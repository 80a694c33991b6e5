/*
 * sched_baton.h - threads of which one runs at a time, and how it makes way for another (sched.h).
 *
 * On x86-64 the first thread does the work of all: every thread is a real one, with a stack, thread-local data
 * and a pthread_t of its own, but sleeps from its first instruction to its last, while the first one runs on
 * its stack and with its thread pointer. So passing the baton on is a switch of registers, and no kernel with
 * other things to do decides when it happens. Elsewhere, or with -DSCHED_FUTEX, threads run themselves and wait
 * on a futex.
 */
#ifndef SCREE_TEST_SCHED_BATON_H
#define SCREE_TEST_SCHED_BATON_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct baton {
    _Atomic uint32_t word; /* a futex; see sched_baton.c */
    int tid;
    void *stack;
    uint64_t thread_pointer;
    void (*run)(void *arg); /* ends with baton_pass(.., leaves) */
    void *arg;
};

/* The calling thread is the first one, and has the baton. */
void baton_begin(struct baton *first);
/* A thread that runs when it is given the baton. 0 or an error number. */
int baton_thread(struct baton *b, const pthread_attr_t *attr, void (*run)(void *arg), void *arg,
                 pthread_t *thread_out);
/* Returns when `me` is given it again. leaves: `me` ends, and whoever gets it waits until the kernel has
   forgotten `me`. Then, where threads run themselves, it returns at once, and nothing may be touched any more.
   */
void baton_pass(struct baton *me, struct baton *next, bool leaves);

#endif
