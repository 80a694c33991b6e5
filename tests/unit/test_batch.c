/*
 * test_batch.c - the contract of batches, sentence by sentence. What threads see is stress_batch's matter, what
 * crashes leave is crash_batch's.
 */
#include "base/base.h"
#include "cache_fixture.h"
#include "unit/claims.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void
setup(void)
{
    kit_dir_name(dir, "batch");
    kit_options_small(&options, &kit_concat);
    EXPECT(0, scree_open(dir, &options, &cache));
}

/* The page reads so; its version. */
static scree_version
expect_page(scree_page_id id, const char *wanted)
{
    char bytes[8192];
    scree_version version;
    size_t len;

    EXPECT(0, scree_page_read(cache, id, bytes, sizeof bytes, &len, &version));
    cr_assert(len == strlen(wanted) && memcmp(bytes, wanted, len) == 0, "page %llu: %.*s",
              (unsigned long long)id, (int)len, bytes);
    return version;
}

static scree_page_id
page(const char *s, scree_version *version_out)
{
    scree_page_id id;

    EXPECT(0, scree_page_allocate(cache, text(s), &id, version_out));
    return id;
}

static scree_batch *
begin(void)
{
    scree_batch *batch;

    EXPECT(0, scree_batch_begin(cache, &batch));
    return batch;
}

TestSuite(batch, .init = setup, .fini = teardown);

Test(batch, all_steps_happen_and_carry_the_batch_s_version)
{
    scree_version va, vb, vc;
    scree_page_id a = page("a", &va), b = page("b", &vb), c = page("c", &vc), d;
    scree_batch *batch = begin();
    scree_lsn lsn;

    EXPECT(0, scree_batch_merge(batch, b, vb, text("2")));
    EXPECT(0, scree_batch_set(batch, a, va, text("A")));
    EXPECT(0, scree_batch_allocate(batch, text("d"), &d));
    EXPECT(0, scree_batch_free(batch, c, vc));
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, d, NULL, 0, NULL, NULL));
    (void)expect_page(a, "a");
    EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
    cr_assert(expect_page(a, "A") == lsn);
    cr_assert(expect_page(b, "b2") == lsn);
    cr_assert(expect_page(d, "d") == lsn);
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, c, NULL, 0, NULL, NULL));
    EXPECT(0, scree_wait_stable(cache, lsn, -1));
    reopen();
    cr_assert(expect_page(a, "A") == lsn);
    cr_assert(expect_page(b, "b2") == lsn);
    cr_assert(expect_page(d, "d") == lsn);
}

Test(batch, steps_on_one_page_apply_in_order)
{
    scree_version v;
    scree_page_id a = page("a", &v), n;
    scree_batch *batch = begin();

    EXPECT(0, scree_batch_merge(batch, a, v, text("1")));
    EXPECT(0, scree_batch_set(batch, a, v, text("x")));
    EXPECT(0, scree_batch_merge(batch, a, v, text("y")));
    EXPECT(0, scree_batch_check(batch, a, v));
    EXPECT(0, scree_batch_merge(batch, a, v, text("z")));
    EXPECT(0, scree_batch_allocate(batch, kit_slice(NULL, 0), &n));
    EXPECT(0, scree_batch_merge(batch, n, 0, text("new")));
    EXPECT(0, scree_batch_commit(batch, &v, NULL));
    cr_assert(expect_page(a, "xyz") == v);
    cr_assert(expect_page(n, "new") == v);
    reopen();
    cr_assert(expect_page(a, "xyz") == v);
    cr_assert(expect_page(n, "new") == v);
}

Test(batch, a_conflict_names_the_first_step_s_page_and_changes_nothing)
{
    scree_version va, vb, vc, stale;
    scree_page_id a = page("a", &va), b = page("b", &vb), c = page("c", &vc), conflict, n;
    scree_batch *batch = begin();

    stale = vb;
    EXPECT(0, scree_page_merge(cache, b, &vb, text("!")));
    EXPECT(0, scree_batch_set(batch, c, vc, text("C")));
    EXPECT(0, scree_batch_allocate(batch, text("n"), &n));
    EXPECT(0, scree_batch_set(batch, b, stale, text("B")));
    EXPECT(0, scree_batch_set(batch, a, va + 8, text("A")));
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, &conflict));
    cr_assert(conflict == b);
    cr_assert(expect_page(a, "a") == va);
    cr_assert(expect_page(b, "b!") == vb);
    cr_assert(expect_page(c, "c") == vc);
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, n, NULL, 0, NULL, NULL));
}

