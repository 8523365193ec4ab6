/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file of an image that is being written: what of it is taken, and how often each cluster is used.
 *
 * Everything is appended, and nothing that was given back is taken again. Plain clusters and packs of compressed
 * ones grow side by side: with `arena`, plain clusters are taken so many bytes in advance, and in between packs
 * follow each other without a gap, within clusters of the file too.
 *
 * A cluster that is taken has the refcount 1, which costs nothing to remember. For those with another one there are
 * counters, 2 bytes each, in chunks that are made where they are needed.
 */
#ifndef LUNFERRY_QCOW2_SPACE_H
#define LUNFERRY_QCOW2_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lunferry/error.h>

struct qcow2_space {
    unsigned cluster_bits;
    uint64_t end;                   /* bytes of the file that are taken; whole clusters */
    uint64_t limit;                 /* bytes that the file has room for */
    uint64_t most;                  /* bytes that entries can name */
    uint64_t arena;                 /* bytes; 0: plain clusters are not taken in advance */
    uint64_t plain_at, plain_end;   /* what is left of those */
    uint64_t packed_at, packed_end; /* behind the last pack, up to where its cluster ends */
    uint16_t **chunks;              /* NULL: all of them 1 */
    size_t chunk_count;
};

/* The first cluster is taken, for the header. `limit` is the file's size. */
void qcow2_space_init(struct qcow2_space *space, unsigned cluster_bits, uint64_t limit,
                      uint64_t arena);
void qcow2_space_release(struct qcow2_space *space);

/* All of these: 0, or -ENOSPC, -EFBIG or -ENOMEM with a sentence. */

/* A run of at most `clusters` > 0 plain ones; *got says how many. */
int qcow2_space_plain(struct qcow2_space *space, uint64_t clusters, uint64_t *host, uint64_t *got,
                      struct blk_error *error);
/* That many, behind everything else. */
int qcow2_space_append(struct qcow2_space *space, uint64_t clusters, uint64_t *host,
                       struct blk_error *error);
/* `len` bytes for a pack, a multiple of what packs begin at. Nothing touches them yet. */
int qcow2_space_pack(struct qcow2_space *space, uint64_t len, uint64_t *host,
                     struct blk_error *error);
/* A compressed cluster lies there, in a pack. */
void qcow2_space_touch(struct qcow2_space *space, uint64_t host, uint64_t len);
/* What was there, a cluster or a compressed one, is not used any more. -EIO: it cannot have been there. */
int qcow2_space_give_back(struct qcow2_space *space, uint64_t host, uint64_t len,
                          struct blk_error *error);
/* Plain clusters that were taken in advance and not used are given back. */
int qcow2_space_trim(struct qcow2_space *space, struct blk_error *error);

/* How often is this cluster of the file used? */
unsigned qcow2_space_count(const struct qcow2_space *space, uint64_t cluster);

#endif
