/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a session comes up: portal by portal, address by address, until one admits it.
 *
 * An attempt that fails ends like any session, in session_break_off(); what comes after that is
 * connect_next().
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ISCSI_PORT 3260
#define MAX_MOVES  4 /* redirections that are followed */

static void connect_next_portal(struct session *session);
static void logged_in(struct iscsi_context *context, int status, void *data, void *private_data);

static void connected(struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct session *session = private_data;
    struct blk_error reason = {0};

    (void)data;
    if (session->state != SESSION_CONNECTING)
        return;
    if (status == SCSI_STATUS_GOOD && iscsi_login_async(context, logged_in, session) == 0) {
        session_move(session, SESSION_CONNECTING, SESSION_LOGGING_IN);
        return;
    }
    blk_error_set_retry(&reason, EIO, BLK_LOST, "%s", iscsi_get_error(context));
    session_break_off(session, &reason);
}

/* Notes where the target has moved to, "host[:port][,group]" (RFC 7143 13.8). */
static bool note_move(struct session *session, const char *address)
{
    char *host = session->moved_to;
    unsigned port = ISCSI_PORT;
    const char *rest;
    size_t len;

    if (address[0] == '[') {
        address++;
        len = strcspn(address, "]");
        rest = address + len + (address[len] == ']');
    } else {
        len = strcspn(address, ":,");
        rest = address + len;
    }
    if (*rest == ':')
        port = (unsigned)strtoul(rest + 1, NULL, 10);
    if (len == 0 || len >= sizeof(session->moved_to) || port == 0 || port > UINT16_MAX ||
        session->moves == MAX_MOVES)
        return false;
    memcpy(host, address, len);
    host[len] = '\0';
    session->moves++;
    session->port = (uint16_t)port;
    return true;
}

static void logged_in(struct iscsi_context *context, int status, void *data, void *private_data)
{
    struct session *session = private_data;
    struct blk_error reason = {0};

    (void)data;
    if (session->state != SESSION_LOGGING_IN)
        return;
    if (status == SCSI_STATUS_GOOD) {
        session->coming_up = false;
        blk_error_clear(&session->error);
        secrets_wipe(&session->secrets);
        session->had_choice =
            session->url->host_count > 1 || session->resolve.count > 1 || session->moves > 0;
        resolve_free(&session->resolve);
        session->address = 0;
        session_move(session, SESSION_LOGGING_IN, SESSION_UP);
        session->up(session);
        return;
    }
    login_failure(&reason, session->login, &session->secrets,
                  status == SCSI_STATUS_REDIRECT ? NULL : iscsi_get_error(context));
    if (reason.code == EREMOTE && note_move(session, iscsi_get_target_address(context)))
        session_break_off(session, NULL);
    else
        session_break_off(session, &reason);
}

static struct iscsi_context *new_context(struct session *session)
{
    const struct login *login = session->login;
    const struct secrets *secrets = &session->secrets;
    struct iscsi_context *context = iscsi_create_context(login->initiator);

    if (context == NULL)
        return NULL;
    shim_prepare(context);
    iscsi_set_noautoreconnect(context, 1);
    iscsi_set_timeout(context, 0);
    iscsi_set_session_type(context, ISCSI_SESSION_NORMAL);
    iscsi_set_targetname(context, login->target);
    iscsi_set_isid_random(context, login->isid, login->isid_qualifier);
    iscsi_set_header_digest(context, login->header_digest ? ISCSI_HEADER_DIGEST_CRC32C
                                                          : ISCSI_HEADER_DIGEST_NONE);
    iscsi_set_initiator_username_pwd(context, secrets->user, secrets->password);
    iscsi_set_target_username_pwd(context, secrets->mutual_user, secrets->mutual_password);
    return context;
}

static void resolve_host(struct session *session, const char *host)
{
    session_move(session, SESSION_DOWN, SESSION_RESOLVING);
    session->portal[0] = '\0';
    session->resolving = true;
    resolve_start(session->loop, &session->resolve, host);
}

void connect_next(struct session *session)
{
    struct blk_error reason = {0};
    const char *address;

    if (session->moved_to[0] != '\0') {
        resolve_free(&session->resolve);
        resolve_host(session, session->moved_to);
        session->moved_to[0] = '\0';
        return;
    }
    if (session->address == session->resolve.count) {
        resolve_free(&session->resolve);
        connect_next_portal(session);
        return;
    }
    address = session->resolve.addresses[session->address++];
    snprintf(session->portal, sizeof(session->portal),
             strchr(address, ':') != NULL ? "[%s]:%u" : "%s:%u", address, session->port);

    session_move(session, SESSION_DOWN, SESSION_CONNECTING);
    session->context = new_context(session);
    errno = 0;
    if (session->context == NULL) {
        blk_error_set(&reason, ENOMEM, "out of memory");
        session_break_off(session, &reason);
    } else if (iscsi_connect_async(session->context, session->portal, connected, session) < 0) {
        int code = errno; /* of connect(2), if it came that far */

        if (code != 0 && strncmp(iscsi_get_error(session->context), "Couldn't connect", 16) == 0)
            blk_error_set_retry(&reason, code, BLK_LOST, "%s", strerror(code));
        else
            blk_error_set_retry(&reason, EIO, BLK_LOST, "%s", iscsi_get_error(session->context));
        session_break_off(session, &reason);
    } else {
        session_listen(session);
    }
}

static void resolved(struct resolve *resolve)
{
    struct session *session = container_of(resolve, struct session, resolve);

    session->resolving = false;
    if (session->state != SESSION_RESOLVING) { /* cancelled meanwhile */
        resolve_free(resolve);
        session_try_close(session);
        return;
    }
    session_move(session, SESSION_RESOLVING, SESSION_DOWN);
    if (resolve->status < 0)
        session_note_failure(session, &resolve->error);
    session->address = 0;
    connect_next(session);
}

static void connect_next_portal(struct session *session)
{
    const struct url_host *host;

    if (session->tried == session->url->host_count) {
        session_give_up(session);
        return;
    }
    host = &session->url->hosts[(session->first + session->tried++) % session->url->host_count];
    session->port = host->port != 0 ? host->port : ISCSI_PORT;
    resolve_host(session, host->host);
}

void connect_start(struct session *session)
{
    session->resolve.done = resolved;
    session->tried = session->moves = 0;
    session->moved_to[0] = '\0';
    blk_error_clear(&session->error);
    if (secrets_load(&session->secrets, session->url, session->login, &session->error) < 0) {
        session_give_up(session);
        return;
    }
    session->coming_up = true;
    connect_next_portal(session);
}

/* ---- Choosing a portal ------------------------------------------------------------------------ */

void iscsi_session_settle(struct session *session)
{
    assert(session->state == SESSION_UP);
    session->first = (session->first + session->tried - 1) % session->url->host_count;
    session->tried = 1;
}

void iscsi_session_leave_portal(struct session *session, const struct blk_error *reason)
{
    assert(session->state == SESSION_UP);
    session->first = (session->first + session->tried) % session->url->host_count;
    session->tried = 0;
    session_break_off(session, reason);
}

bool iscsi_session_try_next_portal(struct session *session, const struct blk_error *reason)
{
    struct blk_error error = {0};

    assert(session->state == SESSION_UP);
    if (session->tried >= session->url->host_count)
        return false;
    if (secrets_load(&session->secrets, session->url, session->login, &error) < 0)
        return false;
    session->coming_up = true;
    session->moved_to[0] = '\0';
    session_break_off(session, reason);
    return true;
}
