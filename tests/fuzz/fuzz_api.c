/*
 * fuzz_api.c - any sequence of public calls, crashes and faults, against a plain list of states.
 *
 * GOAL    no sequence of calls, on a disk that may lose power, fail or fill up at any call, gives a wrong
 *         result, a crash, a hang or a leak (P1, P3, P6, P9).
 * METHOD  a byte is a call, the bytes behind it are its arguments: updates with right and stale versions,
 *         batches, guards that stay open, reads, snapshots, reclaiming, backups, the change feed, ids,
 *         reopening with other options, read-only too. The disk is in memory (sim_disk.h): it crashes as it is,
 *         or is cut anywhere behind the last call with any choice of what was not synced; calls of it fail as
 *         planned; it is made small.
 * ORACLE  the list of states (history.h): every result and all bytes of each read; after a close the last
 *         state; after a crash one that holds all that was reported stable, and is that of the position where
 *         the log ended. A call that fails changes nothing. The feed tells what was done, in order. A backup
 *         opens with the state it was begun in. Ids and versions never come again.
 * NOT HERE threads of callers (tests/stress). The library's own take part: the same bytes do nearly the same.
 */
#include "support/history.h"
#include "support/sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPS_MAX 160u
#define PAYLOAD_MAX 2500u
#define DIR "/d"
#define STALE 8u /* a version that no page has */

struct run {
    const uint8_t *at, *end;
    struct history *h;
    uint64_t ends[HISTORY_STEPS]; /* where the log of each state ends at the latest */
    struct sim_disk *disk;
    scree_cache *cache;
    scree_options options;
    uint64_t seed;
    bool faulty; /* the disk fails, or is too small: calls may */
    bool read_only;
    unsigned guards, backups;
    scree_slice borrowed;
    uint64_t borrowed_hash;
    uint64_t last_id;
};

static struct run run;
static unsigned char payload_bytes[PAYLOAD_MAX];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint32_t
take(uint32_t n)
{
    uint32_t v = run.at < run.end ? *run.at++ : 0;

    if (n > 256)
        v = v << 8 | (run.at < run.end ? *run.at++ : 0);
    return v % n;
}

static scree_slice
payload(void)
{
    uint32_t shape = take(8), len = shape == 0 ? take(PAYLOAD_MAX) : take(100), salt = take(200);

    for (uint32_t i = 0; i < len; i++)
        payload_bytes[i] = (unsigned char)(salt + (shape & 1 ? i * i : i / 64));
    return kit_slice(payload_bytes, len);
}

/* ---- the list ---- */

static const struct history_page *
page_now(uint32_t at)
{
    return &run.h->state[run.h->n - 1].page[at];
}

static bool
is_live(uint32_t at)
{
    return at < run.h->pages && page_now(at)->version != 0;
}

/* One of the live pages; there is always the root. */
static uint32_t
live_page(void)
{
    uint32_t at = take(HISTORY_PAGES);

    while (!is_live(at))
        at = (at + 1) % HISTORY_PAGES;
    return at;
}

static void
state_begin(void)
{
    struct history *h = run.h;

    KIT_CHECK(h->n < HISTORY_STEPS, "the test's own limit");
    h->state[h->n] = h->state[h->n - 1];
}

/* In the state being made: the page is gone, or this long. */
static void
state_put(uint32_t at, bool live, uint32_t len, scree_version version)
{
    struct history_page *p = &run.h->state[run.h->n].page[at];

    run.h->len[at] = live ? len : 0;
    *p = (struct history_page){0, 0, 0};
    if (live)
        *p = (struct history_page){version, history_hash(run.h->bytes[at], len), len};
}

static void
state_end(scree_version version)
{
    struct history *h = run.h;

    KIT_CHECK(version > h->version_any, "version %llu after %llu", (unsigned long long)version,
              (unsigned long long)h->version_any);
    h->version_any = version;
    run.ends[h->n++] = version;
}

