/*
 * recover.c - from a directory to a page table: newest loadable snapshot, then the log behind it.
 *
 * STEPS  R1  load the newest generation; if it cannot be, the older one (told by event)
 *        R2  scan the log from its replay start S; apply each page record
 *        R3  fold each user record into the recovery state, if there is a callback, in log order
 *        R4  recount space from the table: what no page stands for is dead
 *        R5  start the log behind its end (trim, rewrite, jump: log/), make sure the root lives
 * PROTOCOL of R2: scan.c shows every record to REPLAY_THREADS visitors, in log order to each. A record is
 *   applied by the visitor that owns its page, and by no other; R3, and telling how far it is, is visitor
 *   0's alone. Records are taken by the window: the cold lines of a whole window are fetched side by side,
 *   then it is applied.
 * WORD   slots, side words, nodes: in R1 of a worker's ids, in R2 of a visitor's pages, in R4 and R5 of
 *        the one thread there is. share[k]: visitor k's. Published by joins.
 * EDGES  step                          who           order                pairs   if it loses
 *   E1   a leaf is made                 any visitor   as in radix.c                the other's serves
 *   E2   memory is charged              any visitor   fetch_add relaxed    -       cannot: a sum
 *   E3   a granule is stamped           any visitor   store relaxed        join    all store the same
 *   Plain and relaxed otherwise: each word has one writer, and readers after a join.
 * INVARIANTS
 *   I1 a record is applied only if its lsn is above the newest record its page already stands for,
 *      or above the free that the snapshot's walk saw (tombstone): the snapshot may have seen later
 *      states than S.
 *   I2 what is applied leaves every page evicted: a word, or a ghost with several positions. No page
 *      bytes are read: the cost is the table plus the log behind S, never the data.
 *   I3 a record of a page that is not there and has no tombstone is damage: never skipped in
 *      silence.
 *   I4 what lies below S and is not in the table died below S. What lies below S and was superseded
 *      behind it is stamped where the replay meets that. Whatever lies behind S may have died there.
 *   I5 a page's records are applied in log order, by one visitor. Between pages no order is needed: a batch is
 *      shown whole or not at all, and what is said of all pages are sums and a maximum.
 * LIFETIME of shares and windows: R2. The record of a window: until its visit returns.
 * PROGRESS visitors do not wait for each other but through the scan's buffers.
 * FAILURE  CORRUPT, FORMAT, MATERIALIZER, NO_MEMORY, -errno: open fails, the directory is as it
 *          was. Of several failures one is told.
 * NOT HERE torn tails and damage in the log (log/scan.c).   REFS DESIGN: docs/impl.md, "Recovery".
 */
#include "pagecache/pagecache_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LOAD_THREADS 2
#define POSITIONS_MAX 32768u
#define PROGRESS_RECORDS 65536u
#define REPLAY_THREADS 2u
#define WINDOW_RECORDS 32u
#define RECOUNT_AHEAD 8u

static_assert(REPLAY_THREADS <= SCREE__LOG_VISITORS_MAX, "each of them visits");

/* Words are read and written relaxed throughout: WORD. */
static uint64_t
word_get(struct scree__radix_ref ref)
{
    return atomic_load_explicit(scree__radix_word(ref), memory_order_relaxed);
}

static void
word_put(scree_cache *cache, struct scree__radix_ref ref, uint64_t word)
{
    uint64_t old = word_get(ref);

    if (slot_tag(old) == SLOT_NODE && slot_node(old) != slot_node(word))
        scree__node_free_cold(cache, slot_node(old));
    atomic_store_explicit(scree__radix_word(ref), word, memory_order_relaxed);
}

