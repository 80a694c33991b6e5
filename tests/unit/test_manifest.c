/*
 * test_manifest.c - manifests: the newest valid one is found, damage falls back, strangers' files
 * are left alone, and whatever fails or dies in between, a published generation stays loadable.
 */
#include "snapshot_fixture.h"

#define SEGMENT_BYTES (UINT64_C(1) << 20)

#define SUITE(name) TestSuite(name, .init = fixture_make, .fini = fixture_remove)
SUITE(manifest_roundtrip);
SUITE(manifest_bytes);
SUITE(manifest_damage);
SUITE(manifest_clean);
SUITE(manifest_fault);

static struct scree__generation
generation_of(uint64_t number)
{
    uint64_t lsn = 0x10000 * number % SCREE__LSN_MAX;

    return (struct scree__generation){.replay_lsn = lsn,
                                      .stable_lsn = lsn + 64,
                                      .files = 1,
                                      .file = {{.number = number,
                                                .bytes = 1000 + number,
                                                .hash = UINT64_C(0xfedcba9876543210) + number}}};
}

/* A base and its delta. */
static struct scree__generation
generation_of_two(uint64_t base, uint64_t delta)
{
    struct scree__generation g = generation_of(delta);

    g.files = 2;
    g.file[1] = g.file[0];
    g.file[0] = generation_of(base).file[0];
    return g;
}

/* Number n, naming snapshots n and n - 1. */
static struct scree__manifest
manifest_of(uint64_t n, uint32_t generations)
{
    struct scree__manifest m = {.number = n,
                                .uuid = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                .segment_bytes = SEGMENT_BYTES,
                                .materializer = "log of words",
                                .materializer_version = 3,
                                .generations = generations};

    for (uint32_t i = 0; i < generations; i++)
        m.generation[i] = generation_of(n - i);
    return m;
}

static int
store(struct scree__manifest m)
{
    return scree__manifest_store(scree_env_posix(), fixture_dir, &m);
}

static int
load(struct scree__manifest *m_out, uint32_t *skipped_out)
{
    return scree__manifest_load(scree_env_posix(), fixture_dir, m_out, skipped_out);
}

static void
roundtrip(struct scree__manifest m)
{
    struct scree__manifest got;
    uint32_t skipped = 99;

    cr_assert(eq(int, store(m), 0));
    cr_assert(eq(int, load(&got, &skipped), 0), "%s", scree_error_detail());
    cr_assert(memcmp(&got, &m, sizeof m) == 0);
    cr_assert(eq(u32, skipped, 0));
}

Test(manifest_roundtrip, none_one_and_two_generations, .timeout = 60)
{
    roundtrip(manifest_of(1, 0));
    roundtrip(manifest_of(2, 1));
    roundtrip(manifest_of(3, 2));
    roundtrip(manifest_of(3, 1)); /* the same number again: a store that failed is repeated */
    roundtrip(manifest_of(UINT64_MAX, 2));
}

Test(manifest_roundtrip, generations_of_many_files_shared_or_not, .timeout = 60)
{
    struct scree__manifest m = manifest_of(200, 2);

    for (uint32_t files = 1; files <= SCREE__GENERATION_FILES_MAX; files += files < 4 ? 1 : 30) {
        for (uint32_t i = 0; i < 2; i++) {
            m.generation[i] = generation_of(200 - i);
            m.generation[i].files = files;
            for (uint32_t k = 0; k < files; k++)
                m.generation[i].file[k] = generation_of(200 - i - (files - 1) + k).file[0];
        }
        roundtrip(m);
        cr_assert(eq(u64, scree__generation_bytes(&m.generation[0]),
                     scree__generations_bytes(m.generation, 1)));
        cr_assert(eq(u64, scree__generations_bytes(m.generation, 2),
                     scree__generation_bytes(&m.generation[0]) + m.generation[1].file[0].bytes));
    }
    m.generation[1] = m.generation[0] =
        generation_of_two(198, 200); /* what is shared counts once */
    m.generation[1].files = 1;
    cr_assert(eq(u64, scree__generations_bytes(m.generation, 2),
                 scree__generation_bytes(&m.generation[0])));
}

Test(manifest_roundtrip, merged_file_before_deltas_that_it_is_newer_than, .timeout = 60)
{
    struct scree__manifest m = manifest_of(200, 1);

    m.generation[0] = generation_of_two(190, 199);
    m.generation[0].file[2] = generation_of(195).file[0];
    m.generation[0].files = 3;
    roundtrip(m);
    cr_assert(eq(u64, scree__generation_number_max(&m.generation[0]), 199));
}

