/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The iSCSI driver over sessions that the test makes, breaks and answers: what is checked before the
 * first request of a session, what a changed LUN leads to, and what becomes of reservations.
 */
#include "iscsi_world.h"

/* ---- Opening ---------------------------------------------------------------------------------- */

static void test_session_id(void **state)
{
    const uint64_t id = UINT64_C(0x1abcdefffff); /* qualifier ffffh: the first clone's is 0 */
    struct blk_dev *dev = open_lun(), *clone;

    (void)state;
    assert_true(dev->session_id != 0);
    close_lun(dev);
    dev = open_with(true, id, 0);
    assert_int_equal(dev->session_id, id);
    assert_int_equal(world.sessions[0]->login->isid, 0xabcdef);
    assert_int_equal(world.sessions[0]->login->isid_qualifier, 0xffff);
    clone = clone_lun(dev, 3);
    assert_int_equal(world.sessions[1]->login->isid, 0xabcdef);
    assert_int_equal(world.sessions[1]->login->isid_qualifier, 2);
    close_lun(clone);
    close_lun(dev);
}

static void test_stamps(void **state)
{
    struct blk_dev *dev = open_lun(), *clone;

    (void)state;
    assert_int_equal(dev->opened.size, 2048 * 512);
    assert_int_equal(dev->seen.size, 2048 * 512);
    assert_int_equal(dev->seen.mtime_ns, 0);
    world.luns[0].blocks = 4096; /* a clone has the size that the origin had */
    clone = clone_lun(dev, 1);
    assert_int_equal(clone->size, 2048 * 512);
    assert_int_equal(clone->opened.size, 2048 * 512);
    close_lun(clone);
    close_lun(dev);
}

static void test_force_unit_access(void **state)
{
    struct blk_dev *dev = open_lun();

    (void)state;
    request(dev, BLK_READ, 0);
    assert_int_equal(world.luns[0].last_fua, 0);
    request(dev, BLK_READ, BLK_FUA);
    assert_int_equal(world.luns[0].last_fua, 1);
    world.luns[0].can_fua = false;
    assert_int_equal(recheck(dev).code, 0);
    request(dev, BLK_READ, BLK_FUA);
    assert_int_equal(world.luns[0].last_fua, 0);
    close_lun(dev);
}

/* ---- Looking again ---------------------------------------------------------------------------- */

static void test_another_thing(void **state)
{
    static const struct {
        const char *serial, *designator;
        uint32_t block_size;
        bool protected;
        int code;
        const char *text;
    } rows[] = {
        {"two", "one", 512, false, ESTALE,
         "LUN 1 is another one now: serial number \"two\" (t10.one), where serial number \"one\" "
         "(t10.one) was"},
        {"one", "two", 512, false, ESTALE,
         "LUN 1 is another one now: serial number \"one\" (t10.two), where serial number \"one\" "
         "(t10.one) was"},
        {"", "one", 512, false, ESTALE, "LUN 1 is another one now: serial number \"\" (t10.one)"},
        {"one", "one", 4096, false, ESTALE,
         "LUN 1 is another one now: blocks of 4096 bytes, where blocks of 512 were"},
        {"one", "one", 520, false, ENOTSUP,
         "blocks of 520 bytes: only powers of two from 512 to 65536 are supported"},
        {"one", "one", 512, true, EROFS, "LUN 1 is write-protected by the target"},
    };

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
        struct blk_dev *dev;
        struct blk_error error;

        fake_lun_init(&world.luns[0]);
        world.settings.give_up = LOOP_NEVER;
        dev = open_lun();
        if (i % 2 == 1)
            lose_session(0);
        world.luns[0].serial = rows[i / 2].serial;
        world.luns[0].designator = rows[i / 2].designator;
        world.luns[0].block_size = rows[i / 2].block_size;
        world.luns[0].write_protected = rows[i / 2].protected;
        error = recheck(dev);
        check_retry(&error, rows[i / 2].code, BLK_FATAL);
        assert_non_null(strstr(error.text, rows[i / 2].text));
        close_lun(dev);
    }
}

/* What is only read may become write-protected. */
static void test_protected_source(void **state)
{
    struct blk_dev *dev = open_with(false, 0, 0);

    (void)state;
    world.luns[0].write_protected = true;
    assert_int_equal(recheck(dev).code, 0);
    close_lun(dev);
}

