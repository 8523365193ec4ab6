/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "target.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <lunferry/store.h>
#include <lunferry/units.h>

/* ---- Steps ------------------------------------------------------------------------------------ */

/* A chain is a row of functions, each of which starts one operation and names the next function,
 * which gets the outcome. */
typedef void step_fn(struct target *target, int status);

static void done(struct target *target, int status)
{
    target->then = NULL;
    target->done(target, status);
}

static void fail(struct target *target, const struct blk_error *error)
{
    target->error = *error;
    done(target, -error->code);
}

static void refuse(struct target *target, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void refuse(struct target *target, int code, const char *format, ...)
{
    char text[sizeof(target->error.text)];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    blk_error_set(&target->error, code, "%s", text);
    done(target, -code);
}

/* Goes on with the chain, unless it was cancelled meanwhile. */
static void go_on(struct target *target, int status)
{
    if (target->stopping && status == 0 && !target->unstoppable)
        refuse(target, ECANCELED, "cancelled");
    else
        target->then(target, status);
}

static void task_done(struct blk_task *task)
{
    go_on(task->opaque, task->status);
}

static struct blk_task *task_then(struct target *target, step_fn *then)
{
    target->then = then;
    target->task = (struct blk_task){.done = task_done, .opaque = target};
    return &target->task;
}

static void store_done(struct store_req *req)
{
    go_on(req->opaque, req->status);
}

static void store_then(struct target *target, enum store_op op, const char *name,
                       const char *new_name, step_fn *then)
{
    target->then = then;
    target->store_req.op = op;
    target->store_req.name = name;
    target->store_req.new_name = new_name;
    target->store_req.done = store_done;
    target->store_req.opaque = target;
    store_submit(target->store, &target->store_req);
}

static void req_done(struct blk_req *req)
{
    go_on(req->opaque, req->status);
}

static void req_then(struct target *target, enum blk_op op, step_fn *then)
{
    target->then = then;
    target->iov = (struct iovec){target->head, target->head_len};
    target->req = (struct blk_req){
        .op = op,
        .flags = BLK_FUA,
        .offset = 0,
        .len = target->head_len,
        .iov = &target->iov,
        .iovcnt = op == BLK_WRITE ? 1 : 0,
        .done = req_done,
        .opaque = target,
    };
    blk_submit(target->dev, &target->req);
}

/* ---- Open ------------------------------------------------------------------------------------- */

static void device_opened(struct target *target, int status)
{
    if (status < 0)
        fail(target, &target->task.error);
    else
        done(target, 0);
}

static void open_device(struct target *target, const char *name, step_fn *then)
{
    struct blk_open_args args = {
        .url = target->options->target,
        .store = name ? target->store : NULL,
        .name = name,
        .writable = true,
        .settings = &target->options->settings,
    };

    target->dev = blk_open(target->loop, &args, task_then(target, then));
    if (!target->dev)
        refuse(target, ENOMEM, "out of memory");
}

static void looked_up(struct target *target, int status)
{
    const struct copy_options *options = target->options;
    const struct store_attr *attr = &target->store_req.attr;
    const char *text = options->target->text;

    if (status < 0 && status != -ENOENT) {
        fail(target, &target->store_req.error);
        return;
    }
    target->exists = status == 0;
    if (!target->exists) {
        if (options->in_place)
            refuse(target, ENOENT, "%s does not exist: -n writes into a file that is there", text);
        else
            done(target, 0);
        return;
    }
    target->old = *attr;
    if (attr->type == STORE_DIRECTORY) {
        refuse(target, EISDIR, "%s is a directory; name a file in it", text);
    } else if (attr->type == STORE_SYMLINK) {
        refuse(target, EEXIST, "%s is a symbolic link; name the file that it stands for", text);
    } else if (attr->type == STORE_OTHER) { /* a local block device, or something to refuse */
        target->new_file = false;
        open_device(target, NULL, device_opened);
    } else if (!options->overwrite) {
        char size[UNITS_TEXT];

        refuse(target, EEXIST, "%s exists (%s); --overwrite would replace it", text,
               units_size(size, attr->size));
    } else if (options->in_place) {
        target->new_file = false;
        open_device(target, target->name, device_opened);
    } else {
        done(target, 0);
    }
}

static void store_is_open(struct target *target, int status)
{
    if (status < 0)
        fail(target, &target->task.error);
    else
        store_then(target, STORE_STAT, target->name, NULL, looked_up);
}

void target_open(struct target *target)
{
    const struct url *url = target->options->target;
    const char *slash = strrchr(url->path, '/');
    const char *name = slash ? slash + 1 : url->path;
    struct blk_open_args args = {
        .url = url, .writable = true, .settings = &target->options->settings};

    target->name = name;
    if (!store_exists_for(url)) {
        open_device(target, NULL, device_opened);
        return;
    }
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        refuse(target, EISDIR, "%s is a directory; name a file in it", url->text);
        return;
    }
    target->new_file = true;
    target->store = store_open(target->loop, &args, task_then(target, store_is_open));
    if (!target->store)
        refuse(target, ENOMEM, "out of memory");
}

