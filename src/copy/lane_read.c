/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From the source to READY: data is read, around bad blocks if need be; zeros are there at once. */
#include "lane_private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

void lane_take_zeros(struct lane *lane, uint64_t offset, uint64_t len)
{
    if (lane->shared->digests)
        digests_take_zeros(lane->shared->digests, offset, len);
    if (lane->shared->list)
        digest_list_take_zeros(lane->shared->list, offset, len);
}

/* The slot's bytes are there. */
static void take_digests(struct slot *slot)
{
    struct lane *lane = slot->lane;
    struct lane_shared *shared = lane->shared;

    if (slot->zeros) {
        lane_take_zeros(lane, slot->offset, slot->len);
        return;
    }
    if (shared->digests)
        digests_take(shared->digests, lane->digest, slot->offset, slot->buffer, slot->len);
    if (shared->list)
        digest_list_take(shared->list, lane->digest, slot->offset, slot->buffer, slot->len);
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
    slot_set_state(slot, SLOT_SALVAGING, SLOT_READY);
    if (salvage->status < 0)
        lane_fail(lane, &salvage->error, "source");
    else
        take_digests(slot);
    loop_defer(lane->loop, &lane->call);
}

static void salvage(struct lane *lane, struct slot *slot)
{
    slot->damaged = false;
    slot_set_state(slot, SLOT_READING, SLOT_SALVAGING);
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
    slot_set_state(slot, SLOT_READING, SLOT_FREE);
    slot_free(lane, slot);
    loop_defer(lane->loop, &lane->call);
}

static void take_read(struct slot *slot);

/* ---- The reference ---------------------------------------------------------------------------- */

static void reference_read(struct blk_req *req)
{
    struct slot *slot = req->opaque;
    struct lane *lane = slot->lane;

    /* Blocks of a target that cannot be read are often mended by a write. */
    if (req->status < 0 && req->error.retry == BLK_MEDIUM && lane->reference == lane->target)
        slot->compared = false;
    else if (req->status < 0)
        lane_fail(lane, &req->error, lane_reference_side(lane));
    else if (req->got < req->len)
        lane_fail_with(lane, EIO, lane_reference_side(lane),
                       "%s ended at offset %" PRIu64 ", %" PRIu64 " bytes early",
                       lane->reference->name, req->offset + req->got, req->len - req->got);
    take_read(slot);
}

/* [from, to) of the slot. */
static void read_reference(struct slot *slot, uint64_t from, uint64_t to)
{
    slot->reference_iov = (struct iovec){slot->reference + from, to - from};
    slot->reference_req = (struct blk_req){
        .op = BLK_READ,
        .offset = slot->offset + from,
        .len = to - from,
        .iov = &slot->reference_iov,
        .iovcnt = 1,
        .done = reference_read,
        .opaque = slot,
    };
    slot->outstanding++;
    blk_submit(slot->lane->reference, &slot->reference_req);
}

/* Is the block that begins there the same, by its digest? The base may be shorter: of its last block is
 * known only what is in it. */
static bool has_digest_of_base(const struct slot *slot, uint64_t at)
{
    const struct digest_list *here = slot->lane->shared->list;
    const struct digest_list *base = slot->lane->shared->base_list;
    uint64_t offset = slot->offset + at, block = digest_list_block(here);
    uint64_t end = min_u64(offset + block, digest_list_size(here));
    uint8_t a[DIGEST_SIZE], b[DIGEST_SIZE];
    enum digest_mark mark;

    if (offset >= digest_list_size(base) || end != min_u64(offset + block, digest_list_size(base)))
        return false;
    mark = digest_list_get(here, offset / block, a);
    return mark == digest_list_get(base, offset / block, b) &&
           (mark == DIGEST_ZEROS || memcmp(a, b, sizeof(a)) == 0);
}

/* What is the same need not be read to be known. False: there is nothing else. */
static bool read_what_differs(struct slot *slot)
{
    uint64_t block = digest_list_block(slot->lane->shared->list), from = slot->len, to = 0;

    for (uint64_t at = 0; at < slot->len; at += block) {
        uint64_t len = min_u64(block, slot->len - at);

        if (has_digest_of_base(slot, at)) {
            memcpy(slot->reference + at, slot->buffer + at, len);
            continue;
        }
        from = min_u64(from, at);
        to = at + len;
    }
    if (from < to)
        read_reference(slot, from, to);
    return from < to;
}

/* ---- The source -------------------------------------------------------------------------------- */

/* One of the reads is back. */
static void take_read(struct slot *slot)
{
    struct lane *lane = slot->lane;

    if (--slot->outstanding > 0)
        return;
    if (slot->damaged && !lane->draining) {
        slot->compared = slot->compared && !slot->by_digest; /* nobody has read it */
        salvage(lane, slot);
        return;
    }
    if (slot->by_digest && !atomic_load(&lane->shared->stopping)) {
        take_digests(slot);
        slot->by_digest = false;
        slot->taken = true;
        if (read_what_differs(slot))
            return;
    }
    lane->reading--;
    slot_set_state(slot, SLOT_READING, SLOT_READY);
    if (!slot->taken && !atomic_load(&lane->shared->stopping) &&
        (!lane->shared->stream || lane_stream_arrived(slot, slot->req.got)))
        take_digests(slot);
    loop_defer(lane->loop, &lane->call);
}

static void chunk_read(struct blk_req *req)
{
    struct slot *slot = req->opaque;
    struct lane *lane = slot->lane;

    if (req->status < 0 && lane->shared->options->salvage && !lane->draining &&
        salvage_applies(&req->error)) {
        if (lane->state == LANE_VERIFYING) {
            cannot_be_verified(lane, slot);
            return;
        }
        slot->damaged = true;
    } else if (req->status < 0) {
        lane_fail(lane, &req->error, "source");
    } else if (req->got < slot->len && !lane->shared->stream) {
        lane_fail_with(lane, EIO, "source",
                       "%s ended at offset %" PRIu64 ", %" PRIu64 " bytes early",
                       lane->source->name, slot->offset + req->got, slot->len - req->got);
    }
    take_read(slot);
}

/* ---- The start -------------------------------------------------------------------------------- */

void lane_start_piece(struct lane *lane, const struct lane_piece *piece)
{
    struct slot *slot = slot_take(lane);

    slot->offset = piece->offset;
    slot->len = piece->end - piece->offset;
    slot->zeros = piece->zeros;
    slot->data = !piece->zeros;
    slot->target_zero = piece->target_zero;
    slot->same = piece->same;
    slot->compared = lane_compares(lane, piece);
    slot->by_digest = slot->compared && lane->shared->base_list;
    slot->damaged = slot->taken = false;
    slot->outstanding = 0;
    if (slot->zeros && (slot->compared || lane->shared->options->zero_unit == 0)) {
        memset(slot->buffer, 0, slot->len); /* like data from now on */
        slot->zeros = false;
    }
    if (!slot->data && !slot->compared) {
        slot_set_state(slot, SLOT_FREE, SLOT_READY);
        take_digests(slot);
        loop_defer(lane->loop, &lane->call);
        return;
    }
    slot_set_state(slot, SLOT_FREE, SLOT_READING);
    lane->reading++;
    if (slot->data) {
        slot->outstanding++;
        slot_submit(slot, lane->source, BLK_READ, 0, chunk_read);
    }
    if (slot->compared && !slot->by_digest)
        read_reference(slot, 0, slot->len);
    if (slot->outstanding == 0) { /* zeros, whose digests are known */
        slot->outstanding = 1;
        take_read(slot);
    }
}
