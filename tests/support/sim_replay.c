/*
 * sim_replay.c - what a power cut may leave of what was done to a disk (sim_disk.h).
 *
 * Along the trace two things are kept: what is durable (a file for each inode, and the names), and in order
 * what is not, each with its standing:
 *
 *     PENDING --sync--> DURABLE      applied always; goes into the durable file as soon as nothing undecided
 *        |                           lies in front of it
 *        +--sync that failed--> LIMBO   there or not, for ever
 *
 * A state is the durable part with a subset of the units of what is pending or in limbo, in their order, and
 * of the event under way. Units: a sector, the growth of a file, a block punched, a truncation, a name.
 *
 * No atomics: one thread.
 */
#include "sim_image.h"

#include <string.h>

enum standing { PENDING, LIMBO, DURABLE };

struct undecided {
    size_t event;
    enum standing standing;
};

struct list {
    size_t n, cap;
    struct undecided *item;
};

struct sim_replay {
    const struct sim_trace *trace;
    size_t cut;
    struct sim_image *names; /* durable; inode numbers, no bytes */
    struct sim_file **file;  /* durable; by inode */
    struct list *data;       /* by inode */
    struct list name;
};

/* ---- which units are kept ---- */

enum how {
    BY_MASK,   /* bit u: unit u */
    BY_CHANCE, /* each for itself */
    BY_EVENT,  /* whole events */
    BY_PREFIX, /* events below the middle, a part of that one, none above */
    BY_SUFFIX, /* the other way round */
    BY_EVERY   /* all */
};

struct pick {
    enum how how;
    uint64_t mask, unit;
    uint64_t random;
    unsigned chance; /* of 256 */
    size_t middle;
    bool event_kept;
    bool stale, torn; /* blocks that grew hold what was written elsewhere; a sector is half there */
};

static void
pick_event(struct pick *pick)
{
    pick->event_kept = pick->how == BY_EVENT && kit_below(&pick->random, 2) == 0;
}

static bool
pick_unit(struct pick *pick, size_t event)
{
    uint64_t unit = pick->unit++;

    switch (pick->how) {
    case BY_MASK:
        return pick->mask >> unit & 1;
    case BY_CHANCE:
        return kit_below(&pick->random, 256) < pick->chance;
    case BY_EVENT:
        return pick->event_kept;
    case BY_PREFIX:
        return event == pick->middle ? kit_below(&pick->random, 2) == 0 : event < pick->middle;
    case BY_SUFFIX:
        return event == pick->middle ? kit_below(&pick->random, 2) == 0 : event > pick->middle;
    case BY_EVERY:
        return true;
    }
    return false;
}

/* ---- one event, as far as it is kept ---- */

/* Into a block up to a position in the file: what was written at some time before, to whatever file. */
static void
stale_fill(const struct sim_replay *r, struct pick *pick, struct sim_file *file, uint64_t offset,
           uint64_t end)
{
    uint64_t keep = file->size;

    for (int tries = 0; tries < 8 && r->cut > 0; tries++) {
        const struct sim_event *event = &r->trace->event[kit_below(&pick->random, r->cut)];

        if (event->op == SIM_OP_WRITE && event->len > 0) {
            uint64_t from = kit_below(&pick->random, event->len) / SIM_SECTOR * SIM_SECTOR;
            uint64_t n = event->len - from < SIM_BLOCK ? event->len - from : SIM_BLOCK;

            n = n < end - offset ? n : end - offset;
            sim_file_set(file, offset, event->data + from, (size_t)n);
            file->size = keep > offset + n ? keep : offset + n;
            return;
        }
    }
}

/*
 * The blocks of [from, end) that are not there yet. Not a file's first one: what is there tells what the file
 * is (docs/log_format.md: a header that names another segment is damage), and file systems that show old blocks
 * at all are rare.
 */
