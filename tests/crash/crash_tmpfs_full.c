/*
 * crash_tmpfs_full.c - a real full disk: a tmpfs of 64 MiB, and a limit of 32 MiB on an ordinary file system.
 *
 * GOAL      P6 on a real disk: filled to NO_SPACE, all is readable; with half of the pages freed, at random,
 *           writing goes on in the same open cache; so again and again. Killed anywhere in between, the next
 *           open finds all that was acknowledged, and can write. P5: disk_limit_bytes is a limit.
 * METHOD    cycles of: allocate pages of 4 KiB until nothing more fits (NO_SPACE, and still NO_SPACE when
 *           tried again for a while), read all, free half of the pages, fill again. First undisturbed, with a
 *           close and a reopen at the end; then in children that are killed at random moments, where the
 *           next one goes on. Freeing at random leaves no granule dead, so only cleaning makes room, and it
 *           has none but the library's reserve. With the limit the process is stopped again and again, and
 *           what the files occupy is added up while nothing moves.
 * ORACLE    the list of updates (churn.h): every page's bytes, and after a kill a prefix that holds what was
 *           acknowledged. A disk is not full before 70% of it are pages, and not before 85% of what went in
 *           the first time later on. The limit: st_blocks of all files, plus 64 KiB for the file system's own.
 * NOT HERE  every call one by one (crash_full), power cuts.
 *
 * crash_tmpfs_full [seed] [cycles] [kills] [parent directory for the limit: default TMPDIR or /tmp]
 *   Status 77 if a tmpfs cannot be mounted (not root); the limit is tested all the same.
 *
 * WORD   events[kind], full: counts and a flag told between threads or processes: relaxed.
 * EDGES  those.   LIFETIME  shared by fork.   PROGRESS  every wait has a deadline, every child an alarm.
 * FAILURE  the run ends; the mount is in a namespace of its own and goes with it.
 */
#include "support/churn.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1024u * 1024u)
#define PAGE 4096u
#define FULL_MS 2500u    /* no room for so long: it is full */
#define RESUME_MS 20000u /* after frees there is room again within */
#define SKIPPED 77

static struct churn *c;
static char dir[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;
static uint64_t disk_bytes; /* there are */
static const char *disk_name;
static uint64_t seed, cycles;
static _Atomic uint64_t events[16];
static char snapshot_error[256]; /* why the last one failed; by one thread at a time */

static void
event_count(void *ctx, const scree_event *event)
{
    (void)ctx;
    if (event->kind == SCREE_EVENT_SNAPSHOT_FAILED)
        snprintf(snapshot_error, sizeof(snapshot_error), "%s", event->text);
    if (event->kind >= 0 && event->kind < 16)
        (void)atomic_fetch_add_explicit(&events[event->kind], 1, memory_order_relaxed);
}

/* 0 or NO_SPACE; nothing else may be said of a full disk. */
static bool
had_room(int code, const char *what)
{
    KIT_CHECK(code == 0 || code == SCREE_E_NO_SPACE, "%s gave %d %s", what, code,
              kit_code_name(code));
    KIT_CHECK(scree_health(cache) == 0, "%s: health is %d", what, scree_health(cache));
    if (code != 0)
        KIT_CHECK(scree_error_detail()[0] != '\0', "%s: no detail", what);
    return code == 0;
}

static uint32_t
slot_free(void)
{
    uint32_t slot = (uint32_t)kit_below(&c->random, c->slots);

    for (uint32_t i = 0; i < c->slots; i++) {
        if (!churn_is_live(c, (slot + i) % c->slots))
            return (slot + i) % c->slots;
    }
    KIT_CHECK(false, "%" PRIu32 " pages of 4 KiB fit: the test's own limit", c->slots);
    return 0;
}

/* One page more, within so many ms. */
static bool
put_within(uint32_t ms)
{
    uint64_t until = kit_now_ms() + ms;
    uint32_t slot = slot_free();

    while (!had_room(churn_put(c, cache, slot), "allocate")) {
        if (kit_now_ms() > until)
            return false;
        usleep(3000);
    }
    return true;
}

/* For whoever has to find out why. */
static const char *
space_now(void)
{
    static char text[1024];
    scree_stats stats = {.size = sizeof(stats)};

    KIT_CHECK(scree_stats_get(cache, &stats) == 0, "stats_get");
    snprintf(text, sizeof(text),
             "%" PRIu64 " bytes on disk, %" PRIu64 " live, %" PRIu64 " dead, %" PRIu64
             " waiting, %" PRIu64 " cleaned, %" PRIu64 " segments, %" PRIu64 " snapshots, %s",
             stats.disk_bytes, stats.live_bytes, stats.dead_bytes, stats.waiting_bytes,
             stats.cleaned_bytes, stats.segments, stats.snapshots, snapshot_error);
    return text;
}

static void
context_set(const char *what, uint64_t i)
{
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", %s, %s %" PRIu64, seed, disk_name,
             what, i);
}

