/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A digest file at an endpoint that has names, a local path or an nfs:// URL: read, or written whole or not
 * at all. One operation at a time; each ends in one call of done().
 */
#ifndef LUNFERRY_DIGEST_FILE_H
#define LUNFERRY_DIGEST_FILE_H

#include <lunferry/store.h>
#include <lunferry/url.h>

#include "digest_format.h"
#include "put.h"

struct digest_file {
    /* Set by the owner. */
    struct loop *loop;
    const struct url *url; /* accepted by blk_check_url() */
    const struct blk_settings *settings;
    struct blk_watcher *watcher;
    bool read;      /* it is there, and read; otherwise it is to be written */
    bool overwrite; /* what is there already, if it is a digest file: nothing else is replaced */
    unsigned mode;  /* of a new file */
    void (*done)(struct digest_file *file, int status); /* with a status < 0, `error` says why */
    void *opaque;

    struct blk_error error;
    /* With `read`, valid when digest_file_open() is done, until digest_file_close(). */
    struct digest_list *list;
    const struct digest_subject *stands_for;

    /* private */
    struct store *store;
    const char *name; /* in url->path */
    struct digest *digest;
    bool stopping; /* digest_file_cancel() was called */
    bool decoding, encoding;
    struct digest_decoder decoder;
    struct digest_encoder encoder;
    unsigned char *buffer;
    struct put put;
    struct store_req req;
    struct blk_task task;
    struct loop_call call;
    void (*then)(struct digest_file *file, int status);
};

/* Opens its directory, and reads it, or sees that it can be written; nothing is changed. */
void digest_file_open(struct digest_file *file);
/* After digest_file_open(): writes it under a temporary name, durably, and gives it its own. The list is
 * complete and stays so; list and subject are valid until done(). */
void digest_file_save(struct digest_file *file, const struct digest_list *list,
                      const struct digest_subject *subject);
/* Closes what is open, if anything is; status is always 0. */
void digest_file_close(struct digest_file *file);
/* The operation under way, except a close, ends soon with -ECANCELED, if there is one. */
void digest_file_cancel(struct digest_file *file);

#endif
