/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One side of a job, as far as its server comes and goes: makes one line of what all lanes' devices
 * and the store of that side tell, when the first goes away and when the last is back, and counts.
 * From any lane's thread.
 */
#ifndef LUNFERRY_SIDE_H
#define LUNFERRY_SIDE_H

#include <stdatomic.h>

#include <lunferry/block.h>

struct side {
    struct blk_watcher watcher; /* for blk_open_args */
    const char *name;           /* "source" */
    void (*notice)(void *opaque, bool important, const char *text);
    void *opaque;
    _Atomic unsigned away;     /* devices and stores without a session */
    _Atomic unsigned losses;   /* of sessions */
    _Atomic uint64_t repeated; /* requests */
};

void side_init(struct side *side, const char *name,
               void (*notice)(void *opaque, bool important, const char *text), void *opaque);

#endif
