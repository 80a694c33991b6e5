/*
 * batch.c - several pages changed together: steps are collected, then logged and installed as one.
 *
 * STEPS  T1  every step: its node, with the payload, and its record are made when it is added
 *        T2  commit: admission for all records together (may wait); read section: load every page's slot, check
 *            the versions
 *        T3  reserve one range of the log and fill it: BATCH, then the records (ring.c); it stays open until T5
 *        T4  mcas.c: all slots change, or none
 *        T5  complete the range, or turn it into aborted records
 *        T6  what was superseded is charged dead, and retired
 * INVARIANTS
 *   I1 as update.c I1: every slot was loaded before T3 and T4 expects just that word, so each page's newest
 *      record is older than ours.
 *   I2 a page that T4 holds undecided cannot be changed otherwise, and the range is open until it is decided:
 *      the flusher writes no batch of which it is not known whether it happened, and no snapshot begins
 *      behind one.
 *   I3 records of a batch are valid together only (log/scan.c): after a crash all of it is there or nothing.
 *   I4 the version of every page written is the end of the range: unique for the page, and durable when all
 *      is.
 *   I5 a batch that only checks changes nothing. The versions presented were told before the commit began, so
 *      each was its page's by then; versions never come back, so one that the walk over the pages still finds
 *      was its page's from that moment on: all of them were when the walk began.
 * LIFETIME  a batch and what is in it belong to one thread at a time until T4 succeeds. After a T4 that
 *           failed nobody looks at its nodes, so they serve the next attempt.
 * PROGRESS  an attempt fails only because somebody else changed a page, if only its form, or holds it
 *           undecided; the next one helps whoever does. No lock is held, no wait but admission's.
 * FAILURE   before T3: nothing happened. T3 can fail with POISONED only.
 * NOT HERE  single pages (update.c), how slots change together (mcas.c), the bytes (log/record.c).
 */
#include "pagecache/pagecache_private.h"

#include <stdlib.h>
#include <string.h>

#define AGAIN 1 /* internal: leave the read section, be admitted anew, try again */
#define CHECK_ONLY 0
#define STEPS_KEPT 64u /* a batch for so many is kept for the thread's next one */
#define SORT_BY_HAND 16u
/* Of one page in one batch: twice the cap of a chain is within what a ghost can hold. */
#define FRAGMENTS_MAX 4096u

#ifdef SCREE_BUG_CHOSEN_WARM
#define GRACE_COUNTS false /* seeded bug: tests must notice */
#else
#define GRACE_COUNTS true
#endif

struct step {
    scree_page_id id;
    scree_version expected;
    uint64_t under;           /* the word it goes on top of: T4 */
    struct scree__node *node; /* NULL: a check, a free */
    void *owned;              /* compressed bytes */
    size_t owned_len;
    size_t user_bytes;
    uint32_t record; /* which one, 0: none */
    uint32_t page;   /* which one; by pages_make */
    uint8_t kind;    /* of record, or CHECK_ONLY */
    bool chosen;     /* ALLOCATE: the id is the caller's */
};

/* A page of the batch, with those of `order` that are its steps. */
struct page {
    scree_page_id id;
    struct scree__radix_ref ref; /* leaf NULL: never was a page */
    uint32_t first, n;
    bool allocated; /* by this batch */
    bool taken;     /* its id is ours to give back if nothing happens */
    bool chosen;
    bool ghost_used;
    struct scree__node *ghost; /* under a fragment on an evicted page */
    /* of the attempt */
    uint64_t old;
    uint32_t evicted_len;
    scree_version version;
    uint64_t next;
};

struct place {
    scree_page_id id;
    uint32_t step;
};

struct scree_batch {
    scree_cache *cache;
    struct step *step;
    size_t n, cap;
    struct scree__record *record; /* [0]: the BATCH */
    size_t records, records_cap;
    unsigned char body[SCREE__BATCH_BODY_BYTES];
    /* by pages_make */
    struct page *page; /* in the order of ids */
    size_t pages;
    struct place *order; /* n: by id, then as added */
    size_t pages_cap;    /* of both */
};

