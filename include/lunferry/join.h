/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device made of parts of other devices, one behind the other: several sources in a row, a range of
 * one, a target from an offset on, an image with zeros behind it.
 */
#ifndef LUNFERRY_JOIN_H
#define LUNFERRY_JOIN_H

#include <lunferry/block.h>

struct join_part {
    struct blk_dev *dev;  /* open; NULL: zeros */
    uint64_t offset, len; /* of dev, in bytes; len > 0, and within it */
};

/*
 * The join takes the devices over, from this call on: blk_close() closes them, blk_clone() clones them,
 * cancelling, hurrying, looking again, reserving and needing go to each. A device may stand in one part
 * only. It is writable where all parts are, none of them zeros. Requests are passed on with their
 * flags; epoch and durability come from below; so do errors, whose sentence names the device below and
 * its offset. With one part, ZERO, DISCARD and all capabilities are that part's. `identity` is made of
 * those of the parts with offset and length, NULL where one of them is.
 * `name` (for messages) is copied. NULL: out of memory; the devices are then the caller's still.
 */
struct blk_dev *join_open(struct loop *loop, const char *name, const struct join_part *parts,
                          size_t count, struct blk_task *task);

#endif
