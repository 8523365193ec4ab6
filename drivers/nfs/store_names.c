/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store's operations on names: create, link, rename, remove; and the mode. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "status.h"
#include "store.h"

static struct diropargs3 place(struct nfs_op *op, const char *name)
{
    struct diropargs3 args = {.dir = nfs_handle_fh3(&op->store->session->object.handle),
                              .name = (char *)(uintptr_t)name};

    return args;
}

/* ---- SETATTR --------------------------------------------------------------------------------- */

static int issue_setattr(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_op *op = nfs_op_of(call);
    SETATTR3args args = {.object = nfs_handle_fh3(&op->handle)};

    args.new_attributes.mode.set_it = 1;
    args.new_attributes.mode.set_mode3_u.mode = op->req->attr.mode & 07777;
    if (op->req->op == STORE_CREATE) {
        /* Servers keep the verifier of an EXCLUSIVE create in the file's times. */
        args.new_attributes.atime.set_it = SET_TO_SERVER_TIME;
        args.new_attributes.mtime.set_it = SET_TO_SERVER_TIME;
    }
    return shim_setattr(out, &args);
}

static void on_setattr(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);

    if (nfs_op_ok(op, reply, error))
        nfs_op_complete(op, NULL);
}

void nfs_op_setattr(struct nfs_op *op)
{
    nfs_op_call(op, issue_setattr, on_setattr);
}

/* ---- CREATE ---------------------------------------------------------------------------------- */

static int issue_remove(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_op *op = nfs_op_of(call);
    REMOVE3args args = {.object = place(op, op->req->name)};

    return shim_remove(out, &args);
}

static void on_undone(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);

    (void)reply;
    if (error) { /* when it is repeated, it comes back here */
        nfs_op_complete(op, error);
        return;
    }
    nfs_store_forget(op->store, op->req->name);
    nfs_op_complete(op, &op->error);
}

/* The file is there, but not as it should be. */
static void undo_create(struct nfs_op *op)
{
    nfs_op_call(op, issue_remove, on_undone);
}

static void created(struct nfs_op *op)
{
    struct nfs_made *made = nfs_store_made(op->store, op->req->name);

    if (made) {
        made->attr = op->attr;
        made->fresh = true;
    }
    nfs_op_set_attr(op, &op->attr);
    nfs_op_complete(op, NULL);
}

static void on_created_getattr(struct nfs_call *call, const void *reply,
                               const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);

    if (!nfs_op_ok(op, reply, error))
        return;
    op->attr = ((const GETATTR3res *)reply)->GETATTR3res_u.resok.obj_attributes;
    created(op);
}

static void on_created_setattr(struct nfs_call *call, const void *reply,
                               const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);
    const SETATTR3res *res = reply;
    const post_op_attr *after;

    if (error) {
        nfs_op_complete(op, error);
        return;
    }
    if (res->status != NFS3_OK) {
        nfs_status_error(&op->error, res->status);
        blk_error_prefix(&op->error, "setting the new file's mode");
        undo_create(op);
        return;
    }
    after = &res->SETATTR3res_u.resok.obj_wcc.after;
    if (after->attributes_follow) {
        op->attr = after->post_op_attr_u.attributes;
        created(op);
    } else {
        nfs_op_call(op, nfs_op_issue_getattr, on_created_getattr);
    }
}

/* RFC 1813 3.3.8: an EXCLUSIVE create leaves the attributes undefined. GUARDED sets the mode, but
 * a server may apply a mask of its own; so both are followed by a SETATTR. */
static void set_up_created(struct nfs_op *op)
{
    nfs_op_call(op, issue_setattr, on_created_setattr);
}

/* The SETATTR wipes the verifier out, which most servers keep in the file's times: when its answer
 * is lost, another CREATE would find the name taken. What is remembered goes on from here. */
static void found_created(struct nfs_op *op)
{
    nfs_store_remember(op);
    set_up_created(op);
}

/* Never 0. */
static uint64_t new_verifier(const struct nfs_op *op)
{
    uint64_t verifier;

    if (getrandom(&verifier, sizeof(verifier), 0) < 0)
        verifier = (loop_now(op->store->store.loop) ^ (uint64_t)getpid() << 32) *
                   UINT64_C(0x9e3779b97f4a7c15);
    return verifier ? verifier : 1;
}

static int issue_create(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_op *op = nfs_op_of(call);
    CREATE3args args = {.where = place(op, op->req->name)};

    if (op->guarded) {
        args.how.mode = GUARDED;
        args.how.createhow3_u.g_obj_attributes.mode.set_it = 1;
        args.how.createhow3_u.g_obj_attributes.mode.set_mode3_u.mode = op->req->attr.mode & 07777;
    } else {
        args.how.mode = EXCLUSIVE;
        memcpy(args.how.createhow3_u.verf, &op->req->token, sizeof(args.how.createhow3_u.verf));
    }
    return shim_create(out, &args);
}

