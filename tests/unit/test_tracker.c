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
    struct tracker *tracker = tracker_new(size, lanes, 1);

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
        uint64_t size, unit, granule;
    } cases[] = {
        {1, 1, 256 * KIB},
        {256 * GIB, 512, 256 * KIB},
        {256 * GIB + 1, 256 * KIB, 512 * KIB},
        {1024 * GIB, 1, MIB},
        {64 * 1024 * GIB, 1, 64 * MIB},
        {1, 2 * MIB, 2 * MIB},
        {256 * GIB + 1, 2 * MIB, 2 * MIB},
        {64 * 1024 * GIB, 2 * MIB, 64 * MIB},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tracker *tracker = tracker_new(cases[i].size, 1, cases[i].unit);

        assert_non_null(tracker);
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

/* Parts of two epochs, in either order of their answers: no FLUSH speaks for both. */
static void test_parts_of_two_epochs(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 2; first++) {
        for (unsigned flushed = 0; flushed < 2; flushed++) {
            struct tracker *tracker = make(GRANULE, 1);

            written(tracker, 0, 0, GRANULE / 2, EPOCH + first);
            written(tracker, 0, GRANULE / 2, GRANULE / 2, EPOCH + 1 - first);
            assert_int_equal(flush(tracker, 0, EPOCH + flushed, 0), GRANULE);
            tracker_free(tracker);
        }
    }
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

/* ---- What is still to be done ----------------------------------------------------------------- */

/* A run that is taken is at least a granule and at most so many bytes, and gone from the list. */
static void test_take_lost(void **state)
{
    struct tracker *tracker = make(10 * GRANULE - 5, 2);
    uint64_t from, to;

    (void)state;
    assert_false(tracker_take_lost(tracker, 0, UINT64_MAX, &from, &to));
    written(tracker, 0, 0, 4 * GRANULE, EPOCH);
    written(tracker, 1, 4 * GRANULE, GRANULE, EPOCH);
    written(tracker, 0, 5 * GRANULE, 5 * GRANULE - 5, EPOCH);
    assert_int_equal(flush(tracker, 0, EPOCH + 1, 0), 9 * GRANULE - 5);
    assert_int_equal(tracker_lost(tracker, 0), 9 * GRANULE - 5);
    assert_int_equal(tracker_lost(tracker, 1), 0);
    assert_false(tracker_take_lost(tracker, 1, UINT64_MAX, &from, &to));
    assert_true(tracker_take_lost(tracker, 0, 1, &from, &to));
    assert_int_equal(from, 0);
    assert_int_equal(to, GRANULE);
    assert_true(tracker_take_lost(tracker, 0, 2 * GRANULE, &from, &to));
    assert_int_equal(from, GRANULE);
    assert_int_equal(to, 3 * GRANULE);
    assert_true(tracker_take_lost(tracker, 0, UINT64_MAX, &from, &to));
    assert_int_equal(from, 3 * GRANULE);
    assert_int_equal(to, 4 * GRANULE); /* the next is the other lane's */
    assert_true(tracker_take_lost(tracker, 0, UINT64_MAX, &from, &to));
    assert_int_equal(from, 5 * GRANULE);
    assert_int_equal(to, 10 * GRANULE - 5);
    assert_int_equal(tracker_lost(tracker, 0), 0);
    assert_false(tracker_take_lost(tracker, 0, UINT64_MAX, &from, &to));
    /* They are untouched again: in any parts, by the same lane. */
    written(tracker, 0, GRANULE, GRANULE / 2, EPOCH + 1);
    written(tracker, 0, 0, GRANULE, EPOCH + 1);
    written(tracker, 0, GRANULE + GRANULE / 2, GRANULE / 2, EPOCH + 1);
    assert_int_equal(tracker_unflushed(tracker, 0), 2 * GRANULE);
    assert_int_equal(flush(tracker, 0, EPOCH + 1, 0), 0);
    tracker_free(tracker);
}

static void test_resume(void **state)
{
    struct tracker *tracker = make(10 * GRANULE - 5, 2);
    uint64_t until, from, to, count;

    (void)state;
    tracker_resume(tracker, 2, 3);
    tracker_resume(tracker, 8, 100); /* and not beyond the end */
    assert_int_equal(tracker_skip_begun(tracker, 0, 10 * GRANULE - 5, &until), 0);
    assert_int_equal(until, 2 * GRANULE);
    assert_int_equal(tracker_skip_begun(tracker, 2 * GRANULE, 10 * GRANULE - 5, &until),
                     5 * GRANULE);
    assert_int_equal(until, 8 * GRANULE);
    assert_int_equal(tracker_skip_begun(tracker, 2 * GRANULE, 7 * GRANULE, &until), 5 * GRANULE);
    assert_int_equal(until, 7 * GRANULE);
    assert_int_equal(tracker_skip_begun(tracker, 2 * GRANULE, 4 * GRANULE, &until), 4 * GRANULE);
    assert_int_equal(until, 4 * GRANULE);
    assert_int_equal(tracker_skip_begun(tracker, 8 * GRANULE, 10 * GRANULE - 5, &until),
                     10 * GRANULE - 5);
    assert_int_equal(until, 10 * GRANULE - 5);
    /* From the middle of a granule, as a large disk's head ends. */
    assert_int_equal(tracker_skip_begun(tracker, 5 * GRANULE + 100, 6 * GRANULE, &until),
                     5 * GRANULE + 100);
    assert_int_equal(until, 6 * GRANULE);
    assert_int_equal(tracker_durable_run(tracker, 0, &count), 2);
    assert_int_equal(count, 3);
    assert_int_equal(tracker_durable_run(tracker, 4, &count), 4);
    assert_int_equal(count, 1);
    assert_int_equal(tracker_durable_run(tracker, 5, &count), 8);
    assert_int_equal(count, 2);
    tracker_durable_run(tracker, 10, &count);
    assert_int_equal(count, 0);
    /* They are lane 0's to verify. */
    assert_false(tracker_take_unverified(tracker, 1, UINT64_MAX, &from, &to));
    assert_true(tracker_take_unverified(tracker, 0, UINT64_MAX, &from, &to));
    assert_int_equal(from, 2 * GRANULE);
    assert_int_equal(to, 5 * GRANULE);
    tracker_free(tracker);
}

/* An epoch that nothing names any more makes room; one that something names keeps its place. */
static void test_epochs_make_room(void **state)
{
    struct tracker *tracker = make(1000 * GRANULE, 1);
    uint64_t first = 0;

    (void)state;
    for (uint64_t i = 0; i < 900; i++) {
        /* One is written during each FLUSH, and flushed by the next. */
        tracker_flush_begin(tracker, 0);
        written(tracker, 0, i * GRANULE, GRANULE, EPOCH + i);
        assert_int_equal(tracker_flush_end(tracker, 0, EPOCH + i - 1, &first), 0);
    }
    tracker_free(tracker);
}

/* ---- A model ---------------------------------------------------------------------------------- */

/* Everything above, in any order, beside the plainest thing that does the same. */
enum { UNTOUCHED, TAKEN, WRITTEN, FLUSHING, LOST, DURABLE, VERIFIED };

#define MODEL_GRANULES 24
#define MODEL_LANES    2

struct model {
    struct tracker *tracker;
    struct {
        int state;
        unsigned lane;
        uint64_t epoch;
    } granules[MODEL_GRANULES];
    bool flushing[MODEL_LANES];
    uint32_t chance;
};

static uint32_t choose(struct model *model, uint32_t count)
{
    model->chance = model->chance * 1664525 + 1013904223;
    return (model->chance >> 16) % count;
}

static uint64_t bytes_in(const struct model *model, unsigned lane, int state)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < MODEL_GRANULES; i++)
        bytes += model->granules[i].state == state && model->granules[i].lane == lane ? GRANULE : 0;
    return bytes;
}

