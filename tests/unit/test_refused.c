/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Devices that turn out not to be capable of what they said: it is done by what is left, whatever else
 * happens at that moment. */
#include "desk.h"
#include "schedule.h"

#include <errno.h>
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

/* ---- Refused after all ------------------------------------------------------------------------ */

static void check_refused(unsigned refuses, unsigned after, uint64_t zero_left,
                          const char *commands, const char *next)
{
    unsigned char expected[SIZE];
    struct desk_req req;
    struct desk desk;

    start(&desk);
    desk.disk.limits.max_zero = 16 * KIB;
    desk.disk.refuses = refuses;
    desk.disk.refuse_after = after;
    desk.disk.zero_left = zero_left;
    desk_open(&desk, true);
    memcpy(expected, desk.disk.written, SIZE);
    memset(expected + 512, 0, 32 * KIB);
    assert_int_equal(desk_do(&desk, &req, BLK_ZERO, UNMAP, 512, NULL, 32 * KIB), 0);
    assert_int_equal(req.req.error.code, 0);
    assert_memory_equal(desk.disk.written, expected, SIZE);
    fake_disk_check_commands(&desk.disk, commands);
    assert_int_equal(desk_do(&desk, &req, BLK_ZERO, UNMAP, 0, NULL, 16 * KIB), 0);
    fake_disk_check_commands(&desk.disk, next);
    desk_release(&desk);
}

/* Each refused range is cut anew by what holds then. */
static void test_refused_zero(void **state)
{
    (void)state;
    check_refused(0, 0, 0, "ZERO 512+15872 unmap; ZERO 16k+16k unmap; ZERO 32k+512 unmap",
                  "ZERO 0+16k unmap");
    check_refused(BLK_CAN_UNMAP, 0, 0,
                  "ZERO 512+15872 unmap; ZERO 16k+16k unmap; ZERO 32k+512 unmap; "
                  "ZERO 512+15872; ZERO 16k+16k; ZERO 32k+512",
                  "ZERO 0+16k");
    check_refused(BLK_CAN_ZERO, 0, 0,
                  "ZERO 512+15872 unmap; ZERO 16k+16k unmap; ZERO 32k+512 unmap; "
                  "WRITE 512+8k; WRITE 8704+7680; WRITE 16k+8k; WRITE 24k+8k; WRITE 32k+512",
                  "WRITE 0+8k; WRITE 8k+8k");
    check_refused(BLK_CAN_ZERO, 1, 0,
                  "ZERO 512+15872 unmap; ZERO 16k+16k unmap; ZERO 32k+512 unmap; "
                  "WRITE 16k+8k; WRITE 24k+8k; WRITE 32k+512",
                  "WRITE 0+8k; WRITE 8k+8k");
    /* By another means, which takes less at once, and does not unmap. */
    check_refused(
        BLK_CAN_ZERO, 0, 10 * KIB,
        "ZERO 512+15872 unmap; ZERO 16k+16k unmap; ZERO 32k+512 unmap; "
        "ZERO 512+9728; ZERO 10k+6k; ZERO 16k+4k; ZERO 20k+10k; ZERO 30k+2k; ZERO 32k+512",
        "ZERO 0+10k; ZERO 10k+6k");
}

/* Requests that wait in the middle meet what is left. */
static void test_refused_beside_others(void **state)
{
    struct desk_req req[3];
    struct desk desk;

    (void)state;
    start(&desk);
    desk.disk.limits.max_depth = 1;
    desk.disk.refuses = ALL;
    desk_open(&desk, true);
    for (unsigned i = 0; i < 3; i++)
        desk_submit(&desk, &req[i], BLK_ZERO, 0, i * 16 * KIB, NULL, 16 * KIB);
    fake_finish(&desk.fake);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(req[i].req.status, 0);
    fake_disk_check_commands(&desk.disk,
                             "ZERO 0+16k; WRITE 0+8k; WRITE 8k+8k; WRITE 16k+8k; WRITE 24k+8k; "
                             "WRITE 32k+8k; WRITE 40k+8k");
    desk_release(&desk);
}

/* Every capability that may be refused, every moment of that, every order of completion or a sample, and
 * on top of that every operation failing once, by each class that is repeated. */
struct trial {
    unsigned refuses, refuse_after;
    uint64_t zero_left;
    unsigned flags;
    enum blk_retry retry; /* BLK_FATAL: nothing fails */
    unsigned number;
    bool applies;
};

