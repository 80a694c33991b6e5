/*
 * survey_page.c - the pages of a surveyed directory, one after the other, and the records of one, read and
 * checked.
 *
 * No atomics: one thread.
 * ACCOUNTING  each record is read under its page's id, at its lsn, with its length: no two pages can claim the
 *   same bytes without one of them failing, and nothing outside of the log verifies.
 * FAILURE  a record that cannot be read is a finding (LOST); other errors end it.
 * NOT HERE what pages merge to (verify.c), where they go (salvage.c).
 */
#include "pagecache/pagecache_private.h"
#include "pagecache/survey_private.h"

#include <stdio.h>

/* ---- pages ------------------------------------------------------------------------------------- */

static uint64_t
pages_count(struct scree__survey *s)
{
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(&s->table, 0);
    uint64_t n = 0;

    for (; leaf != NULL; leaf = scree__radix_leaf_after(&s->table, leaf)) {
        struct scree__radix_ref ref = {.leaf = leaf};

        for (; ref.index < SCREE__RADIX_FANOUT; ref.index++)
            n += slot_tag(scree__survey_word(ref)) != SLOT_FREE;
    }
    return n;
}

int
scree__survey_pages(struct scree__survey *s, scree__survey_visit visit, void *ctx)
{
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(&s->table, 0);
    uint64_t total = pages_count(s);
    int rc = 0;

    for (; rc == 0 && leaf != NULL; leaf = scree__radix_leaf_after(&s->table, leaf)) {
        struct scree__radix_ref ref = {.leaf = leaf};

        rc = scree__survey_progress(s, "pages", s->pages, total);
        for (; rc == 0 && ref.index < SCREE__RADIX_FANOUT; ref.index++) {
            struct scree__survey_page page;
            struct scree__position one;

            if (!scree__survey_get(ref, &one, &page))
                continue;
            s->pages++;
            rc = visit(ctx, s, &page);
        }
    }
    return rc != 0 ? rc : scree__survey_progress(s, "pages", total, total);
}

/* ---- one page's records ------------------------------------------------------------------------ */

static int
tell_page(struct scree__survey *s, const struct scree__survey_page *page, size_t i, int code,
          const char *found)
{
    char name[64], expected[96];
    uint64_t offset;

    scree__log_locate(s->log, page->position[i].lsn, name, sizeof name, &offset);
    (void)snprintf(expected, sizeof expected, "record %zu of %zu of the page, %u bytes", i + 1,
                   page->n, page->position[i].disk_len);
    return scree__survey_tell(s, (scree_finding){.severity = SCREE_FINDING_LOST,
                                                 .code = code,
                                                 .file = name,
                                                 .offset = offset,
                                                 .lsn = page->position[i].lsn,
                                                 .page = page->id,
                                                 .text = scree_error_detail(),
                                                 .expected = expected,
                                                 .found = found,
                                                 .bytes = page->position[i].disk_len});
}

static void
content_reset(struct scree__survey_content *c)
{
    for (size_t i = 0; i < c->n; i++)
        scree__free(c->raw[i], c->raw_len[i]);
    c->n = 0;
}

void
scree__survey_content_end(struct scree__survey_content *c)
{
    content_reset(c);
    scree__log_read_done(c->read, c->read_cap);
    scree__free(c->read, c->read_cap * sizeof *c->read);
    scree__free(c->raw, c->read_cap * sizeof *c->raw);
    scree__free(c->raw_len, c->read_cap * sizeof *c->raw_len);
    scree__free(c->part, c->read_cap * sizeof *c->part);
    *c = (struct scree__survey_content){0};
}

static int
content_room(struct scree__survey_content *c, size_t n)
{
    content_reset(c);
    if (n <= c->read_cap)
        return 0;
    scree__survey_content_end(c);
    c->read = scree__alloc_zero(n * sizeof *c->read);
    c->raw = scree__alloc_zero(n * sizeof *c->raw);
    c->raw_len = scree__alloc_zero(n * sizeof *c->raw_len);
    c->part = scree__alloc_zero(n * sizeof *c->part);
    if (c->read == NULL || c->raw == NULL || c->raw_len == NULL || c->part == NULL) {
        scree__free(c->read, n * sizeof *c->read);
        scree__free(c->raw, n * sizeof *c->raw);
        scree__free(c->raw_len, n * sizeof *c->raw_len);
        scree__free(c->part, n * sizeof *c->part);
        *c = (struct scree__survey_content){0};
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to read a page of %zu records", n);
    }
    c->read_cap = n;
    return 0;
}

/* The i-th record's payload as the user gave it. */
static int
content_unpack(struct scree__survey_content *c, size_t i)
{
    const struct scree__record *r = &c->read[i].r;
    uint32_t len;
    int rc;

    c->raw[i] = NULL;
    c->raw_len[i] = 0;
    c->n = i + 1;
    c->part[i] = (scree_slice){r->payload, r->payload_len};
    if ((r->flags & SCREE__RECORD_COMPRESSED) == 0)
        return 0;
    rc = scree__record_raw_len(r, &len);
    if (rc != 0)
        return rc;
    c->raw_len[i] = len + (size_t)1;
    c->raw[i] = scree__alloc(c->raw_len[i]);
    if (c->raw[i] == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for a record of %u bytes", len);
    c->part[i] = (scree_slice){c->raw[i], len};
    return scree__record_unpack(r, c->raw[i], len);
}

/* What is out of place with the i-th record, which is whole. */
static const char *
content_problem(const struct scree__survey_page *page, const struct scree__record *r, size_t i)
{
    if (r->kind > SCREE__RECORD_CONSOLIDATED)
        return "a record of another kind";
    if ((r->kind == SCREE__RECORD_DELTA) != (i > 0))
        return i > 0 ? "a base among the fragments" : "a fragment in place of the base";
    if (i + 1 == page->n && r->version != page->version)
        return "another version than the page table says";
    return NULL;
}

int
scree__survey_read(struct scree__survey *s, const struct scree__survey_page *page,
                   struct scree__survey_content *c)
{
    int rc = content_room(c, page->n);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < page->n; i++) {
        const char *found = "bytes that are not this record";

        c->read[i].page = page->id;
        c->read[i].lsn = page->position[i].lsn;
        c->read[i].disk_len = page->position[i].disk_len;
        rc = scree__log_read(s->log, &c->read[i], 1);
        if (rc == 0 && (found = content_problem(page, &c->read[i].r, i)) != NULL)
            rc = scree__fail(SCREE_E_CORRUPT, "page %llu: the record at lsn %llu is %s",
                             (unsigned long long)page->id,
                             (unsigned long long)page->position[i].lsn, found);
        if (rc == 0)
            rc = content_unpack(c, i);
        if (scree__survey_is_damage(rc)) {
            rc = tell_page(s, page, i, rc, found);
            return rc != 0 ? rc : 1;
        }
        if (rc != 0)
            return rc;
    }
    c->has_base = page->n > 0 && c->read[0].r.payload_len > 0;
    if (page->n > 0 && c->read[0].r.payload_len == 0)
        c->has_base = c->read[0].r.kind != SCREE__RECORD_ALLOCATE &&
                      (c->read[0].r.flags & SCREE__RECORD_NO_BASE) == 0;
    return 0;
}
