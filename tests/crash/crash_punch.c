/*
 * crash_punch.c - nothing that a retained snapshot or a reader still needs is punched or deleted.
 *
 * GOAL      dead bytes go only when they died below the replay start of the OLDEST snapshot kept, and a grace
 *           period has passed (DESIGN: one rule).
 * METHOD    three parts, each in a process of its own:
 *   floor   a child overwrites its pages without end, with many snapshots and eager cleaning. At random
 *           moments it is stopped and its directory copied, as a crash would leave it. The copy is opened as
 *           it is, and again after its newest published snapshot was damaged, so that recovery has to fall
 *           back to the older generation and replay from there.
 *   guard   one thread holds a read guard. Everything is overwritten, with snapshots and reclaiming work to
 *           spare, so that all that was live when the guard was entered is dead below every snapshot kept.
 *           No byte of it may be given back before the guard is left, and most of it must be soon after.
 *   readers threads read, in guards and without, from a cache that holds next to nothing, while others
 *           overwrite, append, free, allocate, snapshot and reclaim without end.
 * ORACLE    floor: the list of updates (churn.h): a prefix that holds what was acknowledged, no CORRUPT, and
 *           the event that says that it fell back. guard: blocks of each file that had live bytes. readers:
 *           pages check themselves; a get is right or NOT_FOUND; borrowed bytes stay as they are.
 *           Seeded: RECLAIM_NO_FLOOR, RECLAIM_NO_GRACE.
 * NOT HERE  accounting (stress_space), a log damaged beside (crash_shrunk).
 *
 * crash_punch [seed] [copies] [seconds of readers] [threads] [part 1 to 3, 0: all]
 *
 * WORD   page[i]: a page id, 0 = none or taken by one thread.  number[i]: of its newest update.
 *        stop, entered, leave: one thread tells another.  events[kind]: counts.
 * EDGES  E0 id -> 0 by exchange acq_rel: the taker alone writes or frees.  E1 0 -> id: store release, pairs
 *        with loads acquire.  number: store release before E1, load acquire: a later read sees that or newer.
 *        The flags: store release, load acquire. events: relaxed.
 * LIFETIME  static.   PROGRESS  every wait has a deadline, every child an alarm.   FAILURE  the run ends.
 */
#include "support/churn.h"
#include "support/space_map.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 400u
#define THREADS_MAX 16u
#define HELD_MAX 12u

