/*
 * ruin.c - making and judging; see ruin.h. Damage is in ruin_damage.c.
 *
 * What is promised of a damaged directory that opens, E being where its log is said to end:
 *   J1 the pages are those of the newest state that lies below E, whole: but those that are told CORRUPT, with
 *      file and offset.
 *   J2 E is not below what a claim says that can still be read: of the newest whole manifest, of a whole
 *      seal, of the header of a segment that was jumped to.
 *   J3 without an open mark nothing but zeros lies behind E, and E is a block boundary.
 *   J4 where the newest manifest or a file of its newest generation is damaged, an event says so. A manifest
 *      that is not there cannot be missed.
 * and of one that does not: CORRUPT or FORMAT, with the file, and the offset where there is one.
 * What is salvaged of a page was once so, or is what a damaged batch made of it in some of its steps.
 *
 * WORD   none shared but events, a counter.   EDGES  any thread fetch_add, relaxed; read when all is over.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "ruin.h"

#include "log/log_private.h"
#include "snapshot/snapshot_private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define CHECK_OK(call)                                                              \
    do {                                                                            \
        int code_ = (call);                                                         \
        KIT_CHECK(code_ == 0, "%s gave %d %s", #call, code_, kit_code_name(code_)); \
    } while (0)

static const char *const names[RUINS] = {"closed",     "crashed", "deltas", "batches",
                                         "compressed", "punched", "jumped", "backup"};

/* ---- images by path ---- */

/* Which file of the image; -1: none of this name. */
static int
file_find(const struct sim_image *image, const char *path)
{
    size_t n = sim_image_files(image);

    for (size_t i = 0; i < n; i++)
        if (strcmp(sim_image_name(image, i, NULL), path) == 0)
            return (int)i;
    return -1;
}

static bool
file_same(const struct sim_image *a, const struct sim_image *b, const char *path)
{
    unsigned char x[4096], y[4096];
    uint64_t size_a, size_b, at = 0;
    int i = file_find(a, path), k = file_find(b, path);

    if (i < 0 || k < 0)
        return i == k;
    (void)sim_image_name(a, (size_t)i, &size_a);
    (void)sim_image_name(b, (size_t)k, &size_b);
    while (size_a == size_b && at < size_a) {
        size_t n = sim_image_get(a, (size_t)i, at, x, sizeof(x));

        (void)sim_image_get(b, (size_t)k, at, y, sizeof(y));
        if (memcmp(x, y, n) != 0)
            return false;
        at += n;
    }
    return size_a == size_b;
}

static void
segment_path(char path[64], uint64_t number)
{
    (void)snprintf(path, 64, RUIN_DIR "/segment-%016" PRIx64, number);
}

size_t
ruin_log_get(const struct ruin *r, const struct sim_image *image, uint64_t lsn, void *data,
             size_t n)
{
    size_t done = 0;

    while (done < n) {
        uint64_t in = (lsn + done) % r->segment_bytes, rest = r->segment_bytes - in;
        size_t part = n - done < rest ? n - done : (size_t)rest, got;
        char path[64];
        int i;

        segment_path(path, (lsn + done) / r->segment_bytes);
        i = file_find(image, path);
        if (i < 0)
            break;
        got = sim_image_get(image, (size_t)i, LOG_HEADER_BYTES + in, (char *)data + done, part);
        done += got;
        if (got < part)
            break;
    }
    return done;
}

void
ruin_log_put(const struct ruin *r, struct sim_image *image, uint64_t lsn, const void *data,
             size_t n)
{
    for (size_t done = 0; done < n;) {
        uint64_t in = (lsn + done) % r->segment_bytes, rest = r->segment_bytes - in;
        size_t part = n - done < rest ? n - done : (size_t)rest;
        char path[64];
        int i;

        segment_path(path, (lsn + done) / r->segment_bytes);
        i = file_find(image, path);
        if (i >= 0)
            sim_image_set(image, (size_t)i, LOG_HEADER_BYTES + in, (const char *)data + done, part);
        done += part;
    }
}

/* All of it; false: not all is there. */
static bool
log_get(const struct ruin *r, const struct sim_image *image, uint64_t lsn, void *data, size_t n)
{
    return ruin_log_get(r, image, lsn, data, n) == n;
}

