/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What becomes of what the user says of a new image: a row for each thing that is usual, possible, or refused. */
#include "fake.h"

#include <errno.h>
#include <string.h>

#include <lunferry/image_make.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define NAME_10   "a234567890"
#define NAME_100  NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10
#define NAME_300  NAME_100 NAME_100 NAME_100
#define NAME_1023 NAME_300 NAME_300 NAME_300 NAME_100 NAME_10 NAME_10 "123"
/* What has just place in a cluster of 512 bytes behind the header and the mark of the end, 112 and 8 bytes. */
#define NAME_392                                                                                   \
    NAME_300 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 NAME_10 "12"

static const struct row {
    struct image_layout layout;
    const char *words; /* of the refusal; NULL: there is none */
} rows[] = {
    {{.format = IMAGE_RAW}, NULL},
    {{.format = IMAGE_RAW, .compress = true}, "-c is for -O qcow2"},
    {{.format = IMAGE_RAW, .compression = IMAGE_ZSTD}, "-c is for -O qcow2"},
    {{.format = IMAGE_RAW, .level = 3}, "-c is for -O qcow2"},
    {{.format = IMAGE_RAW, .backing = "a"}, "-B is for -O qcow2"},
    {{.format = IMAGE_RAW, .backing_format = "raw"}, "it needs -B too"},
    {{.format = IMAGE_RAW, .version = 3}, "-o is for -O qcow2"},
    {{.format = IMAGE_RAW, .cluster_size = 65536}, "-o is for -O qcow2"},
    {{.format = IMAGE_RAW, .refcount_bits = 16}, "-o is for -O qcow2"},
    {{.format = IMAGE_RAW, .extended_l2 = true}, "-o is for -O qcow2"},
    {{.format = IMAGE_RAW, .lazy_refcounts = true}, "-o is for -O qcow2"},
    {{.format = IMAGE_QCOW}, "only raw and qcow2 images can be written"},
    {{.format = IMAGE_BY_NAME}, "only raw and qcow2 images can be written"},
    {{.format = IMAGE_QCOW2}, NULL},

    {{.format = IMAGE_QCOW2, .version = 2}, NULL},
    {{.format = IMAGE_QCOW2, .version = 1}, "there is no version 1"},
    {{.format = IMAGE_QCOW2, .version = 4}, "there is no version 4"},
    {{.format = IMAGE_QCOW2, .version = 2, .extended_l2 = true}, "-o extended_l2 needs compat=1.1"},
    {{.format = IMAGE_QCOW2, .version = 2, .lazy_refcounts = true},
     "lazy_refcounts needs compat=1.1"},
    {{.format = IMAGE_QCOW2, .version = 2, .refcount_bits = 32},
     "refcount_bits other than 16 needs"},
    {{.format = IMAGE_QCOW2, .version = 2, .refcount_bits = 16}, NULL},
    {{.format = IMAGE_QCOW2, .version = 2, .compress = true}, NULL},
    {{.format = IMAGE_QCOW2, .version = 2, .compression = IMAGE_ZSTD}, "zstd needs compat=1.1"},
    {{.format = IMAGE_QCOW2, .version = 3, .lazy_refcounts = true}, NULL},

    {{.format = IMAGE_QCOW2, .cluster_size = 512}, NULL},
    {{.format = IMAGE_QCOW2, .cluster_size = 2 << 20}, NULL},
    {{.format = IMAGE_QCOW2, .cluster_size = 256}, "256 is no power of two between 512 and 2M"},
    {{.format = IMAGE_QCOW2, .cluster_size = 1000}, "1000 is no power of two between 512 and 2M"},
    {{.format = IMAGE_QCOW2, .cluster_size = 4 << 20}, "4194304 is no power of two between"},
    {{.format = IMAGE_QCOW2, .cluster_size = 16384, .extended_l2 = true}, NULL},
    {{.format = IMAGE_QCOW2, .cluster_size = 8192, .extended_l2 = true}, "16k or more, and 8192"},

    {{.format = IMAGE_QCOW2, .refcount_bits = 1}, NULL},
    {{.format = IMAGE_QCOW2, .refcount_bits = 64}, NULL},
    {{.format = IMAGE_QCOW2, .refcount_bits = 12}, "12 is no power of two between 1 and 64"},
    {{.format = IMAGE_QCOW2, .refcount_bits = 128}, "128 is no power of two between 1 and 64"},
    {{.format = IMAGE_QCOW2, .refcount_bits = 1, .compress = true},
     "refcount_bits=1 is too little"},
    {{.format = IMAGE_QCOW2, .refcount_bits = 2, .compress = true}, NULL},
    {{.format = IMAGE_QCOW2, .refcount_bits = 16, .compress = true}, NULL},
    {{.format = IMAGE_QCOW2, .refcount_bits = 64, .compress = true}, NULL},

    {{.format = IMAGE_QCOW2, .compression = IMAGE_ZSTD}, NULL},
    {{.format = IMAGE_QCOW2, .level = 1}, "needs -c too"},
    {{.format = IMAGE_QCOW2, .compress = true, .level = 9}, NULL},
    {{.format = IMAGE_QCOW2, .compress = true, .level = 10},
     "zlib has the levels 1 to 9, and no 10"},
    {{.format = IMAGE_QCOW2, .compress = true, .level = -1},
     "zlib has the levels 1 to 9, and no -1"},
    {{.format = IMAGE_QCOW2, .compress = true, .compression = IMAGE_ZSTD, .level = 19}, NULL},
    {{.format = IMAGE_QCOW2, .compress = true, .compression = IMAGE_ZSTD, .level = 20},
     "zstd has the levels 1 to 19, and no 20"},

    {{.format = IMAGE_QCOW2, .backing = "base"}, NULL},
    {{.format = IMAGE_QCOW2, .backing = "base", .backing_format = "qcow2"}, NULL},
    {{.format = IMAGE_QCOW2, .backing = "base", .backing_format = "vmdk"}, "\"vmdk\" is no format"},
    {{.format = IMAGE_QCOW2, .backing_format = "raw"}, "it needs -B too"},
    {{.format = IMAGE_QCOW2, .backing = ""}, "has 1 to 1023 bytes, and this one 0"},
    {{.format = IMAGE_QCOW2, .backing = NAME_1023}, NULL},
    {{.format = IMAGE_QCOW2, .backing = NAME_1023 "4"}, "and this one 1024"},
    {{.format = IMAGE_QCOW2, .cluster_size = 512, .backing = NAME_392}, NULL},
    {{.format = IMAGE_QCOW2, .cluster_size = 512, .backing = NAME_392 "3"},
     "a name of 393 bytes has no place in a header of one cluster of 512"},
    {{.format = IMAGE_QCOW2, .cluster_size = 512, .backing = NAME_392, .backing_format = "raw"},
     "a name of 392 bytes has no place"},
    /* The header of version 2 is shorter by 40. */
    {{.format = IMAGE_QCOW2,
      .version = 2,
      .cluster_size = 512,
      .backing = NAME_392 "a23456789012345678901234",
      .backing_format = "qcow2"},
     NULL},
    {{.format = IMAGE_QCOW2,
      .version = 2,
      .cluster_size = 512,
      .backing = NAME_392 "a234567890123456789012345",
      .backing_format = "qcow2"},
     "a name of 417 bytes has no place"},
};

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct image_layout layout = rows[i].layout;
        struct blk_error error = {0};
        int status = image_layout_complete(&layout, &error);

        if (status != (rows[i].words ? -EINVAL : 0) ||
            (rows[i].words && !strstr(error.text, rows[i].words)))
            fail_msg("row %zu: %d, \"%s\"", i, status, error.text);
    }
}

static void test_usual(void **state)
{
    struct image_layout layout = {.format = IMAGE_QCOW2}, said;
    struct blk_error error = {0};

    (void)state;
    assert_int_equal(image_layout_complete(&layout, &error), 0);
    assert_int_equal(layout.version, 3);
    assert_int_equal(layout.cluster_size, 65536);
    assert_int_equal(layout.refcount_bits, 16);
    assert_int_equal(layout.level, 0);
    assert_false(layout.compress || layout.extended_l2 || layout.lazy_refcounts);
    /* What was said stays, and what is complete already too. */
    layout = (struct image_layout){.format = IMAGE_QCOW2,
                                   .version = 3,
                                   .cluster_size = 32768,
                                   .refcount_bits = 32,
                                   .extended_l2 = true,
                                   .lazy_refcounts = true,
                                   .compress = true,
                                   .compression = IMAGE_ZSTD,
                                   .level = 7,
                                   .backing = "base",
                                   .backing_format = "raw"};
    said = layout;
    assert_int_equal(image_layout_complete(&layout, &error), 0);
    assert_memory_equal(&layout, &said, sizeof(said));
    /* Nobody has to want the sentence. */
    layout.version = 7;
    assert_int_equal(image_layout_complete(&layout, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_usual),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
