/*
 * out.c - the buffer a user's callback writes into: bounded, growing, with a sticky error.
 *
 * No atomics: one buffer belongs to one call on one thread. The error sticks so that a callback
 * that ignores a result cannot make a page out of half its output: whoever handed the buffer out
 * checks out->error.
 */
#include "base/base.h"

#include <string.h>

#define OUT_CAP_MIN ((size_t)256)

void
scree__out_init(struct scree_out *out, size_t len_max)
{
    *out = (struct scree_out){.len_max = len_max};
}

void
scree__out_reset(struct scree_out *out, size_t len_max)
{
    out->len = 0;
    out->len_max = len_max;
    out->error = 0;
}

void
scree__out_destroy(struct scree_out *out)
{
    scree__free(out->data, out->cap);
    *out = (struct scree_out){0};
}

/* Capacity for `need` bytes: doubled, but never beyond what may ever be used. */
static size_t
out_cap_for(const struct scree_out *out, size_t need)
{
    size_t cap = out->cap > OUT_CAP_MIN ? out->cap : OUT_CAP_MIN;

    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > out->len_max && out->len_max > 0)
        cap = out->len_max;
    return cap > need ? cap : need;
}

static int
out_grow(struct scree_out *out, size_t len)
{
    if (out->error != 0)
        return out->error;
    SCREE_ASSERT(out->len <= out->len_max);
    if (len > out->len_max - out->len) {
        out->error = scree__fail(SCREE_E_TOO_BIG,
                                 "callback output: %zu bytes and %zu more pass the limit of %zu; "
                                 "produce less or raise page_bytes_max",
                                 out->len, len, out->len_max);
        return out->error;
    }
    size_t need = out->len + len;

    /* data is made even for 0 bytes: a reserve that worked must not return NULL. */
    if (out->data != NULL && need <= out->cap)
        return 0;
    size_t cap = out_cap_for(out, need);
    void *data = scree__realloc(out->data, out->cap, cap);

    if (data == NULL) {
        out->error =
            scree__fail(SCREE_E_NO_MEMORY, "callback output: no memory for %zu bytes", cap);
        return out->error;
    }
    out->data = data;
    out->cap = cap;
    return 0;
}

int
scree_out_append(scree_out *out, const void *data, size_t len)
{
    if (out == NULL || (data == NULL && len > 0))
        return scree__fail(SCREE_E_INVALID, "scree_out_append: NULL for out or data");
    int rc = out_grow(out, len);

    if (rc != 0)
        return rc;
    if (len > 0)
        memcpy(out->data + out->len, data, len);
    out->len += len;
    return 0;
}

void *
scree_out_reserve(scree_out *out, size_t len)
{
    if (out == NULL) {
        (void)scree__fail(SCREE_E_INVALID, "scree_out_reserve: NULL for out");
        return NULL;
    }
    if (out_grow(out, len) != 0)
        return NULL;
    void *room = out->data + out->len;

    out->len += len;
    return room;
}
