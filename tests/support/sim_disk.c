/*
 * sim_disk.c - a scree_env in memory that writes down what is done to it (sim_disk.h).
 *
 * WORD   none shared without the lock.   EDGES  every call is one critical section of d->lock.
 * INVARIANTS
 *   I1 an event is in the trace before the call that made it returns: who saw the return, and reads the number
 *      of events, gets one above it. A sync's is the last thing in the call, and covers what was done before
 *      the call began: others go on in between.
 *   I2 an inode keeps its bytes while it has a name or a handle; in the trace it lives on.
 * LIFETIME  the disk's.   PROGRESS  blocking: a mutex, never held over a wait.   FAILURE  is what it is for.
 * NOT HERE  what a cut leaves (sim_replay.c).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim_image.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SIM_HANDLES 512u

struct sim_inode {
    struct sim_file *file;
    uint32_t names, handles;
};

/* A handle is an open file, or a lock on a directory (then: inode 0, path). */
struct sim_handle {
    bool open, exclusive;
    uint32_t inode;
    int flags;
    char path[SIM_PATH_MAX];
};

struct sim_disk {
    pthread_mutex_t lock;
    scree_env env;
    struct sim_image *names; /* no bytes: inode 0 is a directory */
    struct sim_inode *inode;
    size_t inodes_cap;
    struct sim_handle handle[SIM_HANDLES];
    struct sim_trace trace;
    struct sim_event unrecorded; /* where one goes while nothing is recorded */
    bool recording;
    unsigned abilities;
    void (*watch)(void *ctx); /* both under the lock */
    void *watch_ctx;
    uint64_t used, limit; /* blocks, bytes */
    uint64_t random;
    struct kit_plan plan;
    uint64_t calls;
    unsigned hit;
    char hit_path[SIM_PATH_MAX]; /* of a write or a sync */
};

static char *
text_copy(const char *text)
{
    char *copy = strdup(text);

    KIT_CHECK(copy != NULL, "no memory for a name");
    return copy;
}

/* ---- inodes, the trace ---- */

static uint32_t
inode_new(struct sim_disk *d, struct sim_file *file)
{
    uint32_t number = ++d->trace.inodes;

    if (number >= d->inodes_cap) {
        d->inodes_cap = d->inodes_cap * 2 + 64;
        d->inode = realloc(d->inode, d->inodes_cap * sizeof(*d->inode));
        KIT_CHECK(d->inode != NULL, "no memory for inodes");
    }
    d->inode[number] = (struct sim_inode){.file = file, .names = 1};
    d->used += file->used;
    return number;
}

static void
inode_settle(struct sim_disk *d, uint32_t number) /* I2 */
{
    struct sim_inode *inode = &d->inode[number];

    if (inode->names == 0 && inode->handles == 0 && inode->file != NULL) {
        d->used -= inode->file->used;
        sim_file_drop(inode->file);
        inode->file = NULL;
    }
}

static struct sim_event *
event_add(struct sim_disk *d, enum sim_op op)
{
    struct sim_trace *t = &d->trace;

    if (!d->recording) {
        d->unrecorded = (struct sim_event){.op = op};
        return &d->unrecorded;
    }
    if (t->n == t->cap) {
        t->cap = t->cap * 2 + 256;
        t->event = realloc(t->event, t->cap * sizeof(*t->event));
        KIT_CHECK(t->event != NULL, "no memory for the trace");
    }
    t->event[t->n] = (struct sim_event){.op = op};
    return &t->event[t->n++];
}

static void
event_file(struct sim_disk *d, enum sim_op op, uint32_t inode, uint64_t offset, uint64_t len,
           const void *data)
{
    struct sim_event *event = event_add(d, op);

    event->inode = inode;
    event->offset = offset;
    event->len = len;
    if (data != NULL && d->recording) {
        event->data = malloc((size_t)len + 1);
        KIT_CHECK(event->data != NULL, "no memory for the trace");
        memcpy(event->data, data, (size_t)len);
    }
}

static void
event_name(struct sim_disk *d, enum sim_op op, uint32_t inode, const char *path, const char *to)
{
    struct sim_event *event = event_add(d, op);

    event->inode = inode;
    if (d->recording) {
        event->path = text_copy(path);
        event->to = to == NULL ? NULL : text_copy(to);
    }
}

/* ---- faults ---- */