static uint64_t seed;
static char dir[KIT_PATH_MAX];
static char copy[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;
static _Atomic uint64_t events[16];

#define CHECK_OK(call)                                                              \
    do {                                                                            \
        int code_ = (call);                                                         \
        KIT_CHECK(code_ == 0, "%s gave %d %s", #call, code_, kit_code_name(code_)); \
    } while (0)

static void
event_count(void *ctx, const scree_event *event)
{
    (void)ctx;
    if (event->kind >= 0 && event->kind < 16)
        (void)atomic_fetch_add_explicit(&events[event->kind], 1, memory_order_relaxed);
}

static uint64_t
events_of(enum scree_event_kind kind)
{
    return atomic_load_explicit(&events[kind], memory_order_relaxed);
}

static void
options_make(void)
{
    kit_options_small(&options, &kit_concat);
    options.snapshot_log_bytes = 96 * 1024;
    options.space_amp_target = 1.1;
    options.event = event_count;
}

static pid_t
child_start(void (*body)(void))
{
    pid_t child = kit_fork();

    if (child == 0) {
        body();
        fflush(stdout);
        _exit(0);
    }
    return child;
}

static void
child_join(pid_t child)
{
    if (kit_join(child) != 0)
        exit(1); /* it has said why */
}

/* ---- floor ---- */

static struct churn *c;
static uint32_t acked_at_stop;
static bool damaged;

struct floor_shared {
    uint64_t fallbacks, plain, updates, punched, deleted;
};
static struct floor_shared *floor_shared;

static void
floor_work(void)
{
    static const struct churn_mix mix = {.put = 60, .append = 30, .free = 10};

    alarm(120);
    CHECK_OK(scree_open(dir, &options, &cache));
    for (uint32_t i = 0;; i++) {
        CHECK_OK(churn_step(c, cache, &mix));
        if (i % 16 == 0)
            CHECK_OK(churn_flush(c, cache));
        if (kit_below(&c->random, 400) == 0)
            CHECK_OK(scree_snapshot(cache, NULL));
        if (kit_below(&c->random, 600) == 0)
            CHECK_OK(scree_reclaim(cache, 1.1, NULL, NULL));
        if (i % 64 == 0) {
            scree_stats stats = {.size = sizeof(stats)};

            CHECK_OK(scree_stats_get(cache, &stats));
            floor_shared->punched = stats.punched_bytes;
            floor_shared->deleted = stats.deleted_bytes;
        }
        if (churn_done(c) > CHURN_OPS_MAX - 10) /* long before: an alarm */
            return;
    }
}

static uint64_t
u64_at(const unsigned char *bytes, size_t at)
{
    uint64_t value;

    memcpy(&value, bytes + at, sizeof(value)); /* little-endian, as the machine */
    return value;
}

/* The newest manifest that is whole names generations, newest first (docs/snapshot_format.md). Damages the
   newest file of the first; false if there is no second one to fall back to. */
static bool
newest_snapshot_damage(void)
{
    struct kit_files files;
    unsigned char *manifest = NULL;
    unsigned char *bytes;
    char name[64];
    size_t len = 0;
    size_t generation;

    kit_dir_list(copy, &files); /* by name: the newest manifest comes last */
    for (size_t i = 0; i < files.n; i++) {
        if (strncmp(files.name[i], "manifest-", 9) != 0 || strlen(files.name[i]) != 25)
            continue;
        free(manifest);
        manifest = kit_file_read(copy, files.name[i], &len);
    }
    KIT_CHECK(manifest != NULL && len > 64, "no manifest");
    generation = 56 + (size_t)manifest[52] + (size_t)manifest[53] * 256;
    if (manifest[54] < 2) {
        free(manifest);
        return false;
    }
    KIT_CHECK(generation + 24 <= len, "a manifest of %zu bytes", len);
    generation +=
        24 + 32 * (u64_at(manifest, generation + 16) - 1); /* its newest file, which it alone has */
    KIT_CHECK(generation + 32 <= len, "a manifest of %zu bytes", len);
    snprintf(name, sizeof(name), "snapshot-%016" PRIx64, u64_at(manifest, generation + 8));
    free(manifest);
    bytes = kit_file_read(copy, name, &len);
    KIT_CHECK(bytes != NULL && len > 100, "%s is published, but not there", name);
    bytes[len / 2] ^= 0x55;
    kit_file_write(copy, name, bytes, len);
    free(bytes);
    return true;
}

/* In a child: recover the copy. Whatever generation, the same updates must be there. */
static void
floor_look(void)
{
    static struct churn_found found;
    int code;

    alarm(60);
    if (!damaged)
        kit_verify(copy, &options);
    code = scree_open(copy, &options, &cache);
    KIT_CHECK(code == 0, "%s: open gave %d %s", damaged ? "newest snapshot damaged" : "copy", code,
              kit_code_name(code));
    churn_find(c, cache, acked_at_stop, &found);
    if (damaged)
        KIT_CHECK(events_of(SCREE_EVENT_SNAPSHOT_FALLBACK) > 0, "the damage went unnoticed");
    CHECK_OK(scree_reclaim(cache, 1.1, NULL, NULL)); /* a fresh cleaner on a fresh recovery */
    churn_find(c, cache, found.n, &found);
    CHECK_OK(scree_close(cache));
    if (!damaged)
        kit_verify(copy, &options);
}

static void
floor_copy(pid_t child, uint64_t number)
{
    int status = 0;

    usleep(1000 + (useconds_t)kit_below(&c->random, 60000)); /* its numbers are as good as any */
    KIT_CHECK(kill(child, SIGSTOP) == 0, "stop");
    KIT_CHECK(waitpid(child, &status, WUNTRACED) == child, "wait");
    if (!WIFSTOPPED(status)) {
        printf("FAILED [%s] the child ended with status %d%s\n", kit_context, status,
               WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? " (hung)" : "");
        exit(1);
    }
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", floor, copy %" PRIu64, seed,
             number);
    acked_at_stop = churn_acked(c);
    kit_dir_copy(dir, copy);
    damaged = false;
    if (number % 4 == 0) {
        child_join(child_start(floor_look));
        floor_shared->plain++;
        kit_dir_copy(dir, copy);
    }
    damaged = newest_snapshot_damage();
    child_join(child_start(floor_look));
    floor_shared->fallbacks += damaged;
    KIT_CHECK(kill(child, SIGCONT) == 0, "go on");
}

static void
floor_run(uint64_t copies)
{
    pid_t child;
    int status;

    c = churn_new(seed, 24, 200,
                  3000); /* so few that segments behind the older snapshot are all dead */
    c->page_max = 3500;
    floor_shared = (struct floor_shared *)(void *)&c->op[CHURN_OPS_MAX - 4]; /* shared, unused */
    kit_dir_name(dir, "punch");
    kit_dir_name(copy, "punch-copy");
    options_make();
    options.space_amp_target = 10; /* writers are not slowed down; reclaiming cleans */
    options.snapshot_log_bytes = 256 * 1024;
    options.segment_bytes = 256 * 1024; /* four granules */
    child = child_start(floor_work);
    for (int ms = 0; churn_acked(c) == 0 && ms < 60000; ms++) /* it may not have opened yet */
        usleep(1000);
    for (uint64_t i = 0; i < copies; i++)
        floor_copy(child, i);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, &status, 0);
    kit_dir_remove(dir);
    kit_dir_remove(copy);
    printf("crash_punch: seed %" PRIu64 ", floor: %" PRIu64 " copies recovered, %" PRIu64
           " from the older snapshot, over %" PRIu32 " updates; bytes punched %" PRIu64
           ", deleted %" PRIu64 ", ok\n",
           seed, floor_shared->plain + floor_shared->fallbacks, floor_shared->fallbacks,
           churn_done(c), floor_shared->punched, floor_shared->deleted);
    KIT_CHECK(floor_shared->fallbacks > copies / 2 &&
                  floor_shared->punched + floor_shared->deleted > 0,
              "too little happened");
    churn_delete(c);
}

