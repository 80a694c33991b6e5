/*
 * follow.c - a directory that follows another one: the change feed through a pipe.
 *
 *     mkfifo back
 *     follow source A 10 < back | follow sink B > back
 *
 * `source` opens A, changes pages at random for so many seconds (0: not at all), and sends every change that is
 * stable to whoever asked for it on its standard input; then it says that this is all, and ends. `sink` applies
 * what comes on its standard input to B, and asks on its standard output for what it has not got. Either may be
 * killed at any time: the other one ends too, and when both are started again they go on. `follow work A 10`
 * works without sending anything.
 *
 * POSITION  The sink keeps the position it has reached in a page of B, POSITION_PAGE, which the source never
 *   uses, and writes it in one batch with the changes up to there. So whatever a crash of the sink takes away,
 *   position and pages fit. The source sends what is stable only: its crash takes nothing away that was sent.
 *   A batch of the source becomes one of the sink, as a part of one.
 * COPY  If the source's log does not reach back to the sink's position, all pages are copied, while they
 *     change: 1 P := where the log is stable; a reader opened there keeps what follows
 *     2 each page is sent, with the version it has just then; pages of the sink in between are freed
 *     3 Q := where the log is stable, once all that was sent in 2 is
 *     4 the changes from P on are sent. A change to a page whose version is not above that of the copy is
 *       part of the copy and must not be applied again (a fragment twice is one too many). A change to a page
 *       that the sink has not got is one that was freed before the copy came to it: passed over.
 *   Behind Q the sink is what the source is. Until then its position page says that it is not: if either side
 *   is killed, the copy begins anew.
 * ON THE WIRE  numbers as the machine has them, little-endian. The request: magic, position (0: a copy,
 * please),
 *   FNV-1a of the two, 8 bytes each. Messages: struct wire, then len bytes of payload. `sum` is FNV-1a of
 *   what comes before it, and of the payload.
 */
#include <scree.h>

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POSITION_PAGE ((scree_page_id)1 << 62)
#define REQUEST_MAGIC UINT64_C(0x776f6c6c6f663f3f) /* "??follow" */
#define PAGE_MAX (1u << 20)
#define GROUP_BYTES \
    (256u << 10) /* of changes in a batch of the sink, if not of one batch of the source */
#define GROUP_MESSAGES 1000u

enum { STATUS_DONE = 0, STATUS_FAILED = 1, STATUS_GONE = 3 }; /* GONE: the other side is */

/* Beside the kinds of enum scree_record_kind: */
enum { MESSAGE_COPY = 100, MESSAGE_PAGE, MESSAGE_COPIED, MESSAGE_IDLE, MESSAGE_END };

struct wire {
    uint64_t page;
    uint64_t version;
    uint64_t next; /* the position behind it; COPIED: Q; IDLE: as far as there is nothing */
    uint32_t len;
    uint16_t kind;
    uint16_t more; /* further changes of the same batch follow */
    uint64_t sum;
};

static scree_cache *cache;

static int
failed(const char *what)
{
    (void)fprintf(stderr, "follow: %s: %s\n", what, scree_error_detail());
    return STATUS_FAILED;
}

static uint64_t
fnv(const void *data, size_t len, uint64_t sum)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        sum = (sum ^ p[i]) * UINT64_C(0x100000001b3);
    return sum;
}

#define FNV_BEGIN UINT64_C(0xcbf29ce484222325)

static uint64_t
wire_sum(const struct wire *w, const void *payload)
{
    return fnv(payload, w->len, fnv(w, offsetof(struct wire, sum), FNV_BEGIN));
}

/* A page is its base and what was appended. */
static int
merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
      scree_out *out)
{
    int rc = base == NULL ? 0 : scree_out_append(out, base->data, base->len);

    (void)ctx, (void)id;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = scree_out_append(out, frags[i].data, frags[i].len);
    return rc;
}

