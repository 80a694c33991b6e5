/*
 * test_sim_disk.c - the disk in memory itself: what a power cut may leave of what was done, and what not.
 *
 * Every state at a cut is built, as the cuts here have few undecided units.
 */
#include "support/sim_disk.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <string.h>

#define MOST 4096u
#define BLOCK_BYTES 4096u

static struct sim_disk *disk;
static const scree_env *env;

static void
set_up(void)
{
    disk = sim_disk_new(NULL, 1);
    env = sim_disk_env(disk);
    cr_assert(eq(int, env->mkdir(env->ctx, "/d"), 0));
    cr_assert(eq(int, env->sync_dir(env->ctx, "/"), 0));
}

static void
tear_down(void)
{
    sim_disk_free(disk);
}

TestSuite(sim_disk, .init = set_up, .fini = tear_down, .timeout = 180);

/* ---- what is done ---- */

static int
file_make(const char *path)
{
    int file = env->open(env->ctx, path, SCREE_ENV_READ | SCREE_ENV_WRITE | SCREE_ENV_CREATE);

    cr_assert(ge(int, file, 0));
    return file;
}

/* A file that is durable, name and all: n times this byte. */
static int
file_durable(const char *path, char byte, size_t n)
{
    char bytes[4 * BLOCK_BYTES];
    int file = file_make(path);

    memset(bytes, byte, n);
    cr_assert(eq(i64, env->write(env->ctx, file, bytes, n, 0), (int64_t)n));
    cr_assert(eq(int, env->sync(env->ctx, file), 0));
    cr_assert(eq(int, env->sync_dir(env->ctx, "/d"), 0));
    return file;
}

static void
file_write(int file, char byte, size_t n, uint64_t offset)
{
    char bytes[4 * BLOCK_BYTES];

    memset(bytes, byte, n);
    cr_assert(eq(i64, env->write(env->ctx, file, bytes, n, offset), (int64_t)n));
}

/* ---- what may be found ---- */

/* The bytes of a file in an image, as far as they go into `bytes`; -1: it is not there. */
static int64_t
image_file(const struct sim_image *image, const char *path, char *bytes, size_t cap)
{
    for (size_t i = 0; i < sim_image_files(image); i++) {
        uint64_t size;

        if (strcmp(sim_image_name(image, i, &size), path) == 0) {
            (void)sim_image_get(image, i, 0, bytes, cap);
            return (int64_t)size;
        }
    }
    return -1;
}

/* Calls see for every state that there may be now, or while the next event was under way. */
static size_t
states_each(uint64_t cut, void (*see)(void *ctx, const struct sim_image *image), void *ctx)
{
    struct sim_replay *r = sim_replay_new(disk);
    uint64_t choices;

    while (sim_replay_cut(r) < cut)
        cr_assert(sim_replay_advance(r));
    choices = sim_replay_choices(r, MOST);
    for (uint64_t choice = 0; choice < choices; choice++) {
        struct sim_image *image = sim_replay_state(r, choice, MOST, 7);

        see(ctx, image);
        sim_image_free(image);
    }
    sim_replay_free(r);
    return (size_t)choices;
}

/* How often a file was seen: missing, of each size in blocks, of each byte at one place. */
struct tally {
    const char *path;
    uint64_t at;
    size_t n, missing, size[8], byte[256];
};

static void
tally_see(void *ctx, const struct sim_image *image)
{
    struct tally *t = ctx;
    char bytes[8 * BLOCK_BYTES] = {0};
    int64_t size = image_file(image, t->path, bytes, sizeof(bytes));

    t->n++;
    t->missing += size < 0;
    if (size < 0)
        return;
    t->size[size / BLOCK_BYTES]++;
    if ((uint64_t)size > t->at)
        t->byte[(unsigned char)bytes[t->at]]++;
}

static struct tally
tally_now(const char *path, uint64_t at)
{
    struct tally t = {.path = path, .at = at};

    (void)states_each(sim_disk_events(disk), tally_see, &t);
    return t;
}

