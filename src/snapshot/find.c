/*
 * find.c - snapshots of a directory that has no manifest any more: what the files say of themselves.
 *
 * STEPS  F1  every file of our pattern whose header verifies and names this directory is listed
 *        F2  the newest below a given number ends a generation: a delta's predecessor is the newest file in
 *            front of it that has the replay start which the delta adds to, and so on down to a full one
 *        F3  lengths and hashes are those of the files as they are: whether they are whole the loader finds
 *            out, as each ends with a hash of its own
 * A file under its final name was complete and synced when it got it, published or not.
 * MEMORY  a fixed list: of more files than it holds the newest are looked at.
 * FAILURE  a file that cannot be read, or is damaged, is as good as none. Want of memory is returned: an older
 *            generation must not pass for the newest because of it.
 * NOT HERE  loading (loader.c), which one to take (pagecache/survey.c).   REFS  docs/snapshot_format.md.
 */
#include "snapshot/snapshot_private.h"

#include <errno.h>
#include <string.h>

#define FOUND_MAX 160u     /* two generations of deltas, and some that crashes left */
#ifdef SCREE_SMALL_BUFFERS /* as in log/scan.c */
#define CHUNK_BYTES ((size_t)4096)
#else
#define CHUNK_BYTES ((size_t)1 << 20)
#endif

struct found {
    uint64_t number, replay_lsn, since_lsn;
};

struct find {
    const scree_env *env;
    const char *dir;
    uint64_t below;
    uint64_t number[FOUND_MAX]; /* newest first */
    unsigned n;
    struct found file[FOUND_MAX];
    unsigned files;
};

static int
find_visit(void *ctx, const char *name)
{
    struct find *f = ctx;

    if (f->below > 0)
        scree__snapshot_newest_keep(name, SCREE__SNAPSHOT_FILE, f->below - 1, f->number, &f->n,
                                    FOUND_MAX);
    return 0;
}

/* A file number, or -errno. */
static int
find_open(const struct find *f, uint64_t number)
{
    char name[SCREE__SNAPSHOT_NAME_BYTES];
    char *path;
    int file;

    scree__snapshot_name(name, SCREE__SNAPSHOT_FILE, number, false);
    path = scree__path_join(f->dir, name);
    if (!path)
        return SCREE_E_NO_MEMORY;
    file = f->env->open(f->env->ctx, path, SCREE_ENV_READ);
    scree__path_free(path);
    return file;
}

/* F1. 1: it is one of ours, 0: it is not; or NO_MEMORY. */
static int
header_read(const struct find *f, uint64_t number, const uint8_t uuid[16], struct found *out)
{
    unsigned char p[SCREE__SNAPSHOT_HEADER_BYTES];
    struct scree__snapshot_meta meta = {.number = 0};
    uint32_t version = 0, type = 0;
    size_t got = 0;
    int file = find_open(f, number), rc;

    if (file < 0)
        return file == SCREE_E_NO_MEMORY ? file : 0;
    rc = scree__env_read_all(f->env, file, p, sizeof p, 0, &got);
    (void)f->env->close(f->env->ctx, file); /* only read */
    if (rc != 0 || got < sizeof p ||
        scree__snapshot_prefix_get(p, SCREE__SNAPSHOT_MAGIC, &version) ||
        version != SCREE__SNAPSHOT_VERSION || scree__snapshot_header_get(p, &meta, &type) ||
        meta.number != number || memcmp(meta.uuid, uuid, 16) != 0 ||
        (type != SCREE__SNAPSHOT_FULL && type != SCREE__SNAPSHOT_DELTA))
        return 0;
    *out = (struct found){number, meta.replay_lsn, meta.since_lsn};
    return 1;
}

/* The length, and what the trailer there says was stable. */
static int
trailer_read(const struct find *f, int file, uint64_t *bytes_out, uint64_t *stable_out)
{
    unsigned char p[SCREE__SNAPSHOT_TRAILER_BYTES];
    struct scree__snapshot_trailer t = {.blocks = 0};
    scree_env_info info;
    size_t got = 0;
    int rc = f->env->info(f->env->ctx, file, &info);

    if (rc < 0)
        return rc;
    *bytes_out = info.size_bytes;
    if (info.size_bytes < SCREE__SNAPSHOT_FILE_BYTES_MIN)
        return SCREE_E_CORRUPT;
    rc = scree__env_read_all(f->env, file, p, sizeof p, info.size_bytes - sizeof p, &got);
    if (rc == 0 && (got < sizeof p || scree__snapshot_trailer_get(p, &t) != NULL))
        rc = SCREE_E_CORRUPT;
    *stable_out = t.stable_lsn;
    return rc;
}

