/*
 * copy.c - copy the segment files of a running log, as far as recovery from one snapshot to one end needs
 * them.
 *
 * STEPS  P1  for each segment up to the end: which granules are needed: all but those that are dead with D
 *            below the floor. A segment of none is not copied: the collector would have deleted it.
 *        P2  the header, then runs of needed granules: by reflink where the env and the file system have
 *            it, else through a buffer. What is not needed is a hole in the copy. Each file is synced.
 *        P3  the end: the block that holds it is filled up with a PAD, so that the copy ends on a block
 *            boundary as a log that was closed does; nothing lies behind it.
 * INVARIANTS
 *   I1 the floor is the replay start of a snapshot that is pinned: what is not dead below it stays where it
 *      is until the copy is done (collect.c I1 with that floor). What is dead below it may be given back
 *      meanwhile: P2 does not read it.
 *   I2 the end is stable: blocks up to it are written and, as a block is written once (flusher.c I2), do
 *      not change any more. It is a reservation's boundary, so it is in no batch.
 *   I3 a death that is charged after P1 looked is not below the floor: its granule is copied in vain, no
 *      more.
 *   I4 the header of the segment that begins at the end is copied: it may be the only link over a jump.
 * LIFETIME  one call. A segment is pinned while it is copied, so its file can be read even if it is
 *           deleted.
 * PROGRESS  files_lock for short; nobody waits for it.
 * FAILURE   returned with the file's name; nothing of the log changes. What was made stays for the caller.
 * NOT HERE  pinning the floor, snapshot files, the destination's directory (pagecache/backup.c).   REFS
 *           ioctl_ficlonerange(2).
 */
#include "log/log_private.h"

#include <errno.h>

#define PAD_BYTES_MIN RECORD_HEADER_BYTES

#ifdef SCREE_BUG_BACKUP_UNSYNCED
#define SYNCS false /* seeded bug: tests must notice */
#else
#define SYNCS true
#endif

struct copy {
    struct scree__log *log;
    const struct scree__log_copy *to;
    uint8_t *buffer; /* chunk_bytes, at least two blocks */
    bool *needed;    /* a granule each */
    bool clone;
};

/* The file being made. */
struct copy_file {
    int file;
    uint64_t number;
    char *path;
};

