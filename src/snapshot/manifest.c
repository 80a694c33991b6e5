/*
 * manifest.c - which snapshots there are, what the directory was created with; names of our files.
 *
 * LAYOUT  little-endian; the bytes are specified in docs/snapshot_format.md
 *     0  magic 8 | version 4 | check 4 | number 8 | uuid 16 | segment_bytes 8
 *    48  materializer version 4 | name length 2 | generations 1 | zero 1 | name
 *        per generation, newest first:  replay_lsn 8 | stable_lsn 8 | files 4 | zero 4
 *            per file, oldest first:    type 4 | zero 4 | number 8 | bytes 8 | hash 8
 *        hash 8, of all before it
 *   The first file of a generation is full, the others are deltas. Two generations may share files.
 * PROTOCOL  of publishing; no atomics, one thread at a time stores
 *   1 the snapshot file is whole, synced, and its name is durable (writer.c)
 *   2 manifest-<n>.tmp: write, sync, rename to manifest-<n>, sync the directory: published
 *   3 what neither manifest n nor its predecessor needs is unlinked
 *   Crash before 2 is done: the old manifest rules, and all it names is there. Crash in 3: rubbish,
 *   unlinked by a later store.
 * INVARIANTS
 *   I1 every file named by the newest manifest, and by the newest valid one before it, exists.
 *   I2 only names of exactly our pattern are ever unlinked, and of those
 *        manifest        numbered below the predecessor (below n - 1, if none is valid)
 *        manifest .tmp   numbered below n
 *        snapshot        named by neither, and numbered below the newest that n names: one still in
 *                        the making, or finished but not yet published, has a higher number, or is
 *                        kept by keep_from, as are those that somebody reads
 *        snapshot .tmp   numbered below the newest that n names, and below keep_from
 *   I3 damage is passed over towards an older manifest; an unknown version never is: what a newer
 *      library did must not be undone by an older one.
 * FAILURE  before 2: an error, nothing left behind. In 2's last step: an error, and manifest n may
 *   or may not survive a power cut; both are consistent. In 3: no error, the next store meets the
 *   files again.
 * NOT HERE  what is in a snapshot (codec.c), when to write one (pagecache).
 * REFS  docs/snapshot_format.md.
 */
#include "snapshot/snapshot_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FIXED_BYTES 56u
#define GENERATION_BYTES 24u
#define FILE_BYTES 32u
#define NAME_MAX_BYTES 255u /* of a materializer; struct scree__manifest has room for its NUL */
#define MANIFEST_BYTES_MAX          \
    (FIXED_BYTES + NAME_MAX_BYTES + \
     SCREE__GENERATIONS_MAX * (GENERATION_BYTES + SCREE__GENERATION_FILES_MAX * FILE_BYTES) + 8u)
#define SEGMENT_BYTES_MIN (64u * 1024)
#define SEGMENT_BYTES_MAX ((uint64_t)1 << 40)
#define CANDIDATES_MAX 8u /* manifests looked at, newest first; there are two or three */
#define VICTIMS_MAX \
    128u /* files unlinked by one store, which makes two; merging supersedes up to 64 */

static_assert(sizeof((struct scree__manifest *)0)->materializer == NAME_MAX_BYTES + 1,
              "with its NUL");

/* ---- names ----------------------------------------------------------------------------------- */

static const char *const name_prefix[] = {
    [SCREE__SNAPSHOT_FILE] = "snapshot-", [SCREE__MANIFEST_FILE] = "manifest-"};

void
scree__snapshot_name(char name_out[SCREE__SNAPSHOT_NAME_BYTES], enum scree__file_kind file,
                     uint64_t number, bool tmp)
{
    (void)snprintf(name_out, SCREE__SNAPSHOT_NAME_BYTES, "%s%016" PRIx64 "%s", name_prefix[file],
                   number, tmp ? ".tmp" : "");
}

