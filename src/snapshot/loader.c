/*
 * loader.c - read one snapshot file back: check all of it, then visit it on several threads.
 *
 * PROTOCOL
 *   1 prefix, header, size: is it ours, of a version we know, the file the manifest means?
 *   2 walk: one pass over the file in 1 MiB reads. Block headers are checked (bounds, ids growing
 *     from block to block) and noted, the trailer must come at the very end, its sums must agree,
 *     both hashes over the whole file must match. No payload is decompressed, and nothing is sized
 *     by a number that was not checked.
 *   3 work: the blocks are dealt out to `threads` workers, the caller being one. Each reads its
 *     block once more, checks its hash (the file may have rotted since the walk), decompresses,
 *     decodes and visits.
 * WORDS  load.next: index of the next block to hand out.
 *        load.failed: 1 = somebody owns load.code and load.text.
 * EDGES  step                 who         order              pairs  if it loses
 *   E0   take a block         any worker  fetch_add relaxed  -      cannot
 *   E1   failed 0 -> 1        any worker  CAS relaxed        -      another error is told, not ours
 *   E2   has anybody failed?  any worker  load relaxed       E1     seen late: a block too many
 *   All else travels by pthread_create (blocks, buffers) and pthread_join (code, text, state).
 * INVARIANTS
 *   I1 a block is visited by one worker, so ids of different calls differ: they grow across blocks.
 *   I2 code and text are written by the winner of E1 alone, and read after all workers were joined.
 *   I3 workers write disjoint parts of the state: each block's offset was fixed by the walk.
 * LIFETIME  of all of it: one call.   ABA: next only grows, failed is set once.
 * PROGRESS  workers never wait for each other. No thread to be had: the others do its share.
 * MEMORY  56 bytes a block noted (which takes 41 in the file at least), the state (at most
 *   SCREE__SNAPSHOT_STATE_RATIO_MAX times the file), and up to 3 MiB a worker.
 * FAILURE  the first error ends the load; the caller drops what was visited. Nothing is written.
 * NOT HERE  which generation to load and what to fall back to (pagecache).
 * REFS  docs/snapshot_format.md.
 */
#include "snapshot/snapshot_private.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)1 << 20)
#define THREADS_MAX 64u

struct load_block {
    struct scree__snapshot_block block;
    uint64_t offset;       /* of its payload in the file */
    uint64_t state_offset; /* of its bytes in the state */
};

struct load {
    /* set before the workers start, read only from then on */
    const scree_env *env;
    const char *path;
    int file;
    const struct scree__generation *generation;
    scree__snapshot_visit visit;
    void *ctx;
    struct scree__snapshot_meta meta;
    struct scree__snapshot_trailer trailer;
    struct load_block *blocks;
    size_t block_count, block_cap;
    uint32_t stored_max, raw_max; /* of one block */
    unsigned char *state;         /* I3 */
    /* shared by the workers */
    _Alignas(SCREE_CACHE_LINE) _Atomic size_t next; /* E0 */
    _Atomic int failed;                             /* E1, E2 */
    int code;                                       /* I2 */
    char text[512];                                 /* I2 */
};

/* ---- the walk -------------------------------------------------------------------------------- */

/* Bytes of the file in order, hashed as they are consumed. */
struct walk {
    XXH3_state_t hash;
    struct load *load;
    unsigned char *chunk; /* CHUNK_BYTES */
    size_t chunk_at, chunk_len;
    uint64_t offset; /* of what is consumed next */
    uint64_t state_len, entries;
    uint64_t last_id;
};

static int
load_corrupt(const struct load *l, uint64_t offset, const char *what, const char *problem)
{
    return scree__fail(SCREE_E_CORRUPT, "%s: %s at offset %" PRIu64 ": %s", l->path, what, offset,
                       problem);
}

