/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image_names.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <lunferry/driver.h>

#define QUOTE_MAX 120 /* bytes of a name in a message */

const char *image_quote(char buf[IMAGE_QUOTE], const char *name)
{
    size_t len = strlen(name), at = 0;
    bool cut = len > QUOTE_MAX;

    if (cut) {
        len = QUOTE_MAX;
        while (len > 0 && ((unsigned char)name[len] & 0xc0) == 0x80) /* inside of a character */
            len--;
    }
    buf[at++] = '"';
    for (size_t i = 0; i < len; i++)
        buf[at++] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
    strcpy(buf + at, cut ? "...\"" : "\"");
    return buf;
}

/* ---- Paths ------------------------------------------------------------------------------------ */

/* A path without "", "." and "..": how far it goes up first, and then down. */
struct path {
    bool from_root;
    size_t ups; /* never from the root: there is nothing above it */
    char *down; /* "a/b"; "": nothing */
};

/* Takes the last component away. False: there is none. */
static bool drop_last(char *down, size_t *len)
{
    if (*len == 0)
        return false;
    while (*len > 0 && down[*len - 1] != '/')
        --*len;
    if (*len > 0)
        --*len; /* the slash */
    return true;
}

static int work_out(const char *text, struct path *path)
{
    size_t len = 0, part;

    *path = (struct path){.from_root = text[0] == '/', .down = malloc(strlen(text) + 2)};
    if (!path->down)
        return -ENOMEM;
    for (; *text; text += part) {
        part = strcspn(text, "/");
        if (part == 0) {
            part = 1; /* the slash */
        } else if (part == 2 && memcmp(text, "..", 2) == 0) {
            if (!drop_last(path->down, &len) && !path->from_root)
                path->ups++;
        } else if (part != 1 || text[0] != '.') {
            if (len > 0)
                path->down[len++] = '/';
            memcpy(path->down + len, text, part);
            len += part;
        }
    }
    path->down[len] = '\0';
    return 0;
}

/* By whole components: "/images" holds "/images/a" and not "/images-b". */
static bool path_holds(const struct path *prefix, const struct path *path)
{
    size_t len = strlen(prefix->down);

    return prefix->from_root == path->from_root && prefix->ups == path->ups &&
           strncmp(prefix->down, path->down, len) == 0 &&
           (len == 0 || path->down[len] == '/' || path->down[len] == '\0');
}

/* -1: out of memory. */
static int text_holds(const char *prefix, const char *text)
{
    struct path a = {.down = NULL}, b = {.down = NULL};
    int holds = -1;

    if (work_out(prefix, &a) == 0 && work_out(text, &b) == 0)
        holds = path_holds(&a, &b);
    free(a.down);
    free(b.down);
    return holds;
}

/* ---- What is allowed -------------------------------------------------------------------------- */

static bool has_scheme(const char *name)
{
    return name[strcspn(name, ":/")] == ':';
}

static bool is_relative(const char *name)
{
    return name[0] != '/' && !has_scheme(name);
}

