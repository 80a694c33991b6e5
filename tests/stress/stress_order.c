/*
 * stress_order.c - are all operations on pages linearizable, batches among them (P2, P3, P4)? In quantity.
 *
 * GOAL      the question of stress_linear and stress_batch_linear for a thousand times as many calls: a
 *           thousand million in one run.
 * METHOD    islands of ORDER_PAGES pages. All threads work on the same island for a burst, then go on to the
 *           next one, so that calls meet, and islands grow cold in between. All calls there are: get, read,
 *           fragments, set, merge, append, put, free, allocate_at, and batches of set, merge, free, allocate_at
 *           and check, with versions just seen or stale. Each is stamped before and after. A round is BURSTS
 *           bursts; then the same threads check it, burst by burst, and the next round begins with what the
 *           pages must hold. Delays lie in the merge callback, between the steps of batches, in guards; a small
 *           cache, other pages that are read, snapshots, reclaiming and consolidation beside. An order has to
 *           be found for every call that was made: none is left out.
 * ORACLE    order.h: exact, as the search is, but about linear. Before the run it is compared with the search
 *           on random histories, right and wrong ones. Over a whole round besides: versions of updates on
 *           whatever pages follow real time.
 * NOT HERE  crashes.
 *
 * stress_order [seed] [seconds, and up to 60 more until all has been seen] [threads]
 *              [operations: go on until so many are checked]
 *   The last line tells how many operations were checked.
 *
 * WORD   burst_now: the burst under way; unit_next: what is to be checked next: relaxed, a hint and a ticket.
 * EDGES  the barrier between making calls and checking them.   LIFETIME  static.
 * PROGRESS  the barrier waits: a test.   FAILURE  the run ends.
 */
#include "support/order.h"
#include "support/tokens.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ISLANDS 256u
#define BURSTS 64u
#define QUOTA 250u /* calls of a thread in a burst */
#define CALLS_MAX (BURSTS * QUOTA)
#define FILLERS 300u
#define LONG_TOKENS 60u /* a page that is so long is put anew */
#define PAGE_BYTES 4096u
#define FRAGMENTS 128u
#define PATIENCE_MS 60000u /* beyond the time, for what must meet */
#define SAMPLE 61u         /* of so many bursts one is looked at for overlaps */

/* How often what was done. */
struct tally {
    uint64_t looked_at, overlapping, kinds[ORDER_KINDS], checks_only, conflicts, loose;
};

struct worker {
    pthread_t thread;
    uint64_t random;
    uint32_t number;
    uint32_t n, steps;
    uint32_t burst_begin[BURSTS + 1];
    uint64_t seen[ORDER_PAGES]; /* versions, in this burst's island */
    bool gone[ORDER_PAGES];     /* was not live */
    bool is_long[ORDER_PAGES];
    uint64_t checked;
    struct tally did;
    struct order_checker *checker;
    struct order_call call[CALLS_MAX];
    struct order_step step[CALLS_MAX * ORDER_STEPS];
};

static scree_cache *cache;
static scree_page_id page_ids[ISLANDS][ORDER_PAGES];
static scree_page_id fillers[FILLERS];
static struct order_state states[ISLANDS];
static struct worker *workers;
static uint32_t threads;
static uint64_t rounds; /* of the one under way; changes between barriers */
static bool ends;       /* the same */
static pthread_barrier_t barrier;
static _Atomic uint32_t burst_now, unit_next;
static _Atomic bool stop; /* relaxed: the tidier looks again */

/* ---- delays ---- */

static _Thread_local uint64_t delays;

/* Rare enough to leave time for calls; a thread that yields in the middle of one is overtaken by many. */
static void
delay(void)
{
    uint64_t draw = kit_random(&delays);

    if (draw % 2048 == 0) {
        struct timespec pause = {.tv_nsec = (long)(draw / 2048 % 20000)};

        nanosleep(&pause, NULL);
    } else if (draw % 32 == 1) {
        sched_yield();
    }
}

