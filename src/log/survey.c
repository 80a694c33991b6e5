/*
 * survey.c - walk a log that may be damaged: all that verifies is visited, all that does not is told.
 *
 * STEPS  S1  scan (scan.c) as far as records verify; where it says CORRUPT, at E:
 *        S2  if what lies at E was a seal, as its header or its footer proves, no page's record is lost: go
 *            on behind it
 *        S3  else look at every multiple of 8 behind E for a record whose checksum is right (its lsn is part
 *            of it, so bytes left over, or copied, from elsewhere never verify) and tell the stretch between
 *        S4  records of a batch that is not whole are visited one by one, as nothing vouches for the batch;
 *            any other record: S1 from there
 *        A jump's link is in the header of its segment. If that is what is damaged, the log seems to end in
 *        front of it, with nothing but zeros up to the file's end: S1 from the next segment, nothing lost.
 * INVARIANTS
 *   I1 every step goes forward, but for one more scan from where there seems to be nothing more.
 *   I2 looking for a record hashes at most HASH_BYTES_EACH bytes for each byte passed, and HASH_BYTES_FREE
 *      once: hostile lengths do not make it slow. Memory: one record whose last byte is on disk.
 *   I3 nothing is believed but a checksum; a stretch is as long as nothing in it verifies.
 * FAILURE  what cannot be read (-EIO) counts as zeros here, and so as damaged. Other errors end it.
 * NOT HERE what pages are provable (pagecache/survey.c).   REFS  docs/log_format.md.
 */
#include "log/log_private.h"

#include <errno.h>
#include <stdio.h>

#ifdef SCREE_SMALL_BUFFERS /* as in scan.c */
#define WINDOW_BYTES 16384u
#else
#define WINDOW_BYTES (1024u * 1024u)
#endif
#define HASH_BYTES_FREE RECORD_BYTES_MAX
#define HASH_BYTES_EACH 64u

/* Bytes of the log around a position; what is not there is not in it. */
struct window {
    uint8_t *buffer;
    size_t cap, got;
    uint64_t lsn;
};

struct survey {
    struct scree__log *log;
    struct window window;
    scree__log_visit visit;
    scree__log_trouble_fn trouble;
    void *ctx;
    uint64_t at;           /* behind what was visited last */
    uint64_t alone_until;  /* records are taken one by one up to here */
    uint64_t judged;       /* where the last scan ended: whether that is an end it has said */
    uint64_t budget;       /* I2 */
    uint64_t known_stable; /* as the caller knows */
    uint64_t from;         /* where it began, which may be inside a record */
    bool unknown_start;
    bool told;    /* of anything since the last scan */
    int code;     /* of visit or trouble */
    int why_code; /* of the last scan: CORRUPT, -EIO */
    char why[256];
    struct scree__log_scan_result *result;
};

/* ---- bytes ------------------------------------------------------------------------------------- */

/* Blocks that cannot be read are zeros; len and lsn are whole blocks. */
static int
window_read(struct survey *s, uint64_t lsn, size_t len)
{
    struct window *w = &s->window;
    size_t got = 0;
    int rc = scree__segment_read_span(s->log, lsn, w->buffer, len, &got);

    w->lsn = lsn;
    w->got = got;
    if (rc != -EIO)
        return rc;
    for (size_t done = 0; done < len; done += SCREE_BLOCK) {
        rc = scree__segment_read_span(s->log, lsn + done, w->buffer + done, SCREE_BLOCK, &got);
        if (rc == -EIO) {
            memset(w->buffer + done, 0, SCREE_BLOCK);
            got = SCREE_BLOCK;
        } else if (rc != 0) {
            return rc;
        }
        w->got = done + got;
        if (got < SCREE_BLOCK)
            break;
    }
    return 0;
}

