/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "walk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

static void step(struct nfs_walk *walk);

static void finish(struct nfs_walk *walk, const struct blk_error *error)
{
    nfs_walk_stop(walk);
    walk->done(walk, error);
}

static void fail(struct nfs_walk *walk, int code, const char *why)
{
    struct blk_error error;

    blk_error_set(&error, code, "\"%s\": %s", walk->component, why);
    finish(walk, &error);
}

static void fail_status(struct nfs_walk *walk, int status)
{
    struct blk_error error;

    nfs_status_error(&error, status);
    if (walk->component[0])
        blk_error_prefix(&error, "\"%s\"", walk->component);
    finish(walk, &error);
}

static void call(struct nfs_walk *walk, int (*issue)(struct nfs_call *, const struct shim_out *),
                 void (*done)(struct nfs_call *, const void *, const struct blk_error *))
{
    walk->call.issue = issue;
    walk->call.done = done;
    nfs_conn_call(walk->conn, &walk->call);
}

/* ---- Links ----------------------------------------------------------------------------------- */

static int issue_readlink(struct nfs_call *nfs_call, const struct shim_out *out)
{
    struct nfs_walk *walk = container_of(nfs_call, struct nfs_walk, call);
    READLINK3args args = {.symlink = nfs_handle_fh3(&walk->handle)};

    return shim_readlink(out, &args);
}

static void follow(struct nfs_walk *walk, const char *target)
{
    size_t room = strlen(target) + 1 + strlen(walk->rest) + 1;
    char *path;

    if (target[0] == '/') {
        struct blk_error error;

        blk_error_set(
            &error, EINVAL,
            "\"%s\" is a symbolic link to the absolute path \"%.200s\", which has another "
            "meaning on the server than here; name that path",
            walk->component, target);
        finish(walk, &error);
        return;
    }
    if (++walk->links > NFS_WALK_LINKS) {
        fail(walk, ELOOP, "too many symbolic links");
        return;
    }
    path = malloc(room);
    if (!path) {
        fail(walk, ENOMEM, "out of memory");
        return;
    }
    snprintf(path, room, "%s/%s", target, walk->rest);
    free(walk->rest);
    walk->rest = path;
    step(walk);
}

static void on_readlink(struct nfs_call *nfs_call, const void *reply, const struct blk_error *error)
{
    struct nfs_walk *walk = container_of(nfs_call, struct nfs_walk, call);
    const READLINK3res *res = reply;

    if (error)
        finish(walk, error);
    else if (res->status != NFS3_OK)
        fail_status(walk, res->status);
    else
        follow(walk, res->READLINK3res_u.resok.data);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

/* The component is found: handle and attributes are there. */
static void arrive(struct nfs_walk *walk)
{
    if (walk->attr.type == NF3LNK) {
        call(walk, issue_readlink, on_readlink);
        return;
    }
    if (walk->rest[strspn(walk->rest, "/.")] == '\0' && !strstr(walk->rest, "..")) {
        finish(walk, NULL);
        return;
    }
    if (walk->attr.type != NF3DIR) {
        fail(walk, ENOTDIR, "not a directory");
        return;
    }
    if (walk->depth + 1 == NFS_WALK_DEPTH) {
        fail(walk, ELOOP, "the path is too deep");
        return;
    }
    walk->stack[++walk->depth] = walk->handle;
    step(walk);
}

static int issue_getattr(struct nfs_call *nfs_call, const struct shim_out *out)
{
    struct nfs_walk *walk = container_of(nfs_call, struct nfs_walk, call);
    GETATTR3args args = {.object = nfs_handle_fh3(&walk->handle)};

    return shim_getattr(out, &args);
}

static void on_getattr(struct nfs_call *nfs_call, const void *reply, const struct blk_error *error)
{
    struct nfs_walk *walk = container_of(nfs_call, struct nfs_walk, call);
    const GETATTR3res *res = reply;

    if (error) {
        finish(walk, error);
    } else if (res->status != NFS3_OK) {
        fail_status(walk, res->status);
    } else {
        walk->attr = res->GETATTR3res_u.resok.obj_attributes;
        arrive(walk);
    }
}

static int issue_lookup(struct nfs_call *nfs_call, const struct shim_out *out)
{
    struct nfs_walk *walk = container_of(nfs_call, struct nfs_walk, call);
    LOOKUP3args args = {
        .what = {.dir = nfs_handle_fh3(&walk->stack[walk->depth]), .name = walk->component}};

    return shim_lookup(out, &args);
}

static void on_lookup(struct nfs_call *nfs_call, const void *reply, const struct blk_error *error)
{
    struct nfs_walk *walk = container_of(nfs_call, struct nfs_walk, call);
    const LOOKUP3res *res = reply;
    const LOOKUP3resok *ok;

    if (error) {
        finish(walk, error);
        return;
    }
    if (res->status != NFS3_OK) {
        fail_status(walk, res->status);
        return;
    }
    ok = &res->LOOKUP3res_u.resok;
    if (!nfs_handle_set(&walk->handle, ok->object.data.data_val, ok->object.data.data_len)) {
        fail(walk, EPROTO, "the server sent an invalid file handle");
    } else if (ok->obj_attributes.attributes_follow) {
        walk->attr = ok->obj_attributes.post_op_attr_u.attributes;
        arrive(walk);
    } else {
        call(walk, issue_getattr, on_getattr);
    }
}

/* Takes the next component off the rest; false: there is none. *valid: it fits. */
static bool next_component(struct nfs_walk *walk, bool *valid)
{
    char *from = walk->rest + strspn(walk->rest, "/");
    size_t len = strcspn(from, "/");

    *valid = len < sizeof(walk->component);
    if (len == 0)
        return false;
    snprintf(walk->component, sizeof(walk->component), "%.*s", (int)len, from);
    memmove(walk->rest, from + len, strlen(from + len) + 1);
    return true;
}

/* Goes on from the directory at the top of the stack. */
static void step(struct nfs_walk *walk)
{
    bool valid;

    while (next_component(walk, &valid)) {
        if (!valid) {
            fail(walk, ENAMETOOLONG, "the name is too long");
            return;
        }
        if (strcmp(walk->component, ".") == 0)
            continue;
        if (strcmp(walk->component, "..") != 0) {
            call(walk, issue_lookup, on_lookup);
            return;
        }
        if (walk->depth == 0) {
            struct blk_error error;

            blk_error_set(
                &error, EINVAL,
                "a symbolic link leads out of the mounted directory (by \"..\"); name the "
                "path that it means");
            finish(walk, &error);
            return;
        }
        walk->depth--;
    }
    walk->handle = walk->stack[walk->depth];
    call(walk, issue_getattr, on_getattr);
}

void nfs_walk_start(struct nfs_walk *walk, struct nfs_conn *conn, const struct nfs_handle *base,
                    const char *path)
{
    walk->conn = conn;
    walk->depth = 0;
    walk->links = 0;
    walk->component[0] = '\0';
    walk->rest = strdup(path);
    walk->stack = malloc(NFS_WALK_DEPTH * sizeof(*walk->stack));
    if (!walk->rest || !walk->stack) {
        fail(walk, ENOMEM, "out of memory");
        return;
    }
    walk->stack[0] = *base;
    step(walk);
}

void nfs_walk_stop(struct nfs_walk *walk)
{
    if (walk->conn)
        nfs_conn_forget(walk->conn, &walk->call);
    walk->conn = NULL;
    free(walk->rest);
    free(walk->stack);
    walk->rest = NULL;
    walk->stack = NULL;
}
