/*
 * survey.c - read a directory that may be damaged: manifests, snapshots, log, in this order; tell what is
 * wrong, and make the page table of what is right.
 *
 * STEPS  V1  lock, shared. Every manifest: the newest valid one counts, the one before it is kept beside
 *        V2  the generations of both are loaded; the newest that can be makes the table. Without a manifest
 *            snapshots are found by their names
 *        V3  the log, from the older generation's replay start if it is to be had, else from the table's S:
 *            log/survey.c. Records from S on are applied to the table
 *        V4  headers, mark, names in the directory
 * WHAT IS PROVABLE  A delta does not name the record before it. If a stretch of the log that cannot be
 *   read lies between what a page stands for and its next record, then that record, if it is a delta, may
 *   follow one that is lost: the page's state is not provable any more, until a record comes that holds
 *   all of it (SET, ALLOCATE, CONSOLIDATED) or frees it. A page with no record behind the stretch is as it
 *   was before it: provably so, but it may have been newer. A snapshot's entry is at least as new as S, so
 *   a stretch below S concerns no page. A stretch that provably was a seal concerns nobody. A batch below
 *   the end of the log was whole, so what is whole of it counts, as it does for records below S.
 * WITHOUT A SNAPSHOT  the table is made from all the log there is. Zeros over whole granules, and files
 *   that are not there, count as given back: what lay there had died, so a page's newest whole record and
 *   all deltas behind it are there. But a page's FREE may have gone with them, and then the page is back.
 * IDS    the generator's mark is raised by what a stretch that cannot be read can have raised it by, at
 *   most; so no id comes twice.
 * WORD   the table's slot: as in slot.h, with struct chain for several records. MARK: UNPROVABLE.
 * MEMORY that of the page table when it is opened: a word for pages of one record.
 * ACCOUNTING  each record is read under its page's id, at its lsn, with its length: no two pages can claim the
 *   same bytes without one of them failing, and nothing outside of the log verifies.
 * LIFETIME one thread, one call. FAILURE  findings, but for what keeps it from going on.
 * NOT HERE page contents (verify.c, salvage.c).   REFS  docs/log_format.md, docs/snapshot_format.md.
 */
#include "pagecache/survey.h"
#include "pagecache/pagecache_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define UNPROVABLE 1u
#define ID_RANGE_BYTES 24u /* of the record of a range of generated ids */
#define CHAIN_MAX 32768u
#define PROGRESS_RECORDS 16384u

struct chain {
    uint64_t version;
    uint32_t n, cap;
    struct scree__position position[];
};

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
static bool
is_damage(int rc)
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

