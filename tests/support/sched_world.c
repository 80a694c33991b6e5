/*
 * sched_world.c - see sched_world.h.
 */
#include "sched_world.h"

#include "log/log_private.h"
#include "pagecache/pagecache_private.h"
#include "sim_disk.h"
#include "tokens.h"

#include <inttypes.h>
#include <string.h>

#define WORLD_DIR "/world"
#define CREDIT_BYTES 16384u
#define PAGE_BYTES 4096u
#define GRANULE_NEW (SCREE__GRANULE_BYTES - 12288u) /* room that only a new granule has */
#define RUN_BYTES 24576u /* that a scenario and its preparation write, at most */

/* ---- what is synced ---------------------------------------------------------------------------- */

#define FILES 512u

/* Of each open file of the log: which bytes were written and not synced. There is one world. */
static struct {
    uint64_t segment; /* number; 0: no file of the log */
    uint64_t from, to;
} files[FILES];
static const scree_env *disk_env;

static int
world_env_open(void *ctx, const char *path, int flags)
{
    const char *name = strrchr(path, '/');
    uint64_t number = 0;
    int file = disk_env->open(ctx, path, flags);

    if (file < 0)
        return file;
    KIT_CHECK((unsigned)file < FILES, "file %d", file);
    if (name == NULL || !scree__segment_name_parse(name + 1, &number))
        number = 0;
    files[file].segment = number;
    files[file].from = UINT64_MAX;
    files[file].to = 0;
    return file;
}

static int64_t
world_env_write(void *ctx, int file, const void *data, size_t len, uint64_t offset)
{
    files[file].from = scree__min_u64(files[file].from, offset);
    files[file].to = scree__max_u64(files[file].to, offset + len);
    return disk_env->write(ctx, file, data, len, offset);
}

static int
world_env_close(void *ctx, int file)
{
    if (file >= 0 && (unsigned)file < FILES) /* locks are files too */
        files[file].segment = 0;
    return disk_env->close(ctx, file);
}

static int
world_env_sync(void *ctx, int file)
{
    int rc = disk_env->sync(ctx, file);

    files[file].from = UINT64_MAX;
    files[file].to = 0;
    return rc;
}

/* Reads under way, of the crew and of others. */
#define READS 8u
static struct {
    int file; /* 0: none */
    uint64_t from, to;
} reads[READS];

static int64_t
world_env_read(void *ctx, int file, void *data, size_t len, uint64_t offset)
{
    unsigned i = 0;
    int64_t n;

    while (i < READS && reads[i].file != 0)
        i++;
    KIT_CHECK(i < READS, "more than %u reads at a time", READS);
    reads[i].file = file;
    reads[i].from = offset;
    reads[i].to = offset + len;
    n = disk_env->read(ctx, file, data, len, offset);
    reads[i].file = 0;
    return n;
}

static int
world_env_read_many(void *ctx, scree_env_read *read, size_t n)
{
    for (size_t i = 0; i < n; i++)
        read[i].result =
            (int32_t)world_env_read(ctx, read[i].file, read[i].data, read[i].len, read[i].offset);
    return 0;
}

static int
world_env_punch(void *ctx, int file, uint64_t offset, uint64_t len)
{
    int rc = disk_env->punch(ctx, file, offset, len);

    for (unsigned i = 0; i < READS; i++)
        KIT_CHECK(reads[i].file == 0 || files[reads[i].file].segment != files[file].segment ||
                      reads[i].to <= offset || reads[i].from >= offset + len,
                  "bytes from %" PRIu64 " on are given back while somebody reads them", offset);
    return rc;
}

/* An open file of that segment. */
static int
segment_file(uint64_t number)
{
    for (int i = 1; i < (int)FILES; i++)
        if (files[i].segment == number)
            return i;
    kit_failed(__FILE__, __LINE__, "P1", "segment %" PRIu64 " is stable, and not open", number);
}

