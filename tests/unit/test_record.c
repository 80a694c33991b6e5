/*
 * test_record.c - the bytes of records and seals: exact lengths, every bit that matters, hostile headers.
 */
#include "log/log_private.h"
#include "unit/claims.h"

#include <stdlib.h>

#define LSN 81920ull

static uint8_t *
encode(struct scree__record *r, uint64_t lsn)
{
    scree__record_prepare(r);
    uint8_t *at = malloc(r->disk_len);

    cr_assert(ne(ptr, at, NULL));
    memset(at, 0xEE, r->disk_len);
    r->lsn = lsn;
    scree__record_encode(r, at);
    return at;
}

static struct scree__record
delta(const void *payload, uint32_t len)
{
    return (struct scree__record){
        .kind = SCREE__RECORD_DELTA, .page = 7, .payload = payload, .payload_len = len};
}

/* No bit of the first n bytes may change. */
static void
expect_every_bit_guarded(uint8_t *at, size_t begin, size_t end, uint32_t disk_len)
{
    struct scree__record r;

    for (size_t bit = 8 * begin; bit < 8 * end; bit++) {
        at[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert(ne(int, scree__record_decode(at, disk_len, LSN, &r), LOG_DECODE_OK), "bit %zu",
                  bit);
        at[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert(eq(int, scree__record_decode(at, disk_len, LSN, &r), LOG_DECODE_OK));
}

Test(record_codec, every_length_comes_back_and_occupies_a_multiple_of_8)
{
    static uint8_t payload[5000];

    for (uint32_t len = 0; len <= sizeof payload; len += len < 40 ? 1 : 31) {
        struct scree__record r = delta(payload, len), back;

        memset(payload, (int)len, sizeof payload);
        uint8_t *at = encode(&r, LSN);

        cr_assert(eq(u32, r.disk_len, (24 + len + 7) / 8 * 8));
        cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN, &back), LOG_DECODE_OK));
        cr_assert(eq(u32, back.payload_len, len));
        cr_assert(eq(u32, back.disk_len, r.disk_len));
        cr_assert(eq(u64, back.version, LSN + r.disk_len));
        cr_assert(eq(int, memcmp(back.payload, payload, len), 0));
        for (uint32_t i = 24 + len; i < r.disk_len; i++)
            cr_assert(eq(u8, at[i], 0));
        free(at);
    }
}

Test(record_codec, one_byte_short_is_short_and_tells_the_length)
{
    struct scree__record r = delta("0123456789", 10), back;
    uint8_t *at = encode(&r, LSN);

    for (uint32_t avail = 0; avail < r.disk_len; avail++) {
        cr_assert(eq(int, scree__record_decode(at, avail, LSN, &back), LOG_DECODE_SHORT));
        cr_assert(eq(u32, back.disk_len, avail < 24 ? 24 : r.disk_len));
    }
    free(at);
}

Test(record_codec, no_bit_of_header_and_payload_may_change)
{
    struct scree__record r = delta("0123456789", 10);
    uint8_t *at = encode(&r, LSN);

    expect_every_bit_guarded(at, 0, 34, r.disk_len);
    free(at);
}

Test(record_codec, consolidated_carries_its_version_under_the_checksum)
{
    struct scree__record r = {.kind = SCREE__RECORD_CONSOLIDATED,
                              .page = 9,
                              .version = 4711,
                              .payload = "base",
                              .payload_len = 4};
    struct scree__record back;
    uint8_t *at = encode(&r, LSN);

    cr_assert(eq(u32, r.disk_len, 40));
    cr_assert(eq(int, scree__record_decode(at, 40, LSN, &back), LOG_DECODE_OK));
    cr_assert(eq(u64, back.version, 4711));
    cr_assert(eq(int, memcmp(back.payload, "base", 4), 0));
    expect_every_bit_guarded(at, 0, 36, r.disk_len);
    free(at);
}

Test(record_codec, a_record_belongs_to_one_position)
{
    struct scree__record r = delta("x", 1), back;
    uint8_t *at = encode(&r, LSN);

    cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN + 8, &back), LOG_DECODE_CHECKSUM));
    cr_assert(
        eq(int, scree__record_decode(at, r.disk_len, LSN + 65536, &back), LOG_DECODE_CHECKSUM));
    free(at);
}

