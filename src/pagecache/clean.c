/*
 * clean.c - move what lives in a range of the log to its end, so that the range is dead as a whole.
 *
 * STEPS  L1  one sweep over the page table: which pages have a record in the victims. (Where records begin
 *            cannot be told from a segment with holes.)
 *        L2  pages that lie there evicted in one record, by position: read the range in large pieces, write
 *            each record anew with the page's version (C1 of consolidate.c), let the page leave memory
 *            again when the new record is stable
 *        L3  all others (in memory, or of several records): consolidate them
 * INVARIANTS
 *   I1 a page never changes its version, nor its content, nor whether it has a base (P3, P4).
 *   I2 what L1 misses came to the log after the victims were chosen, so it lies elsewhere: victims are stable.
 *   I3 at most two batches of moved pages are in memory at a time: one being written, one waiting for the
 *      flusher.
 * WORD   a page's slot, by C1 of consolidate.c and V6 of evict.c only.
 * LIFETIME  a victim may die and be given back while it is read, and a file with it. So what does not verify in
 *   a piece is read once more by itself (pagein.c), which tells damage from a page that has moved.
 * PROGRESS  one thread. Writers of a page win: their update moved it, that is as good.
 * FAILURE   a damaged record is told by event, its segment is no victim any more, the rest is moved.
 * NOT HERE  what to clean (log/victim.c), when, and what comes of it (space.c).
 */
#include "pagecache/pagecache_private.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES_MAX ((size_t)4 << 20)
#define BATCH_PAGES 4096u
#define BATCH_BYTES_MIN ((uint64_t)256 << 10) /* each costs a sync, so a seal */
#define BATCH_BYTES_MAX ((uint64_t)8 << 20)
#define FILTER_BITS 65536u
/* A record that an evicted word can name begins at most so many granules before it ends. */
#define GRANULES_BEFORE (SLOT_LENGTH_MAX / SCREE__GRANULE_BYTES + 1)

/* A page to be moved: by its one record, or (disk_len 0) by consolidating it. */
struct item {
    scree_page_id id;
    uint64_t lsn; /* of a record of it in a victim */
    uint32_t disk_len;
};

/* Pages that were moved, to leave memory once the log is stable up to `lsn`. */
struct batch {
    scree_page_id id[BATCH_PAGES];
    uint32_t n;
    uint64_t bytes, lsn;
};

struct clean {
    struct scree__context *ctx;
    const struct scree__log_victim *victim;
    size_t victims;
    _Atomic uint32_t *stop;
    uint64_t filter[FILTER_BITS / 64]; /* by granule: may a record of a victim begin there? */
    struct item *item;
    size_t items, items_cap;
    struct batch batch[2]; /* [0] filled, [1] waiting */
    uint8_t *piece;
    size_t piece_bytes, piece_max; /* piece_max: that a piece of several records may have */
    struct scree__clean_result result;
};

/* ---- L1 ---------------------------------------------------------------------------------------- */

static void
filter_build(struct clean *c)
{
    for (size_t i = 0; i < c->victims; i++) {
        uint64_t first = c->victim[i].lsn / SCREE__GRANULE_BYTES;
        uint64_t last = (c->victim[i].lsn + c->victim[i].len - 1) / SCREE__GRANULE_BYTES;

        for (uint64_t g = first < GRANULES_BEFORE ? 0 : first - GRANULES_BEFORE; g <= last; g++)
            c->filter[g % FILTER_BITS / 64] |= (uint64_t)1 << g % 64;
    }
}

static bool
filter_has(const struct clean *c, uint64_t lsn)
{
    uint64_t g = lsn / SCREE__GRANULE_BYTES;

    return (c->filter[g % FILTER_BITS / 64] >> g % 64 & 1) != 0;
}

/* Does a victim hold a byte of [lsn, lsn + len)? */
static bool
victims_meet(const struct clean *c, uint64_t lsn, uint64_t len)
{
    size_t low = 0, high = c->victims;

    while (low < high) { /* the first victim that ends above lsn */
        size_t mid = low + (high - low) / 2;

        if (c->victim[mid].lsn + c->victim[mid].len <= lsn)
            low = mid + 1;
        else
            high = mid;
    }
    return low < c->victims && c->victim[low].lsn < lsn + len;
}

/* The first record of the node that a victim holds; 0: none. */
static uint64_t
node_meets(const struct clean *c, struct scree__node *n)
{
    const struct scree__position *p;

    if (n->positions <= 1)
        return victims_meet(c, n->lsn, n->disk_len) ? n->lsn : 0;
    p = scree__node_positions(n);
    for (uint32_t i = 0; i < n->positions; i++)
        if (victims_meet(c, p[i].lsn, p[i].disk_len))
            return p[i].lsn;
    return 0;
}

