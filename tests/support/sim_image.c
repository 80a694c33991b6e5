/*
 * sim_image.c - directories at rest: names, and files as blocks that copies share until one is written to.
 *
 * WORD   refs of files and blocks: owners.   EDGES  take: fetch_add relaxed; drop: fetch_sub acq_rel, who takes
 *        it to 0 frees. A block's hash: relaxed, whoever makes it makes the same.
 * INVARIANTS  I1 what has more than one owner is not written to.
 *        I2 behind its size a file's blocks hold zeros.
 * LIFETIME  counted.   PROGRESS  wait-free.   FAILURE  no memory ends the run.   NOT HERE  what a cut leaves.
 */
#include "sim_image.h"

#include <dirent.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#define HASH_ZEROS 1u

/* hash: of the bytes, made when it is first asked for; 0: not yet; HASH_ZEROS: all are 0. */
struct sim_bytes {
    _Atomic uint32_t refs;
    _Atomic uint64_t hash;
    unsigned char bytes[SIM_BLOCK];
};

static void *
take_memory(size_t n)
{
    void *p = calloc(1, n);

    KIT_CHECK(p != NULL, "no memory for %zu bytes", n);
    return p;
}

/* ---- files ---- */

struct sim_file *
sim_file_new(void)
{
    struct sim_file *file = take_memory(sizeof(*file));

    atomic_init(&file->refs, 1);
    return file;
}

struct sim_file *
sim_file_share(struct sim_file *file)
{
    (void)atomic_fetch_add_explicit(&file->refs, 1, memory_order_relaxed);
    return file;
}

static void
block_drop(struct sim_bytes *block)
{
    if (block != NULL && atomic_fetch_sub_explicit(&block->refs, 1, memory_order_acq_rel) == 1)
        free(block);
}

void
sim_file_drop(struct sim_file *file)
{
    if (file == NULL || atomic_fetch_sub_explicit(&file->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < file->blocks_n; i++)
        block_drop(file->blocks[i]);
    free(file->blocks);
    free(file);
}

struct sim_file *
sim_file_own(struct sim_file *file)
{
    struct sim_file *copy;

    if (atomic_load_explicit(&file->refs, memory_order_acquire) == 1)
        return file;
    copy = sim_file_new();
    copy->size = file->size;
    copy->blocks_n = file->blocks_n;
    copy->used = file->used;
    copy->blocks = take_memory(file->blocks_n * sizeof(*copy->blocks) + 1);
    for (size_t i = 0; i < file->blocks_n; i++) {
        copy->blocks[i] = file->blocks[i];
        if (copy->blocks[i] != NULL)
            (void)atomic_fetch_add_explicit(&copy->blocks[i]->refs, 1, memory_order_relaxed);
    }
    sim_file_drop(file);
    return copy;
}

/* The block at this index, to be written to: there, and nobody else's. */
static unsigned char *
block_own(struct sim_file *file, uint64_t index)
{
    struct sim_bytes *block, *own;

    if (index >= file->blocks_n) {
        size_t n = (size_t)index + 1 + file->blocks_n / 2;

        file->blocks = realloc(file->blocks, n * sizeof(*file->blocks));
        KIT_CHECK(file->blocks != NULL, "no memory for %zu blocks", n);
        memset(file->blocks + file->blocks_n, 0, (n - file->blocks_n) * sizeof(*file->blocks));
        file->blocks_n = n;
    }
    block = file->blocks[index];
    if (block != NULL && atomic_load_explicit(&block->refs, memory_order_acquire) == 1) {
        atomic_store_explicit(&block->hash, 0, memory_order_relaxed); /* ours alone */
        return block->bytes;
    }
    own = malloc(sizeof(*own));
    KIT_CHECK(own != NULL, "no memory for a block");
    atomic_init(&own->refs, 1);
    atomic_init(&own->hash, 0);
    if (block == NULL) {
        memset(own->bytes, 0, SIM_BLOCK);
        file->used++;
    } else {
        memcpy(own->bytes, block->bytes, SIM_BLOCK);
        block_drop(block);
    }
    file->blocks[index] = own;
    return own->bytes;
}

bool
sim_file_block_there(const struct sim_file *file, uint64_t index)
{
    return index < file->blocks_n && file->blocks[index] != NULL;
}

size_t
sim_file_get(const struct sim_file *file, uint64_t offset, void *data, size_t n)
{
    size_t done = 0;

    if (offset >= file->size)
        return 0;
    if (n > file->size - offset)
        n = (size_t)(file->size - offset);
    while (done < n) {
        uint64_t at = offset + done;
        size_t in = (size_t)(at % SIM_BLOCK), part = SIM_BLOCK - in;

        part = part < n - done ? part : n - done;
        if (sim_file_block_there(file, at / SIM_BLOCK))
            memcpy((unsigned char *)data + done, file->blocks[at / SIM_BLOCK]->bytes + in, part);
        else
            memset((unsigned char *)data + done, 0, part);
        done += part;
    }
    return n;
}

void
sim_file_set(struct sim_file *file, uint64_t offset, const void *data, size_t n)
{
    for (size_t done = 0; done < n;) {
        uint64_t at = offset + done;
        size_t in = (size_t)(at % SIM_BLOCK), part = SIM_BLOCK - in;

        part = part < n - done ? part : n - done;
        memcpy(block_own(file, at / SIM_BLOCK) + in, (const unsigned char *)data + done, part);
        done += part;
    }
    if (n > 0 && offset + n > file->size)
        file->size = offset + n;
}

void
sim_file_room(struct sim_file *file, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset / SIM_BLOCK; i * SIM_BLOCK < offset + len; i++)
        if (!sim_file_block_there(file, i))
            (void)block_own(file, i);
    if (offset + len > file->size)
        file->size = offset + len;
}