static bool
log_same(const struct ruin *r, const struct sim_image *image, uint64_t lsn, size_t n)
{
    unsigned char was[64], is[64];

    return log_get(r, r->image, lsn, was, n) && log_get(r, image, lsn, is, n) &&
           memcmp(was, is, n) == 0;
}

/* ---- making ---- */

struct making {
    struct ruin *r;
    struct sim_disk *disk;
    scree_cache *cache;
};

static void
making_open(struct making *m, const struct sim_image *image, uint64_t seed)
{
    m->disk = sim_disk_new(image, seed);
    sim_disk_record(m->disk, false);
    m->r->options.env = sim_disk_env(m->disk);
    CHECK_OK(scree_open(RUIN_DIR, &m->r->options, &m->cache));
}

/* n new states: what is BUSY until a grace period is over makes none. */
static void
making_steps(struct making *m, int n, int batches_of_8)
{
    struct ruin *r = m->r;

    while (n > 0) {
        uint32_t before = r->h->n;
        bool batch = (int)kit_below(&r->h->random, 8) < batches_of_8;

        CHECK_OK(batch ? history_batch(r->h, m->cache) : history_step(r->h, m->cache));
        if (r->h->n > before) {
            r->end[before] = r->h->version_any;
            n--;
        }
    }
}

static void
making_flush(struct making *m)
{
    CHECK_OK(history_flush(m->r->h, m->cache));
}

static void
making_older(struct making *m)
{
    sim_image_free(m->r->older);
    m->r->older = sim_disk_image(m->disk);
}

/* What is there now, as a crash leaves it, or after a close. */
static void
making_end(struct making *m, bool close)
{
    if (close)
        CHECK_OK(scree_close(m->cache));
    sim_image_free(m->r->image);
    m->r->image = sim_disk_image(m->disk);
    if (!close)
        CHECK_OK(scree_close(m->cache));
    sim_disk_free(m->disk);
    m->r->closed = close;
}

static void
make_plain(struct making *m, int batches_of_8, bool close)
{
    making_steps(m, 60, batches_of_8);
    CHECK_OK(scree_snapshot(m->cache, NULL));
    making_steps(m, 60, batches_of_8);
    making_flush(m);
    making_older(m);
    CHECK_OK(scree_snapshot(m->cache, NULL));
    making_steps(m, 50, batches_of_8);
    for (int i = 0; i < 4; i++) { /* seals that say what is stable */
        making_flush(m);
        making_steps(m, 8, batches_of_8);
    }
    making_end(m, close);
}

static void
make_deltas(struct making *m)
{
    making_steps(m, 120, 0);
    CHECK_OK(scree_snapshot(m->cache, NULL));
    for (int i = 0; i < 6; i++) {
        making_steps(m, 4, 1);
        CHECK_OK(scree_snapshot(m->cache, NULL));
        if (i == 2)
            making_older(m);
    }
    making_steps(m, 20, 1);
    making_flush(m);
    making_steps(m, 5, 1);
    making_end(m, false);
}

static void
make_punched(struct making *m)
{
    m->r->h->len_max = 1500;
    for (int i = 0; i < 9; i++) {
        making_steps(m, 90, 1);
        CHECK_OK(scree_snapshot(m->cache, NULL));
        if (i % 3 == 2)
            CHECK_OK(scree_reclaim(m->cache, 1.05, NULL, NULL));
        if (i == 6)
            making_older(m);
    }
    m->r->h->len_max = 0;
    making_steps(m, 20, 1);
    making_flush(m);
    making_steps(m, 5, 1);
    making_end(m, false);
}

/* Each crash begins with the image of the one before. */
static void
make_jumped(struct making *m, uint64_t seed)
{
    for (int i = 0; i < 3; i++) {
        struct sim_image *left;

        making_steps(m, 40, 1);
        if (i == 0)
            CHECK_OK(scree_snapshot(m->cache, NULL));
        making_steps(m, 20, 1);
        making_flush(m);
        if (i == 1)
            making_older(m);
        if (i == 2)
            break;
        making_end(m, false);
        left = m->r->image;
        m->r->image = NULL;
        making_open(m, left, seed + 1 + (uint64_t)i);
        sim_image_free(left);
    }
    making_steps(m, 5, 1);
    making_end(m, false);
}

