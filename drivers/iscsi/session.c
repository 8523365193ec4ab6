/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One iSCSI session, driven by the loop.
 *
 *     DOWN -> RESOLVING -> CONNECTING -> LOGGING_IN -> UP -> LOGGING_OUT
 *      ^______________________________|_____________|_________|
 *                       by way of BROKEN
 *
 * Whatever ends a connection calls session_break_off(), which only notes the reason, stops listening and
 * defers the rest: a context must not be destroyed in one of its own callbacks, and must not be
 * served once it has failed, because its half-sent Data-Out PDU points to a task that is gone. The
 * deferred drop() destroys the context, ends the commands, and then goes on to the next address,
 * tells the owner, or finishes closing.
 *
 * The library's own reconnect stays off (it resends in silence what should be checked first), and so
 * do its timeouts; the liveness rule of lunferry/driver.h takes their place.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define LOGOUT_PATIENCE (2 * LOOP_SECOND) /* longer than any round trip */
/* The library wants a look at the clock so often, and tells so where it has no event to wait for. */
#define SERVICE_PERIOD LOOP_SECOND
#define IDLE_PERIOD    (100 * LOOP_MSECOND)

void session_move(struct session *session, enum session_state from, enum session_state to)
{
    assert(session->state == from);
    session->state = to;
}

static bool is_write(const struct scsi_task *task)
{
    return task != NULL && task->xfer_dir == SCSI_XFER_WRITE;
}

/* The context may be served. */
static bool is_alive(const struct session *session)
{
    return session->state == SESSION_CONNECTING || session->state == SESSION_LOGGING_IN ||
           session->state == SESSION_UP || session->state == SESSION_LOGGING_OUT;
}

/* ---- Ending ----------------------------------------------------------------------------------- */

/* Takes the command off the list first and touches it no more after done(), which may free it or
 * send it again. */
static void end_command(struct command *command, int status)
{
    struct session *session = command->session;
    struct scsi_task *task = command->task;

    *command->link = command->next;
    if (command->next != NULL)
        command->next->link = command->link;
    session->writes -= is_write(task);
    command->task = NULL;
    command->done(command, status, status == SCSI_STATUS_CANCELLED ? NULL : task);
    scsi_free_scsi_task(task);
}

void session_note_failure(struct session *session, const struct blk_error *reason)
{
    struct blk_error *error = &session->error, all = *reason;

    if (session->portal[0] != '\0')
        blk_error_prefix(&all, "portal %s", session->portal);
    if (error->code == 0)
        *error = all;
    else /* one portal that may come back makes another attempt worth it */
        blk_error_set_retry(error, error->code,
                            all.retry == BLK_LOST || error->retry == BLK_FATAL ? all.retry
                                                                               : error->retry,
                            "%s; %s", error->text, all.text);
}

void session_break_off(struct session *session, const struct blk_error *reason)
{
    if (session->state == SESSION_DOWN || session->state == SESSION_BROKEN)
        return;
    if (reason != NULL && session->coming_up)
        session_note_failure(session, reason);
    else if (reason != NULL)
        session->error = *reason;
    session->state = SESSION_BROKEN;
    liveness_stop(&session->live);
    loop_timer_cancel(session->loop, &session->goodbye);
    loop_defer_cancel(session->loop, &session->send);
    loop_unwatch(session->loop, &session->watch);
    loop_defer(session->loop, &session->drop);
}

void session_try_close(struct session *session)
{
    /* The resolver cannot be called back. */
    if (session->closing && session->state == SESSION_DOWN && !session->resolving) {
        session->closing = false;
        session->closed(session);
    }
}

static void drop(struct loop_call *call)
{
    struct session *session = container_of(call, struct session, drop);
    struct iscsi_context *context = session->context;

    session_move(session, SESSION_BROKEN, SESSION_DOWN);
    session->context = NULL;
    /* Callbacks that fire from here find no session that listens, see command_answered(). */
    if (context != NULL)
        iscsi_destroy_context(context);
    while (session->commands != NULL) {
        struct command *command = session->commands;

        end_command(command, command->parked ? command->status : SCSI_STATUS_CANCELLED);
    }
    session->resetting = false;
    if (session->coming_up) {
        connect_next(session);
        return;
    }
    secrets_wipe(&session->secrets);
    if (!session->resolving)
        resolve_free(&session->resolve);
    if (session->closing)
        session_try_close(session);
    else
        session->down(session);
}

void session_give_up(struct session *session)
{
    session->coming_up = false;
    /* By way of drop(), so that the owner hears of it from the loop. */
    session->state = SESSION_BROKEN;
    loop_defer(session->loop, &session->drop);
}

/* ---- Serving the library ---------------------------------------------------------------------- */

