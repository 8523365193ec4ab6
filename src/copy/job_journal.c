/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an earlier run has left, and what this one records. */
#include "job.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

void job_fail_resume(struct copy_job *job)
{
    job_fail(job, &job->resume.error, NULL);
}

void job_journal_loaded(struct resume *resume, int status)
{
    struct copy_job *job = container_of(resume, struct copy_job, resume);
    const struct journal_facts *earlier = resume->earlier;

    if (status < 0 || job->result.status < 0) {
        if (status < 0)
            job_fail_resume(job);
        job_enter(job, COPY_CLOSING);
        return;
    }
    if (earlier) {
        resume->facts.source_session = earlier->source_session;
        resume->facts.target_session = earlier->target_session;
        job->targets[0].resumed = earlier;
        job->targets[0].reservation.key = earlier->reservation_key;
        /* Each lane's session ends that of the lane before it. */
        if (job->options.lanes < earlier->lanes && earlier->lanes <= COPY_MAX_LANES &&
            !job->options.in_order)
            job->options.lanes = (unsigned)earlier->lanes;
        job->bad_earlier = earlier->bad;
        job->options.verify = job->options.verify || earlier->verify;
        job->options.reserve = job->options.reserve || earlier->reservation_key != 0;
        if (job->options.verify && job->options.chunk % COPY_VERIFY_CHUNK != 0) {
            job_fail_with(
                job, EINVAL,
                "the copy was begun with --verify: --request-size has to be a multiple of "
                "256k");
            job_enter(job, COPY_CLOSING);
            return;
        }
    }
    if (resume->found && resume->stale)
        snprintf(job->targets[0].stale, sizeof(job->targets[0].stale), "%s", resume->stale);
    job_open_both(job);
}

void job_gather_facts(struct copy_job *job)
{
    struct journal_facts *facts = &job->resume.facts;
    struct target *target = &job->targets[0];

    facts->source_identity = job->source->identity;
    facts->source_stamp = job->source->opened;
    facts->source_stamp.size = job->source->size; /* of all that is copied, in whatever parts */
    facts->source_session = job->source->session_id;
    facts->lanes = job->options.lanes;
    facts->chunk = job->options.chunk;
    facts->granule = tracker_granule(target->tracker);
    facts->head_len = target->head_len;
    facts->in_order = job->options.in_order;
    facts->in_place = job->options.in_place;
    facts->overwrite = job->options.overwrite;
    facts->verify = job->options.verify;
    facts->bad = job->bad_earlier + atomic_load(&job->bad_bytes);
    facts->new_file = target->new_file;
    facts->temporary = target->new_file ? target->temporary : NULL;
    facts->reservation_key = job->options.reserve ? target->reservation.key : 0;
    facts->blanked = job->phase >= COPY_COPYING;
    if (target->dev) {
        facts->target_identity = target->dev->identity;
        facts->target_session = target->dev->session_id;
    }
}

/* Bad bytes are looked at last, so that they cover the granules; in the journal they come first, since
 * both leave in one append. */
void job_record(struct copy_job *job)
{
    uint64_t bad;

    resume_record(&job->resume, job->shared.tracker);
    bad = atomic_load(&job->bad_bytes);
    if (bad == job->bad_recorded)
        return;
    job->bad_recorded = bad;
    job_gather_facts(job);
    resume_note(&job->resume);
}

static void journal_begun(struct resume *resume, int status)
{
    struct copy_job *job = container_of(resume, struct copy_job, resume);

    if (status < 0)
        job_fail_resume(job);
    if (job->phase == COPY_COPYING) {
        job_record(job);
        job_one_done(job);
    } else if (job->result.status < 0)
        job_enter(job, COPY_CLOSING);
    else
        target_prepare(&job->targets[0]);
}

void job_journal_is_due(struct loop_timer *timer)
{
    struct copy_job *job = container_of(timer, struct copy_job, journal_timer);

    if (job->phase != COPY_COPYING || job->lanes_at_work == 0)
        return;
    job->outstanding++;
    job_gather_facts(job);
    job->resume.done = journal_begun;
    resume_begin(&job->resume);
}

/* Only what outlives both ends' sessions and is known again can be gone on with. */
bool job_can_be_resumed(const struct copy_job *job)
{
    const struct target *target = &job->targets[0];

    return job->source->identity && !job->options.in_order && !job->options.compare &&
           !image_layout_has_format(&job->options.layout) &&
           (target->new_file || (target->dev->identity && target->dev->caps & BLK_BARE) ||
            job->options.in_place);
}

static int choose_key(struct copy_job *job)
{
    uint64_t *key = &job->targets[0].reservation.key;

    while (*key == 0) {
        if (getrandom(key, sizeof(*key), 0) != sizeof(*key)) {
            job_fail_with(job, EIO, "the system gives no random number for a reservation key");
            return -EIO;
        }
    }
    return 0;
}

/* First the claim: a run that is turned away must not have replaced the journal of an earlier one. A
 * journal by name, one that takes the place of another, and one that is to keep a reservation's key are
 * there before anything is written. */
void job_prepare(struct copy_job *job)
{
    job->outstanding = 1;
    if (job->options.reserve && choose_key(job) < 0) {
        job_one_done(job);
        return;
    }
    job->claiming = true;
    target_claim(&job->targets[0]);
}

void job_claimed(struct copy_job *job)
{
    struct resume *resume = &job->resume;

    if (job->options.journal || job->options.reserve || resume->found || resume->earlier) {
        job_gather_facts(job);
        if (resume->earlier) { /* until this run has done the same */
            resume->facts.blanked = resume->earlier->blanked;
            resume->facts.target_identity = resume->earlier->target_identity;
        }
        resume->done = journal_begun;
        resume_begin(resume);
    } else {
        target_prepare(&job->targets[0]);
    }
}