static void
stale_range(const struct sim_replay *r, struct pick *pick, struct sim_file *file, uint64_t from,
            uint64_t end)
{
    for (uint64_t b = from < SIM_BLOCK ? 1 : from / SIM_BLOCK; pick->stale && b * SIM_BLOCK < end;
         b++)
        if (!sim_file_block_there(file, b) && kit_below(&pick->random, 2) == 0)
            stale_fill(r, pick, file, b * SIM_BLOCK, end);
}

static void
write_apply(const struct sim_replay *r, size_t at, struct pick *pick, struct sim_file *file)
{
    const struct sim_event *event = &r->trace->event[at];
    uint64_t end = event->offset + event->len;
    uint64_t torn = UINT64_MAX;

    if (end > file->size && pick_unit(pick, at)) {
        uint64_t grown = end;

        if (pick->torn && kit_below(&pick->random, 2) == 0) /* as far as it had been written out */
            grown -= kit_below(&pick->random, end - file->size);
        stale_range(r, pick, file, event->offset, grown);
        file->size = grown;
    }
    if (pick->torn && pick->how != BY_EVERY && kit_below(&pick->random, 2) == 0) {
        pick->torn = false; /* one of all */
        torn =
            (event->offset / SIM_SECTOR + kit_below(&pick->random, event->len / SIM_SECTOR + 1)) *
            SIM_SECTOR;
    }
    for (uint64_t sector = event->offset / SIM_SECTOR * SIM_SECTOR; sector < end;
         sector += SIM_SECTOR) {
        uint64_t from = sector > event->offset ? sector : event->offset;
        uint64_t to = sector + SIM_SECTOR < end ? sector + SIM_SECTOR : end;

        if (!pick_unit(pick, at))
            continue;
        if (sector == torn)
            to = from + kit_below(&pick->random, to - from);
        to = to < file->size ? to : file->size;
        if (from < to)
            sim_file_set(file, from, event->data + (from - event->offset), (size_t)(to - from));
    }
}

static void
data_apply(const struct sim_replay *r, size_t at, struct pick *pick, struct sim_file *file)
{
    const struct sim_event *event = &r->trace->event[at];
    uint64_t end = event->offset + event->len;

    pick_event(pick);
    switch (event->op) {
    case SIM_OP_WRITE:
        write_apply(r, at, pick, file);
        break;
    case SIM_OP_ALLOCATE:
        if (!pick_unit(pick, at))
            break;
        stale_range(r, pick, file, event->offset, end);
        sim_file_room(file, event->offset, event->len);
        break;
    case SIM_OP_PUNCH:
        for (uint64_t from = event->offset; from < end;) {
            uint64_t to = (from / SIM_BLOCK + 1) * SIM_BLOCK;

            to = to < end ? to : end;
            if (pick_unit(pick, at))
                sim_file_punch(file, from, to - from);
            from = to;
        }
        break;
    case SIM_OP_TRUNCATE:
        if (pick_unit(pick, at))
            sim_file_resize(file, event->offset);
        break;
    default:
        KIT_CHECK(false, "event %zu is no data", at);
    }
}

static void
name_apply(const struct sim_replay *r, size_t at, struct pick *pick, struct sim_image *names)
{
    const struct sim_event *event = &r->trace->event[at];
    const struct sim_entry *entry;

    pick_event(pick);
    if (!pick_unit(pick, at))
        return;
    entry = sim_image_find(names, event->path);
    if (event->op == SIM_OP_CREATE)
        sim_image_put(names, event->path, NULL)->inode = event->inode;
    else if (event->op == SIM_OP_MKDIR)
        sim_image_mkdir(names, event->path);
    else {
        if (entry != NULL && entry->inode == event->inode)
            sim_image_take(names, event->path);
        if (event->op == SIM_OP_RENAME)
            sim_image_put(names, event->to, NULL)->inode = event->inode;
    }
}

static bool
is_data(const struct sim_event *event)
{
    return event->op <= SIM_OP_TRUNCATE;
}

