/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What becomes of a file's capabilities when kernel, filesystem or disk refuse a call about ranges. The
 * test stands in for drivers/file/kernel.c, so every answer can be had, those for a block device too.
 */
#include "ground.h"

#include "drivers/file/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- The kernel --------------------------------------------------------------------------------- */

/* Helper threads call it; the test looks when none does. */
static struct {
    int punch, zero_range, allocate, discard, sync; /* answers */
    int64_t (*seek)(uint64_t offset, int whence);
    char log[500];
} kernel;

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void note(const char *format, ...)
{
    size_t len = strlen(kernel.log);
    va_list args;

    va_start(args, format);
    vsnprintf(kernel.log + len, sizeof kernel.log - len, format, args);
    va_end(args);
}

int file_kernel_fallocate(int fd, int mode, uint64_t offset, uint64_t len)
{
    (void)fd;
    switch (mode) {
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
        note("punch %d+%d;", (int)offset, (int)len);
        return kernel.punch;
    case FALLOC_FL_ZERO_RANGE:
        note("zero %d+%d;", (int)offset, (int)len);
        return kernel.zero_range;
    case 0:
        note("allocate %d+%d;", (int)offset, (int)len);
        return kernel.allocate;
    default:
        note("mode %d;", mode); /* no log has that */
        return -EIO;
    }
}

int file_kernel_discard(int fd, uint64_t offset, uint64_t len)
{
    (void)fd;
    note("discard %d+%d;", (int)offset, (int)len);
    return kernel.discard;
}

int64_t file_kernel_seek(int fd, uint64_t offset, int whence)
{
    (void)fd;
    return kernel.seek ? kernel.seek(offset, whence) : -ENXIO;
}

/* The driver calls the C library's, but for this. */
int fdatasync(int fd)
{
    (void)fd;
    note("sync;");
    errno = -kernel.sync;
    return kernel.sync < 0 ? -1 : 0;
}

/* ---- The ladder --------------------------------------------------------------------------------- */

enum { SIZE = 65536 };

static const unsigned zero_caps = BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD;

/* A device that has been opened, without a file. */
static struct file_dev device(bool is_block)
{
    struct file_dev file = {.is_block = is_block, .in_place = FILE_ZERO_RANGE};

    file.dev.caps = zero_caps;
    memset(&kernel, 0, sizeof kernel);
    return file;
}

/* One try, as a request makes it. */
static int try_once(struct file_dev *file, enum blk_op op, unsigned flags)
{
    struct blk_req req = {.op = op, .flags = flags};
    enum file_means means = file_means_of(file, &req);
    int status = file_change_range(-1, means, 1, 2);

    if (file_is_refusal(status))
        file_give_up(file, means);
    return status;
}

static void check_log(const char *expected)
{
    assert_string_equal(kernel.log, expected);
    kernel.log[0] = '\0';
}

static void test_means(void **state)
{
    struct file_dev file = device(false), disk = device(true);

    (void)state;
    memset(&kernel, 0, sizeof kernel);
    assert_int_equal(try_once(&file, BLK_ZERO, 0), 0);
    assert_int_equal(try_once(&file, BLK_ZERO, BLK_MAY_UNMAP), 0);
    assert_int_equal(try_once(&file, BLK_DISCARD, 0), 0);
    check_log("zero 1+2;punch 1+2;punch 1+2;");
    assert_int_equal(try_once(&disk, BLK_ZERO, 0), 0);
    assert_int_equal(try_once(&disk, BLK_ZERO, BLK_MAY_UNMAP), 0);
    assert_int_equal(try_once(&disk, BLK_DISCARD, 0), 0);
    check_log("zero 1+2;punch 1+2;discard 1+2;");
    assert_int_equal(file.dev.caps, zero_caps);
    assert_int_equal(disk.dev.caps, zero_caps);
    disk.dev.caps &= ~(unsigned)BLK_CAN_UNMAP;
    assert_int_equal(try_once(&disk, BLK_ZERO, BLK_MAY_UNMAP), 0);
    check_log("zero 1+2;");
}

