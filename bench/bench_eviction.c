/*
 * bench_eviction.c - which pages stay: hit ratios of eviction policies, and of the real cache, on the same
 * traces.
 *
 * QUESTION  does the clock of src/pagecache/clock.h keep what LRU keeps, and more when something scans? Which
 *           of its parts earns what?
 * METHOD    a trace of page numbers is replayed through models that hold the same number of pages: exact LRU,
 *           CLOCK, the parts of our policy one by one (by the very functions of clock.h, in steps of the
 *           cache's own hand), S3-FIFO as published. Then through a real directory with scree_page_get, where
 *           the ratio is the cache's own hits / (hits + misses). Hits are counted after a third of the trace.
 * FIXED     one thread; pages of one size; capacity in pages = cache_bytes / what a page is charged, so the
 *           room that the real cache keeps free counts against it.
 * FOOLED BY a trace in page order (the hand goes in page order too), hence "loop in order"; a trace too short
 *           to fill the cache; a cache of few pages, where a step of the hand is a large part.
 *
 * bench_eviction [pages (100000)] [cache, percent (10)] [accesses a page (40)] [seed (1)] [directory]
 * bench_eviction check [directory]    small, fails unless what docs/impl.md promises holds: a ctest
 */
#include "pagecache/clock.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAYLOAD_BYTES 256u
#define STEP 128u /* of the hand: HAND_STEP of evict.c */

static uint64_t random_state;
static uint32_t pages;    /* 0 .. pages - 1 */
static uint32_t capacity; /* pages that a cache holds */

static _Noreturn void
die(const char *what, const char *detail)
{
    (void)fprintf(stderr, "bench_eviction: %s: %s\n", what, detail);
    exit(2);
}

static void *
allocate(size_t n, size_t bytes)
{
    void *p = calloc(n, bytes);

    if (p == NULL)
        die("no memory", "for the tables");
    return p;
}

static uint64_t
random_next(void)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t
random_below(uint32_t n)
{
    return (uint32_t)(random_next() % n);
}

/* ---- traces ---------------------------------------------------------------------------------- */

enum trace_kind {
    ZIPF,
    ZIPF_FLAT,
    ZIPF_MOVES,
    ZIPF_SCAN,
    ZIPF_SCAN_BESIDE,
    UNIFORM,
    HOT_SHIFTS,
    LOOP,
    LOOP_IN_ORDER,
    TRACES
};
static const char *const trace_names[TRACES] = {"zipf .99",   "zipf .8",  "zipf moves",
                                                "+ scans",    "+ beside", "uniform",
                                                "hot shifts", "loop",     "in order"};

static uint32_t *trace;
static size_t trace_n, trace_cap;
static uint32_t *scramble; /* a permutation: rank -> page */

struct zipf {
    double zeta_n, zeta_2, alpha, eta;
};

static struct zipf
zipf_of(double theta)
{
    struct zipf z = {.alpha = 1 / (1 - theta), .zeta_2 = 1 + pow(0.5, theta)};

    for (uint32_t i = 1; i <= pages; i++)
        z.zeta_n += 1 / pow(i, theta);
    z.eta = (1 - pow(2.0 / pages, 1 - theta)) / (1 - z.zeta_2 / z.zeta_n);
    return z;
}

/* Gray et al., "Quickly generating billion-record synthetic databases", SIGMOD 1994. */
static uint32_t
zipf_rank(const struct zipf *z)
{
    double u = (double)(random_next() >> 11) * 0x1p-53;
    double rank = pages * pow(z->eta * u - z->eta + 1, z->alpha);

    if (u * z->zeta_n < 1)
        return 0;
    if (u * z->zeta_n < z->zeta_2)
        return 1;
    return rank < pages ? (uint32_t)rank : pages - 1;
}

static void
trace_add(uint32_t page)
{
    if (trace_n < trace_cap)
        trace[trace_n++] = page;
}