static void on_create(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);
    const CREATE3res *res = reply;
    const post_op_fh3 *obj;
    struct blk_error own;

    if (!op->guarded && nfs_op_is_refused(reply, error, NFS3ERR_NOTSUPP)) {
        op->guarded = true;
        nfs_op_call(op, issue_create, on_create);
        return;
    }
    if (op->guarded && op->req->repeated && nfs_op_is_refused(reply, error, NFS3ERR_EXIST)) {
        blk_error_set(
            &own, EEXIST,
            "NFS3ERR_EXIST: the name is taken, by an earlier try whose answer was lost, or "
            "by somebody else: on a server without EXCLUSIVE creation that cannot be told");
        nfs_op_complete(op, &own);
        return;
    }
    if (!nfs_op_ok(op, reply, error))
        return;
    obj = &res->CREATE3res_u.resok.obj;
    if (obj->handle_follows && nfs_handle_set(&op->handle, obj->post_op_fh3_u.handle.data.data_val,
                                              obj->post_op_fh3_u.handle.data.data_len)) {
        found_created(op);
    } else {
        nfs_op_lookup(op, op->req->name, found_created);
    }
}

void nfs_op_create(struct nfs_op *op)
{
    struct store_req *req = op->req;
    struct nfs_made *made = req->repeated ? nfs_store_made(op->store, req->name) : NULL;

    if (made && made->verifier == req->token) {
        op->handle = made->handle;
        set_up_created(op);
        return;
    }
    if (!req->token)
        req->token = new_verifier(op);
    nfs_op_call(op, issue_create, on_create);
}

/* ---- REMOVE ---------------------------------------------------------------------------------- */

static void on_remove(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);

    if (!(op->req->repeated && nfs_op_is_refused(reply, error, NFS3ERR_NOENT)) &&
        !nfs_op_ok(op, reply, error))
        return;
    nfs_store_forget(op->store, op->req->name);
    nfs_op_complete(op, NULL);
}

void nfs_op_remove(struct nfs_op *op)
{
    nfs_op_call(op, issue_remove, on_remove);
}

/* ---- RENAME and LINK ------------------------------------------------------------------------- */

/* The new name has been looked up. Has an earlier try given it to the file? Handles are not compared:
 * different ones may be of the same file (RFC 1813 2.3.3). */
static bool is_done_already(const struct nfs_op *op)
{
    return op->attr.fileid == op->req->token && op->attr.fsid == op->store->session->object.fsid;
}

/* Before the first try: what is about to get another name. */
static void note_file(struct nfs_op *op)
{
    if (!op->req->token)
        op->req->token = op->attr.fileid;
}

static int issue_rename(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_op *op = nfs_op_of(call);
    RENAME3args args = {.from = place(op, op->req->name), .to = place(op, op->req->new_name)};

    return shim_rename(out, &args);
}

static void renamed(struct nfs_op *op)
{
    nfs_store_forget(op->store, op->req->new_name);
    nfs_store_forget(op->store, op->req->name);
    nfs_op_complete(op, NULL);
}

static void check_renamed(struct nfs_op *op)
{
    struct blk_error own;

    if (is_done_already(op)) {
        renamed(op);
        return;
    }
    blk_error_set(&own, ENOENT,
                  "NFS3ERR_NOENT: the file is not there any more, and what has the new name is "
                  "another file");
    nfs_op_complete(op, &own);
}

static void on_rename(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);

    if (op->req->repeated && op->req->token && nfs_op_is_refused(reply, error, NFS3ERR_NOENT))
        nfs_op_lookup(op, op->req->new_name, check_renamed);
    else if (nfs_op_ok(op, reply, error))
        renamed(op);
}

static void rename_it(struct nfs_op *op)
{
    note_file(op);
    nfs_op_call(op, issue_rename, on_rename);
}

void nfs_op_rename(struct nfs_op *op)
{
    struct nfs_made *made = nfs_store_made(op->store, op->req->name);

    if (made)
        op->attr = made->attr;
    if (op->attr.fileid || op->req->token)
        rename_it(op);
    else
        nfs_op_lookup(op, op->req->name, rename_it);
}

static int issue_link(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_op *op = nfs_op_of(call);
    LINK3args args = {.file = nfs_handle_fh3(&op->handle), .link = place(op, op->req->new_name)};

    return shim_link(out, &args);
}

static void check_linked(struct nfs_op *op)
{
    struct blk_error own;

    if (is_done_already(op)) {
        nfs_op_complete(op, NULL);
        return;
    }
    nfs_status_error(&own, NFS3ERR_EXIST);
    nfs_op_complete(op, &own);
}

static void on_link(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);

    if (op->req->repeated && op->req->token && nfs_op_is_refused(reply, error, NFS3ERR_EXIST))
        nfs_op_lookup(op, op->req->new_name, check_linked);
    else if (nfs_op_ok(op, reply, error))
        nfs_op_complete(op, NULL);
}

void nfs_op_link(struct nfs_op *op)
{
    note_file(op);
    nfs_op_call(op, issue_link, on_link);
}