static int
slow_merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
           scree_out *out)
{
    delay();
    return kit_concat.merge(ctx, id, base, frags, n, out);
}

static const scree_materializer materializer = {
    .size = sizeof(materializer), .name = "tokens", .version = 1, .merge = slow_merge};

/* ---- calls ---- */

static void
content_tell(struct worker *w, struct order_call *c, const void *bytes, size_t len)
{
    c->value = tokens_content(bytes, len);
    w->is_long[c->page] = len > LONG_TOKENS * 8;
}

static void
fragments_tell(struct worker *w, struct order_call *c, scree_slice base, const scree_slice *frags,
               size_t n)
{
    unsigned char bytes[PAGE_BYTES];
    size_t len = base.len;

    KIT_CHECK(n <= FRAGMENTS && len <= sizeof(bytes), "%zu fragments, a base of %zu", n, base.len);
    if (len > 0)
        memcpy(bytes, base.data, len);
    for (size_t i = 0; i < n; i++) {
        KIT_CHECK(len + frags[i].len <= sizeof(bytes), "a page too long");
        memcpy(bytes + len, frags[i].data, frags[i].len);
        len += frags[i].len;
    }
    content_tell(w, c, bytes, len);
}

static void
call_read(struct worker *w, struct order_call *c, scree_page_id id, uint64_t draw)
{
    unsigned char buffer[PAGE_BYTES];
    scree_slice page, frags[FRAGMENTS];
    size_t n = 0;

    if (draw % 3 == 0) {
        c->start = tokens_now_ns();
        c->code = scree_page_read(cache, id, buffer, sizeof(buffer), &n, &c->version);
        c->end = tokens_now_ns();
        if (c->code == 0)
            content_tell(w, c, buffer, n);
        return;
    }
    scree_read_enter(cache);
    c->start = tokens_now_ns();
    c->code = draw % 3 == 1
                  ? scree_page_get(cache, id, &page, &c->version)
                  : scree_page_fragments(cache, id, &page, frags, FRAGMENTS, &n, &c->version);
    c->end = tokens_now_ns();
    delay();
    if (c->code == 0)
        fragments_tell(w, c, page, frags, n);
    scree_read_leave(cache);
}

static void
call_update(struct order_call *c, scree_page_id id)
{
    scree_slice slice = kit_slice(&c->value, sizeof(c->value));

    c->version = c->expected;
    c->start = tokens_now_ns();
    switch (c->kind) {
    case ORDER_SET:
        c->code = scree_page_set(cache, id, &c->version, slice);
        break;
    case ORDER_MERGE:
        c->code = scree_page_merge(cache, id, &c->version, slice);
        break;
    case ORDER_FREE:
        c->code = scree_page_free(cache, id, &c->version);
        break;
    case ORDER_APPEND:
        c->code = scree_page_append(cache, id, slice, &c->version);
        break;
    case ORDER_PUT:
        c->code = scree_page_put(cache, id, slice, &c->version);
        break;
    default:
        c->code = scree_page_allocate_at(cache, id, slice, &c->version);
    }
    c->end = tokens_now_ns();
}

/* A page that is neither freed nor allocated by the batch's steps so far; *alone_out: in none of them. */
static uint8_t
batch_page_draw(struct worker *w, const struct order_step *step, uint32_t n, bool *alone_out)
{
    for (;;) {
        uint8_t page = (uint8_t)kit_below(&w->random, ORDER_PAGES);
        bool ends_there = false;

        *alone_out = true;
        for (uint32_t i = 0; i < n; i++) {
            if (step[i].page != page)
                continue;
            *alone_out = false;
            ends_there |= step[i].kind == ORDER_FREE || step[i].kind == ORDER_ALLOCATE;
        }
        if (!ends_there)
            return page;
    }
}