/* ---- steps (T1) -------------------------------------------------------------------------------- */

int
scree_batch_begin(scree_cache *cache, scree_batch **batch_out)
{
    struct scree__context *ctx;
    scree_batch *b;
    int rc;

    if (batch_out == NULL)
        return scree__fail(SCREE_E_INVALID, "scree_batch_begin: batch_out is NULL");
    *batch_out = NULL;
    rc = scree__enter_call(cache, &ctx);
    if (rc == 0 && cache->read_only)
        rc = scree__fail(SCREE_E_READ_ONLY, "%s was opened read-only", cache->dir);
    if (rc == 0)
        rc = scree__check_health(cache);
    if (rc != 0)
        return rc;
    b = ctx->batch;
    ctx->batch = NULL;
    if (b == NULL)
        b = scree__alloc_zero(sizeof *b);
    if (b == NULL)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for a batch");
    b->cache = cache;
    b->n = 0;
    b->pages = 0;
    b->records = 1;
    atomic_fetch_add_explicit(&cache->batches_open, 1, memory_order_relaxed); /* close is alone */
    *batch_out = b;
    return 0;
}

void
scree__batch_free(scree_batch *b)
{
    if (b == NULL)
        return;
    scree__free(b->step, b->cap * sizeof *b->step);
    scree__free(b->record, b->records_cap * sizeof *b->record);
    scree__free(b->page, b->pages_cap * sizeof *b->page);
    scree__free(b->order, b->pages_cap * sizeof *b->order);
    scree__free(b, sizeof *b);
}

static void
node_drop(struct scree__context *ctx, const scree_batch *b, struct scree__node *node)
{
    if (ctx != NULL)
        scree__node_discard(ctx, node);
    else if (node != NULL)
        scree__node_free_cold(b->cache, node);
}

/* ctx NULL: this thread has none. */
static void
batch_free(struct scree__context *ctx, scree_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        node_drop(ctx, b, b->step[i].node);
        scree__free(b->step[i].owned, b->step[i].owned_len);
    }
    for (size_t i = 0; i < b->pages; i++)
        if (!b->page[i].ghost_used)
            node_drop(ctx, b, b->page[i].ghost);
    atomic_fetch_sub_explicit(&b->cache->batches_open, 1, memory_order_release);
    if (ctx != NULL && ctx->batch == NULL && b->cap <= STEPS_KEPT && b->pages_cap <= STEPS_KEPT)
        ctx->batch = b; /* for the next one */
    else
        scree__batch_free(b);
}

/* It did not happen: ids are free again. */
static void
batch_undo(struct scree__context *ctx, scree_batch *b)
{
    if (ctx == NULL && scree__forked(b->cache))
        return;                           /* it stays, as all does (fork.c) */
    for (size_t i = 0; i < b->pages; i++) /* once, also if it was taken twice */
        if (b->page[i].taken)
            scree__id_freed(b->cache, b->page[i].id, 0);
    for (size_t i = 0; b->pages == 0 && i < b->n; i++)
        if (b->step[i].kind == SCREE__RECORD_ALLOCATE && !b->step[i].chosen)
            scree__id_freed(b->cache, b->step[i].id, 0);
    batch_free(ctx, b);
}

void
scree_batch_abort(scree_batch *batch)
{
    if (batch != NULL)
        batch_undo(scree__context(batch->cache), batch);
}

/* For one more step and its record. */
static int
steps_reserve(scree_batch *b)
{
    struct step *step = scree__array_reserve(b->step, &b->cap, b->n + 1, sizeof *step);
    struct scree__record *record;

    b->step = step != NULL ? step : b->step;
    record = scree__array_reserve(b->record, &b->records_cap, b->records + 1, sizeof *record);
    b->record = record != NULL ? record : b->record;
    if (step == NULL || record == NULL || b->n == UINT32_MAX - 1)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory for %zu steps of a batch", b->n + 1);
    return 0;
}

