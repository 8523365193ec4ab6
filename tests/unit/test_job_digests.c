/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that take digests: of a new file while it is copied, of a source that is copied to nowhere. */
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "fake_private.h"
#include "src/copy/digest_format.h"

#define BLOCK   ((uint64_t)DIGEST_DEFAULT_BLOCK)
#define BLOCKS  7u
#define SIZE    (BLOCKS * BLOCK - 512)
#define SECOND  LOOP_SECOND
#define ROOM    FAKE_TEXT
#define NOWHERE "null:8191P"

enum kind { NEW_FILE, CHECKSUM };

struct scene {
    struct fake fake;
    struct fake_fs fs;
    struct fake_disk source, lun;
    struct fake_end from, to, file;
    struct url nowhere;
    struct run run;
    struct digest *digest;
    enum kind kind;
    bool restart; /* before the first FLUSH */
    size_t
        log_then; /* how much the directory's log had before the last answer that preceded a stop */
    unsigned told;
    uint64_t told_offset[8], told_len[8];
};

/* Block 2 is known to be zeros, block 4 turns out to be. */
static void fill(struct fake_disk *disk)
{
    fake_disk_fill(disk, 7);
    fake_disk_set(disk, 2 * BLOCK, BLOCK, BLK_ZEROS);
    memset(disk->written + 4 * BLOCK, 0, BLOCK);
    memset(disk->durable + 4 * BLOCK, 0, BLOCK);
}

/* What a file system does: files have numbers, and their times are those of the last write. */
static void before(struct fake *fake, const struct fake_op *op)
{
    struct scene *scene = container_of(fake, struct scene, fake);

    for (size_t i = 0; i < FAKE_MAX_FILES; i++) {
        struct fake_file *file = &scene->fs.files[i];

        if (file->disk && strstr(file->name, "image")) {
            file->disk->identity = "file image";
            file->disk->mtime_ns = 77;
        }
    }
    if (scene->run.completions + 1 == scene->run.disturbance.when)
        scene->log_then = strlen(scene->fs.log);
    if (scene->restart && op->kind == FAKE_REQ && op->req->op == BLK_FLUSH) {
        scene->restart = false;
        fake_disk_restart(fake_fs_temporary(&scene->fs)->disk);
    }
}

static void differs(void *opaque, uint64_t offset, uint64_t len)
{
    struct scene *scene = ((struct run *)opaque)->opaque;

    assert_in_range(scene->told, 0, 7);
    scene->told_offset[scene->told] = offset;
    scene->told_len[scene->told++] = len;
}

static void no_bad_range(void *opaque, uint64_t offset, uint64_t len)
{
    (void)opaque;
    (void)offset;
    (void)len;
}

/* The options may be changed before run_job(). */
static void scene_init(struct scene *scene, enum kind kind)
{
    struct blk_error error;

    memset(scene, 0, sizeof(*scene));
    scene->kind = kind;
    scene->digest = digest_new(NULL);
    fake_init(&scene->fake);
    scene->fake.before = before;
    fake_disk_init(&scene->source, &scene->fake, SIZE, 0);
    scene->source.caps = BLK_CAN_EXTENTS;
    fill(&scene->source);
    scene->source.identity = kind == CHECKSUM ? "file image" : "lun";
    scene->source.mtime_ns = kind == CHECKSUM ? 77 : 0;
    fake_disk_init(&scene->lun, &scene->fake, SIZE, 0);
    scene->lun.caps = BLK_BARE;
    fake_fs_init(&scene->fs, &scene->fake);
    scene->fs.like.caps = BLK_CAN_FUA;
    fake_end_disk(&scene->from, &scene->source, "fake", "a");
    fake_end_file(&scene->to, &scene->fs, "image");
    fake_end_file(&scene->file, &scene->fs, "sums");
    assert_int_equal(url_parse(NOWHERE, &scene->nowhere, &error), 0);
    scene->run = (struct run){
        .fake = &scene->fake,
        .options =
            {
                .sources = &scene->from.url,
                .source_count = 1,
                .target = kind == NEW_FILE ? &scene->to.url : &scene->nowhere,
                .depth = 2,
                .lanes = 1,
                .chunk = BLOCK,
                .zero_unit = 4096,
                .settings = {.timeout = 60 * SECOND, .give_up = 600 * SECOND},
                .digests = kind == NEW_FILE ? COPY_DIGESTS_OF_TARGET : COPY_DIGESTS_OF_SOURCE,
                .digest_file = &scene->file.url,
                .differs = differs,
                .bad_range = no_bad_range,
                .mode = 0640,
            },
        .source = &scene->source,
        .fs = &scene->fs,
        .opaque = scene,
        .name = "digests",
    };
}

