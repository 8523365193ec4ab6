/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tracker.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/block.h>
#include <lunferry/units.h>

/* TAKEN: was LOST, and is being copied again. DURABLE and what follows are. */
enum granule_state { UNTOUCHED, TAKEN, WRITTEN, FLUSHING, LOST, DURABLE, VERIFIED, STATES };

/* A granule in two bytes: state, lane, and the epoch's place in the lane's list. */
#define ENTRY(state, lane, epoch) ((uint16_t)((state) | (lane) << 3 | (epoch) << 9))
#define ENTRY_STATE(entry)        ((enum granule_state)((entry)&7))
#define ENTRY_LANE(entry)         ((entry) >> 3 & 63)
#define ENTRY_EPOCH(entry)        ((entry) >> 9)

/* Epochs that a lane has seen. Place 0 stands for BLK_NO_EPOCH, which no FLUSH confirms; whatever
 * finds no place is put there: copied again at worst. */
#define MAX_EPOCHS 128

struct partial {
    uint64_t granule, bytes;
    uint64_t epoch; /* of what is not durable by itself */
    bool durable;   /* all so far */
    bool written;   /* some of it */
};

/* What has become of a part of a granule. */
struct part {
    uint64_t epoch;
    bool durable, written;
};

struct lane_track {
    uint64_t bytes[STATES]; /* in granules of the lane's that are in each state */
    uint64_t low[STATES];   /* no such granule of the lane's lies before this one */
    uint64_t epochs[MAX_EPOCHS];
    unsigned epoch_count;
    struct partial *partials;
    size_t partial_count, partial_capacity;
};

struct tracker {
    uint64_t size, granule; /* size BLK_SIZE_UNKNOWN: granules are added as they are written */
    uint64_t count;
    _Atomic uint16_t *granules; /* relaxed: a lane looks only for its own, but walks over others' */
    unsigned lanes;
    struct lane_track lane[];
};

struct tracker *tracker_new(uint64_t size, unsigned lanes, uint64_t unit)
{
    struct tracker *tracker = calloc(1, sizeof(*tracker) + lanes * sizeof(tracker->lane[0]));
    uint64_t granule = unit > TRACKER_MIN_GRANULE ? unit : TRACKER_MIN_GRANULE;

    assert(unit > 0 && (unit & (unit - 1)) == 0 && unit <= TRACKER_OPEN_GRANULE);
    assert(size > 0 && lanes > 0 && lanes <= 64);
    assert(size != BLK_SIZE_UNKNOWN || lanes == 1);
    if (size == BLK_SIZE_UNKNOWN)
        granule = TRACKER_OPEN_GRANULE;
    while (size != BLK_SIZE_UNKNOWN && (size - 1) / granule + 1 > TRACKER_MAX_GRANULES)
        granule *= 2;
    if (!tracker)
        return NULL;
    tracker->size = size;
    tracker->granule = granule;
    tracker->count = size == BLK_SIZE_UNKNOWN ? 1024 : (size - 1) / granule + 1;
    tracker->lanes = lanes;
    tracker->granules = calloc(tracker->count, sizeof(*tracker->granules));
    for (unsigned i = 0; i < lanes; i++) {
        tracker->lane[i].epoch_count = 1;
        memset(tracker->lane[i].low, 0xff, sizeof(tracker->lane[i].low));
    }
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

/* Bytes of the granule. */
static uint64_t length(const struct tracker *tracker, uint64_t granule)
{
    return min_u64(tracker->granule, tracker->size - granule * tracker->granule);
}

/* Every change of state goes through here. */
static void change(struct tracker *tracker, unsigned number, uint64_t granule,
                   enum granule_state state, unsigned epoch)
{
    struct lane_track *lane = &tracker->lane[number];
    uint16_t old = get(tracker, granule);
    uint64_t len = length(tracker, granule);