/* Node and record of a step that writes. */
static int
step_prepare(struct scree__context *ctx, struct step *s, scree_slice payload,
             struct scree__record *r)
{
    uint8_t kind = s->kind == SCREE__RECORD_DELTA ? NODE_DELTA : NODE_BASE;

    *r = (struct scree__record){.kind = s->kind, .page = s->id, .flags = SCREE__RECORD_IN_BATCH};
    if (s->kind != SCREE__RECORD_FREE) {
        if (s->kind == SCREE__RECORD_ALLOCATE && payload.len == 0)
            kind = NODE_EMPTY;
        s->node = scree__node_new(ctx, kind, payload.len, 1);
        if (s->node == NULL)
            return SCREE_E_NO_MEMORY;
        if (payload.len > 0)
            memcpy(s->node->payload, payload.data, payload.len);
        r->payload = s->node->payload;
        r->payload_len = s->node->payload_len;
    }
    if (s->kind == SCREE__RECORD_SET || s->kind == SCREE__RECORD_ALLOCATE)
        return scree__record_page_in_batch(ctx, r, s->kind, s->id, s->node->payload, payload.len,
                                           &s->owned, &s->owned_len);
    scree__record_prepare(r);
    return 0;
}

static void
slot_fetch(struct scree__radix_ref ref)
{
    if (ref.leaf != NULL)
        scree__radix_word_prefetch(ref);
}

/* The newest node, which tells the version: all pages' cache misses at a time. Outside of a read section, so it
   may be gone, which a prefetch does not mind. */
static void
head_fetch(struct scree__radix_ref ref)
{
    uint64_t word;

    if (ref.leaf == NULL)
        return;
    /* Relaxed: nothing is read through it. */
    word = atomic_load_explicit(scree__radix_word(ref), memory_order_relaxed);
    if (slot_tag(word) == SLOT_NODE)
        __builtin_prefetch(slot_node(word));
}

static int
step_add(struct scree__context *ctx, scree_batch *b, struct step step, scree_slice payload)
{
    struct scree__record r;
    int rc = steps_reserve(b);

    if (rc == 0 && step.chosen && scree__radix_make(&b->cache->radix, step.id).leaf == NULL)
        rc = scree__fail(SCREE_E_NO_MEMORY, "no memory for the page table");
    slot_fetch(scree__radix_find(&b->cache->radix, step.id)); /* the commit wants it soon */
    if (rc == 0 && step.kind != CHECK_ONLY) {
        scree__memory_admit(ctx); /* may consolidate, with the same buffers: before the record */
        rc = step_prepare(ctx, &step, payload, &r);
    }
    if (rc != 0) {
        scree__node_discard(ctx, step.node);
        return rc;
    }
    if (step.kind != CHECK_ONLY) {
        if (step.chosen)
            r.flags |= SCREE__RECORD_CHOSEN_ID;
        step.record = (uint32_t)b->records;
        b->record[b->records++] = r;
    }
    step.user_bytes = payload.len;
    b->step[b->n++] = step;
    return 0;
}

static int
step_call(scree_batch *b, const char *call, struct step step, scree_slice payload)
{
    struct scree__context *ctx;
    int rc;

    if (b == NULL)
        return scree__fail(SCREE_E_INVALID, "%s: batch is NULL", call);
    rc = scree__enter_call(b->cache, &ctx);
    if (rc == 0)
        rc = scree__check_update(b->cache, step.id, payload);
    return rc == 0 ? step_add(ctx, b, step, payload) : rc;
}

