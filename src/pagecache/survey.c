/*
 * survey.c - read a directory that may be damaged: manifests, snapshots, log, in this order; tell what is
 * wrong, and make the page table of what is right.
 *
 * STEPS  V1  lock, shared. Every manifest: the newest valid one counts, the one before it is kept beside
 *        V2  the generations of both are loaded; the newest of the first one that can be makes the table (the
 *            log behind what only the second one names may have been given back). Without a manifest
 *            snapshots are found by their names
 *        V3  the log, from the older generation's replay start if it is to be had, else from the table's S:
 *            survey_replay.c. Records from S on are applied to the table
 *        V4  headers, mark, names in the directory
 * LIFETIME one thread, one call.   FAILURE  findings, but for what keeps it from going on.
 * NOT HERE the table (survey_table.c), pages (survey_page.c), their contents (verify.c, salvage.c).
 * REFS  docs/log_format.md, docs/snapshot_format.md.
 */
#include "pagecache/pagecache_private.h"
#include "pagecache/survey_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- telling ----------------------------------------------------------------------------------- */

int
scree__survey_tell(struct scree__survey *s, scree_finding f)
{
    f.size = sizeof f;
    s->bad += f.severity != SCREE_FINDING_NOTE;
    if (s->finding == NULL || s->finding(s->ctx, &f) == 0)
        return 0;
    return scree__fail(SCREE_E_CANCELED, "%s: canceled by the finding callback", s->dir);
}

int
scree__survey_progress(struct scree__survey *s, const char *what, uint64_t done, uint64_t total)
{
    if (s->progress == NULL || s->progress(s->ctx, what, done, total) == 0)
        return 0;
    return scree__fail(SCREE_E_CANCELED, "%s: canceled by the progress callback", s->dir);
}

/* Is it about the bytes, and not about us? Then it is a finding. */
bool
scree__survey_is_damage(int rc)
{
    return rc == SCREE_E_CORRUPT || rc == -EIO || rc == -ENOENT;
}

/* The loader names its file and the offset in its detail; a generation may be several files. */
static int
tell_snapshot(struct scree__survey *s, const struct scree__generation *g, int code)
{
    char name[SCREE__SNAPSHOT_NAME_BYTES], detail[512];
    scree_finding f = {
        .severity = SCREE_FINDING_DAMAGE, .code = code, .file = name, .text = detail};
    const char *at;

    (void)snprintf(detail, sizeof detail, "%s", scree_error_detail());
    scree__snapshot_name(name, SCREE__SNAPSHOT_FILE, scree__generation_newest(g)->number, false);
    at = strstr(detail, "/snapshot-");
    if (at != NULL && strlen(at) > strlen(name))
        memcpy(name, at + 1, strlen(name));
    at = strstr(detail, " offset ");
    if (at != NULL)
        (void)sscanf(at, " offset %" SCNu64, &f.offset);
    f.expected = "a snapshot that loads";
    return scree__survey_tell(s, f);
}

/* ---- V1 ---------------------------------------------------------------------------------------- */

static int
merge_refuse(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags,
             size_t n, scree_out *out)
{
    (void)ctx, (void)id, (void)base, (void)frags, (void)n, (void)out;
    return -1;
}

static int
arguments(struct scree__survey *s, const char *dir, const scree_options *options)
{
    static const scree_materializer stand_in = {
        .size = sizeof stand_in, .name = "unknown", .merge = merge_refuse};
    scree_options given;
    int rc;

    if (dir == NULL || dir[0] == '\0' || options == NULL || options->size < sizeof given)
        return scree__fail(SCREE_E_INVALID, "dir and options (scree_options_init) are required");
    given = *options;
    s->unmerged = given.materializer == NULL;
    if (s->unmerged)
        given.materializer = &stand_in;
    given.flags &= (uint32_t)SCREE_NO_PUNCH;
    rc = scree__options_normalize(&given, &s->options);
    if (rc == 0)
        s->materializer = *s->options.materializer;
    return rc;
}

