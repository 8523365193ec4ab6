/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A LUN as a device. Requests become READ(16), WRITE(16) and SYNCHRONIZE CACHE(16).
 *
 * Payload is not copied: the library reads and writes the request's own buffers. It edits the iov
 * array while it works and puts it back before it returns.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>

#include <lunferry/units.h>

/* The library negotiates a MaxBurstLength of 256 KiB and one R2T at a time: a longer WRITE would take
 * a round trip per burst, one after the other, where several WRITEs take theirs together. */
#define MAX_WRITE (256 * KIB)
/* Measured on tgt over loopback: 2.1 GiB/s, against 1.9 with half of it and 1.2 with twice as much. */
#define MAX_READ (512 * KIB)
/* Of tgt, and a common size of targets' task sets. The command window (MaxCmdSN, RFC 7143 4.2.2.1)
 * is the library's business. */
#define MAX_DEPTH 128

_Static_assert(sizeof(struct iovec) == sizeof(struct scsi_iovec) &&
                   offsetof(struct iovec, iov_base) == offsetof(struct scsi_iovec, iov_base) &&
                   offsetof(struct iovec, iov_len) == offsetof(struct scsi_iovec, iov_len),
               "libiscsi promises that its iovec is the system's");

struct lun {
    struct blk_dev dev; /* first */
    const struct url *url;
    const struct blk_settings *settings;
    struct login login;
    struct session session;
    struct probe probe;
    const struct lun_facts *origin; /* of a clone that is being opened: what it must equal */
    bool opening;
    struct lun_facts facts; /* immutable once open: clones read them */
    bool write_cache;       /* as facts.write_cache, until the target says that it has changed */
    uint64_t epoch;
};

struct lun_request {
    struct command command;
    struct blk_req *req;
};

