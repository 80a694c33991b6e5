/*
 * test_contract.c - the public contract, sentence by sentence: bad arguments, bad directories, bad
 * callbacks, and what each call says about them. Whatever fails says why.
 */
#include "cache_fixture.h"
#include "unit/claims.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static void
setup_directory(void)
{
    kit_dir_name(dir, "contract");
    kit_options_small(&options, &kit_concat);
}

static void
setup(void)
{
    setup_directory();
    EXPECT(0, scree_open(dir, &options, &cache));
}

/* A page that reads as s. */
static void
expect_page(scree_page_id id, const char *s)
{
    char buffer[4096];
    size_t len = 0;

    EXPECT(0, scree_page_read(cache, id, buffer, sizeof(buffer), &len, NULL));
    cr_assert(len == strlen(s) && memcmp(buffer, s, len) == 0, "page reads %.*s, not %s", (int)len,
              buffer, s);
}

static scree_page_id
allocate(const char *s, scree_version *version_out)
{
    scree_page_id id = 0;

    EXPECT(0, scree_page_allocate(cache, text(s), &id, version_out));
    return id;
}

/* ---- arguments ---- */

TestSuite(contract_invalid, .init = setup, .fini = teardown, .timeout = 300);

Test(contract_invalid, open_wants_a_directory_options_and_an_out)
{
    scree_cache *out = (scree_cache *)&options;

    EXPECT(SCREE_E_INVALID, scree_open(NULL, &options, &out));
    cr_assert(out == NULL, "out is not written on failure");
    EXPECT(SCREE_E_INVALID, scree_open("", &options, &out));
    EXPECT(SCREE_E_INVALID, scree_open(dir, NULL, &out));
    EXPECT(SCREE_E_INVALID, scree_open(dir, &options, NULL));
}

