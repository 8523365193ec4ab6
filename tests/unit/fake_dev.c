/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The devices on the disks of the fake world, and the registry that knows them. */
#include "fake_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* The next run of bytes that exist, from *offset on, before `end`. 0: there is none. */
static uint64_t next_run(const struct fake_disk *disk, uint64_t *offset, uint64_t end)
{
    uint64_t within = *offset % disk->stride;

    if (within >= disk->width) {
        *offset += disk->stride - within;
        within = 0;
    }
    return *offset >= end ? 0 : min_u64(disk->width - within, end - *offset);
}

/* What a device was told to be written and no FLUSH has covered. */
struct landing {
    uint64_t offset, len, number, epoch;
};

struct fake_dev {
    struct blk_dev dev;
    struct fake *fake;
    struct fake_disk *disk; /* NULL: there is no such file */
    enum { DEV_OPENING, DEV_OPEN, DEV_CANCELLED, DEV_CLOSING } state;
    bool clone;
    bool counted;       /* in disk->open */
    unsigned in_flight; /* requests, tasks */
    bool recovering;
    unsigned session;  /* of the disk; another one: it is away */
    uint64_t epochs;   /* that ended with a session of this device's own */
    uint64_t landed;   /* WRITEs, ZEROs and DISCARDs that have completed */
    unsigned served;   /* requests that made use of what the disk refuses later */
    unsigned refusals; /* of ZERO */
    struct landing *landings;
    size_t landing_count, landing_capacity;
    /* Of a stream: where the next READ begins, and those behind the one that is pending. */
    uint64_t position;
    struct blk_req *queue, **queue_end;
};

static struct fake_dev *fake_of(struct blk_dev *dev)
{
    return (struct fake_dev *)dev;
}

static struct fake_end *end_of(const struct url *url)
{
    return container_of((uintptr_t)url, struct fake_end, url);
}

static void open_on(struct blk_dev *dev, struct fake *fake, struct fake_disk *disk)
{
    struct fake_dev *fake_dev = fake_of(dev);
    struct fake_op op = {.kind = FAKE_OPEN, .dev = fake_dev};

    fake_dev->fake = fake;
    fake_dev->disk = disk;
    fake_add(fake, &op);
}

static void fake_open(struct blk_dev *dev, const struct blk_open_args *args)
{
    struct fake_end *end = end_of(args->url);
    struct fake_file *file;

    if (end->disk) {
        open_on(dev, end->disk->fake, end->disk);
        return;
    }
    if (args->store)
        must(end->fs->fake, ((struct fake_store *)args->store)->fs == end->fs);
    file = fake_fs_find(end->fs, args->store ? args->name : strrchr(end->path, '/') + 1);
    open_on(dev, end->fs->fake, file ? file->disk : NULL);
}

static void fake_clone(struct blk_dev *dev, const struct blk_dev *origin, unsigned number)
{
    const struct fake_dev *from = (const struct fake_dev *)origin;

    (void)number;
    fake_of(dev)->clone = true;
    open_on(dev, from->fake, from->disk);
}

static void fake_close(struct blk_dev *dev)
{
    struct fake_dev *fake_dev = fake_of(dev);
    struct fake_op op = {.kind = FAKE_CLOSE, .dev = fake_dev};

    must(fake_dev->fake, fake_dev->in_flight == 0 && fake_dev->state != DEV_CLOSING);
    must(fake_dev->fake, !fake_dev->recovering);
    fake_dev->state = DEV_CLOSING;
    fake_add(fake_dev->fake, &op);
}

static void start_task(struct blk_dev *dev, struct fake_op *op)
{
    struct fake_dev *fake_dev = fake_of(dev);

    must(fake_dev->fake, fake_dev->state == DEV_OPEN && !fake_dev->recovering);
    fake_dev->in_flight++;
    op->dev = fake_dev;
    fake_add(fake_dev->fake, op);
}

static void fake_resize(struct blk_dev *dev, uint64_t size)
{
    struct fake_op op = {.kind = FAKE_RESIZE, .size = size};

    start_task(dev, &op);
}

static void fake_do_finish(struct blk_dev *dev)
{
    struct fake_op op = {.kind = FAKE_FINISH};

    start_task(dev, &op);
}

