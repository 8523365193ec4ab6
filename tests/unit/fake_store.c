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
    fs->session = 1;
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
        const char *name = fs->files[i].name;

        if (strstr(name, ".lunferry-") && !strstr(name, ".lunferry-lock"))
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
    disk->extents_cut = fs->like.extents_cut;
    disk->extents_reach = fs->like.extents_reach;
    disk->extents_most = fs->like.extents_most;
    disk->zero_durable = fs->like.zero_durable;
    disk->discard_scrambles = fs->like.discard_scrambles;
    disk->refuses = fs->like.refuses;
    disk->refuse_after = fs->like.refuse_after;
    disk->zero_left = fs->like.zero_left;
    disk->logging = fs->like.logging;
    disk->in_order = fs->like.in_order;
    disk->epoch_of_session = fs->like.epoch_of_session;
    disk->recover_lost = fs->like.recover_lost;
    disk->other = fs->like.other;
    disk->identity = fs->like.identity;
    disk->mtime_ns = fs->like.mtime_ns;
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

/* Whoever serves the directory serves its files. */
void fake_fs_lose(struct fake_fs *fs, bool applies)
{
    fs->session++;
    for (unsigned i = 0; i < fs->fake->pending_count; i++) {
        struct fake_op *op = &fs->fake->pending[i];

        if (op->store && op->store->fs == fs)
            fake_hang_up(fs->fake, NULL, NULL, op->store, applies);
    }
    for (size_t i = 0; i < FAKE_MAX_FILES; i++) {
        if (fs->files[i].name[0])
            fake_disk_lose(fs->files[i].disk, applies);
    }
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
    if (strstr(name, ".lunferry-lock"))
        return "(lock)";
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

static uint64_t id_of(const struct fake_file *file)
{
    return file ? (uint64_t)(uintptr_t)file->disk : 0;
}

/* By which it is known again when its answer is lost: a number of its own, or the file that it is
 * about. */
static uint64_t token_for(struct fake_fs *fs, const struct store_req *req)
{
    return req->op == STORE_CREATE ? ++fs->tokens : id_of(fake_fs_find(fs, req->name));
}

static void fake_store_recover(struct store *store)
{
    struct fake_store *fake_store = (struct fake_store *)store;
    struct fake_op op = {.kind = FAKE_STORE_RECOVER, .store = fake_store};

    must(fake_store->fs->fake, fake_store->in_flight == 0 && !fake_store->recovering);
    fake_store->recovering = true;
    fake_add(fake_store->fs->fake, &op);
}

static void fake_store_submit(struct store *store, struct store_req *req)
{
    struct fake_store *fake_store = (struct fake_store *)store;
    struct fake_op op = {.kind = FAKE_STORE, .store = fake_store, .store_req = req};

    must(fake_store->fs->fake, !fake_store->recovering);
    must(fake_store->fs->fake, req->token == 0 || req->item.tries > 0);
    fake_store->in_flight++;
    if (req->token == 0)
        req->token = token_for(fake_store->fs, req);
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
    .recover = fake_store_recover,
};

/* ---- Completing ------------------------------------------------------------------------------- */

static int create(struct fake_fs *fs, struct store_req *req)
{
    struct fake_file *file = fake_fs_find(fs, req->name);

    must(fs->fake, strlen(req->name) <= 255);
    if (file)
        return req->repeated && file->token == req->token ? 0 : -EEXIST;
    file = fake_fs_make(fs, req->name, 0);
    file->attr.mode = req->attr.mode;
    file->token = req->token;
    return 0;
}

static int give_name(struct fake_fs *fs, struct store_req *req)
{
    struct fake_file *from = fake_fs_find(fs, req->name), *to = fake_fs_find(fs, req->new_name);

    bool is_done = req->repeated && to && id_of(to) == req->token;

    if (!from)
        return is_done && req->op == STORE_RENAME ? 0 : -ENOENT;
    if (req->op == STORE_LINK) {
        if (to)
            return is_done ? 0 : -EEXIST;
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

/* Small files, which nobody opens as devices. */
static int read_text(const struct fake_file *file, struct store_req *req)
{
    size_t offset = min_u64(req->offset, file->text_len);

    req->got = min_u64(req->len, file->text_len - offset);
    memcpy(req->buf, file->text + offset, req->got);
    return 0;
}

static int write_text(struct fake_fs *fs, struct fake_file *file, const struct store_req *req)
{
    must(fs->fake, req->offset + req->len <= FAKE_TEXT);
    memcpy(file->text + req->offset, req->buf, req->len);
    if (req->offset + req->len > file->text_len)
        file->text_len = req->offset + req->len;
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
    case STORE_READ:
        return file ? read_text(file, req) : -ENOENT;
    case STORE_WRITE:
        return file ? write_text(fs, file, req) : -ENOENT;
    case STORE_REMOVE:
        if (!file)
            return req->repeated && req->token ? 0 : -ENOENT;
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
    bool applies;
    int status = fake_outcome(fake, op, &req->error, &applies);

    op->store->in_flight--;
    /* A server that says "not now" has not done it; only a lost answer leaves that open. */
    if ((status == -ECANCELED || (status < 0 && req->error.retry == BLK_LOST)) && applies &&
        !fs->refuse[req->op])
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

static void complete_recover(struct fake *fake, const struct fake_op *op)
{
    struct fake_fs *fs = op->store->fs;
    struct blk_error error;
    int status = fake_look_again(fake, op, op->store->session != fs->session, &fs->recover_lost,
                                 fs->other, &error);

    op->store->recovering = false;
    if (status == 0)
        op->store->session = fs->session;
    store_recovered(&op->store->store, status, status == -ECANCELED ? NULL : &error);
}

static void complete_open(struct fake *fake, const struct fake_op *op)
{
    struct blk_error error;
    bool applies;
    int status = fake_outcome(fake, op, &error, &applies);

    fake->failed_opens += status < 0;
    op->store->counted = status == 0;
    op->store->session = op->store->fs->session;
    if (status == 0)
        op->store->fs->open++;
    store_opened(&op->store->store, status, status == -ECANCELED ? NULL : &error);
}

void fake_complete_store(struct fake *fake, const struct fake_op *op)
{
    switch (op->kind) {
    case FAKE_STORE_OPEN:
        complete_open(fake, op);
        break;
    case FAKE_STORE_CLOSE:
        if (op->store->counted)
            op->store->fs->open--;
        store_closed(&op->store->store);
        break;
    case FAKE_STORE_RECOVER:
        complete_recover(fake, op);
        break;
    default:
        complete_request(fake, op);
        break;
    }
}
