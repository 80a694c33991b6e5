/*
 * snapshot_private.h - what the files of src/snapshot share: the numbers of the format, the codec.
 *
 * The bytes are specified in docs/snapshot_format.md; the pictures here are of what codec.c packs.
 * All integers are little-endian, all hashes XXH3 with 64 bits.
 *
 *   snapshot file:  header 72 | entry block * | state block * | trailer 64
 *   block:          header 40 | payload, stored_len bytes, as it is or one zstd frame
 */
#ifndef SCREE_SNAPSHOT_PRIVATE_H
#define SCREE_SNAPSHOT_PRIVATE_H

#include "snapshot/snapshot.h"

#include <assert.h>
#include <zstd.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL /* header only: no library to link, and its state can be embedded */
#endif
#include <xxhash.h>

/* ---- numbers of the format ------------------------------------------------------------------- */

#define SCREE__SNAPSHOT_MAGIC "SCREESNP"
#define SCREE__MANIFEST_MAGIC "SCREEMAN"
#define SCREE__SNAPSHOT_VERSION 1u
#define SCREE__MANIFEST_VERSION 1u

#define SCREE__SNAPSHOT_PREFIX_BYTES \
    16u /* magic, version, their check: the same in every version */
#define SCREE__SNAPSHOT_HEADER_BYTES 72u
#define SCREE__SNAPSHOT_BLOCK_BYTES 40u /* a block's header */
#define SCREE__SNAPSHOT_TRAILER_BYTES 64u
#define SCREE__SNAPSHOT_FILE_BYTES_MIN \
    (SCREE__SNAPSHOT_HEADER_BYTES + SCREE__SNAPSHOT_TRAILER_BYTES)

#define SCREE__SNAPSHOT_RAW_TARGET \
    (64u * 1024)                           /* an entry block ends with the entry that reaches it */
#define SCREE__SNAPSHOT_RAW_MAX (1u << 20) /* of any block, before compression */
#define SCREE__SNAPSHOT_POSITIONS_MAX 65535u /* of one page: the depth of a chain has 16 bits */
#define SCREE__SNAPSHOT_ENTRY_BYTES_MIN 2u   /* a tombstone beside its neighbour */
/* tag, id gap, count, positions (lsn and length), version */
#define SCREE__SNAPSHOT_ENTRY_BYTES_MAX \
    (1u + 10u + 3u + SCREE__SNAPSHOT_POSITIONS_MAX * (9u + 5u) + 10u)
static_assert(SCREE__SNAPSHOT_RAW_TARGET + SCREE__SNAPSHOT_ENTRY_BYTES_MAX <=
                  SCREE__SNAPSHOT_RAW_MAX,
              "a block that has not reached its target has room for any entry");
/* A state block that zstd shrinks further than this is stored as it is: what a state makes a reader
   allocate is thereby bounded by the size of the file. */
#define SCREE__SNAPSHOT_STATE_RATIO_MAX 64u

/* What a snapshot file is. */
enum scree__snapshot_type { SCREE__SNAPSHOT_FULL = 1, SCREE__SNAPSHOT_DELTA = 2 };

enum scree__snapshot_block_kind {
    SCREE__SNAPSHOT_BLOCK_ENTRIES = 1,
    SCREE__SNAPSHOT_BLOCK_STATE = 2,
    SCREE__SNAPSHOT_BLOCK_TRAILER = 3 /* no block: the file ends with this */
};

enum scree__snapshot_packing { SCREE__SNAPSHOT_STORED = 0, SCREE__SNAPSHOT_ZSTD = 1 };

/* Low three bits of an entry's tag. */
enum scree__snapshot_entry_kind {
    SCREE__SNAPSHOT_ENTRY_SINGLE = 0,    /* one position, version = its end */
    SCREE__SNAPSHOT_ENTRY_CHAIN = 1,     /* two or more, version = the end of the newest */
    SCREE__SNAPSHOT_ENTRY_VERSIONED = 2, /* one or more, any other version */
    SCREE__SNAPSHOT_ENTRY_TOMBSTONE = 3,
    SCREE__SNAPSHOT_ENTRY_ADDED = 4 /* added to the first three, in a delta; 7 is not used */
};

