/*
 * stress_pages.c - all operations at once, from many threads, against exact books.
 *
 * GOAL      under eviction pressure, snapshots and any interleaving: every accepted fragment is in its
 *           page exactly once and in version order; a successful compare-and-swap consumed the very
 *           state it named, once (no ABA); a guard's borrowed bytes do not move; and all of it is so
 *           again after closing and opening.
 * METHOD    four kinds of pages, the kind being told by the page's own bytes:
 *             tally  blind appends by all threads; the merge callback counts each thread's fragments,
 *                    checks that they come in that thread's order, and folds the order over all
 *             chain  set and merge by version; each fragment names the link it was put on, and the
 *                    callback checks it
 *             mail   allocated, changed and freed by anybody, ids reused (allocate, allocate_at)
 *             cold   far more bytes than the cache holds: read, now and then replaced
 * ORACLE    self-checking bytes in all of them; each thread's log of (page, version consumed, version
 *           made): at the end no version was made twice or consumed twice, each tally page's order hash
 *           equals the fold over its appends sorted by version, each chain's length equals its updates,
 *           the live pages are exactly those on the books.
 *           -DSCREE_BUG_... builds of the library must fail here.
 * NOT HERE  linearizability of reads (stress_linear), crashes (tests/crash).
 *
 * stress_pages [seed] [seconds] [threads]
 *
 * WORD   mailbox[i]: a page id, 0 = none. Threads put and take ids with it: exchange acq_rel. Whoever
 *        takes an id alone may free it; anybody may look at it and try to change it.
 * EDGES  E0 stop = 1: main, relaxed: threads look again at their next call.
 * LIFETIME  static.   PROGRESS  no waits.   FAILURE  the run ends.
 */
#include "support/kit.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 16u
#define TALLIES 8u
#define CHAINS 8u
#define MAILBOXES 64u
#define COLD 1500u
#define BODY_MAX 1200u /* bytes of a page behind its head */
#define LOG_MAX 400000u
#define HELD_MAX 6u

enum page_kind { TALLY = 0x59, CHAIN = 0x43, MAIL = 0x4D, COLD_PAGE = 0x44 };

/* Pages begin with this. */
struct head {
    uint8_t kind; /* enum page_kind */
    uint8_t bad;  /* the callback met what must not be */
    uint16_t body_len;
    uint32_t owner;  /* thread that made it */
    uint64_t number; /* serial of the content; of a chain: its length */
    uint64_t check;  /* over the fields above and the body */
};

struct tally {
    struct head head;
    uint64_t order; /* fold over all fragments */
    uint32_t count[THREADS_MAX];
};

struct fragment {
    uint32_t thread;
    uint32_t count;  /* of a tally: this thread's fragments before it, on that page */
    uint64_t before; /* of a chain: its length before */
};

enum log_kind { LOG_APPEND, LOG_CHAIN, LOG_MAIL };

/* One successful update. */
struct logged {
    uint64_t id;
    uint64_t made;
    uint64_t consumed; /* 0: blind, or the first */
    uint32_t thread;
    uint32_t count;
    enum log_kind kind;
};

struct worker {
    pthread_t thread;
    uint64_t random;
    uint32_t number;
    uint64_t operations, conflicts, gone, aba, held_checks;
    uint64_t serial;
    uint32_t appended[TALLIES];
    uint64_t links[CHAINS];
    uint64_t logged_n;
    struct logged *logged;
};

static scree_cache *cache;
static struct worker workers[THREADS_MAX];
static uint32_t threads;
static scree_page_id tally_id[TALLIES];
static scree_page_id chain_id[CHAINS];
static scree_page_id cold_id[COLD];
static _Atomic uint64_t mailbox[MAILBOXES];
static _Atomic bool stop; /* E0 */

#define CHECK_OK(call)                                                    \
    do {                                                                  \
        int code_ = (call);                                               \
        KIT_CHECK(code_ == 0, "gave %d %s", code_, kit_code_name(code_)); \
    } while (0)

/* ---- contents ---- */

static uint64_t
head_check(const struct head *head, const void *body)
{
    return kit_hash(body, head->body_len,
                    head->number * 8 + head->kind + (uint64_t)head->owner * 3);
}

