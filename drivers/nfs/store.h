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
 *
 * An operation whose answer was lost with the session comes again, on the next session, with
 * req->repeated set. NFSv3 servers do not reliably remember what they have answered on another
 * connection, so what the first try may have done is told apart here, mostly with the help of
 * req->token:
 *
 *   CREATE   the token is the verifier of an EXCLUSIVE create, by which the server knows its own
 *            file again (RFC 1813 3.3.8). Where it knows no EXCLUSIVE, a name that is taken is an
 *            error: it may be taken by somebody else
 *   RENAME   NFS3ERR_NOENT: the token is the file's fileid; if the new name has it, it is done
 *   LINK     NFS3ERR_EXIST: likewise
 *   REMOVE   NFS3ERR_NOENT: it is done
 *   APPEND   the token is the offset, plus one, at which the first try wrote
 *   LIST     names are reported when all of them are there, so none comes twice
 *
 * The others may be done twice.
 */
#ifndef LUNFERRY_NFS_STORE_H
#define LUNFERRY_NFS_STORE_H

#include <lunferry/store.h>

#include "recheck.h"

struct nfs_op;

struct nfs_made {
    struct nfs_made *next;
    char *name;
    uint64_t verifier; /* of its CREATE */
    struct nfs_handle handle;
    bool fresh;         /* nothing was written to it: its attributes are those at its creation */
    struct fattr3 attr; /* fileid is 0 until CREATE is done */
};

enum nfs_store_state {
    NFS_STORE_CLOSED,
    NFS_STORE_OPENING,    /* store_opened() is due */
    NFS_STORE_OPEN,       /* though perhaps on a session that is lost */
    NFS_STORE_RECHECKING, /* store_recovered() is due */
};

struct nfs_store {
    struct store store;
    enum nfs_store_state state;
    struct nfs_session *session;
    struct nfs_waiter waiter; /* opening */
    struct nfs_recheck recheck;
    struct nfs_made *made;
    struct nfs_op *ops; /* under way */
};

/* One operation under way: a chain of calls, one at a time. */
struct nfs_op {
    struct nfs_call call;
    struct nfs_store *store;
    struct store_req *req;
    struct nfs_op *next, **link;
    const char *sought;                     /* the name in a LOOKUP */
    void (*with_handle)(struct nfs_op *op); /* what follows when the file's handle is known */
    struct nfs_handle handle;
    struct fattr3 attr;     /* after nfs_op_lookup() */
    bool guarded;           /* CREATE: the server knows no EXCLUSIVE */
    struct blk_error error; /* CREATE: what went wrong, while the file is removed again */
    struct iovec iov;       /* READ, WRITE: req->buf */
    uint64_t offset;        /* where they begin */
    uint64_t cookie;        /* LIST */
    cookieverf3 cookieverf;
    char *names; /* LIST: so far, each with its '\0' */
    size_t names_len, names_size;
};

extern const struct store_driver nfs_store_driver;

/* For opening a device on the store. The directory's handle is that of session->object. */
static inline struct nfs_store *nfs_store_of(struct store *store)
{
    return container_of(store, struct nfs_store, store);
}

/* The file of this name if the store created it, or NULL. */
struct nfs_made *nfs_store_made(struct nfs_store *store, const char *name);
/* Remembers what the op has created, as req->name; when out of memory, it does not. */
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
/* Is the reply this refusal? */
bool nfs_op_is_refused(const void *reply, const struct blk_error *error, nfsstat3 status);
/* Ends the operation and frees it. error: NULL for success. */
void nfs_op_complete(struct nfs_op *op, const struct blk_error *error);
/* The handle and attributes of a name of the request by LOOKUP, then with_handle(). */
void nfs_op_lookup(struct nfs_op *op, const char *name, void (*with_handle)(struct nfs_op *op));
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
