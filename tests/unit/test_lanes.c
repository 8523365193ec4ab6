/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several lanes: real threads and loops, over disks that are done at once. Made for the thread
 * sanitizer. */
#include "schedule.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/target.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define SIZE         (3 * MIB + 1000)
#define TARGET_SIZE  (4 * MIB)
#define THIN         (16 * KIB)

struct scene {
    struct fake fake;
    struct fake_disk source, target;
    struct fake_fs fs;
    struct fake_end from, to;
    struct copy_options options;
    struct copy_result result;
    unsigned done;
    atomic_uint notices;
    /* copy_stop() or copy_abort() after so many turns of the job's loop; 0: not */
    unsigned stop, abort;
    unsigned crash; /* at which operation */
    /* For test_reason_survives(). */
    atomic_bool failing, noticed;
    atomic_uint closed;
};

static void notice(void *opaque, bool important, const char *text)
{
    (void)important;
    struct scene *scene = opaque;

    must(&scene->fake, text[0] != '\0');
    atomic_fetch_add(&scene->notices, 1);
}

static void done(struct copy_job *job, void *opaque)
{
    struct scene *scene = opaque;

    scene->result = *copy_result(job);
    scene->done++;
}

/* Every disk may be given its limits and caps before run(). stride: of thin disks, or 0. */
static void init(struct scene *scene, unsigned lanes, unsigned depth, uint64_t stride)
{
    memset(scene, 0, sizeof(*scene));
    fake_init(&scene->fake);
    loop_free(scene->fake.loop);
    scene->fake.loop = loop_new(); /* threads have to wake it */
    scene->fake.automatic = true;
    fake_disk_init(&scene->source, &scene->fake, SIZE, stride);
    fake_disk_fill(&scene->source, 1);
    fake_disk_init(&scene->target, &scene->fake, TARGET_SIZE, stride);
    fake_disk_fill(&scene->target, 1000000);
    fake_fs_init(&scene->fs, &scene->fake);
    fake_end_disk(&scene->from, &scene->source, "fake", "a");
    fake_end_disk(&scene->to, &scene->target, "fake", "b");
    scene->options = (struct copy_options){
        .sources = &scene->from.url,
        .source_count = 1,
        .image.format = IMAGE_RAW, /* nothing is read to be sure */
        .target = &scene->to.url,
        .lanes = lanes,
        .depth = depth,
        .chunk = 64 * KIB,
        .journal = "",
        .overwrite = true,
        .mode = 0600,
        .notice = notice,
        .done = done,
        .opaque = scene,
    };
}

static void run(struct scene *scene)
{
    struct copy_job *job = copy_start(scene->fake.loop, &scene->options);

    assert_non_null(job);
    for (unsigned turn = 1; scene->done == 0; turn++) {
        struct copy_progress progress;

        if (turn == scene->stop)
            copy_stop(job);
        if (turn == scene->abort)
            copy_abort(job);
        loop_turn(scene->fake.loop, LOOP_NEVER);
        if (atomic_load(&scene->closed) >= 2)
            atomic_store(&scene->noticed, true);
        copy_progress(job, &progress);
        assert_true(progress.done <= SIZE);
        /* Not their sum: a slot of another lane may be counted as reading, and then as writing. */
        assert_true(progress.reading <= scene->options.lanes * scene->options.depth);
        assert_true(progress.writing <= scene->options.lanes * scene->options.depth);
    }
    assert_int_equal(scene->done, 1);
    copy_free(job);
    assert_int_equal(scene->source.open, 0);
    assert_int_equal(scene->target.open, 0);
    assert_int_equal(scene->fs.open, 0);
}

static void release(struct scene *scene)
{
    fake_disk_release(&scene->source);
    fake_disk_release(&scene->target);
    fake_fs_release(&scene->fs);
    fake_release(&scene->fake);
}

static void check_complete(const struct scene *scene)
{
    if (scene->result.status != 0)
        fail_msg("%s", scene->result.error.text);
    assert_int_equal(scene->result.bytes, scene->source.size);
    assert_int_equal(scene->result.buffer_bytes,
                     (uint64_t)scene->options.lanes * scene->options.depth * scene->options.chunk);
    assert_true(fake_disk_holds(&scene->target, &scene->source, 0, scene->source.size));
}

/* ---- Success ---------------------------------------------------------------------------------- */

static const struct kind {
    unsigned caps;
    uint32_t align, max_transfer;
} kinds[] = {
    {0, 1, 16 * KIB},
    {BLK_BARE, 512, 64 * KIB},
    {BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO, 4096, 64 * KIB},
};

static void apply(struct scene *scene, const struct kind *kind)
{
    scene->target.caps = kind->caps;
    scene->target.limits.align = kind->align;
    scene->target.limits.max_write = kind->max_transfer;
    scene->source.limits.max_read = kind->max_transfer;
}

