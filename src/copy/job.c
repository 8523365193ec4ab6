/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* ---- Ends and errors -------------------------------------------------------------------------- */

void job_fail(struct copy_job *job, const struct blk_error *error, const char *side)
{
    if (job->result.status < 0)
        return;
    job->result.status = -error->code;
    job->result.error = *error;
    if (side)
        blk_error_prefix(&job->result.error, "%s", side);
}

void job_fail_with(struct copy_job *job, int code, const char *text)
{
    struct blk_error error;

    blk_error_set(&error, code, "%s", text);
    job_fail(job, &error, NULL);
}

/* One operation of the phase has ended; after the last, the next phase begins. */
void job_one_done(struct copy_job *job)
{
    assert(job->outstanding > 0);
    if (--job->outstanding > 0)
        return;
    if (job->phase == COPY_CLOSING)
        job_enter(job, COPY_ENDED);
    else if (job->result.status < 0)
        job_enter(job, COPY_CLOSING);
    else if (job->phase == COPY_FINISHING && job->options.digests == COPY_DIGESTS_NONE)
        job_enter(job, COPY_CLOSING); /* at once: nothing is left that could be interrupted */
    else
        job_enter(job, job->phase + 1);
}

static void target_done(struct target *target, int status)
{
    struct copy_job *job = target->opaque;

    if (job->claiming && status == 0 && job->result.status == 0) {
        job->claiming = false;
        job_claimed(job);
        return;
    }
    job->claiming = false;
    if (status < 0) {
        job_fail(job, &target->error, "target");
        /* Do not wait for the other end to time out. */
        if (job->outstanding > 1 &&
            (job->phase == COPY_OPENING || job->origin.size == BLK_SIZE_UNKNOWN)) {
            source_cancel(&job->origin);
            reference_cancel(&job->reference);
        }
    } else if (job->phase == COPY_FINISHING) {
        job->result.complete = true;
        /* Even when the job was stopped: it was too late for that. */
        job->result.status = 0;
        blk_error_clear(&job->result.error);
        atomic_fetch_add(&job->shared.done, target->head_len);
        atomic_fetch_add(&job->shared.moved, target->head_len);
    }
    job_one_done(job);
}

/* A range that the source does not have is found out before the target is touched. */
static bool source_comes_first(const struct copy_job *job)
{
    return job->phase == COPY_OPENING && job->options.source_len > 0;
}

static void source_done(struct source *source, int status)
{
    struct copy_job *job = source->opaque;

    if (status < 0) {
        job_fail(job, &source->error, "source");
        if (source_comes_first(job))
            job->outstanding--; /* the target's turn does not come */
        else if (job->phase == COPY_OPENING && job->outstanding > 1)
            target_cancel(&job->targets[0]);
        if (job->phase == COPY_OPENING && job->outstanding > 1)
            reference_cancel(&job->reference);
    } else if (source_comes_first(job)) {
        target_open(&job->targets[0]);
    }
    job_one_done(job);
}

static void cancel_all(struct copy_job *job)
{
    source_cancel(&job->origin);
    reference_cancel(&job->reference);
    target_cancel(&job->targets[0]);
    job_digests_cancel(job);
}

static void reference_done(struct reference *reference, int status)
{
    struct copy_job *job = reference->opaque;

    if (status < 0) {
        job_fail(job, &reference->error, "backing file");
        if (job->phase == COPY_OPENING && job->outstanding > 1)
            cancel_all(job);
    }
    job_one_done(job);
}

/* ---- Opening ---------------------------------------------------------------------------------- */

void job_open_both(struct copy_job *job)
{
    job->outstanding = 3;
    reference_open(&job->reference);
    source_open(&job->origin, job->resume.facts.source_session);
    if (!source_comes_first(job))
        target_open(&job->targets[0]);
}

/* ---- Closing ---------------------------------------------------------------------------------- */

static void journal_closed(struct resume *resume, int status)
{
    struct copy_job *job = container_of(resume, struct copy_job, resume);
    int code = job->result.error.code;
    bool refused;

    (void)status;
    /* Where it was refused to go on, that would be refused again. */
    refused = job->pointless || (resume->earlier && !job->result.touched &&
                                 (code == ESTALE || code == EINVAL || code == ENOTSUP));
    job->result.resumable = job->result.status < 0 && resume->recording && !refused;
    job_one_done(job);
}

