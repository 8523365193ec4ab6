/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rate.h"

/* start, before the first take: a loop's clock does not get there. */
#define UNSET LOOP_NEVER

/* A hundred GiB per second for a day is more bytes times nanoseconds than fit into 64 bits. */
__extension__ typedef unsigned __int128 wide;

static uint64_t clamp(wide value)
{
    return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

/* What the limit allows in `ns`. */
static uint64_t worth(const struct rate *rate, uint64_t ns)
{
    return clamp((wide)ns * rate->bytes_per_second / LOOP_SECOND);
}

/* Rounded up, so that no byte starts too early. */
static uint64_t time_of(const struct rate *rate, uint64_t bytes)
{
    return clamp(((wide)bytes * LOOP_SECOND + rate->bytes_per_second - 1) / rate->bytes_per_second);
}

void rate_init(struct rate *rate, uint64_t bytes_per_second)
{
    rate->bytes_per_second = bytes_per_second;
    rate->burst = worth(rate, RATE_BURST);
    atomic_init(&rate->start, UNSET);
    atomic_init(&rate->taken, 0);
}

static uint64_t start_of(struct rate *rate, uint64_t now)
{
    uint64_t start = atomic_load_explicit(&rate->start, memory_order_relaxed);

    if (start == UNSET &&
        atomic_compare_exchange_strong_explicit(&rate->start, &start, now, memory_order_relaxed,
                                                memory_order_relaxed))
        return now;
    return start;
}

uint64_t rate_take(struct rate *rate, uint64_t now, uint64_t bytes)
{
    uint64_t start, allowed, floor, before, taken, at;

    if (rate->bytes_per_second == 0)
        return now;
    start = start_of(rate, now);
    allowed = worth(rate, now > start ? now - start : 0);
    floor = allowed > rate->burst ? allowed - rate->burst : 0;
    taken = atomic_load_explicit(&rate->taken, memory_order_relaxed);
    do {
        /* What was not used in time, but for the burst, is gone. */
        before = taken > floor ? taken : floor;
    } while (!atomic_compare_exchange_weak_explicit(&rate->taken, &taken, before + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    at = clamp((wide)start + time_of(rate, before));
    return at > now ? at : now;
}
