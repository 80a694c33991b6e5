/*
 * survey_table.c - the page table of a directory that may be damaged: what each page's records are, oldest
 * first.
 *
 * WORD   the table's slot: as in slot.h, with struct chain for several records. The open cache's nodes
 *        (recover.c) would not do: they are charged to a cache, and hold what is in memory besides. MARK: see
 *        survey_replay.c.
 * EDGES  none: one thread, relaxed throughout.
 * INVARIANTS
 *   I1 the records of a page are in the order of the log: what is added lies behind all there are.
 * MEMORY that of the page table when it is opened: a word for pages of one record.
 * LIFETIME of the survey.   PROGRESS no waits.   FAILURE  no memory; entries of a snapshot that cannot be are
 *        CORRUPT.
 * NOT HERE which records (survey.c, survey_replay.c).   REFS none.
 */
#include "pagecache/pagecache_private.h"
#include "pagecache/survey_private.h"

#include <string.h>

struct chain {
    uint64_t version;
    uint32_t n, cap;
    struct scree__position position[];
};

uint64_t
scree__survey_word(struct scree__radix_ref ref)
{
    return atomic_load_explicit(scree__radix_word(ref), memory_order_relaxed);
}

static struct chain *
word_chain(uint64_t word)
{
    return (struct chain *)(void *)slot_node(word);
}

static size_t
chain_bytes(uint32_t cap)
{
    return sizeof(struct chain) + cap * sizeof(struct scree__position);
}

void
scree__survey_word_set(struct scree__radix_ref ref, uint64_t word)
{
    uint64_t old = scree__survey_word(ref);

    if (slot_tag(old) == SLOT_NODE && word_chain(old) != word_chain(word))
        scree__free(word_chain(old), chain_bytes(word_chain(old)->cap));
    atomic_store_explicit(scree__radix_word(ref), word, memory_order_relaxed);
}

int
scree__survey_put(struct scree__radix_ref ref, const struct scree__position *p, uint32_t n,
                  uint32_t cap, uint64_t version)
{
    struct chain *c;

    if (n == 1 && slot_can_evict(p->disk_len)) {
        atomic_store_explicit(scree__radix_side(ref), slot_side(version, p->disk_len),
                              memory_order_relaxed);
        scree__survey_word_set(ref, slot_from_evicted(p->lsn, p->disk_len));
        return 0;
    }
    c = scree__alloc_aligned(16, chain_bytes(cap));
    if (c == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
    *c = (struct chain){.version = version, .n = n, .cap = cap};
    memcpy(c->position, p, n * sizeof *p);
    scree__survey_word_set(ref, slot_from_node((struct scree__node *)(void *)c, n));
    return 0;
}

/* What the slot stands for. `one` is room for a single record. False: no live page. */
bool
scree__survey_get(struct scree__radix_ref ref, struct scree__position *one,
                  struct scree__survey_page *page)
{
    uint64_t word = scree__survey_word(ref), side;

    *page = (struct scree__survey_page){.id = ref.leaf->first_id + ref.index};
    page->provable = (scree__radix_mark(ref) & SURVEY_UNPROVABLE) == 0;
    if (slot_tag(word) == SLOT_FREE)
        return false;
    if (slot_tag(word) == SLOT_NODE) {
        page->position = word_chain(word)->position;
        page->n = word_chain(word)->n;
        page->version = word_chain(word)->version;
        return true;
    }
    side = atomic_load_explicit(scree__radix_side(ref), memory_order_relaxed);
    *one = (struct scree__position){.lsn = slot_evicted_lsn(word),
                                    .disk_len = slot_evicted_len(word, side)};
    page->position = one;
    page->n = 1;
    page->version = slot_side_version(side);
    return true;
}

int
scree__survey_push(struct scree__radix_ref ref, const struct scree__position *p, uint64_t version)
{
    struct scree__survey_page page;
    struct scree__position one;
    uint64_t word = scree__survey_word(ref);
    struct chain *c;

    if (slot_tag(word) != SLOT_NODE || word_chain(word)->n == word_chain(word)->cap) {
        struct scree__position first[2];
        int rc;

        (void)scree__survey_get(ref, &one, &page);
        if (page.n == 1) {
            first[0] = page.position[0];
            first[1] = *p;
            return scree__survey_put(ref, first, 2, 2, version);
        }
        rc = scree__survey_put(ref, page.position, (uint32_t)page.n, (uint32_t)page.n * 2, version);
        if (rc != 0)
            return rc;
    }
    c = word_chain(scree__survey_word(ref));
    c->position[c->n++] = *p;
    c->version = version;
    return 0;
}

/* The start of the newest record the slot stands for, or of the free. */
uint64_t
scree__survey_newest(struct scree__radix_ref ref)
{
    struct scree__survey_page page;
    struct scree__position one;

    if (!scree__survey_get(ref, &one, &page))
        return slot_free_lsn(scree__survey_word(ref));
    return page.position[page.n - 1].lsn;
}

void
scree__survey_clear(struct scree__survey *s)
{
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(&s->table, 0);

    for (; leaf != NULL; leaf = scree__radix_leaf_after(&s->table, leaf)) {
        struct scree__radix_ref ref = {.leaf = leaf};

        for (; ref.index < SCREE__RADIX_FANOUT; ref.index++)
            scree__survey_word_set(ref, 0);
    }
    scree__radix_destroy(&s->table);
    scree__radix_init(&s->table);
}

/* ---- entries of snapshots ----------------------------------------------------------------------- */

/* What the page has been given since the files before. */
static int
entry_add(struct scree__radix_ref ref, const struct scree__snapshot_entry *e)
{
    struct scree__survey_page page;
    struct scree__position one;
    int rc = 0;

    if (!scree__survey_get(ref, &one, &page) || page.n + e->n > SURVEY_CHAIN_MAX)
        return scree__fail(
            SCREE_E_CORRUPT,
            "a delta snapshot adds %u records to page %llu, which is not there or has "
            "too many then",
            e->n, (unsigned long long)e->id);
    for (uint32_t i = 0; rc == 0 && i < e->n; i++)
        if (e->positions[i].lsn > scree__survey_newest(ref))
            rc = scree__survey_push(ref, &e->positions[i], e->version);
    return rc;
}

int
scree__survey_entry(void *ctx, const struct scree__snapshot_entry *e)
{
    struct scree__survey *s = ctx;
    struct scree__radix_ref ref = scree__radix_make(&s->table, e->id);

    if (ref.leaf == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
    if (e->added)
        return entry_add(ref, e);
    if (e->n > SURVEY_CHAIN_MAX || e->version % 8 != 0)
        return scree__fail(SCREE_E_CORRUPT, "page %llu has %u records, version %llu",
                           (unsigned long long)e->id, e->n, (unsigned long long)e->version);
    if (e->n != 0)
        return scree__survey_put(ref, e->positions, e->n, e->n, e->version);
    scree__survey_word_set(ref, slot_from_free(e->version));
    return 0;
}