/* The files of `from` in RUIN_DIR, and nothing else. */
static struct sim_image *
image_of(const struct sim_image *image, const char *from)
{
    struct sim_image *out = sim_image_new();
    size_t n = sim_image_files(image), len = strlen(from);

    sim_image_mkdir(out, RUIN_DIR);
    for (size_t i = 0; i < n; i++) {
        uint64_t size;
        const char *name = sim_image_name(image, i, &size);
        char path[64];
        void *bytes;

        if (strncmp(name, from, len) != 0 || name[len] != '/')
            continue;
        bytes = malloc((size_t)size + 1);
        KIT_CHECK(bytes != NULL, "no memory");
        (void)sim_image_get(image, i, 0, bytes, (size_t)size);
        (void)snprintf(path, sizeof(path), RUIN_DIR "%.40s", name + len);
        sim_image_add(out, path, bytes, (size_t)size);
        free(bytes);
    }
    return out;
}

static void
make_backup(struct making *m)
{
    struct sim_image *all;

    making_steps(m, 80, 2);
    CHECK_OK(scree_snapshot(m->cache, NULL));
    making_steps(m, 30, 2);
    making_older(m);
    making_steps(m, 30, 2);
    CHECK_OK(scree_backup(m->cache, "/b", 0, NULL, NULL));
    making_end(m, true);
    all = m->r->image;
    m->r->image = image_of(all, "/b");
    sim_image_free(all);
}

/* ---- what it says of itself ---- */

static void
claim_add(struct ruin *r, uint64_t lsn, uint64_t end, uint64_t stable)
{
    if (r->claims == r->claims_cap) {
        r->claims_cap = r->claims_cap * 2 + 64;
        r->claim = realloc(r->claim, r->claims_cap * sizeof(*r->claim));
        KIT_CHECK(r->claim != NULL, "no memory");
    }
    r->claim[r->claims++] = (struct ruin_claim){lsn, end, stable};
}

static void
claims_of_segment(struct ruin *r, size_t i, uint64_t number, uint64_t size)
{
    unsigned char block[SCREE_BLOCK], body[40];
    uint64_t start = number * r->segment_bytes;

    (void)sim_image_get(r->image, i, 0, block, SCREE_BLOCK);
    if (scree__get_u64(block + 48) < start)
        claim_add(r, start, 0, scree__get_u64(block + 48));
    for (uint64_t at = SCREE_BLOCK; at + SCREE_BLOCK <= size; at += SCREE_BLOCK) {
        uint64_t end = start + at, seal;

        (void)sim_image_get(r->image, i, at, block, SCREE_BLOCK);
        if (scree__seal_footer(block + SCREE_BLOCK, end, &seal) &&
            log_get(r, r->image, seal, body, sizeof(body)))
            claim_add(r, seal, end, scree__get_u64(body + 32));
    }
}

/* Every record of a segment; one may reach into the next. */
static void
records_of_segment(struct ruin *r, uint64_t number, uint64_t size)
{
    static unsigned char bytes[RUIN_RECORD_BYTES];
    uint64_t start = number * r->segment_bytes, lsn = start, end;

    end = start + (size < SCREE_BLOCK ? 0 : size - SCREE_BLOCK);
    while (lsn < end) {
        struct scree__record record = {0};
        size_t n = ruin_log_get(r, r->image, lsn, bytes, RECORD_HEADER_BYTES);

        if (n == RECORD_HEADER_BYTES && bytes[20] != 0) /* not amid zeros */
            n = ruin_log_get(r, r->image, lsn, bytes, sizeof(bytes));
        if (scree__record_decode(bytes, n, lsn, &record) != LOG_DECODE_OK) {
            lsn += SCREE__RECORD_ALIGN;
            continue;
        }
        if (r->records == r->records_cap) {
            r->records_cap = r->records_cap * 2 + 256;
            r->record = realloc(r->record, r->records_cap * sizeof(*r->record));
            KIT_CHECK(r->record != NULL, "no memory");
        }
        r->record[r->records++] = lsn;
        lsn += record.disk_len;
    }
}

