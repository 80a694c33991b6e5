/*
 * test_log_hostile.c - files of a log whose checksums are right and whose contents are not: batches, lengths,
 * headers, names. Only hostile hands write such; nothing of it may be believed.
 */
#include "log_fixture.h"

TestSuite(log_batch, .init = fixture_begin, .fini = fixture_end, .timeout = 300);
TestSuite(log_length, .init = fixture_begin, .fini = fixture_end, .timeout = 300);
TestSuite(log_survey, .init = fixture_begin, .fini = fixture_end, .timeout = 300);
TestSuite(log_cursor, .init = fixture_begin, .fini = fixture_end, .timeout = 300);
TestSuite(log_header, .init = fixture_begin, .fini = fixture_end, .timeout = 300);
TestSuite(log_name, .timeout = 60);

/* ---- batches ---- */

struct batch {
    uint64_t bytes, records;   /* added to what its head says; records: to those it holds */
    bool member_alone, nested; /* a member's flag is missing; a member is a head itself */
};

/* Two members behind a head; where it begins. */
static uint64_t
batch_put(const struct batch *b)
{
    struct scree__record r[3] = {{0}};
    unsigned char body[SCREE__BATCH_BODY_BYTES], inner[SCREE__BATCH_BODY_BYTES];
    uint32_t bytes;

    for (unsigned i = 1; i < 3; i++) {
        r[i] = (struct scree__record){.kind = SCREE__RECORD_DELTA,
                                      .flags = SCREE__RECORD_IN_BATCH,
                                      .page = pages + i,
                                      .payload = "abcdefgh",
                                      .payload_len = 8};
        if (i == 2 && b->member_alone)
            r[i].flags = 0;
        scree__record_prepare(&r[i]);
    }
    if (b->nested)
        (void)scree__log_batch_prepare(&r[2], 1, inner);
    bytes = scree__log_batch_prepare(r, 3, body);
    scree__put_u64(body, scree__get_u64(body) + b->bytes);
    scree__put_u64(body + 8, scree__get_u64(body + 8) + b->records);
    scree__record_prepare(&r[0]);
    cr_assert(eq(int, scree__log_admit(log_now, writer, bytes, SCREE__LOG_USER, true), 0));
    cr_assert(eq(int, scree__log_reserve_batch(log_now, writer, r, 3), 0));
    scree__log_complete(log_now, writer);
    pages += 2;
    return r[0].lsn;
}

static void
expect_batch_refused(const struct batch *b)
{
    struct scree__log_scan_result scan;
    uint64_t stable, at, before;

    fixture_end();
    fixture_begin();
    put_more_and_sync();
    before = pages;
    at = batch_put(b);
    put_more_and_sync();
    stable = scree__log_stable(log_now);
    fixture_crash();
    cr_assert(eq(int, fixture_scan(dir, stable, &scan), SCREE_E_CORRUPT));
    expect_detail("durable");
    cr_assert(eq(u64, seen, before)); /* nothing of it */
    cr_assert(eq(u64, scan.end, at));
}

Test(log_batch, that_is_whole_is_taken)
{
    struct scree__log_scan_result scan;

    (void)batch_put(&(struct batch){0});
    put_more_and_sync();
    fixture_crash();
    cr_assert(eq(int, fixture_scan(dir, 0, &scan), 0), "%s", scree_error_detail());
    cr_assert(eq(u64, seen, pages));
}

Test(log_batch, that_says_other_than_it_holds_is_none)
{
    expect_batch_refused(&(struct batch){.records = 1});
    expect_batch_refused(&(struct batch){.records = (uint64_t)0 - 1});
    expect_batch_refused(&(struct batch){.records = (uint64_t)0 - 2}); /* none */
    expect_batch_refused(&(struct batch){.bytes = 8});
    expect_batch_refused(&(struct batch){.bytes = (uint64_t)0 - 8});
    expect_batch_refused(&(struct batch){.bytes = (uint64_t)0 - 120}); /* less than its head has */
    expect_batch_refused(&(struct batch){.bytes = (uint64_t)1 << 40});
}

Test(log_batch, with_a_record_that_is_not_of_it_is_none)
{
    expect_batch_refused(&(struct batch){.member_alone = true});
    expect_batch_refused(&(struct batch){.nested = true});
}

Test(log_batch, longer_than_a_record_may_be_is_not_prepared)
{
    struct scree__record r[3] = {{0}, {.disk_len = 1u << 30}, {.disk_len = 1u << 30}};
    unsigned char body[SCREE__BATCH_BODY_BYTES];

    cr_assert(eq(u32, scree__log_batch_prepare(r, 3, body), UINT32_MAX));
}