/* What the disk holds of [from, to) of the log is what the ring holds. */
static void
stable_bytes_check(struct world *w, uint64_t from, uint64_t to)
{
    static unsigned char bytes[SCREE_BLOCK];
    const struct scree__log *log = w->cache->log;

    for (uint64_t at = from, end; at < to; at = end) {
        uint64_t in = at % w->segment_bytes;
        int64_t n;

        end = scree__min_u64(to, scree__round_down(at, SCREE_BLOCK) + SCREE_BLOCK);
        n = disk_env->read(disk_env->ctx, segment_file(at / w->segment_bytes), bytes,
                           (size_t)(end - at), LOG_HEADER_BYTES + in);
        KIT_CHECK(n == (int64_t)(end - at) &&
                      memcmp(bytes, scree__ring_at(log, at), (size_t)n) == 0,
                  "P1: bytes from %" PRIu64 " to %" PRIu64 " are stable, and are not on the disk",
                  at, end);
    }
}

void
world_stable_check(struct world *w)
{
    uint64_t stable = scree__log_stable(w->cache->log), segment = w->cache->options.segment_bytes;

    sched_hold();
    for (unsigned i = 0; i < FILES; i++) {
        uint64_t at = files[i].from < LOG_HEADER_BYTES ? 0 : files[i].from - LOG_HEADER_BYTES;

        KIT_CHECK(files[i].segment == 0 || files[i].from == UINT64_MAX ||
                      files[i].segment * segment + at >= stable,
                  "P1: stable is %" PRIu64 ", and bytes from %" PRIu64 " are not synced", stable,
                  files[i].segment * segment + at);
    }
    stable_bytes_check(w, w->begin_lsn, stable);
    sched_release();
}

/* ---- open -------------------------------------------------------------------------------------- */

static void
options_make(const struct world *w, scree_options *o)
{
    kit_options_small(o, &kit_concat);
    o->cache_bytes = (uint64_t)4 << 20;
    o->segment_bytes = w->segment_bytes;
    o->fragments_max = 64;
    o->flush_interval_ms = 0;
    o->env = &w->env;
}

static void
contexts_take(void *arg, unsigned i)
{
    struct world *w = arg;

    w->context[i] = scree__context(w->cache);
    KIT_CHECK(w->context[i] != NULL, "no context");
}

static void
cache_open(struct world *w)
{
    static const struct sched_policy serial = {.kind = SCHED_SERIAL};
    scree_options o;
    int code;

    options_make(w, &o);
    code = scree_open(WORLD_DIR, &o, &w->cache);
    KIT_CHECK(code == 0, "open gave %d %s", code, kit_code_name(code));
    sched_crew(w->crew, contexts_take, w, &serial, NULL);
}

static struct scree__radix_ref
page_ref(struct world *w, uint32_t page)
{
    return scree__radix_find(&w->cache->radix, w->page[page]);
}

/* Walks over the table pass a thousand slots that are free. */
static void
slots_ignore(struct world *w)
{
    struct scree__radix_leaf *leaf = page_ref(w, 0).leaf;

    KIT_CHECK(page_ref(w, LINEAR_PAGES - 1).leaf == leaf &&
                  w->page[LINEAR_PAGES - 1] - w->page[0] == LINEAR_PAGES - 1,
              "the pages do not lie side by side");
    sched_ignore(0, leaf->word, leaf->word + SCREE__RADIX_FANOUT, scree__radix_word(page_ref(w, 0)),
                 scree__radix_word(page_ref(w, LINEAR_PAGES - 1)) + 1);
}

struct world *
world_open(uint64_t seed, unsigned crew, uint64_t segment_bytes)
{
    struct world *w = calloc(1, sizeof(*w));

    KIT_CHECK(w != NULL && crew <= WORLD_CREW, "no memory");
    w->random = seed;
    w->crew = crew;
    w->segment_bytes = segment_bytes;
    w->disk = sim_disk_new(NULL, seed);
    sim_disk_record(w->disk, false);
    disk_env = sim_disk_env(w->disk);
    memset(files, 0, sizeof(files));
    w->env = *disk_env;
    w->env.open = world_env_open;
    w->env.write = world_env_write;
    w->env.close = world_env_close;
    w->env.sync = world_env_sync;
    w->env.read = world_env_read;
    w->env.read_many = world_env_read_many;
    w->env.punch = world_env_punch;
    memset(reads, 0, sizeof(reads));
    cache_open(w);
    for (unsigned i = LINEAR_PAGES; i-- > 0;) { /* ids go down */
        struct linear_page *p = &w->last.page[i];
        int code = scree_page_allocate(w->cache, kit_slice(NULL, 0), &w->page[i], &p->version);

        KIT_CHECK(code == 0, "allocate gave %d %s", code, kit_code_name(code));
        p->version_max = p->version;
        p->live = true;
    }
    slots_ignore(w);
    sched_settle();
    w->start = w->last;
    return w;
}

