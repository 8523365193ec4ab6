/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a join: opening, what it says of itself, clones, what its parts are asked to do, closing. */
#include "row.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include <lunferry/units.h>

static struct desk_task do_task(struct row *row, void (*start)(struct blk_dev *, struct blk_task *))
{
    struct desk_task task;

    start(row->desk.dev, desk_task(&task));
    assert_int_equal(task.done, 0);
    fake_finish(&row->desk.fake);
    assert_int_equal(task.done, 1);
    return task;
}

/* ---- Opening ---------------------------------------------------------------------------------- */

/* What cannot be joined is closed with the join all the same. */
static void check_refused(uint64_t offset, uint64_t len, bool stream, const char *text)
{
    struct row row;

    row_init(&row);
    row_disk(&row, 8192);
    row_disk(&row, 8192);
    row_part(&row, 0, true, 0, 8192);
    row_part(&row, 1, true, offset, len);
    if (stream)
        row.parts[1].dev->size = BLK_SIZE_UNKNOWN;
    assert_int_equal(row_join(&row), -EINVAL);
    assert_string_equal(row.desk.events, text);
    row_release(&row);
}

static void test_refused(void **state)
{
    (void)state;
    check_refused(0, 8192, true, "opening all: full:b cannot be a part: its size is not known");
    check_refused(0, 8193, false,
                  "opening all: 8193 bytes from 0 on lie outside of full:b, which has 8192");
    check_refused(8192, 1, false,
                  "opening all: 1 bytes from 8192 on lie outside of full:b, which has 8192");
    check_refused(UINT64_MAX, 2, false,
                  "opening all: 2 bytes from 18446744073709551615 on lie outside of full:b, which "
                  "has 8192");
}

static void test_too_long(void **state)
{
    struct row row;

    (void)state;
    row_init(&row);
    row_zeros(&row, INT64_MAX);
    row_zeros(&row, 1);
    assert_int_equal(row_join(&row), -EFBIG);
    assert_string_equal(row.desk.events, "opening all: all parts together are longer than 8 EiB");
    row_release(&row);
}

/* Closed while it is being opened. */
static void test_closed_at_once(void **state)
{
    struct desk_task opening, closing;
    struct blk_dev *dev;
    struct row row;

    (void)state;
    row_init(&row);
    row_disk(&row, 8192);
    row_part(&row, 0, true, 0, 8192);
    dev = join_open(row.desk.fake.loop, "all", row.parts, row.count, desk_task(&opening));
    blk_close(dev, desk_task(&closing));
    fake_finish(&row.desk.fake);
    assert_int_equal(opening.done, 1);
    assert_int_equal(closing.done, 1);
    row_release(&row);
}

/* ---- What it says of itself ------------------------------------------------------------------- */

static void test_writable(void **state)
{
    struct desk_req req;
    struct row row;

    (void)state;
    for (int writable = 0; writable < 2; writable++) {
        row_init(&row);
        row_disk(&row, 8192);
        row_disk(&row, 8192);
        row_part(&row, 0, true, 0, 8192);
        row_part(&row, 1, writable, 0, 8192);
        assert_int_equal(row_join(&row), 0);
        assert_int_equal(row.desk.dev->writable, writable);
        row_release(&row);
    }
    row_init(&row);
    row_disk(&row, 8192);
    row_part(&row, 0, true, 0, 8192);
    row_zeros(&row, 100);
    assert_int_equal(row_join(&row), 0);
    assert_int_equal(desk_do(&row.desk, &req, BLK_ZERO, 0, 0, NULL, 100), -EROFS);
    assert_string_equal(req.req.error.text, "zeroing all at offset 0: opened for reading only");
    row_release(&row);
}

static void open_two(struct row *row, uint64_t offset, uint64_t len)
{
    row_part(row, 0, true, offset, len);
    row_part(row, 1, true, 0, 4096);
    assert_int_equal(row_join(row), 0);
}

static void init_two(struct row *row)
{
    row_init(row);
    row_disk(row, 8192)->limits = (struct blk_limits){.align = 512,
                                                      .mem_align = 64,
                                                      .max_read = 1536,
                                                      .max_write = 4096,
                                                      .max_zero = 65536,
                                                      .max_discard = 65536,
                                                      .max_depth = 9};
    row_disk(row, 8192)->limits = (struct blk_limits){.align = 1024,
                                                      .mem_align = 16,
                                                      .max_read = 8192,
                                                      .max_write = 2048,
                                                      .max_zero = 32768,
                                                      .max_discard = 131072,
                                                      .max_depth = 5};
    row->disks[0].caps |= BLK_BARE | BLK_CAN_FUA;
    row->disks[1].caps = BLK_CAN_ZERO | BLK_CAN_FUA;
    row->disks[0].round_trip = 70;
    row->disks[1].round_trip = 50;
}