static void fake_reserve(struct blk_dev *dev, const struct blk_reservation *how)
{
    struct fake_op op = {.kind = FAKE_RESERVE, .key = how->key};

    start_task(dev, &op);
}

static void fake_recover(struct blk_dev *dev)
{
    struct fake_dev *fake_dev = fake_of(dev);
    struct fake_op op = {.kind = FAKE_RECOVER, .dev = fake_dev};

    must(fake_dev->fake, fake_dev->state == DEV_OPENING || fake_dev->state == DEV_OPEN);
    must(fake_dev->fake, fake_dev->in_flight == 0 && !fake_dev->recovering);
    fake_dev->recovering = true;
    fake_add(fake_dev->fake, &op);
}

/* ---- Streams ---------------------------------------------------------------------------------- */

static bool is_stream(const struct fake_dev *dev)
{
    return strcmp(dev->dev.driver->scheme, "stream") == 0;
}

static void add_read(struct fake_dev *dev, struct blk_req *req)
{
    struct fake_op op = {.kind = FAKE_REQ, .dev = dev, .req = req};

    fake_add(dev->fake, &op);
}

static void stream_submit(struct blk_dev *blk_dev, struct blk_req *req)
{
    struct fake_dev *dev = fake_of(blk_dev);

    must(dev->fake, dev->state == DEV_OPEN && req->op == BLK_READ);
    must(dev->fake, req->offset == dev->position);
    dev->position += req->len;
    req->next = NULL;
    if (dev->in_flight++ == 0) {
        dev->queue_end = &dev->queue;
        add_read(dev, req);
        return;
    }
    *dev->queue_end = req;
    dev->queue_end = &req->next;
}

static struct blk_req *take_queued(struct fake_dev *dev)
{
    struct blk_req *req = dev->queue;

    if (req)
        dev->queue = req->next;
    if (!dev->queue)
        dev->queue_end = &dev->queue;
    return req;
}

static void stream_next(struct fake_dev *dev)
{
    struct blk_req *req = is_stream(dev) ? take_queued(dev) : NULL;

    if (req)
        add_read(dev, req);
}

static void fake_cancel_all(struct blk_dev *dev)
{
    struct fake_dev *fake_dev = fake_of(dev);

    must(fake_dev->fake, fake_dev->state != DEV_CLOSING);
    fake_dev->state = DEV_CANCELLED;
    fake_cancel(fake_dev->fake, fake_dev, NULL);
    for (struct blk_req *req; (req = take_queued(fake_dev)) != NULL; fake_dev->in_flight--)
        blk_complete(req, -ECANCELED);
}

/* ---- Sessions --------------------------------------------------------------------------------- */

bool fake_dev_is_away(const struct fake_dev *dev)
{
    return dev->session != dev->disk->session;
}

bool fake_dev_is_on(const struct fake_dev *dev, const struct fake_disk *disk)
{
    return dev->disk == disk;
}

void fake_dev_end_session(struct fake_dev *dev, bool applies)
{
    dev->session = 0;
    fake_hang_up(dev->fake, dev, NULL, NULL, applies);
}

void fake_dev_lose(struct blk_dev *dev, bool applies)
{
    fake_dev_end_session(fake_of(dev), applies);
}

static void begin_session(struct fake_dev *dev)
{
    if (dev->session && dev->session != dev->disk->session)
        dev->session = 0;
    if (dev->session == 0 && dev->counted && dev->disk->epoch_of_session)
        dev->epochs++;
    dev->session = dev->disk->session;
}

/* As this device sees it. */
static uint64_t epoch_of(const struct fake_dev *dev)
{
    return dev->disk->epoch + (dev->epochs << 32);
}

/* ---- What drivers are promised ---------------------------------------------------------------- */

static void check_buffers(const struct fake_dev *dev, const struct blk_req *req)
{
    uint64_t sum = 0;

    for (int i = 0; i < req->iovcnt; i++) {
        must(dev->fake, (uintptr_t)req->iov[i].iov_base % dev->dev.limits.mem_align == 0);
        sum += req->iov[i].iov_len;
    }
    must(dev->fake, sum == (req->op == BLK_READ || req->op == BLK_WRITE ? req->len : 0));
}

