/*
 * ceiling_frag_merge.c - frag-merge and mixed without an engine: the hot path of a log-structured page cache,
 *                        the log really written, and nothing around it.
 *
 * HEAD      one 64-bit word a page:  [63:56] depth, fragments since the base that is in the log
 *                                    [55:48] chain, nodes above the base that is in memory  [47:0] newest node
 *           A get merges in memory what it finds and installs it: chain 0, the depth stays.
 * EDGES  step                                          who        order        pairs  if it loses
 *   H0   head -> own node, depth + 1, chain + 1        appender   CAS release  H3     its record is aborted;
 *                                                                                     again from the start
 *   H1   head -> a base with all of it, 0, 0           that H0 which made the depth 17, later; above 24 anyone
 *                                                                 CAS acq_rel  H3     as H0
 *   H2   head -> merged node, depth, chain 0           reader     CAS acq_rel  H3     drops its node
 *   H3   head: a pointer to follow                     any        load acquire H0-H2  -
 * INVARIANTS
 *   I1 A head is loaded before its updater reserves, so what it points to is below the reservation: log and
 *   memory agree on the order of a page's fragments. A lost CAS reserves anew. I2 From the first load of a head
 *   to the end of its operation a thread publishes no newer epoch (log.h), so what it saw is not freed, and no
 *   head comes back by ABA. I3 Only the CAS stands between reservation and record: what the record is, appended
 *   or aborted, is known when it is filled.
 * LIFETIME  H1, H2 unlink the whole chain: pointers go to a bag of the thread. A closed bag's tag is the
 *   thread's next reservation; once all epochs are above it they go on the thread's free lists.
 * PROGRESS  lock-free but for room in the ring (log.h). A base is made when the depth passes 16, for 8 pages
 *   side by side, as their cold chains are walked in step.
 * COSTS     measured by leaving one out: chains walked side by side (one by one it is 2.2 times slower); the
 *   merged page installed by gets (without: 1.3 to 1.9 times slower, mixed); huge pages for nodes and heads (10
 *   to 25%). Within the noise: the tail's line touched once an append, records filled behind the CAS, lines
 *   fetched for writing. What is left is misses: the head's line, the walks, the copy of bases; and with two
 *   threads the lines of tail and heads, which go from core to core.
 * LEFT OUT  against a library: a call with arguments to check, errors; an index (pages are an array); versions
 *   and conflicts told to the caller, batches; read sections that users hold (epochs here are those of a loop
 *   that never idles), threads that come and go; admission by disk room, eviction, memory bounds, accounting (a
 *   thread that is preempted lets the bags of the others grow without end); segments with headers, syncs and
 *   seals, snapshots, cleaning: four files are written over and over; recovery; merge as a callback;
 *   statistics. Nodes stay with the thread that freed them.
 * CHECKED   at the end: every page byte for byte, the sum of their counts against the appends, and the last
 *   ring's worth of the log read back from the files.
 */
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define BASE_AT (CEILING_FRAGS_KEPT + 1u) /* depth at which a base is due */
#define BASE_AT_ONCE 24u                  /* depth beyond which whoever comes makes one first */
#define CHAIN_MAX 64u                     /* BASE_AT_ONCE and a fragment of each thread */
#define SIDE_BY_SIDE 8u
#define INSTALL_CHAIN 2u /* a get that merged so many fragments installs the page */
#define BAG_POINTERS 256u
#define SLAB_BYTES (2u << 20)
#define AHEAD 4u /* nodes that are fetched before they are popped */

_Static_assert(BASE_AT_ONCE + CEILING_THREADS_MAX <= CHAIN_MAX, "chains fit");

struct node {
    struct node *next;
    uint64_t version; /* end of the record of its newest fragment */
    uint32_t len;
    uint32_t size; /* which free list, enum size */
    unsigned char payload[];
};

enum size {
    FRAG,
    SMALL,
    WHOLE,
    SIZES
}; /* SMALL: a base with few fragments, WHOLE: with all it may have */
#define SMALL_FRAGS 4u

struct pool {
    struct node **node;
    size_t n, cap;
    uint32_t bytes; /* of a node */
};