Test(contract_invalid, a_cache_of_null_is_refused_by_every_call)
{
    scree_version version = 1;
    scree_page_id id;
    scree_slice slice;
    scree_stats stats = {.size = sizeof(stats)};
    scree_recovery_info info = {.size = sizeof(info)};
    size_t n;

    EXPECT(SCREE_E_INVALID, scree_close(NULL));
    EXPECT(SCREE_E_INVALID, scree_page_allocate(NULL, text("x"), &id, &version));
    EXPECT(SCREE_E_INVALID, scree_page_allocate_at(NULL, 5, text("x"), &version));
    EXPECT(SCREE_E_INVALID, scree_page_get(NULL, 1, &slice, &version));
    EXPECT(SCREE_E_INVALID, scree_page_fragments(NULL, 1, &slice, NULL, 0, &n, &version));
    EXPECT(SCREE_E_INVALID, scree_page_read(NULL, 1, NULL, 0, &n, &version));
    EXPECT(SCREE_E_INVALID, scree_page_set(NULL, 1, &version, text("x")));
    EXPECT(SCREE_E_INVALID, scree_page_merge(NULL, 1, &version, text("x")));
    EXPECT(SCREE_E_INVALID, scree_page_append(NULL, 1, text("x"), &version));
    EXPECT(SCREE_E_INVALID, scree_page_put(NULL, 1, text("x"), &version));
    EXPECT(SCREE_E_INVALID, scree_page_free(NULL, 2, &version));
    EXPECT(SCREE_E_INVALID, scree_page_next(NULL, 0, &id));
    EXPECT(SCREE_E_INVALID, scree_flush(NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_wait_stable(NULL, 1, 0));
    EXPECT(SCREE_E_INVALID, scree_snapshot(NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_recovery(NULL, &info));
    EXPECT(SCREE_E_INVALID, scree_recovery_state(NULL, &slice));
    EXPECT(SCREE_E_INVALID, scree_stats_get(NULL, &stats));
    EXPECT(SCREE_E_INVALID, scree_health(NULL));
    cr_assert(scree_stable_lsn(NULL) == 0);
    scree_read_enter(NULL);
    scree_read_leave(NULL);
}

Test(contract_invalid, page_id_0_is_refused_by_every_call)
{
    scree_version version = 1;
    scree_slice slice;
    size_t n;

    EXPECT(SCREE_E_INVALID, scree_page_allocate_at(cache, 0, text("x"), &version));
    EXPECT(SCREE_E_INVALID, scree_page_read(cache, 0, NULL, 0, &n, &version));
    EXPECT(SCREE_E_INVALID, scree_page_set(cache, 0, &version, text("x")));
    EXPECT(SCREE_E_INVALID, scree_page_merge(cache, 0, &version, text("x")));
    EXPECT(SCREE_E_INVALID, scree_page_append(cache, 0, text("x"), &version));
    EXPECT(SCREE_E_INVALID, scree_page_put(cache, 0, text("x"), &version));
    EXPECT(SCREE_E_INVALID, scree_page_free(cache, 0, &version));
    scree_read_enter(cache);
    EXPECT(SCREE_E_INVALID, scree_page_get(cache, 0, &slice, &version));
    EXPECT(SCREE_E_INVALID, scree_page_fragments(cache, 0, &slice, NULL, 0, &n, &version));
    scree_read_leave(cache);
}

Test(contract_invalid, a_version_in_and_out_may_not_be_null)
{
    EXPECT(SCREE_E_INVALID, scree_page_set(cache, 1, NULL, text("x")));
    EXPECT(SCREE_E_INVALID, scree_page_merge(cache, 1, NULL, text("x")));
    EXPECT(SCREE_E_INVALID, scree_page_free(cache, 1, NULL));
    expect_page(1, "");
}

Test(contract_invalid, a_slice_of_null_with_a_length_is_refused)
{
    scree_slice nothing = {NULL, 5};
    scree_version version = 1;

    EXPECT(SCREE_E_INVALID, scree_page_allocate(cache, nothing, NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_page_allocate_at(cache, 9, nothing, NULL));
    EXPECT(SCREE_E_INVALID, scree_page_append(cache, 1, nothing, NULL));
    EXPECT(SCREE_E_INVALID, scree_page_put(cache, 1, nothing, NULL));
    EXPECT(SCREE_E_INVALID, scree_page_set(cache, 1, &version, nothing));
    EXPECT(SCREE_E_INVALID, scree_page_merge(cache, 1, &version, nothing));
    EXPECT(SCREE_E_INVALID, scree_page_read(cache, 1, NULL, 5, NULL, NULL));
}

Test(contract_invalid, out_pointers_may_be_null)
{
    scree_page_id id = allocate("abc", NULL);
    scree_version version = 0;
    char buffer[8];

    EXPECT(0, scree_page_allocate(cache, text("x"), NULL, NULL));
    EXPECT(0, scree_page_read(cache, id, buffer, 8, NULL, NULL));
    EXPECT(0, scree_page_append(cache, id, text("d"), NULL));
    EXPECT(0, scree_page_put(cache, id, text("e"), &version));
    EXPECT(0, scree_page_put(cache, id, text("e"), NULL));
    EXPECT(0, scree_page_next(cache, 0, NULL));
    EXPECT(0, scree_flush(cache, NULL));
    EXPECT(0, scree_snapshot(cache, NULL));
    EXPECT(0, scree_page_allocate_at(cache, 77, text("e"), NULL));
    scree_read_enter(cache);
    EXPECT(0, scree_page_get(cache, id, NULL, NULL));
    EXPECT(0, scree_page_fragments(cache, id, NULL, NULL, 0, NULL, NULL));
    scree_read_leave(cache);
}

Test(contract_invalid, borrowing_needs_a_guard)
{
    scree_slice slice;
    size_t n;

    EXPECT(SCREE_E_INVALID, scree_page_get(cache, 1, &slice, NULL));
    cr_assert(slice.data == NULL && slice.len == 0, "out is not written on failure");
    EXPECT(SCREE_E_INVALID, scree_page_fragments(cache, 1, &slice, NULL, 0, &n, NULL));
    scree_read_leave(cache); /* without a guard: nothing */
    scree_read_enter(cache);
    EXPECT(0, scree_page_get(cache, 1, &slice, NULL));
    EXPECT(SCREE_E_INVALID, scree_page_fragments(cache, 1, &slice, NULL, 3, &n, NULL));
    scree_read_leave(cache);
    EXPECT(SCREE_E_INVALID, scree_page_get(cache, 1, &slice, NULL));
}

Test(contract_invalid, structs_without_a_size_are_refused)
{
    scree_stats stats = {.size = 0};
    scree_recovery_info info = {.size = 0};

    EXPECT(SCREE_E_INVALID, scree_stats_get(cache, &stats));
    EXPECT(SCREE_E_INVALID, scree_stats_get(cache, NULL));
    EXPECT(SCREE_E_INVALID, scree_recovery(cache, &info));
    EXPECT(SCREE_E_INVALID, scree_recovery(cache, NULL));
    EXPECT(SCREE_E_INVALID, scree_recovery_state(cache, NULL));
    EXPECT(SCREE_E_INVALID, scree_stats_each(cache, NULL, NULL));
}

Test(contract_invalid, a_smaller_struct_of_an_older_header_is_filled_no_further)
{
    scree_stats stats;

    memset(&stats, 0x5A, sizeof(stats));
    stats.size = offsetof(scree_stats, resident_bytes);
    EXPECT(0, scree_stats_get(cache, &stats));
    cr_assert(stats.pages == 1);
    cr_assert(stats.resident_bytes == 0x5A5A5A5A5A5A5A5Au, "written beyond size");
}

Test(contract_invalid, waiting_beyond_the_tail_would_never_end)
{
    scree_stats stats = {.size = sizeof(stats)};

    EXPECT(0, scree_stats_get(cache, &stats));
    EXPECT(SCREE_E_INVALID, scree_wait_stable(cache, UINT64_MAX, -1));
    EXPECT(SCREE_E_INVALID, scree_wait_stable(cache, stats.tail_lsn + 1000000, -1));
    EXPECT(0, scree_wait_stable(cache, 0, 0));
}

/* ---- options ---- */

TestSuite(contract_options, .init = setup_directory, .fini = teardown, .timeout = 300);

#define REFUSED(field, value)                                                    \
    do {                                                                         \
        scree_options refused_ = options;                                        \
        refused_.field = (value);                                                \
        EXPECT(SCREE_E_INVALID, scree_open(dir, &refused_, &cache));             \
        cr_assert(cache == NULL);                                                \
        cr_assert(access(dir, F_OK) != 0, "%s: the directory was made", #field); \
    } while (0)

Test(contract_options, bounds_are_checked_before_anything_is_made)
{
    REFUSED(size, 0);
    REFUSED(size, 8);
    REFUSED(flags, SCREE_CREATE | 0x4000);
    REFUSED(cache_bytes, 64 * 1024 - 1);
    REFUSED(cache_bytes, 0);
    REFUSED(segment_bytes, 64 * 1024 - 4096);
    REFUSED(segment_bytes, 64 * 1024 + 1);
    REFUSED(segment_bytes, UINT64_MAX);
    REFUSED(segment_bytes, 0);
    REFUSED(log_buffer_bytes, 64 * 1024 - 1);
    REFUSED(log_buffer_bytes, UINT64_MAX);
    REFUSED(page_bytes_max, 16 * 1024 + 1);
    REFUSED(page_bytes_max, 0);
    REFUSED(page_bytes_max, UINT64_MAX);
    REFUSED(fragments_max, 0);
    REFUSED(fragments_max, 1025);
    REFUSED(io_mode, 3);
    REFUSED(io_mode, -1);
    REFUSED(compression_level, 1000);
    REFUSED(materializer, NULL);
}

Test(contract_options, a_materializer_needs_size_name_and_merge)
{
    scree_materializer bad = kit_concat;
    char long_name[5000];

    bad.size = 0;
    REFUSED(materializer, &bad);
    bad = kit_concat;
    bad.merge = NULL;
    REFUSED(materializer, &bad);
    bad = kit_concat;
    bad.name = NULL;
    REFUSED(materializer, &bad);
    memset(long_name, 'n', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    bad.name = long_name;
    REFUSED(materializer, &bad);
}

Test(contract_options, an_environment_needs_every_member)
{
    scree_env bad = *scree_env_posix();

    bad.sync_dir = NULL;
    REFUSED(env, &bad);
    bad = *scree_env_posix();
    bad.size = 0;
    REFUSED(env, &bad);
}

Test(contract_options, defaults_are_those_documented)
{
    scree_options o;

    memset(&o, 0x77, sizeof(o));
    scree_options_init(&o);
    cr_assert(o.size == sizeof(o) && o.flags == 0);
    cr_assert(o.cache_bytes == 256u << 20 && o.segment_bytes == 64u << 20);
    cr_assert(o.log_buffer_bytes == 16u << 20 && o.page_bytes_max == 1u << 20);
    cr_assert(o.snapshot_log_bytes == 0 && o.disk_limit_bytes == 0);
    cr_assert(o.flush_interval_ms == 100 && o.fragments_max == 16);
    cr_assert(o.io_mode == SCREE_IO_AUTO && o.materializer == NULL && o.env == NULL);
    cr_assert(o.log == NULL && o.event == NULL && o.progress == NULL && o.callback_ctx == NULL);
}

Test(contract_options, the_smallest_and_the_largest_are_taken)
{
    options.page_bytes_max = 16 * 1024;
    options.fragments_max = 1024;
    EXPECT(0, scree_open(dir, &options, &cache));
    EXPECT(0, scree_close(cache));
    options.fragments_max = 1;
    options.page_bytes_max = 1;
    EXPECT(0, scree_open(dir, &options, &cache));
    EXPECT(0, scree_page_append(cache, 1, text("x"), NULL));
    EXPECT(SCREE_E_TOO_BIG, scree_page_append(cache, 1, text("xy"), NULL));
}

Test(contract_options, without_create_a_missing_directory_is_enoent)
{
    options.flags = 0;
    EXPECT(-ENOENT, scree_open(dir, &options, &cache));
    cr_assert(access(dir, F_OK) != 0, "the directory was made");
    options.flags = SCREE_READ_ONLY;
    EXPECT(-ENOENT, scree_open(dir, &options, &cache));
    cr_assert(access(dir, F_OK) != 0, "the directory was made");
}

Test(contract_options, exclusive_refuses_what_is_there)
{
    options.flags = SCREE_CREATE | SCREE_EXCLUSIVE;
    EXPECT(0, scree_open(dir, &options, &cache));
    EXPECT(0, scree_close(cache));
    EXPECT(-EEXIST, scree_open(dir, &options, &cache));
    options.flags = 0;
    EXPECT(0, scree_open(dir, &options, &cache));
}

Test(contract_options, a_file_is_no_directory)
{
    FILE *file = fopen(dir, "w");
    int code;

    cr_assert(file != NULL);
    fclose(file);
    code = scree_open(dir, &options, &cache);
    cr_assert(code == -ENOTDIR || code == -EEXIST || code == SCREE_E_INVALID, "gave %d", code);
    cr_assert(strlen(scree_error_detail()) > 0 && cache == NULL);
    unlink(dir);
}

Test(contract_options, the_segment_size_of_the_directory_stays)
{
    char big[4000];

    memset(big, 'b', sizeof(big));
    EXPECT(0, scree_open(dir, &options, &cache));
    for (int i = 0; i < 40; i++)
        EXPECT(0, scree_page_append(cache, 1, text("x"), NULL));
    EXPECT(0, scree_page_put(cache, 1, kit_slice(big, sizeof(big)), NULL));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    options.segment_bytes = 1 << 20;
    /* "fixed at creation": the stored size counts, or a clear refusal; never a wrong reading. */
    if (scree_open(dir, &options, &cache) == 0) {
        size_t len = 0;
        static char buffer[4096];

        EXPECT(0, scree_page_read(cache, 1, buffer, sizeof(buffer), &len, NULL));
        cr_assert(len == sizeof(big) && memcmp(buffer, big, len) == 0);
    } else {
        cr_assert(strlen(scree_error_detail()) > 0);
        cache = NULL;
    }
}

/* ---- pages ---- */

TestSuite(contract_pages, .init = setup, .fini = teardown, .timeout = 300);

Test(contract_pages, the_root_is_there_empty_and_cannot_be_freed)
{
    scree_version version = 0;
    scree_page_id id = 0;

    EXPECT(0, scree_page_next(cache, 0, &id));
    cr_assert(id == SCREE_PAGE_ROOT);
    EXPECT(0, scree_page_read(cache, SCREE_PAGE_ROOT, NULL, 0, NULL, &version));
    cr_assert(version != 0);
    EXPECT(SCREE_E_INVALID, scree_page_free(cache, SCREE_PAGE_ROOT, &version));
    EXPECT(SCREE_E_CONFLICT, scree_page_allocate_at(cache, SCREE_PAGE_ROOT, text("x"), &version));
    expect_page(SCREE_PAGE_ROOT, "");
    EXPECT(SCREE_E_NOT_FOUND, scree_page_next(cache, SCREE_PAGE_ROOT, &id));
    cr_assert(id == 0, "out is not written on failure");
}

Test(contract_pages, unknown_ids_are_not_found)
{
    static const scree_page_id ids[] = {2, 1000000, (scree_page_id)1 << 40, UINT64_MAX};

    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        scree_version version = 16;
        scree_slice slice;
        size_t n = 9;

        EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, ids[i], NULL, 0, &n, &version));
        cr_assert(n == 0 && version == 0, "out is not written on failure");
        version = 16;
        EXPECT(SCREE_E_NOT_FOUND, scree_page_set(cache, ids[i], &version, text("x")));
        EXPECT(SCREE_E_NOT_FOUND, scree_page_merge(cache, ids[i], &version, text("x")));
        EXPECT(SCREE_E_NOT_FOUND, scree_page_append(cache, ids[i], text("x"), &version));
        EXPECT(SCREE_E_NOT_FOUND, scree_page_put(cache, ids[i], text("x"), &version));
        EXPECT(SCREE_E_NOT_FOUND, scree_page_free(cache, ids[i], &version));
        EXPECT(SCREE_E_NOT_FOUND, scree_page_next(cache, ids[i], NULL));
        scree_read_enter(cache);
        EXPECT(SCREE_E_NOT_FOUND, scree_page_get(cache, ids[i], &slice, NULL));
        EXPECT(SCREE_E_NOT_FOUND, scree_page_fragments(cache, ids[i], &slice, NULL, 0, &n, NULL));
        scree_read_leave(cache);
    }
}

Test(contract_pages, one_byte_over_the_limit_is_too_big)
{
    static char big[4097];
    scree_version version = 0;
    scree_page_id id = allocate("x", &version);
    size_t len = 0;

    memset(big, 'b', sizeof(big));
    EXPECT(SCREE_E_TOO_BIG, scree_page_allocate(cache, kit_slice(big, 4097), NULL, NULL));
    EXPECT(SCREE_E_TOO_BIG, scree_page_allocate_at(cache, 50, kit_slice(big, 4097), NULL));
    EXPECT(SCREE_E_TOO_BIG, scree_page_set(cache, id, &version, kit_slice(big, 4097)));
    EXPECT(SCREE_E_TOO_BIG, scree_page_merge(cache, id, &version, kit_slice(big, SIZE_MAX)));
    EXPECT(SCREE_E_TOO_BIG, scree_page_append(cache, id, kit_slice(big, 4097), NULL));
    EXPECT(SCREE_E_TOO_BIG, scree_page_put(cache, id, kit_slice(big, 4097), NULL));
    expect_page(id, "x");
    EXPECT(0, scree_page_put(cache, id, kit_slice(big, 4096), NULL));
    EXPECT(0, scree_page_read(cache, id, big, 4096, &len, NULL));
    cr_assert(len == 4096);
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, 50, NULL, 0, NULL, NULL));
}