Test(manifest_roundtrip, names_of_every_length, .timeout = 60)
{
    struct scree__manifest m = manifest_of(1, 2);

    memset(m.materializer, 0, sizeof m.materializer);
    roundtrip(m);
    memset(m.materializer, 'x', sizeof m.materializer - 1);
    roundtrip(m);
}

Test(manifest_roundtrip, nothing_there_is_enoent, .timeout = 60)
{
    struct scree__manifest m;
    uint32_t skipped;

    cr_assert(eq(int, load(&m, &skipped), -ENOENT));
    fixture_write("manifest-0000000000000001.tmp", "", 0);
    fixture_write("manifest-000000000000001", "", 0);
    fixture_write("manifest-0000000000000001x", "", 0);
    cr_assert(eq(int, load(&m, &skipped), -ENOENT));
    cr_assert(eq(int, scree__manifest_load(scree_env_posix(), "/nonexistent", &m, NULL), -ENOENT));
}

Test(manifest_roundtrip, what_cannot_be_is_not_stored, .timeout = 60)
{
    struct scree__manifest m = manifest_of(5, 2);

    m.number = 0;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    m.segment_bytes = 0;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    m.segment_bytes = ((uint64_t)1 << 40) + SCREE_BLOCK;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m.segment_bytes = SEGMENT_BYTES + 8;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    memset(m.materializer, 'x', sizeof m.materializer);
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    m.generations = 3;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    m.generation[1].file[0].number = 5;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    m.generation[1].replay_lsn = m.generation[1].stable_lsn = m.generation[0].replay_lsn + 8;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    m.generation[0].stable_lsn = m.generation[0].replay_lsn - 1;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    m.generation[0].stable_lsn = SCREE__LSN_MAX + 8;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    m.generation[0].file[0].bytes = 100;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 2);
    m.generation[0].files = 0;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m.generation[0].files = SCREE__GENERATION_FILES_MAX + 1;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m = manifest_of(5, 1);
    m.generation[0] = generation_of_two(5, 5);
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m.generation[0] = generation_of_two(6, 5);
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m.generation[0] = generation_of_two(3, 4);
    m.generation[0].file[2] = m.generation[0].file[1];
    m.generation[0].files = 3;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    m.generation[0] = generation_of_two(4, 5);
    m.generation[0].file[1].bytes = 100;
    cr_assert(eq(int, store(m), SCREE_E_INVALID));
    cr_assert(eq(uint, fixture_count(), 0));
}

Test(manifest_bytes, are_those_of_the_documented_example, .timeout = 60)
{
    unsigned char doc[1024], *data;
    size_t doc_len = fixture_example(2, doc, sizeof doc), len;
    struct scree__manifest m = manifest_of(2, 1);

    m.generation[0] = generation_of_two(2, 3);
    cr_assert(eq(int, store(m), 0));
    data = fixture_read("manifest-0000000000000002", &len);
    if (doc_len != len || memcmp(doc, data, len) != 0) {
        for (size_t i = 0; i < len; i++)
            fprintf(stderr, "%02x%s", data[i], i % 8 == 7 ? "\n" : " ");
    }
    cr_assert(eq(sz, doc_len, len));
    cr_assert(memcmp(doc, data, len) == 0);
    free(data);
}

Test(manifest_bytes, names_are_ours_to_the_byte, .timeout = 60)
{
    static const char *const strangers[] = {"",
                                            "snapshot-",
                                            "snapshot",
                                            "snapshot-000000000000000",
                                            "snapshot-00000000000000000",
                                            "snapshot-000000000000000A",
                                            "snapshot-000000000000000g",
                                            "snapshot-0000000000000001 ",
                                            "snapshot-0000000000000001.tm",
                                            "snapshot-0000000000000001.tmp~",
                                            "xsnapshot-000000000000001",
                                            "Snapshot-0000000000000001",
                                            "snapshot_0000000000000001",
                                            "manifest-0000000000000001.TMP",
                                            "mapshot-00000000000000001",
                                            "segment-00000000000000001",
                                            "manifest-0x00000000000001"};
    enum scree__file_kind file;
    uint64_t number;
    bool tmp;

    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++)
        cr_assert(scree__snapshot_name_parse(strangers[i], &file, &number, &tmp) == false, "%s",
                  strangers[i]);
    cr_assert(scree__snapshot_name_parse("snapshot-fedcba9876543210", &file, &number, &tmp));
    cr_assert(file == SCREE__SNAPSHOT_FILE && number == UINT64_C(0xfedcba9876543210) && !tmp);
    cr_assert(scree__snapshot_name_parse("manifest-0000000000000010.tmp", &file, &number, &tmp));
    cr_assert(file == SCREE__MANIFEST_FILE && number == 16 && tmp);
}

