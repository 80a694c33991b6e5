/*
 * ruin_damage.c - what happens to the bytes of a directory, and checksums set right behind it; see ruin.h.
 *
 * Half of all damage is to single bytes, and to such as are not amid zeros. WORD, EDGES  none: one thread.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "mend.h"
#include "ruin.h"

#include "log/log_private.h"
#include "snapshot/snapshot_private.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

enum damage {
    DAMAGE_FLIP,
    DAMAGE_BYTES,        /* 1 to 8 others */
    DAMAGE_SECTOR_ZERO,  /* 512 bytes */
    DAMAGE_SECTOR_OTHER, /* those of another place */
    DAMAGE_BLOCK_ZERO,   /* 4096 bytes */
    DAMAGE_BLOCK_SWAP,
    DAMAGE_BLOCK_OLDER, /* as it was earlier */
    DAMAGE_CUT,
    DAMAGE_TAIL_ZERO, /* from a place on, to the end */
    DAMAGE_EXTEND,    /* with garbage */
    DAMAGE_SPARSE,    /* a terabyte of nothing */
    DAMAGE_EMPTY,
    DAMAGE_REMOVE,
    DAMAGE_OLDER, /* the file as it was earlier */
    DAMAGE_SWAP,  /* two files */
    DAMAGE_COPY   /* one in the place of another */
};

/* How often. */
static const unsigned char weights[] = {
    DAMAGE_FLIP,        DAMAGE_FLIP,        DAMAGE_FLIP,         DAMAGE_FLIP,
    DAMAGE_FLIP,        DAMAGE_FLIP,        DAMAGE_FLIP,         DAMAGE_BYTES,
    DAMAGE_BYTES,       DAMAGE_BYTES,       DAMAGE_BYTES,        DAMAGE_SECTOR_ZERO,
    DAMAGE_SECTOR_ZERO, DAMAGE_SECTOR_ZERO, DAMAGE_SECTOR_OTHER, DAMAGE_SECTOR_OTHER,
    DAMAGE_BLOCK_ZERO,  DAMAGE_BLOCK_ZERO,  DAMAGE_BLOCK_ZERO,   DAMAGE_BLOCK_SWAP,
    DAMAGE_BLOCK_OLDER, DAMAGE_CUT,         DAMAGE_CUT,          DAMAGE_TAIL_ZERO,
    DAMAGE_TAIL_ZERO,   DAMAGE_EXTEND,      DAMAGE_SPARSE,       DAMAGE_EMPTY,
    DAMAGE_REMOVE,      DAMAGE_OLDER,       DAMAGE_SWAP,         DAMAGE_COPY};

static uint64_t
below(const struct ruin_choices *c, uint64_t n)
{
    return n == 0 ? 0 : c->below(c->ctx, n);
}

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
    size_t at = strlen(kit_context);
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(kit_context + at, sizeof(kit_context) - at, format, arguments);
    va_end(arguments);
}

/* The file's bytes; never NULL. Of what is sparse a part will do. */
static unsigned char *
bytes_of(const struct sim_image *image, size_t i, size_t *n_out)
{
    uint64_t size;
    unsigned char *bytes;

    (void)sim_image_name(image, i, &size);
    *n_out = size < (1u << 20) ? (size_t)size : 1u << 20;
    bytes = malloc(*n_out + 1);
    KIT_CHECK(bytes != NULL, "no memory");
    (void)sim_image_get(image, i, 0, bytes, *n_out);
    return bytes;
}

/* A place in the file, rather one where there is something. */
static uint64_t
place(const struct sim_image *image, size_t i, const struct ruin_choices *c)
{
    uint64_t size, at = 0, word = 0;

    (void)sim_image_name(image, i, &size);
    size = size < (1u << 20) ? size : 1u << 20;
    for (int tries = 0; tries < 4 && word == 0; tries++) {
        at = below(c, size);
        (void)sim_image_get(image, i, at / 8 * 8, &word, 8);
    }
    return at;
}

static int
older_of(const struct ruin *r, const char *path)
{
    size_t n = sim_image_files(r->older);

    for (size_t i = 0; i < n; i++)
        if (strcmp(sim_image_name(r->older, i, NULL), path) == 0)
            return (int)i;
    return -1;
}

/* ---- in a file ---- */

static void
damage_flip(struct sim_image *image, size_t i, const struct ruin_choices *c)
{
    uint64_t at = place(image, i, c);
    unsigned bit = (unsigned)below(c, 8);
    unsigned char byte = 0;

    (void)sim_image_get(image, i, at, &byte, 1);
    byte = (unsigned char)(byte ^ 1u << bit);
    sim_image_set(image, i, at, &byte, 1);
    tell("bit %u of %" PRIu64, bit, at);
}

