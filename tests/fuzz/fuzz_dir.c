/*
 * fuzz_dir.c - whole directories, damaged as the bytes say, with checksums wrong or set right.
 *
 * GOAL    no directory makes opening, reading, verifying or salvaging it crash, hang, or take memory beyond
 *         what its files have; and none that was damaged without its checksums being set right gives wrong
 *         data.
 * METHOD  the first byte chooses one of eight small directories (ruin.h), made at the start with fixed seeds;
 *         the second what is done with it: read-only mostly, or writable, going on, verify, salvage; with bit 4
 *         checksums are set right. Further bytes are the choices of one damage after the other (ruin_damage.c),
 *         or with the top bit of the second byte replace the bytes of one file from some place on.
 * ORACLE  ruin.c: J1 to J4; with checksums right the sanitizers, and the limits of the fuzzer on memory and
 *         time.
 *
 * The library's threads and the clock take part: the same bytes do nearly the same.
 */
#include "support/ruin.h"

#include <stdlib.h>
#include <string.h>

#define DAMAGES_MAX 8u
#define VERBATIM 0x80u

static const unsigned char how[16] = {0,
                                      0,
                                      0,
                                      0,
                                      0,
                                      0,
                                      0,
                                      0,
                                      RUIN_VERIFY,
                                      RUIN_VERIFY,
                                      RUIN_WRITABLE,
                                      RUIN_WRITABLE,
                                      RUIN_WRITABLE | RUIN_GO_ON,
                                      RUIN_WRITABLE | RUIN_GO_ON,
                                      RUIN_SALVAGE,
                                      RUIN_WRITABLE | RUIN_GO_ON | RUIN_VERIFY | RUIN_SALVAGE};

static struct ruin ruin[RUINS];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct bytes {
    const uint8_t *at, *end;
};

/* As many bytes as n needs; zeros behind the end. */
static uint64_t
choice(void *ctx, uint64_t n)
{
    struct bytes *b = ctx;
    uint64_t word = 0;

    for (uint64_t left = n - 1; left > 0; left >>= 8)
        word = word << 8 | (b->at < b->end ? *b->at++ : 0);
    return word % n;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    kit_on_failure = abort;
    for (unsigned kind = 0; kind < RUINS; kind++)
        ruin_make(&ruin[kind], (enum ruin_kind)kind, 1);
    return 0;
}

/* The rest of the bytes, in a file. */
static void
replace(struct sim_image *image, struct bytes *b)
{
    const struct ruin_choices choices = {choice, b};
    size_t i = (size_t)choices.below(b, sim_image_files(image)), n;
    uint64_t size, at;

    (void)sim_image_name(image, i, &size);
    at = choices.below(b, size + 1);
    n = (size_t)(b->end - b->at);
    if (at + n > size)
        sim_image_resize(image, i, at + n);
    sim_image_set(image, i, at, b->at, n);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct bytes b = {data + 2, data + len};
    const struct ruin_choices choices = {choice, &b};
    const struct ruin *r;
    struct sim_image *image;

    if (len < 3)
        return 0;
    r = &ruin[data[0] % RUINS];
    image = sim_image_clone(r->image);
    (void)snprintf(kit_context, sizeof(kit_context), "%s, %u", r->name, data[1]);
    if (data[1] & VERBATIM)
        replace(image, &b);
    for (unsigned i = 0; i < DAMAGES_MAX && b.at < b.end && !(data[1] & VERBATIM); i++)
        ruin_damage(r, image, &choices);
    if (data[1] & RUIN_MENDED)
        ruin_mend(r, image);
    (void)ruin_look(r, image, how[data[1] & 15] | (data[1] & RUIN_MENDED), 1);
    sim_image_free(image);
    return 0;
}
