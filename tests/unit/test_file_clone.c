/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Clones of local files: the same file, opened anew. */
#include "ground.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static struct blk_dev *clone_of(const struct ground *ground, const struct blk_dev *dev)
{
    bool done;
    struct blk_task task = ground_task(&done);
    struct blk_dev *clone = blk_clone(ground->loop, dev, 1, &task);

    assert_non_null(clone);
    assert_false(done);
    ground_wait(ground, &done);
    if (task.status != 0)
        fail_msg("%s", task.error.text);
    return clone;
}

static void test_clone_of_renamed(void **state)
{
    struct ground *ground = *state;
    char *path = ground_path(ground, "disk"), *other = ground_path(ground, "other");
    char bytes[5000], found[5000], bbb[] = "bbb";
    struct blk_dev *dev, *clone;

    memset(bytes, 'a', sizeof bytes);
    ground_make(ground, "disk", bytes, sizeof bytes);
    dev = ground_open(ground, "disk", true);
    /* What the name means now does not matter. */
    assert_int_equal(rename(path, other), 0);
    ground_make(ground, "disk", "wrong", 5);
    clone = clone_of(ground, dev);
    assert_int_equal(clone->size, sizeof bytes);
    assert_int_equal(clone->caps, dev->caps);
    assert_true(clone->writable);
    assert_int_equal(ground_do(ground, clone, BLK_WRITE, 0, 10, bbb, 3).status, 0);
    memcpy(bytes + 10, bbb, 3);
    assert_int_equal(ground_do(ground, dev, BLK_READ, 0, 0, found, sizeof found).status, 0);
    assert_memory_equal(found, bytes, sizeof bytes);
    ground_close(ground, dev);
    assert_int_equal(ground_do(ground, clone, BLK_FLUSH, 0, 0, NULL, 0).status, 0);
    ground_close(ground, clone);
    ground_check(ground, "other", bytes, sizeof bytes);
    ground_check(ground, "disk", "wrong", 5);
    free(path);
    free(other);
}

/* The descriptors of this process that lead to the file. */
static size_t descriptors(const char *path, int *list, size_t max)
{
    struct stat wanted, st;
    size_t count = 0;

    assert_int_equal(stat(path, &wanted), 0);
    for (int fd = 0; fd < 256; fd++) {
        if (fstat(fd, &st) == 0 && st.st_dev == wanted.st_dev && st.st_ino == wanted.st_ino) {
            assert_true(count < max);
            assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
            list[count++] = fd;
        }
    }
    return count;
}

/* The kernel counts writeback errors for each open file description, which has an offset of its own
 * too: that is what shows here. */
static void test_clone_has_own_descriptions(void **state)
{
    struct ground *ground = *state;
    char *path = ground_path(ground, "disk");
    int list[16], direct = 0;
    size_t before, count;
    struct blk_dev *dev, *clone;

    ground_make(ground, "disk", "abc", 3);
    dev = ground_open(ground, "disk", true);
    before = descriptors(path, list, COUNT(list));
    clone = clone_of(ground, dev);
    count = descriptors(path, list, COUNT(list));
    assert_true(before > 0);
    assert_int_equal(count, 2 * before);
    for (size_t i = 0; i < count; i++) {
        int flags = fcntl(list[i], F_GETFL);

        assert_int_equal(flags & O_ACCMODE, O_RDWR);
        direct += (flags & O_DIRECT) != 0;
        assert_int_equal(lseek(list[i], (off_t)(i + 1), SEEK_SET), i + 1);
    }
    assert_int_equal(direct, before == 2 ? 2 : 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(lseek(list[i], 0, SEEK_CUR), i + 1);
    ground_close(ground, clone);
    ground_close(ground, dev);
    assert_int_equal(descriptors(path, list, COUNT(list)), 0);
    free(path);
}

/* Removed, the file is still there for those who have it open. */
static void test_clone_of_removed(void **state)
{
    struct ground *ground = *state;
    char *path = ground_path(ground, "disk"), found[3];
    struct blk_dev *dev, *clone;

    ground_make(ground, "disk", "abc", 3);
    dev = ground_open(ground, "disk", false);
    assert_int_equal(unlink(path), 0);
    clone = clone_of(ground, dev);
    assert_false(clone->writable);
    assert_int_equal(ground_do(ground, clone, BLK_READ, 0, 0, found, 3).status, 0);
    assert_memory_equal(found, "abc", 3);
    ground_close(ground, clone);
    ground_close(ground, dev);
    free(path);
}

/* While the origin holds it exclusively. */
static void check_block_device(const struct ground *ground, const char *path)
{
    char bytes[4096], found[sizeof bytes];
    struct blk_error error;
    struct blk_dev *dev, *clone;

    assert_int_equal(ground_try_open(ground, path, true, &dev, &error), 0);
    clone = clone_of(ground, dev);
    assert_true((clone->caps & BLK_BARE) != 0);
    assert_int_equal(clone->size, 8192);
    memset(bytes, 'a', sizeof bytes);
    assert_int_equal(ground_do(ground, clone, BLK_WRITE, 0, 512, bytes, sizeof bytes).status, 0);
    assert_int_equal(ground_do(ground, clone, BLK_FLUSH, 0, 0, NULL, 0).status, 0);
    assert_int_equal(ground_do(ground, dev, BLK_READ, 0, 512, found, sizeof found).status, 0);
    assert_memory_equal(found, bytes, sizeof bytes);
    ground_close(ground, clone);
    ground_close(ground, dev);
}

static void test_clone_of_block_device(void **state)
{
    struct ground *ground = *state;
    char *backing = ground_path(ground, "disk"), path[32];
    int fd;

    ground_make(ground, "disk", "", 0);
    assert_int_equal(truncate(backing, 8192), 0);
    free(backing);
    fd = ground_loop_device(ground, "disk", path);
    if (fd < 0)
        skip();
    check_block_device(ground, path);
    close(fd);
}

static void test_cancel(void **state)
{
    struct ground *ground = *state;
    struct blk_dev *dev;

    ground_make(ground, "disk", "x", 1);
    dev = ground_open(ground, "disk", false);
    for (int by_closing = 0; by_closing < 2; by_closing++) {
        bool opened, closed;
        struct blk_task open_task = ground_task(&opened), close_task = ground_task(&closed);
        struct blk_dev *clone = blk_clone(ground->loop, dev, 1, &open_task);

        if (by_closing == 0) {
            blk_cancel_all(clone);
            ground_wait(ground, &opened);
        }
        blk_close(clone, &close_task);
        ground_wait(ground, &closed);
        assert_true(opened);
        assert_int_equal(open_task.status, -ECANCELED);
    }
    ground_close(ground, dev);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, ground_setup, ground_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_clone_of_renamed),
        TEST(test_clone_of_removed),
        TEST(test_clone_has_own_descriptions),
        TEST(test_clone_of_block_device),
        TEST(test_cancel),
    };

    return cmocka_run_group_tests_name("file, clones", tests, NULL, NULL);
}
