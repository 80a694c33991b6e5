/*
 * test_env.c - the POSIX environment on a real directory, and the helpers over environments that
 * return short counts, stall, lie and fail.
 */
#include "env/env.h"
#include "unit/claims.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define READ_WRITE_CREATE (SCREE_ENV_READ | SCREE_ENV_WRITE | SCREE_ENV_CREATE)

/* ---- a directory a test ---- */

static const scree_env *posix;
static char dir[64];
static char path[96];

static void
setup(void)
{
    posix = scree_env_posix();
    (void)snprintf(dir, sizeof dir, "/tmp/scree-test-env-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    (void)snprintf(path, sizeof path, "%s/file", dir);
}

static int
unlink_visit(void *ctx, const char *name)
{
    char victim[512];

    (void)ctx;
    (void)snprintf(victim, sizeof victim, "%s/%s", dir, name);
    return unlink(victim) == 0 || rmdir(victim) == 0 ? 0 : -errno;
}

static void
teardown(void)
{
    cr_assert(zero(int, posix->list(NULL, dir, unlink_visit, NULL)));
    cr_assert(zero(int, rmdir(dir)));
}

TestSuite(env_posix_files, .init = setup, .fini = teardown, .timeout = 120);
TestSuite(env_posix_names, .init = setup, .fini = teardown, .timeout = 120);
TestSuite(env_posix_lock, .init = setup, .fini = teardown, .timeout = 120);
TestSuite(env_posix_many, .init = setup, .fini = teardown, .timeout = 120);
TestSuite(env_transfer, .init = setup, .fini = teardown, .timeout = 120);
TestSuite(env_small_file, .init = setup, .fini = teardown, .timeout = 120);

static int
file_open(int flags)
{
    int file = posix->open(NULL, path, flags);

    cr_assert(ge(int, file, 0), "%s", scree_strerror(file));
    return file;
}

static void
file_fill(const char *text)
{
    int file = file_open(READ_WRITE_CREATE | SCREE_ENV_TRUNCATE);

    cr_assert(zero(int, scree__env_write_all(posix, file, text, strlen(text), 0)));
    cr_assert(zero(int, posix->close(NULL, file)));
}

/* ---- an env with moods ---- */

struct mood {
    size_t count_max; /* moves at most this many bytes a call */
    int lie;          /* adds this to every count */
    int fail_call;    /* this call (1 = first) of any member below returns error; 0 = none */
    int error;
    int calls;
    int syncs, dir_syncs;
    bool unaligned; /* seen: a transfer that a direct file would refuse */
};

static int
mood_call(struct mood *m)
{
    return ++m->calls == m->fail_call ? m->error : 0;
}

static int64_t
mood_count(struct mood *m, int64_t n)
{
    return n < 0 ? n : n + m->lie;
}

static size_t
mood_len(struct mood *m, const void *data, size_t len, uint64_t offset)
{
    if (((uintptr_t)data | len | offset) % SCREE_BLOCK != 0)
        m->unaligned = true;
    return len < m->count_max ? len : m->count_max;
}

static int64_t
mood_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    struct mood *m = ctx;
    int rc = mood_call(m);

    len = mood_len(m, data, len, offset);
    return rc != 0 ? rc : mood_count(m, posix->read(NULL, file, data, len, offset));
}

static int64_t
mood_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    struct mood *m = ctx;
    int rc = mood_call(m);

    len = mood_len(m, data, len, offset);
    return rc != 0 ? rc : mood_count(m, posix->write(NULL, file, data, len, offset));
}

static int
mood_open(void *ctx, const char *file_path, int flags)
{
    int rc = mood_call(ctx);

    return rc != 0 ? rc : posix->open(NULL, file_path, flags);
}

static int
mood_close(void *ctx, int file)
{
    int rc = mood_call(ctx);
    int closed = posix->close(NULL, file);

    return rc != 0 ? rc : closed;
}

static int
mood_sync(void *ctx, int file)
{
    struct mood *m = ctx;

    m->syncs++;
    int rc = mood_call(m);

    return rc != 0 ? rc : posix->sync(NULL, file);
}

