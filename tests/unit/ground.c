/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ground.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

int ground_setup(void **state)
{
    struct ground *ground = calloc(1, sizeof *ground);

    assert_non_null(ground);
    strcpy(ground->dir, "/tmp/lunferry-file-XXXXXX");
    assert_non_null(mkdtemp(ground->dir));
    ground->loop = loop_new();
    assert_non_null(ground->loop);
    *state = ground;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int ground_teardown(void **state)
{
    struct ground *ground = *state;

    loop_free(ground->loop);
    nftw(ground->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(ground);
    return 0;
}

/* Belongs to the caller. */
char *ground_path(const struct ground *ground, const char *name)
{
    char *path = NULL;

    assert_true(asprintf(&path, "%s/%s", ground->dir, name) > 0);
    return path;
}

/* Without the driver: the other side of every comparison. */
void ground_make(const struct ground *ground, const char *name, const void *bytes, size_t len)
{
    char *path = ground_path(ground, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
    free(path);
}

void ground_check(const struct ground *ground, const char *name, const void *bytes, size_t len)
{
    char *path = ground_path(ground, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *found = malloc(len + 1);

    assert_true(fd >= 0);
    assert_int_equal(read(fd, found, len + 1), len);
    assert_memory_equal(found, bytes, len);
    close(fd);
    free(found);
    free(path);
}

int ground_loop_device(const struct ground *ground, const char *name, char path[32])
{
    struct loop_info64 info = {.lo_flags = LO_FLAGS_AUTOCLEAR};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, file, fd = -1;
    char *backing;

    if (control < 0)
        return -1;
    number = ioctl(control, LOOP_CTL_GET_FREE);
    close(control);
    if (number < 0)
        return -1;
    snprintf(path, 32, "/dev/loop%d", number);
    backing = ground_path(ground, name);
    file = open(backing, O_RDWR | O_CLOEXEC);
    free(backing);
    fd = open(path, O_RDWR | O_CLOEXEC);
    /* Goes by itself when the test ends, however it ends. */
    if (fd >= 0 && (ioctl(fd, LOOP_SET_FD, file) < 0 || ioctl(fd, LOOP_SET_STATUS64, &info) < 0)) {
        close(fd);
        fd = -1;
    }
    close(file);
    return fd;
}

void ground_fill(unsigned char *bytes, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = (unsigned char)(seed >> 24);
    }
}

/* ---- Waiting ---------------------------------------------------------------------------------- */

static void task_done(struct blk_task *task)
{
    *(bool *)task->opaque = true;
}

/* A task that sets *done. */
struct blk_task ground_task(bool *done)
{
    *done = false;
    return (struct blk_task){.done = task_done, .opaque = done};
}

void ground_wait(const struct ground *ground, const bool *done)
{
    while (!*done)
        loop_turn(ground->loop, LOOP_NEVER);
}

/* What comes of opening `path`; *dev is to be closed in either case. */
int ground_try_open(const struct ground *ground, const char *path, bool writable,
                    struct blk_dev **dev, struct blk_error *error)
{
    bool done;
    struct blk_task task = ground_task(&done);
    struct url url;
    struct blk_open_args args = {.url = &url, .writable = writable};

    assert_int_equal(url_parse(path, &url, NULL), 0);
    *dev = blk_open(ground->loop, &args, &task);
    assert_non_null(*dev);
    assert_false(done);
    ground_wait(ground, &done);
    url_release(&url);
    *error = task.error;
    return task.status;
}

struct blk_dev *ground_open(const struct ground *ground, const char *name, bool writable)
{
    char *path = ground_path(ground, name);
    struct blk_error error;
    struct blk_dev *dev;

    if (ground_try_open(ground, path, writable, &dev, &error) != 0)
        fail_msg("%s: %s", path, error.text);
    free(path);
    return dev;
}

void ground_close(const struct ground *ground, struct blk_dev *dev)
{
    bool done;
    struct blk_task task = ground_task(&done);

    blk_close(dev, &task);
    ground_wait(ground, &done);
    assert_int_equal(task.status, 0);
}

int ground_resize(const struct ground *ground, struct blk_dev *dev, uint64_t size,
                  struct blk_error *error)
{
    bool done;
    struct blk_task task = ground_task(&done);

    blk_resize(dev, size, &task);
    ground_wait(ground, &done);
    *error = task.error;
    return task.status;
}

/* ---- Requests --------------------------------------------------------------------------------- */

void ground_request_done(struct blk_req *req)
{
    struct ground_request *request = req->opaque;

    assert_true(*request->left > 0);
    (*request->left)--;
}

void ground_submit(struct blk_dev *dev, struct ground_request *request, enum blk_op op,
                   unsigned flags, uint64_t offset, void *buf, size_t len, unsigned *left)
{
    *request = (struct ground_request){.iov = {buf, len}, .left = left};
    request->req = (struct blk_req){
        .op = op,
        .flags = flags,
        .offset = offset,
        .len = len,
        .iov = &request->iov,
        .iovcnt = 1,
        .done = ground_request_done,
        .opaque = request,
    };
    (*left)++;
    blk_submit(dev, &request->req);
}

void ground_wait_all(const struct ground *ground, const unsigned *left)
{
    while (*left > 0)
        loop_turn(ground->loop, LOOP_NEVER);
}

/* One request, waited for. */
struct blk_req ground_do(const struct ground *ground, struct blk_dev *dev, enum blk_op op,
                         unsigned flags, uint64_t offset, void *buf, size_t len)
{
    struct ground_request request;
    unsigned left = 0;

    ground_submit(dev, &request, op, flags, offset, buf, len, &left);
    ground_wait_all(ground, &left);
    return request.req;
}
