/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An image from outside: its format, and its opening as a whole. */
#include <lunferry/image.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "image_chain.h"

static const char *const names[] = {
    [IMAGE_RAW] = "raw",
    [IMAGE_QCOW2] = "qcow2",
    [IMAGE_QCOW] = "qcow",
};

#define FORMATS (sizeof(names) / sizeof(names[0]))

bool image_format_parse(const char *text, enum image_format *format)
{
    for (unsigned i = IMAGE_RAW; i < FORMATS; i++) {
        if (strcmp(text, names[i]) == 0) {
            *format = (enum image_format)i;
            return true;
        }
    }
    return false;
}

const char *image_format_name(enum image_format format)
{
    return names[format];
}

/* In either case: a name that was made on another system, or by hand, means the same. */
enum image_format image_format_of(const struct url *url)
{
    const char *path = url->path ? url->path : "", *slash = strrchr(path, '/');
    const char *dot = strrchr(slash ? slash + 1 : path, '.');

    if (dot && strcasecmp(dot, ".qcow2") == 0)
        return IMAGE_QCOW2;
    if (dot && strcasecmp(dot, ".qcow") == 0)
        return IMAGE_QCOW;
    return IMAGE_BY_NAME;
}

static void fail(struct loop_call *call)
{
    struct image *image = container_of(call, struct image, call);

    image_release(image);
    image->done(image, blk_error_set(&image->error, ENOMEM, "opening %s: out of memory",
                                     image->args.url->text));
}

void image_open(struct image *image)
{
    image->dev = NULL;
    blk_error_clear(&image->error);
    image->chain = calloc(1, sizeof(*image->chain));
    if (image->chain && image_chain_start(image->chain, image))
        return;
    image->call = (struct loop_call){.run = fail};
    loop_defer(image->loop, &image->call);
}

void image_cancel(struct image *image)
{
    if (image->chain)
        image_chain_cancel(image->chain);
}

void image_release(struct image *image)
{
    if (image->chain)
        image_chain_free(image->chain);
    image->chain = NULL;
}

const struct image_layer *image_layer(const struct image *image, unsigned depth)
{
    return image->chain && depth < image->chain->count ? &image->chain->layers[depth]->told : NULL;
}
