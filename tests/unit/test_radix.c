/*
 * test_radix.c - ids at the edge of every height, growth above existing nodes, walks over holes,
 * memory that runs out on the way.
 */
#include "radix/radix.h"
#include "unit/claims.h"

#include <string.h>

static struct scree__radix radix;

static void
setup(void)
{
    scree__radix_init(&radix);
}

static void
teardown(void)
{
    scree__radix_destroy(&radix);
    cr_assert(eq(u64, scree__radix_bytes(&radix), 0));
}

TestSuite(radix_make, .init = setup, .fini = teardown, .timeout = 120);
TestSuite(radix_mark, .init = setup, .fini = teardown, .timeout = 120);
TestSuite(radix_walk, .init = setup, .fini = teardown, .timeout = 120);

static void
word_store(uint64_t id, uint64_t value)
{
    struct scree__radix_ref ref = scree__radix_make(&radix, id);

    cr_assert(ne(ptr, ref.leaf, NULL));
    atomic_store_explicit(scree__radix_word(ref), value, memory_order_relaxed);
}

/* 0 also where there is no leaf. */
static uint64_t
word_load(uint64_t id)
{
    struct scree__radix_ref ref = scree__radix_find(&radix, id);

    return ref.leaf == NULL ? 0
                            : atomic_load_explicit(scree__radix_word(ref), memory_order_relaxed);
}

/* The ids where the needed height changes, and their neighbours. */
static size_t
edge_ids(uint64_t *ids)
{
    size_t n = 0;

    ids[n++] = 0;
    ids[n++] = 1;
    for (unsigned bits = 10; bits <= 60; bits += 10) {
        ids[n++] = (UINT64_C(1) << bits) - 1;
        ids[n++] = UINT64_C(1) << bits;
        ids[n++] = (UINT64_C(1) << bits) + 1;
    }
    ids[n++] = UINT64_MAX - 1024;
    ids[n++] = UINT64_MAX - 1;
    ids[n++] = UINT64_MAX;
    return n;
}

Test(radix_make, an_empty_tree_finds_nothing)
{
    uint64_t ids[32];
    size_t n = edge_ids(ids);

    for (size_t i = 0; i < n; i++)
        cr_assert(eq(ptr, scree__radix_find(&radix, ids[i]).leaf, NULL));
    cr_assert(eq(u64, scree__radix_bytes(&radix), 0));
}

Test(radix_make, every_edge_id_has_its_own_word_growing_upwards)
{
    uint64_t ids[32];
    size_t n = edge_ids(ids);

    for (size_t i = 0; i < n; i++)
        word_store(ids[i], i + 1);
    for (size_t i = 0; i < n; i++)
        cr_assert(eq(u64, word_load(ids[i]), i + 1), "id %llx", (unsigned long long)ids[i]);
}

Test(radix_make, every_edge_id_has_its_own_word_starting_from_the_top)
{
    uint64_t ids[32];
    size_t n = edge_ids(ids);

    for (size_t i = n; i > 0; i--)
        word_store(ids[i - 1], i);
    for (size_t i = 0; i < n; i++)
        cr_assert(eq(u64, word_load(ids[i]), i + 1), "id %llx", (unsigned long long)ids[i]);
}

Test(radix_make, an_id_beyond_the_height_is_not_found_in_the_low_nodes)
{
    word_store(5, 50);
    for (unsigned bits = 10; bits < 64; bits++)
        cr_assert(eq(ptr, scree__radix_find(&radix, (UINT64_C(1) << bits) + 5).leaf, NULL));
}

Test(radix_make, a_leaf_keeps_its_address_and_words_when_the_tree_grows)
{
    word_store(1023, 7);
    struct scree__radix_leaf *leaf = scree__radix_find(&radix, 0).leaf;

    word_store(UINT64_MAX, 8);
    cr_assert(eq(ptr, scree__radix_find(&radix, 1023).leaf, leaf));
    cr_assert(eq(u64, word_load(1023), 7));
}

Test(radix_make, making_twice_gives_the_same_leaf_and_counts_once)
{
    struct scree__radix_leaf *leaf = scree__radix_make(&radix, 4096).leaf;
    uint64_t bytes = scree__radix_bytes(&radix);

    cr_assert(eq(ptr, scree__radix_make(&radix, 4097).leaf, leaf));
    cr_assert(eq(u64, scree__radix_bytes(&radix), bytes));
    cr_assert(eq(u64, bytes, sizeof(struct scree__radix_leaf) + sizeof(struct scree__radix_inner)));
}

