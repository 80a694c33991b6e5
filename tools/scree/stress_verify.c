/*
 * stress_verify.c - the parent's judgement: journal against what was recovered.
 *
 * WHAT HOLDS
 *   V1  Both looks are the same: recovery is idempotent, a crash right after open changes nothing.
 *   V2  R = the newest version recovered, or what was acknowledged durable if that is more. A freed page
 *       shows no version: if one is gone whose free comes later, R is at least that. The log is one
 *       sequence, so every journaled update with a version <= R must be there (prefix, P1), and none above.
 *       Versions grow within a thread: for each thread that is a prefix of its journal, cut at R.
 *   V3  Each private page is exactly what that cut makes of it: id, version, count, digest; a freed page is
 *       gone, an allocated one lives, and nothing else does. Only the one call that was under way when the
 *       kill came may be there or not, and only behind a whole journal.
 *   V4  Each ledger holds every thread's updates up to its cut, in the order of their versions: its digest
 *       is that of exactly this sequence. A call under way has its place by its writer's row.
 *   V5  An update that named a version came directly behind it: no two succeeded from one base.
 *   V6  No version was given twice, and none that any earlier worker could have been given came again.
 * What was recovered then becomes the model, and the journal is empty: it stays bounded.
 */
#include "stress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_FOUND_HERE UINT64_MAX

/* A journaled update of a ledger. */
struct entry {
    const struct stress_op *op;
    uint32_t thread;
    bool kept; /* at or below the cut */
};

struct verify {
    struct stress_shared *s;
    const struct stress_look *look;
    uint64_t limit; /* R; UINT64_MAX after a clean close */
    uint64_t acked;
    uint64_t newest; /* version of anything seen */
    struct stress_verdict *verdict;
    uint64_t *found_of; /* [threads * SLOTS + ledgers]: index into look->found or NOT_FOUND_HERE */
    uint64_t cut[STRESS_THREADS_MAX]; /* journal entries kept */
    struct entry *entries;            /* of ledgers, by ledger, then version */
    uint64_t entries_n;
};

static uint64_t
journal_n(const struct verify *v, unsigned t)
{
    /* Acquire: pairs with the worker's release; it is dead, waitpid has ordered the rest. */
    return atomic_load_explicit(&v->s->thread[t].n, memory_order_acquire);
}

/* The call of thread t that was under way when the kill came, if it may have been recovered. */
static const struct stress_op *
in_flight(const struct verify *v, unsigned t)
{
    uint64_t n = journal_n(v, t);
    const struct stress_op *op = &v->s->thread[t].journal[n];

    if (v->cut[t] != n || atomic_load_explicit(&op->state, memory_order_acquire) != STRESS_INTENT)
        return NULL;
    return op;
}

/* ---- V1, and which page is which ------------------------------------------------------------------ */

static void
compare_looks(struct verify *v)
{
    const struct stress_look *a = &v->s->looks[0], *b = &v->s->looks[1];

    if (a->n != b->n)
        stress_wrong(v->s, "opened twice: %" PRIu64 " live pages, then %" PRIu64, a->n, b->n);
    for (uint64_t i = 0; i < a->n && i < b->n; i++) {
        if (memcmp(&a->found[i], &b->found[i], sizeof(a->found[i])) == 0)
            continue;
        stress_wrong(v->s,
                     "opened twice: page %" PRIu64 " version %" PRIu64 " count %" PRIu64
                     ", then page %" PRIu64 " version %" PRIu64 " count %" PRIu64,
                     a->found[i].id, a->found[i].version, a->found[i].head.count, b->found[i].id,
                     b->found[i].version, b->found[i].head.count);
    }
    if (!a->root_fine || !b->root_fine)
        stress_wrong(v->s, "the root page is not live and empty");
}

