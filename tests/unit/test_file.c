/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Local files and block devices, through the middle. */
#include "ground.h"

#include "drivers/file/private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* Refuses to open, with a sentence that ends like this. */
static void check_refused(const struct ground *ground, const char *path, bool writable, int code,
                          const char *end)
{
    struct blk_error error;
    struct blk_dev *dev;
    int status = ground_try_open(ground, path, writable, &dev, &error);

    assert_int_equal(status, -code);
    assert_int_equal(error.code, code);
    assert_int_equal(error.retry, BLK_FATAL);
    assert_true(strlen(error.text) >= strlen(end));
    assert_string_equal(error.text + strlen(error.text) - strlen(end), end);
    ground_close(ground, dev);
}

/* All of [0, len), cut at odd places into many requests that are in flight together. `shift` moves
 * the memory away from its alignment. */
static void transfer(const struct ground *ground, struct blk_dev *dev, enum blk_op op,
                     unsigned char *bytes, size_t len, const size_t *cuts, size_t cut_count)
{
    static struct ground_request requests[4096];
    unsigned left = 0;
    size_t count = 0;

    for (size_t at = 0; at < len; count++) {
        size_t part = min_u64(cuts[count % cut_count], len - at);

        assert_true(count < COUNT(requests));
        ground_submit(dev, &requests[count], op, 0, at, bytes + at, part, &left);
        at += part;
    }
    assert_int_equal(left, count);
    ground_wait_all(ground, &left);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(requests[i].req.status, 0);
        if (op == BLK_READ)
            assert_int_equal(requests[i].req.got, requests[i].req.len);
        else
            assert_int_equal(requests[i].req.epoch, requests[0].req.epoch);
    }
    assert_true(op == BLK_READ || requests[0].req.epoch != BLK_NO_EPOCH);
}

/* ---- Data ------------------------------------------------------------------------------------- */

/* Large aligned requests (O_DIRECT), odd ones (page cache), and both side by side. */
static const size_t aligned_cuts[] = {1024 * 1024, 64 * 1024, 4096};
static const size_t odd_cuts[] = {4095, 100000, 1, 65537, 512, 3};
static const size_t mixed_cuts[] = {65536, 100, 3996, 4096, 8191, 1};
/* More than the middle lets the driver take as one, and more at once than the driver takes. */
static const size_t huge_cuts[] = {3 * 1024 * 1024 + 17};

static const struct {
    const size_t *list;
    size_t count;
} all_cuts[] = {
    {aligned_cuts, COUNT(aligned_cuts)},
    {odd_cuts, COUNT(odd_cuts)},
    {mixed_cuts, COUNT(mixed_cuts)},
    {huge_cuts, COUNT(huge_cuts)},
};

static void test_write_and_read(void **state)
{
    static const size_t sizes[] = {1, 511, 4096, 4097, 5 * 1024 * 1024, 5 * 1024 * 1024 + 4321};
    struct ground *ground = *state;

    for (size_t s = 0; s < COUNT(sizes); s++) {
        size_t len = sizes[s];
        unsigned char *memory = aligned_alloc(4096, 6 * 1024 * 1024 + 4096);
        unsigned char *bytes = aligned_alloc(4096, 6 * 1024 * 1024 + 4096);

        for (size_t c = 0; c < COUNT(all_cuts); c++) {
            size_t reverse = COUNT(all_cuts) - 1 - c, shift = s % 2;
            struct blk_dev *dev;

            ground_make(ground, "disk", "", 0);
            strcat(strcpy((char *)memory, ground->dir), "/disk");
            assert_int_equal(truncate((char *)memory, (off_t)len), 0);
            ground_fill(bytes, len, (uint32_t)(s * 10 + c));
            dev = ground_open(ground, "disk", true);
            assert_int_equal(dev->size, len);
            transfer(ground, dev, BLK_WRITE, bytes, len, all_cuts[c].list, all_cuts[c].count);
            ground_check(ground, "disk", bytes, len);
            memset(memory, 0, len + shift);
            transfer(ground, dev, BLK_READ, memory + shift, len, all_cuts[reverse].list,
                     all_cuts[reverse].count);
            assert_memory_equal(memory + shift, bytes, len);
            ground_close(ground, dev);
        }
        free(memory);
        free(bytes);
    }
}

