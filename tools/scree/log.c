/*
 * log.c - `scree log DIR`: what users changed, record by record.
 *
 * A directory that a program has open for writing cannot be opened here. So --follow reads to the end, closes,
 * and opens again where it was, once a second, as often as it can: what a program writes while it has the
 * directory comes when it has closed it, and nothing is kept from being opened for long. A program that wants
 * its own changes as they happen calls scree_log_next. If so much was written meanwhile that the log from here
 * on was given back, that is told on standard error, and it goes on at the oldest position. In the moment in
 * which the directory is open here a program that wants to write is refused it (LOCKED).
 */
#include "tool.h"

#include "snapshot/snapshot.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>

#define FOLLOW_MS 1000u

struct log_options {
    const char *dir;
    scree_lsn from;
    bool json, follow;
};

static error_t
log_parse(int key, char *arg, struct argp_state *state)
{
    struct log_options *o = state->input;

    switch (key) {
    case 'j':
        o->json = true;
        return 0;
    case 'f':
        o->follow = true;
        return 0;
    case 'l':
        o->from = tool_number(state, arg, 0, UINT64_MAX);
        return 0;
    default:
        return tool_parse_dir(key, arg, state, &o->dir);
    }
}

static const char *
kind_name(int kind)
{
    switch (kind) {
    case SCREE_RECORD_ALLOCATE:
        return "allocate";
    case SCREE_RECORD_SET:
        return "set";
    case SCREE_RECORD_DELTA:
        return "delta";
    default:
        return "free";
    }
}

/* *in_batch: as of the record before; a batch's last record is the first without MORE. */
static void
record_print(const scree_log_record *r, bool json, bool *in_batch)
{
    bool more = (r->flags & SCREE_RECORD_MORE) != 0,
         chosen = (r->flags & SCREE_RECORD_CHOSEN_ID) != 0;
    bool batch = more || *in_batch;

    *in_batch = more;
    if (json)
        (void)printf("{\"lsn\":%" PRIu64 ",\"next\":%" PRIu64 ",\"kind\":\"%s\",\"page\":%" PRIu64
                     ",\"version\":%" PRIu64 ",\"bytes\":%zu,\"batch\":%s,\"more\":%s,"
                     "\"chosen_id\":%s}\n",
                     r->lsn, r->next, kind_name(r->kind), r->page, r->version, r->payload.len,
                     batch ? "true" : "false", more ? "true" : "false", chosen ? "true" : "false");
    else
        (void)printf("lsn %" PRIu64 "  %-8s  page %" PRIu64 "  version %" PRIu64
                     "  bytes %zu%s%s\n",
                     r->lsn, kind_name(r->kind), r->page, r->version, r->payload.len,
                     batch ? "  in batch" : "", chosen ? "  chosen id" : "");
}

/* All there is from *at on; *at: where to go on. */
static int
log_print(scree_cache *cache, const struct log_options *o, scree_lsn *at)
{
    scree_log_record r = {.size = sizeof(r)};
    scree_log_reader *reader;
    bool in_batch = false;
    int rc = scree_log_open(cache, *at, &reader);

    if (rc == SCREE_E_NOT_FOUND && o->follow) { /* a writer was quicker: a gap, and on */
        tool_complain(o->dir, rc);
        rc = scree_log_open(cache, 0, &reader);
    }
    while (rc == 0) {
        rc = scree_log_next(reader, 0, &r);
        if (rc == 0)
            record_print(&r, o->json, &in_batch);
        if (rc == 0 || rc == SCREE_E_TIMEOUT)
            *at = r.next;
    }
    scree_log_close(reader);
    return rc == SCREE_E_TIMEOUT ? 0 : rc;
}

static int
log_run(const struct log_options *o)
{
    struct scree__manifest manifest;
    scree_lsn at = o->from;
    int rc;

    do {
        scree_cache *cache;

        rc = tool_open_quietly(o->dir, &manifest, &cache);
        if (rc == SCREE_E_LOCKED && o->follow)
            rc = 0; /* later */
        else if (rc == 0) {
            rc = log_print(cache, o, &at);
            if (rc != 0)
                tool_complain(o->dir, rc); /* before close says something else */
            (void)scree_close(cache);
        } else {
            tool_complain(o->dir, rc);
        }
        if (fflush(stdout) != 0)
            return TOOL_IO;
        if (rc == 0 && o->follow)
            tool_sleep_ms(FOLLOW_MS);
    } while (rc == 0 && o->follow);
    return rc == SCREE_E_INVALID ? TOOL_TROUBLE /* --from */ : (int)tool_exit_of(rc);
}

int
tool_log(int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"json", 'j', NULL, 0, "one JSON object a line instead of text", 0},
        {"from", 'l', "LSN", 0,
         "begin at this position: the `next` of a record; default: the oldest", 0},
        {"follow", 'f', NULL, 0,
         "go on for ever: look again each second, when no program has DIR open", 0},
        {0}};
    static const struct argp argp = {
        list,
        log_parse,
        "DIR",
        "Lists what was changed in DIR, in the order of the log, as far "
        "back as it is kept: the last snapshot but one.\vExit status: "
        "0, 1 damage, 2 usage, or no position of this log, 3 it could "
        "not be done.",
        0,
        0,
        0};
    struct log_options o = {0};

    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    return log_run(&o);
}
