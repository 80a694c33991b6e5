/*
 * crash_recovery.c - what a recovery finds, and that it finds the same wherever the one before was killed.
 *
 * GOAL      a directory that crashed, in any of several shapes, opens with exactly the state that a model
 *           knows: pages, contents, versions, and what lives in the log; scree_recovery tells what happened.
 *           An open that is killed at any of its I/O calls changes nothing of that, nor does one that is
 *           killed behind it.
 * METHOD    a child makes a directory: updates of all kinds on a few hundred pages (so that the replay's
 *           threads all have some), batches, frees and their reuse, chosen ids, consolidations; rounds of
 *           it with crashes in between, so that the log jumps; then leaves it in one of the shapes below.
 *           For each I/O call of an open, on a copy: an open that is killed there, then one that lives; and
 *           for some, one that is killed at some call in between.
 * ORACLE    the model, kept by whoever makes the updates; of what only recovery knows: the first,
 *           undisturbed open.
 * NOT HERE  power cuts: what was written stays written. Damage (crash_damage).
 *
 * crash_recovery [seed] [directories] [nested kills a directory]
 */
#include "support/kit.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 700u
#define PAGE_BYTES 500u
#define SEGMENT_BYTES (64u * 1024u)
#define HEADER_BYTES 4096u /* of a segment file (docs/log_format.md) */
#define CHOSEN_BASE (UINT64_C(1) << 40)
#define BATCH_STEPS 30u

enum shape {
    SHAPE_FLUSHED,     /* died behind a flush: nothing is lost */
    SHAPE_CLOSED,      /* nothing to recover */
    SHAPE_TORN_RECORD, /* the last record is cut */
    SHAPE_TORN_BATCH,  /* the last batch is */
    SHAPE_TORN_ZEROS,  /* the last batch ends in zeros, where the room ahead goes on */
    SHAPES
};
static const char *const shape_names[SHAPES] = {"flushed", "closed", "torn record", "torn batch",
                                                "torn by zeros"};

struct page {
    scree_page_id id; /* 0: not live */
    scree_version version;
    uint32_t len;
    unsigned char bytes[PAGE_BYTES];
};

/* What an open found. */
struct found {
    scree_recovery_info info;
    uint64_t live_bytes;
    uint64_t fold; /* hash of the recovery state */
    uint64_t calls;
};

struct shared {
    uint64_t random;
    struct page page[PAGES];
    struct page before[PAGES]; /* the last update */
    uint64_t stable_before;    /* the log ended here then */
    uint64_t last_lsn;         /* where the last update ends */
    uint64_t live_bytes;       /* with no update lost; 0: not known */
    struct found found;
    uint64_t done[8];
};
static struct shared *m;

static char origin[KIT_PATH_MAX], work[KIT_PATH_MAX];
static scree_options options;
static scree_cache *cache;
static enum shape shape;
static bool with_snapshot;
static uint64_t kill_at;

#define OK(call)                                                               \
    do {                                                                       \
        int ok_code = (call);                                                  \
        KIT_CHECK(ok_code == 0, "gave %d: %s", ok_code, scree_error_detail()); \
    } while (0)

/* ---- updates, and what the pages are then --------------------------------------------------------- */

static scree_slice
bytes_random(unsigned char *bytes, uint32_t max)
{
    size_t len = 1 + kit_below(&m->random, max);

    for (size_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)kit_below(&m->random, KIT_UNMERGEABLE);
    return kit_slice(bytes, len);
}

static void
page_becomes(struct page *p, scree_slice content, bool append)
{
    uint32_t at = append ? p->len : 0;

    memcpy(p->bytes + at, content.data, content.len);
    p->len = at + (uint32_t)content.len;
}

static const struct page *
page_find(scree_page_id id)
{
    for (size_t i = 0; i < PAGES; i++)
        if (m->page[i].id == id)
            return &m->page[i];
    return NULL;
}