Test(radix_make, word_side_and_mark_are_apart_and_start_at_zero)
{
    struct scree__radix_ref ref = scree__radix_make(&radix, 2047);

    cr_assert(eq(u64, ref.leaf->first_id, 1024));
    cr_assert(eq(u32, ref.index, 1023));
    for (uint32_t i = 0; i < SCREE__RADIX_FANOUT; i++) {
        struct scree__radix_ref r = {ref.leaf, i};

        cr_assert(atomic_load_explicit(scree__radix_word(r), memory_order_relaxed) == 0);
        cr_assert(atomic_load_explicit(scree__radix_side(r), memory_order_relaxed) == 0);
        cr_assert(scree__radix_mark(r) == 0);
        atomic_store_explicit(scree__radix_word(r), i + 1, memory_order_relaxed);
        atomic_store_explicit(scree__radix_side(r), i + 2, memory_order_relaxed);
        cr_assert(scree__radix_mark_set(r, i % 16) == 0);
    }
    for (uint32_t i = 0; i < SCREE__RADIX_FANOUT; i++) {
        struct scree__radix_ref r = {ref.leaf, i};

        cr_assert(atomic_load_explicit(scree__radix_word(r), memory_order_relaxed) == i + 1);
        cr_assert(atomic_load_explicit(scree__radix_side(r), memory_order_relaxed) == i + 2);
        cr_assert(scree__radix_mark(r) == i % 16);
    }
}

Test(radix_make, a_slot_costs_less_than_17_bytes_with_its_share_of_the_inner_nodes)
{
    for (uint64_t id = 0; id < 1024 * 1024; id += 1024)
        word_store(id, 1);
    cr_assert(lt(u64, scree__radix_bytes(&radix), 1024 * 1024 * 166 / 10));
}

Test(radix_make, leaves_are_whole_and_apart_over_several_slabs)
{
    enum { LEAVES = 300 };
    struct scree__radix_leaf *leaf[LEAVES];

    for (uint64_t i = 0; i < LEAVES; i++) {
        leaf[i] = scree__radix_make(&radix, i * 1024).leaf;
        cr_assert(eq(u64, (uintptr_t)leaf[i] % SCREE__RADIX_ALIGN, 0));
        for (uint32_t k = 0; k < SCREE__RADIX_FANOUT; k++) {
            struct scree__radix_ref r = {leaf[i], k};

            cr_assert(atomic_load_explicit(scree__radix_word(r), memory_order_relaxed) == 0);
            cr_assert(atomic_load_explicit(scree__radix_side(r), memory_order_relaxed) == 0);
            cr_assert(scree__radix_mark(r) == 0);
        }
        memset(leaf[i]->word, (int)i, sizeof leaf[i]->word);
        memset(leaf[i]->side, (int)i, sizeof leaf[i]->side);
        memset(leaf[i]->mark, (int)i, sizeof leaf[i]->mark);
    }
    for (uint64_t i = 0; i < LEAVES; i++) {
        cr_assert(eq(u64, leaf[i]->first_id, i * 1024));
        for (uint32_t k = 0; k < SCREE__RADIX_FANOUT; k++) {
            struct scree__radix_ref r = {leaf[i], k};
            uint64_t byte = i & 0xff;

            cr_assert(atomic_load_explicit(scree__radix_word(r), memory_order_relaxed) ==
                      byte * UINT64_C(0x0101010101010101));
            cr_assert(atomic_load_explicit(scree__radix_side(r), memory_order_relaxed) ==
                      byte * UINT64_C(0x0101010101010101));
            cr_assert(scree__radix_mark(r) == (k % 2 == 0 ? byte & 15 : byte >> 4));
        }
    }
}

Test(radix_mark, setting_and_clearing_tell_what_was_there_and_leave_the_neighbours_alone)
{
    for (uint32_t at = 4; at < 6; at++) { /* an even slot and an odd one */
        for (unsigned before = 0; before < 16; before++) {
            for (unsigned bits = 0; bits < 16; bits++) {
                struct scree__radix_leaf *leaf = scree__radix_make(&radix, 0).leaf;
                struct scree__radix_ref r = {leaf, at};

                memset(leaf->mark, 0x66, sizeof leaf->mark);
                scree__radix_mark_clear(r, 15);
                scree__radix_mark_set(r, (uint8_t)before);
                cr_assert(scree__radix_mark_set(r, (uint8_t)bits) == before);
                cr_assert(scree__radix_mark(r) == (before | bits));
                cr_assert(scree__radix_mark_clear(r, (uint8_t)bits) == (before | bits));
                cr_assert(scree__radix_mark(r) == (before & ~bits));
                for (uint32_t i = 0; i < 16; i++)
                    cr_assert(i == at ||
                              scree__radix_mark((struct scree__radix_ref){leaf, i}) == 6);
            }
        }
    }
}

