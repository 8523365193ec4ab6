/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zeros, freeing and extents through the iSCSI driver: which commands go out, and what is left when one
 * is refused, or when the session is lost with it, or the LUN comes back as something else.
 */
#include "iscsi_world.h"

#include <lunferry/units.h>

#define OP_WRITE_SAME 0x93

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define ALL (BLK_CAN_ZERO | BLK_CAN_UNMAP | BLK_CAN_DISCARD | BLK_CAN_EXTENTS)

#define ROOM 4

static void make_thin(struct fake_lun *lun)
{
    lun->thin = lun->capacity_lbprz = true;
    lun->limits = (struct fake_limits){
        .listed = true, .max_unmap = UINT32_MAX, .max_descriptors = 4, .max_same = 0xffffffff};
    lun->provisioning = (struct fake_provisioning){true, 0xc4, 2}; /* LBPU, LBPWS; zeros */
}

static struct blk_extent extents_list[ROOM];
static struct blk_extents extents;

static struct blk_req ask(struct blk_dev *dev, enum blk_op op, unsigned flags, uint64_t lba,
                          uint64_t blocks)
{
    bool done = false;
    struct blk_req req = {.op = op,
                          .flags = flags,
                          .offset = lba * 512,
                          .len = blocks * 512,
                          .extents = &extents,
                          .done = req_done,
                          .opaque = &done};

    extents = (struct blk_extents){.list = extents_list, .capacity = ROOM};
    blk_submit(dev, &req);
    wait_for(&done);
    return req;
}

/* A LUN that nobody has used yet. */
static void new_lun(struct fake_lun *lun)
{
    fake_lun_init(lun);
    memset(world.nexuses, 0, sizeof(world.nexuses));
}

/* What comes first; what the middle makes of a refusal follows. */
static void check_begins(const char *expected)
{
    struct fake_lun *lun = &world.luns[0];

    if (strncmp(lun->log, expected, strlen(expected)) != 0)
        fail_msg("%s: not \"%s\"", lun->log, expected);
    lun->log[0] = '\0';
}

static void test_commands(void **state)
{
    struct fake_lun *lun = &world.luns[0];
    struct blk_dev *dev;

    (void)state;
    make_thin(lun);
    lun->write_cache = false;
    dev = open_lun();
    assert_int_equal(dev->caps & ALL, ALL);
    assert_int_equal(ask(dev, BLK_ZERO, BLK_MAY_UNMAP, 8, 16).status, 0);
    fake_lun_check_log(lun, "0:same-unmap@8+16");
    assert_int_equal(ask(dev, BLK_ZERO, 0, 2047, 1).status, 0);
    fake_lun_check_log(lun, "0:same@2047+1");
    assert_int_equal(ask(dev, BLK_DISCARD, 0, 0, 512).status, 0);
    fake_lun_check_log(lun, "0:unmap@0+512");
    assert_int_equal(ask(dev, BLK_ZERO, 0, 8, 0).status, -EINVAL);
    fake_lun_check_log(lun, "");
    close_lun(dev);
}

/* A pattern, or nobody knows what, is no zeros; DISCARD may leave it. */
static void test_no_zeros(void **state)
{
    static const unsigned char bits[] = {0xc8, 0xc0};

    (void)state;
    for (size_t i = 0; i < COUNT(bits); i++) {
        struct fake_lun *lun = &world.luns[0];
        struct blk_dev *dev;

        new_lun(lun);
        make_thin(lun);
        lun->provisioning.bits = bits[i];
        dev = open_lun();
        assert_int_equal(dev->caps & ALL, ALL & ~(unsigned)BLK_CAN_UNMAP);
        ask(dev, BLK_ZERO, BLK_MAY_UNMAP, 8, 16);
        fake_lun_check_log(lun, "0:same@8+16");
        ask(dev, BLK_DISCARD, 0, 8, 16);
        fake_lun_check_log(lun, "0:unmap@8+16");
        memcpy(lun->status,
               "\0\0\0\x14\0\0\0\0"
               "\0\0\0\0\0\0\0\0"
               "\0\0\x08\0\x01\0\0\0",
               24);
        lun->status_len = 24;
        ask(dev, BLK_EXTENTS, 0, 0, 2048);
        assert_int_equal(extents_list[0].kind, BLK_DATA);
        close_lun(dev);
    }
}

