/*
 * compact.c - merge the files of the newest generation, so that they stay few and what is loaded stays
 * small.
 *
 * With D the bytes of the deltas, and E what a full file would take now (the present one's bytes, as the number
 * of pages has changed since, but 8 bytes a page at least: a file of pages written in order packs far better
 * than it will when they have been changed):
 *   D >= E         all files become a full one. About as much is written as the deltas were.
 *   else 56 files  the 48 deltas, one behind the other, that have the fewest bytes become one delta. Up to 64
 *                  there may be, so that snapshots need not wait for it.
 *
 * STEPS  K1  under checkpoint_mutex: choose, take a number, keep the files (merging_from)
 *        K2  without it: write the merged file
 *        K3  under it: let go of them; put the file in the place of those it was made of, in a new manifest.
 *            Deltas that came behind them meanwhile stay there.
 * INVARIANTS
 *   I1 a merged file has the replay start of the newest it was made of: what the next delta adds to stays the
 *      same, and so does what may be given back (checkpoint_floor).
 *   I2 numbers are handed out in K1 and when a snapshot begins, both under checkpoint_mutex: the full file of a
 *      generation has the lowest of its numbers, a new delta the highest.
 *   I3 meanwhile no manifest deletes a file numbered as the oldest of them or above: neither those being read
 *      nor the one being written.
 * LIFETIME of a merged file: it goes with the next manifest that does not name it, as any does.
 * PROGRESS on the checkpointer's thread; snapshots go on beside K2, and writers never wait. Given up when the
 *          cache closes.
 * FAILURE  the file in the making is removed, the generations stay, it is tried again after the next snapshot.
 *          Nothing is merged while there is no spare room for snapshots (space.c I2): the disk is full, or
 *          nearly.
 *          Damage is told by event, and the next snapshot is full.
 * NOT HERE how (snapshot/merge.c), snapshots (checkpoint.c).
 */
#include "pagecache/pagecache_private.h"

#include <errno.h>
#include <string.h>

#define FILES_AT 56u
#define DELTAS_MERGED 48u
#define FULL_BYTES_PER_PAGE 8u

static_assert(DELTAS_MERGED < FILES_AT && FILES_AT < SCREE__GENERATION_FILES_MAX,
              "there is a run of deltas, and room for more beside");

/* ---- K1 -------------------------------------------------------------------------------------- */

/* The deltas that take the fewest bytes, so many in a row. */
static uint32_t
cheapest_run(const struct scree__generation *g)
{
    uint64_t bytes = 0, least = UINT64_MAX;
    uint32_t first = 1;

    for (uint32_t i = 1; i < g->files; i++) {
        bytes += g->file[i].bytes;
        if (i > DELTAS_MERGED)
            bytes -= g->file[i - DELTAS_MERGED].bytes;
        if (i >= DELTAS_MERGED && bytes < least) {
            least = bytes;
            first = i + 1 - DELTAS_MERGED;
        }
    }
    return first;
}

/* E */
static uint64_t
full_expected(const scree_cache *cache, const struct scree__generation *g)
{
    double bytes = (double)g->file[0].bytes;

    if (cache->full_pages > 0)
        bytes *= (double)cache->table_pages / (double)cache->full_pages;
    return scree__max_u64((uint64_t)bytes, FULL_BYTES_PER_PAGE * cache->table_pages);
}

/* False: nothing to be merged. */
static bool
merge_choose(const scree_cache *cache, const struct scree__generation *g,
             struct scree__snapshot_merge *what)
{
    uint64_t deltas = scree__generation_bytes(g) - g->file[0].bytes;

    what->first = 0;
    what->n = g->files;
    if (g->files > 1 && deltas >= full_expected(cache, g))
        return true;
    what->first = cheapest_run(g);
    what->n = DELTAS_MERGED;
    return g->files >= FILES_AT;
}

