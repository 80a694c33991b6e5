/*
 * pressure.c - pages in memory stay under cache_bytes: a thread makes room ahead of need, and who finds none
 * helps.
 *
 *     0                                      low     high    limit   cache_bytes
 *     |--------------------------------------|-------|-------|-------|
 *                              the evictor stops      wakes   callers help; outside guards they wait
 *
 *   limit keeps a distance from cache_bytes, for what threads have not passed on yet (charge_step each).
 *
 * WORD   cache.resident_bytes (fragment.c); cache.evict_asleep: 1 while the evictor sleeps, a futex;
 *        cache.evict_stop: set once, a futex.
 * EDGES  (columns: step, who may, order, pairs with, if it loses)
 *   M1   resident_bytes + n, then load evict_asleep   any thread   seq_cst         M2   -
 *   M2   evict_asleep := 1, then load resident_bytes, the evictor  seq_cst         M1   -
 *        evict_stop                                                                M4
 *   M3   evict_asleep 1 -> 0, wake                    any thread   CAS relaxed     M3   another wakes it
 *   M4   evict_stop := 1, then load evict_asleep      close        seq_cst         M2   -
 *   Store-load pairs M1 and M4 with M2: either they see the sleeper, or it sees the bytes, or the stop.
 * INVARIANTS
 *   I1 resident_bytes is at most cache_bytes, a 32nd of it (8 MiB at most) for pages that are consolidated
 *      in order to leave, and for each thread in a call one page and a 256th (32 KiB at most). Beyond
 *      that go only writers inside a guard (I2), and what cannot leave at all: counted, over_memory.
 *   I2 inside a guard nobody waits here: it helps a little, and goes over.
 *   I3 what is too young to leave is waited for through the flusher, which waits for nobody here.
 * LIFETIME the evictor is a thread like others, with a context of its own; it ends before the log does.
 * PROGRESS helping is bounded in steps of the hand, waiting in time. The evictor sleeps until a charge
 *          crosses `high` (M1; below it that costs nothing) or close ends it; where nothing can leave it
 *          pauses, longer each time.
 * FAILURE  no memory for the evictor's context: it tries again; meanwhile callers do its work.
 * NOT HERE how a page leaves (evict.c), which (clock.h).   REFS none.
 */
#include "pagecache/pagecache_private.h"

/* A page of more records is consolidated rather than left as a ghost of so many positions. */
#define GHOST_POSITIONS_MAX 4u
#define HELP_STEPS 64u
#define HELP_BYTES_MAX ((uint64_t)128 << 10)
#define HARD_TURNS 5u /* what is hot and referenced leaves in the fifth */
#define ADMIT_ROUNDS 500u
#define WAIT_NS ((uint64_t)4 * 1000 * 1000)
#define WAIT_HELD_NS ((uint64_t)100 * 1000 * 1000)
#define PAUSE_NS_MIN ((uint64_t)5 * 1000 * 1000)
#define PAUSE_NS_MAX ((uint64_t)1000 * 1000 * 1000)
#define HEADROOM_MAX ((uint64_t)4 << 20)

/* How hard a thread tries, one after the other until something leaves. */
enum effort {
    EFFORT_HELP, /* a few steps */
    EFFORT_TURN, /* a whole turn */
    EFFORT_HARD, /* whatever the heat, and ghosts too */
    EFFORTS
};

static uint64_t
headroom(const scree_cache *cache)
{
    return scree__min_u64(cache->options.cache_bytes / 64, HEADROOM_MAX);
}

static int64_t
limit_bytes(const scree_cache *cache)
{
    return (int64_t)(cache->options.cache_bytes - 2 * cache->charge_step);
}

int64_t
scree__memory_high(const scree_cache *cache)
{
    return limit_bytes(cache) - (int64_t)headroom(cache);
}

static int64_t
low_bytes(const scree_cache *cache)
{
    return limit_bytes(cache) - 2 * (int64_t)headroom(cache);
}

static int64_t
resident(scree_cache *cache)
{
    /* Relaxed: a limit, kept by everybody a little. */
    return atomic_load_explicit(&cache->resident_bytes, memory_order_relaxed);
}

static bool
over_limit(scree_cache *cache)
{
    return resident(cache) > limit_bytes(cache);
}

/* Unlinked memory waits for grace periods; more than this and its makers wait too. */
static bool
retired_over(scree_cache *cache)
{
    uint64_t limit = cache->options.cache_bytes / 8;

    if (limit < ((uint64_t)4 << 20))
        limit = (uint64_t)4 << 20;
    return atomic_load_explicit(&cache->retired_bytes, memory_order_relaxed) > limit;
}