struct bag {
    struct bag *newer;
    uint64_t closed; /* own end then */
    uint64_t tag;    /* of those before s->untagged */
    unsigned n;
    uintptr_t node[BAG_POINTERS + CHAIN_MAX]; /* its size in the lower bits */
};

struct cache {
    _Atomic uint64_t *heads;
    struct ceiling_log log;
    struct ceiling_options *options;
};

/* A page that is walked. node[0] is the newest, node[chain] the base. */
struct walk {
    uint32_t key;
    uint64_t head;
    struct node *node[CHAIN_MAX + 1];
};

struct self {
    _Alignas(CEILING_LINE) struct log_hand log;
    struct cache *cache;
    struct pool pool[SIZES];
    unsigned char *frags; /* CEILING_POOL of them */
    unsigned char *copy;
    struct bag *oldest, *untagged,
        *open; /* a list: closed with a tag, closed, the one that is filled */
    struct bag *spare;
    unsigned due;
    uint32_t due_key[SIDE_BY_SIDE];
    struct walk walk[SIDE_BY_SIDE];
    uint64_t appends, lost, bases, installs;
};

/* ---- words ------------------------------------------------------------------------------------------ */

static inline struct node *
head_node(uint64_t head)
{
    return (struct node *)(uintptr_t)(head & ((UINT64_C(1) << 48) - 1));
}

static inline unsigned
head_chain(uint64_t head)
{
    return (unsigned)(head >> 48) & 0xff;
}

static inline unsigned
head_depth(uint64_t head)
{
    return (unsigned)(head >> 56);
}

static inline uint64_t
head_make(const struct node *node, unsigned depth, unsigned chain)
{
    return (uint64_t)depth << 56 | (uint64_t)chain << 48 | (uintptr_t)node;
}

/* ---- nodes ------------------------------------------------------------------------------------------ */

static void
pool_push(struct pool *pool, struct node *node)
{
    if (pool->n == pool->cap) {
        pool->cap = pool->cap == 0 ? 1024 : 2 * pool->cap;
        pool->node = realloc(pool->node, pool->cap * sizeof(*pool->node));
        if (pool->node == NULL)
            ceiling_fail("memory", ENOMEM);
    }
    pool->node[pool->n++] = node;
}

static __attribute__((noinline)) void
pool_fill(struct pool *pool, enum size size)
{
    unsigned n = SLAB_BYTES / pool->bytes;
    unsigned char *slab = ceiling_alloc_huge(SLAB_BYTES);

    for (unsigned i = 0; i < n; i++) {
        struct node *node = (struct node *)(void *)(slab + (size_t)i * pool->bytes);

        node->size = size;
        pool_push(pool, node);
    }
}

static inline struct node *
node_pop(struct self *s, enum size size)
{
    struct pool *pool = &s->pool[size];

    if (pool->n == 0)
        pool_fill(pool, size);
    if (pool->n > AHEAD) {
        const char *ahead = (const char *)pool->node[pool->n - 1 - AHEAD];

        ceiling_prefetch_write(ahead);
        ceiling_prefetch_write(ahead + 64);
    }
    return pool->node[--pool->n];
}

static void
bags_free(struct self *s)
{
    uint64_t epoch = log_epoch_min(s->log.log); /* L3 */

    /* At once, not when their turn comes: a tag from later on would have to be waited for again. */
    for (; s->untagged != s->open && s->untagged->closed < s->log.end;
         s->untagged = s->untagged->newer)
        s->untagged->tag = s->log.end - LOG_HEADER_BYTES; /* within a reservation made since */
    while (s->oldest != s->untagged && s->oldest->tag < epoch) {
        struct bag *bag = s->oldest;

        for (unsigned i = 0; i < bag->n; i++)
            pool_push(&s->pool[bag->node[i] & 7u], (struct node *)(bag->node[i] & ~(uintptr_t)7));
        s->oldest = bag->newer;
        bag->newer = s->spare;
        s->spare = bag;
    }
}

static struct bag *
bag_new(struct self *s)
{
    struct bag *bag = s->spare;

    if (bag != NULL)
        s->spare = bag->newer;
    else
        bag = ceiling_alloc(sizeof(*bag));
    bag->newer = NULL;
    bag->n = 0;
    return bag;
}

