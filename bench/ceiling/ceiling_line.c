/*
 * ceiling_line.c - what the log's tail alone would allow: threads that add to one word, and do nothing else.
 *
 * FIXED     a fetch_add of 8 bytes each, on a line of its own. With one thread it stays in that core's cache;
 *           with more the line moves for each addition, and a second has room for so many of them, whatever the
 *           number of threads.
 * FOOLED BY a host that runs both processors on one core: then the line moves nowhere.
 * WORD      line: any worker, fetch_add relaxed: a count, compared at the end.
 */
#include "common.h"

#include <errno.h>

#define ADD_BYTES 8u

static inline void
add(struct ceiling_worker *w)
{
    _Atomic uint64_t *line = w->shared;

    w->sum += atomic_fetch_add_explicit(line, ADD_BYTES, memory_order_relaxed);
}

static void
work(struct ceiling_worker *w)
{
    ceiling_loop(w, CEILING_BATCH, add);
}

int
main(int argc, char **argv)
{
    struct ceiling_options o = {.workload = "line"};
    _Atomic uint64_t *line = ceiling_alloc(CEILING_LINE);
    struct ceiling_worker *w;
    double seconds;
    uint64_t ops = 0;

    ceiling_parse(&o, argc, argv, "additions to one word that all threads share");
    atomic_init(line, 0);
    w = ceiling_workers(&o, (void *)line, false);
    seconds = ceiling_run(w, o.threads, o.seconds, work);
    for (unsigned t = 0; t < o.threads; t++)
        ops += w[t].ops;
    if (atomic_load_explicit(line, memory_order_relaxed) <
        ops * ADD_BYTES) /* the warm-up adds too */
        ceiling_fail("the word is less than what was added", EIO);
    ceiling_print(&o, w, seconds, "fetch_add on one line");
    return 0;
}
