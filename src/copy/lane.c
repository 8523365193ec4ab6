/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The step of a lane: what starts when, and how it ends. */
#include "lane_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <lunferry/units.h>

/* Nothing is under way. */
static bool is_idle(const struct lane *lane)
{
    return !lane->oldest && !lane->flushing && !lane->sizing && !lane_walks_are_busy(lane);
}

static void end(struct lane *lane)
{
    assert(is_idle(lane) && lane->state != LANE_ENDED);
    assert(lane->reading == 0 && lane->writing == 0);
    loop_timer_cancel(lane->loop, &lane->timer);
    lane->state = LANE_ENDED;
    lane->ended(lane);
}

/* ---- The step --------------------------------------------------------------------------------- */

bool lane_rate_allows(struct lane *lane, uint64_t len)
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

/* Zeros that are made without bytes on the wire. */
static bool is_cheap(const struct lane *lane, const struct lane_piece *piece)
{
    return piece->zeros && lane->shared->options->zero_unit > 0 &&
           (lane->target->caps & BLK_CAN_ZERO) && !lane_compares(lane, piece);
}

/* How much of the piece one slot does. */
static uint64_t slot_length(const struct lane *lane, const struct lane_piece *piece)
{
    uint64_t most = lane->shared->options->chunk, zero = lane->target->limits.max_zero;

    if (is_cheap(lane, piece) && zero > most)
        most = round_down(zero, lane->shared->unit);
    return min_u64(piece->end - piece->offset, most);
}

/* There is nothing to read or write. What is not copied has digests too, in a list of all blocks. */
static bool is_there(const struct lane *lane, const struct lane_piece *piece)
{
    return (piece->same && !lane->shared->list) || (piece->zeros && piece->target_zero);
}

static bool copy_next(struct lane *lane, bool *over)
{
    struct lane_piece piece;
    enum lane_answer answer = lane_next(lane, &piece);

    *over = answer == LANE_NOTHING;
    if (answer != LANE_PIECE)
        return false;
    if (is_there(lane, &piece)) {
        if (piece.zeros)
            lane_take_zeros(lane, piece.offset, piece.end - piece.offset);
        lane_skip(lane, piece.offset, piece.end - piece.offset);
        lane->position = piece.end;
        return true;
    }
    piece.end = piece.offset + slot_length(lane, &piece);
    if (!lane->free ||
        (!is_cheap(lane, &piece) && !lane_rate_allows(lane, piece.end - piece.offset)))
        return false;
    lane_start_piece(lane, &piece);
    lane->position = piece.end;
    return true;
}

/* Starts as much as there are slots for. True: nothing is left to start. */
static bool start_all(struct lane *lane)
{
    bool over = false;

    while (lane->state == LANE_VERIFYING ? lane_verify_next(lane, &over) : copy_next(lane, &over))
        ;
    return over;
}

static void drain(struct lane *lane)
{
    if (!lane->draining) {
        lane->draining = true;
        blk_hurry(lane->source, 0);
        blk_hurry(lane->target, 0);
        if (lane->reference)
            blk_hurry(lane->reference, 0);
        /* At the other end of a stream is somebody who may do nothing for ever. */
        if (lane->source->size == BLK_SIZE_UNKNOWN)
            blk_cancel_all(lane->source);
        if (lane->target->size == BLK_SIZE_UNKNOWN)
            blk_cancel_all(lane->target);
        lane_walks_stop(lane);
        for (struct slot *slot = lane->oldest; slot; slot = slot->next) {
            if (slot->state == SLOT_SALVAGING)
                salvage_stop(&slot->salvage);
        }
    }
    lane_drop_writes(lane);
    blk_push(lane->target);
    if (is_idle(lane))
        end(lane);
}

/* Nothing is under way, and nothing is left to start. */
static void pass_is_over(struct lane *lane)
{
    if (lane_set_size(lane)) {
        /* goes on when that is done */
    } else if (tracker_unflushed(lane->shared->tracker, lane->number) > 0) {
        lane_flush(lane);
    } else if (lane->state == LANE_COPYING && lane->shared->digests) {
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
    bool over;

    if (lane->state == LANE_ENDED)
        return;
    if (atomic_load(&lane->shared->aborting) && !lane->cancelled) {
        lane->cancelled = true;
        blk_cancel_all(lane->source);
        blk_cancel_all(lane->target);
        if (lane->reference)
            blk_cancel_all(lane->reference);
    }
    if (atomic_load(&lane->shared->stopping)) {
        drain(lane);
        return;
    }
    if (lane->state == LANE_VERIFYING)
        lane_check_ready(lane);
    else
        lane_submit_writes(lane);
    if (lane->state == LANE_COPYING && lane_flush_is_due(lane))
        lane_flush(lane);
    over = start_all(lane);
    if (lane->reading == 0) /* whatever slots wait for is on the target's side */
        blk_push(lane->target);
    if (over && is_idle(lane))
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
    unsigned buffers = lane->shared->compare ? 2 : 1; /* of a slot */

    lane->buffer_bytes = (size_t)options->depth * options->chunk * buffers;
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
        lane->slots[i].buffer = lane->buffers + (size_t)i * options->chunk * buffers;
        if (lane->shared->compare)
            lane->slots[i].reference = lane->slots[i].buffer + options->chunk;
        lane->slots[i].next = lane->free;
        lane->free = &lane->slots[i];
    }
    if (lane_walks_init(lane) < 0) {
        lane_release(lane);
        return -ENOMEM;
    }
    if (lane->shared->digests || lane->shared->list) {
        lane->digest = digest_new(NULL);
        if (!lane->digest) {
            lane_release(lane);
            return -ENOMEM;
        }
    }
    blk_cap(lane->source, options->read_size, 0);
    blk_cap(lane->target, 0, options->write_size);
    if (lane->reference)
        blk_cap(lane->reference, options->read_size, 0);
    lane->call.run = lane_step;
    lane->timer.fire = rate_timer;
    lane->state = LANE_COPYING;
    /* What an epoch takes with it could not be copied again. */
    lane->fua = options->sync || (lane->shared->stream && lane->target->size != BLK_SIZE_UNKNOWN);
    lane_flush_init(lane);
    lane_kick(lane);
    return 0;
}

void lane_release(struct lane *lane)
{
    assert(!lane->oldest);
    if (lane->loop)
        loop_defer_cancel(lane->loop, &lane->call);
    lane_walks_release(lane);
    digest_free(lane->digest);
    lane->digest = NULL;
    free(lane->slots);
    lane->slots = NULL;
    if (lane->buffers)
        munmap(lane->buffers, lane->buffer_bytes);
    lane->buffers = NULL;
}
