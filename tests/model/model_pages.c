/*
 * model_pages.c - every public call, in random order, against a plain model of the pages.
 *
 * GOAL      a cache is, call by call, what a map of id -> (version, bytes) would be; over clean reopens
 *           exactly that, over crashes exactly a prefix of it that holds all that was stable (P1, P3, P9).
 * METHOD    one thread draws calls at random, at the smallest sizes, so that eviction, page-in,
 *           consolidation, ring waits, snapshots and segment turns all happen. The calls are made in a
 *           child process; the model lies in memory shared with the parent. A crash is the child's
 *           _exit, at a random call or at a random I/O call of any of its threads (opening and closing
 *           too), which may tear that write; the next child opens what is left.
 *           Batches mix steps on random pages, several on one, stale versions and pages that are not live
 *           among them, and are committed or aborted.
 *           Space is reclaimed on request and in the background, with holes and with SCREE_NO_PUNCH.
 * ORACLE    results, bytes, versions and the recover fold of each call and of the whole state. Live bytes
 *           are the same before a close and after the reopen, which counts them anew. After a
 *           crash the state must be that after some operation k at or behind the last one known stable,
 *           or that with the one call that was under way. The model keeps a journal of undo entries
 *           since the last stable position, each with a hash of the whole state, to find k and go there.
 *           Versions grow over all of history, lost futures included. A batch is one operation: no state
 *           between its steps is ever found.
 * NOT HERE  threads (tests/stress), power cuts: what was written stays written.
 *
 * model_pages [seed] [operations] [variant]
 *   variant 0: bytes in a row; 1: the same with a recover fold; 2: counters. Default: each in turn.
 */
#include "support/kit.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_BYTES_MAX 4096u
#define CONTENT_BYTES 8192u /* a page of unmerged fragments may be longer than it may be merged */
#define MAP_SIZE 65536u     /* ids ever seen, a power of two */
#define LIVE_MAX 300u
#define JOURNAL_MAX 4096u
#define JOURNAL_BYTES (24u << 20)
#define BORROWED_MAX 8u
#define CHILD_CRASHED 43
#define BATCH_STEPS 24u

/* What one id is now, and the largest version it ever had. */
struct entry {
    uint64_t id; /* 0: unused */
    uint64_t version;
    uint64_t version_max; /* over all of history: never undone */
    uint64_t freed_in;    /* number of the guard period it was freed in, 0: outside */
    uint32_t len;
    uint32_t live_at; /* its place in live[] */
    bool live;
    bool broken; /* holds a fragment that cannot be merged */
    uint16_t content;
};

/* How to take one operation back, and what the state was after it. */
struct undo {
    uint64_t id;
    uint64_t version; /* the operation's own */
    uint64_t version_before;
    uint64_t hash_before;
    uint64_t hash_after;
    struct kit_fold fold_before;
    size_t bytes_at; /* the content before: in journal_bytes */
    uint32_t len_before;
    bool live_before;
    bool broken_before;
    bool more; /* the next entry belongs to the same batch */
};

enum change { CHANGE_SET, CHANGE_APPEND, CHANGE_FREE };

/* The call under way: what it will do if it does, a batch in several steps. */
struct pending {
    bool is;
    uint32_t n;
    struct {
        uint64_t id; /* 0: an allocate */
        enum change change;
        uint32_t len;
    } step[BATCH_STEPS];
    unsigned char bytes[BATCH_STEPS][PAGE_BYTES_MAX];
};

/* All of it lives in shared memory. */
struct model {
    uint64_t random;
    uint64_t seed;
    uint64_t step;
    uint64_t steps;
    uint64_t variant;
    uint64_t crashes, reopens, snapshots, undone, conflicts, reads, busy, broken_reads, kills;
    uint64_t reclaims, recounts, cleaned, batches, batches_refused;
    uint64_t acked;       /* everything up to here was reported stable */
    uint64_t version_any; /* the largest version of all of history */
    uint64_t guard_number;
    struct kit_fold fold;
    uint64_t hash; /* xor of entry_hash over live pages */
    uint32_t live_n;
    uint32_t content_free_n;
    uint16_t content_free[LIVE_MAX + 2];
    uint32_t live[LIVE_MAX + 2]; /* places in map */
    struct pending pending;
    uint32_t journal_n;
    size_t journal_used;
    struct undo journal[JOURNAL_MAX];
    struct entry map[MAP_SIZE];
    unsigned char content[LIVE_MAX + 2][CONTENT_BYTES];
    unsigned char journal_bytes[JOURNAL_BYTES];
};

static struct model *m;
static scree_cache *cache; /* the child's */

