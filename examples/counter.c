#include <scree.h>
#include <stdio.h>
#include <string.h>

/* A page is one number; a fragment is what to add to it. */
static int
merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
      scree_out *out)
{
    long long sum = 0, add;
    (void)ctx, (void)id;
    if (base != NULL && base->len == sizeof sum)
        memcpy(&sum, base->data, sizeof sum);
    for (size_t i = 0; i < n; i++) {
        if (frags[i].len != sizeof add)
            return 1; /* not ours: this page, and only this one, fails with SCREE_E_MERGE */
        memcpy(&add, frags[i].data, sizeof add);
        sum += add;
    }
    return scree_out_append(out, &sum, sizeof sum);
}

int
main(int argc, char **argv)
{
    scree_materializer counter = {sizeof counter, "counter", 1, NULL, merge, NULL, NULL, NULL};
    scree_cache *cache;
    scree_options o;
    scree_slice page;
    scree_version version;
    long long one = 1, count = 0;

    scree_options_init(&o);
    o.flags = SCREE_CREATE;
    o.materializer = &counter;
    if (argc < 2 || scree_open(argv[1], &o, &cache) != 0)
        return fprintf(stderr, "usage: counter DIR: %s\n", scree_error_detail()), 1;
    if (scree_page_append(cache, SCREE_PAGE_ROOT, (scree_slice){&one, sizeof one}, &version) != 0 ||
        scree_wait_stable(cache, version, -1) != 0) /* durable from here on */
        return fprintf(stderr, "counter: %s\n", scree_error_detail()), 1;
    scree_read_enter(cache);
    if (scree_page_get(cache, SCREE_PAGE_ROOT, &page, NULL) == 0)
        memcpy(&count, page.data, sizeof count); /* borrowed until read_leave */
    scree_read_leave(cache);
    printf("run %lld of this counter\n", count);
    return scree_close(cache) != 0;
}
