/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the middle makes of a request: cuts, whole blocks, zeros, flushes. What a driver is given is
 * compared as a whole list. */
#include "desk.h"
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void fill(unsigned char *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (unsigned char)((i + 1) * 31 + seed);
}

/* ---- Cuts ------------------------------------------------------------------------------------- */

struct cut_case {
    uint64_t size;
    uint32_t align, max_read, max_write;
    uint64_t max_zero;
    unsigned caps;
    enum blk_op op;
    unsigned flags;
    uint64_t offset, len;
    const char *log; /* with the oldest completing first */
};

static const struct cut_case cut_cases[] = {
    /* As it is. */
    {20000, 1, 4096, 4096, 1, 0, BLK_READ, 0, 0, 4096, "READ 0+4096\n"},
    {20000, 1, 4096, 4096, 1, 0, BLK_WRITE, 0, 100, 300, "WRITE 100+300\n"},
    {20000, 1, 4096, 4096, 1, 0, BLK_FLUSH, 0, 0, 0, "FLUSH\n"},
    /* As few as they can be, wherever it begins. */
    {20000, 1, 4096, 1024, 1, 0, BLK_READ, 0, 1000, 4096, "READ 1000+4096\n"},
    {20000, 1, 4096, 1024, 1, 0, BLK_READ, 0, 1000, 8000, "READ 1000+4096\nREAD 5096+3904\n"},
    {20000, 1, 4096, 1024, 1, 0, BLK_WRITE, 0, 1000, 2048, "WRITE 1000+1024\nWRITE 2024+1024\n"},
    {20000, 512, 1536, 4096, 1, 0, BLK_READ, 0, 512, 4096,
     "READ 512+1536\nREAD 2048+1536\nREAD 3584+1024\n"},
    /* Parts of blocks are read as whole ones. */
    {20000, 512, 4096, 4096, 1, 0, BLK_READ, 0, 100, 1000,
     "READ 0+512\nREAD 512+512\nREAD 1024+512\n"},
    {20000, 512, 4096, 4096, 1, 0, BLK_READ, 0, 600, 10, "READ 512+512\n"},
    {20000, 512, 4096, 4096, 1, 0, BLK_READ, 0, 511, 2, "READ 0+512\nREAD 512+512\n"},
    /* And written after having been read, one at a time. */
    {20000, 512, 4096, 4096, 1, 0, BLK_WRITE, 0, 600, 10, "READ 512+512\nWRITE 512+512\n"},
    {20000, 512, 4096, 4096, 1, 0, BLK_WRITE, 0, 100, 1000,
     "READ 0+512\nWRITE 512+512\nWRITE 0+512\nREAD 1024+512\nWRITE 1024+512\n"},
    {20000, 512, 4096, 4096, 1, 0, BLK_WRITE, 0, 512, 1000,
     "WRITE 512+512\nREAD 1024+512\nWRITE 1024+512\n"},
    /* The last block may be a short one. */
    {1000, 512, 4096, 4096, 1, 0, BLK_READ, 0, 990, 10, "READ 512+488\n"},
    {1000, 512, 4096, 4096, 1, 0, BLK_READ, 0, 0, 1000, "READ 0+1000\n"},
    {1000, 512, 4096, 4096, 1, 0, BLK_WRITE, 0, 512, 488, "WRITE 512+488\n"},
    {1000, 512, 4096, 4096, 1, 0, BLK_WRITE, 0, 0, 1000, "WRITE 0+1000\n"},
    {1000, 512, 4096, 4096, 1, 0, BLK_WRITE, 0, 512, 487, "READ 512+488\nWRITE 512+488\n"},
    {1000, 512, 4096, 4096, 1, 0, BLK_WRITE, 0, 600, 400, "READ 512+488\nWRITE 512+488\n"},
    {100, 512, 4096, 4096, 1, 0, BLK_WRITE, 0, 0, 100, "WRITE 0+100\n"},
    {100, 512, 4096, 4096, 1, 0, BLK_WRITE, 0, 1, 99, "READ 0+100\nWRITE 0+100\n"},
    /* Zeros, by the cheapest means. */
    {20000, 512, 4096, 4096, 8192, BLK_CAN_ZERO, BLK_ZERO, BLK_MAY_UNMAP, 0, 16384,
     "ZERO 0+8192\nZERO 8192+8192\n"},
    {20000, 512, 4096, 4096, 8192, BLK_CAN_ZERO | BLK_CAN_UNMAP, BLK_ZERO, BLK_MAY_UNMAP, 0, 16384,
     "ZERO 0+8192 UNMAP\nZERO 8192+8192 UNMAP\n"},
    {20000, 512, 4096, 4096, 8192, 0, BLK_ZERO, BLK_MAY_UNMAP, 0, 8192,
     "WRITE 0+4096\nWRITE 4096+4096\n"},
    {20000, 512, 4096, 4096, 8192, BLK_CAN_ZERO, BLK_ZERO, 0, 100, 1000,
     "READ 0+512\nZERO 512+512\nWRITE 0+512\nREAD 1024+512\nWRITE 1024+512\n"},
    /* Durable when done: by the flag, or by a FLUSH after all of it. */
    {20000, 1, 4096, 4096, 1, BLK_CAN_FUA, BLK_WRITE, BLK_FUA, 0, 8192,
     "WRITE 0+4096 FUA\nWRITE 4096+4096 FUA\n"},
    {20000, 1, 4096, 4096, 1, 0, BLK_WRITE, BLK_FUA, 0, 8192,
     "WRITE 0+4096\nWRITE 4096+4096\nFLUSH\n"},
    {20000, 512, 4096, 4096, 1, 0, BLK_WRITE, BLK_FUA, 5, 10, "READ 0+512\nWRITE 0+512\nFLUSH\n"},
    {20000, 1, 4096, 4096, 4096, BLK_CAN_ZERO, BLK_ZERO, BLK_FUA, 0, 4096, "ZERO 0+4096\nFLUSH\n"},
    {20000, 1, 4096, 4096, 4096, BLK_CAN_ZERO | BLK_CAN_FUA, BLK_ZERO, BLK_FUA, 0, 4096,
     "ZERO 0+4096\nFLUSH\n"},
};

