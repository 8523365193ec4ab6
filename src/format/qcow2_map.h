/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where guest offsets lie: what L2 entries say (qcow2_entry.c), and the L2 tables that are kept
 * (qcow2_map.c).
 *
 * Tables are read on demand and kept in slices of at most 64 KiB, of which a map keeps 1 MiB, and
 * never fewer than 16: with clusters of 64 KiB that is where 8 GiB lie, so that an answer of EXTENTS and the
 * reads in flight around it find theirs. Slices that are being read come on top; there are no more of
 * them than lookups that wait, and 16 asked for ahead of whoever walks.
 */
#ifndef LUNFERRY_QCOW2_MAP_H
#define LUNFERRY_QCOW2_MAP_H

#include "qcow2.h"

/* ---- Entries ---------------------------------------------------------------------------------- */

enum qcow2_kind {
    QCOW2_RUN_NOTHING, /* the backing device shows through, or zeros where there is none */
    QCOW2_RUN_ZEROS,
    QCOW2_RUN_PLAIN,
    QCOW2_RUN_COMPRESSED,
};

/* Guest bytes that lie in the same way. */
struct qcow2_run {
    enum qcow2_kind kind;
    uint64_t offset, len;
    uint64_t host;     /* PLAIN: of the first byte. COMPRESSED: where the cluster's stream begins */
    uint32_t host_len; /* COMPRESSED: of the stream, as far as it lies in the file */
};

/* Is `next`, which begins where `run` ends, more of the same? Compressed clusters are one by one. */
bool qcow2_run_continues(const struct qcow2_run *run, const struct qcow2_run *next);

/* What entries are checked against. */
struct qcow2_bounds {
    const struct qcow2_header *header;
    uint64_t file_size;
    uint64_t data_size; /* of the device that plain clusters are in */
};

/*
 * What an L2 entry says of the guest's byte at `offset` and those behind it in the cluster; `bitmap` is the
 * second half of an extended entry. 0, or -EINVAL with a sentence that says what is wrong with it.
 */
int qcow2_entry_decode(const struct qcow2_bounds *bounds, uint64_t offset, uint64_t entry,
                       uint64_t bitmap, struct qcow2_run *run, struct blk_error *error);

/* ---- The map ---------------------------------------------------------------------------------- */

#define QCOW2_SLICE       (64u << 10)
#define QCOW2_MAP_BYTES   (1u << 20)
#define QCOW2_MAP_LEAST   16
#define QCOW2_MAP_AHEAD   16  /* slices */
#define QCOW2_MAP_BUCKETS 256 /* a power of two */

struct qcow2_slice;

struct qcow2_map {
    struct qcow2_bounds bounds;
    const uint64_t *l1;
    struct blk_dev *file;
    unsigned slice_bits;  /* of its bytes */
    unsigned index_bits;  /* of its entries */
    unsigned entry_shift; /* of an entry's bytes */
    unsigned count, limit;
    unsigned reading;
    struct qcow2_slice *newest, *oldest;
    struct qcow2_slice *buckets[QCOW2_MAP_BUCKETS];
    void (*quiet)(
        struct qcow2_map *map); /* called once when nothing is being read any more; or NULL */
};

/* Whoever waits for a slice. Owned by the caller, until ready(). */
struct qcow2_waiter {
    void (*ready)(struct qcow2_waiter *waiter); /* from the loop, once; the slice is there, or: */
    const struct blk_req *failed; /* its READ, valid within ready(). NULL: it is there */
    struct qcow2_waiter *next;    /* private */
};

/* Allocates nothing. header, L1 and file outlive the map; `data_size` is that of the file where there is no
 * data file. */
void qcow2_map_init(struct qcow2_map *map, const struct qcow2_header *header, const uint64_t *l1,
                    struct blk_dev *file, uint64_t data_size);
/* Nothing is being read. */
void qcow2_map_release(struct qcow2_map *map);

enum qcow2_found { QCOW2_FOUND, QCOW2_LATER };

/*
 * The run that begins at `offset`, before `end` <= header.size. It is as long as can be said at one look: within one
 * slice, or over L1 entries that are empty; a compressed one is within one cluster. QCOW2_LATER: the slice is
 * being read; `waiter`, if there is one, will be told. Or -errno with a sentence.
 */
int qcow2_map_find(struct qcow2_map *map, uint64_t offset, uint64_t end, struct qcow2_run *run,
                   struct qcow2_waiter *waiter, struct blk_error *error);

/* then() is called at once, or when what is being read has come in. */
void qcow2_map_settle(struct qcow2_map *map, void (*then)(struct qcow2_map *map));

#endif
