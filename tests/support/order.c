/*
 * order.c - see order.h.
 *
 * A lane is a page: its calls that told a version (items), in the order of versions, an update before those
 * that saw it. An update begins a group. The lanes are gone along side by side, as a batch has a place in
 * several: an update waits until its batch has arrived in all lanes, and until the batches that only checked
 * the group before it have been placed. point(call) = the largest of its start and of the points that come
 * before it; it may not be behind its end.
 */
#include "order.h"
#include "tokens.h"

#include <inttypes.h>
#include <string.h>

#define NO_BATCH UINT32_MAX

struct item {
    uint64_t version;
    const struct order_call *call;
    uint32_t batch; /* NO_BATCH: one page's */
    bool write;
};

struct batch {
    const struct order_call *call;
    const struct order_step *step;
    uint8_t writes, reads; /* lanes, a bit each */
    uint8_t arrived;
};

struct group {
    uint64_t version;
    uint64_t point;      /* of its update */
    uint64_t held_until; /* by calls without a version that lie in it */
    bool live;
};

struct loose {
    const struct order_call *call;
    const struct order_step *step;
    uint8_t page;
};

struct lane {
    struct item *item;
    uint32_t n, at;
    struct group *group;
    uint32_t groups;
    uint32_t pending; /* checks of this group that are not placed yet */
    uint64_t point;   /* the latest in this group so far */
    struct order_page now;
};

struct list {
    struct item *item;
    uint32_t n, at;
};

struct order_checker {
    uint32_t calls_max;
    uint32_t batches, looses;
    struct lane lane[ORDER_PAGES];
    struct list list[ORDER_THREADS][ORDER_PAGES];
    struct item *items; /* of the lists */
    struct batch *batch;
    struct loose *loose;
    const struct order_call *wrong;
    char why[256];
};

struct order_checker *
order_checker_new(uint32_t calls_max)
{
    struct order_checker *k = calloc(1, sizeof(*k));

    KIT_CHECK(k != NULL, "memory");
    k->calls_max = calls_max;
    k->items = calloc((size_t)calls_max * ORDER_PAGES, sizeof(*k->items));
    k->batch = calloc(calls_max, sizeof(*k->batch));
    k->loose = calloc(calls_max, sizeof(*k->loose));
    KIT_CHECK(k->items != NULL && k->batch != NULL && k->loose != NULL, "memory");
    for (uint32_t i = 0; i < ORDER_PAGES; i++) {
        k->lane[i].item = calloc(calls_max, sizeof(*k->lane[i].item));
        k->lane[i].group = calloc((size_t)calls_max + 1, sizeof(*k->lane[i].group));
        KIT_CHECK(k->lane[i].item != NULL && k->lane[i].group != NULL, "memory");
    }
    return k;
}

void
order_checker_delete(struct order_checker *k)
{
    for (uint32_t i = 0; i < ORDER_PAGES; i++) {
        free(k->lane[i].item);
        free(k->lane[i].group);
    }
    free(k->items);
    free(k->batch);
    free(k->loose);
    free(k);
}

static bool
wrong(struct order_checker *k, const struct order_call *c, uint32_t page, const char *what)
{
    k->wrong = c;
    snprintf(k->why, sizeof(k->why),
             "page %" PRIu32 ", the call of kind %u from %" PRIu64 " to %" PRIu64
             " that was told version %" PRIu64 ": %s",
             page, c->kind, c->start, c->end, c->version, what);
    return false;
}

const struct order_call *
order_wrong(const struct order_checker *k)
{
    return k->wrong;
}

/* ---- what one call does to one page ---- */

/* A step that was accepted. */
static bool
step_apply(uint8_t kind, uint64_t expected, uint64_t before, uint64_t token, struct order_page *p)
{
    if (kind == ORDER_ALLOCATE ? p->live : !p->live)
        return false;
    if (kind != ORDER_ALLOCATE && kind != ORDER_APPEND && kind != ORDER_PUT && expected != before)
        return false;
    if (kind == ORDER_CHECK)
        return true;
    p->live = kind != ORDER_FREE;
    p->content =
        kind == ORDER_FREE
            ? 0
            : tokens_add(kind == ORDER_MERGE || kind == ORDER_APPEND ? p->content : 0, token);
    return true;
}

