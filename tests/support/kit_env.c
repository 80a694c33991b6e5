/*
 * kit_env.c - a scree_env that counts calls and lets the n-th go wrong; everything else is POSIX.
 *
 * WORD   calls: counted calls since the plan.   hit: the kind of the call that failed, 0 = none yet.
 * EDGES  step                    who         order               if it loses
 *   E0   calls + 1               any thread  fetch_add relaxed   cannot: each call has its own number
 *   E1   hit 0 -> kind           the n-th    store release       cannot: one call has the number
 * INVARIANTS  I1 the plan itself changes only while no cache is open: plain memory.
 * LIFETIME  static.   PROGRESS  wait-free.   FAILURE  is what it is for.   NOT HERE  power cuts.
 */
#include "kit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static struct kit_plan plan_now;
static _Atomic uint64_t calls;
static _Atomic unsigned hit;
static pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;

void
kit_env_plan(const struct kit_plan *plan)
{
    plan_now = *plan;
    atomic_store_explicit(&calls, 0, memory_order_relaxed);
    atomic_store_explicit(&hit, 0, memory_order_relaxed);
}

uint64_t
kit_env_calls(void)
{
    return atomic_load_explicit(&calls, memory_order_relaxed);
}

unsigned
kit_env_hit_kind(void)
{
    return atomic_load_explicit(&hit, memory_order_acquire);
}

bool
kit_env_hit(void)
{
    return kit_env_hit_kind() != 0;
}

void
kit_env_hold(void)
{
    (void)pthread_mutex_lock(&hold);
}

void
kit_env_release(void)
{
    (void)pthread_mutex_unlock(&hold);
}

_Noreturn static void
die(void)
{
    kit_env_hold(); /* and never released */
    _exit(KIT_KILLED);
}

/* What is to happen to this call. */
static enum kit_fault
fault_of(enum kit_call kind)
{
    uint64_t number;

    if ((plan_now.kinds & kind) == 0)
        return KIT_FAULT_NONE;
    number = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1; /* E0 */
    if (plan_now.fault == KIT_FAULT_NONE || number < plan_now.at)
        return KIT_FAULT_NONE;
    if (number > plan_now.at)
        return plan_now.fault == KIT_FAULT_STUCK ? KIT_FAULT_CODE : KIT_FAULT_NONE;
    atomic_store_explicit(&hit, (unsigned)kind, memory_order_release); /* E1 */
    if (plan_now.fault == KIT_FAULT_KILL && kind != KIT_WRITE)
        die();
    return plan_now.fault;
}

/* Calls that move no bytes: short counts and torn writes are plain failures there. */
#define GUARD(kind)                            \
    do {                                       \
        enum kit_fault fault = fault_of(kind); \
        (void)ctx;                             \
        if (fault == KIT_FAULT_SHORT)          \
            break;                             \
        if (fault != KIT_FAULT_NONE)           \
            return plan_now.code;              \
    } while (0)

static const scree_env *posix_env;

static int
env_open(void *ctx, const char *path, int flags)
{
    GUARD(KIT_OPEN);
    return posix_env->open(posix_env->ctx, path, flags);
}

static int
env_close(void *ctx, int file)
{
    (void)ctx;
    return posix_env->close(posix_env->ctx, file);
}

static int64_t
env_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    enum kit_fault fault = fault_of(KIT_READ);

    (void)ctx;
    if (fault == KIT_FAULT_SHORT && len > 1)
        len = len >= 8192 ? len / 2 / 4096 * 4096 : len / 2;
    else if (fault != KIT_FAULT_NONE)
        return plan_now.code;
    return posix_env->read(posix_env->ctx, file, data, len, offset);
}

static int64_t
env_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    enum kit_fault fault = fault_of(KIT_WRITE);
    size_t part = len >= 8192 ? len / 2 / 4096 * 4096 : len / 2;

    (void)ctx;
    if (fault == KIT_FAULT_CODE || fault == KIT_FAULT_STUCK)
        return plan_now.code;
    if (fault == KIT_FAULT_SHORT || fault == KIT_FAULT_TEAR || fault == KIT_FAULT_KILL) {
        int64_t done = part > 0 ? posix_env->write(posix_env->ctx, file, data, part, offset) : 0;

        if (fault == KIT_FAULT_KILL)
            die();
        if (fault == KIT_FAULT_TEAR || done <= 0)
            return plan_now.code;
        return done;
    }
    return posix_env->write(posix_env->ctx, file, data, len, offset);
}

