/*
 * test_delta.c - deltas and merging: a chain of files is the table, however it was merged; what cannot be is
 * refused; the bytes are the documented ones; failures leave nothing behind.
 *
 * ORACLE  a model of the page table and its log: operations change pages, also while a walk is under way. At
 *         each walk every page's state is noted; that is what the chain must give.
 */
#include "snapshot_fixture.h"

#define PAGES 300u
#define POSITIONS_MAX 12u
#define STEPS_MAX 12u

#define SUITE(name) TestSuite(name, .init = fixture_make, .fini = fixture_remove)
SUITE(delta_chain);
SUITE(delta_bytes);
SUITE(delta_refusal);
SUITE(delta_merge);
SUITE(delta_fault);

/* ---- the model ---- */

struct page {
    uint64_t version;
    uint32_t n; /* 0: free, at `version`; 0 if it never lived */
    struct scree__position p[POSITIONS_MAX];
};

struct model {
    uint64_t seed, lsn;
    struct page page[PAGES];  /* now; page i has id id_of(i) */
    struct page noted[PAGES]; /* as the last walk saw them */
    struct scree__generation chain;
    uint64_t numbers; /* handed out */
};

static uint64_t
id_of(unsigned i)
{
    return 1 + i + (i > PAGES / 2 ? UINT64_C(1) << 40 : 0);
}

static unsigned
index_of(uint64_t id)
{
    return (unsigned)(id & 0xffff) - 1;
}

static struct scree__position
record(struct model *m)
{
    struct scree__position p = {m->lsn, 8 * (1 + (uint32_t)(kit_random(&m->seed) % 30))};

    m->lsn += p.disk_len;
    return p;
}

static void
change(struct model *m)
{
    uint64_t at = kit_random(&m->seed) % PAGES;
    struct page *p = &m->page[kit_random(&m->seed) % 3 == 0 ? at : at % (PAGES / 10)];
    uint64_t kind = kit_random(&m->seed) % 8;
    struct scree__position r = record(m);

    if (p->n > 0 && kind == 0) { /* freed */
        p->n = 0;
        p->version = r.lsn;
        return;
    }
    if (p->n == 0 || kind < 3 || p->n == POSITIONS_MAX) { /* allocated, set, consolidated */
        bool keeps_version = p->n > 1 && kind == 2;

        p->n = 0;
        p->version = keeps_version ? p->version : m->lsn;
    } else {
        p->version = m->lsn + (kind == 7 ? 64 : 0); /* the end of its batch */
    }
    p->p[p->n++] = r;
    m->lsn += kind == 7 ? 64 : 0;
}

static void
model_init(struct model *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->seed = seed;
    m->lsn = 65536;
    for (unsigned i = 0; i < 300; i++)
        change(m);
}

/* What a snapshot that adds to `since` (0: none) holds of the page. False: nothing. */
static bool
entry_of(const struct page *p, uint64_t id, uint64_t start, uint64_t since,
         struct scree__snapshot_entry *e)
{
    uint32_t skip = 0;

    *e = (struct scree__snapshot_entry){.id = id, .version = p->version};
    if (p->n == 0)
        return p->version >= (since ? since : start);
    if (p->p[p->n - 1].lsn < since)
        return false;
    while (p->p[skip].lsn < since)
        skip++;
    e->added = skip > 0;
    e->positions = p->p + skip;
    e->n = p->n - skip;
    return true;
}

static int
write_noted(const scree_env *env, const struct model *m, const struct scree__snapshot_meta *meta,
            struct scree__generation *g)
{
    struct scree__snapshot_writer *w;
    int rc = scree__snapshot_begin(env, fixture_dir, meta, &w);

    for (unsigned i = 0; rc == 0 && i < PAGES; i++) {
        struct scree__snapshot_entry e;

        if (entry_of(&m->noted[i], id_of(i), meta->replay_lsn, meta->since_lsn, &e))
            (void)scree__snapshot_add(w, &e); /* it sticks */
    }
    return rc != 0 ? rc
                   : scree__snapshot_finish(w, (scree_slice){"state", 5}, m->chain.stable_lsn,
                                            meta->id_high, g);
}

