/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "retry.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include <lunferry/units.h>

/* ---- The table -------------------------------------------------------------------------------- */

/*
 * What each class of answer calls for. Which answer of a server is of which class, its driver knows
 * (drivers/iscsi/sense.c, drivers/nfs/status.c).
 */
static const struct rule {
    bool keep;
    bool look;           /* at the thing again, before anything is repeated */
    unsigned free;       /* so many times without a delay */
    uint64_t first, cap; /* ns: the delay after that, which doubles up to the cap */
} rules[] = {
    [BLK_FATAL] = {.keep = false},
    [BLK_MEDIUM] = {.keep = false},
    [BLK_AGAIN] = {.keep = true, .free = 8, .first = 50 * LOOP_MSECOND, .cap = 5 * LOOP_SECOND},
    [BLK_REPEAT] = {.keep = true, .first = 50 * LOOP_MSECOND, .cap = 5 * LOOP_SECOND},
    [BLK_RECHECK] =
        {.keep = true, .look = true, .free = 8, .first = 50 * LOOP_MSECOND, .cap = 5 * LOOP_SECOND},
    [BLK_LOST] = {.keep = true, .look = true, .free = UINT32_MAX},
};

bool retry_may_pass(const struct blk_error *error)
{
    return rules[error->retry].keep;
}

/* Between attempts at a new session; the first is made at once. */
static const struct rule attempts = {
    .free = 1, .first = 100 * LOOP_MSECOND, .cap = 5 * LOOP_SECOND};

/* Requests at the driver beyond which their number is not looked at any more. */
#define MAX_WINDOW 64

/* Half of the delay is left to chance, so that many clients do not come back in step. The clock's
 * nanoseconds are chance enough, and stand still under a test's clock. Half a cap is below 2^32 ns. */
static uint64_t delay_of(const struct rule *rule, unsigned tries, uint64_t now)
{
    uint64_t chance = (now + tries) * UINT64_C(0x9e3779b97f4a7c15), delay;

    if (tries < rule->free)
        return 0;
    tries -= rule->free;
    delay = tries < 20 ? min_u64(rule->first << tries, rule->cap) : rule->cap;
    return delay / 2 + ((chance >> 32) * (delay / 2) >> 32);
}

/* ---- The clock -------------------------------------------------------------------------------- */