static void
flush_all(struct world *w)
{
    int code = scree_flush(w->cache, NULL);

    KIT_CHECK(code == 0, "flush gave %d %s", code, kit_code_name(code));
}

/* Are the pages of another cache those of the last check? */
static void
pages_compare(const struct world *w, scree_cache *cache, const char *what)
{
    unsigned char bytes[PAGE_BYTES];

    for (unsigned i = 0; i < LINEAR_PAGES; i++) {
        const struct linear_page *p = &w->last.page[i];
        scree_version version;
        size_t len;
        int code = scree_page_read(cache, w->page[i], bytes, sizeof(bytes), &len, &version);

        KIT_CHECK(code == (p->live ? 0 : SCREE_E_NOT_FOUND), "P1: page %u %s gave %d %s", i, what,
                  code, kit_code_name(code));
        KIT_CHECK(!p->live || (version == p->version && tokens_content(bytes, len) == p->content),
                  "P1: page %u %s is at version %" PRIu64 " with content %" PRIx64
                  ", not at %" PRIu64 " with %" PRIx64,
                  i, what, version, tokens_content(bytes, len), p->version, p->content);
    }
}

static void
image_verify(struct world *w, struct sim_image *image)
{
    struct sim_disk *copy = sim_disk_new(image, 1);
    scree_options o;

    sim_disk_record(copy, false);
    options_make(w, &o);
    o.env = sim_disk_env(copy);
    kit_verify(WORLD_DIR, &o);
    sim_disk_free(copy);
}

/* Without the room that was made ahead, and is not durable: there is much of it to read. */
static void
image_trim(const struct world *w, struct sim_image *image)
{
    uint64_t stable = scree__log_stable(w->cache->log);

    for (size_t i = 0; i < sim_image_files(image); i++) {
        uint64_t size, number, begin;
        const char *name = strrchr(sim_image_name(image, i, &size), '/');

        if (name == NULL || !scree__segment_name_parse(name + 1, &number))
            continue;
        begin = number * w->segment_bytes;
        if (stable >= begin && stable < begin + w->segment_bytes &&
            size > LOG_HEADER_BYTES + stable - begin)
            sim_image_resize(image, i, LOG_HEADER_BYTES + stable - begin);
    }
}

/* Takes the image. */
static void
image_check(struct world *w, struct sim_image *image, bool clean, unsigned flags)
{
    struct sim_disk *copy = sim_disk_new(image, 1);
    scree_recovery_info info = {.size = sizeof(info)};
    scree_cache *cache;
    scree_options o;
    int code;

    sim_disk_record(copy, false);
    options_make(w, &o);
    o.env = sim_disk_env(copy);
    o.flags = flags;
    code = scree_open(WORLD_DIR, &o, &cache);
    KIT_CHECK(code == 0, "P1: open gave %d %s", code, kit_code_name(code));
    code = scree_recovery(cache, &info);
    KIT_CHECK(code == 0 && (info.clean != 0) == clean, "clean: %" PRIu64, info.clean);
    pages_compare(w, cache, clean ? "reopened" : "recovered");
    code = scree_close(cache);
    KIT_CHECK(code == 0, "close gave %d %s", code, kit_code_name(code));
    sim_disk_free(copy);
    sim_image_free(image);
}

void
world_recover(struct world *w)
{
    struct sim_image *image;

    flush_all(w);
    image = sim_disk_image(w->disk);
    image_trim(w, image);
    image_check(w, image, false, SCREE_READ_ONLY);
}

