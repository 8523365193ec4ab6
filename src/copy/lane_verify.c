/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading back what is durable, and holding it against the digests that were taken while copying. What
 * the target says reads as zeros is taken for zeros.
 */
#include "lane_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <lunferry/units.h>

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
    if (lane->shared->stream) {
        lane_fail_with(lane, EIO, "target",
                       "%s: what was written to the %" PRIu64 " bytes at offset %" PRIu64
                       " reads back differently, and a stream cannot be read again",
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
    slot_set_state(slot, SLOT_CHECKING, SLOT_FREE);
    slot_free(lane, slot);
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
    slot_submit(slot, lane->target, BLK_READ, BLK_FUA, chunk_checked);
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

void lane_check_ready(struct lane *lane)
{
    for (struct slot *slot = lane->oldest; slot; slot = slot->next) {
        if (slot->state == SLOT_READY) {
            slot_set_state(slot, SLOT_READY, SLOT_CHECKING);
            check_chunk(lane, slot);
        }
    }
}

/* ---- What comes next -------------------------------------------------------------------------- */

static void start_checking(struct lane *lane, uint64_t len)
{
    struct slot *slot = slot_take(lane);

    slot_set_state(slot, SLOT_FREE, SLOT_CHECKING);
    slot->offset = lane->position;
    slot->len = len;
    lane->position += len;
    check_chunk(lane, slot);
}

/* Digests of what an earlier run has copied are not known: the source is read for them first. */
static bool read_source(struct lane *lane, const struct lane_piece *piece)
{
    if (!lane->free || !lane_rate_allows(lane, piece->end - piece->offset))
        return false;
    lane_start_piece(lane, piece);
    lane->position = piece->end;
    return true;
}

static void check_zeros(struct lane *lane, uint64_t len)
{
    struct lane_shared *shared = lane->shared;

    atomic_fetch_add_explicit(&shared->verified, len, memory_order_relaxed);
    digests_check_zeros(shared->digests, lane->position, len, differs, lane);
    lane->position += len;
}

/* Where the source is known to have zeros, nothing has to be read for their digest. */
static bool check_next(struct lane *lane, uint64_t len, bool known, uint64_t zeros)
{
    struct lane_piece piece;

    if (!known) {
        if (lane_next_of_source(lane, &piece) != LANE_PIECE)
            return false;
        piece.end = min_u64(piece.end, lane->position + len);
        if (!piece.zeros)
            return read_source(lane, &piece);
        len = piece.end - piece.offset;
    }
    if (zeros < len && (!lane->free || !lane_rate_allows(lane, len)))
        return false;
    if (!known)
        digests_take_zeros(lane->shared->digests, lane->position, len);
    if (zeros < len)
        start_checking(lane, len);
    else
        check_zeros(lane, len);
    return true;
}

bool lane_verify_next(struct lane *lane, bool *over)
{
    uint64_t len, zeros;
    bool known;

    *over = false;
    if (lane->position == lane->run_end) {
        if (!tracker_take_unverified(lane->shared->tracker, lane->number, UINT64_MAX,
                                     &lane->position, &lane->run_end)) {
            *over = true;
            return false;
        }
        lane_walks_over(lane, lane->position, lane->run_end);
    }
    if (lane_zeros_of_target(lane, &zeros) != LANE_PIECE)
        return false;
    len = alike(lane, lane->position,
                min_u64(lane->run_end - lane->position, lane->shared->options->chunk), &known);
    return check_next(lane, len, known, zeros);
}
