/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store's middle: the same promises as for devices (checked names, done() exactly once and from
 * the loop, errors that name operation and file), over a driver's hooks. */
#include <lunferry/driver.h>

#include "retry.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void report_call(struct loop_call *call);
static const struct retry_owner retry_owner;

static struct store *store_of(struct loop_call *call)
{
    return container_of(call, struct store, call);
}

/* The endpoint without its last component and its options: "nfs://host/export". */
static char *directory_name(const struct url *url)
{
    char *name = strdup(url->text), *end;

    if (!name)
        return NULL;
    if (url->param_count > 0) {
        end = strchr(name, '?');
        if (end)
            *end = '\0';
    }
    end = strrchr(name, '/');
    if (end)
        *end = '\0';
    else
        strcpy(name, name[0] ? "." : "");
    return name;
}

bool store_exists_for(const struct url *url)
{
    return blk_driver_find(url->scheme)->store != NULL;
}

struct store *store_open(struct loop *loop, const struct blk_open_args *args, struct blk_task *task)
{
    const struct store_driver *driver = blk_driver_find(args->url->scheme)->store;
    struct store *store;

    assert(driver && driver->store_size >= sizeof(*store));
    store = calloc(1, driver->store_size);
    if (!store)
        return NULL;
    store->name = directory_name(args->url);
    store->retry = calloc(1, sizeof(*store->retry));
    if (!store->name || !store->retry) {
        free(store->name);
        free(store->retry);
        free(store);
        return NULL;
    }
    retry_init(store->retry, &retry_owner, loop, store->name);
    store->retry->opaque = store;
    store->retry->settings = args->settings;
    store->retry->watcher = args->watcher;
    retry_begin(store->retry);
    store->driver = driver;
    store->loop = loop;
    store->opening = true;
    store->task = task;
    store->call.run = report_call;
    driver->open(store, args);
    return store;
}

void store_opened(struct store *store, int status, const struct blk_error *error)
{
    struct blk_task *task = store->task;

    assert(store->opening);
    retry_end(store->retry);
    if (status == -ECANCELED && store->retry->state == RETRY_GONE) {
        error = &store->retry->error;
        status = -error->code;
    }
    task->status = status;
    if (error && status < 0)
        task->error = *error;
    else
        blk_error_clear(&task->error);
    if (status < 0) {
        if (task->error.code == 0)
            blk_error_set(&task->error, -status, "cancelled");
        blk_error_prefix(&task->error, "opening the directory %s", store->name);
    }
    loop_defer(store->loop, &store->call);
}

void store_closed(struct store *store)
{
    assert(store->closing && store->in_flight == 0);
    store->closed = true;
    loop_defer(store->loop, &store->call);
}

/* When nothing is under way any more. */
static void try_close(struct store *store)
{
    if (!store->closing || store->close_begun || store->retry->looking)
        return;
    store->close_begun = true;
    store->driver->close(store);
}

static void free_store(struct store *store)
{
    struct blk_task *task = store->task;

    retry_release(store->retry);
    free(store->retry);
    free(store->name);
    free(store);
    if (task) {
        task->status = 0;
        blk_error_clear(&task->error);
        task->done(task);
    }
}

static void report_call(struct loop_call *call)
{
    struct store *store = store_of(call);
    struct blk_task *task = store->task;

    if (store->opening) {
        store->opening = false;
        task->done(task);
        return;
    }
    try_close(store);
    if (store->closed)
        free_store(store);
}

void store_close(struct store *store, struct blk_task *task)
{
    assert(!store->opening && !store->closing && store->in_flight == 0);
    store->closing = true;
    store->task = task;
    if (store->retry->looking)
        store->driver->cancel_all(store);
    try_close(store);
}

void store_cancel_all(struct store *store)
{
    retry_cancel(store->retry);
    store->driver->cancel_all(store);
}

void store_hurry(struct store *store, uint64_t ns)
{
    retry_hurry(store->retry, ns);
}

static const char *op_name(enum store_op op)
{
    switch (op) {
    case STORE_STAT:
        return "looking up";
    case STORE_CREATE:
        return "creating";
    case STORE_READ:
        return "reading";
    case STORE_WRITE:
    case STORE_APPEND:
        return "writing";
    case STORE_SYNC:
        return "syncing";
    case STORE_LINK:
        return "linking";
    case STORE_RENAME:
        return "renaming";
    case STORE_REMOVE:
        return "removing";
    case STORE_SETATTR:
        return "setting the mode of";
    case STORE_LIST:
        return "listing";
    }
    return "?";
}

