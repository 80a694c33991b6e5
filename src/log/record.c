/*
 * record.c - the bytes of a record, and when they are believed.
 *
 * ON DISK, little-endian, at positions that are multiples of 8 (docs/log_format.md is the reference):
 *
 *    0        8        16       20   21   22    24       32
 *   +--------+--------+--------+----+----+-----+--------+-- ... --+----------+
 *   |checksum|page id | length |kind|flag|  0  |version |payload  |0 to 8 * n|
 *   +--------+--------+--------+----+----+-----+--------+-- ... --+----------+
 *                                        only in CONSOLIDATED, IN_BATCH
 *
 *   checksum = XXH3_64 of {payload hash, page id, length | kind << 32 | flags << 40, lsn}, 8 bytes each, and of
 *   the version where the record is IN_BATCH (it is not known before the position is).
 *   A BATCH's payload: bytes of the whole batch, itself included, and how many records follow, 8 bytes each.
 *   payload hash = XXH3_64 of the payload, seeded with the version of a CONSOLIDATED; 0 for ABORTED and
 *   PAD, whose payload is what happened to be there.
 *
 *   A seal's payload: run start, stable, zeros, and a 24-byte footer {magic, the seal's lsn, XXH3_64 of
 *   those 16 bytes and the seal's end} that ends on a block boundary. Its payload hash covers the first
 *   16 bytes. So a seal is found from its front by a walk, and from its end by looking at block ends.
 * INVARIANTS
 *   I1 the lsn is part of the checksum: bytes that belong to another position never verify.
 *   I2 a length is used only after it was found to be in bounds, any other field only after the
 *      checksum was found right.
 *   I3 disk_len of an ABORTED record is that of the record it took the place of.
 *   I4 a record of zeros is bad (kind 0), so a zero-filled tail ends the log.
 * FAILURE   none: bad bytes are an enum log_decode, told apart only for error texts.
 * NOT HERE  what a bad record means (scan.c), where records lie (segment.c).
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "log/log_private.h"

#include <endian.h>

#define SEAL_MAGIC 0x6c6165736c637273ull /* "srclseal" read as bytes */
#define SEAL_BODY_BYTES 16u

static_assert(SEAL_BYTES_MIN == RECORD_HEADER_BYTES + SEAL_BODY_BYTES + SEAL_FOOTER_BYTES, "seal");
static_assert(SEAL_BYTES_MIN % SCREE__RECORD_ALIGN == 0, "seals end where they begin: aligned");
static_assert(RECORD_HEADER_BYTES % SCREE__RECORD_ALIGN == 0, "an aborted record is all header");

void
scree__put_u64(uint8_t *at, uint64_t v)
{
    v = htole64(v);
    memcpy(at, &v, sizeof v);
}

void
scree__put_u32(uint8_t *at, uint32_t v)
{
    v = htole32(v);
    memcpy(at, &v, sizeof v);
}

uint64_t
scree__get_u64(const uint8_t *at)
{
    uint64_t v;

    memcpy(&v, at, sizeof v);
    return le64toh(v);
}

uint32_t
scree__get_u32(const uint8_t *at)
{
    uint32_t v;

    memcpy(&v, at, sizeof v);
    return le32toh(v);
}

