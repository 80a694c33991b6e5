/*
 * space.c - the janitor: the thread that keeps disk use near space_amp_target * live bytes, and finds room on
 * a full disk. The collector: another, that gives back what died, when a snapshot was taken.
 *
 * STEPS  S1  collector: pick what died below the oldest retained snapshot, a grace period, drop it
 *        S2  janitor, on a full disk: snapshot, let the older generation go, S1, clean out of the reserve,
 *            again, until there is room or nothing more to be won; then tell those who wait (verdict)
 *        S3  janitor else, while too much is dead beside what lives: clean (clean.c)
 *
 * Dead bytes are of two kinds. Those in runs of granules without a live byte only wait for a snapshot to pass
 * their death (waiting_bytes); nothing has to be written for them. The rest goes by cleaning. With
 *     slack = (target - 1) * live
 * cleaning lets as much of the second kind be as the larger of slack and of  least + 2 * the log between two
 * snapshots  leaves beside the first and the room allocated ahead, but least at least: half of slack, or two
 * segments. For a small database waiting bytes may be more than all of slack, and cleaning could not help;
 * and much of what is sparse in it dies by itself before that limit. Where more is dead than slack, or than
 * least and 2.5 times that log, room for users comes with pauses. docs/impl.md, "Space", has the bound.
 *
 * WORDS  space_asked, collect_asked: futexes of the janitor and the collector. space_stop: both end.
 *        full: the log found no room. relief_vain_ns: when S2 last ended in vain. live_bytes: as of the last
 *        round of the janitor.
 * EDGES  step                              who             order                pairs
 *   J0   full = 1; relief_vain_ns: load    allocator       release; relaxed     J1
 *   J1   full: take                        janitor         exchange acquire     J0
 *   J2   asked + 1, wake                   anybody         fetch_add release    J3
 *   J3   wait while it is as seen          janitor, coll.  load acquire         J2
 *   J4   verdict                           janitor         (log/room.c)
 * INVARIANTS
 *   I1 whoever gives space back holds collect_mutex, whoever cleans clean_mutex (taken first); both are held
 *      over grace periods, so never taken in a read section.
 *   I2 a file of spare room is kept while the disk has some, also over a crash: on a full disk it makes way
 *      for the snapshot without which nothing could be given back.
 *   I3 on a full disk nothing that was won is handed out before the verdict, and spare room comes first.
 * LIFETIME both threads end before the last snapshot and the log do.
 * PROGRESS the janitor waits for the flusher, for grace periods and for snapshots; nobody waits for it but
 *          writers on a full disk, bounded in time (log/room.c).
 * FAILURE  whatever fails is tried again in a later round; told by event where it is damage.
 * NOT HERE what goes (log/collect.c), what is cleaned (log/victim.c), how (clean.c).   REFS none.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

#define TICK_NS ((uint64_t)100 * 1000 * 1000)
#define VAIN_NS ((uint64_t)100 * 1000 * 1000) /* so long a search in vain is taken for the answer */
#define VICTIMS 1024u
#define VAIN_BYTES \
    ((uint64_t)1 << 20)       /* of new log before cleaning is tried again after it won nothing */
#define CLEAN_SHARE 16        /* of slack: what one sweep of the table wins at least */
#define BEHIND_SHARE 8        /* of slack: so much too much is far too much */
#define LIVE_SHARE_MAX 0.97   /* moving more than that for what is dead is not worth it */
#define RELIEF_SHARE_MAX 0.93 /* what it costs to move it comes out of the reserve */
#define RELIEF_ROUNDS 64u
#define RELIEF_STEP_BYTES ((uint64_t)1 << 20)
#define RECLAIM_IDLE_ROUNDS 4u
#define RECLAIM_STEP_BYTES ((uint64_t)16 << 20)
#define SMALL_FILES_BYTES ((uint64_t)32 << 10)
#define SPARE_BYTES_MIN ((uint64_t)64 << 10)
#define RECOVERY_BYTES \
    ((uint64_t)64 << 10) /* of spare room left by a crash, for the segment to go on in */

#ifdef SCREE_BUG_RECLAIM_NO_GRACE
#define grace_period() ((void)0) /* seeded bug: tests must notice */
#else
#define grace_period() scree__rcu_wait()
#endif

