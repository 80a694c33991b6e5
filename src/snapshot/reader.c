/*
 * reader.c - one snapshot file: check all of it, then look into its blocks.
 *
 * PROTOCOL
 *   1 prefix, header, size: is it ours, of a version we know, the file the manifest means, and does it add to
 *     the one before it?
 *   2 walk: one pass over the file in 1 MiB reads. Block headers are checked (bounds, ids growing
 *     from block to block) and noted, the trailer must come at the very end, its sums must agree,
 *     both hashes over the whole file must match. No payload is decompressed, and nothing is sized
 *     by a number that was not checked.
 *   3 desk: a block is read once more, its hash checked (the file may have rotted since the walk),
 *     decompressed, and decoded entry by entry.
 * INVARIANTS
 *   I1 a reader does not change after open: any number of desks, each of one thread, may share it.
 * MEMORY  56 bytes a block noted (which takes 41 in the file at least); a desk: up to 3 MiB.
 * FAILURE  CORRUPT names file, offset and what is wrong there. Nothing is written.
 * NOT HERE  side by side (loader.c), several files (loader.c, merge.c).   REFS  docs/snapshot_format.md.
 */
#include "snapshot/snapshot_private.h"

#include <inttypes.h>
#include <string.h>

#ifdef SCREE_SMALL_BUFFERS /* as in log/scan.c */
#define CHUNK_BYTES ((size_t)4096)
#else
#define CHUNK_BYTES ((size_t)1 << 20)
#endif

/* ---- the walk -------------------------------------------------------------------------------- */

/* Bytes of the file in order, hashed as they are consumed. */
struct walk {
    XXH3_state_t hash;
    struct scree__snapshot_reader *reader;
    uint64_t stable_max; /* of the manifest */
    uint64_t hash_wanted;
    unsigned char *chunk; /* CHUNK_BYTES */
    size_t chunk_at, chunk_len;
    uint64_t offset; /* of what is consumed next */
    uint64_t state_len, entries;
    uint64_t last_id;
};

int
scree__snapshot_reader_corrupt(const struct scree__snapshot_reader *r, uint64_t offset,
                               const char *what, const char *problem)
{
    return scree__fail(SCREE_E_CORRUPT, "%s: %s at offset %" PRIu64 ": %s", r->path, what, offset,
                       problem);
}

/* len bytes at offset, which the file has. */
static int
reader_read(const struct scree__snapshot_reader *r, void *data, size_t len, uint64_t offset)
{
    size_t got;
    int rc = scree__env_read_all(r->env, r->file, data, len, offset, &got);

    if (rc != 0)
        return scree__fail(rc, "%s: %s", r->path, scree_error_detail());
    if (got != len)
        return scree__snapshot_reader_corrupt(r, offset + got, "file", "it ends early");
    return 0;
}

/* The next n bytes, to dst unless that is NULL. They do not reach beyond the announced end. */
static int
walk_take(struct walk *w, unsigned char *dst, uint64_t n)
{
    while (n > 0) {
        size_t have = w->chunk_len - w->chunk_at;
        size_t part = n < have ? (size_t)n : have;

        if (have == 0) {
            uint64_t rest = w->reader->file_bytes - w->offset;
            int rc;

            SCREE_ASSERT(n <= rest);
            w->chunk_at = 0;
            w->chunk_len = rest < CHUNK_BYTES ? (size_t)rest : CHUNK_BYTES;
            rc = reader_read(w->reader, w->chunk, w->chunk_len, w->offset);
            if (rc != 0)
                return rc;
            continue;
        }
        if (dst) {
            memcpy(dst, w->chunk + w->chunk_at, part);
            dst += part;
        }
        XXH3_64bits_update(&w->hash, w->chunk + w->chunk_at, part);
        w->chunk_at += part;
        w->offset += part;
        n -= part;
    }
    return 0;
}

static int
walk_note(struct walk *w, const struct scree__snapshot_block *b)
{
    struct scree__snapshot_reader *r = w->reader;

    struct scree__snapshot_noted *blocks =
        scree__array_reserve(r->blocks, &r->block_cap, r->block_count + 1, sizeof *blocks);

    if (!blocks)
        return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory for %zu blocks", r->path,
                           r->block_count + 1);
    r->blocks = blocks;
    r->blocks[r->block_count++] = (struct scree__snapshot_noted){
        .block = *b, .offset = w->offset, .state_offset = w->state_len};
    r->stored_max = b->stored_len > r->stored_max ? b->stored_len : r->stored_max;
    r->raw_max = b->raw_len > r->raw_max ? b->raw_len : r->raw_max;
    return 0;
}