/* A walk, while pages change; what it saw becomes the next file of the chain. */
static void
snapshot(struct model *m)
{
    struct scree__snapshot_meta meta = {.number = ++m->numbers,
                                        .replay_lsn = m->lsn,
                                        .since_lsn = m->chain.replay_lsn,
                                        .id_high = m->numbers,
                                        .generated_high = 2 * m->numbers};
    struct scree__generation g;

    memcpy(meta.uuid, uuid, 16);
    for (unsigned i = 0; i < PAGES; i++) {
        m->noted[i] = m->page[i];
        if (kit_random(&m->seed) % 8 == 0)
            change(m);
    }
    m->chain.replay_lsn = meta.replay_lsn;
    m->chain.stable_lsn = m->lsn;
    cr_assert(eq(int, write_noted(scree_env_posix(), m, &meta, &g), 0), "%s", scree_error_detail());
    m->chain.file[m->chain.files++] = g.file[0];
}

/* A chain of so many files. */
static void
model_make(struct model *m, uint64_t seed, uint32_t files)
{
    model_init(m, seed);
    while (m->chain.files < files) {
        uint64_t changes = kit_random(&m->seed) % 100;

        while (changes-- > 0)
            change(m);
        snapshot(m);
    }
}

/* ---- loading ---- */

struct loaded {
    struct page page[PAGES];
    uint64_t visits;
};

/* The rules of docs/snapshot_format.md. */
static int
loaded_visit(void *ctx, const struct scree__snapshot_entry *e)
{
    struct loaded *l = ctx;
    struct page *p = &l->page[index_of(e->id)];

    l->visits++;
    cr_assert(eq(u64, id_of(index_of(e->id)), e->id));
    if (!e->added)
        p->n = 0;
    else if (p->n == 0)
        return scree__fail(SCREE_E_CORRUPT, "added to nothing");
    for (uint32_t i = 0; i < e->n; i++) {
        if (p->n > 0 && e->positions[i].lsn <= p->p[p->n - 1].lsn)
            continue;
        if (p->n == POSITIONS_MAX)
            return scree__fail(SCREE_E_CORRUPT, "too many");
        p->p[p->n++] = e->positions[i];
    }
    p->version = e->version;
    return 0;
}

static int
chain_load(const struct scree__generation *g, struct loaded *l)
{
    struct scree__snapshot_loaded out;
    int rc;

    memset(l, 0, sizeof *l);
    rc = scree__snapshot_load(scree_env_posix(), fixture_dir, g, uuid, 1, loaded_visit, l, &out);
    if (rc == 0)
        cr_assert(out.state_len == 5 && memcmp(out.state, "state", 5) == 0 &&
                  out.meta.replay_lsn == g->replay_lsn);
    scree__free(out.state, out.state_len);
    return rc;
}

static bool
positions_equal(const struct page *a, const struct page *b)
{
    for (uint32_t i = 0; i < a->n; i++) {
        if (a->p[i].lsn != b->p[i].lsn || a->p[i].disk_len != b->p[i].disk_len)
            return false;
    }
    return true;
}

static void
chain_check(const struct model *m, const struct scree__generation *g, const char *what)
{
    struct loaded l;

    cr_assert(eq(int, chain_load(g, &l), 0), "%s: %s", what, scree_error_detail());
    for (unsigned i = 0; i < PAGES; i++) {
        const struct page *want = &m->noted[i], *got = &l.page[i];

        cr_assert(eq(u32, got->n, want->n), "%s, page %u", what, i);
        if (want->n == 0) /* a tombstone may have gone if it is old, and be older than the walk */
            cr_assert(got->version == want->version || want->version < g->replay_lsn);
        else
            cr_assert(got->version == want->version && positions_equal(got, want), "%s, page %u",
                      what, i);
    }
}

Test(delta_chain, is_the_table_that_the_last_walk_saw, .timeout = 300)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct model m;

        model_init(&m, seed);
        for (unsigned i = 0; i < STEPS_MAX; i++) {
            snapshot(&m);
            chain_check(&m, &m.chain, "chain");
            for (uint64_t n = kit_random(&m.seed) % 200; n > 0; n--)
                change(&m);
        }
    }
}

