/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* NFS sessions that are lost and built again, with several users. */
#include "nfs_peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/url.h>

#include "drivers/nfs/recheck.h"

/* Nothing here lasts so long; it ends a test that waits for what does not come. */
#define PATIENCE (20 * LOOP_SECOND)

static const struct blk_settings settings = {.timeout = 10 * LOOP_SECOND};

static struct nfs_object object = {
    .handle = {.len = 4, .data = "file"},
    .type = NF3REG,
    .fsid = 1,
    .file_id = 42,
};

struct user {
    struct nfs_waiter waiter;
    struct nfs_recheck recheck;
    struct nfs_call call;
    unsigned done;
    struct blk_error error; /* code 0: success */
    struct blk_stamp stamp;
};

struct world {
    struct loop *loop;
    struct nfs_peer peer;
    struct url url;
    struct nfs_session *session;
    bool gone;
    struct user users[3];
};

static void note(struct user *user, const struct blk_error *error)
{
    user->done++;
    blk_error_clear(&user->error);
    if (error)
        user->error = *error;
}

static void on_session(struct nfs_waiter *waiter, const struct blk_error *error)
{
    note(container_of(waiter, struct user, waiter), error);
}

static void on_rechecked(struct nfs_recheck *recheck, const struct blk_error *error,
                         const struct fattr3 *attr)
{
    struct user *user = container_of(recheck, struct user, recheck);

    note(user, error);
    if (attr)
        user->stamp = nfs_stamp(attr);
}

static int issue_getattr(struct nfs_call *call, const struct shim_out *out)
{
    GETATTR3args args = {.object = nfs_handle_fh3(&object.handle)};

    (void)call;
    return shim_getattr(out, &args);
}

static void on_getattr(struct nfs_call *call, const void *reply, const struct blk_error *error)
{
    (void)reply;
    note(container_of(call, struct user, call), error);
}

static void on_gone(void *opaque)
{
    ((struct world *)opaque)->gone = true;
}

static void turn_until(struct world *world, const unsigned *what, unsigned count)
{
    uint64_t end = loop_now(world->loop) + PATIENCE;

    while (*what < count) {
        assert_true(loop_now(world->loop) < end);
        loop_turn(world->loop, end);
    }
}

static void turn_until_state(struct world *world, enum nfs_session_state state)
{
    uint64_t end = loop_now(world->loop) + PATIENCE;

    while (world->session->state != state) {
        assert_true(loop_now(world->loop) < end);
        loop_turn(world->loop, end);
    }
}

/* A session that is READY, which knows its file from elsewhere: as a clone's. */
static int setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    char text[100];

    world->loop = loop_new();
    peer_start(&world->peer, world->loop);
    snprintf(text, sizeof(text), "nfs://127.0.0.1/export/file?nfsport=%u", world->peer.port);
    assert_int_equal(url_parse(text, &world->url, NULL), 0);
    for (int i = 0; i < 3; i++) {
        world->users[i].waiter.done = on_session;
        world->users[i].recheck.done = on_rechecked;
        world->users[i].recheck.object = &object;
        world->users[i].call.issue = issue_getattr;
        world->users[i].call.done = on_getattr;
    }
    world->session = nfs_session_new(world->loop, &world->url, &settings, NULL);
    assert_non_null(world->session);
    nfs_session_reopen(world->session, &object, 0, &world->users[0].waiter);
    assert_int_equal(world->users[0].done, 0);
    turn_until(world, &world->users[0].done, 1);
    assert_int_equal(world->users[0].error.code, 0);
    assert_int_equal(world->session->state, NFS_SESSION_READY);
    world->users[0].done = 0;
    for (int i = 0; i < 3; i++)
        world->users[i].recheck.session = world->session;
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    uint64_t end = loop_now(world->loop) + PATIENCE;

    if (!world->gone)
        nfs_session_put(world->session, on_gone, world);
    while (!world->gone && loop_now(world->loop) < end)
        loop_turn(world->loop, end);
    peer_close(&world->peer);
    loop_free(world->loop);
    url_release(&world->url);
    free(world);
    return 0;
}

static void lose(struct world *world)
{
    peer_drop(&world->peer);
    turn_until_state(world, NFS_SESSION_BROKEN);
}