int
scree_batch_allocate(scree_batch *batch, scree_slice initial, scree_page_id *id_out)
{
    struct step step = {.id = SCREE_PAGE_ROOT, .kind = SCREE__RECORD_ALLOCATE};
    struct scree__context *ctx;
    int rc;

    if (batch == NULL || id_out == NULL)
        return scree__fail(SCREE_E_INVALID, "scree_batch_allocate: %s is NULL",
                           batch == NULL ? "batch" : "id_out");
    *id_out = 0;
    rc = scree__enter_call(batch->cache, &ctx);
    if (rc == 0)
        rc = scree__check_update(batch->cache, step.id, initial);
    if (rc == 0)
        rc = scree__id_take(ctx, &step.id);
    if (rc != 0)
        return rc;
    rc = step_add(ctx, batch, step, initial);
    if (rc == 0)
        *id_out = step.id;
    else
        scree__id_freed(batch->cache, step.id, 0);
    return rc;
}

int
scree_batch_allocate_at(scree_batch *batch, scree_page_id id, scree_slice initial)
{
    struct step step = {.id = id, .kind = SCREE__RECORD_ALLOCATE, .chosen = true};

    return step_call(batch, "scree_batch_allocate_at", step, initial);
}

int
scree_batch_set(scree_batch *batch, scree_page_id id, scree_version expected, scree_slice page)
{
    struct step step = {.id = id, .expected = expected, .kind = SCREE__RECORD_SET};

    return step_call(batch, "scree_batch_set", step, page);
}

int
scree_batch_merge(scree_batch *batch, scree_page_id id, scree_version expected,
                  scree_slice fragment)
{
    struct step step = {.id = id, .expected = expected, .kind = SCREE__RECORD_DELTA};

    return step_call(batch, "scree_batch_merge", step, fragment);
}

int
scree_batch_free(scree_batch *batch, scree_page_id id, scree_version expected)
{
    struct step step = {.id = id, .expected = expected, .kind = SCREE__RECORD_FREE};

    if (id == SCREE_PAGE_ROOT)
        return scree__fail(SCREE_E_INVALID, "scree_batch_free: the root page is never freed");
    return step_call(batch, "scree_batch_free", step, (scree_slice){NULL, 0});
}

int
scree_batch_check(scree_batch *batch, scree_page_id id, scree_version expected)
{
    struct step step = {.id = id, .expected = expected, .kind = CHECK_ONLY};

    return step_call(batch, "scree_batch_check", step, (scree_slice){NULL, 0});
}

/* ---- pages ------------------------------------------------------------------------------------- */

static int
by_id_and_step(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return (x->step > y->step) - (x->step < y->step);
}

/* What a page's steps make of it must be possible. */
static int
page_check_steps(const scree_batch *b, const struct page *p, scree_page_id *conflict_out)
{
    uint8_t first = b->step[b->order[p->first].step].kind;
    uint8_t before = CHECK_ONLY;
    uint32_t fragments = 0;

    for (uint32_t i = 0; i < p->n; i++) {
        uint8_t kind = b->step[b->order[p->first + i].step].kind;

        if (before == SCREE__RECORD_FREE && (kind != SCREE__RECORD_ALLOCATE || p->chosen))
            return scree__fail(SCREE_E_INVALID,
                               "scree_batch_commit: a step on page %llu comes after its free",
                               (unsigned long long)p->id);
        before = kind;
        fragments += kind == SCREE__RECORD_DELTA;
        if (kind == SCREE__RECORD_ALLOCATE && i > 0 && first != SCREE__RECORD_ALLOCATE)
            return scree__fail(
                SCREE_E_INVALID,
                "scree_batch_commit: a step on page %llu comes before its allocation",
                (unsigned long long)p->id);
        if (kind == SCREE__RECORD_ALLOCATE && i > 0 && p->chosen)
            return scree__fail(SCREE_E_INVALID, "scree_batch_commit: page %llu is allocated twice",
                               (unsigned long long)p->id);
        if (kind == SCREE__RECORD_ALLOCATE && i > 0) { /* a double candidate (allocate.c) */
            if (conflict_out != NULL)
                *conflict_out = p->id;
            return scree__fail(SCREE_E_CONFLICT,
                               "page id %llu was chosen and freed by others; nothing of the batch "
                               "happened, retry",
                               (unsigned long long)p->id);
        }
    }
    if (fragments > FRAGMENTS_MAX)
        return scree__fail(SCREE_E_TOO_BIG,
                           "scree_batch_commit: %u fragments for page %llu, %u at most", fragments,
                           (unsigned long long)p->id, FRAGMENTS_MAX);
    return 0;
}

