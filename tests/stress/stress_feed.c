/*
 * stress_feed.c - readers of the log beside writers, cleaning, snapshots, punching.
 *
 * GOAL      applying what scree_log_next tells gives the pages there are, whoever reads and however slowly.
 * METHOD    writers allocate, append, put, free, and change several pages in batches, with segments of 64 KiB
 *           and a snapshot every 128 KiB of log; one thread reclaims all the time. Readers build a model each:
 *           one as fast as it can, one with long pauses (what it has not read must wait for it), one that goes
 *           on with a new reader at `next` after every few records.
 * ORACLE    lsns grow, `next` is behind them, versions of a page grow; a page is allocated when it is not live
 *           and changed when it is; behind a batch the pages that batches change hold the same stamp. When the
 *           writers have stopped: the models are the cache, byte by byte. What was pinned is given back.
 *
 * stress_feed [seed] [seconds] [writers]
 */
#include "support/kit.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define IDS 8192u
#define OWN 40u        /* pages of a writer */
#define TWINS 3u       /* pages that only batches change, all at once */
#define FULL_BYTES 600 /* a page as long as that is put anew */
#define WRITERS_MAX 16u
#define READERS 3u

static char dir[KIT_PATH_MAX];
static scree_cache *cache;
static _Atomic bool stop, written;
static scree_page_id twin[TWINS];

struct page {
    unsigned char *bytes;
    size_t len;
    scree_version version; /* of its newest record, dead or alive */
    bool live;
};

struct reader {
    struct page page[IDS];
    unsigned kind;
    bool in_batch;
    uint64_t random, records, batches, opens;
    scree_log_reader *first; /* to begin with */
    scree_lsn lsn, next;
};

/* ---- writers --------------------------------------------------------------------------------- */

static void
page_write(uint64_t *random, scree_page_id *id)
{
    unsigned char bytes[100];
    size_t len = kit_below(random, sizeof bytes);
    scree_version version = 0;
    size_t page_len = 0;
    int rc = 0;

    memset(bytes, (int)(1 + kit_below(random, 200)), sizeof bytes);
    if (*id == 0) {
        rc = scree_page_allocate(cache, kit_slice(bytes, len), id, NULL);
    } else {
        rc = scree_page_read(cache, *id, NULL, 0, &page_len, &version);
        KIT_CHECK(rc == 0 || rc == SCREE_E_TOO_BIG, "read: %d", rc);
        if (kit_below(random, 30) == 0) {
            rc = scree_page_free(cache, *id, &version);
            *id = 0;
        } else if (page_len > FULL_BYTES) {
            rc = scree_page_put(cache, *id, kit_slice(bytes, len), NULL);
        } else {
            rc = scree_page_append(cache, *id, kit_slice(bytes, len), NULL);
        }
    }
    KIT_CHECK(rc == 0, "a write gave %d %s", rc, scree_error_detail());
}

/* All twins get the same stamp, and two own pages change with them. */
static void
batch_write(uint64_t *random, scree_page_id *own)
{
    uint64_t stamp = kit_random(random);
    scree_batch *batch;
    scree_version version;
    int rc;

    KIT_CHECK(scree_batch_begin(cache, &batch) == 0, "begin");
    for (unsigned i = 0; i < TWINS; i++) {
        (void)!scree_page_read(cache, twin[i], NULL, 0, NULL, &version);
        KIT_CHECK(scree_batch_set(batch, twin[i], version, kit_slice(&stamp, sizeof stamp)) == 0,
                  "batch_set");
    }
    if (own[0] != 0) {
        (void)!scree_page_read(cache, own[0], NULL, 0, NULL, &version);
        KIT_CHECK(scree_batch_free(batch, own[0], version) == 0, "batch_free");
    }
    KIT_CHECK(scree_batch_allocate(batch, kit_slice(&stamp, 8), &own[1]) == 0, "batch_allocate");
    rc = scree_batch_commit(batch, NULL, NULL);
    KIT_CHECK(rc == 0 || rc == SCREE_E_CONFLICT, "commit: %d %s", rc, scree_error_detail());
    if (rc == 0)
        own[0] = own[1];
}

static void *
writer_main(void *arg)
{
    uint64_t random = *(uint64_t *)arg;
    scree_page_id own[OWN] = {0}, pair[2] = {0};

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        if (kit_below(&random, 5) == 0)
            batch_write(&random, pair);
        else
            page_write(&random, &own[kit_below(&random, OWN)]);
    }
    return NULL;
}

