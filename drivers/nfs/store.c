/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

/* For one READDIR reply. */
#define LIST_BYTES 32768

/* ---- Files that were created here ------------------------------------------------------------ */

struct nfs_made *nfs_store_made(struct nfs_store *store, const char *name)
{
    struct nfs_made *made = store->made;

    while (made && strcmp(made->name, name) != 0)
        made = made->next;
    return made;
}

void nfs_store_remember(struct nfs_op *op)
{
    struct nfs_made *made = calloc(1, sizeof(*made));

    nfs_store_forget(op->store, op->req->name);
    if (made)
        made->name = strdup(op->req->name);
    if (!made || !made->name) {
        free(made);
        return;
    }
    made->verifier = op->req->token;
    made->handle = op->handle;
    made->next = op->store->made;
    op->store->made = made;
}

void nfs_store_forget(struct nfs_store *store, const char *name)
{
    for (struct nfs_made **at = &store->made; *at; at = &(*at)->next) {
        if (strcmp((*at)->name, name) == 0) {
            struct nfs_made *made = *at;

            *at = made->next;
            free(made->name);
            free(made);
            return;
        }
    }
}

/* ---- What operations have in common ---------------------------------------------------------- */

void nfs_op_call(struct nfs_op *op, nfs_op_issue *issue, nfs_op_done *done)
{
    op->call.issue = issue;
    op->call.done = done;
    nfs_session_call(op->store->session, &op->call);
}

void nfs_op_complete(struct nfs_op *op, const struct blk_error *error)
{
    struct store_req *req = op->req;
    int status = 0;

    *op->link = op->next;
    if (op->next)
        op->next->link = op->link;
    if (error) {
        req->error = *error;
        status = -error->code;
    }
    free(op->names);
    free(op);
    store_complete(req, status);
}

bool nfs_op_ok(struct nfs_op *op, const void *reply, const struct blk_error *error)
{
    struct blk_error own;
    nfsstat3 status;

    if (error) {
        nfs_op_complete(op, error);
        return false;
    }
    memcpy(&status, reply, sizeof(status));
    if (status == NFS3_OK)
        return true;
    nfs_status_error(&own, status);
    nfs_op_complete(op, &own);
    return false;
}

bool nfs_op_is_refused(const void *reply, const struct blk_error *error, nfsstat3 status)
{
    nfsstat3 got;

    if (error)
        return false;
    memcpy(&got, reply, sizeof(got));
    return got == status;
}

void nfs_op_set_attr(struct nfs_op *op, const struct fattr3 *from)
{
    struct store_attr *attr = &op->req->attr;

    attr->type = from->type == NF3REG   ? STORE_FILE
                 : from->type == NF3DIR ? STORE_DIRECTORY
                 : from->type == NF3LNK ? STORE_SYMLINK
                                        : STORE_OTHER;
    attr->mode = from->mode & 07777;
    attr->size = from->size;
    attr->used = from->used;
    attr->file_id = from->fileid;
    attr->mtime_ns = nfs_time_ns(from->mtime);
    attr->ctime_ns = nfs_time_ns(from->ctime);
}

int nfs_op_issue_getattr(struct nfs_call *call, const struct shim_out *out)
{
    GETATTR3args args = {.object = nfs_handle_fh3(&nfs_op_of(call)->handle)};

    return shim_getattr(out, &args);
}

static void on_getattr(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);
    const GETATTR3res *res = reply;

    if (!nfs_op_ok(op, reply, error))
        return;
    op->attr = res->GETATTR3res_u.resok.obj_attributes;
    op->with_handle(op);
}

static int issue_lookup(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_op *op = nfs_op_of(call);
    LOOKUP3args args = {.what = {.dir = nfs_handle_fh3(&op->store->session->object.handle),
                                 .name = (char *)(uintptr_t)op->sought}};

    return shim_lookup(out, &args);
}

static void on_lookup(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);
    const LOOKUP3resok *ok;

    if (!nfs_op_ok(op, reply, error))
        return;
    ok = &((const LOOKUP3res *)reply)->LOOKUP3res_u.resok;
    if (!nfs_handle_set(&op->handle, ok->object.data.data_val, ok->object.data.data_len)) {
        struct blk_error own;

        blk_error_set(&own, EPROTO, "the server sent an invalid file handle");
        nfs_op_complete(op, &own);
    } else if (ok->obj_attributes.attributes_follow) {
        op->attr = ok->obj_attributes.post_op_attr_u.attributes;
        op->with_handle(op);
    } else {
        nfs_op_call(op, nfs_op_issue_getattr, on_getattr);
    }
}

