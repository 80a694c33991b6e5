/*
 * crash_verify.c - damage is found, told where it is, and the rest is salvaged (P7).
 *
 * GOAL      scree_verify finds every flipped byte that matters, says where, and finds nothing in a
 *           directory that is whole, whether closed, crashed, or backed up. scree_open never gives what was not
 *           there. scree_salvage copies every page that can be proved, and never a wrong one. None of them
 *           writes to what it reads.
 * METHOD    directories on a disk in memory (sim_disk.h): closed or left by a crash; with delta snapshots that
 *           share files; with batches, compressed pages, a fold, and punched holes; a large one with all of it.
 *           Then one byte after the other is changed, one bit of it or many, each byte of the
 *           small ones or a sample, and the directory opened read-only, verified, and salvaged. Each 8th is
 *           opened for writing, too. Bytes that verify says nothing about are salvaged each 8th time; amid
 *           zeros (holes, room ahead) it is each 64th for both. Of SPARE, zeros that are there for their room
 *           and read by nobody, each 512th byte is enough.
 * ORACLE    what matters: scree_open and reading all pages gives anything but the state that was; or does so
 *           without the newest snapshot (the older one and the log behind it), or without the newest manifest.
 *           And every byte of manifests and the snapshots they name. Where: each finding is about the byte, or
 *           a page or state that is lost for it; in the record of an update it names where this record begins
 *           and ends. What is provable: ledger.h. After a crash, damage behind the newest claim of a seal
 *           counts as a torn tail.
 *
 * crash_verify [seed] [cases of each directory, 0: every byte] [directory; all of them without] [first case]
 *   A failure tells its case: run it again with "<seed> 0 <directory> <case>", 1 as a fifth argument for that
 *   one alone.
 */
#include "support/ledger.h"
#include "support/sim_disk.h"

#include "snapshot/snapshot_private.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define HEADER 4096u
#define DEAD 26u /* pages of 3,000 bytes: a granule, and something */
#define SRC "/d"
#define DST "/rescue"
#define BACKUP "/backup"

/* How a directory is made. */
struct recipe {
    const char *name;
    const scree_materializer *materializer;
    uint64_t segment_bytes;
    uint32_t pages, changed; /* ids; of them, changed between snapshots */
    uint32_t steps, few;     /* before the first snapshot; between the others */
    uint32_t snapshots;
    int compression;
    bool closed, holes, backup;
};

static const struct recipe recipes[] = {
    {.name = "closed",
     .segment_bytes = 65536,
     .pages = 12,
     .changed = 12,
     .steps = 60,
     .few = 25,
     .snapshots = 3,
     .closed = true,
     .materializer = &kit_concat},
    {.name = "crashed",
     .segment_bytes = 65536,
     .pages = 12,
     .changed = 12,
     .steps = 60,
     .few = 25,
     .snapshots = 3,
     .materializer = &kit_concat},
    {.name = "deltas",
     .segment_bytes = 65536,
     .pages = 96,
     .changed = 12,
     .steps = 150,
     .few = 12,
     .snapshots = 4,
     .closed = true,
     .materializer = &kit_concat_fold},
    {.name = "deltas, crashed",
     .segment_bytes = 65536,
     .pages = 96,
     .changed = 12,
     .steps = 150,
     .few = 12,
     .snapshots = 4,
     .materializer = &kit_concat_fold},
    {.name = "holes",
     .segment_bytes = 131072,
     .pages = 40,
     .changed = 10,
     .steps = 120,
     .few = 30,
     .snapshots = 2,
     .compression = 1,
     .holes = true,
     .materializer = &kit_concat},
    {.name = "large, crashed",
     .segment_bytes = 65536,
     .pages = 128,
     .changed = 128,
     .steps = 800,
     .few = 500,
     .snapshots = 3,
     .compression = 1,
     .backup = true,
     .materializer = &kit_concat},
    {.name = "large, closed",
     .segment_bytes = 65536,
     .pages = 128,
     .changed = 40,
     .steps = 1500,
     .few = 200,
     .snapshots = 5,
     .compression = 1,
     .backup = true,
     .closed = true,
     .materializer = &kit_concat_fold},
};
#define RECIPES (sizeof(recipes) / sizeof(recipes[0]))

enum way { AS_IS, NO_SNAPSHOT, NO_MANIFEST, WAYS };

