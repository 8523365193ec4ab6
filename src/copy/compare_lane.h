/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What compares: N slots, each of which reads one chunk from both devices at once.
 *
 * A slot goes FREE -> READING -> FREE, or, where every difference is to be told, READING ->
 * DIFFERENT -> FREE: it then keeps its buffers until all before it is known. A completion only moves
 * its slot and marks the lane runnable; the step, which runs from the loop, alone submits.
 *
 * Chunks complete in any order; what counts is the one with the lowest offset of those that decide:
 * that is `limit`. Nothing at or beyond it is begun any more, what is under way there is without
 * interest (and cancelled once it is all that is left), and whatever decides before it takes its
 * place.
 */
#ifndef LUNFERRY_COMPARE_LANE_H
#define LUNFERRY_COMPARE_LANE_H

#include <lunferry/compare.h>

#include "compare_runs.h"

struct compare_slot;

struct compare_lane {
    /* Set by the owner before compare_lane_start(). */
    struct loop *loop;
    struct blk_dev *devs[COMPARE_SIDES];
    const struct compare_options *options; /* depth > 0 */
    struct compare_result *result; /* status, error, different, offset, byte, bytes, ranges */
    void (*ended)(struct compare_lane *lane); /* from the loop, once; nothing is in flight */

    unsigned reading; /* requests in flight */

    /* private */
    enum { COMPARE_LANE_IDLE, COMPARE_LANE_RUNNING, COMPARE_LANE_ENDED } state;
    struct loop_call call;
    struct compare_slot *slots;
    unsigned char *buffers;
    size_t buffer_bytes;
    struct compare_slot *oldest, *newest; /* in use, by offset */
    struct compare_slot *free;
    uint64_t position; /* where the next chunk begins */
    uint64_t common;   /* bytes that both devices have */
    uint64_t end;      /* bytes of the longer one */
    uint64_t limit;    /* the chunk that decides; UINT64_MAX: none does yet */
    struct runs runs;
    bool cancelled; /* blk_cancel_all() has been called */
};

/* Allocates slots and buffers and begins. Returns 0 or -ENOMEM (nothing to undo). */
int compare_lane_start(struct compare_lane *lane);
/* Cancels what is in flight; what is not known by then stays unknown, with -ECANCELED. */
void compare_lane_stop(struct compare_lane *lane);
void compare_lane_release(struct compare_lane *lane);

#endif
