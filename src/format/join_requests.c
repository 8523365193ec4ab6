/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A request to a join: each part that it concerns gets its share, whose middle splits, aligns and
 * repeats it; what comes back is gathered, in the join's terms. */
#include "join_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <lunferry/units.h>

/* What one part gets of a request. */
struct join_share {
    struct join_share *next; /* free ones */
    struct part *part;
    struct blk_req *whole;
    struct iovec *iov; /* kept between uses */
    int iov_capacity;
    struct blk_req req;
};

/* ---- Gathering -------------------------------------------------------------------------------- */

/* A FLUSH makes durable what all parts had in the epoch that stands. One that is heard of for the first
 * time ends nothing: no write to that part has been told an earlier one. */
static uint64_t epoch_of(struct join *join, struct part *part, uint64_t epoch)
{
    if (join->count == 1 || epoch == BLK_NO_EPOCH)
        return epoch;
    if (part->epoch != BLK_NO_EPOCH && part->epoch != epoch)
        join->epoch++;
    part->epoch = epoch;
    return join->epoch;
}

static void gathered(struct blk_req *whole)
{
    struct join_gathering *gathering = blk_req_state(whole);

    assert(gathering->awaited > 0);
    if (--gathering->awaited == 0)
        blk_complete(whole, gathering->status);
}

static uint64_t seen_from_join(const struct part *part, uint64_t offset)
{
    return offset - part->offset + part->start;
}

/* A real reason beats "cancelled", otherwise the first one wins. Below, all has been tried: it is
 * final. */
static void fold_error(struct join_gathering *gathering, const struct join_share *share)
{
    const struct blk_req *req = &share->req;
    struct blk_req *whole = share->whole;

    if (gathering->status < 0 && !(gathering->status == -ECANCELED && req->status != -ECANCELED))
        return;
    gathering->status = req->status;
    whole->error = req->error;
    if (whole->error.retry != BLK_MEDIUM)
        whole->error.retry = BLK_FATAL;
    whole->bad_offset = BLK_NO_OFFSET;
    if (req->bad_offset >= req->offset && req->bad_offset - req->offset < req->len)
        whole->bad_offset = seen_from_join(share->part, req->bad_offset);
}

static void fold_success(struct join_gathering *gathering, const struct join_share *share)
{
    const struct blk_req *req = &share->req;
    struct blk_req *whole = share->whole;
    struct part *part = share->part;
    uint64_t epoch = epoch_of(part->join, part, req->epoch);

    if (whole->op == BLK_READ && req->got < req->len)
        whole->got =
            min_u64(whole->got, seen_from_join(part, req->offset) + req->got - whole->offset);
    for (size_t i = 0; whole->op == BLK_EXTENTS && i < whole->extents->count; i++)
        whole->extents->list[i].offset = seen_from_join(part, whole->extents->list[i].offset);
    whole->epoch = !gathering->told || whole->epoch == epoch ? epoch : BLK_NO_EPOCH;
    whole->durable = req->durable && (!gathering->told || whole->durable);
    gathering->told = true;
}

static void put_back(struct join_share *share)
{
    struct join *join = share->part->join;

    share->next = join->free_shares;
    join->free_shares = share;
}

static void share_done(struct blk_req *req)
{
    struct join_share *share = req->opaque;
    struct blk_req *whole = share->whole;

    if (req->status < 0)
        fold_error(blk_req_state(whole), share);
    else
        fold_success(blk_req_state(whole), share);
    if (req->op == BLK_ZERO || req->op == BLK_EXTENTS || req->op == BLK_DISCARD)
        join_adopt(share->part->join);
    put_back(share);
    gathered(whole);
}

/* ---- Dealing out ------------------------------------------------------------------------------ */

static struct join_share *new_share(struct part *part, struct blk_req *whole)
{
    struct join_share *share = part->join->free_shares;

    if (share)
        part->join->free_shares = share->next;
    else
        share = calloc(1, sizeof(*share));
    if (!share)
        return NULL;
    share->part = part;
    share->whole = whole;
    return share;
}