static uint64_t seed;
static const struct recipe *recipe;
static scree_options options;
static struct ledger *l;
static struct sim_image *image[WAYS];
static struct ledger_findings findings;
static bool fell_back;
static uint64_t claim; /* below it nothing counts as torn */

static struct {
    uint64_t flips, empty, mattered, found, silent, salvaged, written;
    struct ledger_rescued pages;
} sum;

/* ---- making ---- */

/* Dead bytes over more than a granule, before everything else; and given back, behind the second snapshot. */
static void
dead_make(scree_cache *cache)
{
    unsigned char bytes[3000];
    uint64_t random = seed;
    scree_page_id id;
    scree_version version;

    for (unsigned i = 0; i < DEAD; i++) {
        for (size_t k = 0; k < sizeof(bytes); k++)
            bytes[k] = (unsigned char)kit_random(&random);
        KIT_CHECK(scree_page_allocate(cache, kit_slice(bytes, sizeof(bytes)), &id, &version) == 0 &&
                      scree_page_free(cache, id, &version) == 0,
                  "a page that dies: %s", scree_error_detail());
    }
}

static void
holes_wait(scree_cache *cache)
{
    scree_stats stats = {.size = sizeof(stats)};

    for (unsigned i = 0; i < 10000 && stats.punched_bytes == 0; i++) {
        usleep(1000);
        KIT_CHECK(scree_stats_get(cache, &stats) == 0, "stats");
    }
    KIT_CHECK(stats.punched_bytes > 0, "no hole was punched");
}

static void
snapshots_make(scree_cache *cache)
{
    for (uint32_t i = 0; i < recipe->snapshots; i++) {
        ledger_steps(l, cache, i == 0 ? recipe->steps : recipe->few, 1,
                     i == 0 ? recipe->pages : recipe->changed);
        ledger_flush(l, cache);
        KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
        if (i == 1 && recipe->backup)
            KIT_CHECK(scree_backup(cache, BACKUP, 0, NULL, NULL) == 0, "backup: %s",
                      scree_error_detail());
    }
}

/* The disk with the directory, and what it must hold. */
static struct sim_disk *
directory_make(void)
{
    struct sim_disk *disk = sim_disk_new(NULL, seed), *crashed;
    struct sim_image *now;
    scree_cache *cache;

    sim_disk_record(disk, false);
    options.env = sim_disk_env(disk);
    KIT_CHECK(scree_open(SRC, &options, &cache) == 0, "open: %s", scree_error_detail());
    if (recipe->holes)
        dead_make(cache);
    l = ledger_new(cache, seed * 8 + (uint64_t)(recipe - recipes), recipe->pages);
    snapshots_make(cache);
    if (recipe->holes)
        holes_wait(cache);
    for (int i = 0; i < 3; i++) {
        ledger_steps(l, cache, 6, 1, recipe->changed);
        ledger_flush(l, cache);
    }
    ledger_end(l);
    claim = recipe->closed ? UINT64_MAX : l->claim;
    if (recipe->closed) {
        KIT_CHECK(scree_close(cache) == 0, "close");
        return disk;
    }
    now = sim_disk_image(disk);
    KIT_CHECK(scree_close(cache) == 0, "close");
    sim_disk_free(disk);
    crashed = sim_disk_new(now, seed);
    sim_image_free(now);
    return crashed;
}

/* The file of SRC with that name in the image; files if there is none. */
static size_t
file_of(const struct sim_image *in, const char *path)
{
    size_t n = sim_image_files(in);

    for (size_t i = 0; i < n; i++) {
        if (strcmp(sim_image_name(in, i, NULL), path) == 0)
            return i;
    }
    return n;
}

/* The same directory without its newest snapshot, without its newest manifest. */
static void
ways_make(void)
{
    for (int way = NO_SNAPSHOT; way < WAYS; way++) {
        const char *prefix = way == NO_SNAPSHOT ? SRC "/snapshot-" : SRC "/manifest-";
        size_t newest = SIZE_MAX, n = sim_image_files(image[AS_IS]);

        for (size_t i = 0; i < n; i++) {
            const char *name = sim_image_name(image[AS_IS], i, NULL);

            if (strncmp(name, prefix, strlen(prefix)) == 0 && strchr(name, '.') == NULL)
                newest = i;
        }
        KIT_CHECK(newest != SIZE_MAX, "no %s", prefix);
        image[way] = sim_image_clone(image[AS_IS]);
        sim_image_remove(image[way], newest);
    }
}

