/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The arithmetic of an image that is to be written: how many tables of which kind, and what does not fit
 * into the format. Pure functions.
 */
#ifndef LUNFERRY_QCOW2_SHAPE_H
#define LUNFERRY_QCOW2_SHAPE_H

#include <lunferry/image_make.h>

struct qcow2_shape {
    unsigned cluster_bits;
    unsigned refcount_bits;
    unsigned words;    /* of 64 bits, in an L2 entry: 2 with extended ones */
    unsigned l2_bits;  /* entries of an L2 table, as a power of two */
    uint64_t size;     /* bytes, virtual: a multiple of 512 */
    uint64_t clusters; /* of the disk */
    uint64_t tables;   /* L2 tables of the disk, which is the L1 table's length; at least 1 */
    uint64_t arena;    /* bytes of the file that plain clusters are given in advance; 0: none */
    /* With compression: at least so many bytes lie from the start of one compressed cluster to the next, so that
     * no cluster of the file is touched by more of them than a refcount can count. With s bytes it is touched
     * by one that begins before it, and by cluster_size / s; 1 + 2^(bits - 1) is below 2^bits from 2 bits on. */
    uint32_t spacing;
};

/* `layout` is complete. */
void qcow2_shape_init(struct qcow2_shape *shape, const struct image_layout *layout, uint64_t size);

/* What lies behind all else in the file, in this order; in clusters. */
struct qcow2_last {
    uint64_t blocks, reftable, l1;
};

/* For a file that has `clusters` without them. The blocks count themselves, too. */
struct qcow2_last qcow2_shape_last(const struct qcow2_shape *shape, uint64_t clusters);

/* Clusters that the file can need at most, without what is written more than once. */
uint64_t qcow2_shape_most(const struct qcow2_shape *shape);

/* QEMU's limits. 0, or -EFBIG with a sentence that names the cluster size with which it would do. */
int qcow2_shape_check(const struct image_layout *layout, uint64_t size, struct blk_error *error);

#endif
