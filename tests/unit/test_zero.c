/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ZERO and DISCARD through the middle: cut at what is freed together, and made durable. */
#include "desk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define SIZE         UINT64_C(65536)
#define ALL          (BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD | BLK_CAN_EXTENTS)
#define UNMAP        BLK_MAY_UNMAP

/* A disk of blocks of 512 bytes, all data, that is capable of all. */
static void start(struct desk *desk)
{
    desk_init(desk, SIZE);
    desk->disk.limits.align = 512;
    desk->disk.limits.max_write = 8 * KIB;
    desk->disk.caps = ALL;
}

/* ---- Where it is cut -------------------------------------------------------------------------- */

struct cut_case {
    enum blk_op op;
    unsigned flags, caps;
    uint64_t granule, phase, max; /* of ZERO and of DISCARD */
    uint64_t offset, len;
    const char *commands;
};

static const struct cut_case cut_cases[] = {
    /* Units that are not known: any block. */
    {BLK_ZERO, UNMAP, ALL, 0, 0, 16384, 512, 1024, "ZERO 512+1k unmap"},
    {BLK_ZERO, UNMAP, ALL, 0, 0, 16384, 512, 20480, "ZERO 512+15872 unmap; ZERO 16k+4608 unmap"},
    {BLK_ZERO, UNMAP, ALL, 0, 0, 16384, 100, 1000,
     "READ 0+512; ZERO 512+512 unmap; WRITE 0+512; READ 1k+512; WRITE 1k+512"},
    /* The flag is the caller's, and the device's. */
    {BLK_ZERO, 0, ALL, 4096, 0, 16384, 0, 8192, "ZERO 0+8k"},
    {BLK_ZERO, UNMAP, BLK_CAN_ZERO, 4096, 0, 16384, 0, 8192, "ZERO 0+8k"},
    {BLK_ZERO, UNMAP, BLK_CAN_DISCARD, 4096, 0, 16384, 0, 8192, "WRITE 0+8k"},
    /* Whole units. */
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 4096, 8192, "ZERO 4k+8k unmap"},
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 0, SIZE,
     "ZERO 0+16k unmap; ZERO 16k+16k unmap; ZERO 32k+16k unmap; ZERO 48k+16k unmap"},
    /* A head, a tail, both; no unit at all. */
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 3584, 4608, "ZERO 3584+512; ZERO 4k+4k unmap"},
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 4096, 4608, "ZERO 4k+4k unmap; ZERO 8k+512"},
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 512, 11776, "ZERO 512+3584; ZERO 4k+8k unmap"},
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 512, 12288,
     "ZERO 512+3584; ZERO 4k+8k unmap; ZERO 12k+512"},
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 512, 3584, "ZERO 512+3584"},
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 512, 7168, "ZERO 512+7k"},
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 4608, 3072, "ZERO 4608+3k"},
    /* Heads and tails in blocks that are not whole are written. */
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 16384, 3500, 4792,
     "READ 3k+512; ZERO 3584+512; ZERO 4k+4k unmap; WRITE 3k+512; READ 8k+512; WRITE 8k+512"},
    /* The first unit begins later. */
    {BLK_ZERO, UNMAP, ALL, 4096, 1024, 16384, 0, 9216, "ZERO 0+1k; ZERO 1k+8k unmap"},
    {BLK_ZERO, UNMAP, ALL, 4096, 1024, 16384, 1024, 4096, "ZERO 1k+4k unmap"},
    {BLK_ZERO, UNMAP, ALL, 4096, 1024, 16384, 512, 4096, "ZERO 512+4k"},
    {BLK_ZERO, UNMAP, ALL, 4096, 1024, 16384, 0, 512, "ZERO 0+512"},
    {BLK_ZERO, UNMAP, ALL, 4096, 1024, 8192, 0, 20480,
     "ZERO 0+1k; ZERO 1k+8k unmap; ZERO 9k+8k unmap; ZERO 17k+3k"},
    /* Of the device's end there is no whole unit. */
    {BLK_ZERO, UNMAP, ALL, 4096, 1024, 65536, 0, SIZE, "ZERO 0+1k; ZERO 1k+60k unmap; ZERO 61k+3k"},
    /* A limit that is no multiple of a unit; one that is less. */
    {BLK_ZERO, UNMAP, ALL, 4096, 0, 10240, 0, 20480,
     "ZERO 0+8k unmap; ZERO 8k+8k unmap; ZERO 16k+4k unmap"},
    {BLK_ZERO, UNMAP, ALL, 8192, 0, 4096, 0, 8192, "ZERO 0+4k; ZERO 4k+4k"},
    /* A unit that is no power of two. */
    {BLK_ZERO, UNMAP, ALL, 1536, 512, 4096, 0, 6144,
     "ZERO 0+512; ZERO 512+3k unmap; ZERO 3584+1536 unmap; ZERO 5k+1k"},
    {BLK_DISCARD, 0, ALL, 1536, 512, 4096, 0, 6144, "DISCARD 512+3k; DISCARD 3584+1536"},
    /* DISCARD: whole units, or nothing. */
    {BLK_DISCARD, 0, ALL, 0, 0, 16384, 512, 1024, "DISCARD 512+1k"},
    {BLK_DISCARD, 0, ALL, 0, 0, 16384, 100, 1000, "DISCARD 512+512"},
    {BLK_DISCARD, 0, ALL, 0, 0, 16384, 100, 600, ""},
    {BLK_DISCARD, 0, ALL, 4096, 0, 16384, 0, SIZE,
     "DISCARD 0+16k; DISCARD 16k+16k; DISCARD 32k+16k; DISCARD 48k+16k"},
    {BLK_DISCARD, 0, ALL, 4096, 0, 16384, 4095, 8194, "DISCARD 4k+8k"},
    {BLK_DISCARD, 0, ALL, 4096, 0, 16384, 4097, 8190, ""},
    {BLK_DISCARD, 0, ALL, 4096, 0, 16384, 4097, 8191, "DISCARD 8k+4k"},
    {BLK_DISCARD, 0, ALL, 4096, 1024, 8192, 0, SIZE,
     "DISCARD 1k+8k; DISCARD 9k+8k; DISCARD 17k+8k; DISCARD 25k+8k; DISCARD 33k+8k; "
     "DISCARD 41k+8k; DISCARD 49k+8k; DISCARD 57k+4k"},
    {BLK_DISCARD, 0, ALL, 4096, 1024, 16384, 0, 1024, ""},
    {BLK_DISCARD, 0, ALL, 4096, 1024, 16384, 0, 512, ""},
    {BLK_DISCARD, 0, ALL, 8192, 0, 4096, 0, 16384, ""},
    {BLK_DISCARD, BLK_FUA, ALL | BLK_CAN_FUA, 0, 0, 16384, 0, 512, "DISCARD 0+512"},
};

