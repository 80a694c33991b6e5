/*
 * snapshot.h - the page table on disk: snapshot files, and the manifests that name them.
 *
 * A snapshot is a fuzzy image of the page table taken while updates go on, complete for everything
 * below its replay start S; replay of the log from S makes it exact. On disk it is a chain of files:
 * a full one, and deltas, each of which holds what has an lsn at or above the S of the snapshot before.
 * See docs/snapshot_format.md for the bytes.
 */
#ifndef SCREE_SNAPSHOT_H
#define SCREE_SNAPSHOT_H

#include "base/base.h"
#include "env/env.h"

/* Where one record of a page lies. */
struct scree__position {
    uint64_t lsn;      /* multiple of 8 */
    uint32_t disk_len; /* multiple of 8 */
};

/* One page, or (n == 0) a tombstone: id was free at the walk, freed at version >= S; in a delta: >= the S
   of the snapshot it adds to. */
struct scree__snapshot_entry {
    uint64_t id;
    uint64_t version;                        /* of the page; of a tombstone: the lsn of the free */
    const struct scree__position *positions; /* oldest first, lsns growing */
    uint32_t n;
    bool
        added; /* in a delta: the page has these besides what the files before say of it. Those of them
                   that are not above its newest there it had already. */
    bool delta; /* comes from a delta; set by the loader */
};

/* ---- manifest.c: configuration and generations ----------------------------------------------- */

#define SCREE__GENERATIONS_MAX 2

#define SCREE__GENERATION_FILES_MAX 64

struct scree__snapshot_file {
    uint64_t
        number; /* of the file snapshot-<16 hex digits>; grows in the order they are begun, never repeats */
    uint64_t bytes;
    uint64_t hash; /* XXH3 of the whole file */
};

/* A snapshot: a full file, and the deltas that were added to it. Unused files are zero. */
struct scree__generation {
    uint64_t replay_lsn; /* S, of the newest file */
    uint64_t stable_lsn; /* E: the log was stable up to here when it was published */
    uint32_t files;      /* 1 to SCREE__GENERATION_FILES_MAX */
    uint32_t zero;
    /* Oldest first; [0] is the full one, and has the lowest number. */
    struct scree__snapshot_file file[SCREE__GENERATION_FILES_MAX];
};

static inline const struct scree__snapshot_file *
scree__generation_newest(const struct scree__generation *g)
{
    return &g->file[g->files - 1];
}

uint64_t scree__generation_number_max(const struct scree__generation *g);
uint64_t scree__generation_bytes(const struct scree__generation *g); /* of all its files */
/* Of the files of all generations, each counted once. */
uint64_t scree__generations_bytes(const struct scree__generation *g, uint32_t n);

struct scree__manifest {
    uint64_t number; /* of the file manifest-<16 hex digits>; from 1, grows */
    uint8_t uuid[16];
    uint64_t segment_bytes;
    char materializer[256]; /* name, NUL-terminated */
    uint32_t materializer_version;
    uint32_t generations; /* used ones, newest first */
    struct scree__generation generation[SCREE__GENERATIONS_MAX];
};

/* Newest valid manifest of dir. A newer one that is damaged is passed over; *skipped_out counts
   those. -ENOENT: there is none at all. FORMAT: the newest is of an unknown version. CORRUPT:
   none is valid. */
int scree__manifest_load(const scree_env *env, const char *dir, struct scree__manifest *m_out,
                         uint32_t *skipped_out);
/* This one manifest and no other. CORRUPT: damaged, or not there. */
int scree__manifest_load_one(const scree_env *env, const char *dir, uint64_t number,
                             struct scree__manifest *m_out);

enum scree__file_kind { SCREE__SNAPSHOT_FILE = 0, SCREE__MANIFEST_FILE = 1 };
#define SCREE__SNAPSHOT_NAME_BYTES 32u /* of the longest name, with its NUL */
/* snapshot-<16 hex digits> or manifest-<16 hex digits>, with .tmp if asked for. */
void scree__snapshot_name(char name_out[SCREE__SNAPSHOT_NAME_BYTES], enum scree__file_kind file,
                          uint64_t number, bool tmp);
/* Whether this is exactly such a name: whatever else lies in the directory is a stranger's. */
bool scree__snapshot_name_parse(const char *name, enum scree__file_kind *file_out,
                                uint64_t *number_out, bool *tmp_out);
/* For a listing: if name is one of this kind, not .tmp, numbered at_most or below, its number joins the *n
   in `number`, largest first; of more than cap the smallest is dropped. */
void scree__snapshot_newest_keep(const char *name, enum scree__file_kind kind, uint64_t at_most,
                                 uint64_t *number, unsigned *n, unsigned cap);

/* Write m durably as number m->number (tmp, sync, rename, sync dir), then delete manifests older
   than its predecessor and snapshot files that neither names (exact-pattern names only). Kept:
   snapshot files numbered above m's newest, one may be in the making. The predecessor is the
   newest valid manifest below m. After an error m may or may not be what a power cut leaves;
   either is consistent. Errors: INVALID (m itself), NO_MEMORY, -errno. What could not be deleted
   is no error. */
int scree__manifest_store(const scree_env *env, const char *dir, const struct scree__manifest *m);
/* The same, and snapshot files numbered keep_from and above are kept, with .tmp or without: somebody reads
   some of them, or makes one. */
