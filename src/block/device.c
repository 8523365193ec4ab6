/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a device: open, clone, the other tasks, close. */
#include "middle.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

static const struct retry_owner retry_owner;

static struct blk_dev *new_device(struct loop *loop, const struct blk_driver *driver,
                                  const char *name, bool writable, struct blk_task *task)
{
    struct blk_dev *dev = calloc(1, driver->dev_size);
    struct blk_middle *middle = calloc(1, sizeof(*middle));
    char *copy = strdup(name);

    assert(driver->dev_size >= sizeof(*dev));
    if (!dev || !middle || !copy) {
        free(dev);
        free(middle);
        free(copy);
        return NULL;
    }
    dev->driver = driver;
    dev->loop = loop;
    dev->name = copy;
    dev->writable = writable;
    dev->middle = middle;
    middle->dev = dev;
    middle->state = MIDDLE_OPENING;
    middle->task = task;
    retry_init(&middle->retry, &retry_owner, loop, dev->name);
    middle->call.run = middle_deliver;
    piece_list_init(&middle->waiting);
    piece_list_init(&middle->refused);
    piece_list_init(&middle->completed);
    piece_list_init(&middle->finished);
    return dev;
}

struct blk_dev *blk_new(struct loop *loop, const struct blk_driver *driver, const char *name,
                        bool writable, struct blk_task *task)
{
    struct blk_dev *dev = new_device(loop, driver, name, writable, task);

    if (dev)
        retry_begin(&dev->middle->retry);
    return dev;
}

struct blk_dev *blk_open(struct loop *loop, const struct blk_open_args *args, struct blk_task *task)
{
    const struct blk_driver *driver = blk_driver_find(args->url->scheme);
    struct blk_dev *dev;

    assert(driver);
    dev = new_device(loop, driver, args->url->text, args->writable, task);
    if (!dev)
        return NULL;
    dev->middle->retry.settings = args->settings;
    dev->middle->retry.watcher = args->watcher;
    retry_begin(&dev->middle->retry); /* one that is never answered is given up */
    driver->open(dev, args);
    return dev;
}

int blk_check_url(const struct url *url, struct blk_error *error)
{
    const struct blk_driver *driver = blk_driver_find(url->scheme);
    int rc;

    if (!driver) {
        char known[200] = "";
        size_t count;
        const struct blk_driver *const *drivers = blk_drivers(&count);

        for (size_t i = 0; i < count; i++)
            snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s", i ? ", " : "",
                     drivers[i]->syntax);
        return blk_error_set(error, EINVAL,
                             "%s: there is no kind of endpoint called \"%s\"; known are %s",
                             url->text, url->scheme, known);
    }
    rc = url_check_options(url, driver->options, error);
    if (rc == 0 && driver->check)
        rc = driver->check(url, error);
    return rc;
}

struct blk_dev *blk_clone(struct loop *loop, const struct blk_dev *origin, unsigned number,
                          struct blk_task *task)
{
    const struct blk_driver *driver = origin->driver;
    struct blk_dev *dev = new_device(loop, driver, origin->name, origin->writable, task);

    if (!dev)
        return NULL;
    dev->middle->kind = TASK_CLONE;
    dev->middle->retry.settings = origin->middle->retry.settings;
    dev->middle->retry.watcher = origin->middle->retry.watcher;
    dev->middle->need = origin->middle->need;
    retry_begin(&dev->middle->retry);
    if (driver->clone) {
        driver->clone(dev, origin, number);
    } else {
        struct blk_error error;

        dev->middle->driverless = true;
        blk_opened(dev, blk_error_set(&error, ENOTSUP, "%s can be open only once", driver->name),
                   &error);
    }
    return dev;
}

