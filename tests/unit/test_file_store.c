/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Local directories, through the middle. */
#include "ground.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static struct store *try_open_store(const struct ground *ground, const char *path,
                                    struct blk_task *task)
{
    bool done;
    struct url url;
    struct blk_open_args args = {.url = &url};
    struct store *store;

    *task = ground_task(&done);
    assert_int_equal(url_parse(path, &url, NULL), 0);
    store = store_open(ground->loop, &args, task);
    assert_non_null(store);
    assert_false(done);
    ground_wait(ground, &done);
    url_release(&url);
    return store;
}

/* The ground's directory. */
static struct store *open_store(const struct ground *ground)
{
    char *path = ground_path(ground, "any");
    struct blk_task task;
    struct store *store = try_open_store(ground, path, &task);

    assert_int_equal(task.status, 0);
    free(path);
    return store;
}

static void close_store(const struct ground *ground, struct store *store)
{
    bool done;
    struct blk_task task = ground_task(&done);

    store_close(store, &task);
    ground_wait(ground, &done);
}

static void store_done(struct store_req *req)
{
    *(bool *)req->opaque = true;
}

/* Submits *req, waits for it and returns its status. */
static int perform(const struct ground *ground, struct store *store, struct store_req *req)
{
    bool done = false;

    req->done = store_done;
    req->opaque = &done;
    store_submit(store, req);
    assert_false(done);
    ground_wait(ground, &done);
    return req->status;
}

/* An operation that needs no more than names. */
static int perform_on(const struct ground *ground, struct store *store, enum store_op op,
                      const char *name, const char *new_name)
{
    struct store_req req = {.op = op, .name = name, .new_name = new_name};

    return perform(ground, store, &req);
}

/* The operation fails so, and the sentence ends so. */
static void check_store_error(const struct ground *ground, struct store *store, enum store_op op,
                              const char *name, const char *new_name, int code, const char *end)
{
    char buf[10];
    struct store_req req = {.op = op, .name = name, .new_name = new_name, .buf = buf, .len = 1};

    assert_int_equal(perform(ground, store, &req), -code);
    assert_int_equal(req.error.code, code);
    assert_true(strlen(req.error.text) > strlen(end));
    assert_string_equal(req.error.text + strlen(req.error.text) - strlen(end), end);
}

static void test_store_create(void **state)
{
    struct ground *ground = *state;
    struct store *store = open_store(ground);
    struct store_req create = {.op = STORE_CREATE, .name = "new", .attr.mode = 0664};
    struct store_req look = {.op = STORE_STAT, .name = "new"};
    mode_t old = umask(077);

    assert_int_equal(perform(ground, store, &create), 0);
    umask(old);
    assert_int_equal(create.attr.mode, 0664);
    assert_int_equal(create.attr.type, STORE_FILE);
    assert_int_equal(create.attr.size, 0);
    ground_check(ground, "new", "", 0);
    assert_int_equal(perform(ground, store, &look), 0);
    assert_int_equal(look.attr.mode, 0664);
    assert_true(look.attr.file_id == create.attr.file_id && look.attr.file_id != 0);
    assert_true(look.attr.mtime_ns > INT64_C(1000000000) * 1000000000);
    check_store_error(ground, store, STORE_CREATE, "new", NULL, EEXIST, ": file exists");

    ground_make(ground, "new", "content", 7);
    check_store_error(ground, store, STORE_CREATE, "new", NULL, EEXIST, ": file exists");
    ground_check(ground, "new", "content", 7);
    assert_int_equal(perform(ground, store, &look), 0);
    assert_int_equal(look.attr.size, 7);
    check_store_error(ground, store, STORE_STAT, "missing", NULL, ENOENT,
                      ": no such file or directory");
    close_store(ground, store);
}