static int
mood_sync_dir(void *ctx, const char *dir_path)
{
    struct mood *m = ctx;

    m->dir_syncs++;
    int rc = mood_call(m);

    return rc != 0 ? rc : posix->sync_dir(NULL, dir_path);
}

static int
mood_rename(void *ctx, const char *from, const char *to)
{
    struct mood *m = ctx;
    int rc = mood_call(m);

    cr_assert(eq(int, m->syncs, 1)); /* a name must not point at unsynced bytes */
    return rc != 0 ? rc : posix->rename(NULL, from, to);
}

static int
mood_info(void *ctx, int file, scree_env_info *info_out)
{
    int rc = mood_call(ctx);

    return rc != 0 ? rc : posix->info(NULL, file, info_out);
}

static scree_env
mood_env(struct mood *m)
{
    scree_env env = *posix;

    env.ctx = m;
    env.open = mood_open;
    env.close = mood_close;
    env.read = mood_read;
    env.write = mood_write;
    env.sync = mood_sync;
    env.sync_dir = mood_sync_dir;
    env.rename = mood_rename;
    env.info = mood_info;
    return env;
}

static unsigned char *
blocks_make(size_t len)
{
    unsigned char *data = scree__alloc_aligned(SCREE_BLOCK, len);

    cr_assert(ne(ptr, data, NULL));
    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)(i * 7 + i / 251);
    return data;
}

/* ---- files ---- */

