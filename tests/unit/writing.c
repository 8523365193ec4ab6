/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "writing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

void writing_pattern(unsigned char *bytes, size_t len, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 1;

    if (seed == 0)
        memset(bytes, 7, len);
    for (size_t i = 0; i < len && seed > 0; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(seed % 2 ? 1 + (state >> 16) % 255 : 1 + (seed + i / 64) % 255);
    }
}

static void on_event(struct blk_watcher *watcher, enum blk_event event, const char *name,
                     const char *text)
{
    (void)watcher, (void)event, (void)name, (void)text;
}

void writing_init(struct writing *writing, const struct image_layout *layout, uint64_t size)
{
    struct blk_error error;

    memset(writing, 0, sizeof(*writing));
    desk_init(&writing->desk, 1);
    writing->desk.watcher.event = on_event;
    writing->layout = *layout;
    writing->layout.format = IMAGE_QCOW2;
    if (image_layout_complete(&writing->layout, &error) < 0)
        fail_msg("%s", error.text);
    writing->size = size;
    writing->table_bytes = IMAGE_MAKE_TABLES;
    fake_disk_init(&writing->disk, &writing->desk.fake, image_make_bound(&writing->layout, size),
                   0);
    fake_end_disk(&writing->end, &writing->disk, "full", "image");
    writing->bytes = calloc(1, size + 1);
    assert_non_null(writing->bytes);
}

/* ---- Moments ---------------------------------------------------------------------------------- */

static bool is_right(struct writing *writing, const unsigned char *bytes)
{
    writing->check = (struct qcow2_check){.bytes = bytes,
                                          .len = writing->disk.size,
                                          .disk = writing->bytes,
                                          .size = writing->size,
                                          .backing = writing->backing};
    return qcow2_check(&writing->check);
}

/* What a crash of the server leaves, or of ourselves. */
static void look(struct writing *writing)
{
    const struct fake_disk *disk = &writing->disk;

    if (qcow2_check_magic(disk->durable) && !is_right(writing, disk->durable))
        fail_msg("durable, after %u completions: %s", writing->completions, writing->check.error);
    if (qcow2_check_magic(disk->written) && !is_right(writing, disk->written))
        fail_msg("written, after %u completions: %s", writing->completions, writing->check.error);
}

static bool step(struct writing *writing)
{
    struct fake *fake = &writing->desk.fake;
    unsigned which = 0;

    fake_settle(fake);
    if (fake->pending_count == 0)
        return false;
    if (writing->odometer)
        which = odometer_choose(writing->odometer, fake->pending_count);
    if (++writing->completions == writing->restart_at)
        fake_disk_restart(&writing->disk);
    fake_complete(fake, which);
    if (!writing->incomplete)
        look(writing);
    return true;
}

static void note_error(struct writing *writing, int status, const struct blk_error *error)
{
    if (status == 0 || writing->status < 0)
        return;
    writing->status = status;
    snprintf(writing->error, sizeof(writing->error), "%s", error->text);
}

/* ---- Life ------------------------------------------------------------------------------------- */

static int run_task(struct writing *writing, struct desk_task *task)
{
    while (task->done == 0 && step(writing))
        ;
    assert_int_equal(task->done, 1);
    note_error(writing, task->task.status, &task->task.error);
    return task->task.status;
}

int writing_open(struct writing *writing, unsigned lanes)
{
    struct blk_open_args args = {.url = &writing->end.url,
                                 .writable = true,
                                 .settings = &writing->desk.settings,
                                 .watcher = &writing->desk.watcher};
    struct loop *loop = writing->desk.fake.loop;
    struct image_make make = {.name = "image", .layout = writing->layout, .size = writing->size};
    struct desk_task task;
    int status;

    make.file = blk_open(loop, &args, desk_task(&task));
    assert_non_null(make.file);
    fake_finish(&writing->desk.fake);
    if (task.task.status < 0) {
        note_error(writing, task.task.status, &task.task.error);
        blk_close(make.file, NULL);
        fake_finish(&writing->desk.fake);
        return task.task.status;
    }
    writing->desk.dev = writing->lanes[0] =
        qcow2_write_open(loop, &make, writing->table_bytes, desk_task(&task));
    assert_non_null(writing->desk.dev);
    assert_int_equal(task.done, 0);
    status = run_task(writing, &task);
    for (unsigned i = 1; i < lanes && status == 0; i++) {
        writing->lanes[i] = desk_clone(&writing->desk, i, &task);
        status = run_task(writing, &task);
    }
    return status;
}

void writing_release(struct writing *writing)
{
    for (unsigned i = WRITING_LANES; i-- > 0;) {
        struct desk_task task;

        if (!writing->lanes[i])
            continue;
        blk_close(writing->lanes[i], desk_task(&task));
        fake_finish(&writing->desk.fake);
        assert_int_equal(task.done, 1);
    }
    writing->desk.dev = NULL;
    for (unsigned i = 0; i < writing->req_count; i++)
        free(writing->reqs[i].bytes);
    assert_int_equal(writing->disk.open, 0);
    fake_disk_release(&writing->disk);
    desk_release(&writing->desk);
    free(writing->bytes);
}