Test(delta_chain, a_file_that_does_not_follow_the_one_before_is_refused, .timeout = 60)
{
    struct model m;
    struct loaded l;
    struct scree__generation g;

    model_make(&m, 1, 4);
    g = m.chain; /* one is missing */
    g.file[1] = g.file[2];
    g.file[2] = g.file[3];
    g.files = 3;
    cr_assert(eq(int, chain_load(&g, &l), SCREE_E_CORRUPT));
    cr_assert(strstr(scree_error_detail(), "does not add") != NULL, "%s", scree_error_detail());
    g = m.chain; /* the full one is missing */
    memmove(&g.file[0], &g.file[1], 3 * sizeof g.file[0]);
    g.files = 3;
    cr_assert(eq(int, chain_load(&g, &l), SCREE_E_CORRUPT));
    cr_assert(eq(u64, l.visits, 0));
    g = m.chain; /* a full one among the deltas */
    g.file[2] = g.file[0];
    cr_assert(eq(int, chain_load(&g, &l), SCREE_E_CORRUPT));
    g = m.chain; /* the newest is missing */
    g.files = 3;
    cr_assert(eq(int, chain_load(&g, &l), SCREE_E_CORRUPT));
    g = m.chain; /* older than its files */
    g.replay_lsn -= 8;
    cr_assert(eq(int, chain_load(&g, &l), SCREE_E_CORRUPT));
    chain_check(&m, &m.chain, "untouched");
}

/* ---- bytes ---- */

#define S 0x21000u
#define SINCE 0x20000u
#define DELTA_META                                                                   \
    {                                                                                \
        .uuid = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, .number = 3, \
        .replay_lsn = S, .since_lsn = SINCE, .id_high = 41, .generated_high = 64     \
    }
static const struct scree__snapshot_meta delta_meta = DELTA_META;

static int
entries_write(const struct scree__snapshot_entry *e, size_t n, struct scree__generation *g)
{
    struct scree__snapshot_writer *w;

    cr_assert(eq(int, scree__snapshot_begin(scree_env_posix(), fixture_dir, &delta_meta, &w), 0));
    for (size_t i = 0; i < n; i++)
        (void)scree__snapshot_add(w, &e[i]); /* it sticks */
    return scree__snapshot_finish(w, no_state, 0x21100, 41, g);
}

Test(delta_bytes, are_those_of_the_documented_example, .timeout = 60)
{
    static const struct scree__position p[] = {
        {0x20500, 32}, {0x20540, 32}, {0x20580, 40}, {0x20600, 24}, {0x21010, 48}};
    static const struct scree__snapshot_entry e[] = {
        {.id = 1, .version = 0x20520, .positions = &p[0], .n = 1},
        {.id = 2, .version = 0x20560, .positions = &p[1], .n = 1, .added = true},
        {.id = 3, .version = 0x20400},
        {.id = 5, .version = 0x20618, .positions = &p[2], .n = 2, .added = true},
        {.id = 41, .version = 0x21080, .positions = &p[4], .n = 1, .added = true}};
    unsigned char doc[1024], *data;
    size_t doc_len = fixture_example(1, doc, sizeof doc), len;
    struct scree__generation g;

    cr_assert(eq(int, entries_write(e, 5, &g), 0), "%s", scree_error_detail());
    data = fixture_read("snapshot-0000000000000003", &len);
    if (doc_len != len || memcmp(doc, data, len) != 0) {
        for (size_t i = 0; i < len; i++)
            fprintf(stderr, "%02x%s", data[i], i % 8 == 7 ? "\n" : " ");
        fprintf(stderr, "\nhash %016llx\n", (unsigned long long)g.file[0].hash);
    }
    cr_assert(eq(sz, doc_len, len));
    cr_assert(memcmp(doc, data, len) == 0);
    free(data);
}

/* A page of random id and place in the log takes this much, before compression. */
Test(delta_bytes, changed_page_of_a_hundred_takes_fourteen_bytes_at_most, .timeout = 60)
{
    struct scree__snapshot_encoder enc = {.raw = malloc(SCREE__SNAPSHOT_RAW_MAX),
                                          .floor_lsn = SINCE};
    uint64_t seed = 1, id = 0;

    for (unsigned i = 0; i < 5000; i++) {
        struct scree__position p = {SINCE + kit_random(&seed) % (UINT64_C(1) << 30) * 8, 8008};
        struct scree__snapshot_entry e = {
            .id = id += 1 + kit_random(&seed) % 200, .positions = &p, .n = 1, .added = i % 2};

        e.version = p.lsn + p.disk_len;
        scree__snapshot_entry_put(&enc, &e);
    }
    cr_assert(le(sz, enc.len, 5000 * 14), "%zu bytes", enc.len);
    free(enc.raw);
}

