/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is repeated, when, and for how long: the table and the clock. */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- The table -------------------------------------------------------------------------------- */

static void test_fatal(void **state)
{
    static const enum blk_retry kinds[] = {BLK_FATAL, BLK_MEDIUM};

    (void)state;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        struct bench bench;

        bench_init(&bench, GIVE_UP);
        bench_begin(&bench);
        assert_false(bench_answer(&bench, 0, kinds[i]));
        retry_end(&bench.retry);
        bench_check_log(&bench, "");
        bench_release(&bench);
    }
}

/* Delays of an item that fails again and again: half of it is left to chance. */
static void check_delays(enum blk_retry kind, unsigned free, uint64_t first, uint64_t cap)
{
    struct bench bench;

    bench_init(&bench, LOOP_NEVER);
    bench_begin(&bench);
    for (unsigned i = 0; i < free + 12; i++) {
        uint64_t delay = 0, ms;

        if (i >= free)
            delay = min_u64(first << (i - free), cap);
        assert_true(bench_answer(&bench, 0, kind));
        ms = bench_wait(&bench);
        assert_string_equal(bench.log, "again 0\n");
        assert_in_range(ms, delay / 2 / MS, delay / MS);
        if (delay > 0)
            assert_true(ms > 0);
    }
    bench_succeed(&bench);
    bench_release(&bench);
}

static void test_delays(void **state)
{
    (void)state;
    check_delays(BLK_AGAIN, 8, 50 * MS, 5 * SECOND);
    check_delays(BLK_REPEAT, 0, 50 * MS, 5 * SECOND);
}

/* The doubling stops before it overflows. */
static void test_many_tries(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, LOOP_NEVER);
    bench_begin(&bench);
    for (unsigned i = 0; i < 200; i++) {
        assert_true(bench_answer(&bench, 0, BLK_REPEAT));
        bench_pass(&bench, 5 * SECOND);
        assert_int_equal(bench.retry.kept_count, 0);
    }
    bench_succeed(&bench);
    bench_release(&bench);
}

/* Chance: not always the same, and all over the half that is left to it. */
static void test_jitter(void **state)
{
    uint64_t least = UINT64_MAX, most = 0;

    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        struct bench bench;
        uint64_t before;

        bench_init(&bench, LOOP_NEVER);
        bench_pass(&bench, i * 7919);
        bench.items[0].tries = 30;
        bench_begin(&bench);
        before = loop_now(bench.loop);
        assert_true(bench_answer(&bench, 0, BLK_REPEAT));
        assert_in_range(bench.items[0].due - before, 2500 * MS, 5000 * MS);
        least = min_u64(least, bench.items[0].due - before);
        if (bench.items[0].due - before > most)
            most = bench.items[0].due - before;
        bench_pass(&bench, 5 * SECOND);
        bench_succeed(&bench);
        bench_release(&bench);
    }
    assert_true(least < 2600 * MS && most > 4900 * MS);
}

/* In the order in which they are due, and those in the order in which they came. */
static void test_order(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    for (unsigned i = 0; i < 4; i++)
        bench_begin(&bench);
    bench.items[0].tries = 6; /* seconds */
    assert_true(bench_answer(&bench, 0, BLK_REPEAT));
    assert_true(bench_answer(&bench, 1, BLK_AGAIN));
    assert_true(bench_answer(&bench, 2, BLK_REPEAT));
    assert_true(bench_answer(&bench, 3, BLK_AGAIN));
    bench_check_log(&bench,
                    "REPEATED no\nREPEATED no\nREPEATED no\nREPEATED no\nagain 1\nagain 3\n");
    bench_pass(&bench, 50 * MS);
    bench_check_log(&bench, "again 2\n");
    /* The list is whole after its last was taken. */
    assert_true(bench_answer(&bench, 1, BLK_AGAIN));
    bench_check_log(&bench, "REPEATED no\nagain 1\n");
    bench_pass(&bench, 5 * SECOND);
    bench_check_log(&bench, "again 0\n");
    for (unsigned i = 0; i < 4; i++)
        bench_succeed(&bench);
    bench_release(&bench);
}

/* ---- Giving up -------------------------------------------------------------------------------- */

static void test_nothing_is_repeated(void **state)
{
    struct bench bench;

    (void)state;
    for (int without = 0; without < 2; without++) {
        bench_init(&bench, 0);
        if (without)
            bench.retry.settings = NULL;
        for (int kind = BLK_AGAIN; kind <= BLK_LOST; kind++) {
            bench_begin(&bench);
            assert_false(bench_answer(&bench, 0, (enum blk_retry)kind));
            retry_end(&bench.retry);
        }
        /* And nobody is told that something takes long. */
        bench_begin(&bench);
        bench_pass(&bench, 3600 * SECOND);
        bench_succeed(&bench);
        bench_check_log(&bench, "");
        bench_release(&bench);
    }
}

