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
    middle->call.run = middle_deliver;
    piece_list_init(&middle->waiting);
    piece_list_init(&middle->completed);
    piece_list_init(&middle->finished);
    return dev;
}

struct blk_dev *blk_open(struct loop *loop, const struct blk_open_args *args, struct blk_task *task)
{
    const struct blk_driver *driver = blk_driver_find(args->url->scheme);
    struct blk_dev *dev;

    assert(driver);
    dev = new_device(loop, driver, args->url->text, args->writable, task);
    if (dev)
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

struct blk_dev *blk_clone(struct loop *loop, const struct blk_dev *origin, struct blk_task *task)
{
    const struct blk_driver *driver = origin->driver;
    struct blk_dev *dev = new_device(loop, driver, origin->name, origin->writable, task);

    if (!dev)
        return NULL;
    if (driver->clone) {
        driver->clone(dev, origin);
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
    middle->task_ended = true;
    middle->task_status = status;
    if (error && status < 0)
        middle->task_error = *error;
    else
        blk_error_clear(&middle->task_error);
    if (status < 0 && middle->task_error.code == 0)
        blk_error_set(&middle->task_error, -status, "cancelled");
    loop_defer(dev->loop, &middle->call);
}

void blk_opened(struct blk_dev *dev, int status, const struct blk_error *error)
{
    assert(dev->middle->state == MIDDLE_OPENING || dev->middle->state == MIDDLE_CANCELLED ||
           dev->middle->state == MIDDLE_CLOSING);
    if (status == 0) {
        assert(dev->limits.align > 0 && (dev->limits.align & (dev->limits.align - 1)) == 0);
        assert(dev->limits.mem_align > 0 && dev->limits.max_depth > 0);
        assert(dev->limits.max_read > 0 && dev->limits.max_read % dev->limits.align == 0);
        assert(!dev->writable ||
               (dev->limits.max_write > 0 && dev->limits.max_write % dev->limits.align == 0));
    }
    end_task(dev, status, error);
    if (status < 0)
        blk_error_prefix(&dev->middle->task_error, "opening %s", dev->name);
}

void blk_task_done(struct blk_dev *dev, int status, const struct blk_error *error)
{
    end_task(dev, status, error);
    if (status < 0)
        blk_error_prefix(&dev->middle->task_error, "%s", dev->name);
}

/* False: the device was cancelled, and so is the task. */
static bool start_task(struct blk_dev *dev, struct blk_task *task)
{
    struct blk_middle *middle = dev->middle;

    assert((middle->state == MIDDLE_OPEN || middle->state == MIDDLE_CANCELLED) && !middle->task);
    middle->task = task;
    middle->task_ended = false;
    if (middle->state == MIDDLE_CANCELLED)
        end_task(dev, -ECANCELED, NULL);
    return middle->state == MIDDLE_OPEN;
}

void blk_finish(struct blk_dev *dev, struct blk_task *task)
{
    if (!start_task(dev, task))
        return;
    if (dev->driver->finish)
        dev->driver->finish(dev);
    else
        blk_task_done(dev, 0, NULL);
}

void blk_resize(struct blk_dev *dev, uint64_t size, struct blk_task *task)
{
    struct blk_error error;

    if (!start_task(dev, task))
        return;
    if (dev->driver->resize)
        dev->driver->resize(dev, size);
    else
        blk_task_done(dev, blk_error_set(&error, ENOTSUP, "its size cannot be changed"), &error);
}

/* What has no piece at the driver is reported cancelled; what has one stays for it. */
static void cancel_waiting(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;
    struct blk_req *req;

    while ((req = piece_list_take(&middle->waiting))) {
        req->resume = req->offset + req->len;
        if (req->status == 0)
            req->status = -ECANCELED;
        if (req->pieces == 0)
            middle_fail(dev, req, req->status);
    }
}

void blk_cancel_all(struct blk_dev *dev)
{
    struct blk_middle *middle = dev->middle;

    if (middle->state == MIDDLE_OPENING || middle->state == MIDDLE_OPEN)
        middle->state = MIDDLE_CANCELLED;
    cancel_waiting(dev);
    if (!middle->driverless)
        dev->driver->cancel_all(dev);
}

static void close_in_driver(struct blk_dev *dev)
{
    if (dev->middle->driverless)
        blk_closed(dev);
    else
        dev->driver->close(dev);
}

void blk_close(struct blk_dev *dev, struct blk_task *task)
{
    struct blk_middle *middle = dev->middle;

    assert(middle->callers == 0 && middle->state != MIDDLE_CLOSING);
    middle->close_task = task;
    if (middle->task) {
        if (!middle->task_ended)
            blk_cancel_all(dev);
        middle->state = MIDDLE_CLOSING;
        return; /* middle_tasks() goes on when the task has been reported */
    }
    middle->state = MIDDLE_CLOSING;
    close_in_driver(dev);
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
    task->status = middle->task_status;
    task->error = middle->task_error;
    if (middle->state == MIDDLE_OPENING)
        middle->state = task->status == 0 ? MIDDLE_OPEN : MIDDLE_CANCELLED;
    else if ((middle->state == MIDDLE_CANCELLED || closing) && task->status == 0)
        task->status = blk_error_set(&task->error, ECANCELED, "cancelled");
    task->done(task); /* may close the device, which only starts it */
    if (closing)
        close_in_driver(dev);
}

void middle_tasks(struct blk_dev *dev)
{
    if (dev->middle->task && dev->middle->task_ended)
        report_task(dev);
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
