/*
 * log.c - the log of ceiling_frag_merge: its slow paths, its flusher. The protocol is in log.h.
 */
#include "log.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCK_BYTES 4096u
#define LOOK_BYTES (LOG_FLUSH_BYTES / 4) /* how often writers look at the flusher */
#define SLEEP_NS 1000000                 /* bounds what a lost wake costs */

static void
futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    struct timespec bound = {0, SLEEP_NS};

    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &bound, NULL, 0);
}

static void
futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* ---- writers ---------------------------------------------------------------------------------------- */

void
log_enter(struct log_hand *h, struct ceiling_log *log, unsigned writer)
{
    memset(h, 0, sizeof(*h));
    h->log = log;
    h->word = &log->writers[writer];
    h->ring = log->ring;
    h->mask = log->mask;
    h->end = atomic_load_explicit(&log->tail, memory_order_acquire);
    log_done(h); /* L0: before its first L1, with which the flusher gets it (L4: the tail first) */
}

void
log_leave(struct log_hand *h)
{
    atomic_store_explicit(&h->word->filled, LOG_IDLE, memory_order_release); /* L2, I4 */
}

static void
wake_flusher(struct ceiling_log *log)
{
    /* Relaxed: a hint, both ways. */
    if (atomic_load_explicit(&log->flusher_sleeps, memory_order_relaxed) != 0 &&
        atomic_exchange_explicit(&log->flusher_sleeps, 0, memory_order_relaxed) != 0)
        futex_wake(&log->flusher_sleeps);
}

void
log_look(struct log_hand *h, uint64_t at, uint64_t end)
{
    struct ceiling_log *log = h->log;
    uint64_t ring = h->mask + 1;
    uint64_t flushed = atomic_load_explicit(&log->flushed, memory_order_acquire); /* L6 */

    if (end > flushed + ring) {
        h->waits++;
        /* As L2; all of ours below the open reservation is filled. */
        atomic_store_explicit(&h->word->filled, at, memory_order_release);
        (void)atomic_fetch_add_explicit(&log->waiting, 1, memory_order_relaxed); /* a hint */
        while (end > flushed + ring) {
            uint32_t writes = atomic_load_explicit(&log->writes, memory_order_acquire);

            wake_flusher(log);
            flushed = atomic_load_explicit(&log->flushed, memory_order_acquire); /* L6 */
            if (end > flushed + ring)
                futex_wait(&log->writes, writes);
        }
        (void)atomic_fetch_sub_explicit(&log->waiting, 1, memory_order_relaxed); /* a hint */
    }
    if (end - flushed >= LOG_FLUSH_BYTES)
        wake_flusher(log);
    h->look = flushed + ring < end + LOOK_BYTES ? flushed + ring : end + LOOK_BYTES;
}

uint64_t
log_epoch_min(const struct ceiling_log *log)
{
    uint64_t min = LOG_IDLE;

    for (unsigned i = 0; i < log->n; i++) {
        /* L3. Acquire: its reads of what is freed now came before. */
        uint64_t epoch = atomic_load_explicit(&log->writers[i].epoch, memory_order_acquire);

        min = epoch < min ? epoch : min;
    }
    return min;
}

/* ---- the flusher ------------------------------------------------------------------------------------ */

/* L4. The tail first: a writer that had nothing open then reserves beyond it. */
static uint64_t
filled_min(const struct ceiling_log *log)
{
    uint64_t min = atomic_load_explicit(&log->tail, memory_order_acquire);

    for (unsigned i = 0; i < log->n; i++) {
        uint64_t filled = atomic_load_explicit(&log->writers[i].filled, memory_order_acquire);

        min = filled < min ? filled : min;
    }
    return min;
}

static void
file_io(const struct ceiling_log *log, void *buffer, uint64_t at, uint64_t len, bool write)
{
    int file = log->files[at / LOG_FILE_BYTES % LOG_FILES];
    off_t offset = (off_t)(at % LOG_FILE_BYTES);
    ssize_t done = write ? pwrite(file, buffer, len, offset) : pread(file, buffer, len, offset);

    if (done != (ssize_t)len)
        ceiling_fail(write ? "pwrite" : "pread", done < 0 ? errno : EIO);
}

