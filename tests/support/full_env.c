/*
 * full_env.c - see full_env.h. It keeps books of the blocks of every file, by inode; one lock around all.
 */
#include "full_env.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK 4096u
#define FILE_BLOCKS_MAX 8192u
#define FILES_MAX 1024u
#define OPEN_MAX 256u

struct file {
    dev_t device;
    ino_t inode; /* 0: free */
    uint32_t blocks;
    unsigned char block[FILE_BLOCKS_MAX / 8];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct full_plan plan_now;
static struct full_seen seen;
static bool over;     /* room is back */
static bool full;     /* FULL_DISK: from now on */
static uint64_t room; /* FULL_DISK: blocks still to be had */
static struct file files[FILES_MAX];
static struct {
    struct file *file; /* NULL: unlinked meanwhile, or not ours to count */
    char name[64];
} opened[OPEN_MAX];
static const scree_env *posix_env;

void
full_env_plan(const struct full_plan *plan)
{
    plan_now = *plan;
    memset(&seen, 0, sizeof(seen));
    over = plan->way == FULL_NEVER;
    full = false;
}

void
full_env_room_back(void)
{
    pthread_mutex_lock(&lock);
    over = true;
    pthread_mutex_unlock(&lock);
}

void
full_env_seen(struct full_seen *seen_out)
{
    pthread_mutex_lock(&lock);
    *seen_out = seen;
    pthread_mutex_unlock(&lock);
}

/* ---- books: all under the lock ---- */

static bool
block_is(const struct file *f, uint64_t at)
{
    return (f->block[at / 8] >> (at % 8) & 1u) != 0;
}

static void
block_set(struct file *f, uint64_t at, bool is)
{
    if (block_is(f, at) == is)
        return;
    f->block[at / 8] ^= (unsigned char)(1u << (at % 8));
    f->blocks += is ? 1u : UINT32_MAX;
    room += is ? UINT64_MAX : 1u;
}

static void
blocks_drop(struct file *f, uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to && at < FILE_BLOCKS_MAX; at++)
        block_set(f, at, false);
}

static struct file *
file_find(const struct stat *about)
{
    struct file *unused = NULL;

    for (uint32_t i = 0; i < FILES_MAX; i++) {
        if (files[i].inode == about->st_ino && files[i].device == about->st_dev)
            return &files[i];
        if (files[i].inode == 0 && unused == NULL)
            unused = &files[i];
    }
    KIT_CHECK(unused != NULL, "the test's own limit of files");
    memset(unused, 0, sizeof(*unused));
    unused->device = about->st_dev;
    unused->inode = about->st_ino;
    for (uint64_t at = 0; at * BLOCK < (uint64_t)about->st_size && at < FILE_BLOCKS_MAX; at++)
        block_set(unused, at, true);
    return unused;
}

/* The name is gone: its blocks are free again, whoever has it open still. */
static void
name_drop(const char *path)
{
    struct stat about;
    struct file *f;

    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode))
        return;
    f = file_find(&about);
    blocks_drop(f, 0, FILE_BLOCKS_MAX);
    room++; /* what its creation took */
    f->inode = 0;
    for (uint32_t i = 0; i < OPEN_MAX; i++) {
        if (opened[i].file == f)
            opened[i].file = NULL;
    }
}

static const char *
name_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

static int
fail(const char *call, const char *name)
{
    if (seen.failures++ == 0)
        snprintf(seen.first, sizeof(seen.first), "%s %s", call, name);
    if (plan_now.way == FULL_ONCE || seen.failures >= plan_now.failures)
        over = true;
    return -ENOSPC;
}

/* Counts the call; true if it is to fail whatever it asks for. */
static bool
call_fails(void)
{
    seen.calls++;
    if (over || seen.calls < plan_now.at)
        return false;
    if (plan_now.way == FULL_DISK) {
        if (!full) {
            full = true;
            room = 0;
        }
        return false;
    }
    return plan_now.way == FULL_CALLS || seen.calls == plan_now.at;
}

static bool
disk_is_full(void)
{
    return full && !over;
}

/* Would the whole range fit? */
static bool
range_fits(const struct file *f, uint64_t offset, uint64_t len)
{
    uint64_t need = 0;

    for (uint64_t at = offset / BLOCK; at * BLOCK < offset + len && at < FILE_BLOCKS_MAX; at++)
        need += !block_is(f, at);
    return !disk_is_full() || (int64_t)need <= (int64_t)room;
}

/* Leading bytes of the range that there is room for; takes it. */
static uint64_t
range_take(struct file *f, uint64_t offset, uint64_t len)
{
    uint64_t at = offset / BLOCK;

    for (; at * BLOCK < offset + len; at++) {
        if (at >= FILE_BLOCKS_MAX || block_is(f, at))
            continue;
        if (disk_is_full() && (int64_t)room <= 0)
            break;
        block_set(f, at, true);
    }
    if (at * BLOCK <= offset)
        return 0;
    return at * BLOCK >= offset + len ? len : at * BLOCK - offset;
}

/* ---- the calls that take room ---- */

