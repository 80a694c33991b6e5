/*
 * segment.c - the segment files: names, headers, handles, and the table from number to segment.
 *
 * FILE  segment-<16 hex digits>: one header block, then the data of positions
 *       [number * segment_bytes, (number + 1) * segment_bytes), so that position lsn lies at offset
 *       LOG_HEADER_BYTES + lsn % segment_bytes. The header, little-endian, rest zero:
 *         0 magic   8 u32 format version   12 u32 check of these 12   16 number   24 segment_bytes
 *         32 uuid[16]
 *         48 prev_end   56 XXH3_64 of the 56 bytes before
 *       prev_end: where the log ended before this segment; its own start, or less after a jump.
 *
 * Two ways to a segment. (a) Under files_lock, for everything that does I/O: a sorted array, pins
 * that keep the file open, at most about LOG_FILES_OPEN_MAX files open. (b) Lock-free, for
 * charge_dead: two hash tables that take turns.
 *
 * WORDS  table_seq: table[table_seq & 1] is the present one; table[] changes as in I3. cell: a
 *        segment or NULL. segment.number: 0 while it is on the free list.
 * EDGES  step                                         who            order           pairs
 *   E0   other table's cells, from the sorted array   files_lock     store release   E3
 *   E1   table_seq + 1                                files_lock     store release   E2, E4
 *   E2   which table                                  any thread     loads acquire   E1
 *   E3   probe its cells, look at number              any thread     load acquire    E0
 *   E4   table_seq again: changed? start over         any thread     load relaxed    E1
 * INVARIANTS
 *   I1 a reader that saw s in E2 and s in E4 read one consistent table: the cells of table[s & 1]
 *      are overwritten only after s + 1 was stored (E1), so a cell of the next build brings that
 *      store along (E0 release, E3 acquire), and E4 sees it.
 *   I2 the tables are at most half full: a probe ends at a NULL.
 *   I3 a table that is too small is replaced only while it is not the present one, and kept until
 *      the log is destroyed: a stalled reader may be in it. They double, so all of them together
 *      are small.
 *   I4 a segment stays in the table while a byte of it is not dead, and each byte is charged once:
 *      who charges it finds it. Structs are type-stable, so a late look is harmless.
 * LIFETIME  structs are recycled through a list, freed with the log. Files: unlinked when removed,
 *   closed with the last pin.
 * PROGRESS  E2-E4 retries only when segments came or went. (a) blocks on files_lock, under which
 *   files are opened.
 * FAILURE   returned with the file's name; what it means (poison or not) is the caller's to say.
 * NOT HERE  when to create (room.c), what to remove (space.c, restart.c).
 */
#include "log/log_private.h"

#include <errno.h>
#include <stdio.h>

#define SEGMENT_MAGIC 0x6765736565726373ull /* "screeseg" read as bytes */
#define SEGMENT_FORMAT 1u
#define SEGMENT_HEADER_USED 64u
#define SEGMENT_PREFIX "segment-"
#define TABLE_CELLS_MIN 64u

/* ---- names and headers ----------------------------------------------------------------------- */

void
scree__segment_name(uint64_t number, char name[LOG_NAME_BYTES])
{
    (void)snprintf(name, LOG_NAME_BYTES, SEGMENT_PREFIX "%016llx", (unsigned long long)number);
}