void nfs_op_lookup(struct nfs_op *op, const char *name, void (*with_handle)(struct nfs_op *op))
{
    op->sought = name;
    op->with_handle = with_handle;
    nfs_op_call(op, issue_lookup, on_lookup);
}

/* ---- STAT and LIST --------------------------------------------------------------------------- */

static void stat_it(struct nfs_op *op)
{
    nfs_op_set_attr(op, &op->attr);
    nfs_op_complete(op, NULL);
}

static int issue_readdir(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_op *op = nfs_op_of(call);
    READDIR3args args = {.dir = nfs_handle_fh3(&op->store->session->object.handle),
                         .cookie = op->cookie,
                         .count = LIST_BYTES};

    memcpy(args.cookieverf, op->cookieverf, sizeof(args.cookieverf));
    return shim_readdir(out, &args);
}

static bool is_listed(const char *name)
{
    return name && name[0] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           !strchr(name, '/');
}

static bool add_name(struct nfs_op *op, const char *name)
{
    size_t len = strlen(name) + 1;

    if (op->names_len + len > op->names_size) {
        size_t size = 2 * (op->names_size + len) + 1024;
        char *names = realloc(op->names, size);

        if (!names)
            return false;
        op->names = names;
        op->names_size = size;
    }
    memcpy(op->names + op->names_len, name, len);
    op->names_len += len;
    return true;
}

static void report_names(struct nfs_op *op)
{
    for (size_t at = 0; at < op->names_len; at += strlen(op->names + at) + 1)
        op->req->entry(op->req, op->names + at);
    nfs_op_complete(op, NULL);
}

static void fail(struct nfs_op *op, int code, const char *why)
{
    struct blk_error error;

    blk_error_set(&error, code, "%s", why);
    nfs_op_complete(op, &error);
}

static void on_readdir(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_op *op = nfs_op_of(call);
    const READDIR3resok *ok;
    const void *at;
    struct entry3 entry; /* a copy: the library's lists are misaligned */

    if (!nfs_op_ok(op, reply, error))
        return;
    ok = &((const READDIR3res *)reply)->READDIR3res_u.resok;
    if (!ok->reply.entries && !ok->reply.eof) {
        fail(op, EPROTO, "the server does not get on in the directory");
        return;
    }
    for (at = ok->reply.entries; at; at = entry.nextentry) {
        memcpy(&entry, at, sizeof(entry));
        op->cookie = entry.cookie;
        if (is_listed(entry.name) && !add_name(op, entry.name)) {
            fail(op, ENOMEM, "out of memory");
            return;
        }
    }
    memcpy(op->cookieverf, ok->cookieverf, sizeof(op->cookieverf));
    if (ok->reply.eof)
        report_names(op);
    else
        nfs_op_call(op, issue_readdir, on_readdir);
}

/* ---- The hooks ------------------------------------------------------------------------------- */

static void on_ready(struct nfs_waiter *waiter, const struct blk_error *error)
{
    struct nfs_store *store = container_of(waiter, struct nfs_store, waiter);
    struct blk_error own;

    if (!error && store->session->attr.type != NF3DIR) {
        blk_error_set(&own, ENOTDIR, "%s is not a directory", store->session->where.directory);
        error = &own;
    }
    store->state = error ? NFS_STORE_CLOSED : NFS_STORE_OPEN;
    store_opened(&store->store, error ? -error->code : 0, error);
}

static void store_hook_open(struct store *base, const struct blk_open_args *args)
{
    struct nfs_store *store = nfs_store_of(base);
    struct blk_error error;

    store->session = nfs_session_new(base->loop, args->url, args->settings, &error);
    if (!store->session) {
        store_opened(base, -error.code, &error);
        return;
    }
    store->state = NFS_STORE_OPENING;
    store->waiter.done = on_ready;
    nfs_session_open(store->session, false, &store->waiter);
}

