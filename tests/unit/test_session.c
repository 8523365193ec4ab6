/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lost sessions: when one is built anew, how what was kept comes back, and how all of that ends. */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

/* ---- Lost sessions ---------------------------------------------------------------------------- */

static void test_loss(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    for (unsigned i = 0; i < 3; i++)
        bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    assert_int_equal(bench.retry.state, RETRY_DRAINING);
    assert_false(retry_is_open(&bench.retry));
    assert_true(bench_answer(&bench, 1, BLK_LOST));
    bench_check_log(&bench, "REPEATED no\nAWAY no\nREPEATED no\n");
    bench_succeed(&bench); /* the last; that one was still answered */
    assert_int_equal(bench.retry.state, RETRY_PAUSING);
    bench_check_log(&bench, "recover\n"); /* at once */
    assert_int_equal(bench.retry.state, RETRY_RECOVERING);
    /* Something new waits with the others. */
    retry_begin(&bench.retry);
    retry_wait(&bench.retry, &bench.items[2]);
    bench_pass(&bench, 2500 * MS);
    bench_check_log(&bench, "");
    retry_recovered(&bench.retry, 0, NULL);
    assert_string_equal(bench.log, ""); /* from the loop only */
    bench_check_log(&bench, "BACK 2.50 s\nsettled\nagain 0\nagain 1\nagain 2\n");
    for (unsigned i = 0; i < 3; i++)
        bench_succeed(&bench);
    /* The next loss is told anew. */
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    bench_check_log(&bench, "REPEATED no\nAWAY no\nrecover\n");
    retry_recovered(&bench.retry, 0, NULL);
    bench_check_log(&bench, "BACK 0.00 s\nsettled\nagain 0\n");
    bench_succeed(&bench);
    bench_release(&bench);
}

/* A silence in which it was away has been told of; the next begins when it is back. */
static void test_away_for_long(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    bench_check_log(&bench, "REPEATED no\nAWAY no\nrecover\n");
    bench_pass(&bench, 3 * TIMEOUT);
    bench_check_log(&bench, "");
    retry_recovered(&bench.retry, 0, NULL);
    bench_check_log(&bench, "BACK 180.00 s\nsettled\nagain 0\n");
    bench_pass(&bench, TIMEOUT - 1);
    bench_check_log(&bench, "");
    bench_pass(&bench, 1);
    bench_check_log(&bench,
                    "WAITING nothing has moved for 4:00, though the server answers pings\n");
    bench_succeed(&bench);
    bench_release(&bench);
}

/* At once, then after 100 ms, which doubles, up to 5 s. */
static void test_attempts(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, LOOP_NEVER);
    bench.settings.timeout = LOOP_NEVER;
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    assert_int_equal(bench_wait(&bench), 0);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t delay = min_u64((100 * MS) << i, 5 * SECOND), ms;

        bench_recovered(&bench, BLK_LOST);
        ms = bench_wait(&bench);
        assert_string_equal(bench.log, "recover\n"); /* not away once more */
        assert_in_range(ms, delay / 2 / MS + 1, delay / MS);
    }
    /* A session that dies at once has not been progress. */
    retry_recovered(&bench.retry, 0, NULL);
    bench_pass(&bench, 0);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    assert_in_range(bench_wait(&bench), 2500, 5000);
    retry_recovered(&bench.retry, 0, NULL);
    bench_pass(&bench, 0);
    bench_succeed(&bench);
    /* That was. */
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    assert_int_equal(bench_wait(&bench), 0);
    retry_recovered(&bench.retry, 0, NULL);
    bench_pass(&bench, 0);
    bench_succeed(&bench);
    bench_release(&bench);
}

