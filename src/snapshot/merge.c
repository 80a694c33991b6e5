/*
 * merge.c - several files of a generation, one after the other, into one that says the same.
 *
 * STEPS  M1  open and check every file (reader.c)
 *        M2  a heap of them by the id of their next entry, older files first: all that is said of one id
 *            comes together, in order
 *        M3  it is folded into one entry, which is written
 *        M4  the newest file's state, and its numbers, end the new one
 *
 * FOLD   what the files said so far, and what the next one says:
 *
 *              next:  page        tombstone     added
 *     nothing         the page    the tombstone added to something older: stays so in a delta, damage in
 *                                               a full file
 *     page            the page    the tombstone the page, and those of the added that are newer
 *     tombstone       the page    the tombstone damage
 *     added           the page    the tombstone added, and those of the added that are newer
 *
 *   A full file needs no tombstone below its own S: the replay meets no record of that page. In a delta they
 *   all stay: it may be the files before that have the page.
 * INVARIANTS
 *   I1 loading the new file in place of the n gives the same table, page by page.
 *   I2 the same files give the same bytes; and a full file made so has the bytes that a full snapshot of the
 *      same table, S and E has.
 * MEMORY  for each file the list of its blocks and one block; one entry; the writer's.
 * PROGRESS one thread; looks at *stop once a block.
 * FAILURE  as in reader.c and writer.c; the file in the making is removed. The merged files are not touched.
 * NOT HERE which files, when, and what becomes of them (pagecache/compact.c).   REFS  docs/snapshot_format.md.
 */
#include "snapshot/snapshot_private.h"

#include <string.h>

/* One file being read. */
struct input {
    struct scree__snapshot_reader reader;
    struct scree__snapshot_desk desk;
    size_t next_block;
    uint64_t tombstones;                /* met so far */
    struct scree__snapshot_entry entry; /* the next one; its positions lie on the desk */
};

struct merge {
    const struct scree__snapshot_merge *what;
    struct input *input; /* what->n of them, oldest first */
    uint32_t opened;
    uint32_t heap[SCREE__GENERATION_FILES_MAX]; /* indices of inputs; [0] comes first */
    uint32_t heap_n;
    struct scree__snapshot_writer *writer;
    struct scree__snapshot_meta meta;   /* of the file in the making */
    struct scree__snapshot_entry entry; /* folded so far; id 0: none */
    struct scree__position *position;   /* its, SCREE__SNAPSHOT_POSITIONS_MAX of them */
    uint64_t pages;
};

/* ---- files, in order of their entries -------------------------------------------------------- */

/* Behind the last entry. */
static int
input_end(const struct input *in)
{
    const struct scree__snapshot_reader *r = &in->reader;

    if (in->tombstones == r->trailer.tombstones)
        return 0;
    return scree__snapshot_reader_corrupt(r, r->file_bytes - SCREE__SNAPSHOT_TRAILER_BYTES,
                                          "trailer", "its sums do not agree with the entries");
}

/* The next entry of this file: 1, or 0 at its end. */
static int
input_next(struct merge *m, struct input *in)
{
    const struct scree__snapshot_reader *r = &in->reader;

    for (;;) {
        int rc = in->desk.noted ? scree__snapshot_desk_next(&in->desk, &in->entry) : 0;

        in->tombstones += rc == 1 && in->entry.n == 0;
        if (rc != 0)
            return rc;
        if (in->next_block == r->block_count ||
            r->blocks[in->next_block].block.kind == SCREE__SNAPSHOT_BLOCK_STATE)
            return input_end(in);
        /* Acquire: as every reader of a stop word; nothing travels by it. */
        if (m->what->stop && atomic_load_explicit(m->what->stop, memory_order_acquire) != 0)
            return scree__fail(SCREE_E_CANCELED, "%s: merging was given up", r->path);
        rc = scree__snapshot_desk_entries(&in->desk, &r->blocks[in->next_block++]);
        if (rc != 0)
            return rc;
    }
}

static bool
heap_before(const struct merge *m, uint32_t a, uint32_t b)
{
    uint64_t id_a = m->input[a].entry.id, id_b = m->input[b].entry.id;

    return id_a < id_b || (id_a == id_b && a < b);
}

/* Entry i may be too far up. */
static void
heap_sink(struct merge *m, uint32_t i)
{
    for (;;) {
        uint32_t least = i, moved = m->heap[i];

        for (uint32_t child = 2 * i + 1; child <= 2 * i + 2 && child < m->heap_n; child++)
            least = heap_before(m, m->heap[child], m->heap[least]) ? child : least;
        if (least == i)
            return;
        m->heap[i] = m->heap[least];
        m->heap[least] = moved;
        i = least;
    }
}

/* M1 and the first entries. */
static int
merge_open(struct merge *m, const scree_env *env, const char *dir)
{
    const struct scree__snapshot_merge *what = m->what;
    int rc = 0;

    for (uint32_t i = 0; rc >= 0 && i < what->n; i++) {
        struct input *in = &m->input[i];

        m->opened = i + 1;
        rc = scree__snapshot_reader_open(&in->reader, env, dir, what->generation, what->first + i,
                                         what->uuid, i > 0 ? &in[-1].reader : NULL);
        if (rc == 0)
            rc = scree__snapshot_desk_init(&in->desk, &in->reader);
        if (rc == 0)
            rc = input_next(m, in);
        if (rc == 1)
            m->heap[m->heap_n++] = i;
    }
    for (uint32_t i = m->heap_n; i-- > 0;)
        heap_sink(m, i);
    return rc < 0 ? rc : 0;
}

