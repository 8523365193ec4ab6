/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a journal says: struct record. */
#include "journal_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tracker.h"

#define VERSION 1

/* ---- Facts ------------------------------------------------------------------------------------ */

enum kind { TEXT, NUMBER, TIME, FLAG };

static const struct fact {
    const char *word;
    enum kind kind;
    size_t offset; /* in struct journal_facts: char *, uint64_t, int64_t, bool */
} facts_table[] = {
    {"source", TEXT, offsetof(struct journal_facts, source)},
    {"target", TEXT, offsetof(struct journal_facts, target)},
    {"holder", TEXT, offsetof(struct journal_facts, holder)},
    {"source-identity", TEXT, offsetof(struct journal_facts, source_identity)},
    {"source-size", NUMBER, offsetof(struct journal_facts, source_stamp.size)},
    {"source-mtime", TIME, offsetof(struct journal_facts, source_stamp.mtime_ns)},
    {"source-ctime", TIME, offsetof(struct journal_facts, source_stamp.ctime_ns)},
    {"source-session", NUMBER, offsetof(struct journal_facts, source_session)},
    {"target-identity", TEXT, offsetof(struct journal_facts, target_identity)},
    {"target-session", NUMBER, offsetof(struct journal_facts, target_session)},
    {"lanes", NUMBER, offsetof(struct journal_facts, lanes)},
    {"chunk", NUMBER, offsetof(struct journal_facts, chunk)},
    {"granule", NUMBER, offsetof(struct journal_facts, granule)},
    {"head", NUMBER, offsetof(struct journal_facts, head_len)},
    {"in-order", FLAG, offsetof(struct journal_facts, in_order)},
    {"bad", NUMBER, offsetof(struct journal_facts, bad)},
    {"verify", FLAG, offsetof(struct journal_facts, verify)},
    {"in-place", FLAG, offsetof(struct journal_facts, in_place)},
    {"overwrite", FLAG, offsetof(struct journal_facts, overwrite)},
    {"new-file", FLAG, offsetof(struct journal_facts, new_file)},
    {"temporary", TEXT, offsetof(struct journal_facts, temporary)},
    {"blanked", FLAG, offsetof(struct journal_facts, blanked)},
    {"reservation-key", NUMBER, offsetof(struct journal_facts, reservation_key)},
};

#define FACTS (sizeof(facts_table) / sizeof(facts_table[0]))

static char **text_of(const struct journal_facts *facts, const struct fact *fact)
{
    return (char **)(uintptr_t)((const char *)facts + fact->offset);
}

static uint64_t *number_of(const struct journal_facts *facts, const struct fact *fact)
{
    return (uint64_t *)(uintptr_t)((const char *)facts + fact->offset);
}

static int64_t *time_of(const struct journal_facts *facts, const struct fact *fact)
{
    return (int64_t *)(uintptr_t)((const char *)facts + fact->offset);
}

static bool *flag_of(const struct journal_facts *facts, const struct fact *fact)
{
    return (bool *)(uintptr_t)((const char *)facts + fact->offset);
}

static bool equal(const struct journal_facts *a, const struct journal_facts *b,
                  const struct fact *fact)
{
    const char *text_a, *text_b;

    switch (fact->kind) {
    case TEXT:
        text_a = *text_of(a, fact);
        text_b = *text_of(b, fact);
        return text_a && text_b ? strcmp(text_a, text_b) == 0 : text_a == text_b;
    case NUMBER:
        return *number_of(a, fact) == *number_of(b, fact);
    case TIME:
        return *time_of(a, fact) == *time_of(b, fact);
    case FLAG:
        return *flag_of(a, fact) == *flag_of(b, fact);
    }
    return false;
}