Test(record_codec, unknown_kinds_flags_and_reserved_bits_are_refused)
{
    struct scree__record r = delta("x", 1), back;
    uint8_t *at = encode(&r, LSN);

    for (unsigned kind = 0; kind < 256; kind++) {
        at[20] = (uint8_t)kind;
        bool known = kind >= 1 && kind <= 10;

        cr_assert(ne(int, scree__record_decode(at, r.disk_len, LSN, &back),
                     kind == SCREE__RECORD_DELTA ? -1 : LOG_DECODE_OK));
        if (!known)
            cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN, &back), LOG_DECODE_HEADER));
    }
    at[20] = SCREE__RECORD_DELTA;
    at[21] = 2;
    cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN, &back), LOG_DECODE_HEADER));
    at[21] = 0;
    at[23] = 1;
    cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN, &back), LOG_DECODE_HEADER));
    free(at);
}

Test(record_codec, a_length_is_bounded_before_it_is_believed)
{
    struct scree__record r = delta("x", 1), back;
    uint8_t *at = encode(&r, LSN);

    scree__put_u32(at + 16, UINT32_MAX);
    cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN, &back), LOG_DECODE_HEADER));
    scree__put_u32(at + 16, 1u << 30);
    cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN, &back), LOG_DECODE_SHORT));
    free(at);
}

Test(record_codec, zeros_are_no_record)
{
    uint8_t zeros[64] = {0};
    struct scree__record back;

    cr_assert(eq(int, scree__record_decode(zeros, sizeof zeros, LSN, &back), LOG_DECODE_HEADER));
}

Test(record_codec, an_aborted_record_keeps_the_length_and_nothing_else)
{
    struct scree__record r = {.kind = SCREE__RECORD_CONSOLIDATED,
                              .page = 9,
                              .version = 1,
                              .payload = "0123456789",
                              .payload_len = 10};
    struct scree__record back;
    uint8_t *at = encode(&r, LSN);

    scree__record_encode_filler(at, LSN, r.page, r.disk_len, SCREE__RECORD_ABORTED);
    at[r.disk_len - 1] ^= 1; /* its payload is nobody's */
    cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN, &back), LOG_DECODE_OK));
    cr_assert(eq(u8, back.kind, SCREE__RECORD_ABORTED));
    cr_assert(eq(u32, back.disk_len, r.disk_len));
    cr_assert(eq(u32, back.payload_len, 0));
    expect_every_bit_guarded(at, 0, 24, r.disk_len);
    free(at);
}

Test(record_codec, a_payload_over_the_limit_gets_a_length_that_admit_refuses)
{
    struct scree__record r = delta("", 0);

    r.payload = malloc(RECORD_BYTES_MAX);
    cr_assert(ne(ptr, (void *)(uintptr_t)r.payload, NULL));
    memset((void *)(uintptr_t)r.payload, 0, RECORD_BYTES_MAX);
    r.payload_len = RECORD_BYTES_MAX - 24;
    scree__record_prepare(&r);
    cr_assert(eq(u32, r.disk_len, RECORD_BYTES_MAX));
    r.payload_len++;
    scree__record_prepare(&r);
    cr_assert(eq(u32, r.disk_len, UINT32_MAX));
    free((void *)(uintptr_t)r.payload);
}

/* ---- seals ----------------------------------------------------------------------------------- */

Test(record_seal, every_size_is_found_from_both_ends)
{
    for (uint32_t len = SEAL_BYTES_MIN; len < SCREE_BLOCK + SEAL_BYTES_MIN; len += 8) {
        uint64_t end = LSN + 2 * SCREE_BLOCK, lsn = end - len, found;
        static uint8_t bytes[SCREE_BLOCK + SEAL_BYTES_MIN];
        struct scree__record r;

        memset(bytes, 0xEE, sizeof bytes);
        scree__seal_encode(bytes, lsn, len, (struct log_seal){lsn - 800, lsn - 1600});
        cr_assert(eq(int, scree__record_decode(bytes, len, lsn, &r), LOG_DECODE_OK));
        cr_assert(eq(u32, r.disk_len, len));
        cr_assert(eq(u64, scree__seal_of(&r).run_start, lsn - 800));
        cr_assert(eq(u64, scree__seal_of(&r).stable, lsn - 1600));
        cr_assert(scree__seal_footer(bytes + len, end, &found));
        cr_assert(eq(u64, found, lsn));
        cr_assert(not(scree__seal_footer(bytes + len, end + SCREE_BLOCK, &found)));
    }
}

