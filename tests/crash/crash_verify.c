/*
 * crash_verify.c - damage is found, told where it is, and the rest is salvaged (P7).
 *
 * GOAL      scree_verify finds every flipped byte that matters, says where, and finds nothing in a
 *           directory that is whole, whether closed, crashed, or backed up. scree_salvage copies every page
 *           that can be proved, and never a wrong one. Neither writes to what it reads.
 * METHOD    a directory of several segments is made with puts, fragments, frees, batches, compressed pages
 *           and snapshots; closed, or left by a crash. Then one byte after the other is flipped in place (a
 *           sample, or all), and the directory opened read-only, verified, and salvaged.
 * ORACLE    what matters: scree_open and reading all pages gives anything but the state that was; or does so
 *           without the newest snapshot (the older one and the log behind it), or without the newest manifest.
 *           And every byte of snapshots and manifests. What is provable: the list of all updates with the
 *           range of positions in which each one's record lies. A page that is not as it was must have an
 *           update in a stretch that was told; if it is there, it is as it was before that stretch; if it is
 *           lost without a damaged record of its own, a fragment is its first update behind the stretch.
 *           After a crash, damage behind the newest claim of a seal counts as a torn tail.
 *
 * crash_verify [seed] [cases of each directory, 0: every byte] [kilobytes of updates]
 */
#include "support/kit.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 128u
#define STEPS 40000u
#define PAGE_BYTES 3500u
#define FINDINGS 256u
#define HEADER 4096u

struct step {
    uint32_t page; /* id */
    uint32_t len;
    uint64_t from, to; /* its record lies between; to is its version */
    uint64_t hash;     /* of the page behind it */
    bool whole;        /* it says all there is of the page */
    bool live;         /* behind it */
};

struct model {
    uint64_t random;
    uint64_t last;  /* the largest position told */
    uint64_t claim; /* durable, as a later seal says */
    uint32_t n;
    bool live[PAGES];
    uint64_t version[PAGES];
    uint32_t len[PAGES];
    unsigned char bytes[PAGES][PAGE_BYTES];
    struct step step[STEPS];
};

struct found {
    int severity, code;
    char file[64], text[160];
    uint64_t offset, lsn, page, bytes;
};

enum verdict { RIGHT, REFUSED, WRONG };
enum way { AS_IS, NO_SNAPSHOT, NO_MANIFEST, WAYS };

static struct model *m;
static scree_options options;
static char dir[WAYS][KIT_PATH_MAX], rescue[KIT_PATH_MAX], backup[KIT_PATH_MAX];
static struct found found[FINDINGS];
static uint32_t found_n;
static bool fell_back, closed;
static uint64_t mattered, silent, pages_lost, pages_stale, pages_right;

/* ---- making ---- */

static void
step_add(uint32_t id, uint64_t version, uint64_t from, bool whole)
{
    KIT_CHECK(m->n < STEPS, "the test's own limit");
    m->step[m->n++] = (struct step){.page = id,
                                    .len = m->len[id],
                                    .from = from,
                                    .to = version,
                                    .hash = kit_hash(m->bytes[id], m->len[id], 3),
                                    .whole = whole,
                                    .live = m->live[id]};
    m->version[id] = version;
    m->last = version > m->last ? version : m->last;
}

static uint32_t
bytes_make(unsigned char *bytes)
{
    uint32_t len = (uint32_t)kit_below(&m->random, kit_below(&m->random, 4) == 0 ? 1500 : 120);
    uint64_t word = kit_random(&m->random);

    for (uint32_t i = 0; i < len; i++) /* half of them compress */
        bytes[i] = (unsigned char)(word % 2 == 0 ? word >> (i % 8 * 8) : kit_random(&m->random));
    if (len > 0 && bytes[0] == KIT_UNMERGEABLE)
        bytes[0] = 1;
    return len;
}

static void
page_change(uint32_t id, const unsigned char *bytes, uint32_t len, bool whole)
{
    m->len[id] = whole ? 0 : m->len[id];
    memcpy(m->bytes[id] + m->len[id], bytes, len);
    m->len[id] += len;
    m->live[id] = true;
}

