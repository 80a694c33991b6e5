/*
 * env_posix.c - scree_env over POSIX and Linux calls: files are descriptors.
 *
 * PROTOCOL of the calls
 *   open       always close-on-exec. DIRECT is asked for after the open: a filesystem that refuses
 *              it in open(2) may have created the file by then. A file that such an open did create
 *              exclusively is removed again, so that the caller's second try, without DIRECT, finds
 *              the state it first found.
 *   transfers  a call interrupted by a signal before it moved a byte is made again; short counts
 *              are returned.
 *   sync       fdatasync: data, and the metadata needed to find it (size, extents), are durable on
 *              return.
 *   allocate   fallocate(2), so that a later write into the range cannot fail for lack of room;
 *              where the filesystem has none, the part behind the end of the file is filled with
 *              zeros instead.
 *   lock       flock(2) on a descriptor of the directory itself: no lock file to be left behind or
 *              deleted, and it dies with its process. A second open in the same process is refused
 *              like any other. A forked child has the same lock, until its exec or the handler of
 *              fork.c closes its copy: so close unlocks and does not wait for that, and the child
 *              lets its copy go without unlocking.
 *   read_many  io_uring where compiled in and allowed by the kernel, else one pread after the
 *              other.
 *
 * WORD   uring_pool[i]: a ring nobody uses, or NULL.   uring_denied: 1 = the kernel gives us none.
 * EDGES  step                       who          order             pairs   if it loses
 *   E0   slot -> NULL (take)        any reader   exchange acquire  E1      got NULL: next slot
 *   E1   slot NULL -> ring (put)    any reader   CAS release       E0      slot taken: next slot
 *   E2   denied 0 -> 1              any reader   store relaxed     -       advice: a stale 0 is a try
 * INVARIANTS
 *   I1 a ring belongs to the one thread that took it, and is put back only with nothing queued and
 *      nothing in flight.
 *   I2 a ring is used only by the process that made it: the kernel's half is shared with a forked
 *      child, so a child ends the rings it inherits unused (ending unmaps and closes its own copies
 *      only).
 * LIFETIME  rings in the pool live as long as the process; at most one a pool slot. No ABA: a taken
 *   slot holds NULL, and a pointer in a slot is never compared.
 * PROGRESS  lock-free: a lost E0 or E1 moves on to the next slot, no slot is tried twice. No lock,
 *   so none can be held over a fork.
 * FAILURE   no ring to be had: pread. A ring that fails in mid-batch: what is in flight is waited
 *   for (it owns the buffers), the rest is read by pread, the ring is ended.
 * NOT HERE  what files hold (log, snapshot).   REFS  io_uring(7), open(2) O_DIRECT, proc_locks(5).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "env/env.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#ifdef SCREE_HAVE_LIBURING
#include <liburing.h>
#endif

/* The kernel moves no more than this in one call. */
#define POSIX_TRANSFER_MAX ((size_t)0x7ffff000)

/* ---- open, close, transfers ---------------------------------------------------------------- */

static int
posix_flags(int flags)
{
    int posix = O_CLOEXEC;

    posix |= !(flags & SCREE_ENV_WRITE) ? O_RDONLY : flags & SCREE_ENV_READ ? O_RDWR : O_WRONLY;
    posix |= flags & SCREE_ENV_CREATE ? O_CREAT : 0;
    posix |= flags & SCREE_ENV_EXCLUSIVE ? O_EXCL : 0;
    posix |= flags & SCREE_ENV_TRUNCATE ? O_TRUNC : 0;
    return posix;
}

static int
open_retry(const char *path, int flags)
{
    int file;

    do {
        file = open(path, flags, 0666);
    } while (file < 0 && errno == EINTR);
    return file < 0 ? -errno : file;
}

static int
posix_open(void *ctx, const char *path, int flags)
{
    (void)ctx;
    int posix = posix_flags(flags);
    int file = open_retry(path, posix);

    if (file < 0 || !(flags & SCREE_ENV_DIRECT))
        return file;
    int had = fcntl(file, F_GETFL);

    if (had >= 0 && fcntl(file, F_SETFL, had | O_DIRECT) == 0)
        return file;
    int error = errno;

    if ((posix & O_CREAT) && (posix & O_EXCL))
        (void)unlink(path);
    (void)close(file);
    return -error;
}

