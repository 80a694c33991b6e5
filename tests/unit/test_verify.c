/*
 * test_verify.c - the contracts of scree_verify and scree_salvage. That every flipped byte is found is
 * crash_verify's matter.
 */
#include "cache_fixture.h"
#include "support/mend.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

static char to[KIT_PATH_MAX];
static scree_finding last; /* that is no note */
static char last_file[64], last_found[64];
static int bad, notes, calls, cancel_at, findings_at_most = INT_MAX;
static scree_lsn furthest; /* of a finding */

static int
note(void *ctx, const scree_finding *f)
{
    cr_assert(ctx == &bad);
    cr_assert(f->size == sizeof(*f) && f->text != NULL && f->text[0] != '\0');
    if (f->severity == SCREE_FINDING_NOTE) {
        notes++;
        return 0;
    }
    bad++;
    furthest = f->lsn > furthest ? f->lsn : furthest;
    if (bad > findings_at_most)
        return 1;
    last = *f;
    snprintf(last_file, sizeof(last_file), "%s", f->file != NULL ? f->file : "");
    snprintf(last_found, sizeof(last_found), "%s", f->found != NULL ? f->found : "");
    return 0;
}

static int
progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    cr_assert(ctx == &bad && what[0] != '\0');
    cr_assert(total == 0 || done <= total, "%s: %llu of %llu", what, (unsigned long long)done,
              (unsigned long long)total);
    return ++calls == cancel_at;
}

static int
verify(void)
{
    bad = notes = calls = 0;
    furthest = 0;
    return scree_verify(dir, &options, note, progress, &bad);
}

static int
salvage(void)
{
    bad = notes = calls = 0;
    return scree_salvage(dir, to, &options, note, progress, &bad);
}

static void
setup(void)
{
    kit_dir_name(dir, "verify");
    kit_dir_name(to, "salvage");
    kit_options_small(&options, &kit_concat);
    cancel_at = 0;
    open_cache();
}

static void
close_cache(void)
{
    EXPECT(0, scree_close(cache));
    cache = NULL;
}

static void
done(void)
{
    teardown();
    kit_dir_remove(to);
}

TestSuite(verify, .init = setup, .fini = done, .timeout = 300);
TestSuite(salvage, .init = setup, .fini = done, .timeout = 300);

/* Pages of every form; the second snapshot comes with the close. */
static void
fill(void)
{
    static char big[3000];

    memset(big, 'x', sizeof(big));
    for (scree_page_id id = 2; id < 40; id++) {
        EXPECT(0,
               scree_page_allocate_at(cache, id, kit_slice(big, id % 3 == 0 ? 0 : 60 * id), NULL));
        if (id % 4 == 0)
            EXPECT(0, scree_page_append(cache, id, text("and more"), NULL));
        if (id == 20)
            EXPECT(0, scree_snapshot(cache, NULL));
    }
    EXPECT(0, scree_page_put(cache, 7, text(""), NULL));
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text("root"), NULL));
}

/* The only, or the newest, file of that kind. */
static void
path_of(char path[KIT_PATH_MAX * 2], const char *prefix)
{
    struct kit_files files;

    kit_dir_list(dir, &files);
    path[0] = '\0';
    for (size_t i = 0; i < files.n; i++) {
        if (strncmp(files.name[i], prefix, strlen(prefix)) == 0)
            snprintf(path, KIT_PATH_MAX * 2, "%s/%s", dir, files.name[i]);
    }
    cr_assert(path[0] != '\0', "no %s", prefix);
}

static void
remove_all(const char *prefix)
{
    struct kit_files files;
    char path[KIT_PATH_MAX * 2];

    kit_dir_list(dir, &files);
    for (size_t i = 0; i < files.n; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, files.name[i]);
        if (strncmp(files.name[i], prefix, strlen(prefix)) == 0)
            cr_assert(unlink(path) == 0);
    }
}

/* What fill wrote. */
static void
expect_filled(void)
{
    char bytes[4096];

    for (scree_page_id id = 1; id < 40; id++) {
        size_t len = 0, expected = (id % 3 == 0 ? 0 : 60 * id) + (id % 4 == 0 ? 8 : 0);

        EXPECT(0, scree_page_read(cache, id, bytes, sizeof(bytes), &len, NULL));
        cr_assert(len == (id == SCREE_PAGE_ROOT ? 4
                          : id == 7             ? 0
                                                : expected),
                  "page %llu: %zu bytes", (unsigned long long)id, len);
    }
}