/* A whole chain that was just unlinked. */
static inline void
chain_retire(struct self *s, const struct walk *walk)
{
    struct bag *bag = s->open;
    unsigned chain = head_chain(walk->head);

    for (unsigned i = 0; i < chain; i++)
        bag->node[bag->n++] = (uintptr_t)walk->node[i] | FRAG;
    bag->node[bag->n++] = (uintptr_t)walk->node[chain] | walk->node[chain]->size;
    if (bag->n < BAG_POINTERS)
        return;
    bag->closed = s->log.end;
    s->open = bag->newer = bag_new(s);
    bags_free(s);
}

/* ---- pages ------------------------------------------------------------------------------------------ */

/* Newest first; a chain's next nodes are fetched while those of the others are looked at. H3. */
static inline void
walk_in_step(struct self *s, struct walk *walks, unsigned n)
{
    unsigned longest = 0;

    for (unsigned i = 0; i < n; i++) {
        /* H3: payloads and links of all nodes. */
        walks[i].head = atomic_load_explicit(&s->cache->heads[walks[i].key], memory_order_acquire);
        walks[i].node[0] = head_node(walks[i].head);
        __builtin_prefetch(walks[i].node[0]);
        longest = head_chain(walks[i].head) > longest ? head_chain(walks[i].head) : longest;
    }
    for (unsigned level = 0; level < longest; level++) {
        for (unsigned i = 0; i < n; i++) {
            if (level >= head_chain(walks[i].head))
                continue;
            walks[i].node[level + 1] = walks[i].node[level]->next;
            __builtin_prefetch(walks[i].node[level + 1]);
        }
    }
}

static inline uint32_t
page_count(const unsigned char *page)
{
    uint32_t count;

    memcpy(&count, page + 4, sizeof(count));
    return count;
}

/* Which of the base's bytes and of the newest fragments stay: bytes of the page. */
static inline uint32_t
page_len(const struct self *s, const struct walk *walk, uint32_t *base_len_out, unsigned *frags_out)
{
    const struct ceiling_options *o = s->cache->options;
    const struct node *base = walk->node[head_chain(walk->head)];
    unsigned n = head_chain(walk->head), kept = page_count(base->payload) % BASE_AT + n;

    *base_len_out = base->len;
    *frags_out = n;
    if (kept > CEILING_FRAGS_KEPT) {
        *base_len_out = o->page;
        *frags_out = kept % BASE_AT;
    }
    return *base_len_out + *frags_out * o->frag;
}

static inline void
page_build(const struct self *s, const struct walk *walk, unsigned char *to)
{
    uint32_t frag = s->cache->options->frag, base_len, count;
    unsigned n = head_chain(walk->head), frags;
    const struct node *base = walk->node[n];

    (void)page_len(s, walk, &base_len, &frags);
    memcpy(to, base->payload, base_len);
    count = page_count(base->payload) + n;
    memcpy(to + 4, &count, sizeof(count));
    to += base_len;
    for (unsigned i = frags; i-- > 0; to += frag)
        memcpy(to, walk->node[i]->payload, frag);
}

static struct node *
page_node(struct self *s, const struct walk *walk)
{
    const struct ceiling_options *o = s->cache->options;
    uint32_t base_len;
    unsigned frags;
    uint32_t len = page_len(s, walk, &base_len, &frags);
    struct node *node = node_pop(s, len <= o->page + SMALL_FRAGS * o->frag ? SMALL : WHOLE);

    page_build(s, walk, node->payload);
    node->len = len;
    node->version = walk->node[0]->version;
    return node;
}

/* H1: the page's new base into the log and in its place; false if others changed the page. */
static bool
base_put(struct self *s, const struct walk *walk)
{
    struct node *node = page_node(s, walk);
    uint64_t sum = XXH3_64bits(node->payload, node->len), at, head = walk->head;
    bool won;

    at = log_reserve(&s->log, log_len(node->len));
    /* LP. Release: the node. Acquire: frees what is below only after it is unlinked. */
    won = atomic_compare_exchange_strong_explicit(&s->cache->heads[walk->key], &head,
                                                  head_make(node, 0, 0), memory_order_acq_rel,
                                                  memory_order_relaxed);
    log_fill(&s->log, at, won ? LOG_BASE : LOG_ABORTED, walk->key, node->version, node->payload,
             node->len, sum);
    if (won) {
        s->bases++;
        chain_retire(s, walk);
    } else {
        s->lost++;
        pool_push(&s->pool[node->size], node);
    }
    return won;
}

