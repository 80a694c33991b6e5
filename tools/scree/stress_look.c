/*
 * stress_look.c - short-lived processes around the worker: one creates the directory, others open what a
 * kill left and write down what they find. They judge nothing but each page by itself.
 */
#include "stress.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

void
stress_create(struct stress_shared *s)
{
    unsigned char page[4096];
    scree_materializer materializer;
    scree_options options;
    scree_cache *cache;
    int rc;

    stress_materializer(&materializer);
    stress_open_options(s, &materializer, &options);
    rc = scree_open(s->dir, &options, &cache);
    for (uint32_t l = 0; l < STRESS_LEDGERS && rc == 0; l++) {
        struct stress_ledger *ledger = &s->ledgers[l];
        size_t len = stress_ledger_page(l, s->threads, page);

        rc = scree_page_allocate(cache, (scree_slice){page, len}, &ledger->id, &ledger->version);
        s->version_floor = ledger->version;
    }
    if (rc == 0)
        rc = scree_close(cache);
    if (rc != 0)
        stress_wrong(s, "cannot create %s: %s (%s)", s->dir, scree_strerror(rc),
                     scree_error_detail());
    _exit(rc == 0 ? TOOL_OK : TOOL_WRONG);
}

static void
look_at_ledger(struct stress_shared *s, struct stress_look *look, const struct stress_head *head,
               const unsigned char *page)
{
    uint64_t ledger = head->tag & ~STRESS_TAG_LEDGER;

    if (head->tag & STRESS_TAG_LEDGER && ledger < STRESS_LEDGERS && head->writers == s->threads)
        memcpy(look->writers[ledger], page + sizeof(*head),
               head->writers * sizeof(struct stress_writer));
}

static void
look_at_page(struct stress_shared *s, struct stress_look *look, scree_cache *cache,
             struct stress_found *found)
{
    unsigned char page[STRESS_PAGE_MAX];
    size_t len = 0;

    found->code = scree_page_read(cache, found->id, page, sizeof(page), &len, &found->version);
    if (found->code != 0) {
        found->problem = STRESS_UNREADABLE;
        return;
    }
    memset(&found->head, 0, sizeof(found->head));
    if (len >= sizeof(found->head))
        memcpy(&found->head, page, sizeof(found->head));
    found->problem = STRESS_BAD_PAGE;
    if (stress_page_check((scree_slice){page, len}, found->id)) {
        found->problem = STRESS_FINE;
        look_at_ledger(s, look, &found->head, page);
    }
}

static int
look_at_all(struct stress_shared *s, struct stress_look *look, scree_cache *cache)
{
    scree_page_id id = 0;
    size_t len = 1;
    int rc;

    look->root_fine = scree_page_read(cache, SCREE_PAGE_ROOT, NULL, 0, &len, NULL) == 0 && len == 0;
    look->n = 0;
    while ((rc = scree_page_next(cache, id, &id)) == 0) {
        if (id == SCREE_PAGE_ROOT)
            continue;
        if (look->n == s->found_max) {
            stress_wrong(s,
                         "more than %" PRIu64 " live pages, page %" PRIu64 " is beyond all that "
                         "were ever made",
                         s->found_max, id);
            break;
        }
        memset(&look->found[look->n], 0, sizeof(look->found[0]));
        look->found[look->n].id = id;
        look_at_page(s, look, cache, &look->found[look->n]);
        look->n++;
    }
    return rc == SCREE_E_NOT_FOUND ? 0 : rc;
}

void
stress_look(struct stress_shared *s, struct stress_look *look, bool close)
{
    scree_recovery_info info;
    scree_materializer materializer;
    scree_options options;
    scree_cache *cache;
    uint64_t begun = tool_now_ns();
    int rc;

    stress_materializer(&materializer);
    stress_open_options(s, &materializer, &options);
    options.flags = 0; /* must be there */
    rc = scree_open(s->dir, &options, &cache);
    if (rc == 0) {
        look->open_us = (tool_now_ns() - begun) / 1000;
        memset(&info, 0, sizeof(info));
        info.size = sizeof(info);
        rc = scree_recovery(cache, &info);
        look->clean = info.clean;
        look->records = info.records;
        look->torn_bytes = info.torn_bytes;
        if (rc == 0)
            rc = look_at_all(s, look, cache);
        if (rc == 0 && close)
            rc = scree_close(cache);
    }
    if (rc != 0)
        stress_wrong(s, "recovery of %s failed: %s (%s)", s->dir, scree_strerror(rc),
                     scree_error_detail());
    else
        look->complete = 1;
    _exit(rc == 0 ? TOOL_OK : TOOL_WRONG);
}
