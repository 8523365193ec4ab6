/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that read back, salvage, keep to a rate, write durably, flush as they go, and look whether
 * the source has changed. */
#include "schedule.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "fake_private.h"
#include "src/copy/target.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define GRANULE      (256 * KIB)
#define THIN         (64 * KIB)
#define SECOND       LOOP_SECOND
#define MAX_TIMES    512

enum kind { NEW_FILE, LUN, KINDS };

struct scene {
    struct fake fake;
    struct fake_fs fs;
    struct fake_disk source, target;
    struct fake_end from, to;
    struct run run;
    enum kind kind;
    /* READs of the target at this offset, and how often they are spoilt before they see it. */
    uint64_t spoil_at;
    unsigned spoil;
    unsigned restart_before_flush;    /* so many */
    bool restart_every_other;         /* and these */
    int64_t touch;                    /* the source's mtime, from the first WRITE on */
    uint64_t grow;                    /* the source's size, likewise; 0: as it is */
    uint64_t reads[MAX_TIMES];        /* of the source: when they were done */
    bool wrote;                       /* data: the head is blank, and that is flushed */
    unsigned read_count, flush_count; /* FLUSHes since then */
    uint64_t bad_bytes, bad_first;
};

static struct fake_disk *written_disk(struct scene *scene)
{
    struct fake_file *file;

    if (scene->kind == LUN)
        return &scene->target;
    file = fake_fs_find(&scene->fs, "image");
    if (!file)
        file = fake_fs_temporary(&scene->fs);
    return file ? file->disk : NULL;
}

static void on_write(struct scene *scene)
{
    scene->source.mtime_ns = scene->touch;
    if (scene->grow)
        scene->source.size = scene->grow;
}

static void before(struct fake *fake, const struct fake_op *op)
{
    struct scene *scene = container_of(fake, struct scene, fake);
    struct fake_disk *disk = written_disk(scene);

    if (op->kind != FAKE_REQ)
        return;
    if (fake_dev_is_on(op->dev, &scene->source)) {
        assert_in_range(scene->read_count, 0, MAX_TIMES - 1);
        scene->reads[scene->read_count++] = loop_now(fake->loop);
    } else if (op->req->op == BLK_READ && scene->spoil > 0 && op->req->offset <= scene->spoil_at &&
               scene->spoil_at < op->req->offset + op->req->len) {
        scene->spoil--;
        disk->written[fake_disk_index(disk, scene->spoil_at)] ^= 4;
    } else if (op->req->op == BLK_FLUSH && scene->wrote) {
        scene->flush_count++;
        if (scene->restart_every_other && scene->flush_count % 2 == 1) {
            fake_disk_restart(disk);
        } else if (scene->restart_before_flush > 0) {
            scene->restart_before_flush--;
            fake_disk_restart(disk);
        }
    } else if (op->req->op == BLK_WRITE) {
        scene->wrote = true;
        on_write(scene);
    }
}

static void bad_range(void *opaque, uint64_t offset, uint64_t len)
{
    struct scene *scene = ((struct run *)opaque)->opaque;

    if (scene->bad_bytes == 0)
        scene->bad_first = offset;
    scene->bad_bytes += len;
}

/* The options and the disks may be changed before run(). stride: 0: every byte exists. */
static void scene_init(struct scene *scene, enum kind kind, uint64_t size, uint64_t stride)
{
    memset(scene, 0, sizeof(*scene));
    scene->kind = kind;
    fake_init(&scene->fake);
    scene->fake.before = before;
    fake_disk_init(&scene->source, &scene->fake, size, stride);
    fake_disk_fill(&scene->source, 1);
    fake_disk_init(&scene->target, &scene->fake, size, stride);
    fake_disk_fill(&scene->target, 1000000);
    fake_fs_init(&scene->fs, &scene->fake);
    scene->fs.thin = stride;
    scene->fs.like.caps = BLK_CAN_FUA;
    scene->target.caps = BLK_BARE | BLK_CAN_FUA | BLK_CAN_ZERO;
    scene->target.logging = true;
    scene->source.zero_between = scene->target.zero_between = true;
    scene->target.limits.align = 512;
    fake_end_disk(&scene->from, &scene->source, "fake", "a");
    if (kind == LUN)
        fake_end_disk(&scene->to, &scene->target, "fake", "b");
    else
        fake_end_file(&scene->to, &scene->fs, "image");
    scene->run = (struct run){
        .fake = &scene->fake,
        .options =
            {
                .sources = &scene->from.url,
                .source_count = 1,
                .target = &scene->to.url,
                .depth = 2,
                .lanes = 1,
                .chunk = GRANULE,
                .overwrite = true,
                .settings = {.timeout = 60 * SECOND, .give_up = 600 * SECOND},
                .bad_range = bad_range,
            },
        .source = &scene->source,
        .target = kind == LUN ? &scene->target : NULL,
        .fs = kind == LUN ? NULL : &scene->fs,
        .opaque = scene,
        .name = "verify",
    };
}