static void check_cut(const struct cut_case *c)
{
    unsigned char expected[SIZE];
    struct desk_req req;
    struct desk desk;

    start(&desk);
    desk.disk.limits.max_zero = desk.disk.limits.max_discard = c->max;
    desk.disk.limits.unmap_granule = c->granule;
    desk.disk.limits.unmap_phase = c->phase;
    desk.disk.caps = c->caps;
    desk_open(&desk, true);
    memcpy(expected, desk.disk.written, SIZE);
    assert_int_equal(desk_do(&desk, &req, c->op, c->flags, c->offset, NULL, c->len), 0);
    fake_disk_check_commands(&desk.disk, c->commands);
    if (c->op == BLK_ZERO) {
        memset(expected + c->offset, 0, c->len);
        assert_memory_equal(desk.disk.written, expected, SIZE);
    }
    desk_release(&desk);
}

static void test_cuts(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cut_cases); i++)
        check_cut(&cut_cases[i]);
}

/* A device that ends within a block, and knows no units: its end may go. */
static void test_short_end(void **state)
{
    struct desk_req req;
    struct desk desk;

    (void)state;
    desk_init(&desk, 10000);
    desk.disk.limits.align = 512;
    desk.disk.caps = ALL;
    desk_open(&desk, true);
    assert_int_equal(desk_do(&desk, &req, BLK_ZERO, UNMAP, 8192, NULL, 1808), 0);
    assert_int_equal(desk_do(&desk, &req, BLK_DISCARD, 0, 4000, NULL, 6000), 0);
    assert_int_equal(desk_do(&desk, &req, BLK_DISCARD, 0, 9900, NULL, 100), 0);
    fake_disk_check_commands(&desk.disk, "ZERO 8k+1808 unmap; DISCARD 4k+5904");
    desk_release(&desk);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

/* Any range, any unit, any limit: just these bytes become zeros, and just the whole units among them
 * are freed. */
static void random_zero(uint64_t *seed)
{
    struct blk_limits *limits;
    uint64_t offset, len, unit;
    struct desk_req req;
    struct desk desk;

    start(&desk);
    desk.disk.logging = false;
    limits = &desk.disk.limits;
    unit = limits->unmap_granule = 512 * (1 + next_random(seed) % 12);
    limits->unmap_phase = next_random(seed) % (unit / 512) * 512;
    limits->max_zero = unit * (1 + next_random(seed) % 4);
    limits->max_depth = (uint32_t)(1 + next_random(seed) % 5);
    offset = next_random(seed) % SIZE;
    len = 1 + next_random(seed) % (SIZE - offset);
    desk_open(&desk, true);
    assert_int_equal(desk_do(&desk, &req, BLK_ZERO, UNMAP, offset, NULL, len), 0);
    for (uint64_t i = 0; i < SIZE; i++)
        assert_int_equal(desk.disk.written[i] == 0, i >= offset && i < offset + len);
    for (uint64_t at = limits->unmap_phase; at + unit <= SIZE; at += unit)
        assert_true(fake_disk_is(&desk.disk, at, unit,
                                 at >= offset && at + unit <= offset + len ? BLK_ZEROS : BLK_DATA));
    desk_release(&desk);
}

static void test_random_zeros(void **state)
{
    uint64_t seed = 20261121;

    (void)state;
    print_message("seed %" PRIu64 "\n", seed);
    for (unsigned i = 0; i < 300; i++)
        random_zero(&seed);
}

/* ---- Durable when done ------------------------------------------------------------------------ */

static void check_fua(unsigned caps, bool zero_durable, uint64_t offset, const char *commands)
{
    unsigned char expected[SIZE];
    struct desk_req req;
    struct desk desk;

    start(&desk);
    desk.disk.caps = caps;
    desk.disk.zero_durable = zero_durable;
    desk_open(&desk, true);
    memcpy(expected, desk.disk.written, SIZE);
    memset(expected + offset, 0, 4096);
    assert_int_equal(desk_do(&desk, &req, BLK_ZERO, BLK_FUA | UNMAP, offset, NULL, 4096), 0);
    assert_true(req.req.durable);
    assert_memory_equal(desk.disk.durable, expected, SIZE);
    fake_disk_check_commands(&desk.disk, commands);
    desk_release(&desk);
}

static void test_fua(void **state)
{
    const unsigned fua = ALL | BLK_CAN_FUA;

    (void)state;
    check_fua(ALL, false, 4096, "ZERO 4k+4k unmap; FLUSH");
    check_fua(fua, false, 4096, "ZERO 4k+4k unmap; FLUSH");
    check_fua(ALL, true, 4096, "ZERO 4k+4k unmap");
    check_fua(fua, true, 4096, "ZERO 4k+4k unmap");
    /* With parts of blocks that are written, durably or not. */
    check_fua(fua, false, 4000,
              "READ 3584+512 fua; ZERO 4k+3584 unmap; WRITE 3584+512 fua; READ 7680+512 fua; "
              "WRITE 7680+512 fua; FLUSH");
    check_fua(fua, true, 4000,
              "READ 3584+512 fua; ZERO 4k+3584 unmap; WRITE 3584+512 fua; READ 7680+512 fua; "
              "WRITE 7680+512 fua");
    check_fua(ALL, true, 4000,
              "READ 3584+512; ZERO 4k+3584 unmap; WRITE 3584+512; READ 7680+512; WRITE 7680+512; "
              "FLUSH");
    check_fua(BLK_CAN_FUA, false, 4096, "WRITE 4k+4k fua");
    check_fua(0, false, 4096, "WRITE 4k+4k; FLUSH");
}

/* A server that restarts before each FLUSH: in the end it is done without one, where that is possible. */
static void check_losing(unsigned caps, int status, const char *commands)
{
    struct desk_req req;
    struct desk desk;

    start(&desk);
    desk_repeat(&desk);
    desk.disk.caps = caps;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_ZERO, BLK_FUA, 0, NULL, 512);
    for (fake_settle(&desk.fake); desk.fake.pending_count > 0; fake_settle(&desk.fake)) {
        if (desk.fake.pending[0].req->op == BLK_FLUSH)
            fake_disk_restart(&desk.disk);
        fake_complete(&desk.fake, 0);
    }
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, status);
    if (commands)
        fake_disk_check_commands(&desk.disk, commands);
    desk_release(&desk);
}

