/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How much there is to do: beside a copy, for the time that is left, and in place of one. */
#include "job.h"

#include <errno.h>

#include <lunferry/units.h>

/* A copy that is over sooner needs no estimate. */
#define SURVEY_AFTER LOOP_SECOND

/* A survey that fails ends here when the lanes find the same fault, or nowhere. */
static void surveyed(struct survey *survey)
{
    struct copy_job *job = survey->opaque;

    if (survey->error.code == 0)
        job->data_total = survey->totals[SURVEY_READ].bytes;
    job->surveying = false;
    survey_release(survey);
    job_one_done(job);
}

static int start(struct copy_job *job)
{
    job->survey.loop = job->loop;
    job->survey.source = job->source;
    job->survey.size = job->source->size;
    job->survey.merge = LANE_SHORT_HOLE;
    job->survey.same_until = job->shared.same_until;
    job->survey.same_depth = job->shared.same_depth;
    job->survey.chunk = job->options.chunk;
    job->survey.opaque = job;
    job->outstanding++;
    job->surveying = true;
    if (survey_start(&job->survey) == 0)
        return 0;
    job->surveying = false;
    job->outstanding--;
    return -ENOMEM;
}

/* ---- Beside a copy ---------------------------------------------------------------------------- */

static void begin(struct loop_timer *timer)
{
    struct copy_job *job = container_of(timer, struct copy_job, survey_timer);

    job->survey.zero_from = 0; /* zeros take no time to speak of */
    job->survey.done = surveyed;
    start(job);
}

void job_survey_init(struct copy_job *job)
{
    job->survey_timer.fire = begin;
}

void job_survey_begin(struct copy_job *job)
{
    if (job->source->caps & BLK_CAN_EXTENTS)
        loop_timer_set(job->loop, &job->survey_timer, loop_now(job->loop) + SURVEY_AFTER);
}

void job_survey_end(struct copy_job *job)
{
    loop_timer_cancel(job->loop, &job->survey_timer);
    if (!job->surveying)
        return;
    survey_stop(&job->survey);
    if (atomic_load(&job->shared.aborting)) /* what the lanes cancelled may not have been all */
        source_cancel(&job->origin);
}

/* ---- In place of one -------------------------------------------------------------------------- */

static uint64_t requests(uint64_t offset, uint64_t len, uint32_t size)
{
    return (offset + len - 1) / size - offset / size + 1;
}

/* The head is written whole, whatever it holds. */
static void count_run(struct survey *survey, enum survey_kind kind, uint64_t offset, uint64_t len)
{
    struct copy_job *job = survey->opaque;
    struct copy_estimate *estimate = &job->result.estimate;
    const struct copy_options *options = &job->options;
    uint32_t read_size = options->read_size ? options->read_size : options->chunk;
    uint32_t write_size = options->write_size ? options->write_size : options->chunk;
    uint64_t head = job->targets[0].head_len;
    uint64_t part = offset < head ? min_u64(len, head - offset) : 0;

    if (kind == SURVEY_READ) {
        estimate->reads += requests(offset, len, read_size);
        estimate->writes += requests(offset, len, write_size);
    }
    if (kind == SURVEY_READ || part == 0)
        return;
    estimate->data += part;
    if (kind == SURVEY_ZERO)
        estimate->zeroed -= part;
    else
        estimate->skipped -= part;
}

static void estimated(struct survey *survey)
{
    struct copy_job *job = survey->opaque;
    struct copy_estimate *estimate = &job->result.estimate;

    if (survey->error.code != 0)
        job_fail(job, &survey->error, NULL);
    estimate->size = job->source->size;
    estimate->data += survey->totals[SURVEY_READ].bytes;
    estimate->zeroed += survey->totals[SURVEY_ZERO].bytes;
    estimate->skipped += survey->totals[SURVEY_SKIP].bytes;
    estimate->zeros = survey->totals[SURVEY_ZERO].requests;
    if (job->options.zero_unit == 0) { /* written like data, though nobody reads them */
        estimate->data += estimate->zeroed;
        estimate->writes += estimate->zeros;
        estimate->zeroed = estimate->zeros = 0;
    }
    survey_release(survey);
    job->surveying = false;
    job_enter(job, COPY_CLOSING);
}

void job_estimate(struct copy_job *job)
{
    const struct target *target = &job->targets[0];
    const struct copy_options *options = &job->options;
    struct blk_dev *reference = target->dev; /* what the target shows */
    bool zero =
        (target->new_file && !options->base) || (options->target_is_zero && !options->discard);

    job_choose_depth(job);
    job_choose_reference(job);
    if (options->base)
        reference = job->reference.dev;
    job->result.buffer_bytes =
        (uint64_t)options->lanes * options->depth * options->chunk * (job->shared.compare ? 2 : 1);
    job->result.estimate.source_tells = job->source->caps & BLK_CAN_EXTENTS;
    job->result.estimate.target_tells = zero || (reference->caps & BLK_CAN_EXTENTS);
    job->survey.zero_from = zero ? 0 : UINT64_MAX;
    job->survey.target = zero || options->zero_unit == 0 ? NULL : reference;
    job->result.estimate.compares = job->shared.compare;
    if (options->zero_unit == 0)
        job->survey.zero_from = UINT64_MAX;
    job->survey.run = count_run;
    job->survey.done = estimated;
    if (start(job) < 0) {
        job_fail_with(job, ENOMEM, "out of memory");
        job_enter(job, COPY_CLOSING);
    }
}
