/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Devices that lose their sessions: how the middle finds its way back, and when it stops trying. */
#include "desk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define MS           LOOP_MSECOND
#define SECOND       LOOP_SECOND
#define SAYS_NO      "the fake says no"
#define HUNG_UP      "the fake has hung up"

/* ---- The way back ----------------------------------------------------------------------------- */

#define READS 4

struct trip {
    struct desk desk;
    struct desk_req req[READS];
    unsigned char buf[READS][512];
};

/* As many READs as max_depth allows are at the driver. */
static void trip_start(struct trip *trip, unsigned max_depth)
{
    desk_init(&trip->desk, 8192);
    desk_repeat(&trip->desk);
    trip->desk.disk.limits.max_depth = max_depth;
    desk_open(&trip->desk, true);
    for (unsigned i = 0; i < READS; i++)
        desk_submit(&trip->desk, &trip->req[i], BLK_READ, 0, i * 512, trip->buf[i], 512);
    fake_settle(&trip->desk.fake);
}

static void trip_check(struct trip *trip, int status, const char *part)
{
    for (unsigned i = 0; i < READS; i++) {
        assert_int_equal(trip->req[i].done, 1);
        assert_int_equal(trip->req[i].req.status, status);
        if (status == 0)
            assert_memory_equal(trip->buf[i], trip->desk.disk.written + i * 512, 512);
        else
            desk_check_text(trip->req[i].req.error.text, part);
    }
}

/* One loss: drained first, looked once, told once, and all of it is done then. */
static void test_loss(void **state)
{
    struct trip trip;

    (void)state;
    trip_start(&trip, 3);
    desk_check_pending(&trip.desk, "RRR");
    fake_disk_lose(&trip.desk.disk, false);
    desk_one(&trip.desk);
    desk_check_events(&trip.desk, "REPEATED " HUNG_UP "\nAWAY " HUNG_UP "\n");
    desk_check_pending(&trip.desk, "RR");
    desk_one(&trip.desk);
    desk_check_pending(&trip.desk, "R");
    desk_one(&trip.desk);
    desk_check_pending(&trip.desk, "r");
    desk_check_events(&trip.desk, "REPEATED " HUNG_UP "\nREPEATED " HUNG_UP "\n");
    desk_advance(&trip.desk, 2 * SECOND);
    desk_one(&trip.desk);
    desk_check_events(&trip.desk, "BACK 2.00 s\n");
    desk_check_pending(&trip.desk, "RRR");
    fake_finish(&trip.desk.fake);
    trip_check(&trip, 0, NULL);
    desk_check_log(&trip.desk, "READ 0+512\nREAD 512+512\nREAD 1024+512\n"
                               "READ 0+512\nREAD 512+512\nREAD 1024+512\nREAD 1536+512\n");
    desk_check_events(&trip.desk, "");
    desk_release(&trip.desk);
}

static void test_many_attempts(void **state)
{
    struct trip trip;

    (void)state;
    trip_start(&trip, READS);
    trip.desk.disk.recover_lost = 5;
    fake_disk_lose(&trip.desk.disk, false);
    for (unsigned i = 0; i < READS; i++)
        desk_one(&trip.desk);
    desk_check_pending(&trip.desk, "r");
    desk_one(&trip.desk);
    desk_check_pending(&trip.desk, ""); /* not at once */
    desk_advance(&trip.desk, 100 * MS);
    desk_check_pending(&trip.desk, "r");
    for (unsigned i = 0; i < READS; i++)
        desk_until(&trip.desk, &trip.req[i].done);
    trip_check(&trip, 0, NULL);
    assert_int_equal(trip.desk.disk.recover_lost, 0);
    assert_non_null(strstr(trip.desk.events, "BACK"));
    desk_release(&trip.desk);
}

/* Everything fails at once, what has not begun too, and what comes later. */
static void test_another_thing(void **state)
{
    struct trip trip;
    struct desk_req req;
    struct desk_task task;

    (void)state;
    trip_start(&trip, 2);
    trip.desk.disk.other = true;
    fake_disk_lose(&trip.desk.disk, false);
    desk_one(&trip.desk);
    desk_one(&trip.desk);
    desk_one(&trip.desk);
    trip_check(&trip, -ESTALE, "reading fake:d at offset ");
    trip_check(&trip, -ESTALE, "it is another one");
    desk_check_pending(&trip.desk, "");
    assert_int_equal(desk_do(&trip.desk, &req, BLK_FLUSH, 0, 0, NULL, 0), -ESTALE);
    assert_string_equal(req.req.error.text, "flushing fake:d: it is another one");
    assert_int_equal(req.req.error.retry, BLK_FATAL);
    blk_recheck(trip.desk.dev, desk_task(&task));
    fake_finish(&trip.desk.fake);
    assert_int_equal(task.task.status, -ESTALE);
    assert_string_equal(task.task.error.text, "fake:d: it is another one");
    assert_null(strstr(trip.desk.events, "BACK"));
    desk_release(&trip.desk);
}

