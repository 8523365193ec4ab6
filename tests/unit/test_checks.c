/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a job looks at before it begins, what it refuses, what it tells; and single stories that the
 * sweep over all schedules does not tell. */
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/job.h"
#include "src/copy/target.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct scene {
    struct fake fake;
    struct fake_disk source, target;
    struct fake_end from, to;
    struct run run;
};

/* A blank LUN of 512-byte blocks, and an image. */
static void init(struct scene *scene, uint64_t size, uint64_t target_size)
{
    memset(scene, 0, sizeof(*scene));
    fake_init(&scene->fake);
    fake_disk_init(&scene->source, &scene->fake, size, 0);
    fake_disk_fill(&scene->source, 1);
    fake_disk_init(&scene->target, &scene->fake, target_size, 0);
    scene->target.caps = BLK_BARE | BLK_CAN_ZERO;
    scene->target.limits.align = 512;
    scene->source.logging = scene->target.logging = true;
    fake_end_disk(&scene->from, &scene->source, "fake", "a");
    fake_end_disk(&scene->to, &scene->target, "fake", "b");
    scene->run = (struct run){
        .fake = &scene->fake,
        .options =
            {
                .sources = &scene->from.url,
                .source_count = 1,
                .image.format = IMAGE_RAW, /* nothing is read to be sure */
                .target = &scene->to.url,
                .depth = 2,
                .lanes = 1,
                .chunk = 4096,
                .journal = "",
            },
    };
}

static void release(struct scene *scene)
{
    assert_int_equal(scene->source.open, 0);
    assert_int_equal(scene->target.open, 0);
    fake_disk_release(&scene->source);
    fake_disk_release(&scene->target);
    fake_release(&scene->fake);
}

/* Runs, and ends like this, before anything was written. */
static void check_refused(struct scene *scene, int code, const char *text)
{
    run_job(&scene->run);
    assert_int_equal(scene->run.result.status, -code);
    assert_string_equal(scene->run.result.error.text, text);
    assert_false(scene->run.result.touched);
    assert_null(strstr(scene->target.log, "WRITE"));
    assert_null(strstr(scene->target.log, "ZERO"));
    release(scene);
}

static void check_done(struct scene *scene)
{
    assert_int_equal(scene->run.result.status, 0);
    assert_true(fake_disk_holds(&scene->target, &scene->source, 0, scene->source.size));
}

/* ---- Refusals --------------------------------------------------------------------------------- */

static void test_empty_source(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, 0, 8192);
    check_refused(&scene, EINVAL, "source: fake:a is empty: there is nothing to copy");
}

static void test_same_thing(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, 8192, 8192);
    scene.source.identity = scene.target.identity = "naa.5000";
    check_refused(&scene, EINVAL, "fake:a and fake:b are the same thing");
    init(&scene, 8192, 8192);
    scene.source.identity = "naa.5000";
    scene.target.identity = "naa.5001";
    run_job(&scene.run);
    check_done(&scene);
    release(&scene);
}

/* From one place of a file to another: its times would say that the source has changed. */
static void test_same_file(void **state)
{
    struct scene scene;

    (void)state;
    for (int allow_live = 0; allow_live < 2; allow_live++) {
        init(&scene, 16384, 16384);
        scene.source.identity = scene.target.identity = "file";
        scene.source.mtime_ns = scene.target.mtime_ns = 5;
        scene.run.options.source_len = scene.run.options.target_offset = 8192;
        scene.run.options.allow_live = allow_live;
        if (!allow_live) {
            check_refused(
                &scene, EINVAL,
                "fake:a and fake:b are the same file: that the source stays as it is could "
                "not be told, for its times change as it is written to; --allow-live does "
                "without");
            continue;
        }
        run_job(&scene.run);
        assert_int_equal(scene.run.result.status, 0);
        release(&scene);
    }
}

static void test_too_small(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, 8193, 8192);
    check_refused(&scene, ENOSPC,
                  "target: fake:b is too small: it has 8192 bytes (8.00 KiB), the source has 8193 "
                  "(8.00 KiB)");
}

static void test_chunk_of_parts_of_blocks(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, 8192, 8192);
    scene.target.limits.align = 8192;
    scene.target.limits.max_read = scene.target.limits.max_write = 8192;
    check_refused(&scene, EINVAL,
                  "the request size 4096 is no multiple of the target's block size, 8192");
}