static enum kit_fault
fault_of(struct sim_disk *d, enum kit_call kind)
{
    if ((d->plan.kinds & kind) == 0)
        return KIT_FAULT_NONE;
    d->calls++;
    if (d->plan.fault == KIT_FAULT_NONE || d->calls < d->plan.at)
        return KIT_FAULT_NONE;
    if (d->calls > d->plan.at)
        return d->plan.fault == KIT_FAULT_STUCK ? KIT_FAULT_CODE : KIT_FAULT_NONE;
    d->hit = kind;
    return d->plan.fault;
}

/* Before a call that changes something, outside of the lock. */
static void
watch_tell(struct sim_disk *d)
{
    void (*watch)(void *ctx);
    void *ctx;

    (void)pthread_mutex_lock(&d->lock);
    watch = d->watch;
    ctx = d->watch_ctx;
    (void)pthread_mutex_unlock(&d->lock);
    if (watch != NULL)
        watch(ctx);
}

/* A call that moves no bytes: 0, or what it is to return. A short count is none there. */
static int
call_begin(struct sim_disk *d, enum kit_call kind)
{
    enum kit_fault fault;

    if (kind & KIT_CHANGING)
        watch_tell(d);
    (void)pthread_mutex_lock(&d->lock);
    fault = fault_of(d, kind);
    return fault == KIT_FAULT_NONE || fault == KIT_FAULT_SHORT ? 0 : d->plan.code;
}

static int
call_end(struct sim_disk *d, int rc)
{
    (void)pthread_mutex_unlock(&d->lock);
    return rc;
}

/* A fault strikes once: the first time that the kind is set. */
static void
hit_note(struct sim_disk *d, int file, enum kit_call kind)
{
    if (d->hit == kind && d->hit_path[0] == '\0')
        memcpy(d->hit_path, d->handle[file].path, sizeof(d->hit_path));
}

static struct sim_inode *
handle_inode(struct sim_disk *d, int file)
{
    KIT_CHECK(file >= 1 && (unsigned)file < SIM_HANDLES && d->handle[file].open &&
                  d->handle[file].inode != 0,
              "file %d is not open", file);
    return &d->inode[d->handle[file].inode];
}

/* Would so many more blocks be too many? */
static bool
is_full(const struct sim_disk *d, uint64_t blocks)
{
    return d->limit != 0 && (d->used + blocks) * SIM_BLOCK > d->limit;
}

static uint64_t
blocks_missing(const struct sim_file *file, uint64_t offset, uint64_t len)
{
    uint64_t n = 0;

    for (uint64_t i = offset / SIM_BLOCK; i * SIM_BLOCK < offset + len; i++)
        n += !sim_file_block_there(file, i);
    return n;
}

/* ---- the calls ---- */

static int
handle_take(struct sim_disk *d, uint32_t inode, int flags, const char *path)
{
    for (int i = 1; i < (int)SIM_HANDLES; i++)
        if (!d->handle[i].open) {
            d->handle[i] = (struct sim_handle){.open = true, .inode = inode, .flags = flags};
            (void)snprintf(d->handle[i].path, sizeof(d->handle[i].path), "%s", path);
            return i;
        }
    return -EMFILE;
}

/* The path without empty parts, "." and ".."; false: too long. */
static bool
path_plain(const char *path, char plain[SIM_PATH_MAX])
{
    size_t len = 0;

    while (*path != '\0') {
        size_t n = strcspn(path, "/");

        if (n == 2 && strncmp(path, "..", 2) == 0)
            while (len > 0 && plain[--len] != '/')
                continue;
        else if (n > 1 || (n == 1 && *path != '.')) {
            if (len + n + 2 > SIM_PATH_MAX)
                return false;
            plain[len++] = '/';
            memcpy(plain + len, path, n);
            len += n;
        }
        path += n + (path[n] == '/');
    }
    if (len == 0)
        plain[len++] = '/';
    plain[len] = '\0';
    return true;
}

static bool
parent_there(struct sim_disk *d, const char *path)
{
    char parent[SIM_PATH_MAX];
    char *slash;
    const struct sim_entry *entry;

    (void)snprintf(parent, sizeof(parent), "%s", path);
    slash = strrchr(parent, '/');
    if (slash == NULL)
        return false;
    slash[slash == parent] = '\0';
    entry = sim_image_find(d->names, parent);
    return entry != NULL && entry->inode == 0;
}

