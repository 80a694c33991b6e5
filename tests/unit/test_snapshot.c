/*
 * test_snapshot.c - snapshot files: what goes in comes out, the bytes are the documented ones,
 * damage and hostile bytes are errors, failures leave nothing behind.
 */
#include "snapshot_fixture.h"

#include <pthread.h>
#include <time.h>

#define S 0x20000u
#define E UINT64_C(0x1000000000) /* 64 GiB of log */
#define NUMBER 7u
#define FILE_NAME "snapshot-0000000000000007"

static const struct scree__snapshot_meta meta = {
    .uuid = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .number = NUMBER,
    .replay_lsn = S,
    .id_high = 1,
    .generated_high = 777};

#define SUITE(name) TestSuite(name, .init = fixture_make, .fini = fixture_remove)
SUITE(snapshot_roundtrip);
SUITE(snapshot_bytes);
SUITE(snapshot_refusal);
SUITE(snapshot_damage);
SUITE(snapshot_hostile);
SUITE(snapshot_fault);

/* ---- entries to write, and a checker of what comes back ---- */

struct table {
    struct scree__snapshot_entry *e;
    struct scree__position *p;
    size_t n, p_n;
    unsigned char *seen; /* one byte an entry */
    pthread_mutex_t lock;
    size_t visits, stop_at;
};

static void
table_init(struct table *t, size_t n, size_t positions)
{
    memset(t, 0, sizeof *t);
    t->e = calloc(n + 1, sizeof *t->e);
    t->p = calloc(positions + 1, sizeof *t->p);
    t->seen = calloc(n + 1, 1);
    pthread_mutex_init(&t->lock, NULL);
}

static void
table_free(struct table *t)
{
    free(t->e);
    free(t->p);
    free(t->seen);
}

/* version 0: the end of the newest position */
static void
table_add(struct table *t, uint64_t id, uint64_t version, unsigned n,
          const struct scree__position *p)
{
    struct scree__position *to = t->p + t->p_n;

    if (n > 0)
        memcpy(to, p, n * sizeof *p);
    t->e[t->n++] = (struct scree__snapshot_entry){
        .id = id,
        .version = n == 0 || version != 0 ? version : p[n - 1].lsn + p[n - 1].disk_len,
        .positions = to,
        .n = n};
    t->p_n += n;
}

/* Typical pages: one position anywhere below E. */
static void
table_typical(struct table *t, size_t n)
{
    uint64_t seed = 1;

    table_init(t, n, n);
    for (size_t i = 0; i < n; i++) {
        struct scree__position p = {.lsn = 8 + kit_random(&seed) % (E / 16) * 8,
                                    .disk_len = 8 + (uint32_t)(kit_random(&seed) % 512) * 8};

        table_add(t, i + 1, 0, 1, &p);
    }
}

/* Everything there is: gaps, chains, other versions, tombstones. */
static void
table_mixed(struct table *t, size_t n)
{
    uint64_t seed = 2, id = 0;

    table_init(t, n, 4 * n);
    for (size_t i = 0; i < n; i++) {
        struct scree__position p[4];
        unsigned count = (unsigned)(kit_random(&seed) % 5);
        uint64_t at = 8 + kit_random(&seed) % (E / 16) * 8, version = 0;

        id += 1 + (kit_random(&seed) % 4 == 0 ? kit_random(&seed) % 1000 : 0);
        for (unsigned k = 0; k < count; k++) {
            p[k].lsn = at;
            p[k].disk_len = 8 + (uint32_t)(kit_random(&seed) % 1000) * 8;
            at += p[k].disk_len + kit_random(&seed) % 3 * 8;
        }
        if (count == 0)
            version = S + kit_random(&seed) % (E - S);
        else if (kit_random(&seed) % 3 == 0)
            version = 1 + kit_random(&seed) % (E - 1);
        table_add(t, id, version, count, p);
    }
}

static bool
entry_equal(const struct scree__snapshot_entry *a, const struct scree__snapshot_entry *b)
{
    if (a->id != b->id || a->version != b->version || a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++) {
        if (a->positions[i].lsn != b->positions[i].lsn ||
            a->positions[i].disk_len != b->positions[i].disk_len)
            return false;
    }
    return true;
}

/* 1: not an entry that was written. */
static int
table_visit(void *ctx, const struct scree__snapshot_entry *e)
{
    struct table *t = ctx;
    size_t low = 0, high = t->n;
    int rc;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (t->e[mid].id < e->id)
            low = mid + 1;
        else
            high = mid;
    }
    pthread_mutex_lock(&t->lock);
    rc = low == t->n || t->seen[low]++ || !entry_equal(&t->e[low], e) ? 1 : 0;
    if (++t->visits == t->stop_at)
        rc = -4711;
    pthread_mutex_unlock(&t->lock);
    return rc;
}

static int
table_write(const scree_env *env, const struct table *t, scree_slice state,
            struct scree__generation *g_out)
{
    struct scree__snapshot_writer *w;
    int rc = scree__snapshot_begin(env, fixture_dir, &meta, &w);

    memset(g_out, 0, sizeof *g_out);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < t->n && rc == 0; i++)
        rc = scree__snapshot_add(w, &t->e[i]);
    /* after a failed add too: finish must say so and clean up */
    int finished = scree__snapshot_finish(w, state, E, 123456, g_out);

    cr_assert(rc == 0 || finished == rc);
    return finished;
}