static void scene_release(struct scene *scene)
{
    url_release(&scene->nowhere);
    fake_disk_release(&scene->source);
    fake_disk_release(&scene->lun);
    fake_fs_release(&scene->fs);
    fake_release(&scene->fake);
    digest_free(scene->digest);
}

/* ---- What came of it -------------------------------------------------------------------------- */

/* What the list should be. */
static struct digest_list *true_list(struct scene *scene, uint32_t block)
{
    struct digest_list *list = digest_list_new(scene->source.size, block);

    assert_non_null(list);
    digest_list_take(list, scene->digest, 0, scene->source.written, scene->source.size);
    return list;
}

static void check_sums(struct scene *scene)
{
    const struct fake_file *file = fake_fs_find(&scene->fs, "sums");
    struct digest_list *list, *expected = true_list(scene, BLOCK);
    struct digest_decoder decoder;
    struct blk_error error;
    uint8_t root[DIGEST_SIZE];
    uint64_t offset, len;

    assert_non_null(file);
    assert_int_equal(file->attr.mode, 0640);
    assert_int_equal(digest_decode_init(&decoder, scene->digest), 0);
    if (digest_decode(&decoder, file->text, file->text_len, &error) < 0 ||
        digest_decode_end(&decoder, &list, &error) < 0)
        fail_msg("%s", error.text);
    assert_string_equal(decoder.subject.identity, "file image");
    assert_int_equal(decoder.subject.size, scene->source.size);
    assert_int_equal(decoder.subject.mtime_ns, 77);
    assert_int_equal(digest_list_block(list), BLOCK);
    assert_false(digest_list_differs(list, expected, 0, &offset, &len));
    digest_list_root(expected, scene->digest, root);
    assert_memory_equal(scene->run.result.digests.root, root, DIGEST_SIZE);
    digest_decode_release(&decoder);
    digest_list_free(list);
    digest_list_free(expected);
}

static void check_good(struct scene *scene)
{
    if (scene->run.result.status != 0)
        fail_msg("%s", scene->run.result.error.text);
    assert_int_equal(scene->run.result.digests.block, BLOCK);
    assert_int_equal(scene->run.result.digests.size, scene->source.size);
    assert_int_equal(scene->run.result.digests.mtime_ns, 77);
    assert_true(scene->run.result.complete);
    check_sums(scene);
    if (scene->kind == NEW_FILE)
        assert_true(fake_disk_holds(fake_fs_find(&scene->fs, "image")->disk, &scene->source, 0,
                                    scene->source.size));
}

/* All there, or nothing of it: no digests without their file, and none that are wrong. */
static void check_honest(struct scene *scene)
{
    const struct copy_result *result = &scene->run.result;

    if (!scene->fake.fault_hit || scene->fake.faulted_store_op != STORE_REMOVE)
        assert_null(fake_fs_temporary(&scene->fs));
    if (result->status == 0) {
        check_good(scene);
        return;
    }
    if (scene->kind == NEW_FILE && result->complete)
        assert_non_null(fake_fs_find(&scene->fs, "image"));
    /* Its answer was lost, and the name given all the same. */
    if (fake_fs_find(&scene->fs, "sums"))
        check_sums(scene);
}

