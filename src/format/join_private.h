/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What join.c (life and tasks) and join_requests.c share. */
#ifndef LUNFERRY_JOIN_PRIVATE_H
#define LUNFERRY_JOIN_PRIVATE_H

#include <lunferry/driver.h>
#include <lunferry/join.h>

struct join;

struct part {
    struct join *join;
    bool zeros;
    struct blk_dev *dev;  /* NULL: zeros, or a clone that was never made */
    uint64_t start;       /* in the join */
    uint64_t offset, len; /* in the device */
    uint64_t epoch;       /* the last that it told; BLK_NO_EPOCH: none yet */
    struct blk_task task;
};

#define JOIN_FIRST_EPOCH (BLK_NO_EPOCH + 1)

/* A request, as the driver's state of it. */
struct join_gathering {
    unsigned awaited; /* shares, and one for the hand that deals them out */
    bool told;        /* epoch and durable hold what the shares so far agree on */
    int status;
};

struct join {
    struct blk_dev dev;
    struct part *parts;
    size_t count;
    uint64_t epoch; /* of all parts together: another one as soon as one of them has another */
    struct join_share *free_shares;

    void (*then)(struct join *join); /* when the parts have done what they were asked to do */
    unsigned awaited;                /* parts, and one for the hand that asks them */
    int status;                      /* of what they were asked to do */
    struct blk_error error;
    uint64_t new_size; /* RESIZE */
};

static inline struct join *join_of(struct blk_dev *dev)
{
    return (struct join *)dev;
}

/* join.c: takes over limits and capabilities; once more after whatever may have taken one back. */
void join_adopt(struct join *join);

/* join_requests.c */
void join_submit(struct blk_dev *dev, struct blk_req *req);
void join_free_shares(struct join *join);

#endif
