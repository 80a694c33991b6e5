/*
 * test_read_only.c - SCREE_READ_ONLY, whatever state the directory was left in: not one byte written, no
 * file made, the lock shared; all that reads works, all that changes is READ_ONLY.
 */
#include "unit/cache_fixture.h"
#include "unit/claims.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 200u

static char image[KIT_PATH_MAX], copy[KIT_PATH_MAX];
static scree_env env;
static _Atomic unsigned writes; /* calls that would change something; relaxed: a figure */

/* ---- an environment in which nothing can be written ---------------------------------------------- */

static int
refused(void)
{
    atomic_fetch_add_explicit(&writes, 1, memory_order_relaxed);
    return -EROFS;
}

static int
ro_open(void *ctx, const char *path, int flags)
{
    if ((flags & (SCREE_ENV_WRITE | SCREE_ENV_CREATE | SCREE_ENV_TRUNCATE)) != 0)
        return refused();
    return scree_env_posix()->open(ctx, path, flags);
}

static int64_t
ro_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    (void)ctx, (void)file, (void)data, (void)len, (void)offset;
    return refused();
}

static int
ro_file(void *ctx, int file)
{
    (void)ctx, (void)file;
    return refused();
}

static int
ro_range(void *ctx, int file, uint64_t offset, uint64_t len)
{
    (void)ctx, (void)file, (void)offset, (void)len;
    return refused();
}

static int
ro_truncate(void *ctx, int file, uint64_t len)
{
    (void)ctx, (void)file, (void)len;
    return refused();
}

static int
ro_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx, (void)from, (void)to;
    return refused();
}

static int
ro_path(void *ctx, const char *path)
{
    (void)ctx, (void)path;
    return refused();
}

static int
ro_lock(void *ctx, const char *path, int shared, int64_t *holder_out)
{
    if (!shared)
        refused();
    return scree_env_posix()->lock(ctx, path, shared, holder_out);
}

static const scree_env *
read_only_env(void)
{
    env = *scree_env_posix();
    env.open = ro_open;
    env.write = ro_write;
    env.sync = ro_file;
    env.allocate = env.punch = ro_range;
    env.truncate = ro_truncate;
    env.rename = ro_rename;
    env.unlink = env.mkdir = env.sync_dir = ro_path;
    env.lock = ro_lock;
    return &env;
}

/* ---- directories ---------------------------------------------------------------------------------- */

static size_t
page_bytes(unsigned i, char *to)
{
    memset(to, 'a' + (int)(i % 26), 300 + i);
    return 300 + i;
}

/* Left as it was at this moment, by a process that was killed: image. */
static void
directory_make(void)
{
    char bytes[1024];
    scree_version version;
    scree_batch *batch;
    scree_lsn lsn;

    options.flush_interval_ms = 0;
    EXPECT(0, scree_open(dir, &options, &cache));
    for (unsigned i = 0; i < PAGES; i++) {
        EXPECT(0, scree_page_allocate_at(cache, 10 + i, kit_slice(bytes, page_bytes(i, bytes)),
                                         &version));
        if (i == PAGES / 2)
            EXPECT(0, scree_snapshot(cache, NULL));
    }
    for (unsigned i = 0; i < PAGES; i += 3)
        EXPECT(0, scree_page_append(cache, 10 + i, kit_slice("+", 1), NULL));
    EXPECT(0, scree_flush(cache, NULL));
    EXPECT(0, scree_page_put(cache, SCREE_PAGE_ROOT, kit_slice("root", 4), &version));
    EXPECT(0, scree_batch_begin(cache, &batch));
    EXPECT(0, scree_batch_set(batch, SCREE_PAGE_ROOT, version, kit_slice("root, new", 9)));
    EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
    EXPECT(0, scree_flush(cache, NULL));
    kit_dir_copy(dir, image);
    EXPECT(0, scree_close(cache));
}

/* The newest snapshot or manifest once more, cut short, as the next one in the making. */
static void
tmp_make(const char *prefix)
{
    struct kit_files files;
    char newest[64] = "", name[128];
    unsigned char *bytes;
    size_t len;

    kit_dir_list(image, &files);
    for (size_t i = 0; i < files.n; i++)
        if (strncmp(files.name[i], prefix, strlen(prefix)) == 0)
            memcpy(newest, files.name[i], sizeof(newest));
    cr_assert(newest[0] != '\0', "no %s", prefix);
    bytes = kit_file_read(image, newest, &len);
    newest[strlen(newest) - 1] = 'f';
    snprintf(name, sizeof(name), "%s.tmp", newest);
    kit_file_write(image, name, bytes, len / 2);
    free(bytes);
}

