/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What L2 entries say, and which of them are refused. */
#include "pile.h"

#include "src/format/qcow2_map.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define COPIED QCOW2_COPIED

struct sample {
    unsigned version, cluster_bits;
    uint64_t incompatible;
    uint64_t offset, entry, bitmap;
    struct qcow2_run run; /* its offset is the one above */
    const char *refused;  /* a part of the sentence; NULL: it is sound */
};

#define FILE_SIZE (10 * 65536 + 1000)

#define SOUND(v, bits, features, at, e, map, k, l, h, hl)                                          \
    {                                                                                              \
        .version = (v), .cluster_bits = (bits), .incompatible = (features), .offset = (at),        \
        .entry = (e), .bitmap = (map), .run = {                                                    \
            .kind = QCOW2_RUN_##k,                                                                 \
            .offset = (at),                                                                        \
            .len = (l),                                                                            \
            .host = (h),                                                                           \
            .host_len = (hl)                                                                       \
        }                                                                                          \
    }
#define REFUSED(v, bits, features, at, e, map, text)                                               \
    {                                                                                              \
        .version = (v), .cluster_bits = (bits), .incompatible = (features), .offset = (at),        \
        .entry = (e), .bitmap = (map), .refused = (text)                                           \
    }

/* A stream of 16-bit clusters: the offset has 54 bits. */
#define STREAM16(host, sectors) (QCOW2_COMPRESSED | (uint64_t)(sectors) << 54 | (host))
#define STREAM9(host, sectors)  (QCOW2_COMPRESSED | (uint64_t)(sectors) << 61 | (host))
#define STREAM21(host, sectors) (QCOW2_COMPRESSED | (uint64_t)(sectors) << 49 | (host))
#define V1_STREAM(host, bytes)  (QCOW_V1_COMPRESSED | (uint64_t)(bytes) << 47 | (host))

