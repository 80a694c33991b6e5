/*
 * test_fork.c - a process that forks with caches open: the child gets FORKED from every call, with and
 * without the hooks; the parent goes on.
 */
#include "unit/cache_fixture.h"
#include "unit/claims.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 3

static char other[KIT_PATH_MAX];
static scree_batch *batch;
static _Atomic bool stop; /* relaxed: looked at again and again */

static void
setup(void)
{
    kit_dir_name(dir, "fork");
    kit_dir_name(other, "fork-other");
    kit_options_small(&options, &kit_concat);
    open_cache();
}

static void
cleanup(void)
{
    teardown();
    kit_dir_remove(other);
}

TestSuite(fork, .init = setup, .fini = cleanup, .timeout = 300);

static void *
writer_run(void *argument)
{
    scree_page_id id = *(const scree_page_id *)argument;
    scree_version version;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        EXPECT(0, scree_page_append(cache, id, kit_slice("abcdefgh", 8), &version));
        if (kit_hash(&version, sizeof(version), 0) % 8 == 0)
            EXPECT(0, scree_flush(cache, NULL));
        if (kit_hash(&version, sizeof(version), 1) % 64 == 0)
            EXPECT(0, scree_page_put(cache, id, kit_slice("x", 1), &version));
    }
    return NULL;
}

/* ---- the child ---------------------------------------------------------------------------------- */

static unsigned failures;

static void
is_forked(const char *call, int code)
{
    if (code == SCREE_E_FORKED && scree_error_detail()[0] != '\0')
        return;
    fprintf(stderr, "in the child %s gave %d (%s)\n", call, code, scree_error_detail());
    failures++;
}

static int
visit_stat(void *ctx, const char *name, double value)
{
    (void)ctx, (void)name, (void)value;
    return 0;
}

static int
visit_segment(void *ctx, const scree_segment_info *segment)
{
    (void)ctx, (void)segment;
    return 0;
}

#define FORKED(call) is_forked(#call, (call))

static void
pages_are_forked(void)
{
    scree_slice page = kit_slice("x", 1);
    scree_version version = 8;
    scree_page_id id = 7;
    char bytes[8];
    size_t n;

    FORKED(scree_page_get(cache, 1, &page, &version));
    FORKED(scree_page_read(cache, 1, bytes, sizeof(bytes), &n, &version));
    FORKED(scree_page_fragments(cache, 1, &page, NULL, 0, &n, &version));
    FORKED(scree_page_next(cache, 0, &id));
    FORKED(scree_pages_prefetch(cache, &id, 1));
    FORKED(scree_pages_get(cache, &id, 1, &page, NULL, NULL));
    page = kit_slice("x", 1);
    FORKED(scree_page_allocate(cache, page, &id, &version));
    FORKED(scree_page_allocate_at(cache, 77, page, &version));
    FORKED(scree_page_set(cache, 1, &version, page));
    FORKED(scree_page_merge(cache, 1, &version, page));
    FORKED(scree_page_append(cache, 1, page, &version));
    FORKED(scree_page_put(cache, 1, page, &version));
    version = 8;
    FORKED(scree_page_free(cache, 2, &version));
}

static void
batches_are_forked(void)
{
    scree_slice page = kit_slice("x", 1);
    scree_page_id id;
    scree_batch *b;
    scree_lsn lsn;

    FORKED(scree_batch_begin(cache, &b));
    if (batch == NULL)
        return;
    FORKED(scree_batch_allocate(batch, page, &id));
    FORKED(scree_batch_set(batch, 1, 8, page));
    FORKED(scree_batch_merge(batch, 1, 8, page));
    FORKED(scree_batch_free(batch, 2, 8));
    FORKED(scree_batch_check(batch, 1, 8));
    FORKED(scree_batch_commit(batch, &lsn, &id));
    scree_batch_abort(batch);
}

static void
rest_is_forked(void)
{
    scree_recovery_info info = {.size = sizeof(info)};
    scree_stats stats = {.size = sizeof(stats)};
    scree_slice state;
    scree_lsn lsn;
    uint64_t id;

    FORKED(scree_flush(cache, &lsn));
    FORKED(scree_id_next(cache, &id));
    FORKED(scree_wait_stable(cache, 8, -1));
    FORKED(scree_snapshot(cache, &lsn));
    FORKED(scree_reclaim(cache, 0, NULL, NULL));
    FORKED(scree_backup(cache, other, 0, NULL, NULL));
    FORKED(scree_recovery(cache, &info));
    FORKED(scree_recovery_state(cache, &state));
    FORKED(scree_stats_get(cache, &stats));
    FORKED(scree_stats_each(cache, visit_stat, NULL));
    FORKED(scree_segments_each(cache, visit_segment, NULL));
    FORKED(scree_health(cache));
    FORKED(scree_close(cache));
    scree_read_enter(cache);
    scree_read_leave(cache);
    scree_read_leave(cache);
    if (scree_stable_lsn(cache) != 0)
        failures++;
}

/* A directory of the child's own. Not under sanitizers: their allocators' locks may be held by threads that are
   not there, and the child hangs in malloc. */
static void
child_opens(void)
{
#ifdef KIT_SANITIZED
    return;
#endif
    scree_options o = options;
    scree_cache *own;
    scree_version version;
    int code = scree_open(other, &o, &own);

    if (code == 0)
        code = scree_page_append(own, 1, kit_slice("own", 3), &version);
    if (code == 0)
        code = scree_snapshot(own, NULL);
    if (code == 0)
        code = scree_close(own);
    if (code != 0) {
        fprintf(stderr, "the child's own directory: %d (%s)\n", code, scree_error_detail());
        failures++;
    }
}