/* *at_out: the bytes at lsn, *avail_out of them: len or more if they are there. */
static int
window_at(struct survey *s, uint64_t lsn, size_t len, const uint8_t **at_out, uint64_t *avail_out)
{
    struct window *w = &s->window;
    uint64_t base = scree__round_down(lsn, SCREE_BLOCK);
    int rc = 0;

    if (lsn < w->lsn || lsn + len > w->lsn + w->got) {
        size_t need = (size_t)scree__round_up(lsn + len - base, SCREE_BLOCK);

        need = need < WINDOW_BYTES ? WINDOW_BYTES : need;
        if (need > w->cap) {
            scree__free(w->buffer, w->cap);
            w->cap = w->got = 0;
            w->buffer = scree__alloc_aligned(SCREE_BLOCK, need);
            if (w->buffer == NULL)
                return scree__fail(SCREE_E_NO_MEMORY, "log: no memory to read %zu bytes", need);
            w->cap = need;
        }
        rc = window_read(s, base, need);
    }
    *avail_out = w->lsn + w->got > lsn ? w->lsn + w->got - lsn : 0;
    *at_out = w->buffer + (lsn - w->lsn);
    return rc;
}

/* All of [lsn, end) is in the files. */
static bool
is_there(struct scree__log *log, uint64_t lsn, uint64_t end)
{
    struct log_segment_info info;

    for (uint64_t at = lsn; at < end;) {
        uint64_t number = at / log->segment_bytes, start = number * log->segment_bytes;

        if (!scree__segment_from(log, number, &info) || info.number != number)
            return false;
        at = start + log->segment_bytes;
        if (start + info.data_bytes < (at < end ? at : end))
            return false;
    }
    return true;
}

/* 1: a record is at lsn, 0: none. */
static int
decode_at(struct survey *s, uint64_t lsn, bool searching, struct scree__record *r)
{
    const uint8_t *at;
    uint64_t avail;
    int rc = window_at(s, lsn, RECORD_HEADER_BYTES, &at, &avail);

    if (rc != 0 || avail < RECORD_HEADER_BYTES)
        return rc;
    enum log_decode d = scree__record_decode(at, RECORD_HEADER_BYTES, lsn, r);

    if (d != LOG_DECODE_SHORT)
        return d == LOG_DECODE_OK;
    if ((searching && r->disk_len > s->budget) || !is_there(s->log, lsn, lsn + r->disk_len))
        return 0; /* I2 */
    s->budget -= searching ? r->disk_len : 0;
    rc = window_at(s, lsn, r->disk_len, &at, &avail);
    if (rc != 0 || avail < r->disk_len)
        return rc;
    return scree__record_decode(at, avail, lsn, r) == LOG_DECODE_OK;
}

/* ---- S3 ---------------------------------------------------------------------------------------- */

/* No record has a header like this one. */
static bool
is_hopeless(const uint8_t *header)
{
    return header[20] == 0 || header[20] > SCREE__RECORD_SEAL || header[22] != 0 || header[23] != 0;
}

/* In one segment, from `from` up to `end`. 1: *lsn_out. */
static int
find_in_segment(struct survey *s, uint64_t from, uint64_t end, uint64_t *lsn_out)
{
    struct scree__record r;
    const uint8_t *at = NULL;
    uint64_t avail = 0;
    int rc;

    for (uint64_t lsn = from; lsn < end; lsn += SCREE__RECORD_ALIGN) {
        if (avail < RECORD_HEADER_BYTES) {
            rc = window_at(s, lsn, RECORD_HEADER_BYTES, &at, &avail);
            if (rc != 0)
                return rc;
            if (avail < RECORD_HEADER_BYTES)
                return 0;
        }
        s->budget += (uint64_t)HASH_BYTES_EACH * SCREE__RECORD_ALIGN;
        if (!is_hopeless(at)) {
            rc = decode_at(s, lsn, true, &r);
            *lsn_out = lsn;
            if (rc != 0)
                return rc;
            avail = SCREE__RECORD_ALIGN; /* the window may have moved */
        }
        at += SCREE__RECORD_ALIGN;
        avail -= SCREE__RECORD_ALIGN;
    }
    return 0;
}

/* The next record at or behind `from`. 1: *lsn_out; 0: there is none. */
static int
find_record(struct survey *s, uint64_t from, uint64_t *lsn_out)
{
    struct log_segment_info info;
    int rc = 0;

    for (uint64_t n = from / s->log->segment_bytes;
         rc == 0 && scree__segment_from(s->log, n, &info); n = info.number + 1) {
        uint64_t start = info.number * s->log->segment_bytes;

        rc = find_in_segment(s, start > from ? start : from, start + info.data_bytes, lsn_out);
    }
    return rc;
}

