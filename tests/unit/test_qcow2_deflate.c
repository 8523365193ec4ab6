/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the encoder makes of a cluster: it can be read back, by us and by zlib as QEMU uses it, and is no longer than
 * allowed. */
#include "desk.h"
#include "qcow2_make.h"

#include "src/format/qcow2_deflate.h"
#include "src/format/qcow2_inflate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define K64     UINT64_C(65536)
#define LONGEST (2u << 20)

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const struct means {
    enum image_compression compression;
    int level;
} all_means[] = {
    {IMAGE_ZLIB, 0}, {IMAGE_ZLIB, 1}, {IMAGE_ZLIB, 6},  {IMAGE_ZLIB, 9},
    {IMAGE_ZSTD, 0}, {IMAGE_ZSTD, 3}, {IMAGE_ZSTD, 19},
};

/* ---- What is compressed ----------------------------------------------------------------------- */

static void fill_random(unsigned char *data, size_t len)
{
    uint64_t state = 20261121;

    for (size_t i = 0; i < len; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        data[i] = (unsigned char)(state >> 56);
    }
}

static void fill_zeros(unsigned char *data, size_t len)
{
    memset(data, 0, len);
}

static void fill_text(unsigned char *data, size_t len)
{
    static const char *const words[] = {"the ", "cluster ", "of ",  "an ",    "image ", "is ",
                                        "not ", "a ",       "LUN,", " but\n", "disk "};
    uint32_t state = 1;
    size_t at = 0;

    while (at < len) {
        const char *word = words[(state >> 24) % COUNT(words)];
        size_t take = strlen(word) < len - at ? strlen(word) : len - at;

        memcpy(data + at, word, take);
        at += take;
        state = state * 1664525 + 1013904223;
    }
}

static void fill_pattern(unsigned char *data, size_t len)
{
    qcow2_make_pattern(data, len, 7);
}

/* 4095, 4096, 4097, 8192 bytes back there is the same once more. */
static void fill_far(unsigned char *data, size_t len)
{
    static const size_t back[] = {4095, 4096, 4097, 8192, 30000};

    fill_random(data, len);
    for (size_t at = 32768, i = 0; at + 512 <= len; at += 1024, i++)
        memcpy(data + at, data + at - back[i % COUNT(back)], 512);
    /* Enough that is easy, so that it is worth it. */
    for (size_t at = 0; at < len; at += 256)
        memset(data + at, 'x', len - at < 64 ? len - at : 64);
}

/* As even as random bytes are not. */
static void fill_count(unsigned char *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)i;
}

static const struct content {
    void (*fill)(unsigned char *data, size_t len);
    bool compresses; /* in clusters of 1 KiB and more */
} contents[] = {
    {fill_random, false}, {fill_zeros, true}, {fill_text, true},
    {fill_pattern, true}, {fill_far, true},   {fill_count, true},
};

/* ---- Reading back ----------------------------------------------------------------------------- */

static void check_ours(enum image_compression compression, const unsigned char *stream, size_t len,
                       const unsigned char *data, size_t data_len)
{
    static unsigned char out[LONGEST];
    struct qcow2_inflate *inflate =
        qcow2_inflate_new(compression == IMAGE_ZSTD ? QCOW2_ZSTD : QCOW2_ZLIB);
    struct blk_error error = {0};

    assert_non_null(inflate);
    assert_int_equal(qcow2_inflate(inflate, stream, len, out, data_len, &error), 0);
    assert_memory_equal(out, data, data_len);
    qcow2_inflate_free(inflate);
}