/* The file's inode, made if it is to be; or -errno. */
static int64_t
open_inode(struct sim_disk *d, const char *path, int flags)
{
    struct sim_entry *entry = sim_image_find(d->names, path);
    uint32_t inode;

    if (entry != NULL && entry->inode == 0)
        return -EISDIR;
    if (entry != NULL)
        return (flags & SCREE_ENV_CREATE) && (flags & SCREE_ENV_EXCLUSIVE) ? -EEXIST
                                                                           : (int64_t)entry->inode;
    if (!(flags & SCREE_ENV_CREATE) || !parent_there(d, path))
        return -ENOENT;
    if (is_full(d, 1))
        return -ENOSPC;
    inode = inode_new(d, sim_file_new());
    sim_image_put(d->names, path, NULL)->inode = inode;
    event_name(d, SIM_OP_CREATE, inode, path, NULL);
    return inode;
}

static int
sim_open(void *ctx, const char *path, int flags)
{
    struct sim_disk *d = ctx;
    char plain[SIM_PATH_MAX];
    int64_t inode;
    int rc;

    if (flags & (SCREE_ENV_CREATE | SCREE_ENV_TRUNCATE))
        watch_tell(d);
    rc = call_begin(d, KIT_OPEN);
    if (rc == 0 && !path_plain(path, plain))
        rc = -ENAMETOOLONG;
    if (rc != 0)
        return call_end(d, rc);
    if ((flags & SCREE_ENV_DIRECT) && !(d->abilities & SIM_DIRECT))
        return call_end(d, -EINVAL);
    inode = open_inode(d, plain, flags);
    if (inode < 0)
        return call_end(d, (int)inode);
    rc = handle_take(d, (uint32_t)inode, flags, plain);
    if (rc < 0)
        return call_end(d, rc);
    d->inode[inode].handles++;
    if ((flags & SCREE_ENV_TRUNCATE) && d->inode[inode].file->size > 0) {
        struct sim_inode *file = &d->inode[inode];

        d->used -= file->file->used;
        file->file = sim_file_own(file->file);
        sim_file_resize(file->file, 0);
        d->used += file->file->used;
        event_file(d, SIM_OP_TRUNCATE, (uint32_t)inode, 0, 0, NULL);
    }
    return call_end(d, rc);
}

static int
sim_close(void *ctx, int file)
{
    struct sim_disk *d = ctx;
    struct sim_handle *handle;

    (void)pthread_mutex_lock(&d->lock);
    KIT_CHECK(file >= 1 && (unsigned)file < SIM_HANDLES && d->handle[file].open,
              "file %d is not open", file);
    handle = &d->handle[file];
    handle->open = false;
    if (handle->inode != 0) {
        d->inode[handle->inode].handles--;
        inode_settle(d, handle->inode);
    }
    return call_end(d, 0);
}

/* Direct files take whole blocks only. */
static bool
is_misaligned(const struct sim_disk *d, int file, const void *data, size_t len, uint64_t offset)
{
    return (d->handle[file].flags & SCREE_ENV_DIRECT) &&
           (((uintptr_t)data | len | offset) % SIM_SECTOR) != 0;
}

/* How much of len bytes a fault leaves: a half, in whole sectors for direct files. */
static size_t
short_count(const struct sim_disk *d, int file, size_t len)
{
    size_t half = len / 2;

    return d->handle[file].flags & SCREE_ENV_DIRECT ? half / SIM_SECTOR * SIM_SECTOR : half;
}

static int64_t
sim_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    struct sim_disk *d = ctx;
    enum kit_fault fault;
    int64_t n;

    (void)pthread_mutex_lock(&d->lock);
    fault = fault_of(d, KIT_READ);
    if (fault == KIT_FAULT_SHORT && len > 1)
        len = short_count(d, file, len);
    else if (fault != KIT_FAULT_NONE && fault != KIT_FAULT_SHORT) {
        n = d->plan.code;
        goto out;
    }
    if (is_misaligned(d, file, data, len, offset)) {
        n = -EINVAL;
        goto out;
    }
    n = (int64_t)sim_file_get(handle_inode(d, file)->file, offset, data, len);
out:
    (void)pthread_mutex_unlock(&d->lock);
    return n;
}

