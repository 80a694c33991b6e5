/*
 * test_refused.c - what the kernel may refuse, interrupt or not know: descriptors, memory, threads, O_DIRECT,
 * fallocate, holes, io_uring. The calls of the library are linked to those below (--wrap), which make the n-th
 * fail.
 */
#include "cache_fixture.h"
#include "env/env.h"
#include "unit/claims.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef SCREE_HAVE_LIBURING
#include <liburing.h>
#endif

#define KIB 1024u

/* ---- the calls ------------------------------------------------------------------------------------ */

enum call {
    CALL_NONE,
    CALL_OPEN,
    CALL_CLOSE,
    CALL_FCNTL,
    CALL_PREAD,
    CALL_PWRITE,
    CALL_FDATASYNC,
    CALL_FALLOCATE,
    CALL_FTRUNCATE,
    CALL_FSYNC,
    CALL_FLOCK,
    CALL_GETRANDOM,
    CALL_FSTAT,
    CALL_LSEEK,
    CALL_FOPEN,
    CALL_MMAP,
    CALL_MADVISE,
    CALL_MEMFD,
    CALL_THREAD,
    CALL_URING_INIT,
    CALL_URING_PROBE,
    CALL_URING_SUBMIT,
    CALL_URING_WAIT
};

static enum call planned;
static int planned_error;
static const char *planned_name = ""; /* of files: only whose path has it */
static uint64_t planned_at, planned_count;
static _Atomic uint64_t calls;

/* From now on: calls at, at + 1, .. of this kind, so many of them, fail with the error. */
static void
refuse(enum call call, int error, uint64_t at, uint64_t count)
{
    planned = call;
    planned_error = error;
    planned_at = at;
    planned_count = count;
    atomic_store_explicit(&calls, 0, memory_order_relaxed);
}

static uint64_t
asked(void)
{
    return atomic_load_explicit(&calls, memory_order_relaxed);
}

/* The error of this call, 0: none. */
static int
refused(enum call call)
{
    uint64_t n;

    if (call != planned)
        return 0;
    n = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1;
    return n >= planned_at && n - planned_at < planned_count ? planned_error : 0;
}

#define WRAP(call, type, fails, name, parameters, arguments) \
    type __real_##name parameters;                           \
    type __wrap_##name parameters;                           \
    type __wrap_##name parameters                            \
    {                                                        \
        int error = refused(call);                           \
                                                             \
        if (error != 0) {                                    \
            errno = error;                                   \
            return fails;                                    \
        }                                                    \
        return __real_##name arguments;                      \
    }

