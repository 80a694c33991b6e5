/*
 * test_restart.c - what a killed process had written but not synced is made durable before anything is built on
 * it (R1 of restart.c), seen by a power cut after the next process has acknowledged more.
 *
 * The process dies where bytes of several segments are not durable; the next one finds them all, as a kill
 * loses nothing. Then the power goes, and what no sync covered is gone.
 */
#include "cache_fixture.h"
#include "support/sim_disk.h"

#define PAGES 60u
#define PAGE 2500u /* 150 KB of log: three segments, and less than what is synced unasked */

static struct sim_disk *disk;

TestSuite(restart, .timeout = 300);

static void
open_on(struct sim_disk *of)
{
    options.env = sim_disk_env(of);
    EXPECT(0, scree_open("/d", &options, &cache));
}

/* The disk as a kill leaves it behind pages that nobody asked to be durable. */
static struct sim_disk *
killed(void)
{
    static char bytes[PAGE];
    struct sim_replay *replay;
    struct sim_disk *after;
    uint64_t events, dies;

    open_on(disk);
    memset(bytes, 'k', sizeof(bytes));
    for (uint64_t i = 0; i < PAGES; i++)
        EXPECT(0, scree_page_allocate_at(cache, 100 + i, kit_slice(bytes, sizeof(bytes)), NULL));
    dies = sim_disk_events(disk);
    EXPECT(0, scree_close(cache)); /* behind its death: it is not in what comes out */
    replay = sim_replay_new(disk);
    while (sim_replay_cut(replay) < dies)
        cr_assert(sim_replay_advance(replay));
    cr_assert(sim_replay_undecided(replay) > 1, "%u files are not durable",
              sim_replay_undecided(replay));
    after = sim_replay_kill(replay, 1, &events);
    sim_replay_free(replay);
    return after;
}

/* The disk as a power cut leaves it behind `events`: nothing that was not synced is there. */
static struct sim_disk *
cut_at(struct sim_disk *of, uint64_t events)
{
    struct sim_replay *replay = sim_replay_new(of);
    struct sim_image *image;
    struct sim_disk *after;

    while (sim_replay_cut(replay) < events)
        cr_assert(sim_replay_advance(replay));
    image = sim_replay_state(replay, 0, 2, 1);
    after = sim_disk_new(image, 2);
    sim_image_free(image);
    sim_replay_free(replay);
    return after;
}

static uint64_t
pages_there(void)
{
    uint64_t n = 0;

    while (n < PAGES && scree_page_read(cache, 100 + n, NULL, 0, NULL, NULL) == SCREE_E_TOO_BIG)
        n++;
    return n;
}

Test(restart, what_a_kill_left_unsynced_is_durable_before_more_is_acknowledged)
{
    struct sim_disk *second, *third;
    uint64_t found, acknowledged;

    kit_options_small(&options, &kit_concat);
    options.flush_interval_ms = 0;
    options.cache_bytes = 4u << 20; /* eviction needs what is durable */
    disk = sim_disk_new(NULL, 1);
    second = killed();
    open_on(second);
    found = pages_there();
    cr_assert(found > 0, "the kill left nothing to be lost");
    EXPECT(0, scree_page_allocate_at(cache, 99, text("more"), NULL));
    EXPECT(0, scree_flush(cache, NULL));
    acknowledged = sim_disk_events(second);
    EXPECT(0, scree_close(cache));
    third = cut_at(second, acknowledged);
    open_on(third);
    cr_assert(pages_there() == found, "%llu of %llu pages", (unsigned long long)pages_there(),
              (unsigned long long)found);
    cr_assert(scree_page_read(cache, 99, NULL, 0, NULL, NULL) == SCREE_E_TOO_BIG, "it is there");
    EXPECT(0, scree_close(cache));
    cache = NULL;
    sim_disk_free(third);
    sim_disk_free(second);
    sim_disk_free(disk);
}
