/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A qcow2 image that is being written to a disk of the fake world, by a device and its clones; and what is to be in
 * it. Whatever completes, at no time is there an image that is not right: a file has no magic, or all that belongs
 * to it.
 */
#ifndef LUNFERRY_TEST_WRITING_H
#define LUNFERRY_TEST_WRITING_H

#include "desk.h"
#include "qcow2_check.h"
#include "schedule.h"

#include "src/format/qcow2_write.h"

#define WRITING_LANES 2
#define WRITING_REQS  64

struct writing_req {
    struct writing *writing;
    struct blk_req req;
    struct iovec iov;
    unsigned lane;
    unsigned char
        *bytes; /* its own, so that it can be seen who looks at them later; freed when done */
    bool busy, lost;
};

struct writing {
    struct desk desk; /* its dev is the image's; its disk is not used */
    struct fake_disk disk;
    struct fake_end end;
    /* Set between init and open. */
    struct image_layout layout;
    uint64_t size, table_bytes;
    const unsigned char *backing; /* what shows where nothing is; NULL: zeros */
    struct odometer *odometer;    /* in what order operations complete; NULL: the oldest first */
    unsigned restart_at;          /* the disk restarts before this completion, from 1; 0: never */
    bool incomplete; /* a moment at which the image has no magic, or is not looked at */

    struct blk_dev *lanes[WRITING_LANES]; /* the first is desk.dev */
    unsigned char *bytes;                 /* what the disk is to hold */
    struct writing_req reqs[WRITING_REQS];
    unsigned req_count;
    unsigned completions;
    int status; /* the first that was not 0 */
    char error[400];
    struct qcow2_check check; /* of the last look */
};

/* The layout is completed; the disk is as long as `bound` says, and zero. */
void writing_init(struct writing *writing, const struct image_layout *layout, uint64_t size);
/* The device, and clones for the other lanes. The status; with an error, its text is in `error`. */
int writing_open(struct writing *writing, unsigned lanes);
/* Submits; what the image is to hold is noted. */
void writing_submit(struct writing *writing, unsigned lane, enum blk_op op, uint64_t offset,
                    uint64_t len, uint32_t seed);
/* Pushes, and completes everything. */
void writing_settle(struct writing *writing);
/* All at once; whatever a server loses is written again, until all is durable. */
void writing_durable(struct writing *writing);
void writing_write(struct writing *writing, uint64_t offset, uint64_t len, uint32_t seed);
void writing_zero(struct writing *writing, uint64_t offset, uint64_t len);
int writing_finish(struct writing *writing);
/* What is durable on the disk is an image, and a right one. */
void writing_check(struct writing *writing);
/* Closes what is open. */
void writing_release(struct writing *writing);

/* Bytes that become smaller; with an odd seed, bytes that do not; with 0, all the same. Never zeros. */
void writing_pattern(unsigned char *bytes, size_t len, uint32_t seed);

#endif