/* The page stands for these records, oldest first. */
static int
page_put(scree_cache *cache, struct scree__radix_ref ref, const struct scree__position *p, size_t n,
         uint64_t version)
{
    struct scree__node *ghost;

    if (n == 1 && slot_can_evict(p->disk_len)) {
        atomic_store_explicit(scree__radix_side(ref), slot_side(version, p->disk_len),
                              memory_order_relaxed);
        word_put(cache, ref, slot_from_evicted(p->lsn, p->disk_len));
        return 0;
    }
    ghost = scree__node_new_cold(cache, n);
    if (ghost == NULL)
        return SCREE_E_NO_MEMORY;
    ghost->lsn = p[n - 1].lsn;
    ghost->disk_len = p[n - 1].disk_len;
    ghost->version = version;
    ghost->positions = (uint16_t)n;
    if (n > 1)
        memcpy(scree__node_positions(ghost), p, n * sizeof *p);
    word_put(cache, ref, slot_from_node(ghost, n));
    return 0;
}

/* One more record on a page that stands for some already. */
static int
page_push(scree_cache *cache, struct scree__radix_ref ref, const struct scree__position *p,
          uint64_t version)
{
    struct scree__position both[2];
    uint64_t word = word_get(ref), side;
    struct scree__node *ghost, *grown;

    if (slot_tag(word) == SLOT_EVICTED) {
        side = atomic_load_explicit(scree__radix_side(ref), memory_order_relaxed);
        both[0] = (struct scree__position){.lsn = slot_evicted_lsn(word),
                                           .disk_len = slot_evicted_len(word, side)};
        both[1] = *p;
        return page_put(cache, ref, both, 2, version);
    }
    ghost = slot_node(word);
    if (ghost->positions >= POSITIONS_MAX) /* the writer's cap is far below */
        return scree__fail(SCREE_E_CORRUPT, "more than %u fragments on one page", POSITIONS_MAX);
    if (ghost->positions == 1) {
        both[0] = (struct scree__position){.lsn = ghost->lsn, .disk_len = ghost->disk_len};
        both[1] = *p;
        return page_put(cache, ref, both, 2, version);
    }
    grown = ghost;
    if (ghost->positions == scree__node_positions_cap(ghost)) {
        grown = scree__node_new_cold(cache, (size_t)ghost->positions * 2);
        if (grown == NULL)
            return SCREE_E_NO_MEMORY;
        memcpy(grown->payload, ghost->payload, ghost->positions * sizeof *p);
        grown->positions = ghost->positions;
    }
    scree__node_positions(grown)[grown->positions++] = *p;
    grown->lsn = p->lsn;
    grown->disk_len = p->disk_len;
    grown->version = version;
    word_put(cache, ref, slot_from_node(grown, grown->positions));
    return 0;
}

/* R1. WORD pages: relaxed, a count, read when the threads have been joined. */
struct load {
    scree_cache *cache;
    _Atomic int64_t pages; /* that deltas brought, less those they took */
};

/* What the page has been given since the files before. */
static int
load_added(scree_cache *cache, struct scree__radix_ref ref, const struct scree__snapshot_entry *e)
{
    int rc = 0;

    if (slot_tag(word_get(ref)) == SLOT_FREE)
        return scree__fail(SCREE_E_CORRUPT,
                           "a delta snapshot adds to page %llu, which is not there",
                           (unsigned long long)e->id);
    for (uint32_t i = 0; rc == 0 && i < e->n; i++)
        if (e->positions[i].lsn > scree__slot_lsn(word_get(ref)))
            rc = page_push(cache, ref, &e->positions[i], e->version);
    return rc;
}