static void on_rechecked(struct nfs_recheck *recheck, const struct blk_error *error,
                         const struct fattr3 *attr)
{
    struct nfs_store *store = container_of(recheck, struct nfs_store, recheck);

    (void)attr;
    assert(store->state == NFS_STORE_RECHECKING);
    store->state = NFS_STORE_OPEN;
    store_recovered(&store->store, error ? -error->code : 0, error);
}

static void store_hook_recover(struct store *base)
{
    struct nfs_store *store = nfs_store_of(base);

    assert(store->state == NFS_STORE_OPEN);
    store->state = NFS_STORE_RECHECKING;
    store->recheck.session = store->session;
    store->recheck.object = &store->session->object;
    store->recheck.done = on_rechecked;
    nfs_recheck_start(&store->recheck);
}

static void on_gone(void *opaque)
{
    struct nfs_store *store = opaque;

    store_closed(&store->store);
}

static void store_hook_close(struct store *base)
{
    struct nfs_store *store = nfs_store_of(base);

    assert(!store->ops);
    while (store->made)
        nfs_store_forget(store, store->made->name);
    nfs_waiter_forget(&store->waiter);
    nfs_recheck_stop(&store->recheck);
    store->state = NFS_STORE_CLOSED;
    if (store->session)
        nfs_session_put(store->session, on_gone, store);
    else
        store_closed(base);
}

static void begin(struct nfs_op *op, void (*with_handle)(struct nfs_op *), bool changes_file)
{
    struct nfs_made *made = changes_file ? nfs_store_made(op->store, op->req->name) : NULL;

    if (made) {
        op->handle = made->handle;
        op->attr = made->attr;
        made->fresh = false;
        with_handle(op);
    } else {
        nfs_op_lookup(op, op->req->name, with_handle);
    }
}

static void dispatch(struct nfs_op *op)
{
    switch (op->req->op) {
    case STORE_STAT:
        begin(op, stat_it, false);
        break;
    case STORE_CREATE:
        nfs_op_create(op);
        break;
    case STORE_READ:
        begin(op, nfs_op_read, false);
        break;
    case STORE_WRITE:
        begin(op, nfs_op_write, true);
        break;
    case STORE_APPEND:
        begin(op, nfs_op_append, true);
        break;
    case STORE_SYNC:
        begin(op, nfs_op_sync, true);
        break;
    case STORE_LINK:
        begin(op, nfs_op_link, true);
        break;
    case STORE_RENAME:
        nfs_op_rename(op);
        break;
    case STORE_REMOVE:
        nfs_op_remove(op);
        break;
    case STORE_SETATTR:
        begin(op, nfs_op_setattr, true);
        break;
    case STORE_LIST:
        nfs_op_call(op, issue_readdir, on_readdir);
        break;
    }
}

static void store_hook_submit(struct store *base, struct store_req *req)
{
    struct nfs_store *store = nfs_store_of(base);
    struct nfs_op *op = calloc(1, sizeof(*op));

    if (!op) {
        store_complete(req, blk_error_set(&req->error, ENOMEM, "out of memory"));
        return;
    }
    op->store = store;
    op->req = req;
    op->next = store->ops;
    op->link = &store->ops;
    if (op->next)
        op->next->link = &op->next;
    store->ops = op;
    dispatch(op);
}

static void store_hook_cancel_all(struct store *base)
{
    struct nfs_store *store = nfs_store_of(base);
    struct blk_error error;

    blk_error_set(&error, ECANCELED, "cancelled");
    if (store->state == NFS_STORE_OPENING) {
        nfs_waiter_forget(&store->waiter);
        store->state = NFS_STORE_CLOSED;
        store_opened(base, -ECANCELED, NULL);
    } else if (store->state == NFS_STORE_RECHECKING) {
        nfs_recheck_stop(&store->recheck);
        store->state = NFS_STORE_OPEN;
        store_recovered(base, -ECANCELED, NULL);
    }
    if (!store->ops || !nfs_session_free_buffers(store->session))
        return;
    for (struct nfs_op *op = store->ops, *next; op; op = next) {
        next = op->next;
        nfs_conn_forget(&store->session->nfsd, &op->call);
        nfs_op_complete(op, &error);
    }
}

const struct store_driver nfs_store_driver = {
    .store_size = sizeof(struct nfs_store),
    .open = store_hook_open,
    .close = store_hook_close,
    .submit = store_hook_submit,
    .cancel_all = store_hook_cancel_all,
    .recover = store_hook_recover,
};
