/*
 * open.c - open a directory of any user's for looking only.
 *
 * scree_open wants the materializer the directory was made with. Its name and version stand in the
 * manifest; its code is elsewhere. So the manifest is read first (the one place where the tool looks
 * behind the public header) and the merge callback refuses: unmerged reads never call it.
 */
#include "tool.h"

#include "snapshot/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int
tool_merge_refuse(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags,
                  size_t n, scree_out *out)
{
    (void)ctx;
    (void)id;
    (void)base;
    (void)frags;
    (void)n;
    (void)out;
    return -1;
}

int
tool_open_quietly(const char *dir, struct scree__manifest *manifest_out, scree_cache **cache_out)
{
    scree_materializer materializer;
    scree_options options;
    uint32_t skipped = 0;
    int rc;

    *cache_out = NULL;
    rc = scree__manifest_load(scree_env_posix(), dir, manifest_out, &skipped);
    if (rc != 0 && rc != -ENOENT)
        return rc;
    if (rc == -ENOENT) /* open tells a directory without a manifest from none: it fails */
        *manifest_out = (struct scree__manifest){.materializer = "unknown"};
    if (skipped > 0)
        (void)fprintf(stderr, "scree: %s: passed over %u damaged manifest(s)\n", dir, skipped);
    memset(&materializer, 0, sizeof(materializer));
    materializer.size = sizeof(materializer);
    materializer.name = manifest_out->materializer;
    materializer.version = manifest_out->materializer_version;
    materializer.merge = tool_merge_refuse;
    scree_options_init(&options);
    options.flags = SCREE_READ_ONLY;
    options.materializer = &materializer;
    return scree_open(dir, &options, cache_out);
}

int
tool_open_any(const char *dir, struct scree__manifest *manifest_out, scree_cache **cache_out)
{
    int rc = tool_open_quietly(dir, manifest_out, cache_out);

    if (rc != 0)
        tool_complain(dir, rc);
    return rc;
}
