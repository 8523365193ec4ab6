/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "src/copy/sectors.h"

static unsigned char start[SECTORS_LOOK];

static void blank(void)
{
    memset(start, 0, sizeof(start));
}

/* One partition of this type, in the first place. */
static void add_mbr(unsigned char status, unsigned char type)
{
    start[446] = status;
    start[446 + 4] = type;
    start[510] = 0x55;
    start[511] = 0xaa;
}

static void test_nothing(void **state)
{
    (void)state;
    blank();
    assert_int_equal(sectors_of_table(start, sizeof(start)), 0);
    memset(start, 0xff, sizeof(start));
    assert_int_equal(sectors_of_table(start, sizeof(start)), 0);
}

static void test_mbr(void **state)
{
    (void)state;
    blank();
    add_mbr(0x80, 0x83);
    assert_int_equal(sectors_of_table(start, sizeof(start)), 512);
    add_mbr(0, 0x83);
    assert_int_equal(sectors_of_table(start, sizeof(start)), 512);
    assert_int_equal(sectors_of_table(start, 512), 512);
    assert_int_equal(sectors_of_table(start, 511), 0);
    start[511] = 0;
    assert_int_equal(sectors_of_table(start, sizeof(start)), 0);
}

static void test_mbr_in_the_last_place(void **state)
{
    (void)state;
    blank();
    add_mbr(0, 0);
    assert_int_equal(sectors_of_table(start, sizeof(start)), 0); /* no partition */
    start[446 + 3 * 16 + 4] = 0x07;
    assert_int_equal(sectors_of_table(start, sizeof(start)), 512);
}

/* A filesystem's boot sector: the same signature, but code where the entries would be. */
static void test_boot_sector(void **state)
{
    (void)state;
    blank();
    add_mbr(0x80, 0x83);
    start[446 + 2 * 16] = 0x31; /* no status that an entry can have */
    assert_int_equal(sectors_of_table(start, sizeof(start)), 0);
}

static void test_gpt(void **state)
{
    (void)state;
    for (unsigned size = 512; size <= 4096; size *= 8) {
        blank();
        memcpy(start + size, "EFI PART", 8);
        assert_int_equal(sectors_of_table(start, sizeof(start)), size);
        add_mbr(0, 0xee); /* the protective one does not count */
        assert_int_equal(sectors_of_table(start, sizeof(start)), size);
        assert_int_equal(sectors_of_table(start, size + 8), size);
    }
    assert_int_equal(sectors_of_table(start, 4096 + 7), 512); /* only the MBR is in sight */
}

/* An image that is shorter than what is looked at: nothing is read behind its end. */
static void test_short_images(void **state)
{
    (void)state;
    for (size_t len = 0; len <= 600; len++) {
        unsigned char *exact = malloc(len ? len : 1);

        assert_non_null(exact);
        memset(exact, 0, len ? len : 1);
        assert_int_equal(sectors_of_table(exact, len), 0);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_mbr),
        cmocka_unit_test(test_mbr_in_the_last_place),
        cmocka_unit_test(test_boot_sector),
        cmocka_unit_test(test_gpt),
        cmocka_unit_test(test_short_images),
    };

    return cmocka_run_group_tests_name("sectors", tests, NULL, NULL);
}
