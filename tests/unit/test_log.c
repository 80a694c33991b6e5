/*
 * test_log.c - the log as its users see it: reopening, crashes, torn and damaged bytes, full disks, failing
 * ones, reading, space. Each test works in a directory of its own, with the smallest sizes.
 */
#include "log/log_private.h"
#include "support/kit.h"
#include "unit/claims.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define SEGMENT (64u * 1024)
#define RING (64u * 1024)
#define RECORDS_MAX 100000u

struct rig {
    char dir[KIT_PATH_MAX];
    struct scree__log_options options;
    struct scree__log *log;
    struct scree__log_writer *writer;
    struct scree__log_scan_result scan;
    uint64_t n;    /* records put */
    uint64_t seen; /* by the last scan */
    uint64_t aborted_seen, seals_seen;
    uint64_t last_end;
    uint64_t lsn[RECORDS_MAX];
    uint32_t len[RECORDS_MAX]; /* on disk */
};

static struct rig *
rig_make(const scree_env *env)
{
    struct rig *g = calloc(1, sizeof *g);

    cr_assert(ne(ptr, g, NULL));
    kit_dir_name(g->dir, "log");
    cr_assert(eq(int, env->mkdir(env->ctx, g->dir), 0));
    g->options = (struct scree__log_options){
        .env = env, .dir = g->dir, .segment_bytes = SEGMENT, .ring_bytes = RING};
    memcpy(g->options.uuid, "0123456789abcdef", 16);
    return g;
}

static void
rig_free(struct rig *g)
{
    scree__log_destroy(g->log);
    kit_dir_remove(g->dir);
    free(g);
}

/* Record i holds i, repeated. */
static void
payload_fill(uint8_t *at, uint32_t len, uint64_t i)
{
    for (uint32_t k = 0; k < len; k++)
        at[k] = (uint8_t)(i + k / 8);
}

static int
rig_record(struct rig *g, const struct scree__record *r)
{
    static uint8_t expected[SEGMENT];

    cr_assert(ge(u64, r->lsn, g->last_end)); /* log order, no overlap */
    g->last_end = r->lsn + r->disk_len;
    if (r->kind == SCREE__RECORD_SEAL) {
        g->seals_seen++;
        return 0;
    }
    if (r->kind == SCREE__RECORD_ABORTED) {
        g->aborted_seen++;
        return 0;
    }
    uint64_t i = g->seen++;

    cr_assert(lt(u64, i, g->n));
    cr_assert(eq(u64, r->lsn, g->lsn[i]));
    cr_assert(eq(u64, r->page, i + 1));
    cr_assert(eq(u32, r->disk_len, g->len[i]));
    payload_fill(expected, r->payload_len, i);
    cr_assert(eq(int, memcmp(r->payload, expected, r->payload_len), 0));
    return 0;
}

static int
rig_visit(void *ctx, unsigned who, const struct scree__record *r, size_t n)
{
    cr_assert(eq(u32, who, 0));
    for (size_t i = 0; i < n; i++)
        cr_assert(eq(int, rig_record(ctx, &r[i]), 0));
    return 0;
}

static int
rig_scan(struct rig *g, uint64_t known_stable)
{
    g->seen = g->aborted_seen = g->seals_seen = g->last_end = 0;
    int rc = scree__log_create(&g->options, &g->log);

    return rc != 0 ? rc : scree__log_scan(g->log, 0, known_stable, rig_visit, g, 1, &g->scan);
}

static int
rig_try_open(struct rig *g, uint64_t known_stable)
{
    int rc = rig_scan(g, known_stable);

    if (rc == 0)
        rc = scree__log_start(g->log, &g->scan, known_stable);
    if (rc != 0) {
        scree__log_destroy(g->log);
        g->log = NULL;
        return rc;
    }
    g->writer = scree__log_writer_attach(g->log);
    cr_assert(ne(ptr, g->writer, NULL));
    return 0;
}

static void
rig_open(struct rig *g)
{
    int rc = rig_try_open(g, 0);

    cr_assert(eq(int, rc, 0), "%s", scree_error_detail());
}

static void
rig_crash(struct rig *g) /* of the process: what is not written is lost */
{
    scree__log_destroy(g->log);
    g->log = NULL;
}

static void
rig_close(struct rig *g)
{
    cr_assert(eq(int, scree__log_stop(g->log), 0), "%s", scree_error_detail());
    cr_assert(eq(int, scree__log_close_clean(g->log), 0), "%s", scree_error_detail());
    rig_crash(g);
}

static int
rig_try_put(struct rig *g, uint32_t payload_len)
{
    static uint8_t payload[SEGMENT];
    struct scree__record r = {.kind = SCREE__RECORD_DELTA,
                              .page = g->n + 1,
                              .payload = payload,
                              .payload_len = payload_len};

    payload_fill(payload, payload_len, g->n);
    scree__record_prepare(&r);
    int rc = scree__log_admit(g->log, g->writer, r.disk_len, SCREE__LOG_USER, true);

    if (rc == 0)
        rc = scree__log_reserve(g->log, g->writer, &r);
    if (rc != 0)
        return rc;
    scree__log_complete(g->log, g->writer);
    g->lsn[g->n] = r.lsn;
    g->len[g->n] = r.disk_len;
    g->n++;
    return 0;
}

static uint64_t
rig_put(struct rig *g, uint32_t payload_len)
{
    cr_assert(eq(int, rig_try_put(g, payload_len), 0), "%s", scree_error_detail());
    return g->lsn[g->n - 1] + g->len[g->n - 1];
}

static void
rig_sync(struct rig *g)
{
    cr_assert(eq(int, scree__log_wait_stable(g->log, scree__log_tail(g->log), UINT64_MAX), 0), "%s",
              scree_error_detail());
}

static void
segment_file(uint64_t lsn, char name[LOG_NAME_BYTES])
{
    scree__segment_name(lsn / SEGMENT, name);
}

/* XOR one byte of the file that holds lsn. */
static void
flip_at(struct rig *g, uint64_t lsn)
{
    char name[LOG_NAME_BYTES];
    size_t len;

    segment_file(lsn, name);
    unsigned char *data = kit_file_read(g->dir, name, &len);

    cr_assert(ne(ptr, data, NULL));
    cr_assert(lt(sz, 4096 + lsn % SEGMENT, len));
    data[4096 + lsn % SEGMENT] ^= 0x40;
    kit_file_write(g->dir, name, data, len);
    free(data);
}

/* ---- opening and closing --------------------------------------------------------------------- */

Test(log_reopen, a_new_log_is_not_written_to_before_the_first_admit, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    uint64_t before = kit_dir_fingerprint(g->dir, true);

    rig_open(g);
    cr_assert(eq(u64, scree__log_tail(g->log), SEGMENT));
    cr_assert(not(scree__log_dirty(g->log)));
    cr_assert(eq(int, scree__log_wait_stable(g->log, SEGMENT, 0), 0));
    rig_close(g);
    cr_assert(eq(u64, kit_dir_fingerprint(g->dir, true), before));
    rig_free(g);
}

Test(log_reopen, a_closed_log_goes_on_where_it_ended, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    for (uint32_t i = 0; i < 3000; i++)
        rig_put(g, i % 300);
    rig_close(g);
    uint64_t before = kit_dir_fingerprint(g->dir, true);

    rig_open(g);
    cr_assert(eq(u64, g->seen, 3000));
    cr_assert(eq(u64, g->scan.torn_bytes, 0));
    cr_assert(eq(u64, scree__log_tail(g->log), g->scan.end));
    rig_close(g);
    cr_assert(eq(u64, kit_dir_fingerprint(g->dir, true), before));
    rig_open(g);
    rig_put(g, 10);
    cr_assert(eq(u64, g->lsn[3000], g->scan.end));
    rig_close(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 3001));
    rig_free(g);
}

