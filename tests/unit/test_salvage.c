/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every pattern of bad blocks in a small range, and single runs anywhere in a large one, against the
 * obvious model: what is bad is zeros and told, all else is there. */
#include "desk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "src/copy/salvage.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define MAX_BLOCKS   600
#define MAX_RANGES   MAX_BLOCKS
#define SCRIBBLE     0xee

/* What the device says of where it failed. */
enum telling {
    TELL_NOT,
    TELL_FIRST_BAD, /* as SBC-3 4.15 has it */
    TELL_START,     /* where the request starts, as far as a server of files can know */
    TELL_LAST_BAD,  /* a bad block, though not the first */
    TELL_WRONG,     /* some block in the request */
    TELL_OUTSIDE,   /* no block of the request */
    TELLINGS,
};

struct scene {
    struct desk desk;
    uint64_t block;
    bool bad[MAX_BLOCKS]; /* by number of the device's block */
    bool odd;             /* the range begins and ends within a block */
    bool heals;           /* a bad block can be read the second time */
    enum telling telling;
    struct blk_error other; /* what the READ `other_at` fails with; code 0: none does */
    unsigned other_at, reads;
    unsigned char *buffer;
    struct salvage salvage;
    unsigned done;
    struct {
        uint64_t offset, len;
    } found[MAX_RANGES];
    unsigned found_count;
};

static struct scene scene;

/* ---- The device ------------------------------------------------------------------------------- */

static uint64_t told(uint64_t first, uint64_t last, const struct blk_req *req)
{
    switch (scene.telling) {
    case TELL_FIRST_BAD:
        return first * scene.block > req->offset ? first * scene.block : req->offset;
    case TELL_START:
        return req->offset;
    case TELL_LAST_BAD:
        return last * scene.block + 1;
    case TELL_WRONG:
        return req->offset + req->len / 3;
    case TELL_OUTSIDE:
        return req->offset + req->len;
    default:
        return 0;
    }
}

static void before(struct fake *fake, const struct fake_op *op)
{
    const struct blk_req *req = op->req;
    uint64_t first = UINT64_MAX, last = 0;

    memset(&fake->fault, 0, sizeof(fake->fault));
    if (op->kind != FAKE_REQ)
        return;
    /* One at a time; in pieces, where it begins or ends within a block. */
    must(fake, fake->pending_count == 0 || scene.odd);
    must(fake, req->len <= SALVAGE_PIECE);
    scene.reads++;
    if (scene.other.code && scene.reads == scene.other_at) {
        fake->fault = (struct fake_fault){.number = op->number, .code = scene.other.code};
        return;
    }
    for (uint64_t b = req->offset / scene.block; b * scene.block < req->offset + req->len; b++) {
        if (scene.bad[b]) {
            first = first == UINT64_MAX ? b : first;
            last = b;
        }
    }
    if (first == UINT64_MAX)
        return;
    fake->fault = (struct fake_fault){
        .number = op->number,
        .code = EIO,
        .retry = BLK_MEDIUM,
        .bad_offset = told(first, last, req),
    };
    if (scene.heals)
        memset(scene.bad, 0, sizeof(scene.bad));
}

/* ---- One salvage ------------------------------------------------------------------------------ */

static void found(void *opaque, uint64_t offset, uint64_t len)
{
    assert_ptr_equal(opaque, &scene);
    assert_int_equal(scene.done, 0);
    assert_in_range(scene.found_count, 0, MAX_RANGES - 1);
    scene.found[scene.found_count].offset = offset;
    scene.found[scene.found_count++].len = len;
}

static void done(struct salvage *salvage)
{
    assert_ptr_equal(salvage->opaque, &scene);
    scene.done++;
}

static void setup(uint64_t size, uint32_t align)
{
    memset(&scene, 0, sizeof(scene));
    desk_init(&scene.desk, size);
    scene.desk.disk.limits.align = align;
    scene.desk.disk.logging = false;
    scene.desk.fake.before = before;
    scene.block = align == 1 ? 4096 : align < 512 ? 512 : align;
    desk_open(&scene.desk, false);
    scene.buffer = malloc(size);
    assert_non_null(scene.buffer);
}

static void teardown(void)
{
    free(scene.buffer);
    desk_release(&scene.desk);
}

