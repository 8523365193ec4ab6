/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A map from its start to its end: open, ask for the extents of all of it, close. */
#include <lunferry/map.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "side.h"

#define EXTENTS 512 /* of one answer */

struct map_job {
    struct loop *loop;
    struct map_options options;
    enum map_phase phase;
    struct map_result result;
    struct loop_call call; /* runs the phase */
    struct image image;
    struct blk_dev *dev; /* of the image, once it is open */
    struct blk_task task;
    struct side side;
    struct blk_req req;
    struct blk_extents extents;
    struct blk_extent list[EXTENTS];
    uint64_t at;        /* so far it has got */
    struct map_run run; /* the last one; it may go on. len 0: there is none */
};

static void enter(struct map_job *job, enum map_phase phase)
{
    assert(phase > job->phase || phase == MAP_OPENING);
    job->phase = phase;
    loop_defer(job->loop, &job->call);
}

/* The first error wins. */
static void fail(struct map_job *job, const struct blk_error *error)
{
    if (job->result.status < 0)
        return;
    job->result.status = -error->code;
    job->result.error = *error;
}

static void fail_with(struct map_job *job, int code, const char *text)
{
    struct blk_error error;

    blk_error_set(&error, code, "%s", text);
    fail(job, &error);
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void opened(struct image *image, int status)
{
    struct map_job *job = image->opaque;

    job->dev = image->dev;
    if (status < 0)
        fail(job, &image->error);
    enter(job, job->result.status < 0 ? MAP_CLOSING : MAP_WALKING);
}

static void open_image(struct map_job *job)
{
    job->image = (struct image){
        .loop = job->loop,
        .args =
            {
                .url = job->options.url,
                .choice = job->options.image,
                .settings = &job->options.settings,
                .watcher = &job->side.watcher,
            },
        .done = opened,
        .opaque = job,
    };
    image_open(&job->image);
}

/* ---- Walking ---------------------------------------------------------------------------------- */

struct used_report {
    struct blk_report report;
    uint64_t used;
};

static void take_fact(struct blk_report *report, const char *key, const char *label,
                      const char *value)
{
    (void)label;
    if (strcmp(key, "used") == 0)
        container_of(report, struct used_report, report)->used = strtoull(value, NULL, 10);
}

static uint64_t used_by(struct blk_dev *dev)
{
    struct used_report report = {.report.fact = take_fact, .used = MAP_USED_UNKNOWN};

    blk_describe(dev, &report.report);
    return report.used;
}

static bool goes_on(const struct map_run *run, const struct map_run *next)
{
    uint64_t host = run->host_offset == BLK_NO_OFFSET ? BLK_NO_OFFSET : run->host_offset + run->len;

    return run->zeros == next->zeros && run->allocated == next->allocated &&
           run->depth == next->depth && run->compressed == next->compressed &&
           host == next->host_offset;
}

static void tell(struct map_job *job)
{
    const struct map_run run = job->run;
    struct map_total *total = run.zeros ? &job->result.zeros : &job->result.data;

    if (run.len == 0)
        return;
    job->run.len = 0;
    total->bytes += run.len;
    total->runs++;
    job->options.run(job->options.opaque, &run);
}

/* What is data, and nobody says where, is in a raw image: every byte is at its own offset there. */
static uint64_t host_offset(const struct blk_extent *extent)
{
    if (extent->kind == BLK_DATA && !extent->compressed && extent->host_offset == BLK_NO_OFFSET)
        return extent->offset;
    return extent->host_offset;
}

/* A run is told when it is known where it ends. The owner may have stopped the job then. */
static void take(struct map_job *job, const struct blk_extent *extent)
{
    const struct map_run next = {
        .offset = job->at,
        .len = min_u64(extent->len, job->dev->size - job->at),
        .zeros = extent->kind != BLK_DATA,
        .allocated = extent->kind != BLK_UNALLOCATED,
        .depth = extent->depth,
        .host_offset = host_offset(extent),
        .compressed = extent->compressed,
    };

    assert(extent->offset == job->at && extent->len > 0);
    job->at += next.len;
    if (job->run.len > 0 && goes_on(&job->run, &next)) {
        job->run.len += next.len;
        return;
    }
    tell(job);
    job->run = next;
}

static void end_walk(struct map_job *job)
{
    if (job->result.error.code != ECANCELED)
        tell(job);
    job->result.tells = (job->dev->caps & BLK_CAN_EXTENTS) != 0;
    enter(job, MAP_CLOSING);
}

static void ask(struct map_job *job);

static void answered(struct blk_req *req)
{
    struct map_job *job = req->opaque;

    if (req->status < 0)
        fail(job, &req->error);
    for (size_t i = 0; req->status == 0 && i < job->extents.count; i++) {
        if (job->result.status < 0 || job->at == job->dev->size)
            break;
        take(job, &job->list[i]);
    }
    ask(job);
}

static void ask(struct map_job *job)
{
    const uint64_t left = job->dev->size - job->at;

    /* It may have been taken back since the last request. */
    if (job->result.status == 0 && left > 0 && !(job->dev->caps & BLK_CAN_EXTENTS))
        take(job,
             &(struct blk_extent){
                 .offset = job->at, .len = left, .kind = BLK_DATA, .host_offset = BLK_NO_OFFSET});
    if (job->result.status < 0 || job->at == job->dev->size) {
        end_walk(job);
        return;
    }
    job->extents = (struct blk_extents){.list = job->list, .capacity = EXTENTS};
    job->req = (struct blk_req){
        .op = BLK_EXTENTS,
        .offset = job->at,
        .len = left,
        .extents = &job->extents,
        .done = answered,
        .opaque = job,
    };
    blk_submit(job->dev, &job->req);
}

static void walk(struct map_job *job)
{
    struct blk_error error;

    if (job->dev->size == BLK_SIZE_UNKNOWN) {
        blk_error_set(&error, ENOTSUP, "%s is a stream, which has no map", job->dev->name);
        fail(job, &error);
        enter(job, MAP_CLOSING);
        return;
    }
    job->result.opened = true;
    job->result.size = job->dev->size;
    job->result.used = used_by(job->dev);
    job->result.format = image_layer(&job->image, 0)->format;
    ask(job);
}

/* ---- Closing ---------------------------------------------------------------------------------- */

static void closed(struct blk_task *task)
{
    enter(task->opaque, MAP_ENDED);
}

static void close_device(struct map_job *job)
{
    struct blk_dev *dev = job->dev;

    if (!dev) {
        enter(job, MAP_ENDED);
        return;
    }
    job->dev = NULL;
    job->task = (struct blk_task){.done = closed, .opaque = job};
    blk_close(dev, &job->task);
}

/* ---- Phases ----------------------------------------------------------------------------------- */

/* From a call of its own, so that a phase that ends at once does not end inside the one before. */
static void run_phase(struct loop_call *call)
{
    struct map_job *job = container_of(call, struct map_job, call);

    if (job->result.status < 0 && job->phase < MAP_CLOSING)
        job->phase = MAP_CLOSING;
    switch (job->phase) {
    case MAP_OPENING:
        open_image(job);
        break;
    case MAP_WALKING:
        walk(job);
        break;
    case MAP_CLOSING:
        close_device(job);
        break;
    case MAP_ENDED:
        image_release(&job->image);
        job->options.done(job, job->options.opaque);
        break;
    }
}

struct map_job *map_start(struct loop *loop, const struct map_options *options)
{
    struct map_job *job = calloc(1, sizeof(*job));

    if (!job)
        return NULL;
    job->loop = loop;
    job->options = *options;
    job->call.run = run_phase;
    job->result.used = MAP_USED_UNKNOWN;
    side_init(&job->side, "source", options->notice, options->opaque);
    enter(job, MAP_OPENING);
    return job;
}

void map_free(struct map_job *job)
{
    if (!job)
        return;
    assert(job->phase == MAP_ENDED);
    free(job);
}

/* ---- From outside ----------------------------------------------------------------------------- */

void map_stop(struct map_job *job)
{
    if (job->phase >= MAP_CLOSING)
        return;
    fail_with(job, ECANCELED, "interrupted");
    if (job->dev)
        blk_cancel_all(job->dev);
    else
        image_cancel(&job->image);
}

enum map_phase map_phase(const struct map_job *job)
{
    return job->phase;
}

const struct map_result *map_result(const struct map_job *job)
{
    return &job->result;
}
