/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copy jobs in the fake world, under every order of completion.
 *
 * An odometer counts through all sequences of choices: wherever more than one operation is pending,
 * a digit says which of them completes. A struct run is one job from start to end under one such
 * sequence, with one disturbance or none.
 */
#ifndef LUNFERRY_TEST_SCHEDULE_H
#define LUNFERRY_TEST_SCHEDULE_H

#include "fake.h"

#include <lunferry/copy.h>

#define ODOMETER_DIGITS 256

/* The thread sanitizer takes its time, and finds nothing in one thread: fewer orders are sampled. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SAMPLE_FEWER
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(SAMPLE_FEWER)
#define SAMPLE(orders) ((orders) / 4)
#else
#define SAMPLE(orders) (orders)
#endif

struct odometer {
    /* 0: through all sequences. Otherwise only so many: always the oldest, always the newest, and
     * then what a fixed generator makes of 2, 3, ... (explained with a failure, digit by digit) */
    unsigned sample;
    /* private */
    unsigned char digit[ODOMETER_DIGITS], base[ODOMETER_DIGITS];
    unsigned used, at, number;
    uint32_t state;
};

/* Which of `count` > 0? */
unsigned odometer_choose(struct odometer *odometer, unsigned count);
/* To the next sequence. False: all have been; it stands at the first again, where a zeroed odometer
 * stands too. */
bool odometer_next(struct odometer *odometer);

/* What happens in the middle of a job. */
enum disturb {
    DISTURB_NOT,
    DISTURB_STOP,  /* copy_stop() */
    DISTURB_STUCK, /* the same, and from then on only what was cancelled completes */
    DISTURB_ABORT, /* copy_abort() */
    DISTURB_RESTART,
    DISTURB_LOSE_SOURCE, /* its sessions */
    DISTURB_LOSE_TARGET,
    DISTURB_CRASH, /* both: the target restarts, and its sessions are lost */
};

struct disturbance {
    enum disturb what;
    unsigned when; /* before this completion, from 0 */
    bool late;     /* when nothing moves any more, not before the loop's first turn */
    bool applies;  /* what is pending when a session is lost takes effect */
};

struct run {
    /* Set by the test. */
    struct fake *fake;
    struct copy_options options; /* but for notice, done, opaque */
    struct fake_disk *source;
    struct fake_disk *target; /* for restart; NULL: the directory's temporary file */
    struct fake_fs *fs;
    struct odometer *odometer; /* NULL: the oldest completes first */
    unsigned chosen;           /* bit set of enum fake_kind: in what order these complete is
                                  chosen; others complete at once */
    struct disturbance disturbance, then; /* then: after the first */
    /* Called whenever nothing moves: what must be true at any time? May be NULL. */
    void (*look)(struct run *run);
    void *opaque;
    uint64_t granule, head; /* for `unflushed`: its bytes; where they begin */
    const char *name;       /* for messages */

    /* What came of it. */
    struct copy_result result;
    unsigned completions;
    unsigned done; /* calls */
    unsigned notices;
    char notice[2048]; /* all of them, one after the other */
    bool disturbed, then_disturbed;
    uint64_t begun, stopped, ended; /* by the loop's clock; stopped: when it was told to; 0: not */
    bool drained;                   /* the drain's time is over */
    uint64_t unflushed;             /* bytes in granules that a restart took something of */
};

/* Fails the test when the job hangs, or leaves something behind. Time passes where nothing else
 * happens. */
void run_job(struct run *run);

/* Only pieces of requests are worth the multiplication. */
#define CHOOSE_REQS (1u << FAKE_REQ)
#define CHOOSE_ALL  (~0u)

#endif