static void
child_run(bool hooked, bool may_open)
{
    scree_cache *own;

    alarm(30);
    if (hooked)
        scree_postfork_child(cache);
    pages_are_forked();
    batches_are_forked();
    rest_is_forked();
    if (may_open)
        child_opens();
    else if (!hooked)
        FORKED(scree_open(other, &options, &own));
    _exit(failures == 0 ? 0 : 1);
}

static pid_t
forked(bool hooks, bool may_open)
{
    pid_t pid;

    if (hooks)
        scree_prefork(cache);
    pid = fork();
    if (pid == 0)
        child_run(hooks, may_open);
    if (hooks)
        scree_postfork_parent(cache);
    return pid;
}

static void
child_was_content(pid_t pid)
{
    int status;

    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    cr_assert(eq(int, status, 0));
}

/* ---- tests -------------------------------------------------------------------------------------- */

static void
with_threads(bool hooks)
{
    scree_page_id id[THREADS];
    pthread_t thread[THREADS];
    scree_version version;

    atomic_store_explicit(&stop, false, memory_order_relaxed);
    for (int i = 0; i < THREADS; i++) {
        EXPECT(0, scree_page_allocate(cache, kit_slice("x", 1), &id[i], &version));
        cr_assert(eq(int, pthread_create(&thread[i], NULL, writer_run, &id[i]), 0));
    }
    for (int i = 0; i < 8; i++) {
        usleep(2000);
        child_was_content(forked(hooks, hooks));
        kit_dir_remove(other);
        EXPECT(0, scree_page_append(cache, 1, kit_slice("y", 1), &version));
        EXPECT(0, scree_flush(cache, NULL));
    }
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    EXPECT(0, scree_snapshot(cache, NULL));
    EXPECT(0, scree_close(cache));
    open_cache();
}

Test(fork, child_says_forked_with_hooks_while_threads_write)
{
    with_threads(true);
}

Test(fork, child_says_forked_without_hooks_while_threads_write)
{
    with_threads(false);
}

Test(fork, a_guard_and_a_batch_of_the_thread_stay_the_parents)
{
    scree_version version;
    scree_slice page;
    scree_lsn lsn;

    for (int hooks = 0; hooks < 2; hooks++) {
        EXPECT(0, scree_page_put(cache, 1, kit_slice("before", 6), &version));
        EXPECT(0, scree_batch_begin(cache, &batch));
        EXPECT(0, scree_batch_set(batch, 1, version, kit_slice("after", 5)));
        scree_read_enter(cache);
        EXPECT(0, scree_page_get(cache, 1, &page, NULL));
        child_was_content(forked(hooks, false));
        cr_assert(eq(sz, page.len, 6));
        cr_assert(eq(int, memcmp(page.data, "before", 6), 0));
        scree_read_leave(cache);
        EXPECT(0, scree_batch_commit(batch, &lsn, NULL));
        batch = NULL;
    }
}

Test(fork, parent_closes_and_opens_again_while_the_child_lives)
{
    int status, pipes[2];
    char byte;
    pid_t pid;

    cr_assert(eq(int, pipe(pipes), 0));
    pid = fork();
    if (pid == 0) {
        close(pipes[1]);
        alarm(30);
        _exit(read(pipes[0], &byte, 1) == 0 ? 0 : 1); /* until the parent is done */
    }
    reopen();
    close(pipes[1]);
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    cr_assert(eq(int, status, 0));
}

/* As between fork(2) and the handlers, or between fork and exec of a program that is started. */
Test(fork, parent_opens_again_before_the_child_has_let_go_of_the_lock)
{
    int status, pipes[2];
    char byte;
    pid_t pid;

    cr_assert(eq(int, pipe(pipes), 0));
    pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* a fork that no handler hears of */
    if (pid == 0) {
        close(pipes[1]);
        _exit(read(pipes[0], &byte, 1) == 0 ? 0 : 1);
    }
    EXPECT(0, scree_close(cache));
    open_cache();
    close(pipes[1]);
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    cr_assert(eq(int, status, 0));
}

Test(fork, the_childs_end_does_not_unlock_the_parents_directory)
{
    scree_cache *again;

    for (int hooks = 0; hooks < 2; hooks++) {
        child_was_content(forked(hooks, false));
        EXPECT(SCREE_E_LOCKED, scree_open(dir, &options, &again));
    }
}

Test(fork, hooks_of_several_caches_nest)
{
    char second[KIT_PATH_MAX];
    scree_cache *two;
    pid_t pid;

    kit_dir_name(second, "fork-second");
    EXPECT(0, scree_open(second, &options, &two));
    scree_prefork(cache);
    scree_prefork(two);
    pid = fork();
    if (pid == 0) {
        scree_postfork_child(two);
        FORKED(scree_health(two));
        FORKED(scree_close(two));
        child_run(true, true);
    }
    scree_postfork_parent(two);
    scree_postfork_parent(cache);
    child_was_content(pid);
    EXPECT(0, scree_close(two));
    kit_dir_remove(second);
}

Test(fork, hooks_of_null_do_nothing)
{
    scree_prefork(NULL);
    scree_postfork_parent(NULL);
    scree_postfork_child(NULL);
    EXPECT(0, scree_page_append(cache, 1, text("x"), NULL));
}