/* Where the page with this tag belongs in found_of; NOT_FOUND_HERE: nowhere. */
static uint64_t
place_of(const struct verify *v, const struct stress_head *head)
{
    uint64_t index;

    if (head->tag & STRESS_TAG_LEDGER) {
        index = head->tag & ~STRESS_TAG_LEDGER;
        return index < STRESS_LEDGERS ? (uint64_t)v->s->threads * STRESS_SLOTS + index
                                      : NOT_FOUND_HERE;
    }
    index = (head->tag >> 32 & 0xffff);
    return head->tag >> 48 < v->s->threads && index < STRESS_SLOTS
               ? (head->tag >> 48) * STRESS_SLOTS + index
               : NOT_FOUND_HERE;
}

static void
sort_found(struct verify *v)
{
    uint64_t places = (uint64_t)v->s->threads * STRESS_SLOTS + STRESS_LEDGERS;

    for (uint64_t p = 0; p < places; p++)
        v->found_of[p] = NOT_FOUND_HERE;
    for (uint64_t i = 0; i < v->look->n; i++) {
        const struct stress_found *f = &v->look->found[i];
        uint64_t place;

        v->newest = f->version > v->newest ? f->version : v->newest;
        if (f->problem != STRESS_FINE) {
            stress_wrong(v->s, "page %" PRIu64 " version %" PRIu64 " after recovery: %s %s", f->id,
                         f->version,
                         f->problem == STRESS_UNREADABLE ? "cannot be read:" : "is not whole",
                         f->problem == STRESS_UNREADABLE ? scree_strerror(f->code) : "");
            if (f->problem == STRESS_UNREADABLE)
                continue;
        }
        place = place_of(v, &f->head);
        if (place == NOT_FOUND_HERE)
            stress_wrong(v->s, "page %" PRIu64 " version %" PRIu64 " is live, but nobody made it",
                         f->id, f->version);
        else if (v->found_of[place] != NOT_FOUND_HERE)
            stress_wrong(v->s,
                         "pages %" PRIu64 " and %" PRIu64 " are both live as thread %" PRIu64
                         "'s page %" PRIu64 ": a freed one came back",
                         v->look->found[v->found_of[place]].id, f->id, place / STRESS_SLOTS,
                         place % STRESS_SLOTS);
        else
            v->found_of[place] = i;
    }
}

/* ---- V2, V3: the cut, private pages ----------------------------------------------------------------- */

/* Raises R to frees of thread t beyond it that were recovered; whether there was one. */
static bool
frees_raise(struct verify *v, unsigned t, struct stress_slot *slots)
{
    uint64_t n = journal_n(v, t), reach = v->limit;

    memcpy(slots, v->s->thread[t].slots, sizeof(v->s->thread[t].slots));
    for (uint64_t i = 0; i < n; i++) {
        const struct stress_op *op = &v->s->thread[t].journal[i];

        if (op->kind >= STRESS_LEDGER_SET)
            continue;
        if (op->version <= v->limit)
            (void)stress_slot_apply(&slots[op->target], op, t, v->s->epoch);
        else if (op->kind == STRESS_FREE && slots[op->target].id == op->page &&
                 v->found_of[t * STRESS_SLOTS + op->target] == NOT_FOUND_HERE &&
                 op->version > reach)
            reach = op->version;
    }
    if (reach == v->limit)
        return false;
    v->limit = reach;
    return true;
}

/* R: see V2. Raising it for one thread may show that another one's free is in, too. */
static void
find_limit(struct verify *v, struct stress_slot (*slots)[STRESS_SLOTS])
{
    bool raised = true;

    v->limit = v->newest > v->acked ? v->newest : v->acked;
    while (raised) {
        raised = false;
        for (unsigned t = 0; t < v->s->threads; t++)
            raised |= frees_raise(v, t, slots[t]);
    }
}