/* ---- guard ---- */

static _Atomic bool entered;
static _Atomic bool leave;

static void *
guard_run(void *argument)
{
    (void)argument;
    scree_read_enter(cache);
    atomic_store_explicit(&entered, true, memory_order_release);
    while (!atomic_load_explicit(&leave, memory_order_acquire))
        usleep(1000);
    scree_read_leave(cache);
    return NULL;
}

/* Of this file, what may go although the guard is held: granules that were dead when it was entered. */
static uint64_t
dead_before(const struct space_segment *s)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < s->granules; i++)
        bytes += s->granule[i].live_bytes == 0 && !s->granule[i].punched ? s->granule_bytes : 0;
    return bytes;
}

/* What the files of what was live on the map occupy now. If nothing may have gone yet, nothing has. */
static uint64_t
blocks_kept(const struct space_map *map, bool must)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < map->n; i++) {
        const struct space_segment *s = &map->segment[i];
        uint64_t blocks;

        if (s->live_bytes == 0)
            continue;
        blocks = kit_dir_disk_bytes(dir, s->file, NULL);
        sum += blocks;
        KIT_CHECK(!must || blocks + dead_before(s) >= s->disk_bytes,
                  "%s had %" PRIu64 " live bytes when the guard was entered; it occupied %" PRIu64
                  " bytes, %" PRIu64 " of them dead granules, now %" PRIu64
                  ", and the guard is still held",
                  s->file, s->live_bytes, s->disk_bytes, dead_before(s), blocks);
    }
    return sum;
}

/* Everything anew, until three more snapshots are there: no generation is left that knows of what was
   before. They are those of the background: a snapshot on request is not to be asked for here. */
static void
overwrite_all(uint32_t slots)
{
    scree_stats stats = {.size = sizeof(stats)};
    uint64_t until = kit_now_ms() + 60000;
    uint64_t wanted;

    CHECK_OK(scree_stats_get(cache, &stats));
    wanted = stats.snapshots + 3;
    for (uint32_t slot = 0; slot < slots || stats.snapshots < wanted; slot++) {
        CHECK_OK(churn_put(c, cache, slot % slots));
        CHECK_OK(scree_stats_get(cache, &stats));
        KIT_CHECK(kit_now_ms() < until, "%" PRIu64 " snapshots, %" PRIu64 " expected by now",
                  stats.snapshots, wanted);
    }
}