static void
step_batch(scree_cache *cache)
{
    unsigned char bytes[1500];
    scree_batch *batch;
    scree_lsn end;
    uint64_t from = m->last;
    uint32_t touched[4], n = 0;
    bool whole[4];

    KIT_CHECK(scree_batch_begin(cache, &batch) == 0, "batch");
    for (uint32_t id = 1; id < PAGES && n < 4; id++) {
        uint32_t len = bytes_make(bytes);

        if (!m->live[id] || kit_below(&m->random, 6) != 0 || m->len[id] + len > PAGE_BYTES)
            continue;
        whole[n] = kit_below(&m->random, 2) == 0;
        KIT_CHECK((whole[n]
                       ? scree_batch_set(batch, id, m->version[id], kit_slice(bytes, len))
                       : scree_batch_merge(batch, id, m->version[id], kit_slice(bytes, len))) == 0,
                  "batch step");
        page_change(id, bytes, len, whole[n]);
        touched[n++] = id;
    }
    KIT_CHECK(scree_batch_commit(batch, &end, NULL) == 0, "commit: %s", scree_error_detail());
    for (uint32_t i = 0; i < n; i++)
        step_add(touched[i], end, from, whole[i]);
}

static void
step_one(scree_cache *cache)
{
    unsigned char bytes[1500];
    uint32_t id = 1 + (uint32_t)kit_below(&m->random, PAGES - 1);
    uint32_t len = bytes_make(bytes);
    uint64_t kind = kit_below(&m->random, 100), from = m->last;
    scree_version version = m->version[id];
    bool whole = !m->live[id] || kind < 30 || m->len[id] + len > PAGE_BYTES;
    int code;

    if (kind >= 92 && m->live[id] && id != SCREE_PAGE_ROOT) {
        code = scree_page_free(cache, id, &version);
        KIT_CHECK(code == 0, "free gave %d", code);
        m->live[id] = false;
        m->len[id] = 0;
        step_add(id, version, from, true);
        return;
    }
    if (!m->live[id])
        code = scree_page_allocate_at(cache, id, kit_slice(bytes, len), &version);
    else if (whole)
        code = scree_page_put(cache, id, kit_slice(bytes, len), &version);
    else
        code = scree_page_append(cache, id, kit_slice(bytes, len), &version);
    if (code == SCREE_E_BUSY)
        return;
    KIT_CHECK(code == 0, "an update gave %d: %s", code, scree_error_detail());
    page_change(id, bytes, len, whole);
    step_add(id, version, from, whole);
}

static void
steps(scree_cache *cache, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (kit_below(&m->random, 12) == 0)
            step_batch(cache);
        else
            step_one(cache);
    }
}

static void
child_make(uint64_t kilobytes)
{
    uint32_t n = (uint32_t)kilobytes * 4;
    scree_cache *cache;
    scree_lsn stable = 0;

    KIT_CHECK(scree_open(dir[AS_IS], &options, &cache) == 0, "open: %s", scree_error_detail());
    KIT_CHECK(scree_page_read(cache, SCREE_PAGE_ROOT, NULL, 0, NULL, &m->last) == 0, "root");
    m->live[SCREE_PAGE_ROOT] = true;
    m->version[SCREE_PAGE_ROOT] = m->last;
    for (int i = 0; i < 3; i++) {
        steps(cache, n / 4);
        KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
        if (i == 1)
            KIT_CHECK(scree_backup(cache, backup, 0, NULL, NULL) == 0, "backup: %s",
                      scree_error_detail());
    }
    steps(cache, n / 4 - 24);
    for (int i = 0; i < 3; i++) {
        m->claim = stable;
        steps(cache, 8);
        KIT_CHECK(scree_flush(cache, &stable) == 0, "flush");
    }
    if (closed) {
        KIT_CHECK(scree_close(cache) == 0, "close");
        m->claim = UINT64_MAX;
    }
}

/* ---- looking ---- */