Test(env_posix_files, flags_mean_what_they_say)
{
    cr_assert(eq(int, posix->open(NULL, path, SCREE_ENV_READ), -ENOENT));
    int file = file_open(READ_WRITE_CREATE | SCREE_ENV_EXCLUSIVE);

    cr_assert(eq(i64, posix->write(NULL, file, "abc", 3, 0), 3));
    cr_assert(eq(int, fcntl(file, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC));
    cr_assert(zero(int, posix->close(NULL, file)));
    cr_assert(eq(int, posix->open(NULL, path, READ_WRITE_CREATE | SCREE_ENV_EXCLUSIVE), -EEXIST));
    file = file_open(SCREE_ENV_READ);
    cr_assert(eq(i64, posix->write(NULL, file, "x", 1, 0), -EBADF));
    cr_assert(zero(int, posix->close(NULL, file)));
    file = file_open(SCREE_ENV_WRITE | SCREE_ENV_TRUNCATE);
    char byte;

    cr_assert(eq(i64, posix->read(NULL, file, &byte, 1, 0), -EBADF));
    scree_env_info info;

    cr_assert(zero(int, posix->info(NULL, file, &info)));
    cr_assert(eq(u64, info.size_bytes, 0));
    cr_assert(zero(int, posix->close(NULL, file)));
    cr_assert(eq(int, posix->close(NULL, file), -EBADF));
}

Test(env_posix_files, offsets_no_file_has_are_refused)
{
    int file = file_open(READ_WRITE_CREATE);

    cr_assert(lt(i64, posix->write(NULL, file, "x", 1, UINT64_MAX), 0));
    cr_assert(lt(i64, posix->read(NULL, file, path, 1, UINT64_MAX), 0));
    cr_assert(eq(int, posix->truncate(NULL, file, UINT64_MAX), -EFBIG));
    cr_assert(eq(int, posix->allocate(NULL, file, UINT64_MAX - 1, 4), -EFBIG));
    cr_assert(eq(int, posix->punch(NULL, file, INT64_MAX, 1), -EFBIG));
    cr_assert(zero(int, posix->close(NULL, file)));
}

Test(env_posix_files, allocate_gives_room_and_punch_takes_it_back)
{
    int file = file_open(READ_WRITE_CREATE);
    const uint64_t mib = 1 << 20;
    scree_env_info info;
    char text[4] = "";

    cr_assert(zero(int, posix->allocate(NULL, file, 0, mib)));
    cr_assert(zero(int, posix->info(NULL, file, &info)));
    cr_assert(eq(u64, info.size_bytes, mib));
    cr_assert(ge(u64, info.disk_bytes, mib));
    cr_assert(eq(i64, posix->write(NULL, file, "end", 3, mib - 3), 3));
    cr_assert(eq(i64, posix->write(NULL, file, "beg", 3, 0), 3));
    cr_assert(zero(int, posix->sync(NULL, file)));
    cr_assert(zero(int, posix->punch(NULL, file, 0, mib / 2)));
    cr_assert(zero(int, posix->info(NULL, file, &info)));
    cr_assert(eq(u64, info.size_bytes, mib));
    cr_assert(lt(u64, info.disk_bytes, mib));
    cr_assert(eq(i64, posix->read(NULL, file, text, 3, 0), 3));
    cr_assert(zero(int, memcmp(text, "\0\0\0", 3)));
    cr_assert(eq(i64, posix->read(NULL, file, text, 3, mib - 3), 3));
    cr_assert(zero(int, memcmp(text, "end", 3)));
    cr_assert(zero(int, posix->truncate(NULL, file, 10)));
    cr_assert(zero(int, posix->info(NULL, file, &info)));
    cr_assert(eq(u64, info.size_bytes, 10));
    cr_assert(zero(int, posix->close(NULL, file)));
}

Test(env_posix_files, direct_io_is_had_or_given_up_as_asked)
{
    bool direct_io;
    int file = scree__env_open_io(posix, path, READ_WRITE_CREATE | SCREE_ENV_EXCLUSIVE,
                                  SCREE_IO_AUTO, &direct_io);

    cr_assert(ge(int, file, 0));
    cr_assert(eq(int, (fcntl(file, F_GETFL) & O_DIRECT) != 0, direct_io));
    cr_assert(zero(int, posix->close(NULL, file)));
    file = scree__env_open_io(posix, path, SCREE_ENV_READ, SCREE_IO_BUFFERED, &direct_io);
    cr_assert(ge(int, file, 0));
    cr_assert(not(direct_io));
    cr_assert(zero(int, fcntl(file, F_GETFL) & O_DIRECT));
    cr_assert(zero(int, posix->close(NULL, file)));
}

static int
refuse_direct(void *ctx, const char *file_path, int flags)
{
    (void)ctx;
    return flags & SCREE_ENV_DIRECT ? -EINVAL : posix->open(NULL, file_path, flags);
}

Test(env_posix_files, without_direct_io_auto_goes_on_and_direct_fails)
{
    scree_env env = *posix;
    bool direct_io = true;

    env.open = refuse_direct;
    int file = scree__env_open_io(&env, path, READ_WRITE_CREATE, SCREE_IO_AUTO, &direct_io);

    cr_assert(ge(int, file, 0));
    cr_assert(not(direct_io));
    cr_assert(zero(int, posix->close(NULL, file)));
    file = scree__env_open_io(&env, path, READ_WRITE_CREATE, SCREE_IO_DIRECT, &direct_io);
    cr_assert(eq(int, file, -EINVAL));
    cr_assert(ne(ptr, strstr(scree_error_detail(), path), NULL));
}

Test(env_posix_files, a_missing_file_is_not_asked_for_twice)
{
    struct mood m = {.count_max = SIZE_MAX};
    scree_env env = mood_env(&m);
    bool direct_io;

    cr_assert(eq(int, scree__env_open_io(&env, path, SCREE_ENV_READ, SCREE_IO_AUTO, &direct_io),
                 -ENOENT));
    cr_assert(eq(int, m.calls, 1));
}

/* ---- names ---- */

struct names {
    int seen;
    bool a, b;
};

static int
names_visit(void *ctx, const char *name)
{
    struct names *names = ctx;

    names->seen++;
    names->a = names->a || strcmp(name, "a") == 0;
    names->b = names->b || strcmp(name, "b") == 0;
    return 0;
}

static int
stop_visit(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 77;
}

Test(env_posix_names, list_names_everything_once_and_stops_when_told)
{
    char a[96], b[96];
    struct names names = {0};
    int calls = 0;

    (void)snprintf(a, sizeof a, "%s/a", dir);
    (void)snprintf(b, sizeof b, "%s/b", dir);
    cr_assert(zero(int, posix->mkdir(NULL, a)));
    cr_assert(eq(int, posix->mkdir(NULL, a), -EEXIST));
    file_fill("x");
    cr_assert(zero(int, posix->rename(NULL, path, b)));
    cr_assert(zero(int, posix->list(NULL, dir, names_visit, &names)));
    cr_assert(eq(int, names.seen, 2));
    cr_assert(names.a && names.b);
    cr_assert(eq(int, posix->list(NULL, dir, stop_visit, &calls), 77));
    cr_assert(eq(int, calls, 1));
    cr_assert(eq(int, posix->list(NULL, path, names_visit, &names), -ENOENT));
    cr_assert(eq(int, posix->list(NULL, b, names_visit, &names), -ENOTDIR));
    cr_assert(zero(int, posix->sync_dir(NULL, dir)));
    cr_assert(eq(int, posix->sync_dir(NULL, b), -ENOTDIR));
    cr_assert(zero(int, posix->unlink(NULL, b)));
    cr_assert(eq(int, posix->unlink(NULL, b), -ENOENT));
    cr_assert(eq(int, posix->rename(NULL, b, a), -ENOENT));
}

/* ---- the lock ---- */

Test(env_posix_lock, exclusive_excludes_also_within_the_process_and_names_the_holder)
{
    int64_t holder = -1;
    int lock = posix->lock(NULL, dir, 0, &holder);

    cr_assert(ge(int, lock, 0));
    cr_assert(eq(i64, holder, 0));
    cr_assert(eq(int, posix->lock(NULL, dir, 0, &holder), -EWOULDBLOCK));
    cr_assert(eq(i64, holder, getpid()));
    cr_assert(eq(int, posix->lock(NULL, dir, 1, NULL), -EWOULDBLOCK));
    cr_assert(zero(int, posix->close(NULL, lock)));
    lock = posix->lock(NULL, dir, 0, &holder);
    cr_assert(ge(int, lock, 0));
    cr_assert(zero(int, posix->close(NULL, lock)));
}

Test(env_posix_lock, shared_goes_with_shared_only)
{
    int64_t holder = -1;
    int one = posix->lock(NULL, dir, 1, &holder);
    int two = posix->lock(NULL, dir, 1, &holder);

    cr_assert(ge(int, one, 0));
    cr_assert(ge(int, two, 0));
    cr_assert(zero(int, posix->close(NULL, one)));
    cr_assert(eq(int, posix->lock(NULL, dir, 0, &holder), -EWOULDBLOCK));
    cr_assert(zero(int, posix->close(NULL, two)));
    cr_assert(eq(int, posix->lock(NULL, path, 0, &holder), -ENOENT));
    cr_assert(eq(i64, holder, 0));
}

Test(env_posix_lock, dies_with_its_process)
{
    int64_t holder;
    pid_t child = fork();

    if (child == 0)
        _exit(posix->lock(NULL, dir, 0, NULL) >= 0 ? 0 : 1); /* without closing it */
    int status = -1;

    cr_assert(eq(int, waitpid(child, &status, 0), child));
    cr_assert(zero(int, status));
    int lock = posix->lock(NULL, dir, 0, &holder);

    cr_assert(ge(int, lock, 0));
    cr_assert(zero(int, posix->close(NULL, lock)));
}

/* ---- many reads ---- */

static void
many_check(const unsigned char *data, size_t len, size_t n)
{
    int file = file_open(SCREE_ENV_READ);
    scree_env_read *reads = calloc(n + 1, sizeof *reads);
    unsigned char(*got)[24] = calloc(n + 1, sizeof *got);

    for (size_t i = 0; i < n; i++)
        reads[i] = (scree_env_read){
            .file = file, .result = -1, .data = got[i], .len = 24, .offset = i * 997 % len};
    cr_assert(zero(int, posix->read_many(NULL, reads, n)));
    for (size_t i = 0; i < n; i++) {
        size_t left = len - (size_t)reads[i].offset;
        size_t want = left < 24 ? left : 24;

        cr_assert(eq(int, reads[i].result, (int)want), "read %zu of %zu", i, n);
        cr_assert(zero(int, memcmp(got[i], data + reads[i].offset, want)), "read %zu", i);
    }
    free(reads);
    free(got);
    cr_assert(zero(int, posix->close(NULL, file)));
}

Test(env_posix_many, any_number_each_with_its_own_bytes_and_result)
{
    const size_t len = 40 * SCREE_BLOCK + 5;
    const size_t counts[] = {0, 1, 2, 63, 64, 65, 128, 1000};
    unsigned char *data = blocks_make(len);
    int file = file_open(READ_WRITE_CREATE);

    cr_assert(zero(int, scree__env_write_all(posix, file, data, len, 0)));
    cr_assert(zero(int, posix->close(NULL, file)));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        many_check(data, len, counts[i]);
    scree__free(data, len);
}

Test(env_posix_many, a_bad_read_among_good_ones_fails_alone)
{
    char got[3][4] = {"", "", ""};

    file_fill("abc");
    int file = file_open(SCREE_ENV_READ);
    scree_env_read reads[] = {{.file = file, .data = got[0], .len = 3},
                              {.file = 9999, .data = got[1], .len = 3},
                              {.file = file, .data = got[2], .len = 3, .offset = 3}};

    cr_assert(zero(int, posix->read_many(NULL, reads, 3)));
    cr_assert(eq(int, reads[0].result, 3));
    cr_assert(eq(str, got[0], "abc"));
    cr_assert(eq(int, reads[1].result, -EBADF));
    cr_assert(eq(int, reads[2].result, 0)); /* the end */
    cr_assert(zero(int, posix->close(NULL, file)));
}

Test(env_posix_many, a_forked_child_makes_its_own_way)
{
    unsigned char *data = blocks_make(SCREE_BLOCK);
    int file = file_open(READ_WRITE_CREATE);

    cr_assert(zero(int, scree__env_write_all(posix, file, data, SCREE_BLOCK, 0)));
    cr_assert(zero(int, posix->close(NULL, file)));
    many_check(data, SCREE_BLOCK, 64);
    pid_t child = fork();

    if (child == 0) {
        many_check(data, SCREE_BLOCK, 64);
        _exit(0);
    }
    many_check(data, SCREE_BLOCK, 64);
    int status = -1;

    cr_assert(eq(int, waitpid(child, &status, 0), child));
    cr_assert(zero(int, status));
    many_check(data, SCREE_BLOCK, 64);
    scree__free(data, SCREE_BLOCK);
}

/* ---- whole transfers over moody envs ---- */

static void
transfer_round_trip(size_t len, size_t count_max)
{
    struct mood m = {.count_max = count_max};
    scree_env env = mood_env(&m);
    unsigned char *data = blocks_make(len);
    unsigned char *got = scree__alloc_aligned(SCREE_BLOCK, len + SCREE_BLOCK);
    int file = file_open(READ_WRITE_CREATE | SCREE_ENV_TRUNCATE);
    size_t got_len = 0;

    cr_assert(zero(int, scree__env_write_all(&env, file, data, len, 0)));
    cr_assert(zero(int, scree__env_read_all(&env, file, got, len, 0, &got_len)));
    cr_assert(eq(sz, got_len, len));
    cr_assert(zero(int, memcmp(got, data, len)), "len %zu, at most %zu a call", len, count_max);
    /* A request that passes the end gets what is there. */
    cr_assert(zero(int, scree__env_read_all(&env, file, got, len + 100, 0, &got_len)));
    cr_assert(eq(sz, got_len, len));
    cr_assert(zero(int, scree__env_read_all(&env, file, got, 100, len + 1, &got_len)));
    cr_assert(eq(sz, got_len, 0));
    cr_assert(zero(int, posix->close(NULL, file)));
    scree__free(data, len);
    scree__free(got, len + SCREE_BLOCK);
}

Test(env_transfer, short_counts_are_continued)
{
    const size_t lens[] = {0, 1, 100, SCREE_BLOCK, 3 * SCREE_BLOCK, 3 * SCREE_BLOCK + 1};
    const size_t counts[] = {SCREE_BLOCK, SCREE_BLOCK + 1, 2 * SCREE_BLOCK - 1, SIZE_MAX};

    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++)
        for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++)
            transfer_round_trip(lens[i], counts[k]);
    transfer_round_trip(1001, 7);
}

