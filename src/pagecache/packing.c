/*
 * packing.c - page payloads as records: plain, or u32 raw length + zstd frame when that is on and
 * pays.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

#include <zstd.h>
#include <zstd_errors.h>

#define COMPRESS_MIN_BYTES 512u
#define UNPACKED_BYTES_MAX (1u << 30) /* the largest page_bytes_max */

/* False: does not pay, or cannot be done now. */
static bool
compress(struct scree__context *ctx, const void *data, size_t len, size_t *packed_out)
{
    uint32_t raw = (uint32_t)len;
    size_t cap = sizeof raw + ZSTD_compressBound(len), n;
    uint64_t begin = scree__phase_begin(ctx);

    if (ctx->compressor == NULL)
        ctx->compressor = ZSTD_createCCtx();
    if (cap > ctx->compressed_cap) {
        void *p = scree__realloc(ctx->compressed, ctx->compressed_cap, cap);

        if (p == NULL)
            return false;
        ctx->compressed = p;
        ctx->compressed_cap = cap;
    }
    if (ctx->compressor == NULL)
        return false;
    n = ZSTD_compressCCtx(ctx->compressor, (unsigned char *)ctx->compressed + sizeof raw,
                          cap - sizeof raw, data, len, ctx->cache->options.compression_level);
    scree__phase_end(ctx, PHASE_COMPRESS, begin);
    if (ZSTD_isError(n) || sizeof raw + n > len - len / 16)
        return false;
    memcpy(ctx->compressed, &raw, sizeof raw);
    *packed_out = sizeof raw + n;
    return true;
}

/* r is the page's, but for its length on disk and its hash; ctx->compressed holds what is compressed. */
static void
record_fill(struct scree__context *ctx, struct scree__record *r, uint8_t kind, scree_page_id id,
            scree_version version, const void *data, size_t len)
{
    size_t packed;

    *r = (struct scree__record){.kind = kind,
                                .page = id,
                                .version = version,
                                .payload = data,
                                .payload_len = (uint32_t)len};
    if (ctx->cache->options.compression_level != 0 && len >= COMPRESS_MIN_BYTES &&
        compress(ctx, data, len, &packed)) {
        r->payload = ctx->compressed;
        r->payload_len = (uint32_t)packed;
        r->flags |= SCREE__RECORD_COMPRESSED;
    }
}

void
scree__record_page(struct scree__context *ctx, struct scree__record *r, uint8_t kind,
                   scree_page_id id, scree_version version, const void *data, size_t len)
{
    record_fill(ctx, r, kind, id, version, data, len);
    scree__record_prepare(r);
}

int
scree__record_page_in_batch(struct scree__context *ctx, struct scree__record *r, uint8_t kind,
                            scree_page_id id, const void *data, size_t len, void **owned_out,
                            size_t *owned_len_out)
{
    *owned_out = NULL;
    *owned_len_out = 0;
    record_fill(ctx, r, kind, id, 0, data, len);
    if (r->payload != data) {
        *owned_out = scree__alloc(r->payload_len);
        if (*owned_out == NULL)
            return scree__fail(SCREE_E_NO_MEMORY, "no memory for a compressed page of %u bytes",
                               r->payload_len);
        memcpy(*owned_out, r->payload, r->payload_len);
        *owned_len_out = r->payload_len;
        r->payload = *owned_out;
    }
    r->flags |= SCREE__RECORD_IN_BATCH;
    scree__record_prepare(r);
    return 0;
}

int
scree__record_write(struct scree__context *ctx, struct scree__record *r)
{
    struct scree__log *log = ctx->cache->log;
    uint64_t begin = scree__phase_begin(ctx);
    int rc;

    ctx->writer->sample = begin != 0;
    rc = scree__log_reserve(log, ctx->writer, r);
    if (rc == 0 && begin != 0) {
        scree__histogram_add(&ctx->phase[PHASE_RESERVE], ctx->writer->fill_begin_ns - begin);
        scree__phase_end(ctx, PHASE_FILL, ctx->writer->fill_begin_ns);
    }
    return rc;
}

int
scree__record_raw_len(const struct scree__record *r, uint32_t *len_out)
{
    *len_out = r->payload_len;
    if ((r->flags & SCREE__RECORD_COMPRESSED) == 0)
        return 0;
    if (r->payload_len < sizeof *len_out)
        return scree__fail(SCREE_E_CORRUPT,
                           "page %llu: the record at lsn %llu is too short to be compressed",
                           (unsigned long long)r->page, (unsigned long long)r->lsn);
    memcpy(len_out, r->payload, sizeof *len_out);
    if (ZSTD_getFrameContentSize((const unsigned char *)r->payload + sizeof *len_out,
                                 r->payload_len - sizeof *len_out) != *len_out ||
        *len_out > UNPACKED_BYTES_MAX)
        return scree__fail(SCREE_E_CORRUPT,
                           "page %llu: the record at lsn %llu is not compressed as it says",
                           (unsigned long long)r->page, (unsigned long long)r->lsn);
    return 0;
}

int
scree__record_unpack(const struct scree__record *r, void *raw, uint32_t len)
{
    const unsigned char *payload = r->payload;
    size_t got;

    if ((r->flags & SCREE__RECORD_COMPRESSED) == 0) {
        if (len > 0)
            memcpy(raw, payload, len);
        return 0;
    }
    got = ZSTD_decompress(raw, len, payload + sizeof len, r->payload_len - sizeof len);
    if (ZSTD_getErrorCode(got) == ZSTD_error_memory_allocation)
        return scree__fail(SCREE_E_NO_MEMORY, "no memory to decompress page %llu",
                           (unsigned long long)r->page);
    if (ZSTD_isError(got) || got != len)
        return scree__fail(SCREE_E_CORRUPT, "page %llu: the record at lsn %llu does not decompress",
                           (unsigned long long)r->page, (unsigned long long)r->lsn);
    return 0;
}
