/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A limit in bytes per second that all lanes of a job share: a token bucket without a lock.
 *
 * Whoever is about to move bytes takes them and is told when he may start. Takes are never given
 * back, and each is put behind all earlier ones, from whichever lane, so lanes share by what they
 * ask for.
 *
 * What holds: in any window of time the bytes that may start are at most the window's worth, and
 * RATE_BURST's worth, and one take. The burst makes up for timers that fire late; a job that stalled
 * for longer does not catch up. The sum is kept in whole bytes and compared with the time since the
 * first take, so nothing is rounded twice and nothing drifts.
 */
#ifndef LUNFERRY_RATE_H
#define LUNFERRY_RATE_H

#include <stdatomic.h>
#include <stdint.h>

#include <lunferry/loop.h>

#define RATE_BURST (50 * LOOP_MSECOND)

struct rate {
    uint64_t bytes_per_second; /* constant; 0: no limit */
    uint64_t burst;            /* bytes; constant */
    _Atomic uint64_t start;    /* ns, of the first take; set once by whoever takes first */
    _Atomic uint64_t taken;    /* bytes since then, and those that a stall forfeited; takers add */
};

void rate_init(struct rate *rate, uint64_t bytes_per_second);

/* Takes `bytes` (at most 2^63 in all of a job's life); returns when they may start, in ns of the
 * loop's clock: `now` where that is at once. From any lane; clocks of lanes may differ by a turn. */
uint64_t rate_take(struct rate *rate, uint64_t now, uint64_t bytes);

#endif
