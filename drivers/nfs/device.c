/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The NFS device: a regular file behind its handle. io.c has the requests. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "status.h"
#include "store.h"

#include <lunferry/units.h>

/* Enough for a 20 ms link at 10 Gbit/s in pieces of 256 KiB. */
#define MAX_DEPTH 128

/* ---- Opening --------------------------------------------------------------------------------- */

static void opened(struct nfs_device *device, const struct blk_error *error)
{
    bool again = device->state == NFS_DEVICE_REOPENING;
    struct blk_error own;

    assert(again || device->state == NFS_DEVICE_OPENING);
    device->state = error ? NFS_DEVICE_CLOSED : NFS_DEVICE_OPEN;
    if (!again) {
        blk_opened(&device->dev, error ? -error->code : 0, error);
        return;
    }
    if (error) {
        own = *error;
        nfs_recovery_class(&own);
        error = &own;
    }
    blk_recovered(&device->dev, error ? -error->code : 0, error);
}

/* The server's address belongs to it: handles of two servers may be the same bytes. */
static char *make_identity(const struct nfs_device *device)
{
    const struct nfs_handle *handle = &device->object.handle;
    size_t prefix = strlen(device->session->address) + 6;
    char *identity = malloc(prefix + 2 * handle->len + 1);

    if (!identity)
        return NULL;
    sprintf(identity, "nfs %s ", device->session->address);
    for (size_t i = 0; i < handle->len; i++)
        sprintf(identity + strlen(identity), "%02x", (unsigned char)handle->data[i]);
    return identity;
}

static void opened_with(struct nfs_device *device, const struct nfs_handle *handle,
                        const struct fattr3 *attr)
{
    struct blk_dev *dev = &device->dev;

    nfs_object_set(&device->object, handle, attr);
    device->nfs_port = device->session->nfs_port;
    device->used = attr->used;
    dev->size = attr->size;
    dev->opened = dev->seen = nfs_stamp(attr);
    dev->round_trip = device->session->nfsd.round_trip;
    if (!dev->identity)
        dev->identity = make_identity(device); /* without it, nothing is compared */
    dev->caps = BLK_CAN_FUA;
    dev->limits = (struct blk_limits){
        .align = 1,
        .mem_align = 1,
        .max_read = nfs_session_max_read(device->session),
        .max_write = nfs_session_max_write(device->session),
        .max_depth = MAX_DEPTH,
    };
}

static bool is_file(const struct fattr3 *attr, struct blk_error *error)
{
    if (attr->type == NF3REG)
        return true;
    if (attr->type == NF3DIR)
        blk_error_set(error, EISDIR, "it is a directory, not a file");
    else
        blk_error_set(error, EINVAL, "it is not a regular file");
    return false;
}

static uint32_t wanted_access(const struct nfs_device *device)
{
    return ACCESS3_READ | (device->dev.writable ? ACCESS3_MODIFY | ACCESS3_EXTEND : 0);
}

static int issue_access(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_device *device = container_of(call, struct nfs_device, call);
    ACCESS3args args = {.object = nfs_handle_fh3(&device->object.handle),
                        .access = wanted_access(device)};

    return shim_access(out, &args);
}

/* Refused now, rather than by the first READ or WRITE of a job that has begun. */
static void on_access(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_device *device = container_of(call, struct nfs_device, call);
    const struct shim_credentials *who = &device->session->where.credentials;
    const ACCESS3res *res = reply;
    uint32_t missing;
    struct blk_error own;

    if (error) {
        opened(device, error);
        return;
    }
    if (res->status != NFS3_OK) {
        nfs_status_error(&own, res->status);
        opened(device, &own);
        return;
    }
    missing = wanted_access(device) & ~res->ACCESS3res_u.resok.access;
    if (missing) {
        blk_error_set(&own, EACCES,
                      "the server allows uid %" PRIu32 ", gid %" PRIu32 " no %s of it (its mode, a "
                      "read-only export, or root squashing; see the options uid and gid)",
                      who->uid, who->gid, missing & ACCESS3_READ ? "reading" : "writing");
        opened(device, &own);
        return;
    }
    opened(device, NULL);
}

