/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The device that writes a qcow2 image: its life, and what the file below is asked to do. */
#include "qcow2_write.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* Requests at once; those that wait in a pack are among them. */
#define MAX_DEPTH 1024

/* ---- The core --------------------------------------------------------------------------------- */

static void free_core(struct qcow2_write_core *core)
{
    qcow2_fills_release(&core->fills);
    qcow2_space_release(&core->space);
    pthread_mutex_destroy(&core->lock);
    free(core->backing);
    free(core->backing_format);
    free(core);
}

static bool copy_string(const char *from, char **to)
{
    *to = from ? strdup(from) : NULL;
    return *to || !from;
}

/* NULL: out of memory. */
static struct qcow2_write_core *new_core(const struct image_make *make)
{
    struct qcow2_write_core *core = calloc(1, sizeof(*core));

    if (!core)
        return NULL;
    if (pthread_mutex_init(&core->lock, NULL) != 0) {
        free(core);
        return NULL;
    }
    core->users = 1;
    core->layout = make->layout;
    qcow2_shape_init(&core->shape, &make->layout, make->size);
    qcow2_space_init(&core->space, core->shape.cluster_bits, make->file->size, core->shape.arena);
    if (!copy_string(make->layout.backing, &core->backing) ||
        !copy_string(make->layout.backing_format, &core->backing_format)) {
        free_core(core);
        return NULL;
    }
    core->layout.backing = core->backing;
    core->layout.backing_format = core->backing_format;
    return core;
}

static void drop_core(struct qcow2_write_core *core)
{
    unsigned users;

    pthread_mutex_lock(&core->lock);
    users = --core->users;
    pthread_mutex_unlock(&core->lock);
    if (users == 0)
        free_core(core);
}

void qcow2_write_fail(struct qcow2_write_core *core, int status, const struct blk_error *error)
{
    if (core->status < 0 && !(core->status == -ECANCELED && status != -ECANCELED))
        return;
    core->status = status;
    core->error = *error;
    core->error.retry = BLK_FATAL;
}

/* ---- What it is like -------------------------------------------------------------------------- */

/* Never smaller than the disk, and another one as soon as the file's is. */
static struct blk_stamp stamp(const struct qcow2_writer *writer, const struct blk_stamp *file)
{
    struct blk_stamp stamp = *file;

    stamp.size =
        file->size > UINT64_MAX - writer->dev.size ? UINT64_MAX : file->size + writer->dev.size;
    return stamp;
}

static char *identity(const struct blk_dev *file)
{
    char *text = NULL;

    if (file->identity && asprintf(&text, "new qcow2(%s)", file->identity) < 0)
        return NULL;
    return text;
}

/* Not BLK_BARE, whatever the file is: nothing shows before the header. */
static void set_up(struct qcow2_writer *writer)
{
    const struct qcow2_write_core *core = writer->core;
    struct blk_dev *dev = &writer->dev, *file = writer->file;
    uint32_t cluster = core->layout.cluster_size;
    uint32_t max_write = (uint32_t)round_down(file->limits.max_write, cluster);

    dev->caps = BLK_CAN_ZERO | BLK_CAN_UNMAP | (file->caps & BLK_CAN_FUA);
    if (core->layout.version == 2 && core->layout.backing)
        dev->caps &= ~(unsigned)(BLK_CAN_ZERO | BLK_CAN_UNMAP);
    dev->limits = (struct blk_limits){
        .align = cluster,
        .mem_align = file->limits.mem_align,
        .max_read = cluster,
        .max_write = max_write ? max_write : cluster,
        .max_zero = round_down(UINT64_MAX, cluster),
        .max_depth = MAX_DEPTH,
    };
    dev->round_trip = file->round_trip;
    dev->session_id = file->session_id;
    dev->identity = identity(file);
    dev->opened = stamp(writer, &file->opened);
}