static void run(struct scene *scene)
{
    run_job(&scene->run);
    assert_int_equal(scene->source.open, 0);
    assert_null(fake_fs_temporary(&scene->fs));
}

static void scene_release(struct scene *scene)
{
    fake_disk_release(&scene->source);
    fake_disk_release(&scene->target);
    fake_fs_release(&scene->fs);
    fake_release(&scene->fake);
}

static void check_complete(struct scene *scene)
{
    if (scene->run.result.status != 0)
        fail_msg("%s", scene->run.result.error.text);
    assert_int_equal(scene->run.result.bytes, scene->source.size);
    assert_true(fake_disk_holds(written_disk(scene), &scene->source, 0, scene->source.size));
    if (scene->kind == NEW_FILE)
        assert_non_null(fake_fs_find(&scene->fs, "image"));
}

/* No name, no head. */
static void check_failed(struct scene *scene, int code, const char *part)
{
    assert_int_equal(scene->run.result.status, -code);
    if (!strstr(scene->run.result.error.text, part))
        fail_msg("\"%s\" does not say \"%s\"", scene->run.result.error.text, part);
    if (scene->kind == NEW_FILE)
        assert_null(fake_fs_find(&scene->fs, "image"));
    else
        assert_false(fake_disk_resembles(&scene->target, &scene->source, 0, TARGET_HEAD));
}

/* ---- Reading back ----------------------------------------------------------------------------- */

#define GRANULES 8
#define SIZE     (GRANULES * GRANULE - 512)

static void init_verify(struct scene *scene, enum kind kind, uint32_t chunk, unsigned depth)
{
    scene_init(scene, kind, SIZE, THIN);
    scene->run.options.verify = true;
    scene->run.options.chunk = chunk;
    scene->run.options.depth = depth;
}

static void test_clean(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct scene scene;

        init_verify(&scene, (enum kind)kind, GRANULE, 2);
        run(&scene);
        check_complete(&scene);
        assert_int_equal(scene.run.result.mended, 0);
        assert_int_equal(scene.run.notices, 0);
        assert_int_equal(written_disk(&scene)->bytes_landed, SIZE);
        assert_int_equal(written_disk(&scene)->bytes_asked, SIZE);
        /* From the medium, not from a cache. */
        for (const char *at = scene.target.log; (at = strstr(at, "READ ")); at++)
            assert_memory_equal(strchr(at, '\n') - 4, " FUA", 4);
        scene_release(&scene);
    }
}

static uint64_t head_of(enum kind kind)
{
    return kind == LUN ? TARGET_HEAD : 0;
}

/* A bit of each granule in turn is another when it is read back: found, told, copied once more. */
static void test_spoilt_once(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        for (uint64_t granule = head_of((enum kind)kind) / GRANULE; granule < GRANULES; granule++) {
            struct scene scene;
            char text[200];
            uint64_t len = granule == GRANULES - 1 ? GRANULE - 512 : GRANULE;

            init_verify(&scene, (enum kind)kind, granule % 2 ? GRANULE : 2 * GRANULE,
                        1 + (unsigned)granule % 3);
            scene.spoil_at = granule * GRANULE + 2 * THIN + 5;
            scene.spoil = 1;
            run(&scene);
            check_complete(&scene);
            assert_int_equal(scene.run.result.mended, 1);
            assert_int_equal(scene.run.notices, 1);
            snprintf(text, sizeof(text),
                     "what was written to the %" PRIu64 " bytes at offset %" PRIu64
                     " reads back differently; copying them once more",
                     len, granule * GRANULE);
            assert_non_null(strstr(scene.run.notice, text));
            assert_int_equal(written_disk(&scene)->bytes_landed, SIZE + len);
            assert_int_equal(written_disk(&scene)->bytes_asked, SIZE + len);
            assert_int_equal(scene.run.result.lost, 0);
            scene_release(&scene);
        }
    }
}