/* NULL, or how this block doesn't fit behind those before it. */
static const char *
walk_check_order(const struct walk *w, const struct scree__snapshot_block *b)
{
    uint64_t left = w->reader->file_bytes - w->offset;

    if (left < SCREE__SNAPSHOT_TRAILER_BYTES ||
        b->stored_len > left - SCREE__SNAPSHOT_TRAILER_BYTES)
        return "it reaches beyond the end of the file";
    if (b->kind == SCREE__SNAPSHOT_BLOCK_ENTRIES && w->state_len > 0)
        return "entries behind the state";
    if (b->kind == SCREE__SNAPSHOT_BLOCK_ENTRIES && b->first_id <= w->last_id)
        return "its page ids are not above those before it";
    return NULL;
}

static int
walk_block(struct walk *w)
{
    unsigned char header[SCREE__SNAPSHOT_BLOCK_BYTES];
    struct scree__snapshot_block b;
    uint64_t offset = w->offset;
    const char *problem;
    int rc = walk_take(w, header, sizeof header);

    if (rc != 0)
        return rc;
    problem = scree__snapshot_block_get(header, &b);
    if (!problem)
        problem = walk_check_order(w, &b);
    if (problem)
        return scree__snapshot_reader_corrupt(w->reader, offset, "block", problem);
    rc = walk_note(w, &b);
    if (rc != 0)
        return rc;
    if (b.kind == SCREE__SNAPSHOT_BLOCK_STATE) {
        w->state_len += b.raw_len;
    } else {
        w->last_id = b.last_id;
        w->entries += b.count;
    }
    return walk_take(w, NULL, b.stored_len);
}

static int
walk_trailer(struct walk *w)
{
    struct scree__snapshot_trailer *t = &w->reader->trailer;
    unsigned char bytes[SCREE__SNAPSHOT_TRAILER_BYTES];
    uint64_t offset = w->offset;
    const char *problem;
    uint64_t hash;
    int rc = walk_take(w, bytes, sizeof bytes - 8);

    hash = XXH3_64bits_digest(&w->hash);
    if (rc == 0)
        rc = walk_take(w, bytes + sizeof bytes - 8, 8);
    if (rc != 0)
        return rc;
    problem = scree__snapshot_trailer_get(bytes, t);
    if (!problem && scree__le64_get(bytes + sizeof bytes - 8) != hash)
        problem = "the file fails its checksum";
    if (!problem && XXH3_64bits_digest(&w->hash) != w->hash_wanted)
        problem = "the file is not the one the manifest names (checksum)";
    if (!problem && (t->blocks != w->reader->block_count || t->entries != w->entries ||
                     t->tombstones > t->entries || t->state_len != w->state_len))
        problem = "its sums do not agree with the blocks";
    if (!problem && (t->stable_lsn < w->reader->meta.replay_lsn || t->stable_lsn > w->stable_max))
        problem = "its stable lsn is out of bounds";
    return problem ? scree__snapshot_reader_corrupt(w->reader, offset, "trailer", problem) : 0;
}

static int
reader_walk(struct scree__snapshot_reader *r, const struct scree__generation *g, uint32_t i)
{
    struct walk w = {.reader = r, .stable_max = g->stable_lsn, .hash_wanted = g->file[i].hash};
    int rc;

    w.chunk = scree__alloc(CHUNK_BYTES);
    if (!w.chunk)
        return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to read it", r->path);
    XXH3_64bits_reset(&w.hash);
    rc = walk_take(&w, NULL, SCREE__SNAPSHOT_HEADER_BYTES);
    while (rc == 0 && r->file_bytes - w.offset > SCREE__SNAPSHOT_TRAILER_BYTES)
        rc = walk_block(&w);
    if (rc == 0)
        rc = walk_trailer(&w);
    scree__free(w.chunk, CHUNK_BYTES);
    return rc;
}

