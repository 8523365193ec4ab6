/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The lanes at work, and what they tell. */
#include "job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <lunferry/units.h>

#include "depth.h"

#define COMPRESSED_DEPTH 16
#define SECTOR           512

void job_kick_lanes(struct copy_job *job)
{
    if (job->first.slots)
        lane_kick(&job->first);
    for (unsigned i = 0; i + 1 < job->options.lanes; i++)
        lane_thread_kick(&job->threads[i]);
}

static void lane_ended(struct copy_job *job, const struct blk_error *error)
{
    if (error->code != 0)
        job_fail(job, error, NULL);
    if (atomic_load(&job->shared.stopping))
        job_kick_lanes(job);
    if (--job->lanes_at_work > 0)
        return;
    if (job->shared.stream && job->shared.plan.size != PLAN_OPEN)
        job->targets[0].size = job->shared.plan.size;
    loop_unwatch(job->loop, &job->watch);
    loop_timer_cancel(job->loop, &job->journal_timer);
    job_record(job);
    job_survey_end(job);
    job_one_done(job);
}

static void first_ended(struct lane *lane)
{
    lane_ended(container_of(lane, struct copy_job, first), &lane->error);
}

static void prepare_watch(struct loop_watch *watch, struct loop_interest *interest)
{
    struct copy_job *job = container_of(watch, struct copy_job, watch);

    for (unsigned i = 0; i + 1 < job->options.lanes; i++) {
        if (job->threads[i].started && atomic_load(&job->threads[i].ended))
            interest->deadline = 0;
    }
    if (atomic_load(&job->shared.flushes) != job->flushes_recorded)
        interest->deadline = 0;
}

/* In any lane's thread. */
static void lane_flushed(struct lane_shared *shared)
{
    loop_wake(container_of(shared, struct copy_job, shared)->loop);
}

static void record(struct copy_job *job)
{
    unsigned flushes = atomic_load(&job->shared.flushes);

    if (flushes == job->flushes_recorded)
        return;
    job->flushes_recorded = flushes;
    job_record(job);
}

static void serve_watch(struct loop_watch *watch, short revents)
{
    struct copy_job *job = container_of(watch, struct copy_job, watch);

    (void)revents;
    record(job);
    for (unsigned i = 0; i + 1 < job->options.lanes; i++) {
        struct lane_thread *thread = &job->threads[i];

        if (thread->started && atomic_load(&thread->ended)) {
            lane_thread_join(thread);
            lane_ended(job, &thread->lane.error);
        }
    }
}

static void start_threads(struct copy_job *job)
{
    struct blk_error error;

    for (unsigned i = 0; i + 1 < job->options.lanes; i++) {
        struct lane_thread *thread = &job->threads[i];

        thread->number = i + 1;
        thread->shared = &job->shared;
        thread->source = job->source;
        thread->target = job->targets[0].dev;
        thread->reference = job->first.reference;
        thread->owner = job->loop;
        if (lane_thread_start(thread, &error) < 0) {
            job_fail(job, &error, NULL);
            atomic_store(&job->shared.stopping, true);
            job_kick_lanes(job);
            return;
        }
        job->lanes_at_work++;
    }
}

void job_choose_depth(struct copy_job *job)
{
    const struct blk_dev *dev = job->targets[0].dev; /* none yet, of a new file that is not made */
    uint64_t source = job->source->round_trip, target = dev ? dev->round_trip : 0;

    if (job->options.depth == 0)
        job->options.depth = depth_for(source > target ? source : target);
    /* Many have to be there to fill one write. */
    if (job->options.layout.compress && job->options.depth < COMPRESSED_DEPTH)
        job->options.depth = COMPRESSED_DEPTH;
    job->result.depth = job->options.depth;
}

static void bad_range(struct lane_shared *shared, uint64_t offset, uint64_t len)
{
    struct copy_job *job = container_of(shared, struct copy_job, shared);

    atomic_fetch_add(&job->bad_bytes, len);
    job->options.bad_range(job->options.opaque, offset, len);
}

/* Chunks that begin at blocks of both ends are not read or written in part; digests have blocks of
 * their own. */
static uint64_t unit_of(const struct copy_job *job)
{
    uint64_t unit = job->options.verify ? COPY_VERIFY_CHUNK : 4096;
    uint64_t source = job->source->limits.align, target = job->targets[0].dev->limits.align;
    uint64_t block = job->result.digests.block;

    unit = unit > block ? unit : block;
    unit = unit > source ? unit : source;
    unit = unit > target ? unit : target;
    return min_u64(unit, job->options.chunk);
}

