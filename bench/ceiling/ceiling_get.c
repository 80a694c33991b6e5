/*
 * ceiling_get.c - page-get without an engine: a flat array of pointers, the page copied out and each cache
 * line of the copy touched.
 *
 * FIXED, LEFT OUT  as ceiling_view.c.
 * WORD             none beside common.h's.
 */
#include "common.h"

static inline void
get(struct ceiling_worker *w)
{
    unsigned char *const *pages = w->shared;
    const unsigned char *copy = w->own;
    uint32_t len = w->options->page;
    uint64_t sum = 0, word;

    memcpy(w->own, pages[ceiling_next(w)], len);
    for (size_t at = 0; at + sizeof(word) <= len; at += 64) {
        memcpy(&word, copy + at, sizeof(word));
        sum += word;
    }
    w->sum += sum;
}

static void
work(struct ceiling_worker *w)
{
    ceiling_loop(w, CEILING_BATCH, get);
}

int
main(int argc, char **argv)
{
    struct ceiling_options o = {.workload = "page-get"};
    struct ceiling_worker *w;

    ceiling_parse(&o, argc, argv, "page-get without an engine: an array of pointers to pages");
    w = ceiling_workers(&o, ceiling_pages(&o), true);
    for (unsigned t = 0; t < o.threads; t++)
        w[t].own = ceiling_alloc(o.page);
    ceiling_print(&o, w, ceiling_run(w, o.threads, o.seconds, work), "array of pointers, copied");
    return 0;
}
