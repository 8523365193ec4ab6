/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies with a reference: what equals it is not written. A target with a backing file is a disk that holds
 * what the backing file has.
 */
#include "schedule.h"

#include <errno.h>
#include <string.h>

#include <lunferry/units.h>

#define CHUNK (64 * KIB)
#define SIZE  (4 * CHUNK)

struct scene {
    struct fake fake;
    struct fake_disk source, target, base;
    struct fake_end from, to, behind;
    struct run run;
};

/* All three hold the same. */
static void init(struct scene *scene, bool with_base)
{
    memset(scene, 0, sizeof(*scene));
    fake_init(&scene->fake);
    fake_disk_init(&scene->source, &scene->fake, SIZE, 0);
    fake_disk_fill(&scene->source, 1);
    fake_disk_init(&scene->target, &scene->fake, SIZE, 0);
    fake_disk_copy(&scene->target, &scene->source);
    fake_disk_init(&scene->base, &scene->fake, SIZE, 0);
    fake_disk_copy(&scene->base, &scene->source);
    scene->target.caps = BLK_CAN_FUA;
    scene->target.limits.align = 512;
    fake_end_disk(&scene->from, &scene->source, "fake", "a");
    fake_end_disk(&scene->to, &scene->target, "fake", "b");
    fake_end_disk(&scene->behind, &scene->base, "fake", "c");
    scene->run = (struct run){
        .fake = &scene->fake,
        .target = &scene->target,
        .options =
            {
                .sources = &scene->from.url,
                .source_count = 1,
                .target = &scene->to.url,
                .base = with_base ? &scene->behind.url : NULL,
                .base_image.format = IMAGE_RAW,
                .image.format = IMAGE_RAW,
                .compare = true,
                .depth = 2,
                .lanes = 1,
                .chunk = CHUNK,
                .zero_unit = 4096,
                .journal = "",
            },
    };
}

static void release(struct scene *scene)
{
    fake_disk_release(&scene->source);
    fake_disk_release(&scene->target);
    fake_disk_release(&scene->base);
    fake_release(&scene->fake);
}

static void change(struct fake_disk *disk, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset; i < offset + len; i++)
        disk->written[i] = disk->durable[i] ^= 0x55;
}

static void blank(struct fake_disk *disk, uint64_t offset, uint64_t len)
{
    memset(disk->written + offset, 0, len);
    memset(disk->durable + offset, 0, len);
}

static void hole(struct fake_disk *disk, uint64_t offset, uint64_t len)
{
    disk->caps |= BLK_CAN_EXTENTS;
    fake_disk_set(disk, offset, len, BLK_ZEROS);
}

static void run_and_check(struct scene *scene, const char *target_saw)
{
    scene->target.logging = true;
    run_job(&scene->run);
    assert_int_equal(scene->run.result.status, 0);
    assert_true(fake_disk_holds(&scene->target, &scene->source, 0, SIZE));
    fake_disk_check_commands(&scene->target, target_saw);
    release(scene);
}

/* ---- What the target holds -------------------------------------------------------------------- */

static void test_nothing_differs(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, false);
    run_and_check(&scene, "FLUSH; READ 0+64k; READ 64k+64k; READ 128k+64k; READ 192k+64k");
    assert_int_equal(scene.run.result.moved, 0);
    assert_int_equal(scene.run.result.skipped, SIZE);
}

static void test_only_what_differs(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, false);
    change(&scene.source, 5000, 1);
    change(&scene.source, CHUNK + 8 * KIB, 8 * KIB);
    run_and_check(&scene, "FLUSH; READ 0+64k; READ 64k+64k; WRITE 4k+4k; WRITE 72k+8k; "
                          "READ 128k+64k; READ 192k+64k; FLUSH");
    assert_int_equal(scene.run.result.moved, 12 * KIB);
}

/* Even where everything is to be written, what is there is not. */
static void test_without_zero_detection(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, false);
    scene.run.options.zero_unit = 0;
    blank(&scene.source, CHUNK, CHUNK);
    blank(&scene.target, CHUNK, 32 * KIB);
    hole(&scene.source, CHUNK, CHUNK);
    run_and_check(&scene, "FLUSH; READ 0+64k; READ 64k+64k; READ 128k+64k; WRITE 96k+32k; "
                          "READ 192k+64k; FLUSH");
}

/* Zeros of the source are compared too, unless the target is known to have them. */
static void test_zeros(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, false);
    hole(&scene.source, CHUNK, 2 * CHUNK);
    blank(&scene.target, CHUNK, CHUNK);
    scene.target.caps |= BLK_CAN_ZERO | BLK_CAN_UNMAP;
    scene.target.limits.max_zero = SIZE;
    run_and_check(&scene, "FLUSH; READ 0+64k; READ 64k+64k; READ 128k+64k; READ 192k+64k; "
                          "ZERO 128k+64k unmap; FLUSH");
    assert_int_equal(scene.run.result.zeroed, CHUNK);

    init(&scene, false);
    hole(&scene.source, CHUNK, 2 * CHUNK);
    hole(&scene.target, CHUNK, 2 * CHUNK);
    run_and_check(&scene, "FLUSH; EXTENTS 0+256k; READ 0+64k; READ 192k+64k");
}

/* Known zeros of the target are not read. */
static void test_target_zero(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, false);
    hole(&scene.target, CHUNK, 2 * CHUNK);
    blank(&scene.source, CHUNK + 16 * KIB, 16 * KIB);
    run_and_check(&scene, "FLUSH; EXTENTS 0+256k; READ 0+64k; WRITE 64k+16k; WRITE 96k+32k; "
                          "WRITE 128k+64k; READ 192k+64k; FLUSH");
}

