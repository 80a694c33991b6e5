/*
 * codec.c - the bytes of a snapshot file: header, blocks, entries, trailer. No I/O, no allocation.
 *
 * ENTRY  one page or tombstone of a block, in growing id order:
 *
 *     tag  7      3 2    0     gap = id - previous id - 1; the first entry's is 0, its id is in the
 *         +--------+------+    block's header. 31: a varint of gap - 31 follows the tag.
 *         |  gap   | kind |
 *         +--------+------+
 *     SINGLE     zigzag((lsn - previous end) / 8), disk_len / 8
 *     CHAIN      n - 2, the oldest position as in SINGLE, the others: (lsn - end of the one before)
 *                / 8, disk_len / 8
 *     VERSIONED  n - 1, positions as in CHAIN, zigzag(version - end of the newest)
 *     TOMBSTONE  version - floor
 *     ADDED      + SINGLE, CHAIN or VERSIONED: as these, in a delta
 *
 *   "floor" is replay_lsn in a full file, since_lsn in a delta.
 *   "previous end" is lsn + disk_len of the newest position of the page before in this block, 0 for
 *   its first: pages written one after the other cost 3 bytes each, pages scattered over a terabyte
 *   8 or 9. Every block starts from nothing, so that blocks can be read side by side.
 * VARINT  7 bits a byte, low ones first, top bit = more; at most 10 bytes.
 *   zigzag: 0, -1, 1, -2 -> 0, 1, 2, 3.
 * INVARIANTS  what a reader may rely on, checked when writing and again when reading
 *   I1 ids grow strictly, within a block and across blocks; none is 0.
 *   I2 positions are multiples of 8, not 0, none empty, oldest first, none overlaps the next.
 *   I3 no position ends above, and no version is above, the trailer's stable_lsn.
 *   I4 a tombstone's version is not below the floor; a page's is not 0. In a delta no position is below
 *      since_lsn, and only there a page is ADDED.
 *   I5 a page has one encoding: overlong varints and a kind that is not the tightest are refused.
 * HOSTILE BYTES  nothing is believed: every length is compared with what is left before it is used,
 *   a count with the bytes it would need at least; zstd gets a destination of the announced size.
 * NOT HERE  files (writer.c, loader.c), which of them to read (manifest.c).
 */
#include "snapshot/snapshot_private.h"

#include <string.h>

#define UNIT 8u /* of positions and lengths */
#define GAP_ESCAPE 31u
#define BELOW_FLOOR "a tombstone from before the replay start"
#define BELOW_SINCE "a delta has a position that belongs to what it adds to"
#define LEVEL 1 /* numbers scattered at random leave little to find; more only costs time */

static_assert(SCREE__SNAPSHOT_HEADER_BYTES == SCREE__SNAPSHOT_PREFIX_BYTES + 16 + 3 * 8 + 2 * 4 + 8,
              "uuid, number, replay_lsn, base number, type, zero, hash");
static_assert(SCREE__SNAPSHOT_BLOCK_BYTES == 4 + 3 * 4 + 3 * 8, "docs/snapshot_format.md");
static_assert(SCREE__SNAPSHOT_TRAILER_BYTES == 2 * 4 + 7 * 8, "docs/snapshot_format.md");

/* ---- varints --------------------------------------------------------------------------------- */

static unsigned char *
varint_put(unsigned char *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (unsigned char)(v | 0x80);
    *p++ = (unsigned char)v;
    return p;
}

/* False: cut off, longer than needed, or over 64 bits. */
static inline bool
varint_get(const unsigned char **at, const unsigned char *end, uint64_t *v_out)
{
    const unsigned char *p = *at;
    uint64_t v = 0;

    for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
        uint64_t bits = *p & 0x7fu;

        v |= bits << shift;
        if (*p++ & 0x80)
            continue;
        if ((bits == 0 && shift > 0) || (shift == 63 && bits > 1))
            return false;
        *at = p;
        *v_out = v;
        return true;
    }
    return false;
}