static void begin(uint64_t offset, uint64_t len)
{
    memset(scene.buffer, SCRIBBLE, len);
    scene.done = scene.reads = scene.found_count = 0;
    memset(&scene.salvage, SCRIBBLE, sizeof(scene.salvage));
    scene.salvage.dev = scene.desk.dev;
    scene.salvage.offset = offset;
    scene.salvage.len = len;
    scene.salvage.buffer = scene.buffer;
    scene.salvage.found = found;
    scene.salvage.done = done;
    scene.salvage.opaque = &scene;
    salvage_start(&scene.salvage);
    assert_int_equal(scene.done, 0);
}

/* The runs of bad bytes in the range, as the model has them. */
static unsigned model(uint64_t offset, uint64_t len, unsigned *blocks)
{
    unsigned runs = 0;
    uint64_t total = 0;

    *blocks = 0;
    for (uint64_t b = offset / scene.block; b * scene.block < offset + len; b++) {
        uint64_t from = b * scene.block, to = min_u64(from + scene.block, offset + len);

        from = from > offset ? from : offset;
        if (!scene.bad[b])
            continue;
        ++*blocks;
        total += to - from;
        if (from == offset || !scene.bad[b - 1]) {
            assert_in_range(runs, 0, scene.found_count - 1);
            assert_int_equal(scene.found[runs++].offset, from);
        }
        assert_true(scene.found[runs - 1].offset + scene.found[runs - 1].len >= to);
    }
    assert_int_equal(runs, scene.found_count);
    assert_int_equal(total, scene.salvage.bad);
    for (unsigned i = 0; i < runs; i++)
        total -= scene.found[i].len;
    assert_int_equal(total, 0);
    return runs;
}

static void check_bytes(uint64_t offset, uint64_t len)
{
    for (uint64_t at = offset; at < offset + len;) {
        uint64_t next = min_u64(round_down(at, scene.block) + scene.block, offset + len);

        if (scene.bad[at / scene.block]) {
            for (uint64_t i = at; i < next; i++)
                assert_int_equal(scene.buffer[i - offset], 0);
        } else {
            assert_memory_equal(scene.buffer + (at - offset), scene.desk.disk.written + at,
                                next - at);
        }
        at = next;
    }
}

static void salvage_and_check(uint64_t offset, uint64_t len)
{
    unsigned pieces = (unsigned)(len / SALVAGE_PIECE + 2), blocks, runs;

    begin(offset, len);
    fake_finish(&scene.desk.fake);
    assert_int_equal(scene.done, 1);
    assert_int_equal(scene.salvage.status, 0);
    runs = model(offset, len, &blocks);
    check_bytes(offset, len);
    if (scene.heals)
        runs++;
    assert_in_range(scene.reads, 1,
                    (pieces + blocks + runs * SALVAGE_OVERHEAD) * (scene.odd ? 3 : 1));
}

/* ---- Patterns --------------------------------------------------------------------------------- */

/* Of ten blocks, in a range that begins and ends in the middle of one, in one that does not, and in
 * one that a piece's border runs through. */
static void every_pattern(uint32_t align)
{
    static const struct {
        uint64_t first; /* blocks */
        bool odd;
    } ranges[] = {{4, false}, {4, true}, {11, true}};
    const unsigned blocks = 10;

    for (size_t r = 0; r < COUNT(ranges); r++) {
        setup(200 * KIB, align);
        for (unsigned pattern = 0; pattern < 1u << blocks; pattern++) {
            uint64_t first =
                ranges[r].first == 11 ? SALVAGE_PIECE / scene.block - 5 : ranges[r].first;
            uint64_t skip = ranges[r].odd ? 100 : 0;

            scene.odd = ranges[r].odd;
            memset(scene.bad, 0, sizeof(scene.bad));
            for (unsigned b = 0; b < blocks; b++)
                scene.bad[first + b] = (pattern >> b & 1) != 0;
            for (scene.telling = 0; scene.telling < TELLINGS; scene.telling++)
                salvage_and_check(first * scene.block + skip, blocks * scene.block - 2 * skip);
        }
        teardown();
    }
}

static void test_every_pattern_of_512(void **state)
{
    (void)state;
    every_pattern(512);
}

static void test_every_pattern_of_4096(void **state)
{
    (void)state;
    every_pattern(4096);
}

static void test_every_pattern_without_blocks(void **state)
{
    (void)state;
    every_pattern(1);
}

/* Runs of every length up to a few, at every block of a range of several pieces. */
static void test_runs_anywhere(void **state)
{
    (void)state;
    setup(300 * KIB, 512);
    for (unsigned len = 1; len <= 130; len += len < 4 ? 1 : 42) {
        for (unsigned first = 0; first + len <= 600; first += len < 4 ? 1 : 7) {
            memset(scene.bad, 0, sizeof(scene.bad));
            memset(scene.bad + first, true, len);
            scene.telling = first % TELLINGS;
            salvage_and_check(0, 300 * KIB);
        }
    }
    teardown();
}