static int socket_error(int fd)
{
    int code = 0;
    socklen_t size = sizeof(code);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) == 0 ? code : errno;
}

/* The library says that the connection is gone, or has given up on it. The socket still knows how
 * it went. */
static void break_off_lost(struct session *session)
{
    struct blk_error reason = {0};
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);
    int fd = iscsi_get_fd(session->context);
    int code = socket_error(fd);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
        info.tcpi_state = TCP_CLOSE;
    /* While a reset is being processed the error is there before the state has changed. */
    if (session->coming_up && (code != 0 || info.tcpi_state != TCP_ESTABLISHED))
        blk_error_set_retry(&reason, code != 0 ? code : ECONNRESET, BLK_LOST,
                            "the connection was closed during login");
    else if (code != 0 && code != ECONNRESET && code != EPIPE)
        blk_error_set_retry(&reason, code, BLK_LOST, "the connection was lost: %s", strerror(code));
    else if (code != 0 || info.tcpi_state == TCP_CLOSE)
        blk_error_set_retry(&reason, ECONNRESET, BLK_LOST,
                            "the connection was reset by the target");
    else if (info.tcpi_state != TCP_ESTABLISHED)
        blk_error_set_retry(&reason, ECONNRESET, BLK_LOST,
                            "the connection was closed by the target");
    else if (iscsi_is_logged_in(session->context) == 0 && !session->coming_up)
        blk_error_set_retry(&reason, ECONNRESET, BLK_LOST, "the target asked for a logout");
    else
        blk_error_set_retry(&reason, EPROTO, BLK_LOST, "protocol error: %s",
                            iscsi_session_complaint(session));
    session_break_off(session, &reason);
}

static void serve_library(struct session *session, int events)
{
    int rc;

    session->in_service = true;
    rc = shim_service(session->context, events, session->writes > 0);
    session->in_service = false;
    if (!is_alive(session))
        return;
    /* A library that has logged out on a target's request (asynchronous message, RFC 7143 11.9)
     * forgets its commands without calling them back. */
    if (rc < 0 || (session->state == SESSION_UP && !iscsi_is_logged_in(session->context)))
        break_off_lost(session);
}

/*
 * Sends what is queued. The library sends each PDU's header and payload by calls of their own with
 * TCP_NODELAY, and tgt takes segments of 8 KiB: holding back what does not fill a packet until all
 * is sent doubles the speed of writing (and half of the CPU time).
 */
static void send_queued(struct session *session)
{
    int fd = iscsi_get_fd(session->context);
    bool cork = session->writes > 0;

    if (cork)
        setsockopt(fd, IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int));
    serve_library(session, POLLOUT);
    if (cork)
        setsockopt(fd, IPPROTO_TCP, TCP_CORK, &(int){0}, sizeof(int));
}

static bool has_queued(const struct session *session)
{
    return (iscsi_which_events(session->context) & POLLOUT) != 0;
}

/* Until it is connected, the library takes POLLOUT as the end of connect(2), and loses the errno. */
static bool is_connected(struct session *session, short revents)
{
    struct blk_error reason = {0};
    int code;

    if ((revents & (POLLOUT | POLLERR | POLLHUP)) == 0)
        return false;
    code = socket_error(iscsi_get_fd(session->context));
    if (code == 0)
        return true;
    blk_error_set_retry(&reason, code, BLK_LOST, "%s", strerror(code));
    session_break_off(session, &reason);
    return false;
}

static void watch_service(struct loop_watch *watch, short revents)
{
    struct session *session = container_of(watch, struct session, watch);

    assert(is_alive(session));
    if (session->state == SESSION_CONNECTING) {
        if (!is_connected(session, revents))
            return;
        serve_library(session, POLLOUT);
    } else if ((revents & (POLLERR | POLLHUP)) != 0) {
        break_off_lost(session);
    } else if ((revents & ~POLLOUT) != 0 || revents == 0) {
        serve_library(session, revents & ~POLLOUT);
    }
    /* What has come may have queued something (an R2T's data), which another turn would only
     * delay. */
    if (is_alive(session) && session->state != SESSION_CONNECTING && has_queued(session))
        send_queued(session);
}

static void watch_prepare(struct loop_watch *watch, struct loop_interest *interest)
{
    struct session *session = container_of(watch, struct session, watch);
    int events = iscsi_which_events(session->context);

    interest->fd = iscsi_get_fd(session->context);
    interest->events = (short)events;
    interest->deadline = loop_now(session->loop) + (events == 0 ? IDLE_PERIOD : SERVICE_PERIOD);
}

static void send_now(struct loop_call *call)
{
    struct session *session = container_of(call, struct session, send);

    if (has_queued(session))
        send_queued(session);
}

