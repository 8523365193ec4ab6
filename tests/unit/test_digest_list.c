/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/digest_list.h"

#define BLOCK  DIGEST_DEFAULT_BLOCK
#define BLOCKS 6u
#define SIZE   ((BLOCKS - 1) * (uint64_t)BLOCK + 777) /* the last is short */

struct bench {
    struct digest_list *list;
    struct digest *digest;
    unsigned char *bytes; /* data in blocks 0, 1, 4 and 5, zeros in 2 and 3 */
};

static void bench_init(struct bench *bench)
{
    *bench = (struct bench){digest_list_new(SIZE, BLOCK), digest_new(NULL), calloc(1, SIZE)};
    assert_non_null(bench->list);
    assert_non_null(bench->digest);
    assert_non_null(bench->bytes);
    for (uint64_t i = 0; i < SIZE; i++) {
        if (i / BLOCK != 2 && i / BLOCK != 3)
            bench->bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    }
}

static void bench_release(struct bench *bench)
{
    digest_list_free(bench->list);
    digest_free(bench->digest);
    free(bench->bytes);
}

static void take(struct bench *bench, struct digest_list *list, uint64_t offset, uint64_t len)
{
    digest_list_take(list, bench->digest, offset, bench->bytes + offset, len);
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(digest_block_for(1), BLOCK);
    assert_int_equal(digest_block_for(BLOCK * DIGEST_MAX_BLOCKS), BLOCK);
    assert_int_equal(digest_block_for(BLOCK * DIGEST_MAX_BLOCKS + 1), 2 * BLOCK);
    assert_int_equal(digest_block_for(DIGEST_MAX_BLOCK * DIGEST_MAX_BLOCKS), DIGEST_MAX_BLOCK);
    assert_int_equal(digest_block_for(DIGEST_MAX_BLOCK * DIGEST_MAX_BLOCKS + 1), 0);
    assert_int_equal(digest_block_for(UINT64_MAX), 0);
    assert_true(digest_block_fits(1, DIGEST_MIN_BLOCK));
    assert_true(digest_block_fits(1, DIGEST_MAX_BLOCK));
    assert_false(digest_block_fits(0, BLOCK));
    assert_false(digest_block_fits(1, 0));
    assert_false(digest_block_fits(1, DIGEST_MIN_BLOCK / 2));
    assert_false(digest_block_fits(1, DIGEST_MAX_BLOCK * UINT64_C(2)));
    assert_false(digest_block_fits(1, 3 * DIGEST_MIN_BLOCK));
    assert_false(digest_block_fits(DIGEST_MIN_BLOCK * DIGEST_MAX_BLOCKS + 1, DIGEST_MIN_BLOCK));
}

static void test_marks(void **state)
{
    uint8_t got[DIGEST_SIZE], expected[DIGEST_SIZE];
    struct bench bench;

    (void)state;
    bench_init(&bench);
    assert_int_equal(digest_list_size(bench.list), SIZE);
    assert_int_equal(digest_list_block(bench.list), BLOCK);
    assert_int_equal(digest_list_blocks(bench.list), BLOCKS);
    for (unsigned i = 0; i < BLOCKS; i++)
        assert_int_equal(digest_list_get(bench.list, i, got), DIGEST_UNKNOWN);
    /* Zeros among what was read, and zeros that were not. */
    take(&bench, bench.list, BLOCK, 2 * BLOCK);
    digest_list_take_zeros(bench.list, 3 * BLOCK, BLOCK);
    take(&bench, bench.list, 5 * BLOCK, SIZE - 5 * BLOCK);
    assert_false(digest_list_complete(bench.list));
    assert_int_equal(digest_list_get(bench.list, 0, got), DIGEST_UNKNOWN);
    assert_int_equal(digest_list_get(bench.list, 1, got), DIGEST_DATA);
    digest_of(bench.digest, bench.bytes + BLOCK, BLOCK, expected);
    assert_memory_equal(got, expected, DIGEST_SIZE);
    assert_int_equal(digest_list_get(bench.list, 2, got), DIGEST_ZEROS);
    assert_int_equal(digest_list_get(bench.list, 3, got), DIGEST_ZEROS);
    assert_int_equal(digest_list_get(bench.list, 4, got), DIGEST_UNKNOWN);
    /* A short block is as long as it is. */
    assert_int_equal(digest_list_get(bench.list, 5, got), DIGEST_DATA);
    digest_of(bench.digest, bench.bytes + 5 * BLOCK, 777, expected);
    assert_memory_equal(got, expected, DIGEST_SIZE);
    take(&bench, bench.list, 0, BLOCK);
    take(&bench, bench.list, 4 * BLOCK, BLOCK);
    assert_true(digest_list_complete(bench.list));
    /* What is taken again counts. */
    digest_list_take_zeros(bench.list, 5 * BLOCK, SIZE - 5 * BLOCK);
    assert_int_equal(digest_list_get(bench.list, 5, got), DIGEST_ZEROS);
    take(&bench, bench.list, 5 * BLOCK, SIZE - 5 * BLOCK);
    assert_int_equal(digest_list_get(bench.list, 5, got), DIGEST_DATA);
    bench_release(&bench);
}

