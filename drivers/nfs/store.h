/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store on NFS: the directory of a URL, on a session that devices may share.
 *
 * store.c has its life and what operations have in common, store_names.c those on names,
 * store_data.c those on a file's bytes.
 *
 * A store remembers the handles of the files that it created. Operations that change such a file
 * use the handle and save the LOOKUP; they thus reach the file that was created even if someone has
 * put another under its name, and then get NFS3ERR_STALE when it is gone. STAT and READ always look
 * the name up.
 */
#ifndef LUNFERRY_NFS_STORE_H
#define LUNFERRY_NFS_STORE_H

#include <lunferry/store.h>

#include "session.h"

struct nfs_op;

struct nfs_made {
    struct nfs_made *next;
    char *name;
    struct nfs_handle handle;
    bool fresh; /* nothing was written to it: its attributes are those at its creation */
    struct fattr3 attr;
};

struct nfs_store {
    struct store store;
    struct nfs_session *session;
    bool opening;
    struct nfs_made *made;
    struct nfs_op *ops; /* under way */
};

/* One operation under way: a chain of calls, one at a time. */
struct nfs_op {
    struct nfs_call call;
    struct nfs_store *store;
    struct store_req *req;
    struct nfs_op *next, **link;
    void (*with_handle)(struct nfs_op *op); /* what follows when the file's handle is known */
    struct nfs_handle handle;
    struct fattr3 attr;     /* after nfs_op_lookup() */
    bool guarded;           /* CREATE: the server knows no EXCLUSIVE */
    struct blk_error error; /* CREATE: what went wrong, while the file is removed again */
    struct iovec iov;       /* READ, WRITE: req->buf */
    uint64_t offset;        /* where they begin */
    uint64_t cookie;        /* LIST */
    cookieverf3 cookieverf;
};

extern const struct store_driver nfs_store_driver;

/* For opening a device on the store. The directory's handle is session->handle. */
static inline struct nfs_store *nfs_store_of(struct store *store)
{
    return container_of(store, struct nfs_store, store);
}

/* The file of this name if the store created it, or NULL. */
struct nfs_made *nfs_store_made(struct nfs_store *store, const char *name);
/* Remembers it; when out of memory, it does not. */
void nfs_store_remember(struct nfs_op *op);
void nfs_store_forget(struct nfs_store *store, const char *name);

typedef int nfs_op_issue(struct nfs_call *call, const struct shim_out *out);
typedef void nfs_op_done(struct nfs_call *call, const void *reply, const struct blk_error *error);

static inline struct nfs_op *nfs_op_of(struct nfs_call *call)
{
    return container_of(call, struct nfs_op, call);
}

/* The next call of the operation. */
void nfs_op_call(struct nfs_op *op, nfs_op_issue *issue, nfs_op_done *done);
/* Is the reply a success? Otherwise the operation is completed with the error. `reply` is any of
 * NFSv3's, which all begin with the status. */
bool nfs_op_ok(struct nfs_op *op, const void *reply, const struct blk_error *error);
/* Ends the operation and frees it. error: NULL for success. */
void nfs_op_complete(struct nfs_op *op, const struct blk_error *error);
/* The name's handle (and attributes) by LOOKUP, then with_handle(). */
void nfs_op_lookup(struct nfs_op *op);
int nfs_op_issue_getattr(struct nfs_call *call, const struct shim_out *out);
void nfs_op_set_attr(struct nfs_op *op, const struct fattr3 *attr);

/* Where each operation begins. Those of the second group find the file's handle in the op. */
void nfs_op_create(struct nfs_op *op);
void nfs_op_rename(struct nfs_op *op);
void nfs_op_remove(struct nfs_op *op);

void nfs_op_link(struct nfs_op *op);
void nfs_op_setattr(struct nfs_op *op);
void nfs_op_read(struct nfs_op *op);
void nfs_op_write(struct nfs_op *op);
void nfs_op_append(struct nfs_op *op);
void nfs_op_sync(struct nfs_op *op);

#endif