static void describe(struct blk_dev *dev, struct blk_report *report)
{
    const struct qcow2_writer *writer = qcow2_writer_of(dev);
    const struct image_layout *layout = &writer->core->layout;

    blk_report_fact(report, "format", "format", "qcow2");
    blk_report_fact(report, "version", "version", "%u", layout->version);
    blk_report_fact(report, "virtual-size", "virtual size", "%" PRIu64, writer->core->shape.size);
    blk_report_fact(report, "cluster-size", "cluster size", "%" PRIu32, layout->cluster_size);
    blk_report_fact(report, "refcount-bits", "refcount bits", "%u", layout->refcount_bits);
    blk_report_fact(report, "extended-l2", "extended L2 entries", "%s",
                    layout->extended_l2 ? "yes" : "no");
    blk_report_fact(report, "lazy-refcounts", "lazy refcounts", "%s",
                    layout->lazy_refcounts ? "yes" : "no");
    blk_report_fact(report, "compression", "compression", "%s",
                    !layout->compress                   ? "none"
                    : layout->compression == IMAGE_ZSTD ? "zstd"
                                                        : "zlib");
    if (layout->backing)
        report->fact(report, "backing-name", "backing name", layout->backing);
    if (layout->backing_format)
        report->fact(report, "backing-name-format", "backing format", layout->backing_format);
    blk_report_fact(report, "file", "file", "%s", writer->file->name);
}

/* ---- What the file is asked to do ------------------------------------------------------------- */

static struct qcow2_writer *writer_asking(struct blk_task *task)
{
    return container_of(task, struct qcow2_writer, task);
}

static struct blk_task *ask(struct qcow2_writer *writer, void (*done)(struct blk_task *task))
{
    writer->task = (struct blk_task){.done = done};
    return &writer->task;
}

static void looked(struct blk_task *task)
{
    struct qcow2_writer *writer = writer_asking(task);

    task->error.retry = BLK_FATAL;
    if (task->status == 0)
        writer->dev.seen = stamp(writer, &writer->file->seen);
    blk_recovered(&writer->dev, task->status, &task->error);
}

static void look_now(struct qcow2_writer *writer)
{
    blk_recheck(writer->file, ask(writer, looked));
}

/* Only ever asked for: what is lost below is found again there. */
static void look_below(struct blk_dev *dev)
{
    qcow2_leave_settle(qcow2_writer_of(dev), look_now);
}

static void reserved(struct blk_task *task)
{
    task->error.retry = BLK_FATAL;
    blk_task_done(&writer_asking(task)->dev, task->status, &task->error);
}

static void reserve_below(struct blk_dev *dev, const struct blk_reservation *how)
{
    struct qcow2_writer *writer = qcow2_writer_of(dev);

    blk_reserve(writer->file, how, ask(writer, reserved));
}

static void hurry_below(struct blk_dev *dev, uint64_t ns)
{
    blk_hurry(qcow2_writer_of(dev)->file, ns);
}

static void push(struct blk_dev *dev)
{
    struct qcow2_writer *writer = qcow2_writer_of(dev);

    qcow2_pack_push(writer);
    writer->pushed = writer->stalled != NULL;
    blk_push(writer->file);
}

static void cancel(struct blk_dev *dev)
{
    struct qcow2_writer *writer = qcow2_writer_of(dev);

    qcow2_pack_cancel(writer);
    qcow2_write_cancel(writer);
    if (writer->file)
        blk_cancel_all(writer->file);
}

/* ---- Closing ---------------------------------------------------------------------------------- */

static void closed(struct blk_task *task)
{
    struct qcow2_writer *writer = writer_asking(task);

    drop_core(writer->core);
    blk_closed(&writer->dev);
}

static void close_now(struct qcow2_writer *writer)
{
    struct blk_dev *file = writer->file;

    qcow2_pack_release(writer);
    qcow2_leave_release(writer);
    qcow2_write_free_shares(writer);
    writer->file = NULL;
    if (file)
        blk_close(file, ask(writer, closed));
    else
        closed(ask(writer, closed));
}

