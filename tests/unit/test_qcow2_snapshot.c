/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Snapshot tables, and L1 tables. */
#include "qcow2_outcome.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* Clusters of 4 KiB; an L1 entry covers 2 MiB. */
#define SIZE (5 * MIB)

struct ground {
    struct qcow2_make make;
    struct qcow2_header header;
    struct blk_error error;
    uint64_t l1[3]; /* of the snapshots */
};

static void parse(struct ground *ground)
{
    struct qcow2_outcome out;

    qcow2_parse_sound(&ground->make, &out);
    ground->header = out.header;
}

/* Three snapshots; the name of the third is the id of the second. */
static void ground_init(struct ground *ground, unsigned version)
{
    memset(ground, 0, sizeof(*ground));
    qcow2_make_init(&ground->make, &(struct qcow2_make_options){
                                       .version = version, .cluster_bits = 12, .size = SIZE});
    qcow2_make_entry(&ground->make, 0, 0);
    qcow2_make_entry(&ground->make, 4 * MIB, 0);
    ground->l1[0] = qcow2_make_snapshot(
        &ground->make,
        &(struct qcow2_make_snapshot){
            .id = "1", .name = "first", .size = 3 * MIB, .vm_state = 5, .l1_entries = 7});
    ground->l1[1] = qcow2_make_snapshot(
        &ground->make, &(struct qcow2_make_snapshot){.id = "2", .name = "second", .extra = 24});
    ground->l1[2] = qcow2_make_snapshot(
        &ground->make,
        &(struct qcow2_make_snapshot){.id = "33", .name = "2", .extra = QCOW2_NO_EXTRA});
    parse(ground);
}

static void ground_release(struct ground *ground)
{
    qcow2_make_release(&ground->make);
}

/* Of the first `len` bytes of the table, in a buffer of just that size. An error must leave the header as it was. */
static int select_part(struct ground *ground, const char *wanted, size_t len)
{
    unsigned char *table = malloc(len);
    struct qcow2_header before = ground->header;
    int status;

    assert_true(table != NULL || len == 0);
    if (len > 0)
        memcpy(table, ground->make.bytes + ground->make.snapshot_offset, len);
    blk_error_clear(&ground->error);
    status = qcow2_snapshot_select(&ground->header, table, len, ground->make.len, wanted,
                                   &ground->error);
    free(table);
    if (status < 0) {
        assert_int_equal(ground->error.code, -status);
        assert_string_not_equal(ground->error.text, "");
        assert_memory_equal(&ground->header, &before, sizeof(before));
    }
    return status;
}

static int select_one(struct ground *ground, const char *wanted)
{
    return select_part(ground, wanted, ground->make.len - (size_t)ground->make.snapshot_offset);
}

/* ---- Choosing --------------------------------------------------------------------------------- */

static void check_selected(const struct ground *ground, const char *wanted, unsigned index,
                           uint64_t size, uint32_t entries)
{
    struct ground copy = *ground;
    int status = select_one(&copy, wanted);

    if (status < 0)
        fail_msg("\"%s\" was refused: %s", wanted, copy.error.text);
    assert_int_equal(copy.header.l1_offset, ground->l1[index]);
    assert_int_equal(copy.header.size, size);
    assert_int_equal(copy.header.l1_entries, entries);
    assert_int_equal(copy.header.cluster_bits, 12);
    assert_int_equal(copy.header.version, ground->header.version);
}

static void test_by_id_and_by_name(void **state)
{
    (void)state;
    for (unsigned version = 2; version <= 3; version++) {
        struct ground ground;

        ground_init(&ground, version);
        check_selected(&ground, "1", 0, 3 * MIB, 7);
        check_selected(&ground, "first", 0, 3 * MIB, 7);
        check_selected(&ground, "2", 1, SIZE, 3);
        check_selected(&ground, "second", 1, SIZE, 3);
        check_selected(&ground, "33", 2, SIZE, 3);
        ground_release(&ground);
    }
}

static void check_unknown(const struct ground *ground, const char *wanted, const char *sentence)
{
    struct ground copy = *ground;

    assert_int_equal(select_one(&copy, wanted), -ENOENT);
    assert_string_equal(copy.error.text, sentence);
}

