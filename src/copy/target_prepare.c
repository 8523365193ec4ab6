/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The target is made ready: locked or reserved; a temporary file is made, or the head is blanked. */
#include "target_steps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- A format of its own ---------------------------------------------------------------------- */

/* From here on the target is what is inside the image: zeros, or what its backing file shows. */
static void image_made(struct target *target, int status)
{
    if (status < 0) {
        target_fail(target, &target->task.error);
        return;
    }
    target->zero_from = target->options->base ? UINT64_MAX : 0;
    target_end(target, 0);
}

static void make_image(struct target *target)
{
    struct image_make make = {
        .name = target->options->target->text,
        .file = target->dev,
        .layout = target->options->layout,
        .size = target->size,
    };
    struct blk_dev *dev =
        image_make_open(target->loop, &make, target_task_then(target, image_made));

    if (dev)
        target->dev = dev;
    else
        target_refuse(target, ENOMEM, "out of memory");
}

/* ---- A new file ------------------------------------------------------------------------------- */

/* Of its full size: it has nothing but holes. */
static void sized(struct target *target, int status)
{
    if (status < 0) {
        target_fail(target, &target->task.error);
    } else {
        target->zero_from = target->resumed_end;
        target_end(target, 0);
    }
}

/* As it is written. An image may need more than its disk has, where much is written again; and it may have a
 * place where a file of the disk's length would have none. */
static void grows(struct target *target)
{
    blk_open_end(target->dev);
    if (target_has_format(target)) {
        make_image(target);
        return;
    }
    target->zero_from = 0;
    target_end(target, 0);
}

static void temporary_opened(struct target *target, int status)
{
    if (status < 0)
        target_fail(target, &target->task.error);
    else if (target->size == BLK_SIZE_UNKNOWN || target_has_format(target))
        grows(target);
    else
        blk_resize(target->dev, target->size, target_task_then(target, sized));
}

static void temporary_made(struct target *target, int status)
{
    target->unstoppable = false;
    /* When it was cancelled, or the connection was lost, nobody knows whether it was made. */
    target->temporary_made = status == 0 || target->store_req.unsure;
    target->touched = target->temporary_made;
    if (status < 0) {
        target_fail(target, &target->store_req.error);
        return;
    }
    if (target->stopping)
        target_refuse(target, ECANCELED, "cancelled");
    else
        target_open_device(target, target->temporary, temporary_opened);
}

static void settled(struct target *target, int status)
{
    if (status < 0)
        target_fail(target, &target->req.error);
    else
        target_end(target, 0);
}

/* What it says of itself from now on, or holds, is to outlast a restart. */
static void discarded(struct target *target, int status)
{
    const struct copy_options *options = target->options;
    char text[sizeof(target->error.text) + 40];

    if (status == 0) {
        target_range_then(target, BLK_FLUSH, 0, 0, settled);
    } else if (status == -ENOTSUP) {
        snprintf(text, sizeof(text), "--discard: %s; going on without", target->req.error.text);
        options->notice(options->opaque, true, text);
        target_end(target, 0);
    } else {
        target_fail(target, &target->req.error);
    }
}

/* All but the head, which is blank by now, and has to stay so. */
static void discard(struct target *target)
{
    uint64_t from = target->head_len;

    bool begun = target->resumed && target->resumed->blanked; /* what is there is ours by now */

    if (!target->options->discard || begun || from == target->dev->size) {
        target_end(target, 0);
        return;
    }
    target->zero_from = UINT64_MAX; /* what was promised to be zero may read as a pattern then */
    target_range_then(target, BLK_DISCARD, from, target->dev->size - from, discarded);
}

static void head_blanked(struct target *target, int status)
{
    if (status < 0) {
        blk_error_prefix(&target->req.error, "blanking the head");
        target_fail(target, &target->req.error);
        return;
    }
    discard(target);
}

/* ---- Going on with what an earlier run has begun ---------------------------------------------- */

static void cut(struct target *target, int status)
{
    if (status < 0)
        target_fail(target, &target->task.error);
    else
        blk_resize(target->dev, target->size, target_task_then(target, sized));
}

static void temporary_reopened(struct target *target, int status)
{
    const char *identity = target->resumed->target_identity;

    if (status < 0) {
        blk_error_prefix(&target->task.error,
                         "the unfinished file cannot be taken up again (start anew, without "
                         "--resume)");
        target_fail(target, &target->task.error);
    } else if (identity && target->dev->identity && strcmp(identity, target->dev->identity) != 0) {
        target_refuse(target, ESTALE,
                      "%s: the unfinished file %s is not the one that was written; start anew, "
                      "without --resume",
                      target->dev->name, target->temporary);
    } else if (target->dev->size > target->size || target->dev->size < target->resumed_end) {
        target_refuse(target, ESTALE,
                      "%s: the unfinished file %s has %" PRIu64 " bytes instead of %" PRIu64
                      "; start anew, without --resume",
                      target->dev->name, target->temporary, target->dev->size, target->size);
    } else {
        blk_resize(target->dev, target->resumed_end, target_task_then(target, cut));
    }
}

/* Is each block as the earlier run had it, blank or written? One that was killed while it wrote the head
 * leaves both kinds. */
static bool head_is_ours(const struct target *target)
{
    for (uint64_t at = 0; at < target->head_len; at += 512) {
        const unsigned char *there = target->head_back + at;
        uint64_t len = min_u64(512, target->head_len - at);

        if (!target_is_blank(there, len) && memcmp(there, target->head + at, len) != 0)
            return false;
    }
    return true;
}