static inline uint64_t
zigzag(uint64_t difference)
{
    return difference << 1 ^ (0 - (difference >> 63));
}

static inline uint64_t
unzigzag(uint64_t v)
{
    return v >> 1 ^ (0 - (v & 1));
}

/* ---- header, block header, trailer ----------------------------------------------------------- */

void
scree__snapshot_prefix_put(unsigned char *p, const char *magic, uint32_t version)
{
    memcpy(p, magic, 8);
    scree__le32_put(p + 8, version);
    scree__le32_put(p + 12, (uint32_t)XXH3_64bits(p, 12));
}

const char *
scree__snapshot_prefix_get(const unsigned char *p, const char *magic, uint32_t *version_out)
{
    *version_out = 0;
    if (memcmp(p, magic, 8) != 0)
        return "not the magic number of this kind of file";
    /* The version has a check of its own: a flipped bit in it is damage, not a newer format. */
    if (scree__le32_get(p + 12) != (uint32_t)XXH3_64bits(p, 12))
        return "the format version fails its checksum";
    *version_out = scree__le32_get(p + 8);
    return NULL;
}

void
scree__snapshot_header_put(unsigned char *p, const struct scree__snapshot_meta *meta)
{
    scree__snapshot_prefix_put(p, SCREE__SNAPSHOT_MAGIC, SCREE__SNAPSHOT_VERSION);
    memcpy(p + 16, meta->uuid, 16);
    scree__le64_put(p + 32, meta->number);
    scree__le64_put(p + 40, meta->replay_lsn);
    scree__le64_put(p + 48, meta->since_lsn);
    scree__le32_put(p + 56, meta->since_lsn != 0 ? SCREE__SNAPSHOT_DELTA : SCREE__SNAPSHOT_FULL);
    scree__le32_put(p + 60, 0);
    scree__le64_put(p + 64, XXH3_64bits(p, 64));
}

const char *
scree__snapshot_header_get(const unsigned char *p, struct scree__snapshot_meta *meta_out,
                           uint32_t *type_out)
{
    memset(meta_out, 0, sizeof *meta_out);
    *type_out = 0;
    if (scree__le64_get(p + 64) != XXH3_64bits(p, 64))
        return "the header fails its checksum";
    memcpy(meta_out->uuid, p + 16, 16);
    meta_out->number = scree__le64_get(p + 32);
    meta_out->replay_lsn = scree__le64_get(p + 40);
    meta_out->since_lsn = scree__le64_get(p + 48);
    *type_out = scree__le32_get(p + 56);
    if (*type_out == SCREE__SNAPSHOT_FULL && meta_out->since_lsn != 0)
        return "a full snapshot adds to another";
    if (*type_out == SCREE__SNAPSHOT_DELTA &&
        (meta_out->since_lsn == 0 || meta_out->since_lsn > meta_out->replay_lsn))
        return "a delta adds to nothing, or to what is newer";
    if (scree__le32_get(p + 60) != 0)
        return "reserved bytes of the header are not zero";
    return NULL;
}

void
scree__snapshot_block_put(unsigned char *p, const struct scree__snapshot_block *b)
{
    p[0] = b->kind;
    p[1] = b->packing;
    p[2] = 0;
    p[3] = 0;
    scree__le32_put(p + 4, b->stored_len);
    scree__le32_put(p + 8, b->raw_len);
    scree__le32_put(p + 12, b->count);
    scree__le64_put(p + 16, b->first_id);
    scree__le64_put(p + 24, b->last_id);
    scree__le64_put(p + 32, b->hash);
}

static const char *
block_check_ids(const struct scree__snapshot_block *b)
{
    if (b->kind == SCREE__SNAPSHOT_BLOCK_STATE)
        return b->count == 0 && b->first_id == 0 && b->last_id == 0
                   ? NULL
                   : "a block of state has page ids";
    if (b->count == 0 || b->count > b->raw_len / SCREE__SNAPSHOT_ENTRY_BYTES_MIN)
        return "more entries than its bytes can hold, or none";
    if (b->first_id == 0 || b->last_id < b->first_id || b->last_id - b->first_id < b->count - 1)
        return "its page ids are out of order";
    return NULL;
}

