/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* What a refused parse must not touch. */
#define UNTOUCHED UINT64_C(0x5555555555555555)

struct parse_case {
    const char *text;
    uint64_t value;
    const char *error; /* the whole sentence, or NULL: `value` comes out */
};

static void check_outcome(const struct parse_case *c, int status, uint64_t value,
                          const struct blk_error *error)
{
    if (c->error == NULL) {
        if (status != 0)
            fail_msg("%s: refused: %s", c->text, error->text);
        if (value != c->value)
            fail_msg("%s: %llu instead of %llu", c->text, (unsigned long long)value,
                     (unsigned long long)c->value);
        return;
    }
    if (status != -EINVAL)
        fail_msg("%s: status %d instead of -EINVAL", c->text, status);
    assert_int_equal(error->code, EINVAL);
    assert_int_equal(error->retry, BLK_FATAL);
    assert_string_equal(error->text, c->error);
    assert_int_equal(value, UNTOUCHED);
}

#define SIZE_HELP        "write a number with k, M, G, T or P (powers of 1024) behind it, like 64k or 2.5G"
#define NOT_A_SIZE(text) "\"" text "\" is not a size: " SIZE_HELP
#define UNKNOWN_UNIT(text, unit)                                                                   \
    "\"" text "\" is not a size: the unit \"" unit "\" is unknown; " SIZE_HELP
#define TOO_LARGE(text)                                                                            \
    "\"" text "\" is too large: the largest size is 9223372036854775807 bytes, 8 EiB less one "    \
    "byte"
#define NOT_WHOLE(text) "\"" text "\" is not a whole number of bytes"

static const struct parse_case sizes[] = {
    {"0", 0, NULL},
    {"512", 512, NULL},
    {"512B", 512, NULL},
    {"512b", 512, NULL},
    {"007", 7, NULL},
    {"64k", 64 * KIB, NULL},
    {"64K", 64 * KIB, NULL},
    {"64KiB", 64 * KIB, NULL},
    {"64kib", 64 * KIB, NULL},
    {"1M", MIB, NULL},
    {"1m", MIB, NULL},
    {"1MiB", MIB, NULL},
    {"1G", GIB, NULL},
    {"2.5G", 2 * GIB + GIB / 2, NULL},
    {"0.5k", 512, NULL},
    {"1.0", 1, NULL},
    {"1.50", 0, NOT_WHOLE("1.50")},
    {"1T", 1024 * GIB, NULL},
    {"1P", 1024 * 1024 * GIB, NULL},
    {"1PiB", 1024 * 1024 * GIB, NULL},
    {"0.0009765625k", 1, NULL},
    {"0.0009765625000000000000000k", 1, NULL},
    {"1.000000000931322574615478515625G", 0, NOT_WHOLE("1.000000000931322574615478515625G")},
    {"8191P", GIB * 1024 * 1024 * 8191, NULL},
    {"9223372036854775807", INT64_MAX, NULL},
    {"9223372036854775808", 0, TOO_LARGE("9223372036854775808")},
    {"8192P", 0, TOO_LARGE("8192P")},
    {"99999999999999999999", 0, TOO_LARGE("99999999999999999999")},
    {"18446744073709551617k", 0, TOO_LARGE("18446744073709551617k")},
    {"0.3k", 0, NOT_WHOLE("0.3k")},
    {"0.5000000000000000000001k", 0, NOT_WHOLE("0.5000000000000000000001k")},
    {"0.5", 0, NOT_WHOLE("0.5")},
    {"", 0, NOT_A_SIZE("")},
    {"k", 0, NOT_A_SIZE("k")},
    {"-1", 0, NOT_A_SIZE("-1")},
    {"+1", 0, NOT_A_SIZE("+1")},
    {" 1", 0, NOT_A_SIZE(" 1")},
    {".5G", 0, NOT_A_SIZE(".5G")},
    {"1.G", 0, NOT_A_SIZE("1.G")},
    {"1 ", 0, UNKNOWN_UNIT("1 ", " ")},
    {"1 G", 0, UNKNOWN_UNIT("1 G", " G")},
    {"12X", 0, UNKNOWN_UNIT("12X", "X")},
    {"0x10", 0, UNKNOWN_UNIT("0x10", "x10")},
    {"1KB", 0, UNKNOWN_UNIT("1KB", "KB")},
    {"1Gi", 0, UNKNOWN_UNIT("1Gi", "Gi")},
    {"1GiBs", 0, UNKNOWN_UNIT("1GiBs", "GiBs")},
    {"1E", 0, UNKNOWN_UNIT("1E", "E")},
    {"1.2.3", 0, UNKNOWN_UNIT("1.2.3", ".3")},
    {"1,5G", 0, UNKNOWN_UNIT("1,5G", ",5G")},
};

