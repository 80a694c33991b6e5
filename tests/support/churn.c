/*
 * churn.c - see churn.h.
 *
 * WORDS  begun, done, acked: update numbers. EDGES  the one writer stores them release; a parent that looks
 *        after a child loads them acquire, and by waitpid or SIGSTOP has an order anyway.
 * LIFETIME  shared by fork.   PROGRESS  no waits.   FAILURE  the run ends.
 */
#include "churn.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

static uint32_t
number_get(const _Atomic uint32_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static void
number_set(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

struct churn *
churn_new(uint64_t seed, uint32_t slots, uint32_t len_min, uint32_t len_max)
{
    struct churn *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (c == MAP_FAILED || slots > CHURN_SLOTS_MAX || len_max > CHURN_PAGE_MAX)
        kit_failed(__FILE__, __LINE__, "test", "no memory, or over the test's own limits");
    c->slots = slots;
    c->len_min = len_min < sizeof(struct churn_chunk) ? sizeof(struct churn_chunk) : len_min;
    c->len_max = len_max < c->len_min ? c->len_min : len_max;
    c->append_max = 128;
    c->page_max = c->len_max;
    churn_reset(c, seed);
    return c;
}

void
churn_delete(struct churn *c)
{
    munmap(c, sizeof(*c));
}

void
churn_reset(struct churn *c, uint64_t seed)
{
    c->random = seed;
    c->epoch = 1;
    c->bytes = 0;
    number_set(&c->begun, 0);
    number_set(&c->done, 0);
    number_set(&c->acked, 0);
    memset(c->head, 0, sizeof(c->head));
}

/* ---- chunks ---- */

static uint64_t
chunk_sum(const struct churn_chunk *chunk, const void *body)
{
    uint64_t seed = ((uint64_t)chunk->op << 32 | chunk->slot) ^ (uint64_t)chunk->epoch << 20;

    return kit_hash(body, chunk->len - sizeof(*chunk), seed * 31 + chunk->len);
}

void
churn_chunk_make(unsigned char *bytes, uint32_t op, uint32_t slot, uint32_t epoch, uint32_t len)
{
    struct churn_chunk chunk = {.op = op, .slot = slot, .epoch = epoch, .len = len};
    uint64_t state = (uint64_t)op << 32 | slot;
    size_t at = sizeof(chunk);

    while (at < len) {
        uint64_t word = kit_random(&state);
        size_t n = len - at < sizeof(word) ? len - at : sizeof(word);

        memcpy(bytes + at, &word, n);
        at += n;
    }
    chunk.check = chunk_sum(&chunk, bytes + sizeof(chunk));
    memcpy(bytes, &chunk, sizeof(chunk));
    if (bytes[0] == KIT_UNMERGEABLE) /* op 255, 511, ...: what the materializer refuses */
        kit_failed(__FILE__, __LINE__, "test", "op %" PRIu32, op);
}

/* The chunk at `at`; false if there is none, or its bytes are not what they were. */
static bool
chunk_at(const unsigned char *page, size_t len, size_t at, struct churn_chunk *chunk_out)
{
    if (len - at < sizeof(*chunk_out))
        return false;
    memcpy(chunk_out, page + at, sizeof(*chunk_out));
    if (chunk_out->len < sizeof(*chunk_out) || chunk_out->len > len - at)
        return false;
    return chunk_out->check == chunk_sum(chunk_out, page + at + sizeof(*chunk_out));
}

bool
churn_page_is_whole(const void *page, size_t len, uint32_t slot)
{
    struct churn_chunk chunk;
    size_t at = 0;

    while (at < len) {
        if (!chunk_at(page, len, at, &chunk) || chunk.slot != slot)
            return false;
        at += chunk.len;
    }
    return len > 0;
}

/* ---- updates ---- */

/* Update numbers whose lowest byte is KIT_UNMERGEABLE are left out: they are frees of nobody. */
static uint32_t
op_begin(struct churn *c, uint32_t slot, enum churn_kind kind, uint32_t len)
{
    uint32_t n = number_get(&c->done) + 1;

    if (n % 256 == KIT_UNMERGEABLE) {
        c->op[n] = (struct churn_op){.slot = UINT32_MAX, .kind = CHURN_FREE};
        number_set(&c->begun, n);
        number_set(&c->done, n);
        n++;
    }
    KIT_CHECK(n <= CHURN_OPS_MAX, "the test's own limit of updates");
    c->op[n] = (struct churn_op){.slot = slot,
                                 .before = c->head[slot],
                                 .len = len,
                                 .epoch = c->epoch,
                                 .kind = (uint16_t)kind};
    c->op[n].id = c->head[slot] != 0 && churn_is_live(c, slot) ? c->op[c->head[slot]].id : 0;
    number_set(&c->begun, n);
    return n;
}

static int
op_end(struct churn *c, uint32_t n, uint64_t id, int code)
{
    if (code != 0) {
        number_set(&c->begun, n - 1);
        return code;
    }
    c->op[n].id = id;
    c->head[c->op[n].slot] = n;
    c->bytes += c->op[n].len;
    number_set(&c->done, n);
    return 0;
}

bool
churn_is_live(const struct churn *c, uint32_t slot)
{
    return c->head[slot] != 0 && c->op[c->head[slot]].kind != CHURN_FREE;
}

static _Thread_local unsigned char chunk_bytes[CHURN_PAGE_MAX];

static uint32_t
len_draw(struct churn *c, uint32_t min, uint32_t max)
{
    return min + (uint32_t)kit_below(&c->random, (uint64_t)max - min + 1);
}

int
churn_put(struct churn *c, scree_cache *cache, uint32_t slot)
{
    uint32_t len = len_draw(c, c->len_min, c->len_max);
    uint32_t n = op_begin(c, slot, CHURN_BASE, len);
    scree_page_id id = c->op[n].id;
    int code;

    churn_chunk_make(chunk_bytes, n, slot, c->epoch, len);
    if (id == 0)
        code = scree_page_allocate(cache, kit_slice(chunk_bytes, len), &id, NULL);
    else
        code = scree_page_put(cache, id, kit_slice(chunk_bytes, len), NULL);
    return op_end(c, n, id, code);
}

/* Bytes of the slot's page after update `head`. */
static uint64_t
page_len(const struct churn *c, uint32_t head)
{
    uint64_t len = 0;

    while (head != 0 && c->op[head].kind == CHURN_APPEND) {
        len += c->op[head].len;
        head = c->op[head].before;
    }
    return len + (head != 0 ? c->op[head].len : 0);
}

int
churn_append(struct churn *c, scree_cache *cache, uint32_t slot)
{
    uint32_t len = len_draw(c, sizeof(struct churn_chunk), c->append_max);
    uint32_t n;
    uint64_t id;

    if (page_len(c, c->head[slot]) + len > c->page_max)
        return churn_put(c, cache, slot);
    n = op_begin(c, slot, CHURN_APPEND, len);
    id = c->op[n].id;
    churn_chunk_make(chunk_bytes, n, slot, c->epoch, len);
    return op_end(c, n, id, scree_page_append(cache, id, kit_slice(chunk_bytes, len), NULL));
}

int
churn_free(struct churn *c, scree_cache *cache, uint32_t slot)
{
    uint32_t n = op_begin(c, slot, CHURN_FREE, 0);
    uint64_t id = c->op[n].id;
    scree_version version = 0;
    int code = scree_page_read(cache, id, NULL, 0, NULL, &version);

    if (code == SCREE_E_TOO_BIG)
        code = scree_page_free(cache, id, &version);
    return op_end(c, n, id, code);
}

int
churn_step(struct churn *c, scree_cache *cache, const struct churn_mix *mix)
{
    uint32_t slot = (uint32_t)kit_below(&c->random, c->slots);
    uint64_t kind = kit_below(&c->random, (uint64_t)mix->put + mix->append + mix->free);

    if (!churn_is_live(c, slot) || kind < mix->put)
        return churn_put(c, cache, slot);
    if (kind < (uint64_t)mix->put + mix->append)
        return churn_append(c, cache, slot);
    return churn_free(c, cache, slot);
}

int
churn_flush(struct churn *c, scree_cache *cache)
{
    uint32_t done = number_get(&c->done);
    int code = scree_flush(cache, NULL);

    if (code == 0)
        number_set(&c->acked, done);
    return code;
}

/* ---- reading ---- */

uint32_t
churn_done(const struct churn *c)
{
    return number_get(&c->done);
}

uint32_t
churn_acked(const struct churn *c)
{
    return number_get(&c->acked);
}

uint32_t
churn_live(const struct churn *c)
{
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < c->slots; slot++)
        n += churn_is_live(c, slot);
    return n;
}

uint64_t
churn_live_bytes(const struct churn *c)
{
    uint64_t bytes = 0;

    for (uint32_t slot = 0; slot < c->slots; slot++)
        bytes += churn_is_live(c, slot) ? page_len(c, c->head[slot]) : 0;
    return bytes;
}

/* The page holds exactly the chunks that lead up to update `head`: compared from its end. */
static bool
page_is(const struct churn *c, uint32_t head, const unsigned char *page, size_t len)
{
    uint64_t at = page_len(c, head);
    struct churn_chunk chunk;

    if (at != len)
        return false;
    for (;; head = c->op[head].before) {
        const struct churn_op *op = &c->op[head];

        at -= op->len;
        if (!chunk_at(page, len, at, &chunk) || chunk.op != head || chunk.slot != op->slot ||
            chunk.epoch != op->epoch || chunk.len != op->len)
            return false;
        if (op->kind == CHURN_BASE)
            return at == 0;
    }
}

static _Thread_local unsigned char page_bytes[CHURN_PAGE_MAX + 1];

int
churn_read(const struct churn *c, scree_cache *cache, uint32_t slot)
{
    const struct churn_op *op = &c->op[c->head[slot]];
    size_t len = 0;
    int code = scree_page_read(cache, op->id, page_bytes, sizeof(page_bytes), &len, NULL);

    if (code == 0)
        KIT_CHECK(page_is(c, c->head[slot], page_bytes, len),
                  "page %" PRIu64 " (slot %" PRIu32 "): %zu bytes that are not update %" PRIu32
                  "'s %" PRIu64,
                  op->id, slot, len, c->head[slot], page_len(c, c->head[slot]));
    return code;
}

void
churn_check(const struct churn *c, scree_cache *cache)
{
    scree_page_id id = 0;
    uint32_t n = 0;
    int code;

    for (uint32_t slot = 0; slot < c->slots; slot++) {
        if (!churn_is_live(c, slot))
            continue;
        code = churn_read(c, cache, slot);
        KIT_CHECK(code == 0, "page %" PRIu64 " (slot %" PRIu32 ", update %" PRIu32 ") gave %d %s",
                  c->op[c->head[slot]].id, slot, c->head[slot], code, kit_code_name(code));
    }
    while ((code = scree_page_next(cache, id, &id)) == 0)
        n += id != SCREE_PAGE_ROOT;
    KIT_CHECK(code == SCREE_E_NOT_FOUND, "page_next gave %d", code);
    KIT_CHECK(n == churn_live(c), "%" PRIu32 " pages, not %" PRIu32, n, churn_live(c));
}

/* ---- after a crash ---- */

/* What this page says it is; it must be some state its slot went through. */
static void
page_find(const struct churn *c, scree_cache *cache, scree_page_id id, struct churn_found *found)
{
    struct churn_chunk chunk;
    size_t len = 0;
    size_t at = 0;
    int code = scree_page_read(cache, id, page_bytes, sizeof(page_bytes), &len, NULL);

    KIT_CHECK(code == 0, "page %" PRIu64 " gave %d %s", id, code, kit_code_name(code));
    KIT_CHECK(len > 0, "page %" PRIu64 " is empty", id);
    while (at < len) {
        KIT_CHECK(chunk_at(page_bytes, len, at, &chunk),
                  "page %" PRIu64 ": bad bytes at %zu of %zu", id, at, len);
        at += chunk.len;
    }
    KIT_CHECK(chunk.op <= number_get(&c->begun) && chunk.slot < c->slots,
              "page %" PRIu64 " holds update %" PRIu32 " of slot %" PRIu32 ", which never was", id,
              chunk.op, chunk.slot);
    KIT_CHECK(page_is(c, chunk.op, page_bytes, len),
              "page %" PRIu64 " ends with update %" PRIu32 " of slot %" PRIu32 " (epoch %" PRIu32
              "), but is not what that made",
              id, chunk.op, chunk.slot, chunk.epoch);
    KIT_CHECK(c->op[chunk.op].id == 0 || c->op[chunk.op].id == id,
              "slot %" PRIu32 " is page %" PRIu64 ", not %" PRIu64, chunk.slot, id,
              c->op[chunk.op].id);
    KIT_CHECK(found->id[chunk.slot] == 0, "slot %" PRIu32 " is both page %" PRIu64 " and %" PRIu64,
              chunk.slot, found->id[chunk.slot], id);
    found->id[chunk.slot] = id;
    found->head[chunk.slot] = chunk.op;
    found->n = chunk.op > found->n ? chunk.op : found->n;
}

/* The slot's newest update up to n; 0 if its page was free then. */
static uint32_t
head_at(const struct churn *c, uint32_t slot, uint32_t n)
{
    uint32_t head = c->head[slot];
    uint32_t begun = number_get(&c->begun);

    if (begun > number_get(&c->done) && c->op[begun].slot == slot)
        head = begun; /* the one under way */
    while (head > n)
        head = c->op[head].before;
    return head != 0 && c->op[head].kind != CHURN_FREE ? head : 0;
}

/* The pages that are there differ from those after update n in so many slots; now[]: these. */
static uint32_t
differences(const struct churn *c, const struct churn_found *found, uint32_t n, uint32_t *now)
{
    uint32_t differ = 0;

    for (uint32_t slot = 0; slot < c->slots; slot++) {
        now[slot] = head_at(c, slot, n);
        differ += now[slot] != found->head[slot];
    }
    return differ;
}

void
churn_find(const struct churn *c, scree_cache *cache, uint32_t from, struct churn_found *found)
{
    static uint32_t now[CHURN_SLOTS_MAX];
    uint32_t newest;
    uint32_t differ;
    scree_page_id id = 0;
    int code;

    memset(found, 0, sizeof(*found));
    while ((code = scree_page_next(cache, id, &id)) == 0) {
        if (id != SCREE_PAGE_ROOT)
            page_find(c, cache, id, found);
    }
    KIT_CHECK(code == SCREE_E_NOT_FOUND, "page_next gave %d", code);
    /* Behind the newest update that is seen may be others that leave nothing to be seen: frees, and what
       was freed again. */
    newest = found->n;
    differ = differences(c, found, newest, now);
    while (found->n < number_get(&c->begun) && (differ > 0 || found->n < from)) {
        const struct churn_op *op = &c->op[++found->n];

        if (op->slot >= c->slots)
            continue;
        differ -= now[op->slot] != found->head[op->slot];
        now[op->slot] = op->kind == CHURN_FREE ? 0 : found->n;
        differ += now[op->slot] != found->head[op->slot];
    }
    if (differ == 0)
        return;
    differ = differences(c, found, newest, now);
    for (uint32_t slot = 0; slot < c->slots; slot++)
        KIT_CHECK(now[slot] == found->head[slot],
                  "no prefix of %" PRIu32 " updates, %" PRIu32 " of them acknowledged: the newest "
                  "that is there is %" PRIu32 ", where %" PRIu32 " pages differ, as slot %" PRIu32
                  ", which is at %" PRIu32 ", not at %" PRIu32,
                  number_get(&c->begun), from, newest, differ, slot, found->head[slot], now[slot]);
    KIT_CHECK(differ > 0, "updates up to %" PRIu32 " are there, %" PRIu32 " were acknowledged",
              newest, from);
}

void
churn_return_to(struct churn *c, const struct churn_found *found)
{
    for (uint32_t slot = 0; slot < c->slots; slot++) {
        uint32_t head = c->head[slot];
        uint32_t begun = number_get(&c->begun);

        if (begun > number_get(&c->done) && c->op[begun].slot == slot)
            head = begun;
        while (head > found->n)
            head = c->op[head].before;
        c->head[slot] = head;
        if (churn_is_live(c, slot))
            c->op[head].id = found->id[slot];
    }
    number_set(&c->begun, found->n);
    number_set(&c->done, found->n);
    number_set(&c->acked, found->n);
    c->epoch++;
}