void
scree__janitor_wake(scree_cache *cache)
{
    atomic_fetch_add_explicit(&cache->space_asked, 1, memory_order_release); /* J2 */
    scree__futex_wake(&cache->space_asked, 1);
}

void
scree__collector_wake(scree_cache *cache)
{
    atomic_fetch_add_explicit(&cache->collect_asked, 1, memory_order_release); /* J2 */
    scree__futex_wake(&cache->collect_asked, 1);
}

/* ---- giving back ------------------------------------------------------------------------------- */

/* I1. Returns how many ranges were given back. */
static void
collect_locked(scree_cache *cache, bool all)
{
    uint64_t floor = scree__feed_floor(cache, scree__checkpoint_floor(cache));
    size_t picked, dropped;

    /* With the same floor as before there is nothing new: whatever died since died above it. */
    if (floor == cache->collected_floor && !all)
        return;
    do {
        picked = scree__log_dead_pick(cache->log, floor, all);
        if (picked == 0)
            break;
        grace_period();
        dropped = scree__log_dead_drop(cache->log);
    } while (dropped == picked);
    if (picked == 0)
        cache->collected_floor = floor;
}

void
scree__space_collect(scree_cache *cache, bool all)
{
    if (scree__rcu_inside()) /* I1 */
        return;
    pthread_mutex_lock(&cache->collect_mutex);
    collect_locked(cache, all);
    pthread_mutex_unlock(&cache->collect_mutex);
}

/* ---- spare room for snapshots (I2) ------------------------------------------------------------- */

static uint64_t
spare_wanted(const scree_cache *cache)
{
    uint64_t file_bytes =
        atomic_load_explicit(&cache->generation_bytes, memory_order_relaxed); /* a figure */
    uint64_t table_bytes = scree__radix_bytes(&cache->radix) / 4 * 3;         /* about 12 a page */

    file_bytes += file_bytes / 4;
    return scree__round_up(scree__max_u64(file_bytes, table_bytes), SPARE_BYTES_MIN) +
           SPARE_BYTES_MIN + RECOVERY_BYTES;
}

/* The snapshots there are, spare room for one, one in the making beside it; manifests, mark and warning. The
   same whether the spare room is held or in use. */
void
scree__space_outside(scree_cache *cache)
{
    uint64_t spare = spare_wanted(cache);
    uint64_t retained =
        atomic_load_explicit(&cache->checkpoint_disk_bytes, memory_order_relaxed); /* a figure */

    spare = scree__max_u64(spare, cache->spare_bytes);
    scree__log_outside_bytes(cache->log, retained + 2 * spare + SMALL_FILES_BYTES);
}

/* Under clean_mutex, or alone. */
static void
spare_tell(scree_cache *cache)
{
    atomic_store_explicit(&cache->spare_held, cache->spare_bytes >= spare_wanted(cache),
                          memory_order_relaxed); /* a hint */
}

void
scree__spare_drop(scree_cache *cache)
{
    char *path = scree__path_join(cache->dir, SPARE_NAME);

    if (path == NULL)
        return;
    if (cache->env->unlink(cache->env->ctx, path) == 0)
        cache->spare_bytes = 0;
    spare_tell(cache);
    scree__path_free(path);
}

static uint64_t
spare_measure(const scree_cache *cache, int file)
{
    scree_env_info info = {0};

    return cache->env->info(cache->env->ctx, file, &info) == 0 ? info.disk_bytes : 0;
}

/* Were all of it let go, the log would take it, and a disk that was full at the crash could never be left. */
void
scree__spare_adopt(scree_cache *cache)
{
    const scree_env *env = cache->env;
    char *path = scree__path_join(cache->dir, SPARE_NAME);
    int file = path == NULL ? -1 : env->open(env->ctx, path, SCREE_ENV_WRITE);

    if (file >= 0) {
        if (spare_measure(cache, file) > RECOVERY_BYTES &&
            env->truncate(env->ctx, file, spare_measure(cache, file) - RECOVERY_BYTES) == 0)
            cache->spare_bytes = spare_measure(cache, file);
        (void)env->close(env->ctx, file); /* nothing was written */
    }
    scree__path_free(path);
    if (cache->spare_bytes == 0)
        scree__spare_drop(cache);
}