void
world_close(struct world *w)
{
    struct sim_image *image;
    int code;

    flush_all(w);
    image = sim_disk_image(w->disk);
    image_verify(w, image);
    image_check(w, image, false, 0);
    code = scree_close(w->cache);
    KIT_CHECK(code == 0, "close gave %d %s", code, kit_code_name(code));
    image = sim_disk_image(w->disk);
    image_verify(w, image);
    image_check(w, image, true, 0);
    sim_disk_free(w->disk);
    free(w);
}

/* ---- before a scenario ------------------------------------------------------------------------- */

static void
page_update(struct world *w, uint32_t page, bool append)
{
    struct linear_page *p = &w->start.page[page];
    uint64_t token = tokens_draw(&w->random);
    scree_slice slice = kit_slice(&token, sizeof(token));
    int code = append    ? scree_page_append(w->cache, w->page[page], slice, &p->version)
               : p->live ? scree_page_put(w->cache, w->page[page], slice, &p->version)
                         : scree_page_allocate_at(w->cache, w->page[page], slice, &p->version);

    KIT_CHECK(code == 0, "page %u gave %d %s", page, code, kit_code_name(code));
    p->content = tokens_add(append ? p->content : 0, token);
    p->version_max = p->version;
    p->live = true;
}

static void
page_free(struct world *w, uint32_t page)
{
    struct linear_page *p = &w->start.page[page];
    int code = p->live ? scree_page_free(w->cache, w->page[page], &p->version) : 0;

    KIT_CHECK(code == 0, "free gave %d %s", code, kit_code_name(code));
    p->version_max = p->version;
    p->live = false;
}

static void
page_form(struct world *w, uint32_t page, enum world_form form)
{
    if (form == WORLD_FREE) {
        page_free(w, page);
        return;
    }
    page_update(w, page, false);
    if (form == WORLD_CHAIN || form == WORLD_GHOST) {
        page_update(w, page, true);
        page_update(w, page, true);
    }
}

/* What is retired comes home; all that threads keep goes back to the allocator. */
static void
memory_settle(struct world *w)
{
    struct scree__context *mine = scree__context(w->cache);

    scree__retired_hand_over(mine);
    for (unsigned i = 0; i < w->crew; i++)
        scree__retired_hand_over(w->context[i]);
    scree__reclaimer_wake(w->cache);
    sched_settle();
    scree__nodes_drain(mine);
    for (unsigned i = 0; i < w->crew; i++)
        scree__nodes_drain(w->context[i]);
}

/* A scenario finds the same, whichever ones came before. */
static void
context_settle(struct world *w, struct scree__context *ctx)
{
    int code;

    ctx->sample = 1;
    scree__charge_pass_on(ctx);
    ctx->consolidate_n = 0;
    if (ctx->spare == NULL)
        KIT_CHECK(scree__retire_ready(ctx), "no memory");
    code = scree__log_admit(w->cache->log, ctx->writer, CREDIT_BYTES, SCREE__LOG_USER, true);
    KIT_CHECK(code == 0, "admit gave %d %s", code, kit_code_name(code));
}

/* Records that are dead at once but for the last: the last page has them. */
static void
fill_unsynced(struct world *w, uint64_t bytes)
{
    static const uint64_t zeros[PAGE_BYTES / sizeof(uint64_t)];
    uint64_t until = scree__log_tail(w->cache->log) + bytes;
    struct linear_page *p = &w->start.page[LINEAR_PAGES - 1];

    if (!p->live)
        page_update(w, LINEAR_PAGES - 1, false);
    while (scree__log_tail(w->cache->log) < until) {
        int code = scree_page_put(w->cache, w->page[LINEAR_PAGES - 1],
                                  kit_slice(zeros, sizeof(zeros)), &p->version);

        KIT_CHECK(code == 0, "put gave %d %s", code, kit_code_name(code));
    }
    p->version_max = p->version;
    p->content = tokens_content((const unsigned char *)zeros, sizeof(zeros));
}