/* Up to a whole write's bytes, in one file. */
static uint64_t
write_some(struct ceiling_log *log, uint64_t at, uint64_t end)
{
    uint64_t len = end - at, left = LOG_FILE_BYTES - at % LOG_FILE_BYTES;

    len = len < LOG_FLUSH_BYTES ? len : LOG_FLUSH_BYTES;
    len = len < left ? len : left;
    file_io(log, log->ring + (at & log->mask), at, len, true);
    /* L5. Release: the bytes were read. */
    atomic_store_explicit(&log->flushed, at + len, memory_order_release);
    (void)atomic_fetch_add_explicit(&log->writes, 1, memory_order_release); /* those who wait */
    if (atomic_load_explicit(&log->waiting, memory_order_relaxed) != 0)     /* a hint */
        futex_wake(&log->writes);
    return at + len;
}

static void *
flush_main(void *arg)
{
    struct ceiling_log *log = arg;
    uint64_t at = 0;

    for (;;) {
        bool ending = atomic_load_explicit(&log->ending, memory_order_relaxed) != 0;
        uint64_t end = filled_min(log), round = ending ? BLOCK_BYTES - 1 : 0;
        bool hurry =
            ending || atomic_load_explicit(&log->waiting, memory_order_relaxed) != 0; /* a hint */

        end = (end + round) & ~(uint64_t)(BLOCK_BYTES - 1);
        if (end > at && (hurry || end - at >= LOG_FLUSH_BYTES)) {
            at = write_some(log, at, end);
        } else if (ending) {
            return NULL;
        } else {
            atomic_store_explicit(&log->flusher_sleeps, 1, memory_order_relaxed); /* a hint */
            futex_wait(&log->flusher_sleeps, 1);
        }
    }
}

static unsigned char *
ring_map(uint64_t bytes)
{
    int memory = memfd_create("ceiling-ring", MFD_CLOEXEC);
    int both = PROT_READ | PROT_WRITE, how = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
    unsigned char *ring;

    if (memory < 0 || ftruncate(memory, (off_t)bytes) != 0)
        ceiling_fail("ring", errno);
    ring = mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ring == MAP_FAILED || mmap(ring, bytes, both, how, memory, 0) == MAP_FAILED ||
        mmap(ring + bytes, bytes, both, how, memory, 0) == MAP_FAILED)
        ceiling_fail("ring", errno);
    (void)close(memory);
    return ring;
}

void
log_open(struct ceiling_log *log, const char *dir, uint64_t ring_bytes, unsigned writers)
{
    int error;

    memset(log, 0, sizeof(*log));
    log->ring = ring_map(ring_bytes);
    log->mask = ring_bytes - 1;
    log->n = writers;
    log->writers = ceiling_alloc(writers * sizeof(*log->writers));
    for (unsigned i = 0; i < writers; i++) {
        atomic_init(&log->writers[i].filled, LOG_IDLE);
        atomic_init(&log->writers[i].epoch, 0); /* I4 */
    }
    for (unsigned i = 0; i < LOG_FILES; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "ceiling-log-%u", i);
        log->files[i] = ceiling_file(dir, name, LOG_FILE_BYTES, 0);
    }
    error = pthread_create(&log->flusher, NULL, flush_main, log);
    if (error != 0)
        ceiling_fail("flusher", error);
}

void
log_close(struct ceiling_log *log)
{
    atomic_store_explicit(&log->ending, 1, memory_order_relaxed); /* the join orders the rest */
    wake_flusher(log);
    (void)pthread_join(log->flusher, NULL);
}

/* ---- is it there? ----------------------------------------------------------------------------------- */

uint64_t
log_check(const struct ceiling_log *log, uint64_t from, uint64_t *aborted_out)
{
    uint64_t tail = atomic_load_explicit(&log->tail, memory_order_relaxed); /* nobody is left */
    uint64_t begin = from & ~(uint64_t)(BLOCK_BYTES - 1), records = 0;
    uint64_t end = (tail + BLOCK_BYTES - 1) & ~(uint64_t)(BLOCK_BYTES - 1);
    unsigned char *bytes = aligned_alloc(BLOCK_BYTES, end - begin + BLOCK_BYTES);

    if (bytes == NULL)
        ceiling_fail("memory", ENOMEM);
    for (uint64_t at = begin; at < end; at += BLOCK_BYTES)
        file_io(log, bytes + (at - begin), at, BLOCK_BYTES, false);
    *aborted_out = 0;
    for (uint64_t at = from; at < tail; records++) {
        const struct log_record *r = (const void *)(bytes + (at - begin));
        uint64_t payload_len = r->len - LOG_HEADER_BYTES;

        if (r->len < LOG_HEADER_BYTES || r->len > tail - at ||
            r->check != log_sum(XXH3_64bits(r->payload, payload_len), r, at))
            ceiling_fail("the log is wrong", EBADMSG);
        *aborted_out += r->kind_version >> 56 == LOG_ABORTED;
        at += r->len;
    }
    free(bytes);
    return records;
}
