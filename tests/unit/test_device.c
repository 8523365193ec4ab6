/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A device's life in the middle: opening, checks, queueing, cancelling, tasks, closing. */
#include "desk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- Checks ----------------------------------------------------------------------------------- */

static void test_refused_requests(void **state)
{
    static const struct {
        enum blk_op op;
        uint64_t offset, len;
        int code;
        const char *text;
    } cases[] = {
        {BLK_READ, 1, 4096, EINVAL,
         "reading fake:d at offset 1: 4096 bytes lie outside of the device, which has 4096"},
        {BLK_READ, 4096, 1, EINVAL,
         "reading fake:d at offset 4096: 1 bytes lie outside of the device, which has 4096"},
        {BLK_READ, UINT64_MAX - 10, 20, EINVAL,
         "reading fake:d at offset 18446744073709551605: 20 bytes lie outside of the device, "
         "which has 4096"},
        {BLK_EXTENTS, 0, UINT64_MAX, EINVAL,
         "asking for the extents of fake:d at offset 0: 18446744073709551615 bytes lie outside of "
         "the device, which has 4096"},
        {BLK_READ, 5, 0, EINVAL,
         "reading fake:d at offset 5: 0 bytes lie outside of the device, which has 4096"},
        {BLK_WRITE, 0, 512, EROFS, "writing fake:d at offset 0: opened for reading only"},
        {BLK_ZERO, 0, 512, EROFS, "zeroing fake:d at offset 0: opened for reading only"},
    };
    struct blk_extent extent;
    struct blk_extents extents = {&extent, 1, 0};
    unsigned char buf[8192];
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk_open(&desk, false);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct desk_req req;

        desk_prepare(&desk, &req, cases[i].op, 0, cases[i].offset, buf, cases[i].len);
        req.req.extents = &extents;
        blk_submit(desk.dev, &req.req);
        assert_int_equal(req.done, 0);
        fake_finish(&desk.fake);
        assert_int_equal(req.done, 1);
        assert_int_equal(req.req.status, -cases[i].code);
        assert_int_equal(req.req.error.code, cases[i].code);
        assert_string_equal(req.req.error.text, cases[i].text);
    }
    desk_check_log(&desk, "");
    desk_release(&desk);
}

static void test_buffers_that_do_not_add_up(void **state)
{
    unsigned char buf[512];
    struct blk_extents none = {NULL, 0, 0};
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk_open(&desk, true);
    for (int direction = -1; direction <= 1; direction += 2) {
        desk_prepare(&desk, &req, BLK_WRITE, 0, 0, buf, 256);
        req.iov.iov_len = (size_t)(256 + direction);
        blk_submit(desk.dev, &req.req);
        fake_finish(&desk.fake);
        assert_int_equal(req.req.status, -EINVAL);
        assert_string_equal(req.req.error.text, "writing fake:d at offset 0: the buffers do not "
                                                "add up to the length");
    }
    desk_prepare(&desk, &req, BLK_EXTENTS, 0, 0, NULL, 256);
    req.req.extents = &none;
    blk_submit(desk.dev, &req.req);
    fake_finish(&desk.fake);
    assert_int_equal(req.req.status, -EINVAL);
    desk_check_log(&desk, "");
    desk_release(&desk);
}

static void check_extents(unsigned caps, enum blk_kind kind, const char *log)
{
    struct blk_extent list[2];
    struct blk_extents extents = {list, 2, 0};
    struct desk_req req;
    struct desk desk;

    desk_init(&desk, 4096);
    desk.disk.caps = caps;
    if (kind != BLK_DATA)
        fake_disk_set(&desk.disk, 0, 4096, kind);
    desk_open(&desk, false);
    desk_prepare(&desk, &req, BLK_EXTENTS, 0, 100, NULL, 1000);
    req.req.extents = &extents;
    blk_submit(desk.dev, &req.req);
    assert_int_equal(req.done, 0);
    fake_finish(&desk.fake);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, 0);
    assert_int_equal(extents.count, 1);
    assert_int_equal(list[0].offset, 100);
    assert_int_equal(list[0].len, 1000);
    assert_int_equal(list[0].kind, kind);
    assert_true(list[0].host_offset == BLK_NO_OFFSET);
    desk_check_log(&desk, log);
    desk_release(&desk);
}

