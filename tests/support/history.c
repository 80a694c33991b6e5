/*
 * history.c - see history.h. One thread; the pages' bytes are kept whole for the newest state only.
 */
#include "history.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

struct history *
history_new(uint64_t seed)
{
    struct history *h =
        mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (h == MAP_FAILED)
        kit_failed(__FILE__, __LINE__, "test", "no memory");
    history_reset(h, seed);
    return h;
}

void
history_reset(struct history *h, uint64_t seed)
{
    memset(h, 0, sizeof(*h));
    h->random = seed;
}

void
history_become(struct history *h, const struct history *other)
{
    memcpy(h, other, offsetof(struct history, bytes));
    memcpy(h->lsn, other->lsn, other->n * sizeof(h->lsn[0]));
    memcpy(h->state, other->state, other->n * sizeof(h->state[0]));
}

uint64_t
history_hash(const void *bytes, size_t len)
{
    return kit_hash(bytes, len, 11);
}

void
history_begin(struct history *h, scree_cache *cache)
{
    scree_version version = 0;
    int code = scree_page_read(cache, SCREE_PAGE_ROOT, NULL, 0, NULL, &version);

    KIT_CHECK(code == 0, "the root gave %d", code);
    h->id[0] = SCREE_PAGE_ROOT;
    h->pages = 1;
    memset(&h->state[0], 0,
           sizeof(h->state[0])); /* one that is used again has other things there */
    h->state[0].page[0] = (struct history_page){.version = version, .hash = history_hash("", 0)};
    h->version_any = version;
    h->lsn[0] = version;
    h->n = 1;
    h->acked = 0;
}

static uint32_t
page_of(struct history *h, scree_page_id id)
{
    uint32_t at = 0;

    while (at < h->pages && h->id[at] != id)
        at++;
    if (at == h->pages) {
        KIT_CHECK(at < HISTORY_PAGES, "the test's own limit");
        h->id[h->pages++] = id;
    }
    return at;
}

/* The next state, as the one before but for these pages; h->len and h->bytes have what they are now. */
static void
state_add(struct history *h, uint32_t n, const uint32_t *at, const bool *live, uint64_t version)
{
    struct history_state *s = &h->state[h->n];

    KIT_CHECK(version > h->version_any, "version %llu after %llu", (unsigned long long)version,
              (unsigned long long)h->version_any);
    kit_env_hold();
    *s = h->state[h->n - 1];
    for (uint32_t i = 0; i < n; i++) {
        struct history_page *page = &s->page[at[i]];

        *page = (struct history_page){0, 0, 0};
        if (live[i]) {
            page->version = version;
            page->len = h->len[at[i]];
            page->hash = history_hash(h->bytes[at[i]], page->len);
        }
    }
    h->version_any = version;
    h->lsn[h->n] = version;
    h->n++;
    kit_env_release();
}

static int
step_allocate(struct history *h, scree_cache *cache, const unsigned char *bytes, uint32_t len)
{
    scree_page_id id = 0;
    scree_version version = 0;
    bool live = true;
    uint32_t at = 0;
    int code;

    while (at < h->pages && h->state[h->n - 1].page[at].version != 0)
        at++;
    if (at < h->pages) /* by this id, which was freed before */
        code = scree_page_allocate_at(cache, id = h->id[at], kit_slice(bytes, len), &version);
    else
        code = scree_page_allocate(cache, kit_slice(bytes, len), &id, &version);
    if (code != 0)
        return code == SCREE_E_BUSY ? 0 : code;
    at = page_of(h, id);
    memcpy(h->bytes[at], bytes, len);
    h->len[at] = len;
    state_add(h, 1, &at, &live, version);
    return 0;
}

