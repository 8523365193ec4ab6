/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lane.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <lunferry/units.h>

/* ---- Slots ------------------------------------------------------------------------------------ */

static void set_state(struct slot *slot, enum slot_state from, enum slot_state to)
{
    assert(slot->state == from);
    slot->state = to;
}

static struct slot *take_free_slot(struct lane *lane)
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

static void free_slot(struct lane *lane, struct slot *slot)
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

/* ---- Ending ----------------------------------------------------------------------------------- */

/* The first error wins; the others only stop. What was cancelled was cancelled for a reason, which
 * somebody else reports. */
static void fail(struct lane *lane, const struct blk_error *error, const char *side)
{
    bool follows = error->code == ECANCELED && atomic_load(&lane->shared->aborting);

    if (lane->error.code == 0 && !follows) {
        lane->error = *error;
        blk_error_prefix(&lane->error, "%s", side);
    }
    atomic_store(&lane->shared->stopping, true);
}

static void end(struct lane *lane)
{
    assert(!lane->oldest && lane->state != LANE_ENDED);
    assert(lane->reading == 0 && lane->writing == 0);
    lane->state = LANE_ENDED;
    lane->ended(lane);
}

static void flushed(struct blk_req *req)
{
    struct lane *lane = req->opaque;
    uint64_t first = 0, lost;

    lost = tracker_flush_end(lane->shared->tracker, lane->number,
                             req->status < 0 ? BLK_NO_EPOCH : req->epoch, &first);
    if (req->status < 0) {
        fail(lane, &req->error, "target");
    } else if (lost > 0) {
        struct blk_error error;

        blk_error_set(&error, EIO,
                      "%s: the server lost data that it had acknowledged but not yet made durable "
                      "(it was restarted): %" PRIu64 " bytes, the first of them at or after offset "
                      "%" PRIu64 "; copy again",
                      lane->target->name, lost, first);
        fail(lane, &error, "target");
    }
    end(lane);
}

static void flush(struct lane *lane)
{
    lane->state = LANE_FLUSHING;
    tracker_flush_begin(lane->shared->tracker, lane->number);
    lane->flush = (struct blk_req){.op = BLK_FLUSH, .done = flushed, .opaque = lane};
    blk_submit(lane->target, &lane->flush);
}

/* ---- The way of a chunk ----------------------------------------------------------------------- */

static void chunk_written(struct blk_req *req)
{
    struct slot *slot = req->opaque;
    struct lane *lane = slot->lane;

    lane->writing--;
    set_state(slot, SLOT_WRITING, SLOT_FREE);
    free_slot(lane, slot);
    if (req->status < 0) {
        fail(lane, &req->error, "target");
    } else {
        if (!tracker_written(lane->shared->tracker, lane->number, slot->offset, slot->len,
                             req->epoch, req->durable)) {
            struct blk_error error;

            blk_error_set(&error, ENOMEM, "out of memory");
            fail(lane, &error, "lunferry");
        }
        atomic_fetch_add_explicit(&lane->shared->done, slot->len, memory_order_relaxed);
    }
    loop_defer(lane->loop, &lane->call);
}

static void write_chunk(struct lane *lane, struct slot *slot)
{
    set_state(slot, SLOT_READY, SLOT_WRITING);
    lane->unwritten = slot->next;
    lane->writing++;
    slot->req = (struct blk_req){
        .op = BLK_WRITE,
        .offset = slot->offset,
        .len = slot->len,
        .iov = &slot->iov,
        .iovcnt = 1,
        .done = chunk_written,
        .opaque = slot,
    };
    blk_submit(lane->target, &slot->req);
}

static void chunk_read(struct blk_req *req)
{
    struct slot *slot = req->opaque;
    struct lane *lane = slot->lane;

    lane->reading--;
    set_state(slot, SLOT_READING, SLOT_READY);
    if (req->status < 0) {
        fail(lane, &req->error, "source");
    } else if (req->got < slot->len) {
        struct blk_error error;

        blk_error_set(&error, EIO, "%s ended at offset %" PRIu64 ", %" PRIu64 " bytes early",
                      lane->source->name, slot->offset + req->got, slot->len - req->got);
        fail(lane, &error, "source");
    }
    loop_defer(lane->loop, &lane->call);
}

