/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The way in: a caller's request is checked, then cut into pieces that the driver takes. */
#include "middle.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* What zeros are written from, where the device has no better means. */
static const unsigned char zeros[64 * 1024] __attribute__((aligned(4096)));

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
    if ((req->op == BLK_WRITE || req->op == BLK_ZERO) && !dev->writable)
        return blk_error_set(&req->error, EROFS, "opened for reading only");
    if ((req->op == BLK_READ || req->op == BLK_WRITE) && iov_length(req) != req->len)
        return blk_error_set(&req->error, EINVAL, "the buffers do not add up to the length");
    if (req->op == BLK_EXTENTS && req->extents->capacity == 0)
        return blk_error_set(&req->error, EINVAL, "no room for an extent");
    return 0;
}

static void answer_without_driver(struct blk_req *req)
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
        answer_without_driver(req);
        req->resume = req->offset + req->len;
        piece_list_add(&middle->finished, req);
        loop_defer(dev->loop, &middle->call);
        return;
    }
    if (status < 0) {
        middle_fail(dev, req, status);
        return;
    }
    piece_list_add(&middle->waiting, req);
    middle_pump(dev);
}

/* ---- Pieces ----------------------------------------------------------------------------------- */

static struct blk_req *new_piece(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;
    struct blk_req *req = middle->free_pieces;

    if (req) {
        middle->free_pieces = req->next;
        return req;
    }
    struct piece *piece = calloc(1, sizeof(*piece) + dev->driver->req_size);
    /* cppcheck-suppress memleak ; middle_free_piece() finds it again from its member */
    return piece ? &piece->req : NULL;
}

void middle_free_piece(struct blk_dev *dev, struct blk_req *req)
{
    struct piece *piece = piece_of(req);

    free(piece->bounce);
    piece->bounce = NULL;
    req->next = dev->middle->free_pieces;
    dev->middle->free_pieces = req;
}

void *blk_req_state(struct blk_req *req)
{
    return piece_of(req)->state;
}

static bool reserve_iov(struct piece *piece, int count)
{
    if (piece->iov_capacity < count) {
        struct iovec *iov = realloc(piece->iov, (size_t)count * sizeof(*iov));

        if (!iov)
            return false;
        piece->iov = iov;
        piece->iov_capacity = count;
    }
    piece->req.iov = piece->iov;
    return true;
}

/* The part of the parent's buffers that belongs to [offset, offset + len). */
static bool slice_iov(struct piece *piece, const struct blk_req *parent, uint64_t offset,
                      uint64_t len)
{
    uint64_t skip = offset - parent->offset;
    int count = 0;

    if (!reserve_iov(piece, parent->iovcnt))
        return false;
    for (int i = 0; i < parent->iovcnt && len > 0; i++) {
        const struct iovec *from = &parent->iov[i];
        size_t part;

        if (skip >= from->iov_len) {
            skip -= from->iov_len;
            continue;
        }
        part = min_u64(from->iov_len - skip, len);
        piece->iov[count].iov_base = (char *)from->iov_base + skip;
        piece->iov[count++].iov_len = part;
        skip = 0;
        len -= part;
    }
    piece->req.iovcnt = count;
    return true;
}

static bool zero_iov(struct piece *piece, uint64_t len)
{
    int count = (int)((len + sizeof(zeros) - 1) / sizeof(zeros));

    if (!reserve_iov(piece, count))
        return false;
    for (int i = 0; i < count; i++) {
        size_t part = min_u64(len, sizeof(zeros));

        piece->iov[i].iov_base = (void *)(uintptr_t)zeros; /* only ever read from */
        piece->iov[i].iov_len = part;
        len -= part;
    }
    piece->req.iovcnt = count;
    return true;
}

static bool bounce_iov(struct piece *piece, const struct blk_dev *dev, uint64_t len)
{
    size_t align = dev->limits.mem_align > 4096 ? dev->limits.mem_align : 4096;

    if (!reserve_iov(piece, 1))
        return false;
    piece->bounce = aligned_alloc(align, round_up(len, align));
    if (!piece->bounce)
        return false;
    piece->iov[0] = (struct iovec){piece->bounce, len};
    piece->req.iovcnt = 1;
    return true;
}

