/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The map of an image: where it has data and where it reads as zeros, as far as it tells. None of the data is
 * read for that, and nothing is changed.
 *
 * All of it runs on the caller's loop; nothing here blocks, prints or exits.
 */
#ifndef LUNFERRY_MAP_H
#define LUNFERRY_MAP_H

#include <lunferry/block.h>
#include <lunferry/image.h>
#include <lunferry/url.h>

struct map_job;

struct map_run {
    uint64_t offset, len; /* bytes; len > 0 */
    bool zeros;           /* reads as zeros; otherwise data, or not known to be anything else */
    bool allocated;       /* something stands for it, be it zeros; otherwise all images of the chain
                             leave it out */
    unsigned depth;       /* 0: in the image that was named; 1: in its backing image; ... */
    uint64_t host_offset; /* where the bytes lie in that one's file; BLK_NO_OFFSET: nowhere as they
                             are */
    bool compressed;
};

struct map_options {
    const struct url *url; /* accepted by blk_check_url() */
    struct image_choice image;
    struct blk_settings settings;
    /* One line for the user that is no failure: a server that goes away, or is back. */
    void (*notice)(void *opaque, bool important, const char *text);
    /* What is known so far, in ascending order, without gaps; neighbours differ, or do not lie in a row.
     * May stop the job. */
    void (*run)(void *opaque, const struct map_run *run);
    void (*done)(struct map_job *job, void *opaque);
    void *opaque;
};

enum map_phase { MAP_OPENING, MAP_WALKING, MAP_CLOSING, MAP_ENDED };

struct map_total {
    uint64_t bytes, runs;
};

#define MAP_USED_UNKNOWN UINT64_MAX

struct map_result {
    int status;                   /* 0: the map is complete; or -errno */
    struct blk_error error;       /* where, and what the server said */
    bool opened;                  /* what follows is valid */
    uint64_t size;                /* bytes */
    enum image_format format;     /* never BY_NAME */
    bool tells;                   /* the device told to the end where its data is */
    uint64_t used;                /* bytes that it takes where it lies; MAP_USED_UNKNOWN */
    struct map_total data, zeros; /* of the runs that were told */
};

/* Starts a job. The options are copied, what they point to outlives the job. NULL: out of memory.
 * done() is called from the loop, once; the job is then freed by the caller. */
struct map_job *map_start(struct loop *loop, const struct map_options *options);
void map_free(struct map_job *job);

/* Ends a job early: what is on the wire is cancelled, and done() reports -ECANCELED, unless the map is
 * complete already. */
void map_stop(struct map_job *job);

enum map_phase map_phase(const struct map_job *job);
const struct map_result *map_result(const struct map_job *job);

#endif
