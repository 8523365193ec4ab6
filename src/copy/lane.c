/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lane_private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
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

static void end(struct lane *lane)
{
    assert(!lane->oldest && !lane->flushing && lane->state != LANE_ENDED);
    assert(lane->reading == 0 && lane->writing == 0);
    loop_timer_cancel(lane->loop, &lane->timer);
    lane->state = LANE_ENDED;
    lane->ended(lane);
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
        lane_fail(lane, &req->error, "target");
    } else {
        lane_note_epoch(lane, req->epoch);
        if (!tracker_written(lane->shared->tracker, lane->number, slot->offset, slot->len,
                             req->epoch, req->durable))
            lane_fail_with(lane, ENOMEM, "lunferry", "out of memory");
        atomic_fetch_add_explicit(&lane->shared->done, slot->len, memory_order_relaxed);
    }
    loop_defer(lane->loop, &lane->call);
}

static void submit(struct slot *slot, struct blk_dev *dev, enum blk_op op, unsigned flags,
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

static void write_chunk(struct lane *lane, struct slot *slot)
{
    set_state(slot, SLOT_READY, SLOT_WRITING);
    lane->unwritten = slot->next;
    lane->writing++;
    submit(slot, lane->target, BLK_WRITE, lane->fua ? BLK_FUA : 0, chunk_written);
}

/* The slot's bytes are there. */
static void chunk_is_there(struct slot *slot)
{
    struct lane *lane = slot->lane;

    if (lane->digest)
        digests_take(lane->shared->digests, lane->digest, slot->offset, slot->buffer, slot->len);
}

static void bad_found(void *opaque, uint64_t offset, uint64_t len)
{
    const struct slot *slot = opaque;

    slot->lane->shared->bad(slot->lane->shared, offset, len);
}

static void chunk_salvaged(struct salvage *salvage)
{
    struct slot *slot = salvage->opaque;
    struct lane *lane = slot->lane;

    lane->reading--;
    set_state(slot, SLOT_SALVAGING, SLOT_READY);
    if (salvage->status < 0)
        lane_fail(lane, &salvage->error, "source");
    else
        chunk_is_there(slot);
    loop_defer(lane->loop, &lane->call);
}

static void salvage(struct lane *lane, struct slot *slot)
{
    set_state(slot, SLOT_READING, SLOT_SALVAGING);
    slot->salvage = (struct salvage){
        .dev = lane->source,
        .offset = slot->offset,
        .len = slot->len,
        .buffer = slot->buffer,
        .found = bad_found,
        .done = chunk_salvaged,
        .opaque = slot,
    };
    salvage_start(&slot->salvage);
}

/* It was read once, by an earlier run, and what that has copied is all there is of it now. */
static void cannot_be_verified(struct lane *lane, struct slot *slot)
{
    const struct copy_options *options = lane->shared->options;
    char text[400];

    snprintf(text, sizeof(text),
             "source: %s: the %" PRIu64 " bytes at offset %" PRIu64
             " cannot be read any more, so that what an earlier run has copied of them cannot be "
             "verified; it stays",
             lane->source->name, slot->len, slot->offset);
    options->notice(options->opaque, true, text);
    lane->reading--;
    set_state(slot, SLOT_READING, SLOT_FREE);
    free_slot(lane, slot);
    loop_defer(lane->loop, &lane->call);
}

static void chunk_read(struct blk_req *req)
{
    struct slot *slot = req->opaque;
    struct lane *lane = slot->lane;

    if (req->status < 0 && lane->shared->options->salvage && !lane->draining &&
        salvage_applies(&req->error)) {
        if (lane->state == LANE_VERIFYING)
            cannot_be_verified(lane, slot);
        else
            salvage(lane, slot);
        return;
    }
    lane->reading--;
    set_state(slot, SLOT_READING, SLOT_READY);
    if (req->status < 0)
        lane_fail(lane, &req->error, "source");
    else if (req->got < slot->len)
        lane_fail_with(lane, EIO, "source",
                       "%s ended at offset %" PRIu64 ", %" PRIu64 " bytes early",
                       lane->source->name, slot->offset + req->got, slot->len - req->got);
    else
        chunk_is_there(slot);
    loop_defer(lane->loop, &lane->call);
}

static void start_slot(struct lane *lane, uint64_t offset, uint64_t len)
{
    struct slot *slot = take_free_slot(lane);

    set_state(slot, SLOT_FREE, SLOT_READING);
    slot->offset = offset;
    slot->len = len;
    lane->reading++;
    submit(slot, lane->source, BLK_READ, 0, chunk_read);
}

/* ---- Reading back ----------------------------------------------------------------------------- */

static void differs(void *opaque, uint64_t offset, bool again)
{
    struct lane *lane = opaque;
    const struct copy_options *options = lane->shared->options;
    uint64_t len =
        min_u64(tracker_granule(lane->shared->tracker), lane->shared->plan.size - offset);
    char text[400];

    if (again) {
        lane_fail_with(lane, EIO, "target",
                       "%s: what was written to the %" PRIu64 " bytes at offset %" PRIu64
                       " reads back differently, for the second time",
                       lane->target->name, len, offset);
        return;
    }
    snprintf(text, sizeof(text),
             "target: %s: what was written to the %" PRIu64 " bytes at offset %" PRIu64
             " reads back differently; copying them once more",
             lane->target->name, len, offset);
    options->notice(options->opaque, true, text);
    atomic_fetch_add(&lane->shared->mended, 1);
    atomic_fetch_sub_explicit(&lane->shared->verified, len, memory_order_relaxed);
    atomic_fetch_sub_explicit(&lane->shared->done, len, memory_order_relaxed);
    tracker_differs(lane->shared->tracker, lane->number, offset);
}

static void chunk_checked(struct blk_req *req)
{
    struct slot *slot = req->opaque;
    struct lane *lane = slot->lane;

    lane->writing--;
    set_state(slot, SLOT_CHECKING, SLOT_FREE);
    free_slot(lane, slot);
    if (req->status < 0) {
        blk_error_prefix(&req->error, "reading back");
        lane_fail(lane, &req->error, "target");
    } else if (req->got < slot->len) { /* the rest of the buffer is of another time */
        lane_fail_with(lane, EIO, "target",
                       "reading back: %s ended at offset %" PRIu64 ", %" PRIu64 " bytes early",
                       lane->target->name, slot->offset + req->got, slot->len - req->got);
    } else {
        atomic_fetch_add_explicit(&lane->shared->verified, slot->len, memory_order_relaxed);
        digests_check(lane->shared->digests, lane->digest, slot->offset, slot->buffer, slot->len,
                      differs, lane);
    }
    loop_defer(lane->loop, &lane->call);
}

static void check_chunk(struct lane *lane, struct slot *slot)
{
    lane->writing++;
    submit(slot, lane->target, BLK_READ, BLK_FUA, chunk_checked);
}

/* Digests of what an earlier run has copied are not known: the source is read for them. */
static void verify_chunk(struct lane *lane, uint64_t offset, uint64_t len, bool known)
{
    struct slot *slot;

    if (!known) {
        start_slot(lane, offset, len);
        return;
    }
    slot = take_free_slot(lane);
    set_state(slot, SLOT_FREE, SLOT_CHECKING);
    slot->offset = offset;
    slot->len = len;
    check_chunk(lane, slot);
}

/* How much of the range has a digest like its start, that is a known one or none. */
static uint64_t alike(const struct lane *lane, uint64_t offset, uint64_t len, bool *known)
{
    const struct digests *digests = lane->shared->digests;
    uint64_t granule = tracker_granule(lane->shared->tracker);
    uint64_t end = min_u64(round_down(offset, granule) + granule, offset + len);

    *known = digests_known(digests, offset, end - offset);
    while (end < offset + len) {
        uint64_t next = min_u64(end + granule, offset + len);

        if (digests_known(digests, end, next - end) != *known)
            break;
        end = next;
    }
    return end - offset;
}

static void check_ready(struct lane *lane)
{
    for (struct slot *slot = lane->oldest; slot; slot = slot->next) {
        if (slot->state == SLOT_READY) {
            set_state(slot, SLOT_READY, SLOT_CHECKING);
            check_chunk(lane, slot);
        }
    }
}

/* ---- The step --------------------------------------------------------------------------------- */

/* What is to be copied next: what was lost, then what the plan has that is not durable yet. */
static bool next_to_copy(struct lane *lane)
{
    struct lane_shared *shared = lane->shared;
    uint64_t until;

    if (lane->position < lane->run_end)
        return true;
    if (tracker_take_lost(shared->tracker, lane->number, UINT64_MAX, &lane->position,
                          &lane->run_end)) {
        if (shared->digests)
            digests_forget(shared->digests, lane->position, lane->run_end - lane->position);
        return true;
    }
    do {
        if (lane->segment == lane->segment_end &&
            !plan_take(&shared->plan, &lane->segment, &lane->segment_end))
            return false;
        lane->position =
            tracker_skip_begun(shared->tracker, lane->segment, lane->segment_end, &until);
        lane->segment = lane->run_end = until;
    } while (lane->position == lane->run_end);
    return true;
}

static bool next_to_verify(struct lane *lane)
{
    return lane->position < lane->run_end ||
           tracker_take_unverified(lane->shared->tracker, lane->number, UINT64_MAX, &lane->position,
                                   &lane->run_end);
}

/* May `len` bytes be started now? Otherwise the lane is woken when they may. */
static bool rate_allows(struct lane *lane, uint64_t len)
{
    if (lane->granted == 0) {
        lane->granted = len;
        lane->start_at = rate_take(&lane->shared->rate, loop_now(lane->loop), len);
    }
    if (lane->start_at > loop_now(lane->loop)) {
        loop_timer_set(lane->loop, &lane->timer, lane->start_at);
        return false;
    }
    lane->granted = 0;
    return true;
}

/* Starts as many chunks as there are slots for. */
static void start_chunks(struct lane *lane)
{
    bool verifying = lane->state == LANE_VERIFYING;

    while (lane->free && (verifying ? next_to_verify(lane) : next_to_copy(lane))) {
        uint64_t offset = lane->position;
        uint64_t len = min_u64(lane->run_end - offset, lane->shared->options->chunk);
        bool known = false;

        if (verifying)
            len = alike(lane, offset, len, &known);
        if (!rate_allows(lane, len))
            return;
        lane->position += len;
        if (verifying)
            verify_chunk(lane, offset, len, known);
        else
            start_slot(lane, offset, len);
    }
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

static void drain(struct lane *lane)
{
    if (!lane->draining) {
        lane->draining = true;
        blk_hurry(lane->source, 0);
        blk_hurry(lane->target, 0);
        for (struct slot *slot = lane->oldest; slot; slot = slot->next) {
            if (slot->state == SLOT_SALVAGING)
                salvage_stop(&slot->salvage);
        }
    }
    drop_ready(lane);
    if (!lane->oldest && !lane->flushing)
        end(lane);
}

/* Nothing is under way, and nothing is left to start. */
static void pass_is_over(struct lane *lane)
{
    if (tracker_unflushed(lane->shared->tracker, lane->number) > 0) {
        lane_flush(lane);
    } else if (lane->state == LANE_COPYING && lane->digest) {
        lane->state = LANE_VERIFYING;
        loop_defer(lane->loop, &lane->call);
    } else if (tracker_lost(lane->shared->tracker, lane->number) > 0) {
        lane->state = LANE_COPYING;
        loop_defer(lane->loop, &lane->call);
    } else {
        end(lane);
    }
}

static void lane_step(struct loop_call *call)
{
    struct lane *lane = container_of(call, struct lane, call);

    if (lane->state == LANE_ENDED)
        return;
    if (atomic_load(&lane->shared->aborting) && !lane->cancelled) {
        lane->cancelled = true;
        blk_cancel_all(lane->source);
        blk_cancel_all(lane->target);
    }
    if (atomic_load(&lane->shared->stopping)) {
        drain(lane);
        return;
    }
    if (lane->state == LANE_VERIFYING)
        check_ready(lane);
    else
        submit_writes(lane);
    if (lane->state == LANE_COPYING && lane_flush_is_due(lane))
        lane_flush(lane);
    start_chunks(lane);
    if (!lane->oldest && !lane->flushing && lane->granted == 0)
        pass_is_over(lane);
}

static void rate_timer(struct loop_timer *timer)
{
    struct lane *lane = container_of(timer, struct lane, timer);

    loop_defer(lane->loop, &lane->call);
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
    if (lane->shared->digests) {
        lane->digest = digest_new(NULL);
        if (!lane->digest) {
            lane_release(lane);
            return -ENOMEM;
        }
    }
    lane->call.run = lane_step;
    lane->timer.fire = rate_timer;
    lane->state = LANE_COPYING;
    lane->fua = options->sync;
    lane_flush_init(lane);
    lane_kick(lane);
    return 0;
}

void lane_release(struct lane *lane)
{
    assert(!lane->oldest);
    if (lane->loop)
        loop_defer_cancel(lane->loop, &lane->call);
    digest_free(lane->digest);
    lane->digest = NULL;
    free(lane->slots);
    lane->slots = NULL;
    if (lane->buffers)
        munmap(lane->buffers, lane->buffer_bytes);
    lane->buffers = NULL;
}
