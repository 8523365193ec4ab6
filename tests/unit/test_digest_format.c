/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Digest files: there and back, and whatever is wrong with one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/digest_format.h"

#define BLOCK  DIGEST_DEFAULT_BLOCK
#define BLOCKS 6u
#define SIZE   ((BLOCKS - 1) * (uint64_t)BLOCK + 777)
#define FILE_SIZE_OF_LIST                                                                          \
    (DIGEST_HEADER + sizeof(IDENTITY) - 1 + 3 * sizeof(uint64_t) + 4 * DIGEST_SIZE + DIGEST_SIZE)
#define IDENTITY "file 1:2"
#define ROOM     4096

static const struct digest_subject subject = {IDENTITY, SIZE + 7, INT64_C(1234567890123456789)};

struct bench {
    struct digest *digest;
    struct digest_list *list; /* data, data, zeros, zeros, data, data */
    unsigned char file[ROOM];
    size_t len;
    struct blk_error error;
};

static size_t encode(struct bench *bench, const struct digest_list *list,
                     const struct digest_subject *stands_for, unsigned char *file, size_t step)
{
    struct digest_encoder encoder;
    size_t len = 0, got;

    assert_int_equal(digest_encode_init(&encoder, list, stands_for, bench->digest), 0);
    while ((got = digest_encode(&encoder, file + len, min_u64(step, ROOM - len))) > 0)
        len += got;
    digest_encode_release(&encoder);
    return len;
}

static void bench_init(struct bench *bench)
{
    unsigned char *bytes = calloc(1, SIZE);

    memset(bench, 0, sizeof(*bench));
    bench->digest = digest_new(NULL);
    bench->list = digest_list_new(SIZE, BLOCK);
    assert_non_null(bytes);
    for (uint64_t i = 0; i < SIZE; i++) {
        if (i / BLOCK != 2 && i / BLOCK != 3)
            bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    }
    digest_list_take(bench->list, bench->digest, 0, bytes, SIZE);
    free(bytes);
    bench->len = encode(bench, bench->list, &subject, bench->file, ROOM);
}

static void bench_release(struct bench *bench)
{
    digest_list_free(bench->list);
    digest_free(bench->digest);
}

/* Reads a file in parts of `step` bytes. Returns the outcome; *list is the caller's with 0. */
static int decode(struct bench *bench, const unsigned char *file, size_t len, size_t step,
                  struct digest_list **list)
{
    struct digest_decoder decoder;
    int status = 0;

    *list = NULL;
    blk_error_clear(&bench->error);
    assert_int_equal(digest_decode_init(&decoder, bench->digest), 0);
    for (size_t at = 0; at < len && status == 0; at += step)
        status = digest_decode(&decoder, file + at, min_u64(step, len - at), &bench->error);
    if (status == 0)
        status = digest_decode_end(&decoder, list, &bench->error);
    if (status == 0) {
        assert_string_equal(decoder.subject.identity, IDENTITY);
        assert_int_equal(decoder.subject.size, subject.size);
        assert_true(decoder.subject.mtime_ns == subject.mtime_ns);
    }
    digest_decode_release(&decoder);
    return status;
}

static void check_refused(struct bench *bench, const unsigned char *file, size_t len,
                          const char *part)
{
    struct digest_list *list;

    assert_int_equal(decode(bench, file, len, len ? len : 1, &list), -EBADMSG);
    if (!strstr(bench->error.text, part))
        fail_msg("\"%s\" does not say \"%s\"", bench->error.text, part);
}

/* Makes the last 32 bytes right again. */
static void seal(struct bench *bench, unsigned char *file, size_t len)
{
    digest_of(bench->digest, file, len - DIGEST_SIZE, file + len - DIGEST_SIZE);
}

static void test_there_and_back(void **state)
{
    struct bench bench;
    uint64_t offset, len;

    (void)state;
    bench_init(&bench);
    assert_int_equal(bench.len, FILE_SIZE_OF_LIST);
    for (size_t step = 1; step <= bench.len; step += step < 100 ? 1 : 37) {
        unsigned char again[ROOM];
        struct digest_list *list;

        assert_int_equal(encode(&bench, bench.list, &subject, again, step), bench.len);
        assert_memory_equal(again, bench.file, bench.len);
        assert_int_equal(decode(&bench, bench.file, bench.len, step, &list), 0);
        assert_int_equal(digest_list_size(list), SIZE);
        assert_int_equal(digest_list_block(list), BLOCK);
        assert_true(digest_list_complete(list));
        assert_false(digest_list_differs(list, bench.list, 0, &offset, &len));
        digest_list_free(list);
    }
    bench_release(&bench);
}