/* A page of this kind and number; returns its length. */
static size_t
page_make(unsigned char *page, enum page_kind kind, uint32_t owner, uint64_t number,
          size_t body_len)
{
    struct head head = {
        .kind = (uint8_t)kind, .body_len = (uint16_t)body_len, .owner = owner, .number = number};

    for (size_t i = 0; i < body_len; i++)
        page[sizeof(head) + i] = (unsigned char)(number + i * 7 + owner);
    head.check = head_check(&head, page + sizeof(head));
    memcpy(page, &head, sizeof(head));
    return sizeof(head) + body_len;
}

static struct head
page_verify(scree_page_id id, const void *page, size_t len, enum page_kind kind)
{
    const unsigned char *bytes = page;
    struct head head;

    KIT_CHECK(len >= sizeof(head), "page %" PRIu64 " has %zu bytes", id, len);
    memcpy(&head, bytes, sizeof(head));
    KIT_CHECK(head.kind == kind, "page %" PRIu64 " is of kind %u, not %u", id, head.kind, kind);
    KIT_CHECK(!head.bad, "page %" PRIu64 ": its fragments came in a wrong order, or twice", id);
    if (kind == TALLY)
        return head;
    KIT_CHECK(len == sizeof(head) + head.body_len, "page %" PRIu64 ": %zu bytes, head says %u", id,
              len, head.body_len);
    KIT_CHECK(head.check == head_check(&head, bytes + sizeof(head)), "page %" PRIu64 ": bytes", id);
    return head;
}

static void
tally_add(struct tally *tally, const struct fragment *f)
{
    if (f->thread >= THREADS_MAX || tally->count[f->thread] != f->count) {
        tally->head.bad = 1;
        return;
    }
    tally->count[f->thread]++;
    tally->order = kit_hash(f, sizeof(*f), tally->order);
    tally->head.number++;
}

static int
tally_merge(const scree_slice *base, const scree_slice *frags, size_t n, scree_out *out)
{
    struct tally tally;

    if (base->len != sizeof(tally))
        return -1;
    memcpy(&tally, base->data, sizeof(tally));
    for (size_t i = 0; i < n; i++) {
        struct fragment f;

        if (frags[i].len != sizeof(f))
            return -1;
        memcpy(&f, frags[i].data, sizeof(f));
        tally_add(&tally, &f);
    }
    return scree_out_append(out, &tally, sizeof(tally));
}

/* Chains and mail: each fragment makes the number one larger, and the body new. */
static int
links_merge(const scree_slice *base, const scree_slice *frags, size_t n, scree_out *out)
{
    unsigned char page[sizeof(struct head) + BODY_MAX];
    struct head head;
    size_t len;
    bool bad;

    memcpy(&head, base->data, sizeof(head));
    bad = head.bad;
    for (size_t i = 0; i < n; i++) {
        struct fragment f;

        if (frags[i].len != sizeof(f))
            return -1;
        memcpy(&f, frags[i].data, sizeof(f));
        bad |= f.before != head.number;
        head.number++;
        head.owner = f.thread;
    }
    len = page_make(page, (enum page_kind)head.kind, head.owner, head.number,
                    head.number * 13 % BODY_MAX);
    if (bad)
        page[offsetof(struct head, bad)] = 1;
    return scree_out_append(out, page, len);
}

static int
pages_merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags,
            size_t n, scree_out *out)
{
    (void)ctx;
    (void)id;
    if (base == NULL || base->len < sizeof(struct head))
        return -1; /* none of the pages here is without a base */
    if (*(const uint8_t *)base->data == TALLY)
        return tally_merge(base, frags, n, out);
    return links_merge(base, frags, n, out);
}

static const scree_materializer materializer = {
    .size = sizeof(scree_materializer), .name = "stress-pages", .version = 1, .merge = pages_merge};

/* ---- the threads ---- */

static bool
log_room(const struct worker *w)
{
    return w->logged_n + 4 < LOG_MAX;
}

static void
log_add(struct worker *w, enum log_kind kind, uint64_t id, uint64_t consumed, uint64_t made,
        uint32_t count)
{
    w->logged[w->logged_n++] = (struct logged){.id = id,
                                               .made = made,
                                               .consumed = consumed,
                                               .thread = w->number,
                                               .count = count,
                                               .kind = kind};
}