static void
guard_round(struct space_map *map, scree_stats *stats)
{
    uint64_t until;
    uint64_t before;
    pthread_t thread;

    CHECK_OK(scree_flush(cache, NULL));
    CHECK_OK(scree_reclaim(cache, 1.1, NULL, NULL)); /* what is dead already shall not disturb */
    space_wait_quiet(cache, stats);
    space_map_take(cache, map);
    atomic_store_explicit(&entered, false, memory_order_relaxed);
    atomic_store_explicit(&leave, false, memory_order_relaxed);
    KIT_CHECK(pthread_create(&thread, NULL, guard_run, NULL) == 0, "thread");
    while (!atomic_load_explicit(&entered, memory_order_acquire))
        usleep(100);
    before = blocks_kept(map, false);
    KIT_CHECK(before > 256 * 1024, "only %" PRIu64 " bytes to look at", before);
    for (int i = 0; i < 2; i++) {
        overwrite_all(c->slots);
        for (int k = 0; k < 20; k++) {
            (void)blocks_kept(map, true);
            usleep(5000);
        }
    }
    atomic_store_explicit(&leave, true, memory_order_release);
    pthread_join(thread, NULL);
    until = kit_now_ms() + 20000;
    do { /* by itself, if asked by the next snapshot */
        CHECK_OK(churn_put(c, cache, 0));
        CHECK_OK(scree_snapshot(cache, NULL));
        usleep(10000);
        KIT_CHECK(kit_now_ms() < until,
                  "the guard was left 20 s ago; of %" PRIu64 " bytes dead for long %" PRIu64
                  " are still on disk",
                  before, blocks_kept(map, false));
    } while (blocks_kept(map, false) > before / 2);
}

static void
guard_part(void)
{
    struct space_map *map = malloc(sizeof(*map));
    scree_stats stats;

    KIT_CHECK(map != NULL, "memory");
    alarm(200);
    CHECK_OK(scree_open(dir, &options, &cache));
    for (uint32_t slot = 0; slot < c->slots; slot++)
        CHECK_OK(churn_put(c, cache, slot));
    for (int i = 0; i < 3; i++)
        guard_round(map, &stats);
    churn_check(c, cache);
    CHECK_OK(scree_close(cache));
    free(map);
}

/* With holes, and with whole segments only. */
static void
guard_run_all(void)
{
    for (int holes = 1; holes >= 0; holes--) {
        snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", guard, %s", seed,
                 holes ? "holes" : "no holes");
        c = churn_new(seed, 250, 1000, 3000);
        kit_dir_name(dir, "punch-guard");
        options_make();
        options.cache_bytes = 64u << 20; /* no thread waits for a grace period because of memory */
        options.segment_bytes = holes ? 1024 * 1024 : 128 * 1024;
        options.log_buffer_bytes = 1024 * 1024;
        options.flags |= holes ? 0 : SCREE_NO_PUNCH;
        child_join(child_start(guard_part));
        kit_dir_remove(dir);
        churn_delete(c);
    }
    printf("crash_punch: seed %" PRIu64 ", guard: nothing goes while a guard is held, ok\n", seed);
}

/* ---- readers ---- */

static _Atomic uint64_t page[PAGES];
static _Atomic uint32_t number[PAGES];
static _Atomic bool stop;

struct worker {
    pthread_t thread;
    uint64_t random;
    uint32_t serial;
    uint64_t reads, gone, held, updates;
};
static struct worker workers[THREADS_MAX * 2];
static uint64_t reader_seconds;
static uint32_t threads;

static void
bytes_check(uint32_t slot, uint64_t id, const void *bytes, size_t len, uint32_t at_least)
{
    struct churn_chunk chunk;

    KIT_CHECK(churn_page_is_whole(bytes, len, slot), "page %" PRIu64 ": wrong bytes", id);
    memcpy(&chunk, bytes, sizeof(chunk));
    KIT_CHECK(chunk.op >= at_least,
              "page %" PRIu64 ": update %" PRIu32 ", %" PRIu32 " was there before", id, chunk.op,
              at_least);
}

/* Is this still the slot's page? If it was not taken, and is the same again, its bytes are its own. */
static bool
still(uint32_t slot, uint64_t id)
{
    return atomic_load_explicit(&page[slot], memory_order_acquire) == id;
}