/* Every `period` accesses all pages are read once in order, alone or beside as many others. */
static void
trace_scans(const struct zipf *z, uint64_t period, bool beside)
{
    while (trace_n < trace_cap) {
        for (uint64_t i = 0; i < period; i++)
            trace_add(scramble[zipf_rank(z)]);
        for (uint32_t page = 0; page < pages; page++) {
            trace_add(page);
            if (beside)
                trace_add(scramble[zipf_rank(z)]);
        }
    }
}

static void
trace_moving(enum trace_kind kind, const struct zipf *z)
{
    uint32_t hot = capacity - capacity / 5, base = 0;

    while (trace_n < trace_cap) {
        if (trace_n % (4 * (size_t)pages) == 0)
            base = random_below(pages);
        if (kind == ZIPF_MOVES)
            trace_add(scramble[(base + zipf_rank(z)) % pages]);
        else if (random_below(10) == 0)
            trace_add(random_below(pages));
        else
            trace_add(scramble[(base + random_below(hot)) % pages]);
    }
}

static void
trace_make(enum trace_kind kind, uint64_t seed)
{
    struct zipf z = zipf_of(kind == ZIPF_FLAT ? 0.8 : 0.99);
    uint32_t loop = capacity + capacity / 10;

    random_state = seed;
    trace_n = 0;
    switch (kind) {
    case ZIPF_SCAN:
        trace_scans(&z, 10 * (uint64_t)pages, false);
        break;
    case ZIPF_SCAN_BESIDE:
        trace_scans(&z, 2 * (uint64_t)pages, true);
        break;
    case ZIPF_MOVES:
    case HOT_SHIFTS:
        trace_moving(kind, &z);
        break;
    default:
        while (trace_n < trace_cap) {
            uint32_t at = (uint32_t)(trace_n % loop);

            trace_add(kind == LOOP            ? scramble[at]
                      : kind == LOOP_IN_ORDER ? at
                      : kind == UNIFORM       ? random_below(pages)
                                              : scramble[zipf_rank(&z)]);
        }
    }
}

static void
traces_begin(uint64_t accesses_a_page, uint64_t seed)
{
    trace_cap = (size_t)(pages * accesses_a_page);
    trace = allocate(trace_cap, sizeof *trace);
    scramble = allocate(pages, sizeof *scramble);
    random_state = seed;
    for (uint32_t i = 0; i < pages; i++) {
        uint32_t j = random_below(i + 1);

        scramble[i] = scramble[j];
        scramble[j] = i;
    }
}

/* ---- LRU: a ring of pages around the index `pages` --------------------------------------------- */

static uint32_t held; /* pages in the cache, of every model */
static uint32_t *lru_next, *lru_prev;
static bool *resident;

static void
lru_unlink(uint32_t page)
{
    lru_next[lru_prev[page]] = lru_next[page];
    lru_prev[lru_next[page]] = lru_prev[page];
}

static void
lru_to_front(uint32_t page)
{
    lru_next[page] = lru_next[pages];
    lru_prev[page] = pages;
    lru_prev[lru_next[pages]] = page;
    lru_next[pages] = page;
}

static void
lru_reset(void)
{
    lru_next[pages] = lru_prev[pages] = pages;
}

static bool
lru_access(uint32_t page)
{
    bool hit = resident[page];

    if (hit) {
        lru_unlink(page);
    } else if (held == capacity) {
        uint32_t oldest = lru_prev[pages];

        lru_unlink(oldest);
        resident[oldest] = false;
    } else {
        held++;
    }
    resident[page] = true;
    lru_to_front(page);
    return hit;
}

/* ---- S3-FIFO: small, main and ghost queues ----------------------------------------------------- */

enum s3_queue { S3_NONE, S3_SMALL, S3_MAIN, S3_GHOST, S3_QUEUES };

static uint32_t *s3_ring[S3_QUEUES];
static uint64_t s3_head[S3_QUEUES], s3_tail[S3_QUEUES], s3_cap;
static uint8_t *s3_where, *s3_count;

static void
s3_reset(void)
{
    memset(s3_where, S3_NONE, pages);
    memset(s3_count, 0, pages);
    memset(s3_head, 0, sizeof s3_head);
    memset(s3_tail, 0, sizeof s3_tail);
}