static int
env_read_many(void *ctx, scree_env_read *reads, size_t n)
{
    enum kit_fault fault = fault_of(KIT_READ);
    int result;

    (void)ctx;
    if (fault != KIT_FAULT_NONE && fault != KIT_FAULT_SHORT)
        return plan_now.code;
    result = posix_env->read_many(posix_env->ctx, reads, n);
    if (fault == KIT_FAULT_SHORT && result >= 0 && n > 0 && reads[n - 1].result > 1)
        reads[n - 1].result /= 2;
    return result;
}

static int
env_sync(void *ctx, int file)
{
    GUARD(KIT_SYNC);
    return posix_env->sync(posix_env->ctx, file);
}

static int
env_allocate(void *ctx, int file, uint64_t offset, uint64_t len)
{
    GUARD(KIT_ALLOCATE);
    return posix_env->allocate(posix_env->ctx, file, offset, len);
}

static int
env_punch(void *ctx, int file, uint64_t offset, uint64_t len)
{
    GUARD(KIT_PUNCH);
    return posix_env->punch(posix_env->ctx, file, offset, len);
}

static int
env_data_range(void *ctx, int file, uint64_t offset, uint64_t *begin_out, uint64_t *end_out)
{
    (void)ctx;
    return posix_env->data_range(posix_env->ctx, file, offset, begin_out, end_out);
}

static int
env_truncate(void *ctx, int file, uint64_t len)
{
    GUARD(KIT_TRUNCATE);
    return posix_env->truncate(posix_env->ctx, file, len);
}

static int
env_info(void *ctx, int file, scree_env_info *info_out)
{
    GUARD(KIT_INFO);
    return posix_env->info(posix_env->ctx, file, info_out);
}

static int
env_rename(void *ctx, const char *from, const char *to)
{
    GUARD(KIT_RENAME);
    return posix_env->rename(posix_env->ctx, from, to);
}

static int
env_unlink(void *ctx, const char *path)
{
    GUARD(KIT_UNLINK);
    return posix_env->unlink(posix_env->ctx, path);
}

static int
env_mkdir(void *ctx, const char *path)
{
    GUARD(KIT_MKDIR);
    return posix_env->mkdir(posix_env->ctx, path);
}

static int
env_sync_dir(void *ctx, const char *path)
{
    GUARD(KIT_SYNC_DIR);
    return posix_env->sync_dir(posix_env->ctx, path);
}

static int
env_list(void *ctx, const char *path, int (*visit)(void *, const char *), void *visit_ctx)
{
    GUARD(KIT_LIST);
    return posix_env->list(posix_env->ctx, path, visit, visit_ctx);
}

static int
env_lock(void *ctx, const char *path, int shared, int64_t *holder_out)
{
    *holder_out = 0;
    GUARD(KIT_LOCK);
    return posix_env->lock(posix_env->ctx, path, shared, holder_out);
}

static uint64_t
env_now_ns(void *ctx)
{
    (void)ctx;
    return posix_env->now_ns(posix_env->ctx);
}

static int
env_random(void *ctx, void *data, size_t len)
{
    GUARD(KIT_RANDOM);
    return posix_env->random(posix_env->ctx, data, len);
}

const scree_env *
kit_env(void)
{
    static const scree_env env = {
        .size = sizeof(scree_env),
        .ctx = NULL,
        .open = env_open,
        .close = env_close,
        .read = env_read,
        .write = env_write,
        .read_many = env_read_many,
        .sync = env_sync,
        .allocate = env_allocate,
        .punch = env_punch,
        .data_range = env_data_range,
        .truncate = env_truncate,
        .info = env_info,
        .rename = env_rename,
        .unlink = env_unlink,
        .mkdir = env_mkdir,
        .sync_dir = env_sync_dir,
        .list = env_list,
        .lock = env_lock,
        .now_ns = env_now_ns,
        .random = env_random,
    };

    posix_env = scree_env_posix();
    return &env;
}
