/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * L2 tables that are being filled.
 *
 * The entries that became known of a table, since it was last in the file; of some tables, since memory is bounded.
 * Once a table has left for the file, what is new goes into another one of the same number: what the file has is not
 * needed for that, only to put the two together when that one leaves in its turn.
 *
 * Nothing here locks or waits.
 */
#ifndef LUNFERRY_QCOW2_FILL_H
#define LUNFERRY_QCOW2_FILL_H

#include "qcow2_shape.h"
#include "qcow2_space.h"

/* What an L2 entry says, in the machine's order; `bitmap` of extended ones. */
struct qcow2_word {
    uint64_t entry, bitmap;
};

struct qcow2_word qcow2_word_plain(const struct qcow2_shape *shape, uint64_t host);
struct qcow2_word qcow2_word_zeros(const struct qcow2_shape *shape);
/* `len` bytes, > 0 and fewer than a cluster, at `host`. */
struct qcow2_word qcow2_word_compressed(const struct qcow2_shape *shape, uint64_t host,
                                        uint64_t len);
/* Where its plain cluster is; 0: it has none. */
uint64_t qcow2_word_host(struct qcow2_word word);
/* What it names is not used any more. 0 or -errno with a sentence, as qcow2_space_give_back(). */
int qcow2_word_give_back(const struct qcow2_shape *shape, struct qcow2_space *space,
                         struct qcow2_word word, struct blk_error *error);

struct qcow2_fill {
    uint64_t number;   /* of the L2 table */
    uint64_t *entries; /* one cluster, as in the file; zeros where nothing is known */
    uint64_t *known;   /* a bit for each */
    bool leaving;      /* on its way to the file: not changed any more */
    struct qcow2_fill *newer, *older; /* of those that are being filled: by their last use */
    struct qcow2_fill *next;          /* in its bucket, or free */
};

struct qcow2_fills {
    const struct qcow2_shape *shape;
    uint64_t *stored; /* of each L2 table: where it is in the file; 0: it never left */
    unsigned limit;   /* of tables in memory, to be kept by those who use them */
    unsigned filling, leaving;
    struct qcow2_fill *newest, *oldest;
    struct qcow2_fill *free;
    struct qcow2_fill **buckets;
    uint64_t bucket_mask;
};

/* -ENOMEM. `shape` outlives it. */
int qcow2_fills_init(struct qcow2_fills *fills, const struct qcow2_shape *shape, uint64_t bytes);
void qcow2_fills_release(struct qcow2_fills *fills);

/* The one of this number that is being filled, or, with `leaving`, the one that leaves. NULL: there is none. */
struct qcow2_fill *qcow2_fills_find(const struct qcow2_fills *fills, uint64_t number, bool leaving);
/* The one that is being filled; made if need be, and the newest from now on. NULL: out of memory. */
struct qcow2_fill *qcow2_fills_get(struct qcow2_fills *fills, uint64_t number);
/* It is on its way from now on; no other one of its number may be. */
void qcow2_fills_leave(struct qcow2_fills *fills, struct qcow2_fill *fill);
/* It is in the file. */
void qcow2_fills_left(struct qcow2_fills *fills, struct qcow2_fill *fill);
/* A table's memory for any other use; in none of the lists. NULL: out of memory. */
struct qcow2_fill *qcow2_fills_borrow(struct qcow2_fills *fills);
void qcow2_fills_return(struct qcow2_fills *fills, struct qcow2_fill *fill);

/* The cluster's entry is this from now on; what it was is given back, if that is in memory, else when the table
 * leaves. 0 or -errno with a sentence. */
int qcow2_fills_note(struct qcow2_fills *fills, struct qcow2_space *space, uint64_t cluster,
                     struct qcow2_word word, struct blk_error *error);
/* Where the plain cluster is; 0: it has none, as far as that is in memory. */
uint64_t qcow2_fills_host(const struct qcow2_fills *fills, uint64_t cluster);

bool qcow2_fill_knows(const struct qcow2_fill *fill, uint64_t index);
struct qcow2_word qcow2_fill_get(const struct qcow2_shape *shape, const struct qcow2_fill *fill,
                                 uint64_t index);
void qcow2_fill_set(const struct qcow2_shape *shape, struct qcow2_fill *fill, uint64_t index,
                    struct qcow2_word word);

#endif