Test(log_reopen, what_was_allocated_ahead_is_given_back_at_close, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    struct kit_files files;

    rig_open(g);
    rig_put(g, 100);
    rig_close(g);
    kit_dir_list(g->dir, &files);
    cr_assert(eq(sz, files.n, 1));
    cr_assert(eq(u64, files.size[0], 4096 + 4096));
    rig_free(g);
}

Test(log_reopen, crashing_twice_jumps_twice_and_loses_nothing_stable, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    uint64_t ends[3];

    for (int round = 0; round < 3; round++) {
        rig_open(g);
        cr_assert(eq(u64, g->seen, g->n));
        cr_assert(round == 0 || scree__log_tail(g->log) > ends[round - 1] + RING);
        for (int i = 0; i < 100; i++)
            rig_put(g, 700);
        rig_sync(g);
        ends[round] = scree__log_tail(g->log);
        rig_crash(g);
    }
    rig_open(g); /* and once more with nothing written: an empty jump segment is a link too */
    rig_crash(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 300));
    rig_put(g, 1);
    rig_close(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 301));
    rig_free(g);
}

Test(log_reopen, a_crash_before_anything_is_written_keeps_the_log_empty, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    cr_assert(eq(int, scree__log_admit(g->log, g->writer, 64, SCREE__LOG_USER, true), 0));
    rig_crash(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 0));
    rig_put(g, 5);
    rig_close(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 1));
    rig_free(g);
}

Test(log_reopen, an_unreadable_open_mark_makes_the_jump_wider_not_wrong, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    uint64_t end = rig_put(g, 100);

    rig_sync(g);
    rig_crash(g);
    kit_file_write(g->dir, "OPEN", "garbage", 7);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 1));
    cr_assert(lt(u64, end + LOG_RING_BYTES_MAX, scree__log_tail(g->log)));
    rig_close(g);
    rig_free(g);
}

/* Its checksum is right, its values are larger than can be: it counts as one that does not verify. */
Test(log_reopen, an_open_mark_that_says_too_much_is_not_believed, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    uint64_t end = rig_put(g, 100);

    rig_sync(g);
    rig_crash(g);
    for (size_t at = 16; at <= 24; at += 8) {
        size_t len;
        unsigned char *data = kit_file_read(g->dir, "OPEN", &len);

        cr_assert(eq(sz, len, 40));
        scree__put_u64(data + at, (uint64_t)1 << 40);
        scree__put_u64(data + 32, scree__log_hash(data, 32));
        kit_file_write(g->dir, "OPEN", data, len);
        free(data);
        rig_open(g);
        cr_assert(eq(u64, g->seen, 1));
        cr_assert(lt(u64, end + LOG_RING_BYTES_MAX, scree__log_tail(g->log)));
        cr_assert(lt(u64, scree__log_tail(g->log), (uint64_t)1 << 40));
        end = scree__log_tail(g->log);
        rig_crash(g);
    }
    rig_free(g);
}

/* What may pass does not poison; nothing had been relied on. */
Test(log_reopen, an_open_mark_that_cannot_be_made_now_may_be_made_later, .timeout = 120)
{
    static const int codes[] = {-EMFILE, -ENFILE, -EACCES, -EROFS, -ENOSPC, -EDQUOT, -EFBIG};
    struct rig *g = rig_make(scree_env_posix());

    g->options.env = kit_env();
    rig_open(g);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        kit_env_plan(&(struct kit_plan){
            .kinds = KIT_RENAME, .fault = KIT_FAULT_CODE, .code = codes[i], .at = 1});
        cr_assert(eq(int, scree__log_admit(g->log, g->writer, 64, SCREE__LOG_USER, true),
                     i < 4 ? codes[i] : SCREE_E_NO_SPACE));
        cr_assert(eq(int, scree__log_health(g->log), 0));
    }
    kit_env_plan(&(struct kit_plan){0});
    rig_put(g, 100);
    rig_close(g);
    rig_free(g);
}

Test(log_reopen, a_poisoned_log_is_not_marked, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    (void)scree__log_poison(g->log, -EIO, "a test's");
    cr_assert(eq(int, scree__mark_write(g->log), SCREE_E_POISONED));
    cr_assert(eq(int, scree__log_poison(g->log, -ENXIO, "a second one's"), -ENXIO));
    cr_assert(eq(int, scree__log_health(g->log), -EIO)); /* the first stays */
    rig_crash(g);
    rig_open(g);
    cr_assert(g->log->found_clean);
    rig_free(g);
}

Test(log_reopen, what_was_only_looked_at_is_closed_without_a_trace, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    rig_put(g, 100);
    rig_crash(g);
    uint64_t before = kit_dir_fingerprint(g->dir, true);

    cr_assert(eq(int, rig_scan(g, 0), 0));
    rig_close(g); /* never started */
    g->options.read_only = true;
    rig_open(g);
    rig_close(g);
    cr_assert(eq(u64, kit_dir_fingerprint(g->dir, true), before));
    rig_free(g);
}

Test(log_reopen, an_open_mark_that_somebody_took_is_gone_all_the_same, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    char path[KIT_PATH_MAX + 64];

    rig_open(g);
    rig_put(g, 100);
    (void)snprintf(path, sizeof path, "%s/OPEN", g->dir);
    cr_assert(eq(int, unlink(path), 0));
    rig_close(g);
    rig_open(g);
    cr_assert(g->log->found_clean && g->seen == 1);
    rig_free(g);
}

Test(log_reopen, an_open_mark_of_an_unknown_format_is_refused, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    unsigned char mark[40];
    unsigned char *data;
    size_t len;

    rig_open(g);
    rig_put(g, 100);
    rig_crash(g);
    data = kit_file_read(g->dir, "OPEN", &len);
    cr_assert(eq(sz, len, sizeof mark));
    memcpy(mark, data, len);
    free(data);
    scree__file_stamp(mark, scree__get_u64(mark), 2);
    kit_file_write(g->dir, "OPEN", mark, sizeof mark);
    cr_assert(eq(int, rig_scan(g, 0), SCREE_E_FORMAT));
    rig_free(g);
}

Test(log_reopen, a_larger_ring_at_the_next_open_is_marked, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    rig_put(g, 100);
    rig_sync(g);
    rig_crash(g);
    g->options.ring_bytes = 4 * RING;
    rig_open(g);
    rig_crash(g);
    rig_scan(g, 0);
    cr_assert(eq(u64, g->log->found_ring_bytes, 4 * RING));
    rig_free(g);
}

Test(log_reopen, strangers_files_are_left_alone, .timeout = 120)
{
    static const char *const names[] = {"segment-",
                                        "segment-1",
                                        "segment-00000000000000001",
                                        "segment-000000000000000G",
                                        "segment-000000000000000A",
                                        "segment-0000000000000000",
                                        "segment-ffffffffffffffff",
                                        "OPENED"};
    struct rig *g = rig_make(scree_env_posix());
    size_t len;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        kit_file_write(g->dir, names[i], "mine", 4);
    rig_open(g);
    rig_put(g, 100);
    rig_sync(g);
    rig_crash(g);
    rig_open(g);
    rig_close(g);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        unsigned char *data = kit_file_read(g->dir, names[i], &len);

        cr_assert(ne(ptr, data, NULL), "%s", names[i]);
        cr_assert(eq(sz, len, 4));
        free(data);
    }
    rig_free(g);
}