static int
directory_open(const char *dir)
{
    scree_materializer m = {sizeof m, "follow", 1, NULL, merge, NULL, NULL, NULL};
    scree_options o;

    scree_options_init(&o);
    o.flags = SCREE_CREATE;
    o.materializer = &m;
    o.cache_bytes = 8u << 20;
    o.page_bytes_max = PAGE_MAX;
    /* Small, so that the past is given back soon and a sink that was away for long needs a copy. */
    o.segment_bytes = 1u << 20;
    o.snapshot_log_bytes = 1u << 20;
    return scree_open(dir, &o, &cache);
}

/* ---- source: work ------------------------------------------------------------------------------ */

#define WORK_PAGES 1000u
#define BATCH_PAGES 4u

static _Atomic bool work_over;
static uint64_t work_seconds;

static uint64_t
draw(uint64_t *state, uint64_t below)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % below;
}

/* Free, put or append. *page becomes 0 with its page. */
static int
work_page(uint64_t *random, scree_page_id *page, scree_slice text)
{
    scree_version version = 0;
    size_t len = 0;
    int rc = scree_page_read(cache, *page, NULL, 0, &len, &version);

    if (rc != 0 && rc != SCREE_E_TOO_BIG)
        return rc;
    if (draw(random, 20) == 0 && *page != SCREE_PAGE_ROOT) {
        rc = scree_page_free(cache, *page, &version);
        *page = 0;
        return rc;
    }
    return len > 2000 || draw(random, 10) == 0 ? scree_page_put(cache, *page, text, NULL)
                                               : scree_page_append(cache, *page, text, NULL);
}

/* A new page in place of the first, the same text at the end of the others: all at once. */
static int
work_batch(scree_page_id *page, size_t pages, scree_slice text)
{
    scree_page_id fresh = 0;
    scree_batch *batch;
    int rc = scree_batch_begin(cache, &batch);

    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < pages; i++) {
        scree_version version = 0;

        if (page[i] == 0)
            continue;
        rc = scree_page_read(cache, page[i], NULL, 0, NULL, &version);
        if (rc == 0 || rc == SCREE_E_TOO_BIG)
            rc = i == 0 ? scree_batch_free(batch, page[i], version)
                        : scree_batch_merge(batch, page[i], version, text);
    }
    if (rc == 0)
        rc = scree_batch_allocate(batch, text, &fresh);
    if (rc != 0) {
        scree_batch_abort(batch);
        return rc;
    }
    rc = scree_batch_commit(batch, NULL, NULL);
    page[0] = rc == 0 ? fresh : page[0];
    return rc;
}

/* Changes pages, WORK_PAGES at most, until the time is over. */
static void *
work_main(void *status)
{
    scree_page_id page[WORK_PAGES] = {SCREE_PAGE_ROOT}, at = SCREE_PAGE_ROOT;
    time_t until = time(NULL) + (time_t)work_seconds;
    uint64_t random = ((uint64_t)getpid() << 32 | (uint64_t)time(NULL)) | 1;
    int rc = 0;

    for (size_t i = 1; i < WORK_PAGES && scree_page_next(cache, at, &at) == 0; i++)
        page[i] = at;
    for (uint64_t n = 0; rc == 0 && time(NULL) < until; n++) {
        char line[400];
        size_t i = draw(&random, WORK_PAGES);
        int len = snprintf(line, sizeof line, "%d wrote %" PRIu64 "; %0*d\n", (int)getpid(), n,
                           (int)draw(&random, 300), 0);
        scree_slice text = {line, (size_t)len};

        if (n % 8 == 0 && i > 0 && i + BATCH_PAGES <= WORK_PAGES)
            rc = work_batch(&page[i], BATCH_PAGES, text);
        else if (page[i] == 0)
            rc = scree_page_allocate(cache, text, &page[i], NULL);
        else
            rc = work_page(&random, &page[i], text);
        if (n % 16 == 0)
            (void)usleep(500);
    }
    *(int *)status = rc == 0 ? STATUS_DONE : failed("working");
    atomic_store_explicit(&work_over, true, memory_order_release);
    return NULL;
}

