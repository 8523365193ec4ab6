/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <lunferry/copy.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "lane_thread.h"
#include "sectors.h"
#include "target.h"

struct copy_job {
    struct loop *loop;
    struct copy_options options;
    enum copy_phase phase;
    unsigned outstanding; /* operations that the phase waits for */
    struct copy_result result;
    struct loop_call call; /* runs the end */
    struct loop_timer drain;

    struct blk_dev *source;
    struct blk_task source_task;
    struct target targets[1];

    unsigned char *start; /* of the source */
    struct iovec start_iov;
    struct blk_req start_req;

    struct lane_shared shared;
    struct lane first;           /* on the job's loop, with the job's devices */
    struct lane_thread *threads; /* options.lanes - 1 */
    unsigned lanes_at_work;
    struct loop_watch watch; /* notices threads that have ended */
};

static void enter(struct copy_job *job, enum copy_phase phase);

/* ---- Ends and errors -------------------------------------------------------------------------- */

static void fail(struct copy_job *job, const struct blk_error *error, const char *side)
{
    if (job->result.status < 0)
        return;
    job->result.status = -error->code;
    job->result.error = *error;
    if (side)
        blk_error_prefix(&job->result.error, "%s", side);
}

static void fail_with(struct copy_job *job, int code, const char *text)
{
    struct blk_error error;

    blk_error_set(&error, code, "%s", text);
    fail(job, &error, NULL);
}

/* One operation of the phase has ended; after the last, the next phase begins. */
static void one_done(struct copy_job *job)
{
    assert(job->outstanding > 0);
    if (--job->outstanding > 0)
        return;
    if (job->phase == COPY_CLOSING)
        enter(job, COPY_ENDED);
    else if (job->result.status < 0)
        enter(job, COPY_CLOSING);
    else
        enter(job, job->phase + 1);
}

static void target_done(struct target *target, int status)
{
    struct copy_job *job = target->opaque;

    if (status < 0) {
        fail(job, &target->error, "target");
        /* Do not wait for the other end to time out. */
        if (job->phase == COPY_OPENING && job->outstanding > 1)
            blk_cancel_all(job->source);
    } else if (job->phase == COPY_FINISHING) {
        /* Even when the job was stopped: it was too late for that. */
        job->result.status = 0;
        blk_error_clear(&job->result.error);
        atomic_fetch_add(&job->shared.done, target->head_len);
    }
    one_done(job);
}

static void source_done(struct blk_task *task)
{
    struct copy_job *job = task->opaque;

    if (task->status < 0) {
        fail(job, &task->error, "source");
        if (job->phase == COPY_OPENING && job->outstanding > 1)
            target_cancel(&job->targets[0]);
    }
    one_done(job);
}

