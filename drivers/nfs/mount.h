/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The MOUNT protocol (RFC 1813 5): from a directory's path to its file handle.
 *
 * Most servers give the handle of any directory below an export. Some only accept an export's own
 * path: then the parents are tried, up to "/", and the caller walks down the rest. When none is
 * accepted, the error is that of the directory itself, with a list of what the server exports.
 */
#ifndef LUNFERRY_NFS_MOUNT_H
#define LUNFERRY_NFS_MOUNT_H

#include "walk.h"

#define NFS_MOUNT_PROGRAM 100005
#define NFS_MOUNT_VERSION 3

struct nfs_mount {
    /* Filled by the owner. */
    void (*done)(struct nfs_mount *mount, const struct blk_error *error); /* NULL: success */
    /* The result. */
    struct nfs_handle root;
    char *path;       /* what was mounted; owned */
    const char *rest; /* the part of the directory below it, "" if none */
    /* private */
    struct nfs_conn *conn;
    struct nfs_call call;
    const char *directory;
    struct blk_error error;
    bool refused; /* the first answer was one of permission */
};

/* `directory` is absolute and outlives the mount. */
void nfs_mount_start(struct nfs_mount *mount, struct nfs_conn *conn, const char *directory);
/* Forgets what is under way, and frees the result. */
void nfs_mount_release(struct nfs_mount *mount);

#endif