/* From several threads, each with ids of its own. */
static int
load_entry(void *arg, const struct scree__snapshot_entry *e)
{
    struct load *load = arg;
    scree_cache *cache = load->cache;
    struct scree__radix_ref ref = scree__radix_make(&cache->radix, e->id);
    bool live;

    if (ref.leaf == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
    if (e->n > POSITIONS_MAX || e->version % 8 != 0)
        return scree__fail(SCREE_E_CORRUPT, "page %llu has %u records, version %llu",
                           (unsigned long long)e->id, e->n, (unsigned long long)e->version);
    if (e->added)
        return load_added(cache, ref, e);
    live = slot_tag(word_get(ref)) != SLOT_FREE;
    if (e->delta && live != (e->n > 0))
        atomic_fetch_add_explicit(&load->pages, e->n > 0 ? 1 : -1, memory_order_relaxed);
    if (e->n == 0) {
        word_put(cache, ref, slot_from_free(e->version));
        return 0;
    }
    return page_put(cache, ref, e->positions, e->n, e->version);
}

static void
table_reset(scree_cache *cache)
{
    scree__nodes_destroy(cache);
    scree__radix_destroy(&cache->radix);
    scree__radix_init(&cache->radix);
    atomic_store_explicit(&cache->resident_bytes, 0, memory_order_relaxed); /* alone here */
}

/* Non-zero from the user's callback ends the open. */
static int
progress(scree_cache *cache, const char *what, uint64_t done, uint64_t total)
{
    const scree_options *o = &cache->options;

    if (o->progress == NULL || o->progress(o->callback_ctx, what, done, total) == 0)
        return 0;
    return scree__fail(SCREE_E_CANCELED, "opening %s was canceled by the progress callback",
                       cache->dir);
}

/* A file of the only generation is not there: damage. -ENOENT would mean that there is no directory. */
static int
file_missing(void)
{
    char detail[512];

    (void)snprintf(detail, sizeof detail, "%s", scree_error_detail());
    return scree__fail(SCREE_E_CORRUPT,
                       "%s, though the manifest names it; salvage gets the rest out", detail);
}

/* *pages_out: in the table. */
static int
load_newest(scree_cache *cache, struct scree__snapshot_loaded *loaded, int64_t *pages_out)
{
    struct scree__manifest *m = &cache->manifest;
    int rc = 0;

    memset(loaded, 0, sizeof *loaded);
    *pages_out = 0;
    while (m->generations > 0) {
        const struct scree__generation *g = &m->generation[0];
        uint64_t bytes = scree__generation_bytes(g);
        struct load load = {.cache = cache};

        rc = progress(cache, "load", 0, bytes);
        if (rc != 0)
            return rc;
        rc = scree__snapshot_load(cache->env, cache->dir, g, m->uuid, LOAD_THREADS, load_entry,
                                  &load, loaded);
        cache->snapshot_number =
            scree__max_u64(cache->snapshot_number, scree__generation_number_max(g));
        if (rc == 0) {
            *pages_out = (int64_t)loaded->full_pages +
                         atomic_load_explicit(&load.pages, memory_order_relaxed);
            return progress(cache, "load", bytes, bytes);
        }
        table_reset(cache);
        if (m->generations == 1 && rc == -ENOENT)
            return file_missing();
        if (m->generations == 1 || (rc != SCREE_E_CORRUPT && rc != -ENOENT))
            return rc;
        scree__event(cache, SCREE_EVENT_SNAPSHOT_FALLBACK, rc, g->replay_lsn, bytes,
                     scree_error_detail());
        /* A generation that cannot be loaded is not retained: its S bounds nothing any more. */
        m->generation[0] = m->generation[1];
        m->generations--;
        cache->fell_back = true;
        cache->snapshot_full =
            true; /* it may share a damaged file with what is loaded now, and did not show it */
    }
    return rc;
}

/* What one of the threads has to say of its pages. */
struct share {
    _Alignas(SCREE_CACHE_LINE) uint64_t records; /* page records seen */
    uint64_t id_high;
    int64_t pages;
    bool changed; /* one of the records lies behind E */
};

struct replay {
    scree_cache *cache;
    uint64_t start;  /* S */
    uint64_t stable; /* E of the newest generation */
    uint64_t last;   /* where the files end; the log ends at or before it */
    uint64_t told;   /* visitor 0: page records seen, of all visitors */
    struct share share[REPLAY_THREADS];
};

/* Records whose words and nodes are being fetched before they are applied. */
struct window {
    const struct scree__record *record[WINDOW_RECORDS];
    struct scree__radix_ref ref[WINDOW_RECORDS]; /* leaf NULL: not there, when it was looked for */
    uint32_t n;
};

static int
unknown_page(const struct scree__record *r)
{
    return scree__fail(SCREE_E_CORRUPT,
                       "the record at lsn %llu (kind %u) belongs to page %llu, which is not live "
                       "there; the log and the snapshot disagree",
                       (unsigned long long)r->lsn, r->kind, (unsigned long long)r->page);
}

/* I4. It died; behind S nothing has to be noted. */
static void
position_die(const struct replay *replay, uint64_t lsn, uint32_t disk_len)
{
    if (lsn < replay->start)
        scree__log_stamp_death(replay->cache->log, lsn, disk_len);
}

/* What the word stands for is superseded. */
static void
supersede(const struct replay *replay, struct scree__radix_ref ref)
{
    uint64_t word = word_get(ref), side;
    const struct scree__position *p;
    struct scree__node *n;

    if (slot_tag(word) == SLOT_EVICTED) {
        side = atomic_load_explicit(scree__radix_side(ref), memory_order_relaxed);
        position_die(replay, slot_evicted_lsn(word), slot_evicted_len(word, side));
    }
    if (slot_tag(word) != SLOT_NODE)
        return;
    n = slot_node(word);
    p = scree__node_positions(n);
    if (n->positions == 1)
        position_die(replay, n->lsn, n->disk_len);
    for (uint32_t i = 0; n->positions > 1 && i < n->positions; i++)
        position_die(replay, p[i].lsn, p[i].disk_len);
}

/* I1 holds: r is newer than all the slot stands for. */
static int
replay_apply(struct replay *replay, struct share *share, struct scree__radix_ref ref,
             const struct scree__record *r)
{
    scree_cache *cache = replay->cache;
    struct scree__position p = {.lsn = r->lsn, .disk_len = r->disk_len};
    bool live = slot_tag(word_get(ref)) != SLOT_FREE;

    if (live == (r->kind == SCREE__RECORD_ALLOCATE))
        return unknown_page(r);
    if (!scree__record_version_possible(r))
        return scree__fail(SCREE_E_CORRUPT, "the record at lsn %llu carries version %llu",
                           (unsigned long long)r->lsn, (unsigned long long)r->version);
    if (r->kind != SCREE__RECORD_DELTA)
        supersede(replay, ref);
    switch (r->kind) {
    case SCREE__RECORD_ALLOCATE:
        share->pages++;
        if ((r->flags & SCREE__RECORD_CHOSEN_ID) == 0 && r->page > share->id_high)
            share->id_high = r->page;
        return page_put(cache, ref, &p, 1, r->version);
    case SCREE__RECORD_SET:
    case SCREE__RECORD_CONSOLIDATED:
        return page_put(cache, ref, &p, 1, r->version);
    case SCREE__RECORD_DELTA:
        return page_push(cache, ref, &p, r->version);
    default: /* FREE */
        share->pages--;
        word_put(cache, ref, slot_from_free(r->lsn));
        return 0;
    }
}

/* R2, one record of a page that is this thread's. */
static int
replay_record(struct replay *replay, struct share *share, struct scree__radix_ref ref,
              const struct scree__record *r)
{
    share->records++;
    share->changed |= r->lsn >= replay->stable;
    if (ref.leaf == NULL)
        return r->kind == SCREE__RECORD_ALLOCATE
                   ? scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table")
                   : unknown_page(r);
    if (r->lsn <= scree__slot_lsn(word_get(ref))) /* I1; 0 for a slot that was never used */
        return 0;
    return replay_apply(replay, share, ref, r);
}

/* The cold lines of a window's records, all at a time: first what a word is, then what it points to, then where
   its newest position goes. */
static void
window_fetch(const struct window *w)
{
    uint64_t word[WINDOW_RECORDS];

    for (uint32_t i = 0; i < w->n; i++) {
        word[i] = w->ref[i].leaf == NULL ? 0 : word_get(w->ref[i]);
        if (slot_tag(word[i]) == SLOT_NODE)
            __builtin_prefetch(slot_node(word[i]), 1);
    }
    for (uint32_t i = 0; i < w->n; i++) {
        struct scree__node *n = slot_node(word[i]);

        if (slot_tag(word[i]) == SLOT_NODE)
            __builtin_prefetch(&scree__node_positions(n)[n->positions], 1);
    }
}

/* What is wrong was told; where it is comes in front. */
static int
record_refused(scree_cache *cache, const struct scree__record *r)
{
    char why[256], name[64];
    uint64_t offset;

    (void)snprintf(why, sizeof why, "%s", scree_error_detail());
    scree__log_locate(cache->log, r->lsn, name, sizeof name, &offset);
    return scree__fail(SCREE_E_CORRUPT, "%s/%s, offset %llu: %s; salvage gets the rest out",
                       cache->dir, name, (unsigned long long)offset, why);
}

static int
window_apply(struct replay *replay, struct share *share, struct window *w)
{
    int rc = 0;

    window_fetch(w);
    for (uint32_t i = 0; rc == 0 && i < w->n; i++) {
        rc = replay_record(replay, share, w->ref[i], w->record[i]);
        if (rc == SCREE_E_CORRUPT)
            rc = record_refused(replay->cache, w->record[i]);
    }
    w->n = 0;
    return rc;
}

/* A record comes into the window; its word, and what lies beside it, are on their way. */
static void
window_add(scree_cache *cache, struct window *w, const struct scree__record *r)
{
    struct scree__radix_ref ref = r->kind == SCREE__RECORD_ALLOCATE
                                      ? scree__radix_make(&cache->radix, r->page)
                                      : scree__radix_find(&cache->radix, r->page);

    if (ref.leaf != NULL) {
        __builtin_prefetch(scree__radix_word(ref), 1);
        __builtin_prefetch(scree__radix_side(ref), 1);
    }
    w->record[w->n] = r;
    w->ref[w->n++] = ref;
}

/* Whose page it is (I5): those whose words share a cache line stay together. */
static unsigned
owner_of(const struct scree__record *r)
{
#ifdef SCREE_BUG_REPLAY_SPLIT
    /* Seeded: two visitors share a page. crash_recovery must fail. */
    return (unsigned)(r->lsn / 4096 % REPLAY_THREADS);
#endif
    return (unsigned)(r->page / 8 % REPLAY_THREADS);
}

/* R2 for the pages of one thread. */
static int
share_apply(struct replay *replay, unsigned who, const struct scree__record *r, size_t n)
{
    struct window w = {.n = 0};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (r[i].kind > SCREE__RECORD_FREE || owner_of(&r[i]) != who)
            continue; /* pads, seals, aborted; the scan gives whole batches only */
        if (r[i].page == 0)
            return unknown_page(&r[i]);
        window_add(replay->cache, &w, &r[i]);
        if (w.n == WINDOW_RECORDS)
            rc = window_apply(replay, &replay->share[who], &w);
    }
    return rc != 0 ? rc : window_apply(replay, &replay->share[who], &w);
}

