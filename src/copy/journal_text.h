/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a journal says, and how that is written and read: journal.h tells the form. Private to
 * src/copy/journal*.c; nothing here touches a file. */
#ifndef LUNFERRY_JOURNAL_TEXT_H
#define LUNFERRY_JOURNAL_TEXT_H

#include "journal.h"
#include <lunferry/digest.h>

/* ---- Granules --------------------------------------------------------------------------------- */

/* A bit map. */
struct granules {
    uint64_t *words;
    uint64_t count; /* granules */
};

/* None is set. False: out of memory. */
bool granules_init(struct granules *granules, uint64_t count);
void granules_release(struct granules *granules);
void granules_set(struct granules *granules, uint64_t first, uint64_t count);
/* Those that were not set are set in both. Was there any? */
bool granules_add(struct granules *granules, struct granules *added, uint64_t first,
                  uint64_t count);
void granules_clear(struct granules *granules);
/* The next run of granules that are set, at or after `from`. */
bool granules_next(const struct granules *granules, uint64_t from, uint64_t *first,
                   uint64_t *count);

/* ---- Lines, written --------------------------------------------------------------------------- */

/* A text that grows. */
struct journal_text {
    char *bytes;
    size_t len, capacity;
    bool failed;           /* out of memory: the text is not to be used */
    size_t line;           /* where the one that is being written starts */
    struct digest *digest; /* borrowed */
};

void text_init(struct journal_text *text, struct digest *digest);
void text_release(struct journal_text *text);
/* One line: its word, its fields, its end. */
void text_line(struct journal_text *text, const char *word);
void text_field(struct journal_text *text, const char *value);
void text_number(struct journal_text *text, uint64_t value);
void text_end(struct journal_text *text);
void text_append(struct journal_text *text, const struct journal_text *more);

/* ---- Lines, read ------------------------------------------------------------------------------ */

#define LINE_FIELDS 2

struct line {
    char *word;
    char *fields[LINE_FIELDS];
    unsigned count; /* of fields */
};

/* Takes the next line from text[*at, len) and moves *at behind it. It is decoded where it stands, so
 * that a text can be read once. False: the end, or a line that is torn or damaged; *at stays. */
bool line_next(struct digest *digest, char *text, size_t len, size_t *at, struct line *line);

/* ---- What a journal says ---------------------------------------------------------------------- */

struct record {
    struct journal_facts facts; /* texts are the record's */
    struct granules durable;
};

/* Copies the facts; nothing is durable. Returns 0, or -EINVAL or -ENOMEM with the sentence. */
int record_init(struct record *record, const struct journal_facts *facts, struct blk_error *error);
void record_release(struct record *record);

/* The whole journal. */
void record_write(const struct record *record, struct journal_text *text);
/* The lines for those facts that differ, which are then the record's. False: out of memory. */
bool record_change(struct record *record, const struct journal_facts *facts,
                   struct journal_text *text);
void record_write_durable(const struct granules *granules, struct journal_text *text);

/* *record is to be released in either case. *valid: how many of the bytes count; fewer than len
 * where the end is torn, after *lines lines. -EBADMSG or -ENOMEM with a sentence that begins with
 * `path` and the line. */
int record_read(struct record *record, struct digest *digest, const char *path, char *text,
                size_t len, size_t *valid, size_t *lines, struct blk_error *error);

#endif
