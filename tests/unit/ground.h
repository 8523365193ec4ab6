/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ground that tests of local files stand on: a directory that is removed afterwards, a loop, and
 * operations that are waited for. Whatever goes wrong here fails the test.
 */
#ifndef LUNFERRY_TEST_GROUND_H
#define LUNFERRY_TEST_GROUND_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

#include <lunferry/driver.h>

struct ground {
    char dir[64];
    struct loop *loop;
};

int ground_setup(void **state);
int ground_teardown(void **state);

/* Files in the directory, without the driver. The path belongs to the caller. */
char *ground_path(const struct ground *ground, const char *name);
void ground_make(const struct ground *ground, const char *name, const void *bytes, size_t len);
/* The file holds just this. */
void ground_check(const struct ground *ground, const char *name, const void *bytes, size_t len);

/* A block device over the file, which goes when its descriptor, the result, is closed; -1 where there
 * are none to be had. */
int ground_loop_device(const struct ground *ground, const char *name, char path[32]);

void ground_fill(unsigned char *bytes, size_t len, uint32_t seed);

/* A task that sets *done. */
struct blk_task ground_task(bool *done);
void ground_wait(const struct ground *ground, const bool *done);

/* What comes of opening `path`; *dev is to be closed in either case. */
int ground_try_open(const struct ground *ground, const char *path, bool writable,
                    struct blk_dev **dev, struct blk_error *error);
struct blk_dev *ground_open(const struct ground *ground, const char *name, bool writable);
void ground_close(const struct ground *ground, struct blk_dev *dev);
int ground_resize(const struct ground *ground, struct blk_dev *dev, uint64_t size,
                  struct blk_error *error);

struct ground_request {
    struct blk_req req;
    struct iovec iov;
    unsigned *left; /* requests that have not reported */
};

/* Its req.done, with req.opaque the request. */
void ground_request_done(struct blk_req *req);
/* Submits and counts up *left, which goes down again as requests report. */
void ground_submit(struct blk_dev *dev, struct ground_request *request, enum blk_op op,
                   unsigned flags, uint64_t offset, void *buf, size_t len, unsigned *left);
void ground_wait_all(const struct ground *ground, const unsigned *left);
/* One request, waited for. */
struct blk_req ground_do(const struct ground *ground, struct blk_dev *dev, enum blk_op op,
                         unsigned flags, uint64_t offset, void *buf, size_t len);

#endif
