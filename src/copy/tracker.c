/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tracker.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <lunferry/block.h>
#include <lunferry/units.h>

enum granule_state { UNTOUCHED, WRITTEN, FLUSHING, DURABLE };

/* A granule in two bytes: state, lane, and the epoch's place in the lane's list. */
#define ENTRY(state, lane, epoch) ((uint16_t)((state) | (lane) << 2 | (epoch) << 8))
#define ENTRY_STATE(entry)        ((enum granule_state)((entry)&3))
#define ENTRY_LANE(entry)         ((entry) >> 2 & 63)
#define ENTRY_EPOCH(entry)        ((entry) >> 8)

/* Epochs that a lane has seen since all of its granules were last durable. Place 0 stands for
 * BLK_NO_EPOCH, which no FLUSH confirms; whatever finds no place is put there: copied again at worst. */
#define MAX_EPOCHS 256

struct partial {
    uint64_t granule, bytes;
    uint64_t epoch;
    bool durable;
};

struct lane_track {
    uint64_t epochs[MAX_EPOCHS];
    unsigned epoch_count;
    struct partial *partials;
    size_t partial_count, partial_capacity;
};

struct tracker {
    uint64_t size, granule, count;
    _Atomic uint16_t *granules; /* relaxed: a lane looks only for its own, but walks over others' */
    unsigned lanes;
    struct lane_track lane[];
};

struct tracker *tracker_new(uint64_t size, unsigned lanes)
{
    struct tracker *tracker = calloc(1, sizeof(*tracker) + lanes * sizeof(tracker->lane[0]));
    uint64_t granule = TRACKER_MIN_GRANULE;

    assert(size > 0 && lanes > 0 && lanes <= 64);
    while ((size - 1) / granule + 1 > TRACKER_MAX_GRANULES)
        granule *= 2;
    if (!tracker)
        return NULL;
    tracker->size = size;
    tracker->granule = granule;
    tracker->count = (size - 1) / granule + 1;
    tracker->lanes = lanes;
    tracker->granules = calloc(tracker->count, sizeof(*tracker->granules));
    for (unsigned i = 0; i < lanes; i++)
        tracker->lane[i].epoch_count = 1;
    if (!tracker->granules) {
        free(tracker);
        return NULL;
    }
    return tracker;
}

void tracker_free(struct tracker *tracker)
{
    if (!tracker)
        return;
    for (unsigned i = 0; i < tracker->lanes; i++)
        free(tracker->lane[i].partials);
    free(tracker->granules);
    free(tracker);
}

uint64_t tracker_granule(const struct tracker *tracker)
{
    return tracker->granule;
}

static uint16_t get(const struct tracker *tracker, uint64_t granule)
{
    return atomic_load_explicit(&tracker->granules[granule], memory_order_relaxed);
}

static void put(struct tracker *tracker, uint64_t granule, uint16_t entry)
{
    atomic_store_explicit(&tracker->granules[granule], entry, memory_order_relaxed);
}

static unsigned epoch_place(struct lane_track *lane, uint64_t epoch)
{
    if (epoch == BLK_NO_EPOCH)
        return 0;
    for (unsigned i = 1; i < lane->epoch_count; i++) {
        if (lane->epochs[i] == epoch)
            return i;
    }
    if (lane->epoch_count == MAX_EPOCHS)
        return 0;
    lane->epochs[lane->epoch_count] = epoch;
    return lane->epoch_count++;
}

static void granule_written(struct tracker *tracker, unsigned number, uint64_t granule,
                            uint64_t epoch, bool durable)
{
    unsigned place = durable ? 0 : epoch_place(&tracker->lane[number], epoch);

    put(tracker, granule, ENTRY(durable ? DURABLE : WRITTEN, number, place));
}

static struct partial *find_partial(struct lane_track *lane, uint64_t granule)
{
    for (size_t i = 0; i < lane->partial_count; i++) {
        if (lane->partials[i].granule == granule)
            return &lane->partials[i];
    }
    return NULL;
}