/* What is queued outside of service leaves in one batch at the end of this turn, not at the next
 * poll. */
static void send_soon(struct session *session)
{
    if (!session->in_service)
        loop_defer(session->loop, &session->send);
}

/* ---- Liveness --------------------------------------------------------------------------------- */

static int live_fd(struct liveness *live)
{
    struct session *session = container_of(live, struct session, live);

    return iscsi_get_fd(session->context);
}

static bool live_busy(struct liveness *live)
{
    struct session *session = container_of(live, struct session, live);

    return session->state != SESSION_UP || session->commands != NULL || session->resetting;
}

static void pinged(struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct session *session = private_data;

    (void)context;
    (void)status;
    (void)data;
    session->pinged = false;
}

/*
 * A LUN that is reset, by another initiator or by a session of ours on another portal, forgets its
 * commands, and need not answer them (SAM-5 5.6, TAS of the control mode page) though it goes on
 * answering pings. The first command after that is told by a unit attention. So in silence one is
 * sent, for there may be no other; and commands that were out when such an attention came are not
 * waited for when all is silent.
 */
static void looked(struct command *command, int status, struct scsi_task *task)
{
    struct session *session = container_of(command, struct session, look);
    const struct standing standing = {0};
    struct blk_error reason = {0};

    session->looking = false;
    if (!sense_is_unit_attention(status, task))
        return;
    sense_error(&reason, status, task, &standing, "");
    reason.retry = BLK_LOST;
    blk_error_prefix(&reason, "commands were not answered, and then");
    session_break_off(session, &reason);
}

void iscsi_session_was_reset(struct session *session)
{
    for (struct command *command = session->commands; command != NULL; command = command->next)
        command->forgotten = true;
}

static bool has_forgotten(const struct session *session)
{
    const struct command *command = session->commands;

    while (command != NULL && !command->forgotten)
        command = command->next;
    return command != NULL;
}

static void live_ping(struct liveness *live)
{
    struct session *session = container_of(live, struct session, live);
    struct blk_error reason = {0};

    if (session->state != SESSION_UP)
        return;
    if (has_forgotten(session)) {
        blk_error_set_retry(&reason, ECONNRESET, BLK_LOST,
                            "the LUN was reset, and commands before that were not answered");
        session_break_off(session, &reason);
        return;
    }
    if (!session->pinged)
        session->pinged = iscsi_nop_out_async(session->context, pinged, NULL, 0, session) == 0;
    if (session->commands != NULL && !session->looking) {
        session->looking = true;
        session->look = (struct command){.done = looked};
        iscsi_session_send(session, &session->look, scsi_cdb_testunitready());
    }
    if (session->state == SESSION_UP)
        send_soon(session);
}

static void live_dead(struct liveness *live)
{
    struct session *session = container_of(live, struct session, live);
    struct blk_error reason = {0};

    blk_error_set_retry(&reason, ETIMEDOUT, BLK_LOST, "no answer and no sign of life for %g s",
                        (double)session->timeout / LOOP_SECOND);
    session_break_off(session, &reason);
}

void iscsi_session_start(struct session *session)
{
    assert(session->state == SESSION_DOWN && session->commands == NULL);
    session->watch.prepare = watch_prepare;
    session->watch.service = watch_service;
    session->send.run = send_now;
    session->drop.run = drop;
    session->live = (struct liveness){.loop = session->loop,
                                      .timeout = session->timeout,
                                      .fd = live_fd,
                                      .busy = live_busy,
                                      .ping = live_ping,
                                      .dead = live_dead};
    connect_start(session);
}

void session_listen(struct session *session)
{
    session->pinged = false;
    loop_watch(session->loop, &session->watch);
    liveness_start(&session->live);
}

/* ---- Commands --------------------------------------------------------------------------------- */

static void unpark(struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct command *command = private_data;

    (void)context;
    (void)data;
    if (status != SCSI_STATUS_CANCELLED) /* else drop() ends it */
        end_command(command, command->status);
}

/*
 * A target may refuse a WRITE before it has taken all of its data (TASK SET FULL, with unsolicited
 * data on its way). The library goes on sending the Data-Out PDUs that it has queued, out of a task
 * and buffers that end_command() gives back. So the command waits for the answer to a NOP-Out, which
 * is queued behind them.
 */
static void park(struct command *command, int status)
{
    struct session *session = command->session;
    struct blk_error reason = {0};

    command->parked = true;
    command->status = status;
    if (iscsi_nop_out_async(session->context, unpark, NULL, 0, command) == 0)
        return;
    blk_error_set(&reason, ENOMEM, "out of memory");
    session_break_off(session, &reason);
}