/* Room for as many pages as there are steps. */
static int
pages_reserve(scree_batch *b)
{
    if (b->n <= b->pages_cap)
        return 0;
    scree__free(b->page, b->pages_cap * sizeof *b->page);
    scree__free(b->order, b->pages_cap * sizeof *b->order);
    b->pages_cap = b->cap;
    b->order = scree__alloc(b->pages_cap * sizeof *b->order);
    b->page = scree__alloc(b->pages_cap * sizeof *b->page);
    if (b->order != NULL && b->page != NULL)
        return 0;
    scree__free(b->page, b->pages_cap * sizeof *b->page);
    scree__free(b->order, b->pages_cap * sizeof *b->order);
    b->page = NULL;
    b->order = NULL;
    b->pages_cap = 0;
    return scree__fail(SCREE_E_NO_MEMORY, "no memory to commit %zu steps", b->n);
}

static void
order_make(scree_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        struct place place = {.id = b->step[i].id, .step = (uint32_t)i};
        size_t at = i;

        for (; b->n <= SORT_BY_HAND && at > 0 && b->order[at - 1].id > place.id; at--)
            b->order[at] = b->order[at - 1];
        b->order[at] = place;
    }
    if (b->n > SORT_BY_HAND)
        qsort(b->order, b->n, sizeof *b->order, by_id_and_step);
}

/* Sort the steps by page. */
static int
pages_make(scree_batch *b, scree_page_id *conflict_out)
{
    int rc = pages_reserve(b);

    if (rc != 0)
        return rc;
    order_make(b);
    for (uint32_t i = 0; i < b->n; i++) {
        struct step *s = &b->step[b->order[i].step];
        struct page *p = &b->page[b->pages];

        if (b->pages > 0 && p[-1].id == s->id) {
            p--;
        } else {
            *p = (struct page){
                .id = s->id, .first = i, .ref = scree__radix_find(&b->cache->radix, s->id)};
            b->pages++;
            head_fetch(p->ref);
        }
        p->n++;
        p->allocated |= s->kind == SCREE__RECORD_ALLOCATE;
        p->taken |= s->kind == SCREE__RECORD_ALLOCATE && !s->chosen;
        p->chosen |= s->chosen;
        s->page = (uint32_t)(p - b->page);
    }
    for (size_t i = 0; rc == 0 && i < b->pages; i++)
        rc = page_check_steps(b, &b->page[i], conflict_out);
    return rc;
}

/* T2: what each page is now. In the read section. */
static int
pages_load(struct scree__context *ctx, scree_batch *b)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < b->pages; i++) {
        struct page *p = &b->page[i];

        p->old = slot_from_free(0);
        p->version = 0;
        if (p->ref.leaf == NULL)
            continue;
        SCREE_YIELD_POINT();
        do /* retried only when somebody moved the slot */
            rc = scree__slot_load(ctx, p->ref, &p->old);
        while (rc == 0 && !scree__slot_version(p->ref, p->old, &p->version, &p->evicted_len));
    }
    return rc;
}