static void
did(uint32_t at, bool live, bool append, scree_slice slice, scree_version version)
{
    uint32_t old = append ? run.h->len[at] : 0;

    state_begin();
    if (live && slice.len > 0)
        memcpy(run.h->bytes[at] + old, slice.data, slice.len);
    state_put(at, live, old + (uint32_t)slice.len, version);
    state_end(version);
}

/* A result that is neither success nor what the arguments ask for. */
static void
failure_check(int code, const char *what)
{
    bool fair = run.read_only && code == SCREE_E_READ_ONLY;

    fair |= run.faulty && (code == SCREE_E_POISONED || code == SCREE_E_NO_SPACE || code == -EIO ||
                           code == -ENOSPC || code == SCREE_E_NO_MEMORY);
    KIT_CHECK(fair, "%s gave %d %s", what, code, kit_code_name(code));
    KIT_CHECK(scree_error_detail()[0] != '\0', "%s failed without a detail", what);
}

/* ---- updates ---- */

static void
op_allocate(void)
{
    scree_slice slice = payload();
    uint32_t at = 0;
    scree_page_id id = 0;
    scree_version version = 0;
    int code;

    while (is_live(at))
        at++;
    if (at >= HISTORY_PAGES)
        return;
    if (at < run.h->pages)
        code = scree_page_allocate_at(run.cache, id = run.h->id[at], slice, &version);
    else
        code = scree_page_allocate(run.cache, slice, &id, &version);
    if (code == SCREE_E_BUSY && at < run.h->pages)
        return;
    if (code != 0) {
        failure_check(code, "allocate");
        return;
    }
    for (uint32_t i = 0; i < run.h->pages && at == run.h->pages; i++) /* an id may come again */
        if (run.h->id[i] == id) {
            KIT_CHECK(!is_live(i), "a live id is handed out");
            at = i;
        }
    if (at == run.h->pages)
        run.h->id[run.h->pages++] = id;
    did(at, true, false, slice, version);
}

/* Which: 0 put, 1 append, 2 set, 3 merge, 4 free. */
static void
op_update(uint32_t which)
{
    uint32_t at = live_page();
    scree_page_id id = run.h->id[at];
    bool stale = which >= 2 && take(8) == 0, append = which == 1 || which == 3;
    scree_version now = page_now(at)->version, version = stale ? STALE : now;
    scree_slice slice = which == 4 ? kit_slice("", 0) : payload();
    int code;

    if ((append && run.h->len[at] + slice.len > HISTORY_BYTES) || (which == 4 && at == 0))
        return;
    code = which == 0   ? scree_page_put(run.cache, id, slice, &version)
           : which == 1 ? scree_page_append(run.cache, id, slice, &version)
           : which == 2 ? scree_page_set(run.cache, id, &version, slice)
           : which == 3 ? scree_page_merge(run.cache, id, &version, slice)
                        : scree_page_free(run.cache, id, &version);
    if (code == SCREE_E_CONFLICT) {
        KIT_CHECK(stale && version == now, "a conflict with %llu, at %llu",
                  (unsigned long long)version, (unsigned long long)now);
        return;
    }
    KIT_CHECK(code != 0 || !stale, "a stale version was taken");
    if (code != 0)
        failure_check(code, "an update");
    else
        did(at, which != 4, append, slice, version);
}

/* Steps on pages in a row, each once. */
static int
batch_steps(scree_batch *batch, uint32_t first, uint32_t n, bool *stale_out)
{
    int code = 0;

    state_begin();
    for (uint32_t i = 0; code == 0 && i < n; i++) {
        uint32_t at = (first + i) % run.h->pages, kind = take(8), old = run.h->len[at];
        scree_page_id id = run.h->id[at];
        scree_version version = page_now(at)->version;
        scree_slice slice = payload();
        bool append = kind < 3 && version != 0 && old + slice.len <= HISTORY_BYTES;

        if (kind == 7 && version != 0) {
            *stale_out |= take(4) == 0;
            code = scree_batch_check(batch, id, *stale_out ? STALE : version);
            continue;
        }
        if (kind == 6 && version != 0 && at != 0) {
            code = scree_batch_free(batch, id, version);
            state_put(at, false, 0, 0);
            continue;
        }
        code = version == 0 ? scree_batch_allocate_at(batch, id, slice)
               : append     ? scree_batch_merge(batch, id, version, slice)
                            : scree_batch_set(batch, id, version, slice);
        if (slice.len > 0)
            memcpy(run.h->bytes[at] + (append ? old : 0), slice.data, slice.len);
        state_put(at, true, (append ? old : 0) + (uint32_t)slice.len, 1); /* the version follows */
    }
    return code;
}