static struct partial *add_partial(struct lane_track *lane, uint64_t granule, uint64_t epoch)
{
    struct partial *partial;

    if (lane->partial_count == lane->partial_capacity) {
        size_t capacity = lane->partial_capacity ? 2 * lane->partial_capacity : 16;
        struct partial *list = realloc(lane->partials, capacity * sizeof(*list));

        if (!list)
            return NULL;
        lane->partials = list;
        lane->partial_capacity = capacity;
    }
    partial = &lane->partials[lane->partial_count++];
    *partial = (struct partial){.granule = granule, .epoch = epoch, .durable = true};
    return partial;
}

/* `bytes` more of a granule are written; when that is all of it, the granule is. */
static bool part_written(struct tracker *tracker, unsigned number, uint64_t granule, uint64_t bytes,
                         uint64_t epoch, bool durable)
{
    struct lane_track *lane = &tracker->lane[number];
    uint64_t whole = min_u64(tracker->granule, tracker->size - granule * tracker->granule);
    struct partial *partial;

    if (bytes == whole) {
        granule_written(tracker, number, granule, epoch, durable);
        return true;
    }
    partial = find_partial(lane, granule);
    if (!partial)
        partial = add_partial(lane, granule, epoch);
    if (!partial)
        return false;
    partial->bytes += bytes;
    if (partial->epoch != epoch)
        partial->epoch = BLK_NO_EPOCH;
    partial->durable = partial->durable && durable;
    assert(partial->bytes <= whole);
    if (partial->bytes == whole) {
        granule_written(tracker, number, granule, partial->epoch, partial->durable);
        *partial = lane->partials[--lane->partial_count];
    }
    return true;
}

bool tracker_written(struct tracker *tracker, unsigned lane, uint64_t offset, uint64_t len,
                     uint64_t epoch, bool durable)
{
    uint64_t end = offset + len;

    assert(lane < tracker->lanes && len > 0 && end <= tracker->size);
    while (offset < end) {
        uint64_t granule = offset / tracker->granule;
        uint64_t to = min_u64(end, (granule + 1) * tracker->granule);

        if (!part_written(tracker, lane, granule, to - offset, epoch, durable))
            return false;
        offset = to;
    }
    return true;
}

void tracker_flush_begin(struct tracker *tracker, unsigned lane)
{
    for (uint64_t i = 0; i < tracker->count; i++) {
        uint16_t entry = get(tracker, i);

        if (ENTRY_STATE(entry) == WRITTEN && ENTRY_LANE(entry) == lane)
            put(tracker, i, ENTRY(FLUSHING, lane, ENTRY_EPOCH(entry)));
    }
}

uint64_t tracker_flush_end(struct tracker *tracker, unsigned number, uint64_t epoch,
                           uint64_t *first)
{
    struct lane_track *lane = &tracker->lane[number];
    uint64_t lost = 0;

    for (uint64_t i = 0; i < tracker->count; i++) {
        uint16_t entry = get(tracker, i);

        if (ENTRY_STATE(entry) != FLUSHING || ENTRY_LANE(entry) != number)
            continue;
        if (epoch != BLK_NO_EPOCH && lane->epochs[ENTRY_EPOCH(entry)] == epoch) {
            put(tracker, i, ENTRY(DURABLE, number, 0));
            continue;
        }
        if (lost == 0)
            *first = i * tracker->granule;
        lost += min_u64(tracker->granule, tracker->size - i * tracker->granule);
        put(tracker, i, ENTRY(UNTOUCHED, 0, 0));
    }
    return lost;
}

bool tracker_durable_from(const struct tracker *tracker, uint64_t offset)
{
    for (uint64_t i = (offset + tracker->granule - 1) / tracker->granule; i < tracker->count; i++) {
        if (ENTRY_STATE(get(tracker, i)) != DURABLE)
            return false;
    }
    return true;
}