/* Replays the journal up to R into slots and ledger_seq; counts; checks V6 within the thread. */
static void
replay(struct verify *v, unsigned t, struct stress_slot *slots, uint64_t *ledger_seq)
{
    const struct stress_thread *thread = &v->s->thread[t];
    uint64_t n = journal_n(v, t), last = v->s->version_floor;

    v->cut[t] = 0;
    for (uint64_t i = 0; i < n; i++) {
        const struct stress_op *op = &thread->journal[i];

        if (op->version <= last)
            stress_wrong(v->s,
                         "thread %u: %s of page %" PRIu64 " was given version %" PRIu64
                         ", but %" PRIu64 " had been given before",
                         t, stress_kind_names[op->kind], op->page, op->version, last);
        last = op->version;
        v->newest = last > v->newest ? last : v->newest;
        v->verdict->acked += op->version <= v->acked;
        if (op->version > v->limit) {
            v->verdict->unacked++;
            continue;
        }
        v->cut[t] = i + 1;
        v->verdict->kept++;
        if (op->kind >= STRESS_LEDGER_SET)
            ledger_seq[op->target] = op->seq;
        else
            (void)stress_slot_apply(&slots[op->target], op, t, v->s->epoch);
    }
}

static bool
slot_equal(const struct stress_slot *slot, const struct stress_found *found)
{
    if (found == NULL || slot->id == 0)
        return found == NULL && slot->id == 0;
    return slot->id == found->id && slot->version == found->version &&
           stress_slot_matches(slot, &found->head);
}

/* Whether the call under way explains what is there; then slot is what it made. */
static bool
slot_in_flight(const struct verify *v, unsigned t, uint32_t i, struct stress_slot *slot,
               const struct stress_found *found)
{
    const struct stress_op *op = in_flight(v, t);
    struct stress_op done;
    struct stress_slot after = *slot;

    if (op == NULL || op->kind >= STRESS_LEDGER_SET || op->target != i)
        return false;
    done = (struct stress_op){.seq = op->seq, .target = i, .kind = op->kind};
    if (op->kind != STRESS_FREE) {
        if (found == NULL || found->version <= slot->version ||
            found->version <= v->s->version_floor)
            return false;
        done.version = found->version;
        done.page = op->kind == STRESS_ALLOCATE ? found->id : slot->id;
    }
    (void)stress_slot_apply(&after, &done, t, v->s->epoch);
    if (!slot_equal(&after, found))
        return false;
    *slot = after;
    return true;
}

static void
report_slot(struct verify *v, unsigned t, uint32_t i, const struct stress_slot *slot,
            const struct stress_found *found)
{
    const struct stress_op *last = NULL;
    uint64_t must = slot->version;

    for (uint64_t k = 0; k < v->cut[t]; k++) {
        const struct stress_op *op = &v->s->thread[t].journal[k];

        if (op->kind < STRESS_LEDGER_SET && op->target == i)
            last = op;
    }
    if (last != NULL)
        must = last->version;
    v->verdict->lost++;
    stress_wrong(
        v->s,
        "thread %u's page %u: the last update that must be there is %s of page %" PRIu64
        " version %" PRIu64 " (%s; all up to %" PRIu64 " must be there), leaving count %" PRIu64
        "; found is page %" PRIu64 " version %" PRIu64 " count %" PRIu64,
        t, i, last != NULL ? stress_kind_names[last->kind] : "one of an earlier worker",
        last != NULL ? last->page : slot->id, must,
        must <= v->acked ? "acknowledged durable" : "not acknowledged, but older than others",
        v->limit, slot->count, found != NULL ? found->id : 0, found != NULL ? found->version : 0,
        found != NULL ? found->head.count : 0);
}

static void
verify_slots(struct verify *v, unsigned t, struct stress_slot *slots)
{
    for (uint32_t i = 0; i < STRESS_SLOTS; i++) {
        uint64_t at = v->found_of[t * STRESS_SLOTS + i];
        const struct stress_found *found = at != NOT_FOUND_HERE ? &v->look->found[at] : NULL;

        if (!slot_equal(&slots[i], found) && !slot_in_flight(v, t, i, &slots[i], found))
            report_slot(v, t, i, &slots[i], found);
    }
}