/* ---- records and segments -------------------------------------------------------------------- */

Test(log_segments, records_cross_them_fit_exactly_and_span_several, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    g->options.segment_bytes = 16 * 1024;
    rig_open(g);
    uint64_t end = rig_put(g, 100);

    /* To the last byte of the segment, to 8 short of it, 8 beyond it; then over two whole ones. */
    for (int off = -8; off <= 8; off += 8) {
        uint64_t boundary = scree__round_up(end + 100, 16 * 1024);

        end = rig_put(g, (uint32_t)(boundary - end - 24 + (uint64_t)(int64_t)off));
        cr_assert(eq(u64, end, boundary + (uint64_t)(int64_t)off));
    }
    for (int i = 0; i < 5; i++)
        rig_put(g, 32000);
    rig_sync(g);
    struct scree__log_read reads[10];

    for (uint64_t i = 0; i < g->n; i++) {
        reads[i] = (struct scree__log_read){.page = i + 1, .lsn = g->lsn[i], .disk_len = g->len[i]};
        cr_assert(eq(int, scree__log_read(g->log, &reads[i], 1), 0), "%s", scree_error_detail());
        scree__log_read_done(&reads[i], 1);
    }
    rig_close(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, g->n));
    rig_free(g);
}

Test(log_segments, the_ring_wraps_many_times, .timeout = 180)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    for (uint32_t i = 0; i < 20000; i++)
        rig_put(g, 17 * i % 500);
    rig_put(g, RING / 2 - 24);
    cr_assert(eq(int, rig_try_put(g, RING / 2 - 23), SCREE_E_TOO_BIG));
    rig_close(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 20001));
    rig_free(g);
}

Test(log_segments, an_aborted_record_is_found_as_such_and_charged_dead, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    struct scree__record r = {
        .kind = SCREE__RECORD_CONSOLIDATED, .page = 3, .payload = "0123", .payload_len = 4};
    struct scree__log_stats stats;

    rig_open(g);
    rig_put(g, 40);
    scree__record_prepare(&r);
    cr_assert(eq(int, scree__log_admit(g->log, g->writer, r.disk_len, SCREE__LOG_USER, true), 0));
    cr_assert(eq(int, scree__log_reserve(g->log, g->writer, &r), 0));
    scree__log_abort(g->log, g->writer, &r);
    rig_put(g, 40);
    rig_sync(g);
    scree__log_stats(g->log, &stats);
    cr_assert(eq(u64, stats.space.live_bytes, 2 * 64));
    cr_assert(eq(u64, stats.log_bytes, 4096));
    rig_close(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 2));
    cr_assert(eq(u64, g->aborted_seen, 1));
    cr_assert(eq(u64, g->seals_seen, 1));
    rig_free(g);
}

Test(log_segments, an_open_reservation_holds_settled_and_stable_back, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    struct scree__record r = {.kind = SCREE__RECORD_FREE, .page = 3};

    rig_open(g);
    struct scree__log_writer *other = scree__log_writer_attach(g->log);

    scree__record_prepare(&r);
    cr_assert(eq(int, scree__log_admit(g->log, other, r.disk_len, SCREE__LOG_RELIEF, true), 0));
    cr_assert(eq(int, scree__log_reserve(g->log, other, &r), 0));
    uint64_t end = rig_put(g, 10);

    cr_assert(eq(u64, scree__log_settled(g->log), r.lsn));
    cr_assert(eq(int, scree__log_wait_stable(g->log, end, 20000000), SCREE_E_TIMEOUT));
    cr_assert(eq(int, scree__log_wait_stable(g->log, end, 0), SCREE_E_TIMEOUT));
    cr_assert(eq(int, scree__log_wait_stable(g->log, end + 1, UINT64_MAX), SCREE_E_INVALID));
    cr_assert(le(u64, scree__log_stable(g->log), r.lsn));
    scree__log_complete(g->log, other);
    cr_assert(eq(u64, scree__log_settled(g->log), end));
    cr_assert(eq(int, scree__log_wait_stable(g->log, end, UINT64_MAX), 0));
    scree__log_writer_detach(g->log, other);
    cr_assert(eq(ptr, scree__log_writer_attach(g->log), other));
    rig_free(g);
}

/* More record boundaries than are remembered lie between two syncs: the last one counts. */
Test(log_segments, written_in_many_pieces_is_stable_as_a_whole, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    uint64_t end = 0;

    rig_open(g);
    for (unsigned i = 0; i < 2 * LOG_BOUNDS; i++) {
        uint64_t deadline = kit_now_ms() + 5000;

        end = rig_put(g, 2800);
        while (atomic_load_explicit(&g->log->flushed, memory_order_acquire) <
                   scree__round_down(end, SCREE_BLOCK) &&
               kit_now_ms() < deadline) {
            scree__flusher_kick(g->log);
            usleep(100);
        }
    }
    /* So long a wait that its end cannot be told is one without end. */
    cr_assert(eq(int, scree__log_wait_stable(g->log, end, UINT64_MAX - 1), 0));
    cr_assert(ge(u64, scree__log_stable(g->log), end));
    rig_crash(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 2 * LOG_BOUNDS));
    rig_free(g);
}

Test(log_segments, who_waits_for_an_open_reservation_is_told_after_his_time, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    struct scree__log_writer *other;
    struct scree__record r = {
        .kind = SCREE__RECORD_DELTA, .page = 1, .payload = "", .payload_len = 0};

    rig_open(g);
    other = scree__log_writer_attach(g->log);
    scree__record_prepare(&r);
    cr_assert(eq(int, scree__log_admit(g->log, other, r.disk_len, SCREE__LOG_USER, true), 0));
    cr_assert(eq(int, scree__log_reserve(g->log, other, &r), 0));
    cr_assert(eq(int, scree__log_wait_stable(g->log, scree__log_tail(g->log), 250 * 1000 * 1000ull),
                 SCREE_E_TIMEOUT));
    scree__log_complete(g->log, other);
    rig_sync(g);
    cr_assert(eq(u64, scree__log_stable(g->log), scree__log_tail(g->log)));
    rig_free(g);
}

Test(log_segments, a_scan_of_a_range_sees_exactly_it, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    for (int i = 0; i < 500; i++)
        rig_put(g, 300);
    rig_sync(g);
    uint64_t end = scree__log_stable(g->log);

    g->seen = g->last_end = 0;
    cr_assert(eq(int, scree__log_scan_range(g->log, 0, g->lsn[200], rig_visit, g), 0));
    cr_assert(eq(u64, g->seen, 200));
    cr_assert(eq(int, scree__log_scan_range(g->log, g->lsn[200], end, rig_visit, g), 0));
    cr_assert(eq(u64, g->seen, 500));
    cr_assert(eq(int, scree__log_scan_range(g->log, end, end, rig_visit, g), 0));
    rig_free(g);
}

static int
stop_at_ten(void *ctx, unsigned who, const struct scree__record *r, size_t n)
{
    uint64_t *seen = ctx;

    (void)r, (void)who;
    *seen += n;
    return *seen >= 10 ? 77 : 0;
}

Test(log_segments, a_visitor_may_stop_the_scan, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    uint64_t n = 0;

    rig_open(g);
    for (int i = 0; i < 5000; i++)
        rig_put(g, 1000);
    rig_sync(g);
    cr_assert(
        eq(int, scree__log_scan_range(g->log, 0, scree__log_stable(g->log), stop_at_ten, &n), 77));
    cr_assert(ge(u64, n, 10));
    cr_assert(lt(u64, n, 5000)); /* a buffer is a megabyte at most */
    rig_free(g);
}

