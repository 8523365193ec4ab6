/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * L2 tables on their way to the file. One that has no place there yet gets one, and several of these that follow each
 * other go in one WRITE. One that was there before is read, put together with what is new, and written where
 * it was; what its entries named before is not used any more.
 *
 * Each is durable when it is there (FUA): nobody keeps what it would take to write it again.
 */
#include "qcow2_write.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <lunferry/units.h>

struct qcow2_leave {
    struct qcow2_leave *next; /* free ones */
    struct qcow2_writer *writer;
    struct qcow2_fill *fills[QCOW2_LEAVE_MOST];
    unsigned count;
    struct qcow2_fill *stored; /* what is in the file, and what will be; NULL: nothing was */
    uint64_t host;
    struct iovec iov[QCOW2_LEAVE_MOST];
    struct blk_req req;
};

/* ---- It is over ------------------------------------------------------------------------------- */

/* Closes the device, if that is what it waits for. */
static void leave_is_over(struct qcow2_leave *leave)
{
    struct qcow2_writer *writer = leave->writer;
    void (*quiet)(struct qcow2_writer * writer) = NULL;

    leave->next = writer->free_leaves;
    writer->free_leaves = leave;
    if (--writer->leaves == 0) {
        quiet = writer->quiet;
        writer->quiet = NULL;
    }
    qcow2_write_resume(writer);
    if (writer->finish)
        qcow2_write_finish_on(writer);
    if (quiet)
        quiet(writer);
}

/* What has failed stays where it is: with it the image is lost. */
static void end_leave(struct qcow2_leave *leave, int status, const struct blk_error *error)
{
    struct qcow2_write_core *core = leave->writer->core;

    pthread_mutex_lock(&core->lock);
    if (status < 0)
        qcow2_write_fail(core, status, error);
    for (unsigned i = 0; i < leave->count && status == 0; i++)
        qcow2_fills_left(&core->fills, leave->fills[i]);
    if (leave->stored)
        qcow2_fills_return(&core->fills, leave->stored);
    core->leaves--;
    if (core->finisher)
        loop_wake(core->finisher);
    pthread_mutex_unlock(&core->lock);
    leave_is_over(leave);
}

static void table_written(struct blk_req *req)
{
    end_leave(req->opaque, req->status, &req->error);
}

/* ---- It goes ---------------------------------------------------------------------------------- */

static void submit(struct qcow2_leave *leave, enum blk_op op, void (*done)(struct blk_req *req))
{
    uint64_t cluster = qcow2_write_cluster(leave->writer);

    for (unsigned i = 0; i < leave->count; i++) {
        struct qcow2_fill *fill = leave->stored ? leave->stored : leave->fills[i];

        leave->iov[i] = (struct iovec){fill->entries, cluster};
    }
    leave->req = (struct blk_req){
        .op = op,
        .flags = op == BLK_WRITE ? BLK_FUA : 0,
        .offset = leave->host,
        .len = leave->count * cluster,
        .iov = leave->iov,
        .iovcnt = (int)leave->count,
        .done = done,
        .opaque = leave,
    };
    blk_submit(leave->writer->file, &leave->req);
}

/* With the lock held. */
static int merge(const struct qcow2_leave *leave, struct blk_error *error)
{
    struct qcow2_write_core *core = leave->writer->core;
    const struct qcow2_shape *shape = &core->shape;
    const struct qcow2_fill *fill = leave->fills[0];
    int status = 0;

    for (uint64_t i = 0; i < UINT64_C(1) << shape->l2_bits && status == 0; i++) {
        struct qcow2_word old, now;

        if (!qcow2_fill_knows(fill, i))
            continue;
        old = qcow2_fill_get(shape, leave->stored, i);
        now = qcow2_fill_get(shape, fill, i);
        if (old.entry != now.entry)
            status = qcow2_word_give_back(shape, &core->space, old, error);
        qcow2_fill_set(shape, leave->stored, i, now);
    }
    return status;
}

static void table_read(struct blk_req *req)
{
    struct qcow2_leave *leave = req->opaque;
    struct qcow2_write_core *core = leave->writer->core;
    int status = req->status;
    struct blk_error error = req->error;

    if (status == 0 && req->got < req->len)
        status = blk_error_set(&error, EIO, "the image ends before an L2 table that was written");
    if (status == 0) {
        pthread_mutex_lock(&core->lock);
        status = merge(leave, &error);
        pthread_mutex_unlock(&core->lock);
    }
    if (status < 0)
        end_leave(leave, status, &error);
    else
        submit(leave, BLK_WRITE, table_written);
}

/* ---- Which ------------------------------------------------------------------------------------ */