static void test_two_runs_far_apart(void **state)
{
    (void)state;
    setup(256 * KIB, 512);
    for (unsigned first = 0; first < 128; first += 3) {
        for (unsigned second = first + 1; second < 256; second += 5) {
            memset(scene.bad, 0, sizeof(scene.bad));
            scene.bad[first] = scene.bad[second] = true;
            scene.telling = second % TELLINGS;
            salvage_and_check(0, 256 * KIB);
        }
    }
    teardown();
}

/* The end of a disk whose size is no multiple of its blocks. */
static void test_a_short_last_block(void **state)
{
    (void)state;
    setup(10000, 4096);
    scene.bad[2] = true;
    salvage_and_check(0, 10000);
    assert_int_equal(scene.found[0].len, 10000 - 8192);
    teardown();
}

static void test_all_bad(void **state)
{
    (void)state;
    setup(256 * KIB, 512);
    memset(scene.bad, true, sizeof(scene.bad));
    salvage_and_check(0, 256 * KIB);
    assert_int_equal(scene.found_count, 1);
    assert_in_range(scene.reads, 512, 512 + SALVAGE_OVERHEAD);
    teardown();
}

/* ---- Costs ------------------------------------------------------------------------------------ */

static void test_goes_straight_to_a_block_that_is_named(void **state)
{
    (void)state;
    setup(64 * KIB, 512);
    scene.desk.disk.logging = true;
    scene.telling = TELL_FIRST_BAD;
    scene.bad[100] = true;
    salvage_and_check(0, 64 * KIB);
    desk_check_log(&scene.desk, "READ 0+65536\nREAD 0+51200\nREAD 51200+512\n"
                                "READ 51712+512\nREAD 52224+1024\nREAD 53248+2048\n"
                                "READ 55296+4096\nREAD 59392+6144\n");
    teardown();
}

/* Halves, and no READ of what is known to hold a bad block, unless it is one block. */
static void test_halves_where_none_is_named(void **state)
{
    (void)state;
    setup(8 * KIB, 512);
    scene.desk.disk.logging = true;
    scene.bad[13] = true;
    salvage_and_check(0, 8 * KIB);
    desk_check_log(&scene.desk, "READ 0+8192\nREAD 0+4096\nREAD 4096+2048\nREAD 6144+1024\n"
                                "READ 6144+512\nREAD 6656+512\nREAD 7168+512\nREAD 7680+512\n");
    teardown();
}

/* A device that names wrong blocks is believed once. */
static void test_a_wrong_name_costs_little(void **state)
{
    unsigned without;

    (void)state;
    setup(64 * KIB, 512);
    scene.bad[100] = true;
    salvage_and_check(0, 64 * KIB);
    without = scene.reads;
    for (scene.telling = TELL_START; scene.telling < TELLINGS; scene.telling++) {
        salvage_and_check(0, 64 * KIB);
        assert_in_range(scene.reads, 1, without + 3);
    }
    teardown();
}

/* What could be read in the end is not given up. */
static void test_an_error_that_passes(void **state)
{
    (void)state;
    setup(200 * KIB, 512);
    for (unsigned b = 0; b < 400; b++) {
        memset(scene.bad, 0, sizeof(scene.bad));
        scene.bad[b] = true;
        scene.heals = true;
        scene.telling = b % TELLINGS;
        salvage_and_check(0, 200 * KIB);
    }
    teardown();
}

/* ---- Ends ------------------------------------------------------------------------------------- */

static void test_other_errors_end_it(void **state)
{
    static const int codes[] = {ESTALE, EROFS, ENOSPC, EACCES, EBUSY, ERANGE};

    (void)state;
    setup(200 * KIB, 512);
    for (size_t i = 0; i < COUNT(codes); i++) {
        for (unsigned at = 1; at < 40; at++) {
            memset(scene.bad, 0, sizeof(scene.bad));
            scene.bad[3] = scene.bad[77] = scene.bad[300] = true;
            scene.other.code = codes[i];
            scene.other_at = at;
            begin(0, 200 * KIB);
            fake_finish(&scene.desk.fake);
            assert_int_equal(scene.done, 1);
            if (scene.reads < at) {
                assert_int_equal(scene.salvage.status, 0);
                continue;
            }
            assert_int_equal(scene.reads, at);
            assert_int_equal(scene.salvage.status, -codes[i]);
            assert_int_equal(scene.salvage.error.code, codes[i]);
            assert_non_null(strstr(scene.salvage.error.text, "the fake says no"));
        }
    }
    teardown();
}