/* The steps of a batch on one page, or a single update, with its version. */
static bool
write_apply(const struct order_call *c, const struct order_step *step, uint32_t page,
            struct order_page *p)
{
    uint64_t before = p->version;

    if (c->version <= before)
        return false;
    p->version = c->version;
    if (c->kind != ORDER_BATCH)
        return step_apply(c->kind, c->expected, before, c->value, p);
    for (uint32_t i = 0; i < c->steps; i++)
        if (step[i].page == page &&
            !step_apply(step[i].kind, step[i].expected, before, step[i].token, p))
            return false;
    return true;
}

/* A call that changes nothing and was told the version. */
static bool
read_agrees(const struct order_call *c, const struct order_page *p)
{
    if (!p->live || c->version != p->version)
        return false;
    if (c->code == 0)
        return c->kind == ORDER_READ && c->value == p->content;
    return c->code == SCREE_E_CONFLICT && c->kind != ORDER_READ &&
           (c->kind == ORDER_ALLOCATE || c->expected != p->version);
}

/* A call that was told no version. */
static bool
loose_agrees(const struct order_call *c, const struct order_step *step, uint32_t page,
             uint64_t version, bool live)
{
    bool allocates = c->kind == ORDER_ALLOCATE;

    for (uint32_t i = 0; c->kind == ORDER_BATCH && i < c->steps; i++) {
        if (step[i].page != page)
            continue;
        allocates |= step[i].kind == ORDER_ALLOCATE;
        if (c->code == SCREE_E_CONFLICT && live &&
            (step[i].kind == ORDER_ALLOCATE || step[i].expected != version))
            return true;
    }
    if (c->code == SCREE_E_NOT_FOUND)
        return !live && !allocates;
    return c->code == SCREE_E_BUSY && !live && allocates;
}

static void
batch_lanes(const struct order_call *c, const struct order_step *step, uint8_t *writes_out,
            uint8_t *reads_out)
{
    uint8_t writes = 0, reads = 0;

    for (uint32_t i = 0; i < c->steps; i++) {
        if (step[i].kind == ORDER_CHECK)
            reads |= (uint8_t)(1u << step[i].page);
        else
            writes |= (uint8_t)(1u << step[i].page);
    }
    *writes_out = writes;
    *reads_out = reads & (uint8_t)~writes;
}

/* Of a batch on one page. */
static uint64_t
step_expected(const struct order_call *c, const struct order_step *step, uint32_t page)
{
    for (uint32_t i = 0; i < c->steps; i++)
        if (step[i].page == page)
            return step[i].expected;
    return 0;
}

static bool
is_loose(const struct order_call *c)
{
    return c->code == SCREE_E_NOT_FOUND || c->code == SCREE_E_BUSY ||
           (c->kind == ORDER_BATCH && c->code == SCREE_E_CONFLICT);
}

bool
order_apply(const struct order_call *c, const struct order_step *step, struct order_state *s)
{
    uint8_t writes, reads;
    uint64_t largest = 0;

    if (is_loose(c))
        return loose_agrees(c, step, c->page, s->page[c->page].version, s->page[c->page].live != 0);
    if (c->kind != ORDER_BATCH) {
        if (c->kind == ORDER_READ || c->code != 0)
            return read_agrees(c, &s->page[c->page]);
        return write_apply(c, step, c->page, &s->page[c->page]);
    }
    if (c->code != 0)
        return false;
    batch_lanes(c, step, &writes, &reads);
    for (uint32_t i = 0; i < ORDER_PAGES; i++) {
        if ((writes >> i & 1) != 0 && !write_apply(c, step, i, &s->page[i]))
            return false;
        if ((reads >> i & 1) == 0)
            continue;
        for (uint32_t j = 0; j < c->steps; j++)
            if (step[j].page == i && (!s->page[i].live || step[j].expected != s->page[i].version))
                return false;
        largest = s->page[i].version > largest ? s->page[i].version : largest;
    }
    return writes != 0 || c->version == largest;
}

/* ---- lanes ---- */