const char *
scree__snapshot_block_get(const unsigned char *p, struct scree__snapshot_block *b_out)
{
    struct scree__snapshot_block b = {.kind = p[0],
                                      .packing = p[1],
                                      .stored_len = scree__le32_get(p + 4),
                                      .raw_len = scree__le32_get(p + 8),
                                      .count = scree__le32_get(p + 12),
                                      .first_id = scree__le64_get(p + 16),
                                      .last_id = scree__le64_get(p + 24),
                                      .hash = scree__le64_get(p + 32)};

    *b_out = b;
    if (b.kind != SCREE__SNAPSHOT_BLOCK_ENTRIES && b.kind != SCREE__SNAPSHOT_BLOCK_STATE)
        return "unknown kind of block";
    if (p[2] != 0 || p[3] != 0)
        return "reserved bytes are not zero";
    if (b.raw_len == 0 || b.raw_len > SCREE__SNAPSHOT_RAW_MAX)
        return "its length is out of bounds";
    if (b.packing == SCREE__SNAPSHOT_STORED && b.stored_len != b.raw_len)
        return "its two lengths differ without compression";
    if (b.packing == SCREE__SNAPSHOT_ZSTD && (b.stored_len == 0 || b.stored_len >= b.raw_len))
        return "its compressed length is out of bounds";
    if (b.packing > SCREE__SNAPSHOT_ZSTD)
        return "unknown compression";
    if (b.kind == SCREE__SNAPSHOT_BLOCK_STATE &&
        b.raw_len / b.stored_len >= SCREE__SNAPSHOT_STATE_RATIO_MAX)
        return "its state is compressed beyond what is allowed";
    return block_check_ids(&b);
}

void
scree__snapshot_trailer_put(unsigned char *p, const struct scree__snapshot_trailer *t)
{
    scree__le32_put(p, SCREE__SNAPSHOT_BLOCK_TRAILER);
    scree__le32_put(p + 4, t->blocks);
    scree__le64_put(p + 8, t->entries);
    scree__le64_put(p + 16, t->tombstones);
    scree__le64_put(p + 24, t->state_len);
    scree__le64_put(p + 32, t->id_high);
    scree__le64_put(p + 40, t->stable_lsn);
    scree__le64_put(p + 48, t->generated_high);
}

