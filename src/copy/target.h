/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A target: a device being written, and what surrounds that. Two kinds of care are taken so that a
 * torn copy never looks like a finished one:
 *
 * - a new file is written under a temporary name beside the final one, and gets the final name when
 *   all is durable;
 * - what has no name (a LUN), or is written in place, has its head blanked before anything else is
 *   written, and written after all else is durable.
 *
 * Each operation is a chain of asynchronous steps, in target.c in the order in which they run, and
 * ends in one call of done(). One operation at a time.
 */
#ifndef LUNFERRY_TARGET_H
#define LUNFERRY_TARGET_H

#include <string.h>

#include <lunferry/copy.h>
#include <lunferry/store.h>
#include <lunferry/units.h>

#include "claim.h"
#include "journal.h"
#include "lock.h"
#include "occupied.h"
#include "tracker.h"

#define TARGET_HEAD (1u << 20)

/* The length of the head of an image of `size` bytes: whole granules of its tracker, which would
 * otherwise have to put one together from two lanes' parts. */
static inline uint64_t target_head_len(uint64_t size, uint64_t granule)
{
    return min_u64(size, granule > TARGET_HEAD ? granule : TARGET_HEAD);
}

static inline bool target_is_blank(const unsigned char *bytes, uint64_t len)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

struct target {
    /* Set by the owner. */
    struct loop *loop;
    const struct copy_options *options;
    struct blk_watcher *watcher;
    const struct journal_facts *resumed; /* what an earlier run has done; NULL: nothing */
    struct blk_reservation reservation;  /* its key, with options->reserve */
    uint64_t
        resumed_end; /* with `resumed`: where the last of what is durable ends; the rest of a new
                             file is cut off, so that it is zero again */
    uint64_t unit; /* bytes that only one lane may copy, whatever is lost: a power of two; 0: any */
    bool keep_temporary; /* before target_close(): another run will go on with it */
    void (*done)(struct target *target, int status); /* with a status < 0, `error` says why */
    void *opaque;

    /* Valid when target_open() is done. */
    struct blk_dev *dev;         /* NULL until prepared, for a new file */
    const struct blk_dev *whole; /* what was opened; `dev` begins at options->target_offset of it */
    bool new_file;               /* written under a temporary name */
    bool touched;                /* something of it was changed, or may have been */
    bool maybe_named;            /* its name was, or may have been, given to the new file */
    struct blk_error error;

    /* Valid when target_prepare() is done: from here on it reads as zeros where nothing was written;
     * UINT64_MAX: nobody knows. */
    uint64_t zero_from;

    /* Valid after target_plan(). */
    uint64_t size; /* bytes that will be written; the owner sets it when a stream has ended */
    struct tracker *tracker;
    uint64_t head_len;   /* 0: no head */
    char temporary[256]; /* name of the new file until it gets its own */
    char stale[256];     /* set by the owner: an earlier run's, to be removed; "": none */

    /* Set by the owner before target_prepare(), freed by target_close(): the source's first head_len
     * bytes. */
    unsigned char *head;

    /* private */
    unsigned char *head_back; /* as it was read back */
    bool head_differed;
    struct store *store;
    bool exists; /* a file of the final name, when it was looked up */
    struct store_attr old;
    const char *name;    /* the final one, in url->path */
    bool temporary_made; /* or may have been */
    bool stopping;
    bool unstoppable; /* what comes of the step under way matters when stopping, too */
    struct occupied occupied;
    struct lock lock;   /* of the name, where there is one */
    struct claim claim; /* of the device, where there is none */
    struct blk_task task;
    struct store_req store_req;
    struct blk_req req;
    struct iovec iov;
    void (*then)(struct target *target, int status);
};

/* Opens the device, or, where a new file will be made, the directory; refuses what exists and is not
 * to be overwritten. Nothing is changed. */
void target_open(struct target *target);
/* `size` bytes will be written (BLK_SIZE_UNKNOWN: a stream of them): makes the tracker and sets head_len.
 * At once; 0, or -errno with `error`. */
int target_plan(struct target *target, uint64_t size);
/* A stream has ended in the head: all of it has `size` bytes, > 0. */
void target_end_of_stream(struct target *target, uint64_t size);
/* Is an existing target large enough, and is what it holds to be overwritten? */
void target_check(struct target *target);
/* Reserves or locks the target, so that nobody else writes to it. Nothing of it is changed. */
void target_claim(struct target *target);
/* Makes the temporary file, or blanks the head and unmaps the rest, if that is wanted; or takes up what an earlier run has left. By now the owner has put the source's first head_len
 * bytes into `head`: were source and target the same thing by two names, which not every protocol
 * lets us see, blanking would lose them. */
void target_prepare(struct target *target);
/* After the lanes: the head, then the final name. Ends with 0 when the target is complete, also when
 * the job was stopped meanwhile. */
void target_finish(struct target *target);
/* Closes everything, after removing a temporary file that is still there. status is always 0. */
void target_close(struct target *target);
/* Makes the operation under way, except a close, end soon with -ECANCELED. */
void target_cancel(struct target *target);

#endif