/* True: *what is to be merged, its generation in *g, and that one's files stay. */
static bool
merge_begin(scree_cache *cache, struct scree__generation *g, struct scree__snapshot_merge *what)
{
    bool found = false;

    memset(what, 0, sizeof *what);
    pthread_mutex_lock(&cache->checkpoint_mutex);
    if (cache->manifest.generations > 0) {
        *g = cache->manifest.generation[0];
        found = merge_choose(cache, g, what);
    }
    if (found) {
        cache->merging_from = g->file[0].number; /* I3 */
        memcpy(what->uuid, cache->manifest.uuid, sizeof what->uuid);
        what->generation = g;
        what->number = ++cache->snapshot_number; /* I2 */
        what->stop = &cache->checkpoint_stop;
    }
    pthread_mutex_unlock(&cache->checkpoint_mutex);
    return found;
}

/* ---- K3 -------------------------------------------------------------------------------------- */

/* g with `made` in the place of what it was made of. False: these are not in g any more. */
static bool
run_replace(struct scree__generation *g, const struct scree__snapshot_merge *what,
            const struct scree__snapshot_file *made)
{
    uint32_t behind = what->first + what->n;

    if (g->files < behind)
        return false;
    for (uint32_t i = what->first; i < behind; i++) {
        if (g->file[i].number != what->generation->file[i].number)
            return false;
    }
    g->file[what->first] = *made;
    memmove(&g->file[what->first + 1], &g->file[behind], (g->files - behind) * sizeof *made);
    g->files -= what->n - 1;
    memset(&g->file[g->files], 0, (what->n - 1) * sizeof *made);
    return true;
}

/* Under checkpoint_mutex. */
static int
merge_publish(scree_cache *cache, const struct scree__snapshot_merge *what,
              const struct scree__snapshot_file *made, uint64_t pages)
{
    struct scree__manifest m = cache->manifest;
    int rc;

    if (m.generations == 0 || !run_replace(&m.generation[0], what, made)) {
        scree__snapshot_remove(cache->env, cache->dir,
                               made->number); /* a full snapshot came between */
        return 0;
    }
    m.number++;
    rc = scree__manifest_publish(cache, &m);
    if (rc == 0 && what->first == 0)
        cache->full_pages = pages;
    return rc;
}

static bool
is_damage(int rc)
{
    return rc == SCREE_E_CORRUPT || rc == SCREE_E_FORMAT || rc == -ENOENT;
}

void
scree__compact(scree_cache *cache)
{
    struct scree__generation g, made;
    struct scree__snapshot_merge what;
    uint64_t pages;
    int rc;

    if (atomic_exchange_explicit(&cache->compact_asked, 0, memory_order_relaxed) == 0 ||
        !atomic_load_explicit(&cache->spare_held, memory_order_relaxed) || /* a hint */
        !merge_begin(cache, &g, &what))
        return;
    rc = scree__snapshot_merge(cache->env, cache->dir, &what, &made, &pages);
    if (rc == 0) {
        /* Relaxed: statistics. */
        atomic_fetch_add_explicit(&cache->snapshot_bytes, made.file[0].bytes, memory_order_relaxed);
        atomic_fetch_add_explicit(&cache->snapshot_merge_bytes, made.file[0].bytes,
                                  memory_order_relaxed);
    }
    pthread_mutex_lock(&cache->checkpoint_mutex);
    cache->merging_from = UINT64_MAX;
    if (rc == 0)
        rc = merge_publish(cache, &what, &made.file[0], pages);
    else if (is_damage(rc))
        cache->snapshot_full = true;
    pthread_mutex_unlock(&cache->checkpoint_mutex);
    SCREE_ASSERT(rc != SCREE_E_INVALID); /* what is merged is as checked as what is loaded */
    if (is_damage(rc))
        scree__event(cache, SCREE_EVENT_SNAPSHOT_FAILED, rc, g.replay_lsn, 0, scree_error_detail());
}
