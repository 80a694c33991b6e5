/*
 * test_snapshot_files.c - snapshot files as files: copied into another directory, and found where no manifest
 * names them. What stands in them is test_snapshot.c's and test_delta.c's matter.
 */
#include "snapshot_fixture.h"

#define S UINT64_C(0x20000)
#define CHUNK 100u /* so that a small file is several */

#define SUITE(name) TestSuite(name, .init = fixture_make, .fini = fixture_remove)
SUITE(snapshot_copy);
SUITE(snapshot_find);
SUITE(snapshot_chain);

/* A file without entries, of this directory: what a manifest would say of it. */
static struct scree__generation
file_make_stable(uint64_t number, uint64_t replay_lsn, uint64_t since_lsn, uint64_t stable_lsn,
                 const char *state)
{
    struct scree__snapshot_meta meta = {
        .number = number, .replay_lsn = replay_lsn, .since_lsn = since_lsn, .id_high = 1};
    struct scree__snapshot_writer *w;
    struct scree__generation g;

    memcpy(meta.uuid, uuid, 16);
    cr_assert(eq(int, scree__snapshot_begin(scree_env_posix(), fixture_dir, &meta, &w), 0));
    cr_assert(eq(
        int, scree__snapshot_finish(w, (scree_slice){state, strlen(state)}, stable_lsn, 1, &g), 0));
    return g;
}

static struct scree__generation
file_make(uint64_t number, uint64_t replay_lsn, uint64_t since_lsn, const char *state)
{
    return file_make_stable(number, replay_lsn, since_lsn, replay_lsn, state);
}

/* ---- copy ---- */

struct moved {
    uint64_t bytes;
    unsigned calls, stop_at;
};

static int
moved_step(void *ctx, uint64_t bytes, bool moved)
{
    struct moved *m = ctx;

    cr_assert(moved && bytes > 0 && bytes <= CHUNK);
    m->bytes += bytes;
    return ++m->calls == m->stop_at ? SCREE_E_CANCELED : 0;
}

/* Two files into the directory "to" below the fixture's. */
static struct scree__generation
copy_begin(void)
{
    struct scree__generation g = file_make(1, S, 0, "a state that is of some length"), second;

    second = file_make(2, S + 64, S, "another one");
    g.file[g.files++] = second.file[0];
    cr_assert(eq(int, mkdir(fixture_path("to"), 0777), 0));
    return g;
}

static void
copy_forget(void)
{
    unlink(fixture_path("to/snapshot-0000000000000001"));
    unlink(fixture_path("to/snapshot-0000000000000002"));
}

static int
copy_run(const scree_env *env, const struct scree__generation *g, struct moved *m)
{
    struct scree__snapshot_copy to = {
        .dir = fixture_path("to"), .chunk_bytes = CHUNK, .step = moved_step, .ctx = m};

    m->bytes = m->calls = 0;
    return scree__snapshot_copy(env, fixture_dir, g, &to);
}

static bool
copy_is_same(const char *name, const char *copied)
{
    size_t len, copied_len;
    unsigned char *data = fixture_read(name, &len), *other = fixture_read(copied, &copied_len);
    bool same = len == copied_len && memcmp(data, other, len) == 0;

    free(data);
    free(other);
    return same;
}

Test(snapshot_copy, has_the_names_and_the_bytes, .timeout = 60)
{
    struct scree__generation g = copy_begin();
    struct moved m = {0};

    cr_assert(eq(int, copy_run(scree_env_posix(), &g, &m), 0));
    cr_assert(eq(u64, m.bytes, scree__generation_bytes(&g)));
    cr_assert(copy_is_same("snapshot-0000000000000001", "to/snapshot-0000000000000001"));
    cr_assert(copy_is_same("snapshot-0000000000000002", "to/snapshot-0000000000000002"));
    copy_forget();
}

Test(snapshot_copy, fails_at_every_call_with_its_error, .timeout = 180)
{
    struct scree__generation g = copy_begin();
    struct moved m = {0};
    unsigned n, told = 0;
    int rc = -1;

    for (n = 1; rc != 0; n++) {
        struct fault f;

        scree__fail_clear();
        rc = copy_run(fault_init(&f, n, false), &g, &m);
        if (f.calls < n)
            break; /* got through untouched */
        /* That a file that was only read cannot be closed is no error. */
        cr_assert(rc == -EIO || (rc == 0 && m.bytes == scree__generation_bytes(&g)), "call %u", n);
        told += rc == -EIO && scree_error_detail()[0] != '\0';
        rc = -1;
        copy_forget();
    }
    cr_assert(eq(uint, told, n - 1 - 2)); /* both closes of what was only read */
    cr_assert(gt(uint, n, 2 * 8));        /* open twice, read and write twice, sync, close twice */
    copy_forget();
}