static void check_range(const struct fake_dev *dev, const struct blk_req *req)
{
    const struct blk_limits *limits = &dev->dev.limits;
    uint64_t end = req->offset + req->len;
    uint64_t max = req->op == BLK_READ    ? limits->max_read
                   : req->op == BLK_WRITE ? limits->max_write
                   : req->op == BLK_ZERO  ? limits->max_zero
                                          : limits->max_discard;

    must(dev->fake, req->len > 0 && req->len <= dev->dev.size && end <= dev->dev.size);
    if (req->op == BLK_EXTENTS)
        return;
    must(dev->fake, req->len <= max);
    must(dev->fake, req->offset % limits->align == 0);
    must(dev->fake, req->len % limits->align == 0 || end == dev->dev.size);
    if ((req->op == BLK_DISCARD || (req->flags & BLK_MAY_UNMAP)) && limits->unmap_granule > 0) {
        must(dev->fake, req->offset >= limits->unmap_phase);
        must(dev->fake, (req->offset - limits->unmap_phase) % limits->unmap_granule == 0);
        must(dev->fake, req->len % limits->unmap_granule == 0);
    }
    check_buffers(dev, req);
}

static bool is_writing(const struct blk_req *req)
{
    return req->op == BLK_WRITE || req->op == BLK_ZERO || req->op == BLK_DISCARD;
}

static void check_capable(const struct fake_dev *dev, const struct blk_req *req)
{
    unsigned caps = dev->dev.caps;

    must(dev->fake, dev->dev.writable || !is_writing(req));
    must(dev->fake, req->op != BLK_ZERO || (caps & BLK_CAN_ZERO));
    must(dev->fake, req->op != BLK_EXTENTS || (caps & BLK_CAN_EXTENTS));
    must(dev->fake, req->op != BLK_DISCARD || (caps & BLK_CAN_DISCARD));
    if (req->flags & BLK_FUA)
        must(dev->fake, (caps & BLK_CAN_FUA) && (req->op == BLK_READ || req->op == BLK_WRITE));
    if (req->flags & BLK_MAY_UNMAP)
        must(dev->fake, (caps & BLK_CAN_UNMAP) && req->op == BLK_ZERO);
}

/* No other write that overlaps this one (a READ may share a block with one), and the order that was
 * asked for. Other threads' requests are not looked at. */
static void check_others(struct fake_dev *dev, const struct blk_req *req)
{
    struct fake_disk *disk = dev->disk;

    for (unsigned i = 0; i < dev->fake->pending_count && is_writing(req); i++) {
        const struct fake_op *op = &dev->fake->pending[i];

        if (op->kind == FAKE_REQ && op->dev->disk == disk && is_writing(op->req))
            must(dev->fake, req->offset + req->len <= op->req->offset ||
                                op->req->offset + op->req->len <= req->offset);
    }
    if (req->op == BLK_READ)
        disk->bytes_asked += req->len;
    if (req->op != BLK_WRITE)
        return;
    if (disk->in_order)
        must(dev->fake, disk->bytes_landed >= req->offset - req->offset % disk->in_order);
    if (req->offset >= disk->ascending_from) {
        must(dev->fake, req->offset >= disk->next_write);
        disk->next_write = req->offset + req->len;
    }
}

static void fake_submit(struct blk_dev *blk_dev, struct blk_req *req)
{
    struct fake_dev *dev = fake_of(blk_dev);
    struct fake_op op = {
        .kind = FAKE_REQ,
        .dev = dev,
        .req = req,
        .covers = dev->landed,
        .refusals = dev->refusals,
    };

    must(dev->fake, dev->state == DEV_OPEN && !dev->recovering);
    must(dev->fake, ++dev->in_flight <= blk_dev->limits.max_depth);
    if (req->op != BLK_FLUSH)
        check_range(dev, req);
    check_capable(dev, req);
    if (!dev->fake->automatic && req->op != BLK_FLUSH)
        check_others(dev, req);
    fake_space_log(dev->disk, req);
    fake_add(dev->fake, &op);
}

/* ---- Completing ------------------------------------------------------------------------------- */

static void set_up(struct fake_dev *dev)
{
    struct fake_disk *disk = dev->disk;

    dev->counted = true;
    disk->open++;
    dev->dev.size = is_stream(dev) ? BLK_SIZE_UNKNOWN : disk->size;
    dev->dev.limits = disk->limits;
    dev->dev.caps = disk->caps;
    dev->dev.round_trip = disk->round_trip;
    dev->dev.identity = disk->identity ? strdup(disk->identity) : NULL;
    dev->dev.opened = (struct blk_stamp){.size = disk->size, .mtime_ns = disk->mtime_ns};
    if (dev->state == DEV_OPENING)
        dev->state = DEV_OPEN;
}

