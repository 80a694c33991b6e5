/*
 * snapshot_fixture.h - a directory of one's own, checksums set right, and an env that fails the n-th call, for
 * test_snapshot.c, test_delta.c and test_manifest.c.
 */
#ifndef SNAPSHOT_FIXTURE_H
#define SNAPSHOT_FIXTURE_H

#include "snapshot/snapshot_private.h"
#include "support/kit.h"
#include "unit/claims.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t uuid[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const scree_slice no_state = {NULL, 0};

/* ---- directory ---- */

static char fixture_dir[64];

static inline void
fixture_make(void)
{
    strcpy(fixture_dir, "/tmp/scree-snapshot-XXXXXX");
    cr_assert(mkdtemp(fixture_dir) != NULL);
}

static inline char *
fixture_path(const char *name)
{
    static char path[4][512];
    static unsigned next;
    char *p = path[next++ % 4];

    snprintf(p, sizeof path[0], "%s/%s", fixture_dir, name);
    return p;
}

static inline void
fixture_remove(void)
{
    DIR *d = opendir(fixture_dir);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove(fixture_path(e->d_name));
    }
    if (d)
        closedir(d);
    rmdir(fixture_dir);
}

static inline bool
fixture_has(const char *name)
{
    return access(fixture_path(name), F_OK) == 0;
}

static inline bool
fixture_lacks(const char *name)
{
    return !fixture_has(name);
}

static inline unsigned
fixture_count(void)
{
    DIR *d = opendir(fixture_dir);
    unsigned n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static inline unsigned char *
fixture_read(const char *name, size_t *len_out)
{
    FILE *f = fopen(fixture_path(name), "rb");
    unsigned char *data;

    cr_assert(f != NULL, "%s", name);
    fseek(f, 0, SEEK_END);
    *len_out = (size_t)ftell(f);
    rewind(f);
    data = malloc(*len_out + 1);
    cr_assert(fread(data, 1, *len_out, f) == *len_out);
    fclose(f);
    return data;
}

static inline void
fixture_write(const char *name, const void *data, size_t len)
{
    FILE *f = fopen(fixture_path(name), "wb");

    cr_assert(f != NULL, "%s", name);
    cr_assert(fwrite(data, 1, len, f) == len);
    fclose(f);
}

/* The n-th ```hex block of docs/snapshot_format.md: in each line, what stands before a #. */
static inline size_t
fixture_example(unsigned n, unsigned char *bytes, size_t cap)
{
    const char *source = getenv("SCREE_SOURCE_DIR");
    char path[512], line[256];
    unsigned block = 0;
    bool inside = false;
    size_t len = 0;
    FILE *f;

    if (source)
        snprintf(path, sizeof path, "%s/docs/snapshot_format.md", source);
    else
        snprintf(path, sizeof path, "%.*s../../docs/snapshot_format.md",
                 (int)(strrchr(__FILE__, '/') - __FILE__ + 1), __FILE__);
    f = fopen(path, "r");
    cr_assert(f != NULL, "%s", path);
    while (fgets(line, sizeof line, f)) {
        char *at = line, *end;

        if (strncmp(line, "```", 3) == 0) {
            inside = strcmp(line, "```hex\n") == 0 && block++ == n;
            continue;
        }
        if (!inside)
            continue;
        line[strcspn(line, "#\n")] = '\0';
        for (;;) {
            unsigned long v = strtoul(at, &end, 16);

            if (end == at)
                break;
            cr_assert(len < cap && v < 256);
            bytes[len++] = (unsigned char)v;
            at = end;
        }
    }
    fclose(f);
    return len;
}

/* Set right every checksum that can be found, and the manifest. */
static inline void
fixture_rehash(unsigned char *data, size_t len, struct scree__snapshot_file *f)
{
    size_t at = SCREE__SNAPSHOT_HEADER_BYTES;

    scree__le32_put(data + 12, (uint32_t)XXH3_64bits(data, 12));
    scree__le64_put(data + 64, XXH3_64bits(data, 64));
    while (len - at > SCREE__SNAPSHOT_TRAILER_BYTES + SCREE__SNAPSHOT_BLOCK_BYTES) {
        size_t stored = scree__le32_get(data + at + 4);

        if (stored > len - at - SCREE__SNAPSHOT_BLOCK_BYTES)
            break;
        scree__le64_put(data + at + 32,
                        XXH3_64bits_withSeed(data + at + SCREE__SNAPSHOT_BLOCK_BYTES, stored,
                                             XXH3_64bits(data + at, 32)));
        at += SCREE__SNAPSHOT_BLOCK_BYTES + stored;
    }
    scree__le64_put(data + len - 8, XXH3_64bits(data, len - 8));
    f->bytes = len;
    f->hash = XXH3_64bits(data, len);
}

/* ---- an env that fails ---- */

struct fault {
    scree_env env; /* what the code under test gets */
    const scree_env *real;
    unsigned calls;
    unsigned fail_at; /* 1 = the first; 0 = never */
    bool for_ever;    /* from fail_at on: the process has died there */
    unsigned writes, writes_small;
};

static inline bool
fault_now(void *ctx)
{
    struct fault *f = ctx;
    unsigned n = __atomic_add_fetch(&f->calls, 1, __ATOMIC_RELAXED);

    return f->fail_at != 0 && (n == f->fail_at || (f->for_ever && n > f->fail_at));
}

#define FAULT_REAL(ctx) (((struct fault *)(ctx))->real)
#define FAULT_CALL(member, ...) \
    (fault_now(ctx) ? -EIO : FAULT_REAL(ctx)->member(FAULT_REAL(ctx)->ctx, __VA_ARGS__))

static inline int
fault_open(void *ctx, const char *path, int flags)
{
    return FAULT_CALL(open, path, flags);
}

static inline int
fault_close(void *ctx, int file)
{
    bool fail = fault_now(ctx);
    int rc = FAULT_REAL(ctx)->close(FAULT_REAL(ctx)->ctx, file); /* it is gone either way */

    return fail ? -EIO : rc;
}

static inline int64_t
fault_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    return FAULT_CALL(read, file, data, len, offset);
}