static int
table_load(const scree_env *env, struct table *t, const struct scree__generation *g,
           unsigned threads, struct scree__snapshot_loaded *loaded_out)
{
    memset(t->seen, 0, t->n + 1);
    t->visits = 0;
    return scree__snapshot_load(env, fixture_dir, g, uuid, threads, table_visit, t, loaded_out);
}

static void
roundtrip(struct table *t, scree_slice state, unsigned threads)
{
    struct scree__snapshot_loaded l;
    struct scree__generation g;
    size_t tombstones = 0;
    struct stat st;

    cr_assert(eq(int, table_write(scree_env_posix(), t, state, &g), 0));
    cr_assert(eq(u64, g.file[0].number, NUMBER));
    cr_assert(eq(u64, g.replay_lsn, S));
    cr_assert(eq(u64, g.stable_lsn, E));
    cr_assert(stat(fixture_path(FILE_NAME), &st) == 0 && (uint64_t)st.st_size == g.file[0].bytes);
    cr_assert(eq(uint, fixture_count(), 1));
    cr_assert(eq(int, table_load(scree_env_posix(), t, &g, threads, &l), 0), "%s",
              scree_error_detail());
    for (size_t i = 0; i < t->n; i++)
        tombstones += t->e[i].n == 0;
    cr_assert(eq(u64, t->visits, t->n));
    cr_assert(eq(u64, l.entries, t->n));
    cr_assert(eq(u64, l.tombstones, tombstones));
    cr_assert(eq(u64, l.meta.id_high, 123456));
    cr_assert(eq(u64, l.meta.generated_high, 777));
    cr_assert(eq(u64, l.meta.number, NUMBER));
    cr_assert(eq(u64, l.meta.replay_lsn, S));
    cr_assert(memcmp(l.meta.uuid, uuid, 16) == 0);
    cr_assert(eq(u64, l.state_len, state.len));
    cr_assert(state.len == 0 || memcmp(l.state, state.data, state.len) == 0);
    scree__free(l.state, l.state_len);
}

Test(snapshot_roundtrip, empty, .timeout = 60)
{
    struct table t;

    table_init(&t, 0, 0);
    roundtrip(&t, no_state, 1);
    table_free(&t);
}

Test(snapshot_roundtrip, one_page, .timeout = 60)
{
    struct table t;

    table_typical(&t, 1);
    roundtrip(&t, no_state, 4);
    table_free(&t);
}

Test(snapshot_roundtrip, hundred_thousand_mixed_entries_on_any_number_of_threads, .timeout = 300)
{
    struct table t;

    table_mixed(&t, 100000);
    for (unsigned threads = 0; threads <= 5; threads++)
        roundtrip(&t, (scree_slice){"state", 5}, threads);
    roundtrip(&t, no_state, 1000);
    table_free(&t);
}

Test(snapshot_roundtrip, tombstones_only, .timeout = 60)
{
    struct table t;

    table_init(&t, 3, 0);
    table_add(&t, 5, S, 0, NULL);
    table_add(&t, 6, E, 0, NULL);
    table_add(&t, UINT64_MAX, S + 1, 0, NULL);
    roundtrip(&t, no_state, 2);
    table_free(&t);
}

Test(snapshot_roundtrip, extreme_ids_positions_and_versions, .timeout = 60)
{
    struct scree__position low = {8, 8}, high = {E - 8, 8}, long_one = {16, UINT32_MAX - 7};
    struct scree__position both[2] = {low, high};
    struct table t;

    table_init(&t, 8, 8);
    table_add(&t, 1, 0, 1, &low);
    table_add(&t, 2, 0, 1, &high);
    table_add(&t, 2 + 31, 1, 1, &low);
    table_add(&t, 2 + 31 + 32, E, 1, &low);
    table_add(&t, 2 + 31 + 32 + 33, 0, 2, both);
    table_add(&t, UINT64_MAX - 1, 1, 2, both);
    table_add(&t, UINT64_MAX, 0, 1, &long_one);
    roundtrip(&t, no_state, 1);
    table_free(&t);
}

Test(snapshot_roundtrip, longest_chains, .timeout = 300)
{
    struct table t;
    size_t n = SCREE__SNAPSHOT_POSITIONS_MAX;
    struct scree__position *p = calloc(n, sizeof *p);

    for (size_t i = 0; i < n; i++)
        p[i] = (struct scree__position){8 + i * (E / 8 / n) * 8, 8 + (uint32_t)(i % 5000) * 8};
    table_init(&t, 4, 4 * n);
    for (uint64_t id = 1; id <= 4; id++)
        table_add(&t, id, id == 3 ? 77 : 0, (unsigned)(id == 2 ? n - 1 : n), p);
    roundtrip(&t, no_state, 2);
    table_free(&t);
    free(p);
}

Test(snapshot_roundtrip, states_of_every_kind_of_size, .timeout = 300)
{
    size_t sizes[] = {1, SCREE__SNAPSHOT_RAW_MAX - 1, SCREE__SNAPSHOT_RAW_MAX,
                      SCREE__SNAPSHOT_RAW_MAX + 1, 5 * SCREE__SNAPSHOT_RAW_MAX + 12345};
    unsigned char *state = calloc(1, sizes[4]);
    uint64_t seed = 3;
    struct table t;

    table_mixed(&t, 10000);
    for (unsigned i = 0; i < 5; i++)
        roundtrip(&t, (scree_slice){state, sizes[i]}, 3); /* zeros: beyond the ratio, stored */
    for (size_t i = 0; i < sizes[4]; i++)
        state[i] = (unsigned char)(kit_random(&seed) % (i < sizes[4] / 2 ? 256 : 4));
    roundtrip(&t, (scree_slice){state, sizes[4]}, 3);
    table_free(&t);
    free(state);
}

