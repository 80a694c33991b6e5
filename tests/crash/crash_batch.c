/*
 * crash_batch.c - batches and crashes: all of a batch is there, or none of it.
 *
 * GOAL      whatever call a process dies in, and wherever the log is cut, the directory holds exactly one of
 *           the states that were, at or behind the last one reported stable; a batch is one step between
 *           two states. Then it goes on: new batches, with versions nobody has seen, survive as well.
 * METHOD    a workload of batches (allocate, set, merge, free, check; several steps on a page; some
 *           aborted, some that conflict) and single updates over 24 pages, with flushes, waits, snapshots
 *           and reclaims between them. killed: a child dies in its n-th write, or its n-th changing call,
 *           for every n or every few. cut: a child ends without close; the last run of its log, which no
 *           seal calls stable yet, is cut at every record, and every 8 bytes of the last 4 KiB of records,
 *           in four ways. Each case is looked at in a child of its own, which goes on, closes or dies,
 *           and looks again.
 * ORACLE    a list of all states, versions with them, in memory that the children share. Of a cut: exactly
 *           the state of the last record that is whole; batches_discarded from the bytes of the log.
 * NOT HERE  threads (stress), a failing disk (crash_fault), damage to what was stable (crash_damage).
 *
 * crash_batch [seed] [cases, about, of each kind]
 */
#include "support/kit.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 24u
#define BYTES 3000u
#define STATES 320u
#define OPS 150u
#define TAIL_OPS 14u
#define BATCH_BYTES 12000u
#define WILD UINT64_MAX /* a version that is not known yet */
#define BLOCK 4096u

struct page {
    scree_page_id id; /* 0: none */
    scree_version version;
    uint64_t hash;
    uint64_t len;
};

struct state {
    uint64_t lsn;
    struct page page[PAGES];
};

/* In memory that the children share. */
struct model {
    uint64_t random;
    uint32_t n;       /* states 0 .. n - 1 */
    uint32_t pending; /* 1: state[n] is on its way, its versions WILD */
    uint32_t acked;
    uint64_t version_any;
    scree_page_id next_id; /* of allocate_at */
    unsigned char bytes[PAGES][BYTES];
    uint64_t calls;     /* what a counting run tells */
    uint64_t run_begin; /* the last run: from here, */
    uint64_t run_end;   /* its records end here at the latest */
    uint64_t batches, aborted, conflicts, checks, discarded, was_pending, behind;
    struct state state[STATES];
};