/* As docs/digests.md has it. */
static void test_as_documented(void **state)
{
    static const unsigned char fixed[] = {
        'L',  'U',  'N',  'F',  'D',  'I',  'G',  'S',    /* magic */
        0,    0,    0,    1,    0,    0,    0,    84 + 8, /* version, length */
        0,    0,    0,    0,    0,    4,    0,    0,      /* flags, block */
        0,    0,    0,    0,    0,    0x14, 0x03, 0x09,   /* image */
        0,    0,    0,    0,    0,    0x14, 0x03, 0x10,   /* file */
        0x11, 0x22, 0x10, 0xf4, 0x7d, 0xe9, 0x81, 0x15,   /* mtime */
    };
    static const unsigned char two[] = {0, 0, 0, 0, 0, 0, 0, 2};
    static const unsigned char zeros[] = {0x80, 0, 0, 0, 0, 0, 0, 2};
    uint8_t root[DIGEST_SIZE], digest[DIGEST_SIZE];
    struct bench bench;
    size_t at = sizeof(fixed);

    (void)state;
    bench_init(&bench);
    assert_memory_equal(bench.file, fixed, sizeof(fixed));
    digest_list_root(bench.list, bench.digest, root);
    assert_memory_equal(bench.file + at, root, DIGEST_SIZE);
    at += DIGEST_SIZE;
    assert_memory_equal(bench.file + at, "\0\0\0\x08" IDENTITY, 12);
    at += 12;
    assert_memory_equal(bench.file + at, two, 8);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(digest_list_get(bench.list, i, digest), DIGEST_DATA);
        assert_memory_equal(bench.file + at + 8 + (size_t)i * DIGEST_SIZE, digest, DIGEST_SIZE);
    }
    at += 8 + 2 * DIGEST_SIZE;
    assert_memory_equal(bench.file + at, zeros, 8);
    assert_memory_equal(bench.file + at + 8, two, 8);
    digest_of(bench.digest, bench.file, bench.len - DIGEST_SIZE, digest);
    assert_memory_equal(bench.file + bench.len - DIGEST_SIZE, digest, DIGEST_SIZE);
    bench_release(&bench);
}

static void test_every_change_is_found(void **state)
{
    struct digest_list *list;
    struct bench bench;

    (void)state;
    bench_init(&bench);
    for (size_t at = 0; at < bench.len; at++) {
        unsigned char good = bench.file[at];

        for (unsigned value = 0; value < 256; value++) {
            if (value == good)
                continue;
            bench.file[at] = (unsigned char)value;
            assert_int_equal(decode(&bench, bench.file, bench.len, bench.len, &list), -EBADMSG);
            assert_null(list);
        }
        bench.file[at] = good;
    }
    assert_int_equal(decode(&bench, bench.file, bench.len, bench.len, &list), 0);
    digest_list_free(list);
    bench_release(&bench);
}

static void test_every_cut_is_found(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    for (size_t len = 0; len < bench.len; len++)
        check_refused(&bench, bench.file, len, "cut off");
    bench.file[bench.len] = 0;
    check_refused(&bench, bench.file, bench.len + 1, "behind its end");
    bench_release(&bench);
}

/* What a writer who means harm, and knows the checksum, can put there. */
static void test_refusals(void **state)
{
    static const struct {
        size_t at;
        unsigned char byte;
        const char *says;
    } rows[] = {
        {0, 'l', "no digest file"},
        {11, 2, "version 2"},
        {19, 1, "flags (0x1)"},
        {15, 85 + 8, "impossible length"},
        {83, 9, "impossible length"},
        {81, 1, "impossible length"},
        {20, 1, "are not possible"}, /* blocks of 16 MiB and 256 KiB */
        {21, 0, "are not possible"}, /* none */
        {21, 3, "are not possible"},
        {24, 0xff, "are not possible"}, /* an image of 16 EiB */
        {48, 0, "contradicts itself"},
        {84, '\n', "no text"},
        {84 + 8 + 7, 0, "do not make up"}, /* an empty run */
        {84 + 8 + 7, 7, "do not make up"}, /* beyond the end */
        {84 + 8, 0x40, "do not make up"},
        {84 + 8 + 8, 0x5a, "contradicts itself"}, /* another digest */
    };
    struct bench bench;

    (void)state;
    bench_init(&bench);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned char bad[ROOM];

        memcpy(bad, bench.file, bench.len);
        assert_int_not_equal(bad[rows[i].at], rows[i].byte);
        bad[rows[i].at] = rows[i].byte;
        seal(&bench, bad, bench.len);
        check_refused(&bench, bad, bench.len, rows[i].says);
    }
    bench.file[bench.len - 1] ^= 1;
    check_refused(&bench, bench.file, bench.len, "checksum is wrong");
    bench_release(&bench);
}

