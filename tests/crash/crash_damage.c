/*
 * crash_damage.c - damaged directories: right, or an error that says where; never wrong data (P7, P8).
 *
 * GOAL      whatever happens to the bytes, scree_open and every read give either what was stored or an
 *           error with a detail text. Nothing crashes, hangs, or takes memory without bound.
 * METHOD    two small directories are made: one closed, one left by a crash. Of each, every file in turn:
 *           each byte flipped (all bits, one bit), cut at each length, its tail zeroed or filled with
 *           garbage, garbage appended, emptied, deleted, replaced by another file or by an older state
 *           of itself. Files are small or mostly zeros; where they are not, a stride spreads the cases.
 *           Each case runs in a child with an alarm and a limit on memory: open, read all, update,
 *           close, open, read all.
 * ORACLE    the history of all states (history.h). A closed directory holds the last one, with pages
 *           that read as CORRUPT taken out, or does not open. A crashed one may hold an earlier one, but
 *           with bytes flipped none before what later seals say was durable. After damage, too,
 *           new versions are new.
 *           scree_verify finds something wherever open refuses; what scree_salvage copies opens, is clean,
 *           and each page of it is as it was at some time.
 * NOT HERE  where verify says that the damage is, and which pages must be salvaged: crash_verify.
 *
 * crash_damage [seed] [cases, about, of each directory]
 */
#include "support/history.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum damage {
    FLIP_ALL,
    FLIP_BIT,
    CUT,
    ZERO_TAIL,
    GARBAGE_TAIL,
    ZERO_BLOCK,
    WHOLE_FILE, /* position: which of the ways in damage_whole */
    DAMAGES
};
static const char *const damage_names[DAMAGES] = {
    "all bits flipped at", "one bit flipped at", "cut at",        "zeroes from",
    "garbage from",        "a zeroed block at",  "file treatment"};
#define WHOLE_WAYS 5u

static char origin[KIT_PATH_MAX]; /* the directory as it was */
static char older[KIT_PATH_MAX];  /* the same, earlier in its life */
static char work[KIT_PATH_MAX];
static struct history *h;
static scree_options options;
static bool closed;    /* origin was closed, not crashed */
static uint32_t known; /* state that stays whatever byte is flipped */
static uint32_t snapshot_state;

struct outcomes {
    uint64_t right;
    uint64_t refused;
    uint64_t partly;
    uint64_t earlier;
};
static struct outcomes *outcomes; /* shared with the children */

static void
open_plain(const char *dir, scree_cache **cache_out)
{
    int code = scree_open(dir, &options, cache_out);

    KIT_CHECK(code == 0, "open gave %d %s", code, kit_code_name(code));
}

static void
steps(scree_cache *cache, int n)
{
    for (int i = 0; i < n; i++) {
        int code = history_step(h, cache);

        KIT_CHECK(code == 0, "an update gave %d %s", code, kit_code_name(code));
    }
}

/* Make origin and older, in a child: it leaves by _exit. */
static void
child_make(void)
{
    scree_cache *cache;

    open_plain(origin, &cache);
    history_begin(h, cache);
    steps(cache, 60);
    KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
    steps(cache, 60);
    KIT_CHECK(history_flush(h, cache) == 0, "flush");
    kit_dir_copy(origin, older);
    KIT_CHECK(scree_snapshot(cache, NULL) == 0, "snapshot");
    outcomes->earlier = h->n - 1;
    steps(cache, 50);
    KIT_CHECK(history_flush(h, cache) == 0, "flush");
    outcomes->partly = h->n - 1;
    for (int i = 0; i < 4; i++) { /* seals that say so */
        steps(cache, 8);
        KIT_CHECK(history_flush(h, cache) == 0, "flush");
    }
    if (closed)
        KIT_CHECK(scree_close(cache) == 0, "close");
}

/* ---- one case ---- */

