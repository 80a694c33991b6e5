/*
 * sim_damage.c - a million damaged directories, in memory: right, or an error that says where (P7, P8).
 *
 * GOAL      whatever happens to the bytes, sizes and names of a directory's files, opening it and reading every
 *           page gives what was stored there, or an error with file and offset. Nothing crashes, hangs, or
 *           takes memory without bound; what was acknowledged, and is claimed to be so by bytes that are still
 *           whole, is never missing in silence.
 * METHOD    eight small directories are made (ruin.h: closed, crashed, with deltas, batches, compression,
 *           holes, jumps, a backup). Each case clones one, does 1 to 4 damages to it (bits, bytes, sectors,
 *           blocks, zeros, cuts, garbage, files removed, older, swapped), opens it read-only, some writable,
 *           reads every page; some are updated, closed and opened again, some verified and salvaged.
 * ORACLE    the list of all states, with the log position at which each ends. Where the open says that the log
 *           ends there are exactly the pages of that position, but for those told CORRUPT (ruin.c: J1 to J4).
 *           Memory: an address space limit that no case may meet (NO_MEMORY is a failure); time: an alarm.
 * NOT HERE  where verify says that the damage is, which pages must be salvaged: crash_verify. Real files:
 *           crash_damage.
 *
 * sim_damage [seed] [cases] [first case]: one case alone is sim_damage SEED 1 CASE
 */
#include "support/ruin.h"

#define CASES KIT_MUCH(6000u, 1500u, 6000u)

#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define DAMAGES_MAX 4u
#define ALARM_CASES 256u
#define MEMORY_BYTES ((rlim_t)2 << 30)

static struct ruin ruin[RUINS];
static uint64_t outcomes[RUINS][RUIN_OUTCOMES];

static uint64_t
choice(void *ctx, uint64_t n)
{
    return kit_below(ctx, n);
}

/* What was being done; async-signal-safe. */
static void
on_signal(int sig)
{
    static const char hung[] = "\nFAILED, hung: ", died[] = "\nFAILED, died: ";
    ssize_t n = write(2, sig == SIGALRM ? hung : died, sizeof(hung) - 1);

    n += write(2, kit_context, strlen(kit_context));
    n += write(2, "\n", 1);
    _exit(n > 0 ? 1 : 2);
}

static unsigned
how_of(uint64_t *random)
{
    uint64_t turn = kit_below(random, 64);

    if (turn == 0)
        return RUIN_VERIFY | RUIN_SALVAGE;
    if (turn < 4)
        return RUIN_VERIFY;
    if (turn < 8)
        return RUIN_WRITABLE | (turn < 6 ? RUIN_GO_ON : 0);
    return 0;
}

static void
case_run(uint64_t seed, uint64_t number)
{
    uint64_t random = kit_hash(&number, sizeof(number), seed);
    const struct ruin_choices choices = {choice, &random};
    const struct ruin *r = &ruin[kit_below(&random, RUINS)];
    struct sim_image *image = sim_image_clone(r->image);
    uint64_t n = 1 + kit_below(&random, 2) * kit_below(&random, DAMAGES_MAX);
    unsigned how = how_of(&random);

    (void)snprintf(kit_context, sizeof(kit_context), "sim_damage %" PRIu64 " 1 %" PRIu64 ": %s, %u",
                   seed, number, r->name, how);
    for (uint64_t i = 0; i < n; i++)
        ruin_damage(r, image, &choices);
    sim_image_at_hand(image);
    outcomes[r->kind][ruin_look(r, image, how, number)]++;
    sim_image_at_hand(NULL);
    sim_image_free(image);
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t cases = kit_argument(argc, argv, 2, CASES);
    uint64_t first = kit_argument(argc, argv, 3, 0), begin;

    /* Two runs of one seed differ in what the library wrote on its own: numbers may not bring it back. */
    sim_image_keep("sim_damage", RUIN_DIR);
    (void)signal(SIGALRM, on_signal);
#ifndef KIT_SANITIZED
    pthread_attr_t small;
    const struct rlimit limit = {.rlim_cur = MEMORY_BYTES, .rlim_max = MEMORY_BYTES};

    (void)signal(SIGSEGV, on_signal);
    (void)signal(SIGBUS, on_signal);
    (void)signal(SIGABRT, on_signal);
    /* Buffers of each open come from what the one before gave back. */
    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
    (void)mallopt(M_ARENA_MAX, 1);
    (void)setrlimit(RLIMIT_AS, &limit);
    if (pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 256 << 10) == 0)
        (void)pthread_setattr_default_np(&small); /* stacks of threads that end serve the next */
#endif
    for (unsigned kind = 0; kind < RUINS; kind++)
        ruin_make(&ruin[kind], (enum ruin_kind)kind, seed);
    begin = kit_now_ms();
    for (uint64_t i = 0; i < cases; i++) {
        if (i % ALARM_CASES == 0)
            (void)alarm(120);
        case_run(seed, first + i);
    }
    (void)alarm(0);
    for (unsigned kind = 0; kind < RUINS; kind++) {
        const uint64_t *n = outcomes[kind];

        printf("%-10s %3zu files, %3u states: %" PRIu64 " right, %" PRIu64 " with CORRUPT pages, "
               "%" PRIu64 " at an earlier state, %" PRIu64 " refused\n",
               ruin[kind].name, sim_image_files(ruin[kind].image), ruin[kind].last + 1,
               n[RUIN_RIGHT], n[RUIN_PARTLY], n[RUIN_EARLIER], n[RUIN_REFUSED]);
        KIT_CHECK(cases < 5000 || (n[RUIN_RIGHT] > 0 && n[RUIN_REFUSED] > 0),
                  "the damage did nothing, or all");
        ruin_free(&ruin[kind]);
    }
    printf("seed %" PRIu64 ", %" PRIu64 " cases, %.0f a second: ok\n", seed, cases,
           (double)cases * 1000 / (double)(kit_now_ms() - begin + 1));
    return 0;
}
