/*
 * feed.c - scree_log_*: follow what users changed, in log order.
 *
 * A reader pulls records out of the stable log (log/scan.c) and passes on what users wrote. What it has still
 * to read must not be given back.
 *
 * WORDS  feed.readers, each with its pin: under feed.mutex. feed.given: what died below it may have been given
 *        back, by us or by those who had the directory open before.
 * EDGES  step                                               who         order       pairs
 *   F1   least of the wanted floor and all pins;            collector   feed.mutex  F2, F3
 *        given = max(given, it)
 *   F2   position >= given? then into the list, pinned      reader      feed.mutex  F1
 *   F3   pin grows                                          reader      feed.mutex  F1
 * INVARIANTS
 *   I1 what is at or above `given` is there: bytes go only when they died below a floor of F1, so what a record
 *      at or above it is made of has not gone, and no byte dies before it is written (log/space.c I2). F1 and
 *      F2 are in one order: either F1 sees the pin, or F2 sees what F1 lets go.
 *   I2 pin <= `next` of the record that was told last, and <= where the cursor reads on.
 *   I3 a reader sees no more than was stable when it looked: nothing it told is lost by a crash.
 * LIFETIME  of a reader: until it is closed; the cache is not closed before.
 * PROGRESS  the mutex is held for short list work. A reader waits for the log to be synced, and for nobody
 *           else; nobody waits for it but a full disk.
 * FAILURE   an error is told and nothing passed over: the next call tries again.
 * NOT HERE  reading and checking (log/scan.c), what goes (log/collect.c).   REFS none.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

#define PIN_STEP_BYTES ((uint64_t)SCREE__GRANULE_BYTES)

#ifdef SCREE_BUG_FEED_NO_PIN
#define PINS_COUNT false /* seeded bug: tests must notice */
#else
#define PINS_COUNT true
#endif

#ifdef SCREE_BUG_FEED_HALF_BATCH
#define BATCHES_WHOLE false /* seeded bug: tests must notice */
#else
#define BATCHES_WHOLE true
#endif

struct scree_log_reader {
    scree_cache *cache;
    scree_log_reader *next; /* under feed.mutex */
    uint64_t pin;           /* under feed.mutex */
    uint64_t pinned;        /* the same, as the reader knows it */
    struct scree__log_cursor *cursor;
    uint64_t batch_lsn; /* of the batch being told */
    void *raw;          /* unpacked payload */
    size_t raw_cap;
};

/* ---- pins ---------------------------------------------------------------------------------------- */

void
scree__feed_init(scree_cache *cache)
{
    pthread_mutex_init(&cache->feed.mutex, NULL);
}

void
scree__feed_destroy(scree_cache *cache)
{
    pthread_mutex_destroy(&cache->feed.mutex);
}

void
scree__feed_found(scree_cache *cache, uint64_t floor)
{
    cache->feed.given = cache->feed.wanted = floor; /* alone */
}

/* Under the mutex: the least position that is pinned, LSN_NONE if nothing is. */
static uint64_t
pins_least(const struct scree__feed *feed)
{
    uint64_t least = SCREE__LSN_NONE;

    for (const scree_log_reader *r = feed->readers; PINS_COUNT && r != NULL; r = r->next)
        least = scree__min_u64(least, r->pin);
    return least;
}

uint64_t
scree__feed_floor(scree_cache *cache, uint64_t floor)
{
    struct scree__feed *feed = &cache->feed;
    uint64_t least;

    pthread_mutex_lock(&feed->mutex); /* F1 */
    least = scree__min_u64(floor, pins_least(feed));
    feed->wanted = floor;
    feed->given = scree__max_u64(feed->given, least);
    pthread_mutex_unlock(&feed->mutex);
    return least;
}

uint64_t
scree__feed_least(scree_cache *cache)
{
    uint64_t least;

    pthread_mutex_lock(&cache->feed.mutex);
    least = pins_least(&cache->feed);
    pthread_mutex_unlock(&cache->feed.mutex);
    return least;
}

bool
scree__feed_is_read(scree_cache *cache)
{
    bool is_read;

    pthread_mutex_lock(&cache->feed.mutex);
    is_read = cache->feed.readers != NULL;
    pthread_mutex_unlock(&cache->feed.mutex);
    return is_read;
}

static uint64_t
oldest(const scree_cache *cache)
{
    return scree__max_u64(cache->feed.given, cache->options.segment_bytes);
}

/* F2. *at_io 0: becomes the oldest position. *known_out: a record is there for sure. */
static int
pin_take(scree_log_reader *r, uint64_t *at_io, bool *known_out)
{
    struct scree__feed *feed = &r->cache->feed;
    uint64_t first;
    int rc = 0;

    pthread_mutex_lock(&feed->mutex);
    first = oldest(r->cache);
    if (*at_io == 0)
        *at_io = first;
    *known_out = *at_io == first;
    if (*at_io < first) {
        rc = SCREE_E_NOT_FOUND;
    } else {
        r->pin = r->pinned = *at_io;
        r->next = feed->readers;
        feed->readers = r;
    }
    pthread_mutex_unlock(&feed->mutex);
    if (rc != 0)
        return scree__fail(
            rc, "scree_log_open: the log is there from lsn %llu on, lsn %llu was given back",
            (unsigned long long)first, (unsigned long long)*at_io);
    return 0;
}

