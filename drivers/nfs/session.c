/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "status.h"

#define RPCBIND_PORT    111
#define RPCBIND_PROGRAM 100000

/* Replies longer than this the older libraries do not take. */
#define MAX_TRANSFER MIB
/* What a server says that has nothing sensible to say. */
#define MIN_TRANSFER 512

static bool is_ipv6(const struct nfs_session *session)
{
    return strchr(session->address, ':') != NULL;
}

static void stop_all(struct nfs_session *session)
{
    nfs_walk_stop(&session->walk);
    nfs_conn_stop(&session->rpcbind);
    nfs_conn_stop(&session->mountd);
    nfs_conn_stop(&session->nfsd);
}

static void report(struct nfs_session *session, const struct blk_error *error)
{
    struct nfs_waiter *waiter;

    session->state = error ? NFS_SESSION_BROKEN : NFS_SESSION_READY;
    session->likely_port = 0;
    if (error)
        session->error = *error;
    if (session->known)
        nfs_recovery_class(&session->error); /* users are told of it until it is rebuilt */
    while ((waiter = session->waiters)) {
        nfs_waiter_forget(waiter);
        waiter->done(waiter, error);
    }
}

/* Ends the setting up, or begins again with the next address when this one cannot be reached. */
static void fail(struct nfs_session *session, const struct blk_error *error)
{
    struct blk_error copy = *error; /* it may be part of what is stopped now */

    stop_all(session);
    if (copy.retry == BLK_LOST && session->next_address < session->resolve.count)
        loop_defer(session->loop, &session->restart);
    else
        report(session, &copy);
}

/* ---- PROBING --------------------------------------------------------------------------------- */

static void maybe_ready(struct nfs_session *session)
{
    if (!session->have_fsinfo || !session->have_attr)
        return;
    session->known = true;
    report(session, NULL);
}

static int issue_fsinfo(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_session *session = container_of(call, struct nfs_session, ask_fsinfo);
    const struct nfs_handle *handle =
        session->known ? &session->object.handle : &session->mount.root;
    FSINFO3args args = {.fsroot = nfs_handle_fh3(handle)};

    return shim_fsinfo(out, &args);
}

static void on_fsinfo(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_session *session = container_of(call, struct nfs_session, ask_fsinfo);
    const FSINFO3res *res = reply;

    if (error) {
        fail(session, error);
    } else if (res->status != NFS3_OK) {
        struct blk_error own;

        nfs_status_error(&own, res->status);
        if (nfs_status_is_refusal(res->status) && !nfs_conn_privileged(&session->nfsd))
            blk_error_set(&own, own.code, "%s; %s", own.text, NFS_UNPRIVILEGED_HINT);
        fail(session, &own);
    } else {
        session->fsinfo = res->FSINFO3res_u.resok;
        session->have_fsinfo = true;
        maybe_ready(session);
    }
}

static void on_walked(struct nfs_walk *walk, const struct blk_error *error)
{
    struct nfs_session *session = container_of(walk, struct nfs_session, walk);
    struct blk_error own;

    if (!error && session->known && nfs_object_check(&session->object, &walk->attr, &own) < 0)
        error = &own;
    if (error) {
        fail(session, error);
        return;
    }
    nfs_object_set(&session->object, &walk->handle, &walk->attr);
    session->attr = walk->attr;
    session->have_attr = true;
    maybe_ready(session);
}

static void probe(struct nfs_session *session, const struct nfs_handle *base, const char *path)
{
    session->state = NFS_SESSION_PROBING;
    session->ask_fsinfo.issue = issue_fsinfo;
    session->ask_fsinfo.done = on_fsinfo;
    nfs_conn_call(&session->nfsd, &session->ask_fsinfo);
    session->walk.done = on_walked;
    nfs_walk_start(&session->walk, &session->nfsd, base, path);
}

static void on_mounted(struct nfs_mount *mount, const struct blk_error *error)
{
    struct nfs_session *session = container_of(mount, struct nfs_session, mount);
    char path[2048];

    if (error) {
        fail(session, error);
        return;
    }
    nfs_conn_stop(&session->mountd);
    snprintf(path, sizeof(path), "%s/%s", mount->rest,
             session->want_file ? session->where.file : "");
    probe(session, &mount->root, path);
}

/* ---- CONNECTING ------------------------------------------------------------------------------ */

static void on_broken(struct nfs_session *session, const struct blk_error *error)
{
    if (session->state == NFS_SESSION_READY)
        report(session, error);
    else if (session->state != NFS_SESSION_BROKEN)
        fail(session, error);
}

static void on_rpcbind_broken(struct nfs_conn *conn, const struct blk_error *error)
{
    on_broken(container_of(conn, struct nfs_session, rpcbind), error);
}

static void on_mountd_broken(struct nfs_conn *conn, const struct blk_error *error)
{
    on_broken(container_of(conn, struct nfs_session, mountd), error);
}

static void on_nfsd_broken(struct nfs_conn *conn, const struct blk_error *error)
{
    on_broken(container_of(conn, struct nfs_session, nfsd), error);
}