/* Only zeros in [from, end), as far as there are bytes. 1, 0 or an error. */
static int
is_zero(struct survey *s, uint64_t from, uint64_t end)
{
    while (from < end) {
        const uint8_t *at;
        uint64_t avail, n;
        int rc = window_at(s, from, 1, &at, &avail);

        if (rc != 0)
            return rc;
        n = avail < end - from ? avail : end - from;
        for (uint64_t i = 0; i < n; i++)
            if (at[i] != 0)
                return 0;
        if (n == 0)
            return 1;
        from += n;
    }
    return 1;
}

/* Of a file that is not there, at its begin: was it jumped over, so that nothing ever lay in it? *next_out:
   the begin of the next one that is there. */
static bool
is_jumped_over(struct survey *s, uint64_t at, uint64_t end, uint64_t *next_out)
{
    struct log_segment_info info;

    *next_out = end;
    if (!scree__segment_from(s->log, at / s->log->segment_bytes, &info))
        return false;
    *next_out = info.number * s->log->segment_bytes;
#ifdef SCREE_BUG_HOLE_TRUSTED
    return false; /* seeded: as below */
#endif
    return info.header_ok && info.prev_end <= at;
}

/* Where in [begin, end) the first file begins that is not there but was, or the first granule without a byte
   that is not 0. 1, 0: there is none, or an error. */
static int
hole_begin(struct survey *s, uint64_t begin, uint64_t end, uint64_t *hole_out)
{
    uint64_t segment = s->log->segment_bytes;
    struct log_segment_info info;
    int rc = 0;

    for (uint64_t at = begin; rc == 0 && at < end;) {
        uint64_t start = at / segment * segment;
        uint64_t next =
            start + scree__round_up(at - start + 1, SCREE__GRANULE_BYTES); /* granule's end */

        *hole_out = at;
        next = next < start + segment ? next : start + segment;
        if (!scree__segment_from(s->log, at / segment, &info) || info.number != at / segment)
            rc = !is_jumped_over(s, at, end, &next);
        else if ((at - start) % SCREE__GRANULE_BYTES == 0 && next <= end)
            rc = is_zero(s, at, next);
        at = next;
    }
    return rc;
}

/* Was what cannot be read given back? There is a hole, and what lies before it is at most one record: one that
   says of itself, though nothing proves it, that it reaches into the hole. Else other records may be lost
   beside those that had died. */
static int
has_hole(struct survey *s, uint64_t begin, uint64_t end)
{
    struct scree__record r;
    const uint8_t *at;
    uint64_t hole = begin, avail;
    int rc = hole_begin(s, begin, end, &hole);

    if (rc != 1 || hole == begin)
        return rc;
#ifdef SCREE_BUG_HOLE_TRUSTED
    return 1; /* seeded: damage before a hole is taken for a part of it; test_verify must fail */
#endif
    rc = window_at(s, begin, RECORD_HEADER_BYTES, &at, &avail);
    if (rc != 0)
        return rc;
    return avail >= RECORD_HEADER_BYTES &&
           scree__record_decode(at, RECORD_HEADER_BYTES, begin, &r) == LOG_DECODE_SHORT &&
           begin + r.disk_len > hole;
}

/* The segment at `next` was jumped to from `end`, even if its header does not say so any more. */
static int
is_jump(struct survey *s, uint64_t end, uint64_t next)
{
    uint64_t segment = s->log->segment_bytes;
    struct log_segment_info info, between;

    if (next % segment != 0 || !scree__segment_from(s->log, next / segment, &info) ||
        info.number != next / segment)
        return 0;
    if (info.header_ok)
        return info.prev_end == end && end < next;
    if (end % segment == 0 || info.number < end / segment + 2 ||
        !scree__segment_from(s->log, end / segment + 1, &between) || between.number != info.number)
        return 0;
    return is_zero(s, end, (end / segment + 1) * segment);
}