static void
s3_push(enum s3_queue q, uint32_t page)
{
    s3_ring[q][s3_tail[q]++ % s3_cap] = page;
    s3_where[page] = (uint8_t)q;
}

static uint32_t
s3_pop(enum s3_queue q)
{
    return s3_ring[q][s3_head[q]++ % s3_cap];
}

/* True: a page left. */
static bool
s3_evict_small(void)
{
    uint32_t page = s3_pop(S3_SMALL);
    bool stays = s3_count[page] > 0;

    s3_count[page] = 0;
    s3_push(stays ? S3_MAIN : S3_GHOST, page);
    while (s3_tail[S3_GHOST] - s3_head[S3_GHOST] > capacity - capacity / 10) {
        uint32_t old = s3_pop(S3_GHOST);

        if (s3_where[old] ==
            S3_GHOST) /* its latest entry, or one of a page that came back: good enough */
            s3_where[old] = S3_NONE;
    }
    return !stays;
}

static bool
s3_evict_main(void)
{
    uint32_t page = s3_pop(S3_MAIN);

    if (s3_count[page] > 0) {
        s3_count[page]--;
        s3_push(S3_MAIN, page);
        return false;
    }
    s3_where[page] = S3_NONE;
    return true;
}

static bool
s3_access(uint32_t page)
{
    bool ghost = s3_where[page] == S3_GHOST;
    bool gone = false;

    if (s3_where[page] == S3_SMALL || s3_where[page] == S3_MAIN) {
        if (s3_count[page] < 3)
            s3_count[page]++;
        return true;
    }
    while (held == capacity && !gone) {
        bool small = s3_tail[S3_SMALL] - s3_head[S3_SMALL] >= capacity / 10 ||
                     s3_tail[S3_MAIN] == s3_head[S3_MAIN];

        gone = small && s3_tail[S3_SMALL] > s3_head[S3_SMALL] ? s3_evict_small() : s3_evict_main();
    }
    held += !gone;
    s3_count[page] = 0;
    s3_push(ghost ? S3_MAIN : S3_SMALL, page);
    return false;
}

/* ---- a clock over page numbers, by the functions of clock.h -------------------------------------- */

/* Our policy is all of it; the others leave parts out. */
struct clock_parts {
    bool arrives_referenced;
    bool remembers; /* who was evicted in this turn */
    bool spares;    /* those with heat, while newcomers are many */
    unsigned heat_max;
};

static struct clock_parts parts;
static uint8_t *mark;
static uint32_t hand;
static uint64_t share, slots_passed;

static void
clock_reset(void)
{
    memset(mark, 0, pages);
    hand = 0;
    share = 0;
}

static uint8_t
clock_capped(uint8_t m)
{
    return clock_heat(m) > parts.heat_max ? clock_with_heat(m, parts.heat_max) : m;
}

/* As sweep_slot of evict.c. */
static void
clock_slot(uint32_t page, bool spares, uint64_t *met)
{
    uint8_t m = mark[page];

    if (!resident[page]) {
        mark[page] = clock_forgotten(m);
        return;
    }
    *met += clock_share(1, clock_newcomer(m));
    if (!clock_newcomer(m) && spares)
        return;
    if (clock_newcomer(m) && !clock_referenced(m)) {
        resident[page] = false;
        held--;
        mark[page] = parts.remembers ? clock_left(m) : 0;
    } else {
        mark[page] = clock_capped(clock_passed(m));
    }
}

/* As sweep_run of evict.c: whole steps until enough has left, a little more than is needed now. Heat that
   does not go away in eight turns is the policy's failure, not a reason to run for ever. */
