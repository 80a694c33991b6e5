/*
 * verify.c - scree_verify: a directory is read whole and judged; nothing is written.
 *
 * No atomics: one thread. STEPS  the survey (survey.c), then each page of its table: its records, that they
 * belong together, what they merge to, and what the materializer thinks of that.
 * FAILURE  findings; see scree.h for what is an error instead.
 */
#include "pagecache/pagecache_private.h"
#include "pagecache/survey.h"

#include <stdio.h>

#define MERGED_BYTES_MAX ((size_t)1 << 30) /* the largest page_bytes_max: whatever it was */

struct verify {
    struct scree__survey survey;
    struct scree__survey_content content;
    struct scree_out out;
};

static int
tell_content(struct verify *v, const struct scree__survey_page *page, int code, const char *text,
             int result)
{
    char found[48];

    (void)snprintf(found, sizeof found, "%d", result);
    return scree__survey_tell(&v->survey, (scree_finding){.severity = SCREE_FINDING_DAMAGE,
                                                          .code = code,
                                                          .lsn = page->position[page->n - 1].lsn,
                                                          .page = page->id,
                                                          .text = text,
                                                          .expected = "0",
                                                          .found = found});
}

/* Its records are whole; is it? */
static int
page_judge(struct verify *v, const struct scree__survey_page *page)
{
    const scree_materializer *m = &v->survey.materializer;
    struct scree__survey_content *c = &v->content;
    scree_slice merged = c->has_base ? c->part[0] : (scree_slice){NULL, 0};
    int rc = 0;

    if (v->survey.unmerged)
        return 0;
    scree__out_reset(&v->out, MERGED_BYTES_MAX);
    if (page->n > 1) {
        rc = m->merge(m->ctx, page->id, c->has_base ? &merged : NULL, c->part + 1, page->n - 1,
                      &v->out);
        if (v->out.error == SCREE_E_NO_MEMORY)
            return v->out.error;
        if (rc == 0)
            rc = v->out.error;
        if (rc != 0)
            return tell_content(v, page, SCREE_E_MERGE, "the merge callback fails for this page",
                                rc);
        merged = (scree_slice){v->out.data, v->out.len};
    }
    if (m->check != NULL &&
        (c->has_base || page->n > 1)) /* one never written is not formed at all */
        rc = m->check(m->ctx, page->id, merged);
    return rc == 0 ? 0
                   : tell_content(v, page, SCREE_E_CORRUPT,
                                  "the check callback says that this page is not well-formed", rc);
}

static int
page_visit(void *ctx, struct scree__survey *s, const struct scree__survey_page *page)
{
    struct verify *v = ctx;
    int rc;

    if (!page->provable) {
        rc = scree__survey_tell(
            s, (scree_finding){.severity = SCREE_FINDING_LOST,
                               .code = SCREE_E_CORRUPT,
                               .lsn = page->position[page->n - 1].lsn,
                               .page = page->id,
                               .text = "its newest record is a fragment behind a stretch of the "
                                       "log that cannot be read: what the page holds cannot be "
                                       "proved"});
        if (rc != 0)
            return rc;
    }
    rc = scree__survey_read(s, page, &v->content);
    if (rc != 0 || !page->provable)
        return rc < 0 ? rc : 0;
    return page_judge(v, page);
}

int
scree_verify(const char *dir, const scree_options *options, scree_finding_fn finding,
             scree_progress_fn progress, void *ctx)
{
    struct verify *v = scree__alloc_zero(sizeof *v);
    int rc;

    if (v == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to verify");
    rc = scree__survey_begin(&v->survey, dir, options, finding, progress, ctx);
    scree__out_init(&v->out, MERGED_BYTES_MAX);
    if (rc == 0)
        rc = scree__survey_run(&v->survey);
    if (rc == 0)
        rc = scree__survey_pages(&v->survey, page_visit, v);
    if (rc == 0 && v->survey.bad > 0)
        rc = scree__fail(SCREE_E_CORRUPT, "%s: %llu findings", dir,
                         (unsigned long long)v->survey.bad);
    scree__survey_content_end(&v->content);
    scree__survey_end(&v->survey);
    scree__out_destroy(&v->out);
    scree__free(v, sizeof *v);
    return scree__code_told(rc);
}