static int
manifest_take(struct scree__survey *s, uint64_t number)
{
    char name[SCREE__SNAPSHOT_NAME_BYTES];
    struct scree__manifest m;
    int rc = scree__manifest_load_one(s->options.env, s->dir, number, &m);
    const char *found = NULL;

    scree__snapshot_name(name, SCREE__MANIFEST_FILE, number, false);
    if (rc == 0 && s->manifest_found &&
        (memcmp(m.uuid, s->manifest.uuid, sizeof m.uuid) != 0 ||
         m.segment_bytes != s->manifest.segment_bytes)) {
        rc = scree__fail(SCREE_E_CORRUPT, "%s/%s is another directory's", s->dir, name);
        found = "the uuid or segment size of another one";
    }
    if (is_damage(rc)) {
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

    if (rc != 0)
        return any ? scree__fail(SCREE_E_CORRUPT, "%s: no manifest and no segment can be read",
                                 s->dir)
                   : rc;
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

/* ---- the table --------------------------------------------------------------------------------- */

/* Words relaxed throughout: one thread. */
static uint64_t
word_get(struct scree__radix_ref ref)
{
    return atomic_load_explicit(scree__radix_word(ref), memory_order_relaxed);
}

static struct chain *
word_chain(uint64_t word)
{
    return (struct chain *)(void *)slot_node(word);
}

static size_t
chain_bytes(uint32_t cap)
{
    return sizeof(struct chain) + cap * sizeof(struct scree__position);
}

static void
word_put(struct scree__radix_ref ref, uint64_t word)
{
    uint64_t old = word_get(ref);

    if (slot_tag(old) == SLOT_NODE && word_chain(old) != word_chain(word))
        scree__free(word_chain(old), chain_bytes(word_chain(old)->cap));
    atomic_store_explicit(scree__radix_word(ref), word, memory_order_relaxed);
}

static int
page_put(struct scree__radix_ref ref, const struct scree__position *p, uint32_t n, uint32_t cap,
         uint64_t version)
{
    struct chain *c;

    if (n == 1 && slot_can_evict(p->disk_len)) {
        atomic_store_explicit(scree__radix_side(ref), slot_side(version, p->disk_len),
                              memory_order_relaxed);
        word_put(ref, slot_from_evicted(p->lsn, p->disk_len));
        return 0;
    }
    c = scree__alloc_aligned(16, chain_bytes(cap));
    if (c == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
    *c = (struct chain){.version = version, .n = n, .cap = cap};
    memcpy(c->position, p, n * sizeof *p);
    word_put(ref, slot_from_node((struct scree__node *)(void *)c, n));
    return 0;
}

/* What the slot stands for. `one` is room for a single record. False: no live page. */
static bool
page_get(struct scree__radix_ref ref, struct scree__position *one, struct scree__survey_page *page)
{
    uint64_t word = word_get(ref), side;

    *page = (struct scree__survey_page){.id = ref.leaf->first_id + ref.index};
    page->provable = (scree__radix_mark(ref) & UNPROVABLE) == 0;
    if (slot_tag(word) == SLOT_FREE)
        return false;
    if (slot_tag(word) == SLOT_NODE) {
        page->position = word_chain(word)->position;
        page->n = word_chain(word)->n;
        page->version = word_chain(word)->version;
        return true;
    }
    side = atomic_load_explicit(scree__radix_side(ref), memory_order_relaxed);
    *one = (struct scree__position){.lsn = slot_evicted_lsn(word),
                                    .disk_len = slot_evicted_len(word, side)};
    page->position = one;
    page->n = 1;
    page->version = slot_side_version(side);
    return true;
}

static int
page_push(struct scree__radix_ref ref, const struct scree__position *p, uint64_t version)
{
    struct scree__survey_page page;
    struct scree__position one;
    uint64_t word = word_get(ref);
    struct chain *c;

    if (slot_tag(word) != SLOT_NODE || word_chain(word)->n == word_chain(word)->cap) {
        struct scree__position first[2];
        int rc;

        (void)page_get(ref, &one, &page);
        if (page.n == 1) {
            first[0] = page.position[0];
            first[1] = *p;
            return page_put(ref, first, 2, 2, version);
        }
        rc = page_put(ref, page.position, (uint32_t)page.n, (uint32_t)page.n * 2, version);
        if (rc != 0)
            return rc;
    }
    c = word_chain(word_get(ref));
    c->position[c->n++] = *p;
    c->version = version;
    return 0;
}

/* The start of the newest record the slot stands for, or of the free. */
static uint64_t
newest_lsn(struct scree__radix_ref ref)
{
    struct scree__survey_page page;
    struct scree__position one;

    if (!page_get(ref, &one, &page))
        return slot_free_lsn(word_get(ref));
    return page.position[page.n - 1].lsn;
}

static void
table_clear(struct scree__survey *s)
{
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(&s->table, 0);

    for (; leaf != NULL; leaf = scree__radix_leaf_after(&s->table, leaf)) {
        struct scree__radix_ref ref = {.leaf = leaf};

        for (; ref.index < SCREE__RADIX_FANOUT; ref.index++)
            word_put(ref, 0);
    }
    scree__radix_destroy(&s->table);
    scree__radix_init(&s->table);
}

/* ---- V2 ---------------------------------------------------------------------------------------- */

/* What the page has been given since the files before. */
static int
entry_add(struct scree__radix_ref ref, const struct scree__snapshot_entry *e)
{
    struct scree__survey_page page;
    struct scree__position one;
    int rc = 0;

    if (!page_get(ref, &one, &page) || page.n + e->n > CHAIN_MAX)
        return scree__fail(
            SCREE_E_CORRUPT,
            "a delta snapshot adds %u records to page %llu, which is not there or has "
            "too many then",
            e->n, (unsigned long long)e->id);
    for (uint32_t i = 0; rc == 0 && i < e->n; i++)
        if (e->positions[i].lsn > newest_lsn(ref))
            rc = page_push(ref, &e->positions[i], e->version);
    return rc;
}

static int
entry_load(void *ctx, const struct scree__snapshot_entry *e)
{
    struct scree__survey *s = ctx;
    struct scree__radix_ref ref = scree__radix_make(&s->table, e->id);

    if (ref.leaf == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
    if (e->added)
        return entry_add(ref, e);
    if (e->n > CHAIN_MAX || e->version % 8 != 0)
        return scree__fail(SCREE_E_CORRUPT, "page %llu: %u records, version %llu in the snapshot",
                           (unsigned long long)e->id, e->n, (unsigned long long)e->version);
    if (e->n != 0)
        return page_put(ref, e->positions, e->n, e->n, e->version);
    word_put(ref, slot_from_free(e->version));
    return 0;
}

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
                              into_table ? entry_load : entry_ignore, s, &loaded);
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
        table_clear(s);
    if (is_damage(rc))
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

/* ---- V3 ---------------------------------------------------------------------------------------- */

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
    bool live = slot_tag(word_get(ref)) != SLOT_FREE;
    int rc = 0;

    if (!live && !doubt && s->rebuilt)
        return 0; /* what is left of a page whose base has gone: it was freed */
    if (!live && !doubt)
        rc = tell_disagreement(s, r, "a fragment of a page that is not live there");
#ifdef SCREE_BUG_SALVAGE_TRUSTS_DELTA
    doubt = false; /* seeded: what came before it is taken for granted; crash_verify must fail */
#endif
    if (rc == 0 && (!live || doubt))
        (void)scree__radix_mark_set(ref, UNPROVABLE);
    if (rc != 0)
        return rc;
    if (live && slot_depth(word_get(ref)) >= CHAIN_MAX)
        return tell_disagreement(s, r, "more fragments than a page can have");
    return live ? page_push(ref, &p, r->version) : page_put(ref, &p, 1, 1, r->version);
}

static int
apply(struct scree__survey *s, struct scree__radix_ref ref, const struct scree__record *r)
{
    struct scree__position p = {.lsn = r->lsn, .disk_len = r->disk_len};
    bool live = slot_tag(word_get(ref)) != SLOT_FREE;
    bool doubt = newest_lsn(ref) < s->stretch_end; /* something of it may be lost */
    int rc = 0;

    if (r->version == 0 || r->version % 8 != 0 ||
        (r->version > r->lsn + r->disk_len && (r->flags & SCREE__RECORD_IN_BATCH) == 0))
        return tell_disagreement(s, r, "a record with an impossible version");
    if (r->kind == SCREE__RECORD_DELTA)
        return apply_delta(s, ref, r, doubt);
    if (live == (r->kind == SCREE__RECORD_ALLOCATE) && !doubt && !s->rebuilt)
        rc = tell_disagreement(s, r,
                               live ? "an allocation of a page that is live there"
                                    : "a record of a page that is not live there");
    if (rc != 0)
        return rc;
    (void)scree__radix_mark_clear(ref, UNPROVABLE);
    if (r->kind == SCREE__RECORD_FREE) {
        word_put(ref, slot_from_free(r->lsn));
        return 0;
    }
    if (r->kind == SCREE__RECORD_ALLOCATE && (r->flags & SCREE__RECORD_CHOSEN_ID) == 0 &&
        r->page > s->id_high)
        s->id_high = r->page;
    return page_put(ref, &p, 1, 1, r->version);
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
    return r->lsn <= newest_lsn(ref) ? 0 : apply(s, ref, r);
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

static int
trouble_visit(void *ctx, const struct scree__log_trouble *t)
{
    struct scree__survey *s = ctx;
    bool given_back = t->hole && s->rebuilt;
    int rc = scree__survey_tell(
        s, (scree_finding){.severity = given_back ? SCREE_FINDING_NOTE : SCREE_FINDING_DAMAGE,
                           .code = given_back ? 0 : SCREE_E_CORRUPT,
                           .file = t->file,
                           .offset = t->offset,
                           .lsn = t->lsn,
                           .text = t->text,
                           .expected = t->expected,
                           .found = t->found,
                           .bytes = t->end > t->lsn ? t->end - t->lsn : 0});

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
    if (s->state_lost || (s->state.len == 0 && s->materializer.recover == NULL))
        return 0;
    s->state_lost = true;
    return scree__survey_tell(
        s, (scree_finding){.severity = SCREE_FINDING_LOST,
                           .code = SCREE_E_CORRUPT,
                           .lsn = t->lsn,
                           .text = "the recovery state misses what cannot be read of the log"});
}

static int
log_create(struct scree__survey *s)
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

static int
log_walk(struct scree__survey *s)
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
    else if (s->loaded && !s->manifest_old && m->generation[m->generations - 1].replay_lsn < from)
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
                                       "alone; pages freed long ago may be back"});
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
        rc = log_create(s);
    if (rc == 0)
        rc = log_walk(s);
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
    table_clear(s);
    scree__radix_destroy(&s->table);
    scree__out_destroy(&s->state);
    if (s->lock_file >= 0)
        s->options.env->close(s->options.env->ctx, s->lock_file);
}

/* ---- pages ------------------------------------------------------------------------------------- */

static uint64_t
pages_count(struct scree__survey *s)
{
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(&s->table, 0);
    uint64_t n = 0;

    for (; leaf != NULL; leaf = scree__radix_leaf_after(&s->table, leaf)) {
        struct scree__radix_ref ref = {.leaf = leaf};

        for (; ref.index < SCREE__RADIX_FANOUT; ref.index++)
            n += slot_tag(word_get(ref)) != SLOT_FREE;
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

            if (!page_get(ref, &one, &page))
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

        c->read[i].lsn = page->position[i].lsn;
        c->read[i].disk_len = page->position[i].disk_len;
        rc = scree__log_read(s->log, page->id, &c->read[i], 1);
        if (rc == 0 && (found = content_problem(page, &c->read[i].r, i)) != NULL)
            rc = scree__fail(SCREE_E_CORRUPT, "page %llu: the record at lsn %llu is %s",
                             (unsigned long long)page->id,
                             (unsigned long long)page->position[i].lsn, found);
        if (rc == 0)
            rc = content_unpack(c, i);
        if (is_damage(rc)) {
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