Test(batch, expected_0_conflicts_and_a_dead_page_is_not_found)
{
    scree_version v;
    scree_page_id a = page("a", &v), conflict;
    scree_batch *batch = begin();

    EXPECT(0, scree_batch_merge(batch, a, 0, text("1")));
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, &conflict));
    cr_assert(conflict == a);
    batch = begin();
    EXPECT(0, scree_batch_merge(batch, a, v, text("1")));
    EXPECT(0, scree_batch_merge(batch, 7777, 1, text("1")));
    EXPECT(SCREE_E_NOT_FOUND, scree_batch_commit(batch, NULL, &conflict));
    cr_assert(conflict == 7777);
    (void)expect_page(a, "a");
}

Test(batch, checks_alone_validate_and_write_nothing)
{
    scree_version va, vb;
    scree_page_id a = page("a", &va), b = page("b", &vb), conflict;
    scree_stats before = {.size = sizeof before}, after = {.size = sizeof after};
    scree_batch *batch = begin();
    scree_lsn lsn;

    EXPECT(0, scree_stats_get(cache, &before));
    EXPECT(0, scree_batch_check(batch, b, vb));
    EXPECT(0, scree_batch_check(batch, a, va));
    EXPECT(0, scree_batch_commit(batch, &lsn, &conflict));
    cr_assert(lsn == vb && conflict == 0);
    EXPECT(0, scree_stats_get(cache, &after));
    cr_assert(before.merges + before.sets == after.merges + after.sets);
    EXPECT(0, scree_page_append(cache, a, text("1"), NULL));
    batch = begin();
    EXPECT(0, scree_batch_check(batch, b, vb));
    EXPECT(0, scree_batch_check(batch, a, va));
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, &lsn, &conflict));
    cr_assert(conflict == a);
}

Test(batch, a_check_beside_writes_must_hold_and_leaves_its_page_alone)
{
    scree_version va, vb;
    scree_page_id a = page("a", &va), b = page("b", &vb), conflict;
    scree_batch *batch = begin();

    EXPECT(0, scree_batch_check(batch, a, va));
    EXPECT(0, scree_batch_merge(batch, b, vb, text("1")));
    EXPECT(0, scree_batch_commit(batch, NULL, NULL));
    cr_assert(expect_page(a, "a") == va);
    EXPECT(0, scree_page_append(cache, a, text("1"), NULL));
    batch = begin();
    EXPECT(0, scree_batch_check(batch, a, va));
    EXPECT(0, scree_batch_merge(batch, b, expect_page(b, "b1"), text("2")));
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, &conflict));
    cr_assert(conflict == a);
    (void)expect_page(b, "b1");
}

Test(batch, an_aborted_one_never_was_and_its_ids_come_again)
{
    scree_version v;
    scree_page_id a = page("a", &v), n, again;
    scree_batch *batch = begin();
    bool came = false;

    EXPECT(0, scree_batch_allocate(batch, text("n"), &n));
    EXPECT(0, scree_batch_set(batch, a, v, text("A")));
    EXPECT(SCREE_E_BUSY, scree_close(cache));
    scree_batch_abort(batch);
    scree_batch_abort(NULL);
    cr_assert(expect_page(a, "a") == v);
    for (int i = 0; i < 1000 && !came; i++) {
        again = page("p", NULL);
        came = again == n;
    }
    cr_assert(came, "id %llu is lost", (unsigned long long)n);
}