/* append, merge, put, set or free on a live page */
static int
step_update(struct history *h, scree_cache *cache, uint32_t at, const unsigned char *bytes,
            uint32_t len)
{
    scree_version version = h->state[h->n - 1].page[at].version;
    scree_slice slice = kit_slice(bytes, len);
    uint64_t kind = kit_below(&h->random, 100);
    bool appends = kind < 55 && h->len[at] + len <= HISTORY_BYTES;
    bool frees = kind >= 90 && at != 0, live = !frees;
    int code;

    if (appends && kind < 35)
        code = scree_page_append(cache, h->id[at], slice, &version);
    else if (appends)
        code = scree_page_merge(cache, h->id[at], &version, slice);
    else if (frees)
        code = scree_page_free(cache, h->id[at], &version);
    else if (kind < 75)
        code = scree_page_put(cache, h->id[at], slice, &version);
    else
        code = scree_page_set(cache, h->id[at], &version, slice);
    if (code != 0)
        return code;
    if (!appends)
        h->len[at] = 0;
    memcpy(h->bytes[at] + h->len[at], bytes, frees ? 0 : len);
    h->len[at] += frees ? 0 : len;
    state_add(h, 1, &at, &live, version);
    return 0;
}

static uint32_t
bytes_random(struct history *h, unsigned char bytes[HISTORY_BYTES])
{
    uint32_t len = (uint32_t)kit_below(&h->random, h->len_max != 0                 ? h->len_max
                                                   : kit_below(&h->random, 8) == 0 ? 900
                                                                                   : 80);
    uint64_t word = kit_random(&h->random);

    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)((word >> (i % 8 * 8)) + i);
    if (len > 0 && bytes[0] == KIT_UNMERGEABLE)
        bytes[0] = 7;
    return len;
}

int
history_step(struct history *h, scree_cache *cache)
{
    unsigned char bytes[HISTORY_BYTES];
    uint32_t len = bytes_random(h, bytes);
    uint32_t at = (uint32_t)kit_below(&h->random, HISTORY_PAGES);

    KIT_CHECK(h->n < HISTORY_STEPS, "the test's own limit");
    if (at >= h->pages || h->state[h->n - 1].page[at].version == 0)
        return step_allocate(h, cache, bytes, len);
    return step_update(h, cache, at, bytes, len);
}

/* ---- batches ---- */

#define DRAFT_PAGES 6u

/* A batch that is being put together: what its pages will be. */
struct draft {
    scree_batch *batch;
    bool chosen; /* allocates by ids of its own */
    uint32_t n;
    uint32_t at[DRAFT_PAGES];
    bool live[DRAFT_PAGES];
    uint32_t len[DRAFT_PAGES];
    unsigned char bytes[DRAFT_PAGES][HISTORY_BYTES];
    uint32_t betweens;
    struct history_between between[2 * DRAFT_PAGES];
};

static void
draft_between(struct draft *d, scree_page_id id, const unsigned char *bytes, uint32_t len)
{
    d->between[d->betweens++] = (struct history_between){id, history_hash(bytes, len), len};
}

static bool
draft_has(const struct draft *d, uint32_t at)
{
    for (uint32_t i = 0; i < d->n; i++)
        if (d->at[i] == at)
            return true;
    return false;
}

/* A page that is not live: by its old id, or by a new one, if the test has room for one. Not both in one
   batch: a new one may be an old one. */
static int
draft_allocate(struct history *h, struct draft *d, uint32_t at)
{
    uint32_t i = d->n;
    scree_page_id id;
    int code;

    if (d->chosen ? at >= h->pages : h->pages + DRAFT_PAGES > HISTORY_PAGES)
        return 0;
    d->len[i] = bytes_random(h, d->bytes[i]);
    if (d->chosen) {
        code = scree_batch_allocate_at(d->batch, h->id[at], kit_slice(d->bytes[i], d->len[i]));
    } else {
        code = scree_batch_allocate(d->batch, kit_slice(d->bytes[i], d->len[i]), &id);
        at = code == 0 ? page_of(h, id) : 0;
    }
    if (code != 0)
        return code;
    d->at[i] = at;
    d->live[i] = true;
    d->n++;
    return 0;
}

/* One that comes and goes within the batch. */
static int
draft_fleeting(struct history *h, struct draft *d)
{
    unsigned char bytes[HISTORY_BYTES];
    uint32_t len = bytes_random(h, bytes);
    scree_page_id id;
    int code = scree_batch_allocate(d->batch, kit_slice(bytes, len), &id);

    draft_between(d, id, bytes, len);
    return code != 0 ? code : scree_batch_free(d->batch, id, 0);
}