bool
scree__snapshot_name_parse(const char *name, enum scree__file_kind *file_out, uint64_t *number_out,
                           bool *tmp_out)
{
    uint64_t number = 0;
    const char *digits = name + 9;
    char again[SCREE__SNAPSHOT_NAME_BYTES];

    *file_out = SCREE__SNAPSHOT_FILE;
    *number_out = 0;
    *tmp_out = false;
    if (strlen(name) < 9 + 16)
        return false;
    for (unsigned i = 0; i < 16; i++) {
        char c = digits[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 16;

        if (digit == 16)
            return false;
        number = number << 4 | digit;
    }
    *file_out = name[0] == 'm' ? SCREE__MANIFEST_FILE : SCREE__SNAPSHOT_FILE;
    *number_out = number;
    *tmp_out = digits[16] != '\0';
    /* Ours is what we would write ourselves, to the byte. */
    scree__snapshot_name(again, *file_out, number, *tmp_out);
    return strcmp(name, again) == 0;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

uint64_t
scree__generation_bytes(const struct scree__generation *g)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < g->files; i++)
        bytes += g->file[i].bytes;
    return bytes;
}

uint64_t
scree__generation_number_max(const struct scree__generation *g)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < g->files; i++)
        most = scree__max_u64(most, g->file[i].number);
    return most;
}

static bool
generation_names(const struct scree__generation *g, uint64_t number)
{
    for (uint32_t i = 0; i < g->files; i++) {
        if (g->file[i].number == number)
            return true;
    }
    return false;
}