Test(batch, nothing_comes_after_a_free)
{
    scree_version v;
    scree_page_id a = page("a", &v);
    scree_batch *batch = begin();

    EXPECT(0, scree_batch_free(batch, a, v));
    EXPECT(0, scree_batch_merge(batch, a, v, text("1")));
    EXPECT(SCREE_E_INVALID, scree_batch_commit(batch, NULL, NULL));
    (void)expect_page(a, "a");
    batch = begin();
    EXPECT(SCREE_E_INVALID, scree_batch_free(batch, SCREE_PAGE_ROOT, v));
    scree_batch_abort(batch);
}

Test(batch, mistakes_are_told)
{
    scree_batch *batch = NULL;
    scree_page_id id;
    scree_lsn lsn = 1;

    EXPECT(SCREE_E_INVALID, scree_batch_begin(cache, NULL));
    EXPECT(SCREE_E_INVALID, scree_batch_begin(NULL, &batch));
    batch = begin();
    EXPECT(SCREE_E_INVALID, scree_batch_set(batch, 0, 1, text("x")));
    EXPECT(SCREE_E_INVALID, scree_batch_set(NULL, 1, 1, text("x")));
    EXPECT(SCREE_E_INVALID, scree_batch_merge(batch, 1, 1, kit_slice(NULL, 4)));
    EXPECT(SCREE_E_INVALID, scree_batch_allocate(batch, text("x"), NULL));
    EXPECT(SCREE_E_INVALID, scree_batch_allocate(NULL, text("x"), &id));
    EXPECT(SCREE_E_INVALID, scree_batch_commit(NULL, NULL, NULL));
    EXPECT(0, scree_batch_commit(batch, &lsn, NULL)); /* nothing in it */
    cr_assert(lsn == 0);
}

Test(batch, more_than_half_of_the_log_buffer_is_too_big)
{
    char bytes[4000];
    scree_batch *batch = begin();
    scree_page_id id;
    scree_version v;

    memset(bytes, 'x', sizeof bytes);
    for (int i = 0; i < 20; i++) /* of 32 KiB */
        EXPECT(0, scree_batch_allocate(batch, kit_slice(bytes, sizeof bytes), &id));
    EXPECT(SCREE_E_TOO_BIG, scree_batch_commit(batch, NULL, NULL));
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, id, NULL, 0, NULL, NULL));
    batch = begin();
    EXPECT(SCREE_E_TOO_BIG, scree_batch_set(batch, 1, 1, kit_slice(bytes, 4097)));
    scree_batch_abort(batch);
    (void)page("on it goes", &v);
}

/* Seven pages and one of so many bytes: just below 32 KiB, just that, just above. */
Test(batch, ends_at_every_size_around_half_of_the_log_buffer, .timeout = 300)
{
    static char bytes[4096];
    uint64_t largest = 0, smallest_refused = UINT64_MAX;

    memset(bytes, 'x', sizeof bytes);
    for (size_t last = 3700; last <= 4096; last += 4) {
        scree_batch *batch = begin();
        scree_page_id id;
        scree_lsn lsn;
        int rc;

        for (int i = 0; i < 7; i++)
            EXPECT(0, scree_batch_allocate(batch, kit_slice(bytes, sizeof bytes), &id));
        EXPECT(0, scree_batch_allocate(batch, kit_slice(bytes, last), &id));
        rc = scree_batch_commit(batch, &lsn, NULL);
        cr_assert(rc == 0 || rc == SCREE_E_TOO_BIG, "%zu: %d %s", last, rc, scree_error_detail());
        if (rc == 0)
            largest = last;
        else if (smallest_refused > last)
            smallest_refused = last;
        EXPECT(rc == 0 ? 0 : SCREE_E_NOT_FOUND,
               scree_page_read(cache, id, bytes, sizeof bytes, NULL, NULL));
        (void)page("goes on", NULL);
    }
    cr_assert(largest > 0 && largest < smallest_refused, "%llu, %llu", (unsigned long long)largest,
              (unsigned long long)smallest_refused);
    EXPECT(0, scree_flush(cache, NULL));
}