/* What a thread is told of a page never goes back. */
static bool
list_add(struct order_checker *k, uint32_t thread, uint32_t page, struct item item)
{
    struct list *l = &k->list[thread][page];
    const struct item *last = l->n > 0 ? &l->item[l->n - 1] : NULL;

    if (last != NULL &&
        (item.version < last->version || (item.version == last->version && item.write)))
        return wrong(k, item.call, page, "the thread was told a newer one before");
    l->item[l->n++] = item;
    return true;
}

static bool
batch_add(struct order_checker *k, uint32_t thread, const struct order_call *c,
          const struct order_step *step)
{
    struct batch *b = &k->batch[k->batches];
    struct item item = {.call = c, .batch = k->batches++};
    uint64_t largest = 0;

    *b = (struct batch){.call = c, .step = step};
    batch_lanes(c, step, &b->writes, &b->reads);
    for (uint32_t i = 0; i < c->steps; i++)
        largest = step[i].expected > largest ? step[i].expected : largest;
    if (b->writes == 0 && c->version != largest)
        return wrong(k, c, step[0].page,
                     "a batch of checks tells another version than the largest");
    for (uint32_t i = 0; i < ORDER_PAGES; i++) {
        item.write = (b->writes >> i & 1) != 0;
        item.version = item.write ? c->version : step_expected(c, step, i);
        if (((b->writes | b->reads) >> i & 1) != 0 && !list_add(k, thread, i, item))
            return false;
        for (uint32_t j = 0; j < c->steps && (b->reads >> i & 1) != 0; j++)
            if (step[j].page == i && step[j].expected != item.version)
                return wrong(k, c, i, "checks of two versions at one moment");
    }
    return true;
}

static bool
lists_make(struct order_checker *k, const struct order_calls *calls, uint32_t threads)
{
    struct item *next = k->items;

    k->batches = k->looses = 0;
    for (uint32_t t = 0; t < threads; t++) {
        for (uint32_t p = 0; p < ORDER_PAGES; p++) {
            k->list[t][p] = (struct list){.item = next};
            next += calls[t].n;
        }
        for (uint32_t i = 0; i < calls[t].n; i++) {
            const struct order_call *c = &calls[t].call[i];
            const struct order_step *step =
                c->kind == ORDER_BATCH ? &calls[t].step[c->value] : NULL;

            if (is_loose(c)) {
                k->loose[k->looses++] = (struct loose){c, step, c->page};
            } else if (c->code != 0 && (c->code != SCREE_E_CONFLICT || c->kind == ORDER_BATCH)) {
                return wrong(k, c, c->page, "an answer that there is not");
            } else if (c->kind == ORDER_BATCH) {
                if (!batch_add(k, t, c, step))
                    return false;
            } else if (!list_add(k, t, c->page,
                                 (struct item){.version = c->version,
                                               .call = c,
                                               .batch = NO_BATCH,
                                               .write = c->kind != ORDER_READ && c->code == 0})) {
                return false;
            }
        }
    }
    return true;
}

static void
lane_make(struct order_checker *k, uint32_t page, uint32_t threads)
{
    struct lane *l = &k->lane[page];

    l->n = 0;
    for (;;) {
        struct list *best = NULL;

        for (uint32_t t = 0; t < threads; t++) {
            struct list *list = &k->list[t][page];
            const struct item *a = &list->item[list->at];

            if (list->at == list->n)
                continue;
            if (best == NULL || a->version < best->item[best->at].version ||
                (a->version == best->item[best->at].version && a->write))
                best = list;
        }
        if (best == NULL)
            return;
        l->item[l->n++] = best->item[best->at++];
    }
}

static bool
group_begin(struct order_checker *k, uint32_t page, const struct order_call *c,
            const struct order_step *step, uint64_t point)
{
    struct lane *l = &k->lane[page];
    struct group *g = &l->group[l->groups++];

    if (!write_apply(c, step, page, &l->now))
        return wrong(k, c, page,
                     c->version <= l->now.version && c->version != 0
                         ? "the page was not as it says when it was changed"
                         : "it changes a page that was not so");
    g->version = c->version;
    g->point = point;
    g->live = l->now.live != 0;
    l->point = point > g->held_until ? point : g->held_until;
    l->at++;
    return true;
}

