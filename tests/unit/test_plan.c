/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include <lunferry/units.h>

#include "src/copy/plan.h"

#define GRANULE (256 * KIB)

static const struct {
    uint64_t size;
    unsigned lanes;
} disks[] = {
    {1, 1},   {GRANULE, 1},   {GRANULE + 1, 1},        {10 * MIB + 17, 1}, {10 * MIB + 17, 3},
    {GIB, 1}, {GIB + 512, 4}, {5000 * GIB - 4096, 64},
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* All of the disk, in the order of its offsets, in whole granules. */
static void check_plan(uint64_t size, uint64_t granule, unsigned lanes)
{
    struct plan plan;
    uint64_t from, to, next = 0, count = 0;

    plan_init(&plan, 0, size, granule, lanes);
    while (plan_take(&plan, &from, &to)) {
        assert_int_equal(from, next);
        assert_int_equal(from % granule, 0);
        assert_true(to > from && to <= size);
        assert_true(to % granule == 0 || to == size);
        next = to;
        count++;
    }
    assert_int_equal(next, size);
    assert_false(plan_take(&plan, &from, &to));
    /* Enough of them that no lane goes without work, where the disk has as many granules. */
    if (size / granule >= lanes)
        assert_true(count >= lanes);
}

static void test_covers_the_disk(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(disks); i++) {
        check_plan(disks[i].size, GRANULE, disks[i].lanes);
        check_plan(disks[i].size, 4 * MIB, disks[i].lanes);
    }
}

static void test_near_the_largest_size(void **state)
{
    const uint64_t size = INT64_MAX, granule = UINT64_C(1) << 43;
    struct plan plan;
    uint64_t from, to, next = 0;

    (void)state;
    plan_init(&plan, 0, size, granule, 64);
    while (plan_take(&plan, &from, &to)) {
        assert_int_equal(from, next);
        next = to;
    }
    assert_int_equal(next, size);
}

/* ---- Threads ---------------------------------------------------------------------------------- */

#define THREADS  8
#define GRANULES 20000

struct taker {
    struct plan *plan;
    unsigned char
        *taken; /* a byte for each granule; each is written by one thread, or the test fails */
    pthread_barrier_t *start;
    pthread_t thread;
    bool ascending;
};

static void *take(void *arg)
{
    struct taker *taker = arg;
    uint64_t from, to, last = 0;

    taker->ascending = true;
    pthread_barrier_wait(taker->start);
    while (plan_take(taker->plan, &from, &to)) {
        taker->ascending = taker->ascending && from >= last;
        last = to;
        for (uint64_t granule = from / GRANULE; granule < (to + GRANULE - 1) / GRANULE; granule++)
            taker->taken[granule]++;
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct taker takers[THREADS];
    unsigned char *taken = calloc(1, GRANULES);
    pthread_barrier_t start;
    struct plan plan;

    (void)state;
    assert_non_null(taken);
    /* As if for very many lanes: segments of one granule, so that they meet often. */
    plan_init(&plan, 0, GRANULES * GRANULE - 5, GRANULE, 1000000);
    pthread_barrier_init(&start, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        takers[i] = (struct taker){.plan = &plan, .taken = taken, .start = &start};
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take, &takers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(takers[i].thread, NULL);
        assert_true(takers[i].ascending);
    }
    for (unsigned i = 0; i < GRANULES; i++)
        assert_int_equal(taken[i], 1);
    pthread_barrier_destroy(&start);
    free(taken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_covers_the_disk),
        cmocka_unit_test(test_near_the_largest_size),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
