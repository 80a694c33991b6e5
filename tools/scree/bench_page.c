/*
 * bench_page.c - what a benchmark page holds, the same for every engine.
 *
 *   page      u32 base_len, u32 nfrag, base[base_len], the fragments since the last cut
 *   nfrag     appends ever. The append after the 16th fragment cuts the page back to its base, so the
 *             page holds nfrag mod 17 fragments, the newest ones: a function of the count alone, which
 *             is what makes the merge law hold.
 *   fragment  u64 stamp (page id << 8 | pool index), body of that pool index
 *   churn     page without fragments whose base is u64 operation, u64 page id, body of pool index
 *             operation mod pool; as loaded: operation 0, the key for the id
 *
 * Half of every 64 bytes is random, the other half one repeated byte: about half compresses.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES 8u
#define CYCLE (BENCH_FRAGS_KEPT + 1u)

static uint32_t
load_u32(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static void
fill(unsigned char *to, size_t len, uint64_t seed)
{
    struct tool_rng rng;

    tool_rng_init(&rng, seed);
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = tool_rng_next(&rng);

        if (at % 64 >= 32)
            word = 0x0101010101010101u * (uint64_t)('a' + seed % 26);
        memcpy(to + at, &word, len - at < 8 ? len - at : 8);
    }
}

void
bench_page_make(void *page, uint32_t len, uint64_t key, uint64_t seed)
{
    const uint32_t head[2] = {len - HEAD_BYTES, 0};

    memcpy(page, head, sizeof(head));
    fill((unsigned char *)page + HEAD_BYTES, len - HEAD_BYTES, tool_mix(key) ^ seed);
}

void
bench_fragment_make(void *fragment, uint32_t len, uint32_t index, uint64_t seed)
{
    fill(fragment, len, tool_mix(0xf0000000u + index) ^ seed);
}

void
bench_value_make(void *value, uint32_t len, unsigned thread, uint64_t k, uint64_t seed)
{
    fill(value, len, tool_mix((uint64_t)thread << 48 | k) ^ seed);
}

void
bench_churn_make(void *page, uint32_t len, uint32_t index, uint64_t seed)
{
    bench_page_make(page, len, 0xc0000000u + index, seed);
}

void
bench_churn_stamp(void *page, uint64_t op, uint64_t name)
{
    const uint64_t stamp[2] = {op, name};

    memcpy((unsigned char *)page + HEAD_BYTES, stamp, sizeof(stamp));
}

bool
bench_churn_check(scree_slice page, uint64_t id, uint64_t key, const struct bench_options *o,
                  unsigned char *scratch, uint64_t *op_out)
{
    if (page.len != o->page)
        return false;
    memcpy(op_out, (const unsigned char *)page.data + HEAD_BYTES, sizeof(*op_out));
    bench_churn_make(scratch, o->page, *op_out % BENCH_POOL, o->seed);
    bench_churn_stamp(scratch, *op_out, *op_out == 0 ? key : id);
    return memcmp(page.data, scratch, page.len) == 0;
}

bool
bench_page_check(scree_slice page, uint64_t id, uint64_t key, const struct bench_options *o,
                 unsigned char *scratch, uint32_t *appends_out)
{
    const unsigned char *p = page.data;
    uint32_t kept;

    if (page.len < o->page || load_u32(p) != o->page - HEAD_BYTES)
        return false;
    *appends_out = load_u32(p + 4);
    kept = *appends_out % CYCLE;
    bench_page_make(scratch, o->page, key, o->seed);
    if (page.len != o->page + (size_t)kept * o->frag ||
        memcmp(p + HEAD_BYTES, scratch + HEAD_BYTES, o->page - HEAD_BYTES) != 0)
        return false;
    for (uint32_t i = 0; i < kept; i++) {
        const unsigned char *f = p + o->page + (size_t)i * o->frag;
        uint64_t stamp;
        uint32_t index;

        memcpy(&stamp, f, sizeof(stamp));
        index = (uint32_t)(stamp & 0xff);
        if (index >= BENCH_POOL || stamp != bench_fragment_stamp(id, index))
            return false;
        bench_fragment_make(scratch, o->frag, index, o->seed);
        memcpy(scratch, &stamp, sizeof(stamp));
        if (memcmp(f, scratch, o->frag) != 0)
            return false;
    }
    return true;
}

size_t
bench_page_add(void *page, size_t len, uint32_t count, const void *newest, uint32_t newest_n,
               uint32_t frag_len)
{
    uint32_t head[2], kept, take = count;

    memcpy(head, page, sizeof(head));
    kept = head[1] % CYCLE + count;
    head[1] += count;
    if (kept > BENCH_FRAGS_KEPT) {
        take = head[1] % CYCLE;
        len = HEAD_BYTES + (size_t)head[0];
    }
    memcpy(page, head, sizeof(head));
    memcpy((unsigned char *)page + len,
           (const unsigned char *)newest + (size_t)(newest_n - take) * frag_len,
           (size_t)take * frag_len);
    return len + (size_t)take * frag_len;
}

static int
page_merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
           scree_out *out)
{
    const unsigned char *b = base != NULL ? base->data : NULL;
    size_t b_len, added = 0, first = 0;
    uint32_t head[2];
    unsigned char *to;
    uint64_t kept;

    (void)ctx;
    (void)id;
    if (b == NULL || base->len < HEAD_BYTES || load_u32(b) > base->len - HEAD_BYTES)
        return -1;
    head[0] = load_u32(b);
    head[1] = load_u32(b + 4);
    kept = head[1] % CYCLE + n;
    b_len = base->len;
    if (kept > BENCH_FRAGS_KEPT) {
        /* Cut at least once: what stays came after the last cut, so it is all among frags. */
        first = n - (size_t)(kept % CYCLE);
        b_len = HEAD_BYTES + (size_t)head[0];
    }
    head[1] += (uint32_t)n;
    for (size_t i = first; i < n; i++)
        added += frags[i].len;
    to = scree_out_reserve(out, b_len + added);
    if (to == NULL)
        return -1;
    memcpy(to, head, sizeof(head));
    memcpy(to + HEAD_BYTES, b + HEAD_BYTES, b_len - HEAD_BYTES);
    to += b_len;
    for (size_t i = first; i < n; i++) {
        memcpy(to, frags[i].data, frags[i].len);
        to += frags[i].len;
    }
    return 0;
}

void
bench_materializer(scree_materializer *m)
{
    memset(m, 0, sizeof(*m));
    m->size = sizeof(*m);
    m->name = "scree-bench";
    m->version = 1;
    m->merge = page_merge;
}
