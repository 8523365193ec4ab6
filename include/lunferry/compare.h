/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Comparing two devices, of any drivers, both opened for reading only.
 *
 * A job opens both ends, reads the same ranges of both, many at once and in any order, and closes
 * them. Yet its answer is that of a comparison from the first byte to the last: what it reports as
 * the first difference is the first, and an error counts only where no difference lies before it.
 *
 * Where one end is longer, what it has beyond the other's end has to be zeros, unless `strict`.
 *
 * All of it runs on the caller's loop; nothing here blocks, prints or exits.
 */
#ifndef LUNFERRY_COMPARE_H
#define LUNFERRY_COMPARE_H

#include <lunferry/block.h>
#include <lunferry/image.h>
#include <lunferry/url.h>

struct compare_job;

enum compare_side { COMPARE_A, COMPARE_B, COMPARE_SIDES };

struct compare_options {
    const struct url *urls[COMPARE_SIDES]; /* accepted by blk_check_url() */
    struct image_choice images[COMPARE_SIDES];
    unsigned depth; /* chunks in flight, each a READ of both ends; 1 to COMPARE_MAX_DEPTH; 0: from
                       the round trips that were measured while opening */
    uint32_t chunk; /* bytes of each READ; a multiple of 4096, at most COMPARE_MAX_CHUNK */
    bool all;       /* report every range that differs, do not end at the first */
    bool strict;    /* ends of different sizes differ: nothing is read then */
    struct blk_settings settings;
    /* One line for the user that is no failure: a server that goes away, or is back. */
    void (*notice)(void *opaque, bool important, const char *text);
    /* With `all`: a range that differs, as soon as all before it is known. Ascending; differing
     * bytes closer than COMPARE_MERGE belong to one range, which begins and ends with such a byte. */
    void (*range)(void *opaque, uint64_t offset, uint64_t len);
    void (*done)(struct compare_job *job, void *opaque);
    void *opaque;
};

#define COMPARE_MAX_DEPTH     1024
#define COMPARE_MAX_CHUNK     (16u << 20)
#define COMPARE_DEFAULT_CHUNK (512u << 10)
#define COMPARE_MERGE         512u

enum compare_phase { COMPARE_OPENING, COMPARE_READING, COMPARE_CLOSING, COMPARE_ENDED };

struct compare_progress {
    enum compare_phase phase;
    uint64_t total;   /* bytes of the longer end; 0 until both are open */
    uint64_t done;    /* of these */
    unsigned reading; /* requests in flight, both ends */
};

#define COMPARE_NO_BYTE (-1) /* beyond the end */

struct compare_result {
    int status;             /* 0: there is an answer; or -errno: there is none */
    struct blk_error error; /* which end, where, and what the server said */
    bool opened;            /* both ends could be opened, and can be compared */
    bool different;
    bool sizes;                   /* it is the sizes that differ (strict) */
    uint64_t size[COMPARE_SIDES]; /* bytes; valid if opened */
    uint64_t bytes;               /* that were compared, with something or with zeros */
    /* The first difference, if `different` and not `sizes`. With `all` valid also without an answer:
     * what `range` was told before the error. */
    uint64_t offset;
    int byte[COMPARE_SIDES];      /* 0 to 255, or COMPARE_NO_BYTE */
    uint64_t ranges, range_bytes; /* with `all`: told, and the sum of their lengths */
    unsigned depth;
};

/* Starts a job. The options are copied, what they point to outlives the job. NULL: out of memory.
 * done() is called from the loop, once; the job is then freed by the caller. */
struct compare_job *compare_start(struct loop *loop, const struct compare_options *options);
void compare_free(struct compare_job *job);

/* Ends a job early: what is on the wire is cancelled, and done() reports -ECANCELED, unless there is
 * an answer already. */
void compare_stop(struct compare_job *job);

void compare_progress(const struct compare_job *job, struct compare_progress *progress);
const struct compare_result *compare_result(const struct compare_job *job);

#endif
