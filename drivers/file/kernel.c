/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The calls about ranges of a file, alone here so that a test can stand in for kernel and disk. */
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

int file_kernel_fallocate(int fd, int mode, uint64_t offset, uint64_t len)
{
    int status;

    do
        status = fallocate(fd, mode, (off_t)offset, (off_t)len);
    while (status < 0 && errno == EINTR);
    return status < 0 ? -errno : 0;
}

int file_kernel_discard(int fd, uint64_t offset, uint64_t len)
{
    uint64_t range[2] = {offset, len};

    return ioctl(fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

int64_t file_kernel_seek(int fd, uint64_t offset, int whence)
{
    off_t at = lseek(fd, (off_t)offset, whence);

    return at < 0 ? -errno : at;
}
