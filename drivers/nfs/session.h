/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A session with an NFS server: one TCP connection to nfsd, and what it takes to get there.
 *
 *   RESOLVING   the host's name, anew for each session
 *   ASKING      rpcbind for the ports of nfsd and mountd, both at once; left out if both are given
 *   CONNECTING  to nfsd and to mountd at once; MNT follows as soon as mountd is there
 *   PROBING     FSINFO and the first LOOKUP at once
 *   READY       until the connection is lost:
 *   BROKEN      every call fails with the same error, retry BLK_LOST
 *
 * That is five round trips, TCP handshakes included, when the server is asked for both ports, and
 * three when both are given; a device that is opened by itself adds one for ACCESS. A session that
 * is opened again (for another lane) knows port and file handle already, and needs two.
 *
 * A session is shared by the devices and the store that live on it, and counts them. Where the name
 * has several addresses, they are tried in turn until a connection succeeds.
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
    struct nfs_handle handle; /* of what was opened */
    struct fattr3 attr;       /* as of then */

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
    bool reopening, want_file, have_fsinfo, have_handle;
    void (*ready)(void *opaque, const struct blk_error *error);
    void *ready_opaque;
    struct loop_call restart, reap;
    void (*gone)(void *opaque);
    void *gone_opaque;
};

/* With one user. Returns NULL with a sentence. The URL and the settings outlive the session. */
struct nfs_session *nfs_session_new(struct loop *loop, const struct url *url,
                                    const struct blk_settings *settings, struct blk_error *error);

/* Opens the file that the URL names, or the directory that holds it. Ends in one call of ready(),
 * with NULL for success, never from within; unless the session is put down before. */
void nfs_session_open(struct nfs_session *session, bool want_file,
                      void (*ready)(void *opaque, const struct blk_error *error), void *opaque);
/* Opens a file whose handle is known from another session. */
void nfs_session_reopen(struct nfs_session *session, const struct nfs_handle *handle,
                        uint16_t nfs_port,
                        void (*ready)(void *opaque, const struct blk_error *error), void *opaque);

/* A further user of a session that is READY or BROKEN. */
void nfs_session_hold(struct nfs_session *session);
/* The user has nothing under way any more. gone() is called when there is nothing left of it in the
 * loop; with the last user the session goes. It may be called from within. */
void nfs_session_put(struct nfs_session *session, void (*gone)(void *opaque), void *opaque);

/* The longest READ and WRITE. */
uint32_t nfs_session_max_read(const struct nfs_session *session);
uint32_t nfs_session_max_write(const struct nfs_session *session);

static inline void nfs_session_call(struct nfs_session *session, struct nfs_call *call)
{
    nfs_conn_call(&session->nfsd, call);
}

#endif