/* ---- lengths ---- */

static int
trouble_never(void *ctx, const struct scree__log_trouble *t)
{
    (void)ctx, (void)t;
    return -1;
}

/* The length in the header there becomes another. */
static void
length_write(uint64_t lsn, uint32_t payload_len)
{
    char name[LOG_NAME_BYTES];
    unsigned char *data;
    size_t len;

    scree__segment_name(lsn / SEGMENT, name);
    data = kit_file_read(dir, name, &len);
    cr_assert(data != NULL);
    scree__put_u32(data + LOG_HEADER_BYTES + lsn % SEGMENT + 16, payload_len);
    kit_file_write(dir, name, data, len);
    free(data);
}

/* More than a buffer of the scan (1 MiB) behind it. */
static uint64_t
much_behind(void)
{
    put_up_to(scree__log_tail(log_now) + 18 * SEGMENT);
    put_more_and_sync();
    return scree__log_stable(log_now);
}

Test(log_length, beyond_the_buffer_is_read_on_only_as_far_as_there_are_files)
{
    uint64_t lsn = scree__log_tail(log_now), stable;

    put_one(lsn + 8000);
    stable = much_behind();
    length_write(lsn, (uint32_t)(18 * SEGMENT)); /* all of it is there, and no record */
    cr_assert(eq(int, scree__log_scan_range(log_now, lsn, stable, NULL, NULL), SCREE_E_CORRUPT));
    length_write(lsn, 1u << 30);
    cr_assert(eq(int, scree__log_scan_range(log_now, lsn, stable, NULL, NULL), SCREE_E_CORRUPT));
    expect_detail("no whole record");
}

Test(log_length, of_a_member_beyond_its_batch_is_not_read)
{
    uint64_t lsn = batch_put(&(struct batch){0}), stable = much_behind();

    length_write(lsn + BATCH_RECORD_BYTES, 18 * SEGMENT);
    cr_assert(eq(int, scree__log_scan_range(log_now, lsn, stable, NULL, NULL), SCREE_E_CORRUPT));
    expect_detail("no whole record of the batch");
}

Test(log_length, ranges_that_cannot_be_are_invalid)
{
    uint64_t stable;

    put_more_and_sync();
    stable = scree__log_stable(log_now);
    cr_assert(eq(int, scree__log_scan_range(log_now, 8, stable, NULL, NULL), SCREE_E_INVALID));
    cr_assert(
        eq(int, scree__log_scan_range(log_now, SEGMENT + 4, stable, NULL, NULL), SCREE_E_INVALID));
    cr_assert(eq(int, scree__log_scan_range(log_now, SEGMENT, SCREE__LSN_MAX + 1, NULL, NULL),
                 SCREE_E_INVALID));
}

Test(log_length, starts_that_cannot_be_are_corrupt)
{
    static const struct {
        uint64_t from, known_stable;
    } bad[] = {{8, 0}, {SEGMENT + 4, 0}, {SCREE__LSN_MAX + 8, 0}, {0, SCREE__LSN_MAX + 1}};
    struct scree__log_scan_result scan;

    for (size_t i = 2; i < 4; i++) /* a survey need not begin at a record's start */
        cr_assert(eq(int,
                     scree__log_survey(log_now, bad[i].from, bad[i].known_stable, false,
                                       fixture_visit, trouble_never, NULL, &scan),
                     SCREE_E_CORRUPT));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert(eq(int,
                     scree__log_scan(log_now, bad[i].from, bad[i].known_stable, fixture_visit, NULL,
                                     1, &scan),
                     SCREE_E_CORRUPT));
}

Test(log_length, two_records_at_one_place_are_corrupt)
{
    uint64_t lsn = scree__log_tail(log_now);
    struct scree__log_scan_result scan;

    put_one(lsn + 800);
    put_more_and_sync();
    fixture_crash();
    cr_assert(eq(int, fixture_scan(dir, 0, &scan), 0));
    scree__log_recount_begin(log_now, scan.end, scan.end);
    cr_assert(eq(int, scree__log_charge_live(log_now, lsn, scan.end - lsn), 0));
    cr_assert(eq(int, scree__log_charge_live(log_now, lsn, 800), SCREE_E_CORRUPT));
    expect_detail("two records lie there");
}

/* ---- surveys ---- */