/* ---- V4, V5: ledgers -------------------------------------------------------------------------------- */

static int
entry_order(const void *pa, const void *pb)
{
    const struct entry *a = pa, *b = pb;

    if (a->op->target != b->op->target)
        return a->op->target < b->op->target ? -1 : 1;
    return a->op->version < b->op->version ? -1 : a->op->version > b->op->version;
}

static bool
collect_entries(struct verify *v)
{
    uint64_t n = 0;

    for (int pass = 0; pass < 2; pass++) {
        n = 0;
        for (unsigned t = 0; t < v->s->threads; t++)
            for (uint64_t i = 0; i < journal_n(v, t); i++) {
                const struct stress_op *op = &v->s->thread[t].journal[i];

                if (op->kind < STRESS_LEDGER_SET)
                    continue;
                if (pass == 1)
                    v->entries[n] = (struct entry){op, t, i < v->cut[t]};
                n++;
            }
        if (pass == 0 && (v->entries = malloc((n + 1) * sizeof(*v->entries))) == NULL)
            return false;
    }
    v->entries_n = n;
    qsort(v->entries, n, sizeof(*v->entries), entry_order);
    return true;
}

/* V5. A gap is possible only where a call under way may have come in between. */
static void
verify_chain(struct verify *v, uint32_t l, const struct entry *entries, uint64_t n)
{
    uint64_t previous = v->s->ledgers[l].version;
    bool unknown = false;

    for (unsigned t = 0; t < v->s->threads; t++) {
        const struct stress_op *op = &v->s->thread[t].journal[journal_n(v, t)];

        if (atomic_load_explicit(&op->state, memory_order_acquire) == STRESS_INTENT &&
            op->kind >= STRESS_LEDGER_SET && op->target == l)
            unknown = true;
    }
    for (uint64_t i = 0; i < n; i++) {
        const struct stress_op *op = entries[i].op;

        if (op->expected != 0 && op->expected != previous && !(unknown && op->expected > previous))
            stress_wrong(v->s,
                         "thread %u: %s of page %" PRIu64 " expected version %" PRIu64
                         " and succeeded as %" PRIu64 ", but the page was at %" PRIu64
                         ": the update in between is lost",
                         entries[i].thread, stress_kind_names[op->kind], op->page, op->expected,
                         op->version, previous);
        previous = op->version;
    }
}

/* The writers' rows against the cut; places calls under way. False if the sequence cannot be made. */
static bool
verify_rows(struct verify *v, uint32_t l, const struct stress_found *found,
            uint64_t ledger_seq[][STRESS_LEDGERS], struct entry *sequence, uint64_t total)
{
    uint64_t base = v->s->ledgers[l].count;
    bool fine = true;

    for (unsigned t = 0; t < v->s->threads; t++) {
        const struct stress_writer *row = &v->look->writers[l][t];
        const struct stress_op *op = in_flight(v, t);

        if (row->seq == ledger_seq[t][l])
            continue;
        if (op != NULL && op->kind >= STRESS_LEDGER_SET && op->target == l &&
            row->seq == ledger_seq[t][l] + 1 && row->ordinal > base &&
            row->ordinal - base <= total && sequence[row->ordinal - base - 1].op == NULL) {
            sequence[row->ordinal - base - 1] = (struct entry){op, t, true};
            ledger_seq[t][l] = row->seq;
            continue;
        }
        fine = false;
        v->verdict->lost++;
        stress_wrong(v->s,
                     "shared page %" PRIu64 " version %" PRIu64 " holds %" PRIu64
                     " of thread %u's %" PRIu64
                     " updates that must be there (acknowledged durable up to %" PRIu64
                     ", all up to %" PRIu64 " must be there)",
                     found->id, found->version, row->seq, t, ledger_seq[t][l], v->acked, v->limit);
    }
    return fine;
}

