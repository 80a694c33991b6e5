/*
 * survey_private.h - what the survey's parts (survey.c, survey_table.c, survey_replay.c, survey_page.c) share.
 */
#ifndef SCREE_SURVEY_PRIVATE_H
#define SCREE_SURVEY_PRIVATE_H

#include "pagecache/survey.h"

#define SURVEY_UNPROVABLE 1u /* mark of a slot */
#define SURVEY_CHAIN_MAX 32768u

/* ---- survey_table.c ---- */
uint64_t scree__survey_word(struct scree__radix_ref ref);
/* Frees what the word before stood for. */
void scree__survey_word_set(struct scree__radix_ref ref, uint64_t word);
/* The page stands for these n records, with room for cap. 0, NO_MEMORY. */
int scree__survey_put(struct scree__radix_ref ref, const struct scree__position *p, uint32_t n,
                      uint32_t cap, uint64_t version);
/* And for one more. 0, NO_MEMORY. */
int scree__survey_push(struct scree__radix_ref ref, const struct scree__position *p,
                       uint64_t version);
/* What the slot stands for. `one` is room for a single record. False: no live page. */
bool scree__survey_get(struct scree__radix_ref ref, struct scree__position *one,
                       struct scree__survey_page *page);
/* The start of the newest record the slot stands for, or of the free. */
uint64_t scree__survey_newest(struct scree__radix_ref ref);
void scree__survey_clear(struct scree__survey *s);
/* An entry of a snapshot into the table; ctx: the survey. */
int scree__survey_entry(void *ctx, const struct scree__snapshot_entry *e);

/* ---- survey_replay.c ---- */
int scree__survey_log_create(struct scree__survey *s);
int scree__survey_log_walk(struct scree__survey *s);

/* ---- survey.c ---- */
/* Is it about the bytes, and not about us? Then it is a finding. */
bool scree__survey_is_damage(int code);

#endif
