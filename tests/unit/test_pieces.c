/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests whose answers are no success, or lost: each piece of them is repeated as it was. */
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

static const enum blk_retry kinds[] = {BLK_AGAIN, BLK_REPEAT, BLK_RECHECK, BLK_LOST};

static void fill(unsigned char *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (unsigned char)((i + 1) * 31 + seed);
}

/* ---- Every piece, every answer ---------------------------------------------------------------- */

/* A request, and the device that it is for. */
struct wish {
    uint32_t align, mem_align, max_read, max_write;
    uint64_t max_zero;
    unsigned caps;
    enum blk_op op;
    unsigned flags;
    uint64_t offset, len;
};

static const struct wish wishes[] = {
    {1, 1, 4096, 4096, 1, 0, BLK_READ, 0, 100, 4000},
    {512, 1, 1024, 1024, 1, 0, BLK_READ, 0, 100, 3000},
    {512, 512, 1024, 1024, 1, 0, BLK_READ, 0, 512, 2048}, /* by a bounce buffer */
    {1, 1, 4096, 4096, 1, 0, BLK_WRITE, 0, 100, 4000},
    {512, 1, 1024, 1024, 1, 0, BLK_WRITE, 0, 100, 3000}, /* two blocks are read and changed */
    {512, 512, 1024, 1024, 1, 0, BLK_WRITE, 0, 512, 2048},
    {512, 1, 1024, 1024, 1, 0, BLK_WRITE, BLK_FUA, 512, 2048}, /* with a FLUSH */
    {512, 1, 1024, 1024, 1, BLK_CAN_FUA, BLK_WRITE, BLK_FUA, 600, 2048},
    {512, 1, 1024, 1024, 1024, BLK_CAN_ZERO, BLK_ZERO, 0, 100, 3000},
    {512, 1, 1024, 1024, 1, 0, BLK_ZERO, BLK_FUA, 0, 3000}, /* zeros are written */
    {1, 1, 4096, 4096, 1, 0, BLK_FLUSH, 0, 0, 0},
    {1, 1, 4096, 4096, 1, BLK_CAN_EXTENTS, BLK_EXTENTS, 0, 0, 4096},
};

#define WISH_SIZE 8192

struct grant {
    struct desk desk;
    struct desk_req req;
    struct blk_extent extent;
    struct blk_extents extents;
    unsigned char buf[WISH_SIZE + 1], expected[WISH_SIZE];
};

static void grant_start(struct grant *grant, const struct wish *wish)
{
    struct desk *desk = &grant->desk;

    desk_init(desk, WISH_SIZE);
    desk_repeat(desk);
    desk->disk.limits = (struct blk_limits){.align = wish->align,
                                            .mem_align = wish->mem_align,
                                            .max_read = wish->max_read,
                                            .max_write = wish->max_write,
                                            .max_zero = wish->max_zero,
                                            .max_depth = 3};
    desk->disk.caps = wish->caps;
    desk_open(desk, true);
    memcpy(grant->expected, desk->disk.written, WISH_SIZE);
    fill(grant->buf, sizeof(grant->buf), 9);
    if (wish->op == BLK_WRITE)
        memcpy(grant->expected + wish->offset, grant->buf + 1, wish->len);
    if (wish->op == BLK_ZERO)
        memset(grant->expected + wish->offset, 0, wish->len);
    desk_prepare(desk, &grant->req, wish->op, wish->flags, wish->offset, grant->buf + 1, wish->len);
    grant->extents = (struct blk_extents){.list = &grant->extent, .capacity = 1};
    grant->req.req.extents = &grant->extents;
    blk_submit(desk->dev, &grant->req.req);
}

/* It has come true in spite of all. */
static void grant_check(struct grant *grant, const struct wish *wish)
{
    struct desk *desk = &grant->desk;

    desk_until(desk, &grant->req.done);
    if (grant->req.req.status != 0)
        fail_msg("%s", grant->req.req.error.text);
    assert_int_equal(grant->req.req.error.code, 0);
    assert_memory_equal(desk->disk.written, grant->expected, WISH_SIZE);
    if (wish->flags & BLK_FUA) {
        assert_true(grant->req.req.durable);
        assert_memory_equal(desk->disk.durable, grant->expected, WISH_SIZE);
    }
    if (wish->op == BLK_READ) {
        assert_int_equal(grant->req.req.got, wish->len);
        assert_memory_equal(grant->buf + 1, grant->expected + wish->offset, wish->len);
    } else if (wish->op == BLK_EXTENTS) {
        assert_int_equal(grant->extents.count, 1);
        assert_int_equal(grant->extent.len, wish->len);
    }
    if (wish->op == BLK_WRITE || wish->op == BLK_ZERO || wish->op == BLK_FLUSH)
        assert_int_equal(grant->req.req.epoch, FAKE_FIRST_EPOCH);
    desk_release(desk);
}