static void
do_append(struct worker *w)
{
    uint32_t page = (uint32_t)kit_below(&w->random, TALLIES);
    struct fragment f = {.thread = w->number, .count = w->appended[page]};
    scree_version version = 0;

    if (!log_room(w))
        return;
    CHECK_OK(scree_page_append(cache, tally_id[page], kit_slice(&f, sizeof(f)), &version));
    log_add(w, LOG_APPEND, tally_id[page], 0, version, f.count);
    w->appended[page]++;
}

/* The thread's own fragments that returned are all there. */
static void
do_tally_read(struct worker *w)
{
    uint32_t page = (uint32_t)kit_below(&w->random, TALLIES);
    struct tally tally;
    size_t len = 0;

    CHECK_OK(scree_page_read(cache, tally_id[page], &tally, sizeof(tally), &len, NULL));
    page_verify(tally_id[page], &tally, len, TALLY);
    KIT_CHECK(tally.count[w->number] == w->appended[page],
              "page %" PRIu64 " has %u of this thread's %u fragments", tally_id[page],
              tally.count[w->number], w->appended[page]);
}

/* Change a chain or mail page from what was read; by set or merge. Returns the result of that. */
static int
page_update(struct worker *w, scree_page_id id, enum page_kind kind, enum log_kind log, bool set)
{
    unsigned char page[sizeof(struct head) + BODY_MAX];
    scree_version version = 0;
    scree_version seen;
    struct head head;
    size_t len = 0;
    int code = scree_page_read(cache, id, page, sizeof(page), &len, &version);

    if (code != 0)
        return code;
    head = page_verify(id, page, len, kind);
    seen = version;
    if (kit_below(&w->random, 8) == 0)
        sched_yield();
    if (set) {
        len = page_make(page, kind, w->number, head.number + 1, (head.number + 1) * 13 % BODY_MAX);
        code = scree_page_set(cache, id, &version, kit_slice(page, len));
    } else {
        struct fragment f = {.thread = w->number, .before = head.number};

        code = scree_page_merge(cache, id, &version, kit_slice(&f, sizeof(f)));
    }
    if (code == 0)
        log_add(w, log, id, seen, version, 0);
    KIT_CHECK(code != SCREE_E_CONFLICT || version != seen, "a conflict with the version presented");
    return code;
}

static void
do_chain(struct worker *w)
{
    uint32_t page = (uint32_t)kit_below(&w->random, CHAINS);
    int code;

    if (!log_room(w))
        return;
    code = page_update(w, chain_id[page], CHAIN, LOG_CHAIN, kit_below(&w->random, 3) == 0);
    KIT_CHECK(code == 0 || code == SCREE_E_CONFLICT, "gave %d %s", code, kit_code_name(code));
    if (code == 0)
        w->links[page]++;
    else
        w->conflicts++;
}

static void
do_mail_change(struct worker *w)
{
    scree_page_id id =
        atomic_load_explicit(&mailbox[kit_below(&w->random, MAILBOXES)], memory_order_acquire);
    int code;

    if (id == 0 || !log_room(w))
        return;
    code = page_update(w, id, MAIL, LOG_MAIL, kit_below(&w->random, 2) == 0);
    KIT_CHECK(code == 0 || code == SCREE_E_CONFLICT || code == SCREE_E_NOT_FOUND, "gave %d %s",
              code, kit_code_name(code));
    if (code != 0)
        w->gone++;
}

static scree_page_id
mail_allocate(struct worker *w)
{
    unsigned char page[sizeof(struct head) + BODY_MAX];
    size_t len = page_make(page, MAIL, w->number, ++w->serial, kit_below(&w->random, BODY_MAX));
    scree_page_id id = 0;
    scree_version version = 0;

    CHECK_OK(scree_page_allocate(cache, kit_slice(page, len), &id, &version));
    log_add(w, LOG_MAIL, id, 0, version, 0);
    return id;
}