static int
replay_progress(const struct replay *replay, uint64_t at)
{
    return progress(replay->cache, "replay", at - replay->start, replay->last - replay->start);
}

/* R3 and what else is done once for each record: by visitor 0. */
static int
replay_once(struct replay *replay, const struct scree__record *r, size_t n)
{
    scree_cache *cache = replay->cache;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (r[i].kind == SCREE__RECORD_ID_RANGE) {
            replay->share[0].changed |= r[i].lsn >= replay->stable;
            scree__generator_found(cache, r[i].page);
        }
        if (r[i].kind > SCREE__RECORD_FREE)
            continue;
        if (cache->materializer.recover != NULL)
            rc = scree__fold_record(&cache->materializer, &cache->fold, &r[i]);
        if (rc == 0 && ++replay->told % PROGRESS_RECORDS == 0)
            rc = replay_progress(replay, r[i].lsn);
    }
    return rc;
}

static int
replay_visit(void *arg, unsigned who, const struct scree__record *r, size_t n)
{
    struct replay *replay = arg;
    int rc = who == 0 ? replay_once(replay, r, n) : 0;

    return rc != 0 ? rc : share_apply(replay, who, r, n);
}

/* R2, R3 */
static int
replay_run(struct replay *replay, struct scree__log_scan_result *scan)
{
    struct scree__log *log = replay->cache->log;
    int rc;

    replay->last = scree__max_u64(scree__log_last_byte(log), replay->start);
    rc = replay_progress(replay, replay->start);
    if (rc == 0)
        rc = scree__log_scan(log, replay->start, replay->stable, replay_visit, replay,
                             REPLAY_THREADS, scan);
    replay->last = scan->end;
    return rc != 0 ? rc : replay_progress(replay, scan->end);
}

