/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Decompression of what strangers wrote: between pages that nobody may touch, exactly as much as was asked for. */
#include "pile.h"

#include "src/format/qcow2_inflate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CLUSTER 65536
#define K64     UINT64_C(65536)
#define PAGE    4096

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* `len` bytes that end where a page begins that cannot be touched. */
struct fence {
    unsigned char *map, *bytes;
    size_t map_len;
};

static void fence_init(struct fence *fence, size_t len)
{
    size_t inside = (len + PAGE - 1) / PAGE * PAGE;

    fence->map_len = inside + PAGE;
    fence->map =
        mmap(NULL, fence->map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(fence->map != MAP_FAILED);
    assert_int_equal(mprotect(fence->map + inside, PAGE, PROT_NONE), 0);
    fence->bytes = fence->map + inside - len;
}

static void fence_release(struct fence *fence)
{
    munmap(fence->map, fence->map_len);
}

static unsigned char *compress(enum qcow2_compression compression, const unsigned char *data,
                               size_t len, size_t *out_len)
{
    if (compression == QCOW2_ZSTD)
        return qcow2_make_zstd(data, len, out_len);
    return qcow2_make_deflate(data, len, 15, out_len);
}

static int inflate_fenced(struct qcow2_inflate *inflate, const unsigned char *stream, size_t len,
                          unsigned char *out, size_t out_len)
{
    struct blk_error error = {0};
    struct fence in, to;
    int status;

    fence_init(&in, len);
    fence_init(&to, out_len);
    memcpy(in.bytes, stream, len);
    status = qcow2_inflate(inflate, in.bytes, len, to.bytes, out_len, &error);
    memcpy(out, to.bytes, out_len);
    fence_release(&in);
    fence_release(&to);
    assert_true(status == 0 || status == -EIO);
    assert_int_equal(status, -error.code);
    if (status < 0)
        desk_check_text(error.text, "a compressed cluster");
    return status;
}

/* Bytes of a kind: 0: all the same, 1: of some structure, 2: none; some repeat what is 32 KiB back. */
static void fill(unsigned char *data, size_t len, unsigned kind)
{
    uint32_t state = kind + 1;

    if (kind < 2)
        qcow2_make_pattern(data, len, kind);
    for (size_t i = 0; kind != 1 && i < len; i++) {
        state = state * 1664525 + 1013904223;
        data[i] = kind == 0 ? 0x55 : (unsigned char)(state >> 24);
    }
    if (len > 40000)
        memcpy(data + 32768, data, 5000);
}

static void test_sound(void **state)
{
    static unsigned char data[CLUSTER], out[CLUSTER];

    (void)state;
    for (int compression = QCOW2_ZLIB; compression <= QCOW2_ZSTD; compression++) {
        struct qcow2_inflate *inflate = qcow2_inflate_new((enum qcow2_compression)compression);

        assert_non_null(inflate);
        for (size_t size = 512; size <= CLUSTER; size *= 2) {
            for (unsigned kind = 0; kind < 3; kind++) {
                size_t len;
                unsigned char *stream;

                fill(data, size, kind);
                stream = compress((enum qcow2_compression)compression, data, size, &len);
                stream = realloc(stream, len + 600);
                assert_non_null(stream);
                memset(stream + len, 0xa5, 600); /* whatever follows */
                assert_int_equal(inflate_fenced(inflate, stream, len, out, size), 0);
                assert_memory_equal(out, data, size);
                memset(out, 0, size);
                assert_int_equal(inflate_fenced(inflate, stream, len + 600, out, size), 0);
                assert_memory_equal(out, data, size);
                /* What is cut off is refused, unless nothing was lost but the mark of the end. */
                for (size_t less = 1; less < len && less < 40; less += 13) {
                    memset(out, 0, size);
                    if (inflate_fenced(inflate, stream, len - less, out, size) == 0)
                        assert_memory_equal(out, data, size);
                }
                free(stream);
            }
        }
        qcow2_inflate_free(inflate);
    }
}

/* Bits turned over, bytes replaced, ends cut off. */
static void test_damaged(void **state)
{
    static unsigned char data[CLUSTER], out[CLUSTER];
    uint64_t random = 20261121;
    unsigned refused = 0;

    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        enum qcow2_compression compression = round % 2 ? QCOW2_ZSTD : QCOW2_ZLIB;
        struct qcow2_inflate *inflate = qcow2_inflate_new(compression);
        size_t size = (size_t)512 << round % 5, len;
        unsigned char *stream;

        fill(data, size, round / 10 % 3);
        stream = compress(compression, data, size, &len);
        for (unsigned i = 0; i < 1 + round % 4; i++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            /* More often where the codes are. */
            stream[(random >> 40) % (i % 2      ? len
                                     : len < 60 ? len
                                                : 60)] ^= (unsigned char)(random >> 33);
        }
        if (round % 7 == 0)
            len -= (random >> 20) % len;
        if (len > 0)
            refused += inflate_fenced(inflate, stream, len, out, size) < 0;
        free(stream);
        qcow2_inflate_free(inflate);
    }
    assert_true(refused > 1000);
}

/* ---- Through the device ----------------------------------------------------------------------- */

static int read_stream(enum qcow2_compression compression, const void *stream, size_t len,
                       unsigned char *buf, struct desk_req *req)
{
    struct qcow2_make make;
    struct pile pile;
    int status;

    pile_init(&pile);
    qcow2_make_init(&make,
                    &(struct qcow2_make_options){.size = 2 * K64, .compression = compression});
    qcow2_make_stream(&make, K64, stream, len);
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    status = desk_do(&pile.desk, req, BLK_READ, 0, K64, buf, K64);
    if (status < 0) {
        assert_int_equal(status, -EIO);
        assert_int_equal(req->req.error.retry, BLK_MEDIUM);
        assert_true(req->req.bad_offset == K64);
        desk_check_text(req->req.error.text, "reading image at offset 65536: a compressed cluster");
    }
    qcow2_make_release(&make);
    pile_release(&pile);
    return status;
}

/* Longer than a cluster is well; shorter, or cut off, is not. */
static void test_streams(void **state)
{
    static const size_t lengths[] = {K64, K64 + 1, 2 * K64, K64 - 1, 1, 0};
    static unsigned char data[2 * K64], buf[K64];
    struct desk_req req;

    (void)state;
    qcow2_make_pattern(data, sizeof(data), 3);
    for (int compression = QCOW2_ZLIB; compression <= QCOW2_ZSTD; compression++) {
        enum qcow2_compression kind = (enum qcow2_compression)compression;

        for (size_t i = 0; i < COUNT(lengths); i++) {
            bool sound = lengths[i] == K64 || (kind == QCOW2_ZLIB && lengths[i] > K64);
            size_t len;
            unsigned char *stream = kind == QCOW2_ZLIB
                                        ? qcow2_make_deflate(data, lengths[i], 15, &len)
                                        : qcow2_make_zstd(data, lengths[i], &len);

            memset(buf, 0, sizeof(buf));
            assert_int_equal(read_stream(kind, stream, len, buf, &req), sound ? 0 : -EIO);
            if (sound)
                assert_memory_equal(buf, data, K64);
            if (lengths[i] < K64 && kind == QCOW2_ZLIB)
                desk_check_text(req.req.error.text, "where it should give 65536");
            /* The rest of it is not there. */
            if (lengths[i] == K64)
                assert_int_equal(read_stream(kind, stream, len - 700, buf, &req), -EIO);
            free(stream);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
