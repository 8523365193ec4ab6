/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is on a device, as far as a few bytes made by hand can tell. */
#include "desk.h"

#include <errno.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/occupied.h"

/* Longer than what is looked at: 2 MiB of head, 1 MiB of tail. */
#define SIZE (4 * MIB)

static void init(struct desk *desk, uint64_t size)
{
    memset(desk, 0, sizeof(*desk));
    fake_init(&desk->fake);
    fake_disk_init(&desk->disk, &desk->fake, size, 0);
    fake_end_disk(&desk->end, &desk->disk, "fake", "d");
    desk->disk.limits.align = 512;
    desk_open(desk, false);
}

static void count_done(struct occupied *occupied)
{
    assert_null(occupied->buffers[0]);
    occupied->outstanding = 1000; /* whoever reports twice runs into this */
}

/* Looks; the oldest of what is pending completes first, or the newest. */
static void look(struct desk *desk, struct occupied *occupied, bool newest_first)
{
    memset(occupied, 0x55, sizeof(*occupied));
    occupied->dev = desk->dev;
    occupied->done = count_done;
    assert_int_equal(occupied_start(occupied), 0);
    fake_settle(&desk->fake);
    while (desk->fake.pending_count > 0) {
        assert_in_range(occupied->outstanding, 1, 2);
        fake_complete(&desk->fake, newest_first ? desk->fake.pending_count - 1 : 0);
        fake_settle(&desk->fake);
    }
    assert_int_equal(occupied->outstanding, 1000);
}

static void check_found(struct desk *desk, const char *found)
{
    for (unsigned order = 0; order < 2; order++) {
        struct occupied occupied;

        look(desk, &occupied, order);
        assert_int_equal(occupied.status, 0);
        assert_string_equal(occupied.found, found);
    }
}

static void test_blank(void **state)
{
    static const uint64_t sizes[] = {1, 512, 100 * KIB, MIB, 2 * MIB, SIZE, SIZE + 7};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct desk desk;

        init(&desk, sizes[i]);
        check_found(&desk, "");
        desk_release(&desk);
    }
}

/* A single byte, at either end of what is looked at; and where nobody looks. */
static void test_unknown_data(void **state)
{
    static const struct {
        uint64_t offset;
        bool seen;
    } cases[] = {
        {0, true},        {1, true},       {2 * MIB - 1, true},
        {2 * MIB, false}, {3 * MIB, true}, {3 * MIB - 1, false},
        {SIZE - 1, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct desk desk;

        init(&desk, SIZE);
        desk.disk.written[cases[i].offset] = 1;
        check_found(&desk, cases[i].seen ? "data of a kind that is not recognised" : "");
        desk_release(&desk);
    }
}

static void test_partition_table(void **state)
{
    struct desk desk;
    unsigned char *mbr;

    (void)state;
    init(&desk, SIZE);
    mbr = desk.disk.written;
    mbr[446 + 4] = 0x83; /* Linux, 1000 sectors from 2048 on */
    mbr[446 + 8 + 1] = 8;
    mbr[446 + 12] = 0xe8;
    mbr[446 + 13] = 3;
    mbr[510] = 0x55;
    mbr[511] = 0xaa;
    check_found(&desk, "a partition table (dos)");
    desk_release(&desk);
}

static void test_filesystem(void **state)
{
    struct desk desk;
    unsigned char *super;

    (void)state;
    init(&desk, SIZE);
    super = desk.disk.written + 1024;
    super[4] = 0;
    super[5] = 4;       /* blocks: 1024 */
    super[0x38] = 0x53; /* the magic number of ext2, and nothing that a later one has */
    super[0x39] = 0xef;
    super[0x4c] = 1; /* revision */
    check_found(&desk, "ext2");
    memcpy(super + 0x78, "templates", 9);
    check_found(&desk, "ext2 labelled \"templates\"");
    desk_release(&desk);
}

/* Something that is only known by its end. */
static void test_tail(void **state)
{
    struct desk desk;

    (void)state;
    init(&desk, SIZE);
    /* DDF, the metadata of RAID controllers, in the last sector. */
    memcpy(desk.disk.written + SIZE - 512, "\xde\x11\xde\x11", 4);
    memcpy(desk.disk.written + SIZE - 512 + 0x38, "01.00.00", 8);
    check_found(&desk, "ddf_raid_member");
    desk_release(&desk);
}

static void test_unreadable(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 2; which++) {
        for (unsigned order = 0; order < 2; order++) {
            struct occupied occupied;
            struct desk desk;

            init(&desk, SIZE);
            desk.disk.written[0] = 1;
            desk.fake.fault =
                (struct fake_fault){.number = desk.fake.submitted + 1 + which, .code = EIO};
            look(&desk, &occupied, order);
            assert_int_equal(occupied.status, -EIO);
            assert_string_equal(occupied.error.text,
                                which ? "reading fake:d at offset 3145728: the fake says no"
                                      : "reading fake:d at offset 0: the fake says no");
            assert_string_equal(occupied.found, "");
            desk_release(&desk);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blank),
        cmocka_unit_test(test_unknown_data),
        cmocka_unit_test(test_partition_table),
        cmocka_unit_test(test_filesystem),
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_unreadable),
    };

    return cmocka_run_group_tests_name("occupied", tests, NULL, NULL);
}
