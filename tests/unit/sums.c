/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sums.h"

#include <stdlib.h>
#include <string.h>

#include "fake_private.h"

#define SECOND  LOOP_SECOND
#define NOWHERE "null:8191P"

/* Block 2 is known to be zeros, block 4 turns out to be. */
static void fill(struct fake_disk *disk)
{
    fake_disk_fill(disk, 7);
    fake_disk_set(disk, 2 * SUMS_BLOCK, SUMS_BLOCK, BLK_ZEROS);
    memset(disk->written + 4 * SUMS_BLOCK, 0, SUMS_BLOCK);
    memset(disk->durable + 4 * SUMS_BLOCK, 0, SUMS_BLOCK);
}

/* What a file system does: files have numbers, and their times are those of the last write. */
static void before(struct fake *fake, const struct fake_op *op)
{
    struct sums *sums = container_of(fake, struct sums, fake);

    if (fake->automatic) /* in any thread */
        return;
    for (size_t i = 0; i < FAKE_MAX_FILES; i++) {
        struct fake_file *file = &sums->fs.files[i];

        if (file->disk && strstr(file->name, "image")) {
            file->disk->identity = "file image";
            file->disk->mtime_ns = 77;
        }
    }
    if (sums->run.completions + 1 == sums->run.disturbance.when)
        sums->log_then = strlen(sums->fs.log);
    if (sums->restart && op->kind == FAKE_REQ && op->req->op == BLK_FLUSH) {
        sums->restart = false;
        fake_disk_restart(fake_fs_temporary(&sums->fs)->disk);
    }
}

static void differs(void *opaque, uint64_t offset, uint64_t len)
{
    struct sums *sums = ((struct run *)opaque)->opaque;

    assert_in_range(sums->told, 0, 7);
    sums->told_offset[sums->told] = offset;
    sums->told_len[sums->told++] = len;
}

static void no_bad_range(void *opaque, uint64_t offset, uint64_t len)
{
    (void)opaque;
    (void)offset;
    (void)len;
}

void sums_init(struct sums *sums, enum sums_kind kind)
{
    struct blk_error error;

    memset(sums, 0, sizeof(*sums));
    sums->kind = kind;
    sums->digest = digest_new(NULL);
    fake_init(&sums->fake);
    sums->fake.before = before;
    fake_disk_init(&sums->source, &sums->fake, SUMS_SIZE, 0);
    sums->source.caps = BLK_CAN_EXTENTS;
    fill(&sums->source);
    sums->source.identity = kind == CHECKSUM ? "file image" : "lun";
    sums->source.mtime_ns = kind == CHECKSUM ? 77 : 0;
    fake_disk_init(&sums->lun, &sums->fake, SUMS_SIZE, 0);
    sums->lun.caps = BLK_BARE;
    fake_fs_init(&sums->fs, &sums->fake);
    sums->fs.like.caps = BLK_CAN_FUA;
    fake_end_disk(&sums->from, &sums->source, "fake", "a");
    fake_end_file(&sums->to, &sums->fs, "image");
    fake_end_file(&sums->file, &sums->fs, "sums");
    assert_int_equal(url_parse(NOWHERE, &sums->nowhere, &error), 0);
    sums->run = (struct run){
        .fake = &sums->fake,
        .options =
            {
                .sources = &sums->from.url,
                .source_count = 1,
                .target = kind == NEW_FILE ? &sums->to.url : &sums->nowhere,
                .depth = 2,
                .lanes = 1,
                .chunk = SUMS_BLOCK,
                .zero_unit = 4096,
                .settings = {.timeout = 60 * SECOND, .give_up = 600 * SECOND},
                .digests = kind == NEW_FILE ? COPY_DIGESTS_OF_TARGET : COPY_DIGESTS_OF_SOURCE,
                .digest_file = &sums->file.url,
                .differs = differs,
                .bad_range = no_bad_range,
                .mode = 0640,
            },
        .source = &sums->source,
        .fs = &sums->fs,
        .opaque = sums,
        .name = "digests",
    };
}

