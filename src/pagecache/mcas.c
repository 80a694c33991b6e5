/*
 * mcas.c - change several slots at one moment, or none: multi-word compare-and-swap with helping.
 *
 * WORD   a slot, tag SLOT_BATCH: [63:4] entry / 16. It stands for the entry's old word until the operation is
 *        decided COMMITTED, for its next word from then on.
 *        status: UNDECIDED, then COMMITTED or FAILED for good.
 *        users: [31] RETIRED   [30:0] threads that may still plant
 * EDGES  (columns: step, who may, order, pairs with, if it loses)
 *   K1   users + 1                        helper         fetch_add acq_rel   K6           cannot
 *   K2   slot: old -> entry (plant)       owner, helper  CAS acq_rel         every load   look again; K3 FAILED
 *   K3   status: COMMITTED, all planted; FAILED   owner, helper   CAS acq_rel (LP)   K4     decided already
 *   K4   what does the slot stand for?    anybody        load acquire        K3           -
 *   K5   slot: entry -> old or next       anybody        CAS acq_rel         every load   another has done it
 *   K6   users - 1; if 0: := RETIRED, retire   owner, helper   fetch_sub acq_rel, CAS acq_rel   K1
 * INVARIANTS
 *   I1 K3 COMMITTED only after each entry was seen in its slot, and only K5, after K3, takes one out: at the
 *      moment of K3 all slots hold their entries, and with it all of them change.
 *   I2 a word that a slot held never comes back while somebody may still expect it: nodes are not reused
 *      within the read section in which they were loaded, positions and frees are unique. But a slot that got
 *      its old word back (FAILED, or next == old) can be planted again by a helper who fell asleep before K2.
 *      That entry stands for the very word it took the place of, and its planter takes it out (K5) before its
 *      own K6.
 *   I3 who may plant is counted: K1 comes before the look at status, K6 after the last K5. A thread whose K1
 *      finds RETIRED, or comes after K3, sees the status decided and plants nothing. So when users is 0 for
 *      the first time no slot holds an entry, none will again, and memory needs but a grace period for those
 *      who look.
 *   I4 old words stay readable: the owner retires what they stand for when all slots are rid of the entries.
 * LIFETIME  descriptors are nodes; entries are found in slots in a read section.
 * PROGRESS  lock-free. Slots are planted in the order of page ids. Who meets another's undecided entry
 *           decides itself FAILED: of the operations that stand in each other's way the one that holds the
 *           highest page is in nobody's way. Whoever tries again first helps what it finds in its slots (K1),
 *           so an owner who sleeps holds nobody up. Single-page updates help likewise, readers never have to.
 * FAILURE   none once the descriptor is there.
 * NOT HERE  what the words mean, records, versions (batch.c).
 * REFS      Harris, Fraser, Pratt: A Practical Multi-Word Compare-and-Swap Operation (2002); Wang et al.:
 *           Easy Lock-Free Indexing in Non-Volatile Memory (PMwCAS, 2018). In place of their RDCSS: I2, I3.
 */
#include "pagecache/pagecache_private.h"

#include <sched.h>

enum mcas_status { MCAS_UNDECIDED = 0, MCAS_COMMITTED = 1, MCAS_FAILED = 2 };

#define USERS_RETIRED ((uint32_t)1 << 31)
#define ENTRY_ALIGN 16u

struct mcas_entry {
    _Alignas(ENTRY_ALIGN) struct scree__mcas *mcas;
    _Atomic uint64_t *slot;
    uint64_t old, next;
};

struct scree__mcas {
    struct scree__node *node; /* whose payload this is */
    _Atomic uint32_t status;
    _Atomic uint32_t users;
    uint32_t n;
    struct mcas_entry entry[]; /* set before the first K2 */
};

static uint64_t
entry_word(const struct mcas_entry *e)
{
    return (uint64_t)(uintptr_t)e | SLOT_BATCH;
}

static struct mcas_entry *
word_entry(uint64_t word)
{
    return (struct mcas_entry *)(uintptr_t)(word & ~SLOT_TAG_MASK);
}

static uint32_t
status_of(const struct scree__mcas *m)
{
    return atomic_load_explicit(&m->status, memory_order_acquire); /* K4 */
}

struct scree__mcas *
scree__mcas_new(struct scree__context *ctx, uint32_t n)
{
    struct scree__mcas *m;
    size_t bytes = sizeof *m + n * sizeof m->entry[0] + ENTRY_ALIGN;
    struct scree__node *node = scree__node_new(ctx, NODE_MCAS, bytes, 1);

    if (node == NULL)
        return NULL;
    m = (struct scree__mcas *)(void *)(node->payload +
                                       (-(uintptr_t)node->payload & (ENTRY_ALIGN - 1)));
    m->node = node;
    m->n = n;
    atomic_init(&m->status, MCAS_UNDECIDED);
    atomic_init(&m->users, 1); /* the owner */
    return m;
}

void
scree__mcas_discard(struct scree__context *ctx, struct scree__mcas *m)
{
    if (m != NULL)
        scree__node_discard(ctx, m->node);
}

