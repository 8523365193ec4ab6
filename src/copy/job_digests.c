/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Digests of the image's blocks: what is looked at before the first write, and what becomes of them when
 * all is done. Between the two the lanes take them (lane_read.c).
 */
#include "job.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <lunferry/units.h>

#define QCOW2_SECTOR 512u

/* ---- Before anything is written --------------------------------------------------------------- */

/* Each block is taken by one lane, from one chunk. */
static void use_block(struct copy_job *job, uint32_t block)
{
    job->result.digests.block = block;
    job->result.digests.size = job->source->size;
    job->options.chunk = (uint32_t)round_up(job->options.chunk, block);
}

static int check_what_was_read(struct copy_job *job, struct blk_error *error)
{
    const struct digest_file *file = &job->digests.file;
    struct digest_subject subject;
    int status = digest_subject_of(&subject, job->source, &job->source->opened, error);

    if (status == 0)
        status = digest_check_subject(file->list, file->stands_for, &subject, job->source->size,
                                      job->source->name, error);
    if (status < 0)
        blk_error_prefix(error, "%s", job->options.digest_file->text);
    return status;
}

static void opened(struct digest_file *file, int status)
{
    struct copy_job *job = container_of(file, struct copy_job, digests.file);
    struct blk_error error;

    if (status < 0) {
        job_fail(job, &file->error, "digests");
    } else if (job->options.digests == COPY_DIGESTS_CHECK) {
        if (check_what_was_read(job, &error) < 0)
            job_fail(job, &error, "digests");
        else
            use_block(job, digest_list_block(file->list));
    }
    job_one_done(job);
}

static void open_file(struct copy_job *job)
{
    const struct copy_options *options = &job->options;

    job->digests.opened = true;
    job->digests.file = (struct digest_file){
        .loop = job->loop,
        .url = options->digest_file,
        .settings = &options->settings,
        .watcher = &job->target_side.watcher,
        .read = options->digests == COPY_DIGESTS_CHECK,
        .overwrite = options->overwrite,
        .mode = options->mode,
        .done = opened,
        .opaque = job,
    };
    job->outstanding++;
    digest_file_open(&job->digests.file);
}

/* What is known to have no file of digests is not read for nothing. */
static int check_subject(const struct copy_job *job, struct blk_error *error)
{
    const struct copy_options *options = &job->options;
    struct digest_subject subject;

    if (digest_block_for(job->source->size) == 0)
        return blk_error_set(error, EFBIG, "%s is too large for digests: 4 PiB are possible",
                             job->source->name);
    if (options->digests == COPY_DIGESTS_OF_TARGET && !job->targets[0].new_file)
        return blk_error_set(error, EINVAL,
                             "--digests is for a new file, which does not change any more, and %s "
                             "is none; `lunferry checksum' makes the digests of a file that is "
                             "there",
                             options->target->text);
    if (options->digests == COPY_DIGESTS_OF_TARGET &&
        strcmp(options->digest_file->text, options->target->text) == 0)
        return blk_error_set(error, EINVAL,
                             "--digests: %s is TARGET: they need a file of their own",
                             options->digest_file->text);
    /* Those of another length stand for nothing. */
    if (options->digests == COPY_DIGESTS_OF_TARGET && image_layout_has_format(&options->layout) &&
        job->source->size % QCOW2_SECTOR != 0)
        return blk_error_set(
            error, EINVAL,
            "--digests: a qcow2 image has whole sectors of %u bytes, and SOURCE "
            "ends in the middle of one, at %" PRIu64
            "; `lunferry checksum' makes the digests of the image when it is there",
            QCOW2_SECTOR, job->source->size);
    if (options->digests == COPY_DIGESTS_OF_TARGET || !options->digest_file)
        return 0;
    return digest_subject_of(&subject, job->source, &job->source->opened, error);
}

/* Those of the base are only of use for blocks of the same size. */
static int choose_block(struct copy_job *job, struct blk_error *error)
{
    const struct digest_list *base = job->reference.list;
    uint32_t block = base ? digest_list_block(base) : digest_block_for(job->source->size);

    if (!digest_block_fits(job->source->size, block))
        return blk_error_set(error, EFBIG,
                             "%s: its blocks of %" PRIu32 " bytes are too small for %s",
                             job->options.base_digests->text, block, job->source->name);
    use_block(job, block);
    return 0;
}

void job_digests_check(struct copy_job *job)
{
    struct blk_error error;

    blk_error_clear(&error);
    if (check_subject(job, &error) == 0 && choose_block(job, &error) == 0)
        job->digests.digest = digest_new(&error);
    if (!job->digests.digest) {
        job_fail(job, &error, NULL);
        return;
    }
    if (job->options.digest_file)
        open_file(job);
}

uint64_t job_digests_unit(const struct copy_job *job)
{
    if (job->reference.list)
        return digest_list_block(job->reference.list);
    return job->options.digests == COPY_DIGESTS_NONE ? 0 : digest_block_for(job->source->size);
}

int job_digests_begin(struct copy_job *job)
{
    if (job->options.digests == COPY_DIGESTS_NONE && !job->reference.list)
        return 0;
    /* The head of a target in place would be missing: the lanes do not read it. */
    assert(job->targets[0].head_len == 0);
    job->digests.list = digest_list_new(job->source->size, job->result.digests.block);
    job->shared.list = job->digests.list;
    return job->digests.list ? 0 : -ENOMEM;
}

