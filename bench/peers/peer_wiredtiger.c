/*
 * peer_wiredtiger.c - WiredTiger. Why it is set up like this: README.md.
 */
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wiredtiger.h>

#define TABLE "table:pages"
#define HEAD_BYTES 8u

struct store {
    WT_CONNECTION *connection;
    WT_SESSION *session; /* of whoever opened it */
    size_t page_max;
    uint32_t frag;
    bool group;
};

struct session {
    struct store *of;
    WT_SESSION *session;
    WT_CURSOR *cursor;
    unsigned char *page; /* page_max bytes */
};

static int
failed(const char *what, int rc)
{
    if (rc != 0)
        peer_complain(what, wiredtiger_strerror(rc));
    return rc;
}

static const char *
version(void)
{
    static char text[32];
    int major, minor, patch;

    (void)wiredtiger_version(&major, &minor, &patch);
    (void)snprintf(text, sizeof(text), "%d.%d.%d", major, minor, patch);
    return text;
}

static const char *
config(const struct peer_setup *setup)
{
    if (setup->cold)
        return "row store, log, checkpoint a minute or 512 MiB of log, direct I/O";
    return setup->group ? "row store, log synced by group, checkpoint a minute or 512 MiB of log"
                        : "row store, log not synced, checkpoint a minute or 512 MiB of log";
}

static int
db_open(const struct peer_setup *setup, void **db_out)
{
    struct store *of = calloc(1, sizeof(*of));
    char options[512];
    int rc;

    *db_out = of;
    if (of == NULL)
        return failed("open", WT_PANIC);
    of->page_max = setup->page_max;
    of->frag = setup->frag;
    of->group = setup->group;
    (void)snprintf(options, sizeof(options),
                   "%scache_size=%llu,session_max=%u,log=(enabled=true,file_max=128MB),"
                   "transaction_sync=(enabled=%s,method=fsync),checkpoint=(wait=60,log_size=512MB),"
                   "eviction=(threads_min=1,threads_max=2)%s",
                   setup->create ? "create," : "", (unsigned long long)setup->cache_bytes,
                   setup->threads + 32, setup->group ? "true" : "false",
                   setup->cold ? ",direct_io=[data]" : "");
    rc = wiredtiger_open(setup->dir, NULL, options, &of->connection);
    if (rc == 0)
        rc = of->connection->open_session(of->connection, NULL, NULL, &of->session);
    if (rc == 0 && setup->create) {
        /* A churn's pages are to fit one leaf, not to be stored apart from it. */
        (void)snprintf(options, sizeof(options),
                       "key_format=Q,value_format=u,access_pattern_hint=random,"
                       "leaf_page_max=%uKB,leaf_value_max=%uKB",
                       setup->page > 2048 ? 32 : 16, setup->page > 2048 ? 16 : 8);
        rc = of->session->create(of->session, TABLE, options);
    }
    return failed(setup->dir, rc);
}

static int
db_close(void *opaque)
{
    struct store *of = opaque;
    int rc = of->connection->close(of->connection, NULL);

    free(of);
    return failed("close", rc);
}

static int
session_begin(void *opaque, void **session_out)
{
    struct session *s = calloc(1, sizeof(*s));
    int rc = WT_PANIC;

    *session_out = s;
    if (s == NULL)
        return failed("thread", rc);
    s->of = opaque;
    s->page = malloc(s->of->page_max);
    if (s->page != NULL)
        rc = s->of->connection->open_session(s->of->connection, NULL, "isolation=snapshot",
                                             &s->session);
    if (rc == 0)
        rc = s->session->open_cursor(s->session, TABLE, NULL, NULL, &s->cursor);
    return failed("thread", rc);
}

static void
session_end(void *opaque)
{
    struct session *s = opaque;

    (void)s->session->close(s->session, NULL); /* its cursor too */
    free(s->page);
    free(s);
}

/* What was done since begin_transaction, if rc is 0. */
static int
end(struct session *s, int rc, bool durable)
{
    if (rc == 0) /* in group mode the connection syncs unless told otherwise */
        return s->session->commit_transaction(s->session,
                                              s->of->group && !durable ? "sync=off" : NULL);
    (void)s->session->rollback_transaction(s->session, NULL);
    return rc;
}

static int
put(void *opaque, uint64_t id, const void *data, size_t len, bool durable)
{
    struct session *s = opaque;
    WT_ITEM value = {.data = data, .size = len};
    int rc;

    do {
        rc = s->session->begin_transaction(s->session, NULL);
        if (rc != 0)
            break;
        s->cursor->set_key(s->cursor, id);
        s->cursor->set_value(s->cursor, &value);
        rc = end(s, s->cursor->insert(s->cursor), durable);
    } while (rc == WT_ROLLBACK);
    return failed("put", rc);
}

/* The page's bytes are valid until the cursor moves. */
static int
find(struct session *s, uint64_t id, WT_ITEM *value_out)
{
    int rc;

    s->cursor->set_key(s->cursor, id);
    rc = s->cursor->search(s->cursor);
    if (rc == 0)
        rc = s->cursor->get_value(s->cursor, value_out);
    return rc == 0 && value_out->size > s->of->page_max ? WT_ERROR : rc;
}

static int
get(void *opaque, uint64_t id, void *to, size_t *len_out)
{
    struct session *s = opaque;
    WT_ITEM value;
    int rc = find(s, id, &value);

    if (rc == 0) {
        memcpy(to, value.data, value.size);
        *len_out = value.size;
    }
    (void)s->cursor->reset(s->cursor);
    return failed("get", rc);
}

static int
view(void *opaque, uint64_t id, uint64_t words[8])
{
    struct session *s = opaque;
    WT_ITEM value;
    int rc = find(s, id, &value);

    if (rc == 0)
        memcpy(words, value.data, 8 * sizeof(words[0])); /* a page has 64 bytes at least */
    (void)s->cursor->reset(s->cursor);
    return failed("view", rc);
}

/* Two small changes are logged, not the page; but a page that is cut back is written as a whole. */
static int
append_in(struct session *s, uint64_t id, const void *frag)
{
    WT_ITEM value;
    size_t len;
    int rc = find(s, id, &value);

    if (rc != 0)
        return rc;
    memcpy(s->page, value.data, value.size);
    len = peer_page_add(s->page, value.size, 1, frag, 1, s->of->frag);
    if (len > value.size) {
        WT_MODIFY changes[2] = {
            {.data = {.data = s->page, .size = HEAD_BYTES}, .offset = 0, .size = HEAD_BYTES},
            {.data = {.data = frag, .size = s->of->frag}, .offset = value.size, .size = 0}};

        return s->cursor->modify(s->cursor, changes, 2);
    }
    value = (WT_ITEM){.data = s->page, .size = len};
    s->cursor->set_value(s->cursor, &value);
    return s->cursor->update(s->cursor);
}

static int
append_batch(void *opaque, const uint64_t *ids, const void *const *frags, unsigned n, bool durable)
{
    struct session *s = opaque;
    int rc;

    do {
        rc = s->session->begin_transaction(s->session, NULL);
        if (rc != 0)
            break;
        for (unsigned i = 0; i < n && rc == 0; i++)
            rc = append_in(s, ids[i], frags[i]);
        rc = end(s, rc, durable);
    } while (rc == WT_ROLLBACK);
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

    return failed("flush", of->session->log_flush(of->session, "sync=on"));
}

static int
loaded(void *opaque)
{
    struct store *of = opaque;

    return failed("loaded", of->session->checkpoint(of->session, NULL));
}

const struct peer peer_engine = {.name = "wiredtiger",
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