WRAP(CALL_PREAD, ssize_t, -1, pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
WRAP(CALL_PWRITE, ssize_t, -1, pwrite, (int fd, const void *from, size_t n, off_t at),
     (fd, from, n, at))
WRAP(CALL_FDATASYNC, int, -1, fdatasync, (int fd), (fd))
WRAP(CALL_FALLOCATE, int, -1, fallocate, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
WRAP(CALL_FTRUNCATE, int, -1, ftruncate, (int fd, off_t n), (fd, n))
WRAP(CALL_FSYNC, int, -1, fsync, (int fd), (fd))
WRAP(CALL_FLOCK, int, -1, flock, (int fd, int how), (fd, how))
WRAP(CALL_GETRANDOM, ssize_t, -1, getrandom, (void *to, size_t n, unsigned flags), (to, n, flags))
WRAP(CALL_FSTAT, int, -1, fstat, (int fd, struct stat *st), (fd, st))
WRAP(CALL_LSEEK, off_t, -1, lseek, (int fd, off_t at, int whence), (fd, at, whence))
WRAP(CALL_FOPEN, FILE *, NULL, fopen, (const char *path, const char *mode), (path, mode))
WRAP(CALL_MMAP, void *, MAP_FAILED, mmap,
     (void *at, size_t n, int prot, int flags, int fd, off_t from), (at, n, prot, flags, fd, from))
WRAP(CALL_MADVISE, int, -1, madvise, (void *at, size_t n, int advice), (at, n, advice))
WRAP(CALL_MEMFD, int, -1, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(CALL_THREAD, int, error, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg),
     (thread, attr, run, arg))

int __real_close(int fd);
int __wrap_close(int fd);
int
__wrap_close(int fd)
{
    int error = refused(CALL_CLOSE), rc = __real_close(fd); /* Linux has closed it all the same */

    if (error == 0)
        return rc;
    errno = error;
    return -1;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int
__wrap_open(const char *path, int flags, ...)
{
    int error = strstr(path, planned_name) != NULL ? refused(CALL_OPEN) : 0;
    va_list arguments;
    mode_t mode;

    if (error != 0) {
        errno = error;
        return -1;
    }
    va_start(arguments, flags);
    mode = (flags & O_CREAT) != 0 ? (mode_t)va_arg(arguments, int) : 0;
    va_end(arguments);
    return __real_open(path, flags, mode);
}

int __real_fcntl(int fd, int what, ...);
int __wrap_fcntl(int fd, int what, ...);
int
__wrap_fcntl(int fd, int what, ...)
{
    int error = refused(CALL_FCNTL);
    va_list arguments;
    int value;

    if (error != 0) {
        errno = error;
        return -1;
    }
    va_start(arguments, what);
    value = what == F_SETFL ? va_arg(arguments, int) : 0;
    va_end(arguments);
    return __real_fcntl(fd, what, value);
}

#ifdef SCREE_HAVE_LIBURING
static pthread_barrier_t *submitters; /* who submits waits for the others, NULL: for nobody */

WRAP(CALL_URING_INIT, int, -error, io_uring_queue_init,
     (unsigned n, struct io_uring *ring, unsigned flags), (n, ring, flags))
WRAP(CALL_URING_PROBE, struct io_uring_probe *, NULL, io_uring_get_probe_ring,
     (struct io_uring * ring), (ring))
WRAP(CALL_URING_WAIT, int, -error, __io_uring_get_cqe,
     (struct io_uring * ring, struct io_uring_cqe **cqe, unsigned submit, unsigned wait,
      sigset_t *mask),
     (ring, cqe, submit, wait, mask))

int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned n);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n);
int
__wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n)
{
    int error = refused(CALL_URING_SUBMIT);

    if (submitters != NULL)
        (void)pthread_barrier_wait(submitters);
    return error != 0 ? -error : __real_io_uring_submit_and_wait(ring, n);
}
#endif

/* ---- files ---------------------------------------------------------------------------------------- */

static const scree_env *posix;
static char path[KIT_PATH_MAX + 32];

static void
setup(void)
{
    posix = scree_env_posix();
    kit_dir_name(dir, "refused");
    cr_assert(zero(int, mkdir(dir, 0755)));
    snprintf(path, sizeof(path), "%s/file", dir);
}

static void
setup_cache(void)
{
    kit_dir_name(dir, "refused");
    kit_options_small(&options, &kit_concat);
}

static void
teardown_all(void)
{
    refuse(CALL_NONE, 0, 0, 0);
    teardown();
}

static int
file_make(void)
{
    int file = posix->open(NULL, path, SCREE_ENV_READ | SCREE_ENV_WRITE | SCREE_ENV_CREATE);

    cr_assert(ge(int, file, 0));
    return file;
}

/* Each member once; the first result that is not what is wanted, or 0. */
static int
member(enum call call, int file)
{
    char byte = 'x';
    int rc;

    switch (call) {
    case CALL_OPEN:
        rc = posix->open(NULL, path, SCREE_ENV_READ);
        return rc < 0 ? rc : posix->close(NULL, rc);
    case CALL_PREAD:
        rc = (int)posix->read(NULL, file, &byte, 1, 0);
        return rc == 1 ? 0 : rc;
    case CALL_PWRITE:
        rc = (int)posix->write(NULL, file, &byte, 1, 0);
        return rc == 1 ? 0 : rc;
    case CALL_FDATASYNC:
        return posix->sync(NULL, file);
    case CALL_FALLOCATE:
        return posix->allocate(NULL, file, 0, 8192);
    case CALL_FTRUNCATE:
        return posix->truncate(NULL, file, 1);
    case CALL_FSYNC:
        return posix->sync_dir(NULL, dir);
    case CALL_FLOCK:
        rc = posix->lock(NULL, dir, 1, NULL);
        return rc < 0 ? rc : posix->close(NULL, rc);
    default:
        return posix->random(NULL, &byte, 1);
    }
}

static const enum call restarted[] = {CALL_OPEN,      CALL_PREAD,     CALL_PWRITE,
                                      CALL_FDATASYNC, CALL_FALLOCATE, CALL_FTRUNCATE,
                                      CALL_FSYNC,     CALL_FLOCK,     CALL_GETRANDOM};
#define RESTARTED (sizeof(restarted) / sizeof(restarted[0]))

TestSuite(refused_file, .init = setup, .fini = teardown_all, .timeout = 300);