static void
fill(struct world *w, uint64_t bytes)
{
    fill_unsynced(w, bytes);
    flush_all(w);
}

/* What is written from here on lies in one granule: it makes a difference to those who count dead bytes. */
static void
granule_room(struct world *w, uint64_t room)
{
    uint64_t at = scree__log_tail(w->cache->log) % SCREE__GRANULE_BYTES;

    if (at + room > SCREE__GRANULE_BYTES)
        fill(w, SCREE__GRANULE_BYTES - at);
}

/* Who looks for dead granules passes a thousand that are of no interest now. */
static void
granules_ignore(struct world *w)
{
    uint64_t segment = w->segment_bytes, in = w->prepare_lsn % segment / SCREE__GRANULE_BYTES;
    uint64_t last = (w->begin_lsn + RUN_BYTES) % segment / SCREE__GRANULE_BYTES;
    struct log_segment *s = scree__segment_peek(w->cache->log, w->prepare_lsn / segment);

    KIT_CHECK(s != NULL && w->prepare_lsn / segment == (w->begin_lsn + RUN_BYTES) / segment,
              "a scenario in two segments");
    sched_ignore(1, s->granule, s->granule + segment / SCREE__GRANULE_BYTES, s->granule + in,
                 s->granule + last + 1);
}

/* Everything else to where it always is. */
static void
rest_settle(struct world *w)
{
    int code;

    memory_settle(w);
    context_settle(w, scree__context(w->cache));
    for (unsigned i = 0; i < w->crew; i++)
        context_settle(w, w->context[i]);
    code = scree__room_seal(w->cache->log, 8 * CREDIT_BYTES); /* nobody leads */
    KIT_CHECK(code == 0, "no room for seals: %d", code);
}

static void
forms_make(struct world *w, const enum world_form form[LINEAR_PAGES])
{
    for (unsigned i = 0; i < LINEAR_PAGES; i++) {
        w->form[i] = form[i];
        page_form(w, i, form[i]);
    }
    flush_all(w);
    for (unsigned i = 0; i < LINEAR_PAGES; i++) {
        scree__radix_mark_clear(page_ref(w, i), SCREE__RADIX_MARK_MASK);
        if (form[i] >= WORLD_EVICTED && form[i] != WORLD_FREE)
            world_evict(w, i);
        if (form[i] == WORLD_DELTA)
            page_update(w, i, true);
        if (form[i] == WORLD_BASE)
            page_update(w, i, false);
    }
}

void
world_prepare(struct world *w, const enum world_form form[LINEAR_PAGES],
              const struct world_log *before)
{
    bool granules = before->fill_bytes + before->unsynced_bytes > 0;

    w->start = w->last;
    granule_room(w, granules ? GRANULE_NEW : RUN_BYTES);
    w->prepare_lsn = scree__log_tail(w->cache->log);
    w->before = *before;
    forms_make(w, form);
    if (before->fill_bytes > 0) {
        fill(w, before->fill_bytes);
        granule_room(w, GRANULE_NEW);
    }
    if (before->snapshot) {
        uint64_t lsn;
        int code = scree__checkpoint_full(w->cache, &lsn);

        KIT_CHECK(code == 0, "snapshot gave %d", code);
    }
    rest_settle(w);
    w->begin_lsn = scree__log_tail(w->cache->log);
    if (before->unsynced_bytes > 0) {
        fill_unsynced(w, before->unsynced_bytes);
        rest_settle(w);
    }
    for (unsigned i = 0; i < LINEAR_PAGES; i++)
        scree__radix_mark_clear(page_ref(w, i), SCREE__RADIX_MARK_MASK);
    granules_ignore(w);
    w->history.n = 0;
    memset(w->calls, 0, sizeof(w->calls));
}

/* ---- after it ---------------------------------------------------------------------------------- */