/* ---- When all is done ------------------------------------------------------------------------- */

static void saved(struct digest_file *file, int status)
{
    struct copy_job *job = container_of(file, struct copy_job, digests.file);

    if (status < 0) {
        job_fail(job, &file->error, "digests");
    } else {
        /* Even when the job was stopped: it was too late for that. */
        job->result.status = 0;
        blk_error_clear(&job->result.error);
    }
    job_one_done(job);
}

/* dev: what they stand for. */
static void save(struct copy_job *job, const struct blk_dev *dev, const struct blk_stamp *stamp)
{
    struct blk_error error;

    if (digest_subject_of(&job->digests.subject, dev, stamp, &error) < 0) {
        job_fail(job, &error, "digests");
        job_one_done(job);
        return;
    }
    job->result.digests.mtime_ns = stamp->mtime_ns;
    job->digests.file.done = saved;
    digest_file_save(&job->digests.file, job->digests.list, &job->digests.subject);
}

/* A new image is looked at as those will see it who use it: by its name, with what is behind it. */
static void image_opened(struct image *image, int status)
{
    struct copy_job *job = image->opaque;

    if (status < 0) {
        blk_error_prefix(&image->error, "looking at the new image");
        job_fail(job, &image->error, "target");
        job_one_done(job);
    } else {
        save(job, image->dev, &image->dev->opened);
    }
}

static void look_at_image(struct copy_job *job)
{
    static const char *const any[] = {"any"};

    job->digests.image = (struct image){
        .loop = job->loop,
        .args =
            {
                .url = job->options.target,
                .choice = {.format = job->options.layout.format,
                           .allowed = any,
                           .allowed_count = 1},
                .settings = &job->options.settings,
                .watcher = &job->target_side.watcher,
            },
        .done = image_opened,
        .opaque = job,
    };
    image_open(&job->digests.image);
}

/* As it is now that it has its name, which changes nothing of what counts. */
static void target_looked_at(struct blk_task *task)
{
    struct copy_job *job = task->opaque;
    const struct blk_dev *dev = job->targets[0].dev;

    if (task->status < 0) {
        job_fail(job, &task->error, "target");
        job_one_done(job);
    } else {
        save(job, dev, &dev->seen);
    }
}

static void compare(struct copy_job *job)
{
    const struct digest_list *old = job->digests.file.list, *new = job->digests.list;
    struct copy_digest_result *result = &job->result.digests;
    uint64_t offset = 0, len = 0;

    while (digest_list_differs(old, new, offset + len, &offset, &len)) {
        result->ranges++;
        result->range_bytes += len;
        job->options.differs(job->options.opaque, offset, len);
        /* Up to a block's border, but for the end. */
        if (offset + len == digest_list_size(old))
            break;
    }
}

void job_record_digests(struct copy_job *job)
{
    const struct blk_stamp *source = &job->source->opened; /* it has not changed since */

    job->outstanding = 1;
    if (!digest_list_complete(job->digests.list)) {
        job_fail_with(job, EIO, "digests: not all of the image went through the lanes");
        job_one_done(job);
        return;
    }
    digest_list_root(job->digests.list, job->digests.digest, job->result.digests.root);
    job->result.digests.mtime_ns = source->mtime_ns;
    if (job->options.digests == COPY_DIGESTS_OF_TARGET &&
        image_layout_has_format(&job->options.layout)) {
        look_at_image(job);
        return;
    }
    if (job->options.digests == COPY_DIGESTS_OF_TARGET) {
        job->source_task = (struct blk_task){.done = target_looked_at, .opaque = job};
        blk_recheck(job->targets[0].dev, &job->source_task);
        return;
    }
    if (job->options.digests == COPY_DIGESTS_OF_SOURCE && job->options.digest_file) {
        save(job, job->source, source);
        return;
    }
    if (job->options.digests == COPY_DIGESTS_CHECK)
        compare(job);
    job_one_done(job);
}

/* ---- The end ---------------------------------------------------------------------------------- */

void job_digests_cancel(struct copy_job *job)
{
    if (job->digests.image.dev)
        blk_cancel_all(job->digests.image.dev);
    else
        image_cancel(&job->digests.image);
    if (job->digests.opened)
        digest_file_cancel(&job->digests.file);
}

static void image_closed(struct blk_task *task)
{
    struct copy_job *job = task->opaque;

    image_release(&job->digests.image);
    job_one_done(job);
}

static void close_image(struct copy_job *job)
{
    struct blk_dev *dev = job->digests.image.dev;

    if (!dev) {
        image_release(&job->digests.image);
        return;
    }
    job->digests.image.dev = NULL;
    job->digests.image_task = (struct blk_task){.done = image_closed, .opaque = job};
    job->outstanding++;
    blk_close(dev, &job->digests.image_task);
}

static void closed(struct digest_file *file, int status)
{
    (void)status;
    job_one_done(container_of(file, struct copy_job, digests.file));
}

void job_digests_close(struct copy_job *job)
{
    job->shared.list = NULL;
    digest_list_free(job->digests.list);
    job->digests.list = NULL;
    digest_free(job->digests.digest);
    job->digests.digest = NULL;
    close_image(job);
    if (!job->digests.opened)
        return;
    job->digests.opened = false;
    job->digests.file.done = closed;
    job->outstanding++;
    digest_file_close(&job->digests.file);
}