/* ---- Requests --------------------------------------------------------------------------------- */

static void done(struct blk_req *blk_req)
{
    struct writing_req *req = blk_req->opaque;

    assert_true(req->busy);
    req->busy = false;
    if (req->bytes)
        memset(req->bytes, 0x5a, blk_req->len);
    note_error(req->writing, blk_req->status, &blk_req->error);
}

static void submit(struct writing_req *req, enum blk_op op, uint64_t offset, uint64_t len)
{
    struct writing *writing = req->writing;

    if (op == BLK_WRITE)
        memcpy(req->bytes, writing->bytes + offset, len);
    req->busy = true;
    req->lost = false;
    req->iov = (struct iovec){req->bytes, len};
    req->req = (struct blk_req){.op = op,
                                .offset = offset,
                                .len = len,
                                .iov = &req->iov,
                                .iovcnt = op == BLK_WRITE,
                                .done = done,
                                .opaque = req};
    blk_submit(writing->lanes[req->lane], &req->req);
}

void writing_submit(struct writing *writing, unsigned lane, enum blk_op op, uint64_t offset,
                    uint64_t len, uint32_t seed)
{
    struct writing_req *req = &writing->reqs[writing->req_count++];

    assert_in_range(writing->req_count, 1, WRITING_REQS);
    req->writing = writing;
    req->lane = lane;
    req->bytes = malloc(len);
    assert_non_null(req->bytes);
    if (op == BLK_WRITE)
        writing_pattern(writing->bytes + offset, len, seed);
    else
        memset(writing->bytes + offset, 0, len);
    submit(req, op, offset, len);
}

static bool any_busy(const struct writing *writing)
{
    for (unsigned i = 0; i < writing->req_count; i++) {
        if (writing->reqs[i].busy)
            return true;
    }
    return false;
}

/* A push is only ever made when nothing else is to be done. */
void writing_settle(struct writing *writing)
{
    for (;;) {
        unsigned before = writing->completions;

        for (unsigned i = 0; i < WRITING_LANES; i++) {
            if (writing->lanes[i])
                blk_push(writing->lanes[i]);
        }
        while (step(writing))
            ;
        if (writing->completions == before || !any_busy(writing))
            break;
    }
    assert_false(any_busy(writing));
}

/* A FLUSH of each lane; what was not durable before, and saw another epoch, was lost. */
static bool flush(struct writing *writing)
{
    bool lost = false;

    for (unsigned lane = 0; lane < WRITING_LANES && writing->status == 0; lane++) {
        struct writing_req flushing = {.writing = writing, .lane = lane};

        if (!writing->lanes[lane])
            continue;
        submit(&flushing, BLK_FLUSH, 0, 0);
        while (flushing.busy && step(writing))
            ;
        assert_false(flushing.busy);
        for (unsigned i = 0; i < writing->req_count; i++) {
            struct writing_req *req = &writing->reqs[i];

            if (req->lane != lane || req->req.durable)
                continue;
            req->lost = req->req.epoch == BLK_NO_EPOCH || req->req.epoch != flushing.req.epoch;
            lost |= req->lost;
        }
    }
    return lost;
}

void writing_durable(struct writing *writing)
{
    writing_settle(writing);
    for (unsigned tries = 0; writing->status == 0 && flush(writing); tries++) {
        assert_in_range(tries, 0, 10);
        for (unsigned i = 0; i < writing->req_count; i++) {
            struct writing_req *req = &writing->reqs[i];

            if (req->lost)
                submit(req, req->req.op, req->req.offset, req->req.len);
        }
        writing_settle(writing);
    }
    for (unsigned i = 0; i < writing->req_count; i++)
        free(writing->reqs[i].bytes);
    writing->req_count = 0;
}

void writing_write(struct writing *writing, uint64_t offset, uint64_t len, uint32_t seed)
{
    writing_submit(writing, 0, BLK_WRITE, offset, len, seed);
    writing_durable(writing);
}

void writing_zero(struct writing *writing, uint64_t offset, uint64_t len)
{
    writing_submit(writing, 0, BLK_ZERO, offset, len, 0);
    writing_durable(writing);
}

int writing_finish(struct writing *writing)
{
    struct desk_task task;

    if (writing->status < 0)
        return writing->status;
    blk_finish(writing->lanes[0], desk_task(&task));
    return run_task(writing, &task);
}

void writing_check(struct writing *writing)
{
    if (writing->status < 0)
        fail_msg("%s", writing->error);
    if (!is_right(writing, writing->disk.durable))
        fail_msg("%s", writing->check.error);
}