/* ---- damage ---- */

#define NEWEST "manifest-0000000000000003"

/* Whatever `data` is, the manifest before it is found. */
static void
falls_back(const unsigned char *data, size_t len, const char *what, size_t where)
{
    struct scree__manifest m;
    uint32_t skipped;

    fixture_write(NEWEST, data, len);
    cr_assert(eq(int, load(&m, &skipped), 0), "%s %zu", what, where);
    cr_assert(eq(u64, m.number, 2), "%s %zu", what, where);
    cr_assert(eq(u32, skipped, 1), "%s %zu", what, where);
}

/* Manifests 2 and 3; 3 has generations of one and of two files. */
static void
two_manifests(void)
{
    struct scree__manifest m = manifest_of(3, 2);

    cr_assert(eq(int, store(manifest_of(2, 2)), 0));
    m.generation[0] = generation_of_two(2, 3);
    cr_assert(eq(int, store(m), 0));
}

Test(manifest_damage, every_flipped_bit_and_every_cut_falls_back, .timeout = 300)
{
    unsigned char *data;
    size_t len;

    two_manifests();
    data = fixture_read(NEWEST, &len);
    for (size_t i = 0; i < len * 8; i++) {
        data[i / 8] ^= (unsigned char)(1u << i % 8);
        falls_back(data, len, "bit", i);
        data[i / 8] ^= (unsigned char)(1u << i % 8);
    }
    for (size_t i = 0; i < len; i++)
        falls_back(data, i, "cut", i);
    data = realloc(data, 5000);
    memset(data + len, 0, 5000 - len);
    falls_back(data, len + 1, "longer", len + 1);
    falls_back(data, 5000, "longer", 5000);
    free(data);
}

static void
rehash(unsigned char *data, size_t len)
{
    scree__le32_put(data + 12, (uint32_t)XXH3_64bits(data, 12));
    scree__le64_put(data + len - 8, XXH3_64bits(data, len - 8));
}

Test(manifest_damage, hostile_bytes_with_right_checksums_are_valid_or_passed_over, .timeout = 300)
{
    struct scree__manifest m;
    unsigned char *data;
    uint32_t skipped;
    size_t len;

    two_manifests();
    data = fixture_read(NEWEST, &len);
    for (size_t i = 16; i < len - 8; i++) {
        for (unsigned by = 1; by < 256; by = by * 2 + 1) {
            data[i] ^= (unsigned char)by;
            rehash(data, len);
            fixture_write(NEWEST, data, len);
            cr_assert(eq(int, load(&m, &skipped), 0));
            cr_assert(m.segment_bytes >= 65536 && m.segment_bytes % 4096 == 0);
            cr_assert(m.generations <= 2 && memchr(m.materializer, 0, 256));
            for (uint32_t g = 0; g < m.generations; g++)
                cr_assert(m.generation[g].files >= 1 && m.generation[g].files <= 64);
            cr_assert(m.number == 3 - skipped);
            data[i] ^= (unsigned char)by;
        }
    }
    free(data);
}

Test(manifest_damage, unknown_version_is_never_passed_over, .timeout = 60)
{
    struct scree__manifest m;
    unsigned char *data;
    uint32_t skipped;
    size_t len;

    cr_assert(eq(int, store(manifest_of(2, 2)), 0));
    cr_assert(eq(int, store(manifest_of(3, 2)), 0));
    data = fixture_read(NEWEST, &len);
    scree__le32_put(data + 8, 4321);
    rehash(data, len);
    fixture_write(NEWEST, data, 16); /* nothing but the prefix is known of it */
    cr_assert(eq(int, load(&m, &skipped), SCREE_E_FORMAT));
    cr_assert(strstr(scree_error_detail(), NEWEST) && strstr(scree_error_detail(), "4321"));
    fixture_write("manifest-0000000000000004", data, 10); /* nor from a damaged one to it */
    cr_assert(eq(int, load(&m, &skipped), SCREE_E_FORMAT));
    cr_assert(eq(u32, skipped, 1));
    free(data);
}

