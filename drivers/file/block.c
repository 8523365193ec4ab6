/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the disk behind a block device can do, by sysfs (Documentation/ABI/stable/sysfs-block). */
#include "private.h"

#include <stdio.h>

#include <lunferry/units.h>

/* A disk without thin provisioning writes the zeros itself, no faster than any others; a call is over
 * in one go, and a job that is cancelled has to wait for it. */
#define MAX_ZERO (64 * (uint64_t)MIB)
/* To unmap is quick. */
#define MAX_DISCARD (1024 * (uint64_t)MIB)

/* 0: none. */
static uint64_t number(const char *directory, const char *name)
{
    uint64_t value;

    return file_sysfs_number(directory, name, &value) ? value : 0;
}

/* discard_alignment is that of the device itself, the partition: where its first unit begins. */
static void set_granule(struct blk_limits *limits, const char *directory, const char *queue)
{
    uint64_t granule = number(queue, "discard_granularity"), phase;

    if (granule == 0 || granule % limits->align != 0)
        return;
    phase = number(directory, "discard_alignment") % granule;
    if (phase % limits->align != 0)
        return;
    limits->unmap_granule = granule;
    limits->unmap_phase = phase;
}

/*
 * ZERO only where the disk has a command for it: otherwise the kernel would write the zeros, which the
 * middle does as well, in pieces that can be cancelled.
 *
 * There are no extents: the kernel has no call that says what of a disk is unmapped, nor whether that
 * reads as zeros (discard_zeroes_data and BLKDISCARDZEROES are always 0).
 */
void file_block_probe(struct blk_dev *dev, const char *directory)
{
    char queue[512];

    if (snprintf(queue, sizeof(queue), "%s%s/queue", directory,
                 file_is_partition(directory) ? "/.." : "") >= (int)sizeof(queue))
        return;
    if (number(queue, "write_zeroes_max_bytes") > 0) {
        dev->caps |= BLK_CAN_ZERO;
        dev->limits.max_zero = MAX_ZERO;
    }
    if (number(queue, "discard_max_bytes") > 0) {
        dev->caps |= BLK_CAN_DISCARD | (dev->caps & BLK_CAN_ZERO ? BLK_CAN_UNMAP : 0);
        dev->limits.max_discard = MAX_DISCARD;
        set_granule(&dev->limits, directory, queue);
    }
}