Test(snapshot_copy, stops_where_the_caller_says, .timeout = 60)
{
    struct scree__generation g = copy_begin();
    struct moved m = {.stop_at = 2};

    cr_assert(eq(int, copy_run(scree_env_posix(), &g, &m), SCREE_E_CANCELED));
    cr_assert(eq(uint, m.calls, 2));
    cr_assert(fixture_lacks("to/snapshot-0000000000000002"));
    copy_forget();
}

Test(snapshot_copy, of_a_file_that_is_shorter_than_it_was_is_corrupt, .timeout = 60)
{
    struct scree__generation g = copy_begin();
    struct moved m = {0};

    cr_assert(truncate(fixture_path("snapshot-0000000000000001"), 130) == 0);
    cr_assert(eq(int, copy_run(scree_env_posix(), &g, &m), SCREE_E_CORRUPT));
    cr_assert(strstr(scree_error_detail(), "ends at offset 130") != NULL, "%s",
              scree_error_detail());
    copy_forget();
}

Test(snapshot_copy, names_what_is_missing_and_what_is_in_the_way, .timeout = 60)
{
    struct scree__generation g = copy_begin();
    struct moved m = {0};

    fixture_write("to/snapshot-0000000000000002", "mine", 4);
    cr_assert(eq(int, copy_run(scree_env_posix(), &g, &m), -EEXIST));
    cr_assert(strstr(scree_error_detail(), "to/snapshot-0000000000000002") != NULL);
    copy_forget();
    cr_assert(unlink(fixture_path("snapshot-0000000000000002")) == 0);
    cr_assert(eq(int, copy_run(scree_env_posix(), &g, &m), -ENOENT));
    cr_assert(strstr(scree_error_detail(), "snapshot-0000000000000002: cannot open") != NULL);
    copy_forget();
}

/* ---- find ---- */

static int
find(uint64_t below, struct scree__generation *g_out)
{
    return scree__snapshot_find(scree_env_posix(), fixture_dir, uuid, below, g_out);
}

/* A full file, number 1, and two deltas, 2 and 3. */
static void
chain_make(void)
{
    (void)file_make(1, S, 0, "one");
    (void)file_make(2, S + 64, S, "two");
    (void)file_make(3, S + 128, S + 64, "three");
}

/* What is found ends with this file, 0: nothing is. */
static void
expect_newest(uint64_t number)
{
    struct scree__generation g;
    int rc = find(UINT64_MAX, &g);

    cr_assert(eq(int, rc, number == 0 ? -ENOENT : 0), "%s", scree_error_detail());
    cr_assert(eq(u64, number == 0 ? 0 : scree__generation_newest(&g)->number, number));
}

Test(snapshot_find, the_newest_chain_below_a_number, .timeout = 60)
{
    struct scree__generation g, of = file_make(7, S + 192, 0, "alone");

    chain_make();
    cr_assert(eq(int, find(UINT64_MAX, &g), 0));
    cr_assert(memcmp(&g, &of, sizeof g) == 0);
    cr_assert(eq(int, find(7, &g), 0));
    cr_assert(g.files == 3 && g.file[0].number == 1 && g.file[2].number == 3);
    cr_assert(eq(u64, g.replay_lsn, S + 128));
    cr_assert(eq(int, find(1, &g), -ENOENT));
    cr_assert(eq(int, find(0, &g), -ENOENT));
    cr_assert(eq(uint, g.files, 0));
}

Test(snapshot_find, a_delta_skips_what_it_does_not_add_to_and_needs_what_it_does, .timeout = 60)
{
    struct scree__generation g;

    chain_make();
    (void)file_make(4, S + 192, S + 64, "on the second: the third was merged away");
    cr_assert(eq(int, find(UINT64_MAX, &g), 0));
    cr_assert(g.files == 3 && g.file[1].number == 2 && g.file[2].number == 4);
    cr_assert(unlink(fixture_path("snapshot-0000000000000002")) == 0);
    expect_newest(1);
    cr_assert(unlink(fixture_path("snapshot-0000000000000001")) == 0);
    expect_newest(0);
}

Test(snapshot_find, a_chain_longer_than_a_generation_can_be_is_none, .timeout = 180)
{
    (void)file_make(1, S, 0, "");
    for (uint64_t i = 1; i <= SCREE__GENERATION_FILES_MAX; i++)
        (void)file_make(1 + i, S + 64 * i, S + 64 * (i - 1), "");
    expect_newest(SCREE__GENERATION_FILES_MAX); /* not the last one */
}

/* Change the newest file: what it says of itself, with every checksum right. */
static void
expect_passed_over(size_t at, uint64_t xor)
{
    const char *name = "snapshot-0000000000000003";
    struct scree__snapshot_file f;
    size_t len;
    unsigned char *data = fixture_read(name, &len), *whole = fixture_read(name, &len);

    at = at < len ? at : len + at; /* a negative one: from the end */
    scree__le64_put(data + at, scree__le64_get(data + at) ^ xor);
    fixture_rehash(data, len, &f);
    fixture_write(name, data, len);
    expect_newest(2);
    fixture_write(name, whole, len);
    expect_newest(3);
    free(data);
    free(whole);
}