/* The page that the header of a record from begin to end names: nothing proves it, but it is worth telling. 0:
   none. */
static int
header_page(struct survey *s, uint64_t begin, uint64_t end, uint64_t *page_out)
{
    struct scree__record r;
    const uint8_t *at;
    uint64_t avail;
    int rc = window_at(s, begin, RECORD_HEADER_BYTES, &at, &avail);

    *page_out = 0;
    if (rc == 0 && avail >= RECORD_HEADER_BYTES &&
        scree__record_decode(at, RECORD_HEADER_BYTES, begin, &r) != LOG_DECODE_HEADER &&
        r.kind <= SCREE__RECORD_FREE && r.disk_len == end - begin)
        *page_out = r.page;
    return rc;
}

static int
tell(struct survey *s, uint64_t begin, uint64_t end, bool harmless, bool hole)
{
    struct log_segment_info info;
    char name[LOG_NAME_BYTES], text[512], found[96];
    uint64_t page, offset, number = begin / s->log->segment_bytes;
    bool there = scree__segment_from(s->log, number, &info) && info.number == number;
    struct scree__log_trouble t = {.file = name,
                                   .lsn = begin,
                                   .end = end,
                                   .harmless = harmless,
                                   .hole = hole,
                                   .code = s->why_code,
                                   .text = text,
                                   .expected = harmless ? "a seal" : "a record",
                                   .found = "bytes that fail their checksum"};

    int rc = header_page(s, begin, end, &page);

    if (rc != 0)
        return rc;
    scree__log_locate(s->log, begin, name, sizeof name, &offset);
    t.offset = offset;
    (void)snprintf(
        found, sizeof found,
        "bytes that fail their checksum; if their header is right, a record of page %llu",
        (unsigned long long)page);
    if (page != 0)
        t.found = found;
    if (!there)
        t.found = "no file";
    else if (info.data_bytes <= begin % s->log->segment_bytes)
        t.found = "the end of the file";
    (void)snprintf(text, sizeof text, "%llu bytes of the log, up to lsn %llu, %s (%s)",
                   (unsigned long long)(end - begin), (unsigned long long)end,
                   harmless ? "were a seal, which is damaged" : "cannot be read", s->why);
    s->told = true;
    s->code = s->trouble(s->ctx, &t);
    return s->code;
}

/* A read failed for the scan, and when all of it was read anew it did not: nothing is lost, but the medium is
   ill. */
static int
tell_passing(struct survey *s, uint64_t lsn)
{
    char name[LOG_NAME_BYTES], text[512];
    struct scree__log_trouble t = {.file = name,
                                   .lsn = lsn,
                                   .end = lsn,
                                   .harmless = true,
                                   .code = s->why_code,
                                   .text = text,
                                   .expected = "bytes that can be read",
                                   .found = "a read that failed once"};

    scree__log_locate(s->log, lsn, name, sizeof name, &t.offset);
    (void)snprintf(text, sizeof text, "a read failed, and did not when it was tried again (%s)",
                   s->why);
    s->code = s->trouble(s->ctx, &t);
    return s->code;
}

/* ---- S2 to S4 ---------------------------------------------------------------------------------- */

/* No record at s->at. 1: go on at s->at; 0: nothing more. */
static int
pass_damage(struct survey *s)
{
    uint64_t begin = s->at, next = 0, end, avail;
    const uint8_t *at;
    int rc = window_at(s, begin, SCREE_BLOCK + SEAL_BYTES_MIN, &at, &avail), found, hole;

    if (rc != 0)
        return rc;
    if (scree__seal_trace(at, avail, begin, &end)) {
        s->at = end;
        rc = tell(s, begin, end, true, false);
        return rc != 0 ? rc : 1;
    }
    found = find_record(s, begin + SCREE__RECORD_ALIGN, &next);
    if (found < 0)
        return found;
    if (found == 0 && begin > s->judged) { /* as it seems, the end: that is for the scan to say */
        s->alone_until = begin;
        return 1;
    }
    end = found != 0 ? next : scree__log_last_byte(s->log);
    end = end > begin ? end : begin;
    s->at = found != 0 ? next : begin;
    rc = found != 0 ? is_jump(s, begin, next) : 0;
    if (rc != 0)
        return rc;
    hole = has_hole(s, begin, end);
    if (hole < 0)
        return hole;
    rc = tell(s, begin, end, false, hole != 0 || (s->unknown_start && begin == s->from));
    return rc != 0 ? rc : found;
}

