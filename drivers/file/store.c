/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A local directory and the names in it. Everything is relative to the directory's descriptor, so it
 * stays the same directory when a path to it changes; symbolic links are not followed, so nothing in
 * it leads out of it.
 */
#include "private.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPEN_FLAGS (O_CLOEXEC | O_NOCTTY | O_NOFOLLOW)

/* store_req.state while a LIST is under way: names, each with its '\0'. */
struct names {
    size_t len, capacity;
    char text[];
};

static struct file_store *store_of(struct store_req *req)
{
    return (struct file_store *)req->store;
}

static struct file_store *store_of_work(struct loop_work *work)
{
    return (struct file_store *)((char *)work - offsetof(struct file_store, work));
}

static struct store_req *req_of_work(struct loop_work *work)
{
    return (struct store_req *)((char *)work - offsetof(struct store_req, work));
}

/* ---- Files, in a helper thread ---------------------------------------------------------------- */

static int fail(struct store_req *req, int code)
{
    if (code == ELOOP)
        return blk_error_set(&req->error, code, "it is a symbolic link, which is not followed");
    return file_error(&req->error, code);
}

/* Opens a regular file of the directory; -errno with the sentence. */
static int open_regular(struct store_req *req, int flags)
{
    /* O_NONBLOCK, so that a pipe of this name does not stop the thread. */
    int fd = openat(store_of(req)->dirfd, req->name, flags | O_NONBLOCK | OPEN_FLAGS), status = 0;
    struct stat st;

    if (fd < 0)
        return fail(req, errno);
    if (fstat(fd, &st) < 0)
        status = fail(req, errno);
    else if (!S_ISREG(st.st_mode))
        status = blk_error_set(&req->error, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
                               "it is not a regular file");
    if (status == 0)
        return fd;
    close(fd);
    return status;
}

/* Makes changes of names durable. */
static int sync_directory(struct store_req *req)
{
    /* EINVAL: a filesystem that cannot, and then has nothing to wait for. */
    if (fsync(store_of(req)->dirfd) < 0 && errno != EINVAL)
        return blk_error_set(&req->error, errno, "the directory could not be synced: %s",
                             strerror(errno));
    return 0;
}

static enum store_type type_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return STORE_FILE;
    case S_IFDIR:
        return STORE_DIRECTORY;
    case S_IFLNK:
        return STORE_SYMLINK;
    default:
        return STORE_OTHER;
    }
}

static void fill_attr(struct store_attr *attr, const struct stat *st)
{
    *attr = (struct store_attr){
        .type = type_of(st->st_mode),
        .mode = st->st_mode & 07777,
        .size = (uint64_t)st->st_size,
        .used = (uint64_t)st->st_blocks * 512,
        .file_id = st->st_ino,
        .mtime_ns = file_nanoseconds(st->st_mtim),
        .ctime_ns = file_nanoseconds(st->st_ctim),
    };
}

