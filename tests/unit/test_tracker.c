/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>

#include <lunferry/block.h>
#include <lunferry/units.h>

#include "src/copy/target.h"
#include "src/copy/tracker.h"

#define GRANULE TRACKER_MIN_GRANULE
#define EPOCH   UINT64_C(42)

static struct tracker *make(uint64_t size, unsigned lanes)
{
    struct tracker *tracker = tracker_new(size, lanes);

    assert_non_null(tracker);
    return tracker;
}

static void written(struct tracker *tracker, unsigned lane, uint64_t offset, uint64_t len,
                    uint64_t epoch)
{
    assert_true(tracker_written(tracker, lane, offset, len, epoch, false));
}

/* Bytes that a FLUSH finds lost; the first of them has to be at `first`. */
static uint64_t flush(struct tracker *tracker, unsigned lane, uint64_t epoch, uint64_t first)
{
    uint64_t lost, found = first;

    tracker_flush_begin(tracker, lane);
    lost = tracker_flush_end(tracker, lane, epoch, &found);
    assert_int_equal(found, first);
    return lost;
}

static void test_granule(void **state)
{
    static const struct {
        uint64_t size, granule;
    } cases[] = {
        {1, 256 * KIB},    {256 * GIB, 256 * KIB},      {256 * GIB + 1, 512 * KIB},
        {1024 * GIB, MIB}, {64 * 1024 * GIB, 64 * MIB},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tracker *tracker = make(cases[i].size, 1);

        assert_int_equal(tracker_granule(tracker), cases[i].granule);
        tracker_free(tracker);
    }
    tracker_free(NULL);
}