/* F3. Of the file, its length and hash; what its trailer says was stable. The trailer first: a file that does
   not end with one may be of any length. */
static int
file_measure(const struct find *f, struct scree__snapshot_file *out, uint64_t *stable_out)
{
    unsigned char *chunk = scree__alloc(CHUNK_BYTES);
    XXH3_state_t hash;
    size_t got = CHUNK_BYTES;
    int file = find_open(f, out->number), rc = chunk == NULL ? SCREE_E_NO_MEMORY : 0;

    *stable_out = 0;
    if (rc == 0)
        rc = file < 0 ? file : trailer_read(f, file, &out->bytes, stable_out);
    XXH3_64bits_reset(&hash);
    for (uint64_t at = 0; rc == 0 && at < out->bytes; at += got) {
        rc = scree__env_read_all(f->env, file, chunk, CHUNK_BYTES, at, &got);
        if (rc == 0 && got == 0)
            rc = SCREE_E_CORRUPT; /* shorter than it was */
        if (rc == 0)
            XXH3_64bits_update(&hash, chunk, got);
    }
    out->hash = XXH3_64bits_digest(&hash);
    if (file >= 0)
        (void)f->env->close(f->env->ctx, file); /* only read */
    scree__free(chunk, CHUNK_BYTES);
    return rc;
}

/* F2. The files of the generation that ends with file[at], into g, oldest first. */
static int
chain_make(const struct find *f, unsigned at, struct scree__generation *g)
{
    unsigned chain[SCREE__GENERATION_FILES_MAX];
    uint64_t stable;
    int rc = 0;

    memset(g, 0, sizeof *g);
    g->replay_lsn = f->file[at].replay_lsn;
    for (uint64_t since = UINT64_MAX; since != 0; at++) {
        while (at < f->files && since != UINT64_MAX && f->file[at].replay_lsn != since)
            at++;
        if (at >= f->files || g->files == SCREE__GENERATION_FILES_MAX)
            return SCREE_E_CORRUPT;
        chain[g->files++] = at;
        since = f->file[at].since_lsn;
    }
    for (uint32_t i = 0; rc == 0 && i < g->files; i++) {
        g->file[i].number = f->file[chain[g->files - 1 - i]].number;
        rc = file_measure(f, &g->file[i], &stable);
        if (stable > g->stable_lsn)
            g->stable_lsn = stable;
    }
    return rc == 0 && g->stable_lsn < g->replay_lsn ? SCREE_E_CORRUPT : rc;
}

int
scree__snapshot_find(const scree_env *env, const char *dir, const uint8_t uuid[16], uint64_t below,
                     struct scree__generation *g_out)
{
    struct find *f = scree__alloc_zero(sizeof *f);
    int rc;

    memset(g_out, 0, sizeof *g_out);
    if (!f)
        return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to look for snapshots", dir);
    *f = (struct find){.env = env, .dir = dir, .below = below};
    rc = env->list(env->ctx, dir, find_visit, f);
    for (unsigned i = 0; rc == 0 && i < f->n; i++) {
        int ours = header_read(f, f->number[i], uuid, &f->file[f->files]);

        f->files += ours == 1;
        rc = ours < 0 ? ours : 0;
    }
    if (rc < 0) {
        rc = scree__fail(rc, "%s: cannot look for snapshots: %s", dir, scree_strerror(rc));
    } else {
        rc = -ENOENT;
        for (unsigned at = 0; rc != 0 && rc != SCREE_E_NO_MEMORY && at < f->files; at++)
            rc = chain_make(f, at, g_out);
        if (rc != 0)
            rc = scree__fail(rc == SCREE_E_NO_MEMORY ? rc : -ENOENT,
                             "%s: no snapshot file says whose it is", dir);
    }
    scree__free(f, sizeof *f);
    return rc;
}