/* The page's depth is small when it returns. */
static __attribute__((noinline)) void
base_at_once(struct self *s, uint32_t key)
{
    struct walk walk = {.key = key};

    do {
        walk_in_step(s, &walk, 1);
    } while (head_depth(walk.head) >= BASE_AT && !base_put(s, &walk));
}

static __attribute__((noinline)) void
bases_due(struct self *s)
{
    for (unsigned i = 0; i < s->due; i++)
        s->walk[i].key = s->due_key[i];
    walk_in_step(s, s->walk, s->due);
    for (unsigned i = 0; i < s->due; i++) {
        const char *base = (const char *)s->walk[i].node[head_chain(s->walk[i].head)];

        for (uint32_t at = 64; at < s->cache->options->page + 24; at += 64)
            __builtin_prefetch(base + at);
    }
    for (unsigned i = 0; i < s->due; i++)
        if (head_depth(s->walk[i].head) >= BASE_AT && !base_put(s, &s->walk[i]))
            base_at_once(s, s->walk[i].key);
    s->due = 0;
    log_done(&s->log); /* L2 */
}

/* ---- operations ------------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void
append(struct self *s, uint32_t key, const unsigned char *frag, uint32_t len)
{
    _Atomic uint64_t *word = &s->cache->heads[key];
    struct node *node = node_pop(s, FRAG);
    uint64_t head, at, sum;
    bool won;

    /* A load of more than the stamp that was just stored would wait until that store and all before it, those
       to the ring among them, have left the store buffer. */
    memcpy(node->payload, frag, 8);
    memcpy(node->payload + 8, frag + 8, len - 8);
    node->len = len;
    sum = XXH3_64bits(frag, len);
    do {
        /* I1. Acquire: the reservation of who put it there is before ours. Nobody follows it here. */
        head = atomic_load_explicit(word, memory_order_acquire);
        if (head_depth(head) >= BASE_AT_ONCE) {
            base_at_once(s, key);
            head = atomic_load_explicit(word, memory_order_acquire); /* as above */
        }
        at = log_reserve(&s->log, log_len(len)); /* I1 */
        node->next = head_node(head);
        node->version = s->log.end;
        /* LP, H0. Release: the node. What is below it was released by who put it there, and a
           release sequence carries that on: all changes of a head are read-modify-writes. */
        won = atomic_compare_exchange_strong_explicit(
            word, &head, head_make(node, head_depth(head) + 1, head_chain(head) + 1),
            memory_order_release, memory_order_relaxed);
        log_fill(&s->log, at, won ? LOG_APPEND : LOG_ABORTED, key, s->log.end, frag, len, sum);
        s->lost += !won;
    } while (!won);
    s->appends++;
    log_done(&s->log); /* L2 */
    if (head_depth(head) + 1 == BASE_AT) {
        s->due_key[s->due++] = key;
        if (s->due == SIDE_BY_SIDE)
            bases_due(s);
    }
}

static inline void
op_append(struct ceiling_worker *w)
{
    struct self *s = w->own;
    uint32_t len = w->options->frag, index = (uint32_t)w->at % CEILING_POOL;
    uint32_t key = ceiling_next(w);
    uint64_t stamp = ceiling_fragment_stamp(key, index);
    unsigned char *frag = s->frags + (size_t)index * len;

    ceiling_prefetch_write((const void *)&s->cache->heads[key]);
    memcpy(frag, &stamp, sizeof(stamp));
    if (len == 64) /* constant sizes are moved and hashed without loops */
        append(s, key, frag, 64);
    else
        append(s, key, frag, len);
}

/* H2: a page that was read is in one piece for the next one. */
static inline void
install(struct self *s, const struct walk *walk)
{
    struct node *node = page_node(s, walk);
    uint64_t head = walk->head;

    /* LP, H2. Release: the node. Acquire: as H1. */
    if (atomic_compare_exchange_strong_explicit(&s->cache->heads[walk->key], &head,
                                                head_make(node, head_depth(walk->head), 0),
                                                memory_order_acq_rel, memory_order_relaxed)) {
        s->installs++;
        chain_retire(s, walk);
    } else {
        s->lost++;
        pool_push(&s->pool[node->size], node);
    }
}