/* The oldest first. Those without a place go together, the others one by one. */
static void choose(struct qcow2_leave *leave, struct qcow2_fills *fills, unsigned most)
{
    struct qcow2_fill *newer;

    leave->count = 0;
    for (struct qcow2_fill *fill = fills->oldest; fill && leave->count < most; fill = newer) {
        bool placed = fills->stored[fill->number] != 0;

        newer = fill->newer;
        if (qcow2_fills_find(fills, fill->number, true) || (placed && leave->count > 0))
            continue;
        leave->fills[leave->count++] = fill;
        if (placed)
            return;
    }
}

static int find_place(struct qcow2_leave *leave, struct blk_error *error)
{
    struct qcow2_write_core *core = leave->writer->core;
    struct qcow2_fills *fills = &core->fills;
    uint64_t got = 1;
    int status = 0;

    leave->stored = NULL;
    leave->host = fills->stored[leave->fills[0]->number];
    if (leave->host) {
        leave->stored = qcow2_fills_borrow(fills);
        if (!leave->stored)
            return blk_error_set(error, ENOMEM, "out of memory");
    } else {
        status = qcow2_space_plain(&core->space, leave->count, &leave->host, &got, error);
    }
    if (status < 0)
        return status;
    leave->count = (unsigned)got;
    for (uint64_t i = 0; i < got; i++) {
        fills->stored[leave->fills[i]->number] = leave->host + (i << core->shape.cluster_bits);
        qcow2_fills_leave(fills, leave->fills[i]);
    }
    return 0;
}

static struct qcow2_leave *new_leave(struct qcow2_writer *writer)
{
    struct qcow2_leave *leave = writer->free_leaves;

    if (leave)
        writer->free_leaves = leave->next;
    else
        leave = calloc(1, sizeof(*leave));
    if (leave)
        leave->writer = writer;
    return leave;
}

/* With the lock held. False: there is none to leave, or the image has failed. */
static bool prepare(struct qcow2_leave *leave, unsigned most)
{
    struct qcow2_write_core *core = leave->writer->core;
    struct blk_error error;
    int status;

    if (core->status < 0)
        return false;
    choose(leave, &core->fills, most);
    if (leave->count == 0)
        return false;
    status = find_place(leave, &error);
    if (status < 0) {
        qcow2_write_fail(core, status, &error);
        return false;
    }
    core->leaves++;
    return true;
}

bool qcow2_leave_any(struct qcow2_writer *writer, uint64_t most)
{
    struct qcow2_write_core *core = writer->core;
    struct qcow2_leave *leave = new_leave(writer);
    struct blk_error error;
    bool prepared = false;

    pthread_mutex_lock(&core->lock);
    if (leave)
        prepared = prepare(leave, (unsigned)min_u64(most, QCOW2_LEAVE_MOST));
    else
        qcow2_write_fail(core, blk_error_set(&error, ENOMEM, "out of memory"), &error);
    pthread_mutex_unlock(&core->lock);
    if (!prepared) {
        if (leave) {
            leave->next = writer->free_leaves;
            writer->free_leaves = leave;
        }
        return false;
    }
    writer->leaves++;
    if (leave->stored)
        submit(leave, BLK_READ, table_read);
    else
        submit(leave, BLK_WRITE, table_written);
    return true;
}

static unsigned limit_of(const struct qcow2_write_core *core)
{
    return core->fills.limit > 2 * core->users ? core->fills.limit : 2 * core->users;
}

/* So many begin to leave before there are too many, so that a request seldom waits. */
static unsigned ahead_of(const struct qcow2_write_core *core)
{
    unsigned ahead = limit_of(core) / 4;

    return ahead > 1 ? ahead : 1;
}

static bool crowded(const struct qcow2_write_core *core)
{
    return core->status == 0 && core->fills.filling > limit_of(core) - ahead_of(core);
}

bool qcow2_leave_for_room(struct qcow2_writer *writer, int *status, struct blk_error *error)
{
    struct qcow2_write_core *core = writer->core;
    bool wait, leaving = true;

    pthread_mutex_lock(&core->lock);
    while (leaving && crowded(core)) {
        uint64_t most = min_u64(QCOW2_LEAVE_BYTES >> core->shape.cluster_bits, ahead_of(core));

        pthread_mutex_unlock(&core->lock);
        leaving = qcow2_leave_any(writer, most > 1 ? most : 1);
        pthread_mutex_lock(&core->lock);
    }
    *status = core->status;
    if (core->status < 0)
        *error = core->error;
    wait = core->fills.filling + core->fills.leaving > limit_of(core) && writer->leaves > 0;
    pthread_mutex_unlock(&core->lock);
    return wait;
}

void qcow2_leave_settle(struct qcow2_writer *writer, void (*then)(struct qcow2_writer *writer))
{
    assert(!writer->quiet);
    if (writer->leaves == 0)
        then(writer);
    else
        writer->quiet = then;
}

void qcow2_leave_release(struct qcow2_writer *writer)
{
    while (writer->free_leaves) {
        struct qcow2_leave *leave = writer->free_leaves;

        writer->free_leaves = leave->next;
        free(leave);
    }
}