static void test_extents(void **state)
{
    (void)state;
    check_extents(0, BLK_DATA, "");
    check_extents(BLK_CAN_EXTENTS, BLK_UNALLOCATED, "EXTENTS 100+1000\n");
}

/* ---- Queueing --------------------------------------------------------------------------------- */

static void test_depth(void **state)
{
    static unsigned char bufs[6][1024];
    struct desk_req reqs[6];
    struct desk desk;

    (void)state;
    desk_init(&desk, 6 * 1024);
    desk.disk.limits.max_read = 512;
    desk.disk.limits.max_depth = 3;
    desk_open(&desk, false);
    for (unsigned i = 0; i < 6; i++)
        desk_submit(&desk, &reqs[i], BLK_READ, 0, i * 1024, bufs[i], 1024);
    /* Twelve pieces; three at any time, in the order in which they were asked for. */
    for (unsigned left = 12; left > 0; left--) {
        fake_settle(&desk.fake);
        assert_int_equal(desk.fake.pending_count, left < 3 ? left : 3);
        assert_int_equal(blk_in_flight(desk.dev), desk.fake.pending_count);
        assert_int_equal(desk.fake.pending[0].req->offset, (12 - left) * 512);
        fake_complete(&desk.fake, 0);
    }
    fake_settle(&desk.fake);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(reqs[i].req.status, 0);
        assert_int_equal(reqs[i].rank, i + 1);
        assert_memory_equal(bufs[i], desk.disk.written + i * 1024, 1024);
    }
    assert_int_equal(blk_in_flight(desk.dev), 0);
    desk_release(&desk);
}

/* A driver that is done at once, and requests that are made in done(): never one inside another. */
static unsigned nesting, chain_left;

static void next_in_chain(struct blk_req *req)
{
    assert_int_equal(nesting, 0);
    nesting++;
    if (--chain_left > 0)
        blk_submit(req->dev, req);
    nesting--;
}

static void test_never_inside_submit(void **state)
{
    unsigned char buf[512];
    struct desk_req req, chain;
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk.disk.limits.max_depth = 1;
    desk_open(&desk, true);
    desk.fake.automatic = true;
    desk_submit(&desk, &req, BLK_WRITE, BLK_FUA, 0, buf, 512);
    assert_int_equal(req.done, 0);
    chain_left = 100;
    desk_prepare(&desk, &chain, BLK_READ, 0, 512, buf, 512);
    chain.req.done = next_in_chain;
    blk_submit(desk.dev, &chain.req);
    fake_settle(&desk.fake);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, 0);
    assert_int_equal(chain_left, 0);
    desk.fake.automatic = false;
    desk_release(&desk);
}

/* ---- Cancelling ------------------------------------------------------------------------------- */

static void test_cancel(void **state)
{
    static unsigned char bufs[4][1024];
    struct desk_req reqs[4], late;
    struct desk desk;

    (void)state;
    desk_init(&desk, 4 * 1024);
    desk.disk.limits.max_write = 512;
    desk.disk.limits.max_depth = 3;
    desk_open(&desk, true);
    for (unsigned i = 0; i < 4; i++)
        desk_submit(&desk, &reqs[i], BLK_WRITE, 0, i * 1024, bufs[i], 1024);
    fake_complete(&desk.fake, 0);
    blk_cancel_all(desk.dev);
    blk_cancel_all(desk.dev);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(reqs[i].done, 0);
    fake_finish(&desk.fake);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(reqs[i].done, 1);
        assert_int_equal(reqs[i].req.status, -ECANCELED);
        assert_int_equal(reqs[i].req.error.code, ECANCELED);
    }
    assert_string_equal(reqs[3].req.error.text, "writing fake:d at offset 3072: cancelled");
    /* Three pieces, and nothing after them: not even by a request that comes too late. */
    desk_check_log(&desk, "WRITE 0+512\nWRITE 512+512\nWRITE 1024+512\n");
    assert_int_equal(desk_do(&desk, &late, BLK_FLUSH, 0, 0, NULL, 0), -ECANCELED);
    assert_string_equal(late.req.error.text, "flushing fake:d: cancelled");
    desk_check_log(&desk, "");
    desk_release(&desk);
}

