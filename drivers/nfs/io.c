/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* READ, WRITE and FLUSH by the calls of RFC 1813 3.3.6, 3.3.7 and 3.3.21. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "device.h"
#include "status.h"

/* Stands in for a verifier of zero, which is a valid one, but BLK_NO_EPOCH for the middle. */
#define EPOCH_OF_ZERO UINT64_C(0x6e667320767a6572)

static struct nfs_io *io_of(struct nfs_call *call)
{
    return container_of(call, struct nfs_io, call);
}

static void complete(struct nfs_io *io, int status)
{
    *io->link = io->next;
    if (io->next)
        io->next->link = io->link;
    blk_complete(io->req, status);
}

static void fail(struct nfs_io *io, const struct blk_error *error)
{
    io->req->error = *error;
    complete(io, -error->code);
}

static void fail_status(struct nfs_io *io, int status)
{
    int rc = nfs_status_error(&io->req->error, status);

    if (status == NFS3ERR_IO) {
        io->req->bad_offset = io->req->offset + io->done;
        io->req->error.retry = io->req->op == BLK_READ ? BLK_MEDIUM : BLK_FATAL;
    }
    complete(io, rc);
}

static void call(struct nfs_io *io)
{
    nfs_session_call(io->device->session, &io->call);
}

static uint64_t epoch_of(const char *verifier)
{
    uint64_t epoch;

    memcpy(&epoch, verifier, sizeof(epoch));
    return epoch == BLK_NO_EPOCH ? EPOCH_OF_ZERO : epoch;
}

/* ---- READ ------------------------------------------------------------------------------------ */

static int issue_read(struct nfs_call *nfs_call, const struct shim_out *out)
{
    struct nfs_io *io = io_of(nfs_call);
    const struct blk_req *req = io->req;
    READ3args args = {.file = nfs_handle_fh3(&io->device->object.handle),
                      .offset = req->offset + io->done,
                      .count = (count3)(req->len - io->done)};

    return shim_read(out, &args, req->iov, req->iovcnt, io->done);
}

static void fail_short(struct nfs_io *io, bool eof)
{
    struct blk_req *req = io->req;
    uint64_t at = req->offset + io->done;

    if (eof)
        blk_error_set(&req->error, EIO,
                      "the file ends at %" PRIu64 ", where %" PRIu64
                      " more bytes are expected; was it truncated?",
                      at, req->len - io->done);
    else
        blk_error_set(&req->error, EIO, "the server sent nothing, though the file does not end");
    complete(io, -EIO);
}

static void on_read(struct nfs_call *nfs_call, const void *reply, const struct blk_error *error)
{
    struct nfs_io *io = io_of(nfs_call);
    struct blk_req *req = io->req;
    const READ3res *res = reply;
    const void *data;
    size_t len;
    int status;

    if (error) {
        fail(io, error);
        return;
    }
    if (res->status != NFS3_OK) {
        fail_status(io, res->status);
        return;
    }
    status = shim_read_data(&res->READ3res_u.resok, req->iov, io->done, req->len - io->done, &data,
                            &len, &req->error);
    if (status < 0) {
        complete(io, status);
        return;
    }
    if (data)
        blk_iov_from(req, io->done, data, len);
    io->done += len;
    if (io->done == req->len)
        complete(io, 0);
    else if (len == 0 || res->READ3res_u.resok.eof)
        fail_short(io, res->READ3res_u.resok.eof);
    else
        call(io);
}

/* ---- WRITE ----------------------------------------------------------------------------------- */

static int issue_write(struct nfs_call *nfs_call, const struct shim_out *out)
{
    struct nfs_io *io = io_of(nfs_call);
    const struct blk_req *req = io->req;
    WRITE3args args = {.file = nfs_handle_fh3(&io->device->object.handle),
                       .offset = req->offset + io->done,
                       .count = (count3)(req->len - io->done),
                       .stable = req->flags & BLK_FUA ? FILE_SYNC : UNSTABLE};

    return shim_write(out, &args, req->iov, req->iovcnt, io->done);
}