/* F3. Whoever wants the space that this lets go is told. */
static void
pin_move(scree_log_reader *r, uint64_t to)
{
    struct scree__feed *feed = &r->cache->feed;
    bool held;

    if (to == r->pinned)
        return;
    pthread_mutex_lock(&feed->mutex);
    held = r->pin < feed->wanted && r->pin == pins_least(feed);
    r->pin = r->pinned = to;
    pthread_mutex_unlock(&feed->mutex);
    if (held)
        scree__collector_wake(r->cache);
}

static void
pin_drop(scree_log_reader *r)
{
    struct scree__feed *feed = &r->cache->feed;
    scree_log_reader **link = &feed->readers;

    pthread_mutex_lock(&feed->mutex);
    while (*link != r)
        link = &(*link)->next;
    *link = r->next;
    pthread_mutex_unlock(&feed->mutex);
    scree__collector_wake(r->cache);
}

int
scree_log_oldest(scree_cache *cache, scree_lsn *lsn_out)
{
    int rc = scree__check_cache(cache, "scree_log_oldest");

    if (lsn_out != NULL)
        *lsn_out = 0;
    if (rc != 0)
        return rc;
    if (lsn_out == NULL)
        return scree__fail(SCREE_E_INVALID, "scree_log_oldest: lsn_out is NULL");
    pthread_mutex_lock(&cache->feed.mutex);
    *lsn_out = oldest(cache);
    pthread_mutex_unlock(&cache->feed.mutex);
    return 0;
}

/* ---- open, close --------------------------------------------------------------------------------- */

/* Where to read for who says `from`: behind the jump if the log had ended there. */
static int
position_check(scree_cache *cache, uint64_t from, uint64_t *at_out)
{
    uint64_t stable = scree__log_stable(cache->log);

    *at_out = from;
    if (from == 0)
        return 0;
    if (from % SCREE__RECORD_ALIGN != 0 || from < cache->options.segment_bytes || from > stable)
        return scree__fail(
            SCREE_E_INVALID,
            "scree_log_open: lsn %llu is no position of this log, which is stable up to %llu",
            (unsigned long long)from, (unsigned long long)stable);
    *at_out = scree__log_after_jump(cache->log, from);
    return 0;
}

static int
reader_begin(scree_log_reader *r, scree_lsn from)
{
    const struct scree__record *first;
    uint64_t at, stable = scree__log_stable(r->cache->log);
    bool known;
    int rc = position_check(r->cache, from, &at);

    if (rc == 0)
        rc = pin_take(r, &at, &known);
    if (rc != 0)
        return rc;
    known |= at >= stable || (from != 0 && at != from);
    rc = scree__log_cursor_open(r->cache->log, at, known, &r->cursor);
    if (rc == 0)
        rc = scree__log_cursor_look(r->cursor, stable, &first);
    if (rc == 0 || rc == 1)
        return 0;
    pin_drop(r);
#ifndef SCREE_BUG_CURSOR_LEAKS /* seeded: what it holds is lost; fault_alloc must fail */
    scree__log_cursor_close(r->cursor);
#endif
    return rc;
}