static void
record_apply(struct world *w, struct linear_state *state, const struct scree__record *r)
{
    for (unsigned i = 0; i < LINEAR_PAGES; i++) {
        struct linear_page *p = &state->page[i];
        uint64_t content = 0;

        if (r->page != w->page[i] || r->kind > SCREE__RECORD_FREE)
            continue;
        if (r->kind != SCREE__RECORD_FREE)
            content = tokens_content(r->payload, r->payload_len);
        if (r->kind == SCREE__RECORD_DELTA) {
            uint64_t token;

            KIT_CHECK(r->payload_len == sizeof(token) && p->live,
                      "replay: the fragment at %" PRIu64 " has no page", r->lsn);
            memcpy(&token, r->payload, sizeof(token));
            content = tokens_add(p->content, token);
        }
        KIT_CHECK(r->kind != SCREE__RECORD_CONSOLIDATED || (p->live && r->version == p->version),
                  "replay: page %u is consolidated at %" PRIu64 " with version %" PRIu64
                  ", but is %s at %" PRIu64,
                  i, r->lsn, r->version, p->live ? "live" : "free", p->version);
        p->content = content;
        p->version = r->version;
        p->live = r->kind != SCREE__RECORD_FREE;
    }
}

/* What replay would make of the records since the scenario began, read where they are: in the ring. */
static void
replay_check(struct world *w)
{
    const struct scree__log *log = w->cache->log;
    uint64_t tail = scree__log_tail(log);
    struct linear_state state = w->start;

    KIT_CHECK(tail - w->begin_lsn <= log->ring_bytes &&
                  tail - w->prepare_lsn <= w->before.fill_bytes + w->before.unsynced_bytes +
                                               SCREE__GRANULE_BYTES + RUN_BYTES,
              "too much was written");
    for (uint64_t at = w->begin_lsn; at < tail;) {
        struct scree__record r;
        enum log_decode code = scree__record_decode(scree__ring_at(log, at), tail - at, at, &r);

        KIT_CHECK(code == LOG_DECODE_OK, "replay: the record at %" PRIu64 " is bad: %d", at,
                  (int)code);
        record_apply(w, &state, &r);
        at += r.disk_len;
    }
    for (unsigned i = 0; i < LINEAR_PAGES; i++) {
        const struct linear_page *p = &state.page[i], *q = &w->last.page[i];

        KIT_CHECK(p->live == q->live &&
                      (!p->live || (p->version == q->version && p->content == q->content)),
                  "replay: page %u would be %s at %" PRIu64 " with %" PRIx64 ", not %s at %" PRIu64
                  " with %" PRIx64,
                  i, p->live ? "live" : "free", p->version, p->content, q->live ? "live" : "free",
                  q->version, q->content);
    }
}

static void
memory_check(struct world *w)
{
    struct scree__memory m;

    memory_settle(w);
    m = scree__memory_sum(w->cache);
    KIT_CHECK(m.retired_bytes == 0, "%" PRIu64 " bytes are retired and do not come home",
              m.retired_bytes);
    KIT_CHECK(m.charged_bytes == m.resident_bytes,
              "%" PRIu64 " bytes are charged, %" PRIu64 " are in pages", m.charged_bytes,
              m.resident_bytes);
}

static void
history_check(struct world *w)
{
    struct linear_history *h = &w->history;

    for (unsigned t = 0; t < w->crew; t++)
        for (uint32_t i = 0; i < w->calls[t]; i++)
            h->call[h->n++] = w->call[t][i];
    w->last = w->start;
    for (uint32_t i = 0; i < LINEAR_PAGES; i++) {
        struct linear_page *p = &w->last.page[i];
        struct linear_call *c = world_do(w, 0, LINEAR_READ, i, 0);

        p->live = c->code == 0;
        if (p->live) {
            p->version = c->version;
            p->content = c->content;
        }
        h->call[h->n++] = *c;
        w->calls[0]--;
    }
    for (uint32_t i = 0; i < h->n; i++)
        for (uint32_t j = 0; j < h->call[i].steps && h->call[i].code == 0; j++) {
            struct linear_page *p = &w->last.page[h->call[i].step[j].page];

            p->version_max = scree__max_u64(p->version_max, h->call[i].version);
        }
    if (!linear_explains(h, &w->start)) {
        linear_print(h, &w->start);
        kit_failed(__FILE__, __LINE__, "P2, P4", "no order of these calls explains what they told");
    }
}

