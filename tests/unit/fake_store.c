/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Directories of the fake world. */
#include "fake_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

/* ---- Files ------------------------------------------------------------------------------------ */

void fake_fs_init(struct fake_fs *fs, struct fake *fake)
{
    memset(fs, 0, sizeof(*fs));
    fs->fake = fake;
    fake_disk_init(&fs->like, fake, 0, 0);
}

struct fake_file *fake_fs_find(struct fake_fs *fs, const char *name)
{
    for (size_t i = 0; i < FAKE_MAX_FILES; i++) {
        if (fs->files[i].name[0] && strcmp(fs->files[i].name, name) == 0)
            return &fs->files[i];
    }
    return NULL;
}

struct fake_file *fake_fs_temporary(struct fake_fs *fs)
{
    for (size_t i = 0; i < FAKE_MAX_FILES; i++) {
        if (strstr(fs->files[i].name, ".lunferry-"))
            return &fs->files[i];
    }
    return NULL;
}

static struct fake_file *free_place(struct fake_fs *fs)
{
    for (size_t i = 0; i < FAKE_MAX_FILES; i++) {
        if (!fs->files[i].name[0])
            return &fs->files[i];
    }
    must(fs->fake, !"room for another file");
    return NULL;
}

static void set_name(struct fake_file *file, const char *name)
{
    snprintf(file->name, sizeof(file->name), "%s", name);
}

struct fake_file *fake_fs_make(struct fake_fs *fs, const char *name, uint64_t size)
{
    struct fake_file *file = free_place(fs);
    struct fake_disk *disk = malloc(sizeof(*disk));

    must(fs->fake, disk);
    fake_disk_init(disk, fs->fake, size, fs->thin);
    disk->limits = fs->like.limits;
    disk->caps = fs->like.caps;
    disk->write_through = fs->like.write_through;
    disk->in_order = fs->like.in_order;
    *file = (struct fake_file){.disk = disk, .attr = {.type = STORE_FILE, .mode = 0600}};
    set_name(file, name);
    return file;
}

/* The bytes go with the last of their names. */
static void forget(struct fake_fs *fs, struct fake_file *file)
{
    struct fake_disk *disk = file->disk;

    memset(file, 0, sizeof(*file));
    for (size_t i = 0; i < FAKE_MAX_FILES; i++) {
        if (fs->files[i].disk == disk)
            return;
    }
    fake_disk_release(disk);
    free(disk);
}

void fake_fs_release(struct fake_fs *fs)
{
    for (size_t i = 0; i < FAKE_MAX_FILES; i++) {
        if (fs->files[i].name[0])
            forget(fs, &fs->files[i]);
    }
    fake_disk_release(&fs->like);
}

/* ---- The store -------------------------------------------------------------------------------- */

static void fake_store_open(struct store *store, const struct blk_open_args *args)
{
    struct fake_end *end = container_of((uintptr_t)args->url, struct fake_end, url);
    struct fake_store *fake_store = (struct fake_store *)store;
    struct fake_op op = {.kind = FAKE_STORE_OPEN, .store = fake_store};

    fake_store->fs = end->fs;
    fake_add(end->fs->fake, &op);
}

static void fake_store_close(struct store *store)
{
    struct fake_store *fake_store = (struct fake_store *)store;
    struct fake_op op = {.kind = FAKE_STORE_CLOSE, .store = fake_store};

    fake_add(fake_store->fs->fake, &op);
}

static const char *for_log(const char *name)
{
    return strstr(name, ".lunferry-") ? "(temporary)" : name;
}

static void log_request(struct fake_fs *fs, const struct store_req *req)
{
    static const char *const names[] = {"STAT", "CREATE", "READ",   "WRITE",   "APPEND", "SYNC",
                                        "LINK", "RENAME", "REMOVE", "SETATTR", "LIST"};
    size_t at = strlen(fs->log);

    snprintf(fs->log + at, sizeof(fs->log) - at, "%s %s%s%s\n", names[req->op], for_log(req->name),
             req->new_name ? " " : "", req->new_name ? for_log(req->new_name) : "");
}

static void fake_store_submit(struct store *store, struct store_req *req)
{
    struct fake_store *fake_store = (struct fake_store *)store;
    struct fake_op op = {.kind = FAKE_STORE, .store = fake_store, .store_req = req};

    log_request(fake_store->fs, req);
    fake_add(fake_store->fs->fake, &op);
}

static void fake_store_cancel_all(struct store *store)
{
    struct fake_store *fake_store = (struct fake_store *)store;

    fake_cancel(fake_store->fs->fake, NULL, fake_store);
}

const struct store_driver fake_store_driver = {
    .store_size = sizeof(struct fake_store),
    .open = fake_store_open,
    .close = fake_store_close,
    .submit = fake_store_submit,
    .cancel_all = fake_store_cancel_all,
};

/* ---- Completing ------------------------------------------------------------------------------- */

static int create(struct fake_fs *fs, struct store_req *req)
{
    must(fs->fake, strlen(req->name) <= 255);
    if (fake_fs_find(fs, req->name))
        return -EEXIST;
    fake_fs_make(fs, req->name, 0)->attr.mode = req->attr.mode;
    return 0;
}

static int give_name(struct fake_fs *fs, struct store_req *req)
{
    struct fake_file *from = fake_fs_find(fs, req->name), *to = fake_fs_find(fs, req->new_name);

    if (!from)
        return -ENOENT;
    if (req->op == STORE_LINK) {
        if (to)
            return -EEXIST;
        to = free_place(fs);
        *to = *from;
        set_name(to, req->new_name);
        return 0;
    }
    if (to)
        forget(fs, to);
    set_name(from, req->new_name);
    return 0;
}

static int perform(struct fake_fs *fs, struct store_req *req)
{
    struct fake_file *file = fake_fs_find(fs, req->name);

    switch (req->op) {
    case STORE_CREATE:
        return create(fs, req);
    case STORE_LINK:
    case STORE_RENAME:
        return give_name(fs, req);
    case STORE_STAT:
        if (!file)
            return -ENOENT;
        req->attr = file->attr;
        req->attr.size = file->disk->size;
        return 0;
    case STORE_REMOVE:
        if (!file)
            return -ENOENT;
        forget(fs, file);
        return 0;
    default:
        must(fs->fake, !"an operation that nobody needs yet");
        return -ENOSYS;
    }
}

static void complete_request(struct fake *fake, const struct fake_op *op)
{
    struct fake_fs *fs = op->store->fs;
    struct store_req *req = op->store_req;
    int status = fake_outcome(fake, op, &req->error);

    if (status == -ECANCELED && fake->cancel_applies && !fs->refuse[req->op])
        perform(fs, req);
    if (status == 0 && fs->refuse[req->op])
        status = blk_error_set(&req->error, fs->refuse[req->op], "the fake never does that");
    if (status == 0) {
        status = perform(fs, req);
        if (status < 0)
            blk_error_set(&req->error, -status, "%s", strerror(-status));
    }
    store_complete(req, status);
}

void fake_complete_store(struct fake *fake, const struct fake_op *op)
{
    struct blk_error error;
    int status;

    switch (op->kind) {
    case FAKE_STORE_OPEN:
        status = fake_outcome(fake, op, &error);
        op->store->counted = status == 0;
        if (status == 0)
            op->store->fs->open++;
        store_opened(&op->store->store, status, status == -ECANCELED ? NULL : &error);
        break;
    case FAKE_STORE_CLOSE:
        if (op->store->counted)
            op->store->fs->open--;
        store_closed(&op->store->store);
        break;
    default:
        complete_request(fake, op);
        break;
    }
}
