/*
 * peer.h - what an engine other than scree has to offer to run the workloads of `scree bench`.
 *
 *   peer.c           options, refusals, the child's and the parent's part, the line of JSON
 *   peer_work.c      the operations that are timed
 *   peer_<engine>.*  one engine behind the table below: with the two above, one program
 *
 * Pages are records: key the page's number, value its bytes. The rest is what scree's own benchmark consists
 * of (tools/scree/bench.h), linked in. Every function returns 0, or not 0 after peer_complain().
 */
#ifndef SCREE_PEER_H
#define SCREE_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What an engine can be told before it is opened. */
struct peer_setup {
    const char *dir; /* there, empty at first */
    uint64_t n;      /* pages that are loaded */
    uint64_t cache_bytes;
    uint32_t page, frag; /* bytes */
    size_t page_max;     /* a page with as many fragments as it can have */
    unsigned threads;
    int zstd_level; /* 0: none */
    bool create;    /* else it was made by an earlier process, which may have crashed */
    bool group;     /* operations are durable when they return */
    bool loads;     /* a load comes first, not durable call by call; `loaded` ends it */
    bool reads;     /* nothing but reads after the load */
    bool mixed;     /* reads of pages that are appended to all the time */
    bool cold;      /* reads of data larger than the cache */
    bool grows;     /* all threads add records, in the order of their ids */
    bool crash;     /* there will be no close */
};

enum { PEER_DURABLE = 1, PEER_ZSTD = 2 };

/* db is what open gave; a session is one thread's, from session_begin. `durable`: on return it survives a loss
   of power. data and frag are the caller's. */
struct peer {
    const char *name;
    unsigned can; /* PEER_* */
    const char *(*version)(void);
    const char *(*config)(const struct peer_setup *setup); /* what the config field says; static */
    int (*open)(const struct peer_setup *setup, void **db_out);
    int (*close)(void *db);
    int (*session_begin)(void *db, void **session_out);
    void (*session_end)(void *session);
    int (*put)(void *session, uint64_t id, const void *data, size_t len, bool durable);
    /* Copied to `to`, which has room for page_max. */
    int (*get)(void *session, uint64_t id, void *to, size_t *len_out);
    /* The first 64 bytes of a page, read in place; NULL: the engine has no such call. */
    int (*view)(void *session, uint64_t id, uint64_t words[8]);
    int (*append)(void *session, uint64_t id, const void *frag, bool durable);
    /* frags[i] to ids[i], all or none, an id perhaps more than once; NULL: cannot. */
    int (*append_batch)(void *session, const uint64_t *ids, const void *const *frags, unsigned n,
                        bool durable);
    int (*flush)(void *db);  /* what was written is durable, as cheaply as can be */
    int (*loaded)(void *db); /* as flush; and the store is as its user wants it for the setup */
};

extern const struct peer peer_engine; /* of this program */

void peer_complain(const char *what, const char *why);

/* `count` appends to a page of len bytes, of which the newest_n last are given; its new length. */
size_t peer_page_add(void *page, size_t len, uint32_t count, const void *newest, uint32_t newest_n,
                     uint32_t frag_len);

/* Keys whose order as bytes is that of the numbers. */
static inline void
peer_key(uint64_t id, unsigned char key[8])
{
    for (int i = 0; i < 8; i++)
        key[i] = (unsigned char)(id >> (56 - 8 * i));
}

#ifdef __cplusplus
}
#endif

#endif
