/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs with digests that are refused, and jobs that check digests. */
#include "sums.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- What is refused -------------------------------------------------------------------------- */

static void test_refused(void **state)
{
    struct fake_file *file;
    struct fake_end lun;
    struct sums sums;

    (void)state;
    sums_init(&sums, NEW_FILE);
    fake_end_disk(&lun, &sums.lun, "fake", "b");
    sums.run.options.target = &lun.url;
    sums.run.options.overwrite = true;
    run_job(&sums.run);
    sums_check_refused(&sums, EINVAL, "is for a new file");
    sums_release(&sums);

    sums_init(&sums, NEW_FILE);
    sums.run.options.digest_file = &sums.from.url;
    run_job(&sums.run);
    sums_check_refused(&sums, EINVAL, "a digest file has a local path or an nfs:// URL");
    sums_release(&sums);

    sums_init(&sums, CHECKSUM);
    sums.source.mtime_ns = 0;
    run_job(&sums.run);
    sums_check_refused(&sums, ENOTSUP, "this has none");
    sums_release(&sums);

    sums_init(&sums, CHECKSUM);
    sums.source.identity = NULL;
    run_job(&sums.run);
    sums_check_refused(&sums, ENOTSUP, "cannot be told from others");
    sums_release(&sums);

    sums_init(&sums, NEW_FILE);
    fake_fs_make(&sums.fs, "sums", 0);
    run_job(&sums.run);
    sums_check_refused(&sums, EEXIST, "--overwrite would replace it");
    sums_release(&sums);

    sums_init(&sums, NEW_FILE);
    sums.run.options.overwrite = true;
    file = fake_fs_make(&sums.fs, "sums", 0);
    file->text_len = (size_t)snprintf(file->text, sizeof(file->text), "A diary, of many years");
    run_job(&sums.run);
    sums_check_refused(&sums, EEXIST, "no digest file: it is left alone");
    assert_string_equal(file->text, "A diary, of many years");
    sums_release(&sums);

    sums_init(&sums, NEW_FILE);
    fake_fs_make(&sums.fs, "sums", 0)->attr.type = STORE_DIRECTORY;
    run_job(&sums.run);
    sums_check_refused(&sums, EISDIR, "directory");
    sums_release(&sums);
}

static void test_replaced(void **state)
{
    struct sums sums;
    struct fake_file *file;

    (void)state;
    sums_init(&sums, NEW_FILE);
    sums.run.options.overwrite = true;
    file = fake_fs_make(&sums.fs, "sums", 0);
    file->text_len = (size_t)snprintf(file->text, sizeof(file->text), "LUNFDIGS, of old");
    run_job(&sums.run);
    sums_check_good(&sums);
    sums_release(&sums);
}

/* An image and its digests by one name: neither replaces the other. */
static void test_one_name(void **state)
{
    struct sums sums;

    (void)state;
    sums_init(&sums, NEW_FILE);
    sums.run.options.overwrite = true;
    sums.run.options.digest_file = &sums.to.url;
    run_job(&sums.run);
    assert_int_equal(sums.run.result.status, -EINVAL);
    assert_false(sums.run.result.touched);
    assert_null(fake_fs_find(&sums.fs, "image"));
    assert_null(fake_fs_temporary(&sums.fs));
    sums_release(&sums);
}

static void test_dry_run(void **state)
{
    struct sums sums;

    (void)state;
    sums_init(&sums, NEW_FILE);
    sums.run.options.dry_run = true;
    run_job(&sums.run);
    assert_int_equal(sums.run.result.status, 0);
    assert_null(fake_fs_find(&sums.fs, "sums"));
    assert_null(fake_fs_find(&sums.fs, "image"));
    sums_release(&sums);
}

/* The source changes while its digests are taken. */
static void touch(struct run *run)
{
    run->source->mtime_ns = run->source->open && run->completions > 5 ? 78 : 77;
}

