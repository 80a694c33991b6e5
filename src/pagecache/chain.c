/*
 * chain.c - read a page's fragment stack: what it is made of, and what it merges to.
 *
 * Plain walks over immutable nodes, inside the caller's read section; the only atomics are the
 * loads that validate an evicted page's side word (slot.h, SIDE). Never recursive: a chain may be
 * thousands deep.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

/*
 * Nodes of a page were written at different times and lie apart: one chain by itself is one cache miss after
 * the other. Walked in step, the misses of several overlap.
 */
static void
chains_prefetch(const struct scree__node **at, unsigned n, uint64_t since, bool payloads)
{
    while (n > 0) {
        unsigned kept = 0;

        for (unsigned i = 0; i < n; i++) {
            const struct scree__node *next = at[i]->next;

            if (next == NULL || at[i]->lsn < since)
                continue;
            __builtin_prefetch(next);
            if (payloads)
                __builtin_prefetch((const char *)next + SCREE_CACHE_LINE);
            at[kept++] = next;
        }
        n = kept;
    }
}

/* The slot's chain among those to be fetched, if it has one. */
static unsigned
chain_begin(struct scree__radix_ref ref, const struct scree__node **at, unsigned n)
{
    uint64_t word;

    /* Relaxed: most slots of a sparse table have none. */
    if (slot_tag(atomic_load_explicit(scree__radix_word(ref), memory_order_relaxed)) != SLOT_NODE)
        return n;
    word = atomic_load_explicit(scree__radix_word(ref), memory_order_acquire); /* the nodes */
    if (slot_tag(word) != SLOT_NODE)
        return n;
    at[n] = slot_node(word);
    __builtin_prefetch(at[n]);
    return n + 1;
}

void
scree__pages_prefetch(struct scree__context *ctx, const scree_page_id *id, unsigned n)
{
    const struct scree__node *at[CHAINS_IN_STEP];
    unsigned chains = 0;

    SCREE_ASSERT(n <= CHAINS_IN_STEP);
    for (unsigned i = 0; i < n; i++) {
        struct scree__radix_ref ref = scree__radix_find(&ctx->cache->radix, id[i]);

        if (ref.leaf != NULL)
            chains = chain_begin(ref, at, chains);
    }
    chains_prefetch(at, chains, 0, true);
}

void
scree__slots_prefetch(struct scree__radix_ref from, uint64_t since)
{
    const struct scree__node *at[CHAINS_IN_STEP];
    uint32_t end = from.index + CHAINS_IN_STEP;
    unsigned chains = 0;

    for (; from.index < end && from.index < SCREE__RADIX_FANOUT; from.index++)
        chains = chain_begin(from, at, chains);
    chains_prefetch(at, chains, since, false);
}

bool
scree__slot_version(struct scree__radix_ref ref, uint64_t word, uint64_t *version_out,
                    uint32_t *len_out)
{
    uint64_t side;

    *version_out = 0;
    *len_out = 0;
    switch (slot_tag(word)) {
    case SLOT_NODE:
        *version_out = slot_node(word)->version;
        return true;
    case SLOT_EVICTED:
        /* Acquire: the re-read of the slot comes after. The side was stored before the word we hold. */
        side = atomic_load_explicit(scree__radix_side(ref), memory_order_acquire);
        *version_out = slot_side_version(side);
        *len_out = slot_evicted_len(word, side);
        return atomic_load_explicit(scree__radix_word(ref), memory_order_acquire) == word;
    case SLOT_FREE:
    case SLOT_BATCH:
        break;
    }
    return true;
}

uint64_t
scree__slot_lsn(uint64_t word)
{
    switch (slot_tag(word)) {
    case SLOT_NODE:
        return slot_node(word)->lsn;
    case SLOT_EVICTED:
        return slot_evicted_lsn(word);
    case SLOT_FREE:
        return slot_free_lsn(word);
    case SLOT_BATCH:
        break;
    }
    return 0;
}

