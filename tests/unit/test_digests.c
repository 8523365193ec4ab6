/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <lunferry/block.h>
#include <lunferry/units.h>

#include "src/copy/digests.h"

#define BLOCK   ((uint64_t)DIGESTS_BLOCK)
#define GRANULE (4 * BLOCK)
#define SIZE    (2 * GRANULE + BLOCK + 777) /* three granules, the last of a block and a tail */

struct bench {
    struct digests *digests;
    struct digest *digest;
    unsigned char *bytes;
    /* differs() calls */
    unsigned calls;
    uint64_t offset; /* the last one's */
    bool again;
};

static void bench_init(struct bench *bench)
{
    *bench = (struct bench){
        .digests = digests_new(SIZE, GRANULE), .digest = digest_new(NULL), .bytes = malloc(SIZE)};
    assert_non_null(bench->digests);
    assert_non_null(bench->digest);
    assert_non_null(bench->bytes);
    for (uint64_t i = 0; i < SIZE; i++)
        bench->bytes[i] = (unsigned char)(i * 2654435761u >> 13);
}

static void bench_release(struct bench *bench)
{
    digests_free(bench->digests);
    digest_free(bench->digest);
    free(bench->bytes);
}

static void differs(void *opaque, uint64_t offset, bool again)
{
    struct bench *bench = opaque;

    bench->calls++;
    bench->offset = offset;
    bench->again = again;
}

static void take(struct bench *bench, uint64_t offset, uint64_t len)
{
    digests_take(bench->digests, bench->digest, offset, bench->bytes + offset, len);
}

static void check(struct bench *bench, uint64_t offset, uint64_t len)
{
    digests_check(bench->digests, bench->digest, offset, bench->bytes + offset, len, differs,
                  bench);
}

static void take_all(struct bench *bench)
{
    for (uint64_t at = 0; at < SIZE; at += BLOCK)
        take(bench, at, min_u64(BLOCK, SIZE - at));
}

/* Chunks smaller and larger than a granule, in any order. */
static void test_same(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    take(&bench, 2 * GRANULE, BLOCK + 777);
    take(&bench, BLOCK, 2 * BLOCK);
    take(&bench, 0, BLOCK);
    take(&bench, 3 * BLOCK, GRANULE + BLOCK); /* crosses a border */
    check(&bench, 2 * GRANULE + BLOCK, 777);
    check(&bench, GRANULE, GRANULE + BLOCK);
    for (uint64_t at = GRANULE; at > 0; at -= BLOCK)
        check(&bench, at - BLOCK, BLOCK);
    assert_int_equal(bench.calls, 0);
    bench_release(&bench);
}

/* Each byte that is another one is found, and where. */
static void test_one_byte(void **state)
{
    static const uint64_t places[] = {0,       BLOCK - 1,   BLOCK,    GRANULE - 1,
                                      GRANULE, 2 * GRANULE, SIZE - 1, SIZE - 777};

    (void)state;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct bench bench;

        bench_init(&bench);
        take_all(&bench);
        bench.bytes[places[i]] ^= 1;
        check(&bench, 0, SIZE);
        assert_int_equal(bench.calls, 1);
        assert_int_equal(bench.offset, places[i] / GRANULE * GRANULE);
        assert_false(bench.again);
        /* Once more, and once more: from then on it was so before. */
        check(&bench, 0, SIZE);
        assert_int_equal(bench.calls, 2);
        assert_true(bench.again);
        /* A look at what is right again starts from nothing. */
        bench.bytes[places[i]] ^= 1;
        check(&bench, 0, SIZE);
        assert_int_equal(bench.calls, 2);
        bench_release(&bench);
    }
}

/* Only a granule that is complete is judged. */
static void test_complete(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    take_all(&bench);
    memset(bench.bytes, 0, SIZE);
    check(&bench, 0, BLOCK);
    check(&bench, 2 * BLOCK, 2 * BLOCK);
    assert_int_equal(bench.calls, 0);
    check(&bench, BLOCK, BLOCK);
    assert_int_equal(bench.calls, 1);
    check(&bench, 2 * GRANULE, BLOCK);
    assert_int_equal(bench.calls, 1);
    check(&bench, 2 * GRANULE + BLOCK, 777);
    assert_int_equal(bench.calls, 2);
    assert_int_equal(bench.offset, 2 * GRANULE);
    bench_release(&bench);
}

