/*
 * backup.c - `scree backup SRC DST`: copy a directory into one that opens as it does.
 *
 * SRC is opened read-only: it may have been closed or have crashed, and others may be reading it. A program
 * that has it open for writing makes the backup itself, by scree_backup.
 */
#include "tool.h"

#include "snapshot/snapshot.h"

#include <argp.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DRAW_EVERY_NS 200000000u

struct backup_options {
    const char *src, *dst;
    uint64_t bytes_per_s; /* 0: no limit */
    bool json;
};

struct drawing {
    bool on;
    uint64_t last_ns;
    uint64_t done;
};

enum { KEY_RATE = 'r', KEY_JSON = 'j' };

static error_t
backup_parse(int key, char *arg, struct argp_state *state)
{
    struct backup_options *o = state->input;

    switch (key) {
    case KEY_RATE:
        o->bytes_per_s = tool_number(state, arg, 1, UINT64_C(1) << 40) << 20;
        return 0;
    case KEY_JSON:
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->dst != NULL)
            argp_error(state, "SRC and DST only");
        *(o->src == NULL ? &o->src : &o->dst) = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->dst == NULL)
            argp_error(state, "SRC and DST are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int
backup_draw(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct drawing *d = ctx;
    uint64_t now_ns = tool_now_ns();

    d->done = done;
    if (!d->on || (now_ns - d->last_ns < DRAW_EVERY_NS && done < total))
        return 0;
    d->last_ns = now_ns;
    (void)fprintf(stderr, "\r%s: %" PRIu64 " of %" PRIu64 " MiB", what, done >> 20, total >> 20);
    return 0;
}

static int
backup_tell(const struct backup_options *o, const scree_recovery_info *info, uint64_t bytes,
            double seconds)
{
    json_t *line;

    if (!o->json)
        return printf("%s: %" PRIu64 " pages as of lsn %" PRIu64 ", %" PRIu64
                      " bytes in %.1f s, in %s\n",
                      o->src, info->pages, info->stable_lsn, bytes, seconds, o->dst) < 0;
    line = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f}", "source", o->src, "destination", o->dst,
                     "lsn", (json_int_t)info->stable_lsn, "pages", (json_int_t)info->pages, "bytes",
                     (json_int_t)bytes, "seconds", seconds);
    int rc = json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) | (putchar('\n') < 0);

    json_decref(line);
    return rc;
}

int
tool_backup(int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"rate", KEY_RATE, "MIB", 0, "copy at most so many MiB a second", 0},
        {"json", KEY_JSON, NULL, 0, "one JSON object instead of text", 0},
        {0}};
    static const struct argp argp = {
        list,
        backup_parse,
        "SRC DST",
        "Copies the directory SRC, which nobody has open for writing, into DST, which is made or "
        "is "
        "empty. DST then opens as SRC does.\vExit status: 0, 1 SRC is damaged, 2 usage, 3 it could "
        "not "
        "be done. Unless it is 0 DST is to be deleted.",
        0,
        0,
        0};
    struct backup_options o = {0};
    struct drawing drawing = {.on = isatty(STDERR_FILENO) != 0};
    scree_recovery_info info = {.size = sizeof(info)};
    struct scree__manifest manifest;
    scree_cache *cache;
    uint64_t begin_ns = tool_now_ns();

    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    int rc = tool_open_any(o.src, &manifest, &cache), told = 0;

    if (rc != 0)
        return (int)tool_exit_of(rc);
    rc = scree_backup(cache, o.dst, o.bytes_per_s, backup_draw, &drawing);
    if (drawing.on && drawing.last_ns != 0)
        (void)fputc('\n', stderr);
    if (rc == 0)
        rc = scree_recovery(cache, &info);
    if (rc != 0)
        tool_complain(o.src, rc);
    else
        told = backup_tell(&o, &info, drawing.done, (double)(tool_now_ns() - begin_ns) / 1e9);
    (void)scree_close(cache);
    return told == 0 && fflush(stdout) == 0 ? (int)tool_exit_of(rc) : TOOL_IO;
}
