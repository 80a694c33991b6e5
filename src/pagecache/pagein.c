/*
 * pagein.c - bring an evicted page's records from the log back into memory.
 *
 * WORD   the page's slot.
 * EDGES  (columns: step, who may, order, pairs with, if it loses)
 *   P1   evicted or chain-over-ghost -> chain  any thread   CAS release       every reader  drop what was read
 * INVARIANTS
 *   I1 a record's bytes at an lsn never change while they are live; what P1 installs is what the
 *      slot stood for when it was loaded, as the slot is still the same word (loaded in this read
 *      section: no ABA).
 *   I2 a slot that has not moved names live records: a read that fails its checksum while the slot
 *      stands is damage; if the slot moved, the bytes may have been given back meanwhile and the
 *      failure means nothing.
 * LIFETIME the records' buffers are private; nodes as in fragment.c. The read happens inside the
 *          caller's read section, so the bytes it reads cannot be given back before it ends (space
 *          needs a grace period).
 * PROGRESS one round of I/O; if P1 loses, somebody else changed the page.
 * FAILURE  CORRUPT, -errno, NO_MEMORY: the slot is as it was.
 * NOT HERE choosing what to evict (evict.c).   REFS none.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

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
        return NODE_BASE;
    case SCREE__RECORD_DELTA:
        return NODE_DELTA;
    default:
        return 0;
    }
}

/* A private node for a checked record; its payload is as the user gave it. */
static int
node_from_record(struct scree__context *ctx, const struct scree__record *r,
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
        rc = node_from_record(ctx, &reads[i].r, &node);
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
page_install(struct scree__context *ctx, struct scree__radix_ref ref, uint64_t word,
             struct scree__node *head)
{
    uint64_t seen = word;

    /* Referenced, or the next turn of the clock would take it away unread. Relaxed: a hint. */
    atomic_fetch_or_explicit(scree__radix_mark(ref), SLOT_REFERENCED, memory_order_relaxed);
    SCREE_YIELD_POINT();
    if (!atomic_compare_exchange_strong_explicit(
            scree__radix_word(ref), &seen, slot_from_node(head, slot_depth(word)),
            memory_order_release, memory_order_relaxed)) { /* LP */
        chain_discard(ctx, head);
        return;
    }
    if (slot_tag(word) == SLOT_NODE)
        scree__chain_retire(ctx, slot_node(word), NULL);
}

static int
page_build(struct scree__context *ctx, struct scree__radix_ref ref, uint64_t word,
           const struct scree__log_read *reads, size_t n, uint64_t version)
{
    struct scree__node *terminal = ctx->chain.terminal;
    struct scree__node *head, *above;
    int rc = chain_from_records(ctx, reads, n, &head);

    if (rc != 0)
        return rc;
    if (slot_tag(word) == SLOT_NODE && slot_node(word) != terminal) {
        above = chain_copy_deltas(ctx, slot_node(word), terminal, head);
        if (above == NULL) {
            chain_discard(ctx, head);
            return SCREE_E_NO_MEMORY;
        }
        head = above;
    }
    if (head->version != version) {
        chain_discard(ctx, head);
        return corrupt_record(&reads[n - 1].r, "is of another version than the page table says");
    }
    page_install(ctx, ref, word, head);
    return 0;
}

int
scree__page_in(struct scree__context *ctx, scree_page_id id, struct scree__radix_ref ref,
               uint64_t word)
{
    struct scree__chain *chain = &ctx->chain;
    uint64_t begin = scree__phase_begin(ctx);
    struct scree__log_read *reads;
    size_t n;
    int rc = scree__chain_collect(ctx, ref, word, chain);

    if (rc != 0)
        return rc == SCREE_E_BUSY ? 0 : rc;
    SCREE_ASSERT(scree__chain_is_cold(chain));
    n = chain->positions_n - chain->n; /* those of the ghost; the deltas above it are in memory */
    reads = scree__alloc_zero(n * sizeof *reads);
    if (reads == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to read page %llu",
                           (unsigned long long)id);
    for (size_t i = 0; i < n; i++) {
        reads[i].lsn = chain->positions[i].lsn;
        reads[i].disk_len = chain->positions[i].disk_len;
    }
    rc = scree__log_read(ctx->cache->log, id, reads, n);
    if (rc == 0)
        rc = page_build(ctx, ref, word, reads, n, chain->version);
    /* I2. Acquire: pairs with whatever moved the slot before the bytes went. */
    else if (atomic_load_explicit(scree__radix_word(ref), memory_order_acquire) != word)
        rc = 0;
    scree__log_read_done(reads, n);
    scree__free(reads, n * sizeof *reads);
    scree__count(ctx, COUNT_MISSES, 1);
    scree__phase_end(ctx, PHASE_PAGE_IN, begin);
    return rc;
}
