/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sound images, changed by chance, through tests/fuzz/fuzz_qcow2.c. The same changes every time;
 * FUZZ_SEED=N makes others, FUZZ_RUNS=N more of them. With FUZZ_CORPUS=DIRECTORY the sound ones are left there, for
 * libFuzzer to begin with.
 */
#include "qcow2_make.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "tests/fuzz/fuzz_qcow2.h"

#define RUNS 50000

static uint64_t chance_state;

static uint64_t chance(uint64_t below)
{
    /* xorshift64*, Vigna 2016 */
    chance_state ^= chance_state >> 12;
    chance_state ^= chance_state << 25;
    chance_state ^= chance_state >> 27;
    return (chance_state * UINT64_C(2685821657736338717) >> 11) % below;
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t number = otherwise;

    if (text != NULL && units_parse_number(text, 1, INT64_MAX, &number, NULL) < 0)
        fail_msg("%s=%s is not a number", name, text);
    return number;
}

/* ---- Where it starts from --------------------------------------------------------------------- */

static const struct qcow2_make_options plain[] = {
    {.version = 1, .cluster_bits = 9, .l2_bits = 6, .size = 100000, .backing = "base"},
    {.version = 2, .cluster_bits = 9, .size = 100000, .backing = "base", .backing_format = "raw"},
    {.version = 3, .cluster_bits = 10, .size = MIB, .compression = QCOW2_ZSTD},
    {.version = 3,
     .cluster_bits = 9,
     .size = 77777,
     .incompatible = QCOW2_DATA_FILE,
     .autoclear = 2,
     .data_file = "data",
     .backing_format = "qcow2"},
    {.version = 3, .cluster_bits = 14, .size = 64 * MIB, .incompatible = QCOW2_EXTENDED_L2},
};

static void make_one(struct qcow2_make *make, const struct qcow2_make_options *options)
{
    qcow2_make_init(make, options);
    for (uint64_t guest = 0; guest < make->size; guest += make->size / 3)
        qcow2_make_entry(make, round_down(guest, make->cluster_size), 0);
    if (make->version < 2)
        return;
    qcow2_make_feature_name(make, 7, "seven");
    qcow2_make_snapshot(make, &(struct qcow2_make_snapshot){.id = "1", .name = "first"});
    qcow2_make_snapshot(make, &(struct qcow2_make_snapshot){.id = "2", .name = "one"});
}

/* ---- Changes ---------------------------------------------------------------------------------- */

/* Numbers that are borders of something. */
static uint64_t number(const struct qcow2_make *make)
{
    uint64_t power = UINT64_C(1) << chance(64);

    switch (chance(8)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX - chance(2) * (make->cluster_size - 1);
    case 2:
        return power + chance(3) - 1;
    case 3:
        return make->len - make->cluster_size + chance(3) * make->cluster_size / 2;
    case 4:
        return chance(100);
    case 5:
        return make->l1_offset + chance(2) * 8;
    case 6:
        return make->snapshot_offset;
    default:
        return chance(make->len / make->cluster_size + 2) * make->cluster_size;
    }
}

/* Mostly in the header, or in the snapshot table. */
static size_t place(const struct qcow2_make *make)
{
    switch (chance(8)) {
    case 0:
        return chance(make->len);
    case 1:
    case 2:
        return (size_t)make->snapshot_offset + chance(make->len - make->snapshot_offset);
    case 3:
        return (size_t)make->l1_offset + chance(8 * (size_t)make->l1_entries);
    default:
        return chance(112 + chance(200));
    }
}

static void change(struct qcow2_make *make)
{
    size_t at = place(make), len;

    if (at >= make->len)
        return;
    switch (chance(8)) {
    case 0:
        make->bytes[at] ^= (unsigned char)(1 << chance(8));
        break;
    case 1:
        make->bytes[at] = (unsigned char)chance(256);
        break;
    case 2: /* one part of the file over another */
        len = 1 + chance(min_u64(64, make->len - at));
        memmove(make->bytes + at, make->bytes + chance(make->len - len + 1), len);
        break;
    case 3:
        if (chance(8) == 0)
            make->len = chance(make->len) + 1;
        break;
    case 4:
        qcow2_make_put64(make, round_down(at, 8), number(make));
        break;
    case 5:
        qcow2_make_put16(make, round_down(at, 2), (uint16_t)number(make));
        break;
    default:
        qcow2_make_put32(make, round_down(at, 4), (uint32_t)number(make));
        break;
    }
}

static void test_changed_images(void **state)
{
    uint64_t seed = from_environment("FUZZ_SEED", 1), runs = from_environment("FUZZ_RUNS", RUNS);
    size_t count = sizeof(plain) / sizeof(plain[0]);

    (void)state;
    /* To stderr, for it has to be there when the program is aborted. */
    fprintf(stderr, "FUZZ_SEED=%" PRIu64 " FUZZ_RUNS=%" PRIu64 "\n", seed, runs);
    chance_state = seed;
    for (uint64_t run = 0; run < runs; run++) {
        struct qcow2_make make;

        make_one(&make, &plain[run % count]);
        for (uint64_t changes = chance(6); changes > 0; changes--)
            change(&make);
        LLVMFuzzerTestOneInput(make.bytes, make.len);
        qcow2_make_release(&make);
    }
}

static void test_sound_images(void **state)
{
    const char *directory = getenv("FUZZ_CORPUS");

    (void)state;
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        struct qcow2_make make;

        make_one(&make, &plain[i]);
        LLVMFuzzerTestOneInput(make.bytes, make.len);
        if (directory != NULL) {
            char path[4096];
            FILE *file;

            snprintf(path, sizeof(path), "%s/sound-%zu", directory, i);
            file = fopen(path, "w");
            assert_non_null(file);
            assert_int_equal(fwrite(make.bytes, 1, make.len, file), make.len);
            assert_int_equal(fclose(file), 0);
        }
        qcow2_make_release(&make);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound_images),
        cmocka_unit_test(test_changed_images),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