static int
note(void *ctx, const scree_finding *f)
{
    struct found *to = &found[found_n];

    (void)ctx;
    KIT_CHECK(f->size == sizeof(*f) && f->text != NULL && f->text[0] != '\0', "a bare finding");
    if (f->severity == SCREE_FINDING_NOTE)
        return 0;
    if (found_n == FINDINGS)
        return 0;
    found_n++;
    *to = (struct found){.severity = f->severity,
                         .code = f->code,
                         .offset = f->offset,
                         .lsn = f->lsn,
                         .page = f->page,
                         .bytes = f->bytes};
    (void)snprintf(to->file, sizeof(to->file), "%s", f->file != NULL ? f->file : "");
    (void)snprintf(to->text, sizeof(to->text), "%s", f->text);
    return 0;
}

static void
event(void *ctx, const scree_event *e)
{
    (void)ctx;
    fell_back |= e->kind == SCREE_EVENT_SNAPSHOT_FALLBACK;
}

static bool
fair(int code)
{
    return code == SCREE_E_CORRUPT || code == SCREE_E_FORMAT || code == -ENOENT;
}

/* What opening read-only and reading everything gives. */
static enum verdict
look(const char *path)
{
    unsigned char bytes[8192];
    scree_options o = options;
    scree_cache *cache;
    enum verdict verdict = RIGHT;
    int code;

    o.flags = SCREE_READ_ONLY;
    o.event = event;
    fell_back = false;
    code = scree_open(path, &o, &cache);
    KIT_CHECK(code == 0 || fair(code), "open gave %d: %s", code, scree_error_detail());
    if (code != 0)
        return REFUSED;
    for (uint32_t id = 1; id < PAGES; id++) {
        size_t len = 0;

        code = scree_page_read(cache, id, bytes, sizeof(bytes), &len, NULL);
        if (code == SCREE_E_CORRUPT)
            verdict = verdict == WRONG ? WRONG : REFUSED;
        else if ((code == 0) != m->live[id] ||
                 (code == 0 && (len != m->len[id] || memcmp(bytes, m->bytes[id], len) != 0)))
            verdict = WRONG;
    }
    KIT_CHECK(scree_close(cache) == 0, "close");
    return verdict;
}

/* ---- what a finding covers ---- */

/* Where in the log a byte of a file lies; 0: it is not in the log. */
static uint64_t
lsn_of(const char *file, uint64_t offset)
{
    if (strncmp(file, "segment-", 8) != 0 || offset < HEADER)
        return 0;
    return strtoull(file + 8, NULL, 16) * options.segment_bytes + (offset - HEADER);
}

static bool
located(const struct found *f, const char *file, uint64_t offset)
{
    uint64_t lsn = lsn_of(file, offset);

    if (lsn == 0)
        return strcmp(f->file, file) == 0 &&
               (strncmp(file, "segment-", 8) != 0 || f->offset <= offset);
    return f->lsn <= lsn && lsn < f->lsn + f->bytes;
}

static bool
any_located(const char *file, uint64_t offset)
{
    for (uint32_t i = 0; i < found_n; i++) {
        if (located(&found[i], file, offset))
            return true;
    }
    return false;
}

static void
findings_show(void)
{
    for (uint32_t i = 0; i < found_n && i < 8; i++)
        printf("  severity %d, %s offset %" PRIu64 " lsn %" PRIu64 " bytes %" PRIu64
               " page %" PRIu64 ": %s\n",
               found[i].severity, found[i].file, found[i].offset, found[i].lsn, found[i].bytes,
               found[i].page, found[i].text);
}

/* ---- salvage ---- */

/* Is a fragment the page's first update behind this stretch, and nothing whole came after it? */
static bool
fragment_follows(const struct found *f, uint32_t id)
{
    bool follows = false, whole = false;

    for (uint32_t k = 0; k < m->n; k++) {
        const struct step *s = &m->step[k];

        if (s->page != id || s->to <= f->lsn)
            continue;
        if (s->whole && s->from >= f->lsn + f->bytes) { /* surely behind it */
            follows = false;
            whole = true;
        } else if (!s->whole && !whole) {
            follows = true;
        }
    }
    return follows;
}