/* A part of the last block of records is gone; the segment behind it may have but its header. */
static void
tail_tear(void)
{
    struct kit_files files;
    unsigned char *bytes = NULL;
    size_t len = 0, at = 0, i;

    kit_dir_list(image, &files);
    for (i = files.n; at <= 4096 && i > 0;) {
        if (strncmp(files.name[--i], "segment-", 8) != 0)
            continue;
        free(bytes);
        bytes = kit_file_read(image, files.name[i], &len);
        for (at = len; at > 0 && bytes[at - 1] == 0;)
            at--;
    }
    at = (at - 1) / 4096 * 4096;
    memset(bytes + at + 80, 0xEE, 2000); /* the put stays, of the batch a part */
    kit_file_write(image, files.name[i], bytes, len);
    free(bytes);
}

static void
setup(void)
{
    kit_dir_name(dir, "ro");
    kit_dir_name(image, "ro-image");
    kit_dir_name(copy, "ro-copy");
    kit_options_small(&options, &kit_concat);
    directory_make();
}

static void
cleanup(void)
{
    kit_dir_remove(dir);
    kit_dir_remove(image);
    kit_dir_remove(copy);
}

TestSuite(read_only, .init = setup, .fini = cleanup, .timeout = 300);

/* ---- everything that can be called ---------------------------------------------------------------- */

static int
visit_stat(void *ctx, const char *name, double value)
{
    (void)name, (void)value;
    ++*(unsigned *)ctx;
    return 0;
}

static int
visit_segment(void *ctx, const scree_segment_info *segment)
{
    (void)segment;
    ++*(unsigned *)ctx;
    return 0;
}

static void
reads_work(const char *root)
{
    scree_recovery_info info = {.size = sizeof(info)};
    scree_stats stats = {.size = sizeof(stats)};
    scree_page_id id = 0;
    scree_slice page, frag;
    scree_lsn lsn;
    unsigned n = 0;
    size_t len, frags;
    char bytes[1024], want[1024];

    for (unsigned round = 0; round < 3; round++) /* not all fit: pages leave and come back */
        for (unsigned i = 0; i < PAGES; i++) {
            EXPECT(0, scree_page_read(cache, 10 + i, bytes, sizeof(bytes), &len, NULL));
            cr_assert(len == page_bytes(i, want) + (i % 3 == 0));
            cr_assert(memcmp(bytes, want, 300 + i) == 0);
        }
    scree_read_enter(cache);
    EXPECT(0, scree_page_get(cache, SCREE_PAGE_ROOT, &page, NULL));
    cr_assert(page.len == strlen(root) && memcmp(page.data, root, page.len) == 0);
    EXPECT(0, scree_page_fragments(cache, 10, &page, &frag, 1, &frags, NULL));
    scree_read_leave(cache);
    while (scree_page_next(cache, id, &id) == 0)
        n++;
    cr_assert(n == PAGES + 1);
    EXPECT(0, scree_flush(cache, &lsn));
    EXPECT(0, scree_wait_stable(cache, lsn, -1));
    EXPECT(0, scree_recovery(cache, &info));
    EXPECT(0, scree_stats_get(cache, &stats));
    cr_assert(stats.pages == PAGES + 1 && stats.misses > 0);
    EXPECT(0, scree_stats_each(cache, visit_stat, &n));
    EXPECT(0, scree_segments_each(cache, visit_segment, &n));
    EXPECT(0, scree_health(cache));
}

static void
updates_are_refused(void)
{
    scree_slice page = kit_slice("x", 1);
    scree_version version = 8;
    scree_page_id id;
    scree_batch *batch;

    EXPECT(SCREE_E_READ_ONLY, scree_page_allocate(cache, page, &id, NULL));
    EXPECT(SCREE_E_READ_ONLY, scree_page_allocate_at(cache, 9999, page, NULL));
    EXPECT(SCREE_E_READ_ONLY, scree_page_set(cache, 10, &version, page));
    EXPECT(SCREE_E_READ_ONLY, scree_page_merge(cache, 10, &version, page));
    EXPECT(SCREE_E_READ_ONLY, scree_page_append(cache, 10, page, NULL));
    EXPECT(SCREE_E_READ_ONLY, scree_page_put(cache, 10, page, NULL));
    EXPECT(SCREE_E_READ_ONLY, scree_page_free(cache, 10, &version));
    EXPECT(SCREE_E_READ_ONLY, scree_batch_begin(cache, &batch));
    EXPECT(SCREE_E_READ_ONLY, scree_id_next(cache, &id));
    EXPECT(SCREE_E_READ_ONLY, scree_snapshot(cache, NULL));
    EXPECT(SCREE_E_READ_ONLY, scree_reclaim(cache, 0, NULL, NULL));
}

static void
looked_at(const char *path, const char *root, bool torn)
{
    scree_recovery_info info = {.size = sizeof(info)};
    scree_cache *second;
    uint64_t before = kit_dir_fingerprint(path, true);

    options.flags = SCREE_READ_ONLY;
    options.env = read_only_env();
    EXPECT(0, scree_open(path, &options, &cache));
    EXPECT(0, scree_open(path, &options, &second)); /* two may look */
    reads_work(root);
    updates_are_refused();
    EXPECT(0, scree_recovery(cache, &info));
    cr_assert(eq(int, info.torn_bytes > 0, torn));
    EXPECT(0, scree_close(second));
    EXPECT(0, scree_close(cache));
    cr_assert(eq(uint, atomic_load_explicit(&writes, memory_order_relaxed), 0));
    cr_assert(kit_dir_fingerprint(path, true) == before, "something was written");
    options.env = NULL;
    options.flags = 0;
}

