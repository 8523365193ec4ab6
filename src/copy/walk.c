/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A walk over a device's extents, asked ahead.
 *
 * The ring holds what is known from the walker's place to `known`, kinds in turn. Only its last run may
 * still change: it grows with the next answer, and while it is short zeros it is of no kind yet.
 */
#include "walk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <lunferry/units.h>

/* A request is sent when half of them are free, and may fill that half: the other half is what the
 * walker has until the answer is in. */
#define RUNS (512 + 1) /* one extent may be cut in two, where the same ends */

int walk_init(struct walk *walk)
{
    walk->runs = calloc(RUNS, sizeof(*walk->runs));
    walk->extents.list = calloc(RUNS / 2, sizeof(*walk->extents.list));
    walk->extents.capacity = RUNS / 2;
    walk->first = walk->count = 0;
    walk->from = walk->known = walk->end = 0;
    walk->waiting = walk->stale = false;
    blk_error_clear(&walk->error);
    if (walk->runs && walk->extents.list)
        return 0;
    walk_release(walk);
    return -ENOMEM;
}

void walk_release(struct walk *walk)
{
    assert(!walk->waiting);
    free(walk->runs);
    free(walk->extents.list);
    walk->runs = NULL;
    walk->extents.list = NULL;
}

/* ---- The ring --------------------------------------------------------------------------------- */

static struct walk_run *run_at(const struct walk *walk, unsigned index)
{
    assert(index < walk->count);
    return &walk->runs[(walk->first + index) % RUNS];
}

static struct walk_run *last_run(const struct walk *walk)
{
    return walk->count > 0 ? run_at(walk, walk->count - 1) : NULL;
}

static bool is_short(const struct walk *walk, const struct walk_run *run)
{
    return run->kind == WALK_ZEROS && run->end - run->offset < walk->merge;
}

/* The last run was short zeros and counts as data: it belongs to the data before it, if that is here
 * still. */
static void merge_last(struct walk *walk)
{
    struct walk_run *last = last_run(walk);

    last->kind = WALK_DATA;
    if (walk->count > 1 && run_at(walk, walk->count - 2)->kind == WALK_DATA) {
        run_at(walk, walk->count - 2)->end = last->end;
        walk->count--;
    }
}

static void append(struct walk *walk, uint64_t end, enum walk_kind kind)
{
    struct walk_run *last = last_run(walk);

    if (last && kind != WALK_ZEROS && is_short(walk, last)) {
        merge_last(walk);
        last = last_run(walk);
    }
    if (last && last->kind == kind) {
        last->end = end;
    } else {
        assert(walk->count < RUNS);
        walk->count++;
        *last_run(walk) = (struct walk_run){walk->known, end, kind, false};
    }
    walk->known = end;
    last = last_run(walk);
    /* No more zeros will come. With nothing before them there is no data to belong to. */
    if (end == walk->end && is_short(walk, last) && last->offset > walk->from)
        merge_last(walk);
}

/* ---- Asking ----------------------------------------------------------------------------------- */

static void ask(struct walk *walk);

static enum walk_kind kind_of(const struct blk_extent *extent, const struct walk *walk)
{
    if (walk->known < walk->same_until && extent->depth >= walk->same_depth)
        return WALK_SAME;
    return extent->kind == BLK_DATA ? WALK_DATA : WALK_ZEROS;
}

/* Where the same ends, an extent is cut. */
static void take_one(struct walk *walk, const struct blk_extent *extent)
{
    uint64_t end = walk->known + min_u64(extent->len, walk->end - walk->known);

    if (walk->known < walk->same_until && walk->same_until < end)
        append(walk, walk->same_until, kind_of(extent, walk));
    append(walk, end, kind_of(extent, walk));
}

static void take(struct walk *walk)
{
    const struct blk_extents *extents = &walk->extents;

    assert(extents->count > 0 && extents->count <= extents->capacity);
    for (size_t i = 0; i < extents->count && walk->known < walk->end; i++) {
        const struct blk_extent *extent = &extents->list[i];

        assert(extent->offset == walk->known && extent->len > 0);
        take_one(walk, extent);
    }
}

static void answered(struct blk_req *req)
{
    struct walk *walk = req->opaque;

    walk->waiting = false;
    if (walk->stale)
        walk->stale = false;
    else if (req->status < 0)
        walk->error = req->error;
    else
        take(walk);
    ask(walk);
    walk->ready(walk); /* may release the walk */
}

static void ask(struct walk *walk)
{
    bool awaited = walk->waiting && !walk->stale;

    if (awaited || walk->error.code != 0 || walk->known == walk->end || walk->count > RUNS / 2)
        return;
    /* It may have been taken back since the last request. */
    if (!(walk->dev->caps & BLK_CAN_EXTENTS)) {
        append(walk, walk->end, WALK_DATA);
        return;
    }
    if (walk->waiting)
        return;
    walk->waiting = true;
    walk->extents.count = 0;
    walk->req = (struct blk_req){
        .op = BLK_EXTENTS,
        .offset = walk->known,
        .len = walk->end - walk->known,
        .extents = &walk->extents,
        .done = answered,
        .opaque = walk,
    };
    blk_submit(walk->dev, &walk->req);
}

/* ---- Walking ---------------------------------------------------------------------------------- */

void walk_over(struct walk *walk, uint64_t from, uint64_t end)
{
    assert(from <= end && end <= walk->dev->size);
    walk->stale = walk->waiting;
    walk->first = walk->count = 0;
    walk->from = walk->known = from;
    walk->end = end;
    blk_error_clear(&walk->error);
    ask(walk);
}

void walk_stop(struct walk *walk)
{
    walk_over(walk, 0, 0);
}

uint64_t walk_known(const struct walk *walk)
{
    return walk->known;
}

bool walk_is_busy(const struct walk *walk)
{
    return walk->waiting;
}

/* The last one stays: where it began decides what it is. */
static void drop_before(struct walk *walk, uint64_t offset)
{
    while (walk->count > 1 && run_at(walk, 0)->end <= offset) {
        walk->first = (walk->first + 1) % RUNS;
        walk->count--;
    }
}

bool walk_at(struct walk *walk, uint64_t offset, struct walk_run *run)
{
    const struct walk_run *here;
    bool open;

    assert(offset >= walk->from && offset < walk->end);
    drop_before(walk, offset);
    ask(walk);
    if (offset >= walk->known)
        return false;
    here = run_at(walk, 0);
    assert(offset >= here->offset && offset < here->end);
    open = here->end == walk->known && walk->known < walk->end;
    if (open && is_short(walk, here))
        return false;
    *run = (struct walk_run){offset, here->end, here->kind, open};
    return true;
}

bool walk_next(const struct walk *walk, struct walk_run *run)
{
    const struct walk_run *next;

    if (walk->count < 2)
        return false;
    next = run_at(walk, 1);
    *run = *next;
    run->open = next->end == walk->known && walk->known < walk->end;
    return !(run->open && is_short(walk, next));
}
