/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a lane does next: where, and of which kind that is in the source and in the target. */
#include "lane_private.h"

#include <assert.h>
#include <errno.h>

#include <lunferry/units.h>

/* ---- The walks -------------------------------------------------------------------------------- */

static void walk_ready(struct walk *walk)
{
    lane_kick(walk->opaque);
}

int lane_walks_init(struct lane *lane)
{
    lane->source_walk = (struct walk){
        .dev = lane->source,
        .merge = LANE_SHORT_HOLE,
        .same_until = lane->shared->same_until,
        .same_depth = lane->shared->same_depth,
        .ready = walk_ready,
        .opaque = lane,
    };
    lane->target_walk = (struct walk){
        .dev = lane->reference ? lane->reference : lane->target,
        .merge = LANE_SHORT_HOLE,
        .ready = walk_ready,
        .opaque = lane,
    };
    lane->walk_from = lane->walk_end = 0;
    if (walk_init(&lane->source_walk) < 0)
        return -ENOMEM;
    if (walk_init(&lane->target_walk) < 0) {
        walk_release(&lane->source_walk);
        return -ENOMEM;
    }
    return 0;
}

void lane_walks_release(struct lane *lane)
{
    walk_release(&lane->source_walk);
    walk_release(&lane->target_walk);
}

void lane_walks_stop(struct lane *lane)
{
    walk_stop(&lane->source_walk);
    walk_stop(&lane->target_walk);
    lane->walk_from = lane->walk_end = 0;
}

bool lane_walks_are_busy(const struct lane *lane)
{
    return walk_is_busy(&lane->source_walk) || walk_is_busy(&lane->target_walk);
}

/* May it be asked of the target what is zero there? What was written to once may be zeros that are not
 * durable, so that skipping them would count on what a restart undoes. */
static bool target_counts(const struct lane *lane, uint64_t from)
{
    const struct lane_shared *shared = lane->shared;

    if (lane->state == LANE_VERIFYING)
        return true;
    if (from >= lane->target_walk.dev->size) /* a stream may be longer */
        return false;
    return shared->options->zero_unit > 0 && !lane->again && shared->target_tells &&
           from < shared->zero_from && (lane->target_walk.dev->caps & BLK_CAN_EXTENTS);
}

void lane_walks_over(struct lane *lane, uint64_t from, uint64_t to)
{
    lane->walk_from = from;
    lane->walk_end = to;
    walk_over(&lane->source_walk, from, to);
    if (target_counts(lane, from))
        walk_over(&lane->target_walk, from, min_u64(to, lane->target_walk.dev->size));
    else
        walk_stop(&lane->target_walk);
}

/* What lies at the position. False: it is not known yet. Nothing more follows an error: a run that is open then
 * would stay so for ever. */
static bool look(struct lane *lane, struct walk *walk, const char *side, struct walk_run *run)
{
    if (walk_at(walk, lane->position, run) && !(run->open && walk->error.code != 0))
        return true;
    if (walk->error.code != 0) {
        lane_fail(lane, &walk->error, side);
        lane_kick(lane);
    }
    return false;
}

/* ---- Where ------------------------------------------------------------------------------------ */

static void begin_run(struct lane *lane, bool again, uint64_t walk_end)
{
    bool covered =
        !again && !lane->again && lane->position >= lane->walk_from && walk_end <= lane->walk_end;

    lane->again = again;
    if (covered)
        lane->walk_from = lane->position;
    else
        lane_walks_over(lane, lane->position, walk_end);
}

/* What was lost, then what the plan has that is not durable yet. */
static bool next_run(struct lane *lane)
{
    struct lane_shared *shared = lane->shared;
    uint64_t until;

    if (lane->position < lane->run_end)
        return true;
    if (tracker_take_lost(shared->tracker, lane->number, UINT64_MAX, &lane->position,
                          &lane->run_end)) {
        if (shared->digests)
            digests_forget(shared->digests, lane->position, lane->run_end - lane->position);
        begin_run(lane, true, lane->run_end);
        return true;
    }
    do {
        if (lane->segment == lane->segment_end &&
            !plan_take(&shared->plan, &lane->segment, &lane->segment_end))
            return false;
        lane->position = lane->segment;
        until = lane->segment_end;
        if (!shared->stream)
            lane->position = tracker_skip_begun(shared->tracker, lane->segment, until, &until);
        lane->segment = lane->run_end = until;
    } while (lane->position == lane->run_end);
    begin_run(lane, false, lane->segment_end);
    return true;
}