/* len bytes at offset, which the file has. */
static int
load_read(const struct load *l, void *data, size_t len, uint64_t offset)
{
    size_t got;
    int rc = scree__env_read_all(l->env, l->file, data, len, offset, &got);

    if (rc != 0)
        return scree__fail(rc, "%s: %s", l->path, scree_error_detail());
    if (got != len)
        return load_corrupt(l, offset + got, "file", "it ends early");
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
            uint64_t rest = w->load->generation->file_bytes - w->offset;
            int rc;

            SCREE_ASSERT(n <= rest);
            w->chunk_at = 0;
            w->chunk_len = rest < CHUNK_BYTES ? (size_t)rest : CHUNK_BYTES;
            rc = load_read(w->load, w->chunk, w->chunk_len, w->offset);
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
    struct load *l = w->load;

    if (l->block_count == l->block_cap) {
        size_t cap = l->block_cap ? l->block_cap * 2 : 16;
        struct load_block *blocks =
            scree__realloc(l->blocks, l->block_cap * sizeof *blocks, cap * sizeof *blocks);

        if (!blocks)
            return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory for %zu blocks", l->path, cap);
        l->blocks = blocks;
        l->block_cap = cap;
    }
    l->blocks[l->block_count++] =
        (struct load_block){.block = *b, .offset = w->offset, .state_offset = w->state_len};
    l->stored_max = b->stored_len > l->stored_max ? b->stored_len : l->stored_max;
    l->raw_max = b->raw_len > l->raw_max ? b->raw_len : l->raw_max;
    return 0;
}

/* NULL, or how this block doesn't fit behind those before it. */
static const char *
walk_check_order(const struct walk *w, const struct scree__snapshot_block *b)
{
    uint64_t left = w->load->generation->file_bytes - w->offset;

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
        return load_corrupt(w->load, offset, "block", problem);
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
    const struct scree__generation *g = w->load->generation;
    struct scree__snapshot_trailer *t = &w->load->trailer;
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
    if (!problem && XXH3_64bits_digest(&w->hash) != g->file_hash)
        problem = "the file is not the one the manifest names (checksum)";
    if (!problem && (t->blocks != w->load->block_count || t->entries != w->entries ||
                     t->tombstones > t->entries || t->state_len != w->state_len))
        problem = "its sums do not agree with the blocks";
    if (!problem && (t->stable_lsn < w->load->meta.replay_lsn || t->stable_lsn > g->stable_lsn))
        problem = "its stable lsn is out of bounds";
    return problem ? load_corrupt(w->load, offset, "trailer", problem) : 0;
}

static int
load_walk(struct load *l)
{
    struct walk w = {.load = l};
    int rc;

    w.chunk = scree__alloc(CHUNK_BYTES);
    if (!w.chunk)
        return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to read it", l->path);
    XXH3_64bits_reset(&w.hash);
    rc = walk_take(&w, NULL, SCREE__SNAPSHOT_HEADER_BYTES);
    while (rc == 0 && l->generation->file_bytes - w.offset > SCREE__SNAPSHOT_TRAILER_BYTES)
        rc = walk_block(&w);
    if (rc == 0)
        rc = walk_trailer(&w);
    scree__free(w.chunk, CHUNK_BYTES);
    return rc;
}

/* ---- the work -------------------------------------------------------------------------------- */

struct worker {
    unsigned char *stored;
    unsigned char *raw;
    struct scree__position *positions;
    size_t positions_bytes;
    ZSTD_DCtx *dctx;
    uint64_t tombstones;
    struct load *load;
    pthread_t thread;
};

static void
worker_fail(struct load *l, int code)
{
    int none = 0;

    if (!atomic_compare_exchange_strong_explicit(&l->failed, &none, 1, memory_order_relaxed,
                                                 memory_order_relaxed)) /* E1 */
        return;
    l->code = code;
    /* The detail is this thread's; the caller's gets a copy. */
    (void)snprintf(l->text, sizeof l->text, "%s", scree_error_detail());
}

static int
worker_visit(struct worker *w, const struct load_block *lb)
{
    const struct load *l = w->load;
    struct scree__snapshot_cursor c = {.positions = w->positions};
    struct scree__snapshot_entry e;
    const char *problem;

    scree__snapshot_cursor_init(&c, &lb->block, w->raw, l->meta.replay_lsn, l->trailer.stable_lsn);
    while (c.left > 0) {
        int rc;

        problem = scree__snapshot_entry_get(&c, &e);
        if (problem)
            return load_corrupt(l, lb->offset - SCREE__SNAPSHOT_BLOCK_BYTES, "block", problem);
        w->tombstones += e.n == 0;
        rc = l->visit(l->ctx, &e);
        if (rc != 0)
            return rc;
    }
    problem = scree__snapshot_cursor_finish(&c);
    if (problem)
        return load_corrupt(l, lb->offset - SCREE__SNAPSHOT_BLOCK_BYTES, "block", problem);
    return 0;
}