static void test_unknown(void **state)
{
    static const char *const near[] = {"", "3", "firs", "first ", "333"};
    struct ground ground;

    (void)state;
    ground_init(&ground, 3);
    for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
        char sentence[400];

        snprintf(
            sentence, sizeof(sentence),
            "it has no internal snapshot \"%s\"; there are \"first\" (id 1), \"second\" (id 2), "
            "\"2\" (id 33)",
            near[i]);
        check_unknown(&ground, near[i], sentence);
    }
    ground_release(&ground);
}

static void test_one_and_none(void **state)
{
    struct ground ground = {0};

    (void)state;
    qcow2_make_init(&ground.make, &(struct qcow2_make_options){.cluster_bits = 12, .size = SIZE});
    parse(&ground);
    assert_int_equal(select_part(&ground, "x\x1b", 0), -ENOENT);
    assert_string_equal(ground.error.text,
                        "it has no internal snapshot \"x?\", and no others either");
    qcow2_make_snapshot(&ground.make, &(struct qcow2_make_snapshot){.id = "1", .name = "a\nb"});
    parse(&ground);
    check_unknown(&ground, "x", "it has no internal snapshot \"x\"; there is \"a?b\" (id 1)");
    /* What ends the one and begins the other is no character. */
    qcow2_make_release(&ground.make);
    qcow2_make_init(&ground.make, &(struct qcow2_make_options){.cluster_bits = 12, .size = SIZE});
    qcow2_make_snapshot(&ground.make, &(struct qcow2_make_snapshot){.id = "\xc3", .name = "\xa4x"});
    parse(&ground);
    check_unknown(&ground, "x", "it has no internal snapshot \"x\"; there is \"?x\" (id ?)");
    qcow2_make_release(&ground.make);

    qcow2_make_init(&ground.make,
                    &(struct qcow2_make_options){.version = 1, .cluster_bits = 12, .size = SIZE});
    parse(&ground);
    assert_int_equal(select_part(&ground, "x", 0), -ENOENT);
    qcow2_make_release(&ground.make);
}

/* As many as find room in the sentence, and how many more there are. */
static void test_many_are_listed(void **state)
{
    char name[400];

    (void)state;
    for (size_t len = 0; len < sizeof(name); len += 7) {
        struct ground ground = {0};
        const char *more;
        unsigned listed = 0, rest;

        memset(name, 'n', len);
        name[len] = '\0';
        qcow2_make_init(&ground.make,
                        &(struct qcow2_make_options){.cluster_bits = 12, .size = SIZE});
        for (unsigned i = 0; i < 40; i++)
            qcow2_make_snapshot(&ground.make,
                                &(struct qcow2_make_snapshot){.id = "id", .name = name});
        parse(&ground);
        assert_int_equal(select_one(&ground, "x"), -ENOENT);
        for (const char *at = ground.error.text; (at = strstr(at, "(id ")) != NULL; at++)
            listed++;
        more = strstr(ground.error.text, " and ");
        assert_non_null(more);
        assert_int_equal(sscanf(more, " and %u more", &rest), 1);
        assert_string_equal(strstr(more, " more"), " more");
        assert_true(listed >= 1);
        assert_int_equal(listed + rest, 40);
        qcow2_make_release(&ground.make);
    }
}

static void test_ambiguous(void **state)
{
    struct ground ground = {0};

    (void)state;
    qcow2_make_init(&ground.make, &(struct qcow2_make_options){.cluster_bits = 12, .size = SIZE});
    qcow2_make_snapshot(&ground.make, &(struct qcow2_make_snapshot){.id = "1", .name = "a"});
    qcow2_make_snapshot(&ground.make, &(struct qcow2_make_snapshot){.id = "2", .name = "a"});
    qcow2_make_snapshot(&ground.make, &(struct qcow2_make_snapshot){.id = "3", .name = "b"});
    qcow2_make_snapshot(&ground.make, &(struct qcow2_make_snapshot){.id = "3", .name = "c"});
    parse(&ground);
    assert_int_equal(select_one(&ground, "a"), -EINVAL);
    assert_string_equal(ground.error.text,
                        "2 of its internal snapshots have the name \"a\"; name one by its id");
    assert_int_equal(select_one(&ground, "3"), -EINVAL);
    assert_string_equal(ground.error.text, "2 of its internal snapshots have the id \"3\"");
    assert_int_equal(select_one(&ground, "c"), 0);
    qcow2_make_release(&ground.make);
}

