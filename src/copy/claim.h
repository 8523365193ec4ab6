/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The claim on a target that has no directory to put a lock into (lock.h): a LUN, a block device. A
 * locked file in the directory of journals sees to it that two processes on one machine do not write to
 * one such thing at the same time.
 *
 * It is the lock (flock(2)) that counts, which the kernel drops when the process ends, however it
 * ends: a file that a killed process left claims nothing. Only who holds the lock removes the file.
 * What is in it is for people: who holds it.
 *
 * It is advice, among the processes that look in the same directory: those of one user, with one
 * XDG_STATE_HOME, on one machine. Others are kept out by a reservation (blk_reserve()), if at all.
 *
 * These are a few system calls on small local files, once in a job: they are made at once, in the
 * caller's thread, and may block it as long as the disk of that directory takes.
 */
#ifndef LUNFERRY_CLAIM_H
#define LUNFERRY_CLAIM_H

#include "journal.h"

struct claim {
    int fd;                  /* locked; -1: there is no claim */
    char path[JOURNAL_PATH]; /* the file; "": there is no claim, whatever fd is */
    char reason[400];        /* without a claim: why there can be none; "" otherwise */
};

/*
 * What the claim was before does not matter. `identity` is the device's (struct blk_dev). Returns
 *
 * - 0: claimed, until claim_drop() or the end of the process; or, where there is no such directory and
 *   none can be made, or no file in it can be locked: without a claim, and `reason` says why;
 * - -EBUSY: another process has it (or this one, by another claim): the sentence names it and the file;
 * - -ENOMEM or what else kept the name from being made, with the sentence.
 */
int claim_take(struct claim *claim, const char *identity, struct blk_error *error);

/* Removes the file and gives up the lock. Does nothing where there is no claim: after a failure, a
 * second time, or in a struct that is all zeros. */
void claim_drop(struct claim *claim);

#endif
