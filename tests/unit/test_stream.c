/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* stdin and stdout, through the middle: pipes, sockets and files that stand in for them. */
#include "ground.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lunferry/units.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* The ground, and what stdin or stdout was before the test. */
struct stage {
    struct ground *ground;
    int standard, saved;
    int other;    /* our end of the pipe or socket; -1: none */
    bool foreign; /* the pipe is somebody else's, who has it to himself */
};

static int stage_setup(void **state)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    void *ground;

    assert_non_null(stage);
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(ground_setup(&ground), 0);
    stage->ground = ground;
    stage->saved = stage->other = -1;
    *state = stage;
    return 0;
}

static void hang_up(struct stage *stage)
{
    if (stage->other >= 0)
        close(stage->other);
    stage->other = -1;
}

static int stage_teardown(void **state)
{
    struct stage *stage = *state;
    void *ground = stage->ground;

    hang_up(stage);
    if (stage->saved >= 0) {
        dup2(stage->saved, stage->standard);
        close(stage->saved);
    }
    ground_teardown(&ground);
    free(stage);
    return 0;
}

/* stdin or stdout leads to what `fd`, which is closed, leads to; -1: it is closed itself. */
static void put(struct stage *stage, int standard, int fd)
{
    fflush(stdout);
    if (stage->saved < 0)
        stage->saved = fcntl(standard, F_DUPFD_CLOEXEC, 10);
    assert_true(stage->saved >= 0);
    stage->standard = standard;
    if (fd < 0) {
        close(standard);
        return;
    }
    assert_int_equal(dup2(fd, standard), standard);
    close(fd);
}

enum way { PIPE, SOCKET };

static void connect_to(struct stage *stage, int standard, enum way way)
{
    int ends[2];

    if (way == SOCKET) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    } else {
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        if (standard == STDOUT_FILENO) {
            int reader = ends[0];

            ends[0] = ends[1];
            ends[1] = reader;
        }
    }
    put(stage, standard, ends[0]);
    stage->other = ends[1];
    fcntl(stage->other, F_SETFL, O_NONBLOCK);
}

/* Root can open every pipe once more, nobody can open none. */
static void become(uid_t user)
{
    if (getuid() == 0)
        assert_int_equal(seteuid(user), 0);
}

static struct blk_dev *open_stream(const struct stage *stage)
{
    struct blk_error error;
    struct blk_dev *dev;
    int status;

    if (stage->foreign) {
        assert_int_equal(fchmod(stage->standard, 0), 0);
        become(65534);
    }
    status = ground_try_open(stage->ground, "-", stage->standard == STDOUT_FILENO, &dev, &error);
    if (stage->foreign)
        become(0);
    if (status != 0)
        fail_msg("%s", error.text);
    return dev;
}

static void check_refused(const struct stage *stage, int code, const char *text)
{
    struct blk_error error;
    struct blk_dev *dev;

    assert_int_equal(
        ground_try_open(stage->ground, "-", stage->standard == STDOUT_FILENO, &dev, &error), -code);
    assert_string_equal(error.text, text);
    ground_close(stage->ground, dev);
}

/* So much of it as the other end takes at once. */
static size_t feed(const struct stage *stage, const unsigned char *bytes, size_t len)
{
    ssize_t put_in = write(stage->other, bytes, len);

    assert_true(put_in > 0);
    return (size_t)put_in;
}

static void turn(const struct stage *stage)
{
    while (loop_turn(stage->ground->loop, 0))
        ;
}

/* ---- Reading ---------------------------------------------------------------------------------- */