static void test_none_with_a_data_file(void **state)
{
    struct ground ground;

    (void)state;
    ground_init(&ground, 3);
    ground.header.incompatible |= QCOW2_DATA_FILE;
    assert_int_equal(select_one(&ground, "1"), -EINVAL);
    assert_string_equal(ground.error.text,
                        "its data is in a data file, and so it can have no internal snapshots");
    ground_release(&ground);
}

/* ---- Lies ------------------------------------------------------------------------------------- */

struct lie {
    unsigned at, bits; /* in the second entry */
    uint64_t value;
    const char *sentence;
};

static const struct lie lies[] = {
    {0, 64, 0, "its snapshot's L1 table overlaps its header: it says that it begins at byte 0"},
    {0, 64, 4096 + 8,
     "its snapshot's L1 table begins at byte 4104, which is not the start of a cluster (of 4096 "
     "bytes)"},
    {0, 64, 4096,
     "its snapshot's L1 table, 24 bytes at byte 4096, and its refcount table, 4096 bytes at byte "
     "4096, overlap"},
    {0, 64, UINT64_MAX - 4095,
     "its snapshot's L1 table, 24 bytes at byte 18446744073709547520, does not lie within the "
     "file, "
     "which ends after 69816 bytes"},
    {8, 32, 2,
     "its snapshot's L1 table is too short: it has 2 entries, and for a disk of 5242880 bytes it "
     "takes 3"},
    {8, 32, UINT32_MAX, "its snapshot's L1 table has 4294967295 entries; the most is 4194304"},
    {8, 32, 4 << 20,
     "its snapshot's L1 table, 33554432 bytes at byte 40960, does not lie within the file, which "
     "ends "
     "after 69816 bytes"},
    {48, 64, UINT64_MAX,
     "its snapshot's disk has 18446744073709551615 bytes; the most is 9223372036854775807"},
    {48, 64, INT64_MAX,
     "its snapshot's L1 table is too short: it has 3 entries, and for a disk of "
     "9223372036854775807 "
     "bytes it takes 4398046511104"},
    {36, 32, 1025, "its snapshot 2 of 3 has 1025 bytes of extra data; the most is 1024"},
    {36, 32, UINT32_MAX,
     "its snapshot 2 of 3 has 4294967295 bytes of extra data; the most is 1024"},
    {36, 32, 1024,
     "its snapshot table is cut off, or goes on for too long: of snapshot 2 of 3 not all is within "
     "the "
     "184 bytes that it can have"},
    {12, 16, UINT16_MAX,
     "its snapshot table is cut off, or goes on for too long: of snapshot 2 of 3 not all is within "
     "the "
     "184 bytes that it can have"},
    {14, 16, UINT16_MAX,
     "its snapshot table is cut off, or goes on for too long: of snapshot 2 of 3 not all is within "
     "the "
     "184 bytes that it can have"},
};

/* The first entry has 40 bytes, 16 of extra data, 6 of strings, and 2 to fill up. */
#define SECOND 64

static void test_lies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        const struct lie *lie = &lies[i];
        struct ground ground;
        uint64_t at;

        ground_init(&ground, 3);
        at = ground.make.snapshot_offset + SECOND + lie->at;
        if (lie->bits == 16)
            qcow2_make_put16(&ground.make, at, (uint16_t)lie->value);
        else if (lie->bits == 32)
            qcow2_make_put32(&ground.make, at, (uint32_t)lie->value);
        else
            qcow2_make_put64(&ground.make, at, lie->value);
        assert_int_equal(select_one(&ground, "second"), -EINVAL);
        assert_string_equal(ground.error.text, lie->sentence);
        ground_release(&ground);
    }
}

