/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file, whole or not at all: it is written under a temporary name and then given its own. A small one;
 * with `more` one of any size, which is written part by part.
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
    /* Puts what follows into `bytes` and returns how much that is; 0: that was all. NULL: `bytes` has it
     * all. Called from the loop. */
    size_t (*more)(struct put *put);
    bool replace; /* what has the name; otherwise that is -EEXIST */
    void (*done)(struct put *put, int status);
    void *opaque;

    /* Set by the owner, with what is on its way cancelled: ends with -ECANCELED, unless it has been given its
     * name, and leaves nothing behind. */
    bool stopping;

    struct blk_error error; /* valid in done(), with a status < 0 */

    /* private */
    char temporary[256];
    uint64_t offset; /* of `bytes` in the file */
    bool removing_again;
    struct store_req req;
    void (*then)(struct put *put, int status);
};

/* -> done(), from the loop, once. At once -EIO, without a call of done(), where the system gives no
 * random number for a temporary name. */
int put_start(struct put *put);

#endif