Test(sim_disk, unsynced_write_is_there_or_not)
{
    int file = file_durable("/d/a", 'o', BLOCK_BYTES);
    struct tally t;

    file_write(file, 'n', 512, 512);
    t = tally_now("/d/a", 512);
    cr_assert(gt(sz, t.byte['o'], 0));
    cr_assert(gt(sz, t.byte['n'], 0));
    cr_assert(eq(sz, t.byte['o'] + t.byte['n'], t.n));
    t = tally_now("/d/a", 0);
    cr_assert(eq(sz, t.byte['o'], t.n), "what was not written does not change");
}

Test(sim_disk, each_sector_is_kept_or_lost_by_itself)
{
    int file = file_durable("/d/a", 'o', BLOCK_BYTES);
    struct sim_replay *r;
    bool met[4] = {false};

    file_write(file, 'n', 1024, 0);
    r = sim_replay_new(disk);
    while (sim_replay_advance(r))
        continue;
    for (uint64_t c = 0; c < sim_replay_choices(r, MOST); c++) {
        struct sim_image *image = sim_replay_state(r, c, MOST, 1);
        char bytes[1024];

        cr_assert(eq(i64, image_file(image, "/d/a", bytes, sizeof(bytes)), BLOCK_BYTES));
        met[(bytes[0] == 'n') + 2 * (bytes[512] == 'n')] = true;
        sim_image_free(image);
    }
    sim_replay_free(r);
    cr_assert(met[0] && met[1] && met[2] && met[3]);
}

Test(sim_disk, synced_write_stays)
{
    int file = file_durable("/d/a", 'o', BLOCK_BYTES);
    struct tally t;

    file_write(file, 'n', BLOCK_BYTES, 0);
    cr_assert(eq(int, env->sync(env->ctx, file), 0));
    t = tally_now("/d/a", 4000);
    cr_assert(eq(sz, t.byte['n'], t.n));
    cr_assert(eq(sz, t.n, 1), "nothing is undecided");
}

Test(sim_disk, write_under_way_may_be_torn_in_a_sector)
{
    int file = file_durable("/d/a", 'o', BLOCK_BYTES);
    uint64_t before = sim_disk_events(disk);
    struct sim_replay *r;
    bool torn = false;

    file_write(file, 'n', 512, 0);
    r = sim_replay_new(disk);
    while (sim_replay_cut(r) < before)
        cr_assert(sim_replay_advance(r));
    for (uint64_t seed = 0; seed < 200; seed++)
        for (uint64_t c = 0; c < sim_replay_choices(r, MOST); c++) {
            struct sim_image *image = sim_replay_state(r, c, MOST, seed);
            char bytes[512];

            (void)image_file(image, "/d/a", bytes, sizeof(bytes));
            torn |= bytes[0] == 'n' && bytes[511] == 'o';
            cr_assert(bytes[0] == 'n' || bytes[511] == 'o');
            sim_image_free(image);
        }
    sim_replay_free(r);
    cr_assert(torn);
}

Test(sim_disk, failed_sync_leaves_it_open_for_ever)
{
    int file = file_durable("/d/a", 'o', BLOCK_BYTES);
    struct tally t;

    file_write(file, 'n', 512, 0);
    sim_disk_plan(disk, &(struct kit_plan){
                            .kinds = KIT_SYNC, .fault = KIT_FAULT_CODE, .code = -EIO, .at = 1});
    cr_assert(eq(int, env->sync(env->ctx, file), -EIO));
    cr_assert(eq(u32, sim_disk_hit(disk), KIT_SYNC));
    file_write(file, 'm', 512, 512);
    cr_assert(eq(int, env->sync(env->ctx, file), 0));
    t = tally_now("/d/a", 0);
    cr_assert(gt(sz, t.byte['o'], 0));
    cr_assert(gt(sz, t.byte['n'], 0));
    t = tally_now("/d/a", 512);
    cr_assert(eq(sz, t.byte['m'], t.n), "what came after it is durable");
}

Test(sim_disk, synced_file_without_its_name_is_lost)
{
    int file = file_make("/d/a");
    struct tally t;

    file_write(file, 'n', BLOCK_BYTES, 0);
    cr_assert(eq(int, env->sync(env->ctx, file), 0));
    t = tally_now("/d/a", 0);
    cr_assert(gt(sz, t.missing, 0));
    cr_assert(eq(sz, t.byte['n'], t.n - t.missing));
    cr_assert(eq(int, env->sync_dir(env->ctx, "/d"), 0));
    t = tally_now("/d/a", 0);
    cr_assert(eq(sz, t.missing, 0));
}

