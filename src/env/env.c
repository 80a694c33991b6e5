/*
 * env.c - whole reads and writes, small files, and file replacement, over any scree_env.
 *
 * No atomics. What an env returns is not trusted: counts larger than asked for and endless short
 * counts are -EIO. An env's -errno is passed on as it is (so -ENOSPC stays -ENOSPC), with the
 * detail text set.
 *
 * SHORT COUNTS. A direct file takes only whole blocks, and a short count may end anywhere. A
 * transfer that began block-aligned therefore goes on from the last block boundary that was passed:
 * at worst a block is written twice with the same bytes, before any sync covers it.
 */
#include "env/env.h"

#include <errno.h>
#include <string.h>

/* Short counts in a row that bring us no further; then the transfer is given up. */
#define ENV_STALLS_MAX 8

static bool
transfer_is_aligned(const void *data, size_t len, uint64_t offset)
{
    return ((uintptr_t)data | len | offset) % SCREE_BLOCK == 0;
}

/* From where a transfer goes on after `done` of its bytes. */
static size_t
transfer_resume(bool aligned, size_t len, size_t done)
{
    return aligned && done < len ? (size_t)scree__round_down(done, SCREE_BLOCK) : done;
}

int
scree__env_open_io(const scree_env *env, const char *path, int flags, int io_mode,
                   bool *direct_io_out)
{
    int file = -EINVAL;

    *direct_io_out = false;
    if (io_mode != SCREE_IO_BUFFERED) {
        file = env->open(env->ctx, path, flags | SCREE_ENV_DIRECT);
        *direct_io_out = file >= 0;
    }
    if (file == -EINVAL && io_mode != SCREE_IO_DIRECT)
        file = env->open(env->ctx, path, flags);
    if (file < 0)
        return scree__fail(file, "%s: cannot open%s: %s", path,
                           io_mode == SCREE_IO_DIRECT ? " for direct I/O (try SCREE_IO_AUTO)" : "",
                           scree_strerror(file));
    return file;
}

int
scree__env_write_all(const scree_env *env, int file, const void *data, size_t len, uint64_t offset)
{
    const unsigned char *bytes = data;
    bool aligned = transfer_is_aligned(data, len, offset);
    int stalls = 0;

    for (size_t done = 0; done < len;) {
        int64_t n = env->write(env->ctx, file, bytes + done, len - done, offset + done);

        if (n < 0)
            return scree__fail((int)n, "write of %zu bytes at offset %llu: %s", len - done,
                               (unsigned long long)(offset + done), scree_strerror((int)n));
        if ((uint64_t)n > len - done)
            return scree__fail(-EIO, "write of %zu bytes at offset %llu: the env says %lld",
                               len - done, (unsigned long long)(offset + done), (long long)n);
        size_t next = transfer_resume(aligned, len, done + (size_t)n);

#ifdef SCREE_BUG_SHORT_IS_WHOLE
        next = len; /* seeded: what was written of it is taken for all; fault_io must fail */
#endif
        stalls = next > done ? 0 : stalls + 1;
        if (stalls == ENV_STALLS_MAX)
            return scree__fail(-EIO, "write of %zu bytes at offset %llu: no progress", len - done,
                               (unsigned long long)(offset + done));
        done = next;
    }
    return 0;
}

/* Is this position at or behind the end of the file? 1, 0, -errno. */
static int
file_ends_at(const scree_env *env, int file, uint64_t offset)
{
    scree_env_info info;
    int rc = env->info(env->ctx, file, &info);

    return rc < 0 ? rc : info.size_bytes <= offset;
}

int
scree__env_read_all(const scree_env *env, int file, void *data, size_t len, uint64_t offset,
                    size_t *len_out)
{
    unsigned char *bytes = data;
    bool aligned = transfer_is_aligned(data, len, offset);
    int stalls = 0;

    *len_out = 0;
    for (size_t done = 0; done < len;) {
        int64_t n = env->read(env->ctx, file, bytes + done, len - done, offset + done);

        if (n >= 0 && (uint64_t)n > len - done)
            n = -EIO;
        size_t seen = n < 0 ? done : done + (size_t)n;
        /* A short count alone does not tell the end of the file from an interrupted transfer. */
        int end = n < 0 ? (int)n : seen < len ? file_ends_at(env, file, offset + seen) : 0;

        if (end < 0)
            return scree__fail(end, "read of %zu bytes at offset %llu: %s", len - done,
                               (unsigned long long)(offset + done), scree_strerror(end));
        if (end > 0) {
            *len_out = seen;
            return 0;
        }
        size_t next = transfer_resume(aligned, len, seen);

        stalls = next > done ? 0 : stalls + 1;
        if (stalls == ENV_STALLS_MAX)
            return scree__fail(-EIO, "read of %zu bytes at offset %llu: no progress", len - done,
                               (unsigned long long)(offset + done));
        done = next;
    }
    *len_out = len;
    return 0;
}