/* Both directories show the same pages, unmerged. */
static void
expect_same_pages(void)
{
    scree_options o = options;
    scree_cache *a, *b;
    scree_page_id id = 0, other = 0;

    o.flags = SCREE_READ_ONLY;
    EXPECT(0, scree_open(dir, &o, &a));
    EXPECT(0, scree_open(to, &o, &b));
    for (;;) {
        scree_slice base[2], frag[2][64];
        size_t n[2];
        int code = scree_page_next(a, id, &id);

        cr_assert(scree_page_next(b, other, &other) == code && id == other);
        if (code != 0)
            break;
        scree_read_enter(a);
        scree_read_enter(b);
        EXPECT(0, scree_page_fragments(a, id, &base[0], frag[0], 64, &n[0], NULL));
        EXPECT(0, scree_page_fragments(b, id, &base[1], frag[1], 64, &n[1], NULL));
        cr_assert(n[0] == n[1] && base[0].len == base[1].len, "page %llu", (unsigned long long)id);
        cr_assert((base[0].data == NULL) == (base[1].data == NULL), "page %llu: a base or none",
                  (unsigned long long)id);
        cr_assert(base[0].len == 0 || memcmp(base[0].data, base[1].data, base[0].len) == 0);
        for (size_t i = 0; i < n[0]; i++)
            cr_assert(frag[0][i].len == frag[1][i].len &&
                      memcmp(frag[0][i].data, frag[1][i].data, frag[0][i].len) == 0);
        scree_read_leave(b);
        scree_read_leave(a);
    }
    EXPECT(0, scree_close(a));
    EXPECT(0, scree_close(b));
}

Test(verify, a_whole_directory_is_clean_and_is_not_written_to)
{
    uint64_t before;

    fill();
    close_cache();
    before = kit_dir_fingerprint(dir, true);
    EXPECT(0, verify());
    cr_assert(bad == 0 && notes == 0 && calls > 3);
    EXPECT(0, scree_verify(dir, &options, NULL, NULL, NULL));
    cr_assert(kit_dir_fingerprint(dir, true) == before);
}

Test(verify, bad_arguments_are_told)
{
    close_cache();
    EXPECT(SCREE_E_INVALID, scree_verify(NULL, &options, NULL, NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_verify("", &options, NULL, NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_verify(dir, NULL, NULL, NULL, NULL));
    EXPECT(-ENOENT, scree_verify(to, &options, NULL, NULL, NULL));
    cr_assert(mkdir(to, 0777) == 0);
    EXPECT(-ENOENT, scree_verify(to, &options, NULL, NULL, NULL));
    options.cache_bytes = 1;
    EXPECT(SCREE_E_INVALID, scree_verify(dir, &options, NULL, NULL, NULL));
}

Test(verify, a_directory_open_for_writing_is_locked_and_one_open_for_reading_is_not)
{
    scree_options o = options;

    EXPECT(SCREE_E_LOCKED, verify());
    close_cache();
    o.flags = SCREE_READ_ONLY;
    EXPECT(0, scree_open(dir, &o, &cache));
    EXPECT(0, verify());
}

Test(verify, another_materializer_is_refused_and_none_is_taken)
{
    fill();
    close_cache();
    options.materializer = &kit_counter_materializer;
    EXPECT(SCREE_E_MATERIALIZER, verify());
    options.materializer = NULL;
    EXPECT(0, verify());
}

static int
note_once(void *ctx, const scree_finding *f)
{
    (void)f;
    ++*(int *)ctx;
    return 1;
}

Test(verify, a_callback_cancels)
{
    char path[KIT_PATH_MAX * 2];
    int n = 0;

    fill();
    close_cache();
    cancel_at = 2;
    EXPECT(SCREE_E_CANCELED, verify());
    path_of(path, "snapshot-");
    cr_assert(truncate(path, 60) == 0);
    EXPECT(SCREE_E_CANCELED, scree_verify(dir, &options, note_once, NULL, &n));
    cr_assert(n == 1);
}

Test(verify, a_page_that_does_not_merge_is_a_finding)
{
    fill();
    EXPECT(0, scree_page_append(cache, 9, text("\xff"), NULL));
    close_cache();
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad == 1 && last.code == SCREE_E_MERGE && last.page == 9 && last.lsn != 0);
    options.materializer = NULL; /* nobody to ask */
    EXPECT(0, verify());
}

static int
check(void *ctx, scree_page_id id, scree_slice page)
{
    (void)ctx;
    cr_assert(page.len > 0 || id == 7, "page %llu was never written", (unsigned long long)id);
    return id == 8 ? 5 : 0;
}

Test(verify, the_check_callback_judges_merged_pages)
{
    scree_materializer m = kit_concat;

    fill();
    close_cache();
    m.check = check;
    options.materializer = &m;
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad == 1 && last.page == 8 && strcmp(last_found, "5") == 0);
}