static void test_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct blk_error error = {0};
        uint64_t value = UNTOUCHED;
        int status = units_parse_size(sizes[i].text, &value, &error);

        check_outcome(&sizes[i], status, value, &error);
    }
}

static const struct parse_case numbers[] = {
    {"1", 1, NULL},
    {"65535", 65535, NULL},
    {"00065535", 65535, NULL},
    {"0", 0, "\"0\" is out of range: it must be from 1 to 65535"},
    {"65536", 0, "\"65536\" is out of range: it must be from 1 to 65535"},
    {"18446744073709551617", 0,
     "\"18446744073709551617\" is out of range: it must be from 1 to 65535"},
    {"", 0, "\"\" is not a whole decimal number"},
    {"-1", 0, "\"-1\" is not a whole decimal number"},
    {"+1", 0, "\"+1\" is not a whole decimal number"},
    {" 1", 0, "\" 1\" is not a whole decimal number"},
    {"1 ", 0, "\"1 \" is not a whole decimal number"},
    {"1k", 0, "\"1k\" is not a whole decimal number"},
    {"0x1", 0, "\"0x1\" is not a whole decimal number"},
    {"1.0", 0, "\"1.0\" is not a whole decimal number"},
};

static void test_numbers(void **state)
{
    uint64_t value;

    (void)state;
    for (size_t i = 0; i < COUNT(numbers); i++) {
        struct blk_error error = {0};
        int status;

        value = UNTOUCHED;
        status = units_parse_number(numbers[i].text, 1, 65535, &value, &error);
        check_outcome(&numbers[i], status, value, &error);
    }
    assert_int_equal(units_parse_number("18446744073709551615", 0, UINT64_MAX, &value, NULL), 0);
    assert_true(value == UINT64_MAX);
    assert_int_equal(units_parse_number("18446744073709551616", 0, UINT64_MAX, &value, NULL),
                     -EINVAL);
}

static const struct parse_case durations[] = {
    {"1", UINT64_C(1000000000), NULL},
    {"0.5", UINT64_C(500000000), NULL},
    {"30.25", UINT64_C(30250000000), NULL},
    {"0.000000001", 1, NULL},
    {"0.0000000019", 1, NULL},
    {"1.1234567891234567891234", UINT64_C(1123456789), NULL},
    {"31536000", UINT64_C(31536000000000000), NULL},
    {"31536000.000", UINT64_C(31536000000000000), NULL},
    {"31536000.1", 0, "\"31536000.1\" is too long: at most a year, 31536000 seconds"},
    {"31536001", 0, "\"31536001\" is too long: at most a year, 31536000 seconds"},
    {"99999999999999999999", 0,
     "\"99999999999999999999\" is too long: at most a year, 31536000 seconds"},
    {"0", 0, "\"0\" is too short: it must be more than 0 seconds"},
    {"0.0", 0, "\"0.0\" is too short: it must be more than 0 seconds"},
    {"0.0000000009", 0, "\"0.0000000009\" is too short: it must be more than 0 seconds"},
    {"", 0, "\"\" is not a number of seconds: write it like 30 or 0.5"},
    {"-1", 0, "\"-1\" is not a number of seconds: write it like 30 or 0.5"},
    {"1s", 0, "\"1s\" is not a number of seconds: write it like 30 or 0.5"},
    {".5", 0, "\".5\" is not a number of seconds: write it like 30 or 0.5"},
    {"5.", 0, "\"5.\" is not a number of seconds: write it like 30 or 0.5"},
    {"1:00", 0, "\"1:00\" is not a number of seconds: write it like 30 or 0.5"},
};