static void
batch_draw(struct worker *w, struct order_call *c)
{
    struct order_step *step = &w->step[w->steps];
    bool checks_only = kit_below(&w->random, 4) == 0;

    c->value = w->steps;
    c->steps = (uint8_t)(1 + kit_below(&w->random, ORDER_STEPS));
    w->steps += c->steps;
    for (uint32_t i = 0; i < c->steps; i++) {
        struct order_step *s = &step[i];
        uint64_t draw = kit_below(&w->random, 64);
        bool alone;

        s->page = batch_page_draw(w, step, i, &alone);
        s->kind = checks_only || draw >= 44 ? ORDER_CHECK : draw < 20 ? ORDER_SET : ORDER_MERGE;
        if (!checks_only && alone && w->gone[s->page])
            s->kind = ORDER_ALLOCATE;
        else if (!checks_only && draw == 63 && i == 0 && c->steps == 2)
            s->kind = ORDER_FREE;
        s->expected = s->kind == ORDER_ALLOCATE ? 0 : w->seen[s->page];
        s->token = tokens_draw(&w->random);
    }
}

static int
batch_step(scree_batch *batch, const struct order_step *s, scree_page_id id)
{
    scree_slice slice = kit_slice(&s->token, sizeof(s->token));

    switch (s->kind) {
    case ORDER_SET:
        return scree_batch_set(batch, id, s->expected, slice);
    case ORDER_MERGE:
        return scree_batch_merge(batch, id, s->expected, slice);
    case ORDER_FREE:
        return scree_batch_free(batch, id, s->expected);
    case ORDER_ALLOCATE:
        return scree_batch_allocate_at(batch, id, slice);
    default:
        return scree_batch_check(batch, id, s->expected);
    }
}

static void
call_batch(struct worker *w, struct order_call *c, const scree_page_id *ids)
{
    const struct order_step *step = &w->step[c->value];
    scree_page_id conflict = 0;
    scree_batch *batch;
    int code = scree_batch_begin(cache, &batch);

    KIT_CHECK(code == 0, "begin gave %d %s", code, kit_code_name(code));
    for (uint32_t i = 0; i < c->steps; i++) {
        code = batch_step(batch, &step[i], ids[step[i].page]);
        KIT_CHECK(code == 0, "step of kind %u gave %d %s", step[i].kind, code, kit_code_name(code));
    }
    delay();
    c->start = tokens_now_ns();
    c->code = scree_batch_commit(batch, &c->version, &conflict);
    c->end = tokens_now_ns();
    for (uint8_t i = 0; i < ORDER_PAGES; i++)
        c->page = ids[i] == conflict ? i : c->page;
    if (c->code != 0) {
        c->version = 0;
        KIT_CHECK(ids[c->page] == conflict, "a batch gave %d %s and names page %" PRIu64, c->code,
                  kit_code_name(c->code), conflict);
        w->gone[c->page] = c->code == SCREE_E_NOT_FOUND;
        return;
    }
    for (uint32_t i = 0; i < c->steps; i++) {
        if (step[i].kind != ORDER_CHECK)
            w->seen[step[i].page] = c->version;
        w->gone[step[i].page] = step[i].kind == ORDER_FREE;
    }
}

static enum order_kind
kind_draw(struct worker *w, uint32_t page)
{
    static const uint8_t mix[32] = {
        ORDER_READ,  ORDER_READ,  ORDER_READ,   ORDER_READ,   ORDER_READ,   ORDER_READ,
        ORDER_READ,  ORDER_READ,  ORDER_READ,   ORDER_READ,   ORDER_READ,   ORDER_READ,
        ORDER_READ,  ORDER_SET,   ORDER_SET,    ORDER_SET,    ORDER_MERGE,  ORDER_MERGE,
        ORDER_MERGE, ORDER_MERGE, ORDER_APPEND, ORDER_APPEND, ORDER_APPEND, ORDER_APPEND,
        ORDER_PUT,   ORDER_PUT,   ORDER_BATCH,  ORDER_BATCH,  ORDER_BATCH,  ORDER_BATCH,
        ORDER_BATCH, ORDER_BATCH};
    uint64_t draw = kit_below(&w->random, 1024);

    if (w->is_long[page]) {
        w->is_long[page] = false;
        return ORDER_PUT;
    }
    if (draw < 1)
        return ORDER_FREE;
    if (draw < 5 || (w->gone[page] && draw < 400))
        return ORDER_ALLOCATE;
    return mix[draw % 32];
}