/* What the request is to do, done by hand. */
static void apply(unsigned char *bytes, const struct cut_case *c, const unsigned char *buf)
{
    if (c->op == BLK_WRITE)
        memcpy(bytes + c->offset, buf, c->len);
    else if (c->op == BLK_ZERO)
        memset(bytes + c->offset, 0, c->len);
}

static void check_cut(const struct cut_case *c)
{
    unsigned char buf[20000], expected[20000];
    struct desk_req req;
    struct desk desk;

    desk_init(&desk, c->size);
    desk.disk.limits.align = c->align;
    desk.disk.limits.max_read = c->max_read;
    desk.disk.limits.max_write = c->max_write;
    desk.disk.limits.max_zero = c->max_zero;
    desk.disk.caps = c->caps;
    desk_open(&desk, true);
    memcpy(expected, desk.disk.written, c->size);
    fill(buf, c->len, 9);
    apply(expected, c, buf);
    assert_int_equal(desk_do(&desk, &req, c->op, c->flags, c->offset, buf, c->len), 0);
    desk_check_log(&desk, c->log);
    assert_memory_equal(desk.disk.written, expected, c->size);
    if (c->op == BLK_READ) {
        assert_int_equal(req.req.got, c->len);
        assert_memory_equal(buf, expected + c->offset, c->len);
    } else {
        assert_int_equal(req.req.epoch, FAKE_FIRST_EPOCH);
    }
    assert_int_equal(req.req.durable, (c->flags & BLK_FUA) != 0);
    if (c->flags & BLK_FUA)
        assert_memory_equal(desk.disk.durable, expected, c->size);
    desk_release(&desk);
}

static void test_cuts(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cut_cases); i++)
        check_cut(&cut_cases[i]);
}

/* A device that makes every write durable needs no FLUSH for FUA. */
static void test_fua_on_write_through(void **state)
{
    unsigned char buf[4096] = {1};
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 8192);
    desk.disk.write_through = true;
    desk_open(&desk, true);
    assert_int_equal(desk_do(&desk, &req, BLK_WRITE, BLK_FUA, 0, buf, 4096), 0);
    assert_true(req.req.durable);
    assert_int_equal(desk_do(&desk, &req, BLK_WRITE, 0, 0, buf, 4096), 0);
    assert_true(req.req.durable);
    desk_check_log(&desk, "WRITE 0+4096\nWRITE 0+4096\n");
    desk_release(&desk);
}

