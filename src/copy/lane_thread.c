/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lane_thread.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

static void closed(struct blk_task *task)
{
    struct lane_thread *thread = task->opaque;

    if (--thread->outstanding == 0)
        thread->finished = true;
}

static void close_device(struct lane_thread *thread, struct blk_dev **dev, struct blk_task *task)
{
    if (!*dev)
        return;
    *task = (struct blk_task){.done = closed, .opaque = thread};
    thread->outstanding++;
    blk_close(*dev, task);
    *dev = NULL;
}

static void close_all(struct lane_thread *thread)
{
    if (thread->lane.reference == thread->lane.target)
        thread->lane.reference = NULL;
    close_device(thread, &thread->lane.source, &thread->close_source);
    close_device(thread, &thread->lane.target, &thread->close_target);
    close_device(thread, &thread->lane.reference, &thread->close_reference);
    if (thread->outstanding == 0)
        thread->finished = true;
}

/* What was cancelled because another lane had failed is no error of this one. */
static void fail(struct lane_thread *thread, const struct blk_error *error, const char *side)
{
    bool follows = error->code == ECANCELED && atomic_load(&thread->shared->stopping);

    if (thread->lane.error.code == 0 && !follows) {
        thread->lane.error = *error;
        if (side)
            blk_error_prefix(&thread->lane.error, "%s", side);
    }
    atomic_store(&thread->shared->stopping, true);
}

static void lane_ended(struct lane *lane)
{
    struct lane_thread *thread = container_of(lane, struct lane_thread, lane);

    lane_release(lane);
    close_all(thread);
}

static void opened(struct blk_task *task)
{
    struct lane_thread *thread = task->opaque;
    struct blk_error error;

    const char *side = task == &thread->open_source   ? "source"
                       : task == &thread->open_target ? "target"
                                                      : "backing file";

    if (task->status < 0)
        fail(thread, &task->error, side);
    if (--thread->outstanding > 0)
        return;
    if (atomic_load(&thread->shared->stopping)) {
        close_all(thread);
        return;
    }
    if (lane_start(&thread->lane) < 0) {
        blk_error_set(&error, ENOMEM, "out of memory");
        fail(thread, &error, NULL);
        close_all(thread);
    }
}

static struct blk_dev *open_clone(struct lane_thread *thread, const struct blk_dev *origin,
                                  struct blk_task *task)
{
    struct blk_dev *dev;
    struct blk_error error;

    *task = (struct blk_task){.done = opened, .opaque = thread};
    dev = blk_clone(thread->loop, origin, thread->number, task);
    if (dev) {
        thread->outstanding++;
    } else {
        blk_error_set(&error, ENOMEM, "out of memory");
        fail(thread, &error, NULL);
    }
    return dev;
}

/* Passes on what changed in shared: the lane looks again, a clone that is being opened gives up. */
static void look_at_shared(struct lane_thread *thread, unsigned *seen)
{
    unsigned now =
        atomic_load(&thread->shared->stopping) + 2u * atomic_load(&thread->shared->aborting);

    if (now == *seen)
        return;
    *seen = now;
    if (thread->lane.slots) {
        lane_kick(&thread->lane);
        return;
    }
    if (thread->lane.source)
        blk_cancel_all(thread->lane.source);
    if (thread->lane.target)
        blk_cancel_all(thread->lane.target);
    if (thread->lane.reference)
        blk_cancel_all(thread->lane.reference);
}

static void *thread_main(void *arg)
{
    struct lane_thread *thread = arg;
    unsigned seen = 0;

    thread->lane.source = open_clone(thread, thread->source, &thread->open_source);
    thread->lane.target = open_clone(thread, thread->target, &thread->open_target);
    if (thread->reference && thread->reference != thread->target)
        thread->lane.reference = open_clone(thread, thread->reference, &thread->open_reference);
    else if (thread->reference)
        thread->lane.reference = thread->lane.target;
    if (thread->outstanding == 0)
        close_all(thread);
    while (!thread->finished) {
        look_at_shared(thread, &seen);
        loop_turn(thread->loop, LOOP_NEVER);
    }
    atomic_store(&thread->ended, true);
    loop_wake(thread->owner);
    return NULL;
}

int lane_thread_start(struct lane_thread *thread, struct blk_error *error)
{
    sigset_t all, old;
    int rc;

    atomic_init(&thread->ended, false);
    thread->loop = loop_new();
    if (!thread->loop)
        return blk_error_set(error, errno ? errno : ENOMEM, "no event loop for another lane: %s",
                             strerror(errno ? errno : ENOMEM));
    thread->lane.number = thread->number;
    thread->lane.loop = thread->loop;
    thread->lane.shared = thread->shared;
    thread->lane.ended = lane_ended;
    /* Signals are for the main thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&thread->thread, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        loop_free(thread->loop);
        thread->loop = NULL;
        return blk_error_set(error, rc, "no thread for another lane: %s", strerror(rc));
    }
    thread->started = true;
    return 0;
}

void lane_thread_kick(struct lane_thread *thread)
{
    if (thread->started)
        loop_wake(thread->loop);
}

void lane_thread_join(struct lane_thread *thread)
{
    if (!thread->started)
        return;
    pthread_join(thread->thread, NULL);
    thread->started = false;
    loop_free(thread->loop);
    thread->loop = NULL;
}
