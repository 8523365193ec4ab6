/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A piece of a request: how far it reaches, with which flags, and its buffers. */
#include "middle.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* What zeros are written from, where the device has no better means. */
static const unsigned char zeros[64 * 1024] __attribute__((aligned(4096)));

/* ---- Life -------------------------------------------------------------------------------------- */

struct blk_req *middle_new_piece(struct blk_dev *dev)
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

/* ---- Ranges ----------------------------------------------------------------------------------- */

/* The first border of what is freed together at or after `offset`, the last one at or before it. A
 * device that does not know has one at every block, and at its end. */
static uint64_t unit_after(const struct blk_dev *dev, uint64_t offset)
{
    const struct blk_limits *limits = &dev->limits;
    uint64_t within;

    if (limits->unmap_granule == 0)
        return offset == dev->size ? offset : round_up(offset, limits->align);
    if (offset <= limits->unmap_phase)
        return limits->unmap_phase;
    within = (offset - limits->unmap_phase) % limits->unmap_granule;
    return within ? offset - within + limits->unmap_granule : offset;
}

static uint64_t unit_before(const struct blk_dev *dev, uint64_t offset)
{
    const struct blk_limits *limits = &dev->limits;

    if (limits->unmap_granule == 0)
        return offset == dev->size ? offset : round_down(offset, limits->align);
    if (offset < limits->unmap_phase)
        return 0;
    return offset - (offset - limits->unmap_phase) % limits->unmap_granule;
}

/* The longest run of whole units within `max` bytes; 0: not even one. */
static uint64_t whole_units(const struct blk_dev *dev, uint64_t max)
{
    uint64_t unit = dev->limits.unmap_granule ? dev->limits.unmap_granule : dev->limits.align;

    return max - max % unit;
}

/* Cut at multiples of max, so that neighbouring requests are cut alike. */
static uint64_t cut(uint64_t from, uint64_t end, uint64_t phase, uint64_t max)
{
    return min_u64(end - from, max - (from - phase) % max);
}

static uint64_t cut_discard(const struct blk_dev *dev, uint64_t *from, uint64_t end)
{
    uint64_t max = whole_units(dev, dev->limits.max_discard);

    *from = unit_after(dev, *from);
    end = unit_before(dev, end);
    return max > 0 && *from < end ? cut(*from, end, dev->limits.unmap_phase, max) : 0;
}

static uint64_t cut_zero(const struct blk_dev *dev, const struct blk_req *req, uint64_t from,
                         uint64_t end)
{
    uint64_t max = dev->limits.max_zero, units = whole_units(dev, max);
    uint64_t first = unit_after(dev, from), last = unit_before(dev, end);

    if (!(req->flags & BLK_MAY_UNMAP) || !(dev->caps & BLK_CAN_UNMAP) || units == 0 ||
        first >= last)
        return cut(from, end, 0, max);
    if (from < first)
        return cut(from, first, 0, max);
    return cut(from, last, dev->limits.unmap_phase, units);
}

/* A FLUSH makes a ZERO durable, since the commands for it promise nothing themselves. Where one server
 * after the other restarts before that, zeros are written, which FUA makes durable at once. */
#define MAX_ZERO_RESTARTS 4

static bool has_zero(const struct blk_dev *dev, const struct blk_req *req)
{
    bool in_vain =
        (req->flags & BLK_FUA) && (dev->caps & BLK_CAN_FUA) && req->restarts >= MAX_ZERO_RESTARTS;

    return (dev->caps & BLK_CAN_ZERO) && !in_vain;
}

/* What relays is given requests as they come, unless they are to be shorter. */
static uint64_t cut_to_relay(const struct blk_dev *dev, const struct blk_req *req, uint64_t from,
                             uint64_t end)
{
    const struct blk_middle *middle = dev->middle;
    bool writes = req->op == BLK_WRITE || (req->op == BLK_ZERO && !(dev->caps & BLK_CAN_ZERO));
    uint32_t max = req->op == BLK_READ ? middle->max_read : writes ? middle->max_write : 0;

    return max > 0 ? cut(from, end, 0, max) : end - from;
}

uint64_t middle_cut(const struct blk_dev *dev, const struct blk_req *req, uint64_t *from,
                    uint64_t end, bool *whole_block)
{
    uint64_t align = dev->limits.align, block_end;

    *whole_block = false;
    if (dev->driver->relays)
        return cut_to_relay(dev, req, *from, end);
    if (req->op == BLK_DISCARD)
        return cut_discard(dev, from, end);
    block_end = min_u64(round_down(*from, align) + align, dev->size);
    *whole_block = *from % align != 0 || end < block_end;
    if (*whole_block) {
        *from = round_down(*from, align);
        return block_end - *from;
    }
    if (end != dev->size) /* a part of a block is a piece of its own */
        end = round_down(end, align);
    if (req->op == BLK_ZERO && has_zero(dev, req))
        return cut_zero(dev, req, *from, end);
    /* From where it begins, for clusters of an image may lie anywhere in its file. */
    return min_u64(end - *from, req->op == BLK_READ ? dev->limits.max_read : dev->limits.max_write);
}

unsigned middle_flags(const struct blk_dev *dev, const struct blk_req *req)
{
    unsigned flags = 0, wanted = req->parent->flags;
    uint64_t end = req->offset + req->len;

    if (dev->driver->relays)
        return wanted;
    /* Not ZERO: see has_zero(). */
    if ((wanted & BLK_FUA) && (dev->caps & BLK_CAN_FUA) &&
        (req->op == BLK_READ || req->op == BLK_WRITE))
        flags |= BLK_FUA;
    if ((wanted & BLK_MAY_UNMAP) && (dev->caps & BLK_CAN_UNMAP) && req->op == BLK_ZERO &&
        unit_after(dev, req->offset) == req->offset && unit_before(dev, end) == end)
        flags |= BLK_MAY_UNMAP;
    return flags;
}

/* ---- What is in it ---------------------------------------------------------------------------- */

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

bool middle_fill(const struct blk_dev *dev, struct blk_req *req, const struct blk_req *parent,
                 bool whole_block)
{
    struct piece *piece = piece_of(req);

    req->iovcnt = 0;
    if (req->op == BLK_FLUSH || req->op == BLK_EXTENTS || req->op == BLK_DISCARD)
        return true;
    if (whole_block) {
        if (parent->op != BLK_READ) {
            req->op = BLK_READ;
            req->stage = PIECE_BLOCK_READ;
        }
        return bounce_iov(piece, dev, req->len);
    }
    if (parent->op == BLK_ZERO) {
        if (has_zero(dev, parent) || dev->driver->relays)
            return true;
        req->op = BLK_WRITE;
        return zero_iov(piece, req->len);
    }
    if (!slice_iov(piece, parent, req->offset, req->len))
        return false;
    if (dev->driver->relays || memory_is_aligned(piece, dev))
        return true;
    if (!bounce_iov(piece, dev, req->len))
        return false;
    if (parent->op == BLK_WRITE)
        blk_iov_to(parent, req->offset - parent->offset, piece->bounce, req->len);
    return true;
}

void middle_refill(struct blk_req *req)
{
    struct piece *piece = piece_of(req);
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