/* ---- source: send ------------------------------------------------------------------------------ */

/* False: the sink is gone. */
static bool
send_message(struct wire *w, const void *payload)
{
    w->sum = wire_sum(w, payload);
    return fwrite(w, sizeof *w, 1, stdout) == 1 &&
           (w->len == 0 || fwrite(payload, w->len, 1, stdout) == 1);
}

static bool
send_position(uint16_t kind, scree_lsn next)
{
    struct wire w = {.kind = kind, .next = next};

    return send_message(&w, NULL);
}

/* Steps 1 to 3 of the copy. */
static int
send_copy(scree_log_reader **reader_out)
{
    static unsigned char bytes[PAGE_MAX];
    scree_page_id id = 0;
    scree_lsn lsn;

    if (scree_flush(cache, &lsn) != 0 || scree_log_open(cache, lsn, reader_out) != 0)
        return failed("a position to copy from");
    if (!send_position(MESSAGE_COPY, lsn))
        return STATUS_GONE;
    while (scree_page_next(cache, id, &id) == 0) {
        struct wire w = {.kind = MESSAGE_PAGE, .page = id};
        size_t len;
        int rc = scree_page_read(cache, id, bytes, sizeof bytes, &len, &w.version);

        if (rc == SCREE_E_NOT_FOUND)
            continue; /* freed just now */
        if (rc != 0)
            return failed("copying a page");
        w.len = (uint32_t)len;
        if (!send_message(&w, bytes))
            return STATUS_GONE;
    }
    if (scree_flush(cache, &lsn) != 0)
        return failed("flush");
    return send_position(MESSAGE_COPIED, lsn) ? STATUS_DONE : STATUS_GONE;
}

/* Changes as they become stable, until the work is over and all of it is sent. */
static int
send_changes(scree_log_reader *reader)
{
    scree_log_record r = {.size = sizeof r};
    scree_lsn end = 0, told = 0;
    bool sent = true;

    for (;;) {
        int rc;

        if (end == 0 && atomic_load_explicit(&work_over, memory_order_acquire) &&
            scree_flush(cache, &end) != 0)
            return failed("flush");
        rc = scree_log_next(reader, 10, &r);
        if (rc == 0) {
            struct wire w = {.page = r.page,
                             .version = r.version,
                             .next = r.next,
                             .len = (uint32_t)r.payload.len,
                             .kind = (uint16_t)r.kind,
                             .more = (r.flags & SCREE_RECORD_MORE) != 0};

            sent = true;
            if (!send_message(&w, r.payload.data))
                return STATUS_GONE;
            continue;
        }
        if (rc != SCREE_E_TIMEOUT)
            return failed("reading the log");
        if ((sent || r.next != told) && !send_position(MESSAGE_IDLE, r.next))
            return STATUS_GONE;
        sent = false;
        told = r.next;
        if (end != 0 && r.next >= end)
            return send_position(MESSAGE_END, r.next) && fflush(stdout) == 0 ? STATUS_DONE
                                                                             : STATUS_GONE;
        if (fflush(stdout) != 0)
            return STATUS_GONE;
    }
}

static int
send_all(scree_lsn from)
{
    scree_log_reader *reader = NULL;
    int rc = from == 0 ? SCREE_E_NOT_FOUND : scree_log_open(cache, from, &reader);
    int status = STATUS_DONE;

    if (rc == SCREE_E_NOT_FOUND || rc == SCREE_E_INVALID)
        status = send_copy(&reader);
    else if (rc != 0)
        status = failed("opening the log");
    if (status == STATUS_DONE)
        status = send_changes(reader);
    scree_log_close(reader);
    return status;
}