/* Whatever pieces it comes in, each request gets all that it asks for, and the last what is left. */
static void collect(void **state, enum way way, size_t step)
{
    enum { LEN = 300001, PART = 70000, PARTS = 6 };
    struct stage *stage = *state;
    unsigned char *sent = malloc(LEN), *got = malloc(PARTS * PART);
    struct ground_request requests[PARTS];
    unsigned left = 0;
    struct blk_dev *dev;
    size_t at;

    ground_fill(sent, LEN, 7);
    connect_to(stage, STDIN_FILENO, way);
    at = feed(stage, sent, 1);
    dev = open_stream(stage);
    assert_int_equal(dev->size, BLK_SIZE_UNKNOWN);
    for (unsigned i = 0; i < PARTS; i++)
        ground_submit(dev, &requests[i], BLK_READ, 0, (uint64_t)i * PART, got + (size_t)i * PART,
                      PART, &left);
    while (at < LEN) {
        at += feed(stage, sent + at, min_u64(step, LEN - at));
        turn(stage);
    }
    assert_int_equal(left, PARTS - LEN / PART);
    hang_up(stage);
    ground_wait_all(stage->ground, &left);
    for (unsigned i = 0; i < PARTS; i++) {
        assert_int_equal(requests[i].req.status, 0);
        assert_int_equal(requests[i].req.got, i < LEN / PART    ? PART
                                              : i == LEN / PART ? LEN % PART
                                                                : 0);
    }
    assert_memory_equal(got, sent, LEN);
    ground_close(stage->ground, dev);
    free(sent);
    free(got);
}

static void test_pipe_in_large_pieces(void **state)
{
    collect(state, PIPE, 65536);
}

static void test_pipe_in_odd_pieces(void **state)
{
    collect(state, PIPE, 4097);
}

static void test_socket_in_odd_pieces(void **state)
{
    collect(state, SOCKET, 1025);
}

/* Which cannot be opened once more, and is not to be made non-blocking. */
static void test_pipe_of_somebody_else(void **state)
{
    ((struct stage *)*state)->foreign = true;
    collect(state, PIPE, 5000);
}

/* A request that the driver gets in pieces, and a stream that ends in the middle of one. */
static void test_long_request_that_the_end_cuts_short(void **state)
{
    enum { LEN = 3 * MIB + 5 };
    struct stage *stage = *state;
    unsigned char *sent = malloc(LEN), *got = malloc(5 * MIB);
    struct ground_request request;
    unsigned left = 0;
    struct blk_dev *dev;
    size_t at;

    ground_fill(sent, LEN, 8);
    connect_to(stage, STDIN_FILENO, PIPE);
    at = feed(stage, sent, LEN);
    dev = open_stream(stage);
    blk_cap(dev, MIB, 0);
    ground_submit(dev, &request, BLK_READ, 0, 0, got, 5 * MIB, &left);
    while (at < LEN) {
        turn(stage);
        at += feed(stage, sent + at, LEN - at);
    }
    hang_up(stage);
    ground_wait_all(stage->ground, &left);
    assert_int_equal(request.req.status, 0);
    assert_int_equal(request.req.got, LEN);
    assert_memory_equal(got, sent, LEN);
    ground_close(stage->ground, dev);
    free(sent);
    free(got);
}

/* From where it stands, which is where the shell has left it. */
static void test_file_from_its_place(void **state)
{
    enum { LEN = 200000, SKIP = 4321 };
    struct stage *stage = *state;
    unsigned char *bytes = malloc(LEN), *got = malloc(LEN);
    char *path = ground_path(stage->ground, "in");
    struct blk_dev *dev;
    struct blk_req req;
    int fd;

    ground_fill(bytes, LEN, 9);
    ground_make(stage->ground, "in", bytes, LEN);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(lseek(fd, SKIP, SEEK_SET), SKIP);
    put(stage, STDIN_FILENO, fd);
    dev = open_stream(stage);
    req = ground_do(stage->ground, dev, BLK_READ, 0, 0, got, 100000);
    assert_int_equal(req.got, 100000);
    req = ground_do(stage->ground, dev, BLK_READ, 0, 100000, got + 100000, 100000);
    assert_int_equal(req.status, 0);
    assert_int_equal(req.got, 100000 - SKIP);
    assert_memory_equal(got, bytes + SKIP, LEN - SKIP);
    ground_close(stage->ground, dev);
    free(bytes);
    free(got);
    free(path);
}

static void test_empty_stream_has_no_size(void **state)
{
    struct stage *stage = *state;
    struct blk_dev *dev;

    connect_to(stage, STDIN_FILENO, PIPE);
    hang_up(stage);
    dev = open_stream(stage);
    assert_int_equal(dev->size, 0);
    ground_close(stage->ground, dev);
}

