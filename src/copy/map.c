/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A map from its start to its end: open, survey the one end (survey.c), close. */
#include <lunferry/map.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "side.h"
#include "survey.h"

struct map_job {
    struct loop *loop;
    struct map_options options;
    enum map_phase phase;
    struct map_result result;
    struct loop_call call; /* runs the phase */
    struct blk_dev *dev;
    struct blk_task task;
    struct side side;
    struct survey survey;
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

static void opened(struct blk_task *task)
{
    struct map_job *job = task->opaque;

    if (task->status < 0)
        fail(job, &task->error);
    enter(job, job->result.status < 0 ? MAP_CLOSING : MAP_WALKING);
}

static void open_device(struct map_job *job)
{
    const struct blk_open_args args = {
        .url = job->options.url,
        .settings = &job->options.settings,
        .watcher = &job->side.watcher,
    };

    job->task = (struct blk_task){.done = opened, .opaque = job};
    job->dev = blk_open(job->loop, &args, &job->task);
    if (!job->dev) {
        fail_with(job, ENOMEM, "out of memory");
        enter(job, MAP_CLOSING);
    }
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

static void on_run(struct survey *survey, enum survey_kind kind, uint64_t offset, uint64_t len)
{
    struct map_job *job = survey->opaque;
    struct map_run run = {.offset = offset, .len = len, .zeros = kind != SURVEY_READ};
    struct map_total *total = run.zeros ? &job->result.zeros : &job->result.data;

    total->bytes += len;
    total->runs++;
    job->options.run(job->options.opaque, &run);
}

static void surveyed(struct survey *survey)
{
    struct map_job *job = survey->opaque;

    if (survey->error.code)
        fail(job, &survey->error);
    job->result.tells = (job->dev->caps & BLK_CAN_EXTENTS) != 0;
    survey_release(survey);
    enter(job, MAP_CLOSING);
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
    job->survey = (struct survey){
        .loop = job->loop,
        .source = job->dev,
        .size = job->dev->size,
        .zero_from = UINT64_MAX,
        .chunk = MIB,
        .run = on_run,
        .done = surveyed,
        .opaque = job,
    };
    if (survey_start(&job->survey) < 0) {
        fail_with(job, ENOMEM, "out of memory");
        enter(job, MAP_CLOSING);
    }
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
        open_device(job);
        break;
    case MAP_WALKING:
        walk(job);
        break;
    case MAP_CLOSING:
        close_device(job);
        break;
    case MAP_ENDED:
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
    /* The survey knows whether it is complete. */
    if (job->phase == MAP_WALKING && job->result.opened)
        survey_stop(&job->survey);
    else
        fail_with(job, ECANCELED, "interrupted");
    if (job->dev)
        blk_cancel_all(job->dev);
}

enum map_phase map_phase(const struct map_job *job)
{
    return job->phase;
}

const struct map_result *map_result(const struct map_job *job)
{
    return &job->result;
}
