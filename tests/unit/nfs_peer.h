/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NFS server of a few lines, on the loop of the test itself: it knows one object, and answers NULL,
 * GETATTR and FSINFO (RFC 1813 3.3.0, 3.3.1, 3.3.19). For what goes wrong between sessions.
 */
#ifndef TESTS_NFS_PEER_H
#define TESTS_NFS_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <lunferry/loop.h>

#define PEER_CONNECTIONS 16

struct peer_connection {
    struct nfs_peer *peer;
    struct loop_watch watch;
    int fd; /* -1: none */
    unsigned char bytes[4096];
    size_t len;
};

struct nfs_peer {
    uint16_t port;
    uint32_t status;  /* of GETATTR */
    uint64_t file_id; /* of the object, a regular file on fsid 1 */
    bool mute;        /* connections are accepted, and nothing is answered */
    unsigned accepted, getattrs;
    /* private */
    struct loop *loop;
    struct loop_watch watch;
    int fd; /* listens; -1: the port is closed */
    struct peer_connection connections[PEER_CONNECTIONS];
};

void peer_start(struct nfs_peer *peer, struct loop *loop);
/* Closes all connections. */
void peer_drop(struct nfs_peer *peer);
/* The same, and refuses others; and takes them again, on the same port. */
void peer_close(struct nfs_peer *peer);
void peer_reopen(struct nfs_peer *peer);

#endif