static void
worker_call(struct worker *w, uint32_t island)
{
    struct order_call *c = &w->call[w->n];
    uint32_t page = (uint32_t)kit_below(&w->random, ORDER_PAGES);
    scree_page_id id = page_ids[island][page];

    *c = (struct order_call){.page = (uint8_t)page};
    c->kind = (uint8_t)kind_draw(w, page);
    if (c->kind == ORDER_BATCH) {
        batch_draw(w, c);
        call_batch(w, c, page_ids[island]);
    } else if (c->kind == ORDER_READ) {
        call_read(w, c, id, kit_random(&w->random));
    } else {
        c->expected = kit_below(&w->random, 64) == 0 ? 0 : w->seen[page];
        c->value = tokens_draw(&w->random);
        call_update(c, id);
        if (c->code == SCREE_E_NOT_FOUND || c->code == SCREE_E_BUSY)
            c->version = 0;
    }
    if (c->kind != ORDER_BATCH) {
        w->gone[page] = c->code == SCREE_E_NOT_FOUND || c->code == SCREE_E_BUSY ||
                        (c->kind == ORDER_FREE && c->code == 0);
        if (c->version != 0 && kit_below(&w->random, 16) != 0)
            w->seen[page] = c->version;
    }
    w->n++;
}

static void
worker_filler(struct worker *w)
{
    unsigned char buffer[PAGE_BYTES];
    scree_page_id id = fillers[kit_below(&w->random, FILLERS)];
    int code = scree_page_read(cache, id, buffer, sizeof(buffer), NULL, NULL);

    KIT_CHECK(code == 0, "filler page %" PRIu64 " gave %d %s", id, code, kit_code_name(code));
}

static uint32_t
island_of(uint32_t burst)
{
    return (uint32_t)((rounds * BURSTS + burst) % ISLANDS);
}

/* Whoever has made its calls of a burst takes all to the next one. */
static void
bursts_run(struct worker *w)
{
    uint32_t burst = 0, made = 0;

    w->n = w->steps = 0;
    w->burst_begin[0] = 0;
    for (bool begins = true;; made++) {
        uint32_t now = atomic_load_explicit(&burst_now, memory_order_relaxed);

        if (made == QUOTA && now == burst)
            (void)atomic_compare_exchange_strong_explicit(
                &burst_now, &now, burst + 1, memory_order_relaxed, memory_order_relaxed);
        now = atomic_load_explicit(&burst_now, memory_order_relaxed);
        begins = begins || now != burst;
        while (burst < now)
            w->burst_begin[++burst] = w->n;
        if (burst == BURSTS)
            return;
        if (begins) {
            for (uint32_t i = 0; i < ORDER_PAGES; i++) {
                w->seen[i] = states[island_of(burst)].page[i].version;
                w->gone[i] = states[island_of(burst)].page[i].live == 0;
            }
            made = 0;
            begins = false;
        }
        worker_call(w, island_of(burst));
        if (made % 64 == 0)
            worker_filler(w);
    }
}

/* ---- checking ---- */

static uint32_t
call_pages(const struct order_calls *calls, const struct order_call *c)
{
    uint32_t pages = 0;

    if (c->kind != ORDER_BATCH)
        return 1u << c->page;
    for (uint32_t i = 0; i < c->steps; i++)
        pages |= 1u << calls->step[c->value + i].page;
    return pages;
}

static bool
calls_meet(const struct order_calls *a, const struct order_call *c, const struct order_calls *b,
           const struct order_call *d)
{
    return d->start <= c->end && d->end >= c->start && (call_pages(a, c) & call_pages(b, d)) != 0;
}