/* Free a page this thread alone may free: others may still change it first. Returns the free's. */
static scree_version
mail_free(struct worker *w, scree_page_id id)
{
    scree_version version = 0;
    scree_version seen;
    int code;

    do {
        code = scree_page_read(cache, id, NULL, 0, NULL, &version); /* for the version */
        KIT_CHECK(code == SCREE_E_TOO_BIG, "gave %d %s", code, kit_code_name(code));
        seen = version;
        code = scree_page_free(cache, id, &version);
    } while (code == SCREE_E_CONFLICT);
    CHECK_OK(code);
    log_add(w, LOG_MAIL, id, seen, version, 0);
    return version;
}

static void
do_mail(struct worker *w)
{
    _Atomic uint64_t *box = &mailbox[kit_below(&w->random, MAILBOXES)];
    scree_page_id put = 0;
    scree_page_id taken;

    if (!log_room(w))
        return;
    if (kit_below(&w->random, 2) == 0)
        put = mail_allocate(w);
    taken = atomic_exchange_explicit(box, put, memory_order_acq_rel);
    if (taken != 0)
        mail_free(w, taken);
}

/* A version from before a free must be refused after the id has come back: row "ABA". */
static void
do_aba(struct worker *w)
{
    unsigned char page[sizeof(struct head) + BODY_MAX];
    size_t len = page_make(page, MAIL, w->number, ++w->serial, 40);
    scree_page_id id;
    scree_version old = 0;
    scree_version version = 0;
    scree_version stale;
    int code;

    if (!log_room(w))
        return;
    id = mail_allocate(w);
    KIT_CHECK(scree_page_read(cache, id, NULL, 0, NULL, &old) == SCREE_E_TOO_BIG, "read");
    mail_free(w, id);
    stale = old;
    code = scree_page_set(cache, id, &stale, kit_slice(page, len));
    /* Another thread may have been given the id by now. */
    KIT_CHECK(code == SCREE_E_NOT_FOUND || code == SCREE_E_CONFLICT, "set on a freed page gave %d",
              code);
    do {
        code = scree_page_allocate_at(cache, id, kit_slice(page, len), &version);
        if (code == SCREE_E_BUSY)
            sched_yield();
    } while (code == SCREE_E_BUSY && !atomic_load_explicit(&stop, memory_order_relaxed));
    if (code == SCREE_E_CONFLICT || code == SCREE_E_BUSY)
        return;
    CHECK_OK(code);
    log_add(w, LOG_MAIL, id, 0, version, 0);
    KIT_CHECK(version > old, "version %" PRIu64 " after %" PRIu64, version, old);
    stale = old;
    KIT_CHECK(scree_page_set(cache, id, &stale, kit_slice(page, len)) == SCREE_E_CONFLICT, "ABA");
    KIT_CHECK(stale >= version, "the conflict tells %" PRIu64 ", not %" PRIu64, stale, version);
    stale = old;
    KIT_CHECK(scree_page_merge(cache, id, &stale, kit_slice(page, 16)) == SCREE_E_CONFLICT, "ABA");
    stale = old;
    KIT_CHECK(scree_page_free(cache, id, &stale) == SCREE_E_CONFLICT, "ABA");
    mail_free(w, id);
    w->aba++;
}

static void
do_cold(struct worker *w)
{
    unsigned char page[sizeof(struct head) + BODY_MAX];
    scree_page_id id = cold_id[kit_below(&w->random, COLD)];
    size_t len = 0;

    if (kit_below(&w->random, 8) == 0) {
        w->serial++;
        len = page_make(page, COLD_PAGE, w->number, w->serial, 600 + w->serial % 500);
        CHECK_OK(scree_page_put(cache, id, kit_slice(page, len), NULL));
        return;
    }
    CHECK_OK(scree_page_read(cache, id, page, sizeof(page), &len, NULL));
    page_verify(id, page, len, COLD_PAGE);
}

struct held {
    const void *bytes;
    size_t len;
    uint64_t hash;
};

static void
held_add(struct held *held, uint32_t *n, scree_page_id id)
{
    scree_slice slice;
    int code;

    if (id == 0)
        return;
    code = scree_page_get(cache, id, &slice, NULL);
    KIT_CHECK(code == 0 || code == SCREE_E_NOT_FOUND, "gave %d %s", code, kit_code_name(code));
    if (code != 0 || *n == HELD_MAX)
        return;
    held[*n] = (struct held){slice.data, slice.len, kit_hash(slice.data, slice.len, 1)};
    (*n)++;
}