/* More buffers than one system call takes, of odd sizes. */
static void test_many_buffers(void **state)
{
    struct ground *ground = *state;
    enum { BUFFERS = 3000, LENGTH = BUFFERS * 7 };
    static unsigned char bytes[LENGTH], found[LENGTH];
    static struct iovec iov[BUFFERS];
    unsigned left = 0;
    struct ground_request request;
    struct blk_dev *dev;

    ground_fill(bytes, LENGTH, 1);
    ground_make(ground, "disk", found, LENGTH);
    dev = ground_open(ground, "disk", true);
    for (int write = 1; write >= 0; write--) {
        unsigned char *memory = write ? bytes : found;

        for (size_t i = 0; i < BUFFERS; i++)
            iov[i] = (struct iovec){memory + i * 7, 7};
        request = (struct ground_request){.left = &left};
        request.req = (struct blk_req){
            .op = write ? BLK_WRITE : BLK_READ,
            .len = LENGTH,
            .iov = iov,
            .iovcnt = BUFFERS,
            .done = ground_request_done,
            .opaque = &request,
        };
        left = 1;
        blk_submit(dev, &request.req);
        ground_wait_all(ground, &left);
        assert_int_equal(request.req.status, 0);
    }
    ground_check(ground, "disk", bytes, LENGTH);
    assert_memory_equal(found, bytes, LENGTH);
    ground_close(ground, dev);
}

/* A system call may move less than it was asked for. This file of the kernel's does, about a page at
 * a time. */
static void test_short_reads(void **state)
{
    enum { LENGTH = 10000, GUARD = 8192 };
    char bytes[LENGTH + GUARD] = "";
    struct iovec iov[] = {{bytes, 1}, {bytes + 1, LENGTH - 2}, {bytes + LENGTH - 1, 1}};
    struct file_io io = {.direct_fd = -1, .iov = iov, .iovcnt = 3, .left = LENGTH};

    (void)state;
    io.fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    if (io.fd < 0)
        skip();
    assert_int_equal(file_read(&io, false), 0);
    assert_int_equal(io.left, 0);
    assert_int_equal(io.offset, LENGTH);
    assert_int_equal(strlen(bytes), LENGTH);
    close(io.fd);
}

static void test_durable(void **state)
{
    struct ground *ground = *state;
    unsigned char *bytes = aligned_alloc(4096, 8192);
    struct blk_req plain, fua, odd_fua, flush;
    struct blk_dev *dev;

    memset(bytes, 0, 8192);
    ground_make(ground, "disk", bytes, 8192);
    dev = ground_open(ground, "disk", true);
    assert_true((dev->caps & BLK_CAN_FUA) != 0);
    assert_false((dev->caps & BLK_BARE) != 0);
    ground_fill(bytes, 8192, 5);
    plain = ground_do(ground, dev, BLK_WRITE, 0, 0, bytes, 4096);
    fua = ground_do(ground, dev, BLK_WRITE, BLK_FUA, 4096, bytes + 4096, 4096);
    odd_fua = ground_do(ground, dev, BLK_WRITE, BLK_FUA, 77, bytes + 77, 5);
    flush = ground_do(ground, dev, BLK_FLUSH, 0, 0, NULL, 0);
    assert_int_equal(plain.status, 0);
    assert_false(plain.durable);
    assert_int_equal(fua.status, 0);
    assert_true(fua.durable);
    assert_int_equal(odd_fua.status, 0);
    assert_true(odd_fua.durable);
    assert_int_equal(flush.status, 0);
    assert_true(flush.epoch != BLK_NO_EPOCH);
    assert_true(plain.epoch == flush.epoch && fua.epoch == flush.epoch);
    ground_check(ground, "disk", bytes, 8192);
    ground_close(ground, dev);
    free(bytes);
}

