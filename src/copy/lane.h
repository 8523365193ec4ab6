/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A lane: N slots that move chunks from the source to the target, on one loop.
 *
 * Only what has to move is moved. At each offset the lane finds the run of one kind: data is read, and
 * what was read is searched for zeros; zeros are not read. Then it writes by kind: data is written;
 * zeros are skipped where the target is known to be zero, and otherwise made by the cheapest means that
 * the target has. So a chunk has one source and one state of the target, and up to RUNS_MAX
 * writes.
 *
 * Where there is a reference, a chunk is read from there too, unless that is known to have zeros; the two
 * are compared unit by unit, and what is equal is left alone. What is copied again is not compared:
 * what was written before covers what the reference has.
 *
 * The state machine: a slot goes FREE -> READING -> READY -> WRITING -> FREE; zeros become READY at
 * once; by way of SALVAGING, where the source has bad blocks; and to CHECKING instead of WRITING where
 * what was written is read back. A completion only moves its slot and marks the lane runnable; lane_step(), which runs from
 * the loop, alone submits. Slots in use are kept in the order in which they were read, which is that
 * of their offsets but for what is repeated: writes are submitted in that order, and complete in any
 * (or, with in_order, one at a time).
 *
 * While it copies, a lane flushes the target from time to time, so that no more than an interval's
 * work is at risk: what an epoch that ended took with it is copied again. Each loss halves the
 * interval, each flush without one doubles it. A target that goes on losing is written to with FUA.
 *
 * Of a source without a size (a stream) nothing can be copied again, so that each write is made durable by
 * itself. The first READ that comes short is its end; what was read ahead of that is nothing.
 *
 * When all is durable, and if asked to, the lane reads its granules back and compares digests; what
 * differs is copied once more.
 */
#ifndef LUNFERRY_LANE_H
#define LUNFERRY_LANE_H

#include <stdatomic.h>

#include <lunferry/block.h>
#include <lunferry/copy.h>

#include "digest_list.h"
#include "digests.h"
#include "plan.h"
#include "rate.h"
#include "runs.h"
#include "salvage.h"
#include "tracker.h"
#include "walk.h"

/* Zeros between data that are shorter are not worth requests of their own: they are read like data, and
 * found to be zeros then. */
#define LANE_SHORT_HOLE (UINT64_C(64) << 10)

/* What the lanes of a job share. Who may change a field stands beside it. */
struct lane_shared {
    const struct copy_options *options;
    struct plan plan;         /* lanes: take segments */
    struct tracker *tracker;  /* lanes: their own granules */
    struct digests *digests;  /* lanes: those of their own granules; NULL: nothing is verified */
    struct digest_list *list; /* lanes: blocks of their own chunks; NULL: nobody wants to know */
    struct rate rate;         /* lanes */
    /* The source has no size and cannot be read again; there is one lane then. And: the target is a new
     * file, which gets its size when that is known. */
    bool stream, open_ended;
    uint64_t unit; /* bytes: chunks begin and end at multiples of it, or at the end */
    /* From here on the target was zero when the job began; UINT64_MAX: nowhere. */
    uint64_t zero_from;
    /* What its extents say can be relied upon where nothing was written yet: not, where an earlier
     * run may have left zeros that were never made durable. */
    bool target_tells;
    /* The reference is read beside the source, and what equals it is not written. */
    bool compare;
    /* Digests of the reference, in blocks as those of `list`: it is read only where they differ. NULL:
     * there are none. */
    const struct digest_list *base_list;
    /* Before this offset, what the source has from images of this depth or deeper, the reference has. */
    uint64_t same_until;
    unsigned same_depth;
    /* From here on, the start of a unit, nothing is left out because the reference has it. UINT64_MAX: nowhere. */
    uint64_t whole_from;
    bool promised; /* zero_from, by somebody who may be wrong: read back like what was written */
    _Atomic uint64_t done; /* bytes that are on the target; lanes add, and subtract what was lost */
    _Atomic uint64_t data_done; /* bytes of the source's data that are on the target; lanes add */
    _Atomic uint64_t moved;     /* bytes written as data; lanes add */
    _Atomic uint64_t zeroed;    /* bytes made zero; lanes add */
    _Atomic uint64_t skipped;   /* bytes that were there already; lanes add */
    _Atomic uint64_t verified;  /* bytes; lanes add */
    _Atomic unsigned mended;    /* granules that differed when read back; lanes add */
    _Atomic uint64_t lost;      /* bytes that were copied again, for an epoch ended; lanes add */
    _Atomic unsigned flushes;   /* that made something durable; lanes count */
    void (*flushed)(struct lane_shared *shared); /* after each of them, in any lane's thread */
    /* Bytes that could not be read, in any lane's thread. */
    void (*bad)(struct lane_shared *shared, uint64_t offset, uint64_t len);
    atomic_bool failed;   /* set once by whichever lane fails first */
    atomic_bool stopping; /* set once by anyone: issue nothing new, drain */
    atomic_bool aborting; /* set once by anyone: cancel what is on the wire */
};

