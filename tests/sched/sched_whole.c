/*
 * sched_whole.c - the whole library, all of its threads, as a function of a number.
 *
 * GOAL      two runs of one program with the same seed do the same to the disk, call by call, byte by byte;
 *           with another seed they do not. So whatever a run of this kind meets can be met again.
 * METHOD    sched_begin(policy): all threads, the flusher, the allocator, the reclaimer, the evictor and the
 *           others among them, run one at a time in an order drawn from the seed; time is virtual, the disk is
 *           in memory (sim_disk), random numbers come from the seed. Two threads update pages of their own in a
 *           cache that is far too small, single ones and batches, and read them; the first one takes snapshots,
 *           has space reclaimed, syncs; in the end the cache is closed, opened again and compared. Every call
 *           of the env goes into a hash. Each seed runs twice, in a process of its own, one of them with an
 *           environment of another size, so that addresses differ.
 * ORACLE    both hashes and the number of calls are equal; those of different seeds are not; pages hold what
 *           was written; scree_verify.
 * NOT HERE  what can go wrong in particular orders (sched_pairs).
 *
 * sched_whole [seeds] [first seed] [calls of a thread]
 */
#include "support/sched.h"
#include "support/sim_disk.h"
#include "support/tokens.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORKERS 2u
#define PAGES 64u /* of each */
#define BYTES_MAX 3000u
#define DIR_NAME "/whole"

struct trace {
    uint64_t hash, calls, points;
};

static struct sim_disk *disk;
static const scree_env *disk_env;
static struct trace trace;
static scree_cache *cache;
static uint32_t calls_each;

struct worker {
    pthread_t thread;
    uint64_t random;
    scree_page_id id[PAGES];
    uint64_t version[PAGES];
    uint64_t hash[PAGES];
    size_t len[PAGES];
};
static struct worker workers[WORKERS];

/* ---- the trace --------------------------------------------------------------------------------- */

static void
trace_add(char call, uint64_t a, uint64_t b, const void *data, size_t len)
{
    uint64_t word[5] = {trace.hash, (uint64_t)call, a, b, kit_hash(data, len, 1)};

    trace.hash = kit_hash(word, sizeof(word), 2);
    trace.calls++;
}

static int
whole_open(void *ctx, const char *path, int flags)
{
    int file = disk_env->open(ctx, path, flags);

    trace_add('o', (uint64_t)file, (uint64_t)flags, path, strlen(path));
    return file;
}

static int64_t
whole_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    int64_t n = disk_env->read(ctx, file, data, len, offset);

    trace_add('r', (uint64_t)file, offset, data, n < 0 ? 0 : (size_t)n);
    return n;
}

static int
whole_read_many(void *ctx, scree_env_read *reads, size_t n)
{
    for (size_t i = 0; i < n; i++)
        reads[i].result =
            (int32_t)whole_read(ctx, reads[i].file, reads[i].data, reads[i].len, reads[i].offset);
    return 0;
}

static int64_t
whole_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    trace_add('w', (uint64_t)file, offset, data, len);
    return disk_env->write(ctx, file, data, len, offset);
}

static int
whole_sync(void *ctx, int file)
{
    trace_add('s', (uint64_t)file, 0, NULL, 0);
    return disk_env->sync(ctx, file);
}

static int
whole_allocate(void *ctx, int file, uint64_t offset, uint64_t len)
{
    trace_add('a', (uint64_t)file, offset, &len, sizeof(len));
    return disk_env->allocate(ctx, file, offset, len);
}

static int
whole_punch(void *ctx, int file, uint64_t offset, uint64_t len)
{
    trace_add('p', (uint64_t)file, offset, &len, sizeof(len));
    return disk_env->punch(ctx, file, offset, len);
}

static int
whole_unlink(void *ctx, const char *path)
{
    trace_add('u', 0, 0, path, strlen(path));
    return disk_env->unlink(ctx, path);
}