static void
reader_read(struct worker *w)
{
    static _Thread_local unsigned char bytes[8192];
    uint32_t slot = (uint32_t)kit_below(&w->random, PAGES);
    uint64_t id = atomic_load_explicit(&page[slot], memory_order_acquire);
    uint32_t at_least = atomic_load_explicit(&number[slot], memory_order_acquire);
    size_t len = 0;
    int code;

    if (id == 0)
        return;
    code = scree_page_read(cache, id, bytes, sizeof(bytes), &len, NULL);
    KIT_CHECK(code == 0 || (code == SCREE_E_NOT_FOUND && !still(slot, id)),
              "page %" PRIu64 " gave %d %s", id, code, kit_code_name(code));
    if (code == 0 && still(slot, id))
        bytes_check(slot, id, bytes, len, at_least);
    w->reads++;
    w->gone += code != 0;
}

/* In a guard no id comes to another page: what a get gives is the slot's, or NOT_FOUND. */
static void
reader_guard(struct worker *w)
{
    struct {
        const void *bytes;
        size_t len;
        uint64_t hash;
    } held[HELD_MAX];
    uint32_t n = 0;

    scree_read_enter(cache);
    for (uint64_t i = 1 + kit_below(&w->random, HELD_MAX); i > 0; i--) {
        uint32_t slot = (uint32_t)kit_below(&w->random, PAGES);
        uint64_t id = atomic_load_explicit(&page[slot], memory_order_acquire);
        uint32_t at_least = atomic_load_explicit(&number[slot], memory_order_acquire);
        scree_slice slice;
        int code;

        if (id == 0)
            continue;
        if (kit_below(&w->random, 4) == 0)
            usleep((useconds_t)kit_below(&w->random, 3000)); /* long enough for a snapshot */
        code = scree_page_get(cache, id, &slice, NULL);
        KIT_CHECK(code == 0 || code == SCREE_E_NOT_FOUND, "page %" PRIu64 " gave %d %s", id, code,
                  kit_code_name(code));
        w->gone += code != 0;
        if (code != 0)
            continue;
        bytes_check(slot, id, slice.data, slice.len, at_least);
        held[n].bytes = slice.data;
        held[n].len = slice.len;
        held[n++].hash = kit_hash(slice.data, slice.len, 3);
        w->reads++;
    }
    for (uint32_t i = 0; i < n; i++)
        KIT_CHECK(kit_hash(held[i].bytes, held[i].len, 3) == held[i].hash,
                  "borrowed bytes changed inside the guard");
    w->held += n;
    scree_read_leave(cache);
}

static void *
reader_run(void *argument)
{
    struct worker *w = argument;

    while (!atomic_load_explicit(&stop, memory_order_acquire)) {
        if (kit_below(&w->random, 3) == 0)
            reader_guard(w);
        else
            reader_read(w);
    }
    return NULL;
}

static scree_slice
writer_chunk(struct worker *w, uint32_t slot, uint32_t len)
{
    static _Thread_local unsigned char bytes[8192];

    /* All slots of a writer are its own in turn: its numbers grow along each slot, for all writers the
       same clock serves. */
    churn_chunk_make(bytes, w->serial << 8, slot, 1, len);
    return kit_slice(bytes, len);
}

static _Atomic uint32_t
    clock_now; /* of updates; an update's number is drawn after its slot was taken */

static void
writer_update(struct worker *w)
{
    uint32_t slot = (uint32_t)kit_below(&w->random, PAGES);
    uint64_t id = atomic_exchange_explicit(&page[slot], 0, memory_order_acq_rel); /* E0 */
    uint64_t kind = kit_below(&w->random, 100);
    scree_version version = 0;
    int code;

    if (id == 0)
        return;
    w->serial = atomic_fetch_add_explicit(&clock_now, 1, memory_order_relaxed) % (1u << 23) + 1;
    if (kind < 70) {
        CHECK_OK(scree_page_put(
            cache, id, writer_chunk(w, slot, 100 + (uint32_t)kit_below(&w->random, 2500)), NULL));
    } else if (kind < 88) { /* two records: a read needs both */
        CHECK_OK(scree_page_put(cache, id, writer_chunk(w, slot, 400), NULL));
        CHECK_OK(scree_page_append(cache, id, writer_chunk(w, slot, 60), NULL));
        CHECK_OK(scree_page_append(cache, id, writer_chunk(w, slot, 60), NULL));
    } else {
        code = scree_page_read(cache, id, NULL, 0, NULL, &version);
        KIT_CHECK(code == SCREE_E_TOO_BIG, "gave %d %s", code, kit_code_name(code));
        CHECK_OK(scree_page_free(cache, id, &version));
        CHECK_OK(scree_page_allocate(cache, writer_chunk(w, slot, 700), &id, NULL));
    }
    atomic_store_explicit(&number[slot], w->serial << 8, memory_order_release);
    atomic_store_explicit(&page[slot], id, memory_order_release); /* E1 */
    w->updates++;
}