#define CHECK_OK(call)                                                              \
    do {                                                                            \
        int code_ = (call);                                                         \
        KIT_CHECK(code_ == 0, "%s gave %d %s", #call, code_, kit_code_name(code_)); \
    } while (0)

/* ---- the model ---- */

static struct entry *
entry_of(uint64_t id)
{
    uint64_t at = (id * 0x9E3779B97F4A7C15u) >> 48;

    while (m->map[at % MAP_SIZE].id != id) {
        if (m->map[at % MAP_SIZE].id == 0) {
            m->map[at % MAP_SIZE].id = id;
            break;
        }
        at++;
    }
    return &m->map[at % MAP_SIZE];
}

static uint64_t
entry_hash(const struct entry *e)
{
    if (!e->live)
        return 0;
    return kit_hash(m->content[e->content], e->len, e->id * 31 + e->version * 7 + e->broken);
}

static void
entry_make_live(struct entry *e)
{
    KIT_CHECK(m->content_free_n > 0, "the test's own limit");
    e->live = true;
    e->content = m->content_free[--m->content_free_n];
    e->live_at = m->live_n;
    m->live[m->live_n++] = (uint32_t)(e - m->map);
}

static void
entry_make_dead(struct entry *e)
{
    uint32_t last = m->live[--m->live_n];

    e->live = false;
    m->content_free[m->content_free_n++] = e->content;
    m->live[e->live_at] = last;
    m->map[last].live_at = e->live_at;
}

static struct entry *
entry_random(void)
{
    return &m->map[m->live[kit_below(&m->random, m->live_n)]];
}

/* Merge one fragment in, as the materializer of this variant would. */
static void
content_append(struct entry *e, const unsigned char *bytes, uint32_t len)
{
    unsigned char *content = m->content[e->content];

    if (m->variant == 2) {
        struct kit_counter counter = {0, 0};
        uint64_t add;

        if (e->len == sizeof(counter))
            memcpy(&counter, content, sizeof(counter));
        memcpy(&add, bytes, sizeof(add));
        counter.sum += add;
        counter.count++;
        memcpy(content, &counter, sizeof(counter));
        e->len = sizeof(counter);
        return;
    }
    if (len > 0)
        memcpy(content + e->len, bytes, len);
    e->len += len;
    if ((len > 0 && bytes[0] == KIT_UNMERGEABLE) || e->len > PAGE_BYTES_MAX)
        e->broken = true;
}

/* Everything so far is stable: it will never be taken back. */
static void
journal_forget(void)
{
    kit_env_hold();
    m->journal_n = 0;
    m->journal_used = 0;
    kit_env_release();
}

static void
journal_acked(uint64_t stable)
{
    if (stable > m->acked)
        m->acked = stable;
    if (m->journal_n > 0 && m->journal[m->journal_n - 1].version <= m->acked)
        journal_forget();
}

/* Take one entry back. */
static void
journal_undo_entry(void)
{
    struct undo *u;
    struct entry *e;

    kit_env_hold();
    u = &m->journal[--m->journal_n];
    e = entry_of(u->id);
    m->hash ^= entry_hash(e);
    if (e->live && !u->live_before)
        entry_make_dead(e);
    else if (!e->live && u->live_before)
        entry_make_live(e);
    e->version = u->version_before;
    e->broken = u->broken_before;
    e->len = u->len_before;
    e->freed_in = 0;
    if (e->live && e->len > 0)
        memcpy(m->content[e->content], m->journal_bytes + u->bytes_at, e->len);
    m->hash ^= entry_hash(e);
    m->fold = u->fold_before;
    m->journal_used = u->bytes_at;
    m->undone++;
    kit_env_release();
}

/* Take the last operation back, with all its steps. */
static void
journal_undo_last(void)
{
    do
        journal_undo_entry();
    while (m->journal_n > 0 && m->journal[m->journal_n - 1].more);
}

/* A successful update, into the model and its journal: a call, or one of a batch's steps, of which the first
   has `step` 0. */
static void
model_step(uint64_t id, enum change change, const unsigned char *bytes, uint32_t len,
           uint64_t version, uint32_t step, bool more)
{
    struct entry *e = entry_of(id);
    struct undo *u = &m->journal[m->journal_n];

    KIT_CHECK(version > e->version_max || (step > 0 && version == e->version_max),
              "page %" PRIu64 ": version %" PRIu64 " after %" PRIu64, id, version, e->version_max);
    KIT_CHECK(version > m->version_any || (step > 0 && version == m->version_any),
              "page %" PRIu64 ": version %" PRIu64 " after %" PRIu64 " elsewhere", id, version,
              m->version_any);
    *u = (struct undo){.id = id,
                       .version = version,
                       .version_before = e->version,
                       .hash_before = m->hash,
                       .fold_before = m->fold,
                       .bytes_at = m->journal_used,
                       .len_before = e->len,
                       .live_before = e->live,
                       .broken_before = e->broken,
                       .more = more};
    if (e->live && e->len > 0) {
        memcpy(m->journal_bytes + m->journal_used, m->content[e->content], e->len);
        m->journal_used += e->len;
    }
    m->hash ^= entry_hash(e);
    if (change == CHANGE_FREE) {
        entry_make_dead(e);
    } else {
        if (!e->live) {
            entry_make_live(e);
            e->len = 0;
        }
        if (change == CHANGE_SET) {
            e->len = len;
            e->broken = false;
            if (len > 0)
                memcpy(m->content[e->content], bytes, len);
        } else {
            content_append(e, bytes, len);
        }
        if (m->variant == 1)
            kit_fold_add(&m->fold, id, kit_slice(bytes, len));
    }
    e->version = e->version_max = m->version_any = version;
    m->hash ^= entry_hash(e);
    u->hash_after = m->hash;
    m->journal_n++;
}

static void
model_apply(uint64_t id, enum change change, const unsigned char *bytes, uint32_t len,
            uint64_t version)
{
    kit_env_hold();
    model_step(id, change, bytes, len, version, 0, false);
    m->pending.is = false;
    kit_env_release();
}

/* What is pending has happened. */
static void
model_adopt(uint64_t version)
{
    struct pending *p = &m->pending;

    kit_env_hold();
    for (uint32_t i = 0; i < p->n; i++)
        model_step(p->step[i].id, p->step[i].change, p->bytes[i], p->step[i].len, version, i,
                   i + 1 < p->n);
    p->is = false;
    kit_env_release();
}

/* ---- comparing whole states ---- */

/* What the cache says about a page now, with the version in front; 0 if it may be that. */
static void
page_check(struct entry *e)
{
    static unsigned char buffer[CONTENT_BYTES];
    size_t len = 0;
    scree_version version = 0;
    int code = scree_page_read(cache, e->id, buffer, sizeof(buffer), &len, &version);

    KIT_CHECK(code == (e->broken ? SCREE_E_MERGE : 0), "page %" PRIu64 " gave %d %s", e->id, code,
              kit_code_name(code));
    KIT_CHECK(version == e->version, "page %" PRIu64 ": version %" PRIu64 " not %" PRIu64, e->id,
              version, e->version);
    m->reads++;
    if (e->broken) {
        m->broken_reads++;
        return;
    }
    KIT_CHECK(len == e->len, "page %" PRIu64 ": %zu bytes, not %" PRIu32, e->id, len, e->len);
    KIT_CHECK(memcmp(buffer, m->content[e->content], len) == 0, "page %" PRIu64 ": other bytes",
              e->id);
}

static void
state_check(void)
{
    scree_page_id id = 0;
    uint32_t n = 0;
    int code;

    while ((code = scree_page_next(cache, id, &id)) == 0) {
        struct entry *e = entry_of(id);

        KIT_CHECK(e->live, "page %" PRIu64 " should not be live", id);
        page_check(e);
        n++;
    }
    KIT_CHECK(code == SCREE_E_NOT_FOUND, "page_next gave %d", code);
    KIT_CHECK(n == m->live_n, "%" PRIu32 " pages, not %" PRIu32, n, m->live_n);
}

/* The whole state in the hash of the model; broken pages by version and their fragments. */
static uint64_t
cache_hash(void)
{
    static unsigned char buffer[CONTENT_BYTES];
    scree_page_id id = 0;
    uint64_t hash = 0;
    int code;

    while ((code = scree_page_next(cache, id, &id)) == 0) {
        scree_slice base;
        scree_slice frags[1024];
        size_t n = 0;
        size_t len = 0;
        scree_version version = 0;
        bool broken;

        code = scree_page_read(cache, id, buffer, sizeof(buffer), &len, &version);
        KIT_CHECK(code == 0 || code == SCREE_E_MERGE, "page %" PRIu64 " gave %d", id, code);
        broken = code == SCREE_E_MERGE;
        if (broken) {
            scree_read_enter(cache);
            CHECK_OK(scree_page_fragments(cache, id, &base, frags, 1024, &n, &version));
            KIT_CHECK(n <= 1024, "%zu fragments", n);
            if (base.data != NULL && base.len > 0)
                memcpy(buffer, base.data, base.len);
            len = base.data != NULL ? base.len : 0;
            for (size_t i = 0; i < n; i++) {
                KIT_CHECK(len + frags[i].len <= sizeof(buffer), "page %" PRIu64 " too long", id);
                memcpy(buffer + len, frags[i].data, frags[i].len);
                len += frags[i].len;
            }
            scree_read_leave(cache);
        }
        hash ^= kit_hash(buffer, len, id * 31 + version * 7 + broken);
    }
    KIT_CHECK(code == SCREE_E_NOT_FOUND, "page_next gave %d", code);
    return hash;
}

static void
fold_check(void)
{
    scree_slice state;

    if (m->variant != 1)
        return;
    CHECK_OK(scree_recovery_state(cache, &state));
    if (m->fold.records == 0 && state.len == 0)
        return;
    KIT_CHECK(state.len == sizeof(m->fold) && memcmp(state.data, &m->fold, state.len) == 0,
              "recovery state of %zu bytes, %" PRIu64 " records; expected %" PRIu64, state.len,
              state.len >= 8 ? *(const uint64_t *)state.data : 0, m->fold.records);
}

/* Is the pending call done in the recovered state? Then it has a version, and perhaps an id. */
static bool
pending_adopt(void)
{
    struct pending *p = &m->pending;
    scree_version version = 0;

    if (!p->is)
        return false;
    if (p->step[0].id == 0) { /* an allocate: the one page that is not in the model */
        scree_page_id id = 0;
        int code = scree_page_next(cache, 0, &id);

        while (code == 0 && entry_of(id)->live)
            code = scree_page_next(cache, id, &id);
        if (code != 0)
            return false;
        p->step[0].id = id;
    }
    for (uint32_t i = 0; i < p->n && version == 0; i++)
        if (p->step[i].change != CHANGE_FREE &&
            scree_page_read(cache, p->step[i].id, NULL, 0, NULL, &version) == SCREE_E_NOT_FOUND)
            version = 0;
    if (version == 0) /* nothing but frees: where they lie is not told; at least here */
        version = m->version_any + 1;
    if (version <= m->version_any)
        return false;
    model_adopt(version);
    return true;
}

/* For whoever has to find out why: in what the state found differs from the newest one. */
static void
state_report(void)
{
    scree_page_id id = 0;
    uint32_t n = 0;

    printf("acked %" PRIu64 ", %" PRIu32 " operations since, pending: %d (page %" PRIu64 ")\n",
           m->acked, m->journal_n, m->pending.is, m->pending.step[0].id);
    for (uint32_t i = 0; i < m->journal_n; i++)
        printf("  page %" PRIu64 " %" PRIu64 " -> %" PRIu64 "%s%s\n", m->journal[i].id,
               m->journal[i].version_before, m->journal[i].version,
               m->journal[i].live_before ? "" : " (was free)", m->journal[i].more ? " +" : "");
    while (scree_page_next(cache, id, &id) == 0) {
        struct entry *e = entry_of(id);
        scree_version version = 0;
        size_t len = 0;
        int code = scree_page_read(cache, id, NULL, 0, &len, &version);

        n++;
        if (!e->live || e->version != version || (code != SCREE_E_MERGE && e->len != len))
            printf("  found page %" PRIu64 " at %" PRIu64
                   ", %zu bytes, code %d; expected %s at %" PRIu64 ", %" PRIu32 " bytes\n",
                   id, version, len, code, e->live ? "live" : "free", e->version, e->len);
    }
    printf("  %" PRIu32 " pages found, %" PRIu32 " expected\n", n, m->live_n);
    for (uint32_t i = 0; i < m->live_n; i++) {
        struct entry *e = &m->map[m->live[i]];

        if (scree_page_read(cache, e->id, NULL, 0, NULL, NULL) == SCREE_E_NOT_FOUND)
            printf("  page %" PRIu64 " at %" PRIu64 " is missing\n", e->id, e->version);
    }
}

/* After a crash: which prefix is this? Takes the model there. */
static void
state_find(void)
{
    uint64_t hash = cache_hash();
    uint32_t journal_n = m->journal_n;
    bool found;

    if (hash != m->hash && pending_adopt() && hash == m->hash)
        return;
    if (m->journal_n > journal_n)
        journal_undo_last();
    found = hash == m->hash || (m->journal_n > 0 && hash == m->journal[0].hash_before);
    for (uint32_t i = 0; i < m->journal_n; i++)
        found = found || (m->journal[i].hash_after == hash && !m->journal[i].more);
    if (!found)
        state_report();
    m->pending.is = false;
    while (hash != m->hash) {
        KIT_CHECK(m->journal_n > 0,
                  "no prefix of the %" PRIu32 " operations since %" PRIu64 " gives the state found",
                  journal_n, m->acked);
        KIT_CHECK(m->journal[m->journal_n - 1].version > m->acked,
                  "operation at %" PRIu64 " is lost, stable was %" PRIu64,
                  m->journal[m->journal_n - 1].version, m->acked);
        journal_undo_last();
    }
}

/* ---- opening, closing, crashing ---- */

static char directory[KIT_PATH_MAX];

static void
options_draw(scree_options *options)
{
    static const scree_materializer *const materializers[3] = {&kit_concat, &kit_concat_fold,
                                                               &kit_counter_materializer};
    static const double targets[4] = {1.05, 1.5, 100, 100};

    kit_options_small(options, materializers[m->variant]);
    options->page_bytes_max = PAGE_BYTES_MAX;
    options->env = kit_env();
    options->fragments_max = kit_below(&m->random, 4) == 0 ? 1 : 4;
    options->cache_bytes = kit_below(&m->random, 4) == 0 ? 1u << 20 : 64u << 10;
    options->log_buffer_bytes = kit_below(&m->random, 4) == 0 ? 256u << 10 : 64u << 10;
    options->snapshot_log_bytes = kit_below(&m->random, 3) * (100u << 10);
    options->flush_interval_ms = (uint32_t)kit_below(&m->random, 3);
    options->compression_level = (int32_t)kit_below(&m->random, 2);
    options->space_amp_target = targets[kit_below(&m->random, 4)];
    if (kit_below(&m->random, 2) == 0)
        options->flags |= SCREE_NO_PUNCH;
}

static scree_stats
stats_now(void)
{
    scree_stats stats = {.size = sizeof(stats)};

    CHECK_OK(scree_stats_get(cache, &stats));
    return stats;
}

static double target_now;      /* space_amp_target of this open */
static uint64_t buffer_now;    /* log_buffer_bytes */
static uint64_t live_expected; /* live bytes before the close; 0: not known */

/* The library's own threads may be in the middle of a record, or of charging what it replaced: until nothing
   moves any more. */
static scree_stats
stats_at_rest(void)
{
    scree_stats stats = stats_now(), before;

    do {
        before = stats;
        usleep(5000);
        stats = stats_now();
    } while (stats.tail_lsn != before.tail_lsn || stats.live_bytes != before.live_bytes);
    return stats;
}

/* Nothing is cleaned now: that would merge records, and live bytes change. */
static bool
is_calm(const scree_stats *stats)
{
    return target_now == 100 && stats->disk_bytes < 60 * stats->live_bytes;
}

/* What recovery has counted is what was on the books. */
static void
live_check(void)
{
    scree_stats stats = stats_at_rest();

    if (live_expected == 0 || !is_calm(&stats))
        return;
    KIT_CHECK(stats.live_bytes == live_expected,
              "%" PRIu64 " live bytes before closing, %" PRIu64 " after opening", live_expected,
              stats.live_bytes);
    live_expected = 0;
    m->recounts++;
}

static void
cache_open(bool found)
{
    scree_options options;
    scree_recovery_info info = {.size = sizeof(info)};

    options_draw(&options);
    target_now = options.space_amp_target;
    buffer_now = options.log_buffer_bytes;
    if (found && kit_below(&m->random, 4) == 0) { /* look first, without writing */
        uint64_t before = kit_dir_fingerprint(directory, true);

        options.flags = SCREE_READ_ONLY;
        CHECK_OK(scree_open(directory, &options, &cache));
        state_find();
        fold_check();
        journal_forget(); /* the next open has to find the same */
        KIT_CHECK(scree_page_append(cache, 1, kit_slice("x", 1), NULL) == SCREE_E_READ_ONLY,
                  "append to a read-only cache");
        CHECK_OK(scree_close(cache));
        KIT_CHECK(kit_dir_fingerprint(directory, true) == before, "a read-only open wrote");
        options.flags = SCREE_CREATE;
    }
    CHECK_OK(scree_open(directory, &options, &cache));
    live_check();
    state_find();
    fold_check();
    journal_forget(); /* what open has found is durable */
    m->acked = scree_stable_lsn(cache);
    CHECK_OK(scree_recovery(cache, &info));
    KIT_CHECK(info.pages == m->live_n, "recovery tells %" PRIu64 " pages, not %" PRIu32, info.pages,
              m->live_n);
    if (kit_below(&m->random, 2) == 0)
        state_check();
}

static void
cache_reopen(void)
{
    scree_stats stats = stats_at_rest();

    m->cleaned += stats.cleaned_bytes;
    live_expected = is_calm(&stats) ? stats.live_bytes : 0;
    CHECK_OK(scree_close(cache));
    journal_forget();
    m->reopens++;
    cache_open(false);
}

/* ---- guards ---- */

static struct {
    const unsigned char *bytes;
    uint64_t hash;
    size_t len;
} borrowed[BORROWED_MAX];
static uint32_t borrowed_n;
static uint32_t guard_depth;

static void
borrowed_check(void)
{
    for (uint32_t i = 0; i < borrowed_n; i++)
        KIT_CHECK(kit_hash(borrowed[i].bytes, borrowed[i].len, 5) == borrowed[i].hash,
                  "borrowed bytes changed inside the guard");
}

static void
guard_enter(void)
{
    if (guard_depth == 3)
        return;
    if (guard_depth++ == 0)
        m->guard_number++;
    scree_read_enter(cache);
}

static void
guard_leave(void)
{
    borrowed_check();
    if (guard_depth == 0)
        return;
    if (--guard_depth == 0)
        borrowed_n = 0;
    scree_read_leave(cache);
}

static void
guard_leave_all(void)
{
    while (guard_depth > 0)
        guard_leave();
}

static void
borrow(scree_slice slice)
{
    if (guard_depth == 0 || borrowed_n == BORROWED_MAX)
        return;
    borrowed[borrowed_n].bytes = slice.data;
    borrowed[borrowed_n].len = slice.len;
    borrowed[borrowed_n++].hash = kit_hash(slice.data, slice.len, 5);
}

/* ---- operations ---- */

/* Bytes for a set or a fragment; returns their number. */
static uint32_t
payload_draw(unsigned char *bytes, bool fragment)
{
    uint64_t kind = kit_below(&m->random, 100);
    uint32_t len = (uint32_t)(kind < 5    ? 0
                              : kind < 75 ? kit_below(&m->random, 64)
                              : kind < 97 ? kit_below(&m->random, 700)
                              : kind < 98 ? PAGE_BYTES_MAX
                                          : kit_below(&m->random, PAGE_BYTES_MAX));
    uint64_t word = kit_random(&m->random);

    if (m->variant == 2)
        len = fragment ? 8 : kit_below(&m->random, 8) == 0 ? 0 : sizeof(struct kit_counter);
    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)((word >> (i % 8 * 8)) + i / 8);
    if (len > 0 && bytes[0] == KIT_UNMERGEABLE)
        bytes[0] = 1;
    if (fragment && len > 0 && m->variant != 2 && kit_below(&m->random, 2000) == 0)
        bytes[0] = KIT_UNMERGEABLE;
    return len;
}