Test(verify, a_file_of_somebody_else_is_a_note)
{
    close_cache();
    kit_file_write(dir, "segment-1", "mine", 4);
    EXPECT(0, verify());
    cr_assert(bad == 0 && notes == 1);
}

Test(verify, what_is_missing_is_named)
{
    char path[KIT_PATH_MAX * 2];

    fill();
    close_cache();
    path_of(path, "snapshot-");
    cr_assert(unlink(path) == 0);
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad == 1 && strcmp(last_file, strrchr(path, '/') + 1) == 0);
    remove_all("manifest-");
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad == 1 && notes == 0);
}

Test(verify, pages_of_a_missing_segment_are_lost)
{
    char path[KIT_PATH_MAX * 2];

    fill();
    close_cache();
    path_of(path, "segment-");
    cr_assert(unlink(path) == 0);
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad >= 39 && last.severity == SCREE_FINDING_LOST && last.page != 0);
}

Test(verify, a_segment_of_another_directory_is_a_stranger)
{
    char path[KIT_PATH_MAX * 2];
    unsigned char *data;
    size_t len;

    fill();
    close_cache();
    kit_dir_copy(dir, to);
    kit_dir_remove(dir);
    open_cache();
    fill();
    close_cache();
    path_of(path, "segment-");
    data = kit_file_read(to, strrchr(path, '/') + 1, &len);
    cr_assert(data != NULL);
    kit_file_write(dir, strrchr(path, '/') + 1, data, len);
    free(data);
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad > 1 && last.severity == SCREE_FINDING_LOST);
}

Test(salvage, a_whole_directory_is_copied_whole)
{
    uint64_t before;

    fill();
    close_cache();
    before = kit_dir_fingerprint(dir, true);
    EXPECT(0, salvage());
    cr_assert(bad == 0 && notes == 0);
    cr_assert(kit_dir_fingerprint(dir, true) == before, "the source was written to");
    expect_same_pages();
}

/* All manifests of a directory, as if they had been written so: the segment size they had; 0: no change. */
static uint64_t
manifests_say(const char *of, uint64_t segment_bytes)
{
    uint64_t said = 0;
    struct kit_files files;

    kit_dir_list(of, &files);
    for (size_t i = 0; i < files.n; i++) {
        size_t len;
        unsigned char *data;

        if (strncmp(files.name[i], "manifest-", 9) != 0)
            continue;
        data = kit_file_read(of, files.name[i], &len);
        cr_assert(data != NULL && len > 48);
        memcpy(&said, data + 40, 8);
        if (segment_bytes != 0) {
            memcpy(data + 40, &segment_bytes, 8);
            mend_manifest(data, len);
            kit_file_write(of, files.name[i], data, len);
        }
        free(data);
    }
    return said;
}

Test(salvage, segments_know_better_than_a_manifest_how_large_they_are)
{
    uint64_t said;

    fill();
    close_cache();
    said = manifests_say(dir, UINT64_C(1) << 40);
    cr_assert(said < UINT64_C(1) << 30);
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad > 0 && strcmp(last_file, "") == 0, "%s", last_file);
    EXPECT(SCREE_E_CORRUPT, salvage());
    cr_assert(manifests_say(to, 0) == said, "what the manifest said was believed");
    (void)manifests_say(dir, said);
    EXPECT(0, verify());
    expect_same_pages();
}