static inline int64_t
fault_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    struct fault *f = ctx;

    f->writes++;
    f->writes_small += len < 256 * 1024;
    return FAULT_CALL(write, file, data, len, offset);
}

static inline int
fault_sync(void *ctx, int file)
{
    return FAULT_CALL(sync, file);
}

static inline int
fault_info(void *ctx, int file, scree_env_info *info_out)
{
    return FAULT_CALL(info, file, info_out);
}

static inline int
fault_rename(void *ctx, const char *from, const char *to)
{
    return FAULT_CALL(rename, from, to);
}

static inline int
fault_unlink(void *ctx, const char *path)
{
    return FAULT_CALL(unlink, path);
}

static inline int
fault_sync_dir(void *ctx, const char *path)
{
    return FAULT_CALL(sync_dir, path);
}

static inline int
fault_list(void *ctx, const char *path, int (*visit)(void *, const char *), void *visit_ctx)
{
    return FAULT_CALL(list, path, visit, visit_ctx);
}

static inline const scree_env *
fault_init(struct fault *f, unsigned fail_at, bool for_ever)
{
    memset(f, 0, sizeof *f);
    f->real = scree_env_posix();
    f->env = *f->real;
    f->env.ctx = f;
    f->env.open = fault_open;
    f->env.close = fault_close;
    f->env.read = fault_read;
    f->env.write = fault_write;
    f->env.sync = fault_sync;
    f->env.info = fault_info;
    f->env.rename = fault_rename;
    f->env.unlink = fault_unlink;
    f->env.sync_dir = fault_sync_dir;
    f->env.list = fault_list;
    f->fail_at = fail_at;
    f->for_ever = for_ever;
    return &f->env;
}

#endif