/* Where one piece follows another: cancelled when the first is back and the loop has not turned. */
static void check_cancel_between(unsigned flags, uint64_t len, const char *log)
{
    unsigned char buf[512];
    struct desk_req req;
    struct desk desk;

    desk_init(&desk, 4096);
    desk.disk.limits.align = 512;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_WRITE, flags, 0, buf, len);
    fake_complete(&desk.fake, 0);
    blk_cancel_all(desk.dev);
    fake_finish(&desk.fake);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, -ECANCELED);
    assert_false(req.req.durable);
    desk_check_log(&desk, log);
    desk_release(&desk);
}

static void test_cancel_between_pieces(void **state)
{
    (void)state;
    check_cancel_between(BLK_FUA, 512, "WRITE 0+512\n"); /* no FLUSH */
    check_cancel_between(0, 100, "READ 0+512\n");        /* no WRITE */
}

/* A failure's reason is worth more than that the rest was cancelled, whichever is seen first. */
static void check_reason_beats_cancelled(unsigned depth)
{
    unsigned char buf[2048];
    struct desk_req req;
    struct desk desk;

    desk_init(&desk, 2048);
    desk.disk.limits.max_read = 1024;
    desk.disk.limits.max_depth = depth;
    desk_open(&desk, false);
    desk_submit(&desk, &req, BLK_READ, 0, 0, buf, 2048);
    assert_int_equal(desk.fake.pending_count, depth);
    desk.fake.fault =
        (struct fake_fault){.number = desk.fake.pending[depth - 1].number, .code = EIO};
    fake_complete(&desk.fake, depth - 1);
    blk_cancel_all(desk.dev);
    fake_finish(&desk.fake);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, -EIO);
    assert_string_equal(req.req.error.text, "reading fake:d at offset 0: the fake says no");
    desk_release(&desk);
}

static void test_reason_beats_cancelled(void **state)
{
    (void)state;
    check_reason_beats_cancelled(2); /* the other piece is at the driver */
    check_reason_beats_cancelled(1); /* it waits */
}

/* ---- Opening and closing ---------------------------------------------------------------------- */

static struct blk_dev *start_open(struct desk *desk, struct desk_task *task)
{
    struct blk_open_args args = {.url = &desk->end.url, .writable = true};

    return blk_open(desk->fake.loop, &args, desk_task(task));
}

static void test_open(void **state)
{
    struct desk_task task;
    struct desk desk;

    (void)state;
    desk_init(&desk, 12345);
    desk.disk.identity = "the very one";
    desk.disk.caps = BLK_BARE;
    desk.dev = start_open(&desk, &task);
    fake_settle(&desk.fake);
    assert_int_equal(task.done, 0);
    fake_finish(&desk.fake);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, 0);
    assert_int_equal(desk.dev->size, 12345);
    assert_string_equal(desk.dev->name, "fake:d");
    assert_string_equal(desk.dev->identity, "the very one");
    assert_int_equal(desk.dev->caps, BLK_BARE);
    assert_true(desk.dev->writable);
    desk_release(&desk);
}

static void test_open_fails(void **state)
{
    unsigned char buf[512];
    struct desk_task task;
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk.fake.fault = (struct fake_fault){.number = 1, .code = EACCES};
    desk.dev = start_open(&desk, &task);
    fake_finish(&desk.fake);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, -EACCES);
    assert_int_equal(task.task.error.code, EACCES);
    assert_string_equal(task.task.error.text, "opening fake:d: the fake says no");
    assert_int_equal(desk_do(&desk, &req, BLK_READ, 0, 0, buf, 512), -ECANCELED);
    blk_cancel_all(desk.dev);
    desk_release(&desk);
}