static void
update_allocate(struct page *p, scree_slice content)
{
    if (kit_below(&m->random, 4) == 0) {
        scree_page_id id = CHOSEN_BASE + (uint64_t)(p - m->page) * 3;
        int code = scree_page_allocate_at(cache, id, content, &p->version);

        if (code == SCREE_E_BUSY || (code == SCREE_E_CONFLICT && page_find(id) != NULL))
            return; /* freed a moment ago; or it was, and another page has it now */
        OK(code);
        p->id = id;
    } else {
        OK(scree_page_allocate(cache, content, &p->id, &p->version));
    }
    page_becomes(p, content, false);
}

static void
update_one(struct page *p)
{
    unsigned char bytes[PAGE_BYTES];
    scree_slice content = bytes_random(bytes, 60);
    uint64_t what = kit_below(&m->random, 10);
    bool append = p->len + content.len <= PAGE_BYTES;

    if (p->id == 0) {
        update_allocate(p, content);
    } else if (what == 0 && p->id != SCREE_PAGE_ROOT) {
        OK(scree_page_free(cache, p->id, &p->version));
        p->id = 0;
    } else if (what <= 2 || !append) {
        OK(what == 1 ? scree_page_set(cache, p->id, &p->version, content)
                     : scree_page_put(cache, p->id, content, &p->version));
        page_becomes(p, content, false);
    } else {
        OK(what == 3 ? scree_page_merge(cache, p->id, &p->version, content)
                     : scree_page_append(cache, p->id, content, &p->version));
        page_becomes(p, content, true);
    }
}

static void
batch_step(scree_batch *batch, struct page *p)
{
    unsigned char bytes[PAGE_BYTES];
    scree_slice content = bytes_random(bytes, 60);
    uint64_t what = kit_below(&m->random, 6);

    if (p->id == 0) {
        OK(scree_batch_allocate(batch, content, &p->id));
        page_becomes(p, content, false);
    } else if (what == 0 && p->id != SCREE_PAGE_ROOT) {
        OK(scree_batch_free(batch, p->id, p->version));
        p->id = 0;
    } else if (what <= 2 || p->len + content.len > PAGE_BYTES) {
        OK(scree_batch_set(batch, p->id, p->version, content));
        page_becomes(p, content, false);
    } else {
        OK(scree_batch_merge(batch, p->id, p->version, content));
        page_becomes(p, content, true);
    }
}

static void
update_batch(uint64_t steps)
{
    uint64_t first = kit_below(&m->random, PAGES - steps);
    scree_page_id conflict;
    scree_batch *batch;
    scree_lsn lsn;

    OK(scree_batch_begin(cache, &batch));
    for (uint64_t i = first; i < first + steps; i++)
        batch_step(batch, &m->page[i]);
    OK(scree_batch_commit(batch, &lsn, &conflict));
    for (uint64_t i = first; i < first + steps; i++)
        m->page[i].version = lsn;
    m->last_lsn = lsn;
}

static void
updates(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        if (kit_below(&m->random, 30) == 0)
            update_batch(2 + kit_below(&m->random, BATCH_STEPS));
        else
            update_one(&m->page[kit_below(&m->random, PAGES)]);
        if (with_snapshot && i % 400 == 300)
            OK(scree_snapshot(cache, NULL));
    }
}

/* ---- what a cache holds ------------------------------------------------------------------------- */

static uint64_t
live_bytes(void)
{
    scree_stats stats = {.size = sizeof stats};

    OK(scree_stats_get(cache, &stats));
    return stats.live_bytes;
}

