/*
 * peer_berkeleydb.c - Berkeley DB, transactional data store. Why it is set up like this: README.md.
 *
 * WORD  store.stop: set by the closing thread under `lock`, read by the checkpointer under it. No atomics.
 */
#include "peer.h"

#include <db.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOG_KIB_CHECKPOINT (256u << 10) /* of log, then the pages are written */
#define LOCKS 100000u

struct store {
    DB_ENV *env;
    DB *db;
    size_t page_max;
    uint32_t frag;
    bool grows;
    pthread_t checkpointer;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
};

struct session {
    struct store *of;
    unsigned char *page; /* page_max bytes */
};

static bool direct; /* the library was built with direct I/O; set by db_open, single-threaded */

static int
failed(const char *what, int rc)
{
    if (rc != 0)
        peer_complain(what, db_strerror(rc));
    return rc;
}

static const char *
version(void)
{
    static const char text[] = {
        '0' + DB_VERSION_MAJOR,      '.', '0' + DB_VERSION_MINOR, '.', '0' + DB_VERSION_PATCH / 10,
        '0' + DB_VERSION_PATCH % 10, '\0'};

    return text;
}

static const char *
config(const struct peer_setup *setup)
{
    if (setup->cold)
        return direct ? "btree, private environment, direct I/O"
                      : "btree, private environment, through the page cache";
    return setup->group ? "btree, private environment, log synced, checkpoint at 256 MiB of log"
                        : "btree, private environment, TXN_NOSYNC, checkpoint at 256 MiB of log";
}

/* Looks once a second whether there is log enough, as an application has to. */
static void *
checkpoint_main(void *opaque)
{
    struct store *of = opaque;
    bool stop = false;

    while (!stop) {
        struct timespec until;

        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        (void)pthread_mutex_lock(&of->lock);
        if (!of->stop)
            (void)pthread_cond_timedwait(&of->wake, &of->lock, &until);
        stop = of->stop;
        (void)pthread_mutex_unlock(&of->lock);
        if (!stop)
            (void)failed("checkpoint", of->env->txn_checkpoint(of->env, LOG_KIB_CHECKPOINT, 0, 0));
    }
    return NULL;
}

static void
no_message(const DB_ENV *env, const char *prefix, const char *text)
{
    (void)env;
    (void)prefix;
    (void)text;
}

static int
env_prepare(DB_ENV *env, const struct peer_setup *setup)
{
    int rc = env->set_cachesize(env, (uint32_t)(setup->cache_bytes >> 30),
                                (uint32_t)(setup->cache_bytes & 0x3fffffff), 1);

    env->set_errpfx(env, "peer_berkeleydb");
    if (rc == 0)
        rc = env->set_lg_max(env, 128u << 20);
    if (rc == 0)
        rc = env->set_lg_bsize(env, 16u << 20);
    if (rc == 0)
        rc = env->log_set_config(env, DB_LOG_AUTO_REMOVE, 1);
    if (rc == 0)
        rc = env->set_lk_max_locks(env, LOCKS);
    if (rc == 0)
        rc = env->set_lk_max_objects(env, LOCKS);
    if (rc == 0)
        rc = env->set_lk_max_lockers(env, LOCKS);
    if (rc == 0)
        rc = env->set_tx_max(env, setup->threads + 64);
    if (rc == 0)
        rc = env->set_lk_detect(env, DB_LOCK_DEFAULT);
    if (rc == 0 && !setup->group)
        rc = env->set_flags(env, DB_TXN_NOSYNC, 1);
    if (rc == 0 && setup->cold) {
        env->set_errcall(env, no_message); /* a refusal is no error */
        direct = env->set_flags(env, DB_DIRECT_DB, 1) == 0;
        env->set_errcall(env, NULL);
    }
    return rc;
}

static int
db_open(const struct peer_setup *setup, void **db_out)
{
    struct store *of = calloc(1, sizeof(*of));
    uint32_t flags = DB_CREATE | DB_INIT_MPOOL | DB_INIT_LOCK | DB_INIT_LOG | DB_INIT_TXN |
                     DB_THREAD | DB_PRIVATE | DB_RECOVER;
    int rc;

    *db_out = of;
    if (of == NULL)
        return failed("open", DB_RUNRECOVERY);
    of->page_max = setup->page_max;
    of->frag = setup->frag;
    of->grows = setup->grows;
    rc = db_env_create(&of->env, 0);
    if (rc == 0)
        rc = env_prepare(of->env, setup);
    if (rc == 0)
        rc = of->env->open(of->env, setup->dir, flags, 0666);
    if (rc == 0)
        rc = db_create(&of->db, of->env, 0);
    /* Four records a page at least, or they would be stored apart from it. */
    if (rc == 0 && setup->create)
        rc = of->db->set_pagesize(of->db, setup->page > 2048 ? 32768 : 16384);
    if (rc == 0)
        rc = of->db->open(of->db, NULL, "pages.db", NULL, DB_BTREE,
                          DB_AUTO_COMMIT | DB_THREAD | (setup->create ? DB_CREATE : 0u), 0666);
    (void)pthread_mutex_init(&of->lock, NULL);
    (void)pthread_cond_init(&of->wake, NULL);
    if (rc == 0)
        rc = pthread_create(&of->checkpointer, NULL, checkpoint_main, of);
    return failed(setup->dir, rc);
}

