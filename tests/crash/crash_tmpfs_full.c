/*
 * crash_tmpfs_full.c - a real full disk: a tmpfs, an ext4 and an xfs of 64 MiB, and a limit of 32 MiB on an
 * ordinary file system.
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
 * crash_tmpfs_full [seed] [cycles] [kills] [parent directory for the limit: default TMPDIR or /tmp] [disk]
 *   disk: tmpfs, ext4, xfs, limit: that one only. Status 77 if one could not be mounted (not root, no loop
 *   device, no mkfs, no such file system; it is printed); the others are tested all the same.
 *
 * WORD   events[kind], full: counts and a flag told between threads or processes: relaxed.
 * EDGES  those.   LIFETIME  shared by fork.   PROGRESS  every wait has a deadline, every child an alarm.
 * FAILURE  the run ends; the mount is in a namespace of its own and goes with it.
 */
#include "support/churn.h"
#include "support/loop_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1024u * 1024u)
#define PAGE 4096u
#define FULL_MS 2500u    /* no room for so long: it is full */
#define RESUME_MS 20000u /* after frees there is room again within */

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
    pid_t child = kit_fork();

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
disk_run(const char *name, uint64_t limit, uint64_t times)
{
    uint64_t max = 0;
    uint64_t seen;

    disk_name = name;
    context_set("filling", 0);
    churn_reset(c, seed);
    options.disk_limit_bytes = limit;
    seen = child_watch(child_start(cycles_run), 0, limit);
    max = seen > max ? seen : max;
    for (uint64_t i = 0; i < times; i++) {
        uint32_t ms = 100 + (uint32_t)kit_below(&c->random, 2500);

        context_set("kill", i);
        seen = child_watch(child_start(cycles_forever), ms, limit);
        max = seen > max ? seen : max;
    }
    (void)child_watch(child_start(last_look), 0, limit);
    printf("crash_tmpfs_full: seed %" PRIu64 ", %s: %" PRIu64 " cycles, %" PRIu64 " kills, %" PRIu32
           " updates",
           seed, name, cycles, times, churn_done(c));
    if (limit != 0)
        printf(", at most %" PRIu64 " bytes on disk", max);
    printf(", ok\n");
}

static uint64_t kills;

static int
tmpfs_run(const void *ctx)
{
    (void)ctx;
    if (mount("tmpfs", loop_fs_mount_point(), "tmpfs", 0, "size=64m") != 0) {
        printf("crash_tmpfs_full: SKIP: no tmpfs can be mounted here (%s)\n", strerror(errno));
        return LOOP_FS_SKIPPED;
    }
    snprintf(dir, sizeof(dir), "%.*s/pages", KIT_PATH_MAX - 8, loop_fs_mount_point());
    disk_bytes = 64 * MIB;
    disk_run("tmpfs of 64 MiB", 0, kills);
    return 0;
}

/* A file takes what is too much: there is no xfs below 300 MiB. */
static int
image_run(const void *ctx)
{
    const char *kind = ctx;
    char why[256], ballast[KIT_PATH_MAX], name[64];
    struct loop_fs fs;
    uint64_t room;
    int file;

    if (!loop_fs_make(&fs, kind, kind[0] == 'x' ? 320ull * MIB : 96ull * MIB, why)) {
        printf("crash_tmpfs_full: SKIP: %s: %s\n", kind, why);
        return LOOP_FS_SKIPPED;
    }
    snprintf(ballast, sizeof(ballast), "%.*s/ballast", KIT_PATH_MAX - 16, fs.mount_point);
    snprintf(dir, sizeof(dir), "%.*s/pages", KIT_PATH_MAX - 16, fs.mount_point);
    room = loop_fs_room(&fs);
    file = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    KIT_CHECK(file >= 0 && room > 64 * MIB && fallocate(file, 0, 0, (off_t)(room - 64 * MIB)) == 0,
              "ballast for %" PRIu64 " bytes: %s", room, strerror(errno));
    close(file);
    disk_bytes = loop_fs_room(&fs);
    snprintf(name, sizeof(name), "%s with %" PRIu64 " MiB", kind, disk_bytes / MIB);
    disk_run(name, 0, kills);
    loop_fs_end(&fs);
    return 0;
}

static int
limit_run(void)
{
    pid_t child = kit_fork();

    if (child == 0) {
        disk_bytes = 32 * MIB;
        disk_run("a limit of 32 MiB", disk_bytes, kills);
        fflush(stdout);
        _exit(0);
    }
    return kit_join(child);
}

static int
disks_run(const char *only, const char *parent)
{
    int status[4] = {0};

    if (only == NULL || strcmp(only, "tmpfs") == 0)
        status[0] = loop_fs_supervise("crash_tmpfs_full", tmpfs_run, NULL);
    if (only == NULL || strcmp(only, "ext4") == 0)
        status[1] = loop_fs_supervise("crash_tmpfs_full", image_run, "ext4");
    if (only == NULL || strcmp(only, "xfs") == 0)
        status[2] = loop_fs_supervise("crash_tmpfs_full", image_run, "xfs");
    if (only == NULL || strcmp(only, "limit") == 0) {
        setenv("SCREE_TEST_DIR", parent != NULL ? parent : "/tmp", 1);
        kit_dir_name(dir, "limit");
        status[3] = limit_run();
        kit_dir_remove(dir);
    }
    for (int i = 0; i < 4; i++)
        if (status[i] != 0 && status[i] != LOOP_FS_SKIPPED)
            return 1;
    return status[0] | status[1] | status[2]; /* 0 or LOOP_FS_SKIPPED */
}

int
main(int argc, char **argv)
{
    const char *parent = argc > 4 ? argv[4] : getenv("TMPDIR");

    seed = kit_argument(argc, argv, 1, 1);
    cycles = kit_argument(argc, argv, 2, KIT_MUCH(2, 1, 2));
    kills = kit_argument(argc, argv, 3, KIT_MUCH(4, 2, 4));
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
    return disks_run(argc > 5 ? argv[5] : NULL, parent);
}