/* ---- the bytes ---- */

Test(snapshot_bytes, same_state_same_bytes, .timeout = 180)
{
    struct scree__generation g, h;
    unsigned char *a, *b;
    size_t a_len, b_len;
    struct table t;

    table_mixed(&t, 30000);
    cr_assert(eq(int, table_write(scree_env_posix(), &t, (scree_slice){"abc", 3}, &g), 0));
    a = fixture_read(FILE_NAME, &a_len);
    cr_assert(eq(int, table_write(scree_env_posix(), &t, (scree_slice){"abc", 3}, &h), 0));
    b = fixture_read(FILE_NAME, &b_len);
    cr_assert(memcmp(&g, &h, sizeof g) == 0);
    cr_assert(a_len == b_len && memcmp(a, b, a_len) == 0);
    cr_assert(eq(u64, g.file[0].hash, XXH3_64bits(a, a_len)));
    free(a);
    free(b);
    table_free(&t);
}

Test(snapshot_bytes, typical_entry_takes_ten_bytes_at_most, .timeout = 180)
{
    struct scree__snapshot_encoder enc = {.raw = malloc(SCREE__SNAPSHOT_RAW_MAX), .floor_lsn = S};
    struct table t;

    table_typical(&t, 6000);
    for (size_t i = 0; i < t.n; i++)
        scree__snapshot_entry_put(&enc, &t.e[i]);
    cr_assert(le(sz, enc.len, t.n * 10), "%zu bytes", enc.len);
    free(enc.raw);
    table_free(&t);
}

Test(snapshot_bytes, pages_written_in_order_take_three_bytes, .timeout = 180)
{
    struct scree__snapshot_encoder enc = {.raw = malloc(SCREE__SNAPSHOT_RAW_MAX), .floor_lsn = S};

    for (uint64_t i = 0; i < 1000; i++) {
        struct scree__position p = {8 + i * 128, 128};
        struct scree__snapshot_entry e = {
            .id = i + 1, .version = p.lsn + 128, .positions = &p, .n = 1};

        scree__snapshot_entry_put(&enc, &e);
    }
    cr_assert(eq(sz, enc.len, 3000));
    free(enc.raw);
}

Test(snapshot_bytes, are_written_in_large_pieces, .timeout = 180)
{
    struct scree__generation g;
    struct fault f;
    struct table t;

    table_typical(&t, 300000);
    cr_assert(eq(int, table_write(fault_init(&f, 0, false), &t, no_state, &g), 0));
    cr_assert(ge(uint, f.writes, 2));
    cr_assert(le(uint, f.writes_small, 1)); /* the last */
    cr_assert(le(u64, f.writes, g.file[0].bytes / (256 * 1024) + 1));
    table_free(&t);
}

Test(snapshot_bytes, are_those_of_the_documented_example, .timeout = 60)
{
    struct scree__position one = {0x10000, 32}, two[2] = {{0x10020, 64}, {0x10100, 24}};
    struct scree__position three = {0x20040, 48};
    struct scree__snapshot_meta m = {
        .uuid = {0}, .number = 2, .replay_lsn = 0x20000, .generated_high = 64};
    struct scree__snapshot_writer *w;
    struct scree__generation g;
    unsigned char doc[1024], *data;
    size_t doc_len = fixture_example(0, doc, sizeof doc), len;
    struct table t;

    memcpy(m.uuid, uuid, 16);
    table_init(&t, 4, 8);
    table_add(&t, 1, 0, 1, &one);
    table_add(&t, 2, 0, 2, two);
    table_add(&t, 3, 0x20030, 1, &three);
    table_add(&t, 40, 0x20078, 0, NULL);
    cr_assert(eq(int, scree__snapshot_begin(scree_env_posix(), fixture_dir, &m, &w), 0));
    for (size_t i = 0; i < t.n; i++)
        cr_assert(eq(int, scree__snapshot_add(w, &t.e[i]), 0));
    cr_assert(eq(int, scree__snapshot_finish(w, (scree_slice){"abc", 3}, 0x21000, 41, &g), 0));
    data = fixture_read("snapshot-0000000000000002", &len);
    if (doc_len != len || memcmp(doc, data, len) != 0) {
        for (size_t i = 0; i < len; i++)
            fprintf(stderr, "%02x%s", data[i], i % 8 == 7 ? "\n" : " ");
        fprintf(stderr, "\nhash %016llx\n", (unsigned long long)g.file[0].hash);
    }
    cr_assert(eq(sz, doc_len, len));
    cr_assert(memcmp(doc, data, len) == 0);
    free(data);
    table_free(&t);
}

/* ---- what the writer refuses ---- */

static void
refuse(uint64_t id, uint64_t version, unsigned n, struct scree__position a,
       struct scree__position b)
{
    struct scree__position p[2] = {a, b}, ok = {8, 8};
    struct scree__snapshot_entry first = {.id = 4, .version = 16, .positions = &ok, .n = 1},
                                 e = {.id = id, .version = version, .positions = p, .n = n};
    struct scree__snapshot_writer *w;
    struct scree__generation g;

