/*
 * pagein.c - bring an evicted page's records from the log back into memory.
 *
 * WORD   the page's slot.   reads[i]: a list of the pages being read, by a hash of their id; under its mutex.
 *        reads[i].ended: futex, counts the reads that left the list.
 * EDGES  (columns: step, who may, order, pairs with, if it loses)
 *   P1   evicted or chain-over-ghost -> chain  any thread   CAS release       every reader  drop what was read
 *   P2   enter the list, then load the slot    the reader   mutex, load acquire   P3   gone: look again
 *   P3   leave the list, ended + 1, wake       the reader   mutex, fetch_add relaxed   P2, P4   cannot
 *   P4   found in the list: wait for P3        the others   mutex, load relaxed   P3   look again
 *        Many pages at a time are in the list at once, and are read side by side. Who has one there does not
 *        wait for another (P4): it leaves out what it finds in the list.
 * INVARIANTS
 *   I1 a record's bytes at an lsn never change while they are live; what P1 installs is what the
 *      slot stood for when it was loaded, as the slot is still the same word (loaded in this read
 *      section: no ABA).
 *   I2 a slot that has not moved names live records: a read that fails its checksum while the slot
 *      stands is damage; if the slot moved, the bytes may have been given back meanwhile and the
 *      failure means nothing.
 *   I3 of those who want the same word of the same page, one reads. Who finds no reader in the list
 *      (P2) and the slot still at the word is the first one since the word came: the one before
 *      would have installed (P1) before it left (P3).
 * LIFETIME entries of a list are on their readers' stacks: touched under the mutex only, and not by
 *          those who wait, who know them by a number. The records' buffers are private; nodes as in
 *          fragment.c. The read happens inside the caller's read section, so the bytes it reads
 *          cannot be given back before it ends (space needs a grace period).
 * PROGRESS one round of I/O; if P1 loses, somebody else changed the page. Who waits in P4 is woken by P3
 *          and looks again, by itself, every READ_WAIT_NS; it may be inside a guard, as the reader
 *          waits for the device only, never for a grace period.
 *          No circle: who waits has no entry in a list (P4).
 * FAILURE  CORRUPT, -errno, NO_MEMORY: the slot is as it was. Only the reader is told; those who waited
 *          find the slot as it was, and the first of them reads. Of many pages nobody is told: who needs
 *          one and finds it missing reads it by itself.
 * NOT HERE choosing what to evict (evict.c).   REFS none.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

#define READ_BYTES_KEPT ((size_t)16 << 10) /* of each of READS_KEPT buffers */
#define READ_WAIT_NS ((uint64_t)100 * 1000 * 1000)

/* ---- reads in flight --------------------------------------------------------------------------- */

struct scree__reading {
    struct scree__reading *next;
    scree_page_id id;
    uint64_t word;
    uint64_t number; /* of its list, never again */
};

void
scree__reads_init(scree_cache *cache)
{
    for (unsigned i = 0; i < READ_LISTS; i++)
        pthread_mutex_init(&cache->reads[i].mutex, NULL);
}

void
scree__reads_destroy(scree_cache *cache)
{
    for (unsigned i = 0; i < READ_LISTS; i++)
        pthread_mutex_destroy(&cache->reads[i].mutex);
}

static struct scree__reads *
reads_of(scree_cache *cache, scree_page_id id)
{
    return &cache->reads[id * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (READ_LISTS - 1)];
}

/* P4, under the mutex, which is let go while waiting. */
static void
reading_await(struct scree__reads *reads, uint64_t number)
{
    const struct scree__reading *r;

    do {
        uint32_t seen = atomic_load_explicit(&reads->ended, memory_order_relaxed); /* the mutex */

        reads->waiters++;
        pthread_mutex_unlock(&reads->mutex);
        scree__futex_wait(&reads->ended, seen, READ_WAIT_NS);
        pthread_mutex_lock(&reads->mutex);
        reads->waiters--;
        for (r = reads->first; r != NULL && r->number != number; r = r->next)
            ;
    } while (r != NULL);
}

/* False: another thread was reading the same, and is done (without `wait`: may still be reading). */
static bool
reading_begin(struct scree__reads *reads, struct scree__reading *me, bool wait)
{
    const struct scree__reading *r;

    pthread_mutex_lock(&reads->mutex);
    for (r = reads->first; r != NULL && (r->id != me->id || r->word != me->word); r = r->next)
        ;
#ifdef SCREE_BUG_READ_TWICE
    r = NULL; /* seeded: everybody reads */
#endif
    if (r == NULL) { /* P2 */
        me->number = reads->number++;
        me->next = reads->first;
        reads->first = me;
    } else if (wait) {
        reading_await(reads, r->number);
    }
    pthread_mutex_unlock(&reads->mutex);
    return r == NULL;
}