static void *
reclaimer_main(void *arg)
{
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        KIT_CHECK(scree_reclaim(cache, 1.1, NULL, NULL) == 0, "reclaim: %s", scree_error_detail());
        usleep(20 * 1000);
    }
    return arg;
}

/* ---- readers --------------------------------------------------------------------------------- */

static void
page_apply(struct page *p, const scree_log_record *r)
{
    size_t keep = r->kind == SCREE_RECORD_DELTA ? p->len : 0;
    unsigned char *bytes = realloc(p->bytes, keep + r->payload.len + 1);

    KIT_CHECK(p->live == (r->kind != SCREE_RECORD_ALLOCATE), "kind %d of page %" PRIu64 ", live %d",
              r->kind, r->page, p->live);
    KIT_CHECK(r->version > p->version, "page %" PRIu64 ": version %" PRIu64 " after %" PRIu64,
              r->page, r->version, p->version);
    if (r->payload.len > 0)
        memcpy(bytes + keep, r->payload.data, r->payload.len);
    p->bytes = bytes;
    p->len = keep + r->payload.len;
    p->version = r->version;
    p->live = r->kind != SCREE_RECORD_FREE;
}

static void
twins_check(const struct reader *m)
{
    const struct page *first = &m->page[twin[0]];

    for (unsigned i = 1; i < TWINS; i++) {
        const struct page *p = &m->page[twin[i]];

        KIT_CHECK(p->version == first->version && p->len == 8 &&
                      memcmp(p->bytes, first->bytes, 8) == 0,
                  "half a batch at lsn %" PRIu64, m->lsn);
    }
}

static void
record_apply(struct reader *m, const scree_log_record *r)
{
    KIT_CHECK(r->page < IDS, "page %" PRIu64, r->page);
    KIT_CHECK(r->lsn > m->lsn, "lsn %" PRIu64 " after %" PRIu64, r->lsn, m->lsn);
    KIT_CHECK((r->flags & SCREE_RECORD_MORE) != 0 ? r->next < r->lsn : r->next > r->lsn,
              "next %" PRIu64 " of lsn %" PRIu64, r->next, r->lsn);
    m->lsn = r->lsn;
    m->next = r->next;
    m->records++;
    page_apply(&m->page[r->page], r);
    m->in_batch |= (r->flags & SCREE_RECORD_MORE) != 0;
    if ((r->flags & SCREE_RECORD_MORE) != 0)
        return;
    m->batches += m->in_batch;
    m->in_batch = false;
    if (m->page[twin[0]].version != 0)
        twins_check(m);
}

/* A new reader where the old one is, while that is open still. */
static scree_log_reader *
reader_again(struct reader *m, scree_log_reader *old)
{
    scree_log_reader *reader;
    int rc = scree_log_open(cache, m->next, &reader);

    KIT_CHECK(rc == 0, "open at %" PRIu64 " gave %d %s", m->next, rc, scree_error_detail());
    scree_log_close(old);
    m->opens++;
    return reader;
}