/* A request in pieces, some of which are done, some kept, and some not made. */
static void test_another_thing_in_pieces(void **state)
{
    unsigned char buf[4096];
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 8192);
    desk_repeat(&desk);
    desk.disk.limits.max_read = 512;
    desk.disk.limits.max_depth = 2;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_READ, 0, 0, buf, 4096);
    fake_settle(&desk.fake);
    desk_one(&desk);
    fake_disk_lose(&desk.disk, false);
    desk.disk.other = true;
    desk_one(&desk);
    desk_one(&desk);
    desk_check_pending(&desk, "r");
    assert_int_equal(req.done, 0);
    desk_one(&desk);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, -ESTALE);
    desk_release(&desk);
}

/* What the server still answers, when all is given up, does not bring anything back. */
static void test_gone_with_some_at_the_driver(void **state)
{
    struct trip trip;
    struct desk_task task;

    (void)state;
    trip_start(&trip, READS);
    fake_fail(&trip.desk.fake, 0, EIO, BLK_REPEAT, false);
    desk_advance(&trip.desk, 600 * SECOND);
    desk_check_pending(&trip.desk, "RRR");
    for (unsigned i = 0; i < 3; i++)
        assert_true(trip.desk.fake.pending[i].cancelled);
    fake_finish(&trip.desk.fake);
    for (unsigned i = 0; i < READS; i++) {
        assert_int_equal(trip.req[i].req.status, -ETIMEDOUT);
        desk_check_text(trip.req[i].req.error.text,
                        "given up after 10:00 without progress: " SAYS_NO);
    }
    blk_finish(trip.desk.dev, desk_task(&task));
    fake_finish(&trip.desk.fake);
    desk_release(&trip.desk);
}

/* ---- What is found when it is back ------------------------------------------------------------ */

/* It has another size, of which `need` is needed (0: not told). */
static int find_size(uint64_t before, uint64_t after, uint64_t need)
{
    unsigned char buf[512];
    struct desk_req req;
    struct desk desk;
    int status;

    desk_init(&desk, before > after ? before : after);
    desk_repeat(&desk);
    desk.disk.size = before;
    desk_open(&desk, true);
    if (need)
        blk_need(desk.dev, need);
    desk_submit(&desk, &req, BLK_READ, 0, 0, buf, sizeof(buf));
    fake_disk_lose(&desk.disk, false);
    desk_one(&desk);
    desk.disk.size = after;
    desk.disk.mtime_ns = 5;
    desk_until(&desk, &req.done);
    status = req.req.status;
    if (status < 0)
        desk_check_text(req.req.error.text, "it has become smaller: ");
    assert_int_equal(desk.dev->seen.size, after);
    assert_int_equal(desk.dev->seen.mtime_ns, 5);
    assert_int_equal(desk.dev->opened.mtime_ns, 0);
    assert_int_equal(desk.dev->opened.size, before);
    desk_release(&desk);
    return status;
}

static void test_another_size(void **state)
{
    (void)state;
    assert_int_equal(find_size(8192, 8192, 0), 0);
    assert_int_equal(find_size(8192, 16384, 0), 0);
    assert_int_equal(find_size(8192, 8191, 0), -ENOSPC);
    assert_int_equal(find_size(8192, 8191, 4096), 0);
    assert_int_equal(find_size(8192, 4096, 4096), 0);
    assert_int_equal(find_size(8192, 4095, 4096), -ENOSPC);
}

/* ---- A request that nobody survives ----------------------------------------------------------- */

static bool is_done(void *opaque)
{
    return *(const unsigned *)opaque > 0;
}

/* Whoever serves it dies of it. The others get done, and then it is given up. */
static void test_poison(void **state)
{
    struct trip trip;
    struct fake *fake = &trip.desk.fake;

    (void)state;
    trip_start(&trip, READS);
    while (trip.req[0].done == 0) {
        fake_pass_time(fake, is_done, &trip.req[0].done);
        if (fake->pending_count == 0)
            break;
        if (fake->pending[0].kind == FAKE_REQ && fake->pending[0].req->offset == 0)
            fake_fail(fake, 0, ECONNRESET, BLK_LOST, false);
        else
            fake_complete(fake, 0);
        fake_settle(fake);
        /* They are lost with it each time it comes first; let them. */
        trip.desk.events[0] = '\0';
        trip.desk.disk.log[0] = '\0';
        if (fake->pending_count == READS) { /* all of them again: it comes last now */
            while (fake->pending_count > 1)
                fake_complete(fake, 1);
            fake_settle(fake);
        }
    }
    assert_int_equal(trip.req[0].req.status, -ETIMEDOUT);
    desk_check_text(trip.req[0].req.error.text,
                    "reading fake:d at offset 0: given up after 10:00 without progress: " SAYS_NO);
    for (unsigned i = 1; i < READS; i++)
        assert_int_equal(trip.req[i].req.status, 0);
    desk_release(&trip.desk);
}

/* ---- Cancelled, closed, hurried --------------------------------------------------------------- */

enum place { HERE, DRAINING, PAUSING, RECOVERING, GONE, PLACES };