static void model_write(struct model *model, unsigned lane)
{
    unsigned i = choose(model, MODEL_GRANULES);
    bool durable = choose(model, 4) == 0;
    uint64_t epoch = EPOCH + choose(model, 2);

    if (model->granules[i].state > TAKEN ||
        (model->granules[i].lane != MODEL_LANES && model->granules[i].lane != lane))
        return;
    assert_true(tracker_written(model->tracker, lane, i * GRANULE, GRANULE, epoch, durable));
    model->granules[i].state = durable ? DURABLE : WRITTEN;
    model->granules[i].lane = lane;
    model->granules[i].epoch = epoch;
}

static void model_flush(struct model *model, unsigned lane)
{
    uint64_t epoch = choose(model, 8) == 0 ? BLK_NO_EPOCH : EPOCH + choose(model, 2);
    uint64_t lost = 0, first = 77, expected_first = 77;

    model->flushing[lane] = !model->flushing[lane];
    if (model->flushing[lane])
        tracker_flush_begin(model->tracker, lane);
    for (unsigned i = 0; i < MODEL_GRANULES; i++) {
        if (model->granules[i].lane != lane)
            continue;
        if (model->flushing[lane] && model->granules[i].state == WRITTEN) {
            model->granules[i].state = FLUSHING;
        } else if (!model->flushing[lane] && model->granules[i].state == FLUSHING) {
            bool same = model->granules[i].epoch == epoch;

            model->granules[i].state = same ? DURABLE : LOST;
            if (!same && lost == 0)
                expected_first = i * GRANULE;
            lost += same ? 0 : GRANULE;
        }
    }
    if (model->flushing[lane])
        return;
    assert_int_equal(tracker_flush_end(model->tracker, lane, epoch, &first), lost);
    assert_int_equal(first, expected_first);
}

