/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include <lunferry/secret.h>

#include "cli.h"

/* As main() has it, there is only one of it in a process. */
static struct hidden {
    struct hidden *next;
    const char *shown; /* the argument, redacted */
    size_t len;        /* of it, before */
    char full[];
} * hidden;

static void hide(char *arg, const char *redacted)
{
    size_t len = strlen(arg);
    struct hidden *entry = malloc(sizeof(*entry) + len + 1);

    /* Out of memory: the endpoint is taken without its password, and login says so. */
    if (entry) {
        *entry = (struct hidden){.next = hidden, .shown = arg, .len = len};
        memcpy(entry->full, arg, len + 1);
        hidden = entry;
    }
    secret_scrub(arg, redacted);
}

void arguments_hide(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct url url;

        if (!strchr(argv[i], '@') && !strchr(argv[i], '?'))
            continue;
        /* Its text is made even where it is wrong, but for a senseless length. */
        url_parse(argv[i], &url, NULL);
        if (url.text && strcmp(url.text, argv[i]) != 0) {
            secret_guard();
            hide(argv[i], url.text);
        }
        url_release(&url);
    }
}

const char *arguments_full(const char *text)
{
    for (const struct hidden *entry = hidden; entry; entry = entry->next) {
        if (text >= entry->shown && text <= entry->shown + entry->len)
            return entry->full + (text - entry->shown);
    }
    return text;
}

void arguments_forget(void)
{
    while (hidden) {
        struct hidden *entry = hidden;

        hidden = entry->next;
        explicit_bzero(entry->full, entry->len);
        free(entry);
    }
}