/* The earlier run has left it blank, or all but finished. Anything else was put there since, by somebody
 * who thinks that it is his. */
static void head_looked_at(struct target *target, int status)
{
    if (status < 0) {
        blk_error_prefix(&target->req.error, "looking at the head");
        target_fail(target, &target->req.error);
    } else if (target_is_blank(target->head_back, target->head_len) ||
               memcmp(target->head_back, target->head, target->head_len) == 0) {
        target->touched = true;
        target_end(target, 0);
    } else if (head_is_ours(target)) {
        target->touched = true;
        target_req_then(target, BLK_ZERO, head_blanked);
    } else {
        target_refuse(target, ESTALE,
                      "%s was written to since the copy was cut off: its start is not blank any "
                      "more; start anew, without --resume",
                      target->dev->name);
    }
}

static void look_at_head(struct target *target)
{
    target->head_back = malloc(target->head_len);
    if (!target->head_back) {
        target_refuse(target, ENOMEM, "out of memory");
        return;
    }
    target_req_then(target, BLK_READ, head_looked_at);
}

/* ---- In order --------------------------------------------------------------------------------- */

static void make_ready(struct target *target)
{
    target->touched = true;
    if (target->new_file && target->resumed && target->resumed->target_identity) {
        target->temporary_made = true;
        target_open_device(target, target->temporary, temporary_reopened);
    } else if (target->new_file) {
        target->touched = false; /* until it is known to be made */
        target->store_req.attr.mode = target->exists ? target->old.mode : target->options->mode;
        target->unstoppable = true;
        target_store_then(target, STORE_CREATE, target->temporary, NULL, temporary_made);
    } else if (target->head_len > 0 && target->resumed && target->resumed->blanked) {
        target->touched = false; /* by this run, until it goes on */
        look_at_head(target);
    } else if (target->head_len > 0) {
        target_req_then(target, BLK_ZERO, head_blanked);
    } else if (target_has_format(target)) {
        make_image(target);
    } else if (target_only_differs(target)) {
        target_range_then(target, BLK_FLUSH, 0, 0, settled);
    } else {
        discard(target);
    }
}

/* Whether it was there or not. */
static void stale_removed(struct target *target, int status)
{
    (void)status;
    make_ready(target);
}

void target_prepare(struct target *target)
{
    /* What an earlier run has written is not zero any more, and nobody knows what it was. */
    target->zero_from = target->options->target_is_zero && !target->resumed ? 0 : UINT64_MAX;
    if (target->stale[0])
        target_store_then(target, STORE_REMOVE, target->stale, NULL, stale_removed);
    else
        make_ready(target);
}

/* ---- Claim ------------------------------------------------------------------------------------ */

/* A file in a directory that is not ours to write to can be written in place all the same. */
static bool goes_without_lock(struct target *target, int status)
{
    char text[sizeof(target->lock.error.text) + 80];

    if (!target->options->in_place || (status != -EACCES && status != -EPERM && status != -EROFS))
        return false;
    snprintf(text, sizeof(text), "nothing keeps another lunferry from the target: %s",
             target->lock.error.text);
    target->options->notice(target->options->opaque, false, text);
    return true;
}

static void locked(struct lock *lock, int status)
{
    struct target *target = lock->opaque;

    if (status < 0 && !goes_without_lock(target, status))
        target_fail(target, &lock->error);
    else if (target->stopping)
        target_refuse(target, ECANCELED, "cancelled");
    else
        target_end(target, 0);
}

static void lock_name(struct target *target)
{
    struct lock *lock = &target->lock;

    /* A device node has no file beside it. */
    if (!target->store || (target->exists && target->old.type != STORE_FILE)) {
        target_end(target, 0);
        return;
    }
    lock->store = target->store;
    lock->name = target->name;
    lock->words = target->options->target->text;
    lock->break_it = target->options->break_lock;
    holder_self(&lock->holder);
    lock->done = locked;
    lock->opaque = target;
    if (lock_take(lock) < 0)
        target_refuse(target, EIO, "the system gives no random numbers");
}

static void reserved(struct target *target, int status)
{
    if (status < 0)
        target_fail(target, &target->task.error);
    else
        lock_name(target);
}

/* What has no name has no lock beside it. False: it ends here. */
static bool claim_bare(struct target *target)
{
    const struct blk_dev *dev = target->whole;
    bool wanted = dev && dev->identity && (dev->caps & BLK_BARE) &&
                  !(target->options->journal && !target->options->journal[0]);
    char text[sizeof(target->claim.reason) + 80];
    struct blk_error error;

    if (!wanted)
        return true;
    if (claim_take(&target->claim, dev->identity, &error) < 0) {
        blk_error_prefix(&error, "%s", dev->name);
        target_fail(target, &error);
        return false;
    }
    if (target->claim.reason[0]) {
        snprintf(text, sizeof(text), "nothing keeps another lunferry from the target: %s",
                 target->claim.reason);
        target->options->notice(target->options->opaque, false, text);
    }
    return true;
}

void target_claim(struct target *target)
{
    if (!claim_bare(target))
        return;
    if (!target->options->reserve) {
        lock_name(target);
        return;
    }
    target->reservation.break_key = target->options->break_reservation;
    blk_reserve(target->dev, &target->reservation, target_task_then(target, reserved));
}
