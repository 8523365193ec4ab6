/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The source of a job: one device, however many were named. It opens them all, checks what was asked
 * of them, and joins them.
 */
#ifndef LUNFERRY_SOURCE_H
#define LUNFERRY_SOURCE_H

#include <lunferry/copy.h>

struct source {
    /* Set by the owner. */
    struct loop *loop;
    const struct copy_options *options;
    struct blk_watcher *watcher;
    void (*done)(struct source *source, int status); /* with a status < 0, `error` says why */
    void *opaque;

    struct blk_dev *dev; /* valid when source_join() is done */
    uint64_t size; /* bytes of the image, or BLK_SIZE_UNKNOWN; valid when source_open() is done */
    struct blk_error error;

    /* private */
    struct source_end *ends; /* options->source_count */
    unsigned outstanding;
    bool joined; /* the devices belong to `dev` */
    char *name;  /* of the join */
    struct blk_task task;
};

/* Opens all of them, and checks their sizes and the range. session_id: that of an only source. */
void source_open(struct source *source, uint64_t session_id);
/* Makes them one device, with so many bytes of zeros behind it. */
void source_join(struct source *source, uint64_t zeros);
/* Closes what is open; status is always 0. */
void source_close(struct source *source);
/* What is under way, except a close, ends soon with -ECANCELED. */
void source_cancel(struct source *source);

/* What was opened, one by one; they stay open until source_close(). */
const struct blk_dev *source_end_dev(const struct source *source, unsigned i);
const struct image *source_end_image(const struct source *source, unsigned i);
/* The part of it that is copied. */
void source_end_range(const struct source *source, unsigned i, uint64_t *offset, uint64_t *len);

#endif
