/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NFS device. device.c opens, closes, resizes and describes it, io.c carries out its requests.
 */
#ifndef LUNFERRY_NFS_DEVICE_H
#define LUNFERRY_NFS_DEVICE_H

#include <lunferry/driver.h>

#include "recheck.h"

enum nfs_device_state {
    NFS_DEVICE_CLOSED,     /* its opening has failed, or it was closed */
    NFS_DEVICE_OPENING,    /* blk_opened() is due */
    NFS_DEVICE_REOPENING,  /* it was CLOSED: the same once more, but blk_recovered() is due */
    NFS_DEVICE_OPEN,       /* though perhaps on a session that is lost */
    NFS_DEVICE_RECHECKING, /* it was OPEN; blk_recovered() is due */
};

struct nfs_io;
struct nfs_store;

struct nfs_device {
    struct blk_dev dev;
    enum nfs_device_state state;
    struct nfs_session *session; /* shared with a store and its other devices, or its own */
    /* Immutable once open: clones read them from other threads. */
    struct nfs_object object;
    uint16_t nfs_port; /* when it was opened */
    uint64_t used;     /* bytes on disk, when it was opened */
    /* Opening: first the session, by waiter.done, which says how to go on. */
    struct nfs_waiter waiter;
    struct nfs_store *store; /* in which it is opened */
    char *name;              /* by which; owned */
    struct nfs_walk walk;
    struct nfs_recheck recheck;
    struct nfs_call call; /* ACCESS while opening, SETATTR while resizing */
    bool resizing;
    uint64_t new_size;
    struct nfs_io *ios; /* requests under way */
};

/* A request's private state. */
struct nfs_io {
    struct nfs_call call;
    struct nfs_device *device;
    struct blk_req *req;
    struct nfs_io *next, **link;
    uint64_t done; /* bytes, of req->len: servers may do less than they are asked for */
};

static inline struct nfs_device *nfs_device_of(struct blk_dev *dev)
{
    return container_of(dev, struct nfs_device, dev);
}

void nfs_io_submit(struct blk_dev *dev, struct blk_req *req);
void nfs_io_cancel_all(struct nfs_device *device);

extern const struct blk_driver nfs_driver;

#endif
