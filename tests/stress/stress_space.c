/*
 * stress_space.c - the books of space equal a recount, byte for byte.
 *
 * GOAL      whatever threads did (sets, appends, frees, allocates, consolidation, eviction, cleaning,
 *           snapshots), at rest: live_bytes of the statistics = the sum over all segments = what a recovery
 *           counts that knows nothing but the page table, granule by granule; disk_bytes = what the files
 *           occupy. So nothing is charged twice or forgotten, which would keep space for ever or give away
 *           what lives.
 * METHOD    lives of a directory, each with its own options (sizes, compression, holes or SCREE_NO_PUNCH,
 *           cleaning never, seldom, eagerly). In a life, rounds of: threads work; rest; look; copy the
 *           directory as a crash would leave it and look at the copy; close; look again, read-only, which
 *           writes and cleans nothing; open for the next round. At a life's end every page is set anew, so
 *           that the live bytes can be counted from the log's format alone.
 * ORACLE    space_map.h; docs/log_format.md: a record is 24 bytes and its payload, rounded up to 8, 8 more
 *           if the library wrote it. Pages check themselves (churn_chunk_make).
 * NOT HERE  bounds (stress_bounded), what a full disk does (crash_full).
 *
 * stress_space [seed] [seconds] [threads]
 *
 * WORD   page[i]: a page id, 0 = being freed or allocated by one thread, which took it by exchange.
 * EDGES  E0 id -> 0: exchange acq_rel, the taker alone writes or frees, and counts its appends.
 *        E1 0 -> id: store release, pairs with every
 *        load acquire.  E2 stop = true: relaxed, looked at before each operation.
 * LIFETIME  static.   PROGRESS  no waits.   FAILURE  the run ends.
 */
#include "support/churn.h"
#include "support/space_map.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define PAGES 900u
#define THREADS_MAX 16u
#define ROUND_MS 250u
#define APPENDS_MAX \
    30u /* to a page, so that it never outgrows its limit: that is MERGE, another matter */
#define APPEND_BYTES_MAX 224u
#define APPENDS_BYTES (24u + APPENDS_MAX * APPEND_BYTES_MAX)
#define ROUNDS 3u

struct worker {
    pthread_t thread;
    uint64_t random;
    uint32_t serial;
};