static void test_size(void **state)
{
    struct blk_dev *dev = open_lun();

    (void)state;
    world.luns[0].blocks = 4096;
    assert_int_equal(recheck(dev).code, 0);
    assert_int_equal(dev->seen.size, 4096 * 512);
    assert_int_equal(dev->size, 2048 * 512);
    assert_int_equal(dev->opened.size, 2048 * 512);
    assert_int_equal(world.logins, 1); /* on the session that was there */
    close_lun(dev);
}

/* A target that is being set up says the oddest things. */
static void test_may_pass(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct fake_lun *lun = &world.luns[0];
        struct blk_dev *dev;

        fake_lun_init(lun);
        dev = open_lun();
        if (i % 2 == 1)
            lose_session(0);
        lun->absent = i / 2 == 0;
        lun->busy_for_pages = i / 2 == 1;
        lun->state = i / 2 == 2 ? (struct fake_sense){2, 0x3a, 0} : (struct fake_sense){0};
        world.away[0] = i / 2 == 3; /* a live session is not asked to log in again */
        if (i != 6) {
            recheck_waits(dev);
            fake_lun_init(lun);
            world.away[0] = false;
            assert_int_equal(outcome().code, 0);
        }
        world.away[0] = false;
        assert_int_equal(request(dev, BLK_WRITE, 0).status, 0);
        close_lun(dev);
    }
}

/* A page that has changed while the others were being read. */
static void test_change_while_looking(void **state)
{
    struct blk_dev *dev = open_lun();

    (void)state;
    raise_attention(0x1a, 0x2a, 0x09); /* MODE SENSE, when the capacity has been asked */
    world.luns[0].blocks_then = 4096;
    assert_int_equal(recheck(dev).code, 0);
    assert_int_equal(dev->seen.size, 4096 * 512);
    close_lun(dev);
}

/* ---- Lost sessions ---------------------------------------------------------------------------- */

static void test_lost_session(void **state)
{
    struct blk_dev *dev = open_lun();
    uint64_t epoch = request(dev, BLK_WRITE, 0).epoch, id = dev->session_id;
    struct blk_req req;

    (void)state;
    lose_session(0);
    req = request(dev, BLK_WRITE, 0);
    check_retry(&req.error, ECONNRESET, BLK_LOST);
    assert_int_equal(recheck(dev).code, 0);
    assert_int_equal(world.logins, 2);
    assert_int_equal(login_session_id(world.sessions[0]->login), id);
    assert_true(request(dev, BLK_FLUSH, 0).epoch != epoch);
    close_lun(dev);
}

/* Without a volatile cache what was acknowledged is durable, whatever becomes of the session. */
static void test_lost_session_without_cache(void **state)
{
    struct blk_dev *dev;
    struct blk_req req;

    (void)state;
    world.luns[0].write_cache = false;
    dev = open_lun();
    req = request(dev, BLK_WRITE, 0);
    assert_true(req.durable);
    lose_session(0);
    assert_int_equal(recheck(dev).code, 0);
    assert_true(request(dev, BLK_WRITE, 0).durable);
    assert_int_equal(request(dev, BLK_FLUSH, 0).epoch, req.epoch);
    world.luns[0].write_cache = true;
    assert_int_equal(recheck(dev).code, 0);
    assert_false(request(dev, BLK_WRITE, 0).durable);
    close_lun(dev);
}

/* A clone's first session may fail: the middle asks for it again. */
static void test_clone_later(void **state)
{
    struct blk_dev *dev = open_lun(), *clone;

    (void)state;
    world.settings.give_up = LOOP_NEVER;
    world.away[0] = true;
    clone = blk_clone(world.loop, dev, 2, new_task());
    world.open++;
    for (unsigned i = 0; i < 300; i++) {
        if (!loop_turn(world.loop, loop_now(world.loop)))
            loop_advance(world.loop, 50 * LOOP_MSECOND);
    }
    assert_false(wait_done);
    world.away[0] = false;
    assert_int_equal(outcome().code, 0);
    assert_int_equal(clone->session_id, dev->session_id + 2);
    assert_int_equal(request(clone, BLK_WRITE, 0).status, 0);
    close_lun(clone);
    close_lun(dev);
}

