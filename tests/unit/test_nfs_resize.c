/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NFS file that is cut and grown again: what lay beyond the cut is gone, and what was never written
 * reads as zeros (RFC 1813 3.3.2). A copy leaves out zeros because of that, and one that is resumed
 * cuts off what may not have reached the disk.
 *
 * The server is tests/servers/nfs3.py, to be found from the directory in which this runs; or, for a real
 * one, LUNFERRY_TEST_NFS is the URL of a file there, which is overwritten.
 */
#include "ground.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UNIT = 64 * 1024, SIZE = 8 * UNIT + 777 };

extern char **environ;

/* Only so that nothing hangs for ever. */
static const struct blk_settings settings = {.timeout = 600 * LOOP_SECOND};

struct scene {
    struct ground *ground;
    pid_t server; /* 0: somebody else's */
    int stop;     /* it ends when this is closed */
    struct url url;
    struct blk_dev *dev;
    unsigned char *expected, *found; /* SIZE bytes each */
};

/* ---- The server --------------------------------------------------------------------------------- */

/* Returns its port. */
static unsigned start_server(struct scene *scene)
{
    char *log = ground_path(scene->ground, "log"), line[64] = "";
    const char *const arguments[] = {"python3", "-B",       "tests/servers/nfs3.py", "--log",
                                     log,       "--sparse", "/export/image=0",       NULL};
    posix_spawn_file_actions_t actions;
    int in[2], out[2];
    size_t len = 0;
    unsigned port;

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    assert_int_equal(posix_spawnp(&scene->server, "python3", &actions, NULL,
                                  (char *const *)(uintptr_t)arguments, environ),
                     0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    scene->stop = in[1];
    while (len + 1 < sizeof line && !strchr(line, '\n')) {
        ssize_t got = read(out[0], line + len, sizeof line - 1 - len);

        if (got <= 0)
            fail_msg("the server did not start; this is to run where tests/servers is");
        len += (size_t)got;
        line[len] = '\0';
    }
    close(out[0]);
    assert_int_equal(sscanf(line, "port %u", &port), 1);
    free(log);
    return port;
}

static void opened(struct scene *scene)
{
    bool done;
    struct blk_task task = ground_task(&done);
    struct blk_open_args args = {.url = &scene->url, .writable = true, .settings = &settings};

    scene->dev = blk_open(scene->ground->loop, &args, &task);
    ground_wait(scene->ground, &done);
    if (task.status != 0)
        fail_msg("%s", task.error.text);
}

static int setup(void **state)
{
    const char *given = getenv("LUNFERRY_TEST_NFS");
    struct scene *scene = calloc(1, sizeof *scene);
    char text[100];
    void *ground;

    ground_setup(&ground);
    scene->ground = ground;
    scene->expected = calloc(1, SIZE);
    scene->found = malloc(SIZE);
    if (!given) {
        unsigned port = start_server(scene);

        snprintf(text, sizeof text, "nfs://127.0.0.1/export/image?nfsport=%u&mountport=%u", port,
                 port);
        given = text;
    }
    assert_int_equal(url_parse(given, &scene->url, NULL), 0);
    opened(scene);
    *state = scene;
    return 0;
}

static int teardown(void **state)
{
    struct scene *scene = *state;
    void *ground = scene->ground;

    ground_close(ground, scene->dev);
    if (scene->server) {
        close(scene->stop);
        waitpid(scene->server, NULL, 0);
    }
    url_release(&scene->url);
    ground_teardown(&ground);
    free(scene->expected);
    free(scene->found);
    free(scene);
    return 0;
}

/* ---- Operations, on the file and on what is expected of it -------------------------------------- */

static void resize(struct scene *scene, uint64_t size)
{
    bool done;
    struct blk_task task;
    struct blk_error error;

    assert_int_equal(ground_resize(scene->ground, scene->dev, size, &error), 0);
    assert_int_equal(scene->dev->size, size);
    task = ground_task(&done);
    blk_recheck(scene->dev, &task);
    ground_wait(scene->ground, &done);
    assert_int_equal(task.status, 0);
    assert_int_equal(scene->dev->seen.size, size);
    memset(scene->expected + size, 0, SIZE - size);
}

static void store(struct scene *scene, unsigned flags, uint64_t offset, size_t len)
{
    struct blk_req req;

    memset(scene->expected + offset, 'a' + (int)(offset % 26), len);
    req = ground_do(scene->ground, scene->dev, BLK_WRITE, flags, offset, scene->expected + offset,
                    len);
    assert_int_equal(req.status, 0);
}

static void check(struct scene *scene)
{
    uint64_t size = scene->dev->size;
    struct blk_req req;

    if (size == 0)
        return;
    memset(scene->found, 0xff, SIZE);
    req = ground_do(scene->ground, scene->dev, BLK_READ, 0, 0, scene->found, size);
    assert_int_equal(req.status, 0);
    assert_memory_equal(scene->found, scene->expected, size);
}

static void flush(struct scene *scene)
{
    assert_int_equal(ground_do(scene->ground, scene->dev, BLK_FLUSH, 0, 0, NULL, 0).status, 0);
}

/* ---- Tests -------------------------------------------------------------------------------------- */

static void test_never_written(void **state)
{
    struct scene *scene = *state;

    resize(scene, 0);
    resize(scene, SIZE);
    check(scene);
    store(scene, 0, 3 * UNIT + 100, UNIT);
    store(scene, 0, SIZE - 1, 1);
    store(scene, BLK_FUA, 6 * UNIT, 1);
    check(scene);
    flush(scene);
    check(scene);
}

/* Wherever the cut is, whether or not what is cut off was committed. */
static void test_cut(void **state)
{
    static const uint64_t cuts[] = {0, 1, 4095, 4096, UNIT, 3 * UNIT + 7, 8 * UNIT, SIZE - 1, SIZE};
    struct scene *scene = *state;

    for (size_t i = 0; i < 2 * sizeof cuts / sizeof cuts[0]; i++) {
        resize(scene, SIZE);
        store(scene, 0, 0, 2 * UNIT);
        store(scene, 0, 3 * UNIT, 2 * UNIT);
        store(scene, 0, 7 * UNIT, UNIT + 777);
        if (i % 2)
            flush(scene);
        resize(scene, cuts[i / 2]);
        check(scene);
        resize(scene, SIZE);
        check(scene);
        flush(scene);
        check(scene);
        store(scene, 0, 5 * UNIT + 3, 50);
        check(scene);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_never_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut, setup, teardown),
    };

    return cmocka_run_group_tests_name("NFS, files cut and grown", tests, NULL, NULL);
}
