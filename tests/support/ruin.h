/*
 * ruin.h - small directories with every state they went through, made once, to be damaged many times in memory;
 * and what docs/impl.md, "Damage", and docs/log_format.md, "Where the log ends", promise of what is left.
 */
#ifndef SCREE_TEST_RUIN_H
#define SCREE_TEST_RUIN_H

#include "history.h"
#include "sim_disk.h"

enum ruin_kind {
    RUIN_CLOSED,
    RUIN_CRASHED,
    RUIN_DELTAS,     /* a generation of a full file and several deltas */
    RUIN_BATCHES,    /* half of the updates are batches; crashed */
    RUIN_COMPRESSED, /* closed */
    RUIN_PUNCHED,    /* several segments, holes in them, some deleted; crashed */
    RUIN_JUMPED,     /* crashed three times: two jumps */
    RUIN_BACKUP,
    RUINS
};

/* Bytes of the log that say how far it was durable. */
struct ruin_claim {
    uint64_t lsn; /* where they are; for headers of segments: where the segment begins */
    uint64_t end; /* of a seal; 0: a header */
    uint64_t stable;
};

struct ruin_manifest {
    char path[64];
    uint64_t stable;
    uint32_t files; /* of its newest generation */
    char file[64][64];
};

struct ruin {
    enum ruin_kind kind;
    const char *name;
    struct sim_image *image, *older; /* the directory is RUIN_DIR; older: earlier in its life */
    struct history *h;
    uint64_t end[HISTORY_STEPS]; /* what state k is made of ends there */
    bool closed;                 /* or a backup: there is no open mark */
    uint32_t last;               /* the state it opens with */
    scree_options options;
    uint64_t segment_bytes;
    uint32_t manifests; /* newest first */
    struct ruin_manifest manifest[4];
    uint32_t claims, claims_cap;
    struct ruin_claim *claim;
    uint32_t records, records_cap;
    uint64_t *record; /* where each one begins that verifies, in any segment */
};
#define RUIN_DIR "/d"

/* The same for the same seed, as far as the library's own threads are. */
void ruin_make(struct ruin *r, enum ruin_kind kind, uint64_t seed);
void ruin_free(struct ruin *r);

/* ---- damage ---- */

/* Where choices come from: random numbers, or a fuzzer's bytes. */
struct ruin_choices {
    uint64_t (*below)(void *ctx, uint64_t n); /* 0 .. n - 1 */
    void *ctx;
};
/* One damage; what it was is added to kit_context. */
void ruin_damage(const struct ruin *r, struct sim_image *image, const struct ruin_choices *choices);
/* All checksums set right that can be found. With them right anything may be read, but nothing may break. */
void ruin_mend(const struct ruin *r, struct sim_image *image);
#define RUIN_RECORD_BYTES 16384u /* no record is longer */
/* Bytes of the log from lsn on, as many as there are of n; and back, as far as files reach. */
size_t ruin_log_get(const struct ruin *r, const struct sim_image *image, uint64_t lsn, void *data,
                    size_t n);
void ruin_log_put(const struct ruin *r, struct sim_image *image, uint64_t lsn, const void *data,
                  size_t n);

/* ---- what is left ---- */

enum ruin_outcome {
    RUIN_RIGHT,   /* as it was */
    RUIN_PARTLY,  /* the same, some pages told CORRUPT */
    RUIN_EARLIER, /* what no claim covers is gone from the end */
    RUIN_REFUSED,
    RUIN_OUTCOMES
};

enum ruin_how {
    RUIN_WRITABLE = 1, /* not read-only */
    RUIN_GO_ON = 2,    /* and then updated, closed, opened again */
    RUIN_VERIFY = 4,   /* scree_verify agrees */
    RUIN_SALVAGE = 8,  /* what scree_salvage copies was once so */
    RUIN_MENDED = 16   /* checksums may have been set right: contents are not judged */
};
/* Open what is left, read every page, judge; ends the run where a promise is broken. */
enum ruin_outcome ruin_look(const struct ruin *r, const struct sim_image *image, unsigned how,
                            uint64_t seed);

#endif
