/*
 * log.h - the log of ceiling_frag_merge: a ring in memory, reserved by one fetch_add, written to files by a
 *         thread of its own.
 *
 * RECORD    u64 check | u32 len, all of it, a multiple of 8 | u32 key | u64 kind << 56 | version | payload
 *           check: XXH3 of {XXH3 of the payload, lsn, len and key, kind and version}. The lsn is not stored:
 *           what an older round left in a file does not pass for a newer one.
 * WORDS     tail      position behind the last byte reserved
 *           filled    of each writer: what it reserved below this is filled; UINT64_MAX: it has nothing open
 *           epoch     of each writer: it holds no pointer it loaded before the tail was here
 *           flushed   position up to which the files have it
 * EDGES  step                                      who        order              pairs  if it loses
 *   L0   filled: UINT64_MAX -> tail; epoch = tail  its writer store release      L4,L3  sole writer
 *   L1   tail += len                               any writer fetch_add acq_rel  L4,L3  cannot
 *   L2   filled, epoch = end of own record         its writer store release      L4,L3  sole writer
 *   L3   min of the epochs > a tag: free what was  any writer load acquire       L2     kept for later
 *        unlinked before the tag was reserved
 *   L4   tail, then each filled: the minimum is    flusher    load acquire       L1,L2  -
 *        how far the ring may be written
 *   L5   flushed += written                        flusher    store release      L6     sole writer
 *   L6   flushed: below it the ring is free        any writer load acquire       L5     waits
 * INVARIANTS
 *   I1 A record is filled by who reserved it, before its L2. I2 A writer's own reservations ascend, so its last
 *   one's end is a bound for its next one: L2 publishes it without looking at the tail, whose line is touched
 *   by L1 alone. I3 That end is above a tag only if L1 came after the tag's: all changes of the tail are
 *   read-modify-writes, so L1 sees what was before the tag's, and the writer loads no unlinked pointer any
 *   more. The log's positions are the epochs; no fence is spent on them. I4 A writer that leaves keeps
 *   its epoch: were it idle, the next L0 would need a fence before the first pointer is loaded. So nothing that
 *   is unlinked while a writer is away is freed; here all leave at the same time.
 * PROGRESS  a writer without room publishes filled (not epoch: it may hold pointers) up to its reservation and
 *   sleeps until L5. The flusher sleeps until a writer finds that it has enough to write; lost wakes cost 1 ms.
 * FAILURE   an error of the file ends the process.
 * NOT HERE  syncs, seals, segments that are kept, recovery.
 */
#ifndef CEILING_LOG_H
#define CEILING_LOG_H

#include "common.h"

#include <pthread.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define LOG_FLUSH_BYTES (1u << 20) /* of one write */
#define LOG_FILES 4u
#define LOG_FILE_BYTES (UINT64_C(64) << 20)
#define LOG_HEADER_BYTES 24u
#define LOG_IDLE UINT64_MAX

enum log_kind { LOG_ABORTED = 1, LOG_APPEND, LOG_BASE };

struct log_record {
    uint64_t check;
    uint32_t len, key;
    uint64_t kind_version;
    unsigned char payload[];
};
_Static_assert(sizeof(struct log_record) == LOG_HEADER_BYTES, "as in the file");

struct log_writer {
    _Alignas(CEILING_LINE) _Atomic uint64_t filled; /* L0,L2 */
    _Atomic uint64_t epoch;                         /* L0,L2 */
};

struct ceiling_log {
    _Alignas(CEILING_LINE) _Atomic uint64_t tail; /* L1 */
    _Alignas(CEILING_LINE) _Atomic uint64_t flushed;
    _Atomic uint32_t flusher_sleeps; /* a futex, 1 while it does; hints only, hence relaxed */
    _Atomic uint32_t writes;         /* a futex of those who wait for room */
    _Atomic uint32_t waiting;        /* how many do; a hint */
    _Atomic uint32_t ending;         /* main, relaxed: everything is joined behind it */
    /* Set before there are threads. */
    _Alignas(CEILING_LINE) unsigned char *ring; /* mapped twice in a row: no record is split */
    uint64_t mask;                              /* ring bytes - 1 */
    unsigned n;
    struct log_writer *writers;
    int files[LOG_FILES];
    pthread_t flusher;
};

/* A writer's own. */
struct log_hand {
    struct ceiling_log *log;
    struct log_writer *word;
    unsigned char *ring;
    uint64_t mask;
    uint64_t end;   /* of its last reservation */
    uint64_t look;  /* a reservation that ends beyond it looks for room, and at the flusher */
    uint64_t waits; /* for room */
};

void log_open(struct ceiling_log *log, const char *dir, uint64_t ring_bytes, unsigned writers);
/* Writes what is left and ends the flusher. */
void log_close(struct ceiling_log *log);
void log_enter(struct log_hand *h, struct ceiling_log *log, unsigned writer); /* L0 */
void log_leave(struct log_hand *h);
void log_look(struct log_hand *h, uint64_t at, uint64_t end);
/* L3: how far all of them are. */
uint64_t log_epoch_min(const struct ceiling_log *log);
/* Reads the last ring's worth of records, from the one at `from` on, out of the files; how many there are.
   Ends the process if one is wrong. After log_close. */
uint64_t log_check(const struct ceiling_log *log, uint64_t from, uint64_t *aborted_out);

static inline uint64_t
log_len(uint32_t payload_len)
{
    return (LOG_HEADER_BYTES + payload_len + 7u) & ~UINT64_C(7);
}

static inline uint64_t
log_reserve(struct log_hand *h, uint64_t len)
{
    /* L1. Acquire: whatever was unlinked before an earlier reservation (I3). Release: what this writer
       unlinked before this one, which may be a tag. */
    uint64_t at = atomic_fetch_add_explicit(&h->log->tail, len, memory_order_acq_rel);

    h->end = at + len;
    if (h->end > h->look)
        log_look(h, at, h->end);
    return at;
}

static inline uint64_t
log_sum(uint64_t payload_sum, const struct log_record *r, uint64_t lsn)
{
    uint64_t words[4] = {payload_sum, lsn, (uint64_t)r->key << 32 | r->len, r->kind_version};

    return XXH3_64bits(words, sizeof(words));
}

/* I1. The payload's sum was taken before the reservation. */
static inline __attribute__((always_inline)) void
log_fill(const struct log_hand *h, uint64_t at, enum log_kind kind, uint32_t key, uint64_t version,
         const void *payload, uint32_t payload_len, uint64_t payload_sum)
{
    struct log_record *r = (struct log_record *)(void *)(h->ring + (at & h->mask));

    r->len = (uint32_t)log_len(payload_len);
    r->key = key;
    r->kind_version = (uint64_t)kind << 56 | version;
    memcpy(r->payload, payload, payload_len);
    r->check = log_sum(payload_sum, r, at);
}

/* L2. Release: to the flusher the record, to those who free nodes that this writer is done with them. */
static inline void
log_done(struct log_hand *h)
{
    atomic_store_explicit(&h->word->filled, h->end, memory_order_release);
    atomic_store_explicit(&h->word->epoch, h->end, memory_order_release);
}

#endif