/* Without progress for so long; an answer that is no success is no progress. */
static void test_give_up(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, 30 * SECOND);
    bench_begin(&bench);
    bench_begin(&bench);
    bench_pass(&bench, 10 * SECOND);
    bench_succeed(&bench); /* the 30 s begin here */
    bench_begin(&bench);
    bench_pass(&bench, 25 * SECOND);
    assert_true(bench_answer(&bench, 0, BLK_REPEAT));
    bench_check_log(&bench, "REPEATED no\n");
    bench_pass(&bench, SECOND);
    bench_check_log(&bench, "again 0\n");
    bench_pass(&bench, 2 * SECOND);
    bench.items[0].tries = 30; /* a delay of 2.5 s at least: too late, but kept */
    assert_true(bench_answer(&bench, 0, BLK_REPEAT));
    bench_check_log(&bench, "REPEATED no\n");
    bench_pass(&bench, 2 * SECOND - 1);
    bench_check_log(&bench, "");
    bench_pass(&bench, 1);
    bench_check_log(&bench, "drop 0: given up after 30 s without progress: no\nsettled\n");
    assert_int_equal(bench.retry.state, RETRY_GONE);
    assert_int_equal(bench.retry.error.code, ETIMEDOUT);
    assert_int_equal(bench.retry.error.retry, BLK_FATAL);
    /* What comes back now is final. */
    assert_false(bench_answer(&bench, 1, BLK_AGAIN));
    retry_end(&bench.retry);
    bench_pass(&bench, 3600 * SECOND);
    bench_check_log(&bench, "");
    bench_release(&bench);
}

/* With an answer that never comes. */
static void test_give_up_in_silence(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, 30 * SECOND);
    bench_pass(&bench, 100 * SECOND); /* nobody waits for anything */
    bench_begin(&bench);
    bench_pass(&bench, 30 * SECOND - 1);
    bench_check_log(&bench, "");
    bench_pass(&bench, 1);
    bench_check_log(&bench, "settled\n");
    assert_string_equal(bench.retry.error.text, "given up after 30 s without progress: the server "
                                                "answers pings, but not what it was asked");
    retry_answered(&bench.retry, false);
    retry_end(&bench.retry);
    bench_release(&bench);
}

static void test_never_gives_up(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, LOOP_NEVER);
    bench.settings.timeout = LOOP_NEVER;
    bench_pass(&bench, 7);
    bench_begin(&bench);
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(bench_answer(&bench, 0, BLK_REPEAT));
        bench_pass(&bench, 3600 * SECOND);
        assert_int_equal(bench.retry.kept_count, 0);
    }
    bench_succeed(&bench);
    bench_release(&bench);
}

/* ---- Waiting ---------------------------------------------------------------------------------- */

static void test_waiting(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    bench_begin(&bench);
    bench_begin(&bench);
    bench_pass(&bench, TIMEOUT - 1);
    bench_check_log(&bench, "");
    bench_pass(&bench, 1);
    bench_check_log(&bench,
                    "WAITING nothing has moved for 1:00, though the server answers pings\n");
    bench_pass(&bench, 5 * TIMEOUT); /* once only */
    bench_check_log(&bench, "");
    /* Once for each silence. */
    bench_succeed(&bench);
    bench_pass(&bench, TIMEOUT - 1);
    bench_check_log(&bench, "");
    bench_pass(&bench, 1);
    bench_check_log(&bench,
                    "WAITING nothing has moved for 1:00, though the server answers pings\n");
    bench_succeed(&bench);
    /* Idleness is no silence. */
    bench_pass(&bench, 10 * TIMEOUT);
    bench_begin(&bench);
    bench_pass(&bench, TIMEOUT - 1);
    bench_check_log(&bench, "");
    bench_pass(&bench, 1);
    bench_check_log(&bench,
                    "WAITING nothing has moved for 1:00, though the server answers pings\n");
    bench_succeed(&bench);
    bench_release(&bench);
}

/* What is repeated, in vain, says why. */
static void test_waiting_for_what(void **state)
{
    struct bench bench;
    char *at;

    (void)state;
    bench_init(&bench, GIVE_UP);
    bench_begin(&bench);
    for (unsigned i = 0; i < 40; i++) {
        if (bench.retry.kept_count == 0)
            assert_true(bench_answer(&bench, 0, BLK_REPEAT));
        bench_pass(&bench, 5 * SECOND);
    }
    at = strstr(bench.log, "WAITING");
    assert_non_null(at);
    assert_null(strstr(at + 1, "WAITING"));
    bench_pass(&bench, 5 * SECOND);
    bench_succeed(&bench);
    bench.log[0] = '\0';
    bench_begin(&bench);
    bench.items[0].tries = 30;
    bench_pass(&bench, TIMEOUT - SECOND);
    assert_true(bench_answer(&bench, 0, BLK_REPEAT));
    bench_pass(&bench, SECOND);
    bench_check_log(&bench, "REPEATED no\nWAITING nothing has moved for 1:00: no\n");
    bench_pass(&bench, 5 * SECOND);
    bench_check_log(&bench, "again 0\n");
    bench_succeed(&bench);
    bench_release(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fatal),
        cmocka_unit_test(test_delays),
        cmocka_unit_test(test_many_tries),
        cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_nothing_is_repeated),
        cmocka_unit_test(test_give_up),
        cmocka_unit_test(test_give_up_in_silence),
        cmocka_unit_test(test_never_gives_up),
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_waiting_for_what),
    };

    return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