static void complete_open(struct fake *fake, const struct fake_op *op)
{
    struct fake_dev *dev = op->dev;
    struct blk_error error;
    bool applies;
    int status = fake_outcome(fake, op, &error, &applies);

    if (status == -ECANCELED && fake->cancel_applies)
        status = 0;
    if (status == 0 && !dev->disk)
        status = blk_error_set(&error, ENOENT, "there is no such file");
    if (status < 0) {
        fake->failed_opens += !dev->clone;
        blk_opened(&dev->dev, status, status == -ECANCELED ? NULL : &error);
        return;
    }
    set_up(dev);
    begin_session(dev);
    blk_opened(&dev->dev, 0, NULL);
}

/* Of a clone whose opening was lost too. */
static void complete_recover(struct fake *fake, const struct fake_op *op)
{
    struct fake_dev *dev = op->dev;
    struct fake_disk *disk = dev->disk;
    struct blk_error error;
    int status =
        fake_look_again(fake, op, fake_dev_is_away(dev), &disk->recover_lost, disk->other, &error);

    dev->recovering = false;
    if (status == 0) {
        begin_session(dev);
        if (!dev->counted)
            set_up(dev);
        dev->dev.seen = (struct blk_stamp){.size = disk->size, .mtime_ns = disk->mtime_ns};
    }
    blk_recovered(&dev->dev, status, status == -ECANCELED ? NULL : &error);
}

static void complete_close(const struct fake_op *op)
{
    struct fake_dev *dev = op->dev;

    if (dev->counted)
        dev->disk->open--;
    free(dev->landings);
    blk_closed(&dev->dev);
}

static void complete_task(struct fake *fake, const struct fake_op *op)
{
    struct fake_disk *disk = op->dev->disk;
    struct blk_error error;
    bool applies;
    int status = fake_outcome(fake, op, &error, &applies);

    op->dev->in_flight--;
    if (applies && op->kind == FAKE_RESIZE)
        fake_disk_resize(disk, op->size);
    if (applies && op->kind == FAKE_FINISH)
        disk->finished++;
    if (applies && op->kind == FAKE_RESERVE)
        disk->reserved = op->key;
    if (status == 0)
        op->dev->dev.size = disk->size;
    blk_task_done(&op->dev->dev, status, status == -ECANCELED ? NULL : &error);
}

static void add_landing(struct fake_dev *dev, const struct blk_req *req)
{
    if (dev->landing_count == dev->landing_capacity) {
        dev->landing_capacity = 2 * dev->landing_capacity + 16;
        dev->landings = realloc(dev->landings, dev->landing_capacity * sizeof(*dev->landings));
        must(dev->fake, dev->landings);
    }
    dev->landings[dev->landing_count++] = (struct landing){
        .offset = req->offset,
        .len = req->len,
        .number = dev->landed,
        .epoch = epoch_of(dev),
    };
}

static void make_durable(struct fake_disk *disk, uint64_t offset, uint64_t len)
{
    uint64_t first = fake_disk_index(disk, offset), end = fake_disk_index(disk, offset + len);

    memcpy(disk->durable + first, disk->written + first, end - first);
}

static void land(struct fake_dev *dev, struct blk_req *req)
{
    struct fake_disk *disk = dev->disk;
    uint64_t end = req->offset + req->len, run;
    bool scrambles = req->op == BLK_DISCARD && disk->discard_scrambles;
    bool frees = !scrambles && (req->op == BLK_DISCARD || (req->flags & BLK_MAY_UNMAP));

    if (end > disk->size) /* blk_open_end() */
        fake_disk_resize(disk, end);
    for (uint64_t at = req->offset; (run = next_run(disk, &at, end)) > 0; at += run) {
        unsigned char *to = disk->written + fake_disk_index(disk, at);

        if (req->op == BLK_WRITE)
            blk_iov_to(req, at - req->offset, to, run);
        else
            memset(to, scrambles ? 0xdd : 0, run);
    }
    fake_space_mark(disk, req->offset, req->len, frees ? BLK_ZEROS : BLK_DATA);
    dev->landed++;
    if (req->op == BLK_WRITE && !dev->fake->automatic)
        disk->bytes_landed += req->len;
    req->durable = disk->write_through || (req->flags & BLK_FUA) ||
                   (req->op == BLK_ZERO && disk->zero_durable);
    if (req->durable)
        make_durable(disk, req->offset, req->len);
    else
        add_landing(dev, req);
    req->epoch = epoch_of(dev);
}

