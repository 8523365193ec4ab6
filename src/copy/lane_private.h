/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of a lane share. Upwards each uses the ones below it only:
 *
 *   lane.c         the step: what starts when, and how it ends
 *   lane_verify.c  reading back
 *   lane_read.c    from the source to READY
 *   lane_write.c   from READY to the target
 *   lane_stream.c  a source without a size
 *   lane_next.c    what comes next, and of which kind it is
 *   lane_flush.c   making it durable
 *   lane_slot.c    slots, and errors
 */
#ifndef LUNFERRY_LANE_PRIVATE_H
#define LUNFERRY_LANE_PRIVATE_H

#include "lane.h"

/* ---- lane_slot.c ------------------------------------------------------------------------------ */

void slot_set_state(struct slot *slot, enum slot_state from, enum slot_state to);
struct slot *slot_take(struct lane *lane);
void slot_free(struct lane *lane, struct slot *slot);
/* A request for all of the slot's buffer. */
void slot_submit(struct slot *slot, struct blk_dev *dev, enum blk_op op, unsigned flags,
                 void (*done)(struct blk_req *));

/* The first error wins, and stops all lanes. */
void lane_fail(struct lane *lane, const struct blk_error *error, const char *side);
void lane_fail_with(struct lane *lane, int code, const char *side, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* What to call the reference in messages. */
const char *lane_reference_side(const struct lane *lane);

/* ---- lane_flush.c ----------------------------------------------------------------------------- */

void lane_flush_init(struct lane *lane);
bool lane_flush_is_due(const struct lane *lane);
/* One at a time; copying goes on beside it. */
void lane_flush(struct lane *lane);
/* A WRITE has come back with this epoch. */
void lane_note_epoch(struct lane *lane, uint64_t epoch);

/* ---- lane_next.c ------------------------------------------------------------------------------ */

/* What comes next: of one kind, in the source and, as far as that matters, in the target. */
struct lane_piece {
    uint64_t offset, end;
    bool zeros;       /* in the source */
    bool same;        /* on both ends, known */
    bool target_zero; /* known */
};

enum lane_answer {
    LANE_NOTHING, /* is left */
    LANE_PENDING, /* the walks' answers, or the lane is failing */
    LANE_PIECE,
};

int lane_walks_init(struct lane *lane);
void lane_walks_release(struct lane *lane);
/* Nothing more is to be known. */
void lane_walks_stop(struct lane *lane);
bool lane_walks_are_busy(const struct lane *lane);
/* Both walks go over [from, to) from now on, if they do not already. */
void lane_walks_over(struct lane *lane, uint64_t from, uint64_t to);

/* Has the reference to be read for it? */
bool lane_compares(const struct lane *lane, const struct lane_piece *piece);
/* Of what is to be copied. The caller moves lane->position. */
enum lane_answer lane_next(struct lane *lane, struct lane_piece *piece);
/* What the source has in [position, run_end), alone. */
enum lane_answer lane_next_of_source(struct lane *lane, struct lane_piece *piece);
/* Zeros that a device has at the position: how many, as far as is known. */
enum lane_answer lane_zeros_of_target(struct lane *lane, uint64_t *len);

/* ---- lane_stream.c ---------------------------------------------------------------------------- */

/* The slot's READ of a stream is back, with `got` bytes, which may be the last ones. The slot is READY, of
 * that length; false: or free, for there are none, or the lane has failed. */
bool lane_stream_arrived(struct slot *slot, uint64_t got);
/* All is written, and the end is known: gives a new file its size. False: there is nothing to do. */
bool lane_set_size(struct lane *lane);

/* ---- lane_write.c ----------------------------------------------------------------------------- */

/* The piece is on the target already. */
void lane_skip(struct lane *lane, uint64_t offset, uint64_t len);
/* Submits what is READY, in order. */
void lane_submit_writes(struct lane *lane);
/* Forgets what is READY, and the runs that were not submitted. */
void lane_drop_writes(struct lane *lane);

/* ---- lane_read.c ------------------------------------------------------------------------------ */

/* Zeros that no slot is needed for: their digests. */
void lane_take_zeros(struct lane *lane, uint64_t offset, uint64_t len);
/* Begins a slot that reads the piece from the source, or has its zeros. */
void lane_start_piece(struct lane *lane, const struct lane_piece *piece);

/* ---- lane_verify.c ---------------------------------------------------------------------------- */

/* Starts reading back the next part, if the rate allows: false, where nothing more can be started
 * now; *over: nothing is left to. */
bool lane_verify_next(struct lane *lane, bool *over);
/* What was read from the source for its digest only. */
void lane_check_ready(struct lane *lane);

/* ---- lane.c ----------------------------------------------------------------------------------- */

/* May `len` bytes be started now? Otherwise the lane is woken when they may. */
bool lane_rate_allows(struct lane *lane, uint64_t len);

#endif
