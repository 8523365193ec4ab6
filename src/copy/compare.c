/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A comparison from its start to its end: open both, compare (compare_lane.c), close both. */
#include <lunferry/compare.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "compare_lane.h"
#include "depth.h"
#include "side.h"

struct end {
    struct compare_job *job;
    struct image image;
    struct blk_dev *dev; /* of the image, once it is open */
    struct blk_task task;
    struct side side;
};

struct compare_job {
    struct loop *loop;
    struct compare_options options;
    enum compare_phase phase;
    unsigned outstanding; /* operations that the phase waits for */
    struct compare_result result;
    struct loop_call call; /* runs the phase */
    struct end ends[COMPARE_SIDES];
    struct compare_lane lane;
};

static void enter(struct compare_job *job, enum compare_phase phase)
{
    job->phase = phase;
    loop_defer(job->loop, &job->call);
}

/* The first error wins. */
static void fail(struct compare_job *job, const struct blk_error *error, const char *side)
{
    if (job->result.status < 0)
        return;
    job->result.status = -error->code;
    job->result.error = *error;
    if (side)
        blk_error_prefix(&job->result.error, "%s", side);
}

static void fail_with(struct compare_job *job, int code, const char *text)
{
    struct blk_error error;

    blk_error_set(&error, code, "%s", text);
    fail(job, &error, NULL);
}

static const char *name_of(const struct end *end)
{
    return end == &end->job->ends[COMPARE_A] ? "A" : "B";
}

