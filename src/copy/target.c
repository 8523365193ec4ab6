/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "target_steps.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <lunferry/join.h>
#include <lunferry/store.h>
#include <lunferry/units.h>

#include "stream.h"

/* ---- Steps ------------------------------------------------------------------------------------ */

void target_end(struct target *target, int status)
{
    target->then = NULL;
    target->done(target, status);
}

void target_fail(struct target *target, const struct blk_error *error)
{
    target->error = *error;
    target_end(target, -error->code);
}

void target_refuse(struct target *target, int code, const char *format, ...)
{
    char text[sizeof(target->error.text)];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    blk_error_set(&target->error, code, "%s", text);
    target_end(target, -code);
}

/* Goes on with the chain, unless it was cancelled meanwhile. */
static void go_on(struct target *target, int status)
{
    if (target->stopping && status == 0 && !target->unstoppable)
        target_refuse(target, ECANCELED, "cancelled");
    else
        target->then(target, status);
}

static void task_done(struct blk_task *task)
{
    go_on(task->opaque, task->status);
}

struct blk_task *target_task_then(struct target *target, target_step *then)
{
    target->then = then;
    target->task = (struct blk_task){.done = task_done, .opaque = target};
    return &target->task;
}

static void store_done(struct store_req *req)
{
    go_on(req->opaque, req->status);
}

void target_store_then(struct target *target, enum store_op op, const char *name,
                       const char *new_name, target_step *then)
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

void target_req_then(struct target *target, enum blk_op op, target_step *then)
{
    target->then = then;
    target->iov =
        (struct iovec){op == BLK_READ ? target->head_back : target->head, target->head_len};
    target->req = (struct blk_req){
        .op = op,
        .flags = BLK_FUA,
        .offset = 0,
        .len = target->head_len,
        .iov = &target->iov,
        .iovcnt = op == BLK_ZERO ? 0 : 1,
        .done = req_done,
        .opaque = target,
    };
    blk_submit(target->dev, &target->req);
}

void target_range_then(struct target *target, enum blk_op op, uint64_t offset, uint64_t len,
                       target_step *then)
{
    target->then = then;
    target->req = (struct blk_req){
        .op = op,
        .offset = offset,
        .len = len,
        .done = req_done,
        .opaque = target,
    };
    blk_submit(target->dev, &target->req);
}

/* ---- Open ------------------------------------------------------------------------------------- */

static void joined(struct target *target, int status)
{
    if (status < 0)
        target_fail(target, &target->task.error);
    else
        target_end(target, 0);
}

static int check_offset(struct target *target)
{
    const struct blk_dev *dev = target->dev;
    uint64_t offset = target->options->target_offset, align = dev->limits.align;
    char size[UNITS_TEXT];

    if (offset >= dev->size)
        return blk_error_set(&target->error, EINVAL,
                             "--target-offset: %s has %" PRIu64
                             " bytes (%s), so that nothing begins at %" PRIu64,
                             dev->name, dev->size, units_size(size, dev->size), offset);
    if (offset % align != 0)
        return blk_error_set(&target->error, EINVAL,
                             "--target-offset: %s has blocks of %" PRIu64 " bytes, and %" PRIu64
                             " is no multiple of that; %" PRIu64 " and %" PRIu64 " are",
                             dev->name, align, offset, round_down(offset, align),
                             round_up(offset, align));
    return 0;
}

/* From here on the target is what lies behind the offset. */
static void device_opened(struct target *target, int status)
{
    uint64_t offset = target->options->target_offset;
    struct join_part part;
    struct blk_dev *dev;

    if (status < 0) {
        target_fail(target, &target->task.error);
        return;
    }
    target->whole = target->dev;
    if (target->dev->size == BLK_SIZE_UNKNOWN &&
        stream_check_target(target->options, target->dev->name, &target->error) < 0) {
        target_end(target, -target->error.code);
        return;
    }
    if (offset == 0) {
        target_end(target, 0);
        return;
    }
    if (check_offset(target) < 0) {
        target_end(target, -target->error.code);
        return;
    }
    part = (struct join_part){target->dev, offset, target->dev->size - offset};
    dev = join_open(target->loop, target->dev->name, &part, 1, target_task_then(target, joined));
    if (dev)
        target->dev = dev;
    else
        target_refuse(target, ENOMEM, "out of memory");
}

/* A new file is all image. */
static bool fits_new_file(struct target *target)
{
    const struct copy_options *options = target->options;
    const char *text = options->target->text;

    if (options->reserve) {
        target_refuse(target, ENOTSUP, "%s: a new file cannot be reserved; --reserve is for LUNs",
                      text);
        return false;
    }
    if (options->target_offset > 0 || options->zero_tail) {
        target_refuse(target, EINVAL,
                      "%s: a new file begins and ends with the image; %s is for LUNs, block "
                      "devices, and files that exist (with -n)",
                      text, options->zero_tail ? "--zero-tail" : "--target-offset");
        return false;
    }
    if (target_only_differs(target)) {
        target_refuse(target, EINVAL,
                      "%s: a new file holds nothing that it could differ from; --delta is for "
                      "LUNs, block devices, files that exist (with -n), and images with -B",
                      text);
        return false;
    }
    return true;
}

