/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ranges of a file: where its data lies, and how zeros are made without writing them. */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <lunferry/units.h>

/* A call is over in one go: this bounds how long a job that is cancelled waits for it. */
#define MAX_RANGE (UINT64_C(1) << 30)

/* ---- Where the data lies ---------------------------------------------------------------------- */

static void add(struct blk_extents *extents, uint64_t offset, uint64_t end, enum blk_kind kind)
{
    extents->list[extents->count++] = (struct blk_extent){
        .offset = offset,
        .len = end - offset,
        .kind = kind,
        .host_offset = BLK_NO_OFFSET,
    };
}

/* Where the file ends: not beyond `earlier`. 0: not known. */
static uint64_t end_of_file(int fd, uint64_t earlier)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? min_u64((uint64_t)st.st_size, earlier) : 0;
}

/*
 * Where the hole at `at` ends; `at` itself where there is none. ENXIO is the answer for a hole that
 * reaches to the end of the file, and beyond that end: the two are told apart by the size, looked at
 * before and after, since somebody else may change it meanwhile.
 *
 * A disk that cannot read what it knows of the file is not this function's to tell: the range is data,
 * and reading it will say so, with the offset.
 */
static int64_t hole_end(int fd, uint64_t at)
{
    uint64_t before = end_of_file(fd, INT64_MAX), after;
    int64_t data = file_kernel_seek(fd, at, SEEK_DATA);

    if (data == -EINVAL || data >= (int64_t)at)
        return data;
    after = data == -ENXIO ? end_of_file(fd, before) : 0;
    return (int64_t)(after > at ? after : at);
}

static uint64_t data_end(int fd, uint64_t at, uint64_t end)
{
    int64_t hole = file_kernel_seek(fd, at, SEEK_HOLE);

    /* No hole, or a file that has become shorter, or that changes this very moment. */
    return hole > (int64_t)at ? min_u64((uint64_t)hole, end) : end;
}

int file_extents(int fd, uint64_t offset, uint64_t len, struct blk_extents *extents)
{
    uint64_t at = offset, end = offset + len;

    extents->count = 0;
    while (at < end && extents->count < extents->capacity) {
        int64_t data = hole_end(fd, at);
        uint64_t next;

        if (data < 0)
            return (int)data;
        next = (uint64_t)data > at ? min_u64((uint64_t)data, end) : data_end(fd, at, end);
        add(extents, at, next, (uint64_t)data > at ? BLK_ZEROS : BLK_DATA);
        at = next;
    }
    return 0;
}

/* ---- Zeros, and less -------------------------------------------------------------------------- */

void file_range_probe(struct file_dev *file)
{
    struct blk_dev *dev = &file->dev;

    dev->caps |= BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD;
    if (file_kernel_seek(file->fd, 0, SEEK_DATA) != -EINVAL)
        dev->caps |= BLK_CAN_EXTENTS;
    dev->limits.max_zero = dev->limits.max_discard = MAX_RANGE;
    /* Any range is welcome: of a filesystem's block that it covers in part, the kernel writes the
     * zeros. */
    dev->limits.unmap_granule = 0;
}

enum file_means file_means_of(const struct file_dev *file, const struct blk_req *req)
{
    if (req->op == BLK_DISCARD)
        return file->is_block ? FILE_DISCARD : FILE_PUNCH;
    if ((req->flags & BLK_MAY_UNMAP) && (file->dev.caps & BLK_CAN_UNMAP))
        return FILE_PUNCH;
    return file->in_place;
}

/*
 * On a block device, PUNCH_HOLE is a command of the disk that makes zeros, which may unmap, or
 * EOPNOTSUPP; ZERO_RANGE is one that does not unmap, and where the disk has none, the kernel writes
 * zeros (block.c asks first). The ioctl BLKZEROOUT does what ZERO_RANGE does. Each call drops what the
 * page cache has of the range.
 *
 * ZERO_RANGE and the plain call leave out KEEP_SIZE: like a WRITE, they make a file longer which somebody
 * has cut off meanwhile. PUNCH_HOLE cannot.
 */
int file_change_range(int fd, enum file_means means, uint64_t offset, uint64_t len)
{
    int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, status;

    switch (means) {
    case FILE_ZERO_RANGE:
        return file_kernel_fallocate(fd, FALLOC_FL_ZERO_RANGE, offset, len);
    case FILE_PUNCH_AND_ALLOCATE:
        status = file_kernel_fallocate(fd, punch, offset, len);
        return status < 0 ? status : file_kernel_fallocate(fd, 0, offset, len);
    case FILE_PUNCH:
        return file_kernel_fallocate(fd, punch, offset, len);
    case FILE_DISCARD:
        return file_kernel_discard(fd, offset, len);
    }
    return -EINVAL;
}

bool file_is_refusal(int status)
{
    return status == -EOPNOTSUPP || status == -ENOSYS || status == -EINVAL ||
           status == -ENODEV /* fallocate, a block device, before Linux 4.9 */ ||
           status == -ENOTTY /* ioctl */;
}

/* Several requests may find out the same thing: what was given up already stays as it is. */
void file_give_up(struct file_dev *file, enum file_means means)
{
    unsigned *caps = &file->dev.caps;

    switch (means) {
    case FILE_ZERO_RANGE:
        if (file->is_block || !(*caps & BLK_CAN_UNMAP))
            *caps &= ~(unsigned)(BLK_CAN_ZERO | BLK_CAN_UNMAP);
        else
            file->in_place = FILE_PUNCH_AND_ALLOCATE;
        return;
    case FILE_PUNCH_AND_ALLOCATE:
        *caps &= ~(unsigned)(BLK_CAN_ZERO | BLK_CAN_UNMAP);
        return;
    case FILE_PUNCH:
        *caps &= ~(unsigned)BLK_CAN_UNMAP;
        if (!file->is_block)
            *caps &= ~(unsigned)BLK_CAN_DISCARD;
        if (file->in_place == FILE_PUNCH_AND_ALLOCATE)
            *caps &= ~(unsigned)BLK_CAN_ZERO;
        return;
    case FILE_DISCARD:
        *caps &= ~(unsigned)BLK_CAN_DISCARD;
        return;
    }
}