void
sim_file_punch(struct sim_file *file, uint64_t offset, uint64_t len)
{
    uint64_t end = offset + len < file->size ? offset + len : file->size;

    if (end / SIM_BLOCK > file->blocks_n) /* nothing is there */
        end = file->blocks_n * SIM_BLOCK;
    for (uint64_t at = offset; at < end;) {
        uint64_t index = at / SIM_BLOCK, stop = (index + 1) * SIM_BLOCK;

        if (sim_file_block_there(file, index)) {
            if (at % SIM_BLOCK == 0 && offset + len >= stop) {
                block_drop(file->blocks[index]);
                file->blocks[index] = NULL;
                file->used--;
            } else
                memset(block_own(file, index) + at % SIM_BLOCK, 0,
                       (size_t)((stop < end ? stop : end) - at));
        }
        at = stop;
    }
}

void
sim_file_resize(struct sim_file *file, uint64_t size)
{
    if (size < file->size) {
        sim_file_punch(file, size, file->size - size);
        for (uint64_t i = (size + SIM_BLOCK - 1) / SIM_BLOCK; i < file->blocks_n; i++)
            if (file->blocks[i] != NULL) {
                block_drop(file->blocks[i]);
                file->blocks[i] = NULL;
                file->used--;
            }
    }
    file->size = size;
}

/* Two threads that ask at a time find the same. */
static uint64_t
block_hash(struct sim_bytes *block)
{
    static const unsigned char zeros[SIM_BLOCK];
    uint64_t hash = atomic_load_explicit(&block->hash, memory_order_relaxed);

    if (hash != 0)
        return hash;
    hash = memcmp(block->bytes, zeros, SIM_BLOCK) == 0 ? HASH_ZEROS
                                                       : kit_hash(block->bytes, SIM_BLOCK, 1) | 2;
    atomic_store_explicit(&block->hash, hash, memory_order_relaxed);
    return hash;
}