Test(salvage, no_materializer_keeps_the_name)
{
    fill();
    close_cache();
    options.materializer = NULL;
    EXPECT(0, salvage());
    options.materializer = &kit_concat;
    expect_same_pages();
}

Test(salvage, the_destination_is_new_and_outside)
{
    char inside[KIT_PATH_MAX];
    uint64_t before;

    close_cache();
    before = kit_dir_fingerprint(dir, true);
    EXPECT(SCREE_E_INVALID, scree_salvage(dir, NULL, &options, NULL, NULL, NULL));
    EXPECT(SCREE_E_INVALID, scree_salvage(dir, dir, &options, NULL, NULL, NULL));
    cr_assert(snprintf(inside, sizeof(inside), "%.400s/inside/", dir) > 0);
    EXPECT(SCREE_E_INVALID, scree_salvage(dir, inside, &options, NULL, NULL, NULL));
    cr_assert(mkdir(to, 0777) == 0);
    kit_file_write(to, "mine", "x", 1);
    EXPECT(SCREE_E_INVALID, salvage());
    kit_dir_remove(to);
    cr_assert(mkdir(to, 0777) == 0);
    EXPECT(0, salvage()); /* empty is as good as none */
    cr_assert(kit_dir_fingerprint(dir, true) == before);
    EXPECT(SCREE_E_INVALID, salvage());
}

Test(salvage, a_snapshot_that_goes_on_for_a_terabyte_is_not_read, .timeout = 300)
{
    char path[KIT_PATH_MAX * 2];
    struct kit_files files;

    fill();
    close_cache();
    kit_dir_list(dir, &files);
    for (size_t i = 0; i < files.n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, files.name[i]);
        cr_assert(strncmp(files.name[i], "snapshot-", 9) != 0 ||
                  truncate(path, (off_t)1 << 40) == 0 || errno == EFBIG);
    }
    remove_all("manifest-"); /* so that its length is nowhere told */
    EXPECT(SCREE_E_CORRUPT, scree_verify(dir, &options, NULL, NULL, NULL));
}

Test(salvage, where_nothing_says_whose_it_is_there_is_no_copy)
{
    struct kit_files files;

    fill();
    close_cache();
    kit_dir_list(dir, &files);
    for (size_t len = 1; len <= 8192; len += 8191) { /* cut, or something else */
        static const char other[8192] = "x";

        for (size_t i = 0; i < files.n; i++)
            if (files.name[i][0] == 'm' || strncmp(files.name[i], "segment-", 8) == 0)
                kit_file_write(dir, files.name[i], other, len);
        EXPECT(SCREE_E_CORRUPT, scree_verify(dir, &options, NULL, NULL, NULL));
        EXPECT(-ENOENT, salvage()); /* CORRUPT would say that the rest is in dst */
        cr_assert(access(to, F_OK) != 0);
    }
}

Test(salvage, without_snapshots_pages_come_from_the_log)
{
    scree_options o = options;

    fill();
    close_cache();
    kit_dir_copy(dir, to);
    remove_all("snapshot-");
    EXPECT(SCREE_E_CORRUPT, scree_open(dir, &o, &cache));
    cr_assert(strstr(scree_error_detail(), "snapshot-") != NULL);
    kit_dir_remove(to);
    EXPECT(SCREE_E_CORRUPT, salvage());
    cr_assert(notes > 0 && last.severity == SCREE_FINDING_DAMAGE);
    EXPECT(0, scree_open(to, &o, &cache));
    expect_filled();
}

/* Zeros from the record of 32 bytes that ends at `end` up to the end of its segment's file. */
static void
lose_from(uint64_t end)
{
    uint64_t number = (end - 32) / options.segment_bytes;
    off_t offset = (off_t)(4096 + (end - 32) % options.segment_bytes);
    char path[KIT_PATH_MAX * 2];
    struct stat st;

    snprintf(path, sizeof(path), "%s/segment-%016llx", dir, (unsigned long long)number);
    cr_assert(stat(path, &st) == 0 && st.st_size > offset);
    cr_assert(truncate(path, offset) == 0 && truncate(path, st.st_size) == 0);
}

/* Behind a crash the log goes on some segments later. The files between were never there: that they are missing
   does not mean that what lay there had died. */
