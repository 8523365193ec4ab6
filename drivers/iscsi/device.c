/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A LUN as a device. Requests become READ(16), WRITE(16) and SYNCHRONIZE CACHE(16).
 *
 * Payload is not copied: the library reads and writes the request's own buffers. It edits the iov
 * array while it works and puts it back before it returns.
 */
#include "lun.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/uio.h>

_Static_assert(sizeof(struct iovec) == sizeof(struct scsi_iovec) &&
                   offsetof(struct iovec, iov_base) == offsetof(struct scsi_iovec, iov_base) &&
                   offsetof(struct iovec, iov_len) == offsetof(struct scsi_iovec, iov_len),
               "libiscsi promises that its iovec is the system's");

struct lun_request {
    struct command command;
    struct blk_req *req;
    uint64_t flushes; /* of a FLUSH: see cache_flush_begins() */
};

struct standing lun_standing(const struct lun *lun)
{
    return (struct standing){.reserved = lun->reservation.held,
                             .other_portals = lun->url->host_count > 1};
}

unsigned lun_heed(struct lun *lun, const struct sense *sense)
{
    unsigned effects = sense_effects(sense);

    cache_attention(&lun->cache, effects);
    if ((effects & SENSE_CACHE_LOST) != 0)
        iscsi_session_was_reset(&lun->session);
    if ((effects & SENSE_POOL_LOW) != 0 && !lun->warned_pool) {
        lun->warned_pool = true;
        blk_warn(&lun->dev,
                 "the thin pool behind LUN %u is filling up (thin provisioning soft "
                 "threshold reached, 6/38/07)",
                 lun->login.lun);
    }
    return effects;
}

static void fail_lost(struct lun *lun, struct blk_req *req)
{
    req->error = lun->session.error;
    if (req->error.code != ECANCELED) /* whatever the reason, a new session may do it */
        req->error.retry = BLK_LOST;
    blk_complete(req, -req->error.code);
}

/* A residual (RFC 7143 11.4.5) means that data is missing, or that the target counts other blocks
 * than we do. */
static int check_residual(struct blk_req *req, const struct scsi_task *task)
{
    if (req->op == BLK_FLUSH || task->residual_status == SCSI_RESIDUAL_NO_RESIDUAL ||
        task->residual == 0)
        return 0;
    return blk_error_set(
        &req->error, EIO, "the target moved %zu bytes %s than the %" PRIu64 " asked for",
        task->residual, task->residual_status == SCSI_RESIDUAL_UNDERFLOW ? "less" : "more",
        req->len);
}

static int request_failed(struct lun *lun, struct blk_req *req, int status,
                          const struct scsi_task *task)
{
    struct sense sense = sense_decode(task);
    struct standing standing = lun_standing(lun);
    uint32_t block_size = lun->opened.block_size;
    unsigned effects = lun_heed(lun, &sense);
    int rc;

    /* SYNCHRONIZE CACHE is optional; without it and without a caching page there is no cache. */
    if (req->op == BLK_FLUSH && !lun->facts.cache_told && sense.present &&
        sense.key == SCSI_SENSE_ILLEGAL_REQUEST && sense.asc == 0x20) {
        cache_told(&lun->cache, false);
        return 0;
    }
    if (sense.has_information && sense.key == SCSI_SENSE_MEDIUM_ERROR &&
        sense.information >= req->offset / block_size &&
        sense.information < (req->offset + req->len) / block_size)
        req->bad_offset = sense.information * block_size;
    rc = sense_error(&req->error, status, task, &standing, iscsi_session_complaint(&lun->session));
    if ((effects & SENSE_PORT_CLOSED) != 0 && standing.other_portals &&
        lun->session.state == SESSION_UP)
        iscsi_session_leave_portal(&lun->session, &req->error);
    return rc;
}

static void request_done(struct command *command, int status, struct scsi_task *task)
{
    struct lun_request *request = container_of(command, struct lun_request, command);
    struct blk_req *req = request->req;
    struct lun *lun = lun_of(req->dev);
    int rc;

    if (status == SCSI_STATUS_CANCELLED) {
        fail_lost(lun, req);
        return;
    }
    rc = sense_is_success(status, task) ? check_residual(req, task)
                                        : request_failed(lun, req, status, task);
    if (rc == 0 && req->op == BLK_WRITE)
        req->durable = cache_wrote(&lun->cache, (req->flags & BLK_FUA) != 0);
    if (rc == 0 && req->op == BLK_FLUSH)
        cache_flush_ended(&lun->cache, request->flushes);
    if (rc == 0 && req->op != BLK_READ)
        req->epoch = lun->cache.epoch;
    blk_complete(req, rc);
}

static struct scsi_task *make_task(const struct lun *lun, const struct blk_req *req)
{
    struct scsi_iovec *iov = (struct scsi_iovec *)(void *)req->iov;
    uint32_t block_size = lun->opened.block_size;
    uint64_t lba = req->offset / block_size;
    int fua = (req->flags & BLK_FUA) != 0 && lun->facts.can_fua;
    struct scsi_task *task;

    switch (req->op) {
    case BLK_READ:
        task = scsi_cdb_read16(lba, (uint32_t)req->len, (int)block_size, 0, 0, fua, 0, 0);
        if (task != NULL)
            scsi_task_set_iov_in(task, iov, req->iovcnt);
        return task;
    case BLK_WRITE:
        fua = (req->flags & BLK_FUA) != 0; /* never less than what was promised */
        task = scsi_cdb_write16(lba, (uint32_t)req->len, (int)block_size, 0, 0, fua, 0, 0);
        if (task != NULL)
            scsi_task_set_iov_out(task, iov, req->iovcnt);
        return task;
    default:
        assert(req->op == BLK_FLUSH);
        return scsi_cdb_synchronizecache16(0, 0, 0, 0); /* 0 blocks from LBA 0: all of it */
    }
}

static void lun_submit(struct blk_dev *dev, struct blk_req *req)
{
    struct lun *lun = lun_of(dev);
    struct lun_request *request = blk_req_state(req);

    assert(lun->state == LUN_IDLE);
    if (lun->session.state != SESSION_UP) {
        fail_lost(lun, req);
        return;
    }
    if (req->op == BLK_FLUSH && !cache_needs_flush(&lun->cache)) {
        req->epoch = lun->cache.epoch;
        blk_complete(req, 0);
        return;
    }
    assert(req->op == BLK_FLUSH ||
           (req->len > 0 && req->offset % dev->limits.align == 0 &&
            req->len % dev->limits.align == 0 &&
            req->len <= (req->op == BLK_READ ? dev->limits.max_read : dev->limits.max_write)));
    request->req = req;
    request->flushes = cache_flush_begins(&lun->cache);
    request->command = (struct command){.done = request_done};
    iscsi_session_send(&lun->session, &request->command, make_task(lun, req));
}

extern const struct blk_driver iscsi_driver;

const struct blk_driver iscsi_driver = {
    .name = "iSCSI",
    .scheme = "iscsi",
    .syntax = "iscsi://[user@]host[:port][,host[:port]...]/target-iqn/lun",
    .options = login_options,
    .dev_size = sizeof(struct lun),
    .req_size = sizeof(struct lun_request),
    .check = login_check,
    .open = lun_open,
    .clone = lun_clone,
    .recover = lun_recover,
    .reserve = lun_reserve,
    .close = lun_close,
    .submit = lun_submit,
    .cancel_all = lun_cancel_all,
    .describe = lun_describe,
};