/* Bytes borrowed in nested guards stay, whatever anybody (this thread too) does to the pages. */
static void
do_guards(struct worker *w)
{
    struct held held[HELD_MAX];
    uint32_t n = 0;
    uint32_t depth = 1 + (uint32_t)kit_below(&w->random, 3);

    for (uint32_t d = 0; d < depth; d++) {
        scree_read_enter(cache);
        held_add(held, &n, chain_id[kit_below(&w->random, CHAINS)]);
        held_add(
            held, &n,
            atomic_load_explicit(&mailbox[kit_below(&w->random, MAILBOXES)], memory_order_acquire));
    }
    for (uint64_t i = kit_below(&w->random, 6); i > 0; i--) {
        do_chain(w);
        do_mail(w);
        do_cold(w);
    }
    for (uint32_t i = 0; i < n; i++) {
        KIT_CHECK(kit_hash(held[i].bytes, held[i].len, 1) == held[i].hash,
                  "borrowed bytes changed inside the guard");
        w->held_checks++;
    }
    for (uint32_t d = 0; d < depth; d++)
        scree_read_leave(cache);
}

static int
stat_visit(void *ctx, const char *name, double value)
{
    uint64_t *n = ctx;

    KIT_CHECK(name != NULL && value >= 0, "a figure without a name, or below 0");
    (*n)++;
    return 0;
}

static void
do_rare(struct worker *w)
{
    scree_stats stats = {.size = sizeof(stats)};
    scree_lsn before = scree_stable_lsn(cache);
    scree_lsn lsn = 0;
    uint64_t figures = 0;

    switch (kit_below(&w->random, 8)) {
    case 0:
        CHECK_OK(scree_snapshot(cache, NULL));
        break;
    case 1:
        CHECK_OK(scree_stats_get(cache, &stats));
        KIT_CHECK(stats.pages > COLD && stats.stable_lsn <= stats.tail_lsn, "stable behind tail");
        break;
    case 2:
        CHECK_OK(scree_stats_each(cache, stat_visit, &figures));
        KIT_CHECK(figures > 20, "%" PRIu64 " figures", figures);
        break;
    case 3:
        KIT_CHECK(scree_page_next(cache, kit_below(&w->random, 2000), &lsn) == 0 || lsn == 0,
                  "next");
        break;
    default:
        if (w->logged_n > 0 && kit_below(&w->random, 2) == 0)
            CHECK_OK(scree_wait_stable(cache, w->logged[w->logged_n - 1].made, -1));
        else
            CHECK_OK(scree_flush(cache, &lsn));
        if (w->logged_n > 0)
            KIT_CHECK(scree_stable_lsn(cache) >= w->logged[w->logged_n - 1].made, "not stable");
        KIT_CHECK(scree_stable_lsn(cache) >= before, "stable went back");
    }
}

static void *
worker_run(void *argument)
{
    struct worker *w = argument;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t kind = kit_below(&w->random, 100);

        if (kind < 35)
            do_append(w);
        else if (kind < 40)
            do_tally_read(w);
        else if (kind < 55)
            do_chain(w);
        else if (kind < 65)
            do_mail(w);
        else if (kind < 75)
            do_mail_change(w);
        else if (kind < 76)
            do_aba(w);
        else if (kind < 94)
            do_cold(w);
        else if (kind < 98)
            do_guards(w);
        else if (kit_below(&w->random, 16) == 0)
            do_rare(w);
        w->operations++;
    }
    return NULL;
}

/* ---- the books ---- */

static int
logged_by_version(const void *a, const void *b)
{
    const struct logged *x = a;
    const struct logged *y = b;

    return (x->made > y->made) - (x->made < y->made);
}

static int
logged_by_consumed(const void *a, const void *b)
{
    const struct logged *x = a;
    const struct logged *y = b;

    return (x->consumed > y->consumed) - (x->consumed < y->consumed);
}