Test(contract_pages, reading_into_too_small_a_buffer_tells_the_length)
{
    scree_version version = 0;
    scree_version told = 0;
    scree_page_id id = allocate("0123456789", &version);
    char buffer[16] = "----------";
    size_t len = 0;

    EXPECT(SCREE_E_TOO_BIG, scree_page_read(cache, id, buffer, 9, &len, &told));
    cr_assert(len == 10 && told == version);
    cr_assert(buffer[9] == '-', "written past cap");
    EXPECT(0, scree_page_read(cache, id, buffer, 10, &len, &told));
    cr_assert(len == 10 && memcmp(buffer, "0123456789", 10) == 0);
    EXPECT(SCREE_E_TOO_BIG, scree_page_read(cache, id, NULL, 0, &len, &told));
    cr_assert(len == 10 && told == version);
}

Test(contract_pages, a_conflict_tells_the_current_version_and_changes_nothing)
{
    scree_version first = 0;
    scree_version second = 0;
    scree_version version;
    scree_page_id id = allocate("a", &first);

    second = first;
    EXPECT(0, scree_page_merge(cache, id, &second, text("b")));
    cr_assert(second > first);
    version = first;
    EXPECT(SCREE_E_CONFLICT, scree_page_set(cache, id, &version, text("X")));
    cr_assert(version == second);
    version = 0;
    EXPECT(SCREE_E_CONFLICT, scree_page_merge(cache, id, &version, text("X")));
    cr_assert(version == second);
    version = second + 8;
    EXPECT(SCREE_E_CONFLICT, scree_page_free(cache, id, &version));
    cr_assert(version == second);
    version = 0;
    EXPECT(SCREE_E_CONFLICT, scree_page_set(cache, id, &version, text("X")));
    EXPECT(SCREE_E_CONFLICT, scree_page_allocate_at(cache, id, text("X"), &version));
    cr_assert(version == second);
    expect_page(id, "ab");
}