Test(refused_file, a_call_that_a_signal_interrupts_is_made_again)
{
    int file = file_make();

    cr_assert(eq(i64, posix->write(NULL, file, "y", 1, 0), 1));
    for (size_t i = 0; i < RESTARTED; i++) {
        refuse(restarted[i], EINTR, 1, 3);
        cr_assert(zero(int, member(restarted[i], file)), "call %zu", i);
        /* The close of what was locked unlocks it. */
        cr_assert(eq(u64, asked(), restarted[i] == CALL_FLOCK ? 5 : 4), "call %zu", i);
    }
    cr_assert(zero(int, posix->close(NULL, file)));
}

Test(refused_file, any_other_error_is_passed_on_and_the_call_not_repeated)
{
    int file = file_make();

    for (size_t i = 0; i < RESTARTED; i++) {
        refuse(restarted[i], EIO, 1, 1);
        cr_assert(eq(int, member(restarted[i], file), -EIO), "call %zu", i);
        cr_assert(eq(u64, asked(), 1), "call %zu", i);
    }
    cr_assert(zero(int, posix->close(NULL, file)));
}

/* A second close could hit another thread's new file. */
Test(refused_file, a_close_is_never_repeated_and_interrupted_it_is_done)
{
    refuse(CALL_CLOSE, EINTR, 1, 1);
    cr_assert(zero(int, posix->close(NULL, file_make())));
    cr_assert(eq(u64, asked(), 1));
    refuse(CALL_CLOSE, EIO, 1, 1);
    cr_assert(eq(int, posix->close(NULL, file_make()), -EIO));
    cr_assert(eq(u64, asked(), 1));
}

Test(refused_file, without_direct_io_nothing_that_was_made_stays_behind)
{
    const int direct = SCREE_ENV_WRITE | SCREE_ENV_DIRECT;
    struct stat st;

    for (uint64_t at = 1; at <= 2; at++) { /* F_GETFL, then F_SETFL */
        refuse(CALL_FCNTL, EINVAL, at, 1);
        cr_assert(eq(int, posix->open(NULL, path, direct | SCREE_ENV_CREATE | SCREE_ENV_EXCLUSIVE),
                     -EINVAL));
        cr_assert(ne(int, stat(path, &st), 0), "left behind");
    }
    cr_assert(zero(int, posix->close(NULL, file_make())));
    refuse(CALL_FCNTL, EINVAL, 2, 1);
    cr_assert(eq(int, posix->open(NULL, path, direct | SCREE_ENV_CREATE), -EINVAL));
    cr_assert(zero(int, stat(path, &st)), "deleted, though it had been there before");
}

Test(refused_file, allocate_without_fallocate_gives_room_and_keeps_what_is_there)
{
    static char bytes[200 * KIB];
    scree_env_info info;
    int file = file_make();

    cr_assert(eq(i64, posix->write(NULL, file, "hello", 5, 5000), 5));
    refuse(CALL_FALLOCATE, EOPNOTSUPP, 1, UINT64_MAX);
    cr_assert(zero(int, posix->allocate(NULL, file, 4096, 150 * KIB + 100)));
    cr_assert(zero(int, posix->info(NULL, file, &info)));
    cr_assert(eq(u64, info.size_bytes, 4096 + 150 * KIB + 100));
    cr_assert(ge(u64, info.disk_bytes, 150 * KIB - 4096)); /* but for the block in front, a hole */
    cr_assert(eq(i64, posix->read(NULL, file, bytes, sizeof(bytes), 0), (int64_t)info.size_bytes));
    cr_assert(eq(int, memcmp(bytes + 5000, "hello", 5), 0));
    memset(bytes + 5000, 0, 5);
    for (uint64_t i = 0; i < info.size_bytes; i++)
        cr_assert(bytes[i] == 0, "byte %llu", (unsigned long long)i);
    cr_assert(zero(int, posix->allocate(NULL, file, 0, 8 * KIB)));
    cr_assert(zero(int, posix->info(NULL, file, &info)));
    cr_assert(eq(u64, info.size_bytes, 4096 + 150 * KIB + 100)); /* it never shrinks */
    cr_assert(eq(int, posix->punch(NULL, file, 0, 4096), -EOPNOTSUPP));
    cr_assert(zero(int, posix->close(NULL, file)));
}