static struct lun *lun_of(struct blk_dev *dev)
{
    return container_of(dev, struct lun, dev);
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void opened(struct lun *lun, int status, const struct blk_error *error)
{
    assert(lun->opening);
    lun->opening = false;
    blk_opened(&lun->dev, status, error);
}

/* A length in bytes, at most `max`, that a transfer may have. A power of two, so that requests which
 * are cut at its multiples leave no small rests. */
static uint32_t transfer_limit(const struct lun_facts *facts, uint64_t max)
{
    uint64_t told = (uint64_t)facts->max_transfer * facts->block_size;

    while (told != 0 && max > told && max > facts->block_size)
        max /= 2;
    return (uint32_t)max;
}

/* NAA formats 2, 5 and 6 and EUI-64 hold an IEEE company id (SPC-4 7.8.6): nothing else in the world
 * has the same one. */
static bool is_unique(const char *identity)
{
    return strncmp(identity, "eui.", 4) == 0 || strncmp(identity, "naa.2", 5) == 0 ||
           strncmp(identity, "naa.5", 5) == 0 || strncmp(identity, "naa.6", 5) == 0;
}

/* What a target made up for itself (tgt numbers its LUNs from 1, on every machine) says little
 * without where it is. */
static int set_identity(struct lun *lun, struct blk_error *error)
{
    const struct lun_facts *facts = &lun->facts;
    char **identity = &lun->dev.identity;
    int len;

    if (is_unique(facts->identity))
        len = asprintf(identity, "%s", facts->identity);
    else
        len = asprintf(identity, "%s %s LUN %u of %s at %s", facts->identity, facts->serial,
                       lun->login.lun, lun->login.target, lun->session.portal);
    if (len < 0) {
        *identity = NULL;
        return blk_error_set(error, ENOMEM, "out of memory");
    }
    return 0;
}

static void set_limits(struct lun *lun)
{
    const struct lun_facts *facts = &lun->facts;
    struct blk_dev *dev = &lun->dev;

    dev->size = facts->blocks * facts->block_size;
    dev->round_trip = lun->session.round_trip;
    dev->limits = (struct blk_limits){
        .align = facts->block_size,
        .mem_align = 1,
        .max_read = transfer_limit(facts, MAX_READ),
        .max_write = transfer_limit(facts, MAX_WRITE),
        .max_depth = MAX_DEPTH,
    };
    dev->caps = BLK_BARE;
    if (facts->can_fua)
        dev->caps |= BLK_CAN_FUA;
}

/* The second session must have found the same LUN behind the same name. */
static int compare_with_origin(const struct lun *lun, struct blk_error *error)
{
    const struct lun_facts *a = lun->origin, *b = &lun->facts;

    if (strcmp(a->serial, b->serial) != 0 || strcmp(a->identity, b->identity) != 0)
        return blk_error_set(error, ESTALE,
                             "another session finds another LUN there: serial number \"%s\" (%s), "
                             "not \"%s\" (%s)",
                             b->serial, b->identity, a->serial, a->identity);
    if (a->block_size != b->block_size || a->blocks != b->blocks)
        return blk_error_set(error, ESTALE,
                             "another session finds another size there: %" PRIu64
                             " blocks of %" PRIu32 " bytes, not %" PRIu64 " of %" PRIu32,
                             b->blocks, b->block_size, a->blocks, a->block_size);
    return 0;
}

static void probed(struct probe *probe, int status)
{
    struct lun *lun = container_of(probe, struct lun, probe);
    struct blk_error error = probe->error;

    lun->facts = probe->facts;
    lun->write_cache = lun->facts.write_cache;
    if (status == 0 && lun->origin != NULL)
        status = compare_with_origin(lun, &error);
    if (status == 0 && lun->dev.writable && lun->facts.write_protected)
        status =
            blk_error_set(&error, EROFS, "LUN %u is write-protected by the target", lun->login.lun);
    if (status == 0)
        status = set_identity(lun, &error);
    if (status == 0)
        set_limits(lun);
    opened(lun, status, &error);
}

static void session_up(struct session *session)
{
    struct lun *lun = container_of(session, struct lun, session);

    lun->probe.session = session;
    lun->probe.done = probed;
    probe_start(&lun->probe);
}

static void session_down(struct session *session)
{
    struct lun *lun = container_of(session, struct lun, session);

    if (lun->opening)
        opened(lun, -session->error.code, &session->error);
}

static void session_closed(struct session *session)
{
    blk_closed(&container_of(session, struct lun, session)->dev);
}

/* An epoch ends with its session: a new one starts from a number that no other had. */
static int first_epoch(uint64_t *epoch, struct blk_error *error)
{
    do {
        if (getrandom(epoch, sizeof(*epoch), 0) != (ssize_t)sizeof(*epoch))
            return blk_error_set(error, EIO, "no random numbers");
    } while (*epoch == BLK_NO_EPOCH);
    return 0;
}

static void start(struct lun *lun, const struct lun *origin)
{
    struct blk_error error = {0};
    int rc;

    lun->opening = true;
    lun->origin = origin != NULL ? &origin->facts : NULL;
    rc = login_prepare(&lun->login, lun->url, lun->settings, origin != NULL ? &origin->login : NULL,
                       &error);
    if (rc == 0)
        rc = first_epoch(&lun->epoch, &error);
    if (rc < 0) {
        opened(lun, rc, &error);
        return;
    }
    lun->session.loop = lun->dev.loop;
    lun->session.url = lun->url;
    lun->session.login = &lun->login;
    lun->session.timeout = lun->settings->timeout;
    lun->session.up = session_up;
    lun->session.down = session_down;
    lun->session.closed = session_closed;
    iscsi_session_start(&lun->session);
}

static void lun_open(struct blk_dev *dev, const struct blk_open_args *args)
{
    struct lun *lun = lun_of(dev);

    assert(args->store == NULL);
    lun->url = args->url;
    lun->settings = args->settings;
    start(lun, NULL);
}

static void lun_clone(struct blk_dev *dev, const struct blk_dev *of)
{
    struct lun *lun = lun_of(dev);
    const struct lun *origin = container_of(of, const struct lun, dev);

    lun->url = origin->url;
    lun->settings = origin->settings;
    start(lun, origin);
}

static void lun_close(struct blk_dev *dev)
{
    struct lun *lun = lun_of(dev);

    lun->session.loop = dev->loop;
    lun->session.closed = session_closed;
    iscsi_session_close(&lun->session);
}

static void lun_cancel_all(struct blk_dev *dev)
{
    iscsi_session_cancel(&lun_of(dev)->session);
}

/* ---- Requests --------------------------------------------------------------------------------- */

/* What a unit attention says about acknowledged writes. */
static void heed_attention(struct lun *lun, const struct sense *sense)
{
    if (sense_lost_cache(sense) && ++lun->epoch == BLK_NO_EPOCH)
        lun->epoch++;
    /* 2A/01, mode parameters changed: the cache may have been turned on. Until the page is read
     * again, at the next open, only what was flushed counts as durable. */
    if (sense->present && sense->key == SCSI_SENSE_UNIT_ATTENTION && sense->asc == 0x2a &&
        sense->ascq == 0x01)
        lun->write_cache = true;
}

static void fail_lost(struct lun *lun, struct blk_req *req)
{
    req->error = lun->session.error;
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
    uint32_t block_size = lun->facts.block_size;

    heed_attention(lun, &sense);
    /* SYNCHRONIZE CACHE is optional; without it and without a caching page there is no cache. */
    if (req->op == BLK_FLUSH && !lun->facts.cache_told && sense.present &&
        sense.key == SCSI_SENSE_ILLEGAL_REQUEST && sense.asc == 0x20) {
        lun->write_cache = false;
        return 0;
    }
    if (sense.has_information && sense.key == SCSI_SENSE_MEDIUM_ERROR &&
        sense.information >= req->offset / block_size &&
        sense.information < (req->offset + req->len) / block_size)
        req->bad_offset = sense.information * block_size;
    return sense_error(&req->error, status, task, iscsi_session_complaint(&lun->session));
}

static void request_done(struct command *command, int status, struct scsi_task *task)
{
    struct blk_req *req = container_of(command, struct lun_request, command)->req;
    struct lun *lun = lun_of(req->dev);
    int rc;

    if (status == SCSI_STATUS_CANCELLED) {
        fail_lost(lun, req);
        return;
    }
    rc = sense_is_success(status, task) ? check_residual(req, task)
                                        : request_failed(lun, req, status, task);
    if (rc == 0 && req->op != BLK_READ) {
        req->epoch = lun->epoch;
        req->durable = !lun->write_cache || (req->flags & BLK_FUA) != 0;
    }
    blk_complete(req, rc);
}

static struct scsi_task *make_task(const struct lun *lun, const struct blk_req *req)
{
    struct scsi_iovec *iov = (struct scsi_iovec *)(void *)req->iov;
    uint32_t block_size = lun->facts.block_size;
    uint64_t lba = req->offset / block_size;
    struct scsi_task *task;

