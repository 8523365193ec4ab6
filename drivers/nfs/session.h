/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A session with an NFS server: one TCP connection to nfsd, and what it takes to get there.
 *
 *   RESOLVING   the host's name, anew for each session
 *   ASKING      rpcbind for the ports of nfsd and mountd, both at once; left out if both are given
 *   CONNECTING  to nfsd and to mountd at once; MNT follows as soon as mountd is there
 *   PROBING     FSINFO and the first LOOKUP at once
 *   READY       until the connection is lost:
 *   BROKEN      every call fails with the same error, until somebody has it rebuilt
 *
 * That is five round trips, TCP handshakes included, when the server is asked for both ports, and
 * three when both are given; a device that is opened by itself adds one for ACCESS. A session that
 * is opened again (for another lane) knows port and file handle already, and needs two.
 *
 * To rebuild a broken session is to go the same way once more, from the name on, since a server that
 * comes back may have other addresses and ports; but without mountd, since a file handle outlives
 * the connection. What was opened first is looked at before the session is READY: so a READY session
 * leads to the server that it led to before.
 *
 * A session is shared by the devices and the store that live on it, and counts them. Whoever finds
 * it broken asks for it to be rebuilt; who asks meanwhile waits for the same attempt, and who stops
 * waiting stops it for nobody else. Calls that are made in any state but READY fail at once.
 * Where the name has several addresses, they are tried in turn until a connection succeeds.
 */
#ifndef LUNFERRY_NFS_SESSION_H
#define LUNFERRY_NFS_SESSION_H

#include "mount.h"
#include "where.h"

#define NFS_PROGRAM_NUMBER 100003
#define NFS_VERSION        3

enum nfs_session_state {
    NFS_SESSION_NEW,
    NFS_SESSION_RESOLVING,
    NFS_SESSION_ASKING,
    NFS_SESSION_CONNECTING,
    NFS_SESSION_PROBING,
    NFS_SESSION_READY,
    NFS_SESSION_BROKEN,
};

/* Somebody who waits for the session to be READY. */
struct nfs_waiter {
    void (*done)(struct nfs_waiter *waiter, const struct blk_error *error); /* NULL: it is READY */
    /* private */
    struct nfs_waiter *next, **link; /* link is NULL: not waiting */
};

struct nfs_session {
    /* For users to read, once READY. */
    enum nfs_session_state state;
    const struct url *url;
    const struct blk_settings *settings;
    struct nfs_where where;
    char address[64];
    uint16_t nfs_port;
    struct nfs_conn nfsd;
    struct FSINFO3resok fsinfo;
    struct nfs_object object; /* what was opened */
    struct fattr3 attr;       /* of it, when the session became READY last */

    /* private */
    struct loop *loop;
    unsigned users;
    struct resolve resolve;
    bool resolving;
    size_t next_address;
    uint16_t mount_port;
    struct nfs_conn rpcbind, mountd;
    struct nfs_call ask_nfs, ask_mount, ask_fsinfo;
    struct nfs_mount mount;
    struct nfs_walk walk;
    uint16_t likely_port; /* of nfsd, for a first try; 0: none */
    bool known;           /* `object` is what has to be there */
    bool want_file, have_fsinfo, have_attr;
    struct nfs_waiter *waiters;
    struct blk_error error;   /* BROKEN: why; while it is rebuilt: why it was */
    struct nfs_calls refused; /* calls that came while it was not READY */
    struct loop_call refuse, restart, reap;
    void (*gone)(void *opaque);
    void *gone_opaque;
};

/* With one user. Returns NULL with a sentence. The URL and the settings outlive the session. */
struct nfs_session *nfs_session_new(struct loop *loop, const struct url *url,
                                    const struct blk_settings *settings, struct blk_error *error);

/* Opens the file that the URL names, or the directory that holds it. */
void nfs_session_open(struct nfs_session *session, bool want_file, struct nfs_waiter *waiter);
/* Opens a file that is known from another session, on which nfsd had this port. */
void nfs_session_reopen(struct nfs_session *session, const struct nfs_object *object,
                        uint16_t likely_port, struct nfs_waiter *waiter);
/* Waits until the session is READY, and has it built again, by one attempt, when it is BROKEN. Also
 * after an open that failed, which it repeats. */
void nfs_session_recover(struct nfs_session *session, struct nfs_waiter *waiter);
/* There will be no done(). Harmless when it does not wait. */
void nfs_waiter_forget(struct nfs_waiter *waiter);

/* A further user of the session. */
void nfs_session_hold(struct nfs_session *session);
/* The user has nothing under way any more and waits for nothing. gone() is called when there is
 * nothing left of it in the loop; with the last user the session goes. It may be called from within. */
void nfs_session_put(struct nfs_session *session, void (*gone)(void *opaque), void *opaque);

/* For users: a call to nfsd, as nfs_conn_call() says. */
void nfs_session_call(struct nfs_session *session, struct nfs_call *call);
/* nfs_conn_free_buffers() for the users' calls. */
bool nfs_session_free_buffers(struct nfs_session *session);

/* The longest READ and WRITE. */
uint32_t nfs_session_max_read(const struct nfs_session *session);
uint32_t nfs_session_max_write(const struct nfs_session *session);

#endif
