/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tasks and openings over answers that are no success, and over lost sessions. */
#include "desk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define MS           LOOP_MSECOND
#define SECOND       LOOP_SECOND
#define SAYS_NO      "the fake says no"
#define HUNG_UP      "the fake has hung up"

static const enum blk_retry kinds[] = {BLK_AGAIN, BLK_REPEAT, BLK_RECHECK, BLK_LOST};

/* ---- Tasks ------------------------------------------------------------------------------------ */

enum chore { RESIZE, FINISH, RESERVE, CHORES };

static void start_chore(struct desk *desk, enum chore chore, struct desk_task *task)
{
    static const struct blk_reservation how = {.key = 77};

    if (chore == RESIZE)
        blk_resize(desk->dev, 8192, desk_task(task));
    else if (chore == FINISH)
        blk_finish(desk->dev, desk_task(task));
    else
        blk_reserve(desk->dev, &how, desk_task(task));
}

static void init_full(struct desk *desk, uint64_t size)
{
    desk_init(desk, size);
    desk_repeat(desk);
    fake_end_disk(&desk->end, &desk->disk, "full", "d");
    desk_open(desk, true);
}

static void check_chore(const struct desk *desk, enum chore chore, unsigned times)
{
    if (chore == RESIZE)
        assert_int_equal(desk->disk.size, 8192);
    else if (chore == FINISH)
        assert_int_equal(desk->disk.finished, times);
    else
        assert_int_equal(desk->disk.reserved, 77);
}

static void test_tasks(void **state)
{
    (void)state;
    for (int chore = 0; chore < CHORES; chore++) {
        for (size_t kind = 0; kind < 2 * COUNT(kinds); kind++) {
            struct desk_task task;
            struct desk desk;

            init_full(&desk, chore == RESIZE ? 0 : 4096);
            start_chore(&desk, (enum chore)chore, &task);
            fake_fail(&desk.fake, 0, EIO, kinds[kind / 2], kind % 2);
            assert_int_equal(task.done, 0);
            desk_until(&desk, &task.done);
            if (task.task.status != 0)
                fail_msg("%s", task.task.error.text);
            check_chore(&desk, (enum chore)chore, 1 + kind % 2);
            assert_int_equal(desk.dev->size, desk.disk.size);
            desk_release(&desk);
        }
    }
}

/* A task that comes while the session is away waits. */
static void test_tasks_while_away(void **state)
{
    (void)state;
    for (int chore = 0; chore < CHORES; chore++) {
        unsigned char buf[512];
        struct desk_task task;
        struct desk_req req;
        struct desk desk;

        init_full(&desk, 4096);
        desk_submit(&desk, &req, BLK_READ, 0, 0, buf, sizeof(buf));
        fake_settle(&desk.fake);
        fake_disk_lose(&desk.disk, false);
        desk_one(&desk);
        start_chore(&desk, (enum chore)chore, &task);
        desk_check_pending(&desk, "r");
        desk_until(&desk, &task.done);
        assert_int_equal(task.task.status, 0);
        assert_int_equal(req.done, 1);
        check_chore(&desk, (enum chore)chore, 1);
        desk_release(&desk);
    }
}

static void test_tasks_that_fail(void **state)
{
    (void)state;
    for (int chore = 0; chore < CHORES; chore++) {
        struct desk_task task;
        struct desk desk;

        init_full(&desk, 4096);
        start_chore(&desk, (enum chore)chore, &task);
        fake_fail(&desk.fake, 0, ENOSPC, BLK_FATAL, false);
        assert_int_equal(task.task.status, -ENOSPC);
        assert_string_equal(task.task.error.text, "full:d: " SAYS_NO);
        start_chore(&desk, (enum chore)chore, &task);
        fake_fail(&desk.fake, 0, EIO, BLK_LOST, false);
        desk.disk.other = true;
        fake_finish(&desk.fake);
        assert_int_equal(task.done, 1);
        assert_int_equal(task.task.status, -ESTALE);
        assert_string_equal(task.task.error.text, "full:d: it is another one");
        desk_release(&desk);

        init_full(&desk, 4096);
        start_chore(&desk, (enum chore)chore, &task);
        fake_fail(&desk.fake, 0, EIO, BLK_REPEAT, false);
        blk_cancel_all(desk.dev);
        fake_finish(&desk.fake);
        assert_int_equal(task.done, 1);
        assert_int_equal(task.task.status, -ECANCELED);
        desk_release(&desk);
    }
}

/* A file that was made larger needs to be as large from then on, and not before. */
static void test_resize_and_need(void **state)
{
    (void)state;
    for (int applies = 0; applies < 2; applies++) {
        for (int smaller = 0; smaller < 2; smaller++) {
            struct desk_task task;
            struct desk_req req;
            struct desk desk;

            init_full(&desk, smaller ? 16384 : 0);
            start_chore(&desk, RESIZE, &task);
            fake_fail(&desk.fake, 0, EIO, BLK_LOST, applies);
            desk_until(&desk, &task.done);
            if (task.task.status != 0)
                fail_msg("%s", task.task.error.text);
            desk_submit(&desk, &req, BLK_FLUSH, 0, 0, NULL, 0);
            fake_fail(&desk.fake, 0, EIO, BLK_LOST, false);
            desk.disk.size = 8191;
            desk_until(&desk, &req.done);
            assert_int_equal(req.req.status, -ENOSPC);
            desk_release(&desk);
        }
    }
}

