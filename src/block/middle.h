/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The middle's own state of a device. device.c opens and closes; submit.c checks requests and hands them
 * over in pieces; pieces.c splits and aligns; deliver.c takes the pieces back and reports.
 */
#ifndef LUNFERRY_MIDDLE_H
#define LUNFERRY_MIDDLE_H

#include <lunferry/driver.h>

#include "retry.h"

/* One request as the driver sees it. The driver's own state follows the struct. */
struct piece {
    struct iovec *iov; /* kept between uses */
    int iov_capacity;
    void *bounce; /* NULL, or the buffer that stands in for the caller's */
    struct retry_item item;
    bool at_driver;
    struct blk_req req;
    _Alignas(max_align_t) unsigned char state[];
};

/* blk_req.stage of a piece */
enum piece_stage {
    PIECE_PLAIN,       /* the caller's buffers, or the bounce buffer, as they are */
    PIECE_BLOCK_READ,  /* the block that a short WRITE or ZERO will change */
    PIECE_BLOCK_WRITE, /* the same block, changed */
    PIECE_FLUSH_FOR_FUA,
};

/* blk_req.stage of a caller's request */
enum parent_stage {
    PARENT_NEW,      /* no piece has come back */
    PARENT_STARTED,  /* epoch and durable hold what the pieces so far agree on */
    PARENT_FLUSHING, /* all pieces are back; a FLUSH makes up for the FUA that the driver lacks */
};

struct piece_list {
    struct blk_req *head, **end;
};

enum middle_state {
    MIDDLE_OPENING,
    MIDDLE_OPEN,
    MIDDLE_CANCELLED, /* or failed to open: good for closing only */
    MIDDLE_CLOSING,
};

enum middle_task { TASK_OPEN, TASK_CLONE, TASK_RESIZE, TASK_FINISH, TASK_RESERVE, TASK_RECHECK };

struct blk_middle {
    struct blk_dev *dev;
    enum middle_state state;
    struct blk_task *task; /* NULL: none under way */
    enum middle_task kind; /* of the task */
    struct retry_item task_item;
    uint64_t new_size;                     /* RESIZE */
    const struct blk_reservation *reserve; /* RESERVE */
    bool task_ended;
    int task_status;
    struct blk_error task_error;
    struct blk_task *close_task;
    bool driverless; /* a clone that the driver cannot make, and was not asked for */
    bool close_begun, closed;

    struct retry retry;
    uint64_t need;                /* bytes that the job needs of the device */
    uint32_t max_read, max_write; /* blk_cap(), of a device that relays; 0: any */

    struct loop_call call;       /* runs middle_deliver() */
    struct piece_list waiting;   /* callers' requests with pieces still to be made */
    struct piece_list refused;   /* ZEROs that the driver could not do after all: to be done by what
                                    is left. Pieces of their callers' requests all the while */
    struct piece_list completed; /* pieces that the driver gave back, not yet delivered */
    struct piece_list finished;  /* callers' requests that ended without a piece */
    struct blk_req *free_pieces;
    unsigned in_driver;    /* pieces */
    unsigned callers;      /* requests not yet reported */
    bool changing_a_block; /* a read-change-write of one block is under way: one at a time, so that
                              two writes that share a block cannot undo each other */
};

static inline void piece_list_init(struct piece_list *list)
{
    list->head = NULL;
    list->end = &list->head;
}

static inline void piece_list_add(struct piece_list *list, struct blk_req *req)
{
    req->next = NULL;
    *list->end = req;
    list->end = &req->next;
}

static inline struct blk_req *piece_list_take(struct piece_list *list)
{
    struct blk_req *req = list->head;

    if (req) {
        list->head = req->next;
        if (!list->head)
            list->end = &list->head;
    }
    return req;
}

static inline struct piece *piece_of(struct blk_req *req)
{
    return container_of(req, struct piece, req);
}

/* submit.c: hands the driver as many pieces as it takes. */
void middle_pump(struct blk_dev *dev);
/* Takes a request off the waiting list, so that it gets no further pieces. */
void middle_forget(struct blk_dev *dev, struct blk_req *req);
/* Is there more of the request to hand to the driver? */
bool middle_has_more(const struct blk_req *req);
/* Of EXTENTS: all of it counts as data. */
void middle_answer_data(struct blk_req *req);
/* A FLUSH on behalf of a request that is done but for being durable. False: out of memory. */
bool middle_flush_for(struct blk_dev *dev, struct blk_req *parent);
/* Hands a piece to the driver once more, as something else (the WRITE after the READ). */
void middle_resubmit(struct blk_dev *dev, struct blk_req *req);
/* The same, as what it was: an earlier answer was no success. */
void middle_repeat(struct blk_dev *dev, struct blk_req *req);
/* Begins a caller's request anew: what its pieces did is void. */
void middle_restart(struct blk_dev *dev, struct blk_req *parent);

/* pieces.c. NULL: out of memory. */
struct blk_req *middle_new_piece(struct blk_dev *dev);
void middle_free_piece(struct blk_dev *dev, struct blk_req *req);
/* How far the next piece of the caller's request reaches that has *from as its first byte still to be done, where
 * the last one is before `end`. Returns its length; *from becomes its offset. *whole_block: of a block
 * only a part is wanted, and the piece is all of it. 0: there is nothing left to discard. */
uint64_t middle_cut(const struct blk_dev *dev, const struct blk_req *req, uint64_t *from,
                    uint64_t end, bool *whole_block);
/* The flags with which the piece goes to the driver. */
unsigned middle_flags(const struct blk_dev *dev, const struct blk_req *req);
/* Gives the piece, whose op, offset and len are set, its buffers; it may become a WRITE of zeros or the
 * READ of a block. False: out of memory. */
bool middle_fill(const struct blk_dev *dev, struct blk_req *req, const struct blk_req *parent,
                 bool whole_block);
/* Once more: the driver may have changed the iov that it was given. Cannot fail: there was room for it
 * before. */
void middle_refill(struct blk_req *req);

/* deliver.c: the deferred call of every device. */
void middle_deliver(struct loop_call *call);
/* Gives a caller's request its outcome; it is reported from the loop. */
void middle_end(struct blk_dev *dev, struct blk_req *req, int status);

/* device.c: reports ended tasks, and frees a closed device: the last thing done with it. */
void middle_tasks(struct blk_dev *dev);

#endif