/* Each operation fails once. */
static void test_every_piece(void **state)
{
    unsigned hits = 0;

    (void)state;
    for (size_t i = 0; i < COUNT(wishes); i++) {
        for (size_t kind = 0; kind < 2 * COUNT(kinds); kind++) {
            bool hit = true;

            for (unsigned number = 2; hit; number++) {
                struct grant grant;

                grant_start(&grant, &wishes[i]);
                grant.desk.fake.fault = (struct fake_fault){
                    .number = number, .code = EIO, .retry = kinds[kind / 2], .applies = kind % 2};
                grant_check(&grant, &wishes[i]);
                hit = atomic_load(&grant.desk.fake.fault_hit);
                hits += hit;
            }
        }
    }
    assert_true(hits > 200);
}

/* The session is lost before each completion, with more or less under way. */
static void test_every_moment(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(wishes); i++) {
        for (int applies = 0; applies < 2; applies++) {
            bool hit = true;

            for (unsigned when = 0; hit; when++) {
                struct grant grant;
                unsigned completed = 0;

                grant_start(&grant, &wishes[i]);
                fake_settle(&grant.desk.fake);
                hit = false;
                while (grant.desk.fake.pending_count > 0) {
                    if (completed++ == when) {
                        fake_disk_lose(&grant.desk.disk, applies);
                        hit = true;
                    }
                    /* The newest first, for a change. */
                    fake_complete(&grant.desk.fake, grant.desk.fake.pending_count - 1);
                    fake_settle(&grant.desk.fake);
                }
                grant_check(&grant, &wishes[i]);
            }
        }
    }
}

/* Where one piece has failed for good, the others are not worth repeating. */
static void test_failed_already(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < COUNT(kinds); kind++) {
        unsigned char buf[1024];
        struct desk_req req;
        struct desk desk;

        desk_init(&desk, 4096);
        desk_repeat(&desk);
        desk.disk.limits.max_read = 512;
        desk_open(&desk, true);
        desk_submit(&desk, &req, BLK_READ, 0, 0, buf, sizeof(buf));
        fake_settle(&desk.fake);
        fake_fail(&desk.fake, 0, EACCES, BLK_FATAL, false);
        assert_int_equal(req.done, 0);
        fake_fail(&desk.fake, 0, EIO, kinds[kind], false);
        assert_int_equal(req.done, 1);
        assert_int_equal(req.req.status, -EACCES);
        desk_check_events(&desk, "");
        desk_release(&desk);
    }
}

/* Nothing is repeated where that was not asked for, whatever it is. */
static void test_nothing_is_repeated(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < COUNT(kinds); kind++) {
        unsigned char buf[512];
        struct desk_req req;
        struct desk desk;

        desk_init(&desk, 4096);
        desk_open(&desk, true);
        desk_submit(&desk, &req, BLK_READ, 0, 0, buf, sizeof(buf));
        fake_settle(&desk.fake);
        fake_fail(&desk.fake, 0, EIO, kinds[kind], false);
        assert_int_equal(req.done, 1);
        assert_int_equal(req.req.status, -EIO);
        assert_int_equal(req.req.error.retry, kinds[kind]);
        assert_string_equal(req.req.error.text, "reading fake:d at offset 0: " SAYS_NO);
        desk_check_events(&desk, "");
        desk_check_pending(&desk, "");
        desk_release(&desk);
    }
}

/* ---- FUA by a FLUSH --------------------------------------------------------------------------- */

/* The FLUSH comes back with another epoch: written and flushed anew, so many times. */
static int restarted(unsigned times)
{
    unsigned char buf[1024], zeros[1024] = {0};
    struct desk_req req;
    struct desk desk;
    int status;

    fill(buf, sizeof(buf), 3);
    desk_init(&desk, 4096);
    desk_repeat(&desk);
    desk.disk.limits.max_write = 512;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_WRITE, BLK_FUA, 0, buf, sizeof(buf));
    for (unsigned i = 0; i < times && req.done == 0; i++) {
        desk_check_pending(&desk, "WW");
        desk_one(&desk);
        desk_one(&desk);
        desk_check_pending(&desk, "F");
        fake_disk_restart(&desk.disk);
        memcpy(desk.disk.written, zeros, sizeof(zeros));
        desk_one(&desk);
        if (req.done == 0)
            desk_check_events(&desk, "REPEATED the server restarted between the write and its "
                                     "flush; the data may be lost\n");
    }
    desk_until(&desk, &req.done);
    status = req.req.status;
    if (status == 0) {
        assert_true(req.req.durable);
        assert_int_equal(req.req.epoch, FAKE_FIRST_EPOCH + times);
        assert_memory_equal(desk.disk.durable, buf, sizeof(buf));
    } else {
        desk_check_text(req.req.error.text, "writing fake:d at offset 0: the server restarted");
        assert_false(req.req.durable);
    }
    desk_release(&desk);
    return status;
}

static void test_fua_through_restarts(void **state)
{
    (void)state;
    assert_int_equal(restarted(0), 0);
    assert_int_equal(restarted(1), 0);
    assert_int_equal(restarted(10), 0);
    assert_int_equal(restarted(11), -EIO);
}

