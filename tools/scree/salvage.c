/*
 * salvage.c - `scree salvage SRC DST`: what a damaged directory still holds, into a new one.
 */
#include "tool.h"

#include <argp.h>
#include <stdio.h>

struct salvage_options {
    const char *src, *dst;
    bool json;
};

static error_t
salvage_parse(int key, char *arg, struct argp_state *state)
{
    struct salvage_options *o = state->input;

    switch (key) {
    case 'j':
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        return tool_parse_dir(key, arg, state, state->arg_num == 0 ? &o->src : &o->dst);
    case ARGP_KEY_END:
        return tool_parse_dir(key, arg, state, o->src == NULL ? &o->src : &o->dst);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int
tool_salvage(int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"json", 'j', NULL, 0, "one JSON object a line: findings, then how many of each severity",
         0},
        {0}};
    static const struct argp argp = {
        list,
        salvage_parse,
        "SRC DST",
        "Copies every page of SRC that can still be proved into the new directory DST, and tells "
        "what "
        "cannot. SRC is not written to.\vExit status: 0 all is there, 1 findings (the rest is in "
        "DST), "
        "2 usage, 3 it could not be done.",
        0,
        0,
        0};
    struct salvage_options o = {0};
    struct tool_findings findings;
    scree_options options;
    int rc;

    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    tool_findings_init(&findings, o.json);
    scree_options_init(&options);
    options.log_buffer_bytes = (uint64_t)64 << 20; /* pages of any size that is likely */
    options.page_bytes_max = options.log_buffer_bytes / 4;
    rc = scree_salvage(o.src, o.dst, &options, tool_finding_print, tool_progress_print, &findings);
    return tool_findings_end(&findings, o.src, rc);
}
