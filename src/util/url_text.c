/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "url_text.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* How much of a text a message quotes; the rest of its room is for what is wrong. */
#define QUOTE_MAX (URL_QUOTE - sizeof "...")

static const char REDACTED[] = "***";

/* ---- Spans ------------------------------------------------------------------------------------ */

struct span span_between(const char *start, const char *end)
{
    return (struct span){start, (size_t)(end - start)};
}

bool span_find(struct span span, char c, size_t *index)
{
    const char *found = span.len > 0 ? memchr(span.at, c, span.len) : NULL;

    if (found == NULL)
        return false;
    *index = (size_t)(found - span.at);
    return true;
}

bool span_find_last(struct span span, char c, size_t *index)
{
    const char *found = span.len > 0 ? memrchr(span.at, c, span.len) : NULL;

    if (found == NULL)
        return false;
    *index = (size_t)(found - span.at);
    return true;
}

struct span span_next(struct span *rest, char separator)
{
    struct span part = *rest;

    if (span_find(*rest, separator, &part.len)) {
        rest->at += part.len + 1;
        rest->len -= part.len + 1;
    } else {
        *rest = (struct span){NULL, 0};
    }
    return part;
}

/* ---- Redaction -------------------------------------------------------------------------------- */

/* Where an IPv6 literal that starts at `at` has its ']', or `at` when there is none: it stands where a
 * host may, holds what an address with a zone may, and ends where a host may. */
static size_t skip_literal(struct span span, size_t at)
{
    size_t end = at + 1;

    if (span.at[at] != '[' || (at > 0 && span.at[at - 1] != ','))
        return at;
    while (end < span.len &&
           (isalnum((unsigned char)span.at[end]) || strchr(":.%-_~", span.at[end]) != NULL))
        end++;
    return end + 1 < span.len && span.at[end] == ']' && strchr(":,/?", span.at[end + 1]) != NULL
               ? end
               : at;
}

/* The first ':' that belongs to no [IPv6 literal]. */
static bool find_plain_colon(struct span span, size_t *index)
{
    for (size_t i = 0; i < span.len; i++) {
        i = skip_literal(span, i);
        if (span.at[i] == ':') {
            *index = i;
            return true;
        }
    }
    return false;
}

/* Without an authority (a forgotten slash, perhaps) a ':' is not even asked for. */
bool url_find_password(enum url_form form, struct span rest, struct span *password)
{
    size_t at, colon;

    if (form == URL_LOCAL || !span_find_last(rest, '@', &at))
        return false;
    *password = (struct span){rest.at, at};
    if (find_plain_colon(*password, &colon)) {
        password->at += colon + 1;
        password->len -= colon + 1;
        return true;
    }
    return form == URL_BARE;
}

/* Options that we do not know either, but that hold secrets elsewhere (libiscsi's target_password):
 * they will be refused by name. */
static bool is_secret_option(struct span name)
{
    static const char *const words[] = {"passw", "secret"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t len = strlen(words[i]);

        for (size_t at = 0; at + len <= name.len; at++) {
            if (strncasecmp(name.at + at, words[i], len) == 0)
                return true;
        }
    }
    return false;
}

/* Appends span to the text that grows at *end; there is room. */
static void append(char **end, struct span span)
{
    if (span.len > 0)
        memcpy(*end, span.at, span.len);
    *end += span.len;
}

static void append_query(char **end, struct span query)
{
    const struct span redacted = {REDACTED, strlen(REDACTED)};

    while (query.at != NULL) {
        struct span value = span_next(&query, '&');
        struct span name = span_next(&value, '=');

        append(end, name);
        if (value.at != NULL) {
            append(end, (struct span){"=", 1});
            append(end, is_secret_option(name) ? redacted : value);
        }
        if (query.at != NULL)
            append(end, (struct span){"&", 1});
    }
}

/* What was found by its '@' may have been the start of an option's value, "?x-password=a@b": then
 * the rest of it, in *rest, is not to be shown either. */
static void skip_secret_option(struct span password, struct span *rest)
{
    size_t at;

    if (!span_find(password, '?', &at))
        return;
    password = span_between(password.at + at + 1, password.at + password.len);
    if (span_find_last(password, '&', &at))
        password = span_between(password.at + at + 1, password.at + password.len);
    if (!span_find(password, '=', &at) || !is_secret_option((struct span){password.at, at}))
        return;
    if (!span_find(*rest, '&', &at))
        at = rest->len;
    *rest = span_between(rest->at + at, rest->at + rest->len);
}

char *url_redact(enum url_form form, const char *text, struct span rest)
{
    /* Each secret value takes at least "secret=", so three stars fit in twice the room. */
    char *redacted = malloc(2 * strlen(text) + sizeof REDACTED);
    char *end = redacted;
    struct span password = {NULL, 0};
    size_t option;

    if (redacted == NULL)
        return NULL;
    if (url_find_password(form, rest, &password)) {
        append(&end, span_between(text, password.at));
        append(&end, (struct span){REDACTED, strlen(REDACTED)});
        rest = span_between(password.at + password.len, rest.at + rest.len);
        skip_secret_option(password, &rest);
    } else {
        append(&end, span_between(text, rest.at));
    }
    if (span_find(rest, '?', &option) ||
        (span_find(password, '?', &(size_t){0}) && span_find(rest, '&', &option))) {
        append(&end, (struct span){rest.at, option + 1});
        append_query(&end, span_between(rest.at + option + 1, rest.at + rest.len));
    } else {
        append(&end, rest);
    }
    *end = '\0';
    return redacted;
}

/* ---- Messages --------------------------------------------------------------------------------- */

const char *url_quote(char buf[URL_QUOTE], const char *text)
{
    size_t len = strlen(text);
    bool cut = len > QUOTE_MAX;

    if (cut) {
        len = QUOTE_MAX;
        while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--;
    }
    for (size_t i = 0; i < len; i++)
        buf[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    strcpy(buf + len, cut ? "..." : "");
    return buf;
}

int url_refuse(const struct url *url, struct blk_error *error, const char *format, ...)
{
    char quoted[URL_QUOTE], what[sizeof error->text];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return blk_error_set(error, EINVAL, "\"%s\": %s", url_quote(quoted, url->text), what);
}
