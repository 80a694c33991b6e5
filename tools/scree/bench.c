/*
 * bench.c - `scree bench`: one workload in a child process, checked by the parent.
 *
 * The child has the cache to itself, so that its memory and I/O figures are the engine's and a crash is
 * a real one; what the parent needs to check the pages lies in memory both share.
 */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MALLOC_FRUGAL "thp:default,narenas:2,dirty_decay_ms:0,muzzy_decay_ms:0"

/* Data larger than the cache: memory is what is looked at, and jemalloc's habit of keeping what was freed, in
   arenas and in huge pages, would be. It is told at its start, so start anew; a caller's own choice stands. */
static void
restart_frugal(const struct bench_options *o, int argc, char **argv)
{
    char **again = calloc((size_t)argc + 2, sizeof(*again));

    if (again == NULL || getenv("MALLOC_CONF") != NULL || o->n * o->page <= o->cache_bytes ||
        setenv("MALLOC_CONF", MALLOC_FRUGAL, 0) != 0) {
        free(again);
        return;
    }
    again[0] = "scree";
    again[1] = "bench";
    for (int i = 1; i < argc; i++)
        again[i + 1] = argv[i];
    (void)execv("/proc/self/exe", again);
    free(again); /* without, then */
}

int
tool_bench(int argc, char **argv)
{
    struct bench_run run;
    bool promise = true;
    int rc;

    memset(&run, 0, sizeof(run));
    run.program = "scree bench";
    bench_options_parse(&run.options, argc, argv);
    restart_frugal(&run.options, argc, argv);
    rc = bench_run_prepare(&run);
    if (rc == 0)
        rc = bench_run_child(&run, bench_child);
    if (run.options.samples != NULL && bench_samples_write(&run) != 0 && rc == 0)
        rc = -EIO;
    if (rc != 0) {
        if (rc != -ECHILD) /* who ended without its figures has said why */
            tool_complain(run.options.dir, rc);
        (void)tool_remove_tree(run.options.dir);
        return TOOL_TROUBLE;
    }
    rc = bench_check(&run);
    if (bench_line_print(&run, &promise) != 0)
        return TOOL_TROUBLE;
    if (rc != 0 || !promise || run.options.keep) {
        (void)fprintf(stderr, "scree bench: %s is kept\n", run.options.dir);
        return rc == 0 && promise ? TOOL_OK : TOOL_WRONG;
    }
    return tool_remove_tree(run.options.dir) == 0 ? TOOL_OK : TOOL_TROUBLE;
}