static void report_req(struct loop_call *call)
{
    struct store_req *req = container_of(call, struct store_req, call);

    req->store->in_flight--;
    retry_end(req->store->retry);
    if (req->status < 0) {
        if (req->error.code == 0)
            blk_error_set(&req->error, -req->status, "cancelled");
        if (req->new_name)
            blk_error_prefix(&req->error, "%s %s/%s to %s", op_name(req->op), req->store->name,
                             req->name, req->new_name);
        else
            blk_error_prefix(&req->error, "%s %s/%s", op_name(req->op), req->store->name,
                             req->name ? req->name : "");
    }
    req->done(req);
}

static void finish(struct store_req *req, int status)
{
    req->status = status;
    req->unsure = req->unsure || status == -ECANCELED ||
                  (status < 0 && req->error.retry == BLK_LOST) ||
                  (status < 0 && req->repeated && req->store->retry->state == RETRY_GONE);
    loop_defer(req->store->loop, &req->call);
}

void store_complete(struct store_req *req, int status)
{
    struct retry *retry = req->store->retry;

    assert(status == 0 || status == -ECANCELED || req->error.code != 0);
    if (req->at_driver) {
        req->at_driver = false;
        retry_answered(retry, status == 0);
    }
    if (status < 0 && status != -ECANCELED && retry_keep(retry, &req->item, &req->error)) {
        req->repeated = req->repeated || req->error.retry == BLK_LOST;
        return;
    }
    if (status == -ECANCELED && retry->state == RETRY_GONE) {
        req->error = retry->error;
        status = -req->error.code;
    }
    finish(req, status);
}

static void to_driver(struct store_req *req)
{
    blk_error_clear(&req->error);
    req->got = 0;
    req->at_driver = true;
    retry_sent(req->store->retry);
    req->store->driver->submit(req->store, req);
}

static bool name_is_good(const char *name)
{
    return name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           !strchr(name, '/');
}

void store_submit(struct store *store, struct store_req *req)
{
    assert(!store->opening && !store->closing);
    req->store = store;
    req->call.run = report_req;
    req->call.pending = false;
    req->status = 0;
    req->got = 0;
    req->state = NULL;
    req->stage = 0;
    req->repeated = req->at_driver = req->unsure = false;
    req->token = 0;
    req->item.tries = 0;
    blk_error_clear(&req->error);
    store->in_flight++;
    retry_begin(store->retry);
    if ((req->op != STORE_LIST && !name_is_good(req->name)) ||
        ((req->op == STORE_LINK || req->op == STORE_RENAME) && !name_is_good(req->new_name))) {
        store_complete(req, blk_error_set(&req->error, EINVAL, "not a file name"));
        return;
    }
    if (store->retry->state == RETRY_GONE) {
        req->error = store->retry->error;
        finish(req, -req->error.code);
    } else if (!retry_is_open(store->retry)) {
        retry_wait(store->retry, &req->item);
    } else {
        to_driver(req);
    }
}

/* ---- Keeping and repeating -------------------------------------------------------------------- */

void store_recovered(struct store *store, int status, const struct blk_error *error)
{
    retry_recovered(store->retry, status, error);
}

static struct store *store_of_retry(struct retry *retry)
{
    return retry->opaque;
}

static void recover(struct retry *retry)
{
    struct store *store = store_of_retry(retry);

    if (store->driver->recover)
        store->driver->recover(store);
    else
        retry_recovered(retry, 0, NULL);
}

static void again(struct retry *retry, struct retry_item *item)
{
    (void)retry;
    to_driver(container_of(item, struct store_req, item));
}

static void drop_item(struct retry *retry, struct retry_item *item, const struct blk_error *error)
{
    struct store_req *req = container_of(item, struct store_req, item);

    (void)retry;
    if (error)
        req->error = *error;
    else
        blk_error_set(&req->error, ECANCELED, "cancelled");
    finish(req, -req->error.code);
}

static void settled(struct retry *retry)
{
    struct store *store = store_of_retry(retry);

    if (retry->state == RETRY_GONE)
        store->driver->cancel_all(store);
    loop_defer(store->loop, &store->call);
}

static const struct retry_owner retry_owner = {
    .recover = recover,
    .again = again,
    .drop = drop_item,
    .settled = settled,
};