static const struct sample samples[] = {
    /* Plain, and nothing. */
    SOUND(3, 16, 0, 0, 0, 0, NOTHING, 65536, 0, 0),
    SOUND(3, 16, 0, 65536 + 10, 0, 0, NOTHING, 65526, 10, 0),
    SOUND(3, 16, 0, 65536 + 10, COPIED | 131072, 0, PLAIN, 65526, 131082, 0),
    SOUND(2, 16, 0, 65535, 131072, 0, PLAIN, 1, 131072 + 65535, 0),
    SOUND(3, 16, 0, 0, COPIED | 10 * 65536, 0, PLAIN, 65536, 10 * 65536, 0),
    SOUND(3, 9, 0, 0, COPIED | 1024, 0, PLAIN, 512, 1024, 0),
    REFUSED(3, 16, 0, 0, COPIED | 11 * 65536, 0, "host offset 720896 is beyond the end"),
    REFUSED(3, 16, 0, 0, COPIED | (UINT64_C(1) << 55), 0, "is beyond the end of the file"),
    REFUSED(3, 16, 0, 0, COPIED | 1024, 0, "host offset 1024 is not a multiple of 65536"),
    REFUSED(3, 16, 0, 0, COPIED | 131072 | 2, 0, "the reserved bits 0x0000000000000002 are set"),
    REFUSED(3, 16, 0, 0, COPIED | 131072 | 256, 0, "reserved bits 0x0000000000000100"),
    REFUSED(3, 16, 0, 0, 131072 | UINT64_C(1) << 56, 0, "reserved bits 0x0100000000000000"),
    REFUSED(3, 16, 0, 0, 131072 | UINT64_C(1) << 61, 0, "reserved bits 0x2000000000000000"),
    REFUSED(3, 16, 0, 0, COPIED, 0, "a cluster at host offset 0"),
    /* Zeros. */
    SOUND(3, 16, 0, 100, QCOW2_ZERO, 0, ZEROS, 65436, 100, 0),
    SOUND(3, 16, 0, 0, COPIED | 131072 | QCOW2_ZERO, 0, ZEROS, 65536, 131072, 0),
    /* Preallocated, but never written to. */
    SOUND(3, 16, 0, 0, COPIED | 100 * 65536 | QCOW2_ZERO, 0, ZEROS, 65536, 100 * 65536, 0),
    REFUSED(2, 16, 0, 0, COPIED | 131072 | QCOW2_ZERO, 0, "bit 0 is set, which version 2 has not"),
    REFUSED(3, 16, 0, 0, COPIED | 1024 | QCOW2_ZERO, 0, "host offset 1024 is not a multiple"),
    /* Compressed: additional sectors, beginning and end anywhere. */
    SOUND(3, 16, 0, 0, STREAM16(131072, 0), 0, COMPRESSED, 65536, 131072, 512),
    SOUND(3, 16, 0, 65536 + 7, STREAM16(131073, 3), 0, COMPRESSED, 65529, 131073, 2047),
    SOUND(2, 16, 0, 0, STREAM16(131071, 255), 0, COMPRESSED, 65536, 131071, 255 * 512 + 1),
    SOUND(3, 16, 0, 0, STREAM16(FILE_SIZE - 1, 255), 0, COMPRESSED, 65536, FILE_SIZE - 1, 1),
    SOUND(3, 9, 0, 0, STREAM9(1000, 1), 0, COMPRESSED, 512, 1000, 536),
    SOUND(3, 21, 0, 0, STREAM21(1000, 8191), 0, COMPRESSED, 2 * MIB, 1000, FILE_SIZE - 1000),
    REFUSED(3, 16, 0, 0, STREAM16(FILE_SIZE, 0), 0, "compressed data at host offset 656360, where"),
    REFUSED(3, 16, 0, 0, STREAM16(0, 0), 0, "compressed data at host offset 0, where the file"),
    REFUSED(3, 9, 0, 0, STREAM9(UINT64_C(1) << 56, 0), 0, "has bits above 55"),
    REFUSED(3, 16, QCOW2_DATA_FILE, 0, STREAM16(131072, 0), 0, "with a data file cannot have"),
    /* A data file: there is offset 0 too, and there are no others than the guest's. */
    SOUND(3, 16, QCOW2_DATA_FILE, 5, COPIED, 0, PLAIN, 65531, 5, 0),
    SOUND(3, 16, QCOW2_DATA_FILE, 0, 0, 0, NOTHING, 65536, 0, 0),
    SOUND(3, 16, QCOW2_DATA_FILE, 65540, COPIED | 65536, 0, PLAIN, 65532, 65540, 0),
    REFUSED(3, 16, QCOW2_DATA_FILE, 65536, COPIED | 131072, 0,
            "where only 65536, that of the guest"),
    REFUSED(3, 16, QCOW2_DATA_FILE, 65536, COPIED, 0, "where only 65536, that of the guest"),
    /* Subclusters of 2 KiB. */
    SOUND(3, 16, QCOW2_EXTENDED_L2, 0, 0, 0, NOTHING, 65536, 0, 0),
    SOUND(3, 16, QCOW2_EXTENDED_L2, 0, COPIED | 65536, 0xffffffff, PLAIN, 65536, 65536, 0),
    SOUND(3, 16, QCOW2_EXTENDED_L2, 100, COPIED | 65536, 0x1, PLAIN, 1948, 65636, 0),
    SOUND(3, 16, QCOW2_EXTENDED_L2, 2048, COPIED | 65536, 0x1, NOTHING, 63488, 67584, 0),
    SOUND(3, 16, QCOW2_EXTENDED_L2, 2048, COPIED | 65536, UINT64_C(0x600000001), ZEROS, 4096, 67584,
          0),
    SOUND(3, 16, QCOW2_EXTENDED_L2, 65535, COPIED | 65536, 0xc0000000, PLAIN, 1, 131071, 0),
    SOUND(3, 16, QCOW2_EXTENDED_L2, 0, 0, UINT64_C(0xffffffff00000000), ZEROS, 65536, 0, 0),
    SOUND(3, 16, QCOW2_EXTENDED_L2, 0, STREAM16(131072, 0), 0, COMPRESSED, 65536, 131072, 512),
    SOUND(3, 16, QCOW2_EXTENDED_L2 | QCOW2_DATA_FILE, 0, COPIED, 1, PLAIN, 2048, 0, 0),
    REFUSED(3, 16, QCOW2_EXTENDED_L2, 0, COPIED | 65536, UINT64_C(0x100000001),
            "both allocated and zeros"),
    REFUSED(3, 16, QCOW2_EXTENDED_L2, 0, COPIED | 65536, UINT64_C(0x8000000080000000),
            "both allocated"),
    REFUSED(3, 16, QCOW2_EXTENDED_L2, 0, 0, 1, "it names no host offset"),
    REFUSED(3, 16, QCOW2_EXTENDED_L2, 0, COPIED | 65536 | QCOW2_ZERO, 0,
            "an extended entry has not"),
    REFUSED(3, 16, QCOW2_EXTENDED_L2, 0, STREAM16(131072, 0), 1, "no subclusters, but the bitmap"),
    REFUSED(3, 16, QCOW2_EXTENDED_L2, 0, COPIED | 1024, 0, "is not a multiple of 65536"),
    /* Version 1. */
    SOUND(1, 16, 0, 1, 0, 0, NOTHING, 65535, 1, 0),
    SOUND(1, 16, 0, 1, 512, 0, PLAIN, 65535, 513, 0),
    SOUND(1, 16, 0, 1, V1_STREAM(513, 77), 0, COMPRESSED, 65535, 513, 77),
    SOUND(1, 16, 0, 0, V1_STREAM(FILE_SIZE - 5, 77), 0, COMPRESSED, 65536, FILE_SIZE - 5, 5),
    REFUSED(1, 16, 0, 0, V1_STREAM(513, 0), 0, "a compressed cluster of no bytes"),
    REFUSED(1, 16, 0, 0, V1_STREAM(FILE_SIZE, 1), 0,
            "where the file, of 656360 bytes, can have none"),
    REFUSED(1, 16, 0, 0, 513, 0, "host offset 513 is not a multiple of 512"),
    REFUSED(1, 16, 0, 0, UINT64_C(0x4000000000000000), 0, "is beyond the end of the file"),
};