static int
visit_late(void *ctx, unsigned who, const struct scree__record *r, size_t n)
{
    (void)ctx, (void)who, (void)r, (void)n;
    usleep(200000); /* by then the scan has come to the damage */
    return scree__fail(SCREE_E_CANCELED, "a visitor's word");
}

Test(log_survey, that_a_visitor_ends_gives_his_code_whatever_the_scan_found_before)
{
    struct scree__log_scan_result result;
    uint64_t stable;

    put_up_to(SEGMENT + 20000);
    put_more_and_sync();
    stable = scree__log_stable(log_now);
    length_write(SEGMENT + 16000, 1000);
    cr_assert(eq(
        int, scree__log_survey(log_now, 0, stable, false, visit_late, trouble_never, NULL, &result),
        SCREE_E_CANCELED));
    expect_detail("a visitor's word");
}

/* ---- cursors and maps ---- */

Test(log_cursor, stands_at_what_it_gives_next)
{
    uint64_t first = scree__log_tail(log_now), second = first + 800;
    const struct scree__record *r;
    struct scree__log_cursor *c;

    put_one(second);
    put_more_and_sync();
    cr_assert(eq(int, scree__log_cursor_open(log_now, first, true, &c), 0));
    cr_assert(eq(u64, scree__log_cursor_at(c), first));
    cr_assert(eq(int, scree__log_cursor_look(c, scree__log_stable(log_now), &r), 0));
    cr_assert(eq(u64, r->lsn, first));
    cr_assert(eq(u64, scree__log_cursor_at(c), first)); /* read on, and yet not beyond it */
    scree__log_cursor_pass(c);
    cr_assert(eq(u64, scree__log_cursor_at(c), second));
    scree__log_cursor_close(c);
    scree__log_cursor_close(NULL);
}

#ifdef SCREE_ALLOC_FAULTS
static int
no_segment(void *ctx, const scree_segment_info *info)
{
    (void)ctx, (void)info;
    return -1;
}

Test(log_cursor, and_map_without_memory_are_refused)
{
    struct scree__log_cursor *c;
    int rc;

    scree__alloc_fault(1, 1);
    rc = scree__log_cursor_open(log_now, SEGMENT, true, &c);
    scree__alloc_fault_end();
    cr_assert(rc == SCREE_E_NO_MEMORY && c == NULL);
    scree__alloc_fault(1, 1);
    rc = scree__log_segments_each(log_now, no_segment, NULL);
    scree__alloc_fault_end();
    cr_assert(eq(int, rc, SCREE_E_NO_MEMORY));
}
#endif

/* ---- zeros ---- */

/* A log that was closed ends with a seal, on a block's end. Zeros say nothing against that, and are damage. */
Test(log_length, of_a_closed_log_that_ends_in_zeros_is_corrupt)
{
    struct scree__log_scan_result scan;
    const char *name = "segment-0000000000000001";
    unsigned char *data;
    uint64_t last;
    size_t len;

    put_one(SEGMENT + 8000);
    last = scree__log_tail(log_now);
    put_more_and_sync();
    cr_assert(eq(int, scree__log_stop(log_now), 0));
    cr_assert(eq(int, scree__log_close_clean(log_now), 0));
    fixture_crash();
    data = kit_file_read(dir, name, &len);
    memset(data + LOG_HEADER_BYTES + last % SEGMENT, 0, len - LOG_HEADER_BYTES - last % SEGMENT);
    kit_file_write(dir, name, data, len);
    free(data);
    cr_assert(eq(int, fixture_scan(dir, 0, &scan), SCREE_E_CORRUPT));
    expect_detail("the log was closed");
    cr_assert(eq(u64, scan.end, last));
}

/* ---- headers ---- */

/* One of a segment, with one field changed and its checksum right. */
static void
header_write(const char *name, size_t at, uint64_t value)
{
    unsigned char *data;
    size_t len;

    data = kit_file_read(dir, name, &len);
    cr_assert(data != NULL);
    scree__put_u64(data + at, value);
    scree__put_u64(data + 56, scree__log_hash(data, 56));
    kit_file_write(dir, name, data, len);
    free(data);
}

/* Refused by an open, left out by a survey. */
static void
expect_stranger(size_t at, uint64_t value, uint64_t was)
{
    const char *name = "segment-0000000000000002";
    struct scree__log_scan_result scan;

    header_write(name, at, value);
    cr_assert(eq(int, fixture_scan(dir, 0, &scan), SCREE_E_CORRUPT));
    expect_detail(name);
    options.survey = true;
    cr_assert(eq(int, scree__log_create(&options, &log_now), 0), "%s", scree_error_detail());
    cr_assert(eq(u32, log_now->strangers, 1));
    cr_assert(eq(u64, log_now->stranger[0], 2));
    options.survey = false;
    fixture_crash();
    header_write(name, at, was);
    cr_assert(eq(int, scree__log_create(&options, &log_now), 0), "%s", scree_error_detail());
    fixture_crash();
}

