/*
 * history.c - see history.h. One thread; the pages' bytes are kept whole for the newest state only.
 */
#include "history.h"

#include <errno.h>
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

static uint64_t
bytes_hash(const void *bytes, size_t len)
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
    h->state[0].page[0] = (struct history_page){.version = version, .hash = bytes_hash("", 0)};
    h->version_any = version;
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

static void
state_add(struct history *h, uint32_t at, bool live, scree_version version)
{
    struct history_state *s = &h->state[h->n];

    KIT_CHECK(version > h->version_any, "version %llu after %llu", (unsigned long long)version,
              (unsigned long long)h->version_any);
    kit_env_hold();
    *s = h->state[h->n - 1];
    s->page[at] = (struct history_page){0, 0, 0};
    if (live) {
        s->page[at].version = version;
        s->page[at].len = h->len[at];
        s->page[at].hash = bytes_hash(h->bytes[at], h->len[at]);
    }
    h->version_any = version;
    h->n++;
    kit_env_release();
}

static int
step_allocate(struct history *h, scree_cache *cache, const unsigned char *bytes, uint32_t len)
{
    scree_page_id id = 0;
    scree_version version = 0;
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
    state_add(h, at, true, version);
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
    bool frees = kind >= 90 && at != 0;
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
    state_add(h, at, !frees, version);
    return 0;
}

int
history_step(struct history *h, scree_cache *cache)
{
    unsigned char bytes[HISTORY_BYTES];
    uint32_t len = (uint32_t)kit_below(&h->random, h->len_max != 0                 ? h->len_max
                                                   : kit_below(&h->random, 8) == 0 ? 900
                                                                                   : 80);
    uint64_t word = kit_random(&h->random);
    uint32_t at = (uint32_t)kit_below(&h->random, HISTORY_PAGES);

    KIT_CHECK(h->n < HISTORY_STEPS, "the test's own limit");
    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)((word >> (i % 8 * 8)) + i);
    if (len > 0 && bytes[0] == KIT_UNMERGEABLE)
        bytes[0] = 7;
    if (at >= h->pages || h->state[h->n - 1].page[at].version == 0)
        return step_allocate(h, cache, bytes, len);
    return step_update(h, cache, at, bytes, len);
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
        seen_out->state.page[at].hash = bytes_hash(buffer, len);
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

int
history_find(const struct history *h, const struct history_seen *seen, uint32_t from)
{
    if (seen->strangers > 0)
        return -1;
    for (uint32_t k = h->n; k-- > from;) {
        uint32_t at = 0;

        while (at < HISTORY_PAGES &&
               (seen->failed[at] ? h->state[k].page[at].version != 0
                                 : page_matches(&h->state[k].page[at], &seen->state.page[at])))
            at++;
        if (at == HISTORY_PAGES)
            return (int)k;
    }
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
