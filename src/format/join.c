/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Parts of devices in a row: see include/lunferry/join.h. Here is the life of a join, and what its parts are
 * asked to do, all of them at once; join_requests.c deals out the requests. */
#include "join_private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* ---- What it is like -------------------------------------------------------------------------- */

static uint64_t saturated(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* The times are added up: the latest one would hide that a part has changed whose clock is behind. Zeros
 * count as bytes: the join is never larger than what it is made of. */
static struct blk_stamp stamp(const struct join *join, bool opened)
{
    struct blk_stamp sum = {0};

    for (size_t i = 0; i < join->count; i++) {
        const struct blk_dev *dev = join->parts[i].dev;
        const struct blk_stamp *one;

        if (join->parts[i].zeros)
            sum.size = saturated(sum.size, join->parts[i].len);
        if (!dev)
            continue;
        one = opened ? &dev->opened : &dev->seen;
        sum.size = saturated(sum.size, one->size);
        sum.mtime_ns = (int64_t)((uint64_t)sum.mtime_ns + (uint64_t)one->mtime_ns);
        sum.ctime_ns = (int64_t)((uint64_t)sum.ctime_ns + (uint64_t)one->ctime_ns);
    }
    return sum;
}

/* The largest, unless a part lies across its blocks. */
static uint32_t common_align(const struct join *join)
{
    uint32_t align = 1;

    for (size_t i = 0; i < join->count; i++) {
        const struct blk_dev *dev = join->parts[i].dev;

        if (dev && dev->limits.align > align)
            align = dev->limits.align;
    }
    for (size_t i = 0; i < join->count; i++) {
        const struct part *part = &join->parts[i];

        if (part->start % align != 0 || (part->dev && part->offset % align != 0))
            return 1;
    }
    return align;
}

static uint64_t shortest(uint64_t a, uint64_t b, uint32_t align)
{
    uint64_t max = round_down(min_u64(a, b), align);

    return max ? max : align;
}

static struct blk_limits common_limits(const struct join *join)
{
    uint32_t align = common_align(join);
    struct blk_limits common = {
        .align = align,
        .mem_align = 1,
        .max_read = 16 * MIB,
        .max_write = 16 * MIB,
        .max_zero = UINT64_MAX,
        .max_discard = UINT64_MAX,
        .max_depth = 1024,
    };

    for (size_t i = 0; i < join->count; i++) {
        const struct blk_dev *dev = join->parts[i].dev;

        if (!dev)
            continue;
        common.max_read = (uint32_t)shortest(common.max_read, dev->limits.max_read, align);
        common.max_write = (uint32_t)shortest(common.max_write, dev->limits.max_write, align);
        common.max_zero = shortest(common.max_zero, dev->limits.max_zero, align);
        common.max_discard = shortest(common.max_discard, dev->limits.max_discard, align);
        common.max_depth = (uint32_t)min_u64(common.max_depth, dev->limits.max_depth);
        if (dev->limits.mem_align > common.mem_align)
            common.mem_align = dev->limits.mem_align;
    }
    return common;
}

/* One part's, as they look from its offset on. */
static struct blk_limits own_limits(const struct join *join)
{
    const struct part *part = &join->parts[0];
    struct blk_limits own = part->dev->limits;
    uint64_t granule = own.unmap_granule;

    own.align = common_align(join);
    if (granule > 0)
        own.unmap_phase = (own.unmap_phase + granule - part->offset % granule) % granule;
    return own;
}

void join_adopt(struct join *join)
{
    const unsigned all = BLK_CAN_ZERO | BLK_CAN_FUA | BLK_CAN_UNMAP | BLK_CAN_DISCARD;
    const unsigned any = BLK_CAN_EXTENTS | BLK_BARE;
    unsigned of_all = all, of_any = 0;

    for (size_t i = 0; i < join->count; i++) {
        const struct part *part = &join->parts[i];

        of_all &= part->dev ? part->dev->caps : 0;
        of_any |= part->dev ? part->dev->caps & any : (unsigned)BLK_CAN_EXTENTS;
    }
    join->dev.caps = of_all | of_any;
    join->dev.limits =
        join->count == 1 && join->parts[0].dev ? own_limits(join) : common_limits(join);
}

/* NULL: there is one that is not known; or out of memory, which comes to the same. */
static char *identity(const struct join *join)
{
    size_t room = 1, at = 0;
    char *text;

    for (size_t i = 0; i < join->count; i++) {
        const struct part *part = &join->parts[i];

        if (!part->zeros && !part->dev->identity)
            return NULL;
        room += (part->zeros ? strlen("zeros") : strlen(part->dev->identity)) + 2 * 21 + 1;
    }
    text = malloc(room);
    for (size_t i = 0; text && i < join->count; i++) {
        const struct part *part = &join->parts[i];

        at +=
            (size_t)snprintf(text + at, room - at, "%s%s@%" PRIu64 "+%" PRIu64, i ? "," : "",
                             part->zeros ? "zeros" : part->dev->identity, part->offset, part->len);
    }
    return text;
}

/* All parts are there. */
static void set_up(struct join *join)
{
    const struct part *last = &join->parts[join->count - 1];

    join->dev.size = last->start + last->len;
    join->dev.identity = identity(join);
    join->dev.opened = stamp(join, true);
    for (size_t i = 0; i < join->count; i++) {
        const struct blk_dev *dev = join->parts[i].dev;

        if (dev && dev->round_trip > join->dev.round_trip)
            join->dev.round_trip = dev->round_trip;
    }
    if (join->count == 1 && last->dev)
        join->dev.session_id = last->dev->session_id;
    join_adopt(join);
}

/* ---- What all parts are asked to do ----------------------------------------------------------- */

static void answered(struct join *join)
{
    assert(join->awaited > 0);
    if (--join->awaited == 0)
        join->then(join);
}

/* A real reason beats "cancelled", otherwise the first one wins. Below, all has been tried: it is
 * final. */
static void note_failure(struct join *join, int status, const struct blk_error *error)
{
    if (join->status < 0 && !(join->status == -ECANCELED && status != -ECANCELED))
        return;
    join->status = status;
    join->error = *error;
    join->error.retry = BLK_FATAL;
}

static void task_done(struct blk_task *task)
{
    struct part *part = container_of(task, struct part, task);

    if (task->status < 0)
        note_failure(part->join, task->status, &task->error);
    answered(part->join);
}

static void begin(struct join *join, void (*then)(struct join *join))
{
    assert(join->awaited == 0);
    join->then = then;
    join->awaited = 1;
    join->status = 0;
    blk_error_clear(&join->error);
}

static struct blk_task *ask(struct part *part)
{
    part->join->awaited++;
    part->task = (struct blk_task){.done = task_done};
    return &part->task;
}

static void report_task(struct join *join)
{
    blk_task_done(&join->dev, join->status, &join->error);
}

static void reserve_parts(struct blk_dev *dev, const struct blk_reservation *how)
{
    struct join *join = join_of(dev);

    begin(join, report_task);
    for (size_t i = 0; i < join->count; i++) {
        if (join->parts[i].dev)
            blk_reserve(join->parts[i].dev, how, ask(&join->parts[i]));
    }
    answered(join);
}

static void finish_parts(struct blk_dev *dev)
{
    struct join *join = join_of(dev);

    begin(join, report_task);
    for (size_t i = 0; i < join->count; i++) {
        if (join->parts[i].dev)
            blk_finish(join->parts[i].dev, ask(&join->parts[i]));
    }
    answered(join);
}

static void report_look(struct join *join)
{
    if (join->status == 0)
        join->dev.seen = stamp(join, false);
    blk_recovered(&join->dev, join->status, &join->error);
}

/* Only ever asked for: what is lost below is found again there. */
static void look_at_parts(struct blk_dev *dev)
{
    struct join *join = join_of(dev);

    begin(join, report_look);
    for (size_t i = 0; i < join->count; i++) {
        if (join->parts[i].dev)
            blk_recheck(join->parts[i].dev, ask(&join->parts[i]));
    }
    answered(join);
}

static void report_resize(struct join *join)
{
    struct part *last = &join->parts[join->count - 1];

    if (join->status == 0) {
        last->len = join->new_size - last->start;
        join->dev.size = join->new_size;
    }
    report_task(join);
}

/* The last part alone can grow and shrink, and only where it reaches the end of its device. */
static void resize_last(struct blk_dev *dev, uint64_t size)
{
    struct join *join = join_of(dev);
    struct part *last = &join->parts[join->count - 1];
    struct blk_error error;

    begin(join, report_resize);
    join->new_size = size;
    if (size <= last->start || (last->dev && last->offset + last->len != last->dev->size))
        note_failure(join, blk_error_set(&error, ENOTSUP, "its size cannot be changed to that"),
                     &error);
    else if (last->dev)
        blk_resize(last->dev, last->offset + size - last->start, ask(last));
    answered(join);
}

static void need_parts(struct blk_dev *dev, uint64_t size)
{
    struct join *join = join_of(dev);

    for (size_t i = 0; i < join->count; i++) {
        const struct part *part = &join->parts[i];
        uint64_t wanted = size > part->start ? min_u64(size - part->start, part->len) : 0;

        if (part->dev)
            blk_need(part->dev, wanted ? part->offset + wanted : 1);
    }
}

static void push_parts(struct blk_dev *dev)
{
    const struct join *join = (const struct join *)dev;

    for (size_t i = 0; i < join->count; i++) {
        if (join->parts[i].dev)
            blk_push(join->parts[i].dev);
    }
}

static void hurry_parts(struct blk_dev *dev, uint64_t ns)
{
    struct join *join = join_of(dev);

    for (size_t i = 0; i < join->count; i++) {
        if (join->parts[i].dev)
            blk_hurry(join->parts[i].dev, ns);
    }
}

static void cancel_parts(struct blk_dev *dev)
{
    struct join *join = join_of(dev);

    for (size_t i = 0; i < join->count; i++) {
        if (join->parts[i].dev)
            blk_cancel_all(join->parts[i].dev);
    }
}

static void describe_parts(struct blk_dev *dev, struct blk_report *report)
{
    struct join *join = join_of(dev);

    for (size_t i = 0; i < join->count; i++) {
        const struct part *part = &join->parts[i];

        blk_report_fact(report, "part", "part", "%" PRIu64 " bytes of %s from %" PRIu64 " on",
                        part->len, part->zeros ? "zeros" : part->dev->name, part->offset);
    }
}

/* ---- From open to close ----------------------------------------------------------------------- */

static void report_closed(struct join *join)
{
    join_free_shares(join);
    free(join->parts);
    blk_closed(&join->dev);
}

static void close_parts(struct blk_dev *dev)
{
    struct join *join = join_of(dev);

    begin(join, report_closed);
    for (size_t i = 0; i < join->count; i++) {
        struct part *part = &join->parts[i];

        if (part->dev)
            blk_close(part->dev, ask(part));
        part->dev = NULL;
    }
    answered(join);
}

static void report_cloned(struct join *join)
{
    if (join->status == 0)
        set_up(join);
    blk_opened(&join->dev, join->status, &join->error);
}

static void clone_parts(struct blk_dev *dev, const struct blk_dev *origin, unsigned number)
{
    const struct join *from = (const struct join *)origin;
    struct join *join = join_of(dev);
    struct blk_error error;
    int no_memory = blk_error_set(&error, ENOMEM, "out of memory");

    begin(join, report_cloned);
    join->epoch = JOIN_FIRST_EPOCH;
    join->parts = calloc(from->count, sizeof(*join->parts));
    join->count = join->parts ? from->count : 0;
    if (!join->parts)
        note_failure(join, no_memory, &error);
    for (size_t i = 0; i < join->count && join->status == 0; i++) {
        const struct part *model = &from->parts[i];
        struct part *part = &join->parts[i];

        *part = (struct part){.join = join,
                              .zeros = model->zeros,
                              .start = model->start,
                              .offset = model->offset,
                              .len = model->len};
        if (part->zeros)
            continue;
        part->dev = blk_clone(dev->loop, model->dev, number, ask(part));
        if (part->dev)
            continue;
        join->awaited--;
        note_failure(join, no_memory, &error);
    }
    answered(join);
}

static const struct blk_driver join_driver = {
    .name = "join",
    .dev_size = sizeof(struct join),
    .req_size = sizeof(struct join_gathering),
    .relays = true,
    .clone = clone_parts,
    .recover = look_at_parts,
    .reserve = reserve_parts,
    .close = close_parts,
    .submit = join_submit,
    .cancel_all = cancel_parts,
    .push = push_parts,
    .hurry = hurry_parts,
    .need = need_parts,
    .resize = resize_last,
    .finish = finish_parts,
    .describe = describe_parts,
};

static void take_over(struct join *join, const struct join_part *parts)
{
    uint64_t start = 0;

    for (size_t i = 0; i < join->count; i++) {
        struct blk_dev *dev = parts[i].dev;

        assert(parts[i].len > 0);
        for (size_t other = 0; other < i; other++)
            assert(!dev || parts[other].dev != dev);
        join->parts[i] = (struct part){.join = join,
                                       .zeros = !dev,
                                       .dev = dev,
                                       .start = start,
                                       .offset = parts[i].offset,
                                       .len = parts[i].len};
        start = saturated(start, parts[i].len);
    }
}

static int check(const struct join *join, struct blk_error *error)
{
    const struct part *last = &join->parts[join->count - 1];

    for (size_t i = 0; i < join->count; i++) {
        const struct part *part = &join->parts[i];
        const struct blk_dev *dev = part->dev;

        if (dev && dev->size == BLK_SIZE_UNKNOWN)
            return blk_error_set(error, EINVAL, "%s cannot be a part: its size is not known",
                                 dev->name);
        if (dev && (part->offset > dev->size || part->len > dev->size - part->offset))
            return blk_error_set(error, EINVAL,
                                 "%" PRIu64 " bytes from %" PRIu64
                                 " on lie outside of %s, which has %" PRIu64,
                                 part->len, part->offset, dev->name, dev->size);
    }
    if (saturated(last->start, last->len) > INT64_MAX)
        return blk_error_set(error, EFBIG, "all parts together are longer than 8 EiB");
    return 0;
}

struct blk_dev *join_open(struct loop *loop, const char *name, const struct join_part *parts,
                          size_t count, struct blk_task *task)
{
    struct part *own = calloc(count, sizeof(*own));
    struct blk_error error;
    bool writable = true;
    struct blk_dev *dev;
    struct join *join;
    int status;

    assert(count > 0);
    for (size_t i = 0; i < count; i++)
        writable = writable && parts[i].dev && parts[i].dev->writable;
    dev = own ? blk_new(loop, &join_driver, name, writable, task) : NULL;
    if (!dev) {
        free(own);
        return NULL;
    }
    join = join_of(dev);
    join->parts = own;
    join->count = count;
    join->epoch = JOIN_FIRST_EPOCH;
    take_over(join, parts);
    status = check(join, &error);
    if (status == 0) {
        set_up(join);
        need_parts(dev, dev->size);
    }
    blk_opened(dev, status, status < 0 ? &error : NULL);
    return dev;
}