static inline void
op_get(struct ceiling_worker *w)
{
    struct self *s = w->own;
    struct walk *walk = &s->walk[0];
    uint64_t sum = 0, word;
    uint32_t base_len, len;
    unsigned frags;

    walk->key = ceiling_next(w);
    walk_in_step(s, walk, 1);
    len = page_len(s, walk, &base_len, &frags);
    page_build(s, walk, s->copy);
    for (size_t at = 0; at + sizeof(word) <= len; at += 64) {
        memcpy(&word, s->copy + at, sizeof(word));
        sum += word;
    }
    w->sum += sum;
    if (head_chain(walk->head) >= INSTALL_CHAIN)
        install(s, walk);
}

static inline void
op_mixed(struct ceiling_worker *w)
{
    if (ceiling_random(&w->random) >> 63)
        op_get(w);
    else
        op_append(w);
}

static void
work(struct ceiling_worker *w)
{
    struct self *s = w->own;

    log_enter(&s->log, &s->cache->log, w->thread);
    if (strcmp(w->options->workload, "mixed") == 0)
        ceiling_loop(w, CEILING_BATCH, op_mixed);
    else
        ceiling_loop(w, CEILING_BATCH, op_append);
    bases_due(s);
    log_leave(&s->log);
}

/* ---- before and after ------------------------------------------------------------------------------- */

static struct self *
self_new(struct cache *cache)
{
    const struct ceiling_options *o = cache->options;
    struct self *s = ceiling_alloc(sizeof(*s));
    const uint32_t payload[SIZES] = {o->frag, o->page + SMALL_FRAGS * o->frag,
                                     o->page + CEILING_FRAGS_KEPT * o->frag};

    s->cache = cache;
    for (unsigned i = 0; i < SIZES; i++)
        s->pool[i].bytes = ((uint32_t)sizeof(struct node) + payload[i] + 7u) & ~7u;
    s->copy = ceiling_alloc(payload[WHOLE]);
    s->frags = ceiling_alloc(CEILING_POOL * o->frag);
    for (uint32_t i = 0; i < CEILING_POOL; i++)
        ceiling_fragment_make(s->frags + (size_t)i * o->frag, o->frag, i, o->seed);
    s->oldest = s->untagged = s->open = bag_new(s);
    return s;
}

/* Keys of a thread's share: a base, and as many fragments as appends leave on average. */
static uint64_t
load(struct cache *cache, struct self *s, uint64_t from, uint64_t to)
{
    const struct ceiling_options *o = cache->options;
    uint64_t random = o->seed + from, appends = 0;

    for (uint64_t key = from; key < to; key++) {
        struct node *node = node_pop(s, SMALL);
        unsigned depth = (unsigned)(ceiling_random(&random) % BASE_AT);

        ceiling_page_make(node->payload, o->page, key, o->seed);
        node->len = o->page;
        node->version = 0;
        for (unsigned i = 0; i < depth; i++) {
            struct node *frag = node_pop(s, FRAG);
            uint64_t stamp = ceiling_fragment_stamp(key, i);

            memcpy(frag->payload, s->frags + (size_t)i * o->frag, o->frag);
            memcpy(frag->payload, &stamp, sizeof(stamp));
            frag->len = o->frag;
            frag->version = 0;
            frag->next = node;
            node = frag;
        }
        appends += depth;
        atomic_init(&cache->heads[key], head_make(node, depth, depth));
    }
    return appends;
}

/* The page's count of appends; ends the process if a byte of it is wrong. */
static uint64_t
page_check(struct self *s, uint32_t key, unsigned char *expect)
{
    const struct ceiling_options *o = s->cache->options;
    struct walk walk = {.key = key};
    uint32_t base_len, count;
    unsigned frags;

    walk_in_step(s, &walk, 1);
    (void)page_len(s, &walk, &base_len, &frags);
    page_build(s, &walk, s->copy);
    count = page_count(s->copy);
    ceiling_page_make(expect, o->page, key, o->seed);
    memcpy(expect + 4, &count, sizeof(count));
    for (uint32_t i = 0; i < count % BASE_AT; i++) {
        unsigned char *to = expect + o->page + (size_t)i * o->frag;
        uint64_t stamp;

        memcpy(&stamp, s->copy + (to - expect), sizeof(stamp));
        if (stamp != ceiling_fragment_stamp(key, stamp % CEILING_POOL))
            ceiling_fail("a fragment is wrong", EBADMSG);
        ceiling_fragment_make(to, o->frag, stamp % CEILING_POOL, o->seed);
        memcpy(to, &stamp, sizeof(stamp));
    }
    if (base_len + frags * o->frag != o->page + count % BASE_AT * o->frag ||
        memcmp(expect, s->copy, base_len + frags * o->frag) != 0)
        ceiling_fail("a page is wrong", EBADMSG);
    return count;
}

