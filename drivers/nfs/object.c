/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "object.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

bool nfs_handle_set(struct nfs_handle *handle, const void *data, uint32_t len)
{
    if (len == 0 || len > NFS_HANDLE_SIZE)
        return false;
    handle->len = len;
    memcpy(handle->data, data, len);
    return true;
}

struct nfs_fh3 nfs_handle_fh3(const struct nfs_handle *handle)
{
    struct nfs_fh3 fh;

    fh.data.data_len = handle->len;
    fh.data.data_val = (char *)(uintptr_t)handle->data;
    return fh;
}

void nfs_object_set(struct nfs_object *object, const struct nfs_handle *handle,
                    const struct fattr3 *attr)
{
    object->handle = *handle;
    object->type = attr->type;
    object->fsid = attr->fsid;
    object->file_id = attr->fileid;
}

int nfs_object_check(const struct nfs_object *object, const struct fattr3 *attr,
                     struct blk_error *error)
{
    if (attr->type == object->type && attr->fsid == object->fsid && attr->fileid == object->file_id)
        return 0;
    return blk_error_set(error, ESTALE,
                         "the server has something else behind the same file handle: type %d, "
                         "fsid %" PRIx64 ", fileid %" PRIu64 ", where there was type %d, fsid "
                         "%" PRIx64 ", fileid %" PRIu64,
                         (int)attr->type, (uint64_t)attr->fsid, (uint64_t)attr->fileid,
                         (int)object->type, object->fsid, object->file_id);
}

int64_t nfs_time_ns(nfstime3 time)
{
    return (int64_t)time.seconds * (int64_t)LOOP_SECOND + time.nseconds;
}

struct blk_stamp nfs_stamp(const struct fattr3 *attr)
{
    return (struct blk_stamp){
        .size = attr->size,
        .mtime_ns = nfs_time_ns(attr->mtime),
        .ctime_ns = nfs_time_ns(attr->ctime),
    };
}