/* While it is away the notice of a silence has nothing to add. */
static void test_give_up_while_away(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, 300 * SECOND);
    bench_begin(&bench);
    bench_pass(&bench, SECOND);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    bench_check_log(&bench, "REPEATED no\nAWAY no\nrecover\n");
    bench_pass(&bench, 299 * SECOND - 1);
    bench_check_log(&bench, "");
    bench_pass(&bench, 1);
    bench_check_log(&bench, "drop 0: given up after 5:00 without progress: no\nsettled\n");
    assert_int_equal(bench.retry.state, RETRY_GONE);
    /* What is looked for is cancelled, and nobody minds what comes of it. */
    retry_recovered(&bench.retry, -ECANCELED, NULL);
    bench_check_log(&bench, "settled\n");
    bench_release(&bench);
}

/* However many attempts are made meanwhile. */
static void test_give_up_between_attempts(void **state)
{
    struct bench bench;
    uint64_t begun;

    (void)state;
    bench_init(&bench, 300 * SECOND);
    begun = loop_now(bench.loop);
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    while (bench.retry.state != RETRY_GONE) {
        if (bench.retry.looking)
            bench_recovered(&bench, BLK_LOST);
        bench_pass(&bench, 10 * MS);
    }
    assert_in_range(loop_now(bench.loop) - begun, 300 * SECOND, 300 * SECOND + 20 * MS);
    assert_string_equal(bench.retry.error.text, "given up after 5:00 without progress: not it");
    bench_release(&bench);
}

static void test_another_thing(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, LOOP_NEVER);
    bench_begin(&bench);
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    assert_true(bench_answer(&bench, 1, BLK_LOST));
    bench_check_log(&bench, "REPEATED no\nAWAY no\nREPEATED no\nrecover\n");
    bench_recovered(&bench, BLK_FATAL);
    bench_check_log(&bench, "drop 0: not it\ndrop 1: not it\nsettled\n");
    assert_int_equal(bench.retry.state, RETRY_GONE);
    assert_int_equal(bench.retry.error.code, ESTALE);
    bench_release(&bench);
}

/* Its look comes before any repeating, but it is not away. */
static void test_recheck(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_RECHECK));
    bench_check_log(&bench, "REPEATED no\nrecover\n");
    bench_pass(&bench, SECOND);
    retry_recovered(&bench.retry, 0, NULL);
    bench_check_log(&bench, "settled\nagain 0\n");
    bench_succeed(&bench);
    /* It goes away while it is looked at. */
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_RECHECK));
    bench_check_log(&bench, "REPEATED no\nrecover\n");
    bench_recovered(&bench, BLK_LOST);
    bench_check_log(&bench, "AWAY not it\n");
    bench_pass(&bench, 100 * MS);
    bench_check_log(&bench, "recover\n");
    retry_recovered(&bench.retry, 0, NULL);
    bench_check_log(&bench, "BACK 0.10 s\nsettled\nagain 0\n");
    bench_succeed(&bench);
    /* A look that nobody's answer was the reason for. */
    retry_begin(&bench.retry);
    assert_true(retry_look(&bench.retry, NULL));
    bench_check_log(&bench, "recover\n");
    retry_recovered(&bench.retry, 0, NULL);
    bench_check_log(&bench, "settled\n");
    retry_end(&bench.retry);
    bench_release(&bench);
}

/* The tries of an item that is rechecked over and over: 8 are free. */
static void test_rechecks(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, LOOP_NEVER);
    bench_begin(&bench);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t now, delay = i < 8 ? 0 : (50 * MS) << (i - 8);

        bench.retry.attempts = 0;
        now = loop_now(bench.loop);
        assert_true(bench_answer(&bench, 0, BLK_RECHECK));
        assert_in_range(bench.items[0].due - now, delay / 2, delay);
        bench_pass(&bench, 0);
        assert_int_equal(bench.retry.state, RETRY_RECOVERING);
        retry_recovered(&bench.retry, 0, NULL);
        bench_pass(&bench, delay);
        assert_int_equal(bench.retry.kept_count, 0);
    }
    bench_succeed(&bench);
    bench_release(&bench);
}

