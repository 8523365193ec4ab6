/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tracker: what has become of every granule of a target. A granule is untouched, written (in an
 * epoch, by a lane), durable, or verified; or lost, which is to be copied again by the lane that had
 * written it.
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
/* Of a size that is not known: 16 TiB take 2 MiB then. */
#define TRACKER_OPEN_GRANULE (UINT64_C(16) << 20)

struct tracker;

/* For `size` bytes (> 0; BLK_SIZE_UNKNOWN: it grows) and `lanes` lanes (1, where it grows). Granules are whole
 * units of `unit` bytes, a power of two: what the target can only take as a whole. NULL: out of memory. */
struct tracker *tracker_new(uint64_t size, unsigned lanes, uint64_t unit);
void tracker_free(struct tracker *tracker);
/* It turns out that there are only `size` bytes (> 0), of which none beyond was written. False: out of
 * memory. */
bool tracker_end(struct tracker *tracker, uint64_t size);
/* Bytes: a power of two, at least TRACKER_MIN_GRANULE. */
uint64_t tracker_granule(const struct tracker *tracker);

/* A write of [offset, offset + len) has completed. False: out of memory. */
bool tracker_written(struct tracker *tracker, unsigned lane, uint64_t offset, uint64_t len,
                     uint64_t epoch, bool durable);

/* The range was not written, for it is as it should be. A granule of which nothing was written is durable,
 * and there is nothing to verify about it. False: out of memory. */
bool tracker_skipped(struct tracker *tracker, unsigned lane, uint64_t offset, uint64_t len);

/* Around a lane's FLUSH, of which there is one at a time. Only what was written before
 * tracker_flush_begin() is covered. After a failed one, or one with another epoch, the granules that
 * it was to cover are lost: tracker_flush_end() returns how many bytes that are (0: all is durable),
 * and the first of them in *first. A failed FLUSH ends with BLK_NO_EPOCH. */
void tracker_flush_begin(struct tracker *tracker, unsigned lane);
uint64_t tracker_flush_end(struct tracker *tracker, unsigned lane, uint64_t epoch, uint64_t *first);

/* Bytes in granules that the lane has written since the last tracker_flush_begin(). */
uint64_t tracker_unflushed(const struct tracker *tracker, unsigned lane);

/* The first run of granules that the lane has lost, at least one and at most `max` bytes: they are
 * the lane's to copy again. False: there is none. */
bool tracker_take_lost(struct tracker *tracker, unsigned lane, uint64_t max, uint64_t *from,
                       uint64_t *to);
/* Bytes in granules that it has lost and not taken. */
uint64_t tracker_lost(const struct tracker *tracker, unsigned lane);

/* The same for granules that are durable and were not verified: from now on they count as verified,
 * until tracker_differs() says that the granule at `offset` is lost after all. */
bool tracker_take_unverified(struct tracker *tracker, unsigned lane, uint64_t max, uint64_t *from,
                             uint64_t *to);
void tracker_differs(struct tracker *tracker, unsigned lane, uint64_t offset);

/* Granules that an earlier run has made durable; before any lane is at work. They are lane 0's. */
void tracker_resume(struct tracker *tracker, uint64_t first, uint64_t count);
/* Where in [offset, end) the first byte is that nobody has begun to copy (`end`: nowhere); *until:
 * where the next granule begins that somebody has: an earlier run, whose granules are lane 0's, which
 * may find that they differ. From any lane, for a range that the plan has given it. */
uint64_t tracker_skip_begun(const struct tracker *tracker, uint64_t offset, uint64_t end,
                            uint64_t *until);
/* The first run of durable granules from number `granule` on, and its length (0: there is none).
 * From any thread. */
uint64_t tracker_durable_run(const struct tracker *tracker, uint64_t granule, uint64_t *count);

/* Is everything from `offset` (the start of a granule, or the end) on durable? To be asked when no
 * lane is at work. */
bool tracker_durable_from(const struct tracker *tracker, uint64_t offset);

#endif
