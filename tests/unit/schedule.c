/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "schedule.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* ---- The odometer ----------------------------------------------------------------------------- */

static unsigned char sampled_digit(struct odometer *odometer, unsigned count)
{
    if (odometer->number < 2)
        return odometer->number == 0 ? 0 : (unsigned char)(count - 1);
    odometer->state = odometer->state * 1664525 + 1013904223;
    return (unsigned char)((odometer->state >> 16) % count);
}

unsigned odometer_choose(struct odometer *odometer, unsigned count)
{
    unsigned at = odometer->at;

    if (count == 1)
        return 0;
    assert_in_range(at, 0, ODOMETER_DIGITS - 1);
    if (odometer->sample) {
        odometer->digit[at] = sampled_digit(odometer, count);
    } else if (at == odometer->used) {
        odometer->digit[at] = 0;
        odometer->used++;
    }
    odometer->base[at] = (unsigned char)count;
    odometer->at++;
    return odometer->digit[at];
}

bool odometer_next(struct odometer *odometer)
{
    odometer->used = odometer->at;
    odometer->at = 0;
    odometer->state = ++odometer->number * 2654435761u;
    if (odometer->sample) {
        if (odometer->number < odometer->sample)
            return true;
        odometer->number = 0;
        return false;
    }
    while (odometer->used > 0) {
        unsigned last = odometer->used - 1;

        if (++odometer->digit[last] < odometer->base[last])
            return true;
        odometer->used--;
    }
    return false;
}

/* ---- A job ------------------------------------------------------------------------------------ */

static void explain(void *opaque)
{
    const struct run *run = opaque;

    fprintf(stderr, "job: %s\n", run->name ? run->name : "");
    fprintf(stderr, "fault: operation %u, errno %d\n", run->fake->fault.number,
            run->fake->fault.code);
    fprintf(stderr, "disturbance %d before completion %u, %s\n", run->disturbance.what,
            run->disturbance.when, run->disturbance.late ? "late" : "early");
    fprintf(stderr, "result: %d %s\nchoices:", run->result.status, run->result.error.text);
    for (unsigned i = 0; run->odometer && i < run->odometer->at; i++)
        fprintf(stderr, " %u/%u", run->odometer->digit[i], run->odometer->base[i]);
    fprintf(stderr, "\n");
}

static void notice(void *opaque, bool important, const char *text)
{
    (void)important;
    struct run *run = opaque;

    run->notices++;
    snprintf(run->notice, sizeof(run->notice), "%s", text);
}

static void done(struct copy_job *job, void *opaque)
{
    struct run *run = opaque;

    run->result = *copy_result(job);
    run->done++;
}

static void restart(const struct run *run)
{
    struct fake_disk *disk = run->target;

    if (!disk && run->fs && fake_fs_temporary(run->fs))
        disk = fake_fs_temporary(run->fs)->disk;
    if (disk)
        fake_disk_restart(disk);
}

static void disturb(struct run *run, struct copy_job *job, bool late)
{
    const struct disturbance *disturbance = &run->disturbance;

    if (disturbance->when != run->completions || disturbance->late != late)
        return;
    switch (disturbance->what) {
    case DISTURB_NOT:
        return;
    case DISTURB_STOP:
    case DISTURB_STUCK:
        copy_stop(job);
        break;
    case DISTURB_ABORT:
        copy_abort(job);
        break;
    case DISTURB_RESTART:
        restart(run);
        break;
    }
    run->disturbed = true;
}

/* The oldest operation about which there is no choice; else the one that is chosen. */
static unsigned choose(struct run *run)
{
    const struct fake *fake = run->fake;

    for (unsigned i = 0; i < fake->pending_count; i++) {
        if (!(run->chosen & 1u << fake->pending[i].kind))
            return i;
    }
    return run->odometer ? odometer_choose(run->odometer, fake->pending_count) : 0;
}

static bool stuck(const struct run *run)
{
    return run->disturbed && run->disturbance.what == DISTURB_STUCK;
}

/* Of what is pending, only what was cancelled, or what closes, still gets an answer. */
static unsigned choose_when_stuck(struct run *run)
{
    struct fake *fake = run->fake;

    for (int again = 0; again < 2; again++) {
        for (unsigned i = 0; i < fake->pending_count; i++) {
            const struct fake_op *op = &fake->pending[i];

            if (op->cancelled || op->kind == FAKE_CLOSE || op->kind == FAKE_STORE_CLOSE ||
                (op->kind == FAKE_STORE && op->store_req->op == STORE_REMOVE))
                return i;
        }
        must(fake, !run->drained);
        run->drained = true;
        loop_advance(fake->loop, COPY_DRAIN - 1);
        fake_settle(fake);
        for (unsigned i = 0; i < fake->pending_count; i++)
            must(fake, !fake->pending[i].cancelled);
        loop_advance(fake->loop, 1);
        fake_settle(fake);
    }
    must(fake, !"cancelled when the drain's time is over");
    return 0;
}

void run_job(struct run *run)
{
    struct fake *fake = run->fake;
    struct copy_job *job;

    fake->explain = explain;
    fake->opaque = run;
    run->options.notice = notice;
    run->options.done = done;
    run->options.opaque = run;
    job = copy_start(fake->loop, &run->options);
    must(fake, job);
    for (;;) {
        disturb(run, job, false);
        fake_settle(fake);
        if (run->done == 0)
            disturb(run, job, true);
        fake_settle(fake);
        if (run->look)
            run->look(run);
        if (run->done > 0)
            break;
        must(fake, fake->pending_count > 0); /* or it would hang */
        fake_complete(fake, stuck(run) ? choose_when_stuck(run) : choose(run));
        run->completions++;
    }
    must(fake, run->done == 1);
    must(fake, fake->pending_count == 0);
    copy_free(job);
}
