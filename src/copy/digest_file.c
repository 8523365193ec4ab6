/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "digest_file.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/copy.h>

#define PART (1u << 20) /* bytes of one READ or WRITE */

typedef void step_fn(struct digest_file *file, int status);

/* ---- Steps ------------------------------------------------------------------------------------ */

static void forget(struct digest_file *file)
{
    if (file->encoding)
        digest_encode_release(&file->encoder);
    file->encoding = false;
    free(file->buffer);
    file->buffer = NULL;
}

static void end(struct digest_file *file, int status)
{
    forget(file);
    file->done(file, status);
}

static void fail(struct digest_file *file, const struct blk_error *error)
{
    file->error = *error;
    end(file, -error->code);
}

static void refuse(struct digest_file *file, int code, const char *text)
{
    struct blk_error error;

    blk_error_set(&error, code, "%s: %s", file->url->text, text);
    fail(file, &error);
}

/* Goes on with the next step, unless that was cancelled between two. */
static void go_on(struct digest_file *file, int status)
{
    if (file->stopping && status == 0)
        refuse(file, ECANCELED, "cancelled");
    else
        file->then(file, status);
}

static void task_done(struct blk_task *task)
{
    go_on(task->opaque, task->status);
}

static struct blk_task *task_then(struct digest_file *file, step_fn *then)
{
    file->then = then;
    file->task = (struct blk_task){.done = task_done, .opaque = file};
    return &file->task;
}

static void req_done(struct store_req *req)
{
    go_on(req->opaque, req->status);
}

static void req_then(struct digest_file *file, enum store_op op, uint64_t offset, size_t len,
                     step_fn *then)
{
    file->then = then;
    file->req = (struct store_req){
        .op = op,
        .name = file->name,
        .offset = offset,
        .buf = file->buffer,
        .len = len,
        .done = req_done,
        .opaque = file,
    };
    store_submit(file->store, &file->req);
}

/* ---- Reading ---------------------------------------------------------------------------------- */

static void read_part(struct digest_file *file, uint64_t offset);

static void part_read(struct digest_file *file, int status)
{
    struct blk_error error;
    bool more = file->req.got == file->req.len;

    if (status < 0) {
        fail(file, &file->req.error);
        return;
    }
    status = digest_decode(&file->decoder, file->buffer, file->req.got, &error);
    if (status == 0 && !more)
        status = digest_decode_end(&file->decoder, &file->list, &error);
    if (status < 0) {
        blk_error_prefix(&error, "%s", file->url->text);
        fail(file, &error);
    } else if (more) {
        read_part(file, file->req.offset + file->req.got);
    } else {
        file->stands_for = &file->decoder.subject;
        end(file, 0);
    }
}

static void read_part(struct digest_file *file, uint64_t offset)
{
    req_then(file, STORE_READ, offset, PART, part_read);
}

static void begin_reading(struct digest_file *file)
{
    file->decoding = true;
    if (digest_decode_init(&file->decoder, file->digest) < 0)
        refuse(file, ENOMEM, "out of memory");
    else
        read_part(file, 0);
}

/* ---- May it be written? ----------------------------------------------------------------------- */

/* One wrong word on the command line must not cost an image. */
static void start_read(struct digest_file *file, int status)
{
    if (status < 0)
        fail(file, &file->req.error);
    else if (!digest_is_file(file->buffer, file->req.got))
        refuse(file, EEXIST, "it exists and is no digest file: it is left alone");
    else
        end(file, 0);
}