static void test_entries(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(samples); i++) {
        const struct sample *sample = &samples[i];
        struct qcow2_header header = {.version = sample->version,
                                      .cluster_bits = sample->cluster_bits,
                                      .incompatible = sample->incompatible};
        struct qcow2_bounds bounds = {&header, FILE_SIZE, FILE_SIZE};
        struct blk_error error;
        struct qcow2_run run;
        int status = qcow2_entry_decode(&bounds, sample->offset, sample->entry, sample->bitmap,
                                        &run, &error);

        if (status < 0 && !sample->refused)
            fail_msg("sample %zu: %s", i, error.text);
        if (status < 0) {
            assert_int_equal(status, -EINVAL);
            assert_int_equal(error.retry, BLK_FATAL);
            desk_check_text(error.text, sample->refused);
            desk_check_text(error.text, "L2 entry 0x");
            continue;
        }
        if (sample->refused)
            fail_msg("sample %zu is not refused: %s", i, sample->refused);
        if (run.kind != sample->run.kind || run.offset != sample->run.offset ||
            run.len != sample->run.len || run.host != sample->run.host ||
            run.host_len != sample->run.host_len)
            fail_msg("sample %zu: kind %d, %" PRIu64 "+%" PRIu64 " at %" PRIu64 "+%" PRIu32, i,
                     run.kind, run.offset, run.len, run.host, run.host_len);
    }
}

/* Whatever an entry says, what comes of it lies in the cluster and in the file. */
static void test_any_entry(void **state)
{
    static const uint64_t features[] = {0, QCOW2_EXTENDED_L2, QCOW2_DATA_FILE,
                                        QCOW2_EXTENDED_L2 | QCOW2_DATA_FILE};
    uint64_t random = 20261121;
    unsigned sound = 0;

    (void)state;
    for (unsigned i = 0; i < 400000; i++) {
        struct qcow2_header header = {.version = 1 + i % 3};
        struct qcow2_bounds bounds = {&header, FILE_SIZE, FILE_SIZE};
        uint64_t words[3], offset, left;
        struct blk_error error;
        struct qcow2_run run;

        for (unsigned word = 0; word < 3; word++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            words[word] = random >> 20 << 20 ^ random >> 40;
        }
        /* Half of them are not quite absurd. */
        if (i % 2)
            words[0] &= COPIED | QCOW2_COMPRESSED | 0xffe01;
        header.cluster_bits = 9 + i % 13;
        header.incompatible = header.version == 3 ? features[i / 7 % 4] : 0;
        offset = words[2] >> 20;
        left = (UINT64_C(1) << header.cluster_bits) - offset % (UINT64_C(1) << header.cluster_bits);
        if (qcow2_entry_decode(&bounds, offset, words[0], words[1], &run, &error) < 0) {
            assert_true(error.text[0] != '\0');
            continue;
        }
        sound++;
        assert_int_equal(run.offset, offset);
        assert_true(run.len > 0 && run.len <= left);
        if (run.kind == QCOW2_RUN_COMPRESSED) {
            assert_int_equal(run.len, left);
            assert_true(run.host_len > 0 && run.host < FILE_SIZE);
            assert_true(run.host_len <= FILE_SIZE - run.host);
        }
        if (run.kind == QCOW2_RUN_PLAIN) /* a last cluster may be cut off */
            assert_true(run.host < FILE_SIZE + (UINT64_C(1) << header.cluster_bits));
    }
    assert_true(sound > 1000);
}

