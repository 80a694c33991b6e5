/*
 * stress_bounded.c - for ever: disk, files and memory stay where they are, however much is written (P5).
 *
 * GOAL      a directory that is written to 100 times over does not grow, with holes and without; a single page
 *           overwritten 50,000 times stays within two segments.
 * METHOD    for ever: about 4 MiB of live pages, segments of 64 KiB or 1 MiB, a small cache; puts, appends,
 *           frees and allocates until 100 times the live bytes are written. Every hundredth of it: files, their
 *           blocks, memory, and P5's bound. finite keys: one page of 4 KiB, default options but for a small
 *           cache.
 * ORACLE    P5: disk <= space_amp_target x live + 3 x the log between snapshots + 2 segments + ring + 2 page
 *           tables, at every look, and flat: the last quarter's maximum is at most 1.15 times the third's, and
 *           a little. The pages are right at the end and after a reopen (churn.h).
 * NOT HERE  exact books (stress_space), full disks (crash_full, crash_tmpfs_full).
 *
 * stress_bounded [seed] [unused: seconds] [unused: threads] [times over, 100] [overwrites, 50000]
 */
#include "support/churn.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define TIMES KIT_MUCH(100u, 20u, 40u)
#define OVERWRITES KIT_MUCH(50000u, 10000u, 20000u)
#define SAMPLES 100u
#define SLOTS 2000u
#define LEN_MIN 1000u
#define LEN_MAX 3000u
#define MIB (1024.0 * 1024.0)
#define SMALL_FILES (64.0 * 1024.0) /* manifests, mark, warning: a block or two each */
#define KEPT_FILES 12u              /* they and snapshots, .tmp too */

/* What is looked at. */
struct sample {
    uint64_t disk, files, memory;
};