static void
pending_add(uint64_t id, enum change change, const unsigned char *bytes, uint32_t len)
{
    struct pending *p = &m->pending;

    p->step[p->n].id = id;
    p->step[p->n].change = change;
    p->step[p->n].len = len;
    if (len > 0)
        memcpy(p->bytes[p->n], bytes, len);
    p->n++;
}

static void
pending_make(uint64_t id, enum change change, const unsigned char *bytes, uint32_t len)
{
    m->pending.n = 0;
    pending_add(id, change, bytes, len);
    m->pending.is = true;
}

/* The page alone, or in one call with another one; that is at times asked for before. */
static int
page_get(scree_page_id id, scree_slice *page_out, scree_version *version_out)
{
    scree_page_id ids[2] = {entry_random()->id, id};
    scree_version versions[2];
    scree_slice pages[2];
    int codes[2], code;

    if (kit_below(&m->random, 4) == 0)
        KIT_CHECK(scree_pages_prefetch(cache, ids, 1) == 0, "prefetch: %s", scree_error_detail());
    if (kit_below(&m->random, 2) == 0)
        return scree_page_get(cache, id, page_out, version_out);
    code = scree_pages_get(cache, ids, 2, pages, versions, codes);
    KIT_CHECK(code == (codes[0] != 0 ? codes[0] : codes[1]), "of two pages: %d, not %d or %d", code,
              codes[0], codes[1]);
    *page_out = pages[1];
    *version_out = versions[1];
    return codes[1];
}

