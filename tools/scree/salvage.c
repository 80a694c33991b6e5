/*
 * salvage.c - `scree salvage SRC DST`: what a damaged directory still holds, into a new one.
 */
#include "tool.h"

#include <argp.h>
#include <stdio.h>

struct salvage_options {
    const char *src, *dst;
    const char *materializer; /* NULL: the manifest tells */
    uint32_t version;
    bool json;
};

enum { KEY_MATERIALIZER = 'm', KEY_VERSION = 'V' };

static error_t
salvage_parse(int key, char *arg, struct argp_state *state)
{
    struct salvage_options *o = state->input;

    switch (key) {
    case 'j':
        o->json = true;
        return 0;
    case KEY_MATERIALIZER:
        o->materializer = arg;
        return 0;
    case KEY_VERSION:
        o->version = (uint32_t)tool_number(state, arg, 0, UINT32_MAX);
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
        {"materializer", KEY_MATERIALIZER, "NAME", 0,
         "name of the materializer SRC was made with, for DST, if SRC has no manifest", 0},
        {"materializer-version", KEY_VERSION, "N", 0, "its version; 1 unless given", 0},
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
    struct salvage_options o = {.version = 1};
    scree_materializer materializer = {.size = sizeof(materializer), .merge = tool_merge_refuse};
    struct tool_findings findings;
    scree_options options;
    int rc;

    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    tool_findings_init(&findings, o.json);
    scree_options_init(&options);
    options.log_buffer_bytes = (uint64_t)64 << 20; /* pages of any size that is likely */
    options.page_bytes_max = options.log_buffer_bytes / 4;
    if (o.materializer != NULL) {
        materializer.name = o.materializer;
        materializer.version = o.version;
        options.materializer = &materializer;
    }
    rc = scree_salvage(o.src, o.dst, &options, tool_finding_print, tool_progress_print, &findings);
    return tool_findings_end(&findings, o.src, rc);
}
