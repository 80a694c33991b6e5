/*
 * stress_page.c - pages that check themselves, and the model of one page.
 *
 *   page      head | writers[head.writers] { seq, ordinal } | filler
 *   fragment  magic, id, seq, epoch, writer, sum | filler
 *
 * Every update of a page adds one entry (writer, seq, epoch) to a digest that depends on their order, and
 * notes in the writer's row how many it has made and at which count the last one came. A private page has
 * one row, a ledger one per thread. A fragment that is not its writer's next one leaves a fault in the
 * page for ever, which every reader sees: lost, doubled and swapped fragments do not cancel out.
 * A page's length changes only by allocate and set, so merging works in place on a copy of the base.
 */
#include "stress.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_MAGIC UINT64_C(0x7363726565706167)
#define FRAG_MAGIC UINT64_C(0x7363726565667261)
#define LEDGER_SEED UINT64_C(0x6c6564676572)
#define LEDGER_BYTES 200u

struct fragment {
    uint64_t magic, id, seq;
    uint32_t epoch, writer;
    uint64_t sum; /* of the four above and the filler's length */
};

const char *const stress_kind_names[STRESS_KINDS] = {
    "allocate",     "set",           "merge", "append", "free",    "shared set",
    "shared merge", "shared append", "get",   "sync",   "snapshot"};

uint64_t
stress_fold(uint64_t digest, uint32_t writer, uint64_t seq, uint32_t epoch)
{
    return tool_mix(digest * 31 + tool_mix(seq ^ tool_mix((uint64_t)writer << 32 | epoch)));
}

/* Mostly small, sometimes several blocks: some records cross blocks, some pages fill a whole one. */
static uint32_t
filler_bytes(uint64_t seed)
{
    uint64_t r = tool_mix(seed);
    uint32_t limit = r % 64 < 48 ? 256 : r % 64 < 61 ? 2048 : 16384;

    return (uint32_t)((r >> 16) % limit);
}

static uint64_t
filler_word(uint64_t seed, size_t at)
{
    return at % 4 == 0 ? tool_mix(seed + at) : seed; /* a quarter random: compresses */
}

static void
filler_make(unsigned char *to, size_t len, uint64_t seed)
{
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = filler_word(seed, at / 8);

        memcpy(to + at, &word, len - at < 8 ? len - at : 8);
    }
}

static bool
filler_check(const unsigned char *p, size_t len, uint64_t seed)
{
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = filler_word(seed, at / 8);

        if (memcmp(p + at, &word, len - at < 8 ? len - at : 8) != 0)
            return false;
    }
    return true;
}

static uint64_t
head_sum(const struct stress_head *head, const unsigned char *writers)
{
    uint64_t sum = head->magic, word;
    uint64_t words[] = {head->tag,
                        head->id,
                        head->count,
                        head->digest,
                        head->set_seed,
                        head->fault,
                        (uint64_t)head->filler_bytes << 32 | head->writers};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        sum = tool_mix(sum ^ words[i]);
    for (size_t i = 0; i < head->writers * sizeof(struct stress_writer); i += 8) {
        memcpy(&word, writers + i, 8);
        sum = tool_mix(sum ^ word);
    }
    return sum;
}

/* A head whose lengths fit the page; the rest is not looked at. */
static bool
head_load(scree_slice page, struct stress_head *head_out)
{
    if (page.len < sizeof(*head_out))
        return false;
    memcpy(head_out, page.data, sizeof(*head_out));
    return head_out->magic == PAGE_MAGIC && head_out->writers >= 1 &&
           head_out->writers <= STRESS_THREADS_MAX &&
           page.len == sizeof(*head_out) + head_out->writers * sizeof(struct stress_writer) +
                           head_out->filler_bytes;
}

bool
stress_page_check(scree_slice page, scree_page_id id)
{
    const unsigned char *writers = (const unsigned char *)page.data + sizeof(struct stress_head);
    struct stress_head head;

    return head_load(page, &head) && (head.id == 0 || head.id == id) && head.fault == 0 &&
           head.sum == head_sum(&head, writers) &&
           filler_check(writers + head.writers * sizeof(struct stress_writer), head.filler_bytes,
                        head.set_seed);
}

bool
stress_slot_matches(const struct stress_slot *slot, const struct stress_head *head)
{
    return head->tag == slot->tag && head->count == slot->count && head->digest == slot->digest &&
           head->set_seed == slot->set_seed && head->filler_bytes == filler_bytes(slot->set_seed);
}

static size_t
page_make(struct stress_head *head, const struct stress_writer *rows, unsigned char *to)
{
    size_t rows_bytes = head->writers * sizeof(*rows);

    head->magic = PAGE_MAGIC;
    memcpy(to + sizeof(*head), rows, rows_bytes);
    head->sum = head_sum(head, to + sizeof(*head));
    memcpy(to, head, sizeof(*head));
    filler_make(to + sizeof(*head) + rows_bytes, head->filler_bytes, head->set_seed);
    return sizeof(*head) + rows_bytes + head->filler_bytes;
}

size_t
stress_slot_page(const struct stress_slot *slot, void *buf)
{
    struct stress_writer row = {slot->count, slot->count};
    struct stress_head head = {.tag = slot->tag,
                               .id = slot->id,
                               .count = slot->count,
                               .digest = slot->digest,
                               .set_seed = slot->set_seed,
                               .filler_bytes = filler_bytes(slot->set_seed),
                               .writers = 1};

    return page_make(&head, &row, buf);
}