Test(contract_pages, a_version_of_0_conflicts_also_on_a_page_never_written)
{
    scree_version version = 0;

    EXPECT(SCREE_E_CONFLICT, scree_page_set(cache, SCREE_PAGE_ROOT, &version, text("x")));
    cr_assert(version != 0);
    EXPECT(0, scree_page_set(cache, SCREE_PAGE_ROOT, &version, text("x")));
    expect_page(SCREE_PAGE_ROOT, "x");
}

Test(contract_pages, empty_pages_and_empty_fragments)
{
    scree_version v0 = 0;
    scree_version version = 0;
    scree_page_id id = allocate("", &v0);
    scree_slice base;
    scree_slice frags[4];
    size_t n = 7;

    cr_assert(v0 != 0);
    expect_page(id, "");
    scree_read_enter(cache);
    EXPECT(0, scree_page_fragments(cache, id, &base, frags, 4, &n, &version));
    cr_assert(base.data == NULL && n == 0 && version == v0);
    EXPECT(0, scree_page_append(cache, id, text(""), &version));
    cr_assert(version > v0, "an empty fragment is a fragment");
    EXPECT(0, scree_page_fragments(cache, id, &base, frags, 4, &n, NULL));
    cr_assert(base.data == NULL && n == 1 && frags[0].len == 0);
    scree_read_leave(cache);
    expect_page(id, "");
    EXPECT(0, scree_page_append(cache, id, text("x"), NULL));
    expect_page(id, "x");
    EXPECT(0, scree_page_put(cache, id, text(""), NULL));
    expect_page(id, "");
    reopen();
    expect_page(id, "");
}

Test(contract_pages, fragments_are_given_oldest_first_up_to_cap)
{
    scree_page_id id = allocate("base", NULL);
    scree_slice base;
    scree_slice frags[8];
    size_t n = 0;
    scree_version appended = 0;
    scree_version version = 0;

    EXPECT(0, scree_page_append(cache, id, text("one"), NULL));
    EXPECT(0, scree_page_append(cache, id, text("two"), NULL));
    EXPECT(0, scree_page_append(cache, id, text("three"), &appended));
    scree_read_enter(cache);
    EXPECT(0, scree_page_fragments(cache, id, &base, frags, 8, &n, &version));
    cr_assert(n == 3 && version == appended);
    cr_assert(base.len == 4 && memcmp(base.data, "base", 4) == 0);
    cr_assert(frags[0].len == 3 && memcmp(frags[0].data, "one", 3) == 0);
    cr_assert(frags[2].len == 5 && memcmp(frags[2].data, "three", 5) == 0);
    memset(frags, 0, sizeof(frags));
    EXPECT(0, scree_page_fragments(cache, id, &base, frags, 2, &n, &version));
    cr_assert(n == 3 && frags[0].len == 3 && memcmp(frags[1].data, "two", 3) == 0);
    cr_assert(frags[2].data == NULL, "written past cap");
    EXPECT(0, scree_page_fragments(cache, id, &base, NULL, 0, &n, &version));
    cr_assert(n == 3);
    scree_read_leave(cache);
}

Test(contract_pages, next_gives_live_ids_in_order)
{
    scree_page_id id = 0;
    scree_version version = 0;

    EXPECT(0, scree_page_allocate_at(cache, 3000, text("c"), NULL));
    EXPECT(0, scree_page_allocate_at(cache, 20, text("b"), &version));
    EXPECT(0, scree_page_allocate_at(cache, (scree_page_id)1 << 35, text("d"), NULL));
    EXPECT(0, scree_page_next(cache, 1, &id));
    cr_assert(id == 20);
    EXPECT(0, scree_page_next(cache, 20, &id));
    cr_assert(id == 3000);
    EXPECT(0, scree_page_next(cache, 3000, &id));
    cr_assert(id == (scree_page_id)1 << 35);
    EXPECT(SCREE_E_NOT_FOUND, scree_page_next(cache, id, &id));
    EXPECT(0, scree_page_free(cache, 20, &version));
    EXPECT(0, scree_page_next(cache, 1, &id));
    cr_assert(id == 3000);
    reopen();
    EXPECT(0, scree_page_next(cache, 3000, &id));
    cr_assert(id == (scree_page_id)1 << 35);
    EXPECT(0, scree_page_next(cache, 1, &id));
    cr_assert(id == 3000);
}

Test(contract_pages, a_freed_id_comes_back_with_newer_versions_only)
{
    scree_version v1 = 0;
    scree_version v2 = 0;
    scree_version stale;
    scree_page_id id = allocate("first", &v1);
    scree_version freed = v1;
    int code;

    EXPECT(0, scree_page_free(cache, id, &freed));
    cr_assert(freed > v1, "a free has a position of its own");
    stale = v1;
    EXPECT(SCREE_E_NOT_FOUND, scree_page_set(cache, id, &stale, text("x")));
    while ((code = scree_page_allocate_at(cache, id, text("second"), &v2)) == SCREE_E_BUSY)
        usleep(1000);
    EXPECT(0, code);
    cr_assert(v2 > freed);
    stale = v1;
    EXPECT(SCREE_E_CONFLICT, scree_page_set(cache, id, &stale, text("x")));
    cr_assert(stale == v2);
    stale = freed;
    EXPECT(SCREE_E_CONFLICT, scree_page_free(cache, id, &stale));
    expect_page(id, "second");
}