/* What the threads have to say, in the first one's share. */
static struct share
replay_sum(const struct replay *replay)
{
    struct share sum = replay->share[0];

    for (unsigned i = 1; i < REPLAY_THREADS; i++) {
        const struct share *s = &replay->share[i];

        sum.records += s->records;
        sum.pages += s->pages;
        sum.changed |= s->changed;
        sum.id_high = scree__max_u64(sum.id_high, s->id_high);
    }
    return sum;
}

static int
recount_slot(scree_cache *cache, struct scree__radix_ref ref)
{
    uint64_t word = word_get(ref), side;
    const struct scree__position *p;
    struct scree__node *n;
    int rc = 0;

    if (slot_tag(word) == SLOT_EVICTED) {
        side = atomic_load_explicit(scree__radix_side(ref), memory_order_relaxed);
        return scree__log_charge_live(cache->log, slot_evicted_lsn(word),
                                      slot_evicted_len(word, side));
    }
    if (slot_tag(word) != SLOT_NODE)
        return 0;
    n = slot_node(word);
    if (n->positions == 1)
        return scree__log_charge_live(cache->log, n->lsn, n->disk_len);
    p = scree__node_positions(n);
    for (uint32_t i = 0; rc == 0 && i < n->positions; i++)
        rc = scree__log_charge_live(cache->log, p[i].lsn, p[i].disk_len);
    return rc;
}

