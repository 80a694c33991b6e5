/*
 * peer_leveldb.cc - LevelDB. Why it is set up like this: README.md.
 *
 * It has neither transactions nor a merge operator: appends read, change and write a page under one of many
 * mutexes, which is what its users must do.
 */
#include "peer.h"

#include <algorithm>
#include <cstring>
#include <leveldb/cache.h>
#include <leveldb/db.h>
#include <leveldb/filter_policy.h>
#include <leveldb/write_batch.h>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

constexpr size_t stripes = 1024;

using leveldb::Slice;
using leveldb::Status;

struct store {
    std::unique_ptr<leveldb::Cache> cache;
    std::unique_ptr<const leveldb::FilterPolicy> filter;
    std::unique_ptr<leveldb::DB> db; /* goes before what it uses */
    std::unique_ptr<std::mutex[]> locks;
    peer_setup setup;
};

struct session {
    store *of;
    std::string value;
    std::vector<std::string> pages;
    leveldb::WriteBatch batch;
};

struct key {
    unsigned char bytes[8];
    explicit key(uint64_t id)
    {
        peer_key(id, bytes);
    }
    Slice
    slice() const
    {
        return Slice(reinterpret_cast<const char *>(bytes), sizeof(bytes));
    }
};

int
failed(const char *what, const Status &status)
{
    if (status.ok())
        return 0;
    peer_complain(what, status.ToString().c_str());
    return 1;
}

const char *
version()
{
    static const std::string text =
        std::to_string(leveldb::kMajorVersion) + "." + std::to_string(leveldb::kMinorVersion);

    return text.c_str();
}

const char *
config(const peer_setup *setup)
{
    return setup->reads
               ? "bloom 10, block cache 7/8 of cache, compacted, through the page cache"
               : "bloom 10, write buffer 1/8 and block cache 1/2 of cache, striped mutexes";
}

int
db_open(const peer_setup *setup, void **db_out)
{
    auto *of = new store{nullptr, nullptr, nullptr, nullptr, *setup};
    size_t memory = setup->cache_bytes;
    leveldb::Options o;
    leveldb::DB *db = nullptr;

    of->cache.reset(leveldb::NewLRUCache(setup->reads ? memory - memory / 8 : memory / 2));
    of->filter.reset(leveldb::NewBloomFilterPolicy(10));
    of->locks.reset(new std::mutex[stripes]);
    o.create_if_missing = setup->create;
    o.compression = leveldb::kNoCompression;
    o.block_cache = of->cache.get();
    o.filter_policy = of->filter.get();
    o.write_buffer_size = memory / 8 > (1u << 20) ? memory / 8 : 1u << 20;
    o.max_file_size = std::min<size_t>(o.write_buffer_size, 32u << 20);
    o.max_open_files = 10000;
    Status status = leveldb::DB::Open(o, setup->dir, &db);
    of->db.reset(db);
    *db_out = of;
    return failed(setup->dir, status);
}

int
db_close(void *opaque)
{
    delete static_cast<store *>(opaque);
    return 0;
}

int
session_begin(void *db, void **session_out)
{
    *session_out = new session{static_cast<store *>(db), {}, {}, {}};
    return 0;
}

void
session_end(void *opaque)
{
    delete static_cast<session *>(opaque);
}

leveldb::WriteOptions
how(bool durable)
{
    leveldb::WriteOptions o;

    o.sync = durable;
    return o;
}

int
put(void *opaque, uint64_t id, const void *data, size_t len, bool durable)
{
    auto *s = static_cast<session *>(opaque);

    return failed("put", s->of->db->Put(how(durable), key(id).slice(),
                                        Slice(static_cast<const char *>(data), len)));
}

int
get(void *opaque, uint64_t id, void *to, size_t *len_out)
{
    auto *s = static_cast<session *>(opaque);
    Status status = s->of->db->Get(leveldb::ReadOptions(), key(id).slice(), &s->value);

    if (status.ok() && s->value.size() > s->of->setup.page_max)
        status = Status::Corruption("too long");
    if (status.ok()) {
        std::memcpy(to, s->value.data(), s->value.size());
        *len_out = s->value.size();
    }
    return failed("get", status);
}

/* The page as it is, or as an earlier append of the same batch leaves it. */
Status
page_read(session *s, const uint64_t *ids, unsigned i)
{
    for (unsigned k = i; k-- > 0;)
        if (ids[k] == ids[i]) {
            s->pages[i] = s->pages[k];
            return Status::OK();
        }
    return s->of->db->Get(leveldb::ReadOptions(), key(ids[i]).slice(), &s->pages[i]);
}

int
append_batch(void *opaque, const uint64_t *ids, const void *const *frags, unsigned n, bool durable)
{
    auto *s = static_cast<session *>(opaque);
    const peer_setup &setup = s->of->setup;
    std::vector<std::unique_lock<std::mutex>> held;
    std::vector<size_t> which;
    Status status;

    for (unsigned i = 0; i < n; i++)
        which.push_back(ids[i] % stripes);
    std::sort(which.begin(), which.end());
    which.erase(std::unique(which.begin(), which.end()), which.end());
    for (size_t stripe : which)
        held.emplace_back(s->of->locks[stripe]);
    s->batch.Clear();
    s->pages.resize(n);
    for (unsigned i = 0; i < n && status.ok(); i++) {
        std::string &page = s->pages[i];

        status = page_read(s, ids, i);
        if (!status.ok())
            break;
        size_t len = page.size();
        page.resize(setup.page_max);
        page.resize(peer_page_add(&page[0], len, 1, frags[i], 1, setup.frag));
        s->batch.Put(key(ids[i]).slice(), page);
    }
    if (status.ok())
        status = s->of->db->Write(how(durable), &s->batch);
    return failed("append", status);
}

int
append(void *opaque, uint64_t id, const void *frag, bool durable)
{
    auto *s = static_cast<session *>(opaque);
    const peer_setup &setup = s->of->setup;
    std::lock_guard<std::mutex> held(s->of->locks[id % stripes]);
    Status status = s->of->db->Get(leveldb::ReadOptions(), key(id).slice(), &s->value);

    if (!status.ok())
        return failed("append", status);
    size_t len = s->value.size();
    s->value.resize(setup.page_max);
    s->value.resize(peer_page_add(&s->value[0], len, 1, frag, 1, setup.frag));
    return failed("append", s->of->db->Put(how(durable), key(id).slice(), s->value));
}

/* An empty batch that is synced takes everything before it along. */
int
flush(void *opaque)
{
    leveldb::WriteBatch nothing;

    return failed("flush", static_cast<store *>(opaque)->db->Write(how(true), &nothing));
}

int
loaded(void *opaque)
{
    auto *of = static_cast<store *>(opaque);

    if (of->setup.reads)
        of->db->CompactRange(nullptr, nullptr);
    return flush(opaque);
}

} /* namespace */

const struct peer peer_engine = {"leveldb", PEER_DURABLE,  version,      config, db_open,
                                 db_close,  session_begin, session_end,  put,    get,
                                 nullptr,   append,        append_batch, flush,  loaded};