Test(contract_pages, the_library_s_own_work_changes_no_version)
{
    scree_page_id ids[200];
    scree_version versions[200];
    char big[1000];

    memset(big, 'b', sizeof(big));
    for (int i = 0; i < 200; i++) { /* three times the cache */
        EXPECT(0, scree_page_allocate(cache, kit_slice(big, sizeof(big)), &ids[i], NULL));
        for (int j = 0; j < 7; j++)
            EXPECT(0, scree_page_append(cache, ids[i], text("abc"), &versions[i]));
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < 200; i++) {
            scree_version version = 0;
            char buffer[4096];
            size_t len;

            EXPECT(0, scree_page_read(cache, ids[i], buffer, sizeof(buffer), &len, &version));
            cr_assert(version == versions[i] && len == 1021);
        }
        EXPECT(0, scree_snapshot(cache, NULL));
        reopen();
    }
    EXPECT(0, scree_page_set(cache, ids[0], &versions[0], text("x")));
}

/* ---- durability ---- */

Test(contract_pages, flush_and_wait_make_durable)
{
    scree_version version = 0;
    scree_lsn stable = 0;

    EXPECT(0, scree_page_append(cache, 1, text("x"), &version));
    EXPECT(0, scree_wait_stable(cache, version, 10000));
    cr_assert(scree_stable_lsn(cache) >= version);
    EXPECT(0, scree_page_append(cache, 1, text("x"), &version));
    EXPECT(0, scree_flush(cache, &stable));
    cr_assert(stable >= version && scree_stable_lsn(cache) >= stable);
}

Test(contract_pages, wait_stable_asks_for_a_flush_at_interval_0_too)
{
    scree_version version = 0;

    EXPECT(0, scree_close(cache));
    options.flush_interval_ms = 0;
    EXPECT(0, scree_open(dir, &options, &cache));
    EXPECT(0, scree_page_append(cache, 1, text("x"), &version));
    EXPECT(0, scree_wait_stable(cache, version, 10000));
    cr_assert(scree_stable_lsn(cache) >= version);
}

static int
slow_sync(void *ctx, int file)
{
    (void)ctx;
    usleep(200 * 1000);
    return scree_env_posix()->sync(scree_env_posix()->ctx, file);
}

Test(contract_pages, wait_stable_gives_up_in_time)
{
    static scree_env env; /* outlives the test: the cache may be closed behind it */
    scree_version version = 0;
    uint64_t began;

    EXPECT(0, scree_close(cache));
    cache = NULL;
    env = *scree_env_posix();
    env.sync = slow_sync;
    options.env = &env;
    EXPECT(0, scree_open(dir, &options, &cache));
    EXPECT(0, scree_page_append(cache, 1, text("x"), &version));
    began = kit_now_ms();
    EXPECT(SCREE_E_TIMEOUT, scree_wait_stable(cache, version, 20));
    cr_assert(kit_now_ms() - began < 150, "took %d ms", (int)(kit_now_ms() - began));
    EXPECT(SCREE_E_TIMEOUT, scree_wait_stable(cache, version, 0));
    EXPECT(0, scree_wait_stable(cache, version, -1));
    EXPECT(0, scree_close(cache));
    cache = NULL;
}

/* ---- guards ---- */

static void *
free_page(void *argument)
{
    scree_version *version = argument; /* version[0]: of the page, version[1]: its id */

    return (void *)(intptr_t)scree_page_free(cache, version[1], version);
}

Test(contract_pages, a_guard_three_deep_keeps_bytes_of_a_page_another_thread_frees)
{
    scree_version told[2] = {0, 0};
    scree_page_id id = allocate("here to stay", &told[0]);
    scree_page_id other = 0;
    scree_slice slice;
    pthread_t thread;
    void *result = NULL;

    told[1] = id;
    scree_read_enter(cache);
    scree_read_enter(cache);
    scree_read_enter(cache);
    EXPECT(0, scree_page_get(cache, id, &slice, NULL));
    cr_assert(pthread_create(&thread, NULL, free_page, told) == 0);
    pthread_join(thread, &result);
    cr_assert(result == NULL, "free gave %d", (int)(intptr_t)result);
    EXPECT(SCREE_E_NOT_FOUND, scree_page_get(cache, id, &(scree_slice){0}, NULL));
    for (int i = 0; i < 3000; i++) { /* its memory and its id would be taken, were they free */
        EXPECT(0, scree_page_allocate(cache, text("another page"), &other, NULL));
        cr_assert(other != id, "a stranger under the id");
    }
    EXPECT(SCREE_E_BUSY, scree_page_allocate_at(cache, id, text("x"), NULL));
    cr_assert(slice.len == 12 && memcmp(slice.data, "here to stay", 12) == 0);
    scree_read_leave(cache);
    cr_assert(memcmp(slice.data, "here to stay", 12) == 0);
    scree_read_leave(cache);
    cr_assert(memcmp(slice.data, "here to stay", 12) == 0);
    EXPECT(SCREE_E_BUSY, scree_page_allocate_at(cache, id, text("x"), NULL));
    scree_read_leave(cache);
}

Test(contract_pages, bytes_borrowed_stay_over_set_merge_and_eviction)
{
    scree_version version = 0;
    scree_page_id id = allocate("old bytes", &version);
    scree_slice slice;
    char big[4000] = "";

    scree_read_enter(cache);
    EXPECT(0, scree_page_get(cache, id, &slice, NULL));
    EXPECT(0, scree_page_merge(cache, id, &version, text("+")));
    EXPECT(0, scree_page_set(cache, id, &version, text("new bytes")));
    for (int i = 0; i < 100; i++)
        EXPECT(0, scree_page_allocate(cache, kit_slice(big, sizeof(big)), NULL, NULL));
    cr_assert(slice.len == 9 && memcmp(slice.data, "old bytes", 9) == 0);
    scree_read_leave(cache);
    expect_page(id, "new bytes");
}

Test(contract_pages, closing_under_a_guard_is_busy_and_nothing_happens)
{
    scree_slice slice;

    scree_read_enter(cache);
    EXPECT(SCREE_E_BUSY, scree_close(cache));
    EXPECT(0, scree_page_get(cache, 1, &slice, NULL));
    scree_read_leave(cache);
    EXPECT(0, scree_page_append(cache, 1, text("still here"), NULL));
    expect_page(1, "still here");
}

static _Atomic int guard_phase; /* 1: the thread's guard is open; 2: it may leave */