static void end_task(struct blk_dev *dev, int status, const struct blk_error *error)
{
    struct blk_middle *middle = dev->middle;

    assert(middle->task && !middle->task_ended);
    if (status == -ECANCELED && middle->retry.state == RETRY_GONE) {
        error = &middle->retry.error;
        status = -error->code;
    }
    middle->task_ended = true;
    middle->task_status = status;
    if (error && status < 0)
        middle->task_error = *error;
    else
        blk_error_clear(&middle->task_error);
    if (status < 0 && middle->task_error.code == 0)
        blk_error_set(&middle->task_error, -status, "cancelled");
    if (status < 0 && !middle->task_error.whole) {
        blk_error_prefix(&middle->task_error, "%s%s",
                         middle->kind == TASK_OPEN || middle->kind == TASK_CLONE ? "opening " : "",
                         dev->name);
        middle->task_error.whole = true;
    }
    loop_defer(dev->loop, &middle->call);
}

static void check_limits(const struct blk_dev *dev)
{
    const struct blk_limits *limits = &dev->limits;

    assert(limits->align > 0 && (limits->align & (limits->align - 1)) == 0);
    assert(limits->mem_align > 0 && limits->max_depth > 0);
    assert(limits->max_read > 0 && limits->max_read % limits->align == 0);
    assert(!dev->writable || (limits->max_write > 0 && limits->max_write % limits->align == 0));
    assert(!(dev->caps & BLK_CAN_ZERO) ||
           (limits->max_zero > 0 && limits->max_zero % limits->align == 0));
    assert(!(dev->caps & BLK_CAN_UNMAP) || (dev->caps & BLK_CAN_ZERO));
    assert(!(dev->caps & BLK_CAN_DISCARD) ||
           (limits->max_discard > 0 && limits->max_discard % limits->align == 0));
    assert(limits->unmap_granule == 0 || limits->unmap_phase < limits->unmap_granule);
    assert(limits->unmap_granule % limits->align == 0 && limits->unmap_phase % limits->align == 0);
}

static void end_opening(struct blk_dev *dev, int status, const struct blk_error *error)
{
    if (status == 0) {
        check_limits(dev);
        if (dev->middle->need == 0 && dev->size != BLK_SIZE_UNKNOWN)
            dev->middle->need = dev->size;
        if (dev->opened.size == 0)
            dev->opened.size = dev->size;
        dev->seen = dev->opened;
    }
    end_task(dev, status, error);
}

void blk_opened(struct blk_dev *dev, int status, const struct blk_error *error)
{
    assert(dev->middle->state == MIDDLE_OPENING || dev->middle->state == MIDDLE_CANCELLED ||
           dev->middle->state == MIDDLE_CLOSING);
    /* Another lane begins while the server is away. */
    if (dev->middle->kind == TASK_CLONE && status < 0 && status != -ECANCELED && error &&
        retry_may_pass(error) && dev->driver->recover && dev->middle->state == MIDDLE_OPENING &&
        retry_look(&dev->middle->retry, error))
        return;
    end_opening(dev, status, error);
}

static bool is_in_driver(enum middle_task kind)
{
    return kind == TASK_RESIZE || kind == TASK_FINISH || kind == TASK_RESERVE;
}

void blk_task_done(struct blk_dev *dev, int status, const struct blk_error *error)
{
    struct blk_middle *middle = dev->middle;

    assert(is_in_driver(middle->kind));
    retry_answered(&middle->retry, status == 0);
    if (status < 0 && status != -ECANCELED && middle->state == MIDDLE_OPEN &&
        retry_keep(&middle->retry, &middle->task_item, error))
        return;
    if (status == 0 && middle->kind == TASK_RESIZE)
        middle->need = middle->new_size;
    end_task(dev, status, error);
}

static void run_task(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;

    retry_sent(&middle->retry);
    switch (middle->kind) {
    case TASK_RESIZE:
        dev->driver->resize(dev, middle->new_size);
        break;
    case TASK_FINISH:
        dev->driver->finish(dev);
        break;
    case TASK_RESERVE:
        dev->driver->reserve(dev, middle->reserve);
        break;
    case TASK_OPEN:
    case TASK_CLONE:
    case TASK_RECHECK:
        assert(!"these have ways of their own");
    }
}

/* False: the device was cancelled, or is gone, and so is the task; or the driver has nothing to do
 * for it, and status and *error, which may be NULL, are its outcome. */