Test(manifest_damage, none_valid_is_corrupt, .timeout = 60)
{
    struct scree__manifest m;
    uint32_t skipped;

    for (unsigned i = 1; i <= 20; i++) {
        char name[SCREE__SNAPSHOT_NAME_BYTES];

        scree__snapshot_name(name, SCREE__MANIFEST_FILE, i, false);
        fixture_write(name, "SCREEMAN", i % 9);
    }
    cr_assert(eq(int, load(&m, &skipped), SCREE_E_CORRUPT));
    cr_assert(eq(u32, skipped, 8));
}

Test(manifest_damage, dangling_link_is_not_an_empty_directory, .timeout = 60)
{
    struct scree__manifest m;
    uint32_t skipped;

    cr_assert(symlink("/nonexistent", fixture_path(NEWEST)) == 0);
    cr_assert(eq(int, load(&m, &skipped), SCREE_E_CORRUPT));
}

Test(manifest_damage, renamed_manifest_is_passed_over, .timeout = 60)
{
    unsigned char *data;
    size_t len;

    cr_assert(eq(int, store(manifest_of(2, 2)), 0));
    data = fixture_read("manifest-0000000000000002", &len);
    falls_back(data, len, "renamed", 0);
    free(data);
}

/* ---- cleaning ---- */

static void
touch_snapshot(uint64_t number, bool tmp)
{
    char name[SCREE__SNAPSHOT_NAME_BYTES];

    scree__snapshot_name(name, SCREE__SNAPSHOT_FILE, number, tmp);
    fixture_write(name, "x", 1);
}

Test(manifest_clean, keeps_two_manifests_and_what_they_name, .timeout = 60)
{
    for (uint64_t n = 1; n <= 10; n++) {
        touch_snapshot(n, false);
        cr_assert(eq(int, store(manifest_of(n, n < 2 ? 1 : 2)), 0));
    }
    cr_assert(fixture_has("manifest-000000000000000a"));
    cr_assert(fixture_has("manifest-0000000000000009"));
    cr_assert(fixture_has("snapshot-000000000000000a"));
    cr_assert(fixture_has("snapshot-0000000000000009"));
    cr_assert(fixture_has("snapshot-0000000000000008")); /* the predecessor names it */
    cr_assert(eq(uint, fixture_count(), 5));
}

Test(manifest_clean, what_is_in_the_making_is_kept_and_old_rubbish_is_not, .timeout = 60)
{
    cr_assert(eq(int, store(manifest_of(4, 2)), 0));
    touch_snapshot(6, false);
    touch_snapshot(6, true);
    touch_snapshot(5, true);
    touch_snapshot(4, true);
    touch_snapshot(1, false);
    fixture_write("manifest-0000000000000004.tmp", "", 0);
    cr_assert(eq(int, store(manifest_of(5, 2)), 0));
    cr_assert(fixture_has("snapshot-0000000000000006"));
    cr_assert(fixture_has("snapshot-0000000000000006.tmp"));
    cr_assert(fixture_has("snapshot-0000000000000005.tmp"));
    cr_assert(eq(uint, fixture_count(), 5)); /* and two manifests */
}

Test(manifest_clean, all_files_of_a_generation_are_kept_and_what_is_pinned, .timeout = 60)
{
    struct scree__manifest m = manifest_of(9, 1);

    for (uint64_t n = 1; n <= 9; n++)
        touch_snapshot(n, false);
    touch_snapshot(5, true);
    m.generation[0] = generation_of_two(3, 9);
    cr_assert(eq(int, scree__manifest_store_keeping(scree_env_posix(), fixture_dir, &m, 4), 0));
    cr_assert(fixture_lacks("snapshot-0000000000000002"));
    cr_assert(fixture_has("snapshot-0000000000000003"));
    cr_assert(fixture_has("snapshot-0000000000000004"));
    cr_assert(fixture_has("snapshot-0000000000000005.tmp"));
    cr_assert(eq(uint, fixture_count(), 9)); /* seven snapshots, the tmp, the manifest */
    cr_assert(eq(int, store(m), 0));
    cr_assert(eq(uint, fixture_count(), 3));
}