static void on_ready(struct nfs_waiter *waiter, const struct blk_error *error)
{
    struct nfs_device *device = container_of(waiter, struct nfs_device, waiter);
    struct nfs_session *session = device->session;
    struct blk_error own;

    if (!error && !is_file(&session->attr, &own))
        error = &own;
    if (error) {
        opened(device, error);
        return;
    }
    opened_with(device, &session->object.handle, &session->attr);
    device->call.issue = issue_access;
    device->call.done = on_access;
    nfs_session_call(session, &device->call);
}

static void on_walked(struct nfs_walk *walk, const struct blk_error *error)
{
    struct nfs_device *device = container_of(walk, struct nfs_device, walk);
    struct blk_error own;

    if (!error && !is_file(&walk->attr, &own))
        error = &own;
    if (!error)
        opened_with(device, &walk->handle, &walk->attr);
    opened(device, error);
}

/* Who opens a name in a store has mostly created it, and needs no ACCESS then. */
static void on_store_ready(struct nfs_waiter *waiter, const struct blk_error *error)
{
    struct nfs_device *device = container_of(waiter, struct nfs_device, waiter);
    struct nfs_made *made = nfs_store_made(device->store, device->name);
    struct nfs_conn *nfsd = &device->session->nfsd;

    if (error) {
        opened(device, error);
        return;
    }
    if (made && made->fresh) {
        made->fresh = false; /* the device may change the size */
        opened_with(device, &made->handle, &made->attr);
        opened(device, NULL);
        return;
    }
    device->walk.done = on_walked;
    if (made)
        nfs_walk_start(&device->walk, nfsd, &made->handle, "");
    else
        nfs_walk_start(&device->walk, nfsd, &device->session->object.handle, device->name);
}

static void open_in_store(struct nfs_device *device, struct nfs_store *store, const char *name)
{
    struct blk_error error;

    nfs_session_hold(store->session);
    device->session = store->session;
    device->store = store;
    device->name = strdup(name);
    if (!device->name) {
        blk_error_set(&error, ENOMEM, "out of memory");
        opened(device, &error);
        return;
    }
    device->waiter.done = on_store_ready;
    nfs_session_recover(device->session, &device->waiter);
}

static void hook_open(struct blk_dev *dev, const struct blk_open_args *args)
{
    struct nfs_device *device = nfs_device_of(dev);
    struct blk_error error;

    device->state = NFS_DEVICE_OPENING;
    if (args->store) {
        assert(args->store->driver == &nfs_store_driver);
        open_in_store(device, nfs_store_of(args->store), args->name);
        return;
    }
    device->session = nfs_session_new(dev->loop, args->url, args->settings, &error);
    if (!device->session) {
        opened(device, &error);
        return;
    }
    device->waiter.done = on_ready;
    nfs_session_open(device->session, true, &device->waiter);
}

static void on_cloned(struct nfs_waiter *waiter, const struct blk_error *error)
{
    struct nfs_device *device = container_of(waiter, struct nfs_device, waiter);

    if (!error)
        opened_with(device, &device->session->object.handle, &device->session->attr);
    opened(device, error);
}

/* Of the origin, which is in use in another thread, only what is immutable once it is open. */
static void hook_clone(struct blk_dev *dev, const struct blk_dev *origin_dev, unsigned number)
{
    struct nfs_device *device = nfs_device_of(dev);
    const struct nfs_device *origin = container_of(origin_dev, const struct nfs_device, dev);
    struct blk_error error;

    (void)number;
    device->state = NFS_DEVICE_OPENING;
    device->session =
        nfs_session_new(dev->loop, origin->session->url, origin->session->settings, &error);
    if (!device->session) {
        opened(device, &error);
        return;
    }
    device->waiter.done = on_cloned;
    nfs_session_reopen(device->session, &origin->object, origin->nfs_port, &device->waiter);
}

