/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The iSCSI driver over sessions that a test makes, breaks and answers, in place of session.c, of which
 * nothing is linked; the LUN behind them is fake_lun.c's. Holds definitions: to be included once in a
 * program.
 */
#ifndef LUNFERRY_TEST_ISCSI_WORLD_H
#define LUNFERRY_TEST_ISCSI_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "drivers/iscsi/private.h"
#include "fake_lun.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/url.h>

#define ONE_PORTAL  "iscsi://10.0.0.1/iqn.test:disk/1"
#define TWO_PORTALS "iscsi://10.0.0.1,10.0.0.2/iqn.test:disk/1"

/* ---- The world -------------------------------------------------------------------------------- */

static struct world {
    struct loop *loop;
    struct fake_lun luns[2]; /* behind each portal */
    struct fake_lun *behind[2];
    bool away[2];       /* the portal refuses */
    bool silent;        /* commands are not answered */
    bool reset_refused; /* LOGICAL UNIT RESET */
    unsigned drops_at;  /* opcode at which the session ends, */
    unsigned drops;     /* so many times */
    unsigned open;      /* devices */
    unsigned logins, resets_told;
    struct session *sessions[4]; /* in the order in which their devices were opened */
    struct nexus {
        uint64_t isid;
        char portal[SESSION_PORTAL_MAX];
    } nexuses[FAKE_NEXUSES];
    unsigned warnings;
    char warning[400];
    struct url url;
    struct blk_settings settings;
    struct blk_watcher watcher;
} world;

static inline unsigned portal_of(const struct session *session)
{
    return (unsigned)((session->first + session->tried - 1) % session->url->host_count);
}

static inline struct fake_lun *lun_behind(const struct session *session)
{
    return world.behind[portal_of(session)];
}

static inline unsigned nexus_of(const struct session *session)
{
    uint64_t isid = login_session_id(session->login);
    unsigned i = 0;

    while (world.nexuses[i].isid != 0 &&
           (world.nexuses[i].isid != isid || strcmp(world.nexuses[i].portal, session->portal) != 0))
        i++;
    assert_true(i < FAKE_NEXUSES);
    world.nexuses[i].isid = isid;
    snprintf(world.nexuses[i].portal, sizeof(world.nexuses[i].portal), "%s", session->portal);
    return i;
}

/* ---- Sessions, in place of session.c ---------------------------------------------------------- */

static inline void next_portal(struct session *session);

static inline void go_down(struct loop_call *call)
{
    struct session *session = container_of(call, struct session, drop);

    session->state = SESSION_DOWN;
    while (session->commands != NULL) {
        struct command *command = session->commands;
        struct scsi_task *task = command->task;

        session->commands = command->next;
        command->done(command, SCSI_STATUS_CANCELLED, NULL);
        scsi_free_scsi_task(task);
    }
    if (session->coming_up)
        next_portal(session);
    else if (session->closing)
        session->closed(session);
    else
        session->down(session);
}

static inline void break_off(struct session *session, const struct blk_error *reason)
{
    if (session->state == SESSION_DOWN || session->state == SESSION_BROKEN)
        return;
    session->error = *reason;
    session->state = SESSION_BROKEN;
    session->drop.run = go_down;
    loop_defer_cancel(session->loop, &session->send);
    loop_defer(session->loop, &session->drop);
}

static inline void come_up(struct loop_call *call)
{
    struct session *session = container_of(call, struct session, drop);

    session->state = SESSION_UP;
    session->coming_up = false;
    session->had_choice = session->url->host_count > 1;
    world.logins++;
    session->up(session);
}

static inline void next_portal(struct session *session)
{
    while (session->tried < session->url->host_count) {
        session->tried++;
        if (world.away[portal_of(session)])
            continue;
        snprintf(session->portal, sizeof(session->portal), "portal %c",
                 'A' + (int)portal_of(session));
        session->state = SESSION_LOGGING_IN;
        session->coming_up = true;
        session->drop.run = come_up;
        loop_defer(session->loop, &session->drop);
        return;
    }
    session->coming_up = false;
    session->state = SESSION_LOGGING_IN;
    break_off(session,
              &(struct blk_error){.code = ECONNREFUSED, .retry = BLK_FATAL, .text = "refused"});
}

