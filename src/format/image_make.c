/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <lunferry/image_make.h>

#include "qcow2_shape.h"
#include "qcow2_write.h"

uint64_t image_make_bound(const struct image_layout *layout, uint64_t size)
{
    struct qcow2_shape shape;

    if (layout->format != IMAGE_QCOW2)
        return size;
    qcow2_shape_init(&shape, layout, size);
    return qcow2_shape_most(&shape) << shape.cluster_bits;
}

struct blk_dev *image_make_open(struct loop *loop, const struct image_make *make,
                                struct blk_task *task)
{
    return qcow2_write_open(loop, make, IMAGE_MAKE_TABLES, task);
}
