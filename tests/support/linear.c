/*
 * linear.c - see linear.h. Wing and Gong's search; histories are short.
 */
#include "linear.h"

#include "tokens.h"

#include <inttypes.h>

static const char *const kind_names[] = {"read", "set",      "merge", "append", "put",
                                         "free", "allocate", "check", "batch"};

/* What a successful update of this kind, told as this version, makes of a page. */
static bool
page_update(struct linear_page *p, enum linear_kind kind, uint64_t token, uint64_t version)
{
    if (version <= p->version_max)
        return false;
    p->version = p->version_max = version;
    p->live = kind != LINEAR_FREE;
    p->content = tokens_add(kind == LINEAR_MERGE || kind == LINEAR_APPEND ? p->content : 0, token);
    return true;
}

static bool
single_apply(const struct linear_call *c, struct linear_page *p)
{
    const struct linear_step *s = &c->step[0];
    bool versioned = c->kind == LINEAR_SET || c->kind == LINEAR_MERGE || c->kind == LINEAR_FREE;

    if (c->kind == LINEAR_ALLOCATE) {
        if (c->code == SCREE_E_BUSY)
            return !p->live;
        if (c->code == SCREE_E_CONFLICT)
            return p->live && c->version == p->version;
        return c->code == 0 && !p->live && page_update(p, c->kind, s->token, c->version);
    }
    if (c->code == SCREE_E_NOT_FOUND)
        return !p->live;
    if (!p->live)
        return false;
    if (c->code == SCREE_E_CONFLICT)
        return versioned && s->expected != p->version && c->version == p->version;
    if (c->code != 0 || (versioned && s->expected != p->version))
        return false;
    if (c->kind == LINEAR_READ)
        return c->version == p->version && c->content == p->content;
    return page_update(p, c->kind, s->token, c->version);
}

/* A batch names a page that was not as a step wanted it, or nothing was otherwise than wanted. */
static bool
batch_apply(const struct linear_call *c, struct linear_state *state)
{
    bool moved = false;
    bool written[LINEAR_PAGES] = {false};

    for (uint32_t i = 0; i < c->steps; i++) {
        const struct linear_page *p = &state->page[c->step[i].page];
        bool differs = c->step[i].kind == LINEAR_ALLOCATE
                           ? p->live
                           : p->live && c->step[i].expected != p->version;
        bool gone = c->step[i].kind != LINEAR_ALLOCATE && !p->live;

        if (c->step[i].page == c->conflict &&
            ((differs && c->code == SCREE_E_CONFLICT) || (gone && c->code == SCREE_E_NOT_FOUND)))
            return true;
        moved = moved || differs || gone;
    }
    if (c->code != 0 || moved)
        return false;
    for (uint32_t i = 0; i < c->steps; i++) {
        struct linear_page *p = &state->page[c->step[i].page];

        if (c->step[i].kind == LINEAR_CHECK)
            continue;
        if (written[c->step[i].page])
            p->version_max--; /* all steps of a batch have one version */
        if (!page_update(p, c->step[i].kind, c->step[i].token, c->version))
            return false;
        written[c->step[i].page] = true;
    }
    return true;
}

static bool
call_apply(const struct linear_call *c, struct linear_state *state)
{
    return c->kind == LINEAR_BATCH ? batch_apply(c, state)
                                   : single_apply(c, &state->page[c->step[0].page]);
}

/* Depth at most LINEAR_CALLS. */
static bool
search(const struct linear_history *h, uint32_t placed, const struct linear_state *state)
{
    uint64_t first_end = UINT64_MAX;

    if (placed == (uint32_t)(((uint64_t)1 << h->n) - 1))
        return true;
    for (uint32_t i = 0; i < h->n; i++)
        if ((placed >> i & 1) == 0 && h->call[i].end < first_end)
            first_end = h->call[i].end;
    for (uint32_t i = 0; i < h->n; i++) {
        struct linear_state after = *state;

        /* A call that began after another one's end comes after it. */
        if ((placed >> i & 1) != 0 || h->call[i].start > first_end)
            continue;
        if (call_apply(&h->call[i], &after) && search(h, placed | (uint32_t)1 << i, &after))
            return true;
    }
    return false;
}

static bool
writes(const struct linear_call *c)
{
    bool any = c->kind != LINEAR_READ && c->kind != LINEAR_BATCH;

    for (uint32_t i = 0; i < c->steps; i++)
        any = any || (c->kind == LINEAR_BATCH && c->step[i].kind != LINEAR_CHECK);
    return any && c->code == 0;
}