Test(env_transfer, aligned_transfers_stay_aligned_behind_short_counts)
{
    struct mood m = {.count_max = SCREE_BLOCK + 512};
    scree_env env = mood_env(&m);
    unsigned char *data = blocks_make(8 * SCREE_BLOCK);
    int file = file_open(READ_WRITE_CREATE);
    size_t got_len;

    cr_assert(zero(int, scree__env_write_all(&env, file, data, 8 * SCREE_BLOCK, 0)));
    cr_assert(zero(int, scree__env_read_all(&env, file, data, 8 * SCREE_BLOCK, 0, &got_len)));
    cr_assert(eq(sz, got_len, 8 * SCREE_BLOCK));
    cr_assert(not(m.unaligned));
    cr_assert(zero(int, posix->close(NULL, file)));
    scree__free(data, 8 * SCREE_BLOCK);
}

Test(env_transfer, no_progress_and_impossible_counts_end_in_eio)
{
    const struct mood moods[] = {{.count_max = 0},
                                 {.count_max = 100}, /* of an aligned transfer: never a block */
                                 {.count_max = SIZE_MAX, .lie = 1}};
    unsigned char *data = blocks_make(SCREE_BLOCK);
    int file = file_open(READ_WRITE_CREATE);
    size_t got_len;

    cr_assert(zero(int, scree__env_write_all(posix, file, data, SCREE_BLOCK, 0)));
    for (size_t i = 0; i < sizeof moods / sizeof moods[0]; i++) {
        struct mood m = moods[i];
        scree_env env = mood_env(&m);

        cr_assert(eq(int, scree__env_write_all(&env, file, data, SCREE_BLOCK, 0), -EIO));
        cr_assert(eq(int, scree__env_read_all(&env, file, data, SCREE_BLOCK, 0, &got_len), -EIO));
        cr_assert(eq(sz, got_len, 0));
        cr_assert(lt(int, m.calls, 100));
    }
    cr_assert(zero(int, posix->close(NULL, file)));
    scree__free(data, SCREE_BLOCK);
}