Test(sim_disk, name_without_its_bytes_may_be_found)
{
    int file = file_make("/d/a");
    struct tally t;

    file_write(file, 'n', BLOCK_BYTES, 0);
    cr_assert(eq(int, env->sync_dir(env->ctx, "/d"), 0));
    t = tally_now("/d/a", 0);
    cr_assert(eq(sz, t.missing, 0));
    cr_assert(gt(sz, t.size[0], 0), "no growth, no bytes");
    cr_assert(gt(sz, t.byte[0], 0), "growth without bytes");
    cr_assert(gt(sz, t.byte['n'], 0));
}

struct pair {
    size_t old_name, new_name, both, none, mixed;
};

static void
pair_see(void *ctx, const struct sim_image *image)
{
    struct pair *p = ctx;
    char bytes[1] = {0};
    bool from = image_file(image, "/d/tmp", bytes, 1) >= 0;
    bool to = image_file(image, "/d/a", bytes, 1) >= 0;

    p->none += !to;
    p->mixed += to && bytes[0] != 'o' && bytes[0] != 'n';
    p->old_name += to && bytes[0] == 'o' && from;
    p->new_name += to && bytes[0] == 'n' && !from;
    p->both += to && bytes[0] == 'n' && from;
}

Test(sim_disk, rename_is_atomic_and_lost_without_a_sync)
{
    struct pair p = {0};

    (void)file_durable("/d/a", 'o', 512);
    (void)file_durable("/d/tmp", 'n', 512);
    cr_assert(eq(int, env->rename(env->ctx, "/d/tmp", "/d/a"), 0));
    (void)states_each(sim_disk_events(disk), pair_see, &p);
    cr_assert(gt(sz, p.old_name, 0));
    cr_assert(gt(sz, p.new_name, 0));
    cr_assert(eq(sz, p.none + p.mixed + p.both, 0));
    cr_assert(eq(int, env->sync_dir(env->ctx, "/d"), 0));
    p = (struct pair){0};
    (void)states_each(sim_disk_events(disk), pair_see, &p);
    cr_assert(eq(sz, p.old_name, 0));
    cr_assert(eq(sz, p.new_name, 1));
}

Test(sim_disk, unlink_may_be_lost_without_a_sync)
{
    struct tally t;

    (void)file_durable("/d/a", 'o', 512);
    cr_assert(eq(int, env->unlink(env->ctx, "/d/a"), 0));
    t = tally_now("/d/a", 0);
    cr_assert(gt(sz, t.missing, 0));
    cr_assert(gt(sz, t.byte['o'], 0));
    cr_assert(eq(int, env->sync_dir(env->ctx, "/d"), 0));
    t = tally_now("/d/a", 0);
    cr_assert(eq(sz, t.missing, t.n));
}

Test(sim_disk, directory_without_a_sync_takes_its_files_with_it)
{
    struct tally t;
    int file;

    cr_assert(eq(int, env->mkdir(env->ctx, "/e"), 0));
    file = file_make("/e/a");
    file_write(file, 'n', 512, 0);
    cr_assert(eq(int, env->sync(env->ctx, file), 0));
    cr_assert(eq(int, env->sync_dir(env->ctx, "/e"), 0));
    t = tally_now("/e/a", 0);
    cr_assert(gt(sz, t.missing, 0));
    cr_assert(eq(int, env->sync_dir(env->ctx, "/"), 0));
    t = tally_now("/e/a", 0);
    cr_assert(eq(sz, t.missing, 0));
}

Test(sim_disk, truncation_and_growth_are_undecided_until_synced)
{
    int file = file_durable("/d/a", 'o', 2 * BLOCK_BYTES);
    struct tally t;

    cr_assert(eq(int, env->truncate(env->ctx, file, BLOCK_BYTES), 0));
    t = tally_now("/d/a", 0);
    cr_assert(gt(sz, t.size[1], 0));
    cr_assert(gt(sz, t.size[2], 0));
    cr_assert(eq(int, env->sync(env->ctx, file), 0));
    cr_assert(eq(int, env->allocate(env->ctx, file, BLOCK_BYTES, 2 * BLOCK_BYTES), 0));
    t = tally_now("/d/a", BLOCK_BYTES);
    cr_assert(gt(sz, t.size[1], 0));
    cr_assert(gt(sz, t.size[3], 0));
    cr_assert(eq(sz, t.byte['o'], 0), "what was cut off does not come back as it was");
}