static void test_cancel_recovery(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 12; turns++) {
        struct blk_dev *dev;
        bool done;

        world.settings.give_up = LOOP_NEVER;
        dev = open_lun();
        lose_session(0);
        world.away[0] = turns % 2 == 1;
        blk_recheck(dev, new_task());
        for (unsigned i = 0; i < turns / 2; i++)
            loop_turn(world.loop, loop_now(world.loop));
        world.silent = true; /* it hangs, wherever it is */
        loop_turn(world.loop, loop_now(world.loop));
        done = wait_done;
        blk_cancel_all(dev);
        assert_int_equal(outcome().code, done ? 0 : ECANCELED);
        world.silent = world.away[0] = false;
        close_lun(dev);
    }
}

/* ---- Attentions ------------------------------------------------------------------------------- */

static void test_attentions(void **state)
{
    static const struct {
        unsigned opcode;
        unsigned asc, ascq;
        enum blk_retry retry;
        bool ends_epoch;
    } rows[] = {
        {OP_WRITE, 0x29, 0x00, BLK_AGAIN, true},    {OP_FLUSH, 0x29, 0x03, BLK_AGAIN, true},
        {OP_READ, 0x29, 0x04, BLK_AGAIN, true},     {OP_WRITE, 0x29, 0x07, BLK_AGAIN, false},
        {OP_FLUSH, 0x2a, 0x01, BLK_RECHECK, false}, {OP_WRITE, 0x2a, 0x09, BLK_RECHECK, false},
        {OP_WRITE, 0x3f, 0x0e, BLK_RECHECK, false}, {OP_WRITE, 0x2a, 0x05, BLK_AGAIN, false},
        {OP_WRITE, 0x38, 0x07, BLK_AGAIN, false},   {OP_WRITE, 0x38, 0x07, BLK_AGAIN, false},
    };
    struct blk_dev *dev = open_lun();

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        enum blk_op op = rows[i].opcode == OP_WRITE  ? BLK_WRITE
                         : rows[i].opcode == OP_READ ? BLK_READ
                                                     : BLK_FLUSH;
        uint64_t epoch = request(dev, BLK_WRITE, 0).epoch;
        struct blk_req req;

        raise_attention(rows[i].opcode, rows[i].asc, rows[i].ascq);
        req = request(dev, op, 0);
        check_retry(&req.error, EAGAIN, rows[i].retry);
        req = request(dev, BLK_FLUSH, 0);
        assert_int_equal(req.status, 0);
        assert_int_equal(req.epoch != epoch, rows[i].ends_epoch);
        assert_int_equal(world.resets_told, rows[i].ends_epoch);
        world.resets_told = 0;
    }
    assert_int_equal(world.warnings, 1); /* the pool, once */
    close_lun(dev);
}

/* Between 2A/01 and the look at the page nothing is called durable. */
static void test_cache_turned_on(void **state)
{
    struct blk_dev *dev;
    struct blk_req req;

    (void)state;
    world.luns[0].write_cache = false;
    dev = open_lun();
    assert_true(request(dev, BLK_WRITE, 0).durable);
    raise_attention(OP_WRITE, 0x2a, 0x01);
    req = request(dev, BLK_WRITE, 0);
    check_retry(&req.error, EAGAIN, BLK_RECHECK);
    assert_false(request(dev, BLK_WRITE, 0).durable);
    assert_int_equal(recheck(dev).code, 0);
    assert_true(request(dev, BLK_WRITE, 0).durable);
    world.luns[0].log[0] = '\0';
    request(dev, BLK_FLUSH, 0); /* for the one that was not */
    fake_lun_check_log(&world.luns[0], "flush");
    request(dev, BLK_FLUSH, 0);
    fake_lun_check_log(&world.luns[0], "");
    close_lun(dev);
}

/* An attention that only the look sees ends the epoch just so. */
static void test_reset_seen_while_looking(void **state)
{
    struct blk_dev *dev = open_lun();
    uint64_t epoch = request(dev, BLK_WRITE, 0).epoch;

    (void)state;
    raise_attention(OP_TUR, 0x29, 0x01);
    assert_int_equal(recheck(dev).code, 0);
    assert_true(request(dev, BLK_FLUSH, 0).epoch != epoch);
    close_lun(dev);
}

/* ---- Portals ---------------------------------------------------------------------------------- */