/* A delayed item that becomes due while the session is away waits for that too. */
static void test_due_while_away(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    bench_begin(&bench);
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_REPEAT));
    assert_true(bench_answer(&bench, 1, BLK_LOST));
    bench_check_log(&bench, "REPEATED no\nREPEATED no\nAWAY no\nrecover\n");
    bench_pass(&bench, SECOND);
    bench_check_log(&bench, "");
    retry_recovered(&bench.retry, 0, NULL);
    bench_check_log(&bench, "BACK 1.00 s\nsettled\nagain 0\nagain 1\n");
    /* And one that is not due when it is back waits on. */
    bench.items[0].tries = 30;
    assert_true(bench_answer(&bench, 0, BLK_REPEAT));
    assert_true(bench_answer(&bench, 1, BLK_LOST));
    bench_check_log(&bench, "REPEATED no\nREPEATED no\nAWAY no\n");
    bench_pass(&bench, 100 * MS);
    bench_check_log(&bench, "recover\n");
    retry_recovered(&bench.retry, 0, NULL);
    bench_check_log(&bench, "BACK 0.10 s\nsettled\nagain 1\n");
    /* Two sessions have broken before anything was done: now it is one request at a time, until one
     * is done. */
    bench_pass(&bench, 5 * SECOND);
    bench_check_log(&bench, "");
    bench_succeed(&bench);
    bench_check_log(&bench, "again 0\n");
    bench_succeed(&bench);
    bench_release(&bench);
}

/* Nobody wants anything: no attempt is made until somebody does. */
static void test_idle_while_away(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    bench_begin(&bench);
    assert_true(bench_answer(&bench, 0, BLK_LOST));
    bench_check_log(&bench, "REPEATED no\nAWAY no\nrecover\n");
    bench_recovered(&bench, BLK_LOST);
    bench_pass(&bench, 0);
    retry_cancel(&bench.retry);
    bench_check_log(&bench, "drop 0\n");
    bench_pass(&bench, 10 * GIVE_UP);
    bench_check_log(&bench, "");
    retry_begin(&bench.retry);
    retry_wait(&bench.retry, &bench.items[1]);
    bench_check_log(&bench, "recover\n");
    retry_recovered(&bench.retry, 0, NULL);
    bench_pass(&bench, 0);
    bench_succeed(&bench);
    bench_release(&bench);
}

/* ---- The window ------------------------------------------------------------------------------- */

/* Loses the session under all items, and builds it anew. */
static void break_session(struct bench *bench, unsigned at_driver)
{
    for (unsigned i = 0; i < at_driver; i++)
        assert_true(bench_answer(bench, i, BLK_LOST));
    bench_pass(bench, 10 * SECOND);
    retry_recovered(&bench->retry, 0, NULL);
    bench->log[0] = '\0';
    bench_pass(bench, 0);
}

/* A session that broke before it had done anything is followed by one that begins with a single
 * thing, and takes twice as many with each that is done. */
static void test_window(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    for (unsigned i = 0; i < ITEMS; i++)
        bench_begin(&bench);
    break_session(&bench, ITEMS); /* the first session is not a new one: all come back at once */
    assert_int_equal(bench.retry.kept_count, 0);
    break_session(&bench, ITEMS);
    bench_check_log(&bench, "BACK 10.00 s\nsettled\nagain 0\n");
    assert_false(retry_is_open(&bench.retry));
    bench_succeed(&bench);
    bench_check_log(&bench, "again 1\nagain 2\n");
    bench_succeed(&bench);
    bench_check_log(&bench, "again 3\nagain 4\nagain 5\n");
    retry_begin(&bench.retry); /* what comes now waits as well */
    retry_wait(&bench.retry, &bench.items[0]);
    bench_succeed(&bench);
    bench_check_log(&bench, "again 6\nagain 7\nagain 0\n");
    /* One that has done something may break: the next takes all. */
    while (bench.retry.at_driver > 4)
        bench_succeed(&bench);
    break_session(&bench, 4);
    assert_int_equal(bench.retry.kept_count, 0);
    assert_int_equal(bench.retry.window, 0);
    for (unsigned i = 0; i < 4; i++)
        bench_succeed(&bench);
    bench_release(&bench);
}

