/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the user says of a new image: what is left open becomes what is usual, and what does not go together is
 * refused, in the words of the options. */
#include <lunferry/image_make.h>

#include <errno.h>
#include <string.h>

#include <lunferry/units.h>

#include "qcow2.h"

#define SMALLEST_CLUSTER 512u
#define LARGEST_CLUSTER  (2u << 20)
#define EXTENDED_CLUSTER (16u << 10) /* the smallest that has subclusters */
#define MOST_BITS        64u

/* Of the header with all that stands before the backing file's name. */
#define HEADER_V2 72u
#define HEADER_V3 112u
#define EXTENSION 8u /* type and length; its data is padded to as much */

static bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static int refuse(struct blk_error *error, const char *text)
{
    return blk_error_set(error, EINVAL, "%s", text);
}

static int check_base_format(const struct image_layout *layout, struct blk_error *error)
{
    if (layout->backing_format && !layout->backing)
        return refuse(error, "-F says of what format the backing image is: it needs -B too");
    return 0;
}

static int complete_raw(const struct image_layout *layout, struct blk_error *error)
{
    if (layout->compress || layout->compression != IMAGE_ZLIB || layout->level != 0)
        return refuse(error, "a raw image cannot be compressed: -c is for -O qcow2");
    if (layout->backing)
        return refuse(error, "a raw image has no backing image: -B is for -O qcow2");
    if (layout->version || layout->cluster_size || layout->refcount_bits || layout->extended_l2 ||
        layout->lazy_refcounts)
        return refuse(error, "a raw image has no such properties: -o is for -O qcow2");
    return check_base_format(layout, error);
}

static int check_clusters(struct image_layout *layout, struct blk_error *error)
{
    if (layout->cluster_size == 0)
        layout->cluster_size = 64 * KIB;
    if (!is_power_of_two(layout->cluster_size) || layout->cluster_size < SMALLEST_CLUSTER ||
        layout->cluster_size > LARGEST_CLUSTER)
        return blk_error_set(error, EINVAL,
                             "-o cluster_size: %u is no power of two between 512 and 2M",
                             layout->cluster_size);
    if (layout->extended_l2 && layout->cluster_size < EXTENDED_CLUSTER)
        return blk_error_set(error, EINVAL,
                             "-o extended_l2 needs clusters of 16k or more, and %u is less",
                             layout->cluster_size);
    return 0;
}

static int check_version(struct image_layout *layout, struct blk_error *error)
{
    if (layout->version == 0)
        layout->version = 3;
    if (layout->version != 2 && layout->version != 3)
        return blk_error_set(error, EINVAL, "there is no version %u of qcow2 images: 2 and 3 are",
                             layout->version);
    if (layout->version == 3)
        return 0;
    if (layout->extended_l2)
        return refuse(error, "-o extended_l2 needs compat=1.1");
    if (layout->lazy_refcounts)
        return refuse(error, "-o lazy_refcounts needs compat=1.1");
    if (layout->refcount_bits != 0 && layout->refcount_bits != 16)
        return refuse(error, "-o refcount_bits other than 16 needs compat=1.1");
    if (layout->compression != IMAGE_ZLIB)
        return refuse(error, "zstd needs compat=1.1: an image of compat=0.10 knows only zlib");
    return 0;
}

/*
 * A cluster of the file has as refcount the number of compressed clusters of which a part lies in it. From 2 bits on
 * they are put so far apart that it can be counted (struct qcow2_shape); with 1 each would need a cluster of its own.
 */
static int check_refcounts(struct image_layout *layout, struct blk_error *error)
{
    if (layout->refcount_bits == 0)
        layout->refcount_bits = 16;
    if (!is_power_of_two(layout->refcount_bits) || layout->refcount_bits > MOST_BITS)
        return blk_error_set(error, EINVAL,
                             "-o refcount_bits: %u is no power of two between 1 and 64",
                             layout->refcount_bits);
    if (layout->compress && layout->refcount_bits == 1)
        return refuse(error, "-o refcount_bits=1 is too little for -c: what is compressed shares "
                             "clusters of the file, which 2 bits or more can count");
    return 0;
}

static int check_compression(const struct image_layout *layout, struct blk_error *error)
{
    const int most = layout->compression == IMAGE_ZSTD ? 19 : 9;

    if (layout->level != 0 && !layout->compress)
        return refuse(error, "a level of compression needs -c too");
    if (layout->level < 0 || layout->level > most)
        return blk_error_set(error, EINVAL, "%s has the levels 1 to %d, and no %d",
                             layout->compression == IMAGE_ZSTD ? "zstd" : "zlib", most,
                             layout->level);
    return 0;
}

/* The name has to lie in the first cluster, behind the header and its extensions. */
static int check_backing(const struct image_layout *layout, struct blk_error *error)
{
    size_t before = layout->version == 2 ? HEADER_V2 : HEADER_V3, len;
    enum image_format format;

    if (!layout->backing)
        return check_base_format(layout, error);
    len = strlen(layout->backing);
    if (len == 0 || len > QCOW2_MAX_NAME)
        return blk_error_set(error, EINVAL,
                             "-B: the name of a backing image has 1 to %d bytes, and this one %zu",
                             QCOW2_MAX_NAME, len);
    if (layout->backing_format && !image_format_parse(layout->backing_format, &format))
        return blk_error_set(error, EINVAL, "-F: \"%s\" is no format that is known",
                             layout->backing_format);
    if (layout->backing_format)
        before += EXTENSION + round_up(strlen(layout->backing_format), EXTENSION);
    before += EXTENSION; /* the end */
    if (before + len > layout->cluster_size)
        return blk_error_set(error, EINVAL,
                             "-B: a name of %zu bytes has no place in a header of one cluster of "
                             "%u; a larger -o cluster_size has",
                             len, layout->cluster_size);
    return 0;
}

int image_layout_complete(struct image_layout *layout, struct blk_error *error)
{
    int status;

    if (layout->format == IMAGE_RAW)
        return complete_raw(layout, error);
    if (layout->format != IMAGE_QCOW2)
        return refuse(error, "only raw and qcow2 images can be written");
    status = check_version(layout, error);
    if (status == 0)
        status = check_clusters(layout, error);
    if (status == 0)
        status = check_refcounts(layout, error);
    if (status == 0)
        status = check_compression(layout, error);
    if (status == 0)
        status = check_backing(layout, error);
    return status;
}