static void test_pages(void **state)
{
    struct fake_lun *lun = &world.luns[0];
    struct blk_dev *dev;

    (void)state;
    make_thin(lun);
    lun->limits.granularity = 64;
    lun->limits.alignment = 0x80000003;
    lun->limits.max_same = 128;
    lun->limits.max_unmap = 256;
    dev = open_lun();
    assert_int_equal(dev->limits.unmap_granule, 64 * 512);
    assert_int_equal(dev->limits.unmap_phase, 3 * 512);
    assert_int_equal(dev->limits.max_zero, 128 * 512);
    assert_int_equal(dev->limits.max_discard, 256 * 512);
    close_lun(dev);
    lun->limits.alignment = 3; /* without UGAVALID */
    dev = open_lun();
    assert_int_equal(dev->limits.unmap_granule, 64 * 512);
    assert_int_equal(dev->limits.unmap_phase, 0);
    close_lun(dev);
    lun->limits.max_same = UINT64_C(1) << 33; /* 0 in 32 bits */
    dev = open_lun();
    assert_int_equal(dev->limits.max_zero, 256 * MIB);
    close_lun(dev);
    lun->provisioning.listed = false; /* LBPRZ of READ CAPACITY(16), but no command */
    dev = open_lun();
    assert_int_equal(dev->caps & ALL, BLK_CAN_ZERO | BLK_CAN_EXTENTS);
    close_lun(dev);
}

/* Asked only where the page with the limits is; 1: no, 3: as the standard says, 5: otherwise. */
static void test_supported_codes(void **state)
{
    static const struct {
        unsigned char support;
        bool listed, zero;
    } rows[] = {
        {0, true, false}, {1, true, false}, {3, true, true}, {5, true, false}, {3, false, false}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct fake_lun *lun = &world.luns[0];
        struct blk_dev *dev;

        new_lun(lun);
        lun->same_support = rows[i].support;
        lun->limits.listed = rows[i].listed;
        dev = open_lun();
        assert_int_equal((dev->caps & BLK_CAN_ZERO) != 0, rows[i].zero);
        close_lun(dev);
    }
}

static void test_durable(void **state)
{
    (void)state;
    for (unsigned cache = 0; cache < 2; cache++) {
        struct fake_lun *lun = &world.luns[0];
        struct blk_dev *dev;
        struct blk_req req;

        new_lun(lun);
        make_thin(lun);
        lun->write_cache = cache == 1;
        dev = open_lun();
        req = ask(dev, BLK_ZERO, BLK_MAY_UNMAP, 0, 8);
        assert_int_equal(req.durable, cache == 0);
        assert_true(req.epoch != BLK_NO_EPOCH);
        assert_int_equal(request(dev, BLK_FLUSH, 0).epoch, req.epoch);
        fake_lun_check_log(lun, cache == 1 ? "0:same-unmap@0+8 flush" : "0:same-unmap@0+8");
        close_lun(dev);
    }
}

/* Each refusal leaves what is left. */
static void test_refused(void **state)
{
    const struct fake_sense invalid = {5, 0x24, 0}, unknown = {5, 0x20, 0};
    struct fake_lun *lun = &world.luns[0];
    struct blk_dev *dev;

    (void)state;
    make_thin(lun);
    dev = open_lun();
    lun->refuses_same_unmap = invalid;
    ask(dev, BLK_ZERO, BLK_MAY_UNMAP, 0, 8);
    check_begins("0:same-unmap@0+8");
    assert_int_equal(dev->caps & ALL, BLK_CAN_ZERO | BLK_CAN_DISCARD | BLK_CAN_EXTENTS);
    assert_int_equal(dev->limits.max_zero, 32 * MIB);
    assert_int_equal(ask(dev, BLK_ZERO, BLK_MAY_UNMAP, 0, 8).status, 0);
    fake_lun_check_log(lun, "0:same@0+8");
    lun->refuses_same = unknown;
    ask(dev, BLK_ZERO, 0, 0, 8);
    check_begins("0:same@0+8");
    assert_int_equal(dev->caps & ALL, BLK_CAN_DISCARD | BLK_CAN_EXTENTS);

    lun->refuses_unmap = (struct fake_sense){5, 0x26, 0};
    assert_int_equal(ask(dev, BLK_DISCARD, 0, 0, 8).status, -ENOTSUP);
    assert_int_equal(dev->caps & ALL, BLK_CAN_EXTENTS);
    lun->log[0] = '\0';
    lun->refuses_status = invalid;
    ask(dev, BLK_EXTENTS, 0, 0, 8);
    fake_lun_check_log(lun, "0:status@0+4");
    assert_int_equal(dev->caps & ALL, 0);
    close_lun(dev);
}

