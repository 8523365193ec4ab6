/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pieces of a URL's text, and how it may be shown. Private to src/util/url*.c.
 *
 * A password must not reach any message, not even when the URL is wrong: then nobody knows which
 * part of it was meant to be the password. So one rule, url_find_password(), finds it before
 * anything is parsed; the parser refuses what that rule and the grammar would see differently; and
 * complaints quote the redacted text as a whole and never a piece of the authority.
 */
#ifndef URL_TEXT_H
#define URL_TEXT_H

#include <lunferry/url.h>

#include <stdbool.h>
#include <stddef.h>

/* What follows the scheme. */
enum url_form {
    URL_LOCAL,     /* a path, which may hold any character and has no password */
    URL_BARE,      /* ram:64M */
    URL_AUTHORITY, /* nfs://host/path */
};

/* A piece of a text; at is NULL for a piece that is not there, which is not the same as empty. */
struct span {
    const char *at;
    size_t len;
};

struct span span_between(const char *start, const char *end);
/* The first and the last c. */
bool span_find(struct span span, char c, size_t *index);
bool span_find_last(struct span span, char c, size_t *index);
/* Cuts off the part before `separator` and leaves what follows it in *rest, which is not there
 * after the last part. */
struct span span_next(struct span *rest, char separator);

/* What has to be taken for a password in `rest`, all that follows "scheme:" or "scheme://": from the
 * first ':' to the last '@', however many '/' and '?' stand between them, for these are what people
 * forget to escape. */
bool url_find_password(enum url_form form, struct span rest, struct span *password);

/* url->text: a new string, or NULL when out of memory. `rest` is the end of `text`. */
char *url_redact(enum url_form form, const char *text, struct span rest);

/* A short form of `text` that can stand in a message: cut, but not inside a UTF-8 character, and
 * without anything that a terminal would obey. Returns buf. */
#define URL_QUOTE 168
const char *url_quote(char buf[URL_QUOTE], const char *text);

/* "<url->text>": <what is wrong with it>. Returns -EINVAL. */
int url_refuse(const struct url *url, struct blk_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
