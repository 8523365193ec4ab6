/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks of targets: lockers against each other in every order, every single fault, every cancel; and
 * on a real directory. */
#include "ground.h"
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/copy/lock.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define FILE_NAME   ".image.lunferry-lock"
#define TAKING_NAME FILE_NAME "-taking"
#define LOCKERS     3

/* ---- A directory and who wants the lock in it ------------------------------------------------- */

struct locker {
    struct lock lock;
    unsigned done; /* calls */
    int status;
};

struct world {
    struct fake fake;
    struct fake_fs fs;
    struct fake_end end;
    struct locker lockers[LOCKERS];
};

static void store_opened_task(struct blk_task *task)
{
    assert_int_equal(task->status, 0);
}

static void lock_done(struct lock *lock, int status)
{
    struct locker *locker = lock->opaque;

    assert_int_equal(status, -lock->error.code);
    locker->done++;
    locker->status = status;
}

/* This process, on a machine that has an id, whatever the one of the test has. */
static struct holder alive(void)
{
    struct holder holder;

    holder_self(&holder);
    strcpy(holder.machine, "0123456789abcdef0123456789abcdef");
    return holder;
}

static void world_init(struct world *world)
{
    static struct blk_task task = {.done = store_opened_task};
    struct blk_open_args args = {.url = &world->end.url, .writable = true};

    memset(world, 0, sizeof(*world));
    fake_init(&world->fake);
    fake_fs_init(&world->fs, &world->fake);
    fake_end_file(&world->end, &world->fs, "image");
    for (unsigned i = 0; i < LOCKERS; i++) {
        struct locker *locker = &world->lockers[i];

        locker->lock = (struct lock){
            .store = store_open(world->fake.loop, &args, &task),
            .name = "image",
            .words = "nfs://host/dir/image",
            .holder = alive(),
            .done = lock_done,
            .opaque = locker,
        };
        fake_finish(&world->fake);
    }
    /* Operations count from here. */
    atomic_store(&world->fake.submitted, 0);
}

static void world_release(struct world *world)
{
    for (unsigned i = 0; i < LOCKERS; i++)
        store_close(world->lockers[i].lock.store, NULL);
    fake_finish(&world->fake);
    fake_fs_release(&world->fs);
    fake_release(&world->fake);
}

/* To the end of everything, in the order that the odometer picks. */
static void run(struct world *world, struct odometer *odometer)
{
    struct fake *fake = &world->fake;

    for (fake_settle(fake); fake->pending_count > 0; fake_settle(fake))
        fake_complete(fake, odometer ? odometer_choose(odometer, fake->pending_count) : 0);
}

static void start_take(struct world *world, unsigned i, bool break_it)
{
    world->lockers[i].lock.break_it = break_it;
    world->lockers[i].done = 0;
    assert_int_equal(lock_take(&world->lockers[i].lock), 0);
    assert_int_equal(world->lockers[i].done, 0);
}

static int take(struct world *world, unsigned i, bool break_it)
{
    start_take(world, i, break_it);
    run(world, NULL);
    assert_int_equal(world->lockers[i].done, 1);
    return world->lockers[i].status;
}

static int check(struct world *world, unsigned i)
{
    world->lockers[i].done = 0;
    lock_check(&world->lockers[i].lock);
    assert_int_equal(world->lockers[i].done, 0);
    run(world, NULL);
    assert_int_equal(world->lockers[i].done, 1);
    return world->lockers[i].status;
}

static int release(struct world *world, unsigned i)
{
    world->lockers[i].done = 0;
    lock_release(&world->lockers[i].lock);
    assert_int_equal(world->lockers[i].done, 0);
    run(world, NULL);
    assert_int_equal(world->lockers[i].done, 1);
    return world->lockers[i].status;
}

static const char *says(const struct world *world, unsigned i)
{
    return world->lockers[i].lock.error.text;
}

static bool is_there(struct world *world, const char *name)
{
    return fake_fs_find(&world->fs, name) != NULL;
}

/* A lock file that somebody else made. */
static void put_text(struct world *world, const char *text)
{
    struct fake_file *file = fake_fs_make(&world->fs, FILE_NAME, 0);

    file->text_len = (size_t)snprintf(file->text, sizeof(file->text), "%s", text);
}

static void put_lock(struct world *world, const struct holder *holder)
{
    char line[HOLDER_TEXT], text[LOCK_TEXT];

    snprintf(text, sizeof(text), "lunferry-lock 00112233445566ff %s\n",
             holder_encode(holder, line));
    put_text(world, text);
}

static struct holder dead(void)
{
    struct holder holder = alive();

    holder.started++;
    return holder;
}