static void test_occupied(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, 8192, 16384);
    scene.target.written[16383] = 1;
    check_refused(&scene, EEXIST,
                  "target: fake:b holds data of a kind that is not recognised; --overwrite would "
                  "replace it");
    init(&scene, 8192, 16384);
    scene.target.written[16383] = 1;
    scene.run.options.overwrite = true;
    run_job(&scene.run);
    check_done(&scene);
    assert_int_equal(scene.target.durable[16383], 0); /* was never durable, and nobody wrote it */
    assert_int_equal(scene.target.written[16383], 1);
    release(&scene);
}

/* Every operation up to the first change fails in turn: nothing is touched. */
static void test_faults_before_the_first_change(void **state)
{
    bool touched = false;

    (void)state;
    for (unsigned number = 1; !touched; number++) {
        struct scene scene;

        init(&scene, 8192, 16384);
        scene.fake.fault = (struct fake_fault){.number = number, .code = EACCES};
        run_job(&scene.run);
        assert_int_equal(scene.run.result.status, -EACCES);
        touched = scene.run.result.touched;
        assert_int_equal(touched, strstr(scene.target.log, "ZERO") != NULL);
        assert_int_equal(number == 6, touched); /* two opens, the table, head and tail */
        release(&scene);
    }
}

/* When one end does not open, nobody waits for the other. */
static void test_one_end_does_not_open(void **state)
{
    (void)state;
    for (unsigned number = 1; number <= 2; number++) {
        struct scene scene;
        struct copy_job *job;

        init(&scene, 8192, 8192);
        scene.fake.fault = (struct fake_fault){.number = number, .code = EHOSTUNREACH};
        run_job(&scene.run);
        assert_int_equal(scene.run.result.status, -EHOSTUNREACH);
        assert_string_equal(scene.run.result.error.text,
                            number == 1 ? "source: opening fake:a: the fake says no"
                                        : "target: opening fake:b: the fake says no");
        /* Once more, as far as the failure: the other one has been cancelled. */
        scene.fake.fault.number += scene.fake.submitted;
        scene.run.done = 0;
        job = copy_start(scene.fake.loop, &scene.run.options);
        fake_settle(&scene.fake);
        assert_int_equal(scene.fake.pending_count, 2);
        fake_complete(&scene.fake, number - 1);
        fake_settle(&scene.fake);
        if (number == 1) { /* a source that does not open is closed first */
            fake_complete(&scene.fake, 1);
            fake_settle(&scene.fake);
        }
        assert_true(scene.fake.pending[0].cancelled);
        fake_finish(&scene.fake);
        assert_int_equal(scene.run.result.status, -EHOSTUNREACH);
        copy_free(job);
        release(&scene);
    }
}

/* ---- Notices ---------------------------------------------------------------------------------- */

static void check_sectors(uint32_t align, uint64_t table, const char *notice)
{
    struct scene scene;

    init(&scene, 16384, 16384);
    scene.target.limits.align = align;
    if (table)
        memcpy(scene.source.written + table, "EFI PART", 8);
    memcpy(scene.source.durable, scene.source.written, 16384);
    run_job(&scene.run);
    check_done(&scene);
    assert_int_equal(scene.run.notices, notice ? 1 : 0);
    if (notice)
        assert_string_equal(scene.run.notice, notice);
    release(&scene);
}

static void test_sectors(void **state)
{
    (void)state;
    check_sectors(512, 0, NULL);
    check_sectors(512, 512, NULL);
    check_sectors(4096, 4096, NULL);
    check_sectors(4096, 512,
                  "the image has a partition table for 512-byte sectors, fake:b has 4096-byte "
                  "blocks: the partitions will not be recognised there");
    check_sectors(512, 4096,
                  "the image has a partition table for 4096-byte sectors, fake:b has 512-byte "
                  "blocks: the partitions will not be recognised there");
}

/* ---- The whole list of commands --------------------------------------------------------------- */

static void test_commands_of_a_deployment(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, MIB + 8192 + 100, 2 * MIB);
    scene.run.options.chunk = 1024 * KIB;
    run_job(&scene.run);
    check_done(&scene);
    assert_string_equal(scene.source.log, "READ 0+1048576\n"
                                          "READ 1048576+8292\n");
    assert_string_equal(scene.target.log, "READ 0+2097152\n" /* is there anything? */
                                          "READ 1048576+1048576\n"
                                          "ZERO 0+1048576\n" /* the head is blanked, durably */
                                          "FLUSH\n"
                                          "WRITE 1048576+8192\n" /* what is behind it */
                                          "READ 1056768+512\n"
                                          "WRITE 1056768+512\n"
                                          "FLUSH\n"
                                          "WRITE 0+1048576\n" /* the head */
                                          "FLUSH\n");
    release(&scene);
}