static void
clock_make_room(void)
{
    uint32_t low = capacity - 1 - capacity / 64;
    uint64_t end = slots_passed + 8 * (uint64_t)pages;

    while (held > low) {
        bool spares = parts.spares && clock_spares(share);
        uint64_t met = 0;

        if (slots_passed > end) { /* begin again, with nothing */
            memset(resident, 0, pages * sizeof *resident);
            memset(mark, 0, pages);
            held = 0;
        }
        for (uint32_t i = 0; i < STEP && hand < pages; i++, slots_passed++)
            clock_slot(hand++, spares, &met);
        share += met;
        if (clock_share_full(share))
            share = clock_share_halved(share);
        if (hand == pages)
            hand = 0;
    }
}

static bool
clock_access(uint32_t page)
{
    bool hit = resident[page];

    if (!hit) {
        if (held == capacity)
            clock_make_room();
        resident[page] = true;
        held++;
    }
    if (hit || parts.arrives_referenced)
        mark[page] |= SLOT_REFERENCED;
    return hit;
}

/* ---- the models side by side ------------------------------------------------------------------ */

struct policy {
    const char *name;
    void (*reset)(void);
    bool (*access)(uint32_t page);
    struct clock_parts parts;
};

enum { POLICY_LRU, POLICY_OURS = 5, POLICIES = 7 };
static const struct policy policies[POLICIES] = {
    {"LRU", lru_reset, lru_access, {0}},
    {"CLOCK", clock_reset, clock_access, {.arrives_referenced = true}},
    {"  + probation", clock_reset, clock_access, {0}},
    {"  + heat of two bits", clock_reset, clock_access, {.heat_max = CLOCK_HEAT_MAX}},
    {"  + memory of who left",
     clock_reset,
     clock_access,
     {.heat_max = CLOCK_HEAT_MAX, .remembers = true}},
    {"  + share: scree",
     clock_reset,
     clock_access,
     {.heat_max = CLOCK_HEAT_MAX, .remembers = true, .spares = true}},
    {"S3-FIFO", s3_reset, s3_access, {0}},
};

static void
models_begin(void)
{
    lru_next = allocate(pages + 1, sizeof *lru_next);
    lru_prev = allocate(pages + 1, sizeof *lru_prev);
    resident = allocate(pages, sizeof *resident);
    mark = allocate(pages, sizeof *mark);
    s3_where = allocate(pages, sizeof *s3_where);
    s3_count = allocate(pages, sizeof *s3_count);
    s3_cap = 2 * (uint64_t)pages + 2;
    for (int q = S3_SMALL; q < S3_QUEUES; q++)
        s3_ring[q] = allocate(s3_cap, sizeof *s3_ring[q]);
}

static double
model_ratio(const struct policy *policy)
{
    size_t warm = trace_n / 3, hits = 0;

    held = 0;
    memset(resident, 0, pages * sizeof *resident);
    parts = policy->parts;
    policy->reset();
    slots_passed = 0;
    for (size_t i = 0; i < trace_n; i++)
        hits += policy->access(trace[i]) && i >= warm;
    return 100.0 * (double)hits / (double)(trace_n - warm);
}

static void
models_table(uint64_t seed)
{
    double ratio[POLICIES][TRACES];
    double passed[POLICIES] = {0};

    for (unsigned t = 0; t < TRACES; t++) {
        trace_make((enum trace_kind)t, seed);
        for (unsigned p = 0; p < POLICIES; p++) {
            ratio[p][t] = model_ratio(&policies[p]);
            if (t == ZIPF)
                passed[p] = (double)slots_passed / ((double)trace_n * (1 - ratio[p][t] / 100));
        }
    }
    printf("hits, percent; %" PRIu32 " pages, %" PRIu32 " in the cache; seed %" PRIu64 "\n%-24s",
           pages, capacity, seed, "");
    for (unsigned t = 0; t < TRACES; t++)
        printf("%11s", trace_names[t]);
    printf("   slots passed a miss\n");
    for (unsigned p = 0; p < POLICIES; p++) {
        printf("%-24s", policies[p].name);
        for (unsigned t = 0; t < TRACES; t++)
            printf("%11.2f", ratio[p][t]);
        if (passed[p] > 0)
            printf("%11.1f", passed[p]);
        printf("\n");
    }
}

/* ---- the real cache ---------------------------------------------------------------------------- */

