/*
 * ledger.c - see ledger.h. One thread.
 */
#include "ledger.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* ---- updates ---- */

struct ledger *
ledger_new(scree_cache *cache, uint64_t seed, uint32_t pages)
{
    struct ledger *l = calloc(1, sizeof(*l));

    KIT_CHECK(l != NULL && pages <= LEDGER_PAGES, "no memory for a ledger");
    l->random = seed;
    l->pages = pages;
    l->len_short = 60;
    l->len_long = 400;
    KIT_CHECK(
        scree_page_read(cache, SCREE_PAGE_ROOT, NULL, 0, NULL, &l->version[SCREE_PAGE_ROOT]) == 0,
        "root");
    l->live[SCREE_PAGE_ROOT] = true;
    KIT_CHECK(scree_flush(cache, &l->stable) == 0, "flush");
    KIT_CHECK(scree_log_open(cache, l->stable, &l->reader) == 0, "feed: %s", scree_error_detail());
    return l;
}

void
ledger_free(struct ledger *l)
{
    free(l->step);
    free(l);
}

static void
step_add(struct ledger *l, uint32_t id, uint64_t version, bool whole)
{
    if (l->n == l->cap) {
        l->cap = l->cap * 2 + 256;
        l->step = realloc(l->step, l->cap * sizeof(*l->step));
        KIT_CHECK(l->step != NULL, "no memory for steps");
    }
    l->step[l->n++] = (struct ledger_step){.page = id,
                                           .len = l->len[id],
                                           .version = version,
                                           .hash = kit_hash(l->bytes[id], l->len[id], 3),
                                           .whole = whole,
                                           .live = l->live[id]};
    l->version[id] = version;
}

static uint32_t
bytes_make(struct ledger *l, unsigned char *bytes)
{
    uint64_t most = kit_below(&l->random, 4) == 0 ? l->len_long : l->len_short;
    uint32_t len = (uint32_t)kit_below(&l->random, most);
    uint64_t word = kit_random(&l->random);

    for (uint32_t i = 0; i < len; i++) /* half of them compress */
        bytes[i] = (unsigned char)(word % 2 == 0 ? word >> (i % 8 * 8) : kit_random(&l->random));
    if (len > 0 && bytes[0] == KIT_UNMERGEABLE)
        bytes[0] = 1;
    return len;
}

static void
page_change(struct ledger *l, uint32_t id, const unsigned char *bytes, uint32_t len, bool whole)
{
    l->len[id] = whole ? 0 : l->len[id];
    memcpy(l->bytes[id] + l->len[id], bytes, len);
    l->len[id] += len;
    l->live[id] = true;
    kit_fold_add(&l->fold, id, kit_slice(bytes, len));
}

static void
step_batch(struct ledger *l, scree_cache *cache, uint32_t from, uint32_t to)
{
    unsigned char bytes[LEDGER_PAGE_BYTES];
    scree_batch *batch;
    scree_lsn end;
    uint32_t touched[4], n = 0;
    bool whole[4];

    KIT_CHECK(scree_batch_begin(cache, &batch) == 0, "batch");
    for (uint32_t id = from; id < to && n < 4; id++) {
        uint32_t len = bytes_make(l, bytes);

        if (!l->live[id] || kit_below(&l->random, 3) != 0 || l->len[id] + len > LEDGER_PAGE_BYTES)
            continue;
        whole[n] = kit_below(&l->random, 2) == 0;
        KIT_CHECK((whole[n]
                       ? scree_batch_set(batch, id, l->version[id], kit_slice(bytes, len))
                       : scree_batch_merge(batch, id, l->version[id], kit_slice(bytes, len))) == 0,
                  "batch step");
        page_change(l, id, bytes, len, whole[n]);
        touched[n++] = id;
    }
    KIT_CHECK(scree_batch_commit(batch, &end, NULL) == 0, "commit: %s", scree_error_detail());
    for (uint32_t i = 0; i < n; i++)
        step_add(l, touched[i], end, whole[i]);
}

