/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "desk.h"

#include <stdio.h>
#include <string.h>

static void on_event(struct blk_watcher *watcher, enum blk_event event, const char *name,
                     const char *text)
{
    static const char *const names[] = {"AWAY", "BACK", "WAITING", "REPEATED", "WARNING"};
    struct desk *desk = container_of(watcher, struct desk, watcher);
    size_t at = strlen(desk->events);

    assert_string_equal(name, desk->end.text);
    snprintf(desk->events + at, sizeof(desk->events) - at, "%s %s\n", names[event], text);
}

void desk_init(struct desk *desk, uint64_t size)
{
    memset(desk, 0, sizeof(*desk));
    fake_init(&desk->fake);
    fake_disk_init(&desk->disk, &desk->fake, size, 0);
    fake_disk_fill(&desk->disk, 1);
    desk->disk.logging = true;
    fake_end_disk(&desk->end, &desk->disk, "fake", "d");
    desk->watcher.event = on_event;
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
    struct blk_open_args args = {.url = &desk->end.url,
                                 .writable = writable,
                                 .settings = &desk->settings,
                                 .watcher = &desk->watcher};
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

struct blk_dev *desk_clone(struct desk *desk, unsigned number, struct desk_task *task)
{
    struct blk_dev *clone = blk_clone(desk->fake.loop, desk->dev, number, desk_task(task));

    assert_non_null(clone);
    return clone;
}

void desk_repeat(struct desk *desk)
{
    desk->settings =
        (struct blk_settings){.timeout = 60 * LOOP_SECOND, .give_up = 600 * LOOP_SECOND};
}

void desk_one(struct desk *desk)
{
    assert_true(desk->fake.pending_count > 0);
    fake_complete(&desk->fake, 0);
    fake_settle(&desk->fake);
}

static bool is_done(void *opaque)
{
    return *(const unsigned *)opaque > 0;
}

void desk_until(struct desk *desk, unsigned *done)
{
    while (*done == 0) {
        fake_pass_time(&desk->fake, is_done, done);
        fake_finish(&desk->fake);
    }
}

void desk_check_text(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

static char letter(const struct fake_op *op)
{
    switch (op->kind) {
    case FAKE_OPEN:
        return 'o';
    case FAKE_CLOSE:
        return 'c';
    case FAKE_RESIZE:
        return 's';
    case FAKE_FINISH:
        return 'm';
    case FAKE_RESERVE:
        return 'p';
    case FAKE_RECOVER:
        return 'r';
    case FAKE_REQ:
        return "RWZFED"[op->req->op];
    default:
        return '?';
    }
}

void desk_check_pending(struct desk *desk, const char *letters)
{
    char text[FAKE_MAX_PENDING + 1] = "";

    fake_settle(&desk->fake);
    for (unsigned i = 0; i < desk->fake.pending_count; i++)
        text[i] = letter(&desk->fake.pending[i]);
    assert_string_equal(text, letters);
}

void desk_advance(struct desk *desk, uint64_t ns)
{
    loop_advance(desk->fake.loop, ns);
    fake_settle(&desk->fake);
}

void desk_check_events(struct desk *desk, const char *expected)
{
    assert_string_equal(desk->events, expected);
    desk->events[0] = '\0';
}
