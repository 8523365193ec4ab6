/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "resume.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lunferry/units.h>

#include "holder.h"

static void notice(const struct resume *resume, bool important, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void notice(const struct resume *resume, bool important, const char *format, ...)
{
    char text[700];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    resume->options->notice(resume->options->opaque, important, text);
}

static bool is_named(const struct resume *resume)
{
    return resume->options->journal != NULL;
}

/* "file:/home/me/image" for "image": one name in two directories is two files. */
static char *full_text(const struct url *url)
{
    char *text = NULL, *here;

    if (strcmp(url->scheme, "file") != 0 || url->path[0] == '/')
        return strdup(url->text);
    here = get_current_dir_name();
    if (here && asprintf(&text, "file:%s/%s", here, url->path) < 0)
        text = NULL;
    free(here);
    return text;
}

/* All that makes the image, for two copies are the same only if their images are:
 * "nfs://a/b, 512 bytes from offset 1024" or "nfs://a/b + iscsi://c/d/0". */
static char *sources_text(const struct copy_options *options)
{
    char *all = NULL;

    for (unsigned i = 0; i < options->source_count; i++) {
        char *text = full_text(&options->sources[i]), *longer = NULL;

        if (text && asprintf(&longer, "%s%s%s", all ? all : "", all ? " + " : "", text) < 0)
            longer = NULL;
        free(text);
        free(all);
        all = longer;
        if (!all)
            return NULL;
    }
    if (options->image.snapshot) {
        char *whole = all;

        if (asprintf(&all, "%s, snapshot %s", whole, options->image.snapshot) < 0)
            all = NULL;
        free(whole);
    }
    if (all && options->source_len > 0) {
        char *whole = all;

        if (asprintf(&all, "%s, %" PRIu64 " bytes from offset %" PRIu64, whole, options->source_len,
                     options->source_offset) < 0)
            all = NULL;
        free(whole);
    }
    return all;
}

static char *target_text(const struct copy_options *options)
{
    char *text = full_text(options->target), *longer = NULL;

    if (!text || options->target_offset == 0)
        return text;
    if (asprintf(&longer, "%s from offset %" PRIu64 " on", text, options->target_offset) < 0)
        longer = NULL;
    free(text);
    return longer;
}

/* ---- An earlier run --------------------------------------------------------------------------- */

/* Still at it, or, as far as can be told from here, perhaps. */
static bool is_held(const struct journal_facts *facts, char words[HOLDER_WORDS])
{
    struct holder holder, here;

    holder_self(&here);
    if (!facts->holder || !holder_decode(&holder, facts->holder) || holder_is_gone(&holder, &here))
        return false;
    holder_describe(&holder, words);
    return true;
}

static uint64_t durable_bytes(const struct journal *journal)
{
    const struct journal_facts *facts = journal_facts(journal);
    uint64_t bytes = 0, first, count;

    for (uint64_t at = 0; journal_next_durable(journal, at, &first, &count); at = first + count)
        bytes += count * facts->granule;
    return min_u64(bytes, facts->source_stamp.size);
}

static int check_facts(struct resume *resume, const struct journal_facts *facts)
{
    const struct copy_options *options = resume->options;
    char words[HOLDER_WORDS];

    if (strcmp(facts->source, resume->source) != 0 || strcmp(facts->target, resume->target) != 0)
        return blk_error_set(&resume->error, EINVAL, "%s is the journal of another copy, %s to %s",
                             resume->path, facts->source, facts->target);
    if (!options->break_lock && is_held(facts, words))
        return blk_error_set(
            &resume->error, EBUSY,
            "%s is copying %s to %s already, as %s says; if it is known to be dead, "
            "--break-lock goes on all the same",
            words, facts->source, facts->target, resume->path);
    if (options->resume && facts->in_place != options->in_place)
        return blk_error_set(&resume->error, EINVAL,
                             "the copy was begun %s -n; resume it likewise, or start anew",
                             facts->in_place ? "with" : "without");
    return 0;
}

static void loaded(struct blk_task *task)
{
    struct resume *resume = task->opaque;
    const struct copy_options *options = resume->options;
    int status = task->status;
    char done[UNITS_TEXT], size[UNITS_TEXT];

    resume->error = task->error;
    if (status == -ENOENT && options->resume) {
        status = blk_error_set(&resume->error, ENOENT,
                               "there is nothing to resume: no unfinished copy of %s to %s is on "
                               "record in %s",
                               resume->source, resume->target, resume->path);
    } else if (status == -ENOENT || (status < 0 && !options->resume && !is_named(resume))) {
        status = 0; /* resume_begin() will say so, if it still cannot be done then */
    } else if (status == -EBADMSG && is_named(resume)) {
        blk_error_set(&resume->error, EEXIST,
                      "%s; it is left alone: remove it, or name another file for the journal",
                      resume->error.text);
        status = -EEXIST;
    } else if (status == 0) {
        const struct journal_facts *facts = journal_facts(resume->journal);

        status = check_facts(resume, facts);
        units_size(done, durable_bytes(resume->journal));
        units_size(size, facts->source_stamp.size);
        if (status == 0 && options->resume) {
            resume->earlier = facts;
            resume->recording = true;
            notice(resume, false, "resuming: %s of %s are there already", done, size);
        } else if (status == 0) {
            resume->found = true;
            resume->stale = facts->temporary;
            notice(resume, true, "an earlier copy of the same was not finished (%s of %s were); %s",
                   done, size,
                   options->dry_run ? "without --resume, one would start anew"
                                    : "starting anew, for want of --resume");
        }
    }
    resume->done(resume, status);
}

static void fail_soon(struct resume *resume)
{
    resume->done(resume, -resume->error.code);
}

void resume_load(struct resume *resume)
{
    const struct copy_options *options = resume->options;
    int status = 0;

    resume->source = sources_text(options);
    resume->target = target_text(options);
    if (!resume->source || !resume->target) {
        resume->done(resume, blk_error_set(&resume->error, ENOMEM, "out of memory"));
        return;
    }
    if (options->journal && options->journal[0])
        snprintf(resume->path, sizeof(resume->path), "%s", options->journal);
    else if (!options->journal)
        status = journal_default_path(resume->path, resume->source, resume->target, &resume->error);
    if (status < 0 && options->resume) {
        fail_soon(resume);
        return;
    }
    if (status == 0 && resume->path[0])
        resume->journal = journal_new(resume->loop, resume->path, options->notice, options->opaque);
    if (!resume->journal && options->resume) { /* never anew instead */
        blk_error_set(&resume->error, ENOMEM, "out of memory");
        fail_soon(resume);
        return;
    }
    if (!resume->journal) {
        resume->done(resume, 0);
        return;
    }
    resume->task = (struct blk_task){.done = loaded, .opaque = resume};
    journal_load(resume->journal, &resume->task);
}

static int check_identity(struct resume *resume, const struct blk_dev *dev, const char *side,
                          const char *then)
{
    if (!then || !dev->identity)
        return blk_error_set(&resume->error, ENOTSUP,
                             "%s: %s cannot be told from others of its kind, so that nobody knows "
                             "whether it is the one that was copied; start anew, without --resume",
                             side, dev->name);
    if (strcmp(then, dev->identity) != 0)
        return blk_error_set(&resume->error, ESTALE,
                             "%s: %s is not the one of the unfinished copy any more: it is \"%s\" "
                             "and was \"%s\"; start anew, without --resume",
                             side, dev->name, dev->identity, then);
    return 0;
}

int resume_check_source(struct resume *resume, const struct blk_dev *source)
{
    const struct blk_stamp *then = &resume->earlier->source_stamp, *now = &source->opened;
    int status = check_identity(resume, source, "source", resume->earlier->source_identity);

    if (status < 0)
        return status;
    /* Lines are in order, so that this cannot be; but a file that is made anew holds nothing. */
    if (!resume->earlier->target_identity && durable_bytes(resume->journal) > 0)
        return blk_error_set(
            &resume->error, EBADMSG,
            "%s does not say which file holds what was copied; start anew, without "
            "--resume",
            resume->path);
    if (then->size != source->size)
        return blk_error_set(&resume->error, ESTALE,
                             "source: %s has %" PRIu64 " bytes now and had %" PRIu64
                             " when the copy was begun; start anew, without --resume",
                             source->name, source->size, then->size);
    if (then->mtime_ns == now->mtime_ns && then->ctime_ns == now->ctime_ns)
        return 0;
    if (resume->options->allow_live)
        notice(resume, true,
               "source: %s was changed since the copy was begun; the copy may be a mixture of old "
               "and new",
               source->name);
    else
        return blk_error_set(&resume->error, ESTALE,
                             "source: %s was changed since the copy was begun; start anew, without "
                             "--resume",
                             source->name);
    return 0;
}

int resume_check_target(struct resume *resume, const struct blk_dev *target)
{
    return check_identity(resume, target, "target", resume->earlier->target_identity);
}

uint64_t resume_tracker(const struct resume *resume, struct tracker *tracker, uint64_t size)
{
    uint64_t first, count, bytes = 0;

    for (uint64_t at = 0; journal_next_durable(resume->journal, at, &first, &count);
         at = first + count) {
        tracker_resume(tracker, first, count);
        bytes += min_u64((first + count) * tracker_granule(tracker), size) -
                 first * tracker_granule(tracker);
    }
    return bytes;
}

uint64_t resume_end_of_durable(const struct resume *resume, uint64_t granule, uint64_t size)
{
    uint64_t first, count, end = 0;

    for (uint64_t at = 0; journal_next_durable(resume->journal, at, &first, &count);
         at = first + count)
        end = min_u64((first + count) * granule, size);
    return end;
}

/* ---- This run --------------------------------------------------------------------------------- */

static void begun(struct blk_task *task)
{
    struct resume *resume = task->opaque;
    int status = task->status;

    if (status == 0) {
        resume->recording = true;
    } else if (is_named(resume) || status == -EEXIST) { /* somebody else's, begun meanwhile */
        resume->error = task->error;
    } else {
        notice(resume, false, "without a journal this copy could not be resumed: %s",
               task->error.text);
        status = 0;
    }
    resume->done(resume, status);
}

void resume_begin(struct resume *resume)
{
    char text[HOLDER_TEXT];
    struct holder self;

    if (!resume->journal) {
        resume->done(resume, 0);
        return;
    }
    holder_self(&self);
    holder_encode(&self, text);
    resume->facts.source = resume->source;
    resume->facts.target = resume->target;
    resume->facts.holder = text;
    if (resume->earlier) {
        journal_note(resume->journal, &resume->facts);
        resume->facts.holder = NULL;
        resume->done(resume, 0);
        return;
    }
    resume->task = (struct blk_task){.done = begun, .opaque = resume};
    journal_begin(resume->journal, &resume->facts, &resume->task);
    resume->facts.holder = NULL;
}

void resume_note(struct resume *resume)
{
    char text[HOLDER_TEXT];
    struct holder self;

    if (!resume->recording)
        return;
    holder_self(&self);
    resume->facts.holder = (char *)(uintptr_t)holder_encode(&self, text);
    journal_note(resume->journal, &resume->facts);
    resume->facts.holder = NULL;
}

void resume_record(struct resume *resume, const struct tracker *tracker)
{
    uint64_t count, first;

    if (!resume->recording)
        return;
    for (uint64_t at = 0; (first = tracker_durable_run(tracker, at, &count), count > 0);
         at = first + count)
        journal_durable(resume->journal, first, count);
}

static void closed(struct blk_task *task)
{
    struct resume *resume = task->opaque;

    resume->journal = NULL;
    resume->recording = resume->recording && !resume->complete;
    resume->done(resume, 0);
}

static void ended(struct blk_task *task)
{
    struct resume *resume = task->opaque;

    if (task->status < 0)
        notice(resume, true, "the copy is complete, but its journal is still there: %s",
               task->error.text);
    *task = (struct blk_task){.done = closed, .opaque = resume};
    journal_close(resume->journal, task);
}

void resume_close(struct resume *resume, bool complete)
{
    resume->complete = complete;
    free(resume->source);
    free(resume->target);
    resume->source = resume->target = resume->facts.source = resume->facts.target = NULL;
    if (!resume->journal) {
        resume->recording = false;
        resume->done(resume, 0);
        return;
    }
    resume->task = (struct blk_task){.done = complete ? ended : closed, .opaque = resume};
    if (complete)
        journal_end(resume->journal, &resume->task);
    else
        journal_close(resume->journal, &resume->task);
}
