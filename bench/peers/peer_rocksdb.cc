/*
 * peer_rocksdb.cc - RocksDB with a merge operator. Why it is set up like this: README.md.
 *
 * Operands: a single append is its fragment. Several that were merged are u32 count, then the newest 16 at most
 * of these fragments; no other operand is as long as one fragment.
 */
#include "peer.h"

#include <cstring>
#include <memory>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/table.h>
#include <rocksdb/version.h>
#include <rocksdb/write_batch.h>
#include <string>

namespace {

constexpr uint32_t kept_max = 16;
constexpr int merges_max = 32; /* that a read may find, where reads and appends meet */

using rocksdb::Slice;
using rocksdb::Status;

int
failed(const char *what, const Status &status)
{
    if (status.ok())
        return 0;
    peer_complain(what, status.ToString().c_str());
    return 1;
}

/* Appends that one operand stands for. */
struct operand {
    uint32_t count, newest_n;
    const char *newest;

    operand(const Slice &from, uint32_t frag) : count(1), newest_n(1), newest(from.data())
    {
        if (from.size() == frag)
            return;
        std::memcpy(&count, from.data(), sizeof(count));
        newest = from.data() + sizeof(count);
        newest_n = static_cast<uint32_t>((from.size() - sizeof(count)) / frag);
    }
};

class page_merge : public rocksdb::MergeOperator {
  public:
    page_merge(uint32_t frag, size_t page_max) : frag_(frag), page_max_(page_max)
    {
    }
    const char *
    Name() const override
    {
        return "scree-bench";
    }
    bool
    FullMergeV2(const MergeOperationInput &in, MergeOperationOutput *out) const override
    {
        std::string &page = out->new_value;

        if (in.existing_value == nullptr || in.existing_value->size() > page_max_)
            return false;
        size_t len = in.existing_value->size();
        page.reserve(page_max_);
        page.assign(in.existing_value->data(), len);
        page.resize(page_max_);
        for (const Slice &each : in.operand_list) {
            operand o(each, frag_);

            len = peer_page_add(&page[0], len, o.count, o.newest, o.newest_n, frag_);
        }
        page.resize(len);
        return true;
    }
    bool
    PartialMergeMulti(const Slice &, const std::deque<Slice> &operands, std::string *merged,
                      rocksdb::Logger *) const override
    {
        uint32_t count = 0, kept = 0;
        size_t first = operands.size(), skip = 0;

        for (const Slice &each : operands)
            count += operand(each, frag_).count;
        /* From the newest back: those that can still be in the page. */
        while (first > 0 && kept < kept_max) {
            operand o(operands[--first], frag_);
            uint32_t room = kept_max - kept;

            skip = o.newest_n > room ? o.newest_n - room : 0;
            kept += o.newest_n - static_cast<uint32_t>(skip);
            if (o.count > o.newest_n) /* what came before this one was cut already */
                break;
        }
        merged->assign(reinterpret_cast<const char *>(&count), sizeof(count));
        for (size_t i = first; i < operands.size(); i++, skip = 0) {
            operand o(operands[i], frag_);

            merged->append(o.newest + skip * frag_, (o.newest_n - skip) * frag_);
        }
        return true;
    }

  private:
    uint32_t frag_;
    size_t page_max_;
};

struct store {
    std::unique_ptr<rocksdb::DB> db;
    peer_setup setup;
};

struct session {
    explicit session(void *db) : of(static_cast<store *>(db))
    {
    }
    store *of;
    rocksdb::PinnableSlice value;
    rocksdb::WriteBatch batch;
};

const char *
version()
{
    static const std::string text = std::to_string(ROCKSDB_MAJOR) + "." +
                                    std::to_string(ROCKSDB_MINOR) + "." +
                                    std::to_string(ROCKSDB_PATCH);

    return text.c_str();
}

const char *
config(const peer_setup *setup)
{
    if (setup->cold)
        return "merge operator, bloom 10, block cache 7/8 of cache, direct I/O, compacted";
    if (setup->reads)
        return "merge operator, bloom 10, block cache 7/8 of cache, compacted";
    return setup->group ? "merge operator, bloom 10, write buffers 1/2 of cache, WAL synced"
                        : "merge operator, bloom 10, write buffers 1/2 of cache, WAL in buffers";
}

rocksdb::Options
options(const peer_setup &setup)
{
    rocksdb::Options o;
    rocksdb::BlockBasedTableOptions table;
    size_t memory = setup.cache_bytes;

    o.create_if_missing = setup.create;
    o.merge_operator = std::make_shared<page_merge>(setup.frag, setup.page_max);
    o.IncreaseParallelism(2);
    o.write_buffer_size = memory / 8 > (1u << 20) ? memory / 8 : 1u << 20;
    o.max_write_buffer_number = 4;
    o.max_bytes_for_level_base = 4 * o.write_buffer_size;
    o.target_file_size_base = o.write_buffer_size < (64u << 20) ? o.write_buffer_size : 64u << 20;
    o.level_compaction_dynamic_level_bytes = true;
    o.max_successive_merges = setup.mixed ? merges_max : 0;
    o.compression = setup.zstd_level != 0 ? rocksdb::kZSTD : rocksdb::kNoCompression;
    o.compression_opts.level = setup.zstd_level;
    o.manual_wal_flush = !setup.group;
    o.recycle_log_file_num = setup.group ? 4 : 0;
    o.use_direct_reads = setup.cold;
    o.use_direct_io_for_flush_and_compaction = setup.cold;
    o.max_open_files = -1;
    o.info_log_level = rocksdb::ERROR_LEVEL;
    o.keep_log_file_num = 1;
    table.block_cache = rocksdb::NewLRUCache(setup.reads ? memory - memory / 8 : memory / 2);
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10, false));
    table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
    table.format_version = 5;
    o.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    return o;
}