static void *
writer_run(void *argument)
{
    struct worker *w = argument;

    while (!atomic_load_explicit(&stop, memory_order_acquire)) {
        writer_update(w);
        if (kit_below(&w->random, 150) == 0)
            CHECK_OK(scree_snapshot(cache, NULL));
        if (kit_below(&w->random, 300) == 0)
            CHECK_OK(scree_reclaim(cache, 1.05, NULL, NULL));
    }
    return NULL;
}

static void
readers_part(void)
{
    uint64_t until = kit_now_ms() + reader_seconds * 1000;
    scree_stats stats = {.size = sizeof(stats)};
    struct worker sum = {.reads = 0};

    alarm((unsigned)reader_seconds + 60);
    CHECK_OK(scree_open(dir, &options, &cache));
    for (uint32_t slot = 0; slot < PAGES; slot++) {
        scree_page_id id = 0;

        CHECK_OK(scree_page_allocate(cache, writer_chunk(&workers[0], slot, 700), &id, NULL));
        atomic_store_explicit(&page[slot], id, memory_order_release);
    }
    for (uint32_t t = 0; t < threads; t++) {
        workers[t] = (struct worker){.random = seed * 100 + t};
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, t % 2 == 0 ? reader_run : writer_run,
                                 &workers[t]) == 0,
                  "thread");
    }
    while (kit_now_ms() < until)
        usleep(10000);
    atomic_store_explicit(&stop, true, memory_order_release);
    for (uint32_t t = 0; t < threads; t++) {
        pthread_join(workers[t].thread, NULL);
        sum.reads += workers[t].reads;
        sum.gone += workers[t].gone;
        sum.held += workers[t].held;
        sum.updates += workers[t].updates;
    }
    CHECK_OK(scree_stats_get(cache, &stats));
    CHECK_OK(scree_close(cache));
    printf("crash_punch: seed %" PRIu64 ", readers: %" PRIu64 " reads right, %" PRIu64
           " from disk, %" PRIu64 " found freed, %" PRIu64 " held, beside %" PRIu64
           " updates, %" PRIu64 " snapshots; bytes punched %" PRIu64 ", deleted %" PRIu64
           ", cleaned %" PRIu64 ", ok\n",
           seed, sum.reads, stats.misses, sum.gone, sum.held, sum.updates, stats.snapshots,
           stats.punched_bytes, stats.deleted_bytes, stats.cleaned_bytes);
    KIT_CHECK(sum.reads > 100 && sum.held > 100 && stats.misses > 100 && stats.cleaned_bytes > 0 &&
                  stats.deleted_bytes + stats.punched_bytes > 0,
              "too little happened");
}

static void
readers_run(void)
{
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", readers", seed);
    kit_dir_name(dir, "punch-readers");
    options_make();
    options.segment_bytes = 256 * 1024;
    options.snapshot_log_bytes = 64 * 1024;
    options.cache_bytes = 128 * 1024;
    child_join(child_start(readers_part));
    kit_dir_remove(dir);
}

int
main(int argc, char **argv)
{
    uint64_t copies = kit_argument(argc, argv, 2, KIT_MUCH(120, 50, 120));
    uint64_t part = kit_argument(argc, argv, 5, 0);

    seed = kit_argument(argc, argv, 1, 1);
    reader_seconds = kit_argument(argc, argv, 3, KIT_MUCH(10, 5, 10));
    threads = (uint32_t)kit_argument(argc, argv, 4, 6);
    if (threads < 2 || threads > THREADS_MAX)
        return 2;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    if (part == 0 || part == 1)
        floor_run(copies);
    if (part == 0 || part == 2)
        guard_run_all();
    if (part == 0 || part == 3)
        readers_run();
    return 0;
}