/* False: out of memory. */
static bool take(struct journal_facts *to, const struct journal_facts *from,
                 const struct fact *fact)
{
    char *text;

    switch (fact->kind) {
    case TEXT:
        text = *text_of(from, fact) ? strdup(*text_of(from, fact)) : NULL;
        if (*text_of(from, fact) && !text)
            return false;
        free(*text_of(to, fact));
        *text_of(to, fact) = text;
        break;
    case NUMBER:
        *number_of(to, fact) = *number_of(from, fact);
        break;
    case TIME:
        *time_of(to, fact) = *time_of(from, fact);
        break;
    case FLAG:
        *flag_of(to, fact) = *flag_of(from, fact);
        break;
    }
    return true;
}

/* A text that is not known has no field. */
static void write_fact(const struct journal_facts *facts, const struct fact *fact,
                       struct journal_text *text)
{
    char digits[24];

    text_line(text, fact->word);
    switch (fact->kind) {
    case TEXT:
        if (*text_of(facts, fact))
            text_field(text, *text_of(facts, fact));
        break;
    case NUMBER:
        text_number(text, *number_of(facts, fact));
        break;
    case TIME:
        snprintf(digits, sizeof(digits), "%" PRId64, *time_of(facts, fact));
        text_field(text, digits);
        break;
    case FLAG:
        text_field(text, *flag_of(facts, fact) ? "yes" : "no");
        break;
    }
    text_end(text);
}

/* ---- Numbers ---------------------------------------------------------------------------------- */