/* WRITE SAME with UNMAP takes UNMAP's place. */
static void test_unmap_refused(void **state)
{
    struct fake_lun *lun = &world.luns[0];
    struct blk_dev *dev;

    (void)state;
    make_thin(lun);
    lun->refuses_unmap = (struct fake_sense){5, 0x20, 0};
    dev = open_lun();
    ask(dev, BLK_DISCARD, 0, 0, 8);
    check_begins("0:unmap@0+8");
    assert_int_equal(dev->caps & ALL, ALL);
    lun->log[0] = '\0';
    assert_int_equal(ask(dev, BLK_DISCARD, 0, 0, 8).status, 0);
    fake_lun_check_log(lun, "0:same-unmap@0+8");
    close_lun(dev);
}

/* What is no refusal stays an error, and the command stays in use. */
static void test_not_refused(void **state)
{
    static const struct {
        struct fake_sense sense;
        int code;
    } rows[] = {
        {{7, 0x27, 7}, ENOSPC}, {{7, 0x27, 0}, EROFS}, {{5, 0x21, 0}, ERANGE}, {{3, 0x0c, 0}, EIO}};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct fake_lun *lun = &world.luns[0];
        struct blk_dev *dev;

        new_lun(lun);
        make_thin(lun);
        lun->refuses_same_unmap = rows[i].sense;
        dev = open_lun();
        assert_int_equal(ask(dev, BLK_ZERO, BLK_MAY_UNMAP, 0, 8).status, -rows[i].code);
        assert_int_equal(dev->caps & ALL, ALL);
        close_lun(dev);
    }
}

/* Nobody knows what was done. */
static void test_residual(void **state)
{
    struct fake_lun *lun = &world.luns[0];
    struct blk_dev *dev;

    (void)state;
    make_thin(lun);
    lun->same_residual = 512;
    dev = open_lun();
    ask(dev, BLK_ZERO, BLK_MAY_UNMAP, 0, 8);
    check_begins("0:same-unmap@0+8");
    assert_int_equal(dev->caps & BLK_CAN_UNMAP, 0);
    close_lun(dev);
}

static void test_dropped(void **state)
{
    struct fake_lun *lun = &world.luns[0];
    struct blk_dev *dev;

    (void)state;
    make_thin(lun);
    world.settings.give_up = LOOP_NEVER;
    world.drops_at = OP_WRITE_SAME;
    world.drops = 2;
    dev = open_lun();
    assert_int_equal(ask(dev, BLK_ZERO, BLK_MAY_UNMAP, 0, 8).status, 0);
    assert_int_equal(world.drops, 0);
    fake_lun_check_log(lun, "0:same@0+8");
    assert_int_equal(world.warnings, 1);
    assert_string_equal(
        world.warning,
        "the session was lost at WRITE SAME with UNMAP, twice: LUN 1 is not sent it any more");
    assert_int_equal(dev->caps & ALL, ALL & ~(unsigned)BLK_CAN_UNMAP);
    /* it works, so that a session which is lost with it is no sign */
    world.drops = 3;
    assert_int_equal(ask(dev, BLK_ZERO, 0, 0, 8).status, 0);
    fake_lun_check_log(lun, "0:same@0+8");
    assert_int_equal(world.warnings, 1);
    close_lun(dev);
}

