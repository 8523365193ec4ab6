/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tracker: what has become of every granule of a target. A granule is untouched, written (in an
 * epoch, by a lane) or durable.
 *
 * A granule is durable when a FLUSH that was submitted after its last write's completion, on the
 * same clone, returned the same epoch; or when its writes said that they need no FLUSH.
 *
 * Lanes work on disjoint granules (segments are whole granules) and call with their own number, each
 * from its own thread; there is no lock. Chunks may be smaller than a granule or cross its border:
 * what a lane has begun and not completed is remembered in its list of partial granules, which is as
 * short as the lane has slots.
 */
#ifndef LUNFERRY_TRACKER_H
#define LUNFERRY_TRACKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACKER_MIN_GRANULE  (UINT64_C(256) << 10)
#define TRACKER_MAX_GRANULES (UINT64_C(1) << 20)

struct tracker;

/* For `size` bytes (> 0) and `lanes` lanes. NULL: out of memory. */
struct tracker *tracker_new(uint64_t size, unsigned lanes);
void tracker_free(struct tracker *tracker);
/* Bytes: a power of two, at least TRACKER_MIN_GRANULE. */
uint64_t tracker_granule(const struct tracker *tracker);

/* A write of [offset, offset + len) has completed. False: out of memory. */
bool tracker_written(struct tracker *tracker, unsigned lane, uint64_t offset, uint64_t len,
                     uint64_t epoch, bool durable);

/* Around a lane's FLUSH. Only what was written before tracker_flush_begin() is covered. After a
 * failed one, or one with another epoch, the granules that it was to cover are untouched again:
 * tracker_flush_end() returns how many bytes that are (0: all is durable), and the first of them in
 * *first. A failed FLUSH ends with BLK_NO_EPOCH. */
void tracker_flush_begin(struct tracker *tracker, unsigned lane);
uint64_t tracker_flush_end(struct tracker *tracker, unsigned lane, uint64_t epoch, uint64_t *first);

/* Is everything from `offset` (the start of a granule, or the end) on durable? To be asked when no
 * lane is at work. */
bool tracker_durable_from(const struct tracker *tracker, uint64_t offset);

#endif