static int do_stat(struct store_req *req)
{
    int dirfd = store_of(req)->dirfd;
    struct stat st, behind;

    if (fstatat(dirfd, req->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(req, errno);
    if (S_ISLNK(st.st_mode) && fstatat(dirfd, req->name, &behind, 0) == 0 &&
        S_ISBLK(behind.st_mode))
        st = behind;
    fill_attr(&req->attr, &st);
    return 0;
}

/* The mode is what was asked for, whatever the umask says: the caller may want that of the file
 * that this one will replace. */
static int finish_create(struct store_req *req, int fd)
{
    struct stat st;

    if (fchmod(fd, req->attr.mode & 07777) < 0 || fsync(fd) < 0 || fstat(fd, &st) < 0)
        return fail(req, errno);
    fill_attr(&req->attr, &st);
    return sync_directory(req);
}

static int do_create(struct store_req *req)
{
    int dirfd = store_of(req)->dirfd, status;
    int fd =
        openat(dirfd, req->name, O_WRONLY | O_CREAT | O_EXCL | OPEN_FLAGS, req->attr.mode & 07777);

    if (fd < 0)
        return fail(req, errno);
    status = finish_create(req, fd);
    if (status < 0)
        unlinkat(dirfd, req->name, 0); /* nobody will know that it is there */
    close(fd);
    return status;
}

static struct file_io whole_request(struct store_req *req, int fd, struct iovec *iov)
{
    *iov = (struct iovec){req->buf, req->len};
    return (struct file_io){
        .fd = fd,
        .direct_fd = -1,
        .iov = iov,
        .iovcnt = 1,
        .offset = req->offset,
        .left = req->len,
    };
}

static int do_read(struct store_req *req)
{
    int fd = open_regular(req, O_RDONLY), status;
    struct file_io io;
    struct iovec iov;

    if (fd < 0)
        return fd;
    io = whole_request(req, fd, &iov);
    status = file_read(&io, false);
    close(fd);
    req->got = req->len - io.left;
    return status < 0 ? fail(req, -status) : 0;
}

static int do_write(struct store_req *req)
{
    /* With O_APPEND the offset does not matter. */
    int fd = open_regular(req, O_WRONLY | (req->op == STORE_APPEND ? O_APPEND : 0)), status;
    struct file_io io;
    struct iovec iov;

    if (fd < 0)
        return fd;
    io = whole_request(req, fd, &iov);
    status = file_write(&io, true);
    close(fd);
    return status < 0 ? fail(req, -status) : 0;
}

static int do_sync(struct store_req *req)
{
    int fd = open_regular(req, O_RDONLY), status = 0;

    if (fd < 0)
        return fd;
    if (fsync(fd) < 0)
        status = blk_error_set(&req->error, errno, "fsync: %s; what was written before may be lost",
                               strerror(errno));
    close(fd);
    return status;
}

static int do_setattr(struct store_req *req)
{
    int fd = open_regular(req, O_RDONLY), status = 0;

    if (fd < 0)
        return fd;
    if (fchmod(fd, req->attr.mode & 07777) < 0 || fsync(fd) < 0)
        status = fail(req, errno);
    close(fd);
    return status;
}

/* ---- Names, in a helper thread ---------------------------------------------------------------- */

static int do_link(struct store_req *req)
{
    int dirfd = store_of(req)->dirfd;

    if (linkat(dirfd, req->name, dirfd, req->new_name, 0) == 0)
        return sync_directory(req);
    if (errno == EPERM || errno == EOPNOTSUPP)
        return blk_error_set(&req->error, errno, "%s; perhaps the filesystem has no hard links",
                             strerror(errno));
    return fail(req, errno);
}

static int do_rename(struct store_req *req)
{
    int dirfd = store_of(req)->dirfd;

    if (renameat(dirfd, req->name, dirfd, req->new_name) < 0)
        return fail(req, errno);
    return sync_directory(req);
}

static int do_remove(struct store_req *req)
{
    if (unlinkat(store_of(req)->dirfd, req->name, 0) < 0)
        return fail(req, errno);
    return sync_directory(req);
}

static bool add_name(struct store_req *req, const char *name)
{
    struct names *names = req->state;
    size_t len = strlen(name) + 1;

    if (names == NULL || names->len + len > names->capacity) {
        size_t used = names != NULL ? names->len : 0, capacity = 2 * (used + len) + 1024;

        names = realloc(names, sizeof *names + capacity);
        if (names == NULL)
            return false;
        names->len = used;
        names->capacity = capacity;
        req->state = names;
    }
    memcpy(names->text + names->len, name, len);
    names->len += len;
    return true;
}

static int read_names(struct store_req *req, DIR *dir)
{
    for (;;) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(dir);
        if (entry == NULL)
            return errno != 0 ? fail(req, errno) : 0;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            !add_name(req, entry->d_name))
            return fail(req, ENOMEM);
    }
}