void join_free_shares(struct join *join)
{
    while (join->free_shares) {
        struct join_share *share = join->free_shares;

        join->free_shares = share->next;
        free(share->iov);
        free(share);
    }
}

/* The buffers of [skip, skip + len) of the whole request. False: out of memory. */
static bool slice(struct join_share *share, uint64_t skip, uint64_t len)
{
    const struct blk_req *whole = share->whole;
    int count = 0;

    if (share->iov_capacity < whole->iovcnt) {
        struct iovec *iov = realloc(share->iov, (size_t)whole->iovcnt * sizeof(*iov));

        if (!iov)
            return false;
        share->iov = iov;
        share->iov_capacity = whole->iovcnt;
    }
    for (int i = 0; i < whole->iovcnt && len > 0; i++) {
        const struct iovec *from = &whole->iov[i];
        uint64_t part;

        if (skip >= from->iov_len) {
            skip -= from->iov_len;
            continue;
        }
        part = min_u64(from->iov_len - skip, len);
        share->iov[count++] = (struct iovec){(char *)from->iov_base + skip, part};
        skip = 0;
        len -= part;
    }
    share->req.iov = share->iov;
    share->req.iovcnt = count;
    return true;
}

/* [offset, offset + len) of the request, in the join's terms, is the part's. */
static void deal(struct part *part, struct blk_req *whole, uint64_t offset, uint64_t len)
{
    struct join_gathering *gathering = blk_req_state(whole);
    bool data = whole->op == BLK_READ || whole->op == BLK_WRITE;
    struct join_share *share = new_share(part, whole);

    if (share) {
        share->req = (struct blk_req){
            .op = whole->op,
            .flags = whole->flags,
            .offset = offset - part->start + part->offset,
            .len = len,
            .extents = whole->extents,
            .done = share_done,
            .opaque = share,
        };
    }
    if (share && data && !slice(share, offset - whole->offset, len)) {
        put_back(share);
        share = NULL;
    }
    if (!share) {
        gathering->status = blk_error_set(&whole->error, ENOMEM, "out of memory");
        return;
    }
    gathering->awaited++;
    blk_submit(part->dev, &share->req);
}

static void read_zeros(const struct blk_req *req, uint64_t skip, uint64_t len)
{
    static const unsigned char zeros[4096];

    while (len > 0) {
        uint64_t part = min_u64(len, sizeof(zeros));

        blk_iov_from(req, skip, zeros, part);
        skip += part;
        len -= part;
    }
}

static void answer_zeros(const struct blk_req *req, uint64_t len)
{
    req->extents->list[0] = (struct blk_extent){
        .offset = req->offset, .len = len, .kind = BLK_ZEROS, .host_offset = BLK_NO_OFFSET};
    req->extents->count = 1;
}

static void deal_flush(struct join *join, struct blk_req *req)
{
    for (size_t i = 0; i < join->count; i++) {
        if (join->parts[i].dev)
            deal(&join->parts[i], req, join->parts[i].start, 0);
    }
}

static void deal_range(struct join *join, struct blk_req *req)
{
    const struct join_gathering *gathering = blk_req_state(req);
    uint64_t at = req->offset, end = at + req->len, to;

    for (size_t i = 0; i < join->count && at < end && gathering->status == 0; i++) {
        struct part *part = &join->parts[i];

        to = min_u64(end, part->start + part->len);
        if (to <= at)
            continue;
        if (!part->zeros)
            deal(part, req, at, to - at);
        else if (req->op == BLK_READ)
            read_zeros(req, at - req->offset, to - at);
        else if (req->op == BLK_EXTENTS) /* nothing else, for it is not writable */
            answer_zeros(req, to - at);
        at = req->op == BLK_EXTENTS ? end : to; /* which is answered for a prefix only */
    }
}

void join_submit(struct blk_dev *dev, struct blk_req *req)
{
    struct join_gathering *gathering = blk_req_state(req);

    *gathering = (struct join_gathering){.awaited = 1};
    if (req->op == BLK_FLUSH)
        deal_flush(join_of(dev), req);
    else
        deal_range(join_of(dev), req);
    gathered(req);
}