int
scree_log_open(scree_cache *cache, scree_lsn from, scree_log_reader **reader_out)
{
    struct scree__context *ctx;
    scree_log_reader *r;
    int rc = scree__enter_call(cache, &ctx);

    if (reader_out != NULL)
        *reader_out = NULL;
    if (rc == 0 && reader_out == NULL)
        rc = scree__fail(SCREE_E_INVALID, "scree_log_open: reader_out is NULL");
    if (rc != 0)
        return rc;
    r = scree__alloc_zero(sizeof *r);
    if (r == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for a log reader");
    r->cache = cache;
    rc = reader_begin(r, from);
    if (rc != 0) {
        scree__free(r, sizeof *r);
        return rc;
    }
    *reader_out = r;
    return 0;
}

void
scree_log_close(scree_log_reader *reader)
{
    if (reader == NULL || scree__forked(reader->cache)) /* the parent's */
        return;
    scree__log_cursor_close(reader->cursor);
    scree__free(reader->raw, reader->raw_cap);
    pin_drop(reader);
    scree__free(reader, sizeof *reader);
}

/* ---- next ---------------------------------------------------------------------------------------- */

/* What a user wrote. */
static bool
record_is_told(const struct scree__record *r)
{
    switch (r->kind) {
    case SCREE__RECORD_ALLOCATE:
        return r->page != SCREE_PAGE_ROOT; /* which open makes */
    case SCREE__RECORD_SET:
    case SCREE__RECORD_DELTA:
    case SCREE__RECORD_FREE:
        return true;
    default:
        return false;
    }
}

static int
payload_tell(scree_log_reader *reader, const struct scree__record *r, scree_slice *payload_out)
{
    uint32_t len;
    int rc = scree__record_raw_len(r, &len);

    *payload_out = (scree_slice){.data = r->payload, .len = r->payload_len};
    if (rc != 0 || (r->flags & SCREE__RECORD_COMPRESSED) == 0)
        return rc;
    if (reader->raw_cap < len) {
        scree__free(reader->raw, reader->raw_cap);
        reader->raw_cap = 0;
        reader->raw = scree__alloc(len);
        if (reader->raw == NULL)
            return scree__fail(SCREE_E_NO_MEMORY, "no memory for a record of %u bytes", len);
        reader->raw_cap = len;
    }
    *payload_out = (scree_slice){.data = reader->raw, .len = len};
    return scree__record_unpack(r, reader->raw, len);
}

static int
record_tell(scree_log_reader *reader, const struct scree__record *r, scree_log_record *rec)
{
    uint64_t end = r->lsn + r->disk_len;
    bool more = (r->flags & SCREE__RECORD_IN_BATCH) != 0 && r->version != end;
    int rc = payload_tell(reader, r, &rec->payload);

    if (rc != 0)
        return rc;
    rec->lsn = r->lsn;
    rec->next = more && BATCHES_WHOLE ? reader->batch_lsn : end;
    rec->page = r->page;
    rec->version = r->version;
    rec->kind = r->kind;
    rec->flags = more ? SCREE_RECORD_MORE : 0;
    if ((r->flags & SCREE__RECORD_CHOSEN_ID) != 0)
        rec->flags |= SCREE_RECORD_CHOSEN_ID;
    return 0;
}

/* All records up to the next one that is told. 1: there is none that is stable. */
static int
records_pass(scree_log_reader *reader, scree_log_record *rec)
{
    const struct scree__record *r;

    for (;;) {
        int rc = scree__log_cursor_look(reader->cursor, scree__log_stable(reader->cache->log), &r);

        if (rc != 0)
            return rc;
        if (r->kind == SCREE__RECORD_BATCH)
            reader->batch_lsn = r->lsn;
        bool told = record_is_told(r);

        rc = told ? record_tell(reader, r, rec) : 0;
        if (rc != 0)
            return rc;
        scree__log_cursor_pass(reader->cursor);
        if (told) { /* I2: what it is behind is in memory, or was told */
            if (rec->next - reader->pinned >= PIN_STEP_BYTES)
                pin_move(reader, rec->next);
            return 0;
        }
    }
}

/* Nothing more is stable. 0: look again; TIMEOUT, POISONED. */
static int
records_await(scree_log_reader *reader, uint64_t deadline_ns)
{
    scree_cache *cache = reader->cache;
    uint64_t now = cache->env->now_ns(cache->env->ctx);
    uint64_t at = scree__log_cursor_at(reader->cursor);
    int rc = scree__check_health(cache);

    pin_move(reader, at);
    if (rc == SCREE_E_POISONED && scree__log_stable(cache->log) > at)
        return 0;
    if (rc != 0)
        return rc;
    if (now >= deadline_ns || cache->read_only)
        return scree__fail(SCREE_E_TIMEOUT, "scree_log_next: nothing is stable behind lsn %llu",
                           (unsigned long long)at);
    scree__log_await_stable(cache->log, at,
                            deadline_ns == UINT64_MAX ? UINT64_MAX : deadline_ns - now);
    return 0;
}

int
scree_log_next(scree_log_reader *reader, int timeout_ms, scree_log_record *record_out)
{
    scree_log_record rec = {0};
    uint64_t deadline = UINT64_MAX;
    size_t size;
    int rc = reader == NULL ? 0 : scree__check_cache(reader->cache, "scree_log_next");

    if (rc != 0)
        return rc;
    if (reader == NULL || record_out == NULL || record_out->size < sizeof record_out->size)
        return scree__fail(
            SCREE_E_INVALID,
            "scree_log_next: reader and record_out, with its size set, are required");
    if (timeout_ms >= 0)
        deadline = reader->cache->env->now_ns(reader->cache->env->ctx) +
                   (uint64_t)timeout_ms * 1000 * 1000;
    do {
        rc = records_pass(reader, &rec);
        if (rc == 1)
            rc = records_await(reader, deadline);
        else
            break;
    } while (rc == 0);
    if (rc != 0) {
        memset(&rec, 0, sizeof rec);
        rec.next = rc == SCREE_E_TIMEOUT ? scree__log_cursor_at(reader->cursor) : 0;
    }
    size = record_out->size;
    memset(record_out, 0, size);
    memcpy(record_out, &rec, size < sizeof rec ? size : sizeof rec);
    record_out->size = size;
    return rc;
}
