/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What ties a job to its journal: whether an earlier run has left one, whether both ends are still
 * what they were then, and what this run records.
 *
 * The usual journal is begun only when a copy has taken RESUME_AFTER; one that was asked for by name
 * is there before anything is written. A usual journal that cannot be written is told about, and
 * does without.
 */
#ifndef LUNFERRY_RESUME_H
#define LUNFERRY_RESUME_H

#include <lunferry/copy.h>

#include "journal.h"
#include "tracker.h"

#define RESUME_AFTER (3 * LOOP_SECOND)

struct resume {
    /* Set by the owner. */
    struct loop *loop;
    const struct copy_options *options;
    void (*done)(struct resume *resume, int status); /* with a status < 0, `error` says why */

    /* Valid after resume_load(). */
    const struct journal_facts *earlier; /* what an earlier run has left and this one goes on with;
                                            NULL: it starts anew */
    bool found;        /* it starts anew, but there is a journal, which has to be replaced before
                   anything is written */
    const char *stale; /* with found: the name of its unfinished file, until resume_begin() */
    bool recording;    /* a journal is there that could be gone on with */
    struct blk_error error;

    /* Set by the owner, recorded from resume_begin() on: the facts of this run. Strings belong to
     * others and live as long as the job's devices. */
    struct journal_facts facts;

    /* private */
    struct journal *journal;
    char path[JOURNAL_PATH];
    char *source,
        *target; /* the endpoints, the same ones from whatever directory; freed by close */
    struct blk_task task;
    bool complete;
};

/* Looks for a journal, and reads it -> done(). */
void resume_load(struct resume *resume);
/* Is the source what the earlier run copied from? NULL-terminated sentence in `error`. */
int resume_check_source(struct resume *resume, const struct blk_dev *source);
/* Is the target, which has no name that could be switched, what it wrote to? */
int resume_check_target(struct resume *resume, const struct blk_dev *target);
/* The earlier run's durable granules. Returns how many bytes they are. */
uint64_t resume_tracker(const struct resume *resume, struct tracker *tracker, uint64_t size);
/* Where the last of them ends; 0: there are none. */
uint64_t resume_end_of_durable(const struct resume *resume, uint64_t granule, uint64_t size);

/* Begins to record -> done(); where that was not asked for by name, it does not fail. */
void resume_begin(struct resume *resume);
/* The facts have changed. */
void resume_note(struct resume *resume);
/* Records the granules that have become durable. */
void resume_record(struct resume *resume, const struct tracker *tracker);
/* Ends with status 0. complete: nothing is left to go on with. */
void resume_close(struct resume *resume, bool complete);

#endif