static struct model *m;
static struct model *m_before; /* as it was before a case */
static unsigned char bytes_before[PAGES][BYTES];
static char origin[KIT_PATH_MAX];
static char work[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;

static struct model *
model_new(void)
{
    void *p =
        mmap(NULL, sizeof(struct model), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    KIT_CHECK(p != MAP_FAILED, "mmap");
    return p;
}

static uint32_t
below(uint32_t n)
{
    return (uint32_t)kit_below(&m->random, n);
}

/* ---- steps on the model ---- */

/* Bytes that are never 0: a record that lost some of them cannot verify. */
static scree_slice
payload(void)
{
    static unsigned char buffer[BYTES];
    size_t len = below(5) == 0 ? below(1500) : below(120);

    for (size_t i = 0; i < len; i++)
        buffer[i] = (unsigned char)(1 + below(200));
    return kit_slice(buffer, len);
}

static struct page *
next_page(uint32_t slot)
{
    return &m->state[m->n].page[slot];
}

static void
edited(uint32_t slot)
{
    struct page *page = next_page(slot);

    page->version = WILD;
    page->hash = kit_hash(m->bytes[slot], page->len, 7);
}

static void
edit_merge(uint32_t slot, scree_slice fragment)
{
    struct page *page = next_page(slot);

    if (fragment.len > 0)
        memcpy(m->bytes[slot] + page->len, fragment.data, fragment.len);
    page->len += fragment.len;
    edited(slot);
}

static void
edit_set(uint32_t slot, scree_slice bytes)
{
    next_page(slot)->len = 0;
    edit_merge(slot, bytes);
}

static void
edit_free(uint32_t slot)
{
    memset(next_page(slot), 0, sizeof(struct page));
}

/* state[n] begins as the state before it; nothing may match it yet. */
static void
op_begin(void)
{
    KIT_CHECK(m->n + 1 < STATES, "too many states");
    m->state[m->n] = m->state[m->n - 1];
    memcpy(bytes_before, m->bytes, sizeof(bytes_before));
}

static void
op_undo(void)
{
    memcpy(m->bytes, bytes_before, sizeof(bytes_before));
}

/* From here on the disk may hold it. */
static void
op_pending(void)
{
    kit_env_hold();
    m->pending = 1;
    kit_env_release();
}

static void
op_done(uint64_t lsn)
{
    struct state *state = &m->state[m->n];

    KIT_CHECK(lsn > m->version_any, "version %" PRIu64 " after %" PRIu64, lsn, m->version_any);
    kit_env_hold();
    for (uint32_t i = 0; i < PAGES; i++)
        if (state->page[i].version == WILD)
            state->page[i].version = lsn;
    state->lsn = lsn;
    m->version_any = lsn;
    m->pending = 0;
    m->n++;
    kit_env_release();
}

static void
acknowledge(uint32_t at)
{
    kit_env_hold();
    if (at > m->acked)
        m->acked = at;
    kit_env_release();
}

static void
acknowledge_stable(void)
{
    uint64_t stable = scree_stable_lsn(cache);
    uint32_t at = m->acked;

    while (at + 1 < m->n && m->state[at + 1].lsn <= stable)
        at++;
    acknowledge(at);
}

/* ---- batches ---- */

#define OK(call)                                                                 \
    do {                                                                         \
        int code_ = (call);                                                      \
        KIT_CHECK(code_ == 0, #call " gave %d %s", code_, kit_code_name(code_)); \
    } while (0)

struct tally {
    uint64_t bytes;
    bool wrote;
    scree_version checked; /* the largest */
};

static void
step_set(scree_batch *batch, uint32_t slot, scree_version expected, struct tally *tally)
{
    scree_slice bytes = payload();

    OK(scree_batch_set(batch, next_page(slot)->id, expected, bytes));
    edit_set(slot, bytes);
    tally->bytes += bytes.len;
    tally->wrote = true;
}

static void
step_merge(scree_batch *batch, uint32_t slot, scree_version expected, struct tally *tally)
{
    scree_slice bytes = payload();

    if (next_page(slot)->len + bytes.len > BYTES) {
        step_set(batch, slot, expected, tally);
        return;
    }
    OK(scree_batch_merge(batch, next_page(slot)->id, expected, bytes));
    edit_merge(slot, bytes);
    tally->bytes += bytes.len;
    tally->wrote = true;
}

static void
step_free(scree_batch *batch, uint32_t slot, scree_version expected, struct tally *tally)
{
    if (slot == 0) /* the root */
        return;
    OK(scree_batch_free(batch, next_page(slot)->id, expected));
    edit_free(slot);
    tally->wrote = true;
}

static void
step_check(scree_batch *batch, uint32_t slot, scree_version expected, struct tally *tally)
{
    OK(scree_batch_check(batch, next_page(slot)->id, expected));
    if (expected > tally->checked)
        tally->checked = expected;
}

/* What a batch does to one page: one step or several. */
static void
batch_page(scree_batch *batch, uint32_t slot, bool checks_only, struct tally *tally)
{
    struct page *page = next_page(slot);
    scree_version expected = page->version;
    uint32_t way = checks_only ? 9 : below(10);

    if (page->id == 0 && checks_only)
        return;
    if (page->id == 0) {
        scree_slice bytes = payload();

        OK(scree_batch_allocate(batch, bytes, &page->id));
        edit_set(slot, bytes);
        tally->bytes += bytes.len;
        tally->wrote = true;
        expected = 0;
        way = below(6) + 3; /* nothing more, often */
        if (way > 5)
            return;
    }
    if (way == 0 || way == 9)
        step_check(batch, slot, expected, tally);
    if (way == 1 || way == 2 || way == 5)
        step_set(batch, slot, expected, tally);
    if (way == 0 || (way >= 3 && way <= 7))
        step_merge(batch, slot, expected, tally);
    for (uint32_t more = way == 4 ? below(6) : 0; more > 0; more--)
        step_merge(batch, slot, expected, tally);
    if (way == 8 || (way == 5 && below(6) == 0))
        step_free(batch, slot, expected, tally);
}

/* A batch that conflicts: nothing happens. */
static void
batch_conflict(scree_batch *batch, uint32_t slot)
{
    scree_page_id id = m->state[m->n - 1].page[slot].id;
    scree_page_id first = 99;
    scree_lsn lsn = 99;
    int code;

    OK(scree_batch_check(batch, id, m->state[m->n - 1].page[slot].version - 8));
    code = scree_batch_commit(batch, &lsn, &first);
    KIT_CHECK(code == SCREE_E_CONFLICT && first == id && lsn == 0,
              "a stale check gave %d, page %" PRIu64 ", not %" PRIu64, code, first, id);
    m->conflicts++;
    op_undo();
}

static void
op_batch(void)
{
    uint32_t pages = 1 + below(8);
    uint32_t slot = below(PAGES);
    uint32_t stride = 1 + 2 * below(3); /* 1, 3 (not coprime: fewer pages), 5 */
    bool checks_only = below(15) == 0;
    uint32_t fate = below(16);
    struct tally tally = {.bytes = 0};
    scree_batch *batch = NULL;
    scree_lsn lsn = 0;
    scree_page_id conflict = 99;

    op_begin();
    OK(scree_batch_begin(cache, &batch));
    for (uint32_t i = 0; i < pages && tally.bytes < BATCH_BYTES; i++)
        batch_page(batch, (slot + i * stride) % PAGES, checks_only, &tally);
    if (fate == 0) {
        scree_batch_abort(batch);
        m->aborted++;
        op_undo();
        return;
    }
    if (fate == 1 && m->state[m->n - 1].page[slot].id != 0 && next_page(slot)->id != 0) {
        batch_conflict(batch, slot);
        return;
    }
    if (tally.wrote)
        op_pending();
    OK(scree_batch_commit(batch, &lsn, &conflict));
    KIT_CHECK(conflict == 0, "a conflict of page %" PRIu64 " without one", conflict);
    if (tally.wrote) {
        op_done(lsn);
        m->batches++;
    } else {
        KIT_CHECK(lsn == tally.checked, "checks alone gave %" PRIu64 ", not %" PRIu64, lsn,
                  tally.checked);
        m->checks++;
    }
}

/* ---- single updates ---- */

static void
op_single(void)
{
    uint32_t slot = below(PAGES);
    uint32_t way = below(6);
    scree_slice bytes = payload();
    struct page *page;
    scree_version version;

    op_begin();
    page = next_page(slot);
    version = page->version;
    if (page->id == 0) {
        page->id = m->next_id++;
        edit_set(slot, bytes);
        op_pending();
        OK(scree_page_allocate_at(cache, page->id, bytes, &version));
    } else if (way == 0 && slot != 0) {
        scree_page_id id = page->id;

        edit_free(slot);
        op_pending();
        OK(scree_page_free(cache, id, &version));
    } else if (way < 3 || page->len + bytes.len > BYTES) {
        edit_set(slot, bytes);
        op_pending();
        OK(way == 1 ? scree_page_put(cache, page->id, bytes, &version)
                    : scree_page_set(cache, page->id, &version, bytes));
    } else {
        edit_merge(slot, bytes);
        op_pending();
        OK(way == 3 ? scree_page_append(cache, page->id, bytes, &version)
                    : scree_page_merge(cache, page->id, &version, bytes));
    }
    op_done(version);
}

static void
ops(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (below(10) < 7)
            op_batch();
        else
            op_single();
    }
}

static void
flush(void)
{
    uint32_t at = m->n - 1;

    OK(scree_flush(cache, NULL));
    acknowledge(at);
}

static void
workload(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        ops(1);
        if (i % 5 == 4)
            flush();
        if (i % 7 == 6) {
            OK(scree_wait_stable(cache, m->state[m->n - 1].lsn, -1));
            acknowledge(m->n - 1);
        }
        if (i % 23 == 20)
            OK(scree_snapshot(cache, NULL));
        if (i % 61 == 50)
            OK(scree_reclaim(cache, 0, NULL, NULL));
        acknowledge_stable();
    }
}

/* ---- looking ---- */

struct seen {
    uint32_t n;
    struct page page[PAGES * 2];
    unsigned char bytes[PAGES * 2][BYTES + 8];
};

static void
look(struct seen *seen)
{
    scree_page_id id = 0;
    int code;

    seen->n = 0;
    while ((code = scree_page_next(cache, id, &id)) == 0) {
        struct page *page = &seen->page[seen->n];
        size_t len = 0;

        KIT_CHECK(seen->n + 1 < PAGES * 2, "too many pages: strangers among them");
        page->id = id;
        OK(scree_page_read(cache, id, seen->bytes[seen->n], BYTES + 8, &len, &page->version));
        page->len = len;
        page->hash = kit_hash(seen->bytes[seen->n], len, 7);
        seen->n++;
    }
    KIT_CHECK(code == SCREE_E_NOT_FOUND, "page_next gave %d", code);
}

static const struct page *
seen_page(const struct seen *seen, scree_page_id id)
{
    for (uint32_t i = 0; i < seen->n; i++)
        if (seen->page[i].id == id)
            return &seen->page[i];
    return NULL;
}

/* A state on its way: what is WILD has one new version, the same everywhere. */
static bool
matches(const struct seen *seen, const struct state *state)
{
    uint32_t live = 0;
    scree_version wild = 0;

    for (uint32_t i = 0; i < PAGES; i++) {
        const struct page *page = &state->page[i];
        const struct page *there;

        if (page->id == 0)
            continue;
        live++;
        there = seen_page(seen, page->id);
        if (there == NULL || there->len != page->len || there->hash != page->hash)
            return false;
        if (page->version != WILD) {
            if (there->version != page->version)
                return false;
            continue;
        }
        if (wild == 0)
            wild = there->version;
        if (there->version != wild || wild <= m->version_any)
            return false;
    }
    return live == seen->n;
}

/* The newest state that looks so; -1: none. */
static int
find(const struct seen *seen)
{
    for (int i = (int)(m->n - 1 + m->pending); i >= 0; i--)
        if (matches(seen, &m->state[i]))
            return i;
    return -1;
}

/* Which pages differ from the state nearest to it, in a line each. */
static void
explain(const struct seen *seen, uint32_t at)
{
    for (uint32_t i = 0; i < PAGES; i++) {
        const struct page *page = &m->state[at].page[i];
        const struct page *there = page->id == 0 ? NULL : seen_page(seen, page->id);

        if (page->id != 0 &&
            (there == NULL || there->version != page->version || there->hash != page->hash))
            printf("  state %u: page %" PRIu64 " version %" PRIu64 " len %" PRIu64
                   ", seen version %" PRIu64 " len %" PRIu64 "\n",
                   at, page->id, page->version, page->len, there == NULL ? 0 : there->version,
                   there == NULL ? 0 : there->len);
    }
}

/* Go on from this state: later ones never were. */
static void
return_to(const struct seen *seen, uint32_t at)
{
    struct state *state = &m->state[at];

    for (uint32_t i = 0; i < PAGES; i++) {
        const struct page *there;

        if (state->page[i].id == 0)
            continue;
        there = seen_page(seen, state->page[i].id);
        state->page[i].version = there->version;
        if (there->version > m->version_any)
            m->version_any = there->version;
        memcpy(m->bytes[i], seen->bytes[there - seen->page], there->len);
    }
    m->n = at + 1;
    m->pending = 0;
    m->acked = at;
}

/* Batches after recovery; a close or a second crash; the same again. */
static void
go_on(struct seen *seen, bool crash)
{
    ops(4);
    flush();
    ops(2);
    if (crash) {
        pid_t child;

        OK(scree_close(cache));
        child = kit_fork();
        if (child == 0) {
            OK(scree_open(work, &options, &cache));
            ops(4);
            flush();
            _exit(0);
        }
        KIT_CHECK(kit_join(child) == 0, "the second crash");
    } else {
        OK(scree_close(cache));
    }
    OK(scree_open(work, &options, &cache));
    look(seen);
    KIT_CHECK(find(seen) == (int)m->n - 1, "after going on: state %d, not %u", find(seen),
              m->n - 1);
    OK(scree_close(cache));
}

/* exactly: the state it must be; -1: any one that is not before the acknowledged. */
static void
child_look(int exactly, int discarded, bool crash)
{
    static struct seen seen;
    scree_recovery_info info = {.size = sizeof(info)};
    int at;

    kit_env_plan(&(struct kit_plan){.kinds = 0});
    kit_verify(work, &options);
    OK(scree_open(work, &options, &cache));
    OK(scree_recovery(cache, &info));
    look(&seen);
    if (m->n == 0) { /* died before the first open was through */
        KIT_CHECK(seen.n == 1 && seen.page[0].id == SCREE_PAGE_ROOT, "not a new directory");
        m->state[0].page[0] = seen.page[0];
        m->n = 1;
        m->next_id = 5000;
    }
    at = find(&seen);
    if (at < (int)m->acked) {
        explain(&seen, m->acked);
        explain(&seen, m->n - 1);
    }
    KIT_CHECK(at >= (int)m->acked, "state %d, acknowledged %u of %u, %u on its way, %u pages", at,
              m->acked, m->n, m->pending, seen.n);
    KIT_CHECK(exactly < 0 || at == exactly, "state %d, not %d of %u", at, exactly, m->n);
    KIT_CHECK(info.batches_discarded <= 1, "%" PRIu64 " batches discarded", info.batches_discarded);
    KIT_CHECK(discarded < 0 || info.batches_discarded == (uint64_t)discarded,
              "%" PRIu64 " batches discarded, not %d", info.batches_discarded, discarded);
    m->discarded += info.batches_discarded;
    m->was_pending += at == (int)m->n;
    m->behind += at < (int)m->n - 1;
    return_to(&seen, (uint32_t)at);
    go_on(&seen, crash);
}

/* ---- children ---- */

/* A new directory, and all the workload; no close. */
static void
child_work(const char *dir, const struct kit_plan *plan, bool tail)
{
    static struct seen seen;

    kit_env_plan(plan);
    OK(scree_open(dir, &options, &cache));
    look(&seen);
    m->state[0].page[0] = seen.page[0];
    m->next_id = 5000;
    m->n = 1;
    workload(OPS);
    if (tail) { /* one run, which the seals call stable up to its beginning only */
        flush();
        m->run_begin = scree_stable_lsn(cache);
        ops(TAIL_OPS);
        m->run_end = m->state[m->n - 1].lsn;
        OK(scree_flush(cache, NULL));
    }
    m->calls = kit_env_calls();
}

static int
in_child(const struct kit_plan *plan, const char *dir, int exactly, int discarded, bool flag)
{
    pid_t child = kit_fork();
    int status;

    if (child == 0) {
        alarm(20);
        if (plan != NULL)
            child_work(dir, plan, flag);
        else
            child_look(exactly, discarded, flag);
        _exit(0);
    }
    status = kit_join(child);
    if (status != 0 && status != KIT_KILLED && getenv("SCREE_TEST_KEEP") == NULL)
        exit(1);
    return status;
}

static uint64_t cases;

static void
model_reset(uint64_t seed)
{
    memset(m, 0, sizeof(*m));
    m->random = seed;
}

/* Counters survive from case to case. */
static void
model_restore(void)
{
    struct model *now = m;
    const uint64_t discarded = now->discarded, was_pending = now->was_pending, behind = now->behind;

    memcpy(m, m_before, sizeof(*m));
    m->discarded = discarded;
    m->was_pending = was_pending;
    m->behind = behind;
}

static void
killed(const char *name, unsigned kinds, uint64_t seed, uint64_t budget)
{
    struct kit_plan plan = {.kinds = kinds};
    uint64_t calls;
    uint64_t stride;
    uint64_t kills = 0;

    model_reset(seed);
    memcpy(m_before, m, sizeof(*m));
    kit_dir_remove(work);
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", %s, counted", seed, name);
    KIT_CHECK(in_child(&plan, work, 0, 0, false) == 0, "the counting run");
    calls = m->calls;
    printf("seed %" PRIu64 ", %s: %u states, %" PRIu64 " batches, %" PRIu64 " aborted, %" PRIu64
           " in conflict, %" PRIu64 " of checks alone, %" PRIu64 " calls\n",
           seed, name, m->n, m->batches, m->aborted, m->conflicts, m->checks, calls);
    KIT_CHECK(m->batches > 30 && m->aborted > 0 && m->conflicts > 0, "too little happened");
    stride = calls / budget + 1;
    for (uint64_t at = 1 + seed % stride; at <= calls; at += stride) {
        plan.fault = KIT_FAULT_KILL;
        plan.at = at;
        kit_dir_remove(work);
        model_restore();
        snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", killed, %s, call %" PRIu64,
                 seed, name, at);
        kills += in_child(&plan, work, 0, 0, false) == KIT_KILLED;
        (void)in_child(NULL, NULL, -1, -1, at % 3 == 0);
        cases++;
    }
    printf("  %" PRIu64 " kills: %" PRIu64 " states that were on their way, %" PRIu64
           " earlier ones, %" PRIu64 " batches discarded\n",
           kills, m->was_pending, m->behind, m->discarded);
    KIT_CHECK(kills > 0, "nothing was killed");
}