static void
manifest_add(struct ruin *r, const scree_env *env, const char *path, uint64_t number)
{
    struct scree__manifest m;
    struct ruin_manifest *out = &r->manifest[r->manifests];

    KIT_CHECK(r->manifests < 4, "more manifests than expected");
    CHECK_OK(scree__manifest_load_one(env, RUIN_DIR, number, &m));
    r->segment_bytes = m.segment_bytes;
    *out = (struct ruin_manifest){.stable = m.generations > 0 ? m.generation[0].stable_lsn : 0,
                                  .files = m.generations > 0 ? m.generation[0].files : 0};
    (void)snprintf(out->path, sizeof(out->path), "%s", path);
    for (uint32_t i = 0; i < out->files; i++)
        (void)snprintf(out->file[i], sizeof(out->file[i]), RUIN_DIR "/snapshot-%016" PRIx64,
                       m.generation[0].file[i].number);
    r->manifests++;
}

static void
ruin_read(struct ruin *r)
{
    struct sim_disk *disk = sim_disk_new(r->image, 1);
    size_t n = sim_image_files(r->image);
    uint64_t number, size;
    enum scree__file_kind kind;
    bool tmp;

    for (size_t i = n; i-- > 0;) {
        const char *path = sim_image_name(r->image, i, NULL);

        if (scree__snapshot_name_parse(path + strlen(RUIN_DIR "/"), &kind, &number, &tmp) && !tmp &&
            kind == SCREE__MANIFEST_FILE)
            manifest_add(r, sim_disk_env(disk), path, number);
    }
    for (size_t i = 0; i < n; i++) {
        const char *path = sim_image_name(r->image, i, &size);

        if (scree__segment_name_parse(path + strlen(RUIN_DIR "/"), &number)) {
            claims_of_segment(r, i, number, size);
            records_of_segment(r, number, size);
        }
    }
    sim_disk_free(disk);
}

void
ruin_make(struct ruin *r, enum ruin_kind kind, uint64_t seed)
{
    struct making m = {.r = r};
    struct sim_image *empty = sim_image_new();

    memset(r, 0, sizeof(*r));
    r->kind = kind;
    r->name = names[kind];
    r->h = history_new(seed * RUINS + (uint64_t)kind);
    kit_options_small(&r->options, &kit_concat);
    r->options.io_mode = SCREE_IO_BUFFERED;
    r->options.space_amp_target = 4;
    if (kind == RUIN_COMPRESSED) {
        r->options.compression_level = 1;
        r->h->len_max = 1200;
    }
    if (kind == RUIN_PUNCHED)
        r->options.segment_bytes = 256u << 10; /* four granules */
    making_open(&m, empty, seed);
    sim_image_free(empty);
    history_begin(r->h, m.cache);
    r->end[0] = r->h->version_any;
    if (kind == RUIN_DELTAS)
        make_deltas(&m);
    else if (kind == RUIN_PUNCHED)
        make_punched(&m);
    else if (kind == RUIN_JUMPED)
        make_jumped(&m, seed);
    else if (kind == RUIN_BACKUP)
        make_backup(&m);
    else
        make_plain(&m, kind == RUIN_BATCHES ? 4 : 0,
                   kind == RUIN_CLOSED || kind == RUIN_COMPRESSED);
    ruin_read(r);
    r->last = r->h->n - 1;
    (void)snprintf(kit_context, sizeof(kit_context), "%s, undamaged", r->name);
    if (!r->closed) /* how much of what nobody waited for had been written */
        while (r->last > r->h->acked && ruin_look(r, r->image, 0, seed) != RUIN_RIGHT)
            r->last--;
    KIT_CHECK(ruin_look(r, r->image, RUIN_VERIFY, seed) == RUIN_RIGHT, "it is not as it was");
}

void
ruin_free(struct ruin *r)
{
    sim_image_free(r->image);
    sim_image_free(r->older);
    free(r->claim);
    free(r->record);
}

/* ---- judging ---- */

struct look {
    const struct ruin *r;
    const struct sim_image *image;
    unsigned how;
    scree_options options;
    scree_cache *cache;
    _Atomic uint32_t fallbacks;
    bool whole;    /* the last state is there */
    bool salvaged; /* what is read is a salvaged directory */
    struct history_seen seen;
};

