/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Endpoints as users write them:
 *
 *   iscsi://[user[:password]@]host[:port][,host[:port]...]/target-iqn/lun[?option=value&...]
 *   nfs://host/export/path[?option=value&...]
 *   null:SIZE  ram:SIZE  random:SIZE[?seed=N]  file:PATH  PATH
 *
 * We parse them ourselves: the libraries' parsers differ between versions, break on IPv6 literals,
 * and ignore options that they do not know.
 *
 * Grammar: RFC 3986 where there is an authority ("//"); %XX escapes are decoded everywhere but in
 * local paths without a scheme, which are taken as they are. What has no scheme is a local path;
 * a path with a colon before its first slash needs a leading "./" or "file:".
 */
#ifndef LUNFERRY_URL_H
#define LUNFERRY_URL_H

#include <stddef.h>
#include <stdint.h>

#include <lunferry/error.h>

struct url_host {
    char *host;    /* a name or a numeric address; IPv6 without brackets */
    uint16_t port; /* 0: not given */
};

struct url_param {
    char *name, *value; /* decoded; value is "" when there was no '=' */
};

/* An option that a scheme knows. */
struct url_option {
    const char *name;
    const char *help; /* "N: the port of ..." */
};

struct url {
    char *scheme;   /* lower case; "file" for a plain path */
    char *user;     /* NULL: none */
    char *password; /* NULL: none. Never printed */
    struct url_host *hosts;
    size_t host_count; /* 0 where the scheme has no authority */
    char *path;        /* decoded; with an authority it starts with '/' */
    struct url_param *params;
    size_t param_count;
    char *text; /* as written, but with the password replaced by "***": for messages */
};

/* Returns 0 or -EINVAL with a sentence that says what is wrong with `text` and what would be right.
 * *url is to be released in either case. */
int url_parse(const char *text, struct url *url, struct blk_error *error);
void url_release(struct url *url);

/* The same endpoint with another path (decoded; with an authority it starts with '/'), and with the same
 * user, password and options. 0 or -ENOMEM; *other is to be released in either case. */
int url_with_path(const struct url *url, const char *path, struct url *other);

/* Refuses options that are not in `known` (NULL-terminated; NULL: none are known), lists those that
 * are, and refuses an option that is given twice. */
int url_check_options(const struct url *url, const struct url_option *known,
                      struct blk_error *error);
/* The value, or NULL when the option is not given. */
const char *url_param(const struct url *url, const char *name);
/* Its value as a number in [min, max]; `otherwise` when not given; -EINVAL with a sentence. */
int url_param_number(const struct url *url, const char *name, uint64_t min, uint64_t max,
                     uint64_t otherwise, uint64_t *value, struct blk_error *error);

#endif
