/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that take digests, and what may happen meanwhile. */
#include "sums.h"

#include <errno.h>
#include <string.h>

/* ---- While copying ---------------------------------------------------------------------------- */

static void test_kept(void **state)
{
    (void)state;
    for (int kind = NEW_FILE; kind <= CHECKSUM; kind++) {
        for (uint32_t chunk = 4096; chunk <= 4 * SUMS_BLOCK; chunk *= 4) {
            struct sums sums;

            sums_init(&sums, kind);
            sums.run.options.chunk = chunk;
            run_job(&sums.run);
            sums_check_good(&sums);
            assert_null(fake_fs_temporary(&sums.fs));
            sums_release(&sums);
        }
    }
}

/* Nothing is read for the digests: what is read is what has data, once. */
static void test_read_once(void **state)
{
    (void)state;
    for (int kind = NEW_FILE; kind <= CHECKSUM; kind++) {
        struct sums sums;

        sums_init(&sums, kind);
        run_job(&sums.run);
        sums_check_good(&sums);
        assert_int_equal(sums.source.bytes_asked, SUMS_SIZE - SUMS_BLOCK);
        sums_release(&sums);
    }
}

/* Zeros in a part of a block are read with the rest of it. */
static void test_holes_across_blocks(void **state)
{
    struct sums sums;

    (void)state;
    sums_init(&sums, NEW_FILE);
    fake_disk_set(&sums.source, SUMS_BLOCK / 2, SUMS_BLOCK, BLK_ZEROS);
    fake_disk_set(&sums.source, 5 * SUMS_BLOCK + 4096, SUMS_BLOCK, BLK_ZEROS);
    run_job(&sums.run);
    sums_check_good(&sums);
    sums_release(&sums);
}

/* What is told apart by -S, is written one by one, verified, or copied again, has the same digests. */
static void test_ways(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 5; way++) {
        struct sums sums;

        sums_init(&sums, NEW_FILE);
        sums.run.options.zero_unit = way == 0 ? 0 : 4096;
        sums.run.options.in_order = way == 1;
        sums.run.options.verify = way == 2;
        sums.restart = way == 3;
        sums.run.options.depth = way == 4 ? 1 : 2;
        run_job(&sums.run);
        sums_check_good(&sums);
        assert_false(sums.restart);
        if (way == 3)
            assert_true(sums.run.result.lost > 0);
        sums_release(&sums);
    }
}

/* The digests are those of the zeros that take the place of what cannot be read. */
static void test_salvage(void **state)
{
    struct sums sums;

    (void)state;
    sums_init(&sums, NEW_FILE);
    sums.run.options.salvage = true;
    sums.source.bad_from = SUMS_BLOCK + 4096;
    sums.source.bad_to = SUMS_BLOCK + 8192;
    run_job(&sums.run);
    assert_int_equal(sums.run.result.status, 0);
    assert_true(sums.run.result.bad > 0);
    /* What was written is the truth. */
    memcpy(sums.source.written, fake_fs_find(&sums.fs, "image")->disk->written, SUMS_SIZE);
    sums_check_file(&sums);
    sums_release(&sums);
}

static void test_lanes(void **state)
{
    (void)state;
    for (int kind = NEW_FILE; kind <= CHECKSUM; kind++) {
        struct sums sums;

        sums_init(&sums, kind);
        sums_run_lanes(&sums, 3);
        sums_check_good(&sums);
        sums_release(&sums);
    }
}

static void test_orders(void **state)
{
    struct odometer odometer = {.sample = SAMPLE(400)};

    (void)state;
    do {
        struct sums sums;

        sums_init(&sums, odometer.number % 2 ? CHECKSUM : NEW_FILE);
        sums.run.odometer = &odometer;
        sums.run.chosen = CHOOSE_ALL;
        sums.run.options.depth = 3;
        run_job(&sums.run);
        sums_check_good(&sums);
        sums_release(&sums);
    } while (odometer_next(&odometer));
}

/* All there, or nothing of it: no digests without their file, and none that are wrong. */
static void check_honest(struct sums *sums)
{
    const struct copy_result *result = &sums->run.result;

    if (!sums->fake.fault_hit || sums->fake.faulted_store_op != STORE_REMOVE)
        assert_null(fake_fs_temporary(&sums->fs));
    if (result->status == 0) {
        sums_check_good(sums);
        return;
    }
    if (sums->kind == NEW_FILE && result->complete)
        assert_non_null(fake_fs_find(&sums->fs, "image"));
    /* Its answer was lost, and the name given all the same. */
    if (fake_fs_find(&sums->fs, "sums"))
        sums_check_file(sums);
}