/* The commands of probing are small, and few are on their way. */
#define TIMED_ANSWERS 8

static void time_answer(struct session *session, const struct command *command)
{
    uint64_t took;

    if (session->timed == TIMED_ANSWERS)
        return;
    session->timed++;
    took = loop_now(session->loop) - command->sent;
    if (session->round_trip == 0 || took < session->round_trip)
        session->round_trip = took;
}

static void command_answered(struct iscsi_context *context, int status, void *data,
                             void *private_data)
{
    struct command *command = private_data;
    struct session *session = command->session;

    (void)data;
    if (status == SCSI_STATUS_CANCELLED) {
        /* Called from within the library, by iscsi_destroy_context() or because the connection is
         * gone. drop() ends the command. */
        if (is_alive(session))
            break_off_lost(session);
        return;
    }
    time_answer(session, command);
    if (status != SCSI_STATUS_GOOD && is_write(command->task) && is_alive(session) &&
        (has_queued(session) || iscsi_out_queue_length(context) > 0))
        park(command, status);
    else
        end_command(command, status);
}

void iscsi_session_send(struct session *session, struct command *command, struct scsi_task *task)
{
    struct blk_error reason = {0};

    assert(session->state == SESSION_UP);
    command->session = session;
    command->task = task;
    command->parked = command->forgotten = false;
    if (session->timed < TIMED_ANSWERS)
        command->sent = loop_now(session->loop);
    command->link = &session->commands;
    command->next = session->commands;
    if (command->next != NULL)
        command->next->link = &command->next;
    session->commands = command;
    session->writes += is_write(task);

    if (task == NULL) {
        blk_error_set(&reason, ENOMEM, "out of memory");
        session_break_off(session, &reason);
    } else if (iscsi_scsi_command_async(session->context, lun_field(session->login->lun), task,
                                        command_answered, NULL, command) < 0) {
        break_off_lost(session);
    } else {
        send_soon(session);
    }
}

static void lun_reset(struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct session *session = private_data;

    (void)context;
    if (status != SCSI_STATUS_GOOD || !session->resetting || !is_alive(session))
        return; /* the session's end is told by down() */
    session->resetting = false;
    session->reset(session, (int)*(const uint32_t *)data);
}

void iscsi_session_reset_lun(struct session *session)
{
    assert(session->state == SESSION_UP && !session->resetting);
    session->resetting = true;
    /* Not iscsi_task_mgmt_lun_reset_async(), which first forgets all tasks, pings included. */
    if (iscsi_task_mgmt_async(session->context, lun_field(session->login->lun), ISCSI_TM_LUN_RESET,
                              0xffffffff, 0, lun_reset, session) < 0)
        break_off_lost(session);
    else
        send_soon(session);
}

const char *iscsi_session_complaint(const struct session *session)
{
    const char *text = session->context != NULL ? iscsi_get_error(session->context) : "";

    /* This one covers up what was there before. */
    if (text[0] == '\0' || strncmp(text, "iscsi_service_reconnect", 23) == 0)
        return "an answer that is no iSCSI";
    return text;
}

/* ---- Ending on request ------------------------------------------------------------------------ */

void iscsi_session_cancel(struct session *session)
{
    struct blk_error reason = {0};

    blk_error_set(&reason, ECANCELED, "cancelled");
    if (session->coming_up) {
        session->coming_up = false;
        session->error = reason;
    }
    session_break_off(session, &reason);
}

void iscsi_session_abandon(struct session *session, const struct blk_error *reason)
{
    session_break_off(session, reason);
}

static void logged_out(struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct session *session = private_data;

    (void)context;
    (void)status;
    (void)data;
    if (session->state == SESSION_LOGGING_OUT)
        session_break_off(session, NULL);
}

static void no_goodbye(struct loop_timer *timer)
{
    session_break_off(container_of(timer, struct session, goodbye), NULL);
}

void iscsi_session_close(struct session *session)
{
    session->closing = true;
    session->coming_up = false;
    switch (session->state) {
    case SESSION_UP:
        if (session->looking) { /* not worth waiting for */
            session_break_off(session, NULL);
            break;
        }
        assert(session->commands == NULL);
        if (iscsi_logout_async(session->context, logged_out, session) < 0) {
            session_break_off(session, NULL);
            break;
        }
        session_move(session, SESSION_UP, SESSION_LOGGING_OUT);
        session->goodbye.fire = no_goodbye;
        loop_timer_set(session->loop, &session->goodbye, loop_now(session->loop) + LOGOUT_PATIENCE);
        send_soon(session);
        break;
    case SESSION_DOWN:
    case SESSION_BROKEN:
        session_try_close(session);
        break;
    default:
        session_break_off(session, NULL);
        break;
    }
}