/* Nodes lie anywhere: the next ones are fetched while this one is counted. */
static void
recount_fetch(struct scree__radix_leaf *leaf, uint32_t index)
{
    uint64_t word = index < SCREE__RADIX_FANOUT
                        ? word_get((struct scree__radix_ref){.leaf = leaf, .index = index})
                        : 0;
    const char *node = (const char *)slot_node(word);

    if (slot_tag(word) != SLOT_NODE)
        return;
    __builtin_prefetch(node);
    __builtin_prefetch(node + SCREE_CACHE_LINE); /* its first positions */
}

/* R4 */
static int
recount(scree_cache *cache, uint64_t start, uint64_t end)
{
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(&cache->radix, 0);
    int rc = 0;

    scree__log_recount_begin(cache->log, end, start);
    for (; rc == 0 && leaf != NULL; leaf = scree__radix_leaf_after(&cache->radix, leaf)) {
        struct scree__radix_ref ref = {.leaf = leaf};

        for (; rc == 0 && ref.index < SCREE__RADIX_FANOUT; ref.index++) {
            recount_fetch(leaf, ref.index + RECOUNT_AHEAD);
            rc = recount_slot(cache, ref);
        }
    }
    scree__log_recount_end(cache->log);
    return rc;
}

/* The state of the recovery fold as of now, for scree_recovery_state. */
static int
state_keep(scree_cache *cache)
{
    if (cache->fold.len == 0)
        return 0;
    cache->recovery_state = scree__alloc(cache->fold.len);
    if (cache->recovery_state == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the recovery state");
    memcpy(cache->recovery_state, cache->fold.data, cache->fold.len);
    cache->recovery_state_len = cache->fold.len;
    return 0;
}

/* R1 to R3 */
static int
table_rebuild(scree_cache *cache, struct replay *replay, struct scree__log_scan_result *scan)
{
    const struct scree__manifest *m = &cache->manifest;
    struct scree__snapshot_loaded loaded;
    uint64_t known_stable = m->generations > 0 ? m->generation[0].stable_lsn : 0;
    int rc = load_newest(cache, &loaded, &replay->share[0].pages);

    if (rc != 0)
        return rc;
    cache->full_pages = loaded.full_pages;
    replay->start = m->generations > 0 ? m->generation[0].replay_lsn : 0;
    replay->stable = known_stable;
    replay->share[0].id_high = m->generations > 0 ? loaded.meta.id_high : SCREE_PAGE_ROOT;
    scree__generator_found(cache, loaded.meta.generated_high);
    scree__out_init(&cache->fold, SIZE_MAX / 2);
    if (loaded.state_len > 0)
        rc = scree_out_append(&cache->fold, loaded.state, loaded.state_len);
    scree__free(loaded.state, loaded.state_len);
    if (rc != 0)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the recovery state");
    if (cache->fold.len > 0 && cache->materializer.recover == NULL && !cache->read_only)
        return scree__fail(SCREE_E_MATERIALIZER,
                           "%s holds a recovery state, but this materializer has no recover "
                           "callback to go on with it",
                           cache->dir);
    return replay_run(replay, scan);
}

int
scree__recover(scree_cache *cache)
{
    uint64_t begin = cache->env->now_ns(cache->env->ctx);
    struct replay replay = {.cache = cache};
    struct scree__log_scan_result scan = {0};
    struct scree__log_found found;
    struct share sum;
    int rc;

    scree__log_found(cache->log, &found);
    rc = table_rebuild(cache, &replay, &scan);
    if (rc == 0)
        rc = state_keep(cache);
    if (rc != 0)
        return rc;
    scree__manifest_set(cache, &cache->manifest);
    scree__feed_found(cache, scree__checkpoint_floor(cache));
    scree__space_outside(cache);
    rc = recount(cache, replay.start, scan.end);
    scree__log_room_hold(cache->log, true); /* until open has some for snapshots */
    if (rc == 0)
        rc = scree__log_start(cache->log, &scan, replay.stable);
    if (rc != 0)
        return rc;
    sum = replay_sum(&replay);
    cache->id_high = sum.id_high;
    cache->id_gap = SCREE_PAGE_ROOT;
    cache->id_gap_end = cache->id_high;
    cache->fold_lsn = cache->fold_from = scree__log_tail(cache->log);
    cache->pages_recovered = cache->table_pages = (uint64_t)sum.pages;
    atomic_store_explicit(&cache->checkpoint_lsn, replay.start, memory_order_relaxed);
    if (cache->manifest.generations > 0)
        atomic_store_explicit(&cache->checkpoint_bytes,
                              scree__generation_newest(&cache->manifest.generation[0])->bytes,
                              memory_order_relaxed);
    /* Nothing to write at close if nothing is done until then. */
    cache->checkpointed_end =
        found.clean && !sum.changed && !cache->fell_back ? cache->fold_lsn : 0;
    cache->recovery = (scree_recovery_info){
        .size = sizeof cache->recovery,
        .clean = found.clean,
        .snapshot_lsn = replay.start,
        .stable_lsn = scan.end,
        .records = sum.records,
        .pages = cache->pages_recovered,
        .torn_bytes = scan.torn_bytes,
        .batches_discarded = scan.batches_discarded,
        .elapsed_us = (cache->env->now_ns(cache->env->ctx) - begin) / 1000,
    };
    return 0;
}