static bool
is_name(const struct sim_event *event)
{
    return event->op >= SIM_OP_CREATE && event->op <= SIM_OP_MKDIR;
}

/* ---- along the trace ---- */

static void
list_add(struct list *list, size_t event)
{
    if (list->n == list->cap) {
        list->cap = list->cap * 2 + 16;
        list->item = realloc(list->item, list->cap * sizeof(*list->item));
        KIT_CHECK(list->item != NULL, "no memory for a list");
    }
    list->item[list->n++] = (struct undecided){.event = event, .standing = PENDING};
}

/* Is this name in that directory? */
static bool
is_in(const char *dir, const char *path)
{
    size_t len = strlen(dir);

    len -= len == 1; /* "/" */
    return strncmp(path, dir, len) == 0 && path[len] == '/' && strchr(path + len + 1, '/') == NULL;
}

/* A sync of a file or of a directory: what it covers. */
static void
list_sync(const struct sim_replay *r, struct list *list, const struct sim_event *sync)
{
    for (size_t i = 0; i < list->n && list->item[i].event < sync->offset; i++)
        if (list->item[i].standing == PENDING &&
            (sync->path == NULL || is_in(sync->path, r->trace->event[list->item[i].event].path)))
            list->item[i].standing = sync->failed ? LIMBO : DURABLE;
}

/* How many in front are durable. */
static size_t
list_durable(const struct list *list)
{
    size_t n = 0;

    while (n < list->n && list->item[n].standing == DURABLE)
        n++;
    return n;
}

static void
list_drop(struct list *list, size_t n)
{
    if (n == 0)
        return;
    list->n -= n;
    memmove(list->item, list->item + n, list->n * sizeof(*list->item));
}

struct sim_replay *
sim_replay_new(struct sim_disk *d)
{
    struct sim_replay *r = calloc(1, sizeof(*r));

    KIT_CHECK(r != NULL, "no memory");
    r->trace = sim_disk_trace(d);
    r->names = sim_image_new();
    r->file = calloc(r->trace->inodes + 1, sizeof(struct sim_file *));
    r->data = calloc(r->trace->inodes + 1, sizeof(*r->data));
    KIT_CHECK(r->file != NULL && r->data != NULL, "no memory");
    for (uint32_t i = 1; i <= r->trace->inodes; i++)
        r->file[i] = sim_file_new();
    for (size_t i = 0; i < r->trace->base->n; i++) {
        const struct sim_entry *entry = &r->trace->base->entry[i];

        sim_image_put(r->names, entry->path, NULL)->inode = entry->inode;
        if (entry->inode != 0) {
            sim_file_drop(r->file[entry->inode]);
            r->file[entry->inode] = sim_file_share(entry->file);
        }
    }
    return r;
}

void
sim_replay_free(struct sim_replay *r)
{
    if (r == NULL)
        return;
    for (uint32_t i = 1; i <= r->trace->inodes; i++) {
        sim_file_drop(r->file[i]);
        free(r->data[i].item);
    }
    free(r->file);
    free(r->data);
    free(r->name.item);
    sim_image_free(r->names);
    free(r);
}

uint64_t
sim_replay_cut(const struct sim_replay *r)
{
    return r->cut;
}

bool
sim_replay_advance(struct sim_replay *r)
{
    struct pick all = {.how = BY_EVERY};
    const struct sim_event *event;
    struct list *list;

    if (r->cut == r->trace->n)
        return false;
    event = &r->trace->event[r->cut];
    if (is_data(event))
        list_add(&r->data[event->inode], r->cut);
    else if (is_name(event))
        list_add(&r->name, r->cut);
    else if (event->op == SIM_OP_SYNC) {
        list = &r->data[event->inode];
        list_sync(r, list, event);
        r->file[event->inode] = sim_file_own(r->file[event->inode]);
        for (size_t i = 0; i < list_durable(list); i++)
            data_apply(r, list->item[i].event, &all, r->file[event->inode]);
        list_drop(list, list_durable(list));
    } else {
        list = &r->name;
        list_sync(r, list, event);
        for (size_t i = 0; i < list_durable(list); i++)
            name_apply(r, list->item[i].event, &all, r->names);
        list_drop(list, list_durable(list));
    }
    r->cut++;
    return true;
}

