/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is looked at before the first write, and after the last. */
#include "job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lunferry/units.h>

#include "sectors.h"

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
        job_fail(job, &req->error, "source");
    else if (req->got < req->len && job->source->size != BLK_SIZE_UNKNOWN)
        job_fail_with(job, EIO, "source: it ended while its start was read");
    else if (req->got < job->targets[0].head_len)
        target_end_of_stream(&job->targets[0], req->got);
    else
        warn_of_sectors(job, min_u64(req->got, req->len));
    job->targets[0].head = job->start; /* freed with the target, whether it wants it or not */
    job->start = NULL;
    job_one_done(job);
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
        job_fail_with(job, ENOMEM, "out of memory");
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

/* The same thing at both ends is lost when it is written, unmapped or made zero before it is read. */
static int check_alias(const struct copy_job *job, unsigned i, struct blk_error *error)
{
    const struct blk_dev *source = source_end_dev(&job->origin, i);
    const struct blk_dev *target = job->targets[0].whole;
    const struct copy_options *options = &job->options;
    uint64_t from, len, to = options->target_offset, end = to + job->origin.size;
    bool apart;

    if (!target || !source->identity || !target->identity ||
        strcmp(source->identity, target->identity) != 0)
        return 0;
    source_end_range(&job->origin, i, &from, &len);
    /* From one place of it to another. */
    apart = to >= from + len || (from >= end && !options->discard && !options->zero_tail);
    if (apart && source->opened.mtime_ns != 0 && !options->allow_live)
        return blk_error_set(
            error, EINVAL,
            "%s and %s are the same file: that the source stays as it is could not "
            "be told, for its times change as it is written to; --allow-live does "
            "without",
            source->name, target->name);
    if (apart)
        return 0;
    if (from >= end)
        return blk_error_set(error, EINVAL,
                             "%s and %s are the same thing, and %s reaches to its end: %" PRIu64
                             " bytes from offset %" PRIu64 " on would be lost before they are read",
                             source->name, target->name,
                             options->discard ? "--discard" : "--zero-tail", len, from);
    if (len == source->size)
        return blk_error_set(error, EINVAL, "%s and %s are the same thing", source->name,
                             target->name);
    return blk_error_set(error, EINVAL,
                         "%s and %s are the same thing, and the ranges overlap: %" PRIu64
                         " bytes from offset %" PRIu64 " on would be written from %" PRIu64 " on",
                         source->name, target->name, len, from, to);
}

/* Is the target this file, or does it take its place? By another name (a link, another way to the server) a file has
 * the same times. */
static bool is_target(const struct copy_job *job, const struct blk_dev *file)
{
    const struct target *target = &job->targets[0];
    const struct blk_dev *dev = target->whole;
    const struct store_attr *old = &target->old;
    const struct blk_stamp *stamp = &file->opened;

    if (strcmp(file->name, job->options.target->text) == 0)
        return true;
    if (dev)
        return dev->identity && file->identity && strcmp(dev->identity, file->identity) == 0;
    return target->exists && old->mtime_ns != 0 && old->mtime_ns == stamp->mtime_ns &&
           old->ctime_ns == stamp->ctime_ns && old->size == stamp->size;
}

/* What an image reads from lies elsewhere than what is read of it: nothing of that may be written to. A new file may
 * take the place of the image itself, which is read to its end all the same. NULL: there is none. */
static const struct blk_dev *target_in_chain(const struct copy_job *job, const struct image *image,
                                             bool with_top)
{
    const struct image_layer *layer;

    for (unsigned i = 0; (layer = image_layer(image, i)) != NULL; i++) {
        if ((i > 0 || with_top) && is_target(job, layer->file))
            return layer->file;
        if (layer->data && is_target(job, layer->data))
            return layer->data;
    }
    return NULL;
}

/* What the target has behind it would be replaced by it. */
static int check_base(struct copy_job *job)
{
    const struct copy_options *options = &job->options;
    char text[400];

    if (!target_in_chain(job, &job->reference.image, true))
        return 0;
    snprintf(
        text, sizeof(text),
        "target: %s is its own backing file, or one behind that: the image needs a name of its "
        "own",
        options->target->text);
    job_fail_with(job, EINVAL, text);
    return -EINVAL;
}