Test(log_header, of_another_number_size_or_history_is_a_strangers)
{
    put_up_to(4 * SEGMENT);
    put_more_and_sync();
    fixture_crash();
    expect_stranger(16, 3, 2);
    expect_stranger(24, SEGMENT * 2, SEGMENT);
    expect_stranger(32, 1, 0);
    expect_stranger(48, 2 * SEGMENT + 8, 2 * SEGMENT); /* ended behind where it begins */
}

static int
stranger_count(void *ctx, const struct scree__log_trouble *t)
{
    cr_assert(strncmp(t->file, "segment-", 8) == 0);
    return ++*(unsigned *)ctx == 7 ? 77 : 0;
}

Test(log_header, of_more_strangers_than_are_noted_are_still_left_out)
{
    unsigned told = 0;

    put_up_to((LOG_STRANGERS + 8) * SEGMENT);
    put_more_and_sync();
    fixture_crash();
    options.survey = true;
    options.uuid[0] ^= 1;
    cr_assert(eq(int, scree__log_create(&options, &log_now), 0), "%s", scree_error_detail());
    cr_assert(gt(u32, log_now->strangers, LOG_STRANGERS));
    cr_assert(eq(sz, log_now->segment_n, 0));
    cr_assert(eq(int, scree__log_survey_files(log_now, 0, stranger_count, &told), 77));
    cr_assert(eq(int, scree__log_survey_files(log_now, 0, stranger_count, &told), 0));
    cr_assert(eq(uint, told, 7 + LOG_STRANGERS));
}

Test(log_header, identifies_a_directory_only_if_it_is_one)
{
    uint8_t uuid[16], header[LOG_HEADER_BYTES], bad[LOG_HEADER_BYTES];
    static const uint64_t sizes[] = {0, LOG_SEGMENT_BYTES_MIN - SCREE_BLOCK, SEGMENT + 8,
                                     LOG_SEGMENT_BYTES_MAX + SCREE_BLOCK};
    uint64_t bytes = 0;

    scree__segment_header_put(log_now, 1, SEGMENT, header);
    cr_assert(scree__segment_header_identity(header, sizeof header, uuid, &bytes));
    cr_assert(eq(u64, bytes, SEGMENT));
    cr_assert(not(scree__segment_header_identity(header, 63, uuid, &bytes)));
    for (size_t at = 0; at < 64; at += 8) { /* magic, version, number ... checksum */
        memcpy(bad, header, sizeof bad);
        bad[at] ^= 1;
        cr_assert(not(scree__segment_header_identity(bad, sizeof bad, uuid, &bytes)));
    }
    memcpy(bad, header, sizeof bad);
    scree__file_stamp(bad, scree__get_u64(bad), 2);
    scree__put_u64(bad + 56, scree__log_hash(bad, 56));
    cr_assert(not(scree__segment_header_identity(bad, sizeof bad, uuid, &bytes)));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        memcpy(bad, header, sizeof bad);
        scree__put_u64(bad + 24, sizes[i]);
        scree__put_u64(bad + 56, scree__log_hash(bad, 56));
        cr_assert(not(scree__segment_header_identity(bad, sizeof bad, uuid, &bytes)));
    }
}

/* ---- names ---- */

Test(log_name, only_sixteen_small_hex_digits_behind_the_prefix)
{
    static const char *const bad[] = {"segment+0000000000000001",
                                      "Segment-0000000000000001",
                                      "segment-000000000000000/",
                                      "segment-000000000000000:",
                                      "segment-000000000000000`",
                                      "segment-000000000000000g",
                                      "segment-000000000000000F",
                                      "segment-000000000000001",
                                      "segment-00000000000000001",
                                      "segment-0000000000000000",
                                      "OPEN.tm",
                                      ""};
    uint64_t number;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert(not(scree__log_name_parse(bad[i], &number)), "%s", bad[i]);
    cr_assert(scree__log_name_parse("segment-0123456789abcdef", &number));
    cr_assert(eq(u64, number, UINT64_C(0x0123456789abcdef)));
    cr_assert(scree__log_name_parse("OPEN", &number));
    cr_assert(scree__log_name_parse("OPEN.tmp", &number));
    cr_assert(eq(u64, number, 0));
}