static void test_losing(void **state)
{
    (void)state;
    check_losing(BLK_CAN_ZERO, -EIO, NULL);
    check_losing(BLK_CAN_ZERO | BLK_CAN_FUA, 0,
                 "ZERO 0+512; FLUSH; ZERO 0+512; FLUSH; ZERO 0+512; FLUSH; ZERO 0+512; FLUSH; "
                 "WRITE 0+512 fua");
}

/* ---- DISCARD -------------------------------------------------------------------------------------- */

static void test_discard(void **state)
{
    unsigned char expected[SIZE];
    struct desk_req req;
    struct desk desk;

    (void)state;
    start(&desk);
    desk.disk.limits.unmap_granule = 4096;
    desk.disk.discard_scrambles = true;
    desk_open(&desk, true);
    memcpy(expected, desk.disk.written, SIZE);
    assert_int_equal(desk_do(&desk, &req, BLK_DISCARD, 0, 1000, NULL, 10000), 0);
    memset(expected + 4096, 0xdd, 4096);
    assert_memory_equal(desk.disk.written, expected, SIZE);
    /* Not from inside blk_submit(), although there is nothing to do. */
    desk_submit(&desk, &req, BLK_DISCARD, 0, 1000, NULL, 1000);
    assert_int_equal(req.done, 0);
    desk_check_pending(&desk, "");
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, 0);
    desk_release(&desk);
}