Test(env_transfer, an_error_is_passed_on_and_not_tried_again)
{
    struct mood m = {.count_max = 10, .fail_call = 2, .error = -ENOSPC};
    scree_env env = mood_env(&m);
    int file = file_open(READ_WRITE_CREATE);

    cr_assert(eq(int, scree__env_write_all(&env, file, "0123456789abcdef", 16, 0), -ENOSPC));
    cr_assert(eq(int, m.calls, 2));
    cr_assert(ne(ptr, strstr(scree_error_detail(), "offset 10"), NULL));
    cr_assert(zero(int, posix->close(NULL, file)));
}

/* ---- small files ---- */

Test(env_small_file, reads_back_what_was_replaced_up_to_the_limit)
{
    void *data;
    size_t len;

    cr_assert(zero(int, scree__env_replace_file(posix, dir, "file", "old", 3)));
    cr_assert(zero(int, scree__env_replace_file(posix, dir, "file", "newer", 5)));
    cr_assert(zero(int, scree__env_read_file(posix, path, 5, &data, &len)));
    cr_assert(eq(sz, len, 5));
    cr_assert(zero(int, memcmp(data, "newer", 5)));
    scree__free(data, len);
    cr_assert(eq(int, scree__env_read_file(posix, path, 4, &data, &len), SCREE_E_TOO_BIG));
    cr_assert(eq(ptr, data, NULL));
    cr_assert(eq(sz, len, 0));
}

