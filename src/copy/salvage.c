/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "salvage.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <lunferry/units.h>

#define FILE_BLOCK UINT64_C(4096) /* where a device has no blocks of its own */

bool salvage_applies(const struct blk_error *error)
{
    return error->retry == BLK_MEDIUM;
}

/* ---- Ranges ----------------------------------------------------------------------------------- */

static uint64_t block_size(const struct blk_dev *dev)
{
    if (dev->limits.align == 1)
        return FILE_BLOCK;
    return dev->limits.align < 512 ? 512 : dev->limits.align;
}

static uint64_t end_of(const struct salvage *salvage)
{
    return salvage->offset + salvage->len;
}

/* Of the block that `at` lies in. */
static uint64_t block_end(const struct salvage *salvage)
{
    uint64_t block = block_size(salvage->dev);

    return min_u64(round_down(salvage->at, block) + block, end_of(salvage));
}

static uint64_t piece_size(const struct salvage *salvage)
{
    uint64_t block = block_size(salvage->dev);

    return block > SALVAGE_PIECE ? block : SALVAGE_PIECE;
}

/* Where the next READ ends: always at a block's end. */
static uint64_t next_end(const struct salvage *salvage)
{
    uint64_t block = block_size(salvage->dev), piece = piece_size(salvage), at = salvage->at;
    uint64_t middle;

    if (at >= salvage->suspect)
        return min_u64(end_of(salvage), min_u64(round_down(at, piece) + piece,
                                                round_down(at, block) + salvage->step));
    if (salvage->named != BLK_NO_OFFSET)
        return salvage->named > at ? salvage->named : block_end(salvage);
    middle = round_down(at + (salvage->suspect - at) / 2, block);
    return middle > at ? middle : block_end(salvage);
}

/* ---- What was found --------------------------------------------------------------------------- */

static void tell(struct salvage *salvage)
{
    if (salvage->count == 0)
        return;
    salvage->found(salvage->opaque, salvage->run, salvage->count);
    salvage->count = 0;
}

static void end(struct salvage *salvage, int status)
{
    tell(salvage);
    salvage->status = status;
    salvage->state = SALVAGE_IDLE;
    salvage->done(salvage);
}

static void give_up_block(struct salvage *salvage)
{
    uint64_t len = salvage->req.len;

    memset(salvage->buffer + (salvage->at - salvage->offset), 0, len);
    if (salvage->count == 0)
        salvage->run = salvage->at;
    salvage->count += len;
    salvage->bad += len;
    salvage->at += len;
    salvage->suspect = 0;
    salvage->step = block_size(salvage->dev);
}

static void medium_failed(struct salvage *salvage)
{
    const struct blk_req *req = &salvage->req;
    uint64_t end_of_req = req->offset + req->len;

    /* It was to be the first one. */
    if (salvage->named == end_of_req)
        salvage->names_wrongly = true;
    salvage->named = BLK_NO_OFFSET;
    if (end_of_req <= block_end(salvage)) {
        give_up_block(salvage);
        return;
    }
    salvage->suspect = end_of_req;
    if (!salvage->names_wrongly && req->bad_offset >= req->offset && req->bad_offset < end_of_req)
        salvage->named = round_down(req->bad_offset, block_size(salvage->dev));
}

static void succeeded(struct salvage *salvage)
{
    tell(salvage);
    if (salvage->named <= salvage->at) {
        salvage->names_wrongly = true;
        salvage->named = BLK_NO_OFFSET;
    }
    salvage->at += salvage->req.len;
    salvage->step = min_u64(2 * salvage->step, piece_size(salvage));
}

/* ---- The way ---------------------------------------------------------------------------------- */

static void read_next(struct salvage *salvage);

static void piece_read(struct blk_req *req)
{
    struct salvage *salvage = req->opaque;

    if (req->status < 0 && !salvage_applies(&req->error)) {
        salvage->error = req->error;
        end(salvage, req->status);
        return;
    }
    if (req->status < 0) {
        medium_failed(salvage);
    } else if (req->got < req->len) {
        end(salvage, blk_error_set(&salvage->error, EIO,
                                   "%s ended at offset %" PRIu64 ", %" PRIu64 " bytes early",
                                   salvage->dev->name, req->offset + req->got,
                                   end_of(salvage) - req->offset - req->got));
        return;
    } else {
        succeeded(salvage);
    }
    if (salvage->at == end_of(salvage))
        end(salvage, 0);
    else if (salvage->state == SALVAGE_STOPPING)
        end(salvage, blk_error_set(&salvage->error, ECANCELED, "interrupted"));
    else
        read_next(salvage);
}

static void read_next(struct salvage *salvage)
{
    uint64_t len = next_end(salvage) - salvage->at;

    salvage->iov = (struct iovec){salvage->buffer + (salvage->at - salvage->offset), len};
    salvage->req = (struct blk_req){
        .op = BLK_READ,
        .offset = salvage->at,
        .len = len,
        .iov = &salvage->iov,
        .iovcnt = 1,
        .done = piece_read,
        .opaque = salvage,
    };
    blk_submit(salvage->dev, &salvage->req);
}

void salvage_start(struct salvage *salvage)
{
    assert(salvage->len > 0);
    salvage->status = 0;
    blk_error_clear(&salvage->error);
    salvage->bad = 0;
    salvage->state = SALVAGE_READING;
    salvage->at = salvage->offset;
    salvage->suspect = 0;
    salvage->named = BLK_NO_OFFSET;
    salvage->step = piece_size(salvage);
    salvage->run = salvage->count = 0;
    salvage->names_wrongly = false;
    read_next(salvage);
}

void salvage_stop(struct salvage *salvage)
{
    if (salvage->state == SALVAGE_READING)
        salvage->state = SALVAGE_STOPPING;
}