    cr_assert(eq(int, scree__snapshot_begin(scree_env_posix(), fixture_dir, &meta, &w), 0));
    cr_assert(eq(int, scree__snapshot_add(w, &first), 0));
    cr_assert(eq(int, scree__snapshot_add(w, &e), SCREE_E_INVALID));
    cr_assert(strstr(scree_error_detail(), FILE_NAME) != NULL);
    e = (struct scree__snapshot_entry){.id = 9, .version = 16, .positions = &ok, .n = 1};
    cr_assert(eq(int, scree__snapshot_add(w, &e), SCREE_E_INVALID)); /* it sticks */
    cr_assert(eq(int, scree__snapshot_finish(w, no_state, E, 0, &g), SCREE_E_INVALID));
    cr_assert(eq(u64, g.file[0].bytes, 0));
    cr_assert(eq(uint, fixture_count(), 0));
}

Test(snapshot_refusal, entries_that_cannot_be, .timeout = 60)
{
    struct scree__position a = {64, 16}, b = {80, 8};
    struct scree__position odd = {65, 16}, odd_len = {64, 15}, zero = {0, 8}, empty = {64, 0},
                           over = {72, 8}, wraps = {UINT64_MAX - 7, 8};

    refuse(0, 80, 1, a, b);
    refuse(4, 80, 1, a, b);
    refuse(3, 80, 1, a, b);
    refuse(5, 0, 1, a, b);
    refuse(5, 80, 1, odd, b);
    refuse(5, 80, 1, odd_len, b);
    refuse(5, 80, 1, zero, b);
    refuse(5, 80, 1, empty, b);
    refuse(5, 80, 1, wraps, b);
    refuse(5, 80, 2, a, over);
    refuse(5, 80, 2, b, a);
    refuse(5, S - 1, 0, a, b);
}

Test(snapshot_refusal, too_many_positions, .timeout = 60)
{
    unsigned n = SCREE__SNAPSHOT_POSITIONS_MAX + 1;
    struct scree__position *p = calloc(n, sizeof *p);
    struct scree__snapshot_entry e = {.id = 1, .version = 8, .positions = p, .n = n};

    for (unsigned i = 0; i < n; i++)
        p[i] = (struct scree__position){8 + i * 8, 8};
    cr_assert(scree__snapshot_entry_check(&e, &meta) != NULL);
    e.n = n - 1;
    cr_assert(scree__snapshot_entry_check(&e, &meta) == NULL);
    free(p);
}

static int
finish_with(uint64_t lsn, uint64_t version, uint64_t stable_lsn)
{
    struct scree__position p = {lsn, 8};
    struct scree__snapshot_entry e = {.id = 1, .version = version, .positions = &p, .n = 1};
    struct scree__snapshot_writer *w;
    struct scree__generation g;

    cr_assert(eq(int, scree__snapshot_begin(scree_env_posix(), fixture_dir, &meta, &w), 0));
    cr_assert(eq(int, scree__snapshot_add(w, &e), 0));
    return scree__snapshot_finish(w, no_state, stable_lsn, 0, &g);
}

Test(snapshot_refusal, what_the_log_does_not_hold_yet, .timeout = 60)
{
    cr_assert(eq(int, finish_with(S, S + 8, S + 7), SCREE_E_INVALID));
    cr_assert(eq(int, finish_with(8, S + 8, S + 7), SCREE_E_INVALID));
    cr_assert(eq(int, finish_with(8, 16, S - 1), SCREE_E_INVALID));
    cr_assert(eq(uint, fixture_count(), 0));
    cr_assert(eq(int, finish_with(S, S + 8, S + 8), 0));
}

Test(snapshot_refusal, abandoned_leaves_nothing, .timeout = 60)
{
    struct scree__snapshot_writer *w;

    cr_assert(eq(int, scree__snapshot_begin(scree_env_posix(), fixture_dir, &meta, &w), 0));
    cr_assert(fixture_has(FILE_NAME ".tmp"));
    scree__snapshot_abandon(w);
    cr_assert(eq(uint, fixture_count(), 0));
}

Test(snapshot_refusal, missing_directory, .timeout = 60)
{
    struct scree__snapshot_writer *w;

    cr_assert(
        eq(int, scree__snapshot_begin(scree_env_posix(), "/nonexistent", &meta, &w), -ENOENT));
    cr_assert(w == NULL);
}

Test(snapshot_refusal, what_the_visitor_returns_is_returned, .timeout = 60)
{
    struct scree__snapshot_loaded l;
    struct scree__generation g;
    struct table t;

    table_mixed(&t, 50000);
    cr_assert(eq(int, table_write(scree_env_posix(), &t, (scree_slice){"x", 1}, &g), 0));
    t.stop_at = 20000;
    for (unsigned threads = 1; threads < 4; threads++) {
        cr_assert(eq(int, table_load(scree_env_posix(), &t, &g, threads, &l), -4711));
        cr_assert(lt(sz, t.visits, t.n));
        cr_assert(l.state == NULL);
    }
    table_free(&t);
}

/* ---- damage: the manifest is right, the file is not ---- */

/* A small file with a bit of everything: one block of entries, and a state. */
static struct scree__generation
small_file(struct table *t, unsigned char **data_out, size_t *len_out)
{
    struct scree__generation g;

    table_mixed(t, 40);
    cr_assert(eq(int, table_write(scree_env_posix(), t, (scree_slice){"some state", 10}, &g), 0));
    *data_out = fixture_read(FILE_NAME, len_out);
    return g;
}

