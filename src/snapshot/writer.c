/*
 * writer.c - write one snapshot file: entries as they come, the state, the trailer, then its name.
 *
 * PROTOCOL  of the file's life; no atomics, one thread owns a writer
 *   begin    snapshot-<n>.tmp opened, truncated: what an earlier crash left under that name is gone
 *   add      entries gather in a block; a block at its target is packed into the output buffer,
 *            which is written each time it is full: 1 MiB a write, whatever the size of the table
 *   finish   state blocks, trailer, rest of the buffer, sync, close, rename to snapshot-<n>, sync
 *            the directory; from there on a manifest may name it (manifest.c)
 * INVARIANTS
 *   I1 snapshot-<n> without .tmp is whole and synced, always.
 *   I2 bytes depend on meta, entries, state and the numbers given to finish alone: nothing of time,
 *      host or memory is in them, zstd runs at a fixed level in one thread.
 *   I3 both hashes (trailer's, generation's) cover exactly the bytes handed to the env, in order.
 * MEMORY  one block, raw and packed, and the output buffer: about 3 MiB.
 * FAILURE  the first error sticks: later adds and finish return it. However it fails, the writer
 *   unlinks its .tmp, or the renamed file if only the directory's sync failed: no manifest names
 *   it yet. Crash: at worst a .tmp or an unnamed snapshot, overwritten or deleted later.
 * NOT HERE  what the bytes mean (codec.c).   REFS  docs/snapshot_format.md.
 */
#include "snapshot/snapshot_private.h"

#include <stddef.h>
#include <string.h>

#define OUT_BYTES ((size_t)1 << 20)

struct scree__snapshot_writer {
    XXH3_state_t
        hash; /* first: wants the alignment of the allocation; of all bytes put out so far */
    const scree_env *env;
    char *dir;
    char *path_tmp;
    char *path;
    int file;  /* < 0: not open */
    int error; /* sticky */
    ZSTD_CCtx *cctx;
    struct scree__snapshot_meta meta;
    struct scree__snapshot_encoder enc;
    struct scree__snapshot_trailer trailer;
    uint64_t top_lsn; /* highest end of a position, or version, so far */
    uint64_t offset;  /* bytes written */
    unsigned char *packed;
    size_t packed_cap;
    unsigned char *out; /* OUT_BYTES */
    size_t out_len;
};

/* ---- output ---------------------------------------------------------------------------------- */

static int
writer_flush(struct scree__snapshot_writer *w)
{
    int rc = scree__env_write_all(w->env, w->file, w->out, w->out_len, w->offset);

    if (rc != 0)
        return scree__fail(rc, "%s: %s", w->path_tmp, scree_error_detail());
    w->offset += w->out_len;
    w->out_len = 0;
    return 0;
}

