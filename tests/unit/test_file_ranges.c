/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ranges of local files: where data lies, zeros and holes made without writing, and sizes that change. */
#include "ground.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define UNIT         (64 * 1024) /* what holes are made of; more than a block of any filesystem here */

/* ---- The files, by other means than the driver's ------------------------------------------------ */

/* The filesystem of /tmp, and that of /dev/shm, which is in memory. They differ in what they can. */
static const char *const places[] = {"/tmp/lunferry-ranges-XXXXXX",
                                     "/dev/shm/lunferry-ranges-XXXXXX"};

struct image {
    char path[64];
    int fd; /* -1: there is no such place */
};

static struct image make_image(const char *place, uint64_t size)
{
    struct image image;

    strcpy(image.path, place);
    image.fd = mkostemp(image.path, O_CLOEXEC);
    if (image.fd >= 0)
        assert_int_equal(ftruncate(image.fd, (off_t)size), 0);
    else
        print_message("no files in %s: left out\n", place);
    return image;
}

static void drop_image(const struct image *image)
{
    close(image->fd);
    unlink(image->path);
}

static void fill_part(const struct image *image, uint64_t offset, size_t len, uint32_t seed)
{
    unsigned char *bytes = malloc(len);

    ground_fill(bytes, len, seed);
    for (size_t i = 0; i < len; i++)
        bytes[i] |= 1; /* no zeros among them */
    assert_int_equal(pwrite(image->fd, bytes, len, (off_t)offset), len);
    free(bytes);
}

