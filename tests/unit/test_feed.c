/*
 * test_feed.c - the contract of scree_log_*, sentence by sentence. Readers beside writers are stress_feed's
 * matter.
 */
#include "cache_fixture.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static scree_log_record rec = {.size = sizeof(scree_log_record)};

static void
setup(void)
{
    kit_dir_name(dir, "feed");
    kit_options_small(&options, &kit_concat);
    open_cache();
}

TestSuite(feed, .init = setup, .fini = teardown, .timeout = 300);

static scree_lsn
flush(void)
{
    scree_lsn lsn;

    EXPECT(0, scree_flush(cache, &lsn));
    return lsn;
}

static scree_log_reader *
reader_at(scree_lsn from)
{
    scree_log_reader *reader;

    EXPECT(0, scree_log_open(cache, from, &reader));
    return reader;
}

/* The next record is this one; its `next`. */
static scree_lsn
expect_record(scree_log_reader *reader, int kind, scree_page_id page, scree_version version,
              const char *payload)
{
    EXPECT(0, scree_log_next(reader, 0, &rec));
    cr_assert(rec.kind == kind && rec.page == page, "kind %d of page %llu", rec.kind,
              (unsigned long long)rec.page);
    cr_assert(rec.version == version, "version %llu, not %llu", (unsigned long long)rec.version,
              (unsigned long long)version);
    cr_assert(rec.payload.len == strlen(payload) &&
                  memcmp(rec.payload.data, payload, rec.payload.len) == 0,
              "payload '%.*s'", (int)rec.payload.len, (const char *)rec.payload.data);
    cr_assert(rec.lsn >= options.segment_bytes && rec.size == sizeof rec);
    return rec.next;
}

static scree_lsn
expect_end(scree_log_reader *reader)
{
    EXPECT(SCREE_E_TIMEOUT, scree_log_next(reader, 0, &rec));
    cr_assert(rec.lsn == 0 && rec.kind == 0 && rec.page == 0 && rec.payload.len == 0);
    return rec.next;
}

/* Writes and forgets until what was written first can be given back. */
static void
churn(unsigned pages)
{
    char bytes[3000];

    memset(bytes, 'c', sizeof bytes);
    for (unsigned i = 0; i < pages; i++)
        EXPECT(0, scree_page_put(cache, SCREE_PAGE_ROOT, kit_slice(bytes, sizeof bytes), NULL));
}

static uint64_t
pinned(void)
{
    scree_stats stats = {.size = sizeof stats};

    EXPECT(0, scree_stats_get(cache, &stats));
    return stats.pinned_bytes;
}

Test(feed, a_new_directory_has_nothing_to_tell)
{
    scree_log_reader *reader = reader_at(0);
    scree_lsn oldest;

    EXPECT(0, scree_log_oldest(cache, &oldest));
    cr_assert(oldest == options.segment_bytes);
    cr_assert(expect_end(reader) == scree_stable_lsn(cache));
    scree_log_close(reader);
}