static void
damage_whole(const char *name, uint64_t way)
{
    char path[KIT_PATH_MAX * 2];
    struct kit_files files;
    unsigned char *data;
    size_t len;

    snprintf(path, sizeof(path), "%s/%s", work, name);
    switch (way) {
    case 0:
        KIT_CHECK(unlink(path) == 0, "unlink");
        return;
    case 1:
        kit_file_write(work, name, "", 0);
        return;
    case 2: /* as it was earlier, if it was */
        data = kit_file_read(older, name, &len);
        if (data != NULL)
            kit_file_write(work, name, data, len);
        break;
    case 3: /* its neighbour's bytes */
        kit_dir_list(work, &files);
        data = kit_file_read(work, files.name[(len = strlen(name)) % files.n], &len);
        kit_file_write(work, name, data, len);
        break;
    default: /* far longer than it says, for nothing */
        data = NULL;
        KIT_CHECK(truncate(path, (off_t)1 << 40) == 0 || errno == EFBIG, "truncate");
    }
    free(data);
}

static void
damage_do(const char *name, enum damage damage, uint64_t at)
{
    size_t len;
    unsigned char *data;

    if (damage == WHOLE_FILE) {
        damage_whole(name, at);
        return;
    }
    data = kit_file_read(work, name, &len);
    KIT_CHECK(data != NULL && at <= len, "cannot read %s", name);
    switch (damage) {
    case FLIP_ALL:
        data[at] = (unsigned char)~data[at];
        break;
    case FLIP_BIT:
        data[at] ^= (unsigned char)(1u << (at % 8));
        break;
    case CUT:
        len = at;
        break;
    case ZERO_TAIL:
        memset(data + at, 0, len - at);
        break;
    case GARBAGE_TAIL:
        for (size_t i = at; i < len; i++)
            data[i] = (unsigned char)kit_hash(&i, sizeof(i), at);
        break;
    default:
        memset(data + at / 4096 * 4096, 0,
               len - at / 4096 * 4096 < 4096 ? len - at / 4096 * 4096 : 4096);
    }
    kit_file_write(work, name, data, len);
    free(data);
}

static bool
refusal_is_fair(int code)
{
    return code == SCREE_E_CORRUPT || code == SCREE_E_FORMAT || code == -ENOENT || code == -EIO ||
           code == SCREE_E_MATERIALIZER;
}

/* Is what is seen one of the states that this damage may leave? */
static void
seen_check(const struct history_seen *seen, enum damage damage)
{
    bool tail_may_be_gone = damage != FLIP_ALL && damage != FLIP_BIT;
    uint32_t from = closed ? h->n - 1 : tail_may_be_gone ? snapshot_state : known;
    int at = history_find(h, seen, from);

    if (at < 0 && history_find(h, seen, 0) >= 0)
        kit_failed(__FILE__, __LINE__, "P7",
                   "durable updates are gone without an error: state %d "
                   "of %" PRIu32 ", at least %" PRIu32 " was to be there",
                   history_find(h, seen, 0), h->n - 1, from);
    KIT_CHECK(at >= 0,
              "wrong data: what is read was never there (%d strangers, %" PRIu32 " failures)",
              seen->strangers, seen->failures);
    if (seen->failures > 0)
        outcomes->partly++;
    else if ((uint32_t)at + 1 < h->n)
        outcomes->earlier++;
    else
        outcomes->right++;
}

