/*
 * stress_increments.c - many snapshots under updates, and what is recovered from their files.
 *
 * GOAL      a full snapshot with the deltas and merged files behind it, taken while pages are written, freed,
 *           allocated again, consolidated, evicted and changed in batches, is the page table to the last
 *           version; also when the process died instead of closing.
 * METHOD    rounds, each in a child process: open, compare every page with the books, then threads change their
 *           own pages while another takes one snapshot after the other; the threads end, what they did is
 *           flushed, and the child exits without closing, or closes. Most changes fall in a window that moves
 *           slowly: most pages are as the files before the newest say. The next child finds what there is.
 *           Some rounds damage the newest file first: the generation before must do.
 * ORACLE    the books, in memory that the processes share: id, version and bytes of every page.
 *           -DSCREE_BUG_SNAPSHOT_DELTA_SINCE must fail here.
 *
 * stress_increments [seed] [seconds] [threads]
 *
 * WORD      stop: main, relaxed; threads look at it between operations. Books: of one thread each, read by
 *           others before it is started or after it was joined, or by the next process.
 * LIFETIME  of a child: one round.   PROGRESS  no waits.   FAILURE  the child ends with 1, and so does the run.
 */
#include "support/kit.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS_MAX 8u
#define PAGES 1500u /* of a thread */
#define WINDOW 40u
#define BYTES_MAX 300u
#define BATCH_MAX 4u
#define CHOSEN_ID ((uint64_t)1 << 40)

struct page {
    scree_page_id id; /* 0: there is none */
    scree_version version;
    uint32_t len;
    unsigned char bytes[BYTES_MAX];
};

struct books {
    struct page page[THREADS_MAX][PAGES];
    uint64_t updates, snapshots, deltas, merges, fallbacks; /* kept by main */
};

struct worker {
    pthread_t thread;
    unsigned index;
    uint64_t random, updates;
    bool
        slow; /* little changes between snapshots: many deltas before they are as large as a full one */
};

static struct books *books;
static scree_cache *cache;
static char dir[KIT_PATH_MAX];
static unsigned threads;
static _Atomic bool stop;
static uint32_t fallbacks;     /* told while the cache is opened */
static uint32_t merged_rounds; /* that ended with deltas merged into one */

#define CHECK_OK(call)                                                                 \
    do {                                                                               \
        int code_ = (call);                                                            \
        KIT_CHECK(code_ == 0, "%s gave %d %s: %s", #call, code_, kit_code_name(code_), \
                  scree_error_detail());                                               \
    } while (0)

/* ---- operations on one's own pages ---------------------------------------------------------------- */

static scree_slice
bytes_make(struct worker *w, unsigned char *bytes, uint32_t most)
{
    uint32_t len = 1 + (uint32_t)kit_below(&w->random, most);

    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)(kit_random(&w->random) & 0x7f); /* never KIT_UNMERGEABLE */
    return kit_slice(bytes, len);
}

static void
page_write(struct page *p, scree_slice s)
{
    memcpy(p->bytes, s.data, s.len);
    p->len = (uint32_t)s.len;
}

static void
page_add(struct page *p, scree_slice s)
{
    memcpy(p->bytes + p->len, s.data, s.len);
    p->len += (uint32_t)s.len;
}

static bool
page_fits(const struct page *p, scree_slice s)
{
    return p->len + s.len <= BYTES_MAX;
}

static void
page_make(struct worker *w, struct page *p, scree_slice s)
{
    uint64_t chosen = CHOSEN_ID + w->index * PAGES + kit_below(&w->random, PAGES);
    int rc = SCREE_E_BUSY;

    if (kit_below(&w->random, 4) == 0) {
        p->id = chosen;
        rc = scree_page_allocate_at(cache, chosen, s, &p->version);
        if (rc == SCREE_E_CONFLICT || rc == SCREE_E_BUSY) {
            p->id = 0;
            return;
        }
        CHECK_OK(rc);
    } else {
        CHECK_OK(scree_page_allocate(cache, s, &p->id, &p->version));
    }
    page_write(p, s);
}

static void
one_change(struct worker *w, struct page *p)
{
    unsigned char bytes[BYTES_MAX];
    scree_slice s = bytes_make(w, bytes, 40);

    if (p->id == 0) {
        page_make(w, p, s);
        return;
    }
    switch (kit_below(&w->random, 16)) {
    case 0:
        CHECK_OK(scree_page_free(cache, p->id, &p->version));
        p->id = 0;
        return;
    case 1:
    case 2:
    case 3:
        CHECK_OK(scree_page_set(cache, p->id, &p->version, s));
        page_write(p, s);
        return;
    default:
        if (!page_fits(p, s)) {
            CHECK_OK(scree_page_put(cache, p->id, s, &p->version));
            page_write(p, s);
            return;
        }
        CHECK_OK(scree_page_merge(cache, p->id, &p->version, s));
        page_add(p, s);
    }
}

/* Some pages of the window, each once. A conflict can only be about an id that the batch was given, as others
   may have been given it too: then nothing happened. */