static void one_done(struct compare_job *job)
{
    assert(job->outstanding > 0);
    if (--job->outstanding == 0)
        enter(job, job->phase + 1);
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void cancel_both(struct compare_job *job)
{
    for (unsigned side = 0; side < COMPARE_SIDES; side++) {
        if (job->ends[side].dev)
            blk_cancel_all(job->ends[side].dev);
        else
            image_cancel(&job->ends[side].image);
    }
}

static void opened(struct image *image, int status)
{
    struct end *end = image->opaque;
    struct compare_job *job = end->job;

    end->dev = image->dev;
    if (status < 0) {
        fail(job, &image->error, name_of(end));
        if (job->outstanding > 1) /* the other end need not time out */
            cancel_both(job);
    }
    one_done(job);
}

static void open_both(struct compare_job *job)
{
    job->outstanding = COMPARE_SIDES;
    for (unsigned side = 0; side < COMPARE_SIDES; side++) {
        struct end *end = &job->ends[side];

        end->image = (struct image){
            .loop = job->loop,
            .args =
                {
                    .url = job->options.urls[side],
                    .choice = job->options.images[side],
                    .settings = &job->options.settings,
                    .watcher = &end->side.watcher,
                },
            .done = opened,
            .opaque = end,
        };
        image_open(&end->image);
    }
}

/* ---- Comparing -------------------------------------------------------------------------------- */

static void lane_ended(struct compare_lane *lane)
{
    one_done(container_of(lane, struct compare_job, lane));
}

static int take_sizes(struct compare_job *job)
{
    for (unsigned side = 0; side < COMPARE_SIDES; side++) {
        const struct blk_dev *dev = job->ends[side].dev;
        struct blk_error error;

        job->result.size[side] = dev->size;
        if (dev->size == BLK_SIZE_UNKNOWN) {
            blk_error_set(&error, ENOTSUP, "%s is a stream, which cannot be compared", dev->name);
            fail(job, &error, name_of(&job->ends[side]));
            return -ENOTSUP;
        }
    }
    return 0;
}

static void choose_depth(struct compare_job *job)
{
    uint64_t a = job->ends[COMPARE_A].dev->round_trip, b = job->ends[COMPARE_B].dev->round_trip;

    if (job->options.depth == 0)
        job->options.depth = depth_for(a > b ? a : b);
    job->result.depth = job->options.depth;
}

static void compare(struct compare_job *job)
{
    struct compare_result *result = &job->result;
    struct compare_lane *lane = &job->lane;

    job->outstanding = 1;
    if (take_sizes(job) < 0) {
        one_done(job);
        return;
    }
    result->opened = true;
    choose_depth(job);
    if (job->options.strict && result->size[COMPARE_A] != result->size[COMPARE_B]) {
        result->different = result->sizes = true;
        one_done(job);
        return;
    }
    lane->loop = job->loop;
    lane->devs[COMPARE_A] = job->ends[COMPARE_A].dev;
    lane->devs[COMPARE_B] = job->ends[COMPARE_B].dev;
    lane->options = &job->options;
    lane->result = &job->result;
    lane->ended = lane_ended;
    if (compare_lane_start(lane) < 0) {
        struct blk_error error;

        blk_error_set(&error, ENOMEM, "no memory for %u slots of 2 x %" PRIu32 " bytes",
                      job->options.depth, job->options.chunk);
        fail(job, &error, NULL);
        one_done(job);
    }
}

/* ---- Closing ---------------------------------------------------------------------------------- */

static void closed(struct blk_task *task)
{
    one_done(((struct end *)task->opaque)->job);
}

static void close_both(struct compare_job *job)
{
    compare_lane_release(&job->lane);
    job->outstanding = 1;
    for (unsigned side = 0; side < COMPARE_SIDES; side++) {
        struct end *end = &job->ends[side];

        if (!end->dev)
            continue;
        end->task = (struct blk_task){.done = closed, .opaque = end};
        job->outstanding++;
        blk_close(end->dev, &end->task);
        end->dev = NULL;
    }
    one_done(job);
}

/* ---- Phases ----------------------------------------------------------------------------------- */

/* From a call of its own, so that a phase that ends at once does not end inside the one before. */
static void run_phase(struct loop_call *call)
{
    struct compare_job *job = container_of(call, struct compare_job, call);

    if (job->result.status < 0 && job->phase < COMPARE_CLOSING)
        job->phase = COMPARE_CLOSING;
    switch (job->phase) {
    case COMPARE_OPENING:
        open_both(job);
        break;
    case COMPARE_READING:
        compare(job);
        break;
    case COMPARE_CLOSING:
        close_both(job);
        break;
    case COMPARE_ENDED:
        for (unsigned side = 0; side < COMPARE_SIDES; side++)
            image_release(&job->ends[side].image);
        job->options.done(job, job->options.opaque);
        break;
    }
}

struct compare_job *compare_start(struct loop *loop, const struct compare_options *options)
{
    struct compare_job *job = calloc(1, sizeof(*job));

    assert(options->depth <= COMPARE_MAX_DEPTH);
    assert(options->chunk >= 4096 && options->chunk % 4096 == 0 &&
           options->chunk <= COMPARE_MAX_CHUNK);
    assert(options->range || !options->all);
    if (!job)
        return NULL;
    job->loop = loop;
    job->options = *options;
    job->call.run = run_phase;
    job->ends[COMPARE_A].job = job->ends[COMPARE_B].job = job;
    for (unsigned side = 0; side < COMPARE_SIDES; side++)
        side_init(&job->ends[side].side, name_of(&job->ends[side]), options->notice,
                  options->opaque);
    enter(job, COMPARE_OPENING);
    return job;
}

void compare_free(struct compare_job *job)
{
    if (!job)
        return;
    assert(job->phase == COMPARE_ENDED);
    free(job);
}

/* ---- From outside ----------------------------------------------------------------------------- */

void compare_stop(struct compare_job *job)
{
    if (job->phase >= COMPARE_CLOSING)
        return;
    if (job->lane.state != COMPARE_LANE_IDLE) {
        compare_lane_stop(&job->lane);
        return;
    }
    fail_with(job, ECANCELED, "interrupted");
    cancel_both(job);
}

void compare_progress(const struct compare_job *job, struct compare_progress *progress)
{
    const struct compare_result *result = &job->result;

    *progress = (struct compare_progress){
        .phase = job->phase,
        .done = result->bytes,
        .reading = job->lane.reading,
    };
    if (job->phase > COMPARE_OPENING && result->opened)
        progress->total = result->size[COMPARE_A] > result->size[COMPARE_B]
                              ? result->size[COMPARE_A]
                              : result->size[COMPARE_B];
}

const struct compare_result *compare_result(const struct compare_job *job)
{
    return &job->result;
}
