/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A qcow2 image is written: layouts, and what of it is written again. What comes of it is counted and read by a
 * checker of its own, from what is durable. */
#include "writing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- Layouts ---------------------------------------------------------------------------------- */

/* Every other cluster or so: plain, compressed, zero, never written. */
static void write_some(struct writing *writing)
{
    uint64_t unit = writing->layout.cluster_size;

    for (uint64_t at = 0, i = 0; at < writing->size; at += unit, i++) {
        uint64_t len = min_u64(unit * (1 + i % 3), writing->size - at);

        if (i % 5 == 3)
            continue;
        if (writing->req_count == WRITING_REQS)
            writing_durable(writing);
        writing_submit(writing, 0, i % 5 == 4 ? BLK_ZERO : BLK_WRITE, at, len, (uint32_t)i + 2);
        at += round_up(len, unit) - unit;
    }
    writing_durable(writing);
}

static void finish_and_check(struct writing *writing)
{
    assert_int_equal(writing_finish(writing), 0);
    writing_check(writing);
    assert_int_equal(writing->disk.finished, 1);
    assert_true(writing->disk.size <= image_make_bound(&writing->layout, writing->size));
    assert_int_equal(writing->check.used, writing->disk.size);
}

static void test_layouts(void **state)
{
    static const struct {
        struct image_layout layout;
        uint64_t size;
    } cases[] = {
        {{.cluster_size = 65536}, 0},
        {{.cluster_size = 65536}, 1},
        {{.cluster_size = 65536}, 65536},
        {{.cluster_size = 512}, 511},
        {{.cluster_size = 512}, 513},
        {{.cluster_size = 512}, 512 * 64 * 3 + 100},
        {{.cluster_size = 512, .compress = true}, 512 * 64 * 3 + 100},
        {{.cluster_size = 512, .compress = true, .compression = IMAGE_ZSTD}, 512 * 300},
        {{.cluster_size = 4096}, 4096 * 600 + 2000},
        {{.cluster_size = 4096, .version = 2}, 4096 * 600 + 2000},
        {{.cluster_size = 4096, .version = 2, .compress = true}, 4096 * 600 + 2000},
        {{.cluster_size = 4096, .compress = true, .level = 9}, 4096 * 100},
        {{.cluster_size = 4096, .lazy_refcounts = true}, 4096 * 20},
        {{.cluster_size = 16384, .extended_l2 = true}, 16384 * 60 + 1},
        {{.cluster_size = 16384, .extended_l2 = true, .compress = true}, 16384 * 60 + 1},
        {{.compress = true, .compression = IMAGE_ZSTD, .level = 3}, 65536 * 50 + 12345},
        {{.cluster_size = 2 << 20}, (7 << 20) + 77},
        {{.cluster_size = 2 << 20, .compress = true}, (17 << 20) + 77},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct writing writing;

        writing_init(&writing, &cases[i].layout, cases[i].size);
        assert_int_equal(writing_open(&writing, 1), 0);
        assert_int_equal(writing.desk.dev->size, cases[i].size);
        write_some(&writing);
        finish_and_check(&writing);
        if (cases[i].layout.compress && cases[i].size > 1 << 20)
            assert_true(writing.check.compressed > 0 && writing.check.plain > 0);
        writing_release(&writing);
    }
}

/* Every width of refcounts; with compression from 2 bits on, and of clusters that become as small as
 * can be. */
static void test_refcount_bits(void **state)
{
    (void)state;
    for (unsigned bits = 1; bits <= 64; bits *= 2) {
        for (unsigned compress = 0; compress < (bits > 1 ? 3u : 1u); compress++) {
            struct image_layout layout = {.cluster_size = 4096,
                                          .refcount_bits = bits,
                                          .compress = compress > 0,
                                          .compression = compress > 1 ? IMAGE_ZSTD : IMAGE_ZLIB};
            struct writing writing;

            writing_init(&writing, &layout, 4096 * 500);
            assert_int_equal(writing_open(&writing, 1), 0);
            writing_write(&writing, 0, 4096 * 11, 2);
            writing_write(&writing, 4096 * 11, 4096 * 280, 0);
            writing_write(&writing, 4096 * 50, 4096 * 11, 3);
            finish_and_check(&writing);
            writing_release(&writing);
        }
    }
}

/* Without a hole in it the longest image is as long as was said. */
static void test_bound(void **state)
{
    static const uint64_t sizes[] = {512, 65536, 512 * 64 * 64, 300 * 512, 512 * 8000 + 1};

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct writing writing;

        writing_init(&writing, &(struct image_layout){.cluster_size = 512}, sizes[i]);
        assert_int_equal(writing_open(&writing, 1), 0);
        writing_write(&writing, 0, sizes[i], 1);
        finish_and_check(&writing);
        assert_int_equal(writing.disk.size, image_make_bound(&writing.layout, sizes[i]));
        writing_release(&writing);
    }
}

/* ---- A backing image -------------------------------------------------------------------------- */

/* Its name and format, as they stand in the header. */
static void check_names(const struct writing *writing)
{
    const unsigned char *bytes = writing->disk.durable;
    struct qcow2_header header;
    struct blk_error error;
    uint64_t need;

    if (qcow2_header_parse(&header, bytes, min_u64(writing->disk.size, QCOW2_HEADER_READ),
                           writing->disk.size, false, &need, &error) < 0)
        fail_msg("%s", error.text);
    assert_string_equal(header.backing, "base.img");
    assert_string_equal(header.backing_format, "raw");
    qcow2_header_free(&header);
}