/* ---- Against a model -------------------------------------------------------------------------- */

/* Requests side by side that share blocks, but no bytes, under some order of completion. */
static void round_of_requests(struct desk *desk, struct odometer *odometer, unsigned char *model,
                              unsigned round)
{
    static struct desk_req reqs[8];
    static unsigned char bufs[8][2048];
    uint64_t at = round % 700, len[8], offset[8];

    for (unsigned i = 0; i < 8; i++) {
        enum blk_op op = (enum blk_op)((round / 3 + i) % 3);

        offset[i] = at + (round * (i + 1)) % 3 * 7;
        len[i] = 1 + (round * 131 + i * 977) % 1500;
        at = offset[i] + len[i];
        fill(bufs[i], len[i], round + i);
        if (op == BLK_WRITE)
            memcpy(model + offset[i], bufs[i], len[i]);
        else if (op == BLK_ZERO)
            memset(model + offset[i], 0, len[i]);
        desk_submit(desk, &reqs[i], op, 0, offset[i], bufs[i] + (op == BLK_READ ? 1 : 0), len[i]);
    }
    for (fake_settle(&desk->fake); desk->fake.pending_count > 0; fake_settle(&desk->fake))
        fake_complete(&desk->fake, odometer_choose(odometer, desk->fake.pending_count));
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(reqs[i].done, 1);
        assert_int_equal(reqs[i].req.status, 0);
        if (reqs[i].req.op == BLK_READ)
            assert_memory_equal(reqs[i].iov.iov_base, model + offset[i], len[i]);
    }
    assert_memory_equal(desk->disk.written, model, desk->disk.size);
}

/* Limits that a driver may have: blocks, memory alignment, native zeros or not. */
static void test_model(void **state)
{
    static const struct {
        uint32_t align, mem_align, max;
        unsigned depth, caps;
    } drivers[] = {
        {1, 1, 1000, 4, 0},
        {512, 1, 512, 1, BLK_CAN_ZERO},
        {512, 512, 1024, 3, 0},
        {4096, 4096, 4096, 64, BLK_CAN_ZERO},
    };
    static unsigned char model[16000];

    (void)state;
    for (size_t i = 0; i < COUNT(drivers); i++) {
        struct odometer odometer = {.sample = 300};
        struct desk desk;
        unsigned round = 0;

        desk_init(&desk, sizeof(model));
        desk.disk.limits.align = drivers[i].align;
        desk.disk.limits.mem_align = drivers[i].mem_align;
        desk.disk.limits.max_read = desk.disk.limits.max_write = drivers[i].max;
        desk.disk.limits.max_zero = drivers[i].max;
        desk.disk.limits.max_depth = drivers[i].depth;
        desk.disk.caps = drivers[i].caps;
        desk.disk.logging = false;
        desk_open(&desk, true);
        memcpy(model, desk.disk.written, sizeof(model));
        do
            round_of_requests(&desk, &odometer, model, round++);
        while (odometer_next(&odometer));
        desk_release(&desk);
    }
}

/* Two writes that share a block, under every order: both survive. */
static void test_shared_block(void **state)
{
    struct odometer odometer = {0};
    unsigned orders = 0;

    (void)state;
    do {
        unsigned char expected[8192], left[2460], right[1640];
        struct desk_req a, b;
        struct desk desk;

        desk_init(&desk, sizeof(expected));
        desk.disk.limits.align = 1024;
        desk_open(&desk, true);
        memcpy(expected, desk.disk.written, sizeof(expected));
        memset(left, 0xaa, sizeof(left));
        memset(right, 0xbb, sizeof(right));
        memcpy(expected + 100, left, sizeof(left)); /* to 2560, within the third block */
        memcpy(expected + 2560, right, sizeof(right));
        desk_submit(&desk, &a, BLK_WRITE, 0, 100, left, sizeof(left));
        desk_submit(&desk, &b, BLK_WRITE, 0, 2560, right, sizeof(right));
        for (fake_settle(&desk.fake); desk.fake.pending_count > 0; fake_settle(&desk.fake))
            fake_complete(&desk.fake, odometer_choose(&odometer, desk.fake.pending_count));
        assert_int_equal(a.req.status, 0);
        assert_int_equal(b.req.status, 0);
        assert_memory_equal(desk.disk.written, expected, sizeof(expected));
        desk_release(&desk);
        orders++;
    } while (odometer_next(&odometer));
    assert_true(orders > 10);
}

