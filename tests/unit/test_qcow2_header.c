/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Headers: what sound ones say, and what does not matter. */
#include "qcow2_outcome.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- Sound ones ------------------------------------------------------------------------------- */

static void check_numbers(const struct qcow2_make *make, const struct qcow2_header *header)
{
    assert_int_equal(header->version, make->version);
    assert_int_equal(header->cluster_bits, make->cluster_bits);
    assert_int_equal(header->l2_bits, make->l2_bits);
    assert_int_equal(header->size, make->size);
    assert_int_equal(header->l1_offset, make->l1_offset);
    assert_int_equal(header->l1_entries, make->l1_entries);
    assert_int_equal(header->incompatible, make->incompatible);
    assert_int_equal(header->compression, make->compression);
    assert_int_equal(header->refcount_bits, make->version == 1 ? 0 : 16);
    assert_int_equal(header->refcount_clusters, make->version == 1 ? 0 : 1);
    assert_int_equal(header->refcount_offset, make->version == 1 ? 0 : make->cluster_size);
    assert_int_equal(header->snapshot_count, make->snapshot_count);
    assert_int_equal(header->snapshot_offset, make->snapshot_offset);
}

static void check_sound(const struct qcow2_make_options *options)
{
    struct qcow2_make make;
    struct qcow2_outcome out;

    qcow2_make_init(&make, options);
    if (make.version > 1)
        qcow2_make_snapshot(&make, &(struct qcow2_make_snapshot){.id = "1", .name = "one"});
    qcow2_parse_sound(&make, &out);
    check_numbers(&make, &out.header);
    assert_null(out.header.backing);
    assert_null(out.header.backing_format);
    assert_null(out.header.data_file);
    qcow2_header_free(&out.header);
    qcow2_make_release(&make);
}

static void test_every_version_and_cluster_size(void **state)
{
    static const uint64_t sizes[] = {0, 1, 511, 65536, 1000 * KIB + 3};

    (void)state;
    for (unsigned version = 1; version <= 3; version++)
        for (unsigned bits = 9; bits <= (version == 1 ? 16u : 21u); bits++)
            for (size_t i = 0; i < COUNT(sizes); i++)
                check_sound(&(struct qcow2_make_options){
                    .version = version, .cluster_bits = bits, .size = sizes[i]});
    for (unsigned bits = 14; bits <= 21; bits++)
        check_sound(&(struct qcow2_make_options){
            .cluster_bits = bits, .size = 3 * GIB + 1, .incompatible = QCOW2_EXTENDED_L2});
    for (unsigned bits = 6; bits <= 13; bits++)
        check_sound(&(struct qcow2_make_options){
            .version = 1, .cluster_bits = 9, .l2_bits = bits, .size = 77 * MIB + 1});
    check_sound(&(struct qcow2_make_options){.size = GIB, .compression = QCOW2_ZSTD});
    check_sound(&(struct qcow2_make_options){.size = GIB, .l1_entries = 100});
    /* Refcounts that are off, and a mark that something is: no obstacle to reading. */
    check_sound(
        &(struct qcow2_make_options){.size = GIB, .incompatible = QCOW2_DIRTY | QCOW2_CORRUPT});
}

static void test_names(void **state)
{
    struct qcow2_make make;
    struct qcow2_outcome out;

    (void)state;
    for (unsigned version = 1; version <= 3; version++) {
        qcow2_make_init(&make, &(struct qcow2_make_options){
                                   .version = version,
                                   .cluster_bits = 12,
                                   .size = MIB,
                                   .incompatible = version == 3 ? QCOW2_DATA_FILE : 0,
                                   .autoclear = 2,
                                   .backing = "b\xc3\xa4se.img",
                                   .backing_format = version == 1 ? NULL : "raw",
                                   .data_file = version == 3 ? "data.raw" : NULL,
                               });
        if (version > 1)
            qcow2_make_extension(&make, 0x12345678, "whatever it is", 14);
        qcow2_parse_sound(&make, &out);
        assert_string_equal(out.header.backing, "b\xc3\xa4se.img");
        if (version > 1)
            assert_string_equal(out.header.backing_format, "raw");
        else
            assert_null(out.header.backing_format);
        if (version == 3)
            assert_string_equal(out.header.data_file, "data.raw");
        else
            assert_null(out.header.data_file);
        assert_int_equal(out.header.data_file_raw, version == 3);
        qcow2_header_free(&out.header);
        qcow2_make_release(&make);
    }
}