/* Pieces of one request that were written in different epochs. */
static void test_fua_of_two_epochs(void **state)
{
    unsigned char buf[1024];
    struct desk_req req;
    struct desk desk;

    (void)state;
    fill(buf, sizeof(buf), 3);
    desk_init(&desk, 4096);
    desk_repeat(&desk);
    desk.disk.limits.max_write = 512;
    desk.disk.epoch_of_session = true;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_WRITE, BLK_FUA, 0, buf, sizeof(buf));
    fake_settle(&desk.fake);
    desk_one(&desk);
    fake_disk_lose(&desk.disk, true);
    fake_disk_restart(&desk.disk);
    desk_until(&desk, &req.done);
    assert_int_equal(req.req.status, 0);
    assert_memory_equal(desk.disk.durable, buf, sizeof(buf));
    desk_check_log(&desk, "WRITE 0+512\nWRITE 512+512\nWRITE 512+512\nFLUSH\n"
                          "WRITE 0+512\nWRITE 512+512\nFLUSH\n");
    desk_release(&desk);
}

/* Not when nothing is to be repeated any more. */
static void test_fua_and_hurry(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        unsigned char buf[512] = {0};
        struct desk_req req;
        struct desk desk;

        desk_init(&desk, 4096);
        desk_repeat(&desk);
        desk_open(&desk, true);
        desk_submit(&desk, &req, BLK_WRITE, BLK_FUA, 0, buf, sizeof(buf));
        fake_settle(&desk.fake);
        desk_one(&desk);
        desk_check_pending(&desk, "F");
        blk_hurry(desk.dev, 0);
        if (how == 0)
            fake_fail(&desk.fake, 0, EBUSY, BLK_REPEAT, false);
        else {
            fake_disk_restart(&desk.disk);
            desk_one(&desk);
        }
        desk_check_pending(&desk, "");
        assert_int_equal(req.done, 1);
        assert_int_equal(req.req.status, how == 0 ? -EBUSY : -EIO);
        desk_release(&desk);
    }
}

/* ---- Tries ----------------------------------------------------------------------------------- */

/* Each try is counted for its own request, and a new request begins with none. */
static void test_tries(void **state)
{
    unsigned char buf[512];
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk_repeat(&desk);
    desk_open(&desk, true);
    for (unsigned round = 0; round < 2; round++) {
        desk_submit(&desk, &req, BLK_READ, 0, 0, buf, sizeof(buf));
        for (unsigned i = 0; i < 5; i++) {
            desk_check_pending(&desk, "R");
            fake_fail(&desk.fake, 0, EBUSY, BLK_REPEAT, false);
            desk_advance(&desk, ((50 * MS) << i) / 2 - 1);
            desk_check_pending(&desk, "");
            desk_advance(&desk, ((50 * MS) << i) / 2 + 1);
        }
        desk_until(&desk, &req.done);
        assert_int_equal(req.req.status, 0);
    }
    desk_release(&desk);
}

/* ---- Blocks that are changed ------------------------------------------------------------------ */

/* Two requests change one block; the session is lost between any two steps. Neither undoes the
 * other. */
static void test_shared_block(void **state)
{
    bool hit = true;

    (void)state;
    for (unsigned when = 0; hit; when++) {
        unsigned char buf[2][100], expected[512];
        struct desk_req req[2];
        struct desk desk;
        unsigned completed = 0;

        desk_init(&desk, 4096);
        desk_repeat(&desk);
        desk.disk.limits.align = 512;
        desk_open(&desk, true);
        memcpy(expected, desk.disk.written, 512);
        for (unsigned i = 0; i < 2; i++) {
            fill(buf[i], 100, i + 1);
            memcpy(expected + i * 200, buf[i], 100);
            desk_submit(&desk, &req[i], BLK_WRITE, 0, i * 200, buf[i], 100);
        }
        hit = false;
        fake_settle(&desk.fake);
        while (desk.fake.pending_count > 0) {
            if (completed++ == when) {
                hit = true;
                fake_disk_lose(&desk.disk, when % 2);
            }
            desk_one(&desk);
        }
        desk_until(&desk, &req[0].done);
        desk_until(&desk, &req[1].done);
        assert_int_equal(req[0].req.status, 0);
        assert_int_equal(req[1].req.status, 0);
        assert_memory_equal(desk.disk.written, expected, 512);
        desk_release(&desk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_piece),          cmocka_unit_test(test_every_moment),
        cmocka_unit_test(test_failed_already),       cmocka_unit_test(test_nothing_is_repeated),
        cmocka_unit_test(test_fua_through_restarts), cmocka_unit_test(test_fua_of_two_epochs),
        cmocka_unit_test(test_fua_and_hurry),        cmocka_unit_test(test_tries),
        cmocka_unit_test(test_shared_block),
    };

    return cmocka_run_group_tests_name("pieces", tests, NULL, NULL);
}
