/*
 * survey_replay.c - the log of a directory that may be damaged, applied to the table as far as it can be
 * proved.
 *
 * No atomics: one thread (log/survey.c shows the records, and tells where there are none).
 * WHAT IS PROVABLE  A delta does not name the record before it. If a stretch of the log that cannot be
 *   read lies between what a page stands for and its next record, then that record, if it is a delta, may
 *   follow one that is lost: the page's state is not provable any more, until a record comes that holds
 *   all of it (SET, ALLOCATE, CONSOLIDATED) or frees it. A page with no record behind the stretch is as it
 *   was before it: provably so, but it may have been newer. A snapshot's entry is at least as new as S, so
 *   a stretch below S concerns no page. A stretch that provably was a seal concerns nobody. A batch below
 *   the end of the log was whole, so what is whole of it counts, as it does for records below S.
 * WITHOUT A SNAPSHOT  the table is made from all the log there is. Zeros over whole granules, and files
 *   that are not there but were, count as given back (log/survey.c): what lay there had died, so a page's
 *   newest whole record and all deltas behind it are there. But a page's FREE may have gone with them, and
 *   then the page is back. The recovery state is not: what was folded went too.
 * IDS    the generator's mark is raised by what a stretch that cannot be read can have raised it by, at
 *   most; so no id comes twice.
 * MARK   of a slot: the page is not provable.
 * FAILURE  findings, but for what keeps it from going on.
 * NOT HERE finding records again behind damage (log/survey.c).   REFS  docs/log_format.md.
 */
#include "pagecache/pagecache_private.h"
#include "pagecache/survey_private.h"

#include <string.h>

#define ID_RANGE_BYTES 24u /* of the record of a range of generated ids */
#define PROGRESS_RECORDS 16384u

static int
tell_disagreement(struct scree__survey *s, const struct scree__record *r, const char *text)
{
    char name[64];
    uint64_t offset;

    scree__log_locate(s->log, r->lsn, name, sizeof name, &offset);
    return scree__survey_tell(s, (scree_finding){.severity = SCREE_FINDING_DAMAGE,
                                                 .code = SCREE_E_CORRUPT,
                                                 .file = name,
                                                 .offset = offset,
                                                 .lsn = r->lsn,
                                                 .page = r->page,
                                                 .text = text,
                                                 .bytes = r->disk_len});
}

/* A delta: behind what the page stands for, or behind something that is lost. */
static int
apply_delta(struct scree__survey *s, struct scree__radix_ref ref, const struct scree__record *r,
            bool doubt)
{
    struct scree__position p = {.lsn = r->lsn, .disk_len = r->disk_len};
    bool live = slot_tag(scree__survey_word(ref)) != SLOT_FREE;
    int rc = 0;

    if (!live && !doubt && s->rebuilt)
        return 0; /* what is left of a page whose base has gone: it was freed */
    if (!live && !doubt)
        rc = tell_disagreement(s, r, "a fragment of a page that is not live there");
#ifdef SCREE_BUG_SALVAGE_TRUSTS_DELTA
    doubt = false; /* seeded: what came before it is taken for granted; crash_verify must fail */
#endif
    if (rc == 0 && (!live || doubt))
        (void)scree__radix_mark_set(ref, SURVEY_UNPROVABLE);
    if (rc != 0)
        return rc;
    if (live && slot_depth(scree__survey_word(ref)) >= SURVEY_CHAIN_MAX)
        return tell_disagreement(s, r, "more fragments than a page can have");
    return live ? scree__survey_push(ref, &p, r->version)
                : scree__survey_put(ref, &p, 1, 1, r->version);
}