static void
step_one(struct ledger *l, scree_cache *cache, uint32_t from, uint32_t to)
{
    unsigned char bytes[LEDGER_PAGE_BYTES];
    uint32_t id = from + (uint32_t)kit_below(&l->random, to - from);
    uint32_t len = bytes_make(l, bytes);
    uint64_t kind = kit_below(&l->random, 100);
    scree_version version = l->version[id];
    bool whole = !l->live[id] || kind < 30 || l->len[id] + len > LEDGER_PAGE_BYTES;
    int code;

    if (kind >= 92 && l->live[id] && id != SCREE_PAGE_ROOT) {
        code = scree_page_free(cache, id, &version);
        KIT_CHECK(code == 0, "free gave %d", code);
        l->live[id] = false;
        l->len[id] = 0;
        step_add(l, id, version, true);
        return;
    }
    if (!l->live[id]) {
        while ((code = scree_page_allocate_at(cache, id, kit_slice(bytes, len), &version)) ==
               SCREE_E_BUSY) /* freed a moment ago */
            usleep(100);
    } else if (whole)
        code = scree_page_put(cache, id, kit_slice(bytes, len), &version);
    else
        code = scree_page_append(cache, id, kit_slice(bytes, len), &version);
    KIT_CHECK(code == 0, "an update gave %d: %s", code, scree_error_detail());
    page_change(l, id, bytes, len, whole);
    step_add(l, id, version, whole);
}

void
ledger_steps(struct ledger *l, scree_cache *cache, uint32_t n, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t kind = kit_below(&l->random, 24);

        if (kind < 2)
            step_batch(l, cache, from, to);
        else
            step_one(l, cache, from, to);
        if (kind == 2)
            KIT_CHECK(scree_id_next(cache, &l->id_last) == 0, "id: %s", scree_error_detail());
    }
}

/* ---- where the records lie ---- */

static struct ledger_step *
step_of(struct ledger *l, const scree_log_record *r)
{
    for (size_t i = l->placed; i < l->n && i < l->placed + 8; i++) {
        if (l->step[i].page == r->page && l->step[i].version == r->version && l->step[i].to == 0)
            return &l->step[i];
    }
    KIT_CHECK(false, "the feed tells a change of page %" PRIu64 " that nobody made", r->page);
}

void
ledger_flush(struct ledger *l, scree_cache *cache)
{
    struct ledger_step *open = NULL; /* its end is where the next one of the batch begins */
    scree_log_record r = {.size = sizeof(r)};
    scree_lsn stable;
    int code;

    KIT_CHECK(scree_flush(cache, &stable) == 0, "flush: %s", scree_error_detail());
    l->claim = l->stable;
    l->stable = stable;
    while ((code = scree_log_next(l->reader, 0, &r)) == 0) {
        struct ledger_step *step = step_of(l, &r);

        step->from = r.lsn;
        if (open != NULL)
            open->to = r.lsn;
        open = (r.flags & SCREE_RECORD_MORE) != 0 ? step : NULL;
        step->to = open == NULL ? r.version : UINT64_MAX;
        while (l->placed < l->n && l->step[l->placed].to != 0)
            l->placed++;
    }
    KIT_CHECK(code == SCREE_E_TIMEOUT, "the feed gave %d: %s", code, scree_error_detail());
    KIT_CHECK(l->placed == l->n && open == NULL, "the feed told %zu of %zu updates", l->placed,
              l->n);
}

void
ledger_end(struct ledger *l)
{
    scree_log_close(l->reader);
    l->reader = NULL;
}

const struct ledger_step *
ledger_at(const struct ledger *l, uint64_t lsn)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->step[i].from <= lsn && lsn < l->step[i].to)
            return &l->step[i];
    }
    return NULL;
}

/* ---- looking ---- */

char ledger_refusal[512];

static void
refusal_keep(void)
{
    if (ledger_refusal[0] == '\0')
        (void)snprintf(ledger_refusal, sizeof(ledger_refusal), "%s", scree_error_detail());
}

static bool
is_fair(int code)
{
    return code == SCREE_E_CORRUPT || code == SCREE_E_FORMAT || code == -ENOENT;
}

static bool
state_right(const struct ledger *l, scree_cache *cache, const scree_options *options)
{
    scree_slice state;

    if (options->materializer->recover == NULL)
        return true;
    KIT_CHECK(scree_recovery_state(cache, &state) == 0, "no recovery state");
    if (state.len == 0)
        return l->fold.records == 0;
    return state.len == sizeof(l->fold) && memcmp(state.data, &l->fold, sizeof(l->fold)) == 0;
}