static void test_commands_in_order(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, 12288, 16384);
    scene.run.options.in_order = scene.run.options.overwrite = true;
    run_job(&scene.run);
    check_done(&scene);
    assert_string_equal(scene.target.log,
                        "WRITE 0+4096\nWRITE 4096+4096\nWRITE 8192+4096\nFLUSH\n");
    release(&scene);
}

/* ---- Stories ---------------------------------------------------------------------------------- */

static void ended(struct copy_job *job, void *opaque)
{
    struct run *run = opaque;

    run->result = *copy_result(job);
    run->done++;
}

/* To the first three reads of the data. */
static struct copy_job *start_reading(struct scene *scene)
{
    struct copy_job *job;

    init(scene, 20480, 20480);
    scene->target.caps = 0;
    scene->run.options.depth = 3;
    scene->run.options.done = ended;
    scene->run.options.opaque = &scene->run;
    job = copy_start(scene->fake.loop, &scene->run.options);
    assert_non_null(job);
    fake_settle(&scene->fake);
    fake_complete(&scene->fake, 0);
    fake_complete(&scene->fake, 0);
    fake_settle(&scene->fake);
    assert_int_equal(scene->fake.pending_count, 3);
    return job;
}

/* One request has failed, the others hang. Whoever stops that gets an end after the drain's time, or
 * at once by aborting, and the reason all the same. */
static void check_stop_after_failure(bool aborts)
{
    struct scene scene;
    struct copy_job *job = start_reading(&scene);

    scene.fake.fault = (struct fake_fault){.number = scene.fake.pending[1].number, .code = EIO};
    fake_complete(&scene.fake, 1);
    fake_settle(&scene.fake);
    copy_stop(job);
    copy_stop(job);
    if (aborts) {
        copy_abort(job);
    } else {
        loop_advance(scene.fake.loop, COPY_DRAIN - 1);
        fake_settle(&scene.fake);
        assert_false(scene.fake.pending[0].cancelled);
        loop_advance(scene.fake.loop, 1);
    }
    fake_settle(&scene.fake);
    assert_int_equal(scene.fake.pending_count, 2);
    assert_true(scene.fake.pending[0].cancelled && scene.fake.pending[1].cancelled);
    fake_finish(&scene.fake);
    assert_int_equal(scene.run.done, 1);
    assert_int_equal(scene.run.result.status, -EIO);
    assert_string_equal(scene.run.result.error.text,
                        "source: reading fake:a at offset 4096: the fake says no");
    copy_free(job);
    release(&scene);
}

static void test_stop_after_failure(void **state)
{
    (void)state;
    check_stop_after_failure(false);
    check_stop_after_failure(true);
}

/* The oldest operation but for the survey's question. */
static unsigned not_extents(const struct fake *fake)
{
    unsigned i = 0;

    while (i < fake->pending_count && fake->pending[i].kind == FAKE_REQ &&
           fake->pending[i].req->op == BLK_EXTENTS)
        i++;
    return i;
}

/* All is copied, but the survey beside it waits for an answer of the source that does not come. Whoever
 * stops that gets an end after the drain's time, or at once by aborting. */
static void check_stop_of_survey(bool aborts)
{
    struct scene scene;
    struct copy_job *job = start_reading(&scene);
    unsigned next;

    scene.source.caps |= BLK_CAN_EXTENTS; /* too late for the lane's walk */
    job->source->caps |= BLK_CAN_EXTENTS;
    loop_timer_set(scene.fake.loop, &job->survey_timer, loop_now(scene.fake.loop));
    fake_settle(&scene.fake);
    while (next = not_extents(&scene.fake), next < scene.fake.pending_count) {
        fake_complete(&scene.fake, next);
        fake_settle(&scene.fake);
    }
    assert_int_equal(scene.fake.pending_count, 1);
    assert_int_equal(job->phase, COPY_COPYING);
    assert_int_equal(job->lanes_at_work, 0);
    copy_stop(job);
    if (aborts)
        copy_abort(job);
    else
        loop_advance(scene.fake.loop, COPY_DRAIN);
    fake_settle(&scene.fake);
    assert_true(scene.fake.pending[0].cancelled);
    fake_finish(&scene.fake);
    assert_int_equal(scene.run.done, 1);
    assert_int_equal(scene.run.result.status, -ECANCELED);
    copy_free(job);
    release(&scene);
}

