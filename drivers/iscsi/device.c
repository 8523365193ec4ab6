/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A LUN as a device. Requests become READ(16), WRITE(16) and SYNCHRONIZE CACHE(16), and where the LUN
 * has them the commands of provisioning.c.
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
    enum means means; /* of a ZERO, DISCARD, EXTENTS */
    struct means_data data;
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

static bool is_optional(const struct blk_req *req)
{
    return req->op == BLK_ZERO || req->op == BLK_DISCARD || req->op == BLK_EXTENTS;
}

/* A residual (RFC 7143 11.4.5) means that data is missing, or that the target counts other blocks
 * than we do. UNMAP and GET LBA STATUS may make do with less than there is room for. */
static int check_residual(struct blk_req *req, const struct scsi_task *task)
{
    if (req->op == BLK_FLUSH || req->op == BLK_DISCARD || req->op == BLK_EXTENTS ||
        task->residual_status == SCSI_RESIDUAL_NO_RESIDUAL || task->residual == 0)
        return 0;
    return blk_error_set(
        &req->error, EIO, "the target moved %zu bytes %s than the %" PRIu64 " asked for",
        task->residual, task->residual_status == SCSI_RESIDUAL_UNDERFLOW ? "less" : "more",
        (uint64_t)task->expxferlen);
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

/* The command is not for this target: the middle is to do it by what is left. */
static int refuse(struct lun *lun, struct blk_req *req, enum means means)
{
    provisioning_refused(&lun->provisioning, means);
    provisioning_offer(&lun->provisioning, &lun->opened, &lun->dev);
    req->error.code = ENOTSUP;
    req->error.retry = BLK_FATAL;
    return -ENOTSUP;
}

/* EPROTO for good is a Reject PDU for this one command. Whatever is wrong with GET LBA STATUS for good, a
 * medium's error too, reading will find where it matters. */
static bool is_refusal(const struct blk_req *req, int rc, int status, const struct scsi_task *task)
{
    bool for_good = req->error.retry == BLK_FATAL || req->error.retry == BLK_MEDIUM;

    return means_is_refusal(status, task) || (rc == -EPROTO && req->error.retry == BLK_FATAL) ||
           (req->op == BLK_EXTENTS && for_good);
}

static int optional_done(struct lun *lun, struct lun_request *request, int status,
                         const struct scsi_task *task)
{
    struct blk_req *req = request->req;
    struct answer answer;
    int rc;

    if (!sense_is_success(status, task)) {
        rc = request_failed(lun, req, status, task);
        return is_refusal(req, rc, status, task) ? refuse(lun, req, request->means) : rc;
    }
    /* A WRITE SAME with a residual has done something else than was asked: nobody knows what, but
     * writing zeros over it mends it. */
    if (check_residual(req, task) < 0)
        return refuse(lun, req, request->means);
    provisioning_worked(&lun->provisioning, request->means);
    if (req->op == BLK_EXTENTS) {
        answer = answer_of(task);
        if (status != SCSI_STATUS_GOOD)
            answer.len = 0; /* what is there is sense data */
        provisioning_take_extents(&lun->provisioning, &answer, lun->opened.block_size, req->offset,
                                  req->len, req->extents);
    }
    return 0;
}

static void request_done(struct command *command, int status, struct scsi_task *task)
{
    struct lun_request *request = container_of(command, struct lun_request, command);
    struct blk_req *req = request->req;
    struct lun *lun = lun_of(req->dev);
    int rc;

    if (status == SCSI_STATUS_CANCELLED) {
        if (is_optional(req))
            provisioning_lost(&lun->provisioning, request->means);
        fail_lost(lun, req);
        return;
    }
    if (is_optional(req))
        rc = optional_done(lun, request, status, task);
    else
        rc = sense_is_success(status, task) ? check_residual(req, task)
                                            : request_failed(lun, req, status, task);
    if (rc == 0 && req->op == BLK_WRITE)
        req->durable = cache_wrote(&lun->cache, (req->flags & BLK_FUA) != 0);
    if (rc == 0 && (req->op == BLK_ZERO || req->op == BLK_DISCARD)) /* which have no FUA */
        req->durable = cache_wrote(&lun->cache, false);
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

static struct scsi_task *make_optional_task(const struct lun *lun, struct lun_request *request)
{
    const struct blk_req *req = request->req;
    uint32_t block_size = lun->opened.block_size;
    uint64_t lba = req->offset / block_size;

    if (request->means == MEANS_STATUS)
        return means_status_task(lba, req->extents->capacity);
    assert(req->offset % block_size == 0 && req->len % block_size == 0);
    assert(req->len / block_size <= UINT32_MAX);
    return means_task(&request->data, request->means, lba, (uint32_t)(req->len / block_size),
                      block_size);
}

/* Limits have no part in this: a request may be older than the refusal that has lowered them. */
static void submit_optional(struct lun *lun, struct blk_req *req)
{
    struct lun_request *request = blk_req_state(req);

    request->req = req;
    request->means =
        provisioning_means(&lun->provisioning, req->op, (req->flags & BLK_MAY_UNMAP) != 0);
    if (request->means == MEANS_NONE) { /* any more */
        blk_complete(req, blk_error_set(&req->error, ENOTSUP,
                                        "LUN %u has no command for it that works", lun->login.lun));
        return;
    }
    request->command = (struct command){.done = request_done};
    iscsi_session_send(&lun->session, &request->command, make_optional_task(lun, request));
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
    if (is_optional(req)) {
        submit_optional(lun, req);
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