/* Its start can be read once more, and nothing else; nor can anything be left out. */
static void test_no_way_back(void **state)
{
    struct stage *stage = *state;
    unsigned char sent[80000], got[80000];
    struct blk_dev *dev;
    struct blk_req req;
    size_t at;

    ground_fill(sent, sizeof(sent), 10);
    connect_to(stage, STDIN_FILENO, SOCKET);
    at = feed(stage, sent, 100);
    dev = open_stream(stage);
    while (at < sizeof(sent))
        at += feed(stage, sent + at, sizeof(sent) - at);
    req = ground_do(stage->ground, dev, BLK_READ, 0, 0, got, 4);
    assert_int_equal(req.status, 0);
    req = ground_do(stage->ground, dev, BLK_READ, 0, 0, got, 70000);
    assert_int_equal(req.status, 0);
    assert_memory_equal(got, sent, 70000);
    req = ground_do(stage->ground, dev, BLK_READ, 0, 100, got, 8192);
    assert_int_equal(req.status, 0);
    assert_memory_equal(got, sent + 100, 8192);
    req = ground_do(stage->ground, dev, BLK_READ, 0, 65536, got, 1);
    assert_int_equal(req.status, -ESPIPE);
    assert_string_equal(req.error.text,
                        "reading - at offset 65536: it is a stream, which is read once and in "
                        "order; it is at offset 70000");
    req = ground_do(stage->ground, dev, BLK_READ, 0, 70001, got, 1);
    assert_int_equal(req.status, -ESPIPE);
    req = ground_do(stage->ground, dev, BLK_READ, 0, 70000, got, 10000);
    assert_int_equal(req.status, 0);
    assert_memory_equal(got, sent + 70000, 10000);
    ground_close(stage->ground, dev);
}

/* Who waits for somebody who says nothing can be sent away, in the middle of a request or of opening. */
static void test_silence_is_cancelled(void **state)
{
    struct stage *stage = *state;
    struct ground_request request;
    unsigned char got[8192];
    unsigned left = 0;
    struct blk_dev *dev;

    connect_to(stage, STDIN_FILENO, PIPE);
    feed(stage, (const unsigned char *)"some", 4);
    dev = open_stream(stage);
    ground_submit(dev, &request, BLK_READ, 0, 0, got, sizeof(got), &left);
    turn(stage);
    assert_int_equal(left, 1);
    blk_cancel_all(dev);
    turn(stage);
    assert_int_equal(left, 0);
    assert_int_equal(request.req.status, -ECANCELED);
    ground_close(stage->ground, dev);
}

static void test_silence_at_opening_is_cancelled(void **state)
{
    struct stage *stage = *state;
    bool done;
    struct blk_task task = ground_task(&done);
    struct url url;
    struct blk_open_args args = {.url = &url};
    struct blk_dev *dev;

    connect_to(stage, STDIN_FILENO, PIPE);
    assert_int_equal(url_parse("-", &url, NULL), 0);
    dev = blk_open(stage->ground->loop, &args, &task);
    assert_non_null(dev);
    turn(stage);
    assert_false(done);
    blk_cancel_all(dev);
    turn(stage);
    assert_true(done);
    assert_int_equal(task.status, -ECANCELED);
    ground_close(stage->ground, dev);
    url_release(&url);
}

/* The shell has the same pipe, and would find itself at a loss. */
static void test_descriptor_stays_blocking(void **state)
{
    struct stage *stage = *state;
    unsigned char got[16];
    struct blk_dev *dev;

    connect_to(stage, STDIN_FILENO, PIPE);
    feed(stage, (const unsigned char *)"some", 4);
    dev = open_stream(stage);
    assert_int_equal(ground_do(stage->ground, dev, BLK_READ, 0, 0, got, 4).status, 0);
    assert_int_equal(fcntl(STDIN_FILENO, F_GETFL) & O_NONBLOCK, 0);
    ground_close(stage->ground, dev);
    assert_int_equal(fcntl(STDIN_FILENO, F_GETFL) & O_NONBLOCK, 0);
}

