/*
 * recover.c - from a directory to a page table: newest loadable snapshot, then the log behind it.
 *
 * STEPS  R1  load the newest generation; if it cannot be, the older one (told by event)
 *        R2  scan the log from its replay start S; apply each page record in log order
 *        R3  fold each user record into the recovery state, if there is a callback
 *        R4  recount space from the table: what no page stands for is dead
 *        R5  start the log behind its end (trim, rewrite, jump: log/), make sure the root lives
 * INVARIANTS
 *   I1 a record is applied only if its lsn is above the newest record its page already stands for,
 *      or above the free that the snapshot's walk saw (tombstone): the snapshot may have seen later
 *      states than S.
 *   I2 what is applied leaves every page evicted: a word, or a ghost with several positions. No page
 *      bytes are read: the cost is the table plus the log behind S, never the data.
 *   I3 a record of a page that is not there and has no tombstone is damage: never skipped in
 *      silence.
 *   I4 what lies below S and is not in the table died below S. A death behind S is stamped where the
 *      replay meets it: with what superseded it, or with the newest the snapshot knew of its page.
 * LIFETIME single-threaded but for R1, whose workers write different ids; words are published by
 *          the join, and to everybody else by open's return. So plain relaxed stores will do.
 * FAILURE  CORRUPT, FORMAT, MATERIALIZER, NO_MEMORY, -errno: open fails, the directory is as it
 *          was.
 * NOT HERE torn tails and damage in the log (log/scan.c).   REFS DESIGN: docs/impl.md, "Recovery".
 */
#include "pagecache/pagecache_private.h"

#include <errno.h>
#include <string.h>

#define LOAD_THREADS 2
#define POSITIONS_MAX 32768u
#define PROGRESS_RECORDS 65536u

