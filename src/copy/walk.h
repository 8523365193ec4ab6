/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A walk over a device's extents: what lies at an offset, and up to where. It asks ahead of whoever
 * walks, so that the copy seldom waits for an answer; with a bounded list, whatever the image.
 *
 * Of kinds there are three here: data, what reads as zeros, and what is the same on both ends, because it
 * comes from an image behind this one that the other end has behind it too. Neighbours of one kind are one
 * run.
 *
 * With `merge`, what a byte counts as depends on the device and on the range that is walked over, not
 * on how the device cuts its answers: a stretch of zeros, as far as it lies in the range, is zeros if it
 * is `merge` bytes long or is all of the range, and otherwise data. So zeros at the border of
 * what is known are kept back until there are enough of them, or until what follows is known. Only
 * where walk_at() ends a run before the kind changes depends on the answers.
 */
#ifndef LUNFERRY_WALK_H
#define LUNFERRY_WALK_H

#include <lunferry/block.h>

enum walk_kind { WALK_DATA, WALK_ZEROS, WALK_SAME };

struct walk_run {
    uint64_t offset, end;
    enum walk_kind kind;
    bool open; /* no more is known yet: it may go on */
};

struct walk {
    /* Set by the owner. */
    struct blk_dev *dev;
    /* Zeros shorter than this between data are data: a request of their own costs more than their
     * bytes. 0: every run as it is. */
    uint64_t merge;
    /* Before this offset, what comes from images of this depth or deeper is the same on both ends. 0:
     * nothing is. */
    uint64_t same_until;
    unsigned same_depth;
    /* From the loop, after every request: more is known, or `error` is set, or what walk_stop() left on
     * its way is in. May release the walk. */
    void (*ready)(struct walk *walk);
    void *opaque;

    struct blk_error error; /* code 0: none. Nothing more will be known */

    /* private */
    struct walk_run *runs; /* a ring */
    unsigned first, count;
    uint64_t from, known, end; /* [from, end) is walked over; [from, known) has been answered */
    bool waiting;              /* a request is on its way */
    bool stale;                /* whose answer nobody wants any more */
    struct blk_req req;
    struct blk_extents extents;
};

/* Allocates. 0 or -ENOMEM. */
int walk_init(struct walk *walk);
/* Nothing may be on its way: see walk_stop(). */
void walk_release(struct walk *walk);

/* Begins, anew or for the first time: [from, end) will be walked over. Clears `error`. */
void walk_over(struct walk *walk, uint64_t from, uint64_t end);
/* Nothing more is asked for, and nothing is known any more; walk_over() may follow. */
void walk_stop(struct walk *walk);
/* Up to where everything is known, but for short zeros just before. */
uint64_t walk_known(const struct walk *walk);
/* Is something on its way? Then the device's requests have to end first; ready() is called then. */
bool walk_is_busy(const struct walk *walk);

/*
 * What lies at `offset`, which lies in what walk_over() named and never goes back. True: *run holds it;
 * it begins at `offset` and ends where the other kind begins, or where no more is known yet (`open`), or at
 * the end. False: not known yet, ready() will be called; or `error` is set.
 */
bool walk_at(struct walk *walk, uint64_t offset, struct walk_run *run);
/* What lies behind the run that walk_at() has just told. False: nothing, or it is not known yet. */
bool walk_next(const struct walk *walk, struct walk_run *run);

#endif