/* ---- looking ---- */

static void
event(void *ctx, const scree_event *e)
{
    (void)ctx;
    fell_back |= e->kind == SCREE_EVENT_SNAPSHOT_FALLBACK;
}

/* An image on a disk of its own; options are for it. */
static struct sim_disk *
disk_of(const struct sim_image *of)
{
    struct sim_disk *disk = sim_disk_new(of, seed);

    sim_disk_record(disk, false);
    sim_disk_plan(disk, &(struct kit_plan){.kinds = KIT_CHANGING});
    options.env = sim_disk_env(disk);
    return disk;
}

static void
disk_done(struct sim_disk *disk, bool may_write)
{
    KIT_CHECK(may_write || sim_disk_calls(disk) == 0, "what only looks has written");
    sim_disk_free(disk);
}

static enum ledger_verdict
look(const struct sim_image *at, bool writes)
{
    struct sim_disk *disk = disk_of(at);
    scree_options o = options;
    enum ledger_verdict verdict;

    o.flags = writes ? 0 : SCREE_READ_ONLY;
    o.event = event;
    fell_back = false;
    verdict = ledger_look(l, SRC, &o);
    if (writes && verdict == LEDGER_RIGHT) {
        bool before = fell_back;

        KIT_CHECK(ledger_look(l, SRC, &o) == LEDGER_RIGHT, "right once, and not once more");
        fell_back = before;
    }
    disk_done(disk, writes);
    return verdict;
}

static int
verify(const struct sim_image *at, const char *dir)
{
    struct sim_disk *disk = disk_of(at);
    int code;

    memset(&findings, 0, sizeof(findings));
    code = scree_verify(dir, &options, ledger_note, NULL, &findings);
    KIT_CHECK(code == 0 || code == SCREE_E_CORRUPT, "verify gave %d: %s", code,
              scree_error_detail());
    KIT_CHECK((code != 0) == (findings.n > 0), "verify gave %d with %" PRIu32 " findings", code,
              findings.n);
    disk_done(disk, false);
    return code;
}

/* Names and bytes of what is to be read only. */
static uint64_t
source_hash(const struct sim_image *of)
{
    size_t n = sim_image_files(of);
    uint64_t hash = 0, size;

    for (size_t i = 0; i < n; i++) {
        const char *path = sim_image_name(of, i, &size);
        unsigned char bytes[65536];

        if (strncmp(path, SRC "/", strlen(SRC "/")) != 0)
            continue;
        hash = kit_hash(path, strlen(path), hash ^ size);
        for (uint64_t at = 0; at < size; at += sizeof(bytes))
            hash = kit_hash(bytes, sim_image_get(of, i, at, bytes, sizeof(bytes)), hash);
    }
    return hash;
}

/* Beyond the claim a byte may be anything for all anybody knows. */
static void
salvage(const struct sim_image *at, bool torn)
{
    struct sim_disk *disk = disk_of(at);
    struct sim_image *after;
    int code;

    memset(&findings, 0, sizeof(findings));
    code = scree_salvage(SRC, DST, &options, ledger_note, NULL, &findings);
    KIT_CHECK(code == 0 || code == SCREE_E_CORRUPT, "salvage gave %d: %s", code,
              scree_error_detail());
    KIT_CHECK((code != 0) == (findings.n > 0), "salvage gave %d with %" PRIu32 " findings", code,
              findings.n);
    after = sim_disk_image(disk);
    KIT_CHECK(source_hash(after) == source_hash(at), "salvage has written to the source");
    sim_image_free(after);
    if (!torn)
        ledger_rescued_check(l, &findings, DST, &options, &sum.pages);
    sum.salvaged++;
    disk_done(disk, true);
}

static void
whole_check(void)
{
    for (int way = 0; way < WAYS; way++)
        KIT_CHECK(look(image[way], false) == LEDGER_RIGHT,
                  "the directory itself is not right (way %d)", way);
    KIT_CHECK(look(image[AS_IS], true) == LEDGER_RIGHT, "opened for writing, it is not right");
    (void)verify(image[AS_IS], SRC);
    ledger_findings_show(&findings);
    KIT_CHECK(findings.n == 0, "verify finds something in a whole directory");
    salvage(image[AS_IS], false);
    ledger_findings_show(&findings);
    KIT_CHECK(findings.n == 0 && sum.pages.right == recipe->pages - 1,
              "not every page was salvaged");
    if (recipe->backup)
        KIT_CHECK(verify(image[AS_IS], BACKUP) == 0, "verify finds something in a backup");
}

