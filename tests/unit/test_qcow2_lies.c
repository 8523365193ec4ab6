/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Headers that lie: each way to be refused, with its sentence. */
#include "qcow2_outcome.h"

#include <errno.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct change {
    uint64_t at;
    unsigned bits; /* 8, 32 or 64; 0: the end of the list */
    uint64_t value;
};

/* An image of 1 MiB with clusters of 4 KiB, where the options say nothing else: a refcount table in its second
 * cluster, an L1 table with one entry in its fourth, which is the last. Version 1: an L1 table at byte 48, or
 * behind the backing name. */
struct lie {
    struct qcow2_make_options options;
    struct change changes[2];
    int code;
    const char *sentence;
};

static const struct lie lies[] = {
    /* What it is */
    {{},
     {{QCOW2_AT_MAGIC, 32, 0x514649fa}},
     EINVAL,
     "it is no qcow2 image: it begins with the bytes 51 46 49 fa, and not with 51 46 49 fb"},
    {{.version = 1},
     {{QCOW2_AT_MAGIC, 8, 0x00}},
     EINVAL,
     "it is no qcow image: it begins with the bytes 00 46 49 fb, and not with 51 46 49 fb"},
    {{},
     {{QCOW2_AT_VERSION, 32, 1}},
     EINVAL,
     "it is a qcow image (version 1), and qcow2 (version 2 or 3) was asked for: its format is "
     "\"qcow\""},
    {{},
     {{QCOW2_AT_VERSION, 32, 0}},
     ENOTSUP,
     "it is version 0 of the format, which is not known here; qcow2 is version 2 or 3"},
    {{},
     {{QCOW2_AT_VERSION, 32, 4}},
     ENOTSUP,
     "it is version 4 of the format, which is not known here; qcow2 is version 2 or 3"},
    {{.version = 1},
     {{QCOW2_AT_VERSION, 32, 2}},
     EINVAL,
     "it is a qcow2 image (version 2), and qcow (version 1) was asked for: its format is "
     "\"qcow2\""},
    {{.version = 1},
     {{QCOW2_AT_VERSION, 32, 3}},
     EINVAL,
     "it is a qcow2 image (version 3), and qcow (version 1) was asked for: its format is "
     "\"qcow2\""},
    {{.version = 1},
     {{QCOW2_AT_VERSION, 32, UINT32_MAX}},
     ENOTSUP,
     "it is version 4294967295 of the format, which is not known here; qcow is version 1"},
    /* Clusters, header */
    {{},
     {{QCOW2_AT_CLUSTER_BITS, 32, 8}},
     EINVAL,
     "its clusters have 2^8 bytes; right are 2^9 to 2^21"},
    {{},
     {{QCOW2_AT_CLUSTER_BITS, 32, 22}},
     EINVAL,
     "its clusters have 2^22 bytes; right are 2^9 to 2^21"},
    {{},
     {{QCOW2_AT_CLUSTER_BITS, 32, UINT32_MAX}},
     EINVAL,
     "its clusters have 2^4294967295 bytes; right are 2^9 to 2^21"},
    {{.version = 2},
     {{QCOW2_AT_CLUSTER_BITS, 32, 8}},
     EINVAL,
     "its clusters have 2^8 bytes; right are 2^9 to 2^21"},
    {{},
     {{QCOW2_AT_CLUSTER_BITS, 32, 21}},
     EINVAL,
     "the file ends after 16384 bytes, inside its first cluster, which has 2097152; it has been "
     "cut off"},
    {{},
     {{QCOW2_AT_HEADER_LENGTH, 32, 0}},
     EINVAL,
     "its header length is 0; right is a multiple of 8 from 104 on"},
    {{},
     {{QCOW2_AT_HEADER_LENGTH, 32, 96}},
     EINVAL,
     "its header length is 96; right is a multiple of 8 from 104 on"},
    {{},
     {{QCOW2_AT_HEADER_LENGTH, 32, 105}},
     EINVAL,
     "its header length is 105; right is a multiple of 8 from 104 on"},
    {{},
     {{QCOW2_AT_HEADER_LENGTH, 32, 4104}},
     EINVAL,
     "its header has 4104 bytes, more than its first cluster, which has 4096"},
    {{},
     {{QCOW2_AT_HEADER_LENGTH, 32, UINT32_MAX - 7}},
     EINVAL,
     "its header has 4294967288 bytes, more than its first cluster, which has 4096"},
    /* Features */
    {{},
     {{QCOW2_AT_INCOMPATIBLE, 64, 32}},
     ENOTSUP,
     "to read it takes a feature that is not known here: incompatible bit 5, for which the image "
     "has no name"},
    {{},
     {{QCOW2_AT_INCOMPATIBLE, 64, UINT64_MAX}},
     ENOTSUP,
     "to read it takes a feature that is not known here: incompatible bit 5, for which the image "
     "has no name, and 58 more"},
    {{},
     {{QCOW2_AT_INCOMPATIBLE, 64, UINT64_C(1) << 63}},
     ENOTSUP,
     "to read it takes a feature that is not known here: incompatible bit 63, for which the image "
     "has no name"},
    {{},
     {{QCOW2_AT_INCOMPATIBLE, 64, QCOW2_EXTENDED_L2}},
     EINVAL,
     "it has subclusters (extended L2 entries), and clusters of 2^12 bytes, which are too small "
     "for them: 2^14 is the least"},
    {{.cluster_bits = 13},
     {{QCOW2_AT_INCOMPATIBLE, 64, QCOW2_EXTENDED_L2}},
     EINVAL,
     "it has subclusters (extended L2 entries), and clusters of 2^13 bytes, which are too small "
     "for them: 2^14 is the least"},
    {{},
     {{QCOW2_AT_INCOMPATIBLE, 64, QCOW2_COMPRESSION_TYPE}},
     EINVAL,
     "its incompatible bit 3 says that its compression is not zlib, and its compression type says "
     "that it is"},
    {{},
     {{QCOW2_AT_COMPRESSION, 8, 1}},
     EINVAL,
     "its compression type says that it is zstd, and its incompatible bit 3 that it is zlib"},
    {{},
     {{QCOW2_AT_COMPRESSION, 8, 2}},
     ENOTSUP,
     "its clusters are compressed in a way that is not known here: type 2, where 0 is zlib and 1 "
     "is zstd"},
    {{},
     {{QCOW2_AT_COMPRESSION, 8, 255}, {QCOW2_AT_INCOMPATIBLE, 64, QCOW2_COMPRESSION_TYPE}},
     ENOTSUP,
     "its clusters are compressed in a way that is not known here: type 255, where 0 is zlib and 1 "
     "is zstd"},
    {{.compression = QCOW2_ZSTD},
     {{QCOW2_AT_HEADER_LENGTH, 32, 104}},
     EINVAL,
     "its incompatible bit 3 says that its compression is not zlib, and its compression type says "
     "that it is"},
    {{},
     {{QCOW2_AT_AUTOCLEAR, 64, 2}},
     EINVAL,
     "it says that its data file is raw (autoclear bit 1), and that it has none (incompatible bit "
     "2)"},
    /* Encryption */
    {{},
     {{QCOW2_AT_CRYPT, 32, 1}},
     ENOTSUP,
     "it is encrypted (AES), and encrypted images cannot be read here; qemu-img convert makes one "
     "of it that is not"},
    {{.version = 2},
     {{QCOW2_AT_CRYPT, 32, 2}},
     ENOTSUP,
     "it is encrypted (LUKS), and encrypted images cannot be read here; qemu-img convert makes one "
     "of it that is not"},
    {{},
     {{QCOW2_AT_CRYPT, 32, 3}},
     EINVAL,
     "its encryption method is 3; there are 0 (none), 1 (AES) and 2 (LUKS)"},
    {{.version = 1},
     {{QCOW_AT_CRYPT, 32, 1}},
     ENOTSUP,
     "it is encrypted (AES), and encrypted images cannot be read here; qemu-img convert makes one "
     "of it that is not"},
    {{.version = 1},
     {{QCOW_AT_CRYPT, 32, UINT32_MAX}},
     EINVAL,
     "its encryption method is 4294967295; there are 0 (none), 1 (AES) and 2 (LUKS)"},
    /* Size and L1 table */
    {{},
     {{QCOW2_AT_SIZE, 64, UINT64_C(1) << 63}},
     EINVAL,
     "its disk has 9223372036854775808 bytes; the most is 9223372036854775807"},
    {{},
     {{QCOW2_AT_SIZE, 64, 2097153}},
     EINVAL,
     "its L1 table is too short: it has 1 entries, and for a disk of 2097153 bytes it takes 2"},
    {{},
     {{QCOW2_AT_SIZE, 64, INT64_MAX}},
     EINVAL,
     "its L1 table is too short: it has 1 entries, and for a disk of 9223372036854775807 bytes it "
     "takes 4398046511104"},
    {{},
     {{QCOW2_AT_L1_ENTRIES, 32, 0}},
     EINVAL,
     "its L1 table is too short: it has 0 entries, and for a disk of 1048576 bytes it takes 1"},
    {{},
     {{QCOW2_AT_L1_ENTRIES, 32, 4194305}},
     EINVAL,
     "its L1 table has 4194305 entries; the most is 4194304"},
    {{},
     {{QCOW2_AT_L1_ENTRIES, 32, UINT32_MAX}},
     EINVAL,
     "its L1 table has 4294967295 entries; the most is 4194304"},
    {{},
     {{QCOW2_AT_L1_ENTRIES, 32, 4194304}},
     EINVAL,
     "its L1 table, 33554432 bytes at byte 12288, does not lie within the file, which ends after "
     "16384 bytes"},
    {{},
     {{QCOW2_AT_L1_ENTRIES, 32, 513}},
     EINVAL,
     "its L1 table, 4104 bytes at byte 12288, does not lie within the file, which ends after 16384 "
     "bytes"},
    {{},
     {{QCOW2_AT_L1_OFFSET, 64, 0}},
     EINVAL,
     "its L1 table overlaps its header: it says that it begins at byte 0"},
    {{},
     {{QCOW2_AT_L1_OFFSET, 64, 12296}},
     EINVAL,
     "its L1 table begins at byte 12296, which is not the start of a cluster (of 4096 bytes)"},
    {{},
     {{QCOW2_AT_L1_OFFSET, 64, 16384}},
     EINVAL,
     "its L1 table, 8 bytes at byte 16384, does not lie within the file, which ends after 16384 "
     "bytes"},
    {{},
     {{QCOW2_AT_L1_OFFSET, 64, UINT64_MAX - 4095}},
     EINVAL,
     "its L1 table, 8 bytes at byte 18446744073709547520, does not lie within the file, which ends "
     "after 16384 bytes"},
    /* Refcounts */
    {{},
     {{QCOW2_AT_REFCOUNT_ORDER, 32, 7}},
     EINVAL,
     "its refcounts have 2^7 bits; the most is 2^6"},
    {{},
     {{QCOW2_AT_REFCOUNT_ORDER, 32, UINT32_MAX}},
     EINVAL,
     "its refcounts have 2^4294967295 bits; the most is 2^6"},
    {{},
     {{QCOW2_AT_REFCOUNT_CLUSTERS, 32, 0}},
     EINVAL,
     "it has no refcount table; every image has one, of at least a cluster"},
    {{},
     {{QCOW2_AT_REFCOUNT_CLUSTERS, 32, 2049}},
     EINVAL,
     "its refcount table has 8392704 bytes; the most is 8388608"},
    {{},
     {{QCOW2_AT_REFCOUNT_CLUSTERS, 32, UINT32_MAX}},
     EINVAL,
     "its refcount table has 17592186040320 bytes; the most is 8388608"},
    {{},
     {{QCOW2_AT_REFCOUNT_CLUSTERS, 32, 2048}},
     EINVAL,
     "its refcount table, 8388608 bytes at byte 4096, does not lie within the file, which ends "
     "after 16384 bytes"},
    {{},
     {{QCOW2_AT_REFCOUNT_OFFSET, 64, 0}},
     EINVAL,
     "its refcount table overlaps its header: it says that it begins at byte 0"},
    {{},
     {{QCOW2_AT_REFCOUNT_OFFSET, 64, 4097}},
     EINVAL,
     "its refcount table begins at byte 4097, which is not the start of a cluster (of 4096 bytes)"},
    {{},
     {{QCOW2_AT_REFCOUNT_OFFSET, 64, UINT64_MAX - 4095}},
     EINVAL,
     "its refcount table, 4096 bytes at byte 18446744073709547520, does not lie within the file, "
     "which ends after 16384 bytes"},
    /* Snapshots */
    {{},
     {{QCOW2_AT_SNAPSHOT_COUNT, 32, 65537}, {QCOW2_AT_SNAPSHOT_OFFSET, 64, 8192}},
     EINVAL,
     "it has 65537 snapshots; the most is 65536"},
    {{},
     {{QCOW2_AT_SNAPSHOT_COUNT, 32, UINT32_MAX}},
     EINVAL,
     "it has 4294967295 snapshots; the most is 65536"},
    {{},
     {{QCOW2_AT_SNAPSHOT_COUNT, 32, 1}},
     EINVAL,
     "its snapshot table overlaps its header: it says that it begins at byte 0"},
    {{},
     {{QCOW2_AT_SNAPSHOT_COUNT, 32, 1}, {QCOW2_AT_SNAPSHOT_OFFSET, 64, 8191}},
     EINVAL,
     "its snapshot table begins at byte 8191, which is not the start of a cluster (of 4096 bytes)"},
    {{},
     {{QCOW2_AT_SNAPSHOT_COUNT, 32, 205}, {QCOW2_AT_SNAPSHOT_OFFSET, 64, 12288}},
     EINVAL,
     "its snapshot table, 8200 bytes at byte 12288, does not lie within the file, which ends after "
     "16384 bytes"},
    {{},
     {{QCOW2_AT_SNAPSHOT_COUNT, 32, 1}, {QCOW2_AT_SNAPSHOT_OFFSET, 64, UINT64_MAX - 4095}},
     EINVAL,
     "its snapshot table, 40 bytes at byte 18446744073709547520, does not lie within the file, "
     "which ends after 16384 bytes"},
    /* Tables that overlap */
    {{},
     {{QCOW2_AT_L1_OFFSET, 64, 4096}},
     EINVAL,
     "its L1 table, 8 bytes at byte 4096, and its refcount table, 4096 bytes at byte 4096, "
     "overlap"},
    {{},
     {{QCOW2_AT_SNAPSHOT_COUNT, 32, 1}, {QCOW2_AT_SNAPSHOT_OFFSET, 64, 12288}},
     EINVAL,
     "its L1 table, 8 bytes at byte 12288, and its snapshot table, 40 bytes at byte 12288, "
     "overlap"},
    {{},
     {{QCOW2_AT_SNAPSHOT_COUNT, 32, 1}, {QCOW2_AT_SNAPSHOT_OFFSET, 64, 4096}},
     EINVAL,
     "its refcount table, 4096 bytes at byte 4096, and its snapshot table, 40 bytes at byte 4096, "
     "overlap"},
    {{},
     {{QCOW2_AT_REFCOUNT_CLUSTERS, 32, 3}},
     EINVAL,
     "its L1 table, 8 bytes at byte 12288, and its refcount table, 12288 bytes at byte 4096, "
     "overlap"},
    /* The backing name */
    {{.backing = "base"},
     {{QCOW2_AT_BACKING_OFFSET, 64, 104}},
     EINVAL,
     "the name of its backing file begins at byte 104, inside the header, which has 112 bytes"},
    {{.version = 2, .backing = "base"},
     {{QCOW2_AT_BACKING_OFFSET, 64, 71}},
     EINVAL,
     "the name of its backing file begins at byte 71, inside the header, which has 72 bytes"},
    {{.backing = "base"},
     {{QCOW2_AT_BACKING_LEN, 32, 1024}},
     EINVAL,
     "the name of its backing file has 1024 bytes; the most is 1023"},
    {{.backing = "base"},
     {{QCOW2_AT_BACKING_LEN, 32, UINT32_MAX}},
     EINVAL,
     "the name of its backing file has 4294967295 bytes; the most is 1023"},
    {{.backing = "base"},
     {{QCOW2_AT_BACKING_LEN, 32, 9}},
     EINVAL,
     "the name of its backing file, 9 bytes at byte 4088, does not lie within the first cluster, "
     "which ends after 4096 bytes"},
    {{.backing = "base"},
     {{QCOW2_AT_BACKING_OFFSET, 64, 4097}},
     EINVAL,
     "the name of its backing file, 4 bytes at byte 4097, does not lie within the first cluster, "
     "which ends after 4096 bytes"},
    {{.backing = "base"},
     {{QCOW2_AT_BACKING_OFFSET, 64, UINT64_MAX}},
     EINVAL,
     "the name of its backing file, 4 bytes at byte 18446744073709551615, does not lie within the "
     "first cluster, which ends after 4096 bytes"},
    {{.backing = "base"},
     {{4088 + 1, 8, 0}},
     EINVAL,
     "the name of its backing file has the control character 0x00 at its byte 1, which no name "
     "should have"},
    {{.backing = "base"},
     {{4088 + 3, 8, 0x7f}},
     EINVAL,
     "the name of its backing file has the control character 0x7f at its byte 3, which no name "
     "should have"},
    {{.backing = "base"},
     {{4088, 8, 10}},
     EINVAL,
     "the name of its backing file has the control character 0x0a at its byte 0, which no name "
     "should have"},
    {{.version = 1, .backing = "base"},
     {{QCOW2_AT_BACKING_OFFSET, 64, 47}},
     EINVAL,
     "the name of its backing file begins at byte 47, inside the header, which has 48 bytes"},
    {{.version = 1, .backing = "base"},
     {{QCOW2_AT_BACKING_LEN, 32, 1024}},
     EINVAL,
     "the name of its backing file has 1024 bytes; the most is 1023"},
    {{.version = 1, .backing = "base"},
     {{QCOW2_AT_BACKING_LEN, 32, 65}},
     EINVAL,
     "the name of its backing file, 65 bytes at byte 48, does not lie within the start of the "
     "file, which ends after 64 bytes"},
    {{.version = 1, .backing = "base"},
     {{QCOW2_AT_BACKING_OFFSET, 64, UINT64_MAX}},
     EINVAL,
     "the name of its backing file, 4 bytes at byte 18446744073709551615, does not lie within the "
     "start of the file, which ends after 64 bytes"},
    {{.version = 1, .backing = "base"},
     {{QCOW2_AT_BACKING_LEN, 32, 9}},
     EINVAL,
     "its L1 table, 8 bytes at byte 56, and its backing file's name, 9 bytes at byte 48, overlap"},
    {{.version = 1, .backing = "base"},
     {{48, 8, 27}},
     EINVAL,
     "the name of its backing file has the control character 0x1b at its byte 0, which no name "
     "should have"},
    /* Extensions */
    {{.backing_format = "qcow2"},
     {{116, 32, UINT32_MAX}},
     EINVAL,
     "its header extension 0xe2792aca at byte 112 says that it has 4294967295 bytes, and there is "
     "room for 3976"},
    {{.backing_format = "qcow2"},
     {{116, 32, 3977}},
     EINVAL,
     "its header extension 0xe2792aca at byte 112 says that it has 3977 bytes, and there is room "
     "for 3976"},
    {{.backing_format = "qcow2"},
     {{116, 32, 16}},
     EINVAL,
     "the name of its backing format has 16 bytes; the most is 15"},
    {{.backing_format = "qcow2"},
     {{122, 8, 0}},
     EINVAL,
     "the name of its backing format has the control character 0x00 at its byte 2, which no name "
     "should have"},
    {{.backing_format = "qcow2", .backing = "base"},
     {{116, 32, 3969}},
     EINVAL,
     "its header extension 0xe2792aca at byte 112 says that it has 3969 bytes, and there is room "
     "for 3968"},
    {{.backing_format = "qcow2", .incompatible = QCOW2_DATA_FILE, .data_file = "raw"},
     {{128, 32, QCOW2_EXT_BACKING_FORMAT}},
     EINVAL,
     "the name of its backing format is there twice, at byte 136 for the second time"},
    {{.backing_format = "qcow2", .incompatible = QCOW2_DATA_FILE, .data_file = "raw"},
     {{112, 32, QCOW2_EXT_DATA_FILE}},
     EINVAL,
     "the name of its data file is there twice, at byte 136 for the second time"},
    {{.incompatible = QCOW2_DATA_FILE, .data_file = "raw"},
     {{116, 32, 1024}},
     EINVAL,
     "the name of its data file has 1024 bytes; the most is 1023"},
    {{.incompatible = QCOW2_DATA_FILE, .data_file = "raw"},
     {{121, 8, 9}},
     EINVAL,
     "the name of its data file has the control character 0x09 at its byte 1, which no name should "
     "have"},
    {{},
     {{112, 32, 1}, {116, 32, 4096}},
     EINVAL,
     "its header extension 0x00000001 at byte 112 says that it has 4096 bytes, and there is room "
     "for 3976"},
    /* Version 1 */
    {{.version = 1},
     {{QCOW_AT_CLUSTER_BITS, 8, 8}},
     EINVAL,
     "its clusters have 2^8 bytes; right are 2^9 to 2^16 in version 1"},
    {{.version = 1},
     {{QCOW_AT_CLUSTER_BITS, 8, 17}},
     EINVAL,
     "its clusters have 2^17 bytes; right are 2^9 to 2^16 in version 1"},
    {{.version = 1},
     {{QCOW_AT_CLUSTER_BITS, 8, 255}},
     EINVAL,
     "its clusters have 2^255 bytes; right are 2^9 to 2^16 in version 1"},
    {{.version = 1},
     {{QCOW_AT_L2_BITS, 8, 5}},
     EINVAL,
     "its L2 tables have 2^5 entries; right are 2^6 to 2^13 in version 1"},
    {{.version = 1},
     {{QCOW_AT_L2_BITS, 8, 14}},
     EINVAL,
     "its L2 tables have 2^14 entries; right are 2^6 to 2^13 in version 1"},
    {{.version = 1},
     {{QCOW_AT_L2_BITS, 8, 255}},
     EINVAL,
     "its L2 tables have 2^255 entries; right are 2^6 to 2^13 in version 1"},
    {{.version = 1},
     {{QCOW2_AT_SIZE, 64, UINT64_MAX}},
     EINVAL,
     "its disk has 18446744073709551615 bytes; the most is 9223372036854775807"},
    {{.version = 1},
     {{QCOW2_AT_SIZE, 64, UINT64_C(1) << 45}},
     EINVAL,
     "for its disk of 35184372088832 bytes, its L1 table would have 16777216 entries; the most is "
     "4194304"},
    {{.version = 1},
     {{QCOW2_AT_SIZE, 64, 2097153}},
     EINVAL,
     "its L1 table, 16 bytes at byte 48, does not lie within the file, which ends after 56 bytes"},
    {{.version = 1},
     {{QCOW_AT_L1_OFFSET, 64, 40}},
     EINVAL,
     "its L1 table overlaps its header: it begins at byte 40, and the header has 48 bytes"},
    {{.version = 1},
     {{QCOW_AT_L1_OFFSET, 64, 49}},
     EINVAL,
     "its L1 table, 8 bytes at byte 49, does not lie within the file, which ends after 56 bytes"},
    {{.version = 1},
     {{QCOW_AT_L1_OFFSET, 64, UINT64_MAX}},
     EINVAL,
     "its L1 table, 8 bytes at byte 18446744073709551615, does not lie within the file, which ends "
     "after 56 bytes"},
};