static void test_other_portal(void **state)
{
    struct blk_dev *dev = open_lun();

    (void)state;
    assert_string_equal(world.sessions[0]->portal, "portal A");
    lose_session(0);
    world.away[0] = true;
    assert_int_equal(recheck(dev).code, 0);
    assert_string_equal(world.sessions[0]->portal, "portal B");
    request(dev, BLK_WRITE, 0);
    fake_lun_check_log(&world.luns[0], "1:reset 1:write");
    /* it stays there, and needs no further reset */
    world.away[0] = false;
    lose_session(0);
    assert_int_equal(recheck(dev).code, 0);
    assert_string_equal(world.sessions[0]->portal, "portal B");
    fake_lun_check_log(&world.luns[0], "");
    close_lun(dev);
}

static void test_other_portal_of_a_source(void **state)
{
    struct blk_dev *dev = open_with(false, 0, 0);

    (void)state;
    lose_session(0);
    world.away[0] = true;
    assert_int_equal(recheck(dev).code, 0);
    fake_lun_check_log(&world.luns[0], "");
    close_lun(dev);
}

static void test_reset_refused(void **state)
{
    struct blk_dev *dev = open_lun();

    (void)state;
    lose_session(0);
    world.away[0] = world.reset_refused = true;
    recheck_waits(dev);
    world.luns[0].log[0] = '\0';
    world.away[0] = false; /* the old portal is as good as ever */
    assert_int_equal(outcome().code, 0);
    assert_string_equal(world.sessions[0]->portal, "portal A");
    fake_lun_check_log(&world.luns[0], "");
    close_lun(dev);
}

/* Another LUN behind the other portal is not reset. */
static void test_other_portal_other_lun(void **state)
{
    struct blk_dev *dev = open_lun();
    struct blk_error error;

    (void)state;
    world.behind[1] = &world.luns[1];
    world.luns[1].serial = "two";
    lose_session(0);
    world.away[0] = true;
    world.settings.give_up = LOOP_NEVER;
    error = recheck(dev);
    check_retry(&error, ESTALE, BLK_FATAL);
    fake_lun_check_log(&world.luns[1], "");
    close_lun(dev);
}

/* Nobody knows which portal the session had that is replaced. */
static void test_resumed(void **state)
{
    struct blk_dev *dev = open_with(true, 77, 0), *clone = clone_lun(dev, 1);

    (void)state;
    fake_lun_check_log(&world.luns[0], "0:reset");
    close_lun(clone);
    close_lun(dev);
}

static void test_closed_port(void **state)
{
    struct blk_dev *dev = open_lun();
    struct blk_req req;

    (void)state;
    world.luns[0].attention[0] = (struct fake_sense){2, 0x04, 0x0b};
    req = request(dev, BLK_WRITE, 0);
    check_retry(&req.error, EIO, BLK_LOST);
    assert_int_equal(recheck(dev).code, 0);
    assert_string_equal(world.sessions[0]->portal, "portal B");
    close_lun(dev);
}

/* Found out when the session comes up: the next portal is asked at once. */
static void test_closed_port_at_login(void **state)
{
    struct blk_dev *dev;

    (void)state;
    world.behind[1] = &world.luns[1];
    world.luns[0].state = (struct fake_sense){2, 0x04, 0x0c};
    dev = open_lun();
    assert_string_equal(world.sessions[0]->portal, "portal B");
    close_lun(dev);
}

static void test_closed_port_alone(void **state)
{
    struct blk_dev *dev = open_lun();
    struct blk_req req;

    (void)state;
    world.luns[0].attention[0] = (struct fake_sense){2, 0x04, 0x0b};
    req = request(dev, BLK_WRITE, 0);
    check_retry(&req.error, EIO, BLK_FATAL);
    assert_int_equal(world.sessions[0]->state, SESSION_UP);
    close_lun(dev);
}

/* ---- Reservations ----------------------------------------------------------------------------- */

#define OURS     UINT64_C(0xa1)
#define FOREIGN  UINT64_C(0xb1)
#define STRANGER 15 /* a nexus of another initiator */

static void reserved_by_stranger(unsigned type)
{
    world.luns[0].keys[STRANGER] = FOREIGN;
    world.luns[0].type = type;
    world.luns[0].holder = STRANGER;
}

static void check_free(void)
{
    assert_int_equal(world.luns[0].type, 0);
    for (unsigned i = 0; i < FAKE_NEXUSES; i++)
        assert_int_equal(world.luns[0].keys[i], 0);
}

