/*
 * stress_burst.c - writers that outran cleaning and then stopped are cleaned up after.
 *
 * GOAL      what cleaning may win is won also when nothing is written any more: by writers who are held up
 *           because the disk is too full, or who just ended.
 * METHOD    threads append to pages at random, faster than the janitor cleans, for a moment; then nobody
 *           writes. Small segments, snapshots often, so that most of what is dead lies beside something that
 *           lives.
 * ORACLE    before long the dead bytes that only cleaning can win are as few as the janitor promises to
 *           leave (space.c), and a page read back is what was appended.
 *
 * stress_burst [seed] [seconds] [threads]
 *
 * WORD   stop: relaxed, a flag.   EDGES none.   LIFETIME static.   PROGRESS bounded waits.
 * FAILURE  is the matter.   NOT HERE  how far it goes while they write (stress_bounded).
 */
#include "pagecache/pagecache_private.h"
#include "support/kit.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define PAGES 8000u
#define PAGE_BYTES 1024u
#define FRAGMENT_BYTES 64u
#define FRAGMENTS_MAX 16u
#define WAIT_MS 20000u
#define THREADS_MAX 16u

static scree_cache *cache;
static scree_page_id ids[PAGES];
static _Atomic bool stop;

/* A count, then base and fragments; beyond a number of them all are forgotten again. */
static int
merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
      scree_out *out)
{
    uint32_t count = 0;
    unsigned char *page;
    size_t len;

    (void)ctx, (void)id, (void)frags;
    if (base != NULL)
        memcpy(&count, base->data, sizeof(count));
    count = (count + (uint32_t)n) % FRAGMENTS_MAX;
    len = PAGE_BYTES + count * FRAGMENT_BYTES;
    page = scree_out_reserve(out, len);
    if (page == NULL)
        return SCREE_E_NO_MEMORY;
    memset(page, (int)(id % 251), len);
    memcpy(page, &count, sizeof(count));
    return 0;
}

static const scree_materializer materializer = {
    .size = sizeof(materializer), .name = "burst", .version = 1, .merge = merge};

static void *
append(void *arg)
{
    uint64_t random = *(uint64_t *)arg;
    char fragment[FRAGMENT_BYTES] = {1};

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        scree_page_id id = ids[kit_below(&random, PAGES)];
        int rc = scree_page_append(cache, id, kit_slice(fragment, sizeof(fragment)), NULL);

        KIT_CHECK(rc == 0, "append: %d %s", rc, scree_error_detail());
    }
    return NULL;
}

/* How much more lies dead beside what lives than the janitor promises to leave; 0: none. */
static uint64_t
excess(void)
{
    struct scree__log_space space;
    uint64_t slack, beside, least, allowed;

    scree__log_space(cache->log, &space);
    slack = (uint64_t)((cache->options.space_amp_target - 1) * (double)space.live_bytes);
    beside =
        space.disk_bytes - scree__min_u64(space.disk_bytes, space.live_bytes + space.sparse_bytes);
    least = scree__space_sparse_allowed(cache, slack);
    allowed = scree__max_u64(slack, least + 2 * scree__checkpoint_volume(cache));
    allowed = scree__max_u64(allowed - scree__min_u64(allowed, beside), least);
    return space.sparse_bytes - scree__min_u64(space.sparse_bytes, allowed);
}

static void
burst(uint64_t *random, unsigned threads)
{
    pthread_t thread[THREADS_MAX];
    uint64_t seed[THREADS_MAX], begin;

    atomic_store_explicit(&stop, false, memory_order_relaxed);
    for (unsigned i = 0; i < threads; i++) {
        seed[i] = kit_random(random);
        KIT_CHECK(pthread_create(&thread[i], NULL, append, &seed[i]) == 0, "a thread");
    }
    (void)usleep((useconds_t)(50000 + kit_below(random, 300000)));
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < threads; i++)
        KIT_CHECK(pthread_join(thread[i], NULL) == 0, "join");
    begin = kit_now_ms();
    while (excess() > 0) {
        KIT_CHECK(kit_now_ms() - begin < WAIT_MS,
                  "%llu bytes too much lie dead beside what lives, and nobody cleans",
                  (unsigned long long)excess());
        (void)usleep(2000);
    }
}

static void
make(const char *dir)
{
    scree_options options;
    unsigned char page[PAGE_BYTES] = {0};
    int rc;

    kit_options_small(&options, &materializer);
    options.cache_bytes = 64 << 20;
    options.segment_bytes = 1 << 20;
    options.log_buffer_bytes = 4 << 20;
    options.fragments_max = FRAGMENTS_MAX;
    options.snapshot_log_bytes = 2 << 20;
    options.flush_interval_ms = 100;
    rc = scree_open(dir, &options, &cache);
    KIT_CHECK(rc == 0, "open: %d %s", rc, scree_error_detail());
    for (unsigned i = 0; i < PAGES; i++) {
        rc = scree_page_allocate(cache, kit_slice(page, sizeof(page)), &ids[i], NULL);
        KIT_CHECK(rc == 0, "allocate: %d %s", rc, scree_error_detail());
    }
}

static void
look(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        static unsigned char page[PAGE_BYTES + FRAGMENTS_MAX * FRAGMENT_BYTES];
        uint32_t count;
        size_t len;
        int rc = scree_page_read(cache, ids[i], page, sizeof(page), &len, NULL);

        KIT_CHECK(rc == 0, "read: %d %s", rc, scree_error_detail());
        memcpy(&count, page, sizeof(count));
        KIT_CHECK(len == PAGE_BYTES + count * FRAGMENT_BYTES, "page %u: %zu bytes", i, len);
    }
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1), ms = kit_argument(argc, argv, 2, 6) * 1000;
    uint64_t threads = kit_argument(argc, argv, 3, 4), random = seed, begin = kit_now_ms();
    uint64_t rounds = 0;
    char dir[KIT_PATH_MAX];

    (void)snprintf(kit_context, sizeof(kit_context), "seed %llu", (unsigned long long)seed);
    threads = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads;
    kit_dir_name(dir, "burst");
    make(dir);
    while (rounds < 12 || kit_now_ms() - begin < ms) {
        burst(&random, (unsigned)threads);
        rounds++;
    }
    look();
    KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
    kit_dir_remove(dir);
    printf("stress_burst: seed %llu, %llu bursts, cleaned up after each: ok\n",
           (unsigned long long)seed, (unsigned long long)rounds);
    return 0;
}