static void
do_read(void)
{
    struct entry *e = entry_random();
    scree_slice page;
    scree_version version = 0;
    int code;

    if (kit_below(&m->random, 2) == 0) {
        page_check(e);
        return;
    }
    guard_enter();
    code = page_get(e->id, &page, &version);
    KIT_CHECK(code == (e->broken ? SCREE_E_MERGE : 0), "get of page %" PRIu64 " gave %d %s", e->id,
              code, kit_code_name(code));
    KIT_CHECK(version == e->version, "get of page %" PRIu64 ": version %" PRIu64 " not %" PRIu64,
              e->id, version, e->version);
    if (code == 0) {
        KIT_CHECK(page.len == e->len &&
                      (page.len == 0 || memcmp(page.data, m->content[e->content], page.len) == 0),
                  "get of page %" PRIu64 ": other bytes", e->id);
        borrow(page);
    }
    if (kit_below(&m->random, 4) != 0)
        guard_leave();
}

static void
do_read_short(void)
{
    struct entry *e = entry_random();
    unsigned char buffer[16];
    size_t len = 0;
    scree_version version = 0;
    int code = scree_page_read(cache, e->id, buffer, sizeof(buffer), &len, &version);

    if (e->broken) {
        KIT_CHECK(code == SCREE_E_MERGE, "gave %d", code);
        return;
    }
    KIT_CHECK(code == (e->len > sizeof(buffer) ? SCREE_E_TOO_BIG : 0), "gave %d", code);
    KIT_CHECK(len == e->len && version == e->version, "length %zu, version %" PRIu64, len, version);
}

