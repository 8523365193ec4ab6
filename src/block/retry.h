/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeping and repeating: what becomes of an answer that is no success, for devices and stores alike.
 * All policy is here: what is repeated, when, for how long, and when a session is built anew.
 *
 *   HERE         the owner may hand things to the driver
 *   DRAINING     the driver is to look at the thing again, and still has requests
 *   PAUSING      until the next attempt to do so
 *   RECOVERING   it is at it
 *   GONE         another thing is there, or there was no progress for too long: all that waits, and
 *                all that comes, fails with `error`
 *
 * An item is a request or a task that the owner wants done. While it is kept here, it has no place
 * at the driver. Nothing is called from inside the functions below but owner->drop(), by
 * retry_cancel() and retry_hurry(); the rest comes from the loop.
 */
#ifndef LUNFERRY_RETRY_H
#define LUNFERRY_RETRY_H

#include <lunferry/block.h>

struct retry;

struct retry_owner {
    /* The driver looks at the thing again, and ends in retry_recovered(). */
    void (*recover)(struct retry *retry);
    /* The item may be handed to the driver, or handed back to retry_keep(). */
    void (*again)(struct retry *retry, struct retry_item *item);
    /* The item has failed with *error; NULL: it is cancelled. */
    void (*drop)(struct retry *retry, struct retry_item *item, const struct blk_error *error);
    /* The state has become HERE; or GONE: the driver is to cancel what it still holds; or a
     * recovery that was cancelled has ended. */
    void (*settled)(struct retry *retry);
};

struct retry {
    const struct retry_owner *owner;
    struct loop *loop;
    const struct blk_settings *settings; /* NULL: nothing is repeated */
    struct blk_watcher *watcher;         /* NULL: nobody wants to know */
    const char *name;                    /* of the endpoint */
    void *opaque;                        /* the owner's */

    enum { RETRY_HERE, RETRY_DRAINING, RETRY_PAUSING, RETRY_RECOVERING, RETRY_GONE } state;
    struct blk_error error; /* the last trouble; in GONE what everything fails with */

    /* private */
    struct loop_timer timer;
    struct retry_item *kept, **end;
    unsigned kept_count;
    unsigned busy;        /* items that the owner wants done, wherever they are */
    unsigned at_driver;   /* of them */
    unsigned attempts;    /* at recovering, since there was progress */
    unsigned window;      /* so many things at the driver at once; 0: any number */
    bool fresh;           /* the session is a new one that has done nothing yet */
    bool narrow;          /* and so was the one before it, when it broke */
    uint64_t progress_at; /* when something was last done, or the first thing begun */
    uint64_t limit;       /* when to give up at the latest, whatever the settings say */
    uint64_t pause_until; /* LOOP_NEVER: until something is to wait for the state HERE */
    uint64_t lost_at;     /* 0: the session is not known to be lost */
    uint64_t back_at;     /* when it last turned out that the thing is there */
    bool waiting_told;
    bool looking;   /* owner->recover() was called, and has not been answered */
    bool cancelled; /* while it drains or looks: nobody waits for what comes of that */
    bool recovered; /* it was answered: */
    int outcome;
    struct blk_error outcome_error;
};

void retry_init(struct retry *retry, const struct retry_owner *owner, struct loop *loop,
                const char *name);
/* Nothing is busy any more. */
void retry_release(struct retry *retry);

/* May what failed so succeed later? */
bool retry_may_pass(const struct blk_error *error);

/* Something is wanted done; it is done, or has failed for good. */
void retry_begin(struct retry *retry);
void retry_end(struct retry *retry);

/* May one more thing be handed to the driver? */
static inline bool retry_is_open(const struct retry *retry)
{
    return retry->state == RETRY_HERE && (retry->window == 0 || retry->at_driver < retry->window);
}

/* Is anything repeated at all, still? */
bool retry_may_repeat(const struct retry *retry);

/* Something was handed to the driver; it came back, and whether that is progress. */
void retry_sent(struct retry *retry);
void retry_answered(struct retry *retry, bool success);

/* The driver has answered *error to the item. False: that is final. */
bool retry_keep(struct retry *retry, struct retry_item *item, const struct blk_error *error);
/* Keeps an item that the driver has not seen until the state is HERE. */
void retry_wait(struct retry *retry, struct retry_item *item);

/* The session is lost, or (NULL) the thing is to be looked at again. False: nothing is repeated. */
bool retry_look(struct retry *retry, const struct blk_error *lost);
void retry_recovered(struct retry *retry, int status, const struct blk_error *error);

/* From now on nothing is repeated for longer than `ns`. */
void retry_hurry(struct retry *retry, uint64_t ns);
/* Cancels all that is kept. The driver is not asked to look again before something new waits for
 * that; what it is looking at now, it has to be told. */
void retry_cancel(struct retry *retry);

/* Tells the watcher, if there is one. */
void retry_tell(struct retry *retry, enum blk_event event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