static void looked_up(struct digest_file *file, int status)
{
    bool exists = status == 0;

    if (status < 0 && (status != -ENOENT || file->read)) {
        fail(file, &file->req.error);
        return;
    }
    file->put.replace = exists;
    if (exists && file->req.attr.type == STORE_DIRECTORY)
        refuse(file, EISDIR, "it is a directory; name a file in it");
    else if (exists && file->req.attr.type != STORE_FILE)
        refuse(file, EINVAL, "it is no regular file");
    else if (file->read)
        begin_reading(file);
    else if (!exists)
        end(file, 0);
    else if (!file->overwrite)
        refuse(file, EEXIST, "it exists; --overwrite would replace it");
    else
        req_then(file, STORE_READ, 0, DIGEST_HEADER, start_read);
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void store_is_open(struct digest_file *file, int status)
{
    if (status < 0)
        fail(file, &file->task.error);
    else
        req_then(file, STORE_STAT, 0, 0, looked_up);
}

static void refused(struct loop_call *call)
{
    struct digest_file *file = container_of(call, struct digest_file, call);

    end(file, -file->error.code);
}

/* What is known at once is told from the loop all the same. */
static void end_soon(struct digest_file *file)
{
    file->call.run = refused;
    loop_defer(file->loop, &file->call);
}

void digest_file_open(struct digest_file *file)
{
    const char *slash = strrchr(file->url->path, '/');
    struct blk_open_args args = {
        .url = file->url,
        .writable = !file->read,
        .settings = file->settings,
        .watcher = file->watcher,
    };

    file->name = slash ? slash + 1 : file->url->path;
    if (!store_exists_for(file->url))
        blk_error_set(&file->error, EINVAL, "%s: a digest file has a local path or an nfs:// URL",
                      file->url->text);
    else if (file->name[0] == '\0' || strcmp(file->name, ".") == 0 || strcmp(file->name, "..") == 0)
        blk_error_set(&file->error, EISDIR, "%s: it is a directory; name a file in it",
                      file->url->text);
    else if (!(file->digest = digest_new(&file->error)))
        assert(file->error.code != 0);
    else if (!(file->buffer = malloc(PART)) ||
             !(file->store = store_open(file->loop, &args, task_then(file, store_is_open))))
        blk_error_set(&file->error, ENOMEM, "out of memory");
    if (file->error.code != 0)
        end_soon(file);
}

/* ---- Writing ---------------------------------------------------------------------------------- */

static size_t more_of_it(struct put *put)
{
    struct digest_file *file = put->opaque;

    return digest_encode(&file->encoder, put->bytes, PART);
}

static void put_done(struct put *put, int status)
{
    struct digest_file *file = put->opaque;

    if (status < 0)
        fail(file, &put->error);
    else
        end(file, 0);
}

static void save_now(struct digest_file *file)
{
    file->put = (struct put){
        .store = file->store,
        .name = file->name,
        .mode = file->mode,
        .bytes = file->buffer,
        .len = digest_encode(&file->encoder, file->buffer, PART),
        .more = more_of_it,
        .replace = file->put.replace,
        .done = put_done,
        .opaque = file,
    };
    if (put_start(&file->put) == 0)
        return;
    file->error = file->put.error;
    end_soon(file);
}

/* What is replaced was a digest file when the copy began; it may be the copy by now. */
static void start_read_again(struct digest_file *file, int status)
{
    if (status < 0 && status != -ENOENT)
        fail(file, &file->req.error);
    else if (status == 0 && !digest_is_file(file->buffer, file->req.got))
        refuse(file, EEXIST, "it is no digest file any more: it is left alone");
    else
        save_now(file);
}

void digest_file_save(struct digest_file *file, const struct digest_list *list,
                      const struct digest_subject *subject)
{
    assert(file->store && !file->read);
    if (file->stopping) {
        blk_error_set(&file->error, ECANCELED, "%s: cancelled", file->url->text);
        end_soon(file);
        return;
    }
    file->buffer = malloc(PART);
    file->encoding = true;
    if (!file->buffer || digest_encode_init(&file->encoder, list, subject, file->digest) < 0) {
        blk_error_set(&file->error, ENOMEM, "out of memory");
        end_soon(file);
    } else if (file->put.replace) {
        req_then(file, STORE_READ, 0, DIGEST_HEADER, start_read_again);
    } else {
        save_now(file);
    }
}

/* ---- Closing ---------------------------------------------------------------------------------- */

static void closed(struct digest_file *file, int status)
{
    (void)status;
    file->store = NULL;
    if (file->decoding)
        digest_decode_release(&file->decoder);
    file->decoding = false;
    file->stands_for = NULL;
    digest_list_free(file->list);
    file->list = NULL;
    digest_free(file->digest);
    file->digest = NULL;
    end(file, 0);
}

static void close_soon(struct loop_call *call)
{
    closed(container_of(call, struct digest_file, call), 0);
}

void digest_file_close(struct digest_file *file)
{
    file->stopping = false;
    if (file->store) {
        store_hurry(file->store, COPY_DRAIN);
        store_close(file->store, task_then(file, closed));
        return;
    }
    file->call.run = close_soon;
    loop_defer(file->loop, &file->call);
}

void digest_file_cancel(struct digest_file *file)
{
    file->stopping = file->put.stopping = true;
    if (!file->store)
        return;
    store_cancel_all(file->store);
    store_hurry(file->store, COPY_DRAIN);
}
