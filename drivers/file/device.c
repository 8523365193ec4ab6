/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A local regular file or block device. */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <lunferry/units.h>

static struct file_dev *file_of(struct blk_dev *dev)
{
    return (struct file_dev *)dev;
}

static struct file_dev *file_of_work(struct loop_work *work)
{
    return (struct file_dev *)((char *)work - offsetof(struct file_dev, work));
}

/* ---- Looking at it, in a helper thread -------------------------------------------------------- */

/* The times of a block device's node say nothing of what is on it: it has none. Returns 0 or
 * -errno with the sentence. */
static int take_stamp(struct file_dev *file, struct blk_stamp *stamp)
{
    struct stat st;

    if (fstat(file->fd, &st) < 0)
        return file_error(&file->error, errno);
    file->allocated = (uint64_t)st.st_blocks * 512;
    *stamp = (struct blk_stamp){.size = (uint64_t)st.st_size};
    if (!file->is_block) {
        stamp->mtime_ns = file_nanoseconds(st.st_mtim);
        stamp->ctime_ns = file_nanoseconds(st.st_ctim);
        return 0;
    }
    return ioctl(file->fd, BLKGETSIZE64, &stamp->size) < 0 ? file_error(&file->error, errno) : 0;
}

/* ---- Opening, in a helper thread -------------------------------------------------------------- */