/* The bytes of the newest state again: what a batch was to make of them did not come. */
static void
bytes_restore(uint32_t first, uint32_t n, unsigned char (*kept)[HISTORY_BYTES])
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (first + i) % run.h->pages;

        memcpy(run.h->bytes[at], kept[i], HISTORY_BYTES);
        run.h->len[at] = page_now(at)->len;
    }
}

static void
op_batch(void)
{
    static unsigned char kept[4][HISTORY_BYTES];
    uint32_t first = take(HISTORY_PAGES) % run.h->pages, n = 1 + take(4);
    bool stale = false, abort_it = take(8) == 0, writes = false;
    struct history_state *next = &run.h->state[run.h->n];
    scree_batch *batch;
    scree_lsn end = 0;
    int code = scree_batch_begin(run.cache, &batch);

    if (code != 0) {
        failure_check(code, "batch_begin");
        return;
    }
    n = n < run.h->pages ? n : run.h->pages;
    for (uint32_t i = 0; i < n; i++)
        memcpy(kept[i], run.h->bytes[(first + i) % run.h->pages], HISTORY_BYTES);
    code = batch_steps(batch, first, n, &stale);
    for (uint32_t i = 0; i < HISTORY_PAGES; i++)
        writes |= memcmp(&next->page[i], page_now(i), sizeof(next->page[i])) != 0;
    if (code != 0 || abort_it)
        scree_batch_abort(batch);
    else
        code = scree_batch_commit(batch, &end, NULL);
    if (code != 0 || abort_it || !writes) {
        bytes_restore(first, n, kept);
        KIT_CHECK(code != SCREE_E_CONFLICT || stale, "a conflict without a cause");
        if (code != 0 && code != SCREE_E_CONFLICT && code != SCREE_E_BUSY)
            failure_check(code, "a batch");
        return;
    }
    KIT_CHECK(!stale, "a stale check was passed");
    for (uint32_t i = 0; i < HISTORY_PAGES; i++)
        if (next->page[i].version == 1)
            next->page[i].version = end;
    state_end(end);
}

/* ---- reads ---- */

static void
op_read(void)
{
    static unsigned char buffer[8192];
    uint32_t at = take(HISTORY_PAGES);
    scree_version version = 0;
    size_t len = 0;
    int code;

    if (at >= run.h->pages)
        return;
    code = scree_page_read(run.cache, run.h->id[at], buffer, sizeof(buffer), &len, &version);
    if (!is_live(at)) {
        KIT_CHECK(code == SCREE_E_NOT_FOUND, "a free page gave %d", code);
        return;
    }
    if (code != 0) {
        failure_check(code, "page_read");
        return;
    }
    KIT_CHECK(version == page_now(at)->version && len == page_now(at)->len &&
                  history_hash(buffer, len) == page_now(at)->hash,
              "page %llu is not as it was written", (unsigned long long)run.h->id[at]);
}