static int
apply(struct scree__survey *s, struct scree__radix_ref ref, const struct scree__record *r)
{
    struct scree__position p = {.lsn = r->lsn, .disk_len = r->disk_len};
    bool live = slot_tag(scree__survey_word(ref)) != SLOT_FREE;
    bool doubt = scree__survey_newest(ref) < s->stretch_end; /* something of it may be lost */
    int rc = 0;

    if (!scree__record_version_possible(r))
        return tell_disagreement(s, r, "a record with an impossible version");
    if (r->kind == SCREE__RECORD_DELTA)
        return apply_delta(s, ref, r, doubt);
    if (live == (r->kind == SCREE__RECORD_ALLOCATE) && !doubt && !s->rebuilt)
        rc = tell_disagreement(s, r,
                               live ? "an allocation of a page that is live there"
                                    : "a record of a page that is not live there");
    if (rc != 0)
        return rc;
    (void)scree__radix_mark_clear(ref, SURVEY_UNPROVABLE);
    if (r->kind == SCREE__RECORD_FREE) {
        scree__survey_word_set(ref, slot_from_free(r->lsn));
        return 0;
    }
    if (r->kind == SCREE__RECORD_ALLOCATE && (r->flags & SCREE__RECORD_CHOSEN_ID) == 0 &&
        r->page > s->id_high)
        s->id_high = r->page;
    return scree__survey_put(ref, &p, 1, 1, r->version);
}

static int
fold(struct scree__survey *s, const struct scree__record *r)
{
    int rc;

    if (s->state_lost || r->kind == SCREE__RECORD_FREE || r->kind == SCREE__RECORD_CONSOLIDATED)
        return 0;
    if (s->materializer.recover == NULL) {
        s->state_lost = s->state.len > 0;
        return 0;
    }
    rc = scree__fold_record(&s->materializer, &s->state, r);
    if (rc == 0 || rc == SCREE_E_NO_MEMORY)
        return rc;
    s->state_lost = true;
    return scree__survey_tell(s, (scree_finding){.severity = SCREE_FINDING_LOST,
                                                 .code = rc,
                                                 .lsn = r->lsn,
                                                 .page = r->page,
                                                 .text = scree_error_detail()});
}