/*
 * DATA_SYNC counts as durable too: RFC 1813 3.3.7 has the server commit "all of the data to stable
 * storage and enough of the metadata to retrieve the data"; what it may leave out is the times.
 */
static void take_write(struct nfs_io *io, const WRITE3resok *ok)
{
    struct blk_req *req = io->req;
    uint64_t epoch = epoch_of(ok->verf);
    bool durable = ok->committed != UNSTABLE;

    if (io->done == 0) {
        req->epoch = epoch;
        req->durable = durable;
    } else {
        if (req->epoch != epoch)
            req->epoch = BLK_NO_EPOCH;
        req->durable = req->durable && durable;
    }
    io->done += ok->count;
}

static void on_write(struct nfs_call *nfs_call, const void *reply, const struct blk_error *error)
{
    struct nfs_io *io = io_of(nfs_call);
    struct blk_req *req = io->req;
    const WRITE3res *res = reply;
    const WRITE3resok *ok;

    if (error) {
        fail(io, error);
        return;
    }
    if (res->status != NFS3_OK) {
        fail_status(io, res->status);
        return;
    }
    ok = &res->WRITE3res_u.resok;
    if (ok->count == 0 || ok->count > req->len - io->done) {
        complete(io, blk_error_set(&req->error, EPROTO,
                                   "the server took %" PRIu32 " of %" PRIu64 " bytes",
                                   (uint32_t)ok->count, req->len - io->done));
        return;
    }
    if ((req->flags & BLK_FUA) && ok->committed == UNSTABLE) {
        complete(io, blk_error_set(&req->error, EIO,
                                   "the server answered UNSTABLE to a FILE_SYNC write, against "
                                   "RFC 1813 3.3.7"));
        return;
    }
    take_write(io, ok);
    if (io->done == req->len)
        complete(io, 0);
    else
        call(io);
}

/* ---- FLUSH ----------------------------------------------------------------------------------- */

static int issue_commit(struct nfs_call *nfs_call, const struct shim_out *out)
{
    struct nfs_io *io = io_of(nfs_call);
    /* Offset 0 and count 0 are the whole file. */
    COMMIT3args args = {.file = nfs_handle_fh3(&io->device->object.handle)};

    return shim_commit(out, &args);
}

static void on_commit(struct nfs_call *nfs_call, const void *reply, const struct blk_error *error)
{
    struct nfs_io *io = io_of(nfs_call);
    const COMMIT3res *res = reply;

    if (error) {
        fail(io, error);
        return;
    }
    if (res->status != NFS3_OK) {
        fail_status(io, res->status);
        return;
    }
    io->req->epoch = epoch_of(res->COMMIT3res_u.resok.verf);
    complete(io, 0);
}

/* ---- The hooks ------------------------------------------------------------------------------- */

void nfs_io_submit(struct blk_dev *dev, struct blk_req *req)
{
    struct nfs_device *device = nfs_device_of(dev);
    struct nfs_io *io = blk_req_state(req);

    assert(device->state == NFS_DEVICE_OPEN && !io->call.list);
    io->device = device;
    io->req = req;
    io->done = 0;
    io->next = device->ios;
    io->link = &device->ios;
    if (io->next)
        io->next->link = &io->next;
    device->ios = io;
    switch (req->op) {
    case BLK_READ:
        io->call.issue = issue_read;
        io->call.done = on_read;
        break;
    case BLK_WRITE:
        io->call.issue = issue_write;
        io->call.done = on_write;
        break;
    case BLK_FLUSH:
        io->call.issue = issue_commit;
        io->call.done = on_commit;
        break;
    case BLK_ZERO:
    case BLK_EXTENTS:
    case BLK_DISCARD:
        assert(!"not among the capabilities");
    }
    call(io);
}

void nfs_io_cancel_all(struct nfs_device *device)
{
    if (!device->ios || !nfs_session_free_buffers(device->session))
        return;
    while (device->ios) {
        struct nfs_io *io = device->ios;

        nfs_conn_forget(&device->session->nfsd, &io->call);
        complete(io, -ECANCELED);
    }
}