size_t
stress_ledger_page(uint32_t ledger, uint32_t writers, void *buf)
{
    struct stress_writer rows[STRESS_THREADS_MAX] = {{0, 0}};
    struct stress_head head = {.tag = STRESS_TAG_LEDGER | ledger,
                               .set_seed = LEDGER_SEED + ledger,
                               .filler_bytes = LEDGER_BYTES,
                               .writers = writers};

    return page_make(&head, rows, buf);
}

struct stress_slot
stress_slot_apply(struct stress_slot *slot, const struct stress_op *op, unsigned thread,
                  uint32_t epoch)
{
    struct stress_slot before = *slot;

    if (op->kind == STRESS_FREE) {
        *slot = (struct stress_slot){.allocations = before.allocations};
        return before;
    }
    if (op->kind == STRESS_ALLOCATE) {
        slot->allocations = (uint32_t)op->seq;
        slot->tag = stress_tag(thread, op->target, slot->allocations);
        slot->count = slot->digest = 0;
    }
    slot->id = op->page;
    slot->version = op->version;
    slot->count++;
    slot->digest = stress_fold(slot->digest, 0, slot->count, epoch);
    if (op->kind == STRESS_ALLOCATE || op->kind == STRESS_SET)
        slot->set_seed = tool_mix(slot->tag ^ slot->digest);
    return before;
}

/* One entry into a page whose head is sound, in place. */
static void
add_entry(struct stress_head *head, unsigned char *page, uint32_t writer, uint64_t seq,
          uint32_t epoch)
{
    unsigned char *at = page + sizeof(*head) + writer * sizeof(struct stress_writer);
    struct stress_writer row;

    memcpy(&row, at, sizeof(row));
    if (seq != row.seq + 1 && head->fault == 0)
        head->fault = (uint64_t)(writer + 1) << 48 | seq;
    head->count++;
    head->digest = stress_fold(head->digest, writer, seq, epoch);
    row.seq = seq;
    row.ordinal = head->count;
    memcpy(at, &row, sizeof(row));
}

void
stress_page_add(void *page, scree_page_id id, uint32_t writer, uint64_t seq, uint32_t epoch)
{
    struct stress_head head;

    memcpy(&head, page, sizeof(head));
    head.id = id;
    add_entry(&head, page, writer, seq, epoch);
    head.sum = head_sum(&head, (unsigned char *)page + sizeof(head));
    memcpy(page, &head, sizeof(head));
}

static uint64_t
fragment_sum(const struct fragment *f, size_t filler)
{
    return tool_mix(f->magic ^
                    tool_mix(f->id ^
                             tool_mix(f->seq ^ tool_mix((uint64_t)f->epoch << 32 | f->writer)))) +
           filler;
}

size_t
stress_fragment(scree_page_id id, uint32_t writer, uint64_t seq, uint32_t epoch, void *buf)
{
    size_t filler = tool_mix(id ^ tool_mix(seq)) % 96;
    struct fragment f = {
        .magic = FRAG_MAGIC, .id = id, .seq = seq, .epoch = epoch, .writer = writer};

    f.sum = fragment_sum(&f, filler);
    memcpy(buf, &f, sizeof(f));
    filler_make((unsigned char *)buf + sizeof(f), filler, f.sum);
    return sizeof(f) + filler;
}

static int
page_merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
           scree_out *out)
{
    struct stress_head head;
    unsigned char *page;

    (void)ctx;
    if (base == NULL || !head_load(*base, &head) || (head.id != 0 && head.id != id) ||
        head.sum != head_sum(&head, (const unsigned char *)base->data + sizeof(head)))
        return -1;
    page = scree_out_reserve(out, base->len);
    if (page == NULL)
        return -1;
    memcpy(page, base->data, base->len);
    head.id = id;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *filler =
            (const unsigned char *)frags[i].data + sizeof(struct fragment);
        struct fragment f;

        if (frags[i].len < sizeof(f))
            return -1;
        memcpy(&f, frags[i].data, sizeof(f));
        if (f.magic != FRAG_MAGIC || f.id != id || f.writer >= head.writers ||
            f.sum != fragment_sum(&f, frags[i].len - sizeof(f)) ||
            !filler_check(filler, frags[i].len - sizeof(f), f.sum))
            return -1;
        add_entry(&head, page, f.writer, f.seq, f.epoch);
    }
    head.sum = head_sum(&head, page + sizeof(head));
    memcpy(page, &head, sizeof(head));
    return 0;
}

void
stress_materializer(scree_materializer *m)
{
    memset(m, 0, sizeof(*m));
    m->size = sizeof(*m);
    m->name = "scree-stress";
    m->version = 1;
    m->merge = page_merge;
}

/* Everything small, so that eviction, consolidation, snapshots and the deletion of segments all happen
   within seconds; every third worker compresses, so that both kinds of records meet. */
void
stress_open_options(const struct stress_shared *s, const scree_materializer *m,
                    scree_options *options_out)
{
    scree_options_init(options_out);
    options_out->flags = SCREE_CREATE;
    options_out->cache_bytes = (256u << 10) + s->threads * (96u << 10);
    options_out->segment_bytes = 1u << 20;
    options_out->log_buffer_bytes = 1u << 20;
    options_out->page_bytes_max = STRESS_PAGE_MAX;
    options_out->snapshot_log_bytes = 8u << 20;
    options_out->flush_interval_ms = 20;
    options_out->fragments_max = 8;
    options_out->compression_level = s->epoch % 3 == 2 ? 1 : 0;
    options_out->materializer = m;
}