static int
db_close(void *opaque)
{
    struct store *of = opaque;
    int rc, closed;

    (void)pthread_mutex_lock(&of->lock);
    of->stop = true;
    (void)pthread_cond_signal(&of->wake);
    (void)pthread_mutex_unlock(&of->lock);
    (void)pthread_join(of->checkpointer, NULL);
    rc = of->env->txn_checkpoint(of->env, 0, 0, DB_FORCE);
    closed = of->db->close(of->db, 0);
    rc = rc != 0 ? rc : closed;
    closed = of->env->close(of->env, 0);
    free(of);
    return failed("close", rc != 0 ? rc : closed);
}

static int
session_begin(void *opaque, void **session_out)
{
    struct session *s = calloc(1, sizeof(*s));

    *session_out = s;
    if (s == NULL)
        return failed("thread", DB_RUNRECOVERY);
    s->of = opaque;
    s->page = malloc(s->of->page_max);
    return s->page == NULL ? failed("thread", DB_RUNRECOVERY) : 0;
}

static void
session_end(void *opaque)
{
    struct session *s = opaque;

    free(s->page);
    free(s);
}

/* A database page is locked until its change is durable: records that are added one behind the other would each
   wait for the one before, so they are spread, low byte first. */
static void
key_make(const struct store *of, uint64_t id, unsigned char bytes[8])
{
    peer_key(of->grows ? __builtin_bswap64(id) : id, bytes);
}

static void
dbt(DBT *d, void *data, size_t len, size_t room)
{
    memset(d, 0, sizeof(*d));
    d->data = data;
    d->size = (uint32_t)len;
    d->ulen = (uint32_t)room;
    d->flags = DB_DBT_USERMEM;
}

/* What was done in txn, if rc is 0. */
static int
end(DB_TXN *txn, int rc, bool durable)
{
    if (rc == 0)
        return txn->commit(txn, durable ? DB_TXN_SYNC : DB_TXN_NOSYNC);
    (void)txn->abort(txn);
    return rc;
}

static int
put(void *opaque, uint64_t id, const void *data, size_t len, bool durable)
{
    struct session *s = opaque;
    DB_ENV *env = s->of->env;
    unsigned char bytes[8];
    DBT key, value;
    DB_TXN *txn;
    int rc;

    key_make(s->of, id, bytes);
    dbt(&key, bytes, sizeof(bytes), sizeof(bytes));
    dbt(&value, (void *)(uintptr_t)data, len, len);
    do {
        rc = env->txn_begin(env, NULL, &txn, 0);
        if (rc == 0)
            rc = end(txn, s->of->db->put(s->of->db, txn, &key, &value, 0), durable);
    } while (rc == DB_LOCK_DEADLOCK);
    return failed("put", rc);
}

static int
get(void *opaque, uint64_t id, void *to, size_t *len_out)
{
    struct session *s = opaque;
    unsigned char bytes[8];
    DBT key, value;
    int rc;

    key_make(s->of, id, bytes);
    dbt(&key, bytes, sizeof(bytes), sizeof(bytes));
    dbt(&value, to, 0, s->of->page_max);
    do
        rc = s->of->db->get(s->of->db, NULL, &key, &value, 0);
    while (rc == DB_LOCK_DEADLOCK);
    *len_out = value.size;
    return failed("get", rc);
}

static int
append_in(struct session *s, DB_TXN *txn, uint64_t id, const void *frag)
{
    unsigned char bytes[8];
    DBT key, value;
    int rc;

    key_make(s->of, id, bytes);
    dbt(&key, bytes, sizeof(bytes), sizeof(bytes));
    dbt(&value, s->page, 0, s->of->page_max);
    rc = s->of->db->get(s->of->db, txn, &key, &value, DB_RMW);
    if (rc != 0)
        return rc;
    value.size = (uint32_t)peer_page_add(s->page, value.size, 1, frag, 1, s->of->frag);
    return s->of->db->put(s->of->db, txn, &key, &value, 0);
}

static int
append_batch(void *opaque, const uint64_t *ids, const void *const *frags, unsigned n, bool durable)
{
    struct session *s = opaque;
    DB_ENV *env = s->of->env;
    DB_TXN *txn;
    int rc;

    do {
        rc = env->txn_begin(env, NULL, &txn, 0);
        if (rc != 0)
            break;
        for (unsigned i = 0; i < n && rc == 0; i++)
            rc = append_in(s, txn, ids[i], frags[i]);
        rc = end(txn, rc, durable);
    } while (rc == DB_LOCK_DEADLOCK);
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
    struct store *of = opaque;

    return failed("flush", of->env->log_flush(of->env, NULL));
}

static int
loaded(void *opaque)
{
    struct store *of = opaque;

    return failed("loaded", of->env->txn_checkpoint(of->env, 0, 0, DB_FORCE));
}

const struct peer peer_engine = {.name = "berkeleydb",
                                 .can = PEER_DURABLE,
                                 .version = version,
                                 .config = config,
                                 .open = db_open,
                                 .close = db_close,
                                 .session_begin = session_begin,
                                 .session_end = session_end,
                                 .put = put,
                                 .get = get,
                                 .view = NULL,
                                 .append = append,
                                 .append_batch = append_batch,
                                 .flush = flush,
                                 .loaded = loaded};