static bool memory_is_aligned(const struct piece *piece, const struct blk_dev *dev)
{
    for (int i = 0; i < piece->req.iovcnt; i++) {
        if ((uintptr_t)piece->iov[i].iov_base % dev->limits.mem_align != 0)
            return false;
    }
    return true;
}

/* How far the next piece reaches. *whole_block: it is a part of a block only, for which the driver
 * has to be given [*offset, *offset + returned length), a little more than was asked. */
static uint64_t next_range(const struct blk_dev *dev, const struct blk_req *req, uint64_t *offset,
                           bool *whole_block)
{
    uint64_t align = dev->limits.align, from = req->resume, end = req->offset + req->len;
    uint64_t block_end = min_u64(round_down(from, align) + align, dev->size);
    uint64_t max = req->op == BLK_READ ? dev->limits.max_read : dev->limits.max_write;

    *whole_block = from % align != 0 || end < block_end;
    if (*whole_block) {
        *offset = round_down(from, align);
        return block_end - *offset;
    }
    if (req->op == BLK_ZERO && (dev->caps & BLK_CAN_ZERO))
        max = dev->limits.max_zero;
    *offset = from;
    /* Cut at multiples of max, so that neighbouring requests are cut alike. */
    end = min_u64(end, from - from % max + max);
    return end == dev->size ? end - from : round_down(end, align) - from;
}

bool middle_has_more(const struct blk_req *req)
{
    if (req->op == BLK_FLUSH || req->op == BLK_EXTENTS)
        return req->pieces == 0 && req->stage == PARENT_NEW;
    return req->resume < req->offset + req->len;
}

static void start_piece(struct blk_dev *dev, struct blk_req *req, struct blk_req *parent)
{
    req->dev = dev;
    req->parent = parent;
    req->flags = parent->flags;
    if (!(dev->caps & BLK_CAN_FUA))
        req->flags &= ~(unsigned)BLK_FUA;
    req->status = 0;
    blk_error_clear(&req->error);
    req->got = req->op == BLK_READ ? req->len : 0;
    req->bad_offset = BLK_NO_OFFSET;
    req->epoch = BLK_NO_EPOCH;
    req->durable = false;
    req->extents = parent->extents;
}

/* Fills the piece's buffers. False: out of memory. */
static bool fill_piece(struct blk_dev *dev, struct piece *piece, const struct blk_req *parent,
                       bool whole_block)
{
    struct blk_req *req = &piece->req;

    req->iovcnt = 0;
    if (whole_block) {
        if (parent->op != BLK_READ) {
            req->op = BLK_READ;
            req->stage = PIECE_BLOCK_READ;
        }
        return bounce_iov(piece, dev, req->len);
    }
    if (parent->op == BLK_ZERO) {
        if (dev->caps & BLK_CAN_ZERO)
            return true;
        req->op = BLK_WRITE;
        return zero_iov(piece, req->len);
    }
    if (!slice_iov(piece, parent, req->offset, req->len))
        return false;
    if (memory_is_aligned(piece, dev))
        return true;
    if (!bounce_iov(piece, dev, req->len))
        return false;
    if (parent->op == BLK_WRITE)
        blk_iov_to(parent, req->offset - parent->offset, piece->bounce, req->len);
    return true;
}

