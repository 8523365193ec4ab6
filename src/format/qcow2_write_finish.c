/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of an image that was written, as a chain of steps. All L2 tables leave; what then lies behind
 * everything else, refcount blocks, refcount table and L1 table, is made piece by piece while it is written; the
 * file gets the length that it needs; and last comes the first block of the header, which has the magic. Each write is
 * durable before the next step (FUA), so that a server may restart at any time.
 */
#include "qcow2_write.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "qcow2.h"

#define COPIED (UINT64_C(1) << 63)

#define PIECE  (1u << 20) /* bytes */
#define PIECES 4          /* on their way at once */
#define SECTOR 512u

struct finish_piece {
    struct qcow2_finish *finish;
    bool busy;
    unsigned char *bytes; /* PIECE, or a cluster if that is more */
    struct iovec iov;
    struct blk_req req;
};

struct qcow2_finish {
    struct qcow2_writer *writer;
    enum { FINISH_TABLES, FINISH_LAST, FINISH_REST } step;
    struct loop_watch watch; /* of leaves of other clones */
    bool waiting;            /* for those */
    struct qcow2_places places;
    uint64_t at; /* up to here what is last is written, or being written */
    struct finish_piece pieces[PIECES];
    size_t header_len, block; /* bytes */
    unsigned awaited;
    int status;
    struct blk_error error;
};

/* ---- Its end ---------------------------------------------------------------------------------- */

static void end(struct qcow2_finish *finish)
{
    struct qcow2_writer *writer = finish->writer;
    int status = finish->status;
    struct blk_error error = finish->error;

    error.retry = BLK_FATAL;
    for (unsigned i = 0; i < PIECES; i++)
        free(finish->pieces[i].bytes);
    free(finish);
    writer->finish = NULL;
    blk_task_done(&writer->dev, status, &error);
}

static void fail(struct qcow2_finish *finish, int status, const struct blk_error *error)
{
    if (finish->status < 0)
        return;
    finish->status = status;
    finish->error = *error;
}

/* ---- The file's bytes ------------------------------------------------------------------------- */

/* Bit 0 is the least of a byte; numbers of more than 8 bits are big-endian. */
static void put_count(unsigned char *bytes, uint64_t index, unsigned bits, uint64_t count)
{
    uint64_t big = htobe64(count << (bits >= 8 ? 64 - bits : 0));

    if (bits >= 8)
        memcpy(bytes + index * (bits / 8), &big, bits / 8);
    else
        bytes[index * bits / 8] |= (unsigned char)(count << (index * bits % 8));
}

static void make_blocks(const struct qcow2_write_core *core, uint64_t offset, unsigned char *bytes,
                        uint64_t len)
{
    unsigned bits = core->shape.refcount_bits;
    uint64_t first = offset * 8 / bits, count = len * 8 / bits;

    for (uint64_t i = 0; i < count; i++)
        put_count(bytes, i, bits, qcow2_space_count(&core->space, first + i));
}

static void make_reftable(const struct qcow2_finish *finish, uint64_t offset, unsigned char *bytes,
                          uint64_t len)
{
    unsigned cluster_bits = finish->writer->core->shape.cluster_bits;
    uint64_t blocks = (finish->places.reftable - finish->places.blocks) >> cluster_bits;

    for (uint64_t i = 0; i < len / 8 && offset / 8 + i < blocks; i++)
        put_count(bytes, i, 64, finish->places.blocks + ((offset / 8 + i) << cluster_bits));
}

static void make_l1(const struct qcow2_write_core *core, uint64_t offset, unsigned char *bytes,
                    uint64_t len)
{
    for (uint64_t i = 0; i < len / 8 && offset / 8 + i < core->shape.tables; i++) {
        uint64_t host = core->fills.stored[offset / 8 + i];

        put_count(bytes, i, 64, host ? host | COPIED : 0);
    }
}

/* [at, at + len) of what is last, within one of the three. Everybody else is idle: nothing to lock. */
static void make_bytes(const struct qcow2_finish *finish, uint64_t at, unsigned char *bytes,
                       uint64_t len)
{
    const struct qcow2_write_core *core = finish->writer->core;
    const struct qcow2_places *places = &finish->places;

    memset(bytes, 0, len);
    if (at < places->reftable)
        make_blocks(core, at - places->blocks, bytes, len);
    else if (at < places->l1)
        make_reftable(finish, at - places->reftable, bytes, len);
    else
        make_l1(core, at - places->l1, bytes, len);
}

/* ---- The header ------------------------------------------------------------------------------- */

static void write_piece(struct finish_piece *piece, uint64_t offset, uint64_t skip, uint64_t len,
                        void (*done)(struct blk_req *req))
{
    piece->iov = (struct iovec){piece->bytes + skip, len};
    piece->req = (struct blk_req){.op = BLK_WRITE,
                                  .flags = BLK_FUA,
                                  .offset = offset,
                                  .len = len,
                                  .iov = &piece->iov,
                                  .iovcnt = 1,
                                  .done = done,
                                  .opaque = piece};
    blk_submit(piece->finish->writer->file, &piece->req);
}

