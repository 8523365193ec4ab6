/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "private.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- Moving bytes ----------------------------------------------------------------------------- */

/*
 * Every file is open twice where the filesystem allows it, with and without O_DIRECT, and each call
 * takes the one that fits: O_DIRECT where offset, length and memory are multiples of a page, the
 * page cache otherwise. So callers need not align anything, and bulk data passes no cache.
 *
 * Mixing is coherent because a page is never on both sides at once: a direct call covers whole
 * pages, before it the kernel writes back what the cache has of them, and after a write it drops
 * them; what is buffered is the last, odd part of a file, which no direct call touches. (Requests in
 * flight do not overlap, see block.h.) That is why it has to be the page size where that is more
 * than 4096.
 */
size_t file_direct_align(void)
{
    long page = sysconf(_SC_PAGESIZE);

    return page > 4096 ? (size_t)page : 4096;
}

static bool fits_direct(const struct file_io *io)
{
    size_t mask = file_direct_align() - 1;
    uint64_t bits = io->offset | io->left;

    for (int i = 0; i < io->iovcnt; i++)
        bits |= (uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len;
    return (bits & mask) == 0;
}

static int pick_fd(const struct file_io *io)
{
    return io->direct_fd >= 0 && fits_direct(io) ? io->direct_fd : io->fd;
}

static int call_iovcnt(const struct file_io *io)
{
    return io->iovcnt < IOV_MAX ? io->iovcnt : IOV_MAX;
}

/* Takes what has been moved off the front of the transfer. */
static void advance(struct file_io *io, size_t moved)
{
    assert(moved <= io->left);
    io->offset += moved;
    io->left -= moved;
    while (io->iovcnt > 0 && moved >= io->iov->iov_len) {
        moved -= io->iov->iov_len;
        io->iov++;
        io->iovcnt--;
    }
    if (moved > 0) {
        io->iov->iov_base = (char *)io->iov->iov_base + moved;
        io->iov->iov_len -= moved;
    }
}

/* The kernel keeps a page that the range covers only in part. */
static void drop_cached(const struct file_io *io)
{
    uint64_t mask = file_direct_align() - 1;
    uint64_t from = io->offset & ~mask, to = (io->offset + io->left + mask) & ~mask;

    posix_fadvise(io->fd, (off_t)from, (off_t)(to - from), POSIX_FADV_DONTNEED);
}

int file_read(struct file_io *io, bool from_disk)
{
    while (io->left > 0) {
        ssize_t moved;

        if (from_disk && pick_fd(io) == io->fd)
            drop_cached(io);
        moved = preadv(pick_fd(io), io->iov, call_iovcnt(io), (off_t)io->offset);

        if (moved == 0)
            break;
        if (moved > 0)
            advance(io, (size_t)moved);
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int file_write(struct file_io *io, bool durable)
{
    int flags = durable ? RWF_DSYNC : 0;

    while (io->left > 0) {
        ssize_t moved = pwritev2(pick_fd(io), io->iov, call_iovcnt(io), (off_t)io->offset, flags);

        if (moved > 0)
            advance(io, (size_t)moved);
        else if (moved == 0)
            return -EIO; /* no filesystem does that; to try again could go on for ever */
        else if (errno == EOPNOTSUPP && flags != 0)
            flags = 0; /* an old kind of filesystem; fdatasync() does it too */
        else if (errno != EINTR)
            return -errno;
    }
    return durable && flags == 0 && fdatasync(io->fd) < 0 ? -errno : 0;
}

int64_t file_nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* ---- Words ------------------------------------------------------------------------------------ */

int file_error(struct blk_error *error, int code)
{
    const char *text = strerror(code);

    return blk_error_set(error, code, "%c%s", tolower((unsigned char)text[0]), text + 1);
}

const char *file_odd_type(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFBLK:
        return NULL;
    case S_IFDIR:
        return "a directory";
    case S_IFCHR:
        return "a character device";
    case S_IFIFO:
        return "a named pipe";
    case S_IFSOCK:
        return "a socket";
    case S_IFLNK:
        return "a symbolic link, which is not followed here";
    default:
        return "something unknown";
    }
}