static void
on_event(void *ctx, const scree_event *event)
{
    struct look *l = ctx;

    if (event->kind == SCREE_EVENT_SNAPSHOT_FALLBACK)
        (void)atomic_fetch_add_explicit(&l->fallbacks, 1, memory_order_relaxed);
}

static bool
names_a_file(const char *detail)
{
    return strstr(detail, "segment-") != NULL || strstr(detail, "snapshot-") != NULL ||
           strstr(detail, "manifest") != NULL || strstr(detail, "OPEN") != NULL;
}

static enum ruin_outcome
refusal_judge(const struct look *l, int code)
{
    const char *detail = scree_error_detail();
    bool mended = l->how & RUIN_MENDED;

    KIT_CHECK(code == SCREE_E_CORRUPT || code == SCREE_E_FORMAT || code == -ENOENT ||
                  code == SCREE_E_MATERIALIZER ||
                  (mended && (code == -EOVERFLOW || code == SCREE_E_NO_SPACE)),
              "open gave %d %s", code, kit_code_name(code));
    KIT_CHECK(detail[0] != '\0' && l->cache == NULL, "no detail, or a cache");
    KIT_CHECK(code != -ENOENT || file_find(l->image, l->r->manifest[0].path) < 0,
              "ENOENT, and there is a manifest");
    KIT_CHECK(code != SCREE_E_CORRUPT || names_a_file(detail), "the detail names no file");
    return RUIN_REFUSED;
}

static void
pages_read(struct look *l)
{
    static unsigned char buffer[8192];
    const struct history *h = l->r->h;
    bool mended = l->how & RUIN_MENDED;
    scree_page_id id = 0;
    int code;

    memset(&l->seen, 0, sizeof(l->seen));
    for (uint32_t seen = 0; (code = scree_page_next(l->cache, id, &id)) == 0; seen++) {
        scree_version version = 0;
        size_t len = 0;
        uint32_t at = 0;
        int result = scree_page_read(l->cache, id, buffer, sizeof(buffer), &len, &version);

        if (l->salvaged && result == 0 && history_between(h, id, buffer, len))
            continue;
        while (at < h->pages && h->id[at] != id)
            at++;
        if (at == h->pages)
            l->seen.strangers++;
        if (mended || at == h->pages) {
            if (seen > 100000)
                break;
            continue;
        }
        if (result == SCREE_E_CORRUPT) {
            const char *detail = scree_error_detail();

            KIT_CHECK(strstr(detail, "segment-") != NULL && strstr(detail, "offset") != NULL,
                      "page %llu is CORRUPT, where is not told", (unsigned long long)id);
            l->seen.failed[at] = true;
            l->seen.failures++;
            continue;
        }
        KIT_CHECK(result == 0, "page %llu gave %d %s", (unsigned long long)id, result,
                  kit_code_name(result));
        l->seen.state.page[at] =
            (struct history_page){version, history_hash(buffer, len), (uint32_t)len};
    }
    KIT_CHECK(mended || code == SCREE_E_NOT_FOUND, "page_next gave %d", code);
}

/* J2: the largest claim that can still be read. */
static uint64_t
claim_left(const struct look *l)
{
    const struct ruin *r = l->r;
    uint64_t stable = 0;

    for (uint32_t i = 0; i < r->manifests && stable == 0; i++)
        if (file_find(l->image, r->manifest[i].path) >= 0 &&
            file_same(r->image, l->image, r->manifest[i].path))
            stable = r->manifest[i].stable;
    for (uint32_t i = 0; i < r->claims; i++) {
        const struct ruin_claim *c = &r->claim[i];
        unsigned char was[64], is[64];
        char path[64];
        int a, b;

        if (c->stable <= stable)
            continue;
        if (c->end != 0) {
            if (log_same(r, l->image, c->lsn, 40) && log_same(r, l->image, c->end - 24, 24))
                stable = c->stable;
            continue;
        }
        segment_path(path, c->lsn / r->segment_bytes);
        a = file_find(r->image, path);
        b = file_find(l->image, path);
        if (a >= 0 && b >= 0 && sim_image_get(r->image, (size_t)a, 0, was, 64) == 64 &&
            sim_image_get(l->image, (size_t)b, 0, is, 64) == 64 && memcmp(was, is, 64) == 0)
            stable = c->stable;
    }
    return stable;
}

