/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a block device can do, from a sysfs that the test has made. */
#include "ground.h"

#include "drivers/file/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <lunferry/units.h>

static const unsigned all_caps = BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD;

static void make(const struct ground *ground, const char *name, const char *text)
{
    ground_make(ground, name, text, strlen(text));
}

static struct blk_dev probe(const struct ground *ground, const char *name, uint32_t align)
{
    struct blk_dev dev = {.limits = {.align = align}};
    char *directory = ground_path(ground, name);

    file_block_probe(&dev, directory);
    free(directory);
    return dev;
}

static int setup(void **state)
{
    char *path;

    ground_setup(state);
    path = ground_path(*state, "queue");
    assert_int_equal(mkdir(path, 0755), 0);
    free(path);
    return 0;
}

static void test_nothing(void **state)
{
    struct blk_dev dev = probe(*state, ".", 512);

    assert_int_equal(dev.caps, 0);
    make(*state, "queue/write_zeroes_max_bytes", "0\n");
    make(*state, "queue/discard_max_bytes", "0\n");
    make(*state, "queue/discard_granularity", "4096\n");
    dev = probe(*state, ".", 512);
    assert_int_equal(dev.caps, 0);
    assert_int_equal(dev.limits.unmap_granule, 0);
}

static void test_thick(void **state)
{
    struct blk_dev dev;

    make(*state, "queue/write_zeroes_max_bytes", "33553920\n");
    make(*state, "queue/discard_max_bytes", "0\n");
    dev = probe(*state, ".", 512);
    assert_int_equal(dev.caps, BLK_CAN_ZERO);
    assert_int_equal(dev.limits.max_zero, 64 * MIB);
}

static void test_discard_only(void **state)
{
    struct blk_dev dev;

    make(*state, "queue/discard_max_bytes", "2147450880\n");
    dev = probe(*state, ".", 512);
    assert_int_equal(dev.caps, BLK_CAN_DISCARD);
    assert_int_equal(dev.limits.max_discard, 1024 * (uint64_t)MIB);
    assert_int_equal(dev.limits.unmap_granule, 0);
}

static void test_thin(void **state)
{
    struct blk_dev dev;

    make(*state, "queue/write_zeroes_max_bytes", "33553920\n");
    make(*state, "queue/discard_max_bytes", "2147450880\n");
    make(*state, "queue/discard_granularity", "65536\n");
    make(*state, "discard_alignment", "4096\n");
    dev = probe(*state, ".", 4096);
    assert_int_equal(dev.caps, all_caps);
    assert_int_equal(dev.limits.unmap_granule, 65536);
    assert_int_equal(dev.limits.unmap_phase, 4096);
    /* A phase is less than the granule. */
    make(*state, "discard_alignment", "69632\n");
    assert_int_equal(probe(*state, ".", 4096).limits.unmap_phase, 4096);
}

/* Units that are no multiples of blocks mean nothing. */
static void test_odd_granule(void **state)
{
    struct blk_dev dev;

    make(*state, "queue/discard_max_bytes", "2147450880\n");
    make(*state, "queue/discard_granularity", "65536\n");
    make(*state, "discard_alignment", "512\n");
    dev = probe(*state, ".", 4096);
    assert_int_equal(dev.caps, BLK_CAN_DISCARD);
    assert_int_equal(dev.limits.unmap_granule, 0);
    assert_int_equal(dev.limits.unmap_phase, 0);
    make(*state, "queue/discard_granularity", "512\n");
    assert_int_equal(probe(*state, ".", 4096).limits.unmap_granule, 0);
    assert_int_equal(probe(*state, ".", 512).limits.unmap_granule, 512);
}

/* The queue is the disk's, where the units begin is the partition's. */
static void test_partition(void **state)
{
    char *path = ground_path(*state, "disk1");
    struct blk_dev dev;

    assert_int_equal(mkdir(path, 0755), 0);
    free(path);
    make(*state, "queue/write_zeroes_max_bytes", "33553920\n");
    make(*state, "queue/discard_max_bytes", "2147450880\n");
    make(*state, "queue/discard_granularity", "4096\n");
    make(*state, "discard_alignment", "0\n");
    make(*state, "disk1/discard_alignment", "512\n");
    assert_int_equal(probe(*state, "disk1", 512).caps, 0);
    make(*state, "disk1/partition", "1\n");
    dev = probe(*state, "disk1", 512);
    assert_int_equal(dev.caps, all_caps);
    assert_int_equal(dev.limits.unmap_granule, 4096);
    assert_int_equal(dev.limits.unmap_phase, 512);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, ground_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing), TEST(test_thick),       TEST(test_discard_only),
        TEST(test_thin),    TEST(test_odd_granule), TEST(test_partition),
    };

    return cmocka_run_group_tests_name("file, what a block device can do", tests, NULL, NULL);
}
