/*
 * wordindex.c - an index of real text kept in pages: which words, how often, in how many files.
 *
 *   wordindex index DIR SOURCE...   read all files below the sources, but *.gz*, into DIR; started again
 *                                   after a crash, it goes on with those that are not done
 *   wordindex lookup DIR WORD...    word <TAB> total count <TAB> number of files; dump DIR: of all words
 *
 * A word is a run of ASCII letters, folded to lower case: [a-z]+, of 255 letters at most.
 * PAGES  'D' bucket: { u64 page, key, NUL }..., a key is a word, or ':' and a file's path. A fragment
 *            is one more, merged in only if the bucket did not change since the key was looked for.
 *        'W' word: a posting { file, count } for each file. A fragment is one posting: it replaces that of
 *            the same file, so that reading a file a second time does not count it twice.
 *        'F' file: a fragment says done. It is logged behind the file's postings, and a crash leaves a
 *            prefix of the log: a file that is marked done has all of them.
 */
#include <ctype.h>
#include <errno.h>
#include <fts.h>
#include <pthread.h>
#include <scree.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUCKETS 4096u
#define BUCKET_0 (SCREE_PAGE_ROOT + 1) /* the buckets are this page and those that follow */
#define THREADS 4
#define KEY_MAX 4098u /* ':', a path, NUL */
#define POSTING 16u   /* u64 file, u64 count */

static scree_cache *cache;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FTS *tree; /* under lock */
static _Atomic unsigned files_read;

/* Every failure ends the program: what it wrote so far is there when it is started again. */
static void
must(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "wordindex: %s: %s (%s)\n", what, scree_strerror(rc), scree_error_detail());
    exit(1);
}

/* What was there, then what was added; of a word's postings the newest of each file. Whether what is
   overtaken goes sooner or later makes no difference: the law a merge callback has to obey. */
static int
merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags, size_t n,
      scree_out *out)
{
    const char *old = base->data; /* every page is made with its first byte */
    size_t old_n = old[0] == 'W' ? base->len / POSTING : 0;
    int rc = scree_out_append(out, old, old[0] == 'W' ? 1 : base->len);

    (void)ctx, (void)id;
    for (size_t i = 0; i < old_n + n && rc == 0; i++) {
        scree_slice item = {old + 1 + i * POSTING, POSTING};
        size_t newer = i < old_n ? 0 : i - old_n + 1; /* frags from here on came later */

        if (i >= old_n)
            item = frags[i - old_n];
        while (old[0] == 'W' && newer < n && memcmp(frags[newer].data, item.data, 8) != 0)
            newer++;
        if (old[0] != 'W' || newer == n)
            rc = scree_out_append(out, item.data, item.len);
    }
    return rc;
}