static void check_refused(struct scene *scene, int code, const char *part)
{
    assert_int_equal(scene->run.result.status, -code);
    if (!strstr(scene->run.result.error.text, part))
        fail_msg("\"%s\" does not say \"%s\"", scene->run.result.error.text, part);
    assert_false(scene->run.result.touched);
    assert_false(scene->run.result.complete);
    assert_null(fake_fs_temporary(&scene->fs));
    assert_null(fake_fs_find(&scene->fs, "image"));
}

/* ---- While copying ---------------------------------------------------------------------------- */

static void test_kept(void **state)
{
    (void)state;
    for (int kind = NEW_FILE; kind <= CHECKSUM; kind++) {
        for (uint32_t chunk = 4096; chunk <= 4 * BLOCK; chunk *= 4) {
            struct scene scene;

            scene_init(&scene, kind);
            scene.run.options.chunk = chunk;
            run_job(&scene.run);
            check_good(&scene);
            assert_null(fake_fs_temporary(&scene.fs));
            scene_release(&scene);
        }
    }
}

/* Nothing is read for the digests: what is read is what has data, once. */
static void test_read_once(void **state)
{
    (void)state;
    for (int kind = NEW_FILE; kind <= CHECKSUM; kind++) {
        struct scene scene;

        scene_init(&scene, kind);
        run_job(&scene.run);
        check_good(&scene);
        assert_int_equal(scene.source.bytes_asked, SIZE - BLOCK);
        scene_release(&scene);
    }
}

/* Zeros in a part of a block are read with the rest of it. */
static void test_holes_across_blocks(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, NEW_FILE);
    fake_disk_set(&scene.source, BLOCK / 2, BLOCK, BLK_ZEROS);
    fake_disk_set(&scene.source, 5 * BLOCK + 4096, BLOCK, BLK_ZEROS);
    run_job(&scene.run);
    check_good(&scene);
    scene_release(&scene);
}

/* What is told apart by -S, is written one by one, verified, or copied again, has the same digests. */
static void test_ways(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 5; way++) {
        struct scene scene;

        scene_init(&scene, NEW_FILE);
        scene.run.options.zero_unit = way == 0 ? 0 : 4096;
        scene.run.options.in_order = way == 1;
        scene.run.options.verify = way == 2;
        scene.restart = way == 3;
        scene.run.options.depth = way == 4 ? 1 : 2;
        run_job(&scene.run);
        check_good(&scene);
        assert_false(scene.restart);
        if (way == 3)
            assert_true(scene.run.result.lost > 0);
        scene_release(&scene);
    }
}

/* The digests are those of the zeros that take the place of what cannot be read. */
static void test_salvage(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, NEW_FILE);
    scene.run.options.salvage = true;
    scene.source.bad_from = BLOCK + 4096;
    scene.source.bad_to = BLOCK + 8192;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, 0);
    assert_true(scene.run.result.bad > 0);
    /* What was written is the truth. */
    memcpy(scene.source.written, fake_fs_find(&scene.fs, "image")->disk->written, SIZE);
    check_sums(&scene);
    scene_release(&scene);
}

static void quiet(void *opaque, bool important, const char *text)
{
    (void)opaque;
    (void)important;
    (void)text;
}

static void lanes_done(struct copy_job *job, void *opaque)
{
    struct run *run = opaque;

    run->result = *copy_result(job);
    run->done++;
}

/* With threads, which have to wake the loop. */
static void run_lanes(struct scene *scene, unsigned lanes)
{
    struct run *run = &scene->run;
    struct copy_job *job;

    loop_free(scene->fake.loop);
    scene->fake.loop = loop_new();
    scene->fake.automatic = true;
    run->options.lanes = lanes;
    run->options.journal = "";
    run->options.image.format = IMAGE_RAW;
    run->options.notice = quiet;
    run->options.done = lanes_done;
    run->options.opaque = run;
    job = copy_start(scene->fake.loop, &run->options);
    assert_non_null(job);
    while (run->done == 0)
        loop_turn(scene->fake.loop, LOOP_NEVER);
    copy_free(job);
}