static int
worker_block(struct worker *w, const struct load_block *lb)
{
    const struct load *l = w->load;
    bool is_state = lb->block.kind == SCREE__SNAPSHOT_BLOCK_STATE;
    unsigned char *raw = is_state ? l->state + lb->state_offset : w->raw; /* I3 */
    const char *problem;
    int rc = load_read(l, w->stored, lb->block.stored_len, lb->offset);

    if (rc != 0)
        return rc;
    problem = scree__snapshot_block_unpack(w->dctx, &lb->block, w->stored, raw);
    if (problem)
        return load_corrupt(l, lb->offset - SCREE__SNAPSHOT_BLOCK_BYTES, "block", problem);
    return is_state ? 0 : worker_visit(w, lb);
}

static bool
worker_equip(struct worker *w)
{
    size_t positions = w->load->raw_max / 2;

    if (positions > SCREE__SNAPSHOT_POSITIONS_MAX)
        positions = SCREE__SNAPSHOT_POSITIONS_MAX;
    w->positions_bytes = positions * sizeof *w->positions;
    w->stored = scree__alloc(w->load->stored_max);
    w->raw = scree__alloc(w->load->raw_max);
    w->positions = scree__alloc(w->positions_bytes);
    w->dctx = ZSTD_createDCtx();
    return w->stored && w->raw && w->positions && w->dctx;
}

static void *
worker_main(void *arg)
{
    struct worker *w = arg;
    struct load *l = w->load;
    int rc = 0;

    if (!worker_equip(w))
        rc = scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to read it", l->path);
    while (rc == 0 && !atomic_load_explicit(&l->failed, memory_order_relaxed)) { /* E2 */
        size_t i = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed); /* E0 */

        if (i >= l->block_count)
            break;
        scree__fail_clear(); /* a visitor may fail without a word */
        rc = worker_block(w, &l->blocks[i]);
    }
    if (rc != 0)
        worker_fail(l, rc);
    scree__free(w->stored, l->stored_max);
    scree__free(w->raw, l->raw_max);
    scree__free(w->positions, w->positions_bytes);
    ZSTD_freeDCtx(w->dctx);
    return NULL;
}

static int
load_work(struct load *l, unsigned threads)
{
    struct worker workers[THREADS_MAX] = {{.load = l}};
    uint64_t tombstones = 0;
    unsigned started = 1; /* the caller is workers[0] */

    while (started < threads && started < THREADS_MAX && started < l->block_count) {
        workers[started].load = l;
        if (pthread_create(&workers[started].thread, NULL, worker_main, &workers[started]) != 0)
            break;
        started++;
    }
    worker_main(&workers[0]);
    for (unsigned i = 1; i < started; i++)
        (void)pthread_join(workers[i].thread, NULL); /* cannot fail: ours, joinable, joined once */
    for (unsigned i = 0; i < started; i++)
        tombstones += workers[i].tombstones;
    if (atomic_load_explicit(&l->failed, memory_order_relaxed)) /* I2: ordered by the joins */
        return scree__fail(l->code, "%s", l->text);
    if (tombstones != l->trailer.tombstones)
        return load_corrupt(l, l->generation->file_bytes - SCREE__SNAPSHOT_TRAILER_BYTES, "trailer",
                            "its sums do not agree with the entries");
    return 0;
}

/* ---- header, load ---------------------------------------------------------------------------- */