/* ---- cuts ---- */

enum cut {
    CUT_SHORT,  /* the file ends there, later segments are gone */
    CUT_ZEROES, /* all behind it is zeros; headers stay */
    CUT_JUNK,   /* all behind it is something else */
    CUT_HOLE,   /* zeros up to the end of the block only: what is behind came first */
    CUTS
};
static const char *const cut_names[CUTS] = {"cut", "zeroes", "junk", "a hole"};

static void
cut_file(const char *name, uint64_t number, uint64_t lsn, enum cut cut)
{
    size_t len;
    unsigned char *data = kit_file_read(work, name, &len);
    uint64_t first = number * options.segment_bytes;
    uint64_t from = BLOCK + (lsn > first ? lsn - first : 0);
    uint64_t to = cut == CUT_HOLE ? (from + BLOCK) / BLOCK * BLOCK : len;
    char path[KIT_PATH_MAX * 2];

    KIT_CHECK(data != NULL, "cannot read %s", name);
    snprintf(path, sizeof(path), "%s/%s", work, name);
    if (cut == CUT_SHORT && lsn <= first) {
        KIT_CHECK(unlink(path) == 0, "unlink");
    } else if (from < len) {
        for (uint64_t i = from; i < to && i < len; i++)
            data[i] = cut == CUT_JUNK ? (unsigned char)(i * 37 + 11) : 0;
        kit_file_write(work, name, data, cut == CUT_SHORT ? from : len);
    }
    free(data);
}