int scree__manifest_store_keeping(const scree_env *env, const char *dir,
                                  const struct scree__manifest *m, uint64_t keep_from);

/* ---- find.c ---------------------------------------------------------------------------------- */

/* Without a manifest: the newest generation whose newest file is numbered below `below`, as its files say of
   themselves; scree__snapshot_load tells whether they are whole. -ENOENT: none. NO_MEMORY, -errno. */
int scree__snapshot_find(const scree_env *env, const char *dir, const uint8_t uuid[16],
                         uint64_t below, struct scree__generation *g_out);

/* ---- copy.c ---------------------------------------------------------------------------------- */

struct scree__snapshot_copy {
    const char *dir;    /* where to */
    size_t chunk_bytes; /* moved at a time */
    /* So many bytes more are there; moved is true. Non-zero ends the copy and is returned. */
    int (*step)(void *ctx, uint64_t bytes, bool moved);
    void *ctx;
};
/* The files of a generation into another directory, synced; the directory is not. CORRUPT: one is shorter than
   the generation says. NO_MEMORY, -errno, the step's result. */
int scree__snapshot_copy(const scree_env *env, const char *dir, const struct scree__generation *g,
                         const struct scree__snapshot_copy *to);

/* ---- writer.c -------------------------------------------------------------------------------- */

struct scree__snapshot_writer;

/* header fields that are known at the start are given here */
struct scree__snapshot_meta {
    uint8_t uuid[16];
    uint64_t number;
    uint64_t replay_lsn; /* S */
    uint64_t since_lsn;  /* of a delta: the S of the snapshot it adds to; 0: it is full */
    uint64_t id_high;    /* ids above it were never handed out in sequence; begin: a lower bound */
    uint64_t generated_high; /* scree_id_next handed out nothing above it below S */
};
/* Makes snapshot-<number>.tmp. Errors: -errno, NO_MEMORY. */
int scree__snapshot_begin(const scree_env *env, const char *dir,
                          const struct scree__snapshot_meta *meta,
                          struct scree__snapshot_writer **writer_out);
/* Entries in growing id order. Buffers, compresses and writes block by block: bounded memory.
   INVALID: out of order, an unaligned, empty or overlapping position, more than 65535 of them, a
   page of version 0, a tombstone below S; in a delta: anything below since_lsn. The first error sticks. */
int scree__snapshot_add(struct scree__snapshot_writer *w, const struct scree__snapshot_entry *e);
/* The recovery fold's state (may be empty), trailer, sync, rename, sync dir. *generation_out
   describes it alone, as file[0] (stable_lsn as given). Consumes the writer, also on failure (then nothing
   is left behind). INVALID: a position ends, or a version is, above stable_lsn: the log must be flushed
   that far first. The larger of both id_high is stored. */
int scree__snapshot_finish(struct scree__snapshot_writer *w, scree_slice state, uint64_t stable_lsn,
                           uint64_t id_high, struct scree__generation *generation_out);
void scree__snapshot_abandon(struct scree__snapshot_writer *w);
/* A finished file that no manifest names. What cannot be deleted now is by a later store. */
void scree__snapshot_remove(const scree_env *env, const char *dir, uint64_t number);

/* ---- loader.c -------------------------------------------------------------------------------- */

struct scree__snapshot_loaded {
    struct scree__snapshot_meta meta; /* of the newest file */
    void *state; /* of the newest file; scree__free(state, state_len) by the caller */
    size_t state_len;
    uint64_t entries, tombstones; /* entries: visited in all, tombstones among them */
    uint64_t full_pages;          /* in the full file */
};
/* Called for every entry, file by file, within a file from `threads` threads side by side: their ids
   differ, the order is not kept. Non-zero ends the load and is returned. */
typedef int (*scree__snapshot_visit)(void *ctx, const struct scree__snapshot_entry *e);
/* Checks a whole file, blocks, bounds and order before an entry of it is visited, and that the files follow
   each other. CORRUPT (file, offset), FORMAT, -errno, NO_MEMORY. May have visited entries before it
   fails. positions live for the call of visit. `threads` counts the caller: 0 and 1 start none. */
int scree__snapshot_load(const scree_env *env, const char *dir, const struct scree__generation *g,
                         const uint8_t uuid[16], unsigned threads, scree__snapshot_visit visit,
                         void *ctx, struct scree__snapshot_loaded *loaded_out);

/* ---- merge.c --------------------------------------------------------------------------------- */

struct scree__snapshot_merge {
    const struct scree__generation *generation;
    uint32_t first, n; /* its files to be merged; first 0: into a full file, else into a delta */
    uint8_t uuid[16];
    uint64_t number;        /* of the file to be made */
    _Atomic uint32_t *stop; /* not 0: give up, CANCELED */
};
/* Makes one file that says what the n say one after the other, with the replay start, the state and the
   rest of the newest. *generation_out as from scree__snapshot_finish; *pages_out: pages in it. Memory: a block
   of each file. Errors as of load and of the writer; then nothing is left behind. */
int scree__snapshot_merge(const scree_env *env, const char *dir,
                          const struct scree__snapshot_merge *merge,
                          struct scree__generation *generation_out, uint64_t *pages_out);

#endif
