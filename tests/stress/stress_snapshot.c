/*
 * stress_snapshot.c - snapshots written and loaded by several threads, over and over.
 *
 * GOAL    loader.c hands out every entry exactly once, whatever the threads do, and a visitor that
 *         fails or a file that is damaged ends the load without a trace of a race.
 * METHOD  random tables; each is written, loaded by 1 to `threads` workers, then loaded with a
 *         visitor that fails at a random entry, then with one byte of the file flipped.
 * CHECKED every entry is seen once and is the one that was written; the state is; the visitor's own
 *         code comes back; a damaged file is CORRUPT and shows nothing.
 * ORACLE  an entry is a function of its id and the seed; `seen` counts visits.
 */
#include "snapshot/snapshot.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define S 4096u
#define E (UINT64_C(1) << 40)
#define ENTRIES_MAX 200000u
#define REFUSED (-4711)

static char dir[64];
static _Atomic unsigned char seen[ENTRIES_MAX];

struct check {
    uint64_t seed;
    _Atomic uint64_t visits;
    uint64_t refuse_at; /* 0 = never */
};

static uint64_t
mix(uint64_t z)
{
    z = (z + UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void
require(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "FAILED: %s: %s\n", what, scree_error_detail());
    exit(1);
}

/* The entry of this id; p holds its positions. */
static struct scree__snapshot_entry
entry_of(uint64_t id, uint64_t seed, struct scree__position p[3])
{
    uint64_t r = mix(id ^ seed);
    uint32_t n = (uint32_t)(r % 4);
    uint64_t at = 8 + mix(r) % (E / 16) * 8;

    for (uint32_t i = 0; i < n; i++) {
        p[i] = (struct scree__position){at, 8 + (uint32_t)(mix(r + i) % 1000) * 8};
        at += p[i].disk_len;
    }
    return (struct scree__snapshot_entry){
        .id = id, .version = n > 0 && r % 3 > 0 ? at : S + r % (E - S), .positions = p, .n = n};
}

static int
check_visit(void *ctx, const struct scree__snapshot_entry *e)
{
    struct check *c = ctx;
    struct scree__position p[3];
    struct scree__snapshot_entry want = entry_of(e->id, c->seed, p);

    require(e->id >= 1 && e->id <= ENTRIES_MAX, "id");
    require(e->version == want.version && e->n == want.n, "version and count");
    for (uint32_t i = 0; i < e->n; i++)
        require(e->positions[i].lsn == p[i].lsn && e->positions[i].disk_len == p[i].disk_len,
                "position");
    require(atomic_fetch_add_explicit(&seen[e->id - 1], 1, memory_order_relaxed) == 0,
            "seen twice");
    return atomic_fetch_add_explicit(&c->visits, 1, memory_order_relaxed) + 1 == c->refuse_at
               ? REFUSED
               : 0;
}

static int
load(const struct scree__generation *g, uint64_t seed, unsigned threads, uint64_t refuse_at,
     uint64_t *visits_out, scree_slice state)
{
    static const uint8_t uuid[16];
    struct check c = {.seed = seed, .refuse_at = refuse_at};
    struct scree__snapshot_loaded l;
    int rc;

    for (size_t i = 0; i < ENTRIES_MAX; i++)
        atomic_store_explicit(&seen[i], 0, memory_order_relaxed); /* no worker runs now */
    rc = scree__snapshot_load(scree_env_posix(), dir, g, uuid, threads, check_visit, &c, &l);
    *visits_out = atomic_load_explicit(&c.visits, memory_order_relaxed); /* all are joined */
    if (rc == 0)
        require(l.state_len == state.len && memcmp(l.state, state.data, state.len) == 0, "state");
    scree__free(l.state, l.state_len);
    return rc;
}

static void
flip(uint64_t at, const struct scree__generation *g)
{
    char path[128];
    unsigned char byte = 0;
    int file;

    snprintf(path, sizeof path, "%s/snapshot-%016" PRIx64, dir, g->file[0].number);
    file = open(path, O_RDWR);
    require(file >= 0 && pread(file, &byte, 1, (off_t)at) == 1, path);
    byte ^= 0x10;
    require(pwrite(file, &byte, 1, (off_t)at) == 1 && close(file) == 0, path);
}

static void
round_run(uint64_t seed, unsigned threads_max, const unsigned char *state)
{
    struct scree__snapshot_meta meta = {.number = 1, .replay_lsn = S};
    uint64_t n = 1 + mix(seed) % ENTRIES_MAX, visits, written = 0;
    unsigned threads = 1 + (unsigned)(mix(seed + 1) % threads_max);
    scree_slice slice = {state, mix(seed + 2) % 3000000};
    struct scree__snapshot_writer *w;
    struct scree__generation g;
    struct scree__position p[3];

    require(scree__snapshot_begin(scree_env_posix(), dir, &meta, &w) == 0, "begin");
    for (uint64_t id = 1; id <= n; id++) {
        struct scree__snapshot_entry e = entry_of(id, seed, p);

        if (mix(id + seed) % 8 == 0)
            continue;
        require(scree__snapshot_add(w, &e) == 0, "add");
        written++;
    }
    require(scree__snapshot_finish(w, slice, 2 * E, n, &g) == 0, "finish");
    require(load(&g, seed, threads, 0, &visits, slice) == 0 && visits == written, "load");
    if (written > 0)
        require(load(&g, seed, threads, 1 + mix(seed + 3) % written, &visits, slice) == REFUSED,
                "refusing visitor");
    flip(mix(seed + 4) % g.file[0].bytes, &g);
    require(load(&g, seed, threads, 0, &visits, slice) == SCREE_E_CORRUPT && visits == 0, "damage");
}

int
main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    double seconds = argc > 2 ? atof(argv[2]) : 5;
    unsigned threads = argc > 3 ? (unsigned)atoi(argv[3]) : 4;
    unsigned char *state = malloc(3000000);
    time_t end = time(NULL) + (time_t)seconds;
    unsigned rounds = 0;
    char path[128];

    strcpy(dir, "/tmp/scree-stress-snapshot-XXXXXX");
    require(state && mkdtemp(dir) && threads > 0, "setup");
    for (size_t i = 0; i < 3000000; i++)
        state[i] = (unsigned char)(mix(i / 16) >> (i % 16 * 4));
    do {
        printf("seed %" PRIu64 "\n", seed + rounds);
        fflush(stdout);
        round_run(seed + rounds++, threads, state);
    } while (time(NULL) < end);
    snprintf(path, sizeof path, "%s/snapshot-%016x", dir, 1u);
    unlink(path);
    rmdir(dir);
    free(state);
    printf("%u rounds\n", rounds);
    return 0;
}