static void test_lanes(void **state)
{
    (void)state;
    for (int kind = NEW_FILE; kind <= CHECKSUM; kind++) {
        struct scene scene;

        scene_init(&scene, kind);
        run_lanes(&scene, 3);
        check_good(&scene);
        scene_release(&scene);
    }
}

static void test_orders(void **state)
{
    struct odometer odometer = {.sample = SAMPLE(400)};

    (void)state;
    do {
        struct scene scene;

        scene_init(&scene, odometer.number % 2 ? CHECKSUM : NEW_FILE);
        scene.run.odometer = &odometer;
        scene.run.chosen = CHOOSE_ALL;
        scene.run.options.depth = 3;
        run_job(&scene.run);
        check_good(&scene);
        scene_release(&scene);
    } while (odometer_next(&odometer));
}

/* ---- What goes wrong -------------------------------------------------------------------------- */

static void fault_at(enum kind kind, unsigned number, bool applies, bool *hit)
{
    static const struct {
        int code;
        enum blk_retry retry;
    } faults[] = {{EIO, BLK_FATAL}, {ECONNRESET, BLK_LOST}, {EAGAIN, BLK_REPEAT}};

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct scene scene;

        scene_init(&scene, kind);
        scene.fake.fault = (struct fake_fault){.number = number,
                                               .code = faults[i].code,
                                               .retry = faults[i].retry,
                                               .applies = applies && faults[i].code != EAGAIN};
        run_job(&scene.run);
        *hit = scene.fake.fault_hit;
        check_honest(&scene);
        /* What does not open is not tried again. */
        if (faults[i].retry != BLK_FATAL && scene.run.result.status != 0)
            assert_non_null(strstr(scene.run.result.error.text, "opening"));
        scene_release(&scene);
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
                struct scene scene;

                scene_init(&scene, kind);
                scene.run.disturbance =
                    (struct disturbance){.what = kinds[i / 2], .when = when, .late = i % 2};
                run_job(&scene.run);
                disturbed = scene.run.disturbed;
                check_honest(&scene);
                if (scene.run.result.status != 0)
                    assert_int_equal(scene.run.result.status, -ECANCELED);
                scene_release(&scene);
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
        struct scene scene;
        const char *after;

        scene_init(&scene, CHECKSUM);
        scene.run.disturbance = (struct disturbance){.what = DISTURB_ABORT, .when = when};
        run_job(&scene.run);
        check_honest(&scene);
        disturbed = scene.run.disturbed;
        after = scene.fs.log + scene.log_then;
        if (disturbed && scene.run.result.status != 0)
            assert_true(!strstr(after, "CREATE") && !strstr(after, "WRITE") &&
                        !strstr(after, "LINK"));
        else if (disturbed) /* it has been given its name */
            assert_null(strstr(after, "LINK"));
        scene_release(&scene);
    }
}

/* The copy is there; only its digests are not. */
static void test_only_digests_fail(void **state)
{
    struct scene scene;
    struct fake_file *file;

    (void)state;
    scene_init(&scene, NEW_FILE);
    scene.fs.refuse[STORE_WRITE] = ENOSPC; /* of what the job does, digest file and lock need it */
    scene.run.options.target = &scene.nowhere;
    scene.run.options.digests = COPY_DIGESTS_OF_SOURCE;
    scene.source.identity = "file image";
    scene.source.mtime_ns = 77;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, -ENOSPC);
    assert_true(scene.run.result.complete);
    assert_false(scene.run.result.resumable);
    file = fake_fs_find(&scene.fs, "sums");
    assert_null(file);
    assert_null(fake_fs_temporary(&scene.fs));
    scene_release(&scene);
}

