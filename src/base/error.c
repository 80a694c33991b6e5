/*
 * error.c - result codes in words, and the detail text of the failure a thread met last.
 *
 * No atomics: the detail and the scratch line are thread-local. Both are fixed arrays, so that
 * telling about a failure (out of memory among them) cannot itself fail; what does not fit is cut.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char error_detail[512];
static _Thread_local char error_line[96];

int
scree__fail(int code, const char *format, ...)
{
    /* Through a local: an argument may be the previous detail, "loading X: <what went wrong
       below>". */
    char text[sizeof error_detail];
    va_list args;

    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0)
        text[0] = '\0';
    memcpy(error_detail, text, sizeof text);
    return code;
}

void
scree__fail_clear(void)
{
    error_detail[0] = '\0';
}

const char *
scree_error_detail(void)
{
    return error_detail;
}

const char *
scree_strerror(int code)
{
    switch (code) {
    case 0:
        return "success";
#define ERROR_CASE(name, number, text) \
    case (number):                     \
        return text;
        SCREE_ERROR_MAP(ERROR_CASE)
#undef ERROR_CASE
    default:
        break;
    }
    /* errno numbers end far below ours; the bound also keeps -code from overflowing. */
    if (code < 0 && code > -20000)
        return strerror_r(-code, error_line, sizeof error_line);
    (void)snprintf(error_line, sizeof error_line, "unknown result %d", code);
    return error_line;
}

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number) /* of the number a macro stands for */
#define VERSION_TEXT \
    TEXT(SCREE_VERSION_MAJOR) "." TEXT(SCREE_VERSION_MINOR) "." TEXT(SCREE_VERSION_PATCH)

const char *
scree_version_string(void)
{
    return VERSION_TEXT;
}