static int
load_any(struct table *t, const struct scree__generation *g)
{
    struct scree__snapshot_loaded l;
    int rc = table_load(scree_env_posix(), t, g, 1, &l);

    scree__free(l.state, l.state_len);
    return rc;
}

Test(snapshot_damage, every_flipped_bit_is_found_before_an_entry_is_visited, .timeout = 300)
{
    unsigned char *data;
    size_t len;
    struct table t;
    struct scree__generation g = small_file(&t, &data, &len);

    for (size_t i = 0; i < len * 8; i++) {
        data[i / 8] ^= (unsigned char)(1u << i % 8);
        fixture_write(FILE_NAME, data, len);
        cr_assert(eq(int, load_any(&t, &g), SCREE_E_CORRUPT), "bit %zu", i);
        cr_assert(eq(sz, t.visits, 0), "bit %zu", i);
        cr_assert(strstr(scree_error_detail(), FILE_NAME) != NULL);
        data[i / 8] ^= (unsigned char)(1u << i % 8);
    }
    fixture_write(FILE_NAME, data, len);
    cr_assert(eq(int, load_any(&t, &g), 0));
    free(data);
    table_free(&t);
}

Test(snapshot_damage, every_cut_and_a_byte_too_many_are_found, .timeout = 300)
{
    unsigned char *data;
    size_t len;
    struct table t;
    struct scree__generation g = small_file(&t, &data, &len), cut;

    data = realloc(data, len + 1);
    data[len] = 0;
    for (size_t n = 0; n <= len + 1; n++) {
        if (n == len)
            continue;
        fixture_write(FILE_NAME, data, n);
        cr_assert(eq(int, load_any(&t, &g), SCREE_E_CORRUPT), "%zu bytes", n);
        cut = g; /* and if the manifest said so too */
        cut.file[0].bytes = n;
        cut.file[0].hash = XXH3_64bits(data, n);
        cr_assert(eq(int, load_any(&t, &cut), SCREE_E_CORRUPT), "%zu bytes", n);
        cr_assert(eq(sz, t.visits, 0));
    }
    free(data);
    table_free(&t);
}

Test(snapshot_damage, another_generation_or_directory_is_refused, .timeout = 60)
{
    struct scree__snapshot_loaded l;
    unsigned char *data;
    size_t len;
    struct table t;
    struct scree__generation g = small_file(&t, &data, &len), other = g;
    uint8_t other_uuid[16] = {1};

    other.replay_lsn++;
    cr_assert(eq(int, load_any(&t, &other), SCREE_E_CORRUPT));
    other = g;
    other.file[0].hash++;
    cr_assert(eq(int, load_any(&t, &other), SCREE_E_CORRUPT));
    other = g;
    other.stable_lsn--;
    cr_assert(eq(int, load_any(&t, &other), SCREE_E_CORRUPT));
    other = g;
    other.stable_lsn++; /* the manifest may have learned since that more is stable */
    cr_assert(eq(int, load_any(&t, &other), 0));
    other = g;
    other.file[0].number = 8;
    cr_assert(eq(int, load_any(&t, &other), -ENOENT));
    fixture_write("snapshot-0000000000000008", data, len);
    cr_assert(eq(int, load_any(&t, &other), SCREE_E_CORRUPT));
    cr_assert(eq(int,
                 scree__snapshot_load(scree_env_posix(), fixture_dir, &g, other_uuid, 1,
                                      table_visit, &t, &l),
                 SCREE_E_CORRUPT));
    free(data);
    table_free(&t);
}

/* ---- hostile: every checksum is right, the contents are not ---- */

struct sane {
    uint64_t last_id, entries;
};

/* Whatever the bytes: what is handed out holds I1 to I4. */
static int
sane_visit(void *ctx, const struct scree__snapshot_entry *e)
{
    struct sane *s = ctx;

    s->entries++;
    cr_assert(scree__snapshot_entry_check(e, &meta) == NULL);
    cr_assert(gt(u64, e->id, s->last_id));
    cr_assert(le(u64, e->version, E));
    for (uint32_t i = 0; i < e->n; i++)
        cr_assert(e->positions[i].lsn + e->positions[i].disk_len <= E);
    s->last_id = e->id;
    return 0;
}

static int
load_sane(const unsigned char *data, size_t len, struct scree__generation g)
{
    unsigned char *copy = malloc(len);
    struct scree__snapshot_loaded l;
    struct sane s = {0};
    int rc;

    memcpy(copy, data, len);
    fixture_rehash(copy, len, &g.file[0]);
    fixture_write(FILE_NAME, copy, len);
    rc = scree__snapshot_load(scree_env_posix(), fixture_dir, &g, uuid, 1, sane_visit, &s, &l);
    cr_assert(rc != 0 || s.entries == l.entries);
    scree__free(l.state, l.state_len);
    free(copy);
    return rc;
}

