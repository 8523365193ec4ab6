/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The way back of qcow2_inflate.h: a cluster becomes raw deflate (RFC 1951) or a zstd frame (RFC 8878). */
#ifndef LUNFERRY_QCOW2_DEFLATE_H
#define LUNFERRY_QCOW2_DEFLATE_H

#include <lunferry/image_make.h>

struct qcow2_deflate;

/*
 * One encoder, for one thread; what it needs is allocated once, and used again for each cluster. Level 0 is
 * the usual one: ISA-L's first for zlib, 1 for zstd. NULL with the sentence.
 * No match of deflate is further away than 4096 bytes: QEMU inflates with such a window.
 */
struct qcow2_deflate *qcow2_deflate_new(enum image_compression compression, int level,
                                        uint32_t cluster_size, struct blk_error *error);
void qcow2_deflate_free(struct qcow2_deflate *deflate); /* may be NULL */

/* Returns how many bytes of `out` it takes, at most `room`; 0: it would take more, or the bytes look by a
 * cheap test as if they could not be compressed, and it is to be stored as it is. in_len is the cluster size. */
size_t qcow2_deflate(struct qcow2_deflate *deflate, const void *in, size_t in_len, void *out,
                     size_t room);

#endif