static enum ledger_verdict
pages_look(const struct ledger *l, scree_cache *cache)
{
    enum ledger_verdict verdict = LEDGER_RIGHT;
    unsigned char bytes[LEDGER_PAGE_BYTES];

    for (uint32_t id = 1; id < l->pages; id++) {
        scree_version version;
        size_t len = 0;
        int code = scree_page_read(cache, id, bytes, sizeof(bytes), &len, &version);

        if (code == SCREE_E_CORRUPT) {
            verdict = verdict == LEDGER_WRONG ? LEDGER_WRONG : LEDGER_REFUSED;
            refusal_keep();
        } else if ((code == 0) != l->live[id] ||
                   (code == 0 && (len != l->len[id] || version != l->version[id] ||
                                  memcmp(bytes, l->bytes[id], len) != 0)))
            verdict = LEDGER_WRONG;
    }
    return verdict;
}

enum ledger_verdict
ledger_look(const struct ledger *l, const char *dir, const scree_options *options)
{
    enum ledger_verdict verdict;
    scree_cache *cache;
    int code = scree_open(dir, options, &cache);

    KIT_CHECK(code == 0 || is_fair(code), "open gave %d: %s", code, scree_error_detail());
    ledger_refusal[0] = '\0';
    if (code != 0) {
        refusal_keep();
        return LEDGER_REFUSED;
    }
    verdict = pages_look(l, cache);
    if (!state_right(l, cache, options))
        verdict = LEDGER_WRONG;
    if ((options->flags & SCREE_READ_ONLY) == 0) {
        uint64_t id;

        KIT_CHECK(scree_id_next(cache, &id) == 0, "id: %s", scree_error_detail());
        verdict = id > l->id_last ? verdict : LEDGER_WRONG;
    }
    KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
    return verdict;
}

/* ---- findings ---- */

int
ledger_note(void *ctx, const scree_finding *f)
{
    struct ledger_findings *all = ctx;
    struct ledger_finding *to = &all->found[all->n];

    KIT_CHECK(f->size == sizeof(*f) && f->text != NULL && f->text[0] != '\0', "a bare finding");
    if (f->severity == SCREE_FINDING_NOTE || all->n == LEDGER_FINDINGS)
        return 0;
    all->n++;
    all->state_lost |= f->severity == SCREE_FINDING_LOST && f->page == 0;
    *to = (struct ledger_finding){.severity = f->severity,
                                  .code = f->code,
                                  .offset = f->offset,
                                  .lsn = f->lsn,
                                  .page = f->page,
                                  .bytes = f->bytes};
    (void)snprintf(to->file, sizeof(to->file), "%s", f->file != NULL ? f->file : "");
    (void)snprintf(to->text, sizeof(to->text), "%s", f->text);
    return 0;
}

void
ledger_findings_show(const struct ledger_findings *all)
{
    for (uint32_t i = 0; i < all->n && i < 8; i++) {
        const struct ledger_finding *f = &all->found[i];

        printf("  severity %d, %s offset %" PRIu64 " lsn %" PRIu64 " bytes %" PRIu64
               " page %" PRIu64 ": %s\n",
               f->severity, f->file, f->offset, f->lsn, f->bytes, f->page, f->text);
    }
}

bool
ledger_told_lost(const struct ledger_findings *all, uint64_t page)
{
    for (uint32_t i = 0; i < all->n; i++) {
        if (all->found[i].severity == SCREE_FINDING_LOST && all->found[i].page == page)
            return true;
    }
    return false;
}

/* ---- what was salvaged ---- */

/* A stretch of the log of which nothing is known. */
static bool
is_stretch(const struct ledger_finding *f)
{
    return f->severity == SCREE_FINDING_DAMAGE && f->bytes > 0;
}

/* The page as the steps with records before lsn left it; NULL: it was not there. */
static const struct ledger_step *
state_before(const struct ledger *l, uint32_t id, uint64_t lsn)
{
    const struct ledger_step *last = NULL;

    for (size_t i = 0; i < l->n && l->step[i].from < lsn; i++) {
        if (l->step[i].page == id)
            last = &l->step[i];
    }
    return last;
}