/* No version comes twice, and none is consumed twice. */
static void
versions_check(struct logged *all, size_t n)
{
    qsort(all, n, sizeof(*all), logged_by_consumed);
    for (size_t i = 1; i < n; i++)
        KIT_CHECK(all[i].consumed == 0 || all[i].consumed != all[i - 1].consumed,
                  "version %" PRIu64 " of page %" PRIu64 " was consumed twice (ABA)",
                  all[i].consumed, all[i].id);
    qsort(all, n, sizeof(*all), logged_by_version);
    for (size_t i = 0; i < n; i++) {
        KIT_CHECK(i == 0 || all[i].made != all[i - 1].made, "version %" PRIu64 " was made twice",
                  all[i].made);
        KIT_CHECK(all[i].consumed < all[i].made,
                  "page %" PRIu64 " went back from %" PRIu64 " to %" PRIu64, all[i].id,
                  all[i].consumed, all[i].made);
    }
}

static void
tally_check(uint32_t page, const struct logged *all, size_t n)
{
    struct tally tally;
    struct tally expected = {.order = 0};
    size_t len = 0;
    scree_version version = 0;
    uint64_t last = 0;

    CHECK_OK(scree_page_read(cache, tally_id[page], &tally, sizeof(tally), &len, &version));
    page_verify(tally_id[page], &tally, len, TALLY);
    for (size_t i = 0; i < n; i++) {
        struct fragment f = {.thread = all[i].thread, .count = all[i].count};

        if (all[i].kind != LOG_APPEND || all[i].id != tally_id[page])
            continue;
        tally_add(&expected, &f);
        last = all[i].made;
    }
    KIT_CHECK(expected.head.bad == 0, "versions of page %" PRIu64 " are not in each thread's order",
              tally_id[page]);
    KIT_CHECK(expected.head.number == tally.head.number,
              "page %" PRIu64 ": %" PRIu64 " fragments, %" PRIu64 " were accepted", tally_id[page],
              tally.head.number, expected.head.number);
    KIT_CHECK(expected.order == tally.order, "page %" PRIu64 ": not merged in version order",
              tally_id[page]);
    KIT_CHECK(last == 0 || last == version, "page %" PRIu64 " is at %" PRIu64 ", last was %" PRIu64,
              tally_id[page], version, last);
}

static void
chain_check(uint32_t page)
{
    unsigned char bytes[sizeof(struct head) + BODY_MAX];
    uint64_t links = 0;
    struct head head;
    size_t len = 0;

    CHECK_OK(scree_page_read(cache, chain_id[page], bytes, sizeof(bytes), &len, NULL));
    head = page_verify(chain_id[page], bytes, len, CHAIN);
    for (uint32_t t = 0; t < threads; t++)
        links += workers[t].links[page];
    KIT_CHECK(head.number == links, "page %" PRIu64 ": length %" PRIu64 ", %" PRIu64 " succeeded",
              chain_id[page], head.number, links);
}

static void
pages_check(void)
{
    unsigned char bytes[sizeof(struct head) + BODY_MAX];
    uint64_t expected = 1 + TALLIES + CHAINS + COLD;
    uint64_t n = 0;
    scree_page_id id = 0;
    size_t len = 0;
    int code;

    for (uint32_t i = 0; i < MAILBOXES; i++) {
        scree_page_id mail = atomic_load_explicit(&mailbox[i], memory_order_relaxed);

        if (mail == 0)
            continue;
        CHECK_OK(scree_page_read(cache, mail, bytes, sizeof(bytes), &len, NULL));
        page_verify(mail, bytes, len, MAIL);
        expected++;
    }
    for (uint32_t i = 0; i < COLD; i++) {
        CHECK_OK(scree_page_read(cache, cold_id[i], bytes, sizeof(bytes), &len, NULL));
        page_verify(cold_id[i], bytes, len, COLD_PAGE);
    }
    while ((code = scree_page_next(cache, id, &id)) == 0)
        n++;
    KIT_CHECK(code == SCREE_E_NOT_FOUND, "next gave %d", code);
    KIT_CHECK(n == expected, "%" PRIu64 " pages are live, %" PRIu64 " on the books", n, expected);
}

