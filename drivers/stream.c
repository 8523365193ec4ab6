/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "-": stdin to read from, stdout to write to. A stream has no size and no way back: what is asked of it
 * comes in the order of the offsets, and is served in that order, one request after the other.
 *
 * A READ is complete when all of it is there, however small the pieces in which a pipe hands it over, and
 * short only at the end of the stream. A device is open when its first byte has come, so that an
 * empty stream is known to be one (its size is 0 then) before anything is done to a target. The first
 * bytes, STREAM_START of them, are kept and can be read again: what is inside is looked at more than once.
 *
 * Nothing here blocks the loop, and what waits for the other end of a pipe is cancelled at once. For
 * that, O_NONBLOCK is set on no descriptor that is shared, with the shell for one: a pipe is opened
 * once more by way of /proc, which gives a description of its own, a socket takes the flag with each call, and
 * where a pipe cannot be opened again (it belongs to another user) poll() says when a call that is
 * short enough does not wait. Only files block, for as long as a disk takes, in a helper thread.
 */
#include <lunferry/driver.h>

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lunferry/units.h>

#define STREAM_START (64 * 1024)

enum kind {
    KIND_PIPE, /* or a character device: served when poll() says so */
    KIND_SOCKET,
    KIND_FILE, /* or a block device: in a helper thread */
};

struct stream_dev {
    struct blk_dev dev;
    int fd; /* our own; -1: none */
    enum kind kind;
    bool may_block; /* a call that moves more than poll() has promised */
    bool opening, cancelled;
    uint64_t position; /* bytes moved so far */
    bool ended;        /* there are no more to be read */
    struct blk_req *first, **last;
    uint64_t moved; /* bytes, of the first request */
    size_t kept;    /* bytes in `start` */
    struct loop_watch watch;
    struct loop_work work; /* KIND_FILE: what the first request needs */
    bool working;
    ssize_t outcome; /* of the work: bytes, or -errno */
    struct iovec start_iov;
    unsigned char start[STREAM_START];
};

static struct stream_dev *stream_of(struct blk_dev *dev)
{
    return (struct stream_dev *)dev;
}

static const char *side_name(const struct stream_dev *stream)
{
    return stream->dev.writable ? "stdout" : "stdin";
}

/* ---- One call --------------------------------------------------------------------------------- */

static int fail(struct blk_error *error, int code)
{
    const char *text = strerror(code);

    if (code == EPIPE || code == ECONNRESET)
        return blk_error_set(error, code, "whoever was to read it has gone (%s)",
                             code == EPIPE ? "broken pipe" : "connection reset");
    return blk_error_set(error, code, "%c%s", tolower((unsigned char)text[0]), text + 1);
}