/* 16 MB in one batch, over 250 segments, beside a cache of 64 KiB. */
static void
thousand_largest(uint64_t log_buffer_bytes, int code)
{
    enum { N = 1000, BYTES = 16384 };
    static char bytes[BYTES + 1], got[BYTES];
    static scree_page_id id[N];
    scree_lsn lsn = 0;

    options.page_bytes_max = BYTES;
    options.log_buffer_bytes = log_buffer_bytes;
    reopen();
    memset(bytes, 'x', BYTES);
    for (int round = 0; round < 2; round++) {
        scree_batch *batch = begin();

        for (int i = 0; i < N; i++) {
            memcpy(bytes, &i, sizeof i);
            bytes[8] = (char)('a' + round);
            if (round == 0)
                EXPECT(0, scree_batch_allocate(batch, kit_slice(bytes, BYTES), &id[i]));
            else
                EXPECT(0, scree_batch_set(batch, id[i], lsn, kit_slice(bytes, BYTES)));
        }
        EXPECT(code, scree_batch_commit(batch, &lsn, NULL));
        for (int i = 0; i < N; i++) {
            int there = -1;

            EXPECT(code == 0 ? 0 : SCREE_E_NOT_FOUND,
                   scree_page_read(cache, id[i], got, sizeof got, NULL, NULL));
            memcpy(&there, got, sizeof there);
            cr_assert(code != 0 || (there == i && got[8] == 'a' + round));
        }
        EXPECT(0, scree_wait_stable(cache, lsn, -1));
        if (round == 0 && code == 0)
            reopen();
    }
}

Test(batch, of_a_thousand_pages_of_the_largest_size_happens, .timeout = 300)
{
    thousand_largest(64 << 20, 0);
}

Test(batch, of_a_thousand_pages_too_large_for_the_log_buffer_is_too_big, .timeout = 300)
{
    thousand_largest(16 << 20, SCREE_E_TOO_BIG);
}

Test(batch, a_thousand_pages)
{
    static scree_page_id id[1000];
    static scree_version v;
    scree_batch *batch = begin();

    options.log_buffer_bytes = 1 << 20;
    scree_batch_abort(batch);
    reopen();
    batch = begin();
    for (int i = 0; i < 1000; i++)
        EXPECT(0, scree_batch_allocate(batch, text("p"), &id[i]));
    EXPECT(0, scree_batch_commit(batch, &v, NULL));
    for (int round = 0; round < 5; round++) {
        batch = begin();
        for (int i = 0; i < 1000; i++) /* not in the order of ids */
            EXPECT(0, scree_batch_merge(batch, id[i * 7 % 1000], v, text("q")));
        EXPECT(0, scree_batch_commit(batch, &v, NULL));
    }
    batch = begin();
    for (int i = 0; i < 1000; i += 2)
        EXPECT(0, scree_batch_free(batch, id[i], v));
    EXPECT(0, scree_batch_commit(batch, NULL, NULL));
    reopen();
    for (int i = 1; i < 1000; i += 2)
        (void)expect_page(id[i], "pqqqqq");
}

/* More than the cache holds is written over and over, so that the pages leave it. */
static void
push_out(void)
{
    char bytes[3000];

    memset(bytes, 'z', sizeof bytes);
    for (int i = 0; i < 200; i++) {
        scree_page_id id;

        EXPECT(0, scree_page_allocate(cache, kit_slice(bytes, sizeof bytes), &id, NULL));
    }
    EXPECT(0, scree_flush(cache, NULL));
}

Test(batch, evicted_pages_are_pages)
{
    scree_version v[3], now;
    scree_page_id id[3];
    scree_batch *batch;

    for (int i = 0; i < 3; i++)
        id[i] = page("old", &v[i]);
    push_out();
    batch = begin();
    EXPECT(0, scree_batch_merge(batch, id[0], v[0], text("+")));
    EXPECT(0, scree_batch_set(batch, id[1], v[1], text("new")));
    EXPECT(0, scree_batch_free(batch, id[2], v[2]));
    EXPECT(0, scree_batch_commit(batch, &now, NULL));
    cr_assert(expect_page(id[0], "old+") == now);
    cr_assert(expect_page(id[1], "new") == now);
    push_out();
    cr_assert(expect_page(id[0], "old+") == now);
    cr_assert(expect_page(id[1], "new") == now);
    reopen();
    cr_assert(expect_page(id[0], "old+") == now);
}