static void test_recheck(void **state)
{
    struct desk_task task;
    struct desk desk;

    (void)state;
    desk_init(&desk, 4096);
    desk_repeat(&desk);
    desk_open(&desk, false);
    desk.disk.mtime_ns = 9;
    blk_recheck(desk.dev, desk_task(&task));
    desk_check_pending(&desk, "r");
    desk_one(&desk);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, 0);
    assert_int_equal(desk.dev->seen.mtime_ns, 9);
    desk_check_events(&desk, "");
    /* Over a loss. */
    desk.disk.recover_lost = 3;
    fake_disk_lose(&desk.disk, false);
    desk.disk.mtime_ns = 10;
    blk_recheck(desk.dev, desk_task(&task));
    desk_until(&desk, &task.done);
    assert_int_equal(task.task.status, 0);
    assert_int_equal(desk.dev->seen.mtime_ns, 10);
    assert_true(strncmp(desk.events, "AWAY the fake is not at home\nBACK ", 34) == 0);
    assert_null(strstr(desk.events + 30, "AWAY"));
    /* Another thing. */
    desk.disk.other = true;
    blk_recheck(desk.dev, desk_task(&task));
    desk_until(&desk, &task.done);
    assert_int_equal(task.task.status, -ESTALE);
    assert_string_equal(task.task.error.text, "fake:d: it is another one");
    desk_release(&desk);
}

/* Cancelled, or closed, while it looks, and between two looks; also just when it has failed. */
static void test_recheck_cancelled(void **state)
{
    (void)state;
    for (int how = 0; how < 6; how++) {
        struct desk_task task, close_task;
        struct desk desk;

        desk_init(&desk, 4096);
        desk_repeat(&desk);
        desk_open(&desk, false);
        fake_disk_lose(&desk.disk, false);
        blk_recheck(desk.dev, desk_task(&task));
        desk_check_pending(&desk, "r");
        desk.disk.recover_lost = 1000;
        if (how % 3 == 1)
            desk_one(&desk);
        else if (how % 3 == 2)
            fake_complete(&desk.fake, 0); /* and is not settled */
        if (how >= 3)
            blk_close(desk.dev, desk_task(&close_task));
        else
            blk_cancel_all(desk.dev);
        fake_finish(&desk.fake);
        assert_int_equal(task.done, 1);
        assert_int_equal(task.task.status, -ECANCELED);
        desk_advance(&desk, 3600 * SECOND);
        desk_check_pending(&desk, "");
        if (how >= 3) {
            assert_int_equal(close_task.done, 1);
            desk.dev = NULL;
        }
        desk_release(&desk);
    }
}

/* ---- Opening ---------------------------------------------------------------------------------- */

/* The first opening is not repeated: who waits for it sees at once what is wrong. */
static void test_open(void **state)
{
    struct desk_task task;
    struct desk desk;
    struct blk_open_args args;

    (void)state;
    desk_init(&desk, 4096);
    desk_repeat(&desk);
    args = (struct blk_open_args){
        .url = &desk.end.url, .settings = &desk.settings, .watcher = &desk.watcher};
    desk.dev = blk_open(desk.fake.loop, &args, desk_task(&task));
    fake_fail(&desk.fake, 0, ECONNREFUSED, BLK_LOST, false);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.task.status, -ECONNREFUSED);
    desk_check_events(&desk, "");
    desk_release(&desk);
}

static void test_clone(void **state)
{
    (void)state;
    for (unsigned lost = 0; lost < 4; lost++) {
        struct desk_task task;
        struct desk desk;
        struct blk_dev *clone;

        desk_init(&desk, 4096);
        desk_repeat(&desk);
        desk_open(&desk, true);
        desk.disk.recover_lost = lost;
        clone = desk_clone(&desk, 1, &task);
        fake_fail(&desk.fake, 0, ECONNREFUSED, BLK_LOST, false);
        assert_int_equal(task.done, 0);
        desk_until(&desk, &task.done);
        assert_int_equal(task.task.status, 0);
        assert_int_equal(clone->size, 4096);
        assert_true(strncmp(desk.events, "AWAY " SAYS_NO "\nBACK ", 27) == 0);
        assert_int_equal(desk.disk.open, 2);
        blk_close(clone, desk_task(&task));
        fake_finish(&desk.fake);
        desk_release(&desk);
    }
}

static void test_clone_fails(void **state)
{
    (void)state;
    for (int how = 0; how < 5; how++) {
        static const int codes[] = {ECONNREFUSED, ESTALE, ETIMEDOUT, ECANCELED, ECANCELED};
        struct desk_task task, close_task;
        struct desk desk;
        struct blk_dev *clone;

        desk_init(&desk, 4096);
        desk_repeat(&desk);
        desk_open(&desk, true);
        clone = desk_clone(&desk, 1, &task);
        fake_fail(&desk.fake, 0, ECONNREFUSED, how == 0 ? BLK_FATAL : BLK_LOST, false);
        desk.disk.other = how == 1;
        desk.disk.recover_lost = how >= 2 ? UINT32_MAX : 0;
        if (how == 3)
            blk_cancel_all(clone);
        if (how == 4) {
            desk_one(&desk);
            blk_cancel_all(clone);
        }
        desk_until(&desk, &task.done);
        assert_int_equal(task.task.status, -codes[how]);
        desk_check_text(task.task.error.text, "opening fake:d: ");
        blk_close(clone, desk_task(&close_task));
        fake_finish(&desk.fake);
        assert_int_equal(close_task.done, 1);
        desk_check_pending(&desk, "");
        desk_release(&desk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tasks),
        cmocka_unit_test(test_tasks_while_away),
        cmocka_unit_test(test_tasks_that_fail),
        cmocka_unit_test(test_resize_and_need),
        cmocka_unit_test(test_recheck),
        cmocka_unit_test(test_recheck_cancelled),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_clone),
        cmocka_unit_test(test_clone_fails),
    };

    return cmocka_run_group_tests_name("tasks", tests, NULL, NULL);
}