/* Behind an end of the scan that is none. 1: scan on from s->at; 0: nothing more. */
static int
walk_alone(struct survey *s)
{
    for (;;) {
        struct scree__record r;
        int rc = decode_at(s, s->at, false, &r);

        if (rc == 0)
            rc = pass_damage(s);
        else if (rc == 1 && r.kind != SCREE__RECORD_BATCH &&
                 (r.flags & SCREE__RECORD_IN_BATCH) == 0 && s->at >= s->alone_until)
            return 1;
        else if (rc == 1) {
            s->at += r.disk_len;
            s->result->records++;
            s->code = s->visit(s->ctx, 0, &r, 1);
            rc = s->code != 0 ? s->code : 2;
        }
        if (rc != 2 && (rc != 1 || s->at >= s->alone_until))
            return rc;
    }
}

static int
survey_visit(void *ctx, unsigned who, const struct scree__record *r, size_t n)
{
    struct survey *s = ctx;

    s->at = r[n - 1].lsn + r[n - 1].disk_len;
    s->code = s->visit(s->ctx, who, r, n);
    if (s->code != 0)
        (void)snprintf(s->why, sizeof s->why, "%s", scree_error_detail());
    return s->code;
}

static int
survey_run(struct survey *s)
{
    for (;;) {
        struct scree__log_scan_result found;
        uint64_t from = s->at;
        bool unread;
        int rc = scree__log_scan(s->log, from, s->known_stable, survey_visit, s, 1, &found);

        s->result->records += found.records;
        s->result->end = found.end > s->at ? found.end : s->at;
        s->result->torn_bytes = found.torn_bytes;
        s->result->batches_discarded = found.batches_discarded;
        if (s->code != 0) /* the scan may have come upon damage before that, and says so */
            return rc == s->code ? rc : scree__fail(s->code, "%s", s->why);
        if (rc != SCREE_E_CORRUPT && rc != -EIO)
            return rc;
        /* A batch that is not whole: its records were not visited, nor any behind `end`. */
        s->at = found.end != 0 ? found.end : s->at;
        s->judged = s->at;
        s->alone_until = rc == -EIO ? s->at + 2 * WINDOW_BYTES : s->at; /* I1 */
        (void)snprintf(s->why, sizeof s->why, "%s", scree_error_detail());
        s->why_code = rc;
        scree__fail_clear();
        unread = rc == -EIO;
        s->told = false;
        rc = walk_alone(s);
        if (rc >= 0 && unread && !s->told && tell_passing(s, s->judged) != 0)
            return s->code;
        if (rc != 1) {
            s->result->end = s->at;
            return rc;
        }
    }
}

int
scree__log_survey(struct scree__log *log, uint64_t from, uint64_t known_stable, bool unknown_start,
                  scree__log_visit visit, scree__log_trouble_fn trouble, void *ctx,
                  struct scree__log_scan_result *result_out)
{
    struct survey s = {.log = log,
                       .visit = visit,
                       .trouble = trouble,
                       .ctx = ctx,
                       .at = scree__round_up(from, SCREE__RECORD_ALIGN),
                       .from = scree__round_up(from, SCREE__RECORD_ALIGN),
                       .budget = HASH_BYTES_FREE,
                       .known_stable = known_stable,
                       .unknown_start = unknown_start,
                       .result = result_out};

    memset(result_out, 0, sizeof *result_out);
    if (s.at < log->segment_bytes)
        s.at = s.from = log->segment_bytes;
    if (s.at > SCREE__LSN_MAX || known_stable > SCREE__LSN_MAX)
        return scree__fail(SCREE_E_CORRUPT, "log: lsn %llu (or %llu) is not a position of this log",
                           (unsigned long long)from, (unsigned long long)known_stable);
    int rc = survey_run(&s);