void iscsi_session_start(struct session *session)
{
    unsigned i = 0;

    assert_int_equal(session->state, SESSION_DOWN);
    while (world.sessions[i] != NULL && world.sessions[i] != session)
        i++;
    assert_true(i < sizeof(world.sessions) / sizeof(world.sessions[0]));
    world.sessions[i] = session;
    session->tried = 0;
    next_portal(session);
}

static inline void answer_all(struct loop_call *call)
{
    struct session *session = container_of(call, struct session, send);

    while (session->state == SESSION_UP && session->commands != NULL && !world.silent) {
        struct command *command = session->commands;
        struct scsi_task *task = command->task;

        if (world.drops > 0 && task->cdb[0] == world.drops_at) {
            world.drops--;
            break_off(session, &(struct blk_error){
                                   .code = ECONNRESET, .retry = BLK_LOST, .text = "dropped"});
            return;
        }
        session->commands = command->next;
        command->done(command, fake_lun_answer(lun_behind(session), nexus_of(session), task), task);
        scsi_free_scsi_task(task);
    }
}

void iscsi_session_send(struct session *session, struct command *command, struct scsi_task *task)
{
    struct command **end = &session->commands;

    assert_int_equal(session->state, SESSION_UP);
    command->session = session;
    command->task = task;
    command->next = NULL;
    while (*end != NULL)
        end = &(*end)->next;
    *end = command;
    session->send.run = answer_all;
    loop_defer(session->loop, &session->send);
}

static inline void answer_reset(struct loop_call *call)
{
    struct session *session = container_of(call, struct session, drop);
    char word[32];

    snprintf(word, sizeof(word), "%u:reset", nexus_of(session));
    fake_lun_log(lun_behind(session), word);
    session->reset(session,
                   world.reset_refused ? ISCSI_TMR_FUNC_REJECTED : ISCSI_TMR_FUNC_COMPLETE);
}

void iscsi_session_reset_lun(struct session *session)
{
    assert_int_equal(session->state, SESSION_UP);
    assert_null(session->commands);
    session->drop.run = answer_reset;
    loop_defer(session->loop, &session->drop);
}

void iscsi_session_settle(struct session *session)
{
    session->first = portal_of(session);
    session->tried = 1;
}

void iscsi_session_leave_portal(struct session *session, const struct blk_error *reason)
{
    session->first = (portal_of(session) + 1) % session->url->host_count;
    break_off(session, reason);
}

bool iscsi_session_try_next_portal(struct session *session, const struct blk_error *reason)
{
    if (session->tried >= session->url->host_count)
        return false;
    break_off(session, reason);
    session->coming_up = true;
    return true;
}

void iscsi_session_abandon(struct session *session, const struct blk_error *reason)
{
    break_off(session, reason);
}

void iscsi_session_cancel(struct session *session)
{
    session->coming_up = false;
    break_off(session,
              &(struct blk_error){.code = ECANCELED, .retry = BLK_FATAL, .text = "cancelled"});
}

void iscsi_session_close(struct session *session)
{
    session->closing = true;
    session->coming_up = false;
    if (session->state == SESSION_DOWN)
        session->closed(session);
    else
        break_off(session,
                  &(struct blk_error){.code = ECANCELED, .retry = BLK_FATAL, .text = "closed"});
}

void iscsi_session_was_reset(struct session *session)
{
    (void)session;
    world.resets_told++;
}

const char *iscsi_session_complaint(const struct session *session)
{
    (void)session;
    return "";
}

/* ---- Doing things ----------------------------------------------------------------------------- */

static inline void noticed(struct blk_watcher *watcher, enum blk_event event, const char *name,
                           const char *text)
{
    (void)watcher;
    (void)name;
    if (event != BLK_WARNING)
        return;
    world.warnings++;
    snprintf(world.warning, sizeof(world.warning), "%s", text);
}

static inline int setup_with(void **state, const char *url)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    world.loop = loop_new_manual();
    for (unsigned i = 0; i < 2; i++) {
        fake_lun_init(&world.luns[i]);
        world.behind[i] = &world.luns[0]; /* one LUN, two ways */
    }
    world.settings = (struct blk_settings){.timeout = LOOP_SECOND, .initiator_name = "iqn.test:me"};
    world.watcher.event = noticed;
    assert_int_equal(url_parse(url, &world.url, NULL), 0);
    return 0;
}

static inline int setup(void **state)
{
    return setup_with(state, ONE_PORTAL);
}