/* It has arrived in all its lanes. */
static bool
batch_place(struct order_checker *k, struct batch *b)
{
    uint64_t point = b->call->start;

    for (uint32_t i = 0; i < ORDER_PAGES; i++) {
        const struct lane *l = &k->lane[i];
        uint64_t before = (b->writes >> i & 1) != 0  ? l->point
                          : (b->reads >> i & 1) != 0 ? l->group[l->groups - 1].point
                                                     : 0;

        point = before > point ? before : point;
    }
    if (point > b->call->end)
        return wrong(k, b->call, b->step[0].page, "what must come before it began after its end");
    for (uint32_t i = 0; i < ORDER_PAGES; i++) {
        struct lane *l = &k->lane[i];

        if ((b->writes >> i & 1) != 0 && !group_begin(k, i, b->call, b->step, point))
            return false;
        if ((b->reads >> i & 1) == 0)
            continue;
        l->pending--;
        l->point = point > l->point ? point : l->point;
    }
    return true;
}

static bool
single_place(struct order_checker *k, uint32_t page, const struct item *item)
{
    struct lane *l = &k->lane[page];
    const struct order_call *c = item->call;
    uint64_t before = item->write ? l->point : l->group[l->groups - 1].point;
    uint64_t point = before > c->start ? before : c->start;

    if (point > c->end)
        return wrong(k, c, page, "what must come before it began after its end");
    if (item->write)
        return group_begin(k, page, c, NULL, point);
    if (!read_agrees(c, &l->now))
        return wrong(k, c, page, "the page never was so");
    l->point = point > l->point ? point : l->point;
    l->at++;
    return true;
}

/* As far as it goes; lanes that may go on then are added to todo. */
static bool
lane_advance(struct order_checker *k, uint32_t page, uint32_t *todo)
{
    struct lane *l = &k->lane[page];

    while (l->at < l->n) {
        const struct item *item = &l->item[l->at];
        struct batch *b = item->batch == NO_BATCH ? NULL : &k->batch[item->batch];

        if (item->write && l->pending > 0)
            return true;
        if (b == NULL) {
            if (!single_place(k, page, item))
                return false;
            continue;
        }
        if (!item->write) {
            if (item->version != l->now.version || !l->now.live)
                return wrong(k, b->call, page, "it checked a version that never was");
            l->pending++;
            l->at++;
        }
        b->arrived |= (uint8_t)(1u << page);
        if (b->arrived == (b->writes | b->reads)) {
            if (!batch_place(k, b))
                return false;
            *todo |= b->arrived;
        } else if (item->write) {
            return true;
        }
    }
    return true;
}

/* All lanes, with what is known to hold groups up. */
static bool
lanes_run(struct order_checker *k, const struct order_state *start)
{
    uint32_t todo = (1u << ORDER_PAGES) - 1;

    for (uint32_t i = 0; i < ORDER_PAGES; i++) {
        struct lane *l = &k->lane[i];

        l->at = l->pending = 0;
        l->now = start->page[i];
        l->groups = 1;
        l->group[0].version = l->now.version;
        l->group[0].point = 0;
        l->group[0].live = l->now.live != 0;
        l->point = l->group[0].held_until;
    }
    for (uint32_t i = 0; i < k->batches; i++)
        k->batch[i].arrived = 0;
    while (todo != 0) {
        uint32_t page = (uint32_t)__builtin_ctz(todo);

        todo &= todo - 1;
        if (!lane_advance(k, page, &todo))
            return false;
    }
    for (uint32_t i = 0; i < ORDER_PAGES; i++)
        if (k->lane[i].at < k->lane[i].n)
            return wrong(k, k->lane[i].item[k->lane[i].at].call, i,
                         "batches come before one another");
    return true;
}

/* *moved_out: it comes after what follows its group now. */
static bool
loose_place(struct order_checker *k, const struct loose *loose, bool *moved_out)
{
    const struct order_call *c = loose->call;
    struct lane *l = &k->lane[loose->page];
    uint32_t low = 0, high = l->groups; /* the last group whose point is not behind its end */

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (l->group[middle].point <= c->end)
            low = middle;
        else
            high = middle;
    }
    while (!loose_agrees(c, loose->step, loose->page, l->group[low].version, l->group[low].live)) {
        if (low-- == 0)
            return wrong(k, c, loose->page, "the page was not so before it ended");
    }
    if (low + 1 < l->groups && c->start > l->group[low + 1].point) {
        if (l->group[low].held_until < c->start)
            l->group[low].held_until = c->start;
        *moved_out = true;
    }
    return true;
}