/* In the guard, which stays open for some calls. */
static void
op_get(void)
{
    uint32_t at = live_page();
    scree_slice page, base, frags[64];
    scree_version version = 0;
    size_t n = 0, len = 0;
    int code;

    if (run.guards < 3) {
        scree_read_enter(run.cache);
        run.guards++;
    }
    code = scree_page_get(run.cache, run.h->id[at], &page, &version);
    if (code != 0) {
        failure_check(code, "page_get");
        return;
    }
    KIT_CHECK(version == page_now(at)->version && page.len == page_now(at)->len &&
                  history_hash(page.data, page.len) == page_now(at)->hash,
              "page %llu is not as it was written", (unsigned long long)run.h->id[at]);
    run.borrowed = page;
    run.borrowed_hash = history_hash(page.data, page.len);
    code = scree_page_fragments(run.cache, run.h->id[at], &base, frags, 64, &n, NULL);
    KIT_CHECK(code == 0, "page_fragments gave %d", code);
    len = base.len;
    for (size_t i = 0; i < n && i < 64; i++)
        len += frags[i].len;
    KIT_CHECK(n > 64 || len == page.len, "fragments of %zu bytes, the page has %zu", len, page.len);
}

static void
guards_leave(void)
{
    if (run.guards == 0)
        return;
    KIT_CHECK(run.borrowed.data == NULL ||
                  history_hash(run.borrowed.data, run.borrowed.len) == run.borrowed_hash,
              "borrowed bytes have changed");
    run.borrowed = kit_slice(NULL, 0);
    for (; run.guards > 0; run.guards--)
        scree_read_leave(run.cache);
}

/* Every page, and no other. */
static void
look(scree_cache *cache, uint32_t state)
{
    struct history_seen seen;

    KIT_CHECK(history_look(run.h, cache, &seen) == 0, "page_next");
    KIT_CHECK(seen.failures == 0 && history_matches(run.h, &seen, state),
              "state %u was to be there, it is %d (%u failures, %d strangers)", state,
              history_find(run.h, &seen, 0), seen.failures, seen.strangers);
}

/* What the feed tells: pages that are known, in order, versions that were told. */
static void
op_feed(void)
{
    scree_log_reader *reader;
    scree_log_record record = {.size = sizeof(record)};
    scree_lsn last = 0;
    int code = scree_log_open(run.cache, 0, &reader);

    if (code != 0) {
        failure_check(code, "log_open");
        return;
    }
    while ((code = scree_log_next(reader, 0, &record)) == 0) {
        uint32_t k = 0, at = 0;

        while (at < run.h->pages && run.h->id[at] != record.page)
            at++;
        while (k < run.h->n && run.ends[k] != record.version)
            k++;
        KIT_CHECK(at < run.h->pages && k < run.h->n && record.lsn >= last,
                  "a record at %llu that nobody wrote", (unsigned long long)record.lsn);
        KIT_CHECK(run.h->state[k].page[at].version ==
                      (record.kind == SCREE_RECORD_FREE ? 0 : record.version),
                  "a record at %llu of another page", (unsigned long long)record.lsn);
        last = record.lsn;
    }
    if (code != SCREE_E_TIMEOUT)
        failure_check(code, "log_next");
    scree_log_close(reader);
}

/* ---- the whole cache ---- */

static void
acknowledge(uint64_t stable)
{
    for (uint32_t k = run.h->acked; k < run.h->n && run.ends[k] <= stable; k++)
        run.h->acked = k;
}

static void
op_flush(uint32_t which)
{
    scree_lsn lsn = 0;
    int code = which == 0   ? scree_flush(run.cache, NULL)
               : which == 1 ? scree_wait_stable(run.cache, run.h->version_any, 2000)
               : which == 2 ? scree_snapshot(run.cache, &lsn)
                            : scree_reclaim(run.cache, 1.05 + which, NULL, NULL);

    if (code == SCREE_E_INVALID && (which == 1 || run.guards > 0))
        return; /* of a state that a crash took; in a guard */
    if (code != 0 && code != SCREE_E_TIMEOUT)
        failure_check(code, "a flush, a snapshot or a reclaim");
    acknowledge(scree_stable_lsn(run.cache));
}