/* ---- Through the device ----------------------------------------------------------------------- */

/* A refusal names the guest's offset, and is not held against what lies before and behind. */
static void test_refused_where_it_is(void **state)
{
    static unsigned char buf[4096], cluster[512];
    struct qcow2_make make;
    struct blk_extent list[4];
    struct blk_extents extents = {list, 4, 0};
    struct desk_req req;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 9, .size = 4096});
    memset(cluster, 7, sizeof(cluster));
    qcow2_make_data(&make, 512, cluster);
    qcow2_make_entry(&make, 1024, COPIED | 512 * 100000);
    qcow2_make_data(&make, 1536, cluster);
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 0, buf, 1024), 0);
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 1536, buf, 1024), 0);
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 0, buf, 4096), -EINVAL);
    assert_string_equal(req.req.error.text,
                        "reading image at offset 1024: L2 entry 0x80000000030d4000: host offset "
                        "51200000 is beyond the end of the file, which has 3584 bytes");
    assert_int_equal(req.req.error.retry, BLK_FATAL);
    for (unsigned offset = 0; offset <= 1536; offset += 512) {
        desk_prepare(&pile.desk, &req, BLK_EXTENTS, 0, offset, NULL, 4096 - offset);
        req.req.extents = &extents;
        blk_submit(pile.desk.dev, &req.req);
        fake_finish(&pile.desk.fake);
        assert_int_equal(req.req.status, offset == 1024 ? -EINVAL : 0);
    }
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* L1 tables are checked before, but a device does not rely on it. */
static void test_table_outside(void **state)
{
    static unsigned char buf[4096];
    struct qcow2_make make;
    struct desk_req req;
    struct pile pile;

    (void)state;
    pile_init(&pile);
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 9, .size = 65536});
    qcow2_make_put64(&make, make.l1_offset, UINT64_C(1) << 30);
    assert_int_equal(pile_image(&pile, &make, NULL, NULL), 0);
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 100, buf, 1024), -EINVAL);
    assert_string_equal(req.req.error.text,
                        "reading image at offset 100: its L2 table, at host offset 1073741824, is "
                        "not within the file, which has 2048 bytes");
    assert_int_equal(desk_do(&pile.desk, &req, BLK_READ, 0, 32768, buf, 1024), 0);
    qcow2_make_release(&make);
    pile_release(&pile);
}

/* An L1 table that is too short for the disk. */
static void test_short_l1(void **state)
{
    struct qcow2_make make;
    struct blk_error error;
    struct desk_task task;
    struct pile pile;
    struct qcow2_parts parts = {.name = "image"};
    uint64_t need;

    (void)state;
    pile_init(&pile);
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 9, .size = 65536});
    assert_int_equal(
        qcow2_header_parse(&parts.header, make.bytes, make.len, make.len, false, &need, &error), 0);
    parts.header.l1_entries = 1;
    pile_disk(&pile, 65536);
    parts.file = pile_open(&pile);
    pile.desk.dev = qcow2_open(pile.desk.fake.loop, &parts, desk_task(&task));
    fake_finish(&pile.desk.fake);
    assert_int_equal(task.task.status, -EINVAL);
    assert_string_equal(task.task.error.text, "opening image: its L1 table has 1 entries, where a "
                                              "disk of 65536 bytes needs 2");
    qcow2_make_release(&make);
    pile_release(&pile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_any_entry),
        cmocka_unit_test(test_refused_where_it_is),
        cmocka_unit_test(test_table_outside),
        cmocka_unit_test(test_short_l1),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