static void test_lanes(void **state)
{
    (void)state;
    for (unsigned lanes = 1; lanes <= 4; lanes *= 2) {
        for (size_t i = 0; i < COUNT(kinds); i++) {
            struct scene scene;

            init(&scene, lanes, 3, 0);
            apply(&scene, &kinds[i]);
            run(&scene);
            check_complete(&scene);
            release(&scene);
        }
    }
}

static void test_more_lanes_than_work(void **state)
{
    struct scene scene;

    (void)state;
    init(&scene, 40, 1, 0);
    run(&scene);
    check_complete(&scene);
    release(&scene);
}

static void test_new_file(void **state)
{
    struct scene scene;
    const struct fake_file *file;

    (void)state;
    init(&scene, 4, 2, 0);
    fake_end_file(&scene.to, &scene.fs, "image");
    run(&scene);
    assert_int_equal(scene.result.status, 0);
    file = fake_fs_find(&scene.fs, "image");
    assert_non_null(file);
    assert_int_equal(file->disk->size, SIZE);
    assert_int_equal(file->disk->open, 0);
    assert_true(fake_disk_holds(file->disk, &scene.source, 0, SIZE));
    assert_null(fake_fs_temporary(&scene.fs));
    release(&scene);
}

/* The devices without a server: every lane count gives the same bytes. */
static void test_memory_devices(void **state)
{
    char random[] = "random", null[] = "null", ram[] = "ram", size[] = "3000k", room[] = "4M";
    struct url source = {.scheme = random, .path = size, .text = size};
    struct url sinks[] = {{.scheme = null, .path = room, .text = room},
                          {.scheme = ram, .path = room, .text = room}};
    struct fake_disk first;

    (void)state;
    for (unsigned lanes = 1; lanes <= 4; lanes++) {
        struct scene scene;

        init(&scene, lanes, 4, 0);
        scene.options.sources = &source;
        run(&scene);
        assert_int_equal(scene.result.status, 0);
        assert_int_equal(scene.result.bytes, 3000 * KIB);
        if (lanes == 1) {
            fake_disk_init(&first, &scene.fake, TARGET_SIZE, 0);
            fake_disk_copy(&first, &scene.target);
        }
        assert_memory_equal(scene.target.durable, first.durable, TARGET_SIZE);
        for (size_t i = 0; i < COUNT(sinks); i++) {
            scene.options.target = &sinks[i];
            scene.done = 0;
            run(&scene);
            assert_int_equal(scene.result.status, 0);
        }
        release(&scene);
    }
    fake_disk_release(&first);
}

/* ---- Failure ---------------------------------------------------------------------------------- */

static void check_failed(const struct scene *scene, int code)
{
    const char *text = scene->result.error.text;

    assert_int_equal(scene->result.status, -code);
    assert_int_equal(scene->result.error.code, code);
    if (strncmp(text, "source: ", 8) == 0)
        assert_non_null(strstr(text, "fake:a"));
    else if (strncmp(text, "target: ", 8) == 0)
        assert_non_null(strstr(text, "fake:b"));
    else
        fail_msg("\"%s\" does not say which side", text);
}

/* Every operation fails in turn, in whichever lane that happens to be: an open, a clone, a piece. */
static void test_faults(void **state)
{
    struct scene scene;
    unsigned count, hits = 0;

    (void)state;
    init(&scene, 3, 2, THIN);
    apply(&scene, &kinds[1]);
    run(&scene);
    count = scene.fake.submitted;
    release(&scene);
    assert_true(count > 100);
    for (unsigned i = 1; i <= count; i += i < 20 ? 1 : 3) {
        init(&scene, 3, 2, THIN);
        apply(&scene, &kinds[1]);
        scene.fake.fault = (struct fake_fault){.number = i, .code = ENOSPC};
        run(&scene);
        if (atomic_load(&scene.fake.fault_hit)) {
            check_failed(&scene, ENOSPC);
            assert_non_null(strstr(scene.result.error.text, "the fake says no"));
            hits++;
        } else {
            check_complete(&scene);
        }
        release(&scene);
    }
    assert_true(hits > count / 5);
}

/*
 * A clone fails. Its lane does not end before the other one has, whose clones are cancelled because of
 * that, and has been noticed. Everything else waits until then. (Operations 3 to 5 are the first ones
 * of the three lanes, in any order; when it is the job's own lane that fails there is nothing to see.)
 */
static void hold_back(struct fake *fake, const struct fake_op *op)
{
    static _Thread_local const struct fake *fails;
    struct scene *scene = container_of(fake, struct scene, fake);

    if (op->number == fake->fault.number) {
        if (op->kind == FAKE_OPEN)
            fails = fake;
        else
            atomic_store(&scene->failing, true);
    }
    if (fails == fake && op->kind == FAKE_CLOSE) {
        atomic_store(&scene->failing, true);
        while (!atomic_load(&scene->noticed))
            sched_yield();
    }
    while (fails != fake && op->number > 2 && !atomic_load(&scene->failing))
        sched_yield();
    if (fails != fake && op->kind == FAKE_CLOSE)
        atomic_fetch_add(&scene->closed, 1);
}

