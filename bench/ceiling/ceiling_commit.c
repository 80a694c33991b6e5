/*
 * ceiling_commit.c - commit without an engine: one thread, one 4 KiB O_DSYNC write after the other.
 *
 * FIXED     O_DIRECT, into a file each block of which was written before, so that no metadata changes; the
 *           file is written from its start to its end, then again. Each write is timed.
 * LEFT OUT  that an engine packs many records into a block; group commit: where it gathers company an engine
 *           does better than this.
 * WORD      none beside common.h's.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define FILE_BYTES (UINT64_C(64) << 20)
#define BLOCK_BYTES 4096u

static inline void
commit(struct ceiling_worker *w)
{
    const int *file = w->shared;
    off_t at = (off_t)(w->at++ * BLOCK_BYTES % FILE_BYTES);

    memcpy(w->own, &w->at, sizeof(w->at));
    if (pwrite(*file, w->own, BLOCK_BYTES, at) != BLOCK_BYTES)
        ceiling_fail("pwrite", errno);
}

static void
work(struct ceiling_worker *w)
{
    ceiling_loop(w, 1, commit);
}

int
main(int argc, char **argv)
{
    static _Alignas(4096) unsigned char block[BLOCK_BYTES];
    struct ceiling_options o = {.workload = "commit"};
    struct ceiling_worker *w;
    int file;

    ceiling_parse(&o, argc, argv, "commit without an engine: a loop of O_DSYNC writes, one thread");
    if (o.threads != 1)
        ceiling_fail("-t is 1 here", EINVAL);
    file = ceiling_file(o.dir, "ceiling-commit", FILE_BYTES, O_DSYNC);
    w = ceiling_workers(&o, &file, false);
    w->own = block;
    ceiling_print(&o, w, ceiling_run(w, 1, o.seconds, work), "O_DIRECT O_DSYNC 4 KiB, prewritten");
    return 0;
}
