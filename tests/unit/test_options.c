/*
 * test_options.c - what the other tests leave out of options and callbacks: each bound by itself, each member
 * of an environment, read sections around open and close, visitors that stop, a directory without manifest.
 */
#include "cache_fixture.h"
#include "snapshot/snapshot.h"
#include "unit/claims.h"

#include <string.h>
#include <unistd.h>

static void
setup(void)
{
    kit_dir_name(dir, "options");
    kit_options_small(&options, &kit_concat);
}

static void
expect_refused(const scree_options *o, const char *word)
{
    EXPECT(SCREE_E_INVALID, scree_open(dir, o, &cache));
    cr_assert(strstr(scree_error_detail(), word) != NULL, "%s: %s", word, scree_error_detail());
    cr_assert(eq(ptr, cache, NULL));
    cr_assert(ne(int, access(dir, F_OK), 0), "%s: the directory was made", word);
}

TestSuite(options_bounds, .init = setup, .fini = teardown, .timeout = 600);

Test(options_bounds, without_options_nothing_happens)
{
    scree_options_init_sized(NULL, sizeof(scree_options));
    EXPECT(SCREE_E_INVALID, scree_open(dir, NULL, &cache));
}

/* What a program was compiled with may be shorter or longer than ours. */
Test(options_bounds, another_header_s_options_are_filled_to_their_own_size)
{
    struct {
        scree_options o;
        unsigned char more[16];
    } longer;
    scree_options shorter;

    memset(&longer, 0x55, sizeof(longer));
    scree_options_init_sized(&longer.o, sizeof(longer));
    cr_assert(longer.more[0] == 0 && longer.more[15] == 0);
    memset(&shorter, 0x55, sizeof(shorter));
    scree_options_init_sized(&shorter, offsetof(scree_options, cache_bytes));
    cr_assert(eq(u64, shorter.cache_bytes, 0x5555555555555555u));
    cr_assert(eq(u32, shorter.flags, 0));
}

#define REFUSED(field, value, word) \
    do {                            \
        scree_options o_ = options; \
                                    \
        o_.field = (value);         \
        expect_refused(&o_, word);  \
    } while (0)

Test(options_bounds, each_number_has_a_largest)
{
    REFUSED(cache_bytes, ((uint64_t)1 << 60) + 1, "cache_bytes");
    REFUSED(segment_bytes, ((uint64_t)1 << 40) + 4096, "segment_bytes");
    REFUSED(log_buffer_bytes, ((uint64_t)1 << 32) + 1, "log_buffer_bytes");
    REFUSED(compression_level, -1, "compression_level");
    REFUSED(compression_level, 20, "compression_level");
    REFUSED(space_amp_target, 1.04, "space_amp_target");
    REFUSED(space_amp_target, 101, "space_amp_target");
    REFUSED(flags, SCREE_READ_ONLY | SCREE_CREATE, "READ_ONLY");
    REFUSED(flags, SCREE_READ_ONLY | SCREE_EXCLUSIVE, "READ_ONLY");
    options.log_buffer_bytes = (uint64_t)1 << 32;
    REFUSED(page_bytes_max, ((uint64_t)1 << 30) + 1, "page_bytes_max");
}

Test(options_bounds, a_materializer_s_name_has_1_to_so_many_bytes)
{
    const size_t most = sizeof((struct scree__manifest *)NULL)->materializer - 1;
    scree_materializer m = kit_concat;
    char name[512] = "";

    m.name = name;
    options.materializer = &m;
    expect_refused(&options, "name");
    for (size_t n = 1; n <= most; n += most - 1) {
        memset(name, 'n', n);
        open_cache();
        EXPECT(0, scree_close(cache));
        cache = NULL;
        open_cache(); /* and it is known again, to its last byte */
        EXPECT(0, scree_close(cache));
        cache = NULL;
        name[n - 1] = 'm';
        EXPECT(SCREE_E_MATERIALIZER, scree_open(dir, &options, &cache));
        kit_dir_remove(dir);
    }
    memset(name, 'n', most + 1);
    expect_refused(&options, "name");
}

/* Members are pointers, one behind the other, between ctx and clone, which is optional. */
Test(options_bounds, each_member_of_an_environment_but_clone_is_required)
{
    scree_env env;
    size_t first = offsetof(scree_env, open), last = offsetof(scree_env, clone);
    const void *none = NULL;
    unsigned n = 0;

    for (size_t at = first; at < last; at += sizeof(none), n++) {
        env = *scree_env_posix();
        memcpy((char *)&env + at, &none, sizeof(none));
        REFUSED(env, &env, "env");
    }
    cr_assert(eq(uint, n, 19));
    env = *scree_env_posix();
    env.clone = NULL;
    options.env = &env;
    open_cache();
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("x"), NULL));
    EXPECT(0, scree_close(cache));
    cache = NULL;
}

/* Grace periods would be waited for, by the thread that holds them up. */
Test(options_bounds, in_a_read_section_nothing_is_opened_or_closed)
{
    scree_cache *other = NULL;
    char path[KIT_PATH_MAX];

    open_cache();
    kit_dir_name(path, "options-other");
    scree_read_enter(cache);
    EXPECT(SCREE_E_BUSY, scree_open(path, &options, &other));
    cr_assert(eq(ptr, other, NULL));
    scree_read_leave(cache);
    EXPECT(0, scree_open(path, &options, &other));
    scree_read_enter(cache);
    EXPECT(SCREE_E_BUSY, scree_close(other));
    EXPECT(0, scree_page_append(other, SCREE_PAGE_ROOT, text("x"), NULL)); /* it is still there */
    scree_read_leave(cache);
    EXPECT(0, scree_close(other));
    kit_dir_remove(path);
}