static void test_reserve(void **state)
{
    struct blk_dev *dev = open_lun(), *clone;

    (void)state;
    assert_int_equal(reserve(dev, OURS, 0).code, 0);
    assert_int_equal(world.luns[0].type, 7);
    clone = clone_lun(dev, 1);
    assert_int_equal(world.luns[0].keys[1], OURS);
    assert_int_equal(request(clone, BLK_WRITE, 0).status, 0);
    close_lun(clone);
    assert_int_equal(world.luns[0].type, 7);
    close_lun(dev);
    fake_lun_check_log(&world.luns[0], "0:register-ignore 0:reserve 1:register-ignore 1:write "
                                       "1:register 0:release 0:register");
    check_free();
    assert_int_equal(world.warnings, 0);
}

static void test_reserve_registrants_only(void **state)
{
    struct blk_dev *dev, *clone;

    (void)state;
    for (unsigned told = 0; told < 2; told++) {
        world.luns[0].no_all_registrants = true;
        world.luns[0].persists = world.luns[0].no_type_mask = told == 0;
        world.luns[0].log[0] = '\0';
        dev = open_lun();
        assert_int_equal(reserve(dev, OURS, 0).code, 0);
        fake_lun_check_log(&world.luns[0], told ? "0:register-ignore 0:reserve"
                                                : "0:register-ignore+aptpl 0:reserve 0:reserve");
        assert_int_equal(world.luns[0].type, 5);
        clone = clone_lun(dev, 1);
        assert_int_equal(request(clone, BLK_WRITE, 0).status, 0);
        assert_int_equal(recheck(dev).code, 0);
        assert_int_equal(recheck(clone).code, 0);
        close_lun(clone);
        close_lun(dev);
        check_free();
        memset(world.nexuses, 0, sizeof(world.nexuses));
    }
}

static void test_no_reservations(void **state)
{
    struct blk_dev *dev = open_lun();
    struct blk_error error;

    (void)state;
    world.luns[0].no_reservations = true;
    error = reserve(dev, OURS, 0);
    check_retry(&error, ENOTSUP, BLK_FATAL);
    close_lun(dev);
    fake_lun_check_log(&world.luns[0], "");
}

static void test_reserved_already(void **state)
{
    static const char *const texts[] = {
        "reserved already under key 00000000000000b1 (Write Exclusive - All Registrants) by "
        "iqn.test:15; --break-reservation 00000000000000b1 would take it",
        "reserved already under key 00000000000000b1 (Write Exclusive); "
        "--break-reservation 00000000000000b1 would take it",
    };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct blk_dev *dev;
        struct blk_error error;

        reserved_by_stranger(i == 0 ? 7 : 1);
        world.luns[0].no_full_status = i == 1;
        dev = open_lun();
        error = reserve(dev, OURS, 0xc1); /* some other one may be broken */
        check_retry(&error, EBUSY, BLK_FATAL);
        assert_non_null(strstr(error.text, texts[i]));
        close_lun(dev);
        fake_lun_check_log(&world.luns[0], ""); /* nothing was tried */
    }
}

static void test_break(void **state)
{
    static const unsigned types[] = {1, 5, 7, 3};

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct blk_dev *dev;

        fake_lun_init(&world.luns[0]);
        memset(world.nexuses, 0, sizeof(world.nexuses));
        reserved_by_stranger(types[i / 2]);
        world.luns[0].no_preempt_abort = i % 2 == 1;
        dev = open_lun();
        assert_int_equal(reserve(dev, OURS, FOREIGN).code, 0);
        assert_int_equal(world.luns[0].keys[STRANGER], 0);
        assert_int_equal(world.luns[0].type, 7);
        close_lun(dev);
        check_free();
        assert_non_null(strstr(world.luns[0].log, "0:preempt-abort"));
    }
}

/* One of two registrants may be broken, the other may not. */
static void test_break_one_of_two(void **state)
{
    struct blk_dev *dev;
    struct blk_error error;

    (void)state;
    reserved_by_stranger(7);
    world.luns[0].keys[14] = 0xd1;
    dev = open_lun();
    error = reserve(dev, OURS, FOREIGN);
    check_retry(&error, EBUSY, BLK_FATAL);
    assert_non_null(strstr(error.text, "key 00000000000000d1"));
    close_lun(dev);
    assert_int_equal(world.luns[0].keys[STRANGER], FOREIGN);
}