/* True: the fault was met. */
static bool try_once(const struct trial *trial, struct odometer *odometer)
{
    unsigned char expected[SIZE];
    struct desk_req req[2];
    struct desk desk;
    bool hit;

    start(&desk);
    desk_repeat(&desk);
    desk.disk.logging = false;
    desk.disk.limits.max_zero = 16 * KIB;
    desk.disk.limits.unmap_granule = 4 * KIB;
    desk.disk.limits.max_depth = 3;
    desk.disk.refuses = trial->refuses;
    desk.disk.refuse_after = trial->refuse_after;
    desk.disk.zero_left = trial->zero_left;
    desk_open(&desk, true);
    memcpy(expected, desk.disk.written, SIZE);
    memset(expected + 100, 0, 30000);
    memset(expected + 32768, 0, 20480);
    if (trial->retry != BLK_FATAL)
        desk.fake.fault = (struct fake_fault){.number = trial->number + 1,
                                              .code = EIO,
                                              .retry = trial->retry,
                                              .applies = trial->applies};
    desk_submit(&desk, &req[0], BLK_ZERO, trial->flags, 100, NULL, 30000);
    desk_submit(&desk, &req[1], BLK_ZERO, trial->flags, 32768, NULL, 20480);
    while (!req[0].done || !req[1].done) {
        fake_pass_time(&desk.fake, NULL, NULL);
        for (; desk.fake.pending_count > 0; fake_settle(&desk.fake))
            fake_complete(&desk.fake, odometer_choose(odometer, desk.fake.pending_count));
    }
    for (unsigned i = 0; i < 2; i++) {
        if (req[i].req.status != 0)
            fail_msg("%s", req[i].req.error.text);
        assert_int_equal(req[i].req.durable, (trial->flags & BLK_FUA) != 0);
    }
    assert_memory_equal(desk.disk.written, expected, SIZE);
    if (trial->flags & BLK_FUA)
        assert_memory_equal(desk.disk.durable, expected, SIZE);
    hit = atomic_load(&desk.fake.fault_hit);
    desk_release(&desk);
    return hit;
}

static const struct trial refusals[] = {
    {.refuses = 0, .flags = UNMAP},
    {.refuses = BLK_CAN_UNMAP, .flags = UNMAP},
    {.refuses = BLK_CAN_UNMAP, .refuse_after = 2, .flags = UNMAP | BLK_FUA},
    {.refuses = BLK_CAN_ZERO},
    {.refuses = BLK_CAN_ZERO, .refuse_after = 1, .flags = UNMAP},
    {.refuses = BLK_CAN_ZERO, .refuse_after = 3, .flags = BLK_FUA},
    {.refuses = BLK_CAN_ZERO, .zero_left = 6 * KIB, .flags = UNMAP},
    {.refuses = BLK_CAN_ZERO, .refuse_after = 1, .zero_left = 32 * KIB, .flags = UNMAP | BLK_FUA},
};

static void test_refusals_in_every_order(void **state)
{
    unsigned orders = 0;

    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        struct odometer odometer = {.sample = 1000};

        do {
            try_once(&refusals[i], &odometer);
            orders++;
        } while (odometer_next(&odometer));
    }
    assert_true(orders > 1000);
}

static void test_refusals_and_faults(void **state)
{
    static const enum blk_retry kinds[] = {BLK_AGAIN, BLK_REPEAT, BLK_RECHECK, BLK_LOST};
    unsigned hits = 0;

    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        for (size_t kind = 0; kind < 2 * COUNT(kinds); kind++) {
            struct trial trial = refusals[i];
            bool hit = true;

            trial.retry = kinds[kind / 2];
            trial.applies = kind % 2;
            for (trial.number = 1; hit; trial.number++) {
                struct odometer odometer = {.sample = 5};

                hit = false;
                do
                    hit = try_once(&trial, &odometer) || hit;
                while (odometer_next(&odometer));
                hits += hit;
            }
        }
    }
    assert_true(hits > 300);
}

/* A piece that is kept to be repeated while the capability goes is done by what is left. */
static void test_kept_piece(void **state)
{
    struct desk_req req;
    struct desk desk;

    (void)state;
    start(&desk);
    desk_repeat(&desk);
    desk.disk.limits.max_zero = 16 * KIB;
    desk.disk.refuses = BLK_CAN_ZERO;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_ZERO, 0, 0, NULL, 32 * KIB);
    fake_settle(&desk.fake);
    fake_fail(&desk.fake, 0, EBUSY, BLK_REPEAT, false);
    desk_one(&desk); /* the second one is refused */
    desk_until(&desk, &req.done);
    assert_int_equal(req.req.status, 0);
    fake_disk_check_commands(&desk.disk, "ZERO 0+16k; ZERO 16k+16k; WRITE 16k+8k; WRITE 24k+8k; "
                                         "WRITE 0+8k; WRITE 8k+8k");
    desk_release(&desk);
}