Test(batch, a_guard_s_bytes_outlive_a_commit_within_it)
{
    scree_version v;
    scree_page_id a = page("before", &v);
    scree_batch *batch = begin();
    scree_slice bytes;

    scree_read_enter(cache);
    EXPECT(0, scree_page_get(cache, a, &bytes, NULL));
    EXPECT(0, scree_batch_set(batch, a, v, text("after!")));
    EXPECT(0, scree_batch_commit(batch, NULL, NULL));
    cr_assert(bytes.len == 6 && memcmp(bytes.data, "before", 6) == 0);
    scree_read_leave(cache);
    (void)expect_page(a, "after!");
}

Test(batch, compressed_pages_and_a_crash)
{
    static char bytes[4096];
    scree_page_id id[4], at;
    pid_t child;
    int status;

    memset(bytes, 'k', sizeof bytes - 1);
    EXPECT(0, scree_close(cache));
    options.compression_level = 3;
    child = fork();
    if (child == 0) {
        scree_batch *batch;
        scree_lsn lsn;

        if (scree_open(dir, &options, &cache) != 0 || scree_batch_begin(cache, &batch) != 0)
            _exit(1);
        for (int i = 0; i < 4; i++)
            if (scree_batch_allocate(batch, kit_slice(bytes, sizeof bytes - 1), &id[i]) != 0)
                _exit(2);
        if (scree_batch_commit(batch, &lsn, NULL) != 0 || scree_wait_stable(cache, lsn, -1) != 0)
            _exit(3);
        _exit(0);
    }
    cr_assert(waitpid(child, &status, 0) == child && status == 0, "child: %d", status);
    EXPECT(0, scree_open(dir, &options, &cache));
    at = SCREE_PAGE_ROOT;
    for (int i = 0; i < 4; i++) {
        EXPECT(0, scree_page_next(cache, at, &at));
        (void)expect_page(at, bytes);
    }
}

Test(batch, a_read_only_cache_begins_none)
{
    scree_batch *batch;

    options.flags = SCREE_READ_ONLY;
    reopen();
    EXPECT(SCREE_E_READ_ONLY, scree_batch_begin(cache, &batch));
    cr_assert(batch == NULL);
}

Test(batch, pages_that_do_not_merge_can_be_set)
{
    static const unsigned char bad[] = {KIT_UNMERGEABLE};
    scree_version v;
    scree_page_id a = page("a", &v);
    scree_batch *batch = begin();

    EXPECT(0, scree_batch_merge(batch, a, v, kit_slice(bad, sizeof bad)));
    EXPECT(0, scree_batch_commit(batch, &v, NULL));
    EXPECT(SCREE_E_MERGE, scree_page_read(cache, a, NULL, 0, NULL, NULL));
    batch = begin();
    EXPECT(0, scree_batch_set(batch, a, v, text("mended")));
    EXPECT(0, scree_batch_commit(batch, &v, NULL));
    cr_assert(expect_page(a, "mended") == v);
}

#ifdef SCREE_ALLOC_FAULTS
static struct {
    scree_batch *batch; /* to begin with, or NULL */
    bool aborts;
    scree_page_id set, merged, freed, checked, made;
    scree_version v_set, v_merged, v_freed, v_checked;
    uint64_t nth, count; /* allocations that fail */
    char bytes[3000];
    scree_lsn lsn;
    int code;
    bool told;
} starved;

/* A thread without a context, so that this one's making may fail too. */
static void *
starved_run(void *argument)
{
    scree_batch *b = starved.batch;
    int rc = 0;

    (void)argument;
    scree__alloc_fault(starved.nth, starved.count);
    if (b == NULL) {
        rc = scree_batch_begin(cache, &b);
        if (rc == 0)
            rc = scree_batch_set(b, starved.set, starved.v_set,
                                 kit_slice(starved.bytes, sizeof starved.bytes));
        if (rc == 0)
            rc = scree_batch_merge(b, starved.merged, starved.v_merged, text("+"));
        if (rc == 0)
            rc = scree_batch_free(b, starved.freed, starved.v_freed);
        if (rc == 0)
            rc = scree_batch_check(b, starved.checked, starved.v_checked);
        if (rc == 0)
            rc = scree_batch_allocate(b, kit_slice(starved.bytes, sizeof starved.bytes),
                                      &starved.made);
    }
    if (rc == 0 && !starved.aborts)
        rc = scree_batch_commit(b, &starved.lsn, NULL);
    else
        scree_batch_abort(b);
    scree__alloc_fault(0, 0);
    starved.code = rc;
    starved.told = rc == 0 || strlen(scree_error_detail()) > 0;
    return NULL;
}