Test(sim_disk, holes_read_as_zeros_and_come_block_by_block)
{
    int file = file_durable("/d/a", 'o', 4 * BLOCK_BYTES);
    uint64_t used = sim_disk_used(disk), begin = 0, end = 0;
    scree_env_info info;
    struct tally t;

    cr_assert(eq(int, env->punch(env->ctx, file, BLOCK_BYTES, 2 * BLOCK_BYTES), 0));
    cr_assert(eq(u64, sim_disk_used(disk), used - 2 * BLOCK_BYTES));
    cr_assert(eq(int, env->info(env->ctx, file, &info), 0));
    cr_assert(eq(u64, info.size_bytes, 4 * BLOCK_BYTES));
    cr_assert(eq(u64, info.disk_bytes, 2 * BLOCK_BYTES));
    cr_assert(eq(int, env->data_range(env->ctx, file, BLOCK_BYTES, &begin, &end), 0));
    cr_assert(eq(u64, begin, 3 * BLOCK_BYTES));
    cr_assert(eq(u64, end, 4 * BLOCK_BYTES));
    t = tally_now("/d/a", BLOCK_BYTES);
    cr_assert(gt(sz, t.byte['o'], 0));
    cr_assert(gt(sz, t.byte[0], 0));
    cr_assert(eq(int, env->sync(env->ctx, file), 0));
    t = tally_now("/d/a", BLOCK_BYTES);
    cr_assert(eq(sz, t.byte[0], t.n));
    sim_disk_abilities(disk, 0);
    cr_assert(eq(int, env->punch(env->ctx, file, 0, BLOCK_BYTES), -EOPNOTSUPP));
}

Test(sim_disk, full_disk_says_so_and_takes_again_what_was_freed)
{
    int file = file_durable("/d/a", 'o', BLOCK_BYTES);
    char bytes[BLOCK_BYTES] = {0};

    sim_disk_limit(disk, sim_disk_used(disk) + BLOCK_BYTES);
    cr_assert(eq(i64, env->write(env->ctx, file, bytes, sizeof(bytes), BLOCK_BYTES),
                 (int64_t)BLOCK_BYTES));
    cr_assert(eq(i64, env->write(env->ctx, file, bytes, sizeof(bytes), 2 * BLOCK_BYTES), -ENOSPC));
    cr_assert(eq(int, env->allocate(env->ctx, file, 2 * BLOCK_BYTES, BLOCK_BYTES), -ENOSPC));
    cr_assert(eq(i64, env->write(env->ctx, file, bytes, sizeof(bytes), 0), (int64_t)BLOCK_BYTES),
              "what is there can be written to");
    cr_assert(eq(int, env->punch(env->ctx, file, 0, BLOCK_BYTES), 0));
    cr_assert(eq(int, env->allocate(env->ctx, file, 2 * BLOCK_BYTES, BLOCK_BYTES), 0));
}

Test(sim_disk, locks_keep_writers_apart)
{
    int64_t holder = 0;
    int shared = env->lock(env->ctx, "/d", 1, &holder), other, alone;

    cr_assert(ge(int, shared, 0));
    other = env->lock(env->ctx, "/d/", 1, &holder);
    cr_assert(ge(int, other, 0));
    cr_assert(eq(int, env->lock(env->ctx, "/d", 0, &holder), -EWOULDBLOCK));
    cr_assert(gt(i64, holder, 0));
    cr_assert(eq(int, env->close(env->ctx, shared), 0));
    cr_assert(eq(int, env->close(env->ctx, other), 0));
    alone = env->lock(env->ctx, "/d", 0, &holder);
    cr_assert(ge(int, alone, 0));
    cr_assert(eq(int, env->lock(env->ctx, "/d", 1, &holder), -EWOULDBLOCK));
    cr_assert(eq(int, env->close(env->ctx, alone), 0));
}