static void test_refused(void **state)
{
    struct fake_file *file;
    struct fake_end lun;
    struct scene scene;

    (void)state;
    scene_init(&scene, NEW_FILE);
    fake_end_disk(&lun, &scene.lun, "fake", "b");
    scene.run.options.target = &lun.url;
    scene.run.options.overwrite = true;
    run_job(&scene.run);
    check_refused(&scene, EINVAL, "is for a new file");
    scene_release(&scene);

    scene_init(&scene, NEW_FILE);
    scene.run.options.digest_file = &scene.from.url;
    run_job(&scene.run);
    check_refused(&scene, EINVAL, "a digest file has a local path or an nfs:// URL");
    scene_release(&scene);

    scene_init(&scene, CHECKSUM);
    scene.source.mtime_ns = 0;
    run_job(&scene.run);
    check_refused(&scene, ENOTSUP, "this has none");
    scene_release(&scene);

    scene_init(&scene, CHECKSUM);
    scene.source.identity = NULL;
    run_job(&scene.run);
    check_refused(&scene, ENOTSUP, "cannot be told from others");
    scene_release(&scene);

    scene_init(&scene, NEW_FILE);
    fake_fs_make(&scene.fs, "sums", 0);
    run_job(&scene.run);
    check_refused(&scene, EEXIST, "--overwrite would replace it");
    scene_release(&scene);

    scene_init(&scene, NEW_FILE);
    scene.run.options.overwrite = true;
    file = fake_fs_make(&scene.fs, "sums", 0);
    file->text_len = (size_t)snprintf(file->text, sizeof(file->text), "A diary, of many years");
    run_job(&scene.run);
    check_refused(&scene, EEXIST, "no digest file: it is left alone");
    assert_string_equal(file->text, "A diary, of many years");
    scene_release(&scene);

    scene_init(&scene, NEW_FILE);
    fake_fs_make(&scene.fs, "sums", 0)->attr.type = STORE_DIRECTORY;
    run_job(&scene.run);
    check_refused(&scene, EISDIR, "directory");
    scene_release(&scene);
}

static void test_replaced(void **state)
{
    struct scene scene;
    struct fake_file *file;

    (void)state;
    scene_init(&scene, NEW_FILE);
    scene.run.options.overwrite = true;
    file = fake_fs_make(&scene.fs, "sums", 0);
    file->text_len = (size_t)snprintf(file->text, sizeof(file->text), "LUNFDIGS, of old");
    run_job(&scene.run);
    check_good(&scene);
    scene_release(&scene);
}

/* An image and its digests by one name: neither replaces the other. */
static void test_one_name(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, NEW_FILE);
    scene.run.options.overwrite = true;
    scene.run.options.digest_file = &scene.to.url;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, -EEXIST);
    assert_true(scene.run.result.complete);
    assert_true(fake_disk_holds(fake_fs_find(&scene.fs, "image")->disk, &scene.source, 0, SIZE));
    assert_null(fake_fs_temporary(&scene.fs));
    scene_release(&scene);
}

static void test_dry_run(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, NEW_FILE);
    scene.run.options.dry_run = true;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, 0);
    assert_null(fake_fs_find(&scene.fs, "sums"));
    assert_null(fake_fs_find(&scene.fs, "image"));
    scene_release(&scene);
}

/* The source changes while its digests are taken. */
static void touch(struct run *run)
{
    run->source->mtime_ns = run->source->open && run->completions > 5 ? 78 : 77;
}

static void test_source_changes(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, CHECKSUM);
    scene.run.look = touch;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, -ESTALE);
    assert_null(fake_fs_find(&scene.fs, "sums"));
    assert_null(fake_fs_temporary(&scene.fs));
    scene_release(&scene);
}

/* ---- Checking --------------------------------------------------------------------------------- */