/* The first step of the page whose record lies behind it. */
static const struct ledger_step *
step_behind(const struct ledger *l, uint32_t id, uint64_t lsn)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->step[i].page == id && l->step[i].from >= lsn)
            return &l->step[i];
    }
    return NULL;
}

static bool
is_whole_behind(const struct ledger *l, uint32_t id, uint64_t lsn)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->step[i].page == id && l->step[i].from >= lsn && l->step[i].whole)
            return true;
    }
    return false;
}

/* A page that was told lost: had it to be? */
static bool
is_loss_fair(const struct ledger *l, const struct ledger_findings *all, uint32_t id)
{
    for (uint32_t i = 0; i < all->n; i++) {
        const struct ledger_finding *f = &all->found[i];
        const struct ledger_step *next = step_behind(l, id, f->lsn + f->bytes);

        if (f->severity == SCREE_FINDING_LOST && f->page == id && f->bytes > 0)
            return true; /* a record of its own; it was checked that the damage lies there */
        if (is_stretch(f) && next != NULL && !next->whole &&
            !is_whole_behind(l, id, f->lsn + f->bytes))
            return true;
    }
    return false;
}

/* An older state: as it was before a stretch that has a record of it, and nothing of it lies behind. */
static bool
is_age_fair(const struct ledger *l, const struct ledger_findings *all, uint32_t id, bool live,
            const unsigned char *bytes, size_t len)
{
    for (uint32_t i = 0; i < all->n; i++) {
        const struct ledger_finding *f = &all->found[i];
        const struct ledger_step *before = state_before(l, id, f->lsn);
        const struct ledger_step *in = step_behind(l, id, f->lsn);
        bool root = id == SCREE_PAGE_ROOT && before == NULL;

        if (!is_stretch(f) || in == NULL || in->from >= f->lsn + f->bytes ||
            step_behind(l, id, f->lsn + f->bytes) != NULL)
            continue;
        if (live != (root || (before != NULL && before->live)))
            continue;
        if (!live || (root && len == 0) ||
            (before != NULL && before->len == len && before->hash == kit_hash(bytes, len, 3)))
            return true;
    }
    return false;
}

static void
page_check(const struct ledger *l, const struct ledger_findings *all, scree_cache *cache,
           uint32_t id, struct ledger_rescued *sum)
{
    unsigned char bytes[LEDGER_PAGE_BYTES];
    size_t len = 0;
    int code = scree_page_read(cache, id, bytes, sizeof(bytes), &len, NULL);
    bool gone = code != 0 || (id == SCREE_PAGE_ROOT && len == 0), fair;

    KIT_CHECK(code == 0 || code == SCREE_E_NOT_FOUND, "page %" PRIu32 " gave %d", id, code);
    if ((code == 0) == l->live[id] &&
        (code != 0 || (len == l->len[id] && memcmp(bytes, l->bytes[id], len) == 0))) {
        sum->right++;
        return;
    }
    if (gone && ledger_told_lost(all, id)) {
        fair = is_loss_fair(l, all, id);
        if (!fair)
            ledger_findings_show(all);
        KIT_CHECK(fair, "page %" PRIu32 " is told lost, and is provable", id);
        sum->lost++;
        return;
    }
    fair = is_age_fair(l, all, id, code == 0, bytes, len);
    if (!fair)
        ledger_findings_show(all);
    KIT_CHECK(fair, "page %" PRIu32 " (%s) is neither what it was, nor told lost, nor older", id,
              code == 0 ? "there" : "not there");
    sum->older++;
}

void
ledger_rescued_check(const struct ledger *l, const struct ledger_findings *all, const char *dir,
                     const scree_options *options, struct ledger_rescued *sum)
{
    scree_options o = *options;
    scree_cache *cache;
    int code;

    o.flags = SCREE_READ_ONLY;
    code = scree_open(dir, &o, &cache);
    KIT_CHECK(code == 0, "open of what was salvaged gave %d: %s", code, scree_error_detail());
    for (uint32_t id = 1; id < l->pages; id++)
        page_check(l, all, cache, id, sum);
    KIT_CHECK(all->state_lost || state_right(l, cache, options),
              "the recovery state is not what it was, nor told lost");
    KIT_CHECK(scree_close(cache) == 0, "close");
}
