/*
 * order_itself.c - the checker of histories against Wing and Gong's search, on random histories that are small
 * enough for it.
 */
#include "order.h"
#include "tokens.h"

#include <inttypes.h>
#include <string.h>

#define THREADS 3u
#define CALLS 5u /* a thread */

struct small {
    struct order_call call[THREADS * CALLS]; /* by threads */
    struct order_step step[THREADS * CALLS][ORDER_STEPS];
    uint32_t n[THREADS];
    uint64_t seen[64]; /* versions that were */
    uint32_t seen_n;
};

static uint64_t
version_pick(const struct small *h, const struct order_page *p, uint64_t *random)
{
    if (kit_below(random, 4) != 0)
        return p->version;
    return h->seen[kit_below(random, h->seen_n)];
}

static uint64_t
version_new(struct small *h, uint64_t above, uint64_t *random)
{
    uint64_t version = above + 1 + kit_below(random, 6);

    h->seen[h->seen_n % 64] = version;
    h->seen_n += h->seen_n < 63;
    return version;
}

static void
batch_make(struct small *h, struct order_call *c, struct order_step *step,
           const struct order_state *now, uint64_t *random)
{
    static const uint8_t kinds[8] = {ORDER_SET,   ORDER_MERGE, ORDER_MERGE, ORDER_CHECK,
                                     ORDER_CHECK, ORDER_CHECK, ORDER_FREE,  ORDER_ALLOCATE};
    bool checks_only = kit_below(random, 3) == 0;

    c->steps = (uint8_t)(1 + kit_below(random, 3));
    for (uint32_t i = 0; i < c->steps; i++) {
        struct order_step *s = &step[i];
        const struct order_page *p;

        s->kind = checks_only ? (uint8_t)ORDER_CHECK : kinds[kit_below(random, 8)];
        s->page = (uint8_t)((i + kit_below(random, 2)) % 3);
        for (uint32_t j = 0; j < i; j++) /* one step a page but for those that go together */
            if (step[j].page == s->page)
                s->kind = s->kind == ORDER_CHECK ? ORDER_CHECK : ORDER_MERGE;
        p = &now->page[s->page];
        s->token = kit_below(random, 4);
        s->expected = s->kind == ORDER_ALLOCATE ? 0 : version_pick(h, p, random);
    }
}

/* What the batch is told in this state. */
static void
batch_answer(struct small *h, struct order_call *c, const struct order_step *step,
             struct order_state *now, uint64_t *random)
{
    struct order_state after = *now;
    uint64_t above = 0, largest = 0;
    bool writes = false;

    for (uint32_t i = 0; i < c->steps; i++) {
        const struct order_page *p = &now->page[step[i].page];

        writes |= step[i].kind != ORDER_CHECK;
        above = p->version > above ? p->version : above;
        largest = step[i].expected > largest ? step[i].expected : largest;
        c->page = step[i].page;
        c->code = !p->live && step[i].kind != ORDER_ALLOCATE ? SCREE_E_NOT_FOUND
                  : p->live && (step[i].kind == ORDER_ALLOCATE || step[i].expected != p->version)
                      ? SCREE_E_CONFLICT
                      : 0;
        if (c->code != 0)
            return;
    }
    c->version = writes ? version_new(h, above, random) : largest;
    if (order_apply(c, step, &after))
        *now = after;
    else /* steps that do not go together: whatever it was, nothing happened */
        c->code = SCREE_E_CONFLICT;
}

static void
single_answer(struct small *h, struct order_call *c, struct order_state *now, uint64_t *random)
{
    struct order_page *p = &now->page[c->page];

    c->expected = version_pick(h, p, random);
    c->value = kit_below(random, 4);
    if (c->kind == ORDER_ALLOCATE && !p->live && kit_below(random, 3) == 0) {
        c->code = SCREE_E_BUSY;
    } else if (c->kind != ORDER_ALLOCATE && !p->live) {
        c->code = SCREE_E_NOT_FOUND;
    } else if (c->kind == ORDER_READ) {
        c->value = p->content;
        c->version = p->version;
    } else if ((c->kind == ORDER_ALLOCATE && p->live) ||
               ((c->kind == ORDER_SET || c->kind == ORDER_MERGE || c->kind == ORDER_FREE) &&
                c->expected != p->version)) {
        c->code = SCREE_E_CONFLICT;
        c->version = p->version;
    } else {
        c->version = version_new(h, p->version, random);
        KIT_CHECK(order_apply(c, NULL, now), "the test's own");
    }
}