/* As tmpfs: holes, but no zeros in place. */
static void test_no_zero_range(void **state)
{
    struct file_dev file = device(false);

    (void)state;
    kernel.zero_range = -EOPNOTSUPP;
    assert_int_equal(try_once(&file, BLK_ZERO, 0), -EOPNOTSUPP);
    assert_int_equal(file.dev.caps, zero_caps);
    assert_int_equal(try_once(&file, BLK_ZERO, 0), 0);
    assert_int_equal(try_once(&file, BLK_ZERO, BLK_MAY_UNMAP), 0);
    check_log("zero 1+2;punch 1+2;allocate 1+2;punch 1+2;");
    /* Another request, that was under way, comes to the same conclusion. */
    file_give_up(&file, FILE_ZERO_RANGE);
    assert_int_equal(file.dev.caps, zero_caps);
    /* Nor can it allocate. */
    kernel.allocate = -EOPNOTSUPP;
    assert_int_equal(try_once(&file, BLK_ZERO, 0), -EOPNOTSUPP);
    assert_int_equal(file.dev.caps, BLK_CAN_DISCARD);
}

static void test_no_holes(void **state)
{
    struct file_dev file = device(false);

    (void)state;
    kernel.punch = -EOPNOTSUPP;
    assert_int_equal(try_once(&file, BLK_ZERO, BLK_MAY_UNMAP), -EOPNOTSUPP);
    assert_int_equal(file.dev.caps, BLK_CAN_ZERO);
    assert_int_equal(try_once(&file, BLK_ZERO, BLK_MAY_UNMAP), 0);
    check_log("punch 1+2;zero 1+2;");
    kernel.zero_range = -EINVAL;
    assert_int_equal(try_once(&file, BLK_ZERO, BLK_MAY_UNMAP), -EINVAL);
    assert_int_equal(file.dev.caps, 0);
    check_log("zero 1+2;");

    /* The other way around: found out by a ZERO in place, which is made of a hole. */
    file = device(false);
    kernel.punch = kernel.zero_range = -EOPNOTSUPP;
    try_once(&file, BLK_ZERO, 0);
    assert_int_equal(try_once(&file, BLK_ZERO, 0), -EOPNOTSUPP);
    assert_int_equal(file.dev.caps & (BLK_CAN_ZERO | BLK_CAN_UNMAP), 0);
    assert_int_equal(try_once(&file, BLK_DISCARD, 0), -EOPNOTSUPP);
    assert_int_equal(file.dev.caps, 0);

    /* By a DISCARD, and then what is left is made of holes too. */
    file = device(false);
    kernel.punch = kernel.zero_range = -ENOSYS;
    try_once(&file, BLK_ZERO, 0);
    assert_int_equal(try_once(&file, BLK_DISCARD, 0), -ENOSYS);
    assert_int_equal(file.dev.caps, 0);
}

static void test_block_device(void **state)
{
    struct file_dev disk = device(true);

    (void)state;
    kernel.punch = -EOPNOTSUPP;
    try_once(&disk, BLK_ZERO, BLK_MAY_UNMAP);
    assert_int_equal(disk.dev.caps, BLK_CAN_ZERO | BLK_CAN_DISCARD);
    kernel.zero_range = -ENODEV;
    try_once(&disk, BLK_ZERO, BLK_MAY_UNMAP);
    assert_int_equal(disk.dev.caps, BLK_CAN_DISCARD);
    kernel.discard = -ENOTTY;
    try_once(&disk, BLK_DISCARD, 0);
    assert_int_equal(disk.dev.caps, 0);
    check_log("punch 1+2;zero 1+2;discard 1+2;");
}

