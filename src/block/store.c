/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store's middle: the same promises as for devices (checked names, done() exactly once and from
 * the loop, errors that name operation and file), over a driver's hooks. */
#include <lunferry/driver.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void report_call(struct loop_call *call);

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
    if (!store->name) {
        free(store);
        return NULL;
    }
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
    loop_defer(store->loop, &store->call);
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
    free(store->name);
    free(store);
    if (task) {
        task->status = 0;
        blk_error_clear(&task->error);
        task->done(task);
    }
}

void store_close(struct store *store, struct blk_task *task)
{
    assert(!store->opening && !store->closing && store->in_flight == 0);
    store->closing = true;
    store->task = task;
    store->driver->close(store);
}

void store_cancel_all(struct store *store)
{
    store->driver->cancel_all(store);
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

void store_complete(struct store_req *req, int status)
{
    assert(status == 0 || status == -ECANCELED || req->error.code != 0);
    req->status = status;
    loop_defer(req->store->loop, &req->call);
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
    blk_error_clear(&req->error);
    store->in_flight++;
    if ((req->op != STORE_LIST && !name_is_good(req->name)) ||
        ((req->op == STORE_LINK || req->op == STORE_RENAME) && !name_is_good(req->new_name))) {
        store_complete(req, blk_error_set(&req->error, EINVAL, "not a file name"));
        return;
    }
    store->driver->submit(store, req);
}
