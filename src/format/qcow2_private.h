/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What qcow2.c (life and tasks), qcow2_read.c (READ), qcow2_compressed.c (clusters that are) and
 * qcow2_extents.c (EXTENTS) share. */
#ifndef LUNFERRY_QCOW2_PRIVATE_H
#define LUNFERRY_QCOW2_PRIVATE_H

#include <stdatomic.h>

#include "buffers.h"
#include "qcow2_inflate.h"
#include "qcow2_map.h"

/* What clones share, and nobody changes. */
struct qcow2_core {
    atomic_uint users;
    struct qcow2_header header;
    uint64_t *l1;
};

enum qcow2_place { QCOW2_FILE, QCOW2_DATA, QCOW2_BACKING, QCOW2_PLACES };

struct qcow2_below {
    struct qcow2 *qcow2;
    struct blk_dev *dev; /* NULL: there is none */
    struct blk_task task;
};

/* A cluster that was decompressed because of a part of it: other parts are likely to be wanted. */
struct qcow2_kept {
    enum { KEPT_NOTHING, KEPT_COMING, KEPT_HERE } state;
    uint64_t host;
    uint32_t host_len;
    uint64_t used; /* when, by qcow2.uses */
    unsigned char *bytes;
};

#define QCOW2_KEPT 4

/* Of one request so many parts are on their way at once; the rest waits. */
#define QCOW2_SHARES 64

/* So many bytes of compressed clusters are on their way at once, for all requests of a device, unless one cluster
 * alone needs more; and so many are kept as buffers for later ones. */
#define QCOW2_FETCHING (16u << 20)

/* The longest READ for several compressed clusters, and the most of them. */
#define QCOW2_FETCH (1u << 20)
#define QCOW2_BATCH 64

struct qcow2 {
    struct blk_dev dev;
    struct qcow2_core *core;
    struct qcow2_below below[QCOW2_PLACES];
    struct qcow2_map map;
    struct qcow2_share *free_shares;

    struct qcow2_inflate *inflate; /* made when it is first needed, as what follows */
    struct qcow2_fetch *free_fetches;
    uint64_t fetching; /* bytes */
    uint64_t idle;     /* bytes of buffers of free_fetches */
    unsigned char *scratch;
    struct qcow2_kept kept[QCOW2_KEPT];
    uint64_t uses;
    struct qcow2_request *stalled; /* the first of those that wait for fetches of others */

    void (*then)(struct qcow2 *qcow2); /* when those below have done what they were asked to do */
    unsigned awaited;                  /* of them, and one for the hand that asks them */
    int status;
    struct blk_error error;
};

/* A request, as the driver's state of it. */
struct qcow2_request {
    struct qcow2 *qcow2;
    struct blk_req *req;
    struct qcow2_waiter waiter; /* for an L2 table */
    uint64_t at;                /* up to here it is seen to */
    unsigned awaited; /* parts that are on their way, and one for the hand that deals them out */
    bool paused;      /* until one of its parts is back */
    struct qcow2_request *next; /* among the stalled */
    int status;

    struct blk_req ask; /* EXTENTS: of the backing device */
    struct blk_extents answer;
    unsigned asked; /* so often */
};

static inline struct qcow2 *qcow2_of(struct blk_dev *dev)
{
    return (struct qcow2 *)dev;
}

static inline uint64_t qcow2_cluster_size(const struct qcow2 *qcow2)
{
    return UINT64_C(1) << qcow2->core->header.cluster_bits;
}

/* Where plain clusters are. */
static inline struct blk_dev *qcow2_data(const struct qcow2 *qcow2)
{
    struct blk_dev *data = qcow2->below[QCOW2_DATA].dev;

    return data ? data : qcow2->below[QCOW2_FILE].dev;
}

/* Up to where the backing device shows through. */
static inline uint64_t qcow2_backing_size(const struct qcow2 *qcow2)
{
    const struct blk_dev *backing = qcow2->below[QCOW2_BACKING].dev;

    return backing ? backing->size : 0;
}

/* qcow2_read.c */
void qcow2_submit(struct blk_dev *dev, struct blk_req *req);
/* Goes on with a READ that had to wait. */
void qcow2_deal(struct qcow2_request *request);
/* Its part is back; may complete it. */
void qcow2_gathered(struct qcow2_request *request);
/* The first reason counts, unless it was a cancel. `bad_offset` is the guest's, or BLK_NO_OFFSET. */
void qcow2_fail(struct qcow2_request *request, const struct blk_error *error, uint64_t bad_offset);
void qcow2_free_shares(struct qcow2 *qcow2);

/* qcow2_compressed.c */
/* Sees to the compressed cluster that the run is in, and perhaps to some behind it. False: not now;
 * qcow2_deal() will be called. */
bool qcow2_deal_compressed(struct qcow2_request *request, const struct qcow2_run *run);
void qcow2_free_compressed(struct qcow2 *qcow2);

/* qcow2_extents.c */
void qcow2_extents(struct qcow2_request *request);

#endif
