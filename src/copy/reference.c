/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reference.h"

#include <errno.h>
#include <string.h>

#include <lunferry/join.h>
#include <lunferry/units.h>

static void end(struct reference *reference)
{
    reference->done(reference, -reference->error.code);
}

/* ---- Its digests ------------------------------------------------------------------------------ */

/* Do they stand for it? */
static int check_digests(struct reference *reference)
{
    const struct blk_dev *dev = reference->dev;
    const struct digest_file *file = &reference->digests;
    struct digest_subject subject;
    int status = digest_subject_of(&subject, dev, &dev->opened, &reference->error);

    if (status == 0)
        status = digest_check_subject(file->list, file->stands_for, &subject, dev->size, dev->name,
                                      &reference->error);
    if (status < 0)
        blk_error_prefix(&reference->error, "%s", file->url->text);
    return status;
}

static void digests_opened(struct digest_file *file, int status)
{
    struct reference *reference = file->opaque;

    if (status < 0)
        reference->error = file->error;
    else if (check_digests(reference) == 0)
        reference->list = file->list;
    end(reference);
}

static void open_digests(struct reference *reference)
{
    const struct copy_options *options = reference->options;

    reference->digests_opened = true;
    reference->digests = (struct digest_file){
        .loop = reference->loop,
        .url = options->base_digests,
        .settings = &options->settings,
        .watcher = reference->watcher,
        .read = true,
        .done = digests_opened,
        .opaque = reference,
    };
    digest_file_open(&reference->digests);
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void opened(struct image *image, int status)
{
    struct reference *reference = image->opaque;

    reference->dev = image->dev;
    if (status < 0) {
        reference->error = image->error;
        end(reference);
        return;
    }
    reference->size = image->dev->size;
    if (reference->options->base_digests)
        open_digests(reference);
    else
        end(reference);
}

void reference_open(struct reference *reference)
{
    const struct copy_options *options = reference->options;

    if (!options->base) {
        end(reference);
        return;
    }
    reference->image = (struct image){
        .loop = reference->loop,
        .args =
            {
                .url = options->base,
                .choice = options->base_image,
                .settings = &options->settings,
                .watcher = reference->watcher,
            },
        .done = opened,
        .opaque = reference,
    };
    image_open(&reference->image);
}

/* ---- Its length ------------------------------------------------------------------------------- */

static void joined(struct blk_task *task)
{
    struct reference *reference = task->opaque;

    if (task->status < 0)
        reference->error = task->error;
    end(reference);
}

void reference_fit(struct reference *reference, uint64_t size)
{
    struct join_part parts[2] = {{.dev = reference->dev}, {.dev = NULL}};
    struct blk_dev *dev;

    if (!reference->dev || reference->dev->size >= size) {
        end(reference);
        return;
    }
    parts[0].len = reference->dev->size;
    parts[1].len = size - reference->dev->size;
    reference->task = (struct blk_task){.done = joined, .opaque = reference};
    dev = join_open(reference->loop, reference->dev->name, parts, 2, &reference->task);
    if (dev) {
        reference->dev = dev;
    } else {
        blk_error_set(&reference->error, ENOMEM, "out of memory");
        end(reference);
    }
}

/* ---- And the source --------------------------------------------------------------------------- */

static bool is_one(const struct blk_dev *a, const struct blk_dev *b)
{
    return a->identity && b->identity && strcmp(a->identity, b->identity) == 0;
}

bool reference_is_behind(const struct reference *reference, const struct image *source,
                         unsigned *depth, uint64_t *until, const char **told)
{
    const struct image_layer *top = image_layer(&reference->image, 0);
    const struct image_layer *layer = image_layer(source, 1);

    if (!layer || !top)
        return false;
    *depth = 1;
    *told = "it has to hold the same as the backing file that SOURCE has, since only what SOURCE "
            "has above that is copied; --delta compares them";
    for (unsigned i = 1; image_layer(source, i); i++) {
        if (!is_one(image_layer(source, i)->file, top->file) ||
            image_layer(source, i)->format != top->format)
            continue;
        *depth = i;
        layer = image_layer(source, i);
        *told = NULL;
        break;
    }
    *until = min_u64(layer->size, reference->size);
    return true;
}

/* ---- The end ---------------------------------------------------------------------------------- */

static void closed(struct blk_task *task)
{
    struct reference *reference = task->opaque;

    image_release(&reference->image);
    reference->dev = NULL;
    reference->done(reference, 0);
}

static void close_image(struct reference *reference)
{
    reference->task = (struct blk_task){.done = closed, .opaque = reference};
    if (reference->dev)
        blk_close(reference->dev, &reference->task);
    else
        closed(&reference->task);
}

static void digests_closed(struct digest_file *file, int status)
{
    struct reference *reference = file->opaque;

    (void)status;
    reference->list = NULL;
    close_image(reference);
}

void reference_close(struct reference *reference)
{
    if (!reference->digests_opened) {
        close_image(reference);
        return;
    }
    reference->digests_opened = false;
    reference->digests.done = digests_closed;
    digest_file_close(&reference->digests);
}

void reference_cancel(struct reference *reference)
{
    if (reference->digests_opened)
        digest_file_cancel(&reference->digests);
    if (reference->dev)
        blk_cancel_all(reference->dev);
    else
        image_cancel(&reference->image);
}
