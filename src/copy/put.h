/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small file, whole or not at all: it is written under a temporary name and then given its own.
 */
#ifndef LUNFERRY_PUT_H
#define LUNFERRY_PUT_H

#include <lunferry/store.h>

struct put {
    /* Set by the owner, valid until done(). */
    struct store *store;
    const char *name;
    unsigned mode;
    void *bytes;
    size_t len;
    bool replace; /* what has the name; otherwise that is -EEXIST */
    void (*done)(struct put *put, int status);
    void *opaque;

    struct blk_error error; /* valid in done(), with a status < 0 */

    /* private */
    char temporary[256];
    struct store_req req;
    void (*then)(struct put *put, int status);
};

/* -> done(), from the loop, once. At once -EIO, without a call of done(), where the system gives no
 * random number for a temporary name. */
int put_start(struct put *put);

#endif