/* An id does not come back while a guard is open that may have seen the page that was free'd. */
static void
guards_check(const struct linear_history *h)
{
    for (uint32_t i = 0; i < h->n; i++) {
        const struct linear_call *get = &h->call[i];

        if (get->guard_until == 0 || get->code != 0)
            continue;
        for (uint32_t j = 0; j < h->n; j++) {
            const struct linear_call *c = &h->call[j];

            KIT_CHECK(c->kind != LINEAR_ALLOCATE || c->code != 0 ||
                          c->step[0].page != get->step[0].page || c->end > get->guard_until ||
                          c->version <= get->version,
                      "an id came back while a guard was open in which its page was read");
        }
    }
}

void
world_check(struct world *w)
{
    history_check(w);
    guards_check(&w->history);
    flush_all(w);
    world_stable_check(w);
    replay_check(w);
    memory_check(w);
    w->runs++;
}

/* ---- what the crew does ------------------------------------------------------------------------ */

struct linear_call *
world_call(struct world *w, unsigned thread, enum linear_kind kind, uint32_t page)
{
    struct linear_call *c;

    KIT_CHECK(w->calls[thread] < WORLD_CALLS, "more calls than there is room for");
    c = &w->call[thread][w->calls[thread]++];
    *c = (struct linear_call){.kind = kind,
                              .thread = thread,
                              .steps = 1,
                              .conflict = LINEAR_PAGES,
                              .step[0] = {.kind = kind,
                                          .page = page,
                                          .expected = w->start.page[page].version,
                                          .token = (thread + 1) * 1000 + w->calls[thread]}};
    return c;
}

static void
call_read(struct world *w, struct linear_call *c, scree_page_id id)
{
    unsigned char bytes[PAGE_BYTES];
    size_t len = 0;

    c->code = scree_page_read(w->cache, id, bytes, sizeof(bytes), &len, &c->version);
    if (c->code == 0)
        c->content = tokens_content(bytes, len);
}

struct linear_call *
world_do(struct world *w, unsigned thread, enum linear_kind kind, uint32_t page, uint64_t expected)
{
    struct linear_call *c = world_call(w, thread, kind, page);
    scree_slice slice = kit_slice(&c->step[0].token, sizeof(c->step[0].token));
    scree_page_id id = w->page[page];

    if (expected != 0)
        c->step[0].expected = expected;
    c->version = c->step[0].expected;
    c->start = sched_now();
    SCHED_POINT();
    if (kind == LINEAR_READ)
        call_read(w, c, id);
    else if (kind == LINEAR_SET)
        c->code = scree_page_set(w->cache, id, &c->version, slice);
    else if (kind == LINEAR_MERGE)
        c->code = scree_page_merge(w->cache, id, &c->version, slice);
    else if (kind == LINEAR_APPEND)
        c->code = scree_page_append(w->cache, id, slice, &c->version);
    else if (kind == LINEAR_PUT)
        c->code = scree_page_put(w->cache, id, slice, &c->version);
    else if (kind == LINEAR_FREE)
        c->code = scree_page_free(w->cache, id, &c->version);
    else
        c->code = scree_page_allocate_at(w->cache, id, slice, &c->version);
    c->end = sched_now() + 1;
    return c;
}

/* together: as one of two in a call, which are the same page. */
static void
get_guarded(struct world *w, unsigned thread, uint32_t page, bool together)
{
    scree_page_id twice[2] = {w->page[page], w->page[page]};
    scree_version versions[2];
    scree_slice slices[2];
    struct linear_call *c = world_call(w, thread, LINEAR_READ, page);
    scree_slice slice;

    scree_read_enter(w->cache);
    c->start = sched_now();
    SCHED_POINT();
    if (together) {
        c->code = scree_pages_get(w->cache, twice, 2, slices, versions, NULL);
        c->version = versions[1];
        slice = slices[1];
    } else {
        c->code = scree_page_get(w->cache, w->page[page], &slice, &c->version);
    }
    c->end = sched_now() + 1;
    if (c->code == 0)
        c->content = tokens_content(slice.data, slice.len);
    SCHED_POINT();
    KIT_CHECK(c->code != 0 || tokens_content(slice.data, slice.len) == c->content,
              "borrowed bytes have changed while the guard was open");
    c->guard_until = sched_now();
    scree_read_leave(w->cache);
}