static int
lock(struct scree__survey *s)
{
    const scree_env *env = s->options.env;
    int64_t holder = 0;
    int rc = env->lock(env->ctx, s->dir, 1, &holder);

    if (rc >= 0) {
        s->lock_file = rc;
        return 0;
    }
    if (rc == -EWOULDBLOCK)
        return scree__fail(SCREE_E_LOCKED, "%s is open for writing (process %lld); close it first",
                           s->dir, (long long)holder);
    return scree__fail(rc, "cannot lock the directory %s: %s", s->dir, scree_strerror(rc));
}

struct listing {
    uint64_t number[SURVEY_MANIFESTS]; /* of manifests, newest first */
    unsigned n;
    bool segments;
};

static int
listing_visit(void *ctx, const char *name)
{
    struct listing *l = ctx;
    uint64_t number;

    l->segments |= scree__log_name_parse(name, &number) && number != 0;
    scree__snapshot_newest_keep(name, SCREE__MANIFEST_FILE, UINT64_MAX, l->number, &l->n,
                                SURVEY_MANIFESTS);
    return 0;
}

/* The first that counts must agree with the log, the others with the first: else CORRUPT. Positions, and what
   salvage writes, are computed from the segment size. */
static int
manifest_agrees(struct scree__survey *s, const char *name, const struct scree__manifest *m,
                const char **found_out)
{
    uint64_t segment_bytes;
    int rc;

    if (s->manifest_found && (memcmp(m->uuid, s->manifest.uuid, sizeof m->uuid) != 0 ||
                              m->segment_bytes != s->manifest.segment_bytes)) {
        *found_out = "the uuid or segment size of another one";
        return scree__fail(SCREE_E_CORRUPT, "%s/%s is another directory's", s->dir, name);
    }
    if (s->manifest_found)
        return 0;
    rc =
        scree__log_segment_bytes(s->options.env, s->dir, m->uuid, m->segment_bytes, &segment_bytes);
    if (scree__survey_is_damage(rc))
        rc = scree__survey_tell(s, (scree_finding){.severity = SCREE_FINDING_DAMAGE,
                                                   .code = rc,
                                                   .text = scree_error_detail(),
                                                   .expected = "a header that can be read"});
    if (rc != 0 || segment_bytes == m->segment_bytes)
        return rc;
    *found_out = "a segment size that no segment has";
    return scree__fail(SCREE_E_CORRUPT,
                       "%s/%s says that segments have %" PRIu64
                       " bytes, their headers say %" PRIu64,
                       s->dir, name, m->segment_bytes, segment_bytes);
}

static int
manifest_take(struct scree__survey *s, uint64_t number)
{
    char name[SCREE__SNAPSHOT_NAME_BYTES];
    struct scree__manifest m;
    int rc = scree__manifest_load_one(s->options.env, s->dir, number, &m);
    const char *found = NULL;

    scree__snapshot_name(name, SCREE__MANIFEST_FILE, number, false);
    if (rc == 0) {
        rc = manifest_agrees(s, name, &m, &found);
        if (rc != 0 && rc != SCREE_E_CORRUPT)
            return rc; /* the log was not looked at */
    }
    if (scree__survey_is_damage(rc)) {
        s->manifest_old |= !s->manifest_found;
        return scree__survey_tell(s, (scree_finding){.severity = SCREE_FINDING_DAMAGE,
                                                     .code = rc,
                                                     .file = name,
                                                     .text = scree_error_detail(),
                                                     .expected = "a manifest of this directory",
                                                     .found = found});
    }
    if (rc != 0)
        return rc;
    if (!s->manifest_found)
        s->manifest = m;
    else if (!s->before_found)
        s->before = m;
    s->before_found = s->manifest_found;
    s->manifest_found = true;
    return 0;
}

