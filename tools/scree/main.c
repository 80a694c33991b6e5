/*
 * main.c - the `scree` command: picks the subcommand.
 */
#include "tool.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>

/* Read by jemalloc, where the tool is linked with it: pages in huge pages, as a server would have them. A
   random read of 100 MB of pages is otherwise half TLB misses. */
extern __attribute__((visibility("default"))) const char *malloc_conf;
const char *malloc_conf = "thp:always";

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *title; /* argv[0] of the subcommand, as its messages show it */
    const char *what;
} commands[] = {
    {"stress", tool_stress, "scree stress", "work on self-checking pages, kill -9, recover, check"},
    {"bench", tool_bench, "scree bench", "one workload, one line of JSON"},
    {"stat", tool_stat, "scree stat", "figures of a directory"},
    {"map", tool_map, "scree map", "where in the log the live bytes lie, as text or picture"},
    {"backup", tool_backup, "scree backup", "copy a directory into one that opens as it does"},
    {"dump", tool_dump, "scree dump", "pages of a directory, or the bytes of one page"},
    {"log", tool_log, "scree log", "what was changed, record by record"},
    {"verify", tool_verify, "scree verify", "read everything in a directory and check it"},
    {"salvage", tool_salvage, "scree salvage", "copy what is still right of a damaged directory"},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void
usage(FILE *to)
{
    (void)fprintf(to, "Usage: scree COMMAND [OPTION...]\n\n");
    for (size_t i = 0; i < COMMANDS; i++)
        (void)fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].what);
    (void)fprintf(to, "\n`scree COMMAND --help` lists a command's options.\n");
}

int
main(int argc, char **argv)
{
    argp_err_exit_status = TOOL_TROUBLE; /* of a usage error */
    if (argc < 2) {
        usage(stderr);
        return TOOL_TROUBLE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return TOOL_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("scree %s\n", scree_version_string());
        return TOOL_OK;
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            char title[32];

            (void)snprintf(title, sizeof(title), "%s", commands[i].title);
            argv[1] = title;
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    (void)fprintf(stderr, "scree: no command '%s'\n", argv[1]);
    usage(stderr);
    return TOOL_TROUBLE;
}