static void close_all(struct copy_job *job)
{
    struct target *target = &job->targets[0];
    bool goes_on = job->result.status < 0 && !job->result.complete && job->resume.recording &&
                   !job->pointless && (target->touched || job->resume.earlier);

    target->keep_temporary = goes_on && !target->maybe_named;
    job->result.touched = target->touched;
    job->result.kept = target->new_file && !target->maybe_named;
    job->result.bytes = atomic_load(&job->shared.done) - job->result.resumed;
    job->result.moved = atomic_load(&job->shared.moved);
    job->result.zeroed = atomic_load(&job->shared.zeroed);
    job->result.skipped = atomic_load(&job->shared.skipped);
    job->result.losses = atomic_load(&job->source_side.losses) +
                         atomic_load(&job->target_side.losses) +
                         atomic_load(&job->reference_side.losses);
    job->result.repeated = atomic_load(&job->source_side.repeated) +
                           atomic_load(&job->target_side.repeated) +
                           atomic_load(&job->reference_side.repeated);
    job->result.lost = atomic_load(&job->shared.lost);
    job->result.mended = atomic_load(&job->shared.mended);
    job->result.bad = job->bad_earlier + atomic_load(&job->bad_bytes);
    lane_release(&job->first);
    digests_free(job->shared.digests);
    job->shared.digests = NULL;
    job->outstanding = 4;
    reference_close(&job->reference);
    /* A journal that was not begun by this run, and not gone on with, is not ours to end. */
    job->resume.done = journal_closed;
    resume_close(&job->resume, !goes_on && !job->options.dry_run &&
                                   (job->result.status == 0 || job->resume.recording));
    job->source = NULL;
    job->origin.done = source_done;
    source_close(&job->origin);
    target_close(&job->targets[0]);
    job_digests_close(job);
}

/* ---- Phases ----------------------------------------------------------------------------------- */

/* From a call of its own, so that a phase that ends at once does not end inside the one before. */
static void run_phase(struct loop_call *call)
{
    struct copy_job *job = container_of(call, struct copy_job, call);

    if (job->result.status < 0 && job->phase < COPY_CLOSING)
        job->phase = COPY_CLOSING;
    switch (job->phase) {
    case COPY_OPENING:
        job->outstanding = 1;
        resume_load(&job->resume);
        break;
    case COPY_CHECKING:
        job_check(job);
        break;
    case COPY_PREPARING:
        if (job->options.dry_run)
            job_estimate(job);
        else
            job_prepare(job);
        break;
    case COPY_COPYING:
        job_copy(job);
        break;
    case COPY_FINISHING:
        job_finish(job);
        break;
    case COPY_RECORDING:
        job_record_digests(job);
        break;
    case COPY_CLOSING:
        close_all(job);
        break;
    case COPY_ENDED:
        loop_timer_cancel(job->loop, &job->drain);
        job->options.done(job, job->options.opaque);
        break;
    }
}

void job_enter(struct copy_job *job, enum copy_phase phase)
{
    job->phase = phase;
    loop_defer(job->loop, &job->call);
}

static void drain_is_over(struct loop_timer *timer)
{
    copy_abort(container_of(timer, struct copy_job, drain));
}

struct copy_job *copy_start(struct loop *loop, const struct copy_options *options)
{
    struct copy_job *job = calloc(1, sizeof(*job));

