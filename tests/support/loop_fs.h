/*
 * loop_fs.h - real file systems for tests: ext4 or xfs in an image on a loop device, with a power switch.
 *
 * All of it is one process's: mounts are in a mount namespace of its own, the image has no name any more, and
 * the loop device lets go of it by itself. However that process ends, nothing is left but an empty directory,
 * which loop_fs_supervise takes away.
 */
#ifndef SCREE_TEST_LOOP_FS_H
#define SCREE_TEST_LOOP_FS_H

#include "kit.h"

#define LOOP_FS_SKIPPED 77

struct loop_fs {
    const char *kind; /* "ext4", "xfs" */
    char mount_point[KIT_PATH_MAX];
    char device[64];
    int device_file;
};

/* What is lost when the power goes. */
enum loop_fs_cut {
    LOOP_FS_CUT_LOGGED, /* data that was not synced; the file system's own log is written out */
    LOOP_FS_CUT_ALL     /* all that was not synced */
};

/*
 * Run body(ctx) in a process and a mount namespace of its own; its exit status, LOOP_FS_SKIPPED if there can be
 * no such thing (why is printed). When this process is told to end (SIGTERM, SIGINT, SIGHUP), that one and its
 * children go first.
 */
int loop_fs_supervise(const char *test, int (*body)(const void *ctx), const void *ctx);
/* In a body: where something can be mounted. */
const char *loop_fs_mount_point(void);
/* In a body: a new file system of so many bytes, mounted; false: why not is in why. */
bool loop_fs_make(struct loop_fs *fs, const char *kind, uint64_t bytes, char why[256]);
/* The power goes (0, or -errno where there is no such switch), and comes back: mounted again, its log replayed.
   Between the two all processes that have files open there must end. */
int loop_fs_cut(const struct loop_fs *fs, enum loop_fs_cut cut);
void loop_fs_again(const struct loop_fs *fs);
/* How often the file system has found itself damaged since it was made (ext4 counts; 0 of others). */
uint64_t loop_fs_errors(const struct loop_fs *fs);
/* Bytes that a file may take up now. */
uint64_t loop_fs_room(const struct loop_fs *fs);
void loop_fs_end(struct loop_fs *fs);

#endif
