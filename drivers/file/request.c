/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A file's requests: each is a call or a few that may block, so helper threads make them. */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* A local disk breaks no promise that it keeps until the next boot: one epoch is enough. */
#define EPOCH UINT64_C(1)

int file_no_thread(struct blk_error *error, int status)
{
    return blk_error_set(error, -status, "no helper thread could be started");
}

static int change_range(const struct file_req *state)
{
    const struct blk_req *req = state->req;
    int status = file_change_range(state->file->range_fd, state->means, req->offset, req->len);

    if (status == 0 && (req->flags & BLK_FUA) && fdatasync(state->file->fd) < 0)
        status = -errno;
    return status;
}

static int perform(struct file_req *state)
{
    const struct blk_req *req = state->req;

    switch (req->op) {
    case BLK_READ:
        return file_read(&state->io, (req->flags & BLK_FUA) != 0);
    case BLK_WRITE:
        return file_write(&state->io, (req->flags & BLK_FUA) != 0);
    case BLK_FLUSH:
        return fdatasync(state->file->fd) < 0 ? -errno : 0;
    case BLK_ZERO:
    case BLK_DISCARD:
        return change_range(state);
    case BLK_EXTENTS:
        return file_extents(state->file->fd, req->offset, req->len, req->extents);
    }
    return -EINVAL;
}

static void run_request(struct loop_work *work)
{
    struct file_req *state = (struct file_req *)work;

    state->result = atomic_load(&state->file->cancelled) ? -ECANCELED : perform(state);
}

/* The capability is taken back before the request ends, so that the middle does without it. */
static bool was_refused(const struct file_req *state)
{
    const struct blk_req *req = state->req;
    struct file_dev *file = state->file;

    if (req->op == BLK_EXTENTS && file_is_refusal(state->result))
        file->dev.caps &= ~(unsigned)BLK_CAN_EXTENTS;
    else if ((req->op == BLK_ZERO || req->op == BLK_DISCARD) && file_is_refusal(state->result))
        file_give_up(file, state->means);
    else
        return false;
    return true;
}

static int request_status(const struct file_req *state)
{
    struct blk_req *req = state->req;
    int status = state->result;

    if (status == -ECANCELED)
        return status;
    if (status < 0 && req->op == BLK_FLUSH)
        /* The kernel tells of lost data once. To ask again would be answered with success. */
        return blk_error_set(&req->error, -status,
                             "fdatasync: %s; what was written before may be lost",
                             strerror(-status));
    if (was_refused(state))
        return blk_error_set(&req->error, ENOTSUP, "not supported: %s", strerror(-status));
    if (status < 0) {
        file_error(&req->error, -status);
        if (status == -EIO && req->op == BLK_READ)
            req->error.retry = BLK_MEDIUM;
        return status;
    }
    if (state->io.left > 0)
        return blk_error_set(&req->error, EIO,
                             "the file ends at %" PRIu64 " now; when it was opened it had %" PRIu64
                             " bytes",
                             state->io.offset, state->file->dev.size);
    return 0;
}

static void request_done(struct loop_work *work)
{
    struct file_req *state = (struct file_req *)work;
    struct blk_req *req = state->req;

    req->epoch = EPOCH;
    req->durable = (req->op == BLK_WRITE || req->op == BLK_ZERO) && (req->flags & BLK_FUA) != 0;
    blk_complete(req, request_status(state));
}

void file_submit(struct blk_dev *dev, struct blk_req *req)
{
    struct file_req *state = blk_req_state(req);
    struct file_dev *file = (struct file_dev *)dev;
    int status;

    *state = (struct file_req){
        .work = {.run = run_request, .done = request_done},
        .file = file,
        .req = req,
        .io =
            {
                .fd = file->fd,
                .direct_fd = file->direct_fd,
                .iov = req->iov,
                .iovcnt = req->iovcnt,
                .offset = req->offset,
                .left = req->op == BLK_READ || req->op == BLK_WRITE ? req->len : 0,
            },
    };
    if (req->op == BLK_ZERO || req->op == BLK_DISCARD) {
        assert(dev->caps & (req->op == BLK_ZERO ? BLK_CAN_ZERO : BLK_CAN_DISCARD));
        state->means = file_means_of(file, req);
    }
    assert(req->op != BLK_EXTENTS || (dev->caps & BLK_CAN_EXTENTS));
    status = loop_offload(dev->loop, &state->work);
    if (status < 0)
        blk_complete(req, file_no_thread(&req->error, status));
}