static void file_finished(struct blk_task *task)
{
    struct qcow2_writer *writer = container_of(task, struct qcow2_writer, task);

    if (task->status < 0)
        fail(writer->finish, task->status, &task->error);
    end(writer->finish);
}

/* What is below may be made of others, too. */
static void header_written(struct blk_req *req)
{
    struct finish_piece *piece = req->opaque;
    struct qcow2_writer *writer = piece->finish->writer;

    if (req->status < 0) {
        fail(piece->finish, req->status, &req->error);
        end(piece->finish);
        return;
    }
    writer->task = (struct blk_task){.done = file_finished};
    blk_finish(writer->file, &writer->task);
}

/* The block with the magic, of which a disk writes all or nothing. */
static void write_magic(struct qcow2_finish *finish)
{
    write_piece(&finish->pieces[0], 0, 0, finish->block, header_written);
}

static void rest_written(struct blk_req *req)
{
    struct finish_piece *piece = req->opaque;

    if (req->status < 0) {
        fail(piece->finish, req->status, &req->error);
        end(piece->finish);
        return;
    }
    write_magic(piece->finish);
}

static void write_header(struct qcow2_finish *finish)
{
    const struct qcow2_write_core *core = finish->writer->core;
    struct finish_piece *piece = &finish->pieces[0];
    uint64_t cluster = qcow2_write_cluster(finish->writer), whole;
    uint32_t align = finish->writer->file->limits.align;

    memset(piece->bytes, 0, cluster);
    finish->header_len =
        qcow2_write_header(&core->layout, &core->shape, &finish->places, piece->bytes, cluster);
    assert(finish->header_len > 0);
    finish->block = align > SECTOR ? align : SECTOR;
    whole = round_up(finish->header_len, finish->block);
    if (whole > finish->block)
        write_piece(piece, finish->block, finish->block, whole - finish->block, rest_written);
    else
        write_magic(finish);
}

static void resized(struct blk_task *task)
{
    struct qcow2_writer *writer = container_of(task, struct qcow2_writer, task);

    if (task->status < 0 && task->status != -ENOTSUP) {
        fail(writer->finish, task->status, &task->error);
        end(writer->finish);
        return;
    }
    write_header(writer->finish);
}

/* What has a size of its own keeps it. */
static void resize(struct qcow2_finish *finish)
{
    struct qcow2_writer *writer = finish->writer;

    finish->step = FINISH_REST;
    if ((writer->file->caps & BLK_BARE) || writer->file->size == finish->places.end) {
        write_header(finish);
        return;
    }
    writer->task = (struct blk_task){.done = resized};
    blk_resize(writer->file, finish->places.end, &writer->task);
}

/* ---- What is last ----------------------------------------------------------------------------- */

static void write_last(struct qcow2_finish *finish);

static void last_written(struct blk_req *req)
{
    struct finish_piece *piece = req->opaque;

    piece->busy = false;
    piece->finish->awaited--;
    if (req->status < 0)
        fail(piece->finish, req->status, &req->error);
    write_last(piece->finish);
}

/* Pieces end where one of the three does. */
static uint64_t piece_end(const struct qcow2_finish *finish)
{
    const struct qcow2_places *places = &finish->places;
    uint64_t at = finish->at;
    uint64_t border = at < places->reftable ? places->reftable
                      : at < places->l1     ? places->l1
                                            : places->end;

    return min_u64(border, at + PIECE);
}

static void write_last(struct qcow2_finish *finish)
{
    for (unsigned i = 0; i < PIECES; i++) {
        struct finish_piece *piece = &finish->pieces[i];
        uint64_t at = finish->at, len;

        if (piece->busy || at == finish->places.end || finish->status < 0)
            continue;
        len = piece_end(finish) - at;
        piece->busy = true;
        finish->awaited++;
        finish->at += len;
        make_bytes(finish, at, piece->bytes, len);
        write_piece(piece, at, 0, len, last_written);
    }
    if (finish->awaited > 0)
        return;
    if (finish->status < 0)
        end(finish);
    else
        resize(finish);
}