static void test_seconds(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(durations); i++) {
        struct blk_error error = {0};
        uint64_t value = UNTOUCHED;
        int status = units_parse_seconds(durations[i].text, &value, &error);

        check_outcome(&durations[i], status, value, &error);
    }
}

/* Whatever stands there, the sentence is cut and not the stack. */
static void test_long_texts(void **state)
{
    char text[10000];
    struct blk_error error = {0};
    uint64_t value;

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(units_parse_size(text, &value, &error), -EINVAL);
    assert_true(strlen(error.text) < 250);
    assert_int_equal(units_parse_number(text, 0, 1, &value, &error), -EINVAL);
    assert_int_equal(units_parse_seconds(text, &value, &error), -EINVAL);
    memset(text, '9', sizeof text - 1);
    assert_int_equal(units_parse_size(text, &value, &error), -EINVAL);
    assert_non_null(strstr(error.text, "too large"));
    assert_int_equal(units_parse_size(text, &value, NULL), -EINVAL);
}

struct print_case {
    uint64_t value;
    const char *text;
};

static void test_print_size(void **state)
{
    static const struct print_case cases[] = {
        {0, "0 B"},
        {512, "512 B"},
        {1023, "1023 B"},
        {1024, "1.00 KiB"},
        {1536, "1.50 KiB"},
        {1029, "1.00 KiB"},
        {1030, "1.01 KiB"},
        {MIB - 1, "1.00 MiB"},
        {MIB - 6, "1023.99 KiB"},
        {MIB, "1.00 MiB"},
        {GIB - 1, "1.00 GiB"},
        {GIB + GIB / 2, "1.50 GiB"},
        {1000 * GIB, "1000.00 GiB"},
        {1024 * GIB, "1.00 TiB"},
        {1024 * 1024 * GIB, "1.00 PiB"},
        {UINT64_C(1) << 60, "1.00 EiB"},
        {UINT64_MAX, "16.00 EiB"},
    };
    char buf[UNITS_TEXT];

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *text = units_size(buf, cases[i].value);

        assert_ptr_equal(text, buf);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_print_duration(void **state)
{
    static const struct print_case cases[] = {
        {0, "0 s"},
        {7, "7 s"},
        {59, "59 s"},
        {60, "1:00"},
        {65, "1:05"},
        {3599, "59:59"},
        {3600, "1:00:00"},
        {7389, "2:03:09"},
        {360000, "100:00:00"},
        {UINT64_MAX, "5124095576030431:00:15"},
    };
    char buf[UNITS_TEXT];

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *text = units_duration(buf, cases[i].value);

        assert_ptr_equal(text, buf);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_rounding(void **state)
{
    (void)state;
    assert_int_equal(round_down(4097, 4096), 4096);
    assert_int_equal(round_down(4096, 4096), 4096);
    assert_int_equal(round_up(4097, 4096), 8192);
    assert_int_equal(round_up(4096, 4096), 4096);
    assert_int_equal(round_up(0, 4096), 0);
    assert_int_equal(round_up(5, 1), 5);
    assert_int_equal(min_u64(3, 2), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),      cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_seconds),    cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_print_size), cmocka_unit_test(test_print_duration),
        cmocka_unit_test(test_rounding),
    };

    return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