/* ---- tails and damage ------------------------------------------------------------------------ */

/* 40 records synced, then 40 more written by another sync: the second seal claims the first run. */
static struct rig *
rig_two_runs(uint64_t *first_end)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    for (int i = 0; i < 40; i++)
        rig_put(g, 100);
    rig_sync(g);
    *first_end = scree__log_stable(g->log);
    for (int i = 0; i < 40; i++)
        rig_put(g, 100);
    rig_sync(g);
    return g;
}

Test(log_damage, below_the_claim_of_a_later_seal_is_corrupt, .timeout = 120)
{
    uint64_t first_end;
    struct rig *g = rig_two_runs(&first_end);

    rig_crash(g);
    flip_at(g, g->lsn[10] + 30);
    cr_assert(eq(int, rig_scan(g, 0), SCREE_E_CORRUPT));
    cr_assert(eq(u64, g->seen, 10));
    cr_assert(ne(ptr, strstr(scree_error_detail(), "segment-0000000000000001"), NULL));
    rig_free(g);
}

Test(log_damage, of_the_first_runs_seal_is_corrupt_too, .timeout = 120)
{
    uint64_t first_end;
    struct rig *g = rig_two_runs(&first_end);

    rig_crash(g);
    flip_at(g, first_end - 1);
    cr_assert(eq(int, rig_scan(g, 0), SCREE_E_CORRUPT));
    rig_free(g);
}

Test(log_damage, beyond_every_claim_is_a_torn_tail_and_trimmed, .timeout = 120)
{
    uint64_t first_end;
    struct rig *g = rig_two_runs(&first_end);

    rig_crash(g);
    flip_at(g, g->lsn[50]);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 50));
    cr_assert(lt(u64, 29 * 128, g->scan.torn_bytes));
    g->n = 50;
    rig_put(g, 9);
    rig_close(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, 51));
    cr_assert(eq(u64, g->scan.torn_bytes, 0));
    rig_free(g);
}

Test(log_damage, of_a_closed_log_is_corrupt_everywhere, .timeout = 300)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    for (int i = 0; i < 20; i++)
        rig_put(g, 100);
    rig_close(g);
    for (uint64_t at = SEGMENT; at < SEGMENT + 4096; at += 13) {
        bool filler = at >= g->lsn[19] + g->len[19] + 40 && at < SEGMENT + 4096 - 24;
        bool padding = at < g->lsn[19] + g->len[19] && (at - SEGMENT) % 128 >= 124;

        flip_at(g, at);
        cr_assert(eq(int, rig_scan(g, 0), filler || padding ? 0 : SCREE_E_CORRUPT), "lsn %llu",
                  (unsigned long long)at);
        scree__log_destroy(g->log);
        g->log = NULL;
        flip_at(g, at);
    }
    cr_assert(eq(int, rig_scan(g, 0), 0));
    rig_free(g);
}

Test(log_damage, below_what_the_caller_knows_to_be_stable_is_corrupt, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    uint64_t end = rig_put(g, 100);

    rig_sync(g);
    rig_crash(g);
    cr_assert(eq(int, rig_scan(g, end + SEGMENT), SCREE_E_CORRUPT));
    scree__log_destroy(g->log);
    flip_at(g, SEGMENT);
    cr_assert(eq(int, rig_scan(g, end), SCREE_E_CORRUPT));
    scree__log_destroy(g->log);
    cr_assert(eq(int, rig_scan(g, 0), 0));
    cr_assert(eq(u64, g->scan.end, SEGMENT));
    rig_free(g);
}

Test(log_damage, a_missing_segment_is_named, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    char path[KIT_PATH_MAX + 64];

    rig_open(g);
    for (int i = 0; i < 300; i++)
        rig_put(g, 1000);
    rig_close(g);
    (void)snprintf(path, sizeof path, "%s/segment-0000000000000003", g->dir);
    cr_assert(eq(int, unlink(path), 0));
    cr_assert(eq(int, rig_scan(g, 0), SCREE_E_CORRUPT));
    cr_assert(ne(ptr, strstr(scree_error_detail(), "segment-0000000000000003"), NULL));
    cr_assert(ne(ptr, strstr(scree_error_detail(), "missing"), NULL));
    rig_free(g);
}

Test(log_damage, a_missing_first_segment_is_no_new_log, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    char path[KIT_PATH_MAX + 64];

    rig_open(g);
    for (int i = 0; i < 300; i++)
        rig_put(g, 1000);
    rig_sync(g);
    rig_crash(g);
    (void)snprintf(path, sizeof path, "%s/segment-0000000000000001", g->dir);
    cr_assert(eq(int, unlink(path), 0));
    cr_assert(eq(int, rig_scan(g, 0), SCREE_E_CORRUPT));
    rig_free(g);
}

struct completer {
    pthread_t thread;
    struct rig *g;
    struct scree__log_writer *writer;
};

static void *
complete_soon(void *arg)
{
    struct completer *c = arg;

    usleep(30000);
    scree__log_complete(c->g->log, c->writer);
    return NULL;
}

Test(log_damage, a_record_torn_across_a_synced_block_is_no_damage, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    static uint8_t payload[20000];
    struct scree__record r = {
        .kind = SCREE__RECORD_DELTA, .page = 99, .payload = payload, .payload_len = sizeof payload};
    uint64_t end = 0;

    memset(payload, 0xAB, sizeof payload); /* zeros would be on disk already */
    rig_open(g);
    for (int i = 0; i < 7; i++)
        end = rig_put(g, 1000);
    struct completer c = {.g = g, .writer = scree__log_writer_attach(g->log)};

    scree__record_prepare(&r);
    cr_assert(eq(int, scree__log_admit(g->log, c.writer, r.disk_len, SCREE__LOG_USER, true), 0));
    cr_assert(eq(int, scree__log_reserve(g->log, c.writer, &r), 0));
    cr_assert(eq(int, pthread_create(&c.thread, NULL, complete_soon, &c), 0));
    /* The big record covers the rest of the block: no seal, and only its first bytes go out. */
    cr_assert(eq(int, scree__log_wait_stable(g->log, end, UINT64_MAX), 0));
    cr_assert(eq(int, pthread_join(c.thread, NULL), 0));
    cr_assert(eq(u64, scree__log_stable(g->log), end)); /* a record boundary, not a block's */
    cr_assert(ne(u64, end % SCREE_BLOCK, 0));
    rig_crash(g);
    cr_assert(eq(int, rig_scan(g, end), 0), "%s", scree_error_detail());
    cr_assert(eq(u64, g->seen, 7));
    cr_assert(eq(u64, g->scan.end, end));
    rig_free(g);
}

/* A log of a few blocks, cut at every length: a prefix, or an error; below a claim always an error. */
Test(log_damage, cut_anywhere_leaves_a_prefix_or_is_corrupt, .timeout = 600)
{
    uint64_t first_end;
    struct rig *g = rig_two_runs(&first_end);
    const char *name = "segment-0000000000000001";
    size_t len;

    uint64_t end = scree__log_tail(g->log) - SEGMENT;

    rig_crash(g);
    unsigned char *data = kit_file_read(g->dir, name, &len);

    cr_assert(ne(ptr, data, NULL));
    for (size_t cut = 0; cut <= 4096 + end; cut += cut < 8200 ? 97 : 31) {
        kit_file_write(g->dir, name, data, cut);
        int rc = rig_scan(g, first_end);
        bool below = cut < 4096 + (first_end - SEGMENT);

        cr_assert(eq(int, rc, below ? SCREE_E_CORRUPT : 0), "cut at %zu: %s", cut,
                  scree_error_detail());
        scree__log_destroy(g->log);
        g->log = NULL;
    }
    free(data);
    rig_free(g);
}

