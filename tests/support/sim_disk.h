/*
 * sim_disk.h - a disk in memory that forgets, as a disk does when the power goes: a scree_env, a trace of
 * what was done to it, and every state that a power cut may leave.
 *
 * A run is recorded once: each call that changes something is an event, numbered from 0. A cut at n means that
 * the events 0 .. n - 1 had returned and event n, if there is one, was under way. sim_replay goes along the
 * events and builds, at any cut, the images that a disk may be found with:
 *
 *   data       in sectors of 512 bytes. What was written since the file's last sync may be there or not, each
 *              sector by itself, in any order; of a write that was under way one sector may be half there.
 *   sizes      a write, an allocation, a truncation that was not synced may be there or not. A file that grew
 *              without its data reads as zeros there, or as what the blocks held before (stale; but
 *              for a file's first block).
 *   punches    each 4 KiB block by itself.
 *   names      creation, rename, unlink, mkdir may be there or not, each by itself, until the directory is
 *              synced. A rename is atomic. Syncing a file does not make its name durable.
 *   syncs      cover what was done before they began; what others do meanwhile is not in.
 *   failed sync   what it covered may be there or not for ever: no later sync makes it durable.
 */
#ifndef SCREE_TEST_SIM_DISK_H
#define SCREE_TEST_SIM_DISK_H

#include "kit.h"

#define SIM_SECTOR 512u
#define SIM_BLOCK 4096u

/* ---- images: directories at rest ---- */
struct sim_image;
struct sim_image *sim_image_new(void); /* empty, but for the directory "/" */
struct sim_image *sim_image_clone(const struct sim_image *image);
void sim_image_free(struct sim_image *image);           /* NULL does nothing */
uint64_t sim_image_hash(const struct sim_image *image); /* names, sizes, bytes */
size_t sim_image_files(const struct sim_image *image);
/* The i-th file in the order of names; borrowed. */
const char *sim_image_name(const struct sim_image *image, size_t i, uint64_t *size_out);
/* The bytes of a file: n of them from offset, as far as it goes; what was read or written. */
size_t sim_image_get(const struct sim_image *image, size_t i, uint64_t offset, void *data,
                     size_t n);
/* Changes bytes inside the file; never its size. */
void sim_image_set(struct sim_image *image, size_t i, uint64_t offset, const void *data, size_t n);
void sim_image_resize(struct sim_image *image, size_t i, uint64_t size);
void sim_image_remove(struct sim_image *image, size_t i);
/* A file with these bytes in an existing directory, in the place of one of this name. */
void sim_image_add(struct sim_image *image, const char *path, const void *data, size_t n);
void sim_image_mkdir(struct sim_image *image, const char *path);
/* To and from real directories, file by file: `at` in the image is `dir` outside. For a look with the tool. */
void sim_image_export(const struct sim_image *image, const char *at, const char *dir);
/* Where a check fails (kit_on_failure), the files in `at` of the image at hand are exported, under a name that
   begins so, and where is told. */
void sim_image_keep(const char *name, const char *at);
void sim_image_at_hand(const struct sim_image *image); /* NULL: none */
void sim_image_import(struct sim_image *image, const char *at, const char *dir);

/* ---- disks ---- */
struct sim_disk;
/* With what the image holds, all of it durable; the image stays the caller's. NULL: empty. */
struct sim_disk *sim_disk_new(const struct sim_image *image, uint64_t seed);
void sim_disk_free(struct sim_disk *d); /* no cache is open on it */
/* Any thread. Paths are absolute; random numbers come from the seed, time is CLOCK_MONOTONIC. */
const scree_env *sim_disk_env(struct sim_disk *d);
/* What is there now, synced or not. */
struct sim_image *sim_disk_image(struct sim_disk *d);

/* Events so far. A thread that saw a call return reads a number that its events are below of. */
uint64_t sim_disk_events(struct sim_disk *d);
/* Is called before each call that changes something, by the thread that makes it; not by two at a time only
   where the disk's user is one thread. NULL: nobody. */
void sim_disk_watch(struct sim_disk *d, void (*watch)(void *ctx), void *ctx);
/* Begin or stop to record; a disk is born recording. Without, there are no cuts. */
void sim_disk_record(struct sim_disk *d, bool on);

/* Faults, as of kit_env (no KILL): counted from the plan on. Only while the disk is idle. */
void sim_disk_plan(struct sim_disk *d, const struct kit_plan *plan);
void sim_disk_heal(struct sim_disk *d);      /* no fault from now on; what the plan counted stays */
uint64_t sim_disk_calls(struct sim_disk *d); /* of the plan's kinds */
unsigned sim_disk_hit(struct sim_disk *d); /* the kind of the call that the fault struck, 0: none */
/* It was a write or a sync of a file whose path begins so. */
bool sim_disk_hit_in(struct sim_disk *d, const char *prefix);
/* -ENOSPC when the files of all directories would take more than this; 0: no limit. */
void sim_disk_limit(struct sim_disk *d, uint64_t bytes);
uint64_t sim_disk_used(struct sim_disk *d); /* bytes in blocks */
/* Direct opens get -EINVAL (yes, at first); punching gets -EOPNOTSUPP; clone is there. */
enum sim_ability { SIM_DIRECT = 1, SIM_PUNCHES = 2, SIM_CLONES = 4 };
void sim_disk_abilities(struct sim_disk *d, unsigned abilities); /* at first SIM_PUNCHES */

/* ---- cuts ---- */
struct sim_replay;
/* Along the trace of a disk that nobody uses any more, which outlives it. Begins at cut 0. */
struct sim_replay *sim_replay_new(struct sim_disk *d);
void sim_replay_free(struct sim_replay *r);
uint64_t sim_replay_cut(const struct sim_replay *r);
/* To the next cut; false at the end, which is sim_disk_events. */
bool sim_replay_advance(struct sim_replay *r);
/* What the next event is, in words; for reports. */
void sim_replay_describe(const struct sim_replay *r, char *text, size_t n);
/* How many files hold bytes, not zeros, that are not durable. */
uint32_t sim_replay_undecided(const struct sim_replay *r);
/* How many choices there are at this cut: 2 to the power of what is undecided where that is at most `most`, and
   then they are all of them, and behind them as many with stale and torn bytes if those too are at most `most`;
   else `most`. At least 1. */
uint64_t sim_replay_choices(const struct sim_replay *r, uint64_t most);
/* The disk as the power cut left it; the caller's. choice 0: nothing unsynced is there, 1: all of it; the
   others, below sim_replay_choices(r, most): subsets. The same for the same trace, cut, seed, choice. */
struct sim_image *sim_replay_state(struct sim_replay *r, uint64_t choice, uint64_t most,
                                   uint64_t seed);
/* No power cut: the process dies here, all that it did stays, durable or not. The first events of the disk are
   what is not durable yet, so that later cuts take it; *events_out of them. (The event under way never was.) */
struct sim_disk *sim_replay_kill(const struct sim_replay *r, uint64_t seed, uint64_t *events_out);

#endif