static int
file_make(struct copy *c, uint64_t number, struct copy_file *f)
{
    char name[LOG_NAME_BYTES];

    scree__segment_name(number, name);
    f->number = number;
    f->file = -1;
    f->path = scree__path_join(c->to->dir, name);
    if (f->path == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a file name");
    f->file = c->log->env->open(c->log->env->ctx, f->path,
                                SCREE_ENV_WRITE | SCREE_ENV_CREATE | SCREE_ENV_EXCLUSIVE);
    return f->file >= 0
               ? 0
               : scree__fail(f->file, "%s: cannot create: %s", f->path, scree_strerror(f->file));
}

/* Synced if all went well; ends f either way. */
static int
file_done(struct copy *c, struct copy_file *f, int rc)
{
    const scree_env *env = c->log->env;
    int closed;

    if (f->file >= 0) {
        if (rc == 0 && SYNCS) {
            rc = env->sync(env->ctx, f->file);
            if (rc != 0)
                (void)scree__fail(rc, "%s: cannot sync: %s", f->path, scree_strerror(rc));
        }
        closed = env->close(env->ctx, f->file);
        if (rc == 0 && closed != 0)
            rc = scree__fail(closed, "%s: cannot close: %s", f->path, scree_strerror(closed));
    }
    scree__path_free(f->path);
    return rc;
}

static int
file_write(struct copy *c, struct copy_file *f, const void *data, size_t len, uint64_t offset)
{
    int rc = scree__env_write_all(c->log->env, f->file, data, len, offset);

    return rc == 0 ? 0 : scree__fail(rc, "%s: %s", f->path, scree_error_detail());
}

/* ---- P1 -------------------------------------------------------------------------------------- */

/* False: nothing of it is needed, or it is gone. */
static bool
segment_needed(struct copy *c, uint64_t number)
{
    struct scree__log *log = c->log;
    bool any = false;

    (void)pthread_mutex_lock(&log->files_lock);
    struct log_segment *seg = scree__segment_peek(log, number);

    for (uint32_t i = 0; seg != NULL && i < log->granules; i++) {
        c->needed[i] = !scree__granule_may_go(log, seg, i, c->to->floor);
        any |= c->needed[i];
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    return any;
}

/* Bytes of data of a segment that lie below the end, in whole blocks. */
static uint64_t
data_below_end(const struct copy *c, const struct log_segment_info *info)
{
    uint64_t start = info->number * c->log->segment_bytes;
    uint64_t below = c->to->end > start ? scree__round_up(c->to->end - start, SCREE_BLOCK) : 0;

    return below < info->data_bytes ? below : info->data_bytes;
}

/* The next run of needed granules at or behind *at, as bytes of data: [*at, *end_out). */
static bool
run_next(const struct copy *c, uint64_t data_bytes, uint64_t *at, uint64_t *end_out)
{
    uint32_t i = (uint32_t)(scree__round_up(*at, SCREE__GRANULE_BYTES) / SCREE__GRANULE_BYTES);
    uint32_t n = c->log->granules;

    while (i < n && !c->needed[i])
        i++;
    *at = (uint64_t)i * SCREE__GRANULE_BYTES;
    if (i == n || *at >= data_bytes)
        return false;
    while (i < n && c->needed[i])
        i++;
    *end_out = (uint64_t)i * SCREE__GRANULE_BYTES;
    if (*end_out > data_bytes)
        *end_out = data_bytes;
    return true;
}

uint64_t
scree__log_copy_bytes(struct scree__log *log, uint64_t floor, uint64_t end)
{
    struct scree__log_copy to = {.floor = floor, .end = end};
    struct copy c = {.log = log, .to = &to};
    struct log_segment_info info;
    uint64_t sum = 0, number = 0;

    c.needed = scree__alloc(log->granules * sizeof *c.needed);
    for (; c.needed != NULL && scree__segment_from(log, number, &info); number = info.number + 1) {
        uint64_t at = 0, run_end = 0;

        if (info.number * log->segment_bytes > end)
            break;
        if (!segment_needed(&c, info.number))
            continue;
        for (; run_next(&c, data_below_end(&c, &info), &at, &run_end); at = run_end)
            sum += run_end - at;
    }
    scree__free(c.needed, log->granules * sizeof *c.needed);
    return sum;
}

/* ---- P2 -------------------------------------------------------------------------------------- */

/* [from, to) of the data, both multiples of SCREE_BLOCK. */
static int
run_copy(struct copy *c, struct log_segment *seg, struct copy_file *f, uint64_t from, uint64_t to)
{
    const scree_env *env = c->log->env;
    int rc = 0;

    if (c->clone && env->clone(env->ctx, seg->file, LOG_HEADER_BYTES + from, to - from, f->file,
                               LOG_HEADER_BYTES + from) == 0)
        return c->to->step(c->to->ctx, to - from, false);
    c->clone =
        false; /* not here, or not between these two file systems: it will not be asked again */
    for (uint64_t at = from; rc == 0 && at < to;) {
        size_t n = to - at < c->to->chunk_bytes ? (size_t)(to - at) : c->to->chunk_bytes;
        size_t got;

        rc = scree__env_read_all(env, seg->file, c->buffer, n, LOG_HEADER_BYTES + at, &got);
        if (rc == 0 && got < n)
            rc = scree__fail(SCREE_E_CORRUPT,
                             "log: segment %llu ends %zu bytes early, at offset %llu",
                             (unsigned long long)f->number, n - got,
                             (unsigned long long)(LOG_HEADER_BYTES + at + got));
        if (rc == 0)
            rc = file_write(c, f, c->buffer, n, LOG_HEADER_BYTES + at);
        if (rc == 0)
            rc = c->to->step(c->to->ctx, n, true);
        at += n;
    }
    return rc;
}

/* The header as it is, and the file's length. */
static int
frame_copy(struct copy *c, struct log_segment *seg, struct copy_file *f, uint64_t data_bytes)
{
    const scree_env *env = c->log->env;
    size_t got;
    int rc = scree__env_read_all(env, seg->file, c->buffer, LOG_HEADER_BYTES, 0, &got);

    if (rc == 0 && got < LOG_HEADER_BYTES)
        memset(c->buffer + got, 0, LOG_HEADER_BYTES - got);
    if (rc == 0)
        rc = file_write(c, f, c->buffer, LOG_HEADER_BYTES, 0);
    if (rc != 0)
        return rc;
    rc = env->truncate(env->ctx, f->file, LOG_HEADER_BYTES + data_bytes);
    return rc == 0 ? 0
                   : scree__fail(rc, "%s: cannot set its length: %s", f->path, scree_strerror(rc));
}

static int end_write(struct copy *c, struct log_segment *seg, struct copy_file *f);

static int
segment_copy(struct copy *c, const struct log_segment_info *info)
{
    uint64_t data_bytes = data_below_end(c, info), at = 0, run_end;
    bool last = c->to->end / c->log->segment_bytes == info->number;
    struct copy_file f;
    struct log_segment *seg;
    int rc = scree__segment_pin(c->log, info->number, &seg);

    if (rc == -ENOENT) { /* I1: deleted since P1, so nothing of it was needed */
        scree__fail_clear();
        return 0;
    }
    if (rc != 0)
        return rc;
    rc = file_make(c, info->number, &f);
    if (rc == 0)
        rc = frame_copy(c, seg, &f, data_bytes);
    for (; rc == 0 && run_next(c, data_bytes, &at, &run_end); at = run_end)
        rc = run_copy(c, seg, &f, at, run_end);
    if (rc == 0 && last)
        rc = end_write(c, seg, &f);
    rc = file_done(c, &f, rc);
    scree__segment_unpin(c->log, seg);
    return rc;
}

/* ---- P3 -------------------------------------------------------------------------------------- */

/* The PAD goes over the segment's end: the block that it ends in is all that there is of the next one. */
static int
end_write_next(struct copy *c, uint64_t number, const uint8_t *block)
{
    uint8_t *header = c->buffer + SCREE_BLOCK + SCREE_BLOCK;
    struct copy_file f;
    int rc = file_make(c, number, &f);

    scree__segment_header_put(c->log, number, number * c->log->segment_bytes, header);
    if (rc == 0)
        rc = file_write(c, &f, header, LOG_HEADER_BYTES, 0);
    if (rc == 0)
        rc = file_write(c, &f, block, SCREE_BLOCK, LOG_HEADER_BYTES);
    return file_done(c, &f, rc);
}

static int
end_write(struct copy *c, struct log_segment *seg, struct copy_file *f)
{
    struct scree__log *log = c->log;
    uint64_t begin = scree__round_down(c->to->end, SCREE_BLOCK),
             end = scree__log_copy_end(c->to->end);
    uint64_t offset = begin % log->segment_bytes;
    size_t got;
    int rc;

    if (end == c->to->end)
        return 0;
    rc = scree__env_read_all(log->env, seg->file, c->buffer, SCREE_BLOCK, LOG_HEADER_BYTES + offset,
                             &got);
    if (rc != 0)
        return rc;
    if (begin + got < c->to->end)
        return scree__fail(SCREE_E_CORRUPT, "log: lsn %llu is missing",
                           (unsigned long long)(begin + got));
    memset(c->buffer + (c->to->end - begin), 0, (size_t)(begin + 2 * SCREE_BLOCK - c->to->end));
    scree__record_encode_filler(c->buffer + (c->to->end - begin), c->to->end, 0,
                                (uint32_t)(end - c->to->end), SCREE__RECORD_PAD);
    rc = file_write(c, f, c->buffer, SCREE_BLOCK, LOG_HEADER_BYTES + offset);
    if (rc != 0 || end == begin + SCREE_BLOCK)
        return rc;
    if (end % log->segment_bytes == SCREE_BLOCK)
        return end_write_next(c, f->number + 1, c->buffer + SCREE_BLOCK);
    return file_write(c, f, c->buffer + SCREE_BLOCK, SCREE_BLOCK,
                      LOG_HEADER_BYTES + offset + SCREE_BLOCK);
}

uint64_t
scree__log_copy_end(uint64_t end)
{
    uint64_t rounded = scree__round_up(end, SCREE_BLOCK);

    return rounded > end && rounded - end < PAD_BYTES_MIN ? rounded + SCREE_BLOCK : rounded;
}

int
scree__log_copy(struct scree__log *log, const struct scree__log_copy *to)
{
    struct copy c = {.log = log, .to = to, .clone = log->env->clone != NULL};
    size_t buffer_bytes = to->chunk_bytes + 3 * SCREE_BLOCK;
    struct log_segment_info info;
    int rc = 0;

    SCREE_ASSERT(to->end <= scree__log_stable(log)); /* I2 */
    c.needed = scree__alloc(log->granules * sizeof *c.needed);
    c.buffer = scree__alloc_aligned(SCREE_BLOCK, buffer_bytes);
    if (c.needed == NULL || c.buffer == NULL)
        rc = scree__fail(SCREE_E_NO_MEMORY, "log: no memory to copy segments");
    for (uint64_t number = 0; rc == 0 && scree__segment_from(log, number, &info);
         number = info.number + 1) {
        if (info.number * log->segment_bytes > to->end)
            break;
        if (segment_needed(&c, info.number))
            rc = segment_copy(&c, &info);
    }
    scree__free(c.buffer, buffer_bytes);
    scree__free(c.needed, log->granules * sizeof *c.needed);
    return rc;
}
