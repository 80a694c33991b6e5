/*
 * tool.h - what the subcommands of `scree` share: time, random numbers, files, processes, messages.
 */
#ifndef SCREE_TOOL_H
#define SCREE_TOOL_H

#include "scree.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- subcommands: argv[0] is "scree <name>"; the result is the exit status ---- */
int tool_bench(int argc, char **argv);
int tool_stress(int argc, char **argv);
int tool_stat(int argc, char **argv);
int tool_map(int argc, char **argv);
int tool_dump(int argc, char **argv);
int tool_backup(int argc, char **argv);
int tool_verify(int argc, char **argv);
int tool_salvage(int argc, char **argv);
int tool_log(int argc, char **argv);

/* TROUBLE: the command line makes no sense; of stress, bench, stat and map also: it could not be done. IO: it
   could not be done; of the others, which tell that apart. */
enum tool_exit { TOOL_OK = 0, TOOL_WRONG = 1, TOOL_TROUBLE = 2, TOOL_IO = 3 };

/* ---- util.c ---- */

uint64_t tool_now_ns(void); /* monotonic */
void tool_sleep_ms(unsigned ms);

/* A bijective mixer (splitmix64's): also a good hash of one word. */
static inline uint64_t
tool_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* xorshift64*: one multiply a draw, never 0 inside. */
struct tool_rng {
    uint64_t state;
};
static inline void
tool_rng_init(struct tool_rng *rng, uint64_t seed)
{
    rng->state = tool_mix(seed) | 1;
}
static inline uint64_t
tool_rng_next(struct tool_rng *rng)
{
    uint64_t x = rng->state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    rng->state = x;
    return x * 0x2545f4914f6cdd1du;
}
/* Uniform in [0, n), n up to 2^32. */
static inline uint64_t
tool_rng_below(struct tool_rng *rng, uint64_t n)
{
    return ((tool_rng_next(rng) >> 32) * n) >> 32;
}
/* Uniform in [0, 1). */
static inline double
tool_rng_unit(struct tool_rng *rng)
{
    return (double)(tool_rng_next(rng) >> 11) * 0x1p-53;
}

/* Zero-filled memory that children share with us and that outlives their death; NULL on failure.
   Untouched parts cost nothing. */
void *tool_shared_alloc(size_t bytes);

/* Remove a directory and all below it, following no link; 0 or -errno; 0 if it is not there. */
int tool_remove_tree(const char *path);
/* What the regular files of a scree directory, which is flat, occupy: st_blocks x 512. Files that come or
   go meanwhile may be counted or not; 0 where nothing can be read. */
struct tool_disk {
    uint64_t bytes;
    uint64_t log_bytes; /* of bytes: segments */
    uint64_t files;
};
struct tool_disk tool_disk_usage(const char *dir);
/* A whole number as an option's value within [min, max]; else a usage error through argp. */
struct argp_state;
uint64_t tool_number(const struct argp_state *state, const char *text, uint64_t min, uint64_t max);
/* What an argp parser of a command on one directory does with the keys that are not its own. */
int tool_parse_dir(int key, char *arg, const struct argp_state *state, const char **dir_io);
double tool_real(const struct argp_state *state, const char *text, double min, double max);
/* "64" or "64M": MiB, "64K": KiB; in bytes. */
uint64_t tool_size(const struct argp_state *state, const char *text, uint64_t min, uint64_t max);

/* Figures of this process from /proc/self; 0 where they cannot be had. */
uint64_t tool_proc_status_bytes(const char *field); /* "VmHWM:", "RssAnon:" */
uint64_t tool_proc_io_bytes(const char *field);     /* "write_bytes:" */

/* "scree <sub>: <what>: <name of code> (<detail of the last failure>)" on stderr. */
void tool_complain(const char *what, int code);
/* Of a command that looks at a directory: WRONG for damage, IO for every other error. */
enum tool_exit tool_exit_of(int code);

/* ---- findings.c: what verify and salvage tell ---- */

struct tool_findings {
    bool json;
    uint64_t damage, lost, notes;
    bool progress; /* stderr is a terminal */
    bool dirty;    /* a progress line stands there */
    uint64_t told_ns;
};
void tool_findings_init(struct tool_findings *f, bool json);
/* scree_finding_fn, scree_progress_fn; ctx: a struct tool_findings */
int tool_finding_print(void *ctx, const scree_finding *finding);
int tool_progress_print(void *ctx, const char *what, uint64_t done, uint64_t total);
/* The last line, and the exit status for what the call gave. */
int tool_findings_end(struct tool_findings *f, const char *dir, int code);

/* ---- open.c ---- */

struct scree__manifest;
/* A merge callback that fails: the tool has no other. */
int tool_merge_refuse(void *ctx, scree_page_id id, const scree_slice *base,
                      const scree_slice *frags, size_t n, scree_out *out);
/* Open any directory read-only, whatever its materializer: its name comes from the manifest, its merge
   fails, so only unmerged reads are to be used. Complains itself. */
int tool_open_any(const char *dir, struct scree__manifest *manifest_out, scree_cache **cache_out);
/* The same without complaining. Segments without a manifest are CORRUPT. */
int tool_open_quietly(const char *dir, struct scree__manifest *manifest_out,
                      scree_cache **cache_out);

#endif
