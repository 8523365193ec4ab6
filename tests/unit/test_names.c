/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on names whose answers are no success, or lost: repeated, and recognised when they had
 * been carried out already. */
#include "fake.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define SECOND       LOOP_SECOND

struct place {
    struct fake fake;
    struct fake_fs fs;
    struct fake_end end;
    struct blk_settings settings;
    struct blk_watcher watcher;
    char events[1024];
    struct store *store;
    struct blk_task task;
    struct store_req req;
    char buf[16];
    unsigned done, task_done;
};

static void on_event(struct blk_watcher *watcher, enum blk_event event, const char *name,
                     const char *text)
{
    static const char *const names[] = {"AWAY", "BACK", "WAITING", "REPEATED", "WARNING"};
    struct place *place = container_of(watcher, struct place, watcher);
    size_t at = strlen(place->events);

    assert_string_equal(name, "fakefs:/dir");
    snprintf(place->events + at, sizeof(place->events) - at, "%s %s\n", names[event], text);
}

static void on_task(struct blk_task *task)
{
    container_of(task, struct place, task)->task_done++;
}

static void on_done(struct store_req *req)
{
    container_of(req, struct place, req)->done++;
}

static void place_init(struct place *place, uint64_t give_up)
{
    struct blk_open_args args = {.url = &place->end.url,
                                 .writable = true,
                                 .settings = &place->settings,
                                 .watcher = &place->watcher};

    memset(place, 0, sizeof(*place));
    fake_init(&place->fake);
    fake_fs_init(&place->fs, &place->fake);
    fake_end_file(&place->end, &place->fs, "x");
    place->settings = (struct blk_settings){.timeout = 60 * SECOND, .give_up = give_up};
    place->watcher.event = on_event;
    place->task.done = on_task;
    place->store = store_open(place->fake.loop, &args, &place->task);
    fake_finish(&place->fake);
    assert_int_equal(place->task_done, 1);
    assert_int_equal(place->task.status, 0);
}

static void place_release(struct place *place)
{
    store_close(place->store, &place->task);
    fake_finish(&place->fake);
    assert_int_equal(place->task_done, 2);
    assert_int_equal(place->fs.open, 0);
    fake_fs_release(&place->fs);
    fake_release(&place->fake);
}

static bool is_done(void *opaque)
{
    return ((const struct place *)opaque)->done > 0;
}

static void start(struct place *place, enum store_op op)
{
    strcpy(place->buf, "fifteen letters");
    place->req = (struct store_req){
        .op = op,
        .name = "a",
        .new_name = op == STORE_LINK || op == STORE_RENAME ? "b" : NULL,
        .attr = {.mode = 0640},
        .buf = place->buf,
        .len = sizeof(place->buf),
        .done = on_done,
    };
    place->done = 0;
    store_submit(place->store, &place->req);
    fake_settle(&place->fake);
}

static int wait_for(struct place *place)
{
    while (place->done == 0) {
        fake_pass_time(&place->fake, is_done, place);
        fake_finish(&place->fake);
    }
    assert_int_equal(place->done, 1);
    return place->req.status;
}

static bool is_there(struct place *place, const char *name)
{
    return fake_fs_find(&place->fs, name) != NULL;
}

static const enum store_op ops[] = {STORE_STAT, STORE_CREATE, STORE_READ,  STORE_WRITE,
                                    STORE_LINK, STORE_RENAME, STORE_REMOVE};

/* What is there before; and that afterwards all is as it should be. */
static void make(struct place *place, enum store_op op)
{
    struct fake_file *file;

    if (op == STORE_CREATE)
        return;
    file = fake_fs_make(&place->fs, "a", 100);
    strcpy(file->text, "was there before");
    file->text_len = 16;
    if (op == STORE_RENAME)
        fake_fs_make(&place->fs, "b", 200);
}

static void check(struct place *place, enum store_op op)
{
    struct fake_file *a = fake_fs_find(&place->fs, "a"), *b = fake_fs_find(&place->fs, "b");

    assert_int_equal(place->req.error.code, 0);
    assert_false(place->req.unsure);
    assert_int_equal(a != NULL, op != STORE_RENAME && op != STORE_REMOVE);
    assert_int_equal(b != NULL, op == STORE_RENAME || op == STORE_LINK);
    if (b)
        assert_int_equal(b->disk->size, 100);
    if (op == STORE_CREATE)
        assert_int_equal(a->attr.mode, 0640);
    if (op == STORE_WRITE)
        assert_string_equal(a->text, "fifteen letters");
    if (op == STORE_READ) {
        assert_int_equal(place->req.got, 16);
        assert_memory_equal(place->buf, "was there before", 16);
    }
    if (op == STORE_STAT)
        assert_int_equal(place->req.attr.size, 100);
}