/* ---- Writing ---------------------------------------------------------------------------------- */

static void drain(const struct stage *stage, unsigned char *bytes, size_t *at, size_t size)
{
    ssize_t got;

    while ((got = read(stage->other, bytes + *at, size - *at)) > 0)
        *at += (size_t)got;
    assert_true(got == 0 || errno == EAGAIN);
}

/* Many requests in flight, in the order of their offsets, to somebody who takes what fits in a pipe. */
static void spill(void **state, enum way way)
{
    enum { PART = 300007, PARTS = 5, LEN = PART * PARTS };
    struct stage *stage = *state;
    unsigned char *sent = malloc(LEN), *got = malloc(LEN + 1);
    struct ground_request requests[PARTS];
    unsigned left = 0;
    struct blk_dev *dev;
    size_t at = 0;

    ground_fill(sent, LEN, 11);
    connect_to(stage, STDOUT_FILENO, way);
    dev = open_stream(stage);
    assert_int_equal(dev->size, BLK_SIZE_UNKNOWN);
    for (unsigned i = 0; i < PARTS; i++)
        ground_submit(dev, &requests[i], BLK_WRITE, 0, (uint64_t)i * PART, sent + (size_t)i * PART,
                      PART, &left);
    turn(stage);
    assert_int_equal(left, PARTS); /* nothing was taken yet, and the loop did not wait for that */
    while (left > 0) {
        turn(stage);
        drain(stage, got, &at, LEN + 1);
    }
    for (unsigned i = 0; i < PARTS; i++) {
        assert_int_equal(requests[i].req.status, 0);
        assert_true(requests[i].req.durable);
    }
    assert_int_equal(fcntl(STDOUT_FILENO, F_GETFL) & O_NONBLOCK, 0);
    ground_close(stage->ground, dev);
    assert_int_equal(at, LEN);
    assert_memory_equal(got, sent, LEN);
    free(sent);
    free(got);
}

static void test_writes_to_pipe(void **state)
{
    spill(state, PIPE);
}

static void test_writes_to_pipe_of_somebody_else(void **state)
{
    ((struct stage *)*state)->foreign = true;
    spill(state, PIPE);
}

static void test_writes_to_socket(void **state)
{
    spill(state, SOCKET);
}

static void test_zeros_are_written(void **state)
{
    struct stage *stage = *state;
    unsigned char got[9000], zeros[8192] = {0};
    struct blk_dev *dev;
    size_t at = 0;

    connect_to(stage, STDOUT_FILENO, PIPE);
    dev = open_stream(stage);
    assert_int_equal(ground_do(stage->ground, dev, BLK_ZERO, 0, 0, NULL, sizeof(zeros)).status, 0);
    drain(stage, got, &at, sizeof(got));
    assert_int_equal(at, sizeof(zeros));
    assert_memory_equal(got, zeros, sizeof(zeros));
    ground_close(stage->ground, dev);
}

static void reader_goes(void **state, enum way way)
{
    struct stage *stage = *state;
    unsigned char bytes[100] = {1};
    struct blk_dev *dev;
    struct blk_req req;

    connect_to(stage, STDOUT_FILENO, way);
    dev = open_stream(stage);
    assert_int_equal(ground_do(stage->ground, dev, BLK_WRITE, 0, 0, bytes, 100).status, 0);
    hang_up(stage);
    req = ground_do(stage->ground, dev, BLK_WRITE, 0, 100, bytes, 100);
    assert_int_equal(req.status, -EPIPE);
    assert_string_equal(req.error.text, "writing - at offset 100: whoever was to read it has gone "
                                        "(broken pipe)");
    ground_close(stage->ground, dev);
}

static void test_reader_of_pipe_goes(void **state)
{
    reader_goes(state, PIPE);
}

static void test_reader_of_socket_goes(void **state)
{
    reader_goes(state, SOCKET);
}