/* A write mends many a block. */
static void test_target_is_damaged(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, false);
    scene.target.bad_from = CHUNK;
    scene.target.bad_to = CHUNK + 1;
    run_and_check(&scene, "FLUSH; READ 0+64k; READ 64k+64k; READ 128k+64k; WRITE 64k+64k; "
                          "READ 192k+64k; FLUSH");
}

/* ---- A backing file --------------------------------------------------------------------------- */

static void test_base(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, true);
    change(&scene.source, CHUNK, 4 * KIB);
    scene.base.logging = true;
    scene.target.logging = true;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, 0);
    assert_true(fake_disk_holds(&scene.target, &scene.source, 0, SIZE));
    fake_disk_check_commands(&scene.base, "READ 0+64k; READ 64k+64k; READ 128k+64k; READ 192k+64k");
    fake_disk_check_commands(&scene.target, "WRITE 64k+4k; FLUSH");
    release(&scene);
}

/* It ends in the middle of a chunk: behind it the target shows zeros. */
static void test_short_base(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, true);
    blank(&scene.target, CHUNK + 20 * KIB, SIZE - CHUNK - 20 * KIB);
    scene.base.size = CHUNK + 20 * KIB;
    blank(&scene.source, 3 * CHUNK, CHUNK);
    run_and_check(&scene, "WRITE 84k+44k; WRITE 128k+64k; FLUSH");
}

static void test_base_cannot_be_read(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, true);
    scene.base.bad_from = CHUNK;
    scene.base.bad_to = CHUNK + 1;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, -EIO);
    assert_non_null(strstr(scene.run.result.error.text, "backing file: "));
    release(&scene);
}

static void test_base_does_not_open(void **state)
{
    struct scene scene;

    (void)state;
    for (unsigned number = 1; number <= 3; number++) {
        init(&scene, true);
        scene.fake.fault =
            (struct fake_fault){.number = number, .code = EACCES, .retry = BLK_FATAL};
        run_job(&scene.run);
        assert_int_equal(scene.run.result.status, -EACCES);
        assert_false(scene.run.result.touched);
        release(&scene);
    }
}

static void somebody_writes(struct fake *fake, const struct fake_op *op)
{
    struct scene *scene = container_of(fake, struct scene, fake);

    if (op->kind == FAKE_REQ)
        scene->base.mtime_ns = 2;
}

static void test_base_changes(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, true);
    scene.base.mtime_ns = 1;
    scene.fake.before = somebody_writes;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, -ESTALE);
    assert_non_null(strstr(scene.run.result.error.text, "backing file: "));
    release(&scene);
}

/* The image would name itself. */
static void test_base_is_the_target(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, true);
    scene.run.options.base = &scene.to.url;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, -EINVAL);
    assert_false(scene.run.result.touched);
    release(&scene);
}

/* ---- Every order, and every loss -------------------------------------------------------------- */

static void check_all(bool with_base, enum disturb what, unsigned sample)
{
    struct odometer odometer = {.sample = SAMPLE(sample)};
    struct scene scene;

    do {
        unsigned last = 3; /* all is open by then */

        for (unsigned when = 3; when <= last; when++) {
            init(&scene, with_base);
            change(&scene.source, 100, 5000);
            change(&scene.source, CHUNK, CHUNK);
            blank(&scene.source, 3 * CHUNK, CHUNK);
            scene.run.odometer = &odometer;
            scene.run.chosen = CHOOSE_REQS;
            scene.run.options.settings =
                (struct blk_settings){.timeout = 20 * LOOP_SECOND, .give_up = LOOP_NEVER};
            scene.run.disturbance = (struct disturbance){.what = what, .when = when};
            run_job(&scene.run);
            assert_int_equal(scene.run.result.status, 0);
            assert_true(fake_disk_holds(&scene.target, &scene.source, 0, SIZE));
            if (scene.run.disturbed)
                last = when + 1;
            release(&scene);
        }
    } while (odometer_next(&odometer));
}

static void test_every_order(void **state)
{
    (void)state;
    check_all(false, DISTURB_NOT, 0);
    check_all(true, DISTURB_NOT, 300);
}

static void test_every_restart(void **state)
{
    (void)state;
    check_all(false, DISTURB_RESTART, 20);
    check_all(true, DISTURB_RESTART, 20);
    check_all(false, DISTURB_CRASH, 20);
    check_all(true, DISTURB_LOSE_TARGET, 20);
}

/* Every single operation fails, for good. */
static void test_every_fault(void **state)
{
    bool hit = true;

    (void)state;
    for (unsigned number = 1; hit; number++) {
        for (unsigned base = 0; base < 2; base++) {
            struct scene scene;

            init(&scene, base);
            change(&scene.source, 100, 5000);
            scene.fake.fault =
                (struct fake_fault){.number = number, .code = EIO, .retry = BLK_FATAL};
            run_job(&scene.run);
            hit = scene.fake.fault_hit;
            if (scene.run.result.status == 0)
                assert_true(fake_disk_holds(&scene.target, &scene.source, 0, SIZE));
            release(&scene);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_differs),
        cmocka_unit_test(test_only_what_differs),
        cmocka_unit_test(test_without_zero_detection),
        cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_target_zero),
        cmocka_unit_test(test_target_is_damaged),
        cmocka_unit_test(test_base),
        cmocka_unit_test(test_short_base),
        cmocka_unit_test(test_base_cannot_be_read),
        cmocka_unit_test(test_base_does_not_open),
        cmocka_unit_test(test_base_changes),
        cmocka_unit_test(test_base_is_the_target),
        cmocka_unit_test(test_every_order),
        cmocka_unit_test(test_every_restart),
        cmocka_unit_test(test_every_fault),
    };

    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