static void test_names_at_their_limits(void **state)
{
    char name[QCOW2_MAX_NAME + 1];
    struct qcow2_make make;
    struct qcow2_outcome out;

    (void)state;
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    for (unsigned version = 1; version <= 3; version++) {
        qcow2_make_init(&make,
                        &(struct qcow2_make_options){
                            .version = version, .cluster_bits = 12, .size = MIB, .backing = name});
        qcow2_parse_sound(&make, &out);
        assert_string_equal(out.header.backing, name);
        qcow2_header_free(&out.header);
        /* To the very end of the first cluster. */
        if (version > 1) {
            qcow2_make_put(&make, 4096 - 5, "hello", 5);
            qcow2_make_put64(&make, QCOW2_AT_BACKING_OFFSET, 4096 - 5);
            qcow2_make_put32(&make, QCOW2_AT_BACKING_LEN, 5);
            qcow2_parse_sound(&make, &out);
            assert_string_equal(out.header.backing, "hello");
            qcow2_header_free(&out.header);
        }
        /* A NUL that was counted is no part of it; a name of nothing is none; and one at 0 neither. */
        qcow2_make_put(&make, 1024, "abc\0", 4);
        qcow2_make_put64(&make, QCOW2_AT_BACKING_OFFSET, 1024);
        qcow2_make_put32(&make, QCOW2_AT_BACKING_LEN, 4);
        if (version == 1) {
            qcow2_make_put64(&make, QCOW_AT_L1_OFFSET, 2048);
            qcow2_make_put64(&make, 2048, 0);
        }
        qcow2_parse_sound(&make, &out);
        assert_string_equal(out.header.backing, "abc");
        qcow2_header_free(&out.header);
        qcow2_make_put32(&make, QCOW2_AT_BACKING_LEN, 0);
        qcow2_parse_sound(&make, &out);
        assert_null(out.header.backing);
        qcow2_header_free(&out.header);
        qcow2_make_put64(&make, QCOW2_AT_BACKING_OFFSET, 0);
        qcow2_make_put32(&make, QCOW2_AT_BACKING_LEN, 4);
        qcow2_parse_sound(&make, &out);
        assert_null(out.header.backing);
        qcow2_header_free(&out.header);
        qcow2_make_release(&make);
    }
}

/* What is there and means nothing to who reads. */
static void test_what_is_passed_over(void **state)
{
    struct qcow2_make make;
    struct qcow2_outcome out;
    char *filler = malloc(4096);

    (void)state;
    assert_non_null(filler);
    memset(filler, 0xff, 4096);
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 12,
                                                        .size = MIB,
                                                        .compatible = UINT64_MAX,
                                                        .autoclear = UINT64_MAX & ~UINT64_C(2),
                                                        .data_file = "not used"});
    qcow2_make_extension(&make, QCOW2_EXT_BITMAPS, filler, 24);
    qcow2_make_extension(&make, QCOW2_EXT_FEATURE_NAMES, filler, 47);
    /* The same type twice, and no data. */
    qcow2_make_extension(&make, 0x0537be77, filler, 16);
    qcow2_make_extension(&make, 0x0537be77, NULL, 0);
    /* The last one ends with the first cluster: there is no room for an end marker, and no need. */
    qcow2_make_extension(&make, 0xffffffff, filler, 4096 - make.extensions - 8);
    qcow2_make_put32(&make, QCOW2_AT_REFCOUNT_ORDER, 6);
    qcow2_parse_sound(&make, &out);
    assert_int_equal(out.header.compatible, UINT64_MAX);
    assert_int_equal(out.header.autoclear, UINT64_MAX & ~UINT64_C(2));
    assert_int_equal(out.header.refcount_bits, 64);
    assert_null(out.header.data_file);
    qcow2_header_free(&out.header);
    qcow2_make_release(&make);

    /* There is no room for one more before the backing name, whatever the bytes between are. */
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 12, .size = MIB});
    qcow2_make_put(&make, 112, filler, 7);
    qcow2_make_put(&make, 119, "a name", 6);
    qcow2_make_put64(&make, QCOW2_AT_BACKING_OFFSET, 119);
    qcow2_make_put32(&make, QCOW2_AT_BACKING_LEN, 6);
    qcow2_parse_sound(&make, &out);
    assert_string_equal(out.header.backing, "a name");
    qcow2_header_free(&out.header);
    qcow2_make_release(&make);

    /* A longer header, of a later writer; what is new in it is not known, and not needed. */
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 12, .size = MIB});
    qcow2_make_put(&make, QCOW2_AT_COMPRESSION + 1, filler, 200 - QCOW2_AT_COMPRESSION - 1);
    qcow2_make_put32(&make, QCOW2_AT_HEADER_LENGTH, 200);
    qcow2_parse_sound(&make, &out);
    qcow2_header_free(&out.header);
    qcow2_make_release(&make);

    /* And the shortest: what stands where the compression type would be is an extension. */
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 12, .size = MIB});
    qcow2_make_put32(&make, QCOW2_AT_HEADER_LENGTH, 104);
    qcow2_make_put32(&make, 104, 0x01020304);
    qcow2_parse_sound(&make, &out);
    qcow2_header_free(&out.header);
    qcow2_make_release(&make);
    free(filler);
}