static void
starve(uint64_t nth, uint64_t count)
{
    pthread_t thread;

    starved.nth = nth;
    starved.count = count;
    cr_assert(pthread_create(&thread, NULL, starved_run, NULL) == 0);
    cr_assert(pthread_join(thread, NULL) == 0);
    cr_assert(starved.told);
    cr_assert(starved.code == 0 || starved.code == SCREE_E_NO_MEMORY, "%d: %s", starved.code,
              kit_code_name(starved.code));
}

static void
starved_expect(bool happened)
{
    char wanted[sizeof starved.bytes + 1];

    memcpy(wanted, starved.bytes, sizeof starved.bytes);
    wanted[sizeof starved.bytes] = '\0';
    cr_assert(expect_page(starved.set, happened ? wanted : "s") ==
              (happened ? starved.lsn : starved.v_set));
    cr_assert(expect_page(starved.merged, happened ? "m+" : "m") ==
              (happened ? starved.lsn : starved.v_merged));
    cr_assert(expect_page(starved.checked, "c") == starved.v_checked);
    EXPECT(happened ? SCREE_E_NOT_FOUND : 0,
           scree_page_read(cache, starved.freed, wanted, sizeof wanted, NULL, NULL));
    if (happened)
        cr_assert(expect_page(starved.made, wanted) == starved.lsn);
}

/* The log's own threads have failed as well, and try again soon. */
static scree_page_id
page_soon(const char *s, scree_version *version_out)
{
    scree_page_id id;
    int rc;

    while ((rc = scree_page_allocate(cache, text(s), &id, version_out)) == SCREE_E_NO_MEMORY)
        usleep(1000);
    EXPECT(0, rc);
    return id;
}

/* Whichever allocation fails, and whether it alone or all from then on. */
Test(batch, without_memory_nothing_of_it_happens, .timeout = 600)
{
    unsigned whole = 0, failed = 0;

    memset(starved.bytes, 'x', sizeof starved.bytes);
    EXPECT(0, scree_close(cache));
    options.compression_level = 1;
    open_cache();
    for (uint64_t nth = 1; whole < 4; nth++) {
        starved.set = page_soon("s", &starved.v_set);
        starved.merged = page_soon("m", &starved.v_merged);
        starved.freed = page_soon("f", &starved.v_freed);
        starved.checked = page_soon("c", &starved.v_checked);
        reopen(); /* all pages are out of memory, and nothing is kept for reuse */
        starve(nth, nth % 2 == 0 ? 1 : UINT64_MAX);
        whole = starved.code == 0 ? whole + 1 : 0;
        failed += starved.code != 0;
        starved_expect(starved.code == 0);
        cr_assert(nth < 1000);
    }
    cr_assert(failed > 20, "%u", failed);
}

Test(batch, a_thread_without_memory_consumes_it_all_the_same)
{
    scree_version v;
    scree_page_id a = page("a", &v), n;

    for (int i = 0; i < 2; i++) {
        starved.batch = begin();
        starved.aborts = i == 1;
        EXPECT(0, scree_batch_allocate(starved.batch, text("n"), &n));
        EXPECT(0, scree_batch_set(starved.batch, a, v, text("A")));
        starve(1, UINT64_MAX);
        cr_assert(starved.code == (i == 1 ? 0 : SCREE_E_NO_MEMORY));
        cr_assert(expect_page(a, "a") == v);
        EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, n, NULL, 0, NULL, NULL));
    }
    reopen(); /* it was not left open */
}
#endif