    scree__free(s.window.buffer, s.window.cap);
    return rc;
}

/* ---- the files --------------------------------------------------------------------------------- */

/* What is wrong with a header: its offset, or LOG_HEADER_BYTES if nothing is; -EIO: a read of it failed, now or
   when the log was opened. */
static int
header_look(struct scree__log *log, uint64_t number, bool header_ok, uint64_t *offset_out,
            int *code_out)
{
    uint8_t *block = scree__alloc_aligned(SCREE_BLOCK, LOG_HEADER_BYTES);
    struct log_segment *seg;
    uint8_t uuid[16];
    uint64_t segment_bytes;
    size_t got = 0;
    int rc;

    *offset_out = 0;
    if (block == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "log: no memory for a block");
    rc = scree__segment_pin(log, number, &seg);
    if (rc == 0) {
        rc = scree__env_read_all(log->env, seg->file, block, LOG_HEADER_BYTES, 0, &got);
        scree__segment_unpin(log, seg);
    }
    *code_out = rc == -EIO ? -EIO : SCREE_E_CORRUPT;
    if (rc == 0 && header_ok) {
        *offset_out = 64; /* what is used of it verified */
        while (*offset_out < got && block[*offset_out] == 0)
            ++*offset_out;
        if (*offset_out == got)
            *offset_out = LOG_HEADER_BYTES;
    } else if (rc == 0 && scree__segment_header_identity(block, got, uuid, &segment_bytes)) {
        *code_out = -EIO; /* it verifies after all */
    }
    scree__free(block, LOG_HEADER_BYTES);
    return rc == -EIO ? 0 : rc;
}

static int
header_check(struct scree__log *log, const struct log_segment_info *info,
             scree__log_trouble_fn trouble, void *ctx)
{
    char name[LOG_NAME_BYTES];
    struct scree__log_trouble t = {.file = name};
    int rc = header_look(log, info->number, info->header_ok, &t.offset, &t.code);

    if (rc != 0 || t.offset == LOG_HEADER_BYTES)
        return rc;
    scree__segment_name(info->number, name);
    t.lsn = info->number * log->segment_bytes;
    if (t.code == -EIO) {
        t.text = "a read of this segment's header failed; its records are judged by themselves";
        t.expected = "a header that can be read";
        t.found = "a read that failed";
    } else {
        t.text = "the header of this segment is damaged; its records are judged by themselves";
        t.expected = info->header_ok ? "zeros up to offset 4096" : "a header with a right checksum";
        t.found = info->header_ok ? "a byte that is not 0" : "one that does not verify";
    }
    return trouble(ctx, &t);
}

static int
strangers_tell(struct scree__log *log, scree__log_trouble_fn trouble, void *ctx)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < log->strangers && i < LOG_STRANGERS; i++) {
        char name[LOG_NAME_BYTES];

        scree__segment_name(log->stranger[i], name);
        rc = trouble(ctx, &(struct scree__log_trouble){
                              .file = name,
                              .code = SCREE_E_CORRUPT,
                              .lsn = log->stranger[i] * log->segment_bytes,
                              .text = "this file is another directory's or another segment's, and "
                                      "counts as missing",
                              .expected = "the header of this segment of this directory",
                              .found = "a header that verifies and says otherwise"});
    }
    return rc;
}

int
scree__log_survey_files(struct scree__log *log, uint64_t end, scree__log_trouble_fn trouble,
                        void *ctx)
{
    struct log_segment_info info;
    int rc = strangers_tell(log, trouble, ctx);

    if (rc == 0 && log->found_mark_bad)
        rc = trouble(ctx, &(struct scree__log_trouble){
                              .file = LOG_MARK_NAME,
                              .code = SCREE_E_CORRUPT,
                              .text = "the open mark is damaged; it counts as one with the largest "
                                      "values, and nothing is lost",
                              .expected = "40 bytes with a right checksum",
                              .found = "a mark that does not verify"});
    for (uint64_t n = 0; rc == 0 && scree__segment_from(log, n, &info); n = info.number + 1) {
        /* The header of one that the log has not reached may be younger than the last sync. */
        if (info.number * log->segment_bytes < end || log->found_clean || info.header_ok)
            rc = header_check(log, &info, trouble, ctx);
    }
    return rc;
}