static void *
reader_main(void *arg)
{
    struct reader *m = arg;
    scree_log_reader *reader = m->first;
    scree_log_record r = {.size = sizeof r};
    scree_lsn end = 0;

    do {
        int rc = scree_log_next(reader, 10, &r);

        KIT_CHECK(rc == 0 || rc == SCREE_E_TIMEOUT, "next gave %d %s", rc, scree_error_detail());
        if (rc == 0)
            record_apply(m, &r);
        if (m->kind == 1 && !atomic_load_explicit(&written, memory_order_relaxed) &&
            kit_below(&m->random, 2000) == 0)
            usleep(200 * 1000);
        if (m->kind == 2 && rc == 0 && (r.flags & SCREE_RECORD_MORE) == 0 &&
            kit_below(&m->random, 50) == 0)
            reader = reader_again(m, reader);
        end = atomic_load_explicit(&written, memory_order_acquire) ? scree_stable_lsn(cache) : 0;
    } while (end == 0 || r.next < end);
    scree_log_close(reader);
    return NULL;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void
model_compare(const struct reader *m)
{
    static unsigned char bytes[4096];
    scree_page_id id = SCREE_PAGE_ROOT;
    uint64_t pages = 0;

    for (unsigned i = 0; i < IDS; i++)
        pages += m->page[i].live;
    while (scree_page_next(cache, id, &id) == 0) {
        const struct page *p = &m->page[id];
        scree_version version;
        size_t len;
        int rc = scree_page_read(cache, id, bytes, sizeof bytes, &len, &version);

        KIT_CHECK(rc == 0 && p->live && p->version == version && p->len == len &&
                      memcmp(p->bytes, bytes, len) == 0,
                  "reader %u: page %" PRIu64 " at version %" PRIu64 " differs", m->kind, id,
                  version);
        pages--;
    }
    KIT_CHECK(pages == 0, "reader %u knows %" PRIu64 " pages that are not there", m->kind, pages);
}

static void
twins_make(void)
{
    uint64_t stamp = 0;
    scree_batch *batch;

    KIT_CHECK(scree_batch_begin(cache, &batch) == 0, "begin");
    for (unsigned i = 0; i < TWINS; i++)
        KIT_CHECK(scree_batch_allocate(batch, kit_slice(&stamp, 8), &twin[i]) == 0, "allocate");
    KIT_CHECK(scree_batch_commit(batch, NULL, NULL) == 0, "commit");
}

static void
readers_finish(struct reader *readers, pthread_t *thread)
{
    scree_stats s = {.size = sizeof s};

    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(thread[i], NULL);
        model_compare(&readers[i]);
        printf("reader %u: %" PRIu64 " records, %" PRIu64 " batches, %" PRIu64 " opens\n", i,
               readers[i].records, readers[i].batches, readers[i].opens);
        for (unsigned p = 0; p < IDS; p++)
            free(readers[i].page[p].bytes);
    }
    KIT_CHECK(scree_reclaim(cache, 1.5, NULL, NULL) == 0, "reclaim: %s", scree_error_detail());
    KIT_CHECK(scree_stats_get(cache, &s) == 0 && s.pinned_bytes == 0, "%" PRIu64 " bytes pinned",
              s.pinned_bytes);
    KIT_CHECK(s.punched_bytes + s.deleted_bytes > 0, "nothing was given back: too short a run");
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1), seconds = kit_argument(argc, argv, 2, 10);
    uint64_t writers = kit_argument(argc, argv, 3, 4), seeds[WRITERS_MAX], pinned_max = 0;
    struct reader *readers = calloc(READERS, sizeof *readers);
    pthread_t writer[WRITERS_MAX], reader[READERS], reclaimer;
    scree_options options;
    uint64_t until = kit_now_ms() + seconds * 1000;

    writers = writers > WRITERS_MAX ? WRITERS_MAX : writers;
    snprintf(kit_context, sizeof kit_context, "seed %" PRIu64, seed);
    kit_dir_name(dir, "feed");
    kit_options_small(&options, &kit_concat);
    options.cache_bytes = 256 * 1024;
    options.snapshot_log_bytes = 128 * 1024;
    KIT_CHECK(scree_open(dir, &options, &cache) == 0, "open: %s", scree_error_detail());
    twins_make();
    for (unsigned i = 0; i < READERS; i++) {
        readers[i].kind = i;
        readers[i].random = seed * 77 + i;
        /* Before there are snapshots, so from the first change on. */
        KIT_CHECK(scree_log_open(cache, 0, &readers[i].first) == 0, "open: %s",
                  scree_error_detail());
        pthread_create(&reader[i], NULL, reader_main, &readers[i]);
    }
    for (uint64_t i = 0; i < writers; i++) {
        seeds[i] = seed * 1000 + i;
        pthread_create(&writer[i], NULL, writer_main, &seeds[i]);
    }
    pthread_create(&reclaimer, NULL, reclaimer_main, NULL);
    while (kit_now_ms() < until) {
        scree_stats s = {.size = sizeof s};

        KIT_CHECK(scree_stats_get(cache, &s) == 0, "stats");
        pinned_max = s.pinned_bytes > pinned_max ? s.pinned_bytes : pinned_max;
        usleep(10 * 1000);
    }
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (uint64_t i = 0; i < writers; i++)
        pthread_join(writer[i], NULL);
    pthread_join(reclaimer, NULL);
    KIT_CHECK(scree_flush(cache, NULL) == 0, "flush");
    atomic_store_explicit(&written, true, memory_order_release);
    readers_finish(readers, reader);
    printf("at most %" PRIu64 " bytes pinned: ok\n", pinned_max);
    KIT_CHECK(scree_close(cache) == 0, "close: %s", scree_error_detail());
    free(readers);
    kit_dir_remove(dir);
    return 0;
}
