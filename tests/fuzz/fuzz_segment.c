/*
 * fuzz_segment.c - segment files as the bytes say: the readers of the log.
 *
 * GOAL    no segment files make the scan, the cursor of the change feed, the survey or the read of one record
 *         crash, hang, take memory beyond what the files have, or hand out a record that was not written.
 * METHOD  the first byte says how: the rest verbatim as the files, or as a list of records, seals, batches,
 *         jumps and headers with chosen fields, from which segments with right checksums are built; then
 *         damage, with checksums set right or not. What was built is kept in a list.
 * ORACLE  of a log with honest fields that was not damaged: exactly the records of the list. Of a damaged one
 *         whose checksums were not set right: what is visited is on the list, at this position and with these
 *         bytes, and in order. Of any: positions grow, records lie in the files, batches are whole, what is
 *         given out can be touched, and the cursor tells what the scan told.
 */
#include "log/log_private.h"
#include "pagecache/pagecache_private.h"
#include "support/mend.h"
#include "support/sim_disk.h"

#include <stdlib.h>
#include <string.h>

#define SEGMENT 65536u
#define SEGMENTS 4u /* that have bytes */
#define LOG_BYTES ((size_t)SEGMENTS * SEGMENT)
#define RECORDS_MAX 512u
#define DIR "/d"

enum how {
    HOW_VERBATIM = 1,
    HOW_MARKED = 2,  /* there is an open mark */
    HOW_MENDED = 4,  /* checksums set right after the damage */
    HOW_DAMAGED = 8, /* what is left of the bytes is damage */
    HOW_WILD = 16    /* fields need not be true */
};

struct bytes {
    const uint8_t *at, *end;
};

struct put {
    uint64_t lsn, hash;
    uint32_t disk_len;
};

/* A log in the making: its segments, one behind the other, as they are numbered. */
struct build {
    unsigned how;
    struct bytes in;
    unsigned char *log; /* LOG_BYTES of bytes behind headers */
    unsigned char header[SEGMENTS][LOG_HEADER_BYTES];
    uint64_t number[SEGMENTS];
    uint32_t segments; /* that are there */
    size_t at;         /* in log */
    uint64_t run_start;
    uint32_t n;
    struct put put[RECORDS_MAX];
};

struct seen {
    const struct build *b;
    uint64_t last, records, hash, batch_end;
    uint32_t next; /* place in the list */
    bool ordered;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define require(x) KIT_CHECK(x, "of %u", judged_how)

static unsigned judged_how; /* of the input; for reports */

static uint64_t
take(struct bytes *in, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)(in->at < in->end ? *in->at++ : 0) << 8 * i;
    return v;
}

/* ---- building ---- */

static uint64_t
lsn_at(const struct build *b, size_t at)
{
    uint64_t number =
        at / SEGMENT < b->segments ? b->number[at / SEGMENT] : b->number[b->segments - 1] + 1;

    return number * SEGMENT + at % SEGMENT;
}

static void
header_put(struct build *b, uint32_t i, uint64_t number, uint64_t prev_end)
{
    unsigned char *h = b->header[i];

    b->number[i] = number;
    memset(h, 0, LOG_HEADER_BYTES);
    memcpy(h, "screeseg", 8);
    scree__put_u32(h + 8, 1);
    scree__put_u64(h + 16, number);
    scree__put_u64(h + 24, SEGMENT);
    scree__put_u64(h + 48, prev_end);
    mend_segment(h, LOG_HEADER_BYTES);
}

/* The segments up to the one that holds byte `end` are there, in the ordinary course. */
static bool
reach(struct build *b, size_t end)
{
    if (end > LOG_BYTES)
        return false;
    for (; (end + SEGMENT - 1) / SEGMENT > b->segments; b->segments++)
        header_put(b, b->segments, b->number[b->segments - 1] + 1,
                   (b->number[b->segments - 1] + 1) * SEGMENT);
    return true;
}