/* A full disk is no reason to write zeros instead. */
static void test_errors(void **state)
{
    static const int codes[] = {ENOSPC, EIO, EDQUOT, EFBIG, EPERM, EBUSY};
    struct ground *ground = *state;
    struct blk_dev *dev;

    memset(&kernel, 0, sizeof kernel);
    ground_make(ground, "disk", "", 0);
    dev = ground_open(ground, "disk", true);
    assert_int_equal(dev->caps & zero_caps, zero_caps);
    dev->size = SIZE;
    for (size_t i = 0; i < COUNT(codes); i++) {
        struct blk_req req;

        kernel.punch = kernel.zero_range = -codes[i];
        req = ground_do(ground, dev, BLK_ZERO, 0, 0, NULL, SIZE);
        assert_int_equal(req.status, -codes[i]);
        assert_int_equal(req.error.code, codes[i]);
        assert_int_equal(req.error.retry, BLK_FATAL);
        req = ground_do(ground, dev, BLK_ZERO, BLK_MAY_UNMAP, 0, NULL, SIZE);
        assert_int_equal(req.status, -codes[i]);
        assert_int_equal(dev->caps & zero_caps, zero_caps);
        check_log("zero 0+65536;punch 0+65536;");
    }
    ground_close(ground, dev);
}

/* With FUA, a ZERO is on stable storage when it is done. */
static void test_durable(void **state)
{
    struct ground *ground = *state;
    struct blk_dev *dev;
    struct blk_req req;

    memset(&kernel, 0, sizeof kernel);
    ground_make(ground, "disk", "x", 1);
    dev = ground_open(ground, "disk", true);
    req = ground_do(ground, dev, BLK_ZERO, BLK_MAY_UNMAP, 0, NULL, 1);
    assert_int_equal(req.status, 0);
    assert_false(req.durable);
    check_log("punch 0+1;");
    req = ground_do(ground, dev, BLK_ZERO, BLK_FUA, 0, NULL, 1);
    assert_int_equal(req.status, 0);
    assert_true(req.durable);
    check_log("zero 0+1;sync;");
    kernel.sync = -EIO;
    req = ground_do(ground, dev, BLK_ZERO, BLK_FUA, 0, NULL, 1);
    assert_int_equal(req.status, -EIO);
    check_log("zero 0+1;sync;");
    /* What failed before needs no such thing. */
    kernel.zero_range = -ENOSPC;
    req = ground_do(ground, dev, BLK_ZERO, BLK_FUA, 0, NULL, 1);
    assert_int_equal(req.status, -ENOSPC);
    check_log("zero 0+1;");
    ground_close(ground, dev);
}

/* Through the middle: zeros come by whatever is left, in the end by writing them. */
static void test_in_the_end_written(void **state)
{
    static unsigned char bytes[SIZE], zeros[SIZE];
    struct ground *ground = *state;
    struct blk_dev *dev;

    memset(&kernel, 0, sizeof kernel);
    kernel.punch = kernel.zero_range = -EOPNOTSUPP;
    ground_fill(bytes, SIZE, 1);
    ground_make(ground, "disk", bytes, SIZE);
    dev = ground_open(ground, "disk", true);
    assert_int_equal(ground_do(ground, dev, BLK_ZERO, BLK_MAY_UNMAP, 0, NULL, SIZE).status, 0);
    assert_int_equal(dev->caps & zero_caps, 0);
    ground_check(ground, "disk", zeros, SIZE);
    assert_int_equal(ground_do(ground, dev, BLK_DISCARD, 0, 0, NULL, SIZE).status, -ENOTSUP);
    ground_close(ground, dev);
}

/* ---- Extents ------------------------------------------------------------------------------------ */

static int64_t seek_unknown(uint64_t offset, int whence)
{
    (void)offset;
    (void)whence;
    return -EINVAL;
}

static int64_t seek_broken(uint64_t offset, int whence)
{
    (void)offset;
    (void)whence;
    return -EIO;
}

/* A filesystem that contradicts itself, or a file that changes all the time. */
static int64_t seek_stands_still(uint64_t offset, int whence)
{
    (void)whence;
    return (int64_t)offset;
}

static int64_t seek_backwards(uint64_t offset, int whence)
{
    (void)offset;
    (void)whence;
    return 0;
}