static void
batch_change(struct worker *w, uint64_t from)
{
    struct page *own = books->page[w->index];
    uint32_t n = 1 + (uint32_t)kit_below(&w->random, BATCH_MAX);
    struct page before[BATCH_MAX];
    scree_page_id conflict;
    bool given = false;
    scree_batch *batch;
    scree_lsn lsn;
    int rc;

    CHECK_OK(scree_batch_begin(cache, &batch));
    for (uint32_t i = 0; i < n; i++) {
        struct page *p = &own[(from + i) % PAGES];
        unsigned char bytes[BYTES_MAX];
        scree_slice s = bytes_make(w, bytes, 40);

        before[i] = *p;
        if (p->id == 0) {
            CHECK_OK(scree_batch_allocate(batch, s, &p->id));
            page_write(p, s);
        } else if (page_fits(p, s) && kit_below(&w->random, 2) == 0) {
            CHECK_OK(scree_batch_merge(batch, p->id, p->version, s));
            page_add(p, s);
        } else {
            CHECK_OK(scree_batch_set(batch, p->id, p->version, s));
            page_write(p, s);
        }
    }
    rc = scree_batch_commit(batch, &lsn, &conflict);
    for (uint32_t i = 0; i < n; i++) {
        struct page *p = &own[(from + i) % PAGES];

        given |= before[i].id == 0 && p->id == conflict;
        p->version = lsn;
        if (rc == SCREE_E_CONFLICT)
            *p = before[i];
    }
    if (rc != SCREE_E_CONFLICT || !given)
        CHECK_OK(rc);
}

static void *
worker_main(void *arg)
{
    struct worker *w = arg;
    uint64_t from = kit_below(&w->random, PAGES);

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t at = (from + kit_below(&w->random, WINDOW)) % PAGES;

        if (kit_below(&w->random, 8) == 0)
            batch_change(w, at);
        else
            one_change(w, &books->page[w->index][at]);
        if (++w->updates % 16 == 0)
            from++;
        if (w->slow)
            (void)usleep(200);
    }
    return NULL;
}

/* ---- comparison ------------------------------------------------------------------------------------ */

static uint64_t
pages_check(void)
{
    uint64_t live = 0;

    for (unsigned t = 0; t < threads; t++) {
        for (unsigned i = 0; i < PAGES; i++) {
            const struct page *p = &books->page[t][i];
            unsigned char bytes[BYTES_MAX];
            scree_version version;
            size_t len;

            if (p->id == 0)
                continue;
            live++;
            CHECK_OK(scree_page_read(cache, p->id, bytes, sizeof bytes, &len, &version));
            KIT_CHECK(version == p->version,
                      "page %" PRIu64 " has version %" PRIu64 ", not %" PRIu64, p->id, version,
                      p->version);
            KIT_CHECK(len == p->len && memcmp(bytes, p->bytes, len) == 0,
                      "page %" PRIu64 " holds %zu bytes that are not its %u", p->id, len, p->len);
        }
    }
    return live;
}

/* Every page is as the books say, and there are no others but the root. */
static void
books_check(void)
{
    scree_stats stats = {.size = sizeof stats};
    uint64_t live = pages_check() + 1, found = 0;
    scree_page_id id = 0;

    while (scree_page_next(cache, id, &id) == 0)
        found++;
    KIT_CHECK(found == live, "%" PRIu64 " pages are live, not %" PRIu64, found, live);
    CHECK_OK(scree_stats_get(cache, &stats));
    KIT_CHECK(stats.pages == live, "%" PRIu64 " pages are counted, not %" PRIu64, stats.pages,
              live);
}

/* ---- a round: the child ---------------------------------------------------------------------------- */

static void
on_event(void *ctx, const scree_event *event)
{
    (void)ctx;
    if (event->kind == SCREE_EVENT_SNAPSHOT_FALLBACK) /* from open only: no other thread is there */
        fallbacks++;
    KIT_CHECK(event->kind != SCREE_EVENT_SNAPSHOT_FAILED, "a snapshot failed: %d", event->code);
}

static void
snapshots_take(uint64_t *random, uint64_t until_ms)
{
    while (kit_now_ms() < until_ms) {
        scree_lsn lsn;

        CHECK_OK(scree_snapshot(cache, &lsn));
        if (kit_below(random, 4) == 0)
            (void)usleep((useconds_t)kit_below(random, 5000));
    }
}

static void
changes_run(uint64_t seed)
{
    struct worker workers[THREADS_MAX] = {0};
    uint64_t random = seed;

    for (unsigned t = 0; t < threads; t++) {
        workers[t].index = t;
        workers[t].random = seed * 1000 + t;
        workers[t].slow = seed % 3 == 0;
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, worker_main, &workers[t]) == 0,
                  "thread");
    }
    snapshots_take(&random, kit_now_ms() + 100 + kit_below(&random, 300));
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned t = 0; t < threads; t++) {
        (void)pthread_join(workers[t].thread, NULL);
        books->updates += workers[t].updates;
    }
}

