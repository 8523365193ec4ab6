/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What one version of libiscsi needs and others do not.
 *
 * Before 1.20.0 a session that is writing does not survive a ping from the target (a NOP-In that
 * wants an answer, RFC 7143 11.19; LIO sends one every 15 s). The library queues its answer, an
 * immediate command, at the head of what it has to send, and gives it the CmdSN of what was at the
 * head before. When that is a Data-Out PDU, whose command the target has long taken, the library
 * finds the number too old when it comes to sending, and drops the connection.
 *
 * So nothing may be queued when the ping is answered, and the only one who knows that moment is the
 * library's log, which tells of each NOP-In just before the answer is queued. The function below
 * listens for that line, and sends what is queued. On a full socket it has to wait: as long as the
 * kernel takes to make room for some MiB, during which the line is busy anyway, and never longer
 * than FLUSH_PATIENCE. This is the one place in the program where a loop is held up; the alternative
 * is a lost session every 15 s.
 */
#include "private.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define FLUSH_PATIENCE 1000 /* ms */
#define FLUSH_STEP     100  /* ms */

/* 1.20.0 came with the cure, and with this function. */
extern int iscsi_force_reconnect(struct iscsi_context *context) __attribute__((weak));

/* The log does not say which context it is about. */
static _Thread_local struct iscsi_context *in_service;

static void flush(struct iscsi_context *context)
{
    struct pollfd poll_fd = {.fd = iscsi_get_fd(context), .events = POLLOUT};

    for (int waited = 0; waited < FLUSH_PATIENCE; waited += FLUSH_STEP) {
        if ((iscsi_which_events(context) & POLLOUT) == 0)
            return;
        if (iscsi_service(context, POLLOUT) < 0)
            return;
        if ((iscsi_which_events(context) & POLLOUT) == 0)
            return;
        poll(&poll_fd, 1, FLUSH_STEP);
    }
}

static void heed_log(int level, const char *message)
{
    /* The tag of a ping; answers to pings of ours carry another one. */
    static const char ping[] = "NOP-In received (pdu->itt ffffffff";

    (void)level;
    if (in_service != NULL && strncmp(message, ping, sizeof(ping) - 1) == 0)
        flush(in_service);
}

static bool must_listen(void)
{
    /* The library's own debugging output takes the same place. */
    return iscsi_force_reconnect == NULL && getenv("LIBISCSI_DEBUG") == NULL;
}

void shim_prepare(struct iscsi_context *context)
{
    if (!must_listen())
        return;
    iscsi_set_log_level(context, 6);
    /* The cache of PDUs writes a line of this level whenever it is full. */
    iscsi_set_cache_allocations(context, 0);
}

int shim_service(struct iscsi_context *context, int events, bool writing)
{
    /* No longer than needed: the library formats its lines in one static buffer, whatever the
     * thread. (Two lanes that are pinged in the same microsecond can garble each other's line.) */
    bool listen = writing && (events & POLLIN) != 0 && must_listen();
    int rc;

    if (!listen)
        return iscsi_service(context, events);
    in_service = context;
    iscsi_set_log_fn(context, heed_log);
    rc = iscsi_service(context, events);
    iscsi_set_log_fn(context, NULL);
    in_service = NULL;
    return rc;
}