/* A page that was told lost: had it to be? */
static bool
loss_is_fair(uint32_t id)
{
    for (uint32_t i = 0; i < found_n; i++) {
        const struct found *f = &found[i];

        if (f->severity == SCREE_FINDING_LOST && f->page == id && f->bytes > 0)
            return true; /* a record of its own */
        if (f->bytes > 0 && f->page == 0 && fragment_follows(f, id))
            return true;
    }
    return false;
}

static bool
told_lost(uint32_t id)
{
    for (uint32_t i = 0; i < found_n; i++) {
        if (found[i].severity == SCREE_FINDING_LOST && found[i].page == id)
            return true;
    }
    return false;
}

/* The page looks like this in the rescue: an older state, and its newer updates lie in a stretch? */
static bool
stale_is_fair(uint32_t id, bool live, const unsigned char *bytes, size_t len)
{
    for (uint32_t i = 0; i < found_n; i++) {
        const struct found *f = &found[i];
        bool hit = false, state = !live; /* before its first update */

        if (f->bytes == 0 || f->page != 0)
            continue;
        for (uint32_t k = 0; k < m->n; k++) {
            const struct step *s = &m->step[k];

            if (s->page != id)
                continue;
            hit |= s->from < f->lsn + f->bytes && f->lsn < s->to;
            if (s->to <= f->lsn || !hit)
                state = s->live == live &&
                        (!live || (s->len == len && s->hash == kit_hash(bytes, len, 3)));
            else if (s->from < f->lsn + f->bytes) /* its record may lie before or in the stretch */
                state |= s->live == live &&
                         (!live || (s->len == len && s->hash == kit_hash(bytes, len, 3)));
        }
        if (hit && state)
            return true;
    }
    return false;
}

static void
rescued_check(const char *file, uint64_t offset)
{
    unsigned char bytes[8192];
    uint64_t lsn = lsn_of(file, offset);
    scree_cache *cache;
    int code = scree_open(rescue, &options, &cache);

    KIT_CHECK(code == 0, "open of what was salvaged gave %d: %s", code, scree_error_detail());
    for (uint32_t id = 1; id < PAGES; id++) {
        size_t len = 0;
        bool fine;

        code = scree_page_read(cache, id, bytes, sizeof(bytes), &len, NULL);
        KIT_CHECK(code == 0 || code == SCREE_E_NOT_FOUND, "page %" PRIu32 " gave %d", id, code);
        fine = (code == 0) == m->live[id] &&
               (code != 0 || (len == m->len[id] && memcmp(bytes, m->bytes[id], len) == 0));
        pages_right += fine;
        if (fine)
            continue;
        if (lsn >= m->claim)
            continue; /* a torn tail, for all anybody knows */
        if (told_lost(id) && (code != 0 || id == SCREE_PAGE_ROOT)) {
            if (!loss_is_fair(id))
                findings_show();
            KIT_CHECK(loss_is_fair(id), "page %" PRIu32 " is told lost, and is provable", id);
            pages_lost++;
            continue;
        }
        if (!stale_is_fair(id, code == 0, bytes, len))
            findings_show();
        KIT_CHECK(stale_is_fair(id, code == 0, bytes, len),
                  "page %" PRIu32 " (%s) is neither what it was, nor told lost, nor older", id,
                  code == 0 ? "there" : "not there");
        pages_stale++;
    }
    KIT_CHECK(scree_close(cache) == 0, "close");
}

/* ---- a case ---- */

static void
byte_flip(const char *path, const char *file, uint64_t offset, unsigned char bits)
{
    char name[KIT_PATH_MAX * 2];
    unsigned char byte;
    FILE *f;

    snprintf(name, sizeof(name), "%s/%s", path, file);
    f = fopen(name, "r+b");
    if (f == NULL)
        return; /* this way it is not there */
    KIT_CHECK(fseek(f, (long)offset, SEEK_SET) == 0 && fread(&byte, 1, 1, f) == 1, "read %s", name);
    byte ^= bits;
    KIT_CHECK(fseek(f, (long)offset, SEEK_SET) == 0 && fwrite(&byte, 1, 1, f) == 1, "write");
    KIT_CHECK(fclose(f) == 0, "close");
}