/* The table grows into the snapshot's L1 table: only its entries say how long it is. */
static void test_table_over_its_l1(void **state)
{
    struct ground ground;
    uint64_t l1, table;

    (void)state;
    ground_init(&ground, 3);
    table = ground.make.snapshot_offset;
    l1 = qcow2_make_alloc(&ground.make, 2);
    assert_int_equal(l1, table + 4096);
    qcow2_make_put64(&ground.make, table + SECOND, l1);
    assert_int_equal(select_one(&ground, "second"), 0);
    parse(&ground);
    /* The first entry is 4040 bytes longer; the other two follow, one on either side of the border. */
    memmove(ground.make.bytes + table + SECOND + 4040, ground.make.bytes + table + SECOND, 120);
    qcow2_make_put16(&ground.make, table + 14, 5 + 4040);
    assert_int_equal(select_one(&ground, "second"), -EINVAL);
    assert_string_equal(ground.error.text,
                        "its snapshot's L1 table, 24 bytes at byte 73728, and its snapshot table, "
                        "4224 bytes at byte 69632, overlap");
    ground_release(&ground);
}

/* All of the table is read, whichever is wanted; but for the last padding. */
static void test_cut_off_anywhere(void **state)
{
    struct ground ground;

    (void)state;
    ground_init(&ground, 3);
    for (size_t len = 0; len < ground.make.snapshot_len; len++) {
        struct ground copy = ground;
        int status = select_part(&copy, "first", len);

        assert_int_equal(status, len < ground.make.snapshot_len - 5 ? -EINVAL : 0);
    }
    ground_release(&ground);
}

/* Every bit of the table, turned over: what is accepted is sound. */
static void test_every_bit(void **state)
{
    static const char *const wanted[] = {"first", "2", "33"};
    struct ground ground;
    unsigned accepted = 0, refused = 0;

    (void)state;
    ground_init(&ground, 3);
    for (size_t bit = 0; bit < 8 * ground.make.snapshot_len; bit++) {
        unsigned char *byte = &ground.make.bytes[ground.make.snapshot_offset + bit / 8];

        *byte ^= (unsigned char)(1 << bit % 8);
        for (size_t i = 0; i < 3; i++) {
            struct ground copy = ground;

            if (select_one(&copy, wanted[i]) < 0) {
                refused++;
                continue;
            }
            accepted++;
            assert_true(copy.header.size <= UINT64_C(8) * copy.header.l1_entries * 4096 / 8 * 512);
            assert_true(copy.header.l1_offset + UINT64_C(8) * copy.header.l1_entries <=
                        copy.make.len);
        }
        *byte ^= (unsigned char)(1 << bit % 8);
    }
    assert_true(accepted > 100);
    assert_true(refused > 100);
    ground_release(&ground);
}

/* ---- L1 tables -------------------------------------------------------------------------------- */

/* Checks a copy of the L1 table with another entry `index`. */
static int check_l1(struct ground *ground, uint32_t index, uint64_t entry)
{
    size_t len = 8 * (size_t)ground->header.l1_entries;
    unsigned char *table = malloc(len);
    int status;

    assert_non_null(table);
    qcow2_make_put64(&ground->make, ground->header.l1_offset + 8 * index, entry);
    memcpy(table, ground->make.bytes + ground->header.l1_offset, len);
    blk_error_clear(&ground->error);
    status = qcow2_l1_check(&ground->header, table, ground->make.len, &ground->error);
    free(table);
    assert_int_equal(ground->error.code, -status);
    return status;
}

struct l1_case {
    uint64_t entry;
    const char *sentence; /* NULL: it is sound */
};

#define OUTSIDE(entry, offset)                                                                     \
    "entry 2 of its L1 table is " entry ": its L2 table, 4096 bytes at byte " offset               \
    ", does not lie within the file, which ends after 77824 bytes"
#define RESERVED(entry)                                                                            \
    "entry 2 of its L1 table is " entry                                                            \
    ": bits 0 to 8 and 56 to 62 of it are reserved, and have to be 0"
#define OVERLAPS(entry, offset, what)                                                              \
    "entry 2 of its L1 table is " entry ": its L2 table, 4096 bytes at byte " offset               \
    ", and its " what ", overlap"