static void test_every_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ops); i++) {
        for (int retry = BLK_AGAIN; retry <= BLK_LOST; retry++) {
            for (int applies = 0; applies < 2; applies++) {
                struct place place;

                place_init(&place, 600 * SECOND);
                make(&place, ops[i]);
                start(&place, ops[i]);
                fake_fail(&place.fake, 0, EIO, (enum blk_retry)retry, applies);
                assert_int_equal(place.done, 0);
                if (wait_for(&place) != 0)
                    fail_msg("%s", place.req.error.text);
                check(&place, ops[i]);
                assert_int_equal(place.req.repeated, retry == BLK_LOST);
                if (retry == BLK_LOST)
                    assert_string_equal(place.events, "REPEATED the fake says no\n"
                                                      "AWAY the fake says no\nBACK 0.00 s\n");
                else
                    assert_string_equal(place.events, "REPEATED the fake says no\n");
                place_release(&place);
            }
        }
    }
}

/* Lost twice, before and after it was carried out; and its second answer is another delay. */
static void test_lost_twice(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ops); i++) {
        for (int first = 0; first < 2; first++) {
            struct place place;

            place_init(&place, 600 * SECOND);
            make(&place, ops[i]);
            start(&place, ops[i]);
            fake_fail(&place.fake, 0, EIO, BLK_LOST, first == 0);
            fake_complete(&place.fake, 0); /* the recovery */
            fake_settle(&place.fake);
            fake_fail(&place.fake, 0, EIO, first == 0 ? BLK_REPEAT : BLK_LOST, first == 1);
            if (wait_for(&place) != 0)
                fail_msg("%s", place.req.error.text);
            check(&place, ops[i]);
            place_release(&place);
        }
    }
}

/* Somebody else's file is no success of ours, however often we ask. */
static void test_somebody_else(void **state)
{
    static const struct {
        enum store_op op;
        int status;
    } cases[] = {{STORE_CREATE, -EEXIST}, {STORE_LINK, -EEXIST}, {STORE_RENAME, -ENOENT}};

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct place place;

        place_init(&place, 600 * SECOND);
        if (cases[i].op == STORE_LINK)
            fake_fs_make(&place.fs, "a", 100);
        start(&place, cases[i].op);
        fake_fail(&place.fake, 0, EIO, BLK_LOST, false);
        fake_fs_make(&place.fs, cases[i].op == STORE_CREATE ? "a" : "b", 300);
        assert_int_equal(wait_for(&place), cases[i].status);
        assert_false(place.req.unsure);
        assert_true(place.req.repeated);
        place_release(&place);
    }
}

/* ---- Unsure ----------------------------------------------------------------------------------- */

static void test_unsure(void **state)
{
    struct place place;

    (void)state;
    /* Nothing is repeated. */
    place_init(&place, 0);
    start(&place, STORE_CREATE);
    fake_fail(&place.fake, 0, EIO, BLK_LOST, true);
    assert_int_equal(wait_for(&place), -EIO);
    assert_true(place.req.unsure);
    assert_true(is_there(&place, "a"));
    assert_string_equal(place.events, "");
    place_release(&place);
    place_init(&place, 0);
    start(&place, STORE_CREATE);
    fake_fail(&place.fake, 0, EIO, BLK_REPEAT, false);
    assert_int_equal(wait_for(&place), -EIO);
    assert_false(place.req.unsure);
    place_release(&place);
    /* Given up, after an answer was lost; and after none was. */
    for (int lost = 0; lost < 2; lost++) {
        place_init(&place, 600 * SECOND);
        if (lost)
            place.fs.recover_lost = UINT32_MAX;
        start(&place, STORE_CREATE);
        fake_fail(&place.fake, 0, EIO, lost ? BLK_LOST : BLK_REPEAT, true);
        while (place.done == 0) {
            fake_pass_time(&place.fake, is_done, &place);
            if (place.fake.pending_count > 0 && lost)
                fake_complete(&place.fake, 0);
            else if (place.fake.pending_count > 0)
                fake_fail(&place.fake, 0, EIO, BLK_REPEAT, false);
            fake_settle(&place.fake);
        }
        assert_int_equal(place.req.status, -ETIMEDOUT);
        assert_int_equal(place.req.unsure, lost);
        assert_true(
            strncmp(place.req.error.text, "creating fakefs:/dir/a: given up after 10:00", 44) == 0);
        /* What comes now fails at once. */
        start(&place, STORE_STAT);
        assert_int_equal(place.done, 1);
        assert_int_equal(place.req.status, -ETIMEDOUT);
        assert_false(place.req.unsure);
        fake_finish(&place.fake);
        place_release(&place);
    }
}