/* Tables of other clones may be on their way here: they get there first. */
static void close_below(struct blk_dev *dev)
{
    qcow2_leave_settle(qcow2_writer_of(dev), close_now);
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void opened(struct qcow2_writer *writer, int status, struct blk_error *error)
{
    if (status == 0 && writer->core->layout.compress)
        status = qcow2_pack_init(writer, error);
    if (status == 0)
        set_up(writer);
    else
        error->retry = BLK_FATAL;
    blk_opened(&writer->dev, status, error);
}

static void cloned(struct blk_task *task)
{
    struct qcow2_writer *writer = writer_asking(task);

    if (task->status == 0 && writer->core->space.limit == INT64_MAX)
        blk_open_end(writer->file);
    opened(writer, task->status, &task->error);
}

static void clone_below(struct blk_dev *dev, const struct blk_dev *origin, unsigned number)
{
    const struct qcow2_writer *from = (const struct qcow2_writer *)origin;
    struct qcow2_writer *writer = qcow2_writer_of(dev);
    struct blk_error error;

    writer->core = from->core;
    writer->stalled_end = &writer->stalled;
    dev->size = origin->size;
    pthread_mutex_lock(&writer->core->lock);
    writer->core->users++;
    pthread_mutex_unlock(&writer->core->lock);
    writer->file = blk_clone(dev->loop, from->file, number, ask(writer, cloned));
    if (!writer->file)
        blk_opened(dev, blk_error_set(&error, ENOMEM, "out of memory"), &error);
}

static const struct blk_driver write_driver = {
    .name = "new qcow2",
    .dev_size = sizeof(struct qcow2_writer),
    .req_size = sizeof(struct qcow2_write_request),
    .relays = true,
    .clone = clone_below,
    .recover = look_below,
    .reserve = reserve_below,
    .close = close_below,
    .submit = qcow2_write_submit,
    .cancel_all = cancel,
    .push = push,
    .hurry = hurry_below,
    .finish = qcow2_write_finish,
    .describe = describe,
};

static int check(const struct image_make *make, const struct qcow2_write_core *core,
                 struct blk_error *error)
{
    static const struct qcow2_places nowhere;
    const struct blk_dev *file = make->file;
    uint32_t cluster = make->layout.cluster_size;
    unsigned char *header;
    size_t len;
    int status = qcow2_shape_check(&make->layout, make->size, error);

    if (status < 0)
        return status;
    if (file->size == BLK_SIZE_UNKNOWN)
        return blk_error_set(error, EINVAL,
                             "%s cannot hold an image in qcow2: its parts are not written in order",
                             file->name);
    if (file->size < cluster)
        return blk_error_set(error, ENOSPC, "%s has no room for an image: it has %" PRIu64 " bytes",
                             file->name, file->size);
    if (file->limits.align > cluster)
        return blk_error_set(error, EINVAL,
                             "clusters of %" PRIu32 " bytes are smaller than the blocks of %s, "
                             "which have %" PRIu32 "; use -o cluster_size=%" PRIu32 " or more",
                             cluster, file->name, file->limits.align, file->limits.align);
    header = calloc(1, cluster);
    if (!header)
        return blk_error_set(error, ENOMEM, "out of memory");
    len = qcow2_write_header(&core->layout, &core->shape, &nowhere, header, cluster);
    free(header);
    return len > 0 ? 0
                   : blk_error_set(error, EINVAL,
                                   "the name of the backing file does not fit into a cluster of "
                                   "%" PRIu32 " bytes",
                                   cluster);
}

static void blanked(struct blk_req *req)
{
    struct qcow2_writer *writer = req->opaque;

    free(writer->first_iov.iov_base);
    opened(writer, req->status, &req->error);
}

/* What was there before may have begun with a magic. */
static int blank_first(struct qcow2_writer *writer, struct blk_error *error)
{
    uint64_t cluster = qcow2_write_cluster(writer);

    writer->first_iov = (struct iovec){calloc(1, cluster), cluster};
    if (!writer->first_iov.iov_base)
        return blk_error_set(error, ENOMEM, "out of memory");
    writer->first = (struct blk_req){.op = BLK_WRITE,
                                     .flags = BLK_FUA,
                                     .len = cluster,
                                     .iov = &writer->first_iov,
                                     .iovcnt = 1,
                                     .done = blanked,
                                     .opaque = writer};
    blk_submit(writer->file, &writer->first);
    return 0;
}

struct blk_dev *qcow2_write_open(struct loop *loop, const struct image_make *make,
                                 uint64_t table_bytes, struct blk_task *task)
{
    struct qcow2_write_core *core = new_core(make);
    struct blk_dev *dev = core ? blk_new(loop, &write_driver, make->name, true, task) : NULL;
    struct qcow2_writer *writer;
    struct blk_error error;
    int status;

    assert(make->layout.format == IMAGE_QCOW2 && make->file && make->file->writable);
    if (!dev) {
        if (core)
            free_core(core);
        return NULL;
    }
    writer = qcow2_writer_of(dev);
    writer->core = core;
    writer->file = make->file;
    writer->stalled_end = &writer->stalled;
    dev->size = make->size;
    status = check(make, core, &error);
    if (status == 0 && qcow2_fills_init(&core->fills, &core->shape, table_bytes) < 0)
        status = blk_error_set(&error, ENOMEM, "out of memory");
    if (status == 0)
        status = blank_first(writer, &error);
    if (status < 0)
        blk_opened(dev, status, &error);
    return dev;
}
