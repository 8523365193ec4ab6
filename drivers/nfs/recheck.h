/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking at an object again: on the session that there is, or on a new one, for which it waits, or
 * which it begins, where that one is lost. This is what `recover` is, of devices and stores.
 */
#ifndef LUNFERRY_NFS_RECHECK_H
#define LUNFERRY_NFS_RECHECK_H

#include "session.h"

struct nfs_recheck {
    /* Filled by the owner. */
    struct nfs_session *session;
    const struct nfs_object *object;
    /* NULL: it is the same, and these are its attributes now. Errors are of nfs_recovery_class(). */
    void (*done)(struct nfs_recheck *recheck, const struct blk_error *error,
                 const struct fattr3 *attr);
    /* private */
    struct nfs_waiter waiter;
    struct nfs_call call;
};

/* done() may be called from within, but only with an error. */
void nfs_recheck_start(struct nfs_recheck *recheck);
/* There will be no done(). Harmless when it is not under way. */
void nfs_recheck_stop(struct nfs_recheck *recheck);

#endif