static bool start_task(struct blk_dev *dev, enum middle_task kind, struct blk_task *task,
                       bool in_driver, int status, const struct blk_error *error)
{
    struct blk_middle *middle = dev->middle;

    assert((middle->state == MIDDLE_OPEN || middle->state == MIDDLE_CANCELLED) && !middle->task);
    middle->kind = kind;
    middle->task = task;
    middle->task_ended = false;
    middle->task_item.tries = 0;
    retry_begin(&middle->retry);
    if (middle->state == MIDDLE_CANCELLED || middle->retry.state == RETRY_GONE)
        end_task(dev, -ECANCELED, NULL);
    else if (!in_driver)
        end_task(dev, status, error);
    return !middle->task_ended;
}

static void start_in_driver(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;

    if (retry_is_open(&middle->retry))
        run_task(dev);
    else
        retry_wait(&middle->retry, &middle->task_item);
}

void blk_finish(struct blk_dev *dev, struct blk_task *task)
{
    if (start_task(dev, TASK_FINISH, task, dev->driver->finish != NULL, 0, NULL))
        start_in_driver(dev);
}

void blk_resize(struct blk_dev *dev, uint64_t size, struct blk_task *task)
{
    struct blk_error error;

    blk_error_set(&error, ENOTSUP, "its size cannot be changed");
    if (!start_task(dev, TASK_RESIZE, task, dev->driver->resize != NULL, -ENOTSUP, &error))
        return;
    dev->middle->new_size = size;
    /* Until it is done, it may have either size, should the session be lost. */
    dev->middle->need = min_u64(dev->middle->need, size);
    start_in_driver(dev);
}

void blk_open_end(struct blk_dev *dev)
{
    assert(dev->driver->resize && dev->writable && dev->limits.align == 1);
    dev->size = INT64_MAX;
    dev->middle->need = 0;
}

void blk_reserve(struct blk_dev *dev, const struct blk_reservation *how, struct blk_task *task)
{
    struct blk_error error;

    blk_error_set(&error, ENOTSUP, "%s knows no reservations", dev->driver->name);
    if (!start_task(dev, TASK_RESERVE, task, dev->driver->reserve != NULL, -ENOTSUP, &error))
        return;
    dev->middle->reserve = how;
    start_in_driver(dev);
}

/* ---- Looking again ---------------------------------------------------------------------------- */

void blk_need(struct blk_dev *dev, uint64_t size)
{
    dev->middle->need = size;
    if (dev->driver->need)
        dev->driver->need(dev, size);
}

static uint32_t cap(const struct blk_dev *dev, uint32_t max, uint32_t wanted)
{
    uint32_t blocks = (uint32_t)round_down(wanted, dev->limits.align);

    if (wanted == 0)
        return max;
    blocks = blocks > 0 ? blocks : dev->limits.align;
    return blocks < max ? blocks : max;
}

void blk_cap(struct blk_dev *dev, uint32_t max_read, uint32_t max_write)
{
    dev->limits.max_read = cap(dev, dev->limits.max_read, max_read);
    dev->limits.max_write = cap(dev, dev->limits.max_write, max_write);
    if (!dev->driver->relays)
        return;
    dev->middle->max_read = max_read > 0 ? dev->limits.max_read : dev->middle->max_read;
    dev->middle->max_write = max_write > 0 ? dev->limits.max_write : dev->middle->max_write;
}

void blk_push(struct blk_dev *dev)
{
    if (dev->driver->push)
        dev->driver->push(dev);
}

void blk_hurry(struct blk_dev *dev, uint64_t ns)
{
    retry_hurry(&dev->middle->retry, ns);
    if (dev->driver->hurry)
        dev->driver->hurry(dev, ns);
}

void blk_recheck(struct blk_dev *dev, struct blk_task *task)
{
    assert(dev->middle->in_driver == 0);
    if (start_task(dev, TASK_RECHECK, task, dev->driver->recover != NULL, 0, NULL))
        retry_look(&dev->middle->retry, NULL);
}