/* With the lock held. */
static int find_places(struct qcow2_finish *finish, struct blk_error *error)
{
    struct qcow2_write_core *core = finish->writer->core;
    unsigned bits = core->shape.cluster_bits;
    struct qcow2_places *places = &finish->places;
    int status = qcow2_space_trim(&core->space, error);
    struct qcow2_last last;
    uint64_t host;

    if (status < 0)
        return status;
    last = qcow2_shape_last(&core->shape, core->space.end >> bits);
    if (last.reftable << bits > QCOW2_MAX_REFTABLE)
        return blk_error_set(error, EFBIG,
                             "its refcount table would become longer than the %u bytes that qcow2 "
                             "has for it; a larger cluster_size makes it shorter",
                             QCOW2_MAX_REFTABLE);
    status = qcow2_space_append(&core->space, last.blocks + last.reftable + last.l1, &host, error);
    *places = (struct qcow2_places){
        .blocks = host,
        .reftable = host + (last.blocks << bits),
        .reftable_clusters = last.reftable,
        .l1 = host + ((last.blocks + last.reftable) << bits),
        .end = core->space.end,
    };
    finish->at = host;
    return status;
}

static bool make_pieces(struct qcow2_finish *finish)
{
    uint64_t cluster = qcow2_write_cluster(finish->writer);

    for (unsigned i = 0; i < PIECES; i++) {
        finish->pieces[i].finish = finish;
        finish->pieces[i].bytes = aligned_alloc(4096, cluster > PIECE ? cluster : PIECE);
        if (!finish->pieces[i].bytes)
            return false;
    }
    return true;
}

static void begin_last(struct qcow2_finish *finish)
{
    struct qcow2_write_core *core = finish->writer->core;
    struct blk_error error;
    int status = 0;

    finish->step = FINISH_LAST;
    if (!make_pieces(finish))
        status = blk_error_set(&error, ENOMEM, "out of memory");
    pthread_mutex_lock(&core->lock);
    if (status == 0)
        status = find_places(finish, &error);
    pthread_mutex_unlock(&core->lock);
    if (status < 0)
        fail(finish, status, &error);
    write_last(finish);
}

/* ---- Tables ----------------------------------------------------------------------------------- */

static unsigned others(const struct qcow2_finish *finish)
{
    struct qcow2_write_core *core = finish->writer->core;
    unsigned count;

    pthread_mutex_lock(&core->lock);
    count = core->leaves - finish->writer->leaves;
    pthread_mutex_unlock(&core->lock);
    return count;
}

static void wait_for_others(struct qcow2_finish *finish, bool wait)
{
    struct qcow2_write_core *core = finish->writer->core;
    struct loop *loop = finish->writer->dev.loop;

    if (finish->waiting == wait)
        return;
    finish->waiting = wait;
    pthread_mutex_lock(&core->lock);
    core->finisher = wait ? loop : NULL;
    pthread_mutex_unlock(&core->lock);
    if (wait)
        loop_watch(loop, &finish->watch);
    else
        loop_unwatch(loop, &finish->watch);
}

static int core_status(const struct qcow2_finish *finish, struct blk_error *error, bool *more)
{
    struct qcow2_write_core *core = finish->writer->core;
    int status;

    pthread_mutex_lock(&core->lock);
    status = core->status;
    if (status < 0)
        *error = core->error;
    *more = core->fills.filling > 0;
    pthread_mutex_unlock(&core->lock);
    return status;
}

void qcow2_write_finish_on(struct qcow2_writer *writer)
{
    struct qcow2_finish *finish = writer->finish;
    uint64_t most = QCOW2_LAST_BYTES >> writer->core->shape.cluster_bits;
    struct blk_error error;
    bool more;
    int status;

    if (finish->step != FINISH_TABLES)
        return;
    if (others(finish) > 0) {
        wait_for_others(finish, true);
        return;
    }
    wait_for_others(finish, false);
    while (writer->leaves < QCOW2_LAST_LEAVES && qcow2_leave_any(writer, most > 1 ? most : 1))
        ;
    if (writer->leaves > 0)
        return;
    status = core_status(finish, &error, &more);
    if (status < 0) {
        fail(finish, status, &error);
        end(finish);
        return;
    }
    assert(!more);
    begin_last(finish);
}

static void prepare_watch(struct loop_watch *watch, struct loop_interest *interest)
{
    struct qcow2_finish *finish = container_of(watch, struct qcow2_finish, watch);

    if (others(finish) == 0)
        interest->deadline = 0;
}

static void serve_watch(struct loop_watch *watch, short revents)
{
    (void)revents;
    qcow2_write_finish_on(container_of(watch, struct qcow2_finish, watch)->writer);
}

void qcow2_write_finish(struct blk_dev *dev)
{
    struct qcow2_writer *writer = qcow2_writer_of(dev);
    struct blk_error error;

    assert(!writer->finish && !writer->filling && !writer->stalled);
    writer->finish = calloc(1, sizeof(*writer->finish));
    if (!writer->finish) {
        blk_task_done(dev, blk_error_set(&error, ENOMEM, "out of memory"), &error);
        return;
    }
    *writer->finish = (struct qcow2_finish){
        .writer = writer, .watch = {.prepare = prepare_watch, .service = serve_watch}};
    qcow2_write_finish_on(writer);
}