/* P3 */
static void
reading_end(struct scree__reads *reads, const struct scree__reading *me)
{
    struct scree__reading **at = &reads->first;
    bool waiters;

    pthread_mutex_lock(&reads->mutex);
    while (*at != me)
        at = &(*at)->next;
    *at = me->next;
    atomic_fetch_add_explicit(&reads->ended, 1, memory_order_relaxed); /* the mutex */
    waiters = reads->waiters > 0;
    pthread_mutex_unlock(&reads->mutex);
    if (waiters)
        scree__futex_wake(&reads->ended, INT32_MAX);
}

/* ---- a page on its way in ---------------------------------------------------------------------- */

struct arrival {
    struct scree__reading me; /* the page, and what its slot stood for */
    struct scree__radix_ref ref;
    struct scree__node *terminal; /* the ghost, if there is one */
    uint64_t version;
    size_t first, n; /* its cold records among those that are read together */
};

/* From the collected chain, which stays as it is until arrival_aim. */
static void
arrival_init(struct arrival *a, scree_page_id id, struct scree__radix_ref ref, uint64_t word,
             const struct scree__chain *chain)
{
    *a = (struct arrival){
        .me = {.id = id, .word = word},
        .ref = ref,
        .terminal = chain->terminal,
        .version = chain->version,
        .n = chain->positions_n - chain->n, /* those of the ghost; deltas above it are in memory */
    };
}

static void
arrival_aim(const struct arrival *a, const struct scree__chain *chain,
            struct scree__log_read *reads)
{
    for (size_t i = 0; i < a->n; i++) {
        reads[i].page = a->me.id;
        reads[i].lsn = chain->positions[i].lsn;
        reads[i].disk_len = chain->positions[i].disk_len;
    }
}

/* P2, I2. Acquire: what the last reader installed; whoever moved the slot did so before the bytes went. */
static bool
arrival_moved(const struct arrival *a)
{
    return atomic_load_explicit(scree__radix_word(a->ref), memory_order_acquire) != a->me.word;
}

/* ---- nodes from records ------------------------------------------------------------------------ */

static int
corrupt_record(const struct scree__record *r, const char *what)
{
    return scree__fail(SCREE_E_CORRUPT, "page %llu: the record at lsn %llu (kind %u, %u bytes) %s",
                       (unsigned long long)r->page, (unsigned long long)r->lsn, r->kind,
                       r->payload_len, what);
}

/* What kind of node a record becomes; 0: none. */
static uint8_t
node_kind_of(const struct scree__record *r, size_t len)
{
    switch (r->kind) {
    case SCREE__RECORD_ALLOCATE:
        return len == 0 ? NODE_EMPTY : NODE_BASE;
    case SCREE__RECORD_SET:
    case SCREE__RECORD_CONSOLIDATED:
        return r->flags & SCREE__RECORD_NO_BASE ? NODE_EMPTY : NODE_BASE;
    case SCREE__RECORD_DELTA:
        return NODE_DELTA;
    default:
        return 0;
    }
}

int
scree__node_from_record(struct scree__context *ctx, const struct scree__record *r,
                        struct scree__node **node_out)
{
    struct scree__node *node;
    uint32_t len;
    int rc = scree__record_raw_len(r, &len);

    *node_out = NULL;
    if (rc != 0)
        return rc;
    if (node_kind_of(r, len) == 0)
        return corrupt_record(r, "cannot belong to a page");
    node = scree__node_new(ctx, node_kind_of(r, len), len, 1);
    if (node == NULL)
        return SCREE_E_NO_MEMORY;
    node->lsn = r->lsn;
    node->version = r->version;
    node->disk_len = r->disk_len;
    rc = scree__record_unpack(r, node->payload, len);
    if (rc != 0)
        scree__node_discard(ctx, node);
    else
        *node_out = node;
    return rc;
}

static void
chain_discard(struct scree__context *ctx, struct scree__node *head)
{
    while (head != NULL) {
        struct scree__node *next = head->next;

        scree__node_discard(ctx, head);
        head = next;
    }
}

/* Private nodes for n checked records, oldest first; the newest is the head. */
static int
chain_from_records(struct scree__context *ctx, const struct scree__log_read *reads, size_t n,
                   struct scree__node **head_out)
{
    struct scree__node *node, *head = NULL;
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = scree__node_from_record(ctx, &reads[i].r, &node);
        if (rc == 0) {
            node->next = head;
            head = node;
            if ((node->kind == NODE_DELTA) != (i > 0))
                rc = corrupt_record(&reads[i].r, "is out of place in its page");
        }
    }
    if (rc != 0) {
        chain_discard(ctx, head);
        head = NULL;
    }
    *head_out = head;
    return rc;
}

