/*
 * ceiling_view.c - page-view without an engine: a flat array of pointers, 64 bytes read in place.
 *
 * FIXED     pages are allocations of a header and the payload right behind it, so at no multiple of their
 *           size; keys are uniform, drawn beforehand.
 * LEFT OUT  whatever finds a page from its id, keeps it alive while it is read, or tells whether it has
 *           fragments.
 * WORD      none beside common.h's.
 */
#include "common.h"

static inline void
view(struct ceiling_worker *w)
{
    unsigned char *const *pages = w->shared;
    uint64_t words[8];

    memcpy(words, pages[ceiling_next(w)], sizeof(words));
    w->sum += words[0] + words[1] + words[2] + words[3] + words[4] + words[5] + words[6] + words[7];
}

static void
work(struct ceiling_worker *w)
{
    ceiling_loop(w, CEILING_BATCH, view);
}

int
main(int argc, char **argv)
{
    struct ceiling_options o = {.workload = "page-view"};
    struct ceiling_worker *w;

    ceiling_parse(&o, argc, argv, "page-view without an engine: an array of pointers to pages");
    w = ceiling_workers(&o, ceiling_pages(&o), true);
    ceiling_print(&o, w, ceiling_run(w, o.threads, o.seconds, work), "array of pointers");
    return 0;
}