const char *
order_check(struct order_checker *k, const struct order_calls *calls, uint32_t threads,
            struct order_state *state_io)
{
    uint32_t n = 0;
    bool moved = true;

    for (uint32_t t = 0; t < threads; t++)
        n += calls[t].n;
    KIT_CHECK(n <= k->calls_max && threads <= ORDER_THREADS, "%" PRIu32 " calls", n);
    if (!lists_make(k, calls, threads))
        return k->why;
    for (uint32_t i = 0; i < ORDER_PAGES; i++) {
        lane_make(k, i, threads);
        for (uint32_t j = 0; j <= k->lane[i].n; j++)
            k->lane[i].group[j].held_until = 0;
    }
    while (moved) {
        moved = false;
        if (!lanes_run(k, state_io))
            return k->why;
        for (uint32_t i = 0; i < k->looses; i++)
            if (!loose_place(k, &k->loose[i], &moved))
                return k->why;
    }
    for (uint32_t i = 0; i < ORDER_PAGES; i++)
        state_io->page[i] = k->lane[i].now;
    return NULL;
}

/* ---- versions, across pages ---- */

static bool
call_writes(const struct order_call *c, const struct order_step *step)
{
    uint8_t writes, reads;

    if (c->code != 0 || c->kind == ORDER_READ)
        return false;
    if (c->kind != ORDER_BATCH)
        return true;
    batch_lanes(c, &step[c->value], &writes, &reads);
    return writes != 0;
}

const char *
order_check_versions(const struct order_calls *calls, uint32_t threads, char why[256])
{
    uint32_t at[ORDER_THREADS] = {0};
    uint64_t start_max = 0, version = 0;

    for (;;) {
        const struct order_call *next = NULL;
        uint32_t thread = 0;

        for (uint32_t t = 0; t < threads; t++) {
            const struct order_call *c;

            while (at[t] < calls[t].n && !call_writes(&calls[t].call[at[t]], calls[t].step))
                at[t]++;
            c = &calls[t].call[at[t]];
            if (at[t] < calls[t].n && (next == NULL || c->version < next->version)) {
                next = c;
                thread = t;
            }
        }
        if (next == NULL)
            return NULL;
        at[thread]++;
        if (next->version <= version || next->end < start_max) {
            snprintf(why, 256,
                     "version %" PRIu64 " (from %" PRIu64 " to %" PRIu64
                     ") against time or twice: the one before is %" PRIu64
                     ", one of those began at %" PRIu64,
                     next->version, next->start, next->end, version, start_max);
            return why;
        }
        version = next->version;
        start_max = next->start > start_max ? next->start : start_max;
    }
}

void
order_print(const struct order_calls *calls, uint32_t threads, uint64_t from, uint64_t to)
{
    static const char *const names[ORDER_KINDS] = {"read", "set",      "merge", "append", "put",
                                                   "free", "allocate", "check", "batch"};

    for (uint32_t t = 0; t < threads; t++) {
        for (uint32_t i = 0; i < calls[t].n; i++) {
            const struct order_call *c = &calls[t].call[i];

            if (c->end < from || c->start > to)
                continue;
            printf("  thread %" PRIu32 "  %" PRIu64 "..%" PRIu64 "  %s page %u", t, c->start,
                   c->end, names[c->kind], c->page);
            for (uint32_t j = 0; j < c->steps && c->kind == ORDER_BATCH; j++) {
                const struct order_step *s = &calls[t].step[c->value + j];

                printf(" [%s page %u expected %" PRIu64 " token %" PRIx64 "]", names[s->kind],
                       s->page, s->expected, s->token);
            }
            printf(" expected %" PRIu64 " value %" PRIx64 " -> %s version %" PRIu64 "\n",
                   c->expected, c->value, kit_code_name(c->code), c->version);
        }
    }
}