/* Four READs, of which one waits in the middle. */
static void bring(struct trip *trip, enum place place)
{
    trip_start(trip, 3);
    if (place == HERE) {
        fake_fail(&trip->desk.fake, 0, EIO, BLK_REPEAT, false);
        return;
    }
    fake_disk_lose(&trip->desk.disk, false);
    desk_one(&trip->desk);
    if (place == DRAINING)
        return;
    desk_one(&trip->desk);
    desk_one(&trip->desk);
    desk_check_pending(&trip->desk, "r");
    if (place == PAUSING)
        fake_fail(&trip->desk.fake, 0, EIO, BLK_LOST, false);
    if (place == GONE) {
        trip->desk.disk.other = true;
        desk_one(&trip->desk);
    }
}

static void test_cancel(void **state)
{
    (void)state;
    for (int place = 0; place < PLACES; place++) {
        struct trip trip;
        struct desk_req req;

        bring(&trip, (enum place)place);
        blk_cancel_all(trip.desk.dev);
        fake_finish(&trip.desk.fake);
        if (place == GONE)
            trip_check(&trip, -ESTALE, "it is another one");
        else
            trip_check(&trip, -ECANCELED, "cancelled");
        assert_int_equal(desk_do(&trip.desk, &req, BLK_FLUSH, 0, 0, NULL, 0), -ECANCELED);
        desk_advance(&trip.desk, 3600 * SECOND);
        desk_check_pending(&trip.desk, "");
        desk_release(&trip.desk);
    }
}

/* Twice is once; and what was there is closed at once. */
static void test_cancel_and_close(void **state)
{
    (void)state;
    for (int place = 0; place < PLACES; place++) {
        struct trip trip;
        struct desk_task task;
        unsigned done = 0;

        bring(&trip, (enum place)place);
        blk_cancel_all(trip.desk.dev);
        blk_cancel_all(trip.desk.dev);
        for (unsigned i = 0; i < READS && done < READS; i++)
            done += trip.req[i].done;
        while (trip.desk.fake.pending_count > 0 && trip.desk.fake.pending[0].kind == FAKE_REQ)
            desk_one(&trip.desk);
        fake_settle(&trip.desk.fake);
        for (unsigned i = 0; i < READS; i++)
            assert_int_equal(trip.req[i].done, 1);
        blk_close(trip.desk.dev, desk_task(&task)); /* perhaps while it still looks */
        fake_finish(&trip.desk.fake);
        assert_int_equal(task.done, 1);
        trip.desk.dev = NULL;
        desk_release(&trip.desk);
    }
}

/* From now on nothing is repeated, but what the driver has may still be answered. */
static void test_hurry(void **state)
{
    (void)state;
    for (int place = 0; place < GONE; place++) {
        struct trip trip;

        bring(&trip, (enum place)place);
        blk_hurry(trip.desk.dev, 0);
        fake_settle(&trip.desk.fake);
        if (place == HERE) {
            desk_check_pending(&trip.desk, "RRR"); /* the last got its place */
            fake_finish(&trip.desk.fake);
            assert_int_equal(trip.req[0].req.status, -ECANCELED);
            for (unsigned i = 1; i < READS; i++)
                assert_int_equal(trip.req[i].req.status, 0);
        } else {
            fake_finish(&trip.desk.fake);
            for (unsigned i = 0; i < READS; i++) {
                assert_int_equal(trip.req[i].done, 1);
                assert_true(trip.req[i].req.status < 0);
            }
        }
        desk_advance(&trip.desk, 3600 * SECOND);
        desk_check_pending(&trip.desk, "");
        desk_release(&trip.desk);
    }
}

/* ---- Depth ------------------------------------------------------------------------------------ */

/* What is kept has a place at the driver: one that is too busy gets fewer requests. */
static void test_depth(void **state)
{
    struct trip trip;

    (void)state;
    trip_start(&trip, 2);
    desk_check_pending(&trip.desk, "RR");
    fake_fail(&trip.desk.fake, 0, EBUSY, BLK_REPEAT, false);
    desk_check_pending(&trip.desk, "R");
    fake_fail(&trip.desk.fake, 0, EBUSY, BLK_REPEAT, false);
    desk_check_pending(&trip.desk, "");
    desk_advance(&trip.desk, 50 * MS);
    desk_check_pending(&trip.desk, "RR");
    desk_one(&trip.desk);
    desk_check_pending(&trip.desk, "RR");
    fake_finish(&trip.desk.fake);
    trip_check(&trip, 0, NULL);
    desk_release(&trip.desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_many_attempts),
        cmocka_unit_test(test_another_thing),
        cmocka_unit_test(test_another_thing_in_pieces),
        cmocka_unit_test(test_gone_with_some_at_the_driver),
        cmocka_unit_test(test_another_size),
        cmocka_unit_test(test_poison),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_and_close),
        cmocka_unit_test(test_hurry),
        cmocka_unit_test(test_depth),
    };

    return cmocka_run_group_tests_name("recover", tests, NULL, NULL);
}