Test(log_damage, zeros_and_garbage_behind_the_end_are_torn, .timeout = 120)
{
    uint64_t first_end;
    struct rig *g = rig_two_runs(&first_end);
    const char *name = "segment-0000000000000001";
    size_t len, end = 4096 + (size_t)(scree__log_tail(g->log) - SEGMENT);

    rig_crash(g);
    unsigned char *data = kit_file_read(g->dir, name, &len);

    cr_assert(ne(ptr, data, NULL));
    cr_assert(lt(sz, end + 5000, len)); /* room allocated ahead, zeros */
    for (int round = 0; round < 3; round++) {
        uint64_t state = 5;

        for (size_t i = end; i < len; i++)
            data[i] = round == 0 ? 0 : round == 1 ? (unsigned char)kit_random(&state) : 0xFF;
        kit_file_write(g->dir, name, data, len);
        cr_assert(eq(int, rig_scan(g, 0), 0));
        cr_assert(eq(u64, g->seen, 80));
        cr_assert(eq(u64, g->scan.torn_bytes, round == 0 ? 0 : len - end));
        scree__log_destroy(g->log);
        g->log = NULL;
    }
    free(data);
    rig_free(g);
}

Test(log_damage, segment_headers_are_checked, .timeout = 120)
{
    static const size_t flipped[] = {0, 8, 12, 16, 24, 40, 48, 56};
    uint64_t first_end;
    struct rig *g = rig_two_runs(&first_end);
    const char *name = "segment-0000000000000001";
    size_t len;

    rig_crash(g);
    unsigned char *data = kit_file_read(g->dir, name, &len);

    for (size_t i = 0; i < sizeof flipped / sizeof flipped[0]; i++) {
        data[flipped[i]] ^= 2;
        kit_file_write(g->dir, name, data, len);
        data[flipped[i]] ^= 2;
        /* Records verify by themselves: a damaged header loses nothing but a jump's link. */
        cr_assert(eq(int, rig_scan(g, 0), 0));
        scree__log_destroy(g->log);
        g->log = NULL;
    }
    unsigned char stamp[16];

    memcpy(stamp, data, 16);
    scree__file_stamp(data, scree__get_u64(data), 2);
    kit_file_write(g->dir, name, data, len);
    cr_assert(eq(int, rig_scan(g, 0), SCREE_E_FORMAT));
    memcpy(data, stamp, 16);
    kit_file_write(g->dir, name, data, len);
    g->options.uuid[0] ^= 1;
    cr_assert(eq(int, rig_scan(g, 0), SCREE_E_CORRUPT));
    g->options.uuid[0] ^= 1;
    kit_file_write(g->dir, "segment-0000000000000002", data, len);
    cr_assert(eq(int, rig_scan(g, 0), SCREE_E_CORRUPT));
    free(data);
    rig_free(g);
}

/* Jump headers are claims: with the log's end damaged, the segment behind the jump gives it away. */
Test(log_damage, in_front_of_a_jump_is_corrupt, .timeout = 120)
{
    uint64_t first_end;
    struct rig *g = rig_two_runs(&first_end);

    rig_crash(g);
    rig_open(g);
    rig_crash(g);
    flip_at(g, g->lsn[79]);
    cr_assert(eq(int, rig_scan(g, 0), SCREE_E_CORRUPT));
    rig_free(g);
}

/* ---- recovery that fails at any point -------------------------------------------------------- */

/* Something to trim, or an empty segment behind a jump, which is a link and is made anew. How many records. */
static uint64_t
restart_prepare(struct rig *g, bool jumped)
{
    rig_crash(g);
    if (jumped) {
        rig_open(g);
        rig_crash(g);
        return g->n;
    }
    flip_at(g, g->lsn[50]);
    g->n = 50;
    return 50;
}

static void
restart_fails(bool jumped)
{
    for (uint64_t at = 1;; at++) {
        uint64_t first_end;
        struct rig *g = rig_two_runs(&first_end);
        uint64_t n = restart_prepare(g, jumped);

        g->options.env = kit_env();
        kit_env_plan(&(struct kit_plan){
            .kinds = KIT_CHANGING, .fault = KIT_FAULT_STUCK, .code = -EIO, .at = at});
        int rc = rig_try_open(g, 0);

        /* Once it succeeds the allocator thread makes calls of its own: a hit tells nothing then. */
        cr_assert(rc == 0 || (rc == -EIO && kit_env_hit()), "call %llu: %d %s",
                  (unsigned long long)at, rc, scree_error_detail());
        if (rc == 0)
            rig_crash(g);
        kit_env_plan(&(struct kit_plan){0});
        rig_open(g);
        cr_assert(eq(u64, g->seen, n), "call %llu", (unsigned long long)at);
        rig_put(g, 1);
        rig_close(g);
        rig_open(g);
        cr_assert(eq(u64, g->seen, n + 1), "call %llu", (unsigned long long)at);
        rig_free(g);
        if (rc == 0) {
            cr_assert(lt(u64, 8, at)); /* rewrite, cut, sync, sync dir twice, header, its syncs */
            break;
        }
        cr_assert(lt(u64, at, 100));
    }
}

Test(log_restart, failing_at_any_call_leaves_a_directory_that_opens, .timeout = 600)
{
    restart_fails(false);
    restart_fails(true);
}

#ifdef SCREE_ALLOC_FAULTS
/* The n-th allocation fails; each time in a directory of its own: a restart that fails late may leave one more
   jump to be followed. The result of the restart. */
static int
restart_short_of_memory(bool jumped, uint64_t n)
{
    uint64_t first_end;
    struct rig *g = rig_two_runs(&first_end);
    uint64_t records = restart_prepare(g, jumped);
    int rc;

    scree__alloc_fault(n, 1);
    rc = rig_scan(g, 0);
    if (rc == 0)
        rc = scree__log_start(g->log, &g->scan, 0);
    scree__alloc_fault_end();
    cr_assert(rc == 0 || rc == SCREE_E_NO_MEMORY, "allocation %llu: %d %s", (unsigned long long)n,
              rc, scree_error_detail());
    rig_crash(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, records));
    rig_put(g, 1);
    rig_close(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, records + 1));
    rig_free(g);
    return rc;
}

static void
restart_without_memory(bool jumped)
{
    uint64_t n = 1;

    while (restart_short_of_memory(jumped, n) != 0)
        n++;
    cr_assert(gt(u64, n, 9));
}

Test(log_restart, every_allocation_may_fail, .timeout = 600)
{
    restart_without_memory(false);
    restart_without_memory(true);
}
#endif

/* A file that became shorter than it was when it was scanned: its end is not made up. */
Test(log_restart, bytes_that_vanish_meanwhile_are_an_error, .timeout = 120)
{
    uint64_t first_end;
    struct rig *g = rig_two_runs(&first_end);
    char path[KIT_PATH_MAX + 64];

    rig_crash(g);
    cr_assert(eq(int, rig_scan(g, 0), 0));
    (void)snprintf(path, sizeof path, "%s/segment-0000000000000001", g->dir);
    cr_assert(eq(int, truncate(path, 4096 + 4000), 0));
    cr_assert(eq(int, scree__log_start(g->log, &g->scan, 0), -EIO));
    cr_assert(ne(ptr, strstr(scree_error_detail(), "vanished since they were scanned"), NULL));
    rig_free(g);
}

/* ---- full disks ------------------------------------------------------------------------------ */