static void
list_add(struct build *b, const unsigned char *at, uint64_t lsn, uint32_t disk_len)
{
    require(b->n < RECORDS_MAX);
    b->put[b->n++] = (struct put){lsn, kit_hash(at, disk_len, 1), disk_len};
}

/* A record with so many bytes of payload; what the bytes say of it. */
static bool
record_put(struct build *b, unsigned kind, unsigned flags, uint64_t page, size_t payload,
           uint64_t version)
{
    bool ext = kind == SCREE__RECORD_CONSOLIDATED || (flags & SCREE__RECORD_IN_BATCH);
    size_t len = (RECORD_HEADER_BYTES + (ext ? 8u : 0u) + payload + 7) / 8 * 8;
    unsigned char *p = b->log + b->at;
    uint64_t lsn = lsn_at(b, b->at), fill;

    if (b->n + 1 >= RECORDS_MAX || !reach(b, b->at + len))
        return false;
    memset(p, 0, len);
    scree__put_u64(p + 8, page);
    scree__put_u32(p + 16, (uint32_t)payload);
    p[20] = (unsigned char)kind;
    p[21] = (unsigned char)flags;
    if (ext)
        scree__put_u64(p + RECORD_HEADER_BYTES, version);
    fill = take(&b->in, 2);
    for (size_t i = 0; i < payload; i++)
        p[RECORD_HEADER_BYTES + (ext ? 8u : 0u) + i] = (unsigned char)(fill >> i % 2 * 8);
    if (b->how & HOW_WILD) {
        uint64_t wild = take(&b->in, 1);

        if (wild & 1) /* any byte of the header but the checksum */
            p[8 + wild / 2 % 24] = (unsigned char)take(&b->in, 1);
    }
    (void)mend_record(p, LOG_BYTES - b->at, lsn);
    list_add(b, p, lsn, (uint32_t)len);
    b->at += len;
    return true;
}

/* A batch of up to four records. */
static void
batch_put(struct build *b)
{
    uint64_t word = take(&b->in, 2);
    uint32_t n = 1 + (uint32_t)(word % 4);
    size_t payload = (size_t)(word >> 8) % 64,
           each = (RECORD_HEADER_BYTES + 8 + payload + 7) / 8 * 8;
    size_t begin = b->at, bytes = BATCH_RECORD_BYTES + n * each;
    uint64_t end;

    if (b->n + n + 1 >= RECORDS_MAX || !reach(b, begin + bytes))
        return;
    end = lsn_at(b, begin) + bytes;
    if (!record_put(b, SCREE__RECORD_BATCH, 0, 0, SCREE__BATCH_BODY_BYTES, 0))
        return;
    scree__put_u64(b->log + begin + RECORD_HEADER_BYTES, bytes);
    scree__put_u64(b->log + begin + RECORD_HEADER_BYTES + 8, n);
    if (b->how & HOW_WILD)
        b->log[begin + RECORD_HEADER_BYTES + take(&b->in, 1) % 16] ^=
            (unsigned char)take(&b->in, 1);
    (void)mend_record(b->log + begin, bytes, lsn_at(b, begin));
    b->n--;
    list_add(b, b->log + begin, lsn_at(b, begin), BATCH_RECORD_BYTES);
    for (uint32_t i = 0; i < n; i++)
        (void)record_put(b, 1 + (unsigned)take(&b->in, 1) % 3, SCREE__RECORD_IN_BATCH, 1 + i,
                         payload, end);
}

/* Up to the next block boundary that leaves room. */
static void
seal_put(struct build *b)
{
    uint64_t lsn = lsn_at(b, b->at), stable = b->run_start;
    size_t end = (b->at + SEAL_BYTES_MIN + SCREE_BLOCK - 1) / SCREE_BLOCK * SCREE_BLOCK;
    unsigned char *p = b->log + b->at;

    if (b->n + 1 >= RECORDS_MAX || !reach(b, end))
        return;
    if (b->how & HOW_WILD && (take(&b->in, 1) & 1))
        stable = take(&b->in, 4);
    memset(p, 0, end - b->at);
    scree__put_u32(p + 16, (uint32_t)(end - b->at - RECORD_HEADER_BYTES));
    p[20] = SCREE__RECORD_SEAL;
    scree__put_u64(p + RECORD_HEADER_BYTES, b->run_start);
    scree__put_u64(p + RECORD_HEADER_BYTES + 8, stable);
    (void)mend_record(p, end - b->at, lsn);
    list_add(b, p, lsn, (uint32_t)(end - b->at));
    b->at = end;
    b->run_start = lsn_at(b, end);
}

