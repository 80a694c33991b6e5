/*
 * scan.c - walk the records of the log in order, and say where it ends and why.
 *
 * A thread reads and checks ahead, batch by batch; visitors, of which the caller is one, take what it found.
 *   A batch is a buffer of log bytes and the records found in it. There are SCAN_BATCHES of them, used in turn.
 *   Every visitor is shown every batch, in order: they share the work by what each of them leaves alone.
 *
 * WHERE THE LOG ENDS The walk goes on while records verify. At the first position E without one: 1
 *   a segment further on whose header says prev_end == E: a jump; go on at its start. 2 else E is
 *   the end, if nothing claims that more was durable. Claims are: known_stable; prev_end of a later
 *   segment that was made by a jump; `stable` of any valid seal behind E, found by the footers at
 *   block ends. All of them are record boundaries, so a record that begins below a claim ends at or
 *   below it: with a claim above E, the bytes at E are damaged, not torn. And a segment that was
 *   made in the ordinary course says that the one at E was there: they are made in order, each
 *   durable before the next, and restart.c deletes them in the other order. 3 a log that was closed
 *   cleanly has nothing behind E, and E is a block boundary. INVARIANTS
 *   I1 memory: one buffer is SCAN_BYTES, or as long as one record, or batch, whose last byte is there.
 *   I2 every step goes forward: records have a length, jumps lead beyond E.
 *   I3 batch k lies in slot k % SCAN_BATCHES. The thread fills it when all visitors have seen batch
 *      k - SCAN_BATCHES, and nobody looks at it before `handed` is above k; from then on it does not change
 *      until all visitors have seen it.
 *   I4 the first failure, of the thread or of a visitor, is the outcome: later ones are not told.
 * SHARED  handed, seen, done, stop and the outcome: under lock. Batches: I3. Everything else: the thread's own,
 *   and the caller's when it was joined.
 * LIFETIME  of threads and batches: one call. A visited record's payload: until visit returns.
 * PROGRESS  the thread waits for the slowest visitor, a visitor for a batch; each wakes the others.
 * FAILURE   outcome and detail of whoever failed become the caller's. A read error is an error, not an
 *          end.
 * NOT HERE  what is done about a torn tail (restart.c), how visitors share the work (recover.c).
 */
#include "log/log_private.h"

#include <stdio.h>

#ifdef SCREE_SMALL_BUFFERS /* fuzzers: so that what is small crosses them */
#define SCAN_BYTES 16384u
#else
#define SCAN_BYTES (1024u * 1024u)
#endif
#define SCAN_BATCHES 4u
#define SCAN_DETAIL_BYTES 512u

struct batch {
    uint8_t *buffer;
    size_t buffer_bytes;
    struct scree__record *record;
    size_t n, cap;
};

/* A batch being walked over: all of it verifies, or none of it is there. */
struct group {
    uint64_t lsn, end; /* end 0: none */
    uint64_t records;  /* still to come */
    size_t first;      /* its first record's place in the buffer's list */
};

struct scan {
    struct scree__log *log;
    uint64_t known_stable;
    uint64_t to; /* range: exactly up to here; LSN_NONE: to the end of the log */
    uint64_t at; /* thread: next position */
    uint64_t
        bad; /* thread: where decoding ended last: at `at`, or within the batch that begins there */
    size_t need;        /* thread: bytes the next buffer must have */
    uint64_t claim;     /* thread, then caller: largest claim of the seals walked over */
    struct group group; /* thread */
    bool clean;         /* 3 above holds */

    scree__log_visit visit;
    void *ctx;
    unsigned visitors;
    struct batch batch[SCAN_BATCHES]; /* I3 */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t handed;                        /* under lock, as are those below: batches to be seen */
    uint64_t seen[SCREE__LOG_VISITORS_MAX]; /* of those, by each visitor */
    bool done, stop;                        /* no more will come; no more are wanted */
    int code;
    char detail[SCAN_DETAIL_BYTES];
    struct scree__log_scan_result result; /* the thread's, but for records: visitor 0's */
};

/* ---- batches --------------------------------------------------------------------------------- */

static void
batch_free(struct batch *b)
{
    scree__free(b->buffer, b->buffer_bytes);
    scree__free(b->record, b->cap * sizeof *b->record);
    *b = (struct batch){0};
}