static int
open_counted(const char *path, int flags)
{
    struct stat about;
    bool is_new = (flags & SCREE_ENV_CREATE) != 0 && stat(path, &about) != 0;
    int result;

    if (is_new && call_fails())
        return fail("open", name_of(path));
    if (is_new && disk_is_full() && (int64_t)room <= 0)
        return fail("open", name_of(path));
    result = posix_env->open(posix_env->ctx, path, flags);
    if (result < 0)
        return result;
    KIT_CHECK((uint32_t)result < OPEN_MAX && fstat(result, &about) == 0, "too many open files");
    opened[result].file = S_ISREG(about.st_mode) ? file_find(&about) : NULL;
    snprintf(opened[result].name, sizeof(opened[result].name), "%s", name_of(path));
    if (is_new)
        room--;
    if ((flags & SCREE_ENV_TRUNCATE) != 0 && opened[result].file != NULL)
        blocks_drop(opened[result].file, 0, FILE_BLOCKS_MAX);
    return result;
}

static int
full_open(void *ctx, const char *path, int flags)
{
    int result;

    (void)ctx;
    pthread_mutex_lock(&lock);
    result = open_counted(path, flags);
    pthread_mutex_unlock(&lock);
    return result;
}

/* Are these bytes of records, not zeros or a header? */
static bool
is_log_data(int file, const unsigned char *data, size_t len, uint64_t offset)
{
    if (strncmp(opened[file].name, "segment-", 8) != 0 || offset < BLOCK)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (data[i] != 0)
            return true;
    }
    return false;
}

static int64_t
full_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    uint64_t n = len;
    bool fails;

    (void)ctx;
    pthread_mutex_lock(&lock);
    fails = call_fails();
    if (!fails && opened[file].file != NULL)
        n = range_take(opened[file].file, offset, len);
    if (fails || (n == 0 && len > 0)) {
        int64_t code = fail("write", opened[file].name);

        seen.data_writes += is_log_data(file, data, len, offset);
        pthread_mutex_unlock(&lock);
        return code;
    }
    pthread_mutex_unlock(&lock);
    return posix_env->write(posix_env->ctx, file, data, n, offset);
}

static int
full_allocate(void *ctx, int file, uint64_t offset, uint64_t len)
{
    struct file *f;
    int result = 0;

    (void)ctx;
    pthread_mutex_lock(&lock);
    f = opened[file].file;
    if (call_fails() || (f != NULL && !range_fits(f, offset, len)))
        result = fail("allocate", opened[file].name);
    else if (f != NULL)
        (void)range_take(f, offset, len);
    pthread_mutex_unlock(&lock);
    return result != 0 ? result : posix_env->allocate(posix_env->ctx, file, offset, len);
}

static int
full_rename(void *ctx, const char *from, const char *to)
{
    int result;

    (void)ctx;
    pthread_mutex_lock(&lock);
    if (call_fails()) {
        result = fail("rename", name_of(to));
    } else {
        name_drop(to);
        result = posix_env->rename(posix_env->ctx, from, to);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static int
full_mkdir(void *ctx, const char *path)
{
    bool fails;

    (void)ctx;
    pthread_mutex_lock(&lock);
    fails = call_fails() || (disk_is_full() && (int64_t)room <= 0);
    if (fails)
        (void)fail("mkdir", name_of(path));
    pthread_mutex_unlock(&lock);
    return fails ? -ENOSPC : posix_env->mkdir(posix_env->ctx, path);
}

/* ---- the calls that give room back ---- */

static int
full_close(void *ctx, int file)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    if ((uint32_t)file < OPEN_MAX)
        opened[file].file = NULL;
    pthread_mutex_unlock(&lock);
    return posix_env->close(posix_env->ctx, file);
}

static int
full_punch(void *ctx, int file, uint64_t offset, uint64_t len)
{
    int result = posix_env->punch(posix_env->ctx, file, offset, len);

    (void)ctx;
    pthread_mutex_lock(&lock);
    if (result == 0 && opened[file].file != NULL)
        blocks_drop(opened[file].file, (offset + BLOCK - 1) / BLOCK, (offset + len) / BLOCK);
    pthread_mutex_unlock(&lock);
    return result;
}

static int
full_truncate(void *ctx, int file, uint64_t len)
{
    int result = posix_env->truncate(posix_env->ctx, file, len);

    (void)ctx;
    pthread_mutex_lock(&lock);
    if (result == 0 && opened[file].file != NULL)
        blocks_drop(opened[file].file, (len + BLOCK - 1) / BLOCK, FILE_BLOCKS_MAX);
    pthread_mutex_unlock(&lock);
    return result;
}

static int
full_unlink(void *ctx, const char *path)
{
    int result;

    (void)ctx;
    pthread_mutex_lock(&lock);
    name_drop(path);
    result = posix_env->unlink(posix_env->ctx, path);
    pthread_mutex_unlock(&lock);
    return result;
}

const scree_env *
full_env(void)
{
    static scree_env env;

    posix_env = scree_env_posix();
    env = *posix_env;
    env.open = full_open;
    env.close = full_close;
    env.write = full_write;
    env.allocate = full_allocate;
    env.punch = full_punch;
    env.truncate = full_truncate;
    env.rename = full_rename;
    env.unlink = full_unlink;
    env.mkdir = full_mkdir;
    return &env;
}