/* Calls happen one after the other, at moments 40 apart, and last for a while around them. */
static void
small_make(struct small *h, const struct order_state *start, uint64_t *random)
{
    struct order_state now = *start;
    uint64_t ended[THREADS] = {0};

    memset(h, 0, sizeof(*h));
    h->seen[h->seen_n++] = start->page[0].version;
    for (uint64_t moment = 1000; moment < 1000 + 40 * THREADS * CALLS; moment += 40) {
        uint32_t t = (uint32_t)kit_below(random, THREADS);
        uint32_t i = t * CALLS + h->n[t];
        struct order_call *c = &h->call[i];
        uint64_t before = kit_below(random, 120), after = kit_below(random, 120);

        if (h->n[t] == CALLS || ended[t] >= moment)
            continue;
        h->n[t]++;
        c->kind = (uint8_t)kit_below(random, ORDER_KINDS);
        c->kind = c->kind == ORDER_CHECK ? ORDER_BATCH : c->kind;
        c->page = (uint8_t)kit_below(random, 3);
        c->start = moment - before > ended[t] ? moment - before : ended[t] + 1;
        c->end = ended[t] = moment + after;
        if (c->kind == ORDER_BATCH) {
            batch_make(h, c, h->step[i], &now, random);
            batch_answer(h, c, h->step[i], &now, random);
            c->value = i * ORDER_STEPS;
        } else {
            single_answer(h, c, &now, random);
        }
    }
}

/* One thing is another. Calls of one thread stay one after the other. */
static void
small_spoil(struct small *h, uint64_t *random)
{
    uint32_t t = (uint32_t)kit_below(random, THREADS);
    struct order_call *c;
    uint32_t i;

    if (h->n[t] == 0)
        return;
    i = t * CALLS + (uint32_t)kit_below(random, h->n[t]);
    c = &h->call[i];
    switch (kit_below(random, 6)) {
    case 0:
        c->version = h->seen[kit_below(random, h->seen_n)];
        break;
    case 1:
        c->start = c->end - kit_below(random, c->end - c->start + 1);
        break;
    case 2:
        c->end = c->start + kit_below(random, c->end - c->start + 1);
        break;
    case 3:
        c->expected = h->seen[kit_below(random, h->seen_n)];
        h->step[i][0].expected = h->seen[kit_below(random, h->seen_n)];
        break;
    case 4:
        c->value += c->kind != ORDER_BATCH;
        h->step[i][0].token++;
        break;
    default:
        c->code = c->code != 0 ? 0 : c->kind == ORDER_READ ? SCREE_E_NOT_FOUND : SCREE_E_CONFLICT;
    }
}

static bool
small_apply(const void *ctx, uint32_t i, void *state)
{
    const struct small *h = ctx;
    uint32_t t = 0;

    for (; i >= h->n[t]; t++)
        i -= h->n[t];
    i += t * CALLS;
    return order_apply(&h->call[i], h->step[i], state);
}

bool
order_check_itself(struct order_checker *k, uint64_t *random)
{
    struct order_state start = {.page = {{8, 5, 1}, {8, 6, 1}, {8, 7, kit_below(random, 2)}}};
    struct order_state state = start;
    struct tokens_history t = {.state_bytes = sizeof(start), .apply = small_apply};
    struct order_calls calls[THREADS];
    static struct small h;
    const char *why;
    bool found;

    small_make(&h, &start, random);
    for (uint64_t i = kit_below(random, 3); i > 0; i--)
        small_spoil(&h, random);
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        calls[thread] = (struct order_calls){
            .call = &h.call[thread * CALLS], .n = h.n[thread], .step = h.step[0]};
        for (uint32_t i = 0; i < h.n[thread]; i++) {
            t.start[t.n] = h.call[thread * CALLS + i].start;
            t.end[t.n++] = h.call[thread * CALLS + i].end;
        }
    }
    t.ctx = &h;
    found = tokens_search(&t, &start);
    why = order_check(k, calls, THREADS, &state);
    if (found != (why == NULL)) {
        order_print(calls, THREADS, 0, UINT64_MAX);
        KIT_CHECK(false, "the search %s this history, the fast checker %s%s",
                  found ? "explains" : "refuses", found ? "refuses it: " : "does not",
                  why != NULL ? why : "");
    }
    return found;
}