static void
check(struct cache *cache, struct self *s, uint64_t appends, char *text, size_t cap)
{
    uint64_t tail = atomic_load_explicit(&cache->log.tail, memory_order_relaxed); /* alone now */
    uint64_t least = tail > cache->log.mask ? tail - cache->log.mask : 0, from = tail, sum = 0;
    uint64_t records, aborted;
    unsigned char *expect =
        ceiling_alloc(cache->options->page + CEILING_FRAGS_KEPT * cache->options->frag);

    for (uint32_t key = 0; key < cache->options->n; key++) {
        /* A record's end is another one's start. Relaxed: alone now. */
        uint64_t head = atomic_load_explicit(&cache->heads[key], memory_order_relaxed);
        uint64_t version = head_node(head)->version;

        from = version >= least && version > 0 && version < from ? version : from;
        sum += page_check(s, key, expect);
    }
    if (sum != appends)
        ceiling_fail("appends were lost", EBADMSG);
    records = log_check(&cache->log, from, &aborted);
    (void)snprintf(text, cap, "%" PRIu64 " pages and %" PRIu64 " records of the log verified",
                   cache->options->n, records);
}

static void
print(const struct cache *cache, struct ceiling_worker *w, double seconds, uint64_t log_bytes,
      const char *checked)
{
    uint64_t lost = 0, bases = 0, installs = 0, waits = 0, appends = 0;
    char config[512];

    for (unsigned t = 0; t < cache->options->threads; t++) {
        const struct self *s = w[t].own;

        lost += s->lost;
        bases += s->bases;
        installs += s->installs;
        waits += s->log.waits;
        appends += s->appends;
    }
    (void)snprintf(config, sizeof(config),
                   "ring %u MiB, %.1f log bytes an append, bases %" PRIu64 ", installs %" PRIu64
                   ", CAS lost %" PRIu64 ", waits for room %" PRIu64 "; %s",
                   cache->options->ring_mib, (double)log_bytes / (double)appends, bases, installs,
                   lost, waits, checked);
    ceiling_print(cache->options, w, seconds, config);
}

int
main(int argc, char **argv)
{
    struct ceiling_options o = {.workload = "frag-merge"};
    struct cache *cache = ceiling_alloc(sizeof(*cache));
    struct ceiling_worker *w;
    uint64_t appends = 0, log_bytes;
    char checked[128];
    double seconds;

    ceiling_parse(&o, argc, argv, "frag-merge and mixed without an engine: a bare hot path");
    if ((o.ring_mib & (o.ring_mib - 1)) != 0 || o.n > UINT32_MAX)
        ceiling_fail("-r is a power of two, -n 32 bits", EINVAL);
    cache->options = &o;
    cache->heads = ceiling_alloc_huge(o.n * sizeof(*cache->heads));
    log_open(&cache->log, o.dir, (uint64_t)o.ring_mib << 20, o.threads);
    w = ceiling_workers(&o, cache, true);
    for (unsigned t = 0; t < o.threads; t++) {
        struct self *s = w[t].own = self_new(cache);

        appends += load(cache, s, o.n * t / o.threads, o.n * (t + 1) / o.threads);
    }
    seconds = ceiling_run(w, o.threads, o.seconds, work);
    log_bytes = atomic_load_explicit(&cache->log.tail, memory_order_relaxed); /* alone now */
    log_close(&cache->log);
    for (unsigned t = 0; t < o.threads; t++)
        appends += ((const struct self *)w[t].own)->appends;
    check(cache, w[0].own, appends, checked, sizeof(checked));
    print(cache, w, seconds, log_bytes, checked);
    return 0;
}