/* Blocks that have changed places, within a granule and between two. */
static void test_places(void **state)
{
    static const uint64_t others[] = {3 * BLOCK, GRANULE + BLOCK};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bench bench;
        unsigned char *block = malloc(BLOCK);

        assert_non_null(block);
        bench_init(&bench);
        take_all(&bench);
        memcpy(block, bench.bytes, BLOCK);
        memcpy(bench.bytes, bench.bytes + others[i], BLOCK);
        memcpy(bench.bytes + others[i], block, BLOCK);
        check(&bench, 0, SIZE);
        assert_int_equal(bench.calls, 1 + i);
        bench_release(&bench);
        free(block);
    }
}

/* Equal blocks do not cancel each other out, nor do zeros pass for nothing. */
static void test_zeros(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    memset(bench.bytes, 0, SIZE);
    take_all(&bench);
    bench.bytes[5] = bench.bytes[BLOCK + 5] = 1;
    check(&bench, 0, SIZE);
    assert_int_equal(bench.calls, 1);
    bench_release(&bench);
}

static void test_known_and_forgotten(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    assert_false(digests_known(bench.digests, 0, BLOCK));
    take(&bench, 0, GRANULE - BLOCK);
    assert_false(digests_known(bench.digests, 0, BLOCK));
    take(&bench, GRANULE - BLOCK, BLOCK);
    assert_true(digests_known(bench.digests, 0, BLOCK));
    assert_true(digests_known(bench.digests, 3 * BLOCK, BLOCK));
    assert_false(digests_known(bench.digests, 3 * BLOCK, BLOCK + 1));
    assert_false(digests_known(bench.digests, GRANULE, BLOCK));
    take(&bench, GRANULE, SIZE - GRANULE);
    assert_true(digests_known(bench.digests, 0, SIZE));
    /* The one in the middle is copied again, from a source that has changed there. */
    digests_forget(bench.digests, GRANULE, GRANULE);
    assert_true(digests_known(bench.digests, 0, GRANULE));
    assert_false(digests_known(bench.digests, 0, GRANULE + 1));
    assert_false(digests_known(bench.digests, 2 * GRANULE - 1, 1));
    assert_true(digests_known(bench.digests, 2 * GRANULE, BLOCK + 777));
    bench.bytes[GRANULE + 9] ^= 64;
    take(&bench, GRANULE, GRANULE);
    check(&bench, 0, SIZE);
    assert_int_equal(bench.calls, 0);
    /* To the image's end. */
    digests_forget(bench.digests, GRANULE, SIZE - GRANULE);
    assert_false(digests_known(bench.digests, SIZE - 1, 1));
    assert_true(digests_known(bench.digests, 0, GRANULE));
    bench_release(&bench);
}

/* A granule that has been copied again is looked at afresh; but that it once differed stays. */
static void test_mended(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    take_all(&bench);
    bench.bytes[GRANULE] ^= 1;
    check(&bench, GRANULE, GRANULE);
    assert_int_equal(bench.calls, 1);
    bench.bytes[GRANULE] ^= 1;
    digests_forget(bench.digests, GRANULE, GRANULE);
    take(&bench, GRANULE, GRANULE);
    check(&bench, GRANULE, GRANULE);
    assert_int_equal(bench.calls, 1);
    bench.bytes[GRANULE] ^= 1;
    check(&bench, GRANULE, GRANULE);
    assert_int_equal(bench.calls, 2);
    assert_true(bench.again);
    bench_release(&bench);
}

/* How long it is turns out when all but the last was taken. */
static void test_open_end(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    digests_free(bench.digests);
    bench.digests = digests_new(BLK_SIZE_UNKNOWN, GRANULE);
    assert_non_null(bench.digests);
    for (uint64_t at = 0; at < SIZE; at += BLOCK) {
        uint64_t len = SIZE - at < BLOCK ? SIZE - at : BLOCK;

        assert_true(digests_reach(bench.digests, at + len));
        take(&bench, at, len);
    }
    assert_false(digests_known(bench.digests, 2 * GRANULE, BLOCK));
    digests_end(bench.digests, SIZE);
    assert_true(digests_known(bench.digests, 0, SIZE));
    bench.bytes[2 * GRANULE + BLOCK + 5] ^= 1;
    check(&bench, 0, 2 * GRANULE);
    assert_int_equal(bench.calls, 0);
    check(&bench, 2 * GRANULE, SIZE - 2 * GRANULE);
    assert_int_equal(bench.calls, 1);
    assert_int_equal(bench.offset, 2 * GRANULE);
    bench_release(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),     cmocka_unit_test(test_one_byte),
        cmocka_unit_test(test_complete), cmocka_unit_test(test_places),
        cmocka_unit_test(test_zeros),    cmocka_unit_test(test_known_and_forgotten),
        cmocka_unit_test(test_mended),   cmocka_unit_test(test_open_end),
    };

    return cmocka_run_group_tests_name("digests", tests, NULL, NULL);
}