/* How many calls were under way while another thread's call on one of their pages was. */
static void
overlaps_count(struct worker *w, const struct order_calls *calls)
{
    for (uint32_t t = 0; t < threads; t++) {
        for (uint32_t i = 0; i < calls[t].n; i++) {
            bool met = false;

            for (uint32_t u = 0; u < threads && !met; u++)
                for (uint32_t j = 0; u != t && j < calls[u].n && !met; j++)
                    met = calls_meet(&calls[t], &calls[t].call[i], &calls[u], &calls[u].call[j]);
            w->did.overlapping += met;
            w->did.looked_at++;
        }
    }
}

static void
figures_add(struct worker *w, const struct order_calls *calls)
{
    for (uint32_t t = 0; t < threads; t++) {
        w->checked += calls[t].n;
        for (uint32_t i = 0; i < calls[t].n; i++) {
            const struct order_call *c = &calls[t].call[i];
            uint32_t checks = 0;

            w->did.kinds[c->kind] += c->code == 0;
            w->did.conflicts += c->code == SCREE_E_CONFLICT;
            w->did.loose += c->code != 0 && c->version == 0;
            for (uint32_t j = 0; c->kind == ORDER_BATCH && c->code == 0 && j < c->steps; j++)
                checks += calls[t].step[c->value + j].kind == ORDER_CHECK;
            w->did.checks_only += checks > 0 && checks == c->steps;
        }
    }
}

static void
burst_check(struct worker *w, uint32_t burst)
{
    struct order_calls calls[ORDER_THREADS];
    uint32_t island = island_of(burst);
    const char *why;

    for (uint32_t t = 0; t < threads; t++) {
        uint32_t begin = workers[t].burst_begin[burst];

        calls[t] = (struct order_calls){.call = &workers[t].call[begin],
                                        .n = workers[t].burst_begin[burst + 1] - begin,
                                        .step = workers[t].step};
    }
    why = order_check(w->checker, calls, threads, &states[island]);
    if (why != NULL) {
        const struct order_call *c = order_wrong(w->checker);

        for (uint32_t i = 0; i < ORDER_PAGES; i++)
            printf("page %" PRIu32 " began at version %" PRIu64 ", live %" PRIu64 "\n", i,
                   states[island].page[i].version, states[island].page[i].live);
        order_print(calls, threads, c->start - 20000, c->end + 20000);
        kit_failed(__FILE__, __LINE__, "P2, P4", "round %" PRIu64 ", burst %" PRIu32 ": %s", rounds,
                   burst, why);
    }
    figures_add(w, calls);
    if ((rounds * BURSTS + burst) % SAMPLE == 0)
        overlaps_count(w, calls);
}

static void
versions_check(void)
{
    struct order_calls calls[ORDER_THREADS];
    char text[256];
    const char *why;

    for (uint32_t t = 0; t < threads; t++)
        calls[t] = (struct order_calls){
            .call = workers[t].call, .n = workers[t].n, .step = workers[t].step};
    why = order_check_versions(calls, threads, text);
    KIT_CHECK(why == NULL, "round %" PRIu64 ": %s", rounds, why);
}

static uint64_t
checked_now(void)
{
    uint64_t checked = 0;

    for (uint32_t t = 0; t < threads; t++)
        checked += workers[t].checked;
    return checked;
}

static struct tally
workers_sum(void)
{
    struct tally sum = {0};

    for (uint32_t t = 0; t < threads; t++) {
        sum.looked_at += workers[t].did.looked_at;
        sum.overlapping += workers[t].did.overlapping;
        sum.checks_only += workers[t].did.checks_only;
        sum.conflicts += workers[t].did.conflicts;
        sum.loose += workers[t].did.loose;
        for (uint32_t i = 0; i < ORDER_KINDS; i++)
            sum.kinds[i] += workers[t].did.kinds[i];
    }
    return sum;
}