/* What suits all of them. */
static void test_limits_of_several(void **state)
{
    const struct blk_limits *limits;
    struct row row;

    (void)state;
    init_two(&row);
    open_two(&row, 2048, 4096);
    limits = &row.desk.dev->limits;
    assert_int_equal(limits->align, 1024);
    assert_int_equal(limits->mem_align, 64);
    assert_int_equal(limits->max_read, 1024);
    assert_int_equal(limits->max_write, 2048);
    assert_int_equal(limits->max_zero, 32768);
    assert_int_equal(limits->max_discard, 65536);
    assert_int_equal(limits->max_depth, 5);
    assert_int_equal(row.desk.dev->caps, BLK_CAN_ZERO | BLK_CAN_FUA | BLK_CAN_EXTENTS | BLK_BARE);
    assert_int_equal(row.desk.dev->size, 8192);
    assert_int_equal(row.desk.dev->round_trip, 70);
    row_release(&row);
    /* A part that lies across the blocks of the join. */
    init_two(&row);
    open_two(&row, 512, 4096);
    assert_int_equal(row.desk.dev->limits.align, 1);
    row_release(&row);
    init_two(&row);
    open_two(&row, 0, 4608);
    assert_int_equal(row.desk.dev->limits.align, 1);
    row_release(&row);
}

static void test_zeros_only(void **state)
{
    unsigned char buf[10000], zeros[10000] = {0};
    struct desk_req req;
    struct row row;

    (void)state;
    row_init(&row);
    row_zeros(&row, 10000);
    assert_int_equal(row_join(&row), 0);
    assert_int_equal(row.desk.dev->caps, BLK_CAN_EXTENTS);
    memset(buf, 1, sizeof(buf));
    assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 0, buf, sizeof(buf)), 0);
    assert_memory_equal(buf, zeros, sizeof(buf));
    assert_int_equal(desk_do(&row.desk, &req, BLK_FLUSH, 0, 0, NULL, 0), 0);
    row_release(&row);
}

static void test_identity(void **state)
{
    struct row row;

    (void)state;
    row_init(&row);
    row_disk(&row, 8192)->identity = "one";
    row_disk(&row, 8192)->identity = "two";
    row_part(&row, 0, false, 512, 1024);
    row_zeros(&row, 99);
    row_part(&row, 1, false, 0, 8192);
    assert_int_equal(row_join(&row), 0);
    assert_string_equal(row.desk.dev->identity, "one@512+1024,zeros@0+99,two@0+8192");
    row_release(&row);
    row_init(&row);
    row_disk(&row, 8192)->identity = "one";
    row_disk(&row, 8192);
    open_two(&row, 0, 8192);
    assert_null(row.desk.dev->identity);
    row_release(&row);
}

/* A change of either shows. */
static void test_stamps(void **state)
{
    (void)state;
    for (unsigned changed = 0; changed < 3; changed++) {
        struct desk_task task;
        struct row row;

        row_init(&row);
        row_disk(&row, 8192)->mtime_ns = 5000;
        row_disk(&row, 8192)->mtime_ns = 1000;
        open_two(&row, 0, 8192);
        assert_int_equal(row.desk.dev->opened.size, 16384);
        assert_memory_equal(&row.desk.dev->opened, &row.desk.dev->seen, sizeof(struct blk_stamp));
        if (changed < 2)
            row.disks[changed].mtime_ns += 10;
        task = do_task(&row, blk_recheck);
        assert_int_equal(task.task.status, 0);
        assert_int_equal(row.desk.dev->opened.mtime_ns == row.desk.dev->seen.mtime_ns,
                         changed == 2);
        row_release(&row);
    }
}

/* ---- Tasks ------------------------------------------------------------------------------------ */

static const struct blk_reservation how = {.key = 77};

static void reserve(struct blk_dev *dev, struct blk_task *task)
{
    blk_reserve(dev, &how, task);
}

static void test_tasks(void **state)
{
    struct row row;

    (void)state;
    row_of_two(&row);
    assert_int_equal(do_task(&row, reserve).task.status, 0);
    assert_int_equal(do_task(&row, blk_finish).task.status, 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(row.disks[i].reserved, 77);
        assert_int_equal(row.disks[i].finished, 1);
    }
    row_release(&row);
}

