/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The device that writes a qcow2 image.
 *
 *   qcow2_shape.c           how large everything is; pure
 *   qcow2_space.c           what of the file is taken, and refcounts
 *   qcow2_fill.c            L2 tables that are being filled, and what their entries say
 *   qcow2_leave.c           such tables on their way to the file, to make room for others
 *   qcow2_write_requests.c  WRITE, ZERO and FLUSH: plain clusters
 *   qcow2_pack.c            compressed ones, many in one write
 *   qcow2_write_finish.c    the tables that are left, refcounts, L1 table and header
 *   qcow2_write_header.c    the header's bytes; pure
 *   qcow2_write.c           the blk_driver
 *
 * Clones share a core: what of the file is taken, and which guest cluster lies where. Its mutex is held for
 * that only, never while anything is read or written. Where clusters lie may be noted before their bytes are
 * there: nobody looks before the header is written, which is last of all.
 */
#ifndef LUNFERRY_QCOW2_WRITE_H
#define LUNFERRY_QCOW2_WRITE_H

#include <pthread.h>

#include <lunferry/driver.h>
#include <lunferry/image_make.h>

#include "buffers.h"
#include "qcow2_deflate.h"
#include "qcow2_fill.h"
#include "qcow2_shape.h"

/* So many packs may be on their way or be filled at once, for each clone. */
#define QCOW2_PACKS 4

/* The longest run of plain clusters in one WRITE. */
#define QCOW2_LONGEST (16u << 20)

/* Tables without a place in the file so far leave together, so many at once... */
#define QCOW2_LEAVE_MOST 128
/* ...and so many bytes, to make room; or at the end, when so many go at once. */
#define QCOW2_LEAVE_BYTES (64u << 10)
#define QCOW2_LAST_BYTES  (1u << 20)
#define QCOW2_LAST_LEAVES 8

struct qcow2_write_core {
    /* What never changes. */
    struct image_layout layout; /* its strings are the core's own */
    struct qcow2_shape shape;
    char *backing, *backing_format;

    pthread_mutex_t lock; /* for all that follows */
    unsigned users;
    struct qcow2_space space;
    struct qcow2_fills fills;
    unsigned leaves; /* on their way, of all clones */
    int status; /* 0; or what has failed that no request can report, and the whole image with it */
    struct blk_error error;
    struct loop *finisher; /* to be woken when a leave is over; NULL: nobody waits */
};

struct qcow2_writer {
    struct blk_dev dev;
    struct qcow2_write_core *core;
    struct blk_dev *file;
    struct blk_task task; /* what the file is asked to do; one at a time */
    struct blk_req first; /* WRITE of an empty first cluster */
    struct iovec first_iov;
    uint64_t epoch; /* the last that the file has told */

    struct qcow2_write_share *free_shares;
    struct qcow2_write_request *stalled, **stalled_end; /* they wait for a pack, or a leave */
    bool pushed; /* what stalled requests put into a pack does not wait there */

    unsigned leaves; /* on their way */
    struct qcow2_leave *free_leaves;
    void (*quiet)(
        struct qcow2_writer *writer); /* called once when there is none any more; or NULL */

    struct qcow2_deflate *deflate; /* with compression, as what follows */
    unsigned char *scratch;        /* a cluster */
    struct qcow2_pack *filling;    /* NULL: none */
    struct qcow2_pack *free_packs;
    unsigned packs;       /* that there are */
    uint32_t pack_block;  /* bytes that packs begin and end at */
    size_t pack_capacity; /* bytes */

    struct qcow2_finish *finish; /* NULL: not yet */
};

/* A request, as the driver's state of it. */
struct qcow2_write_request {
    struct qcow2_writer *writer;
    struct blk_req *req;
    uint64_t at;      /* up to here it is seen to */
    unsigned awaited; /* shares and packs, and one for the hand that deals them out */
    bool told;        /* epoch and durable hold what the parts so far agree on */
    int status;
    struct qcow2_write_request *next; /* among the stalled */
};