Test(log_space, a_full_disk_refuses_users_and_writing_resumes_by_itself, .timeout = 300)
{
    struct rig *g = rig_make(kit_env());
    int rc = 0;

    kit_env_plan(&(struct kit_plan){0});
    rig_open(g);
    rig_put(g, 1000);
    kit_env_plan(&(struct kit_plan){
        .kinds = KIT_ALLOCATE, .fault = KIT_FAULT_STUCK, .code = -ENOSPC, .at = 1});
    for (int i = 0; i < 1000 && rc == 0; i++)
        rc = rig_try_put(g, 1000);
    cr_assert(eq(int, rc, SCREE_E_NO_SPACE), "%d %s", rc, scree_error_detail());
    cr_assert(eq(int, scree__log_health(g->log), 0));
    /* What was accepted can be made durable, and the library has its reserve. */
    rig_sync(g);
    cr_assert(eq(int, scree__log_admit(g->log, g->writer, 1024, SCREE__LOG_RELIEF, true), 0));
    cr_assert(eq(int, scree__log_admit(g->log, g->writer, 20000, SCREE__LOG_SEAL, true), 0));
    kit_env_plan(&(struct kit_plan){0});
    for (int i = 0; i < 300; i++) {
        usleep(i == 0 ? 30000 : 0); /* the pace at which room is asked for again */
        rig_put(g, 1000);
    }
    rig_close(g);
    rig_open(g);
    cr_assert(eq(u64, g->seen, g->n));
    rig_free(g);
}

Test(log_space, the_disk_limit_is_kept, .timeout = 300)
{
    struct rig *g = rig_make(scree_env_posix());
    struct scree__log_stats stats;
    int rc = 0;

    g->options.disk_limit_bytes = 8 * SEGMENT;
    rig_open(g);
    for (int i = 0; i < 2000 && rc == 0; i++)
        rc = rig_try_put(g, 1000);
    cr_assert(eq(int, rc, SCREE_E_NO_SPACE));
    scree__log_stats(g->log, &stats);
    cr_assert(le(u64, stats.space.disk_bytes, 8 * SEGMENT));
    cr_assert(lt(u64, 6 * SEGMENT, stats.space.disk_bytes));
    rig_sync(g);
    /* Dead segments give the room back. */
    for (uint64_t i = 0; i < g->n; i++)
        scree__log_charge_dead(g->log, g->lsn[i], g->len[i], g->lsn[i] + 8);
    size_t n = scree__log_dead_pick(g->log, scree__log_tail(g->log) + SCREE_BLOCK, true);

    cr_assert(ge(sz, n, 4));
    cr_assert(eq(sz, scree__log_dead_drop(g->log), n));
    rc = rig_try_put(g, 1000);
    if (rc == SCREE_E_NO_SPACE) { /* a moment too early */
        usleep(50000);
        rc = rig_try_put(g, 1000);
    }
    cr_assert(eq(int, rc, 0), "%s", scree_error_detail());
    rig_free(g);
}

/* The allocator may be at it: the figures have to meet in the end. */
static void
disk_recount(struct rig *g)
{
    struct scree__log_stats stats;
    uint64_t on_disk = 0;

    for (int turn = 0; turn < 200; turn++) {
        struct kit_files files;

        scree__log_stats(g->log, &stats);
        kit_dir_list(g->dir, &files);
        on_disk = 0;
        for (size_t i = 0; i < files.n; i++)
            on_disk += strncmp(files.name[i], "segment-", 8) == 0 ? files.size[i] : 0;
        if (on_disk == stats.space.disk_bytes)
            return;
        usleep(10000);
    }
    cr_assert(eq(u64, stats.space.disk_bytes, on_disk));
}

Test(log_space, a_segment_goes_when_all_of_it_died_below_the_floor, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    struct scree__log_stats before, after;

    rig_open(g);
    for (int i = 0; i < 200; i++)
        rig_put(g, 1000);
    rig_sync(g);
    uint64_t death = g->lsn[199];

    scree__log_stats(g->log, &before);
    for (uint64_t i = 0; g->lsn[i] < 2 * SEGMENT; i++) {
        cr_assert(eq(sz, scree__log_dead_pick(g->log, UINT64_MAX, true), 0));
        scree__log_charge_dead(g->log, g->lsn[i], g->len[i], death);
    }
    cr_assert(eq(sz, scree__log_dead_pick(g->log, death, true), 0));
    /* Deaths are kept by block. */
    cr_assert(eq(sz, scree__log_dead_pick(g->log, death + SCREE_BLOCK, true), 1));
    cr_assert(eq(sz, scree__log_dead_drop(g->log), 1));
    scree__log_stats(g->log, &after);
    cr_assert(eq(u64, after.space.segments, before.space.segments - 1));
    cr_assert(eq(u64, after.deleted_bytes, 4096 + SEGMENT));
    disk_recount(g);
    /* What lies there is gone, and says so. */
    struct scree__log_read read = {.page = 1, .lsn = g->lsn[0], .disk_len = g->len[0]};

    cr_assert(eq(int, scree__log_read(g->log, &read, 1), SCREE_E_CORRUPT));
    cr_assert(ne(ptr, strstr(scree_error_detail(), "missing"), NULL));
    scree__log_read_done(&read, 1);
    rig_free(g);
}

Test(log_space, a_recount_agrees_with_the_running_figures, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    struct scree__log_stats before, after;

    rig_open(g);
    for (int i = 0; i < 400; i++)
        rig_put(g, 500);
    for (uint64_t i = 0; i < 400; i += 3)
        scree__log_charge_dead(g->log, g->lsn[i], g->len[i], g->lsn[399]);
    rig_close(g);
    rig_open(g);
    rig_crash(g);
    cr_assert(eq(int, rig_scan(g, 0), 0));
    scree__log_recount_begin(g->log, g->scan.end, g->scan.end);
    for (uint64_t i = 0; i < 400; i++) {
        if (i % 3 != 0)
            scree__log_charge_live(g->log, g->lsn[i], g->len[i]);
    }
    scree__log_recount_end(g->log);
    cr_assert(eq(int, scree__log_start(g->log, &g->scan, 0), 0));
    scree__log_stats(g->log, &after);
    memset(&before, 0, sizeof before);
    for (uint64_t i = 0; i < 400; i++)
        before.space.live_bytes += i % 3 != 0 ? g->len[i] : 0;
    cr_assert(eq(u64, after.space.live_bytes, before.space.live_bytes));
    rig_free(g);
}

/* ---- failing disks --------------------------------------------------------------------------- */

struct waiter {
    pthread_t thread;
    struct rig *g;
    int rc;
    bool for_room;
};

static void *
waiter_main(void *arg)
{
    struct waiter *w = arg;

    if (!w->for_room) {
        w->rc = scree__log_wait_stable(w->g->log, scree__log_tail(w->g->log), UINT64_MAX);
        return NULL;
    }
    struct scree__log_writer *writer = scree__log_writer_attach(w->g->log);
    static uint8_t payload[4096];

    while (w->rc == 0) {
        struct scree__record r = {.kind = SCREE__RECORD_SET,
                                  .page = 1,
                                  .payload = payload,
                                  .payload_len = sizeof payload};

        scree__record_prepare(&r);
        w->rc = scree__log_admit(w->g->log, writer, r.disk_len, SCREE__LOG_USER, true);
        if (w->rc == 0)
            w->rc = scree__log_reserve(w->g->log, writer, &r);
        if (w->rc == 0)
            scree__log_complete(w->g->log, writer);
    }
    return NULL;
}