Test(feed, tells_every_kind_of_update_with_its_version_and_payload)
{
    scree_log_reader *reader;
    scree_page_id a;
    scree_version v[8];
    scree_lsn lsn[8];

    reopen(); /* the snapshot of the next close will be the second */
    reader = reader_at(0);
    EXPECT(0, scree_page_allocate(cache, text("a"), &a, &v[0]));
    EXPECT(0, scree_page_append(cache, a, text("1"), &v[1]));
    v[2] = v[1];
    EXPECT(0, scree_page_merge(cache, a, &v[2], text("")));
    EXPECT(0, scree_page_put(cache, a, text("set"), &v[3]));
    v[4] = v[3];
    EXPECT(0, scree_page_set(cache, a, &v[4], text("")));
    EXPECT(0, scree_page_allocate_at(cache, 1u << 30, text(""), &v[5]));
    v[6] = v[4];
    EXPECT(0, scree_page_free(cache, a, &v[6]));
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("root"), &v[7]));
    (void)flush();
    lsn[0] = expect_record(reader, SCREE_RECORD_ALLOCATE, a, v[0], "a");
    cr_assert(rec.flags == 0 && rec.next == v[0]);
    lsn[1] = expect_record(reader, SCREE_RECORD_DELTA, a, v[1], "1");
    lsn[2] = expect_record(reader, SCREE_RECORD_DELTA, a, v[2], "");
    lsn[3] = expect_record(reader, SCREE_RECORD_SET, a, v[3], "set");
    lsn[4] = expect_record(reader, SCREE_RECORD_SET, a, v[4], "");
    lsn[5] = expect_record(reader, SCREE_RECORD_ALLOCATE, 1u << 30, v[5], "");
    cr_assert(rec.flags == SCREE_RECORD_CHOSEN_ID);
    lsn[6] = expect_record(reader, SCREE_RECORD_FREE, a, v[6], "");
    lsn[7] = expect_record(reader, SCREE_RECORD_DELTA, SCREE_PAGE_ROOT, v[7], "root");
    cr_assert(expect_end(reader) >= lsn[7]);
    scree_log_close(reader);
    reopen();
    reader = reader_at(lsn[2]);
    (void)expect_record(reader, SCREE_RECORD_SET, a, v[3], "set");
    scree_log_close(reader);
    reader = reader_at(lsn[7]);
    (void)expect_end(reader);
    scree_log_close(reader);
}

Test(feed, a_batch_comes_whole_and_begins_again_whole)
{
    scree_log_reader *reader;
    scree_version v;
    scree_page_id a, n;
    scree_batch *batch;
    scree_lsn lsn, begin;

    EXPECT(0, scree_page_allocate(cache, text("a"), &a, &v));
    EXPECT(0, scree_batch_begin(cache, &batch));
    EXPECT(0, scree_batch_allocate(batch, text("n"), &n));
    EXPECT(0, scree_batch_merge(batch, a, v, text("1")));
    EXPECT(0, scree_batch_free(batch, a, v));
    EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
    (void)flush();
    reader = reader_at(0);
    (void)expect_record(reader, SCREE_RECORD_ALLOCATE, a, v, "a");
    for (int times = 0; times < 2; times++) {
        begin = expect_record(reader, SCREE_RECORD_ALLOCATE, n, lsn, "n");
        cr_assert(rec.flags == SCREE_RECORD_MORE && begin < rec.lsn);
        cr_assert(begin == expect_record(reader, SCREE_RECORD_DELTA, a, lsn, "1"));
        cr_assert(rec.flags == SCREE_RECORD_MORE);
        scree_lsn within = rec.lsn;

        cr_assert(lsn == expect_record(reader, SCREE_RECORD_FREE, a, lsn, ""));
        cr_assert(rec.flags == 0);
        scree_log_close(reader);
        EXPECT(SCREE_E_INVALID, scree_log_open(cache, within, &reader));
        reader = reader_at(begin);
    }
    scree_log_close(reader);
}

Test(feed, tells_nothing_before_it_is_stable)
{
    scree_log_reader *reader;

    EXPECT(0, scree_close(cache));
    options.flush_interval_ms = 0;
    EXPECT(0, scree_open(dir, &options, &cache));
    reader = reader_at(flush());
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("x"), NULL));
    (void)expect_end(reader);
    EXPECT(SCREE_E_TIMEOUT, scree_log_next(reader, 20, &rec));
    (void)flush();
    EXPECT(0, scree_log_next(reader, 0, &rec));
    scree_log_close(reader);
}

Test(feed, any_other_number_is_no_position)
{
    scree_lsn valid[64], end;
    size_t n = 0;
    scree_log_reader *reader;

    for (int i = 0; i < 5; i++) {
        EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("some fragment"), NULL));
        valid[n++] = flush();
    }
    end = flush();
    reader = reader_at(0);
    while (scree_log_next(reader, 0, &rec) == 0) {
        valid[n++] = rec.lsn;
        valid[n++] = rec.next;
    }
    scree_log_close(reader);
    EXPECT(SCREE_E_INVALID, scree_log_open(cache, 8, &reader));
    EXPECT(SCREE_E_INVALID, scree_log_open(cache, options.segment_bytes - 8, &reader));
    EXPECT(SCREE_E_INVALID, scree_log_open(cache, end + 8, &reader));
    EXPECT(SCREE_E_INVALID, scree_log_open(cache, UINT64_MAX, &reader));
    for (scree_lsn at = options.segment_bytes; at < end; at++) {
        bool is_valid = false;
        int rc = scree_log_open(cache, at, &reader);

        for (size_t i = 0; i < n; i++)
            is_valid |= valid[i] == at;
        cr_assert(rc == 0 || (rc == SCREE_E_INVALID && !is_valid), "%llu gave %d",
                  (unsigned long long)at, rc);
        cr_assert(rc != 0 || at % 8 == 0);
        scree_log_close(reader); /* a seal's beginning, or the root's, is a position too */
    }
}

