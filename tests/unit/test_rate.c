/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/rate.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define STEPS        3000
#define DAYS         (UINT64_C(86400) * LOOP_SECOND)

/* When each of a run's takes started, and the bytes before it. */
struct trace {
    uint64_t at[STEPS], before[STEPS];
    uint64_t largest; /* of the takes */
    unsigned count;
};

static void add(struct trace *trace, uint64_t at, uint64_t bytes)
{
    assert_in_range(trace->count, 0, STEPS - 1);
    trace->at[trace->count] = at;
    if (bytes > trace->largest)
        trace->largest = bytes;
    if (trace->count + 1 < STEPS)
        trace->before[trace->count + 1] = trace->before[trace->count] + bytes;
    trace->count++;
}

static const struct {
    uint64_t rate, take;
} loads[] = {
    {KIB, 1},
    {KIB, KIB},
    {KIB, 512 * KIB},
    {MIB, 4096},
    {100 * MIB, KIB},
    {200 * MIB, 16 * MIB},
    {GIB, 512 * KIB},
    {100 * GIB, 1},
    {100 * GIB, KIB},
    {100 * GIB, 512 * KIB},
    {100 * GIB, 16 * MIB},
    {999999937, 4097},
};

/*
 * No window has more than its worth, `slack` and one take; and none that is long enough for these to
 * be less than a percent has less than 99 percent of it. Slack: the burst, where somebody is late.
 */
static void check_windows(const struct trace *trace, const struct rate *rate, uint64_t slack)
{
    unsigned stride = trace->count > 300 ? trace->count / 300 : 1;
    double per_ns = (double)rate->bytes_per_second / 1e9;
    double more = (double)slack + (double)trace->largest + per_ns; /* times are whole ns */

    for (unsigned i = 0; i < trace->count; i += stride) {
        for (unsigned j = i + 1; j < trace->count; j++) {
            double bytes = (double)(trace->before[j] - trace->before[i]);
            double worth = (double)(trace->at[j] - trace->at[i]) * per_ns;

            assert_true(bytes <= worth + more);
            if (worth > 100 * more) {
                assert_true(bytes > 0.99 * worth);
                assert_true(bytes < 1.01 * worth);
            }
        }
    }
}

/* One taker who starts as soon as he may. */
static void test_the_average_is_right_in_every_window(void **state)
{
    static const uint64_t beginnings[] = {0, 1, 12345678901, 10000 * DAYS};
    static struct trace trace;
    struct rate rate;

    (void)state;
    for (size_t i = 0; i < COUNT(loads); i++) {
        for (size_t b = 0; b < COUNT(beginnings); b++) {
            uint64_t now = beginnings[b], end;

            rate_init(&rate, loads[i].rate);
            memset(&trace, 0, sizeof(trace));
            for (unsigned step = 0; step < STEPS; step++) {
                now = rate_take(&rate, now, loads[i].take);
                add(&trace, now, loads[i].take);
            }
            check_windows(&trace, &rate, 0);
            /* To the nanosecond: nothing was lost to rounding on the way. */
            end = beginnings[b] + (uint64_t)((long double)(STEPS - 1) * (long double)loads[i].take *
                                             1e9L / (long double)loads[i].rate);
            assert_in_range(now, end, end + 1);
        }
    }
}

/* Timers fire late by up to a few milliseconds; the burst makes up for it. */
static void test_late_timers_do_not_slow_down(void **state)
{
    static struct trace trace;
    struct rate rate;
    uint64_t now = 0;
    uint32_t random = 1;

    (void)state;
    memset(&trace, 0, sizeof(trace));
    rate_init(&rate, 200 * MIB);
    for (unsigned step = 0; step < STEPS; step++) {
        uint64_t at = rate_take(&rate, now, 512 * KIB);

        if (at > now) {
            random = random * 1664525 + 1013904223;
            now = at + random % (4 * LOOP_MSECOND);
        }
        add(&trace, now, 512 * KIB);
    }
    check_windows(&trace, &rate, rate.burst);
    assert_true(trace.before[STEPS - 1] > 100 * rate.burst); /* such windows were there */
}