/* However zeros were found, and in whatever order. */
static void test_root(void **state)
{
    uint8_t a[DIGEST_SIZE], b[DIGEST_SIZE], first[DIGEST_SIZE];
    struct digest_list *other;
    struct bench bench;

    (void)state;
    bench_init(&bench);
    other = digest_list_new(SIZE, BLOCK);
    assert_non_null(other);
    take(&bench, bench.list, 0, SIZE);
    digest_list_root(bench.list, bench.digest, first);
    digest_list_take_zeros(other, 2 * BLOCK, 2 * BLOCK);
    for (unsigned i = 6; i-- > 0;) {
        if (i != 2 && i != 3)
            take(&bench, other, i * (uint64_t)BLOCK, min_u64(BLOCK, SIZE - i * (uint64_t)BLOCK));
    }
    digest_list_root(other, bench.digest, a);
    assert_memory_equal(a, first, DIGEST_SIZE);
    /* Another byte, another root. */
    bench.bytes[SIZE - 1] ^= 1;
    take(&bench, other, 5 * BLOCK, SIZE - 5 * BLOCK);
    digest_list_root(other, bench.digest, a);
    assert_memory_not_equal(a, first, DIGEST_SIZE);
    digest_list_free(other);
    /* Zeros of other lengths differ too, and so do other blocks. */
    other = digest_list_new(3 * BLOCK, BLOCK);
    digest_list_take_zeros(other, 0, 3 * BLOCK);
    digest_list_root(other, bench.digest, a);
    digest_list_free(other);
    other = digest_list_new(3 * BLOCK - 1, BLOCK);
    digest_list_take_zeros(other, 0, 3 * BLOCK - 1);
    digest_list_root(other, bench.digest, b);
    digest_list_free(other);
    assert_memory_not_equal(a, b, DIGEST_SIZE);
    other = digest_list_new(3 * BLOCK, 4 * BLOCK);
    digest_list_take_zeros(other, 0, 3 * BLOCK);
    digest_list_root(other, bench.digest, b);
    digest_list_free(other);
    assert_memory_not_equal(a, b, DIGEST_SIZE);
    bench_release(&bench);
}

/* The root's value is part of the format: block size, image size, then the runs. */
static void test_root_is_as_documented(void **state)
{
    static const unsigned char before[] = {0, 4, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0};
    static const unsigned char run_of_1[] = {0, 0, 0, 0, 0, 0, 0, 1};
    static const unsigned char zeros_of_2[] = {0x80, 0, 0, 0, 0, 0, 0, 2};
    uint8_t block[DIGEST_SIZE], expected[DIGEST_SIZE], root[DIGEST_SIZE];
    struct digest_list *list = digest_list_new(3 * BLOCK, BLOCK);
    struct bench bench;

    (void)state;
    bench_init(&bench);
    assert_non_null(list);
    take(&bench, list, 0, BLOCK);
    digest_list_take_zeros(list, BLOCK, 2 * BLOCK);
    digest_of(bench.digest, bench.bytes, BLOCK, block);
    digest_begin(bench.digest);
    digest_add(bench.digest, before, sizeof(before));
    digest_add(bench.digest, run_of_1, sizeof(run_of_1));
    digest_add(bench.digest, block, sizeof(block));
    digest_add(bench.digest, zeros_of_2, sizeof(zeros_of_2));
    digest_end(bench.digest, expected);
    digest_list_root(list, bench.digest, root);
    assert_memory_equal(root, expected, DIGEST_SIZE);
    digest_list_free(list);
    bench_release(&bench);
}