void
scree__mcas_set(struct scree__mcas *m, uint32_t i, struct scree__radix_ref ref, uint64_t old,
                uint64_t next)
{
    m->entry[i] =
        (struct mcas_entry){.mcas = m, .slot = scree__radix_word(ref), .old = old, .next = next};
}

/* K5 */
static void
entry_clear(struct mcas_entry *e, uint32_t status)
{
    uint64_t mine = entry_word(e);

    atomic_compare_exchange_strong_explicit(e->slot, &mine,
                                            status == MCAS_COMMITTED ? e->next : e->old,
                                            memory_order_acq_rel, memory_order_relaxed);
}

/* K2. False: it cannot be, so far as we know. */
static bool
entry_plant(struct mcas_entry *e)
{
    for (;;) {
        uint64_t word = atomic_load_explicit(e->slot, memory_order_acquire);

        if (word == entry_word(e))
            return true;
        if (slot_tag(word) == SLOT_BATCH) {
            struct mcas_entry *other = word_entry(word);
            uint32_t status = status_of(other->mcas);

#ifndef SCREE_BUG_MCAS_PUSH_OUT /* seeded: taken out before it is decided; sched_pairs must fail */
            if (status == MCAS_UNDECIDED)
                return false;
#endif
            entry_clear(other, status);
            continue;
        }
        if (word != e->old)
            return false;
#ifdef SCREE_BUG_MCAS_PLAIN_PLANT
        (void)sched_yield(); /* a window that is hit in seconds */
#else
        if (status_of(e->mcas) != MCAS_UNDECIDED)
            return true; /* nothing depends on it any more */
#endif
        SCREE_YIELD_POINT();
        if (atomic_compare_exchange_strong_explicit(e->slot, &word, entry_word(e),
                                                    memory_order_acq_rel, memory_order_acquire))
            return true;
    }
}

/* K2 for all, K3 */
static void
mcas_decide(struct scree__mcas *m)
{
    uint32_t undecided = MCAS_UNDECIDED, to = MCAS_COMMITTED;

    for (uint32_t i = 0; i < m->n && to == MCAS_COMMITTED; i++) {
        if (!entry_plant(&m->entry[i]))
            to = MCAS_FAILED;
#ifdef SCREE_BUG_MCAS_EARLY
        entry_clear(&m->entry[i], MCAS_COMMITTED); /* seeded: installed before it is decided */
#endif
    }
    SCREE_YIELD_POINT();
    atomic_compare_exchange_strong_explicit(&m->status, &undecided, to, memory_order_acq_rel,
                                            memory_order_relaxed); /* LP */
}

static void
mcas_clear(struct scree__mcas *m)
{
    uint32_t status = status_of(m);

    for (uint32_t i = 0; i < m->n; i++) {
        uint64_t word =
            atomic_load_explicit(m->entry[i].slot, memory_order_relaxed); /* K5 is next */

        SCREE_YIELD_POINT();
        if (word == entry_word(&m->entry[i]))
            entry_clear(&m->entry[i], status);
    }
}

bool
scree__mcas_run(struct scree__mcas *m)
{
    mcas_decide(m);
    mcas_clear(m);
    return status_of(m) == MCAS_COMMITTED;
}

void
scree__mcas_release(struct scree__context *ctx, struct scree__mcas *m)
{
    uint32_t none = 0;

    /* K6. Acquire: all that the others did; release: what we did. */
    if (atomic_fetch_sub_explicit(&m->users, 1, memory_order_acq_rel) == 1 &&
        atomic_compare_exchange_strong_explicit(&m->users, &none, USERS_RETIRED,
                                                memory_order_acq_rel, memory_order_relaxed))
        scree__chain_retire_as_one(ctx, m->node);
}

uint64_t
scree__slot_resolved(uint64_t word)
{
    const struct mcas_entry *e = word_entry(word);

#ifdef SCREE_BUG_MCAS_PEEK
    return e->next; /* seeded: shown before it is decided; stress_batch_linear must fail */
#endif
    return status_of(e->mcas) == MCAS_COMMITTED ? e->next : e->old;
}

int
scree__slot_help(struct scree__context *ctx, struct scree__radix_ref ref, uint64_t *word_io)
{
    while (slot_tag(*word_io) == SLOT_BATCH) {
        struct scree__mcas *m = word_entry(*word_io)->mcas;

        if (!scree__retire_ready(ctx))
            return SCREE_E_NO_MEMORY;
#ifdef SCREE_BUG_MCAS_PLAIN_PLANT
        /* Seeded: a helper plants by a mere CAS, whether or not the operation is over by then. */
        mcas_decide(m);
        entry_clear(word_entry(*word_io), status_of(m));
#else
        atomic_fetch_add_explicit(&m->users, 1, memory_order_acq_rel); /* K1 */
        if (status_of(m) == MCAS_UNDECIDED)
            mcas_decide(m);
        mcas_clear(m);
        scree__mcas_release(ctx, m);
#endif
        /* Acquire: whatever is there now. */
        *word_io = atomic_load_explicit(scree__radix_word(ref), memory_order_acquire);
    }
    return 0;
}
