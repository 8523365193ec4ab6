/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A source without a size: its end, and what follows from that. */
#include "lane_private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

/* The driver serves READs in their order, so that the first that comes short is the end. */
static void end_of_stream(struct lane *lane, uint64_t size)
{
    struct lane_shared *shared = lane->shared;

    if (shared->plan.size != PLAN_OPEN) {
        assert(size >= shared->plan.size);
        return;
    }
    plan_end(&shared->plan, size);
    lane->segment = lane->segment_end = size;
    lane->position = lane->run_end = size;
    lane_walks_stop(lane);
    if (!tracker_end(shared->tracker, size))
        lane_fail_with(lane, ENOMEM, "lunferry", "out of memory");
    if (shared->digests)
        digests_end(shared->digests, size);
}

bool lane_stream_arrived(struct slot *slot, uint64_t got)
{
    struct lane *lane = slot->lane;
    struct lane_shared *shared = lane->shared;
    uint64_t end = slot->offset + got;
    bool whole = got == slot->len;

    if (atomic_load(&shared->stopping))
        return false;
    if (got > 0 && end > lane->target->size) {
        lane_fail_with(lane, ENOSPC, "target",
                       "%s is too small: it has %" PRIu64 " bytes, and the stream has more",
                       lane->target->name, lane->target->size);
        return false;
    }
    if (got > 0 && shared->digests && !digests_reach(shared->digests, end)) {
        lane_fail_with(lane, ENOMEM, "lunferry", "out of memory");
        return false;
    }
    slot->len = got;
    if (!whole)
        end_of_stream(lane, end);
    if (got > 0)
        return true;
    slot_set_state(slot, SLOT_READY, SLOT_FREE);
    slot_free(lane, slot);
    return false;
}

static void sized(struct blk_task *task)
{
    struct lane *lane = task->opaque;

    lane->sizing = false;
    if (task->status < 0)
        lane_fail(lane, &task->error, "target");
    lane_kick(lane);
}

bool lane_set_size(struct lane *lane)
{
    if (!lane->shared->open_ended || lane->sized)
        return false;
    assert(lane->shared->plan.size != PLAN_OPEN);
    lane->sized = lane->sizing = true;
    lane->size_task = (struct blk_task){.done = sized, .opaque = lane};
    blk_resize(lane->target, lane->shared->plan.size, &lane->size_task);
    return true;
}
