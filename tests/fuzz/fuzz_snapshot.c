/*
 * fuzz_snapshot.c - any bytes as a snapshot file, full or a delta, a manifest, or a block of entries.
 *
 * GOAL    no bytes make the readers crash, hang, allocate beyond the file's size by more than their
 *         stated bounds, or hand out an entry that breaks an invariant of codec.c.
 * METHOD  the first byte chooses the reader and whether checksums are set right first (a checksum
 *         hides everything behind it from a fuzzer); the rest is the file, served from memory.
 * ORACLE  the visitor checks every entry, manifests are checked by their bounds; sanitizers do the
 *         rest.
 */
#include "snapshot/snapshot_private.h"
#include "support/mend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MANIFEST "manifest-0000000000000001"

struct image {
    const unsigned char *data;
    size_t len;
};

struct seen {
    struct scree__snapshot_meta meta;
    uint64_t stable_lsn, last_id, entries;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int
image_open(void *ctx, const char *path, int flags)
{
    (void)ctx;
    (void)path;
    (void)flags;
    return 1;
}

static int
image_close(void *ctx, int file)
{
    (void)ctx;
    (void)file;
    return 0;
}

static int64_t
image_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    const struct image *image = ctx;
    size_t n = offset < image->len ? image->len - (size_t)offset : 0;

    (void)file;
    n = n < len ? n : len;
    if (n > 0)
        memcpy(data, image->data + offset, n);
    return (int64_t)n;
}

static int
image_info(void *ctx, int file, scree_env_info *info_out)
{
    const struct image *image = ctx;

    (void)file;
    *info_out = (scree_env_info){.size_bytes = image->len, .disk_bytes = image->len};
    return 0;
}

static int
image_list(void *ctx, const char *path, int (*visit)(void *, const char *), void *visit_ctx)
{
    (void)ctx;
    (void)path;
    return visit(visit_ctx, MANIFEST);
}

static void
require(int ok)
{
    if (!ok)
        abort();
}

static int
seen_visit(void *ctx, const struct scree__snapshot_entry *e)
{
    struct seen *s = ctx;

    require(scree__snapshot_entry_check(e, &s->meta) == NULL);
    require(e->id > s->last_id && e->version <= s->stable_lsn);
    require(e->n == 0 ||
            e->positions[e->n - 1].lsn + e->positions[e->n - 1].disk_len <= s->stable_lsn);
    s->last_id = e->id;
    s->entries++;
    return 0;
}

/* As the second file of a generation. */
static void
fuzz_delta(const scree_env *env, struct scree__generation *g, const uint8_t uuid[16],
           struct seen *s)
{
    struct scree__snapshot_reader r;
    struct scree__snapshot_desk d = {0};
    struct scree__snapshot_entry e;
    int rc;

    g->file[1] = g->file[0];
    g->files = 2;
    rc = scree__snapshot_reader_open(&r, env, "/", g, 1, uuid, NULL);
    if (rc == 0)
        rc = scree__snapshot_desk_init(&d, &r);
    for (size_t i = 0; rc == 0 && i < r.block_count; i++) {
        if (r.blocks[i].block.kind != SCREE__SNAPSHOT_BLOCK_ENTRIES)
            continue;
        rc = scree__snapshot_desk_entries(&d, &r.blocks[i]);
        while (rc == 0 && (rc = scree__snapshot_desk_next(&d, &e)) == 1)
            rc = seen_visit(s, &e);
    }
    scree__snapshot_desk_clear(&d);
    scree__snapshot_reader_close(&r);
}

static void
fuzz_snapshot(const scree_env *env, unsigned char *data, size_t len, int rehash)
{
    struct scree__generation g = {.files = 1, .stable_lsn = UINT64_MAX, .file = {{.bytes = len}}};
    struct scree__snapshot_loaded l;
    struct seen s = {0};
    uint8_t uuid[16] = {0};
    int rc;

    if (len >= SCREE__SNAPSHOT_FILE_BYTES_MIN) {
        if (rehash)
            mend_snapshot(data, len);
        memcpy(uuid, data + 16, 16);
        g.file[0].number = scree__le64_get(data + 32);
        g.replay_lsn = s.meta.replay_lsn = scree__le64_get(data + 40);
        s.meta.since_lsn = scree__le64_get(data + 48);
        s.stable_lsn = scree__le64_get(data + len - 24);
    }
    g.file[0].hash = XXH3_64bits(data, len);
    if (len >= SCREE__SNAPSHOT_FILE_BYTES_MIN &&
        scree__le32_get(data + 56) == SCREE__SNAPSHOT_DELTA) {
        fuzz_delta(env, &g, uuid, &s);
        return;
    }
    rc = scree__snapshot_load(env, "/", &g, uuid, 1, seen_visit, &s, &l);
    require(rc != 0 || (l.entries == s.entries && l.state_len <= 64 * len));
    scree__free(l.state, l.state_len);
}

static void
fuzz_manifest(const scree_env *env, unsigned char *data, size_t len, int rehash)
{
    struct scree__manifest m;
    uint32_t skipped;
    int rc;

    if (rehash)
        mend_manifest(data, len);
    rc = scree__manifest_load(env, "/", &m, &skipped);
    require(rc != 0 || (m.number == 1 && m.segment_bytes >= 65536 && m.generations <= 2));
    require(rc == 0 || (m.number == 0 && rc != -ENOENT));
}

/* len 1 to RAW_MAX; the first bytes also choose count and ids. */
static void
fuzz_block(const unsigned char *data, size_t len)
{
    static struct scree__position positions[SCREE__SNAPSHOT_POSITIONS_MAX];
    struct scree__snapshot_block b = {.raw_len = (uint32_t)len,
                                      .count = 1 + (uint32_t)data[0] * 4,
                                      .first_id = 1,
                                      .last_id = UINT64_MAX >> data[len - 1] % 64};
    struct scree__snapshot_cursor c = {.positions = positions};
    struct seen s = {.meta = {.replay_lsn = 4096, .since_lsn = data[len / 3] % 2 * 2048u},
                     .stable_lsn = UINT64_MAX >> data[len / 2] % 40};
    struct scree__snapshot_entry e;

    scree__snapshot_cursor_init(&c, &b, data, &s.meta, s.stable_lsn);
    while (c.left > 0 && !scree__snapshot_entry_get(&c, &e))
        seen_visit(&s, &e);
    if (c.left == 0)
        (void)scree__snapshot_cursor_finish(&c);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct image image;
    scree_env env = *scree_env_posix();
    unsigned char *copy;

    if (len < 2 || len > SCREE__SNAPSHOT_RAW_MAX)
        return 0;
    copy = malloc(len - 1); /* of exactly this size: reading beyond it shows */
    require(copy != NULL);
    memcpy(copy, data + 1, len - 1);
    image = (struct image){copy, len - 1};
    env.ctx = &image;
    env.open = image_open;
    env.close = image_close;
    env.read = image_read;
    env.info = image_info;
    env.list = image_list;
    if (data[0] % 3 == 0)
        fuzz_snapshot(&env, copy, len - 1, data[0] & 0x40);
    else if (data[0] % 3 == 1)
        fuzz_manifest(&env, copy, len - 1, data[0] & 0x40);
    else
        fuzz_block(copy, len - 1);
    free(copy);
    return 0;
}
