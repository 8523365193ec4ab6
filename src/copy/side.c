/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "side.h"

#include <stdarg.h>
#include <stdio.h>

static void tell(struct side *side, bool important, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void tell(struct side *side, bool important, const char *format, ...)
{
    char text[700];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    side->notice(side->opaque, important, text);
}

static void on_event(struct blk_watcher *watcher, enum blk_event event, const char *name,
                     const char *text)
{
    struct side *side = container_of(watcher, struct side, watcher);

    switch (event) {
    case BLK_AWAY:
        atomic_fetch_add(&side->losses, 1);
        if (atomic_fetch_add(&side->away, 1) == 0)
            tell(side, false, "%s: %s is away: %s; trying again", side->name, name, text);
        break;
    case BLK_BACK:
        if (atomic_fetch_sub(&side->away, 1) == 1)
            tell(side, false, "%s: %s is back after %s", side->name, name, text);
        break;
    case BLK_WAITING:
        tell(side, false, "%s: %s: %s", side->name, name, text);
        break;
    case BLK_WARNING:
        tell(side, true, "%s: %s: %s", side->name, name, text);
        break;
    case BLK_REPEATED:
        atomic_fetch_add(&side->repeated, 1);
        break;
    }
}

void side_init(struct side *side, const char *name,
               void (*notice)(void *opaque, bool important, const char *text), void *opaque)
{
    side->watcher.event = on_event;
    side->name = name;
    side->notice = notice;
    side->opaque = opaque;
    atomic_init(&side->away, 0);
    atomic_init(&side->losses, 0);
    atomic_init(&side->repeated, 0);
}