/* ---- Check ------------------------------------------------------------------------------------ */

static void occupied_known(struct occupied *occupied)
{
    struct target *target = container_of(occupied, struct target, occupied);

    if (occupied->status < 0)
        fail(target, &occupied->error);
    else if (target->stopping)
        refuse(target, ECANCELED, "cancelled");
    else if (occupied->found[0])
        refuse(target, EEXIST, "%s holds %s; --overwrite would replace it", target->dev->name,
               occupied->found);
    else
        done(target, 0);
}

/* Wherever what is written shows at once, and lasts. */
static bool wants_head(const struct target *target)
{
    bool bare = target->dev && (target->dev->caps & BLK_BARE);

    return (bare || target->options->in_place) && !target->options->in_order;
}

int target_plan(struct target *target, uint64_t size)
{
    target->size = size;
    target->tracker = tracker_new(size, target->options->lanes);
    if (!target->tracker)
        return blk_error_set(&target->error, ENOMEM, "out of memory");
    if (wants_head(target))
        target->head_len = target_head_len(size, tracker_granule(target->tracker));
    return 0;
}

void target_check(struct target *target)
{
    char have[UNITS_TEXT], need[UNITS_TEXT];
    uint64_t size = target->size;

    if (target->new_file) {
        done(target, 0);
        return;
    }
    if (target->dev->size < size) {
        refuse(target, ENOSPC,
               "%s is too small: it has %" PRIu64 " bytes (%s), the source has %" PRIu64 " (%s)",
               target->dev->name, target->dev->size, units_size(have, target->dev->size), size,
               units_size(need, size));
        return;
    }
    if (!(target->dev->caps & BLK_BARE) || target->options->overwrite) {
        done(target, 0);
        return;
    }
    target->occupied.dev = target->dev;
    target->occupied.done = occupied_known;
    if (occupied_start(&target->occupied) < 0)
        refuse(target, ENOMEM, "out of memory");
}

/* ---- Prepare ---------------------------------------------------------------------------------- */

static void prepared(struct target *target, int status)
{
    if (status < 0)
        fail(target, &target->task.error);
    else
        done(target, 0);
}

static void temporary_opened(struct target *target, int status)
{
    if (status < 0)
        fail(target, &target->task.error);
    else
        blk_resize(target->dev, target->size, task_then(target, prepared));
}

static void temporary_made(struct target *target, int status)
{
    target->unstoppable = false;
    /* When it was cancelled, or the connection was lost, nobody knows whether it was made. */
    target->temporary_made =
        status == 0 || status == -ECANCELED || target->store_req.error.retry == BLK_LOST;
    target->touched = target->temporary_made;
    if (status < 0) {
        fail(target, &target->store_req.error);
        return;
    }
    if (target->stopping)
        refuse(target, ECANCELED, "cancelled");
    else
        open_device(target, target->temporary, temporary_opened);
}

/* ".NAME.lunferry-" and 16 hexadecimal digits, with NAME cut so that it stays a legal name. */
static bool name_temporary(struct target *target)
{
    uint64_t number;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return false;
    snprintf(target->temporary, sizeof(target->temporary), ".%.200s.lunferry-%016" PRIx64,
             target->name, number);
    return true;
}

static void head_blanked(struct target *target, int status)
{
    if (status < 0) {
        blk_error_prefix(&target->req.error, "blanking the head");
        fail(target, &target->req.error);
        return;
    }
    done(target, 0);
}

void target_prepare(struct target *target)
{
    if (target->new_file) {
        if (!name_temporary(target)) {
            refuse(target, EIO, "the system gives no random number for a temporary name");
            return;
        }
        target->store_req.attr.mode = target->exists ? target->old.mode : target->options->mode;
        target->unstoppable = true;
        store_then(target, STORE_CREATE, target->temporary, NULL, temporary_made);
        return;
    }
    target->touched = true;
    if (target->head_len > 0)
        req_then(target, BLK_ZERO, head_blanked);
    else
        done(target, 0);
}

/* ---- Finish ----------------------------------------------------------------------------------- */

static void published(struct target *target, int status)
{
    /* It has its final name; that the temporary one could not be removed does not unmake that.
     * target_close() tries once more. */
    target->temporary_made = status < 0;
    done(target, 0);
}