/* And again: nothing gets a head or a name. */
static void test_spoilt_twice(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        for (uint64_t granule = head_of((enum kind)kind) / GRANULE; granule < GRANULES; granule++) {
            struct scene scene;
            char text[200];

            init_verify(&scene, (enum kind)kind, granule % 2 ? GRANULE : 2 * GRANULE, 2);
            scene.spoil_at = granule * GRANULE;
            scene.spoil = 2;
            run(&scene);
            snprintf(text, sizeof(text),
                     "bytes at offset %" PRIu64 " reads back differently, for "
                     "the second time",
                     granule * GRANULE);
            check_failed(&scene, EIO, text);
            assert_int_equal(strncmp(scene.run.result.error.text, "target: ", 8), 0);
            scene_release(&scene);
        }
    }
}

/* The head is read back too. */
static void test_spoilt_head(void **state)
{
    (void)state;
    for (unsigned times = 1; times <= 2; times++) {
        struct scene scene;

        init_verify(&scene, LUN, GRANULE, 2);
        scene.spoil_at = 3 * THIN;
        scene.spoil = times;
        run(&scene);
        if (times == 1) {
            check_complete(&scene);
            assert_int_equal(scene.target.bytes_landed, SIZE + TARGET_HEAD);
        } else {
            assert_int_equal(scene.run.result.status, -EIO);
            assert_non_null(strstr(scene.run.result.error.text, "for the second time"));
        }
        scene_release(&scene);
    }
}

/* One that has become shorter: what an earlier read left in the buffer is no proof. */
static void test_short(void **state)
{
    unsigned reads;

    (void)state;
    for (unsigned depth = 1; depth <= 2; depth++) {
        struct scene scene;

        init_verify(&scene, NEW_FILE, GRANULE, depth);
        run(&scene);
        reads = scene.fake.submitted;
        scene_release(&scene);
        for (unsigned number = 1; number <= reads; number++) {
            init_verify(&scene, NEW_FILE, GRANULE, depth);
            scene.fake.fault = (struct fake_fault){.number = number};
            run(&scene);
            if (atomic_load(&scene.fake.fault_hit))
                check_failed(&scene, EIO, "bytes early");
            else
                check_complete(&scene);
            scene_release(&scene);
        }
    }
}

/* What is lost of what was mended is copied again, and read back again. */
static void test_spoilt_and_lost(void **state)
{
    struct scene scene;

    (void)state;
    init_verify(&scene, NEW_FILE, GRANULE, 2);
    scene.spoil_at = 5 * GRANULE;
    scene.spoil = 1;
    scene.restart_before_flush = 2; /* the first, and that after */
    run(&scene);
    check_complete(&scene);
    assert_int_equal(scene.run.result.mended, 1);
    assert_int_equal(scene.run.result.lost, 2 * SIZE);
    scene_release(&scene);
}

/* ---- Salvaging -------------------------------------------------------------------------------- */

static void test_salvage(void **state)
{
    (void)state;
    for (int verify = 0; verify < 2; verify++) {
        struct scene scene;

        scene_init(&scene, NEW_FILE, 2 * GRANULE, 0);
        scene.run.options.salvage = true;
        scene.run.options.verify = verify;
        scene.source.bad_from = GRANULE + 8192 + 100;
        scene.source.bad_to = GRANULE + 4 * 4096;
        run(&scene);
        assert_int_equal(scene.run.result.status, 0);
        assert_int_equal(scene.run.result.bad, 8192);
        assert_int_equal(scene.bad_first, GRANULE + 8192);
        assert_int_equal(scene.bad_bytes, 8192);
        memset(scene.source.durable + GRANULE + 8192, 0, 8192);
        check_complete(&scene);
        assert_int_equal(scene.run.result.mended, 0);
        scene_release(&scene);
    }
}

static void test_no_salvage(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, NEW_FILE, 2 * GRANULE, 0);
    scene.source.bad_from = GRANULE + 8192;
    scene.source.bad_to = GRANULE + 4 * 4096;
    run(&scene);
    check_failed(&scene, EIO, "source: reading fake:a at offset 270336: the fake cannot read that");
    assert_int_equal(scene.bad_bytes, 0);
    scene_release(&scene);
    /* And where it is not the medium. */
    scene_init(&scene, NEW_FILE, 2 * GRANULE, 0);
    scene.run.options.salvage = true;
    scene.fake.fault = (struct fake_fault){.number = 9, .code = EACCES};
    run(&scene);
    check_failed(&scene, EACCES, "source: reading fake:a at offset 0: the fake says no");
    assert_int_equal(scene.bad_bytes, 0);
    scene_release(&scene);
}