static void test_dropped_always(void **state)
{
    struct fake_lun *lun = &world.luns[0];
    struct blk_dev *dev;

    (void)state;
    make_thin(lun);
    world.settings.give_up = LOOP_NEVER;
    world.drops_at = OP_WRITE_SAME;
    world.drops = 1000;
    dev = open_lun();
    ask(dev, BLK_ZERO, BLK_MAY_UNMAP, 0, 8);
    assert_int_equal(world.drops, 1000 - 4);
    assert_int_equal(world.warnings, 2);
    assert_int_equal(dev->caps & ALL, BLK_CAN_DISCARD | BLK_CAN_EXTENTS);
    close_lun(dev);
}

/* A LUN that comes back with less has less from then on; with more, it has no more. */
static void test_other_provisioning(void **state)
{
    struct fake_lun *lun = &world.luns[0];
    struct blk_dev *dev, *clone;

    (void)state;
    world.settings.give_up = LOOP_NEVER;
    make_thin(lun);
    dev = open_lun();
    lun->provisioning.bits = 0xc8; /* a pattern */
    lose_session(0);
    assert_int_equal(recheck(dev).code, 0);
    assert_int_equal(dev->caps & ALL, ALL & ~(unsigned)BLK_CAN_UNMAP);
    lun->thin = false;
    assert_int_equal(recheck(dev).code, 0);
    assert_int_equal(dev->caps & ALL, BLK_CAN_ZERO);
    make_thin(lun);
    assert_int_equal(recheck(dev).code, 0);
    assert_int_equal(dev->caps & ALL, BLK_CAN_ZERO);
    /* each clone finds out for itself */
    clone = clone_lun(dev, 1);
    assert_int_equal(clone->caps & ALL, ALL);
    lun->refuses_same_unmap = (struct fake_sense){5, 0x24, 0};
    ask(clone, BLK_ZERO, BLK_MAY_UNMAP, 0, 8);
    assert_int_equal(clone->caps & BLK_CAN_UNMAP, 0);
    lose_session(1);
    assert_int_equal(recheck(clone).code, 0);
    assert_int_equal(clone->caps & BLK_CAN_UNMAP, 0);
    close_lun(clone);
    close_lun(dev);
}

static void test_extents(void **state)
{
    /* LBA, blocks, status */
    static const unsigned list[][3] = {{0, 100, 0}, {100, 100, 1}, {200, 1, 2}};
    struct fake_lun *lun = &world.luns[0];
    struct blk_dev *dev;

    (void)state;
    make_thin(lun);
    lun->status_len = 8 + 16 * COUNT(list);
    scsi_set_uint32(lun->status, (uint32_t)lun->status_len - 4);
    for (size_t i = 0; i < COUNT(list); i++) {
        scsi_set_uint32(lun->status + 12 + 16 * i, list[i][0]);
        scsi_set_uint32(lun->status + 16 + 16 * i, list[i][1]);
        lun->status[20 + 16 * i] = (unsigned char)list[i][2];
    }
    dev = open_lun();
    assert_int_equal(ask(dev, BLK_EXTENTS, 0, 50, 1998).status, 0);
    fake_lun_check_log(lun, "0:status@50+4"); /* room for as many as the caller has */
    assert_int_equal(extents.count, 2);
    assert_int_equal(extents_list[0].offset, 50 * 512);
    assert_int_equal(extents_list[0].len, 50 * 512);
    assert_int_equal(extents_list[0].kind, BLK_DATA);
    assert_int_equal(extents_list[1].len, 101 * 512);
    assert_int_equal(extents_list[1].kind, BLK_ZEROS);
    /* a recovered error brings sense data, which is no answer */
    lun->refuses_status = (struct fake_sense){1, 0, 0};
    assert_int_equal(ask(dev, BLK_EXTENTS, 0, 0, 2048).status, 0);
    assert_int_equal(extents.count, 1);
    assert_int_equal(extents_list[0].len, 2048 * 512);
    assert_int_equal(extents_list[0].kind, BLK_DATA);
    close_lun(dev);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(commands), TEST(no_zeros), TEST(pages),          TEST(supported_codes),
        TEST(durable),  TEST(refused),  TEST(unmap_refused),  TEST(not_refused),
        TEST(residual), TEST(dropped),  TEST(dropped_always), TEST(other_provisioning),
        TEST(extents),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