/* ---- Tests ------------------------------------------------------------------------------------ */

static void test_once_for_all(void **state)
{
    struct world *world = *state;

    lose(world);
    for (int i = 0; i < 3; i++)
        nfs_session_recover(world->session, &world->users[i].waiter);
    for (int i = 0; i < 3; i++) {
        turn_until(world, &world->users[i].done, 1);
        assert_int_equal(world->users[i].error.code, 0);
    }
    assert_int_equal(world->peer.accepted, 2);
    assert_int_equal(world->session->state, NFS_SESSION_READY);
    /* Now there is nothing to wait for. */
    nfs_session_recover(world->session, &world->users[0].waiter);
    assert_int_equal(world->users[0].done, 2);
    assert_int_equal(world->peer.accepted, 2);
}

static void test_one_stops_waiting(void **state)
{
    struct world *world = *state;

    lose(world);
    for (int i = 0; i < 3; i++)
        nfs_session_recover(world->session, &world->users[i].waiter);
    nfs_waiter_forget(&world->users[0].waiter);
    nfs_waiter_forget(&world->users[1].waiter);
    nfs_waiter_forget(&world->users[1].waiter);
    turn_until(world, &world->users[2].done, 1);
    assert_int_equal(world->users[2].error.code, 0);
    assert_int_equal(world->users[0].done + world->users[1].done, 0);
    /* And when nobody waits, it becomes READY all the same. */
    lose(world);
    nfs_session_recover(world->session, &world->users[0].waiter);
    nfs_waiter_forget(&world->users[0].waiter);
    turn_until_state(world, NFS_SESSION_READY);
    assert_int_equal(world->users[0].done, 0);
}

static void check_call_refused(struct world *world, struct user *user)
{
    unsigned getattrs = world->peer.getattrs;

    user->done = 0;
    nfs_session_call(world->session, &user->call);
    assert_int_equal(user->done, 0); /* never from within */
    turn_until(world, &user->done, 1);
    assert_int_equal(user->error.retry, BLK_LOST);
    assert_true(user->error.text[0] != '\0');
    assert_int_equal(world->peer.getattrs, getattrs);
}

/* Nothing gets to a server before that has shown that it is the same. */
static void test_calls_meanwhile(void **state)
{
    struct world *world = *state;
    struct user *user = &world->users[1];

    lose(world);
    check_call_refused(world, user);
    world->peer.mute = true;
    nfs_session_recover(world->session, &world->users[0].waiter);
    check_call_refused(world, user);
    turn_until_state(world, NFS_SESSION_PROBING);
    check_call_refused(world, user);
    world->peer.mute = false;
    peer_drop(&world->peer);
    turn_until(world, &world->users[0].done, 1);
    assert_int_equal(world->users[0].error.retry, BLK_LOST);
    nfs_session_recover(world->session, &world->users[0].waiter);
    turn_until(world, &world->users[0].done, 2);
    user->done = 0;
    nfs_session_call(world->session, &user->call);
    turn_until(world, &user->done, 1);
    assert_int_equal(user->error.code, 0);
}

/* A call that is forgotten while it waits to be refused. */
static void test_forgotten_call(void **state)
{
    struct world *world = *state;

    lose(world);
    nfs_session_call(world->session, &world->users[1].call);
    nfs_session_call(world->session, &world->users[2].call);
    nfs_conn_forget(&world->session->nfsd, &world->users[1].call);
    turn_until(world, &world->users[2].done, 1);
    assert_int_equal(world->users[1].done, 0);
}

static void recheck(struct world *world, struct user *user)
{
    user->done = 0;
    nfs_recheck_start(&user->recheck);
    turn_until(world, &user->done, 1);
}