/* At its end, where the shell's >> has it; and durable when it was flushed. */
static void test_file_is_appended_to(void **state)
{
    enum { OLD = 10, LEN = 2 * MIB + 3 };
    struct stage *stage = *state;
    unsigned char *bytes = malloc(OLD + LEN);
    char *path = ground_path(stage->ground, "out");
    struct blk_dev *dev;
    struct blk_req req;

    ground_fill(bytes, OLD + LEN, 12);
    ground_make(stage->ground, "out", bytes, OLD);
    put(stage, STDOUT_FILENO, open(path, O_WRONLY | O_APPEND | O_CLOEXEC));
    dev = open_stream(stage);
    req = ground_do(stage->ground, dev, BLK_WRITE, 0, 0, bytes + OLD, LEN);
    assert_int_equal(req.status, 0);
    assert_false(req.durable);
    assert_int_equal(ground_do(stage->ground, dev, BLK_FLUSH, 0, 0, NULL, 0).epoch, req.epoch);
    ground_close(stage->ground, dev);
    ground_check(stage->ground, "out", bytes, OLD + LEN);
    free(bytes);
    free(path);
}

static void test_device_that_is_full(void **state)
{
    struct stage *stage = *state;
    unsigned char byte = 1;
    struct blk_dev *dev;

    put(stage, STDOUT_FILENO, open("/dev/full", O_WRONLY | O_CLOEXEC));
    dev = open_stream(stage);
    assert_int_equal(ground_do(stage->ground, dev, BLK_WRITE, 0, 0, &byte, 1).status, -ENOSPC);
    ground_close(stage->ground, dev);
}

/* ---- What is refused -------------------------------------------------------------------------- */

static void test_closed(void **state)
{
    struct stage *stage = *state;

    put(stage, STDIN_FILENO, -1);
    check_refused(stage, EBADF, "opening -: stdin is closed");
}

static void test_open_for_the_other(void **state)
{
    struct stage *stage = *state;

    put(stage, STDIN_FILENO, open("/dev/null", O_WRONLY | O_CLOEXEC));
    check_refused(stage, EBADF, "opening -: stdin is closed, or open for writing only");
}

static void test_directory(void **state)
{
    struct stage *stage = *state;

    put(stage, STDIN_FILENO, open(stage->ground->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    check_refused(stage, EISDIR, "opening -: stdin is a directory");
}

static void test_terminal(void **state)
{
    struct stage *stage = *state;
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);

    if (terminal < 0)
        skip();
    put(stage, STDOUT_FILENO, terminal);
    check_refused(stage, EINVAL, "opening -: stdout is a terminal; a pipe or a file is needed");
}

static void test_other_names(void **state)
{
    struct blk_error error;
    struct url url;

    (void)state;
    assert_int_equal(url_parse("stdio:3", &url, NULL), 0);
    assert_int_equal(blk_check_url(&url, &error), -EINVAL);
    assert_string_equal(error.text, "stdio:3: stdin and stdout are written -");
    url_release(&url);
}

#define STAGED(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGED(test_pipe_in_large_pieces),
        STAGED(test_pipe_in_odd_pieces),
        STAGED(test_socket_in_odd_pieces),
        STAGED(test_pipe_of_somebody_else),
        STAGED(test_long_request_that_the_end_cuts_short),
        STAGED(test_file_from_its_place),
        STAGED(test_empty_stream_has_no_size),
        STAGED(test_no_way_back),
        STAGED(test_silence_is_cancelled),
        STAGED(test_silence_at_opening_is_cancelled),
        STAGED(test_descriptor_stays_blocking),
        STAGED(test_writes_to_pipe),
        STAGED(test_writes_to_pipe_of_somebody_else),
        STAGED(test_writes_to_socket),
        STAGED(test_zeros_are_written),
        STAGED(test_reader_of_pipe_goes),
        STAGED(test_reader_of_socket_goes),
        STAGED(test_file_is_appended_to),
        STAGED(test_device_that_is_full),
        STAGED(test_closed),
        STAGED(test_open_for_the_other),
        STAGED(test_directory),
        STAGED(test_terminal),
        STAGED(test_other_names),
    };

    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