/* ---- Buffers ---------------------------------------------------------------------------------- */

/* Several buffers, of odd lengths and at odd addresses, cut at other places than the request is. */
static void check_buffers(uint32_t mem_align, enum blk_op op)
{
    unsigned char bytes[5000] __attribute__((aligned(16)));
    const size_t lens[] = {1, 1022, 0, 3000, 77};
    struct iovec iov[COUNT(lens)], before[COUNT(lens)];
    struct desk_req req;
    struct desk desk;
    size_t at = 0;

    desk_init(&desk, 8192);
    desk.disk.limits.mem_align = mem_align;
    desk.disk.limits.max_read = desk.disk.limits.max_write = 512;
    desk_open(&desk, true);
    fill(bytes, sizeof(bytes), 3);
    for (size_t i = 0; i < COUNT(lens); i++) {
        iov[i] = (struct iovec){bytes + at + i, lens[i]};
        at += lens[i];
    }
    memcpy(before, iov, sizeof(iov));
    desk_prepare(&desk, &req, op, 0, 10, NULL, at);
    req.req.iov = iov;
    req.req.iovcnt = COUNT(lens);
    blk_submit(desk.dev, &req.req);
    fake_finish(&desk.fake);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, 0);
    at = 10;
    for (size_t i = 0; i < COUNT(lens); i++) {
        assert_memory_equal(iov[i].iov_base, desk.disk.written + at, lens[i]);
        at += lens[i];
    }
    assert_memory_equal(iov, before, sizeof(iov)); /* the caller's array is the caller's */
    desk_release(&desk);
}

static void test_buffers(void **state)
{
    (void)state;
    for (uint32_t mem_align = 1; mem_align <= 4096; mem_align *= 8) {
        check_buffers(mem_align, BLK_READ);
        check_buffers(mem_align, BLK_WRITE);
    }
}

/* What cannot be represented in one buffer of zeros: longer than the middle's own. */
static void test_long_zeros(void **state)
{
    struct desk_req req;
    struct desk desk;
    const uint64_t len = 200000;

    (void)state;
    desk_init(&desk, len + 4096);
    desk.disk.limits.mem_align = 4096;
    desk_open(&desk, true);
    assert_int_equal(desk_do(&desk, &req, BLK_ZERO, 0, 4096, NULL, len), 0);
    desk_check_log(&desk, "WRITE 4096+200000\n");
    for (uint64_t i = 0; i < len + 4096; i++)
        assert_int_equal(desk.disk.written[i] == 0, i >= 4096);
    desk_release(&desk);
}

/* ---- Epochs ----------------------------------------------------------------------------------- */

/* Completes the oldest piece. */
static void one(struct desk *desk)
{
    fake_complete(&desk->fake, 0);
    fake_settle(&desk->fake);
}

static void test_epochs_of_pieces(void **state)
{
    unsigned char buf[8192] = {0};
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 8192);
    desk.disk.limits.max_write = 4096;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_WRITE, 0, 0, buf, 8192);
    one(&desk);
    fake_disk_restart(&desk.disk);
    one(&desk);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, 0);
    assert_true(req.req.epoch == BLK_NO_EPOCH);
    assert_int_equal(desk_do(&desk, &req, BLK_WRITE, 0, 0, buf, 8192), 0);
    assert_true(req.req.epoch == FAKE_FIRST_EPOCH + 1);
    assert_int_equal(desk_do(&desk, &req, BLK_FLUSH, 0, 0, NULL, 0), 0);
    assert_true(req.req.epoch == FAKE_FIRST_EPOCH + 1);
    desk_release(&desk);
}

/* A request is durable when each of its pieces is. */
static void test_durable_pieces(void **state)
{
    (void)state;
    for (unsigned durable = 0; durable < 4; durable++) {
        unsigned char buf[8192] = {0};
        struct desk_req req;
        struct desk desk;

        desk_init(&desk, 8192);
        desk.disk.limits.max_write = 4096;
        desk_open(&desk, true);
        desk_submit(&desk, &req, BLK_WRITE, 0, 0, buf, 8192);
        desk.disk.write_through = durable & 1;
        one(&desk);
        desk.disk.write_through = durable & 2;
        one(&desk);
        assert_int_equal(req.done, 1);
        assert_int_equal(req.req.durable, durable == 3);
        desk_release(&desk);
    }
}

