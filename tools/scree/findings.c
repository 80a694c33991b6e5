/*
 * findings.c - what `scree verify` and `scree salvage` find, as lines of text or of JSON, and how they get on.
 */
#include "tool.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_NS (100u * 1000 * 1000)

static const char *
severity_name(int severity)
{
    switch (severity) {
    case SCREE_FINDING_DAMAGE:
        return "damage";
    case SCREE_FINDING_LOST:
        return "lost";
    default:
        return "note";
    }
}

void
tool_findings_init(struct tool_findings *f, bool json)
{
    *f = (struct tool_findings){.json = json, .progress = isatty(STDERR_FILENO) != 0};
}

static void
progress_wipe(struct tool_findings *f)
{
    if (f->dirty)
        (void)fputs("\r\033[K", stderr);
    f->dirty = false;
}

int
tool_progress_print(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct tool_findings *f = ctx;
    uint64_t now = tool_now_ns();

    if (!f->progress || now - f->told_ns < PROGRESS_NS)
        return 0;
    f->told_ns = now;
    progress_wipe(f);
    if (total > 0)
        (void)fprintf(stderr, "%s: %" PRIu64 " of %" PRIu64 " (%.0f%%)", what, done, total,
                      100.0 * (double)done / (double)total);
    else
        (void)fprintf(stderr, "%s: %" PRIu64, what, done);
    f->dirty = true;
    return 0;
}

static void
json_text(json_t *o, const char *key, const char *text)
{
    if (text != NULL)
        (void)json_object_set_new(o, key, json_string(text)); /* not there if it is no UTF-8 */
}

static int
json_line(json_t *o)
{
    int rc = json_dumpf(o, stdout, JSON_COMPACT);

    json_decref(o);
    return rc != 0 || putchar('\n') < 0;
}

static int
finding_json(const scree_finding *x)
{
    json_t *o = json_object();

    json_text(o, "severity", severity_name(x->severity));
    (void)json_object_set_new(o, "code", json_integer(x->code));
    json_text(o, "error", x->code != 0 ? scree_strerror(x->code) : NULL);
    json_text(o, "file", x->file);
    if (x->file != NULL)
        (void)json_object_set_new(o, "offset", json_integer((json_int_t)x->offset));
    if (x->lsn != 0)
        (void)json_object_set_new(o, "lsn", json_integer((json_int_t)x->lsn));
    if (x->bytes != 0)
        (void)json_object_set_new(o, "bytes", json_integer((json_int_t)x->bytes));
    if (x->page != 0)
        (void)json_object_set_new(o, "page", json_integer((json_int_t)x->page));
    json_text(o, "text", x->text);
    json_text(o, "expected", x->expected);
    json_text(o, "found", x->found);
    return json_line(o);
}

static int
finding_text(const scree_finding *x)
{
    (void)printf("%s:", severity_name(x->severity));
    if (x->page != 0)
        (void)printf(" page %" PRIu64, x->page);
    if (x->file != NULL)
        (void)printf("%s %s, offset %" PRIu64, x->page != 0 ? "," : "", x->file, x->offset);
    if (x->lsn != 0)
        (void)printf("%s lsn %" PRIu64, x->page != 0 || x->file != NULL ? "," : "", x->lsn);
    if (x->page == 0 && x->file == NULL && x->lsn == 0)
        (void)printf(" the directory");
    if (x->bytes != 0)
        (void)printf(", %" PRIu64 " bytes", x->bytes);
    (void)printf("\n    %s\n", x->text);
    if (x->expected != NULL || x->found != NULL)
        (void)printf("    expected: %s; found: %s\n", x->expected != NULL ? x->expected : "-",
                     x->found != NULL ? x->found : "-");
    return ferror(stdout);
}

int
tool_finding_print(void *ctx, const scree_finding *finding)
{
    struct tool_findings *f = ctx;

    progress_wipe(f);
    f->damage += finding->severity == SCREE_FINDING_DAMAGE;
    f->lost += finding->severity == SCREE_FINDING_LOST;
    f->notes += finding->severity == SCREE_FINDING_NOTE;
    return f->json ? finding_json(finding) : finding_text(finding);
}

int
tool_findings_end(struct tool_findings *f, const char *dir, int code)
{
    int bad;

    progress_wipe(f);
    if (code != 0 && (code != SCREE_E_CORRUPT || f->damage + f->lost == 0)) {
        tool_complain(dir, code);
        return TOOL_IO;
    }
    if (f->json) {
        json_t *o = json_object();

        (void)json_object_set_new(o, "damage", json_integer((json_int_t)f->damage));
        (void)json_object_set_new(o, "lost", json_integer((json_int_t)f->lost));
        (void)json_object_set_new(o, "notes", json_integer((json_int_t)f->notes));
        bad = json_line(o);
    } else {
        bad = printf("%s: %s; damage %" PRIu64 ", lost %" PRIu64 ", notes %" PRIu64 "\n", dir,
                     code == 0 ? "clean" : "not clean", f->damage, f->lost, f->notes) < 0;
    }
    if (bad != 0 || fflush(stdout) != 0 || ferror(stdout) != 0)
        return TOOL_IO;
    return code == 0 ? TOOL_OK : TOOL_WRONG;
}