Test(feed, goes_on_from_a_position_over_crashes_and_the_jumps_behind_them)
{
    scree_lsn at = flush(), *told = NULL;
    unsigned next = 0;

    EXPECT(0, scree_close(cache));
    told = &at;
    for (unsigned round = 0; round < 6; round++) {
        pid_t child = fork();
        scree_log_reader *reader;
        int status;

        if (child == 0) {
            if (scree_open(dir, &options, &cache) != 0)
                _exit(1);
            for (unsigned i = 0; i < 100; i++) {
                unsigned number = round * 100 + i;

                if (scree_page_put(cache, SCREE_PAGE_ROOT, kit_slice(&number, sizeof number),
                                   NULL) != 0)
                    _exit(2);
            }
            _exit(scree_flush(cache, NULL) == 0 ? 0 : 3);
        }
        cr_assert(waitpid(child, &status, 0) == child && status == 0, "child: %d", status);
        if (round % 2 == 1)
            continue;
        EXPECT(0, scree_open(dir, &options, &cache));
        reader = reader_at(*told);
        while (scree_log_next(reader, 0, &rec) == 0) {
            cr_assert(rec.payload.len == sizeof next &&
                      memcmp(rec.payload.data, &next, sizeof next) == 0);
            next++;
            *told = rec.next;
        }
        if (round == 2)
            *told = rec.next; /* of the TIMEOUT */
        scree_log_close(reader);
        EXPECT(0, scree_close(cache));
    }
    cr_assert(next == 500, "%u", next);
    EXPECT(0, scree_open(dir, &options, &cache));
}

Test(feed, an_open_reader_keeps_what_it_has_not_read_and_no_more)
{
    scree_log_reader *reader = reader_at(0), *late;
    scree_stats before = {.size = sizeof before}, after = {.size = sizeof after};
    unsigned told = 0;

    churn(300);
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    cr_assert(pinned() >= 600 * 1024, "%llu bytes are pinned", (unsigned long long)pinned());
    EXPECT(0, scree_stats_get(cache, &before));
    while (scree_log_next(reader, 0, &rec) == 0)
        told += rec.kind == SCREE_RECORD_SET;
    cr_assert(told == 300, "%u", told);
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    cr_assert(pinned() == 0, "%llu", (unsigned long long)pinned());
    EXPECT(0, scree_stats_get(cache, &after));
    cr_assert(after.disk_bytes + 600 * 1024 < before.disk_bytes, "%llu, then %llu",
              (unsigned long long)before.disk_bytes, (unsigned long long)after.disk_bytes);
    scree_log_close(reader);
    EXPECT(SCREE_E_NOT_FOUND, scree_log_open(cache, options.segment_bytes, &late));
    cr_assert(late == NULL);
}

Test(feed, without_a_reader_the_past_goes_and_the_oldest_position_is_told)
{
    scree_log_reader *reader;
    scree_lsn oldest, position;
    unsigned told = 0;

    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("x"), NULL));
    position = flush();
    churn(300);
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    EXPECT(SCREE_E_NOT_FOUND, scree_log_open(cache, position, &reader));
    EXPECT(0, scree_log_oldest(cache, &oldest));
    cr_assert(oldest > position);
    churn(3);
    (void)flush();
    reader = reader_at(oldest);
    while (scree_log_next(reader, 0, &rec) == 0)
        told++;
    cr_assert(told >= 3 && told <= 303);
    scree_log_close(reader);
    reopen();
    EXPECT(SCREE_E_NOT_FOUND, scree_log_open(cache, position, &reader));
    reader = reader_at(0);
    scree_log_close(reader);
}

