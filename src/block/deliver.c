/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The way back: pieces are folded into the caller's request, which is reported when the last is in.
 * All of it runs as one deferred call per device, so that no caller is called from inside its own
 * blk_submit(), whatever the driver does. */
#include "middle.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <lunferry/units.h>

void blk_complete(struct blk_req *req, int status)
{
    struct blk_middle *middle = req->dev->middle;

    assert(status <= 0);
    assert(status == 0 || status == -ECANCELED || req->error.code != 0);
    req->status = status;
    piece_list_add(&middle->completed, req);
    loop_defer(req->dev->loop, &middle->call);
}

void middle_end(struct blk_dev *dev, struct blk_req *req, int status)
{
    req->status = status;
    piece_list_add(&dev->middle->finished, req);
    loop_defer(dev->loop, &dev->middle->call);
}

static const char *op_name(enum blk_op op)
{
    switch (op) {
    case BLK_READ:
        return "reading";
    case BLK_WRITE:
        return "writing";
    case BLK_ZERO:
        return "zeroing";
    case BLK_FLUSH:
        return "flushing";
    case BLK_EXTENTS:
        return "asking for the extents of";
    case BLK_DISCARD:
        return "discarding";
    }
    return "?";
}

static void report(struct blk_dev *dev, struct blk_req *req)
{
    dev->middle->callers--;
    retry_end(&dev->middle->retry);
    if (req->status < 0 && req->error.code == 0)
        blk_error_set(&req->error, -req->status, "cancelled");
    if (req->status < 0 && !req->error.whole) {
        if (req->op == BLK_FLUSH)
            blk_error_prefix(&req->error, "flushing %s", dev->name);
        else
            blk_error_prefix(&req->error, "%s %s at offset %" PRIu64, op_name(req->op), dev->name,
                             req->bad_offset != BLK_NO_OFFSET ? req->bad_offset : req->offset);
        req->error.whole = true;
    }
    req->done(req);
}

/* All pieces are in. */
static void finish(struct blk_dev *dev, struct blk_req *req)
{
    bool needs_flush =
        (req->flags & BLK_FUA) && (req->op == BLK_WRITE || req->op == BLK_ZERO) && !req->durable;

    if (req->status == 0 && needs_flush && req->stage != PARENT_FLUSHING) {
        req->stage = PARENT_FLUSHING;
        if (middle_flush_for(dev, req))
            return;
        req->status = blk_error_set(&req->error, ENOMEM, "out of memory");
    }
    if (req->status == 0 && (req->flags & BLK_FUA))
        req->durable = true;
    report(dev, req);
}

/* The part of a piece that the caller asked for: all of it, but where it is a whole block around a
 * part of one. */
static uint64_t wanted_part(const struct blk_req *req, uint64_t *skip_piece, uint64_t *skip_parent)
{
    const struct blk_req *parent = req->parent;
    uint64_t from = req->offset > parent->offset ? req->offset : parent->offset;
    uint64_t to = min_u64(req->offset + req->len, parent->offset + parent->len);

    *skip_piece = from - req->offset;
    *skip_parent = from - parent->offset;
    return to - from;
}

/* The block has been read; change it and write it back. */
static void change_block(struct blk_dev *dev, struct blk_req *req)
{
    struct piece *piece = piece_of(req);
    uint64_t skip_piece, skip_parent, len = wanted_part(req, &skip_piece, &skip_parent);
    unsigned char *part = (unsigned char *)piece->bounce + skip_piece;

    if (req->parent->op == BLK_ZERO)
        memset(part, 0, len);
    else
        blk_iov_to(req->parent, skip_parent, part, len);
    /* The driver may have changed both. */
    piece->iov[0] = (struct iovec){piece->bounce, req->len};
    req->iov = piece->iov;
    req->iovcnt = 1;
    req->op = BLK_WRITE;
    req->stage = PIECE_BLOCK_WRITE;
    middle_resubmit(dev, req);
}

static void fold_error(struct blk_req *parent, const struct blk_req *req)
{
    /* A real reason beats "cancelled", otherwise the first one wins. */
    if (parent->status < 0 && !(parent->status == -ECANCELED && req->status != -ECANCELED))
        return;
    parent->status = req->status;
    parent->error = req->error;
    parent->bad_offset = req->bad_offset;
}

/* Drivers decode what foreign servers say; what they make of it holds to the contract. */
static void check_extents(const struct blk_req *req)
{
    const struct blk_extents *extents = req->extents;
    uint64_t at = req->offset, end = req->offset + req->len;

    assert(extents->count >= 1 && extents->count <= extents->capacity);
    for (size_t i = 0; i < extents->count; i++) {
        assert(extents->list[i].offset == at);
        assert(extents->list[i].len > 0 && extents->list[i].len <= end - at);
        at += extents->list[i].len;
    }
}