/* A digest file of what the source is now, in such blocks. */
static struct fake_file *init_check(struct scene *scene, uint32_t block)
{
    const struct digest_subject subject = {"file image", SIZE, 77};
    struct digest_encoder encoder;
    struct digest_list *list;
    struct fake_file *file;

    scene_init(scene, CHECKSUM);
    scene->run.options.digests = COPY_DIGESTS_CHECK;
    list = true_list(scene, block);
    file = fake_fs_make(&scene->fs, "sums", 0);
    assert_int_equal(digest_encode_init(&encoder, list, &subject, scene->digest), 0);
    file->text_len = digest_encode(&encoder, file->text, sizeof(file->text));
    digest_encode_release(&encoder);
    digest_list_free(list);
    return file;
}

/* With smaller blocks than the digests that are made, and larger ones than chunks and granules. */
static void test_same(void **state)
{
    (void)state;
    for (uint32_t block = DIGEST_DEFAULT_BLOCK; block <= DIGEST_MAX_BLOCK; block *= 4) {
        for (unsigned lanes = 1; lanes <= 2; lanes++) {
            struct scene scene;

            init_check(&scene, block);
            if (lanes > 1)
                run_lanes(&scene, lanes);
            else
                run_job(&scene.run);
            if (scene.run.result.status != 0)
                fail_msg("%s", scene.run.result.error.text);
            assert_int_equal(scene.run.result.digests.block, block);
            assert_int_equal(scene.run.result.digests.ranges, 0);
            assert_int_equal(scene.told, 0);
            scene_release(&scene);
        }
    }
}

static void test_different(void **state)
{
    struct scene scene;

    (void)state;
    init_check(&scene, BLOCK);
    scene.source.written[0] ^= 1;
    scene.source.written[2 * BLOCK - 1] ^= 1;
    scene.source.written[4 * BLOCK + 9] = 1; /* zeros until now */
    scene.source.written[SIZE - 1] ^= 0x40;
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, 0);
    assert_int_equal(scene.told, 3);
    assert_int_equal(scene.told_offset[0], 0);
    assert_int_equal(scene.told_len[0], 2 * BLOCK);
    assert_int_equal(scene.told_offset[1], 4 * BLOCK);
    assert_int_equal(scene.told_len[1], BLOCK);
    assert_int_equal(scene.told_offset[2], 6 * BLOCK);
    assert_int_equal(scene.told_len[2], BLOCK - 512);
    assert_int_equal(scene.run.result.digests.ranges, 3);
    assert_int_equal(scene.run.result.digests.range_bytes, 4 * BLOCK - 512);
    scene_release(&scene);
}

static void test_not_for_this(void **state)
{
    struct fake_file *file;
    struct scene scene;

    (void)state;
    init_check(&scene, BLOCK);
    scene.source.identity = "file other";
    run_job(&scene.run);
    check_refused(&scene, ESTALE, "another file (file image) than");
    scene_release(&scene);

    init_check(&scene, BLOCK);
    scene.source.mtime_ns = 76;
    run_job(&scene.run);
    check_refused(&scene, ESTALE, "has changed since these digests were taken");
    scene_release(&scene);

    file = init_check(&scene, BLOCK);
    file->text[100] ^= 1;
    run_job(&scene.run);
    check_refused(&scene, EBADMSG, "damaged");
    scene_release(&scene);

    file = init_check(&scene, BLOCK);
    file->text_len--;
    run_job(&scene.run);
    check_refused(&scene, EBADMSG, "cut off");
    scene_release(&scene);

    file = init_check(&scene, BLOCK);
    file->name[0] = 'x';
    run_job(&scene.run);
    assert_int_equal(scene.run.result.status, -ENOENT);
    scene_release(&scene);
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
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_one_name),
        cmocka_unit_test(test_dry_run),
        cmocka_unit_test(test_source_changes),
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_different),
        cmocka_unit_test(test_not_for_this),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