/* Until nothing more fits; how many bytes of pages there are then. */
static uint64_t
fill(void)
{
    uint64_t n = 0;

    while (put_within(FULL_MS)) {
        if (++n % 300 == 0)
            (void)had_room(churn_flush(c, cache), "flush");
    }
    for (int i = 0; i < 200; i++) { /* reads go on */
        uint32_t slot = (uint32_t)kit_below(&c->random, c->slots);

        if (churn_is_live(c, slot))
            KIT_CHECK(churn_read(c, cache, slot) == 0, "slot %" PRIu32 " cannot be read", slot);
    }
    return (uint64_t)churn_live(c) * PAGE;
}

static void
free_half(void)
{
    uint32_t freed = 0;

    for (uint32_t slot = 0; slot < c->slots; slot++) {
        uint64_t until = kit_now_ms() + RESUME_MS;

        if (!churn_is_live(c, slot) || kit_below(&c->random, 2) == 0)
            continue;
        while (!had_room(churn_free(c, cache, slot), "free")) {
            KIT_CHECK(freed > 100, "only %" PRIu32 " frees on a full disk: %s", freed, space_now());
            KIT_CHECK(kit_now_ms() < until, "no free for %u ms, after %" PRIu32 ": %s", RESUME_MS,
                      freed, space_now());
            usleep(3000);
        }
        freed++;
    }
    (void)had_room(churn_flush(c, cache), "flush");
}

static void
cache_open(void)
{
    static struct churn_found found;
    int code = scree_open(dir, &options, &cache);

    KIT_CHECK(code == 0, "open gave %d %s", code, kit_code_name(code));
    churn_find(c, cache, churn_acked(c), &found);
    churn_return_to(c, &found);
    churn_check(c, cache);
}

/* Undisturbed: full, half free, full, ... */
static void
cycles_run(void)
{
    uint64_t first;
    int code;

    alarm(240);
    cache_open();
    first = fill();
    KIT_CHECK(first >= disk_bytes / 10 * 7,
              "full with %" PRIu64 " bytes of pages on a disk of %" PRIu64, first, disk_bytes);
    for (uint64_t i = 0; i < cycles; i++) {
        uint64_t level;

        context_set("cycle", i);
        churn_check(c, cache);
        free_half();
        KIT_CHECK(put_within(RESUME_MS),
                  "half of the pages are freed, but there is no room %u ms later: %s", RESUME_MS,
                  space_now());
        level = fill();
        KIT_CHECK(level >= first / 100 * 85,
                  "full with %" PRIu64 " bytes of pages, it was %" PRIu64 " the first time: %s",
                  level, first, space_now());
    }
    churn_check(c, cache);
    KIT_CHECK(atomic_load_explicit(&events[SCREE_EVENT_NO_SPACE], memory_order_relaxed) > 0,
              "no NO_SPACE event");
    KIT_CHECK(atomic_load_explicit(&events[SCREE_EVENT_SPACE_BACK], memory_order_relaxed) > 0,
              "no SPACE_BACK event");
    context_set("closed when full", 0);
    code = scree_close(cache); /* on a full disk */
    KIT_CHECK(code == 0 || code == SCREE_E_NO_SPACE, "close gave %d %s", code, kit_code_name(code));
    if (code == 0)
        atomic_store_explicit(&c->acked, churn_done(c), memory_order_release);
    cache_open();
    free_half();
    KIT_CHECK(put_within(RESUME_MS), "reopened and half freed, but there is no room");
    code = scree_close(cache);
    KIT_CHECK(code == 0, "close gave %d %s", code, kit_code_name(code));
}

/* To be killed. */
static void
cycles_forever(void)
{
    alarm(120);
    cache_open();
    for (;;) {
        if (churn_live(c) > disk_bytes / PAGE / 2)
            free_half();
        KIT_CHECK(put_within(RESUME_MS), "no room with %" PRIu32 " pages of 4 KiB", churn_live(c));
        for (int i = 0; i < 4000 && put_within(20); i++) {
            if (i % 100 == 99)
                (void)had_room(churn_flush(c, cache), "flush");
        }
    }
}

static void
last_look(void)
{
    alarm(120);
    cache_open();
    free_half();
    KIT_CHECK(put_within(RESUME_MS), "half of the pages are freed, but there is no room");
    KIT_CHECK(churn_flush(c, cache) == 0 && scree_snapshot(cache, NULL) == 0, "flush, snapshot");
    KIT_CHECK(scree_close(cache) == 0, "close");
}

static pid_t
child_start(void (*body)(void))
{
    pid_t child;

    fflush(stdout);
    child = fork();
    KIT_CHECK(child >= 0, "fork");
    if (child == 0) {
        body();
        _exit(0);
    }
    return child;
}

