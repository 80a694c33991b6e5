/*
 * survey.h - a directory that may be damaged: what of it is still right, and what each page's records are.
 * For scree_verify and scree_salvage; opens nothing for writing.
 */
#ifndef SCREE_SURVEY_H
#define SCREE_SURVEY_H

#include "log/log.h"
#include "radix/radix.h"
#include "snapshot/snapshot.h"

#define SURVEY_MANIFESTS 16u /* looked at, newest first; there are two or three */

struct scree__survey {
    const char *dir;
    scree_options options;           /* normalized */
    scree_materializer materializer; /* the caller's */
    bool salvages;                   /* set by the caller: notes for those who copy */
    bool unmerged;                   /* the caller gave none: a stand-in */
    scree_finding_fn finding;
    scree_progress_fn progress;
    void *ctx;
    uint64_t bad; /* findings that are no notes */
    int lock_file;

    /* manifests */
    struct scree__manifest manifest, before; /* the newest that is valid, and the one before it */
    bool manifest_found, before_found;
    bool manifest_old; /* a newer one is damaged */
    /* the log, and the table as of its end */
    struct scree__log *log;
    struct scree__radix table;
    bool loaded;          /* a generation was */
    bool rebuilt;         /* none could be: the table is from the log alone */
    uint64_t start;       /* the table's replay start */
    uint64_t end;         /* where the log ends */
    uint64_t stretch_end; /* of the last unreadable one that concerns the table; 0: none */
    uint64_t records, pages;
    uint64_t id_high, generated_high;
    struct scree_out state; /* of the recovery fold */
    bool state_lost;
};

/* A page as the table knows it. */
struct scree__survey_page {
    scree_page_id id;
    scree_version version;
    const struct scree__position *position; /* oldest first */
    size_t n;
    bool provable; /* no update of it can be missing between these */
};

/* Arguments, lock, manifests. `s` zeroed; scree__survey_end in any case. */
int scree__survey_begin(struct scree__survey *s, const char *dir, const scree_options *options,
                        scree_finding_fn finding, scree_progress_fn progress, void *ctx);
/* Snapshots, the log, the files. */
int scree__survey_run(struct scree__survey *s);
void scree__survey_end(struct scree__survey *s);

/* Every live page in the order of ids. Non-zero from visit ends it. */
typedef int (*scree__survey_visit)(void *ctx, struct scree__survey *s,
                                   const struct scree__survey_page *page);
int scree__survey_pages(struct scree__survey *s, scree__survey_visit visit, void *ctx);

/* The records of one page, checked and unpacked. Zeroed at first; memory is used again. */
struct scree__survey_content {
    struct scree__log_read *read;
    size_t read_cap;
    void **raw; /* of compressed ones */
    size_t *raw_len;
    scree_slice *part; /* oldest first; part[0]: the base */
    size_t n;
    bool has_base;
};
/* 1: it cannot be read, which was told; 0; < 0: cannot go on. */
int scree__survey_read(struct scree__survey *s, const struct scree__survey_page *page,
                       struct scree__survey_content *content);
void scree__survey_content_end(struct scree__survey_content *content);

/* Tell one finding; size is set. 0, CANCELED. */
int scree__survey_tell(struct scree__survey *s, scree_finding f);
int scree__survey_progress(struct scree__survey *s, const char *what, uint64_t done,
                           uint64_t total);

#endif