static int
item_add(struct clean *c, struct item item)
{
    struct item *grown = scree__array_reserve(c->item, &c->items_cap, c->items + 1, sizeof *grown);

    if (grown == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to list %zu pages to move", c->items + 1);
    c->item = grown;
    c->item[c->items++] = item;
    return 0;
}

static int
sweep_slot(struct clean *c, struct scree__radix_ref ref)
{
    struct item item = {.id = ref.leaf->first_id + ref.index};
    uint64_t word, version;
    int rc = scree__slot_load(c->ctx, ref, &word);

    if (rc != 0)
        return rc;
    if (slot_tag(word) == SLOT_EVICTED) {
        item.lsn = slot_evicted_lsn(word);
        if (!filter_has(c, item.lsn))
            return 0;
        if (!scree__slot_version(ref, word, &version, &item.disk_len)) {
            item.disk_len = 0; /* it changes at this moment: whatever it becomes is moved */
            return item_add(c, item);
        }
        return victims_meet(c, item.lsn, item.disk_len) ? item_add(c, item) : 0;
    }
    if (slot_tag(word) != SLOT_NODE)
        return 0;
    for (struct scree__node *n = slot_node(word); n != NULL && item.lsn == 0; n = n->next)
        item.lsn = node_meets(c, n);
    return item.lsn == 0 ? 0 : item_add(c, item);
}

static int
sweep(struct clean *c)
{
    struct scree__radix *radix = &c->ctx->cache->radix;
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(radix, 0);
    int rc = 0;

    for (; rc == 0 && leaf != NULL; leaf = scree__radix_leaf_after(radix, leaf)) {
        struct scree__radix_ref ref = {.leaf = leaf};

        scree__rcu_enter();
        for (; rc == 0 && ref.index < SCREE__RADIX_FANOUT; ref.index++) {
            if (ref.index % CHAINS_IN_STEP == 0)
                scree__slots_prefetch(ref, 0);
            rc = sweep_slot(c, ref);
        }
        scree__rcu_leave();
    }
    return rc;
}

/* Those to be consolidated first. */
static int
by_way_and_lsn(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    if ((x->disk_len == 0) != (y->disk_len == 0))
        return x->disk_len == 0 ? -1 : 1;
    return (x->lsn > y->lsn) - (x->lsn < y->lsn);
}

/* ---- batches ----------------------------------------------------------------------------------- */

/* The pages of the batch that waits may leave memory, when they are stable. */
static int
batch_finish(struct clean *c, uint64_t wait_ns)
{
    struct scree__context *ctx = c->ctx;
    struct batch *b = &c->batch[1];
    int rc = b->n == 0 ? 0 : scree__log_wait_stable(ctx->cache->log, b->lsn, wait_ns);

    for (uint32_t i = 0; rc == 0 && i < b->n; i++)
        scree__page_evict(ctx, scree__radix_find(&ctx->cache->radix, b->id[i]));
    b->n = 0;
    return rc;
}

/* I3 */
static int
batch_turn(struct clean *c)
{
    struct scree__log *log = c->ctx->cache->log;
    int rc = batch_finish(c, UINT64_MAX);

    if (rc != 0)
        return rc;
    c->batch[0].lsn = scree__log_tail(log);
    scree__log_request_stable(log, c->batch[0].lsn);
    c->batch[1] = c->batch[0];
    c->batch[0].n = 0;
    c->batch[0].bytes = 0;
    return 0;
}

static int
batch_add(struct clean *c, scree_page_id id, uint32_t bytes)
{
    uint64_t limit = scree__max_u64(c->ctx->cache->options.cache_bytes / 16, BATCH_BYTES_MIN);
    struct batch *b = &c->batch[0];

    b->id[b->n++] = id;
    b->bytes += bytes;
    if (b->n < BATCH_PAGES && b->bytes < scree__min_u64(limit, BATCH_BYTES_MAX))
        return 0;
    return batch_turn(c);
}

/* ---- L2, L3 ------------------------------------------------------------------------------------ */

/* The page cannot be read or merged: it stays, and with it what is dead around it. */
static int
item_stays(struct clean *c, const struct item *item, int code)
{
    scree_cache *cache = c->ctx->cache;

    if (code != SCREE_E_CORRUPT && code != SCREE_E_MERGE)
        return code;
    c->result.damaged += code == SCREE_E_CORRUPT;
    scree__log_victim_damaged(cache->log, item->lsn);
    scree__event(cache, SCREE_EVENT_DAMAGE, code, item->lsn, item->disk_len, scree_error_detail());
    return 0;
}

static int
item_consolidate(struct clean *c, const struct item *item)
{
    int rc = scree__page_move(c->ctx, item->id);

    return rc == 0 ? 0 : item_stays(c, item, rc);
}

/* `at`: the record's bytes, as stored; compressed ones are moved as they are. */
static int
item_move(struct clean *c, const struct item *item, const uint8_t *at)
{
    struct scree__context *ctx = c->ctx;
    struct scree__log_read read = {.page = item->id, .lsn = item->lsn, .disk_len = item->disk_len};
    struct scree__node *node;
    bool installed;
    int rc = scree__log_decode(ctx->cache->log, at, &read);

    if (rc == 0)
        rc = scree__node_from_record(ctx, &read.r, &node);
    if (rc != 0)
        return rc == SCREE_E_CORRUPT ? item_consolidate(c, item) : rc; /* looked at by itself */
    struct scree__record r = {.kind = SCREE__RECORD_CONSOLIDATED,
                              .flags = read.r.flags & SCREE__RECORD_COMPRESSED,
                              .page = item->id,
                              .version = read.r.version,
                              .payload = read.r.payload,
                              .payload_len = read.r.payload_len};

    if (node->kind == NODE_EMPTY)
        r.flags = SCREE__RECORD_NO_BASE;
    scree__record_prepare(&r);
    rc = scree__consolidated_install(ctx, scree__radix_find(&ctx->cache->radix, item->id), node, &r,
                                     SCREE__LOG_CLEAN, &installed);
    if (rc != 0)
        return rc;
    if (!installed) /* somebody's fragment is on top of it now, or it is gone */
        return item_consolidate(c, item);
    c->result.moved_bytes += r.disk_len;
    return batch_add(c, item->id, r.disk_len);
}

/* Are both in the same segment? What lies between two segments may be gone. */
static bool
near(const struct clean *c, uint64_t a, uint64_t b)
{
    uint64_t segment = c->ctx->cache->options.segment_bytes;

    return a / segment == b / segment;
}

/* How many items from `first` on one read brings in, and which bytes. */
static size_t
piece_plan(const struct clean *c, size_t first, uint64_t *from_out, size_t *len_out)
{
    uint64_t from = scree__round_down(c->item[first].lsn, SCREE_BLOCK);
    uint64_t last = 0;
    size_t n = 0;

    *from_out = from;
    for (size_t i = first; i < c->items; i++) {
        uint64_t end = scree__round_up(c->item[i].lsn + c->item[i].disk_len, SCREE_BLOCK) - from;

        if (n > 0 && (end > c->piece_max || !near(c, c->item[i].lsn, last)))
            break;
        last = c->item[i].lsn + c->item[i].disk_len - 1;
        *len_out = (size_t)end;
        n++;
    }
    return n;
}

static int
stopped(const struct clean *c)
{
    if (atomic_load_explicit(c->stop, memory_order_relaxed) == 0) /* only ends a loop */
        return 0;
    return scree__fail(SCREE_E_CANCELED, "cleaning was stopped");
}

/* The items of one read. */
static int
piece_move(struct clean *c, size_t first, size_t *n_out)
{
    struct scree__log *log = c->ctx->cache->log;
    size_t len, got = 0;
    uint64_t from;
    int rc;

    *n_out = piece_plan(c, first, &from, &len);
    SCREE_ASSERT(len <= c->piece_bytes);
    rc = scree__log_read_range(log, from, c->piece, len, &got);
    if (rc != 0)
        return rc;
    memset(c->piece + got, 0, len - got); /* what is missing does not decode */
    for (size_t i = first; rc == 0 && i < first + *n_out; i++) {
        scree__memory_admit(c->ctx);
        rc = item_move(c, &c->item[i], c->piece + (c->item[i].lsn - from));
    }
    return rc == 0 ? stopped(c) : rc;
}

static int
items_move(struct clean *c)
{
    size_t at = 0, n;
    int rc = 0;

    if (c->items > 0) /* qsort wants an array even for none */
        qsort(c->item, c->items, sizeof c->item[0], by_way_and_lsn);
    for (; rc == 0 && at < c->items && c->item[at].disk_len == 0; at++) {
        scree__memory_admit(c->ctx);
        rc = item_consolidate(c, &c->item[at]);
        if (rc == 0)
            rc = stopped(c);
    }
    for (; rc == 0 && at < c->items; at += n)
        rc = piece_move(c, at, &n);
    if (rc == 0)
        rc = batch_turn(c);
    if (rc == 0)
        (void)batch_finish(c, 0); /* those that are not stable yet leave with the clock */
    return rc;
}

int
scree__clean(struct scree__context *ctx, const struct scree__log_victim *victims, size_t n,
             _Atomic uint32_t *stop, struct scree__clean_result *result_out)
{
    struct clean *c = scree__alloc_zero(sizeof *c);
    int rc = 0;

    memset(result_out, 0, sizeof *result_out);
    if (c == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to clean the log");
    c->ctx = ctx;
    c->victim = victims;
    c->victims = n;
    c->stop = stop;
    for (size_t i = 0; i < n; i++)
        c->piece_max = victims[i].len > c->piece_max ? (size_t)victims[i].len : c->piece_max;
    c->piece_max = c->piece_max < PIECE_BYTES_MAX ? c->piece_max : PIECE_BYTES_MAX;
    c->piece_bytes = c->piece_max + SLOT_LENGTH_MAX + 2 * SCREE_BLOCK;
    c->piece = scree__alloc_aligned(SCREE_BLOCK, c->piece_bytes);
    if (c->piece == NULL)
        rc = scree__fail(SCREE_E_NO_MEMORY, "no memory to read %zu bytes of the log",
                         c->piece_bytes);
    filter_build(c);
    if (rc == 0)
        rc = sweep(c);
    if (rc == 0)
        rc = items_move(c);
    *result_out = c->result;
    scree__free(c->piece, c->piece_bytes);
    scree__free(c->item, c->items_cap * sizeof c->item[0]);
    scree__free(c, sizeof *c);
    return rc;
}
