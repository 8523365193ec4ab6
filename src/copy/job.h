/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A copy job, as its own files see it:
 *
 *   job.c          phases, opening, closing, and what others may ask of a job
 *   job_journal.c  what an earlier run has left, what this one records
 *   job_check.c    what is looked at before the first write, and after the last
 *   job_copy.c     the lanes at work
 *   job_survey.c   how much there is to do
 *   job_digests.c  digests of the image's blocks: from where, to where
 */
#ifndef LUNFERRY_JOB_H
#define LUNFERRY_JOB_H

#include <lunferry/copy.h>

#include "digest_file.h"
#include "lane_thread.h"
#include "reference.h"
#include "resume.h"
#include "side.h"
#include "source.h"
#include "survey.h"
#include "target.h"

struct copy_job {
    struct loop *loop;
    struct copy_options options;
    enum copy_phase phase;
    unsigned outstanding; /* operations that the phase waits for */
    struct copy_result result;
    struct loop_call call; /* runs the end */
    struct loop_timer drain;

    struct resume resume;
    struct loop_timer journal_timer; /* the copy takes long enough for a journal */
    unsigned flushes_recorded;
    bool claiming; /* target_claim() is under way */
    uint64_t bad_earlier,
        bad_recorded; /* bytes: what earlier runs could not read; in the journal */
    bool pointless;   /* to resume: an end is not what it was */
    struct side source_side, target_side, reference_side;
    struct source origin;
    struct blk_dev *source; /* the origin's, once it is checked */
    struct blk_task source_task;
    struct target targets[1];
    struct reference reference;

    unsigned char *start; /* of the source */
    struct iovec start_iov;
    struct blk_req start_req;

    struct survey survey; /* beside the copy, and in its place with dry_run */
    struct loop_timer survey_timer;
    bool surveying;
    uint64_t data_total; /* bytes */

    struct {
        struct digest *digest; /* NULL: none are taken */
        struct digest_list *list;
        struct digest_file file;
        bool opened; /* the file */
        struct digest_subject subject;
        struct image image; /* the new one, where that is no raw one */
        struct blk_task image_task;
    } digests;

    struct lane_shared shared;
    _Atomic uint64_t bad_bytes;
    struct lane first;           /* on the job's loop, with the job's devices */
    struct lane_thread *threads; /* options.lanes - 1 */
    unsigned lanes_at_work;
    struct loop_watch watch; /* notices threads that have ended */
};

/* job.c: the first error wins; side may be NULL. */
void job_fail(struct copy_job *job, const struct blk_error *error, const char *side);
void job_fail_with(struct copy_job *job, int code, const char *text);
/* One operation of the phase has ended; after the last, the next phase begins. */
void job_one_done(struct copy_job *job);
void job_enter(struct copy_job *job, enum copy_phase phase);
void job_open_both(struct copy_job *job);

/* job_journal.c */
void job_journal_loaded(struct resume *resume, int status);
void job_journal_is_due(struct loop_timer *timer);
void job_fail_resume(struct copy_job *job);
bool job_can_be_resumed(const struct copy_job *job);
/* What the journal is to know of the job as it is now. */
void job_gather_facts(struct copy_job *job);
/* Records what has become durable. */
void job_record(struct copy_job *job);
/* The phase, and what follows its first half. */
void job_prepare(struct copy_job *job);
void job_claimed(struct copy_job *job);

/* job_check.c */
void job_check(struct copy_job *job);
void job_finish(struct copy_job *job);

/* job_survey.c */
/* In place of all that would change something -> COPY_CLOSING. */
void job_estimate(struct copy_job *job);
/* Beside the lanes, when they have been at work for a while. */
void job_survey_init(struct copy_job *job);
void job_survey_begin(struct copy_job *job);
/* The lanes have ended. */
void job_survey_end(struct copy_job *job);

/* job_digests.c */
/* Beside the other checks, when the source is joined: may there be digests, and where? */
void job_digests_check(struct copy_job *job);
/* Bytes of a block that is taken again where anything of it is copied again; 0: there are none. */
uint64_t job_digests_unit(const struct copy_job *job);
/* Before the lanes begin, which take them. 0 or -ENOMEM. */
int job_digests_begin(struct copy_job *job);
/* The phase. */
void job_record_digests(struct copy_job *job);
void job_digests_cancel(struct copy_job *job);
/* Beside the closing of all else. */
void job_digests_close(struct copy_job *job);

/* job_copy.c */
void job_choose_depth(struct copy_job *job);
/* What the target shows already, and whether it is compared. */
void job_choose_reference(struct copy_job *job);
void job_copy(struct copy_job *job);
/* Something in `shared` has changed. */
void job_kick_lanes(struct copy_job *job);
/* Sets up what job_copy() needs of the job. */
void job_copy_init(struct copy_job *job);

#endif
