/*
 * test_recover.c - what an open tells: progress, which may cancel it, and scree_recovery, figure by figure.
 */
#include "cache_fixture.h"
#include "unit/claims.h"

#include <sys/wait.h>
#include <unistd.h>

#define PAGES 70000u /* more records than there are between two calls of progress */
#define CALLS_MAX 64u
#define HEADER_BYTES 4096u /* of a segment file (docs/log_format.md) */

static struct call {
    char what[16];
    uint64_t done, total;
} call[CALLS_MAX];
static uint32_t calls, cancel_at;

static int
progress_note(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    (void)ctx;
    cr_assert(calls < CALLS_MAX);
    (void)snprintf(call[calls].what, sizeof call[calls].what, "%s", what);
    call[calls].done = done;
    call[calls].total = total;
    return ++calls == cancel_at ? 1 : 0;
}

static void
setup(void)
{
    kit_dir_name(dir, "recover");
    kit_options_small(&options, &kit_concat);
    options.cache_bytes = 64 << 20;
    options.segment_bytes = 1 << 20;
    options.log_buffer_bytes = 1 << 20;
    options.space_amp_target = 100;
    options.snapshot_log_bytes = UINT64_C(1) << 40;
    options.flush_interval_ms = 0;
    options.progress = progress_note;
}

TestSuite(recover_progress, .init = setup, .fini = teardown, .timeout = 600);
TestSuite(recover_report, .init = setup, .fini = teardown, .timeout = 300);

/* In a process that dies behind it; the position up to which it flushed. */
static uint64_t
crash_after(void (*body)(void))
{
    uint64_t stable = 0;
    int status = 0, pipes[2];
    pid_t child;

    cr_assert(pipe(pipes) == 0);
    child = fork();
    if (child == 0) {
        if (scree_open(dir, &options, &cache) != 0)
            _exit(1);
        body();
        _exit(scree_flush(cache, &stable) != 0 ||
              write(pipes[1], &stable, sizeof stable) != (ssize_t)sizeof stable);
    }
    cr_assert(waitpid(child, &status, 0) == child && status == 0);
    cr_assert(read(pipes[0], &stable, sizeof stable) == (ssize_t)sizeof stable);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    calls = 0;
    return stable;
}

static void
allocate(uint32_t n)
{
    scree_page_id id;

    for (uint32_t i = 0; i < n; i++)
        if (scree_page_allocate(cache, text("a page"), &id, NULL) != 0)
            _exit(1);
}

static void
body_many(void)
{
    allocate(1000);
    if (scree_snapshot(cache, NULL) != 0)
        _exit(1);
    allocate(PAGES);
}

/* ---- progress -------------------------------------------------------------------------------------- */

Test(recover_progress, load_and_replay_are_told_and_add_up)
{
    uint64_t stable = crash_after(body_many);
    uint32_t loads = 0, replays = 0;
    scree_recovery_info info = {.size = sizeof info};

    open_cache();
    EXPECT(0, scree_recovery(cache, &info));
    for (uint32_t i = 0; i < calls; i++) {
        bool load = strcmp(call[i].what, "load") == 0;

        cr_assert(load || strcmp(call[i].what, "replay") == 0, "%s", call[i].what);
        cr_assert(replays == 0 || !load, "load behind replay");
        cr_assert(call[i].done <= call[i].total);
        if (i > 0 && strcmp(call[i].what, call[i - 1].what) == 0)
            cr_assert(call[i].done >= call[i - 1].done);
        loads += load;
        replays += !load;
    }
    cr_assert(loads >= 2 && replays >= 3, "%u and %u calls", loads, replays);
    cr_assert(call[loads - 1].done == call[loads - 1].total);
    cr_assert(call[loads].done == 0);
    cr_assert(eq(u64, call[calls - 1].done, call[calls - 1].total));
    cr_assert(eq(u64, call[calls - 1].done, stable - info.snapshot_lsn));
}

Test(recover_progress, canceled_at_any_call_the_open_fails_and_changes_nothing)
{
    char spare[KIT_PATH_MAX + 8];
    uint64_t before, n;

    (void)crash_after(body_many);
    (void)snprintf(spare, sizeof spare, "%s/SPARE", dir);
    (void)unlink(spare); /* room, no data; an open may use it up */
    before = kit_dir_fingerprint(dir, false);
    for (n = 1; n < CALLS_MAX; n++) {
        calls = 0;
        cancel_at = (uint32_t)n;
        int code = scree_open(dir, &options, &cache);

        if (code == 0)
            break;
        EXPECT(SCREE_E_CANCELED, code);
        cr_assert(cache == NULL);
        cr_assert(eq(u64, calls, n)); /* and no more */
        cr_assert(eq(u64, kit_dir_fingerprint(dir, false), before));
    }
    cr_assert(n > 4, "%u calls", (unsigned)n);
    cr_assert(eq(u64, stats_now().pages, PAGES + 1001));
}

