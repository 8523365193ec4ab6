/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "source.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/image.h>
#include <lunferry/join.h>
#include <lunferry/units.h>

#include "stream.h"

struct source_end {
    struct source *source;
    struct image image;
    struct blk_dev *dev; /* of the image, once it is open */
    struct blk_task task;
    uint64_t offset, len; /* what is copied of it */
};

const struct blk_dev *source_end_dev(const struct source *source, unsigned i)
{
    return source->ends[i].dev;
}

const struct image *source_end_image(const struct source *source, unsigned i)
{
    return &source->ends[i].image;
}

void source_end_range(const struct source *source, unsigned i, uint64_t *offset, uint64_t *len)
{
    *offset = source->ends[i].offset;
    *len = source->ends[i].len;
}

static void end(struct source *source)
{
    source->done(source, -source->error.code);
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static int check_range(struct source *source)
{
    const struct copy_options *options = source->options;
    struct source_end *only = &source->ends[0];
    const struct blk_dev *dev = only->dev;
    uint64_t align = dev->limits.align, offset = options->source_offset;
    char size[UNITS_TEXT];

    if (offset >= dev->size || options->source_len > dev->size - offset)
        return blk_error_set(
            &source->error, EINVAL,
            "--source-range: %s has %" PRIu64 " bytes (%s): offset and length add up to %" PRIu64
            ", and may be that at most",
            dev->name, dev->size, units_size(size, dev->size), offset + options->source_len);
    if (offset % align != 0)
        return blk_error_set(&source->error, EINVAL,
                             "--source-range: %s has blocks of %" PRIu64 " bytes, and %" PRIu64
                             " is no multiple of that; %" PRIu64 " and %" PRIu64 " are",
                             dev->name, align, offset, round_down(offset, align),
                             round_up(offset, align));
    only->offset = offset;
    only->len = options->source_len;
    return 0;
}

/* All are open. */
static void check(struct source *source)
{
    const struct copy_options *options = source->options;

    for (unsigned i = 0; i < options->source_count && source->error.code == 0; i++) {
        struct source_end *each = &source->ends[i];

        each->offset = 0;
        each->len = each->dev->size;
        if (each->len == 0)
            blk_error_set(&source->error, EINVAL, "%s is empty: there is nothing to copy",
                          each->dev->name);
        else if (each->len == BLK_SIZE_UNKNOWN)
            stream_check_source(options, each->dev->name, &source->error);
    }
    if (source->error.code == 0 && source->ends[0].len == BLK_SIZE_UNKNOWN) {
        source->size = BLK_SIZE_UNKNOWN; /* and no other is there */
        end(source);
        return;
    }
    if (source->error.code == 0 && options->source_len > 0)
        check_range(source);
    source->size = 0;
    for (unsigned i = 0; i < options->source_count && source->error.code == 0; i++) {
        if (source->ends[i].len > INT64_MAX - source->size)
            blk_error_set(&source->error, EFBIG, "the sources are more than 8 EiB together");
        source->size += source->ends[i].len;
    }
    end(source);
}

static void cancel_all(const struct source *source)
{
    for (unsigned i = 0; i < source->options->source_count; i++) {
        if (source->ends[i].dev)
            blk_cancel_all(source->ends[i].dev);
        else
            image_cancel(&source->ends[i].image);
    }
}

static void one_opened(struct source *source)
{
    if (--source->outstanding > 0)
        return;
    if (source->error.code != 0)
        end(source);
    else
        check(source);
}

static void opened(struct image *image, int status)
{
    struct source_end *each = image->opaque;
    struct source *source = each->source;

    each->dev = image->dev;
    if (status < 0 && source->error.code == 0) {
        source->error = image->error;
        if (source->outstanding > 1) /* the others need not time out */
            cancel_all(source);
    }
    one_opened(source);
}

void source_open(struct source *source, uint64_t session_id)
{
    const struct copy_options *options = source->options;

    source->ends = calloc(options->source_count, sizeof(*source->ends));
    if (!source->ends) {
        blk_error_set(&source->error, ENOMEM, "out of memory");
        end(source);
        return;
    }
    source->outstanding = options->source_count;
    for (unsigned i = 0; i < options->source_count; i++) {
        struct source_end *each = &source->ends[i];

        each->source = source;
        each->image = (struct image){
            .loop = source->loop,
            .args =
                {
                    .url = &options->sources[i],
                    .choice = options->image,
                    .session_id = options->source_count == 1 ? session_id : 0,
                    .settings = &options->settings,
                    .watcher = source->watcher,
                },
            .done = opened,
            .opaque = each,
        };
        image_open(&each->image);
    }
}

/* ---- Joining ---------------------------------------------------------------------------------- */

static void joined(struct blk_task *task)
{
    struct source *source = task->opaque;

    if (task->status < 0)
        source->error = task->error;
    end(source);
}

/* "a + b" */
static char *name_all(const struct source *source)
{
    size_t size = 1;
    char *name;

    for (unsigned i = 0; i < source->options->source_count; i++)
        size += strlen(source->ends[i].dev->name) + strlen(" + ");
    name = malloc(size);
    if (!name)
        return NULL;
    name[0] = '\0';
    for (unsigned i = 0; i < source->options->source_count; i++) {
        if (i > 0)
            strcat(name, " + ");
        strcat(name, source->ends[i].dev->name);
    }
    return name;
}

static struct blk_dev *join(struct source *source, uint64_t zeros)
{
    unsigned count = source->options->source_count;
    struct join_part *parts = calloc(count + 1u, sizeof(*parts));
    struct blk_dev *dev = NULL;

    source->name = name_all(source);
    source->task = (struct blk_task){.done = joined, .opaque = source};
    if (parts && source->name) {
        for (unsigned i = 0; i < count; i++)
            parts[i] = (struct join_part){source->ends[i].dev, source->ends[i].offset,
                                          source->ends[i].len};
        parts[count].len = zeros;
        dev = join_open(source->loop, source->name, parts, count + (zeros > 0), &source->task);
    }
    free(parts);
    return dev;
}

void source_join(struct source *source, uint64_t zeros)
{
    const struct source_end *first = &source->ends[0];

    if (source->options->source_count == 1 && zeros == 0 && first->len == first->dev->size) {
        source->dev = first->dev;
        end(source);
        return;
    }
    source->dev = join(source, zeros);
    source->joined = source->dev != NULL;
    if (!source->dev) {
        blk_error_set(&source->error, ENOMEM, "out of memory");
        end(source);
    }
}

/* ---- Closing ---------------------------------------------------------------------------------- */

static void all_closed(struct source *source)
{
    for (unsigned i = 0; source->ends && i < source->options->source_count; i++)
        image_release(&source->ends[i].image);
    free(source->ends);
    free(source->name);
    source->ends = NULL;
    source->name = NULL;
    source->dev = NULL;
    source->done(source, 0);
}

static void closed(struct blk_task *task)
{
    struct source *source = task->opaque;

    if (--source->outstanding == 0)
        all_closed(source);
}

void source_close(struct source *source)
{
    unsigned count = source->ends ? source->options->source_count : 0;

    source->outstanding = 1;
    source->task = (struct blk_task){.done = closed, .opaque = source};
    if (source->joined) {
        blk_close(source->dev, &source->task);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        struct source_end *each = &source->ends[i];

        if (!each->dev)
            continue;
        each->task = (struct blk_task){.done = closed, .opaque = source};
        source->outstanding++;
        blk_close(each->dev, &each->task);
    }
    if (--source->outstanding == 0)
        all_closed(source);
}

void source_cancel(struct source *source)
{
    if (source->joined)
        blk_cancel_all(source->dev);
    else if (source->ends)
        cancel_all(source);
}