bool
scree__log_name_parse(const char *name, uint64_t *number_out)
{
    *number_out = 0;
    if (strcmp(name, LOG_MARK_NAME) == 0 || strcmp(name, LOG_MARK_NAME ".tmp") == 0)
        return true;
    return scree__segment_name_parse(name, number_out);
}

uint64_t
scree__log_last_byte(struct scree__log *log)
{
    struct log_segment_info info;

    return scree__segment_last(log, &info) ? info.number * log->segment_bytes + info.data_bytes : 0;
}

/* What the headers of a log's segments say of it. */
struct identify {
    const scree_env *env;
    const char *dir;
    const uint8_t *of; /* only those with this uuid count; NULL: the first that says one does */
    uint64_t expected; /* of: segment_bytes that one of them should have */
    uint8_t *uuid;
    uint64_t *segment_bytes;
    int code; /* of the last file that could not be read */
};

/* 1: no more is needed. */
static int
identify_take(struct identify *i, const uint8_t *at, size_t len)
{
    uint8_t uuid[16];
    uint64_t bytes;

    if (!scree__segment_header_identity(at, len, uuid, &bytes) ||
        (i->of != NULL && memcmp(uuid, i->of, sizeof uuid) != 0))
        return 0;
    memcpy(i->uuid, uuid, sizeof uuid);
    *i->segment_bytes = bytes;
    return i->of == NULL || bytes == i->expected;
}

static int
identify_visit(void *ctx, const char *name)
{
    struct identify *i = ctx;
    uint8_t at[LOG_HEADER_BYTES];
    uint64_t number;
    size_t got = 0;
    int rc;

    if (!scree__segment_name_parse(name, &number))
        return 0;
    char *path = scree__path_join(i->dir, name);
    int file = path == NULL ? SCREE_E_NO_MEMORY : i->env->open(i->env->ctx, path, SCREE_ENV_READ);

    scree__path_free(path);
    i->code = file < 0 ? file : i->code;
    if (file < 0)
        return file == SCREE_E_NO_MEMORY ? file : 0;
    rc = scree__env_read_all(i->env, file, at, sizeof at, 0, &got);
    i->code = rc != 0 ? rc : i->code;
    got = rc != 0 ? 0 : got;
    (void)i->env->close(i->env->ctx, file); /* only read */
    return got == sizeof at ? identify_take(i, at, got) : 0;
}

static int
identify(struct identify *i)
{
    int rc = i->env->list(i->env->ctx, i->dir, identify_visit, i);

    if (rc < 0)
        return scree__fail(rc, "%s: cannot list the directory: %s", i->dir, scree_strerror(rc));
    return rc;
}

int
scree__log_identify(const scree_env *env, const char *dir, uint8_t uuid_out[16],
                    uint64_t *segment_bytes_out)
{
    struct identify i = {
        .env = env, .dir = dir, .uuid = uuid_out, .segment_bytes = segment_bytes_out};
    int rc = identify(&i);

    if (rc == 0 && i.code != 0)
        return scree__fail(i.code, "%s: no segment of a log can be read: %s", dir,
                           scree_strerror(i.code));
    if (rc == 0)
        return scree__fail(-ENOENT, "%s: no segment of a log says whose it is", dir);
    return rc == 1 ? 0 : rc;
}

int
scree__log_segment_bytes(const scree_env *env, const char *dir, const uint8_t uuid[16],
                         uint64_t expected, uint64_t *found_out)
{
    uint8_t same[16];
    struct identify i = {.env = env,
                         .dir = dir,
                         .of = uuid,
                         .expected = expected,
                         .uuid = same,
                         .segment_bytes = found_out};
    int rc;

    *found_out = expected;
    rc = identify(&i);
    if (rc >= 0 && i.code != 0)
        return scree__fail(i.code, "%s: the header of a segment cannot be read: %s", dir,
                           scree_strerror(i.code));
    return rc < 0 ? rc : 0;
}
