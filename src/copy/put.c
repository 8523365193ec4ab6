/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "put.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

typedef void step_fn(struct put *put, int status);

static void req_done(struct store_req *req)
{
    struct put *put = req->opaque;

    put->then(put, req->status);
}

static void req_then(struct put *put, enum store_op op, const char *new_name, step_fn *then)
{
    put->then = then;
    put->req = (struct store_req){
        .op = op,
        .name = put->temporary,
        .new_name = new_name,
        .attr.mode = put->mode,
        .offset = put->offset,
        .buf = put->bytes,
        .len = put->len,
        .done = req_done,
        .opaque = put,
    };
    store_submit(put->store, &put->req);
}

/* The outcome is known already; at worst a file of another name stays. What was cancelled is tried once
 * more: a store serves what comes after that. */
static void temporary_removed(struct put *put, int status)
{
    if (status == -ECANCELED && !put->removing_again) {
        put->removing_again = true;
        req_then(put, STORE_REMOVE, NULL, temporary_removed);
        return;
    }
    put->done(put, -put->error.code);
}

static void named(struct put *put, int status)
{
    if (status < 0)
        put->error = put->req.error;
    if (status == 0 && put->req.op == STORE_RENAME)
        put->done(put, 0);
    else
        req_then(put, STORE_REMOVE, NULL, temporary_removed);
}

static void linked(struct put *put, int status)
{
    /* Without hard links a file that is made at the same moment is lost; there is nothing better. */
    if (status == -EPERM || status == -ENOTSUP || status == -ENOSYS)
        req_then(put, STORE_RENAME, put->name, named);
    else
        named(put, status);
}

static void written(struct put *put, int status)
{
    if (status == 0 && put->stopping)
        status = blk_error_set(&put->req.error, ECANCELED, "cancelled");
    if (status == 0 && put->more) {
        put->offset += put->len;
        put->len = put->more(put);
        if (put->len > 0) {
            req_then(put, STORE_WRITE, NULL, written);
            return;
        }
    }
    if (status < 0)
        named(put, status);
    else if (put->replace)
        req_then(put, STORE_RENAME, put->name, named);
    else
        req_then(put, STORE_LINK, put->name, linked);
}

static void created(struct put *put, int status)
{
    if (status == 0 && put->stopping) {
        written(put, 0);
        return;
    }
    if (status == 0) {
        req_then(put, STORE_WRITE, NULL, written);
        return;
    }
    put->error = put->req.error;
    if (put->req.unsure)
        req_then(put, STORE_REMOVE, NULL, temporary_removed);
    else
        put->done(put, status);
}

int put_start(struct put *put)
{
    uint64_t number;

    blk_error_clear(&put->error);
    put->offset = 0;
    put->removing_again = false;
    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return blk_error_set(&put->error, EIO,
                             "the system gives no random number for a temporary name");
    snprintf(put->temporary, sizeof(put->temporary), ".%.200s.lunferry-%016" PRIx64, put->name,
             number);
    req_then(put, STORE_CREATE, NULL, created);
    return 0;
}