Test(env_small_file, empty_and_missing_differ)
{
    void *data;
    size_t len = 1;

    cr_assert(eq(int, scree__env_read_file(posix, path, 5, &data, &len), -ENOENT));
    file_fill("");
    cr_assert(zero(int, scree__env_read_file(posix, path, 0, &data, &len)));
    cr_assert(ne(ptr, data, NULL));
    cr_assert(eq(sz, len, 0));
    scree__free(data, 0);
}

Test(env_small_file, a_leftover_tmp_is_overwritten)
{
    char path_tmp[110];
    void *data;
    size_t len;

    file_fill("a long leftover of a crash");
    (void)snprintf(path_tmp, sizeof path_tmp, "%s.tmp", path);
    cr_assert(zero(int, posix->rename(NULL, path, path_tmp)));
    cr_assert(zero(int, scree__env_replace_file(posix, dir, "file", "x", 1)));
    cr_assert(zero(int, scree__env_read_file(posix, path, 100, &data, &len)));
    cr_assert(eq(sz, len, 1));
    scree__free(data, len);
    cr_assert(ne(int, access(path_tmp, F_OK), 0));
}

Test(env_small_file, a_replacement_that_fails_at_any_call_leaves_old_or_new_and_no_tmp)
{
    int call = 0;
    int rc;

    do {
        struct mood m = {.count_max = SIZE_MAX, .fail_call = ++call, .error = -EIO};
        scree_env env = mood_env(&m);
        struct names names = {0};
        void *data;
        size_t len;

        file_fill("old");
        rc = scree__env_replace_file(&env, dir, "file", "new", 3);
        cr_assert(zero(int, scree__env_read_file(posix, path, 3, &data, &len)));
        cr_assert(eq(sz, len, 3));
        /* The last call is the directory's sync: the new name is there, though maybe not for good.
           */
        cr_assert(zero(int, memcmp(data, m.dir_syncs > 0 ? "new" : "old", 3)), "call %d", call);
        scree__free(data, len);
        cr_assert(zero(int, posix->list(NULL, dir, names_visit, &names)));
        cr_assert(eq(int, names.seen, 1));
        cr_assert(eq(int, rc, m.calls >= call ? -EIO : 0), "call %d", call);
    } while (rc != 0);
    cr_assert(eq(int, call, 7)); /* open, write, sync, close, rename, sync_dir can fail */
}