static void test_backing(void **state)
{
    static const struct image_layout layouts[] = {
        {.cluster_size = 4096},
        {.cluster_size = 4096, .version = 2},
        {.cluster_size = 4096, .version = 2, .compress = true},
        {.cluster_size = 512, .compress = true, .compression = IMAGE_ZSTD},
        {.cluster_size = 16384, .extended_l2 = true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        struct image_layout layout = layouts[i];
        uint64_t unit = layout.cluster_size, size = unit * 150 + 300;
        unsigned char *backing = malloc(size);
        struct writing writing;

        layout.backing = "base.img";
        layout.backing_format = "raw";
        assert_non_null(backing);
        writing_pattern(backing, size, 77);
        writing_init(&writing, &layout, size);
        writing.backing = backing;
        memcpy(writing.bytes, backing, size);
        assert_int_equal(writing_open(&writing, 1), 0);
        assert_int_equal((writing.desk.dev->caps & BLK_CAN_ZERO) != 0, layout.version != 2);
        writing_write(&writing, unit * 3, unit * 4, 2);
        writing_zero(&writing, unit * 5, unit * 30);
        writing_zero(&writing, unit * 140, size - unit * 140);
        writing_write(&writing, unit * 8, unit * 2, 5);
        finish_and_check(&writing);
        check_names(&writing);
        assert_int_equal(writing.check.zeros, layout.version == 2 ? 0 : 30 + 11 - 2);
        assert_int_equal(writing.check.nothing, 3 + 105);
        writing_release(&writing);
        free(backing);
    }
}

/* ---- Once more -------------------------------------------------------------------------------- */

/* A plain cluster stays where it is, in as many writes as there are runs. */
static void test_plain_again(void **state)
{
    struct writing writing;

    (void)state;
    writing_init(&writing, &(struct image_layout){.cluster_size = 4096}, 4096 * 100);
    assert_int_equal(writing_open(&writing, 1), 0);
    writing.disk.logging = true;
    writing_write(&writing, 4096 * 8, 4096 * 8, 1);
    fake_disk_check_commands(&writing.disk, "WRITE 4k+32k; FLUSH");
    writing_write(&writing, 4096 * 20, 4096 * 2, 1);
    fake_disk_check_commands(&writing.disk, "WRITE 36k+8k; FLUSH");
    writing_write(&writing, 4096 * 10, 4096 * 2, 3);
    fake_disk_check_commands(&writing.disk, "WRITE 12k+8k; FLUSH");
    writing_write(&writing, 4096 * 14, 4096 * 8, 5);
    fake_disk_check_commands(&writing.disk, "WRITE 28k+8k; WRITE 44k+16k; WRITE 36k+8k; FLUSH");
    finish_and_check(&writing);
    writing_release(&writing);
}

/* A compressed one does not, and what was there is given back; likewise what becomes another kind. */
static void test_compressed_again(void **state)
{
    struct writing writing;

    (void)state;
    writing_init(&writing, &(struct image_layout){.cluster_size = 4096, .compress = true},
                 4096 * 100);
    assert_int_equal(writing_open(&writing, 1), 0);
    writing_write(&writing, 0, 4096 * 60, 2);
    writing_write(&writing, 4096 * 10, 4096 * 20, 4); /* compressed, compressed */
    writing_write(&writing, 4096 * 25, 4096 * 10, 5); /* plain */
    writing_write(&writing, 4096 * 30, 4096 * 10, 6); /* compressed */
    writing_zero(&writing, 4096 * 32, 4096 * 20);
    writing_zero(&writing, 0, 4096 * 2);
    writing_write(&writing, 4096 * 33, 4096 * 2, 7);
    finish_and_check(&writing);
    writing_release(&writing);
}

/* All kinds after all others, over many tables of which there are two in memory: what a table held comes to
 * light when it leaves again. */
static void test_tables_leave(void **state)
{
    static const struct image_layout layouts[] = {
        {.cluster_size = 512},
        {.cluster_size = 512, .compress = true, .compression = IMAGE_ZSTD},
        {.cluster_size = 512, .version = 2, .compress = true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(layouts); i++) {
        struct writing writing;
        uint64_t tables = 9, clusters = 64 * tables, seed = i + 1;

        writing_init(&writing, &layouts[i], 512 * clusters);
        fake_disk_release(&writing.disk);
        fake_disk_init(&writing.disk, &writing.desk.fake, 8 << 20, 0);
        writing.table_bytes = 512 * 4;
        assert_int_equal(writing_open(&writing, 1), 0);
        for (unsigned round = 0; round < 400; round++) {
            uint64_t first, count;

            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            first = (seed >> 33) % clusters;
            count = 1 + (seed >> 20) % 7;
            count = min_u64(count * count, clusters - first);
            if ((seed >> 50) % 4 == 0)
                writing_zero(&writing, 512 * first, 512 * count);
            else
                writing_write(&writing, 512 * first, 512 * count, round);
        }
        assert_int_equal(writing_finish(&writing), 0);
        writing_check(&writing);
        writing_release(&writing);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),      cmocka_unit_test(test_refcount_bits),
        cmocka_unit_test(test_bound),        cmocka_unit_test(test_backing),
        cmocka_unit_test(test_plain_again),  cmocka_unit_test(test_compressed_again),
        cmocka_unit_test(test_tables_leave),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