/* Each part's task fails once: one sentence, which is the part's. */
static void test_failing_tasks(void **state)
{
    static void (*const tasks[])(struct blk_dev *, struct blk_task *) = {reserve, blk_finish,
                                                                         blk_recheck};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (unsigned part = 0; part < 2; part++) {
            struct desk_task task;
            struct row row;

            row_of_two(&row);
            row.desk.fake.fault = (struct fake_fault){
                .number = row.desk.fake.submitted + 1 + part, .code = EBUSY, .retry = BLK_REPEAT};
            task = do_task(&row, tasks[i]);
            assert_int_equal(task.task.status, -EBUSY);
            assert_int_equal(task.task.error.retry, BLK_FATAL); /* below, all has been tried */
            assert_string_equal(task.task.error.text,
                                part ? "full:b: the fake says no" : "full:a: the fake says no");
            row_release(&row);
        }
    }
}

static uint64_t new_size;

static void resize(struct blk_dev *dev, struct blk_task *task)
{
    blk_resize(dev, new_size, task);
}

/* The last part grows and shrinks with its device, where it reaches the end of that. */
static void test_resize(void **state)
{
    struct desk_task task;
    struct desk_req req;
    unsigned char byte;
    struct row row;

    (void)state;
    row_init(&row);
    row_disk(&row, 8192);
    row_disk(&row, 8192);
    row_part(&row, 0, true, 0, 4096);
    row_part(&row, 1, true, 1024, 7168);
    assert_int_equal(row_join(&row), 0);
    new_size = 4096 + 9216;
    assert_int_equal(do_task(&row, resize).task.status, 0);
    assert_int_equal(row.disks[1].size, 10240);
    assert_int_equal(row.desk.dev->size, 13312);
    assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 13311, &byte, 1), 0);
    assert_int_equal(byte, 0);
    new_size = 4096 + 512;
    assert_int_equal(do_task(&row, resize).task.status, 0);
    assert_int_equal(row.disks[1].size, 1536);
    assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 4608, &byte, 1), -EINVAL);
    new_size = 4096;
    task = do_task(&row, resize);
    assert_int_equal(task.task.status, -ENOTSUP);
    assert_string_equal(task.task.error.text, "all: its size cannot be changed to that");
    row_release(&row);
    row_of_two(&row);
    new_size = 10000;
    assert_int_equal(do_task(&row, resize).task.status, -ENOTSUP);
    assert_int_equal(row.disks[1].size, 8192);
    row_release(&row);
}

/* Of each device is needed what the job needs of its part. */
static void check_need(uint64_t need, unsigned disk, uint64_t size, int status)
{
    struct desk_task task;
    struct row row;

    row_of_two(&row);
    if (need > 0)
        blk_need(row.desk.dev, need);
    row.disks[disk].size = size;
    task = do_task(&row, blk_recheck);
    assert_int_equal(task.task.status, status);
    row.disks[disk].size = 8192;
    row_release(&row);
}

static void test_need(void **state)
{
    (void)state;
    check_need(0, 0, 8191, -ENOSPC);
    check_need(0, 1, 4096, 0);
    check_need(0, 1, 4095, -ENOSPC);
    check_need(5000, 0, 8191, -ENOSPC);
    check_need(5000, 1, 904, 0);
    check_need(5000, 1, 903, -ENOSPC);
    check_need(1000, 0, 5096, 0);
    check_need(1000, 0, 5095, -ENOSPC);
    check_need(1000, 1, 1, 0);
}

/* ---- Clones ----------------------------------------------------------------------------------- */

static void check_clone_fails(unsigned part, bool cancelled)
{
    struct desk_task opening, closing;
    struct blk_dev *clone;
    struct row row;

    row_of_two(&row);
    clone = desk_clone(&row.desk, 1, &opening);
    if (cancelled) {
        fake_settle(&row.desk.fake);
        blk_cancel_all(clone);
    } else {
        row.desk.fake.fault = (struct fake_fault){
            .number = row.desk.fake.pending[part].number, .code = EACCES, .retry = BLK_FATAL};
    }
    fake_finish(&row.desk.fake);
    assert_int_equal(opening.done, 1);
    assert_int_equal(opening.task.status, cancelled ? -ECANCELED : -EACCES);
    if (!cancelled)
        assert_string_equal(opening.task.error.text, part ? "opening full:b: the fake says no"
                                                          : "opening full:a: the fake says no");
    blk_close(clone, desk_task(&closing));
    fake_finish(&row.desk.fake);
    assert_int_equal(closing.done, 1);
    row_release(&row);
}

static void test_clone_fails(void **state)
{
    (void)state;
    check_clone_fails(0, false);
    check_clone_fails(1, false);
    check_clone_fails(0, true);
}