static void model_take(struct model *model, unsigned lane, int state)
{
    uint64_t max = (1 + choose(model, 4)) * GRANULE, from, to;
    unsigned first = 0, count = 0;
    bool took = state == LOST ? tracker_take_lost(model->tracker, lane, max, &from, &to)
                              : tracker_take_unverified(model->tracker, lane, max, &from, &to);

    while (first < MODEL_GRANULES &&
           (model->granules[first].state != state || model->granules[first].lane != lane))
        first++;
    while (first + count < MODEL_GRANULES && count < max / GRANULE &&
           model->granules[first + count].state == state &&
           model->granules[first + count].lane == lane)
        model->granules[first + count++].state = state == LOST ? TAKEN : VERIFIED;
    assert_int_equal(took, count > 0);
    if (took) {
        assert_int_equal(from, first * GRANULE);
        assert_int_equal(to, (first + count) * GRANULE);
    }
}

static void model_differs(struct model *model, unsigned lane)
{
    unsigned i = choose(model, MODEL_GRANULES);

    if (model->granules[i].state != VERIFIED || model->granules[i].lane != lane)
        return;
    tracker_differs(model->tracker, lane, i * GRANULE + choose(model, 2) * 100);
    model->granules[i].state = LOST;
}

static void model_look(struct model *model)
{
    unsigned from = choose(model, MODEL_GRANULES), i = from, j;
    uint64_t until;

    while (i < MODEL_GRANULES && model->granules[i].state != UNTOUCHED)
        i++;
    for (j = i; j < MODEL_GRANULES && model->granules[j].state == UNTOUCHED;)
        j++;
    assert_int_equal(
        tracker_skip_begun(model->tracker, from * GRANULE, MODEL_GRANULES * GRANULE, &until),
        i * GRANULE);
    assert_int_equal(until, j * GRANULE);
    for (i = from; i < MODEL_GRANULES && model->granules[i].state >= DURABLE;)
        i++;
    assert_int_equal(tracker_durable_from(model->tracker, from * GRANULE), i == MODEL_GRANULES);
    for (unsigned lane = 0; lane < MODEL_LANES; lane++) {
        assert_int_equal(tracker_unflushed(model->tracker, lane), bytes_in(model, lane, WRITTEN));
        assert_int_equal(tracker_lost(model->tracker, lane), bytes_in(model, lane, LOST));
    }
}