/* Wrapped twice: fallocate is not there, and what is done instead fails. */
Test(refused_file, a_range_that_cannot_be_told_is_an_error_and_a_hole_at_the_end_is_none)
{
    uint64_t begin = 1, end = 1;
    scree_env_info info;
    int file = file_make();

    cr_assert(eq(i64, posix->write(NULL, file, "hello", 5, 0), 5));
    cr_assert(zero(int, posix->data_range(NULL, file, 0, &begin, &end)));
    cr_assert(eq(u64, begin, 0));
    cr_assert(eq(u64, end, 5));
    cr_assert(zero(int, posix->data_range(NULL, file, 5, &begin, &end)));
    cr_assert(begin == 5 && end == 5);
    refuse(CALL_LSEEK, ENXIO, 1, 1);
    cr_assert(zero(int, posix->data_range(NULL, file, 0, &begin, &end)));
    cr_assert(begin == 5 && end == 5);
    for (uint64_t at = 1; at <= 2; at++) { /* SEEK_DATA, SEEK_HOLE */
        refuse(CALL_LSEEK, EINVAL, at, 1);
        cr_assert(eq(int, posix->data_range(NULL, file, 0, &begin, &end), -EINVAL));
    }
    refuse(CALL_FSTAT, EIO, 1, 1);
    cr_assert(eq(int, posix->data_range(NULL, file, 0, &begin, &end), -EIO));
    cr_assert(begin == 0 && end == 0);
    refuse(CALL_FSTAT, EIO, 1, 1);
    cr_assert(eq(int, posix->info(NULL, file, &info), -EIO));
    cr_assert(info.size_bytes == 0 && info.disk_bytes == 0);
    cr_assert(zero(int, posix->close(NULL, file)));
}

Test(refused_file, a_lock_s_holder_is_0_where_nobody_can_tell)
{
    int64_t holder = -1;
    int held = posix->lock(NULL, dir, 0, &holder);

    cr_assert(ge(int, held, 0));
    cr_assert(eq(i64, holder, 0));
    refuse(CALL_FOPEN, EACCES, 1, 1);
    cr_assert(eq(int, posix->lock(NULL, dir, 0, &holder), -EWOULDBLOCK));
    cr_assert(eq(i64, holder, 0));
    refuse(CALL_FSTAT, EIO, 1, 1);
    cr_assert(eq(int, posix->lock(NULL, dir, 1, &holder), -EWOULDBLOCK));
    cr_assert(eq(i64, holder, 0));
    cr_assert(eq(int, posix->lock(NULL, dir, 1, NULL), -EWOULDBLOCK));
    cr_assert(zero(int, posix->close(NULL, held)));
}

/* ---- many reads ----------------------------------------------------------------------------------- */

#ifdef SCREE_HAVE_LIBURING

#define READS 150u /* more than two rings' depth */

static int
many_file(void)
{
    static uint32_t words[READS * 16];
    int file = file_make();

    for (uint32_t i = 0; i < READS * 16; i++)
        words[i] = i / 16;
    cr_assert(eq(i64, posix->write(NULL, file, words, sizeof(words), 0), sizeof(words)));
    return file;
}

/* READS reads; how many of them brought their bytes, all others failed with the error. */
static uint32_t
many_read(int file, int error)
{
    uint32_t bytes[READS][16], good = 0;
    scree_env_read reads[READS];

    for (uint32_t i = 0; i < READS; i++)
        reads[i] = (scree_env_read){
            .file = file, .data = bytes[i], .len = 64, .offset = i * 64, .result = 77};
    memset(bytes, 0xFF, sizeof(bytes));
    cr_assert(zero(int, posix->read_many(NULL, reads, READS)));
    for (uint32_t i = 0; i < READS; i++) {
        if (reads[i].result != 64) {
            cr_assert(eq(int, reads[i].result, error), "read %u", i);
            continue;
        }
        cr_assert(bytes[i][0] == i && bytes[i][15] == i, "read %u brought %u", i, bytes[i][0]);
        good++;
    }
    return good;
}

TestSuite(refused_ring, .init = setup, .fini = teardown_all, .timeout = 300);

Test(refused_ring, where_rings_are_forbidden_they_are_asked_for_once)
{
    int file = many_file();

    refuse(CALL_URING_INIT, EPERM, 1, UINT64_MAX);
    for (int i = 0; i < 3; i++)
        cr_assert(eq(uint, many_read(file, 0), READS));
    cr_assert(eq(u64, asked(), 1));
}