/* J3. */
static void
rest_check(const struct look *l, uint64_t end)
{
    const struct ruin *r = l->r;
    size_t n = sim_image_files(l->image);

    if (file_find(l->image, RUIN_DIR "/OPEN") >= 0)
        return;
    KIT_CHECK(end % SCREE_BLOCK == 0, "a closed log ends amid a block, at %" PRIu64, end);
    for (size_t i = 0; i < n; i++) {
        unsigned char bytes[SCREE_BLOCK];
        uint64_t size, number, start, at;
        const char *path = sim_image_name(l->image, i, &size);

        if (!scree__segment_name_parse(path + strlen(RUIN_DIR "/"), &number))
            continue;
        start = number * r->segment_bytes;
        at = end > start ? end - start : 0;
        size = size < SCREE_BLOCK + r->segment_bytes ? size : SCREE_BLOCK + r->segment_bytes;
        for (; SCREE_BLOCK + at < size; at += SCREE_BLOCK) {
            size_t got = sim_image_get(l->image, i, SCREE_BLOCK + at, bytes, sizeof(bytes)), k = 0;

            while (k < got && bytes[k] == 0)
                k++;
            KIT_CHECK(k == got, "%s goes on behind the end of a closed log at %" PRIu64, path, end);
        }
    }
}

/* J4. Which manifest counts; whether it, or what it names, shows damage. */
static void
fallback_check(const struct look *l)
{
    const struct ruin *r = l->r;
    bool expected = false;
    uint32_t i = 0;

    while (i < r->manifests && !file_same(r->image, l->image, r->manifest[i].path)) {
        expected |= file_find(l->image, r->manifest[i].path) >= 0;
        i++;
    }
    for (uint32_t k = 0; i < r->manifests && k < r->manifest[i].files; k++)
        expected |= !file_same(r->image, l->image, r->manifest[i].file[k]);
    KIT_CHECK(!expected || atomic_load_explicit(&l->fallbacks, memory_order_relaxed) > 0,
              "a manifest or snapshot is damaged, it opens, and no event says so");
}

static enum ruin_outcome
state_judge(struct look *l)
{
    const struct ruin *r = l->r;
    scree_recovery_info info = {.size = sizeof(info)};
    uint32_t at = r->last;
    uint64_t claim;

    CHECK_OK(scree_recovery(l->cache, &info));
    while (at > 0 && r->end[at] > info.stable_lsn)
        at--;
    if (!history_matches(r->h, &l->seen, at))
        kit_failed(__FILE__, __LINE__, "J1",
                   "wrong data: the log ends at %" PRIu64 ", so it is state %" PRIu32 " of %" PRIu32
                   "; what is read is %d (%d strangers, %" PRIu32 " failures)",
                   (uint64_t)info.stable_lsn, at, r->last, history_find(r->h, &l->seen, 0),
                   l->seen.strangers, l->seen.failures);
    l->whole = at == r->last;
    if (!l->whole) {
        claim = claim_left(l);
        KIT_CHECK(claim <= info.stable_lsn,
                  "the log ends at %" PRIu64 ", and there is a claim up to %" PRIu64,
                  (uint64_t)info.stable_lsn, claim);
        rest_check(l, info.stable_lsn);
    }
    fallback_check(l);
    return l->seen.failures > 0 ? RUIN_PARTLY : at < r->last ? RUIN_EARLIER : RUIN_RIGHT;
}

/* Updates, a close and another open, after which the update is there. */
static void
go_on(struct look *l)
{
    scree_version version = 0;
    size_t len = 0;
    char buffer[8];
    bool mended = l->how & RUIN_MENDED;
    int code = scree_page_put(l->cache, SCREE_PAGE_ROOT, kit_slice("onwards", 7), &version);

    if (code != 0) {
        KIT_CHECK(mended || code == SCREE_E_CORRUPT, "an update gave %d %s", code,
                  kit_code_name(code));
        return;
    }
    KIT_CHECK(mended || !l->whole || !l->r->closed || version > l->r->h->version_any,
              "version %" PRIu64 " again: %" PRIu64 " was told", version, l->r->h->version_any);
    code = scree_close(l->cache);
    l->cache = NULL;
    KIT_CHECK(mended || code == 0 || code == SCREE_E_CORRUPT, "close gave %d %s", code,
              kit_code_name(code));
    if (code != 0)
        return;
    code = scree_open(RUIN_DIR, &l->options, &l->cache);
    KIT_CHECK(code == 0 || mended, "open after close gave %d", code);
    if (code != 0)
        return;
    code = scree_page_read(l->cache, SCREE_PAGE_ROOT, buffer, sizeof(buffer), &len, NULL);
    KIT_CHECK(code == 0 && len == 7 && memcmp(buffer, "onwards", 7) == 0, "the update is lost: %d",
              code);
}