    switch (req->op) {
    case BLK_READ:
        task = scsi_cdb_read16(lba, (uint32_t)req->len, (int)block_size, 0, 0, 0, 0, 0);
        if (task != NULL)
            scsi_task_set_iov_in(task, iov, req->iovcnt);
        return task;
    case BLK_WRITE:
        task = scsi_cdb_write16(lba, (uint32_t)req->len, (int)block_size, 0, 0,
                                (req->flags & BLK_FUA) != 0, 0, 0);
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

    if (lun->session.state != SESSION_UP) {
        fail_lost(lun, req);
        return;
    }
    if (req->op == BLK_FLUSH && !lun->write_cache) {
        req->epoch = lun->epoch;
        blk_complete(req, 0);
        return;
    }
    assert(req->op == BLK_FLUSH ||
           (req->len > 0 && req->offset % dev->limits.align == 0 &&
            req->len % dev->limits.align == 0 &&
            req->len <= (req->op == BLK_READ ? dev->limits.max_read : dev->limits.max_write)));
    request->req = req;
    request->command = (struct command){.done = request_done};
    iscsi_session_send(&lun->session, &request->command, make_task(lun, req));
}

/* ---- Description ------------------------------------------------------------------------------ */

static void describe_blocks(const struct lun *lun, struct blk_report *report)
{
    const struct lun_facts *facts = &lun->facts;
    char size[UNITS_TEXT];

    blk_report_fact(report, "physical-block-size", "physical block size", "%" PRIu64 " bytes",
                    (uint64_t)facts->block_size << facts->physical_exponent);
    if (facts->max_transfer != 0)
        blk_report_fact(report, "max-transfer", "longest transfer", "%s",
                        units_size(size, (uint64_t)facts->max_transfer * facts->block_size));
    if (facts->optimal_transfer != 0)
        blk_report_fact(report, "optimal-transfer", "best transfer length", "%s",
                        units_size(size, (uint64_t)facts->optimal_transfer * facts->block_size));
}

static void describe_provisioning(const struct lun *lun, struct blk_report *report)
{
    static const char *const kinds[] = {"provisioned on demand", "resource", "thin"};
    const struct lun_facts *facts = &lun->facts;

    if (!facts->provisioned) {
        blk_report_fact(report, "provisioning", "provisioning", "full");
        return;
    }
    blk_report_fact(report, "provisioning", "provisioning", "%s",
                    kinds[facts->provisioning < 3 ? facts->provisioning : 0]);
    blk_report_fact(report, "unmapped-reads-zeros", "unmapped blocks read as zeros", "%s",
                    facts->reads_zeros ? "yes" : "no");
    blk_report_fact(report, "unmaps-with", "unmaps with", "%s",
                    facts->can_unmap && facts->can_write_same_unmap ? "UNMAP, WRITE SAME(16)"
                    : facts->can_unmap                              ? "UNMAP"
                    : facts->can_write_same_unmap                   ? "WRITE SAME(16)"
                                                                    : "nothing");
}

static void lun_describe(struct blk_dev *dev, struct blk_report *report)
{
    const struct lun *lun = lun_of(dev);
    const struct lun_facts *facts = &lun->facts;

    blk_report_fact(report, "portal", "portal", "%s", lun->session.portal);
    blk_report_fact(report, "target", "target", "%s", lun->login.target);
    blk_report_fact(report, "lun", "LUN", "%u", lun->login.lun);
    blk_report_fact(report, "initiator", "initiator", "%s (from: %s)", lun->login.initiator,
                    lun->login.initiator_from);
    blk_report_fact(report, "vendor", "vendor", "%s", facts->vendor);
    blk_report_fact(report, "product", "product", "%s", facts->product);
    blk_report_fact(report, "revision", "revision", "%s", facts->revision);
    if (facts->serial[0] != '\0')
        blk_report_fact(report, "serial", "serial number", "%s", facts->serial);
    if (facts->identity[0] != '\0')
        blk_report_fact(report, "designator", "identification", "%s", facts->identity);
    describe_blocks(lun, report);
    describe_provisioning(lun, report);
    blk_report_fact(report, "write-cache", "write cache", "%s%s",
                    lun->write_cache ? "volatile" : "none, or safe",
                    facts->cache_told ? "" : " (assumed: the target does not say)");
    blk_report_fact(report, "fua", "force unit access", "%s", facts->can_fua ? "yes" : "no");
    blk_report_fact(report, "write-protected", "write-protected", "%s",
                    facts->write_protected ? "yes" : "no");
    blk_report_fact(report, "library", "library", "libiscsi, API %d", LIBISCSI_API_VERSION);
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
    .close = lun_close,
    .submit = lun_submit,
    .cancel_all = lun_cancel_all,
    .describe = lun_describe,
};