int
db_open(const peer_setup *setup, void **db_out)
{
    auto *of = new store{nullptr, *setup};
    rocksdb::DB *db = nullptr;
    Status status = rocksdb::DB::Open(options(*setup), setup->dir, &db);

    of->db.reset(db);
    *db_out = of;
    return failed(setup->dir, status);
}

int
db_close(void *opaque)
{
    std::unique_ptr<store> of(static_cast<store *>(opaque));
    Status status = of->db->FlushWAL(true);

    if (status.ok())
        status = of->db->Close();
    return failed("close", status);
}

int
session_begin(void *db, void **session_out)
{
    *session_out = new session(db);
    return 0;
}

void
session_end(void *opaque)
{
    delete static_cast<session *>(opaque);
}

rocksdb::WriteOptions
how(bool durable)
{
    rocksdb::WriteOptions o;

    o.sync = durable;
    return o;
}

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
    rocksdb::DB *db = s->of->db.get();
    Status status =
        db->Get(rocksdb::ReadOptions(), db->DefaultColumnFamily(), key(id).slice(), &s->value);

    if (status.ok() && s->value.size() > s->of->setup.page_max)
        status = Status::Corruption("too long");
    if (status.ok()) {
        std::memcpy(to, s->value.data(), s->value.size());
        *len_out = s->value.size();
    }
    s->value.Reset();
    return failed("get", status);
}

int
view(void *opaque, uint64_t id, uint64_t words[8])
{
    auto *s = static_cast<session *>(opaque);
    rocksdb::DB *db = s->of->db.get();
    Status status =
        db->Get(rocksdb::ReadOptions(), db->DefaultColumnFamily(), key(id).slice(), &s->value);

    if (status.ok())
        std::memcpy(words, s->value.data(), 8 * sizeof(words[0])); /* a page has 64 at least */
    s->value.Reset();
    return failed("view", status);
}

int
append(void *opaque, uint64_t id, const void *frag, bool durable)
{
    auto *s = static_cast<session *>(opaque);
    Slice operand(static_cast<const char *>(frag), s->of->setup.frag);

    return failed("append", s->of->db->Merge(how(durable), key(id).slice(), operand));
}

int
append_batch(void *opaque, const uint64_t *ids, const void *const *frags, unsigned n, bool durable)
{
    auto *s = static_cast<session *>(opaque);
    Status status;

    s->batch.Clear();
    for (unsigned i = 0; i < n && status.ok(); i++)
        status = s->batch.Merge(key(ids[i]).slice(),
                                Slice(static_cast<const char *>(frags[i]), s->of->setup.frag));
    if (status.ok())
        status = s->of->db->Write(how(durable), &s->batch);
    return failed("batch", status);
}

int
flush(void *opaque)
{
    return failed("flush", static_cast<store *>(opaque)->db->FlushWAL(true));
}

int
loaded(void *opaque)
{
    auto *of = static_cast<store *>(opaque);
    Status status = of->db->FlushWAL(true);

    if (status.ok())
        status = of->db->Flush(rocksdb::FlushOptions());
    if (status.ok() && of->setup.reads)
        status = of->db->CompactRange(rocksdb::CompactRangeOptions(), nullptr, nullptr);
    return failed("loaded", status);
}

} /* namespace */

const struct peer peer_engine = {"rocksdb",     PEER_DURABLE | PEER_ZSTD,
                                 version,       config,
                                 db_open,       db_close,
                                 session_begin, session_end,
                                 put,           get,
                                 view,          append,
                                 append_batch,  flush,
                                 loaded};