static int64_t
sim_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    struct sim_disk *d = ctx;
    enum kit_fault fault;
    struct sim_inode *inode;
    int64_t n = (int64_t)len;

    watch_tell(d);
    (void)pthread_mutex_lock(&d->lock);
    fault = fault_of(d, KIT_WRITE);
    inode = handle_inode(d, file);
    hit_note(d, file, KIT_WRITE);
    if ((fault == KIT_FAULT_SHORT || fault == KIT_FAULT_TEAR) && len > 1) {
        len = short_count(d, file, len);
        n = fault == KIT_FAULT_TEAR ? d->plan.code : (int64_t)len;
    } else if (fault != KIT_FAULT_NONE && fault != KIT_FAULT_SHORT) {
        n = d->plan.code;
        goto out;
    }
    if (!(d->handle[file].flags & SCREE_ENV_WRITE))
        n = -EBADF;
    else if (is_misaligned(d, file, data, len, offset))
        n = -EINVAL;
    else if (is_full(d, blocks_missing(inode->file, offset, len)))
        n = -ENOSPC;
    else if (len > 0) {
        d->used -= inode->file->used;
        inode->file = sim_file_own(inode->file);
        sim_file_set(inode->file, offset, data, len);
        d->used += inode->file->used;
        event_file(d, SIM_OP_WRITE, d->handle[file].inode, offset, len, data);
    }
out:
    (void)pthread_mutex_unlock(&d->lock);
    return n;
}

static int
sim_read_many(void *ctx, scree_env_read *reads, size_t n)
{
    for (size_t i = 0; i < n; i++)
        reads[i].result =
            (int32_t)sim_read(ctx, reads[i].file, reads[i].data, reads[i].len, reads[i].offset);
    return 0;
}

/* A sync has begun: others may go on, and what they do is not covered. How many events were before. */
static uint64_t
sync_begin(struct sim_disk *d)
{
    uint64_t before = d->trace.n;

    if (d->recording) {
        (void)pthread_mutex_unlock(&d->lock);
        (void)sched_yield();
        (void)pthread_mutex_lock(&d->lock);
    }
    return before;
}

static int
sim_sync(void *ctx, int file)
{
    struct sim_disk *d = ctx;
    int rc = call_begin(d, KIT_SYNC);
    uint32_t inode;
    uint64_t before;

    (void)handle_inode(d, file);
    hit_note(d, file, KIT_SYNC);
    inode = d->handle[file].inode;
    before = sync_begin(d);
    event_file(d, SIM_OP_SYNC, inode, before, 0, NULL);
    if (rc != 0 && d->recording)
        d->trace.event[d->trace.n - 1].failed = true;
    return call_end(d, rc);
}

enum change { CHANGE_ALLOCATE, CHANGE_PUNCH, CHANGE_TRUNCATE };

static int
file_change(struct sim_disk *d, int file, enum change change, uint64_t offset, uint64_t len)
{
    static const enum kit_call kind[] = {KIT_ALLOCATE, KIT_PUNCH, KIT_TRUNCATE};
    static const enum sim_op op[] = {SIM_OP_ALLOCATE, SIM_OP_PUNCH, SIM_OP_TRUNCATE};
    int rc = call_begin(d, kind[change]);
    struct sim_inode *inode = handle_inode(d, file);

    if (rc == 0 && !(d->handle[file].flags & SCREE_ENV_WRITE))
        rc = -EBADF;
    if (rc != 0)
        return call_end(d, rc);
    if (change == CHANGE_PUNCH && !(d->abilities & SIM_PUNCHES))
        return call_end(d, -EOPNOTSUPP);
    if (change == CHANGE_ALLOCATE && is_full(d, blocks_missing(inode->file, offset, len)))
        return call_end(d, -ENOSPC);
    d->used -= inode->file->used;
    inode->file = sim_file_own(inode->file);
    if (change == CHANGE_ALLOCATE)
        sim_file_room(inode->file, offset, len);
    else if (change == CHANGE_PUNCH)
        sim_file_punch(inode->file, offset, len);
    else
        sim_file_resize(inode->file, offset);
    d->used += inode->file->used;
    event_file(d, op[change], d->handle[file].inode, offset, len, NULL);
    return call_end(d, 0);
}

static int
sim_allocate(void *ctx, int file, uint64_t offset, uint64_t len)
{
    return file_change(ctx, file, CHANGE_ALLOCATE, offset, len);
}

static int
sim_punch(void *ctx, int file, uint64_t offset, uint64_t len)
{
    return file_change(ctx, file, CHANGE_PUNCH, offset, len);
}

static int
sim_truncate(void *ctx, int file, uint64_t len)
{
    return file_change(ctx, file, CHANGE_TRUNCATE, len, 0);
}

