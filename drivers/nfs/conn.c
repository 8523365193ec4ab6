/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "conn.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "status.h"

#define IDLE_PING (60 * LOOP_SECOND)

/*
 * What the library knows of a call. It outlives a call that was forgotten, since the library cannot
 * take back a request that may be half sent; and it is on the connection's list, since the library
 * may forget it too.
 */
struct nfs_ticket {
    struct nfs_conn *conn;
    struct nfs_call *call; /* NULL: forgotten */
    struct nfs_ticket *next, **link;
};

void nfs_calls_init(struct nfs_calls *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

void nfs_calls_add(struct nfs_calls *list, struct nfs_call *call)
{
    assert(!call->list);
    call->list = list;
    call->next = NULL;
    call->link = list->tail;
    *list->tail = call;
    list->tail = &call->next;
}

void nfs_calls_take(struct nfs_call *call)
{
    *call->link = call->next;
    if (call->next)
        call->next->link = call->link;
    else
        call->list->tail = call->link;
    call->list = NULL;
}

void nfs_calls_fail(struct nfs_calls *list, const struct blk_error *error)
{
    struct nfs_call *call;

    while ((call = list->head)) {
        nfs_calls_take(call);
        call->done(call, NULL, error);
    }
}

static struct nfs_ticket *ticket_new(struct nfs_conn *conn, struct nfs_call *call)
{
    struct nfs_ticket *ticket = malloc(sizeof(*ticket));

    if (!ticket)
        return NULL;
    ticket->conn = conn;
    ticket->call = call;
    ticket->next = conn->tickets;
    ticket->link = &conn->tickets;
    if (ticket->next)
        ticket->next->link = &ticket->next;
    conn->tickets = ticket;
    call->ticket = ticket;
    return ticket;
}

static void ticket_free(struct nfs_ticket *ticket)
{
    if (ticket->call)
        ticket->call->ticket = NULL;
    *ticket->link = ticket->next;
    if (ticket->next)
        ticket->next->link = ticket->link;
    free(ticket);
}

/* ---- Losing the connection ------------------------------------------------------------------- */

static void drop_context(struct nfs_conn *conn)
{
    assert(!conn->in_library);
    liveness_stop(&conn->live);
    loop_timer_cancel(conn->loop, &conn->idle);
    loop_unwatch(conn->loop, &conn->watch);
    if (!conn->rpc)
        return;
    conn->in_library = true; /* replies that come now are ignored, see on_reply() */
    shim_close(conn->rpc, conn->begun && conn->state == NFS_CONN_CONNECTING);
    conn->in_library = false;
    conn->rpc = NULL;
    while (conn->tickets)
        ticket_free(conn->tickets);
}

/* Ends the connection from a place where the library is not on the stack. The calls are told by
 * flush(), so that a caller of nfs_conn_break() gets no callbacks from within. */
static void carry_out_doom(struct nfs_conn *conn)
{
    conn->doomed = false;
    drop_context(conn);
    if (conn->stopping) {
        conn->stopping = false;
        conn->state = NFS_CONN_IDLE;
        loop_defer_cancel(conn->loop, &conn->flush);
    } else {
        conn->state = NFS_CONN_BROKEN;
        loop_defer(conn->loop, &conn->flush);
    }
}

static void doom(struct nfs_conn *conn)
{
    conn->doomed = true;
    if (!conn->in_library)
        carry_out_doom(conn);
}

void nfs_conn_break(struct nfs_conn *conn, const struct blk_error *error)
{
    if (conn->doomed || conn->state == NFS_CONN_IDLE || conn->state == NFS_CONN_BROKEN)
        return;
    conn->error = *error;
    doom(conn);
}

static void forget_all(struct nfs_conn *conn, struct nfs_calls *list)
{
    while (list->head)
        nfs_conn_forget(conn, list->head);
}

bool nfs_conn_free_buffers(struct nfs_conn *conn)
{
    struct blk_error error;

    if (!SHIM_BORROWS_BUFFERS)
        return true;
    blk_error_set_retry(&error, ECONNABORTED, BLK_LOST,
                        "the connection was dropped in order to cancel other requests on it");
    nfs_conn_break(conn, &error);
    return !conn->in_library;
}

void nfs_conn_stop(struct nfs_conn *conn)
{
    if (conn->state == NFS_CONN_IDLE || conn->stopping)
        return;
    forget_all(conn, &conn->waiting);
    forget_all(conn, &conn->sent);
    forget_all(conn, &conn->refused);
    conn->stopping = true;
    doom(conn);
}

static int socket_error(int fd)
{
    int code = 0;
    socklen_t len = sizeof(code);

    if (fd < 0)
        return ECONNABORTED;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0 ? errno : code;
}

static void connect_failed(struct nfs_conn *conn, int code)
{
    struct blk_error error;

    nfs_connect_error(&error, code, conn->address, conn->port, conn->hint);
    nfs_conn_break(conn, &error);
}

static void connection_lost(struct nfs_conn *conn, int hint)
{
    struct blk_error error;

    nfs_lost_error(&error, hint, rpc_get_fd(conn->rpc), conn->address, conn->port,
                   conn->program_name);
    nfs_conn_break(conn, &error);
}

/* ---- Replies --------------------------------------------------------------------------------- */

/* The calls of opening are small and alone on their way. */
#define TIMED_REPLIES 8

static void time_reply(struct nfs_conn *conn, const struct nfs_call *call)
{
    uint64_t took;

    if (conn->timed == TIMED_REPLIES)
        return;
    conn->timed++;
    took = loop_now(conn->loop) - call->issued;
    if (conn->round_trip == 0 || took < conn->round_trip)
        conn->round_trip = took;
}

static void on_reply(struct rpc_context *rpc, int status, void *data, void *opaque)
{
    struct nfs_ticket *ticket = opaque;
    struct nfs_conn *conn = ticket->conn;
    struct nfs_call *call = ticket->call;

    (void)rpc;
    assert(conn->in_library);
    ticket_free(ticket);
    if (!call)
        return;
    if (status == RPC_STATUS_SUCCESS && !conn->doomed) {
        time_reply(conn, call);
        nfs_calls_take(call);
        call->done(call, data, NULL);
        return;
    }
    /* Either the server rejected this call, or the library is about to tell us that the connection
     * broke; pump() will know which. A call of a dying connection stays where it is. */
    if (status == RPC_STATUS_ERROR && !conn->doomed) {
        nfs_calls_take(call);
        call->refusal = nfs_refusal_of(data);
        nfs_calls_add(&conn->refused, call);
    }
}

static void fail_refused(struct nfs_conn *conn)
{
    struct nfs_call *call;
    struct blk_error error;

    while ((call = conn->refused.head)) {
        nfs_refusal_error(&error, call->refusal, conn->program_name, conn->port);
        if (error.code == EACCES && !nfs_conn_privileged(conn))
            blk_error_set(&error, EACCES, "%s; %s", error.text, NFS_UNPRIVILEGED_HINT);
        nfs_calls_take(call);
        call->done(call, NULL, &error);
    }
}

/* ---- Sending and serving --------------------------------------------------------------------- */

/* Hands the waiting calls to the library. Returns whether there were any. */
static bool issue_waiting(struct nfs_conn *conn)
{
    bool any = false;
    struct nfs_call *call;

    while (!conn->doomed && (call = conn->waiting.head)) {
        struct shim_out out = {.rpc = conn->rpc, .reply = on_reply};

        nfs_calls_take(call);
        nfs_calls_add(&conn->sent, call);
        if (conn->timed < TIMED_REPLIES)
            call->issued = loop_now(conn->loop);
        out.opaque = ticket_new(conn, call);
        if (out.opaque && call->issue(call, &out) == 0) {
            any = true;
        } else {
            struct blk_error error;

            if (out.opaque)
                ticket_free(out.opaque);
            nfs_calls_take(call);
            blk_error_set(&error, ENOMEM, "out of memory for a request to the server");
            call->done(call, NULL, &error);
        }
    }
    return any;
}

/* The only place, but for connecting, where the library runs. */
static void pump(struct nfs_conn *conn, short revents)
{
    int status = 0;

    assert(conn->state == NFS_CONN_READY && !conn->in_library && !conn->doomed);
    conn->in_library = true;
    errno = 0;
    if (revents)
        status = rpc_service(conn->rpc, revents);
    /* Sent at once, rather than when the next poll says that the socket is writable. */
    if (status == 0 && issue_waiting(conn) && !conn->doomed) {
        errno = 0;
        status = rpc_service(conn->rpc, POLLOUT);
    }
    conn->in_library = false;
    if (conn->doomed) {
        carry_out_doom(conn);
        return;
    }
    if (status != 0) {
        connection_lost(conn, errno);
        return;
    }
    fail_refused(conn);
}

static void flush(struct loop_call *loop_call)
{
    struct nfs_conn *conn = container_of(loop_call, struct nfs_conn, flush);

    if (conn->state == NFS_CONN_READY) {
        pump(conn, 0);
    } else if (conn->state == NFS_CONN_BROKEN) {
        if (!conn->reported) {
            conn->reported = true;
            conn->broken(conn, &conn->error);
        }
        if (conn->state != NFS_CONN_BROKEN)
            return;
        nfs_calls_fail(&conn->refused, &conn->error);
        nfs_calls_fail(&conn->sent, &conn->error);
        nfs_calls_fail(&conn->waiting, &conn->error);
    }
}

void nfs_conn_call(struct nfs_conn *conn, struct nfs_call *call)
{
    assert(conn->state != NFS_CONN_IDLE && !conn->stopping);
    nfs_calls_add(&conn->waiting, call);
    /* From within the library, pump() sees to it. */
    if (!conn->in_library && conn->state != NFS_CONN_CONNECTING)
        loop_defer(conn->loop, &conn->flush);
}

void nfs_conn_forget(struct nfs_conn *conn, struct nfs_call *call)
{
    (void)conn;
    if (!call->list)
        return;
    nfs_calls_take(call);
    if (call->ticket)
        call->ticket->call = NULL;
    call->ticket = NULL;
}

static void learn_source_port(struct nfs_conn *conn, int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in ipv4;
        struct sockaddr_in6 ipv6;
    } name = {0};
    socklen_t len = sizeof(name);

    if (getsockname(fd, &name.any, &len) < 0)
        return;
    conn->source_port =
        ntohs(name.any.sa_family == AF_INET6 ? name.ipv6.sin6_port : name.ipv4.sin_port);
}