static struct holder far_away(void)
{
    struct holder holder = dead();

    strcpy(holder.host, "db1");
    strcpy(holder.machine, "ffff");
    holder.pid = 4711;
    holder.since = 1795249800;
    return holder;
}

/* ---- One locker ------------------------------------------------------------------------------- */

static void test_alone(void **state)
{
    struct world world;

    (void)state;
    world_init(&world);
    assert_int_equal(take(&world, 0, false), 0);
    assert_int_equal(world.lockers[0].lock.state, LOCK_HELD);
    assert_true(is_there(&world, FILE_NAME));
    assert_int_equal(check(&world, 0), 0);
    assert_int_equal(take(&world, 1, false), -EBUSY);
    assert_int_equal(world.lockers[1].lock.state, LOCK_NONE);
    assert_int_equal(check(&world, 0), 0);
    assert_int_equal(release(&world, 0), 0);
    assert_int_equal(world.lockers[0].lock.state, LOCK_NONE);
    assert_false(is_there(&world, FILE_NAME));
    assert_int_equal(take(&world, 1, false), 0);
    assert_int_equal(release(&world, 1), 0);
    world_release(&world);
}

static void test_words(void **state)
{
    struct holder holder = far_away();
    struct world world;

    (void)state;
    world_init(&world);
    put_lock(&world, &holder);
    assert_int_equal(take(&world, 0, false), -EBUSY);
    assert_string_equal(says(&world, 0),
                        "another copy to nfs://host/dir/image is under way: process 4711 on host "
                        "db1 since 2026-11-21 08:30:00 UTC; --break-lock would take over from it, "
                        "if it is dead");
    world_release(&world);
}

/* Not a lock, or not one yet: it is left alone unless told otherwise. */
static void test_unknown(void **state)
{
    static const char *const texts[] = {
        "",
        "lunferry-lock ",
        "lunferry-lock 0011223344556677",
        "lunferry-lock 0011223344556677 host=a\n",
        "lunferry-lock 001122334455667 host=a machine= boot= pid-namespace=1 time-namespace=1 "
        "pid=1 started=1 since=1\n",
        "lunferry-lock 0011223344556677 host=a machine= boot= pid-namespace=1 time-namespace=1 "
        "pid=1 started=1 since=1",
        "something else\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct world world;

        world_init(&world);
        put_text(&world, texts[i]);
        assert_int_equal(take(&world, 0, false), -EBUSY);
        assert_non_null(strstr(says(&world, 0), FILE_NAME " does not say whose it is"));
        assert_string_equal(fake_fs_find(&world.fs, FILE_NAME)->text, texts[i]);
        assert_int_equal(take(&world, 0, true), 0);
        assert_int_equal(check(&world, 0), 0);
        assert_int_equal(release(&world, 0), 0);
        assert_false(is_there(&world, FILE_NAME));
        world_release(&world);
    }
}

static void test_dead(void **state)
{
    struct holder holder = dead();
    struct world world;

    (void)state;
    world_init(&world);
    put_lock(&world, &holder);
    assert_int_equal(take(&world, 0, false), 0);
    assert_false(is_there(&world, TAKING_NAME));
    assert_int_equal(check(&world, 0), 0);
    assert_int_equal(release(&world, 0), 0);

    /* Who was killed while he took over has left his second file. */
    put_lock(&world, &holder);
    fake_fs_make(&world.fs, TAKING_NAME, 0);
    assert_int_equal(take(&world, 0, false), -EBUSY);
    assert_non_null(strstr(says(&world, 0), "--break-lock"));
    assert_true(is_there(&world, TAKING_NAME));
    assert_int_equal(take(&world, 0, true), 0);
    assert_false(is_there(&world, TAKING_NAME));
    assert_int_equal(check(&world, 0), 0);
    world_release(&world);
}

static void test_broken(void **state)
{
    struct world world;

    (void)state;
    world_init(&world);
    assert_int_equal(take(&world, 0, false), 0);
    assert_int_equal(take(&world, 1, true), 0);
    assert_int_equal(check(&world, 1), 0);
    assert_int_equal(check(&world, 0), -EBUSY);
    assert_non_null(strstr(says(&world, 0), "was taken over by process "));
    assert_int_equal(release(&world, 0), 0);
    assert_int_equal(check(&world, 1), 0); /* it is not his to remove */
    assert_int_equal(take(&world, 0, true), 0);
    assert_int_equal(release(&world, 0), 0);
    assert_int_equal(check(&world, 1), -EBUSY);
    assert_non_null(strstr(says(&world, 1), "was removed by somebody else"));
    assert_int_equal(release(&world, 1), 0);
    world_release(&world);
}