/* It was looked at; what is damaged is the rest. */
static void
backup_remove(void)
{
    for (size_t i = sim_image_files(image[AS_IS]); i-- > 0;) {
        if (strncmp(sim_image_name(image[AS_IS], i, NULL), BACKUP "/", strlen(BACKUP "/")) == 0)
            sim_image_remove(image[AS_IS], i);
    }
}

/* ---- a case ---- */

struct flip {
    const char *path, *file;
    uint64_t offset, lsn; /* lsn 0: it is not in the log */
    unsigned char bits;
    bool torn, header; /* behind every claim; in a segment's header */
    bool named;        /* a snapshot or manifest that counts */
};

/* Where in the log a byte of a file lies; 0: it is not in the log. */
static uint64_t
lsn_of(const char *file, uint64_t offset)
{
    if (strncmp(file, "segment-", 8) != 0 || offset < HEADER)
        return 0;
    return strtoull(file + 8, NULL, 16) * recipe->segment_bytes + (offset - HEADER);
}

/* Is this finding about the byte? */
static bool
is_about(const struct ledger_finding *f, const struct flip *flip)
{
    if (flip->lsn != 0)
        return f->lsn <= flip->lsn && flip->lsn < f->lsn + f->bytes;
    return strcmp(f->file, flip->file) == 0 && (!flip->header || f->offset <= flip->offset);
}

static const char *
finding_problem(const struct ledger_finding *f, const struct flip *flip)
{
    const struct ledger_step *step = flip->lsn != 0 ? ledger_at(l, flip->lsn) : NULL;

    if (f->severity == SCREE_FINDING_LOST && f->bytes == 0)
        return NULL; /* a page, or the state: judged by what is salvaged */
    if (!is_about(f, flip))
        return "it is not about the damage";
    if (step != NULL && !flip->torn && f->lsn != step->from)
        return "the record begins elsewhere";
    if (step != NULL && !flip->torn && f->bytes != step->to - step->from)
        return "the record is not as long";
    return NULL;
}

static void
findings_check(const struct flip *flip)
{
    bool any = false;

    for (uint32_t i = 0; i < findings.n; i++) {
        const char *problem = finding_problem(&findings.found[i], flip);

        if (problem != NULL)
            ledger_findings_show(&findings);
        KIT_CHECK(problem == NULL, "finding %" PRIu32 ": %s", i, problem);
        any |= is_about(&findings.found[i], flip);
    }
    KIT_CHECK(any || findings.n == 0, "found, and told to be elsewhere");
}

/* The image with the byte changed; NULL: the file is not there. */
static struct sim_image *
flipped(const struct sim_image *of, const struct flip *flip)
{
    size_t at = file_of(of, flip->path);
    struct sim_image *changed;
    unsigned char byte;

    if (at == sim_image_files(of))
        return NULL;
    changed = sim_image_clone(of);
    KIT_CHECK(sim_image_get(changed, at, flip->offset, &byte, 1) == 1, "read %s", flip->path);
    byte ^= flip->bits;
    sim_image_set(changed, at, flip->offset, &byte, 1);
    return changed;
}

/* Damage of an update's record: the refusal tells where it begins. */
static void
refusal_check(const struct flip *flip)
{
    const struct ledger_step *step = flip->lsn != 0 ? ledger_at(l, flip->lsn) : NULL;
    char lsn[40];

    if (step == NULL)
        return;
    (void)snprintf(lsn, sizeof(lsn), "(lsn %" PRIu64, step->from);
    KIT_CHECK(strstr(ledger_refusal, lsn) != NULL, "refused, and not for %s: %s", lsn,
              ledger_refusal);
}

/* Behind the claim all is a torn tail; the header of a segment that is not reached may be one. */
static bool
must_be_found(const struct flip *flip, bool writes)
{
    bool matters = flip->named;

    for (int way = 0; way < WAYS + writes; way++) {
        struct sim_image *at = flipped(image[way % WAYS], flip);
        enum ledger_verdict v;

        if (at == NULL)
            continue;
        v = look(at, way == WAYS);
        if (v == LEDGER_REFUSED && !flip->torn)
            refusal_check(flip);
        KIT_CHECK(v != LEDGER_WRONG || flip->torn || (!recipe->closed && flip->header),
                  "open gives what never was (way %d)", way);
        matters |= v == LEDGER_REFUSED || (way % WAYS == AS_IS && fell_back) ||
                   (v != LEDGER_RIGHT && !flip->torn && !flip->header);
        sim_image_free(at);
    }
    return matters;
}

