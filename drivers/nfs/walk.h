/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a path to a file handle: LOOKUP by LOOKUP, below a directory whose handle is known.
 *
 * Symbolic links are followed if they are relative and stay below that directory; we have no idea
 * of what lies around it on the server, so others are refused with a sentence that says where they
 * lead.
 */
#ifndef LUNFERRY_NFS_WALK_H
#define LUNFERRY_NFS_WALK_H

#include "conn.h"
#include "object.h"

/* Links followed in one walk before it is called a loop. */
#define NFS_WALK_LINKS 8
/* Directories that a walk can be deep. */
#define NFS_WALK_DEPTH 64

struct nfs_walk {
    /* Filled by the owner. */
    void (*done)(struct nfs_walk *walk, const struct blk_error *error); /* NULL: success */
    /* The result. */
    struct nfs_handle handle;
    struct fattr3 attr;
    /* private */
    struct nfs_conn *conn;
    struct nfs_call call;
    struct nfs_handle *stack; /* of directories: [0] is where the walk began, [depth] is here */
    unsigned depth;
    char *rest;          /* the path that is left, owned */
    char component[256]; /* the name being looked up */
    unsigned links;
};

/* `path` is relative and copied; "" finds the attributes of `base` itself. The walk may be started
 * again when it is done. done() may be called from within, but only with an error. */
void nfs_walk_start(struct nfs_walk *walk, struct nfs_conn *conn, const struct nfs_handle *base,
                    const char *path);
/* Forgets a walk under way; there will be no done(). Harmless at other times. */
void nfs_walk_stop(struct nfs_walk *walk);

#endif