static int
moved(struct scree__context *ctx, const struct step *s, scree_version version,
      scree_page_id *conflict_out)
{
    if (conflict_out != NULL)
        *conflict_out = s->id;
    scree__count(ctx, COUNT_CONFLICTS, 1);
    return scree__fail(SCREE_E_CONFLICT,
                       "page %llu is at version %llu, not %llu; nothing of the batch happened, "
                       "read again and retry",
                       (unsigned long long)s->id, (unsigned long long)version,
                       (unsigned long long)s->expected);
}

/* The id was freed a moment ago; T2. */
static int
not_cool(struct scree__context *ctx, scree_page_id id, scree_page_id *conflict_out)
{
    if (conflict_out != NULL)
        *conflict_out = id;
    scree__reclaimer_wake(ctx->cache);
    return scree__fail(
        SCREE_E_BUSY,
        "page %llu was freed a moment ago and a read guard may still see it; nothing "
        "of the batch happened, try again",
        (unsigned long long)id);
}

/* T2: is everything as the steps want it? */
static int
steps_check(struct scree__context *ctx, const scree_batch *b, scree_page_id *conflict_out)
{
    uint64_t cooled = atomic_load_explicit(&b->cache->cooled_lsn, memory_order_acquire);

    for (size_t i = 0; i < b->n; i++) {
        const struct step *s = &b->step[i];
        const struct page *p = &b->page[s->page];
        bool is_free = slot_tag(p->old) == SLOT_FREE;

        if (p->allocated) { /* the id was cool when it was taken; who chose it meanwhile has it */
            bool cool = is_free && (slot_free_lsn(p->old) == 0 || !GRACE_COUNTS ||
                                    slot_free_lsn(p->old) < cooled);

            if (s->chosen && is_free && !cool)
                return not_cool(ctx, s->id, conflict_out);
            if (!cool || s->expected != 0)
                return moved(ctx, s, p->version, conflict_out);
        } else if (is_free) {
            if (conflict_out != NULL)
                *conflict_out = s->id;
            return scree__fail(SCREE_E_NOT_FOUND,
                               "page %llu is not live; nothing of the batch happened",
                               (unsigned long long)s->id);
        } else if (VERSIONS_COUNT && p->version != s->expected) {
            return moved(ctx, s, p->version, conflict_out);
        }
    }
    return 0;
}

/* I5 */
static int
checks_commit(struct scree__context *ctx, scree_batch *b, scree_lsn *lsn_out,
              scree_page_id *conflict_out)
{
    int rc;

    scree__rcu_enter();
    rc = pages_load(ctx, b);
    if (rc == 0)
        rc = steps_check(ctx, b, conflict_out);
    scree__rcu_leave();
    for (size_t i = 0; rc == 0 && i < b->pages; i++)
        *lsn_out = scree__max_u64(b->page[i].version, *lsn_out);
    return rc;
}

/* ---- an attempt (T2 to T6) --------------------------------------------------------------------- */

/* A fragment that comes first on an evicted page goes on a ghost of it. */
static int
ghosts_make(struct scree__context *ctx, scree_batch *b)
{
    for (size_t i = 0; i < b->pages; i++) {
        struct page *p = &b->page[i];

        if (slot_tag(p->old) != SLOT_EVICTED || p->ghost != NULL)
            continue;
        for (uint32_t j = 0; j < p->n; j++) {
            uint8_t kind = b->step[b->order[p->first + j].step].kind;

            if (kind == CHECK_ONLY)
                continue;
            if (kind == SCREE__RECORD_DELTA)
                p->ghost = scree__node_new(ctx, NODE_GHOST, 0, 1);
            if (kind == SCREE__RECORD_DELTA && p->ghost == NULL)
                return SCREE_E_NO_MEMORY;
            break;
        }
    }
    return 0;
}