static int
load_header(struct load *l, const uint8_t uuid[16])
{
    const struct scree__generation *g = l->generation;
    unsigned char p[SCREE__SNAPSHOT_HEADER_BYTES];
    const char *problem;
    uint32_t version = 0, type = 0;
    size_t got;
    int rc = scree__env_read_all(l->env, l->file, p, sizeof p, 0, &got);

    if (rc != 0)
        return scree__fail(rc, "%s: %s", l->path, scree_error_detail());
    problem = got < SCREE__SNAPSHOT_PREFIX_BYTES
                  ? "it ends early"
                  : scree__snapshot_prefix_get(p, SCREE__SNAPSHOT_MAGIC, &version);
    if (!problem && version != SCREE__SNAPSHOT_VERSION)
        return scree__fail(SCREE_E_FORMAT,
                           "%s: format version %" PRIu32 ", this library knows %u; "
                           "use the library that wrote it, or a newer one",
                           l->path, version, SCREE__SNAPSHOT_VERSION);
    if (!problem)
        problem = got < sizeof p ? "it ends early" : scree__snapshot_header_get(p, &l->meta, &type);
    if (!problem && type != SCREE__SNAPSHOT_FULL)
        return scree__fail(SCREE_E_FORMAT,
                           "%s: snapshot type %" PRIu32 "%s, this library knows full "
                           "snapshots (%d) only; use the library that wrote it, or a newer one",
                           l->path, type, type == SCREE__SNAPSHOT_DELTA ? " (delta)" : "",
                           SCREE__SNAPSHOT_FULL);
    if (!problem && memcmp(l->meta.uuid, uuid, 16) != 0)
        problem = "it belongs to another directory (uuid)";
    if (!problem && (l->meta.number != g->number || l->meta.replay_lsn != g->replay_lsn))
        problem = "it is not the one the manifest names";
    return problem ? load_corrupt(l, 0, "header", problem) : 0;
}

static int
load_check_size(const struct load *l)
{
    scree_env_info info;
    int rc = l->env->info(l->env->ctx, l->file, &info);

    if (rc < 0)
        return scree__fail(rc, "%s: size: %s", l->path, scree_strerror(rc));
    if (info.size_bytes != l->generation->file_bytes)
        return scree__fail(SCREE_E_CORRUPT,
                           "%s: %" PRIu64 " bytes long, the manifest says %" PRIu64, l->path,
                           info.size_bytes, l->generation->file_bytes);
    if (info.size_bytes < SCREE__SNAPSHOT_FILE_BYTES_MIN)
        return load_corrupt(l, info.size_bytes, "file", "too short for a snapshot");
    return 0;
}

static int
load_all(struct load *l, const uint8_t uuid[16], unsigned threads)
{
    int rc = load_header(l, uuid);

    if (rc == 0)
        rc = load_check_size(l);
    if (rc == 0)
        rc = load_walk(l);
    if (rc != 0)
        return rc;
    if (l->trailer.state_len > 0) {
        l->state = scree__alloc(l->trailer.state_len);
        if (!l->state)
            return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory for a state of %" PRIu64 " bytes",
                               l->path, l->trailer.state_len);
    }
    return load_work(l, threads);
}

int
scree__snapshot_load(const scree_env *env, const char *dir, const struct scree__generation *g,
                     const uint8_t uuid[16], unsigned threads, scree__snapshot_visit visit,
                     void *ctx, struct scree__snapshot_loaded *loaded_out)
{
    struct load l = {.env = env, .generation = g, .visit = visit, .ctx = ctx};
    char name[SCREE__SNAPSHOT_NAME_BYTES];
    char *path;
    int rc;

    memset(loaded_out, 0, sizeof *loaded_out);
    scree__snapshot_name(name, SCREE__SNAPSHOT_FILE, g->number, false);
    path = scree__path_join(dir, name);
    if (!path)
        return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to read %s", dir, name);
    l.path = path;
    l.file = env->open(env->ctx, path, SCREE_ENV_READ);
    if (l.file < 0) {
        rc = scree__fail(l.file, "%s: open: %s", path, scree_strerror(l.file));
    } else {
        rc = load_all(&l, uuid, threads);
        (void)env->close(env->ctx, l.file); /* it was only read */
    }
    scree__free(l.blocks, l.block_cap * sizeof *l.blocks);
    scree__free(path, strlen(path) + 1);
    if (rc != 0) {
        scree__free(l.state, l.trailer.state_len);
        return rc;
    }
    loaded_out->meta = l.meta;
    loaded_out->meta.id_high = l.trailer.id_high;
    loaded_out->meta.generated_high = l.trailer.generated_high;
    loaded_out->state = l.state;
    loaded_out->state_len = l.trailer.state_len;
    loaded_out->entries = l.trailer.entries;
    loaded_out->tombstones = l.trailer.tombstones;
    return 0;
}