static void fold_success(struct blk_req *parent, struct blk_req *req)
{
    if (req->stage == PIECE_FLUSH_FOR_FUA) {
        if (req->epoch == BLK_NO_EPOCH || req->epoch != parent->epoch)
            parent->status = blk_error_set_retry(
                &parent->error, EIO, BLK_REPEAT,
                "the server restarted between the write and its flush; the data may be lost");
        return;
    }
    if (parent->op == BLK_EXTENTS)
        check_extents(parent);
    if (parent->op == BLK_READ) {
        uint64_t skip_piece, skip_parent, len = wanted_part(req, &skip_piece, &skip_parent);
        uint64_t got = req->got > skip_piece ? min_u64(req->got - skip_piece, len) : 0;

        if (piece_of(req)->bounce)
            blk_iov_from(parent, skip_parent, (unsigned char *)piece_of(req)->bounce + skip_piece,
                         got);
        parent->got += got;
    }
    if (parent->stage == PARENT_NEW) {
        parent->epoch = req->epoch;
        parent->durable = req->durable;
    } else {
        if (parent->epoch != req->epoch)
            parent->epoch = BLK_NO_EPOCH;
        parent->durable = parent->durable && req->durable;
    }
    parent->stage = PARENT_STARTED;
}

/* So often one range is tried to be zeroed by another means. Each refusal leaves less of them. */
#define MAX_REFUSALS 8

/* True: the driver cannot do it after all, and it will be done by what is left. */
static bool refused(struct blk_dev *dev, struct blk_req *req)
{
    struct blk_middle *middle = dev->middle;

    if (req->status != -ENOTSUP || dev->driver->relays)
        return false;
    if (req->op == BLK_EXTENTS) {
        middle_answer_data(req->parent);
        req->status = 0;
    }
    if (req->op != BLK_ZERO || req->restarts == MAX_REFUSALS)
        return false;
    if (middle->state != MIDDLE_OPEN || middle->retry.state == RETRY_GONE) {
        req->status = -ECANCELED;
        blk_error_clear(&req->error);
        return false;
    }
    req->restarts++;
    piece_list_add(&middle->refused, req);
    return true;
}

/* True: an answer that is no success was not the last word. */
static bool repeat(struct blk_dev *dev, struct blk_req *req)
{
    struct blk_middle *middle = dev->middle;

    return req->status < 0 && req->status != -ECANCELED && req->parent->status == 0 &&
           middle->state == MIDDLE_OPEN &&
           retry_keep(&middle->retry, &piece_of(req)->item, &req->error);
}

/* What was lost between a write and the FLUSH that was to make it durable is written once more. */
#define MAX_RESTARTS 10

static bool restart(struct blk_dev *dev, struct blk_req *parent)
{
    struct blk_middle *middle = dev->middle;

    if (parent->error.retry != BLK_REPEAT || parent->stage != PARENT_FLUSHING ||
        parent->restarts == MAX_RESTARTS || middle->state != MIDDLE_OPEN ||
        !retry_may_repeat(&middle->retry))
        return false;
    retry_tell(&middle->retry, BLK_REPEATED, "%s", parent->error.text);
    middle_restart(dev, parent);
    return true;
}

static void take_back(struct blk_dev *dev, struct blk_req *req)
{
    struct blk_middle *middle = dev->middle;
    struct blk_req *parent = req->parent;

    assert(parent->pieces > 0);
    if (piece_of(req)->at_driver) {
        piece_of(req)->at_driver = false;
        middle->in_driver--;
        /* What the medium has lost is an answer, too: salvaging gets on. */
        retry_answered(&middle->retry, req->status == 0 || req->error.retry == BLK_MEDIUM);
    }
    if (refused(dev, req) || repeat(dev, req))
        return;
    if (req->status == -ECANCELED && middle->retry.state == RETRY_GONE) {
        req->error = middle->retry.error;
        req->status = -req->error.code;
    }
    parent->pieces--;
    if (req->status == 0 && req->stage == PIECE_BLOCK_READ && parent->status == 0) {
        change_block(dev, req);
        return;
    }
    if (req->stage == PIECE_BLOCK_READ || req->stage == PIECE_BLOCK_WRITE)
        middle->changing_a_block = false;
    if (req->status < 0) {
        fold_error(parent, req);
        middle_forget(dev, parent);
        parent->resume = parent->offset + parent->len;
    } else {
        fold_success(parent, req);
    }
    middle_free_piece(dev, req);
    if (parent->pieces == 0 && (parent->status < 0 || !middle_has_more(parent)) &&
        !(parent->status < 0 && restart(dev, parent)))
        finish(dev, parent);
}

void middle_deliver(struct loop_call *call)
{
    struct blk_middle *middle = container_of(call, struct blk_middle, call);
    struct blk_dev *dev = middle->dev;
    struct piece_list completed = middle->completed, finished = middle->finished;
    struct blk_req *req;

    /* Only what is here now: done() may submit more, which belongs to the next turn. */
    if (!completed.head)
        completed.end = &completed.head;
    if (!finished.head)
        finished.end = &finished.head;
    piece_list_init(&middle->completed);
    piece_list_init(&middle->finished);
    while ((req = piece_list_take(&completed)))
        take_back(dev, req);
    while ((req = piece_list_take(&finished)))
        report(dev, req);
    middle_pump(dev);
    middle_tasks(dev);
}