/* One list, one file: the same zeros in two runs are refused, though the root is right. */
static void test_two_runs_of_one_kind(void **state)
{
    struct digest_list *zeros = digest_list_new(SIZE, BLOCK);
    unsigned char *run;
    struct bench bench;

    (void)state;
    bench_init(&bench);
    assert_non_null(zeros);
    digest_list_take_zeros(zeros, 0, SIZE);
    bench.len = encode(&bench, zeros, &subject, bench.file, ROOM);
    run = bench.file + DIGEST_HEADER + sizeof(IDENTITY) - 1;
    assert_int_equal(run[7], BLOCKS);
    run[7] = 2;
    memcpy(run + 8, run, 8);
    run[8 + 7] = BLOCKS - 2;
    bench.len += 8;
    seal(&bench, bench.file, bench.len);
    check_refused(&bench, bench.file, bench.len, "do not make up");
    digest_list_free(zeros);
    bench_release(&bench);
}

static void check_subject(struct bench *bench, const struct digest_subject *now, uint64_t size,
                          const char *part)
{
    assert_int_equal(
        digest_check_subject(bench->list, &subject, now, size, "nfs://a/b", &bench->error),
        -ESTALE);
    if (!strstr(bench->error.text, part))
        fail_msg("\"%s\" does not say \"%s\"", bench->error.text, part);
}

static void test_what_it_stands_for(void **state)
{
    struct digest_subject now = subject;
    struct bench bench;

    (void)state;
    bench_init(&bench);
    assert_int_equal(
        digest_check_subject(bench.list, &subject, &now, SIZE, "nfs://a/b", &bench.error), 0);
    check_subject(&bench, &now, SIZE + 1,
                  "of an image of 1311497 bytes, and nfs://a/b has 1311498");
    now.size++;
    check_subject(&bench, &now, SIZE,
                  "nfs://a/b has changed since these digests were taken: its size");
    now = subject;
    now.mtime_ns--;
    check_subject(&bench, &now, SIZE, "it was written to");
    now.identity = "file 1:3";
    check_subject(&bench, &now, SIZE, "another file (file 1:2) than nfs://a/b (file 1:3)");
    bench_release(&bench);
}

static void test_what_can_be_stood_for(void **state)
{
    char identity[] = IDENTITY, name[] = "iscsi://a/b/0", none[] = "";
    struct blk_dev dev = {.name = name, .identity = identity};
    struct blk_stamp stamp = {.size = 5, .mtime_ns = 6, .ctime_ns = 7};
    struct digest_subject got;
    struct blk_error error;

    (void)state;
    assert_int_equal(digest_subject_of(&got, &dev, &stamp, &error), 0);
    assert_ptr_equal(got.identity, identity);
    assert_int_equal(got.size, 5);
    assert_int_equal(got.mtime_ns, 6);
    stamp.mtime_ns = 0;
    assert_int_equal(digest_subject_of(&got, &dev, &stamp, &error), -ENOTSUP);
    assert_non_null(strstr(error.text, "iscsi://a/b/0: digests are kept of files"));
    stamp.mtime_ns = 6;
    dev.identity = none;
    assert_int_equal(digest_subject_of(&got, &dev, &stamp, &error), -ENOTSUP);
    dev.identity = NULL;
    assert_int_equal(digest_subject_of(&got, &dev, &stamp, &error), -ENOTSUP);
    assert_non_null(strstr(error.text, "cannot be told from others"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_as_documented),
        cmocka_unit_test(test_every_change_is_found),
        cmocka_unit_test(test_every_cut_is_found),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_two_runs_of_one_kind),
        cmocka_unit_test(test_what_it_stands_for),
        cmocka_unit_test(test_what_can_be_stood_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