/* A FUA write in two pieces and a FLUSH: a restart before any of the three but the first. */
static void test_fua_through_a_restart(void **state)
{
    (void)state;
    for (int before = 0; before < 3; before++) {
        unsigned char buf[8192] = {0};
        struct desk_req req;
        struct desk desk;

        desk_init(&desk, 8192);
        desk.disk.limits.max_write = 4096;
        desk_open(&desk, true);
        desk_submit(&desk, &req, BLK_WRITE, BLK_FUA, 0, buf, 8192);
        for (int i = 0; i < 3; i++) {
            if (i == before)
                fake_disk_restart(&desk.disk);
            one(&desk);
        }
        assert_int_equal(req.done, 1);
        assert_int_equal(req.req.status, before == 0 ? 0 : -EIO);
        assert_int_equal(req.req.durable, before == 0);
        if (before > 0) {
            assert_string_equal(req.req.error.text,
                                "writing fake:d at offset 0: the server restarted between the "
                                "write and its flush; the data may be lost");
            assert_int_equal(req.req.error.retry, BLK_REPEAT);
        }
        desk_release(&desk);
    }
}

/* ---- Errors ----------------------------------------------------------------------------------- */

/* Completes the oldest piece with an error. */
static void one_fails(struct desk *desk, int code)
{
    desk->fake.fault = (struct fake_fault){.number = desk->fake.pending[0].number,
                                           .code = code,
                                           .bad_offset = desk->fake.fault.bad_offset};
    one(desk);
}

static void test_first_error_wins(void **state)
{
    unsigned char buf[16384];
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 16384);
    desk.disk.limits.max_read = 4096;
    desk.disk.limits.max_depth = 3;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_READ, 0, 0, buf, 16384);
    one_fails(&desk, ENOSPC);
    one_fails(&desk, EIO);
    assert_int_equal(req.done, 0); /* one is under way */
    one(&desk);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, -ENOSPC);
    assert_int_equal(req.req.error.code, ENOSPC);
    assert_string_equal(req.req.error.text, "reading fake:d at offset 0: the fake says no");
    /* Nothing new after an error. */
    desk_check_log(&desk, "READ 0+4096\nREAD 4096+4096\nREAD 8192+4096\n");
    desk_release(&desk);
}

static void test_where_the_medium_failed(void **state)
{
    unsigned char buf[8192];
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 8192);
    desk_open(&desk, false);
    desk_submit(&desk, &req, BLK_READ, 0, 1024, buf, 4096);
    desk.fake.fault.bad_offset = 3072;
    one_fails(&desk, EIO);
    assert_int_equal(req.req.bad_offset, 3072);
    assert_string_equal(req.req.error.text, "reading fake:d at offset 3072: the fake says no");
    desk.fake.fault.bad_offset = 0;
    desk_submit(&desk, &req, BLK_FLUSH, 0, 0, NULL, 0);
    one_fails(&desk, EIO);
    assert_true(req.req.bad_offset == BLK_NO_OFFSET);
    assert_string_equal(req.req.error.text, "flushing fake:d: the fake says no");
    desk_release(&desk);
}

/* Of a read-change-write: without the block nothing is written, and the next one has its turn. */
static void test_failed_change(void **state)
{
    unsigned char a[10] = {0}, b[10] = {0}, before[2048];
    struct desk_req first, second;
    struct desk desk;

    (void)state;
    desk_init(&desk, 2048);
    desk.disk.limits.align = 512;
    desk_open(&desk, true);
    memcpy(before, desk.disk.written, sizeof(before));
    desk_submit(&desk, &first, BLK_WRITE, 0, 5, a, 10);
    desk_submit(&desk, &second, BLK_ZERO, 0, 600, b, 10);
    one_fails(&desk, EIO);
    assert_int_equal(first.req.status, -EIO);
    assert_string_equal(first.req.error.text, "writing fake:d at offset 5: the fake says no");
    fake_finish(&desk.fake);
    assert_int_equal(second.req.status, 0);
    desk_check_log(&desk, "READ 0+512\nREAD 512+512\nWRITE 512+512\n");
    memset(before + 600, 0, 10);
    assert_memory_equal(desk.disk.written, before, sizeof(before));
    desk_submit(&desk, &first, BLK_ZERO, 0, 5, NULL, 10);
    one(&desk);
    one_fails(&desk, ENOSPC);
    assert_int_equal(first.req.status, -ENOSPC);
    assert_string_equal(first.req.error.text, "zeroing fake:d at offset 5: the fake says no");
    assert_int_equal(desk_do(&desk, &second, BLK_ZERO, 0, 600, NULL, 10), 0);
    desk_release(&desk);
}