static inline int setup_two(void **state)
{
    return setup_with(state, TWO_PORTALS);
}

static inline int teardown(void **state)
{
    (void)state;
    url_release(&world.url);
    if (world.open == 0) /* else a test has failed, which is to be told */
        loop_free(world.loop);
    return 0;
}

static inline void task_done(struct blk_task *task)
{
    *(bool *)task->opaque = true;
}

static inline void req_done(struct blk_req *req)
{
    *(bool *)req->opaque = true;
}

static inline void wait_for(const bool *done)
{
    for (unsigned i = 0; i < 10000 && !*done; i++) {
        if (!loop_turn(world.loop, loop_now(world.loop)))
            loop_advance(world.loop, 50 * LOOP_MSECOND);
    }
    assert_true(*done);
}

static struct blk_task wait_task;
static bool wait_done;

static inline struct blk_task *new_task(void)
{
    wait_done = false;
    wait_task = (struct blk_task){.done = task_done, .opaque = &wait_done};
    return &wait_task;
}

static inline struct blk_error outcome(void)
{
    wait_for(&wait_done);
    return wait_task.error;
}

static inline struct blk_dev *open_with(bool writable, uint64_t session_id, int code)
{
    struct blk_open_args args = {.url = &world.url,
                                 .writable = writable,
                                 .session_id = session_id,
                                 .settings = &world.settings,
                                 .watcher = &world.watcher};
    struct blk_dev *dev;

    if (world.open == 0)
        memset(world.sessions, 0, sizeof(world.sessions));
    dev = blk_open(world.loop, &args, new_task());
    world.open++;
    assert_int_equal(outcome().code, code);
    return dev;
}

static inline struct blk_dev *open_lun(void)
{
    return open_with(true, 0, 0);
}

static inline struct blk_dev *clone_lun(struct blk_dev *origin, unsigned number)
{
    struct blk_dev *dev = blk_clone(world.loop, origin, number, new_task());

    world.open++;
    assert_int_equal(outcome().code, 0);
    return dev;
}

static inline void close_lun(struct blk_dev *dev)
{
    blk_close(dev, new_task());
    outcome();
    world.open--;
}

static inline struct blk_error recheck(struct blk_dev *dev)
{
    blk_recheck(dev, new_task());
    return outcome();
}

static inline struct blk_error reserve(struct blk_dev *dev, uint64_t key, uint64_t break_key)
{
    struct blk_reservation how = {key, break_key};

    blk_reserve(dev, &how, new_task());
    return outcome();
}

/* It is not given up: what is wrong may pass. */
static inline void recheck_waits(struct blk_dev *dev)
{
    world.settings.give_up = LOOP_NEVER;
    blk_recheck(dev, new_task());
    for (unsigned i = 0; i < 300; i++) {
        if (!loop_turn(world.loop, loop_now(world.loop)))
            loop_advance(world.loop, 50 * LOOP_MSECOND);
    }
    assert_false(wait_done);
}

static inline void lose_session(unsigned i)
{
    break_off(world.sessions[i],
              &(struct blk_error){.code = ECONNRESET, .retry = BLK_LOST, .text = "reset"});
}

static inline struct blk_req request(struct blk_dev *dev, enum blk_op op, unsigned flags)
{
    static char buf[4096];
    struct iovec iov = {buf, sizeof(buf)};
    bool done = false;
    struct blk_req req = {.op = op, .flags = flags, .done = req_done, .opaque = &done};

    if (op != BLK_FLUSH) {
        req.len = sizeof(buf);
        req.iov = &iov;
        req.iovcnt = 1;
    }
    blk_submit(dev, &req);
    wait_for(&done);
    return req;
}

static inline void check_retry(const struct blk_error *error, int code, enum blk_retry retry)
{
    if (error->code != code || error->retry != retry)
        fail_msg("%d, class %d: %s", error->code, (int)error->retry, error->text);
}

/* The next command with this opcode gets it. */
static inline void raise_attention(unsigned opcode, unsigned asc, unsigned ascq)
{
    world.luns[0].attention[0] = (struct fake_sense){6, (unsigned char)asc, (unsigned char)ascq};
    world.luns[0].attention_at = opcode;
}

#define OP_TUR   0x00
#define OP_READ  0x88
#define OP_WRITE 0x8a
#define OP_FLUSH 0x91

#endif