static char dir[KIT_PATH_MAX];
static char copy[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;
static _Atomic uint64_t page[PAGES];
static uint32_t appends[PAGES]; /* since the last set; of whoever took the page */
static _Atomic bool stop;
static struct worker workers[THREADS_MAX];
static uint32_t threads;
static uint64_t lives, rounds, operations, recounted, cleaned, punched, deleted;
static struct space_map *live_map;
static struct space_map *other_map;

#define CHECK_OK(call)                                                              \
    do {                                                                            \
        int code_ = (call);                                                         \
        KIT_CHECK(code_ == 0, "%s gave %d %s", #call, code_, kit_code_name(code_)); \
    } while (0)

/* Nothing is damaged here. */
static void
event_check(void *ctx, const scree_event *event)
{
    (void)ctx;
    KIT_CHECK(event->kind != SCREE_EVENT_DAMAGE, "DAMAGE at lsn %" PRIu64 ", %" PRIu64 " bytes: %s",
              event->lsn, event->bytes, event->text);
}

/* ---- the work ---- */

static uint32_t
len_draw(struct worker *w)
{
    uint64_t kind = kit_below(&w->random, 100);
    uint64_t most = kind < 70 ? 600 : kind < 97 ? 3000 : options.page_bytes_max - APPENDS_BYTES;

    return 24 + (uint32_t)kit_below(&w->random, most);
}

static scree_slice
chunk_draw(struct worker *w, uint32_t slot, uint32_t len)
{
    static _Thread_local unsigned char bytes[CHURN_PAGE_MAX];

    churn_chunk_make(bytes, w->serial++ << 8, slot, 7, len);
    return kit_slice(bytes, len);
}

static void
do_read(uint32_t slot, uint64_t id)
{
    static _Thread_local unsigned char bytes[CHURN_PAGE_MAX];
    size_t len = 0;
    int code = scree_page_read(cache, id, bytes, sizeof(bytes), &len, NULL);

    KIT_CHECK(code == 0 || code == SCREE_E_NOT_FOUND, "page %" PRIu64 " gave %d %s", id, code,
              kit_code_name(code));
    /* A freed id may be somebody else's by now. */
    if (code == 0 && atomic_load_explicit(&page[slot], memory_order_acquire) == id)
        KIT_CHECK(len == 0 || churn_page_is_whole(bytes, len, slot),
                  "page %" PRIu64 ": wrong bytes", id);
}

/* Free it and allocate another in its stead. */
static void
do_renew(struct worker *w, uint32_t slot)
{
    uint64_t id = atomic_exchange_explicit(&page[slot], 0, memory_order_acq_rel); /* E0 */
    scree_version version = 0;
    uint32_t len = kit_below(&w->random, 10) == 0 ? 0 : len_draw(w);
    int code;

    if (id == 0)
        return;
    do {
        code = scree_page_read(cache, id, NULL, 0, NULL, &version);
        KIT_CHECK(code == 0 || code == SCREE_E_TOO_BIG, "page %" PRIu64 " gave %d %s", id, code,
                  kit_code_name(code));
        code = scree_page_free(cache, id, &version);
    } while (code == SCREE_E_CONFLICT);
    CHECK_OK(code);
    appends[slot] = 0;
    CHECK_OK(scree_page_allocate(cache, len == 0 ? kit_slice(NULL, 0) : chunk_draw(w, slot, len),
                                 &id, NULL));
    atomic_store_explicit(&page[slot], id, memory_order_release); /* E1 */
}

static void
do_rare(struct worker *w)
{
    static const double targets[] = {0, 1.1, 1.5, 3};
    uint64_t kind = kit_below(&w->random, 40);

    if (kind == 0)
        CHECK_OK(scree_reclaim(cache, targets[kit_below(&w->random, 4)], NULL, NULL));
    else if (kind < 6)
        CHECK_OK(scree_snapshot(cache, NULL));
    else
        CHECK_OK(scree_flush(cache, NULL));
}

/* An update may land on a page that somebody frees meanwhile: on this id, NOT_FOUND; reused, on another's
   page, where its chunk would be a stranger. So updates take the page for themselves, too. */
static void
do_update(struct worker *w, uint32_t slot, bool put)
{
    uint64_t id = atomic_exchange_explicit(&page[slot], 0, memory_order_acq_rel); /* E0 */
    uint32_t len;

    if (id == 0)
        return;
    put = put || appends[slot] == APPENDS_MAX;
    len = put ? len_draw(w) : 24 + (uint32_t)kit_below(&w->random, APPEND_BYTES_MAX - 23);
    appends[slot] = put ? 0 : appends[slot] + 1;
    if (put)
        CHECK_OK(scree_page_put(cache, id, chunk_draw(w, slot, len), NULL));
    else
        CHECK_OK(scree_page_append(cache, id, chunk_draw(w, slot, len), NULL));
    atomic_store_explicit(&page[slot], id, memory_order_release); /* E1 */
}

static void *
worker_run(void *argument)
{
    struct worker *w = argument;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint32_t slot = (uint32_t)kit_below(&w->random, PAGES);
        uint64_t id = atomic_load_explicit(&page[slot], memory_order_acquire);
        uint64_t kind = kit_below(&w->random, 1000);

        if (kind < 400)
            do_update(w, slot, true);
        else if (kind < 700)
            do_update(w, slot, false);
        else if (kind < 890 && id != 0)
            do_read(slot, id);
        else if (kind < 990)
            do_renew(w, slot);
        else
            do_rare(w);
    }
    return NULL;
}

static void
work_round(void)
{
    atomic_store_explicit(&stop, false, memory_order_relaxed);
    for (uint32_t t = 0; t < threads; t++)
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, worker_run, &workers[t]) == 0, "thread");
    usleep(ROUND_MS * 1000);
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (uint32_t t = 0; t < threads; t++)
        pthread_join(workers[t].thread, NULL);
}

/* ---- looking ---- */

/* What recovery counts, with nothing written or cleaned beside it. */
static void
recount(const char *where, const char *what, bool holes_too)
{
    scree_options reading = options;
    scree_stats stats = {.size = sizeof(stats)};
    scree_cache *reader;

    reading.flags = SCREE_READ_ONLY;
    CHECK_OK(scree_open(where, &reading, &reader));
    space_map_take(reader, other_map);
    CHECK_OK(scree_stats_get(reader, &stats));
    KIT_CHECK(stats.live_bytes == other_map->live_bytes,
              "%s: statistics tell %" PRIu64 " live bytes, the segments' sum is %" PRIu64, what,
              stats.live_bytes, other_map->live_bytes);
    if (holes_too)
        space_map_check(other_map, &stats, where);
    space_map_same(live_map, other_map, what);
    CHECK_OK(scree_close(reader));
    recounted++;
}

static void
look(scree_stats *stats)
{
    CHECK_OK(scree_flush(cache, NULL));
    space_wait_quiet(cache, stats);
    space_map_take(cache, live_map);
    space_map_check(live_map, stats, dir);
    kit_dir_copy(dir, copy);
    recount(copy, "a copy recovered as after a crash", false);
    cleaned += stats->cleaned_bytes;
    punched += stats->punched_bytes;
    deleted += stats->deleted_bytes;
    operations += stats->sets + stats->appends + stats->frees;
}