static void
do_fragments(void)
{
    static unsigned char bytes[CONTENT_BYTES];
    struct entry *e = entry_random();
    scree_slice base;
    scree_slice frags[1024];
    size_t cap = kit_below(&m->random, 4) == 0 ? kit_below(&m->random, 3) : 1024;
    size_t n = 0;
    size_t len = 0;
    scree_version version = 0;

    guard_enter();
    CHECK_OK(scree_page_fragments(cache, e->id, &base, frags, cap, &n, &version));
    KIT_CHECK(version == e->version, "version %" PRIu64 " not %" PRIu64, version, e->version);
    if (m->variant != 2) { /* in a row, as far as given, they are the page */
        if (base.data != NULL && base.len > 0)
            memcpy(bytes, base.data, base.len);
        len = base.data != NULL ? base.len : 0;
        for (size_t i = 0; i < n && i < cap; i++) {
            KIT_CHECK(len + frags[i].len <= sizeof(bytes), "too long");
            if (frags[i].len > 0)
                memcpy(bytes + len, frags[i].data, frags[i].len);
            len += frags[i].len;
            borrow(frags[i]);
        }
        KIT_CHECK(n > cap ? len <= e->len : len == e->len,
                  "page %" PRIu64 ": %zu bytes, not %" PRIu32 ", in %zu fragments, cap %zu", e->id,
                  len, e->len, n, cap);
        KIT_CHECK(memcmp(bytes, m->content[e->content], len) == 0, "other bytes");
    } else if (n == 0) {
        KIT_CHECK(base.len == e->len, "base of %zu, not %" PRIu32, base.len, e->len);
    }
    guard_leave();
}

static void
do_append(bool blind)
{
    struct entry *e = entry_random();
    unsigned char bytes[PAGE_BYTES_MAX];
    uint32_t len = payload_draw(bytes, true);
    scree_version version = e->version;
    int code;

    if (e->len + len > CONTENT_BYTES || (e->len + len > PAGE_BYTES_MAX && len > 64))
        return;
    pending_make(e->id, CHANGE_APPEND, bytes, len);
    if (blind)
        code = scree_page_append(cache, e->id, kit_slice(bytes, len), &version);
    else
        code = scree_page_merge(cache, e->id, &version, kit_slice(bytes, len));
    if (code == SCREE_E_MERGE && e->broken) { /* its chain is at its cap */
        m->pending.is = false;
        return;
    }
    KIT_CHECK(code == 0, "append to page %" PRIu64 " gave %d %s", e->id, code, kit_code_name(code));
    model_apply(e->id, CHANGE_APPEND, bytes, len, version);
}

static void
do_set(bool blind)
{
    struct entry *e = entry_random();
    unsigned char bytes[PAGE_BYTES_MAX];
    uint32_t len = payload_draw(bytes, false);
    scree_version version = e->version;

    pending_make(e->id, CHANGE_SET, bytes, len);
    if (blind)
        CHECK_OK(scree_page_put(cache, e->id, kit_slice(bytes, len), &version));
    else
        CHECK_OK(scree_page_set(cache, e->id, &version, kit_slice(bytes, len)));
    model_apply(e->id, CHANGE_SET, bytes, len, version);
}

static void
do_free(struct entry *e)
{
    scree_version version = e->version;

    if (e->id == SCREE_PAGE_ROOT) {
        KIT_CHECK(scree_page_free(cache, e->id, &version) == SCREE_E_INVALID, "the root was freed");
        return;
    }
    pending_make(e->id, CHANGE_FREE, NULL, 0);
    CHECK_OK(scree_page_free(cache, e->id, &version));
    model_apply(e->id, CHANGE_FREE, NULL, 0, version);
    e->freed_in = guard_depth > 0 ? m->guard_number : 0;
}

static bool
freed_in_this_guard(const struct entry *e)
{
    return guard_depth > 0 && e->freed_in == m->guard_number && !e->live;
}

static void
do_allocate(void)
{
    unsigned char bytes[PAGE_BYTES_MAX];
    uint32_t len = payload_draw(bytes, false);
    scree_page_id id = 0;
    scree_version version = 0;

    if (m->live_n >= LIVE_MAX)
        do_free(entry_random());
    if (m->live_n >= LIVE_MAX)
        return;
    pending_make(0, CHANGE_SET, bytes, len);
    CHECK_OK(scree_page_allocate(cache, kit_slice(bytes, len), &id, &version));
    KIT_CHECK(id != 0 && !entry_of(id)->live, "page %" PRIu64 " allocated twice", id);
    KIT_CHECK(!freed_in_this_guard(entry_of(id)),
              "page %" PRIu64 " given out inside the guard "
              "that was open when it was freed",
              id);
    model_apply(id, CHANGE_SET, bytes, len, version);
}

static void
do_allocate_at(void)
{
    static const uint64_t far[4] = {70000, 1u << 20, (1u << 30) + 5, (uint64_t)1 << 40};
    uint64_t id = kit_below(&m->random, 10) == 0 ? far[kit_below(&m->random, 4)]
                                                 : 1 + kit_below(&m->random, LIVE_MAX);
    struct entry *e = entry_of(id);
    unsigned char bytes[PAGE_BYTES_MAX];
    uint32_t len = payload_draw(bytes, false);
    scree_version version = 0;
    int code;

    if (m->live_n >= LIVE_MAX && !e->live)
        return;
    if (!e->live)
        pending_make(id, CHANGE_SET, bytes, len);
    code = scree_page_allocate_at(cache, id, kit_slice(bytes, len), &version);
    if (e->live) {
        KIT_CHECK(code == SCREE_E_CONFLICT && version == e->version,
                  "allocate_at of a live page gave %d, version %" PRIu64, code, version);
        return;
    }
    KIT_CHECK(!freed_in_this_guard(e) || code == SCREE_E_BUSY, "inside the guard it gave %d", code);
    if (code == SCREE_E_BUSY) {
        KIT_CHECK(e->version_max > 0, "page %" PRIu64 " never was, but is busy", id);
        m->pending.is = false;
        m->busy++;
        return;
    }
    KIT_CHECK(code == 0, "allocate_at %" PRIu64 " gave %d %s", id, code, kit_code_name(code));
    model_apply(id, CHANGE_SET, bytes, len, version);
}