static void test_cancel_opening(void **state)
{
    struct desk_task task;
    struct desk desk;

    (void)state;
    for (int succeeds = 0; succeeds < 2; succeeds++) {
        desk_init(&desk, 4096);
        desk.fake.cancel_applies = succeeds; /* the answer was on its way */
        desk.dev = start_open(&desk, &task);
        blk_cancel_all(desk.dev);
        fake_finish(&desk.fake);
        assert_int_equal(task.done, 1);
        assert_int_equal(task.task.status, -ECANCELED);
        assert_int_equal(task.task.error.code, ECANCELED);
        desk_release(&desk);
    }
}

/* Closed while it is being opened: before the answer, and after it, when that is not reported yet. */
static void test_close_while_opening(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct desk_task opening, closing;
        struct desk desk;
        struct blk_dev *dev;

        desk_init(&desk, 4096);
        desk.fake.cancel_applies = way == 1;
        dev = start_open(&desk, &opening);
        if (way == 2)
            fake_complete(&desk.fake, 0);
        blk_close(dev, desk_task(&closing));
        fake_settle(&desk.fake);
        assert_int_equal(closing.done, 0);
        if (way < 2)
            fake_complete(&desk.fake, 0);
        fake_settle(&desk.fake);
        assert_int_equal(opening.done, 1);
        assert_int_equal(opening.task.status, -ECANCELED);
        assert_int_equal(closing.done, 0);
        fake_finish(&desk.fake);
        assert_int_equal(closing.done, 1);
        assert_int_equal(closing.task.status, 0);
        desk_release(&desk);
    }
}

static void test_close_without_task(void **state)
{
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk_open(&desk, false);
    blk_close(desk.dev, NULL);
    desk.dev = NULL;
    fake_finish(&desk.fake);
    desk_release(&desk);
}

/* ---- Clones and tasks ------------------------------------------------------------------------- */

static void test_clone(void **state)
{
    unsigned char buf[512] = {7};
    struct desk_task task;
    struct desk_req req;
    struct blk_dev *origin, *clone;
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk_open(&desk, true);
    origin = desk.dev;
    clone = blk_clone(desk.fake.loop, origin, 1, desk_task(&task));
    fake_finish(&desk.fake);
    assert_int_equal(task.task.status, 0);
    assert_int_equal(desk.disk.open, 2);
    assert_true(clone->writable);
    desk.dev = clone;
    assert_int_equal(desk_do(&desk, &req, BLK_WRITE, 0, 0, buf, 512), 0);
    blk_close(clone, NULL);
    desk.dev = origin;
    memset(buf, 0, sizeof(buf));
    assert_int_equal(desk_do(&desk, &req, BLK_READ, 0, 0, buf, 512), 0);
    assert_int_equal(buf[0], 7);
    desk_release(&desk);
}

static void test_cannot_be_cloned(void **state)
{
    struct desk_task task;
    struct blk_dev *clone;
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    fake_end_disk(&desk.end, &desk.disk, "single", "d");
    desk_open(&desk, true);
    clone = blk_clone(desk.fake.loop, desk.dev, 1, desk_task(&task));
    assert_non_null(clone);
    assert_int_equal(task.done, 0);
    fake_finish(&desk.fake);
    assert_int_equal(task.task.status, -ENOTSUP);
    assert_string_equal(task.task.error.text, "opening single:d: fake can be open only once");
    /* The driver, which has never heard of it, does not hear of this either. */
    blk_cancel_all(clone);
    blk_close(clone, desk_task(&task));
    fake_finish(&desk.fake);
    assert_int_equal(task.done, 1);
    desk_release(&desk);
}

