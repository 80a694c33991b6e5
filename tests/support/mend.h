/*
 * mend.h - checksums of scree's files set right, whatever is in them: what hides everything behind it from
 * damage and fuzzers (docs/log_format.md, docs/snapshot_format.md).
 */
#ifndef SCREE_TEST_MEND_H
#define SCREE_TEST_MEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The record at `at`, which is lsn, as long as its header says; of a seal the footer too. False: it is longer
   than n bytes. */
bool mend_record(unsigned char *at, size_t n, uint64_t lsn);
/* The header of a segment file. */
void mend_segment(unsigned char *file, size_t n);
void mend_mark(unsigned char *file, size_t n);
/* Header, every block that can be found, trailer. */
void mend_snapshot(unsigned char *file, size_t n);
void mend_manifest(unsigned char *file, size_t n);

#endif
