/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which file or disk it is: trees that look like sysfs, and loop devices that get another file. */
#include "ground.h"

#include "drivers/file/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- Names in sysfs --------------------------------------------------------------------------- */

static void make_directory(const struct ground *ground, const char *name)
{
    char *path = ground_path(ground, name);

    assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    free(path);
}

static void attribute(const struct ground *ground, const char *name, const char *text)
{
    ground_make(ground, name, text, strlen(text));
}

static void check_disk(const struct ground *ground, const char *name, const char *expected)
{
    char *path = ground_path(ground, name), *identity = file_disk_identity(path, "some disk");

    assert_non_null(identity);
    assert_string_equal(identity, expected);
    free(identity);
    free(path);
}

static void test_names_of_disks(void **state)
{
    static const struct {
        const char *file, *text, *identity;
    } cases[] = {
        {"sda/wwid", "uuid.1b4e28ba-2fa1-11d2-883f-0016d3cca427\n",
         "uuid.1b4e28ba-2fa1-11d2-883f-0016d3cca427"},
        {"sda/wwid", "eui.0025388b710116a1\n", "eui.0025388b710116a1"},
        {"sda/wwid", "nvme.1af4-31-51-00000001\n", "nvme.1af4-31-51-00000001"},
        {"sda/device/wwid", "naa.6001405abcdef\n", "naa.6001405abcdef"},
        {"sda/device/wwid", "naa.50014ee2b5\n", "naa.50014ee2b5"},
        {"sda/device/wwid", " naa.2001 x \n\n", "naa.2001 x"},
        {"sda/device/wwid", "naa.2001\x01\xff", "naa.2001??"},
        {"sda/dm/uuid", "LVM-abc\n", "LVM-abc"},
        {"sda/dm/uuid", "CRYPT-LUKS2-abc-root\n", "CRYPT-LUKS2-abc-root"},
        /* Made up, and the same elsewhere. */
        {"sda/device/wwid", "naa.3000000100000001\n", "some disk"},
        {"sda/device/wwid", "t10.IET     00010001\n", "some disk"},
        {"sda/dm/uuid", "CRYPT-PLAIN-swap\n", "some disk"},
        {"sda/dm/uuid", "\n", "some disk"},
        {"sda/serial", "disk1", "some disk"},
        {"sda/device/serial", "S123", "some disk"},
    };
    struct ground *ground = *state;

    make_directory(ground, "sda");
    make_directory(ground, "sda/device");
    make_directory(ground, "sda/dm");
    check_disk(ground, "sda", "some disk");
    check_disk(ground, "none", "some disk");
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *path = ground_path(ground, cases[i].file);

        attribute(ground, cases[i].file, cases[i].text);
        check_disk(ground, "sda", cases[i].identity);
        assert_int_equal(unlink(path), 0);
        free(path);
    }
}

/* Cut off, two disks might have the same one. */
static void test_long_name(void **state)
{
    struct ground *ground = *state;
    char text[400] = "eui.";

    memset(text + 4, '1', sizeof(text) - 5);
    make_directory(ground, "sda");
    attribute(ground, "sda/wwid", text);
    check_disk(ground, "sda", "some disk");
}

static void test_partitions(void **state)
{
    struct ground *ground = *state;

    make_directory(ground, "sda");
    make_directory(ground, "sda/device");
    make_directory(ground, "sda/sda3");
    attribute(ground, "sda/sda3/partition", "3\n");
    attribute(ground, "sda/sda3/start", "2048\n");
    check_disk(ground, "sda/sda3", "partition 3 at 2048 of some disk");
    attribute(ground, "sda/device/wwid", "naa.5001\n");
    check_disk(ground, "sda/sda3", "partition 3 at 2048 of naa.5001");
    check_disk(ground, "sda", "naa.5001");
    attribute(ground, "sda/sda3/start", "4096\n");
    check_disk(ground, "sda/sda3", "partition 3 at 4096 of naa.5001");
}

/* ---- Through the driver ----------------------------------------------------------------------- */

/* Of what the path leads to; to be freed. */
static char *identity_of(const struct ground *ground, const char *path)
{
    struct blk_error error;
    struct blk_dev *dev;
    char *identity;

    if (ground_try_open(ground, path, false, &dev, &error) != 0)
        fail_msg("%s: %s", path, error.text);
    assert_non_null(dev->identity);
    identity = strdup(dev->identity);
    ground_close(ground, dev);
    return identity;
}

static void check_identities(const struct ground *ground, const char *a, const char *b, bool same)
{
    char *of_a = identity_of(ground, a), *of_b = identity_of(ground, b);

    assert_int_equal(strcmp(of_a, of_b) == 0, same);
    free(of_a);
    free(of_b);
}

static void test_files(void **state)
{
    struct ground *ground = *state;
    char *a = ground_path(ground, "a"), *b = ground_path(ground, "b"),
         *hard = ground_path(ground, "hard"), *soft = ground_path(ground, "soft");

    ground_make(ground, "a", "same", 4);
    ground_make(ground, "b", "same", 4);
    assert_int_equal(link(a, hard), 0);
    assert_int_equal(symlink(a, soft), 0);
    check_identities(ground, a, hard, true);
    check_identities(ground, a, soft, true);
    check_identities(ground, a, b, false);
    free(a);
    free(b);
    free(hard);
    free(soft);
}

/* The same numbers, another disk. False: another process has taken them. */
static bool attach_again(const char *path, int fd, int file, int *again)
{
    struct loop_config config = {.fd = (unsigned)file, .info.lo_flags = LO_FLAGS_AUTOCLEAR};

    close(fd); /* which detaches it */
    *again = open(path, O_RDWR | O_CLOEXEC);
    assert_true(*again >= 0);
    if (ioctl(*again, LOOP_CONFIGURE, &config) == 0)
        return true;
    assert_int_equal(errno, EBUSY);
    close(*again);
    return false;
}

/* Closes fd. False: it could not be tested. */
static bool check_loop_device(const struct ground *ground, const char *path, int fd, int file)
{
    char *node = ground_path(ground, "node"), *before, *after;
    struct stat st;
    bool attached;

    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(mknod(node, S_IFBLK | 0600, st.st_rdev), 0);
    check_identities(ground, path, path, true);
    check_identities(ground, path, node, true);
    before = identity_of(ground, path);
    attached = attach_again(path, fd, file, &fd);
    if (attached) {
        after = identity_of(ground, path);
        close(fd);
        assert_string_not_equal(before, after);
        free(after);
    }
    free(before);
    free(node);
    return attached;
}

static void test_loop_device(void **state)
{
    struct ground *ground = *state;
    char *backing = ground_path(ground, "disk"), path[32];
    int fd, file;
    bool tested = false;

    ground_make(ground, "disk", "", 0);
    file = open(backing, O_RDWR | O_CLOEXEC);
    free(backing);
    assert_int_equal(ftruncate(file, 1 << 20), 0);
    fd = ground_loop_device(ground, "disk", path);
    if (fd >= 0)
        tested = check_loop_device(ground, path, fd, file);
    close(file);
    if (!tested)
        skip();
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, ground_setup, ground_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names_of_disks), TEST(test_long_name),   TEST(test_partitions),
        TEST(test_files),          TEST(test_loop_device),
    };

    return cmocka_run_group_tests_name("file, which one", tests, NULL, NULL);
}
