/*
 * copy.c - copy the files of a generation into another directory.
 *
 * No atomics. The file is as it was published: its name, its bytes. What it should be stands in the
 * manifest that names it, so whoever opens the copy finds damage (loader.c); here only its length is looked
 * at.
 * FAILURE   returned with the file's name; what was made stays for the caller.
 * NOT HERE  keeping the file from being deleted meanwhile (manifest.c, keep_from).
 */
#include "snapshot/snapshot_private.h"

#include <string.h>

struct copy {
    const scree_env *env;
    const struct scree__snapshot_copy *to;
    const char *path; /* of the new file */
    int from_file, to_file;
};

static int
bytes_copy(const struct copy *c, uint64_t file_bytes, void *buffer)
{
    int rc = 0;

    for (uint64_t at = 0; rc == 0 && at < file_bytes;) {
        size_t n =
            file_bytes - at < c->to->chunk_bytes ? (size_t)(file_bytes - at) : c->to->chunk_bytes;
        size_t got;

        rc = scree__env_read_all(c->env, c->from_file, buffer, n, at, &got);
        if (rc == 0 && got < n)
            rc = scree__fail(SCREE_E_CORRUPT, "%s: the original ends at offset %llu", c->path,
                             (unsigned long long)(at + got));
        if (rc == 0)
            rc = scree__env_write_all(c->env, c->to_file, buffer, n, at);
        if (rc == 0)
            rc = c->to->step(c->to->ctx, n, true);
        at += n;
    }
    if (rc == 0) {
        rc = c->env->sync(c->env->ctx, c->to_file);
        if (rc != 0)
            (void)scree__fail(rc, "%s: cannot sync: %s", c->path, scree_strerror(rc));
    }
    return rc;
}

static int
file_copy(struct copy *c, const char *from_path, uint64_t file_bytes)
{
    const scree_env *env = c->env;
    void *buffer = scree__alloc(c->to->chunk_bytes);
    int rc = 0, closed = 0;

    c->to_file = -1;
    c->from_file = env->open(env->ctx, from_path, SCREE_ENV_READ);
    if (c->from_file < 0)
        rc = scree__fail(c->from_file, "%s: cannot open: %s", from_path,
                         scree_strerror(c->from_file));
    if (rc == 0) {
        c->to_file =
            env->open(env->ctx, c->path, SCREE_ENV_WRITE | SCREE_ENV_CREATE | SCREE_ENV_EXCLUSIVE);
        if (c->to_file < 0)
            rc = scree__fail(c->to_file, "%s: cannot create: %s", c->path,
                             scree_strerror(c->to_file));
    }
    if (rc == 0 && buffer == NULL)
        rc = scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to copy it", c->path);
    if (rc == 0)
        rc = bytes_copy(c, file_bytes, buffer);
    if (c->to_file >= 0)
        closed = env->close(env->ctx, c->to_file);
    if (c->from_file >= 0)
        (void)env->close(env->ctx, c->from_file); /* only read */
    scree__free(buffer, c->to->chunk_bytes);
    return rc != 0 || closed == 0
               ? rc
               : scree__fail(closed, "%s: cannot close: %s", c->path, scree_strerror(closed));
}

int
scree__snapshot_copy(const scree_env *env, const char *dir, const struct scree__generation *g,
                     const struct scree__snapshot_copy *to)
{
    char name[SCREE__SNAPSHOT_NAME_BYTES];
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < g->files; i++) {
        scree__snapshot_name(name, SCREE__SNAPSHOT_FILE, g->file[i].number, false);
        char *from = scree__path_join(dir, name), *path = scree__path_join(to->dir, name);
        struct copy c = {.env = env, .to = to, .path = path};

        rc = from != NULL && path != NULL
                 ? file_copy(&c, from, g->file[i].bytes)
                 : scree__fail(SCREE_E_NO_MEMORY, "no memory for a file name");
        scree__free(from, from == NULL ? 0 : strlen(from) + 1);
        scree__path_free(path);
    }
    return rc;
}