static int
source(const char *dir, uint64_t seconds, bool sends)
{
    uint64_t request[3];
    pthread_t worker;
    int status = STATUS_DONE, worked = STATUS_DONE;

    if (directory_open(dir) != 0)
        return failed(dir);
    work_seconds = seconds;
    if (pthread_create(&worker, NULL, work_main, &worked) != 0)
        return failed("no thread");
    if (sends && fread(request, sizeof request, 1, stdin) != 1) {
        status = STATUS_GONE;
    } else if (sends) {
        if (request[0] != REQUEST_MAGIC || request[2] != fnv(request, 16, FNV_BEGIN))
            status = failed("this is no sink's request");
        else
            status = send_all(request[1]);
    }
    if (status == STATUS_GONE)
        _exit(status); /* as a crash: the work is not waited for */
    pthread_join(worker, NULL);
    if (scree_close(cache) != 0)
        return failed("close");
    return status != STATUS_DONE ? status : worked;
}

/* ---- sink: what is kept of the position -------------------------------------------------------- */

struct position {
    uint64_t lsn;
    uint64_t copying; /* 1: the pages are no state of the source's yet */
};

struct message {
    struct wire w;
    unsigned char *payload;
};

/* Messages to be applied as one batch. */
struct group {
    struct message *message;
    size_t n, cap;
    size_t bytes;
};

static struct sink {
    struct position position; /* as of the messages in `group` */
    struct group unit;        /* a batch of the source, or one change, being received */
    struct group group;       /* units to be committed */
    struct {
        scree_page_id id;
        scree_version version;
    } * copied; /* by id: they come in order */
    size_t copied_n, copied_cap;
    scree_lsn copy_end;  /* Q; 0: pages are coming */
    scree_page_id swept; /* no page of the sink's own up to here */
    uint64_t applied, copies;
} sink_state;

static void
group_add(struct group *g, const struct message *m)
{
    if (g->n == g->cap) {
        g->cap = g->cap == 0 ? 64 : 2 * g->cap;
        g->message = realloc(g->message, g->cap * sizeof *g->message);
        if (g->message == NULL)
            abort();
    }
    g->message[g->n++] = *m;
    g->bytes += m->w.len + 64;
}

static void
group_clear(struct group *g, bool payloads)
{
    for (size_t i = 0; payloads && i < g->n; i++)
        free(g->message[i].payload);
    g->n = 0;
    g->bytes = 0;
}

static bool
is_live(scree_page_id id, scree_version *version_out)
{
    int rc = scree_page_read(cache, id, NULL, 0, NULL, version_out);

    return rc == 0 || rc == SCREE_E_TOO_BIG;
}

/* The version is that from before the batch; 0 for a page that the batch allocates, as it should be. */
static int
step_add(scree_batch *batch, const struct message *m)
{
    scree_slice payload = {m->payload, m->w.len};
    scree_version version = 0;
    bool live = is_live(m->w.page, &version);

    switch (m->w.kind) {
    case SCREE_RECORD_ALLOCATE:
        return scree_batch_allocate_at(batch, m->w.page, payload);
    case MESSAGE_PAGE:
        return live ? scree_batch_set(batch, m->w.page, version, payload)
                    : scree_batch_allocate_at(batch, m->w.page, payload);
    case SCREE_RECORD_SET:
        return scree_batch_set(batch, m->w.page, version, payload);
    case SCREE_RECORD_DELTA:
        return scree_batch_merge(batch, m->w.page, version, payload);
    default:
        return scree_batch_free(batch, m->w.page, version);
    }
}

static int
group_try(const struct group *g, const struct position *position)
{
    struct message at = {
        .w = {.kind = MESSAGE_PAGE, .page = POSITION_PAGE, .len = sizeof *position},
        .payload = (unsigned char *)(uintptr_t)position};
    scree_batch *batch;
    int rc = scree_batch_begin(cache, &batch);

    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < g->n; i++)
        rc = step_add(batch, &g->message[i]);
    if (rc == 0)
        rc = step_add(batch, &at);
    if (rc == 0)
        return scree_batch_commit(batch, NULL, NULL);
    scree_batch_abort(batch);
    return rc;
}

