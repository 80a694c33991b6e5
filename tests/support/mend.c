/*
 * mend.c - see mend.h. Written from the format pages, not with the library's own encoders.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "mend.h"

#include <string.h>

#define HEADER 24u
#define KIND_CONSOLIDATED 4u
#define KIND_PAD 8u
#define KIND_ABORTED 9u
#define KIND_SEAL 10u
#define FLAG_IN_BATCH 8u

static uint64_t
get(const unsigned char *p, unsigned bytes)
{
    uint64_t v = 0;

    memcpy(&v, p, bytes);
    return v;
}

static void
put(unsigned char *p, uint64_t v, unsigned bytes)
{
    memcpy(p, &v, bytes);
}

static void
mend_footer(unsigned char *end, uint64_t lsn, uint64_t end_lsn)
{
    uint64_t mix[3] = {0x6c6165736c637273u, lsn, end_lsn};

    memcpy(end - 24, mix, 16);
    put(end - 8, XXH3_64bits(mix, sizeof(mix)), 8);
}

bool
mend_record(unsigned char *at, size_t n, uint64_t lsn)
{
    uint64_t mix[5] = {0}, seed = 0;
    unsigned kind, ext;
    size_t len;

    if (n < HEADER)
        return false;
    kind = at[20];
    ext = kind == KIND_CONSOLIDATED || (at[21] & FLAG_IN_BATCH) ? 8 : 0;
    len = (size_t)get(at + 16, 4);
    if (len > n - HEADER || len + ext > n - HEADER)
        return false;
    if (kind == KIND_SEAL && len >= 40)
        mend_footer(at + HEADER + len, lsn, lsn + HEADER + len);
    if (kind == KIND_CONSOLIDATED)
        seed = get(at + HEADER, 8);
    if (kind == KIND_SEAL)
        mix[0] = XXH3_64bits(at + HEADER, len < 16 ? len : 16);
    else if (kind != KIND_PAD && kind != KIND_ABORTED)
        mix[0] = XXH3_64bits_withSeed(at + HEADER + ext, len, seed);
    mix[1] = get(at + 8, 8);
    mix[2] = get(at + 16, 8);
    mix[3] = lsn;
    mix[4] = at[21] & FLAG_IN_BATCH ? get(at + HEADER, 8) : 0;
    put(at, XXH3_64bits(mix, (mix[4] == 0 ? 4 : 5) * sizeof(mix[0])), 8);
    return true;
}

/* What all of scree's files begin with. */
static void
mend_stamp(unsigned char *file)
{
    put(file + 12, XXH3_64bits(file, 12), 4);
}

void
mend_segment(unsigned char *file, size_t n)
{
    if (n < 64)
        return;
    mend_stamp(file);
    put(file + 56, XXH3_64bits(file, 56), 8);
}

void
mend_mark(unsigned char *file, size_t n)
{
    if (n < 40)
        return;
    mend_stamp(file);
    put(file + 32, XXH3_64bits(file, 32), 8);
}

void
mend_snapshot(unsigned char *file, size_t n)
{
    size_t at = 72;

    if (n < 72 + 64)
        return;
    mend_stamp(file);
    put(file + 64, XXH3_64bits(file, 64), 8);
    while (n - at > 64 + 40) {
        unsigned char *payload = file + at + 40;
        size_t stored = (size_t)get(file + at + 4, 4);

        if (stored > n - at - 40)
            break;
        put(payload - 8, XXH3_64bits_withSeed(payload, stored, XXH3_64bits(file + at, 32)), 8);
        at += 40 + stored;
    }
    put(file + n - 8, XXH3_64bits(file, n - 8), 8);
}

void
mend_manifest(unsigned char *file, size_t n)
{
    if (n < 24)
        return;
    mend_stamp(file);
    put(file + n - 8, XXH3_64bits(file, n - 8), 8);
}