/* ---- the report ------------------------------------------------------------------------------------ */

static scree_recovery_info
open_and_report(void)
{
    scree_recovery_info info = {.size = sizeof info};
    uint64_t begun = kit_now_ms();

    open_cache();
    EXPECT(0, scree_recovery(cache, &info));
    cr_assert(info.elapsed_us / 1000 <= kit_now_ms() - begun + 1);
    return info;
}

Test(recover_report, new_and_closed_are_clean)
{
    scree_recovery_info info = open_and_report();

    cr_assert(info.clean == 1 && info.records == 0 && info.snapshot_lsn == 0);
    for (int i = 0; i < 10; i++) {
        scree_page_id id;

        EXPECT(0, scree_page_allocate(cache, text("a page"), &id, NULL));
    }
    EXPECT(0, scree_close(cache));
    info = open_and_report();
    cr_assert(eq(u64, info.clean, 1));
    cr_assert(eq(u64, info.pages, 11));
    cr_assert(eq(u64, info.records, 0));
    cr_assert(eq(u64, info.torn_bytes, 0));
    cr_assert(eq(u64, info.batches_discarded, 0));
    cr_assert(gt(u64, info.snapshot_lsn, 0));
    cr_assert(ge(u64, info.stable_lsn, info.snapshot_lsn));
}

/* 7 records, beside those of a new directory. */
static void
body_seven(void)
{
    scree_page_id id;
    scree_version version;

    if (scree_page_allocate(cache, text("one"), &id, &version) != 0 ||
        scree_page_append(cache, id, text("two"), &version) != 0 ||
        scree_page_put(cache, id, text("three"), &version) != 0 ||
        scree_page_free(cache, id, &version) != 0)
        _exit(1);
    allocate(3);
}

Test(recover_report, a_crash_is_told_with_what_was_replayed)
{
    uint64_t old, stable;
    scree_recovery_info info;

    open_cache(); /* so that the directory has a snapshot */
    EXPECT(0, scree_close(cache));
    cache = NULL;
    old = kit_now_ms();
    stable = crash_after(body_seven);
    info = open_and_report();
    cr_assert(eq(u64, info.clean, 0));
    cr_assert(eq(u64, info.records, 7));
    cr_assert(eq(u64, info.pages, 4));
    cr_assert(eq(u64, info.stable_lsn, stable));
    cr_assert(gt(u64, info.snapshot_lsn, 0));
    cr_assert(lt(u64, info.snapshot_lsn, stable));
    cr_assert(eq(u64, info.torn_bytes, 0));
    cr_assert(le(u64, info.elapsed_us, (kit_now_ms() - old + 1) * 1000));
}

Test(recover_report, torn_bytes_are_counted_to_the_last_that_is_not_zero)
{
    uint64_t stable = crash_after(body_seven);
    scree_recovery_info info;
    struct kit_files files;
    unsigned char *data, *longer;
    size_t len, at = (size_t)(HEADER_BYTES + stable % options.segment_bytes);

    cr_assert(lt(u64, stable, 2 * options.segment_bytes));
    kit_dir_list(dir, &files);
    for (size_t i = 0; i < files.n; i++) {
        if (strcmp(files.name[i], "segment-0000000000000001") != 0)
            continue;
        data = kit_file_read(dir, files.name[i], &len);
        longer = calloc(1, len + 8192);
        cr_assert(data != NULL && longer != NULL);
        memcpy(longer, data, len);
        memset(longer + at, 0, len + 8192 - at);
        memset(longer + at, 0xaa, 100);
        longer[at + 4999] = 1;
        kit_file_write(dir, files.name[i], longer, len + 8192);
        free(data);
        free(longer);
    }
    info = open_and_report();
    cr_assert(eq(u64, info.torn_bytes, 5000));
    cr_assert(eq(u64, info.stable_lsn, stable));
    cr_assert(eq(u64, info.batches_discarded, 0));
    cr_assert(eq(u64, info.clean, 0));
}
