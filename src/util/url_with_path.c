/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Another path at the same endpoint. */
#include <lunferry/url.h>

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Returns false when out of memory. */
static bool copy_text(const char *text, char **copy)
{
    *copy = text ? strdup(text) : NULL;
    return *copy || !text;
}

static bool copy_hosts(const struct url *url, struct url *other)
{
    if (url->host_count == 0)
        return true;
    other->hosts = calloc(url->host_count, sizeof(*other->hosts));
    if (!other->hosts)
        return false;
    for (; other->host_count < url->host_count; other->host_count++) {
        const struct url_host *from = &url->hosts[other->host_count];
        struct url_host *to = &other->hosts[other->host_count];

        to->port = from->port;
        if (!copy_text(from->host, &to->host))
            return false;
    }
    return true;
}

static bool copy_params(const struct url *url, struct url *other)
{
    if (url->param_count == 0)
        return true;
    other->params = calloc(url->param_count, sizeof(*other->params));
    if (!other->params)
        return false;
    while (other->param_count < url->param_count) {
        const struct url_param *from = &url->params[other->param_count];
        struct url_param *to = &other->params[other->param_count++];

        if (!copy_text(from->name, &to->name) || !copy_text(from->value, &to->value))
            return false;
    }
    return true;
}

/* What may stand in a URL's path as it is (RFC 3986 3.3). */
static bool is_plain(unsigned char c)
{
    return isalnum(c) || (c != '\0' && strchr("/-._~!$&'()*+,;=:@", c));
}

static char *escape(const char *path)
{
    static const char digits[] = "0123456789ABCDEF";
    char *text = malloc(3 * strlen(path) + 1), *end = text;

    if (!text)
        return NULL;
    for (; *path; path++) {
        unsigned char c = (unsigned char)*path;

        if (is_plain(c)) {
            *end++ = *path;
            continue;
        }
        *end++ = '%';
        *end++ = digits[c >> 4];
        *end++ = digits[c & 15];
    }
    *end = '\0';
    return text;
}

/* As a user would write it. */
static char *local_text(const char *path)
{
    bool like_scheme = path[strcspn(path, ":/")] == ':';
    char *text;

    return asprintf(&text, "%s%s", like_scheme ? "./" : "", path) < 0 ? NULL : text;
}

/* What stands before the path and behind it, and so whatever was made unreadable in it, stays. */
static char *text_of(const struct url *url, const char *path)
{
    const char *slashes = strstr(url->text, "://");
    const char *start = slashes ? slashes + 3 : strchr(url->text, ':') + 1;
    const char *query = strchr(start, '?');
    char *escaped, *text;

    if (slashes)
        start += strcspn(start, "/?");
    escaped = escape(path);
    if (!escaped || asprintf(&text, "%.*s%s%s", (int)(start - url->text), url->text, escaped,
                             query ? query : "") < 0)
        text = NULL;
    free(escaped);
    return text;
}

int url_with_path(const struct url *url, const char *path, struct url *other)
{
    bool good;

    memset(other, 0, sizeof(*other));
    good = copy_text(url->scheme, &other->scheme) && copy_text(url->user, &other->user) &&
           copy_text(url->password, &other->password) && copy_text(path, &other->path) &&
           copy_hosts(url, other) && copy_params(url, other);
    other->text = strcmp(url->scheme, "file") == 0 ? local_text(path) : text_of(url, path);
    return good && other->text ? 0 : -ENOMEM;
}
