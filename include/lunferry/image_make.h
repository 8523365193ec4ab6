/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A new image in a format of its own: what the user says of it, and the device that writes it.
 *
 * The device is one over the file that the image lies in. It appends: a cluster gets its place in the
 * file when its bytes are there, in whatever order they come. What makes the file an image is written by
 * blk_finish(), the header last of all; before that it has no magic, and nobody takes it for one.
 */
#ifndef LUNFERRY_IMAGE_MAKE_H
#define LUNFERRY_IMAGE_MAKE_H

#include <lunferry/block.h>
#include <lunferry/image.h>

enum image_compression { IMAGE_ZLIB, IMAGE_ZSTD };

/* What -o, -c and their like say; 0 stands for what is usual. */
struct image_layout {
    enum image_format format; /* QCOW2; anything else is raw */
    unsigned version;         /* 2 or 3; usually 3 */
    uint32_t cluster_size;    /* bytes: a power of two, 512 to 2 MiB; usually 64 KiB */
    unsigned refcount_bits;   /* 1 to 64, a power of two; usually 16 */
    bool extended_l2;         /* version 3; clusters of 16 KiB or more */
    bool lazy_refcounts; /* version 3: the bit in the header, for those who write to it later */
    bool compress;       /* clusters are, where it makes them smaller */
    enum image_compression compression; /* version 2: ZLIB */
    int level;                          /* 1 to 9 of zlib, 1 to 19 of zstd; 0: the usual */
    const char *backing; /* its name, as it will stand in the image, up to 1023 bytes; NULL: none */
    const char *backing_format; /* "raw", "qcow2"; NULL: not said */
};

/* Is it more than the bytes of the disk? */
static inline bool image_layout_has_format(const struct image_layout *layout)
{
    return layout->format == IMAGE_QCOW2;
}

/* Fills in what is usual, and checks that it all goes together. 0, or -EINVAL with a sentence in the
 * words of the options. */
int image_layout_complete(struct image_layout *layout, struct blk_error *error);

/* The longest file that an image of `size` bytes can need; bytes. More only if the server loses what was
 * written, again and again. */
uint64_t image_make_bound(const struct image_layout *layout, uint64_t size);

struct image_make {
    const char *name; /* of the image, for messages; copied */
    /* Open for writing; empty and with an open end (blk_open_end()), or of image_make_bound() bytes and zero all over, if
     * it is a file; or something whose size is fixed, of any content. */
    struct blk_dev *file;
    struct image_layout layout; /* complete; what it points to is copied */
    uint64_t size;              /* bytes of the disk; the image has the next multiple of 512 */
};

/*
 * A device for writing, of `size` bytes, over `file`, which it takes over as join_open() does. NULL: out
 * of memory; the file is then the caller's still.
 *
 * limits.align is the cluster size: WRITE and ZERO begin and end there, or at the end of the disk
 * (-EINVAL). What is never written shows the backing image, or is zero where there is none. WRITE may
 * be repeated, and takes the place of what was there. ZERO makes zero clusters where there is a backing
 * image, and otherwise frees. A WRITE is done when the write that carries its bytes is, with its epoch;
 * compressed clusters wait for others that go with them until blk_push(). There is no READ (-ENOTSUP), nor is there when
 * it is finished: then the file can be opened as an image.
 *
 * While it opens, the first cluster of the file is blanked, durably. Zeros are durable at once: they are entries, which
 * blk_finish() writes. It gives the file the length that the image has come to, where that can be done. Clones are
 * idle or closed then, and nothing is written afterwards.
 *
 * Memory, all clones together: L2 tables that are being filled or on their way, about IMAGE_MAKE_TABLES bytes of
 * them or two for each clone; 8 bytes for each L2 table of the disk; 2 bytes for each cluster of the file that
 * compressed ones lie in; and for each clone up to four packs of about 1 MiB (two clusters, if that is more) and
 * the encoder.
 */
struct blk_dev *image_make_open(struct loop *loop, const struct image_make *make,
                                struct blk_task *task);

#define IMAGE_MAKE_TABLES (4u << 20)

#endif