static void test_break_in_vain(void **state)
{
    struct blk_dev *dev;
    struct blk_error error;

    (void)state;
    reserved_by_stranger(7);
    world.luns[0].deaf_to_preempt = true;
    dev = open_lun();
    error = reserve(dev, OURS, FOREIGN);
    check_retry(&error, EBUSY, BLK_FATAL);
    assert_int_equal(world.luns[0].keys[0], 0); /* unregistered, or we would hold it, too */
    world.luns[0].keys[STRANGER] = OURS; /* ours, but of a type that lets only one session write */
    world.luns[0].type = 1;
    error = reserve(dev, OURS, 0);
    check_retry(&error, EBUSY, BLK_FATAL);
    close_lun(dev);
}

/* Of a job that was killed: on its own nexus, on one of its clones, on one that is no more. */
static void test_take_over(void **state)
{
    static const struct {
        unsigned type, holder;
        uint64_t keys[4];
    } rows[] = {
        {7, 0, {OURS, OURS}},       {5, 0, {OURS}},          {5, 3, {0, 0, 0, OURS}},
        {7, 3, {0, 0, OURS, OURS}}, {1, 3, {0, 0, 0, OURS}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct blk_dev *dev;

        fake_lun_init(&world.luns[0]);
        memset(world.nexuses, 0, sizeof(world.nexuses));
        memcpy(world.luns[0].keys, rows[i].keys, sizeof(rows[i].keys));
        world.luns[0].type = rows[i].type;
        world.luns[0].holder = rows[i].holder;
        world.luns[0].write_cache = false;
        dev = open_lun();
        assert_int_equal(reserve(dev, OURS, 0).code, 0);
        /* now the caching page can be read, too */
        assert_true(request(dev, BLK_WRITE, 0).durable);
        close_lun(dev);
        check_free();
    }
    assert_int_equal(world.warnings, 0);
}

static void test_others_registered(void **state)
{
    struct blk_dev *dev = open_lun();

    (void)state;
    world.luns[0].keys[STRANGER] = FOREIGN;
    assert_int_equal(reserve(dev, OURS, 0).code, 0);
    assert_int_equal(world.warnings, 1);
    close_lun(dev);
}

/* tgt forgets a session's registration with the session; SPC-4 does not. */
static void test_renewed(void **state)
{
    struct blk_dev *dev = open_lun(), *clone;

    (void)state;
    assert_int_equal(reserve(dev, OURS, 0).code, 0);
    clone = clone_lun(dev, 1);
    lose_session(1);
    world.luns[0].log[0] = '\0';
    world.luns[0].keys[1] = 0;
    assert_int_equal(recheck(clone).code, 0);
    assert_int_equal(request(clone, BLK_WRITE, 0).status, 0);
    fake_lun_check_log(&world.luns[0], "1:register-ignore 1:write");
    close_lun(clone);
    close_lun(dev);
    check_free();
}

/* Who was shut out does not register again. */
static void test_shut_out(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        struct blk_dev *dev;
        struct blk_error error;

        fake_lun_init(&world.luns[0]);
        memset(world.nexuses, 0, sizeof(world.nexuses));
        world.settings.give_up = LOOP_NEVER;
        dev = open_lun();
        assert_int_equal(reserve(dev, OURS, 0).code, 0);
        if (i % 2 == 1)
            lose_session(0);
        world.luns[0].log[0] = '\0';
        world.luns[0].keys[0] = 0;
        world.luns[0].type = 0;
        if (i / 2 > 0)
            reserved_by_stranger(i / 2 == 1 ? 7 : 5);
        error = recheck(dev);
        check_retry(&error, EBUSY, BLK_FATAL);
        assert_non_null(strstr(error.text, i / 2 > 0 ? "key 00000000000000b1" : "is gone"));
        close_lun(dev);
        assert_int_equal(world.luns[0].keys[STRANGER], i / 2 > 0 ? FOREIGN : 0);
        assert_int_equal(world.luns[0].type, i / 2 == 0 ? 0 : i / 2 == 1 ? 7 : 5);
        assert_null(strstr(world.luns[0].log, "register-ignore"));
    }
}

static void test_reservation_attention(void **state)
{
    struct blk_dev *dev = open_lun();
    struct blk_req req;

    (void)state;
    assert_int_equal(reserve(dev, OURS, 0).code, 0);
    raise_attention(OP_WRITE, 0x2a, 0x03);
    req = request(dev, BLK_WRITE, 0);
    check_retry(&req.error, EBUSY, BLK_FATAL);
    close_lun(dev);
}