/* With room for `step` bytes at a time: for one, what is further back than the window is an error. */
static void check_zlib(const unsigned char *stream, size_t len, const unsigned char *data,
                       size_t data_len, size_t step)
{
    static unsigned char out[LONGEST];
    z_stream zlib = {.next_in = (Bytef *)(uintptr_t)stream, .avail_in = (uInt)len, .next_out = out};
    int status = Z_OK;

    assert_int_equal(inflateInit2(&zlib, -12), Z_OK);
    while (status == Z_OK && zlib.total_out < data_len) {
        zlib.avail_out =
            (uInt)(step < data_len - zlib.total_out ? step : data_len - zlib.total_out);
        status = inflate(&zlib, Z_NO_FLUSH);
        if (zlib.msg)
            print_error("%s\n", zlib.msg);
        assert_true(status == Z_OK || status == Z_STREAM_END);
    }
    assert_int_equal(zlib.total_out, data_len);
    inflateEnd(&zlib);
    assert_memory_equal(out, data, data_len);
}

/* Exactly `room` bytes may be written to; what is behind them is still there. */
static size_t compress_into(struct qcow2_deflate *deflate, const unsigned char *data, size_t len,
                            unsigned char *out, size_t room)
{
    size_t got;

    memset(out + room, 0xa5, 64);
    got = qcow2_deflate(deflate, data, len, out, room);
    assert_true(got <= room);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(out[room + i], 0xa5);
    return got;
}

static struct qcow2_deflate *encoder(const struct means *means, size_t cluster_size)
{
    struct blk_error error = {0};
    struct qcow2_deflate *deflate =
        qcow2_deflate_new(means->compression, means->level, (uint32_t)cluster_size, &error);

    assert_non_null(deflate);
    return deflate;
}

/* ---- Tests ------------------------------------------------------------------------------------ */

static void check_content(const struct means *means, struct qcow2_deflate *deflate,
                          const struct content *content, size_t size)
{
    static unsigned char data[LONGEST], out[LONGEST + 64], again[LONGEST + 64];
    size_t len;

    content->fill(data, size);
    len = compress_into(deflate, data, size, out, size - 1);
    if (size >= 1024)
        assert_int_equal(len > 0, content->compresses);
    if (len == 0)
        return;
    check_ours(means->compression, out, len, data, size);
    if (means->compression == IMAGE_ZLIB) {
        check_zlib(out, len, data, size, size);
        if (size <= K64)
            check_zlib(out, len, data, size, 1);
    }
    /* As much room as it takes is enough, and one byte less is not. */
    assert_int_equal(compress_into(deflate, data, size, again, len), len);
    assert_memory_equal(again, out, len);
    assert_int_equal(compress_into(deflate, data, size, again, len - 1), 0);
}

static void test_round_trip(void **state)
{
    static const size_t sizes[] = {512, 1024, 4096, 65536, 262144, LONGEST};

    (void)state;
    for (size_t m = 0; m < COUNT(all_means); m++) {
        for (size_t s = 0; s < COUNT(sizes); s++) {
            struct qcow2_deflate *deflate;

            /* A second for each of them. */
            if (all_means[m].level > 9 && sizes[s] > K64)
                continue;
            deflate = encoder(&all_means[m], sizes[s]);
            for (size_t c = 0; c < COUNT(contents); c++)
                check_content(&all_means[m], deflate, &contents[c], sizes[s]);
            qcow2_deflate_free(deflate);
        }
    }
}

/* Nothing of one cluster is in the next, be it one that had no room. */
static void test_again(void **state)
{
    static unsigned char data[3][K64], first[K64 + 64], out[K64 + 64];

    (void)state;
    fill_text(data[0], K64);
    fill_random(data[1], K64);
    fill_far(data[2], K64);
    for (size_t m = 0; m < COUNT(all_means); m++) {
        struct qcow2_deflate *deflate = encoder(&all_means[m], K64);
        size_t len = compress_into(deflate, data[0], K64, first, K64 - 1);

        assert_true(len > 0);
        for (unsigned round = 0; round < 4; round++) {
            unsigned char *other = data[1 + round % 2];

            compress_into(deflate, other, K64, out, round < 2 ? K64 - 1 : 100);
            assert_int_equal(compress_into(deflate, data[0], K64, out, K64 - 1), len);
            assert_memory_equal(out, first, len);
        }
        qcow2_deflate_free(deflate);
    }
}

