/*
 * salvage.c - scree_salvage: what a damaged directory provably holds, into a new one.
 *
 * STEPS  W1  dst must be new, and not in src     W2  survey src (survey.c), which tells what is wrong
 *        W3  open dst with the segment size and the materializer's name of src
 *        W4  each page that is provable: its base and fragments, unmerged, under its id
 *        W5  the recovery state and the highest id go over; two snapshots, so that both generations of dst
 *            have them; close
 * INVARIANTS
 *   I1 src is only read: the survey opens nothing for writing, and W1 keeps dst out of it.
 *   I2 dst's recover callback is not called: its records were folded when src was written.
 * FAILURE  a page that cannot be copied is a finding; what hinders dst itself ends it.
 * NOT HERE what is provable (survey.c).
 */
#include "pagecache/pagecache_private.h"
#include "pagecache/survey.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct salvage {
    struct scree__survey survey;
    struct scree__survey_content content;
    scree_cache *to;
};

/* ---- W1 ---------------------------------------------------------------------------------------- */

static int
name_seen(void *ctx, const char *name)
{
    (void)ctx, (void)name;
    return 1;
}

/* src is locked, shared: whatever way leads there, its lock cannot be had. */
static int
dst_check(struct salvage *sv, const char *dst)
{
    const scree_env *env = sv->survey.options.env;
    int64_t holder;
    char *parent;
    int rc = env->list(env->ctx, dst, name_seen, NULL);

    if (rc == 1)
        return scree__fail(SCREE_E_INVALID, "%s is not empty; salvage makes a new directory", dst);
    if (rc != 0 && rc != -ENOENT)
        return scree__fail(rc, "cannot list %s: %s", dst, scree_strerror(rc));
    parent = scree__path_parent(dst);
    if (parent == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for a path");
    rc = env->lock(env->ctx, parent, 0, &holder);
    if (rc >= 0)
        rc = env->close(env->ctx, rc);
    else if (rc == -EWOULDBLOCK)
        rc = scree__fail(SCREE_E_INVALID, "%s lies in %s, which is the source or in use", dst,
                         sv->survey.dir);
    else
        rc = scree__fail(rc, "%s: cannot lock the directory it is in: %s", dst, scree_strerror(rc));
    scree__path_free(parent);
    return rc;
}

/* ---- W3 ---------------------------------------------------------------------------------------- */

static int
dst_open(struct salvage *sv, const char *dst)
{
    struct scree__survey *s = &sv->survey;
    scree_materializer m = s->materializer;
    scree_options o = s->options;

    if (s->unmerged && !s->manifest_found)
        return scree__fail(SCREE_E_INVALID,
                           "%s: no manifest can be read: the materializer has to be given", s->dir);
    m.name = s->manifest.materializer;
    m.version = s->manifest.materializer_version;
    m.recover = NULL; /* I2 */
    o.materializer = &m;
    o.flags = SCREE_CREATE | SCREE_EXCLUSIVE | (s->options.flags & SCREE_NO_PUNCH);
    o.segment_bytes = s->manifest.segment_bytes;
    return scree_open(dst, &o, &sv->to);
}

/* ---- W4 ---------------------------------------------------------------------------------------- */

static int
page_write(struct salvage *sv, const struct scree__survey_page *page)
{
    const struct scree__survey_content *c = &sv->content;
    scree_slice base = c->has_base ? c->part[0] : (scree_slice){NULL, 0};
    int rc = 0;

    if (page->id != SCREE_PAGE_ROOT)
        rc = scree_page_allocate_at(sv->to, page->id, base, NULL);
    /* The root is there already; an empty base is more than none. */
    if (rc == 0 && c->has_base && (page->id == SCREE_PAGE_ROOT || base.len == 0))
        rc = scree_page_put(sv->to, page->id, base, NULL);
    for (size_t i = 1; rc == 0 && i < page->n; i++)
        rc = scree_page_append(sv->to, page->id, c->part[i], NULL);
    return rc;
}

static int
tell_lost(struct salvage *sv, const struct scree__survey_page *page, int code, const char *text)
{
    return scree__survey_tell(&sv->survey, (scree_finding){.severity = SCREE_FINDING_LOST,
                                                           .code = code,
                                                           .lsn = page->position[page->n - 1].lsn,
                                                           .page = page->id,
                                                           .text = text});
}

static int
page_visit(void *ctx, struct scree__survey *s, const struct scree__survey_page *page)
{
    struct salvage *sv = ctx;
    int rc;

    if (!page->provable)
        return tell_lost(sv, page, SCREE_E_CORRUPT,
                         "its newest record is a fragment behind a stretch of the log that cannot "
                         "be read: what the page holds cannot be proved");
    rc = scree__survey_read(s, page, &sv->content);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = page_write(sv, page);
    if (rc == SCREE_E_TOO_BIG || rc == SCREE_E_MERGE)
        return tell_lost(sv, page, rc, scree_error_detail());
    return rc;
}

/* ---- W5 ---------------------------------------------------------------------------------------- */

static int
state_move(struct salvage *sv)
{
    struct scree__survey *s = &sv->survey;
    scree_cache *to = sv->to;
    uint64_t lsn;
    int rc = 0;

    if (s->state_lost && s->materializer.recover == NULL)
        rc = scree__survey_tell(
            s, (scree_finding){.severity = SCREE_FINDING_LOST,
                               .code = SCREE_E_MATERIALIZER,
                               .lsn = s->start,
                               .text = "the recovery state is that of the snapshot: without the "
                                       "recover callback it cannot be folded on"});
    pthread_mutex_lock(&to->checkpoint_mutex); /* no snapshot is being written */
    scree__out_destroy(&to->fold);
    to->fold = s->state;
    pthread_mutex_unlock(&to->checkpoint_mutex);
    scree__out_init(&s->state, SIZE_MAX / 2);
    pthread_mutex_lock(&to->id_mutex);
    to->id_high = s->id_high > to->id_high ? s->id_high : to->id_high;
    pthread_mutex_unlock(&to->id_mutex);
    scree__generator_found(to, s->generated_high); /* nobody has asked dst for one */
    if (rc == 0)
        rc = scree__checkpoint_again(to, &lsn);
    return rc == 0 ? scree__checkpoint_again(to, &lsn) : rc;
}

static int
salvage_run(struct salvage *sv, const char *dst)
{
    char why[512];
    int rc = dst_check(sv, dst);

    if (rc == 0)
        rc = scree__survey_run(&sv->survey);
    if (rc == 0)
        rc = dst_open(sv, dst);
    if (rc != 0)
        return rc;
    rc = scree__survey_pages(&sv->survey, page_visit, sv);
    if (rc == 0)
        rc = state_move(sv);
    if (rc == 0)
        return scree_close(sv->to);
    (void)snprintf(why, sizeof why, "%s", scree_error_detail()); /* the close has one of its own */
    (void)scree_close(sv->to);
    return scree__fail(rc, "%s", why);
}

int
scree_salvage(const char *src, const char *dst, const scree_options *options,
              scree_finding_fn finding, scree_progress_fn progress, void *ctx)
{
    struct salvage *sv;
    int rc;

    if (dst == NULL || dst[0] == '\0')
        return scree__fail(SCREE_E_INVALID, "scree_salvage: dst is required");
    sv = scree__alloc_zero(sizeof *sv);
    if (sv == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to salvage");
    sv->survey.salvages = true;
    rc = scree__survey_begin(&sv->survey, src, options, finding, progress, ctx);
    if (rc == 0)
        rc = salvage_run(sv, dst);
    if (rc == 0 && sv->survey.bad > 0)
        rc = scree__fail(SCREE_E_CORRUPT, "%s: %llu findings; %s has the rest", src,
                         (unsigned long long)sv->survey.bad, dst);
    scree__survey_content_end(&sv->content);
    scree__survey_end(&sv->survey);
    scree__free(sv, sizeof *sv);
    return scree__code_told(rc);
}