Test(record_seal, no_bit_of_what_it_says_may_change)
{
    uint8_t bytes[SEAL_BYTES_MIN + 64];
    uint32_t len = sizeof bytes;
    uint64_t lsn = LSN + SCREE_BLOCK - len;
    struct scree__record r;

    scree__seal_encode(bytes, lsn, len, (struct log_seal){lsn, lsn});
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bool filler = bit / 8 >= 40 && bit / 8 < len - SEAL_FOOTER_BYTES;

        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert(eq(int, scree__record_decode(bytes, len, lsn, &r) == LOG_DECODE_OK, filler));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* A seal that really was written so, with a right checksum: only hostile hands could. */
static enum log_decode
seal_decode(uint64_t run_start, uint64_t stable)
{
    uint8_t bytes[SEAL_BYTES_MIN];
    uint64_t lsn = LSN - SEAL_BYTES_MIN, mix[4], body[2] = {run_start, stable};
    struct scree__record r;

    scree__seal_encode(bytes, lsn, sizeof bytes, (struct log_seal){lsn, lsn});
    memcpy(bytes + 24, body, sizeof body);
    mix[0] = scree__log_hash(body, sizeof body);
    mix[1] = 0;
    mix[2] = scree__get_u64(bytes + 16);
    mix[3] = lsn;
    scree__put_u64(bytes, scree__log_hash(mix, sizeof mix));
    return scree__record_decode(bytes, sizeof bytes, lsn, &r);
}

Test(record_seal, a_claim_of_what_lies_behind_it_is_refused)
{
    uint64_t lsn = LSN - SEAL_BYTES_MIN;

    cr_assert(eq(int, seal_decode(lsn, lsn), LOG_DECODE_OK));
    cr_assert(eq(int, seal_decode(lsn, lsn + 8), LOG_DECODE_CHECKSUM));
    cr_assert(eq(int, seal_decode(lsn + 8, lsn), LOG_DECODE_CHECKSUM));
}

/* As its checksum would be: of a footer at end_lsn that says the seal begins at lsn. */
static bool
footer_is_taken(uint64_t lsn, uint64_t end_lsn)
{
    uint8_t block[2 * SCREE_BLOCK];
    uint64_t mix[3], found;

    scree__seal_encode(block + sizeof block - SEAL_BYTES_MIN, end_lsn - SEAL_BYTES_MIN,
                       SEAL_BYTES_MIN, (struct log_seal){8, 8});
    mix[0] = scree__get_u64(block + sizeof block - SEAL_FOOTER_BYTES);
    mix[1] = lsn;
    mix[2] = end_lsn;
    scree__put_u64(block + sizeof block - 16, lsn);
    scree__put_u64(block + sizeof block - 8, scree__log_hash(mix, sizeof mix));
    return scree__seal_footer(block + sizeof block, end_lsn, &found) && found == lsn;
}

/* The distance is a length, so it is bounded even under a right checksum. */
Test(record_seal, a_footer_far_from_its_seal_is_refused)
{
    uint64_t end = LSN + 2 * SCREE_BLOCK;

    cr_assert(footer_is_taken(end - SEAL_BYTES_MIN, end));
    cr_assert(footer_is_taken(end - SCREE_BLOCK - SEAL_BYTES_MIN + 8, end));
    cr_assert(not(footer_is_taken(end - SCREE_BLOCK - SEAL_BYTES_MIN, end)));
    cr_assert(not(footer_is_taken(end - SEAL_BYTES_MIN + 8, end)));
    cr_assert(not(footer_is_taken(end - SEAL_BYTES_MIN - 4, end)));
    cr_assert(not(footer_is_taken(end, end)));
    cr_assert(not(footer_is_taken(UINT64_MAX - 7, end)));
}

/* Both verify, but of two seals. */
Test(record_seal, a_footer_of_another_seal_is_refused)
{
    uint8_t bytes[SEAL_BYTES_MIN + 64];
    uint64_t lsn = LSN + SCREE_BLOCK - sizeof bytes, mix[3];
    struct scree__record r;

    scree__seal_encode(bytes, lsn, sizeof bytes, (struct log_seal){lsn, lsn});
    cr_assert(eq(int, scree__record_decode(bytes, sizeof bytes, lsn, &r), LOG_DECODE_OK));
    mix[0] = scree__get_u64(bytes + sizeof bytes - SEAL_FOOTER_BYTES);
    mix[1] = lsn + 64;
    mix[2] = lsn + sizeof bytes;
    scree__put_u64(bytes + sizeof bytes - 16, lsn + 64);
    scree__put_u64(bytes + sizeof bytes - 8, scree__log_hash(mix, sizeof mix));
    cr_assert(eq(int, scree__record_decode(bytes, sizeof bytes, lsn, &r), LOG_DECODE_CHECKSUM));
}

Test(record_codec, a_range_of_ids_has_no_flags)
{
    struct scree__record r = {.kind = SCREE__RECORD_ID_RANGE, .page = 99}, back;
    uint8_t *at = encode(&r, LSN);

    cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN, &back), LOG_DECODE_OK));
    at[21] = SCREE__RECORD_COMPRESSED;
    cr_assert(eq(int, scree__record_decode(at, r.disk_len, LSN, &back), LOG_DECODE_HEADER));
    free(at);
}