/* What was found before is told, whatever the end. */
static void test_tells_before_an_early_end(void **state)
{
    (void)state;
    setup(4 * KIB, 512);
    scene.bad[1] = true;
    scene.telling = TELL_FIRST_BAD;
    scene.other.code = ESTALE;
    scene.other_at = 4;
    begin(0, 4 * KIB);
    fake_finish(&scene.desk.fake);
    assert_int_equal(scene.salvage.status, -ESTALE);
    assert_int_equal(scene.found_count, 1);
    assert_int_equal(scene.found[0].len, 512);
    teardown();
}

static void test_a_device_that_became_shorter(void **state)
{
    (void)state;
    setup(8 * KIB, 512);
    begin(0, 8 * KIB);
    fake_settle(&scene.desk.fake);
    scene.desk.fake.before = NULL;
    scene.desk.fake.fault.number = scene.desk.fake.pending[0].number;
    fake_finish(&scene.desk.fake);
    assert_int_equal(scene.done, 1);
    assert_int_equal(scene.salvage.status, -EIO);
    assert_non_null(strstr(scene.salvage.error.text, "fake:d ended at offset 8191, 1 bytes early"));
    teardown();
}

static void test_cancelled(void **state)
{
    (void)state;
    setup(8 * KIB, 512);
    scene.bad[1] = true;
    begin(0, 8 * KIB);
    fake_settle(&scene.desk.fake);
    fake_complete(&scene.desk.fake, 0);
    fake_settle(&scene.desk.fake);
    blk_cancel_all(scene.desk.dev);
    fake_finish(&scene.desk.fake);
    assert_int_equal(scene.done, 1);
    assert_int_equal(scene.reads, 2);
    assert_int_equal(scene.salvage.status, -ECANCELED);
    teardown();
}

static void test_stopped(void **state)
{
    (void)state;
    setup(256 * KIB, 512);
    begin(0, 256 * KIB);
    fake_settle(&scene.desk.fake);
    salvage_stop(&scene.salvage);
    assert_int_equal(scene.done, 0);
    fake_finish(&scene.desk.fake);
    assert_int_equal(scene.done, 1);
    assert_int_equal(scene.reads, 1);
    assert_int_equal(scene.salvage.status, -ECANCELED);
    salvage_stop(&scene.salvage); /* too late: nothing happens */
    fake_finish(&scene.desk.fake);
    assert_int_equal(scene.done, 1);
    teardown();
}

static void test_what_applies(void **state)
{
    static const int others[] = {EROFS,  ENOSPC,    ESTALE, EACCES,    EPERM, EBUSY,     ENXIO,
                                 ENOENT, ECANCELED, EAGAIN, ENOMEDIUM, EPIPE, ETIMEDOUT, EPROTO};
    struct blk_error error;

    (void)state;
    blk_error_set_retry(&error, EIO, BLK_MEDIUM, "MEDIUM ERROR 3/11/00");
    assert_true(salvage_applies(&error));
    blk_error_set(&error, EIO, "the file ends");
    assert_false(salvage_applies(&error));
    for (enum blk_retry retry = BLK_AGAIN; retry <= BLK_LOST; retry++) {
        blk_error_set_retry(&error, EIO, retry, "may pass");
        assert_false(salvage_applies(&error));
    }
    for (size_t i = 0; i < COUNT(others); i++) {
        blk_error_set(&error, others[i], "something else");
        assert_false(salvage_applies(&error));
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pattern_of_512),
        cmocka_unit_test(test_every_pattern_of_4096),
        cmocka_unit_test(test_every_pattern_without_blocks),
        cmocka_unit_test(test_runs_anywhere),
        cmocka_unit_test(test_two_runs_far_apart),
        cmocka_unit_test(test_a_short_last_block),
        cmocka_unit_test(test_all_bad),
        cmocka_unit_test(test_goes_straight_to_a_block_that_is_named),
        cmocka_unit_test(test_halves_where_none_is_named),
        cmocka_unit_test(test_a_wrong_name_costs_little),
        cmocka_unit_test(test_an_error_that_passes),
        cmocka_unit_test(test_other_errors_end_it),
        cmocka_unit_test(test_tells_before_an_early_end),
        cmocka_unit_test(test_a_device_that_became_shorter),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_what_applies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