void target_open_device(struct target *target, const char *name, target_step *then)
{
    struct blk_open_args args = {
        .url = target->options->target,
        .session_id = target->resumed ? target->resumed->target_session : 0,
        .store = name ? target->store : NULL,
        .name = name,
        .writable = true,
        .settings = &target->options->settings,
        .watcher = target->watcher,
    };

    target->dev = blk_open(target->loop, &args, target_task_then(target, then));
    if (!target->dev)
        target_refuse(target, ENOMEM, "out of memory");
}

static void looked_up(struct target *target, int status)
{
    const struct copy_options *options = target->options;
    const struct store_attr *attr = &target->store_req.attr;
    const char *text = options->target->text;

    if (status < 0 && status != -ENOENT) {
        target_fail(target, &target->store_req.error);
        return;
    }
    target->exists = status == 0;
    if (!target->exists) {
        if (options->in_place)
            target_refuse(target, ENOENT, "%s does not exist: -n writes into a file that is there",
                          text);
        else if (fits_new_file(target))
            target_end(target, 0);
        return;
    }
    target->old = *attr;
    if (attr->type == STORE_DIRECTORY) {
        target_refuse(target, EISDIR, "%s is a directory; name a file in it", text);
    } else if (attr->type == STORE_SYMLINK) {
        target_refuse(target, EEXIST, "%s is a symbolic link; name the file that it stands for",
                      text);
    } else if (attr->type == STORE_OTHER) { /* a local block device, or something to refuse */
        target->new_file = false;
        target_open_device(target, NULL, device_opened);
    } else if (!options->overwrite) {
        char size[UNITS_TEXT];

        target_refuse(target, EEXIST, "%s exists (%s); --overwrite would replace it", text,
                      units_size(size, attr->size));
    } else if (options->in_place) {
        target->new_file = false;
        target_open_device(target, target->name, device_opened);
    } else if (fits_new_file(target)) {
        target_end(target, 0);
    }
}

static void store_is_open(struct target *target, int status)
{
    if (status < 0)
        target_fail(target, &target->task.error);
    else
        target_store_then(target, STORE_STAT, target->name, NULL, looked_up);
}

void target_open(struct target *target)
{
    const struct url *url = target->options->target;
    const char *slash = strrchr(url->path, '/');
    const char *name = slash ? slash + 1 : url->path;
    struct blk_open_args args = {
        .url = url,
        .writable = true,
        .settings = &target->options->settings,
        .watcher = target->watcher,
    };

    target->name = name;
    if (!store_exists_for(url)) {
        target_open_device(target, NULL, device_opened);
        return;
    }
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        target_refuse(target, EISDIR, "%s is a directory; name a file in it", url->text);
        return;
    }
    target->new_file = true;
    target->store = store_open(target->loop, &args, target_task_then(target, store_is_open));
    if (!target->store)
        target_refuse(target, ENOMEM, "out of memory");
}

/* ---- Check ------------------------------------------------------------------------------------ */

static void occupied_known(struct occupied *occupied)
{
    struct target *target = container_of(occupied, struct target, occupied);

    if (occupied->status < 0)
        target_fail(target, &occupied->error);
    else if (target->stopping)
        target_refuse(target, ECANCELED, "cancelled");
    else if (occupied->found[0])
        target_refuse(target, EEXIST, "%s holds %s; --overwrite would replace it",
                      target->dev->name, occupied->found);
    else
        target_end(target, 0);
}

/* Wherever what is written shows at once, and lasts. */
static bool wants_head(const struct target *target)
{
    bool bare = target->dev && (target->dev->caps & BLK_BARE);

    return (bare || target->options->in_place) && !target->options->in_order &&
           target->options->target_offset == 0 && !target_only_differs(target) &&
           !target_has_format(target);
}

/* ".NAME.lunferry-" and 16 hexadecimal digits, with NAME cut so that it stays a legal name. */
static int name_temporary(struct target *target)
{
    uint64_t number;

    if (target->resumed && target->resumed->temporary) {
        snprintf(target->temporary, sizeof(target->temporary), "%s", target->resumed->temporary);
        /* It was about to be made, or had just been: nothing was written to it. */
        if (!target->resumed->target_identity)
            snprintf(target->stale, sizeof(target->stale), "%s", target->temporary);
        return 0;
    }
    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return blk_error_set(&target->error, EIO,
                             "the system gives no random number for a temporary name");
    snprintf(target->temporary, sizeof(target->temporary), ".%.200s.lunferry-%016" PRIx64,
             target->name, number);
    return 0;
}

/* Bytes that are copied only as a whole, and by one lane, whatever is lost: a cluster, or what the owner says. */
static uint64_t whole_unit(const struct target *target)
{
    const struct image_layout *layout = &target->options->layout;
    uint64_t cluster = image_layout_has_format(layout) ? layout->cluster_size : 1;

    return cluster > target->unit ? cluster : target->unit;
}

