/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A lane: N slots that move chunks from the source to the target, on one loop.
 *
 * The state machine: a slot goes FREE -> READING -> READY -> WRITING -> FREE. A completion only
 * moves its slot and marks the lane runnable; lane_step(), which runs from the loop, alone submits.
 * Slots in use are kept in the order of their offsets, which is the order in which they were read:
 * writes are submitted in that order, and complete in any (or, with in_order, one at a time).
 */
#ifndef LUNFERRY_LANE_H
#define LUNFERRY_LANE_H

#include <stdatomic.h>

#include <lunferry/block.h>
#include <lunferry/copy.h>

#include "plan.h"
#include "tracker.h"

/* What the lanes of a job share. Who may change a field stands beside it. */
struct lane_shared {
    const struct copy_options *options;
    struct plan plan;        /* lanes: take segments */
    struct tracker *tracker; /* lanes: their own granules */
    _Atomic uint64_t done;   /* bytes; lanes add */
    atomic_bool stopping;    /* set once by anyone: issue nothing new, drain */
    atomic_bool aborting;    /* set once by anyone: cancel what is on the wire */
};

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_READY, SLOT_WRITING };

struct slot {
    enum slot_state state;
    struct lane *lane;
    uint64_t offset, len;
    unsigned char *buffer;
    struct iovec iov;
    struct blk_req req;
    struct slot *next, *previous; /* in use: by offset; free: next only */
};

struct lane {
    /* Set by the owner before lane_start(). */
    unsigned number;
    struct loop *loop;
    struct blk_dev *source, *target;
    struct lane_shared *shared;
    void (*ended)(struct lane *lane); /* from the loop, once: nothing is in flight any more, and
                                         what was written is durable unless error says otherwise */
    /* The first error, valid in ended(). */
    struct blk_error error;

    /* private */
    struct loop_call call;
    struct slot *slots;
    unsigned char *buffers;
    size_t buffer_bytes;
    struct slot *oldest, *newest; /* in use */
    struct slot *unwritten;       /* the oldest that is not WRITING */
    struct slot *free;
    uint64_t position, segment_end;
    _Atomic unsigned reading, writing; /* requests at the drivers, for the progress display */
    struct blk_req flush;
    enum { LANE_COPYING, LANE_FLUSHING, LANE_ENDED } state;
    bool cancelled; /* blk_cancel_all() has been called */
};

/* Allocates slots and buffers and begins. Returns 0 or -ENOMEM (nothing to undo). */
int lane_start(struct lane *lane);
/* Something in shared changed: look again. From the lane's own thread. */
void lane_kick(struct lane *lane);
void lane_release(struct lane *lane);

#endif