static void test_resize_and_finish(void **state)
{
    struct fake_fs fs;
    struct fake_file *file;
    struct desk_task task;
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk_open(&desk, true);
    blk_resize(desk.dev, 8192, desk_task(&task));
    assert_int_equal(task.done, 0);
    fake_finish(&desk.fake);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, -ENOTSUP);
    assert_string_equal(task.task.error.text, "fake:d: its size cannot be changed");
    blk_finish(desk.dev, desk_task(&task));
    assert_int_equal(task.done, 0);
    fake_finish(&desk.fake);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, 0);
    blk_close(desk.dev, NULL);
    fake_finish(&desk.fake);

    fake_fs_init(&fs, &desk.fake);
    file = fake_fs_make(&fs, "f", 100);
    fake_end_file(&desk.end, &fs, "f");
    desk_open(&desk, true);
    blk_resize(desk.dev, 8192, desk_task(&task));
    fake_finish(&desk.fake);
    assert_int_equal(task.task.status, 0);
    assert_int_equal(desk.dev->size, 8192);
    assert_int_equal(file->disk->size, 8192);
    blk_resize(desk.dev, 1, desk_task(&task));
    desk.fake.fault = (struct fake_fault){.number = desk.fake.submitted, .code = ENOSPC};
    fake_finish(&desk.fake);
    assert_int_equal(task.task.status, -ENOSPC);
    assert_string_equal(task.task.error.text, "fakefs:/dir/f: the fake says no");
    desk_release(&desk);
    fake_fs_release(&fs);
}

static void test_tasks_and_cancel(void **state)
{
    struct desk_task task;
    struct desk desk;
    struct fake_fs fs;

    (void)state;
    desk_init(&desk, 4096);
    fake_fs_init(&fs, &desk.fake);
    fake_fs_make(&fs, "f", 100);
    fake_end_file(&desk.end, &fs, "f");
    desk_open(&desk, true);
    blk_resize(desk.dev, 8192, desk_task(&task));
    blk_cancel_all(desk.dev);
    fake_finish(&desk.fake);
    assert_int_equal(task.task.status, -ECANCELED);
    /* And those that come after it. */
    blk_resize(desk.dev, 8192, desk_task(&task));
    assert_int_equal(task.done, 0);
    fake_finish(&desk.fake);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, -ECANCELED);
    blk_finish(desk.dev, desk_task(&task));
    fake_finish(&desk.fake);
    assert_int_equal(task.task.status, -ECANCELED);
    desk_release(&desk);
    fake_fs_release(&fs);
}

/* ---- Names and descriptions ------------------------------------------------------------------- */

static void test_unknown_scheme(void **state)
{
    struct url url = {.scheme = (char[]){"ftp"}, .text = (char[]){"ftp://x"}, .path = (char[]){""}};
    struct blk_error error;

    (void)state;
    assert_int_equal(blk_check_url(&url, &error), -EINVAL);
    assert_non_null(strstr(error.text, "ftp://x: there is no kind of endpoint called \"ftp\"; "
                                       "known are "));
    assert_non_null(strstr(error.text, "fake:NAME, "));
}

struct facts {
    struct blk_report report;
    char text[1024];
};

static void add_fact(struct blk_report *report, const char *key, const char *label,
                     const char *value)
{
    struct facts *facts = container_of(report, struct facts, report);
    size_t at = strlen(facts->text);

    assert_true(label[0] != '\0');
    snprintf(facts->text + at, sizeof(facts->text) - at, "%s=%s\n", key, value);
}

static void test_describe(void **state)
{
    struct facts facts = {.report = {add_fact}};
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk.disk.identity = "x";
    desk.disk.limits.max_read = 1024 * 1024;
    desk.disk.limits.max_write = 65536;
    desk_open(&desk, false);
    blk_describe(desk.dev, &facts.report);
    assert_string_equal(facts.text, "endpoint=fake:d\n"
                                    "kind=fake\n"
                                    "size=4096 bytes (4.00 KiB)\n"
                                    "block-size=1 bytes\n"
                                    "request-limits=read 1.00 MiB, write 64.00 KiB, 64 at once\n"
                                    "identity=x\n");
    desk_release(&desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_buffers_that_do_not_add_up),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_never_inside_submit),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_between_pieces),
        cmocka_unit_test(test_reason_beats_cancelled),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_open_fails),
        cmocka_unit_test(test_cancel_opening),
        cmocka_unit_test(test_close_while_opening),
        cmocka_unit_test(test_close_without_task),
        cmocka_unit_test(test_clone),
        cmocka_unit_test(test_cannot_be_cloned),
        cmocka_unit_test(test_resize_and_finish),
        cmocka_unit_test(test_tasks_and_cancel),
        cmocka_unit_test(test_unknown_scheme),
        cmocka_unit_test(test_describe),
    };

    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