static int
record_visit(struct scree__survey *s, const struct scree__record *r)
{
    struct scree__radix_ref ref;
    uint64_t last = scree__log_last_byte(s->log);
    int rc = 0;

    if (s->records++ % PROGRESS_RECORDS == 0)
        rc = scree__survey_progress(s, "log", r->lsn - s->start,
                                    last > s->start ? last - s->start : 0);
    if (rc != 0 || r->lsn < s->start)
        return rc;
    if (r->kind == SCREE__RECORD_ID_RANGE && r->page > s->generated_high)
        s->generated_high = r->page;
    if (r->kind > SCREE__RECORD_FREE)
        return 0;
    if (r->page == 0)
        return tell_disagreement(s, r, "a record of page 0");
    rc = fold(s, r);
    if (rc != 0)
        return rc;
    ref = scree__radix_make(&s->table, r->page);
    if (ref.leaf == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
    /* The snapshot may have seen later states than S. */
    return r->lsn <= scree__survey_newest(ref) ? 0 : apply(s, ref, r);
}

/* So many bytes of the log cannot be seen: each record of an id range in them would have raised it. */
static void
generated_raise(struct scree__survey *s, uint64_t bytes)
{
    uint64_t ranges = bytes / ID_RANGE_BYTES + 1;
    uint64_t most = (UINT64_MAX - s->generated_high) / SCREE__GENERATED_RANGE_MAX;

    s->generated_high += (ranges < most ? ranges : most) * SCREE__GENERATED_RANGE_MAX;
}

static int
records_visit(void *ctx, unsigned who, const struct scree__record *r, size_t n)
{
    int rc = 0;

    (void)who; /* there is one */
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = record_visit(ctx, &r[i]);
    return rc;
}

/* The recovery state misses something, if there is one. */
static int
state_lose(struct scree__survey *s, uint64_t lsn, const char *text)
{
    if (s->state_lost || (s->state.len == 0 && s->materializer.recover == NULL))
        return 0;
#ifdef SCREE_BUG_SALVAGE_STATE_WHOLE
    return 0; /* seeded: it is taken for whole; crash_verify must fail */
#endif
    s->state_lost = true;
    return scree__survey_tell(
        s, (scree_finding){
               .severity = SCREE_FINDING_LOST, .code = SCREE_E_CORRUPT, .lsn = lsn, .text = text});
}

static int
trouble_visit(void *ctx, const struct scree__log_trouble *t)
{
    struct scree__survey *s = ctx;
    bool given_back = t->hole && s->rebuilt;
    int rc = scree__survey_tell(
        s, (scree_finding){.severity = given_back ? SCREE_FINDING_NOTE : SCREE_FINDING_DAMAGE,
                           .code = given_back ? 0 : t->code,
                           .file = t->file,
                           .offset = t->offset,
                           .lsn = t->lsn,
                           .text = t->text,
                           .expected = t->expected,
                           .found = t->found,
                           .bytes = t->end > t->lsn ? t->end - t->lsn : 0});

    if (rc == 0 && given_back)
        rc = state_lose(s, t->lsn, "the recovery state misses what was given back of the log");
    if (rc != 0 || given_back || t->harmless || t->end == 0 || t->end <= s->start)
        return rc;
    s->stretch_end = t->end;
    generated_raise(s, t->end - t->lsn);
    if (s->salvages)
        rc = scree__survey_tell(
            s, (scree_finding){.severity = SCREE_FINDING_NOTE,
                               .file = t->file,
                               .offset = t->offset,
                               .lsn = t->lsn,
                               .text = "pages whose newest record lies before this stretch are "
                                       "copied as they were then; newer ones may have been in it"});
    if (rc != 0)
        return rc;
    return state_lose(s, t->lsn, "the recovery state misses what cannot be read of the log");
}

int
scree__survey_log_create(struct scree__survey *s)
{
    struct scree__log_options o = {.env = s->options.env,
                                   .dir = s->dir,
                                   .segment_bytes = s->manifest.segment_bytes,
                                   .ring_bytes = s->options.log_buffer_bytes,
                                   .io_mode = s->options.io_mode,
                                   .read_only = true,
                                   .survey = true};

    memcpy(o.uuid, s->manifest.uuid, sizeof o.uuid);
    return scree__log_create(&o, &s->log);
}

int
scree__survey_log_walk(struct scree__survey *s)
{
    const struct scree__manifest *m = &s->manifest;
    struct scree__log_scan_result scan;
    struct scree__log_found found;
    uint64_t from = s->start, known = 0;
    int rc;

    scree__log_found(s->log, &found);
    if (m->generations > 0)
        known = m->generation[0].stable_lsn;
    s->rebuilt = !s->loaded && (m->generations > 0 || !s->manifest_found);
    if (s->rebuilt)
        from = found.first_lsn;
    if (s->rebuilt && from > m->segment_bytes) {
        rc = state_lose(s, from, "the recovery state misses what was given back of the log");
        if (rc != 0)
            return rc;
    }
    if (s->loaded && !s->manifest_old && m->generation[m->generations - 1].replay_lsn < from)
        from = m->generation[m->generations - 1].replay_lsn;
    rc = scree__log_survey(s->log, from, known, s->rebuilt && from > m->segment_bytes,
                           records_visit, trouble_visit, s, &scan);
    s->end = scan.end;
    if (s->rebuilt)
        generated_raise(s, s->end);
    if (rc == 0)
        rc = scree__log_survey_files(s->log, s->end, trouble_visit, s);
    if (rc == 0 && s->rebuilt)
        rc = scree__survey_tell(
            s, (scree_finding){.severity = SCREE_FINDING_NOTE,
                               .text = "no snapshot can be loaded: the pages are those of the log "
                                       "alone; pages freed long ago may be back, and a recovery "
                                       "state is what the recover callback makes of the log"});
    return rc;
}