/* The session is lost while one is refused: what is left is done on the next one. */
static void test_refused_and_lost(void **state)
{
    struct desk_req req;
    struct desk desk;

    (void)state;
    start(&desk);
    desk_repeat(&desk);
    desk.disk.limits.max_zero = 16 * KIB;
    desk.disk.refuses = BLK_CAN_ZERO;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_ZERO, 0, 0, NULL, 32 * KIB);
    fake_settle(&desk.fake);
    fake_complete(&desk.fake, 0);
    fake_disk_lose(&desk.disk, false);
    fake_complete(&desk.fake, 0);
    desk_until(&desk, &req.done);
    assert_int_equal(req.req.status, 0);
    fake_disk_check_commands(&desk.disk,
                             "ZERO 0+16k; ZERO 16k+16k; WRITE 0+8k; WRITE 8k+8k; WRITE 16k+8k; "
                             "WRITE 24k+8k");
    desk_release(&desk);
}

/* Where one piece has failed, refused ones are not made up for. */
static void test_refused_after_a_failure(void **state)
{
    struct desk_req req;
    struct desk desk;

    (void)state;
    start(&desk);
    desk.disk.limits.max_zero = 8 * KIB;
    desk.disk.refuses = BLK_CAN_ZERO;
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_ZERO, 0, 0, NULL, 16 * KIB);
    fake_settle(&desk.fake);
    fake_fail(&desk.fake, 0, EACCES, BLK_FATAL, false);
    assert_int_equal(req.done, 0);
    desk_one(&desk);
    assert_int_equal(req.done, 1);
    assert_int_equal(req.req.status, -EACCES);
    assert_string_equal(req.req.error.text, "zeroing fake:d at offset 0: the fake says no");
    fake_disk_check_commands(&desk.disk, "ZERO 0+8k; ZERO 8k+8k");
    desk_release(&desk);
}

/* Cancelled at each moment of being made up for: reported once, and nothing more is begun. */
static void test_refused_and_cancelled(void **state)
{
    bool ended = false;

    (void)state;
    for (unsigned when = 0; !ended; when++) {
        struct desk_req req;
        struct desk desk;
        unsigned completed = 0;
        size_t begun;

        start(&desk);
        desk.disk.limits.max_zero = 32 * KIB;
        desk.disk.limits.max_depth = 2;
        desk.disk.refuses = BLK_CAN_ZERO;
        desk_open(&desk, true);
        desk_submit(&desk, &req, BLK_ZERO, 0, 0, NULL, 64 * KIB);
        for (fake_settle(&desk.fake); desk.fake.pending_count > 0 && completed < when;
             fake_settle(&desk.fake), completed++)
            fake_complete(&desk.fake, 0);
        if (desk.fake.pending_count > 0) {
            /* One that has just been refused, and is not yet known to be. */
            fake_complete(&desk.fake, 0);
        }
        ended = completed < when;
        begun = desk.disk.command_count;
        blk_cancel_all(desk.dev);
        fake_finish(&desk.fake);
        assert_int_equal(desk.disk.command_count, begun);
        assert_int_equal(req.done, 1);
        if (!ended && req.req.status != 0)
            assert_int_equal(req.req.status, -ECANCELED);
        desk_release(&desk);
    }
}

/* ---- EXTENTS and DISCARD ---------------------------------------------------------------------- */

static void check_data(const struct desk_req *req, uint64_t offset, uint64_t len)
{
    assert_int_equal(req->done, 1);
    assert_int_equal(req->req.status, 0);
    assert_int_equal(req->req.extents->count, 1);
    assert_int_equal(req->req.extents->list[0].offset, offset);
    assert_int_equal(req->req.extents->list[0].len, len);
    assert_int_equal(req->req.extents->list[0].kind, BLK_DATA);
    assert_int_equal(req->req.extents->list[0].depth, 0);
    assert_true(req->req.extents->list[0].host_offset == BLK_NO_OFFSET);
}

