/*
 * sim_image.h - the inside of images, for sim_disk.c and sim_replay.c alone.
 */
#ifndef SCREE_TEST_SIM_IMAGE_H
#define SCREE_TEST_SIM_IMAGE_H

#include "sim_disk.h"

#include <stdatomic.h>

#define SIM_PATH_MAX 96

struct sim_bytes;
struct sim_file {
    _Atomic uint32_t refs;
    uint64_t size;
    size_t blocks_n;
    uint64_t used; /* blocks that are there */
    struct sim_bytes **blocks;
};

/* A directory has no file. */
struct sim_entry {
    char path[SIM_PATH_MAX];
    struct sim_file *file;
    uint32_t inode; /* for who builds the image; 0 otherwise */
};

/* Sorted by path. */
struct sim_image {
    size_t n, cap;
    struct sim_entry *entry;
};

struct sim_file *sim_file_new(void);
struct sim_file *sim_file_share(struct sim_file *file);
void sim_file_drop(struct sim_file *file); /* NULL does nothing */
/* The same file, to be written to: the caller's alone. */
struct sim_file *sim_file_own(struct sim_file *file);
bool sim_file_block_there(const struct sim_file *file, uint64_t index);
size_t sim_file_get(const struct sim_file *file, uint64_t offset, void *data, size_t n);
void sim_file_set(struct sim_file *file, uint64_t offset, const void *data, size_t n);
void sim_file_room(struct sim_file *file, uint64_t offset, uint64_t len);
void sim_file_punch(struct sim_file *file, uint64_t offset, uint64_t len);
void sim_file_resize(struct sim_file *file, uint64_t size);

struct sim_entry *sim_image_find(const struct sim_image *image, const char *path);
/* Takes the file over; what was there goes. Moves entries. */
struct sim_entry *sim_image_put(struct sim_image *image, const char *path, struct sim_file *file);
void sim_image_take(struct sim_image *image, const char *path);

/* ---- the trace ---- */

enum sim_op {
    SIM_OP_WRITE,
    SIM_OP_ALLOCATE,
    SIM_OP_PUNCH,
    SIM_OP_TRUNCATE,
    SIM_OP_SYNC,
    SIM_OP_CREATE,
    SIM_OP_UNLINK,
    SIM_OP_RENAME,
    SIM_OP_MKDIR,
    SIM_OP_SYNC_DIR
};

struct sim_event {
    enum sim_op op;
    bool failed;          /* of a sync: it said so */
    uint32_t inode;       /* of files */
    uint64_t offset, len; /* offset of a sync: it covers the events below, as it began then */
    unsigned char *data;  /* len bytes, of a write */
    char *path, *to;      /* of names; to: of a rename */
};

struct sim_trace {
    struct sim_image *base; /* all durable; its entries have inodes */
    size_t n, cap;
    struct sim_event *event;
    uint32_t inodes; /* given out: 1 .. inodes */
};
/* Of a disk that nobody uses. */
const struct sim_trace *sim_disk_trace(const struct sim_disk *d);
/* Does what an event did on another disk; map: from that one's inodes to d's, kept here. What has neither a
   name nor ever gets one is left out. */
void sim_disk_redo(struct sim_disk *d, const struct sim_event *event, uint32_t *map);

#endif