/* It ends when it is wide enough. */
static void test_window_opens(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    bench_begin(&bench);
    break_session(&bench, 1);
    break_session(&bench, 1);
    for (unsigned i = 1; i <= 64; i *= 2) {
        assert_int_equal(bench.retry.window, i);
        bench_succeed(&bench);
        bench_begin(&bench);
    }
    assert_int_equal(bench.retry.window, 0);
    bench_succeed(&bench);
    bench_release(&bench);
}

/* What fails for good makes room as well. */
static void test_window_after_a_failure(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, GIVE_UP);
    for (unsigned i = 0; i < 3; i++)
        bench_begin(&bench);
    break_session(&bench, 3);
    break_session(&bench, 3);
    bench_check_log(&bench, "BACK 10.00 s\nsettled\nagain 0\n");
    assert_false(bench_answer(&bench, 0, BLK_FATAL));
    retry_end(&bench.retry);
    bench_check_log(&bench, "again 1\n");
    assert_true(bench_answer(&bench, 1, BLK_REPEAT));
    bench_check_log(&bench, "REPEATED no\nagain 2\n");
    bench_succeed(&bench);
    bench_pass(&bench, SECOND);
    bench_check_log(&bench, "again 1\n");
    bench_succeed(&bench);
    bench_release(&bench);
}

/* ---- Cancelling and hurrying ------------------------------------------------------------------ */

/* Brings item 0 into a state; item 1 is at the driver while it drains. */
static void bring(struct bench *bench, int to)
{
    bench_init(bench, GIVE_UP);
    bench_begin(bench);
    if (to == RETRY_DRAINING)
        bench_begin(bench);
    assert_true(bench_answer(bench, 0, to == RETRY_HERE ? BLK_REPEAT : BLK_LOST));
    if (to == RETRY_PAUSING || to == RETRY_RECOVERING)
        bench_pass(bench, 0);
    if (to == RETRY_PAUSING) {
        bench_recovered(bench, BLK_LOST);
        bench_pass(bench, 0);
    }
    assert_int_equal(bench->retry.state, to);
    bench->log[0] = '\0';
}

static void test_cancel(void **state)
{
    (void)state;
    for (int to = RETRY_HERE; to < RETRY_GONE; to++) {
        struct bench bench;

        bring(&bench, to);
        retry_cancel(&bench.retry);
        assert_string_equal(bench.log, "drop 0\n");
        bench.log[0] = '\0';
        if (to == RETRY_DRAINING) {
            retry_answered(&bench.retry, false);
            bench_check_log(&bench, ""); /* though item 1 has not been reported */
            retry_end(&bench.retry);
        }
        if (to == RETRY_RECOVERING) {
            retry_recovered(&bench.retry, -ECANCELED, NULL);
            bench_check_log(&bench, "settled\n");
        }
        bench_pass(&bench, 10 * GIVE_UP);
        bench_check_log(&bench, "");
        bench_release(&bench);
    }
}

/* What comes after that is served: a temporary file has to be removed. */
static void test_after_a_cancel(void **state)
{
    (void)state;
    for (int to = RETRY_DRAINING; to < RETRY_GONE; to++) {
        for (int late = 0; late < 2; late++) {
            struct bench bench;

            bring(&bench, to);
            retry_cancel(&bench.retry);
            if (!late) {
                retry_begin(&bench.retry);
                retry_wait(&bench.retry, &bench.items[2]);
            }
            if (to == RETRY_DRAINING) {
                retry_answered(&bench.retry, false);
                retry_end(&bench.retry);
            }
            if (to == RETRY_RECOVERING) {
                bench_recovered(&bench, BLK_LOST);
                bench_pass(&bench, 0);
            }
            if (late) {
                retry_begin(&bench.retry);
                retry_wait(&bench.retry, &bench.items[2]);
            }
            bench_pass(&bench, SECOND);
            assert_int_equal(bench.retry.state, RETRY_RECOVERING);
            bench.log[0] = '\0';
            retry_recovered(&bench.retry, 0, NULL);
            bench_pass(&bench, 0);
            assert_non_null(strstr(bench.log, "settled\nagain 2\n"));
            bench_succeed(&bench);
            bench_release(&bench);
        }
    }
}