int
scree__posix_let_go(int file)
{
    /* EINTR: Linux has closed it all the same; closing again could hit another thread's new file.
       */
    return close(file) == 0 || errno == EINTR ? 0 : -errno;
}

static int
posix_close(void *ctx, int file)
{
    (void)ctx;
#ifndef SCREE_BUG_LOCK_LEFT     /* seeded: test_fork must fail */
    (void)flock(file, LOCK_UN); /* nothing on a file that is none of lock's */
#endif
    return scree__posix_let_go(file);
}

static int64_t
posix_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    (void)ctx;
    ssize_t n;

    if (offset > INT64_MAX)
        return -EINVAL;
    do {
        n = pread(file, data, len < POSIX_TRANSFER_MAX ? len : POSIX_TRANSFER_MAX, (off_t)offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int64_t
posix_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    (void)ctx;
    ssize_t n;

    if (offset > INT64_MAX)
        return -EINVAL;
    do {
        n = pwrite(file, data, len < POSIX_TRANSFER_MAX ? len : POSIX_TRANSFER_MAX, (off_t)offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* ---- many reads at once -------------------------------------------------------------------- */

static void
read_one(scree_env_read *r)
{
    /* posix_read returns at most POSIX_TRANSFER_MAX, which fits. */
    r->result = (int32_t)posix_read(NULL, r->file, r->data, r->len, r->offset);
}

#ifdef SCREE_HAVE_LIBURING

#define URING_DEPTH 64u
#define URING_POOL 8u

struct uring {
    struct io_uring ring;
    pid_t pid; /* who made it; set once before publish */
};

static struct uring *_Atomic uring_pool[URING_POOL]; /* E0, E1 */
static _Atomic int uring_denied;                     /* E2 */

static void
uring_end(struct uring *u)
{
    io_uring_queue_exit(&u->ring);
    scree__free(u, sizeof *u);
}

static bool
uring_can_read(struct io_uring *ring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool can = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_READ);

    if (probe != NULL)
        io_uring_free_probe(probe);
    return can;
}

static struct uring *
uring_make(pid_t pid)
{
    struct uring *u = scree__alloc_zero(sizeof *u);

    if (u == NULL)
        return NULL;
    int rc = io_uring_queue_init(URING_DEPTH, &u->ring, 0);

    if (rc == 0 && uring_can_read(&u->ring)) {
        u->pid = pid;
        return u;
    }
    /* E2. Relaxed: advice. Want of memory or descriptors may pass; these do not. */
    if (rc == 0 || rc == -ENOSYS || rc == -EPERM || rc == -EINVAL || rc == -EACCES)
        atomic_store_explicit(&uring_denied, 1, memory_order_relaxed);
    if (rc == 0)
        io_uring_queue_exit(&u->ring);
    scree__free(u, sizeof *u);
    return NULL;
}

/* A ring of this process, from the pool or new; NULL if none is to be had. */
static struct uring *
uring_take(void)
{
    if (atomic_load_explicit(&uring_denied, memory_order_relaxed)) /* advice, see E2 */
        return NULL;
    pid_t pid = getpid();

    for (unsigned i = 0; i < URING_POOL; i++) {
        /* E0. Acquire: the ring as its last user left it. */
        struct uring *u = atomic_exchange_explicit(&uring_pool[i], NULL, memory_order_acquire);

        if (u != NULL && u->pid == pid)
            return u;
        if (u != NULL)
            uring_end(u); /* I2 */
    }
    return uring_make(pid);
}

static void
uring_put(struct uring *u)
{
    for (unsigned i = 0; i < URING_POOL; i++) {
        struct uring *empty = NULL;

        /* E1. Release: the ring as we leave it. Failure relaxed: what is there is not looked at. */
        if (atomic_compare_exchange_strong_explicit(&uring_pool[i], &empty, u, memory_order_release,
                                                    memory_order_relaxed))
            return;
    }
    uring_end(u); /* more readers at once than the pool keeps rings for */
}

/* Queue and start the reads; how many the kernel took. */
static unsigned
uring_start(struct uring *u, scree_env_read *reads, unsigned n)
{
    unsigned started = 0;

    for (unsigned i = 0; i < n; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
        size_t len = reads[i].len < POSIX_TRANSFER_MAX ? reads[i].len : POSIX_TRANSFER_MAX;

        SCREE_ASSERT(sqe != NULL); /* I1: the ring was empty and n <= its depth */
        io_uring_prep_read(sqe, reads[i].file, reads[i].data, (unsigned)len, reads[i].offset);
        io_uring_sqe_set_data64(sqe, i);
        reads[i].result = -EAGAIN; /* what read_batch takes for "not done yet" */
    }
    while (started < n) {
        int rc = io_uring_submit_and_wait(&u->ring, n);

        if (rc == -EINTR)
            continue;
        if (rc <= 0)
            break;
        started += (unsigned)rc;
    }
    return started;
}

/* Collect what was started. False if the ring does not give it back. */
static bool
uring_collect(struct uring *u, scree_env_read *reads, unsigned n, unsigned started)
{
    for (unsigned done = 0; done < started;) {
        struct io_uring_cqe *cqe;
        int rc = io_uring_wait_cqe(&u->ring, &cqe);

        if (rc == -EINTR || rc == -EAGAIN)
            continue;
        if (rc < 0)
            return false;
        uint64_t i = io_uring_cqe_get_data64(cqe);

        SCREE_ASSERT(i < n);
        reads[i].result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        done++;
    }
    return true;
}

static void
read_batch(struct uring **u, scree_env_read *reads, unsigned n)
{
    unsigned started = uring_start(*u, reads, n);

    if (!uring_collect(*u, reads, n, started)) {
        /* Our descriptor was taken from us (closed by a stranger). Reads may still land in the
           buffers, so these must not be reported as done; the ring is left to the kernel, and none
           is used again. */
        atomic_store_explicit(&uring_denied, 1, memory_order_relaxed); /* E2 */
        for (unsigned i = 0; i < n; i++)
            reads[i].result = reads[i].result == -EAGAIN ? -EIO : reads[i].result;
        *u = NULL;
        return;
    }
    if (started < n) {
        uring_end(*u); /* unstarted entries are still queued: I1 forbids putting it back */
        *u = NULL;
    }
    for (unsigned i = 0; i < n; i++)
        if (reads[i].result == -EAGAIN || reads[i].result == -EINTR)
            read_one(&reads[i]);
}

/* As many of the reads as rings can be had for; how many that were. */
static size_t
read_by_uring(scree_env_read *reads, size_t n)
{
    struct uring *u = n > 1 ? uring_take() : NULL;
    size_t done = 0;

    while (u != NULL && done < n) {
        unsigned batch = n - done < URING_DEPTH ? (unsigned)(n - done) : URING_DEPTH;

        read_batch(&u, reads + done, batch);
        done += batch;
    }
    if (u != NULL)
        uring_put(u);
    return done;
}

#else

static size_t
read_by_uring(scree_env_read *reads, size_t n)
{
    (void)reads;
    (void)n;
    return 0;
}

#endif

static int
posix_read_many(void *ctx, scree_env_read *reads, size_t n)
{
    (void)ctx;
    for (size_t i = read_by_uring(reads, n); i < n; i++)
        read_one(&reads[i]);
    return 0;
}

/* ---- room and durability ------------------------------------------------------------------- */

static int
posix_sync(void *ctx, int file)
{
    (void)ctx;
    int rc;

    do {
        rc = fdatasync(file);
    } while (rc != 0 && errno == EINTR); /* interrupted, not failed: no error was consumed */
    return rc == 0 ? 0 : -errno;
}

static int
fallocate_retry(int file, int mode, uint64_t offset, uint64_t len)
{
    int rc;

    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return -EFBIG;
    do {
        rc = fallocate(file, mode, (off_t)offset, (off_t)len);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : -errno;
}

static int
posix_truncate(void *ctx, int file, uint64_t len)
{
    (void)ctx;
    int rc;

    if (len > INT64_MAX)
        return -EFBIG;
    do {
        rc = ftruncate(file, (off_t)len);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : -errno;
}

static int
write_zeros(int file, uint64_t from, uint64_t to)
{
    /* Aligned for direct files. Never written, so the threads may share it. */
    static _Alignas(SCREE_BLOCK) const unsigned char zeros[16 * SCREE_BLOCK];

    while (from < to) {
        size_t len = to - from < sizeof zeros ? (size_t)(to - from) : sizeof zeros;
        int rc = scree__env_write_all(scree_env_posix(), file, zeros, len, from);

        if (rc != 0)
            return rc;
        from += len;
    }
    return 0;
}

/* Room without fallocate: zeros behind the end of the file, in whole blocks so that direct files
   take them. What lies below the end is data and stays as it is. */
static int
allocate_by_zeros(int file, uint64_t offset, uint64_t len)
{
    struct stat st;

    if (fstat(file, &st) != 0)
        return -errno;
    uint64_t size = (uint64_t)st.st_size;
    uint64_t end = offset + len;
    int rc = write_zeros(file, scree__round_up(size > offset ? size : offset, SCREE_BLOCK),
                         scree__round_down(end, SCREE_BLOCK));

    if (rc != 0 || fstat(file, &st) != 0)
        return rc != 0 ? rc : -errno;
    return (uint64_t)st.st_size < end ? posix_truncate(NULL, file, end) : 0;
}

static int
posix_allocate(void *ctx, int file, uint64_t offset, uint64_t len)
{
    (void)ctx;
    int rc = fallocate_retry(file, 0, offset, len);

    return rc == -EOPNOTSUPP ? allocate_by_zeros(file, offset, len) : rc;
}

static int
posix_punch(void *ctx, int file, uint64_t offset, uint64_t len)
{
    (void)ctx;
    return fallocate_retry(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
}

static int
posix_data_range(void *ctx, int file, uint64_t offset, uint64_t *begin_out, uint64_t *end_out)
{
    struct stat st;
    off_t begin, end;

    (void)ctx;
    *begin_out = *end_out = 0;
    if (fstat(file, &st) != 0)
        return -errno;
    *begin_out = *end_out = (uint64_t)st.st_size;
    if (offset >= (uint64_t)st.st_size)
        return 0;
    begin = lseek(file, (off_t)offset, SEEK_DATA);
    if (begin < 0)
        return errno == ENXIO ? 0 : -errno; /* ENXIO: a hole up to the end */
    end = lseek(file, begin, SEEK_HOLE);
    if (end < 0)
        return -errno;
    *begin_out = (uint64_t)begin;
    *end_out = (uint64_t)end;
    return 0;
}

static int
posix_clone(void *ctx, int from_file, uint64_t from_offset, uint64_t len, int to_file,
            uint64_t to_offset)
{
    struct file_clone_range range = {.src_fd = from_file,
                                     .src_offset = from_offset,
                                     .src_length = len,
                                     .dest_offset = to_offset};

    (void)ctx;
    return ioctl(to_file, FICLONERANGE, &range) == 0 ? 0 : -errno;
}

static int
posix_info(void *ctx, int file, scree_env_info *info_out)
{
    (void)ctx;
    struct stat st;

    *info_out = (scree_env_info){0};
    if (fstat(file, &st) != 0)
        return -errno;
    info_out->size_bytes = (uint64_t)st.st_size;
    info_out->disk_bytes = (uint64_t)st.st_blocks * 512; /* st_blocks counts 512 bytes, always */
    return 0;
}

/* ---- names --------------------------------------------------------------------------------- */

static int
posix_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to) == 0 ? 0 : -errno;
}

static int
posix_unlink(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path) == 0 ? 0 : -errno;
}

static int
posix_mkdir(void *ctx, const char *path)
{
    (void)ctx;
    return mkdir(path, 0777) == 0 ? 0 : -errno;
}

static int
posix_sync_dir(void *ctx, const char *path)
{
    (void)ctx;
    int dir = open_retry(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (dir < 0)
        return dir;
    do {
        rc = fsync(dir);
    } while (rc != 0 && errno == EINTR);
    int result = rc == 0 ? 0 : -errno;

    (void)close(dir);
    return result;
}

static int
posix_list(void *ctx, const char *path, int (*visit)(void *visit_ctx, const char *name),
           void *visit_ctx)
{
    (void)ctx;
    DIR *dir = opendir(path);
    int rc = 0;

    if (dir == NULL)
        return -errno;
    while (rc == 0) {
        errno = 0;
        struct dirent *entry = readdir(dir);

        if (entry == NULL) {
            rc = -errno; /* 0 at the end */
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = visit(visit_ctx, entry->d_name);
    }
    (void)closedir(dir);
    return rc;
}

/* ---- the lock ------------------------------------------------------------------------------ */

/* Does this line of /proc/locks name a lock held on the inode? Then its process. */
static int64_t
lock_line_holder(const char *line, const struct stat *st)
{
    char kind[16];
    int64_t pid;
    unsigned dev_major, dev_minor;
    uint64_t inode;

    /* "7: FLOCK  ADVISORY  WRITE 4711 08:02:131074 0 EOF"; waiters have "->" behind the number. */
    int fields = sscanf(line, "%*d: %15s %*s %*s %" SCNd64 " %x:%x:%" SCNu64, kind, &pid,
                        &dev_major, &dev_minor, &inode);

    if (fields != 5 || strcmp(kind, "FLOCK") != 0 || pid <= 0)
        return 0;
    return dev_major == major(st->st_dev) && dev_minor == minor(st->st_dev) && inode == st->st_ino
               ? pid
               : 0;
}

static int64_t
lock_holder(int dir)
{
    struct stat st;
    char line[256];
    int64_t holder = 0;
    FILE *locks = fstat(dir, &st) == 0 ? fopen("/proc/locks", "re") : NULL;

    if (locks == NULL)
        return 0;
    while (holder == 0 && fgets(line, sizeof line, locks) != NULL)
        holder = lock_line_holder(line, &st);
    (void)fclose(locks);
    return holder;
}

static int
posix_lock(void *ctx, const char *path, int shared, int64_t *holder_out)
{
    (void)ctx;
    int rc;
    int dir = open_retry(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (holder_out != NULL)
        *holder_out = 0;
    if (dir < 0)
        return dir;
    do {
        rc = flock(dir, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB);
    } while (rc != 0 && errno == EINTR);
    if (rc == 0)
        return dir;
    int error = errno;

    if (error == EWOULDBLOCK && holder_out != NULL)
        *holder_out = lock_holder(dir);
    (void)close(dir);
    return -error;
}

/* ---- time and randomness ------------------------------------------------------------------- */

static uint64_t
posix_now_ns(void *ctx)
{
    (void)ctx;
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC,
                        &now); /* cannot fail: the clock exists, the pointer is ours */
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static int
posix_random(void *ctx, void *data, size_t len)
{
    (void)ctx;
    unsigned char *bytes = data;

    for (size_t done = 0; done < len;) {
        ssize_t n = getrandom(bytes + done, len - done, 0);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

const scree_env *
scree_env_posix(void)
{
    static const scree_env env = {
        .size = sizeof(scree_env),
        .open = posix_open,
        .close = posix_close,
        .read = posix_read,
        .write = posix_write,
        .read_many = posix_read_many,
        .sync = posix_sync,
        .allocate = posix_allocate,
        .punch = posix_punch,
        .data_range = posix_data_range,
        .truncate = posix_truncate,
        .info = posix_info,
        .rename = posix_rename,
        .unlink = posix_unlink,
        .mkdir = posix_mkdir,
        .sync_dir = posix_sync_dir,
        .list = posix_list,
        .lock = posix_lock,
        .now_ns = posix_now_ns,
        .random = posix_random,
        .clone = posix_clone,
    };

    return &env;
}