static void
pages_check(void)
{
    scree_page_id id = 0;
    uint64_t seen = 0, live = 0;
    int code;

    while ((code = scree_page_next(cache, id, &id)) == 0) {
        const struct page *p = page_find(id);
        unsigned char bytes[PAGE_BYTES];
        scree_version version;
        size_t len;

        KIT_CHECK(p != NULL, "page %" PRIu64 " is live, and should not be", id);
        OK(scree_page_read(cache, id, bytes, sizeof bytes, &len, &version));
        KIT_CHECK(version == p->version, "page %" PRIu64 " has version %" PRIu64 ", not %" PRIu64,
                  id, version, p->version);
        KIT_CHECK(len == p->len && memcmp(bytes, p->bytes, len) == 0,
                  "page %" PRIu64 " holds other bytes", id);
        seen++;
    }
    KIT_CHECK(code == SCREE_E_NOT_FOUND, "page_next gave %d", code);
    for (size_t i = 0; i < PAGES; i++)
        live += m->page[i].id != 0;
    KIT_CHECK(seen == live, "%" PRIu64 " pages, not %" PRIu64, seen, live);
}

/* What an open found; before anything is read, which may consolidate. */
static void
found_note(struct found *f)
{
    scree_slice state;

    memset(f, 0, sizeof *f);
    f->info.size = sizeof f->info;
    f->calls = kit_env_calls();
    f->live_bytes = live_bytes();
    OK(scree_recovery(cache, &f->info));
    OK(scree_recovery_state(cache, &state));
    f->fold = kit_hash(state.data, state.len, 1);
}

/* ---- children ----------------------------------------------------------------------------------- */

static void
cache_open(const char *dir, const struct kit_plan *plan)
{
    kit_env_plan(plan);
    int code = scree_open(dir, &options, &cache);

    KIT_CHECK(code == 0, "open gave %d: %s", code, scree_error_detail());
}

static const struct kit_plan count_calls = {.kinds = KIT_CHANGING | KIT_OPEN,
                                            .fault = KIT_FAULT_NONE};

static void
child_create(void)
{
    cache_open(origin, &count_calls);
    m->page[0].id = SCREE_PAGE_ROOT;
    scree_read_enter(cache);
    scree_slice page;

    OK(scree_page_get(cache, SCREE_PAGE_ROOT, &page, &m->page[0].version));
    KIT_CHECK(page.len == 0, "a new root");
    scree_read_leave(cache);
    updates(600);
    OK(scree_flush(cache, NULL));
}

static void
child_updates(void)
{
    cache_open(origin, &count_calls);
    pages_check();
    updates(400);
    OK(scree_flush(cache, NULL));
}

/* The last one: ends as the shape wants it. */
static void
child_end(void)
{
    unsigned char bytes[PAGE_BYTES];
    struct page *p = &m->page[0];

    cache_open(origin, &count_calls);
    updates(300);
    OK(scree_flush(cache, &m->stable_before));
    memcpy(m->before, m->page, sizeof m->page);
    m->live_bytes = live_bytes();
    if (shape == SHAPE_CLOSED)
        OK(scree_close(cache));
    if (shape == SHAPE_TORN_RECORD) {
        OK(scree_page_put(cache, p->id, bytes_random(bytes, PAGE_BYTES), &m->last_lsn));
        OK(scree_flush(cache, NULL));
    }
    if (shape == SHAPE_TORN_BATCH || shape == SHAPE_TORN_ZEROS) {
        update_batch(BATCH_STEPS);
        OK(scree_flush(cache, NULL));
    }
    memcpy(m->page, m->before, sizeof m->page);
}

/* Recovers, for the first time or behind others that were killed. */
static void
child_look(void)
{
    struct found *f = &m->found;

    cache_open(work, &count_calls);
    found_note(f);
    pages_check();
}

static void
child_killed(void)
{
    struct kit_plan plan = {
        .kinds = KIT_CHANGING | KIT_OPEN, .fault = KIT_FAULT_KILL, .at = kill_at};

    cache_open(work, &plan);
    pages_check();
}

