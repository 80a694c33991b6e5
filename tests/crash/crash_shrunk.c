/*
 * crash_shrunk.c - a segment file shrunk, emptied or removed behind our back, while closed and while open (P7).
 *
 * GOAL      what lay in it is CORRUPT, with the file's name, and never zeros, garbage, or "not found"; every
 *           other page stays readable; writing goes on; cleaning such a segment loses nobody else, says so by
 *           an event, and comes to an end.
 * METHOD    a directory of some segments with live and dead records in them. For each file in turn, but those
 *           the log's end is in: cut to half, cut to its header, emptied, zeroed behind its header, removed;
 *           once between close and open, once under an open cache. Then: read all; write; reclaim; be idle;
 *           read all; close; open; read all. Each in a child with an alarm.
 * ORACLE    the list of updates (churn.h), and the map of live bytes (scree_segments_each) from before the
 *           damage: pages are CORRUPT if and only if bytes are live in the part that went (under an open cache:
 *           only if; it may have them in memory). A page that is CORRUPT stays so, until it is set, which
 *           repairs it, or freed. Reclaiming gives 0 or CORRUPT. Idle means that the env sees no more than a
 *           few reads, and the callback no more than a few events.
 * NOT HERE  bytes flipped, other files (crash_damage).
 *
 * crash_shrunk [seed] [every n-th file, 1] [way 0 to 4, 5: all]
 *
 * WORD   events[kind], named: counts by any thread of the library; relaxed.   EDGES  those.
 * LIFETIME  static.   PROGRESS  every child has an alarm.   FAILURE  the run ends.
 */
#include "support/churn.h"
#include "support/space_map.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 220u
#define HEADER_BYTES 4096u /* docs/log_format.md */

enum way { CUT_HALF, CUT_TO_HEADER, EMPTIED, ZEROED, REMOVED, WAYS };
static const char *const way_names[WAYS] = {"cut to half", "cut to its header", "emptied",
                                            "zeroed behind its header", "removed"};