void sums_release(struct sums *sums)
{
    url_release(&sums->nowhere);
    fake_disk_release(&sums->source);
    fake_disk_release(&sums->lun);
    fake_fs_release(&sums->fs);
    fake_release(&sums->fake);
    digest_free(sums->digest);
}

/* ---- What came of it -------------------------------------------------------------------------- */

struct digest_list *sums_list(struct sums *sums, uint32_t block)
{
    struct digest_list *list = digest_list_new(sums->source.size, block);

    assert_non_null(list);
    digest_list_take(list, sums->digest, 0, sums->source.written, sums->source.size);
    return list;
}

void sums_check_file(struct sums *sums)
{
    const struct fake_file *file = fake_fs_find(&sums->fs, "sums");
    struct digest_list *list = NULL, *expected = sums_list(sums, SUMS_BLOCK);
    struct digest_decoder decoder;
    struct blk_error error;
    uint8_t root[DIGEST_SIZE];
    uint64_t offset, len;

    assert_non_null(file);
    assert_int_equal(file->attr.mode, 0640);
    assert_int_equal(digest_decode_init(&decoder, sums->digest), 0);
    if (digest_decode(&decoder, file->text, file->text_len, &error) < 0 ||
        digest_decode_end(&decoder, &list, &error) < 0)
        fail_msg("%s", error.text);
    assert_string_equal(decoder.subject.identity, "file image");
    assert_int_equal(decoder.subject.size, sums->source.size);
    assert_int_equal(decoder.subject.mtime_ns, 77);
    assert_int_equal(digest_list_block(list), SUMS_BLOCK);
    assert_false(digest_list_differs(list, expected, 0, &offset, &len));
    digest_list_root(expected, sums->digest, root);
    assert_memory_equal(sums->run.result.digests.root, root, DIGEST_SIZE);
    digest_decode_release(&decoder);
    digest_list_free(list);
    digest_list_free(expected);
}

void sums_check_good(struct sums *sums)
{
    if (sums->run.result.status != 0)
        fail_msg("%s", sums->run.result.error.text);
    assert_int_equal(sums->run.result.digests.block, SUMS_BLOCK);
    assert_int_equal(sums->run.result.digests.size, sums->source.size);
    assert_int_equal(sums->run.result.digests.mtime_ns, 77);
    assert_true(sums->run.result.complete);
    sums_check_file(sums);
    if (sums->kind == NEW_FILE)
        assert_true(fake_disk_holds(fake_fs_find(&sums->fs, "image")->disk, &sums->source, 0,
                                    sums->source.size));
}

void sums_check_refused(struct sums *sums, int code, const char *part)
{
    assert_int_equal(sums->run.result.status, -code);
    if (!strstr(sums->run.result.error.text, part))
        fail_msg("\"%s\" does not say \"%s\"", sums->run.result.error.text, part);
    assert_false(sums->run.result.touched);
    assert_false(sums->run.result.complete);
    assert_null(fake_fs_temporary(&sums->fs));
    assert_null(fake_fs_find(&sums->fs, "image"));
}

/* ---- With threads ----------------------------------------------------------------------------- */

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

void sums_run_lanes(struct sums *sums, unsigned lanes)
{
    struct run *run = &sums->run;
    struct copy_job *job;

    loop_free(sums->fake.loop); /* threads have to wake it */
    sums->fake.loop = loop_new();
    sums->fake.automatic = true;
    sums->fs.like.identity = "file image";
    sums->fs.like.mtime_ns = 77;
    run->options.lanes = lanes;
    run->options.journal = "";
    run->options.image.format = IMAGE_RAW;
    run->options.notice = quiet;
    run->options.done = lanes_done;
    run->options.opaque = run;
    job = copy_start(sums->fake.loop, &run->options);
    assert_non_null(job);
    while (run->done == 0)
        loop_turn(sums->fake.loop, LOOP_NEVER);
    copy_free(job);
}
