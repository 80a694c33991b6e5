/*
 * util.c - time, shared memory, files and figures of this process, for all subcommands.
 */
#include "tool.h"

#include <argp.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t
tool_now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void
tool_sleep_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000L};

    (void)nanosleep(&ts, NULL); /* a signal cuts it short: callers look at their flags next */
}

void *
tool_shared_alloc(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static int
remove_visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path) == 0 || errno == ENOENT ? 0 : errno;
}

int
tool_remove_tree(const char *path)
{
    int rc = nftw(path, remove_visit, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);

    if (rc == -1)
        return errno == ENOENT ? 0 : -errno;
    return -rc;
}

/* nftw takes no context: the sum of the walk under way. The tool walks from one thread only. */
static uint64_t disk_bytes_sum;

static int
disk_bytes_visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)ftw;
    if (type == FTW_F)
        disk_bytes_sum += (uint64_t)st->st_blocks * 512u;
    return 0;
}

uint64_t
tool_disk_bytes(const char *path)
{
    disk_bytes_sum = 0;
    (void)nftw(path, disk_bytes_visit, 16, FTW_PHYS); /* files that vanish meanwhile count as 0 */
    return disk_bytes_sum;
}

uint64_t
tool_number(const struct argp_state *state, const char *text, uint64_t min, uint64_t max)
{
    char *end = NULL;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || value < min || value > max)
        argp_error(state, "'%s' is not a whole number from %" PRIu64 " to %" PRIu64, text, min,
                   max);
    return value;
}

double
tool_real(const struct argp_state *state, const char *text, double min, double max)
{
    char *end = NULL;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= min && value <= max))
        argp_error(state, "'%s' is not a number from %g to %g", text, min, max);
    return value;
}

/* The number behind `field` in a file of "name: value" lines. */
static uint64_t
proc_field(const char *path, const char *field)
{
    char line[256];
    uint64_t value = 0;
    FILE *f = fopen(path, "r");

    if (f == NULL)
        return 0;
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, field, strlen(field)) == 0) {
            value = strtoull(line + strlen(field), NULL, 10);
            break;
        }
    }
    (void)fclose(f);
    return value;
}

uint64_t
tool_proc_status_bytes(const char *field)
{
    return proc_field("/proc/self/status", field) * 1024u;
}

uint64_t
tool_proc_io_bytes(const char *field)
{
    return proc_field("/proc/self/io", field);
}

void
tool_complain(const char *what, int code)
{
    const char *detail = scree_error_detail();

    (void)fprintf(stderr, "scree: %s: %s%s%s%s\n", what, scree_strerror(code),
                  detail[0] != '\0' ? " (" : "", detail, detail[0] != '\0' ? ")" : "");
}