static void
run(void (*body)(void))
{
    int status = 0;
    pid_t child;

    fflush(stdout);
    child = fork();
    KIT_CHECK(child >= 0, "fork");
    if (child == 0) {
        alarm(60);
        body();
        _exit(0);
    }
    KIT_CHECK(waitpid(child, &status, 0) == child, "wait");
    if (WIFSIGNALED(status))
        kit_failed(__FILE__, __LINE__, "child", "died by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != KIT_KILLED)
        exit(1);
}

/* ---- directories -------------------------------------------------------------------------------- */

static void
segment_name(uint64_t number, char name[64])
{
    snprintf(name, 64, "segment-%016" PRIx64, number);
}

/* What lies behind `lsn` never reached the disk. */
static void
tear(uint64_t lsn)
{
    uint64_t number = lsn / SEGMENT_BYTES;
    size_t at = (size_t)(HEADER_BYTES + lsn % SEGMENT_BYTES), len;
    char name[64], path[KIT_PATH_MAX + 64];

    segment_name(number, name);
    unsigned char *data = kit_file_read(origin, name, &len);

    KIT_CHECK(data != NULL && at < len, "segment %" PRIu64 " ends before its end", number);
    if (shape == SHAPE_TORN_ZEROS)
        memset(data + at, 0, len - at);
    kit_file_write(origin, name, data, shape == SHAPE_TORN_ZEROS ? len : at);
    free(data);
    for (;;) {
        segment_name(++number, name);
        snprintf(path, sizeof path, "%s/%s", origin, name);
        if (unlink(path) != 0)
            return;
    }
}

static void
origin_make(uint64_t seed)
{
    memset(m, 0, offsetof(struct shared, done));
    m->random = seed;
    kit_dir_name(origin, "recovery");
    run(child_create);
    for (uint64_t i = kit_below(&m->random, 3); i > 0; i--)
        run(child_updates);
    run(child_end);
    if (shape >= SHAPE_TORN_RECORD) {
        uint64_t at = m->last_lsn - 24 - kit_below(&m->random, 2) * 160;

        tear(at > m->stable_before ? at : m->stable_before + 8); /* in the last update */
    }
}

/* What the first open has to say. */
static void
first_check(const struct found *f)
{
    const scree_recovery_info *i = &f->info;
    bool torn = shape >= SHAPE_TORN_RECORD;
    uint64_t live = 0;

    for (size_t k = 0; k < PAGES; k++)
        live += m->page[k].id != 0;
    KIT_CHECK(i->clean == (shape == SHAPE_CLOSED), "clean: %" PRIu64, i->clean);
    KIT_CHECK(i->pages == live, "%" PRIu64 " pages, not %" PRIu64, i->pages, live);
    KIT_CHECK((i->snapshot_lsn != 0) == (with_snapshot || shape == SHAPE_CLOSED),
              "replayed from %" PRIu64, i->snapshot_lsn);
    KIT_CHECK((i->records != 0) == (shape != SHAPE_CLOSED), "%" PRIu64 " records", i->records);
    KIT_CHECK(i->batches_discarded == (shape == SHAPE_TORN_BATCH || shape == SHAPE_TORN_ZEROS),
              "%" PRIu64 " batches were discarded", i->batches_discarded);
    KIT_CHECK(torn == (i->torn_bytes != 0) && i->torn_bytes < SEGMENT_BYTES,
              "%" PRIu64 " bytes were torn", i->torn_bytes);
    KIT_CHECK(i->stable_lsn >= m->stable_before &&
                  (torn || shape == SHAPE_CLOSED || i->stable_lsn == m->stable_before),
              "the log ended at %" PRIu64 ", flushed was %" PRIu64, i->stable_lsn,
              m->stable_before);
    KIT_CHECK(i->elapsed_us > 0, "no time went by");
    KIT_CHECK(f->live_bytes == m->live_bytes, "%" PRIu64 " bytes live, not %" PRIu64, f->live_bytes,
              m->live_bytes);
}

/* A later open: all the same, but that what was trimmed is gone, and so is the mark of a clean close. */
static void
later_check(const struct found *first)
{
    const scree_recovery_info *a = &first->info, *b = &m->found.info;

    KIT_CHECK(a->snapshot_lsn == b->snapshot_lsn && a->pages == b->pages &&
                  a->records == b->records,
              "pages %" PRIu64 ", records %" PRIu64 ", not %" PRIu64 " and %" PRIu64, b->pages,
              b->records, a->pages, a->records);
    KIT_CHECK(b->stable_lsn >= a->stable_lsn, "the log ends at %" PRIu64 ", before %" PRIu64,
              b->stable_lsn, a->stable_lsn);
    KIT_CHECK(b->torn_bytes <= a->torn_bytes && b->batches_discarded <= a->batches_discarded,
              "torn anew: %" PRIu64, b->torn_bytes);
    KIT_CHECK(m->found.live_bytes == first->live_bytes, "%" PRIu64 " bytes live, not %" PRIu64,
              m->found.live_bytes, first->live_bytes);
    KIT_CHECK(m->found.fold == first->fold, "another recovery state");
}

static void
directory_run(uint64_t seed, uint64_t nested)
{
    char context[256];
    struct found first;

    snprintf(context, sizeof context, "seed %" PRIu64 ", %s%s", seed, shape_names[shape],
             with_snapshot ? ", snapshots" : "");
    snprintf(kit_context, sizeof kit_context, "%s: making it", context);
    origin_make(seed);
    kit_dir_copy(origin, work);
    snprintf(kit_context, sizeof kit_context, "%s: the first open", context);
    run(child_look);
    first = m->found;
    first_check(&first);
    run(child_look); /* behind one that died after it was open */
    later_check(&first);
    for (uint64_t at = 1; at <= first.calls; at++) {
        snprintf(kit_context, sizeof kit_context, "%s: killed at call %" PRIu64, context, at);
        kit_dir_copy(origin, work);
        kill_at = at;
        run(child_killed);
        run(child_look);
        later_check(&first);
        m->done[0]++;
    }
    for (uint64_t i = 0; first.calls > 0 && i < nested; i++) {
        uint64_t at = 1 + kit_below(&m->random, first.calls);

        kit_dir_copy(origin, work);
        for (int depth = 0; depth < 3; depth++) {
            snprintf(kit_context, sizeof kit_context,
                     "%s: killed at call %" PRIu64 ", the %d. time", context, at, depth + 1);
            kill_at = at;
            run(child_killed);
            at = 1 + kit_below(&m->random, first.calls);
        }
        run(child_look);
        later_check(&first);
        m->done[1]++;
    }
    kit_dir_remove(origin);
    kit_dir_remove(work);
    m->done[2] += first.info.records;
    m->done[3]++;
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t directories = kit_argument(argc, argv, 2, KIT_MUCH(2 * SHAPES, SHAPES, 2 * SHAPES));
    uint64_t nested = kit_argument(argc, argv, 3, 3);

    m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    KIT_CHECK(m != MAP_FAILED, "memory");
    kit_dir_name(work, "recovery-work");
    kit_options_small(&options, &kit_concat_fold);
    options.env = kit_env();
    options.cache_bytes = 16 << 20; /* nothing leaves, */
    options.space_amp_target =
        100; /* and nothing is cleaned: what lives changes by updates alone */
    options.snapshot_log_bytes = UINT64_C(1) << 40;
    options.flush_interval_ms = 0;
    for (uint64_t i = 0; i < directories; i++) {
        shape = (enum shape)(i % SHAPES);
        with_snapshot = (i + i / SHAPES) % 2 == 0;
        directory_run(seed * 1000 + i, nested);
    }
    printf("seed %" PRIu64 ": %" PRIu64 " directories, %" PRIu64 " records, %" PRIu64
           " opens killed, %" PRIu64 " times several in a row: ok\n",
           seed, m->done[3], m->done[2], m->done[0], m->done[1]);
    return 0;
}
