/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parser. url_text.h says what keeps passwords out of its messages. */
#include <lunferry/url.h>

#include "url_text.h"

#include <lunferry/units.h>

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define URL_MAX_LENGTH ((size_t)8192)
#define HOST_MAX       ((size_t)255) /* RFC 1035 2.3.4 */

struct parser {
    struct url *url;
    struct blk_error *error;
    enum url_form form;
    struct span scheme, authority, path;
    struct span query; /* not there without a '?' */
};

static int out_of_memory(struct blk_error *error)
{
    return blk_error_set(error, ENOMEM, "out of memory");
}

/* Frees what held a password, so that it does not stay in memory and in core dumps. */
static void free_secret(char *secret)
{
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

/* ---- Escapes ---------------------------------------------------------------------------------- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20; /* lower case */
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* *decoded is new and belongs to the caller. `what` is the part's name in messages. */
static int decode(const struct parser *parser, struct span span, const char *what, char **decoded)
{
    char *out = calloc(1, span.len + 1);
    size_t len = 0;

    if (out == NULL)
        return out_of_memory(parser->error);
    for (size_t i = 0; i < span.len; i++) {
        int high, low;

        if (span.at[i] != '%') {
            out[len++] = span.at[i];
            continue;
        }
        high = i + 1 < span.len ? hex_value(span.at[i + 1]) : -1;
        low = i + 2 < span.len ? hex_value(span.at[i + 2]) : -1;
        if (high < 0 || low < 0) {
            free_secret(out);
            return url_refuse(
                parser->url, parser->error,
                "in %s, a '%%' is not followed by two hexadecimal digits; write %%25 for "
                "'%%' itself",
                what);
        }
        if (high == 0 && low == 0) {
            free_secret(out);
            return url_refuse(parser->url, parser->error, "%s must not contain %%00", what);
        }
        out[len++] = (char)(high << 4 | low);
        i += 2;
    }
    *decoded = out;
    return 0;
}

/* ---- The authority ---------------------------------------------------------------------------- */

static int parse_userinfo(const struct parser *parser, struct span userinfo)
{
    struct span password = userinfo, user = span_next(&password, ':');
    int status;

    if (user.len == 0)
        return url_refuse(
            parser->url, parser->error,
            "there is no user name before the '@'; write user@host, or the host alone");
    status = decode(parser, user, "the user name", &parser->url->user);
    if (status < 0 || password.at == NULL)
        return status;
    if (password.len == 0)
        return url_refuse(parser->url, parser->error,
                          "the password is empty; without one, write user@host");
    return decode(parser, password, "the password", &parser->url->password);
}

/* "host 2 of 3", or "the host" where there is only one: see the top for why it is not its name. */
static const char *host_words(const struct parser *parser, char buf[56], size_t count)
{
    if (count == 1)
        return "the host";
    snprintf(buf, 56, "host %zu of %zu", parser->url->host_count, count);
    return buf;
}

static int parse_port(const struct parser *parser, struct span digits, const char *which,
                      uint16_t *port)
{
    char text[8] = "";
    uint64_t number;

    if (digits.len == 0)
        return url_refuse(parser->url, parser->error,
                          "the port of %s is missing after ':'; without one, leave out the ':' too",
                          which);
    if (digits.len < sizeof text)
        memcpy(text, digits.at, digits.len);
    if (units_parse_number(text, 1, UINT16_MAX, &number, NULL) < 0)
        return url_refuse(parser->url, parser->error,
                          "the port of %s is not a number from 1 to 65535", which);
    *port = (uint16_t)number;
    return 0;
}

/* What stands between the brackets: an address, and perhaps a zone after "%25" (RFC 6874). */
static int check_ipv6(const struct parser *parser, const char *literal, const char *which)
{
    const char *zone = strchrnul(literal, '%');
    char address[INET6_ADDRSTRLEN] = "";
    struct in6_addr binary;

    if ((size_t)(zone - literal) < sizeof address)
        memcpy(address, literal, (size_t)(zone - literal));
    if (inet_pton(AF_INET6, address, &binary) != 1)
        return url_refuse(
            parser->url, parser->error,
            "what stands in the brackets of %s is not an IPv6 address, like [2001:db8::1]", which);
    if (zone[0] == '%' && (zone[1] == '\0' || strlen(zone + 1) > 63))
        return url_refuse(
            parser->url, parser->error,
            "the zone of the IPv6 address is not a name; write it like [fe80::1%%25eth0]");
    return 0;
}

static int check_name(const struct parser *parser, const char *name, const char *which)
{
    if (strlen(name) > HOST_MAX)
        return url_refuse(parser->url, parser->error, "the name of %s is longer than %zu bytes",
                          which, HOST_MAX);
    for (; *name != '\0'; name++) {
        /* Bytes from 0x80 are left to the resolver, which may know international names. */
        if ((unsigned char)*name < 0x80 && !isalnum((unsigned char)*name) &&
            strchr("-._", *name) == NULL)
            return url_refuse(parser->url, parser->error,
                              "the name of %s has other characters than letters, digits, '.', '-' "
                              "and '_'",
                              which);
    }
    return 0;
}

/* Splits "[address]:port" or "name:port". port.at is NULL where there is no ':'. */
static int split_host(const struct parser *parser, struct span part, const char *which,
                      struct span *host, struct span *port)
{
    size_t close, more;

    if (part.len == 0)
        return url_refuse(parser->url, parser->error, "%s is missing", which);
    *port = part;
    if (part.at[0] != '[') {
        *host = span_next(port, ':');
        if (port->at != NULL && span_find(*port, ':', &more))
            return url_refuse(parser->url, parser->error,
                              "%s has more than one ':'; an IPv6 address stands in brackets, like "
                              "[2001:db8::1]:3260",
                              which);
        if (host->len == 0)
            return url_refuse(parser->url, parser->error, "%s is missing before its ':'", which);
        return 0;
    }
    if (!span_find(part, ']', &close))
        return url_refuse(parser->url, parser->error, "the IPv6 address is not closed with ']'");
    *host = (struct span){part.at + 1, close - 1};
    *port = (struct span){part.at + close + 1, part.len - close - 1};
    if (port->len == 0) {
        port->at = NULL;
        return 0;
    }
    if (port->at[0] != ':')
        return url_refuse(parser->url, parser->error,
                          "after the ']' of an IPv6 address only ':' and a port may follow");
    port->at++;
    port->len--;
    return 0;
}

static int parse_host(const struct parser *parser, struct span part, size_t count)
{
    struct url_host *entry = &parser->url->hosts[parser->url->host_count++];
    bool ipv6 = part.len > 0 && part.at[0] == '[';
    char buf[56];
    const char *which = host_words(parser, buf, count);
    struct span host = {NULL, 0}, port = {NULL, 0};
    int status = split_host(parser, part, which, &host, &port);

    if (status == 0)
        status = decode(parser, host, which, &entry->host);
    if (status == 0)
        status =
            ipv6 ? check_ipv6(parser, entry->host, which) : check_name(parser, entry->host, which);
    if (status == 0 && port.at != NULL)
        status = parse_port(parser, port, which, &entry->port);
    return status;
}

static int parse_hosts(const struct parser *parser, struct span list)
{
    size_t count = 1;
    int status = 0;

    for (size_t i = 0; i < list.len; i++)
        count += list.at[i] == ',';
    parser->url->hosts = calloc(count, sizeof parser->url->hosts[0]);
    if (parser->url->hosts == NULL)
        return out_of_memory(parser->error);
    while (status == 0 && parser->url->host_count < count)
        status = parse_host(parser, span_next(&list, ','), count);
    return status;
}

static int parse_authority(const struct parser *parser)
{
    struct span hosts = parser->authority;
    size_t at;
    int status;

    if (span_find_last(hosts, '@', &at)) {
        status = parse_userinfo(parser, (struct span){hosts.at, at});
        if (status < 0)
            return status;
        hosts.at += at + 1;
        hosts.len -= at + 1;
    }
    return parse_hosts(parser, hosts);
}

/* ---- The query -------------------------------------------------------------------------------- */

static int parse_param(const struct parser *parser, struct span option)
{
    struct url_param *param = &parser->url->params[parser->url->param_count++];
    struct span value = option, name = span_next(&value, '=');
    int status;

    if (name.len == 0)
        return url_refuse(parser->url, parser->error,
                          "an option has no name; options are written ?name=value&name=value");
    status = decode(parser, name, "an option's name", &param->name);
    if (status == 0)
        status = decode(parser, value, "an option's value", &param->value);
    return status;
}

static int parse_query(const struct parser *parser)
{
    struct span rest = parser->query;
    size_t count = 1;
    int status = 0;

    for (size_t i = 0; i < rest.len; i++)
        count += rest.at[i] == '&';
    parser->url->params = calloc(count, sizeof parser->url->params[0]);
    if (parser->url->params == NULL)
        return out_of_memory(parser->error);
    while (status == 0 && parser->url->param_count < count)
        status = parse_param(parser, span_next(&rest, '&'));
    return status;
}

/* ---- The whole -------------------------------------------------------------------------------- */

/* Returns the ':' that ends a scheme, or NULL: a local path. */
static const char *scheme_end(const char *text)
{
    const char *end = text + strcspn(text, ":/");

    return *end == ':' ? end : NULL;
}

static bool is_scheme(struct span scheme)
{
    if (scheme.len == 0 || !isalpha((unsigned char)scheme.at[0]))
        return false;
    for (size_t i = 1; i < scheme.len; i++) {
        if (!isalnum((unsigned char)scheme.at[i]) && strchr("+-.", scheme.at[i]) == NULL)
            return false;
    }
    return true;
}

static bool is_file_scheme(struct span scheme)
{
    return scheme.len == 4 && strncasecmp(scheme.at, "file", 4) == 0;
}

/* Fills the parser's form and spans; returns what follows "scheme:" or "scheme://". */
static struct span split(struct parser *parser, const char *text, const char *colon)
{
    const char *rest = colon + 1, *at = rest, *end = text + strlen(text);

    parser->scheme = span_between(text, colon);
    parser->form = is_file_scheme(parser->scheme) ? URL_LOCAL : URL_BARE;
    if (strncmp(rest, "//", 2) == 0) {
        rest += 2;
        at = rest + strcspn(rest, "/?");
        parser->authority = span_between(rest, at);
        /* "file:///path" is the one scheme whose authority may be empty (RFC 8089). */
        if (parser->form != URL_LOCAL || parser->authority.len > 0)
            parser->form = URL_AUTHORITY;
    }
    parser->path = span_between(at, at + strcspn(at, "?"));
    at = parser->path.at + parser->path.len;
    if (*at == '?')
        parser->query = span_between(at + 1, end);
    return span_between(rest, end);
}

/* Takes over `redacted`; from here on, url_refuse() can be used. */
static int start_url(const struct parser *parser, struct span scheme, char *redacted)
{
    struct url *url = parser->url;

    url->text = redacted;
    url->scheme = strndup(scheme.at, scheme.len);
    if (url->scheme == NULL || url->text == NULL)
        return out_of_memory(parser->error);
    for (char *c = url->scheme; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    return 0;
}

/* A local path is shown as it is, but for one that was to be a URL: "iscsi//me:password@host/...". */
static char *redact_plain(const char *text)
{
    const char *slashes = strstr(text, "//");

    if (slashes == NULL || slashes == text || memchr(text, '/', (size_t)(slashes - text)) != NULL)
        return strdup(text);
    return url_redact(URL_AUTHORITY, text, span_between(slashes + 2, text + strlen(text)));
}

static int parse_plain(const struct parser *parser, const char *text)
{
    const char *scheme = strcmp(text, "-") == 0 ? "stdio" : "file";
    int status = start_url(parser, (struct span){scheme, strlen(scheme)}, redact_plain(text));

    if (status < 0)
        return status;
    parser->url->path = strdup(text);
    return parser->url->path != NULL ? 0 : out_of_memory(parser->error);
}

/* Without an authority, only what would be taken for an option and quoted matters. */
static bool holds_question(const struct parser *parser, struct span password)
{
    return parser->query.at != NULL && password.at < parser->query.at &&
           password.at + password.len >= parser->query.at;
}

/* The rule that redacts and the grammar must mean the same password. */
static int check_password(const struct parser *parser, struct span rest)
{
    struct span password;

    if (!url_find_password(parser->form, rest, &password))
        return 0;
    if (parser->form == URL_AUTHORITY
            ? password.at + password.len < parser->authority.at + parser->authority.len
            : !holds_question(parser, password))
        return 0;
    return url_refuse(
        parser->url, parser->error,
        "a '/' or '?' stands between a ':' and an '@'; if a password is meant, write %%2F "
        "for '/' and %%3F for '?' in it, else write %%40 for '@'");
}

static int parse_parts(const struct parser *parser, struct span rest)
{
    struct span path = parser->path;
    int status = check_password(parser, rest);

    if (status < 0)
        return status;
    if (parser->form == URL_AUTHORITY) {
        status = parse_authority(parser);
        if (path.len == 0)
            path = (struct span){"/", 1};
    } else if (path.len == 0) {
        return url_refuse(parser->url, parser->error, "nothing follows \"%s:\"",
                          parser->url->scheme);
    }
    if (status == 0)
        status = decode(parser, path, "the path", &parser->url->path);
    if (status == 0 && parser->query.at != NULL)
        status = parse_query(parser);
    return status;
}

static int parse_with_scheme(struct parser *parser, const char *text, const char *colon)
{
    struct span rest = split(parser, text, colon);
    int status = start_url(parser, parser->scheme, url_redact(parser->form, text, rest));

    if (status < 0)
        return status;
    if (!is_scheme(parser->scheme))
        return url_refuse(
            parser->url, parser->error,
            "what stands before the ':' is no scheme like \"nfs\"; for a file of this "
            "name, write ./ in front");
    return parse_parts(parser, rest);
}

int url_parse(const char *text, struct url *url, struct blk_error *error)
{
    struct parser parser = {.url = url, .error = error};
    size_t len = strlen(text);
    const char *colon;

    memset(url, 0, sizeof *url);
    if (len == 0)
        return blk_error_set(error, EINVAL,
                             "an empty name; write a path or a URL, like nfs://host/export/file");
    if (len > URL_MAX_LENGTH)
        return blk_error_set(error, EINVAL,
                             "a path or URL of %zu bytes is too long: at most %zu are possible",
                             len, URL_MAX_LENGTH);
    colon = scheme_end(text);
    return colon == NULL ? parse_plain(&parser, text) : parse_with_scheme(&parser, text, colon);
}

void url_release(struct url *url)
{
    free(url->scheme);
    free_secret(url->user);
    free_secret(url->password);
    for (size_t i = 0; i < url->host_count; i++)
        free(url->hosts[i].host);
    free(url->hosts);
    free(url->path);
    for (size_t i = 0; i < url->param_count; i++) {
        free(url->params[i].name);
        free_secret(url->params[i].value);
    }
    free(url->params);
    free(url->text);
    memset(url, 0, sizeof *url);
}