static int open_flags(const struct file_dev *file)
{
    return (file->dev.writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY |
           (file->follow ? 0 : O_NOFOLLOW);
}

/* Looks before opening: to open a pipe can wait for ever, and to open a device can do things. */
static int look(struct file_dev *file, struct stat *st)
{
    const char *odd;

    if (fstatat(file->dirfd, file->path, st, file->follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
        return file_error(&file->error, errno);
    odd = file_odd_type(st->st_mode);
    if (odd != NULL)
        return blk_error_set(&file->error, S_ISDIR(st->st_mode) ? EISDIR : EINVAL,
                             "it is %s, not a file or block device", odd);
    file->is_block = S_ISBLK(st->st_mode);
    return 0;
}

static bool is_same(int fd, const struct stat *expected)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_dev == expected->st_dev && st.st_ino == expected->st_ino;
}

static int open_buffered(struct file_dev *file, const struct stat *st)
{
    /* On a block device O_EXCL means: unless it is mounted or part of something else. */
    bool exclusive = file->is_block && file->dev.writable;

    file->fd = openat(file->dirfd, file->path, open_flags(file) | (exclusive ? O_EXCL : 0));
    if (file->fd < 0 && errno == EBUSY && exclusive)
        return blk_error_set(&file->error, EBUSY,
                             "the block device is in use: mounted, or held by another program, "
                             "a RAID or a volume group");
    if (file->fd < 0)
        return file_error(&file->error, errno);
    if (!is_same(file->fd, st))
        return blk_error_set(&file->error, ESTALE, "it was replaced while it was being opened");
    return 0;
}

static int find_size(struct file_dev *file)
{
    int block_size, status = take_stamp(file, &file->dev.opened);

    if (status < 0)
        return status;
    file->dev.size = file->dev.opened.size;
    file->dev.seen = file->dev.opened;
    if (file->is_block && ioctl(file->fd, BLKSSZGET, &block_size) == 0 && block_size > 0)
        file->logical_block = (uint32_t)block_size;
    return 0;
}

/* Whether reading a page directly works, where the kernel does not tell. */
static bool probe_direct(int fd)
{
    size_t align = file_direct_align();
    void *page = aligned_alloc(align, align);
    bool works = page != NULL && pread(fd, page, align, 0) >= 0;

    free(page);
    return works;
}

/* Does direct I/O work with what file_direct_align() says? */
static bool direct_works(struct file_dev *file)
{
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(file->direct_fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN) != 0) {
        size_t align = file_direct_align();

        if (file->logical_block == 0)
            file->logical_block = stx.stx_dio_offset_align;
        return stx.stx_dio_offset_align > 0 && align % stx.stx_dio_offset_align == 0 &&
               stx.stx_dio_mem_align > 0 && align % stx.stx_dio_mem_align == 0;
    }
#endif
    return probe_direct(file->direct_fd);
}

/* Not to have it is no error. */
static void open_direct(struct file_dev *file, const struct stat *st)
{
    file->direct_fd = openat(file->dirfd, file->path, open_flags(file) | O_DIRECT);
    if (file->direct_fd < 0 || (is_same(file->direct_fd, st) && direct_works(file)))
        return;
    close(file->direct_fd);
    file->direct_fd = -1;
}

/* The rest of open and clone: what it can do. */
static void set_limits(struct file_dev *file)
{
    struct blk_dev *dev = &file->dev;
    char directory[64];
    struct stat st;

    dev->caps = BLK_CAN_FUA | (file->is_block ? BLK_BARE : 0);
    dev->limits = (struct blk_limits){
        .align = 1,
        .mem_align = 1,
        .max_read = MIB,
        .max_write = MIB,
        .max_depth = 64,
    };
    file->in_place = FILE_ZERO_RANGE;
    if (!file->is_block) {
        file_range_probe(file);
    } else if (file->logical_block > 0 && fstat(file->fd, &st) == 0) {
        /* Its ZERO and DISCARD take whole blocks only. */
        dev->limits.align = file->logical_block;
        snprintf(directory, sizeof(directory), "/sys/dev/block/%u:%u", major(st.st_rdev),
                 minor(st.st_rdev));
        file_block_probe(dev, directory);
    }
}

static void run_open(struct loop_work *work)
{
    struct file_dev *file = file_of_work(work);
    struct stat st;

    if (atomic_load(&file->cancelled))
        return;
    file->result = look(file, &st);
    if (file->result == 0)
        file->result = open_buffered(file, &st);
    if (file->result == 0)
        file->result = find_size(file);
    if (file->result < 0)
        return;
    file->range_fd = file->fd;
    open_direct(file, &st);
    set_limits(file);
    file->dev.identity = file_identity(file->fd); /* NULL: then nothing is compared */
}

/* ---- The life of a device --------------------------------------------------------------------- */

static void open_done(struct loop_work *work)
{
    struct file_dev *file = file_of_work(work);

    free(file->path);
    file->path = NULL;
    if (atomic_load(&file->cancelled))
        blk_opened(&file->dev, -ECANCELED, NULL);
    else
        blk_opened(&file->dev, file->result, &file->error);
}

static void open_file(struct blk_dev *dev, const struct blk_open_args *args)
{
    struct file_dev *file = file_of(dev);
    int status;

    file->fd = file->direct_fd = file->range_fd = -1;
    atomic_init(&file->cancelled, false);
    file->follow = args->store == NULL;
    file->dirfd = AT_FDCWD;
    if (args->store != NULL) {
        assert(args->store->driver == &file_store_driver);
        file->dirfd = ((struct file_store *)args->store)->dirfd;
    }
    file->path = strdup(args->store != NULL ? args->name : args->url->path);
    if (file->path == NULL) {
        blk_opened(dev, file_error(&file->error, ENOMEM), &file->error);
        return;
    }
    file->work.run = run_open;
    file->work.done = open_done;
    status = loop_offload(dev->loop, &file->work);
    if (status < 0) {
        free(file->path);
        file->path = NULL;
        blk_opened(dev, file_no_thread(&file->error, status), &file->error);
    }
}

/* ---- Cloning ---------------------------------------------------------------------------------- */

/* Opens the file behind a descriptor once more. Returns 0 or -errno with the sentence. */
static int open_again(struct file_dev *file, int origin_fd, int more_flags, int *fd)
{
    char link[40];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", origin_fd);
    *fd = open(link, open_flags(file) | more_flags);
    if (*fd < 0)
        return blk_error_set(&file->error, errno, "opening it once more as %s: %s", link,
                             strerror(errno));
    return 0;
}

static int find_range_fd(struct file_dev *file)
{
    file->range_fd = file->fd;
    if (!file->is_block)
        return 0;
    file->range_fd = fcntl(file->origin_range_fd, F_DUPFD_CLOEXEC, 0);
    return file->range_fd < 0 ? file_error(&file->error, errno) : 0;
}

static void run_clone(struct loop_work *work)
{
    struct file_dev *file = file_of_work(work);

    if (atomic_load(&file->cancelled))
        return;
    /* Without O_EXCL: the origin holds a block device for all of its clones. */
    file->result = open_again(file, file->origin_fd, 0, &file->fd);
    if (file->result == 0 && file->origin_direct_fd >= 0)
        file->result = open_again(file, file->origin_direct_fd, O_DIRECT, &file->direct_fd);
    if (file->result == 0)
        file->result = find_range_fd(file);
    if (file->result == 0)
        file->result = find_size(file);
    if (file->result == 0)
        set_limits(file);
}

/*
 * The clone opens what the origin's descriptors lead to: surely the same file, whatever has become of
 * its name. Duplicates of them would do for that, but they share one open file description, and to
 * each of those the kernel reports a writeback error once: one clone's fdatasync() would fail, and
 * another's say that all is well.
 *
 * But ZERO and DISCARD of a block device go through a duplicate: before them the kernel drops what the
 * page cache has of the range, and where somebody else holds the device (O_EXCL), it refuses (EBUSY)
 * when a page there is not written back yet. Our own origin would be that somebody.
 */
static void clone_file(struct blk_dev *dev, const struct blk_dev *origin, unsigned number)
{
    const struct file_dev *from = (const struct file_dev *)origin;
    struct file_dev *file = file_of(dev);
    int status;

    (void)number;
    atomic_init(&file->cancelled, false);
    file->fd = file->direct_fd = file->range_fd = -1;
    file->is_block = from->is_block;
    file->logical_block = from->logical_block;
    file->follow = true; /* what is in /proc/self/fd are links */
    file->origin_fd = from->fd;
    file->origin_direct_fd = from->direct_fd;
    file->origin_range_fd = from->range_fd;
    file->work.run = run_clone;
    file->work.done = open_done;
    status = loop_offload(dev->loop, &file->work);
    if (status < 0)
        blk_opened(dev, file_no_thread(&file->error, status), &file->error);
}

/* ---- Closing ---------------------------------------------------------------------------------- */

static void run_close(struct loop_work *work)
{
    struct file_dev *file = file_of_work(work);

    /* What mattered was flushed before; that close() fails changes nothing. */
    if (file->range_fd >= 0 && file->range_fd != file->fd)
        close(file->range_fd);
    if (file->direct_fd >= 0)
        close(file->direct_fd);
    if (file->fd >= 0)
        close(file->fd);
}

static void close_done(struct loop_work *work)
{
    blk_closed(&file_of_work(work)->dev);
}

static void close_file(struct blk_dev *dev)
{
    struct file_dev *file = file_of(dev);

    file->work.run = run_close;
    file->work.done = close_done;
    if (file->fd >= 0 && loop_offload(dev->loop, &file->work) == 0)
        return;
    run_close(&file->work);
    blk_closed(dev);
}

static void cancel_all(struct blk_dev *dev)
{
    atomic_store(&file_of(dev)->cancelled, true);
}

/* ---- Looking again ---------------------------------------------------------------------------- */

static void run_recover(struct loop_work *work)
{
    struct file_dev *file = file_of_work(work);

    file->result = take_stamp(file, &file->dev.seen);
}

static void recover_done(struct loop_work *work)
{
    struct file_dev *file = file_of_work(work);

    if (atomic_load(&file->cancelled))
        blk_recovered(&file->dev, -ECANCELED, NULL);
    else
        blk_recovered(&file->dev, file->result, &file->error);
}

/* An open file cannot become another one, and is not lost: this only looks whether it has changed. */
static void recover_file(struct blk_dev *dev)
{
    struct file_dev *file = file_of(dev);
    int status;

    file->work.run = run_recover;
    file->work.done = recover_done;
    status = loop_offload(dev->loop, &file->work);
    if (status < 0)
        blk_recovered(dev, file_no_thread(&file->error, status), &file->error);
}

/* ---- Resizing --------------------------------------------------------------------------------- */

static void run_resize(struct loop_work *work)
{
    struct file_dev *file = file_of_work(work);
    int status;

    do
        status = ftruncate(file->fd, (off_t)file->new_size);
    while (status < 0 && errno == EINTR);
    /* A file that is nothing but a hole is never flushed otherwise. */
    if (status == 0)
        status = fdatasync(file->fd);
    file->result = status < 0 ? file_error(&file->error, errno) : 0;
}

static void resize_done(struct loop_work *work)
{
    struct file_dev *file = file_of_work(work);

    if (file->result == 0)
        file->dev.size = file->new_size;
    blk_task_done(&file->dev, file->result, &file->error);
}

static void resize_file(struct blk_dev *dev, uint64_t size)
{
    struct file_dev *file = file_of(dev);
    int status = 0;

    if (file->is_block && size != dev->size)
        status =
            blk_error_set(&file->error, ENOTSUP,
                          "a block device has a fixed size, here %" PRIu64 " bytes", dev->size);
    else if (!dev->writable)
        status = blk_error_set(&file->error, EROFS, "opened for reading only");
    else if (size > INT64_MAX)
        status = file_error(&file->error, EFBIG);
    if (status < 0 || file->is_block) {
        blk_task_done(dev, status, &file->error);
        return;
    }
    file->new_size = size;
    file->work.run = run_resize;
    file->work.done = resize_done;
    status = loop_offload(dev->loop, &file->work);
    if (status < 0)
        blk_task_done(dev, file_no_thread(&file->error, status), &file->error);
}

/* ---- Descriptions ----------------------------------------------------------------------------- */

static int check(const struct url *url, struct blk_error *error)
{
    bool local = url->host_count == 0 ||
                 (url->host_count == 1 && strcmp(url->hosts[0].host, "localhost") == 0 &&
                  url->hosts[0].port == 0 && url->user == NULL);

    if (!local)
        return blk_error_set(error, EINVAL,
                             "%s: a local file has no host; write file:PATH or file:///PATH",
                             url->text);
    return 0;
}

static const char *zero_means(const struct file_dev *file)
{
    unsigned caps = file->dev.caps;

    if (!(caps & BLK_CAN_ZERO))
        return "written";
    if (caps & BLK_CAN_UNMAP)
        return file->is_block ? "by the disk, which may unmap them" : "holes";
    return file->is_block ? "by the disk" : "by the filesystem, allocated";
}

static void describe_ranges(const struct file_dev *file, struct blk_report *report)
{
    const struct blk_limits *limits = &file->dev.limits;
    unsigned caps = file->dev.caps;
    char text[UNITS_TEXT];

    blk_report_fact(report, "extents", "extents", "%s",
                    caps & BLK_CAN_EXTENTS ? "told by the filesystem" : "not known: all is data");
    /* A filesystem that has no means may say so only when it is asked to use them. */
    blk_report_fact(report, "zeros", "zeros are made", "%s", zero_means(file));
    blk_report_fact(report, "discard", "discard", "%s", caps & BLK_CAN_DISCARD ? "yes" : "no");
    if (limits->unmap_granule > 0)
        blk_report_fact(report, "unmap-granularity", "unmapped in units of",
                        "%" PRIu64 " bytes (%s), the first one at %" PRIu64, limits->unmap_granule,
                        units_size(text, limits->unmap_granule), limits->unmap_phase);
}

static void describe(struct blk_dev *dev, struct blk_report *report)
{
    const struct file_dev *file = file_of(dev);
    char text[UNITS_TEXT];

    blk_report_fact(report, "type", "type", "%s", file->is_block ? "block device" : "regular file");
    if (!file->is_block)
        blk_report_fact(report, "allocated", "allocated", "%" PRIu64 " bytes (%s)%s",
                        file->allocated, units_size(text, file->allocated),
                        file->allocated < dev->size ? ", less than its size: sparse" : "");
    describe_ranges(file, report);
    blk_report_fact(report, "direct-io", "direct I/O", "%s", file->direct_fd >= 0 ? "yes" : "no");
    if (file->logical_block > 0)
        blk_report_fact(report, "logical-block-size", "logical block size", "%" PRIu32,
                        file->logical_block);
}

const struct blk_driver file_driver = {
    .name = "file",
    .scheme = "file",
    .syntax = "[file:]PATH",
    .dev_size = sizeof(struct file_dev),
    .req_size = sizeof(struct file_req),
    .check = check,
    .open = open_file,
    .clone = clone_file,
    .recover = recover_file,
    .close = close_file,
    .submit = file_submit,
    .cancel_all = cancel_all,
    .resize = resize_file,
    .describe = describe,
    .store = &file_store_driver,
};