/* It goes on: an update, with a version nobody has seen, that is there after a close. */
static void
update_check(scree_cache **cache)
{
    scree_version version = 0;
    size_t len = 0;
    char buffer[8];
    int code = scree_page_put(*cache, SCREE_PAGE_ROOT, kit_slice("onwards", 7), &version);

    if (code == SCREE_E_CORRUPT)
        return;
    KIT_CHECK(code == 0, "an update gave %d %s", code, kit_code_name(code));
    KIT_CHECK(!closed || version > h->version_any,
              "version %" PRIu64 " again: %" PRIu64 " was told", version, h->version_any);
    code = scree_close(*cache);
    *cache = NULL;
    KIT_CHECK(code == 0 || code == SCREE_E_CORRUPT, "close gave %d %s", code, kit_code_name(code));
    if (code != 0)
        return;
    code = scree_open(work, &options, cache);
    KIT_CHECK(code == 0, "open after close gave %d %s", code, kit_code_name(code));
    code = scree_page_read(*cache, SCREE_PAGE_ROOT, buffer, sizeof(buffer), &len, NULL);
    KIT_CHECK(code == 0 && len == 7 && memcmp(buffer, "onwards", 7) == 0, "the update is lost: %d",
              code);
}

/* Was this page ever like this? */
static bool
page_ever_was(const struct history *of, uint32_t at, const struct history_page *page)
{
    for (uint32_t k = 0; k < of->n; k++) {
        const struct history_page *then = &of->state[k].page[at];

        if (then->version != 0 && then->len == page->len && then->hash == page->hash)
            return true;
    }
    return false;
}

static void
rescue_check(void)
{
    char rescue[KIT_PATH_MAX];
    struct history_seen seen;
    scree_cache *cache;
    int code;

    (void)snprintf(rescue, sizeof(rescue), "%.400s-rescue", work);
    kit_dir_remove(rescue);
    code = scree_salvage(work, rescue, &options, NULL, NULL, NULL);
    KIT_CHECK(code == 0 || refusal_is_fair(code), "salvage gave %d %s", code, kit_code_name(code));
    if (code == 0 || code == SCREE_E_CORRUPT) {
        code = scree_open(rescue, &options, &cache);
        KIT_CHECK(code == 0, "opening what was salvaged gave %d", code);
        code = history_look(h, cache, &seen);
        KIT_CHECK(code == 0 && seen.failures == 0 && seen.strangers == 0,
                  "what was salvaged: %d, %" PRIu32 " failures, %d strangers", code, seen.failures,
                  seen.strangers);
        for (uint32_t at = 0; at < HISTORY_PAGES; at++)
            KIT_CHECK(seen.state.page[at].version == 0 ||
                          page_ever_was(h, at, &seen.state.page[at]),
                      "page %llu was never like what was salvaged", (unsigned long long)h->id[at]);
        KIT_CHECK(scree_close(cache) == 0, "close");
        kit_verify(rescue, &options);
    }
    kit_dir_remove(rescue);
}

static void
child_case(const char *name, enum damage damage, uint64_t at)
{
#ifndef KIT_SANITIZED
    const struct rlimit limit = {.rlim_cur = (rlim_t)4 << 30, .rlim_max = (rlim_t)4 << 30};
#endif
    struct history_seen seen;
    scree_cache *cache = NULL;
    int code, verified;

    alarm(60);
#ifndef KIT_SANITIZED
    (void)setrlimit(RLIMIT_AS, &limit);
#endif
    damage_do(name, damage, at);
    verified = scree_verify(work, &options, NULL, NULL, NULL);
    KIT_CHECK(verified == 0 || refusal_is_fair(verified), "verify gave %d %s", verified,
              kit_code_name(verified));
    if (at % 8 == 1)
        rescue_check();
    code = scree_open(work, &options, &cache);
    if (code != 0) {
        KIT_CHECK(verified != 0, "open gave %d, and verify found nothing", code);
        KIT_CHECK(refusal_is_fair(code), "open gave %d %s", code, kit_code_name(code));
        KIT_CHECK(scree_error_detail()[0] != '\0' && cache == NULL, "no detail");
        outcomes->refused++;
        return;
    }
    code = history_look(h, cache, &seen);
    KIT_CHECK(code == 0 || refusal_is_fair(code), "page_next gave %d", code);
    KIT_CHECK(verified != 0 || (code == 0 && seen.failures == 0),
              "%" PRIu32 " pages cannot be read, and verify found nothing", seen.failures);
    if (code == 0)
        seen_check(&seen, damage);
    if (at % 4 == 0)
        update_check(&cache);
    if (cache != NULL)
        (void)scree_close(cache);
}