/* ---- what the writer refuses ---- */

static void
refuse(struct scree__snapshot_entry e)
{
    struct scree__generation g;

    cr_assert(eq(int, entries_write(&e, 1, &g), SCREE_E_INVALID));
    cr_assert(eq(uint, fixture_count(), 0));
}

Test(delta_refusal, what_belongs_to_the_files_before, .timeout = 60)
{
    struct scree__position old[] = {{SINCE - 8, 8}, {SINCE, 8}};
    struct scree__snapshot_meta full = delta_meta;
    struct scree__snapshot_entry e = {.id = 1, .version = SINCE + 8, .positions = old + 1, .n = 1};
    struct scree__generation g;

    refuse((struct scree__snapshot_entry){.id = 1, .version = SINCE - 1});
    refuse((struct scree__snapshot_entry){.id = 1, .version = SINCE + 8, .positions = old, .n = 2});
    refuse((struct scree__snapshot_entry){
        .id = 1, .version = SINCE + 8, .positions = old, .n = 2, .added = true});
    refuse((struct scree__snapshot_entry){.id = 1, .version = SINCE, .added = true});
    cr_assert(scree__snapshot_entry_check(&e, &full) == NULL);
    e.added = true;
    cr_assert(scree__snapshot_entry_check(&e, &full) == NULL);
    full.since_lsn = 0;
    cr_assert(scree__snapshot_entry_check(&e, &full) != NULL); /* nothing is added in a full one */
    e = (struct scree__snapshot_entry){.id = 1, .version = SINCE};
    cr_assert(eq(int, entries_write(&e, 1, &g), 0)); /* a tombstone below S, at what it adds to */
}

/* ---- damage and hostile bytes ---- */

static int
sane_visit(void *ctx, const struct scree__snapshot_entry *e)
{
    (void)ctx;
    if (e->delta)
        cr_assert(scree__snapshot_entry_check(e, &delta_meta) == NULL);
    return 0;
}

static int
merge_files(const scree_env *env, const struct scree__generation *g, uint32_t first, uint32_t n,
            uint64_t number, struct scree__generation *made)
{
    struct scree__snapshot_merge what = {.generation = g, .first = first, .n = n, .number = number};
    uint64_t pages;

    memcpy(what.uuid, uuid, 16);
    return scree__snapshot_merge(env, fixture_dir, &what, made, &pages);
}

static bool
is_refusal(int rc)
{
    return rc == SCREE_E_CORRUPT || rc == SCREE_E_FORMAT;
}