static char origin[KIT_PATH_MAX];
static char work[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;
static struct churn *c;
static _Atomic uint64_t events[16];

/* What the children tell. */
struct shared {
    struct space_map map; /* of origin */
    scree_lsn stable;
    uint64_t cases, corrupt, repaired, damage_events, reclaims_corrupt;
};
static struct shared *shared;

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
damage_events(void)
{
    return atomic_load_explicit(&events[SCREE_EVENT_DAMAGE], memory_order_relaxed);
}

/* ---- the directory ---- */

static void
make_origin(void)
{
    static const struct churn_mix mix = {.put = 50, .append = 40, .free = 10};
    scree_stats stats;

    kit_env_plan(&(struct kit_plan){.kinds = 0});
    options.space_amp_target = 100; /* leave it as the updates leave it */
    CHECK_OK(scree_open(origin, &options, &cache));
    for (uint32_t slot = 0; slot < c->slots; slot++)
        CHECK_OK(churn_put(c, cache, slot));
    for (int i = 0; i < 250; i++)
        CHECK_OK(churn_step(c, cache, &mix));
    CHECK_OK(churn_flush(c, cache));
    space_wait_quiet(cache, &stats);
    space_map_take(cache, &shared->map);
    shared->stable = stats.stable_lsn;
    CHECK_OK(scree_close(cache));
}

static void
damage(const struct space_segment *s, enum way way)
{
    char path[KIT_PATH_MAX * 2];
    off_t size;
    int file;

    snprintf(path, sizeof(path), "%s/%s", work, s->file);
    if (way == REMOVED) {
        KIT_CHECK(unlink(path) == 0, "unlink %s", path);
        return;
    }
    file = open(path, O_WRONLY);
    KIT_CHECK(file >= 0 && (size = lseek(file, 0, SEEK_END)) >= 0, "open %s", path);
    if (way == CUT_HALF)
        KIT_CHECK(ftruncate(file, HEADER_BYTES + (off_t)s->bytes / 2) == 0, "truncate");
    if (way == EMPTIED)
        KIT_CHECK(ftruncate(file, 0) == 0, "truncate");
    if (way == CUT_TO_HEADER || way == ZEROED)
        KIT_CHECK(ftruncate(file, HEADER_BYTES) == 0, "truncate");
    if (way == ZEROED)
        KIT_CHECK(ftruncate(file, size) == 0, "truncate");
    close(file);
}

/* Live bytes in what the damage takes away for certain: granules that lie in it as a whole. */
static uint64_t
live_lost(const struct space_segment *s, enum way way)
{
    uint64_t from = way == CUT_HALF ? s->bytes / 2 : 0;
    uint64_t lost = 0;

    for (uint32_t i = 0; i < s->granules; i++)
        lost += (uint64_t)i * s->granule_bytes >= from ? s->granule[i].live_bytes : 0;
    return lost;
}

/* ---- one case ---- */

static const struct space_segment *case_segment;
static enum way case_way;
static bool case_open;

static bool was_corrupt[SLOTS];

/* Every page is right, or CORRUPT by the name of that file. Returns how many are. `more`: pages that read
   well before may be CORRUPT now (they were in memory). */
static uint32_t
look(const struct space_segment *s, bool more)
{
    uint32_t corrupt = 0;

    for (uint32_t slot = 0; slot < c->slots; slot++) {
        int code;

        if (!churn_is_live(c, slot))
            continue;
        code = churn_read(c, cache, slot);
        KIT_CHECK(code == 0 || code == SCREE_E_CORRUPT, "slot %" PRIu32 " gave %d %s", slot, code,
                  kit_code_name(code));
        if (code == SCREE_E_CORRUPT) {
            KIT_CHECK(strstr(scree_error_detail(), s->file) != NULL,
                      "CORRUPT does not name the file");
            KIT_CHECK(more || was_corrupt[slot], "slot %" PRIu32 " was readable before", slot);
            corrupt++;
        }
        was_corrupt[slot] = code != 0;
    }
    return corrupt;
}

/* CORRUPT pages: repaired by a put, or freed. Others are written to as ever. */
static void
write_on(uint32_t *repaired)
{
    for (uint32_t slot = 0; slot < c->slots; slot++) {
        if (!churn_is_live(c, slot)) {
            CHECK_OK(churn_put(c, cache, slot));
            was_corrupt[slot] = false;
        } else if (was_corrupt[slot] && kit_below(&c->random, 4) == 0) {
            CHECK_OK(churn_put(c, cache, slot));
            was_corrupt[slot] = false;
            (*repaired)++;
        } else if (!was_corrupt[slot] && kit_below(&c->random, 2) == 0) {
            int code = churn_put(c, cache, slot);

            KIT_CHECK(code == 0, "slot %" PRIu32 ": a put gave %d %s", slot, code,
                      kit_code_name(code));
        }
    }
    CHECK_OK(churn_flush(c, cache));
}

/* To the end, again and again: what cannot be moved stays, and is said. */
static void
clean(const struct space_segment *s, uint32_t corrupt)
{
    for (int i = 0; i < 3; i++) {
        int code = scree_reclaim(cache, 1.05, NULL, NULL);

        KIT_CHECK(code == 0 || code == SCREE_E_CORRUPT, "reclaim gave %d %s", code,
                  kit_code_name(code));
        KIT_CHECK(code == 0 || corrupt > 0 || case_open,
                  "reclaim is CORRUPT, but all pages are readable");
        if (code == SCREE_E_CORRUPT)
            KIT_CHECK(strlen(scree_error_detail()) > 0, "CORRUPT without a detail");
        shared->reclaims_corrupt += code != 0;
        if (code == SCREE_E_CORRUPT)
            KIT_CHECK(damage_events() > 0, "reclaim is CORRUPT, but there was no event");
    }
    (void)look(s, case_open); /* cleaning lost no page */
}

/* Nobody does anything: neither does the cleaner. */
static void
idle_check(void)
{
    uint64_t calls;
    uint64_t told;

    usleep(300000); /* whatever it had on its list */
    calls = kit_env_calls();
    told = damage_events();
    usleep(500000);
    calls = kit_env_calls() - calls;
    told = damage_events() - told;
    KIT_CHECK(calls <= 100, "idle, but %" PRIu64 " reads in half a second", calls);
    KIT_CHECK(told <= 10, "idle, but %" PRIu64 " DAMAGE events in half a second", told);
}

static void
case_child(void)
{
    const struct space_segment *s = case_segment;
    uint32_t corrupt;
    uint32_t repaired = 0;

    alarm(60);
    kit_env_plan(&(struct kit_plan){.kinds = KIT_READ});
    if (!case_open)
        damage(s, case_way);
    CHECK_OK(scree_open(work, &options, &cache));
    if (case_open) {
        KIT_CHECK(look(s, false) == 0, "CORRUPT before the damage");
        damage(s, case_way);
    }
    corrupt = look(s, true);
    if (!case_open) { /* the root is empty, and no page of ours: 32 bytes at most */
        KIT_CHECK(corrupt > 0 || live_lost(s, case_way) <= 32,
                  "no page is CORRUPT; %" PRIu64 " live bytes are lost", live_lost(s, case_way));
        KIT_CHECK(corrupt == 0 || s->live_bytes > 0, "%" PRIu32 " pages CORRUPT, none lived there",
                  corrupt);
    }
    write_on(&repaired);
    (void)look(s, case_open);
    clean(s, corrupt);
    idle_check();
    corrupt = look(s, case_open);
    CHECK_OK(scree_close(cache));
    CHECK_OK(scree_open(work, &options, &cache));
    KIT_CHECK(look(s, case_open) >= corrupt, "a lost page is back");
    CHECK_OK(churn_flush(c, cache));
    CHECK_OK(scree_close(cache));
    shared->corrupt += corrupt;
    shared->repaired += repaired;
    shared->damage_events += damage_events();
}

static void
child(void (*body)(void))
{
    pid_t pid = kit_fork();

    if (pid == 0) {
        body();
        fflush(stdout);
        _exit(0);
    }
    if (kit_join(pid) != 0 && getenv("SCREE_TEST_KEEP") == NULL)
        exit(1);
}

/* The child's updates are not those of the next one: it works on a copy of the list. */
static void
case_run(const struct churn *before, const struct space_segment *s, enum way way, bool open)
{
    size_t used = offsetof(struct churn, op) + (churn_done(before) + 1) * sizeof(before->op[0]);

    memcpy(c, before, used);
    case_segment = s;
    case_way = way;
    case_open = open;
    kit_dir_copy(origin, work);
    child(case_child);
    shared->cases++;
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t stride = kit_argument(argc, argv, 2, KIT_MUCH(3, 9, 3));
    uint64_t ways = kit_argument(argc, argv, 3, WAYS);
    struct churn *before;
    uint32_t n = 0;

    if (stride < 1)
        return 2;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    c = churn_new(seed, SLOTS, 1500, 3000);
    c->page_max = 3800;
    before = churn_new(seed, SLOTS, 1500, 3000);
    shared = (struct shared *)(void *)churn_new(0, 0, 0, 0); /* shared memory, large enough */
    memset(shared, 0, sizeof(*shared));
    kit_dir_name(origin, "shrunk");
    kit_dir_name(work, "shrunk-work");
    kit_options_small(&options, &kit_concat);
    options.segment_bytes = 128 * 1024; /* two granules */
    options.env = kit_env();
    options.event = event_count;
    child(make_origin);
    memcpy(before, c, offsetof(struct churn, op) + (churn_done(c) + 1) * sizeof(c->op[0]));
    for (uint32_t i = 0; i < shared->map.n; i += (uint32_t)stride) {
        const struct space_segment *s = &shared->map.segment[i];

        if (s->lsn + s->bytes + s->bytes > shared->stable)
            break; /* where the log goes on, or went on last */
        for (enum way way = CUT_HALF; way < WAYS; way++) {
            for (int open = 0; open < 2 && (ways >= WAYS || ways == way); open++) {
                snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", %s %s while %s", seed,
                         s->file, way_names[way], open ? "open" : "closed");
                case_run(before, s, way, open);
                n++;
            }
        }
    }
    kit_dir_remove(origin);
    kit_dir_remove(work);
    printf("crash_shrunk: seed %" PRIu64 ", %" PRIu64 " cases on %" PRIu32 " segments: %" PRIu64
           " pages CORRUPT, %" PRIu64 " repaired by a set, %" PRIu64 " events of damage, %" PRIu64
           " reclaims said so, ok\n",
           seed, shared->cases, shared->map.n, shared->corrupt, shared->repaired,
           shared->damage_events, shared->reclaims_corrupt);
    KIT_CHECK(n > 0 && shared->corrupt > 0 && shared->repaired > 0 && shared->damage_events > 0,
              "too little happened");
    return 0;
}
