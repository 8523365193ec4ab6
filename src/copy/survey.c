/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "survey.h"

#include <assert.h>
#include <errno.h>

#include <lunferry/units.h>

/* ---- Totals ----------------------------------------------------------------------------------- */

static uint64_t requests_for(const struct survey *survey, enum survey_kind kind, uint64_t begin,
                             uint64_t end)
{
    const struct blk_dev *target = survey->target;
    uint64_t unit = survey->chunk;

    if (kind == SURVEY_SKIP)
        return 0;
    if (kind == SURVEY_ZERO && target && (target->caps & BLK_CAN_ZERO))
        unit = target->limits.max_zero;
    return (end - 1) / unit - begin / unit + 1;
}

static void tell(struct survey *survey)
{
    struct survey_total *total = &survey->totals[survey->kind];
    uint64_t begin = survey->begin;

    if (begin == survey->at)
        return;
    survey->begin = survey->at;
    total->bytes += survey->at - begin;
    total->runs++;
    total->requests += requests_for(survey, survey->kind, begin, survey->at);
    if (survey->run)
        survey->run(survey, survey->kind, begin, survey->at - begin);
}

/* ---- The end ---------------------------------------------------------------------------------- */

static void end_when_idle(struct survey *survey)
{
    assert(survey->state == SURVEY_ENDING);
    if (walk_is_busy(&survey->source_walk) || walk_is_busy(&survey->target_walk))
        return;
    survey->state = SURVEY_ENDED;
    survey->done(survey);
}

/* Goes on from the loop. */
static void begin_to_end(struct survey *survey, const struct blk_error *error)
{
    assert(survey->state == SURVEY_WALKING);
    survey->state = SURVEY_ENDING;
    if (error)
        survey->error = *error;
    walk_stop(&survey->source_walk);
    if (survey->target)
        walk_stop(&survey->target_walk);
    loop_defer(survey->loop, &survey->call);
}

/* ---- Walking ---------------------------------------------------------------------------------- */

/* The target is walked over from the first zeros of the source on, and goes on asking ahead while the
 * source has data; what it does not know when the source has zeros again is left out. */
static bool target_at(struct survey *survey, struct walk_run *run)
{
    struct walk *walk = &survey->target_walk;

    if (!survey->in_zeros && walk_known(walk) <= survey->at)
        walk_over(walk, survey->at, min_u64(survey->size, survey->zero_from));
    survey->in_zeros = true;
    return walk_at(walk, survey->at, run);
}

/* What lies at `at`, and up to where. False: not known yet. */
static bool next_part(struct survey *survey, enum survey_kind *kind, uint64_t *end)
{
    struct walk_run source, target;

    if (!walk_at(&survey->source_walk, survey->at, &source))
        return false;
    *end = source.end;
    if (source.kind == WALK_DATA) {
        survey->in_zeros = false;
        *kind = SURVEY_READ;
    } else if (source.kind == WALK_SAME) {
        survey->in_zeros = false;
        *kind = SURVEY_SKIP;
    } else if (survey->at >= survey->zero_from) {
        *kind = SURVEY_SKIP;
    } else if (!survey->target) {
        *kind = SURVEY_ZERO;
        *end = min_u64(*end, survey->zero_from);
    } else {
        if (!target_at(survey, &target))
            return false;
        *kind = target.kind == WALK_ZEROS ? SURVEY_SKIP : SURVEY_ZERO;
        *end = min_u64(*end, target.end);
    }
    return true;
}

/* As far as it gets. */
static void go_on(struct survey *survey)
{
    const struct blk_error *source_error = &survey->source_walk.error;
    const struct blk_error *target_error = &survey->target_walk.error;
    enum survey_kind kind;
    uint64_t end;

    while (survey->at < survey->size && next_part(survey, &kind, &end)) {
        if (kind != survey->kind)
            tell(survey);
        if (survey->state != SURVEY_WALKING)
            return;
        survey->kind = kind;
        survey->at = end;
    }
    if (survey->at == survey->size || source_error->code || target_error->code)
        tell(survey);
    if (survey->state != SURVEY_WALKING)
        return;
    if (survey->at == survey->size)
        begin_to_end(survey, NULL);
    else if (source_error->code)
        begin_to_end(survey, source_error);
    else if (target_error->code)
        begin_to_end(survey, target_error);
}

static void ready(struct walk *walk)
{
    struct survey *survey = walk->opaque;

    if (survey->state == SURVEY_WALKING)
        go_on(survey);
    else
        loop_defer(survey->loop, &survey->call);
}

static void run_call(struct loop_call *call)
{
    struct survey *survey = container_of(call, struct survey, call);

    if (survey->state == SURVEY_WALKING)
        go_on(survey);
    else
        end_when_idle(survey);
}

/* ---- From outside ----------------------------------------------------------------------------- */

static int start_walk(struct survey *survey, struct walk *walk, struct blk_dev *dev)
{
    *walk = (struct walk){.dev = dev, .ready = ready, .opaque = survey};
    return walk_init(walk);
}

int survey_start(struct survey *survey)
{
    assert(survey->size <= survey->source->size && survey->chunk > 0);
    assert(!survey->target || survey->target->size >= min_u64(survey->size, survey->zero_from));
    survey->state = SURVEY_IDLE;
    survey->target_walk = (struct walk){.runs = NULL};
    if (start_walk(survey, &survey->source_walk, survey->source) < 0)
        return -ENOMEM;
    if (survey->target && start_walk(survey, &survey->target_walk, survey->target) < 0) {
        walk_release(&survey->source_walk);
        return -ENOMEM;
    }
    for (unsigned kind = 0; kind < SURVEY_KINDS; kind++)
        survey->totals[kind] = (struct survey_total){.bytes = 0};
    blk_error_clear(&survey->error);
    survey->in_zeros = false;
    survey->at = survey->begin = 0;
    survey->kind = SURVEY_READ;
    survey->call = (struct loop_call){.run = run_call};
    survey->source_walk.merge = survey->merge;
    survey->source_walk.same_until = survey->same_until;
    survey->source_walk.same_depth = survey->same_depth;
    survey->state = SURVEY_WALKING;
    walk_over(&survey->source_walk, 0, survey->size);
    loop_defer(survey->loop, &survey->call);
    return 0;
}

void survey_stop(struct survey *survey)
{
    struct blk_error error;

    if (survey->state != SURVEY_WALKING)
        return;
    blk_error_set(&error, ECANCELED, "interrupted");
    begin_to_end(survey, &error);
}

void survey_release(struct survey *survey)
{
    assert(survey->state == SURVEY_ENDED);
    walk_release(&survey->source_walk);
    if (survey->target)
        walk_release(&survey->target_walk);
    survey->state = SURVEY_IDLE;
}