/* All of the group, and the position behind it. */
static int
group_commit(struct sink *s)
{
    int rc;

    while ((rc = group_try(&s->group, &s->position)) == SCREE_E_BUSY)
        (void)usleep(1000); /* an id freed a moment ago: in a grace period it is free */
    if (rc != 0)
        return failed("applying changes");
    s->applied += s->group.n;
    group_clear(&s->group, true);
    return STATUS_DONE;
}

/* ---- sink: a unit has come ---------------------------------------------------------------------- */

/* In one batch a page cannot be freed and come back. */
static bool
comes_back(const struct sink *s)
{
    for (size_t i = 0; i < s->unit.n; i++)
        for (size_t j = 0; s->unit.message[i].w.kind == SCREE_RECORD_ALLOCATE && j < s->group.n;
             j++)
            if (s->group.message[j].w.kind == SCREE_RECORD_FREE &&
                s->group.message[j].w.page == s->unit.message[i].w.page)
                return true;
    return false;
}

/* Step 4 of the copy: is the i-th change of the unit part of it, or of a page that never came? */
static bool
is_copied(const struct sink *s, size_t i)
{
    const struct wire *w = &s->unit.message[i].w;
    size_t low = 0, high = s->copied_n;
    scree_version version;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (s->copied[mid].id < w->page)
            low = mid + 1;
        else
            high = mid;
    }
    if (low < s->copied_n && s->copied[low].id == w->page && w->version <= s->copied[low].version)
        return true;
    if (w->kind == SCREE_RECORD_ALLOCATE || is_live(w->page, &version))
        return false;
    for (size_t j = 0; j < i; j++) /* allocated within the unit? */
        if (s->unit.message[j].w.page == w->page &&
            s->unit.message[j].w.kind == SCREE_RECORD_ALLOCATE)
            return false;
    return true;
}

static void
position_reach(struct sink *s, scree_lsn lsn)
{
    if (s->position.copying && (s->copy_end == 0 || lsn < s->copy_end))
        return;
    s->position = (struct position){.lsn = lsn};
    s->copied_n = 0;
    s->copy_end = 0;
}

static int
unit_apply(struct sink *s, scree_lsn next)
{
    bool window = s->position.copying != 0;

    if ((comes_back(s) || window || s->group.n + s->unit.n > GROUP_MESSAGES) && s->group.n > 0 &&
        group_commit(s) != STATUS_DONE)
        return STATUS_FAILED;
    for (size_t i = 0; i < s->unit.n; i++) {
        if (window && is_copied(s, i))
            free(s->unit.message[i].payload);
        else
            group_add(&s->group, &s->unit.message[i]);
    }
    group_clear(&s->unit, false);
    position_reach(s, next);
    return s->group.bytes >= GROUP_BYTES || (window && s->group.n > 0) ? group_commit(s)
                                                                       : STATUS_DONE;
}

/* ---- sink: a copy comes ------------------------------------------------------------------------- */

/* Pages below `id` that the source has not got. */
static void
sweep(struct sink *s, scree_page_id id)
{
    scree_page_id at = s->swept;

    while (scree_page_next(cache, at, &at) == 0 && at < id) {
        struct message m = {.w = {.kind = SCREE_RECORD_FREE, .page = at}};

        if (at != SCREE_PAGE_ROOT && at != POSITION_PAGE)
            group_add(&s->group, &m);
    }
    s->swept = id;
}

static int
copy_page(struct sink *s, const struct message *m)
{
    sweep(s, m->w.page);
    if (s->copied_n == s->copied_cap) {
        s->copied_cap = s->copied_cap == 0 ? 1024 : 2 * s->copied_cap;
        s->copied = realloc(s->copied, s->copied_cap * sizeof *s->copied);
        if (s->copied == NULL)
            abort();
    }
    s->copied[s->copied_n].id = m->w.page;
    s->copied[s->copied_n++].version = m->w.version;
    group_add(&s->group, m);
    return s->group.bytes >= GROUP_BYTES || s->group.n >= GROUP_MESSAGES ? group_commit(s)
                                                                         : STATUS_DONE;
}