/* Empty, with a buffer of so many bytes. */
static bool
batch_prepare(struct batch *b, size_t bytes)
{
    b->n = 0;
    if (b->buffer_bytes == bytes)
        return true;
    batch_free(b); /* I1: a long one, used before, does not stay */
    b->buffer = scree__alloc_aligned(SCREE_BLOCK, bytes);
    b->buffer_bytes = b->buffer != NULL ? bytes : 0;
    return b->buffer != NULL;
}

static int
batch_add(struct batch *b, const struct scree__record *r)
{
    if (b->n == b->cap) { /* looked at here: a recovery comes by for every record */
        struct scree__record *grown =
            scree__array_reserve(b->record, &b->cap, b->n + 1, sizeof *grown);

        if (grown == NULL)
            return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for %zu records of a scan",
                               b->n + 1);
        b->record = grown;
    }
    b->record[b->n++] = *r;
    return 0;
}

/* By the slowest visitor. */
static uint64_t
seen_by_all(const struct scan *s)
{
    uint64_t least = s->seen[0];

    for (unsigned i = 1; i < s->visitors; i++)
        least = scree__min_u64(least, s->seen[i]);
    return least;
}

/* The slot to be filled next, when it is free; NULL: nobody wants more. */
static struct batch *
batch_next(struct scan *s)
{
    (void)pthread_mutex_lock(&s->lock);
    while (s->handed - seen_by_all(s) == SCAN_BATCHES && !s->stop)
        (void)pthread_cond_wait(&s->changed, &s->lock); /* waker: batch_seen, scan_stop */
    struct batch *b = s->stop ? NULL : &s->batch[s->handed % SCAN_BATCHES];

    (void)pthread_mutex_unlock(&s->lock);
    return b;
}