static void
case_run(uint64_t number, const struct flip *flip, bool empty)
{
    uint64_t every = empty ? 64 : 8;
    bool often = number % every == seed % every, must;
    struct sim_image *at = flipped(image[AS_IS], flip);

    alarm(60);
    snprintf(kit_context, sizeof(kit_context),
             "seed %" PRIu64 ", directory %d (%s), case %" PRIu64 ", %s: byte %" PRIu64
             " (lsn %" PRIu64 ") xor %u",
             seed, (int)(recipe - recipes), recipe->name, number, flip->file, flip->offset,
             flip->lsn, flip->bits);
    sim_image_at_hand(at);
    must = must_be_found(flip, often);
    (void)verify(at, SRC);
    KIT_CHECK(!must || findings.n > 0, "this damage matters, and was not found");
    findings_check(flip);
    sum.flips++;
    sum.mattered += must;
    sum.found += findings.n > 0;
    sum.empty += empty && findings.n == 0;
    sum.silent += !empty && findings.n == 0;
    sum.written += often;
    if (findings.n > 0 || often)
        salvage(at, flip->torn);
    sim_image_at_hand(NULL);
    sim_image_free(at);
}

/* ---- all of them ---- */

static bool
manifest_names(const struct scree__manifest *m, uint64_t snapshot)
{
    for (uint32_t g = 0; g < m->generations; g++)
        for (uint32_t i = 0; i < m->generation[g].files; i++)
            if (m->generation[g].file[i].number == snapshot)
                return true;
    return false;
}

/* Is this a snapshot that one of the manifests names? A crash may leave others behind: the newest before it is
   published, one that merging had made in vain. They are not missed. */
static bool
snapshot_is_named(size_t i)
{
    const char *of = sim_image_name(image[AS_IS], i, NULL) + strlen(SRC "/");
    struct sim_disk *disk = sim_disk_new(image[AS_IS], 1);
    enum scree__file_kind kind;
    uint64_t snapshot, number;
    bool tmp, named = false;

    if (scree__snapshot_name_parse(of, &kind, &snapshot, &tmp) && !tmp &&
        kind == SCREE__SNAPSHOT_FILE) {
        for (size_t k = 0; k < sim_image_files(image[AS_IS]) && !named; k++) {
            const char *name = sim_image_name(image[AS_IS], k, NULL) + strlen(SRC "/");
            struct scree__manifest m;

            named = scree__snapshot_name_parse(name, &kind, &number, &tmp) && !tmp &&
                    kind == SCREE__MANIFEST_FILE &&
                    scree__manifest_load_one(sim_disk_env(disk), SRC, number, &m) == 0 &&
                    manifest_names(&m, snapshot);
        }
    }
    sim_disk_free(disk);
    return named;
}

/* One bit of it in two cases of three, else any. */
static unsigned char
bits_of(uint64_t number)
{
    uint64_t random = seed * 1000003 + number;

    kit_random(&random);
    if (kit_below(&random, 3) != 0)
        return (unsigned char)(1u << kit_below(&random, 8));
    return (unsigned char)(1 + kit_below(&random, 255));
}

struct run {
    uint64_t cases, first; /* 0: every byte; the number to begin with */
    uint64_t most, number;
    uint64_t worth; /* bytes that are not amid zeros: a sample is of these */
    uint64_t random;
};

static bool
is_empty(const unsigned char *data, size_t len, size_t at)
{
    size_t begin = at / 512 * 512, end = begin + 512 < len ? begin + 512 : len;

    for (size_t i = begin; i < end; i++)
        if (data[i] != 0)
            return false;
    return true;
}