static void
reopen(void)
{
    CHECK_OK(scree_close(cache));
    recount(dir, "the closed directory", true);
    CHECK_OK(scree_open(dir, &options, &cache));
}

/* Every page one set record of known length: what lives can be counted without asking. */
static void
books_check(void)
{
    scree_stats stats;
    uint64_t expected = 24; /* the root */
    uint64_t id = 0;
    uint64_t pages = 1;

    for (uint32_t slot = 0; slot < PAGES; slot++) {
        uint32_t len = len_draw(&workers[0]);

        id = atomic_load_explicit(&page[slot], memory_order_relaxed);
        CHECK_OK(scree_page_put(cache, id, chunk_draw(&workers[0], slot, len), NULL));
        expected += (24 + len + 7) / 8 * 8;
        pages++;
    }
    look(&stats);
    if (options.compression_level == 0)
        KIT_CHECK(stats.live_bytes >= expected && stats.live_bytes <= expected + 8 * pages,
                  "%" PRIu64 " live bytes; the records of %" PRIu64 " pages are %" PRIu64
                  ", at most 8 more each",
                  stats.live_bytes, pages, expected);
    reopen();
    for (uint32_t slot = 0; slot < PAGES; slot++)
        do_read(slot, atomic_load_explicit(&page[slot], memory_order_relaxed));
}

static void
options_draw(uint64_t life)
{
    static const double targets[] = {100, 1.5, 1.1};

    kit_options_small(&options, &kit_concat);
    options.cache_bytes = 256 * 1024;
    options.page_bytes_max = 16 * 1024;
    options.snapshot_log_bytes = 512 * 1024;
    options.space_amp_target = targets[life % 3];
    options.event = event_check;
    options.flags |= life % 4 == 2 ? SCREE_NO_PUNCH : 0;
    options.compression_level = life % 5 == 2;
    if (life % 2 == 1) { /* pages larger than a segment, segments of many granules */
        options.segment_bytes = life % 4 == 1 ? 512 * 1024 : 64 * 1024;
        options.log_buffer_bytes = 512 * 1024;
        options.page_bytes_max = 128 * 1024;
        options.cache_bytes = 1024 * 1024;
    }
}

static void
life_run(uint64_t seed, uint64_t life)
{
    scree_stats stats;
    scree_page_id id = 0;

    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", life %" PRIu64, seed, life);
    options_draw(life);
    kit_dir_remove(dir);
    CHECK_OK(scree_open(dir, &options, &cache));
    for (uint32_t t = 0; t < threads; t++)
        workers[t] = (struct worker){.random = (seed * 1000 + life) * 100 + t};
    for (uint32_t slot = 0; slot < PAGES; slot++) {
        CHECK_OK(scree_page_allocate(cache, chunk_draw(&workers[0], slot, 500), &id, NULL));
        atomic_store_explicit(&page[slot], id, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < ROUNDS; i++) {
        snprintf(kit_context, sizeof(kit_context),
                 "seed %" PRIu64 ", life %" PRIu64 ", round %" PRIu32 ", target %.2f%s", seed, life,
                 i, options.space_amp_target, options.flags & SCREE_NO_PUNCH ? ", no holes" : "");
        work_round();
        look(&stats);
        reopen();
        rounds++;
    }
    books_check();
    CHECK_OK(scree_close(cache));
    lives++;
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t seconds = kit_argument(argc, argv, 2, 10);
    uint64_t until = kit_now_ms() + seconds * 1000;

    threads = (uint32_t)kit_argument(argc, argv, 3, 4);
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    live_map = malloc(sizeof(*live_map));
    other_map = malloc(sizeof(*other_map));
    KIT_CHECK(live_map != NULL && other_map != NULL, "memory");
    kit_dir_name(dir, "space");
    kit_dir_name(copy, "space-copy");
    for (uint64_t life = seed; lives < 4 || kit_now_ms() < until; life++)
        life_run(seed, life);
    kit_dir_remove(dir);
    kit_dir_remove(copy);
    free(live_map);
    free(other_map);
    printf("stress_space: seed %" PRIu64 ", %" PRIu64 " lives of %" PRIu64 " rounds, %" PRIu64
           " updates, %" PRIu64 " recounts equal; bytes cleaned %" PRIu64 ", punched %" PRIu64
           ", deleted %" PRIu64 ": ok\n",
           seed, lives, rounds, operations, recounted, cleaned, punched, deleted);
    KIT_CHECK(cleaned > 0 && punched > 0 && deleted > 0, "too little happened");
    return 0;
}
