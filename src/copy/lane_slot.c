/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Slots in their lists, and how a lane fails. */
#include "lane_private.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

void slot_set_state(struct slot *slot, enum slot_state from, enum slot_state to)
{
    assert(slot->state == from);
    slot->state = to;
}

struct slot *slot_take(struct lane *lane)
{
    struct slot *slot = lane->free;

    lane->free = slot->next;
    slot->next = NULL;
    slot->previous = lane->newest;
    if (lane->newest)
        lane->newest->next = slot;
    else
        lane->oldest = slot;
    lane->newest = slot;
    if (!lane->unwritten)
        lane->unwritten = slot;
    return slot;
}

void slot_free(struct lane *lane, struct slot *slot)
{
    if (lane->unwritten == slot)
        lane->unwritten = slot->next;
    if (slot->previous)
        slot->previous->next = slot->next;
    else
        lane->oldest = slot->next;
    if (slot->next)
        slot->next->previous = slot->previous;
    else
        lane->newest = slot->previous;
    slot->next = lane->free;
    lane->free = slot;
}

void slot_submit(struct slot *slot, struct blk_dev *dev, enum blk_op op, unsigned flags,
                 void (*done)(struct blk_req *))
{
    slot->iov = (struct iovec){slot->buffer, slot->len};
    slot->req = (struct blk_req){
        .op = op,
        .flags = flags,
        .offset = slot->offset,
        .len = slot->len,
        .iov = &slot->iov,
        .iovcnt = 1,
        .done = done,
        .opaque = slot,
    };
    blk_submit(dev, &slot->req);
}

const char *lane_reference_side(const struct lane *lane)
{
    return lane->reference && lane->reference != lane->target ? "backing file" : "target";
}

/* What was cancelled was cancelled for a reason, which somebody else reports. */
void lane_fail(struct lane *lane, const struct blk_error *error, const char *side)
{
    bool follows = error->code == ECANCELED && atomic_load(&lane->shared->stopping);

    if (lane->error.code == 0 && !follows) {
        lane->error = *error;
        blk_error_prefix(&lane->error, "%s", side);
        atomic_store(&lane->shared->failed, true);
    }
    atomic_store(&lane->shared->stopping, true);
}

void lane_fail_with(struct lane *lane, int code, const char *side, const char *format, ...)
{
    struct blk_error error;
    char text[sizeof(error.text)];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    blk_error_set(&error, code, "%s", text);
    lane_fail(lane, &error, side);
}