static void fetch(const struct fake_dev *dev, struct blk_req *req)
{
    uint64_t end = req->offset + req->len, run;

    if (is_stream(dev)) {
        end = min_u64(end, dev->disk->size);
        req->got = end > req->offset ? end - req->offset : 0;
    }

    for (int i = 0; i < req->iovcnt && dev->disk->zero_between; i++)
        memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
    for (uint64_t at = req->offset; (run = next_run(dev->disk, &at, end)) > 0; at += run)
        blk_iov_from(req, at - req->offset, dev->disk->written + fake_disk_index(dev->disk, at),
                     run);
}

static void flush(struct fake_dev *dev, const struct fake_op *op)
{
    size_t kept = 0;

    for (size_t i = 0; i < dev->landing_count; i++) {
        const struct landing *landing = &dev->landings[i];

        if (landing->number > op->covers)
            dev->landings[kept++] = *landing;
        else if (landing->epoch == epoch_of(dev))
            make_durable(dev->disk, landing->offset, landing->len);
    }
    dev->landing_count = kept;
    op->req->epoch = epoch_of(dev);
}

static int medium_error(const struct fake_disk *disk, struct blk_req *req)
{
    if (req->op != BLK_READ || req->offset >= disk->bad_to ||
        req->offset + req->len <= disk->bad_from)
        return 0;
    req->bad_offset = req->offset > disk->bad_from ? req->offset : disk->bad_from;
    return blk_error_set_retry(&req->error, EIO, BLK_MEDIUM, "the fake cannot read that");
}

/* Which of the capabilities a request makes use of. */
static unsigned needs(const struct blk_req *req)
{
    switch (req->op) {
    case BLK_ZERO:
        return BLK_CAN_ZERO | (req->flags & BLK_MAY_UNMAP ? BLK_CAN_UNMAP : 0);
    case BLK_EXTENTS:
        return BLK_CAN_EXTENTS;
    case BLK_DISCARD:
        return BLK_CAN_DISCARD;
    default:
        return 0;
    }
}

/* What there is to zero with is less than it was. */
static void lose_zero(struct fake_dev *dev)
{
    if (dev->refusals++ > 0 || dev->disk->zero_left == 0) {
        dev->dev.caps &= ~(unsigned)(BLK_CAN_ZERO | BLK_CAN_UNMAP);
    } else {
        dev->dev.caps &= ~(unsigned)BLK_CAN_UNMAP;
        dev->dev.limits.max_zero = dev->disk->zero_left;
    }
}

/* The device finds out that it is not capable of something; or has, since this was submitted. */
static int refusal(struct fake_dev *dev, const struct fake_op *op)
{
    unsigned refused = needs(op->req) & dev->disk->refuses;
    bool again = dev->disk->zero_left > 0 && op->refusals > 0;

    if (refused == 0 || (op->req->op == BLK_ZERO && again))
        return 0;
    if (dev->served++ < dev->disk->refuse_after)
        return 0;
    if (op->refusals == dev->refusals && (refused & BLK_CAN_ZERO))
        lose_zero(dev);
    dev->dev.caps &= ~(refused & ~(unsigned)BLK_CAN_ZERO);
    return blk_error_set(&op->req->error, ENOTSUP, "the fake cannot do that after all");
}

/* The array is the driver's to change. */
static void shred(struct blk_req *req)
{
    for (int i = 0; i < req->iovcnt; i++)
        req->iov[i] = (struct iovec){NULL, (size_t)-1};
    req->iovcnt = 0;
}