Test(manifest_clean, strangers_are_never_touched, .timeout = 60)
{
    static const char *const strangers[] = {"notes.txt",
                                            "snapshot-0000000000000001.bak",
                                            "snapshot-1",
                                            "snapshot-000000000000000A",
                                            "manifest-0000000000000001~",
                                            "manifest-1",
                                            "snapshot-0000000000000001.tmp.tmp",
                                            "Snapshot-0000000000000001",
                                            "manifest",
                                            "snapshot-00000000000000001",
                                            ".snapshot"};
    size_t n = sizeof strangers / sizeof strangers[0];

    for (size_t i = 0; i < n; i++)
        fixture_write(strangers[i], "mine", 4);
    cr_assert(mkdir(fixture_path("snapshot-0000000000000001"), 0777) == 0);
    touch_snapshot(2, false);
    for (uint64_t k = 5; k < 10; k++)
        cr_assert(eq(int, store(manifest_of(k, 2)), 0));
    for (size_t i = 0; i < n; i++)
        cr_assert(fixture_has(strangers[i]), "%s", strangers[i]);
    cr_assert(fixture_has("snapshot-0000000000000001")); /* a directory is none of ours */
    cr_assert(fixture_lacks("snapshot-0000000000000002"));
}

Test(manifest_clean, what_a_damaged_predecessor_leaves_behind_goes_on_protecting, .timeout = 60)
{
    for (uint64_t n = 2; n <= 3; n++) {
        touch_snapshot(n, false);
        cr_assert(eq(int, store(manifest_of(n, 2)), 0));
    }
    fixture_write(NEWEST, "x", 1);
    touch_snapshot(4, false);
    cr_assert(eq(int, store(manifest_of(4, 1)), 0));
    cr_assert(fixture_has("manifest-0000000000000002")); /* the newest valid one before it */
    cr_assert(fixture_has("snapshot-0000000000000002"));
    cr_assert(fixture_lacks("snapshot-0000000000000003")); /* only the damaged one named it */
    touch_snapshot(5, false);
    cr_assert(eq(int, store(manifest_of(5, 1)), 0));
    cr_assert(fixture_lacks(NEWEST));
    cr_assert(fixture_lacks("manifest-0000000000000002"));
    cr_assert(eq(uint, fixture_count(), 4));
}

/* No manifest before it verifies: what they named is not known, and nobody can come back to it. */
Test(manifest_clean, what_only_damaged_manifests_named_goes, .timeout = 60)
{
    for (uint64_t n = 1; n <= 6; n++)
        touch_snapshot(n, false);
    fixture_write("manifest-0000000000000003", "SCREEMAN", 8);
    fixture_write("manifest-0000000000000004", "SCREEMAN", 8);
    cr_assert(eq(int, store(manifest_of(5, 2)), 0));
    cr_assert(fixture_lacks("manifest-0000000000000003"));
    cr_assert(fixture_has("snapshot-0000000000000005") && fixture_has("snapshot-0000000000000004"));
    cr_assert(fixture_lacks("snapshot-0000000000000003"));
    cr_assert(fixture_has("snapshot-0000000000000006")); /* in the making */
}

Test(manifest_clean, nothing_goes_when_the_predecessor_is_of_a_newer_library, .timeout = 60)
{
    unsigned char *data;
    size_t len;

    cr_assert(eq(int, store(manifest_of(2, 2)), 0));
    cr_assert(eq(int, store(manifest_of(3, 2)), 0));
    data = fixture_read(NEWEST, &len);
    scree__le32_put(data + 8, 2);
    rehash(data, len);
    fixture_write(NEWEST, data, len);
    touch_snapshot(1, false);
    cr_assert(eq(int, store(manifest_of(4, 2)), 0));
    cr_assert(fixture_has("snapshot-0000000000000001"));
    cr_assert(fixture_has("manifest-0000000000000002"));
    free(data);
}

/* ---- failures: a generation is written and published, again and again ---- */

static int
count_visit(void *ctx, const struct scree__snapshot_entry *e)
{
    uint64_t *sum = ctx;

    *sum += e->version;
    return 0;
}