static void test_model(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 200; seed++) {
        struct model model = {.tracker = make(MODEL_GRANULES * GRANULE, MODEL_LANES),
                              .chance = seed * 2654435761u};

        for (unsigned i = 0; i < MODEL_GRANULES; i++)
            model.granules[i].lane = MODEL_LANES;
        for (unsigned step = 0; step < 400; step++) {
            unsigned lane = choose(&model, MODEL_LANES), what = choose(&model, 12);

            if (what < 6)
                model_write(&model, lane);
            else if (what < 8)
                model_flush(&model, lane);
            else if (what == 8)
                model_take(&model, lane, LOST);
            else if (what == 9 && step % 50 == 0)
                model_take(&model, lane, DURABLE);
            else if (what == 10)
                model_differs(&model, lane);
            model_look(&model);
        }
        tracker_free(model.tracker);
    }
}

/* ---- Of a size that is not known --------------------------------------------------------------- */

#define OPEN TRACKER_OPEN_GRANULE

static void test_open_end(void **state)
{
    struct tracker *tracker = make(BLK_SIZE_UNKNOWN, 1);
    uint64_t far = 100000 * OPEN, from, to; /* 1.5 TiB */

    (void)state;
    assert_int_equal(tracker_granule(tracker), OPEN);
    assert_true(tracker_written(tracker, 0, far, OPEN, EPOCH, true));
    assert_true(tracker_skipped(tracker, 0, 0, far));
    assert_true(tracker_written(tracker, 0, far + OPEN, 5, EPOCH, true));
    assert_false(tracker_durable_from(tracker, 0));
    assert_true(tracker_end(tracker, far + OPEN + 5));
    assert_true(tracker_durable_from(tracker, 0));
    assert_true(tracker_take_unverified(tracker, 0, UINT64_MAX, &from, &to));
    assert_int_equal(from, far);
    assert_int_equal(to, far + OPEN + 5);
    tracker_free(tracker);
}

/* The end is known before all is written, or after that; wherever it is in the last granule. */
static void test_ends(void **state)
{
    static const uint64_t sizes[] = {1, 5 * OPEN / 2, 3 * OPEN - 1, 3 * OPEN, 3 * OPEN + 1};

    (void)state;
    for (unsigned i = 0; i < 2 * sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t size = sizes[i / 2], half = size / 2;
        struct tracker *tracker = make(BLK_SIZE_UNKNOWN, 1);

        if (half > 0)
            written(tracker, 0, 0, half, EPOCH);
        if (i % 2)
            assert_true(tracker_end(tracker, size));
        written(tracker, 0, half, size - half, EPOCH);
        if (!(i % 2))
            assert_true(tracker_end(tracker, size));
        assert_false(tracker_durable_from(tracker, 0));
        assert_int_equal(flush(tracker, 0, EPOCH, 0), 0);
        assert_true(tracker_durable_from(tracker, 0));
        tracker_free(tracker);
    }
}

/* Of what exists only a part is needed. */
static void test_shorter_than_what_exists(void **state)
{
    struct tracker *tracker = make(10 * GRANULE, 1);

    (void)state;
    written(tracker, 0, 0, GRANULE, EPOCH);
    written(tracker, 0, GRANULE, 7, EPOCH);
    assert_true(tracker_end(tracker, GRANULE + 7));
    assert_int_equal(flush(tracker, 0, EPOCH, 0), 0);
    assert_true(tracker_durable_from(tracker, 0));
    tracker_free(tracker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_granule),
        cmocka_unit_test(test_written_and_flushed),
        cmocka_unit_test(test_something_missing),
        cmocka_unit_test(test_written_during_a_flush),
        cmocka_unit_test(test_another_epoch),
        cmocka_unit_test(test_no_epoch),
        cmocka_unit_test(test_durable_at_once),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_unequal_parts),
        cmocka_unit_test(test_many_epochs),
        cmocka_unit_test(test_parts_of_two_epochs),
        cmocka_unit_test(test_lanes_apart),
        cmocka_unit_test(test_head_of_a_large_disk),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_take_lost),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_epochs_make_room),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_open_end),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_shorter_than_what_exists),
    };

    return cmocka_run_group_tests_name("tracker", tests, NULL, NULL);
}