/* Refused, or waiting while another one is: all is data. */
static void test_refused_extents(void **state)
{
    struct blk_extent list[3][4];
    struct blk_extents extents[3];
    struct desk_req req[3];
    struct desk desk;

    (void)state;
    start(&desk);
    desk.disk.limits.max_depth = 2;
    desk.disk.refuses = BLK_CAN_EXTENTS;
    fake_disk_set(&desk.disk, 0, SIZE, BLK_ZEROS);
    desk_open(&desk, false);
    for (unsigned i = 0; i < 3; i++) {
        extents[i] = (struct blk_extents){.list = list[i], .capacity = 4};
        desk_prepare(&desk, &req[i], BLK_EXTENTS, 0, 100 + i, NULL, 5000 + i);
        req[i].req.extents = &extents[i];
        blk_submit(desk.dev, &req[i].req);
    }
    fake_finish(&desk.fake);
    for (unsigned i = 0; i < 3; i++)
        check_data(&req[i], 100 + i, 5000 + i);
    assert_int_equal(desk.dev->caps & BLK_CAN_EXTENTS, 0);
    fake_disk_check_commands(&desk.disk, "EXTENTS 100+5000; EXTENTS 101+5001");
    desk_release(&desk);
}

/* Kept to be repeated while the capability goes. */
static void test_kept_extents(void **state)
{
    struct blk_extent list[2];
    struct blk_extents extents = {list, 2, 0};
    struct desk_req req;
    struct desk desk;

    (void)state;
    start(&desk);
    desk_repeat(&desk);
    desk_open(&desk, false);
    desk_prepare(&desk, &req, BLK_EXTENTS, 0, 0, NULL, SIZE);
    req.req.extents = &extents;
    blk_submit(desk.dev, &req.req);
    fake_settle(&desk.fake);
    fake_fail(&desk.fake, 0, EBUSY, BLK_REPEAT, false);
    desk.dev->caps &= ~(unsigned)BLK_CAN_EXTENTS; /* as its driver does */
    desk_until(&desk, &req.done);
    check_data(&req, 0, SIZE);
    fake_disk_check_commands(&desk.disk, "EXTENTS 0+64k");
    desk_release(&desk);
}

/* The caller is told, whatever its pieces were doing at that moment. */
static void test_refused_discard(void **state)
{
    struct desk_req req;
    struct desk desk;

    (void)state;
    for (unsigned depth = 1; depth < 5; depth++) {
        start(&desk);
        desk.disk.limits.max_discard = 16 * KIB;
        desk.disk.limits.max_depth = depth;
        desk.disk.refuses = BLK_CAN_DISCARD;
        desk.disk.refuse_after = 1;
        desk_open(&desk, true);
        assert_int_equal(desk_do(&desk, &req, BLK_DISCARD, 0, 0, NULL, SIZE), -ENOTSUP);
        assert_string_equal(req.req.error.text, "discarding fake:d at offset 0: the fake cannot do "
                                                "that after all");
        assert_int_equal(desk_do(&desk, &req, BLK_DISCARD, 0, 0, NULL, 512), -ENOTSUP);
        desk_release(&desk);
    }
}

/* Kept to be repeated while the capability goes. */
static void test_kept_discard(void **state)
{
    struct desk_req req;
    struct desk desk;

    (void)state;
    start(&desk);
    desk_repeat(&desk);
    desk_open(&desk, true);
    desk_submit(&desk, &req, BLK_DISCARD, 0, 0, NULL, 512);
    fake_settle(&desk.fake);
    fake_fail(&desk.fake, 0, EBUSY, BLK_REPEAT, false);
    desk.dev->caps &= ~(unsigned)BLK_CAN_DISCARD;
    desk_until(&desk, &req.done);
    assert_int_equal(req.req.status, -ENOTSUP);
    assert_string_equal(req.req.error.text,
                        "discarding fake:d at offset 0: its space cannot be freed");
    desk_release(&desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_zero),
        cmocka_unit_test(test_refused_beside_others),
        cmocka_unit_test(test_refusals_in_every_order),
        cmocka_unit_test(test_refusals_and_faults),
        cmocka_unit_test(test_kept_piece),
        cmocka_unit_test(test_refused_and_lost),
        cmocka_unit_test(test_refused_after_a_failure),
        cmocka_unit_test(test_refused_and_cancelled),
        cmocka_unit_test(test_refused_extents),
        cmocka_unit_test(test_kept_extents),
        cmocka_unit_test(test_refused_discard),
        cmocka_unit_test(test_kept_discard),
    };

    return cmocka_run_group_tests_name("refused", tests, NULL, NULL);
}
