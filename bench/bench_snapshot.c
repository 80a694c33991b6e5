/*
 * bench_snapshot.c - what snapshots cost that hold only what changed.
 *
 * QUESTION  with so many pages, of which some in a thousand change between snapshots, uniformly: how many bytes
 *           does a delta take a changed page? How many bytes of snapshot files are written in all, merging
 *           included, beside those of the deltas? How long does the next open take?
 * FIXED     pages of 16 bytes, changed by fragments of 8, all evicted but those changed last. It alone
 *           takes snapshots. Nothing is cleaned or consolidated, which would change pages too: the target is
 *           high, fragments are few.
 * FOOLED BY counting fragments for pages: pages are drawn without repetition. The last merge not being over: it
 *           waits until no file is written any more. The OS cache: the open reads what was just written.
 *
 * bench_snapshot [pages (1000000) [changed in a thousand (10) [snapshots (100) [DIR (.)]]]]
 *
 * Prints one line of JSON; DIR/bench-snapshot is made and removed.
 */
#include "scree.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static scree_cache *cache;
static char path[512];
static scree_options options;

_Noreturn static void
fail(const char *what)
{
    (void)fprintf(stderr, "bench_snapshot: %s: %s\n", what, scree_error_detail());
    exit(1);
}

static uint64_t
random_next(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double
now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int
merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
      scree_out *out)
{
    int rc = base != NULL ? scree_out_append(out, base->data, base->len) : 0;

    (void)ctx, (void)id;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = scree_out_append(out, frags[i].data, frags[i].len);
    return rc;
}

static scree_stats
stats_now(void)
{
    scree_stats s = {.size = sizeof s};

    if (scree_stats_get(cache, &s) != 0)
        fail("stats");
    return s;
}

/* Until the background has merged what it wants to. */
static scree_stats
stats_settled(void)
{
    scree_stats s = stats_now(), before;
    unsigned same = 0;

    while (same < 10) {
        before = s;
        (void)usleep(300 * 1000);
        s = stats_now();
        same = s.snapshot_bytes == before.snapshot_bytes ? same + 1 : 0;
    }
    return s;
}

static void
pages_make(scree_page_id *id, uint64_t pages)
{
    unsigned char bytes[16] = {0};

    for (uint64_t i = 0; i < pages; i++) {
        memcpy(bytes, &i, sizeof i);
        if (scree_page_allocate(cache, (scree_slice){bytes, sizeof bytes}, &id[i], NULL) != 0)
            fail("allocate");
    }
}

/* The first `changed` of a shuffle that goes on from call to call: no page twice. */
static void
pages_change(scree_page_id *id, uint64_t pages, uint64_t changed, uint64_t *random)
{
    for (uint64_t i = 0; i < changed; i++) {
        uint64_t k = i + random_next(random) % (pages - i);
        scree_page_id chosen = id[k];

        id[k] = id[i];
        id[i] = chosen;
        if (scree_page_append(cache, chosen, (scree_slice){random, 8}, NULL) != 0)
            fail("append");
    }
}

static double
open_timed(void)
{
    double begin = now();

    if (scree_open(path, &options, &cache) != 0)
        fail("open");
    return now() - begin;
}

static void
report(uint64_t pages, uint64_t changed, uint64_t snapshots, const scree_stats *full,
       const scree_stats *end, double slowest, double opened)
{
    double deltas = (double)end->snapshot_delta_bytes - (double)full->snapshot_delta_bytes;
    double all = (double)end->snapshot_bytes - (double)full->snapshot_bytes;

    printf("{\"pages\": %" PRIu64 ", \"changed\": %" PRIu64 ", \"snapshots\": %" PRIu64
           ", \"full_bytes\": %" PRIu64 ", \"delta_bytes\": %.0f, \"merge_bytes\": %" PRIu64
           ", \"bytes_a_changed_page\": %.2f, \"all_to_deltas\": %.3f, \"disk_bytes\": %" PRIu64
           ", \"snapshot_s_max\": %.3f, \"open_s\": %.3f}\n",
           pages, changed, snapshots, full->snapshot_bytes, deltas, end->snapshot_merge_bytes,
           deltas / (double)(changed * snapshots), all / deltas, end->snapshot_disk_bytes, slowest,
           opened);
}

int
main(int argc, char **argv)
{
    uint64_t pages = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000000;
    uint64_t changed = pages * (argc > 2 ? strtoull(argv[2], NULL, 0) : 10) / 1000;
    uint64_t snapshots = argc > 3 ? strtoull(argv[3], NULL, 0) : 100, random = 1;
    scree_page_id *id = malloc((pages + 1) * sizeof *id);
    static const scree_materializer materializer = {
        .size = sizeof materializer, .name = "bytes", .version = 1, .merge = merge};
    double slowest = 0, opened, begin;
    scree_stats full, end;
    char command[600];

    if (id == NULL || changed == 0 || changed > pages)
        fail("arguments");
    (void)snprintf(path, sizeof path, "%s/bench-snapshot", argc > 4 ? argv[4] : ".");
    scree_options_init(&options);
    options.flags = SCREE_CREATE | SCREE_EXCLUSIVE;
    options.materializer = &materializer;
    options.snapshot_log_bytes = UINT64_C(1) << 60;
    options.space_amp_target = 100;
    options.fragments_max = 1000;
    (void)open_timed();
    options.flags = 0;
    pages_make(id, pages);
    if (scree_snapshot(cache, NULL) != 0)
        fail("snapshot");
    full = stats_now();
    for (uint64_t i = 0; i < snapshots; i++) {
        pages_change(id, pages, changed, &random);
        begin = now();
        if (scree_snapshot(cache, NULL) != 0)
            fail("snapshot");
        slowest = now() - begin > slowest ? now() - begin : slowest;
    }
    end = stats_settled();
    if (scree_close(cache) != 0)
        fail("close");
    opened = open_timed();
    if (stats_now().pages != pages + 1)
        fail("pages are missing");
    if (scree_close(cache) != 0)
        fail("close");
    report(pages, changed, snapshots, &full, &end, slowest, opened);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", path);
    free(id);
    return system(command) == 0 ? 0 : 1;
}