/* ---- Unknown features ------------------------------------------------------------------------- */

/* Entries that are not the one: of another kind of feature, of another bit, and one that is cut off. */
static void put_other_names(struct qcow2_make *make)
{
    unsigned char entries[95] = {1, 40, 'k'};

    entries[48 + 1] = 40;
    entries[48 + 2] = 'c';
    qcow2_make_extension(make, QCOW2_EXT_FEATURE_NAMES, entries, sizeof(entries));
    qcow2_make_feature_name(make, 41, "another one");
}

static void check_feature(const char *name, const char *sentence)
{
    struct qcow2_make make;
    struct qcow2_outcome out;

    qcow2_make_init(&make, &(struct qcow2_make_options){.size = MIB});
    qcow2_make_put64(&make, QCOW2_AT_INCOMPATIBLE, UINT64_C(1) << 40);
    put_other_names(&make);
    qcow2_make_feature_name(&make, 40, name);
    qcow2_parse(&make, &out);
    assert_int_equal(out.status, -ENOTSUP);
    assert_string_equal(out.error.text, sentence);
    qcow2_make_release(&make);
}

static void test_features_have_names(void **state)
{
    (void)state;
    check_feature("time travel",
                  "to read it takes a feature that is not known here: \"time travel\" "
                  "(incompatible bit 40)");
    check_feature(
        "", "to read it takes a feature that is not known here: incompatible bit 40, for which the "
            "image has no name");
    /* As long as can be; nothing that a terminal would obey; UTF-8, and what is none. */
    check_feature("1234567890123456789012345678901234567890123456",
                  "to read it takes a feature that is not known here: "
                  "\"1234567890123456789012345678901234567890123456\" (incompatible bit 40)");
    check_feature(
        "\x1b[2J \x7f \xc2\x9b \x9b \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 \xff \xc3( \xc3",
        "to read it takes a feature that is not known here: "
        "\"?[2J ? ?? ? \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 ? ?( ?\" (incompatible bit 40)");
}

/* An extension that is broken does not hide what is the matter. */
static void test_feature_behind_a_broken_extension(void **state)
{
    struct qcow2_make make;
    struct qcow2_outcome out;

    (void)state;
    qcow2_make_init(&make, &(struct qcow2_make_options){.size = MIB, .backing_format = "raw"});
    qcow2_make_put32(&make, 116, UINT32_MAX);
    qcow2_make_feature_name(&make, 40, "never found");
    qcow2_make_put64(&make, QCOW2_AT_INCOMPATIBLE, UINT64_C(1) << 40);
    qcow2_parse(&make, &out);
    assert_int_equal(out.status, -ENOTSUP);
    assert_string_equal(out.error.text,
                        "to read it takes a feature that is not known here: incompatible bit "
                        "40, for which the image has no name");
    qcow2_make_release(&make);
}

/* ---- Parts of a file -------------------------------------------------------------------------- */

/* Read as image.c does: a first part, and as much as was asked for. */
static unsigned parse_in_parts(const struct qcow2_make *make, size_t first,
                               struct qcow2_outcome *out)
{
    size_t len = first < make->len ? first : make->len;
    unsigned parts = 1;

    for (;; parts++) {
        qcow2_parse_part(make, len, out);
        if (out->status != -ERANGE)
            return parts;
        len = (size_t)out->need;
    }
}

static void init_rich(struct qcow2_make *make, unsigned version, unsigned cluster_bits)
{
    qcow2_make_init(make, &(struct qcow2_make_options){
                              .version = version,
                              .cluster_bits = cluster_bits,
                              .size = MIB,
                              .incompatible = version == 3 ? QCOW2_DATA_FILE : 0,
                              .backing = "base",
                              .backing_format = version > 1 ? "qcow2" : NULL,
                              .data_file = version == 3 ? "data" : NULL,
                          });
    if (version == 3)
        qcow2_make_feature_name(make, 0, "dirty");
}

/* However little was read at first: at most twice as often asked for more, and nothing is different then. */
static void test_any_first_part(void **state)
{
    (void)state;
    for (unsigned version = 1; version <= 3; version++) {
        struct qcow2_make make;
        struct qcow2_outcome out;

        init_rich(&make, version, 12);
        for (size_t first = 0; first <= 4096; first++) {
            unsigned parts = parse_in_parts(&make, first, &out);

            assert_in_range(parts, 1, 2);
            assert_int_equal(out.status, 0);
            assert_string_equal(out.header.backing, "base");
            qcow2_header_free(&out.header);
        }
        qcow2_make_release(&make);
    }
}