static void test_store_data(void **state)
{
    struct ground *ground = *state;
    struct store *store = open_store(ground);
    char buf[100] = "", first[] = "abcdef", change[] = "CD", last[] = "xyz";
    struct store_req write = {.op = STORE_WRITE, .name = "f", .buf = first, .len = 6};
    struct store_req append = {.op = STORE_APPEND, .name = "f", .buf = last, .len = 3};
    struct store_req read = {.op = STORE_READ, .name = "f", .buf = buf, .len = sizeof buf};

    check_store_error(ground, store, STORE_WRITE, "f", NULL, ENOENT, ": no such file or directory");
    check_store_error(ground, store, STORE_APPEND, "f", NULL, ENOENT,
                      ": no such file or directory");
    check_store_error(ground, store, STORE_READ, "f", NULL, ENOENT, ": no such file or directory");
    check_store_error(ground, store, STORE_SYNC, "f", NULL, ENOENT, ": no such file or directory");
    ground_make(ground, "f", "", 0);
    assert_int_equal(perform(ground, store, &write), 0);
    write.offset = 2;
    write.buf = change;
    write.len = 2;
    assert_int_equal(perform(ground, store, &write), 0);
    ground_check(ground, "f", "abCDef", 6);
    assert_int_equal(perform(ground, store, &append), 0);
    ground_check(ground, "f", "abCDefxyz", 9);
    assert_int_equal(perform_on(ground, store, STORE_SYNC, "f", NULL), 0);

    assert_int_equal(perform(ground, store, &read), 0);
    assert_int_equal(read.got, 9);
    assert_memory_equal(buf, "abCDefxyz", 9);
    read.offset = 7;
    read.len = 1;
    assert_int_equal(perform(ground, store, &read), 0);
    assert_int_equal(read.got, 1);
    assert_memory_equal(buf, "y", 1);
    read.offset = 9;
    assert_int_equal(perform(ground, store, &read), 0);
    assert_int_equal(read.got, 0);
    close_store(ground, store);
}