static int do_list(struct store_req *req)
{
    /* Its own descriptor, because of the position in the directory. */
    int fd = openat(store_of(req)->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), status;
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (dir == NULL) {
        status = fail(req, errno);
        if (fd >= 0)
            close(fd);
        return status;
    }
    status = read_names(req, dir);
    closedir(dir);
    return status;
}

/* ---- Requests --------------------------------------------------------------------------------- */

static int perform(struct store_req *req)
{
    switch (req->op) {
    case STORE_STAT:
        return do_stat(req);
    case STORE_CREATE:
        return do_create(req);
    case STORE_READ:
        return do_read(req);
    case STORE_WRITE:
    case STORE_APPEND:
        return do_write(req);
    case STORE_SYNC:
        return do_sync(req);
    case STORE_LINK:
        return do_link(req);
    case STORE_RENAME:
        return do_rename(req);
    case STORE_REMOVE:
        return do_remove(req);
    case STORE_SETATTR:
        return do_setattr(req);
    case STORE_LIST:
        return do_list(req);
    }
    return fail(req, EINVAL);
}

static void run_request(struct loop_work *work)
{
    struct store_req *req = req_of_work(work);

    req->status = atomic_load(&store_of(req)->cancels) != req->stage ? -ECANCELED : perform(req);
}

static void request_done(struct loop_work *work)
{
    struct store_req *req = req_of_work(work);
    struct names *names = req->state;

    req->state = NULL;
    for (size_t at = 0; req->status == 0 && names != NULL && at < names->len;
         at += strlen(names->text + at) + 1)
        req->entry(req, names->text + at);
    free(names);
    store_complete(req, req->status);
}

static void submit(struct store *store, struct store_req *req)
{
    int status;

    req->stage = atomic_load(&((struct file_store *)store)->cancels);
    req->work.run = run_request;
    req->work.done = request_done;
    status = loop_offload(store->loop, &req->work);
    if (status < 0)
        store_complete(req,
                       blk_error_set(&req->error, -status, "no helper thread could be started"));
}

/* ---- The life of a store ---------------------------------------------------------------------- */

/* "a/b" -> "a", "b" -> ".", "/b" -> "/" */
static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static void run_open(struct loop_work *work)
{
    struct file_store *file = store_of_work(work);

    if (atomic_load(&file->cancels) != 0)
        return;
    file->dirfd = open(file->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    file->result = file->dirfd < 0 ? -errno : 0;
}

static void open_done(struct loop_work *work)
{
    struct file_store *file = store_of_work(work);
    struct blk_error error;

    if (atomic_load(&file->cancels) != 0)
        store_opened(&file->store, -ECANCELED, NULL);
    else if (file->result < 0)
        store_opened(&file->store, file_error(&error, -file->result), &error);
    else
        store_opened(&file->store, 0, NULL);
}

static void open_store(struct store *store, const struct blk_open_args *args)
{
    struct file_store *file = (struct file_store *)store;
    struct blk_error error;
    int status;

    file->dirfd = -1;
    atomic_init(&file->cancels, 0);
    file->path = directory_of(args->url->path);
    if (file->path == NULL) {
        store_opened(store, file_error(&error, ENOMEM), &error);
        return;
    }
    file->work.run = run_open;
    file->work.done = open_done;
    status = loop_offload(store->loop, &file->work);
    if (status < 0)
        store_opened(store, blk_error_set(&error, -status, "no helper thread could be started"),
                     &error);
}

static void close_store(struct store *store)
{
    struct file_store *file = (struct file_store *)store;

    /* Nothing was written through it: this does not wait. */
    if (file->dirfd >= 0)
        close(file->dirfd);
    free(file->path);
    store_closed(store);
}

static void cancel_all(struct store *store)
{
    atomic_fetch_add(&((struct file_store *)store)->cancels, 1);
}

const struct store_driver file_store_driver = {
    .store_size = sizeof(struct file_store),
    .open = open_store,
    .close = close_store,
    .submit = submit,
    .cancel_all = cancel_all,
};
