/*
 * ledger.h - pages under random updates of one thread, and where in the log the record of each lies: what
 * damage of some bytes may do, and what it may not.
 *
 * WHAT IS PROVABLE  [a, b) of the log cannot be read, all else can. A page with a record behind b that says
 *   all of it is as it was. A page whose first record behind b is a fragment may miss one: it is lost. A page
 *   without a record behind b is as it was, or, if a record of it lies in [a, b), as it was before the first
 *   such. A page whose own record (one that its state is made of) is bad where nothing is replayed any more is
 *   lost alone.
 */
#ifndef SCREE_TEST_LEDGER_H
#define SCREE_TEST_LEDGER_H

#include "kit.h"

#define LEDGER_PAGES 256u
#define LEDGER_PAGE_BYTES 3500u
#define LEDGER_FINDINGS 256u

struct ledger_step {
    uint32_t page; /* id */
    uint32_t len;
    uint64_t from, to; /* its record */
    uint64_t version;
    uint64_t hash; /* of the page behind it */
    bool whole;    /* it says all there is of the page */
    bool live;     /* behind it */
};

struct ledger {
    uint64_t random;
    uint32_t pages;     /* ids 1 .. pages - 1 are used */
    uint32_t len_short; /* payloads are as long as this, a quarter up to len_long */
    uint32_t len_long;
    uint64_t stable, claim; /* of the last flush; of the one before: a seal says so */
    uint64_t id_last;       /* of scree_id_next */
    size_t n, cap, placed;  /* steps; those whose place is known */
    struct ledger_step *step;
    scree_log_reader *reader;
    struct kit_fold fold;
    bool live[LEDGER_PAGES];
    uint64_t version[LEDGER_PAGES];
    uint32_t len[LEDGER_PAGES];
    unsigned char bytes[LEDGER_PAGES][LEDGER_PAGE_BYTES];
};

/* Of a new directory, just opened. kit_concat or kit_concat_fold. */
struct ledger *ledger_new(scree_cache *cache, uint64_t seed, uint32_t pages);
void ledger_free(struct ledger *l);
/* Random updates: puts, fragments, allocations, frees, batches; of the ids from .. to - 1. */
void ledger_steps(struct ledger *l, scree_cache *cache, uint32_t n, uint32_t from, uint32_t to);
/* Makes it durable, and learns from the change feed where the records lie. */
void ledger_flush(struct ledger *l, scree_cache *cache);
/* No more: the feed is closed. */
void ledger_end(struct ledger *l);

enum ledger_verdict {
    LEDGER_RIGHT,
    LEDGER_REFUSED, /* the cache, or a page, or both: CORRUPT */
    LEDGER_WRONG    /* bytes that were not the last ones */
};
/* What opening with these options and reading all of it gives; the state of the recover callback too. */
extern char ledger_refusal[512]; /* the first detail of one that is refused */
enum ledger_verdict ledger_look(const struct ledger *l, const char *dir,
                                const scree_options *options);

/* ---- findings ---- */

struct ledger_finding {
    int severity, code;
    char file[64], text[200];
    uint64_t offset, lsn, page, bytes;
};
struct ledger_findings {
    uint32_t n; /* without notes */
    bool state_lost;
    struct ledger_finding found[LEDGER_FINDINGS];
};
/* A scree_finding_fn; ctx: struct ledger_findings. */
int ledger_note(void *ctx, const scree_finding *finding);
void ledger_findings_show(const struct ledger_findings *f);
bool ledger_told_lost(const struct ledger_findings *f, uint64_t page);

/* The step in whose record the byte at lsn lies; NULL: a record of the library's, or none. */
const struct ledger_step *ledger_at(const struct ledger *l, uint64_t lsn);

struct ledger_rescued {
    uint64_t right, lost, older;
};
/* Every page of what was salvaged is right, or provably cannot be (see above); else the run ends. */
void ledger_rescued_check(const struct ledger *l, const struct ledger_findings *f, const char *dir,
                          const scree_options *options, struct ledger_rescued *sum);

#endif