static void test_resize(void **state)
{
    struct ground *ground = *state;
    static const unsigned char zeros[10000];
    unsigned char byte = 'x';
    struct blk_error error;
    struct blk_dev *dev;

    ground_make(ground, "disk", zeros, 100);
    dev = ground_open(ground, "disk", true);
    assert_int_equal(ground_resize(ground, dev, 10000, &error), 0);
    assert_int_equal(dev->size, 10000);
    ground_check(ground, "disk", zeros, 10000);
    assert_int_equal(ground_do(ground, dev, BLK_WRITE, 0, 9999, &byte, 1).status, 0);
    assert_int_equal(ground_resize(ground, dev, 77, &error), 0);
    assert_int_equal(dev->size, 77);
    ground_check(ground, "disk", zeros, 77);
    assert_int_equal(ground_do(ground, dev, BLK_READ, 0, 77, &byte, 1).status, -EINVAL);
    assert_int_equal(ground_resize(ground, dev, UINT64_C(1) << 63, &error), -EFBIG);
    assert_non_null(strstr(error.text, "file too large"));
    assert_int_equal(dev->size, 77);
    ground_close(ground, dev);

    dev = ground_open(ground, "disk", false);
    assert_int_equal(ground_resize(ground, dev, 10, &error), -EROFS);
    ground_close(ground, dev);
    ground_check(ground, "disk", zeros, 77);
}

static void test_read_only(void **state)
{
    struct ground *ground = *state;
    char byte = 'y';
    struct blk_req req;
    struct blk_dev *dev;

    ground_make(ground, "disk", "x", 1);
    dev = ground_open(ground, "disk", false);
    req = ground_do(ground, dev, BLK_WRITE, 0, 0, &byte, 1);
    assert_int_equal(req.status, -EROFS);
    assert_int_equal(ground_do(ground, dev, BLK_FLUSH, 0, 0, NULL, 0).status, 0);
    ground_close(ground, dev);
    ground_check(ground, "disk", "x", 1);
}

/* Something else makes the file shorter while it is being read. */
static void test_shrunk(void **state)
{
    struct ground *ground = *state;
    unsigned char *bytes = aligned_alloc(4096, 65536);
    char *path = ground_path(ground, "disk");
    struct blk_dev *dev;
    struct blk_req req;

    memset(bytes, 1, 65536);
    ground_make(ground, "disk", bytes, 65536);
    dev = ground_open(ground, "disk", false);
    assert_int_equal(truncate(path, 5000), 0);
    req = ground_do(ground, dev, BLK_READ, 0, 0, bytes, 65536);
    assert_int_equal(req.status, -EIO);
    assert_int_equal(req.error.retry, BLK_FATAL);
    assert_non_null(
        strstr(req.error.text, "the file ends at 5000 now; when it was opened it had 65536 bytes"));
    req = ground_do(ground, dev, BLK_READ, 0, 5000, bytes, 1);
    assert_non_null(strstr(req.error.text, "the file ends at 5000 now"));
    assert_int_equal(ground_do(ground, dev, BLK_READ, 0, 0, bytes, 5000).status, 0);
    ground_close(ground, dev);
    free(path);
    free(bytes);
}