Test(feed, the_library_s_own_records_are_not_told)
{
    scree_log_reader *reader = reader_at(0);
    scree_page_id id[50];
    char bytes[1000];
    unsigned sets = 0, deltas = 0;

    memset(bytes, 'p', sizeof bytes);
    for (unsigned i = 0; i < 50; i++) {
        EXPECT(0, scree_page_allocate(cache, kit_slice(bytes, sizeof bytes), &id[i], NULL));
        for (unsigned j = 0; j < 20; j++) /* consolidated at 4 */
            EXPECT(0, scree_page_append(cache, id[i], text("f"), NULL));
    }
    churn(200);
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL)); /* moves the pages */
    while (scree_log_next(reader, 0, &rec) == 0) {
        sets += rec.kind == SCREE_RECORD_SET;
        deltas += rec.kind == SCREE_RECORD_DELTA;
        cr_assert(rec.kind != SCREE_RECORD_ALLOCATE || rec.payload.len == sizeof bytes);
    }
    cr_assert(sets == 200 && deltas == 1000, "%u, %u", sets, deltas);
    scree_log_close(reader);
}

Test(feed, payloads_come_as_they_were_given_whatever_their_size)
{
    static unsigned char bytes[100000], same[100000];
    scree_log_reader *reader;

    EXPECT(0, scree_close(cache));
    options.compression_level = 3;
    options.log_buffer_bytes = 1 << 20;
    options.cache_bytes = 1 << 20;
    options.page_bytes_max = sizeof bytes;
    EXPECT(0, scree_open(dir, &options, &cache));
    reader = reader_at(flush());
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)kit_hash(&i, sizeof i, 0);
    memset(same, 's', sizeof same);
    for (size_t len = 1; len <= sizeof bytes; len *= 10) {
        EXPECT(0, scree_page_put(cache, SCREE_PAGE_ROOT, kit_slice(bytes, len), NULL));
        EXPECT(0, scree_page_put(cache, SCREE_PAGE_ROOT, kit_slice(same, len), NULL));
    }
    (void)flush();
    for (size_t len = 1; len <= sizeof bytes; len *= 10) {
        EXPECT(0, scree_log_next(reader, 0, &rec));
        cr_assert(rec.payload.len == len && memcmp(rec.payload.data, bytes, len) == 0);
        EXPECT(0, scree_log_next(reader, 0, &rec));
        cr_assert(rec.payload.len == len && memcmp(rec.payload.data, same, len) == 0);
    }
    (void)expect_end(reader);
    scree_log_close(reader);
}

static void *
append_soon(void *arg)
{
    usleep(30 * 1000);
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("soon"), arg));
    return NULL;
}

Test(feed, waits_for_what_comes_and_several_readers_see_the_same)
{
    scree_log_reader *a = reader_at(0), *b = reader_at(0);
    scree_version v;
    pthread_t thread;

    (void)pthread_create(&thread, NULL, append_soon, &v);
    EXPECT(0, scree_log_next(a, -1, &rec));
    cr_assert(rec.kind == SCREE_RECORD_DELTA && rec.payload.len == 4);
    EXPECT(0, scree_log_next(b, 10000, &rec));
    (void)pthread_join(thread, NULL);
    cr_assert(rec.version == v);
    EXPECT(SCREE_E_TIMEOUT, scree_log_next(a, 5, &rec));
    EXPECT(SCREE_E_BUSY, scree_close(cache));
    scree_log_close(a);
    EXPECT(SCREE_E_BUSY, scree_close(cache));
    scree_log_close(b);
    scree_log_close(NULL);
}

Test(feed, a_read_only_cache_is_read_to_its_end)
{
    scree_log_reader *reader;
    scree_version v;

    reopen();
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("x"), &v));
    EXPECT(0, scree_close(cache));
    options.flags = SCREE_READ_ONLY;
    EXPECT(0, scree_open(dir, &options, &cache));
    reader = reader_at(0);
    (void)expect_record(reader, SCREE_RECORD_DELTA, SCREE_PAGE_ROOT, v, "x");
    EXPECT(SCREE_E_TIMEOUT, scree_log_next(reader, -1, &rec));
    scree_log_close(reader);
}