static int
whole_rename(void *ctx, const char *from, const char *to)
{
    trace_add('n', 0, 0, to, strlen(to));
    return disk_env->rename(ctx, from, to);
}

/* ---- the workload ------------------------------------------------------------------------------ */

static scree_slice
bytes_draw(struct worker *w, unsigned char *bytes)
{
    size_t len = kit_below(&w->random, 4) == 0 ? (size_t)kit_below(&w->random, BYTES_MAX) : 40;

    for (size_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)(kit_random(&w->random) & 0x7f);
    return kit_slice(bytes, len);
}

static void
page_written(struct worker *w, unsigned i, scree_slice page, int code)
{
    KIT_CHECK(code == 0, "page %u gave %d %s", i, code, kit_code_name(code));
    w->hash[i] = kit_hash(page.data, page.len, 7);
    w->len[i] = page.len;
}

static void
page_read(struct worker *w, unsigned i)
{
    unsigned char bytes[4096];
    scree_version version;
    size_t len;
    int code = scree_page_read(cache, w->id[i], bytes, sizeof(bytes), &len, &version);

    KIT_CHECK(code == 0 && version == w->version[i] && len == w->len[i] &&
                  kit_hash(bytes, len, 7) == w->hash[i],
              "page %u: %d %s, version %" PRIu64 " for %" PRIu64, i, code, kit_code_name(code),
              version, w->version[i]);
}

/* Two pages at once. */
static void
pages_batch(struct worker *w, unsigned i, unsigned j)
{
    unsigned char bytes[2][BYTES_MAX];
    scree_slice page[2] = {bytes_draw(w, bytes[0]), bytes_draw(w, bytes[1])};
    scree_batch *batch;
    scree_lsn lsn = 0;
    int code = scree_batch_begin(cache, &batch);

    KIT_CHECK(code == 0, "begin gave %d %s", code, kit_code_name(code));
    code = scree_batch_set(batch, w->id[i], w->version[i], page[0]);
    if (code == 0)
        code = scree_batch_set(batch, w->id[j], w->version[j], page[1]);
    if (code == 0)
        code = scree_batch_commit(batch, &lsn, NULL);
    page_written(w, i, page[0], code);
    page_written(w, j, page[1], code);
    w->version[i] = w->version[j] = lsn;
}

static void *
worker_run(void *arg)
{
    struct worker *w = arg;

    for (unsigned i = 0; i < PAGES; i++) {
        unsigned char bytes[BYTES_MAX];
        scree_slice page = bytes_draw(w, bytes);

        page_written(w, i, page, scree_page_allocate(cache, page, &w->id[i], &w->version[i]));
    }
    for (uint32_t n = 0; n < calls_each; n++) {
        unsigned char bytes[BYTES_MAX];
        unsigned i = (unsigned)kit_below(&w->random, PAGES);
        unsigned j = (i + 1 + (unsigned)kit_below(&w->random, PAGES - 1)) % PAGES;
        scree_slice page;

        switch (kit_below(&w->random, 4)) {
        case 0:
            pages_batch(w, i, j);
            break;
        case 1:
            page = bytes_draw(w, bytes);
            page_written(w, i, page, scree_page_set(cache, w->id[i], &w->version[i], page));
            break;
        default:
            page_read(w, i);
        }
    }
    return NULL;
}

/* What the first thread does meanwhile. */
static void
run_beside(uint64_t seed)
{
    uint64_t random = seed + 77;

    for (unsigned i = 0; i < 6; i++) {
        struct timespec pause = {.tv_nsec = (long)kit_below(&random, 4000000)};
        int code = 0;

        nanosleep(&pause, NULL);
        if (i % 3 == 0)
            code = scree_snapshot(cache, NULL);
        else if (i % 3 == 1)
            code = scree_flush(cache, NULL);
        else
            code = scree_reclaim(cache, 0, NULL, NULL);
        KIT_CHECK(code == 0, "call %u gave %d %s", i, code, kit_code_name(code));
    }
}

