/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A lane with a thread, a loop and sessions of its own: it clones both ends, runs the lane, closes
 * the clones. All lanes but the first, which runs on the job's loop with the job's devices.
 */
#ifndef LUNFERRY_LANE_THREAD_H
#define LUNFERRY_LANE_THREAD_H

#include <pthread.h>

#include "lane.h"

struct lane_thread {
    /* Set by the owner before lane_thread_start(). */
    unsigned number;
    struct lane_shared *shared;
    const struct blk_dev *source, *target; /* open, and stay so */
    const struct blk_dev *reference;       /* likewise; may be the target; NULL: none */
    struct loop *owner;                    /* is woken when `ended` becomes true */

    atomic_bool ended;
    struct lane lane; /* lane.error is valid once ended; lane.reading and writing at any time */

    /* private */
    struct loop *loop;
    pthread_t thread;
    bool started;
    struct blk_task open_source, open_target, open_reference;
    struct blk_task close_source, close_target, close_reference;
    unsigned outstanding;
    bool finished;
};

/* Returns 0 or -errno with the sentence; then there is nothing to join. */
int lane_thread_start(struct lane_thread *thread, struct blk_error *error);
/* From the owner: something in shared changed. */
void lane_thread_kick(struct lane_thread *thread);
/* Waits for a thread that has ended, or will soon; frees what it had. */
void lane_thread_join(struct lane_thread *thread);

#endif