static void
damage_bytes(struct sim_image *image, size_t i, const struct ruin_choices *c)
{
    uint64_t at = place(image, i, c);
    size_t n = 1 + (size_t)below(c, 8);
    unsigned char bytes[8];

    for (size_t k = 0; k < n; k++)
        bytes[k] = (unsigned char)below(c, 256);
    sim_image_set(image, i, at, bytes, n);
    tell("%zu bytes at %" PRIu64, n, at);
}

/* A sector or a block, of `unit` bytes. */
static void
damage_unit(const struct ruin *r, struct sim_image *image, size_t i, enum damage damage,
            size_t unit, const struct ruin_choices *c)
{
    static const unsigned char zeros[SIM_BLOCK];
    unsigned char here[SIM_BLOCK] = {0}, there[SIM_BLOCK] = {0};
    uint64_t at = place(image, i, c) / unit * unit, from;
    size_t k = (size_t)below(c, sim_image_files(image));
    int older = older_of(r, sim_image_name(image, i, NULL));

    if (damage == DAMAGE_SECTOR_ZERO || damage == DAMAGE_BLOCK_ZERO) {
        sim_image_set(image, i, at, zeros, unit);
        tell("%zu zeros at %" PRIu64, unit, at);
        return;
    }
    if (damage == DAMAGE_BLOCK_OLDER) {
        if (older >= 0) {
            (void)sim_image_get(r->older, (size_t)older, at, there, unit);
            sim_image_set(image, i, at, there, unit);
        }
        tell("as it was at %" PRIu64, at);
        return;
    }
    from = place(image, k, c) / unit * unit;
    (void)sim_image_get(image, k, from, there, unit);
    (void)sim_image_get(image, i, at, here, unit);
    sim_image_set(image, i, at, there, unit);
    if (damage == DAMAGE_BLOCK_SWAP)
        sim_image_set(image, k, from, here, unit);
    tell("%zu bytes at %" PRIu64 " %s %s %" PRIu64, unit, at,
         damage == DAMAGE_BLOCK_SWAP ? "and" : "from", sim_image_name(image, k, NULL), from);
}

static void
damage_tail(struct sim_image *image, size_t i, enum damage damage, const struct ruin_choices *c)
{
    static const uint64_t units[] = {1, 8, 512, 4096};
    uint64_t unit = units[below(c, 4)], at = place(image, i, c) / unit * unit, size;
    size_t n, add;
    unsigned char *bytes;

    (void)sim_image_name(image, i, &size);
    switch (damage) {
    case DAMAGE_CUT:
        sim_image_resize(image, i, at);
        tell("cut at %" PRIu64, at);
        break;
    case DAMAGE_TAIL_ZERO:
        sim_image_resize(image, i, at);
        sim_image_resize(image, i, size);
        tell("zeros from %" PRIu64, at);
        break;
    case DAMAGE_SPARSE:
        sim_image_resize(image, i, (uint64_t)1 << 40);
        tell("a terabyte long");
        break;
    case DAMAGE_EMPTY:
        sim_image_resize(image, i, 0);
        tell("empty");
        break;
    default:
        if (size > 1u << 20)
            return;
        bytes = bytes_of(image, i, &n);
        add = 1 + (size_t)below(c, unit * 4);
        sim_image_resize(image, i, size + add);
        for (size_t k = 0; k<add; k += n> 0 ? n : add) {
            for (size_t b = 0; b < n; b++)
                bytes[b] = (unsigned char)(bytes[b] + 1 + k);
            sim_image_set(image, i, size + k, bytes, n < add - k ? n : add - k);
        }
        free(bytes);
        tell("%zu bytes longer", add);
    }
}

/* ---- of files ---- */

static void
damage_files(const struct ruin *r, struct sim_image *image, size_t i, enum damage damage,
             const struct ruin_choices *c)
{
    char path[64], other[64];
    size_t k = (size_t)below(c, sim_image_files(image)), n, m;
    int older;
    unsigned char *bytes, *others;

    (void)snprintf(path, sizeof(path), "%.63s", sim_image_name(image, i, NULL));
    (void)snprintf(other, sizeof(other), "%.63s", sim_image_name(image, k, NULL));
    older = older_of(r, path);
    if (damage == DAMAGE_REMOVE) {
        sim_image_remove(image, i);
        tell("removed");
    } else if (damage == DAMAGE_OLDER) {
        if (older >= 0) {
            bytes = bytes_of(r->older, (size_t)older, &n);
            sim_image_add(image, path, bytes, n);
            free(bytes);
        }
        tell("as it was");
    } else {
        bytes = bytes_of(image, i, &n);
        others = bytes_of(image, k, &m);
        sim_image_add(image, path, others, m);
        if (damage == DAMAGE_SWAP)
            sim_image_add(image, other, bytes, n);
        free(bytes);
        free(others);
        tell("%s %s", damage == DAMAGE_SWAP ? "swapped with" : "is now", other);
    }
}

