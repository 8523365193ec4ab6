/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A chain of images: opened from the top down, each naming the next, and then built from the bottom up,
 * since a device is made over devices that are open. Private to src/format/image*.c.
 */
#ifndef LUNFERRY_IMAGE_CHAIN_H
#define LUNFERRY_IMAGE_CHAIN_H

#include <lunferry/image.h>

#include "qcow2_open.h"

struct image_chain;

struct chain_layer {
    struct image_layer told;
    struct image_chain *chain;
    unsigned depth;
    const struct url *url;
    struct url own_url, data_url; /* zeros: the first one's is the user's; there is no data file */
    bool assumed;                 /* nobody says that it is raw */
    struct blk_dev *file, *data;  /* until they belong to a device over them */
    struct blk_task task, data_task;
    struct qcow2_tables tables;
    char *backing, *backing_format, *data_file;
    struct blk_req req; /* READ of the head */
    struct iovec iov;
    unsigned char head[4];
};

struct image_chain {
    struct image *image;
    struct chain_layer *layers[IMAGE_MAX_DEPTH];
    unsigned count;
    uint64_t l1_left;      /* bytes */
    unsigned building;     /* the layer */
    struct blk_dev *built; /* its device, which has those below */
    struct blk_task task;
    unsigned closing; /* devices, and one for the hand that closes them */
    bool cancelled, ended;
};

/* False: out of memory; nothing is under way then. */
bool image_chain_start(struct image_chain *chain, struct image *image);
void image_chain_cancel(struct image_chain *chain);
/* After image->done(). */
void image_chain_free(struct image_chain *chain);

#endif
