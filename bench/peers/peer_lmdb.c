/*
 * peer_lmdb.c - LMDB. Why it is set up like this: README.md.
 */
#include "peer.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAP_BYTES_MIN (16ull << 30)

struct lmdb {
    MDB_env *env;
    MDB_dbi dbi;
    size_t page_max;
    uint32_t frag;
    bool loading; /* not durable, until loaded */
};

struct session {
    struct lmdb *db;
    MDB_txn *reader;     /* reset between operations */
    unsigned char *page; /* page_max bytes */
};

static int
failed(const char *what, int rc)
{
    if (rc != 0)
        peer_complain(what, mdb_strerror(rc));
    return rc;
}

static const char *
version(void)
{
    static char text[32];
    int major, minor, patch;

    (void)mdb_version(&major, &minor, &patch);
    (void)snprintf(text, sizeof(text), "%d.%d.%d", major, minor, patch);
    return text;
}

static const char *
config(const struct peer_setup *setup)
{
    if (setup->cold)
        return "integer keys, NORDAHEAD, NOTLS; a map, through the page cache";
    return setup->group ? "integer keys, NORDAHEAD, NOMEMINIT, NOTLS; durable commits"
                        : "integer keys, WRITEMAP, NOSYNC, NORDAHEAD, NOMEMINIT, NOTLS";
}

static int
db_open(const struct peer_setup *setup, void **db_out)
{
    struct lmdb *db = calloc(1, sizeof(*db));
    unsigned flags = MDB_NORDAHEAD | MDB_NOMEMINIT | MDB_NOTLS;
    uint64_t map = MAP_BYTES_MIN + 4 * setup->n * setup->page_max;
    MDB_txn *txn;
    int rc;

    if (db == NULL)
        return failed("open", MDB_PANIC);
    db->page_max = setup->page_max;
    db->frag = setup->frag;
    db->loading = setup->group && setup->loads;
    flags |= setup->group ? (db->loading ? MDB_NOSYNC : 0u) : MDB_WRITEMAP | MDB_NOSYNC;
    rc = mdb_env_create(&db->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(db->env, map & ~(uint64_t)0xfffff);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(db->env, setup->threads + 8);
    if (rc == 0)
        rc = mdb_env_open(db->env, setup->dir, flags, 0666);
    if (rc == 0)
        rc = mdb_txn_begin(db->env, NULL, 0, &txn);
    if (rc == 0) {
        rc = mdb_dbi_open(txn, NULL, MDB_INTEGERKEY | MDB_CREATE, &db->dbi);
        rc = rc != 0 ? (mdb_txn_abort(txn), rc) : mdb_txn_commit(txn);
    }
    *db_out = db;
    return failed(setup->dir, rc);
}

static int
db_close(void *opaque)
{
    struct lmdb *db = opaque;
    int rc = mdb_env_sync(db->env, 1);

    mdb_env_close(db->env);
    free(db);
    return failed("close", rc);
}

static int
session_begin(void *opaque, void **session_out)
{
    struct session *s = calloc(1, sizeof(*s));
    int rc = MDB_PANIC;

    if (s != NULL) {
        s->db = opaque;
        s->page = malloc(s->db->page_max);
        rc = s->page == NULL ? MDB_PANIC : mdb_txn_begin(s->db->env, NULL, MDB_RDONLY, &s->reader);
    }
    if (rc == 0)
        mdb_txn_reset(s->reader);
    *session_out = s;
    return failed("thread", rc);
}

static void
session_end(void *opaque)
{
    struct session *s = opaque;

    mdb_txn_abort(s->reader);
    free(s->page);
    free(s);
}

static int
put(void *opaque, uint64_t id, const void *data, size_t len, bool durable)
{
    struct session *s = opaque;
    MDB_val key = {sizeof(id), &id}, value = {len, (void *)(uintptr_t)data};
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->db->env, NULL, 0, &txn);

    (void)durable; /* the environment's flags say */
    if (rc != 0)
        return failed("put", rc);
    rc = mdb_put(txn, s->db->dbi, &key, &value, 0);
    rc = rc != 0 ? (mdb_txn_abort(txn), rc) : mdb_txn_commit(txn);
    return failed("put", rc);
}

static int
get(void *opaque, uint64_t id, void *to, size_t *len_out)
{
    struct session *s = opaque;
    MDB_val key = {sizeof(id), &id}, value;
    int rc = mdb_txn_renew(s->reader);

    if (rc != 0)
        return failed("get", rc);
    rc = mdb_get(s->reader, s->db->dbi, &key, &value);
    if (rc == 0 && value.mv_size > s->db->page_max)
        rc = MDB_BAD_VALSIZE;
    if (rc == 0) {
        memcpy(to, value.mv_data, value.mv_size);
        *len_out = value.mv_size;
    }
    mdb_txn_reset(s->reader);
    return failed("get", rc);
}

static int
view(void *opaque, uint64_t id, uint64_t words[8])
{
    struct session *s = opaque;
    MDB_val key = {sizeof(id), &id}, value;
    int rc = mdb_txn_renew(s->reader);

    if (rc != 0)
        return failed("view", rc);
    rc = mdb_get(s->reader, s->db->dbi, &key, &value);
    if (rc == 0)
        memcpy(words, value.mv_data, 8 * sizeof(words[0])); /* a page has 64 bytes at least */
    mdb_txn_reset(s->reader);
    return failed("view", rc);
}

static int
append_in(struct session *s, MDB_txn *txn, uint64_t id, const void *frag)
{
    MDB_val key = {sizeof(id), &id}, value;
    int rc = mdb_get(txn, s->db->dbi, &key, &value);

    if (rc != 0)
        return rc;
    if (value.mv_size > s->db->page_max)
        return MDB_BAD_VALSIZE;
    memcpy(s->page, value.mv_data, value.mv_size);
    value.mv_size = peer_page_add(s->page, value.mv_size, 1, frag, 1, s->db->frag);
    value.mv_data = s->page;
    return mdb_put(txn, s->db->dbi, &key, &value, 0);
}

static int
append_batch(void *opaque, const uint64_t *ids, const void *const *frags, unsigned n, bool durable)
{
    struct session *s = opaque;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->db->env, NULL, 0, &txn);

    (void)durable;
    if (rc != 0)
        return failed("append", rc);
    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = append_in(s, txn, ids[i], frags[i]);
    rc = rc != 0 ? (mdb_txn_abort(txn), rc) : mdb_txn_commit(txn);
    return failed("append", rc);
}

static int
append(void *opaque, uint64_t id, const void *frag, bool durable)
{
    return append_batch(opaque, &id, &frag, 1, durable);
}

static int
flush(void *opaque)
{
    struct lmdb *db = opaque;

    return failed("flush", mdb_env_sync(db->env, 1));
}

static int
loaded(void *opaque)
{
    struct lmdb *db = opaque;

    if (db->loading && mdb_env_set_flags(db->env, MDB_NOSYNC, 0) != 0)
        return failed("loaded", MDB_PANIC);
    db->loading = false;
    return flush(db);
}

const struct peer peer_engine = {.name = "lmdb",
                                 .can = PEER_DURABLE,
                                 .version = version,
                                 .config = config,
                                 .open = db_open,
                                 .close = db_close,
                                 .session_begin = session_begin,
                                 .session_end = session_end,
                                 .put = put,
                                 .get = get,
                                 .view = view,
                                 .append = append,
                                 .append_batch = append_batch,
                                 .flush = flush,
                                 .loaded = loaded};