/* ---- the rest ---- */

Test(env_posix_rest, time_does_not_go_back_and_randomness_differs)
{
    uint64_t before = scree_env_posix()->now_ns(NULL);
    unsigned char a[300], b[300];

    cr_assert(ge(u64, scree_env_posix()->now_ns(NULL), before));
    cr_assert(zero(int, scree_env_posix()->random(NULL, a, sizeof a)));
    cr_assert(zero(int, scree_env_posix()->random(NULL, b, sizeof b)));
    cr_assert(ne(int, memcmp(a, b, sizeof a), 0));
}

Test(env_posix_rest, every_member_is_set)
{
    const scree_env *env = scree_env_posix();
    void (*members[(sizeof *env - offsetof(scree_env, open)) / sizeof(void (*)(void))])(void);

    cr_assert(eq(sz, env->size, sizeof *env));
    memcpy(members, (const char *)env + offsetof(scree_env, open), sizeof members);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        cr_assert(members[i] != NULL, "member %zu", i);
}

/* ---- names.c ---- */

Test(env_small_file, a_sync_of_names_counts_only_if_none_failed_since_they_were_made)
{
    struct mood m = {.fail_call = 1, .error = -EIO};
    scree_env env = mood_env(&m);
    uint64_t one = scree__names_begin(dir), another = scree__names_begin(dir);

    cr_assert(eq(int, scree__names_sync(&env, dir, another), -EIO));
    cr_assert(eq(int, scree__names_sync(&env, dir, one), -EIO)); /* though the system says 0 */
    cr_assert(eq(int, m.dir_syncs, 2));
    another = scree__names_begin(dir);
    cr_assert(zero(int, scree__names_sync(&env, dir, another)));
    cr_assert(eq(int, scree__names_sync(&env, dir, one), -EIO)); /* never again */
}