/* Who asks for one of zlib's levels gets what zlib makes with it, the bytes that QEMU writes among them. */
static void test_levels(void **state)
{
    static const struct means zlib6 = {IMAGE_ZLIB, 6}, zlib1 = {IMAGE_ZLIB, 1},
                              zstd1 = {IMAGE_ZSTD, 1}, zstd = {IMAGE_ZSTD, 0},
                              zstd19 = {IMAGE_ZSTD, 19};
    static const struct means *const in_order[] = {&zlib1, &zlib6, NULL, &zstd, &zstd19};
    static unsigned char data[K64], out[K64 + 64], other[K64 + 64];
    struct qcow2_deflate *deflate;
    size_t len, want_len, last = K64;
    unsigned char *want;

    (void)state;
    fill_text(data, K64);
    deflate = encoder(&zlib6, K64);
    len = compress_into(deflate, data, K64, out, K64 - 1);
    qcow2_deflate_free(deflate);
    want = qcow2_make_deflate(data, K64, 12, &want_len);
    assert_int_equal(len, want_len);
    assert_memory_equal(out, want, want_len);
    free(want);
    for (size_t i = 0; i < COUNT(in_order); i++) {
        if (!in_order[i]) {
            last = K64;
            continue;
        }
        deflate = encoder(in_order[i], K64);
        len = compress_into(deflate, data, K64, out, K64 - 1);
        assert_true(len > 0 && len < last);
        last = len;
        qcow2_deflate_free(deflate);
    }
    deflate = encoder(&zstd, K64);
    len = compress_into(deflate, data, K64, out, K64 - 1);
    qcow2_deflate_free(deflate);
    deflate = encoder(&zstd1, K64);
    assert_int_equal(compress_into(deflate, data, K64, other, K64 - 1), len);
    assert_memory_equal(out, other, len);
    qcow2_deflate_free(deflate);
}

static void test_no_such_level(void **state)
{
    static const struct {
        struct means means;
        const char *words;
    } wrong[] = {
        {{IMAGE_ZLIB, 10}, "zlib has the levels 1 to 9, and no 10"},
        {{IMAGE_ZLIB, -1}, "zlib has the levels 1 to 9, and no -1"},
        {{IMAGE_ZSTD, 20}, "zstd has the levels 1 to 19, and no 20"},
        {{IMAGE_ZSTD, -1}, "zstd has the levels 1 to 19, and no -1"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        struct blk_error error = {0};

        assert_null(
            qcow2_deflate_new(wrong[i].means.compression, wrong[i].means.level, 65536, &error));
        assert_int_equal(error.code, EINVAL);
        assert_string_equal(error.text, wrong[i].words);
    }
    qcow2_deflate_free(NULL);
}

/* Of a large cluster every part is looked at before it is taken for incompressible. */
static void test_one_part_of_many(void **state)
{
    static const struct means zlib = {IMAGE_ZLIB, 0};
    static unsigned char data[LONGEST], out[LONGEST + 64];
    struct qcow2_deflate *deflate = encoder(&zlib, LONGEST);

    (void)state;
    fill_random(data, LONGEST);
    for (size_t part = 0; part < LONGEST; part += 5 * K64) {
        size_t len;

        fill_text(data + part, K64);
        len = compress_into(deflate, data, LONGEST, out, LONGEST - 1);
        assert_true(len > 0);
        check_zlib(out, len, data, LONGEST, LONGEST);
        fill_random(data + part, K64);
    }
    qcow2_deflate_free(deflate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),       cmocka_unit_test(test_again),
        cmocka_unit_test(test_levels),           cmocka_unit_test(test_no_such_level),
        cmocka_unit_test(test_one_part_of_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