static const struct l1_case l1_cases[] = {
    {0, NULL},
    {QCOW2_COPIED, NULL},
    {16384, NULL},
    {QCOW2_COPIED | 16384, NULL},
    {73728, NULL},
    {77824, OUTSIDE("0x0000000000013000", "77824")},
    {UINT64_C(0x00fffffffffff000), OUTSIDE("0x00fffffffffff000", "72057594037923840")},
    {16384 + 512, "entry 2 of its L1 table is 0x0000000000004200: its L2 table begins at byte "
                  "16896, which is not the "
                  "start of a cluster (of 4096 bytes)"},
    {1, RESERVED("0x0000000000000001")},
    {16384 | 256, RESERVED("0x0000000000004100")},
    {UINT64_C(1) << 56 | 16384, RESERVED("0x0100000000004000")},
    {UINT64_C(1) << 62, RESERVED("0x4000000000000000")},
    {4096, OVERLAPS("0x0000000000001000", "4096", "refcount table, 4096 bytes at byte 4096")},
    {12288, OVERLAPS("0x0000000000003000", "12288", "L1 table, 24 bytes at byte 12288")},
    {69632, OVERLAPS("0x0000000000011000", "69632", "snapshot table, 120 bytes at byte 69632")},
};

static void test_l1_entries(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(l1_cases) / sizeof(l1_cases[0]); i++) {
        const struct l1_case *c = &l1_cases[i];
        struct ground ground;
        int status;

        ground_init(&ground, 2 + i % 2);
        qcow2_make_alloc(&ground.make, 1);
        status = check_l1(&ground, 2, c->entry);
        assert_int_equal(status, c->sentence ? -EINVAL : 0);
        if (c->sentence)
            assert_string_equal(ground.error.text, c->sentence);
        ground_release(&ground);
    }
}

/* Version 1 has no reserved bits, and nothing need be aligned. */
static void test_l1_entries_of_version_1(void **state)
{
    struct ground ground = {0};
    uint64_t l1;

    (void)state;
    qcow2_make_init(
        &ground.make,
        &(struct qcow2_make_options){
            .version = 1, .cluster_bits = 12, .l2_bits = 6, .size = MIB, .backing = "b"});
    qcow2_make_put8(&ground.make, 8191, 0);
    parse(&ground);
    l1 = ground.header.l1_offset;
    assert_int_equal(l1, 56);
    assert_int_equal(ground.header.l1_entries, 4);
    assert_int_equal(check_l1(&ground, 1, 0), 0);
    assert_int_equal(check_l1(&ground, 1, 4096), 0);
    assert_int_equal(check_l1(&ground, 1, l1 + 32), 0);
    assert_int_equal(check_l1(&ground, 1, 8192 - 512), 0);
    assert_int_equal(check_l1(&ground, 1, 8192 - 511), -EINVAL);
    assert_string_equal(
        ground.error.text,
        "entry 1 of its L1 table is 0x0000000000001e01: its L2 table, 512 bytes at byte 7681, "
        "does not lie within the file, which ends after 8192 bytes");
    assert_int_equal(check_l1(&ground, 1, UINT64_MAX), -EINVAL);
    assert_int_equal(check_l1(&ground, 1, 47), -EINVAL);
    assert_string_equal(
        ground.error.text,
        "entry 1 of its L1 table is 0x000000000000002f: its L2 table, 512 bytes at byte 47, "
        "and its header, 48 bytes at byte 0, overlap");
    assert_int_equal(check_l1(&ground, 1, l1 + 31), -EINVAL);
    assert_string_equal(
        ground.error.text,
        "entry 1 of its L1 table is 0x0000000000000057: its L2 table, 512 bytes at byte 87, "
        "and its L1 table, 32 bytes at byte 56, overlap");
    qcow2_header_free(&ground.header);
    ground_release(&ground);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_id_and_by_name),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_one_and_none),
        cmocka_unit_test(test_many_are_listed),
        cmocka_unit_test(test_ambiguous),
        cmocka_unit_test(test_none_with_a_data_file),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_table_over_its_l1),
        cmocka_unit_test(test_cut_off_anywhere),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_l1_entries),
        cmocka_unit_test(test_l1_entries_of_version_1),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