/* What is to meet has met. */
static bool
all_seen(void)
{
    scree_stats s = {.size = sizeof(s)};
    struct tally sum = workers_sum();
    bool kinds = true;

    for (uint32_t i = 0; i < ORDER_KINDS; i++)
        kinds &= i == ORDER_CHECK || sum.kinds[i] > 0;
    KIT_CHECK(scree_stats_get(cache, &s) == 0, "stats");
    return kinds && sum.checks_only > 0 && sum.conflicts > 0 && s.evictions > 0 && s.misses > 0 &&
           s.consolidations > 0 && (threads == 1 || sum.overlapping > 0);
}

static struct {
    uint64_t until_ms, operations;
    uint64_t make_ms, check_ms, at_ms;
} plan;

/* By one thread, while the others wait at the barrier. */
static void
round_next(void)
{
    uint64_t now = kit_now_ms();

    plan.check_ms += now - plan.at_ms;
    plan.at_ms = now;
    rounds++;
    atomic_store_explicit(&burst_now, 0, memory_order_relaxed);
    atomic_store_explicit(&unit_next, 0, memory_order_relaxed);
    ends = now >= plan.until_ms && checked_now() >= plan.operations &&
           (all_seen() || now >= plan.until_ms + PATIENCE_MS);
}

static void *
worker_run(void *argument)
{
    struct worker *w = argument;

    delays = w->random;
    for (;;) {
        pthread_barrier_wait(&barrier);
        if (w->number == 0)
            round_next();
        pthread_barrier_wait(&barrier);
        if (ends)
            return NULL;
        bursts_run(w);
        pthread_barrier_wait(&barrier);
        if (w->number == 0) {
            plan.make_ms += kit_now_ms() - plan.at_ms;
            plan.at_ms = kit_now_ms();
        }
        for (;;) {
            uint32_t unit = atomic_fetch_add_explicit(&unit_next, 1, memory_order_relaxed);

            if (unit > BURSTS)
                break;
            if (unit == 0)
                versions_check();
            else
                burst_check(w, unit - 1);
        }
    }
}

/* ---- around it ---- */

static void *
tidier_run(void *argument)
{
    (void)argument;
    for (uint64_t i = 0; !atomic_load_explicit(&stop, memory_order_relaxed); i++) {
        int code = i % 4 == 3 ? scree_reclaim(cache, 1.3, NULL, NULL) : scree_snapshot(cache, NULL);

        KIT_CHECK(code == 0, "snapshot or reclaim gave %d (%s)", code, scree_error_detail());
        usleep(50000);
    }
    return NULL;
}

static int
retries_visit(void *ctx, const char *name, double value)
{
    if (strcmp(name, "retries") == 0)
        *(double *)ctx = value;
    return 0;
}

static void
cache_make(char *directory)
{
    unsigned char bytes[1000] = {1};
    scree_options options;
    int code;

    kit_dir_name(directory, "order");
    kit_options_small(&options, &materializer);
    options.cache_bytes = 256 * 1024;
    options.segment_bytes = 4u << 20;
    options.log_buffer_bytes = 4u << 20;
    options.flush_interval_ms = 5;
    code = scree_open(directory, &options, &cache);
    KIT_CHECK(code == 0, "open gave %d %s", code, kit_code_name(code));
    for (uint32_t i = 0; i < ISLANDS * ORDER_PAGES; i++) {
        struct order_page *p = &states[i / ORDER_PAGES].page[i % ORDER_PAGES];

        code = scree_page_allocate(cache, kit_slice(NULL, 0),
                                   &page_ids[i / ORDER_PAGES][i % ORDER_PAGES], &p->version);
        KIT_CHECK(code == 0, "allocate gave %d %s", code, kit_code_name(code));
        p->live = 1;
    }
    for (uint32_t i = 0; i < FILLERS; i++) {
        code = scree_page_allocate(cache, kit_slice(bytes, sizeof(bytes)), &fillers[i], NULL);
        KIT_CHECK(code == 0, "allocate gave %d %s", code, kit_code_name(code));
    }
}