Test(snapshot_hostile, every_changed_byte_gives_an_error_or_sane_entries, .timeout = 600)
{
    static const unsigned char by[] = {0x01, 0x80, 0xff, 0x07, 0x1f};
    unsigned char *data;
    size_t len;
    struct table t;
    struct scree__generation g = small_file(&t, &data, &len);
    unsigned accepted = 0;

    cr_assert(eq(int, load_sane(data, len, g), 0));
    for (size_t i = 0; i < len; i++) {
        for (size_t k = 0; k < sizeof by; k++) {
            int rc;

            data[i] ^= by[k];
            rc = load_sane(data, len, g);
            cr_assert(rc == 0 || rc == SCREE_E_CORRUPT || rc == SCREE_E_FORMAT, "byte %zu: %d", i,
                      rc);
            accepted += rc == 0;
            data[i] ^= by[k];
        }
    }
    cr_assert(gt(uint, accepted, 0)); /* or the checksums were not set right */
    free(data);
    table_free(&t);
}

Test(snapshot_hostile, random_blocks_give_an_error_or_sane_entries, .timeout = 600)
{
    struct scree__position *p = calloc(SCREE__SNAPSHOT_POSITIONS_MAX, sizeof *p);
    uint64_t seed = 4, entries = 0;

    for (unsigned round = 0; round < 200000; round++) {
        unsigned char raw[64];
        struct scree__snapshot_block b = {.raw_len = 1 + (uint32_t)(kit_random(&seed) % 64),
                                          .count = 1 + (uint32_t)(kit_random(&seed) % 20),
                                          .first_id = 1,
                                          .last_id = kit_random(&seed) >> kit_random(&seed) % 64};
        struct scree__snapshot_cursor c = {.positions = p};
        struct scree__snapshot_entry e;
        struct sane s = {0};

        for (unsigned i = 0; i < sizeof raw; i++)
            raw[i] = (unsigned char)(kit_random(&seed) & (kit_random(&seed) % 2 ? 0xff : 0x1b));
        scree__snapshot_cursor_init(&c, &b, raw, &meta, E);
        while (b.last_id > 0 && c.left > 0 && !scree__snapshot_entry_get(&c, &e))
            sane_visit(&s, &e);
        entries += s.entries;
    }
    cr_assert(gt(u64, entries, 10000)); /* or nothing was tried */
    free(p);
}

Test(snapshot_hostile, unknown_version_is_named, .timeout = 60)
{
    unsigned char *data;
    size_t len;
    struct table t;
    struct scree__generation g = small_file(&t, &data, &len);

    scree__le32_put(data + 8, 1234);
    cr_assert(eq(int, load_sane(data, len, g), SCREE_E_FORMAT));
    cr_assert(strstr(scree_error_detail(), FILE_NAME) && strstr(scree_error_detail(), "1234"));
    fixture_write(FILE_NAME, data, 16); /* nothing but the prefix is known of it */
    fixture_rehash(data, len, &g.file[0]);
    fixture_write(FILE_NAME, data, 16);
    cr_assert(eq(int, load_any(&t, &g), SCREE_E_FORMAT));
    free(data);
    table_free(&t);
}

Test(snapshot_hostile, unknown_type_is_named, .timeout = 60)
{
    unsigned char *data;
    size_t len;
    struct table t;
    struct scree__generation g = small_file(&t, &data, &len);

    scree__le64_put(data + 48, 6);
    cr_assert(eq(int, load_sane(data, len, g), SCREE_E_CORRUPT)); /* full, with a base */
    scree__le32_put(data + 56, SCREE__SNAPSHOT_DELTA);
    cr_assert(eq(int, load_sane(data, len, g), SCREE_E_CORRUPT)); /* a delta alone */
    scree__le32_put(data + 56, 77);
    cr_assert(eq(int, load_sane(data, len, g), SCREE_E_FORMAT));
    cr_assert(strstr(scree_error_detail(), "77") != NULL);
    free(data);
    table_free(&t);
}

Test(snapshot_hostile, huge_lengths_and_counts_are_refused, .timeout = 300)
{
    static const uint32_t huge[] = {UINT32_MAX, UINT32_MAX - 7, 1u << 31, 1u << 24, 1u << 20, 4096};
    unsigned char *data;
    size_t len;
    struct table t;
    struct scree__generation g = small_file(&t, &data, &len);

    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
        for (unsigned field = 4; field <= 12; field += 4) {
            unsigned char *at = data + SCREE__SNAPSHOT_HEADER_BYTES + field;
            uint32_t was = scree__le32_get(at);

            scree__le32_put(at, huge[i]);
            cr_assert(eq(int, load_sane(data, len, g), SCREE_E_CORRUPT), "field %u", field);
            scree__le32_put(at, was);
        }
        for (unsigned field = 4; field <= 24; field += field == 4 ? 4 : 8) { /* of the trailer */
            unsigned char *at = data + len - SCREE__SNAPSHOT_TRAILER_BYTES + field;
            uint32_t was = scree__le32_get(at);

            scree__le32_put(at, huge[i]);
            cr_assert(eq(int, load_sane(data, len, g), SCREE_E_CORRUPT), "field %u", field);
            scree__le32_put(at, was);
        }
    }
    free(data);
    table_free(&t);
}

