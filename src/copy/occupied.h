/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is on a device already? Its head and tail are read; libblkid names partition tables,
 * filesystems, RAID and volume manager members; any other byte that is not zero counts too (raw
 * databases have no signature).
 */
#ifndef LUNFERRY_OCCUPIED_H
#define LUNFERRY_OCCUPIED_H

#include <lunferry/block.h>

struct occupied {
    /* Set by the caller. */
    struct blk_dev *dev;
    void (*done)(struct occupied *occupied);

    /* Valid in done(). */
    int status;
    struct blk_error error;
    char found[160]; /* "ext4 labelled \"data\""; "" when the device looks empty */

    /* private */
    unsigned char *buffers[2]; /* head, tail */
    struct iovec iovs[2];
    struct blk_req reqs[2];
    unsigned outstanding;
};

/* Returns 0, or -ENOMEM without calling done(). */
int occupied_start(struct occupied *occupied);

#endif