static void
books_check(struct logged *all, size_t n)
{
    for (uint32_t i = 0; i < TALLIES; i++)
        tally_check(i, all, n);
    for (uint32_t i = 0; i < CHAINS; i++)
        chain_check(i);
    pages_check();
}

static void
options_make(scree_options *options)
{
    kit_options_small(options, &materializer);
    options->cache_bytes = 512 * 1024;
    options->log_buffer_bytes = 128 * 1024;
    options->segment_bytes = 256 * 1024;
    options->flush_interval_ms = 2;
}

static void
pages_make(void)
{
    unsigned char page[sizeof(struct head) + BODY_MAX];
    struct tally tally = {.head = {.kind = TALLY}};

    for (uint32_t i = 0; i < TALLIES; i++)
        CHECK_OK(scree_page_allocate(cache, kit_slice(&tally, sizeof(tally)), &tally_id[i], NULL));
    for (uint32_t i = 0; i < CHAINS; i++)
        CHECK_OK(scree_page_allocate(cache, kit_slice(page, page_make(page, CHAIN, 0, 0, 9)),
                                     &chain_id[i], NULL));
    for (uint32_t i = 0; i < COLD; i++)
        CHECK_OK(scree_page_allocate(cache, kit_slice(page, page_make(page, COLD_PAGE, 0, i, 800)),
                                     &cold_id[i], NULL));
}

static void
threads_run(uint64_t seed, uint64_t seconds)
{
    uint64_t until = kit_now_ms() + seconds * 1000;

    for (uint32_t t = 0; t < threads; t++) {
        workers[t].random = seed * 1000 + t;
        workers[t].number = t;
        workers[t].logged = malloc(LOG_MAX * sizeof(struct logged));
        KIT_CHECK(workers[t].logged != NULL, "memory");
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, worker_run, &workers[t]) == 0, "thread");
    }
    while (kit_now_ms() < until)
        usleep(10000);
    atomic_store_explicit(&stop, true, memory_order_relaxed); /* E0 */
    for (uint32_t t = 0; t < threads; t++)
        pthread_join(workers[t].thread, NULL);
}

/* All threads' logs in one; they are freed. */
static struct logged *
logs_join(size_t *n_out)
{
    struct logged *all = malloc(threads * LOG_MAX * sizeof(*all));

    KIT_CHECK(all != NULL, "memory");
    *n_out = 0;
    for (uint32_t t = 0; t < threads; t++) {
        memcpy(all + *n_out, workers[t].logged, workers[t].logged_n * sizeof(*all));
        *n_out += workers[t].logged_n;
        free(workers[t].logged);
    }
    return all;
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t seconds = kit_argument(argc, argv, 2, 8);
    char directory[KIT_PATH_MAX];
    scree_options options;
    struct worker sum = {.operations = 0};
    struct logged *all;
    size_t n;

    threads = (uint32_t)kit_argument(argc, argv, 3, 4);
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    kit_dir_name(directory, "pages");
    options_make(&options);
    CHECK_OK(scree_open(directory, &options, &cache));
    pages_make();
    threads_run(seed, seconds);
    all = logs_join(&n);
    versions_check(all, n);
    books_check(all, n);
    CHECK_OK(scree_close(cache));
    CHECK_OK(scree_open(directory, &options, &cache));
    books_check(all, n);
    CHECK_OK(scree_close(cache));
    kit_dir_remove(directory);
    free(all);
    for (uint32_t t = 0; t < threads; t++) {
        sum.operations += workers[t].operations;
        sum.conflicts += workers[t].conflicts;
        sum.gone += workers[t].gone;
        sum.aba += workers[t].aba;
        sum.held_checks += workers[t].held_checks;
    }
    printf("seed %" PRIu64 ": %" PRIu64 " operations, %zu updates on the books, %" PRIu64
           " conflicts, %" PRIu64 " on changed or freed pages, %" PRIu64
           " ABA tries refused, %" PRIu64 " borrowed pages unchanged: ok\n",
           seed, sum.operations, n, sum.conflicts, sum.gone, sum.aba, sum.held_checks);
    KIT_CHECK(sum.aba > 0 && sum.held_checks > 0 && sum.conflicts > 0, "too little happened");
    return 0;
}