    assert(ENTRY_STATE(old) == UNTOUCHED || ENTRY_LANE(old) == number);
    lane->bytes[ENTRY_STATE(old)] -= ENTRY_STATE(old) == UNTOUCHED ? 0 : len;
    lane->bytes[state] += len;
    lane->low[state] = min_u64(lane->low[state], granule);
    put(tracker, granule, ENTRY(state, number, epoch));
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

static void granule_complete(struct tracker *tracker, unsigned number, uint64_t granule,
                             const struct part *part)
{
    if (!part->written)
        change(tracker, number, granule, VERIFIED, 0);
    else if (part->durable)
        change(tracker, number, granule, DURABLE, 0);
    else
        change(tracker, number, granule, WRITTEN, epoch_place(&tracker->lane[number], part->epoch));
}

static struct partial *find_partial(struct lane_track *lane, uint64_t granule)
{
    for (size_t i = 0; i < lane->partial_count; i++) {
        if (lane->partials[i].granule == granule)
            return &lane->partials[i];
    }
    return NULL;
}

static struct partial *add_partial(struct lane_track *lane, uint64_t granule)
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
    *partial = (struct partial){.granule = granule, .epoch = BLK_NO_EPOCH, .durable = true};
    return partial;
}

static void add_part(struct partial *partial, const struct part *part, uint64_t bytes)
{
    partial->bytes += bytes;
    partial->written = partial->written || part->written;
    if (part->durable)
        return;
    if (partial->durable)
        partial->epoch = part->epoch;
    else if (partial->epoch != part->epoch)
        partial->epoch = BLK_NO_EPOCH;
    partial->durable = false;
}

/* `bytes` more of a granule are there; when that is all of it, the granule is. */
static bool part_is_there(struct tracker *tracker, unsigned number, uint64_t granule,
                          uint64_t bytes, const struct part *part)
{
    struct lane_track *lane = &tracker->lane[number];
    uint64_t whole = length(tracker, granule);
    struct partial *partial;

    if (bytes == whole) {
        granule_complete(tracker, number, granule, part);
        return true;
    }
    partial = find_partial(lane, granule);
    if (!partial)
        partial = add_partial(lane, granule);
    if (!partial)
        return false;
    add_part(partial, part, bytes);
    assert(partial->bytes <= whole);
    if (partial->bytes == whole) {
        struct part all = {partial->epoch, partial->durable, partial->written};

        granule_complete(tracker, number, granule, &all);
        *partial = lane->partials[--lane->partial_count];
    }
    return true;
}

/* Granules that nobody has touched, up to this many. */
static bool grow(struct tracker *tracker, uint64_t count)
{
    _Atomic uint16_t *granules;

    if (count <= tracker->count)
        return true;
    granules = realloc(tracker->granules, count * sizeof(*granules));
    if (!granules)
        return false;
    for (uint64_t i = tracker->count; i < count; i++)
        atomic_init(&granules[i], 0);
    tracker->granules = granules;
    tracker->count = count;
    return true;
}

/* Room for the range, and as much again. */
static bool reach(struct tracker *tracker, uint64_t end)
{
    uint64_t count = (end - 1) / tracker->granule + 1;

    return count <= tracker->count || grow(tracker, 2 * count);
}

static bool range_is_there(struct tracker *tracker, unsigned lane, uint64_t offset, uint64_t len,
                           const struct part *part)
{
    uint64_t end = offset + len;

    assert(lane < tracker->lanes && len > 0 && end <= tracker->size);
    if (!reach(tracker, end))
        return false;
    while (offset < end) {
        uint64_t granule = offset / tracker->granule;
        uint64_t to = min_u64(end, (granule + 1) * tracker->granule);

        if (!part_is_there(tracker, lane, granule, to - offset, part))
            return false;
        offset = to;
    }
    return true;
}

bool tracker_written(struct tracker *tracker, unsigned lane, uint64_t offset, uint64_t len,
                     uint64_t epoch, bool durable)
{
    struct part part = {epoch, durable, true};

    return range_is_there(tracker, lane, offset, len, &part);
}

bool tracker_skipped(struct tracker *tracker, unsigned lane, uint64_t offset, uint64_t len)
{
    struct part part = {BLK_NO_EPOCH, true, false};

    return range_is_there(tracker, lane, offset, len, &part);
}

/* The last granule may be shorter than it was, and all of it be there. */
bool tracker_end(struct tracker *tracker, uint64_t size)
{
    uint64_t last = (size - 1) / tracker->granule;
    struct lane_track *lane = &tracker->lane[0];
    struct partial *partial = find_partial(lane, last);

    assert(size > 0 && size <= tracker->size && tracker->lanes == 1);
    if (!reach(tracker, size))
        return false;
    tracker->size = size;
    tracker->count = last + 1;
    if (partial && partial->bytes == length(tracker, last)) {
        struct part all = {partial->epoch, partial->durable, partial->written};

        granule_complete(tracker, 0, last, &all);
        *partial = lane->partials[--lane->partial_count];
    }
    return true;
}

/* The lane's next granule in this state, from `granule` on; tracker->count when there is none. */
static uint64_t next_in(struct tracker *tracker, unsigned number, enum granule_state state,
                        uint64_t granule)
{
    if (tracker->lane[number].bytes[state] == 0)
        return tracker->count;
    if (granule < tracker->lane[number].low[state])
        granule = tracker->lane[number].low[state];
    for (; granule < tracker->count; granule++) {
        uint16_t entry = get(tracker, granule);

        if (ENTRY_STATE(entry) == state && ENTRY_LANE(entry) == number)
            break;
    }
    return granule;
}

/* An epoch that no granule names any more makes room. */
static void forget_epochs(struct tracker *tracker, unsigned number)
{
    struct lane_track *lane = &tracker->lane[number];
    uint64_t epochs[MAX_EPOCHS];
    unsigned count = lane->epoch_count;

    if (count < MAX_EPOCHS / 2)
        return;
    memcpy(epochs, lane->epochs, sizeof(epochs));
    lane->epoch_count = 1;
    for (uint64_t i = next_in(tracker, number, WRITTEN, 0); i < tracker->count;
         i = next_in(tracker, number, WRITTEN, i + 1))
        change(tracker, number, i, WRITTEN,
               epoch_place(lane, epochs[ENTRY_EPOCH(get(tracker, i))]));
}

void tracker_flush_begin(struct tracker *tracker, unsigned lane)
{
    for (uint64_t i = next_in(tracker, lane, WRITTEN, 0); i < tracker->count;
         i = next_in(tracker, lane, WRITTEN, i + 1))
        change(tracker, lane, i, FLUSHING, ENTRY_EPOCH(get(tracker, i)));
    tracker->lane[lane].low[WRITTEN] = UINT64_MAX;
}

uint64_t tracker_flush_end(struct tracker *tracker, unsigned number, uint64_t epoch,
                           uint64_t *first)
{
    struct lane_track *lane = &tracker->lane[number];
    uint64_t lost = 0;

    for (uint64_t i = next_in(tracker, number, FLUSHING, 0); i < tracker->count;
         i = next_in(tracker, number, FLUSHING, i + 1)) {
        if (epoch != BLK_NO_EPOCH && lane->epochs[ENTRY_EPOCH(get(tracker, i))] == epoch) {
            change(tracker, number, i, DURABLE, 0);
            continue;
        }
        if (lost == 0)
            *first = i * tracker->granule;
        lost += length(tracker, i);
        change(tracker, number, i, LOST, 0);
    }
    lane->low[FLUSHING] = UINT64_MAX;
    forget_epochs(tracker, number);
    return lost;
}

uint64_t tracker_unflushed(const struct tracker *tracker, unsigned lane)
{
    return tracker->lane[lane].bytes[WRITTEN];
}

/* ---- What is still to be done ----------------------------------------------------------------- */

bool tracker_take_lost(struct tracker *tracker, unsigned number, uint64_t max, uint64_t *from,
                       uint64_t *to)
{
    uint64_t i = next_in(tracker, number, LOST, 0);

    tracker->lane[number].low[LOST] = i < tracker->count ? i : UINT64_MAX;
    if (i == tracker->count)
        return false;
    *from = *to = i * tracker->granule;
    /* At least one granule, and as many neighbours as fit. */
    do {
        change(tracker, number, i, TAKEN, 0);
        *to += length(tracker, i);
        i++;
    } while (*to - *from + tracker->granule <= max && next_in(tracker, number, LOST, i) == i &&
             i < tracker->count);
    return true;
}

uint64_t tracker_lost(const struct tracker *tracker, unsigned lane)
{
    return tracker->lane[lane].bytes[LOST];
}

bool tracker_take_unverified(struct tracker *tracker, unsigned number, uint64_t max, uint64_t *from,
                             uint64_t *to)
{
    uint64_t i = next_in(tracker, number, DURABLE, 0);

    tracker->lane[number].low[DURABLE] = i < tracker->count ? i : UINT64_MAX;
    if (i == tracker->count)
        return false;
    *from = *to = i * tracker->granule;
    do {
        change(tracker, number, i, VERIFIED, 0);
        *to += length(tracker, i);
        i++;
    } while (*to - *from + tracker->granule <= max && next_in(tracker, number, DURABLE, i) == i &&
             i < tracker->count);
    return true;
}

void tracker_differs(struct tracker *tracker, unsigned lane, uint64_t offset)
{
    change(tracker, lane, offset / tracker->granule, LOST, 0);
}

void tracker_resume(struct tracker *tracker, uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count && i < tracker->count; i++)
        change(tracker, 0, i, DURABLE, 0);
}