static int
sim_data_range(void *ctx, int file, uint64_t offset, uint64_t *begin_out, uint64_t *end_out)
{
    struct sim_disk *d = ctx;
    const struct sim_file *bytes;
    uint64_t at;

    (void)pthread_mutex_lock(&d->lock);
    bytes = handle_inode(d, file)->file;
    *begin_out = *end_out = bytes->size;
    at = offset;
    while (at < bytes->size && at / SIM_BLOCK < bytes->blocks_n &&
           !sim_file_block_there(bytes, at / SIM_BLOCK))
        at = (at / SIM_BLOCK + 1) * SIM_BLOCK;
    if (at < bytes->size && at / SIM_BLOCK < bytes->blocks_n) {
        *begin_out = at;
        while (at < bytes->size && sim_file_block_there(bytes, at / SIM_BLOCK))
            at = (at / SIM_BLOCK + 1) * SIM_BLOCK;
        *end_out = at < bytes->size ? at : bytes->size;
    }
    return call_end(d, 0);
}

static int
sim_info(void *ctx, int file, scree_env_info *info_out)
{
    struct sim_disk *d = ctx;
    int rc = call_begin(d, KIT_INFO);
    const struct sim_file *bytes = handle_inode(d, file)->file;

    if (rc == 0)
        *info_out =
            (scree_env_info){.size_bytes = bytes->size, .disk_bytes = bytes->used * SIM_BLOCK};
    return call_end(d, rc);
}

static int
sim_rename(void *ctx, const char *from_path, const char *to_path)
{
    struct sim_disk *d = ctx;
    int rc = call_begin(d, KIT_RENAME);
    const struct sim_entry *entry, *old;
    char from[SIM_PATH_MAX], to[SIM_PATH_MAX];
    uint32_t inode;

    if (rc == 0 && (!path_plain(from_path, from) || !path_plain(to_path, to)))
        rc = -ENAMETOOLONG;
    if (rc != 0)
        return call_end(d, rc);
    entry = sim_image_find(d->names, from);
    if (entry == NULL || !parent_there(d, to))
        return call_end(d, -ENOENT);
    KIT_CHECK(entry->inode != 0, "%s: directories are not renamed here", from);
    KIT_CHECK(strrchr(from, '/') - from == strrchr(to, '/') - to &&
                  strncmp(from, to, (size_t)(strrchr(to, '/') - to)) == 0,
              "%s to %s: only within a directory here", from, to);
    inode = entry->inode;
    old = sim_image_find(d->names, to);
    if (old != NULL && old->inode == 0)
        return call_end(d, -EISDIR);
    if (old != NULL && old->inode != inode) {
        d->inode[old->inode].names--;
        inode_settle(d, old->inode);
    }
    sim_image_take(d->names, from);
    sim_image_put(d->names, to, NULL)->inode = inode;
    event_name(d, SIM_OP_RENAME, inode, from, to);
    return call_end(d, 0);
}

static int
sim_unlink(void *ctx, const char *given)
{
    struct sim_disk *d = ctx;
    int rc = call_begin(d, KIT_UNLINK);
    char path[SIM_PATH_MAX];
    const struct sim_entry *entry;

    if (rc == 0 && !path_plain(given, path))
        rc = -ENAMETOOLONG;
    if (rc != 0)
        return call_end(d, rc);
    entry = sim_image_find(d->names, path);
    if (entry == NULL)
        return call_end(d, -ENOENT);
    if (entry->inode == 0)
        return call_end(d, -EISDIR);
    event_name(d, SIM_OP_UNLINK, entry->inode, path, NULL);
    d->inode[entry->inode].names--;
    inode_settle(d, entry->inode);
    sim_image_take(d->names, path);
    return call_end(d, 0);
}

static int
sim_mkdir(void *ctx, const char *given)
{
    struct sim_disk *d = ctx;
    int rc = call_begin(d, KIT_MKDIR);
    char path[SIM_PATH_MAX];

    if (rc == 0 && !path_plain(given, path))
        rc = -ENAMETOOLONG;
    if (rc != 0)
        return call_end(d, rc);
    if (sim_image_find(d->names, path) != NULL)
        return call_end(d, -EEXIST);
    if (!parent_there(d, path))
        return call_end(d, -ENOENT);
    if (is_full(d, 1))
        return call_end(d, -ENOSPC);
    sim_image_mkdir(d->names, path);
    event_name(d, SIM_OP_MKDIR, 0, path, NULL);
    return call_end(d, 0);
}