static int
writer_put(struct scree__snapshot_writer *w, const unsigned char *data, size_t len)
{
    XXH3_64bits_update(&w->hash, data, len); /* I3 */
    while (len > 0) {
        size_t room = OUT_BYTES - w->out_len;
        size_t n = len < room ? len : room;

        memcpy(w->out + w->out_len, data, n);
        w->out_len += n;
        data += n;
        len -= n;
        if (w->out_len == OUT_BYTES) {
            int rc = writer_flush(w);

            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

static int
writer_put_block(struct scree__snapshot_writer *w, struct scree__snapshot_block *b, const void *raw)
{
    size_t n = scree__snapshot_block_pack(w->cctx, b, raw, w->packed, w->packed_cap);

    if (w->trailer.blocks == UINT32_MAX)
        return scree__fail(SCREE_E_TOO_BIG, "%s: more blocks than a snapshot can have",
                           w->path_tmp);
    w->trailer.blocks++;
    return writer_put(w, w->packed, n);
}

static int
writer_put_entries(struct scree__snapshot_writer *w)
{
    struct scree__snapshot_encoder *enc = &w->enc;
    struct scree__snapshot_block b = {.kind = SCREE__SNAPSHOT_BLOCK_ENTRIES,
                                      .raw_len = (uint32_t)enc->len,
                                      .count = enc->count,
                                      .first_id = enc->first_id,
                                      .last_id = enc->last_id};

    if (enc->count == 0)
        return 0;
    enc->len = 0;
    enc->count = 0;
    enc->end_lsn = 0; /* the next block starts from nothing; last_id goes on, for the order */
    return writer_put_block(w, &b, enc->raw);
}

static int
writer_put_state(struct scree__snapshot_writer *w, scree_slice state)
{
    const unsigned char *at = state.data;

    for (size_t left = state.len; left > 0;) {
        size_t n = left < SCREE__SNAPSHOT_RAW_MAX ? left : SCREE__SNAPSHOT_RAW_MAX;
        struct scree__snapshot_block b = {.kind = SCREE__SNAPSHOT_BLOCK_STATE,
                                          .raw_len = (uint32_t)n};
        int rc = writer_put_block(w, &b, at);

        if (rc != 0)
            return rc;
        at += n;
        left -= n;
    }
    w->trailer.state_len = state.len;
    return 0;
}

static int
writer_put_trailer(struct scree__snapshot_writer *w)
{
    unsigned char bytes[SCREE__SNAPSHOT_TRAILER_BYTES];
    size_t hashed = sizeof bytes - 8;
    int rc;

    scree__snapshot_trailer_put(bytes, &w->trailer);
    rc = writer_put(w, bytes, hashed);
    scree__le64_put(bytes + hashed, XXH3_64bits_digest(&w->hash));
    return rc != 0 ? rc : writer_put(w, bytes + hashed, 8);
}

/* ---- begin, abandon -------------------------------------------------------------------------- */

static char *
path_make(const char *dir, uint64_t number, bool tmp)
{
    char name[SCREE__SNAPSHOT_NAME_BYTES];

    scree__snapshot_name(name, SCREE__SNAPSHOT_FILE, number, tmp);
    return scree__path_join(dir, name);
}

static void
writer_destroy(struct scree__snapshot_writer *w)
{
    scree__path_free(w->dir);
    scree__path_free(w->path_tmp);
    scree__path_free(w->path);
    scree__free(w->enc.raw, SCREE__SNAPSHOT_RAW_MAX);
    scree__free(w->packed, w->packed_cap);
    scree__free(w->out, OUT_BYTES);
    ZSTD_freeCCtx(w->cctx);
    scree__free(w, sizeof *w);
}

/* False: no memory; what was made is in w. */
static bool
writer_equip(struct scree__snapshot_writer *w, const char *dir, uint64_t number)
{
    w->packed_cap = SCREE__SNAPSHOT_BLOCK_BYTES + ZSTD_compressBound(SCREE__SNAPSHOT_RAW_MAX);
    w->dir = scree__alloc(strlen(dir) + 1);
    if (w->dir)
        strcpy(w->dir, dir);
    w->path_tmp = path_make(dir, number, true);
    w->path = path_make(dir, number, false);
    w->enc.raw = scree__alloc(SCREE__SNAPSHOT_RAW_MAX);
    w->packed = scree__alloc(w->packed_cap);
    w->out = scree__alloc(OUT_BYTES);
    w->cctx = ZSTD_createCCtx();
    return w->dir && w->path_tmp && w->path && w->enc.raw && w->packed && w->out && w->cctx;
}

int
scree__snapshot_begin(const scree_env *env, const char *dir,
                      const struct scree__snapshot_meta *meta,
                      struct scree__snapshot_writer **writer_out)
{
    struct scree__snapshot_writer *w = scree__alloc_aligned(64, sizeof *w);
    unsigned char header[SCREE__SNAPSHOT_HEADER_BYTES];
    int rc = 0;

    *writer_out = NULL;
    if (w) {
        memset(w, 0, sizeof *w);
        w->env = env;
        w->meta = *meta;
        w->enc.floor_lsn = scree__snapshot_floor(meta);
        w->top_lsn = meta->replay_lsn;
    }
    if (!w || !writer_equip(w, dir, meta->number)) {
        rc = scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to write a snapshot", dir);
        goto fail;
    }
    w->file =
        env->open(env->ctx, w->path_tmp, SCREE_ENV_WRITE | SCREE_ENV_CREATE | SCREE_ENV_TRUNCATE);
    if (w->file < 0) {
        rc = scree__fail(w->file, "%s: cannot create: %s", w->path_tmp, scree_strerror(w->file));
        goto fail;
    }
    XXH3_64bits_reset(&w->hash);
    scree__snapshot_header_put(header, meta);
    rc = writer_put(w, header, sizeof header);
    SCREE_ASSERT(rc == 0); /* the header is far smaller than the buffer: nothing was written */
    *writer_out = w;
    return 0;

fail:
    if (w)
        writer_destroy(w);
    return rc;
}

void
scree__snapshot_abandon(struct scree__snapshot_writer *w)
{
    /* Closed or not, unlinked or not: nobody will look at this file again. */
    if (w->file >= 0)
        (void)w->env->close(w->env->ctx, w->file);
    (void)w->env->unlink(w->env->ctx, w->path_tmp);
    writer_destroy(w);
}

void
scree__snapshot_remove(const scree_env *env, const char *dir, uint64_t number)
{
    char *path = path_make(dir, number, false);

    if (path)
        (void)env->unlink(env->ctx, path);
    scree__path_free(path);
}

/* ---- add, finish ----------------------------------------------------------------------------- */

static uint64_t
entry_top(const struct scree__snapshot_entry *e)
{
    uint64_t end = e->n > 0 ? e->positions[e->n - 1].lsn + e->positions[e->n - 1].disk_len : 0;

    return end > e->version ? end : e->version;
}

int
scree__snapshot_add(struct scree__snapshot_writer *w, const struct scree__snapshot_entry *e)
{
    const char *problem = scree__snapshot_entry_check(e, &w->meta);
    uint64_t top;

    if (w->error != 0)
        return w->error;
    if (!problem && w->trailer.entries > 0 && e->id <= w->enc.last_id)
        problem = "page ids do not grow";
    if (problem) {
        w->error = scree__fail(SCREE_E_INVALID, "%s: page %llu: %s", w->path_tmp,
                               (unsigned long long)e->id, problem);
        return w->error;
    }
    scree__snapshot_entry_put(&w->enc, e);
    w->trailer.entries++;
    w->trailer.tombstones += e->n == 0;
    top = entry_top(e);
    w->top_lsn = top > w->top_lsn ? top : w->top_lsn;
    if (w->enc.len >= SCREE__SNAPSHOT_RAW_TARGET)
        w->error = writer_put_entries(w);
    return w->error;
}

/* Everything but the name. */
static int
writer_complete(struct scree__snapshot_writer *w, scree_slice state)
{
    int rc = writer_put_entries(w);
    int file = w->file;

    if (rc == 0)
        rc = writer_put_state(w, state);
    if (rc == 0)
        rc = writer_put_trailer(w);
    if (rc == 0)
        rc = writer_flush(w);
    if (rc != 0)
        return rc;
    rc = w->env->sync(w->env->ctx, file);
    if (rc < 0)
        return scree__fail(rc, "%s: sync: %s", w->path_tmp, scree_strerror(rc));
    w->file = -1;
    rc = w->env->close(w->env->ctx, file);
    if (rc < 0)
        return scree__fail(rc, "%s: close: %s", w->path_tmp, scree_strerror(rc));
    return 0;
}

static int
writer_publish(struct scree__snapshot_writer *w)
{
    uint64_t begun = scree__names_begin(w->dir);
    int rc = w->env->rename(w->env->ctx, w->path_tmp, w->path);

    if (rc < 0)
        return scree__fail(rc, "%s: rename: %s", w->path_tmp, scree_strerror(rc));
    rc = scree__names_sync(w->env, w->dir, begun);
    if (rc != 0)
        (void)w->env->unlink(w->env->ctx, w->path); /* no manifest names it */
    return rc;
}

int
scree__snapshot_finish(struct scree__snapshot_writer *w, scree_slice state, uint64_t stable_lsn,
                       uint64_t id_high, struct scree__generation *generation_out)
{
    int rc = w->error;

    memset(generation_out, 0, sizeof *generation_out);
    w->trailer.stable_lsn = stable_lsn;
    w->trailer.id_high = id_high > w->meta.id_high ? id_high : w->meta.id_high;
    w->trailer.generated_high = w->meta.generated_high;
    if (rc == 0 && w->top_lsn > stable_lsn)
        rc = scree__fail(SCREE_E_INVALID,
                         "%s: reaches to lsn %llu, but the log is stable to %llu only", w->path_tmp,
                         (unsigned long long)w->top_lsn, (unsigned long long)stable_lsn);
    if (rc == 0)
        rc = writer_complete(w, state);
    if (rc == 0)
        rc = writer_publish(w);
    if (rc != 0) {
        scree__snapshot_abandon(w);
        return rc;
    }
    generation_out->replay_lsn = w->meta.replay_lsn;
    generation_out->stable_lsn = stable_lsn;
    generation_out->files = 1;
    generation_out->file[0].number = w->meta.number;
    generation_out->file[0].bytes = w->offset;
    generation_out->file[0].hash = XXH3_64bits_digest(&w->hash);
    writer_destroy(w);
    return 0;
}