static bool is_durable(const struct tracker *tracker, uint64_t granule)
{
    return ENTRY_STATE(get(tracker, granule)) >= DURABLE;
}

/* Durable already, or some lane's to copy again. */
static bool is_begun(const struct tracker *tracker, uint64_t granule)
{
    return ENTRY_STATE(get(tracker, granule)) != UNTOUCHED;
}

uint64_t tracker_skip_begun(const struct tracker *tracker, uint64_t offset, uint64_t end,
                            uint64_t *until)
{
    uint64_t i = offset / tracker->granule, last = (end + tracker->granule - 1) / tracker->granule;

    while (i < last && is_begun(tracker, i))
        i++;
    offset = i * tracker->granule > offset ? min_u64(i * tracker->granule, end) : offset;
    while (i < last && !is_begun(tracker, i))
        i++;
    *until = min_u64(i * tracker->granule, end);
    return offset;
}

bool tracker_durable_from(const struct tracker *tracker, uint64_t offset)
{
    for (uint64_t i = (offset + tracker->granule - 1) / tracker->granule; i < tracker->count; i++) {
        if (!is_durable(tracker, i))
            return false;
    }
    return true;
}

uint64_t tracker_durable_run(const struct tracker *tracker, uint64_t granule, uint64_t *count)
{
    while (granule < tracker->count && !is_durable(tracker, granule))
        granule++;
    for (*count = 0; granule + *count < tracker->count && is_durable(tracker, granule + *count);)
        ++*count;
    return granule;
}
