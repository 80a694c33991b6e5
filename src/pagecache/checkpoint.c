/*
 * checkpoint.c - take snapshots of the live page table while updates go on, and let go of log they
 * cover.
 *
 * STEPS  C1  S := tail; wait until every reservation below S is settled (installed or given up)
 *        C2  walk the table leaf by leaf; each slot is read atomically; a free at or above S is a
 *          tombstone. For a delta, S' being the S of the snapshot before: only pages with a record at or
 *          above S', of these only such records if the page has older ones too; frees at or above S'
 *        C3  E := tail after the walk; make E stable: every record named in the file is durable
 *          before the file
 *        C4  fold the log up to S for the recover callback, if there is one
 *        C5  finish the file, then publish it in a new manifest with its predecessor (two
 *          generations)
 *        C6  what is dead below the older generation's S is given back (space.c)
 * INVARIANTS
 *   I1 everything below S is in the table before C2 reads it, or superseded by something later.
 *      What C2 misses or sees too new has an lsn at or above S, and replay from S puts it right: it
 *      skips a record whose lsn is not above the entry's newest record (or the tombstone).
 *   I2 a crash before C5's manifest leaves the old generations; after it, the new one: E is stable
 *      by then.
 *   I3 dead bytes go only when their death is below the S of the oldest generation that could be
 *      loaded, and after a grace period: no reader of an old slot word still wants them (C6).
 *   I4 a generation that is pinned (by a backup; the newest when it was pinned, one at a time) is retained
 *      beside those of the manifest: its file is not deleted, and its S bounds I3 as theirs do.
 *   I5 what a delta leaves out is as the files before it say: a page's records below S' were all in the table
 *      before the walk of that snapshot (I1), and change only by a record that replaces all of them, which is
 *      at or above S' then. That walk may have seen records at or above S' too: whoever applies a delta
 *      skips those that the page has already.
 * LIFETIME checkpoint_mutex: one at a time. A leaf's entries are copied out inside a read section
 *   and written outside of it.
 * PROGRESS off the writers' threads; writers never wait for it. C1 waits for writers that are
 *          mid-operation.
 * FAILURE  the file in the making is removed; the generations stay; told by event, tried again
 *          later.
 * NOT HERE bytes (snapshot/), replay (recover.c), merging (compact.c).
 * REFS Hekaton, Silo: fuzzy checkpoints with replay.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

#define CHECK_NS ((uint64_t)100 * 1000 * 1000)
#define FAILED_PAUSE_NS ((uint64_t)1000 * 1000 * 1000)
#define SETTLE_SLEEP_NS ((uint64_t)50 * 1000)
#define VOLUME_MIN ((uint64_t)16 << 20)
#define VOLUMES_PER_SLACK 16
#define DUTY 8u
#define DISK_BYTES_LEAST ((uint64_t)1 << 30) /* the log may take, however little of it lives */
#define VOLUME_PER_SNAPSHOT_BYTE 16u

#ifdef SCREE_BUG_BACKUP_NO_PIN
#define PINS_COUNT false /* seeded bug: tests must notice */
#else
#define PINS_COUNT true
#endif

/* C2: what is looked for, and what was found. */
struct walk {
    uint64_t floor;          /* tombstones from here on */
    uint64_t since;          /* a delta: records from here on; 0: all there are */
    uint64_t before;         /* the S before; 0: there was none */
    uint64_t pages, changed; /* changed: since `before` */
};

/* The entries of one leaf, copied. */
struct leaf_copy {
    struct scree__snapshot_entry *entry; /* FANOUT of them */
    size_t n;
    struct scree__position *position;
    size_t positions_n, positions_cap;
};

