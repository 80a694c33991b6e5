/*
 * peer_tkrzw.cc - Tkrzw, its HashDBM. Why it is set up like this: README.md.
 */
#include "peer.h"

#include <cstring>
#include <memory>
#include <string>
#include <tkrzw_dbm_hash.h>
#include <tkrzw_file_mmap.h>
#include <tkrzw_file_pos.h>
#include <tkrzw_lib_common.h>

namespace {

constexpr int block = 512;      /* of direct I/O */
constexpr int bucket_width = 5; /* bytes */

/* Mapped; but read with O_DIRECT where data larger than the cache is read, the buckets cached. */
std::unique_ptr<tkrzw::File>
file_make(const peer_setup &setup)
{
    if (!setup.cold || setup.create)
        return std::make_unique<tkrzw::MemoryMapParallelFile>();
    auto file = std::make_unique<tkrzw::PositionalParallelFile>();

    file->SetAccessStrategy(block, tkrzw::PositionalFile::ACCESS_DIRECT |
                                       tkrzw::PositionalFile::ACCESS_PADDING |
                                       tkrzw::PositionalFile::ACCESS_PAGECACHE)
        .OrDie();
    return file;
}

struct store {
    explicit store(const peer_setup &s) : dbm(file_make(s)), setup(s)
    {
    }
    tkrzw::HashDBM dbm;
    peer_setup setup;
};

int
failed(const char *what, const tkrzw::Status &status)
{
    if (status == tkrzw::Status::SUCCESS)
        return 0;
    peer_complain(what, std::string(status).c_str());
    return 1;
}

/* The record's bytes are valid while the record is locked: copied in its callback. */
class reader : public tkrzw::DBM::RecordProcessor {
  public:
    void *to = nullptr;
    size_t room = 0, len = 0;
    bool found = false;

    std::string_view
    ProcessFull(std::string_view, std::string_view value) override
    {
        found = value.size() <= room;
        len = found ? value.size() : 0;
        std::memcpy(to, value.data(), len);
        return NOOP;
    }
};

class viewer : public tkrzw::DBM::RecordProcessor {
  public:
    uint64_t *words = nullptr;
    bool found = false;

    std::string_view
    ProcessFull(std::string_view, std::string_view value) override
    {
        found = true;
        std::memcpy(words, value.data(), 8 * sizeof(words[0])); /* a page has 64 at least */
        return NOOP;
    }
};

class appender : public tkrzw::DBM::RecordProcessor {
  public:
    std::string page;
    const void *frag = nullptr;
    uint32_t frag_len = 0;
    bool found = false;

    std::string_view
    ProcessFull(std::string_view, std::string_view value) override
    {
        found = value.size() <= page.size();
        if (!found)
            return NOOP;
        std::memcpy(&page[0], value.data(), value.size());
        return {page.data(), peer_page_add(&page[0], value.size(), 1, frag, 1, frag_len)};
    }
};

struct session {
    store *of;
    reader get;
    viewer view;
    appender append;
};

struct key {
    unsigned char bytes[8];
    explicit key(uint64_t id)
    {
        peer_key(id, bytes);
    }
    std::string_view
    view() const
    {
        return {reinterpret_cast<const char *>(bytes), sizeof(bytes)};
    }
};

const char *
version()
{
    return tkrzw::PACKAGE_VERSION;
}

const char *
config(const peer_setup *setup)
{
    if (setup->cold)
        return "HashDBM, direct I/O in blocks of 512, the buckets cached, 2 a record";
    return "HashDBM, updated in place, mapped file (--cache does not bind it), 2 buckets a record, "
           "no log";
}

int
db_open(const peer_setup *setup, void **db_out)
{
    auto *of = new store(*setup);
    tkrzw::HashDBM::TuningParameters tuning;
    std::string path = std::string(setup->dir) + "/pages.tkh";

    tuning.update_mode = tkrzw::HashDBM::UPDATE_IN_PLACE;
    tuning.offset_width = bucket_width;
    tuning.align_pow = setup->cold ? 9 : 6; /* as block */
    tuning.min_read_size = setup->cold ? static_cast<int32_t>(setup->page + 64) : -1;
    tuning.num_buckets = static_cast<int64_t>(2 * setup->n);
    tuning.cache_buckets = setup->cold ? 0 : 1;
    *db_out = of;
    auto mode = setup->create ? tkrzw::File::OPEN_TRUNCATE : tkrzw::File::OPEN_NO_CREATE;
    tkrzw::Status status = of->dbm.OpenAdvanced(path, true, mode, tuning);
    auto *file = dynamic_cast<tkrzw::PositionalFile *>(of->dbm.GetInternalFile());
    if (status == tkrzw::Status::SUCCESS && file != nullptr)
        status =
            file->SetHeadBuffer(static_cast<int64_t>(2 * setup->n * bucket_width) / block * block);
    return failed(path.c_str(), status);
}

int
db_close(void *opaque)
{
    std::unique_ptr<store> of(static_cast<store *>(opaque));

    return failed("close", of->dbm.Close());
}

int
session_begin(void *db, void **session_out)
{
    auto *s = new session;

    s->of = static_cast<store *>(db);
    s->get.room = s->of->setup.page_max;
    s->append.page.resize(s->of->setup.page_max);
    s->append.frag_len = s->of->setup.frag;
    *session_out = s;
    return 0;
}

void
session_end(void *opaque)
{
    delete static_cast<session *>(opaque);
}

int
put(void *opaque, uint64_t id, const void *data, size_t len, bool)
{
    auto *s = static_cast<session *>(opaque);

    return failed("put", s->of->dbm.Set(key(id).view(), {static_cast<const char *>(data), len}));
}

int
found(const char *what, const tkrzw::Status &status, bool found)
{
    if (status == tkrzw::Status::SUCCESS && !found)
        return failed(what, tkrzw::Status(tkrzw::Status::NOT_FOUND_ERROR));
    return failed(what, status);
}

int
get(void *opaque, uint64_t id, void *to, size_t *len_out)
{
    auto *s = static_cast<session *>(opaque);

    s->get.to = to;
    s->get.found = false;
    tkrzw::Status status = s->of->dbm.Process(key(id).view(), &s->get, false);
    *len_out = s->get.len;
    return found("get", status, s->get.found);
}

int
view(void *opaque, uint64_t id, uint64_t words[8])
{
    auto *s = static_cast<session *>(opaque);

    s->view.words = words;
    s->view.found = false;
    tkrzw::Status status = s->of->dbm.Process(key(id).view(), &s->view, false);
    return found("view", status, s->view.found);
}

int
append(void *opaque, uint64_t id, const void *frag, bool)
{
    auto *s = static_cast<session *>(opaque);

    s->append.frag = frag;
    s->append.found = false;
    tkrzw::Status status = s->of->dbm.Process(key(id).view(), &s->append, true);
    return found("append", status, s->append.found);
}

int
flush(void *opaque)
{
    return failed("flush", static_cast<store *>(opaque)->dbm.Synchronize(true));
}

} /* namespace */

const struct peer peer_engine = {"tkrzw",       0,           version, config, db_open, db_close,
                                 session_begin, session_end, put,     get,    view,    append,
                                 nullptr,       flush,       flush};
