/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "src/copy/zeros.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- Zero or not ------------------------------------------------------------------------------ */

/* With a single byte at `at`; and with just what lies before it, and just what lies behind. */
static void check_byte(unsigned char *bytes, size_t len, size_t at)
{
    bytes[at] = at % 2 ? 1 : 0x80;
    assert_false(zeros_only(bytes, len));
    if (at > 0)
        assert_true(zeros_only(bytes, at));
    if (at + 1 < len)
        assert_true(zeros_only(bytes + at + 1, len - at - 1));
    bytes[at] = 0;
}

/* At every place of short ranges, and about the ends and the 16-byte borders of long ones; at several
 * alignments, in memory that ends where it ends, for the sanitizer. */
static void test_one_byte_anywhere(void **state)
{
    static const size_t lens[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 511, 512, 513, 1024, 1100};

    (void)state;
    for (size_t i = 0; i < COUNT(lens); i++) {
        for (size_t shift = 0; shift < 9; shift += 3) {
            size_t len = lens[i];
            unsigned char *memory = malloc(shift + len), *bytes = memory + shift;

            assert_non_null(memory);
            memset(memory, 0xff, shift);
            memset(bytes, 0, len);
            assert_true(zeros_only(bytes, len));
            for (size_t at = 0; at < len; at += at < 20 || at + 20 > len ? 1 : 5)
                check_byte(bytes, len, at);
            free(memory);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_byte_anywhere),
    };

    return cmocka_run_group_tests_name("zeros", tests, NULL, NULL);
}
