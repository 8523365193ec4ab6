/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long the file of a new image will be, before it is made: arithmetic, which opens nothing. What is data
 * comes from a map of the source (map.h), in ascending order.
 *
 * The figures are those of `qemu-img measure': what the metadata of a full image takes, and for each cluster
 * with data in it a cluster. Nobody knows before what compression saves, what zeros will be found in the data, and what
 * a backing image has already.
 */
#ifndef LUNFERRY_MEASURE_H
#define LUNFERRY_MEASURE_H

#include <lunferry/image_make.h>

/* Filled by measure_start(); private. */
struct measure {
    struct image_layout layout;
    uint64_t size;
    uint64_t data; /* bytes of the clusters with data that were met */
    uint64_t end;  /* of the last of them */
};

struct measure_result {
    uint64_t required;        /* bytes; at most: fully_allocated */
    uint64_t fully_allocated; /* if every cluster had data */
};

/* `layout` is complete; `size` is that of the disk, in bytes. 0, or -EFBIG with a sentence: such an image
 * cannot be that large. */
int measure_start(struct measure *measure, const struct image_layout *layout, uint64_t size,
                  struct blk_error *error);
/* [offset, offset + len) is data; behind all that was told before, within the size, len > 0. */
void measure_data(struct measure *measure, uint64_t offset, uint64_t len);
void measure_end(const struct measure *measure, struct measure_result *result);

#endif