static uint64_t allocated(const struct image *image)
{
    struct stat st;

    assert_int_equal(fsync(image->fd), 0);
    assert_int_equal(fstat(image->fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static uint64_t size_of(const struct image *image)
{
    struct stat st;

    assert_int_equal(fstat(image->fd, &st), 0);
    return (uint64_t)st.st_size;
}

/* Does this filesystem tell where its holes are? */
static bool tells_holes(const struct image *image)
{
    struct image probe = make_image(image->path[1] == 't' ? places[0] : places[1], 4 * UNIT);
    bool tells;

    fill_part(&probe, 0, UNIT, 1);
    tells = lseek(probe.fd, 0, SEEK_HOLE) == UNIT;
    if (!tells)
        print_message("the filesystem of %s does not tell its holes: left out\n", image->path);
    drop_image(&probe);
    return tells;
}

static bool all_zeros(const struct image *image, uint64_t offset, uint64_t len)
{
    unsigned char *bytes = malloc(len);
    bool zeros = true;

    assert_int_equal(pread(image->fd, bytes, len, (off_t)offset), len);
    for (uint64_t i = 0; i < len; i++)
        zeros = zeros && bytes[i] == 0;
    free(bytes);
    return zeros;
}

/* ---- Through the driver ------------------------------------------------------------------------- */

static struct blk_dev *open_image(const struct ground *ground, const struct image *image)
{
    struct blk_error error;
    struct blk_dev *dev;

    if (ground_try_open(ground, image->path, true, &dev, &error) != 0)
        fail_msg("%s: %s", image->path, error.text);
    return dev;
}

static int ask(const struct ground *ground, struct blk_dev *dev, uint64_t offset, uint64_t len,
               struct blk_extent *list, size_t capacity)
{
    struct blk_extents extents = {.list = list, .capacity = capacity};
    unsigned left = 1;
    struct ground_request request = {.left = &left};
    uint64_t at = offset;

    request.req = (struct blk_req){
        .op = BLK_EXTENTS,
        .offset = offset,
        .len = len,
        .extents = &extents,
        .done = ground_request_done,
        .opaque = &request,
    };
    blk_submit(dev, &request.req);
    ground_wait_all(ground, &left);
    assert_int_equal(request.req.status, 0);
    assert_in_range(extents.count, 1, capacity);
    for (size_t i = 0; i < extents.count; i++) {
        assert_int_equal(list[i].offset, at);
        assert_true(list[i].len > 0 && list[i].len <= offset + len - at);
        assert_int_equal(list[i].depth, 0);
        assert_true(list[i].host_offset == BLK_NO_OFFSET);
        assert_false(list[i].compressed);
        assert_int_not_equal(list[i].kind, BLK_UNALLOCATED);
        at += list[i].len;
    }
    return (int)extents.count;
}

/* "z100 d200": kinds and lengths of neighbours, those of one kind together, asked for in steps. */
static void map(const struct ground *ground, struct blk_dev *dev, uint64_t offset, uint64_t end,
                size_t capacity, char *text, size_t size)
{
    struct blk_extent list[16];
    uint64_t len = 0;
    char kind = 0;
    size_t used = 0;

    text[0] = '\0';
    while (offset < end) {
        int count = ask(ground, dev, offset, end - offset, list, capacity);

        for (int i = 0; i < count; i++) {
            char next = list[i].kind == BLK_ZEROS ? 'z' : 'd';

            if (next != kind && len > 0)
                used += (size_t)snprintf(text + used, size - used, "%c%" PRIu64 " ", kind, len);
            len = (next == kind ? len : 0) + list[i].len;
            kind = next;
            offset += list[i].len;
        }
    }
    snprintf(text + used, size - used, "%c%" PRIu64, kind, len);
}

static void check_map(const struct ground *ground, struct blk_dev *dev, uint64_t offset,
                      uint64_t end, const char *expected)
{
    char text[500];

    for (size_t capacity = 1; capacity <= 16; capacity = capacity * 2 + 1) {
        map(ground, dev, offset, end, capacity, text, sizeof text);
        assert_string_equal(text, expected);
    }
}

/* ---- Extents ------------------------------------------------------------------------------------ */

static void extents_on(const struct ground *ground, const struct image *image)
{
    struct blk_dev *dev;

    /* A hole at the start, between, and at the end, which is odd. */
    fill_part(image, UNIT, UNIT, 1);
    fill_part(image, 4 * UNIT, 2 * UNIT, 2);
    dev = open_image(ground, image);
    assert_true((dev->caps & BLK_CAN_EXTENTS) != 0);
    check_map(ground, dev, 0, dev->size, "z65536 d65536 z131072 d131072 z65537");
    /* From within a hole, and from within data. */
    check_map(ground, dev, 100, 7 * UNIT, "z65436 d65536 z131072 d131072 z65536");
    check_map(ground, dev, UNIT + 1, 4 * UNIT + 1, "d65535 z131072 d1");
    check_map(ground, dev, 3 * UNIT, 3 * UNIT + 1, "z1");
    check_map(ground, dev, 5 * UNIT, 5 * UNIT + 1, "d1");
    check_map(ground, dev, dev->size - 1, dev->size, "z1");
    /* On disk it is the same. */
    assert_int_equal(fsync(image->fd), 0);
    check_map(ground, dev, 0, dev->size, "z65536 d65536 z131072 d131072 z65537");
    ground_close(ground, dev);
}

static void test_extents(void **state)
{
    for (size_t i = 0; i < COUNT(places); i++) {
        struct image image = make_image(places[i], 7 * UNIT + 1);

        if (image.fd < 0)
            continue;
        if (tells_holes(&image))
            extents_on(*state, &image);
        drop_image(&image);
    }
}

/* Data from end to end, and none at all, of 1 TiB. */
static void test_one_extent(void **state)
{
    struct ground *ground = *state;
    uint64_t size = UINT64_C(1) << 40;

    for (size_t i = 0; i < COUNT(places); i++) {
        struct image image = make_image(places[i], size);
        struct blk_dev *dev;
        char last[40];

        if (image.fd < 0)
            continue;
        dev = open_image(ground, &image);
        if (tells_holes(&image)) {
            check_map(ground, dev, 0, size, "z1099511627776");
            fill_part(&image, size - UNIT, UNIT, 3);
            check_map(ground, dev, 0, size, "z1099511562240 d65536");
        }
        ground_close(ground, dev);
        assert_int_equal(ftruncate(image.fd, 0), 0);
        fill_part(&image, 0, UNIT + 5, 4);
        dev = open_image(ground, &image);
        snprintf(last, sizeof last, "d%d", UNIT + 5);
        check_map(ground, dev, 0, UNIT + 5, last);
        ground_close(ground, dev);
        drop_image(&image);
    }
}

/* Beyond the end that it has now, nothing is zeros: a READ is to tell that the file is shorter. */
static void test_shrunk(void **state)
{
    struct ground *ground = *state;

    for (size_t i = 0; i < COUNT(places); i++) {
        struct image image = make_image(places[i], 8 * UNIT);
        struct blk_dev *dev;

        if (image.fd < 0)
            continue;
        fill_part(&image, 0, UNIT, 5);
        dev = open_image(ground, &image);
        assert_int_equal(ftruncate(image.fd, 4 * UNIT), 0);
        check_map(ground, dev, 4 * UNIT, 8 * UNIT, "d262144");
        check_map(ground, dev, 6 * UNIT, 8 * UNIT, "d131072");
        if (tells_holes(&image))
            check_map(ground, dev, 0, 8 * UNIT, "d65536 z196608 d262144");
        assert_int_equal(ftruncate(image.fd, 0), 0);
        check_map(ground, dev, 0, 8 * UNIT, "d524288");
        ground_close(ground, dev);
        drop_image(&image);
    }
}

/* ---- Zeros -------------------------------------------------------------------------------------- */

static void zero(const struct ground *ground, struct blk_dev *dev, unsigned flags, uint64_t offset,
                 uint64_t len)
{
    struct blk_req req = ground_do(ground, dev, BLK_ZERO, flags, offset, NULL, len);

    assert_int_equal(req.status, 0);
    assert_true(req.epoch != BLK_NO_EPOCH);
    assert_true(req.durable == ((flags & BLK_FUA) != 0));
}

/* Whatever the means: zeros in the range, and nothing else has changed. */
static void test_zero(void **state)
{
    static const struct {
        uint64_t offset, len;
    } ranges[] = {{0, 1},           {511, 4098},         {UNIT, UNIT},   {UNIT - 1, UNIT + 2},
                  {UNIT, UNIT + 1}, {0, 8 * UNIT + 777}, {8 * UNIT, 777}};
    static const unsigned flags[] = {0, BLK_MAY_UNMAP, BLK_FUA, BLK_MAY_UNMAP | BLK_FUA};
    struct ground *ground = *state;
    size_t size = 8 * UNIT + 777;
    unsigned char *expected = malloc(size), *found = malloc(size);

    for (size_t i = 0; i < COUNT(places) * COUNT(ranges) * COUNT(flags); i++) {
        size_t r = i / COUNT(flags) % COUNT(ranges);
        struct image image = make_image(places[i / COUNT(flags) / COUNT(ranges)], 0);
        struct blk_dev *dev;

        if (image.fd < 0)
            continue;
        fill_part(&image, 0, size, 6);
        assert_int_equal(pread(image.fd, expected, size, 0), size);
        dev = open_image(ground, &image);
        zero(ground, dev, flags[i % COUNT(flags)], ranges[r].offset, ranges[r].len);
        memset(expected + ranges[r].offset, 0, ranges[r].len);
        assert_int_equal(ground_do(ground, dev, BLK_READ, 0, 0, found, size).status, 0);
        assert_memory_equal(found, expected, size);
        assert_int_equal(pread(image.fd, found, size, 0), size);
        assert_memory_equal(found, expected, size);
        assert_int_equal(size_of(&image), size);
        ground_close(ground, dev);
        drop_image(&image);
    }
    free(expected);
    free(found);
}

/* What is allocated before and after; where the filesystem can. */
static void test_unmap(void **state)
{
    enum { SIZE = 16 * UNIT };
    struct ground *ground = *state;

    for (size_t i = 0; i < COUNT(places); i++) {
        struct image image = make_image(places[i], 0);
        struct blk_dev *dev;
        uint64_t before;

        if (image.fd < 0)
            continue;
        fill_part(&image, 0, SIZE, 7);
        dev = open_image(ground, &image);
        assert_true(dev->caps & BLK_CAN_ZERO && dev->caps & BLK_CAN_UNMAP);
        assert_true(dev->caps & BLK_CAN_DISCARD);
        zero(ground, dev, 0, 0, 4 * UNIT);
        before = allocated(&image);
        assert_true(before >= SIZE);
        zero(ground, dev, BLK_MAY_UNMAP, 4 * UNIT, 4 * UNIT);
        if (!(dev->caps & BLK_CAN_UNMAP)) {
            print_message("the filesystem of %s cannot punch holes: left out\n", image.path);
        } else {
            /* A little for what the filesystem keeps of itself. */
            assert_in_range(allocated(&image), SIZE - 4 * UNIT, before - 3 * UNIT);
            assert_int_equal(
                ground_do(ground, dev, BLK_DISCARD, 0, 8 * UNIT, NULL, 4 * UNIT).status, 0);
            assert_in_range(allocated(&image), SIZE - 8 * UNIT, before - 7 * UNIT);
            assert_true(all_zeros(&image, 8 * UNIT, 4 * UNIT));
            /* What was unmapped can be made to be there again. */
            zero(ground, dev, 0, 4 * UNIT, 8 * UNIT);
            assert_true(allocated(&image) >= SIZE);
        }
        assert_true(all_zeros(&image, 0, 12 * UNIT));
        assert_false(all_zeros(&image, 12 * UNIT, 1));
        assert_int_equal(size_of(&image), SIZE);
        assert_int_equal(ground_do(ground, dev, BLK_FLUSH, 0, 0, NULL, 0).status, 0);
        ground_close(ground, dev);
        drop_image(&image);
    }
}

/* A request has many pieces here: 3 TiB of nothing are gone through quickly. */
static void test_unmap_terabytes(void **state)
{
    struct ground *ground = *state;
    uint64_t size = UINT64_C(3) << 40;
    struct image image = make_image(places[1], size);
    struct blk_dev *dev;

    if (image.fd < 0)
        skip();
    fill_part(&image, size / 2, UNIT, 8);
    dev = open_image(ground, &image);
    zero(ground, dev, BLK_MAY_UNMAP, 0, size);
    if (dev->caps & BLK_CAN_UNMAP)
        assert_int_equal(allocated(&image), 0);
    assert_true(all_zeros(&image, size / 2, UNIT));
    ground_close(ground, dev);
    drop_image(&image);
}

static void test_read_only(void **state)
{
    struct ground *ground = *state;
    struct image image = make_image(places[0], 0);
    struct blk_error error;
    struct blk_dev *dev;

    fill_part(&image, 0, UNIT, 9);
    assert_int_equal(ground_try_open(ground, image.path, false, &dev, &error), 0);
    assert_int_equal(ground_do(ground, dev, BLK_ZERO, 0, 0, NULL, UNIT).status, -EROFS);
    assert_true(ground_do(ground, dev, BLK_DISCARD, 0, 0, NULL, UNIT).status < 0);
    assert_false(all_zeros(&image, 0, 1));
    assert_false(all_zeros(&image, UNIT - 1, 1));
    check_map(ground, dev, 0, UNIT, "d65536");
    ground_close(ground, dev);
    drop_image(&image);
}

/* ---- Cut off and grown again -------------------------------------------------------------------- */

/* Of what lay beyond the cut, nothing comes back: not from the disk, nor from the page cache. */
static void test_cut(void **state)
{
    static const uint64_t cuts[] = {0, 1, 4096, UNIT, UNIT + 1234, 2 * UNIT};
    static const struct {
        uint64_t offset, len;
    } beyond[] = {{2 * UNIT, UNIT}, {3 * UNIT + 5, 100}};
    struct ground *ground = *state;
    unsigned char *found = aligned_alloc(4096, 4 * UNIT);
    unsigned char *expected = calloc(1, 4 * UNIT);

    for (size_t i = 0; i < COUNT(places) * COUNT(cuts); i++) {
        struct image image = make_image(places[i / COUNT(cuts)], 0);
        uint64_t cut = cuts[i % COUNT(cuts)];
        struct blk_error error;
        struct blk_dev *dev;

        if (image.fd < 0)
            continue;
        fill_part(&image, 0, 4 * UNIT, (uint32_t)i);
        dev = open_image(ground, &image);
        memset(expected, 0, 4 * UNIT);
        assert_int_equal(pread(image.fd, expected, cut, 0), cut);
        /* Past the cache, and through it, where it is dirty now. */
        memset(found, 'x', 4 * UNIT);
        for (int k = 0; k < 2; k++) {
            struct blk_req req =
                ground_do(ground, dev, BLK_WRITE, 0, beyond[k].offset, found, beyond[k].len);

            assert_int_equal(req.status, 0);
        }
        assert_int_equal(ground_resize(ground, dev, cut, &error), 0);
        assert_int_equal(size_of(&image), cut);
        assert_int_equal(ground_resize(ground, dev, 4 * UNIT, &error), 0);
        assert_int_equal(size_of(&image), 4 * UNIT);
        assert_int_equal(dev->size, 4 * UNIT);
        assert_int_equal(ground_do(ground, dev, BLK_READ, 0, 0, found, 4 * UNIT).status, 0);
        assert_memory_equal(found, expected, 4 * UNIT);
        ground_close(ground, dev);
        drop_image(&image);
    }
    free(found);
    free(expected);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, ground_setup, ground_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_extents), TEST(test_one_extent),      TEST(test_shrunk),    TEST(test_zero),
        TEST(test_unmap),   TEST(test_unmap_terabytes), TEST(test_read_only), TEST(test_cut),
    };

    return cmocka_run_group_tests_name("file, its ranges", tests, NULL, NULL);
}
