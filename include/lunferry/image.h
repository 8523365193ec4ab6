/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image: what is inside a device. A raw one is the device itself; a qcow2 one is a device over it, and
 * over those that its backing chain names.
 *
 * The format comes from the user or from the name, never from the content, which a guest could have
 * written. An image of strangers names other files: such a name is opened only if it is relative and
 * stays beneath the image's own directory on the same endpoint, or if the user has allowed it.
 */
#ifndef LUNFERRY_IMAGE_H
#define LUNFERRY_IMAGE_H

#include <lunferry/block.h>
#include <lunferry/url.h>

enum image_format {
    IMAGE_BY_NAME, /* by the extension of the path: .qcow2, .qcow; anything else is raw, and refused if
                      it begins like a qcow2 image (EINVAL, with the option to use) */
    IMAGE_RAW,
    IMAGE_QCOW2,
    IMAGE_QCOW, /* version 1 */
};

#define IMAGE_MAX_DEPTH 64 /* images in a chain */

/* "raw", "qcow2", "qcow". False: no such format. */
bool image_format_parse(const char *text, enum image_format *format);

struct image_args {
    const struct url *url; /* accepted by blk_check_url(); outlives the device */
    enum image_format format;
    const char *snapshot; /* name or id of an internal one; NULL: the state now */
    /* What the image and those behind it may name beside what lies beneath its directory: prefixes of
     * names and URLs as they stand in the image; "any": everything. */
    const char *const *allowed;
    size_t allowed_count;
    uint64_t session_id;                 /* of the image's own endpoint; see struct blk_open_args */
    const struct blk_settings *settings; /* outlives the device */
    struct blk_watcher *watcher;         /* NULL: nobody wants to know */
};

/* Opens for reading. Owned by the caller until done(). */
struct image {
    /* Set by the owner. */
    struct loop *loop;
    struct image_args args;
    void (*done)(struct image *image, int status); /* from the loop, once */
    void *opaque;

    /* Valid in done(). */
    struct blk_dev *dev; /* the owner's: blk_close() closes the whole chain. NULL with an error */
    struct blk_error error; /* names the endpoint */

    /* private */
    struct image_chain *chain;
};

void image_open(struct image *image);
/* done() follows soon, with -ECANCELED. Does nothing when it was called. */
void image_cancel(struct image *image);

#endif
