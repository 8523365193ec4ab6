/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The way in: a caller's request is checked, then handed to the driver in pieces that it takes. */
#include "middle.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include <lunferry/units.h>

/* ---- Checking --------------------------------------------------------------------------------- */

static uint64_t iov_length(const struct blk_req *req)
{
    uint64_t len = 0;

    for (int i = 0; i < req->iovcnt; i++)
        len += req->iov[i].iov_len;
    return len;
}

static int check(const struct blk_dev *dev, struct blk_req *req)
{
    if (dev->middle->state != MIDDLE_OPEN)
        return blk_error_set(&req->error, ECANCELED, "cancelled");
    if (dev->middle->retry.state == RETRY_GONE) {
        req->error = dev->middle->retry.error;
        return -req->error.code;
    }
    if (req->op == BLK_FLUSH)
        return 0;
    if (req->len == 0 || req->len > dev->size || req->offset > dev->size - req->len)
        return blk_error_set(&req->error, EINVAL,
                             "%" PRIu64 " bytes lie outside of the device, which has %" PRIu64,
                             req->len, dev->size);
    if ((req->op == BLK_WRITE || req->op == BLK_ZERO || req->op == BLK_DISCARD) && !dev->writable)
        return blk_error_set(&req->error, EROFS, "opened for reading only");
    if (req->op == BLK_DISCARD && !(dev->caps & BLK_CAN_DISCARD))
        return blk_error_set(&req->error, ENOTSUP, "its space cannot be freed");
    if ((req->op == BLK_READ || req->op == BLK_WRITE) && iov_length(req) != req->len)
        return blk_error_set(&req->error, EINVAL, "the buffers do not add up to the length");
    if (req->op == BLK_EXTENTS && req->extents->capacity == 0)
        return blk_error_set(&req->error, EINVAL, "no room for an extent");
    return 0;
}

void middle_answer_data(struct blk_req *req)
{
    req->extents->list[0] = (struct blk_extent){
        .offset = req->offset,
        .len = req->len,
        .kind = BLK_DATA,
        .host_offset = BLK_NO_OFFSET,
    };
    req->extents->count = 1;
}

void blk_submit(struct blk_dev *dev, struct blk_req *req)
{
    struct blk_middle *middle = dev->middle;
    int status;

    req->dev = dev;
    req->parent = NULL;
    req->resume = req->offset;
    req->pieces = 0;
    req->stage = PARENT_NEW;
    req->restarts = 0;
    req->status = 0;
    blk_error_clear(&req->error);
    req->got = 0;
    req->bad_offset = BLK_NO_OFFSET;
    req->epoch = BLK_NO_EPOCH;
    req->durable = false;
    middle->callers++;
    retry_begin(&middle->retry);

    status = check(dev, req);
    if (status == 0 && req->op == BLK_EXTENTS && !(dev->caps & BLK_CAN_EXTENTS)) {
        middle_answer_data(req);
        middle_end(dev, req, 0);
        return;
    }
    /* Of a range to be discarded there may be nothing left. */
    if (status < 0 || !middle_has_more(req)) {
        middle_end(dev, req, status);
        return;
    }
    piece_list_add(&middle->waiting, req);
    middle_pump(dev);
}

/* ---- Pieces ----------------------------------------------------------------------------------- */

bool middle_has_more(const struct blk_req *req)
{
    uint64_t from = req->resume, end = req->offset + req->len;
    bool whole_block;

    if (req->op == BLK_FLUSH || req->op == BLK_EXTENTS)
        return req->pieces == 0 && req->stage == PARENT_NEW;
    if (req->op == BLK_DISCARD)
        return from < end && middle_cut(req->dev, req, &from, end, &whole_block) > 0;
    return from < end;
}

static void start_piece(struct blk_dev *dev, struct blk_req *req, struct blk_req *parent)
{
    req->dev = dev;
    req->parent = parent;
    req->flags = middle_flags(dev, req);
    req->status = 0;
    blk_error_clear(&req->error);
    req->got = req->op == BLK_READ ? req->len : 0;
    req->bad_offset = BLK_NO_OFFSET;
    req->epoch = BLK_NO_EPOCH;
    req->durable = false;
    req->extents = parent->extents;
}

/* Is there a capability less than when it was made? */
static bool is_outdated(const struct blk_dev *dev, const struct blk_req *req)
{
    if (dev->driver->relays)
        return false;
    switch (req->op) {
    case BLK_ZERO:
        return !(dev->caps & BLK_CAN_ZERO) || req->len > dev->limits.max_zero;
    case BLK_EXTENTS:
        return !(dev->caps & BLK_CAN_EXTENTS);
    case BLK_DISCARD:
        return !(dev->caps & BLK_CAN_DISCARD);
    default:
        return false;
    }
}

static void hand_over(struct blk_dev *dev, struct blk_req *req)
{
    struct blk_middle *middle = dev->middle;

    /* It may have been cancelled between two pieces of which one follows the other. */
    if (middle->state != MIDDLE_OPEN || middle->retry.state == RETRY_GONE) {
        blk_complete(req, -ECANCELED);
    } else if (is_outdated(dev, req)) {
        blk_complete(req, blk_error_set(&req->error, ENOTSUP, "its space cannot be freed"));
    } else if (!retry_is_open(&middle->retry)) {
        retry_wait(&middle->retry, &piece_of(req)->item);
    } else {
        piece_of(req)->at_driver = true;
        middle->in_driver++;
        retry_sent(&middle->retry);
        dev->driver->submit(dev, req);
    }
}

