/*
 * kit.c - random numbers, directories, materializers and checks for the tests of the public calls.
 */
#include "kit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

char kit_context[512] = "";
void (*kit_on_failure)(void) = NULL;

void
kit_failed(const char *file, int line, const char *what, const char *format, ...)
{
    void (*told)(void) = kit_on_failure;
    va_list arguments;

    kit_on_failure = NULL;
    printf("FAILED %s:%d [%s] %s: ", file, line, kit_context, what);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf(" (last detail: %s)\n", scree_error_detail());
    fflush(stdout); /* `told` may end the process */
    if (told != NULL)
        told();
    fflush(stdout);
    _exit(1);
}

const char *
kit_code_name(int code)
{
#define KIT_CODE(name, value, text) \
    if (code == (value))            \
        return #name;
    SCREE_ERROR_MAP(KIT_CODE)
#undef KIT_CODE
    return code == 0 ? "OK" : "errno";
}

uint64_t
kit_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t
kit_below(uint64_t *state, uint64_t n)
{
    return kit_random(state) % n;
}

uint64_t
kit_hash(const void *data, size_t len, uint64_t seed)
{
    const unsigned char *bytes = data;
    uint64_t hash = seed ^ (len * 0x9E3779B97F4A7C15u);

    while (len >= 8) {
        uint64_t word;

        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * 0xBF58476D1CE4E5B9u;
        hash ^= hash >> 29;
        bytes += 8;
        len -= 8;
    }
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001B3u;
    return kit_random(&hash);
}

uint64_t
kit_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

uint64_t
kit_argument(int argc, char **argv, int at, uint64_t otherwise)
{
    return at < argc ? strtoull(argv[at], NULL, 0) : otherwise;
}

/* ---- directories ---- */

void
kit_dir_name(char path[KIT_PATH_MAX], const char *what)
{
    static unsigned made;
    const char *parent = getenv("SCREE_TEST_DIR");

    if (parent == NULL && access("/dev/shm", W_OK) == 0)
        parent = "/dev/shm";
    if (parent == NULL)
        parent = getenv("TMPDIR");
    if (parent == NULL)
        parent = "/tmp";
    snprintf(path, KIT_PATH_MAX, "%s/scree-%s-%ld-%u", parent, what, (long)getpid(), made++);
    kit_dir_remove(path);
}

static void
path_join(char out[KIT_PATH_MAX], const char *dir, const char *name)
{
    if (snprintf(out, KIT_PATH_MAX, "%s/%s", dir, name) >= KIT_PATH_MAX)
        kit_failed(__FILE__, __LINE__, "test", "path too long: %s/%s", dir, name);
}

void
kit_dir_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        char name[KIT_PATH_MAX];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        path_join(name, path, entry->d_name);
        if (unlink(name) != 0)
            kit_dir_remove(name);
    }
    closedir(dir);
    rmdir(path);
}

void
kit_dir_copy(const char *from, const char *to)
{
    struct kit_files files;

    kit_dir_remove(to);
    if (mkdir(to, 0755) != 0)
        kit_failed(__FILE__, __LINE__, "test", "mkdir %s: %s", to, strerror(errno));
    kit_dir_list(from, &files);
    for (size_t i = 0; i < files.n; i++) {
        size_t len;
        unsigned char *data = kit_file_read(from, files.name[i], &len);

        if (data == NULL)
            kit_failed(__FILE__, __LINE__, "test", "cannot read %s/%s", from, files.name[i]);
        kit_file_write(to, files.name[i], data, len);
        free(data);
    }
}

static int
name_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

void
kit_dir_list(const char *path, struct kit_files *files)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    files->n = 0;
    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (files->n == 1024 || strlen(entry->d_name) >= sizeof(files->name[0]))
            kit_failed(__FILE__, __LINE__, "test", "too many files, or too long a name: %s", path);
        strcpy(files->name[files->n++], entry->d_name);
    }
    closedir(dir);
    qsort(files->name, files->n, sizeof(files->name[0]), name_compare);
    for (size_t i = 0; i < files->n; i++) {
        char name[KIT_PATH_MAX];
        struct stat about;

        path_join(name, path, files->name[i]);
        files->size[i] = stat(name, &about) == 0 ? (uint64_t)about.st_size : 0;
    }
}

