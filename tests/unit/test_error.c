/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include <lunferry/error.h>

static void test_set(void **state)
{
    struct blk_error error;

    (void)state;
    assert_int_equal(blk_error_set(&error, EIO, "sector %d is %s", 7, "gone"), -EIO);
    assert_int_equal(error.code, EIO);
    assert_int_equal(error.retry, BLK_FATAL);
    assert_string_equal(error.text, "sector 7 is gone");
    assert_int_equal(blk_error_set_retry(&error, EAGAIN, BLK_REPEAT, "later"), -EAGAIN);
    assert_int_equal(error.retry, BLK_REPEAT);
    assert_string_equal(error.text, "later");
    /* An ordinary one takes that back. */
    blk_error_set(&error, EIO, "no");
    assert_int_equal(error.retry, BLK_FATAL);
}

static void test_nobody_asked(void **state)
{
    (void)state;
    assert_int_equal(blk_error_set(NULL, ENOSPC, "%s", "x"), -ENOSPC);
    assert_int_equal(blk_error_set_retry(NULL, ENOSPC, BLK_LOST, "%s", "x"), -ENOSPC);
}

static void test_prefix(void **state)
{
    struct blk_error error;

    (void)state;
    blk_error_set_retry(&error, ESTALE, BLK_LOST, "NFS3ERR_STALE");
    blk_error_prefix(&error, "writing %s at offset %d", "nfs://h/x", 5);
    blk_error_prefix(&error, "target");
    assert_string_equal(error.text, "target: writing nfs://h/x at offset 5: NFS3ERR_STALE");
    assert_int_equal(error.code, ESTALE);
    assert_int_equal(error.retry, BLK_LOST);
}

static void test_prefix_of_nothing(void **state)
{
    struct blk_error error = {.code = ENOENT};

    (void)state;
    blk_error_prefix(&error, "opening x");
    assert_string_equal(error.text, "opening x: No such file or directory");
}

static void test_own_text_as_argument(void **state)
{
    struct blk_error error;

    (void)state;
    blk_error_set(&error, EIO, "first");
    blk_error_set(&error, EIO, "%s, then %s", error.text, error.text);
    assert_string_equal(error.text, "first, then first");
    blk_error_prefix(&error, "[%s]", error.text);
    assert_string_equal(error.text, "[first, then first]: first, then first");
}

static void test_too_long(void **state)
{
    struct {
        struct blk_error error;
        char after[16];
    } room;
    char words[1000];

    (void)state;
    memset(&room, 0x55, sizeof(room));
    memset(words, 'w', sizeof(words));
    words[sizeof(words) - 1] = '\0';
    blk_error_set(&room.error, EIO, "%s", words);
    assert_int_equal(strlen(room.error.text), sizeof(room.error.text) - 1);
    blk_error_prefix(&room.error, "here");
    assert_int_equal(strlen(room.error.text), sizeof(room.error.text) - 1);
    assert_memory_equal(room.error.text, "here: www", 9);
    blk_error_prefix(&room.error, "%s", words);
    assert_int_equal(strlen(room.error.text), sizeof(room.error.text) - 1);
    for (size_t i = 0; i < sizeof(room.after); i++)
        assert_int_equal(room.after[i], 0x55);
}

static void test_clear(void **state)
{
    struct blk_error error;

    (void)state;
    blk_error_set_retry(&error, EIO, BLK_LOST, "x");
    blk_error_clear(&error);
    assert_int_equal(error.code, 0);
    assert_int_equal(error.retry, BLK_FATAL);
    assert_string_equal(error.text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_nobody_asked),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_prefix_of_nothing),
        cmocka_unit_test(test_own_text_as_argument),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_clear),
    };

    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