/* The log goes on in a later segment. */
static void
jump_put(struct build *b)
{
    uint64_t end = lsn_at(b, b->at), further = 1 + take(&b->in, 1) % 4;

    if (b->segments == SEGMENTS || b->at % SEGMENT == 0)
        return;
    if (b->how & HOW_WILD && (take(&b->in, 1) & 1))
        end += take(&b->in, 2);
    header_put(b, b->segments, b->number[b->segments - 1] + further + 1, end);
    b->at = (size_t)b->segments++ * SEGMENT;
}

static void
build_log(struct build *b)
{
    uint64_t word;

    header_put(b, 0, 1, SEGMENT);
    b->segments = 1;
    b->run_start = SEGMENT;
    for (unsigned i = 0; i < 200 && b->in.at < b->in.end; i++) {
        word = take(&b->in, 1);
        switch (word % 16) {
        case 0:
        case 1:
            seal_put(b);
            break;
        case 2:
            batch_put(b);
            break;
        case 3:
            jump_put(b);
            break;
        case 4:
            (void)record_put(b, SCREE__RECORD_PAD + (unsigned)(word >> 4) % 2, 0, 0,
                             (size_t)take(&b->in, 2) / 8 * 8, 0);
            break;
        case 5: /* a long one */
            (void)record_put(b, SCREE__RECORD_SET, 0, 1 + word / 16, (size_t)take(&b->in, 2) * 2,
                             0);
            break;
        case 6:
            (void)record_put(b, SCREE__RECORD_CONSOLIDATED, 0, 1 + word / 16,
                             1 + (size_t)take(&b->in, 1), lsn_at(b, b->at));
            break;
        case 7:
            (void)record_put(b, SCREE__RECORD_ID_RANGE, 0, take(&b->in, 2), 0, 0);
            break;
        case 8: /* packed, as it says */
            (void)record_put(b, SCREE__RECORD_SET, SCREE__RECORD_COMPRESSED, 1 + word / 16,
                             (size_t)take(&b->in, 1), 0);
            break;
        case 9: /* this section ends here, for what is damage */
            return;
        default:
            (void)record_put(b, 1 + (unsigned)(word >> 4) % 3, 0, 1 + word / 32,
                             (size_t)take(&b->in, 1), 0);
        }
    }
}

/* ---- damage ---- */

static void
damage(struct build *b)
{
    size_t all = (size_t)b->segments * SEGMENT;

    for (unsigned i = 0; i < 16 && b->in.at < b->in.end; i++) {
        uint64_t word = take(&b->in, 4);
        size_t at = (size_t)(word >> 8) % (b->at + 1);
        struct put *p = b->n > 0 ? &b->put[(word >> 8) % b->n] : NULL;

        switch (word % 8) {
        case 0:
            memset(b->log + at, 0, all - at < 64 ? all - at : 64);
            break;
        case 1:
            b->header[word / 8 % b->segments][16 + word / 64 % 48] ^=
                (unsigned char)(word >> 16 | 1);
            break;
        case 2:
        case 3:
            if (p != NULL) { /* of a record: the header, most likely */
                for (at = 0; at < b->at && lsn_at(b, at) != p->lsn;)
                    at += 8;
                b->log[at + word / 8 % 32] ^= (unsigned char)(1u << word % 8 | take(&b->in, 1));
            }
            break;
        default:
            if (at < all)
                b->log[at] ^= (unsigned char)(1 + take(&b->in, 1));
        }
    }
    for (uint32_t i = 0; (b->how & HOW_MENDED) && i < b->segments; i++)
        mend_segment(b->header[i], LOG_HEADER_BYTES);
    for (size_t at = 0, i = 0; (b->how & HOW_MENDED) && at < b->at && i < b->n; at += 8)
        if (lsn_at(b, at) == b->put[i].lsn) {
            (void)mend_record(b->log + at, all - at, b->put[i].lsn);
            i++;
        }
}