/* While the child is stopped nothing moves: what is added up was there at one moment. False: it ended. */
static bool
limit_look(pid_t child, uint64_t limit, uint64_t *max)
{
    uint64_t bytes;
    int status = 0;

    KIT_CHECK(kill(child, SIGSTOP) == 0, "stop");
    if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status)) {
        KIT_CHECK(status == 0, "the child ended with status %d", status);
        return false;
    }
    bytes = kit_dir_disk_bytes(dir, "", NULL);
    *max = bytes > *max ? bytes : *max;
    KIT_CHECK(kill(child, SIGCONT) == 0, "go on");
    if (bytes <= limit + 65536)
        return true;
    (void)kill(child, SIGKILL);
    KIT_CHECK(false, "%" PRIu64 " bytes on disk, the limit is %" PRIu64, bytes, limit);
    return false;
}

/* Until the child ends, or `ms` are over (0: never) and it is killed. Returns the largest sum seen. */
static uint64_t
child_watch(pid_t child, uint32_t ms, uint64_t limit)
{
    uint64_t until = kit_now_ms() + ms;
    uint64_t max = 0;
    int status = 0;

    while (ms == 0 || kit_now_ms() < until) {
        if (waitpid(child, &status, WNOHANG) == child) {
            KIT_CHECK(status == 0, "the child ended with status %d%s", status,
                      WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? " (hung)" : "");
            return max;
        }
        if (limit != 0 && !limit_look(child, limit, &max))
            return max;
        usleep(limit != 0 ? 7000 : 2000);
    }
    (void)kill(child, SIGKILL);
    KIT_CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status), "the child failed");
    return max;
}

static void
disk_run(const char *name, uint64_t limit, uint64_t kills)
{
    uint64_t max = 0;
    uint64_t seen;

    disk_name = name;
    context_set("filling", 0);
    churn_reset(c, seed);
    options.disk_limit_bytes = limit;
    seen = child_watch(child_start(cycles_run), 0, limit);
    max = seen > max ? seen : max;
    for (uint64_t i = 0; i < kills; i++) {
        uint32_t ms = 100 + (uint32_t)kit_below(&c->random, 2500);

        context_set("kill", i);
        seen = child_watch(child_start(cycles_forever), ms, limit);
        max = seen > max ? seen : max;
    }
    (void)child_watch(child_start(last_look), 0, limit);
    printf("crash_tmpfs_full: seed %" PRIu64 ", %s: %" PRIu64 " cycles, %" PRIu64 " kills, %" PRIu32
           " updates",
           seed, name, cycles, kills, churn_done(c));
    if (limit != 0)
        printf(", at most %" PRIu64 " bytes on disk", max);
    printf(", ok\n");
}

/* In a process and a mount namespace of its own. */
static void
tmpfs_run(const char *mount_point, uint64_t kills)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", mount_point, "tmpfs", 0, "size=64m") != 0) {
        printf("crash_tmpfs_full: SKIP: no tmpfs can be mounted here (%s)\n", strerror(errno));
        fflush(stdout);
        _exit(SKIPPED);
    }
    snprintf(dir, sizeof(dir), "%.*s/pages", KIT_PATH_MAX - 8, mount_point);
    disk_bytes = 64 * MIB;
    disk_run("tmpfs of 64 MiB", 0, kills);
    fflush(stdout);
    _exit(0);
}

int
main(int argc, char **argv)
{
    uint64_t kills = kit_argument(argc, argv, 3, 5);
    const char *parent = argc > 4 ? argv[4] : getenv("TMPDIR");
    char mount_point[KIT_PATH_MAX];
    int status = 0;
    int limited = 0;
    pid_t child;

    seed = kit_argument(argc, argv, 1, 1);
    cycles = kit_argument(argc, argv, 2, 3);
    c = churn_new(seed, 20000, PAGE, PAGE);
    scree_options_init(&options);
    options.flags = SCREE_CREATE;
    options.cache_bytes = 4 * MIB;
    options.segment_bytes = MIB;
    options.log_buffer_bytes = MIB;
    options.page_bytes_max = 64 * 1024;
    options.flush_interval_ms = 10;
    options.materializer = &kit_concat;
    options.event = event_count;
    kit_dir_name(mount_point, "tmpfs");
    KIT_CHECK(mkdir(mount_point, 0755) == 0, "mkdir %s", mount_point);
    fflush(stdout);
    child = fork();
    KIT_CHECK(child >= 0, "fork");
    if (child == 0)
        tmpfs_run(mount_point, kills);
    (void)waitpid(child, &status, 0);
    rmdir(mount_point);
    setenv("SCREE_TEST_DIR", parent != NULL ? parent : "/tmp", 1);
    kit_dir_name(dir, "limit");
    fflush(stdout);
    child = fork();
    KIT_CHECK(child >= 0, "fork");
    if (child == 0) {
        disk_bytes = 32 * MIB;
        disk_run("a limit of 32 MiB", disk_bytes, kills);
        fflush(stdout);
        _exit(0);
    }
    (void)waitpid(child, &limited, 0);
    kit_dir_remove(dir);
    if (limited != 0)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