    assert(options->depth <= COPY_MAX_DEPTH);
    assert(options->source_count >= 1 && options->source_count <= COPY_MAX_SOURCES);
    assert(options->lanes >= 1 && options->lanes <= COPY_MAX_LANES);
    assert(options->chunk >= 4096 && options->chunk % 4096 == 0 &&
           options->chunk <= COPY_MAX_CHUNK);
    assert(options->lanes == 1 || !options->in_order);
    assert(!options->verify || options->chunk % COPY_VERIFY_CHUNK == 0);
    assert(!options->salvage || options->bad_range);
    assert(options->digests == COPY_DIGESTS_NONE || !options->resume);
    assert(options->digests != COPY_DIGESTS_CHECK || (options->digest_file && options->differs));
    if (!job)
        return NULL;
    job->threads = calloc(COPY_MAX_LANES, sizeof(*job->threads)); /* resuming may want more */
    if (!job->threads) {
        free(job);
        return NULL;
    }
    job->loop = loop;
    job->options = *options;
    job->call.run = run_phase;
    job->drain.fire = drain_is_over;
    job_copy_init(job);
    job_survey_init(job);
    job->journal_timer.fire = job_journal_is_due;
    job->resume.loop = loop;
    job->resume.options = &job->options;
    job->resume.done = job_journal_loaded;
    side_init(&job->source_side, "source", options->notice, options->opaque);
    side_init(&job->target_side, "target", options->notice, options->opaque);
    side_init(&job->reference_side, "backing file", options->notice, options->opaque);
    job->reference = (struct reference){
        .loop = loop,
        .options = &job->options,
        .watcher = &job->reference_side.watcher,
        .done = reference_done,
        .opaque = job,
    };
    job->origin = (struct source){
        .loop = loop,
        .options = &job->options,
        .watcher = &job->source_side.watcher,
        .done = source_done,
        .opaque = job,
    };
    job->targets[0] = (struct target){
        .loop = loop,
        .watcher = &job->target_side.watcher,
        .options = &job->options,
        .done = target_done,
        .opaque = job,
    };
    job_enter(job, COPY_OPENING);
    return job;
}

void copy_free(struct copy_job *job)
{
    if (!job)
        return;
    assert(job->phase == COPY_ENDED);
    free(job->threads);
    free(job);
}

/* ---- From outside ----------------------------------------------------------------------------- */

/* When a lane has failed already, that is the reason. */
static void interrupt(struct copy_job *job)
{
    if (!atomic_exchange(&job->shared.stopping, true))
        job_fail_with(job, ECANCELED, "interrupted");
}

void copy_stop(struct copy_job *job)
{
    if (job->phase >= COPY_CLOSING || job->drain.pending || atomic_load(&job->shared.aborting))
        return;
    interrupt(job);
    job->targets[0].stopping = true;
    loop_timer_set(job->loop, &job->drain, loop_now(job->loop) + COPY_DRAIN);
    if (job->phase == COPY_COPYING)
        job_kick_lanes(job);
    else if (job->phase <= COPY_CHECKING || job->options.dry_run)
        copy_abort(job); /* nothing on the wire is worth waiting for */
}

void copy_abort(struct copy_job *job)
{
    if (job->phase >= COPY_CLOSING || atomic_load(&job->shared.aborting))
        return;
    interrupt(job);
    atomic_store(&job->shared.aborting, true);
    if (job->phase == COPY_COPYING && job->lanes_at_work > 0) {
        job_kick_lanes(job);
        return;
    }
    if (job->surveying)
        survey_stop(&job->survey);
    cancel_all(job);
}

/* Of a stream: once it has ended. */
static uint64_t total(const struct copy_job *job)
{
    bool known = job->phase > COPY_CHECKING && job->source;

    return known && job->targets[0].size != BLK_SIZE_UNKNOWN ? job->targets[0].size : 0;
}

void copy_progress(const struct copy_job *job, struct copy_progress *progress)
{
    *progress = (struct copy_progress){
        .phase = job->phase,
        .total = total(job),
        .done = atomic_load(&job->shared.done),
        .data_total = job->data_total,
        .data_done = atomic_load(&job->shared.data_done),
        .moved = atomic_load(&job->shared.moved),
        .zeroed = atomic_load(&job->shared.zeroed),
        .skipped = atomic_load(&job->shared.skipped),
        .verified = atomic_load(&job->shared.verified),
        .reading = job->first.reading,
        .writing = job->first.writing,
    };
    for (unsigned i = 0; i + 1 < job->options.lanes; i++) {
        progress->reading += job->threads[i].lane.reading;
        progress->writing += job->threads[i].lane.writing;
    }
}

const struct copy_result *copy_result(const struct copy_job *job)
{
    return &job->result;
}