static void read_chunk(struct lane *lane)
{
    struct slot *slot = take_free_slot(lane);

    set_state(slot, SLOT_FREE, SLOT_READING);
    slot->offset = lane->position;
    slot->len = min_u64(lane->segment_end - slot->offset, lane->shared->options->chunk);
    lane->position += slot->len;
    slot->iov = (struct iovec){slot->buffer, slot->len};
    lane->reading++;
    slot->req = (struct blk_req){
        .op = BLK_READ,
        .offset = slot->offset,
        .len = slot->len,
        .iov = &slot->iov,
        .iovcnt = 1,
        .done = chunk_read,
        .opaque = slot,
    };
    blk_submit(lane->source, &slot->req);
}

/* ---- The step --------------------------------------------------------------------------------- */

static bool has_work(struct lane *lane)
{
    return lane->position < lane->segment_end ||
           plan_take(&lane->shared->plan, &lane->position, &lane->segment_end);
}

/* What has been read and will not be written any more. */
static void drop_ready(struct lane *lane)
{
    struct slot *next;

    for (struct slot *slot = lane->oldest; slot; slot = next) {
        next = slot->next;
        if (slot->state == SLOT_READY) {
            set_state(slot, SLOT_READY, SLOT_FREE);
            free_slot(lane, slot);
        }
    }
}

static void submit_writes(struct lane *lane)
{
    while (lane->unwritten && lane->unwritten->state == SLOT_READY) {
        struct slot *slot = lane->unwritten;

        if (lane->shared->options->in_order && slot != lane->oldest)
            return;
        write_chunk(lane, slot);
    }
}

static void lane_step(struct loop_call *call)
{
    struct lane *lane = container_of(call, struct lane, call);
    bool stopping = atomic_load(&lane->shared->stopping);

    if (lane->state == LANE_ENDED)
        return;
    if (atomic_load(&lane->shared->aborting) && !lane->cancelled) {
        lane->cancelled = true;
        blk_cancel_all(lane->source);
        blk_cancel_all(lane->target);
    }
    if (lane->state != LANE_COPYING)
        return;
    if (stopping) {
        drop_ready(lane);
    } else {
        submit_writes(lane);
        while (lane->free && has_work(lane))
            read_chunk(lane);
    }
    if (lane->oldest)
        return;
    if (stopping)
        end(lane);
    else
        flush(lane);
}

void lane_kick(struct lane *lane)
{
    loop_defer(lane->loop, &lane->call);
}

int lane_start(struct lane *lane)
{
    const struct copy_options *options = lane->shared->options;

    _Static_assert(sizeof(size_t) >= 8, "the buffers of a lane may exceed 4 GiB");
    lane->buffer_bytes = (size_t)options->depth * options->chunk;
    lane->slots = calloc(options->depth, sizeof(*lane->slots));
    /* Page-aligned, for direct I/O; pages that no slot ever uses cost nothing. */
    lane->buffers =
        mmap(NULL, lane->buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!lane->slots || lane->buffers == MAP_FAILED) {
        if (lane->buffers == MAP_FAILED)
            lane->buffers = NULL;
        lane_release(lane);
        return -ENOMEM;
    }
    /* The slot that was freed last is taken first: with few in use, few buffers are touched. */
    for (unsigned i = options->depth; i-- > 0;) {
        lane->slots[i].lane = lane;
        lane->slots[i].buffer = lane->buffers + (size_t)i * options->chunk;
        lane->slots[i].next = lane->free;
        lane->free = &lane->slots[i];
    }
    lane->call.run = lane_step;
    lane->state = LANE_COPYING;
    lane_kick(lane);
    return 0;
}

void lane_release(struct lane *lane)
{
    assert(!lane->oldest);
    if (lane->loop)
        loop_defer_cancel(lane->loop, &lane->call);
    free(lane->slots);
    lane->slots = NULL;
    if (lane->buffers)
        munmap(lane->buffers, lane->buffer_bytes);
    lane->buffers = NULL;
}
