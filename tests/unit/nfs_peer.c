/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nfs_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { GETATTR = 1, FSINFO = 19 };

/* ---- Replies ---------------------------------------------------------------------------------- */

struct reply {
    unsigned char bytes[512];
    size_t len;
};

static void put32(struct reply *reply, uint32_t value)
{
    uint32_t wire = htonl(value);

    memcpy(reply->bytes + reply->len, &wire, 4);
    reply->len += 4;
}

static void put64(struct reply *reply, uint64_t value)
{
    put32(reply, (uint32_t)(value >> 32));
    put32(reply, (uint32_t)value);
}

static uint32_t get32(const unsigned char *bytes)
{
    uint32_t wire;

    memcpy(&wire, bytes, 4);
    return ntohl(wire);
}

static void put_fattr(struct reply *reply, uint64_t file_id)
{
    put32(reply, 1); /* NF3REG */
    put32(reply, 0644);
    put32(reply, 1); /* nlink */
    put64(reply, 0); /* uid and gid */
    put64(reply, 4096);
    put64(reply, 4096);
    put64(reply, 0); /* rdev */
    put64(reply, 1); /* fsid */
    put64(reply, file_id);
    put64(reply, 0); /* atime, mtime, ctime */
    put64(reply, UINT64_C(5) << 32 | 6);
    put64(reply, UINT64_C(7) << 32 | 8);
}

static void put_fsinfo(struct reply *reply)
{
    put32(reply, 0); /* NFS3_OK */
    put32(reply, 0); /* no attributes */
    for (int i = 0; i < 7; i++)
        put32(reply, 65536); /* rtmax to dtpref */
    put64(reply, INT64_MAX);
    put64(reply, 1); /* time_delta */
    put32(reply, 0x1b);
}

static void answer(struct peer_connection *connection, const unsigned char *call)
{
    struct nfs_peer *peer = connection->peer;
    struct reply reply = {.len = 4};
    uint32_t procedure = get32(call + 20), mark;

    put32(&reply, get32(call)); /* xid */
    put32(&reply, 1);           /* REPLY, MSG_ACCEPTED, AUTH_NONE, SUCCESS */
    put32(&reply, 0);
    put64(&reply, 0);
    put32(&reply, 0);
    if (procedure == GETATTR) {
        peer->getattrs++;
        put32(&reply, peer->status);
        if (peer->status == 0)
            put_fattr(&reply, peer->file_id);
    } else if (procedure == FSINFO) {
        put_fsinfo(&reply);
    }
    mark = htonl(0x80000000 | (uint32_t)(reply.len - 4));
    memcpy(reply.bytes, &mark, 4);
    assert_int_equal(send(connection->fd, reply.bytes, reply.len, MSG_NOSIGNAL), reply.len);
}

/* ---- Connections ------------------------------------------------------------------------------ */

static void hang_up(struct peer_connection *connection)
{
    if (connection->fd < 0)
        return;
    loop_unwatch(connection->peer->loop, &connection->watch);
    close(connection->fd);
    connection->fd = -1;
}

static void prepare_connection(struct loop_watch *watch, struct loop_interest *interest)
{
    interest->fd = container_of(watch, struct peer_connection, watch)->fd;
    interest->events = POLLIN;
}

static void serve_connection(struct loop_watch *watch, short revents)
{
    struct peer_connection *connection = container_of(watch, struct peer_connection, watch);
    ssize_t got;

    if (!revents)
        return;
    got = recv(connection->fd, connection->bytes + connection->len,
               sizeof(connection->bytes) - connection->len, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        hang_up(connection);
        return;
    }
    connection->len += got > 0 ? (size_t)got : 0;
    while (connection->fd >= 0 && connection->len >= 4) {
        size_t record = 4 + (get32(connection->bytes) & 0x7fffffff);

        if (connection->len < record)
            break;
        if (!connection->peer->mute)
            answer(connection, connection->bytes + 4);
        connection->len -= record;
        memmove(connection->bytes, connection->bytes + record, connection->len);
    }
}

static void prepare_listening(struct loop_watch *watch, struct loop_interest *interest)
{
    interest->fd = container_of(watch, struct nfs_peer, watch)->fd;
    interest->events = POLLIN;
}

static void accept_connection(struct loop_watch *watch, short revents)
{
    struct nfs_peer *peer = container_of(watch, struct nfs_peer, watch);
    struct peer_connection *connection = peer->connections;

    if (!revents)
        return;
    while (connection->fd >= 0)
        connection++;
    assert_true(connection < peer->connections + PEER_CONNECTIONS);
    connection->fd = accept4(peer->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(connection->fd >= 0);
    connection->len = 0;
    peer->accepted++;
    loop_watch(peer->loop, &connection->watch);
}

/* ---- Life ------------------------------------------------------------------------------------- */

void peer_reopen(struct nfs_peer *peer)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(peer->port)};
    socklen_t len = sizeof(name);
    int one = 1;

    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(peer->fd >= 0);
    setsockopt(peer->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    assert_int_equal(bind(peer->fd, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(listen(peer->fd, PEER_CONNECTIONS), 0);
    assert_int_equal(getsockname(peer->fd, (struct sockaddr *)&name, &len), 0);
    peer->port = ntohs(name.sin_port);
    loop_watch(peer->loop, &peer->watch);
}

void peer_start(struct nfs_peer *peer, struct loop *loop)
{
    *peer = (struct nfs_peer){.loop = loop, .file_id = 42};
    peer->watch.prepare = prepare_listening;
    peer->watch.service = accept_connection;
    for (int i = 0; i < PEER_CONNECTIONS; i++) {
        peer->connections[i].peer = peer;
        peer->connections[i].fd = -1;
        peer->connections[i].watch.prepare = prepare_connection;
        peer->connections[i].watch.service = serve_connection;
    }
    peer_reopen(peer);
}

void peer_drop(struct nfs_peer *peer)
{
    for (int i = 0; i < PEER_CONNECTIONS; i++)
        hang_up(&peer->connections[i]);
}

void peer_close(struct nfs_peer *peer)
{
    peer_drop(peer);
    if (peer->fd < 0)
        return;
    loop_unwatch(peer->loop, &peer->watch);
    close(peer->fd);
    peer->fd = -1;
}