static void
verify_sequence(struct verify *v, uint32_t l, const struct stress_found *found,
                const struct entry *sequence, uint64_t total)
{
    uint64_t digest = v->s->ledgers[l].digest, version = v->s->ledgers[l].version;
    bool last_known = true;

    for (uint64_t i = 0; i < total; i++) {
        digest = stress_fold(digest, sequence[i].thread, sequence[i].op->seq, v->s->epoch);
        last_known = sequence[i].op->version != 0;
        version = last_known ? sequence[i].op->version : version;
    }
    if (digest != found->head.digest)
        stress_wrong(v->s,
                     "shared page %" PRIu64 " version %" PRIu64
                     ": its updates are not in the order of their versions",
                     found->id, found->version);
    if (last_known ? found->version != version : found->version <= version)
        stress_wrong(v->s,
                     "shared page %" PRIu64 " has version %" PRIu64 ", its newest update %" PRIu64,
                     found->id, found->version, version);
}

static bool
verify_ledger(struct verify *v, uint32_t l, uint64_t ledger_seq[][STRESS_LEDGERS],
              const struct entry *entries, uint64_t n)
{
    uint64_t at = v->found_of[(uint64_t)v->s->threads * STRESS_SLOTS + l], kept = 0, total,
             next = 0;
    const struct stress_found *found;
    struct entry *sequence;

    verify_chain(v, l, entries, n);
    if (at == NOT_FOUND_HERE || v->look->found[at].id != v->s->ledgers[l].id) {
        v->verdict->lost++;
        stress_wrong(v->s, "shared page %" PRIu64 " is gone", v->s->ledgers[l].id);
        return true;
    }
    found = &v->look->found[at];
    for (uint64_t i = 0; i < n; i++)
        kept += entries[i].kept;
    total = found->head.count - v->s->ledgers[l].count;
    if (total < kept || total > kept + v->s->threads) {
        v->verdict->lost++;
        stress_wrong(v->s,
                     "shared page %" PRIu64 " version %" PRIu64 " has %" PRIu64
                     " new updates, must have %" PRIu64,
                     found->id, found->version, total, kept);
        return true;
    }
    sequence = calloc(total + 1, sizeof(*sequence));
    if (sequence == NULL)
        return false;
    if (verify_rows(v, l, found, ledger_seq, sequence, total)) {
        for (uint64_t i = 0; i < n; i++) {
            while (next < total && sequence[next].op != NULL)
                next++;
            if (entries[i].kept && next < total)
                sequence[next] = entries[i];
        }
        while (next < total && sequence[next].op != NULL)
            next++;
        if (next == total)
            verify_sequence(v, l, found, sequence, total);
        else
            stress_wrong(v->s, "shared page %" PRIu64 " holds updates nobody made", found->id);
    }
    free(sequence);
    v->s->ledgers[l].version = found->version;
    v->s->ledgers[l].count = found->head.count;
    v->s->ledgers[l].digest = found->head.digest;
    return true;
}

static bool
verify_ledgers(struct verify *v, uint64_t ledger_seq[][STRESS_LEDGERS])
{
    uint64_t from = 0;

    if (!collect_entries(v))
        return false;
    for (uint32_t l = 0; l < STRESS_LEDGERS; l++) {
        uint64_t to = from;

        while (to < v->entries_n && v->entries[to].op->target == l)
            to++;
        if (!verify_ledger(v, l, ledger_seq, v->entries + from, to - from))
            return false;
        from = to;
    }
    return true;
}

/* ---- V6 across threads ------------------------------------------------------------------------------ */