/* ---- Of which kind ---------------------------------------------------------------------------- */

bool lane_compares(const struct lane *lane, const struct lane_piece *piece)
{
    return lane->shared->compare && lane->state == LANE_COPYING && !lane->again && !piece->same &&
           !piece->target_zero && piece->offset < lane->shared->whole_from;
}

enum lane_answer lane_next_of_source(struct lane *lane, struct lane_piece *piece)
{
    const struct lane_shared *shared = lane->shared;
    uint64_t offset = lane->position, unit = shared->unit;
    uint64_t most = min_u64(lane->run_end, offset + shared->options->chunk);
    struct walk_run run;

    if (!look(lane, &lane->source_walk, "source", &run))
        return LANE_PENDING;
    *piece = (struct lane_piece){.offset = offset};
    if (run.kind != WALK_DATA) {
        piece->end = run.end >= lane->run_end ? lane->run_end : round_down(run.end, unit);
        if (piece->end > offset) {
            piece->zeros = run.kind == WALK_ZEROS;
            piece->same = run.kind == WALK_SAME;
            return LANE_PIECE;
        }
        /* A part of a unit: it goes with what follows. */
        if (run.open || !walk_next(&lane->source_walk, &run))
            return LANE_PENDING;
        if (run.kind != WALK_DATA) {
            piece->end = min_u64(round_up(offset + 1, unit), most);
            return LANE_PIECE;
        }
    }
    if (run.open && run.end < most)
        return LANE_PENDING; /* else where the device cuts its answers would show in the requests */
    piece->end = min_u64(round_up(run.end, unit), most);
    return LANE_PIECE;
}

/* Cuts the piece to where the target is of one kind. */
static enum lane_answer look_at_target(struct lane *lane, struct lane_piece *piece)
{
    uint64_t offset = piece->offset, unit = lane->shared->unit, end;
    struct walk_run run;

    if (!look(lane, &lane->target_walk, lane_reference_side(lane), &run))
        return LANE_PENDING;
    if (run.open && run.end < piece->end && !piece->zeros)
        return LANE_PENDING;
    end = run.end >= piece->end ? piece->end : round_down(run.end, unit);
    if (run.kind == WALK_ZEROS && end > offset &&
        (end == piece->end || piece->zeros || end - offset >= LANE_SHORT_HOLE)) {
        piece->end = end;
        piece->target_zero = true;
    } else if (piece->zeros) {
        piece->end = min_u64(piece->end, round_up(run.end, unit));
    }
    return LANE_PIECE;
}

/* True: the piece lies where everything is written. Otherwise it ends there at the latest. */
static bool is_written_whole(const struct lane *lane, struct lane_piece *piece)
{
    uint64_t from = lane->shared->whole_from;

    if (piece->offset < from) {
        piece->end = min_u64(piece->end, from);
        return false;
    }
    if (piece->same)
        piece->end = min_u64(piece->end, piece->offset + lane->shared->options->chunk);
    piece->same = false;
    return true;
}

enum lane_answer lane_next(struct lane *lane, struct lane_piece *piece)
{
    const struct lane_shared *shared = lane->shared;
    enum lane_answer answer;

    if (!next_run(lane))
        return LANE_NOTHING;
    answer = lane_next_of_source(lane, piece);
    if (answer != LANE_PIECE || is_written_whole(lane, piece) || piece->same ||
        shared->options->zero_unit == 0)
        return answer;
    if (!lane->again && piece->offset >= shared->zero_from) {
        piece->target_zero = true;
        return LANE_PIECE;
    }
    return target_counts(lane, piece->offset) ? look_at_target(lane, piece) : LANE_PIECE;
}

enum lane_answer lane_zeros_of_target(struct lane *lane, uint64_t *len)
{
    struct walk_run run;

    *len = 0;
    if (!look(lane, &lane->target_walk, "target", &run))
        return LANE_PENDING;
    if (run.kind == WALK_ZEROS)
        *len = run.end - lane->position;
    return LANE_PIECE;
}