enum slot_state {
    SLOT_FREE,
    SLOT_READING,
    SLOT_SALVAGING,
    SLOT_READY,
    SLOT_WRITING,
    SLOT_CHECKING,
};

/* One request to the target: a run of one kind. */
struct slot_run {
    struct slot *slot;
    uint64_t offset, len; /* of the image */
    enum run_kind kind;
    struct iovec iov;
    struct blk_req req;
};

struct slot {
    enum slot_state state;
    struct lane *lane;
    uint64_t offset, len;
    bool zeros;       /* all of it, and nothing in the buffer: may be longer than that */
    bool target_zero; /* so far, all of it */
    bool same;        /* so far, all of it: it was read for its digest only */
    bool data;        /* in the source */
    bool compared;    /* with the reference, which is read too */
    bool by_digest;   /* where it differs only: when the source is in */
    bool taken;       /* its digests are */
    bool damaged;     /* in the source: to be salvaged */
    unsigned char *buffer;
    struct iovec iov;
    struct blk_req req;       /* READING, CHECKING */
    unsigned char *reference; /* a buffer, where the lane compares */
    struct iovec reference_iov;
    struct blk_req reference_req; /* READING */
    struct salvage salvage;
    struct slot_run runs[RUNS_MAX]; /* from READY on */
    unsigned run_count, next_run;   /* next_run: the first that is not submitted */
    unsigned outstanding;           /* reads, or runs, under way */
    struct slot *next, *previous;   /* in use: by offset; free: next only */
};

struct lane {
    /* Set by the owner before lane_start(). */
    unsigned number;
    struct loop *loop;
    struct blk_dev *source, *target;
    /* What the target shows where nothing is written: its backing image, or what it holds (then it is the
     * target itself). NULL: nothing to count on. */
    struct blk_dev *reference;
    struct lane_shared *shared;
    void (*ended)(struct lane *lane); /* from the loop, once: nothing is in flight any more, and
                                         what was written is durable unless error says otherwise */
    /* The first error, valid in ended(). */
    struct blk_error error;

    /* private */
    struct loop_call call;
    struct slot *slots;
    unsigned char *buffers;
    size_t buffer_bytes;
    struct slot *oldest, *newest; /* in use */
    struct slot *unwritten;       /* the oldest of which not all is submitted */
    struct slot *free;
    uint64_t position, run_end;    /* what is being copied, or read back */
    uint64_t segment, segment_end; /* what is left of the plan's segment */
    bool again;                    /* it was copied before: the target may hold anything there */
    struct walk source_walk, target_walk;
    uint64_t walk_from, walk_end;      /* what both walks go over */
    _Atomic unsigned reading, writing; /* requests at the drivers, for the progress display */
    enum { LANE_COPYING, LANE_VERIFYING, LANE_ENDED } state;
    struct digest *digest;   /* NULL: none are taken */
    struct loop_timer timer; /* the rate allows more */
    uint64_t granted;        /* bytes that may be started at `start_at` */
    uint64_t start_at;
    struct blk_req flush;
    bool flushing;
    uint64_t epoch;                 /* of the last write or FLUSH */
    bool fua;                       /* every write is made durable by itself */
    unsigned losing;                /* FLUSHes in a row that found something lost */
    uint64_t flush_bytes, flush_ns; /* the interval */
    uint64_t flush_at;              /* when the next is due */
    bool sized, sizing;             /* open_ended: the target has its size; is being given it */
    struct blk_task size_task;
    bool draining;  /* nothing new, because the job stops */
    bool cancelled; /* blk_cancel_all() has been called */
};

/* Allocates slots and buffers and begins. Returns 0 or -ENOMEM (nothing to undo). */
int lane_start(struct lane *lane);
/* Something in shared changed: look again. From the lane's own thread. */
void lane_kick(struct lane *lane);
void lane_release(struct lane *lane);

#endif