/* Snapshot n holds one page of version 1000 * n. */
static int
publish(const scree_env *env, uint64_t n, const struct scree__manifest *before)
{
    struct scree__manifest m = *before;
    struct scree__position p = {8, 8};
    struct scree__snapshot_entry e = {.id = 1, .version = 1000 * n, .positions = &p, .n = 1};
    struct scree__snapshot_meta meta = {.number = n, .replay_lsn = 8};
    struct scree__snapshot_writer *w;
    int rc;

    memcpy(meta.uuid, before->uuid, 16);
    rc = scree__snapshot_begin(env, fixture_dir, &meta, &w);
    if (rc != 0)
        return rc;
    cr_assert(eq(int, scree__snapshot_add(w, &e), 0));
    m.generation[1] = m.generation[0];
    m.generations = before->generations < 2 ? before->generations + 1 : 2;
    rc = scree__snapshot_finish(w, (scree_slice){NULL, 0}, 1000 * n, 2, &m.generation[0]);
    if (rc != 0)
        return rc;
    m.number = n;
    return scree__manifest_store(env, fixture_dir, &m);
}

/* The number of the newest manifest, all of whose generations can be loaded. */
static uint64_t
recover(struct scree__manifest *m_out)
{
    uint32_t skipped;

    cr_assert(eq(int, load(m_out, &skipped), 0), "%s", scree_error_detail());
    cr_assert(eq(u32, skipped, 0)); /* a crash never damages a manifest */
    for (uint32_t i = 0; i < m_out->generations; i++) {
        struct scree__snapshot_loaded l;
        uint64_t sum = 0;

        cr_assert(eq(int,
                     scree__snapshot_load(scree_env_posix(), fixture_dir, &m_out->generation[i],
                                          m_out->uuid, 1, count_visit, &sum, &l),
                     0),
                  "%s", scree_error_detail());
        cr_assert(eq(u64, sum, 1000 * m_out->generation[i].file[0].number));
    }
    return m_out->number;
}

static unsigned
count_tmp(void)
{
    DIR *d = opendir(fixture_dir);
    struct dirent *e;
    unsigned n = 0;

    while ((e = readdir(d)))
        n += strstr(e->d_name, ".tmp") != NULL;
    closedir(d);
    return n;
}

static void
publish_failing(bool for_ever)
{
    struct scree__manifest m = manifest_of(1, 0);
    unsigned n, failed = 0;
    int rc;

    cr_assert(eq(int, store(m), 0));
    for (uint64_t k = 2; k < 5; k++) {
        cr_assert(eq(int, publish(scree_env_posix(), k, &m), 0));
        cr_assert(eq(u64, recover(&m), k));
    }
    for (n = 1;; n++) {
        struct fault f;
        uint64_t was = m.number, now;

        rc = publish(fault_init(&f, n, for_ever), was + 1, &m);
        now = recover(&m);
        cr_assert(now == was + 1 || (rc != 0 && now == was), "call %u", n);
        cr_assert(rc == 0 || rc == -EIO, "call %u", n);
        cr_assert(for_ever || count_tmp() == 0, "call %u", n);
        failed += rc != 0;
        if (f.calls < n)
            break;
        /* Whatever was left behind, it goes on, and is gone two generations later. */
        for (unsigned k = 1; k <= 2; k++) {
            cr_assert(eq(int, publish(scree_env_posix(), m.number + 1, &m), 0));
            recover(&m);
        }
        cr_assert(eq(uint, fixture_count(), 5), "call %u", n);
    }
    cr_assert(gt(uint, failed, 11)); /* six for each file, and sync_dir */
    cr_assert(gt(uint, n, 15));
}

Test(manifest_fault, failing_at_every_call_keeps_the_published_generations, .timeout = 300)
{
    publish_failing(false);
}

Test(manifest_fault, dying_at_every_call_keeps_the_published_generations, .timeout = 300)
{
    publish_failing(true);
}

Test(manifest_fault, an_unreadable_manifest_is_an_error_not_a_step_back, .timeout = 60)
{
    struct scree__manifest m;
    uint32_t skipped;
    unsigned n;
    int rc = -1;

    cr_assert(eq(int, store(manifest_of(1, 0)), 0));
    cr_assert(eq(int, store(manifest_of(2, 1)), 0));
    for (n = 1; rc != 0; n++) {
        struct fault f;

        rc = scree__manifest_load(fault_init(&f, n, false), fixture_dir, &m, &skipped);
        cr_assert(rc == 0 ? m.number == 2 : rc == -EIO && m.number == 0, "call %u", n);
    }
    cr_assert(gt(uint, n, 3));
}