static void on_connected(struct rpc_context *rpc, int status, void *data, void *opaque)
{
    /* finish_connect() asks the socket, which knows more than this callback. */
    (void)rpc;
    (void)status;
    (void)data;
    (void)opaque;
}

static void finish_connect(struct nfs_conn *conn)
{
    int fd = rpc_get_fd(conn->rpc), status, one = 1;
    int code = socket_error(fd);

    if (code) {
        connect_failed(conn, code);
        return;
    }
    conn->in_library = true;
    status = rpc_service(conn->rpc, POLLOUT);
    conn->in_library = false;
    if (status != 0) {
        connect_failed(conn, ECONNABORTED);
        return;
    }
    /* A request is one send() from the library, or two: the last must not wait for an answer. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    learn_source_port(conn, fd);
    conn->state = NFS_CONN_READY;
    pump(conn, 0);
}

static void prepare(struct loop_watch *watch, struct loop_interest *interest)
{
    struct nfs_conn *conn = container_of(watch, struct nfs_conn, watch);

    interest->fd = rpc_get_fd(conn->rpc);
    interest->events = (short)rpc_which_events(conn->rpc);
}

static void service(struct loop_watch *watch, short revents)
{
    struct nfs_conn *conn = container_of(watch, struct nfs_conn, watch);

    if (!revents)
        return;
    if (conn->state == NFS_CONN_CONNECTING) {
        finish_connect(conn);
    } else if (revents & (POLLERR | POLLHUP | POLLNVAL)) {
        connection_lost(conn, socket_error(rpc_get_fd(conn->rpc)));
    } else {
        pump(conn, revents);
    }
}

/* ---- The dead-session rule ------------------------------------------------------------------- */

static int live_fd(struct liveness *live)
{
    struct nfs_conn *conn = container_of(live, struct nfs_conn, live);

    return conn->rpc ? rpc_get_fd(conn->rpc) : -1;
}

static bool live_busy(struct liveness *live)
{
    struct nfs_conn *conn = container_of(live, struct nfs_conn, live);

    return conn->state == NFS_CONN_CONNECTING || conn->sent.head || conn->waiting.head;
}

static int ping_issue(struct nfs_call *call, const struct shim_out *out)
{
    struct nfs_conn *conn = container_of(call, struct nfs_conn, ping);

    return shim_null(out, conn->program, conn->version);
}

static void ping_done(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    /* That anything came is what counts, and liveness sees that on the socket. */
    (void)call;
    (void)reply;
    (void)error;
}

static void live_ping(struct liveness *live)
{
    struct nfs_conn *conn = container_of(live, struct nfs_conn, live);

    if (conn->state == NFS_CONN_READY && !conn->ping.list)
        nfs_conn_call(conn, &conn->ping);
}

/* Servers close connections that are silent for some minutes: a store's, while a long copy runs on
 * others. */
static void on_idle(struct loop_timer *timer)
{
    struct nfs_conn *conn = container_of(timer, struct nfs_conn, idle);

    if (!live_busy(&conn->live))
        live_ping(&conn->live);
    loop_timer_set(conn->loop, timer, loop_now(conn->loop) + IDLE_PING);
}

static void live_dead(struct liveness *live)
{
    struct nfs_conn *conn = container_of(live, struct nfs_conn, live);
    struct blk_error error;

    blk_error_set_retry(&error, ETIMEDOUT, BLK_LOST,
                        "%s %s port %u: no answer and no sign of life for %.6g s",
                        conn->state == NFS_CONN_CONNECTING ? "connecting to" : "from",
                        conn->address, conn->port, (double)conn->timeout / LOOP_SECOND);
    nfs_conn_break(conn, &error);
}

/* ---- Connecting ------------------------------------------------------------------------------ */

void nfs_conn_start(struct nfs_conn *conn, const char *address, uint16_t port)
{
    int status = -ENOMEM;
    struct shim_endpoint endpoint = {.port = port};

    assert(conn->state == NFS_CONN_IDLE && !conn->in_library && !conn->rpc);
    snprintf(conn->address, sizeof(conn->address), "%s", address);
    conn->port = port;
    conn->reported = false;
    conn->source_port = UINT16_MAX;
    nfs_calls_init(&conn->waiting);
    nfs_calls_init(&conn->sent);
    nfs_calls_init(&conn->refused);
    conn->flush.run = flush;
    conn->ping.issue = ping_issue;
    conn->ping.done = ping_done;
    conn->live = (struct liveness){
        .loop = conn->loop,
        .timeout = conn->timeout,
        .fd = live_fd,
        .busy = live_busy,
        .ping = live_ping,
        .dead = live_dead,
    };
    conn->watch.prepare = prepare;
    conn->watch.service = service;
    conn->state = NFS_CONN_CONNECTING;
    endpoint.address = conn->address;
    endpoint.program = conn->program;
    endpoint.version = conn->version;
    conn->rpc = shim_connect(&endpoint, conn->credentials, on_connected, conn, &status);
    conn->begun = conn->rpc && status == 0;
    if (!conn->begun) {
        connect_failed(conn, -status);
        return;
    }
    loop_watch(conn->loop, &conn->watch);
    liveness_start(&conn->live);
    conn->idle.fire = on_idle;
    loop_timer_set(conn->loop, &conn->idle, loop_now(conn->loop) + IDLE_PING);
}
