/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "journal_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKSUM 16 /* digits */

/* ---- Granules --------------------------------------------------------------------------------- */

static const unsigned BITS = 64;

bool granules_init(struct granules *granules, uint64_t count)
{
    granules->count = count;
    granules->words = calloc(count / BITS + 1, sizeof(granules->words[0]));
    return granules->words != NULL;
}

void granules_release(struct granules *granules)
{
    free(granules->words);
    *granules = (struct granules){0};
}

void granules_set(struct granules *granules, uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++)
        granules->words[i / BITS] |= UINT64_C(1) << i % BITS;
}

bool granules_add(struct granules *granules, struct granules *added, uint64_t first, uint64_t count)
{
    bool any = false;

    for (uint64_t i = first; i < first + count; i++) {
        uint64_t bit = UINT64_C(1) << i % BITS;

        any = any || !(granules->words[i / BITS] & bit);
        added->words[i / BITS] |= ~granules->words[i / BITS] & bit;
        granules->words[i / BITS] |= bit;
    }
    return any;
}

void granules_clear(struct granules *granules)
{
    memset(granules->words, 0, (granules->count / BITS + 1) * sizeof(granules->words[0]));
}

/* The first granule from `at` on that is set, or is not; `count` when there is none. */
static uint64_t find(const struct granules *granules, uint64_t at, bool set)
{
    const uint64_t none = set ? 0 : UINT64_MAX;

    while (at < granules->count) {
        uint64_t word = granules->words[at / BITS];

        if (at % BITS == 0 && word == none) {
            at += BITS;
            continue;
        }
        if ((word >> at % BITS & 1) == set)
            return at;
        at++;
    }
    return granules->count;
}

bool granules_next(const struct granules *granules, uint64_t from, uint64_t *first, uint64_t *count)
{
    uint64_t at = find(granules, from, true);

    if (at == granules->count)
        return false;
    *first = at;
    *count = find(granules, at, false) - at;
    return true;
}

/* ---- Lines, written --------------------------------------------------------------------------- */

static void checksum(struct digest *digest, const char *text, size_t len, char digits[DIGEST_TEXT])
{
    uint8_t result[DIGEST_SIZE];

    digest_of(digest, text, len, result);
    digest_text(digits, result);
}

void text_init(struct journal_text *text, struct digest *digest)
{
    *text = (struct journal_text){.digest = digest};
}

void text_release(struct journal_text *text)
{
    free(text->bytes);
    *text = (struct journal_text){0};
}

static void add(struct journal_text *text, const char *bytes, size_t len)
{
    if (!text->failed && text->len + len > text->capacity) {
        size_t capacity = 2 * (text->len + len) + 256;
        char *more = realloc(text->bytes, capacity);

        text->failed = !more;
        if (more) {
            text->bytes = more;
            text->capacity = capacity;
        }
    }
    if (text->failed)
        return;
    memcpy(text->bytes + text->len, bytes, len);
    text->len += len;
}

void text_line(struct journal_text *text, const char *word)
{
    char room[CHECKSUM + 1]; /* for the checksum and a space */

    text->line = text->len;
    memset(room, ' ', sizeof(room));
    add(text, room, sizeof(room));
    add(text, word, strlen(word));
}

void text_field(struct journal_text *text, const char *value)
{
    add(text, " ", 1);
    for (; *value; value++) {
        unsigned char c = (unsigned char)*value;
        char escape[4];

        if (c <= ' ' || c == '%' || c == 0x7f) {
            snprintf(escape, sizeof(escape), "%%%02X", c);
            add(text, escape, 3);
        } else {
            add(text, value, 1);
        }
    }
}

void text_number(struct journal_text *text, uint64_t value)
{
    char digits[24];

    snprintf(digits, sizeof(digits), "%" PRIu64, value);
    text_field(text, digits);
}

void text_end(struct journal_text *text)
{
    char digits[DIGEST_TEXT], *line;

    if (!text->failed) {
        line = text->bytes + text->line;
        checksum(text->digest, line + CHECKSUM + 1, text->len - text->line - CHECKSUM - 1, digits);
        memcpy(line, digits, CHECKSUM);
    }
    add(text, "\n", 1);
}

void text_append(struct journal_text *text, const struct journal_text *more)
{
    if (more->failed)
        text->failed = true;
    else if (more->len > 0)
        add(text, more->bytes, more->len);
}

/* ---- Lines, read ------------------------------------------------------------------------------ */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* What text_field() has made of it; false where it never makes such a thing. */
static bool decode(char *field)
{
    char *out = field;

    while (*field) {
        int value = (unsigned char)*field++;

        if (value == '%') {
            int high = hex_value(field[0]), low = high < 0 ? -1 : hex_value(field[1]);

            if (low < 0 || (high == 0 && low == 0))
                return false;
            value = high << 4 | low;
            field += 2;
        }
        *out++ = (char)value;
    }
    *out = '\0';
    return true;
}

static bool split(char *text, struct line *line)
{
    line->word = strsep(&text, " ");
    for (line->count = 0; text; line->count++) {
        if (line->count == LINE_FIELDS)
            return false;
        line->fields[line->count] = strsep(&text, " ");
        if (!decode(line->fields[line->count]))
            return false;
    }
    return true;
}

bool line_next(struct digest *digest, char *text, size_t len, size_t *at, struct line *line)
{
    char *start = text + *at, *end = *at < len ? memchr(start, '\n', len - *at) : NULL;
    char digits[DIGEST_TEXT];
    size_t covered;

    if (!end || end - start <= CHECKSUM + 1 || start[CHECKSUM] != ' ')
        return false;
    covered = (size_t)(end - start) - CHECKSUM - 1;
    checksum(digest, start + CHECKSUM + 1, covered, digits);
    if (memcmp(start, digits, CHECKSUM) != 0 || memchr(start + CHECKSUM + 1, '\0', covered))
        return false;
    *end = '\0';
    if (!split(start + CHECKSUM + 1, line))
        return false;
    *at = (size_t)(end + 1 - text);
    return true;
}