void blk_recovered(struct blk_dev *dev, int status, const struct blk_error *error)
{
    struct blk_error own;

    if (status == 0 && dev->seen.size < dev->middle->need) {
        status = blk_error_set(&own, ENOSPC,
                               "it has become smaller: %" PRIu64 " bytes, of which %" PRIu64
                               " are needed",
                               dev->seen.size, dev->middle->need);
        error = &own;
    }
    retry_recovered(&dev->middle->retry, status, error);
}

void blk_warn(struct blk_dev *dev, const char *format, ...)
{
    char text[400];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    retry_tell(&dev->middle->retry, BLK_WARNING, "%s", text);
}

static void recover(struct retry *retry)
{
    struct blk_middle *middle = container_of(retry, struct blk_middle, retry);

    /* Cancelled between two attempts. */
    if (middle->state == MIDDLE_OPEN || middle->state == MIDDLE_OPENING)
        middle->dev->driver->recover(middle->dev);
    else
        retry_recovered(retry, -ECANCELED, NULL);
}

static void again(struct retry *retry, struct retry_item *item)
{
    struct blk_middle *middle = container_of(retry, struct blk_middle, retry);

    if (item == &middle->task_item)
        run_task(middle->dev);
    else
        middle_repeat(middle->dev, &container_of(item, struct piece, item)->req);
}

static void drop_item(struct retry *retry, struct retry_item *item, const struct blk_error *error)
{
    struct blk_middle *middle = container_of(retry, struct blk_middle, retry);
    int status = error ? -error->code : -ECANCELED;

    if (item == &middle->task_item) {
        end_task(middle->dev, status, error);
    } else {
        struct blk_req *req = &container_of(item, struct piece, item)->req;

        if (error)
            req->error = *error;
        else
            blk_error_set(&req->error, ECANCELED, "cancelled");
        req->error.retry = BLK_FATAL;
        blk_complete(req, status);
    }
}

static void fail_waiting(struct blk_dev *dev, int status, const struct blk_error *error);

static void settled(struct retry *retry)
{
    struct blk_middle *middle = container_of(retry, struct blk_middle, retry);
    struct blk_dev *dev = middle->dev;
    bool looks = middle->task && !middle->task_ended &&
                 (middle->kind == TASK_CLONE || middle->kind == TASK_RECHECK);
    int status = retry->state == RETRY_HERE ? 0 : -ECANCELED;

    if (looks && middle->kind == TASK_CLONE)
        end_opening(dev, status, NULL);
    else if (looks)
        end_task(dev, status, NULL);
    if (retry->state == RETRY_GONE) {
        fail_waiting(dev, -retry->error.code, &retry->error);
        dev->driver->cancel_all(dev);
    }
    loop_defer(dev->loop, &middle->call);
}

static const struct retry_owner retry_owner = {
    .recover = recover,
    .again = again,
    .drop = drop_item,
    .settled = settled,
};

/* ---- Cancelling and closing ------------------------------------------------------------------- */

/* What has no piece at the driver is reported cancelled; what has one stays for it. */
static void fail_waiting(struct blk_dev *dev, int status, const struct blk_error *error)
{
    struct blk_middle *middle = dev->middle;
    struct blk_req *req;

    while ((req = piece_list_take(&middle->refused)))
        blk_complete(req, -ECANCELED);
    while ((req = piece_list_take(&middle->waiting))) {
        req->resume = req->offset + req->len;
        if (req->status == 0) {
            req->status = status;
            if (error)
                req->error = *error;
        }
        if (req->pieces == 0)
            middle_end(dev, req, req->status);
    }
}

void blk_cancel_all(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;
    bool looks = middle->task && !middle->task_ended &&
                 (middle->kind == TASK_CLONE || middle->kind == TASK_RECHECK);

    if (middle->state == MIDDLE_OPENING || middle->state == MIDDLE_OPEN)
        middle->state = MIDDLE_CANCELLED;
    fail_waiting(dev, -ECANCELED, NULL);
    retry_cancel(&middle->retry);
    /* Between two looks the driver knows of none. */
    if (looks && middle->retry.state != RETRY_HERE && !middle->retry.looking)
        end_task(dev, -ECANCELED, NULL);
    if (!middle->driverless)
        dev->driver->cancel_all(dev);
}