/* What a helper takes out: a little more than is over, or every call would help. */
static uint64_t
help_bytes(scree_cache *cache)
{
    uint64_t some = headroom(cache) < HELP_BYTES_MAX ? headroom(cache) : HELP_BYTES_MAX;
    int64_t over = resident(cache) - limit_bytes(cache);

    return some + (over > 0 ? (uint64_t)over : 0);
}

/* The hardest effort won nothing: until something leaves, callers only help a little. Relaxed: a hint. */
static bool
is_stuck(scree_cache *cache)
{
    return atomic_load_explicit(&cache->stuck, memory_order_relaxed) != 0;
}

static void
stuck_set(scree_cache *cache, bool stuck)
{
    if (is_stuck(cache) != stuck)
        atomic_store_explicit(&cache->stuck, stuck, memory_order_relaxed);
}

/* ---- callers that find no room --------------------------------------------------------------- */

/* What can be had in a few steps, without waiting. */
static void
help_a_little(struct scree__context *ctx, struct scree__sweep *sweep)
{
    scree_cache *cache = ctx->cache;

    sweep->wanted = help_bytes(cache);
    sweep->steps_max = HELP_STEPS;
    scree__sweep_run(ctx, sweep);
    if (sweep->bytes == 0) {
        sweep->hard = true;
        sweep->steps_max = 2 * HELP_STEPS;
        scree__sweep_run(ctx, sweep);
    }
    if (sweep->bytes > 0 || sweep->young_bytes > 0)
        stuck_set(cache, false);
    if (sweep->bytes == 0 && sweep->young_bytes > 0) /* for the next one who asks */
        scree__log_request_stable(cache->log, scree__log_tail(cache->log));
}

void
scree__memory_relieve(struct scree__context *ctx)
{
    struct scree__sweep sweep = {.depth_max = UINT64_MAX};

    if (!over_limit(ctx->cache))
        return;
    scree__count(ctx, COUNT_EVICT_HELPS, 1);
    help_a_little(ctx, &sweep);
}

/* Do ghosts take half of the cache, by those that a sweep met? Relaxed: a hint. */
static void
ghosts_judge(scree_cache *cache, const struct scree__sweep *sweep)
{
    uint64_t all;

    if (sweep->steps == 0)
        return;
    all = sweep->ghost_bytes / sweep->steps * scree__sweep_turn(cache);
    atomic_store_explicit(&cache->ghosts_fill, all > cache->options.cache_bytes / 2,
                          memory_order_relaxed);
}

/* What was consolidated shall leave before the next is; what is too young may be waited for, a little. */
static bool
wait_for_flusher(struct scree__context *ctx, struct scree__sweep *sweep)
{
    struct scree__log *log = ctx->cache->log;
    uint64_t limit_ns = sweep->consolidated > 0 ? WAIT_HELD_NS : WAIT_NS;
    int rc = scree__log_wait_stable(log, scree__log_tail(log), limit_ns);

    scree__sweep_finish(ctx, sweep);
    return rc == 0 || rc == SCREE_E_TIMEOUT;
}

/* What left memory so far, by anybody. */
static uint64_t
left_bytes(scree_cache *cache)
{
    return atomic_load_explicit(&cache->left_bytes, memory_order_relaxed); /* only compared */
}

/* One sweep, and a wait if it could have won more. Outside read sections. False: nothing left, taken by
   whomever, nor will by waiting. */
static bool
make_room(struct scree__context *ctx, enum effort effort, uint64_t wanted)
{
    scree_cache *cache = ctx->cache;
    uint64_t turn = scree__sweep_turn(cache);
    struct scree__sweep sweep = {.wanted = wanted,
                                 .held_max = 2 * headroom(cache),
                                 .depth_max = GHOST_POSITIONS_MAX,
                                 .hard = effort == EFFORT_HARD};
    uint64_t left = left_bytes(cache);
    bool hope = false;

    sweep.steps_max = effort == EFFORT_HELP ? HELP_STEPS : turn;
    if (effort == EFFORT_HARD)
        sweep.steps_max *= HARD_TURNS;
    sweep.ghosts_too = effort == EFFORT_HARD ||
                       atomic_load_explicit(&cache->ghosts_fill, memory_order_relaxed) != 0;
    if (cache->read_only) { /* nothing can be written */
        sweep.ghosts_too = false;
        sweep.depth_max = UINT64_MAX;
    }
    scree__sweep_run(ctx, &sweep);
    ghosts_judge(cache, &sweep);
    if (sweep.consolidated > 0 ||
        (sweep.bytes < wanted && (sweep.young_bytes > 0 || sweep.crowded)))
        hope = wait_for_flusher(ctx, &sweep);
    hope |= left != left_bytes(cache);
    if (sweep.bytes > 0 || effort == EFFORT_HARD)
        stuck_set(cache, !hope);
    return hope;
}