/* The page's word after step s, which goes on top of s->under; its record has its place. */
static uint64_t
step_word(const scree_batch *b, struct page *p, struct step *s)
{
    const struct scree__record *r = &b->record[s->record];
    struct scree__node *below = slot_tag(s->under) == SLOT_NODE ? slot_node(s->under) : p->ghost;

    if (s->kind == CHECK_ONLY)
        return s->under;
    if (s->kind == SCREE__RECORD_FREE)
        return slot_from_free(r->lsn);
    s->node->lsn = r->lsn;
    s->node->version = r->version;
    s->node->disk_len = r->disk_len;
    s->node->next = NULL;
    if (s->kind != SCREE__RECORD_DELTA)
        return slot_from_node(s->node, 1);
    if (slot_tag(s->under) == SLOT_EVICTED) {
        below->lsn = slot_evicted_lsn(s->under);
        below->disk_len = p->evicted_len;
        below->version = p->version;
    }
    s->node->next = below;
    return slot_from_node(s->node, slot_depth(s->under) + 1);
}

/* The words that the slots get. */
static void
words_build(scree_batch *b, struct scree__mcas *m)
{
    for (size_t i = 0; i < b->pages; i++) {
        struct page *p = &b->page[i];

        p->next = p->old;
        for (uint32_t j = 0; j < p->n; j++) {
            struct step *s = &b->step[b->order[p->first + j].step];

            s->under = p->next;
            p->next = step_word(b, p, s);
        }
        scree__mcas_set(m, (uint32_t)i, p->ref, p->old, p->next);
    }
}

/* T6. What a step replaced died with its record; nodes are the table's now. */
static void
batch_settle(struct scree__context *ctx, scree_batch *b)
{
    struct scree__log *log = b->cache->log;
    const struct scree__record *head = &b->record[0];

    scree__log_charge_dead(log, head->lsn, head->disk_len, head->lsn);
    for (size_t i = 0; i < b->n; i++) {
        struct step *s = &b->step[i];
        const struct scree__record *r = &b->record[s->record];

        s->node = NULL;
        if (s->kind == SCREE__RECORD_DELTA && slot_tag(s->under) == SLOT_EVICTED)
            b->page[s->page].ghost_used = true;
        if (s->kind != SCREE__RECORD_SET && s->kind != SCREE__RECORD_FREE)
            continue;
        if (s->kind == SCREE__RECORD_FREE) /* recovery to the present state does not need it */
            scree__log_charge_dead(log, r->lsn, r->disk_len, r->lsn);
        scree__slot_charge_dead(log, s->under, b->page[s->page].evicted_len, r->lsn);
        if (slot_tag(s->under) == SLOT_NODE)
            scree__chain_retire_as_one(ctx, slot_node(s->under));
    }
}

/* T3 to T6, in the read section in which the slots were loaded. */
static int
batch_install(struct scree__context *ctx, scree_batch *b)
{
    struct scree__log *log = b->cache->log;
    struct scree__mcas *m = scree__mcas_new(ctx, (uint32_t)b->pages);
    int rc = m == NULL || !scree__retire_ready_for(ctx, b->n + 1) ? SCREE_E_NO_MEMORY : 0;
    bool done;

    if (rc == 0)
        rc = scree__log_reserve_batch(log, ctx->writer, b->record, b->records);
    if (rc != 0) {
        scree__mcas_discard(ctx, m);
        return rc;
    }
    words_build(b, m);
    done = scree__mcas_run(m); /* LP */
    if (done)
        scree__log_complete(log, ctx->writer);
    else
        scree__log_abort_batch(log, ctx->writer, b->record, b->records);
    if (done)
        batch_settle(ctx, b);
    scree__mcas_release(ctx, m);
    scree__retired_bound(ctx);
    return done ? 0 : AGAIN;
}

static int
batch_try(struct scree__context *ctx, scree_batch *b, scree_page_id *conflict_out)
{
    int rc;

    scree__rcu_enter();
    rc = pages_load(ctx, b);
    if (rc == 0)
        rc = steps_check(ctx, b, conflict_out);
    if (rc == 0)
        rc = ghosts_make(ctx, b);
    if (rc == 0)
        rc = batch_install(ctx, b);
    scree__rcu_leave();
    return rc;
}

