/*
 * assert.c - what happens when an invariant of ours does not hold.
 *
 * The one place where the library writes to stderr and ends the process. Only a defect of scree
 * itself leads here, never bad input or an I/O error: those are results. Going on could persist bad
 * bytes.
 */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Noreturn void
scree__assert_failed(const char *file, int line, const char *what)
{
    char text[512];
    int len = snprintf(text, sizeof text, "scree %s: %s:%d: this must hold: %s\n",
                       scree_version_string(), file, line, what);

    /* write(2), not stdio: its locks may be held, its memory may be what is broken. */
    if (len > 0 && write(STDERR_FILENO, text, strlen(text)) < 0)
        _Exit(134); /* nowhere to say it: at least the status of an abort */
    abort();
}