/* Versions that are not the current one: refused, and nothing changes. */
static void
do_stale(void)
{
    struct entry *e = entry_random();
    uint64_t back = kit_below(&m->random, 3);
    scree_version stale = back == 0 ? 0 : back == 1 ? e->version - 8 : kit_random(&m->random) >> 20;
    scree_version version = stale;
    int code;

    if (stale == e->version)
        return;
    switch (kit_below(&m->random, 3)) {
    case 0:
        code = scree_page_set(cache, e->id, &version, kit_slice("stale", 5));
        break;
    case 1:
        code = scree_page_merge(cache, e->id, &version, kit_slice("12345678", 8));
        break;
    default:
        if (e->id == SCREE_PAGE_ROOT)
            return;
        code = scree_page_free(cache, e->id, &version);
    }
    KIT_CHECK(code == SCREE_E_CONFLICT || (code == SCREE_E_MERGE && e->broken),
              "stale version %" PRIu64 " of page %" PRIu64 " (at %" PRIu64 ") gave %d %s", stale,
              e->id, e->version, code, kit_code_name(code));
    KIT_CHECK(code != SCREE_E_CONFLICT || version == e->version,
              "CONFLICT tells version %" PRIu64 ", not %" PRIu64, version, e->version);
    m->conflicts++;
}

/* ---- batches ---- */

/* A batch in the making; what it will do is pending. */
static struct draft {
    scree_batch *batch;
    int code; /* what the commit must give, for the first step that is wrong, with its page */
    uint64_t conflict;
    uint64_t bytes;  /* of payloads */
    uint64_t newest; /* of versions presented */
    uint32_t steps, pages;
    bool twice;  /* an id was handed out that is in it already */
    bool broken; /* a page that cannot be merged is in it */
    struct draft_page {
        uint64_t id, version;
        uint32_t len;
        bool freed;
    } page[BATCH_STEPS];
} draft;

static struct draft_page *
draft_page(uint64_t id, const struct entry *e)
{
    uint32_t i = 0;

    while (i < draft.pages && draft.page[i].id != id)
        i++;
    if (i == draft.pages)
        draft.page[draft.pages++] = (struct draft_page){
            .id = id, .version = e == NULL ? 0 : e->version, .len = e == NULL ? 0 : e->len};
    return &draft.page[i];
}

static void
draft_allocate(void)
{
    unsigned char bytes[PAGE_BYTES_MAX];
    uint32_t len = payload_draw(bytes, false), known = draft.pages;
    scree_page_id id;

    if (m->live_n + BATCH_STEPS >= LIVE_MAX)
        return;
    CHECK_OK(scree_batch_allocate(draft.batch, kit_slice(bytes, len), &id));
    KIT_CHECK(id != 0 && !entry_of(id)->live, "page %" PRIu64 " allocated twice", id);
    KIT_CHECK(!freed_in_this_guard(entry_of(id)),
              "page %" PRIu64 " given out inside the guard that was open when it was freed", id);
    draft_page(id, NULL)->len = len;
    draft.twice = draft.twice || draft.pages == known;
    draft.steps++;
    draft.bytes += len;
    pending_add(id, CHANGE_SET, bytes, len);
}

/* A page that is live, mostly, and a version that is right, mostly. */
static struct draft_page *
draft_choose(scree_version *version_out)
{
    struct entry *e = entry_random();
    struct draft_page *p;
    uint64_t draw = kit_below(&m->random, 200);
    uint32_t known;

    if (draft.pages > 0 && draw < 60) {
        p = &draft.page[kit_below(&m->random, draft.pages)];
        e = NULL;
    } else {
        if (draw == 199)
            e = entry_of(1 + kit_below(&m->random, LIVE_MAX + 100));
        known = draft.pages;
        p = draft_page(e->id, e);
        if (draft.pages == known)
            e = NULL; /* it is in the batch: what that made of it counts */
    }
    *version_out = kit_below(&m->random, 60) == 0 ? p->version + 8 : p->version;
    if (p->freed)
        return NULL; /* nothing may come behind that */
    if (draft.code == 0 && e != NULL && !e->live) {
        draft.code = SCREE_E_NOT_FOUND;
        draft.conflict = p->id;
    } else if (draft.code == 0 && *version_out != p->version) {
        draft.code = SCREE_E_CONFLICT;
        draft.conflict = p->id;
    }
    draft.broken = draft.broken || entry_of(p->id)->broken;
    return p;
}

static void
draft_step(void)
{
    unsigned char bytes[PAGE_BYTES_MAX];
    uint64_t kind = kit_below(&m->random, 10);
    bool appends = kind < 4;
    uint32_t len = kind < 7 ? payload_draw(bytes, appends) : 0;
    scree_version version;
    struct draft_page *p;

    if (kind == 9) {
        draft_allocate();
        return;
    }
    p = draft_choose(&version);
    if (p == NULL)
        return;
    if ((appends &&
         (p->len + len > CONTENT_BYTES || (p->len + len > PAGE_BYTES_MAX && len > 64))) ||
        (kind == 7 && p->id == SCREE_PAGE_ROOT))
        kind = 8;
    draft.steps++;
    draft.newest = version > draft.newest ? version : draft.newest;
    if (kind < 4) {
        CHECK_OK(scree_batch_merge(draft.batch, p->id, version, kit_slice(bytes, len)));
        pending_add(p->id, CHANGE_APPEND, bytes, len);
        p->len += len;
    } else if (kind < 7) {
        CHECK_OK(scree_batch_set(draft.batch, p->id, version, kit_slice(bytes, len)));
        pending_add(p->id, CHANGE_SET, bytes, len);
        p->len = len;
    } else if (kind == 7) {
        CHECK_OK(scree_batch_free(draft.batch, p->id, version));
        pending_add(p->id, CHANGE_FREE, NULL, 0);
        p->freed = true;
    } else {
        CHECK_OK(scree_batch_check(draft.batch, p->id, version));
    }
    draft.bytes += kind < 7 ? len : 0;
}

static void
draft_commit(void)
{
    scree_lsn lsn = 0;
    scree_page_id conflict = 0;
    int code;

    m->pending.is = m->pending.n > 0 && draft.code == 0;
    code = scree_batch_commit(draft.batch, &lsn, &conflict);
    if ((code == SCREE_E_TOO_BIG &&
         draft.bytes + (uint64_t)(draft.steps + 2) * 64 > buffer_now / 2) ||
        (code == SCREE_E_MERGE && draft.broken) ||
        ((code == SCREE_E_CONFLICT || code == SCREE_E_INVALID) && draft.twice)) {
        m->pending.is = false;
        return;
    }
    KIT_CHECK(code == draft.code, "a batch of %" PRIu32 " steps gave %d %s, not %s", draft.steps,
              code, kit_code_name(code), kit_code_name(draft.code));
    KIT_CHECK(code == 0 || conflict == draft.conflict, "page %" PRIu64 " is named, not %" PRIu64,
              conflict, draft.conflict);
    m->batches++;
    m->batches_refused += code != 0;
    if (code == 0 && m->pending.n == 0)
        KIT_CHECK(lsn == draft.newest, "checks give %" PRIu64 ", not %" PRIu64, lsn, draft.newest);
    if (code != 0 || m->pending.n == 0)
        return;
    model_adopt(lsn);
    for (uint32_t i = 0; i < draft.pages; i++)
        if (draft.page[i].freed)
            entry_of(draft.page[i].id)->freed_in = guard_depth > 0 ? m->guard_number : 0;
}