static void connect_servers(struct nfs_session *session)
{
    session->state = NFS_SESSION_CONNECTING;
    nfs_conn_start(&session->nfsd, session->address, session->nfs_port);
    if (session->known) {
        probe(session, &session->object.handle, "");
        return;
    }
    nfs_conn_start(&session->mountd, session->address, session->mount_port);
    session->mount.done = on_mounted;
    nfs_mount_start(&session->mount, &session->mountd, session->where.directory);
}

/* ---- ASKING ---------------------------------------------------------------------------------- */

static int issue_ask_nfs(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_session *session = container_of(call, struct nfs_session, ask_nfs);

    return shim_getport(out, is_ipv6(session), NFS_PROGRAM_NUMBER, NFS_VERSION);
}

static int issue_ask_mount(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_session *session = container_of(call, struct nfs_session, ask_mount);

    return shim_getport(out, is_ipv6(session), NFS_MOUNT_PROGRAM, NFS_MOUNT_VERSION);
}

/* What is known is not mounted again. */
static bool needs_mount_port(const struct nfs_session *session)
{
    return !session->known && !session->mount_port;
}

static bool has_ports(const struct nfs_session *session)
{
    return session->nfs_port && !needs_mount_port(session);
}

static void on_port(struct nfs_session *session, uint16_t *port, const char *what,
                    const char *option, const void *reply, const struct blk_error *error)
{
    struct blk_error own;

    if (error) {
        fail(session, error);
        return;
    }
    *port = shim_port(is_ipv6(session), reply);
    if (*port == 0) {
        /* The server may still be starting, or offer it at another of its addresses only. */
        blk_error_set_retry(
            &own, EPROTONOSUPPORT, BLK_LOST,
            "rpcbind on %s knows no %s over TCP; is NFSv3 switched on there? (If it runs "
            "unregistered, give its port with %s=)",
            session->address, what, option);
        fail(session, &own);
        return;
    }
    if (has_ports(session)) {
        nfs_conn_stop(&session->rpcbind);
        connect_servers(session);
    }
}

static void on_nfs_port(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_session *session = container_of(call, struct nfs_session, ask_nfs);

    on_port(session, &session->nfs_port, "NFS version 3", "nfsport", reply, error);
}

static void on_mount_port(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    struct nfs_session *session = container_of(call, struct nfs_session, ask_mount);

    on_port(session, &session->mount_port, "MOUNT version 3", "mountport", reply, error);
}

static void ask_ports(struct nfs_session *session)
{
    session->state = NFS_SESSION_ASKING;
    session->rpcbind.version = is_ipv6(session) ? 3 : 2;
    nfs_conn_start(&session->rpcbind, session->address, RPCBIND_PORT);
    if (!session->nfs_port) {
        session->ask_nfs.issue = issue_ask_nfs;
        session->ask_nfs.done = on_nfs_port;
        nfs_conn_call(&session->rpcbind, &session->ask_nfs);
    }
    if (needs_mount_port(session)) {
        session->ask_mount.issue = issue_ask_mount;
        session->ask_mount.done = on_mount_port;
        nfs_conn_call(&session->rpcbind, &session->ask_mount);
    }
}

/* ---- RESOLVING ------------------------------------------------------------------------------- */

/* An attempt with the next address. The last one has left nothing but perhaps a broken connection. */
static void start(struct loop_call *call)
{
    struct nfs_session *session = container_of(call, struct nfs_session, restart);

    stop_all(session);
    snprintf(session->address, sizeof(session->address), "%s",
             session->resolve.addresses[session->next_address++]);
    session->have_fsinfo = false;
    session->have_attr = false;
    session->nfs_port = session->where.nfs_port ? session->where.nfs_port : session->likely_port;
    session->mount_port = session->where.mount_port;
    if (has_ports(session))
        connect_servers(session);
    else
        ask_ports(session);
}

static void on_resolved(struct resolve *resolve)
{
    struct nfs_session *session = container_of(resolve, struct nfs_session, resolve);

    session->resolving = false;
    if (session->users == 0)
        loop_defer(session->loop, &session->reap);
    else if (resolve->status < 0)
        fail(session, &resolve->error);
    else
        start(&session->restart);
}

static void begin(struct nfs_session *session)
{
    assert(session->state == NFS_SESSION_NEW || session->state == NFS_SESSION_BROKEN);
    session->state = NFS_SESSION_RESOLVING;
    session->resolving = true;
    session->next_address = 0;
    session->resolve.done = on_resolved;
    resolve_free(&session->resolve);
    resolve_start(session->loop, &session->resolve, session->where.host);
}

/* ---- Waiting --------------------------------------------------------------------------------- */

static void wait_for(struct nfs_session *session, struct nfs_waiter *waiter)
{
    assert(!waiter->link);
    waiter->next = session->waiters;
    waiter->link = &session->waiters;
    if (waiter->next)
        waiter->next->link = &waiter->next;
    session->waiters = waiter;
}

void nfs_waiter_forget(struct nfs_waiter *waiter)
{
    if (!waiter->link)
        return;
    *waiter->link = waiter->next;
    if (waiter->next)
        waiter->next->link = waiter->link;
    waiter->link = NULL;
}

