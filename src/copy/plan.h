/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The plan: the disk in segments, which lanes take in the order of their offsets. */
#ifndef LUNFERRY_PLAN_H
#define LUNFERRY_PLAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* More than anything has. */
#define PLAN_OPEN (UINT64_C(1) << 62)

struct plan {
    uint64_t size, segment; /* bytes; size PLAN_OPEN: nobody knows yet */
    _Atomic uint64_t next;  /* offset of the first segment that nobody has taken */
};

/* Covers [start, size). Segments are whole granules, if start is; small enough that lanes end together, large enough to stay
 * sequential. */
void plan_init(struct plan *plan, uint64_t start, uint64_t size, uint64_t granule, unsigned lanes);
/* It turns out to be this. There is one lane. */
void plan_end(struct plan *plan, uint64_t size);
/* False when all are taken. From any lane. */
bool plan_take(struct plan *plan, uint64_t *from, uint64_t *to);

#endif