static void
file_run(struct run *run, size_t i)
{
    uint64_t size;
    const char *path = sim_image_name(image[AS_IS], i, &size);
    unsigned char *data = malloc((size_t)size + 1);
    bool manifest = strncmp(path, SRC "/manifest-", strlen(SRC "/manifest-")) == 0;
    bool named = strchr(path, '.') == NULL && (manifest || snapshot_is_named(i));
    bool empty = false, spare = strcmp(path, SRC "/SPARE") == 0;

    KIT_CHECK(data != NULL, "no memory");
    (void)sim_image_get(image[AS_IS], i, 0, data, (size_t)size);
    for (size_t at = 0; at < size && sum.flips < run->most; at++) {
        struct flip flip = {
            .path = path, .file = path + strlen(SRC "/"), .offset = at, .named = named};
        uint64_t number = run->number++;

        empty = at % 512 == 0 ? is_empty(data, (size_t)size, at) : empty;
        if (run->cases != 0 &&
            ((data[at] == 0 && at % 512 != 0) || kit_below(&run->random, run->worth) >= run->cases))
            continue;
        if (number < run->first || (spare && at % 512 != 0))
            continue;
        flip.lsn = lsn_of(flip.file, at);
        flip.header = strncmp(flip.file, "segment-", 8) == 0 && flip.lsn == 0;
        flip.torn = flip.lsn >= claim;
        flip.bits = bits_of(number);
        case_run(number, &flip, empty);
    }
    free(data);
}

static uint64_t
worth_count(void)
{
    uint64_t worth = 0;

    for (size_t i = 0; i < sim_image_files(image[AS_IS]); i++) {
        unsigned char byte;
        uint64_t size;

        (void)sim_image_name(image[AS_IS], i, &size);
        for (uint64_t at = 0; at < size; at++)
            worth +=
                sim_image_get(image[AS_IS], i, at, &byte, 1) == 1 && (byte != 0 || at % 512 == 0);
    }
    return worth;
}

static void
directory_run(const struct recipe *of, struct run run)
{
    struct sim_disk *disk;
    uint64_t begin = kit_now_ms(), total = 0, size;

    recipe = of;
    memset(&sum, 0, sizeof(sum));
    snprintf(kit_context, sizeof(kit_context), "seed %" PRIu64 ", %s", seed, of->name);
    kit_options_small(&options, of->materializer);
    options.segment_bytes = of->segment_bytes;
    options.compression_level = of->compression;
    options.cache_bytes = 1024 * 1024;
    options.flush_interval_ms = 0;
    options.snapshot_log_bytes = UINT64_C(1) << 40; /* only when asked for */
    disk = directory_make();
    image[AS_IS] = sim_disk_image(disk);
    sim_disk_free(disk);
    ways_make();
    whole_check();
    backup_remove();
    memset(&sum, 0, sizeof(sum));
    run.random = seed;
    run.worth = worth_count();
    for (size_t i = 0; i < sim_image_files(image[AS_IS]); i++) {
        (void)sim_image_name(image[AS_IS], i, &size);
        total += size;
        file_run(&run, i);
    }
    printf("seed %" PRIu64 ", %s: %zu files, %" PRIu64 " bytes, %zu updates; %" PRIu64
           " flips, %" PRIu64 " mattered, %" PRIu64 " found and located, %" PRIu64
           " silent amid zeros, %" PRIu64 " silent else; %" PRIu64 " opened for writing, %" PRIu64
           " salvaged: pages right %" PRIu64 ", lost %" PRIu64 ", older %" PRIu64 "; %" PRIu64
           " ms\n",
           seed, of->name, sim_image_files(image[AS_IS]), total, l->n, sum.flips, sum.mattered,
           sum.found, sum.empty, sum.silent, sum.written, sum.salvaged, sum.pages.right,
           sum.pages.lost, sum.pages.older, kit_now_ms() - begin);
    (void)fflush(stdout);
    KIT_CHECK(run.first > 0 || (sum.mattered > 0 && sum.empty + sum.silent > 0),
              "the damage did nothing, or all");
    for (int way = 0; way < WAYS; way++)
        sim_image_free(image[way]);
    ledger_free(l);
}

int
main(int argc, char **argv)
{
    struct run run = {.cases = kit_argument(argc, argv, 2, KIT_MUCH(150, 50, 150)),
                      .first = kit_argument(argc, argv, 4, 0),
                      .most = kit_argument(argc, argv, 5, UINT64_MAX)};
    uint64_t only = kit_argument(argc, argv, 3, RECIPES);

    sim_image_keep("verify-failed", SRC);
    seed = kit_argument(argc, argv, 1, 1);
    for (uint64_t i = 0; i < RECIPES; i++) {
        if (only >= RECIPES || i == only)
            directory_run(&recipes[i], run);
    }
    printf("ok\n");
    return 0;
}
