/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* EXTENTS, from L2 tables alone; where the image has nothing, what the backing device says. */
#include "qcow2_private.h"

#include <assert.h>

#include <lunferry/units.h>

/* An answer ends after so many runs, and after so many questions to the backing device, each of which may be a
 * round trip. */
#define MAX_RUNS  16384
#define MAX_ASKED 64

static bool is_one(const struct blk_extent *a, const struct blk_extent *b)
{
    return a->kind == b->kind && a->depth == b->depth && a->compressed == b->compressed &&
           (a->host_offset == BLK_NO_OFFSET ? b->host_offset == BLK_NO_OFFSET
                                            : b->host_offset == a->host_offset + a->len);
}

/* False: there is no room for it. */
static bool append(struct blk_extents *extents, const struct blk_extent *extent)
{
    struct blk_extent *last = extents->count ? &extents->list[extents->count - 1] : NULL;

    assert(extents->list);
    if (last && is_one(last, extent)) {
        last->len += extent->len;
        return true;
    }
    if (extents->count == extents->capacity)
        return false;
    extents->list[extents->count++] = *extent;
    return true;
}

static bool append_run(struct qcow2_request *request, const struct qcow2_run *run)
{
    struct blk_extent extent = {
        .offset = run->offset,
        .len = run->len,
        .kind = BLK_ZEROS,
        .host_offset = BLK_NO_OFFSET,
    };

    switch (run->kind) {
    case QCOW2_RUN_ZEROS:
        break;
    case QCOW2_RUN_NOTHING: /* and nothing behind it, or that ends before */
        extent.kind = BLK_UNALLOCATED;
        break;
    case QCOW2_RUN_PLAIN:
        extent.kind = BLK_DATA;
        extent.host_offset = run->host;
        break;
    case QCOW2_RUN_COMPRESSED: /* neighbours are one extent, wherever they are */
        extent.kind = BLK_DATA;
        extent.compressed = true;
        break;
    }
    if (!append(request->req->extents, &extent))
        return false;
    request->at += run->len;
    return true;
}

/* ---- The backing device ----------------------------------------------------------------------- */

static void backing_done(struct blk_req *ask)
{
    struct qcow2_request *request = ask->opaque;
    struct blk_extents *extents = request->req->extents;

    if (ask->status < 0)
        qcow2_fail(request, &ask->error, ask->offset);
    for (size_t i = 0; ask->status == 0 && i < request->answer.count; i++) {
        struct blk_extent extent = request->answer.list[i];

        /* It is written where the answer has been read, or before. */
        extent.depth++;
        append(extents, &extent);
        request->at += extent.len;
    }
    qcow2_extents(request);
}

static void ask_backing(struct qcow2_request *request, uint64_t offset, uint64_t len)
{
    struct blk_extents *extents = request->req->extents;

    request->asked++;
    request->answer =
        (struct blk_extents){extents->list + extents->count, extents->capacity - extents->count, 0};
    request->ask = (struct blk_req){.op = BLK_EXTENTS,
                                    .offset = offset,
                                    .len = len,
                                    .extents = &request->answer,
                                    .done = backing_done,
                                    .opaque = request};
    blk_submit(request->qcow2->below[QCOW2_BACKING].dev, &request->ask);
}

/* ---- The answer ------------------------------------------------------------------------------- */

/* Where something has been answered, nothing is waited for, and no error is of interest. False: it goes on
 * later. */
static bool find(struct qcow2_request *request, struct qcow2_run *run, bool *enough)
{
    bool begun = request->req->extents->count > 0;
    uint64_t end = request->req->offset + request->req->len;
    struct blk_error error;
    int found = qcow2_map_find(&request->qcow2->map, request->at, end, run,
                               begun ? NULL : &request->waiter, &error);

    *enough = found != QCOW2_FOUND;
    if (found < 0 && !begun)
        qcow2_fail(request, &error, request->at);
    return begun || found != QCOW2_LATER;
}

void qcow2_extents(struct qcow2_request *request)
{
    const struct blk_extents *extents = request->req->extents;
    uint64_t end = request->req->offset + request->req->len;
    uint64_t backing = qcow2_backing_size(request->qcow2);
    bool enough = false;
    struct qcow2_run run;

    for (unsigned runs = 0; request->at < end && request->status == 0 && runs < MAX_RUNS; runs++) {
        if (!find(request, &run, &enough))
            return;
        if (enough)
            break;
        if (run.kind != QCOW2_RUN_NOTHING || run.offset >= backing) {
            if (!append_run(request, &run))
                break;
            continue;
        }
        if (extents->count == extents->capacity || request->asked == MAX_ASKED)
            break;
        ask_backing(request, run.offset, min_u64(run.len, backing - run.offset));
        return;
    }
    qcow2_gathered(request);
}