void
sim_replay_describe(const struct sim_replay *r, char *text, size_t n)
{
    static const char *const name[] = {"write",  "allocate", "punch",  "truncate", "sync",
                                       "create", "unlink",   "rename", "mkdir",    "sync_dir"};
    const struct sim_event *event = &r->trace->event[r->cut];

    if (r->cut == r->trace->n)
        (void)snprintf(text, n, "the end");
    else if (event->path != NULL)
        (void)snprintf(text, n, "%s %s%s%s", name[event->op], event->path,
                       event->to == NULL ? "" : " to ", event->to == NULL ? "" : event->to);
    else
        (void)snprintf(text, n, "%s of file %u at %llu, %llu bytes", name[event->op], event->inode,
                       (unsigned long long)event->offset, (unsigned long long)event->len);
}

/* ---- states ---- */

/* What is undecided about an event, at most; a write may or may not make its file grow. */
static uint64_t
event_units(const struct sim_event *event)
{
    uint64_t end = event->offset + event->len;

    if (event->op == SIM_OP_WRITE)
        return (end + SIM_SECTOR - 1) / SIM_SECTOR - event->offset / SIM_SECTOR + 1;
    if (event->op == SIM_OP_PUNCH)
        return (end + SIM_BLOCK - 1) / SIM_BLOCK - event->offset / SIM_BLOCK;
    return 1;
}

static uint64_t
list_units(const struct sim_replay *r, const struct list *list)
{
    uint64_t units = 0;

    for (size_t i = 0; i < list->n; i++)
        if (list->item[i].standing != DURABLE)
            units += event_units(&r->trace->event[list->item[i].event]);
    return units;
}

static uint64_t
units_all(const struct sim_replay *r)
{
    uint64_t units = list_units(r, &r->name);

    for (uint32_t i = 1; i <= r->trace->inodes; i++)
        units += list_units(r, &r->data[i]);
    if (r->cut < r->trace->n &&
        (is_data(&r->trace->event[r->cut]) || is_name(&r->trace->event[r->cut])))
        units += event_units(&r->trace->event[r->cut]);
    return units;
}

static bool
is_bytes(const struct sim_event *event)
{
    if (event->op != SIM_OP_WRITE)
        return false;
    for (uint64_t i = 0; i < event->len; i++)
        if (event->data[i] != 0)
            return true;
    return false;
}

uint32_t
sim_replay_undecided(const struct sim_replay *r)
{
    uint32_t files = 0;

    for (uint32_t i = 1; i <= r->trace->inodes; i++) {
        const struct list *list = &r->data[i];
        size_t at = 0;

        while (at < list->n && (list->item[at].standing == DURABLE ||
                                !is_bytes(&r->trace->event[list->item[at].event])))
            at++;
        files += at < list->n;
    }
    return files;
}

uint64_t
sim_replay_choices(const struct sim_replay *r, uint64_t most)
{
    uint64_t units = units_all(r), all = UINT64_C(1) << (units < 40 ? units : 40);

    if (all > most)
        return most > 0 ? most : 1;
    return units > 0 && all * 2 <= most ? all * 2 : all;
}

/* The least event that is undecided. */
static size_t
undecided_first(const struct sim_replay *r)
{
    size_t first = r->name.n > 0 ? r->name.item[0].event : r->cut;

    for (uint32_t i = 1; i <= r->trace->inodes; i++)
        if (r->data[i].n > 0 && r->data[i].item[0].event < first)
            first = r->data[i].item[0].event;
    return first;
}