/* Where the source is raw and one file, there are ranges of it. */
static int check_chain(const struct copy_job *job, unsigned i, struct blk_error *error)
{
    const struct image *image = source_end_image(&job->origin, i);
    const struct image_layer *top = image_layer(image, 0);
    bool in_place = job->targets[0].whole != NULL;
    const struct blk_dev *file;

    if (!top)
        return 0;
    file = target_in_chain(job, image, in_place && top->format != IMAGE_RAW);
    if (!file)
        return 0;
    return blk_error_set(error, EINVAL,
                         "target: %s is read as a part of %s, which would be lost with it: the "
                         "copy needs another target",
                         file->name, source_end_dev(&job->origin, i)->name);
}

static int check_source(struct copy_job *job)
{
    const struct blk_dev *target = job->targets[0].dev;
    struct blk_error error;

    blk_error_clear(&error);
    for (unsigned i = 0; i < job->options.source_count && error.code == 0; i++)
        if (check_alias(job, i, &error) == 0)
            check_chain(job, i, &error);
    if (error.code == 0 && image_layout_has_format(&job->options.layout) &&
        job->options.chunk % job->options.layout.cluster_size != 0)
        blk_error_set(&error, EINVAL,
                      "the request size %" PRIu32 " is no multiple of the cluster size, %" PRIu32,
                      job->options.chunk, job->options.layout.cluster_size);
    if (error.code == 0 && target && job->options.chunk % target->limits.align != 0)
        blk_error_set(&error, EINVAL,
                      "the request size %" PRIu32
                      " is no multiple of the target's block size, %" PRIu32,
                      job->options.chunk, target->limits.align);
    if (error.code == 0)
        return 0;
    job_fail(job, &error, NULL);
    return -error.code;
}

static int check_resume(struct copy_job *job)
{
    struct resume *resume = &job->resume;
    const struct target *target = &job->targets[0];
    int status = 0;

    if (!resume->earlier) {
        if (job->options.journal && job->options.journal[0] && !job_can_be_resumed(job))
            job_fail_with(
                job, ENOTSUP,
                "such a copy cannot be resumed, since an end cannot be told from others of "
                "its kind, or it is written in order, or not as a raw image, or only where it "
                "differs: leave out --journal");
        return job->result.status;
    }
    status = resume_check_source(resume, job->source);
    if (status == 0 && target->dev)
        status = resume_check_target(resume, target->dev);
    if (status == 0 && target->new_file != resume->earlier->new_file)
        status = blk_error_set(&resume->error, ESTALE,
                               "target: %s is of another kind than when the copy was begun; start "
                               "anew, without --resume",
                               job->options.target->text);
    if (status < 0)
        job_fail_resume(job);
    return status;
}

static void check_joined(struct copy_job *job)
{
    const struct journal_facts *earlier = job->resume.earlier;

    /* A journal is there for a reservation's key alone. */
    if (job->source->size == BLK_SIZE_UNKNOWN)
        job->pointless = true;
    blk_cap(job->source, job->options.read_size,
            0); /* its start, that is; the lanes see to the rest */
    if (check_resume(job) == 0) {
        job->targets[0].unit = job_digests_unit(job);
        if (target_plan(&job->targets[0], job->source->size) < 0)
            job_fail(job, &job->targets[0].error, NULL);
        else if (earlier && (earlier->granule != tracker_granule(job->targets[0].tracker) ||
                             earlier->head_len != job->targets[0].head_len))
            job_fail_with(
                job, EINVAL,
                "the copy was begun with other options, or by another version; resume it with "
                "the same ones, or start anew");
        else
            read_start(job);
        if (earlier)
            job->targets[0].resumed_end =
                resume_end_of_durable(&job->resume, earlier->granule, job->source->size);
    }
    if (job->result.status == 0 && check_base(job) == 0) {
        job->outstanding += 2;
        reference_fit(&job->reference, job->source->size);
        target_check(&job->targets[0]);
        if (job->options.digests != COPY_DIGESTS_NONE || job->reference.list)
            job_digests_check(job);
    }
}

static void joined(struct source *source, int status)
{
    struct copy_job *job = source->opaque;

    job->source = source->dev;
    if (status < 0)
        job_fail(job, &source->error, "source");
    else if (job->result.status == 0)
        check_joined(job);
    job_one_done(job);
}

/* To the end of a target that is larger; one that is too small is found out later. */
static uint64_t tail(const struct copy_job *job)
{
    const struct blk_dev *target = job->targets[0].dev;

    if (!job->options.zero_tail || !target || target->size <= job->origin.size)
        return 0;
    return target->size - job->origin.size;
}

void job_check(struct copy_job *job)
{
    job->outstanding = 1; /* held until all is started */
    if (check_source(job) < 0) {
        job_one_done(job);
        return;
    }
    job->origin.done = joined;
    source_join(&job->origin, tail(job));
}