const char *
scree__snapshot_trailer_get(const unsigned char *p, struct scree__snapshot_trailer *t_out)
{
    t_out->blocks = scree__le32_get(p + 4);
    t_out->entries = scree__le64_get(p + 8);
    t_out->tombstones = scree__le64_get(p + 16);
    t_out->state_len = scree__le64_get(p + 24);
    t_out->id_high = scree__le64_get(p + 32);
    t_out->stable_lsn = scree__le64_get(p + 40);
    t_out->generated_high = scree__le64_get(p + 48);
    return scree__le32_get(p) == SCREE__SNAPSHOT_BLOCK_TRAILER ? NULL : "not a trailer";
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* The seed ties the payload to its header: neither can be swapped for another's. */
static uint64_t
block_hash(const unsigned char *header, const void *stored, size_t stored_len)
{
    uint64_t seed = XXH3_64bits(header, SCREE__SNAPSHOT_BLOCK_BYTES - 8);

    return XXH3_64bits_withSeed(stored, stored_len, seed);
}

size_t
scree__snapshot_block_pack(ZSTD_CCtx *cctx, struct scree__snapshot_block *b, const void *raw,
                           unsigned char *dst, size_t dst_cap)
{
    unsigned char *payload = dst + SCREE__SNAPSHOT_BLOCK_BYTES;
    size_t n = ZSTD_compressCCtx(cctx, payload, dst_cap - SCREE__SNAPSHOT_BLOCK_BYTES, raw,
                                 b->raw_len, LEVEL);
    /* zstd's own failures (memory) end here too: stored as it is, the block is as good. */
    bool smaller = !ZSTD_isError(n) && n < b->raw_len;

    if (smaller && b->kind == SCREE__SNAPSHOT_BLOCK_STATE)
        smaller = b->raw_len / n < SCREE__SNAPSHOT_STATE_RATIO_MAX;
    if (!smaller) {
        memcpy(payload, raw, b->raw_len);
        n = b->raw_len;
    }
    b->packing = smaller ? SCREE__SNAPSHOT_ZSTD : SCREE__SNAPSHOT_STORED;
    b->stored_len = (uint32_t)n;
    b->hash = 0;
    scree__snapshot_block_put(dst, b);
    b->hash = block_hash(dst, payload, n);
    scree__le64_put(dst + SCREE__SNAPSHOT_BLOCK_BYTES - 8, b->hash);
    return SCREE__SNAPSHOT_BLOCK_BYTES + n;
}

const char *
scree__snapshot_block_unpack(ZSTD_DCtx *dctx, const struct scree__snapshot_block *b,
                             const void *stored, void *raw)
{
    unsigned char header[SCREE__SNAPSHOT_BLOCK_BYTES];

    scree__snapshot_block_put(header, b);
    if (block_hash(header, stored, b->stored_len) != b->hash)
        return "it fails its checksum";
    if (b->packing == SCREE__SNAPSHOT_STORED) {
        memcpy(raw, stored, b->raw_len);
        return NULL;
    }
    if (ZSTD_getFrameContentSize(stored, b->stored_len) != b->raw_len)
        return "its compressed bytes announce another length";
    if (ZSTD_decompressDCtx(dctx, raw, b->raw_len, stored, b->stored_len) != b->raw_len)
        return "it does not decompress";
    return NULL;
}

/* ---- entries --------------------------------------------------------------------------------- */

const char *
scree__snapshot_entry_check(const struct scree__snapshot_entry *e,
                            const struct scree__snapshot_meta *meta)
{
    uint64_t end = 0;

    if (e->id == 0)
        return "0 is no page id";
    if (e->added && (e->n == 0 || meta->since_lsn == 0))
        return "positions are added to nothing";
    if (e->n == 0)
        return e->version >= scree__snapshot_floor(meta) ? NULL : BELOW_FLOOR;
    if (e->version == 0)
        return "a page without a version";
    if (e->n > SCREE__SNAPSHOT_POSITIONS_MAX)
        return "too many positions";
    if (e->positions[0].lsn < meta->since_lsn)
        return BELOW_SINCE;
    for (uint32_t i = 0; i < e->n; i++) {
        const struct scree__position *p = &e->positions[i];

        if (p->lsn == 0 || p->lsn % UNIT != 0 || p->disk_len == 0 || p->disk_len % UNIT != 0)
            return "a position or its length is 0 or no multiple of 8";
        if (p->lsn < end || p->lsn > UINT64_MAX - p->disk_len)
            return "positions do not grow, or overlap";
        end = p->lsn + p->disk_len;
    }
    return NULL;
}

static unsigned
entry_kind(uint64_t version, uint64_t end, uint32_t n)
{
    if (n == 0)
        return SCREE__SNAPSHOT_ENTRY_TOMBSTONE;
    if (version != end)
        return SCREE__SNAPSHOT_ENTRY_VERSIONED;
    return n == 1 ? SCREE__SNAPSHOT_ENTRY_SINGLE : SCREE__SNAPSHOT_ENTRY_CHAIN;
}

static unsigned char *
positions_put(unsigned char *p, uint64_t end, const struct scree__snapshot_entry *e)
{
    p = varint_put(p, zigzag(e->positions[0].lsn / UNIT - end / UNIT));
    p = varint_put(p, e->positions[0].disk_len / UNIT);
    for (uint32_t i = 1; i < e->n; i++) {
        end = e->positions[i - 1].lsn + e->positions[i - 1].disk_len;
        p = varint_put(p, (e->positions[i].lsn - end) / UNIT);
        p = varint_put(p, e->positions[i].disk_len / UNIT);
    }
    return p;
}

void
scree__snapshot_entry_put(struct scree__snapshot_encoder *enc,
                          const struct scree__snapshot_entry *e)
{
    const struct scree__position *newest = e->n > 0 ? &e->positions[e->n - 1] : NULL;
    uint64_t end = newest ? newest->lsn + newest->disk_len : enc->end_lsn;
    unsigned kind = entry_kind(e->version, end, e->n);
    uint64_t gap = enc->count == 0 ? 0 : e->id - enc->last_id - 1;
    unsigned char *p = enc->raw + enc->len;

    SCREE_ASSERT(enc->len < SCREE__SNAPSHOT_RAW_TARGET);
    SCREE_ASSERT(enc->count == 0 || e->id > enc->last_id); /* I1 */
    *p++ = (unsigned char)((gap < GAP_ESCAPE ? gap : GAP_ESCAPE) << 3 | kind |
                           (e->added ? (unsigned)SCREE__SNAPSHOT_ENTRY_ADDED : 0));
    if (gap >= GAP_ESCAPE)
        p = varint_put(p, gap - GAP_ESCAPE);
    if (kind == SCREE__SNAPSHOT_ENTRY_CHAIN)
        p = varint_put(p, e->n - 2);
    if (kind == SCREE__SNAPSHOT_ENTRY_VERSIONED)
        p = varint_put(p, e->n - 1);
    if (e->n > 0)
        p = positions_put(p, enc->end_lsn, e);
    if (kind == SCREE__SNAPSHOT_ENTRY_VERSIONED)
        p = varint_put(p, zigzag(e->version - end));
    if (kind == SCREE__SNAPSHOT_ENTRY_TOMBSTONE)
        p = varint_put(p, e->version - enc->floor_lsn);

    if (enc->count++ == 0)
        enc->first_id = e->id;
    enc->last_id = e->id;
    enc->end_lsn = end;
    enc->len = (size_t)(p - enc->raw);
}

void
scree__snapshot_cursor_init(struct scree__snapshot_cursor *c, const struct scree__snapshot_block *b,
                            const void *raw, const struct scree__snapshot_meta *meta,
                            uint64_t limit_lsn)
{
    c->at = raw;
    c->end = c->at + b->raw_len;
    c->left = b->count;
    c->floor_lsn = scree__snapshot_floor(meta);
    c->since_lsn = meta->since_lsn;
    c->limit_lsn = limit_lsn;
    c->first_id = b->first_id;
    c->id = b->first_id - 1;
    c->last_id = b->last_id;
    c->end_lsn = 0;
}

/* Tag and id. */
static const char *
tag_get(struct scree__snapshot_cursor *c, unsigned *kind_out)
{
    uint64_t gap, more = 0;

    if (c->at == c->end)
        return "its entries end early";
    *kind_out = *c->at & 7u;
    gap = *c->at++ >> 3;
    if (gap == GAP_ESCAPE && !varint_get(&c->at, c->end, &more))
        return "an id is malformed";
    if (c->id < c->first_id && gap + more != 0)
        return "its first id is not the announced one";
    /* Written so that nothing overflows: id is at most last_id, as the last round left it. */
    if (more > c->last_id - c->id || gap + 1 > c->last_id - c->id - more)
        return "an id is beyond the block's last one";
    c->id += gap + 1 + more;
    return NULL;
}

static const char *
count_get(struct scree__snapshot_cursor *c, unsigned kind, uint32_t *n_out)
{
    uint64_t n = 0;

    *n_out = 0;
    if (kind != SCREE__SNAPSHOT_ENTRY_SINGLE && !varint_get(&c->at, c->end, &n))
        return "a count of positions is malformed";
    /* A position takes two bytes at least: a count that cannot be true is refused unused. */
    if (n >= (uint64_t)(c->end - c->at) / 2)
        return "a page has more positions than its bytes can hold";
    n += kind == SCREE__SNAPSHOT_ENTRY_CHAIN ? 2 : 1;
    if (n > SCREE__SNAPSHOT_POSITIONS_MAX)
        return "a page has more positions than a page can have";
    *n_out = (uint32_t)n;
    return NULL;
}

/* c->end_lsn is a multiple of 8 at or below limit_lsn before and after. */
static const char *
positions_get(struct scree__snapshot_cursor *c, uint32_t n)
{
    uint64_t limit = c->limit_lsn / UNIT;
    uint64_t end = c->end_lsn / UNIT;

    for (uint32_t i = 0; i < n; i++) {
        uint64_t start, len;

        if (!varint_get(&c->at, c->end, &start) || !varint_get(&c->at, c->end, &len))
            return "a position is malformed";
        if (i > 0 && start > limit - end)
            return "a position is beyond the stable log";
        start = end + (i == 0 ? unzigzag(start) : start);
        if (start == 0 || start > limit)
            return "a position is 0 or beyond the stable log";
        if (len == 0 || len > UINT32_MAX / UNIT || len > limit - start)
            return "a record's length is 0 or reaches beyond the stable log";
        c->positions[i].lsn = start * UNIT;
        c->positions[i].disk_len = (uint32_t)len * UNIT;
        end = start + len;
    }
    c->end_lsn = end * UNIT;
    return NULL;
}

static const char *
version_get(struct scree__snapshot_cursor *c, unsigned kind, uint64_t *version_out)
{
    uint64_t v;

    *version_out = c->end_lsn;
    if (kind != SCREE__SNAPSHOT_ENTRY_VERSIONED && kind != SCREE__SNAPSHOT_ENTRY_TOMBSTONE)
        return NULL;
    if (!varint_get(&c->at, c->end, &v))
        return "a version is malformed";
    if (kind == SCREE__SNAPSHOT_ENTRY_TOMBSTONE) {
        if (c->floor_lsn > c->limit_lsn || v > c->limit_lsn - c->floor_lsn)
            return "a tombstone is beyond the stable log";
        *version_out = c->floor_lsn + v;
        return NULL;
    }
    *version_out = c->end_lsn + unzigzag(v);
    if (v == 0 || *version_out == 0 || *version_out > c->limit_lsn)
        return "a version is 0, beyond the stable log, or not worth its bytes";
    return NULL;
}

const char *
scree__snapshot_entry_get(struct scree__snapshot_cursor *c, struct scree__snapshot_entry *e_out)
{
    unsigned kind = 0;
    const char *problem = tag_get(c, &kind);

    SCREE_ASSERT(c->left > 0);
    memset(e_out, 0, sizeof *e_out);
    if (problem)
        return problem;
    e_out->delta = c->since_lsn != 0;
    if (e_out->delta && kind >= SCREE__SNAPSHOT_ENTRY_ADDED) {
        e_out->added = true;
        kind -= SCREE__SNAPSHOT_ENTRY_ADDED;
    }
    if (kind > SCREE__SNAPSHOT_ENTRY_TOMBSTONE ||
        (e_out->added && kind == SCREE__SNAPSHOT_ENTRY_TOMBSTONE))
        return "an entry is of an unknown kind";
    if (kind != SCREE__SNAPSHOT_ENTRY_TOMBSTONE) {
        problem = count_get(c, kind, &e_out->n);
        if (!problem)
            problem = positions_get(c, e_out->n);
        if (problem)
            return problem;
        if (c->positions[0].lsn < c->since_lsn)
            return BELOW_SINCE;
        e_out->positions = c->positions;
    }
    e_out->id = c->id;
    c->left--;
    return version_get(c, kind, &e_out->version);
}

const char *
scree__snapshot_cursor_finish(const struct scree__snapshot_cursor *c)
{
    SCREE_ASSERT(c->left == 0);
    if (c->at != c->end)
        return "bytes are left behind its last entry";
    return c->id == c->last_id ? NULL : "its last id is not the announced one";
}