Test(snapshot_hostile, blocks_in_another_order_are_refused, .timeout = 180)
{
    unsigned char *data, *swapped;
    size_t len, a, b, at = SCREE__SNAPSHOT_HEADER_BYTES;
    struct scree__generation g;
    struct table t;

    table_typical(&t, 20000);
    cr_assert(eq(int, table_write(scree_env_posix(), &t, no_state, &g), 0));
    data = fixture_read(FILE_NAME, &len);
    a = SCREE__SNAPSHOT_BLOCK_BYTES + scree__le32_get(data + at + 4);
    b = SCREE__SNAPSHOT_BLOCK_BYTES + scree__le32_get(data + at + a + 4);
    swapped = malloc(len);
    memcpy(swapped, data, len);
    memcpy(swapped + at, data + at + a, b);
    memcpy(swapped + at + b, data + at, a);
    cr_assert(eq(int, load_sane(data, len, g), 0));
    cr_assert(eq(int, load_sane(swapped, len, g), SCREE_E_CORRUPT));
    cr_assert(strstr(scree_error_detail(), "not above") != NULL, "%s", scree_error_detail());
    free(data);
    free(swapped);
    table_free(&t);
}

Test(snapshot_hostile, entries_behind_the_state_are_refused, .timeout = 60)
{
    size_t len, a, b, at = SCREE__SNAPSHOT_HEADER_BYTES;
    unsigned char *data, *swapped;
    struct table t;
    struct scree__generation g = small_file(&t, &data, &len);

    a = SCREE__SNAPSHOT_BLOCK_BYTES + scree__le32_get(data + at + 4);
    b = SCREE__SNAPSHOT_BLOCK_BYTES + scree__le32_get(data + at + a + 4);
    swapped = malloc(len);
    memcpy(swapped, data, len);
    memcpy(swapped + at, data + at + a, b);
    memcpy(swapped + at + b, data + at, a);
    cr_assert(eq(int, load_sane(swapped, len, g), SCREE_E_CORRUPT));
    cr_assert(strstr(scree_error_detail(), "behind the state") != NULL);
    scree__le64_put(data + len - SCREE__SNAPSHOT_TRAILER_BYTES + 40, S - 8);
    cr_assert(eq(int, load_sane(data, len, g), SCREE_E_CORRUPT));
    cr_assert(strstr(scree_error_detail(), "stable lsn") != NULL);
    free(data);
    free(swapped);
    table_free(&t);
}

/* NULL, or what is wrong with a block whose header says so. */
static const char *
block_problem(struct scree__snapshot_block b)
{
    unsigned char p[SCREE__SNAPSHOT_BLOCK_BYTES];
    struct scree__snapshot_block got;

    scree__snapshot_block_put(p, &b);
    return scree__snapshot_block_get(p, &got);
}

Test(snapshot_hostile, block_headers_that_cannot_be_are_refused, .timeout = 60)
{
    const struct scree__snapshot_block entries = {.kind = SCREE__SNAPSHOT_BLOCK_ENTRIES,
                                                  .packing = SCREE__SNAPSHOT_ZSTD,
                                                  .raw_len = 6400,
                                                  .stored_len = 100,
                                                  .count = 10,
                                                  .first_id = 5,
                                                  .last_id = 14};
    struct scree__snapshot_block b = entries;

    cr_assert(block_problem(b) == NULL);
    b.last_id = 13; /* ten ids from 5 on */
    cr_assert(block_problem(b) != NULL);
    b = entries;
    b.stored_len = 0;
    cr_assert(block_problem(b) != NULL);
    b.stored_len = b.raw_len;
    cr_assert(block_problem(b) != NULL);
    b = (struct scree__snapshot_block){.kind = SCREE__SNAPSHOT_BLOCK_STATE,
                                       .packing = SCREE__SNAPSHOT_ZSTD,
                                       .raw_len = 6400,
                                       .stored_len = 101};
    cr_assert(block_problem(b) == NULL);
    b.stored_len = 100; /* what it makes a reader allocate is bounded by the file */
    cr_assert(strstr(block_problem(b), "compressed beyond") != NULL);
}

Test(snapshot_hostile, a_delta_adds_to_something_older, .timeout = 60)
{
    unsigned char p[SCREE__SNAPSHOT_HEADER_BYTES] = {0};
    struct scree__snapshot_meta m = meta, got;
    uint32_t type;

    m.since_lsn = S;
    scree__snapshot_header_put(p, &m);
    cr_assert(scree__snapshot_header_get(p, &got, &type) == NULL);
    scree__le64_put(p + 48, 0);
    scree__le64_put(p + 64, XXH3_64bits(p, 64));
    cr_assert(strstr(scree__snapshot_header_get(p, &got, &type), "adds to nothing") != NULL);
    scree__le64_put(p + 48, S + 1);
    scree__le64_put(p + 64, XXH3_64bits(p, 64));
    cr_assert(scree__snapshot_header_get(p, &got, &type) != NULL);
}