static bool parse_number(const char *text, uint64_t *number)
{
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool parse_time(const char *text, int64_t *time)
{
    char *end;

    errno = 0;
    *time = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

/* Returns 0, -EBADMSG or -ENOMEM. */
static int read_fact(struct journal_facts *facts, const struct fact *fact, const struct line *line)
{
    char **text = text_of(facts, fact), *copy = NULL;

    if (line->count > 1 || (line->count == 0 && fact->kind != TEXT))
        return -EBADMSG;
    switch (fact->kind) {
    case TEXT:
        if (line->count == 1 && !(copy = strdup(line->fields[0])))
            return -ENOMEM;
        free(*text);
        *text = copy;
        return 0;
    case NUMBER:
        return parse_number(line->fields[0], number_of(facts, fact)) ? 0 : -EBADMSG;
    case TIME:
        return parse_time(line->fields[0], time_of(facts, fact)) ? 0 : -EBADMSG;
    case FLAG:
        *flag_of(facts, fact) = strcmp(line->fields[0], "yes") == 0;
        return *flag_of(facts, fact) || strcmp(line->fields[0], "no") == 0 ? 0 : -EBADMSG;
    }
    return -EBADMSG;
}

/* ---- Records ---------------------------------------------------------------------------------- */

/* 0: they make no sense. */
static uint64_t count_granules(const struct journal_facts *facts)
{
    uint64_t size = facts->source_stamp.size, granule = facts->granule, count;

    if (!facts->source || !facts->target || size == 0 || granule < TRACKER_MIN_GRANULE ||
        (granule & (granule - 1)) != 0)
        return 0;
    count = (size - 1) / granule + 1;
    return count <= TRACKER_MAX_GRANULES ? count : 0;
}

int record_init(struct record *record, const struct journal_facts *facts, struct blk_error *error)
{
    uint64_t count = count_granules(facts);
    bool good = true;

    *record = (struct record){0};
    if (count == 0)
        return blk_error_set(error, EINVAL, "a journal needs endpoints, a size and a granule");
    for (size_t i = 0; i < FACTS && good; i++)
        good = take(&record->facts, facts, &facts_table[i]);
    if (!good || !granules_init(&record->durable, count))
        return blk_error_set(error, ENOMEM, "out of memory");
    return 0;
}

void record_release(struct record *record)
{
    for (size_t i = 0; i < FACTS; i++) {
        if (facts_table[i].kind == TEXT)
            free(*text_of(&record->facts, &facts_table[i]));
    }
    granules_release(&record->durable);
    *record = (struct record){0};
}

void record_write_durable(const struct granules *granules, struct journal_text *text)
{
    uint64_t first, count;

    for (uint64_t at = 0; granules_next(granules, at, &first, &count); at = first + count) {
        text_line(text, "durable");
        text_number(text, first);
        text_number(text, count);
        text_end(text);
    }
}

void record_write(const struct record *record, struct journal_text *text)
{
    text_line(text, "lunferry-journal");
    text_number(text, VERSION);
    text_end(text);
    for (size_t i = 0; i < FACTS; i++)
        write_fact(&record->facts, &facts_table[i], text);
    text_line(text, "start");
    text_end(text);
    record_write_durable(&record->durable, text);
}

bool record_change(struct record *record, const struct journal_facts *facts,
                   struct journal_text *text)
{
    for (size_t i = 0; i < FACTS; i++) {
        const struct fact *fact = &facts_table[i];

        if (equal(&record->facts, facts, fact))
            continue;
        if (!take(&record->facts, facts, fact))
            return false;
        write_fact(facts, fact, text);
    }
    return !text->failed;
}

/* ---- Reading ---------------------------------------------------------------------------------- */

static int read_durable(struct record *record, const struct line *line)
{
    struct granules *durable = &record->durable;
    uint64_t first, count;

    if (line->count != 2 || !parse_number(line->fields[0], &first) ||
        !parse_number(line->fields[1], &count) || first > durable->count ||
        count > durable->count - first)
        return -EBADMSG;
    granules_set(durable, first, count);
    return 0;
}

static int read_line(struct record *record, const struct line *line)
{
    bool started = record->durable.words != NULL;
    int status = -EBADMSG;

    if (strcmp(line->word, "durable") == 0 && started)
        return read_durable(record, line);
    if (strcmp(line->word, "start") == 0 && !started) {
        uint64_t count = count_granules(&record->facts);

        if (count == 0 || line->count != 0)
            return -EBADMSG;
        return granules_init(&record->durable, count) ? 0 : -ENOMEM;
    }
    for (size_t i = 0; i < FACTS; i++) {
        if (strcmp(line->word, facts_table[i].word) == 0)
            status = read_fact(&record->facts, &facts_table[i], line);
    }
    if (status == 0 && started && count_granules(&record->facts) != record->durable.count)
        status = -EBADMSG;
    return status;
}

static int damaged(struct blk_error *error, const char *path, size_t line)
{
    return blk_error_set(error, EBADMSG, "%s:%zu: this line of the journal is damaged", path, line);
}

static int read_version(const char *path, const struct line *line, struct blk_error *error)
{
    uint64_t version;

    if (strcmp(line->word, "lunferry-journal") != 0 || line->count != 1 ||
        !parse_number(line->fields[0], &version))
        return blk_error_set(error, EBADMSG, "%s:1: this is not the journal of a copy", path);
    if (version != VERSION)
        return blk_error_set(error, EBADMSG,
                             "%s:1: the journal has the form %" PRIu64
                             ", this lunferry knows form %d: go on with the one that wrote it",
                             path, version, VERSION);
    return 0;
}

int record_read(struct record *record, struct digest *digest, const char *path, char *text,
                size_t len, size_t *valid, size_t *lines, struct blk_error *error)
{
    struct line line;
    int status;

    *record = (struct record){0};
    *valid = *lines = 0;
    if (!line_next(digest, text, len, valid, &line))
        return blk_error_set(error, EBADMSG, "%s:1: this is not the journal of a copy", path);
    status = read_version(path, &line, error);
    if (status < 0)
        return status;
    for (*lines = 1; line_next(digest, text, len, valid, &line); ++*lines) {
        status = read_line(record, &line);
        if (status == -ENOMEM)
            return blk_error_set(error, ENOMEM, "out of memory");
        if (status < 0)
            return damaged(error, path, *lines + 1);
    }
    return record->durable.words ? 0 : damaged(error, path, *lines + 1);
}