/* One or two steps on a live page. */
static int
draft_update(struct history *h, struct draft *d, uint32_t at)
{
    uint64_t version = h->state[h->n - 1].page[at].version, kind = kit_below(&h->random, 100);
    uint32_t i = d->n, len;
    unsigned char bytes[HISTORY_BYTES];
    int code = 0;

    if (kind < 15)
        return scree_batch_check(d->batch, h->id[at], version);
    d->at[i] = at;
    d->live[i] = true;
    d->len[i] = h->len[at];
    memcpy(d->bytes[i], h->bytes[at], h->len[at]);
    d->n++;
    if (kind < 60) {
        d->len[i] = bytes_random(h, d->bytes[i]);
        code = scree_batch_set(d->batch, h->id[at], version, kit_slice(d->bytes[i], d->len[i]));
    }
    len = bytes_random(h, bytes);
    draft_between(d, h->id[at], d->bytes[i], d->len[i]);
    if (code == 0 && kind >= 40 && kind < 85 && d->len[i] + len <= HISTORY_BYTES) {
        memcpy(d->bytes[i] + d->len[i], bytes, len);
        d->len[i] += len;
        code = scree_batch_merge(d->batch, h->id[at], version, kit_slice(bytes, len));
    } else if (code == 0 && kind >= 60 && at != 0) {
        d->live[i] = false;
        code = scree_batch_free(d->batch, h->id[at], version);
    } else if (code == 0 && kind >= 60) {
        d->n--;
    }
    return code;
}

static int
draft_commit(struct history *h, struct draft *d)
{
    scree_lsn lsn = 0;
    scree_page_id conflict = 0;
    int code = scree_batch_commit(d->batch, &lsn, &conflict);

    /* An id that was freed a moment ago, or that was handed out twice, as it had been chosen and freed. */
    if (code == SCREE_E_BUSY || (code == SCREE_E_CONFLICT && !d->chosen))
        return 0;
    if (code != 0)
        return code;
    kit_env_hold();
    for (uint32_t i = 0; i < d->betweens && h->betweens < HISTORY_STEPS; i++)
        h->between[h->betweens++] = d->between[i];
    kit_env_release();
    if (d->n == 0)
        return 0;
    for (uint32_t i = 0; i < d->n; i++) {
        h->len[d->at[i]] = d->live[i] ? d->len[i] : 0;
        memcpy(h->bytes[d->at[i]], d->bytes[i], d->live[i] ? d->len[i] : 0);
    }
    state_add(h, d->n, d->at, d->live, lsn);
    return 0;
}

int
history_batch(struct history *h, scree_cache *cache)
{
    static _Thread_local struct draft draft;
    struct draft *d = &draft;
    uint32_t pages = 1 + (uint32_t)kit_below(&h->random, DRAFT_PAGES);
    int code;

    KIT_CHECK(h->n < HISTORY_STEPS, "the test's own limit");
    d->n = d->betweens = 0;
    d->chosen = kit_below(&h->random, 2) == 0;
    code = scree_batch_begin(cache, &d->batch);
    if (code != 0)
        return code;
    for (uint32_t i = 0; i < pages && code == 0; i++) {
        uint32_t at = (uint32_t)kit_below(&h->random, HISTORY_PAGES);

        if (draft_has(d, at))
            continue;
        if (at < h->pages && h->state[h->n - 1].page[at].version != 0)
            code = draft_update(h, d, at);
        else
            code = draft_allocate(h, d, at);
        if (code == 0 && !d->chosen && kit_below(&h->random, 8) == 0)
            code = draft_fleeting(h, d);
    }
    if (code == 0)
        return draft_commit(h, d);
    scree_batch_abort(d->batch);
    return code;
}

int
history_flush(struct history *h, scree_cache *cache)
{
    int code = scree_flush(cache, NULL);

    if (code == 0)
        h->acked = h->n - 1;
    return code;
}