static void
checker_check(uint64_t seed)
{
    struct order_checker *k = order_checker_new(64);
    uint64_t random = seed, accepted = 0, n = 10000;

    for (uint64_t i = 0; i < n; i++)
        accepted += order_check_itself(k, &random);
    KIT_CHECK(accepted > n / 4 && accepted < n / 10 * 9, "%" PRIu64 " of %" PRIu64 " accepted",
              accepted, n);
    order_checker_delete(k);
}

static void
figures_print(uint64_t seed, uint64_t ms)
{
    static const char *const names[ORDER_KINDS] = {
        "reads", "sets", "merges", "appends", "puts", "frees", "allocations", "", "batches"};
    scree_stats s = {.size = sizeof(s)};
    struct tally sum = workers_sum();
    double retries = 0;

    KIT_CHECK(scree_stats_get(cache, &s) == 0 &&
                  scree_stats_each(cache, retries_visit, &retries) == 0,
              "stats");
    printf("seed %" PRIu64 ":", seed);
    for (uint32_t i = 0; i < ORDER_KINDS; i++)
        if (i != ORDER_CHECK) {
            printf(" %" PRIu64 " %s,", sum.kinds[i], names[i]);
        }
    printf(" %" PRIu64 " of them checks alone, %" PRIu64 " conflicts, %" PRIu64
           " without a version\n",
           sum.checks_only, sum.conflicts, sum.loose);
    printf("beside: %" PRIu64 " evictions, %" PRIu64 " cold reads, %" PRIu64
           " consolidations, %" PRIu64 " snapshots, %" PRIu64 " MiB cleaned, %.0f CASes lost\n",
           s.evictions, s.misses, s.consolidations, s.snapshots, s.cleaned_bytes >> 20, retries);
    printf("%.1f%% overlapped with another thread's call on the same page; %" PRIu64
           " ms making calls, %" PRIu64 " ms checking\n",
           100.0 * (double)sum.overlapping / (double)sum.looked_at, plan.make_ms, plan.check_ms);
    KIT_CHECK(all_seen(), "not everything was tested");
    printf("%" PRIu64 " operations checked in %" PRIu64 " ms, %" PRIu64 " a second: ok\n",
           checked_now(), ms, checked_now() * 1000 / (ms + 1));
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t begin = kit_now_ms();
    char directory[KIT_PATH_MAX];
    pthread_t tidier;

    threads = (uint32_t)kit_argument(argc, argv, 3, 4);
    if (threads < 1 || threads > ORDER_THREADS)
        return 2;
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64, seed);
    plan.until_ms = begin + kit_argument(argc, argv, 2, 8) * 1000;
    plan.operations = kit_argument(argc, argv, 4, 0);
    checker_check(seed);
    cache_make(directory);
    workers = calloc(threads, sizeof(*workers));
    KIT_CHECK(workers != NULL && pthread_barrier_init(&barrier, NULL, threads) == 0, "memory");
    plan.at_ms = kit_now_ms();
    for (uint32_t t = 0; t < threads; t++) {
        workers[t].random = seed * 1000 + t;
        workers[t].number = t;
        workers[t].checker = order_checker_new(threads * QUOTA);
        KIT_CHECK(pthread_create(&workers[t].thread, NULL, worker_run, &workers[t]) == 0, "thread");
    }
    KIT_CHECK(pthread_create(&tidier, NULL, tidier_run, NULL) == 0, "thread");
    for (uint32_t t = 0; t < threads; t++)
        pthread_join(workers[t].thread, NULL);
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    pthread_join(tidier, NULL);
    figures_print(seed, kit_now_ms() - begin);
    KIT_CHECK(scree_close(cache) == 0, "close");
    kit_dir_remove(directory);
    for (uint32_t t = 0; t < threads; t++)
        order_checker_delete(workers[t].checker);
    free(workers);
    return 0;
}