Test(options_bounds, segments_without_a_manifest_are_no_new_directory)
{
    struct kit_files files;
    char path[KIT_PATH_MAX + 80];
    uint64_t before;
    unsigned segments = 0;

    open_cache();
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("x"), NULL));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    kit_dir_list(dir, &files);
    for (size_t i = 0; i < files.n; i++) {
        segments += strncmp(files.name[i], "segment-", 8) == 0;
        snprintf(path, sizeof(path), "%s/%s", dir, files.name[i]);
        if (strncmp(files.name[i], "segment-", 8) != 0)
            cr_assert(zero(int, unlink(path)));
    }
    cr_assert(gt(uint, segments, 0));
    before = kit_dir_fingerprint(dir, true);
    EXPECT(SCREE_E_CORRUPT, scree_open(dir, &options, &cache));
    cr_assert(kit_dir_fingerprint(dir, true) == before, "something was written");
}

Test(options_bounds, a_recovery_state_needs_its_callback_but_not_to_be_looked_at)
{
    scree_materializer m = kit_concat_fold;
    scree_slice state;

    options.materializer = &kit_concat_fold;
    open_cache();
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("x"), NULL));
    EXPECT(0, scree_snapshot(cache, NULL));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    open_cache(); /* what it folds now goes into the next snapshot */
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("y"), NULL));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    m.recover = NULL;
    options.materializer = &m;
    EXPECT(SCREE_E_MATERIALIZER, scree_open(dir, &options, &cache));
    options.flags = SCREE_READ_ONLY;
    open_cache();
    EXPECT(0, scree_recovery_state(cache, &state));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    options.flags = 0;
    options.materializer = &kit_concat_fold;
    open_cache();
    EXPECT(0, scree_recovery_state(cache, &state));
    cr_assert(eq(sz, state.len, sizeof(struct kit_fold)));
}

/* ---- visitors ------------------------------------------------------------------------------------- */

struct stop {
    uint64_t calls, at;
};

static int
stat_stop(void *ctx, const char *name, double value)
{
    struct stop *stop = ctx;

    cr_assert(strlen(name) > 0 && value >= 0);
    return ++stop->calls == stop->at ? 99 : 0;
}

Test(options_bounds, a_visitor_of_figures_ends_it_at_any_of_them)
{
    struct stop all = {0};

    open_cache();
    EXPECT(0, scree_stats_each(cache, stat_stop, &all));
    cr_assert(gt(u64, all.calls, 50));
    for (uint64_t at = 1; at <= all.calls; at++) {
        struct stop stop = {.at = at};

        cr_assert(eq(int, scree_stats_each(cache, stat_stop, &stop), 99), "at %llu",
                  (unsigned long long)at);
        cr_assert(eq(u64, stop.calls, at));
    }
}

/* The library's own spare room is no data. */
static uint64_t
data_fingerprint(void)
{
    char path[KIT_PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/SPARE", dir);
    (void)unlink(path);
    return kit_dir_fingerprint(dir, false);
}

static int
progress_stop(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct stop *stop = ctx;

    (void)done, (void)total;
    cr_assert(strcmp(what, "load") == 0 || strcmp(what, "replay") == 0);
    return ++stop->calls == stop->at ? 1 : 0;
}

Test(options_bounds, an_open_is_canceled_at_any_step_and_changes_nothing)
{
    struct stop stop = {0};
    uint64_t before;
    pid_t child = kit_fork();

    if (child == 0) { /* not Criterion's child: it tells by its status */
        KIT_CHECK(scree_open(dir, &options, &cache) == 0, "open");
        for (int i = 0; i < 3000; i++)
            KIT_CHECK(scree_page_append(cache, SCREE_PAGE_ROOT, text("x"), NULL) == 0, "append");
        KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
        for (int i = 0; i < 5000; i++)
            KIT_CHECK(scree_page_put(cache, SCREE_PAGE_ROOT, text("y"), NULL) == 0, "put");
        KIT_CHECK(scree_flush(cache, NULL) == 0, "flush");
        _exit(0);
    }
    cr_assert(zero(int, kit_join(child)));
    options.progress = progress_stop;
    options.callback_ctx = &stop;
    before = data_fingerprint();
    for (stop.at = 1;; stop.at++) {
        int rc;

        stop.calls = 0;
        rc = scree_open(dir, &options, &cache);
        if (stop.calls < stop.at)
            break;
        cr_assert(eq(int, rc, SCREE_E_CANCELED), "at %llu", (unsigned long long)stop.at);
        cr_assert(eq(ptr, cache, NULL));
        cr_assert(data_fingerprint() == before, "canceled at %llu it wrote",
                  (unsigned long long)stop.at);
    }
    cr_assert(gt(u64, stop.at, 4), "%llu steps", (unsigned long long)stop.at);
    cr_assert(ne(ptr, cache, NULL));
}
