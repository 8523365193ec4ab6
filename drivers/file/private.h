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

/* ---- Moving bytes: io.c ----------------------------------------------------------------------- */

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

/* ---- The device: device.c ---------------------------------------------------------------------- */

/* What a range is changed by, its bytes not being written. */
enum file_means {
    FILE_ZERO_RANGE,         /* FALLOC_FL_ZERO_RANGE: zeros, and the range stays allocated */
    FILE_PUNCH_AND_ALLOCATE, /* the same in two calls, for filesystems that lack the first (tmpfs) */
    FILE_PUNCH,              /* FALLOC_FL_PUNCH_HOLE: zeros, and nothing is allocated */
    FILE_DISCARD,            /* BLKDISCARD; what it reads as then is up to the disk */
};

struct file_dev {
    struct blk_dev dev;
    int fd;        /* through the page cache; -1: not open */
    int direct_fd; /* with O_DIRECT; -1: the filesystem has none */
    int range_fd;  /* for ZERO and DISCARD: fd, or a duplicate of the origin's, see clone_file() */
    bool is_block; /* a block device, not a regular file */
    uint32_t logical_block;   /* bytes; 0: not known */
    uint64_t allocated;       /* bytes on disk at the last look */
    enum file_means in_place; /* ZERO that leaves the range allocated; with BLK_CAN_ZERO */
    atomic_bool cancelled;    /* helper threads look at it before they begin */

    /* Of open, clone, recover, resize and close, one at a time. */
    struct loop_work work;
    int dirfd;   /* what path is relative to */
    char *path;  /* until it is open */
    bool follow; /* a symbolic link */
    /* Of a clone, while it is being opened. */
    int origin_fd, origin_direct_fd, origin_range_fd;
    uint64_t new_size;
    int result; /* 0 or -errno with the sentence */
    struct blk_error error;
};

/* ---- Requests: request.c ---------------------------------------------------------------------- */

struct file_req {
    struct loop_work work;
    struct file_dev *file;
    struct blk_req *req;
    struct file_io io;
    enum file_means means; /* ZERO, DISCARD */
    int result;            /* 0 or -errno */
};

void file_submit(struct blk_dev *dev, struct blk_req *req);
int file_no_thread(struct blk_error *error, int status);

/* ---- Ranges: range.c, block.c ----------------------------------------------------------------- */

/* The capabilities and limits that a regular file has. Calls the kernel, in a helper thread. */
void file_range_probe(struct file_dev *file);
/* Those of a block device, from its directory in sysfs; limits.align is set. */
void file_block_probe(struct blk_dev *dev, const char *directory);

/* What this ZERO or DISCARD is done by, with the capabilities that there are now. */
enum file_means file_means_of(const struct file_dev *file, const struct blk_req *req);
/* In a helper thread. 0 or -errno. */
int file_change_range(int fd, enum file_means means, uint64_t offset, uint64_t len);
/* Is this the answer of a kernel, filesystem or disk that does not know the call? */
bool file_is_refusal(int status);
/* These means were refused: they are not used again. */
void file_give_up(struct file_dev *file, enum file_means means);

/*
 * Fills *extents with what lies at [offset, offset + len), in a helper thread. 0, or -EINVAL where
 * the filesystem does not tell. Only what the kernel calls a hole is called zeros.
 */
int file_extents(int fd, uint64_t offset, uint64_t len, struct blk_extents *extents);

/* ---- The kernel: kernel.c. A test may stand in for it. ---------------------------------------- */

/* fallocate(2); 0 or -errno. */
int file_kernel_fallocate(int fd, int mode, uint64_t offset, uint64_t len);
/* BLKDISCARD; 0 or -errno. */
int file_kernel_discard(int fd, uint64_t offset, uint64_t len);
/* lseek(2) with SEEK_DATA or SEEK_HOLE; an offset or -errno. Moves the descriptor's position, which
 * nothing here depends on: every transfer says its offset. */
int64_t file_kernel_seek(int fd, uint64_t offset, int whence);

/* ---- Disks and names: identity.c, io.c ---------------------------------------------------------- */

/* The same text for the same file or block device by whatever name (a hard link, a symbolic link,
 * another device node), to be freed. Another disk never has it, after a reboot either, as far as the
 * system tells disks apart. Reads sysfs, which may wait for a disk. NULL: not known. */
char *file_identity(int fd);

/* A part of it: what the disk, or the partition of one, with this directory in sysfs is called;
 * `otherwise` is for disks without a name that is theirs alone. NULL: out of memory. */
char *file_disk_identity(const char *directory, const char *otherwise);

/* The number in a file of sysfs, of a directory and a name in it. False: there is none. */
bool file_sysfs_number(const char *directory, const char *name, uint64_t *number);
/* Is this the directory of a partition? What is its disk's alone lies one above. */
bool file_is_partition(const char *directory);

/* What offset, length and memory have to be multiples of for direct I/O. */
size_t file_direct_align(void);

/* Since the epoch. */
int64_t file_nanoseconds(struct timespec time);

/* What the system says, in lower case. Returns -code. */
int file_error(struct blk_error *error, int code);

/* What it is, where it has no bytes at offsets ("a directory"); NULL for files and block devices. */
const char *file_odd_type(mode_t mode);

#endif