static int
sim_sync_dir(void *ctx, const char *given)
{
    struct sim_disk *d = ctx;
    int rc = call_begin(d, KIT_SYNC_DIR);
    char path[SIM_PATH_MAX];
    uint64_t before;

    if (!path_plain(given, path))
        return call_end(d, -ENAMETOOLONG);
    if (rc == 0 && sim_image_find(d->names, path) == NULL)
        return call_end(d, -ENOENT);
    before = sync_begin(d);
    event_name(d, SIM_OP_SYNC_DIR, 0, path, NULL);
    if (d->recording) {
        d->trace.event[d->trace.n - 1].failed = rc != 0;
        d->trace.event[d->trace.n - 1].offset = before;
    }
    return call_end(d, rc);
}

static int
sim_list(void *ctx, const char *given, int (*visit)(void *visit_ctx, const char *name),
         void *visit_ctx)
{
    struct sim_disk *d = ctx;
    struct sim_image *names;
    char path[SIM_PATH_MAX];
    size_t len, from;
    int rc = call_begin(d, KIT_LIST);

    if (rc == 0 && (!path_plain(given, path) || sim_image_find(d->names, path) == NULL))
        rc = -ENOENT;
    if (rc != 0)
        return call_end(d, rc);
    names = sim_image_clone(d->names);      /* visitors may call us */
    from = kit_below(&d->random, names->n); /* no order can be relied on */
    (void)call_end(d, 0);
    len = strcmp(path, "/") == 0 ? 0 : strlen(path);
    for (size_t i = 0; i < names->n && rc == 0; i++) {
        const char *entry = names->entry[(from + i) % names->n].path;

        if (strncmp(entry, path, len) == 0 && entry[len] == '/' && entry[len + 1] != '\0' &&
            strchr(entry + len + 1, '/') == NULL)
            rc = visit(visit_ctx, entry + len + 1);
    }
    sim_image_free(names);
    return rc;
}

static int
sim_lock(void *ctx, const char *given, int shared, int64_t *holder_out)
{
    struct sim_disk *d = ctx;
    int rc = call_begin(d, KIT_LOCK);
    char path[SIM_PATH_MAX];

    *holder_out = 0;
    if (rc == 0 && (!path_plain(given, path) || sim_image_find(d->names, path) == NULL))
        rc = -ENOENT;
    for (unsigned i = 1; i < SIM_HANDLES && rc == 0; i++) {
        const struct sim_handle *handle = &d->handle[i];

        if (handle->open && handle->inode == 0 && strcmp(handle->path, path) == 0 &&
            (handle->exclusive || !shared)) {
            *holder_out = getpid();
            rc = -EWOULDBLOCK;
        }
    }
    if (rc == 0) {
        rc = handle_take(d, 0, 0, path);
        if (rc > 0)
            d->handle[rc].exclusive = !shared;
    }
    return call_end(d, rc);
}

