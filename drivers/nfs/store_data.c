/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store's operations on a file's bytes, which are few: bulk data goes through devices. */
#include <errno.h>
#include <string.h>

#include <lunferry/units.h>

#include "status.h"
#include "store.h"

static void fail(struct nfs_op *op, int code, const char *why)
{
    struct blk_error error;

    blk_error_set(&error, code, "%s", why);
    nfs_op_complete(op, &error);
}

static void set_buffer(struct nfs_op *op, uint64_t offset)
{
    op->iov.iov_base = op->req->buf;
    op->iov.iov_len = op->req->len;
    op->offset = offset;
    op->req->got = 0; /* whatever an earlier try has moved */
}

/* ---- READ ------------------------------------------------------------------------------------ */

static int issue_read(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_op *op = nfs_op_of(call);
    size_t done = op->req->got;
    READ3args args = {
        .file = nfs_handle_fh3(&op->handle),
        .offset = op->offset + done,
        .count = (count3)min_u64(op->req->len - done, nfs_session_max_read(op->store->session))};

    return shim_read(out, &args, &op->iov, 1, done);
}

static void on_read(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);
    const READ3resok *ok;
    const void *data;
    size_t len;
    struct blk_error own;

    if (!nfs_op_ok(op, reply, error))
        return;
    ok = &((const READ3res *)reply)->READ3res_u.resok;
    if (shim_read_data(ok, &op->iov, op->req->got, op->req->len - op->req->got, &data, &len, &own) <
        0) {
        nfs_op_complete(op, &own);
        return;
    }
    if (data)
        memcpy((char *)op->req->buf + op->req->got, data, len);
    op->req->got += len;
    if (ok->eof || len == 0 || op->req->got == op->req->len)
        nfs_op_complete(op, NULL);
    else
        nfs_op_call(op, issue_read, on_read);
}

void nfs_op_read(struct nfs_op *op)
{
    set_buffer(op, op->req->offset);
    if (op->req->len == 0)
        nfs_op_complete(op, NULL);
    else
        nfs_op_call(op, issue_read, on_read);
}

/* ---- WRITE and APPEND ------------------------------------------------------------------------ */

static int issue_write(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_op *op = nfs_op_of(call);
    size_t done = op->req->got;
    WRITE3args args = {
        .file = nfs_handle_fh3(&op->handle),
        .offset = op->offset + done,
        .count = (count3)min_u64(op->req->len - done, nfs_session_max_write(op->store->session)),
        .stable = FILE_SYNC};

    return shim_write(out, &args, &op->iov, 1, done);
}

static void on_write(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);
    const WRITE3resok *ok;

    if (!nfs_op_ok(op, reply, error))
        return;
    ok = &((const WRITE3res *)reply)->WRITE3res_u.resok;
    if (ok->count == 0 || ok->count > op->req->len - op->req->got) {
        fail(op, EPROTO, "the server took an impossible number of bytes");
        return;
    }
    if (ok->committed == UNSTABLE) {
        fail(op, EIO, "the server answered UNSTABLE to a FILE_SYNC write, against RFC 1813 3.3.7");
        return;
    }
    op->req->got += ok->count;
    if (op->req->got == op->req->len)
        nfs_op_complete(op, NULL);
    else
        nfs_op_call(op, issue_write, on_write);
}

static void write_at(struct nfs_op *op, uint64_t offset)
{
    set_buffer(op, offset);
    if (op->req->len == 0)
        nfs_op_complete(op, NULL);
    else
        nfs_op_call(op, issue_write, on_write);
}

void nfs_op_write(struct nfs_op *op)
{
    write_at(op, op->req->offset);
}

static void on_append_getattr(struct nfs_call *call, const void *reply,
                              const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);

    if (!nfs_op_ok(op, reply, error))
        return;
    op->req->token = ((const GETATTR3res *)reply)->GETATTR3res_u.resok.obj_attributes.size + 1;
    write_at(op, op->req->token - 1);
}

void nfs_op_append(struct nfs_op *op)
{
    if (op->req->token) {
        write_at(op, op->req->token - 1);
        return;
    }
    /* Also when a LOOKUP has just told the size: it may come from the server's name cache. */
    nfs_op_call(op, nfs_op_issue_getattr, on_append_getattr);
}

/* ---- SYNC ------------------------------------------------------------------------------------ */

static int issue_commit(struct nfs_call *call, const struct shim_out *out)
{
    COMMIT3args args = {.file = nfs_handle_fh3(&nfs_op_of(call)->handle)};

    return shim_commit(out, &args);
}

static void on_commit(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);

    if (nfs_op_ok(op, reply, error))
        nfs_op_complete(op, NULL);
}

void nfs_op_sync(struct nfs_op *op)
{
    nfs_op_call(op, issue_commit, on_commit);
}