void nfs_session_open(struct nfs_session *session, bool want_file, struct nfs_waiter *waiter)
{
    session->want_file = want_file;
    wait_for(session, waiter);
    begin(session);
}

void nfs_session_reopen(struct nfs_session *session, const struct nfs_object *object,
                        uint16_t likely_port, struct nfs_waiter *waiter)
{
    session->known = true;
    session->object = *object;
    session->likely_port = likely_port;
    wait_for(session, waiter);
    begin(session);
}

void nfs_session_recover(struct nfs_session *session, struct nfs_waiter *waiter)
{
    if (session->state == NFS_SESSION_READY) {
        waiter->done(waiter, NULL);
        return;
    }
    wait_for(session, waiter);
    if (session->state == NFS_SESSION_BROKEN)
        begin(session);
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static void refuse(struct loop_call *call)
{
    struct nfs_session *session = container_of(call, struct nfs_session, refuse);

    nfs_calls_fail(&session->refused, &session->error);
}

/* The connection may be there before the session is READY; but what is behind it has to show first
 * that it is the same server. */
void nfs_session_call(struct nfs_session *session, struct nfs_call *call)
{
    if (session->state == NFS_SESSION_READY) {
        nfs_conn_call(&session->nfsd, call);
        return;
    }
    nfs_calls_add(&session->refused, call);
    loop_defer(session->loop, &session->refuse);
}

bool nfs_session_free_buffers(struct nfs_session *session)
{
    return session->state != NFS_SESSION_READY || nfs_conn_free_buffers(&session->nfsd);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void reap(struct loop_call *call)
{
    struct nfs_session *session = container_of(call, struct nfs_session, reap);
    void (*gone)(void *) = session->gone;
    void *opaque = session->gone_opaque;

    stop_all(session);
    if (session->resolving)
        return; /* on_resolved() comes back here; a name cannot be un-asked */
    loop_defer_cancel(session->loop, &session->restart);
    loop_defer_cancel(session->loop, &session->refuse);
    nfs_mount_release(&session->mount);
    resolve_free(&session->resolve);
    nfs_where_release(&session->where);
    free(session);
    gone(opaque);
}

static void init_conn(struct nfs_session *session, struct nfs_conn *conn, int program, int version,
                      const char *name, const char *hint,
                      void (*broken)(struct nfs_conn *, const struct blk_error *))
{
    conn->loop = session->loop;
    conn->timeout = session->settings->timeout;
    conn->hint = hint;
    conn->program = program;
    conn->version = version;
    conn->program_name = name;
    conn->credentials = &session->where.credentials;
    conn->broken = broken;
}

struct nfs_session *nfs_session_new(struct loop *loop, const struct url *url,
                                    const struct blk_settings *settings, struct blk_error *error)
{
    struct nfs_session *session = calloc(1, sizeof(*session));

    if (!session) {
        blk_error_set(error, ENOMEM, "out of memory");
        return NULL;
    }
    if (nfs_where_parse(url, &session->where, error) < 0) {
        nfs_where_release(&session->where);
        free(session);
        return NULL;
    }
    session->loop = loop;
    session->url = url;
    session->settings = settings;
    session->users = 1;
    nfs_calls_init(&session->refused);
    session->refuse.run = refuse;
    session->restart.run = start;
    session->reap.run = reap;
    init_conn(session, &session->rpcbind, RPCBIND_PROGRAM, 2, "rpcbind",
              "is rpcbind running there? Without it, give the ports: nfsport=N&mountport=N",
              on_rpcbind_broken);
    init_conn(session, &session->mountd, NFS_MOUNT_PROGRAM, NFS_MOUNT_VERSION, "MOUNT version 3",
              "is mountd running there, and does it serve version 3 over TCP?", on_mountd_broken);
    init_conn(session, &session->nfsd, NFS_PROGRAM_NUMBER, NFS_VERSION, "NFS version 3",
              "is the NFS server running there, and does it serve v3 over TCP?", on_nfsd_broken);
    return session;
}

void nfs_session_hold(struct nfs_session *session)
{
    assert(session->users > 0);
    session->users++;
}

void nfs_session_put(struct nfs_session *session, void (*gone)(void *opaque), void *opaque)
{
    assert(session->users > 0);
    if (--session->users > 0) {
        gone(opaque);
        return;
    }
    assert(!session->waiters && !session->refused.head);
    session->gone = gone;
    session->gone_opaque = opaque;
    loop_defer(session->loop, &session->reap);
}

static uint32_t transfer(uint32_t limit)
{
    if (limit < MIN_TRANSFER)
        return MIN_TRANSFER;
    if (limit > MAX_TRANSFER)
        return MAX_TRANSFER;
    return limit;
}

uint32_t nfs_session_max_read(const struct nfs_session *session)
{
    return transfer(session->fsinfo.rtmax);
}

uint32_t nfs_session_max_write(const struct nfs_session *session)
{
    return transfer(session->fsinfo.wtmax);
}