/* Private copies of the deltas that sit on the ghost, on top of what was read. */
static struct scree__node *
chain_copy_deltas(struct scree__context *ctx, struct scree__node *from,
                  struct scree__node *terminal, struct scree__node *below)
{
    struct scree__node *head = NULL;
    struct scree__node **link = &head;

    for (; from != terminal; from = from->next) {
        struct scree__node *copy = scree__node_new(ctx, NODE_DELTA, from->payload_len, 1);

        if (copy == NULL) {
            *link = NULL;
            chain_discard(ctx, head);
            return NULL;
        }
        copy->lsn = from->lsn;
        copy->version = from->version;
        copy->disk_len = from->disk_len;
        memcpy(copy->payload, from->payload, from->payload_len);
        *link = copy;
        link = &copy->next;
    }
    *link = below;
    return head;
}

/* P1 */
static void
page_install(struct scree__context *ctx, const struct arrival *a, struct scree__node *head)
{
    uint64_t seen = a->me.word;

#ifdef SCREE_BUG_NO_PROBATION /* seeded: bench_eviction must notice */
    scree__radix_mark_set(a->ref, SLOT_REFERENCED);
#endif
#ifdef SCREE_BUG_PAGEIN_MOVED /* seeded: over whatever is there by now; sched_pairs must fail */
    seen = atomic_load_explicit(scree__radix_word(a->ref), memory_order_acquire);
#endif
    SCREE_YIELD_POINT();
    if (!atomic_compare_exchange_strong_explicit(
            scree__radix_word(a->ref), &seen, slot_from_node(head, slot_depth(a->me.word)),
            memory_order_release, memory_order_relaxed)) { /* LP */
        chain_discard(ctx, head);
        return;
    }
    if (slot_tag(a->me.word) == SLOT_NODE)
        scree__chain_retire(ctx, slot_node(a->me.word));
}

static int
page_build(struct scree__context *ctx, const struct arrival *a, const struct scree__log_read *reads)
{
    struct scree__node *head, *above;
    uint64_t word = a->me.word;
    int rc = chain_from_records(ctx, reads, a->n, &head);

    if (rc != 0)
        return rc;
    if (slot_tag(word) == SLOT_NODE && slot_node(word) != a->terminal) {
        above = chain_copy_deltas(ctx, slot_node(word), a->terminal, head);
        if (above == NULL) {
            chain_discard(ctx, head);
            return SCREE_E_NO_MEMORY;
        }
        head = above;
    }
    if (head->version != a->version) {
        chain_discard(ctx, head);
        return corrupt_record(&reads[a->n - 1].r, "is of another version than the page table says");
    }
    page_install(ctx, a, head);
    return 0;
}

/* Its records have been read, with this result. */
static int
page_arrives(struct scree__context *ctx, const struct arrival *a,
             const struct scree__log_read *reads, int rc)
{
    if (rc == 0)
        return page_build(ctx, a, reads);
    return arrival_moved(a) ? 0 : rc; /* I2 */
}

/* ---- one page ---------------------------------------------------------------------------------- */

static int
page_read(struct scree__context *ctx, const struct arrival *a)
{
    struct scree__log_read *reads =
        a->n <= READS_KEPT ? ctx->read : scree__alloc_zero(a->n * sizeof *reads);
    int rc;

    if (reads == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to read page %llu",
                           (unsigned long long)a->me.id);
    arrival_aim(a, &ctx->chain, reads);
    rc = page_arrives(ctx, a, reads, scree__log_read(ctx->cache->log, reads, a->n));
    for (size_t i = 0; i < a->n; i++)
        if (a->n > READS_KEPT || reads[i].buffer_bytes > READ_BYTES_KEPT)
            scree__log_read_done(&reads[i], 1);
    if (a->n > READS_KEPT)
        scree__free(reads, a->n * sizeof *reads);
    return rc;
}