/* ---- Rate ------------------------------------------------------------------------------------- */

static void test_rate(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, NEW_FILE, 8 * GRANULE, THIN);
    scene.run.options.rate = MIB; /* four chunks a second */
    run(&scene);
    check_complete(&scene);
    assert_int_equal(scene.read_count, 8);
    for (unsigned i = 0; i < 8; i++)
        assert_in_range(scene.reads[i] - scene.run.begun, i * SECOND / 4,
                        i * SECOND / 4 + SECOND / 20);
    scene_release(&scene);
    /* Reading back is bound by it too. */
    scene_init(&scene, NEW_FILE, 8 * GRANULE, THIN);
    scene.run.options.rate = MIB;
    scene.run.options.verify = true;
    run(&scene);
    check_complete(&scene);
    assert_in_range(scene.run.ended - scene.run.begun, 15 * SECOND / 4,
                    15 * SECOND / 4 + SECOND / 4);
    scene_release(&scene);
}

/* Who waits for the rate is stopped at once. */
static void test_stop_while_waiting(void **state)
{
    (void)state;
    for (int abort = 0; abort < 2; abort++) {
        struct scene scene;

        scene_init(&scene, NEW_FILE, 8 * GRANULE, THIN);
        scene.run.options.rate = 1024;
        scene.run.disturbance = (struct disturbance){
            .what = abort ? DISTURB_ABORT : DISTURB_STOP, .when = 10, .late = true};
        run(&scene);
        assert_int_equal(scene.read_count, 1);
        check_failed(&scene, ECANCELED, "interrupted");
        assert_int_equal(scene.run.ended - scene.run.stopped, 0);
        scene_release(&scene);
    }
}

/* A copy whose side is away is stopped at once: what waits to be repeated is not on the wire. */
static void test_stop_while_away(void **state)
{
    (void)state;
    for (int side = 0; side < 2; side++) {
        struct scene scene;

        scene_init(&scene, LUN, 12 * GRANULE, THIN);
        scene.source.recover_lost = scene.target.recover_lost = UINT32_MAX;
        /* Opened, the start read, the head blanked; and one chunk is on its way. */
        scene.run.disturbance = (struct disturbance){
            .what = side ? DISTURB_LOSE_SOURCE : DISTURB_LOSE_TARGET, .when = 6, .late = true};
        scene.run.then = (struct disturbance){.what = DISTURB_STOP, .when = 12, .late = true};
        run(&scene);
        check_failed(&scene, ECANCELED, "interrupted");
        assert_non_null(
            strstr(scene.run.notice, side ? "source: fake:a is away" : "target: fake:b is away"));
        assert_int_equal(scene.run.ended - scene.run.stopped, 0);
        scene_release(&scene);
    }
}

/* ---- Durable ---------------------------------------------------------------------------------- */

/* Every write is, and nothing is left to be flushed. */
static void test_sync(void **state)
{
    struct scene scene;
    const char *line;

    (void)state;
    scene_init(&scene, LUN, 8 * GRANULE, THIN);
    scene.run.options.sync = true;
    run(&scene);
    check_complete(&scene);
    for (line = scene.target.log; *line; line = strchr(line, '\n') + 1) {
        const char *end = strchr(line, '\n');

        if (strncmp(line, "WRITE", 5) == 0)
            assert_memory_equal(end - 4, " FUA", 4);
    }
    assert_int_equal(scene.flush_count, 0);
    scene_release(&scene);
}

/* ---- Flushing as it goes ---------------------------------------------------------------------- */

/* WRITEs before each FLUSH, and after the last: "16 8". */
static void runs_of_writes(const char *log, char *text, size_t size)
{
    unsigned count = 0;

    text[0] = '\0';
    for (const char *line = log; *line; line = strchr(line, '\n') + 1) {
        size_t at = strlen(text);

        if (strncmp(line, "WRITE", 5) == 0)
            count++;
        else if (strncmp(line, "FLUSH", 5) == 0 && count > 0) { /* not that of the blanked head */
            snprintf(text + at, size - at, "%s%u", at ? " " : "", count);
            count = 0;
        }
    }
    assert_int_equal(count, 1); /* the head */
}