Test(refused_ring, want_of_memory_for_one_passes)
{
    int file = many_file();

    refuse(CALL_URING_INIT, ENOMEM, 1, 2);
    for (int i = 0; i < 4; i++)
        cr_assert(eq(uint, many_read(file, 0), READS));
    cr_assert(eq(u64, asked(), 3)); /* the third was made, and is used again */
}

Test(refused_ring, a_kernel_that_does_not_tell_what_it_can_gets_plain_reads)
{
    int file = many_file();

    refuse(CALL_URING_PROBE, ENOSYS, 1, UINT64_MAX);
    for (int i = 0; i < 3; i++)
        cr_assert(eq(uint, many_read(file, 0), READS));
    cr_assert(eq(u64, asked(), 1));
}

Test(refused_ring, an_interrupted_submission_or_wait_goes_on)
{
    int file = many_file();

    refuse(CALL_URING_SUBMIT, EINTR, 1, 2);
    cr_assert(eq(uint, many_read(file, 0), READS));
    cr_assert(ge(u64, asked(), 3));
    refuse(CALL_URING_SUBMIT, EBUSY, 1, 1); /* nothing was started: read one by one */
    cr_assert(eq(uint, many_read(file, 0), READS));
    cr_assert(eq(uint, many_read(file, 0), READS));
}

static void *
many_run(void *arg)
{
    int *file = arg;

    return many_read(*file, 0) == READS ? arg : NULL;
}

/* All of them hold one at the same moment: some find no place to put theirs back. */
Test(refused_ring, more_readers_at_once_than_rings_are_kept)
{
    enum { READERS = 12 };
    pthread_barrier_t barrier;
    pthread_t thread[READERS];
    int file = many_file();
    void *good;

    cr_assert(zero(int, pthread_barrier_init(&barrier, NULL, READERS)));
    for (int round = 0; round < 2; round++) {
        submitters = &barrier;
        for (int i = 0; i < READERS; i++)
            cr_assert(zero(int, pthread_create(&thread[i], NULL, many_run, &file)));
        for (int i = 0; i < READERS; i++) {
            pthread_join(thread[i], &good);
            cr_assert(ne(ptr, good, NULL), "reader %d", i);
        }
        submitters = NULL;
    }
    cr_assert(eq(uint, many_read(file, 0), READS));
}

#endif

/* ---- a cache -------------------------------------------------------------------------------------- */

TestSuite(refused_open, .init = setup_cache, .fini = teardown_all, .timeout = 600);

static void
pages_make(unsigned n)
{
    static char bytes[3000];

    for (unsigned i = 0; i < n; i++) {
        memset(bytes, (int)('a' + i % 26), sizeof(bytes));
        KIT_CHECK(scree_page_allocate(cache, kit_slice(bytes, sizeof(bytes)), NULL, NULL) == 0,
                  "page %u", i);
    }
}

/* They are all there, whatever their ids are: so many of each letter. */
static void
pages_check(unsigned n)
{
    scree_page_id id = SCREE_PAGE_ROOT;
    unsigned seen[26] = {0}, i = 0;
    char bytes[3000];
    size_t len;

    for (; scree_page_next(cache, id, &id) == 0; i++) {
        EXPECT(0, scree_page_read(cache, id, bytes, sizeof(bytes), &len, NULL));
        cr_assert(len == sizeof(bytes) && bytes[0] >= 'a' && bytes[0] <= 'z' &&
                      memcmp(bytes, bytes + 1, len - 1) == 0,
                  "page %llu: %zu bytes", (unsigned long long)id, len);
        seen[bytes[0] - 'a']++;
    }
    cr_assert(eq(uint, i, n));
    for (i = 0; i < 26; i++)
        cr_assert(eq(uint, seen[i], n / 26 + (i < n % 26)), "of %c", 'a' + (int)i);
}

/* Opens the directory with each of these calls failing in turn. How many failed opens there were. */
static unsigned
open_with_each_refused(enum call call, int error, unsigned pages)
{
    unsigned failed = 0;

    for (uint64_t at = 1;; at++) {
        int rc;

        refuse(call, error, at, 1);
        rc = scree_open(dir, &options, &cache);
        bool struck = asked() >= at;

        refuse(CALL_NONE, 0, 0, 0);
        cr_assert((rc == 0) == (cache != NULL), "%d and a cache at %p", rc, (void *)cache);
        cr_assert(rc == 0 || strlen(scree_error_detail()) > 0, "no detail");
        cr_assert(rc == 0 || struck, "it failed by itself: %s", scree_error_detail());
        failed += rc != 0;
        if (rc == 0) {
            pages_check(pages);
            EXPECT(0, scree_close(cache));
            cache = NULL;
        }
        if (!struck)
            break;
    }
    open_cache();
    pages_check(pages);
    return failed;
}