struct scree__snapshot_block {
    uint8_t kind;    /* enum scree__snapshot_block_kind */
    uint8_t packing; /* enum scree__snapshot_packing */
    uint32_t stored_len;
    uint32_t raw_len;
    uint32_t count; /* entries; 0 in a state block, as are the ids */
    uint64_t first_id;
    uint64_t last_id;
    uint64_t hash; /* of the payload as stored, seeded with the hash of the header before it */
};

struct scree__snapshot_trailer {
    uint32_t blocks;
    uint64_t entries; /* tombstones included */
    uint64_t tombstones;
    uint64_t state_len;
    uint64_t id_high;
    uint64_t stable_lsn; /* no position and no version in the file is above it */
    uint64_t generated_high;
};

/* ---- little-endian words --------------------------------------------------------------------- */

static inline void
scree__le32_put(unsigned char *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static inline void
scree__le64_put(unsigned char *p, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static inline uint32_t
scree__le32_get(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t
scree__le64_get(const unsigned char *p)
{
    return (uint64_t)scree__le32_get(p) | (uint64_t)scree__le32_get(p + 4) << 32;
}

/* ---- codec.c ------------------------------------------------------------------------------------
 * A function that judges bytes returns NULL, or what is wrong with them in a few words; its caller
 * knows the file and the offset and makes the error of it. */

void scree__snapshot_prefix_put(unsigned char *p, const char *magic, uint32_t version);
/* Whether p starts a file of this kind, whatever its version. */
const char *scree__snapshot_prefix_get(const unsigned char *p, const char *magic,
                                       uint32_t *version_out);

void scree__snapshot_header_put(unsigned char *p, const struct scree__snapshot_meta *meta);
const char *scree__snapshot_header_get(const unsigned char *p,
                                       struct scree__snapshot_meta *meta_out, uint32_t *type_out);

void scree__snapshot_block_put(unsigned char *p, const struct scree__snapshot_block *b);
/* Lengths, counts and ids are in bounds after this; the hash is checked by unpack. */
const char *scree__snapshot_block_get(const unsigned char *p, struct scree__snapshot_block *b_out);

/* All but the hash, which is the last 8 of SCREE__SNAPSHOT_TRAILER_BYTES. */
void scree__snapshot_trailer_put(unsigned char *p, const struct scree__snapshot_trailer *t);
const char *scree__snapshot_trailer_get(const unsigned char *p,
                                        struct scree__snapshot_trailer *t_out);

/* Header and payload of one block into dst, which holds SCREE__SNAPSHOT_BLOCK_BYTES and the
   ZSTD_compressBound of raw_len. b: kind, raw_len, count and ids given, the rest is set. */
size_t scree__snapshot_block_pack(ZSTD_CCtx *cctx, struct scree__snapshot_block *b, const void *raw,
                                  unsigned char *dst, size_t dst_cap);
/* Checks the hash and puts b->raw_len bytes in raw. */
const char *scree__snapshot_block_unpack(ZSTD_DCtx *dctx, const struct scree__snapshot_block *b,
                                         const void *stored, void *raw);

/* One block of entries in the making. */
struct scree__snapshot_encoder {
    unsigned char *raw; /* SCREE__SNAPSHOT_RAW_MAX bytes */
    size_t len;
    uint64_t floor_lsn; /* of tombstones */
    uint64_t first_id, last_id;
    uint64_t end_lsn; /* of the newest position of the last page; 0 at the start of a block */
    uint32_t count;
};

/* No tombstone is below it. */
static inline uint64_t
scree__snapshot_floor(const struct scree__snapshot_meta *meta)
{
    return meta->since_lsn != 0 ? meta->since_lsn : meta->replay_lsn;
}

/* meta: of the file it is in. */
const char *scree__snapshot_entry_check(const struct scree__snapshot_entry *e,
                                        const struct scree__snapshot_meta *meta);
/* e has passed the check, has a larger id than the last, and the block is below its target. */
void scree__snapshot_entry_put(struct scree__snapshot_encoder *enc,
                               const struct scree__snapshot_entry *e);

/* One block of entries being read. */
struct scree__snapshot_cursor {
    const unsigned char *at, *end;
    struct scree__position
        *positions;     /* scratch of the caller: SCREE__SNAPSHOT_POSITIONS_MAX, or half
                                          as many as the block has raw bytes */
    uint32_t left;      /* entries */
    uint64_t floor_lsn; /* no tombstone is below it */
    uint64_t since_lsn; /* in a delta: no position is below it, else 0 */
    uint64_t limit_lsn; /* nothing is above it */
    uint64_t first_id;
    uint64_t id;      /* of the last entry; first_id - 1 before it */
    uint64_t last_id; /* what id must be at the end */
    uint64_t end_lsn;
};

void scree__snapshot_cursor_init(struct scree__snapshot_cursor *c,
                                 const struct scree__snapshot_block *b, const void *raw,
                                 const struct scree__snapshot_meta *meta, uint64_t limit_lsn);
/* Only while c->left > 0. e_out->positions lives until the next call. */
const char *scree__snapshot_entry_get(struct scree__snapshot_cursor *c,
                                      struct scree__snapshot_entry *e_out);
/* After the last entry: whether the block ends where it says. */
const char *scree__snapshot_cursor_finish(const struct scree__snapshot_cursor *c);

/* ---- reader.c: one file, checked, then block by block --------------------------------------- */

struct scree__snapshot_noted {
    struct scree__snapshot_block block;
    uint64_t offset;       /* of its payload in the file */
    uint64_t state_offset; /* of its bytes in the state */
};

/* Set by open, read only from then on. */
struct scree__snapshot_reader {
    const scree_env *env;
    char *path;
    int file;
    uint64_t file_bytes;
    struct scree__snapshot_meta meta; /* id_high: the trailer's */
    struct scree__snapshot_trailer trailer;
    struct scree__snapshot_noted *blocks;
    size_t block_count, block_cap;
    uint32_t stored_max, raw_max; /* of one block */
};

/* File i of a generation, and all of it checked but the insides of its blocks. before: the one before it,
   whose meta and trailer must fit; NULL if it is not known. Close it also after an error. CORRUPT, FORMAT,
   -errno, NO_MEMORY. */
int scree__snapshot_reader_open(struct scree__snapshot_reader *r, const scree_env *env,
                                const char *dir, const struct scree__generation *g, uint32_t i,
                                const uint8_t uuid[16],
                                const struct scree__snapshot_reader *before);
void scree__snapshot_reader_close(struct scree__snapshot_reader *r);
int scree__snapshot_reader_corrupt(const struct scree__snapshot_reader *r, uint64_t offset,
                                   const char *what, const char *problem);

/* What one thread needs to look into blocks of a file. */
struct scree__snapshot_desk {
    const struct scree__snapshot_reader *reader;
    unsigned char *stored;
    unsigned char *raw;
    struct scree__position *positions;
    size_t positions_bytes;
    ZSTD_DCtx *dctx;
    const struct scree__snapshot_noted *noted; /* the block that lies on it */
    struct scree__snapshot_cursor cursor;
};

/* NO_MEMORY. Clear it also after an error. */
int scree__snapshot_desk_init(struct scree__snapshot_desk *d,
                              const struct scree__snapshot_reader *r);
void scree__snapshot_desk_clear(struct scree__snapshot_desk *d);
/* Read a block of entries, ready for next. CORRUPT, -errno. */
int scree__snapshot_desk_entries(struct scree__snapshot_desk *d,
                                 const struct scree__snapshot_noted *noted);
/* The next entry of that block: 1, or 0 at its end. CORRUPT. positions live until the next call. */
int scree__snapshot_desk_next(struct scree__snapshot_desk *d, struct scree__snapshot_entry *e_out);
/* Read a block of the state to where it belongs in it. */
int scree__snapshot_desk_state(struct scree__snapshot_desk *d,
                               const struct scree__snapshot_noted *noted, unsigned char *state);

#endif