int
scree__page_in(struct scree__context *ctx, scree_page_id id, struct scree__radix_ref ref,
               uint64_t word)
{
    struct arrival a;
    uint64_t begin = scree__phase_begin(ctx);
    int rc = scree__chain_collect(ctx, ref, word, &ctx->chain);

    if (rc != 0)
        return rc == SCREE_E_BUSY ? 0 : rc;
    SCREE_ASSERT(scree__chain_is_cold(&ctx->chain));
    arrival_init(&a, id, ref, word, &ctx->chain);
    if (reading_begin(reads_of(ctx->cache, id), &a.me, true)) {
        if (!arrival_moved(&a)) /* P2 */
            rc = page_read(ctx, &a);
        reading_end(reads_of(ctx->cache, id), &a.me);
    }
    scree__count(ctx, COUNT_MISSES, 1);
    scree__phase_end(ctx, PHASE_PAGE_IN, begin);
    return rc;
}

/* ---- many pages -------------------------------------------------------------------------------- */

struct scree__arrivals {
    struct arrival page[SCREE__PAGES_IN_MAX];
    size_t n;
    struct scree__log_read *reads; /* of all pages, one behind the other; buffers are kept */
    size_t reads_n, reads_made, reads_cap;
};

void
scree__arrivals_free(struct scree__arrivals *all)
{
    if (all == NULL)
        return;
    scree__log_read_done(all->reads, all->reads_made);
    scree__free(all->reads, all->reads_cap * sizeof *all->reads);
    scree__free(all, sizeof *all);
}

static bool
arrivals_reserve(struct scree__arrivals *all, size_t n)
{
    struct scree__log_read *grown =
        scree__array_reserve(all->reads, &all->reads_cap, all->reads_n + n, sizeof *grown);

    if (grown == NULL)
        return false;
    all->reads = grown;
    while (all->reads_made < all->reads_n + n)
        all->reads[all->reads_made++] = (struct scree__log_read){0};
    return true;
}

/* Add the page, unless it is in memory, not live, on its way in already, or cannot be looked at now. */
static void
arrivals_add(struct scree__context *ctx, struct scree__arrivals *all, scree_page_id id)
{
    struct arrival *a = &all->page[all->n];
    struct scree__radix_ref ref = scree__radix_find(&ctx->cache->radix, id);
    struct scree__chain *chain = &ctx->chain;
    uint64_t word;

    if (ref.leaf == NULL || scree__slot_load(ctx, ref, &word) != 0 || slot_tag(word) == SLOT_FREE ||
        slot_whole_node(word) != NULL || scree__chain_collect(ctx, ref, word, chain) != 0 ||
        !scree__chain_is_cold(chain))
        return;
    arrival_init(a, id, ref, word, chain);
    if (!arrivals_reserve(all, a->n) || !reading_begin(reads_of(ctx->cache, id), &a->me, false))
        return;
    if (arrival_moved(a)) { /* P2 */
        reading_end(reads_of(ctx->cache, id), &a->me);
        return;
    }
    a->first = all->reads_n;
    arrival_aim(a, chain, all->reads + a->first);
    all->reads_n += a->n;
    all->n++;
}

static void
arrivals_end(struct scree__context *ctx, struct scree__arrivals *all)
{
    for (size_t i = 0; i < all->n; i++) {
        struct arrival *a = &all->page[i];
        const struct scree__log_read *reads = all->reads + a->first;
        int rc = 0;

        for (size_t k = 0; k < a->n && rc == 0; k++)
            rc = reads[k].result;
#ifndef SCREE_BUG_ARRIVAL_UNREADY /* seeded: test_prefetch must fail */
        if (rc == 0 && !scree__retire_ready(ctx))
            rc = SCREE_E_NO_MEMORY;
#endif
        (void)page_arrives(ctx, a, reads, rc); /* the get that finds it missing tells why */
        reading_end(reads_of(ctx->cache, a->me.id), &a->me);
    }
    scree__count(ctx, COUNT_MISSES, all->n);
    scree__count(ctx, COUNT_TOGETHER, all->n);
    for (size_t i = 0; i < all->reads_n; i++)
        if (i >= SCREE__PAGES_IN_MAX || all->reads[i].buffer_bytes > READ_BYTES_KEPT)
            scree__log_read_done(&all->reads[i], 1);
}

void
scree__pages_in(struct scree__context *ctx, const scree_page_id *ids, size_t n)
{
    struct scree__arrivals *all = ctx->arrivals;

    SCREE_ASSERT(n <= SCREE__PAGES_IN_MAX);
    if (all == NULL)
        all = ctx->arrivals = scree__alloc_zero(sizeof *all);
    if (all == NULL)
        return;
    all->n = all->reads_n = 0;
    scree__memory_relieve(ctx);
    for (size_t i = 0; i < n; i++)
        arrivals_add(ctx, all, ids[i]);
    if (all->n == 0)
        return;
    (void)scree__log_read(ctx->cache->log, all->reads, all->reads_n); /* each has its own result */
    arrivals_end(ctx, all);
}