static void test_recheck(void **state)
{
    struct world *world = *state;
    struct user *user = &world->users[0];

    recheck(world, user);
    assert_int_equal(user->error.code, 0);
    assert_int_equal(user->stamp.size, 4096);
    assert_int_equal(user->stamp.mtime_ns, INT64_C(5000000006));
    assert_int_equal(user->stamp.ctime_ns, INT64_C(7000000008));
    assert_int_equal(world->peer.accepted, 1);
    lose(world);
    recheck(world, user);
    assert_int_equal(user->error.code, 0);
    assert_int_equal(world->peer.accepted, 2);
    /* Stopped on both stretches of its way, it does not come back. */
    user->done = 0;
    nfs_recheck_start(&user->recheck);
    nfs_recheck_stop(&user->recheck);
    lose(world);
    nfs_recheck_start(&user->recheck);
    nfs_recheck_stop(&user->recheck);
    turn_until_state(world, NFS_SESSION_READY);
    assert_int_equal(user->done, 0);
}

/* What is final, and what may pass; whether the session stands (`lost` false) or is rebuilt. */
static void check_class(struct world *world, bool lost, uint32_t status, uint64_t file_id,
                        enum blk_retry retry)
{
    struct user *user = &world->users[0];

    if (lost)
        lose(world);
    world->peer.status = status;
    world->peer.file_id = file_id;
    recheck(world, user);
    assert_int_equal(user->error.retry, retry);
    assert_int_not_equal(user->error.code, 0);
    world->peer.status = 0;
    world->peer.file_id = object.file_id;
    recheck(world, user);
    assert_int_equal(user->error.code, 0);
}

static void test_classes(void **state)
{
    struct world *world = *state;

    for (int lost = 0; lost < 2; lost++) {
        check_class(world, lost, NFS3ERR_STALE, object.file_id, BLK_FATAL);
        check_class(world, lost, NFS3ERR_BADHANDLE, object.file_id, BLK_FATAL);
        check_class(world, lost, NFS3_OK, object.file_id + 1, BLK_FATAL);
        check_class(world, lost, NFS3ERR_JUKEBOX, object.file_id, BLK_LOST);
        check_class(world, lost, NFS3ERR_ACCES, object.file_id, BLK_LOST);
        check_class(world, lost, NFS3ERR_IO, object.file_id, BLK_LOST);
    }
}

/* Another server has the address now, and the handle is that of a file of its own. */
static void test_other_server(void **state)
{
    struct world *world = *state;

    lose(world);
    world->peer.file_id++;
    for (unsigned i = 1; i < 3; i++) {
        nfs_session_recover(world->session, &world->users[0].waiter);
        turn_until(world, &world->users[0].done, i);
        assert_int_equal(world->users[0].error.code, ESTALE);
        assert_int_equal(world->session->state, NFS_SESSION_BROKEN);
    }
    world->peer.file_id--;
    nfs_session_recover(world->session, &world->users[0].waiter);
    turn_until(world, &world->users[0].done, 3);
    assert_int_equal(world->users[0].error.code, 0);
}

static void test_server_away(void **state)
{
    struct world *world = *state;
    struct user *user = &world->users[0];

    peer_close(&world->peer);
    turn_until_state(world, NFS_SESSION_BROKEN);
    for (int i = 0; i < 3; i++) {
        recheck(world, user);
        assert_int_equal(user->error.code, ECONNREFUSED);
        assert_int_equal(user->error.retry, BLK_LOST);
    }
    check_call_refused(world, &world->users[1]);
    peer_reopen(&world->peer);
    recheck(world, user);
    assert_int_equal(user->error.code, 0);
}

/* The last user goes in the middle of it. */
static void test_put_while_rebuilding(void **state)
{
    struct world *world = *state;

    lose(world);
    world->peer.mute = true;
    nfs_session_recover(world->session, &world->users[0].waiter);
    turn_until(world, &world->peer.accepted, 2);
    nfs_session_hold(world->session);
    nfs_session_put(world->session, on_gone, world);
    assert_true(world->gone); /* for that user; the other one still waits */
    assert_int_equal(world->session->state, NFS_SESSION_PROBING);
    world->gone = false;
    nfs_waiter_forget(&world->users[0].waiter);
    /* teardown() puts it down; nothing may come of the connection then */
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_once_for_all),   TEST(test_one_stops_waiting), TEST(test_calls_meanwhile),
        TEST(test_forgotten_call), TEST(test_recheck),           TEST(test_classes),
        TEST(test_other_server),   TEST(test_server_away),       TEST(test_put_while_rebuilding),
    };

    return cmocka_run_group_tests_name("NFS sessions", tests, NULL, NULL);
}
