/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "compare_lane.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <lunferry/units.h>

#define UNDECIDED UINT64_MAX

/* The ends by the names that the command gives them. */
static const char *const side_names[COMPARE_SIDES] = {"A", "B"};

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_DIFFERENT };

struct compare_slot {
    enum slot_state state;
    struct compare_lane *lane;
    uint64_t offset, len;
    unsigned outstanding; /* READs */
    struct {
        unsigned char *buffer;
        struct iovec iov;
        struct blk_req req;
    } side[COMPARE_SIDES];
    struct compare_slot *next, *previous; /* in use: by offset; free: next only */
};

/* ---- Slots ------------------------------------------------------------------------------------ */

static void set_state(struct compare_slot *slot, enum slot_state from, enum slot_state to)
{
    assert(slot->state == from);
    slot->state = to;
}

static struct compare_slot *take_free_slot(struct compare_lane *lane)
{
    struct compare_slot *slot = lane->free;

    lane->free = slot->next;
    slot->next = NULL;
    slot->previous = lane->newest;
    if (lane->newest)
        lane->newest->next = slot;
    else
        lane->oldest = slot;
    lane->newest = slot;
    return slot;
}

static void free_slot(struct compare_lane *lane, struct compare_slot *slot)
{
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

/* ---- What was found --------------------------------------------------------------------------- */

static bool has(const struct compare_lane *lane, enum compare_side side, uint64_t offset)
{
    return offset < lane->devs[side]->size;
}

static void note_first(struct compare_lane *lane, const struct compare_slot *slot)
{
    struct compare_result *result = lane->result;
    size_t at =
        first_difference(slot->side[COMPARE_A].buffer, slot->side[COMPARE_B].buffer, 0, slot->len);

    assert(at < slot->len);
    result->different = true;
    result->offset = slot->offset + at;
    for (unsigned side = 0; side < COMPARE_SIDES; side++)
        result->byte[side] =
            has(lane, side, result->offset) ? slot->side[side].buffer[at] : COMPARE_NO_BYTE;
}

/* Without an error: a difference does. False: something before it does already. */
static bool decides(struct compare_lane *lane, uint64_t offset)
{
    if (offset >= lane->limit)
        return false;
    lane->limit = offset;
    lane->result->status = 0;
    blk_error_clear(&lane->result->error);
    if (!lane->options->all)
        lane->result->different = false;
    return true;
}

static void fail(struct compare_lane *lane, uint64_t offset, enum compare_side side,
                 const struct blk_error *error)
{
    if (!decides(lane, offset))
        return;
    lane->result->status = -error->code;
    lane->result->error = *error;
    blk_error_prefix(&lane->result->error, "%s", side_names[side]);
}

/* Which side's error counts, where both have one: a reason rather than a cancelling, then A's. */
static bool read_failed(struct compare_slot *slot)
{
    const struct blk_req *a = &slot->side[COMPARE_A].req, *b = &slot->side[COMPARE_B].req;

    if (a->status == 0 && b->status == 0)
        return false;
    if (a->status < 0 && (a->status != -ECANCELED || b->status == 0 || b->status == -ECANCELED))
        fail(slot->lane, slot->offset, COMPARE_A, &a->error);
    else
        fail(slot->lane, slot->offset, COMPARE_B, &b->error);
    return true;
}

static bool came_short(struct compare_slot *slot)
{
    for (unsigned side = 0; side < COMPARE_SIDES; side++) {
        const struct blk_req *req = &slot->side[side].req;
        struct blk_error error;

        if (req->got == req->len)
            continue;
        blk_error_set(&error, EIO, "%s ended at offset %" PRIu64 ", %" PRIu64 " bytes early",
                      slot->lane->devs[side]->name, req->offset + req->got, req->len - req->got);
        fail(slot->lane, slot->offset, side, &error);
        return true;
    }
    return false;
}

/* Both READs are back. */
static void settle(struct compare_slot *slot)
{
    struct compare_lane *lane = slot->lane;
    bool differs;

    if (read_failed(slot) || came_short(slot)) {
        set_state(slot, SLOT_READING, SLOT_FREE);
        free_slot(lane, slot);
        return;
    }
    lane->result->bytes += slot->len;
    differs = memcmp(slot->side[COMPARE_A].buffer, slot->side[COMPARE_B].buffer, slot->len) != 0;
    if (differs && lane->options->all) {
        set_state(slot, SLOT_READING, SLOT_DIFFERENT);
        return;
    }
    if (differs && decides(lane, slot->offset))
        note_first(lane, slot);
    set_state(slot, SLOT_READING, SLOT_FREE);
    free_slot(lane, slot);
}

/* ---- The way of a chunk ----------------------------------------------------------------------- */

static void side_read(struct blk_req *req)
{
    struct compare_slot *slot = req->opaque;

    assert(slot->outstanding > 0);
    slot->lane->reading--;
    if (--slot->outstanding == 0)
        settle(slot);
    loop_defer(slot->lane->loop, &slot->lane->call);
}

static void read_side(struct compare_slot *slot, enum compare_side side)
{
    struct compare_lane *lane = slot->lane;
    struct blk_req *req = &slot->side[side].req;

    if (!has(lane, side, slot->offset)) {
        memset(slot->side[side].buffer, 0, slot->len);
        *req = (struct blk_req){.status = 0};
        return;
    }
    slot->side[side].iov = (struct iovec){slot->side[side].buffer, slot->len};
    *req = (struct blk_req){
        .op = BLK_READ,
        .offset = slot->offset,
        .len = slot->len,
        .iov = &slot->side[side].iov,
        .iovcnt = 1,
        .done = side_read,
        .opaque = slot,
    };
    slot->outstanding++;
    lane->reading++;
    blk_submit(lane->devs[side], req);
}

/* Chunks end at multiples of their size, so that those behind an odd end of the shorter device begin
 * at a block of the longer one. */
static void read_chunk(struct compare_lane *lane)
{
    struct compare_slot *slot = take_free_slot(lane);
    uint64_t chunk = lane->options->chunk;
    uint64_t end = lane->position < lane->common ? lane->common : lane->end;

    set_state(slot, SLOT_FREE, SLOT_READING);
    slot->offset = lane->position;
    slot->len = min_u64(end - slot->offset, chunk - slot->offset % chunk);
    lane->position += slot->len;
    read_side(slot, COMPARE_A);
    read_side(slot, COMPARE_B);
}

/* ---- The step --------------------------------------------------------------------------------- */

static void tell_range(struct runs *runs, uint64_t offset, uint64_t len)
{
    struct compare_lane *lane = container_of(runs, struct compare_lane, runs);

    lane->result->ranges++;
    lane->result->range_bytes += len;
    lane->options->range(lane->options->opaque, offset, len);
}

/* Differences before which all is known. */
static void tell_known(struct compare_lane *lane)
{
    struct compare_slot *slot;

    while ((slot = lane->oldest) && slot->state == SLOT_DIFFERENT && slot->offset < lane->limit) {
        if (!lane->result->different)
            note_first(lane, slot);
        runs_add(&lane->runs, slot->offset, slot->side[COMPARE_A].buffer,
                 slot->side[COMPARE_B].buffer, slot->len);
        set_state(slot, SLOT_DIFFERENT, SLOT_FREE);
        free_slot(lane, slot);
    }
    runs_settle(&lane->runs,
                min_u64(lane->limit, lane->oldest ? lane->oldest->offset : lane->position));
}

/* All before the limit is known: what is left is of no interest. */
static void drop_rest(struct compare_lane *lane)
{
    struct compare_slot *next;

    for (struct compare_slot *slot = lane->oldest; slot; slot = next) {
        next = slot->next;
        if (slot->state == SLOT_DIFFERENT) {
            set_state(slot, SLOT_DIFFERENT, SLOT_FREE);
            free_slot(lane, slot);
        }
    }
    if (lane->oldest && !lane->cancelled) {
        lane->cancelled = true;
        blk_cancel_all(lane->devs[COMPARE_A]);
        blk_cancel_all(lane->devs[COMPARE_B]);
    }
}

static void end(struct compare_lane *lane)
{
    assert(lane->reading == 0 && lane->state == COMPARE_LANE_RUNNING);
    runs_settle(&lane->runs, UINT64_MAX);
    lane->state = COMPARE_LANE_ENDED;
    lane->ended(lane);
}

static void step(struct loop_call *call)
{
    struct compare_lane *lane = container_of(call, struct compare_lane, call);

    if (lane->state != COMPARE_LANE_RUNNING)
        return;
    tell_known(lane);
    if (lane->limit != UNDECIDED && (!lane->oldest || lane->oldest->offset > lane->limit))
        drop_rest(lane);
    while (lane->free && lane->position < min_u64(lane->end, lane->limit))
        read_chunk(lane);
    if (!lane->oldest)
        end(lane);
}

/* ---- From outside ----------------------------------------------------------------------------- */

int compare_lane_start(struct compare_lane *lane)
{
    const struct compare_options *options = lane->options;
    uint64_t a = lane->devs[COMPARE_A]->size, b = lane->devs[COMPARE_B]->size;

    lane->buffer_bytes = (size_t)options->depth * COMPARE_SIDES * options->chunk;
    lane->slots = calloc(options->depth, sizeof(*lane->slots));
    /* Page-aligned, for direct I/O; pages that no slot ever uses cost nothing. */
    lane->buffers =
        mmap(NULL, lane->buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!lane->slots || lane->buffers == MAP_FAILED) {
        if (lane->buffers == MAP_FAILED)
            lane->buffers = NULL;
        compare_lane_release(lane);
        return -ENOMEM;
    }
    /* The slot that was freed last is taken first: with few in use, few buffers are touched. */
    for (unsigned i = options->depth; i-- > 0;) {
        struct compare_slot *slot = &lane->slots[i];

        slot->lane = lane;
        slot->side[COMPARE_A].buffer = lane->buffers + (size_t)2 * i * options->chunk;
        slot->side[COMPARE_B].buffer = slot->side[COMPARE_A].buffer + options->chunk;
        slot->next = lane->free;
        lane->free = slot;
    }
    lane->common = min_u64(a, b);
    lane->end = a > b ? a : b;
    lane->limit = UNDECIDED;
    lane->runs.tell = tell_range;
    lane->call.run = step;
    lane->state = COMPARE_LANE_RUNNING;
    loop_defer(lane->loop, &lane->call);
    return 0;
}

void compare_lane_stop(struct compare_lane *lane)
{
    if (lane->state != COMPARE_LANE_RUNNING)
        return;
    /* What has not been begun. What is in flight reports for itself. */
    if (lane->position < lane->end && decides(lane, lane->position))
        lane->result->status = blk_error_set(&lane->result->error, ECANCELED, "interrupted");
    if (!lane->cancelled) {
        lane->cancelled = true;
        blk_cancel_all(lane->devs[COMPARE_A]);
        blk_cancel_all(lane->devs[COMPARE_B]);
    }
    loop_defer(lane->loop, &lane->call);
}

void compare_lane_release(struct compare_lane *lane)
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