static void complete_req(struct fake *fake, const struct fake_op *op)
{
    struct fake_dev *dev = op->dev;
    struct blk_req *req = op->req;
    bool applies;
    int status = fake_outcome(fake, op, &req->error, &applies);

    dev->in_flight--;
    if (status == 0)
        status = medium_error(dev->disk, req);
    if (status == 0)
        status = refusal(dev, op);
    if (status == -ENOTSUP && dev->disk->refuses)
        applies = false;
    if (applies && is_writing(req))
        land(dev, req);
    else if (applies && req->op == BLK_FLUSH)
        flush(dev, op);
    else if (status == 0 && req->op == BLK_READ)
        fetch(dev, req);
    else if (status == 0)
        fake_space_answer(dev->disk, req);
    if (status == 0 && req->op == BLK_READ && op->number == fake->fault.number)
        req->got = req->len - 1;
    if (status < 0 && !op->cancelled && fake->fault.bad_offset)
        req->bad_offset = fake->fault.bad_offset;
    shred(req);
    blk_complete(req, status);
    stream_next(dev);
}

void fake_complete_device(struct fake *fake, const struct fake_op *op)
{
    switch (op->kind) {
    case FAKE_OPEN:
        complete_open(fake, op);
        break;
    case FAKE_CLOSE:
        complete_close(op);
        break;
    case FAKE_RESIZE:
    case FAKE_FINISH:
    case FAKE_RESERVE:
        complete_task(fake, op);
        break;
    case FAKE_RECOVER:
        complete_recover(fake, op);
        break;
    default:
        complete_req(fake, op);
        break;
    }
}

/* ---- The drivers ------------------------------------------------------------------------------ */

static void set_end(struct fake_end *end, const char *scheme, const char *path)
{
    memset(end, 0, sizeof(*end));
    snprintf(end->scheme, sizeof(end->scheme), "%s", scheme);
    snprintf(end->path, sizeof(end->path), "%s", path);
    snprintf(end->text, sizeof(end->text), "%s:%s", scheme, path);
    end->url.scheme = end->scheme;
    end->url.path = end->path;
    end->url.text = end->text;
}

void fake_end_disk(struct fake_end *end, struct fake_disk *disk, const char *scheme,
                   const char *name)
{
    set_end(end, scheme, name);
    end->disk = disk;
}

void fake_end_file(struct fake_end *end, struct fake_fs *fs, const char *name)
{
    char path[300];

    snprintf(path, sizeof(path), "/dir/%s", name);
    set_end(end, "fakefs", path);
    end->fs = fs;
}

#define HOOKS                                                                                      \
    .name = "fake", .dev_size = sizeof(struct fake_dev), .open = fake_open, .close = fake_close,   \
    .submit = fake_submit, .recover = fake_recover, .cancel_all = fake_cancel_all

static const struct blk_driver fake_driver = {HOOKS, .scheme = "fake", .syntax = "fake:NAME",
                                              .clone = fake_clone};

static const struct blk_driver single_driver = {HOOKS, .scheme = "single", .syntax = "single:NAME"};

static const struct blk_driver full_driver = {
    HOOKS,
    .scheme = "full",
    .syntax = "full:NAME",
    .clone = fake_clone,
    .resize = fake_resize,
    .finish = fake_do_finish,
    .reserve = fake_reserve,
};

static const struct blk_driver fakefs_driver = {
    HOOKS,
    .scheme = "fakefs",
    .syntax = "fakefs:/DIR/NAME",
    .clone = fake_clone,
    .resize = fake_resize,
    .store = &fake_store_driver,
};

static const struct blk_driver stream_of_fakes = {
    .name = "fake",
    .scheme = "stream",
    .syntax = "stream:NAME",
    .dev_size = sizeof(struct fake_dev),
    .open = fake_open,
    .close = fake_close,
    .submit = stream_submit,
    .cancel_all = fake_cancel_all,
};

extern const struct blk_driver iscsi_driver, nfs_driver, file_driver, null_driver, ram_driver,
    random_driver, stream_driver;

/* The real ones too, because this file is linked into the tests of the real ones as well. */
static const struct blk_driver *const drivers[] = {
    &fake_driver, &single_driver, &full_driver, &fakefs_driver, &iscsi_driver,  &nfs_driver,
    &file_driver, &null_driver,   &ram_driver,  &random_driver, &stream_driver, &stream_of_fakes,
};

const struct blk_driver *const *blk_drivers(size_t *count)
{
    *count = sizeof(drivers) / sizeof(drivers[0]);
    return drivers;
}

const struct blk_driver *blk_driver_find(const char *scheme)
{
    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
        if (strcmp(drivers[i]->scheme, scheme) == 0)
            return drivers[i];
    }
    return NULL;
}
