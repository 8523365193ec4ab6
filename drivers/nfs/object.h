/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a server calls a file, and how it is known again.
 *
 * A handle stays valid when the server restarts (RFC 1813 2.3.3), and one that is not says
 * NFS3ERR_STALE. But a server may also reuse one, and another server, which has got the address of
 * the first, may have the same bytes for a file of its own. So type, fsid and fileid are compared
 * too, whenever the connection is another one.
 */
#ifndef LUNFERRY_NFS_OBJECT_H
#define LUNFERRY_NFS_OBJECT_H

#include <lunferry/block.h>

#include "shim.h"

/* RFC 1813 2.4: NFS3_FHSIZE */
#define NFS_HANDLE_SIZE 64

struct nfs_handle {
    uint32_t len;
    char data[NFS_HANDLE_SIZE];
};

/* False: the server sent what is not a handle. */
bool nfs_handle_set(struct nfs_handle *handle, const void *data, uint32_t len);
/* For arguments; borrows. */
struct nfs_fh3 nfs_handle_fh3(const struct nfs_handle *handle);

struct nfs_object {
    struct nfs_handle handle;
    ftype3 type;
    uint64_t fsid, file_id;
};

void nfs_object_set(struct nfs_object *object, const struct nfs_handle *handle,
                    const struct fattr3 *attr);
/* Are these attributes, which the handle has now, still those of the object? Returns 0, or -ESTALE
 * with a sentence. */
int nfs_object_check(const struct nfs_object *object, const struct fattr3 *attr,
                     struct blk_error *error);

int64_t nfs_time_ns(nfstime3 time);
struct blk_stamp nfs_stamp(const struct fattr3 *attr);

#endif
