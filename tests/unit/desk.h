/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One disk of the fake world with one open device on it, and requests to that: what the tests of the
 * middle work at. */
#ifndef LUNFERRY_TEST_DESK_H
#define LUNFERRY_TEST_DESK_H

#include "fake.h"

struct desk {
    struct fake fake;
    struct fake_disk disk;
    struct fake_end end;
    struct blk_dev *dev;
    unsigned reported; /* requests */
    /* With a give_up, desk_open() has the device repeat. */
    struct blk_settings settings;
    struct blk_watcher watcher;
    char events[2048]; /* what it was told: "AWAY the fake has hung up\n"... */
};

struct desk_task {
    struct blk_task task;
    unsigned done; /* calls */
};

/* A request with one buffer. */
struct desk_req {
    struct desk *desk;
    struct blk_req req;
    struct iovec iov;
    unsigned done; /* calls */
    unsigned rank; /* the how manieth that reported, from 1 */
    bool submitting;
};

/* The disk may be given its limits and caps between the two. */
void desk_init(struct desk *desk, uint64_t size);
void desk_open(struct desk *desk, bool writable);
/* Closes the device, if it is there. */
void desk_release(struct desk *desk);

struct blk_task *desk_task(struct desk_task *task);

/* Fills the request, for those who want to change it before blk_submit(). */
void desk_prepare(struct desk *desk, struct desk_req *req, enum blk_op op, unsigned flags,
                  uint64_t offset, void *buf, uint64_t len);
/* Submits; does not turn the loop. */
void desk_submit(struct desk *desk, struct desk_req *req, enum blk_op op, unsigned flags,
                 uint64_t offset, void *buf, uint64_t len);
/* The same, and completes all that is pending. Returns its status. */
int desk_do(struct desk *desk, struct desk_req *req, enum blk_op op, unsigned flags,
            uint64_t offset, void *buf, uint64_t len);
/* A device of its own on the same disk; turns nothing. */
struct blk_dev *desk_clone(struct desk *desk, unsigned number, struct desk_task *task);
/* From now on a session that is silent for 60 s is dead, and all is given up after 600 s. */
void desk_repeat(struct desk *desk);
/* Completes the oldest operation. */
void desk_one(struct desk *desk);
/* Completes what is pending and lets time pass until *done. */
void desk_until(struct desk *desk, unsigned *done);
void desk_check_text(const char *text, const char *part);
/* The kinds of what is pending, in their order, as letters: R(EAD) W(RITE) Z(ERO) F(LUSH) E(XTENTS)
 * D(ISCARD) and r(ecover) o(pen) c(lose) s(ize) m(etadata) p(ersistent reservation). */
void desk_check_pending(struct desk *desk, const char *letters);
/* After that much time. */
void desk_advance(struct desk *desk, uint64_t ns);
/* The device has told just these since the last call. */
void desk_check_events(struct desk *desk, const char *expected);
/* The drivers were given just these since the last call. */
void desk_check_log(struct desk *desk, const char *expected);

#endif