/* As much as the next snapshot and its manifest may need. Best effort: without it a full disk is only harder
   to leave. */
void
scree__spare_hold(scree_cache *cache)
{
    const scree_env *env = cache->env;
    uint64_t wanted = spare_wanted(cache);
    char *path;
    int file;

    scree__space_outside(cache);
    spare_tell(cache);
    if (cache->spare_bytes >= wanted && cache->spare_bytes <= 2 * wanted)
        return;
    wanted += wanted / 4; /* the table grows: not anew for each little step */
    path = scree__path_join(cache->dir, SPARE_NAME);
    if (path == NULL)
        return;
    file = env->open(env->ctx, path, SCREE_ENV_WRITE | SCREE_ENV_CREATE);
    if (file >= 0) {
        bool shrinks = cache->spare_bytes > wanted;

        /* What is held already is not let go for a moment: on a full disk it would be gone. Rather little
           than nothing. */
        while ((shrinks ? env->truncate(env->ctx, file, wanted)
                        : env->allocate(env->ctx, file, 0, wanted)) != 0 &&
               !shrinks && wanted > SPARE_BYTES_MIN && wanted / 2 > cache->spare_bytes)
            wanted /= 2;
        cache->spare_bytes = spare_measure(cache, file);
        (void)env->close(env->ctx, file); /* nothing was written */
    }
    scree__path_free(path);
    spare_tell(cache);
}

/* ---- how much to clean ------------------------------------------------------------------------- */

struct budget {
    struct scree__log_space space;
    uint64_t slack;
    uint64_t excess;     /* dead bytes to be won by cleaning */
    uint64_t soft, hard; /* bytes on disk: too much, far too much */
};

/* What a backup or a log reader pins is nothing that cleaning or slower writers could help: it counts apart. */
static uint64_t
less_pinned(scree_cache *cache, uint64_t bytes)
{
    uint64_t pinned = scree__checkpoint_pinned_bytes(cache);

    return bytes > pinned ? bytes - pinned : 0;
}

static void
budget_take(scree_cache *cache, double target, struct budget *b)
{
    uint64_t sparse, beside, allowed, most, volume, least;

    scree__log_space(cache->log, &b->space);
    b->space.disk_bytes = less_pinned(cache, b->space.disk_bytes);
    atomic_store_explicit(&cache->live_bytes, b->space.live_bytes,
                          memory_order_relaxed); /* paces */
    b->slack = (uint64_t)((target - 1) * (double)b->space.live_bytes);
    sparse = b->space.sparse_bytes;
    beside = b->space.disk_bytes > b->space.live_bytes + sparse
                 ? b->space.disk_bytes - b->space.live_bytes - sparse
                 : 0;
    least = scree__space_sparse_allowed(cache, b->slack);
    volume = scree__checkpoint_volume(cache);
    /* Half a volume less than may be: writers do not stop at once. */
    most = scree__max_u64(b->slack, least + SCREE__VOLUMES_DEAD * volume - volume / 2);
    /* And cleaning begins half a volume before them. */
    allowed = scree__max_u64(b->slack, most - volume / 2);
    allowed = allowed > beside ? allowed - beside : 0;
    allowed = scree__max_u64(allowed, least);
    b->excess = sparse > allowed ? sparse - allowed : 0;
    b->soft = b->space.live_bytes + most + scree__log_ahead_bytes(cache->log);
    b->hard = b->soft + b->slack / BEHIND_SHARE + volume / 2;
}

