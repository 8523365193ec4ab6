/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Local files. Everything that can wait for a disk runs in the loop's helper threads: a struct
 * loop_work's run() makes the system calls and keeps what came of them, its done() reports. What
 * has begun there cannot be taken back; what has not when cancel_all() comes does nothing any more.
 *
 *   device.c     a regular file or block device
 *   identity.c   which one it is
 *   store.c      a directory, and the names in it
 *   io.c         moving bytes, and words for what the system says
 */
#ifndef LUNFERRY_FILE_PRIVATE_H
#define LUNFERRY_FILE_PRIVATE_H

#include <lunferry/driver.h>

#include <stdatomic.h>
#include <sys/stat.h>

extern const struct blk_driver file_driver;
extern const struct store_driver file_store_driver;

struct file_store {
    struct store store;
    int dirfd;           /* -1: not open */
    atomic_uint cancels; /* how often all was cancelled; a request remembers it in `stage`, and the
                            helper threads compare before they begin */
    /* Of open and close. */
    struct loop_work work;
    char *path; /* the directory */
    int result; /* 0 or -errno */
};

/* A transfer under way. */
struct file_io {
    int fd;
    int direct_fd;     /* the same file with O_DIRECT, or -1 */
    struct iovec *iov; /* what is left; eaten up */
    int iovcnt;
    uint64_t offset; /* where it goes on */
    uint64_t left;   /* bytes */
};

/*
 * 0 or -errno. At the end of the file `left` stays more than 0.
 *
 * from_disk: what the disk has, not what the page cache has of it. A direct read is that anyway; for
 * others the pages are dropped from the cache first, as far as they have been written: a FLUSH has
 * to come before. Where files live in the page cache (tmpfs) there is no disk to read from.
 */
int file_read(struct file_io *io, bool from_disk);
/* 0 or -errno. durable: with all that is needed to read it again, it is on stable storage after. */
int file_write(struct file_io *io, bool durable);

/* The same text for the same file or block device by whatever name (a hard link, a symbolic link,
 * another device node), to be freed. Another disk never has it, after a reboot either, as far as the
 * system tells disks apart. Reads sysfs, which may wait for a disk. NULL: not known. */
char *file_identity(int fd);

/* A part of it: what the disk, or the partition of one, with this directory in sysfs is called;
 * `otherwise` is for disks without a name that is theirs alone. NULL: out of memory. */
char *file_disk_identity(const char *directory, const char *otherwise);

/* What offset, length and memory have to be multiples of for direct I/O. */
size_t file_direct_align(void);

/* Since the epoch. */
int64_t file_nanoseconds(struct timespec time);

/* What the system says, in lower case. Returns -code. */
int file_error(struct blk_error *error, int code);

/* What it is, where it has no bytes at offsets ("a directory"); NULL for files and block devices. */
const char *file_odd_type(mode_t mode);

#endif