static struct blk_task *source_task(struct copy_job *job)
{
    job->source_task = (struct blk_task){.done = source_done, .opaque = job};
    return &job->source_task;
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void open_both(struct copy_job *job)
{
    struct blk_open_args args = {
        .url = job->options.source,
        .settings = &job->options.settings,
    };

    job->outstanding = 2;
    job->source = blk_open(job->loop, &args, source_task(job));
    if (!job->source) {
        fail_with(job, ENOMEM, "out of memory");
        job->outstanding--;
    }
    target_open(&job->targets[0]);
}

/* ---- Checking --------------------------------------------------------------------------------- */

static void warn_of_sectors(const struct copy_job *job, uint64_t len)
{
    const struct blk_dev *target = job->targets[0].dev;
    unsigned sector = sectors_of_table(job->start, min_u64(len, SECTORS_LOOK));
    char text[300];

    if (sector == 0 || sector == target->limits.align || target->limits.align < 512)
        return;
    snprintf(text, sizeof(text),
             "the image has a partition table for %u-byte sectors, %s has %" PRIu32
             "-byte blocks: the partitions will not be recognised there",
             sector, target->name, target->limits.align);
    job->options.notice(job->options.opaque, false, text);
}

static void start_read(struct blk_req *req)
{
    struct copy_job *job = req->opaque;

    if (req->status < 0)
        fail(job, &req->error, "source");
    else if (req->got < req->len)
        fail_with(job, EIO, "source: it ended while its start was read");
    else
        warn_of_sectors(job, req->len);
    job->targets[0].head = job->start; /* freed with the target, whether it wants it or not */
    job->start = NULL;
    one_done(job);
}

/* The head of a target in place, and what tells for which sector size an image was made. */
static void read_start(struct copy_job *job)
{
    const struct target *target = &job->targets[0];
    uint64_t len = target->head_len > SECTORS_LOOK ? target->head_len : SECTORS_LOOK;

    if (target->head_len == 0 && (!target->dev || !(target->dev->caps & BLK_BARE)))
        return;
    len = min_u64(len, job->source->size);
    job->start = malloc(len);
    if (!job->start) {
        fail_with(job, ENOMEM, "out of memory");
        return;
    }
    job->start_iov = (struct iovec){job->start, len};
    job->start_req = (struct blk_req){
        .op = BLK_READ,
        .len = len,
        .iov = &job->start_iov,
        .iovcnt = 1,
        .done = start_read,
        .opaque = job,
    };
    job->outstanding++;
    blk_submit(job->source, &job->start_req);
}

static int check_source(struct copy_job *job)
{
    const struct blk_dev *source = job->source, *target = job->targets[0].dev;
    struct blk_error error;

    if (source->size == 0)
        blk_error_set(&error, EINVAL, "%s is empty: there is nothing to copy", source->name);
    else if (target && source->identity && target->identity &&
             strcmp(source->identity, target->identity) == 0)
        blk_error_set(&error, EINVAL, "%s and %s are the same thing", source->name, target->name);
    else if (target && job->options.chunk % target->limits.align != 0)
        blk_error_set(&error, EINVAL,
                      "the request size %" PRIu32
                      " is no multiple of the target's block size, %" PRIu32,
                      job->options.chunk, target->limits.align);
    else
        return 0;
    fail(job, &error, NULL);
    return -error.code;
}

static void check(struct copy_job *job)
{
    job->outstanding = 1; /* held until all is started */
    if (check_source(job) == 0) {
        if (target_plan(&job->targets[0], job->source->size) < 0)
            fail(job, &job->targets[0].error, NULL);
        else
            read_start(job);
    }
    if (job->result.status == 0) {
        job->outstanding++;
        target_check(&job->targets[0]);
    }
    one_done(job);
}

/* ---- Copying ---------------------------------------------------------------------------------- */

static void kick_lanes(struct copy_job *job)
{
    if (job->first.slots)
        lane_kick(&job->first);
    for (unsigned i = 0; i + 1 < job->options.lanes; i++)
        lane_thread_kick(&job->threads[i]);
}

static void lane_ended(struct copy_job *job, const struct blk_error *error)
{
    if (error->code != 0)
        fail(job, error, NULL);
    if (atomic_load(&job->shared.stopping))
        kick_lanes(job);
    if (--job->lanes_at_work > 0)
        return;
    loop_unwatch(job->loop, &job->watch);
    job->outstanding = 1;
    one_done(job);
}

static void first_ended(struct lane *lane)
{
    lane_ended(container_of(lane, struct copy_job, first), &lane->error);
}

static void prepare_watch(struct loop_watch *watch, struct loop_interest *interest)
{
    struct copy_job *job = container_of(watch, struct copy_job, watch);

    for (unsigned i = 0; i + 1 < job->options.lanes; i++) {
        if (job->threads[i].started && atomic_load(&job->threads[i].ended))
            interest->deadline = 0;
    }
}

static void serve_watch(struct loop_watch *watch, short revents)
{
    struct copy_job *job = container_of(watch, struct copy_job, watch);

    (void)revents;
    for (unsigned i = 0; i + 1 < job->options.lanes; i++) {
        struct lane_thread *thread = &job->threads[i];

        if (thread->started && atomic_load(&thread->ended)) {
            lane_thread_join(thread);
            lane_ended(job, &thread->lane.error);
        }
    }
}

static void start_threads(struct copy_job *job)
{
    struct blk_error error;

    for (unsigned i = 0; i + 1 < job->options.lanes; i++) {
        struct lane_thread *thread = &job->threads[i];

        thread->number = i + 1;
        thread->shared = &job->shared;
        thread->source = job->source;
        thread->target = job->targets[0].dev;
        thread->owner = job->loop;
        if (lane_thread_start(thread, &error) < 0) {
            fail(job, &error, NULL);
            atomic_store(&job->shared.stopping, true);
            kick_lanes(job);
            return;
        }
        job->lanes_at_work++;
    }
}

/*
 * Enough chunks in flight to fill the path, and not many more: beyond that they only wait in queues
 * of the libraries and the kernel, and cost CPU there. Measured with chunks of 512 KiB
 * (docs/performance.md).
 */
static unsigned depth_for(uint64_t round_trip)
{
    if (round_trip < LOOP_MSECOND / 2)
        return 8;
    if (round_trip < 5 * LOOP_MSECOND)
        return 16;
    return round_trip < 50 * LOOP_MSECOND ? 32 : 64;
}

static void choose_depth(struct copy_job *job)
{
    uint64_t source = job->source->round_trip, target = job->targets[0].dev->round_trip;

    if (job->options.depth == 0)
        job->options.depth = depth_for(source > target ? source : target);
    job->result.depth = job->options.depth;
}

static void copy(struct copy_job *job)
{
    struct target *target = &job->targets[0];

    choose_depth(job);

    plan_init(&job->shared.plan, target->head_len, job->source->size,
              tracker_granule(target->tracker), job->options.lanes);
    job->shared.tracker = target->tracker;
    job->result.buffer_bytes =
        (uint64_t)job->options.lanes * job->options.depth * job->options.chunk;
    job->first.loop = job->loop;
    job->first.source = job->source;
    job->first.target = target->dev;
    job->first.shared = &job->shared;
    job->first.ended = first_ended;
    loop_watch(job->loop, &job->watch);
    job->lanes_at_work = 1;
    if (lane_start(&job->first) < 0) {
        struct blk_error error;

        blk_error_set(&error, ENOMEM, "no memory for %u slots of %" PRIu32 " bytes",
                      job->options.depth, job->options.chunk);
        lane_ended(job, &error);
        return;
    }
    start_threads(job);
}

/* ---- Closing ---------------------------------------------------------------------------------- */

static void close_all(struct copy_job *job)
{
    job->result.touched = job->targets[0].touched;
    job->result.kept = job->targets[0].new_file && !job->targets[0].maybe_named;
    job->result.bytes = atomic_load(&job->shared.done);
    lane_release(&job->first);
    job->outstanding = 1;
    if (job->source) {
        job->outstanding++;
        blk_close(job->source, source_task(job));
        job->source = NULL;
    }
    target_close(&job->targets[0]);
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
        open_both(job);
        break;
    case COPY_CHECKING:
        check(job);
        break;
    case COPY_PREPARING:
        job->outstanding = 1;
        target_prepare(&job->targets[0]);
        break;
    case COPY_COPYING:
        copy(job);
        break;
    case COPY_FINISHING:
        job->outstanding = 1;
        target_finish(&job->targets[0]);
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

static void enter(struct copy_job *job, enum copy_phase phase)
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
    assert(options->lanes >= 1 && options->lanes <= COPY_MAX_LANES);
    assert(options->chunk >= 4096 && options->chunk % 4096 == 0 &&
           options->chunk <= COPY_MAX_CHUNK);
    assert(options->lanes == 1 || !options->in_order);
    if (!job)
        return NULL;
    job->threads = calloc(options->lanes, sizeof(*job->threads));
    if (!job->threads) {
        free(job);
        return NULL;
    }
    job->loop = loop;
    job->options = *options;
    job->call.run = run_phase;
    job->drain.fire = drain_is_over;
    job->watch.prepare = prepare_watch;
    job->watch.service = serve_watch;
    job->shared.options = &job->options;
    job->targets[0] = (struct target){
        .loop = loop,
        .options = &job->options,
        .done = target_done,
        .opaque = job,
    };
    enter(job, COPY_OPENING);
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
        fail_with(job, ECANCELED, "interrupted");
}

void copy_stop(struct copy_job *job)
{
    if (job->phase >= COPY_CLOSING || job->drain.pending || atomic_load(&job->shared.aborting))
        return;
    interrupt(job);
    job->targets[0].stopping = true;
    loop_timer_set(job->loop, &job->drain, loop_now(job->loop) + COPY_DRAIN);
    if (job->phase == COPY_COPYING)
        kick_lanes(job);
    else if (job->phase <= COPY_CHECKING)
        copy_abort(job); /* nothing on the wire is worth waiting for */
}

void copy_abort(struct copy_job *job)
{
    if (job->phase >= COPY_CLOSING || atomic_load(&job->shared.aborting))
        return;
    interrupt(job);
    atomic_store(&job->shared.aborting, true);
    if (job->phase == COPY_COPYING) {
        kick_lanes(job);
        return;
    }
    if (job->source)
        blk_cancel_all(job->source);
    target_cancel(&job->targets[0]);
}

void copy_progress(const struct copy_job *job, struct copy_progress *progress)
{
    *progress = (struct copy_progress){
        .phase = job->phase,
        .total = job->phase > COPY_CHECKING && job->source ? job->source->size : 0,
        .done = atomic_load(&job->shared.done),
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