static bool
must_be_found(const char *file, uint64_t offset)
{
    uint64_t lsn = lsn_of(file, offset);
    bool matters = strncmp(file, "snapshot-", 9) == 0 || strncmp(file, "manifest-", 9) == 0;

    for (int way = 0; way < WAYS; way++) {
        enum verdict v = look(dir[way]);

        KIT_CHECK(v != WRONG || lsn >= m->claim ||
                      (!closed && strncmp(file, "segment-", 8) == 0 && lsn == 0),
                  "open gives what never was (way %d)", way);
        matters |= v == REFUSED || (way == AS_IS && fell_back) ||
                   (v == WRONG && lsn < m->claim && lsn != 0);
    }
    return matters;
}

static void
case_run(const char *file, uint64_t offset, unsigned char bits, bool salvages)
{
    bool must;
    int code;

    alarm(60);
    snprintf(kit_context, sizeof(kit_context), "%s, %s: byte %" PRIu64 " xor %u",
             closed ? "closed" : "crashed", file, offset, bits);
    for (int way = 0; way < WAYS; way++)
        byte_flip(dir[way], file, offset, bits);
    must = must_be_found(file, offset);
    found_n = 0;
    code = scree_verify(dir[AS_IS], &options, note, NULL, NULL);
    KIT_CHECK(code == 0 || code == SCREE_E_CORRUPT, "verify gave %d: %s", code,
              scree_error_detail());
    KIT_CHECK((code != 0) == (found_n > 0), "verify gave %d with %" PRIu32 " findings", code,
              found_n);
    KIT_CHECK(!must || found_n > 0, "this damage matters, and was not found");
    if (found_n > 0 && !any_located(file, offset))
        findings_show();
    KIT_CHECK(found_n == 0 || any_located(file, offset), "found, and told to be elsewhere");
    mattered += must;
    silent += found_n == 0;
    if (salvages) {
        found_n = 0;
        code = scree_salvage(dir[AS_IS], rescue, &options, note, NULL, NULL);
        KIT_CHECK(code == 0 || code == SCREE_E_CORRUPT, "salvage gave %d: %s", code,
                  scree_error_detail());
        rescued_check(file, offset);
        kit_dir_remove(rescue);
    }
    for (int way = 0; way < WAYS; way++)
        byte_flip(dir[way], file, offset, bits);
}

/* The same directory without its newest snapshot, without its newest manifest. */
static void
ways_make(const struct kit_files *files)
{
    char path[KIT_PATH_MAX * 2];

    for (int way = NO_SNAPSHOT; way < WAYS; way++) {
        const char *prefix = way == NO_SNAPSHOT ? "snapshot-" : "manifest-";
        const char *newest = NULL;

        for (size_t i = 0; i < files->n; i++) {
            if (strncmp(files->name[i], prefix, 9) == 0 && files->name[i][25] == '\0')
                newest = files->name[i];
        }
        KIT_CHECK(newest != NULL, "no %s", prefix);
        kit_dir_copy(dir[AS_IS], dir[way]);
        snprintf(path, sizeof(path), "%s/%s", dir[way], newest);
        KIT_CHECK(unlink(path) == 0, "unlink");
    }
}