/* Bytes, 0 at the end, or -errno. */
static ssize_t move(const struct stream_dev *stream, struct iovec *iov, int count)
{
    bool writing = stream->dev.writable;
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    struct iovec little = {iov->iov_base, min_u64(iov->iov_len, PIPE_BUF)};
    ssize_t moved;

    do {
        if (stream->kind == KIND_SOCKET)
            moved = writing ? sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
                            : recvmsg(stream->fd, &message, MSG_DONTWAIT);
        else if (writing)
            moved = writev(stream->fd, stream->may_block ? &little : iov,
                           stream->may_block ? 1 : count);
        else
            moved = readv(stream->fd, iov, count);
    } while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

/* What the device waits for. */
static ssize_t make_call(struct stream_dev *stream)
{
    struct blk_req *req = stream->first;

    if (stream->opening) {
        stream->start_iov = (struct iovec){stream->start, STREAM_START};
        return move(stream, &stream->start_iov, 1);
    }
    if (req->op == BLK_FLUSH)
        return fdatasync(stream->fd) < 0 && errno != EINVAL && errno != EROFS ? -errno : 0;
    return move(stream, req->iov, req->iovcnt < IOV_MAX ? req->iovcnt : IOV_MAX);
}

/* ---- Requests --------------------------------------------------------------------------------- */

static void complete(struct stream_dev *stream, int status)
{
    struct blk_req *req = stream->first;

    stream->first = req->next;
    if (!stream->first)
        stream->last = &stream->first;
    if (req->op == BLK_READ)
        req->got = stream->moved;
    stream->moved = 0;
    /* A pipe's other end has it, and nobody can do more; a file is flushed in the end. */
    req->epoch = 1;
    req->durable = stream->kind != KIND_FILE;
    blk_complete(req, status);
}

static void complete_all(struct stream_dev *stream, int status)
{
    while (stream->first)
        complete(stream, status);
}

/* Takes what has been moved off the front of the request. */
static void advance(struct stream_dev *stream, size_t moved)
{
    struct blk_req *req = stream->first;

    stream->moved += moved;
    assert(stream->moved <= req->len);
    while (req->iovcnt > 0 && moved >= req->iov->iov_len) {
        moved -= req->iov->iov_len;
        req->iov++;
        req->iovcnt--;
    }
    if (moved > 0) {
        req->iov->iov_base = (char *)req->iov->iov_base + moved;
        req->iov->iov_len -= moved;
    }
}

/* Of the bytes that are about to be taken off the front of a READ, those that are kept. */
static void keep(struct stream_dev *stream, size_t moved)
{
    size_t len = min_u64(moved, STREAM_START - stream->kept);

    if (stream->kept == stream->position && len > 0) {
        blk_iov_to(stream->first, 0, stream->start + stream->kept, len);
        stream->kept += len;
    }
}

static void give_kept(struct stream_dev *stream, uint64_t at)
{
    struct blk_req *req = stream->first;
    size_t len = min_u64(stream->kept - at, req->len - stream->moved);

    blk_iov_from(req, 0, stream->start + at, len);
    advance(stream, len);
}

/* As far as the first request gets without a call. False: it needs one. */
static bool step(struct stream_dev *stream)
{
    struct blk_req *req = stream->first;
    uint64_t at = req->offset + stream->moved;

    if (req->op == BLK_FLUSH) {
        if (stream->kind == KIND_FILE)
            return false;
        complete(stream, 0);
        return true;
    }
    if (req->op == BLK_READ && stream->moved < req->len && at < stream->kept)
        give_kept(stream, at);
    at = req->offset + stream->moved;
    if (stream->moved == req->len || (stream->ended && at >= stream->position)) {
        complete(stream, 0);
        return true;
    }
    if (at == stream->position)
        return false;
    complete(stream,
             req->op == BLK_READ
                 ? blk_error_set(&req->error, ESPIPE,
                                 "it is a stream, which is read once and in order; it is at "
                                 "offset %" PRIu64,
                                 stream->position)
                 : blk_error_set(&req->error, ESPIPE,
                                 "it is a stream, which is written in order; it is at "
                                 "offset %" PRIu64,
                                 stream->position));
    return true;
}

static void start_work(struct stream_dev *stream);

static void go_on(struct stream_dev *stream)
{
    while (stream->first && step(stream))
        ;
    if (stream->kind == KIND_FILE && (stream->first || stream->opening) && !stream->working)
        start_work(stream);
}

static void opened(struct stream_dev *stream, ssize_t moved)
{
    struct blk_error error;

    stream->opening = false;
    if (moved < 0) {
        blk_opened(&stream->dev, fail(&error, (int)-moved), &error);
        return;
    }
    stream->kept = (size_t)moved;
    stream->position = (uint64_t)moved;
    stream->ended = moved == 0;
    stream->dev.size = stream->ended ? 0 : BLK_SIZE_UNKNOWN;
    blk_opened(&stream->dev, 0, NULL);
}

/* The call has been made. */
static void take(struct stream_dev *stream, ssize_t moved)
{
    struct blk_req *req = stream->first;

    if (stream->opening) {
        opened(stream, moved);
        return;
    }
    if (moved < 0) {
        complete(stream, fail(&req->error, (int)-moved));
    } else if (req->op == BLK_FLUSH) {
        complete(stream, 0);
    } else if (moved == 0 && req->op == BLK_WRITE) {
        complete(stream, fail(&req->error, EIO)); /* nothing does that; it could go on for ever */
    } else if (moved == 0) {
        stream->ended = true;
    } else {
        if (req->op == BLK_READ)
            keep(stream, (size_t)moved);
        stream->position += (uint64_t)moved;
        advance(stream, (size_t)moved);
    }
    go_on(stream);
}

static void submit(struct blk_dev *dev, struct blk_req *req)
{
    struct stream_dev *stream = stream_of(dev);

    req->next = NULL;
    *stream->last = req;
    stream->last = &req->next;
    if (stream->first == req)
        go_on(stream);
}

/* ---- Waiting ---------------------------------------------------------------------------------- */

static void prepare(struct loop_watch *watch, struct loop_interest *interest)
{
    const struct stream_dev *stream = container_of(watch, struct stream_dev, watch);

    if (stream->kind == KIND_FILE || !(stream->first || stream->opening))
        return;
    interest->fd = stream->fd;
    interest->events = stream->dev.writable ? POLLOUT : POLLIN;
}

static void service(struct loop_watch *watch, short revents)
{
    struct stream_dev *stream = container_of(watch, struct stream_dev, watch);
    ssize_t moved;

    if (!revents || !(stream->first || stream->opening))
        return;
    moved = make_call(stream);
    if (moved != -EAGAIN)
        take(stream, moved);
}

static void run_work(struct loop_work *work)
{
    struct stream_dev *stream = container_of(work, struct stream_dev, work);

    stream->outcome = make_call(stream);
}

static void report_cancelled(struct stream_dev *stream)
{
    if (stream->opening) {
        stream->opening = false;
        blk_opened(&stream->dev, -ECANCELED, NULL);
    }
    complete_all(stream, -ECANCELED);
}

static void work_done(struct loop_work *work)
{
    struct stream_dev *stream = container_of(work, struct stream_dev, work);

    stream->working = false;
    if (stream->cancelled)
        report_cancelled(stream);
    else
        take(stream, stream->outcome);
}

static void start_work(struct stream_dev *stream)
{
    int status;

    stream->work.run = run_work;
    stream->work.done = work_done;
    stream->working = true;
    status = loop_offload(stream->dev.loop, &stream->work);
    if (status == 0)
        return;
    stream->working = false;
    if (stream->opening)
        opened(stream, status);
    else
        complete(stream, fail(&stream->first->error, -status));
}

static void cancel_all(struct blk_dev *dev)
{
    struct stream_dev *stream = stream_of(dev);

    stream->cancelled = true;
    if (!stream->working)
        report_cancelled(stream);
}

/* ---- Life ------------------------------------------------------------------------------------- */

static int check(const struct url *url, struct blk_error *error)
{
    if (strcmp(url->path, "-") == 0)
        return 0;
    return blk_error_set(error, EINVAL, "%s: stdin and stdout are written -", url->text);
}

/* What it leads to, and that it can be used. */
static int look(struct stream_dev *stream, int fd, mode_t *mode, struct blk_error *error)
{
    const char *name = side_name(stream);
    int unfit = stream->dev.writable ? O_RDONLY : O_WRONLY;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return blk_error_set(error, errno, "%s is closed", name);
    *mode = st.st_mode & S_IFMT;
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == unfit)
        return blk_error_set(error, EBADF, "%s is closed, or open for %s only", name,
                             stream->dev.writable ? "reading" : "writing");
    if (*mode == S_IFDIR)
        return blk_error_set(error, EISDIR, "%s is a directory", name);
    if (isatty(fd))
        return blk_error_set(error, EINVAL, "%s is a terminal; a pipe or a file is needed", name);
    return 0;
}

