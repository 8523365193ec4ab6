/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "desk.h"

#include <string.h>

void desk_init(struct desk *desk, uint64_t size)
{
    memset(desk, 0, sizeof(*desk));
    fake_init(&desk->fake);
    fake_disk_init(&desk->disk, &desk->fake, size, 0);
    fake_disk_fill(&desk->disk, 1);
    desk->disk.logging = true;
    fake_end_disk(&desk->end, &desk->disk, "fake", "d");
}

static void task_done(struct blk_task *task)
{
    container_of(task, struct desk_task, task)->done++;
}

struct blk_task *desk_task(struct desk_task *task)
{
    memset(task, 0, sizeof(*task));
    task->task.done = task_done;
    return &task->task;
}

void desk_open(struct desk *desk, bool writable)
{
    struct blk_open_args args = {.url = &desk->end.url, .writable = writable};
    struct desk_task task;

    desk->dev = blk_open(desk->fake.loop, &args, desk_task(&task));
    assert_non_null(desk->dev);
    fake_finish(&desk->fake);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, 0);
}

void desk_release(struct desk *desk)
{
    if (desk->dev) {
        struct desk_task task;

        blk_close(desk->dev, desk_task(&task));
        fake_finish(&desk->fake);
        assert_int_equal(task.done, 1);
    }
    assert_int_equal(desk->disk.open, 0);
    fake_disk_release(&desk->disk);
    fake_release(&desk->fake);
}

static void req_done(struct blk_req *blk_req)
{
    struct desk_req *req = blk_req->opaque;

    assert_false(req->submitting);
    assert_int_equal(req->done, 0);
    req->done++;
    req->rank = ++req->desk->reported;
}

void desk_prepare(struct desk *desk, struct desk_req *req, enum blk_op op, unsigned flags,
                  uint64_t offset, void *buf, uint64_t len)
{
    bool data = op == BLK_READ || op == BLK_WRITE;

    *req = (struct desk_req){.desk = desk, .iov = {buf, len}};
    req->req = (struct blk_req){
        .op = op,
        .flags = flags,
        .offset = offset,
        .len = len,
        .iov = data ? &req->iov : NULL,
        .iovcnt = data ? 1 : 0,
        .done = req_done,
        .opaque = req,
    };
}

void desk_submit(struct desk *desk, struct desk_req *req, enum blk_op op, unsigned flags,
                 uint64_t offset, void *buf, uint64_t len)
{
    desk_prepare(desk, req, op, flags, offset, buf, len);
    req->submitting = true;
    blk_submit(desk->dev, &req->req);
    req->submitting = false;
}

int desk_do(struct desk *desk, struct desk_req *req, enum blk_op op, unsigned flags,
            uint64_t offset, void *buf, uint64_t len)
{
    desk_submit(desk, req, op, flags, offset, buf, len);
    fake_finish(&desk->fake);
    assert_int_equal(req->done, 1);
    return req->req.status;
}

void desk_check_log(struct desk *desk, const char *expected)
{
    assert_string_equal(desk->disk.log, expected);
    desk->disk.log[0] = '\0';
}