static inline struct qcow2_writer *qcow2_writer_of(struct blk_dev *dev)
{
    return (struct qcow2_writer *)dev;
}

static inline uint64_t qcow2_write_cluster(const struct qcow2_writer *writer)
{
    return UINT64_C(1) << writer->core->shape.cluster_bits;
}

/* ---- qcow2_write.c ---------------------------------------------------------------------------- */

/* image_make_open(), with another bound in place of IMAGE_MAKE_TABLES. */
struct blk_dev *qcow2_write_open(struct loop *loop, const struct image_make *make,
                                 uint64_t table_bytes, struct blk_task *task);

/* The first reason counts. With the lock held. */
void qcow2_write_fail(struct qcow2_write_core *core, int status, const struct blk_error *error);

/* ---- qcow2_write_requests.c ------------------------------------------------------------------- */

void qcow2_write_submit(struct blk_dev *dev, struct blk_req *req);
/* Goes on with requests that had to wait. */
void qcow2_write_resume(struct qcow2_writer *writer);
/* Those end with -ECANCELED. */
void qcow2_write_cancel(struct qcow2_writer *writer);
void qcow2_write_free_shares(struct qcow2_writer *writer);

/* [from, to) of the request as plain clusters; whole ones, but at the end of the disk. */
void qcow2_write_plain(struct qcow2_write_request *request, uint64_t from, uint64_t to);
/* A part of it was done, by a request with that outcome; it may be complete now. */
void qcow2_write_gathered(struct qcow2_write_request *request, const struct blk_req *part);
/* The first reason counts, unless it was a cancel. */
void qcow2_write_fault(struct qcow2_write_request *request, int status,
                       const struct blk_error *error);

/* ---- qcow2_pack.c ----------------------------------------------------------------------------- */

/* Sees to more of the request, cluster by cluster. False: not now; qcow2_write_resume() comes. */
bool qcow2_pack_deal(struct qcow2_write_request *request);
/* What is in the pack that is being filled goes now. */
void qcow2_pack_push(struct qcow2_writer *writer);
/* What has not gone is not going to. */
void qcow2_pack_cancel(struct qcow2_writer *writer);
int qcow2_pack_init(struct qcow2_writer *writer, struct blk_error *error);
void qcow2_pack_release(struct qcow2_writer *writer);

/* ---- qcow2_leave.c ---------------------------------------------------------------------------- */

/* Sends tables on their way where there are too many. True: there are so many that a request is to wait
 * until one of this clone's is over. *status: < 0 with a sentence, the image has failed. */
bool qcow2_leave_for_room(struct qcow2_writer *writer, int *status, struct blk_error *error);
/* Sends the oldest one, and others that can go with it, `most` > 0 together. False: there is none. */
bool qcow2_leave_any(struct qcow2_writer *writer, uint64_t most);
/* then() is called at once, or when all of this clone's are over. */
void qcow2_leave_settle(struct qcow2_writer *writer, void (*then)(struct qcow2_writer *writer));
void qcow2_leave_release(struct qcow2_writer *writer);

/* ---- qcow2_write_finish.c --------------------------------------------------------------------- */

void qcow2_write_finish(struct blk_dev *dev);
/* One of this clone's leaves is over. */
void qcow2_write_finish_on(struct qcow2_writer *writer);

/* ---- qcow2_write_header.c --------------------------------------------------------------------- */

/* Where things lie, in bytes of the file. */
struct qcow2_places {
    uint64_t blocks;   /* refcount blocks */
    uint64_t reftable; /* behind them */
    uint64_t reftable_clusters;
    uint64_t l1; /* behind that */
    uint64_t end;
};

/* The first bytes of the file, in `room` zeroed ones. Returns how many they are; 0: there is no room for them. */
size_t qcow2_write_header(const struct image_layout *layout, const struct qcow2_shape *shape,
                          const struct qcow2_places *places, unsigned char *bytes, size_t room);

#endif