/* When nothing is under way any more. */
static void try_close(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;

    if (middle->state != MIDDLE_CLOSING || middle->task || middle->retry.looking ||
        middle->close_begun)
        return;
    middle->close_begun = true;
    if (middle->driverless)
        blk_closed(dev);
    else
        dev->driver->close(dev);
}

void blk_close(struct blk_dev *dev, struct blk_task *task)
{
    struct blk_middle *middle = dev->middle;

    assert(middle->callers == 0 && middle->state != MIDDLE_CLOSING);
    middle->close_task = task;
    if ((middle->task && !middle->task_ended) || middle->retry.looking)
        blk_cancel_all(dev);
    middle->state = MIDDLE_CLOSING;
    try_close(dev); /* or middle_tasks() does, when what is under way has been reported */
}

void blk_closed(struct blk_dev *dev)
{
    assert(dev->middle->state == MIDDLE_CLOSING && !dev->middle->closed);
    dev->middle->closed = true;
    loop_defer(dev->loop, &dev->middle->call);
}

static void free_device(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;
    struct blk_task *task = middle->close_task;

    assert(middle->in_driver == 0 && middle->callers == 0);
    retry_release(&middle->retry);
    loop_defer_cancel(dev->loop, &middle->call);
    while (middle->free_pieces) {
        struct blk_req *req = middle->free_pieces;

        middle->free_pieces = req->next;
        free(piece_of(req)->iov);
        free(piece_of(req));
    }
    free(dev->name);
    free(dev->identity);
    free(dev);
    free(middle);
    if (task) {
        task->status = 0;
        blk_error_clear(&task->error);
        task->done(task);
    }
}

static void report_task(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;
    struct blk_task *task = middle->task;
    bool closing = middle->state == MIDDLE_CLOSING;

    middle->task = NULL;
    middle->task_ended = false;
    retry_end(&middle->retry);
    task->status = middle->task_status;
    task->error = middle->task_error;
    if (middle->state == MIDDLE_OPENING)
        middle->state = task->status == 0 ? MIDDLE_OPEN : MIDDLE_CANCELLED;
    else if ((middle->state == MIDDLE_CANCELLED || closing) && task->status == 0)
        task->status = blk_error_set(&task->error, ECANCELED, "cancelled");
    task->done(task); /* may close the device, which only starts it */
}

void middle_tasks(struct blk_dev *dev)
{
    if (dev->middle->task && dev->middle->task_ended)
        report_task(dev);
    try_close(dev);
    if (dev->middle->closed)
        free_device(dev);
}

unsigned blk_in_flight(const struct blk_dev *dev)
{
    return dev->middle->in_driver;
}

void blk_describe(struct blk_dev *dev, struct blk_report *report)
{
    char text[UNITS_TEXT], text2[UNITS_TEXT];

    blk_report_fact(report, "endpoint", "endpoint", "%s", dev->name);
    blk_report_fact(report, "kind", "kind", "%s", dev->driver->name);
    if (dev->size != BLK_SIZE_UNKNOWN)
        blk_report_fact(report, "size", "size", "%" PRIu64 " bytes (%s)", dev->size,
                        units_size(text, dev->size));
    blk_report_fact(report, "block-size", "block size", "%" PRIu32 " bytes", dev->limits.align);
    blk_report_fact(report, "request-limits", "longest requests", "read %s, write %s, %u at once",
                    units_size(text, dev->limits.max_read),
                    units_size(text2, dev->limits.max_write), dev->limits.max_depth);
    if (dev->round_trip)
        blk_report_fact(report, "round-trip", "round trip", "%.2f ms",
                        (double)dev->round_trip / LOOP_MSECOND);
    if (dev->identity)
        blk_report_fact(report, "identity", "identity", "%s", dev->identity);
    if (dev->driver->describe)
        dev->driver->describe(dev, report);
}

void blk_report_fact(struct blk_report *report, const char *key, const char *label,
                     const char *format, ...)
{
    char value[512];
    va_list args;

    va_start(args, format);
    vsnprintf(value, sizeof(value), format, args);
    va_end(args);
    report->fact(report, key, label, value);
}