static void test_stop_of_survey(void **state)
{
    (void)state;
    check_stop_of_survey(false);
    check_stop_of_survey(true);
}

/* A dry run has nothing on the wire that is worth waiting for. */
static void test_stop_of_dry_run(void **state)
{
    struct scene scene;
    struct copy_job *job;

    (void)state;
    init(&scene, 20480, 20480);
    scene.source.caps = BLK_CAN_EXTENTS;
    scene.target.caps = 0;
    scene.run.options.dry_run = true;
    scene.run.options.done = ended;
    scene.run.options.opaque = &scene.run;
    job = copy_start(scene.fake.loop, &scene.run.options);
    assert_non_null(job);
    fake_settle(&scene.fake);
    fake_complete(&scene.fake, 0);
    fake_complete(&scene.fake, 0);
    fake_settle(&scene.fake);
    assert_int_equal(scene.fake.pending_count, 1);
    assert_int_equal(scene.fake.pending[0].req->op, BLK_EXTENTS);
    copy_stop(job);
    assert_true(scene.fake.pending[0].cancelled);
    fake_finish(&scene.fake);
    assert_int_equal(scene.run.done, 1);
    assert_int_equal(scene.run.result.status, -ECANCELED);
    assert_false(scene.run.result.touched);
    copy_free(job);
    release(&scene);
}

/* As many chunks as the longer of the two ways wants. */
static void test_depth_by_round_trip(void **state)
{
    static const struct {
        uint64_t source, target;
        unsigned depth;
    } cases[] = {
        {0, 0, 8},
        {LOOP_MSECOND / 2 - 1, 0, 8},
        {LOOP_MSECOND / 10, LOOP_MSECOND, 16},
        {5 * LOOP_MSECOND, 0, 32},
        {LOOP_MSECOND, 50 * LOOP_MSECOND, 64},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct scene scene;

        init(&scene, 8192, 8192);
        scene.run.options.depth = 0;
        scene.source.round_trip = cases[i].source;
        scene.target.round_trip = cases[i].target;
        run_job(&scene.run);
        check_done(&scene);
        assert_int_equal(scene.run.result.depth, cases[i].depth);
        assert_int_equal(scene.run.result.buffer_bytes, cases[i].depth * 4096);
        release(&scene);
    }
}

static void test_progress(void **state)
{
    struct scene scene;
    struct copy_job *job = start_reading(&scene);
    struct copy_progress progress;

    (void)state;
    copy_progress(job, &progress);
    assert_int_equal(progress.phase, COPY_COPYING);
    assert_int_equal(progress.total, 20480);
    assert_int_equal(progress.done, 0);
    assert_int_equal(progress.reading, 3);
    assert_int_equal(progress.writing, 0);
    fake_complete(&scene.fake, 0);
    fake_settle(&scene.fake);
    copy_progress(job, &progress);
    assert_int_equal(progress.reading, 2);
    assert_int_equal(progress.writing, 1);
    assert_int_equal(progress.done, 0);
    fake_complete(&scene.fake, 2); /* the write */
    fake_settle(&scene.fake);
    copy_progress(job, &progress);
    assert_int_equal(progress.done, 4096);
    fake_finish(&scene.fake);
    copy_progress(job, &progress);
    assert_int_equal(progress.phase, COPY_ENDED);
    assert_int_equal(progress.done, 20480);
    copy_free(job);
    release(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_source),
        cmocka_unit_test(test_same_thing),
        cmocka_unit_test(test_same_file),
        cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_chunk_of_parts_of_blocks),
        cmocka_unit_test(test_occupied),
        cmocka_unit_test(test_faults_before_the_first_change),
        cmocka_unit_test(test_one_end_does_not_open),
        cmocka_unit_test(test_sectors),
        cmocka_unit_test(test_commands_of_a_deployment),
        cmocka_unit_test(test_commands_in_order),
        cmocka_unit_test(test_stop_after_failure),
        cmocka_unit_test(test_stop_of_survey),
        cmocka_unit_test(test_stop_of_dry_run),
        cmocka_unit_test(test_depth_by_round_trip),
        cmocka_unit_test(test_progress),
    };

    return cmocka_run_group_tests_name("checks", tests, NULL, NULL);
}