Test(salvage, what_is_lost_in_front_of_a_jump_is_missed_behind_it)
{
    scree_version version = 0;
    char bytes[64], crashed[KIT_PATH_MAX];
    size_t len = 0;

    EXPECT(0, scree_page_put(cache, SCREE_PAGE_ROOT, text("old"), NULL));
    EXPECT(0, scree_page_allocate_at(cache, 2, text("two"), NULL));
    EXPECT(0, scree_snapshot(cache, NULL));
    EXPECT(0, scree_page_put(cache, SCREE_PAGE_ROOT, text("newer"), &version));
    EXPECT(0, scree_wait_stable(cache, version, -1));
    kit_dir_name(crashed, "crashed");
    kit_dir_copy(dir, crashed);
    close_cache();
    kit_dir_remove(dir);
    cr_assert(rename(crashed, dir) == 0);
    open_cache();
    EXPECT(0, scree_page_append(cache, SCREE_PAGE_ROOT, text(" and more"), NULL));
    EXPECT(0, scree_page_append(cache, 2, text(" and more"), NULL));
    close_cache();
    lose_from(version);
    remove_all("snapshot-");
    EXPECT(SCREE_E_CORRUPT, salvage());
    cr_assert(bad > 0);
    EXPECT(0, scree_open(to, &options, &cache));
    EXPECT(0, scree_page_read(cache, SCREE_PAGE_ROOT, bytes, sizeof(bytes), &len, NULL));
    cr_assert(len != strlen("old and more"), "a page that never was so: %.*s", (int)len, bytes);
}

Test(salvage, without_any_manifest_the_materializer_has_to_be_given)
{
    scree_options o = options;

    fill();
    close_cache();
    remove_all("manifest-");
    options.materializer = NULL;
    EXPECT(SCREE_E_INVALID, salvage());
    kit_dir_remove(to);
    options.materializer = o.materializer;
    EXPECT(SCREE_E_CORRUPT, salvage());
    cr_assert(bad == 1 && notes == 0, "the snapshots are there");
    EXPECT(0, scree_open(to, &o, &cache));
    expect_filled();
    EXPECT(SCREE_E_NOT_FOUND, scree_page_read(cache, 45, NULL, 0, NULL, NULL));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    remove_all("snapshot-0000000000000002"); /* the older one and the log behind it */
    kit_dir_remove(to);
    EXPECT(SCREE_E_CORRUPT, salvage());
    cr_assert(bad == 1 && notes == 0);
    EXPECT(0, scree_open(to, &o, &cache));
    expect_filled();
}

Test(salvage, recovery_state_and_ids_are_carried_on)
{
    scree_slice state;
    struct kit_fold before, after;
    scree_options o = options;
    uint64_t id = 0, next = 0;
    scree_page_id page = 0;

    EXPECT(0, scree_close(cache));
    cache = NULL;
    kit_dir_remove(dir);
    options.materializer = o.materializer = &kit_concat_fold;
    open_cache();
    fill();
    for (int i = 0; i < 100; i++)
        EXPECT(0, scree_id_next(cache, &id));
    reopen();
    EXPECT(0, scree_recovery_state(cache, &state));
    cr_assert(state.len == sizeof(before));
    memcpy(&before, state.data, sizeof(before));
    close_cache();
    EXPECT(0, salvage());
    EXPECT(0, scree_open(to, &o, &cache));
    EXPECT(0, scree_recovery_state(cache, &state));
    cr_assert(state.len == sizeof(after));
    memcpy(&after, state.data, sizeof(after));
    cr_assert(after.records == before.records && after.hash == before.hash);
    EXPECT(0, scree_id_next(cache, &next));
    cr_assert(next > id, "id %llu again", (unsigned long long)next);
    EXPECT(0, scree_page_allocate(cache, text("new"), &page, NULL));
    cr_assert(page > 1, "a page in use");
}

static int
note_state(void *ctx, const scree_finding *f)
{
    *(int *)ctx += f->severity == SCREE_FINDING_LOST && f->page == 0 &&
                   strstr(f->text, "recovery state") != NULL;
    return 0;
}