static void
cut_do(uint64_t lsn, enum cut cut)
{
    struct kit_files files;

    kit_dir_list(work, &files);
    for (size_t i = 0; i < files.n; i++) {
        uint64_t number;

        if (sscanf(files.name[i], "segment-%" SCNx64, &number) != 1)
            continue;
        if ((number + 1) * options.segment_bytes <= lsn)
            continue;
        if (cut == CUT_HOLE && number != lsn / options.segment_bytes)
            continue;
        cut_file(files.name[i], number, lsn, cut);
    }
}

/* The records of the last run, as the log's format has them. */
struct run {
    unsigned char *bytes;
    uint64_t begin, end; /* lsns */
    uint32_t n;
    struct record {
        uint64_t begin, end;
        uint64_t batch_end; /* a batch's record: where the batch ends */
    } record[4096];
};

static void
run_bytes(struct run *run)
{
    uint64_t at = run->begin;

    run->bytes = malloc(run->end - run->begin);
    KIT_CHECK(run->bytes != NULL, "memory");
    while (at < run->end) {
        uint64_t offset = at % options.segment_bytes;
        uint64_t n = options.segment_bytes - offset;
        char name[64];
        size_t len;
        unsigned char *data;

        snprintf(name, sizeof(name), "segment-%016" PRIx64, at / options.segment_bytes);
        data = kit_file_read(origin, name, &len);
        if (n > run->end - at)
            n = run->end - at;
        KIT_CHECK(data != NULL && len >= BLOCK + offset + n, "%s is too short", name);
        memcpy(run->bytes + (at - run->begin), data + BLOCK + offset, n);
        at += n;
        free(data);
    }
}

