/*
 * reader.c - single records by position.
 *
 * No atomics. A record is read in the aligned window around it, a piece per segment it touches; the
 * pieces of all records of a call go out side by side (env->read_many). Each piece pins its segment
 * until the reads are over, so that a segment may be deleted meanwhile.
 * INVARIANTS
 *   I1 bytes are given out only after their checksum, which includes the lsn, was found right, and only
 *      under the page and length asked for.
 * FAILURE   each read has its own result. Bad bytes are CORRUPT with file, offset, lsn and page; a missing
 *   file too. A reader that lost a race against a deleted segment gets the same and looks again.
 * NOT HERE  whether the position is still current (pagecache).
 */
#include "log/log_private.h"

#include <errno.h>
#include <stdio.h>

#define PIECES_ON_STACK 16u

struct piece {
    struct log_segment *seg;
    struct scree__log_read *owner;
};

void
scree__log_locate(const struct scree__log *log, uint64_t lsn, char *name, size_t name_cap,
                  uint64_t *offset_out)
{
    char file[LOG_NAME_BYTES];

    scree__segment_name(lsn / log->segment_bytes, file);
    (void)snprintf(name, name_cap, "%s", file);
    if (offset_out != NULL)
        *offset_out = LOG_HEADER_BYTES + lsn % log->segment_bytes;
}

/* `at`: where in the record the trouble begins. */
static int
corrupt_at(const struct scree__log *log, const struct scree__log_read *read, uint64_t at,
           const char *what)
{
    char name[LOG_NAME_BYTES];
    uint64_t offset;

    scree__log_locate(log, at, name, sizeof name, &offset);
    return scree__fail(SCREE_E_CORRUPT,
                       "%s/%s, offset %llu (lsn %llu, %u bytes, page %llu): %s; salvage gets the "
                       "rest out",
                       log->options.dir, name, (unsigned long long)offset,
                       (unsigned long long)read->lsn, read->disk_len,
                       (unsigned long long)read->page, what);
}

/* All of the record: it may reach into the next file. */
static int
read_corrupt(const struct scree__log *log, const struct scree__log_read *read, const char *what)
{
    uint64_t last = read->lsn + read->disk_len - 1;
    char name[LOG_NAME_BYTES], both[128];

    if (last / log->segment_bytes == read->lsn / log->segment_bytes || read->disk_len == 0)
        return corrupt_at(log, read, read->lsn, what);
    scree__log_locate(log, last, name, sizeof name, NULL);
    (void)snprintf(both, sizeof both, "%s (it ends in %s)", what, name);
    return corrupt_at(log, read, read->lsn, both);
}

/* The aligned window around a record. */
static uint64_t
window_begin(const struct scree__log_read *read)
{
    return scree__round_down(read->lsn, SCREE_BLOCK);
}

static uint64_t
window_end(const struct scree__log_read *read)
{
    return scree__round_up(read->lsn + read->disk_len, SCREE_BLOCK);
}