static struct pick
pick_of(const struct sim_replay *r, uint64_t choice, uint64_t most, uint64_t seed)
{
    static const unsigned chances[] = {128, 128, 230, 26, 250, 6};
    static const enum how hows[] = {BY_CHANCE, BY_CHANCE, BY_EVENT, BY_PREFIX, BY_SUFFIX};
    uint64_t units = units_all(r), salt[] = {seed, r->cut, choice};
    uint64_t all = UINT64_C(1) << (units < 40 ? units : 40);
    struct pick pick = {.how = BY_MASK, .mask = choice % all};
    size_t first;

    pick.random = kit_hash(salt, sizeof(salt), 1);
    if (all <= most) {
        if (pick.mask == 1) /* all, and what is all, is 1 */
            pick.mask = UINT64_MAX;
        else if (pick.mask == all - 1)
            pick.mask = 1;
        pick.stale = choice >= all;
        pick.torn = choice >= all;
        return pick;
    }
    if (choice <= 1) {
        pick.how = choice == 0 ? BY_CHANCE : BY_EVERY; /* by no chance */
        return pick;
    }
    pick.how = hows[kit_below(&pick.random, sizeof(hows) / sizeof(hows[0]))];
    pick.chance = chances[kit_below(&pick.random, sizeof(chances) / sizeof(chances[0]))];
    first = undecided_first(r);
    pick.middle = first + (size_t)kit_below(&pick.random, r->cut - first + 1);
    pick.stale = kit_below(&pick.random, 4) == 0;
    pick.torn = kit_below(&pick.random, 4) == 0;
    return pick;
}

/* The file as it is found. */
static struct sim_file *
file_state(const struct sim_replay *r, uint32_t inode, struct pick *pick)
{
    struct pick all = {.how = BY_EVERY};
    const struct list *list = &r->data[inode];
    struct sim_file *file = sim_file_share(r->file[inode]);
    bool under_way = r->cut < r->trace->n && is_data(&r->trace->event[r->cut]) &&
                     r->trace->event[r->cut].inode == inode;

    if (list->n > 0 || under_way)
        file = sim_file_own(file);
    for (size_t i = 0; i < list->n; i++)
        data_apply(r, list->item[i].event, list->item[i].standing == DURABLE ? &all : pick, file);
    if (under_way)
        data_apply(r, r->cut, pick, file);
    return file;
}

/* What lies in directories that are not there is not there. */
static void
orphans_drop(struct sim_image *image)
{
    for (size_t i = 0; i < image->n;) {
        char parent[SIM_PATH_MAX], path[SIM_PATH_MAX];
        char *slash;

        strcpy(path, image->entry[i].path);
        strcpy(parent, path);
        slash = strrchr(parent, '/');
        if (slash == NULL || strcmp(path, "/") == 0) {
            i++;
            continue;
        }
        slash[slash == parent] = '\0';
        if (sim_image_find(image, parent) == NULL)
            sim_image_take(image, path);
        else
            i++;
    }
}

struct sim_image *
sim_replay_state(struct sim_replay *r, uint64_t choice, uint64_t most, uint64_t seed)
{
    struct pick all = {.how = BY_EVERY}, pick = pick_of(r, choice, most, seed);
    struct sim_image *image = sim_image_clone(r->names);

    for (size_t i = 0; i < r->name.n; i++)
        name_apply(r, r->name.item[i].event, r->name.item[i].standing == DURABLE ? &all : &pick,
                   image);
    if (r->cut < r->trace->n && is_name(&r->trace->event[r->cut]))
        name_apply(r, r->cut, &pick, image);
    orphans_drop(image);
    for (uint32_t inode = 1; inode <= r->trace->inodes; inode++) {
        struct sim_file *file = NULL;

        for (size_t i = 0; i < image->n; i++)
            if (image->entry[i].inode == inode) {
                if (file == NULL)
                    file = file_state(r, inode, &pick);
                image->entry[i].file = sim_file_share(file);
            }
        sim_file_drop(file);
    }
    for (size_t i = 0; i < image->n; i++)
        image->entry[i].inode = 0;
    return image;
}