void
history_acknowledge(struct history *h, uint64_t stable)
{
    while (h->acked + 1 < h->n) {
        const struct history_state *next = &h->state[h->acked + 1];
        const struct history_state *now = &h->state[h->acked];
        bool covered = false; /* a free's position is not kept: the next one tells */

        for (uint32_t i = 0; i < HISTORY_PAGES; i++) {
            if (next->page[i].version != now->page[i].version && next->page[i].version != 0)
                covered = next->page[i].version <= stable;
        }
        if (!covered)
            return;
        h->acked++;
    }
}

int
history_look(const struct history *h, scree_cache *cache, struct history_seen *seen_out)
{
    static unsigned char buffer[8192];
    scree_page_id id = 0;
    int code;

    memset(seen_out, 0, sizeof(*seen_out));
    while ((code = scree_page_next(cache, id, &id)) == 0) {
        scree_version version = 0;
        size_t len = 0;
        uint32_t at = 0;
        int result = scree_page_read(cache, id, buffer, sizeof(buffer), &len, &version);

        while (at < h->pages && h->id[at] != id)
            at++;
        if (at == h->pages) {
            seen_out->strangers++;
            continue;
        }
        if (result == SCREE_E_CORRUPT || result == -EIO) {
            KIT_CHECK(scree_error_detail()[0] != '\0', "CORRUPT without a detail");
            seen_out->failed[at] = true;
            seen_out->failures++;
            continue;
        }
        KIT_CHECK(result == 0, "page %llu gave %d %s", (unsigned long long)id, result,
                  kit_code_name(result));
        seen_out->state.page[at].version = version;
        seen_out->state.page[at].len = (uint32_t)len;
        seen_out->state.page[at].hash = history_hash(buffer, len);
    }
    return code == SCREE_E_NOT_FOUND ? 0 : code;
}

static bool
page_matches(const struct history_page *a, const struct history_page *b)
{
    if (a->version != b->version)
        return false;
    return a->version == 0 || (a->len == b->len && a->hash == b->hash);
}

bool
history_matches(const struct history *h, const struct history_seen *seen, uint32_t at)
{
    for (uint32_t i = 0; i < HISTORY_PAGES; i++) {
        const struct history_page *page = &h->state[at].page[i];

        if (seen->failed[i] ? page->version == 0 : !page_matches(page, &seen->state.page[i]))
            return false;
    }
    return seen->strangers == 0;
}

bool
history_between(const struct history *h, scree_page_id id, const void *bytes, size_t len)
{
    uint64_t hash = history_hash(bytes, len);

    KIT_CHECK(h->betweens < HISTORY_STEPS, "the test's own limit");
    for (uint32_t i = 0; i < h->betweens; i++)
        if (h->between[i].id == id && h->between[i].len == len && h->between[i].hash == hash)
            return true;
    return false;
}

bool
history_fleeting(const struct history *h, scree_page_id id)
{
    for (uint32_t i = 0; i < h->betweens; i++)
        if (h->between[i].id == id)
            return true;
    return false;
}

int
history_find(const struct history *h, const struct history_seen *seen, uint32_t from)
{
    for (uint32_t k = h->n; seen->strangers == 0 && k-- > from;)
        if (history_matches(h, seen, k))
            return (int)k;
    return -1;
}

void
history_return_to(struct history *h, uint32_t at, scree_cache *cache)
{
    kit_env_hold();
    h->n = at + 1;
    h->acked = at;
    kit_env_release();
    for (uint32_t i = 0; i < h->pages; i++) {
        size_t len = 0;
        int code;

        if (h->state[at].page[i].version == 0)
            continue;
        code = scree_page_read(cache, h->id[i], h->bytes[i], HISTORY_BYTES, &len, NULL);
        KIT_CHECK(code == 0, "page %llu gave %d", (unsigned long long)h->id[i], code);
        h->len[i] = (uint32_t)len;
    }
}

uint64_t
history_seen_hash(const struct history_seen *seen)
{
    uint64_t hash = 0;

    for (uint32_t i = 0; i < HISTORY_PAGES; i++) {
        const struct history_page *p = &seen->state.page[i];

        hash = kit_hash(&p->version, sizeof(p->version), hash);
        hash = kit_hash(&p->hash, sizeof(p->hash), hash);
    }
    return hash;
}