static uint64_t cases_run;

static void
case_run(const char *name, enum damage damage, uint64_t at)
{
    pid_t child;

    kit_dir_copy(origin, work);
    child = kit_fork();
    snprintf(kit_context, sizeof(kit_context), "%s directory, %s: %s %" PRIu64,
             closed ? "closed" : "crashed", name, damage_names[damage], at);
    if (child == 0) {
        child_case(name, damage, at);
        _exit(0);
    }
    cases_run++;
    if (kit_join(child) != 0 && getenv("SCREE_TEST_KEEP") == NULL)
        exit(1);
}

/* Positions worth trying: all that are not amid zeros, thinned to about `budget`. */
static void
file_run(const char *name, uint64_t budget)
{
    size_t len;
    unsigned char *data = kit_file_read(origin, name, &len);
    uint64_t worth = 0;
    uint64_t stride;
    uint64_t turn = 0;

    KIT_CHECK(data != NULL, "cannot read %s", name);
    for (size_t i = 0; i < len; i++)
        worth += data[i] != 0 || i % 512 == 0;
    stride = worth / budget + 1;
    for (size_t i = 0; i < len; i++) {
        if (data[i] == 0 && i % 512 != 0)
            continue;
        if (turn++ % stride != 0)
            continue;
        case_run(name, (enum damage)(turn / stride % WHOLE_FILE), i);
        if (stride == 1 && len < 400) { /* short ones whole */
            for (int d = 0; d < WHOLE_FILE; d++)
                case_run(name, (enum damage)d, i);
        }
    }
    for (uint64_t way = 0; way < WHOLE_WAYS; way++)
        case_run(name, WHOLE_FILE, way);
    free(data);
}

static void
directory_run(uint64_t seed, bool close_it, uint64_t cases)
{
    struct kit_files files;
    pid_t child;

    closed = close_it;
    history_reset(h, seed * 2 + close_it);
    memset(outcomes, 0, sizeof(*outcomes));
    kit_dir_name(origin, "damage");
    kit_dir_name(older, "older");
    kit_dir_name(work, "work");
    child = kit_fork();
    if (child == 0) {
        child_make();
        _exit(0);
    }
    KIT_CHECK(kit_join(child) == 0, "making the directory");
    snapshot_state = (uint32_t)outcomes->earlier;
    known = (uint32_t)outcomes->partly;
    memset(outcomes, 0, sizeof(*outcomes));
    kit_dir_list(origin, &files);
    for (size_t i = 0; i < files.n; i++)
        file_run(files.name[i], cases / files.n);
    printf("seed %" PRIu64 ", %s: %zu files, %" PRIu64 " right, %" PRIu64 " refused, %" PRIu64
           " with CORRUPT pages, %" PRIu64 " at an earlier state\n",
           seed, closed ? "closed" : "crashed", files.n, outcomes->right, outcomes->refused,
           outcomes->partly, outcomes->earlier);
    KIT_CHECK(outcomes->right > 0 && outcomes->refused > 0, "the damage did nothing, or all");
    kit_dir_remove(origin);
    kit_dir_remove(older);
    kit_dir_remove(work);
}

int
main(int argc, char **argv)
{
    uint64_t seed = kit_argument(argc, argv, 1, 1);
    uint64_t cases = kit_argument(argc, argv, 2, KIT_MUCH(400, 150, 400));

    h = history_new(seed);
    outcomes = (struct outcomes *)(void *)history_new(0);
    kit_options_small(&options, &kit_concat);
    options.compression_level = 1;
    directory_run(seed, true, cases);
    directory_run(seed, false, cases);
    printf("%" PRIu64 " cases: ok\n", cases_run);
    return 0;
}
