/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One TCP connection to one RPC program (rpcbind, mountd or nfsd) and the calls on it.
 *
 * Invariants:
 * 1. A call that was given to nfs_conn_call() gets exactly one done(), never from within
 *    nfs_conn_call(), whatever the library does with its own callbacks (when a connection breaks it
 *    loses some), unless it is forgotten first, or the connection stopped.
 * 2. The library is never called from within its own callbacks, since it does not bear that: a call
 *    made there waits until the library has returned. So done() may make and forget calls, and stop
 *    or break the connection, as it likes.
 * 3. Calls may be made while the connection is being established; they go out when it is.
 * 4. All calls that are made in one turn of the loop are sent in one go.
 * 5. There is no timeout but the dead-session rule (struct liveness), which holds from the first
 *    packet on.
 */
#ifndef LUNFERRY_NFS_CONN_H
#define LUNFERRY_NFS_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lunferry/driver.h>
#include <lunferry/error.h>
#include <lunferry/loop.h>

#include "shim.h"
#include "status.h"

struct nfs_call;
struct nfs_ticket;

/* Calls in the order in which they were made. */
struct nfs_calls {
    struct nfs_call *head, **tail;
};

/* One RPC. Owned by the caller, embedded in what it is for; zeroed at first, usable again after
 * done(). */
struct nfs_call {
    /* Encodes the arguments and hands them to the library; called when the connection is ready for
     * it. Returns what the shim returned. */
    int (*issue)(struct nfs_call *call, const struct shim_out *out);
    /* With the decoded reply, valid only until it returns; or with an error, when there is none.
     * What the status in a reply means is the owner's business. */
    void (*done)(struct nfs_call *call, const void *reply, const struct blk_error *error);
    /* private */
    struct nfs_call *next, **link;
    struct nfs_calls *list; /* NULL: not under way */
    struct nfs_ticket *ticket;
    enum nfs_refusal refusal;
    uint64_t issued; /* ns */
};

void nfs_calls_init(struct nfs_calls *list);
void nfs_calls_add(struct nfs_calls *list, struct nfs_call *call);
/* Off the list that it is on. */
void nfs_calls_take(struct nfs_call *call);
/* Every call of the list gets the error. */
void nfs_calls_fail(struct nfs_calls *list, const struct blk_error *error);

enum nfs_conn_state {
    NFS_CONN_IDLE,
    NFS_CONN_CONNECTING,
    NFS_CONN_READY,
    NFS_CONN_BROKEN, /* every call fails with the same error */
};

struct nfs_conn {
    /* Filled by the owner, before nfs_conn_start(). */
    struct loop *loop;
    uint64_t timeout;         /* ns, for the dead-session rule */
    const char *hint;         /* what to ask oneself when the connection is refused */
    int program, version;     /* for pings, and for words */
    const char *program_name; /* "NFS version 3" */
    const struct shim_credentials *credentials;
    void (*broken)(struct nfs_conn *conn, const struct blk_error *error); /* once, from the loop */

    /* For the owner to read. */
    enum nfs_conn_state state;
    uint16_t source_port; /* once READY; below 1024: privileged */
    uint64_t round_trip;  /* ns, the shortest of the first replies; 0: none yet */

    /* private */
    char address[64];
    uint16_t port;
    struct rpc_context *rpc; /* NULL: IDLE or BROKEN */
    bool begun;              /* to connect */
    bool in_library;         /* a library call is on the stack */
    bool doomed;             /* break (or, when stopping, stop) as soon as it has returned */
    bool stopping;
    bool reported;  /* broken() was called */
    unsigned timed; /* replies */
    struct blk_error error;
    struct nfs_calls waiting; /* not yet handed to the library */
    struct nfs_calls sent;
    struct nfs_calls refused; /* answered with an RPC error */
    struct nfs_ticket *tickets;
    struct loop_watch watch;
    struct loop_call flush;
    struct liveness live;
    struct loop_timer idle;
    struct nfs_call ping;
};

/* Begins to connect to a numeric address. Everything that can go wrong is told to broken(). */
void nfs_conn_start(struct nfs_conn *conn, const char *address, uint16_t port);
void nfs_conn_call(struct nfs_conn *conn, struct nfs_call *call);
/* There will be no done() for it. What the server makes of it stays unknown. Does nothing when the
 * call is not under way. For a call with buffers, only after nfs_conn_free_buffers(). */
void nfs_conn_forget(struct nfs_conn *conn, struct nfs_call *call);
/*
 * After this the buffers of all calls may be forgotten and freed. Where the library borrows them,
 * it costs the connection. False: not yet, since the library is on the stack; the calls will get an
 * error soon.
 */
bool nfs_conn_free_buffers(struct nfs_conn *conn);
/* Drops the connection; every call gets the error. */
void nfs_conn_break(struct nfs_conn *conn, const struct blk_error *error);
/* Drops the connection and forgets every call. Afterwards it can be started anew, but only from a
 * turn of the loop outside of its callbacks. */
void nfs_conn_stop(struct nfs_conn *conn);

/* What to say when a server refuses us and our source port may be why. */
#define NFS_UNPRIVILEGED_HINT                                                                      \
    "our source port is not below 1024, which many servers insist on: set the export's option "    \
    "\"insecure\", or give lunferry the right to such ports (setcap cap_net_bind_service=+ep)"

static inline bool nfs_conn_privileged(const struct nfs_conn *conn)
{
    return conn->source_port < 1024;
}

#endif