static void
do_batch(void)
{
    uint64_t steps = 1 + kit_below(&m->random, kit_below(&m->random, 8) == 0 ? BATCH_STEPS : 6);

    memset(&draft, 0, sizeof(draft));
    m->pending.n = 0;
    CHECK_OK(scree_batch_begin(cache, &draft.batch));
    for (uint64_t i = 0; i < steps; i++)
        draft_step();
    if (kit_below(&m->random, 10) == 0)
        scree_batch_abort(draft.batch);
    else
        draft_commit();
}

/* An id that is not live. */
static void
do_missing(void)
{
    uint64_t id = 1 + kit_below(&m->random, LIVE_MAX + 100);
    struct entry *e = entry_of(id);
    scree_version version = e->version;
    scree_slice page;

    if (e->live)
        return;
    KIT_CHECK(scree_page_read(cache, id, NULL, 0, NULL, NULL) == SCREE_E_NOT_FOUND, "read");
    KIT_CHECK(scree_page_set(cache, id, &version, kit_slice("x", 1)) == SCREE_E_NOT_FOUND, "set");
    version = e->version;
    KIT_CHECK(scree_page_merge(cache, id, &version, kit_slice("x", 1)) == SCREE_E_NOT_FOUND,
              "merge");
    version = e->version;
    KIT_CHECK(scree_page_free(cache, id, &version) == SCREE_E_NOT_FOUND, "free");
    KIT_CHECK(scree_page_append(cache, id, kit_slice("x", 1), NULL) == SCREE_E_NOT_FOUND, "append");
    KIT_CHECK(scree_page_put(cache, id, kit_slice("x", 1), NULL) == SCREE_E_NOT_FOUND, "put");
    guard_enter();
    KIT_CHECK(scree_page_get(cache, id, &page, NULL) == SCREE_E_NOT_FOUND, "get");
    guard_leave();
}

static void
do_too_big(void)
{
    static unsigned char bytes[PAGE_BYTES_MAX + 1];
    struct entry *e = entry_random();
    scree_version version = e->version;
    scree_slice big = kit_slice(bytes, sizeof(bytes));

    KIT_CHECK(scree_page_set(cache, e->id, &version, big) == SCREE_E_TOO_BIG, "set");
    version = e->version;
    KIT_CHECK(scree_page_merge(cache, e->id, &version, big) == SCREE_E_TOO_BIG, "merge");
    KIT_CHECK(scree_page_append(cache, e->id, big, NULL) == SCREE_E_TOO_BIG, "append");
    KIT_CHECK(scree_page_put(cache, e->id, big, NULL) == SCREE_E_TOO_BIG, "put");
    KIT_CHECK(scree_page_allocate(cache, big, NULL, NULL) == SCREE_E_TOO_BIG, "allocate");
}

static void
do_next(void)
{
    uint64_t after =
        kit_below(&m->random, 2) == 0 ? entry_random()->id : kit_below(&m->random, LIVE_MAX);
    uint64_t expected = 0;
    scree_page_id id = 0;
    int code = scree_page_next(cache, after, &id);

    for (uint32_t i = 0; i < m->live_n; i++) {
        uint64_t candidate = m->map[m->live[i]].id;

        if (candidate > after && (expected == 0 || candidate < expected))
            expected = candidate;
    }
    KIT_CHECK(code == (expected == 0 ? SCREE_E_NOT_FOUND : 0) && id == expected,
              "next after %" PRIu64 " gave %d, %" PRIu64 ", not %" PRIu64, after, code, id,
              expected);
}

static void
do_durable(void)
{
    scree_lsn lsn = 0;

    switch (kit_below(&m->random, 4)) {
    case 0:
        CHECK_OK(scree_flush(cache, &lsn));
        KIT_CHECK(lsn >= m->version_any || m->journal_n == 0, "flush tells %" PRIu64, lsn);
        journal_acked(lsn);
        break;
    case 1:
        if (m->journal_n == 0)
            return;
        lsn = m->journal[kit_below(&m->random, m->journal_n)].version;
        CHECK_OK(scree_wait_stable(cache, lsn, -1));
        KIT_CHECK(scree_stable_lsn(cache) >= lsn, "waited, but stable is not there");
        journal_acked(lsn);
        break;
    case 2:
        lsn = scree_stable_lsn(cache);
        KIT_CHECK(lsn >= m->acked, "stable went back");
        journal_acked(lsn);
        break;
    default:
        KIT_CHECK(scree_wait_stable(cache, m->version_any + (1u << 30), 0) == SCREE_E_INVALID,
                  "beyond the tail");
    }
}

static void
do_snapshot(void)
{
    scree_lsn lsn = 0;

    CHECK_OK(scree_snapshot(cache, &lsn));
    m->snapshots++;
}

static void
do_reclaim(void)
{
    static const double targets[4] = {0, 1.05, 1.5, 10};
    double target = targets[kit_below(&m->random, 4)];
    bool broken = false;
    int code;

    if (guard_depth > 0) {
        KIT_CHECK(scree_reclaim(cache, target, NULL, NULL) == SCREE_E_INVALID,
                  "reclaimed inside a guard");
        return;
    }
    code = scree_reclaim(cache, target, NULL, NULL);
    for (uint32_t i = 0; i < m->live_n; i++) /* what cannot be merged cannot be moved */
        broken = broken || m->map[m->live[i]].broken;
    KIT_CHECK(code == 0 || (code == SCREE_E_CORRUPT && broken), "reclaim gave %d %s", code,
              kit_code_name(code));
    m->reclaims++;
}

static void
do_stats(void)
{
    scree_stats stats = stats_now();

    KIT_CHECK(stats.pages == m->live_n, "%" PRIu64 " pages, not %" PRIu32, stats.pages, m->live_n);
    KIT_CHECK(stats.tail_lsn >= m->version_any || m->journal_n == 0, "tail %" PRIu64,
              stats.tail_lsn);
    KIT_CHECK(scree_health(cache) == 0, "health %d", scree_health(cache));
}