void job_choose_reference(struct copy_job *job)
{
    const struct copy_options *options = &job->options;
    bool whole = options->source_count == 1 && options->source_len == 0;
    const char *told = NULL;
    char text[400];

    job->first.reference = options->base ? job->reference.dev : NULL;
    job->shared.compare = options->compare || options->base;
    job->shared.base_list = job->reference.list;
    if (options->compare && !options->base)
        job->first.reference = job->targets[0].dev;
    if (!options->base || options->compare || !whole ||
        !reference_is_behind(&job->reference, source_end_image(&job->origin, 0),
                             &job->shared.same_depth, &job->shared.same_until, &told))
        return;
    job->shared.compare = false;
    job->shared.base_list = NULL;
    if (options->digests == COPY_DIGESTS_NONE)
        job->shared.list = NULL;
    if (told) {
        snprintf(text, sizeof(text), "backing file: %s: %s", options->base->text, told);
        options->notice(options->opaque, false, text);
    }
}

/*
 * A new image has whole sectors. Where the disk ends in the middle of one, and the reference goes on, the rest of the
 * reference's sector would show if the unit that the end lies in were left out.
 */
static uint64_t whole_from(const struct copy_job *job)
{
    uint64_t size = job->source->size;

    if (!job->options.base || size % SECTOR == 0 || job->reference.size <= size)
        return UINT64_MAX;
    return round_down(size, job->shared.unit);
}

/* What one lane has to do by itself: a granule, or a block of a digest, if that is more. */
static uint64_t piece_of(const struct copy_job *job)
{
    uint64_t granule = tracker_granule(job->targets[0].tracker);

    return granule > job->result.digests.block ? granule : job->result.digests.block;
}

void job_copy(struct copy_job *job)
{
    struct target *target = &job->targets[0];

    job_choose_depth(job);
    job->outstanding = 1; /* the lanes */
    job_gather_facts(job);
    if (job->resume.recording)
        resume_note(&job->resume);
    else if (job_can_be_resumed(job))
        loop_timer_set(job->loop, &job->journal_timer, loop_now(job->loop) + RESUME_AFTER);
    if (job->resume.earlier)
        job->result.resumed = resume_tracker(&job->resume, target->tracker, job->source->size);
    atomic_fetch_add(&job->shared.done, job->result.resumed);
    rate_init(&job->shared.rate, job->options.rate);
    if (job->options.verify) {
        job->shared.digests = digests_new(target->size, tracker_granule(target->tracker));
        if (!job->shared.digests) {
            job_fail_with(job, ENOMEM, "no memory for the digests");
            job_one_done(job);
            return;
        }
    }
    if (job_digests_begin(job) < 0) {
        job_fail_with(job, ENOMEM, "no memory for the digests");
        job_one_done(job);
        return;
    }
    plan_init(&job->shared.plan, target->head_len, min_u64(target->size, PLAN_OPEN), piece_of(job),
              job->options.lanes);
    job->shared.stream = job->source->size == BLK_SIZE_UNKNOWN;
    job->shared.open_ended = job->shared.stream && target->new_file;
    job->shared.tracker = target->tracker;
    job->shared.zero_from = target->zero_from;
    job->shared.target_tells = !target->resumed;
    job->shared.promised = !target->new_file && target->zero_from != UINT64_MAX;
    job->shared.unit = unit_of(job);
    job_choose_reference(job);
    job->shared.whole_from = whole_from(job);
    job->result.buffer_bytes = (uint64_t)job->options.lanes * job->options.depth *
                               job->options.chunk * (job->shared.compare ? 2 : 1);
    job->first.loop = job->loop;
    job->first.source = job->source;
    job->first.target = target->dev;
    job->first.shared = &job->shared;
    job->first.ended = first_ended;
    loop_watch(job->loop, &job->watch);
    job->lanes_at_work = 1;
    if (lane_start(&job->first) < 0) {
        struct blk_error error;

        blk_error_set(&error, ENOMEM, "no memory for %u slots of %" PRIu32 " bytes",
                      job->options.depth, job->options.chunk);
        lane_ended(job, &error);
        return;
    }
    start_threads(job);
    job_survey_begin(job);
}

void job_copy_init(struct copy_job *job)
{
    job->watch.prepare = prepare_watch;
    job->watch.service = serve_watch;
    job->shared.options = &job->options;
    job->shared.bad = bad_range;
    job->shared.flushed = lane_flushed;
}