/* Gives the file its final name, which cannot be stopped any more. */
static void give_name(struct target *target, enum store_op op, step_fn *then)
{
    target->unstoppable = true;
    target->maybe_named = true;
    store_then(target, op, target->temporary, target->name, then);
}

/* A refusal by the server left the name as it was; a lost answer or a cancel may not have. */
static void note_refusal(struct target *target, int status)
{
    target->maybe_named = status == -ECANCELED || target->store_req.error.retry == BLK_LOST;
}

static void renamed(struct target *target, int status)
{
    if (status < 0) {
        note_refusal(target, status);
        fail(target, &target->store_req.error);
        return;
    }
    target->temporary_made = false;
    done(target, 0);
}

static void looked_up_again(struct target *target, int status)
{
    if (status == -ENOENT && target->stopping)
        refuse(target, ECANCELED, "cancelled");
    else if (status == -ENOENT)
        give_name(target, STORE_RENAME, renamed);
    else if (status < 0)
        fail(target, &target->store_req.error);
    else
        refuse(
            target, EEXIST,
            "%s was made by someone else meanwhile and is left alone; --overwrite would replace it",
            target->options->target->text);
}

static void linked(struct target *target, int status)
{
    if (status < 0)
        note_refusal(target, status);
    if (status == 0)
        store_then(target, STORE_REMOVE, target->temporary, NULL, published);
    else if (status == -ENOTSUP || status == -EPERM || status == -ENOSYS || status == -EMLINK)
        /* A server without hard links. Between this look and the rename a file could be made and
         * lost; there is nothing better. */
        store_then(target, STORE_STAT, target->name, NULL, looked_up_again);
    else if (status == -EEXIST)
        looked_up_again(target, 0);
    else
        fail(target, &target->store_req.error);
}

static void publish(struct target *target)
{
    if (!target->new_file)
        done(target, 0);
    else if (target->options->overwrite)
        give_name(target, STORE_RENAME, renamed);
    else
        give_name(target, STORE_LINK, linked);
}

static void finished(struct target *target, int status)
{
    if (status < 0)
        fail(target, &target->task.error);
    else
        publish(target);
}

static void finish_device(struct target *target)
{
    blk_finish(target->dev, task_then(target, finished));
}

static void not_durable(struct target *target)
{
    refuse(target, EIO, "%s: not all that was written is known to be durable; copy again",
           target->dev->name);
}

static void head_written(struct target *target, int status)
{
    if (status < 0) {
        blk_error_prefix(&target->req.error, "writing the head, after all else was written");
        fail(target, &target->req.error);
        return;
    }
    if (!tracker_written(target->tracker, 0, 0, target->head_len, target->req.epoch,
                         target->req.durable)) {
        refuse(target, ENOMEM, "out of memory");
        return;
    }
    if (tracker_durable_from(target->tracker, 0))
        finish_device(target);
    else
        not_durable(target);
}

void target_finish(struct target *target)
{
    /* The lanes have seen to it; nothing gets a head or a name on their word alone. */
    if (!tracker_durable_from(target->tracker, target->head_len)) {
        not_durable(target);
    } else if (target->head_len > 0) {
        target->unstoppable = true;
        req_then(target, BLK_WRITE, head_written);
    } else {
        finish_device(target);
    }
}

/* ---- Close ------------------------------------------------------------------------------------ */

static void closed(struct target *target, int status)
{
    (void)status;
    target->store = NULL;
    tracker_free(target->tracker);
    target->tracker = NULL;
    free(target->head);
    target->head = NULL;
    done(target, 0);
}

static void close_store(struct target *target)
{
    if (target->store)
        store_close(target->store, task_then(target, closed));
    else
        closed(target, 0);
}

static void temporary_removed(struct target *target, int status)
{
    if (status < 0 && status != -ENOENT) {
        char text[sizeof(target->error.text) + 80];

        snprintf(text, sizeof(text), "%s; the temporary file is still there",
                 target->store_req.error.text);
        target->options->notice(target->options->opaque, true, text);
    }
    target->temporary_made = false;
    close_store(target);
}

static void device_closed(struct target *target, int status)
{
    (void)status;
    target->dev = NULL;
    if (target->temporary_made)
        store_then(target, STORE_REMOVE, target->temporary, NULL, temporary_removed);
    else
        close_store(target);
}

void target_close(struct target *target)
{
    target->stopping = false;
    if (target->dev)
        blk_close(target->dev, task_then(target, device_closed));
    else
        device_closed(target, 0);
}

void target_cancel(struct target *target)
{
    target->stopping = true;
    if (target->dev)
        blk_cancel_all(target->dev);
    if (target->store)
        store_cancel_all(target->store);
}