/* Make room for so many; contents kept. */
static int
chain_reserve(struct scree__chain *chain, size_t frags, size_t positions)
{
    scree_slice *f =
        scree__array_reserve(chain->frags, &chain->frags_cap, frags, sizeof chain->frags[0]);
    struct scree__position *p;

    chain->frags = f != NULL ? f : chain->frags;
    p = scree__array_reserve(chain->positions, &chain->positions_cap, positions,
                             sizeof chain->positions[0]);
    chain->positions = p != NULL ? p : chain->positions;
    if (f == NULL || p == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to walk a page of %zu fragments", frags);
    return 0;
}

/* First pass: how much there is. */
static void
chain_measure(struct scree__node *head, size_t *frags_out, size_t *positions_out,
              struct scree__node **terminal_out)
{
    size_t frags = 0;

    while (head->kind == NODE_DELTA) {
        frags++;
        head = head->next;
        SCREE_ASSERT(head != NULL);
    }
    *frags_out = frags;
    *positions_out = frags + head->positions;
    *terminal_out = head;
}

static void
terminal_positions(struct scree__node *t, struct scree__position *into)
{
    if (t->positions > 1)
        memcpy(into, scree__node_positions(t), t->positions * sizeof *into);
    else
        into[0] = (struct scree__position){.lsn = t->lsn, .disk_len = t->disk_len};
}

int
scree__chain_collect(struct scree__context *ctx, struct scree__radix_ref ref, uint64_t word,
                     struct scree__chain *chain)
{
    struct scree__node *head;
    size_t frags, positions;
    int rc;

    if (!scree__retire_ready(ctx))
        return SCREE_E_NO_MEMORY;
    chain->base = (scree_slice){NULL, 0};
    chain->n = 0;
    chain->terminal = NULL;
    chain->lsn = scree__slot_lsn(word);
    chain->positions_n = 1;
    rc = chain_reserve(chain, 0, 1);
    if (rc != 0)
        return rc;
    if (slot_tag(word) == SLOT_EVICTED) {
        chain->positions[0].lsn = chain->lsn;
        if (!scree__slot_version(ref, word, &chain->version, &chain->positions[0].disk_len))
            return SCREE_E_BUSY; /* the slot moved; callers load it again */
        return 0;
    }
    head = slot_node(word);
    chain->version = head->version;
    chain_measure(head, &frags, &positions, &chain->terminal);
    rc = chain_reserve(chain, frags, positions);
    if (rc != 0)
        return rc;
    chain->n = frags;
    chain->positions_n = positions;
    for (; head->kind == NODE_DELTA; head = head->next) {
        frags--;
        chain->frags[frags] = (scree_slice){head->payload, head->payload_len};
        chain->positions[chain->terminal->positions + frags] =
            (struct scree__position){.lsn = head->lsn, .disk_len = head->disk_len};
    }
    terminal_positions(head, chain->positions);
    if (head->kind == NODE_BASE)
        chain->base = (scree_slice){head->payload, head->payload_len};
    return 0;
}

int
scree__chain_merge(struct scree__context *ctx, scree_page_id id, const struct scree__chain *chain)
{
    const scree_materializer *m = &ctx->cache->materializer;
    uint64_t begin = scree__phase_begin(ctx);
    int rc;

    scree__out_reset(&ctx->out, (size_t)scree__payload_max(ctx->cache));
    rc = m->merge(m->ctx, id, chain->base.data != NULL ? &chain->base : NULL, chain->frags,
                  chain->n, &ctx->out);
    scree__phase_end(ctx, PHASE_MERGE, begin);
    if (ctx->out.error == SCREE_E_NO_MEMORY)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to merge page %llu",
                           (unsigned long long)id);
    if (ctx->out.error != 0)
        return scree__fail(SCREE_E_MERGE,
                           "merging page %llu: the output outgrew %llu bytes, which page_bytes_max "
                           "(%llu) and cache_bytes (%llu) allow",
                           (unsigned long long)id, (unsigned long long)ctx->out.len_max,
                           (unsigned long long)ctx->cache->options.page_bytes_max,
                           (unsigned long long)ctx->cache->options.cache_bytes);
    if (rc != 0)
        return scree__fail(SCREE_E_MERGE,
                           "merging page %llu: the merge callback of '%s' returned %d; set or put "
                           "replaces the page",
                           (unsigned long long)id, m->name, rc);
    return 0;
}

struct scree__node *
scree__chain_merged_node(struct scree__context *ctx, const struct scree__chain *chain)
{
    struct scree__node *node;

    SCREE_CHECK(chain->positions_n <= UINT16_MAX); /* the depth is capped far below (update.c) */
    node = scree__node_new(ctx, NODE_BASE, ctx->out.len, chain->positions_n);
    if (node == NULL)
        return NULL;
    node->lsn = chain->lsn;
    node->version = chain->version;
    if (ctx->out.len > 0)
        memcpy(node->payload, ctx->out.data, ctx->out.len);
    if (chain->positions_n > 1)
        memcpy(scree__node_positions(node), chain->positions,
               chain->positions_n * sizeof chain->positions[0]);
    else
        node->disk_len = chain->positions[0].disk_len;
    return node;
}

static void
node_charge_dead(struct scree__log *log, struct scree__log_charge *c, struct scree__node *n,
                 uint64_t lsn)
{
    const struct scree__position *p;

    if (n->positions <= 1) {
        scree__log_charge_more(log, c, n->lsn, n->disk_len, lsn);
        return;
    }
    p = scree__node_positions(n);
    for (uint32_t i = 0; i < n->positions; i++)
        scree__log_charge_more(log, c, p[i].lsn, p[i].disk_len, lsn);
}

void
scree__slot_charge_dead(struct scree__log *log, uint64_t word, uint32_t evicted_len, uint64_t lsn)
{
    struct scree__log_charge c = {0};

    if (slot_tag(word) == SLOT_EVICTED)
        scree__log_charge_dead(log, slot_evicted_lsn(word), evicted_len, lsn);
    if (slot_tag(word) != SLOT_NODE)
        return;
    for (struct scree__node *n = slot_node(word); n != NULL; n = n->next)
        node_charge_dead(log, &c, n, lsn);
    scree__log_charge_end(&c);
}

void
scree__slot_supersede(struct scree__context *ctx, uint64_t word, uint32_t evicted_len, uint64_t lsn)
{
    scree__slot_charge_dead(ctx->cache->log, word, evicted_len, lsn);
    if (slot_tag(word) == SLOT_NODE)
        scree__chain_retire(ctx, slot_node(word));
}

void
scree__chain_destroy(struct scree__chain *chain)
{
    scree__free(chain->frags, chain->frags_cap * sizeof chain->frags[0]);
    scree__free(chain->positions, chain->positions_cap * sizeof chain->positions[0]);
    memset(chain, 0, sizeof *chain);
}
