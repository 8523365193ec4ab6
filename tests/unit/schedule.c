/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "schedule.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

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

static void explain_disturbance(const struct disturbance *disturbance)
{
    if (disturbance->what != DISTURB_NOT)
        fprintf(stderr, "disturbance %d before completion %u, %s, %s\n", disturbance->what,
                disturbance->when, disturbance->late ? "late" : "early",
                disturbance->applies ? "applies" : "does not apply");
}

static void explain(void *opaque)
{
    const struct run *run = opaque;

    fprintf(stderr, "job: %s\n", run->name ? run->name : "");
    fprintf(stderr, "fault: operation %u, errno %d, class %d, %s\n", run->fake->fault.number,
            run->fake->fault.code, run->fake->fault.retry,
            run->fake->fault.applies ? "applies" : "does not apply");
    explain_disturbance(&run->disturbance);
    explain_disturbance(&run->then);
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
    snprintf(run->notice + strlen(run->notice), sizeof(run->notice) - strlen(run->notice), "%s",
             text);
}

static void done(struct copy_job *job, void *opaque)
{
    struct run *run = opaque;

    run->result = *copy_result(job);
    run->done++;
}

static uint64_t unflushed(const struct run *run, const struct fake_disk *disk)
{
    uint64_t bytes = 0, size = min_u64(run->source->size, disk->size);

    for (uint64_t at = run->head; at < size; at += run->granule) {
        uint64_t len = min_u64(run->granule, size - at), first = fake_disk_index(disk, at);

        if (memcmp(disk->written + first, disk->durable + first,
                   fake_disk_index(disk, at + len) - first) != 0)
            bytes += len;
    }
    return bytes;
}

static void restart(struct run *run)
{
    struct fake_disk *disk = run->target;

    if (!disk && run->fs && fake_fs_temporary(run->fs))
        disk = fake_fs_temporary(run->fs)->disk;
    if (disk && run->granule)
        run->unflushed = unflushed(run, disk);
    if (disk)
        fake_disk_restart(disk);
}

static void lose_target(const struct run *run, bool applies)
{
    if (run->fs)
        fake_fs_lose(run->fs, applies);
    else
        fake_disk_lose(run->target, applies);
}

static void carry_out(struct run *run, struct copy_job *job, const struct disturbance *disturbance)
{
    switch (disturbance->what) {
    case DISTURB_NOT:
        return;
    case DISTURB_STOP:
    case DISTURB_STUCK:
    case DISTURB_ABORT:
        run->stopped = loop_now(run->fake->loop);
        if (disturbance->what == DISTURB_ABORT)
            copy_abort(job);
        else
            copy_stop(job);
        break;
    case DISTURB_RESTART:
        restart(run);
        break;
    case DISTURB_LOSE_SOURCE:
        fake_disk_lose(run->source, disturbance->applies);
        break;
    case DISTURB_CRASH:
        restart(run);
        lose_target(run, disturbance->applies);
        break;
    case DISTURB_LOSE_TARGET:
        lose_target(run, disturbance->applies);
        break;
    }
}

static bool is_due(const struct run *run, const struct disturbance *disturbance, bool late)
{
    return disturbance->what != DISTURB_NOT && disturbance->when == run->completions &&
           disturbance->late == late;
}

static void disturb(struct run *run, struct copy_job *job, bool late)
{
    if (!run->disturbed && is_due(run, &run->disturbance, late)) {
        run->disturbed = true;
        carry_out(run, job, &run->disturbance);
    }
    if (!run->then_disturbed && is_due(run, &run->then, late)) {
        run->then_disturbed = true;
        carry_out(run, job, &run->then);
    }
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

/* What a closing target asks for. */
static bool is_clean_up(const struct store_req *req)
{
    return req->op == STORE_REMOVE || req->op == STORE_READ; /* of the lock */
}

/* Of what is pending, only what was cancelled, or what closes, still gets an answer. */
static unsigned choose_when_stuck(struct run *run)
{
    struct fake *fake = run->fake;

    for (int again = 0; again < 2; again++) {
        for (unsigned i = 0; i < fake->pending_count; i++) {
            const struct fake_op *op = &fake->pending[i];

            if (op->cancelled || op->kind == FAKE_CLOSE || op->kind == FAKE_STORE_CLOSE ||
                (op->kind == FAKE_STORE && is_clean_up(op->store_req)))
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

static bool is_over(void *opaque)
{
    return ((const struct run *)opaque)->done > 0;
}

void run_job(struct run *run)
{
    struct fake *fake = run->fake;
    struct copy_job *job;

    fake->explain = explain;
    fake->opaque = run;
    if (!run->options.journal)
        run->options.journal = "";
    run->options.image.format = IMAGE_RAW; /* nothing is read to be sure */
    run->options.notice = notice;
    run->options.done = done;
    run->options.opaque = run;
    run->begun = loop_now(fake->loop);
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
        if (fake->pending_count == 0) { /* or it would hang */
            fake_pass_time(fake, is_over, run);
            continue;
        }
        fake_complete(fake, stuck(run) ? choose_when_stuck(run) : choose(run));
        run->completions++;
    }
    run->ended = loop_now(fake->loop);
    must(fake, run->done == 1);
    must(fake, fake->pending_count == 0);
    copy_free(job);
}