Test(batch, pages_under_chosen_ids_appear_with_the_others)
{
    scree_page_id far = (scree_page_id)1 << 62, near = 500;
    scree_version v;
    scree_page_id a = page("a", &v), n;
    scree_batch *batch = begin();
    scree_lsn lsn;

    EXPECT(0, scree_batch_allocate_at(batch, far, text("far")));
    EXPECT(0, scree_batch_merge(batch, far, 0, text("+")));
    EXPECT(0, scree_batch_allocate_at(batch, near, text("")));
    EXPECT(0, scree_batch_allocate(batch, text("n"), &n));
    EXPECT(0, scree_batch_merge(batch, a, v, text("1")));
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, far, NULL, 0, NULL, NULL));
    EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
    for (int i = 0; i < 2; i++) {
        cr_assert(expect_page(far, "far+") == lsn);
        cr_assert(expect_page(near, "") == lsn);
        cr_assert(expect_page(a, "a1") == lsn);
        reopen();
    }
    for (int i = 0; i < 600;
         i++) { /* a chosen id does not raise what is handed out, nor is it handed out */
        scree_page_id id = page("p", NULL);

        cr_assert(id != near && id < 1000, "id %llu", (unsigned long long)id);
    }
}

Test(batch, a_chosen_id_that_is_live_conflicts_and_one_just_freed_is_busy)
{
    scree_version v, v2;
    scree_page_id a = page("a", &v), b = page("b", &v2), conflict;
    scree_batch *batch = begin();
    int rc;

    EXPECT(0, scree_batch_merge(batch, b, v2, text("1")));
    EXPECT(0, scree_batch_allocate_at(batch, a, text("x")));
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, &conflict));
    cr_assert(conflict == a);
    batch = begin();
    EXPECT(0, scree_batch_allocate_at(batch, SCREE_PAGE_ROOT, text("x")));
    EXPECT(SCREE_E_CONFLICT, scree_batch_commit(batch, NULL, NULL));
    scree_read_enter(cache); /* holds the grace period up */
    EXPECT(0, scree_page_free(cache, a, &v));
    batch = begin();
    EXPECT(0, scree_batch_merge(batch, b, v2, text("1")));
    EXPECT(0, scree_batch_allocate_at(batch, a, text("x")));
    EXPECT(SCREE_E_BUSY, scree_batch_commit(batch, NULL, &conflict));
    cr_assert(conflict == a);
    (void)expect_page(b, "b");
    scree_read_leave(cache);
    do {
        batch = begin();
        EXPECT(0, scree_batch_allocate_at(batch, a, text("again")));
        rc = scree_batch_commit(batch, NULL, NULL);
    } while (rc == SCREE_E_BUSY);
    EXPECT(0, rc);
    (void)expect_page(a, "again");
}

Test(batch, mistakes_with_chosen_ids_are_told)
{
    scree_version v;
    scree_page_id a = page("a", &v), n;
    scree_batch *batch = begin();
    bool came = false;

    EXPECT(SCREE_E_INVALID, scree_batch_allocate_at(NULL, 9, text("x")));
    EXPECT(SCREE_E_INVALID, scree_batch_allocate_at(batch, 0, text("x")));
    EXPECT(0, scree_batch_free(batch, a, v));
    EXPECT(0, scree_batch_allocate_at(batch, a, text("x")));
    EXPECT(SCREE_E_INVALID, scree_batch_commit(batch, NULL, NULL));
    batch = begin();
    EXPECT(0, scree_batch_allocate_at(batch, 900, text("x")));
    EXPECT(0, scree_batch_allocate_at(batch, 900, text("y")));
    EXPECT(SCREE_E_INVALID, scree_batch_commit(batch, NULL, NULL));
    batch = begin();
    EXPECT(0, scree_batch_allocate(batch, text("x"), &n));
    EXPECT(0, scree_batch_allocate_at(batch, n, text("y")));
    EXPECT(SCREE_E_INVALID, scree_batch_commit(batch, NULL, NULL));
    for (int i = 0; i < 1000 && !came; i++) {
        scree_page_id id = page("p", NULL);

        came |= id == n; /* what the batch took is given back */
        cr_assert(id != 900);
        if (id > 800)
            break;
    }
    cr_assert(came);
}