static int take_descriptor(struct stream_dev *stream, struct blk_error *error)
{
    int fd = stream->dev.writable ? STDOUT_FILENO : STDIN_FILENO;
    char link[40];
    mode_t mode = 0;
    int status = look(stream, fd, &mode, error);

    if (status < 0)
        return status;
    stream->kind = mode == S_IFREG || mode == S_IFBLK ? KIND_FILE
                   : mode == S_IFSOCK                 ? KIND_SOCKET
                                                      : KIND_PIPE;
    if (mode == S_IFIFO) {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        stream->fd =
            open(link, (stream->dev.writable ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
        if (stream->fd >= 0)
            return 0;
        stream->may_block = true;
    }
    stream->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return stream->fd < 0 ? fail(error, errno) : 0;
}

static void open_stream(struct blk_dev *dev, const struct blk_open_args *args)
{
    struct stream_dev *stream = stream_of(dev);
    struct blk_error error;
    int status;

    (void)args;
    stream->fd = -1;
    stream->last = &stream->first;
    status = take_descriptor(stream, &error);
    if (status < 0) {
        blk_opened(dev, status, &error);
        return;
    }
    dev->size = BLK_SIZE_UNKNOWN;
    dev->limits = (struct blk_limits){
        .align = 1,
        .mem_align = 1,
        .max_read = 16 * MIB,
        .max_write = 16 * MIB,
        .max_depth = 64,
    };
    stream->watch.prepare = prepare;
    stream->watch.service = service;
    loop_watch(dev->loop, &stream->watch);
    if (dev->writable) {
        blk_opened(dev, 0, NULL);
        return;
    }
    stream->opening = true;
    go_on(stream);
}

static void close_stream(struct blk_dev *dev)
{
    struct stream_dev *stream = stream_of(dev);

    assert(!stream->first && !stream->working);
    loop_unwatch(dev->loop, &stream->watch);
    if (stream->fd >= 0)
        close(stream->fd);
    blk_closed(dev);
}

static void describe(struct blk_dev *dev, struct blk_report *report)
{
    static const char *const kinds[] = {
        [KIND_PIPE] = "a pipe or device", [KIND_SOCKET] = "a socket", [KIND_FILE] = "a file"};
    const struct stream_dev *stream = stream_of(dev);

    blk_report_fact(report, "stream", "stream", "%s, %s; how long it is, its end tells",
                    side_name(stream), kinds[stream->kind]);
}

extern const struct blk_driver stream_driver;

const struct blk_driver stream_driver = {
    .name = "stream",
    .scheme = "stdio",
    .syntax = "- (stdin or stdout)",
    .dev_size = sizeof(struct stream_dev),
    .check = check,
    .open = open_stream,
    .close = close_stream,
    .submit = submit,
    .cancel_all = cancel_all,
    .describe = describe,
};