/* ---- Recovering ------------------------------------------------------------------------------ */

static void on_rechecked(struct nfs_recheck *recheck, const struct blk_error *error,
                         const struct fattr3 *attr)
{
    struct nfs_device *device = container_of(recheck, struct nfs_device, recheck);

    assert(device->state == NFS_DEVICE_RECHECKING);
    device->state = NFS_DEVICE_OPEN;
    if (!error)
        device->dev.seen = nfs_stamp(attr);
    blk_recovered(&device->dev, error ? -error->code : 0, error);
}

static void hook_recover(struct blk_dev *dev)
{
    struct nfs_device *device = nfs_device_of(dev);

    assert(!device->ios && !device->resizing);
    if (device->state == NFS_DEVICE_CLOSED) {
        device->state = NFS_DEVICE_REOPENING;
        nfs_session_recover(device->session, &device->waiter);
        return;
    }
    assert(device->state == NFS_DEVICE_OPEN);
    device->state = NFS_DEVICE_RECHECKING;
    device->recheck.session = device->session;
    device->recheck.object = &device->object;
    device->recheck.done = on_rechecked;
    nfs_recheck_start(&device->recheck);
}

/* ---- Closing --------------------------------------------------------------------------------- */

static void cancel_opening(struct nfs_device *device)
{
    nfs_waiter_forget(&device->waiter);
    nfs_walk_stop(&device->walk);
    nfs_conn_forget(&device->session->nfsd, &device->call);
}

static void on_gone(void *opaque)
{
    struct nfs_device *device = opaque;

    blk_closed(&device->dev);
}

static void hook_close(struct blk_dev *dev)
{
    struct nfs_device *device = nfs_device_of(dev);

    assert(!device->ios);
    free(device->name);
    if (!device->session) {
        blk_closed(dev);
        return;
    }
    cancel_opening(device);
    nfs_recheck_stop(&device->recheck);
    device->state = NFS_DEVICE_CLOSED;
    nfs_session_put(device->session, on_gone, device);
}

static void hook_cancel_all(struct blk_dev *dev)
{
    struct nfs_device *device = nfs_device_of(dev);

    switch (device->state) {
    case NFS_DEVICE_OPENING:
        cancel_opening(device);
        device->state = NFS_DEVICE_CLOSED;
        blk_opened(dev, -ECANCELED, NULL);
        return;
    case NFS_DEVICE_REOPENING:
        cancel_opening(device);
        device->state = NFS_DEVICE_CLOSED;
        blk_recovered(dev, -ECANCELED, NULL);
        return;
    case NFS_DEVICE_RECHECKING:
        nfs_recheck_stop(&device->recheck);
        device->state = NFS_DEVICE_OPEN;
        blk_recovered(dev, -ECANCELED, NULL);
        return;
    case NFS_DEVICE_CLOSED:
    case NFS_DEVICE_OPEN:
        break;
    }
    if (device->resizing) {
        nfs_conn_forget(&device->session->nfsd, &device->call);
        device->resizing = false;
        blk_task_done(dev, -ECANCELED, NULL);
    }
    nfs_io_cancel_all(device);
}

/* ---- Resizing -------------------------------------------------------------------------------- */

static int issue_resize(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_device *device = container_of(call, struct nfs_device, call);
    SETATTR3args args = {.object = nfs_handle_fh3(&device->object.handle)};

    args.new_attributes.size.set_it = 1;
    args.new_attributes.size.set_size3_u.size = device->new_size;
    return shim_setattr(out, &args);
}

static void on_resize(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_device *device = container_of(call, struct nfs_device, call);
    const SETATTR3res *res = reply;
    struct blk_error own;

    device->resizing = false;
    if (!error && res->status != NFS3_OK) {
        nfs_status_error(&own, res->status);
        error = &own;
    }
    if (!error)
        device->dev.size = device->new_size;
    blk_task_done(&device->dev, error ? -error->code : 0, error);
}