static void
op_backup(void)
{
    char dir[16];
    scree_options options = run.options;
    scree_cache *copy;
    int code;

    (void)snprintf(dir, sizeof(dir), "/b%u", run.backups++);
    code = scree_backup(run.cache, dir, 0, NULL, NULL);
    if (code != 0) {
        failure_check(code, "backup");
        return;
    }
    if (run.faulty)
        return;
    guards_leave(); /* in which nothing is opened */
    options.flags = SCREE_READ_ONLY;
    code = scree_open(dir, &options, &copy);
    KIT_CHECK(code == 0, "a backup does not open: %d", code);
    look(copy, run.h->n - 1);
    KIT_CHECK(scree_close(copy) == 0, "close of a backup");
}

static void
op_invalid(void)
{
    scree_version version = 1;
    scree_page_id id;
    scree_slice slice = kit_slice(payload_bytes, 1);

    KIT_CHECK(scree_page_put(run.cache, 0, slice, &version) == SCREE_E_INVALID, "id 0");
    KIT_CHECK(scree_page_free(run.cache, SCREE_PAGE_ROOT, &version) == SCREE_E_INVALID, "the root");
    KIT_CHECK(scree_page_allocate(run.cache, kit_slice(NULL, 1), &id, NULL) == SCREE_E_INVALID,
              "no bytes");
    KIT_CHECK(scree_page_append(run.cache, UINT64_MAX, slice, &version) != 0, "a page nobody made");
}

static void
op_id(void)
{
    uint64_t id = 0;
    int code = scree_id_next(run.cache, &id);

    if (code != 0) {
        failure_check(code, "id_next");
        return;
    }
    KIT_CHECK(id > run.last_id, "id %llu after %llu", (unsigned long long)id,
              (unsigned long long)run.last_id);
    run.last_id = id;
}

/* ---- opening, closing, crashing ---- */

static void
options_draw(void)
{
    uint32_t word = take(256);

    kit_options_small(&run.options, &kit_concat);
    run.options.env = sim_disk_env(run.disk);
    run.options.io_mode = SCREE_IO_BUFFERED;
    run.options.fragments_max = word & 1 ? 1 : 4;
    run.options.compression_level = word >> 1 & 1;
    run.options.flush_interval_ms = word >> 2 & 1;
    run.options.space_amp_target = word & 8 ? 1.05 : 4;
    run.options.snapshot_log_bytes = word & 16 ? 32u << 10 : 0;
    run.options.cache_bytes = word & 32 ? 1u << 20 : 64u << 10;
    run.options.flags = SCREE_CREATE | (word & 64 ? SCREE_NO_PUNCH : 0);
    run.read_only = word >= 224;
    if (run.read_only)
        run.options.flags = SCREE_READ_ONLY;
}

static void
faults_end(void)
{
    sim_disk_plan(run.disk, &(struct kit_plan){.fault = KIT_FAULT_NONE});
    sim_disk_limit(run.disk, 0);
    run.faulty = false;
}

/* Open what is there, and find out which state it is; from: one at or behind it. */
static void
open_and_find(uint32_t from)
{
    scree_recovery_info info = {.size = sizeof(info)};
    uint32_t at = run.h->n - 1;
    int code;

    options_draw();
    code = scree_open(DIR, &run.options, &run.cache);
    KIT_CHECK(code == 0, "open gave %d %s", code, kit_code_name(code));
    KIT_CHECK(scree_recovery(run.cache, &info) == 0, "recovery");
    while (at > 0 && run.ends[at] > info.stable_lsn)
        at--;
    KIT_CHECK(at >= from, "state %u of %u; %u was stable", at, run.h->n - 1, from);
    look(run.cache, at);
    history_return_to(run.h, at, run.cache);
    run.h->acked = at;
}

/* The disk is as the image says. */
static void
disk_change(struct sim_image *image)
{
    sim_disk_free(run.disk);
    run.disk = sim_disk_new(image, ++run.seed);
    sim_image_free(image);
}