static void *
poison_soon(void *arg)
{
    struct kit_plan plan = {
        .kinds = KIT_WRITE | KIT_SYNC, .fault = KIT_FAULT_STUCK, .code = -5, .at = 1};

    usleep(20 * 1000);
    kit_env_plan(&plan);
    return scree_page_append(cache, SCREE_PAGE_ROOT, text("lost"), NULL) == 0 ? arg : NULL;
}

Test(feed, poison_wakes_and_is_told_behind_what_is_stable)
{
    scree_log_reader *reader;
    scree_version v;
    pthread_t thread;

    EXPECT(0, scree_close(cache));
    options.env = kit_env();
    EXPECT(0, scree_open(dir, &options, &cache));
    reader = reader_at(0);
    (void)pthread_create(&thread, NULL, poison_soon, NULL);
    EXPECT(SCREE_E_POISONED, scree_log_next(reader, -1, &rec));
    (void)pthread_join(thread, NULL);
    scree_log_close(reader);
    kit_env_plan(&(struct kit_plan){.kinds = 0});
    (void)scree_close(cache);
    EXPECT(0, scree_open(dir, &options, &cache));
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("x"), &v));
    (void)flush();
    reader = reader_at(0);
    (void)poison_soon(NULL);
    (void)expect_record(reader, SCREE_RECORD_DELTA, SCREE_PAGE_ROOT, v, "x");
    EXPECT(SCREE_E_POISONED, scree_log_next(reader, -1, &rec));
    scree_log_close(reader);
    kit_env_plan(&(struct kit_plan){.kinds = 0});
    (void)scree_close(cache);
    cache = NULL;
}

Test(feed, damage_is_told_with_file_and_position_and_passes_nothing_over)
{
    scree_log_reader *reader;
    scree_lsn lsn;
    size_t len;
    unsigned char *file;

    for (int i = 0; i < 3; i++)
        EXPECT(0, scree_page_put(cache, SCREE_PAGE_ROOT, text("a payload to be damaged"), NULL));
    (void)flush();
    reader = reader_at(0);
    EXPECT(0, scree_log_next(reader, 0, &rec));
    lsn = rec.next;
    scree_log_close(reader);
    file = kit_file_read(dir, "segment-0000000000000001", &len);
    file[4096 + lsn - options.segment_bytes + 30] ^= 1;
    kit_file_write(dir, "segment-0000000000000001", file, len);
    free(file);
    reader = reader_at(0);
    EXPECT(0, scree_log_next(reader, 0, &rec));
    for (int i = 0; i < 2; i++) {
        EXPECT(SCREE_E_CORRUPT, scree_log_next(reader, 0, &rec));
        cr_assert(strstr(scree_error_detail(), "segment-0000000000000001") != NULL);
        cr_assert(rec.lsn == 0);
    }
    scree_log_close(reader);
    EXPECT(SCREE_E_INVALID, scree_log_open(cache, lsn, &reader));
}

Test(feed, mistakes_are_told)
{
    scree_log_reader *reader = (void *)&rec;
    scree_log_record small = {.size = 3};
    scree_lsn lsn = 7;

    EXPECT(SCREE_E_INVALID, scree_log_open(NULL, 0, &reader));
    cr_assert(reader == NULL);
    EXPECT(SCREE_E_INVALID, scree_log_open(cache, 0, NULL));
    EXPECT(SCREE_E_INVALID, scree_log_next(NULL, 0, &rec));
    EXPECT(SCREE_E_INVALID, scree_log_oldest(NULL, &lsn));
    cr_assert(lsn == 0);
    EXPECT(SCREE_E_INVALID, scree_log_oldest(cache, NULL));
    reader = reader_at(0);
    EXPECT(SCREE_E_INVALID, scree_log_next(reader, 0, NULL));
    EXPECT(SCREE_E_INVALID, scree_log_next(reader, 0, &small));
    scree_log_close(reader);
}
