/*
 * options.c - defaults, bounds, and what is made of them.
 */
#include "pagecache/pagecache_private.h"

#include <string.h>

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

void
scree_options_init_sized(scree_options *options, size_t size)
{
    scree_options defaults = {
        .size = size,
        .cache_bytes = 256 * MIB,
        .segment_bytes = 64 * MIB,
        .log_buffer_bytes = 16 * MIB,
        .page_bytes_max = 1 * MIB,
        .flush_interval_ms = 100,
        .fragments_max = 16,
        .space_amp_target = 1.5,
        .io_mode = SCREE_IO_AUTO,
    };

    if (options == NULL)
        return;
    memset(options, 0, size);
    memcpy(options, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

static int
invalid(const char *what, uint64_t is, const char *rule, uint64_t bound)
{
    return scree__fail(SCREE_E_INVALID, "options: %s is %llu, %s %llu", what,
                       (unsigned long long)is, rule, (unsigned long long)bound);
}

static int
sizes_check(const scree_options *o)
{
    if (o->cache_bytes < 64 * KIB)
        return invalid("cache_bytes", o->cache_bytes, "the smallest that works is", 64 * KIB);
    if (o->cache_bytes > (uint64_t)1 << 60)
        return invalid("cache_bytes", o->cache_bytes, "the largest is", (uint64_t)1 << 60);
    if (o->segment_bytes < 64 * KIB)
        return invalid("segment_bytes", o->segment_bytes, "the smallest that works is", 64 * KIB);
    if (o->segment_bytes % SCREE_BLOCK != 0)
        return invalid("segment_bytes", o->segment_bytes, "it must be a multiple of", SCREE_BLOCK);
    if (o->segment_bytes > (uint64_t)1 << 40)
        return invalid("segment_bytes", o->segment_bytes, "the largest is", (uint64_t)1 << 40);
    if (o->log_buffer_bytes < 64 * KIB)
        return invalid("log_buffer_bytes", o->log_buffer_bytes, "the smallest that works is",
                       64 * KIB);
    if (o->log_buffer_bytes > (uint64_t)1 << 32)
        return invalid("log_buffer_bytes", o->log_buffer_bytes, "the largest is",
                       (uint64_t)1 << 32);
    if (o->page_bytes_max == 0)
        return invalid("page_bytes_max", o->page_bytes_max, "the smallest is", 1);
    if (o->page_bytes_max > o->log_buffer_bytes / 4)
        return invalid("page_bytes_max", o->page_bytes_max,
                       "it must fit a quarter of log_buffer_bytes:", o->log_buffer_bytes / 4);
    return 0;
}

static int
modes_check(const scree_options *o)
{
    const uint32_t flags = SCREE_CREATE | SCREE_EXCLUSIVE | SCREE_READ_ONLY | SCREE_NO_PUNCH;

    if ((o->flags & ~flags) != 0)
        return invalid("flags", o->flags, "the known ones are", flags);
    if ((o->flags & SCREE_READ_ONLY) != 0 && (o->flags & (SCREE_CREATE | SCREE_EXCLUSIVE)) != 0)
        return scree__fail(SCREE_E_INVALID, "options: READ_ONLY goes without CREATE, EXCLUSIVE");
    if (o->fragments_max < 1 || o->fragments_max > 1024)
        return invalid("fragments_max", o->fragments_max, "from 1 to", 1024);
    if (!(o->space_amp_target >= SPACE_AMP_MIN && o->space_amp_target <= SPACE_AMP_MAX))
        return scree__fail(SCREE_E_INVALID, "options: space_amp_target is %g; from %g to %g",
                           o->space_amp_target, SPACE_AMP_MIN, SPACE_AMP_MAX);
    if (o->io_mode < SCREE_IO_AUTO || o->io_mode > SCREE_IO_BUFFERED)
        return invalid("io_mode", (uint64_t)o->io_mode, "the largest is", SCREE_IO_BUFFERED);
    if (o->compression_level < 0 || o->compression_level > 19)
        return invalid("compression_level", (uint64_t)o->compression_level, "from 0 to", 19);
    return 0;
}

static int
materializer_check(const scree_materializer *m)
{
    size_t name_max = sizeof((struct scree__manifest *)NULL)->materializer - 1;

    if (m == NULL)
        return scree__fail(SCREE_E_INVALID, "options: materializer is required");
    if (m->size < sizeof *m)
        return invalid("materializer.size", m->size, "it must be", sizeof *m);
    if (m->merge == NULL)
        return scree__fail(SCREE_E_INVALID, "options: materializer.merge is required");
    if (m->name == NULL || m->name[0] == '\0' || strlen(m->name) > name_max)
        return scree__fail(SCREE_E_INVALID,
                           "options: materializer.name is required, 1 to %zu bytes", name_max);
    return 0;
}

static int
env_check(const scree_env *env)
{
    if (env->size < sizeof *env)
        return invalid("env.size", env->size, "it must be", sizeof *env);
    if (env->open == NULL || env->close == NULL || env->read == NULL || env->write == NULL ||
        env->read_many == NULL || env->sync == NULL || env->allocate == NULL ||
        env->punch == NULL || env->data_range == NULL || env->truncate == NULL ||
        env->info == NULL || env->rename == NULL || env->unlink == NULL || env->mkdir == NULL ||
        env->sync_dir == NULL || env->list == NULL || env->lock == NULL || env->now_ns == NULL ||
        env->random == NULL)
        return scree__fail(SCREE_E_INVALID, "options: every member of env must be set, but clone");
    return 0;
}

int
scree__options_normalize(const scree_options *given, scree_options *o)
{
    int rc;

    scree_options_init_sized(o, sizeof *o);
    if (given == NULL)
        return scree__fail(SCREE_E_INVALID, "options are NULL; use scree_options_init");
    if (given->size < sizeof *o)
        return invalid("size", given->size, "it must be (use scree_options_init)", sizeof *o);
    memcpy(o, given, sizeof *o);
    o->size = sizeof *o;
    if (o->env == NULL)
        o->env = scree_env_posix();
    rc = sizes_check(o);
    if (rc == 0)
        rc = modes_check(o);
    if (rc == 0)
        rc = materializer_check(o->materializer);
    if (rc == 0)
        rc = env_check(o->env);
    while ((o->log_buffer_bytes & (o->log_buffer_bytes - 1)) != 0)
        o->log_buffer_bytes += o->log_buffer_bytes & -o->log_buffer_bytes; /* to a power of two */
    return rc;
}
