/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "recheck.h"

#include "status.h"

static void fail(struct nfs_recheck *recheck, const struct blk_error *error)
{
    struct blk_error copy = *error;

    nfs_recovery_class(&copy);
    recheck->done(recheck, &copy, NULL);
}

static int issue_getattr(struct nfs_call *call, const struct shim_out *out)
{
    const struct nfs_recheck *recheck = container_of(call, struct nfs_recheck, call);
    GETATTR3args args = {.object = nfs_handle_fh3(&recheck->object->handle)};

    return shim_getattr(out, &args);
}

static void on_getattr(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_recheck *recheck = container_of(call, struct nfs_recheck, call);
    const GETATTR3res *res = reply;
    const struct fattr3 *attr;
    struct blk_error own;

    if (error) {
        fail(recheck, error);
    } else if (res->status != NFS3_OK) {
        nfs_status_error(&own, res->status);
        fail(recheck, &own);
    } else {
        attr = &res->GETATTR3res_u.resok.obj_attributes;
        if (nfs_object_check(recheck->object, attr, &own) < 0)
            fail(recheck, &own);
        else
            recheck->done(recheck, NULL, attr);
    }
}

static void on_session(struct nfs_waiter *waiter, const struct blk_error *error)
{
    struct nfs_recheck *recheck = container_of(waiter, struct nfs_recheck, waiter);

    if (error) {
        fail(recheck, error);
        return;
    }
    recheck->call.issue = issue_getattr;
    recheck->call.done = on_getattr;
    nfs_session_call(recheck->session, &recheck->call);
}

void nfs_recheck_start(struct nfs_recheck *recheck)
{
    recheck->waiter.done = on_session;
    nfs_session_recover(recheck->session, &recheck->waiter);
}

void nfs_recheck_stop(struct nfs_recheck *recheck)
{
    nfs_waiter_forget(&recheck->waiter);
    if (recheck->session)
        nfs_conn_forget(&recheck->session->nfsd, &recheck->call);
}