static int
merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
      scree_out *out)
{
    (void)ctx, (void)id, (void)base, (void)frags, (void)n, (void)out;
    return 1; /* nothing is appended here */
}

static const scree_materializer materializer = {
    .size = sizeof materializer, .name = "bench_eviction", .version = 1, .merge = merge};

static char real_dir[4096];
static scree_page_id *real_id;
static double real_charge; /* bytes a page takes in memory */

static void
must(int rc, const char *what)
{
    if (rc != 0)
        die(what, scree_error_detail());
}

static scree_stats
stats_of(scree_cache *cache)
{
    scree_stats s = {.size = sizeof s};

    must(scree_stats_get(cache, &s), "stats");
    return s;
}

static void
real_remove(void)
{
    DIR *d = opendir(real_dir);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL)
        (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d != NULL)
        (void)closedir(d);
    (void)rmdir(real_dir);
}

static scree_cache *
real_open(uint64_t cache_bytes)
{
    scree_options o;
    scree_cache *cache;

    scree_options_init(&o);
    o.flags = SCREE_CREATE;
    o.cache_bytes = cache_bytes;
    o.log_buffer_bytes = 4u << 20;
    o.materializer = &materializer;
    must(scree_open(real_dir, &o, &cache), "open");
    return cache;
}

/* All pages, and what one of them takes. */
static void
real_load(const char *parent)
{
    unsigned char payload[PAYLOAD_BYTES] = {0};
    scree_cache *cache;
    uint64_t empty;

    (void)snprintf(real_dir, sizeof real_dir, "%s/bench_eviction.%ld", parent, (long)getpid());
    real_remove();
    cache = real_open(UINT64_C(64) << 30);
    real_id = allocate(pages, sizeof *real_id);
    empty = stats_of(cache).resident_bytes;
    for (uint32_t i = 0; i < pages; i++) {
        memcpy(payload, &i, sizeof i);
        must(scree_page_allocate(cache, (scree_slice){payload, sizeof payload}, &real_id[i], NULL),
             "allocate");
    }
    real_charge = (double)(stats_of(cache).resident_bytes - empty) / pages;
    must(scree_close(cache), "close");
}

struct real_figures {
    double ratio; /* hits, percent */
    double resident_max;
    double evicted, helped;
};

static int
real_helps(void *ctx, const char *name, double value)
{
    struct real_figures *f = ctx;

    if (strcmp(name, "evict_helps") == 0)
        f->helped = value;
    return 0;
}

static struct real_figures
real_replay(void)
{
    uint64_t cache_bytes = (uint64_t)(capacity * real_charge);
    scree_cache *cache = real_open(cache_bytes);
    struct real_figures f = {0};
    scree_stats warm = {0}, end;

    for (size_t i = 0; i < trace_n; i++) {
        scree_slice page;

        if (i == trace_n / 3)
            warm = stats_of(cache);
        scree_read_enter(cache);
        must(scree_page_get(cache, real_id[trace[i]], &page, NULL), "get");
        if (page.len != PAYLOAD_BYTES || memcmp(page.data, &trace[i], sizeof trace[i]) != 0)
            die("get", "another page's bytes");
        scree_read_leave(cache);
        if (i % 1024 == 0) {
            double share_used = (double)stats_of(cache).resident_bytes / (double)cache_bytes;

            f.resident_max = share_used > f.resident_max ? share_used : f.resident_max;
        }
    }
    end = stats_of(cache);
    f.evicted = (double)end.evictions;
    must(scree_stats_each(cache, real_helps, &f), "stats");
    f.ratio = 100.0 * (double)(end.hits - warm.hits) /
              (double)(end.hits + end.misses - warm.hits - warm.misses);
    must(scree_close(cache), "close");
    return f;
}