static void test_written_and_flushed(void **state)
{
    struct tracker *tracker = make(3 * GRANULE + 5, 1);

    (void)state;
    assert_false(tracker_durable_from(tracker, 0));
    written(tracker, 0, GRANULE, GRANULE, EPOCH);
    written(tracker, 0, 0, GRANULE, EPOCH);
    written(tracker, 0, 2 * GRANULE, GRANULE + 5, EPOCH);
    assert_false(tracker_durable_from(tracker, 0)); /* not without a FLUSH */
    assert_int_equal(flush(tracker, 0, EPOCH, 0), 0);
    assert_true(tracker_durable_from(tracker, 0));
    assert_int_equal(flush(tracker, 0, EPOCH + 1, 0), 0); /* durable is durable */
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

static void test_something_missing(void **state)
{
    struct tracker *tracker = make(3 * GRANULE, 1);

    (void)state;
    written(tracker, 0, 0, GRANULE, EPOCH);
    written(tracker, 0, 2 * GRANULE, GRANULE, EPOCH);
    assert_int_equal(flush(tracker, 0, EPOCH, 0), 0);
    assert_false(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

/* What completes while the FLUSH is under way is not covered by it. */
static void test_written_during_a_flush(void **state)
{
    struct tracker *tracker = make(2 * GRANULE, 1);
    uint64_t first = 7;

    (void)state;
    written(tracker, 0, 0, GRANULE, EPOCH);
    tracker_flush_begin(tracker, 0);
    written(tracker, 0, GRANULE, GRANULE, EPOCH);
    assert_int_equal(tracker_flush_end(tracker, 0, EPOCH, &first), 0);
    assert_false(tracker_durable_from(tracker, 0));
    assert_int_equal(flush(tracker, 0, EPOCH, 0), 0);
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

static void test_another_epoch(void **state)
{
    struct tracker *tracker = make(4 * GRANULE - 100, 1);

    (void)state;
    written(tracker, 0, 0, GRANULE, EPOCH + 1);
    written(tracker, 0, GRANULE, GRANULE, EPOCH);
    written(tracker, 0, 2 * GRANULE, GRANULE, EPOCH + 1);
    written(tracker, 0, 3 * GRANULE, GRANULE - 100, EPOCH);
    assert_int_equal(flush(tracker, 0, EPOCH + 1, GRANULE), 2 * GRANULE - 100);
    assert_false(tracker_durable_from(tracker, 0));
    /* Once more, what was lost. */
    written(tracker, 0, GRANULE, GRANULE, EPOCH + 1);
    written(tracker, 0, 3 * GRANULE, GRANULE - 100, EPOCH + 1);
    assert_int_equal(flush(tracker, 0, EPOCH + 1, 0), 0);
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

static void test_no_epoch(void **state)
{
    struct tracker *tracker = make(GRANULE, 1);

    (void)state;
    /* A failed FLUSH. */
    written(tracker, 0, 0, GRANULE, EPOCH);
    assert_int_equal(flush(tracker, 0, BLK_NO_EPOCH, 0), GRANULE);
    /* "None" is not an epoch that could be the same again. */
    written(tracker, 0, 0, GRANULE, BLK_NO_EPOCH);
    assert_int_equal(flush(tracker, 0, BLK_NO_EPOCH, 0), GRANULE);
    written(tracker, 0, 0, GRANULE, BLK_NO_EPOCH);
    assert_int_equal(flush(tracker, 0, EPOCH, 0), GRANULE);
    assert_false(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

static void test_durable_at_once(void **state)
{
    struct tracker *tracker = make(2 * GRANULE, 1);

    (void)state;
    assert_true(tracker_written(tracker, 0, 0, GRANULE, EPOCH, true));
    assert_true(tracker_written(tracker, 0, GRANULE, 100, EPOCH, true));
    assert_false(tracker_durable_from(tracker, 0));
    assert_true(tracker_written(tracker, 0, GRANULE + 100, GRANULE - 100, BLK_NO_EPOCH, true));
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

/* Chunks that are smaller than granules, or lie across their borders. */
static void test_parts(void **state)
{
    struct tracker *tracker = make(3 * GRANULE, 1);

    (void)state;
    written(tracker, 0, GRANULE / 2, 2 * GRANULE, EPOCH);
    assert_int_equal(flush(tracker, 0, EPOCH, 0), 0); /* the middle one */
    assert_false(tracker_durable_from(tracker, 0));
    written(tracker, 0, 2 * GRANULE + GRANULE / 2, GRANULE / 2, EPOCH);
    written(tracker, 0, 0, GRANULE / 2, EPOCH);
    assert_false(tracker_durable_from(tracker, 0));
    assert_int_equal(flush(tracker, 0, EPOCH, 0), 0);
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

/* Parts that differ: in epoch, so that no FLUSH covers both; in being durable. */
static void test_unequal_parts(void **state)
{
    struct tracker *tracker = make(2 * GRANULE, 1);

    (void)state;
    written(tracker, 0, 0, GRANULE / 2, EPOCH);
    written(tracker, 0, GRANULE / 2, GRANULE / 2, EPOCH + 1);
    written(tracker, 0, GRANULE, GRANULE / 2, EPOCH + 1);
    assert_true(tracker_written(tracker, 0, GRANULE + GRANULE / 2, GRANULE / 2, EPOCH + 1, true));
    assert_int_equal(flush(tracker, 0, EPOCH + 1, 0), GRANULE);
    assert_false(tracker_durable_from(tracker, 0));
    assert_true(tracker_written(tracker, 0, 0, GRANULE, EPOCH, true));
    assert_true(tracker_durable_from(tracker, 0));
    /* One that is durable does not make the other so. */
    written(tracker, 0, 0, GRANULE / 2, EPOCH);
    assert_true(tracker_written(tracker, 0, GRANULE / 2, GRANULE / 2, EPOCH, true));
    assert_int_equal(flush(tracker, 0, EPOCH + 1, 0), GRANULE);
    assert_true(tracker_written(tracker, 0, 0, GRANULE, EPOCH, true));
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

/* More epochs than have a place: what finds none is never taken for durable. */
static void test_many_epochs(void **state)
{
    const uint64_t count = 400;
    struct tracker *tracker = make(count * GRANULE, 1);
    uint64_t durable = 0, first;

    (void)state;
    for (uint64_t i = 0; i < count; i++)
        written(tracker, 0, i * GRANULE, GRANULE, EPOCH + i);
    tracker_flush_begin(tracker, 0);
    assert_int_equal(tracker_flush_end(tracker, 0, EPOCH + count - 1, &first), count * GRANULE);
    for (uint64_t i = 0; i < count; i++) {
        written(tracker, 0, i * GRANULE, GRANULE, EPOCH);
        durable += GRANULE;
    }
    assert_int_equal(durable, count * GRANULE);
    assert_int_equal(flush(tracker, 0, EPOCH, 0), 0);
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

/* A lane's FLUSH speaks for that lane only, whatever the number of its epoch. */
static void test_lanes_apart(void **state)
{
    struct tracker *tracker = make(64 * GRANULE, 64);

    (void)state;
    for (unsigned i = 0; i < 64; i++)
        written(tracker, i, i * GRANULE, GRANULE, EPOCH + i % 2);
    for (unsigned i = 0; i < 64; i += 2)
        assert_int_equal(flush(tracker, i, EPOCH, 0), 0);
    assert_false(tracker_durable_from(tracker, 0));
    for (unsigned i = 1; i < 63; i += 2)
        assert_int_equal(flush(tracker, i, EPOCH + 1, 0), 0);
    assert_false(tracker_durable_from(tracker, 0));
    assert_int_equal(flush(tracker, 63, EPOCH, 63 * GRANULE), GRANULE);
    written(tracker, 63, 63 * GRANULE, GRANULE, EPOCH);
    assert_int_equal(flush(tracker, 63, EPOCH, 0), 0);
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

/* A large disk, in the order in which a job writes: everything behind the head, FLUSH, the head. */
static void check_head_last(uint64_t size)
{
    struct tracker *tracker = make(size, 2);
    uint64_t head = target_head_len(size, tracker_granule(tracker));

    assert_true(head >= TARGET_HEAD);
    written(tracker, 1, head, size - head, EPOCH);
    assert_int_equal(flush(tracker, 1, EPOCH, 0), 0);
    assert_true(tracker_written(tracker, 0, 0, head, EPOCH, true));
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

static void test_head_of_a_large_disk(void **state)
{
    (void)state;
    check_head_last(2 * MIB);
    check_head_last(1024 * GIB);
    check_head_last(1024 * GIB + 512);
    check_head_last(50 * 1024 * GIB);
}

/* ---- Threads ---------------------------------------------------------------------------------- */

#define THREADS 4

struct worker {
    struct tracker *tracker;
    unsigned lane;
    pthread_t thread;
    uint64_t lost;
};

/* Neighbouring granules belong to different lanes. */
static void *work(void *arg)
{
    struct worker *worker = arg;
    uint64_t first;

    for (uint64_t i = worker->lane; i < 400; i += THREADS) {
        for (uint64_t part = 0; part < 4; part++)
            tracker_written(worker->tracker, worker->lane, i * GRANULE + part * (GRANULE / 4),
                            GRANULE / 4, EPOCH + worker->lane, false);
        if (i % 16 < THREADS || i + THREADS >= 400) {
            tracker_flush_begin(worker->tracker, worker->lane);
            worker->lost +=
                tracker_flush_end(worker->tracker, worker->lane, EPOCH + worker->lane, &first);
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct tracker *tracker = make(400 * GRANULE, THREADS);
    struct worker workers[THREADS];

    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.tracker = tracker, .lane = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].lost, 0);
    }
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_granule),           cmocka_unit_test(test_written_and_flushed),
        cmocka_unit_test(test_something_missing), cmocka_unit_test(test_written_during_a_flush),
        cmocka_unit_test(test_another_epoch),     cmocka_unit_test(test_no_epoch),
        cmocka_unit_test(test_durable_at_once),   cmocka_unit_test(test_parts),
        cmocka_unit_test(test_unequal_parts),     cmocka_unit_test(test_many_epochs),
        cmocka_unit_test(test_lanes_apart),       cmocka_unit_test(test_head_of_a_large_disk),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests_name("tracker", tests, NULL, NULL);
}
