/*
 * ceiling_cold.c - page-get-cold without an engine: random 4 KiB O_DIRECT reads, so many in flight.
 *
 * FIXED     a file of n blocks of 4 KiB, written just before; each thread has a ring of its own and keeps -q
 *           reads in flight. A read is timed from its submission to the moment its thread sees it done.
 * FOOLED BY a host that caches the disk: then this is memory behind a virtual device, as it is for an engine.
 * LEFT OUT  checksums, and the page that is made of what was read.
 * WORD      none beside common.h's.
 */
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_BYTES 4096u

#ifdef SCREE_HAVE_LIBURING
#include <liburing.h>

struct slot {
    _Alignas(BLOCK_BYTES) unsigned char block[BLOCK_BYTES];
    uint64_t start;
};

static void
submit(struct ceiling_worker *w, struct io_uring *ring, struct slot *slot)
{
    const int *file = w->shared;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    uint64_t block = ceiling_random(&w->random) % w->options->n;

    slot->start = ceiling_now_ns();
    io_uring_prep_read(sqe, *file, slot->block, BLOCK_BYTES, block * BLOCK_BYTES);
    io_uring_sqe_set_data(sqe, slot);
}

/* What is done makes room for as many more, unless it is time to end. */
static unsigned
reap(struct ceiling_worker *w, struct io_uring *ring, bool more)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;

    io_uring_for_each_cqe(ring, head, cqe)
    {
        struct slot *slot = io_uring_cqe_get_data(cqe);

        if (cqe->res != (int)BLOCK_BYTES)
            ceiling_fail("read", cqe->res < 0 ? -cqe->res : EIO);
        ceiling_histogram_add(w->latency, ceiling_now_ns() - slot->start);
        w->sum += slot->block[0];
        w->ops++;
        n++;
        if (more)
            submit(w, ring, slot);
    }
    io_uring_cq_advance(ring, n);
    return n;
}

static void
work(struct ceiling_worker *w)
{
    struct slot *slots = w->own;
    unsigned flight = w->options->queue;
    struct io_uring ring;
    int rc = io_uring_queue_init(w->options->queue, &ring, 0);

    if (rc != 0)
        ceiling_fail("io_uring", -rc);
    for (unsigned i = 0; i < w->options->queue; i++)
        submit(w, &ring, &slots[i]);
    while (flight > 0) {
        bool more = ceiling_going(w);
        unsigned n;

        rc = io_uring_submit_and_wait(&ring, 1);
        if (rc < 0 && rc != -EINTR)
            ceiling_fail("io_uring", -rc);
        n = reap(w, &ring, more);
        flight -= more ? 0 : n;
    }
    io_uring_queue_exit(&ring);
}

int
main(int argc, char **argv)
{
    struct ceiling_options o = {.workload = "page-get-cold"};
    struct ceiling_worker *w;
    char config[64];
    int file;

    ceiling_parse(&o, argc, argv, "page-get-cold without an engine: random reads by io_uring");
    file = ceiling_file(o.dir, "ceiling-cold", o.n * BLOCK_BYTES, 0);
    w = ceiling_workers(&o, &file, false);
    for (unsigned t = 0; t < o.threads; t++) {
        w[t].own = aligned_alloc(BLOCK_BYTES, o.queue * sizeof(struct slot));
        if (w[t].own == NULL)
            ceiling_fail("memory", ENOMEM);
    }
    (void)snprintf(config, sizeof(config), "O_DIRECT 4 KiB io_uring, depth %u", o.queue);
    ceiling_print(&o, w, ceiling_run(w, o.threads, o.seconds, work), config);
    return 0;
}
#else
int
main(void)
{
    ceiling_fail("built without liburing", ENOSYS);
}
#endif