/* ---- Cancelled -------------------------------------------------------------------------------- */

/* At the driver, kept, between two attempts, and in one. What comes after it is served. */
static void test_cancel(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        struct place place;

        place_init(&place, 600 * SECOND);
        fake_fs_make(&place.fs, "a", 100);
        start(&place, STORE_REMOVE);
        if (how == 1)
            fake_fail(&place.fake, 0, EIO, BLK_REPEAT, false);
        if (how >= 2)
            fake_fail(&place.fake, 0, EIO, BLK_LOST, false);
        if (how == 3) {
            place.fs.recover_lost = 1;
            fake_complete(&place.fake, 0);
            fake_settle(&place.fake);
            assert_int_equal(place.fake.pending_count, 0);
        }
        store_cancel_all(place.store);
        fake_finish(&place.fake);
        assert_int_equal(place.done, 1);
        assert_int_equal(place.req.status, -ECANCELED);
        assert_true(place.req.unsure);
        assert_true(is_there(&place, "a"));
        loop_advance(place.fake.loop, 3600 * SECOND);
        fake_settle(&place.fake);
        assert_int_equal(place.fake.pending_count, 0);
        start(&place, STORE_REMOVE);
        assert_int_equal(wait_for(&place), 0);
        assert_false(is_there(&place, "a"));
        place_release(&place);
    }
}

/* One that comes before the cancelled attempt has ended. */
static void test_after_a_cancel(void **state)
{
    struct place place;

    (void)state;
    place_init(&place, 600 * SECOND);
    fake_fs_make(&place.fs, "a", 100);
    start(&place, STORE_STAT);
    fake_fail(&place.fake, 0, EIO, BLK_LOST, false);
    assert_int_equal(place.fake.pending[0].kind, FAKE_STORE_RECOVER);
    store_cancel_all(place.store);
    fake_settle(&place.fake);
    assert_int_equal(place.done, 1);
    start(&place, STORE_REMOVE);
    assert_int_equal(wait_for(&place), 0);
    assert_false(is_there(&place, "a"));
    place_release(&place);
}

/* Closed while it looks for the server on nobody's behalf. */
static void test_close_while_recovering(void **state)
{
    struct place place;

    (void)state;
    place_init(&place, 600 * SECOND);
    start(&place, STORE_STAT);
    fake_fail(&place.fake, 0, EIO, BLK_LOST, false);
    store_hurry(place.store, 0);
    fake_settle(&place.fake);
    assert_int_equal(place.done, 1);
    assert_int_equal(place.req.status, -ECANCELED);
    assert_int_equal(place.fake.pending_count, 1);
    place_release(&place);
}

static void test_hurry(void **state)
{
    struct place place;
    uint64_t begun;

    (void)state;
    place_init(&place, 600 * SECOND);
    place.fs.recover_lost = UINT32_MAX;
    start(&place, STORE_STAT);
    fake_fail(&place.fake, 0, EIO, BLK_LOST, false);
    begun = loop_now(place.fake.loop);
    store_hurry(place.store, 5 * SECOND);
    assert_int_equal(wait_for(&place), -ETIMEDOUT);
    assert_in_range(loop_now(place.fake.loop) - begun, 5 * SECOND, 6 * SECOND);
    place_release(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_answer),
        cmocka_unit_test(test_lost_twice),
        cmocka_unit_test(test_somebody_else),
        cmocka_unit_test(test_unsure),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_after_a_cancel),
        cmocka_unit_test(test_close_while_recovering),
        cmocka_unit_test(test_hurry),
    };

    return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
