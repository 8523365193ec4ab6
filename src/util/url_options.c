/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What stands behind the '?' of a URL. */
#include <lunferry/url.h>

#include "url_text.h"

#include <lunferry/units.h>

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct url_option *find_option(const struct url_option *known, const char *name)
{
    for (; known != NULL && known->name != NULL; known++) {
        if (strcmp(known->name, name) == 0)
            return known;
    }
    return NULL;
}

/* "nfsport=N: the port of ...; uid=N: ...", or only the names. Returns false when it does not fit. */
static bool list_options(char *buf, size_t size, const struct url_option *known, bool help)
{
    size_t used = 0;

    for (const struct url_option *option = known; option->name != NULL; option++) {
        int len = snprintf(buf + used, size - used, "%s%s%s%s",
                           option == known ? ""
                           : help          ? "; "
                                           : ", ",
                           option->name, help ? "=" : "", help ? option->help : "");

        if (len < 0 || (size_t)len >= size - used)
            return false;
        used += (size_t)len;
    }
    return true;
}

static int refuse_option(const struct url *url, const struct url_option *known, const char *name,
                         struct blk_error *error)
{
    char quoted[URL_QUOTE], list[320];

    url_quote(quoted, name);
    if (known == NULL || known->name == NULL)
        return blk_error_set(error, EINVAL, "unknown option \"%.60s\": \"%.30s\" takes no options",
                             quoted, url->scheme);
    if (!list_options(list, sizeof list, known, true))
        list_options(list, sizeof list, known, false);
    return blk_error_set(error, EINVAL, "unknown option \"%.60s\"; \"%.30s\" knows %s", quoted,
                         url->scheme, list);
}

int url_check_options(const struct url *url, const struct url_option *known,
                      struct blk_error *error)
{
    for (size_t i = 0; i < url->param_count; i++) {
        const char *name = url->params[i].name;

        if (find_option(known, name) == NULL)
            return refuse_option(url, known, name, error);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(url->params[j].name, name) == 0)
                return url_refuse(url, error, "the option \"%s\" is given twice", name);
        }
    }
    return 0;
}

const char *url_param(const struct url *url, const char *name)
{
    for (size_t i = 0; i < url->param_count; i++) {
        if (strcmp(url->params[i].name, name) == 0)
            return url->params[i].value;
    }
    return NULL;
}

int url_param_number(const struct url *url, const char *name, uint64_t min, uint64_t max,
                     uint64_t otherwise, uint64_t *value, struct blk_error *error)
{
    const char *text = url_param(url, name);
    struct blk_error why = {0};

    if (text == NULL) {
        *value = otherwise;
        return 0;
    }
    if (text[0] == '\0')
        return url_refuse(url, error,
                          "the option \"%s\" needs a number from %" PRIu64 " to %" PRIu64, name,
                          min, max);
    if (units_parse_number(text, min, max, value, &why) < 0)
        return url_refuse(url, error, "the option \"%s\": %s", name, why.text);
    return 0;
}