static int
read_begin(const struct scree__log *log, struct scree__log_read *read)
{
    memset(&read->r, 0, sizeof read->r);
    if (read->disk_len < RECORD_HEADER_BYTES || read->disk_len > RECORD_BYTES_MAX ||
        read->lsn % SCREE__RECORD_ALIGN != 0 || read->disk_len % SCREE__RECORD_ALIGN != 0 ||
        read->lsn < log->segment_bytes || read->lsn > SCREE__LSN_MAX)
        return read_corrupt(log, read, "not a position of a record");
    size_t bytes = (size_t)(window_end(read) - window_begin(read));

    if (read->buffer != NULL && read->buffer_bytes >= bytes)
        return 0;
    scree__log_read_done(read, 1);
    read->buffer = scree__alloc_aligned(SCREE_BLOCK, bytes);
    if (read->buffer == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory to read %zu bytes", bytes);
    read->buffer_bytes = bytes;
    return 0;
}

static size_t
read_pieces(const struct scree__log *log, const struct scree__log_read *read)
{
    return (size_t)((window_end(read) - 1) / log->segment_bytes -
                    window_begin(read) / log->segment_bytes + 1);
}

/* Pin the segments of one record and queue its pieces. */
static int
read_queue(struct scree__log *log, struct scree__log_read *read, struct piece *pieces,
           scree_env_read *io, size_t *n_io)
{
    uint64_t begin = window_begin(read);

    for (uint64_t at = begin, end = window_end(read); at < end;) {
        uint64_t segment_end = (at / log->segment_bytes + 1) * log->segment_bytes;
        uint64_t len = scree__min_u64(end, segment_end) - at;
        struct log_segment *seg;
        int rc = scree__segment_pin(log, at / log->segment_bytes, &seg);

        if (rc == -ENOENT)
            rc = corrupt_at(log, read, scree__max_u64(at, read->lsn), "the file is missing");
        if (rc != 0)
            return rc;
        pieces[*n_io] = (struct piece){seg, read};
        io[*n_io] = (scree_env_read){.file = seg->file,
                                     .data = (uint8_t *)read->buffer + (at - begin),
                                     .len = (size_t)len,
                                     .offset = LOG_HEADER_BYTES + at % log->segment_bytes};
        (*n_io)++;
        at += len;
    }
    return 0;
}

/* Where the piece's bytes end, as an lsn, given how many came. */
static uint64_t
piece_lsn(const struct piece *piece, const scree_env_read *io)
{
    return window_begin(piece->owner) +
           (uint64_t)((const uint8_t *)io->data - (const uint8_t *)piece->owner->buffer);
}

/* A short count may be the file's end or not: the plain path knows. Only what the record needs counts. */
static int
piece_complete(struct scree__log *log, const struct piece *piece, scree_env_read *io)
{
    uint64_t at = piece_lsn(piece, io);
    uint64_t end = piece->owner->lsn + piece->owner->disk_len;
    size_t needed = end - at < io->len ? (size_t)(end - at) : io->len;
    size_t got = io->result < 0 ? 0 : (size_t)io->result;

    if (io->result < 0)
        return scree__fail(io->result, "log: read of %zu bytes at lsn %llu: %s", io->len,
                           (unsigned long long)at, scree_strerror(io->result));
    if (got < needed) {
        int rc = scree__env_read_all(log->env, io->file, io->data, io->len, io->offset, &got);

        if (rc != 0)
            return rc;
    }
    if (got < needed)
        return corrupt_at(log, piece->owner, scree__max_u64(at, piece->owner->lsn),
                          "the file ends before it");
    return 0;
}

int
scree__log_decode(const struct scree__log *log, const void *at, struct scree__log_read *read)
{
    enum log_decode d = scree__record_decode(at, read->disk_len, read->lsn, &read->r);

#ifdef SCREE_BUG_COLD_UNCHECKED
    d = d == LOG_DECODE_CHECKSUM ? LOG_DECODE_OK : d; /* seeded: sim_damage must fail */
#endif
    if (d != LOG_DECODE_OK) {
        memset(&read->r, 0, sizeof read->r);
        return read_corrupt(log, read,
                            d == LOG_DECODE_CHECKSUM ? "checksum mismatch" : "not a record");
    }
    if (read->r.page != read->page || read->r.disk_len != read->disk_len) { /* I1 */
        memset(&read->r, 0, sizeof read->r);
        return read_corrupt(log, read, "the record there is another page's or length");
    }
    return 0;
}

/* All pieces of all reads, with room for them given. */
static void
read_all(struct scree__log *log, struct scree__log_read *reads, size_t n, struct piece *pieces,
         scree_env_read *io)
{
    size_t n_io = 0;

    for (size_t i = 0; i < n; i++) {
        if (reads[i].result != 0)
            continue;
        reads[i].result = read_queue(log, &reads[i], pieces, io, &n_io);
    }
    int rc = n_io == 0 ? 0 : log->env->read_many(log->env->ctx, io, n_io);

    for (size_t i = 0; i < n_io; i++) {
        if (rc != 0)
            io[i].result = rc;
        if (pieces[i].owner->result == 0)
            pieces[i].owner->result = piece_complete(log, &pieces[i], &io[i]);
        scree__segment_unpin(log, pieces[i].seg);
    }
    for (size_t i = 0; i < n; i++) {
        if (reads[i].result == 0)
            reads[i].result = scree__log_decode(
                log, (const uint8_t *)reads[i].buffer + (reads[i].lsn - window_begin(&reads[i])),
                &reads[i]);
    }
}

/* The detail text is of the last failure; the first bad result is returned: make them the same. */
static int
read_result(const struct scree__log *log, const struct scree__log_read *reads, size_t n,
            size_t failed_before)
{
    for (size_t i = 0; i < n; i++) {
        if (reads[i].result == 0)
            continue;
        if (failed_before > 1 && reads[i].result == SCREE_E_CORRUPT)
            return read_corrupt(log, &reads[i], "missing, or its checksum is wrong");
        return reads[i].result;
    }
    return 0;
}

int
scree__log_read(struct scree__log *log, struct scree__log_read *reads, size_t n)
{
    struct piece pieces_few[PIECES_ON_STACK], *pieces = pieces_few;
    scree_env_read io_few[PIECES_ON_STACK], *io = io_few;
    size_t n_io = 0, failed = 0;

    for (size_t i = 0; i < n; i++) {
        reads[i].result = read_begin(log, &reads[i]);
        if (reads[i].result == 0)
            n_io += read_pieces(log, &reads[i]);
    }
    if (n_io > PIECES_ON_STACK) {
        pieces = scree__alloc(n_io * sizeof *pieces);
        io = scree__alloc(n_io * sizeof *io);
    }
    if (pieces != NULL && io != NULL)
        read_all(log, reads, n, pieces, io);
    for (size_t i = 0; i < n; i++) {
        if (pieces == NULL || io == NULL)
            reads[i].result =
                scree__fail(SCREE_E_NO_MEMORY, "log: no memory to read %zu records", n);
        failed += reads[i].result != 0;
    }
    if (n_io > PIECES_ON_STACK) {
        scree__free(pieces, n_io * sizeof *pieces);
        scree__free(io, n_io * sizeof *io);
    }
    return failed == 0 ? 0 : read_result(log, reads, n, failed);
}

int
scree__log_read_range(struct scree__log *log, uint64_t lsn, void *data, size_t len, size_t *len_out)
{
    SCREE_ASSERT(lsn % SCREE_BLOCK == 0 && len % SCREE_BLOCK == 0);
    return scree__segment_read_span(log, lsn, data, len, len_out);
}

void
scree__log_read_done(struct scree__log_read *reads, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        scree__free(reads[i].buffer, reads[i].buffer_bytes);
        reads[i].buffer = NULL;
        reads[i].buffer_bytes = 0;
    }
}