static void
run_walk(struct run *run)
{
    uint64_t at = run->begin;

    run_bytes(run);
    while (at < run->end) {
        const unsigned char *header = run->bytes + (at - run->begin);
        struct record *record = &run->record[run->n++];
        uint64_t words[2];
        uint32_t len;

        KIT_CHECK(run->n < 4096, "too many records");
        memcpy(&len, header + 16, 4);
        record->begin = at;
        record->end =
            at + 24 + (header[20] == 4 || (header[21] & 8) != 0 ? 8 : 0) + (len + 7u) / 8 * 8;
        record->batch_end = 0;
        if (header[20] == 6) {
            memcpy(words, header + 24, sizeof(words));
            record->batch_end = at + words[0];
        }
        KIT_CHECK(header[20] >= 1 && header[20] <= 10, "record of kind %d at %" PRIu64, header[20],
                  at);
        at = record->end;
    }
    KIT_CHECK(at == run->end, "the last record ends at %" PRIu64 ", the last state at %" PRIu64, at,
              run->end);
}

/* Batches that a log cut there ends in: 1, 0, or -1 where only a part of its first record is left. */
static int
discarded_at(const struct run *run, uint64_t lsn)
{
    for (uint32_t i = 0; i < run->n; i++) {
        const struct record *record = &run->record[i];

        if (record->batch_end != 0 && lsn > record->begin && lsn < record->batch_end)
            return lsn < record->end ? -1 : 1;
    }
    return 0;
}

