/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long an image will be: the figures are those of qemu-img 7.2, `measure --size'. */
#include "fake.h"

#include <errno.h>
#include <inttypes.h>

#include <lunferry/measure.h>
#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define TIB (GIB * 1024)
#define K64 UINT64_C(65536)

static const struct row {
    struct image_layout layout;
    uint64_t size;
    uint64_t required, fully_allocated; /* of an image that is empty; 0, 0: it is too large */
} rows[] = {
    {{.cluster_size = 0}, 0, 196608, 196608},
    {{.cluster_size = 0}, 1, 327680, 393216},
    {{.cluster_size = 0}, 64 * KIB, 327680, 393216},
    {{.cluster_size = 0}, MIB, 327680, 1376256},
    {{.cluster_size = 0}, 10 * GIB, 1900544, UINT64_C(10739318784)},
    {{.cluster_size = 0}, TIB, 168034304, UINT64_C(1099679662080)},
    {{.cluster_size = 0}, 64 * TIB, UINT64_C(10739253248), UINT64_C(70379483430912)},
    {{.cluster_size = 512}, 0, 1536, 1536},
    {{.cluster_size = 512}, 512, 2560, 3072},
    {{.cluster_size = 512}, 64 * KIB, 3072, 68608},
    {{.cluster_size = 512}, 10 * GIB, 213841408, UINT64_C(10951259648)},
    {{.cluster_size = 512}, TIB, 0, 0},
    {{.cluster_size = 2 << 20}, 1, 10485760, 12582912},
    {{.cluster_size = 2 << 20}, TIB, 12582912, UINT64_C(1099524210688)},
    {{.cluster_size = 2 << 20}, 64 * TIB, 343932928, UINT64_C(70369088110592)},
    {{.extended_l2 = true}, 10 * GIB, 3211264, UINT64_C(10740629504)},
    {{.extended_l2 = true}, 64 * TIB, UINT64_C(19330498560), UINT64_C(70388074676224)},
    {{.extended_l2 = true, .cluster_size = 16384}, TIB, 1208745984, UINT64_C(1100720373760)},
    {{.refcount_bits = 1}, 64 * TIB, UINT64_C(8725397504), UINT64_C(70377469575168)},
    {{.refcount_bits = 64, .cluster_size = 4096},
     TIB,
     UINT64_C(4311805952),
     UINT64_C(1103823433728)},
    {{.refcount_bits = 64, .cluster_size = 4096}, 64 * TIB, 0, 0},
    {{.version = 2}, 10 * GIB, 1900544, UINT64_C(10739318784)},
    /* An L1 table of 32 MiB, and one of more. */
    {{.cluster_size = 512}, 128 * GIB, UINT64_C(2737157632), UINT64_C(140176111104)},
    {{.cluster_size = 512}, 128 * GIB + 1, 0, 0},
    {{.cluster_size = 512, .refcount_bits = 64},
     64 * GIB,
     UINT64_C(2216208384),
     UINT64_C(70935685120)},
    {{.cluster_size = 512}, UINT64_MAX / 2, 0, 0},
    {{.cluster_size = 2 << 20}, UINT64_MAX / 2, 0, 0},
};

static struct image_layout complete(const struct image_layout *said)
{
    struct image_layout layout = *said;
    struct blk_error error;

    layout.format = IMAGE_QCOW2;
    assert_int_equal(image_layout_complete(&layout, &error), 0);
    return layout;
}

static void test_empty_and_full(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct image_layout layout = complete(&rows[i].layout);
        struct measure_result empty = {0}, full = {0};
        struct blk_error error = {0};
        struct measure measure;
        int status = measure_start(&measure, &layout, rows[i].size, &error);

        assert_int_equal(status, rows[i].required == 0 ? -EFBIG : 0);
        assert_int_equal(error.code, -status);
        if (status < 0)
            continue;
        measure_end(&measure, &empty);
        if (rows[i].size > 0)
            measure_data(&measure, 0, rows[i].size);
        measure_end(&measure, &full);
        if (empty.required != rows[i].required || full.required != full.fully_allocated ||
            empty.fully_allocated != rows[i].fully_allocated ||
            full.fully_allocated != rows[i].fully_allocated)
            fail_msg("row %zu: %" PRIu64 ", %" PRIu64, i, empty.required, empty.fully_allocated);
    }
}

/* A cluster with data in it counts once, whatever part of it that is. */
static void test_data(void **state)
{
    static const struct {
        struct {
            uint64_t offset, len;
        } runs[4];
        unsigned clusters;
    } cases[] = {
        {{{0, 1}}, 1},
        {{{K64 - 1, 1}}, 1},
        {{{K64 - 1, 2}}, 2},
        {{{0, 512}, {1024, 512}, {4096, K64}}, 2},
        {{{0, 512}, {1024, K64}, {3 * K64, 1}, {3 * K64 + 2, 1}}, 3},
        {{{0, K64}, {K64, K64}}, 2},
        {{{5 * K64 + 100, 10}, {15 * K64 + 65535, 1}}, 2},
    };
    struct image_layout layout = complete(&(struct image_layout){.version = 3});

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct measure_result result;
        struct blk_error error;
        struct measure measure;

        assert_int_equal(measure_start(&measure, &layout, MIB, &error), 0);
        for (size_t r = 0; r < 4 && cases[i].runs[r].len > 0; r++)
            measure_data(&measure, cases[i].runs[r].offset, cases[i].runs[r].len);
        measure_end(&measure, &result);
        assert_true(result.required == 5 * K64 + cases[i].clusters * K64);
        assert_true(result.fully_allocated == 1376256);
    }
}

/* With zero clusters a backing image costs nothing; without them all may be needed. */
static void test_backing(void **state)
{
    (void)state;
    for (unsigned version = 2; version <= 3; version++) {
        struct image_layout layout =
            complete(&(struct image_layout){.version = version, .backing = "base"});
        struct measure_result result;
        struct blk_error error;
        struct measure measure;

        assert_int_equal(measure_start(&measure, &layout, MIB, &error), 0);
        measure_end(&measure, &result);
        assert_true(result.required == (version == 2 ? 1376256 : 327680));
        assert_true(result.fully_allocated == 1376256);
    }
}

static void test_raw(void **state)
{
    static const struct image_layout raw = {.format = IMAGE_RAW};
    struct measure_result result;
    struct blk_error error;
    struct measure measure;

    (void)state;
    assert_int_equal(measure_start(&measure, &raw, 12345, &error), 0);
    measure_data(&measure, 100, 100);
    measure_end(&measure, &result);
    assert_true(result.required == 12345 && result.fully_allocated == 12345);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_and_full),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_backing),
        cmocka_unit_test(test_raw),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