bool
scree__segment_name_parse(const char *name, uint64_t *number_out)
{
    size_t prefix = sizeof SEGMENT_PREFIX - 1;
    uint64_t number = 0;

    if (strlen(name) != prefix + 16 || memcmp(name, SEGMENT_PREFIX, prefix) != 0)
        return false;
    for (size_t i = prefix; i < prefix + 16; i++) {
        char c = name[i];

        if (c >= '0' && c <= '9')
            number = number << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            number = number << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    *number_out = number;
    return number != 0;
}

/* Exactly our names, else it is a stranger's file. */
static bool
name_parse(const struct scree__log *log, const char *name, uint64_t *number_out)
{
    /* Positions beyond are never written: not by us. */
    return scree__segment_name_parse(name, number_out) &&
           *number_out < SCREE__LSN_MAX / log->segment_bytes;
}

static char *
path_of(const struct scree__log *log, uint64_t number)
{
    char name[LOG_NAME_BYTES];

    scree__segment_name(number, name);
    return scree__path_join(log->options.dir, name);
}

void
scree__segment_header_put(const struct scree__log *log, uint64_t number, uint64_t prev_end,
                          uint8_t *at)
{
    memset(at, 0, LOG_HEADER_BYTES);
    scree__file_stamp(at, SEGMENT_MAGIC, SEGMENT_FORMAT);
    scree__put_u64(at + 16, number);
    scree__put_u64(at + 24, log->segment_bytes);
    memcpy(at + 32, log->options.uuid, 16);
    scree__put_u64(at + 48, prev_end);
    scree__put_u64(at + 56, scree__log_hash(at, 56));
}

/*
 * A header that does not verify is not an error here: the file may be younger than the last sync.
 *   One
 * that verifies and is not ours is.
 */
static int
header_decode(const struct scree__log *log, uint64_t number, const uint8_t *at, size_t len,
              struct log_segment *seg)
{
    char name[LOG_NAME_BYTES];

    scree__segment_name(number, name);
    seg->header_ok = false;
    seg->prev_end = number * log->segment_bytes;
    uint32_t version;

    if (len < SEGMENT_HEADER_USED || !scree__file_stamp_read(at, SEGMENT_MAGIC, &version))
        return 0;
    if (version != SEGMENT_FORMAT)
        return scree__fail(SCREE_E_FORMAT,
                           "%s/%s: segment format %u is unknown to this version of scree (%u)",
                           log->options.dir, name, version, SEGMENT_FORMAT);
    if (scree__get_u64(at + 56) != scree__log_hash(at, 56))
        return 0;
    seg->stranger = log->options.survey && (memcmp(at + 32, log->options.uuid, 16) != 0 ||
                                            scree__get_u64(at + 16) != number ||
                                            scree__get_u64(at + 24) != log->segment_bytes ||
                                            scree__get_u64(at + 48) > number * log->segment_bytes);
    if (seg->stranger)
        return 0;
    if (memcmp(at + 32, log->options.uuid, 16) != 0)
        return scree__fail(SCREE_E_CORRUPT, "%s/%s: this segment belongs to another directory",
                           log->options.dir, name);
    if (scree__get_u64(at + 16) != number || scree__get_u64(at + 24) != log->segment_bytes ||
        scree__get_u64(at + 48) > number * log->segment_bytes)
        return scree__fail(SCREE_E_CORRUPT,
                           "%s/%s: its header names segment %llu of %llu bytes: renamed, or from "
                           "another configuration",
                           log->options.dir, name, (unsigned long long)scree__get_u64(at + 16),
                           (unsigned long long)scree__get_u64(at + 24));
    seg->header_ok = true;
    seg->prev_end = scree__get_u64(at + 48);
    return 0;
}

bool
scree__segment_header_identity(const uint8_t *at, size_t len, uint8_t uuid_out[16],
                               uint64_t *segment_bytes_out)
{
    uint32_t version;

    if (len < SEGMENT_HEADER_USED || !scree__file_stamp_read(at, SEGMENT_MAGIC, &version) ||
        version != SEGMENT_FORMAT || scree__get_u64(at + 56) != scree__log_hash(at, 56))
        return false;
    memcpy(uuid_out, at + 32, 16);
    *segment_bytes_out = scree__get_u64(at + 24);
    return *segment_bytes_out >= LOG_SEGMENT_BYTES_MIN &&
           *segment_bytes_out <= LOG_SEGMENT_BYTES_MAX && *segment_bytes_out % SCREE_BLOCK == 0;
}

/* ---- the lock-free table --------------------------------------------------------------------- */

static size_t
table_hash(uint64_t number, uint64_t mask)
{
    return (size_t)((number * 0x9e3779b97f4a7c15ull) >> 20 & mask);
}

static size_t
table_bytes(uint64_t mask)
{
    return sizeof(struct log_table) + (size_t)(mask + 1) * sizeof(_Atomic(struct log_segment *));
}

/* E0, E1: the array as it is now, into the table that is not in use, which then is. */
static void
table_publish(struct scree__log *log)
{
    uint64_t seq = atomic_load_explicit(&log->table_seq, memory_order_relaxed); /* files_lock */
    struct log_table *t = atomic_load_explicit(&log->table[(seq + 1) & 1], memory_order_relaxed);

    SCREE_ASSERT(t->mask + 1 >= 2 * log->segment_n); /* I2 */
    for (uint64_t i = 0; i <= t->mask; i++)
        atomic_store_explicit(&t->cell[i], NULL, memory_order_release); /* E0 */
    for (size_t i = 0; i < log->segment_n; i++) {
        struct log_segment *seg = log->segment[i];
        size_t at = table_hash(atomic_load_explicit(&seg->number, memory_order_relaxed), t->mask);

        while (atomic_load_explicit(&t->cell[at], memory_order_relaxed) != NULL)
            at = (at + 1) & t->mask;
        atomic_store_explicit(&t->cell[at], seg, memory_order_release); /* E0 */
    }
    atomic_store_explicit(&log->table_seq, seq + 1, memory_order_release); /* E1 */
}

/* Make the table that is not in use large enough for n, then use it. */
static int
table_grow_other(struct scree__log *log, size_t n)
{
    uint64_t seq = atomic_load_explicit(&log->table_seq, memory_order_relaxed); /* files_lock */
    _Atomic(struct log_table *) *slot = &log->table[(seq + 1) & 1];
    struct log_table *old = atomic_load_explicit(slot, memory_order_relaxed);
    uint64_t cells = TABLE_CELLS_MIN;

    while (cells < 4 * (uint64_t)n) /* a quarter full: it lasts until n has doubled */
        cells *= 2;
    struct log_retired *retired = scree__alloc(sizeof *retired);
    struct log_table *t = scree__alloc_zero(table_bytes(cells - 1));

    if (t == NULL || retired == NULL) {
        scree__free(t, table_bytes(cells - 1));
        scree__free(retired, sizeof *retired);
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a table of %zu segments", n);
    }
    t->mask = cells - 1;
    *retired = (struct log_retired){log->retired, old}; /* I3 */
    log->retired = retired;
    atomic_store_explicit(slot, t, memory_order_release); /* pairs with E2: the mask */
    table_publish(log);
    return 0;
}

static bool
table_fits(struct scree__log *log, int i, size_t n)
{
    struct log_table *t =
        atomic_load_explicit(&log->table[i], memory_order_relaxed); /* files_lock */

    return t != NULL && t->mask + 1 >= 2 * (uint64_t)n;
}

/* From here on n segments fit, and publishing cannot fail. */
static int
table_reserve(struct scree__log *log, size_t n)
{
    while (!table_fits(log, 0, n) || !table_fits(log, 1, n)) {
        uint64_t seq = atomic_load_explicit(&log->table_seq, memory_order_relaxed);
        int rc = 0;

        if (table_fits(log, (int)((seq + 1) & 1), n))
            table_publish(log); /* so that the other one's turn comes */
        else
            rc = table_grow_other(log, n);
        if (rc != 0)
            return rc;
    }
    return 0;
}

struct log_segment *
scree__segment_peek(struct scree__log *log, uint64_t number)
{
    uint64_t seq = atomic_load_explicit(&log->table_seq, memory_order_acquire); /* E2 */

    for (;;) {
        struct log_table *t =
            atomic_load_explicit(&log->table[seq & 1], memory_order_acquire); /* E2 */
        struct log_segment *seg = NULL;

        for (size_t at = t == NULL ? 0 : table_hash(number, t->mask), n = 0; t != NULL; n++) {
            seg = atomic_load_explicit(&t->cell[at], memory_order_acquire); /* E3 */
            /* Relaxed: number was stored before the cell. */
            if (seg == NULL || atomic_load_explicit(&seg->number, memory_order_relaxed) == number ||
                n == t->mask)
                break;
            at = (at + 1) & t->mask;
        }
        SCREE_YIELD_POINT();
        uint64_t again = atomic_load_explicit(&log->table_seq, memory_order_relaxed); /* E4 */

        if (again == seq)
            return seg; /* I1, I2: ended at the number or at a NULL */
        seq = atomic_load_explicit(&log->table_seq, memory_order_acquire);
    }
}

/* ---- the array, under files_lock ------------------------------------------------------------- */

/* Index of the first segment with a number >= `number`. */
static size_t
array_lower(const struct scree__log *log, uint64_t number)
{
    size_t low = 0, high = log->segment_n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (atomic_load_explicit(&log->segment[mid]->number, memory_order_relaxed) < number)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct log_segment *
array_find(const struct scree__log *log, uint64_t number)
{
    size_t at = array_lower(log, number);

    if (at < log->segment_n &&
        atomic_load_explicit(&log->segment[at]->number, memory_order_relaxed) == number)
        return log->segment[at];
    return NULL;
}

static size_t
granules_bytes(const struct scree__log *log)
{
    return log->granules * sizeof(_Atomic uint64_t);
}

static size_t
holes_bytes(const struct scree__log *log)
{
    return (log->granules + 63u) / 64 * sizeof(uint64_t);
}

static void
segment_free(const struct scree__log *log, struct log_segment *seg)
{
    scree__free(seg->granule, granules_bytes(log));
    scree__free(seg->hole, holes_bytes(log));
    scree__free(seg, sizeof *seg);
}

static struct log_segment *
segment_take(struct scree__log *log)
{
    struct log_segment *seg = log->segment_free;

    if (seg != NULL) {
        log->segment_free = seg->next_free;
        return seg;
    }
    seg = scree__alloc_aligned(SCREE_CACHE_LINE, sizeof *seg);
    if (seg != NULL)
        memset(seg, 0, sizeof *seg);
    return seg;
}

/* Its granules' words, by the size that segments are said to have: when a file bears that out, as it may be
   much. */
static int
segment_equip(struct scree__log *log, struct log_segment *seg)
{
    if (seg->granule == NULL)
        seg->granule = scree__alloc(granules_bytes(log));
    if (seg->hole == NULL)
        seg->hole = scree__alloc(holes_bytes(log));
    if (seg->granule == NULL || seg->hole == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a segment of %llu bytes",
                           (unsigned long long)log->segment_bytes);
    for (uint32_t i = 0; i < log->granules; i++)
        atomic_store_explicit(&seg->granule[i], 0, memory_order_relaxed); /* published by E0 */
    memset(seg->hole, 0, holes_bytes(log));
    return 0;
}

/* A segment not yet seen by anybody, nor equipped: in the array, not in the table (array_add_many
   publishes). */
static int
array_insert(struct scree__log *log, uint64_t number, struct log_segment **seg_out)
{
    struct log_segment **grown =
        scree__array_reserve(log->segment, &log->segment_cap, log->segment_n + 1, sizeof *grown);

    if (grown == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for %zu segments",
                           log->segment_n + 1);
    log->segment = grown;
    struct log_segment *seg = segment_take(log);

    if (seg == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a segment");
    size_t at = array_lower(log, number);

    atomic_store_explicit(&seg->number, number, memory_order_relaxed); /* published by E0 */
    atomic_store_explicit(&seg->dead_bytes, 0, memory_order_relaxed);
    seg->next_free = NULL;
    seg->prev_end = number * log->segment_bytes;
    seg->file_bytes = seg->disk_bytes = 0;
    seg->pins = 0;
    seg->file = -1;
    seg->header_ok = seg->damaged = seg->leaving = seg->gone = seg->stranger = false;
    memmove(log->segment + at + 1, log->segment + at,
            (log->segment_n - at) * sizeof log->segment[0]);
    log->segment[at] = seg;
    log->segment_n++;
    *seg_out = seg;
    return 0;
}

static void
file_close(struct scree__log *log, struct log_segment *seg)
{
    if (seg->file < 0)
        return;
    /* Nothing unsynced is ever in a file that is closed (see file_evict): no result to look at. */
    (void)log->env->close(log->env->ctx, seg->file);
    seg->file = -1;
    log->files_open--;
}

static void
segment_recycle(struct scree__log *log, struct log_segment *seg)
{
    file_close(log, seg);
    atomic_store_explicit(&seg->number, 0, memory_order_relaxed); /* I4: nobody looks for it */
    seg->next_free = log->segment_free;
    log->segment_free = seg;
}

static void
array_erase(struct scree__log *log, size_t at)
{
    struct log_segment *seg = log->segment[at];

    memmove(log->segment + at, log->segment + at + 1,
            (log->segment_n - at - 1) * sizeof log->segment[0]);
    log->segment_n--;
    (void)atomic_fetch_sub_explicit(&log->disk_bytes, seg->disk_bytes, memory_order_relaxed);
    seg->gone = true;
}

static void
segment_info(const struct scree__log *log, const struct log_segment *seg,
             struct log_segment_info *out)
{
    uint64_t data = seg->file_bytes < LOG_HEADER_BYTES ? 0 : seg->file_bytes - LOG_HEADER_BYTES;

    out->number = atomic_load_explicit(&seg->number, memory_order_relaxed);
    out->prev_end = seg->prev_end;
    out->data_bytes = scree__min_u64(data, log->segment_bytes);
    out->header_ok = seg->header_ok;
}

struct log_segment *
scree__segment_lower(const struct scree__log *log, uint64_t number)
{
    size_t at = array_lower(log, number);

    return at < log->segment_n ? log->segment[at] : NULL;
}

bool
scree__segment_from(struct scree__log *log, uint64_t number, struct log_segment_info *out)
{
    (void)pthread_mutex_lock(&log->files_lock);
    size_t at = array_lower(log, number);
    bool found = at < log->segment_n;

    if (found)
        segment_info(log, log->segment[at], out);
    (void)pthread_mutex_unlock(&log->files_lock);
    return found;
}

bool
scree__segment_last(struct scree__log *log, struct log_segment_info *out)
{
    (void)pthread_mutex_lock(&log->files_lock);
    bool found = log->segment_n > 0;

    if (found)
        segment_info(log, log->segment[log->segment_n - 1], out);
    (void)pthread_mutex_unlock(&log->files_lock);
    return found;
}

bool
scree__segment_jump(struct scree__log *log, uint64_t number, uint64_t prev_end,
                    struct log_segment_info *out)
{
    bool found = false;

    (void)pthread_mutex_lock(&log->files_lock);
    for (size_t at = array_lower(log, number + 1); at < log->segment_n && !found; at++) {
        segment_info(log, log->segment[at], out);
        found = out->header_ok && out->prev_end == prev_end;
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    return found;
}

/* ---- handles --------------------------------------------------------------------------------- */

/* Close one idle file. Those at or behind stable keep theirs: an error of writing them back must be seen
   by the sync that follows. */
static bool
file_evict(struct scree__log *log)
{
    uint64_t stable = atomic_load_explicit(&log->stable, memory_order_acquire);

    for (size_t i = 0; i < log->segment_n; i++) {
        size_t at = log->clock_hand++ % log->segment_n;
        struct log_segment *seg = log->segment[at];
        uint64_t end =
            (atomic_load_explicit(&seg->number, memory_order_relaxed) + 1) * log->segment_bytes;

        if (seg->file >= 0 && seg->pins == 0 && (end <= stable || !log->started)) {
            file_close(log, seg);
            return true;
        }
    }
    return false;
}

static int
file_open(struct scree__log *log, struct log_segment *seg, int flags)
{
    uint64_t number = atomic_load_explicit(&seg->number, memory_order_relaxed);
    bool direct;
    char *path = path_of(log, number);

    if (path == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a file name");
    if (log->files_open >= LOG_FILES_OPEN_MAX)
        (void)file_evict(log); /* none idle: one more then */
    flags |= SCREE_ENV_READ | (log->options.read_only ? 0 : SCREE_ENV_WRITE);
    int file = scree__env_open_io(log->env, path, flags, log->options.io_mode, &direct);

    if ((file == -EMFILE || file == -ENFILE) && file_evict(log))
        file = scree__env_open_io(log->env, path, flags, log->options.io_mode, &direct);
    scree__path_free(path);
    if (file < 0)
        return file;
    if (!direct && log->options.io_mode == SCREE_IO_AUTO && !log->told_buffered) {
        log->told_buffered = true;
        scree__log_event(log, SCREE_EVENT_IO_BUFFERED, 0, 0, 0,
                         "direct I/O is not to be had for log segments: the OS cache is used");
    }
    seg->file = file;
    log->files_open++;
    return 0;
}

int
scree__segment_pin(struct scree__log *log, uint64_t number, struct log_segment **seg_out)
{
    int rc = 0;

    *seg_out = NULL;
    (void)pthread_mutex_lock(&log->files_lock);
    struct log_segment *seg = array_find(log, number);

    if (seg == NULL) {
        char name[LOG_NAME_BYTES];

        scree__segment_name(number, name);
        rc = scree__fail(-ENOENT, "%s/%s: no such segment", log->options.dir, name);
    } else if (seg->file < 0) {
        rc = file_open(log, seg, 0);
    }
    if (rc == 0) {
        seg->pins++;
        *seg_out = seg;
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    return rc;
}

void
scree__segment_unpin(struct scree__log *log, struct log_segment *seg)
{
    (void)pthread_mutex_lock(&log->files_lock);
    SCREE_ASSERT(seg->pins > 0);
    seg->pins--;
    if (seg->pins == 0 && seg->gone)
        segment_recycle(log, seg);
    (void)pthread_mutex_unlock(&log->files_lock);
}

/* ---- loading --------------------------------------------------------------------------------- */

static int
load_visit(void *ctx, const char *name)
{
    struct scree__log *log = ctx;
    struct log_segment *seg;
    uint64_t number;

    if (!name_parse(log, name, &number) || array_find(log, number) != NULL)
        return 0;
    return array_insert(log, number, &seg);
}

/* Under files_lock, or alone. Unsigned wrap-around subtracts. */
static void
disk_bytes_set(struct scree__log *log, struct log_segment *seg, uint64_t disk_bytes)
{
    (void)atomic_fetch_add_explicit(&log->disk_bytes, disk_bytes - seg->disk_bytes,
                                    memory_order_relaxed); /* a counter */
    seg->disk_bytes = disk_bytes;
}

/* Which granules are holes already: those without a byte of data. */
static int
load_holes(struct scree__log *log, struct log_segment *seg)
{
    uint64_t begin = 0, end = 0;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < log->granules; i++) {
        uint64_t from = LOG_HEADER_BYTES + (uint64_t)i * SCREE__GRANULE_BYTES;

        if (end <= from && from < seg->file_bytes)
            rc = log->env->data_range(log->env->ctx, seg->file, from, &begin, &end);
        scree__granule_punched_set(seg, i, begin >= from + scree__granule_bytes(log, i));
    }
    return rc;
}

static int
load_header(struct scree__log *log, struct log_segment *seg, uint8_t *block)
{
    uint64_t number = atomic_load_explicit(&seg->number, memory_order_relaxed);
    struct log_segment *pinned;
    scree_env_info info;
    size_t got = 0;
    int rc = scree__segment_pin(log, number, &pinned);

    if (rc != 0)
        return rc;
    rc = log->env->info(log->env->ctx, seg->file, &info);
    if (rc != 0)
        rc = scree__fail(rc, "log: cannot learn the size of segment %llu: %s",
                         (unsigned long long)number, scree_strerror(rc));
    if (rc == 0) {
        rc = scree__env_read_all(log->env, seg->file, block, LOG_HEADER_BYTES, 0, &got);
        if (rc != 0)
            rc = scree__fail(rc, "log: segment %llu: %s", (unsigned long long)number,
                             scree_error_detail());
    }
    if (rc == 0)
        rc = header_decode(log, number, block, got, seg);
    if (rc == 0 && !seg->stranger)
        rc = segment_equip(log, seg);
    if (rc == 0 && !seg->stranger) {
        seg->file_bytes = info.size_bytes;
        disk_bytes_set(log, seg, info.disk_bytes);
        if (info.disk_bytes < info.size_bytes)
            rc = load_holes(log, seg);
    }
    scree__segment_unpin(log, pinned);
    return rc;
}

/* A survey goes on without them: their records would verify, but are not of this log. */
static void
load_leave_strangers(struct scree__log *log)
{
    for (size_t i = log->segment_n; i-- > 0;) {
        struct log_segment *seg = log->segment[i];

        if (!seg->stranger)
            continue;
        if (log->strangers < LOG_STRANGERS)
            log->stranger[log->strangers] =
                atomic_load_explicit(&seg->number, memory_order_relaxed); /* alone */
        log->strangers++;
        array_erase(log, i);
        segment_recycle(log, seg);
    }
}

int
scree__segment_load(struct scree__log *log)
{
    int rc = log->env->list(log->env->ctx, log->options.dir, load_visit, log);

    if (rc != 0)
        return scree__fail(rc, "%s: cannot list the directory: %s", log->options.dir,
                           scree_strerror(rc));
    rc = table_reserve(log, log->segment_n);
    if (rc != 0)
        return rc;
    uint8_t *block = scree__alloc_aligned(SCREE_BLOCK, LOG_HEADER_BYTES);

    if (block == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a block");
    for (size_t i = 0; i < log->segment_n && rc == 0; i++)
        rc = load_header(log, log->segment[i], block);
    scree__free(block, LOG_HEADER_BYTES);
    load_leave_strangers(log);
    return rc;
}

void
scree__segment_destroy(struct scree__log *log)
{
    for (size_t i = 0; i < log->segment_n; i++) {
        file_close(log, log->segment[i]);
        segment_free(log, log->segment[i]);
    }
    scree__free(log->segment, log->segment_cap * sizeof log->segment[0]);
    while (log->segment_free != NULL) {
        struct log_segment *seg = log->segment_free;

        log->segment_free = seg->next_free;
        segment_free(log, seg);
    }
    while (log->retired != NULL) {
        struct log_retired *r = log->retired;

        log->retired = r->next;
        if (r->table != NULL)
            scree__free(r->table, table_bytes(r->table->mask));
        scree__free(r, sizeof *r);
    }
    for (int i = 0; i < 2; i++) {
        struct log_table *t = atomic_load_explicit(&log->table[i], memory_order_relaxed);

        if (t != NULL)
            scree__free(t, table_bytes(t->mask));
    }
}

/* ---- creating and changing files ------------------------------------------------------------- */

bool
scree__is_space_error(int code)
{
    return code == -ENOSPC || code == -EDQUOT || code == -EFBIG || code == SCREE_E_NO_SPACE;
}

static void
device_count(struct scree__log *log, uint64_t bytes)
{
    /* Relaxed: a counter for stats. */
    (void)atomic_fetch_add_explicit(&log->device_bytes, bytes, memory_order_relaxed);
}

int
scree__segment_sync_dir(struct scree__log *log, uint64_t begun)
{
    return scree__names_sync(log->env, log->options.dir, begun);
}

#ifdef SCREE_BUG_SEGMENT_UNNAMED
#define SYNCS_NAME false /* seeded bug: tests must notice */
#else
#define SYNCS_NAME true
#endif

/* Header and directory entry, durable. *broken_out: a write or sync failed that must not be repeated. */
static int
segment_found(struct scree__log *log, struct log_segment *seg, uint64_t number, uint64_t prev_end,
              uint64_t begun, bool *broken_out)
{
    uint8_t *block = scree__alloc_aligned(SCREE_BLOCK, LOG_HEADER_BYTES);

    *broken_out = false;
    if (block == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a block");
    scree__segment_header_put(log, number, prev_end, block);
    int rc = log->env->allocate(log->env->ctx, seg->file, 0, LOG_HEADER_BYTES);

    if (rc == 0) {
        rc = scree__env_write_all(log->env, seg->file, block, LOG_HEADER_BYTES, 0);
        *broken_out = rc != 0 && !scree__is_space_error(rc);
        device_count(log, LOG_HEADER_BYTES);
    }
    if (rc == 0) {
        rc = log->env->sync(log->env->ctx, seg->file);
        if (rc == 0 && SYNCS_NAME)
            rc = scree__segment_sync_dir(log, begun);
        *broken_out = rc != 0;
    }
    scree__free(block, LOG_HEADER_BYTES);
    if (rc != 0)
        return scree__fail(rc, "log: cannot write the header of segment %llu and sync it: %s",
                           (unsigned long long)number, scree_strerror(rc));
    return 0;
}

static int
segment_unlink(struct scree__log *log, const char *path)
{
    if (path == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a file name");
    int rc = log->env->unlink(log->env->ctx, path);

    if (rc == 0 || rc == -ENOENT)
        return 0;
    return scree__fail(rc, "%s: cannot delete: %s", path, scree_strerror(rc));
}

/*
 * The file is made outside files_lock, so that readers do not wait for its sync; only the caller
 * (the allocator, or recovery) makes segments.
 */
int
scree__segment_create(struct scree__log *log, uint64_t number, uint64_t prev_end)
{
    uint64_t begun = scree__names_begin(log->options.dir);
    struct log_segment *seg = NULL;
    bool broken = false;
    char *path = path_of(log, number); /* now: there may be no memory for it when it is needed */

    if (path == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a file name");
    (void)pthread_mutex_lock(&log->files_lock);
    SCREE_ASSERT(array_find(log, number) == NULL);
    int rc = table_reserve(log, log->segment_n + 1);

    if (rc == 0)
        rc = array_insert(log, number, &seg);
    if (rc == 0) {
        rc = segment_equip(log, seg);
        if (rc == 0)
            rc = file_open(log, seg, SCREE_ENV_CREATE | SCREE_ENV_TRUNCATE);
        seg->pins++;
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    if (seg == NULL) {
        scree__path_free(path);
        return rc;
    }
    bool opened = rc == 0;

    if (opened)
        rc = segment_found(log, seg, number, prev_end, begun, &broken);
    (void)pthread_mutex_lock(&log->files_lock);
    seg->pins--;
    if (rc == 0) {
        seg->prev_end = prev_end;
        seg->header_ok = true;
        seg->file_bytes = LOG_HEADER_BYTES;
        disk_bytes_set(log, seg, LOG_HEADER_BYTES);
        table_publish(log);
    } else {
        array_erase(log, array_lower(log, number));
        segment_recycle(log, seg);
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    if (rc != 0 && opened && !broken)
        (void)segment_unlink(log,
                             path); /* as if never tried; if it stays, the next try truncates */
    scree__path_free(path);
    if (broken)
        (void)scree__log_poison(log, rc, "making a segment file failed");
    return rc;
}

/* A pinned file grew, shrank or got a hole: look at what it occupies, under the lock, as growing and
   punching may go on side by side. Where that cannot be learned, the difference it should have made counts. */
static void
segment_measure(struct scree__log *log, struct log_segment *seg, uint64_t file_bytes,
                int64_t difference)
{
    scree_env_info info;

    (void)pthread_mutex_lock(&log->files_lock);
    if (log->env->info(log->env->ctx, seg->file, &info) != 0)
        info.disk_bytes = seg->disk_bytes + (uint64_t)difference;
    disk_bytes_set(log, seg, info.disk_bytes);
    if (file_bytes != 0)
        seg->file_bytes = file_bytes;
    (void)pthread_mutex_unlock(&log->files_lock);
}

int
scree__segment_extend(struct scree__log *log, uint64_t number, uint64_t from, uint64_t to)
{
    struct log_segment *seg;
    int rc = scree__segment_pin(log, number, &seg);

    if (rc != 0)
        return rc;
    rc = log->env->allocate(log->env->ctx, seg->file, LOG_HEADER_BYTES + from, to - from);
    /* Only this thread and recovery change file_bytes: read without the lock. */
    if (rc == 0 && LOG_HEADER_BYTES + to > seg->file_bytes)
        segment_measure(log, seg, LOG_HEADER_BYTES + to, (int64_t)(to - from));
    scree__segment_unpin(log, seg);
    return rc;
}

int
scree__segment_cut(struct scree__log *log, uint64_t number, uint64_t data_bytes)
{
    struct log_segment *seg;
    uint64_t bytes = LOG_HEADER_BYTES + data_bytes;
    int rc = scree__segment_pin(log, number, &seg);

    if (rc != 0)
        return rc;
    if (bytes != seg->file_bytes) {
        rc = log->env->truncate(log->env->ctx, seg->file, bytes);
        if (rc == 0) {
            segment_measure(log, seg, bytes, (int64_t)(bytes - seg->file_bytes));
        }
    }
    if (rc == 0)
        rc = log->env->sync(log->env->ctx, seg->file);
    if (rc != 0)
        rc = scree__fail(rc, "log: cannot cut segment %llu to %llu bytes and sync it: %s",
                         (unsigned long long)number, (unsigned long long)bytes, scree_strerror(rc));
    scree__segment_unpin(log, seg);
    return rc;
}

int
scree__segment_renew(struct scree__log *log, uint64_t number, uint64_t prev_end)
{
    uint8_t *block = scree__alloc_aligned(SCREE_BLOCK, LOG_HEADER_BYTES);
    char name[LOG_NAME_BYTES];
    struct log_segment *seg;

    if (block == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a block");
    scree__segment_header_put(log, number, prev_end, block);
    scree__segment_name(number, name);
    int rc = scree__env_replace_file(log->env, log->options.dir, name, block, LOG_HEADER_BYTES);

    device_count(log, LOG_HEADER_BYTES);
    (void)pthread_mutex_lock(&log->files_lock);
    seg = array_find(log, number);
    SCREE_ASSERT(seg != NULL && seg->pins == 0); /* recovery: nobody else is here */
    file_close(log, seg);                        /* of what had this name before */
    if (rc == 0) {
        seg->file_bytes = LOG_HEADER_BYTES;
        disk_bytes_set(log, seg, LOG_HEADER_BYTES);
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    scree__free(block, LOG_HEADER_BYTES);
    return rc;
}

int
scree__segment_punch(struct scree__log *log, uint64_t number, uint32_t first, uint32_t n)
{
    uint64_t from = (uint64_t)first * SCREE__GRANULE_BYTES;
    uint64_t len =
        (uint64_t)(n - 1) * SCREE__GRANULE_BYTES + scree__granule_bytes(log, first + n - 1);
    struct log_segment *seg;
    int rc = log->options.no_punch ? -EOPNOTSUPP : scree__segment_pin(log, number, &seg);

    if (rc != 0)
        return rc;
    rc = log->env->punch(log->env->ctx, seg->file, LOG_HEADER_BYTES + from, len);
    if (rc == 0) {
        (void)pthread_mutex_lock(&log->files_lock);
        for (uint32_t i = first; i < first + n; i++)
            scree__granule_punched_set(seg, i, true);
        (void)pthread_mutex_unlock(&log->files_lock);
        segment_measure(log, seg, 0, -(int64_t)len);
        (void)atomic_fetch_add_explicit(&log->punched_bytes, len,
                                        memory_order_relaxed); /* a counter */
    }
    scree__segment_unpin(log, seg);
    return rc;
}

int
scree__segment_remove(struct scree__log *log, uint64_t number, uint64_t *bytes_out)
{
    (void)pthread_mutex_lock(&log->files_lock);
    struct log_segment *seg = array_find(log, number);

    if (seg != NULL)
        seg->leaving = true;
    (void)pthread_mutex_unlock(&log->files_lock);
    char *path = path_of(log, number);
    int rc = segment_unlink(log, path);

    scree__path_free(path);
    if (bytes_out != NULL)
        *bytes_out = 0;
    (void)pthread_mutex_lock(&log->files_lock);
    if (seg != NULL && rc != 0)
        seg->leaving = false;
    if (seg != NULL && rc == 0) {
        if (bytes_out != NULL)
            *bytes_out = seg->disk_bytes;
        array_erase(log, array_lower(log, number));
        table_publish(log);
        if (seg->pins == 0)
            segment_recycle(log, seg);
    }
    (void)pthread_mutex_unlock(&log->files_lock);
    return rc;
}

/* ---- I/O ------------------------------------------------------------------------------------- */

int
scree__segment_read(struct scree__log *log, uint64_t lsn, void *data, size_t len, size_t *len_out)
{
    uint64_t offset = lsn % log->segment_bytes;
    struct log_segment *seg;
    int rc = scree__segment_pin(log, lsn / log->segment_bytes, &seg);

    *len_out = 0;
    SCREE_ASSERT(offset + len <= log->segment_bytes);
    if (rc != 0)
        return rc;
    rc = scree__env_read_all(log->env, seg->file, data, len, LOG_HEADER_BYTES + offset, len_out);
    scree__segment_unpin(log, seg);
    if (rc != 0)
        return scree__fail(rc, "log: lsn %llu: %s", (unsigned long long)lsn, scree_error_detail());
    return 0;
}

int
scree__segment_read_span(struct scree__log *log, uint64_t lsn, uint8_t *data, size_t len,
                         size_t *len_out)
{
    *len_out = 0;
    while (len > 0) {
        uint64_t in_segment = log->segment_bytes - lsn % log->segment_bytes;
        size_t n = len < in_segment ? len : (size_t)in_segment;
        size_t got;
        int rc = scree__segment_read(log, lsn, data, n, &got);

        if (rc == -ENOENT)
            return 0; /* the first missing byte */
        if (rc != 0)
            return rc;
        *len_out += got;
        if (got < n)
            return 0;
        lsn += n;
        data += n;
        len -= n;
    }
    return 0;
}

int
scree__segment_write(struct scree__log *log, uint64_t lsn, const void *data, size_t len)
{
    uint64_t offset = lsn % log->segment_bytes;
    struct log_segment *seg;
    int rc = scree__segment_pin(log, lsn / log->segment_bytes, &seg);

    SCREE_ASSERT(offset + len <= log->segment_bytes);
    if (rc != 0)
        return rc;
    rc = scree__env_write_all(log->env, seg->file, data, len, LOG_HEADER_BYTES + offset);
    device_count(log, len);
    scree__segment_unpin(log, seg);
    if (rc != 0)
        return scree__fail(rc, "log: lsn %llu: %s", (unsigned long long)lsn, scree_error_detail());
    return 0;
}

int
scree__segment_sync(struct scree__log *log, uint64_t number)
{
    struct log_segment *seg;
    int rc = scree__segment_pin(log, number, &seg);

    if (rc != 0)
        return rc;
    rc = log->env->sync(log->env->ctx, seg->file);
    if (rc != 0)
        rc = scree__fail(rc, "log: cannot sync segment %llu: %s", (unsigned long long)number,
                         scree_strerror(rc));
    scree__segment_unpin(log, seg);
    return rc;
}
