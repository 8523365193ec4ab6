/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image: what is inside a device. A raw one is the device itself; a qcow2 one is a device over it, and
 * over those that its backing chain names.
 *
 * The format comes from the user or from the name, never from the content, which a guest could have
 * written. An image of strangers names other files: such a name is opened only if it is relative and
 * stays beneath the image's own directory on the same endpoint, or if the user has allowed it.
 *
 * That rule is about names. What a name leads to is the server's matter, or the kernel's: a symbolic link
 * in the image's directory is followed, wherever it leads. Who may make one there decides what is read.
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
#define IMAGE_MAX_L1                                                                               \
    (128u << 20) /* bytes of the L1 tables of all of them, as far as they are needed */

/* "raw", "qcow2", "qcow". False: no such format. */
bool image_format_parse(const char *text, enum image_format *format);
/* Of any but BY_NAME. */
const char *image_format_name(enum image_format format);
/* What the extension of its path says: QCOW2, QCOW or, of any other, BY_NAME. */
enum image_format image_format_of(const struct url *url);

/* What the user says of an image. All that it points to outlives the image. */
struct image_choice {
    enum image_format format;
    const char *snapshot; /* id or name of an internal one; NULL: the state now */
    /*
     * What the image and those behind it may name beside what lies beneath its directory: prefixes, by
     * whole components of a path, of names and URLs as they stand in the image, once "." and ".." are
     * worked out; "any": every name. A relative name (of the image's directory) is allowed by a relative
     * prefix, a path from the root (which is a local one, wherever the image lies) by one from the root,
     * a URL by one with the same scheme, hosts, user and options. QEMU's "json:..." and names of its
     * drivers are not opened at all.
     */
    const char *const *allowed;
    size_t allowed_count;
};

struct image_args {
    const struct url *url; /* accepted by blk_check_url(); outlives the device */
    struct image_choice choice;
    uint64_t session_id;                 /* of the image's own endpoint; see struct blk_open_args */
    const struct blk_settings *settings; /* outlives the device */
    struct blk_watcher *watcher;         /* NULL: nobody wants to know */
};

/* Opens for reading. Owned by the caller, and outlives the device: what the chain was opened by is kept
 * here. All zeros is good for image_release(). */
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
    struct loop_call call;
};

void image_open(struct image *image);
/* done() follows soon, with -ECANCELED. Does nothing when it was called. */
void image_cancel(struct image *image);
/* After done(), when the device is closed. May be called again. */
void image_release(struct image *image);

/*
 * The backing file that an image at `image` is to have, which the user names: relative to the image's
 * directory, or from the root, or as a URL. *url is where it leads (released by the caller in either case);
 * *recorded (malloc) the name for the image: relative where that leads there, so that both can be moved
 * together, otherwise as it was given. 0, -EINVAL or -ENOMEM with a sentence.
 */
int image_backing_name(const struct url *image, const char *name, struct url *url, char **recorded,
                       struct blk_error *error);

/* One image of a chain, for those who describe it; valid as long as the device is open. */
struct image_layer {
    const struct blk_dev *file; /* what it lies in */
    const struct blk_dev *data; /* its external data file; NULL: none */
    enum image_format format;   /* never BY_NAME */
    uint64_t size;              /* bytes, virtual; of the snapshot, if that was asked for */
    /* What follows is for formats other than raw. */
    unsigned version;
    uint32_t cluster_size;      /* bytes */
    const char *compression;    /* of clusters that are: "zlib", "zstd" */
    uint64_t incompatible;      /* feature bits of the header */
    uint64_t compatible;        /* likewise */
    uint64_t autoclear;         /* likewise */
    uint32_t snapshots;         /* internal ones */
    const char *backing;        /* the name in the image; NULL: none */
    const char *backing_format; /* as the image says it; NULL: it does not */
    const char *data_file;      /* the name in the image; NULL: none */
};

/* Of an image that is open: 0 is the one that was named, 1 its backing image... NULL: there is none. */
const struct image_layer *image_layer(const struct image *image, unsigned depth);

#endif