static void
real_table(uint64_t seed)
{
    static const enum trace_kind kinds[] = {ZIPF, ZIPF_SCAN, ZIPF_SCAN_BESIDE, HOT_SHIFTS, UNIFORM};

    printf("\nthe real cache, %u byte pages that take %.0f bytes, cache_bytes for %" PRIu32
           " of them\n",
           PAYLOAD_BYTES, real_charge, capacity);
    printf("%-14s%9s%9s%9s%22s%12s%10s\n", "", "scree", "model", "LRU", "resident/limit, max",
           "evictions", "helped");
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct real_figures f;

        trace_make(kinds[k], seed);
        f = real_replay();
        printf("%-14s%9.2f%9.2f%9.2f%22.4f%12.0f%10.0f\n", trace_names[kinds[k]], f.ratio,
               model_ratio(&policies[POLICY_OURS]), model_ratio(&policies[POLICY_LRU]),
               f.resident_max, f.evicted, f.helped);
    }
}

/* ---- check: what must hold ---------------------------------------------------------------------- */

#define NONE (-100.0) /* not replayed through the cache */

static int failures;

static void
expect(const char *what, double ratio, double at_least)
{
    bool ok = ratio >= at_least;

    printf("%-34s %6.2f, at least %6.2f: %s\n", what, ratio, at_least, ok ? "ok" : "FAILED");
    failures += !ok;
}

/* Hits above LRU's, percent of accesses, that the policy must bring on each trace, and the cache on some. */
static const struct promise {
    enum trace_kind kind;
    double model, real;
} promises[] = {
    {ZIPF, 5, 4.5},       {ZIPF_SCAN, 5, 4.5},   {ZIPF_SCAN_BESIDE, 7, 6}, {ZIPF_FLAT, 7, NONE},
    {ZIPF_MOVES, 1, 0.5}, {HOT_SHIFTS, 1, NONE}, {UNIFORM, -1, NONE},      {LOOP, 50, NONE},
};
#define PROMISES (sizeof promises / sizeof promises[0])

static void
check(const char *parent)
{
    double lru[PROMISES];
    char what[64];

    pages = 20000;
    capacity = 2000;
    traces_begin(30, 1);
    models_begin();
    for (size_t i = 0; i < PROMISES; i++) {
        trace_make(promises[i].kind, 1);
        lru[i] = model_ratio(&policies[POLICY_LRU]);
        (void)snprintf(what, sizeof what, "%s: the policy", trace_names[promises[i].kind]);
        expect(what, model_ratio(&policies[POLICY_OURS]), lru[i] + promises[i].model);
    }
    if (failures > 0) /* the cache would not be better, only slower */
        return;
    real_load(parent);
    for (size_t i = 0; i < PROMISES; i++) {
        if (promises[i].real <= NONE)
            continue;
        trace_make(promises[i].kind, 1);
        (void)snprintf(what, sizeof what, "%s: the cache", trace_names[promises[i].kind]);
        expect(what, real_replay().ratio, lru[i] + promises[i].real);
    }
    real_remove();
}

/* In memory where that can be had. */
static const char *
directory(int argc, char **argv, int at)
{
    const char *tmp = getenv("TMPDIR");

    if (argc > at)
        return argv[at];
    if (access("/dev/shm", W_OK) == 0)
        return "/dev/shm";
    return tmp != NULL ? tmp : "/tmp";
}

static uint64_t
argument(int argc, char **argv, int at, uint64_t otherwise)
{
    return argc > at ? strtoull(argv[at], NULL, 10) : otherwise;
}

int
main(int argc, char **argv)
{
    uint64_t seed;

    if (argc > 1 && strcmp(argv[1], "check") == 0) {
        check(directory(argc, argv, 2));
        return failures > 0;
    }
    pages = (uint32_t)argument(argc, argv, 1, 100000);
    capacity = (uint32_t)(pages * argument(argc, argv, 2, 10) / 100);
    seed = argument(argc, argv, 4, 1);
    if (pages < 1000 || capacity < 10 || capacity > pages)
        die("arguments", "1000 pages and 10 in the cache at least");
    traces_begin(argument(argc, argv, 3, 40), seed);
    models_begin();
    models_table(seed);
    real_load(directory(argc, argv, 5));
    real_table(seed);
    real_remove();
    return 0;
}
