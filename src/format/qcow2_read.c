/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* READ: what lies together below is read by one request, straight into the caller's buffers. */
#include "qcow2_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <lunferry/units.h>

/* What one of those below gets of a request. */
struct qcow2_share {
    struct qcow2_share *next; /* free ones */
    struct qcow2_request *request;
    uint64_t guest; /* offset of its first byte */
    struct buffers buffers;
    struct blk_req req;
};

/* ---- Gathering -------------------------------------------------------------------------------- */

void qcow2_gathered(struct qcow2_request *request)
{
    assert(request->awaited > 0);
    request->awaited--;
    if (request->paused) {
        request->paused = false;
        qcow2_deal(request);
    } else if (request->awaited == 0) {
        blk_complete(request->req, request->status);
    }
}

/* Below, all has been tried: it is final. */
void qcow2_fail(struct qcow2_request *request, const struct blk_error *error, uint64_t bad_offset)
{
    struct blk_req *req = request->req;

    if (request->status < 0 && !(request->status == -ECANCELED && error->code != ECANCELED))
        return;
    request->status = -error->code;
    req->error = *error;
    if (req->error.retry != BLK_MEDIUM)
        req->error.retry = BLK_FATAL;
    req->bad_offset = bad_offset;
}

static void put_back(struct qcow2_share *share)
{
    struct qcow2 *qcow2 = share->request->qcow2;

    share->next = qcow2->free_shares;
    qcow2->free_shares = share;
}

static void share_done(struct blk_req *req)
{
    struct qcow2_share *share = req->opaque;
    struct qcow2_request *request = share->request;

    if (req->status == 0 && req->got < req->len) {
        blk_error_set(&req->error, EIO, "%s ended before its size", req->dev->name);
        req->error.whole = true;
        req->bad_offset = req->offset + req->got;
    }
    if (req->error.code != 0) {
        bool told = req->bad_offset >= req->offset && req->bad_offset - req->offset < req->len;

        qcow2_fail(request, &req->error,
                   told ? req->bad_offset - req->offset + share->guest : BLK_NO_OFFSET);
    }
    put_back(share);
    qcow2_gathered(request);
}

/* ---- Dealing out ------------------------------------------------------------------------------ */

static void out_of_memory(struct qcow2_request *request)
{
    struct blk_error error;

    blk_error_set(&error, ENOMEM, "out of memory");
    qcow2_fail(request, &error, BLK_NO_OFFSET);
}

static void read_below(struct qcow2_request *request, struct blk_dev *dev, uint64_t guest,
                       uint64_t offset, uint64_t len)
{
    struct qcow2 *qcow2 = request->qcow2;
    struct qcow2_share *share = qcow2->free_shares;
    int count;

    if (share)
        qcow2->free_shares = share->next;
    else
        share = calloc(1, sizeof(*share));
    if (!share) {
        out_of_memory(request);
        return;
    }
    share->request = request;
    count = buffers_slice(&share->buffers, request->req, guest - request->req->offset, len);
    if (count < 0) {
        put_back(share);
        out_of_memory(request);
        return;
    }
    share->guest = guest;
    share->req = (struct blk_req){.op = BLK_READ,
                                  .flags = request->req->flags,
                                  .offset = offset,
                                  .len = len,
                                  .iov = share->buffers.list,
                                  .iovcnt = count,
                                  .done = share_done,
                                  .opaque = share};
    request->awaited++;
    blk_submit(dev, &share->req);
}

/* What lies below from `offset` on; what would lie beyond the end there reads as zeros. */
static void read_run(struct qcow2_request *request, struct blk_dev *dev,
                     const struct qcow2_run *run, uint64_t offset)
{
    uint64_t there = dev && offset < dev->size ? min_u64(run->len, dev->size - offset) : 0;

    if (there > 0)
        read_below(request, dev, run->offset, offset, there);
    if (there < run->len)
        buffers_zero(request->req, run->offset + there - request->req->offset, run->len - there);
    request->at += run->len;
}

/* What goes on in the next table, as far as that is known already. */
static void extend(struct qcow2_map *map, struct qcow2_run *run, uint64_t end)
{
    struct qcow2_run next;
    struct blk_error later;

    while (run->offset + run->len < end &&
           qcow2_map_find(map, run->offset + run->len, end, &next, NULL, &later) == QCOW2_FOUND &&
           qcow2_run_continues(run, &next))
        run->len += next.len;
}

static bool deal_run(struct qcow2_request *request, struct qcow2_run *run, uint64_t end)
{
    struct qcow2 *qcow2 = request->qcow2;

    switch (run->kind) {
    case QCOW2_RUN_ZEROS:
        buffers_zero(request->req, run->offset - request->req->offset, run->len);
        request->at += run->len;
        return true;
    case QCOW2_RUN_NOTHING:
        extend(&qcow2->map, run, end);
        read_run(request, qcow2->below[QCOW2_BACKING].dev, run, run->offset);
        return true;
    case QCOW2_RUN_PLAIN:
        extend(&qcow2->map, run, end);
        read_run(request, qcow2_data(qcow2), run, run->host);
        return true;
    case QCOW2_RUN_COMPRESSED:
        break;
    }
    return qcow2_deal_compressed(request, run);
}

void qcow2_deal(struct qcow2_request *request)
{
    struct qcow2_map *map = &request->qcow2->map;
    uint64_t end = request->req->offset + request->req->len;
    struct qcow2_run run;
    struct blk_error error;

    while (request->at < end && request->status == 0) {
        int found;

        if (request->awaited > QCOW2_SHARES) {
            request->paused = true;
            return;
        }
        found = qcow2_map_find(map, request->at, end, &run, &request->waiter, &error);
        if (found == QCOW2_LATER)
            return;
        if (found < 0)
            qcow2_fail(request, &error, request->at);
        else if (!deal_run(request, &run, end))
            return;
    }
    qcow2_gathered(request);
}

/* ---- The way in ------------------------------------------------------------------------------- */

static void table_is_here(struct qcow2_waiter *waiter)
{
    struct qcow2_request *request = container_of(waiter, struct qcow2_request, waiter);

    if (waiter->failed)
        qcow2_fail(request, &waiter->failed->error, request->at);
    if (request->req->op == BLK_READ)
        qcow2_deal(request);
    else
        qcow2_extents(request);
}

void qcow2_submit(struct blk_dev *dev, struct blk_req *req)
{
    struct qcow2_request *request = blk_req_state(req);

    *request = (struct qcow2_request){.qcow2 = qcow2_of(dev),
                                      .req = req,
                                      .waiter = {.ready = table_is_here},
                                      .at = req->offset,
                                      .awaited = 1};
    switch (req->op) {
    case BLK_READ:
        qcow2_deal(request);
        break;
    case BLK_EXTENTS:
        req->extents->count = 0;
        qcow2_extents(request);
        break;
    default: /* FLUSH: nothing is ever written */
        assert(req->op == BLK_FLUSH);
        qcow2_gathered(request);
    }
}

void qcow2_free_shares(struct qcow2 *qcow2)
{
    while (qcow2->free_shares) {
        struct qcow2_share *share = qcow2->free_shares;

        qcow2->free_shares = share->next;
        free(share->buffers.list);
        free(share);
    }
}