Test(delta_refusal, every_changed_byte_gives_an_error_or_sane_entries, .timeout = 600)
{
    static const unsigned char by[] = {0x01, 0x80, 0xff, 0x07, 0x04};
    static const struct scree__position p[] = {
        {0x20500, 32}, {0x20540, 32}, {0x20580, 40}, {0x20600, 24}, {0x21010, 48}};
    static const struct scree__snapshot_entry e[] = {
        {.id = 1, .version = 0x20520, .positions = &p[0], .n = 1},
        {.id = 2, .version = 0x20560, .positions = &p[1], .n = 1, .added = true},
        {.id = 3, .version = 0x20400},
        {.id = 5, .version = 0x20618, .positions = &p[2], .n = 2, .added = true},
        {.id = 41, .version = 0x21080, .positions = &p[4], .n = 1, .added = true}};
    struct scree__snapshot_meta full = {.number = 2, .replay_lsn = SINCE};
    struct scree__generation g, made;
    struct scree__snapshot_writer *w;
    struct scree__snapshot_loaded out;
    unsigned accepted = 0, merged = 0;
    unsigned char *data, *copy;
    size_t len;

    cr_assert(eq(int, entries_write(e, 5, &made), 0));
    memcpy(full.uuid, uuid, 16);
    cr_assert(eq(int, scree__snapshot_begin(scree_env_posix(), fixture_dir, &full, &w), 0));
    cr_assert(eq(int, scree__snapshot_finish(w, no_state, SINCE + 64, 1, &g), 0));
    g.file[g.files++] = made.file[0];
    g.replay_lsn = S;
    g.stable_lsn = 0x21100;
    data = fixture_read("snapshot-0000000000000003", &len);
    copy = malloc(len);
    for (size_t i = 0; i < len * sizeof by; i++) {
        int rc;

        memcpy(copy, data, len);
        copy[i / sizeof by] ^= by[i % sizeof by];
        fixture_rehash(copy, len, &g.file[1]);
        fixture_write("snapshot-0000000000000003", copy, len);
        rc = scree__snapshot_load(scree_env_posix(), fixture_dir, &g, uuid, 1, sane_visit, NULL,
                                  &out);
        cr_assert(rc == 0 || is_refusal(rc), "byte %zu: %d", i / sizeof by, rc);
        scree__free(out.state, out.state_len);
        accepted += rc == 0;
        rc = merge_files(scree_env_posix(), &g, 1, 1, 9, &made);
        cr_assert(rc == 0 || is_refusal(rc), "byte %zu: %d", i / sizeof by, rc);
        merged += rc == 0;
        cr_assert(
            is_refusal(merge_files(scree_env_posix(), &g, 0, 2, 9, &made))); /* 2 is not there */
    }
    cr_assert(accepted > 0 && merged >= accepted);
    free(data);
    free(copy);
}

/* ---- merging ---- */

static void
replace(struct scree__generation *g, uint32_t first, uint32_t n,
        const struct scree__generation *made)
{
    g->file[first] = made->file[0];
    memmove(&g->file[first + 1], &g->file[first + n], (g->files - first - n) * sizeof g->file[0]);
    g->files -= n - 1;
}

Test(delta_merge, any_files_into_one_say_what_they_said, .timeout = 600)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct model m;
        struct scree__generation g, made;

        model_make(&m, seed, 2 + seed % STEPS_MAX);
        g = m.chain;
        while (g.files > 1) {
            uint32_t first = (uint32_t)(kit_random(&m.seed) % g.files);
            uint32_t n = 1 + (uint32_t)(kit_random(&m.seed) % (g.files - first));

            cr_assert(eq(int, merge_files(scree_env_posix(), &g, first, n, ++m.numbers, &made), 0),
                      "%s", scree_error_detail());
            replace(&g, first, n, &made);
            chain_check(&m, &g, "merged");
        }
    }
}

Test(delta_merge, a_full_file_has_the_bytes_of_a_full_snapshot, .timeout = 300)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct scree__snapshot_meta meta = {.number = 99};
        struct scree__generation made, direct;
        unsigned char *a, *b;
        size_t a_len, b_len;
        struct model m;

        model_make(&m, seed, 2 + seed % STEPS_MAX);
        cr_assert(
            eq(int, merge_files(scree_env_posix(), &m.chain, 0, m.chain.files, 99, &made), 0));
        a = fixture_read("snapshot-0000000000000063", &a_len);
        memcpy(meta.uuid, uuid, 16);
        meta.replay_lsn = m.chain.replay_lsn;
        meta.id_high = m.numbers;
        meta.generated_high = 2 * m.numbers;
        cr_assert(eq(int, write_noted(scree_env_posix(), &m, &meta, &direct), 0));
        b = fixture_read("snapshot-0000000000000063", &b_len);
        cr_assert(eq(sz, a_len, b_len));
        cr_assert(memcmp(a, b, a_len) == 0);
        cr_assert(memcmp(&made, &direct, sizeof made) == 0);
        free(a);
        free(b);
    }
}