/* ---- header, open ---------------------------------------------------------------------------- */

/* NULL, or how the file is not the one that is wanted. */
static const char *
header_judge(const struct scree__snapshot_reader *r, const struct scree__generation *g, uint32_t i,
             uint32_t type, const struct scree__snapshot_reader *before)
{
    if (r->meta.number != g->file[i].number || r->meta.replay_lsn > g->replay_lsn ||
        (i + 1 == g->files && r->meta.replay_lsn != g->replay_lsn))
        return "it is not the one the manifest names";
    if ((type == SCREE__SNAPSHOT_FULL) != (i == 0))
        return i == 0 ? "a delta where a full snapshot should be"
                      : "a full snapshot where a delta should be";
    if (before && r->meta.since_lsn != before->meta.replay_lsn)
        return "it does not add to the one before it";
    return NULL;
}

static int
reader_header(struct scree__snapshot_reader *r, const struct scree__generation *g, uint32_t i,
              const uint8_t uuid[16], const struct scree__snapshot_reader *before)
{
    unsigned char p[SCREE__SNAPSHOT_HEADER_BYTES];
    const char *problem;
    uint32_t version = 0, type = 0;
    size_t got;
    int rc = scree__env_read_all(r->env, r->file, p, sizeof p, 0, &got);

    if (rc != 0)
        return scree__fail(rc, "%s: %s", r->path, scree_error_detail());
    problem = got < SCREE__SNAPSHOT_PREFIX_BYTES
                  ? "it ends early"
                  : scree__snapshot_prefix_get(p, SCREE__SNAPSHOT_MAGIC, &version);
    if (!problem && version != SCREE__SNAPSHOT_VERSION)
        return scree__fail(SCREE_E_FORMAT,
                           "%s: format version %" PRIu32 ", this library knows %u; "
                           "use the library that wrote it, or a newer one",
                           r->path, version, SCREE__SNAPSHOT_VERSION);
    if (!problem)
        problem = got < sizeof p ? "it ends early" : scree__snapshot_header_get(p, &r->meta, &type);
    if (!problem && type != SCREE__SNAPSHOT_FULL && type != SCREE__SNAPSHOT_DELTA)
        return scree__fail(SCREE_E_FORMAT,
                           "%s: snapshot type %" PRIu32
                           ", this library knows full snapshots (%d) and "
                           "deltas (%d); use the library that wrote it, or a newer one",
                           r->path, type, SCREE__SNAPSHOT_FULL, SCREE__SNAPSHOT_DELTA);
    if (!problem && memcmp(r->meta.uuid, uuid, 16) != 0)
        problem = "it belongs to another directory (uuid)";
    if (!problem)
        problem = header_judge(r, g, i, type, before);
    return problem ? scree__snapshot_reader_corrupt(r, 0, "header", problem) : 0;
}

static int
reader_check_size(const struct scree__snapshot_reader *r)
{
    scree_env_info info;
    int rc = r->env->info(r->env->ctx, r->file, &info);

    if (rc < 0)
        return scree__fail(rc, "%s: size: %s", r->path, scree_strerror(rc));
    if (info.size_bytes != r->file_bytes)
        return scree__fail(SCREE_E_CORRUPT,
                           "%s: %" PRIu64 " bytes long, the manifest says %" PRIu64, r->path,
                           info.size_bytes, r->file_bytes);
    if (info.size_bytes < SCREE__SNAPSHOT_FILE_BYTES_MIN)
        return scree__snapshot_reader_corrupt(r, info.size_bytes, "file",
                                              "too short for a snapshot");
    return 0;
}