uint64_t
kit_dir_fingerprint(const char *path, bool with_times)
{
    return kit_dir_fingerprint_but(path, with_times, NULL);
}

uint64_t
kit_dir_fingerprint_but(const char *path, bool with_times, const char *but)
{
    struct kit_files files;
    uint64_t hash = 0;

    kit_dir_list(path, &files);
    for (size_t i = 0; i < files.n; i++) {
        char name[KIT_PATH_MAX];
        struct stat about;
        size_t len = 0;
        unsigned char *data;

        if (but != NULL && strncmp(files.name[i], but, strlen(but)) == 0)
            continue;
        data = kit_file_read(path, files.name[i], &len);
        hash = kit_hash(files.name[i], strlen(files.name[i]), hash);
        hash = kit_hash(data, len, hash);
        free(data);
        path_join(name, path, files.name[i]);
        if (with_times && stat(name, &about) == 0) {
            hash = kit_hash(&about.st_mtim.tv_sec, sizeof(about.st_mtim.tv_sec), hash);
            hash = kit_hash(&about.st_mtim.tv_nsec, sizeof(about.st_mtim.tv_nsec), hash);
            hash = kit_hash(&about.st_ino, sizeof(about.st_ino), hash);
        }
    }
    return hash;
}

unsigned char *
kit_file_read(const char *dir, const char *name, size_t *len_out)
{
    char path[KIT_PATH_MAX];
    struct stat about;
    unsigned char *data;
    FILE *file;

    *len_out = 0;
    path_join(path, dir, name);
    file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    if (fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode)) {
        fclose(file);
        return NULL;
    }
    data = malloc((size_t)about.st_size + 1);
    if (data != NULL)
        *len_out = fread(data, 1, (size_t)about.st_size, file);
    fclose(file);
    return data;
}

void
kit_file_write(const char *dir, const char *name, const void *data, size_t len)
{
    char path[KIT_PATH_MAX];
    FILE *file;

    path_join(path, dir, name);
    file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, len, file) != len || fclose(file) != 0)
        kit_failed(__FILE__, __LINE__, "test", "cannot write %s: %s", path, strerror(errno));
}

uint64_t
kit_dir_disk_bytes(const char *path, const char *prefix, uint32_t *files_out)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    uint64_t bytes = 0;
    uint32_t files = 0;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        struct stat about;

        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0 ||
            fstatat(dirfd(dir), entry->d_name, &about, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(about.st_mode))
            continue;
        bytes += (uint64_t)about.st_blocks * 512;
        files++;
    }
    if (dir != NULL)
        closedir(dir);
    if (files_out != NULL)
        *files_out = files;
    return bytes;
}

uint64_t
kit_memory_bytes(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    unsigned long long kib = 0;
    char line[256];

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "RssAnon: %llu", &kib) == 1)
            break;
    }
    if (file != NULL)
        fclose(file);
    return kib * 1024;
}

/* ---- materializers ---- */

static int
concat_merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags,
             size_t n, scree_out *out)
{
    int result = 0;

    (void)ctx;
    (void)id;
    for (size_t i = 0; i < n; i++) {
        if (frags[i].len > 0 && *(const unsigned char *)frags[i].data == KIT_UNMERGEABLE)
            return 1;
    }
    if (base != NULL)
        result = scree_out_append(out, base->data, base->len);
    for (size_t i = 0; i < n && result == 0; i++)
        result = scree_out_append(out, frags[i].data, frags[i].len);
    return result;
}