/* Clean until `dead_wanted` dead bytes lie in ranges without life. *found_out: whether any was worth it. */
static int
clean_some(struct scree__context *ctx, uint64_t dead_wanted, double live_share_max,
           _Atomic uint32_t *stop, bool *found_out, struct scree__clean_result *result)
{
    struct scree__log_victim *victims = scree__alloc(VICTIMS * sizeof *victims);
    size_t n;
    int rc = 0;

    *found_out = false;
    memset(result, 0, sizeof *result);
    if (victims == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to choose what to clean");
    n = scree__log_victims(ctx->cache->log, dead_wanted, live_share_max, victims, VICTIMS);
    if (n > 0) {
        *found_out = true;
        rc = scree__clean(ctx, victims, n, stop, result);
    }
    scree__free(victims, VICTIMS * sizeof *victims);
    return rc;
}

static struct scree__log_space
space_now(scree_cache *cache)
{
    struct scree__log_space space;

    scree__log_space(cache->log, &space);
    return space;
}

/* Not again at once after a round that won nothing, unless writers are held up for want of it. */
static bool
clean_is_due(scree_cache *cache, const struct budget *b)
{
    return scree__log_tail(cache->log) >= cache->clean_again_lsn ||
           (b->space.disk_bytes > b->soft &&
            !scree__log_only_sealed_since(cache->log, cache->cleaned_lsn));
}

/* S3. False: something failed, or there is nothing to do. */
static bool
round_clean(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    struct scree__clean_result result;
    struct budget b;
    uint64_t wanted, begun, written;
    bool found;
    int rc;

    budget_take(cache, cache->options.space_amp_target, &b);
    scree__log_throttle(cache->log, b.soft, b.hard);
    atomic_store_explicit(&cache->checkpoint_soon,
                          (b.space.disk_bytes > b.soft) + (b.space.disk_bytes > b.hard),
                          memory_order_relaxed); /* a hint */
    scree__checkpoint_poke(cache);
    /* A directory that was closed is not written to before the first update, whatever it holds. */
    if (b.excess == 0 || !scree__log_dirty(cache->log) || !clean_is_due(cache, &b))
        return false;
    wanted = scree__max_u64(b.slack / CLEAN_SHARE, cache->options.segment_bytes / 4);
    wanted += scree__min_u64(b.excess, wanted);
    begun = scree__log_tail(cache->log);
    rc = clean_some(ctx, wanted, LIVE_SHARE_MAX, &cache->space_stop, &found, &result);
    if (rc != 0 || !found)
        return false;
    /* What is left cannot be won: what we write ourselves is no reason to go on. Where writers outran us it is
       another matter, and they may be held up by now, and write nothing that would have us try again. */
    written = scree__log_tail(cache->log) - begun;
#ifdef SCREE_BUG_CLEAN_OUTRUN /* seeded: stress_burst must fail */
    written = 0;
#endif
    if (space_now(cache).sparse_bytes >= b.space.sparse_bytes &&
        written / 2 <= result.moved_bytes) {
        cache->cleaned_lsn = scree__log_tail(cache->log);
        cache->clean_again_lsn = cache->cleaned_lsn + b.slack / CLEAN_SHARE + VAIN_BYTES;
    }
    return true;
}

/* ---- a full disk (S2) -------------------------------------------------------------------------- */

/* By the log's allocator, with the first room that it takes: writers are faster than the janitor's first round
   may be, and may fill the disk before it. Who holds the mutex holds the spare room itself, later. */
static void
spare_hold_early(scree_cache *cache)
{
    if (atomic_load_explicit(&cache->spare_held, memory_order_relaxed) || /* a hint */
        pthread_mutex_trylock(&cache->clean_mutex) != 0)
        return;
    scree__spare_hold(cache);
    pthread_mutex_unlock(&cache->clean_mutex);
}

bool
scree__space_room(void *arg, bool full)
{
    scree_cache *cache = arg;
    uint64_t vain_ns = atomic_load_explicit(&cache->relief_vain_ns, memory_order_relaxed); /* J0 */
    bool runs = atomic_load_explicit(&cache->janitor_runs, memory_order_acquire);
    bool relief =
        full && runs && (vain_ns == 0 || cache->env->now_ns(cache->env->ctx) - vain_ns >= VAIN_NS);

    if (relief)
        atomic_store_explicit(&cache->full, 1, memory_order_release); /* J0 */
    if (!full && runs)
        spare_hold_early(cache);
    scree__janitor_wake(cache);
    scree__checkpoint_poke(cache);
    return relief;
}

/* The table as it is now, as the only generation: all that is dead may go. Spare room makes way for it. It is
   full: one after the other, deltas would use up the room that they are written in. */
static int
relief_snapshot(scree_cache *cache)
{
    uint64_t lsn;
    int rc = scree__checkpoint_full(cache, &lsn);

    if (rc != 0) {
        scree__spare_drop(cache);
        rc = scree__checkpoint_full(cache, &lsn);
    }
    /* No spare room: a crash came while it was in use. The older generation would go next anyway. */
    if (rc != 0 && scree__checkpoint_drop_older(cache) == 0)
        rc = scree__checkpoint_full(cache, &lsn);
    if (rc != 0)
        rc = scree__checkpoint(cache, &lsn); /* what has changed may still fit */
    return rc == 0 ? scree__checkpoint_drop_older(cache) : rc;
}

/* Under clean_mutex. True: there is more room than before. */
static bool
relief_find(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    uint64_t before = space_now(cache).disk_bytes;
    struct scree__clean_result result;
    bool found = true;
    int rc = 0;

    for (unsigned i = 0; i < RELIEF_ROUNDS && rc == 0 && found; i++) {
        if (relief_snapshot(cache) != 0)
            return false;
        scree__space_collect(cache, true);
        if (space_now(cache).disk_bytes < before)
            return true;
        rc = clean_some(ctx, RELIEF_STEP_BYTES, RELIEF_SHARE_MAX, &cache->space_stop, &found,
                        &result);
        if (rc == SCREE_E_NO_SPACE && result.moved_bytes > 0)
            rc = 0; /* the reserve is used up for now: a snapshot gives back what was won */
    }
    return false;
}

static void
round_relief(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    bool found;

    pthread_mutex_lock(&cache->clean_mutex);
    found = relief_find(ctx);
    scree__spare_hold(
        cache); /* before others take the room: without it the next search would be in vain */
    pthread_mutex_unlock(&cache->clean_mutex);
    atomic_store_explicit(&cache->relief_vain_ns, found ? 0 : cache->env->now_ns(cache->env->ctx),
                          memory_order_relaxed); /* read by J0 behind the verdict's gate */
    scree__log_room_verdict(cache->log);         /* J4 */
}

/* ---- the thread -------------------------------------------------------------------------------- */

/* False: nothing more to do until asked. */
static bool
janitor_round(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    bool again;

    if (scree__log_health(cache->log) != 0)
        return false;
    if (atomic_exchange_explicit(&cache->full, 0, memory_order_acquire) != 0) { /* J1 */
        round_relief(ctx);
        return false;
    }
    pthread_mutex_lock(&cache->clean_mutex);
    again = round_clean(ctx);
    if (scree__log_dirty(cache->log))
        scree__spare_hold(cache);
    pthread_mutex_unlock(&cache->clean_mutex);
    scree__checkpoint_poke(cache);
    return again;
}

static void *
janitor_main(void *arg)
{
    scree_cache *cache = arg;
    struct scree__context *ctx = scree__context(cache);

    if (ctx != NULL)
        ctx->background = true;
    while (ctx != NULL && atomic_load_explicit(&cache->space_stop, memory_order_acquire) == 0) {
        uint32_t asked = atomic_load_explicit(&cache->space_asked, memory_order_acquire); /* J3 */

        if (!janitor_round(ctx) &&
            atomic_load_explicit(&cache->space_stop, memory_order_acquire) == 0)
            scree__futex_wait(&cache->space_asked, asked, TICK_NS); /* J3 */
    }
    return NULL;
}

static void
collector_stop(scree_cache *cache)
{
    atomic_store_explicit(&cache->space_stop, 1, memory_order_release);
    scree__collector_wake(cache);
    pthread_join(cache->collector, NULL);
}

static void *
collector_main(void *arg)
{
    scree_cache *cache = arg;

    while (atomic_load_explicit(&cache->space_stop, memory_order_acquire) == 0) {
        uint32_t asked = atomic_load_explicit(&cache->collect_asked, memory_order_acquire); /* J3 */

        if (scree__log_health(cache->log) == 0)
            scree__space_collect(cache, false);
        if (atomic_load_explicit(&cache->space_stop, memory_order_acquire) == 0)
            scree__futex_wait(&cache->collect_asked, asked, UINT64_MAX); /* J3; waker: J2, stop */
    }
    return NULL;
}

int
scree__janitor_start(scree_cache *cache)
{
    int rc = pthread_create(&cache->collector, NULL, collector_main, cache);

    if (rc != 0)
        return scree__fail(-rc, "cannot start the collector thread");
    rc = pthread_create(&cache->janitor, NULL, janitor_main, cache);
    if (rc != 0) {
        collector_stop(cache);
        return scree__fail(-rc, "cannot start the janitor thread");
    }
    atomic_store_explicit(&cache->janitor_runs, true, memory_order_release);
    return 0;
}

void
scree__janitor_stop(scree_cache *cache)
{
    atomic_store_explicit(&cache->space_stop, 1, memory_order_release);
    scree__janitor_wake(cache);
    atomic_store_explicit(&cache->janitor_runs, false, memory_order_release);
    pthread_join(cache->janitor, NULL);
    collector_stop(cache);
}

/* ---- the call ---------------------------------------------------------------------------------- */

/* Everything that is dead now may go: two generations pass it. */
static int
reclaim_dead(scree_cache *cache)
{
    uint64_t lsn;
    int rc = 0;

    if (!scree__log_only_sealed_since(cache->log, cache->reclaimed_lsn)) {
        /* The seal ends at a block's end, and deaths are kept by block: no snapshot begins in one of them. */
        rc = scree__log_wait_stable(cache->log, scree__log_tail(cache->log), UINT64_MAX);
        for (unsigned i = 0; rc == 0 && i < SCREE__GENERATIONS_MAX; i++)
            rc = scree__checkpoint_again(cache, &lsn);
        if (rc == 0)
            cache->reclaimed_lsn = lsn;
    }
    scree__space_collect(cache, true);
    return rc;
}

/* Under clean_mutex. */
static int
reclaim(struct scree__context *ctx, double target, scree_progress_fn progress, void *arg)
{
    scree_cache *cache = ctx->cache;
    _Atomic uint32_t never = 0;
    uint64_t first = less_pinned(cache, space_now(cache).disk_bytes), least = first, damaged = 0;
    unsigned idle = 0;
    bool found = true;
    int rc = reclaim_dead(cache);

    while (rc == 0) {
        struct scree__clean_result result;
        struct budget b;
        uint64_t goal;

        budget_take(cache, target, &b);
        goal = b.space.live_bytes + b.slack;
        idle = b.space.disk_bytes < least
                   ? 0
                   : idle + 1; /* writers may outrun us, then it is in vain */
        least = scree__min_u64(b.space.disk_bytes, least);
        if (progress != NULL &&
            progress(arg, "reclaim", first - least, first > goal ? first - goal : 0) != 0)
            return scree__fail(SCREE_E_CANCELED,
                               "scree_reclaim: canceled by the progress callback");
        if (b.space.disk_bytes <= goal || !found || idle > RECLAIM_IDLE_ROUNDS)
            break;
        rc = clean_some(ctx, RECLAIM_STEP_BYTES, LIVE_SHARE_MAX, &never, &found, &result);
        damaged += result.damaged;
        if (rc == 0)
            rc = reclaim_dead(cache);
    }
    if (rc == 0 && damaged > 0)
        rc = scree__fail(SCREE_E_CORRUPT,
                         "scree_reclaim: %llu pages cannot be moved, the events tell which",
                         (unsigned long long)damaged);
    return rc;
}

int
scree_reclaim(scree_cache *cache, double space_amp_target, scree_progress_fn progress, void *arg)
{
    struct scree__context *ctx;
    int rc = scree__enter_call(cache, &ctx);

    if (rc == 0 && scree__rcu_inside())
        rc = scree__fail(SCREE_E_INVALID, "scree_reclaim: leave the read guard first; it waits for "
                                          "grace periods");
    if (rc == 0 && cache->read_only)
        rc = scree__fail(SCREE_E_READ_ONLY, "scree_reclaim: %s was opened read-only", cache->dir);
    if (rc == 0 && space_amp_target == 0)
        space_amp_target = cache->options.space_amp_target;
    if (rc == 0 && !(space_amp_target >= SPACE_AMP_MIN && space_amp_target <= SPACE_AMP_MAX))
        rc = scree__fail(SCREE_E_INVALID, "scree_reclaim: space_amp_target is %g; from %g to %g",
                         space_amp_target, SPACE_AMP_MIN, SPACE_AMP_MAX);
    if (rc == 0)
        rc = scree__check_health(cache);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&cache->clean_mutex);
    ctx->background = true; /* the janitor, who would make room, waits for us */
    rc = reclaim(ctx, space_amp_target, progress, arg);
    ctx->background = false;
    pthread_mutex_unlock(&cache->clean_mutex);
    return scree__code_told(rc);
}