static void
whole_check(void)
{
    uint64_t before = kit_dir_fingerprint(dir[AS_IS], true);
    int code;

    for (int way = 0; way < WAYS; way++)
        KIT_CHECK(look(dir[way]) == RIGHT, "the directory itself is not right (way %d)", way);
    found_n = 0;
    code = scree_verify(dir[AS_IS], &options, note, NULL, NULL);
    findings_show();
    KIT_CHECK(code == 0 && found_n == 0, "verify finds something in a whole directory: %d", code);
    code = scree_salvage(dir[AS_IS], rescue, &options, note, NULL, NULL);
    KIT_CHECK(code == 0 && found_n == 0, "salvage gave %d: %s", code, scree_error_detail());
    rescued_check("", 0);
    KIT_CHECK(pages_right == PAGES - 1, "not every page was salvaged");
    found_n = 0;
    code = scree_verify(rescue, &options, note, NULL, NULL);
    KIT_CHECK(code == 0, "verify of what was salvaged gave %d", code);
    kit_dir_remove(rescue);
    kit_verify(backup, &options);
    kit_dir_remove(backup);
    KIT_CHECK(kit_dir_fingerprint(dir[AS_IS], true) == before, "the source was written to");
}

/* About so many bytes of it: of those that are not amid zeros, each with the same chance. */
static uint64_t
file_run(const char *file, uint64_t cases)
{
    size_t len;
    unsigned char *data = kit_file_read(dir[AS_IS], file, &len);
    uint64_t worth = 0, run = 0;

    KIT_CHECK(data != NULL, "cannot read %s", file);
    for (size_t at = 0; at < len; at++)
        worth += data[at] != 0 || at % 512 == 0;
    for (size_t at = 0; at < len; at++) {
        if ((data[at] == 0 && at % 512 != 0) ||
            (cases < worth && kit_below(&m->random, worth) >= cases))
            continue;
        case_run(file, at, (unsigned char)(1u << kit_below(&m->random, 8)), run % 2 == 0);
        run++;
    }
    free(data);
    return run;
}

static void
directory_run(uint64_t seed, bool close_it, uint64_t cases, uint64_t kilobytes)
{
    struct kit_files files;
    uint64_t total = 0, run = 0;
    int status = 0;
    pid_t child;

    closed = close_it;
    memset(m, 0, sizeof(*m));
    m->random = seed * 2 + close_it;
    for (int way = 0; way < WAYS; way++)
        kit_dir_name(dir[way], "verify");
    kit_dir_name(rescue, "rescue");
    kit_dir_name(backup, "backup");
    mattered = silent = pages_lost = pages_stale = pages_right = 0;
    (void)fflush(stdout);
    child = fork();
    KIT_CHECK(child >= 0, "fork");
    if (child == 0) {
        child_make(kilobytes);
        _exit(0);
    }
    KIT_CHECK(waitpid(child, &status, 0) == child && status == 0, "making the directory");
    kit_dir_list(dir[AS_IS], &files);
    ways_make(&files);
    whole_check();
    for (size_t i = 0; i < files.n; i++)
        total += files.size[i];
    for (size_t i = 0; i < files.n; i++) {
        if (strncmp(files.name[i], "DO_NOT", 6) != 0 && strcmp(files.name[i], "SPARE") != 0)
            run += file_run(files.name[i], cases == 0 ? UINT64_MAX : cases / files.n + 1);
    }
    printf("seed %" PRIu64 ", %s: %zu files, %" PRIu64 " bytes, %" PRIu32 " updates; %" PRIu64
           " flips, %" PRIu64 " mattered, %" PRIu64 " silent; pages right %" PRIu64
           ", lost %" PRIu64 ", older %" PRIu64 "\n",
           seed, closed ? "closed" : "crashed", files.n, total, m->n, run, mattered, silent,
           pages_right, pages_lost, pages_stale);
    KIT_CHECK(mattered > 0 && silent > 0, "the damage did nothing, or all");
    for (int way = 0; way < WAYS; way++)
        kit_dir_remove(dir[way]);
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t cases = kit_argument(argc, argv, 2, 90);
    uint64_t kilobytes = kit_argument(argc, argv, 3, 600);

    m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    KIT_CHECK(m != MAP_FAILED, "no memory");
    kit_options_small(&options, &kit_concat);
    options.compression_level = 1;
    options.snapshot_log_bytes = UINT64_C(1) << 40; /* only when asked for */
    directory_run(seed, false, cases, kilobytes);   /* more can go wrong there */
    directory_run(seed, true, cases, kilobytes);
    printf("ok\n");
    return 0;
}