static void
verify_unique(struct verify *v)
{
    uint64_t at[STRESS_THREADS_MAX] = {0}, previous = 0;

    /* Each journal grows: merge them. */
    for (;;) {
        unsigned best = v->s->threads;
        uint64_t version = UINT64_MAX;

        for (unsigned t = 0; t < v->s->threads; t++)
            if (at[t] < journal_n(v, t) && v->s->thread[t].journal[at[t]].version < version) {
                best = t;
                version = v->s->thread[t].journal[at[t]].version;
            }
        if (best == v->s->threads)
            return;
        if (version == previous)
            stress_wrong(v->s, "version %" PRIu64 " was given to two updates", version);
        previous = version;
        at[best]++;
    }
}

/* ---- all of it ---------------------------------------------------------------------------------------- */

static void
rebase(struct verify *v, unsigned t, const struct stress_slot *slots, const uint64_t *ledger_seq)
{
    struct stress_thread *thread = &v->s->thread[t];
    uint64_t n = journal_n(v, t);

    for (uint32_t i = 0; i < STRESS_SLOTS; i++) {
        uint32_t allocations = thread->slots[i].allocations;

        thread->slots[i] = slots[i];
        thread->slots[i].allocations = allocations;
    }
    for (uint64_t i = 0; i <= n; i++) {
        const struct stress_op *op = &thread->journal[i];

        /* Lost ones too, and one under way: they may be on disk, and no tag may come twice. */
        if (op->kind == STRESS_ALLOCATE && op->seq > thread->slots[op->target].allocations)
            thread->slots[op->target].allocations = (uint32_t)op->seq;
    }
    memcpy(thread->ledger_seq, ledger_seq, sizeof(thread->ledger_seq));
    memset(thread->journal, 0, (n + 1) * sizeof(*thread->journal));
    atomic_store_explicit(&thread->n, 0, memory_order_relaxed); /* fork publishes it */
}

static bool
verify_all(struct verify *v, struct stress_slot (*slots)[STRESS_SLOTS],
           uint64_t ledger_seq[][STRESS_LEDGERS])
{
    struct stress_shared *s = v->s;

    compare_looks(v);
    sort_found(v);
    if (v->limit == 0)
        find_limit(v, slots);
    for (unsigned t = 0; t < s->threads; t++) {
        memcpy(slots[t], s->thread[t].slots, sizeof(slots[t]));
        memcpy(ledger_seq[t], s->thread[t].ledger_seq, sizeof(ledger_seq[t]));
        replay(v, t, slots[t], ledger_seq[t]);
        verify_slots(v, t, slots[t]);
    }
    if (!verify_ledgers(v, ledger_seq))
        return false;
    verify_unique(v);
    for (unsigned t = 0; t < s->threads; t++)
        rebase(v, t, (const struct stress_slot *)slots[t], ledger_seq[t]);
    s->version_floor = v->newest > s->version_floor ? v->newest : s->version_floor;
    return true;
}

bool
stress_verify(struct stress_shared *s, bool clean, struct stress_verdict *verdict_out)
{
    struct verify v = {
        .s = s, .look = &s->looks[1], .limit = clean ? UINT64_MAX : 0, .verdict = verdict_out};
    struct stress_slot(*slots)[STRESS_SLOTS] = calloc(s->threads, sizeof(*slots));
    uint64_t(*ledger_seq)[STRESS_LEDGERS] = calloc(s->threads, sizeof(*ledger_seq));
    bool fine;

    memset(verdict_out, 0, sizeof(*verdict_out));
    v.acked = clean ? UINT64_MAX : atomic_load_explicit(&s->acked_lsn, memory_order_acquire);
    v.found_of = calloc((size_t)s->threads * STRESS_SLOTS + STRESS_LEDGERS, sizeof(*v.found_of));
    fine = slots != NULL && ledger_seq != NULL && v.found_of != NULL &&
           verify_all(&v, slots, ledger_seq);
    free(slots);
    free(ledger_seq);
    free(v.found_of);
    free(v.entries);
    return fine;
}