/* What is salvaged opens, is clean, and each page of it was so once. */
static void
salvage_check(struct look *l, struct sim_disk *disk)
{
    const struct history *h = l->r->h;
    bool mended = l->how & RUIN_MENDED;
    int code = scree_salvage(RUIN_DIR, "/salvaged", &l->options, NULL, NULL, NULL);

    (void)disk;
    if (code != 0 && code != SCREE_E_CORRUPT) {
        KIT_CHECK(mended || code == SCREE_E_FORMAT || code == -ENOENT ||
                      code == SCREE_E_MATERIALIZER,
                  "salvage gave %d %s", code, kit_code_name(code));
        return;
    }
    code = scree_open("/salvaged", &l->options, &l->cache);
    KIT_CHECK(code == 0, "opening what was salvaged gave %d", code);
    l->salvaged = true;
    pages_read(l);
    l->salvaged = false;
    KIT_CHECK(mended || (l->seen.failures == 0 && l->seen.strangers == 0),
              "salvaged: %" PRIu32 " failures, %d strangers", l->seen.failures, l->seen.strangers);
    for (uint32_t at = 0; !mended && at < HISTORY_PAGES; at++) {
        const struct history_page *page = &l->seen.state.page[at];
        uint32_t k = 0;

        while (k < h->n &&
               (h->state[k].page[at].version == 0 || h->state[k].page[at].len != page->len ||
                h->state[k].page[at].hash != page->hash))
            k++;
        KIT_CHECK(page->version == 0 || k < h->n, "page %" PRIu64 " never was as it was salvaged",
                  h->id[at]);
    }
    CHECK_OK(scree_close(l->cache));
    l->cache = NULL;
    code = scree_verify("/salvaged", &l->options, NULL, NULL, NULL);
    KIT_CHECK(code == 0, "verify of what was salvaged gave %d", code);
}

enum ruin_outcome
ruin_look(const struct ruin *r, const struct sim_image *image, unsigned how, uint64_t seed)
{
    struct look l = {.r = r, .image = image, .how = how, .options = r->options};
    struct sim_disk *disk = sim_disk_new(image, seed);
    enum ruin_outcome outcome = RUIN_RIGHT;
    int verified = 1, code;

    sim_disk_record(disk, false);
    l.options.env = sim_disk_env(disk);
    l.options.flags = 0;
    l.options.event = on_event;
    l.options.callback_ctx = &l;
    if (how & RUIN_VERIFY) {
        verified = scree_verify(RUIN_DIR, &l.options, NULL, NULL, NULL);
        KIT_CHECK(verified <= 0 && verified != SCREE_E_NO_MEMORY, "verify gave %d", verified);
    }
    if (how & RUIN_SALVAGE)
        salvage_check(&l, disk);
    if (!(how & RUIN_WRITABLE))
        l.options.flags |= SCREE_READ_ONLY;
    code = scree_open(RUIN_DIR, &l.options, &l.cache);
    if (code != 0) {
        outcome = refusal_judge(&l, code);
        KIT_CHECK(verified != 0 || (how & RUIN_MENDED), "open gave %d, verify found nothing", code);
    } else {
        pages_read(&l);
        if (!(how & RUIN_MENDED))
            outcome = state_judge(&l);
        KIT_CHECK(verified != 0 || l.seen.failures == 0,
                  "%" PRIu32 " pages cannot be read, verify found nothing", l.seen.failures);
        if ((how & (RUIN_WRITABLE | RUIN_GO_ON)) == (RUIN_WRITABLE | RUIN_GO_ON))
            go_on(&l);
        if (l.cache != NULL)
            (void)scree_close(l.cache);
    }
    sim_disk_free(disk);
    return outcome;
}