/* A loss halves the interval, a FLUSH without one doubles it, up to what was asked for. */
static void test_interval(void **state)
{
    static const struct {
        unsigned restarts;
        const char *runs;
    } cases[] = {
        {0, "16 16 16 16"},
        /* One in a row halves it: 8 MiB, then 16 again. Another: 4 MiB, which is the least. */
        {1, "16 8 16 16 16 8"},
        {2, "16 8 4 8 16 16 16 4"},
        {3, "16 8 4 4 8 16 16 16 4"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct scene scene;
        char runs[200];

        scene_init(&scene, LUN, 65 * MIB, THIN);
        scene.run.options.chunk = MIB;
        scene.run.options.depth = 1;
        scene.run.options.flush_bytes = 16 * MIB;
        scene.restart_before_flush = cases[i].restarts;
        run(&scene);
        check_complete(&scene);
        runs_of_writes(scene.target.log, runs, sizeof(runs));
        assert_string_equal(runs, cases[i].runs);
        scene_release(&scene);
    }
}

/* Losses that do not come in a row are no reason to make each write durable by itself. */
static void test_losing_now_and_then(void **state)
{
    struct scene scene;
    unsigned fua = 0;

    (void)state;
    scene_init(&scene, LUN, 65 * MIB, THIN);
    scene.run.options.chunk = MIB;
    scene.run.options.depth = 1;
    scene.run.options.flush_bytes = 4 * MIB;
    scene.restart_every_other = true;
    run(&scene);
    check_complete(&scene);
    assert_true(scene.flush_count > 16);
    for (const char *at = scene.target.log; (at = strstr(at, " FUA\n")); at++)
        fua++;
    assert_int_equal(fua, 1); /* the head */
    scene_release(&scene);
}

/* By time too: every 15 s, and twice as long after each. */
static void test_interval_of_time(void **state)
{
    struct scene scene;
    char runs[200];

    (void)state;
    scene_init(&scene, LUN, 61 * MIB, THIN);
    scene.run.options.chunk = MIB;
    scene.run.options.depth = 1;
    scene.run.options.rate = MIB;
    run(&scene);
    check_complete(&scene);
    runs_of_writes(scene.target.log, runs, sizeof(runs));
    assert_string_equal(runs, "15 30 15");
    scene_release(&scene);
}

/* ---- Has the source changed? ------------------------------------------------------------------ */

static void test_changed(void **state)
{
    static const struct {
        int64_t touch;
        uint64_t grow;
        const char *text;
    } cases[] = {
        {5, 0, "it was written to (its mtime is another)"},
        {0, 3 * GRANULE, "its size was 1048576 bytes and is 786432"},
        {5, 5 * GRANULE, "its size was 1048576 bytes and is 1310720"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        for (int live = 0; live < 2; live++) {
            struct scene scene;
            bool smaller = cases[i].grow == 3 * GRANULE;

            scene_init(&scene, NEW_FILE, 5 * GRANULE, THIN);
            scene.source.size = 4 * GRANULE;
            scene.run.options.allow_live = live;
            scene.touch = cases[i].touch;
            scene.grow = cases[i].grow;
            run(&scene);
            if (smaller) {
                check_failed(&scene, ENOSPC, "it has become smaller");
            } else if (!live) {
                check_failed(&scene, ESTALE, cases[i].text);
                check_failed(&scene, ESTALE, "source: fake:a changed while it was copied: ");
                check_failed(&scene, ESTALE, "--allow-live");
            } else {
                assert_int_equal(scene.run.result.status, 0);
                assert_true(fake_disk_holds(written_disk(&scene), &scene.source, 0, 4 * GRANULE));
                assert_non_null(strstr(scene.run.notice, cases[i].text));
                assert_int_equal(scene.run.notices, 1);
            }
            scene_release(&scene);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_spoilt_once),
        cmocka_unit_test(test_spoilt_twice),
        cmocka_unit_test(test_spoilt_head),
        cmocka_unit_test(test_short),
        cmocka_unit_test(test_spoilt_and_lost),
        cmocka_unit_test(test_salvage),
        cmocka_unit_test(test_no_salvage),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_stop_while_waiting),
        cmocka_unit_test(test_stop_while_away),
        cmocka_unit_test(test_sync),
        cmocka_unit_test(test_interval),
        cmocka_unit_test(test_losing_now_and_then),
        cmocka_unit_test(test_interval_of_time),
        cmocka_unit_test(test_changed),
    };

    return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}