/* The body of scree__env_read_file, with the file open. */
static int
file_read_whole(const scree_env *env, int file, const char *path, size_t len_max, void **data_out,
                size_t *len_out)
{
    scree_env_info info;
    int rc = env->info(env->ctx, file, &info);

    if (rc < 0)
        return scree__fail(rc, "%s: cannot learn its size: %s", path, scree_strerror(rc));
    if (info.size_bytes > len_max)
        return scree__fail(SCREE_E_TOO_BIG, "%s: %llu bytes, at most %zu are expected here", path,
                           (unsigned long long)info.size_bytes, len_max);
    size_t len = (size_t)info.size_bytes;
    size_t got;
    void *data = scree__alloc(len);

    if (data == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory for its %zu bytes", path, len);
    rc = scree__env_read_all(env, file, data, len, 0, &got);
    if (rc != 0)
        rc = scree__fail(rc, "%s: %s", path, scree_error_detail());
    else if (got != len)
        rc =
            scree__fail(-EIO, "%s: shrank from %zu to %zu bytes while it was read", path, len, got);
    if (rc != 0) {
        scree__free(data, len);
        return rc;
    }
    *data_out = data;
    *len_out = len;
    return 0;
}

int
scree__env_read_file(const scree_env *env, const char *path, size_t len_max, void **data_out,
                     size_t *len_out)
{
    *data_out = NULL;
    *len_out = 0;
    int file = env->open(env->ctx, path, SCREE_ENV_READ);

    if (file < 0)
        return scree__fail(file, "%s: cannot open: %s", path, scree_strerror(file));
    int rc = file_read_whole(env, file, path, len_max, data_out, len_out);

    (void)env->close(env->ctx, file); /* only read: nothing to lose */
    return rc;
}

#ifdef SCREE_BUG_RENAME_BEFORE_SYNC
#define SYNCS false /* seeded bug: tests must notice */
#else
#define SYNCS true
#endif
#ifdef SCREE_BUG_RENAME_UNSYNCED
#define SYNCS_NAME false /* seeded bug: tests must notice */
#else
#define SYNCS_NAME true
#endif

/* A new file of these bytes, synced, though its name may not be. */
static int
file_write_synced(const scree_env *env, const char *path, const void *data, size_t len)
{
    int file = env->open(env->ctx, path, SCREE_ENV_WRITE | SCREE_ENV_CREATE | SCREE_ENV_TRUNCATE);

    if (file < 0)
        return scree__fail(file, "%s: cannot create: %s", path, scree_strerror(file));
    int rc = scree__env_write_all(env, file, data, len, 0);

    if (rc != 0) {
        rc = scree__fail(rc, "%s: %s", path, scree_error_detail());
    } else {
        rc = SYNCS ? env->sync(env->ctx, file) : 0;
        if (rc != 0)
            rc = scree__fail(rc, "%s: cannot sync: %s", path, scree_strerror(rc));
    }
    int closed = env->close(env->ctx, file);

    if (rc == 0 && closed != 0)
        rc = scree__fail(closed, "%s: cannot close: %s", path, scree_strerror(closed));
    return rc;
}

static int
file_replace(const scree_env *env, const char *dir, const char *path, const char *path_tmp,
             const void *data, size_t len)
{
    uint64_t begun = scree__names_begin(dir);
    int rc = file_write_synced(env, path_tmp, data, len);

    if (rc == 0) {
        rc = env->rename(env->ctx, path_tmp, path);
        if (rc != 0)
            rc = scree__fail(rc, "%s: cannot rename to %s: %s", path_tmp, path, scree_strerror(rc));
    }
    if (rc != 0) {
        (void)env->unlink(env->ctx, path_tmp); /* if it stays, the next replacement truncates it */
        return rc;
    }
    /* Until here a power cut may bring the old file back. */
    return SYNCS_NAME ? scree__names_sync(env, dir, begun) : 0;
}

int
scree__env_replace_file(const scree_env *env, const char *dir, const char *name, const void *data,
                        size_t len)
{
    int rc;
    char *path = scree__path_join(dir, name);
    size_t tmp_bytes = path == NULL ? 0 : strlen(path) + sizeof ".tmp";
    char *path_tmp = path == NULL ? NULL : scree__alloc(tmp_bytes);

    if (path_tmp == NULL) {
        rc = scree__fail(SCREE_E_NO_MEMORY, "%s/%s: no memory for its path", dir, name);
    } else {
        size_t path_len = strlen(path);

        memcpy(path_tmp, path, path_len);
        memcpy(path_tmp + path_len, ".tmp", sizeof ".tmp");
        rc = file_replace(env, dir, path, path_tmp, data, len);
    }
    scree__free(path_tmp, tmp_bytes);
    scree__path_free(path);
    return rc;
}