uint64_t
scree__log_hash(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

/* What every file of the log begins with, in this and in later formats: magic, version, and a check of both, so
   that a version that is not known is told from one that is damaged. */
void
scree__file_stamp(uint8_t at[LOG_STAMP_BYTES], uint64_t magic, uint32_t version)
{
    scree__put_u64(at, magic);
    scree__put_u32(at + 8, version);
    scree__put_u32(at + 12, (uint32_t)XXH3_64bits(at, 12));
}

bool
scree__file_stamp_read(const uint8_t at[LOG_STAMP_BYTES], uint64_t magic, uint32_t *version_out)
{
    *version_out = scree__get_u32(at + 8);
    return scree__get_u64(at) == magic && scree__get_u32(at + 12) == (uint32_t)XXH3_64bits(at, 12);
}

/* Between header and payload lies a version. */
static bool
has_version(uint8_t kind, uint8_t flags)
{
    return kind == SCREE__RECORD_CONSOLIDATED || (flags & SCREE__RECORD_IN_BATCH) != 0;
}

static uint32_t
ext_bytes(uint8_t kind, uint8_t flags)
{
    return has_version(kind, flags) ? 8 : 0;
}

static bool
kind_is_known(uint8_t kind)
{
    return (kind >= SCREE__RECORD_ALLOCATE && kind <= SCREE__RECORD_ID_RANGE) ||
           (kind >= SCREE__RECORD_PAD && kind <= SCREE__RECORD_SEAL);
}

static bool
kind_is_filler(uint8_t kind)
{
    return kind == SCREE__RECORD_PAD || kind == SCREE__RECORD_ABORTED;
}

void
scree__record_prepare(struct scree__record *r)
{
    uint64_t bytes = (uint64_t)RECORD_HEADER_BYTES + ext_bytes(r->kind, r->flags) + r->payload_len;
    uint64_t seed = r->kind == SCREE__RECORD_CONSOLIDATED ? r->version : 0;

    bytes = scree__round_up(bytes, SCREE__RECORD_ALIGN);
    /* A length that does not fit would be cut off here; admit refuses this one as TOO_BIG. */
    r->disk_len = bytes > RECORD_BYTES_MAX ? UINT32_MAX : (uint32_t)bytes;
    r->payload_hash = XXH3_64bits_withSeed(r->payload, r->payload_len, seed);
}

/* batch_end: of a record IN_BATCH, else 0. */
static uint64_t
header_checksum(uint64_t payload_hash, uint64_t page, uint64_t len_kind_flags, uint64_t lsn,
                uint64_t batch_end)
{
#ifdef SCREE_BUG_KIND_UNCHECKED
    len_kind_flags &= UINT32_MAX; /* seeded: a kind may change unseen; test_record must fail */
#endif
    uint64_t mix[5] = {htole64(payload_hash), htole64(page), htole64(len_kind_flags), htole64(lsn),
                       htole64(batch_end)};

    return XXH3_64bits(mix, (batch_end == 0 ? 4 : 5) * sizeof mix[0]);
}

static uint64_t
batch_end_of(const struct scree__record *r)
{
    return (r->flags & SCREE__RECORD_IN_BATCH) != 0 ? r->version : 0;
}

static void
header_put(uint8_t *at, const struct scree__record *r)
{
    uint64_t word = r->payload_len | (uint64_t)r->kind << 32 | (uint64_t)r->flags << 40;

    scree__put_u64(at, header_checksum(r->payload_hash, r->page, word, r->lsn, batch_end_of(r)));
    scree__put_u64(at + 8, r->page);
    scree__put_u64(at + 16, word); /* the upper 16 bits are the zero field */
}

void
scree__record_encode(const struct scree__record *r, uint8_t *at)
{
    uint8_t *p = at + RECORD_HEADER_BYTES;

    SCREE_ASSERT(kind_is_known(r->kind) && !kind_is_filler(r->kind));
    SCREE_ASSERT(r->lsn % SCREE__RECORD_ALIGN == 0);
    header_put(at, r);
    if (has_version(r->kind, r->flags)) {
        scree__put_u64(p, r->version);
        p += 8;
    }
    if (r->payload_len != 0)
        memcpy(p, r->payload, r->payload_len);
    p += r->payload_len;
    memset(p, 0, (size_t)(at + r->disk_len - p));
}

void
scree__record_encode_filler(uint8_t *at, uint64_t lsn, uint64_t page, uint32_t disk_len,
                            uint8_t kind)
{
    SCREE_ASSERT(kind_is_filler(kind));
    SCREE_ASSERT(disk_len >= RECORD_HEADER_BYTES && disk_len % SCREE__RECORD_ALIGN == 0); /* I3 */
    header_put(at, &(struct scree__record){.lsn = lsn,
                                           .page = page,
                                           .payload_len = disk_len - RECORD_HEADER_BYTES,
                                           .kind = kind});
}

/* Over the footer's first 16 bytes and the position just behind it. */
static uint64_t
footer_checksum(uint64_t seal_lsn, uint64_t end_lsn)
{
    uint64_t mix[3] = {htole64(SEAL_MAGIC), htole64(seal_lsn), htole64(end_lsn)};

    return XXH3_64bits(mix, sizeof mix);
}

uint32_t
scree__log_batch_prepare(struct scree__record *record, size_t n,
                         unsigned char body[SCREE__BATCH_BODY_BYTES])
{
    uint64_t bytes = BATCH_RECORD_BYTES;

    for (size_t i = 1; i < n; i++)
        bytes += record[i].disk_len;
    scree__put_u64(body, bytes);
    scree__put_u64(body + 8, n - 1);
    record[0] = (struct scree__record){
        .kind = SCREE__RECORD_BATCH, .payload = body, .payload_len = SCREE__BATCH_BODY_BYTES};
    scree__record_prepare(&record[0]);
    return bytes > RECORD_BYTES_MAX ? UINT32_MAX : (uint32_t)bytes;
}

void
scree__batch_body_get(const struct scree__record *r, uint64_t *bytes_out, uint64_t *records_out)
{
    const uint8_t *body = r->payload;

    *bytes_out = scree__get_u64(body);
    *records_out = scree__get_u64(body + 8);
}

void
scree__seal_encode(uint8_t *at, uint64_t lsn, uint32_t disk_len, struct log_seal seal)
{
    uint8_t *body = at + RECORD_HEADER_BYTES;
    uint8_t *footer = at + disk_len - SEAL_FOOTER_BYTES;

    SCREE_ASSERT(disk_len >= SEAL_BYTES_MIN && (lsn + disk_len) % SCREE_BLOCK == 0);
    SCREE_ASSERT(seal.run_start <= lsn && seal.stable <= lsn);
    scree__put_u64(body, seal.run_start);
    scree__put_u64(body + 8, seal.stable);
    header_put(at, &(struct scree__record){.lsn = lsn,
                                           .payload_len = disk_len - RECORD_HEADER_BYTES,
                                           .payload_hash = XXH3_64bits(body, SEAL_BODY_BYTES),
                                           .kind = SCREE__RECORD_SEAL});
    memset(body + SEAL_BODY_BYTES, 0, (size_t)(footer - body) - SEAL_BODY_BYTES);
    scree__put_u64(footer, SEAL_MAGIC);
    scree__put_u64(footer + 8, lsn);
    scree__put_u64(footer + 16, footer_checksum(lsn, lsn + disk_len));
}

bool
scree__seal_footer(const uint8_t *block_end, uint64_t end_lsn, uint64_t *seal_lsn_out)
{
    const uint8_t *footer = block_end - SEAL_FOOTER_BYTES;
    uint64_t lsn = scree__get_u64(footer + 8);

    *seal_lsn_out = 0;
    if (scree__get_u64(footer) != SEAL_MAGIC ||
        scree__get_u64(footer + 16) != footer_checksum(lsn, end_lsn))
        return false;
    /* Written by us, so its fields are in bounds; checked all the same, the distance is a length. */
    if (lsn >= end_lsn || end_lsn - lsn < SEAL_BYTES_MIN ||
        end_lsn - lsn >= SCREE_BLOCK + SEAL_BYTES_MIN || lsn % SCREE__RECORD_ALIGN != 0)
        return false;
    *seal_lsn_out = lsn;
    return true;
}

bool
scree__seal_trace(const uint8_t *at, uint64_t avail, uint64_t lsn, uint64_t *end_out)
{
    const uint8_t *body = at + RECORD_HEADER_BYTES;
    uint64_t first = scree__round_up(lsn + SEAL_BYTES_MIN, SCREE_BLOCK), footer_lsn;

    for (uint64_t end = first; end < lsn + SCREE_BLOCK + SEAL_BYTES_MIN; end += SCREE_BLOCK) {
        uint64_t word = (end - lsn - RECORD_HEADER_BYTES) | (uint64_t)SCREE__RECORD_SEAL << 32;

        *end_out = end;
        if (end - lsn > avail)
            return false;
        if (scree__seal_footer(at + (end - lsn), end, &footer_lsn) && footer_lsn == lsn)
            return true;
        if (header_checksum(XXH3_64bits(body, SEAL_BODY_BYTES), 0, word, lsn, 0) ==
            scree__get_u64(at))
            return true;
    }
    return false;
}

struct log_seal
scree__seal_of(const struct scree__record *r)
{
    const uint8_t *body = r->payload;

    SCREE_ASSERT(r->kind == SCREE__RECORD_SEAL);
    return (struct log_seal){scree__get_u64(body), scree__get_u64(body + 8)};
}

/* The parts of a seal that the header's checksum does not cover. */
static bool
seal_is_whole(const uint8_t *at, const struct scree__record *r)
{
    uint64_t footer_lsn;
    struct log_seal seal = scree__seal_of(r);

    return scree__seal_footer(at + r->disk_len, r->lsn + r->disk_len, &footer_lsn) &&
           footer_lsn == r->lsn && seal.run_start <= r->lsn && seal.stable <= r->lsn;
}

/* Kind, flags, zero field, and a length that such a record can have. */
static bool
header_is_possible(const struct scree__record *r, uint32_t zero, uint64_t bytes)
{
    uint8_t flags = SCREE__RECORD_COMPRESSED;

    if (r->kind <= SCREE__RECORD_FREE && r->kind != SCREE__RECORD_CONSOLIDATED)
        flags |= SCREE__RECORD_IN_BATCH;
    if (r->kind == SCREE__RECORD_BATCH && bytes != BATCH_RECORD_BYTES)
        return false;
    if (r->kind == SCREE__RECORD_ID_RANGE && (bytes != RECORD_HEADER_BYTES || r->flags != 0))
        return false;
    if (r->kind == SCREE__RECORD_ALLOCATE)
        flags |= SCREE__RECORD_CHOSEN_ID;
    if (r->kind == SCREE__RECORD_CONSOLIDATED && r->payload_len == 0)
        flags = SCREE__RECORD_NO_BASE;

    if (!kind_is_known(r->kind) || zero != 0 || (r->flags & ~flags) != 0)
        return false;
    if (bytes > RECORD_BYTES_MAX)
        return false;
    if (r->kind == SCREE__RECORD_SEAL)
        return bytes >= SEAL_BYTES_MIN && bytes < SCREE_BLOCK + SEAL_BYTES_MIN &&
               (r->lsn + bytes) % SCREE_BLOCK == 0;
    return !kind_is_filler(r->kind) || bytes % SCREE__RECORD_ALIGN == 0;
}

enum log_decode
scree__record_decode(const uint8_t *at, uint64_t avail, uint64_t lsn, struct scree__record *r_out)
{
    struct scree__record *r = r_out;

    memset(r, 0, sizeof *r);
    r->lsn = lsn;
    r->disk_len = RECORD_HEADER_BYTES;
    if (avail < RECORD_HEADER_BYTES)
        return LOG_DECODE_SHORT;
    uint64_t word = scree__get_u64(at + 16);
    uint64_t bytes = (uint64_t)RECORD_HEADER_BYTES + (uint32_t)word;

    r->page = scree__get_u64(at + 8);
    r->payload_len = (uint32_t)word;
    r->kind = (uint8_t)(word >> 32);
    r->flags = (uint8_t)(word >> 40);
    bytes += ext_bytes(r->kind, r->flags);
    if (!header_is_possible(r, (uint32_t)(word >> 48), bytes))
        return LOG_DECODE_HEADER;
    r->disk_len = (uint32_t)scree__round_up(bytes, SCREE__RECORD_ALIGN);
#ifndef SCREE_BUG_LENGTH_TRUSTED /* seeded: test_record must fail */
    if (avail < r->disk_len)     /* I2 */
        return LOG_DECODE_SHORT;
#endif

    uint64_t seed = 0;
    size_t hashed = r->kind == SCREE__RECORD_SEAL ? SEAL_BODY_BYTES : r->payload_len;

    r->version = lsn + r->disk_len;
    if (has_version(r->kind, r->flags))
        r->version = scree__get_u64(at + RECORD_HEADER_BYTES);
    if (r->kind == SCREE__RECORD_CONSOLIDATED)
        seed = r->version;
    r->payload = at + RECORD_HEADER_BYTES + ext_bytes(r->kind, r->flags);
    if (!kind_is_filler(r->kind))
        r->payload_hash = XXH3_64bits_withSeed(r->payload, hashed, seed);
    if (header_checksum(r->payload_hash, r->page, word, lsn, batch_end_of(r)) != scree__get_u64(at))
        return LOG_DECODE_CHECKSUM;
    if (r->kind == SCREE__RECORD_SEAL && !seal_is_whole(at, r))
        return LOG_DECODE_CHECKSUM;
    if (kind_is_filler(r->kind) || r->kind == SCREE__RECORD_SEAL)
        r->payload_len = 0; /* nothing in it is anybody's data */
    return LOG_DECODE_OK;
}