static void test_store_names(void **state)
{
    struct ground *ground = *state;
    struct store *store = open_store(ground);
    struct store_req setattr = {.op = STORE_SETATTR, .name = "b", .attr.mode = 0640};
    char *path = ground_path(ground, "b");
    struct stat st;

    ground_make(ground, "a", "A", 1);
    ground_make(ground, "taken", "T", 1);
    check_store_error(ground, store, STORE_LINK, "a", "taken", EEXIST, ": file exists");
    check_store_error(ground, store, STORE_LINK, "none", "b", ENOENT,
                      ": no such file or directory");
    assert_int_equal(perform_on(ground, store, STORE_LINK, "a", "b"), 0);
    ground_check(ground, "a", "A", 1);
    ground_check(ground, "b", "A", 1);
    ground_check(ground, "taken", "T", 1);
    assert_int_equal(perform_on(ground, store, STORE_REMOVE, "a", NULL), 0);
    check_store_error(ground, store, STORE_REMOVE, "a", NULL, ENOENT,
                      ": no such file or directory");
    assert_int_equal(perform_on(ground, store, STORE_RENAME, "b", "taken"), 0);
    ground_check(ground, "taken", "A", 1);
    check_store_error(ground, store, STORE_RENAME, "b", "c", ENOENT, ": no such file or directory");
    assert_int_equal(perform_on(ground, store, STORE_RENAME, "taken", "b"), 0);
    assert_int_equal(perform(ground, store, &setattr), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    check_store_error(ground, store, STORE_SETATTR, "a", NULL, ENOENT,
                      ": no such file or directory");
    assert_int_equal(perform_on(ground, store, STORE_REMOVE, "../b", NULL), -EINVAL);
    close_store(ground, store);
    free(path);
}

/* Nothing leads out of the directory, and nothing stops a thread. */
static void test_store_odd_files(void **state)
{
    struct ground *ground = *state;
    struct store *store = open_store(ground);
    char *link = ground_path(ground, "link"), *dir = ground_path(ground, "dir");
    char *pipe = ground_path(ground, "pipe"), *target = ground_path(ground, "target");
    static const enum store_op ops[] = {STORE_READ, STORE_SYNC, STORE_SETATTR};
    struct store_req look = {.op = STORE_STAT, .name = "link"};

    ground_make(ground, "target", "x", 1);
    assert_int_equal(symlink(target, link), 0);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    for (size_t i = 0; i < COUNT(ops); i++) {
        check_store_error(ground, store, ops[i], "link", NULL, ELOOP,
                          ": it is a symbolic link, which is not followed");
        check_store_error(ground, store, ops[i], "dir", NULL, EISDIR, ": it is not a regular file");
        check_store_error(ground, store, ops[i], "pipe", NULL, EINVAL,
                          ": it is not a regular file");
    }
    check_store_error(ground, store, STORE_WRITE, "link", NULL, ELOOP,
                      ": it is a symbolic link, which is not followed");
    check_store_error(ground, store, STORE_CREATE, "link", NULL, EEXIST, ": file exists");
    check_store_error(ground, store, STORE_REMOVE, "dir", NULL, EISDIR, ": is a directory");
    assert_int_equal(perform(ground, store, &look), 0);
    assert_int_equal(look.attr.type, STORE_SYMLINK);
    look.name = "dir";
    assert_int_equal(perform(ground, store, &look), 0);
    assert_int_equal(look.attr.type, STORE_DIRECTORY);
    look.name = "pipe";
    assert_int_equal(perform(ground, store, &look), 0);
    assert_int_equal(look.attr.type, STORE_OTHER);
    ground_check(ground, "target", "x", 1);
    close_store(ground, store);
    free(link);
    free(dir);
    free(pipe);
    free(target);
}

#define LIST_FILES 200

static unsigned char listed[LIST_FILES];

static void add_entry(struct store_req *req, const char *name)
{
    int number = -1;

    assert_false(*(bool *)req->opaque);
    assert_int_equal(sscanf(name, "a-rather-long-name-so-that-the-list-must-grow-%d", &number), 1);
    assert_in_range(number, 0, LIST_FILES - 1);
    listed[number]++;
}

static void test_store_list(void **state)
{
    struct ground *ground = *state;
    struct store *store = open_store(ground);
    struct store_req list = {.op = STORE_LIST, .entry = add_entry};

    assert_int_equal(perform(ground, store, &list), 0);
    for (int i = 0; i < LIST_FILES; i++) {
        char name[64];

        assert_int_equal(listed[i], 0);
        snprintf(name, sizeof name, "a-rather-long-name-so-that-the-list-must-grow-%d", i);
        ground_make(ground, name, "", 0);
    }
    for (int round = 1; round <= 2; round++) {
        assert_int_equal(perform(ground, store, &list), 0);
        for (int i = 0; i < LIST_FILES; i++)
            assert_int_equal(listed[i], round);
    }
    close_store(ground, store);
}

static void test_store_paths(void **state)
{
    struct ground *ground = *state;
    char *dir = ground_path(ground, "dir"), *moved = ground_path(ground, "moved");
    char *missing = ground_path(ground, "missing/x"), *inside = ground_path(ground, "dir/x");
    char *here = getcwd(NULL, 0);
    struct blk_task task;
    struct store *store;

    store = try_open_store(ground, missing, &task);
    assert_int_equal(task.status, -ENOENT);
    assert_non_null(strstr(task.error.text, ": no such file or directory"));
    close_store(ground, store);

    /* It stays the same directory under another name. */
    assert_int_equal(mkdir(dir, 0700), 0);
    store = try_open_store(ground, inside, &task);
    assert_int_equal(task.status, 0);
    ground_make(ground, "dir/x", "x", 1);
    assert_int_equal(rename(dir, moved), 0);
    assert_int_equal(perform_on(ground, store, STORE_RENAME, "x", "y"), 0);
    ground_check(ground, "moved/y", "x", 1);
    close_store(ground, store);

    assert_int_equal(chdir(moved), 0);
    store = try_open_store(ground, "x", &task);
    assert_int_equal(task.status, 0);
    assert_int_equal(perform_on(ground, store, STORE_RENAME, "y", "z"), 0);
    ground_check(ground, "moved/z", "x", 1);
    close_store(ground, store);
    store = try_open_store(ground, "/x", &task);
    assert_int_equal(task.status, 0);
    assert_int_equal(perform_on(ground, store, STORE_STAT, "tmp", NULL), 0);
    close_store(ground, store);

    assert_int_equal(chdir(here), 0);
    free(here);
    free(dir);
    free(moved);
    free(missing);
    free(inside);
}

/* A new file, written as a device and published, as a job does it. */
static void test_store_device(void **state)
{
    struct ground *ground = *state;
    struct store *store = open_store(ground);
    char *any = ground_path(ground, "final"), *link = ground_path(ground, "link"),
         name[] = "temporary";
    char contents[] = "contents";
    struct store_req create = {.op = STORE_CREATE, .name = name, .attr.mode = 0600};
    bool done;
    struct blk_task task = ground_task(&done);
    struct url url;
    struct blk_open_args args = {.url = &url, .store = store, .name = name, .writable = true};
    struct blk_error error;
    struct blk_dev *dev;

    assert_int_equal(perform(ground, store, &create), 0);
    assert_int_equal(url_parse(any, &url, NULL), 0);
    dev = blk_open(ground->loop, &args, &task);
    memset(name, 'x', strlen(name)); /* it was copied */
    ground_wait(ground, &done);
    assert_int_equal(task.status, 0);
    assert_int_equal(dev->size, 0);
    assert_int_equal(ground_resize(ground, dev, 8, &error), 0);
    assert_int_equal(ground_do(ground, dev, BLK_WRITE, BLK_FUA, 0, contents, 8).status, 0);
    ground_close(ground, dev);
    assert_int_equal(perform_on(ground, store, STORE_LINK, "temporary", "final"), 0);
    assert_int_equal(perform_on(ground, store, STORE_REMOVE, "temporary", NULL), 0);
    ground_check(ground, "final", "contents", 8);

    assert_int_equal(symlink("final", link), 0);
    args.name = "link";
    task = ground_task(&done);
    dev = blk_open(ground->loop, &args, &task);
    ground_wait(ground, &done);
    assert_int_equal(task.status, -EINVAL);
    assert_non_null(strstr(task.error.text, "it is a symbolic link, which is not followed here"));
    ground_close(ground, dev);
    close_store(ground, store);
    url_release(&url);
    free(any);
    free(link);
}

static void test_store_cancel(void **state)
{
    struct ground *ground = *state;
    struct store *store = open_store(ground);
    static struct store_req reqs[100];
    static bool done[100];
    char byte[] = "x";

    ground_make(ground, "f", "", 0);
    for (size_t i = 0; i < COUNT(reqs); i++) {
        done[i] = false;
        reqs[i] = (struct store_req){
            .op = STORE_APPEND,
            .name = "f",
            .buf = byte,
            .len = 1,
            .done = store_done,
            .opaque = &done[i],
        };
        store_submit(store, &reqs[i]);
    }
    store_cancel_all(store);
    for (size_t i = 0; i < COUNT(reqs); i++) {
        ground_wait(ground, &done[i]);
        assert_true(reqs[i].status == 0 || reqs[i].status == -ECANCELED);
    }
    /* What comes later is served: a temporary file is to be removed. */
    assert_int_equal(perform_on(ground, store, STORE_REMOVE, "f", NULL), 0);
    close_store(ground, store);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, ground_setup, ground_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_store_create),    TEST(test_store_data),   TEST(test_store_names),
        TEST(test_store_odd_files), TEST(test_store_list),   TEST(test_store_paths),
        TEST(test_store_device),    TEST(test_store_cancel),
    };

    return cmocka_run_group_tests_name("file store", tests, NULL, NULL);
}
