/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nfsc/libnfs-raw-mount.h>

#include "status.h"

/* RFC 5531 8.2 and the flavours of RFC 2623; what we can be is AUTH_SYS, or nobody. */
#define FLAVOUR_NONE 0
#define FLAVOUR_SYS  1

static void finish(struct nfs_mount *mount, const struct blk_error *error)
{
    mount->conn = NULL;
    mount->done(mount, error);
}

static int issue_mnt(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_mount *mount = container_of(call, struct nfs_mount, call);

    return shim_mnt(out, mount->path);
}

static int issue_export(struct nfs_call *call, const struct shim_out *out)
{
    (void)call;
    return shim_export(out);
}

/* ---- What the server exports, for the error -------------------------------------------------- */

static void append_exports(struct blk_error *error, const void *list)
{
    char paths[160] = "";
    size_t len = 0;
    struct exportnode node; /* a copy: the library's lists are misaligned */

    for (; list; list = node.ex_next) {
        int more;

        memcpy(&node, list, sizeof(node));
        more = snprintf(paths + len, sizeof(paths) - len, "%s%s", len ? ", " : "",
                        node.ex_dir ? node.ex_dir : "?");
        if (more < 0 || (size_t)more >= sizeof(paths) - len - 5) {
            snprintf(paths + len, sizeof(paths) - len, "%s", len ? ", ..." : "...");
            break;
        }
        len += (size_t)more;
    }
    blk_error_set_retry(error, error->code, error->retry, "%s; the server exports %s", error->text,
                        paths[0] ? paths : "nothing at all");
}

static void on_export(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_mount *mount = container_of(call, struct nfs_mount, call);

    if (!error) {
        const exports *list = reply;

        append_exports(&mount->error, *list);
    }
    if (mount->refused && !nfs_conn_privileged(mount->conn))
        blk_error_set(&mount->error, mount->error.code, "%s; %s", mount->error.text,
                      NFS_UNPRIVILEGED_HINT);
    finish(mount, &mount->error);
}

/* ---- Trying ---------------------------------------------------------------------------------- */

static void on_mnt(struct nfs_call *call, const void *reply, const struct blk_error *error);

static void try_mnt(struct nfs_mount *mount)
{
    mount->call.issue = issue_mnt;
    mount->call.done = on_mnt;
    nfs_conn_call(mount->conn, &mount->call);
}

static bool parent_may_do(int code)
{
    return code == ENOENT || code == EACCES || code == ENOTDIR || code == EINVAL;
}

/* Cuts the last component off the path. False: it is "/". */
static bool to_parent(char *path)
{
    char *slash = strrchr(path, '/');

    if (path[1] == '\0')
        return false;
    slash[slash == path ? 1 : 0] = '\0';
    return true;
}

static void refused(struct nfs_mount *mount, int status)
{
    struct blk_error error;

    nfs_mount_error(&error, status);
    blk_error_prefix(&error, "mounting %s", mount->path);
    if (mount->error.code == 0) {
        mount->error = error;
        mount->refused = nfs_status_is_refusal(status);
    }
    if (parent_may_do(error.code) && to_parent(mount->path)) {
        try_mnt(mount);
        return;
    }
    mount->call.issue = issue_export;
    mount->call.done = on_export;
    nfs_conn_call(mount->conn, &mount->call);
}

static bool flavour_is_ours(const struct mountres3_ok *ok)
{
    if (ok->auth_flavors.auth_flavors_len == 0)
        return true;
    for (uint32_t i = 0; i < ok->auth_flavors.auth_flavors_len; i++) {
        int flavour = ok->auth_flavors.auth_flavors_val[i];

        if (flavour == FLAVOUR_SYS || flavour == FLAVOUR_NONE)
            return true;
    }
    return false;
}

static void on_mnt(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_mount *mount = container_of(call, struct nfs_mount, call);
    const struct mountres3 *res = reply;
    const struct mountres3_ok *ok;
    struct blk_error own;

    if (error) {
        own = *error;
        blk_error_prefix(&own, "mounting %s", mount->path);
        finish(mount, &own);
        return;
    }
    if (res->fhs_status != MNT3_OK) {
        refused(mount, res->fhs_status);
        return;
    }
    ok = &res->mountres3_u.mountinfo;
    if (!flavour_is_ours(ok)) {
        blk_error_set(
            &own, EACCES,
            "%s is exported for Kerberos only (RPCSEC_GSS), which lunferry does not speak",
            mount->path);
        finish(mount, &own);
        return;
    }
    if (!nfs_handle_set(&mount->root, ok->fhandle.fhandle3_val, ok->fhandle.fhandle3_len)) {
        blk_error_set(&own, EPROTO, "mounting %s: the server sent an invalid file handle",
                      mount->path);
        finish(mount, &own);
        return;
    }
    mount->rest = mount->directory + strlen(mount->path);
    finish(mount, NULL);
}

void nfs_mount_start(struct nfs_mount *mount, struct nfs_conn *conn, const char *directory)
{
    mount->conn = conn;
    mount->directory = directory;
    mount->refused = false;
    blk_error_clear(&mount->error);
    free(mount->path);
    mount->path = strdup(directory);
    if (!mount->path) {
        blk_error_set(&mount->error, ENOMEM, "out of memory");
        finish(mount, &mount->error);
        return;
    }
    try_mnt(mount);
}

void nfs_mount_release(struct nfs_mount *mount)
{
    if (mount->conn)
        nfs_conn_forget(mount->conn, &mount->call);
    mount->conn = NULL;
    free(mount->path);
    mount->path = NULL;
}