/* I2: whole blocks, whatever the size. */
static uint64_t
file_hash(const struct sim_file *file)
{
    uint64_t hash = file->size * 0x9E3779B97F4A7C15u + 1;

    for (uint64_t i = 0; i < file->blocks_n && i * SIM_BLOCK < file->size; i++) {
        uint64_t block = file->blocks[i] == NULL ? HASH_ZEROS : block_hash(file->blocks[i]);
        uint64_t word = block ^ i << 1;

        if (block != HASH_ZEROS)
            hash = (hash ^ kit_random(&word)) * 0xBF58476D1CE4E5B9u;
    }
    return hash;
}

/* ---- images ---- */

struct sim_image *
sim_image_new(void)
{
    struct sim_image *image = take_memory(sizeof(*image));

    sim_image_put(image, "/", NULL);
    return image;
}

struct sim_image *
sim_image_clone(const struct sim_image *image)
{
    struct sim_image *copy = take_memory(sizeof(*copy));

    copy->n = copy->cap = image->n;
    copy->entry = take_memory(image->n * sizeof(*copy->entry));
    for (size_t i = 0; i < image->n; i++) {
        copy->entry[i] = image->entry[i];
        if (copy->entry[i].file != NULL)
            sim_file_share(copy->entry[i].file);
    }
    return copy;
}

void
sim_image_free(struct sim_image *image)
{
    if (image == NULL)
        return;
    for (size_t i = 0; i < image->n; i++)
        sim_file_drop(image->entry[i].file);
    free(image->entry);
    free(image);
}

