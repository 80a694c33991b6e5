/*
 * env.h - short names for calling through a scree_env (the table itself is public: scree.h).
 */
#ifndef SCREE_ENV_H
#define SCREE_ENV_H

#include "base/base.h"

/* Open for direct I/O if wanted and possible, else buffered; *direct_io_out tells which. mode: enum
   scree_io_mode (DIRECT: fails where it cannot be had). */
int scree__env_open_io(const scree_env *env, const char *path, int flags, int io_mode,
                       bool *direct_io_out);
/* The whole of it or an error: short counts are continued (reads end at EOF: *len_out). */
int scree__env_write_all(const scree_env *env, int file, const void *data, size_t len,
                         uint64_t offset);
int scree__env_read_all(const scree_env *env, int file, void *data, size_t len, uint64_t offset,
                        size_t *len_out);
/* A whole small file. *data_out from scree__alloc(*len_out); TOO_BIG beyond len_max. */
int scree__env_read_file(const scree_env *env, const char *path, size_t len_max, void **data_out,
                         size_t *len_out);
/* tmp, write, sync, rename, sync the directory. The name's tmp is name + ".tmp". */
int scree__env_replace_file(const scree_env *env, const char *dir, const char *name,
                            const void *data, size_t len);

/* ---- env_posix.c ---- */
/* Close without unlocking: in a forked child, whose copy of a directory's lock is the parent's lock. */
int scree__posix_let_go(int file);

/* ---- names.c ---- */
/* Before names are made, renamed or deleted in dir that have to be durable: for scree__names_sync. */
uint64_t scree__names_begin(const char *dir);
/* They are durable: 0. Else what the sync gave, or another one since then: never again for these names. */
int scree__names_sync(const scree_env *env, const char *dir, uint64_t begun);
void scree__names_forked(void); /* in the child */

#endif