static void *
hold_guard(void *argument)
{
    (void)argument;
    scree_read_enter(cache);
    atomic_store_explicit(&guard_phase, 1, memory_order_release);
    while (atomic_load_explicit(&guard_phase, memory_order_acquire) != 2)
        usleep(100);
    scree_read_leave(cache);
    return NULL;
}

Test(contract_pages, closing_under_another_thread_s_guard_is_busy)
{
    pthread_t thread;

    cr_assert(pthread_create(&thread, NULL, hold_guard, NULL) == 0);
    while (atomic_load_explicit(&guard_phase, memory_order_acquire) != 1)
        usleep(100);
    EXPECT(SCREE_E_BUSY, scree_close(cache));
    atomic_store_explicit(&guard_phase, 2, memory_order_release);
    pthread_join(thread, NULL);
}

/* ---- the merge callback ---- */

Test(contract_pages, a_page_that_cannot_be_merged_fails_alone_and_set_repairs_it)
{
    scree_version version = 0;
    scree_version told = 0;
    scree_page_id bad = allocate("bad", NULL);
    scree_page_id good = allocate("good", NULL);
    scree_slice slice;
    scree_slice frags[4];
    size_t n = 0;

    EXPECT(0, scree_page_append(cache, bad, text("\xFF"), &version));
    EXPECT(SCREE_E_MERGE, scree_page_read(cache, bad, NULL, 0, NULL, &told));
    cr_assert(told == version, "the version is not told");
    scree_read_enter(cache);
    EXPECT(SCREE_E_MERGE, scree_page_get(cache, bad, &slice, &told));
    cr_assert(told == version && slice.data == NULL);
    EXPECT(0, scree_page_fragments(cache, bad, &slice, frags, 4, &n, NULL));
    cr_assert(n == 1 && frags[0].len == 1 && slice.len == 3);
    scree_read_leave(cache);
    expect_page(good, "good");
    EXPECT(0, scree_snapshot(cache, NULL));
    reopen();
    EXPECT(SCREE_E_MERGE, scree_page_read(cache, bad, NULL, 0, NULL, &told));
    cr_assert(told == version);
    expect_page(good, "good");
    EXPECT(0, scree_page_set(cache, bad, &version, text("repaired")));
    expect_page(bad, "repaired");
    EXPECT(0, scree_page_append(cache, bad, text("!"), NULL));
    expect_page(bad, "repaired!");
    EXPECT(0, scree_health(cache));
}

Test(contract_pages, a_page_that_cannot_be_merged_takes_only_so_many_fragments)
{
    scree_page_id bad = allocate("", NULL);
    int code = 0;
    int n = 0;

    EXPECT(0, scree_page_append(cache, bad, text("\xFF"), NULL));
    for (; n < 100000 && code == 0; n++)
        code = scree_page_append(cache, bad, text("x"), NULL);
    EXPECT(SCREE_E_MERGE, code);
    EXPECT(0, scree_page_append(cache, 1, text("fine"), NULL));
    EXPECT(0, scree_page_put(cache, bad, text("repaired"), NULL));
    EXPECT(0, scree_page_append(cache, bad, text("!"), NULL));
    expect_page(bad, "repaired!");
}

Test(contract_pages, merged_output_over_the_limit_is_merge_and_the_fragments_stay)
{
    static char half[3000];
    scree_page_id id = 0;
    scree_slice frags[4];
    scree_slice base;
    size_t n = 0;

    memset(half, 'h', sizeof(half));
    EXPECT(0, scree_page_allocate(cache, kit_slice(half, sizeof(half)), &id, NULL));
    EXPECT(0, scree_page_append(cache, id, kit_slice(half, sizeof(half)), NULL));
    EXPECT(SCREE_E_MERGE, scree_page_read(cache, id, NULL, 0, NULL, NULL));
    scree_read_enter(cache);
    EXPECT(0, scree_page_fragments(cache, id, &base, frags, 4, &n, NULL));
    cr_assert(base.len == 3000 && n == 1 && frags[0].len == 3000);
    scree_read_leave(cache);
    EXPECT(0, scree_page_put(cache, id, text("small"), NULL));
    expect_page(id, "small");
}

Test(contract_pages, however_fragments_are_merged_the_page_is_the_same)
{
    char expected[1000] = "";
    scree_page_id id = allocate("", NULL);

    for (int i = 0; i < 300; i++) {
        char piece[8];

        snprintf(piece, sizeof(piece), "%d,", i % 10);
        strcat(expected, piece);
        EXPECT(0, scree_page_append(cache, id, text(piece), NULL));
        if (i % 7 == 0)
            expect_page(id, expected);
        if (i % 50 == 0)
            EXPECT(0, scree_snapshot(cache, NULL));
        if (i % 70 == 69)
            reopen();
    }
    expect_page(id, expected);
}

static int
merge_empty(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags,
            size_t n, scree_out *out)
{
    (void)ctx;
    (void)id;
    (void)out;
    cr_assert(n >= 1 && frags != NULL, "merge runs when there is a fragment");
    cr_assert(base == NULL || base->data != NULL, "a base that is none is NULL");
    return 0;
}

Test(contract_pages, a_merge_may_produce_nothing)
{
    scree_materializer empty = kit_concat;
    scree_page_id id;

    EXPECT(0, scree_close(cache));
    empty.merge = merge_empty;
    options.materializer = &empty;
    EXPECT(0, scree_open(dir, &options, &cache));
    id = allocate("base", NULL);
    expect_page(id, "base");
    for (int i = 0; i < 30; i++) {
        EXPECT(0, scree_page_append(cache, id, text("x"), NULL));
        expect_page(id, "");
    }
    reopen();
    expect_page(id, "");
}

/* ---- directories ---- */

TestSuite(contract_directory, .init = setup, .fini = teardown, .timeout = 300);

Test(contract_directory, a_second_open_in_this_process_is_locked)
{
    scree_cache *second = (scree_cache *)&options;

    EXPECT(SCREE_E_LOCKED, scree_open(dir, &options, &second));
    cr_assert(second == NULL);
    options.flags = SCREE_READ_ONLY;
    EXPECT(SCREE_E_LOCKED, scree_open(dir, &options, &second));
    EXPECT(0, scree_page_append(cache, 1, text("x"), NULL));
}

Test(contract_directory, an_open_from_another_process_is_locked_and_the_holder_named)
{
    char holder[32];
    int status = 0;
    pid_t child;

    snprintf(holder, sizeof(holder), "%ld", (long)getpid());
    scree_prefork(cache);
    child = fork();
    if (child == 0) {
        scree_cache *second = NULL;

        scree_postfork_child(cache);
        if (scree_open(dir, &options, &second) != SCREE_E_LOCKED)
            _exit(1);
        _exit(strstr(scree_error_detail(), holder) != NULL ? 0 : 2);
    }
    scree_postfork_parent(cache);
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(status == 0, "status %x: 1 in its second byte: not LOCKED; 2: holder not named",
              status);
}

