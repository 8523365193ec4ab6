/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a copy would do: which ranges it reads, where it has to make zeros, and what is zeros already. It
 * only asks for extents, at most one request at a time of each device, and holds no more than the walks
 * do, whatever the image.
 *
 * Every byte of [0, size) is of one kind, and neighbours of one kind are one run:
 *   READ  the source has data (or does not say what it has)
 *   ZERO  the source has zeros, and the target is not known to have them
 *   SKIP  both have zeros, or what lies behind both
 */
#ifndef LUNFERRY_SURVEY_H
#define LUNFERRY_SURVEY_H

#include <lunferry/block.h>

#include "walk.h"

enum survey_kind { SURVEY_READ, SURVEY_ZERO, SURVEY_SKIP };

#define SURVEY_KINDS 3

struct survey_total {
    uint64_t bytes;
    uint64_t runs;
    /* READ: chunks, ZERO: what the target zeros at once (chunks, where it has no means of its own),
     * both cut at multiples of that; SKIP: none. */
    uint64_t requests;
};

struct survey {
    /* Set by the owner; both devices outlive the survey. */
    struct loop *loop;
    struct blk_dev *source; /* open */
    /* Open, with min(size, zero_from) bytes at least. NULL: there is none, or it is not to be asked. */
    struct blk_dev *target;
    uint64_t size;       /* at most the source's */
    uint64_t zero_from;  /* from here on the target is known to be zeros; UINT64_MAX: nowhere */
    uint64_t merge;      /* of the source's zeros: see walk.h */
    uint64_t same_until; /* likewise, as what follows: what both ends have */
    unsigned same_depth;
    uint32_t chunk; /* bytes, > 0 */
    /* From the loop, in ascending order. May stop the survey. NULL: only the totals count. */
    void (*run)(struct survey *survey, enum survey_kind kind, uint64_t offset, uint64_t len);
    /* From the loop, once, with nothing on its way. May release the survey. */
    void (*done)(struct survey *survey);
    void *opaque;

    /* What came of it; to be read at any time. */
    struct survey_total totals[SURVEY_KINDS]; /* of the runs that were told */
    struct blk_error error;                   /* code 0: none. ECANCELED: stopped */

    /* private */
    enum { SURVEY_IDLE, SURVEY_WALKING, SURVEY_ENDING, SURVEY_ENDED } state;
    struct walk source_walk, target_walk;
    bool in_zeros; /* what the source has just before `at` */
    uint64_t at;   /* so far it has got */
    enum survey_kind kind;
    uint64_t begin; /* [begin, at) is a run of this kind that may go on */
    struct loop_call call;
};

/* Starts. 0, or -ENOMEM, and then there is nothing to release. */
int survey_start(struct survey *survey);
/* done() follows, as soon as what is on its way is in (cancelling the devices hastens it), with
 * ECANCELED unless the end was near. Does nothing when it has ended. */
void survey_stop(struct survey *survey);
/* After done(). */
void survey_release(struct survey *survey);

#endif