/* What may start at once after a stall is the burst and a take, however long it was. */
static void test_a_stall_is_not_made_up_for(void **state)
{
    static const uint64_t stalls[] = {LOOP_SECOND / 10, LOOP_SECOND, 3600 * LOOP_SECOND,
                                      1000 * DAYS};
    struct rate rate;

    (void)state;
    for (size_t i = 0; i < COUNT(loads); i++) {
        for (size_t s = 0; s < COUNT(stalls); s++) {
            uint64_t now = 7, take = loads[i].rate / 1000 + 1, at_once = 0;

            rate_init(&rate, loads[i].rate);
            for (unsigned step = 0; step < 100; step++)
                now = rate_take(&rate, now, take);
            now += stalls[s];
            while (rate_take(&rate, now, take) == now)
                at_once += take;
            assert_in_range(at_once, loads[i].rate / 20 - 1, loads[i].rate / 20 + 2 * take);
        }
    }
}

static void test_nothing_but_the_first_take_starts_at_once(void **state)
{
    struct rate rate;

    (void)state;
    rate_init(&rate, MIB);
    assert_int_equal(rate_take(&rate, 5, MIB), 5);
    assert_int_equal(rate_take(&rate, 5, MIB / 2), 5 + LOOP_SECOND);
    assert_int_equal(rate_take(&rate, 5, 1), 5 + LOOP_SECOND * 3 / 2);
}

/* Two lanes, each of which waits for its own takes: each gets half, whatever their clocks. */
static void test_two_takers_share(void **state)
{
    static struct trace both;
    struct rate rate;
    uint64_t clock[2] = {1000, 1000}, bytes[2] = {0, 0};

    (void)state;
    memset(&both, 0, sizeof(both));
    rate_init(&rate, 50 * MIB);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned who = clock[1] < clock[0];

        clock[who] = rate_take(&rate, clock[who], 64 * KIB);
        add(&both, clock[who], 64 * KIB);
        bytes[who] += 64 * KIB;
    }
    assert_in_range(bytes[0] + KIB * 128 - bytes[1], 0, KIB * 256);
    check_windows(&both, &rate, 0);
}

/* A clock that is behind the one of the first take is no way around the limit, nor an underflow. */
static void test_clocks_that_differ(void **state)
{
    struct rate rate;

    (void)state;
    rate_init(&rate, MIB);
    assert_int_equal(rate_take(&rate, 2 * LOOP_SECOND, MIB), 2 * LOOP_SECOND);
    assert_int_equal(rate_take(&rate, LOOP_SECOND, MIB), 3 * LOOP_SECOND);
}

static void test_no_limit(void **state)
{
    struct rate rate;

    (void)state;
    rate_init(&rate, 0);
    for (unsigned step = 0; step < 10; step++)
        assert_int_equal(rate_take(&rate, 42, UINT64_C(1) << 62), 42);
}

static void test_extremes_do_not_overflow(void **state)
{
    struct rate rate;
    uint64_t last = 0;

    (void)state;
    rate_init(&rate, 1);
    assert_int_equal(rate_take(&rate, 1, UINT64_C(1) << 62), 1);
    assert_int_equal(rate_take(&rate, 1, 1), UINT64_MAX);
    rate_init(&rate, UINT64_MAX);
    for (uint64_t now = 0; now < 100 * DAYS; now += DAYS) {
        uint64_t at = rate_take(&rate, now, MIB);

        assert_true(at >= now && at >= last);
        last = at;
    }
}

#define THREADS 4
#define TAKES   20000

static void *hammer(void *arg)
{
    for (unsigned i = 0; i < TAKES; i++)
        rate_take(arg, 1, 3);
    return NULL;
}

/* No take is lost where lanes meet. */
static void test_threads(void **state)
{
    pthread_t threads[THREADS];
    struct rate rate;

    (void)state;
    rate_init(&rate, 1000);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &rate), 0);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(rate_take(&rate, 1, 1), 1 + THREADS * TAKES * 3 * LOOP_MSECOND);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_average_is_right_in_every_window),
        cmocka_unit_test(test_late_timers_do_not_slow_down),
        cmocka_unit_test(test_a_stall_is_not_made_up_for),
        cmocka_unit_test(test_nothing_but_the_first_take_starts_at_once),
        cmocka_unit_test(test_two_takers_share),
        cmocka_unit_test(test_clocks_that_differ),
        cmocka_unit_test(test_no_limit),
        cmocka_unit_test(test_extremes_do_not_overflow),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