static void test_names_far_behind(void **state)
{
    struct qcow2_make make;
    struct qcow2_outcome out;
    char *filler = calloc(1, 100 * KIB);

    (void)state;
    assert_non_null(filler);
    init_rich(&make, 3, 21);
    assert_int_equal(parse_in_parts(&make, QCOW2_HEADER_READ, &out), 1);
    qcow2_header_free(&out.header);
    /* The backing name. */
    qcow2_make_put(&make, 2 * MIB - 4, "base", 4);
    qcow2_make_put64(&make, QCOW2_AT_BACKING_OFFSET, 2 * MIB - 4);
    assert_int_equal(parse_in_parts(&make, QCOW2_HEADER_READ, &out), 2);
    assert_int_equal(out.status, 0);
    assert_string_equal(out.header.backing, "base");
    qcow2_header_free(&out.header);
    qcow2_make_release(&make);

    /* An extension, and the name of a feature. */
    qcow2_make_init(&make, &(struct qcow2_make_options){.cluster_bits = 21, .size = MIB});
    qcow2_make_extension(&make, 0x11111111, filler, 100 * KIB);
    qcow2_make_extension(&make, QCOW2_EXT_BACKING_FORMAT, "qcow2", 5);
    qcow2_make_feature_name(&make, 9, "nine");
    assert_int_equal(parse_in_parts(&make, QCOW2_HEADER_READ, &out), 2);
    assert_int_equal(out.status, 0);
    assert_string_equal(out.header.backing_format, "qcow2");
    qcow2_header_free(&out.header);
    qcow2_make_put64(&make, QCOW2_AT_INCOMPATIBLE, 1 << 9);
    assert_int_equal(parse_in_parts(&make, QCOW2_HEADER_READ, &out), 2);
    assert_int_equal(out.status, -ENOTSUP);
    assert_string_equal(out.error.text,
                        "to read it takes a feature that is not known here: \"nine\" "
                        "(incompatible bit 9)");
    qcow2_make_release(&make);
    free(filler);
}

/* Wherever a file was cut off: refused, until all of its tables are there. */
static void test_cut_off_anywhere(void **state)
{
    (void)state;
    for (unsigned version = 1; version <= 3; version++) {
        struct qcow2_make make;
        struct qcow2_outcome out;
        size_t whole;

        init_rich(&make, version, 9);
        whole = (size_t)make.l1_offset + 8 * (size_t)make.l1_entries;
        assert_true(whole <= make.len);
        for (make.len = 0; make.len < whole; make.len++) {
            qcow2_parse(&make, &out);
            assert_int_equal(out.status, -EINVAL);
        }
        qcow2_parse_sound(&make, &out);
        qcow2_header_free(&out.header);
        qcow2_make_release(&make);
    }
}

static void test_short_files(void **state)
{
    struct qcow2_make make;
    struct qcow2_outcome out;

    (void)state;
    qcow2_make_init(&make, &(struct qcow2_make_options){.size = MIB});
    make.len = 47;
    qcow2_parse(&make, &out);
    assert_string_equal(out.error.text, "the file has 47 bytes, fewer than any header");
    make.len = 103;
    qcow2_parse(&make, &out);
    assert_string_equal(out.error.text, "the file has 103 bytes, and the header of version 3 104");
    qcow2_make_put32(&make, QCOW2_AT_VERSION, 2);
    make.len = 71;
    qcow2_parse(&make, &out);
    assert_string_equal(out.error.text, "the file has 71 bytes, and the header of version 2 72");
    qcow2_make_release(&make);
}

/* ---- Accidents -------------------------------------------------------------------------------- */

/* Every bit of all that there is, turned over: accepted with numbers that are sound, or refused. */
static void test_every_bit(void **state)
{
    (void)state;
    for (unsigned version = 1; version <= 3; version++) {
        struct qcow2_make make;
        struct qcow2_outcome out;
        unsigned accepted = 0, refused = 0;

        init_rich(&make, version, 9);
        for (size_t bit = 0; bit < 8 * make.cluster_size && bit < 8 * make.len; bit++) {
            make.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
            qcow2_parse(&make, &out);
            if (out.status == 0) {
                qcow2_header_free(&out.header);
                accepted++;
            } else {
                refused++;
            }
            make.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
        /* There are bits that matter, and others. */
        assert_true(accepted > 100);
        assert_true(refused > 100);
        qcow2_make_release(&make);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_version_and_cluster_size),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_names_at_their_limits),
        cmocka_unit_test(test_what_is_passed_over),
        cmocka_unit_test(test_features_have_names),
        cmocka_unit_test(test_feature_behind_a_broken_extension),
        cmocka_unit_test(test_any_first_part),
        cmocka_unit_test(test_names_far_behind),
        cmocka_unit_test(test_cut_off_anywhere),
        cmocka_unit_test(test_short_files),
        cmocka_unit_test(test_every_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