/* ---- reading ---- */

/* What a reader is given. */
static int
seen_visit(void *ctx, unsigned who, const struct scree__record *r, size_t n)
{
    struct seen *s = ctx;
    bool judged = !(s->b->how & (HOW_VERBATIM | HOW_MENDED | HOW_WILD));

    (void)who;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *payload = r[i].payload;
        uint32_t raw;

        require(r[i].lsn >= s->last && r[i].lsn % 8 == 0 && r[i].disk_len >= RECORD_HEADER_BYTES);
        require(r[i].kind >= SCREE__RECORD_ALLOCATE && r[i].kind <= SCREE__RECORD_SEAL);
        require(r[i].payload_len + RECORD_HEADER_BYTES <= r[i].disk_len);
        s->last = r[i].lsn + r[i].disk_len;
        s->records++;
        s->hash = kit_hash(&r[i].lsn, 8, s->hash) ^ kit_hash(payload, r[i].payload_len, r[i].kind);
        if (scree__record_raw_len(&r[i], &raw) == 0 && raw < (1u << 20)) {
            void *out = malloc(raw + 1);

            require(out != NULL);
            (void)scree__record_unpack(&r[i], out, raw);
            free(out);
        }
        while (judged && s->next < s->b->n && s->b->put[s->next].lsn != r[i].lsn)
            s->next++;
        require(!judged || s->next < s->b->n);
        require(!judged || s->b->put[s->next].disk_len == r[i].disk_len);
        if (s->ordered && (r[i].flags & SCREE__RECORD_IN_BATCH))
            require(r[i].version >= s->last);
    }
    return 0;
}

static int
on_trouble(void *ctx, const struct scree__log_trouble *t)
{
    (void)ctx;
    require(t->end == 0 || t->end >= t->lsn);
    return 0;
}

/* The change feed's way, up to where the scan came. */
static void
read_cursor(struct scree__log *log, const struct build *b, uint64_t end, const struct seen *scanned)
{
    struct seen s = {.b = b, .hash = 1, .ordered = true};
    struct scree__log_cursor *c;
    const struct scree__record *r;
    int rc;

    require(scree__log_cursor_open(log, SEGMENT, true, &c) == 0);
    while ((rc = scree__log_cursor_look(c, end, &r)) == 0) {
        (void)seen_visit(&s, 0, r, 1);
        require(s.last <= end);
        scree__log_cursor_pass(c);
    }
    require(rc == 1 && s.records == scanned->records && s.hash == scanned->hash);
    scree__log_cursor_close(c);
}

static void
read_singly(struct scree__log *log, const struct build *b)
{
    for (uint32_t i = 0; i < b->n && i < 8; i++) {
        const struct put *p = &b->put[i];
        struct scree__log_read reads[2] = {
            {.page = 1 + i % 4, .lsn = p->lsn, .disk_len = p->disk_len},
            {.page = 1 + i % 4, .lsn = p->lsn + 8, .disk_len = p->disk_len}};

        (void)scree__log_read(log, reads, 2);
        require(reads[1].result != 0 || (b->how & (HOW_VERBATIM | HOW_MENDED | HOW_WILD)));
        scree__log_read_done(reads, 2);
    }
}