/* A block whose frame is longer than announced, or does not say how long it is. */
Test(snapshot_hostile, only_frames_of_the_announced_length_are_unpacked, .timeout = 60)
{
    unsigned char raw[4096] = {0}, dst[8192], out[4096 + 64];
    ZSTD_CCtx *cctx = ZSTD_createCCtx();
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    struct scree__snapshot_block b = {.kind = SCREE__SNAPSHOT_BLOCK_ENTRIES,
                                      .raw_len = 4096,
                                      .count = 1,
                                      .first_id = 1,
                                      .last_id = 1};
    struct scree__snapshot_block good;

    scree__snapshot_block_pack(cctx, &b, raw, dst, sizeof dst);
    cr_assert(eq(int, b.packing, SCREE__SNAPSHOT_ZSTD));
    good = b;
    memset(out, 0xaa, sizeof out);
    b.hash ^= 1;
    cr_assert(scree__snapshot_block_unpack(dctx, &b, dst + 40, out) != NULL);
    cr_assert(scree__snapshot_block_unpack(dctx, &good, dst + 40, out) == NULL);
    cr_assert(memcmp(out, raw, 4096) == 0 && out[4096] == 0xaa);
    for (int diff = -1; diff <= 1; diff += 2) {
        b = good;
        b.raw_len = (uint32_t)(4096 + diff);
        scree__snapshot_block_put(dst, &b);
        b.hash = XXH3_64bits_withSeed(dst + 40, b.stored_len, XXH3_64bits(dst, 32));
        cr_assert(scree__snapshot_block_unpack(dctx, &b, dst + 40, out) != NULL);
    }
    ZSTD_CCtx_setParameter(cctx, ZSTD_c_contentSizeFlag, 0);
    b = good;
    b.stored_len = (uint32_t)ZSTD_compress2(cctx, dst + 40, sizeof dst - 40, raw, 4096);
    scree__snapshot_block_put(dst, &b);
    b.hash = XXH3_64bits_withSeed(dst + 40, b.stored_len, XXH3_64bits(dst, 32));
    cr_assert(scree__snapshot_block_unpack(dctx, &b, dst + 40, out) != NULL);
    ZSTD_freeCCtx(cctx);
    ZSTD_freeDCtx(dctx);
}

/* ---- failures ---- */

Test(snapshot_fault, writing_fails_clean_at_every_call, .timeout = 600)
{
    struct scree__generation g;
    struct table t;
    unsigned n;
    int rc = -1;

    table_typical(&t, 200000); /* several writes */
    fixture_write("snapshot-0000000000000006", "the one before", 14);
    for (n = 1; rc != 0; n++) {
        struct fault f;

        rc = table_write(fault_init(&f, n, false), &t, no_state, &g);
        if (f.calls < n)
            break; /* got through untouched */
        cr_assert(eq(int, rc, -EIO), "call %u", n);
        cr_assert(eq(uint, fixture_count(), 1), "call %u", n);
        cr_assert(fixture_has("snapshot-0000000000000006"));
        cr_assert(eq(u64, g.file[0].bytes, 0));
    }
    cr_assert(eq(int, rc, 0));
    cr_assert(gt(uint, n, 6)); /* open, 2 writes, sync, close, rename, sync_dir */
    cr_assert(eq(uint, fixture_count(), 2));
    table_free(&t);
}

Test(snapshot_fault, dying_at_any_call_leaves_whole_files_or_tmp, .timeout = 600)
{
    struct scree__generation g, done;
    struct table t;
    unsigned n;
    int rc = -1;

    table_typical(&t, 200000);
    cr_assert(eq(int, table_write(scree_env_posix(), &t, no_state, &done), 0));
    for (n = 1; rc != 0; n++) {
        struct fault f;

        unlink(fixture_path(FILE_NAME));
        rc = table_write(fault_init(&f, n, true), &t, no_state, &g);
        if (fixture_has(FILE_NAME))
            cr_assert(eq(int, load_any(&t, &done), 0), "call %u", n);
        /* what was left is overwritten */
        cr_assert(eq(int, table_write(scree_env_posix(), &t, no_state, &g), 0));
        cr_assert(eq(uint, fixture_count(), 1));
        cr_assert(eq(int, load_any(&t, &g), 0));
    }
    cr_assert(gt(uint, n, 6));
    table_free(&t);
}

Test(snapshot_fault, reading_fails_with_the_error_at_every_call, .timeout = 300)
{
    struct scree__snapshot_loaded l;
    struct scree__generation g;
    struct table t;
    unsigned n;
    int rc = -1;

    table_typical(&t, 20000);
    cr_assert(eq(int, table_write(scree_env_posix(), &t, (scree_slice){"x", 1}, &g), 0));
    for (n = 1; rc != 0; n++) {
        struct fault f;

        rc = table_load(fault_init(&f, n, false), &t, &g, 3, &l);
        cr_assert(rc == 0 || (rc == -EIO && strstr(scree_error_detail(), FILE_NAME)), "call %u", n);
        scree__free(l.state, l.state_len);
    }
    cr_assert(gt(uint, n, 5));
    table_free(&t);
}

#ifdef SCREE_ALLOC_FAULTS
Test(snapshot_fault, every_allocation_may_fail, .timeout = 300)
{
    struct scree__snapshot_loaded l;
    struct scree__generation g;
    struct table t;
    unsigned n;
    int rc = -1;

    table_mixed(&t, 20000);
    for (n = 1; rc != 0; n++) {
        scree__alloc_fault(n, 1);
        rc = table_write(scree_env_posix(), &t, (scree_slice){"x", 1}, &g);
        scree__alloc_fault(0, 0);
        cr_assert(rc == 0 || (rc == SCREE_E_NO_MEMORY && fixture_count() == 0), "allocation %u", n);
    }
    cr_assert(gt(uint, n, 6));
    for (rc = -1, n = 1; rc != 0; n++) {
        scree__alloc_fault(n, 1);
        rc = table_load(scree_env_posix(), &t, &g, 3, &l);
        scree__alloc_fault(0, 0);
        cr_assert(rc == 0 || rc == SCREE_E_NO_MEMORY, "allocation %u", n);
        scree__free(l.state, l.state_len);
    }
    cr_assert(gt(uint, n, 6));
    table_free(&t);
}
#endif