/* The page of a key. If it has none: a new one of this kind; for kind NULL 0. */
static scree_page_id
find(const char *key, const char *kind)
{
    scree_page_id page = 0, mine = 0;
    scree_version version, mine_version = 0;
    uint64_t id, hash = 0xcbf29ce484222325u; /* FNV-1a */
    char entry[8 + KEY_MAX];
    scree_slice bucket;

    for (const char *c = key; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    id = BUCKET_0 + (hash ^ hash >> 29) % BUCKETS;
    strcpy(entry + 8, key);
    for (;;) {
        scree_read_enter(cache);
        must(scree_page_get(cache, id, &bucket, &version), "reading a bucket");
        for (const char *e = bucket.data, *end = e + bucket.len; ++e < end; e += 8 + strlen(e + 8))
            if (strcmp(e + 8, key) == 0)
                memcpy(&page, e, 8);
        scree_read_leave(cache);
        if (page != 0 || kind == NULL)
            break;
        if (mine == 0)
            must(scree_page_allocate(cache, (scree_slice){kind, 1}, &mine, &mine_version),
                 "a page");
        memcpy(entry, &mine, 8);
        int rc = scree_page_merge(cache, id, &version, (scree_slice){entry, 9 + strlen(key)});
        if (rc == 0)
            return mine;
        must(rc == SCREE_E_CONFLICT ? 0 : rc, "adding to a bucket");
    }
    if (mine != 0) /* another thread was faster */
        must(scree_page_free(cache, mine, &mine_version), "freeing a page");
    return page;
}

static int
word_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Cuts text into words in place, there is room for a byte behind it; sorts them, adds each once. */
static void
index_text(scree_page_id file, char *text, size_t len)
{
    char **words = malloc((len / 2 + 1) * sizeof(*words)), *start = text;
    size_t n = 0, run;

    must(words == NULL ? SCREE_E_NO_MEMORY : 0, "splitting a file");
    text[len] = '\0';
    for (char *p = text; p <= text + len; p++) {
        *p = (char)tolower((unsigned char)*p); /* no setlocale here: ASCII only */
        if (*p >= 'a' && *p <= 'z')
            continue;
        *p = '\0';
        if (p > start && p - start <= 255)
            words[n++] = start;
        start = p + 1;
    }
    qsort(words, n, sizeof(*words), word_order);
    for (size_t i = 0; i < n; i += run) {
        scree_page_id page = find(words[i], "W");

        for (run = 1; i + run < n && strcmp(words[i], words[i + run]) == 0;)
            run++;
        scree_slice posting = {(uint64_t[2]){file, run}, POSTING};
        must(scree_page_append(cache, page, posting, NULL), "adding a posting");
    }
    free(words);
}

static void *
index_thread(void *arg)
{
    char key[KEY_MAX], page[64], *text;
    size_t page_len, size;

    for (;;) {
        pthread_mutex_lock(&lock);
        FTSENT *e = fts_read(tree);
        while (e != NULL && (e->fts_info != FTS_F || strstr(e->fts_name, ".gz") != NULL))
            e = fts_read(tree);
        size = e != NULL ? (size_t)e->fts_statp->st_size : 0;
        snprintf(key, sizeof(key), ":%s", e != NULL ? e->fts_path : "");
        pthread_mutex_unlock(&lock);
        if (e == NULL)
            return arg;
        scree_page_id file = find(key, "F");
        must(scree_page_read(cache, file, page, sizeof(page), &page_len, NULL), "reading a mark");
        if (page_len > 1)
            continue; /* done */
        FILE *f = fopen(key + 1, "rb");
        text = malloc(size + 1);
        must(text == NULL || f == NULL || fread(text, 1, size, f) != size ? -EIO : 0, key);
        fclose(f);
        index_text(file, text, size);
        free(text);
        must(scree_page_append(cache, file, (scree_slice){"done", 4}, NULL), "marking a file");
        atomic_fetch_add_explicit(&files_read, 1, memory_order_relaxed);
    }
}

static void
index_sources(char **sources)
{
    pthread_t threads[THREADS];

    /* A crash in here leaves the first ones and no words. */
    for (uint64_t i = 0; i < BUCKETS; i++) {
        int rc = scree_page_allocate_at(cache, BUCKET_0 + i, (scree_slice){"D", 1}, NULL);
        must(rc == SCREE_E_CONFLICT ? 0 : rc, "making a bucket");
    }
    tree = fts_open(sources, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    must(tree == NULL ? -errno : 0, sources[0]);
    for (int i = 0; i < THREADS; i++)
        must(-pthread_create(&threads[i], NULL, index_thread, NULL), "starting a thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    fts_close(tree);
    printf("%u files read\n", atomic_load_explicit(&files_read, memory_order_relaxed));
}

static void
print_word(const char *word, scree_page_id page)
{
    unsigned long long total = 0;
    uint64_t posting[2];
    scree_slice bytes = {NULL, 1};

    scree_read_enter(cache);
    must(page != 0 ? scree_page_get(cache, page, &bytes, NULL) : 0, "reading a word");
    for (size_t at = 1; at < bytes.len; at += POSTING, total += posting[1])
        memcpy(posting, (const char *)bytes.data + at, POSTING);
    scree_read_leave(cache);
    printf("%s\t%llu\t%zu\n", word, total, (bytes.len - 1) / POSTING);
}

static void
dump_bucket(scree_page_id id)
{
    scree_slice bucket;
    scree_page_id page;

    scree_read_enter(cache);
    must(scree_page_get(cache, id, &bucket, NULL), "reading a bucket");
    for (const char *e = bucket.data, *end = e + bucket.len; ++e < end; e += 8 + strlen(e + 8)) {
        memcpy(&page, e, sizeof(page));
        if (e[8] != ':')
            print_word(e + 8, page);
    }
    scree_read_leave(cache);
}

int
main(int argc, char **argv)
{
    scree_materializer m = {.size = sizeof(m), .name = "wordindex", .version = 1, .merge = merge};
    char what = argc > 2 ? argv[1][0] : '?';
    scree_options options;

    if (argc < (what == 'd' ? 3 : 4) || strchr("ild", what) == NULL)
        must(SCREE_E_INVALID, "index DIR SOURCE... or lookup DIR WORD... or dump DIR");
    scree_options_init(&options);
    options.flags = what == 'i' ? SCREE_CREATE : SCREE_READ_ONLY;
    options.materializer = &m;
    must(scree_open(argv[2], &options, &cache), argv[2]);
    if (what == 'i')
        index_sources(argv + 3);
    for (int i = 3; what == 'l' && i < argc; i++)
        print_word(argv[i], find(argv[i], NULL));
    for (scree_page_id id = BUCKET_0; what == 'd' && id < BUCKET_0 + BUCKETS; id++)
        dump_bucket(id);
    must(scree_close(cache), "closing");
    return fflush(stdout);
}