/* Words are read and written relaxed throughout: LIFETIME. */
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
        return scree__fail(SCREE_E_CORRUPT, "page %llu: %u records, version %llu in the snapshot",
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
            scree__max_u64(cache->snapshot_number, scree__generation_newest(g)->number);
        if (rc == 0) {
            *pages_out = (int64_t)loaded->full_pages +
                         atomic_load_explicit(&load.pages, memory_order_relaxed);
            return progress(cache, "load", bytes, bytes);
        }
        table_reset(cache);
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

struct replay {
    scree_cache *cache;
    uint64_t start;   /* S */
    uint64_t stable;  /* E of the newest generation */
    uint64_t records; /* page records seen */
    bool changed;     /* one of them lies behind E */
    int64_t pages;
};

static int
unknown_page(const struct scree__record *r)
{
    return scree__fail(SCREE_E_CORRUPT,
                       "the record at lsn %llu (kind %u) belongs to page %llu, which is not live "
                       "there; the log and the snapshot disagree",
                       (unsigned long long)r->lsn, r->kind, (unsigned long long)r->page);
}

/* I4. What the word stands for died at lsn. */
static void
supersede(scree_cache *cache, struct scree__radix_ref ref, uint64_t lsn)
{
    uint64_t word = word_get(ref), side;
    const struct scree__position *p;
    struct scree__node *n;

    if (slot_tag(word) == SLOT_EVICTED) {
        side = atomic_load_explicit(scree__radix_side(ref), memory_order_relaxed);
        scree__log_stamp_death(cache->log, slot_evicted_lsn(word), slot_evicted_len(word, side),
                               lsn);
    }
    if (slot_tag(word) != SLOT_NODE)
        return;
    n = slot_node(word);
    p = scree__node_positions(n);
    if (n->positions == 1)
        scree__log_stamp_death(cache->log, n->lsn, n->disk_len, lsn);
    for (uint32_t i = 0; n->positions > 1 && i < n->positions; i++)
        scree__log_stamp_death(cache->log, p[i].lsn, p[i].disk_len, lsn);
}

/* I1 holds: r is newer than all the slot stands for. */
static int
replay_apply(struct replay *replay, struct scree__radix_ref ref, const struct scree__record *r)
{
    scree_cache *cache = replay->cache;
    struct scree__position p = {.lsn = r->lsn, .disk_len = r->disk_len};
    bool live = slot_tag(word_get(ref)) != SLOT_FREE;

    if (live == (r->kind == SCREE__RECORD_ALLOCATE))
        return unknown_page(r);
    if (r->version == 0 || r->version % 8 != 0 ||
        (r->version > r->lsn + r->disk_len && (r->flags & SCREE__RECORD_IN_BATCH) == 0))
        return scree__fail(SCREE_E_CORRUPT, "the record at lsn %llu carries version %llu",
                           (unsigned long long)r->lsn, (unsigned long long)r->version);
    if (r->kind != SCREE__RECORD_DELTA)
        supersede(cache, ref, r->lsn);
    switch (r->kind) {
    case SCREE__RECORD_ALLOCATE:
        replay->pages++;
        if ((r->flags & SCREE__RECORD_CHOSEN_ID) == 0 && r->page > cache->id_high)
            cache->id_high = r->page;
        return page_put(cache, ref, &p, 1, r->version);
    case SCREE__RECORD_SET:
    case SCREE__RECORD_CONSOLIDATED:
        return page_put(cache, ref, &p, 1, r->version);
    case SCREE__RECORD_DELTA:
        return page_push(cache, ref, &p, r->version);
    default: /* FREE */
        replay->pages--;
        word_put(cache, ref, slot_from_free(r->lsn));
        return 0;
    }
}

/* R2, R3 */
static int
replay_visit(void *arg, const struct scree__record *r)
{
    struct replay *replay = arg;
    scree_cache *cache = replay->cache;
    struct scree__radix_ref ref;
    int rc = 0;

    /* Whatever it is, it does not die before it was written. */
    scree__log_stamp_death(cache->log, r->lsn, r->disk_len, r->lsn);
    if (r->kind == SCREE__RECORD_ID_RANGE) {
        replay->changed |= r->lsn >= replay->stable;
        scree__generator_found(cache, r->page);
    }
    if (r->kind > SCREE__RECORD_FREE)
        return 0; /* pads, seals, aborted; the scan gives whole batches only */
    if (cache->materializer.recover != NULL)
        rc = scree__fold_record(&cache->materializer, &cache->fold, r);
    if (rc != 0)
        return rc;
    if (r->page == 0)
        return unknown_page(r);
    if (++replay->records % PROGRESS_RECORDS == 0)
        rc = progress(cache, "replay", r->lsn - replay->start, 0);
    if (rc != 0)
        return rc;
    replay->changed |= r->lsn >= replay->stable;
    ref = r->kind == SCREE__RECORD_ALLOCATE ? scree__radix_make(&cache->radix, r->page)
                                            : scree__radix_find(&cache->radix, r->page);
    if (ref.leaf == NULL)
        return r->kind == SCREE__RECORD_ALLOCATE
                   ? scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table")
                   : unknown_page(r);
    if (r->lsn <= scree__slot_lsn(word_get(ref))) { /* I1; 0 for a slot that was never used */
        scree__log_stamp_death(cache->log, r->lsn, r->disk_len, scree__slot_lsn(word_get(ref)));
        return 0;
    }
    return replay_apply(replay, ref, r);
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

/* R4 */
static int
recount(scree_cache *cache, uint64_t start, uint64_t end)
{
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(&cache->radix, 0);
    int rc = 0;

    scree__log_recount_begin(cache->log, end, start == 0 ? 0 : start - 1);
    for (; rc == 0 && leaf != NULL; leaf = scree__radix_leaf_after(&cache->radix, leaf)) {
        struct scree__radix_ref ref = {.leaf = leaf};

        for (; rc == 0 && ref.index < SCREE__RADIX_FANOUT; ref.index++)
            rc = recount_slot(cache, ref);
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
    int rc = load_newest(cache, &loaded, &replay->pages);

    if (rc != 0)
        return rc;
    cache->full_pages = loaded.full_pages;
    replay->start = m->generations > 0 ? m->generation[0].replay_lsn : 0;
    replay->stable = known_stable;
    cache->id_high = m->generations > 0 ? loaded.meta.id_high : SCREE_PAGE_ROOT;
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
    return scree__log_scan(cache->log, replay->start, known_stable, replay_visit, replay, scan);
}

int
scree__recover(scree_cache *cache)
{
    uint64_t begin = cache->env->now_ns(cache->env->ctx);
    struct replay replay = {.cache = cache};
    struct scree__log_scan_result scan = {0};
    struct scree__log_found found;
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
    cache->id_gap = SCREE_PAGE_ROOT;
    cache->id_gap_end = cache->id_high;
    cache->fold_lsn = cache->fold_from = scree__log_tail(cache->log);
    cache->pages_recovered = cache->table_pages = (uint64_t)replay.pages;
    atomic_store_explicit(&cache->checkpoint_lsn, replay.start, memory_order_relaxed);
    if (cache->manifest.generations > 0)
        atomic_store_explicit(&cache->checkpoint_bytes,
                              scree__generation_newest(&cache->manifest.generation[0])->bytes,
                              memory_order_relaxed);
    /* Nothing to write at close if nothing is done until then. */
    cache->checkpointed_end =
        found.clean && !replay.changed && !cache->fell_back ? cache->fold_lsn : 0;
    cache->recovery = (scree_recovery_info){
        .size = sizeof cache->recovery,
        .clean = found.clean,
        .snapshot_lsn = replay.start,
        .stable_lsn = scan.end,
        .records = replay.records,
        .pages = cache->pages_recovered,
        .torn_bytes = scan.torn_bytes,
        .batches_discarded = scan.batches_discarded,
        .elapsed_us = (cache->env->now_ns(cache->env->ctx) - begin) / 1000,
    };
    return 0;
}