/* Until there is room or none can be had. */
static void
admit_wait(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    unsigned effort = EFFORT_HELP;

    for (unsigned round = 0; over_limit(cache) && effort < EFFORTS && round < ADMIT_ROUNDS;
         round++) {
        if (make_room(ctx, (enum effort)effort, help_bytes(cache)))
            effort = EFFORT_HELP;
        else
            effort++;
    }
}

void
scree__memory_admit(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    bool guarded;

    if (!retired_over(cache) && !over_limit(cache))
        return;
    guarded = scree__rcu_inside();
    if (!guarded && retired_over(cache))
        scree__reclaimer_wait(cache);
    if (!over_limit(cache))
        return;
#ifdef SCREE_BUG_NO_ADMISSION /* seeded: stress_memory must fail */
    return;
#endif
    scree__count(ctx, COUNT_EVICT_HELPS, 1);
    if (guarded || is_stuck(cache)) {
        /* held_max 0: deep pages are left to the evictor. */
        struct scree__sweep sweep = {.depth_max = GHOST_POSITIONS_MAX};

        help_a_little(ctx, &sweep);
    } else {
        admit_wait(ctx);
    }
    if (over_limit(cache))
        scree__count(ctx, COUNT_OVER_MEMORY, 1);
}

/* ---- the evictor ------------------------------------------------------------------------------ */

static bool
evictor_stopped(scree_cache *cache)
{
    return atomic_load_explicit(&cache->evict_stop, memory_order_seq_cst) != 0; /* M2 */
}

/* Dirty pages cannot leave: have them written before they are most of what there is. */
static void
flush_ahead(scree_cache *cache)
{
    uint64_t tail = scree__log_tail(cache->log);

    if (!cache->read_only && tail - scree__log_stable(cache->log) > cache->options.cache_bytes / 4)
        scree__log_request_stable(cache->log, tail);
}

/* From above `high` down to `low`. False: not to be had now. */
static bool
evictor_work(struct scree__context *ctx)
{
    scree_cache *cache = ctx->cache;
    unsigned effort = EFFORT_TURN;

    if (resident(cache) <= scree__memory_high(cache))
        return true;
    while (effort < EFFORTS && resident(cache) > low_bytes(cache) && !evictor_stopped(cache)) {
        flush_ahead(cache);
        if (make_room(ctx, (enum effort)effort, (uint64_t)(resident(cache) - low_bytes(cache))))
            effort = EFFORT_TURN;
        else
            effort++;
    }
    scree__retired_hand_over(ctx);
    return effort < EFFORTS;
}

static void *
evictor_main(void *arg)
{
    scree_cache *cache = arg;
    uint64_t pause_ns = PAUSE_NS_MIN;

    while (!evictor_stopped(cache)) {
        struct scree__context *ctx = scree__context(cache);

        if (ctx != NULL) {
            ctx->background = true;
            atomic_store_explicit(&ctx->gives_away, true, memory_order_relaxed); /* a hint */
        }
        if (ctx != NULL && evictor_work(ctx)) {
            pause_ns = PAUSE_NS_MIN;
        } else {
            scree__futex_wait(&cache->evict_stop, 0, pause_ns);
            pause_ns = pause_ns * 2 < PAUSE_NS_MAX ? pause_ns * 2 : PAUSE_NS_MAX;
        }
        /* M2 */
        atomic_store_explicit(&cache->evict_asleep, 1, memory_order_seq_cst);
        if (atomic_load_explicit(&cache->resident_bytes, memory_order_seq_cst) <=
                scree__memory_high(cache) &&
            !evictor_stopped(cache))
            scree__futex_wait(&cache->evict_asleep, 1, UINT64_MAX);
        /* Relaxed: M3 may have done it. */
        atomic_store_explicit(&cache->evict_asleep, 0, memory_order_relaxed);
    }
    return NULL;
}

void
scree__evictor_wake(scree_cache *cache)
{
    uint32_t asleep = 1;

    if (atomic_load_explicit(&cache->evict_asleep, memory_order_seq_cst) == 0) /* M1, M4 */
        return;
    /* M3. Relaxed: it only picks one of several wakers. */
    if (atomic_compare_exchange_strong_explicit(&cache->evict_asleep, &asleep, 0,
                                                memory_order_relaxed, memory_order_relaxed))
        scree__futex_wake(&cache->evict_asleep, 1);
}

int
scree__evictor_start(scree_cache *cache)
{
    int rc = pthread_create(&cache->evictor, NULL, evictor_main, cache);

    return rc == 0 ? 0 : scree__fail(-rc, "cannot start the eviction thread");
}

void
scree__evictor_stop(scree_cache *cache)
{
    atomic_store_explicit(&cache->evict_stop, 1, memory_order_seq_cst); /* M4 */
    scree__futex_wake(&cache->evict_stop, 1);
    scree__evictor_wake(cache);
    pthread_join(cache->evictor, NULL);
}