/* ---- Has the source changed? ------------------------------------------------------------------ */

static bool has_changed(const struct blk_dev *dev, char *text, size_t size)
{
    const struct blk_stamp *a = &dev->opened, *b = &dev->seen;

    if (a->size != b->size)
        snprintf(text, size, "its size was %" PRIu64 " bytes and is %" PRIu64, a->size, b->size);
    else if (a->mtime_ns != b->mtime_ns)
        snprintf(text, size, "it was written to (its mtime is another)");
    else if (a->ctime_ns != b->ctime_ns)
        snprintf(text, size, "it was changed (its ctime is another)");
    else
        return false;
    return true;
}

static void source_changed(struct copy_job *job)
{
    char what[120], text[600];

    has_changed(job->source, what, sizeof(what));
    snprintf(
        text, sizeof(text),
        "source: %s changed while it was copied: %s; the copy may be a mixture of old and new%s",
        job->source->name, what,
        job->options.allow_live ? ""
                                : ". Copy a snapshot, or, if that is no harm, use --allow-live");
    if (job->options.allow_live) {
        job->options.notice(job->options.opaque, true, text);
        target_finish(&job->targets[0]);
        return;
    }
    job->pointless = true;
    job_fail_with(job, ESTALE, text);
    job_one_done(job);
}

/* A file that is written in place, and changed in the same instant as the source. If the source's head
 * is blank now, and was not when it was read, the two are one, by two names, and it was us: the head
 * must go back. */
static void head_looked_at(struct blk_req *req)
{
    struct copy_job *job = req->opaque;
    const struct target *target = &job->targets[0];
    bool is_target = req->status == 0 && req->got == req->len &&
                     target_is_blank(job->start, req->len) &&
                     !target_is_blank(target->head, req->len);

    free(job->start);
    job->start = NULL;
    if (is_target)
        target_finish(&job->targets[0]);
    else
        source_changed(job);
}

static void look_at_head(struct copy_job *job)
{
    uint64_t len = job->targets[0].head_len;

    job->start = malloc(len);
    if (!job->start) {
        source_changed(job);
        return;
    }
    job->start_iov = (struct iovec){job->start, len};
    job->start_req = (struct blk_req){
        .op = BLK_READ,
        .len = len,
        .iov = &job->start_iov,
        .iovcnt = 1,
        .done = head_looked_at,
        .opaque = job,
    };
    blk_submit(job->source, &job->start_req);
}

/* The same times as the source's, after it has changed? */
static void target_looked_at(struct blk_task *task)
{
    struct copy_job *job = task->opaque;
    const struct blk_stamp *a = &job->source->seen, *b = &job->targets[0].dev->seen;

    if (task->status == 0 && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns &&
        a->size == b->size)
        look_at_head(job);
    else
        source_changed(job);
}

static void source_looked_at(struct blk_task *task)
{
    struct copy_job *job = task->opaque;
    char what[120];

    if (task->status < 0) {
        job_fail(job, &task->error, "source");
        job_one_done(job);
    } else if (!has_changed(job->source, what, sizeof(what))) {
        target_finish(&job->targets[0]);
    } else if (job->options.in_place && job->targets[0].head_len > 0) {
        job->source_task.done = target_looked_at;
        blk_recheck(job->targets[0].dev, &job->source_task);
    } else {
        source_changed(job);
    }
}

static void look_at_source(struct copy_job *job)
{
    job->source_task = (struct blk_task){.done = source_looked_at, .opaque = job};
    blk_recheck(job->source, &job->source_task);
}

/* What was found to be equal has to be so still. */
static void base_looked_at(struct blk_task *task)
{
    struct copy_job *job = task->opaque;
    const struct blk_dev *base = job->reference.dev;
    char what[120], text[600];

    if (task->status < 0) {
        job_fail(job, &task->error, "backing file");
        job_one_done(job);
    } else if (has_changed(base, what, sizeof(what))) {
        snprintf(text, sizeof(text),
                 "backing file: %s changed while it was compared: %s; what was left out may not be "
                 "in it any more",
                 base->name, what);
        job_fail_with(job, ESTALE, text);
        job_one_done(job);
    } else {
        look_at_source(job);
    }
}

/* The last look at what was read comes before the target gets its head or its name. */
void job_finish(struct copy_job *job)
{
    job->outstanding = 1;
    if (!job->reference.dev) {
        look_at_source(job);
        return;
    }
    job->source_task = (struct blk_task){.done = base_looked_at, .opaque = job};
    blk_recheck(job->reference.dev, &job->source_task);
}