/* ---- Several lockers -------------------------------------------------------------------------- */

/* Who has taken it, as a bit set; without a break he keeps it. */
static unsigned holders(struct world *world, unsigned count)
{
    unsigned set = 0;

    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(world->lockers[i].done, 1);
        if (world->lockers[i].status == 0)
            set |= 1u << i;
        else
            assert_int_equal(world->lockers[i].status, -EBUSY);
    }
    return set;
}

/* `count` lockers at once, over what `prepare` left: exactly one gets it, and keeps it. */
static void race(unsigned count, unsigned sample, const struct holder *left)
{
    struct odometer odometer = {.sample = sample};

    do {
        struct world world;
        unsigned set;

        world_init(&world);
        if (left)
            put_lock(&world, left);
        for (unsigned i = 0; i < count; i++)
            start_take(&world, i, false);
        run(&world, &odometer);
        set = holders(&world, count);
        assert_true(set != 0 && (set & (set - 1)) == 0);
        for (unsigned i = 0; i < count; i++) {
            if (set == 1u << i) {
                assert_int_equal(check(&world, i), 0);
                assert_int_equal(release(&world, i), 0);
            }
        }
        assert_false(is_there(&world, FILE_NAME));
        assert_false(is_there(&world, TAKING_NAME));
        world_release(&world);
    } while (odometer_next(&odometer));
}

static void test_race(void **state)
{
    (void)state;
    race(2, 0, NULL);
    race(3, 0, NULL);
}

static void test_race_for_dead(void **state)
{
    struct holder holder = dead();

    (void)state;
    race(2, 0, &holder);
    race(3, SAMPLE(20000), &holder);
}

/* With breakers among them several may have had it; at the end at most one passes the check. */
static void race_of_breakers(unsigned breakers, unsigned sample, const struct holder *left)
{
    struct odometer odometer = {.sample = sample};

    do {
        struct world world;
        unsigned set, passed = 0;

        world_init(&world);
        if (left)
            put_lock(&world, left);
        for (unsigned i = 0; i < 2; i++)
            start_take(&world, i, (breakers & 1u << i) != 0);
        run(&world, &odometer);
        set = holders(&world, 2);
        for (unsigned i = 0; i < 2; i++)
            passed += (set & 1u << i) && check(&world, i) == 0;
        assert_true(passed <= 1);
        world_release(&world);
    } while (odometer_next(&odometer));
}

static void test_race_of_breakers(void **state)
{
    struct holder gone = dead(), far = far_away();

    (void)state;
    for (unsigned breakers = 1; breakers < 4; breakers++) {
        race_of_breakers(breakers, SAMPLE(8000), NULL);
        race_of_breakers(breakers, SAMPLE(8000), &gone);
        race_of_breakers(breakers, SAMPLE(8000), &far);
    }
}

/* One releases while another takes: who takes it, has it. */
static void test_race_with_release(void **state)
{
    struct odometer odometer = {0};

    (void)state;
    do {
        struct world world;

        world_init(&world);
        assert_int_equal(take(&world, 0, false), 0);
        world.lockers[0].done = 0;
        lock_release(&world.lockers[0].lock);
        start_take(&world, 1, false);
        run(&world, &odometer);
        assert_int_equal(world.lockers[0].status, 0);
        if (world.lockers[1].status == 0) {
            assert_int_equal(check(&world, 1), 0);
        } else {
            assert_int_equal(world.lockers[1].status, -EBUSY);
            assert_false(is_there(&world, FILE_NAME));
        }
        world_release(&world);
    } while (odometer_next(&odometer));
}

/* ---- Faults ----------------------------------------------------------------------------------- */

static bool is_mine(struct world *world)
{
    const struct fake_file *file = fake_fs_find(&world->fs, FILE_NAME);

    return file && strcmp(file->text, world->lockers[0].lock.ours) == 0;
}

/* The operation of this number fails. False: there were not so many. */
static bool take_with_fault(unsigned number, const struct holder *left, bool break_it)
{
    struct world world;
    bool hit;
    int status;

    world_init(&world);
    if (left)
        put_lock(&world, left);
    world.fake.fault = (struct fake_fault){.number = number, .code = EIO};
    status = take(&world, 0, break_it);
    hit = atomic_load(&world.fake.fault_hit);
    world.fake.fault.number = 0;
    if (status == 0) {
        assert_int_equal(check(&world, 0), 0);
    } else {
        assert_true(hit && status == -EIO);
        assert_int_equal(world.lockers[0].lock.state, LOCK_NONE);
        assert_false(is_mine(&world));
        assert_false(is_there(&world, TAKING_NAME));
    }
    world_release(&world);
    return hit;
}

