/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow2_shape.h"

#include <errno.h>
#include <inttypes.h>

#include <lunferry/units.h>

#include "qcow2.h"

#define MAX_CLUSTER (2u << 20)

/* Of plain clusters between compressed ones: so many together do not break up what is packed, and of the largest
 * clusters as few that what may be left of them is not much. */
#define ARENA_CLUSTERS 64u
#define ARENA_LEAST    8u
#define ARENA_BYTES    (16 * MIB)

static uint64_t ceil_shift(uint64_t value, unsigned bits)
{
    return (value >> bits) + ((value & ((UINT64_C(1) << bits) - 1)) != 0);
}

static uint64_t arena_clusters(unsigned cluster_bits)
{
    uint64_t clusters = min_u64(ARENA_BYTES >> cluster_bits, ARENA_CLUSTERS);

    return clusters > ARENA_LEAST ? clusters : ARENA_LEAST;
}

void qcow2_shape_init(struct qcow2_shape *shape, const struct image_layout *layout, uint64_t size)
{
    unsigned bits = (unsigned)__builtin_ctz(layout->cluster_size);
    unsigned counted = layout->refcount_bits < 16 ? layout->refcount_bits : 16;

    *shape = (struct qcow2_shape){
        .cluster_bits = bits,
        .refcount_bits = layout->refcount_bits,
        .words = layout->extended_l2 ? 2 : 1,
        .l2_bits = bits - (layout->extended_l2 ? 4 : 3),
        .size = round_up(size, 512),
        .clusters = ceil_shift(size, bits),
        .arena = layout->compress ? arena_clusters(bits) << bits : 0,
        .spacing = layout->cluster_size >> (counted - 1),
    };
    shape->tables = ceil_shift(shape->clusters, shape->l2_bits);
    if (shape->tables == 0)
        shape->tables = 1;
    if (shape->spacing == 0)
        shape->spacing = 1;
}

/* A cluster has 8 * cluster_size / refcount_bits refcounts. */
static unsigned block_bits(const struct qcow2_shape *shape)
{
    return shape->cluster_bits + 3 - (unsigned)__builtin_ctz(shape->refcount_bits);
}

struct qcow2_last qcow2_shape_last(const struct qcow2_shape *shape, uint64_t clusters)
{
    struct qcow2_last last = {.l1 = ceil_shift(shape->tables, shape->cluster_bits - 3)};
    uint64_t total = clusters + last.l1, before;

    do {
        before = total;
        last.blocks = ceil_shift(total, block_bits(shape));
        last.reftable = ceil_shift(last.blocks, shape->cluster_bits - 3);
        total = clusters + last.l1 + last.blocks + last.reftable;
    } while (total != before);
    return last;
}

/*
 * The header, the data and the L2 tables. Compressed clusters are shorter than clusters, packed or not, so
 * that a disk of plain ones is the longest; but where what is packed is followed by an arena of plain clusters, the
 * rest of its last cluster may be lost, and of the last arena all but one cluster.
 */
static uint64_t most_without_last(const struct qcow2_shape *shape)
{
    uint64_t clusters = 1 + shape->clusters + shape->tables;
    uint64_t arena = shape->arena >> shape->cluster_bits;

    return arena ? clusters + clusters / arena + 1 + arena : clusters;
}

uint64_t qcow2_shape_most(const struct qcow2_shape *shape)
{
    uint64_t clusters = most_without_last(shape);
    struct qcow2_last last = qcow2_shape_last(shape, clusters);

    return clusters + last.blocks + last.reftable + last.l1;
}

static bool fits(const struct image_layout *layout, uint64_t size, uint32_t cluster_size)
{
    struct image_layout other = *layout;
    struct qcow2_shape shape;
    struct qcow2_last last;

    other.cluster_size = cluster_size;
    qcow2_shape_init(&shape, &other, size);
    last = qcow2_shape_last(&shape, most_without_last(&shape));
    return shape.tables * 8 <= QCOW2_MAX_L1 &&
           last.reftable << shape.cluster_bits <= QCOW2_MAX_REFTABLE;
}

int qcow2_shape_check(const struct image_layout *layout, uint64_t size, struct blk_error *error)
{
    char disk[UNITS_TEXT], clusters[UNITS_TEXT];
    uint32_t other = layout->cluster_size;

    units_size(disk, size);
    units_size(clusters, layout->cluster_size);
    if (size > INT64_MAX - 511)
        return blk_error_set(error, EFBIG, "a disk of %s is too long for qcow2", disk);
    if (fits(layout, size, layout->cluster_size))
        return 0;
    while (other < MAX_CLUSTER) {
        other *= 2;
        if (fits(layout, size, other))
            return blk_error_set(error, EFBIG,
                                 "a disk of %s is too long for qcow2 with clusters of %s; with "
                                 "-o cluster_size=%" PRIu32 " it is not",
                                 disk, clusters, other);
    }
    return blk_error_set(error, EFBIG, "a disk of %s is too long for qcow2 with such an image",
                         disk);
}