static void hook_resize(struct blk_dev *dev, uint64_t size)
{
    struct nfs_device *device = nfs_device_of(dev);

    device->new_size = size;
    device->resizing = true;
    device->call.issue = issue_resize;
    device->call.done = on_resize;
    nfs_session_call(device->session, &device->call);
}

/* ---- Describing ------------------------------------------------------------------------------ */

static void describe_credentials(const struct shim_credentials *who, struct blk_report *report)
{
    char text[32 + 11 * SHIM_MAX_GIDS] = "";
    size_t len = 0;

    for (unsigned i = 0; i < who->gid_count; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%" PRIu32, i ? "," : "",
                                who->gids[i]);
    blk_report_fact(report, "credentials", "acting as", "uid %" PRIu32 ", gid %" PRIu32 "%s%s",
                    who->uid, who->gid, len ? ", gids " : "", text);
}

/* All that there is is fattr3.used: that there are holes, not where. */
static void describe_ranges(const struct nfs_device *device, struct blk_report *report)
{
    bool sparse = device->used < device->dev.size;
    char text[UNITS_TEXT];

    blk_report_fact(report, "used", "allocated", "%" PRIu64 " bytes (%s)%s", device->used,
                    units_size(text, device->used), sparse ? ", less than its size: sparse" : "");
    blk_report_fact(report, "extents", "extents", "not known: NFS version 3 does not tell%s",
                    sparse ? " where the holes are" : "");
    blk_report_fact(report, "zeros", "zeros are made", "written");
}

static void hook_describe(struct blk_dev *dev, struct blk_report *report)
{
    struct nfs_device *device = nfs_device_of(dev);
    struct nfs_session *session = device->session;
    const struct FSINFO3resok *info = &session->fsinfo;
    bool mounted = session->mount.path != NULL;

    blk_report_fact(report, "protocol", "protocol", "NFS version 3 over TCP");
    blk_report_fact(report, "server", "server", "%s port %u", session->address, session->nfs_port);
    if (mounted)
        blk_report_fact(report, "export", "mounted directory", "%s", session->mount.path);
    blk_report_fact(report, "path", "path", "%s", session->url->path);
    blk_report_fact(report, "handle-length", "file handle", "%" PRIu32 " bytes",
                    device->object.handle.len);
    describe_ranges(device, report);
    blk_report_fact(report, "read-sizes", "READ", "%u bytes preferred, %u at most", info->rtpref,
                    info->rtmax);
    blk_report_fact(report, "write-sizes", "WRITE", "%u bytes preferred, %u at most", info->wtpref,
                    info->wtmax);
    blk_report_fact(report, "max-file-size", "largest file", "%" PRIu64 " bytes",
                    info->maxfilesize);
    describe_credentials(&session->where.credentials, report);
    blk_report_fact(report, "source-port", "source port", "%u (%s)", session->nfsd.source_port,
                    nfs_conn_privileged(&session->nfsd) ? "privileged"
                                                        : "not privileged, that is not below 1024");
    blk_report_fact(report, "library", "library", "libnfs %s", shim_version());
}

const struct blk_driver nfs_driver = {
    .name = "NFS",
    .scheme = "nfs",
    .syntax = "nfs://host[:port]/export/path/file[?option=value&...]",
    .options = nfs_options,
    .dev_size = sizeof(struct nfs_device),
    .req_size = sizeof(struct nfs_io),
    .check = nfs_check,
    .open = hook_open,
    .clone = hook_clone,
    .recover = hook_recover,
    .close = hook_close,
    .submit = nfs_io_submit,
    .cancel_all = hook_cancel_all,
    .resize = hook_resize,
    .describe = hook_describe,
    .store = &nfs_store_driver,
};