static void
op_reopen(void)
{
    uint32_t from;
    int code;

    guards_leave();
    code = scree_close(run.cache);
    from = code == 0 ? run.h->n - 1 : run.h->acked;
    KIT_CHECK(code == 0 || run.faulty, "close gave %d %s", code, kit_code_name(code));
    faults_end();
    run.options.env = sim_disk_env(run.disk);
    if (code == 0)
        kit_verify(DIR, &run.options);
    disk_change(sim_disk_image(run.disk)); /* forgets the trace */
    open_and_find(from);
}

static void
op_crash(bool cut)
{
    struct sim_image *image = sim_disk_image(run.disk);
    uint64_t events = sim_disk_events(run.disk), choice = take(256);
    uint32_t from = run.h->acked;

    guards_leave();
    (void)scree_close(run.cache); /* what it does now was never done */
    if (cut) {
        struct sim_replay *replay = sim_replay_new(run.disk);

        while (sim_replay_cut(replay) < events && sim_replay_advance(replay))
            continue;
        sim_image_free(image);
        image = sim_replay_state(replay, choice % sim_replay_choices(replay, 64), 64, run.seed);
        sim_replay_free(replay);
    }
    run.faulty = false;
    disk_change(image);
    open_and_find(from);
}

static void
op_fault(void)
{
    static const unsigned kinds[] = {KIT_WRITE,  KIT_SYNC,     KIT_ALLOCATE, KIT_READ,
                                     KIT_RENAME, KIT_SYNC_DIR, KIT_PUNCH,    KIT_CHANGING};
    static const enum kit_fault faults[] = {KIT_FAULT_CODE, KIT_FAULT_STUCK, KIT_FAULT_SHORT,
                                            KIT_FAULT_TEAR};
    struct kit_plan plan = {.kinds = kinds[take(8)], .fault = faults[take(4)]};

    plan.code = take(2) ? -EIO : -ENOSPC;
    plan.at = 1 + take(64);
    if (take(4) == 0)
        sim_disk_limit(run.disk, sim_disk_used(run.disk) + ((uint64_t)take(32) << 12));
    else
        sim_disk_plan(run.disk, &plan);
    run.faulty = true;
}

/* ---- one input ---- */

static void
op(uint32_t which)
{
    if (which < 6)
        op_allocate();
    else if (which < 22)
        op_update(which % 4);
    else if (which < 24)
        op_update(4);
    else if (which < 30)
        op_batch();
    else if (which < 34)
        op_read();
    else if (which < 38)
        op_get();
    else if (which < 41)
        guards_leave();
    else if (which < 46)
        op_flush(which - 41);
    else if (which < 48)
        op_feed();
    else if (which < 49)
        op_id();
    else if (which < 50)
        op_invalid();
    else if (which < 52)
        op_backup();
    else if (which < 55)
        op_reopen();
    else if (which < 57)
        op_crash(false);
    else if (which < 60)
        op_crash(true);
    else if (which < 62)
        op_fault();
    else
        usleep(1000); /* the library's threads get on */
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    kit_on_failure = abort;
    run.h = history_new(1);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct history *h = run.h;
    int code;

    if (len < 4)
        return 0;
    memset(&run, 0, sizeof(run));
    run.h = h;
    run.at = data;
    run.end = data + len;
    history_reset(h, 1);
    run.disk = sim_disk_new(NULL, 1);
    options_draw();
    run.options.flags = SCREE_CREATE;
    run.read_only = false;
    code = scree_open(DIR, &run.options, &run.cache);
    KIT_CHECK(code == 0, "the first open gave %d", code);
    history_begin(h, run.cache);
    run.ends[0] = h->version_any;
    for (unsigned i = 0; i < OPS_MAX && run.at < run.end; i++) {
        (void)snprintf(kit_context, sizeof(kit_context), "call %u at byte %zu", i,
                       (size_t)(run.at - data));
        op(take(64));
        acknowledge(scree_stable_lsn(run.cache));
    }
    op_reopen();
    (void)scree_close(run.cache);
    sim_disk_free(run.disk);
    return 0;
}