static void test_failed_flush_for_fua(void **state)
{
    unsigned char buf[512] = {0};
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 2048);
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_WRITE, BLK_FUA, 512, buf, 512);
    one(&desk);
    one_fails(&desk, EIO);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, -EIO);
    assert_false(req.req.durable);
    assert_string_equal(req.req.error.text, "writing fake:d at offset 512: the fake says no");
    desk_release(&desk);
}

/* The end of a stream: less than what was asked for. */
static void test_short_read(void **state)
{
    unsigned char buf[8192];
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 8192);
    desk.disk.limits.max_read = 4096;
    desk.disk.limits.mem_align = 4096; /* through a buffer of the middle's own, too */
    desk_open(&desk, false);
    desk_submit(&desk, &req, BLK_READ, 0, 0, buf, 8192);
    one(&desk);
    one_fails(&desk, 0);
    assert_int_equal(req.req.status, 0);
    assert_int_equal(req.req.got, 8191);
    assert_memory_equal(buf, desk.disk.written, 8191);
    desk_release(&desk);
}

/* Not longer than was asked for, nor than the driver takes; and not less than a block. */
static void test_caps(void **state)
{
    static const struct {
        uint32_t read, write;
        const char *log;
    } cases[] = {
        {0, 0, "READ 0+4096\nREAD 4096+4096\nWRITE 0+4096\nWRITE 4096+4096\n"},
        {65536, 65536, "READ 0+4096\nREAD 4096+4096\nWRITE 0+4096\nWRITE 4096+4096\n"},
        {3000, 0,
         "READ 0+2560\nREAD 2560+2560\nREAD 5120+2560\nREAD 7680+512\nWRITE 0+4096\n"
         "WRITE 4096+4096\n"},
        {0, 2048,
         "READ 0+4096\nREAD 4096+4096\nWRITE 0+2048\nWRITE 2048+2048\nWRITE 4096+2048\n"
         "WRITE 6144+2048\n"},
    };
    unsigned char buf[8192];
    struct desk_req req;

    (void)state;
    fill(buf, sizeof(buf), 3);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct desk desk;

        desk_init(&desk, 20000);
        desk.disk.limits.align = 512;
        desk.disk.limits.max_read = desk.disk.limits.max_write = 4096;
        desk_open(&desk, true);
        blk_cap(desk.dev, cases[i].read, cases[i].write);
        assert_int_equal(desk_do(&desk, &req, BLK_READ, 0, 0, buf, 8192), 0);
        assert_int_equal(desk_do(&desk, &req, BLK_WRITE, 0, 0, buf, 8192), 0);
        desk_check_log(&desk, cases[i].log);
        blk_cap(desk.dev, 1, 1);
        assert_int_equal(desk_do(&desk, &req, BLK_ZERO, 0, 0, NULL, 1024), 0);
        desk_check_log(&desk, "WRITE 0+512\nWRITE 512+512\n");
        desk_release(&desk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_fua_on_write_through),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_shared_block),
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_long_zeros),
        cmocka_unit_test(test_epochs_of_pieces),
        cmocka_unit_test(test_durable_pieces),
        cmocka_unit_test(test_fua_through_a_restart),
        cmocka_unit_test(test_first_error_wins),
        cmocka_unit_test(test_where_the_medium_failed),
        cmocka_unit_test(test_failed_change),
        cmocka_unit_test(test_failed_flush_for_fua),
        cmocka_unit_test(test_short_read),
        cmocka_unit_test(test_caps),
    };

    return cmocka_run_group_tests_name("middle", tests, NULL, NULL);
}