static void test_source_changes(void **state)
{
    struct sums sums;

    (void)state;
    sums_init(&sums, CHECKSUM);
    sums.run.look = touch;
    run_job(&sums.run);
    assert_int_equal(sums.run.result.status, -ESTALE);
    assert_null(fake_fs_find(&sums.fs, "sums"));
    assert_null(fake_fs_temporary(&sums.fs));
    sums_release(&sums);
}

/* ---- Checking --------------------------------------------------------------------------------- */

/* A digest file of what the source is now, in such blocks. */
static struct fake_file *init_check(struct sums *sums, uint32_t block)
{
    const struct digest_subject subject = {"file image", SUMS_SIZE, 77};
    struct digest_encoder encoder;
    struct digest_list *list;
    struct fake_file *file;

    sums_init(sums, CHECKSUM);
    sums->run.options.digests = COPY_DIGESTS_CHECK;
    list = sums_list(sums, block);
    file = fake_fs_make(&sums->fs, "sums", 0);
    assert_int_equal(digest_encode_init(&encoder, list, &subject, sums->digest), 0);
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
            struct sums sums;

            init_check(&sums, block);
            if (lanes > 1)
                sums_run_lanes(&sums, lanes);
            else
                run_job(&sums.run);
            if (sums.run.result.status != 0)
                fail_msg("%s", sums.run.result.error.text);
            assert_int_equal(sums.run.result.digests.block, block);
            assert_int_equal(sums.run.result.digests.ranges, 0);
            assert_int_equal(sums.told, 0);
            sums_release(&sums);
        }
    }
}

static void test_different(void **state)
{
    struct sums sums;

    (void)state;
    init_check(&sums, SUMS_BLOCK);
    sums.source.written[0] ^= 1;
    sums.source.written[2 * SUMS_BLOCK - 1] ^= 1;
    sums.source.written[4 * SUMS_BLOCK + 9] = 1; /* zeros until now */
    sums.source.written[SUMS_SIZE - 1] ^= 0x40;
    run_job(&sums.run);
    assert_int_equal(sums.run.result.status, 0);
    assert_int_equal(sums.told, 3);
    assert_int_equal(sums.told_offset[0], 0);
    assert_int_equal(sums.told_len[0], 2 * SUMS_BLOCK);
    assert_int_equal(sums.told_offset[1], 4 * SUMS_BLOCK);
    assert_int_equal(sums.told_len[1], SUMS_BLOCK);
    assert_int_equal(sums.told_offset[2], 6 * SUMS_BLOCK);
    assert_int_equal(sums.told_len[2], SUMS_BLOCK - 512);
    assert_int_equal(sums.run.result.digests.ranges, 3);
    assert_int_equal(sums.run.result.digests.range_bytes, 4 * SUMS_BLOCK - 512);
    sums_release(&sums);
}

static void test_not_for_this(void **state)
{
    struct fake_file *file;
    struct sums sums;

    (void)state;
    init_check(&sums, SUMS_BLOCK);
    sums.source.identity = "file other";
    run_job(&sums.run);
    sums_check_refused(&sums, ESTALE, "another file (file image) than");
    sums_release(&sums);

    init_check(&sums, SUMS_BLOCK);
    sums.source.mtime_ns = 76;
    run_job(&sums.run);
    sums_check_refused(&sums, ESTALE, "has changed since these digests were taken");
    sums_release(&sums);

    file = init_check(&sums, SUMS_BLOCK);
    file->text[100] ^= 1;
    run_job(&sums.run);
    sums_check_refused(&sums, EBADMSG, "damaged");
    sums_release(&sums);

    file = init_check(&sums, SUMS_BLOCK);
    file->text_len--;
    run_job(&sums.run);
    sums_check_refused(&sums, EBADMSG, "cut off");
    sums_release(&sums);

    file = init_check(&sums, SUMS_BLOCK);
    file->name[0] = 'x';
    run_job(&sums.run);
    assert_int_equal(sums.run.result.status, -ENOENT);
    sums_release(&sums);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_one_name),       cmocka_unit_test(test_dry_run),
        cmocka_unit_test(test_source_changes), cmocka_unit_test(test_same),
        cmocka_unit_test(test_different),      cmocka_unit_test(test_not_for_this),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
