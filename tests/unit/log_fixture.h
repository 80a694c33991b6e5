/*
 * log_fixture.h - a log in a directory of its own, its n-th record of kind DELTA of page n, for test_log_copy.c
 * and others.
 */
#ifndef LOG_FIXTURE_H
#define LOG_FIXTURE_H

#include "log/log_private.h"
#include "support/kit.h"
#include "unit/claims.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT (64u * 1024)

static char dir[KIT_PATH_MAX];
static struct scree__log_options options;
static struct scree__log *log_now;
static struct scree__log_writer *writer;
static uint64_t pages, seen, pads_seen; /* pages: the last one that was put */

static inline int
fixture_visit(void *ctx, unsigned who, const struct scree__record *r, size_t n)
{
    (void)ctx, (void)who;
    for (size_t i = 0; i < n; i++) {
        if (r[i].kind == SCREE__RECORD_DELTA)
            cr_assert(eq(u64, r[i].page, ++seen));
        pads_seen += r[i].kind == SCREE__RECORD_PAD;
    }
    return 0;
}

/* The log there, as far as a scan goes. */
static inline int
fixture_scan(const char *of, uint64_t known_stable, struct scree__log_scan_result *scan_out)
{
    int rc;

    options.dir = of;
    seen = pads_seen = 0;
    rc = scree__log_create(&options, &log_now);
    return rc != 0 ? rc
                   : scree__log_scan(log_now, 0, known_stable, fixture_visit, NULL, 1, scan_out);
}

static inline void
fixture_begin_with(uint64_t segment_bytes)
{
    struct scree__log_scan_result scan;

    kit_dir_name(dir, "log");
    kit_env_plan(&(struct kit_plan){0});
    options = (struct scree__log_options){
        .env = kit_env(), .segment_bytes = segment_bytes, .ring_bytes = LOG_RING_BYTES_MIN};
    cr_assert(mkdir(dir, 0777) == 0);
    cr_assert(eq(int, fixture_scan(dir, 0, &scan), 0), "%s", scree_error_detail());
    cr_assert(eq(int, scree__log_start(log_now, &scan, 0), 0), "%s", scree_error_detail());
    writer = scree__log_writer_attach(log_now);
    pages = 0;
}

static inline void
fixture_begin(void)
{
    fixture_begin_with(SEGMENT);
}

/* As a process that dies. */
static inline void
fixture_crash(void)
{
    scree__log_destroy(log_now);
    log_now = NULL;
}

static inline void
fixture_end(void)
{
    fixture_crash();
    kit_dir_remove(dir);
}

/* One record, which ends there. */
static inline void
put_one(uint64_t end)
{
    static uint8_t payload[SEGMENT];
    uint64_t len = end - scree__log_tail(log_now);
    struct scree__record r = {.kind = SCREE__RECORD_DELTA,
                              .page = pages + 1,
                              .payload = payload,
                              .payload_len = (uint32_t)(len - RECORD_HEADER_BYTES)};

    memset(payload, (int)pages + 1, r.payload_len);
    scree__record_prepare(&r);
    cr_assert(eq(u64, r.disk_len, len));
    cr_assert(eq(int, scree__log_admit(log_now, writer, r.disk_len, SCREE__LOG_USER, true), 0));
    cr_assert(eq(int, scree__log_reserve(log_now, writer, &r), 0));
    scree__log_complete(log_now, writer);
    pages++;
}

/* Records that end there. */
static inline void
put_up_to(uint64_t end)
{
    while (end - scree__log_tail(log_now) > 9000)
        put_one(scree__log_tail(log_now) + 8000);
    put_one(end);
}

static inline void
put_more_and_sync(void)
{
    put_up_to(scree__log_tail(log_now) + 200);
    cr_assert(eq(int, scree__log_wait_stable(log_now, scree__log_tail(log_now), UINT64_MAX), 0));
}

static inline void
expect_detail(const char *part)
{
    cr_assert(strstr(scree_error_detail(), part) != NULL, "%s", scree_error_detail());
}

#endif