/* ---- What goes wrong -------------------------------------------------------------------------- */

static void fault_at(enum sums_kind kind, unsigned number, bool applies, bool *hit)
{
    static const struct {
        int code;
        enum blk_retry retry;
    } faults[] = {{EIO, BLK_FATAL}, {ECONNRESET, BLK_LOST}, {EAGAIN, BLK_REPEAT}};

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct sums sums;

        sums_init(&sums, kind);
        sums.fake.fault = (struct fake_fault){.number = number,
                                              .code = faults[i].code,
                                              .retry = faults[i].retry,
                                              .applies = applies && faults[i].code != EAGAIN};
        run_job(&sums.run);
        *hit = sums.fake.fault_hit;
        check_honest(&sums);
        /* What does not open is not tried again. */
        if (faults[i].retry != BLK_FATAL && sums.run.result.status != 0)
            assert_non_null(strstr(sums.run.result.error.text, "opening"));
        sums_release(&sums);
    }
}

static void test_every_fault(void **state)
{
    (void)state;
    for (int kind = NEW_FILE; kind <= CHECKSUM; kind++) {
        for (int applies = 0; applies < 2; applies++) {
            bool hit = true;

            for (unsigned number = 1; hit; number++)
                fault_at(kind, number, applies, &hit);
        }
    }
}

static void test_every_stop(void **state)
{
    static const enum disturb kinds[] = {DISTURB_STOP, DISTURB_STUCK, DISTURB_ABORT};
    bool disturbed = true;

    (void)state;
    for (unsigned when = 0; disturbed; when++) {
        for (int kind = NEW_FILE; kind <= CHECKSUM; kind++) {
            for (size_t i = 0; i < 6; i++) {
                struct sums sums;

                sums_init(&sums, kind);
                sums.run.disturbance =
                    (struct disturbance){.what = kinds[i / 2], .when = when, .late = i % 2};
                run_job(&sums.run);
                disturbed = sums.run.disturbed;
                check_honest(&sums);
                if (sums.run.result.status != 0)
                    assert_int_equal(sums.run.result.status, -ECANCELED);
                sums_release(&sums);
            }
        }
    }
}

/* What is stopped when an answer has come, and nothing is on its way, asks for nothing more. */
static void test_abort_between_steps(void **state)
{
    bool disturbed = true;

    (void)state;
    for (unsigned when = 1; disturbed; when++) {
        struct sums sums;
        const char *after;

        sums_init(&sums, CHECKSUM);
        sums.run.disturbance = (struct disturbance){.what = DISTURB_ABORT, .when = when};
        run_job(&sums.run);
        check_honest(&sums);
        disturbed = sums.run.disturbed;
        after = sums.fs.log + sums.log_then;
        if (disturbed && sums.run.result.status != 0)
            assert_true(!strstr(after, "CREATE") && !strstr(after, "WRITE") &&
                        !strstr(after, "LINK"));
        else if (disturbed) /* it has been given its name */
            assert_null(strstr(after, "LINK"));
        sums_release(&sums);
    }
}

/* The copy is there; only its digests are not. */
static void test_only_digests_fail(void **state)
{
    struct sums sums;
    struct fake_file *file;

    (void)state;
    sums_init(&sums, NEW_FILE);
    sums.fs.refuse[STORE_WRITE] = ENOSPC; /* of what the job does, digest file and lock need it */
    sums.run.options.target = &sums.nowhere;
    sums.run.options.digests = COPY_DIGESTS_OF_SOURCE;
    sums.source.identity = "file image";
    sums.source.mtime_ns = 77;
    run_job(&sums.run);
    assert_int_equal(sums.run.result.status, -ENOSPC);
    assert_true(sums.run.result.complete);
    assert_false(sums.run.result.resumable);
    file = fake_fs_find(&sums.fs, "sums");
    assert_null(file);
    assert_null(fake_fs_temporary(&sums.fs));
    sums_release(&sums);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_read_once),
        cmocka_unit_test(test_holes_across_blocks),
        cmocka_unit_test(test_ways),
        cmocka_unit_test(test_salvage),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_every_fault),
        cmocka_unit_test(test_every_stop),
        cmocka_unit_test(test_abort_between_steps),
        cmocka_unit_test(test_only_digests_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