static void
read_all(struct scree__log *log, const struct build *b, uint64_t stable)
{
    struct scree__log_scan_result found, survey;
    struct seen s = {.b = b, .hash = 1, .ordered = true}, all = {.b = b, .hash = 1};
    int rc = scree__log_scan(log, 0, stable, seen_visit, &s, 1, &found);

    require(rc == 0 || rc == SCREE_E_CORRUPT);
    require(rc != 0 || found.end >= stable);
    if (!(b->how & (HOW_VERBATIM | HOW_MENDED | HOW_WILD | HOW_DAMAGED)) && (b->how & HOW_MARKED)) {
        require(rc == 0 && s.records == b->n);
        require(found.end == lsn_at(b, b->at));
    }
    if (rc == 0)
        read_cursor(log, b, found.end, &s);
    rc = scree__log_survey(log, SEGMENT, stable, false, seen_visit, on_trouble, &all, &survey);
    require(rc == 0 || rc == SCREE_E_CORRUPT);
    require(all.records >= s.records);
    require(scree__log_survey_files(log, survey.end, on_trouble, NULL) == 0);
    read_singly(log, b);
}

/* ---- one input ---- */

static struct sim_image *
image_make(const struct build *b)
{
    struct sim_image *image = sim_image_new();
    static unsigned char file[LOG_HEADER_BYTES + SEGMENT];
    unsigned char mark[40] = "markopen\1";

    sim_image_mkdir(image, DIR);
    for (uint32_t i = 0; i < b->segments; i++) {
        char path[64];
        size_t n = SEGMENT;

        (void)snprintf(path, sizeof(path), DIR "/segment-%016llx",
                       (unsigned long long)b->number[i]);
        memcpy(file, b->header[i], LOG_HEADER_BYTES);
        memcpy(file + LOG_HEADER_BYTES, b->log + (size_t)i * SEGMENT, SEGMENT);
        if (i + 1 == b->segments && b->at % SEGMENT != 0)
            n = (b->at % SEGMENT + SCREE_BLOCK - 1) / SCREE_BLOCK * SCREE_BLOCK;
        sim_image_add(image, path, file, LOG_HEADER_BYTES + n);
    }
    scree__put_u64(mark + 16, SEGMENT);
    scree__put_u64(mark + 24, SEGMENT);
    mend_mark(mark, sizeof(mark));
    if (b->how & HOW_MARKED)
        sim_image_add(image, DIR "/OPEN", mark, sizeof(mark));
    return image;
}

/* The bytes as they are, behind a header that is right. */
static void
verbatim(struct build *b)
{
    size_t n = (size_t)(b->in.end - b->in.at);

    n = n < LOG_BYTES ? n : LOG_BYTES;
    header_put(b, 0, 1, SEGMENT);
    b->segments = 1;
    require(reach(b, n));
    memcpy(b->log, b->in.at, n);
    b->at = n;
    for (size_t at = 0;
         (b->how & HOW_MENDED) && at < n && mend_record(b->log + at, n - at, lsn_at(b, at));)
        at += (RECORD_HEADER_BYTES + (scree__get_u32(b->log + at + 16) & 0xFFFFFF) + 7) / 8 * 8;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct build b;
    struct scree__log_options options = {.dir = DIR,
                                         .segment_bytes = SEGMENT,
                                         .ring_bytes = 65536,
                                         .read_only = true,
                                         .io_mode = SCREE_IO_BUFFERED};
    struct scree__log *log;
    struct sim_image *image;
    struct sim_disk *disk;
    uint64_t stable;

    if (len < 3 || len > 65536)
        return 0;
    memset(&b, 0, sizeof(b));
    b.how = judged_how = data[0];
    kit_on_failure = abort;
    b.in = (struct bytes){data + 2, data + len};
    b.log = calloc(1, LOG_BYTES);
    require(b.log != NULL);
    if (b.how & HOW_VERBATIM)
        verbatim(&b);
    else
        build_log(&b);
    if (!(b.how & HOW_VERBATIM) && (b.how & HOW_DAMAGED))
        damage(&b);
    stable = data[1] < 128 || b.n == 0 ? 0 : b.put[data[1] % b.n].lsn;
    image = image_make(&b);
    disk = sim_disk_new(image, 1);
    sim_disk_record(disk, false);
    options.env = sim_disk_env(disk);
    options.survey = data[1] & 1;
    if (scree__log_create(&options, &log) == 0) {
        read_all(log, &b, stable);
        scree__log_destroy(log);
    }
    sim_disk_free(disk);
    sim_image_free(image);
    free(b.log);
    return 0;
}