void
ruin_damage(const struct ruin *r, struct sim_image *image, const struct ruin_choices *c)
{
    enum damage damage = (enum damage)weights[below(c, sizeof(weights))];
    size_t n = sim_image_files(image), i = (size_t)below(c, n);

    if (n == 0)
        return;
    tell("; %s: ", sim_image_name(image, i, NULL));
    switch (damage) {
    case DAMAGE_FLIP:
        damage_flip(image, i, c);
        break;
    case DAMAGE_BYTES:
        damage_bytes(image, i, c);
        break;
    case DAMAGE_SECTOR_ZERO:
    case DAMAGE_SECTOR_OTHER:
        damage_unit(r, image, i, damage, SIM_SECTOR, c);
        break;
    case DAMAGE_BLOCK_ZERO:
    case DAMAGE_BLOCK_SWAP:
    case DAMAGE_BLOCK_OLDER:
        damage_unit(r, image, i, damage, SIM_BLOCK, c);
        break;
    case DAMAGE_CUT:
    case DAMAGE_TAIL_ZERO:
    case DAMAGE_EXTEND:
    case DAMAGE_SPARSE:
    case DAMAGE_EMPTY:
        damage_tail(image, i, damage, c);
        break;
    default:
        damage_files(r, image, i, damage, c);
    }
}

/* ---- checksums set right ---- */

static void
mend_log(const struct ruin *r, struct sim_image *image)
{
    static unsigned char bytes[RUIN_RECORD_BYTES];

    for (uint32_t i = 0; i < r->records; i++) {
        struct scree__record decoded;
        uint64_t lsn = r->record[i];
        size_t n = ruin_log_get(r, image, lsn, bytes, RECORD_HEADER_BYTES);

        if (n == RECORD_HEADER_BYTES &&
            scree__record_decode(bytes, n, lsn, &decoded) == LOG_DECODE_SHORT)
            n = ruin_log_get(r, image, lsn, bytes,
                             decoded.disk_len < sizeof(bytes) ? decoded.disk_len : sizeof(bytes));
        if (n >= RECORD_HEADER_BYTES &&
            scree__record_decode(bytes, n, lsn, &decoded) != LOG_DECODE_OK &&
            mend_record(bytes, n, lsn))
            ruin_log_put(r, image, lsn, bytes, n);
    }
}

/* What the manifest says of each file is so. */
static void
mend_names(const struct sim_image *image, unsigned char *bytes, size_t n)
{
    size_t at = n < 64 ? n : 56 + (size_t)bytes[52] + ((size_t)bytes[53] << 8);

    while (at + 24 + 32 + 8 <= n) {
        uint32_t files = scree__le32_get(bytes + at + 16);

        at += 24;
        for (; files > 0 && at + 32 + 8 <= n; files--, at += 32) {
            size_t k = 0, len, all = sim_image_files(image);
            char path[64];
            unsigned char *file;

            (void)snprintf(path, sizeof(path), RUIN_DIR "/snapshot-%016" PRIx64,
                           scree__le64_get(bytes + at + 8));
            while (k < all && strcmp(sim_image_name(image, k, NULL), path) != 0)
                k++;
            if (k == all)
                continue;
            file = bytes_of(image, k, &len);
            scree__le64_put(bytes + at + 16, len);
            scree__le64_put(bytes + at + 24, XXH3_64bits(file, len));
            free(file);
        }
    }
}

void
ruin_mend(const struct ruin *r, struct sim_image *image)
{
    size_t files = sim_image_files(image);

    mend_log(r, image);
    for (size_t i = 0; i < 2 * files; i++) { /* manifests last: they name the others */
        const char *name = sim_image_name(image, i % files, NULL) + strlen(RUIN_DIR "/");
        size_t n;
        unsigned char *bytes;
        bool manifest = strncmp(name, "manifest-", 9) == 0;

        if (manifest != (i >= files))
            continue;
        bytes = bytes_of(image, i % files, &n);
        if (manifest) {
            mend_names(image, bytes, n);
            mend_manifest(bytes, n);
        } else if (strncmp(name, "snapshot-", 9) == 0)
            mend_snapshot(bytes, n);
        else if (strncmp(name, "segment-", 8) == 0)
            mend_segment(bytes, n);
        else if (strcmp(name, "OPEN") == 0)
            mend_mark(bytes, n);
        sim_image_set(image, i % files, 0, bytes, n);
        free(bytes);
    }
    tell("; mended");
}
