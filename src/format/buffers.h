/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Parts of a request's buffers. */
#ifndef LUNFERRY_BUFFERS_H
#define LUNFERRY_BUFFERS_H

#include <lunferry/driver.h>

/* An array that grows and is kept; begins zeroed, ends with free(list). */
struct buffers {
    struct iovec *list;
    int capacity;
};

/* The buffers of [skip, skip + len) of the request. Returns their number, or -1: out of memory. */
int buffers_slice(struct buffers *buffers, const struct blk_req *req, uint64_t skip, uint64_t len);
/* Where these bytes are, if they lie in one buffer; else NULL. */
void *buffers_flat(const struct blk_req *req, uint64_t skip, uint64_t len);
void buffers_zero(const struct blk_req *req, uint64_t skip, uint64_t len);

#endif