static int64_t seek_all_holes(uint64_t offset, int whence)
{
    return whence == SEEK_DATA ? -ENXIO : (int64_t)offset;
}

static int64_t seek_far(uint64_t offset, int whence)
{
    (void)offset;
    return whence == SEEK_DATA ? INT64_MAX : 0;
}

static int64_t seek_pages(uint64_t offset, int whence)
{
    uint64_t page = offset / 4096;

    if (page % 2 == (whence == SEEK_HOLE))
        return (int64_t)offset;
    return (int64_t)(page + 1) * 4096;
}

static void check_extents(const struct ground *ground, int64_t (*seek)(uint64_t, int), int status,
                          const char *expected)
{
    struct blk_extent list[4];
    struct blk_extents extents = {.list = list, .capacity = COUNT(list), .count = 9};
    char *path = ground_path(ground, "disk"), text[200] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    kernel.seek = seek;
    assert_true(fd >= 0);
    assert_int_equal(file_extents(fd, 100, SIZE - 100, &extents), status);
    for (size_t i = 0; i < extents.count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%c%d+%d ",
                 list[i].kind == BLK_ZEROS ? 'z' : 'd', (int)list[i].offset, (int)list[i].len);
    assert_string_equal(text, expected);
    close(fd);
    free(path);
}

static void test_odd_answers(void **state)
{
    static const unsigned char bytes[SIZE];
    struct ground *ground = *state;

    memset(&kernel, 0, sizeof kernel);
    ground_make(ground, "disk", bytes, SIZE - 1);
    check_extents(ground, seek_unknown, -EINVAL, "");
    /* Reading says what is wrong, and where. */
    check_extents(ground, seek_broken, 0, "d100+65436 ");
    check_extents(ground, seek_stands_still, 0, "d100+65436 ");
    check_extents(ground, seek_backwards, 0, "d100+65436 ");
    /* The hole ends where the file does, though more was asked for. */
    check_extents(ground, seek_all_holes, 0, "z100+65435 d65535+1 ");
    check_extents(ground, seek_far, 0, "z100+65436 ");
    check_extents(ground, seek_pages, 0, "d100+3996 z4096+4096 d8192+4096 z12288+4096 ");
}

/* Found out at open, or later. */
static void test_no_extents(void **state)
{
    struct blk_extent extent = {0};
    struct blk_extents extents = {.list = &extent, .capacity = 1};
    struct ground *ground = *state;
    unsigned left = 1;
    struct ground_request request = {.left = &left};
    struct blk_dev *dev;

    memset(&kernel, 0, sizeof kernel);
    ground_make(ground, "disk", "xyz", 3);
    kernel.seek = seek_unknown;
    dev = ground_open(ground, "disk", false);
    assert_false(dev->caps & BLK_CAN_EXTENTS);
    ground_close(ground, dev);
    kernel.seek = NULL;
    dev = ground_open(ground, "disk", false);
    assert_true(dev->caps & BLK_CAN_EXTENTS);
    kernel.seek = seek_unknown;
    request.req = (struct blk_req){
        .op = BLK_EXTENTS,
        .len = 3,
        .extents = &extents,
        .done = ground_request_done,
        .opaque = &request,
    };
    blk_submit(dev, &request.req);
    ground_wait_all(ground, &left);
    assert_false(dev->caps & BLK_CAN_EXTENTS);
    assert_int_equal(request.req.status, 0);
    assert_int_equal(extents.count, 1);
    assert_int_equal(extent.len, 3);
    assert_int_equal(extent.kind, BLK_DATA);
    ground_close(ground, dev);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, ground_setup, ground_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_means),
        cmocka_unit_test(test_no_zero_range),
        cmocka_unit_test(test_no_holes),
        cmocka_unit_test(test_block_device),
        TEST(test_errors),
        TEST(test_durable),
        TEST(test_in_the_end_written),
        TEST(test_odd_answers),
        TEST(test_no_extents),
    };

    return cmocka_run_group_tests_name("file, ranges refused", tests, NULL, NULL);
}
