/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Disks of the fake world in a row, and a join of parts of them. */
#ifndef LUNFERRY_TEST_ROW_H
#define LUNFERRY_TEST_ROW_H

#include "desk.h"

#include <lunferry/join.h>

#define ROW_ALL   (BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD | BLK_CAN_EXTENTS)
#define ROW_DISKS 4

/* Disks in a row, and the join of parts of them. */
struct row {
    struct desk desk; /* its dev is the join; its disk is not used */
    struct fake_disk disks[ROW_DISKS];
    struct fake_end ends[ROW_DISKS];
    unsigned disk_count;
    struct join_part parts[2 * ROW_DISKS];
    size_t count;
};

void row_init(struct row *row);
/* Another disk, of blocks of 512 bytes, full, and capable of ROW_ALL. Its endpoint is full:a, full:b... */
struct fake_disk *row_disk(struct row *row, uint64_t size);
/* [offset, offset + len) of the disk, which is opened, comes next. */
void row_part(struct row *row, unsigned number, bool writable, uint64_t offset, uint64_t len);
void row_zeros(struct row *row, uint64_t len);
/* Joins them, as "all". Returns the status; with an error its text is in desk.events. */
int row_join(struct row *row);
/* All of it, with two disks of 8 KiB, of which the join has the last 4 KiB and the first 4 KiB. */
void row_of_two(struct row *row);
/* Closes the join, if it is there, and with it the disks. */
void row_release(struct row *row);

#endif