/* A limit on file sizes stands in for a full disk. What fits is written before the error. */
static void test_write_error(void **state)
{
    struct ground *ground = *state;
    struct rlimit old, limit;
    unsigned char *bytes = aligned_alloc(4096, 65536);
    static const unsigned char zeros[65536];
    struct blk_dev *dev;
    struct blk_req odd, aligned, fine;

    memset(bytes, 'z', 65536);
    ground_make(ground, "disk", zeros, 65536);
    dev = ground_open(ground, "disk", true);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 40000;
    setrlimit(RLIMIT_FSIZE, &limit);
    odd = ground_do(ground, dev, BLK_WRITE, 0, 39001, bytes, 2000);
    aligned = ground_do(ground, dev, BLK_WRITE, 0, 40960, bytes, 4096);
    fine = ground_do(ground, dev, BLK_WRITE, 0, 1, bytes, 7);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(odd.status, -EFBIG);
    assert_non_null(strstr(odd.error.text, "file too large"));
    assert_int_equal(odd.error.retry, BLK_FATAL);
    assert_int_equal(aligned.status, -EFBIG);
    assert_int_equal(fine.status, 0);
    ground_close(ground, dev);
    free(bytes);
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

static void test_refused(void **state)
{
    struct ground *ground = *state;
    char *missing = ground_path(ground, "missing"), *pipe = ground_path(ground, "pipe");
    char *sock = ground_path(ground, "socket"), *below = ground_path(ground, "disk/x");
    char *loop_link = ground_path(ground, "link");

    ground_make(ground, "disk", "", 0);
    make_socket(sock);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(symlink("link", loop_link), 0);
    for (int writable = 0; writable < 2; writable++) {
        check_refused(ground, missing, writable, ENOENT, ": no such file or directory");
        check_refused(ground, below, writable, ENOTDIR, ": not a directory");
        check_refused(ground, loop_link, writable, ELOOP, ": too many levels of symbolic links");
        check_refused(ground, ground->dir, writable, EISDIR,
                      ": it is a directory, not a file or block device");
        check_refused(ground, pipe, writable, EINVAL,
                      ": it is a named pipe, not a file or block device");
        check_refused(ground, sock, writable, EINVAL,
                      ": it is a socket, not a file or block device");
        check_refused(ground, "/dev/null", writable, EINVAL,
                      ": it is a character device, not a file or block device");
    }
    assert_int_equal(access(missing, F_OK), -1);
    free(missing);
    free(pipe);
    free(sock);
    free(below);
    free(loop_link);
}

static void test_permission(void **state)
{
    struct ground *ground = *state;
    char *path = ground_path(ground, "disk");

    ground_make(ground, "disk", "x", 1);
    assert_int_equal(chmod(path, 0), 0);
    if (geteuid() == 0)
        assert_int_equal(seteuid(65534), 0);
    chmod(ground->dir, 0755);
    check_refused(ground, path, false, EACCES, ": permission denied");
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    free(path);
}

static void test_check_url(void **state)
{
    static const struct {
        const char *text;
        const char *error;
    } cases[] = {
        {"x", NULL},
        {"file:x", NULL},
        {"file:///x", NULL},
        {"file://localhost/x", NULL},
        {"file://rel/path",
         "file://rel/path: a local file has no host; write file:PATH or file:///PATH"},
        {"file://localhost:1/x",
         "file://localhost:1/x: a local file has no host; write file:PATH or file:///PATH"},
        {"file://me@localhost/x",
         "file://me@localhost/x: a local file has no host; write file:PATH or file:///PATH"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct blk_error error = {0};
        struct url url;
        int status;

        assert_int_equal(url_parse(cases[i].text, &url, NULL), 0);
        status = blk_driver_find("file")->check(&url, &error);
        assert_int_equal(status, cases[i].error != NULL ? -EINVAL : 0);
        assert_string_equal(error.text, cases[i].error != NULL ? cases[i].error : "");
        url_release(&url);
    }
}

/* ---- Cancelling ------------------------------------------------------------------------------- */

static void test_cancel(void **state)
{
    struct ground *ground = *state;
    static struct ground_request requests[500];
    static unsigned char bytes[500 * 4096];
    unsigned left = 0, cancelled = 0;
    struct blk_dev *dev;

    ground_make(ground, "disk", bytes, sizeof bytes);
    dev = ground_open(ground, "disk", true);
    for (size_t i = 0; i < COUNT(requests); i++)
        ground_submit(dev, &requests[i], BLK_WRITE, 0, i * 4096, bytes + i * 4096, 4096, &left);
    blk_cancel_all(dev);
    assert_int_equal(left, COUNT(requests));
    ground_wait_all(ground, &left);
    for (size_t i = 0; i < COUNT(requests); i++) {
        assert_true(requests[i].req.status == 0 || requests[i].req.status == -ECANCELED);
        cancelled += requests[i].req.status != 0;
    }
    /* At least those that the driver had not even been given. */
    assert_true(cancelled >= 400);
    assert_int_equal(blk_in_flight(dev), 0);
    ground_close(ground, dev);
}

static void test_cancel_open(void **state)
{
    struct ground *ground = *state;
    char *path = ground_path(ground, "disk");
    struct url url;
    struct blk_open_args args = {.url = &url};

    ground_make(ground, "disk", "x", 1);
    assert_int_equal(url_parse(path, &url, NULL), 0);
    for (int by_closing = 0; by_closing < 2; by_closing++) {
        bool opened, closed;
        struct blk_task open_task = ground_task(&opened), close_task = ground_task(&closed);
        struct blk_dev *dev = blk_open(ground->loop, &args, &open_task);

        if (by_closing == 0) {
            blk_cancel_all(dev);
            ground_wait(ground, &opened);
        }
        blk_close(dev, &close_task);
        ground_wait(ground, &closed);
        assert_true(opened);
        assert_int_equal(open_task.status, -ECANCELED);
    }
    url_release(&url);
    free(path);
}

/* ---- Descriptions ----------------------------------------------------------------------------- */

struct facts {
    struct blk_report report;
    char text[1000];
};

static void add_fact(struct blk_report *report, const char *key, const char *label,
                     const char *value)
{
    struct facts *facts = (struct facts *)report;
    size_t len = strlen(facts->text);

    assert_true(strlen(label) > 0);
    snprintf(facts->text + len, sizeof facts->text - len, "%s=%s\n", key, value);
}

static void test_describe(void **state)
{
    struct ground *ground = *state;
    struct facts facts = {.report.fact = add_fact};
    char *path = ground_path(ground, "disk");
    struct blk_dev *dev;

    ground_make(ground, "disk", "", 0);
    assert_int_equal(truncate(path, 1536), 0);
    dev = ground_open(ground, "disk", false);
    blk_describe(dev, &facts.report);
    assert_non_null(strstr(facts.text, "type=regular file\n"
                                       "allocated=0 bytes (0 B), less than its size: sparse\n"
                                       "extents=told by the filesystem\n"
                                       "zeros=holes\ndiscard=yes\ndirect-io="));
    ground_close(ground, dev);
    free(path);
}

/* ---- A block device --------------------------------------------------------------------------- */

static void check_block_device(const struct ground *ground, const char *path)
{
    static unsigned char bytes[MIB + 4096 - 512], found[sizeof bytes];
    struct facts facts = {.report.fact = add_fact};
    struct blk_error error;
    struct blk_dev *dev;

    assert_int_equal(ground_try_open(ground, path, true, &dev, &error), 0);
    assert_int_equal(dev->size, sizeof bytes);
    assert_true((dev->caps & BLK_BARE) != 0);
    check_refused(ground, path, true, EBUSY,
                  ": the block device is in use: mounted, or held by another program, a RAID or a "
                  "volume group");
    ground_fill(bytes, sizeof bytes, 9);
    transfer(ground, dev, BLK_WRITE, bytes, sizeof bytes, mixed_cuts, COUNT(mixed_cuts));
    transfer(ground, dev, BLK_READ, found, sizeof bytes, odd_cuts, COUNT(odd_cuts));
    assert_memory_equal(bytes, found, sizeof bytes);
    assert_int_equal(ground_do(ground, dev, BLK_FLUSH, 0, 0, NULL, 0).status, 0);
    assert_int_equal(ground_resize(ground, dev, sizeof bytes, &error), 0);
    assert_int_equal(ground_resize(ground, dev, 4096, &error), -ENOTSUP);
    blk_describe(dev, &facts.report);
    assert_non_null(strstr(facts.text, "type=block device\n"));
    assert_non_null(strstr(facts.text, "logical-block-size=512\n"));
    ground_close(ground, dev);
    ground_check(ground, "disk", bytes, sizeof bytes);
}

static void test_block_device(void **state)
{
    struct ground *ground = *state;
    char *backing = ground_path(ground, "disk"), path[32];
    int fd;

    ground_make(ground, "disk", "", 0);
    assert_int_equal(truncate(backing, MIB + 4096 - 512), 0);
    free(backing);
    fd = ground_loop_device(ground, "disk", path);
    if (fd < 0)
        skip();
    check_block_device(ground, path);
    close(fd);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, ground_setup, ground_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_write_and_read), TEST(test_many_buffers), TEST(test_short_reads),
        TEST(test_durable),        TEST(test_resize),       TEST(test_read_only),
        TEST(test_shrunk),         TEST(test_write_error),  TEST(test_refused),
        TEST(test_permission),     TEST(test_check_url),    TEST(test_cancel),
        TEST(test_cancel_open),    TEST(test_describe),     TEST(test_block_device),
    };

    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