uint64_t
scree__generations_bytes(const struct scree__generation *g, uint32_t n)
{
    uint64_t bytes = n > 0 ? scree__generation_bytes(g) : 0;

    for (uint32_t i = 1; i < n; i++) {
        for (uint32_t k = 0; k < g[i].files; k++)
            bytes += generation_names(&g[i - 1], g[i].file[k].number) ? 0 : g[i].file[k].bytes;
    }
    return bytes;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static const char *
files_check(const struct scree__generation *g)
{
    if (g->files == 0 || g->files > SCREE__GENERATION_FILES_MAX)
        return "a generation has no files, or too many";
    for (uint32_t i = 0; i < g->files; i++) {
        const struct scree__snapshot_file *f = &g->file[i];

        if (f->bytes < SCREE__SNAPSHOT_FILE_BYTES_MIN || f->bytes > INT64_MAX)
            return "a generation's file has an impossible length";
        if (i > 0 && f->number <= g->file[0].number)
            return "a generation's full file is not its first";
        for (uint32_t k = 1; k < i; k++) {
            if (g->file[k].number == f->number)
                return "a generation names a file twice";
        }
    }
    return NULL;
}

static const char *
generations_check(const struct scree__manifest *m)
{
    if (m->generations > SCREE__GENERATIONS_MAX)
        return "too many generations";
    for (uint32_t i = 0; i < m->generations; i++) {
        const struct scree__generation *g = &m->generation[i];
        const char *problem = files_check(g);

        if (problem)
            return problem;
        if (g->replay_lsn > g->stable_lsn)
            return "a generation's replay start is not stable";
        if (g->stable_lsn > SCREE__LSN_MAX)
            return "a generation is stable up to where no log ends";
        if (i > 0 &&
            (scree__generation_newest(g)->number >= scree__generation_newest(g - 1)->number ||
             g->replay_lsn > g[-1].replay_lsn))
            return "generations are not newest first";
    }
    return NULL;
}

static const char *
manifest_check(const struct scree__manifest *m)
{
    if (m->number == 0)
        return "0 is no manifest's number";
    if (m->segment_bytes < SEGMENT_BYTES_MIN || m->segment_bytes > SEGMENT_BYTES_MAX ||
        m->segment_bytes % SCREE_BLOCK != 0)
        return "segment_bytes is not from 64 KiB to 1 TiB, or no multiple of 4 KiB";
    if (!memchr(m->materializer, 0, sizeof m->materializer))
        return "the materializer's name does not end";
    return generations_check(m);
}

static unsigned char *
generation_put(unsigned char *p, const struct scree__generation *g)
{
    scree__le64_put(p, g->replay_lsn);
    scree__le64_put(p + 8, g->stable_lsn);
    scree__le32_put(p + 16, g->files);
    scree__le32_put(p + 20, 0);
    p += GENERATION_BYTES;
    for (uint32_t i = 0; i < g->files; i++, p += FILE_BYTES) {
        scree__le32_put(p, i == 0 ? SCREE__SNAPSHOT_FULL : SCREE__SNAPSHOT_DELTA);
        scree__le32_put(p + 4, 0);
        scree__le64_put(p + 8, g->file[i].number);
        scree__le64_put(p + 16, g->file[i].bytes);
        scree__le64_put(p + 24, g->file[i].hash);
    }
    return p;
}

static size_t
manifest_put(unsigned char bytes[MANIFEST_BYTES_MAX], const struct scree__manifest *m)
{
    size_t name_len = strlen(m->materializer);
    unsigned char *p = bytes + FIXED_BYTES;

    scree__snapshot_prefix_put(bytes, SCREE__MANIFEST_MAGIC, SCREE__MANIFEST_VERSION);
    scree__le64_put(bytes + 16, m->number);
    memcpy(bytes + 24, m->uuid, 16);
    scree__le64_put(bytes + 40, m->segment_bytes);
    scree__le32_put(bytes + 48, m->materializer_version);
    bytes[52] = (unsigned char)name_len;
    bytes[53] = (unsigned char)(name_len >> 8);
    bytes[54] = (unsigned char)m->generations;
    bytes[55] = 0;
    memcpy(p, m->materializer, name_len);
    p += name_len;
    for (uint32_t i = 0; i < m->generations; i++)
        p = generation_put(p, &m->generation[i]);
    scree__le64_put(p, XXH3_64bits(bytes, (size_t)(p - bytes)));
    return (size_t)(p - bytes) + 8;
}

static const char *
file_get(const unsigned char *p, bool first, struct scree__snapshot_file *f)
{
    if (scree__le32_get(p) != (first ? SCREE__SNAPSHOT_FULL : SCREE__SNAPSHOT_DELTA) ||
        scree__le32_get(p + 4) != 0)
        return "a generation's files are not a full one and deltas";
    f->number = scree__le64_get(p + 8);
    f->bytes = scree__le64_get(p + 16);
    f->hash = scree__le64_get(p + 24);
    return NULL;
}

/* *at is moved on, up to end. */
static const char *
generation_get(const unsigned char **at, const unsigned char *end, struct scree__generation *g)
{
    const unsigned char *p = *at;
    const char *problem = NULL;

    if ((size_t)(end - p) < GENERATION_BYTES)
        return "its length is not that of its contents";
    g->replay_lsn = scree__le64_get(p);
    g->stable_lsn = scree__le64_get(p + 8);
    g->files = scree__le32_get(p + 16);
    if (g->files == 0 || g->files > SCREE__GENERATION_FILES_MAX || scree__le32_get(p + 20) != 0)
        return "a generation has no files, or too many";
    p += GENERATION_BYTES;
    if ((size_t)(end - p) < g->files * (size_t)FILE_BYTES)
        return "its length is not that of its contents";
    for (uint32_t i = 0; i < g->files && !problem; i++, p += FILE_BYTES)
        problem = file_get(p, i == 0, &g->file[i]);
    *at = p;
    return problem;
}

/* The prefix has been checked. */
static const char *
manifest_get(const unsigned char *bytes, size_t len, struct scree__manifest *m_out)
{
    const unsigned char *p = bytes + FIXED_BYTES, *end;
    const char *problem = NULL;
    size_t name_len;

    if (len < FIXED_BYTES + 8 || len > MANIFEST_BYTES_MAX)
        return "its length is out of bounds";
    end = bytes + len - 8;
    if (scree__le64_get(bytes + len - 8) != XXH3_64bits(bytes, len - 8))
        return "it fails its checksum";
    m_out->number = scree__le64_get(bytes + 16);
    memcpy(m_out->uuid, bytes + 24, 16);
    m_out->segment_bytes = scree__le64_get(bytes + 40);
    m_out->materializer_version = scree__le32_get(bytes + 48);
    m_out->generations = bytes[54];
    name_len = (size_t)bytes[52] | (size_t)bytes[53] << 8;
    if (name_len > NAME_MAX_BYTES || m_out->generations > SCREE__GENERATIONS_MAX || bytes[55] != 0)
        return "a count is out of bounds";
    if (name_len > (size_t)(end - p))
        return "its length is not that of its contents";
    if (memchr(p, 0, name_len))
        return "the materializer's name holds a NUL";
    memcpy(m_out->materializer, p, name_len);
    p += name_len;
    for (uint32_t i = 0; i < m_out->generations && !problem; i++)
        problem = generation_get(&p, end, &m_out->generation[i]);
    if (!problem && p != end)
        problem = "its length is not that of its contents";
    return problem ? problem : manifest_check(m_out);
}

/* ---- load ------------------------------------------------------------------------------------ */

void
scree__snapshot_newest_keep(const char *name, enum scree__file_kind kind, uint64_t at_most,
                            uint64_t *number, unsigned *n, unsigned cap)
{
    enum scree__file_kind found;
    uint64_t new;
    unsigned i;
    bool tmp;

    if (!scree__snapshot_name_parse(name, &found, &new, &tmp) || tmp || found != kind ||
        new > at_most)
        return;
    for (i = 0; i < *n && number[i] > new; i++)
        continue;
    if (i == cap)
        return;
    if (*n < cap)
        ++*n;
    memmove(&number[i + 1], &number[i], (*n - i - 1) * sizeof number[0]);
    number[i] = new;
}

/* The newest manifests of a directory, newest first. */
struct candidates {
    uint64_t newest; /* none above it */
    uint64_t number[CANDIDATES_MAX];
    unsigned count;
};

static int
candidates_visit(void *ctx, const char *name)
{
    struct candidates *c = ctx;

    scree__snapshot_newest_keep(name, SCREE__MANIFEST_FILE, c->newest, c->number, &c->count,
                                CANDIDATES_MAX);
    return 0;
}

/* Up to MANIFEST_BYTES_MAX + 1 bytes, so that a longer file shows. */
static int
manifest_read(const scree_env *env, const char *path, unsigned char *bytes, size_t *len_out)
{
    int file = env->open(env->ctx, path, SCREE_ENV_READ);
    int rc;

    *len_out = 0;
    if (file ==
        -ENOENT) /* it was listed: gone since, or a dangling link. -ENOENT would say "new here" */
        return scree__fail(SCREE_E_CORRUPT, "%s: listed but not there", path);
    if (file < 0)
        return scree__fail(file, "%s: open: %s", path, scree_strerror(file));
    rc = scree__env_read_all(env, file, bytes, MANIFEST_BYTES_MAX + 1, 0, len_out);
    if (rc != 0)
        rc = scree__fail(rc, "%s: %s", path, scree_error_detail());
    (void)env->close(env->ctx, file); /* it was only read */
    return rc;
}

/* CORRUPT: this one is of no use, another may be. */
int
scree__manifest_load_one(const scree_env *env, const char *dir, uint64_t number,
                         struct scree__manifest *m_out)
{
    unsigned char bytes[MANIFEST_BYTES_MAX + 1];
    char name[SCREE__SNAPSHOT_NAME_BYTES];
    const char *problem;
    uint32_t version = 0;
    size_t len;
    char *path;
    int rc;

    memset(m_out, 0, sizeof *m_out);
    scree__snapshot_name(name, SCREE__MANIFEST_FILE, number, false);
    path = scree__path_join(dir, name);
    if (!path)
        return scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to read %s", dir, name);
    rc = manifest_read(env, path, bytes, &len);
    scree__path_free(path);
    if (rc != 0)
        return rc;
    problem = len < SCREE__SNAPSHOT_PREFIX_BYTES
                  ? "it ends early"
                  : scree__snapshot_prefix_get(bytes, SCREE__MANIFEST_MAGIC, &version);
    if (!problem && version != SCREE__MANIFEST_VERSION)
        return scree__fail(SCREE_E_FORMAT,
                           "%s/%s: format version %" PRIu32 ", this library knows %u; "
                           "use the library that wrote it, or a newer one",
                           dir, name, version, SCREE__MANIFEST_VERSION);
    if (!problem)
        problem = manifest_get(bytes, len, m_out);
    if (!problem && m_out->number != number)
        problem = "it was written under another number";
    if (problem)
        return scree__fail(SCREE_E_CORRUPT, "%s/%s: manifest of %zu bytes: %s", dir, name, len,
                           problem);
    return 0;
}

/* The newest valid one that is not above `newest`. */
static int
manifest_load_from(const scree_env *env, const char *dir, uint64_t newest,
                   struct scree__manifest *m_out, uint32_t *skipped_out)
{
    struct candidates c = {.newest = newest};
    int rc = env->list(env->ctx, dir, candidates_visit, &c);

    memset(m_out, 0, sizeof *m_out);
    *skipped_out = 0;
    if (rc < 0)
        return scree__fail(rc, "%s: list: %s", dir, scree_strerror(rc));
    if (c.count == 0)
        return scree__fail(-ENOENT, "%s: no manifest: nothing was created here", dir);
    for (unsigned i = 0; i < c.count; i++) {
        rc = scree__manifest_load_one(env, dir, c.number[i], m_out);
        if (rc != SCREE_E_CORRUPT)
            break; /* valid, or I3, or not to be read: no reason to go back in time */
        ++*skipped_out;
    }
    if (rc != 0)
        memset(m_out, 0, sizeof *m_out);
    return rc;
}

int
scree__manifest_load(const scree_env *env, const char *dir, struct scree__manifest *m_out,
                     uint32_t *skipped_out)
{
    uint32_t skipped;

    return manifest_load_from(env, dir, UINT64_MAX, m_out, skipped_out ? skipped_out : &skipped);
}

/* ---- store ----------------------------------------------------------------------------------- */

/* What may go, I2. */
struct victims {
    const struct scree__manifest *now, *before; /* before: all zero if there is none */
    uint64_t manifests_below;
    uint64_t snapshots_below; /* and below keep_from */
    char name[VICTIMS_MAX][SCREE__SNAPSHOT_NAME_BYTES];
    unsigned count;
};

static bool
manifest_names(const struct scree__manifest *m, uint64_t snapshot)
{
    for (uint32_t i = 0; i < m->generations; i++) {
        if (generation_names(&m->generation[i], snapshot))
            return true;
    }
    return false;
}

static int
victims_visit(void *ctx, const char *name)
{
    struct victims *v = ctx;
    enum scree__file_kind file;
    uint64_t number;
    bool tmp, goes;

    if (!scree__snapshot_name_parse(name, &file, &number, &tmp))
        return 0;
    if (file == SCREE__MANIFEST_FILE)
        goes = number < (tmp ? v->now->number : v->manifests_below);
    else
        goes = number < v->snapshots_below &&
               (tmp || (!manifest_names(v->now, number) && !manifest_names(v->before, number)));
    if (goes)
        scree__snapshot_name(v->name[v->count++], file, number, tmp);
    return v->count == VICTIMS_MAX; /* the rest goes next time */
}

static void
victim_unlink(const scree_env *env, const char *dir, const char *name)
{
    char *path = scree__path_join(dir, name);

    if (!path)
        return;
    (void)env->unlink(env->ctx, path);
    scree__path_free(path);
}

/* Failures here cost disk space until the next store, nothing else. */
static void
manifest_clean(const scree_env *env, const char *dir, const struct scree__manifest *m,
               uint64_t keep_from)
{
    struct scree__manifest before;
    struct victims v = {.now = m, .before = &before};
    uint64_t previous = m->number - 1;
    uint32_t skipped;
    int rc = manifest_load_from(env, dir, previous, &before, &skipped);

    if (rc == 0)
        v.manifests_below = before.number;
    else if (rc == SCREE_E_CORRUPT || rc == -ENOENT)
        v.manifests_below = previous;
    else
        return; /* the predecessor could not be read, so what it needs is not known */
    v.snapshots_below = m->generations > 0 ? scree__generation_number_max(&m->generation[0]) : 0;
    if (v.snapshots_below > keep_from)
        v.snapshots_below = keep_from;
    /* Unlinked after the listing: an env need not bear both at once. */
    (void)env->list(env->ctx, dir, victims_visit, &v);
    for (unsigned i = 0; i < v.count; i++)
        victim_unlink(env, dir, v.name[i]);
}

int
scree__manifest_store(const scree_env *env, const char *dir, const struct scree__manifest *m)
{
    return scree__manifest_store_keeping(env, dir, m, UINT64_MAX);
}

int
scree__manifest_store_keeping(const scree_env *env, const char *dir,
                              const struct scree__manifest *m, uint64_t keep_from)
{
    unsigned char bytes[MANIFEST_BYTES_MAX];
    char name[SCREE__SNAPSHOT_NAME_BYTES];
    const char *problem = manifest_check(m);
    int rc;

    scree__snapshot_name(name, SCREE__MANIFEST_FILE, m->number, false);
    if (problem)
        return scree__fail(SCREE_E_INVALID, "%s/%s: %s", dir, name, problem);
    rc = scree__env_replace_file(env, dir, name, bytes, manifest_put(bytes, m));
    if (rc != 0)
        return rc;
    manifest_clean(env, dir, m, keep_from);
    scree__fail_clear(); /* what cleaning met is no failure of this call */
    return 0;
}