static void test_faults(void **state)
{
    struct holder gone = dead(), far = far_away();
    unsigned operations[3] = {1, 1, 1};

    (void)state;
    while (take_with_fault(operations[0], NULL, false))
        operations[0]++;
    while (take_with_fault(operations[1], &gone, false))
        operations[1]++;
    while (take_with_fault(operations[2], &far, true))
        operations[2]++;
    /* CREATE and WRITE; and around them what it takes to take it over */
    assert_int_equal(operations[0] - 1, 2);
    assert_int_equal(operations[1] - 1, 8);
    assert_int_equal(operations[2] - 1, 7);
}

/* Cancelled before this many completions. */
static bool take_and_cancel(unsigned when, const struct holder *left, bool applies)
{
    struct world world;
    struct fake *fake = &world.fake;
    unsigned count;

    world_init(&world);
    if (left)
        put_lock(&world, left);
    fake->cancel_applies = applies;
    start_take(&world, 0, false);
    fake_settle(fake);
    for (count = 0; fake->pending_count > 0; count++) {
        if (count == when)
            store_cancel_all(world.lockers[0].lock.store);
        fake_complete(fake, 0);
        fake_settle(fake);
    }
    assert_int_equal(world.lockers[0].done, 1);
    assert_true(world.lockers[0].status == -ECANCELED || world.lockers[0].status == 0);
    if (world.lockers[0].status == 0)
        assert_int_equal(check(&world, 0), 0);
    if (world.lockers[0].lock.state != LOCK_NONE)
        assert_int_equal(release(&world, 0), 0);
    if (is_there(&world, FILE_NAME))
        assert_true(left && strstr(fake_fs_find(&world.fs, FILE_NAME)->text, "00112233445566ff"));
    world_release(&world);
    return count > when;
}

static void test_cancel(void **state)
{
    struct holder gone = dead();

    (void)state;
    for (int applies = 0; applies < 2; applies++) {
        for (unsigned when = 0; take_and_cancel(when, NULL, applies); when++)
            ;
        for (unsigned when = 0; take_and_cancel(when, &gone, applies); when++)
            ;
    }
}

/* ---- A real directory ------------------------------------------------------------------------- */

static void set_done(struct lock *lock, int status)
{
    (void)status;
    *(bool *)lock->opaque = true;
}

static int wait_for(const struct ground *ground, struct lock *lock, void (*start)(struct lock *))
{
    bool done = false;

    lock->opaque = &done;
    if (start)
        start(lock);
    else
        assert_int_equal(lock_take(lock), 0);
    ground_wait(ground, &done);
    return -lock->error.code;
}

static void test_directory(void **state)
{
    struct ground *ground = *state;
    char name[256], *path, *file;
    bool done;
    struct blk_task task = ground_task(&done);
    struct url url;
    struct blk_open_args args = {.url = &url, .writable = true};
    struct lock first, second;

    /* The longest name that a file may have. */
    memset(name, 'n', 255);
    name[255] = '\0';
    path = ground_path(ground, name);
    assert_int_equal(url_parse(path, &url, NULL), 0);
    first = (struct lock){.store = store_open(ground->loop, &args, &task),
                          .name = name,
                          .words = "it",
                          .holder = alive(),
                          .done = set_done};
    ground_wait(ground, &done);
    second = first;
    assert_int_equal(wait_for(ground, &first, NULL), 0);
    assert_int_equal(wait_for(ground, &second, NULL), -EBUSY);
    assert_int_equal(wait_for(ground, &first, lock_check), 0);
    file = ground_path(ground, first.file);
    ground_check(ground, first.file, first.ours, strlen(first.ours));

    second.break_it = true;
    assert_int_equal(wait_for(ground, &second, NULL), 0);
    assert_int_equal(wait_for(ground, &first, lock_check), -EBUSY);
    assert_int_equal(wait_for(ground, &first, lock_release), 0);
    assert_int_equal(wait_for(ground, &second, lock_check), 0);
    assert_int_equal(wait_for(ground, &second, lock_release), 0);
    assert_int_equal(access(file, F_OK), -1);

    task = ground_task(&done);
    store_close(first.store, &task);
    ground_wait(ground, &done);
    url_release(&url);
    free(path);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_dead),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_race),
        cmocka_unit_test(test_race_for_dead),
        cmocka_unit_test(test_race_of_breakers),
        cmocka_unit_test(test_race_with_release),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test_setup_teardown(test_directory, ground_setup, ground_teardown),
    };

    return cmocka_run_group_tests_name("lock", tests, NULL, NULL);
}