/* ---- a process that dies ---- */

static int
item_compare(const void *a, const void *b)
{
    const struct undecided *x = a, *y = b;

    return x->event < y->event ? -1 : x->event > y->event;
}

/* What is durable of a file whose name is not. */
static void
durable_redo(const struct sim_replay *r, uint32_t inode, struct sim_disk *d, uint32_t *map)
{
    const struct sim_file *file = r->file[inode];
    unsigned char bytes[SIM_BLOCK];

    sim_disk_redo(
        d, &(struct sim_event){.op = SIM_OP_TRUNCATE, .inode = inode, .offset = file->size}, map);
    for (uint64_t at = 0; at < file->size; at += SIM_BLOCK)
        if (sim_file_block_there(file, at / SIM_BLOCK)) {
            size_t n = sim_file_get(file, at, bytes, sizeof(bytes));
            struct sim_event write = {
                .op = SIM_OP_WRITE, .inode = inode, .offset = at, .len = n, .data = bytes};

            sim_disk_redo(d, &write, map);
        }
    sim_disk_redo(d, &(struct sim_event){.op = SIM_OP_SYNC, .inode = inode}, map);
}

/* One by one; what was synced, or failed to be, at once. */
static void
item_redo(const struct sim_replay *r, const struct undecided *item, struct sim_disk *d,
          uint32_t *map)
{
    const struct sim_event *event = &r->trace->event[item->event];
    struct sim_event sync = {.failed = item->standing == LIMBO};
    char dir[SIM_PATH_MAX];
    char *slash;

    sim_disk_redo(d, event, map);
    if (event->op == SIM_OP_CREATE)
        durable_redo(r, event->inode, d, map);
    if (item->standing == PENDING || (is_data(event) && map[event->inode] == 0))
        return;
    sync.op = is_data(event) ? SIM_OP_SYNC : SIM_OP_SYNC_DIR;
    sync.inode = event->inode;
    if (!is_data(event)) {
        strcpy(dir, event->path);
        slash = strrchr(dir, '/');
        slash[slash == dir] = '\0';
        sync.path = dir;
    }
    sim_disk_redo(d, &sync, map);
}

struct sim_disk *
sim_replay_kill(const struct sim_replay *r, uint64_t seed, uint64_t *events_out)
{
    struct sim_image *image = sim_image_clone(r->names);
    uint32_t *map = calloc(r->trace->inodes + 1, sizeof(*map));
    struct list all = {0, 0, NULL};
    struct sim_disk *d;

    KIT_CHECK(map != NULL, "no memory");
    for (size_t i = 0; i < image->n; i++)
        if (image->entry[i].inode != 0)
            image->entry[i].file = sim_file_share(r->file[image->entry[i].inode]);
    d = sim_disk_new(image, seed);
    for (size_t i = 0; i < image->n; i++)
        map[image->entry[i].inode] = sim_disk_trace(d)->base->entry[i].inode;
    map[0] = 0;
    for (uint32_t i = 0; i <= r->trace->inodes; i++) {
        const struct list *list = i == 0 ? &r->name : &r->data[i];

        for (size_t k = 0; k < list->n; k++) {
            list_add(&all, list->item[k].event);
            all.item[all.n - 1].standing = list->item[k].standing;
        }
    }
    if (all.n > 0)
        qsort(all.item, all.n, sizeof(*all.item), item_compare);
    for (size_t i = 0; i < all.n; i++)
        item_redo(r, &all.item[i], d, map);
    *events_out = sim_disk_events(d);
    free(all.item);
    free(map);
    sim_image_free(image);
    return d;
}