/* The session is gone when the device is closed: one attempt, and a word if it fails. */
static void test_release_without_session(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct blk_dev *dev;

        fake_lun_init(&world.luns[0]);
        memset(world.nexuses, 0, sizeof(world.nexuses));
        dev = open_lun();
        assert_int_equal(reserve(dev, OURS, 0).code, 0);
        if (i / 2 == 0)
            lose_session(0);
        else
            blk_cancel_all(dev);
        if (i % 2 == 1) /* also when the session is down already */
            loop_turn(world.loop, loop_now(world.loop));
        if (i / 2 == 1) { /* a target that takes a new session for another initiator's */
            world.luns[0].keys[0] = 0;
            world.luns[0].keys[7] = OURS;
        }
        close_lun(dev);
        check_free();
        assert_int_equal(world.warnings, 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct blk_dev *dev;

        fake_lun_init(&world.luns[0]);
        memset(world.nexuses, 0, sizeof(world.nexuses));
        world.warnings = 0;
        dev = open_lun();
        assert_int_equal(reserve(dev, OURS, 0).code, 0);
        world.away[0] = i == 0;
        world.silent = i == 1;
        lose_session(0);
        close_lun(dev);
        world.away[0] = world.silent = false;
        assert_int_equal(world.warnings, 1);
        assert_non_null(strstr(world.warning, "key 00000000000000a1 stays registered"));
    }
}

/* By another portal we are another nexus; what the old one registered goes with the release. */
static void test_reserved_other_portal(void **state)
{
    struct blk_dev *dev = open_lun();

    (void)state;
    assert_int_equal(reserve(dev, OURS, 0).code, 0);
    lose_session(0);
    world.away[0] = true;
    assert_int_equal(recheck(dev).code, 0);
    assert_int_equal(request(dev, BLK_WRITE, 0).status, 0);
    fake_lun_check_log(&world.luns[0],
                       "0:register-ignore 0:reserve 1:reset 1:register-ignore 1:write");
    close_lun(dev);
    fake_lun_check_log(&world.luns[0], "1:preempt 1:release 1:register");
    check_free();
}

/* The session is lost in the middle of taking it: whatever was registered goes. */
static void test_lost_while_reserving(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 8; turns++) {
        struct blk_dev *dev;
        struct blk_reservation how = {OURS, 0};
        int code;

        fake_lun_init(&world.luns[0]);
        memset(world.nexuses, 0, sizeof(world.nexuses));
        dev = open_lun();
        blk_reserve(dev, &how, new_task());
        for (unsigned i = 0; i < turns; i++)
            loop_turn(world.loop, loop_now(world.loop));
        lose_session(0);
        code = outcome().code;
        assert_true(code == 0 || code == ECONNRESET);
        close_lun(dev);
        check_free();
    }
}

#define TEST(name)     cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
#define TEST_TWO(name) cmocka_unit_test_setup_teardown(test_##name, setup_two, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(session_id),
        TEST(stamps),
        TEST(force_unit_access),
        TEST(another_thing),
        TEST(protected_source),
        TEST(size),
        TEST(may_pass),
        TEST(change_while_looking),
        TEST(lost_session),
        TEST(lost_session_without_cache),
        TEST(clone_later),
        TEST(cancel_recovery),
        TEST(attentions),
        TEST(cache_turned_on),
        TEST(reset_seen_while_looking),
        TEST_TWO(other_portal),
        TEST_TWO(other_portal_of_a_source),
        TEST_TWO(reset_refused),
        TEST_TWO(other_portal_other_lun),
        TEST_TWO(resumed),
        TEST_TWO(closed_port),
        TEST_TWO(closed_port_at_login),
        TEST(closed_port_alone),
        TEST(reserve),
        TEST(reserve_registrants_only),
        TEST(no_reservations),
        TEST(reserved_already),
        TEST(break),
        TEST(break_one_of_two),
        TEST(break_in_vain),
        TEST(take_over),
        TEST(others_registered),
        TEST(renewed),
        TEST(shut_out),
        TEST(reservation_attention),
        TEST(release_without_session),
        TEST_TWO(reserved_other_portal),
        TEST(lost_while_reserving),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