int
scree__snapshot_reader_open(struct scree__snapshot_reader *r, const scree_env *env, const char *dir,
                            const struct scree__generation *g, uint32_t i, const uint8_t uuid[16],
                            const struct scree__snapshot_reader *before)
{
    char name[SCREE__SNAPSHOT_NAME_BYTES];
    int rc;

    memset(r, 0, sizeof *r);
    r->env = env;
    r->file = -1;
    r->file_bytes = g->file[i].bytes;
    scree__snapshot_name(name, SCREE__SNAPSHOT_FILE, g->file[i].number, false);
    r->path = scree__path_join(dir, name);
    if (!r->path)
        return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to read %s", dir, name);
    r->file = env->open(env->ctx, r->path, SCREE_ENV_READ);
    if (r->file < 0)
        return scree__fail(r->file, "%s: open: %s", r->path, scree_strerror(r->file));
    rc = reader_header(r, g, i, uuid, before);
    if (rc == 0)
        rc = reader_check_size(r);
    if (rc == 0)
        rc = reader_walk(r, g, i);
    if (rc == 0 && before && r->trailer.stable_lsn < before->trailer.stable_lsn)
        rc = scree__snapshot_reader_corrupt(r, r->file_bytes - SCREE__SNAPSHOT_TRAILER_BYTES,
                                            "trailer",
                                            "its stable lsn is below that of the file before");
    r->meta.id_high = r->trailer.id_high;
    r->meta.generated_high = r->trailer.generated_high;
    return rc;
}

void
scree__snapshot_reader_close(struct scree__snapshot_reader *r)
{
    if (r->file >= 0)
        (void)r->env->close(r->env->ctx, r->file); /* it was only read */
    r->file = -1;
    scree__free(r->blocks, r->block_cap * sizeof *r->blocks);
    r->blocks = NULL;
    if (r->path)
        scree__free(r->path, strlen(r->path) + 1);
    r->path = NULL;
}

/* ---- desk ------------------------------------------------------------------------------------ */

int
scree__snapshot_desk_init(struct scree__snapshot_desk *d, const struct scree__snapshot_reader *r)
{
    size_t positions = r->raw_max / 2;

    memset(d, 0, sizeof *d);
    if (positions > SCREE__SNAPSHOT_POSITIONS_MAX)
        positions = SCREE__SNAPSHOT_POSITIONS_MAX;
    d->reader = r;
    d->positions_bytes = positions * sizeof *d->positions;
    d->stored = scree__alloc(r->stored_max);
    d->raw = scree__alloc(r->raw_max);
    d->positions = scree__alloc(d->positions_bytes);
    d->dctx = ZSTD_createDCtx();
    if (d->stored && d->raw && d->positions && d->dctx)
        return 0;
    return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to read it", r->path);
}

void
scree__snapshot_desk_clear(struct scree__snapshot_desk *d)
{
    if (!d->reader)
        return;
    scree__free(d->stored, d->reader->stored_max);
    scree__free(d->raw, d->reader->raw_max);
    scree__free(d->positions, d->positions_bytes);
    ZSTD_freeDCtx(d->dctx);
    d->reader = NULL;
}

static int
desk_corrupt(const struct scree__snapshot_desk *d, const char *problem)
{
    return scree__snapshot_reader_corrupt(d->reader, d->noted->offset - SCREE__SNAPSHOT_BLOCK_BYTES,
                                          "block", problem);
}

static int
desk_unpack(struct scree__snapshot_desk *d, const struct scree__snapshot_noted *noted,
            unsigned char *raw)
{
    const char *problem;
    int rc = reader_read(d->reader, d->stored, noted->block.stored_len, noted->offset);

    d->noted = noted;
    if (rc != 0)
        return rc;
    problem = scree__snapshot_block_unpack(d->dctx, &noted->block, d->stored, raw);
    return problem ? desk_corrupt(d, problem) : 0;
}

int
scree__snapshot_desk_entries(struct scree__snapshot_desk *d,
                             const struct scree__snapshot_noted *noted)
{
    int rc = desk_unpack(d, noted, d->raw);

    d->cursor.positions = d->positions;
    scree__snapshot_cursor_init(&d->cursor, &noted->block, d->raw, &d->reader->meta,
                                d->reader->trailer.stable_lsn);
    return rc;
}

int
scree__snapshot_desk_next(struct scree__snapshot_desk *d, struct scree__snapshot_entry *e_out)
{
    bool more = d->cursor.left > 0;
    const char *problem = more ? scree__snapshot_entry_get(&d->cursor, e_out)
                               : scree__snapshot_cursor_finish(&d->cursor);

    return problem ? desk_corrupt(d, problem) : more;
}

int
scree__snapshot_desk_state(struct scree__snapshot_desk *d,
                           const struct scree__snapshot_noted *noted, unsigned char *state)
{
    return desk_unpack(d, noted, state + noted->state_offset);
}