static void test_clone(void **state)
{
    struct desk_task task;
    struct blk_dev *clone, *origin;
    unsigned char buf[8192];
    struct desk_req req;
    struct row row;

    (void)state;
    row_of_two(&row);
    clone = desk_clone(&row.desk, 1, &task);
    fake_finish(&row.desk.fake);
    assert_int_equal(task.task.status, 0);
    assert_int_equal(row.disks[0].open, 2);
    assert_int_equal(clone->size, 8192);
    assert_int_equal(clone->caps, row.desk.dev->caps);
    origin = row.desk.dev;
    row.desk.dev = clone;
    assert_int_equal(desk_do(&row.desk, &req, BLK_READ, 0, 0, buf, 8192), 0);
    assert_memory_equal(buf, row.disks[0].written + 4096, 4096);
    assert_memory_equal(buf + 4096, row.disks[1].written, 4096);
    blk_close(clone, desk_task(&task));
    fake_finish(&row.desk.fake);
    row.desk.dev = origin;
    row_release(&row);
}

/* In a thread of its own, while the origin is at work in another. */
struct lane {
    struct row *row;
    struct blk_dev *dev;
    struct loop *loop;
    uint64_t offset;
    unsigned done, failed;
    struct blk_req req;
    struct iovec iov;
    unsigned char buf[64];
};

static void lane_task_done(struct blk_task *task)
{
    struct lane *lane = task->opaque;

    lane->done++;
    lane->failed += task->status != 0;
}

static void lane_req_done(struct blk_req *req)
{
    struct lane *lane = req->opaque;

    lane->done++;
    lane->failed += req->status != 0;
}

static void lane_until_done(struct lane *lane)
{
    while (lane->done == 0)
        loop_turn(lane->loop, LOOP_NEVER);
    lane->done = 0;
}

/* Its half of each 128 bytes, all over both parts. */
static void lane_write(struct lane *lane)
{
    memset(lane->buf, lane->offset ? 0xbb : 0xaa, sizeof(lane->buf));
    for (uint64_t at = lane->offset; at < 8192; at += 128) {
        lane->iov = (struct iovec){lane->buf, sizeof(lane->buf)};
        lane->req = (struct blk_req){.op = BLK_WRITE,
                                     .offset = at,
                                     .len = sizeof(lane->buf),
                                     .iov = &lane->iov,
                                     .iovcnt = 1,
                                     .done = lane_req_done,
                                     .opaque = lane};
        blk_submit(lane->dev, &lane->req);
        lane_until_done(lane);
    }
}

static void *clone_thread(void *opaque)
{
    struct blk_task task = {.done = lane_task_done};
    struct lane *lane = opaque;

    lane->loop = loop_new();
    task.opaque = lane;
    lane->dev = blk_clone(lane->loop, lane->row->desk.dev, 1, &task);
    lane_until_done(lane);
    lane_write(lane);
    blk_close(lane->dev, &task);
    lane_until_done(lane);
    loop_free(lane->loop);
    return NULL;
}

static void test_clone_in_a_thread(void **state)
{
    struct lane here = {0}, there = {.offset = 64};
    pthread_t thread;
    struct row row;

    (void)state;
    row_init(&row);
    for (unsigned i = 0; i < 2; i++) {
        struct fake_disk *disk = row_disk(&row, 8192);

        disk->limits.align = 1;
        disk->logging = false;
        row_part(&row, i, true, i ? 0 : 4096, 4096);
    }
    assert_int_equal(row_join(&row), 0);
    row.desk.fake.automatic = true;
    here.row = there.row = &row;
    here.dev = row.desk.dev;
    here.loop = row.desk.fake.loop;
    assert_int_equal(pthread_create(&thread, NULL, clone_thread, &there), 0);
    lane_write(&here);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(here.failed + there.failed, 0);
    for (unsigned i = 0; i < 4096; i++) {
        assert_int_equal(row.disks[0].written[4096 + i], i % 128 < 64 ? 0xaa : 0xbb);
        assert_int_equal(row.disks[1].written[i], i % 128 < 64 ? 0xaa : 0xbb);
    }
    row_release(&row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_closed_at_once),
        cmocka_unit_test(test_writable),
        cmocka_unit_test(test_limits_of_several),
        cmocka_unit_test(test_zeros_only),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_stamps),
        cmocka_unit_test(test_tasks),
        cmocka_unit_test(test_failing_tasks),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_need),
        cmocka_unit_test(test_clone_fails),
        cmocka_unit_test(test_clone),
        cmocka_unit_test(test_clone_in_a_thread),
    };

    return cmocka_run_group_tests_name("join-life", tests, NULL, NULL);
}