Test(sim_disk, direct_files_and_files_opened_to_read_refuse)
{
    int file = file_durable("/d/a", 'o', BLOCK_BYTES);
    char bytes[512] = {0};

    cr_assert(eq(int, env->open(env->ctx, "/d/a", SCREE_ENV_READ | SCREE_ENV_DIRECT), -EINVAL));
    sim_disk_abilities(disk, SIM_DIRECT);
    cr_assert(eq(int, env->close(env->ctx, file), 0));
    file = env->open(env->ctx, "/d/a", SCREE_ENV_READ | SCREE_ENV_WRITE | SCREE_ENV_DIRECT);
    cr_assert(ge(int, file, 0));
    cr_assert(eq(i64, env->write(env->ctx, file, bytes, 100, 0), -EINVAL));
    cr_assert(eq(i64, env->write(env->ctx, file, bytes, 512, 100), -EINVAL));
    cr_assert(eq(int, env->close(env->ctx, file), 0));
    file = env->open(env->ctx, "/d/a", SCREE_ENV_READ);
    cr_assert(eq(i64, env->write(env->ctx, file, bytes, 512, 0), -EBADF));
    cr_assert(eq(int, env->truncate(env->ctx, file, 0), -EBADF));
}

Test(sim_disk, all_and_nothing_are_choices_0_and_1)
{
    int file = file_durable("/d/a", 'o', BLOCK_BYTES);
    struct sim_replay *r;
    char bytes[BLOCK_BYTES];

    for (int i = 0; i < 8; i++)
        file_write(file, 'n', 512, (uint64_t)i * 512);
    r = sim_replay_new(disk);
    while (sim_replay_advance(r))
        continue;
    for (uint64_t most = 8; most <= MOST; most *= 512) {
        struct sim_image *none = sim_replay_state(r, 0, most, 1);
        struct sim_image *all = sim_replay_state(r, 1, most, 1);
        struct sim_image *now = sim_disk_image(disk);

        (void)image_file(none, "/d/a", bytes, sizeof(bytes));
        cr_assert(bytes[0] == 'o' && memcmp(bytes, bytes + 1, sizeof(bytes) - 1) == 0);
        (void)image_file(all, "/d/a", bytes, sizeof(bytes));
        cr_assert(bytes[0] == 'n' && memcmp(bytes, bytes + 1, sizeof(bytes) - 1) == 0);
        cr_assert(eq(u64, sim_image_hash(all), sim_image_hash(now)));
        cr_assert(ne(u64, sim_image_hash(none), sim_image_hash(now)));
        sim_image_free(none);
        sim_image_free(all);
        sim_image_free(now);
    }
    sim_replay_free(r);
}

Test(sim_disk, killed_process_leaves_all_and_a_later_cut_takes_what_was_not_synced)
{
    int file = file_durable("/d/a", 'o', BLOCK_BYTES), other;
    struct sim_replay *r;
    struct sim_disk *killed;
    struct sim_image *now, *then;
    struct tally t;
    uint64_t events;

    file_write(file, 'n', 512, 0);
    other = file_make("/d/b");
    file_write(other, 'b', 512, 0);
    cr_assert(eq(int, env->sync(env->ctx, other), 0));
    r = sim_replay_new(disk);
    while (sim_replay_advance(r))
        continue;
    killed = sim_replay_kill(r, 3, &events);
    sim_replay_free(r);
    now = sim_disk_image(killed);
    then = sim_disk_image(disk);
    cr_assert(eq(u64, sim_image_hash(now), sim_image_hash(then)));
    sim_image_free(now);
    sim_image_free(then);
    sim_disk_free(disk);
    disk = killed;
    env = sim_disk_env(disk);
    cr_assert(eq(u64, sim_disk_events(disk), events));
    t = tally_now("/d/a", 0);
    cr_assert(gt(sz, t.byte['o'], 0));
    cr_assert(gt(sz, t.byte['n'], 0));
    t = tally_now("/d/b", 0);
    cr_assert(gt(sz, t.missing, 0));
    cr_assert(eq(sz, t.byte['b'], t.n - t.missing), "its bytes were synced");
    file = env->open(env->ctx, "/d/a", SCREE_ENV_READ | SCREE_ENV_WRITE);
    cr_assert(eq(int, env->sync(env->ctx, file), 0));
    cr_assert(eq(int, env->sync_dir(env->ctx, "/d"), 0));
    t = tally_now("/d/a", 0);
    cr_assert(eq(sz, t.byte['n'], t.n));
    t = tally_now("/d/b", 0);
    cr_assert(eq(sz, t.byte['b'], t.n));
}
