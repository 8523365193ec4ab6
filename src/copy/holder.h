/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who runs a copy: a process, told from all others by its machine, the machine's boot, and the pid
 * with its start time. It stands in journals and lock files as one line, so that whoever finds one can see
 * whether its holder is gone.
 *
 * Another machine's processes cannot be looked for, nor those of another pid namespace (a
 * container); what cannot be told counts as not gone. machine-id(5) wants the machine id kept
 * from others, who may read the line: it holds a hash of it.
 */
#ifndef LUNFERRY_HOLDER_H
#define LUNFERRY_HOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct holder {
    char host[65];                          /* its name */
    char machine[33];                       /* a hash of the machine id; "": it has none */
    char boot[37];                          /* the boot id; "": not known */
    uint64_t pid_namespace, time_namespace; /* inode numbers; 0: not known */
    uint64_t pid;
    uint64_t started; /* the process: clock ticks since the boot; 0: not known */
    int64_t since;    /* when holder_self() was called: seconds since 1970 */
};

void holder_self(struct holder *holder);

/* One line of printable ASCII, without a newline. Returns text. */
#define HOLDER_TEXT 400
const char *holder_encode(const struct holder *holder, char text[HOLDER_TEXT]);
/* False: not such a line. */
bool holder_decode(struct holder *holder, const char *text);

/* The same process? */
bool holder_equal(const struct holder *a, const struct holder *b);

/* Is that process known to have ended? `here` is what holder_self() says. */
bool holder_is_gone(const struct holder *holder, const struct holder *here);

/* "process 123 on host a since 2026-11-21 08:30:00 UTC". Returns text. */
#define HOLDER_WORDS 160
const char *holder_describe(const struct holder *holder, char text[HOLDER_WORDS]);

#endif