static void
crash_with_pages(unsigned n)
{
    pid_t child = kit_fork();

    if (child == 0) { /* not Criterion's child: it tells by its status */
        KIT_CHECK(scree_open(dir, &options, &cache) == 0, "open");
        pages_make(n);
        KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
        KIT_CHECK(scree_flush(cache, NULL) == 0, "flush");
        _exit(0);
    }
    cr_assert(zero(int, kit_join(child)));
}

Test(refused_open, a_thread_that_does_not_start_fails_the_open_and_harms_nothing)
{
    crash_with_pages(50);
    cr_assert(ge(uint, open_with_each_refused(CALL_THREAD, EAGAIN, 50), 6));
}

Test(refused_open, memory_that_cannot_be_mapped_fails_the_open_and_harms_nothing)
{
    crash_with_pages(20);
    cr_assert(ge(uint, open_with_each_refused(CALL_MEMFD, EMFILE, 20), 1));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    cr_assert(ge(uint, open_with_each_refused(CALL_MADVISE, EINVAL, 20), 1));
    EXPECT(0, scree_close(cache));
    cache = NULL;
    cr_assert(ge(uint, open_with_each_refused(CALL_MMAP, ENOMEM, 20), 3));
}

Test(refused_open, no_room_for_the_log_buffer_is_no_memory)
{
    refuse(CALL_MMAP, ENOMEM, 1, 1);
    EXPECT(SCREE_E_NO_MEMORY, scree_open(dir, &options, &cache));
    refuse(CALL_FTRUNCATE, ENOSPC, 1, 1);
    cr_assert(ne(int, scree_open(dir, &options, &cache), 0));
    refuse(CALL_NONE, 0, 0, 0);
    open_cache();
}

Test(refused_open, without_random_bytes_no_directory_is_made)
{
    refuse(CALL_GETRANDOM, ENOSYS, 1, UINT64_MAX);
    EXPECT(-ENOSYS, scree_open(dir, &options, &cache));
    refuse(CALL_NONE, 0, 0, 0);
    open_cache();
}

static _Atomic unsigned buffered_events, log_lines;

static void
event_note(void *ctx, const scree_event *event)
{
    (void)ctx;
    cr_assert(event->text != NULL && event->size == sizeof(*event));
    if (event->kind == SCREE_EVENT_IO_BUFFERED)
        (void)atomic_fetch_add_explicit(&buffered_events, 1, memory_order_relaxed);
}

static void
log_note(void *ctx, int level, int code, const char *line)
{
    (void)ctx, (void)code;
    cr_assert(level >= SCREE_LOG_ERROR && level <= SCREE_LOG_INFO && strlen(line) > 0);
    (void)atomic_fetch_add_explicit(&log_lines, 1, memory_order_relaxed);
}

Test(refused_open, without_direct_io_auto_says_so_once_and_direct_fails)
{
    options.event = event_note;
    options.log = log_note;
    options.io_mode = SCREE_IO_DIRECT;
    refuse(CALL_FCNTL, EINVAL, 1, UINT64_MAX);
    EXPECT(-EINVAL, scree_open(dir, &options, &cache));
    kit_dir_remove(dir);
    options.io_mode = SCREE_IO_AUTO;
    open_cache();
    pages_make(100);
    EXPECT(0, scree_flush(cache, NULL));
    cr_assert(eq(uint, atomic_load_explicit(&buffered_events, memory_order_relaxed), 1));
    cr_assert(ge(uint, atomic_load_explicit(&log_lines, memory_order_relaxed), 1));
    pages_check(100);
}

/* Descriptors of segments that are not in use make way for one that is needed. */
Test(refused_open, a_process_out_of_descriptors_goes_on_with_those_it_has)
{
    open_cache();
    pages_make(104);
    EXPECT(0, scree_flush(cache, NULL));
    planned_name = "segment-";
    for (unsigned i = 0; i < 4; i++) {
        refuse(CALL_OPEN, i % 2 == 0 ? EMFILE : ENFILE, 1, 1);
        pages_make(52); /* two segments */
        EXPECT(0, scree_flush(cache, NULL));
        cr_assert(ge(u64, asked(), 2));
    }
    refuse(CALL_NONE, 0, 0, 0);
    pages_check(104 + 4 * 52);
    reopen();
    pages_check(104 + 4 * 52);
}