static void
cut_case(const struct run *run, uint64_t lsn, enum cut cut)
{
    int exactly = (int)m_before->acked;

    while (exactly + 1 < (int)m_before->n && m_before->state[exactly + 1].lsn <= lsn)
        exactly++;
    kit_dir_copy(origin, work);
    model_restore();
    cut_do(lsn, cut);
    snprintf(kit_context, sizeof(kit_context), "%s at lsn %" PRIu64 " of %" PRIu64 " to %" PRIu64,
             cut_names[cut], lsn, run->begin, run->end);
    (void)in_child(NULL, NULL, exactly, discarded_at(run, lsn), cases % 3 == 0);
    cases++;
}

static void
cuts(uint64_t seed, uint64_t budget)
{
    static struct run run;
    struct kit_plan plan = {.kinds = 0};
    uint64_t fine;
    uint64_t stride;

    model_reset(seed);
    kit_dir_remove(origin);
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", the directory to cut", seed);
    KIT_CHECK(in_child(&plan, origin, 0, 0, true) == 0, "making it");
    memcpy(m_before, m, sizeof(*m));
    memset(&run, 0, sizeof(run));
    run.begin = m->run_begin;
    run.end = m->run_end;
    run_walk(&run);
    fine = run.end - run.begin > BLOCK ? run.end - BLOCK : run.begin;
    stride = run.n * 2 / budget + 1;
    for (uint32_t i = 0; i < run.n; i += (uint32_t)stride) {
        cut_case(&run, run.record[i].begin, (enum cut)(i % CUTS));
        cut_case(&run, run.record[i].begin + 8, (enum cut)((i + seed) % CUTS));
    }
    stride = BLOCK / 8 / budget + 1;
    for (uint64_t i = 0; fine + i * 8 <= run.end; i += stride)
        cut_case(&run, fine + i * 8, (enum cut)((i + i / CUTS) % CUTS));
    printf("seed %" PRIu64 ": %" PRIu64 " bytes in %u records cut: %" PRIu64
           " batches discarded, %" PRIu64 " earlier states\n",
           seed, run.end - run.begin, run.n, m->discarded, m->behind);
    KIT_CHECK(m->discarded > 0 && m->behind > 0, "no batch was cut");
    free(run.bytes);
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t budget = kit_argument(argc, argv, 2, KIT_MUCH(400, 50, 400));

    m = model_new();
    m_before = model_new();
    kit_dir_name(origin, "batch");
    kit_dir_name(work, "batch-work");
    kit_options_small(&options, &kit_concat);
    options.env = kit_env();
    options.flush_interval_ms = 0;
    killed("writes", KIT_WRITE, seed, budget);
    killed("changing calls", KIT_CHANGING, seed + 1, budget / 4);
    options.flush_interval_ms = 1; /* by itself, and so in the middle of things */
    killed("writes of the flusher", KIT_WRITE, seed + 2, budget / 4);
    options.flush_interval_ms = 0;
    cuts(seed, budget);
    options.compression_level = 1;
    cuts(seed + 1, budget / 4);
    kit_dir_remove(origin);
    kit_dir_remove(work);
    printf("%" PRIu64 " cases: ok\n", cases);
    return 0;
}