/* That a lane gave up because of another one is not why the job failed. */
static void test_reason_survives(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        struct scene scene;

        init(&scene, 3, 2, THIN);
        scene.fake.fault = (struct fake_fault){.number = 4, .code = ENOSPC};
        scene.fake.before = hold_back;
        run(&scene);
        check_failed(&scene, ENOSPC);
        release(&scene);
    }
}

static void test_one_lane_only(void **state)
{
    (void)state;
    for (int side = 0; side < 2; side++) {
        struct scene scene;

        init(&scene, 2, 2, 0);
        if (side == 0)
            fake_end_disk(&scene.from, &scene.source, "single", "a");
        else
            fake_end_disk(&scene.to, &scene.target, "single", "b");
        run(&scene);
        assert_int_equal(scene.result.status, -ENOTSUP);
        assert_string_equal(scene.result.error.text,
                            side == 0 ? "source: opening single:a: fake can be open only once"
                                      : "target: opening single:b: fake can be open only once");
        release(&scene);
    }
}

/* ---- Sessions --------------------------------------------------------------------------------- */

/* Every operation is lost in turn, and with it its lane's session, and with that its epoch; or the
 * server is busy. Whatever a lane lost it copies again itself. */
static void test_losses(void **state)
{
    struct scene scene;
    unsigned count, hits = 0;
    uint64_t lost = 0;

    (void)state;
    init(&scene, 3, 2, THIN);
    apply(&scene, &kinds[1]);
    run(&scene);
    count = scene.fake.submitted;
    release(&scene);
    for (unsigned i = 3; i <= count; i += i < 20 ? 1 : 5) {
        init(&scene, 3, 2, THIN);
        apply(&scene, &kinds[1 + i % 2]);
        scene.target.epoch_of_session = true;
        scene.options.settings =
            (struct blk_settings){.timeout = 60 * LOOP_SECOND, .give_up = 600 * LOOP_SECOND};
        scene.fake.fault = (struct fake_fault){.number = i,
                                               .code = EIO,
                                               .retry = i % 8 == 3 ? BLK_REPEAT : BLK_LOST,
                                               .applies = i / 2 % 2};
        run(&scene);
        check_complete(&scene);
        hits += atomic_load(&scene.fake.fault_hit);
        lost += scene.result.lost;
        release(&scene);
    }
    assert_true(hits > count / 8);
    assert_true(lost > 0);
}

/* A server that crashes and is away for some attempts, for all lanes at once. */
static void crash(struct fake *fake, const struct fake_op *op)
{
    struct scene *scene = container_of(fake, struct scene, fake);

    if (op->number == scene->crash)
        fake_disk_lose(&scene->target, false);
}

static void test_crash(void **state)
{
    unsigned losses = 0;

    (void)state;
    for (unsigned i = 0; i < 30; i++) {
        struct scene scene;

        init(&scene, 4, 2, THIN);
        apply(&scene, &kinds[1 + i % 2]);
        scene.target.epoch_of_session = true;
        scene.target.recover_lost = i % 2;
        scene.crash = 7 + 5 * i;
        scene.fake.before = crash;
        scene.options.settings =
            (struct blk_settings){.timeout = 60 * LOOP_SECOND, .give_up = 600 * LOOP_SECOND};
        run(&scene);
        check_complete(&scene);
        losses += scene.result.losses;
        release(&scene);
    }
    assert_true(losses > 10);
}

/* ---- Stopped ---------------------------------------------------------------------------------- */

static void test_stop(void **state)
{
    unsigned stopped = 0;

    (void)state;
    for (unsigned i = 0; i < 80; i++) {
        struct scene scene;

        init(&scene, 3, 2, THIN);
        apply(&scene, &kinds[1 + i % 2]);
        scene.stop = i % 4 < 2 ? 1 + i / 4 : 0;
        scene.abort = i % 4 >= 2 ? 1 + i / 4 : 0;
        run(&scene);
        if (scene.result.status == 0) {
            check_complete(&scene);
        } else {
            assert_int_equal(scene.result.status, -ECANCELED);
            assert_string_equal(scene.result.error.text, "interrupted");
            /* An abort does not wait for what becomes of the head. */
            if (scene.stop)
                assert_false(fake_disk_resembles(&scene.target, &scene.source, 0, TARGET_HEAD));
            stopped++;
        }
        release(&scene);
    }
    assert_true(stopped > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lanes),         cmocka_unit_test(test_more_lanes_than_work),
        cmocka_unit_test(test_new_file),      cmocka_unit_test(test_memory_devices),
        cmocka_unit_test(test_faults),        cmocka_unit_test(test_reason_survives),
        cmocka_unit_test(test_one_lane_only), cmocka_unit_test(test_stop),
        cmocka_unit_test(test_losses),        cmocka_unit_test(test_crash),
    };

    return cmocka_run_group_tests_name("lanes", tests, NULL, NULL);
}