/* The driver was faster than the cancel, with a failure. */
static void test_cancel_too_late(void **state)
{
    struct bench bench;

    (void)state;
    bring(&bench, RETRY_RECOVERING);
    bench_recovered(&bench, BLK_LOST);
    retry_cancel(&bench.retry);
    bench_check_log(&bench, "drop 0\nsettled\n");
    bench_pass(&bench, 10 * GIVE_UP);
    bench_check_log(&bench, "");
    bench_release(&bench);
}

static void test_hurry(void **state)
{
    (void)state;
    for (int to = RETRY_HERE; to < RETRY_GONE; to++) {
        struct bench bench;

        bring(&bench, to);
        retry_begin(&bench.retry); /* not kept, so that something still waits */
        retry_hurry(&bench.retry, 0);
        assert_string_equal(bench.log, "drop 0\n");
        bench.log[0] = '\0';
        bench_pass(&bench, 0);
        if (to == RETRY_HERE) {
            assert_int_equal(bench.retry.state, RETRY_HERE);
            retry_sent(&bench.retry);
            assert_false(bench_answer(&bench, 1, BLK_REPEAT)); /* not any more */
        } else {
            assert_int_equal(bench.retry.state, RETRY_GONE);
        }
        if (to == RETRY_DRAINING) {
            retry_answered(&bench.retry, false);
            retry_end(&bench.retry);
        }
        retry_end(&bench.retry);
        if (to == RETRY_RECOVERING)
            retry_recovered(&bench.retry, -ECANCELED, NULL);
        bench_pass(&bench, 10 * GIVE_UP);
        bench_release(&bench);
    }
}

/* A limit that is nearer than giving up. */
static void test_hurry_a_little(void **state)
{
    struct bench bench;

    (void)state;
    bring(&bench, RETRY_RECOVERING);
    retry_hurry(&bench.retry, 5 * SECOND);
    retry_hurry(&bench.retry, 50 * SECOND); /* does not take that back */
    bench_pass(&bench, 5 * SECOND - 1);
    bench_check_log(&bench, "");
    bench_pass(&bench, 1);
    bench_check_log(&bench, "drop 0: given up after 5 s without progress: no\nsettled\n");
    retry_recovered(&bench.retry, -ECANCELED, NULL);
    bench_pass(&bench, 0);
    bench_release(&bench);
    /* An attempt fails just then: what it says is the last word, and final. */
    bring(&bench, RETRY_RECOVERING);
    retry_hurry(&bench.retry, 5 * SECOND);
    loop_advance(bench.loop, 5 * SECOND);
    bench_recovered(&bench, BLK_LOST);
    bench_check_log(&bench, "drop 0: not it\nsettled\n");
    assert_int_equal(bench.retry.error.retry, BLK_FATAL);
    bench_release(&bench);
    /* What the driver has, though, may still be answered. */
    bench_init(&bench, GIVE_UP);
    bench_begin(&bench);
    retry_hurry(&bench.retry, 5 * SECOND);
    bench_pass(&bench, 10 * SECOND);
    assert_int_equal(bench.retry.state, RETRY_HERE);
    bench_succeed(&bench);
    bench_check_log(&bench, "");
    bench_release(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_away_for_long),
        cmocka_unit_test(test_attempts),
        cmocka_unit_test(test_give_up_while_away),
        cmocka_unit_test(test_give_up_between_attempts),
        cmocka_unit_test(test_another_thing),
        cmocka_unit_test(test_recheck),
        cmocka_unit_test(test_rechecks),
        cmocka_unit_test(test_due_while_away),
        cmocka_unit_test(test_idle_while_away),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_window_opens),
        cmocka_unit_test(test_window_after_a_failure),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_after_a_cancel),
        cmocka_unit_test(test_cancel_too_late),
        cmocka_unit_test(test_hurry),
        cmocka_unit_test(test_hurry_a_little),
    };

    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