static void
poison_wakes(unsigned kind)
{
    struct rig *g = rig_make(kit_env());
    struct waiter w[4] = {{.g = g}, {.g = g}, {.g = g, .for_room = true}, {.g = g}};

    kit_env_plan(&(struct kit_plan){0});
    rig_open(g);
    rig_put(g, 1000);
    rig_sync(g);
    rig_put(g, 1000);
    kit_env_plan(&(struct kit_plan){.kinds = kind, .fault = KIT_FAULT_CODE, .code = -EIO, .at = 1});
    for (int i = 0; i < 4; i++)
        cr_assert(eq(int, pthread_create(&w[i].thread, NULL, waiter_main, &w[i]), 0));
    for (int i = 0; i < 4; i++) {
        cr_assert(eq(int, pthread_join(w[i].thread, NULL), 0));
        /* The call that fails may be the allocator's: a sync beside it may still have served a committer. */
        if (w[i].for_room || w[i].rc != 0)
            cr_assert(eq(int, w[i].rc, SCREE_E_POISONED), "waiter %d: %d", i, w[i].rc);
    }
    /* The fault was one call; nothing is tried again, as if it had not happened. */
    uint64_t calls = kit_env_calls();

    cr_assert(eq(int, scree__log_health(g->log), -EIO));
    cr_assert(eq(int, rig_try_put(g, 1), SCREE_E_POISONED));
    cr_assert(eq(int, scree__log_stop(g->log), SCREE_E_POISONED));
    cr_assert(eq(int, scree__log_close_clean(g->log), SCREE_E_POISONED));
    cr_assert(eq(u64, kit_env_calls(), calls));
    /* Reads go on. */
    struct scree__log_read read = {.page = 1, .lsn = g->lsn[0], .disk_len = g->len[0]};

    cr_assert(eq(int, scree__log_read(g->log, &read, 1), 0));
    scree__log_read_done(&read, 1);
    rig_crash(g);
    kit_env_plan(&(struct kit_plan){0});
    cr_assert(eq(int, scree__log_create(&g->options, &g->log), 0));
    cr_assert(eq(int, scree__log_scan(g->log, 0, 0, NULL, NULL, 1, &g->scan), 0));
    cr_assert(ge(u64, g->scan.end, g->lsn[0] + g->len[0]));
    rig_free(g);
}

Test(log_poison, a_failed_write_poisons_and_wakes_everybody, .timeout = 180)
{
    poison_wakes(KIT_WRITE);
}

Test(log_poison, a_failed_sync_poisons_and_wakes_everybody, .timeout = 180)
{
    poison_wakes(KIT_SYNC);
}

/* ---- stable means synced --------------------------------------------------------------------- */

static struct {
    scree_env env;
    _Atomic uint64_t written, synced; /* counts of data writes; those a sync covers */
} watch;

static int64_t
watch_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    int64_t n = scree_env_posix()->write(ctx, file, data, len, offset);
    const char *bytes = data;

    /* Zeros written ahead are no data, and need no sync. */
    if (offset >= 4096 && (bytes[0] != 0 || memcmp(bytes, bytes + 1, len - 1) != 0))
        (void)atomic_fetch_add_explicit(&watch.written, 1, memory_order_seq_cst);
    return n;
}

static int
watch_sync(void *ctx, int file)
{
    uint64_t written = atomic_load_explicit(&watch.written, memory_order_seq_cst);
    int rc = scree_env_posix()->sync(ctx, file);

    atomic_store_explicit(&watch.synced, written, memory_order_seq_cst);
    return rc;
}

Test(log_durable, stable_is_told_after_write_and_sync_only, .timeout = 180)
{
    watch.env = *scree_env_posix();
    watch.env.write = watch_write;
    watch.env.sync = watch_sync;
    struct rig *g = rig_make(&watch.env);

    g->options.segment_bytes = 16 * SEGMENT; /* all in one file */
    rig_open(g);
    for (int i = 0; i < 10; i++) {
        usleep(40000); /* whatever is still under way, a sync told too early too, is over then */
        uint64_t before = atomic_load_explicit(&watch.synced, memory_order_seq_cst);
        uint64_t end = rig_put(g, 200);

        scree__log_request_stable(g->log, end);
        while (scree__log_stable(g->log) < end)
            scree__cpu_relax();
        cr_assert(lt(u64, before, atomic_load_explicit(&watch.synced, memory_order_seq_cst)));
        cr_assert(eq(u64, atomic_load_explicit(&watch.synced, memory_order_seq_cst),
                     atomic_load_explicit(&watch.written, memory_order_seq_cst)));
    }
    rig_free(g);
}

Test(log_durable, the_flusher_syncs_by_itself_at_the_bound, .timeout = 180)
{
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g); /* interval 0: only on demand */
    for (int i = 0; i < 2000; i++) {
        rig_put(g, 2000);
        cr_assert(le(u64, scree__log_tail(g->log) - scree__log_stable(g->log),
                     RING * (LOG_UNSYNCED_RINGS + 2)));
    }
    rig_free(g);
}

Test(log_durable, the_interval_makes_everything_stable, .timeout = 180)
{
    struct rig *g = rig_make(scree_env_posix());

    g->options.flush_interval_ms = 5;
    rig_open(g);
    uint64_t end = rig_put(g, 200);

    while (scree__log_stable(g->log) < end)
        usleep(1000);
    rig_free(g);
}

/* Puts until it cannot: alone, or as batches. */
struct filler {
    pthread_t thread;
    struct rig *g;
    struct scree__log_writer *writer;
    bool batches;
    int rc;
};

static void *
filler_run(void *arg)
{
    struct filler *f = arg;
    struct scree__log *log = f->g->log;

    while (f->rc == 0) {
        static const uint8_t payload[1000];
        struct scree__record r[2] = {{0},
                                     {.kind = SCREE__RECORD_DELTA,
                                      .flags = f->batches ? SCREE__RECORD_IN_BATCH : 0,
                                      .page = 3,
                                      .payload = payload,
                                      .payload_len = sizeof payload}};
        unsigned char body[SCREE__BATCH_BODY_BYTES];

        scree__record_prepare(&r[1]);
        uint32_t bytes = f->batches ? scree__log_batch_prepare(r, 2, body) : r[1].disk_len;

        f->rc = scree__log_admit(log, f->writer, bytes, SCREE__LOG_USER, true);
        if (f->rc == 0)
            f->rc = f->batches ? scree__log_reserve_batch(log, f->writer, r, 2)
                               : scree__log_reserve(log, f->writer, &r[1]);
        if (f->rc == 0)
            scree__log_complete(log, f->writer);
    }
    return NULL;
}

/* An open reservation keeps the ring from being written: who fills it waits, until the log is poisoned. */
Test(log_poison, wakes_who_waits_for_room_in_the_ring, .timeout = 180)
{
    for (unsigned batches = 0; batches < 2; batches++) {
        struct rig *g = rig_make(scree_env_posix());
        struct filler f = {.g = g, .batches = batches != 0};
        struct scree__record r = {.kind = SCREE__RECORD_DELTA, .page = 1, .payload = ""};

        rig_open(g);
        f.writer = scree__log_writer_attach(g->log);
        scree__record_prepare(&r);
        cr_assert(
            eq(int, scree__log_admit(g->log, g->writer, r.disk_len, SCREE__LOG_USER, true), 0));
        cr_assert(eq(int, scree__log_reserve(g->log, g->writer, &r), 0));
        cr_assert(eq(int, pthread_create(&f.thread, NULL, filler_run, &f), 0));
        while (scree__log_tail(g->log) <= r.lsn + RING) /* it waits then, or will in a moment */
            usleep(1000);
        usleep(50 * 1000);
        (void)scree__log_poison(g->log, -EIO, "a test's");
        cr_assert(eq(int, pthread_join(f.thread, NULL), 0));
        cr_assert(eq(int, f.rc, SCREE_E_POISONED));
        scree__log_complete(g->log, g->writer);
        rig_free(g);
    }
}