static char dir[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;
static struct churn *c;
static uint64_t seed;

#define CHECK_OK(call)                                                              \
    do {                                                                            \
        int code_ = (call);                                                         \
        KIT_CHECK(code_ == 0, "%s gave %d %s", #call, code_, kit_code_name(code_)); \
    } while (0)

/* P5, in bytes. The automatic interval between snapshots: docs/impl.md, its largest term here. */
static double
bound(const scree_stats *stats)
{
    double live = (double)stats->live_bytes;
    double between = (double)options.snapshot_log_bytes;
    double table = (double)stats->snapshot_disk_bytes; /* of the generations kept */

    if (options.snapshot_log_bytes == 0) {
        between = 2 * live < 512 * MIB ? 2 * live : 512 * MIB;
        between = between < 64 * MIB ? 64 * MIB : between;
        between = between < 16 * table ? 16 * table : between;
    }
    if (table < (double)stats->pages * 24 * 2)
        table = (double)stats->pages * 24 * 2;
    return options.space_amp_target * live + 3 * between + 4 * (double)options.segment_bytes +
           (double)options.log_buffer_bytes + table + SMALL_FILES;
}

/* P5's other half. The overhead: what is on its way to the free lists, and a merged page a thread. */
static void
memory_check(const scree_stats *stats)
{
    KIT_CHECK(stats->resident_bytes <=
                  options.cache_bytes + options.log_buffer_bytes + 4 * options.page_bytes_max,
              "%" PRIu64 " bytes resident, the cache is %" PRIu64, stats->resident_bytes,
              options.cache_bytes);
}

static struct sample
look(void)
{
    scree_stats stats = {.size = sizeof(stats)};
    struct sample s = {.memory = kit_memory_bytes()};
    uint32_t files = 0;

    s.disk = kit_dir_disk_bytes(dir, "", &files);
    s.files = files;
    CHECK_OK(scree_stats_get(cache, &stats));
    KIT_CHECK((double)s.disk <= bound(&stats),
              "%" PRIu64 " bytes on disk, P5 says %.0f: %" PRIu64 " live, %" PRIu64
              " dead, %" PRIu64 " waiting, %" PRIu64 " segments, %" PRIu64 " of snapshots",
              s.disk, bound(&stats), stats.live_bytes, stats.dead_bytes, stats.waiting_bytes,
              stats.segments, stats.snapshot_disk_bytes);
    memory_check(&stats);
    return s;
}

static uint64_t
max_of(const struct sample *samples, uint32_t from, uint32_t to, size_t field)
{
    uint64_t max = 0;

    for (uint32_t i = from; i < to; i++) {
        uint64_t value;

        memcpy(&value, (const unsigned char *)&samples[i] + field, sizeof(value));
        max = value > max ? value : max;
    }
    return max;
}

static void
flat_check(const struct sample *samples, const char *what, size_t field, uint64_t slack)
{
    uint64_t third = max_of(samples, SAMPLES / 2, SAMPLES * 3 / 4, field);
    uint64_t last = max_of(samples, SAMPLES * 3 / 4, SAMPLES, field);

    KIT_CHECK(last <= third + third * 15 / 100 + slack,
              "%s grows: at most %" PRIu64 " in the first quarter, %" PRIu64
              " in the third, %" PRIu64 " in the last",
              what, max_of(samples, 0, SAMPLES / 4, field), third, last);
}

static void
forever_run(uint64_t times, uint64_t segment_bytes, uint32_t flags)
{
    static const struct churn_mix mix = {.put = 70, .append = 25, .free = 5};
    static struct sample samples[SAMPLES];
    uint64_t live;
    uint64_t step;

    snprintf(kit_context, sizeof(kit_context),
             "seed %" PRIu64 ", for ever, segments of %" PRIu64 "%s", seed, segment_bytes,
             flags & SCREE_NO_PUNCH ? ", no holes" : "");
    c = churn_new(seed, SLOTS, LEN_MIN, LEN_MAX);
    c->page_max = 3800;
    kit_dir_name(dir, "bounded");
    kit_options_small(&options, &kit_concat);
    options.flags |= flags;
    options.segment_bytes = segment_bytes;
    options.cache_bytes = 512 * 1024;
    options.log_buffer_bytes = 256 * 1024;
    options.snapshot_log_bytes = 1024 * 1024;
    options.flush_interval_ms = 5;
    CHECK_OK(scree_open(dir, &options, &cache));
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        CHECK_OK(churn_put(c, cache, slot));
    live = churn_live_bytes(c);
    step = live * times / SAMPLES;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        for (uint64_t until = c->bytes + step; c->bytes < until;)
            CHECK_OK(churn_step(c, cache, &mix));
        samples[i] = look();
    }
    churn_check(c, cache);
    flat_check(samples, "disk", offsetof(struct sample, disk), 2 * options.segment_bytes);
    flat_check(samples, "the number of files", offsetof(struct sample, files), 2 + KEPT_FILES);
#ifndef KIT_SANITIZED /* they keep what is freed for a while */
    flat_check(samples, "memory", offsetof(struct sample, memory), 8u << 20);
#endif
    CHECK_OK(scree_close(cache));
    CHECK_OK(scree_open(dir, &options, &cache));
    churn_check(c, cache);
    (void)look();
    CHECK_OK(scree_close(cache));
    printf("stress_bounded: seed %" PRIu64 ", for ever, segments of %" PRIu64 "%s: %" PRIu64
           " bytes live, %" PRIu64 " written, at most %" PRIu64 " on disk in %" PRIu64
           " files, %" PRIu64 " of memory, ok\n",
           seed, segment_bytes, flags & SCREE_NO_PUNCH ? ", no holes" : "", live, c->bytes,
           max_of(samples, 0, SAMPLES, offsetof(struct sample, disk)),
           max_of(samples, 0, SAMPLES, offsetof(struct sample, files)),
           max_of(samples, 0, SAMPLES, offsetof(struct sample, memory)));
    kit_dir_remove(dir);
    churn_delete(c);
}

static void
finite_run(uint64_t overwrites)
{
    uint64_t most = 0;
    uint64_t disk;

    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", finite keys", seed);
    c = churn_new(seed, 1, 4096, 4096);
    kit_dir_name(dir, "finite");
    scree_options_init(&options);
    options.flags = SCREE_CREATE;
    options.materializer = &kit_concat;
    options.cache_bytes = 1u << 20;
    CHECK_OK(scree_open(dir, &options, &cache));
    for (uint64_t i = 0; i < overwrites; i++) {
        CHECK_OK(churn_put(c, cache, 0));
        if (i % (overwrites / SAMPLES + 1) == 0) {
            uint64_t now = look().disk;

            most = now > most ? now : most;
        }
    }
    CHECK_OK(scree_close(cache));
    disk = kit_dir_disk_bytes(dir, "", NULL);
    KIT_CHECK(disk < 2 * options.segment_bytes + (1u << 20),
              "one page of 4 KiB, overwritten %" PRIu64 " times: %" PRIu64 " bytes on disk",
              overwrites, disk);
    CHECK_OK(scree_open(dir, &options, &cache));
    churn_check(c, cache);
    CHECK_OK(scree_close(cache));
    printf("stress_bounded: seed %" PRIu64 ", finite keys: %" PRIu64
           " overwrites of 4 KiB, at most %" PRIu64 " bytes on disk, closed %" PRIu64 ", ok\n",
           seed, overwrites, most, disk);
    kit_dir_remove(dir);
    churn_delete(c);
}

int
main(int argc, char **argv)
{
    uint64_t times = kit_argument(argc, argv, 4, TIMES);
    uint64_t overwrites = kit_argument(argc, argv, 5, OVERWRITES);

    seed = kit_argument(argc, argv, 1, 1);
    forever_run(times, 64 * 1024, 0);
    forever_run(times, 64 * 1024, SCREE_NO_PUNCH);
    forever_run(times, 1024 * 1024, 0); /* 16 granules: holes */
    finite_run(overwrites);
    return 0;
}