Test(snapshot_find, files_that_say_otherwise_are_passed_over, .timeout = 180)
{
    chain_make();
    expect_newest(3);
    expect_passed_over(0, 1);                    /* magic */
    expect_passed_over(8, 2);                    /* version */
    expect_passed_over(16, 1);                   /* uuid */
    expect_passed_over(32, 1);                   /* number: renamed */
    expect_passed_over(48, UINT64_C(1) << 40);   /* adds to what is newer */
    expect_passed_over(56, 4);                   /* type */
    expect_passed_over((size_t)0 - 64, 1);       /* no trailer */
    expect_passed_over((size_t)0 - 24, S + 128); /* stable up to less than its replay start */
}

Test(snapshot_find, files_that_are_cut_are_passed_over, .timeout = 180)
{
    static const off_t cuts[] = {0,
                                 15,
                                 SCREE__SNAPSHOT_HEADER_BYTES - 1,
                                 SCREE__SNAPSHOT_HEADER_BYTES,
                                 SCREE__SNAPSHOT_FILE_BYTES_MIN - 1,
                                 SCREE__SNAPSHOT_FILE_BYTES_MIN};

    chain_make();
    for (size_t i = sizeof cuts / sizeof cuts[0]; i-- > 0;) {
        cr_assert(truncate(fixture_path("snapshot-0000000000000003"), cuts[i]) == 0);
        expect_newest(2);
    }
}

Test(snapshot_find, a_call_that_fails_is_told_or_costs_the_file, .timeout = 180)
{
    struct scree__generation g;
    unsigned n, told = 0;

    chain_make();
    for (n = 1;; n++) {
        struct fault f;
        int rc = scree__snapshot_find(fault_init(&f, n, false), fixture_dir, uuid, UINT64_MAX, &g);

        if (f.calls < n)
            break;
        told += rc == -EIO;
        cr_assert(rc == 0 || rc == -ENOENT || (n == 1 && rc == -EIO), "call %u: %d", n, rc);
    }
    cr_assert(eq(uint, told, 1)); /* that the directory cannot be listed */
    cr_assert(gt(uint, n, 1 + 3 * 3 + 3 * 4));
}

/* ---- load ---- */

static int
no_visit(void *ctx, const struct scree__snapshot_entry *e)
{
    (void)ctx, (void)e;
    return -1;
}

/* More was stable when the older one was made than when the newer one was: they are not of one history. */
Test(snapshot_chain, whose_stable_position_goes_back_is_corrupt, .timeout = 60)
{
    for (uint64_t back = 0; back < 2; back++) {
        struct scree__generation g = file_make_stable(1, S, 0, S + 1000, ""), second;
        struct scree__snapshot_loaded loaded;
        int rc;

        second = file_make_stable(2, S + 64, S, S + 1000 - 8 * back, "");
        g.file[g.files++] = second.file[0];
        g.replay_lsn = S + 64;
        rc = scree__snapshot_load(scree_env_posix(), fixture_dir, &g, uuid, 1, no_visit, NULL,
                                  &loaded);
        cr_assert(eq(int, rc, back == 0 ? 0 : SCREE_E_CORRUPT), "%s", scree_error_detail());
        cr_assert(back == 0 || strstr(scree_error_detail(), "the file before") != NULL, "%s",
                  scree_error_detail());
    }
}

#ifdef SCREE_ALLOC_FAULTS
Test(snapshot_copy, every_allocation_may_fail, .timeout = 180)
{
    struct scree__generation g = copy_begin();
    struct moved m = {0};
    unsigned n;
    int rc = -1;

    for (n = 1; rc != 0; n++) {
        scree__alloc_fault(n, 1);
        rc = copy_run(scree_env_posix(), &g, &m);
        scree__alloc_fault(0, 0);
        cr_assert(rc == 0 || rc == SCREE_E_NO_MEMORY, "allocation %u", n);
        copy_forget();
    }
    cr_assert(gt(uint, n, 2 * 3));
}

/* It is told: nothing older passes for the newest for want of it. */
Test(snapshot_find, every_allocation_may_fail, .timeout = 180)
{
    struct scree__generation g;
    unsigned n;
    int rc = -1;

    chain_make();
    for (n = 1; rc != 0; n++) {
        scree__alloc_fault(n, 1);
        rc = find(UINT64_MAX, &g);
        scree__alloc_fault(0, 0);
        cr_assert(rc == 0 || rc == SCREE_E_NO_MEMORY, "allocation %u: %d", n, rc);
    }
    cr_assert(eq(uint, g.files, 3));
    cr_assert(gt(uint, n, 1 + 3 + 3));
}
#endif
