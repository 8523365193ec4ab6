/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking at a local file again: what shows that it has changed, and what is really on the disk. */
#include "ground.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE 65536

static int look(const struct ground *ground, struct blk_dev *dev)
{
    bool done = false;
    struct blk_task task = ground_task(&done);

    blk_recheck(dev, &task);
    ground_wait(ground, &done);
    return task.status;
}

static struct stat stat_of(const struct ground *ground, const char *name)
{
    char *path = ground_path(ground, name);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    free(path);
    return st;
}

static int64_t ns(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void check_stamp(const struct blk_stamp *stamp, const struct stat *st)
{
    assert_int_equal(stamp->size, st->st_size);
    assert_int_equal(stamp->mtime_ns, ns(st->st_mtim));
    assert_int_equal(stamp->ctime_ns, ns(st->st_ctim));
}

/* A time of its own, whatever the granularity of the filesystem's clock. */
static void change(const struct ground *ground, const char *name, size_t size, time_t mtime)
{
    struct timespec times[2] = {{.tv_sec = mtime}, {.tv_sec = mtime, .tv_nsec = 7}};
    char *path = ground_path(ground, name);

    assert_int_equal(truncate(path, (off_t)size), 0);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    free(path);
}

static void test_stamps(void **state)
{
    struct ground *ground = *state;
    struct stat before, after;
    struct blk_dev *dev;

    ground_make(ground, "disk", "", 0);
    change(ground, "disk", SIZE, 1000000000);
    before = stat_of(ground, "disk");
    dev = ground_open(ground, "disk", false);
    check_stamp(&dev->opened, &before);
    check_stamp(&dev->seen, &before);
    assert_int_equal(look(ground, dev), 0);
    check_stamp(&dev->seen, &before);
    change(ground, "disk", SIZE + 1, 1000000001);
    after = stat_of(ground, "disk");
    assert_int_equal(look(ground, dev), 0);
    check_stamp(&dev->opened, &before);
    check_stamp(&dev->seen, &after);
    assert_int_equal(dev->seen.mtime_ns, 1000000001 * INT64_C(1000000000) + 7);
    assert_int_equal(dev->size, SIZE);
    ground_close(ground, dev);
}

/* What was opened is looked at, not what has its name now. */
static void test_replaced(void **state)
{
    struct ground *ground = *state;
    char *path = ground_path(ground, "disk");
    struct blk_dev *dev;

    ground_make(ground, "disk", "", 0);
    change(ground, "disk", SIZE, 1000000000);
    dev = ground_open(ground, "disk", false);
    assert_int_equal(unlink(path), 0);
    ground_make(ground, "disk", "other", 5);
    assert_int_equal(look(ground, dev), 0);
    assert_int_equal(dev->seen.size, SIZE);
    assert_int_equal(dev->seen.mtime_ns, dev->opened.mtime_ns);
    ground_close(ground, dev);
    free(path);
}

static unsigned char byte_at(const struct ground *ground, struct blk_dev *dev, unsigned flags)
{
    unsigned char bytes[10] = "";

    /* Not for direct I/O; and the bytes are in the middle of a page. */
    assert_int_equal(ground_do(ground, dev, BLK_READ, flags, 8192 + 100, bytes, 10).status, 0);
    return bytes[5];
}

/* A disk that changes behind the page cache's back. */
static void test_read_from_disk(void **state)
{
    struct ground *ground = *state;
    static unsigned char bytes[SIZE];
    struct blk_error error;
    struct blk_dev *dev;
    char path[32];
    int fd;

    ground_make(ground, "disk", bytes, SIZE);
    fd = ground_loop_device(ground, "disk", path);
    if (fd < 0)
        skip();
    assert_int_equal(ground_try_open(ground, path, false, &dev, &error), 0);
    assert_int_equal(dev->opened.size, SIZE);
    assert_int_equal(dev->opened.mtime_ns, 0);
    assert_int_equal(look(ground, dev), 0);
    assert_int_equal(dev->seen.size, SIZE);
    assert_int_equal(byte_at(ground, dev, 0), 0);
    bytes[8192 + 105] = 0xee;
    ground_make(ground, "disk", bytes, SIZE);
    assert_int_equal(byte_at(ground, dev, 0), 0);
    assert_int_equal(byte_at(ground, dev, BLK_FUA), 0xee);
    ground_close(ground, dev);
    close(fd);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, ground_setup, ground_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stamps),
        TEST(test_replaced),
        TEST(test_read_from_disk),
    };

    return cmocka_run_group_tests_name("file, looked at again", tests, NULL, NULL);
}