/* ---- single records -------------------------------------------------------------------------- */

Test(log_read, many_at_once_each_with_its_own_result, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    struct scree__log_read reads[40] = {0};
    struct scree__record r = {.kind = SCREE__RECORD_DELTA};

    rig_open(g);
    for (int i = 0; i < 40; i++) {
        static uint8_t payload[3000];

        r.page = 5 + (uint64_t)i % 3;
        r.payload = payload;
        r.payload_len = (uint32_t)(70 * i);
        scree__record_prepare(&r);
        cr_assert(
            eq(int, scree__log_admit(g->log, g->writer, r.disk_len, SCREE__LOG_USER, true), 0));
        cr_assert(eq(int, scree__log_reserve(g->log, g->writer, &r), 0));
        scree__log_complete(g->log, g->writer);
        reads[i].page = r.page;
        reads[i].lsn = r.lsn;
        reads[i].disk_len = r.disk_len;
    }
    rig_sync(g);
    cr_assert(eq(int, scree__log_read(g->log, reads, 40), 0), "%s", scree_error_detail());
    for (int i = 0; i < 40; i++)
        cr_assert(eq(u32, reads[i].r.payload_len, 70 * i));
    scree__log_read_done(reads, 40);

#ifdef SCREE_ALLOC_FAULTS
    int rc = -1;

    for (uint64_t nth = 1; rc != 0; nth++) {
        scree__alloc_fault(nth, 1);
        rc = scree__log_read(g->log, reads, 40);
        scree__alloc_fault_end();
        cr_assert(rc == 0 || rc == SCREE_E_NO_MEMORY);
        scree__log_read_done(reads, 40);
    }
#endif
    flip_at(g, reads[7].lsn + 26);
    reads[20].disk_len += 8;
    cr_assert(eq(int, scree__log_read(g->log, reads, 40), SCREE_E_CORRUPT));
    for (int i = 0; i < 40; i++)
        cr_assert(eq(int, reads[i].result, i == 7 || i == 20 ? SCREE_E_CORRUPT : 0));
    scree__log_read_done(reads, 40);
    rig_free(g);
}

Test(log_read, positions_that_cannot_be_are_corrupt, .timeout = 120)
{
    static const struct {
        uint64_t lsn;
        uint32_t disk_len;
    } bad[] = {{0, 64},          {SEGMENT + 1, 64},    {SEGMENT, 0},
               {SEGMENT, 16},    {SEGMENT, 65},        {SEGMENT, UINT32_MAX},
               {UINT64_MAX, 64}, {UINT64_MAX - 7, 64}, {SEGMENT * 900, 64}};
    struct rig *g = rig_make(scree_env_posix());

    rig_open(g);
    rig_put(g, 10);
    rig_sync(g);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct scree__log_read read = {.page = 1, .lsn = bad[i].lsn, .disk_len = bad[i].disk_len};

        cr_assert(eq(int, scree__log_read(g->log, &read, 1), SCREE_E_CORRUPT));
        scree__log_read_done(&read, 1);
    }
    struct scree__log_read read = {.page = 2, .lsn = g->lsn[0], .disk_len = g->len[0]};

    cr_assert(eq(int, scree__log_read(g->log, &read, 1), SCREE_E_CORRUPT)); /* another page's */
    cr_assert(ne(ptr, strstr(scree_error_detail(), "page 2"), NULL));
    scree__log_read_done(&read, 1);
    rig_free(g);
}

Test(log_options, sizes_out_of_range_are_invalid)
{
    struct rig *g = rig_make(scree_env_posix());

    g->options.segment_bytes = SEGMENT + 1;
    cr_assert(eq(int, scree__log_create(&g->options, &g->log), SCREE_E_INVALID));
    g->options.segment_bytes = 4096;
    cr_assert(eq(int, scree__log_create(&g->options, &g->log), SCREE_E_INVALID));
    g->options.segment_bytes = SEGMENT;
    g->options.ring_bytes = RING + 4096;
    cr_assert(eq(int, scree__log_create(&g->options, &g->log), SCREE_E_INVALID));
    g->options.ring_bytes = RING / 2;
    cr_assert(eq(int, scree__log_create(&g->options, &g->log), SCREE_E_INVALID));
    g->options.ring_bytes = 2 * LOG_RING_BYTES_MAX;
    cr_assert(eq(int, scree__log_create(&g->options, &g->log), SCREE_E_INVALID));
    g->options.ring_bytes = RING;
    g->options.segment_bytes = 2 * LOG_SEGMENT_BYTES_MAX;
    cr_assert(eq(int, scree__log_create(&g->options, &g->log), SCREE_E_INVALID));
    rig_free(g);
}

/* ---- the worked example of docs/log_format.md ------------------------------------------------ */

/* Rows of 16 bytes that are not all zero, as "%08zx  xx xx ...". */
static size_t
dump_rows(const unsigned char *data, size_t len, char rows[][64], size_t cap)
{
    size_t n = 0;

    for (size_t at = 0; at + 16 <= len; at += 16) {
        size_t zeros = 0;
        int used;

        for (size_t i = 0; i < 16; i++)
            zeros += data[at + i] == 0;
        if (zeros == 16)
            continue;
        cr_assert(lt(sz, n, cap));
        used = snprintf(rows[n], 64, "%08zx ", at);
        for (size_t i = 0; i < 16; i++)
            used += snprintf(rows[n] + used, 64 - (size_t)used, " %02x", data[at + i]);
        n++;
    }
    return n;
}

Test(log_format, the_worked_example_is_what_is_written, .timeout = 120)
{
    struct rig *g = rig_make(scree_env_posix());
    struct scree__record r = {
        .kind = SCREE__RECORD_DELTA, .page = 7, .payload = "hello", .payload_len = 5};
    char rows[32][64], path[KIT_PATH_MAX], line[256];
    size_t len;

    rig_open(g);
    scree__record_prepare(&r);
    cr_assert(eq(int, scree__log_admit(g->log, g->writer, r.disk_len, SCREE__LOG_USER, true), 0));
    cr_assert(eq(int, scree__log_reserve(g->log, g->writer, &r), 0));
    scree__log_complete(g->log, g->writer);
    rig_close(g);
    unsigned char *data = kit_file_read(g->dir, "segment-0000000000000001", &len);

    cr_assert(eq(sz, len, 8192));
    size_t n = dump_rows(data, len, rows, 32), at = 0;

    /* The document lies beside the tests. */
    (void)snprintf(path, sizeof path, "%.*s../../docs/log_format.md",
                   (int)(strrchr(__FILE__, '/') + 1 - __FILE__), __FILE__);
    FILE *doc = fopen(path, "r");

    cr_assert(ne(ptr, doc, NULL), "%s", path);
    while (fgets(line, sizeof line, doc) != NULL) {
        if (strlen(line) < 57 || strspn(line, "0123456789abcdef") != 8)
            continue;
        cr_assert(lt(sz, at, n));
        cr_assert(eq(int, strncmp(line, rows[at], 57), 0), "%s is not %s", line, rows[at]);
        at++;
    }
    (void)fclose(doc);
    cr_assert(eq(sz, at, n));
    free(data);
    rig_free(g);
}