static void
merge_close(struct merge *m)
{
    for (uint32_t i = 0; i < m->opened; i++) {
        scree__snapshot_desk_clear(&m->input[i].desk);
        scree__snapshot_reader_close(&m->input[i].reader);
    }
    scree__free(m->input, m->what->n * sizeof *m->input);
    scree__free(m->position, SCREE__SNAPSHOT_POSITIONS_MAX * sizeof *m->position);
}

/* ---- fold ------------------------------------------------------------------------------------ */

/* The positions of e that are not there yet. NULL, or what is wrong. */
static const char *
fold_added(struct merge *m, const struct scree__snapshot_entry *e)
{
    uint32_t n = m->entry.n;

    if (n == 0)
        return "positions are added to a page that is not there";
    for (uint32_t i = 0; i < e->n; i++) {
        if (e->positions[i].lsn <= m->position[n - 1].lsn)
            continue;
        if (n == SCREE__SNAPSHOT_POSITIONS_MAX)
            return "a page gets more positions than a page can have";
        if (e->positions[i].lsn < m->position[n - 1].lsn + m->position[n - 1].disk_len)
            return "an added position overlaps the one before";
        m->position[n++] = e->positions[i];
        m->entry.version = e->version;
    }
    m->entry.n = n;
    return NULL;
}

static const char *
fold(struct merge *m, const struct scree__snapshot_entry *e)
{
    if (e->added && (m->entry.id != 0 || m->meta.since_lsn == 0))
        return fold_added(m, e);
    m->entry = *e;
    if (e->n > 0)
        memcpy(m->position, e->positions, e->n * sizeof *m->position);
    m->entry.positions = m->position;
    return NULL;
}

/* What is folded is complete. */
static int
merge_put(struct merge *m)
{
    const struct scree__snapshot_entry *e = &m->entry;

    if (e->id == 0 || (e->n == 0 && e->version < scree__snapshot_floor(&m->meta)))
        return 0;
    m->pages += e->n > 0;
    return scree__snapshot_add(m->writer, e);
}

/* M2, M3 */
static int
merge_entries(struct merge *m)
{
    int rc = 0;

    while (rc == 0 && m->heap_n > 0) {
        struct input *in = &m->input[m->heap[0]];
        const char *problem;

        if (in->entry.id != m->entry.id) {
            rc = merge_put(m);
            m->entry = (struct scree__snapshot_entry){0};
        }
        if (rc != 0)
            return rc;
        problem = fold(m, &in->entry);
        if (problem)
            return scree__snapshot_reader_corrupt(
                &in->reader, in->desk.noted->offset - SCREE__SNAPSHOT_BLOCK_BYTES, "block",
                problem);
        rc = input_next(m, in);
        if (rc == 0)
            m->heap[0] = m->heap[--m->heap_n];
        if (rc == 1)
            rc = 0;
        heap_sink(m, 0);
    }
    return rc == 0 ? merge_put(m) : rc;
}

/* ---- the new file ---------------------------------------------------------------------------- */

/* M4. Consumes the writer. */
static int
merge_finish(struct merge *m, struct scree__generation *generation_out)
{
    struct input *in = &m->input[m->what->n - 1];
    const struct scree__snapshot_trailer *t = &in->reader.trailer;
    unsigned char *state = t->state_len > 0 ? scree__alloc(t->state_len) : NULL;
    int rc = 0;

    if (t->state_len > 0 && state == NULL)
        rc = scree__fail(SCREE_E_NO_MEMORY, "%s: no memory for its state", in->reader.path);
    for (; rc == 0 && in->next_block < in->reader.block_count; in->next_block++)
        rc = scree__snapshot_desk_state(&in->desk, &in->reader.blocks[in->next_block], state);
    if (rc == 0)
        rc = scree__snapshot_finish(m->writer, (scree_slice){state, t->state_len}, t->stable_lsn,
                                    t->id_high, generation_out);
    else
        scree__snapshot_abandon(m->writer);
    scree__free(state, t->state_len);
    return rc;
}

static int
merge_run(struct merge *m, const scree_env *env, const char *dir,
          struct scree__generation *generation_out)
{
    int rc = merge_open(m, env, dir);

    if (rc != 0)
        return rc;
    m->meta = m->input[m->what->n - 1].reader.meta;
    m->meta.number = m->what->number;
    m->meta.since_lsn = m->input[0].reader.meta.since_lsn;
    rc = scree__snapshot_begin(env, dir, &m->meta, &m->writer);
    if (rc != 0)
        return rc;
    rc = merge_entries(m);
    if (rc == 0)
        return merge_finish(m, generation_out);
    scree__snapshot_abandon(m->writer);
    return rc;
}

int
scree__snapshot_merge(const scree_env *env, const char *dir,
                      const struct scree__snapshot_merge *merge,
                      struct scree__generation *generation_out, uint64_t *pages_out)
{
    struct merge m = {.what = merge};
    int rc;

    SCREE_ASSERT(merge->n > 0 && merge->n <= SCREE__GENERATION_FILES_MAX - merge->first);
    memset(generation_out, 0, sizeof *generation_out);
    m.input = scree__alloc_zero(merge->n * sizeof *m.input);
    m.position = scree__alloc(SCREE__SNAPSHOT_POSITIONS_MAX * sizeof *m.position);
    rc = m.input && m.position
             ? merge_run(&m, env, dir, generation_out)
             : scree__fail(SCREE_E_NO_MEMORY, "%s: no memory to merge snapshots", dir);
    *pages_out = rc == 0 ? m.pages : 0;
    merge_close(&m);
    return rc;
}
