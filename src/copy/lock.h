/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lock of a target that is a file: a file ".NAME.lunferry-lock" beside it says who copies to NAME,
 * so that two copies to one name do not get into each other's way. It is advice among lunferry
 * processes, on whatever machines.
 *
 * What makes it a lock is the exclusive CREATE (RFC 1813 3.3.8); what is in it, the holder and a
 * random number, makes it a certain process's. A lock whose holder is known to be gone is taken over:
 *
 * - Between looking at a lock and removing it, another process may have taken it over: a blind
 *   removal would take away that one's. So whoever takes over holds a second file,
 *   ".NAME.lunferry-lock-taking", meanwhile, and looks again under it. Nobody else removes a lock
 *   that is not his.
 * - A process that is killed just then leaves the second file. Nothing but `break_it` overcomes that.
 *
 * So without `break_it`, whose lock_take() has succeeded keeps the lock until he releases it. With
 * it, a lock may be lost at any time: lock_check() before anything that cannot be taken back.
 *
 * Each operation is a chain of asynchronous steps on the store and ends in one call of done(), from
 * the loop. One at a time. store_cancel_all() makes it end soon.
 */
#ifndef LUNFERRY_LOCK_H
#define LUNFERRY_LOCK_H

#include <lunferry/store.h>

#include "holder.h"

#define LOCK_TEXT (HOLDER_TEXT + 64)

enum lock_state {
    LOCK_NONE,
    LOCK_MAYBE, /* the answer to CREATE was lost: an empty file may be ours */
    LOCK_HELD,
};

struct lock {
    /* Set by the owner before lock_take(), valid until the lock is released. */
    struct store *store;
    const char *name;                            /* of the target in the store */
    const char *words;                           /* the target, for people: url->text */
    struct holder holder;                        /* holder_self() */
    bool break_it;                               /* take it, whoever has it */
    void (*done)(struct lock *lock, int status); /* with a status < 0, `error` says why */
    void *opaque;

    enum lock_state state; /* when nothing is under way */
    struct blk_error error;

    /* private */
    char file[256], taking[256]; /* names */
    char ours[LOCK_TEXT];        /* what we write */
    char seen[LOCK_TEXT], text[LOCK_TEXT];
    bool taking_held;
    unsigned attempts;
    struct store_req req;
    void (*then)(struct lock *lock, int status);
};

/* -EBUSY: another process has it, or took it just now; the sentence says who, and since when. After
 * a failure there is nothing to release but in LOCK_MAYBE. Returns 0; or -EIO at once, without a
 * call of done(), where the system gives no random number. */
int lock_take(struct lock *lock);
/* In LOCK_HELD: is it still ours? -EBUSY: no. */
void lock_check(struct lock *lock);
/* Unless in LOCK_NONE: removes it if it is still ours. */
void lock_release(struct lock *lock);

#endif