void
world_get(struct world *w, unsigned thread, uint32_t page)
{
    get_guarded(w, thread, page, false);
}

void
world_get_together(struct world *w, unsigned thread, uint32_t page)
{
    get_guarded(w, thread, page, true);
}

struct linear_call *
world_batch(struct world *w, unsigned thread, const struct linear_step *step, uint32_t steps)
{
    struct linear_call *c = world_call(w, thread, LINEAR_BATCH, step[0].page);
    scree_page_id conflict = 0;
    scree_batch *batch;
    int code = scree_batch_begin(w->cache, &batch);

    c->steps = steps;
    for (uint32_t i = 0; i < steps && code == 0; i++) {
        struct linear_step *s = &c->step[i];
        scree_slice slice = kit_slice(&s->token, sizeof(s->token));

        *s = step[i];
        s->token = (thread + 1) * 1000 + 100 + i;
        if (s->expected == 0)
            s->expected = w->start.page[s->page].version;
        if (s->kind == LINEAR_SET)
            code = scree_batch_set(batch, w->page[s->page], s->expected, slice);
        else if (s->kind == LINEAR_MERGE)
            code = scree_batch_merge(batch, w->page[s->page], s->expected, slice);
        else if (s->kind == LINEAR_FREE)
            code = scree_batch_free(batch, w->page[s->page], s->expected);
        else
            code = scree_batch_check(batch, w->page[s->page], s->expected);
    }
    KIT_CHECK(code == 0, "a step gave %d %s", code, kit_code_name(code));
    c->start = sched_now();
    SCHED_POINT();
    c->code = scree_batch_commit(batch, &c->version, &conflict);
    c->end = sched_now() + 1;
    for (uint32_t i = 0; i < LINEAR_PAGES; i++)
        c->conflict = conflict != 0 && w->page[i] == conflict ? i : c->conflict;
    return c;
}

void
world_evict(struct world *w, uint32_t page)
{
    scree__page_evict(scree__context(w->cache), page_ref(w, page));
}

void
world_consolidate(struct world *w, uint32_t page)
{
    int code = scree__consolidate(scree__context(w->cache), w->page[page]);

    KIT_CHECK(code == 0, "consolidate gave %d %s", code, kit_code_name(code));
}

void
world_move(struct world *w, uint32_t page)
{
    int code = scree__page_move(scree__context(w->cache), w->page[page]);

    KIT_CHECK(code == 0, "move gave %d %s", code, kit_code_name(code));
}

void
world_grace(struct world *w)
{
    scree__retired_hand_over(scree__context(w->cache));
    scree__reclaimer_wait(w->cache);
}

void
world_flush(struct world *w)
{
    int code = scree_flush(w->cache, NULL);

    KIT_CHECK(code == 0, "flush gave %d %s", code, kit_code_name(code));
    world_stable_check(w);
}

void
world_snapshot(struct world *w)
{
    uint64_t lsn;
    int code = scree__checkpoint_again(w->cache, &lsn);

    KIT_CHECK(code == 0, "snapshot gave %d %s", code, kit_code_name(code));
}

void
world_collect(struct world *w)
{
    uint64_t lsn;
    int code = 0;

    for (unsigned i = 0; i < SCREE__GENERATIONS_MAX && code == 0; i++)
        code = scree__checkpoint_again(w->cache, &lsn);
    KIT_CHECK(code == 0, "snapshot gave %d %s", code, kit_code_name(code));
    scree__space_collect(w->cache, true);
}

void
world_draft(struct world *w, bool reclaimer, bool flusher)
{
    sched_draft((uint64_t)w->cache->reclaimer, reclaimer);
    sched_draft((uint64_t)w->cache->log->flusher, flusher);
}