/* What was filled is to be seen, if there is anything in it. */
static void
batch_hand_over(struct scan *s, const struct batch *b)
{
    if (b->n == 0)
        return;
    (void)pthread_mutex_lock(&s->lock);
    s->handed++;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

/* What visitor `who` has to see next; NULL at the end. */
static const struct batch *
batch_receive(struct scan *s, unsigned who)
{
    (void)pthread_mutex_lock(&s->lock);
    while (s->seen[who] == s->handed && !s->done && !s->stop)
        (void)pthread_cond_wait(&s->changed,
                                &s->lock); /* waker: batch_hand_over, scan_main, scan_stop */
    const struct batch *b =
        s->seen[who] == s->handed || s->stop ? NULL : &s->batch[s->seen[who] % SCAN_BATCHES];

    (void)pthread_mutex_unlock(&s->lock);
    return b;
}

static void
batch_seen(struct scan *s, unsigned who)
{
    (void)pthread_mutex_lock(&s->lock);
    s->seen[who]++;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

/* I4. Under lock. The detail is this thread's; the caller's gets a copy. */
static void
outcome_set(struct scan *s, int code)
{
    if (s->code != 0 || code == 0)
        return;
    s->code = code;
    (void)snprintf(s->detail, sizeof s->detail, "%s", scree_error_detail());
}

/* ---- seals found by their footers ------------------------------------------------------------ */

/* Non-zero ends the walk and is returned. */
typedef int (*seal_visit)(void *ctx, uint64_t end_lsn, uint64_t seal_lsn, struct log_seal seal);

struct seal_walk {
    struct scree__log *log;
    seal_visit visit;
    void *ctx;
    uint8_t *buffer; /* SCAN_BYTES */
    uint8_t *window; /* two blocks */
};

/* The footer at the end of [.., end_lsn) looks right: is there a whole seal in front of it? */
static int
seal_look(struct seal_walk *w, uint64_t end_lsn, uint64_t seal_lsn)
{
    uint64_t begin = scree__round_down(seal_lsn, SCREE_BLOCK);
    size_t len = (size_t)(end_lsn - begin), got;
    struct scree__record r;
    int rc;

    SCREE_ASSERT(len <=
                 2 * SCREE_BLOCK); /* record.c: a seal is shorter than a block and 64 bytes */
    rc = scree__segment_read_span(w->log, begin, w->window, len, &got);
    if (rc != 0 || got < len)
        return rc;
    if (scree__record_decode(w->window + (seal_lsn - begin), end_lsn - seal_lsn, seal_lsn, &r) !=
            LOG_DECODE_OK ||
        r.kind != SCREE__RECORD_SEAL || seal_lsn + r.disk_len != end_lsn)
        return 0;
    return w->visit(w->ctx, end_lsn, seal_lsn, scree__seal_of(&r));
}

/* How far into the block something other than zeros goes. Room made ahead is zeros, and there is much of it. */
static size_t
nonzero_bytes(const uint8_t *data, size_t len)
{
    while (len >= 8 && scree__get_u64(data + len - 8) == 0)
        len -= 8;
    while (len > 0 && data[len - 1] == 0)
        len--;
    return len;
}

/* One segment from lsn `begin`; *written_out: position behind its last byte that is not zero, or begin. */
static int
seal_walk_segment(struct seal_walk *w, uint64_t begin, uint64_t data_end, uint64_t *written_out)
{
    *written_out = begin;
    for (uint64_t at = scree__round_down(begin, SCREE_BLOCK); at < data_end;) {
        size_t len = data_end - at < SCAN_BYTES ? (size_t)(data_end - at) : SCAN_BYTES, got;
        int rc = scree__segment_read(w->log, at, w->buffer,
                                     (size_t)scree__round_up(len, SCREE_BLOCK), &got);

        if (rc != 0)
            return rc;
        got = got < len ? got : len;
        size_t used = nonzero_bytes(w->buffer, got);

        if (used > 0 && at + used > *written_out)
            *written_out = at + used;
        for (size_t end = SCREE_BLOCK;
             end <= scree__round_down(used + SCREE_BLOCK - 1, SCREE_BLOCK) && end <= got;
             end += SCREE_BLOCK) {
            uint64_t seal_lsn;

            if (!scree__seal_footer(w->buffer + end, at + end, &seal_lsn))
                continue;
            rc = seal_look(w, at + end, seal_lsn);
            if (rc != 0)
                return rc;
        }
        if (got < len)
            return 0; /* shorter than it said */
        at += len;
    }
    return 0;
}

/* All seals whose block ends behind `from`; *written_out: bytes that are not trailing zeros, in all. */
static int
seal_walk(struct scree__log *log, uint64_t from, seal_visit visit, void *ctx, uint64_t *written_out)
{
    struct seal_walk w = {.log = log, .visit = visit, .ctx = ctx};
    struct log_segment_info info;
    int rc = 0;

    *written_out = 0;
    w.buffer = scree__alloc_aligned(SCREE_BLOCK, SCAN_BYTES);
    w.window = scree__alloc_aligned(SCREE_BLOCK, 2 * SCREE_BLOCK);
    if (w.buffer == NULL || w.window == NULL)
        rc = scree__fail(SCREE_E_NO_MEMORY, "log: no memory to look for seals");
    for (uint64_t n = from / log->segment_bytes; rc == 0 && scree__segment_from(log, n, &info);
         n = info.number + 1) {
        uint64_t start = info.number * log->segment_bytes, written;
        uint64_t begin = start > from ? start : from;

        rc = seal_walk_segment(&w, begin, start + info.data_bytes, &written);
        *written_out += written - begin;
    }
    scree__free(w.buffer, SCAN_BYTES);
    scree__free(w.window, 2 * SCREE_BLOCK);
    return rc;
}

/* ---- the end of the log ---------------------------------------------------------------------- */

struct claim {
    uint64_t end;    /* of the log, as walked */
    uint64_t seal;   /* which seal says otherwise */
    uint64_t stable; /* what it says */
};

static int
claim_visit(void *ctx, uint64_t end_lsn, uint64_t seal_lsn, struct log_seal seal)
{
    struct claim *c = ctx;

    (void)end_lsn;
    if (seal_lsn < c->end || seal.stable <= c->end)
        return 0;
#ifdef SCREE_BUG_CLAIM_IGNORED
    return 0; /* seeded: what was durable passes for a torn tail; sim_damage must fail */
#endif
    c->seal = seal_lsn;
    c->stable = seal.stable;
    return 1;
}

/* `at` is where the log would end; what is wrong may be a record of the batch that begins there. */
static int
scan_corrupt(const struct scan *s, uint64_t at, const char *what, uint64_t value)
{
    char name[LOG_NAME_BYTES], text[128], in_batch[80];
    uint64_t offset, bad = s->bad > at ? s->bad : at;
    struct log_segment_info info;
    uint64_t number = bad / s->log->segment_bytes;
    bool there = scree__segment_from(s->log, number, &info) && info.number == number;
    const char *state = "no whole record";

    (void)snprintf(in_batch, sizeof in_batch,
                   "no whole record of the batch that begins at lsn %llu", (unsigned long long)at);
    if (bad > at)
        state = in_batch;
    if (!there)
        state = "the file is missing";
    else if (info.data_bytes <= bad % s->log->segment_bytes)
        state = "the file ends here";
    scree__log_locate(s->log, bad, name, sizeof name, &offset);
    (void)snprintf(text, sizeof text, what, (unsigned long long)value);
    return scree__fail(SCREE_E_CORRUPT,
                       "%s/%s, offset %llu (lsn %llu): %s, though %s; salvage gets "
                       "the rest out",
                       s->log->options.dir, name, (unsigned long long)offset,
                       (unsigned long long)bad, state, text);
}

/* The first segment behind `end` that was made by a jump from beyond it. */
static bool
jump_from_beyond(struct scree__log *log, uint64_t end, struct log_segment_info *info)
{
    for (uint64_t n = end / log->segment_bytes; scree__segment_from(log, n, info);
         n = info->number + 1) {
        if (info->header_ok && info->prev_end < info->number * log->segment_bytes &&
            info->prev_end > end)
            return true;
    }
    return false;
}

/* The segment that begins at `end` is not there, but one that was made after it. */
static bool
later_file_exists(struct scree__log *log, uint64_t end, struct log_segment_info *info)
{
    uint64_t number = end / log->segment_bytes;

    if (end % log->segment_bytes != 0 ||
        (scree__segment_from(log, number, info) && info->number == number))
        return false;
    for (; scree__segment_from(log, number, info); number = info->number + 1) {
        if (info->header_ok && info->prev_end == info->number * log->segment_bytes)
            return true;
    }
    return false;
}

/* Rules 2 and 3. */
static int
scan_end(struct scan *s)
{
    struct claim c = {.end = s->at};
    struct log_segment_info info;
    uint64_t written = 0;

    s->result.end = s->at;
    if (s->to != SCREE__LSN_NONE)
        return scan_corrupt(s, s->at, "the log is stable up to lsn %llu", s->to);
    if (s->at < s->known_stable)
        return scan_corrupt(s, s->at, "all below lsn %llu was durable", s->known_stable);
    if (jump_from_beyond(s->log, s->at, &info))
        return scan_corrupt(s, s->at, "a later segment says the log went on to lsn %llu",
                            info.prev_end);
    if (later_file_exists(s->log, s->at, &info))
        return scan_corrupt(s, s->at, "segment %llu was made after it", info.number);
    int rc = seal_walk(s->log, s->at, claim_visit, &c, &written);

    if (rc < 0)
        return rc;
    if (rc > 0)
        return scan_corrupt(s, s->at, "a later seal says all below lsn %llu was durable", c.stable);
    s->result.torn_bytes = written;
    if (s->clean && (written > 0 || s->at % SCREE_BLOCK != 0))
        return scan_corrupt(s, s->at, "the log was closed, and goes on for %llu bytes", written);
    return 0;
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Is the byte in front of `lsn` there, and all from `at`? */
static bool
bytes_reach(struct scree__log *log, uint64_t at, uint64_t lsn)
{
    uint64_t last = (lsn - 1) / log->segment_bytes;
    struct log_segment_info info;

    for (uint64_t n = at / log->segment_bytes; n <= last; n++) {
        uint64_t end = n == last ? lsn - n * log->segment_bytes : log->segment_bytes;

        if (!scree__segment_from(log, n, &info) || info.number != n || info.data_bytes < end)
            return false;
    }
    return true;
}

/* No record verifies at s->at. 1: jumped, go on; 0: the log ends here. */
static int
scan_jump(struct scan *s)
{
    struct log_segment_info info;

    if (!scree__segment_jump(s->log, s->at / s->log->segment_bytes, s->at, &info))
        return 0;
    s->at = info.number * s->log->segment_bytes; /* I2: a later segment */
    s->result.batches_discarded = 0;             /* by an open before this one */
    s->need = SCAN_BYTES;
    return 1;
}

/* Does r, which verifies, fit where it lies: in the batch that is open, or outside of any? */
static bool
group_accepts(struct scan *s, const struct batch *b, const struct scree__record *r)
{
    struct group *g = &s->group;
    uint64_t bytes;
    bool in_batch = (r->flags & SCREE__RECORD_IN_BATCH) != 0;

    if (g->end == 0 && r->kind == SCREE__RECORD_BATCH) {
        *g = (struct group){.lsn = r->lsn, .first = b->n};
        scree__batch_body_get(r, &bytes, &g->records);
        if (bytes > RECORD_BYTES_MAX || bytes < r->disk_len || g->records == 0)
            return false;
        g->end = r->lsn + bytes;
        return true;
    }
    if (g->end == 0 || !in_batch)
        return g->end == 0 && !in_batch;
    if (r->version != g->end || r->lsn + r->disk_len > g->end)
        return false;
    g->records--;
    if ((g->records == 0) != (r->lsn + r->disk_len == g->end))
        return false;
    if (g->records == 0)
        g->end = 0;
    return true;
}

/* What is not whole is walked over as if it had not been begun. Where it began, or s->at. */
static uint64_t
group_give_up(struct scan *s, struct batch *b, uint64_t *bytes_io)
{
    struct group g = s->group;

    s->group.end = 0;
    if (g.end == 0)
        return s->at;
#ifdef SCREE_BUG_BATCH_TORN
    return s->at; /* seeded: what there is of it counts; crash_batch must fail */
#endif
    b->n = g.first;
    *bytes_io = g.end - g.lsn;
    return g.lsn;
}

/* The record, or batch, at s->at, of so many bytes goes beyond the buffer. As scan_records. */
static int
scan_beyond(struct scan *s, const struct batch *b, uint64_t base, uint64_t first, uint64_t bytes)
{
    if (s->at > first)
        return 1; /* the next buffer begins with it */
    if (s->at - base + bytes <= b->buffer_bytes)
        return 0; /* all of the batch is here: what is longer than it is none of its records */
    if (!bytes_reach(s->log, s->at, s->at + bytes))
        return 0; /* I1 */
    s->need = (size_t)scree__round_up(s->at - base + bytes, SCREE_BLOCK);
    return 1;
}

/*
 * Records of one buffer. 1: go on with the next one at s->at; 0: no record at s->at; < 0: error.
 */
static int
scan_records(struct scan *s, struct batch *b, uint64_t base, size_t got)
{
    struct scree__record r = {0};
    bool full = got == b->buffer_bytes;
    uint64_t first = s->at;
    int rc;

    while (s->at < s->to) {
        uint64_t in_buffer = s->at - base;
        enum log_decode d = LOG_DECODE_SHORT;

        if (in_buffer < got || full)
            d = scree__record_decode(b->buffer + in_buffer, got - in_buffer, s->at, &r);
        if (d == LOG_DECODE_OK && !group_accepts(s, b, &r))
            d = LOG_DECODE_HEADER;
        if (d != LOG_DECODE_OK) {
            uint64_t bytes = r.disk_len;
            bool open = s->group.end != 0;

            s->bad = s->at;
            s->at = group_give_up(s, b, &bytes);
            rc = d == LOG_DECODE_SHORT && full ? scan_beyond(s, b, base, first, bytes) : 0;
            s->result.batches_discarded = rc == 0 && open;
            return rc;
        }
        rc = batch_add(b, &r);

        if (rc != 0)
            return rc;
        if (r.kind == SCREE__RECORD_SEAL && scree__seal_of(&r).stable > s->claim)
            s->claim = scree__seal_of(&r).stable;
        s->at += r.disk_len;
    }
    return 1;
}

/* One buffer, as scan_records: read and checked. */
static int
scan_read(struct scan *s, struct batch *b)
{
    uint64_t base = scree__round_down(s->at, SCREE_BLOCK);
    size_t got;

    if (!batch_prepare(b, s->need))
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory to scan (%zu bytes)", s->need);
    s->need = SCAN_BYTES;
    int rc = scree__segment_read_span(s->log, base, b->buffer, b->buffer_bytes, &got);

    if (rc == 0)
        rc = scan_records(s, b, base, got);
    if (rc < 0)
        b->n = 0;
    return rc;
}

/* One buffer: read, check, hand over. 1: go on; 0: the scan is over; < 0: error. */
static int
scan_step(struct scan *s)
{
    struct batch *b = batch_next(s);

    if (b == NULL)
        return 0;
    int rc = scan_read(s, b);

    if (rc < 0)
        return rc;
    batch_hand_over(s, b);
    if (s->at >= s->to) {
        s->result.end = s->at;
        return 0;
    }
    if (rc == 0 && scan_jump(s) == 0) {
        rc = scan_end(s);
        return rc < 0 ? rc : 0;
    }
    return 1;
}

/* The bytes in front of the first position must be there, or what we are asked for is damaged. */
static int
scan_check_start(struct scan *s)
{
    uint64_t number = s->at / s->log->segment_bytes;
    struct log_segment_info info;

    if (s->at % s->log->segment_bytes == 0 ||
        (scree__segment_from(s->log, number, &info) && info.number == number &&
         info.data_bytes >= s->at % s->log->segment_bytes))
        return 1;
    return scan_corrupt(s, s->at, "the log is to be read from lsn %llu on", s->at);
}

static void *
scan_main(void *arg)
{
    struct scan *s = arg;
    int rc = scan_check_start(s);

    while (rc == 1)
        rc = scan_step(s);
    (void)pthread_mutex_lock(&s->lock);
    s->done = true;
    outcome_set(s, rc);
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- visitors -------------------------------------------------------------------------------- */

struct visitor {
    struct scan *scan;
    unsigned who;
    pthread_t thread;
};

static void
scan_stop(struct scan *s, int code)
{
    (void)pthread_mutex_lock(&s->lock);
    outcome_set(s, code);
    s->stop = true;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

static void *
visitor_main(void *arg)
{
    struct visitor *v = arg;
    struct scan *s = v->scan;
    const struct batch *b;
    int rc = 0;

    while (rc == 0 && (b = batch_receive(s, v->who)) != NULL) {
        if (s->visit != NULL)
            rc = s->visit(s->ctx, v->who, b->record, b->n);
        if (v->who == 0)
            s->result.records += b->n;
        batch_seen(s, v->who);
    }
    if (rc != 0)
        scan_stop(s, rc);
    return NULL;
}

static int
thread_failed(int code)
{
    return scree__fail(-code, "log: cannot start a thread to scan: %s", scree_strerror(-code));
}

static int
scan_run(struct scan *s)
{
    struct visitor visitor[SCREE__LOG_VISITORS_MAX];
    unsigned visitors = 1;
    pthread_t thread;

    s->need = SCAN_BYTES;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->changed, NULL);
    for (unsigned i = 0; i < s->visitors; i++)
        visitor[i] = (struct visitor){.scan = s, .who = i};
    int started = pthread_create(&thread, NULL, scan_main, s), rc = started;

    for (; rc == 0 && visitors < s->visitors; visitors += rc == 0)
        rc = pthread_create(&visitor[visitors].thread, NULL, visitor_main, &visitor[visitors]);
    if (rc != 0)
        scan_stop(s, thread_failed(rc));
    visitor_main(&visitor[0]);
    for (unsigned i = 1; i < visitors; i++)
        (void)pthread_join(visitor[i].thread, NULL);
    if (started == 0)
        (void)pthread_join(thread, NULL);
    for (unsigned i = 0; i < SCAN_BATCHES; i++)
        batch_free(&s->batch[i]);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->lock);
    return s->code == 0 ? 0 : scree__fail(s->code, "%s", s->detail);
}

int
scree__log_scan(struct scree__log *log, uint64_t from, uint64_t known_stable,
                scree__log_visit visit, void *ctx, unsigned visitors,
                struct scree__log_scan_result *result_out)
{
    struct scan s = {.log = log,
                     .at = from == 0 ? log->segment_bytes : from,
                     .to = SCREE__LSN_NONE,
                     .known_stable = known_stable,
                     .clean = log->found_clean,
                     .visit = visit,
                     .ctx = ctx,
                     .visitors = visitors};

    SCREE_ASSERT(visitors >= 1 && visitors <= SCREE__LOG_VISITORS_MAX);
    memset(result_out, 0, sizeof *result_out);
    if (s.at < log->segment_bytes || s.at > SCREE__LSN_MAX || s.at % SCREE__RECORD_ALIGN != 0 ||
        known_stable > SCREE__LSN_MAX)
        return scree__fail(SCREE_E_CORRUPT, "log: lsn %llu (or %llu) is not a position of this log",
                           (unsigned long long)from, (unsigned long long)known_stable);
    int rc = scan_run(&s);

    *result_out = s.result;
    if (rc == 0)
        log->scan_claim = s.claim;
    return rc;
}

int
scree__log_scan_range(struct scree__log *log, uint64_t from, uint64_t to, scree__log_visit visit,
                      void *ctx)
{
    struct scan s = {.log = log,
                     .at = from == 0 ? log->segment_bytes : from,
                     .to = to,
                     .known_stable = to,
                     .visit = visit,
                     .ctx = ctx,
                     .visitors = 1};

    if (s.at < log->segment_bytes || s.at % SCREE__RECORD_ALIGN != 0 || to > SCREE__LSN_MAX)
        return scree__fail(SCREE_E_INVALID, "log: [%llu, %llu) is not a range of this log",
                           (unsigned long long)from, (unsigned long long)to);
    return s.at >= to ? 0 : scan_run(&s);
}

/* ---- the same by pulling, without a thread: for those who follow a running log ----------------- */

struct scree__log_cursor {
    struct scan scan;
    struct batch batch; /* being given out */
    size_t given;       /* of its records */
    bool begun;         /* where it began is a record's start: known, or something verified there */
};

int
scree__log_cursor_open(struct scree__log *log, uint64_t from, bool known,
                       struct scree__log_cursor **cursor_out)
{
    struct scree__log_cursor *c = scree__alloc_zero(sizeof *c);

    *cursor_out = c;
    if (c == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a reader");
    SCREE_ASSERT(from >= log->segment_bytes && from % SCREE__RECORD_ALIGN == 0);
    c->scan = (struct scan){.log = log, .at = from, .need = SCAN_BYTES};
    c->begun = known;
    return 0;
}

void
scree__log_cursor_close(struct scree__log_cursor *c)
{
    if (c == NULL)
        return;
    batch_free(&c->batch);
    scree__free(c, sizeof *c);
}

uint64_t
scree__log_cursor_at(const struct scree__log_cursor *c)
{
    return c->given < c->batch.n ? c->batch.record[c->given].lsn : c->scan.at;
}

/* Read on from scan.at, at most up to `to`. */
static int
cursor_fill(struct scree__log_cursor *c, uint64_t to)
{
    struct scan *s = &c->scan;
    uint64_t first = s->at;
    uint64_t rest = scree__round_up(to, SCREE_BLOCK) - scree__round_down(first, SCREE_BLOCK);

    c->batch.n = c->given = 0;
    s->to = s->known_stable = to;
    if (s->need == SCAN_BYTES && rest < SCAN_BYTES) /* what is longer was found to be needed */
        s->need = (size_t)rest;
    int rc = scan_read(s, &c->batch);

    if (rc < 0) {
        s->at = first; /* nothing of it is given out: it can be tried again */
        s->group.end = 0;
        return rc;
    }
    if (c->batch.n > 0) {
        c->begun = true;
        return 0;
    }
    if (rc == 1 || scan_jump(s) == 1) /* a long record: again, with room for it */
        return 0;
    if (!c->begun)
        return scree__fail(SCREE_E_INVALID,
                           "log: no record begins at lsn %llu, or it is damaged, or the batch in "
                           "which it lies began before",
                           (unsigned long long)first);
    return scan_end(s); /* CORRUPT: it is below `to` */
}

int
scree__log_cursor_look(struct scree__log_cursor *c, uint64_t to, const struct scree__record **r_out)
{
    *r_out = NULL;
    while (c->given == c->batch.n) {
        if (c->scan.at >= to)
            return 1;
        int rc = cursor_fill(c, to);

        if (rc != 0)
            return rc;
    }
    *r_out = &c->batch.record[c->given];
    return 0;
}

void
scree__log_cursor_pass(struct scree__log_cursor *c)
{
    SCREE_ASSERT(c->given < c->batch.n);
    c->given++;
}

uint64_t
scree__log_after_jump(struct scree__log *log, uint64_t lsn)
{
    struct log_segment_info info;

    if (!scree__segment_jump(log, lsn / log->segment_bytes, lsn, &info))
        return lsn;
    return info.number * log->segment_bytes;
}