static void change(struct qcow2_make *make, const struct change *change)
{
    if (change->bits == 8)
        qcow2_make_put8(make, change->at, (uint8_t)change->value);
    else if (change->bits == 32)
        qcow2_make_put32(make, change->at, (uint32_t)change->value);
    else if (change->bits == 64)
        qcow2_make_put64(make, change->at, change->value);
}

static void check_lie(const struct lie *lie)
{
    struct qcow2_make_options options = lie->options;
    struct qcow2_make make;
    struct qcow2_outcome out;

    if (options.cluster_bits == 0)
        options.cluster_bits = 12;
    options.size = MIB;
    qcow2_make_init(&make, &options);
    /* Nothing else is wrong with it, unless the options are the lie. */
    qcow2_parse_sound(&make, &out);
    qcow2_header_free(&out.header);
    for (size_t i = 0; i < COUNT(lie->changes); i++)
        change(&make, &lie->changes[i]);
    qcow2_parse(&make, &out);
    if (out.status == 0)
        fail_msg("accepted, where this was due: %s", lie->sentence);
    assert_string_equal(out.error.text, lie->sentence);
    assert_int_equal(out.status, -lie->code);
    qcow2_make_release(&make);
}

static void test_lies(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lies); i++)
        check_lie(&lies[i]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