/* And afterwards it can be opened for writing as if nothing had been. */
static void
goes_on(const char *path, const char *root)
{
    EXPECT(0, scree_open(path, &options, &cache));
    reads_work(root);
    EXPECT(0, scree_page_put(cache, 10, kit_slice("x", 1), NULL));
    EXPECT(0, scree_close(cache));
}

Test(read_only, a_clean_directory_is_not_written_to)
{
    looked_at(dir, "root, new", false);
    goes_on(dir, "root, new");
}

Test(read_only, a_crashed_directory_is_not_written_to)
{
    looked_at(image, "root, new", false);
    goes_on(image, "root, new");
}

Test(read_only, a_torn_tail_is_trimmed_in_memory_only)
{
    tail_tear();
    looked_at(image, "root", true);
    goes_on(image, "root");
}

Test(read_only, files_in_the_making_stay)
{
    tmp_make("snapshot-");
    tmp_make("manifest-");
    kit_file_write(image, "OPEN.tmp", "half", 4);
    kit_file_write(image, "SPARE", "half", 4);
    looked_at(image, "root, new", false);
    goes_on(image, "root, new");
}

Test(read_only, readers_keep_writers_out_and_writers_readers)
{
    scree_cache *second;

    options.flags = SCREE_READ_ONLY;
    EXPECT(0, scree_open(dir, &options, &cache));
    options.flags = 0;
    EXPECT(SCREE_E_LOCKED, scree_open(dir, &options, &second));
    EXPECT(0, scree_close(cache));
    EXPECT(0, scree_open(dir, &options, &cache));
    options.flags = SCREE_READ_ONLY;
    EXPECT(SCREE_E_LOCKED, scree_open(dir, &options, &second));
    EXPECT(0, scree_close(cache));
}

Test(read_only, nothing_is_made_where_nothing_is)
{
    struct stat about;

    kit_dir_name(copy, "ro-nothing");
    options.flags = SCREE_READ_ONLY;
    EXPECT(-ENOENT, scree_open(copy, &options, &cache));
    cr_assert(stat(copy, &about) != 0);
    cr_assert(mkdir(copy, 0755) == 0);
    EXPECT(-ENOENT, scree_open(copy, &options, &cache));
    cr_assert(rmdir(copy) == 0, "something was made");
    options.flags = SCREE_READ_ONLY | SCREE_CREATE;
    EXPECT(SCREE_E_INVALID, scree_open(copy, &options, &cache));
}

static void
permissions_take(const char *path)
{
    char name[KIT_PATH_MAX + 64];
    struct kit_files files;

    kit_dir_list(path, &files);
    for (size_t i = 0; i < files.n; i++) {
        snprintf(name, sizeof(name), "%s/%s", path, files.name[i]);
        cr_assert(chmod(name, 0444) == 0);
    }
    cr_assert(chmod(path, 0555) == 0);
}

/* As on a read-only file system. Root may do everything: so not as root. */
Test(read_only, a_directory_without_write_permission_will_do)
{
    int status;
    pid_t pid;

    permissions_take(image);
    pid = fork();
    if (pid == 0) {
        if (geteuid() == 0 && (setegid(65534) != 0 || seteuid(65534) != 0))
            _exit(2);
        options.flags = SCREE_READ_ONLY;
        if (access(image, R_OK | X_OK) != 0)
            _exit(0); /* the test directory itself is not to be seen by others */
        EXPECT(0, scree_open(image, &options, &cache));
        reads_work("root, new");
        EXPECT(0, scree_close(cache));
        options.flags = 0;
        _exit(scree_open(image, &options, &cache) != 0 ? 0 : 3);
    }
    cr_assert(waitpid(pid, &status, 0) == pid);
    cr_assert(status == 0, "status %x", status);
    cr_assert(chmod(image, 0755) == 0);
}

Test(read_only, backup_of_a_crashed_directory_is_a_clean_one)
{
    scree_recovery_info info = {.size = sizeof(info)};
    uint64_t before;

    tail_tear();
    before = kit_dir_fingerprint(image, true);
    options.flags = SCREE_READ_ONLY;
    EXPECT(0, scree_open(image, &options, &cache));
    EXPECT(0, scree_backup(cache, copy, 0, NULL, NULL));
    EXPECT(0, scree_close(cache));
    cr_assert(kit_dir_fingerprint(image, true) == before, "something was written");
    options.flags = 0;
    EXPECT(0, scree_open(copy, &options, &cache));
    EXPECT(0, scree_recovery(cache, &info));
    cr_assert(info.clean == 1 && info.torn_bytes == 0);
    reads_work("root");
    EXPECT(0, scree_close(cache));
    looked_at(copy, "root", false);
}
