/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a lane flushes its target, and what becomes of what a FLUSH does not cover. */
#include "lane_private.h"

#include <errno.h>
#include <inttypes.h>

#include <lunferry/units.h>

/* Beyond the first of these losses in a row, each write is made durable by itself. */
#define MAX_LOSING 4

/* The interval: a FLUSH beside the copy costs little, yet each is a round trip and a target's sync. */
#define FLUSH_MIN_BYTES (4 * MIB)
#define FLUSH_MAX_BYTES (8 * GIB)
#define FLUSH_NS        (15 * LOOP_SECOND)
#define FLUSH_MIN_NS    (LOOP_SECOND / 4)
#define FLUSH_MAX_NS    (120 * LOOP_SECOND)

static uint64_t clamp(uint64_t value, uint64_t min, uint64_t max)
{
    return value < min ? min : min_u64(value, max);
}

static void set_interval(struct lane *lane, uint64_t bytes, uint64_t ns)
{
    uint64_t most = lane->shared->options->flush_bytes;

    lane->flush_bytes = clamp(bytes, FLUSH_MIN_BYTES, most > 0 ? most : FLUSH_MAX_BYTES);
    if (most > 0 && most < FLUSH_MIN_BYTES)
        lane->flush_bytes = most;
    lane->flush_ns = clamp(ns, FLUSH_MIN_NS, FLUSH_MAX_NS);
    lane->flush_at = loop_now(lane->loop) + lane->flush_ns;
}

static void note_loss(struct lane *lane, uint64_t lost)
{
    atomic_fetch_sub_explicit(&lane->shared->done, lost, memory_order_relaxed);
    atomic_fetch_add_explicit(&lane->shared->lost, lost, memory_order_relaxed);
    set_interval(lane, lane->flush_bytes / 2, lane->flush_ns / 2);
    if (++lane->losing >= MAX_LOSING)
        lane->fua = true;
}

static void flushed(struct blk_req *req)
{
    struct lane *lane = req->opaque;
    struct lane_shared *shared = lane->shared;
    /* What failed may be what this FLUSH would vouch for: a deferred error of an earlier write. */
    bool doubtful = req->status < 0 || atomic_load(&shared->failed);
    uint64_t first = 0, lost;

    lane->flushing = false;
    lost = tracker_flush_end(shared->tracker, lane->number, doubtful ? BLK_NO_EPOCH : req->epoch,
                             &first);
    if (req->status < 0) {
        lane_fail(lane, &req->error, "target");
    } else if (doubtful) {
        /* the job ends, and nothing of this is on record */
    } else if (lost > 0 && shared->options->settings.give_up == 0) {
        lane_fail_with(lane, EIO, "target",
                       "%s: the server lost data that it had acknowledged but not yet made durable "
                       "(it was restarted): %" PRIu64
                       " bytes, the first of them at or after offset "
                       "%" PRIu64 "; copy again",
                       lane->target->name, lost, first);
    } else if (lost > 0) {
        note_loss(lane, lost);
    } else {
        lane->losing = 0;
        set_interval(lane, 2 * lane->flush_bytes, 2 * lane->flush_ns);
    }
    if (!doubtful) {
        lane->epoch = req->epoch;
        atomic_fetch_add(&shared->flushes, 1);
        if (shared->flushed)
            shared->flushed(shared);
    }
    loop_defer(lane->loop, &lane->call);
}

void lane_flush(struct lane *lane)
{
    lane->flushing = true;
    tracker_flush_begin(lane->shared->tracker, lane->number);
    lane->flush = (struct blk_req){.op = BLK_FLUSH, .done = flushed, .opaque = lane};
    blk_submit(lane->target, &lane->flush);
}

bool lane_flush_is_due(const struct lane *lane)
{
    uint64_t bytes = tracker_unflushed(lane->shared->tracker, lane->number);

    return !lane->flushing && bytes > 0 &&
           (bytes >= lane->flush_bytes || loop_now(lane->loop) >= lane->flush_at);
}

/* Another epoch than before: what the old one took with it is found by a FLUSH, better now than when
 * the interval is over. */
void lane_note_epoch(struct lane *lane, uint64_t epoch)
{
    if (lane->epoch != BLK_NO_EPOCH && epoch != lane->epoch)
        lane->flush_at = loop_now(lane->loop);
    lane->epoch = epoch;
}

void lane_flush_init(struct lane *lane)
{
    uint64_t most = lane->shared->options->flush_bytes;

    set_interval(lane, most > 0 ? most : GIB, FLUSH_NS);
}