static void check_range(const struct digest_list *a, const struct digest_list *b, uint64_t from,
                        uint64_t offset, uint64_t len)
{
    uint64_t got_offset, got_len;

    assert_true(digest_list_differs(a, b, from, &got_offset, &got_len));
    assert_int_equal(got_offset, offset);
    assert_int_equal(got_len, len);
}

static void test_differences(void **state)
{
    struct digest_list *other = digest_list_new(SIZE, BLOCK);
    uint64_t offset, len;
    struct bench bench;

    (void)state;
    bench_init(&bench);
    assert_non_null(other);
    take(&bench, bench.list, 0, SIZE);
    take(&bench, other, 0, SIZE);
    assert_false(digest_list_differs(bench.list, other, 0, &offset, &len));
    /* Zeros that were data, data that were zeros, and data that are other data. */
    digest_list_take_zeros(other, BLOCK, BLOCK);
    bench.bytes[2 * BLOCK + 5] = 1;
    bench.bytes[5 * BLOCK] ^= 0x80;
    take(&bench, other, 2 * BLOCK, BLOCK);
    take(&bench, other, 5 * BLOCK, SIZE - 5 * BLOCK);
    check_range(bench.list, other, 0, BLOCK, 2 * BLOCK);
    check_range(other, bench.list, 3 * BLOCK, 5 * BLOCK, 777);
    assert_false(digest_list_differs(bench.list, other, 6 * BLOCK, &offset, &len));
    digest_list_free(other);
    bench_release(&bench);
}

/* An image of many terabytes that is nearly empty takes no memory to speak of: were digests to take some
 * for each block, this would need 8 GiB. */
static void test_much_nothing(void **state)
{
    uint64_t size = BLOCK * DIGEST_MAX_BLOCKS;
    struct digest_list *list = digest_list_new(size, BLOCK);
    struct digest_cursor cursor = {0};
    uint8_t piece[DIGEST_SIZE];

    (void)state;
    assert_non_null(list);
    digest_list_take_zeros(list, 0, size);
    assert_true(digest_list_complete(list));
    assert_int_equal(digest_list_next(list, &cursor, piece), 8);
    assert_int_equal(digest_list_next(list, &cursor, piece), 0);
    digest_list_free(list);
}

struct lane {
    pthread_t thread;
    struct bench *bench;
    unsigned number;
};

static void *lane_main(void *arg)
{
    const struct lane *lane = arg;
    struct digest *digest = digest_new(NULL);

    for (uint64_t i = lane->number; i < BLOCKS; i += 2)
        digest_list_take(lane->bench->list, digest, i * BLOCK, lane->bench->bytes + i * BLOCK,
                         min_u64(BLOCK, SIZE - i * BLOCK));
    digest_free(digest);
    return NULL;
}

/* For the thread sanitizer. */
static void test_two_lanes(void **state)
{
    uint8_t one[DIGEST_SIZE], two[DIGEST_SIZE];
    struct lane lanes[2];
    struct bench bench;

    (void)state;
    bench_init(&bench);
    for (unsigned i = 0; i < 2; i++) {
        lanes[i] = (struct lane){.bench = &bench, .number = i};
        assert_int_equal(pthread_create(&lanes[i].thread, NULL, lane_main, &lanes[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(lanes[i].thread, NULL);
    digest_list_root(bench.list, bench.digest, two);
    take(&bench, bench.list, 0, SIZE);
    digest_list_root(bench.list, bench.digest, one);
    assert_memory_equal(one, two, DIGEST_SIZE);
    bench_release(&bench);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),       cmocka_unit_test(test_marks),
        cmocka_unit_test(test_root),        cmocka_unit_test(test_root_is_as_documented),
        cmocka_unit_test(test_differences), cmocka_unit_test(test_much_nothing),
        cmocka_unit_test(test_two_lanes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