Test(radix_walk, an_empty_tree_has_no_leaf)
{
    cr_assert(eq(ptr, scree__radix_leaf_from(&radix, 0), NULL));
    cr_assert(eq(ptr, scree__radix_leaf_from(&radix, UINT64_MAX), NULL));
}

Test(radix_walk, visits_every_leaf_once_in_order_over_any_hole)
{
    const uint64_t firsts[] = {0,
                               1024,
                               1023u * 1024,
                               1024u * 1024,
                               UINT64_C(5) << 30,
                               UINT64_C(1) << 40,
                               UINT64_C(3) << 60,
                               UINT64_MAX - 1023};
    size_t n = sizeof firsts / sizeof firsts[0];
    size_t i = 0;

    for (size_t k = n; k > 0; k--)
        word_store(firsts[k - 1] + 17, 1);
    for (struct scree__radix_leaf *leaf = scree__radix_leaf_from(&radix, 0); leaf != NULL;
         leaf = scree__radix_leaf_after(&radix, leaf)) {
        cr_assert(lt(sz, i, n));
        cr_assert(eq(u64, leaf->first_id, firsts[i]));
        i++;
    }
    cr_assert(eq(sz, i, n));
}

Test(radix_walk, starts_at_the_leaf_that_holds_the_id)
{
    word_store(2048, 1);
    word_store(9000, 1);
    cr_assert(eq(u64, scree__radix_leaf_from(&radix, 0)->first_id, 2048));
    cr_assert(eq(u64, scree__radix_leaf_from(&radix, 3071)->first_id, 2048));
    cr_assert(eq(u64, scree__radix_leaf_from(&radix, 3072)->first_id, 8192));
    cr_assert(eq(ptr, scree__radix_leaf_from(&radix, 9216), NULL));
    cr_assert(eq(ptr, scree__radix_leaf_from(&radix, UINT64_MAX), NULL));
}

Test(radix_walk, ends_at_the_end_of_the_id_space)
{
    word_store(UINT64_MAX, 1);
    struct scree__radix_leaf *leaf = scree__radix_leaf_from(&radix, 1);

    cr_assert(eq(u64, leaf->first_id, UINT64_MAX - 1023));
    cr_assert(eq(ptr, scree__radix_leaf_from(&radix, UINT64_MAX), leaf));
    cr_assert(eq(ptr, scree__radix_leaf_after(&radix, leaf), NULL));
}

#ifdef SCREE_ALLOC_FAULTS
Test(radix_make, out_of_memory_at_any_node_leaves_a_whole_tree)
{
    word_store(3, 33);
    /* From height 1 to 7: six roots, then six nodes on the new path; the last one succeeds. */
    for (uint64_t nth = 1;; nth++) {
        scree__alloc_fault(1 + nth % 2, UINT64_MAX); /* none, or one node at a time */
        struct scree__radix_ref ref = scree__radix_make(&radix, UINT64_MAX);

        scree__alloc_fault(0, 0);
        cr_assert(eq(u64, word_load(3), 33));
        if (ref.leaf != NULL)
            break;
        cr_assert(eq(ptr, scree__radix_find(&radix, UINT64_MAX).leaf, NULL));
        cr_assert(lt(u64, nth, 40));
    }
    word_store(UINT64_MAX, 44);
    cr_assert(eq(u64, word_load(UINT64_MAX), 44));
}

Test(radix_make, out_of_memory_for_a_slab_is_over_when_there_is_memory_again)
{
    uint64_t id = 0;

    word_store(1023 * 1024, 5); /* the inner node is there: only slabs are allocated */
    scree__alloc_fault(1, UINT64_MAX);
    while (scree__radix_make(&radix, id).leaf != NULL)
        id += 1024;
    for (unsigned i = 0; i < 1000; i++)
        cr_assert(eq(ptr, scree__radix_make(&radix, id).leaf, NULL));
    scree__alloc_fault(0, 0);
    cr_assert(eq(ptr, scree__radix_find(&radix, id).leaf, NULL));
    word_store(id, 6);
    cr_assert(eq(u64, word_load(id), 6));
    cr_assert(eq(u64, word_load(1023 * 1024), 5));
}
#endif