bool retry_may_repeat(const struct retry *retry)
{
    return retry->settings && retry->settings->give_up > 0 && retry->state != RETRY_GONE &&
           loop_now(retry->loop) < retry->limit;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t give_up_at(const struct retry *retry)
{
    uint64_t at = retry->settings && retry->settings->give_up > 0
                      ? add(retry->progress_at, retry->settings->give_up)
                      : LOOP_NEVER;

    /* What the driver has may still be answered after the limit; it is only not repeated. */
    return retry->kept_count > 0 || retry->state != RETRY_HERE ? min_u64(at, retry->limit) : at;
}

static uint64_t waiting_told_at(const struct retry *retry)
{
    if (!retry->settings || retry->settings->give_up == 0 || retry->waiting_told ||
        retry->lost_at != 0)
        return LOOP_NEVER;
    /* Not before a session that is dead has been found to be. */
    return add(retry->progress_at > retry->back_at ? retry->progress_at : retry->back_at,
               2 * retry->settings->timeout);
}

static uint64_t next_due(const struct retry *retry)
{
    uint64_t due = LOOP_NEVER;

    for (const struct retry_item *item = retry->kept; item; item = item->next)
        due = min_u64(due, item->due);
    return due;
}

static void arm(struct retry *retry)
{
    uint64_t at = LOOP_NEVER;

    if (retry->busy > 0 && retry->state != RETRY_GONE)
        at = min_u64(give_up_at(retry), waiting_told_at(retry));
    if (retry->recovered)
        at = loop_now(retry->loop);
    else if (retry_is_open(retry))
        at = min_u64(at, next_due(retry));
    else if (retry->state == RETRY_PAUSING && retry->busy > 0)
        at = min_u64(at, retry->pause_until);
    if (at == LOOP_NEVER)
        loop_timer_cancel(retry->loop, &retry->timer);
    else
        loop_timer_set(retry->loop, &retry->timer, at);
}

void retry_tell(struct retry *retry, enum blk_event event, const char *format, ...)
{
    char text[sizeof(retry->error.text)];
    va_list args;

    if (!retry->watcher)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    retry->watcher->event(retry->watcher, event, retry->name, text);
}

/* ---- Kept items ------------------------------------------------------------------------------- */

static void keep(struct retry *retry, struct retry_item *item, uint64_t due)
{
    item->due = due;
    item->next = NULL;
    *retry->end = item;
    retry->end = &item->next;
    retry->kept_count++;
    arm(retry);
}

static struct retry_item *take(struct retry *retry, uint64_t due_until)
{
    for (struct retry_item **at = &retry->kept; *at; at = &(*at)->next) {
        struct retry_item *item = *at;

        if (item->due > due_until)
            continue;
        *at = item->next;
        if (retry->end == &item->next)
            retry->end = at;
        retry->kept_count--;
        return item;
    }
    return NULL;
}

static void drop_all(struct retry *retry)
{
    struct retry_item *item;

    while ((item = take(retry, LOOP_NEVER)))
        retry->owner->drop(retry, item, NULL);
}

void retry_cancel(struct retry *retry)
{
    drop_all(retry);
    retry->cancelled = retry->looking || retry->state == RETRY_DRAINING;
    if (retry->state == RETRY_PAUSING)
        retry->pause_until = LOOP_NEVER;
    arm(retry);
}

static void give_back_due(struct retry *retry)
{
    uint64_t now = loop_now(retry->loop);
    struct retry_item *item;

    while (retry_is_open(retry) && (item = take(retry, now)))
        retry->owner->again(retry, item);
}

static void gone(struct retry *retry, const struct blk_error *error)
{
    struct retry_item *item;

    retry->error = *error;
    retry->error.retry = BLK_FATAL;
    retry->state = RETRY_GONE;
    while ((item = take(retry, LOOP_NEVER)))
        retry->owner->drop(retry, item, &retry->error);
    retry->owner->settled(retry);
}

static void give_up(struct retry *retry)
{
    struct blk_error error;
    char text[UNITS_TEXT];
    uint64_t silent = loop_now(retry->loop) - retry->progress_at;

    blk_error_set(&error, ETIMEDOUT, "given up after %s without progress: %s",
                  units_duration(text, silent / LOOP_SECOND),
                  retry->error.code ? retry->error.text
                                    : "the server answers pings, but not what it was asked");
    gone(retry, &error);
}

/* ---- Recovering ------------------------------------------------------------------------------- */

static void pause_or_drain(struct retry *retry)
{
    if (retry->at_driver > 0) {
        retry->state = RETRY_DRAINING;
        return;
    }
    retry->state = RETRY_PAUSING;
    retry->pause_until =
        add(loop_now(retry->loop), delay_of(&attempts, retry->attempts++, loop_now(retry->loop)));
}

bool retry_look(struct retry *retry, const struct blk_error *lost)
{
    if (lost && !retry_may_repeat(retry))
        return false;
    if (lost)
        retry->error = *lost;
    if (lost && lost->retry == BLK_LOST && retry->lost_at == 0) {
        retry->lost_at = loop_now(retry->loop);
        retry->narrow = retry->fresh;
        retry_tell(retry, BLK_AWAY, "%s", lost->text);
    }
    if (retry->state == RETRY_HERE)
        pause_or_drain(retry);
    arm(retry);
    return true;
}

/* The driver may be on the stack. */
void retry_recovered(struct retry *retry, int status, const struct blk_error *error)
{
    assert(retry->looking && !retry->recovered);
    retry->recovered = true;
    retry->outcome = status;
    if (status < 0 && status != -ECANCELED)
        retry->outcome_error = *error;
    arm(retry);
}

static void pause_cancelled(struct retry *retry)
{
    retry->state = RETRY_PAUSING;
    retry->pause_until = retry->kept_count > 0 ? loop_now(retry->loop) : LOOP_NEVER;
    retry->cancelled = false;
}

static void end_recovery(struct retry *retry)
{
    const struct blk_error *error = &retry->outcome_error;

    retry->recovered = retry->looking = false;
    if (retry->state == RETRY_GONE) {
        retry->owner->settled(retry);
    } else if (retry->outcome == -ECANCELED || (retry->outcome < 0 && retry->cancelled)) {
        pause_cancelled(retry);
        retry->owner->settled(retry);
    } else if (retry->outcome == 0) {
        retry->state = RETRY_HERE;
        retry->window = retry->narrow ? 1 : 0;
        retry->fresh = true;
        if (retry->lost_at != 0)
            retry_tell(retry, BLK_BACK, "%.2f s",
                       (double)(loop_now(retry->loop) - retry->lost_at) / LOOP_SECOND);
        retry->lost_at = 0;
        retry->back_at = loop_now(retry->loop);
        retry->waiting_told = false;
        retry->owner->settled(retry);
    } else if (!rules[error->retry].keep || !retry_may_repeat(retry)) {
        gone(retry, error);
    } else {
        retry->state = RETRY_HERE;
        retry_look(retry, error);
    }
}

/* ---- Items on their way ----------------------------------------------------------------------- */

/* A silence begins anew. After a notice the timer stands at giving up, which is too late for the next
 * one. */
static void moved(struct retry *retry)
{
    retry->progress_at = loop_now(retry->loop);
    if (!retry->waiting_told)
        return;
    retry->waiting_told = false;
    arm(retry);
}

void retry_begin(struct retry *retry)
{
    if (retry->busy++ > 0)
        return;
    moved(retry);
    /* One that is pending already comes too early, looks, and is set anew. */
    if (!retry->timer.pending || retry->state != RETRY_HERE)
        arm(retry);
}

void retry_end(struct retry *retry)
{
    assert(retry->busy > 0);
    retry->busy--;
}

void retry_sent(struct retry *retry)
{
    retry->at_driver++;
}

/* Where a session broke before it had done anything, the next one begins with one request, and takes
 * twice as many with each that is done: a link that breaks after some MiB would otherwise never get
 * on, for all of them are under way when it does. */
static void open_window(struct retry *retry)
{
    if (retry->window == 0)
        return;
    retry->window = retry->window < MAX_WINDOW ? 2 * retry->window : 0;
}

void retry_answered(struct retry *retry, bool success)
{
    bool limited = retry->window != 0;

    assert(retry->at_driver > 0);
    retry->at_driver--;
    if (success) {
        retry->attempts = 0;
        retry->fresh = false;
        open_window(retry);
        moved(retry);
    }
    if (retry->state == RETRY_DRAINING && retry->at_driver == 0) {
        if (retry->cancelled)
            pause_cancelled(retry);
        else
            pause_or_drain(retry);
        arm(retry);
    }
    if (limited) /* there is room for what waits, whatever has become of this one */
        arm(retry);
}

bool retry_keep(struct retry *retry, struct retry_item *item, const struct blk_error *error)
{
    const struct rule *rule = &rules[error->retry];
    uint64_t now = loop_now(retry->loop);

    if (!rule->keep || !retry_may_repeat(retry))
        return false;
    retry->error = *error;
    retry_tell(retry, BLK_REPEATED, "%s", error->text);
    keep(retry, item, add(now, delay_of(rule, item->tries++, now)));
    if (rule->look)
        retry_look(retry, error);
    return true;
}

void retry_wait(struct retry *retry, struct retry_item *item)
{
    if (retry->state == RETRY_PAUSING && retry->pause_until == LOOP_NEVER)
        retry->pause_until = loop_now(retry->loop);
    keep(retry, item, 0);
}

/* ---- Life ------------------------------------------------------------------------------------- */

static void fire(struct loop_timer *timer)
{
    struct retry *retry = container_of(timer, struct retry, timer);
    uint64_t now = loop_now(retry->loop);

    if (retry->recovered)
        end_recovery(retry);
    if (retry->busy > 0 && retry->state != RETRY_GONE && now >= give_up_at(retry)) {
        give_up(retry);
        return;
    }
    if (retry->busy > 0 && now >= waiting_told_at(retry)) {
        char text[UNITS_TEXT];

        retry->waiting_told = true;
        units_duration(text, (now - retry->progress_at) / LOOP_SECOND);
        if (retry->kept_count > 0 && retry->error.code)
            retry_tell(retry, BLK_WAITING, "nothing has moved for %s: %s", text, retry->error.text);
        else
            retry_tell(retry, BLK_WAITING,
                       "nothing has moved for %s, though the server answers pings", text);
    }
    if (retry->state == RETRY_PAUSING && now >= retry->pause_until && retry->busy > 0) {
        retry->state = RETRY_RECOVERING;
        retry->looking = true;
        retry->cancelled = false;
        retry->owner->recover(retry);
    }
    give_back_due(retry);
    arm(retry);
}

void retry_hurry(struct retry *retry, uint64_t ns)
{
    retry->limit = min_u64(retry->limit, add(loop_now(retry->loop), ns));
    if (ns == 0)
        drop_all(retry);
    arm(retry);
}

void retry_init(struct retry *retry, const struct retry_owner *owner, struct loop *loop,
                const char *name)
{
    *retry = (struct retry){
        .owner = owner, .loop = loop, .name = name, .limit = LOOP_NEVER, .timer = {.fire = fire}};
    retry->end = &retry->kept;
}

void retry_release(struct retry *retry)
{
    assert(!retry->kept && !retry->looking);
    loop_timer_cancel(retry->loop, &retry->timer);
}