/* Without a manifest a segment's header tells what the directory was made with. */
static int
manifest_invent(struct scree__survey *s, bool any)
{
    struct scree__manifest *m = &s->manifest;
    int rc = scree__log_identify(s->options.env, s->dir, m->uuid, &m->segment_bytes);

    if (rc == -ENOENT &&
        any) /* nothing to be salvaged, which is no CORRUPT: there will be no dst */
        return scree__fail(s->salvages ? -ENOENT : SCREE_E_CORRUPT,
                           "%s: no manifest and no segment can be read", s->dir);
    if (rc != 0)
        return rc;
    (void)snprintf(m->materializer, sizeof m->materializer, "%s", s->materializer.name);
    m->materializer_version = s->materializer.version;
    return scree__survey_tell(
        s, (scree_finding){.severity = SCREE_FINDING_DAMAGE,
                           .code = SCREE_E_CORRUPT,
                           .text = "no manifest can be read; which snapshots count is not known",
                           .expected = "a manifest",
                           .found = any ? "damaged ones" : "none"});
}

static int
manifests(struct scree__survey *s)
{
    const scree_env *env = s->options.env;
    struct listing l = {.n = 0};
    int rc = env->list(env->ctx, s->dir, listing_visit, &l);

    if (rc < 0)
        return scree__fail(rc, "cannot list %s: %s", s->dir, scree_strerror(rc));
    if (l.n == 0 && !l.segments)
        return scree__fail(-ENOENT, "%s is not a scree directory", s->dir);
    for (unsigned i = 0; i < l.n; i++) {
        rc = manifest_take(s, l.number[i]);
        if (rc != 0)
            return rc;
    }
    if (!s->manifest_found)
        return manifest_invent(s, l.n > 0);
    if (!s->unmerged && (strcmp(s->manifest.materializer, s->materializer.name) != 0 ||
                         s->manifest.materializer_version != s->materializer.version))
        return scree__fail(SCREE_E_MATERIALIZER,
                           "%s was made with materializer '%s' version %u, not '%s' version %u",
                           s->dir, s->manifest.materializer, s->manifest.materializer_version,
                           s->materializer.name, s->materializer.version);
    return 0;
}

int
scree__survey_begin(struct scree__survey *s, const char *dir, const scree_options *options,
                    scree_finding_fn finding, scree_progress_fn progress, void *ctx)
{
    int rc;

    s->dir = dir;
    s->finding = finding;
    s->progress = progress;
    s->ctx = ctx;
    s->lock_file = -1;
    s->id_high = SCREE_PAGE_ROOT;
    scree__radix_init(&s->table);
    scree__out_init(&s->state, SIZE_MAX / 2);
    rc = arguments(s, dir, options);
    if (rc == 0)
        rc = lock(s);
    return rc == 0 ? manifests(s) : rc;
}

/* ---- V2 ---------------------------------------------------------------------------------------- */

static int
entry_ignore(void *ctx, const struct scree__snapshot_entry *e)
{
    (void)ctx, (void)e;
    return 0;
}

/* Into the table if it has none yet. */
static int
generation_take(struct scree__survey *s, const struct scree__generation *g, bool into_table)
{
    struct scree__snapshot_loaded loaded;
    uint64_t bytes = scree__generation_bytes(g);
    int rc = scree__survey_progress(s, "snapshots", 0, bytes);

    if (rc != 0)
        return rc;
    rc = scree__snapshot_load(s->options.env, s->dir, g, s->manifest.uuid, 1,
                              into_table ? scree__survey_entry : entry_ignore, s, &loaded);
    if (rc == 0 && into_table) {
        s->loaded = true;
        s->start = g->replay_lsn;
        s->id_high = loaded.meta.id_high;
        s->generated_high = loaded.meta.generated_high;
        if (loaded.state_len > 0)
            rc = scree_out_append(&s->state, loaded.state, loaded.state_len);
    }
    if (rc == 0)
        scree__free(loaded.state, loaded.state_len);
    if (rc != 0 && into_table)
        scree__survey_clear(s);
    if (scree__survey_is_damage(rc))
        rc = tell_snapshot(s, g, rc);
    return rc != 0 ? rc : scree__survey_progress(s, "snapshots", bytes, bytes);
}