static void
stats_keep(void)
{
    scree_stats stats = {.size = sizeof stats};

    CHECK_OK(scree_stats_get(cache, &stats));
    books->snapshots += stats.snapshots;
    books->deltas += stats.snapshot_delta_bytes;
    books->merges += stats.snapshot_merge_bytes;
    books->fallbacks += fallbacks;
}

_Noreturn static void
child(uint64_t seed, bool damaged)
{
    uint64_t random = seed ^ 0x5eed;
    scree_options options;

    kit_options_small(&options, &kit_concat);
    options.event = on_event;
    options.cache_bytes = 256 * 1024;
    CHECK_OK(scree_open(dir, &options, &cache));
    KIT_CHECK(!damaged || fallbacks > 0, "a damaged snapshot went unnoticed");
    books_check();
    changes_run(seed);
    CHECK_OK(scree_flush(cache, NULL));
    if (kit_below(&random, 4) == 0)
        CHECK_OK(scree_snapshot(cache, NULL));
    stats_keep();
    if (kit_below(&random, 3) == 0)
        CHECK_OK(scree_close(cache));
    _exit(0);
}

/* ---- main ------------------------------------------------------------------------------------------ */

static uint64_t
u64_at(const unsigned char *bytes, size_t at)
{
    uint64_t value;

    memcpy(&value, bytes + at, sizeof value); /* little-endian, as the machine */
    return value;
}

/* The newest manifest; *at_out: where its newest generation begins. To be freed. */
static unsigned char *
manifest_read(size_t *at_out)
{
    static struct kit_files files;
    unsigned char *manifest = NULL;
    size_t len = 0;

    kit_dir_list(dir, &files); /* by name: the newest manifest comes last */
    for (size_t i = 0; i < files.n; i++) {
        if (strncmp(files.name[i], "manifest-", 9) != 0 || strlen(files.name[i]) != 25)
            continue;
        free(manifest);
        manifest = kit_file_read(dir, files.name[i], &len);
    }
    KIT_CHECK(manifest != NULL, "no manifest");
    *at_out = 56 + (size_t)manifest[52] + (size_t)manifest[53] * 256;
    return manifest;
}

/* Spoils the newest file of the newest generation (docs/snapshot_format.md); false if there is no second
   generation. */
static bool
newest_file_damage(void)
{
    size_t at, len;
    unsigned char *manifest = manifest_read(&at), *bytes;
    bool second = manifest[54] == 2;
    char name[64];

    at += 24 + 32 * (u64_at(manifest, at + 16) - 1);
    snprintf(name, sizeof name, "snapshot-%016" PRIx64, u64_at(manifest, at + 8));
    free(manifest);
    if (!second)
        return false;
    bytes = kit_file_read(dir, name, &len);
    KIT_CHECK(bytes != NULL && len > 100, "%s is published, but not there", name);
    bytes[len / 2] ^= 0x55;
    kit_file_write(dir, name, bytes, len);
    free(bytes);
    return true;
}

/* Does a delta of the newest generation come before one that is older? It was made by merging then. */
static bool
deltas_merged(void)
{
    size_t at;
    unsigned char *manifest = manifest_read(&at);
    uint64_t files = u64_at(manifest, at + 16);
    bool found = false;

    for (uint64_t i = 1; i < files; i++)
        found |= u64_at(manifest, at + 32 * i) > u64_at(manifest, at + 32 * (i + 1));
    free(manifest);
    return found;
}

static void
round_run(uint64_t seed)
{
    uint64_t random = seed ^ 0xdadada;
    bool damaged = books->snapshots > 0 && kit_below(&random, 5) == 0 && newest_file_damage();
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    KIT_CHECK(pid >= 0, "fork");
    if (pid == 0)
        child(seed, damaged);
    KIT_CHECK(waitpid(pid, &status, 0) == pid && status == 0,
              "the round of seed %" PRIu64 " failed", seed);
    merged_rounds += deltas_merged();
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t end_ms = kit_now_ms() + 1000 * kit_argument(argc, argv, 2, 10);
    unsigned rounds = 0;

    threads = (unsigned)kit_argument(argc, argv, 3, 4);
    threads = threads < THREADS_MAX ? threads : THREADS_MAX;
    books = mmap(NULL, sizeof *books, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    KIT_CHECK(books != MAP_FAILED, "shared memory");
    kit_dir_name(dir, "increments");
    do {
        snprintf(kit_context, sizeof kit_context, "seed %" PRIu64 ", round %u", seed, rounds);
        round_run(seed * 100000 + rounds++);
    } while (kit_now_ms() < end_ms);
    printf("seed %" PRIu64 ": %u rounds, %" PRIu64 " updates, %" PRIu64 " snapshots, %" PRIu64
           " bytes of deltas, %" PRIu64 " merged (%u rounds left a merged delta), %" PRIu64
           " fallbacks: ok\n",
           seed, rounds, books->updates, books->snapshots, books->deltas, books->merges,
           merged_rounds, books->fallbacks);
    KIT_CHECK(rounds < 10 || (books->deltas > 0 && books->merges > 0),
              "no delta, or none was merged");
    kit_dir_remove(dir);
    return 0;
}