Test(contract_directory, two_may_read_at_a_time)
{
    scree_cache *second = NULL;

    EXPECT(0, scree_page_append(cache, 1, text("x"), NULL));
    EXPECT(0, scree_close(cache));
    options.flags = SCREE_READ_ONLY;
    EXPECT(0, scree_open(dir, &options, &cache));
    EXPECT(0, scree_open(dir, &options, &second));
    expect_page(1, "x");
    EXPECT(0, scree_close(second));
    options.flags = 0;
    EXPECT(SCREE_E_LOCKED, scree_open(dir, &options, &second));
}

Test(contract_directory, read_only_refuses_updates_and_writes_nothing)
{
    scree_version version = 0;
    scree_page_id id = allocate("page", &version);
    scree_version same = version;
    uint64_t before;

    EXPECT(0, scree_close(cache));
    before = kit_dir_fingerprint(dir, true);
    options.flags = SCREE_READ_ONLY;
    EXPECT(0, scree_open(dir, &options, &cache));
    expect_page(id, "page");
    EXPECT(SCREE_E_READ_ONLY, scree_page_allocate(cache, text("x"), NULL, NULL));
    EXPECT(SCREE_E_READ_ONLY, scree_page_allocate_at(cache, 9, text("x"), NULL));
    EXPECT(SCREE_E_READ_ONLY, scree_page_set(cache, id, &version, text("x")));
    version = same;
    EXPECT(SCREE_E_READ_ONLY, scree_page_merge(cache, id, &version, text("x")));
    version = same;
    EXPECT(SCREE_E_READ_ONLY, scree_page_free(cache, id, &version));
    EXPECT(SCREE_E_READ_ONLY, scree_page_append(cache, id, text("x"), NULL));
    EXPECT(SCREE_E_READ_ONLY, scree_page_put(cache, id, text("x"), NULL));
    EXPECT(SCREE_E_READ_ONLY, scree_snapshot(cache, NULL));
    EXPECT(0, scree_wait_stable(cache, same, 0));
    EXPECT(0, scree_close(cache));
    cr_assert(kit_dir_fingerprint(dir, true) == before, "something was written");
    options.flags = 0;
    EXPECT(0, scree_open(dir, &options, &cache));
    expect_page(id, "page");
}

Test(contract_directory, opened_and_closed_without_a_change_is_not_written_to)
{
    uint64_t before;
    scree_page_id id = allocate("page", NULL);

    for (int i = 0; i < 10; i++)
        EXPECT(0, scree_page_append(cache, id, text("x"), NULL));
    EXPECT(0, scree_close(cache));
    before = kit_dir_fingerprint(dir, true);
    for (int i = 0; i < 3; i++) {
        EXPECT(0, scree_open(dir, &options, &cache));
        cr_assert(kit_dir_fingerprint(dir, true) == before, "open wrote");
        expect_page(id, "pagexxxxxxxxxx");
        EXPECT(0, scree_flush(cache, NULL));
        EXPECT(0, scree_snapshot(cache, NULL));
        usleep(20000);
        cr_assert(kit_dir_fingerprint(dir, true) == before, "reading, flush or snapshot wrote");
        EXPECT(0, scree_close(cache));
        cr_assert(kit_dir_fingerprint(dir, true) == before, "close wrote");
    }
    EXPECT(0, scree_open(dir, &options, &cache));
}

Test(contract_directory, files_of_strangers_are_left_alone)
{
    static const char *const names[] = {"notes.txt",
                                        "segment-1.bak",
                                        "snapshot-",
                                        "manifest-1",
                                        "manifest-000000000000000G",
                                        "snapshot-0000000000000001x",
                                        "zz.tmp",
                                        "1",
                                        "0000000000000001"};
    struct kit_files files;
    bool warned = false;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        kit_file_write(dir, names[i], names[i], strlen(names[i]));
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 500; i++) {
            static char big[1500];

            EXPECT(0, scree_page_put(cache, 1, kit_slice(big, sizeof(big)), NULL));
        }
        EXPECT(0, scree_snapshot(cache, NULL));
        reopen();
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t len = 0;
        unsigned char *data = kit_file_read(dir, names[i], &len);

        cr_assert(data != NULL, "%s is gone", names[i]);
        cr_assert(len == strlen(names[i]) && memcmp(data, names[i], len) == 0, "%s changed",
                  names[i]);
        free(data);
    }
    kit_dir_list(dir, &files);
    for (size_t i = 0; i < files.n; i++)
        warned |= strstr(files.name[i], "DO_NOT_PUT_YOUR_FILES_HERE") != NULL;
    cr_assert(warned, "no warning file");
}

Test(contract_directory, a_directory_of_somebody_else_is_not_taken_for_ours)
{
    char other[KIT_PATH_MAX];
    scree_cache *second = NULL;
    size_t len = 0;
    unsigned char *data;

    kit_dir_name(other, "stranger");
    cr_assert(mkdir(other, 0755) == 0);
    kit_file_write(other, "thesis.tex", "years of work", 13);
    if (scree_open(other, &options, &second) == 0)
        EXPECT(0, scree_close(second));
    else
        cr_assert(strlen(scree_error_detail()) > 0);
    data = kit_file_read(other, "thesis.tex", &len);
    cr_assert(data != NULL && len == 13 && memcmp(data, "years of work", 13) == 0);
    free(data);
    kit_dir_remove(other);
}

Test(contract_directory, another_materializer_is_refused)
{
    scree_materializer other = kit_concat;

    EXPECT(0, scree_page_append(cache, 1, text("x"), NULL));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    options.materializer = &other;
    other.name = "concat2";
    EXPECT(SCREE_E_MATERIALIZER, scree_open(dir, &options, &cache));
    cr_assert(strstr(scree_error_detail(), "concat") != NULL, "%s", scree_error_detail());
    other.name = "conca";
    EXPECT(SCREE_E_MATERIALIZER, scree_open(dir, &options, &cache));
    other.name = "concat";
    other.version = 2;
    EXPECT(SCREE_E_MATERIALIZER, scree_open(dir, &options, &cache));
    cr_assert(cache == NULL);
    other.version = 1;
    EXPECT(0, scree_open(dir, &options, &cache));
    expect_page(1, "x");
}

/* Our files begin with magic 8, version 4, and the low half of the hash of these 12 bytes. */
static int
version_raise(const char *prefix)
{
    struct kit_files files;
    int n = 0;

    kit_dir_list(dir, &files);
    for (size_t i = 0; i < files.n; i++) {
        uint32_t version = 99;
        uint32_t check;
        unsigned char *data;
        size_t len;

        if (strncmp(files.name[i], prefix, strlen(prefix)) != 0)
            continue;
        data = kit_file_read(dir, files.name[i], &len);
        cr_assert(data != NULL && len >= 16);
        memcpy(data + 8, &version, sizeof(version));
        check = (uint32_t)XXH3_64bits(data, 12);
        memcpy(data + 12, &check, sizeof(check));
        kit_file_write(dir, files.name[i], data, len);
        free(data);
        n++;
    }
    return n;
}