Test(salvage, a_recovery_state_whose_log_was_given_back_is_told_lost)
{
    static char big[3000];
    char first[KIT_PATH_MAX * 2];
    int told = 0;

    memset(big, 'x', sizeof(big));
    close_cache();
    kit_dir_remove(dir);
    options.materializer = &kit_concat_fold;
    open_cache();
    path_of(first, "segment-0000000000000001");
    for (int i = 0; i < 60; i++)
        EXPECT(0, scree_page_put(cache, SCREE_PAGE_ROOT, kit_slice(big, sizeof(big)), NULL));
    EXPECT(0, scree_reclaim(cache, 1.05, NULL, NULL));
    cr_assert(access(first, F_OK) != 0, "the log's first segment is still there");
    close_cache();
    remove_all("snapshot-");
    EXPECT(SCREE_E_CORRUPT, scree_salvage(dir, to, &options, note_state, NULL, &told));
    cr_assert(told == 1);
}

Test(salvage, a_page_that_is_too_long_for_the_options_is_told)
{
    options.page_bytes_max = 16384;
    reopen();
    {
        static char big[16000];

        EXPECT(0, scree_page_allocate_at(cache, 50, kit_slice(big, sizeof(big)), NULL));
    }
    close_cache();
    options.page_bytes_max = 4096;
    EXPECT(SCREE_E_CORRUPT, salvage());
    cr_assert(bad == 1 && last.severity == SCREE_FINDING_LOST && last.page == 50 &&
              last.code == SCREE_E_TOO_BIG);
}

/* The n-th read fails, for every n: it is a finding or an error, never nothing. */
Test(verify, a_read_that_fails_is_never_passed_over)
{
    uint64_t n = 0;

    fill();
    close_cache();
    options.env = kit_env();
    do {
        int code;

        kit_env_plan(&(struct kit_plan){
            .kinds = KIT_READ, .fault = KIT_FAULT_CODE, .code = -EIO, .at = ++n});
        code = verify();
        cr_assert(!kit_env_hit() || code == SCREE_E_CORRUPT || code == -EIO, "read %llu: %d",
                  (unsigned long long)n, code);
        cr_assert(kit_env_hit() || code == 0);
    } while (kit_env_hit());
    cr_assert(n > 4);
    options.env = NULL;
}

/* ---- blocks that cannot be read ---- */

static struct {
    const char *name; /* of the file; bytes [from, end) of it */
    uint64_t from, end;
    bool is[1024]; /* file numbers under which it is open */
} rotten;

static int
rotten_open(void *ctx, const char *path, int flags)
{
    const scree_env *posix = scree_env_posix();
    int file = posix->open(posix->ctx, path, flags);

    (void)ctx;
    if (file >= 0 && file < 1024)
        rotten.is[file] = strcmp(strrchr(path, '/') + 1, rotten.name) == 0;
    return file;
}

static int64_t
rotten_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    const scree_env *posix = scree_env_posix();

    (void)ctx;
    if (file < 1024 && rotten.is[file] && offset < rotten.end && offset + len > rotten.from)
        return -EIO;
    return posix->read(posix->ctx, file, data, len, offset);
}

static int
rotten_read_many(void *ctx, scree_env_read *reads, size_t n)
{
    for (size_t i = 0; i < n; i++)
        reads[i].result =
            rotten_read(ctx, reads[i].file, reads[i].data, reads[i].len, reads[i].offset);
    return 0;
}

/* From now on one block of that file cannot be read. Its number of blocks. */
static uint64_t
rot(const char *name, uint64_t block)
{
    static scree_env env;
    char path[KIT_PATH_MAX * 2];
    struct stat st;

    env = *scree_env_posix();
    env.open = rotten_open;
    env.read = rotten_read;
    env.read_many = rotten_read_many;
    options.env = &env;
    rotten.name = name;
    rotten.from = 4096 * block;
    rotten.end = rotten.from + 4096;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    cr_assert(stat(path, &st) == 0);
    return (uint64_t)st.st_size / 4096;
}

/* Pages of fill that are there as it wrote them. */
static unsigned
pages_right(void)
{
    char bytes[4096];
    unsigned right = 0;

    for (scree_page_id id = 2; id < 40; id++) {
        size_t len = 0, expected = (id % 3 == 0 ? 0 : 60 * id) + (id % 4 == 0 ? 8 : 0);
        int code = scree_page_read(cache, id, bytes, sizeof(bytes), &len, NULL);

        cr_assert(code == 0 || code == SCREE_E_NOT_FOUND);
        right += code == 0 && len == (id == 7 ? 0 : expected);
    }
    return right;
}