/* Pages too deep for more fragments. */
static int
depths_bound(struct scree__context *ctx, const scree_batch *b)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < b->n; i++) {
        const struct step *s = &b->step[i];

        if (s->kind == SCREE__RECORD_DELTA && b->page[s->page].ref.leaf != NULL)
            rc = scree__depth_bound(ctx, s->id, b->page[s->page].ref);
    }
    return rc;
}

static enum scree__log_class
batch_class(const scree_batch *b)
{
    for (size_t i = 1; i < b->records; i++)
        if (b->record[i].kind != SCREE__RECORD_FREE)
            return SCREE__LOG_USER;
    return SCREE__LOG_RELIEF;
}

static int
batch_commit(struct scree__context *ctx, scree_batch *b, scree_lsn *lsn_out,
             scree_page_id *conflict_out)
{
    struct scree__log *log = b->cache->log;
    uint32_t bytes = scree__log_batch_prepare(b->record, b->records, b->body);
    int rc = depths_bound(ctx, b);

    while (rc == 0 || rc == AGAIN) {
        if (rc == AGAIN)
            scree__count(ctx, COUNT_RETRIES, 1);
        rc = scree__log_admit(log, ctx->writer, bytes, batch_class(b), !scree__rcu_inside());
        if (rc == 0)
            rc = batch_try(ctx, b, conflict_out);
        if (rc == 0) {
            *lsn_out = b->record[0].version;
            return 0;
        }
    }
    return rc;
}

static enum scree__counter
step_counter(const struct step *s)
{
    switch (s->kind) {
    case SCREE__RECORD_ALLOCATE:
        return COUNT_ALLOCATES;
    case SCREE__RECORD_DELTA:
        return COUNT_MERGES;
    case SCREE__RECORD_FREE:
        return COUNT_FREES;
    default:
        return COUNT_SETS;
    }
}

/* It happened: figures, ids, pages that have become deep. */
static void
batch_happened(struct scree__context *ctx, scree_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct step *s = &b->step[i];

        if (s->kind == CHECK_ONLY)
            continue;
        scree__count(ctx, step_counter(s), 1);
        scree__count(ctx, COUNT_USER_BYTES, s->user_bytes);
        if (s->kind == SCREE__RECORD_FREE)
            scree__id_freed(b->cache, s->id, b->record[s->record].lsn);
    }
    scree__count(ctx, COUNT_BATCHES, 1);
    for (size_t i = 0; i < b->pages; i++)
        if (slot_tag(b->page[i].next) == SLOT_NODE)
            scree__consolidate_note(ctx, b->page[i].id, slot_depth(b->page[i].next));
    batch_free(ctx, b);
}

int
scree_batch_commit(scree_batch *batch, scree_lsn *lsn_out, scree_page_id *conflict_out)
{
    struct scree__context *ctx;
    scree_lsn lsn = 0;
    int rc;

    if (lsn_out != NULL)
        *lsn_out = 0;
    if (conflict_out != NULL)
        *conflict_out = 0;
    if (batch == NULL)
        return scree__fail(SCREE_E_INVALID, "scree_batch_commit: batch is NULL");
    rc = scree__enter_call(batch->cache, &ctx);
    if (rc == 0)
        rc = scree__check_health(batch->cache);
    if (rc == 0 && batch->n > 0)
        rc = pages_make(batch, conflict_out);
    if (rc == 0 && batch->n > 0)
        rc = batch->records == 1 ? checks_commit(ctx, batch, &lsn, conflict_out)
                                 : batch_commit(ctx, batch, &lsn, conflict_out);
    if (rc == 0 && lsn_out != NULL)
        *lsn_out = lsn;
    if (rc == 0 && batch->records > 1)
        batch_happened(ctx, batch);
    else
        batch_undo(ctx, batch);
    return rc;
}