static void
format_check(const char *prefix)
{
    uint64_t before;

    for (int i = 0; i < 300; i++)
        EXPECT(0, scree_page_append(cache, 1, text("0123456789"), NULL));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    cr_assert(version_raise(prefix) > 0, "no file %s*", prefix);
    before = kit_dir_fingerprint(dir, true);
    EXPECT(SCREE_E_FORMAT, scree_open(dir, &options, &cache));
    cr_assert(strstr(scree_error_detail(), prefix) != NULL, "which file? %s", scree_error_detail());
    cr_assert(cache == NULL);
    cr_assert(kit_dir_fingerprint(dir, true) == before,
              "a directory of another version was written");
}

Test(contract_directory, a_manifest_of_an_unknown_version_is_refused)
{
    format_check("manifest-");
}

Test(contract_directory, a_snapshot_of_an_unknown_version_is_refused)
{
    format_check("snapshot-");
}

Test(contract_directory, a_segment_of_an_unknown_version_is_refused)
{
    format_check("segment-");
}

/* ---- poison ---- */

Test(contract_directory, a_failed_sync_poisons_writers_not_readers_and_sticks)
{
    struct kit_plan plan = {
        .kinds = KIT_SYNC | KIT_WRITE, .fault = KIT_FAULT_CODE, .code = -EIO, .at = 1};
    scree_version version = 0;
    scree_version told = 0;
    scree_page_id id = allocate("durable", &version);
    int code = 0;

    EXPECT(0, scree_close(cache));
    options.env = kit_env();
    kit_env_plan(&(struct kit_plan){.kinds = 0});
    EXPECT(0, scree_open(dir, &options, &cache));
    expect_page(id, "durable");
    EXPECT(0, scree_page_append(cache, 1, text("opened"), NULL));
    EXPECT(0, scree_flush(cache, NULL));
    kit_env_plan(&plan);
    /* It may be a write ahead that fails, beside a sync that does not. */
    for (int i = 0; i < 1000 && code == 0; i++) {
        code = scree_page_append(cache, 1, text("+"), &told);
        if (code == 0)
            code = scree_wait_stable(cache, told, -1);
    }
    EXPECT(SCREE_E_POISONED, code);
    cr_assert(kit_env_hit());
    cr_assert(scree_health(cache) != 0);
    EXPECT(SCREE_E_POISONED, scree_page_append(cache, 1, text("+"), NULL));
    EXPECT(SCREE_E_POISONED, scree_page_set(cache, id, &version, text("+")));
    EXPECT(SCREE_E_POISONED, scree_page_allocate(cache, text("+"), NULL, NULL));
    EXPECT(SCREE_E_POISONED, scree_flush(cache, NULL));
    EXPECT(SCREE_E_POISONED, scree_snapshot(cache, NULL));
    expect_page(id, "durable");
    cr_assert(scree_health(cache) != 0);
    cr_assert(scree_close(cache) != 0, "closing cannot have made it durable");
    kit_env_plan(&(struct kit_plan){.kinds = 0});
    EXPECT(0, scree_open(dir, &options, &cache));
    expect_page(id, "durable");
    EXPECT(0, scree_health(cache));
}

/* ---- the recovery fold ---- */

static void
expect_fold(const struct kit_fold *fold)
{
    scree_slice state;

    EXPECT(0, scree_recovery_state(cache, &state));
    cr_assert(state.len == sizeof(*fold), "a state of %d bytes", (int)state.len);
    cr_assert(memcmp(state.data, fold, sizeof(*fold)) == 0, "%d records, not %d",
              (int)((const struct kit_fold *)state.data)->records, (int)fold->records);
}

/* Some updates; folds what the callback is to see. */
static void
fold_updates(struct kit_fold *fold, int n)
{
    scree_page_id id = allocate("start", NULL);
    scree_version version = 0;

    kit_fold_add(fold, id, text("start"));
    for (int i = 0; i < n; i++) {
        scree_page_id at = i % 3 == 0 ? 1 : id;

        EXPECT(0, scree_page_append(cache, at, text("piece"), &version));
        kit_fold_add(fold, at, text("piece"));
        if (i % 40 == 39) {
            EXPECT(0, scree_page_put(cache, at, text("base"), &version));
            kit_fold_add(fold, at, text("base"));
        }
    }
    EXPECT(0, scree_page_put(cache, id, text("gone"), &version));
    kit_fold_add(fold, id, text("gone"));
    EXPECT(0, scree_page_free(cache, id, &version));
}

Test(contract_directory, the_recovery_state_is_the_fold_over_everything_written_in_order)
{
    struct kit_fold *fold; /* shared with the child that crashes */
    int status = 0;
    pid_t child;

    fold = mmap(NULL, sizeof(*fold), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(fold != MAP_FAILED);
    EXPECT(0, scree_close(cache));
    kit_dir_remove(dir);
    options.materializer = &kit_concat_fold;
    EXPECT(0, scree_open(dir, &options, &cache));
    for (int round = 0; round < 3; round++) {
        fold_updates(fold, 100 + round * 50);
        if (round == 1)
            EXPECT(0, scree_snapshot(cache, NULL));
        reopen();
        expect_fold(fold);
    }
    EXPECT(0, scree_close(cache));
    cache = NULL;
    child = fork();
    if (child == 0) {
        EXPECT(0, scree_open(dir, &options, &cache));
        fold_updates(fold, 60);
        EXPECT(0, scree_snapshot(cache, NULL));
        fold_updates(fold, 60);
        EXPECT(0, scree_flush(cache, NULL));
        _exit(0);
    }
    cr_assert(waitpid(child, &status, 0) == child && status == 0);
    EXPECT(0, scree_open(dir, &options, &cache));
    expect_fold(fold);
    reopen();
    expect_fold(fold);
}

/* ---- strings ---- */

Test(contract_strings, every_code_has_its_text)
{
#define CHECK_TEXT(name, code, message) cr_assert(strstr(scree_strerror(code), message) != NULL);
    SCREE_ERROR_MAP(CHECK_TEXT)
#undef CHECK_TEXT
    cr_assert(strlen(scree_strerror(-EIO)) > 0);
    cr_assert(strlen(scree_strerror(-123456)) > 0);
    cr_assert(strlen(scree_strerror(0)) > 0);
    cr_assert(strlen(scree_strerror(1)) > 0);
    cr_assert(strcmp(scree_version_string(), "0.1.0") == 0);
}