static void
run(uint64_t seed, const scree_options *o)
{
    int code = scree_open(DIR_NAME, o, &cache);

    KIT_CHECK(code == 0, "open gave %d %s", code, kit_code_name(code));
    for (unsigned t = 0; t < WORKERS; t++) {
        workers[t].random = seed * 100 + t;
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, worker_run, &workers[t]) == 0, "thread");
    }
    run_beside(seed);
    for (unsigned t = 0; t < WORKERS; t++)
        (void)pthread_join(workers[t].thread, NULL);
    code = scree_close(cache);
    KIT_CHECK(code == 0, "close gave %d %s", code, kit_code_name(code));
    kit_verify(DIR_NAME, o);
    code = scree_open(DIR_NAME, o, &cache);
    KIT_CHECK(code == 0, "open again gave %d %s", code, kit_code_name(code));
    for (unsigned t = 0; t < WORKERS; t++)
        for (unsigned i = 0; i < PAGES; i++)
            page_read(&workers[t], i);
    code = scree_close(cache);
    KIT_CHECK(code == 0, "close again gave %d %s", code, kit_code_name(code));
}

static void
seed_run(uint64_t seed, struct trace *out)
{
    struct sched_policy policy = {.kind = SCHED_RANDOM, .seed = seed, .rarely = 16};
    scree_options o;
    scree_env env;

    sched_begin(&policy);
    disk = sim_disk_new(NULL, seed);
    disk_env = sim_disk_env(disk);
    env = *disk_env;
    env.open = whole_open;
    env.read = whole_read;
    env.read_many = whole_read_many;
    env.write = whole_write;
    env.sync = whole_sync;
    env.allocate = whole_allocate;
    env.punch = whole_punch;
    env.unlink = whole_unlink;
    env.rename = whole_rename;
    kit_options_small(&o, &kit_concat);
    o.env = &env;
    run(seed, &o);
    trace.points = sched_now();
    sim_disk_free(disk);
    sched_end();
    *out = trace;
}

/* ---- main -------------------------------------------------------------------------------------- */

/* In a process of its own; `moved`: everything lies elsewhere in memory. */
static void
seed_fork(uint64_t seed, bool moved, struct trace *out)
{
    pid_t child;

    (void)snprintf(kit_context, sizeof(kit_context), "sched_whole 1 %" PRIu64 " %u", seed,
                   calls_each);
    child = kit_fork();
    if (child == 0) {
        if (moved) {
            void *pages = mmap(NULL, 123 << 12, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

            KIT_CHECK(pages != MAP_FAILED, "cannot move");
        }
        seed_run(seed, out);
        fflush(stdout);
        _exit(0);
    }
    KIT_CHECK(kit_join(child) == 0, "the run failed");
}

int
main(int argc, char **argv)
{
    uint64_t seeds = kit_argument(argc, argv, 1, 4), first = kit_argument(argc, argv, 2, 1);
    struct trace *t =
        mmap(NULL, 3 * sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    KIT_CHECK(t != MAP_FAILED, "no memory");
    calls_each = (uint32_t)kit_argument(argc, argv, 3, 300);
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        t[2] = t[0];
        seed_fork(seed, false, &t[0]);
        seed_fork(seed, true, &t[1]);
        printf("seed %" PRIu64 ": %" PRIu64 " calls of the disk, %" PRIu64
               " points, hash %016" PRIx64 "\n",
               seed, t[0].calls, t[0].points, t[0].hash);
        KIT_CHECK(t[0].calls > 0 && t[0].calls == t[1].calls && t[0].hash == t[1].hash &&
                      t[0].points == t[1].points,
                  "the same seed gave another run: %" PRIu64 " calls, %" PRIu64
                  " points, hash %016" PRIx64,
                  t[1].calls, t[1].points, t[1].hash);
        KIT_CHECK(t[0].hash != t[2].hash, "another seed gave the same run");
    }
    return 0;
}