static int
leaf_copy_add(struct leaf_copy *copy, const struct scree__snapshot_entry *e,
              const struct scree__position *p)
{
    void *grown = scree__array_reserve(copy->position, &copy->positions_cap,
                                       copy->positions_n + e->n, sizeof *copy->position);

    if (grown == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to copy the page table");
    copy->position = grown;
    if (e->n > 0)
        memcpy(copy->position + copy->positions_n, p, e->n * sizeof *p);
    copy->entry[copy->n++] = *e;
    copy->positions_n += e->n;
    return 0;
}

/* The page that ctx->chain holds. */
static int
page_copy(struct scree__context *ctx, struct scree__snapshot_entry *e, const struct walk *walk,
          struct leaf_copy *copy)
{
    const struct scree__position *p = ctx->chain.positions;
    size_t n = ctx->chain.positions_n;

    for (; p->lsn < walk->since; p++, n--) /* ends: the newest is not below it */
        e->added = true;
    e->version = ctx->chain.version;
    e->n = (uint32_t)n;
    return leaf_copy_add(copy, e, p);
}

static int
slot_copy(struct scree__context *ctx, struct scree__radix_ref ref, struct walk *walk,
          struct leaf_copy *copy)
{
    struct scree__snapshot_entry e = {.id = ref.leaf->first_id + ref.index};
    uint64_t lsn;
    int rc;

    do {
        uint64_t word;

        rc = scree__slot_load(ctx, ref,
                              &word); /* a batch under way is helped to its end: either is I1's */
        if (rc != 0)
            return rc;
        if (slot_tag(word) == SLOT_FREE) {
            e.version = slot_free_lsn(word);
            return e.version >= walk->floor ? leaf_copy_add(copy, &e, NULL) : 0;
        }
        lsn = scree__slot_lsn(word);
        if (lsn < walk->since) {
            walk->pages++;
            return 0;
        }
        rc = scree__chain_collect(ctx, ref, word, &ctx->chain);
    } while (rc == SCREE_E_BUSY); /* somebody moved the slot */
    if (rc != 0)
        return rc;
    walk->pages++;
    walk->changed += walk->before != 0 && lsn >= walk->before;
    return page_copy(ctx, &e, walk, copy);
}

static int
leaf_copy_take(struct scree__context *ctx, struct scree__radix_leaf *leaf, struct walk *walk,
               struct leaf_copy *copy)
{
    struct scree__radix_ref ref = {.leaf = leaf};
    const struct scree__position *p;
    int rc = 0;

    copy->n = 0;
    copy->positions_n = 0;
    scree__rcu_enter();
    for (; rc == 0 && ref.index < SCREE__RADIX_FANOUT; ref.index++) {
        if (ref.index % CHAINS_IN_STEP == 0)
            scree__slots_prefetch(ref, walk->since);
        rc = slot_copy(ctx, ref, walk, copy);
    }
    scree__rcu_leave();
    p = copy->position; /* only now, as it may have been moved while it grew */
    for (size_t i = 0; i < copy->n; i++) {
        copy->entry[i].positions = p;
        p += copy->entry[i].n;
    }
    return rc;
}

/* C2 */
static int
table_write(struct scree__context *ctx, struct scree__snapshot_writer *w, struct walk *walk)
{
    struct scree__radix *radix = &ctx->cache->radix;
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(radix, 0);
    struct leaf_copy copy = {0};
    int rc = 0;

    copy.entry = scree__alloc(SCREE__RADIX_FANOUT * sizeof *copy.entry);
    if (copy.entry == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to copy the page table");
    for (; rc == 0 && leaf != NULL; leaf = scree__radix_leaf_after(radix, leaf)) {
        rc = leaf_copy_take(ctx, leaf, walk, &copy);
        for (size_t i = 0; rc == 0 && i < copy.n; i++)
            rc = scree__snapshot_add(w, &copy.entry[i]);
    }
    scree__free(copy.entry, SCREE__RADIX_FANOUT * sizeof *copy.entry);
    scree__free(copy.position, copy.positions_cap * sizeof *copy.position);
    return rc;
}

/* C1 */
static int
settle(scree_cache *cache, uint64_t start)
{
    _Atomic uint32_t never = 0;

    while (scree__log_settled(cache->log) < start) {
        int rc = scree__check_health(cache);

        if (rc != 0)
            return rc;
        scree__futex_wait(&never, 0, SETTLE_SLEEP_NS);
    }
    return 0;
}

/* The callback's turn. 0 unchanged, 1 out holds the new state, else an error. */
static int
fold_call(const scree_materializer *m, const struct scree__record *r, scree_slice payload,
          const struct scree_out *state, struct scree_out *out)
{
    int rc = m->recover(m->ctx, r->page, payload, (scree_slice){state->data, state->len}, out);

    if (out->error == 0 && (rc == 0 || rc == 1))
        return rc;
    return scree__fail(out->error != 0 ? out->error : SCREE_E_MERGE,
                       "the recover callback of '%s' failed (%d) on page %llu, lsn %llu", m->name,
                       rc, (unsigned long long)r->page, (unsigned long long)r->lsn);
}

int
scree__fold_record(const scree_materializer *m, struct scree_out *state,
                   const struct scree__record *r)
{
    struct scree_out out;
    uint32_t len;
    void *raw;
    int rc = scree__record_raw_len(r, &len);

    if (r->kind != SCREE__RECORD_SET && r->kind != SCREE__RECORD_DELTA &&
        !(r->kind == SCREE__RECORD_ALLOCATE && r->payload_len > 0))
        return 0;
    if (rc != 0)
        return rc;
    raw = scree__alloc(len + 1u);
    if (raw == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the recovery fold");
    scree__out_init(&out, SIZE_MAX / 2);
    rc = scree__record_unpack(r, raw, len);
    if (rc == 0)
        rc = fold_call(m, r, (scree_slice){raw, len}, state, &out);
    scree__free(raw, len + 1u);
    if (rc != 1) {
        scree__out_destroy(&out);
        return rc;
    }
    scree__out_destroy(state);
    *state = out;
    return 0;
}

static int
fold_one(scree_cache *cache, const struct scree__record *r)
{
    uint64_t end = r->lsn + r->disk_len;
    bool in_batch = r->kind == SCREE__RECORD_BATCH ||
                    ((r->flags & SCREE__RECORD_IN_BATCH) != 0 && r->version != end);
    int rc =
        r->lsn < cache->fold_lsn ? 0 : scree__fold_record(&cache->materializer, &cache->fold, r);

    if (rc != 0)
        return rc;
    if (end > cache->fold_lsn)
        cache->fold_lsn = end; /* never folded twice, whatever fails behind it */
    if (!in_batch)
        cache->fold_from = end;
    return 0;
}

static int
fold_visit(void *arg, unsigned who, const struct scree__record *r, size_t n)
{
    int rc = 0;

    (void)who; /* there is one */
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = fold_one(arg, &r[i]);
    return rc;
}

/* C4 */
static int
fold_to(scree_cache *cache, uint64_t start)
{
    int rc;

    if (cache->materializer.recover == NULL || cache->fold_lsn >= start)
        return 0;
    rc = scree__log_scan_range(cache->log, cache->fold_from, start, fold_visit, cache);
    if (rc == 0)
        cache->fold_lsn = cache->fold_from = start;
    return rc;
}

/* Under checkpoint_mutex, or alone. */
void
scree__manifest_set(scree_cache *cache, const struct scree__manifest *m)
{
    uint64_t floor = m->generations == 0 ? 0 : m->generation[m->generations - 1].replay_lsn;

    if (m != &cache->manifest)
        cache->manifest = *m;
    atomic_store_explicit(&cache->checkpoint_disk_bytes,
                          scree__generations_bytes(m->generation, m->generations),
                          memory_order_relaxed); /* a figure */
    atomic_store_explicit(&cache->generation_bytes,
                          m->generations == 0 ? 0 : scree__generation_bytes(&m->generation[0]),
                          memory_order_relaxed);                              /* another */
    atomic_store_explicit(&cache->retained_lsn, floor, memory_order_relaxed); /* another */
}

/* I4 */
int
scree__manifest_publish(scree_cache *cache, const struct scree__manifest *m)
{
    uint64_t keep_from = cache->merging_from;
    int rc;

    if (cache->pinned)
        keep_from = scree__min_u64(keep_from, cache->pin.file[0].number); /* 0, of none: all */
    rc = scree__manifest_store_keeping(cache->env, cache->dir, m, keep_from);
    if (rc == 0)
        scree__manifest_set(cache, m);
    return rc;
}

/* C5: the new generation in front, the manifest after it. alone: the file just made. */
static int
publish(scree_cache *cache, const struct scree__generation *alone, bool delta)
{
    struct scree__manifest m = cache->manifest;
    struct scree__generation *g = &m.generation[0];

    if (m.generations > 0)
        m.generation[1] = *g;
    if (delta) {
        g->file[g->files++] = alone->file[0];
        g->replay_lsn = alone->replay_lsn;
        g->stable_lsn = alone->stable_lsn;
    } else {
        *g = *alone;
    }
    m.generations = m.generations == 0 ? 1 : SCREE__GENERATIONS_MAX;
    m.number++;
    return scree__manifest_publish(cache, &m);
}

/* A delta adds to the newest generation, and must find all of it. Where much changes, it is no smaller. */
static bool
delta_will_do(const scree_cache *cache)
{
    const struct scree__manifest *m = &cache->manifest;

    return m->generations > 0 && !cache->snapshot_full &&
           m->generation[0].files < SCREE__GENERATION_FILES_MAX;
}

static void
walk_init(const scree_cache *cache, const struct scree__snapshot_meta *meta, struct walk *walk)
{
    const struct scree__manifest *m = &cache->manifest;

    memset(walk, 0, sizeof *walk);
    walk->before = m->generations > 0 ? m->generation[0].replay_lsn : 0;
    walk->since = meta->since_lsn;
    walk->floor = meta->since_lsn != 0 ? meta->since_lsn : meta->replay_lsn;
#ifdef SCREE_BUG_SNAPSHOT_DELTA_SINCE
    if (walk->since != 0) /* what changed during the walk before is left out */
        walk->since = m->generation[0].stable_lsn;
#endif
}

#ifdef SCREE_BUG_SNAPSHOT_BEFORE_LOG
#define WAITS_FOR_LOG false /* seeded bug: tests must notice */
#else
#define WAITS_FOR_LOG true
#endif

/* C2 to C5, of the writer. */
static int
snapshot_fill(struct scree__context *ctx, struct scree__snapshot_writer *w, uint64_t start,
              struct walk *walk, struct scree__generation *g)
{
    scree_cache *cache = ctx->cache;
    uint64_t begin = scree__thread_cpu_ns(), end, high;
    int rc = table_write(ctx, w, walk);

    atomic_store_explicit(&cache->checkpoint_took_ns, scree__thread_cpu_ns() - begin,
                          memory_order_relaxed); /* a hint */
    end = scree__log_tail(cache->log);
    if (rc == 0 && WAITS_FOR_LOG)
        rc = scree__log_wait_stable(cache->log, end, UINT64_MAX); /* C3 */
    if (rc == 0)
        rc = fold_to(cache, start);
    if (rc != 0) {
        scree__snapshot_abandon(w);
        return rc;
    }
    pthread_mutex_lock(&cache->id_mutex);
    high = cache->id_high;
    pthread_mutex_unlock(&cache->id_mutex);
    return scree__snapshot_finish(w, (scree_slice){cache->fold.data, cache->fold.len}, end, high,
                                  g);
}

/* C1 to C5 */
static int
checkpoint_write(struct scree__context *ctx, uint64_t start, struct scree__generation *g)
{
    scree_cache *cache = ctx->cache;
    struct scree__snapshot_meta meta = {.number = cache->snapshot_number + 1, .replay_lsn = start};
    bool delta = delta_will_do(cache);
    struct scree__snapshot_writer *w;
    struct walk walk;
    int rc = settle(cache, start);

    if (rc != 0)
        return rc;
    memcpy(meta.uuid, cache->manifest.uuid, sizeof meta.uuid);
    meta.generated_high = scree__generator_high(cache); /* all below S is settled */
    if (delta)
        meta.since_lsn = cache->manifest.generation[0].replay_lsn;
    rc = scree__snapshot_begin(cache->env, cache->dir, &meta, &w);
    if (rc != 0)
        return rc;
    cache->snapshot_number++; /* also if it fails: a number is never used twice */
    walk_init(cache, &meta, &walk);
    rc = snapshot_fill(ctx, w, start, &walk, g);
    if (rc == 0)
        rc = publish(cache, g, delta);
    if (rc != 0)
        return rc;
    cache->snapshot_full = walk.changed * 2 >= walk.pages && walk.changed > 0;
    cache->table_pages = walk.pages;
    if (delta)
        atomic_fetch_add_explicit(&cache->snapshot_delta_bytes, g->file[0].bytes,
                                  memory_order_relaxed); /* statistics */
    else
        cache->full_pages = walk.pages;
    return 0;
}

uint64_t
scree__checkpoint_floor(scree_cache *cache)
{
    const struct scree__manifest *m = &cache->manifest;
    uint64_t floor;

    pthread_mutex_lock(&cache->checkpoint_mutex);
    floor = m->generations == 0 ? 0 : m->generation[m->generations - 1].replay_lsn;
    if (PINS_COUNT && cache->pinned && cache->pin.replay_lsn < floor)
        floor = cache->pin.replay_lsn; /* I4 */
    pthread_mutex_unlock(&cache->checkpoint_mutex);
    return floor;
}

uint64_t
scree__checkpoint_pinned_bytes(scree_cache *cache)
{
    /* Relaxed: figures, that a checkpoint under way shall not delay. */
    uint64_t pin = atomic_load_explicit(&cache->pin_lsn, memory_order_relaxed);

    return scree__log_pinned_bytes(
        cache->log, scree__min_u64(pin, scree__feed_least(cache)),
        atomic_load_explicit(&cache->retained_lsn, memory_order_relaxed));
}

int
scree__snapshot_pin(scree_cache *cache, struct scree__generation *pin_out)
{
    const struct scree__manifest *m = &cache->manifest;
    int rc = 0;

    memset(pin_out, 0, sizeof *pin_out);
    pthread_mutex_lock(&cache->checkpoint_mutex);
    if (cache->pinned) {
        rc = scree__fail(SCREE_E_BUSY, "%s: another backup is under way; wait for its end",
                         cache->dir);
    } else {
        cache->pinned = true;
        cache->pin = m->generations > 0 ? m->generation[0] : (struct scree__generation){0};
        atomic_store_explicit(&cache->pin_lsn, cache->pin.replay_lsn, memory_order_relaxed);
        *pin_out = cache->pin;
    }
    pthread_mutex_unlock(&cache->checkpoint_mutex);
    return rc;
}

void
scree__snapshot_unpin(scree_cache *cache)
{
    pthread_mutex_lock(&cache->checkpoint_mutex);
    atomic_store_explicit(&cache->pin_lsn, UINT64_MAX, memory_order_relaxed); /* a figure */
    cache->pinned = false; /* its file goes with the next manifest, if no generation names it */
    pthread_mutex_unlock(&cache->checkpoint_mutex);
}

/* The log grew to start since the last snapshot, which ended earlier than now. Relaxed: hints; under
   checkpoint_mutex. */
static void
rate_note(scree_cache *cache, uint64_t start, uint64_t now_ns)
{
    uint64_t last = atomic_load_explicit(&cache->checkpoint_lsn, memory_order_relaxed);
    uint64_t ended_ns = atomic_load_explicit(&cache->checkpoint_ended_ns, memory_order_relaxed);
    double seconds = (double)(now_ns - ended_ns) / 1e9;

    if (ended_ns != 0 && start > last && now_ns > ended_ns)
        atomic_store_explicit(&cache->log_rate, (uint64_t)((double)(start - last) / seconds),
                              memory_order_relaxed);
    atomic_store_explicit(&cache->checkpoint_ended_ns, now_ns, memory_order_relaxed);
}

static void
checkpointer_wake(scree_cache *cache)
{
    atomic_fetch_add_explicit(&cache->checkpoint_asked, 1, memory_order_release);
    scree__futex_wake(&cache->checkpoint_asked, 1);
}

static int
checkpoint_locked(struct scree__context *ctx, bool again, uint64_t *lsn_out)
{
    scree_cache *cache = ctx->cache;
    uint64_t begin = cache->env->now_ns(cache->env->ctx);
    uint64_t start = scree__log_tail(cache->log), end;
    struct scree__generation g;
    int rc;

    *lsn_out = atomic_load_explicit(&cache->checkpoint_lsn, memory_order_relaxed); /* under mutex */
    if (!again && cache->manifest.generations > 0 &&
        scree__log_only_sealed_since(cache->log, cache->checkpointed_end))
        return 0;
    rc = checkpoint_write(ctx, start, &g);
    if (rc != 0) {
        scree__event(cache, SCREE_EVENT_SNAPSHOT_FAILED, rc, start, 0, scree_error_detail());
        return rc;
    }
    *lsn_out = start;
    cache->checkpointed_end = g.stable_lsn;
    end = cache->env->now_ns(cache->env->ctx);
    rate_note(cache, start, end);
    atomic_store_explicit(&cache->checkpoint_lsn, start, memory_order_relaxed);
    atomic_store_explicit(&cache->checkpoint_bytes, g.file[0].bytes, memory_order_relaxed);
    /* Relaxed: statistics. */
    atomic_fetch_add_explicit(&cache->snapshots, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cache->snapshot_bytes, g.file[0].bytes, memory_order_relaxed);
    scree__histogram_add(&cache->snapshot_ns, end - begin);
    scree__event(cache, SCREE_EVENT_SNAPSHOT, 0, start, g.file[0].bytes, "snapshot written");
    atomic_store_explicit(&cache->compact_asked, 1,
                          memory_order_relaxed); /* a hint: looked at in time */
    checkpointer_wake(cache);
    return 0;
}

static int
checkpoint(scree_cache *cache, bool again, bool full, uint64_t *lsn_out)
{
    struct scree__context *ctx = scree__context(cache);
    bool was_full;
    int rc;

    *lsn_out = 0;
    if (ctx == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for this thread's context");
    rc = scree__check_health(cache);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&cache->checkpoint_mutex);
    was_full = cache->snapshot_full;
    cache->snapshot_full |= full;
    rc = checkpoint_locked(ctx, again, lsn_out);
    if (rc != 0)
        cache->snapshot_full = was_full;
    pthread_mutex_unlock(&cache->checkpoint_mutex);
    return rc;
}

int
scree__checkpoint(scree_cache *cache, uint64_t *lsn_out)
{
    return checkpoint(cache, false, false, lsn_out);
}

int
scree__checkpoint_again(scree_cache *cache, uint64_t *lsn_out)
{
    return checkpoint(cache, true, false, lsn_out);
}

int
scree__checkpoint_full(scree_cache *cache, uint64_t *lsn_out)
{
    return checkpoint(cache, false, true, lsn_out);
}

/*
 * How much log lies between two snapshots. What dies stays on disk for up to two of them, so: a small share
 * of the dead bytes that space_amp_target allows. But a snapshot walks the whole table and writes what has
 * changed: not less than a multiple of what the last one wrote, nor than what is written in DUTY times the
 * length of that walk, as far as disk use allows.
 */
uint64_t
scree__checkpoint_volume(const scree_cache *cache)
{
    /* Relaxed: hints. */
    uint64_t file = atomic_load_explicit(&cache->checkpoint_bytes, memory_order_relaxed);
    uint64_t live = atomic_load_explicit(&cache->live_bytes, memory_order_relaxed);
    uint64_t took_ns = atomic_load_explicit(&cache->checkpoint_took_ns, memory_order_relaxed);
    uint64_t rate = atomic_load_explicit(&cache->log_rate, memory_order_relaxed);
    double slack = (cache->options.space_amp_target - 1) * (double)live;
    double duty = (double)DUTY * (double)took_ns * (double)rate / 1e9;
    uint64_t dead =
        scree__max_u64(live < DISK_BYTES_LEAST ? DISK_BYTES_LEAST - live : 0, (uint64_t)slack);
    uint64_t sparse = scree__space_sparse_allowed(cache, (uint64_t)slack);
    uint64_t most = dead > sparse ? (dead - sparse) / SCREE__VOLUMES_DEAD : 0;
    uint64_t volume = scree__max_u64(VOLUME_MIN, (uint64_t)(slack / VOLUMES_PER_SLACK));

    if (cache->options.snapshot_log_bytes != 0)
        return cache->options.snapshot_log_bytes;
    volume = scree__max_u64(volume, duty < (double)most ? (uint64_t)duty : most);
    return scree__max_u64(volume, VOLUME_PER_SNAPSHOT_BYTE * file);
}

static bool
checkpoint_due(const scree_cache *cache)
{
    uint64_t last = atomic_load_explicit(&cache->checkpoint_lsn, memory_order_relaxed); /* hints */
    uint64_t volume = scree__checkpoint_volume(cache);

    /* What cleaning leaves waits for snapshots as well: on a disk that is too full they come more often, and if
       it is far too full writers, held up, would not bring the next one soon. */
    switch (atomic_load_explicit(&cache->checkpoint_soon, memory_order_relaxed)) {
    case 0:
        break;
    case 1:
        volume /= 4;
        break;
    default:
        volume /= 16;
    }
    return scree__log_tail(cache->log) - last >= volume;
}

void
scree__checkpoint_poke(scree_cache *cache)
{
    if (!checkpoint_due(cache))
        return;
    checkpointer_wake(cache);
}

int
scree__checkpoint_drop_older(scree_cache *cache)
{
    struct scree__manifest m;
    int rc = 0;

    pthread_mutex_lock(&cache->checkpoint_mutex);
    m = cache->manifest;
    /* Twice, as the files that the manifest before names stay. */
    for (int stores = m.generations > 1 ? 2 : 0; rc == 0 && stores > 0; stores--) {
        m.generations = 1;
        m.number++;
        rc = scree__manifest_publish(cache, &m);
    }
    pthread_mutex_unlock(&cache->checkpoint_mutex);
    return rc;
}

static void *
checkpointer_main(void *arg)
{
    scree_cache *cache = arg;
    uint64_t lsn;

    while (atomic_load_explicit(&cache->checkpoint_stop, memory_order_acquire) == 0) {
        uint32_t asked = atomic_load_explicit(&cache->checkpoint_asked, memory_order_acquire);
        uint64_t pause = CHECK_NS;

        scree__guards_watch(cache);
        if (scree__log_health(cache->log) == 0 && checkpoint_due(cache)) {
            if (scree__checkpoint(cache, &lsn) != 0)
                pause = FAILED_PAUSE_NS;
            else
                scree__collector_wake(cache); /* C6 */
        }
        scree__compact(cache);
        if (atomic_load_explicit(&cache->checkpoint_stop, memory_order_acquire) == 0)
            scree__futex_wait(&cache->checkpoint_asked, asked, pause);
    }
    return NULL;
}

int
scree__checkpointer_start(scree_cache *cache)
{
    int rc = pthread_create(&cache->checkpointer, NULL, checkpointer_main, cache);

    return rc == 0 ? 0 : scree__fail(-rc, "cannot start the snapshot thread");
}

void
scree__checkpointer_stop(scree_cache *cache)
{
    atomic_store_explicit(&cache->checkpoint_stop, 1, memory_order_release);
    checkpointer_wake(cache);
    pthread_join(cache->checkpointer, NULL);
}

int
scree_snapshot(scree_cache *cache, scree_lsn *lsn_out)
{
    struct scree__context *ctx;
    uint64_t lsn = 0;
    int rc = scree__enter_call(cache, &ctx);

    if (rc == 0 && cache->read_only)
        rc = scree__fail(SCREE_E_READ_ONLY, "scree_snapshot: the cache was opened read-only");
    if (rc == 0)
        rc = scree__checkpoint(cache, &lsn);
    if (rc == 0)
        scree__collector_wake(cache); /* C6; it may wait for somebody's guard, we do not */
    if (lsn_out != NULL)
        *lsn_out = lsn;
    return scree__code_told(rc);
}
