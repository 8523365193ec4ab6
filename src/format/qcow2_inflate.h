/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The contents of a compressed cluster: raw deflate (RFC 1951) or zstd (RFC 8878). */
#ifndef LUNFERRY_QCOW2_INFLATE_H
#define LUNFERRY_QCOW2_INFLATE_H

#include "qcow2.h"

struct qcow2_inflate;

/* What it needs is allocated once. NULL: out of memory. */
struct qcow2_inflate *qcow2_inflate_new(enum qcow2_compression compression);
void qcow2_inflate_free(struct qcow2_inflate *inflate); /* may be NULL */

/*
 * Fills all of `out`, and not a byte more: a stream may go on, and anything may follow it, because the format
 * only knows in which sector it ends. 0, or -EIO with a sentence: it is damaged, or ends too early.
 */
int qcow2_inflate(struct qcow2_inflate *inflate, const void *in, size_t in_len, void *out,
                  size_t out_len, struct blk_error *error);

#endif
