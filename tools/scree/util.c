/*
 * util.c - time, shared memory, files and figures of this process, for all subcommands.
 */
#include "tool.h"

#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

struct tool_disk
tool_disk_usage(const char *path)
{
    struct tool_disk usage = {0};
    DIR *dir = opendir(path);
    const struct dirent *entry;
    struct stat st;

    if (dir == NULL)
        return usage;
    while ((entry = readdir(dir)) != NULL) {
        uint64_t bytes;

        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode))
            continue;
        bytes = (uint64_t)st.st_blocks * 512u;
        usage.files++;
        usage.bytes += bytes;
        if (strncmp(entry->d_name, "segment-", strlen("segment-")) == 0)
            usage.log_bytes += bytes;
    }
    (void)closedir(dir);
    return usage;
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

int
tool_parse_dir(int key, char *arg, const struct argp_state *state, const char **dir_io)
{
    switch (key) {
    case ARGP_KEY_ARG:
        if (*dir_io != NULL)
            argp_error(state, "'%s' is too much", arg);
        *dir_io = arg;
        return 0;
    case ARGP_KEY_END:
        if (*dir_io == NULL)
            argp_error(state, "no directory given");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
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

uint64_t
tool_size(const struct argp_state *state, const char *text, uint64_t min, uint64_t max)
{
    char *end = NULL;
    unsigned long long value;
    uint64_t unit = 1u << 20;

    errno = 0;
    value = strtoull(text, &end, 0);
    if (end != text && (*end == 'K' || *end == 'M') && end[1] == '\0')
        unit = *end++ == 'K' ? 1u << 10 : unit;
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || value > max / unit ||
        value * unit < min)
        argp_error(state, "'%s' is not a size from %" PRIu64 "K to %" PRIu64 "M", text, min >> 10,
                   max >> 20);
    return value * unit;
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
    const char *detail = scree_error_detail(), *name = scree_strerror(code);

    if (strstr(detail, what) != NULL && strstr(detail, name) != NULL) /* it says all of it */
        (void)fprintf(stderr, "scree: %s\n", detail);
    else
        (void)fprintf(stderr, "scree: %s: %s%s%s%s\n", what, name, detail[0] != '\0' ? " (" : "",
                      detail, detail[0] != '\0' ? ")" : "");
}

enum tool_exit
tool_exit_of(int code)
{
    if (code == 0)
        return TOOL_OK;
    return code == SCREE_E_CORRUPT ? TOOL_WRONG : TOOL_IO;
}