static void test_no_discard(void **state)
{
    struct desk_req req;
    struct desk desk;

    (void)state;
    start(&desk);
    desk.disk.caps = BLK_CAN_ZERO;
    desk_open(&desk, true);
    assert_int_equal(desk_do(&desk, &req, BLK_DISCARD, 0, 512, NULL, 512), -ENOTSUP);
    assert_string_equal(req.req.error.text,
                        "discarding fake:d at offset 512: its space cannot be freed");
    /* Though there would be nothing to do. */
    assert_int_equal(desk_do(&desk, &req, BLK_DISCARD, 0, 100, NULL, 100), -ENOTSUP);
    fake_disk_check_commands(&desk.disk, "");
    desk_release(&desk);

    start(&desk);
    desk_open(&desk, false);
    assert_int_equal(desk_do(&desk, &req, BLK_DISCARD, 0, 512, NULL, 512), -EROFS);
    assert_string_equal(req.req.error.text,
                        "discarding fake:d at offset 512: opened for reading only");
    desk_release(&desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),         cmocka_unit_test(test_short_end),
        cmocka_unit_test(test_random_zeros), cmocka_unit_test(test_fua),
        cmocka_unit_test(test_losing),       cmocka_unit_test(test_discard),
        cmocka_unit_test(test_no_discard),
    };

    return cmocka_run_group_tests_name("zero", tests, NULL, NULL);
}