Test(salvage, a_block_that_cannot_be_read_costs_what_lies_in_it, .timeout = 600)
{
    const char *name = "segment-0000000000000001";
    uint64_t blocks = 2;

    fill();
    close_cache();
    for (uint64_t block = 1; block < blocks; block++) {
        blocks = rot(name, block);
        EXPECT(SCREE_E_CORRUPT, verify());
        cr_assert(bad > 0 && strcmp(last_file, "") != 0);
        EXPECT(SCREE_E_CORRUPT, salvage());
        cr_assert(bad > 0, "block %llu", (unsigned long long)block);
        options.env = NULL;
        EXPECT(0, scree_open(to, &options, &cache));
        cr_assert(pages_right() + (unsigned)bad >= 38 && pages_right() >= 24,
                  "block %llu: %u pages, %d findings", (unsigned long long)block, pages_right(),
                  bad);
        close_cache();
        kit_dir_remove(to);
    }
    cr_assert(blocks > 10);
}

/* A log that ended by a crash. Where it ended. */
static scree_version
crash_make(void)
{
    char crashed[KIT_PATH_MAX];
    scree_version version = 0;

    fill();
    EXPECT(0, scree_page_append(cache, 2, text("last"), &version));
    EXPECT(0, scree_wait_stable(cache, version, -1));
    kit_dir_name(crashed, "crashed");
    kit_dir_copy(dir, crashed);
    close_cache();
    kit_dir_remove(dir);
    cr_assert(rename(crashed, dir) == 0);
    return version;
}

/* And goes on in another segment. */
static scree_version
jump_make(void)
{
    scree_version version = crash_make();

    open_cache();
    EXPECT(0, scree_page_append(cache, 3, text(" and more"), NULL));
    close_cache();
    return version;
}

/* Room made ahead lies behind it. */
Test(verify, the_end_behind_a_block_that_cannot_be_read_is_no_damage)
{
    scree_version end = crash_make();

    remove_all("snapshot-"); /* so that all of the log is walked */
    (void)rot("segment-0000000000000001", 1);
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad > 1);
    cr_assert(furthest < end, "at the end: lsn %llu", (unsigned long long)furthest);
    options.env = NULL;
}

/* Beside a block that cannot be read, records are taken one by one, over the jump too. */
Test(verify, a_jump_behind_a_block_that_cannot_be_read_is_no_damage)
{
    char name[32];
    scree_version end = jump_make();
    int without;

    remove_all("snapshot-"); /* so that all of the log is walked */
    EXPECT(SCREE_E_CORRUPT, verify());
    without = bad;
    cr_assert(furthest < end);
    snprintf(name, sizeof(name), "segment-%016llx",
             (unsigned long long)((end - 1) / options.segment_bytes));
    (void)rot(name, 1);
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad > without);
    cr_assert(furthest < end, "behind the jump: lsn %llu", (unsigned long long)furthest);
    options.env = NULL;
}

static void
byte_flip(const char *path, size_t at)
{
    const char *name = strrchr(path, '/') + 1;
    unsigned char *data;
    size_t len;

    data = kit_file_read(dir, name, &len);
    cr_assert(data != NULL && at < len);
    data[at] ^= 1;
    kit_file_write(dir, name, data, len);
    free(data);
}

/* The header of the segment behind is the jump's only link. Its records are judged by themselves. */
Test(verify, a_jump_whose_header_is_damaged_loses_nothing)
{
    char path[KIT_PATH_MAX * 2];

    (void)jump_make();
    path_of(path, "segment-");
    byte_flip(path, 50);
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(bad == 1 && strcmp(last_file, strrchr(path, '/') + 1) == 0, "%d findings, %s", bad,
              last_file);
}

/* A record, the header behind a jump, and the snapshots. */
static void
damage_make(void)
{
    char path[KIT_PATH_MAX * 2];

    (void)jump_make();
    path_of(path, "segment-");
    byte_flip(path, 50);
    snprintf(path, sizeof(path), "%s/segment-0000000000000001", dir);
    byte_flip(path, 3 * 4096);
    remove_all("snapshot-");
}

