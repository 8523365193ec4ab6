/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From READY to the target: a chunk is cut into runs, which are written by their kind. */
#include "lane_private.h"

#include <assert.h>
#include <errno.h>

#include <lunferry/units.h>

/* Zeros that the target makes without freeing anything: below this, writing them is as good. */
#define LEAST_ZERO (64 * KIB)

void lane_skip(struct lane *lane, uint64_t offset, uint64_t len)
{
    struct lane_shared *shared = lane->shared;
    bool known = shared->promised ? tracker_written(shared->tracker, lane->number, offset, len,
                                                    BLK_NO_EPOCH, true)
                                  : tracker_skipped(shared->tracker, lane->number, offset, len);

    if (!known)
        lane_fail_with(lane, ENOMEM, "lunferry", "out of memory");
    atomic_fetch_add_explicit(&shared->skipped, len, memory_order_relaxed);
    atomic_fetch_add_explicit(&shared->done, len, memory_order_relaxed);
}

/* ---- What is written -------------------------------------------------------------------------- */

static void add_run(struct slot *slot, uint64_t offset, uint64_t len, enum run_kind kind)
{
    struct slot_run *run = &slot->runs[slot->run_count++];

    run->slot = slot;
    run->offset = slot->offset + offset;
    run->len = len;
    run->kind = kind;
}

/* The shortest stretch of zeros that is not written like data; UINT32_MAX: none is. */
static uint64_t least_zeros(const struct slot *slot, uint64_t unit)
{
    const struct lane *lane = slot->lane;
    const struct blk_dev *target = lane->target;
    uint64_t least = LEAST_ZERO;

    if (lane->shared->options->zero_unit == 0)
        return UINT32_MAX;
    if (slot->target_zero)
        return unit;
    if (!(target->caps & BLK_CAN_ZERO))
        return UINT32_MAX;
    if (target->caps & BLK_CAN_UNMAP) /* less than that frees nothing */
        least = target->limits.unmap_granule;
    return least > unit ? least : unit;
}

static void plan_writes(struct slot *slot)
{
    struct lane_shared *shared = slot->lane->shared;
    uint64_t wanted = shared->options->zero_unit > 0 ? shared->options->zero_unit : shared->unit;
    uint64_t unit = round_up(wanted, slot->lane->target->limits.align);
    uint64_t least = least_zeros(slot, unit);
    struct chunk_run found[RUNS_MAX];
    unsigned count;

    slot->run_count = slot->next_run = slot->outstanding = 0;
    if (slot->same || slot->zeros || (least == UINT32_MAX && !slot->compared)) {
        add_run(slot, 0, slot->len, slot->same ? RUN_SAME : slot->zeros ? RUN_ZEROS : RUN_DATA);
        return;
    }
    count =
        runs_find(slot->buffer, slot->compared ? slot->reference : NULL, (uint32_t)slot->len,
                  (uint32_t)min_u64(unit, UINT32_MAX), (uint32_t)min_u64(least, UINT32_MAX), found);
    for (unsigned i = 0; i < count; i++)
        add_run(slot, found[i].offset, found[i].len, found[i].kind);
}

/* ---- Writing ---------------------------------------------------------------------------------- */

/* All of it is on the target, or will never be. */
static void free_if_over(struct lane *lane, struct slot *slot)
{
    if (slot->outstanding > 0 || slot->next_run < slot->run_count)
        return;
    if (slot->data)
        atomic_fetch_add_explicit(&lane->shared->data_done, slot->len, memory_order_relaxed);
    slot_set_state(slot, SLOT_WRITING, SLOT_FREE);
    slot_free(lane, slot);
}

static void note_written(struct lane *lane, const struct slot_run *run)
{
    struct lane_shared *shared = lane->shared;

    lane_note_epoch(lane, run->req.epoch);
    if (!tracker_written(shared->tracker, lane->number, run->offset, run->len, run->req.epoch,
                         run->req.durable))
        lane_fail_with(lane, ENOMEM, "lunferry", "out of memory");
    atomic_fetch_add_explicit(run->kind == RUN_ZEROS ? &shared->zeroed : &shared->moved, run->len,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&shared->done, run->len, memory_order_relaxed);
}

static void run_written(struct blk_req *req)
{
    struct slot_run *run = req->opaque;
    struct slot *slot = run->slot;
    struct lane *lane = slot->lane;

    lane->writing--;
    slot->outstanding--;
    if (req->status < 0)
        lane_fail(lane, &req->error, "target");
    else
        note_written(lane, run);
    free_if_over(lane, slot);
    loop_defer(lane->loop, &lane->call);
}

static void submit_run(struct lane *lane, struct slot_run *run)
{
    struct slot *slot = run->slot;
    bool zeros = run->kind == RUN_ZEROS;

    if (run->kind == RUN_SAME || (zeros && slot->target_zero)) {
        lane_skip(lane, run->offset, run->len);
        return;
    }
    run->iov = (struct iovec){slot->buffer + (run->offset - slot->offset), run->len};
    run->req = (struct blk_req){
        .op = zeros ? BLK_ZERO : BLK_WRITE,
        .flags = (lane->fua ? BLK_FUA : 0u) | (zeros ? BLK_MAY_UNMAP : 0u),
        .offset = run->offset,
        .len = run->len,
        .iov = zeros ? NULL : &run->iov,
        .iovcnt = zeros ? 0 : 1,
        .done = run_written,
        .opaque = run,
    };
    lane->writing++;
    slot->outstanding++;
    blk_submit(lane->target, &run->req);
}

/* False: the rest of it has to wait. */
static bool submit_slot(struct lane *lane, struct slot *slot)
{
    bool in_order = lane->shared->options->in_order;

    if (in_order && slot != lane->oldest)
        return false;
    if (slot->state == SLOT_READY) {
        plan_writes(slot);
        slot_set_state(slot, SLOT_READY, SLOT_WRITING);
    }
    while (slot->next_run < slot->run_count) {
        if (in_order && slot->outstanding > 0)
            return false;
        submit_run(lane, &slot->runs[slot->next_run++]);
    }
    return true;
}

void lane_submit_writes(struct lane *lane)
{
    struct slot *slot;

    while ((slot = lane->unwritten) != NULL) {
        if (slot->state != SLOT_READY && slot->state != SLOT_WRITING)
            return;
        if (!submit_slot(lane, slot))
            return;
        lane->unwritten = slot->next;
        free_if_over(lane, slot);
    }
}

void lane_drop_writes(struct lane *lane)
{
    struct slot *next;

    for (struct slot *slot = lane->oldest; slot; slot = next) {
        next = slot->next;
        if (slot->state == SLOT_READY) {
            slot_set_state(slot, SLOT_READY, SLOT_FREE);
            slot_free(lane, slot);
        } else if (slot->state == SLOT_WRITING && slot->next_run < slot->run_count) {
            slot->run_count = slot->next_run;
            free_if_over(lane, slot);
        }
    }
}
