/*
 * crash_follow.c - examples/follow, either side of which is killed again and again: the two directories become
 * equal all the same.
 *
 * METHOD    rounds: `follow source A` and `follow sink B`, with a pipe each way. After a random time the
 *           source, or the sink, or both are killed with SIGKILL; the other one has to end by itself. In every
 *           fourth round the source works without a sink before, until the log that the sink needs is given
 *           back: the sink needs a copy then, and is killed within it, sometimes. At last both run to the end.
 * ORACLE    every page of A is in B with the same bytes, and nothing else but the page of the position.
 * NOT HERE  power cuts.
 *
 * crash_follow [seed] [kills] [seconds]     the seconds are shared by the rounds
 */
#include "support/kit.h"

#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define POSITION_PAGE ((scree_page_id)1 << 62)
#define END_MS 20000u

static char source_dir[KIT_PATH_MAX], sink_dir[KIT_PATH_MAX], follow[KIT_PATH_MAX];

/* argv[2..] end with NULL; in and out become standard input and output. */
static pid_t
program_start(const char *role, const char *dir, const char *seconds, int in, int out)
{
    pid_t child = fork();

    KIT_CHECK(child >= 0, "fork");
    if (child > 0)
        return child;
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0)
        _exit(127);
    (void)execl(follow, "follow", role, dir, seconds, (char *)NULL);
    _exit(127);
}

/* The exit status; -1: killed by us. */
static int
program_end(pid_t child, const char *what)
{
    uint64_t until = kit_now_ms() + END_MS;
    int status;

    while (waitpid(child, &status, WNOHANG) == 0) {
        if (kit_now_ms() >= until) {
            kill(child, SIGKILL);
            kit_failed(__FILE__, __LINE__, "end", "the %s does not end", what);
        }
        usleep(1000);
    }
    if (WIFSIGNALED(status)) {
        KIT_CHECK(WTERMSIG(status) == SIGKILL, "the %s died by signal %d", what, WTERMSIG(status));
        return -1;
    }
    KIT_CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3, "the %s gave %d", what,
              WEXITSTATUS(status));
    return WEXITSTATUS(status);
}

/* Close-on-exec: an end that a stranger holds would never be seen to be closed. */
static void
pair_start(const char *seconds, pid_t *source, pid_t *sink)
{
    int changes[2], requests[2];

    KIT_CHECK(pipe2(changes, O_CLOEXEC) == 0 && pipe2(requests, O_CLOEXEC) == 0, "pipe");
    *source = program_start("source", source_dir, seconds, requests[0], changes[1]);
    *sink = program_start("sink", sink_dir, NULL, changes[0], requests[1]);
    for (int i = 0; i < 2; i++) {
        close(changes[i]);
        close(requests[i]);
    }
}

static void
work_alone(const char *seconds)
{
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    pid_t source = program_start("work", source_dir, seconds, nothing, nothing);

    close(nothing);
    KIT_CHECK(program_end(source, "source alone") == 0, "the source alone ended badly");
}

static void
round_run(uint64_t *random, uint64_t number, uint64_t ms)
{
    pid_t source, sink;
    uint64_t who = kit_below(random, 5); /* 0, 1: source; 2, 3: sink; 4: both */

    if (number % 4 == 3)
        work_alone("1");
    pair_start("1000", &source, &sink);
    /* Soon where a copy is to be expected. */
    usleep((useconds_t)(1000 * kit_below(random, number % 4 == 3 ? ms / 4 + 1 : 2 * ms)));
    if (who != 2 && who != 3)
        kill(source, SIGKILL);
    if (who >= 2)
        kill(sink, SIGKILL);
    (void)program_end(source, "source");
    (void)program_end(sink, "sink");
}

static scree_cache *
look_into(const char *dir)
{
    scree_materializer m = kit_concat;
    scree_options o;
    scree_cache *cache;

    kit_options_small(&o, &m);
    m.name = "follow";
    o.flags = SCREE_READ_ONLY;
    o.cache_bytes = 64 << 20;
    o.log_buffer_bytes = 16 << 20;
    o.page_bytes_max = 1 << 20;
    KIT_CHECK(scree_open(dir, &o, &cache) == 0, "open %s: %s", dir, scree_error_detail());
    return cache;
}

static uint64_t
compare(void)
{
    scree_cache *a = look_into(source_dir), *b = look_into(sink_dir);
    static unsigned char x[1 << 20], y[1 << 20];
    scree_page_id id = 0, other = 0;
    size_t x_len, y_len;
    uint64_t pages = 0;

    while (scree_page_next(a, id, &id) == 0) {
        KIT_CHECK(scree_page_next(b, other, &other) == 0 && other == id,
                  "the sink has page %" PRIu64 " where the source has %" PRIu64, other, id);
        KIT_CHECK(scree_page_read(a, id, x, sizeof x, &x_len, NULL) == 0 &&
                      scree_page_read(b, id, y, sizeof y, &y_len, NULL) == 0,
                  "page %" PRIu64 " cannot be read: %s", id, scree_error_detail());
        KIT_CHECK(x_len == y_len && memcmp(x, y, x_len) == 0,
                  "page %" PRIu64 " differs: %zu and %zu bytes", id, x_len, y_len);
        pages++;
    }
    KIT_CHECK(scree_page_next(b, other, &other) == 0 && other == POSITION_PAGE &&
                  scree_page_next(b, other, &other) == SCREE_E_NOT_FOUND,
              "the sink has page %" PRIu64 " besides", other);
    KIT_CHECK(scree_close(a) == 0 && scree_close(b) == 0, "close");
    return pages;
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1), random = seed, pages;
    uint64_t kills = kit_argument(argc, argv, 2, 6), seconds = kit_argument(argc, argv, 3, 3);
    pid_t source, sink;
    int source_status, sink_status;

    snprintf(follow, sizeof follow, "%s/follow", dirname(argv[0]));
    kit_dir_name(source_dir, "source");
    kit_dir_name(sink_dir, "sink");
    for (uint64_t i = 0; i < kills; i++) {
        snprintf(kit_context, sizeof kit_context, "seed %" PRIu64 ", round %" PRIu64, seed, i);
        round_run(&random, i, seconds * 1000 / kills);
    }
    pair_start("1", &source, &sink);
    source_status = program_end(source, "source");
    sink_status = program_end(sink, "sink");
    KIT_CHECK(source_status == 0 && sink_status == 0, "they end with %d and %d", source_status,
              sink_status);
    pages = compare();
    KIT_CHECK(pages > 10, "%" PRIu64 " pages: nothing happened", pages);
    printf("seed %" PRIu64 ": %" PRIu64 " rounds of kills, %" PRIu64 " pages equal: ok\n", seed,
           kills, pages);
    kit_dir_remove(source_dir);
    kit_dir_remove(sink_dir);
    return 0;
}
