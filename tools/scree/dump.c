/*
 * dump.c - `scree dump DIR [PAGE]`: the pages of a directory, unmerged.
 */
#include "tool.h"

#include "snapshot/snapshot.h"

#include <argp.h>
#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define COMPLAINTS_MAX 20u

struct dump_options {
    const char *dir;
    scree_page_id page; /* 0: all of them */
    bool json;
};

/* One page as scree_page_fragments gives it, inside a guard. */
struct dump_page {
    scree_page_id id;
    scree_version version;
    scree_slice base;
    scree_slice *frags;
    size_t cap, n;
};

static error_t
dump_parse(int key, char *arg, struct argp_state *state)
{
    struct dump_options *o = state->input;

    switch (key) {
    case 'j':
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num != 1)
            return tool_parse_dir(key, arg, state, &o->dir);
        o->page = tool_number(state, arg, 1, UINT64_MAX);
        return 0;
    default:
        return tool_parse_dir(key, arg, state, &o->dir);
    }
}

/* Fills p for p->id; the caller is in a guard. Grows p->frags until all fragments fit. */
static int
page_fetch(scree_cache *cache, struct dump_page *p)
{
    for (;;) {
        scree_slice *more;
        int rc = scree_page_fragments(cache, p->id, &p->base, p->frags, p->cap, &p->n, &p->version);

        if (rc != 0 || p->n <= p->cap)
            return rc;
        more = realloc(p->frags, p->n * sizeof(*more));
        if (more == NULL)
            return SCREE_E_NO_MEMORY;
        p->frags = more;
        p->cap = p->n;
    }
}

static json_t *
hex_string(scree_slice s)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *p = s.data;
    char *text = malloc(2 * s.len + 1);
    json_t *value;

    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < s.len; i++) {
        text[2 * i] = digits[p[i] >> 4];
        text[2 * i + 1] = digits[p[i] & 15];
    }
    value = json_stringn(text, 2 * s.len);
    free(text);
    return value;
}

static int
page_print_json(const struct dump_page *p, bool bytes)
{
    json_t *o = json_object(), *sizes = json_array(), *contents = json_array();
    int rc = 0;

    rc |= json_object_set_new(o, "page", json_integer((json_int_t)p->id));
    rc |= json_object_set_new(o, "version", json_integer((json_int_t)p->version));
    rc |= json_object_set_new(o, "base_bytes",
                              p->base.data != NULL ? json_integer((json_int_t)p->base.len)
                                                   : json_null());
    for (size_t i = 0; i < p->n; i++) {
        rc |= json_array_append_new(sizes, json_integer((json_int_t)p->frags[i].len));
        if (bytes)
            rc |= json_array_append_new(contents, hex_string(p->frags[i]));
    }
    rc |= json_object_set_new(o, "fragment_bytes", sizes);
    if (bytes)
        rc |= json_object_set_new(o, "base_hex",
                                  p->base.data != NULL ? hex_string(p->base) : json_null());
    rc |= json_object_set_new(o, "fragments_hex", contents);
    if (!bytes)
        rc |= json_object_del(o, "fragments_hex");
    rc |= json_dumpf(o, stdout, JSON_COMPACT);
    json_decref(o);
    return rc != 0 || putchar('\n') < 0 ? SCREE_E_NO_MEMORY : 0;
}

static void
hex_print(scree_slice s)
{
    const unsigned char *p = s.data;

    for (size_t at = 0; at < s.len; at += 16) {
        size_t n = s.len - at < 16 ? s.len - at : 16;

        (void)printf("    %08zx ", at);
        for (size_t i = 0; i < 16; i++) {
            if (i < n)
                (void)printf(" %02x", p[at + i]);
            else
                (void)printf("   ");
        }
        (void)printf("  ");
        for (size_t i = 0; i < n; i++)
            (void)putchar(p[at + i] < 128 && isprint(p[at + i]) ? p[at + i] : '.');
        (void)putchar('\n');
    }
}

static void
page_print_text(const struct dump_page *p, bool bytes)
{
    (void)printf("page %" PRIu64 "  version %" PRIu64 "  ", p->id, p->version);
    if (p->base.data != NULL)
        (void)printf("base %zu", p->base.len);
    else
        (void)printf("no base");
    (void)printf("  fragments %zu", p->n);
    for (size_t i = 0; i < p->n; i++)
        (void)printf("%s%zu", i == 0 ? ": " : " ", p->frags[i].len);
    (void)putchar('\n');
    if (!bytes)
        return;
    if (p->base.data != NULL) {
        (void)printf("  base, %zu bytes\n", p->base.len);
        hex_print(p->base);
    }
    for (size_t i = 0; i < p->n; i++) {
        (void)printf("  fragment %zu of %zu, %zu bytes\n", i + 1, p->n, p->frags[i].len);
        hex_print(p->frags[i]);
    }
}

/* One page in a guard of its own, so that a walk pins no more than one page's memory. */
static int
page_dump(scree_cache *cache, struct dump_page *p, const struct dump_options *o, bool complain)
{
    char what[32];
    int rc;

    scree_read_enter(cache);
    rc = page_fetch(cache, p);
    if (rc == 0) {
        if (o->json)
            rc = page_print_json(p, o->page != 0);
        else
            page_print_text(p, o->page != 0);
    }
    scree_read_leave(cache);
    if (rc != 0 && complain) {
        (void)snprintf(what, sizeof(what), "page %" PRIu64, p->id);
        tool_complain(what, rc);
    }
    return rc;
}

/* A page that cannot be read is complained about and the walk goes on: the others may be wanted. Where
   many are bad, the first ones say it all. */
static int
dump_run(scree_cache *cache, const struct dump_options *o)
{
    struct dump_page page = {.id = o->page};
    uint64_t bad = 0;
    int rc, worst = 0;

    if (o->page != 0) {
        worst = page_dump(cache, &page, o, true);
    } else {
        while ((rc = scree_page_next(cache, page.id, &page.id)) == 0) {
            rc = page_dump(cache, &page, o, bad < COMPLAINTS_MAX);
            if (rc != 0) {
                worst = worst == 0 || worst == SCREE_E_CORRUPT ? rc : worst;
                bad++;
            }
        }
        if (bad > COMPLAINTS_MAX)
            (void)fprintf(stderr, "scree: and %" PRIu64 " more pages that cannot be read\n",
                          bad - COMPLAINTS_MAX);
        if (rc != SCREE_E_NOT_FOUND) {
            tool_complain("walking the pages", rc);
            worst = rc;
        }
    }
    free(page.frags);
    return worst;
}

int
tool_dump(int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"json", 'j', NULL, 0, "one JSON object a line instead of text", 0}, {0}};
    static const struct argp argp = {
        list,
        dump_parse,
        "DIR [PAGE]",
        "Lists the pages of DIR with version, base and fragment sizes, or shows the bytes of one "
        "PAGE: its base and its fragments, unmerged.\vExit status: 0, 1 damage (the other pages "
        "are listed), 2 usage, 3 it could not be done, or there is no such PAGE.",
        0,
        0,
        0};
    struct dump_options o = {0};
    struct scree__manifest manifest;
    scree_cache *cache;
    int rc;

    (void)argp_parse(&argp, argc, argv, 0, NULL, &o);
    rc = tool_open_any(o.dir, &manifest, &cache);
    if (rc != 0)
        return (int)tool_exit_of(rc);
    rc = dump_run(cache, &o);
    (void)scree_close(cache);
    return fflush(stdout) == 0 ? (int)tool_exit_of(rc) : TOOL_IO;
}