bool
linear_explains(const struct linear_history *h, const struct linear_state *start)
{
    KIT_CHECK(h->n < LINEAR_CALLS, "%u calls", h->n);
    for (uint32_t i = 0; i < h->n; i++)
        for (uint32_t j = 0; j < h->n; j++)
            if (writes(&h->call[i]) && writes(&h->call[j]) && h->call[i].end < h->call[j].start &&
                h->call[i].version >= h->call[j].version)
                return false;
    return search(h, 0, start);
}

void
linear_print(const struct linear_history *h, const struct linear_state *start)
{
    for (uint32_t i = 0; i < LINEAR_PAGES; i++)
        printf("  page %u: %s, version %" PRIu64 ", content %" PRIx64 "\n", i,
               start->page[i].live ? "live" : "free", start->page[i].version,
               start->page[i].content);
    for (uint32_t i = 0; i < h->n; i++) {
        const struct linear_call *c = &h->call[i];

        printf("  thread %u  %" PRIu64 "..%" PRIu64 "  %s", c->thread, c->start, c->end,
               kind_names[c->kind]);
        for (uint32_t j = 0; j < c->steps; j++)
            printf(" [%s page %u expected %" PRIu64 " token %" PRIx64 "]",
                   kind_names[c->step[j].kind], c->step[j].page, c->step[j].expected,
                   c->step[j].token);
        printf(" -> %s version %" PRIu64 " content %" PRIx64, kit_code_name(c->code), c->version,
               c->content);
        if (c->kind == LINEAR_BATCH && c->code != 0)
            printf(" because of page %u", c->conflict);
        printf("\n");
    }
}

static struct linear_call
call_of(enum linear_kind kind, uint64_t start, uint64_t end, uint32_t page, uint64_t version)
{
    return (struct linear_call){.kind = kind,
                                .start = start,
                                .end = end,
                                .steps = 1,
                                .step[0] = {.kind = kind, .page = page, .token = version},
                                .version = version};
}

void
linear_check(void)
{
    struct linear_state start = {.page = {{8, 8, 5, true}, {8, 8, 6, true}}};
    struct linear_history h = {.n = 3};

    h.call[0] = call_of(LINEAR_APPEND, 1, 10, 0, 16);
    h.call[1] = call_of(LINEAR_APPEND, 2, 9, 0, 24);
    h.call[2] = call_of(LINEAR_READ, 11, 12, 0, 24);
    h.call[2].content = tokens_add(tokens_add(5, 16), 24);
    KIT_CHECK(linear_explains(&h, &start), "good history refused");
    h.call[2].content = tokens_add(tokens_add(5, 24), 16);
    KIT_CHECK(!linear_explains(&h, &start), "fragments against the order of versions accepted");
    h.call[2] = call_of(LINEAR_READ, 11, 12, 0, 16);
    h.call[2].content = tokens_add(5, 16);
    KIT_CHECK(!linear_explains(&h, &start), "stale read accepted");
    h.call[2].start = 3;
    KIT_CHECK(linear_explains(&h, &start), "overlapping read refused");
    h.call[0] = call_of(LINEAR_BATCH, 1, 100, 0, 16);
    h.call[0].steps = 2;
    h.call[0].step[0] = (struct linear_step){LINEAR_MERGE, 0, 8, 1};
    h.call[0].step[1] = (struct linear_step){LINEAR_SET, 1, 8, 2};
    h.call[1] = call_of(LINEAR_READ, 10, 11, 0, 16);
    h.call[1].content = tokens_add(5, 1);
    h.call[2] = call_of(LINEAR_READ, 20, 21, 1, 16);
    h.call[2].content = tokens_add(0, 2);
    KIT_CHECK(linear_explains(&h, &start), "good batch refused");
    h.call[2] = call_of(LINEAR_READ, 20, 21, 1, 8);
    h.call[2].content = 6;
    KIT_CHECK(!linear_explains(&h, &start), "half a batch accepted");
    h.call[2].start = 5;
    KIT_CHECK(linear_explains(&h, &start), "read beside a batch refused");
    h.n = 2;
    h.call[0] = call_of(LINEAR_FREE, 1, 2, 0, 16);
    h.call[0].step[0].expected = 8;
    h.call[1] = call_of(LINEAR_ALLOCATE, 3, 4, 0, 16);
    KIT_CHECK(!linear_explains(&h, &start), "a version that comes twice accepted");
    h.call[1].version = 24;
    KIT_CHECK(linear_explains(&h, &start), "free and allocate refused");
    h.call[1].code = SCREE_E_CONFLICT;
    KIT_CHECK(!linear_explains(&h, &start), "a free page that was live accepted");
}