static uint64_t
sim_now_ns(void *ctx)
{
    struct timespec t;

    (void)ctx;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int
sim_random(void *ctx, void *data, size_t len)
{
    struct sim_disk *d = ctx;
    int rc = call_begin(d, KIT_RANDOM);

    for (size_t i = 0; i < len && rc == 0; i++)
        ((unsigned char *)data)[i] = (unsigned char)kit_random(&d->random);
    return call_end(d, rc);
}

static int
sim_clone(void *ctx, int from_file, uint64_t from_offset, uint64_t len, int to_file,
          uint64_t to_offset)
{
    unsigned char bytes[SIM_BLOCK];

    for (uint64_t done = 0; done < len;) {
        uint64_t left = len - done;
        int64_t n =
            sim_read(ctx, from_file, bytes, left < SIM_BLOCK ? (size_t)left : (size_t)SIM_BLOCK,
                     from_offset + done);
        int64_t put = n <= 0 ? n : sim_write(ctx, to_file, bytes, (size_t)n, to_offset + done);

        if (put <= 0)
            return put < 0 ? (int)put : -EINVAL;
        done += (uint64_t)put;
    }
    return 0;
}

/* ---- disks ---- */

static const scree_env calls = {
    .size = sizeof(scree_env),
    .open = sim_open,
    .close = sim_close,
    .read = sim_read,
    .write = sim_write,
    .read_many = sim_read_many,
    .sync = sim_sync,
    .allocate = sim_allocate,
    .punch = sim_punch,
    .data_range = sim_data_range,
    .truncate = sim_truncate,
    .info = sim_info,
    .rename = sim_rename,
    .unlink = sim_unlink,
    .mkdir = sim_mkdir,
    .sync_dir = sim_sync_dir,
    .list = sim_list,
    .lock = sim_lock,
    .now_ns = sim_now_ns,
    .random = sim_random,
};

struct sim_disk *
sim_disk_new(const struct sim_image *image, uint64_t seed)
{
    struct sim_disk *d = calloc(1, sizeof(*d));

    KIT_CHECK(d != NULL, "no memory for a disk");
    (void)pthread_mutex_init(&d->lock, NULL);
    d->env = calls;
    d->env.ctx = d;
    d->recording = true;
    d->abilities = SIM_PUNCHES;
    d->random = seed;
    d->trace.base = image == NULL ? sim_image_new() : sim_image_clone(image);
    d->names = sim_image_new();
    for (size_t i = 0; i < d->trace.base->n; i++) {
        struct sim_entry *entry = &d->trace.base->entry[i];
        struct sim_entry *name = sim_image_put(d->names, entry->path, NULL);

        if (entry->file != NULL)
            entry->inode = name->inode = inode_new(d, sim_file_share(entry->file));
    }
    return d;
}

void
sim_disk_free(struct sim_disk *d)
{
    if (d == NULL)
        return;
    for (uint32_t i = 1; i <= d->trace.inodes; i++)
        sim_file_drop(d->inode[i].file);
    free(d->inode);
    for (size_t i = 0; i < d->trace.n; i++) {
        free(d->trace.event[i].data);
        free(d->trace.event[i].path);
        free(d->trace.event[i].to);
    }
    free(d->trace.event);
    sim_image_free(d->trace.base);
    sim_image_free(d->names);
    (void)pthread_mutex_destroy(&d->lock);
    free(d);
}

const scree_env *
sim_disk_env(struct sim_disk *d)
{
    return &d->env;
}

struct sim_image *
sim_disk_image(struct sim_disk *d)
{
    struct sim_image *image;

    (void)pthread_mutex_lock(&d->lock);
    image = sim_image_clone(d->names);
    for (size_t i = 0; i < image->n; i++) {
        uint32_t inode = image->entry[i].inode;

        image->entry[i].inode = 0;
        if (inode != 0)
            image->entry[i].file = sim_file_share(d->inode[inode].file);
    }
    (void)pthread_mutex_unlock(&d->lock);
    return image;
}

uint64_t
sim_disk_events(struct sim_disk *d)
{
    uint64_t n;

    (void)pthread_mutex_lock(&d->lock);
    n = d->trace.n;
    (void)pthread_mutex_unlock(&d->lock);
    return n;
}

void
sim_disk_record(struct sim_disk *d, bool on)
{
    (void)pthread_mutex_lock(&d->lock);
    d->recording = on;
    (void)pthread_mutex_unlock(&d->lock);
}

void
sim_disk_watch(struct sim_disk *d, void (*watch)(void *ctx), void *ctx)
{
    (void)pthread_mutex_lock(&d->lock);
    d->watch = watch;
    d->watch_ctx = ctx;
    (void)pthread_mutex_unlock(&d->lock);
}

void
sim_disk_plan(struct sim_disk *d, const struct kit_plan *plan)
{
    KIT_CHECK(plan->fault != KIT_FAULT_KILL, "a disk in memory is cut, not killed");
    (void)pthread_mutex_lock(&d->lock);
    d->plan = *plan;
    d->calls = 0;
    d->hit = 0;
    d->hit_path[0] = '\0';
    (void)pthread_mutex_unlock(&d->lock);
}

void
sim_disk_heal(struct sim_disk *d)
{
    (void)pthread_mutex_lock(&d->lock);
    d->plan.fault = KIT_FAULT_NONE;
    (void)pthread_mutex_unlock(&d->lock);
}

uint64_t
sim_disk_calls(struct sim_disk *d)
{
    uint64_t n;

    (void)pthread_mutex_lock(&d->lock);
    n = d->calls;
    (void)pthread_mutex_unlock(&d->lock);
    return n;
}

unsigned
sim_disk_hit(struct sim_disk *d)
{
    unsigned kind;

    (void)pthread_mutex_lock(&d->lock);
    kind = d->hit;
    (void)pthread_mutex_unlock(&d->lock);
    return kind;
}

bool
sim_disk_hit_in(struct sim_disk *d, const char *prefix)
{
    bool in;

    (void)pthread_mutex_lock(&d->lock);
    in = d->hit_path[0] != '\0' && strncmp(d->hit_path, prefix, strlen(prefix)) == 0;
    (void)pthread_mutex_unlock(&d->lock);
    return in;
}

void
sim_disk_limit(struct sim_disk *d, uint64_t bytes)
{
    (void)pthread_mutex_lock(&d->lock);
    d->limit = bytes;
    (void)pthread_mutex_unlock(&d->lock);
}

uint64_t
sim_disk_used(struct sim_disk *d)
{
    uint64_t blocks;

    (void)pthread_mutex_lock(&d->lock);
    blocks = d->used;
    (void)pthread_mutex_unlock(&d->lock);
    return blocks * SIM_BLOCK;
}

void
sim_disk_abilities(struct sim_disk *d, unsigned abilities)
{
    (void)pthread_mutex_lock(&d->lock);
    d->abilities = abilities;
    d->env.clone = abilities & SIM_CLONES ? sim_clone : NULL;
    (void)pthread_mutex_unlock(&d->lock);
}

const struct sim_trace *
sim_disk_trace(const struct sim_disk *d)
{
    return &d->trace;
}

/* ---- once more ---- */

static void
redo_data(struct sim_disk *d, const struct sim_event *event, uint32_t number)
{
    struct sim_inode *inode = &d->inode[number];

    if (number == 0 || inode->file == NULL)
        return;
    d->used -= inode->file->used;
    inode->file = sim_file_own(inode->file);
    switch (event->op) {
    case SIM_OP_WRITE:
        sim_file_set(inode->file, event->offset, event->data, (size_t)event->len);
        break;
    case SIM_OP_ALLOCATE:
        sim_file_room(inode->file, event->offset, event->len);
        break;
    case SIM_OP_PUNCH:
        sim_file_punch(inode->file, event->offset, event->len);
        break;
    case SIM_OP_TRUNCATE:
        sim_file_resize(inode->file, event->offset);
        break;
    default:
        break;
    }
    d->used += inode->file->used;
    event_file(d, event->op, number, event->offset, event->len, event->data);
}

/* Takes the name away from its file, if it has one. */
static void
redo_unname(struct sim_disk *d, const char *path)
{
    const struct sim_entry *entry = sim_image_find(d->names, path);

    if (entry == NULL || entry->inode == 0)
        return;
    d->inode[entry->inode].names--;
    inode_settle(d, entry->inode);
    sim_image_take(d->names, path);
}

static void
redo_name(struct sim_disk *d, const struct sim_event *event, uint32_t *map)
{
    uint32_t number = map[event->inode];

    if (event->op == SIM_OP_MKDIR) {
        sim_image_mkdir(d->names, event->path);
    } else if (event->op == SIM_OP_CREATE) {
        number = map[event->inode] = inode_new(d, sim_file_new());
        sim_image_put(d->names, event->path, NULL)->inode = number;
    } else if (event->op == SIM_OP_UNLINK) {
        redo_unname(d, event->path);
    } else {
        d->inode[number].names++; /* while it has two names, or one less */
        redo_unname(d, event->to);
        redo_unname(d, event->path);
        sim_image_put(d->names, event->to, NULL)->inode = number;
    }
    event_name(d, event->op, number, event->path, event->to);
}

void
sim_disk_redo(struct sim_disk *d, const struct sim_event *event, uint32_t *map)
{
    (void)pthread_mutex_lock(&d->lock);
    if (event->op <= SIM_OP_TRUNCATE)
        redo_data(d, event, map[event->inode]);
    else if (event->op >= SIM_OP_CREATE && event->op <= SIM_OP_MKDIR)
        redo_name(d, event, map);
    else {
        if (event->op == SIM_OP_SYNC)
            event_file(d, SIM_OP_SYNC, map[event->inode], 0, 0, NULL);
        else
            event_name(d, SIM_OP_SYNC_DIR, 0, event->path, NULL);
        d->trace.event[d->trace.n - 1].offset = d->trace.n - 1; /* covers all before it */
        d->trace.event[d->trace.n - 1].failed = event->failed;
    }
    (void)pthread_mutex_unlock(&d->lock);
}
