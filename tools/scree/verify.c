/*
 * verify.c - `scree verify DIR`: read everything in a directory and check it.
 */
#include "tool.h"

#include <argp.h>
#include <stdio.h>

struct verify_options {
    const char *dir;
    bool json;
};

static error_t
verify_parse(int key, char *arg, struct argp_state *state)
{
    struct verify_options *o = state->input;

    if (key != 'j')
        return tool_parse_dir(key, arg, state, &o->dir);
    o->json = true;
    return 0;
}

int
tool_verify(int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"json", 'j', NULL, 0, "one JSON object a line: findings, then how many of each severity",
         0},
        {0}};
    static const struct argp argp = {list,
                                     verify_parse,
                                     "DIR",
                                     "Reads every manifest, snapshot, log record and page of DIR "
                                     "and checks them; writes nothing. What "
                                     "pages merge to is not checked: only the program that wrote "
                                     "them can.\vExit status: 0 clean, 1 "
                                     "findings, 2 usage, 3 it could not be done.",
                                     0,
                                     0,
                                     0};
    struct verify_options o = {0};
    struct tool_findings findings;
    scree_options options;
    int rc;

    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    tool_findings_init(&findings, o.json);
    scree_options_init(&options);
    rc = scree_verify(o.dir, &options, tool_finding_print, tool_progress_print, &findings);
    return tool_findings_end(&findings, o.dir, rc);
}