/* Where the name is, or would be. */
static size_t
entry_at(const struct sim_image *image, const char *path, bool *there_out)
{
    size_t low = 0, high = image->n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (strcmp(image->entry[middle].path, path) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *there_out = low < image->n && strcmp(image->entry[low].path, path) == 0;
    return low;
}

struct sim_entry *
sim_image_find(const struct sim_image *image, const char *path)
{
    bool there;
    size_t at = entry_at(image, path, &there);

    return there ? &image->entry[at] : NULL;
}

struct sim_entry *
sim_image_put(struct sim_image *image, const char *path, struct sim_file *file)
{
    bool there;
    size_t at = entry_at(image, path, &there);

    if (!there) {
        if (image->n == image->cap) {
            image->cap = image->cap * 2 + 16;
            image->entry = realloc(image->entry, image->cap * sizeof(*image->entry));
            KIT_CHECK(image->entry != NULL, "no memory for names");
        }
        memmove(image->entry + at + 1, image->entry + at, (image->n - at) * sizeof(*image->entry));
        image->n++;
        KIT_CHECK(strlen(path) < sizeof(image->entry[at].path), "%s: a long name", path);
        memset(&image->entry[at], 0, sizeof(image->entry[at]));
        strcpy(image->entry[at].path, path);
    } else
        sim_file_drop(image->entry[at].file);
    image->entry[at].file = file;
    image->entry[at].inode = 0;
    return &image->entry[at];
}

void
sim_image_take(struct sim_image *image, const char *path)
{
    bool there;
    size_t at = entry_at(image, path, &there);

    if (!there)
        return;
    sim_file_drop(image->entry[at].file);
    image->n--;
    memmove(image->entry + at, image->entry + at + 1, (image->n - at) * sizeof(*image->entry));
}

uint64_t
sim_image_hash(const struct sim_image *image)
{
    uint64_t hash = 7;

    for (size_t i = 0; i < image->n; i++) {
        const struct sim_entry *entry = &image->entry[i];

        hash = kit_hash(entry->path, strlen(entry->path), hash);
        hash = hash * 31 + (entry->file == NULL ? 3 : file_hash(entry->file));
    }
    return hash;
}

size_t
sim_image_files(const struct sim_image *image)
{
    size_t n = 0;

    for (size_t i = 0; i < image->n; i++)
        n += image->entry[i].file != NULL;
    return n;
}

/* The i-th that is a file. */
static struct sim_entry *
file_entry(const struct sim_image *image, size_t i)
{
    for (size_t at = 0; at < image->n; at++)
        if (image->entry[at].file != NULL && i-- == 0)
            return &image->entry[at];
    KIT_CHECK(false, "no such file in the image");
}

const char *
sim_image_name(const struct sim_image *image, size_t i, uint64_t *size_out)
{
    const struct sim_entry *entry = file_entry(image, i);

    if (size_out != NULL)
        *size_out = entry->file->size;
    return entry->path;
}

size_t
sim_image_get(const struct sim_image *image, size_t i, uint64_t offset, void *data, size_t n)
{
    return sim_file_get(file_entry(image, i)->file, offset, data, n);
}

void
sim_image_set(struct sim_image *image, size_t i, uint64_t offset, const void *data, size_t n)
{
    struct sim_entry *entry = file_entry(image, i);

    if (offset >= entry->file->size)
        return;
    if (n > entry->file->size - offset)
        n = (size_t)(entry->file->size - offset);
    entry->file = sim_file_own(entry->file);
    sim_file_set(entry->file, offset, data, n);
}

void
sim_image_resize(struct sim_image *image, size_t i, uint64_t size)
{
    struct sim_entry *entry = file_entry(image, i);

    entry->file = sim_file_own(entry->file);
    sim_file_resize(entry->file, size);
}

void
sim_image_remove(struct sim_image *image, size_t i)
{
    char path[SIM_PATH_MAX];

    strcpy(path, file_entry(image, i)->path);
    sim_image_take(image, path);
}

void
sim_image_add(struct sim_image *image, const char *path, const void *data, size_t n)
{
    struct sim_file *file = sim_file_new();

    sim_file_set(file, 0, data, n);
    (void)sim_image_put(image, path, file);
}

void
sim_image_mkdir(struct sim_image *image, const char *path)
{
    (void)sim_image_put(image, path, NULL);
}

void
sim_image_export(const struct sim_image *image, const char *at, const char *dir)
{
    size_t len = strlen(at);

    KIT_CHECK(mkdir(dir, 0700) == 0, "%s: cannot make it", dir);
    for (size_t i = 0; i < image->n; i++) {
        const struct sim_entry *entry = &image->entry[i];
        unsigned char *bytes;

        if (entry->file == NULL || strncmp(entry->path, at, len) != 0 || entry->path[len] != '/')
            continue;
        bytes = take_memory((size_t)entry->file->size + 1);
        (void)sim_file_get(entry->file, 0, bytes, (size_t)entry->file->size);
        kit_file_write(dir, entry->path + len + 1, bytes, (size_t)entry->file->size);
        free(bytes);
    }
}

static const struct sim_image *at_hand;
static const char *keep_name, *keep_at;

static void
at_hand_export(void)
{
    char dir[KIT_PATH_MAX];

    if (at_hand == NULL)
        return;
    kit_dir_name(dir, keep_name);
    sim_image_export(at_hand, keep_at, dir);
    printf("the image is kept: %s\n", dir);
}

void
sim_image_keep(const char *name, const char *at)
{
    keep_name = name;
    keep_at = at;
    kit_on_failure = at_hand_export;
}

void
sim_image_at_hand(const struct sim_image *image)
{
    at_hand = image;
}

void
sim_image_import(struct sim_image *image, const char *at, const char *dir)
{
    struct kit_files *files = take_memory(sizeof(*files));

    sim_image_mkdir(image, at);
    kit_dir_list(dir, files);
    for (size_t i = 0; i < files->n; i++) {
        char path[SIM_PATH_MAX];
        size_t len;
        unsigned char *bytes = kit_file_read(dir, files->name[i], &len);

        KIT_CHECK(bytes != NULL, "%s/%s: cannot be read", dir, files->name[i]);
        (void)snprintf(path, sizeof(path), "%s/%s", at, files->name[i]);
        sim_image_add(image, path, bytes, len);
        free(bytes);
    }
    free(files);
}