Test(verify, whoever_is_told_of_damage_may_end_it)
{
    int found;

    damage_make();
    EXPECT(SCREE_E_CORRUPT, verify());
    found = bad;
    for (findings_at_most = 0; findings_at_most < found; findings_at_most++) {
        EXPECT(SCREE_E_CANCELED, verify());
        cr_assert(bad == findings_at_most + 1);
    }
    EXPECT(SCREE_E_CORRUPT, verify());
}

/* What was given back is zeros. Other bytes in place of a granule are damage. */
Test(verify, a_granule_of_other_bytes_is_not_taken_for_a_hole)
{
    static unsigned char other[64 * 1024];
    char path[KIT_PATH_MAX * 2];
    FILE *f;

    fill();
    close_cache();
    memset(other, 0xee, sizeof(other));
    snprintf(path, sizeof(path), "%s/segment-0000000000000001", dir);
    f = fopen(path, "r+b");
    cr_assert(f != NULL && fseek(f, 4096, SEEK_SET) == 0);
    cr_assert(fwrite(other, 1, sizeof(other), f) == sizeof(other) && fclose(f) == 0);
    remove_all("snapshot-");
    EXPECT(SCREE_E_CORRUPT, verify());
    cr_assert(last.severity == SCREE_FINDING_DAMAGE && last.bytes == sizeof(other));
    cr_assert(notes == 1, "that there is no snapshot, and no hole");
}

/* An error that is none of the medium's ends it; it is told, or it is damage that is found. */
Test(verify, of_what_is_damaged_a_read_that_fails_is_not_passed_over_either)
{
    uint64_t n = 0;
    int found, code;

    damage_make();
    EXPECT(SCREE_E_CORRUPT, verify());
    found = bad;
    options.env = kit_env();
    do {
        kit_env_plan(&(struct kit_plan){
            .kinds = KIT_READ, .fault = KIT_FAULT_CODE, .code = -ENXIO, .at = ++n});
        code = verify();
        cr_assert(code == -ENXIO || code == SCREE_E_CORRUPT, "read %llu: %d", (unsigned long long)n,
                  code);
        cr_assert(code == -ENXIO || bad >= found, "read %llu: %d findings of %d",
                  (unsigned long long)n, bad, found);
    } while (kit_env_hit());
    cr_assert(n > 10);
    options.env = NULL;
}

#ifdef SCREE_ALLOC_FAULTS
void scree__alloc_fault(uint64_t nth, uint64_t count);
uint64_t scree__alloc_counted(void);

Test(verify, every_allocation_may_fail, .timeout = 600)
{
    fill();
    close_cache();
    for (uint64_t n = 1;; n++) {
        int code;

        scree__alloc_fault(n, 1);
        code = verify();
        if (scree__alloc_counted() < n)
            break;
        cr_assert(code == 0 || code == SCREE_E_NO_MEMORY, "allocation %llu: %d",
                  (unsigned long long)n, code);
    }
    scree__alloc_fault(0, 0);
}

Test(verify, of_what_is_damaged_every_allocation_may_fail, .timeout = 600)
{
    int found;

    damage_make();
    EXPECT(SCREE_E_CORRUPT, verify());
    found = bad;
    for (uint64_t n = 1;; n++) {
        int code;

        scree__alloc_fault(n, 1);
        code = verify();
        if (scree__alloc_counted() < n)
            break;
        cr_assert(code == SCREE_E_NO_MEMORY || (code == SCREE_E_CORRUPT && bad == found),
                  "allocation %llu: %d, %d findings of %d", (unsigned long long)n, code, bad,
                  found);
    }
    scree__alloc_fault(0, 0);
}

Test(salvage, every_allocation_may_fail, .timeout = 240)
{
    fill();
    close_cache();
    remove_all("manifest-");
    for (uint64_t n = 1;; n += 1 + n / 16) {
        int code;

        scree__alloc_fault(n, 1);
        code = salvage();
        if (scree__alloc_counted() < n)
            break;
        cr_assert(code == SCREE_E_CORRUPT || code == SCREE_E_NO_MEMORY, "allocation %llu: %d",
                  (unsigned long long)n, code);
        scree__alloc_fault(0, 0);
        kit_dir_remove(to);
    }
    scree__alloc_fault(0, 0);
}
#endif
