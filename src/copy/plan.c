/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plan.h"

#include <lunferry/units.h>

/* A lane takes at least this many segments, so that the last to end is late by little. */
#define SEGMENTS_PER_LANE 16
#define MAX_SEGMENT       (64 * MIB)

void plan_init(struct plan *plan, uint64_t start, uint64_t size, uint64_t granule, unsigned lanes)
{
    uint64_t segment =
        round_down(min_u64(size / (lanes * SEGMENTS_PER_LANE), MAX_SEGMENT), granule);

    plan->size = size;
    if (lanes == 1) /* waits for nobody; a border would only cut its chunks short */
        plan->segment = size - start > 0 ? size - start : granule;
    else
        plan->segment = segment > 0 ? segment : granule;
    atomic_init(&plan->next, start);
}

void plan_end(struct plan *plan, uint64_t size)
{
    plan->size = size;
    atomic_store_explicit(&plan->next, size, memory_order_relaxed);
}

bool plan_take(struct plan *plan, uint64_t *from, uint64_t *to)
{
    uint64_t next = atomic_load_explicit(&plan->next, memory_order_relaxed);

    do {
        if (next >= plan->size)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&plan->next, &next, next + plan->segment,
                                                    memory_order_relaxed, memory_order_relaxed));
    *from = next;
    *to = min_u64(next + plan->segment, plan->size);
    return true;
}