static bool same_text(const char *a, const char *b)
{
    return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static bool same_endpoint(const struct url *a, const struct url *b)
{
    if (strcmp(a->scheme, b->scheme) != 0 || !same_text(a->user, b->user) ||
        a->host_count != b->host_count || a->param_count != b->param_count)
        return false;
    for (size_t i = 0; i < a->host_count; i++) {
        if (strcasecmp(a->hosts[i].host, b->hosts[i].host) != 0 ||
            a->hosts[i].port != b->hosts[i].port)
            return false;
    }
    for (size_t i = 0; i < a->param_count; i++) {
        if (strcmp(a->params[i].name, b->params[i].name) != 0 ||
            strcmp(a->params[i].value, b->params[i].value) != 0)
            return false;
    }
    return true;
}

/* Does one of the prefixes allow it? `url`: where a name that is not relative leads; else NULL. */
static int is_allowed(const struct image_name *name, const struct url *url)
{
    const struct image_choice *choice = name->choice;
    int allowed = 0;

    for (size_t i = 0; i < choice->allowed_count && allowed == 0; i++) {
        const char *prefix = choice->allowed[i];
        struct url parsed;

        if (strcmp(prefix, "any") == 0)
            return 1;
        if (!url && is_relative(prefix))
            allowed = text_holds(prefix, name->name);
        if (!url || is_relative(prefix))
            continue;
        if (url_parse(prefix, &parsed, NULL) == 0 && same_endpoint(&parsed, url))
            allowed = text_holds(parsed.path ? parsed.path : "", url->path ? url->path : "");
        url_release(&parsed);
    }
    return allowed;
}

/* What the user would have to say; "" where that is nothing to be copied from a message. */
static const char *suggestion(char buf[IMAGE_QUOTE], const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%";
    const char *slash = strrchr(name, '/');
    size_t len = slash ? (size_t)(slash - name) : strlen(name);

    if (slash && (len == 0 || name[len - 1] == ':'))
        len++; /* the slash is all of the directory */
    if (strspn(name, plain) < len || strchr(name, '?') || len > QUOTE_MAX)
        return "PREFIX";
    memcpy(buf, name, len);
    buf[len] = '\0';
    return buf;
}

static int refuse(const struct image_name *name, struct blk_error *error, const char *why)
{
    char quoted[IMAGE_QUOTE], wanted[IMAGE_QUOTE];

    return blk_error_set(
        error, EPERM, "its %s is %s, %s; if that is meant, --allow-backing=%s allows it",
        name->what, image_quote(quoted, name->name), why, suggestion(wanted, name->name));
}

static int cannot_be(const struct image_name *name, struct blk_error *error, const char *why)
{
    char quoted[IMAGE_QUOTE];

    return blk_error_set(error, EINVAL, "its %s is %s, %s", name->what,
                         image_quote(quoted, name->name), why);
}

static int out_of_memory(struct blk_error *error)
{
    return blk_error_set(error, ENOMEM, "out of memory");
}

/* ---- Where it leads --------------------------------------------------------------------------- */

static bool is_local(const struct url *url)
{
    return strcmp(url->scheme, "file") == 0;
}

static bool has_directory(const struct url *url)
{
    return is_local(url) || strcmp(url->scheme, "nfs") == 0;
}

/* Before a path on a server: two slashes say that it exports its root (drivers/nfs), which has to be so where
 * only one component is left. */
static const char *root_of(const struct url *url, const struct path *path)
{
    bool nfs = strcmp(url->scheme, "nfs") == 0;

    return nfs && (strncmp(url->path, "//", 2) == 0 || !strchr(path->down, '/')) ? "//" : "/";
}

/* Beside the image. What goes up is worked out here for a server, and by the kernel for a local path,
 * which may lead through symbolic links. */
static int beside(const struct url *image, const struct path *path, struct url *url)
{
    const char *slash = strrchr(image->path, '/');
    int dir = slash ? (int)(slash - image->path) + 1 : 0, status = -ENOMEM;
    char *joined = NULL, *ups = calloc(path->ups + 1, 3);
    struct path plain = {.down = NULL};

    for (size_t i = 0; ups && i < path->ups; i++)
        strcat(ups, "../");
    if (ups && asprintf(&joined, "%.*s%s%s", dir, image->path, ups, path->down) < 0)
        joined = NULL;
    if (joined && is_local(image)) {
        status = url_with_path(image, joined, url);
    } else if (joined && work_out(joined, &plain) == 0) {
        free(joined);
        if (asprintf(&joined, "%s%s", root_of(image, &plain), plain.down) < 0)
            joined = NULL;
        else
            status = url_with_path(image, joined, url);
    }
    free(plain.down);
    free(joined);
    free(ups);
    return status;
}

static int resolve_relative(const struct image_name *name, struct url *url, struct blk_error *error)
{
    struct path path;
    int status = work_out(name->name, &path), allowed = 0;

    if (status == 0)
        allowed = is_allowed(name, NULL);
    if (status < 0 || allowed < 0)
        status = out_of_memory(error);
    else if (path.down[0] == '\0')
        status = cannot_be(name, error, "which is the name of a directory");
    else if (!has_directory(name->image))
        status = cannot_be(name, error,
                           "a relative name, and nothing lies beside an image that is not a file; "
                           "`qemu-img rebase -u' gives it a path from the root or a URL");
    else if (name->bare && !allowed)
        status = refuse(name, error,
                        "a relative name, and beside a block device lie other people's disks");
    else if (path.ups > 0 && !allowed)
        status = refuse(name, error, "which lies outside of the image's own directory");
    else if (beside(name->image, &path, url) < 0)
        status = out_of_memory(error);
    free(path.down);
    return status;
}

static bool is_ours(const char *name)
{
    size_t len = strcspn(name, ":");
    char scheme[32];

    if (len >= sizeof(scheme))
        return false;
    for (size_t i = 0; i < len; i++)
        scheme[i] = (char)tolower((unsigned char)name[i]);
    scheme[len] = '\0';
    return blk_driver_find(scheme) != NULL;
}

/* Without "." and "..": what was allowed is what is opened. */
static int straighten(struct url *url)
{
    struct url other;
    struct path path;
    char *text = NULL;
    int status = -ENOMEM;

    if (!url->path || !has_directory(url))
        return 0;
    if (work_out(url->path, &path) == 0 && path.ups == 0 &&
        asprintf(&text, "%s%s", path.from_root ? root_of(url, &path) : "", path.down) >= 0) {
        status = url_with_path(url, text, &other);
        url_release(url);
        *url = other;
        free(text);
    } else if (path.down && path.ups > 0) {
        status = 0; /* a local one that only "any" or the same ups allow */
    }
    free(path.down);
    return status;
}

static int resolve_endpoint(const struct image_name *name, struct url *url, struct blk_error *error)
{
    struct blk_error why;
    int status = 0, allowed;

    if (has_scheme(name->name) && !is_ours(name->name))
        return cannot_be(name, error,
                         "in the way of a driver of QEMU; only plain names and the URLs of "
                         "`lunferry --help' are opened, and `qemu-img rebase -u' gives it one");
    if (url_parse(name->name, url, &why) < 0 || blk_check_url(url, &why) < 0)
        return blk_error_set(error, EINVAL, "its %s cannot be opened: %s", name->what, why.text);
    allowed = is_allowed(name, url);
    if (allowed == 0)
        return refuse(name, error,
                      has_scheme(name->name) ? "a URL" : "a path from the root of this machine");
    if (allowed > 0)
        status = straighten(url);
    return allowed < 0 || status < 0 ? out_of_memory(error) : 0;
}

int image_name_resolve(const struct image_name *name, struct url *url, struct blk_error *error)
{
    struct blk_error why;
    int status;

    memset(url, 0, sizeof(*url));
    if (!is_relative(name->name))
        return resolve_endpoint(name, url, error);
    status = resolve_relative(name, url, error);
    if (status == 0 && blk_check_url(url, &why) < 0)
        status = blk_error_set(error, EINVAL, "its %s cannot be opened: %s", name->what, why.text);
    return status;
}

/* ---- The name of an image that is to be made --------------------------------------------------- */

/* What is left of the path behind the image's directory; NULL: it does not lie beneath. */
static const char *beneath(const struct url *image, const struct url *url)
{
    const char *slash = strrchr(image->path, '/');
    size_t len = slash ? (size_t)(slash - image->path) + 1 : 0;
    const char *rest = url->path + len;

    if (!same_endpoint(image, url) || strncmp(image->path, url->path, len) != 0 || !rest[0] ||
        rest[0] == '/' || has_scheme(rest) || (len == 0 && url->path[0] == '/'))
        return NULL;
    return rest;
}

int image_backing_name(const struct url *image, const char *name, struct url *url, char **recorded,
                       struct blk_error *error)
{
    static const char *const any[] = {"any"};
    const struct image_choice choice = {.allowed = any, .allowed_count = 1};
    const struct image_name wanted = {name, "backing file", image, false, &choice};
    const char *relative = NULL;
    int status = image_name_resolve(&wanted, url, error);

    *recorded = NULL;
    if (status < 0)
        return status;
    if (!is_relative(name) && has_directory(image))
        relative = beneath(image, url);
    if (!relative && url->password)
        return blk_error_set(error, EINVAL,
                             "the name of its backing file would hold a password, for everybody "
                             "to read who can read the image");
    *recorded = strdup(relative ? relative : name);
    return *recorded ? 0 : out_of_memory(error);
}
