/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All is written and durable: the head follows, or the final name. */
#include "target_steps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void published(struct target *target, int status)
{
    /* It has its final name; that the temporary one could not be removed does not unmake that.
     * target_close() tries once more. */
    target->temporary_made = status < 0;
    target_end(target, 0);
}

/* Gives the file its final name, which cannot be stopped any more. */
static void give_name(struct target *target, enum store_op op, target_step *then)
{
    target->unstoppable = true;
    target->maybe_named = true;
    target_store_then(target, op, target->temporary, target->name, then);
}

/* A refusal by the server left the name as it was; a lost answer or a cancel may not have. */
static void note_refusal(struct target *target)
{
    target->maybe_named = target->store_req.unsure;
}

static void renamed(struct target *target, int status)
{
    if (status < 0) {
        note_refusal(target);
        target_fail(target, &target->store_req.error);
        return;
    }
    target->temporary_made = false;
    target_end(target, 0);
}

static void looked_up_again(struct target *target, int status)
{
    if (status == -ENOENT && target->stopping)
        target_refuse(target, ECANCELED, "cancelled");
    else if (status == -ENOENT)
        give_name(target, STORE_RENAME, renamed);
    else if (status < 0)
        target_fail(target, &target->store_req.error);
    else
        target_refuse(
            target, EEXIST,
            "%s was made by someone else meanwhile and is left alone; --overwrite would replace it",
            target->options->target->text);
}

static void linked(struct target *target, int status)
{
    if (status < 0)
        note_refusal(target);
    if (status == 0)
        target_store_then(target, STORE_REMOVE, target->temporary, NULL, published);
    else if (status == -ENOTSUP || status == -EPERM || status == -ENOSYS || status == -EMLINK)
        /* A server without hard links. Between this look and the rename a file could be made and
         * lost; there is nothing better. */
        target_store_then(target, STORE_STAT, target->name, NULL, looked_up_again);
    else if (status == -EEXIST)
        looked_up_again(target, 0);
    else
        target_fail(target, &target->store_req.error);
}

static void still_locked(struct lock *lock, int status)
{
    struct target *target = lock->opaque;

    if (status < 0)
        target_fail(target, &lock->error);
    else if (target->stopping)
        target_refuse(target, ECANCELED, "cancelled");
    else if (target->options->overwrite)
        give_name(target, STORE_RENAME, renamed);
    else
        give_name(target, STORE_LINK, linked);
}

static void publish(struct target *target)
{
    if (!target->new_file) {
        target_end(target, 0);
        return;
    }
    target->lock.done = still_locked;
    lock_check(&target->lock);
}

static void finished(struct target *target, int status)
{
    if (status < 0)
        target_fail(target, &target->task.error);
    else
        publish(target);
}

static void finish_device(struct target *target)
{
    blk_finish(target->dev, target_task_then(target, finished));
}

static void not_durable(struct target *target)
{
    target_refuse(target, EIO, "%s: not all that was written is known to be durable; copy again",
                  target->dev->name);
}

static void write_head(struct target *target);

static void head_read_back(struct target *target, int status)
{
    bool same;

    if (status < 0) {
        blk_error_prefix(&target->req.error, "reading the head back");
        target_fail(target, &target->req.error);
        return;
    }
    same = memcmp(target->head, target->head_back, target->head_len) == 0;
    if (same) {
        finish_device(target);
    } else if (target->head_differed) {
        target_refuse(target, EIO,
                      "%s: what was written to its first %" PRIu64
                      " bytes reads back differently, for the second time",
                      target->dev->name, target->head_len);
    } else {
        target->head_differed = true;
        write_head(target);
    }
}

static void read_head_back(struct target *target)
{
    if (!target->head_back)
        target->head_back = malloc(target->head_len);
    if (!target->head_back) {
        target_refuse(target, ENOMEM, "out of memory");
        return;
    }
    target_req_then(target, BLK_READ, head_read_back);
}

static void head_written(struct target *target, int status)
{
    if (status < 0) {
        blk_error_prefix(&target->req.error, "writing the head, after all else was written");
        target_fail(target, &target->req.error);
        return;
    }
    if (!tracker_written(target->tracker, 0, 0, target->head_len, target->req.epoch,
                         target->req.durable)) {
        target_refuse(target, ENOMEM, "out of memory");
        return;
    }
    if (!tracker_durable_from(target->tracker, 0))
        not_durable(target);
    else if (target->options->verify)
        read_head_back(target);
    else
        finish_device(target);
}

static void write_head(struct target *target)
{
    target->unstoppable = true;
    target_req_then(target, BLK_WRITE, head_written);
}

/* A file that is written in place. */
static void locked_still(struct lock *lock, int status)
{
    struct target *target = lock->opaque;

    if (status < 0)
        target_fail(target, &lock->error);
    else if (target->stopping)
        target_refuse(target, ECANCELED, "cancelled");
    else
        write_head(target);
}

void target_finish(struct target *target)
{
    /* The lanes have seen to it; nothing gets a head or a name on their word alone. */
    if (!tracker_durable_from(target->tracker, target->head_len)) {
        not_durable(target);
    } else if (target->head_len > 0 && target->lock.state == LOCK_HELD) {
        target->lock.done = locked_still;
        lock_check(&target->lock);
    } else if (target->head_len > 0) {
        write_head(target);
    } else {
        finish_device(target);
    }
}