static int
copy_begin(struct sink *s)
{
    int rc = s->group.n > 0 ? group_commit(s) : STATUS_DONE;

    s->position = (struct position){.copying = 1};
    s->copied_n = 0;
    s->copy_end = 0;
    s->swept = 0;
    s->copies++;
    return rc == STATUS_DONE ? group_commit(s) : rc;
}

/* ---- sink: receive ------------------------------------------------------------------------------ */

/* Nothing but whole and right messages. */
static bool
receive(struct message *m)
{
    m->payload = NULL;
    if (fread(&m->w, sizeof m->w, 1, stdin) != 1 || m->w.len > PAGE_MAX)
        return false;
    m->payload = malloc(m->w.len + 1u);
    if (m->payload == NULL)
        abort();
    if ((m->w.len == 0 || fread(m->payload, m->w.len, 1, stdin) == 1) &&
        m->w.sum == wire_sum(&m->w, m->payload))
        return true;
    free(m->payload);
    return false;
}

static int
message_apply(struct sink *s, struct message *m)
{
    if (m->w.kind < MESSAGE_COPY) {
        group_add(&s->unit, m);
        return m->w.more ? STATUS_DONE : unit_apply(s, m->w.next);
    }
    if (m->w.kind == MESSAGE_PAGE)
        return copy_page(s, m);
    free(m->payload);
    switch (m->w.kind) {
    case MESSAGE_COPY:
        return copy_begin(s);
    case MESSAGE_COPIED:
        sweep(s, UINT64_MAX);
        s->copy_end = m->w.next;
        return group_commit(s);
    default: /* IDLE, END */
        position_reach(s, m->w.next);
        return group_commit(s);
    }
}

static int
sink(const char *dir)
{
    struct sink *s = &sink_state;
    struct message m = {.w = {.kind = 0}};
    uint64_t request[3] = {REQUEST_MAGIC};
    size_t len;
    int status = STATUS_DONE;

    if (directory_open(dir) != 0)
        return failed(dir);
    if (scree_page_read(cache, POSITION_PAGE, &s->position, sizeof s->position, &len, NULL) != 0 ||
        len != sizeof s->position || s->position.copying)
        s->position = (struct position){.copying = 1};
    request[1] = s->position.copying ? 0 : s->position.lsn;
    request[2] = fnv(request, 16, FNV_BEGIN);
    if (fwrite(request, sizeof request, 1, stdout) != 1 || fflush(stdout) != 0)
        status = STATUS_GONE;
    while (status == STATUS_DONE && m.w.kind != MESSAGE_END) {
        if (receive(&m))
            status = message_apply(s, &m);
        else
            status = STATUS_GONE;
    }
    (void)fprintf(
        stderr, "follow: %" PRIu64 " changes applied, %" PRIu64 " copies, at lsn %" PRIu64 "%s\n",
        s->applied, s->copies, s->position.lsn, status == STATUS_GONE ? ", source gone" : "");
    group_clear(&s->unit, true);
    group_clear(&s->group, true);
    free(s->unit.message);
    free(s->group.message);
    free(s->copied);
    if (scree_close(cache) != 0)
        return failed("close");
    return status;
}

int
main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN); /* a write says so */
    if (argc == 4 && strcmp(argv[1], "source") == 0)
        return source(argv[2], strtoull(argv[3], NULL, 10), true);
    if (argc == 4 && strcmp(argv[1], "work") == 0)
        return source(argv[2], strtoull(argv[3], NULL, 10), false);
    if (argc == 3 && strcmp(argv[1], "sink") == 0)
        return sink(argv[2]);
    (void)fprintf(stderr, "usage: follow source DIR SECONDS < requests > changes\n"
                          "       follow sink DIR < changes > requests\n"
                          "       follow work DIR SECONDS\n");
    return STATUS_FAILED;
}