int target_plan(struct target *target, uint64_t size)
{
    if (target->new_file && name_temporary(target) < 0)
        return -target->error.code;
    target->size = size;
    /* A stream: to the end of what there is, if it has one. */
    if (size == BLK_SIZE_UNKNOWN && target->dev)
        size = target->dev->size;
    if (size == 0)
        return blk_error_set(&target->error, ENOSPC, "%s is too small: it is empty",
                             target->dev->name);
    target->tracker = tracker_new(size, target->options->lanes, whole_unit(target));
    if (!target->tracker)
        return blk_error_set(&target->error, ENOMEM, "out of memory");
    if (wants_head(target))
        target->head_len = target_head_len(size, tracker_granule(target->tracker));
    return 0;
}

void target_end_of_stream(struct target *target, uint64_t size)
{
    target->size = size;
    target->head_len = min_u64(target->head_len, size);
    /* A tracker of what exists has room for less. */
    if (!tracker_end(target->tracker, size))
        assert(!"it grows nothing");
}

/* Clusters of an image in its own format are whole blocks of what it lies on. */
static bool has_whole_blocks(struct target *target)
{
    uint32_t cluster = target->options->layout.cluster_size, block = target->dev->limits.align;

    if (!target_has_format(target) || block <= cluster)
        return true;
    target_refuse(target, EINVAL,
                  "clusters of %" PRIu32 " bytes are smaller than the blocks of %s, which have "
                  "%" PRIu32 "; use -o cluster_size=%" PRIu32 " or more",
                  cluster, target->dev->name, block, block);
    return false;
}

void target_check(struct target *target)
{
    char have[UNITS_TEXT], need[UNITS_TEXT];
    uint64_t size = target->size;

    if (target->new_file) {
        target_end(target, 0);
        return;
    }
    if (size != BLK_SIZE_UNKNOWN && !target_has_format(target) && target->dev->size < size) {
        target_refuse(target, ENOSPC,
                      "%s is too small: it has %" PRIu64 " bytes (%s)%s, the source has %" PRIu64
                      " (%s)",
                      target->dev->name, target->dev->size, units_size(have, target->dev->size),
                      target->options->target_offset > 0 ? " behind --target-offset" : "", size,
                      units_size(need, size));
        return;
    }
    if (!has_whole_blocks(target))
        return;
    if (!target_has_format(target))
        blk_need(target->dev, min_u64(size, target->dev->size));
    if (!(target->dev->caps & BLK_BARE) || target->options->overwrite ||
        (target->resumed && target->resumed->blanked)) {
        target_end(target, 0);
        return;
    }
    target->occupied.dev = target->dev;
    target->occupied.done = occupied_known;
    if (occupied_start(&target->occupied) < 0)
        target_refuse(target, ENOMEM, "out of memory");
}

/* ---- Close ------------------------------------------------------------------------------------ */

static void closed(struct target *target, int status)
{
    (void)status;
    target->store = NULL;
    claim_drop(&target->claim);
    tracker_free(target->tracker);
    target->tracker = NULL;
    free(target->head);
    target->head = NULL;
    free(target->head_back);
    target->head_back = NULL;
    target_end(target, 0);
}

static void close_store(struct target *target)
{
    if (target->store)
        store_close(target->store, target_task_then(target, closed));
    else
        closed(target, 0);
}

static void unlocked(struct lock *lock, int status)
{
    struct target *target = lock->opaque;

    if (status < 0) {
        char text[sizeof(lock->error.text) + 80];

        snprintf(text, sizeof(text), "%s; the lock file is still there", lock->error.text);
        target->options->notice(target->options->opaque, true, text);
    }
    close_store(target);
}

static void unlock(struct target *target)
{
    if (target->lock.state == LOCK_NONE) {
        close_store(target);
        return;
    }
    target->lock.done = unlocked;
    lock_release(&target->lock);
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
    unlock(target);
}

static void device_closed(struct target *target, int status)
{
    (void)status;
    target->dev = NULL;
    if (target->temporary_made && !target->keep_temporary)
        target_store_then(target, STORE_REMOVE, target->temporary, NULL, temporary_removed);
    else
        unlock(target);
}

void target_close(struct target *target)
{
    target->stopping = false;
    /* Nobody waits ten minutes for a file to be removed. */
    if (target->store)
        store_hurry(target->store, COPY_DRAIN);
    if (target->dev)
        blk_close(target->dev, target_task_then(target, device_closed));
    else
        device_closed(target, 0);
}

void target_cancel(struct target *target)
{
    target->stopping = true;
    if (target->dev)
        blk_cancel_all(target->dev);
    /* What cleans up after that asks it for more, which must not take for ever either. */
    if (target->store) {
        store_cancel_all(target->store);
        store_hurry(target->store, COPY_DRAIN);
    }
}