static void to_driver(struct blk_dev *dev, struct blk_req *req)
{
    req->parent->pieces++;
    piece_of(req)->item.tries = 0;
    hand_over(dev, req);
}

/* What is under way is waited for. */
static void out_of_memory(struct blk_dev *dev, struct blk_req *parent)
{
    middle_forget(dev, parent);
    parent->status = blk_error_set(&parent->error, ENOMEM, "out of memory");
    if (parent->pieces == 0)
        middle_end(dev, parent, -ENOMEM);
}

/* NULL: out of memory. */
static struct blk_req *make_piece(struct blk_dev *dev, struct blk_req *parent, uint64_t offset,
                                  uint64_t len, bool whole_block)
{
    struct blk_req *req = middle_new_piece(dev);

    if (!req)
        return NULL;
    req->op = parent->op;
    req->offset = offset;
    req->len = len;
    req->stage = PIECE_PLAIN;
    req->restarts = 0;
    if (!middle_fill(dev, req, parent, whole_block)) {
        middle_free_piece(dev, req);
        return NULL;
    }
    start_piece(dev, req, parent);
    return req;
}

/* Makes and submits the next piece of a waiting request. False: it has to wait. */
static bool next_piece(struct blk_dev *dev, struct blk_req *parent)
{
    struct blk_middle *middle = dev->middle;
    bool whole_block = false, ranged = parent->op != BLK_FLUSH && parent->op != BLK_EXTENTS;
    uint64_t offset = parent->resume, end = parent->offset + parent->len, len = parent->len;
    struct blk_req *req;

    if (ranged)
        len = middle_cut(dev, parent, &offset, end, &whole_block);
    if (whole_block && parent->op != BLK_READ && middle->changing_a_block)
        return false;
    req = make_piece(dev, parent, offset, len, whole_block);
    if (!req) {
        out_of_memory(dev, parent);
        return true;
    }
    if (req->stage == PIECE_BLOCK_READ)
        middle->changing_a_block = true;
    parent->resume = min_u64(offset + len, end);
    parent->pieces++;
    if (!middle_has_more(parent))
        middle_forget(dev, parent);
    parent->pieces--;
    to_driver(dev, req);
    return true;
}

/* The same for a range that the driver has refused to zero. Its first piece is one of its own, the last
 * one is the one that was refused. */
static void next_of_refused(struct blk_dev *dev, struct blk_req *refused)
{
    struct blk_middle *middle = dev->middle;
    struct blk_req *parent = refused->parent, *req;
    uint64_t offset = refused->offset, len;
    bool whole_block;

    len = middle_cut(dev, parent, &offset, offset + refused->len, &whole_block);
    assert(!whole_block && len > 0);
    if (parent->status == 0 && len < refused->len) {
        req = make_piece(dev, parent, offset, len, false);
        if (req) {
            req->restarts = refused->restarts;
            refused->offset += len;
            refused->len -= len;
            to_driver(dev, req);
            return;
        }
    }
    piece_list_take(&middle->refused);
    refused->op = parent->op;
    if (parent->status < 0) {
        blk_complete(refused, -ECANCELED); /* nobody needs it any more */
    } else if (len < refused->len || !middle_fill(dev, refused, parent, false)) {
        blk_complete(refused, blk_error_set(&refused->error, ENOMEM, "out of memory"));
    } else {
        start_piece(dev, refused, parent);
        hand_over(dev, refused);
    }
}

void middle_forget(struct blk_dev *dev, struct blk_req *req)
{
    struct piece_list *waiting = &dev->middle->waiting;

    for (struct blk_req **at = &waiting->head; *at; at = &(*at)->next) {
        if (*at == req) {
            *at = req->next;
            if (waiting->end == &req->next)
                waiting->end = at;
            return;
        }
    }
}

void middle_pump(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;

    /* What is kept has a place at the driver: one that is too busy gets fewer requests. */
    while (retry_is_open(&middle->retry) &&
           middle->in_driver + middle->retry.kept_count < dev->limits.max_depth) {
        if (middle->refused.head)
            next_of_refused(dev, middle->refused.head);
        else if (!middle->waiting.head || !next_piece(dev, middle->waiting.head))
            return;
    }
}

bool middle_flush_for(struct blk_dev *dev, struct blk_req *parent)
{
    struct blk_req *req = middle_new_piece(dev);

    if (!req)
        return false;
    req->op = BLK_FLUSH;
    req->offset = 0;
    req->len = 0;
    req->iovcnt = 0;
    req->stage = PIECE_FLUSH_FOR_FUA;
    req->restarts = 0;
    start_piece(dev, req, parent);
    to_driver(dev, req);
    return true;
}

void middle_resubmit(struct blk_dev *dev, struct blk_req *req)
{
    start_piece(dev, req, req->parent);
    to_driver(dev, req);
}

void middle_repeat(struct blk_dev *dev, struct blk_req *req)
{
    middle_refill(req);
    start_piece(dev, req, req->parent);
    hand_over(dev, req);
}

void middle_restart(struct blk_dev *dev, struct blk_req *parent)
{
    parent->restarts++;
    parent->resume = parent->offset;
    parent->stage = PARENT_NEW;
    parent->status = 0;
    blk_error_clear(&parent->error);
    parent->got = 0;
    parent->epoch = BLK_NO_EPOCH;
    parent->durable = false;
    piece_list_add(&dev->middle->waiting, parent);
}