static bool
same_files(const struct scree__generation *a, const struct scree__generation *b)
{
    return a->files == b->files && memcmp(a->file, b->file, a->files * sizeof a->file[0]) == 0;
}

/* No manifest: by name, newest first, the first that loads. */
static int
generations_find(struct scree__survey *s)
{
    struct scree__manifest *m = &s->manifest;
    uint64_t below = UINT64_MAX;
    int rc = 0;

    while (rc == 0 && !s->loaded) {
        rc = scree__snapshot_find(s->options.env, s->dir, m->uuid, below, &m->generation[0]);
        if (rc == -ENOENT)
            return 0;
        if (rc != 0)
            return rc;
        below = scree__generation_newest(&m->generation[0])->number;
        rc = generation_take(s, &m->generation[0], true);
    }
    m->generations = s->loaded;
    return rc;
}

static int
generations(struct scree__survey *s)
{
    const struct scree__manifest *m = &s->manifest, *b = &s->before;
    int rc = 0;

    if (!s->manifest_found)
        return generations_find(s);

    for (uint32_t i = 0; rc == 0 && i < m->generations; i++)
        rc = generation_take(s, &m->generation[i], !s->loaded);
#ifdef SCREE_BUG_VERIFY_SKIPS_OLDER
    return rc; /* seeded: what only the manifest before it names is not looked at; crash_verify must fail */
#endif
    for (uint32_t i = 0; rc == 0 && s->before_found && i < b->generations; i++) {
        bool seen = false;

        for (uint32_t k = 0; k < m->generations; k++)
            seen |= same_files(&m->generation[k], &b->generation[i]);
        if (!seen)
            rc = generation_take(s, &b->generation[i], false);
    }
    return rc;
}

/* ---- V4 ---------------------------------------------------------------------------------------- */

static int
name_visit(void *ctx, const char *name)
{
    struct scree__survey *s = ctx;
    enum scree__file_kind file;
    uint64_t number;
    bool tmp;

    if (scree__log_name_parse(name, &number) ||
        scree__snapshot_name_parse(name, &file, &number, &tmp) || strcmp(name, SPARE_NAME) == 0 ||
        strncmp(name, SCREE__WARNING_NAME, sizeof SCREE__WARNING_NAME - 1) == 0)
        return 0;
    if (strcmp(name, SCREE__INCOMPLETE_NAME) == 0)
        return scree__survey_tell(
            s, (scree_finding){.severity = SCREE_FINDING_DAMAGE,
                               .code = SCREE_E_CORRUPT,
                               .file = name,
                               .text = "this is a backup that was not finished, and "
                                       "cannot be opened"});
    return scree__survey_tell(s, (scree_finding){.severity = SCREE_FINDING_NOTE,
                                                 .file = name,
                                                 .text = "this file is not scree's"});
}

int
scree__survey_run(struct scree__survey *s)
{
    const scree_env *env = s->options.env;
    int rc = generations(s);

    if (rc == 0)
        rc = scree__survey_log_create(s);
    if (rc == 0)
        rc = scree__survey_log_walk(s);
    if (rc == 0) {
        rc = env->list(env->ctx, s->dir, name_visit, s);
        if (rc < 0 && rc != SCREE_E_CANCELED)
            rc = scree__fail(rc, "cannot list %s: %s", s->dir, scree_strerror(rc));
    }
    return rc;
}

void
scree__survey_end(struct scree__survey *s)
{
    if (s->log != NULL)
        scree__log_destroy(s->log);
    scree__survey_clear(s);
    scree__radix_destroy(&s->table);
    scree__out_destroy(&s->state);
    if (s->lock_file >= 0)
        s->options.env->close(s->options.env->ctx, s->lock_file);
}