void
kit_fold_add(struct kit_fold *fold, scree_page_id id, scree_slice slice)
{
    if (slice.len == 0)
        return;
    fold->records++;
    fold->hash = kit_hash(slice.data, slice.len, fold->hash ^ id);
}

static int
concat_recover(void *ctx, scree_page_id id, scree_slice frag, scree_slice state, scree_out *out)
{
    struct kit_fold fold = {0, 0};

    (void)ctx;
    if (frag.len == 0)
        return 0;
    if (state.len != 0) {
        if (state.len != sizeof(fold))
            return -1;
        memcpy(&fold, state.data, sizeof(fold));
    }
    kit_fold_add(&fold, id, frag);
    return scree_out_append(out, &fold, sizeof(fold)) == 0 ? 1 : -1;
}

static int
counter_merge(void *ctx, scree_page_id id, const scree_slice *base, const scree_slice *frags,
              size_t n, scree_out *out)
{
    struct kit_counter counter = {0, 0};

    (void)ctx;
    (void)id;
    if (base != NULL && base->len != 0) {
        if (base->len != sizeof(counter))
            return -1;
        memcpy(&counter, base->data, sizeof(counter));
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t add;

        if (frags[i].len != sizeof(add))
            return -1;
        memcpy(&add, frags[i].data, sizeof(add));
        counter.sum += add;
        counter.count++;
    }
    return scree_out_append(out, &counter, sizeof(counter));
}

const scree_materializer kit_concat = {
    .size = sizeof(scree_materializer), .name = "concat", .version = 1, .merge = concat_merge};

const scree_materializer kit_concat_fold = {.size = sizeof(scree_materializer),
                                            .name = "concat-fold",
                                            .version = 1,
                                            .merge = concat_merge,
                                            .recover = concat_recover};

const scree_materializer kit_counter_materializer = {
    .size = sizeof(scree_materializer), .name = "counter", .version = 7, .merge = counter_merge};

void
kit_options_small(scree_options *options, const scree_materializer *materializer)
{
    scree_options_init(options);
    options->flags = SCREE_CREATE;
    options->cache_bytes = 64 * 1024;
    options->segment_bytes = 64 * 1024;
    options->log_buffer_bytes = 64 * 1024;
    options->page_bytes_max = 4096;
    options->fragments_max = 4;
    options->flush_interval_ms = 1;
    options->materializer = materializer;
}

void
kit_caches_many(void)
{
    pthread_attr_t attr;

    (void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
    (void)mallopt(M_ARENA_MAX, 2);
    if (pthread_attr_init(&attr) == 0 && pthread_attr_setstacksize(&attr, 512 * 1024) == 0)
        (void)pthread_setattr_default_np(&attr);
}

pid_t
kit_fork(void)
{
    pid_t child;

    fflush(stdout);
    child = fork();
    KIT_CHECK(child >= 0, "fork");
    if (child == 0) /* also a child that is stopped, whose parent found a failure */
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    return child;
}

int
kit_join(pid_t child)
{
    int status = 0;

    KIT_CHECK(waitpid(child, &status, 0) == child, "wait");
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status);
    printf("FAILED [%s] died by signal %d%s\n", kit_context, WTERMSIG(status),
           WTERMSIG(status) == SIGALRM ? " (hung)" : "");
    return 256 + WTERMSIG(status);
}

static int
verify_note(void *ctx, const scree_finding *f)
{
    if (f->severity != SCREE_FINDING_NOTE)
        printf("found in %s: %s offset %llu lsn %llu page %llu: %s\n", (const char *)ctx,
               f->file != NULL ? f->file : "-", (unsigned long long)f->offset,
               (unsigned long long)f->lsn, (unsigned long long)f->page, f->text);
    return 0;
}

void
kit_verify(const char *path, const scree_options *options)
{
    int code = scree_verify(path, options, verify_note, NULL, (void *)(uintptr_t)path);

    KIT_CHECK(code == 0 || code == -ENOENT, "verify of %s gave %d: %s", path, code,
              scree_error_detail());
}