static void
do_rare(void)
{
    uint64_t kind = kit_below(&m->random, 120);

    if (kind < 45) {
        do_stats();
    } else if (kind < 60) {
        do_reclaim();
    } else if (kind < 80) {
        do_snapshot();
    } else if (kind < 90) {
        guard_leave_all();
        state_check();
    } else if (kind < 93) {
        if (guard_depth > 0)
            KIT_CHECK(scree_close(cache) == SCREE_E_BUSY, "closed under an open guard");
        guard_leave_all();
        cache_reopen();
    } else if (kind < 96) {
        journal_acked(scree_stable_lsn(cache));
        m->crashes++;
        _exit(CHILD_CRASHED);
    }
}

static void
do_one(void)
{
    uint64_t kind = kit_below(&m->random, 1000);

    if (m->journal_n >= JOURNAL_MAX - BATCH_STEPS ||
        m->journal_used > JOURNAL_BYTES - (BATCH_STEPS + 1) * CONTENT_BYTES) {
        scree_lsn lsn = 0;

        CHECK_OK(scree_flush(cache, &lsn));
        journal_acked(lsn);
        KIT_CHECK(m->journal_n == 0, "flush tells %" PRIu64, lsn);
    }
    if (kind < 250)
        do_read();
    else if (kind < 260)
        do_read_short();
    else if (kind < 300)
        do_fragments();
    else if (kind < 440)
        do_append(true);
    else if (kind < 500)
        do_batch();
    else if (kind < 600)
        do_append(false);
    else if (kind < 680)
        do_set(false);
    else if (kind < 730)
        do_set(true);
    else if (kind < 780)
        do_allocate();
    else if (kind < 800)
        do_allocate_at();
    else if (kind < 840)
        do_free(entry_random());
    else if (kind < 880)
        do_stale();
    else if (kind < 900)
        do_missing();
    else if (kind < 903)
        do_too_big();
    else if (kind < 930)
        do_next();
    else if (kind < 936)
        do_durable();
    else if (kind < 950)
        guard_enter();
    else if (kind < 985)
        guard_leave();
    else if (kind >= 990)
        do_rare();
    if (guard_depth > 0 && kit_below(&m->random, 100) == 0)
        guard_leave_all();
}

static void
child_run(void)
{
    struct kit_plan plan = {.kinds = KIT_CHANGING, .fault = KIT_FAULT_NONE};

    if (kit_below(&m->random, 2) == 0) {
        plan.fault = KIT_FAULT_KILL;
        plan.at = 1 + kit_below(&m->random, kit_below(&m->random, 2) == 0 ? 40 : 3000);
        m->kills++;
    }
    kit_env_plan(&plan);
    alarm(60);
    cache_open(true);
    while (m->step < m->steps) {
        m->step++;
        if (m->step % 1000 == 0) {
            snprintf(kit_context, sizeof(kit_context),
                     "seed %" PRIu64 ", variant %" PRIu64 ", step %" PRIu64, m->seed, m->variant,
                     m->step);
            alarm(60);
        }
        do_one();
    }
    guard_leave_all();
    state_check();
    cache_reopen();
    state_check();
    CHECK_OK(scree_close(cache));
    journal_forget();
}

static void
model_reset(uint64_t seed, uint64_t steps, uint64_t variant)
{
    struct entry *root;

    memset(m, 0, sizeof(*m));
    m->seed = seed;
    m->random = seed * 977 + variant;
    m->steps = steps;
    m->variant = variant;
    for (uint16_t i = 0; i < LIVE_MAX + 2; i++)
        m->content_free[m->content_free_n++] = i;
    root = entry_of(SCREE_PAGE_ROOT);
    entry_make_live(root);
}

/* The directory as a new one is: made here, so that a crash never meets half a creation. */
static void
directory_make(void)
{
    struct entry *root = entry_of(SCREE_PAGE_ROOT);
    struct kit_plan plan = {.fault = KIT_FAULT_NONE};
    scree_options options;

    kit_env_plan(&plan);
    options_draw(&options);
    CHECK_OK(scree_open(directory, &options, &cache));
    CHECK_OK(scree_page_read(cache, SCREE_PAGE_ROOT, NULL, 0, NULL, &root->version));
    KIT_CHECK(root->version > 0, "the root has no version");
    root->version_max = m->version_any = root->version;
    m->hash = entry_hash(root);
    m->acked = scree_stable_lsn(cache);
    CHECK_OK(scree_close(cache));
}

static int
child_wait(pid_t child)
{
    int status = 0;

    if (waitpid(child, &status, 0) != child)
        return 1;
    if (WIFSIGNALED(status)) {
        printf("FAILED [seed %" PRIu64 ", variant %" PRIu64 ", step %" PRIu64 "] the child died by "
               "signal %d%s\n",
               m->seed, m->variant, m->step, WTERMSIG(status),
               WTERMSIG(status) == SIGALRM ? " (a call hung)" : "");
        return 1;
    }
    return WEXITSTATUS(status);
}

static int
model_run(uint64_t seed, uint64_t steps, uint64_t variant)
{
    int status = CHILD_CRASHED;

    kit_dir_name(directory, "model");
    model_reset(seed, steps, variant);
    for (bool made = false; status == CHILD_CRASHED || status == KIT_KILLED; made = true) {
        pid_t child;

        fflush(stdout);
        child = fork();
        if (child < 0)
            return 1;
        if (child == 0) {
            snprintf(kit_context, sizeof(kit_context),
                     "seed %" PRIu64 ", variant %" PRIu64 ", step %" PRIu64 "+", m->seed,
                     m->variant, m->step);
            if (!made) {
                directory_make();
                _exit(CHILD_CRASHED);
            }
            child_run();
            _exit(0);
        }
        status = child_wait(child);
    }
    printf("variant %" PRIu64 ", seed %" PRIu64 ": %" PRIu64 " operations, %" PRIu64
           " reads, %" PRIu64 " of broken pages, %" PRIu64 " stale refused, %" PRIu64
           " busy, %" PRIu64 " snapshots, %" PRIu64 " reclaims, %" PRIu64 " bytes cleaned, %" PRIu64
           " reopens, %" PRIu64 " live bytes recounted, %" PRIu64 " crashes, %" PRIu64
           " kill plans, %" PRIu64 " taken back, %" PRIu64 " batches, %" PRIu64
           " of them refused: %s\n",
           variant, seed, m->step, m->reads, m->broken_reads, m->conflicts, m->busy, m->snapshots,
           m->reclaims, m->cleaned, m->reopens, m->recounts, m->crashes, m->kills, m->undone,
           m->batches, m->batches_refused, status == 0 ? "ok" : "FAILED");
    if (status == 0 || getenv("SCREE_TEST_KEEP") == NULL)
        kit_dir_remove(directory);
    else
        printf("the directory is kept: %s\n", directory);
    return status != 0;
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t steps = kit_argument(argc, argv, 2, KIT_MUCH(200000, 70000, 200000));
    uint64_t variant = kit_argument(argc, argv, 3, 3);
    int failed = 0;

    m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        return 1;
    for (uint64_t v = 0; v < 3; v++) {
        if (variant == v || variant >= 3)
            failed |= model_run(seed, steps, v);
    }
    return failed;
}