static void hand_over(struct blk_dev *dev, struct blk_req *req)
{
    struct blk_middle *middle = dev->middle;

    /* It may have been cancelled between two pieces of which one follows the other. */
    if (middle->state != MIDDLE_OPEN || middle->retry.state == RETRY_GONE) {
        blk_complete(req, -ECANCELED);
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

/* Makes and submits the next piece of a waiting request. False: it has to wait. */
static bool next_piece(struct blk_dev *dev, struct blk_req *parent)
{
    struct blk_middle *middle = dev->middle;
    bool whole_block = false, ranged = parent->op != BLK_FLUSH && parent->op != BLK_EXTENTS;
    uint64_t offset = parent->offset, len = parent->len;
    struct blk_req *req;

    if (ranged)
        len = next_range(dev, parent, &offset, &whole_block);
    if (whole_block && parent->op != BLK_READ && middle->changing_a_block)
        return false;
    req = new_piece(dev);
    if (!req) {
        middle_forget(dev, parent);
        parent->status = blk_error_set(&parent->error, ENOMEM, "out of memory");
        if (parent->pieces == 0)
            middle_fail(dev, parent, -ENOMEM);
        return true;
    }
    req->op = parent->op;
    req->offset = offset;
    req->len = len;
    req->stage = PIECE_PLAIN;
    if (ranged && !fill_piece(dev, piece_of(req), parent, whole_block)) {
        middle_free_piece(dev, req);
        middle_forget(dev, parent);
        parent->status = blk_error_set(&parent->error, ENOMEM, "out of memory");
        if (parent->pieces == 0)
            middle_fail(dev, parent, -ENOMEM);
        return true;
    }
    start_piece(dev, req, parent);
    if (req->stage == PIECE_BLOCK_READ)
        middle->changing_a_block = true;
    parent->resume = min_u64(offset + len, parent->offset + parent->len);
    parent->pieces++;
    if (!middle_has_more(parent))
        middle_forget(dev, parent);
    parent->pieces--;
    to_driver(dev, req);
    return true;
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
    while (middle->waiting.head && retry_is_open(&middle->retry) &&
           middle->in_driver + middle->retry.kept_count < dev->limits.max_depth) {
        if (!next_piece(dev, middle->waiting.head))
            return;
    }
}

bool middle_flush_for(struct blk_dev *dev, struct blk_req *parent)
{
    struct blk_req *req = new_piece(dev);

    if (!req)
        return false;
    req->op = BLK_FLUSH;
    req->offset = 0;
    req->len = 0;
    req->iovcnt = 0;
    req->stage = PIECE_FLUSH_FOR_FUA;
    start_piece(dev, req, parent);
    to_driver(dev, req);
    return true;
}

void middle_resubmit(struct blk_dev *dev, struct blk_req *req)
{
    start_piece(dev, req, req->parent);
    to_driver(dev, req);
}

/* The driver may have changed the iov that it was given. None of this can fail: there was room for it
 * before. */
static void refill_piece(struct piece *piece)
{
    struct blk_req *req = &piece->req;
    const struct blk_req *parent = req->parent;

    if (piece->bounce) {
        piece->iov[0] = (struct iovec){piece->bounce, req->len};
        piece->req.iovcnt = 1;
    } else if (req->op == BLK_READ || (req->op == BLK_WRITE && parent->op == BLK_WRITE)) {
        slice_iov(piece, parent, req->offset, req->len);
    } else if (req->op == BLK_WRITE) {
        zero_iov(piece, req->len);
    }
}

void middle_repeat(struct blk_dev *dev, struct blk_req *req)
{
    refill_piece(piece_of(req));
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

/* ---- Buffers ---------------------------------------------------------------------------------- */

enum direction { TO_BUF, FROM_BUF };

static void copy_iov(const struct blk_req *req, uint64_t offset, unsigned char *buf, size_t len,
                     enum direction direction)
{
    for (int i = 0; i < req->iovcnt && len > 0; i++) {
        const struct iovec *iov = &req->iov[i];
        size_t part;

        if (offset >= iov->iov_len) {
            offset -= iov->iov_len;
            continue;
        }
        part = min_u64(iov->iov_len - offset, len);
        if (direction == TO_BUF)
            memcpy(buf, (unsigned char *)iov->iov_base + offset, part);
        else
            memcpy((unsigned char *)iov->iov_base + offset, buf, part);
        offset = 0;
        buf += part;
        len -= part;
    }
    assert(len == 0);
}

void blk_iov_from(const struct blk_req *req, uint64_t offset, const void *buf, size_t len)
{
    copy_iov(req, offset, (unsigned char *)(uintptr_t)buf, len, FROM_BUF);
}

void blk_iov_to(const struct blk_req *req, uint64_t offset, void *buf, size_t len)
{
    copy_iov(req, offset, buf, len, TO_BUF);
}