Test(delta_merge, what_is_added_to_nothing_is_damage, .timeout = 60)
{
    struct scree__position p = {SINCE, 8};
    struct scree__snapshot_entry e = {
        .id = 7, .version = SINCE + 8, .positions = &p, .n = 1, .added = true};
    struct scree__snapshot_meta full = {.number = 2, .replay_lsn = SINCE};
    struct scree__generation g, made;
    struct scree__snapshot_writer *w;

    memcpy(full.uuid, uuid, 16);
    cr_assert(eq(int, scree__snapshot_begin(scree_env_posix(), fixture_dir, &full, &w), 0));
    cr_assert(eq(int, scree__snapshot_finish(w, no_state, SINCE, 1, &g), 0));
    cr_assert(eq(int, entries_write(&e, 1, &made), 0));
    g.file[g.files++] = made.file[0];
    g.replay_lsn = S;
    g.stable_lsn = 0x21100;
    cr_assert(eq(int, merge_files(scree_env_posix(), &g, 0, 2, 9, &made), SCREE_E_CORRUPT));
    cr_assert(strstr(scree_error_detail(), "snapshot-0000000000000003") != NULL);
    cr_assert(eq(uint, fixture_count(), 2));
}

Test(delta_merge, is_given_up_when_asked_to_and_leaves_nothing, .timeout = 60)
{
    _Atomic uint32_t stop = 1;
    struct model m;
    struct scree__snapshot_merge what;
    struct scree__generation made;
    uint64_t pages;

    model_make(&m, 1, 3);
    what =
        (struct scree__snapshot_merge){.generation = &m.chain, .n = 3, .number = 9, .stop = &stop};
    memcpy(what.uuid, uuid, 16);
    cr_assert(eq(int, scree__snapshot_merge(scree_env_posix(), fixture_dir, &what, &made, &pages),
                 SCREE_E_CANCELED));
    cr_assert(eq(uint, fixture_count(), 3));
}

Test(delta_fault, every_flipped_bit_of_a_file_ends_the_merge, .timeout = 600)
{
    struct scree__generation made;
    struct model m;

    model_make(&m, 3, 3);
    for (unsigned f = 1; f <= 3; f++) {
        unsigned char *data;
        char name[SCREE__SNAPSHOT_NAME_BYTES];
        size_t len;

        scree__snapshot_name(name, SCREE__SNAPSHOT_FILE, f, false);
        data = fixture_read(name, &len);
        for (size_t i = 0; i < len * 8; i += 5) {
            data[i / 8] ^= (unsigned char)(1u << i % 8);
            fixture_write(name, data, len);
            cr_assert(
                eq(int, merge_files(scree_env_posix(), &m.chain, 0, 3, 9, &made), SCREE_E_CORRUPT));
            cr_assert(strstr(scree_error_detail(), name) != NULL);
            cr_assert(eq(uint, fixture_count(), 3));
            data[i / 8] ^= (unsigned char)(1u << i % 8);
        }
        fixture_write(name, data, len);
        free(data);
    }
    cr_assert(eq(int, merge_files(scree_env_posix(), &m.chain, 0, 3, 9, &made), 0));
}

Test(delta_fault, merging_fails_clean_at_every_call, .timeout = 300)
{
    struct scree__generation made;
    struct model m;
    unsigned n;
    int rc = -1;

    model_make(&m, 4, 4);
    for (n = 1; rc != 0; n++) {
        struct fault f;

        rc = merge_files(fault_init(&f, n, false), &m.chain, 1, 3, 9, &made);
        cr_assert(rc == -EIO || f.calls < n || rc == 0, "call %u: %d", n, rc);
        cr_assert(rc == 0 || fixture_count() == 4, "call %u", n);
        cr_assert(rc == 0 || made.files == 0);
    }
    cr_assert(gt(uint, n, 15));
    cr_assert(eq(uint, fixture_count(), 5));
    chain_check(&m, &m.chain, "what was merged");
}

#ifdef SCREE_ALLOC_FAULTS
Test(delta_fault, every_allocation_may_fail, .timeout = 300)
{
    struct scree__generation made;
    struct model m;
    unsigned n;
    int rc = -1;

    model_make(&m, 4, 4);
    for (n = 1; rc != 0; n++) {
        scree__alloc_fault(n, 1);
        rc = merge_files(scree_env_posix(), &m.chain, 0, 4, 9, &made);
        scree__alloc_fault(0, 0);
        cr_assert(rc == 0 || (rc == SCREE_E_NO_MEMORY && fixture_count() == 4), "allocation %u", n);
    }
    cr_assert(gt(uint, n, 20));
}
#endif
